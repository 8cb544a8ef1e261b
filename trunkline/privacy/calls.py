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
from trunkline.privacy.redaction import NOTHING, Memory, Policy, Redactor, redact, redact_value
from trunkline.types import CallId, ruled_as

CALLS = 10_000
"""Whose state is kept. A turn of a call that was never ended, and is beyond, is redacted by itself."""


_OURS = frozenset((NAMED, "disclosed"))
"""Events of what we say ourselves: a number to call back is nobody's secret."""
AGENT_CHANGED = "agent_changed"
TOOLS_USED = "tools_used"
"""By a turn, with what they were given: `turn` is its index, `tools` name, arguments and outcome of each."""
LEFT_MESSAGE = "message"
"""The caller's own words."""


@dataclass(frozen=True, slots=True)
class Policies:
    """By agent: its name, or of the desk's `default/reception`, whatever they call themselves."""

    every: Policy = NOTHING
    agents: Mapping[str, Policy] = field(default_factory=dict)

    def of(self, agent: str) -> Policy:
        return self.agents.get(ruled_as(agent), self.every)


class Speakers:
    """Both ends of a call. What one of them gives as their name is known of the other."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._known = Known(policy.names)
        self._words = self._known.words
        self.caller = Redactor(policy, self._known)
        self.agent = Redactor(policy, self._known, self.caller)

    def attended_by(self, policy: Policy) -> None:
        """Another agent has taken over: from here on what either policy hides is hidden."""
        if self.policy | policy != self.policy:
            self.policy |= policy
            self._known.learn(policy.names)
            self.caller.follow(self.policy)
            self.agent.follow(self.policy)

    @property
    def memory(self) -> tuple[Memory, Memory, frozenset[str]]:
        """Between two turns."""
        if len(self._known) != len(self._words):
            self._words = self._known.words
        return self.caller.memory, self.agent.memory, self._words

    def restore(self, memory: tuple[Memory, Memory, frozenset[str]]) -> None:
        caller, agent, self._words = memory
        self.caller.restore(caller)
        self.agent.restore(agent)
        self._known.restore(self._words)


def by_itself(policy: Policy) -> Policy:
    """Of what nobody has said: events hold numbers of many kinds, and the record its parties' own."""
    return policy.without("phone", "number", "name")


_FOUND_BY = ("session_id", "device_id", "device_account")
"""Of a device's call, in `attributes`: a device's serial number can be one that Luhn would take for a card."""


class RedactedRecords:
    """A RecordSink before the one that writes. What the record is found by stays: the parties' numbers, the carrier's
    name for the call, whose device it was."""

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
            # What was cut is judged with what was heard before it. Something personal across the cut: nothing of it.
            both = speakers.agent.aside(f"{turn.agent_text} {turn.cut_text}") if turn.cut_text else ""
            agent = speakers.agent.whole(turn.agent_text)
            cut = both[len(agent) :].strip() if both.startswith(agent) else ""
            evidence = redacted_evidence(turn.evidence, speakers.policy)
            turn = replace(turn, caller_text=caller, agent_text=agent, cut_text=cut, evidence=evidence)
            return replace(event, turn=turn)
        if isinstance(event, CallEvent):
            if event.kind in _OURS or not event.data:
                return event
            speakers = self._of(event.call_id)
            if event.kind == AGENT_CHANGED:
                speakers.attended_by(self._policies.of(str(event.data.get("agent", ""))))
            if event.kind == LEFT_MESSAGE:
                return replace(event, data=redact_value(event.data, speakers.caller.aside))
            policy = by_itself(speakers.policy) if event.kind != TOOLS_USED else speakers.policy
            data = redact_value(event.data, lambda text: redact(text, policy))
            if event.kind == "attributes":
                data |= {name: event.data[name] for name in _FOUND_BY if name in event.data}
            return replace(event, data=data)
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
        self._begin(policy)

    def _begin(self, policy: Policy) -> None:
        self._policy = policy
        self._speakers = Speakers(policy)
        self._seen: list[Message] = []
        self._redacted: list[Message] = []
        self._before = [self._speakers.memory]  # each message, and the next one

    def attended_by(self, policy: Policy) -> None:
        """Another agent has taken over: all of it by both policies."""
        if self._policy | policy != self._policy:
            self._begin(self._policy | policy)

    def __call__(self, conversation: Sequence[Message]) -> tuple[Message, ...]:
        """Cheap as far as it is the one of before: an answer to half of an utterance is
        taken back."""
        if not self._policy.kinds:
            return tuple(conversation)
        both = zip(self._seen, conversation, strict=False)
        shared = next((at for at, (a, b) in enumerate(both) if a is not b), min(len(self._seen), len(conversation)))
        if shared < len(self._seen):
            del self._seen[shared:], self._redacted[shared:], self._before[shared + 1 :]
            self._speakers.restore(self._before[-1])
        for message in conversation[shared:]:
            self._seen.append(message)
            self._redacted.append(redacted_message(message, self._speakers))
            self._before.append(self._speakers.memory)
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
        self._speakers = Speakers(policy)

    def attended_by(self, policy: Policy) -> None:
        self._speakers.attended_by(policy)

    def before(self, tell: Follower) -> Follower:
        return lambda progress: tell(self._redacted(progress))

    def _redacted(self, told: Progress) -> Progress:
        if not self._speakers.policy.kinds:
            return told
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
            return replace(told, result=redact(told.result, by_itself(self._speakers.policy)))
        return told
