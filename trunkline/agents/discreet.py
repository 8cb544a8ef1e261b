"""A language model of a third party that is told of the conversation what its agent's policy lets it know."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from trunkline.ports import CallFacts, Llm, LlmEvent, LlmSession, Message
from trunkline.privacy.calls import RedactedConversation
from trunkline.privacy.redaction import Policy


class DiscreetLlm:
    """Before one; everything else is its own."""

    def __init__(self, llm: Llm, policy: Policy) -> None:
        self._llm, self._policy = llm, policy

    def __getattr__(self, name: str) -> Any:
        return getattr(self._llm, name)

    def open(self, call: CallFacts) -> LlmSession:
        return _Discreet(self._llm.open(call), self._policy)


class _Discreet:
    def __init__(self, session: LlmSession, policy: Policy) -> None:
        self._session, self._redacted = session, RedactedConversation(policy)

    def reply(self, conversation: Sequence[Message], *, understood: bool = True) -> AsyncGenerator[LlmEvent, None]:
        return self._session.reply(self._redacted(conversation), understood=understood)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def discreet(llm: Llm, policy: Policy) -> Llm:
    return DiscreetLlm(llm, policy) if llm.third_party and policy.kinds else llm
