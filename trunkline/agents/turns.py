"""Turn-taking: who has the floor. A table over five states; plain Python over events and values.

    IDLE ── Begin ──► SPEAKING (the greeting) ──► LISTENING ──► THINKING ──► SPEAKING ──► LISTENING ...
                          └── SpeechStarted ──► INTERRUPTED ── nothing meant ──► back to what was being said

House rules:
1. The machine never acts: `handle(event) -> effects`. The cascade performs them, in order.
2. Every transition is in TABLE, with the states it may lead to. An event without a row is ignored in that state: ears,
   recogniser and playout run on their own and may be a moment late.
3. An interruption is reversible. Speech over the agent *pauses* it (INTERRUPTED): half a second of speech, or words
   that are no backchannel, confirm and cut the answer; otherwise it resumes where the ear was. The same holds while the
   agent thinks: its first words wait until the caller's have turned out to be nothing.
4. A turn once understood is never lost. If the caller goes on before the answer is heard, what was said waits in
   `_carry` and is answered together with what follows, or alone when that is nothing.
5. No wait without an end: every state that waits on somebody has a timer, and every timer leads to a spoken line.

The caller's patience is learnt: going on after we thought the turn had ended lengthens endpointing for this call.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Literal, NamedTuple

from trunkline.agents.definition import AgentDefinition
from trunkline.ports import EndReason, Expectation

PRE_ROLL_MS = 300
MEANT_MS = 300
"""Speech shorter than this that the recogniser did not understand was a noise: it gets no answer."""
VERDICT_AFTER_MS = 320
"""Silence after which an unconfirmed interruption is over."""
VERDICT_WAIT_MS = 700
"""And how long the recogniser may take to say that it was words."""
FINAL_WAIT_MS = 4000
OLD_FINAL_WAIT_MS = 1500
UTTERANCE_MAX_MS = 45_000
"""Hold music and a television never end by themselves."""
SPOKEN_DIGITS_MS = 1200
"""Pause between groups of spoken digits."""
PATIENCE_STEP_MS, PATIENCE_MAX_MS = 200, 1000

BACKCHANNELS = frozenset(
    ["mm", "mm-hm", "mhm", "hm", "hmm", "uh", "uh-huh", "um", "ah", "oh", "yeah", "yep", "ok", "okay", "right", "sure"]
)


class State(Enum):
    IDLE = "idle"
    LISTENING = "listening"
    THINKING = "thinking"
    SPEAKING = "speaking"
    INTERRUPTED = "interrupted"


# --- events: what happened ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """The line is open: greet."""

    greeting: str


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    at: float
    """When its first audio was received, monotonic seconds."""


@dataclass(frozen=True, slots=True)
class SpeechSustained:
    """Half a second of it."""


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    at: float
    """When its last audio was received: T0."""


@dataclass(frozen=True, slots=True)
class Partial:
    text: str
    complete: bool


@dataclass(frozen=True, slots=True)
class Final:
    """`understood=False` with or without text: not in the recogniser's words, or it failed."""

    text: str
    understood: bool


@dataclass(frozen=True, slots=True)
class Key:
    digit: str


@dataclass(frozen=True, slots=True)
class ReplyBegan:
    """T1: the first audio of the answer was sent."""


@dataclass(frozen=True, slots=True)
class ReplyHeard:
    """The far end has played all of it (or there was nothing to say)."""


@dataclass(frozen=True, slots=True)
class ReplyFailed:
    """The model or the voice failed before the answer was complete."""


@dataclass(frozen=True, slots=True)
class TimerFired:
    name: "Timer"


@dataclass(frozen=True, slots=True)
class Close:
    """The call is over."""


Event = (
    Begin
    | SpeechStarted
    | SpeechSustained
    | SpeechEnded
    | Partial
    | Final
    | Key
    | ReplyBegan
    | ReplyHeard
    | ReplyFailed
    | TimerFired
    | Close
)

# --- effects: what to do --------------------------------------------------------------------------------------------

Timer = Literal["no_input", "utterance", "final", "verdict", "reply", "digits", "max_duration"]


@dataclass(frozen=True, slots=True)
class Feed:
    """Open the recogniser's ear, from this long ago."""

    pre_roll_ms: int = PRE_ROLL_MS


@dataclass(frozen=True, slots=True)
class FinalizeStt:
    """Close its ear and ask for the final."""


@dataclass(frozen=True, slots=True)
class CancelStt:
    """Close its ear; whatever it heard was nothing."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Speech has ended after this much silence."""

    silence_ms: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Generate and speak the answer to what the caller said: one or two utterances, or keys."""

    texts: tuple[str, ...]
    understood: bool = True
    keyed: bool = False


@dataclass(frozen=True, slots=True)
class Say:
    """Speak a fixed line."""

    text: str


@dataclass(frozen=True, slots=True)
class PauseOutput:
    pass


@dataclass(frozen=True, slots=True)
class ResumeOutput:
    pass


@dataclass(frozen=True, slots=True)
class CancelReply:
    """Stop generating and speaking; the conversation is cut to what was heard; the epoch rises."""


@dataclass(frozen=True, slots=True)
class SetTimer:
    name: Timer
    after_ms: int


@dataclass(frozen=True, slots=True)
class CancelTimer:
    name: Timer


@dataclass(frozen=True, slots=True)
class HangUp:
    reason: EndReason


Effect = (
    Feed
    | FinalizeStt
    | CancelStt
    | Endpoint
    | Answer
    | Say
    | PauseOutput
    | ResumeOutput
    | CancelReply
    | SetTimer
    | CancelTimer
    | HangUp
)


class Row(NamedTuple):
    """One transition: what decides, and the states it may choose."""

    decide: Callable[["Turns", Event], State]
    leads_to: tuple[State, ...]


class Turns:
    """One call's turn machine."""

    def __init__(self, definition: AgentDefinition) -> None:
        self._agent = definition
        self.state = State.IDLE
        self.expectation = Expectation()
        self.interruptible = True
        """Of the line being spoken."""
        self.ending: EndReason | None = None
        """Hang up when what is being said has been heard."""
        self._effects: list[Effect] = []
        self._return_to = State.SPEAKING  # from INTERRUPTED
        self._carry = ""
        self._answering: tuple[str, ...] = ()  # understood, being answered, nothing of the answer heard yet
        self._awaiting_final = False
        self._old_final = False  # the final we wait for is of the utterance before the interruption
        self._digits = ""
        self._no_inputs = 0
        self._failures = 0
        self._patience_ms = 0
        self._speech_at = 0.0
        self._speech_ms = 0.0
        self._hearing = False
        self._line_is_answer = False

    def handle(self, event: Event) -> list[Effect]:
        """The effects of an event, to be performed in order."""
        row = TABLE[self.state].get(type(event)) or ALWAYS.get(type(event))
        if row is None:
            return []
        if isinstance(event, SpeechStarted):
            self._hearing = True
        elif isinstance(event, SpeechEnded):
            self._hearing = False
        state = row.decide(self, event)
        assert state in row.leads_to, f"{self.state} {event} led to {state}"
        self.state = state
        effects, self._effects = self._effects, []
        return effects

    def expect(self, expectation: Expectation) -> None:
        """The answer being spoken has said what it expects to hear next."""
        self.expectation = expectation

    def end_after_answer(self, reason: EndReason) -> None:
        """The agent hangs up when this answer has been heard."""
        self.ending = reason

    # --- pieces ---

    def _do(self, *effects: Effect) -> None:
        self._effects += effects

    def _endpoint_ms(self, complete: bool) -> int:
        turns = self._agent.turns
        if self.expectation.grammar == "digits":
            return max(SPOKEN_DIGITS_MS, turns.endpointing_ms)
        wanted = turns.endpointing_min_ms if complete else turns.endpointing_ms
        return min(wanted + self._patience_ms, turns.endpointing_max_ms)

    def _listen(self) -> State:
        """The floor is the caller's."""
        if self._digits and self.expectation.digits_max and len(self._digits) >= self.expectation.digits_max:
            return self._submit_digits()
        if self._digits:
            self._do(SetTimer("digits", self._agent.turns.digit_gap_ms))
        elif not self._hearing:
            self._do(SetTimer("no_input", self._agent.turns.no_input_ms))
        return State.LISTENING

    def _hear(self) -> None:
        """Speech has begun: open the recogniser's ear."""
        self._speech_ms = 0.0
        self._do(CancelTimer("no_input"), Feed(), SetTimer("utterance", UTTERANCE_MAX_MS))

    def _answer(self, *texts: str, understood: bool = True, keyed: bool = False) -> State:
        self._carry = ""
        self._answering = texts if understood else ()
        self._no_inputs = 0
        self.interruptible = True
        self.ending = None
        self._line_is_answer = True
        self._patience_ms = max(0, self._patience_ms - PATIENCE_STEP_MS // 10)
        self._do(Answer(texts, understood, keyed), SetTimer("reply", self._agent.turns.reply_deadline_ms))
        return State.THINKING

    def _say(self, text: str, ending: EndReason | None = None, interruptible: bool = True) -> State:
        self.interruptible = interruptible
        self.ending = ending
        self._answering = ()
        self._line_is_answer = False
        self._do(Say(text), SetTimer("reply", self._agent.turns.reply_deadline_ms))
        return State.THINKING

    def _fail(self) -> State:
        """Once: sorry, say it again. Twice in a row: sorry, goodbye. If even that fails: the end."""
        self._failures += 1
        self._carry = ""
        self._do(CancelTimer("reply"))
        if self._failures == 1:
            return self._say(self._agent.apology)
        if self._failures == 2:
            return self._say(self._agent.failure, ending="error", interruptible=False)
        self._do(HangUp("error"))
        return State.IDLE

    def _understood(self, event: Final) -> State:
        """The caller's turn is over and this is what it was."""
        if event.understood and event.text:
            texts = (self._carry, event.text) if self._carry else (event.text,)
            return self._answer(*texts)
        if self._carry:
            return self._answer(self._carry)
        if self._speech_ms < MEANT_MS:
            return self._listen()
        return self._answer(event.text, understood=False)

    def _meant(self, text: str) -> bool:
        """Words that take the floor, not ones that leave it to the agent."""
        if self.expectation.grammar != "main":
            return bool(text)  # it asked: "yeah" is an answer
        return any(word not in BACKCHANNELS for word in text.lower().split())

    def _submit_digits(self) -> State:
        digits, self._digits = self._digits, ""
        self._do(CancelTimer("digits"), CancelTimer("no_input"), CancelStt())
        return self._answer(digits, keyed=True)

    def _interrupt(self, event: SpeechStarted, return_to: State) -> State:
        self._speech_at = event.at
        self._return_to = return_to
        self._old_final = self._awaiting_final
        self._do(CancelTimer("reply"), PauseOutput())
        self._hear()
        self._do(Endpoint(VERDICT_AFTER_MS))
        return State.INTERRUPTED

    def _take_floor(self) -> None:
        """The interruption is confirmed."""
        if self._return_to is State.THINKING:
            # The caller had not finished: what was understood is kept, and next time we wait longer.
            self._patience_ms = min(self._patience_ms + PATIENCE_STEP_MS, PATIENCE_MAX_MS)
            self._carry = " ".join(self._answering) or self._carry
        self._answering = ()
        self.ending = None
        self._do(CancelTimer("verdict"), CancelReply())

    def _resume(self) -> State:
        """It was nothing: go on where the ear was."""
        self._do(CancelTimer("verdict"), ResumeOutput())
        if self._return_to is State.SPEAKING:
            return State.SPEAKING
        if self._old_final:  # the turn before the noise is still with the recogniser
            self._old_final = False
            self._do(SetTimer("final", OLD_FINAL_WAIT_MS))
        elif self._carry and not self._answering:
            return self._answer(self._carry)
        else:
            self._do(SetTimer("reply", self._agent.turns.reply_deadline_ms))
        return State.THINKING

    # --- IDLE ---

    def begin(self, event: Event) -> State:
        assert isinstance(event, Begin)
        self._do(SetTimer("max_duration", self._agent.turns.max_duration_s * 1000))
        return self._say(event.greeting, interruptible=self._agent.greeting_interruptible)

    # --- LISTENING ---

    def listening_speech_started(self, event: Event) -> State:
        assert isinstance(event, SpeechStarted)
        self._speech_at = event.at
        self._hear()
        self._do(Endpoint(self._endpoint_ms(complete=False)))
        return State.LISTENING

    def listening_partial(self, event: Event) -> State:
        assert isinstance(event, Partial)
        self._do(Endpoint(self._endpoint_ms(event.complete)))
        return State.LISTENING

    def listening_speech_ended(self, event: Event) -> State:
        assert isinstance(event, SpeechEnded)
        self._speech_ms = (event.at - self._speech_at) * 1000
        return self._finalize()

    def _finalize(self) -> State:
        self._awaiting_final = True
        self._old_final = False
        self._do(FinalizeStt(), CancelTimer("no_input"), CancelTimer("utterance"), SetTimer("final", FINAL_WAIT_MS))
        return State.THINKING

    def listening_final(self, event: Event) -> State:
        """The recogniser ended the turn by itself, as some services do."""
        assert isinstance(event, Final)
        if self._old_final:
            self._old_final = self._awaiting_final = False
            if event.understood:
                self._carry = event.text
            return State.LISTENING
        if not event.understood or not event.text:
            return State.LISTENING
        self._do(CancelTimer("no_input"))
        return self._understood(event)

    def listening_key(self, event: Event) -> State:
        assert isinstance(event, Key)
        self._do(CancelStt(), CancelTimer("no_input"))
        if event.digit == "*":
            self._digits = ""
            return self._listen()
        if event.digit == "#":
            return self._submit_digits() if self._digits else self._listen()
        self._digits += event.digit
        if len(self._digits) < max(self.expectation.digits_max, 1):
            self._do(SetTimer("digits", self._agent.turns.digit_gap_ms))
            return State.LISTENING
        return self._submit_digits()

    def listening_timer(self, event: Event) -> State:
        assert isinstance(event, TimerFired)
        if event.name == "digits":
            return self._submit_digits() if self._digits else self._listen()
        if event.name == "utterance":
            self._speech_ms = UTTERANCE_MAX_MS
            return self._finalize()
        if event.name != "no_input" or self._hearing:
            return State.LISTENING
        prompts = self._agent.no_input
        self._no_inputs += 1
        if self._no_inputs <= len(prompts):
            return self._say(prompts[self._no_inputs - 1])
        return self._say(self._agent.goodbye, ending="no_input")

    # --- THINKING ---

    def thinking_final(self, event: Event) -> State:
        assert isinstance(event, Final)
        if not self._awaiting_final:
            return State.THINKING
        if not self.interruptible:
            return self.speaking_final(event)
        self._awaiting_final = False
        self._do(CancelTimer("final"))
        return self._understood(event)

    def thinking_speech_started(self, event: Event) -> State:
        assert isinstance(event, SpeechStarted)
        if not self.interruptible:
            self._hear()
            return State.THINKING
        return self._interrupt(event, State.THINKING)

    def thinking_reply_began(self, event: Event) -> State:
        self._do(CancelTimer("reply"))
        self._answering = ()
        return State.SPEAKING

    def thinking_timer(self, event: Event) -> State:
        assert isinstance(event, TimerFired)
        if event.name == "final" and self._awaiting_final:
            self._awaiting_final = False
            self._do(CancelStt())
            return self._fail() if not self._carry else self._answer(self._carry)
        if event.name == "reply":
            self._do(CancelReply())
            return self._fail()
        return State.THINKING

    # --- SPEAKING ---

    def speaking_speech_started(self, event: Event) -> State:
        assert isinstance(event, SpeechStarted)
        if not self.interruptible:
            self._speech_at = event.at
            self._hear()  # an uninterruptible line stops neither ears nor keypad
            self._do(Endpoint(self._endpoint_ms(complete=False)))
            return State.SPEAKING
        return self._interrupt(event, State.SPEAKING)

    def over_speech_ended(self, event: Event) -> State:
        """The caller spoke under an uninterruptible line."""
        self._awaiting_final = True
        self._do(FinalizeStt())
        return self.state

    def speaking_final(self, event: Event) -> State:
        """What was said under an uninterruptible line is answered when the line is over."""
        assert isinstance(event, Final)
        self._awaiting_final = False
        if event.understood and event.text:
            self._carry = event.text
        return self.state

    def reply_heard(self, event: Event) -> State:
        self._do(CancelTimer("reply"))
        if self._line_is_answer:
            self._failures = 0
        if self.ending is not None:
            self._do(HangUp(self.ending))
            return State.IDLE
        self.interruptible = True
        if self._carry:
            return self._answer(self._carry)
        return self._listen()

    def reply_failed(self, event: Event) -> State:
        return self._fail()

    def speaking_key(self, event: Event) -> State:
        """A key is never an accident: it takes the floor at once (a late `#` of an entry already taken is dropped)."""
        assert isinstance(event, Key)
        if event.digit in "#*" and not self._digits:
            return self.state
        if not self.interruptible or self.state is State.THINKING:
            self._digits += event.digit  # type-ahead: taken when the floor is the caller's
            return self.state
        self._return_to = State.SPEAKING
        self._take_floor()
        self._do(CancelTimer("reply"), CancelTimer("final"))
        self._awaiting_final = False
        return self.listening_key(event)

    # --- INTERRUPTED ---

    def interrupted_sustained(self, event: Event) -> State:
        self._take_floor()
        self._do(Endpoint(self._endpoint_ms(complete=False)))
        return State.LISTENING

    def interrupted_partial(self, event: Event) -> State:
        assert isinstance(event, Partial)
        if not self._meant(event.text):
            return State.INTERRUPTED
        self._take_floor()
        self._do(Endpoint(self._endpoint_ms(event.complete)))
        return State.LISTENING

    def interrupted_speech_ended(self, event: Event) -> State:
        assert isinstance(event, SpeechEnded)
        self._speech_ms = (event.at - self._speech_at) * 1000
        self._do(FinalizeStt(), SetTimer("verdict", VERDICT_WAIT_MS))
        return State.INTERRUPTED

    def interrupted_speech_started(self, event: Event) -> State:
        assert isinstance(event, SpeechStarted)
        self._do(CancelTimer("verdict"), Feed())
        return State.INTERRUPTED

    def interrupted_final(self, event: Event) -> State:
        assert isinstance(event, Final)
        if self._old_final:
            self._old_final = self._awaiting_final = False
            self._do(CancelTimer("final"))
            if event.understood and event.text:
                self._carry = event.text
            return State.INTERRUPTED
        if event.understood and self._meant(event.text):
            self._take_floor()
            return self._understood(event)
        return self._resume()

    def interrupted_timer(self, event: Event) -> State:
        assert isinstance(event, TimerFired)
        if event.name != "verdict":
            return State.INTERRUPTED
        self._do(CancelStt())
        return self._resume()

    def interrupted_reply_failed(self, event: Event) -> State:
        """The rest of the answer will not come; the caller has the floor."""
        self._take_floor()
        return State.LISTENING

    # --- any state ---

    def max_duration(self, event: Event) -> State:
        self._do(CancelStt(), CancelReply(), CancelTimer("no_input"), CancelTimer("verdict"), CancelTimer("final"))
        self._awaiting_final = self._old_final = False
        return self._say(self._agent.goodbye, ending="max_duration", interruptible=False)

    def close(self, event: Event) -> State:
        self._do(CancelStt(), CancelReply())
        self._do(
            *(
                CancelTimer(name)
                for name in ("no_input", "utterance", "final", "verdict", "reply", "digits", "max_duration")
            )
        )
        return State.IDLE

    def timer(self, event: Event) -> State:
        """Timers of another state's are late; the call's own limit is not."""
        assert isinstance(event, TimerFired)
        if event.name == "max_duration":
            return self.max_duration(event)
        decide = TIMERS.get(self.state)
        return decide(self, event) if decide is not None else self.state


_IDLE, _LISTENING, _THINKING = State.IDLE, State.LISTENING, State.THINKING
_SPEAKING, _INTERRUPTED = State.SPEAKING, State.INTERRUPTED

TABLE: dict[State, dict[type, Row]] = {
    State.IDLE: {
        Begin: Row(Turns.begin, (_THINKING,)),
    },
    State.LISTENING: {
        SpeechStarted: Row(Turns.listening_speech_started, (_LISTENING,)),
        Partial: Row(Turns.listening_partial, (_LISTENING,)),
        SpeechEnded: Row(Turns.listening_speech_ended, (_THINKING,)),
        Final: Row(Turns.listening_final, (_LISTENING, _THINKING)),
        Key: Row(Turns.listening_key, (_LISTENING, _THINKING)),
    },
    State.THINKING: {
        Final: Row(Turns.thinking_final, (_THINKING, _LISTENING)),
        SpeechStarted: Row(Turns.thinking_speech_started, (_INTERRUPTED, _THINKING)),
        SpeechEnded: Row(Turns.over_speech_ended, (_THINKING,)),
        ReplyBegan: Row(Turns.thinking_reply_began, (_SPEAKING,)),
        ReplyHeard: Row(Turns.reply_heard, (_LISTENING, _THINKING, _IDLE)),
        ReplyFailed: Row(Turns.reply_failed, (_THINKING, _IDLE)),
        Key: Row(Turns.speaking_key, (_THINKING,)),
    },
    State.SPEAKING: {
        SpeechStarted: Row(Turns.speaking_speech_started, (_INTERRUPTED, _SPEAKING)),
        SpeechEnded: Row(Turns.over_speech_ended, (_SPEAKING,)),
        Final: Row(Turns.speaking_final, (_SPEAKING,)),
        ReplyHeard: Row(Turns.reply_heard, (_LISTENING, _THINKING, _IDLE)),
        ReplyFailed: Row(Turns.reply_failed, (_THINKING, _IDLE)),
        Key: Row(Turns.speaking_key, (_SPEAKING, _LISTENING, _THINKING)),
    },
    State.INTERRUPTED: {
        SpeechSustained: Row(Turns.interrupted_sustained, (_LISTENING,)),
        Partial: Row(Turns.interrupted_partial, (_INTERRUPTED, _LISTENING)),
        SpeechEnded: Row(Turns.interrupted_speech_ended, (_INTERRUPTED,)),
        SpeechStarted: Row(Turns.interrupted_speech_started, (_INTERRUPTED,)),
        Final: Row(Turns.interrupted_final, (_INTERRUPTED, _THINKING, _SPEAKING, _LISTENING)),
        ReplyFailed: Row(Turns.interrupted_reply_failed, (_LISTENING,)),
        Key: Row(Turns.speaking_key, (_LISTENING, _THINKING)),
    },
}

TIMERS: dict[State, Callable[[Turns, Event], State]] = {
    State.LISTENING: Turns.listening_timer,
    State.THINKING: Turns.thinking_timer,
    State.INTERRUPTED: Turns.interrupted_timer,
}

ALWAYS: dict[type, Row] = {
    TimerFired: Row(Turns.timer, tuple(State)),
    Close: Row(Turns.close, (_IDLE,)),
}
