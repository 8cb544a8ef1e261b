"""One exchange as it happens: what the caller said, what the agent wrote, did and spoke, and when. Plain values.

When it is over it becomes the messages that the conversation keeps, cut to what was heard, and a TurnRecord. A phrase
that was played to its end was heard as it was written; of the one that was cut, the words that the playout ledger
knows to be heard.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trunkline.agents.prompts import prompt_of
from trunkline.media.ledger import Ledger
from trunkline.ports import Expectation, Message, ToolCall, ToolUse, TurnEvidence, TurnRecord

NOT_HANDED_OFF = json.dumps({"ok": False, "code": "interrupted", "why": "the caller spoke: you go on"})
UNKNOWN_OUTCOME = json.dumps({"ok": False, "code": "interrupted", "why": "it may have been done or not"})


@dataclass(slots=True)
class Phrase:
    """Spoken from `start_ms` of the timeline on; `end_ms` is None until all of its audio is there."""

    text: str
    start_ms: int
    end_ms: int | None = None


@dataclass(slots=True)
class Written:
    """A message of the agent, while it is written, spoken and acted upon."""

    text: str = ""
    phrases: list[Phrase] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    """The tools that were begun."""
    results: dict[str, str] = field(default_factory=dict)
    """By the id of their call."""
    language: str = ""
    """What it is spoken in: a tag of the agent."""
    changed: dict[str, str] = field(default_factory=dict)
    """The language from there on, by the id of the call that changed it."""
    author: str = ""
    """Key of the model that asked for the tools."""
    anew: bool = False
    """That model knows nothing of what others did in this turn: it answers the caller itself."""

    def messages(self, spoken: str | None = None) -> list[Message]:
        """The message and the results of its tools, each call with one: providers insist. `spoken`: all that was heard
        of it, None where that is everything."""
        text = self.text.strip()
        said = text if spoken is None else spoken
        cut = spoken is not None and spoken.split() != text.split()
        agent = Message("agent", said, tool_calls=tuple(self.calls), cut=cut)
        results = [
            Message(
                "tool",
                self.results.get(call.id, UNKNOWN_OUTCOME),
                tool_call_id=call.id,
                language=self.changed.get(call.id),
            )
            for call in self.calls
        ]
        return [agent, *results] if said or self.calls else []

    def uses(self) -> list[ToolUse]:
        return [ToolUse(call.name, call.arguments, outcome(self.results.get(call.id, ""))) for call in self.calls]

    def heard(self, ledger: Ledger, heard_ms: float) -> str:
        pieces = []
        for phrase in self.phrases:
            whole = phrase.end_ms is not None and phrase.end_ms <= heard_ms
            pieces.append(phrase.text if whole else ledger.text(phrase.start_ms, heard_ms))
        return " ".join(piece for piece in pieces if piece)


@dataclass(slots=True)
class Exchange:
    """Times are monotonic seconds."""

    epoch: int = 0
    caller_text: str = ""
    understood: bool = True
    keyed: bool = False
    caller_ended_at: float | None = None
    """T0."""
    decided_at: float | None = None
    """The end-of-turn decision."""
    final_at: float | None = None
    asked_at: float | None = None
    first_phrase_at: float | None = None
    first_audio_at: float | None = None
    last_audio_at: float = 0.0
    spoke_at: float | None = None
    """T1."""
    barge_in_ms: float | None = None
    written: list[Written] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    """SHA-256 of each request to a model."""
    expectation: Expectation | None = None
    """Takes effect when the caller begins to hear the question."""
    in_phrase: bool = False
    """The voice is speaking one: nothing may be put between its audio."""
    fillers: int = 0
    """In the middle of it, while a tool or the model takes long."""
    dry_at: float | None = None
    """When its own audio had run out, where a filler was heard since."""
    background_from: float | None = None
    """Since when there is only the soft sound of work."""
    urgent: bool = False
    """The agent was to put the caller through for help that we do not call: a line of ours follows (`help.py`)."""
    failed: bool = False
    """What is queued is still heard, then it has failed."""

    def asked(self, session: Any) -> None:
        """The model's session has been asked: what, if it tells."""
        if prompt := prompt_of(session):
            self.prompts.append(prompt)

    def messages(self) -> list[Message]:
        """As written so far: what the model is asked to go on from."""
        return [message for written in self.written for message in written.messages()]

    def messages_for(self, author: str) -> list[Message]:
        """Of those, up to the results of the last tools that it asked for itself; none where it asked for none."""
        own = [at for at, written in enumerate(self.written) if written.author == author and written.calls]
        return [message for written in self.written[: own[-1] + 1] for message in written.messages()] if own else []

    def done_by_another(self, tool: str, author: str) -> str | None:
        """The result of the tool of this name, where another model has used it already."""
        for written in reversed(self.written):
            for call in reversed(written.calls):
                if call.name == tool and written.author != author and call.id in written.results:
                    return written.results[call.id]
        return None

    def heard(self, ledger: Ledger, heard_ms: float) -> list[Message]:
        """As heard up to there."""
        return [message for each in self.written for message in each.messages(each.heard(ledger, heard_ms))]

    def record(self, index: int, messages: Sequence[Message], *, interrupted: bool, exact: bool) -> TurnRecord:
        """`messages`: what the conversation keeps of it."""
        heard = spoken(messages)
        return TurnRecord(
            index=index,
            caller_text=self.caller_text,
            agent_text=heard,
            understood=self.understood,
            keyed=self.keyed,
            interrupted=interrupted,
            heard_exact=exact,
            endpointing_ms=_ms(self.caller_ended_at, self.decided_at),
            stt_ms=_ms(self.decided_at, self.final_at),
            llm_ms=_ms(self.asked_at, self.first_phrase_at),
            tts_ms=_ms(self.first_phrase_at, self.first_audio_at),
            total_ms=_ms(self.caller_ended_at, self.spoke_at),
            barge_in_ms=None if self.barge_in_ms is None or not interrupted else round(self.barge_in_ms, 1),
            tools=tuple(call.name for written in self.written for call in written.calls),
            cut_text=rest(spoken(self.messages()), heard) if interrupted else "",
            evidence=TurnEvidence(
                tuple(self.prompts), tuple(use for written in self.written for use in written.uses())
            ),
        )


def outcome(result: str) -> str:
    """`ok` or the code of a tool's result; `unknown`: it has none, or says neither."""
    try:
        said = json.loads(result or "null")
    except ValueError:
        return "unknown"
    if not isinstance(said, dict):
        return "unknown"
    return "ok" if said.get("ok") is True else str(said.get("code") or "unknown")


def spoken(messages: Sequence[Message]) -> str:
    """What the agent says in them."""
    return " ".join(message.text for message in messages if message.role == "agent" and message.text)


def rest(whole: str, heard: str) -> str:
    """The words of it behind those that were heard; empty where these are no beginning of it."""
    words, known = whole.split(), heard.split()
    return " ".join(words[len(known) :]) if words[: len(known)] == known else ""


def _ms(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else round((end - start) * 1000, 1)
