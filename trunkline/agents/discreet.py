"""Models of third parties that are told of the conversation what their agent's policy lets them know."""

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, cast

from trunkline.ports import (
    CallFacts,
    Llm,
    LlmEvent,
    LlmSession,
    Message,
    Realtime,
    RealtimeEvent,
    RealtimeSession,
)
from trunkline.privacy.calls import RedactedConversation, Speakers, redacted_message
from trunkline.privacy.redaction import Policy
from trunkline.types import Format


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


class DiscreetRealtime:
    """Before one: what it is told in words. It hears the caller by itself."""

    def __init__(self, model: Realtime, policy: Policy) -> None:
        self._model, self._policy = model, policy

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def open(
        self,
        call: CallFacts,
        format: Format,
        conversation: Sequence[Message],
        on_event: Callable[[RealtimeEvent], None],
    ) -> RealtimeSession:
        speakers = Speakers(self._policy)
        told = tuple(redacted_message(message, speakers) for message in conversation)
        return cast(RealtimeSession, _DiscreetSession(self._model.open(call, format, told, on_event), speakers))


class _DiscreetSession:
    def __init__(self, session: RealtimeSession, speakers: Speakers) -> None:
        self._session, self._speakers = session, speakers

    def tell(self, message: Message, audio: bytes = b"") -> None:
        self._session.tell(redacted_message(message, self._speakers), audio)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def discreet_realtime(model: Realtime, policy: Policy) -> Realtime:
    return cast(Realtime, DiscreetRealtime(model, policy)) if model.third_party and policy.kinds else model
