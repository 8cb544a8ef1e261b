"""Redaction of a call: its record before it is written, its conversation before it is kept, what is told of it live."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from trunkline.live import Follower, Heard, Progress, Saying, ToolDone
from trunkline.ports import (
    NAMED,
    CallEnded,
    CallEvent,
    CallStarted,
    Message,
    RecordEvent,
    RecordSink,
    TurnEnded,
    TurnEvidence,
)
from trunkline.privacy.names import Known
from trunkline.privacy.redaction import NOTHING, Policy, Redactor, redact, redact_value
from trunkline.types import CallId

CALLS = 10_000
"""Whose state is kept. A turn of a call that was never ended, and is beyond, is redacted by itself."""


_OURS = frozenset((NAMED, "disclosed"))
"""Events of what we say ourselves: a number to call back is nobody's secret."""


@dataclass(frozen=True, slots=True)
class Policies:
    """By agent."""

    every: Policy = NOTHING
    agents: Mapping[str, Policy] = field(default_factory=dict)

    def of(self, agent: str) -> Policy:
        return self.agents.get(agent, self.every)


class Speakers:
    """Both ends of a call. What one of them gives as their name is known of the other."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        known = Known(policy.names)
        self.caller = Redactor(policy, known)
        self.agent = Redactor(policy, known, self.caller)


def by_itself(policy: Policy) -> Policy:
    """Of what nobody has said: events hold numbers of many kinds, and the record its parties' own."""
    return policy.without("phone", "number", "name")


class RedactedRecords:
    """A RecordSink before the one that writes. What the record is found by stays: the parties' numbers, the carrier's
    name for the call."""

    def __init__(self, records: RecordSink, policies: Policies) -> None:
        self._records, self._policies = records, policies
        self._calls: dict[CallId, Speakers] = {}

    def append(self, event: RecordEvent) -> None:
        self._records.append(self._redacted(event))

    def _redacted(self, event: RecordEvent) -> RecordEvent:
        if isinstance(event, CallStarted):
            if len(self._calls) >= CALLS:
                del self._calls[next(iter(self._calls))]
            self._calls[event.call_id] = Speakers(self._policies.of(event.agent))
            return event
        if isinstance(event, TurnEnded):
            speakers = self._of(event.call_id)
            turn = event.turn
            caller = speakers.caller.whole(turn.caller_text)
            agent = speakers.agent.whole(turn.agent_text)
            evidence = redacted_evidence(turn.evidence, speakers.policy)
            return replace(event, turn=replace(turn, caller_text=caller, agent_text=agent, evidence=evidence))
        if isinstance(event, CallEvent):
            if event.kind in _OURS or not event.data:
                return event
            policy = by_itself(self._of(event.call_id).policy)
            return replace(event, data=redact_value(event.data, lambda text: redact(text, policy)))
        if isinstance(event, CallEnded):
            policy = by_itself(self._of(event.call_id).policy)
            self._calls.pop(event.call_id, None)
            return replace(event, detail=redact(event.detail, policy)) if event.detail else event
        return event

    def _of(self, call_id: CallId) -> Speakers:
        return self._calls.get(call_id) or Speakers(self._policies.every)


def redacted_evidence(evidence: TurnEvidence | None, policy: Policy) -> TurnEvidence | None:
    """What tools were given, as in the conversation."""
    if evidence is None or not evidence.tools or not policy.kinds:
        return evidence
    uses = (
        replace(use, arguments=redact_value(use.arguments, lambda said: redact(said, policy))) for use in evidence.tools
    )
    return replace(evidence, tools=tuple(uses))


class RedactedConversation:
    """Of one call, for whoever keeps it."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._speakers = Speakers(policy)
        self._seen: list[Message] = []
        self._redacted: list[Message] = []

    def __call__(self, conversation: Sequence[Message]) -> tuple[Message, ...]:
        """Cheap where it is the one of before, with more behind it."""
        if not self._policy.kinds:
            return tuple(conversation)
        shared = len(self._seen)
        if len(conversation) < shared or any(
            a is not b for a, b in zip(self._seen, conversation[:shared], strict=False)
        ):
            self._speakers, self._seen, self._redacted, shared = Speakers(self._policy), [], [], 0
        for message in conversation[shared:]:
            self._seen.append(message)
            self._redacted.append(redacted_message(message, self._speakers))
        return tuple(self._redacted)


def redacted_message(message: Message, speakers: Speakers) -> Message:
    """One that holds nothing to redact is given back itself."""
    speaker = speakers.caller if message.role == "caller" else speakers.agent
    text = speaker.whole(message.text)
    calls = tuple(
        replace(call, arguments=redact_value(call.arguments, lambda said: redact(said, speakers.policy)))
        for call in message.tool_calls
    )
    if text == message.text and calls == message.tool_calls:
        return message
    return replace(message, text=text, tool_calls=calls)


class RedactedFollowing:
    """What a follower of one call is told."""

    def __init__(self, policy: Policy) -> None:
        self._policy, self._speakers = policy, Speakers(policy)

    def before(self, tell: Follower) -> Follower:
        if not self._policy.kinds:
            return tell
        return lambda progress: tell(self._redacted(progress))

    def _redacted(self, told: Progress) -> Progress:
        if isinstance(told, Heard):
            caller = self._speakers.caller
            return replace(told, text=(caller.whole if told.final else caller.preview)(told.text))
        if isinstance(told, Saying):
            agent = self._speakers.agent
            heard = len(agent.preview(told.text[: told.heard_characters]))
            whole = told.heard_characters >= len(told.text)
            text = (agent.whole if told.over else agent.preview)(told.text)
            return replace(told, text=text, heard_characters=len(text) if whole else min(heard, len(text)))
        if isinstance(told, ToolDone):
            return replace(told, result=redact(told.result, by_itself(self._policy)))
        return told
