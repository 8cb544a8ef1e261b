"""Turn-taking: who has the floor. A table over five states; plain Python over events and values.

    IDLE ── Begin ──► THINKING ──► SPEAKING (the greeting) ──► LISTENING ──► THINKING ──► SPEAKING ──► LISTENING ...
                          └── SpeechStarted ──► INTERRUPTED ── nothing meant ──► back to where it was

House rules:
1. The machine never acts: `handle(event) -> effects`. The cascade performs them, in order.
2. Every transition is in TABLE, with the states it may lead to. An event without a row is ignored in that state: ears,
   recogniser and playout run on their own and may be a moment late.
3. An interruption is reversible. Speech over the agent *pauses* it (INTERRUPTED): half a second of speech, or words
   that are no backchannel, confirm and cut the answer; otherwise it resumes where the ear was. The same holds while the
   agent thinks: its first words wait until the caller's have turned out to be nothing.
4. A turn once understood is never lost. If the caller goes on before the answer is heard, what was said waits in
   `_carry` and is answered together with what follows, or alone when that is nothing.
5. No wait without an end. Timers are a function of the state (WAITS): they are set and cancelled after every event,
   nowhere else, and each leads to a spoken line or to the end of the call. While the agent speaks, what is awaited is
   that it is heard; a reply that stalls in the middle is the cascade's ReplyFailed.
6. On hold (the far end's) the call waits: what was being said is paused, nothing is heard, and no timer runs but the
   call's own limit. Afterwards it goes on where the ear was.
7. The recogniser gives one final for each utterance, in their order (`_due`): that of a noise, or of what was said
   before it, may come late and is known for what it is.

The caller's patience is learnt: going on after we thought the turn had ended lengthens endpointing for this call. How
long silence must last is told by the words (silence_ms): what the recogniser takes for a whole phrase, and how likely a
turn detector thinks it is that they are the whole turn.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Literal, NamedTuple

from trunkline.agents.definition import AgentDefinition, TurnTaking
from trunkline.agents.languages import backchannels
from trunkline.ports import EndReason, Expectation

PRE_ROLL_MS = 300
MEANT_MS = 300
"""Speech shorter than this that the recogniser did not understand was a noise: it gets no answer."""
VERDICT_AFTER_MS = 320
"""Silence after which an unconfirmed interruption is over."""
VERDICT_WAIT_MS = 700
"""And how long the recogniser may take to say that it was words."""
FINAL_WAIT_MS = 4000
UTTERANCE_MAX_MS = 45_000
"""Hold music and a television never end by themselves."""
SPOKEN_DIGITS_MS = 1200
"""Pause between groups of spoken digits."""
PATIENCE_STEP_MS, PATIENCE_MAX_MS = 200, 1000
OPEN, LIKELY, SURE = 0.5, 0.8, 0.9
"""Probabilities: of words that may go on as well as not, of those worth answering already, of those that are all."""
FILLER_AGAIN_MS = 3000
"""From one filler to the next, where it could not be spoken."""
FILLER_GAP_MS = 1500
"""Silence from the end of one to the next."""
GOODBYE_MAX_MS = 15_000
"""For a goodbye when the call's time is up."""
TYPED_MAX_CHARACTERS = 4000
"""That wait to be answered: who writes more is not heard until they are."""
KEYS_MAX = 64  # keyed ahead; no question asks for more than 32

BACKCHANNELS = frozenset(
    ("mm", "mm-hm", "mm-hmm", "mhm", "mmhm", "hm", "hmm", "uh", "uh-huh", "huh", "um", "ah", "oh")
) | frozenset(("yeah", "yep", "ok", "okay", "right", "sure"))


class State(Enum):
    IDLE = "idle"
    LISTENING = "listening"
    THINKING = "thinking"
    SPEAKING = "speaking"
    INTERRUPTED = "interrupted"


Ending = EndReason | Literal["handed_off"]
"""Why the agent leaves: the call ends, or another agent goes on with it."""


# --- events: what happened ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """The line is open: greet."""

    greeting: str
    """Empty: the caller has the floor at once."""
    pending: tuple[str, ...] = ()
    """What the caller has said to whoever had the line before us, and nobody answered: answered in place of a
    greeting."""
    unwritten_ms: float = 0.0
    """So much of what they said was never put into words: the recogniser has it now, and its final is awaited."""


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
class Completeness:
    """How likely the words of the last Partial are the caller's whole turn, 0 to 1."""

    probability: float


@dataclass(frozen=True, slots=True)
class Final:
    """`understood=False` with or without text: not in the recogniser's words."""

    text: str
    understood: bool
    failed: bool = False
    """The recogniser failed."""


@dataclass(frozen=True, slots=True)
class Key:
    digit: str


@dataclass(frozen=True, slots=True)
class Typed:
    """The caller's words, written."""

    text: str


@dataclass(frozen=True, slots=True)
class Flush:
    """The caller has pressed a button: stop speaking."""


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
class Filled:
    """A filler is being heard."""

    length_ms: int


@dataclass(frozen=True, slots=True)
class Leave:
    """The gateway wants the call to end: goodbye first."""

    line: str | None = None
    """To be heard whole in place of the agent's goodbye, whatever is being said."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The agent's mind is lost for good: the last resort."""


@dataclass(frozen=True, slots=True)
class Held:
    """The far end has put us on hold: nobody hears us, and what comes is its music."""


@dataclass(frozen=True, slots=True)
class Unheld:
    """And has taken us back."""


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
    | Completeness
    | Final
    | Key
    | Typed
    | Flush
    | ReplyBegan
    | ReplyHeard
    | ReplyFailed
    | Filled
    | Leave
    | Broken
    | Held
    | Unheld
    | TimerFired
    | Close
)

_OF_A_PERSON = (SpeechStarted, SpeechSustained, SpeechEnded, Partial, Key, Typed, Flush)
"""Void while the far end holds us."""

# --- effects: what to do --------------------------------------------------------------------------------------------

Timer = Literal["no_input", "utterance", "final", "verdict", "reply", "filler", "digits", "message", "max_duration"]


@dataclass(frozen=True, slots=True)
class Feed:
    """Open the recogniser's ear, from this long ago."""

    pre_roll_ms: int = PRE_ROLL_MS


@dataclass(frozen=True, slots=True)
class FinalizeStt:
    """Close its ear and ask for the final."""


@dataclass(frozen=True, slots=True)
class CancelStt:
    """Close its ear; what it was hearing was nothing. Speech that goes on begins anew."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Speech has ended after this much silence."""

    silence_ms: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Generate and speak the answer to what the caller said: utterances, some perhaps asked about before, or keys."""

    texts: tuple[str, ...]
    understood: bool = True
    keyed: bool = False


@dataclass(frozen=True, slots=True)
class Speculate:
    """The caller's turn may be this, whole: if they are silent now, its answer may be asked for already. Empty: it
    is not, as it seems now."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Say:
    """Speak a fixed line."""

    text: str


@dataclass(frozen=True, slots=True)
class Fill:
    """Speak this while the answer is awaited: it is no part of it."""

    text: str


@dataclass(frozen=True, slots=True)
class PutThrough:
    """Nothing else is left: to this target, when what is being said has been heard."""

    target: str


@dataclass(frozen=True, slots=True)
class TakeMessage:
    """The caller has left this message, or a part of it."""

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


@dataclass(frozen=True, slots=True)
class GiveOver:
    """What was said has been heard: the other agent goes on."""


Effect = (
    Feed
    | FinalizeStt
    | CancelStt
    | Endpoint
    | Answer
    | Speculate
    | Say
    | Fill
    | PutThrough
    | TakeMessage
    | PauseOutput
    | ResumeOutput
    | CancelReply
    | SetTimer
    | CancelTimer
    | HangUp
    | GiveOver
)


Reply = Literal["none", "coming", "speaking", "heard", "failed"]
"""`heard` and `failed` only while INTERRUPTED: what follows waits for the verdict."""


@dataclass(slots=True)
class Utterance:
    """Given to the recogniser whole; its final has not come yet."""

    speech_ms: float
    has_floor: bool
    """The caller's turn. False: said over the agent, so it may be a cough."""
    forgotten: bool = False
    """Its final will come, and means nothing."""


def silence_ms(terms: TurnTaking, complete: bool, probability: float | None) -> int:
    """Silence after which a turn has ended, less the caller's own pace. `complete`: says the recogniser. `probability`:
    says the turn detector; None: nobody, silence alone tells.

    Words that cannot be all outweigh a recogniser that has merely heard no more of them.
    """
    low, middle, high = terms.endpointing_min_ms, terms.endpointing_ms, terms.endpointing_max_ms
    if probability is None:
        return low if complete else middle
    if probability < OPEN:
        return round(high - (high - middle) * probability / OPEN)
    if complete or probability >= SURE:
        return low
    return round(middle - (middle - low) * (probability - OPEN) / (SURE - OPEN))


def plain(text: str) -> list[str]:
    """The words, however they are written."""
    return re.findall(r"[^\W_]+", text.lower())


class Told(NamedTuple):
    """The caller's words, as far as they count. Final and empty: what was taken for words was none, or was not for
    the agent."""

    text: str
    final: bool
    understood: bool = True


class Row(NamedTuple):
    """One transition: what decides, and the states it may choose."""

    decide: Callable[["Turns", Event], State]
    leads_to: tuple[State, ...]


class Turns:
    """One call's turn machine."""

    def __init__(self, definition: AgentDefinition) -> None:
        self.speak(definition)
        self.state = State.IDLE
        self.expectation = Expectation()
        self.interruptible = True
        """Of the line being spoken."""
        self.ending: Ending | None = None
        """Leave when what is being said has been heard."""
        self.words: Told | None = None
        """What the last event said of them; None: nothing."""
        self._effects: list[Effect] = []
        self._armed: set[Timer] = set()
        self._restarted: set[Timer] = set()
        self._over = False
        self._leaving = False  # the call's time is up
        self._told_line = False  # the gateway's own last line is being said
        self._held = False  # by the far end
        # what the caller does
        self._hearing = False
        self._speech_at = 0.0
        self._has_floor = False  # of the utterance being heard
        self._partial = Partial("", complete=False)  # of it
        self._probability: float | None = None  # that those words are all
        self._speculating: tuple[str, ...] = ()  # about these words
        self._due: list[Utterance] = []  # finals come in the order of their utterances
        self._keys = ""
        self._keys_before = ""  # a half entry, keyed before the utterance whose final we await
        self._no_inputs = 0
        self._patience_ms = 0
        # what we owe the caller
        self._carry: tuple[str, ...] = ()  # understood, not being answered yet
        self._behind: tuple[str, ...] = ()  # written while a final was awaited: they come after its words
        self._unclear: str | None = None  # not understood, too long for a noise
        self._answering: tuple[str, ...] = ()  # being answered, nothing of the answer heard yet
        self._reply: Reply = "none"
        self._is_answer = False  # and not a fixed line
        self._failures = 0
        self._fillers = 0
        self._filled_ms: int | None = None  # how long the last filler is; None: not spoken yet
        self._message = False  # nothing works any more: what the caller says is a message

    def handle(self, event: Event) -> list[Effect]:
        """The effects of an event, to be performed in order. Events of a call that is over have none."""
        self.words = None
        if self._stale(event):
            return []
        row = TABLE[self.state].get(type(event)) or ALWAYS.get(type(event))
        if row is None:
            return []
        before = self.state
        self.state = row.decide(self, event)
        assert self.state in row.leads_to, f"{before} {event} led to {self.state}"
        if self.state in (State.LISTENING, State.SPEAKING):
            self._fillers, self._filled_ms = 0, None
        self._set_timers()
        effects, self._effects = self._effects, []
        return effects

    @property
    def on_hold(self) -> bool:
        """The far end has put us on hold."""
        return self._held

    def speak(self, definition: AgentDefinition) -> None:
        """The call is held in another language: the agent as it is in that."""
        self._agent = definition
        self._backchannels = BACKCHANNELS | backchannels(definition.language)

    def expect(self, expectation: Expectation) -> None:
        """What the caller is expected to say or key next."""
        self.expectation = expectation

    def end_after_answer(self, reason: Ending) -> None:
        """The agent leaves when this answer has been heard."""
        self.ending = reason

    @property
    def hearing(self) -> bool:
        """The caller is speaking, or has only just stopped: their words may still change what is done."""
        return self._hearing and not self._due

    @property
    def floor_is_callers(self) -> bool:
        """What is being said, or was said last, is the caller's turn, and not said over the agent."""
        return self._has_floor

    def _stale(self, event: Event) -> bool:
        """Takes note of what the ears and the timers say; True where that is no news."""
        if isinstance(event, Close):
            return False
        if self._held and isinstance(event, _OF_A_PERSON):
            return True
        if isinstance(event, SpeechStarted):
            self._hearing, self._speech_at = True, event.at
            self._partial, self._probability = Partial("", complete=False), None
            self._speculating = ()
        elif isinstance(event, Partial | Completeness):
            return self._over or not self._note_words(event)
        elif isinstance(event, SpeechEnded):
            self._hearing, was_hearing = False, self._hearing
            return self._over or not was_hearing
        elif isinstance(event, SpeechSustained):
            return self._over or not self._hearing
        elif isinstance(event, TimerFired):
            if event.name not in self._armed:
                return True
            self._armed.remove(event.name)
        return self._over

    def _note_words(self, event: Partial | Completeness) -> bool:
        """Whether it is of the utterance being heard, and not of one before."""
        if not self._hearing or self._due:
            return False
        if isinstance(event, Completeness):
            self._probability = event.probability
            return True
        if event.text != self._partial.text:
            self._probability = None
        self._partial = event
        if event.text and not self._over:
            self.words = Told(event.text, final=False)
        return True

    # --- timers: a function of the state, so that none is forgotten ---

    def _set_timers(self) -> None:
        for name, wait_ms in WAITS.items():
            waits = not self._over and self.state is not State.IDLE and (not self._held or name in HOLD_TIMERS)
            after_ms = wait_ms(self) if waits else None
            if after_ms is None:
                if name in self._armed:
                    self._armed.remove(name)
                    self._do(CancelTimer(name))
            elif name not in self._armed or name in self._restarted:
                self._armed.add(name)
                self._do(SetTimer(name, after_ms))
        self._restarted.clear()

    def _restart(self, *names: Timer) -> None:
        self._restarted.update(names)

    def no_input_ms(self) -> int | None:
        silent = self.state is State.LISTENING and not self._hearing and not (self._keys and not self._message)
        return self._agent.turns.no_input_ms if silent else None

    def digits_ms(self) -> int | None:
        if self.state is not State.LISTENING or not self._keys or self._message:
            return None
        turns = self._agent.turns
        return turns.digit_gap_ms if len(self._keys) >= self.expectation.digits_min else turns.no_input_ms

    def utterance_ms(self) -> int | None:
        return UTTERANCE_MAX_MS if self._hearing else None

    def final_ms(self) -> int | None:
        return FINAL_WAIT_MS if self._due else None

    def verdict_ms(self) -> int | None:
        return VERDICT_WAIT_MS if self.state is State.INTERRUPTED and not self._hearing else None

    def reply_ms(self) -> int | None:
        thinking = self.state is State.THINKING and self._reply == "coming"
        return self._agent.turns.reply_deadline_ms if thinking else None

    def filler_ms(self) -> int | None:
        a_turn = self._reply == "none" or (self._reply == "coming" and self._is_answer)
        if self.state is not State.THINKING or not a_turn or not self._agent.filler:
            return None
        if not self._fillers:
            return self._agent.turns.filler_after_ms
        return FILLER_AGAIN_MS if self._filled_ms is None else self._filled_ms + FILLER_GAP_MS

    def message_ms(self) -> int | None:
        return self._agent.failover.message_s * 1000 if self._message and self.ending is None else None

    def max_duration_ms(self) -> int | None:
        return GOODBYE_MAX_MS if self._leaving else self._agent.turns.max_duration_s * 1000

    # --- pieces ---

    def _do(self, *effects: Effect) -> None:
        self._effects += effects

    @property
    def _awaits_final(self) -> bool:
        return any(not utterance.forgotten for utterance in self._due)

    def _endpoint_ms(self) -> int:
        turns, expected, complete = self._agent.turns, self.expectation, self._partial.complete
        if expected.grammar.startswith("digits") and not (complete and expected.digits_min == expected.digits_max):
            return max(SPOKEN_DIGITS_MS, turns.endpointing_ms)
        wanted = silence_ms(turns, complete, self._probability)
        return min(wanted + self._patience_ms, turns.endpointing_max_ms)

    def _speculate(self, *, ended: bool = False) -> None:
        """When it is worth it to ask about the words so far, and when no longer. `ended`: only the final is awaited."""
        texts = (*self._carry, self._partial.text) if self._worth_asking(ended) else ()
        if list(map(plain, texts)) == list(map(plain, self._speculating)):
            return
        self._speculating = texts
        self._do(Speculate(texts))

    def _worth_asking(self, ended: bool) -> bool:
        expected, sure = self.expectation, self._probability
        whole = self._partial.complete if sure is None else sure >= LIKELY or (self._partial.complete and sure >= OPEN)
        digits = expected.digits_max > 0 or expected.grammar.startswith("digits") or bool(self._keys)
        free = self._agent.turns.speculate and not self._message and not digits
        return free and (whole or ended) and bool(self._partial.text)

    def _listen_to(self, *, has_floor: bool) -> None:
        """Speech has begun: open the recogniser's ear."""
        self._has_floor = has_floor
        interrupts = self.state is not State.LISTENING and self.interruptible
        self._do(Feed(), Endpoint(VERDICT_AFTER_MS if interrupts else self._endpoint_ms()))

    def _finalize(self, speech_ms: float) -> None:
        self._due.append(Utterance(speech_ms, self._has_floor))
        self._restart("final")
        self._do(FinalizeStt())

    def _forget_speech(self, *, understood: bool = False) -> None:
        """What was and is being said counts no longer; speech that goes on begins anew. `understood`: its words do."""
        self._hearing = False
        if self._speculating and not understood:
            self._speculating = ()
            self._do(Speculate(()))
        for utterance in self._due:
            utterance.forgotten = True
        self._unclear = None
        self.words = Told("", final=True)
        self._append_written()
        self._do(CancelStt())

    def _append_written(self) -> None:
        if not self._awaits_final:
            self._carry, self._behind = (*self._carry, *self._behind), ()

    def _answer(self, *texts: str, understood: bool = True, keyed: bool = False) -> State:
        self._carry, self._unclear = (), None
        if self._message:
            self._do(*(TakeMessage(text) for text in texts if text))
            return State.LISTENING
        self._answering = texts if understood else ()
        self._is_answer = True
        self._no_inputs = 0
        self._patience_ms = max(0, self._patience_ms - PATIENCE_STEP_MS // 10)
        return self._begin_reply(Answer(texts, understood, keyed))

    def _say(self, text: str, ending: EndReason | None = None, interruptible: bool = True) -> State:
        self._answering = ()
        self._is_answer = False
        return self._begin_reply(Say(text), ending, interruptible)

    def _begin_reply(self, effect: Answer | Say, ending: EndReason | None = None, interruptible: bool = True) -> State:
        self._reply = "coming"
        self.interruptible, self.ending = interruptible, ending
        self._restart("reply")
        self._do(effect)
        if self._held:
            self._do(PauseOutput())
        return State.THINKING

    def _fail(self) -> State:
        """Once: sorry, say it again. Twice in a row: sorry, and the last resort. A last line that fails is left
        unsaid."""
        if self.ending is not None:
            return self._hang_up(self.ending)
        self._carry, self._behind, self._unclear = (), (), None
        if self._message:  # they are recorded, if not understood
            return self._yield_floor()
        self._failures += 1
        return self._say(self._agent.apology) if self._failures == 1 else self._last_resort()

    def _last_resort(self) -> State:
        """The one way out of a call in which nothing works any more."""
        terms = self._agent.failover
        if terms.last_resort == "message":
            self._message = True
            return self._say(terms.message, interruptible=False)
        if terms.last_resort == "transfer" and terms.target is not None:
            words = terms.words or self._agent.failure
            state = self._say(words, ending="transferred", interruptible=False)
            self._do(PutThrough(terms.target))
            return state
        return self._say(self._agent.failure, ending="error", interruptible=False)

    def _hang_up(self, reason: Ending) -> State:
        self._over = True
        self._forget_speech()
        self._set_timers()
        self._do(GiveOver() if reason == "handed_off" else HangUp(reason))
        return State.IDLE

    def _yield_floor(self) -> State:
        """It is the caller's turn: hear it to its end, then answer it; where there was none, wait for it."""
        self._reply = "none"
        self.interruptible = True
        if self._hearing:
            self._has_floor = True
            return State.LISTENING
        if self._awaits_final:
            return State.THINKING
        if self._carry:
            self._keys_before = ""
            return self._answer(*self._carry)
        self._keys, self._keys_before = self._keys_before + self._keys, ""
        if self._unclear is not None and not self._keys:
            return self._answer(self._unclear, understood=False)
        return self._take_keys()

    def _take_keys(self) -> State:
        """An entry that is complete is answered; what was keyed ahead stays for the next question."""
        entry = ""
        for at, key in enumerate(self._keys, 1):
            entry = "" if key == "*" else entry if key == "#" else entry + key
            if entry and (key == "#" or len(entry) >= max(self.expectation.digits_max, 1)):
                self._keys = self._keys[at:]
                return self._answer(entry, keyed=True)
        self._keys = entry
        self._restart("digits")
        return State.LISTENING

    def _meant(self, text: str) -> bool:
        """Words that take the floor, not ones that leave it to the agent."""
        if self.expectation.grammar != "main":
            return bool(text)  # it asked: "yeah" is an answer
        return any(word.strip(".,!?¡¿") not in self._backchannels for word in text.lower().split())

    def _over_agent(self) -> bool:
        return self.state is State.INTERRUPTED or self._reply in ("coming", "speaking")

    def _take_floor(self, *, goes_on: bool = True) -> None:
        """The interruption is confirmed. `goes_on`: with words."""
        unfinished = self._reply == "none" or (self._reply == "coming" and self._is_answer)
        if goes_on and unfinished:
            self._patience_ms = min(self._patience_ms + PATIENCE_STEP_MS, PATIENCE_MAX_MS)
        self._carry = (*self._answering, *self._carry)
        self._answering = ()
        self.ending = None
        self._reply = "none"
        self._has_floor = True
        self.state = State.LISTENING
        self._do(CancelReply())

    def _resume(self) -> State:
        """It was nothing: go on where the ear was."""
        self._do(ResumeOutput())
        if self._reply == "coming":
            return State.THINKING
        if self._reply == "speaking":
            return State.SPEAKING
        return self._fail() if self._reply == "failed" else self._reply_over()

    def _reply_over(self) -> State:
        if self._reply == "heard" and self._is_answer:
            self._failures = 0
        if self._reply == "heard" and self.ending is not None:
            return self._hang_up(self.ending)
        return self._yield_floor()

    # --- IDLE ---

    def begin(self, event: Event) -> State:
        assert isinstance(event, Begin)
        if event.unwritten_ms:
            self._has_floor = True
            self._finalize(event.unwritten_ms)
            return State.THINKING
        if event.pending:
            return self._answer(*event.pending)
        if not event.greeting:
            return self._yield_floor()
        return self._say(event.greeting, interruptible=self._agent.greeting_interruptible)

    # --- LISTENING ---

    def listening_speech_started(self, event: Event) -> State:
        self._listen_to(has_floor=True)
        return State.LISTENING

    def listening_partial(self, event: Event) -> State:
        self._do(Endpoint(self._endpoint_ms()))
        self._speculate()
        return State.LISTENING

    def listening_speech_ended(self, event: Event) -> State:
        assert isinstance(event, SpeechEnded)
        return self._end_turn((event.at - self._speech_at) * 1000)

    def _end_turn(self, speech_ms: float) -> State:
        """The end-of-turn decision."""
        self._keys, self._keys_before = "", self._keys
        self._finalize(speech_ms)
        self._speculate(ended=True)
        return State.THINKING

    def listening_key(self, event: Event) -> State:
        """A key is never an accident: speech beside it is."""
        assert isinstance(event, Key)
        self._forget_speech()
        self._keys += event.digit
        return self._take_keys()

    def digits_timer(self, event: Event) -> State:
        entry, self._keys = self._keys, ""
        self._forget_speech()
        return self._answer(entry, keyed=True)

    def message_timer(self, event: Event) -> State:
        self._forget_speech()
        self._do(CancelReply())
        return self._say(self._agent.goodbye, ending="error", interruptible=False)

    def no_input_timer(self, event: Event) -> State:
        if self._message:
            return self.message_timer(event)
        self._no_inputs += 1
        if self._no_inputs <= len(self._agent.no_input):
            return self._say(self._agent.no_input[self._no_inputs - 1])
        return self._say(self._agent.goodbye, ending="no_input")

    # --- the agent has the floor: THINKING and SPEAKING ---

    def speech_over_agent(self, event: Event) -> State:
        if not self.interruptible:  # such a line stops neither ears nor keypad
            self._listen_to(has_floor=False)
            return self.state
        self._do(PauseOutput())
        self._listen_to(has_floor=False)
        return State.INTERRUPTED

    def speech_over_agent_ended(self, event: Event) -> State:
        assert isinstance(event, SpeechEnded)
        self._finalize((event.at - self._speech_at) * 1000)
        return self.state

    def reply_began(self, event: Event) -> State:
        if self._reply != "coming":
            return self.state
        self._reply = "speaking"
        self._answering = ()
        return self.state if self.state is State.INTERRUPTED else State.SPEAKING

    def reply_heard(self, event: Event) -> State:
        if self._reply not in ("coming", "speaking"):
            return self.state
        self._reply = "heard"
        self._answering = ()
        return self.state if self.state is State.INTERRUPTED else self._reply_over()

    def reply_failed(self, event: Event) -> State:
        if self._reply not in ("coming", "speaking"):
            return self.state
        if self.state is State.INTERRUPTED:
            self._reply = "failed"
            return self.state
        return self._fail()

    def reply_timer(self, event: Event) -> State:
        self._do(CancelReply())
        return self._fail()

    def filler_timer(self, event: Event) -> State:
        lines = self._agent.filler
        self._do(Fill(lines[min(self._fillers, len(lines) - 1)]))
        self._fillers, self._filled_ms = self._fillers + 1, None
        return State.THINKING

    def filled(self, event: Event) -> State:
        assert isinstance(event, Filled)
        self._filled_ms = event.length_ms
        self._restart("filler")
        return State.THINKING

    def key_over_agent(self, event: Event) -> State:
        """Takes the floor from a line that can be heard; else it is type-ahead, for when the floor is the caller's."""
        assert isinstance(event, Key)
        if event.digit in "#*" and not self._keys:
            return self.state  # of an entry that was taken without it
        self._keys = (self._keys + event.digit)[:KEYS_MAX]
        if self._reply != "speaking" or not self.interruptible:
            return self.state
        self._take_floor()
        self._forget_speech()
        return self._take_keys()

    # --- INTERRUPTED ---

    def interrupted_speech_started(self, event: Event) -> State:
        self._listen_to(has_floor=False)
        return State.INTERRUPTED

    def interrupted_sustained(self, event: Event) -> State:
        self._take_floor()
        self._do(Endpoint(self._endpoint_ms()))
        return State.LISTENING

    def interrupted_partial(self, event: Event) -> State:
        assert isinstance(event, Partial)
        if not self._meant(event.text):
            return State.INTERRUPTED
        self._take_floor()
        self._do(Endpoint(self._endpoint_ms()))
        self._speculate()
        return State.LISTENING

    def verdict_timer(self, event: Event) -> State:
        """The recogniser takes too long; should it find words after all, they still interrupt."""
        return self._resume()

    # --- any state ---

    def typed(self, event: Event) -> State:
        """Meant, so what is heard beside it is not, nor is the rest of what the agent says. What was said before it is
        answered with it."""
        assert isinstance(event, Typed)
        if sum(map(len, (*self._answering, *self._carry, *self._behind))) > TYPED_MAX_CHARACTERS:
            return self.state
        self._behind = (*self._behind, event.text)
        self._append_written()
        if self._over_agent():
            if not self.interruptible:
                self.words = Told(event.text, final=True)
                return self.state  # answered when that line was heard
            self._take_floor()
        if self._hearing:
            self._forget_speech()
        self.words = Told(event.text, final=True)
        return self._yield_floor()

    def flush(self, event: Event) -> State:
        """Nobody wants the rest of it, nor an answer to what it was asked: that stays asked, and what comes next is
        answered."""
        if not self._over_agent() or not self.interruptible:
            return self.state
        self._take_floor(goes_on=False)
        self._carry = ()
        self._keys = self._keys_before = ""  # keyed for what nobody wants any more; each would be an answer of its own
        return self._yield_floor()

    def final(self, event: Event) -> State:
        assert isinstance(event, Final)
        words = event.text if event.understood else ""
        if self._due:
            utterance = self._due.pop(0)
            if utterance.forgotten:
                return self.state
        elif words and self._hearing:  # the recogniser ended the turn by itself, as some services do
            utterance = Utterance(MEANT_MS, self._has_floor)
            if self.interruptible:
                self._forget_speech(understood=True)
        else:
            return self.state
        self.words = Told("", final=True)
        if not utterance.has_floor and not self._meant(words):
            return self._after_final()
        if not utterance.has_floor and self.interruptible and self._over_agent():
            self._take_floor()
        if words:
            self._carry = (*self._carry, words)
            self.words = Told(words, final=True)
        elif utterance.speech_ms >= MEANT_MS:
            waited_for = self.state is State.THINKING and self._reply == "none" and not self._awaits_final
            if event.failed and waited_for and not self._carry and not self._behind:
                return self._fail()
            self._unclear = event.text
            self.words = Told(event.text, final=True, understood=False)
        return self._after_final()

    def _after_final(self) -> State:
        self._append_written()
        if self.state is State.INTERRUPTED:
            return self.state if self._hearing or self._awaits_final else self._resume()
        return self._yield_floor() if self._reply == "none" else self.state

    def final_timer(self, event: Event) -> State:
        """The recogniser never answered."""
        awaited = self._awaits_final
        self._due.clear()
        if not awaited:
            return self.state
        self._forget_speech()
        if self.state is not State.THINKING or self._reply != "none":
            return self.state
        return self._yield_floor() if self._carry else self._fail()

    def utterance_timer(self, event: Event) -> State:
        """Hold music: taken for a turn that is over, and not listened to until it pauses."""
        self._hearing = False
        if self.state is State.INTERRUPTED:
            self._take_floor()
        if self.state is State.LISTENING:
            return self._end_turn(UTTERANCE_MAX_MS)
        self._finalize(UTTERANCE_MAX_MS)
        return self.state

    def time_is_up(self, event: Event) -> State:
        """Goodbye, then the end; a goodbye that is being said already has GOODBYE_MAX_MS."""
        if self.state is State.IDLE:
            return self.state
        if self.ending == "handed_off":
            self.ending = None  # nobody else is to begin now
        if self.ending is not None and self._leaving and isinstance(event, TimerFired):
            self._do(CancelReply())
            return self._hang_up(self.ending)
        if self._held:  # nobody would hear a goodbye
            self._do(CancelReply())
            return self._hang_up(self.ending or "max_duration")
        line = event.line if isinstance(event, Leave) else None
        if line is None and self._told_line:
            return self.state
        self._leaving = True
        self._restart("max_duration")
        if self.ending is not None and line is None:
            return self.state
        self._told_line = line is not None
        self._forget_speech()
        self._do(CancelReply())
        return self._say(self._agent.goodbye if line is None else line, ending="max_duration", interruptible=False)

    def broken(self, event: Event) -> State:
        assert isinstance(event, Broken)
        if self.state is State.IDLE or self._leaving or self._message:
            return self.state
        self._forget_speech()
        self._do(CancelReply())
        if self._held:  # nobody would hear it
            return self._hang_up("error")
        self._carry, self._behind, self._unclear = (), (), None
        return self._last_resort()

    def held(self, event: Event) -> State:
        if self._held:
            return self.state
        self._forget_speech()
        state = self._resume() if self.state is State.INTERRUPTED else self.state
        if not self._over:
            self._held = True
            self._do(PauseOutput())
        return state

    def unheld(self, event: Event) -> State:
        if not self._held:
            return self.state
        self._held = False
        self._forget_speech()  # their music
        self._do(ResumeOutput())
        awaits_words = self.state is State.THINKING and self._reply == "none"  # of an utterance that is forgotten now
        return self._yield_floor() if awaits_words else self.state

    def close(self, event: Event) -> State:
        self._over = True
        self._forget_speech()
        self._do(CancelReply())
        return State.IDLE

    def timer(self, event: Event) -> State:
        assert isinstance(event, TimerFired)
        return ON_TIMER[event.name](self, event)


_IDLE, _LISTENING, _THINKING = State.IDLE, State.LISTENING, State.THINKING
_SPEAKING, _INTERRUPTED = State.SPEAKING, State.INTERRUPTED

TABLE: dict[State, dict[type, Row]] = {
    State.IDLE: {
        Begin: Row(Turns.begin, (_THINKING, _LISTENING)),
    },
    State.LISTENING: {
        SpeechStarted: Row(Turns.listening_speech_started, (_LISTENING,)),
        Partial: Row(Turns.listening_partial, (_LISTENING,)),
        Completeness: Row(Turns.listening_partial, (_LISTENING,)),
        SpeechEnded: Row(Turns.listening_speech_ended, (_THINKING,)),
        Final: Row(Turns.final, (_LISTENING, _THINKING)),
        Key: Row(Turns.listening_key, (_LISTENING, _THINKING)),
        Typed: Row(Turns.typed, (_LISTENING, _THINKING)),
    },
    State.THINKING: {
        SpeechStarted: Row(Turns.speech_over_agent, (_INTERRUPTED, _THINKING)),
        SpeechEnded: Row(Turns.speech_over_agent_ended, (_THINKING,)),
        Final: Row(Turns.final, (_THINKING, _LISTENING)),
        ReplyBegan: Row(Turns.reply_began, (_SPEAKING, _THINKING)),
        ReplyHeard: Row(Turns.reply_heard, (_LISTENING, _THINKING, _IDLE)),
        ReplyFailed: Row(Turns.reply_failed, (_THINKING, _IDLE, _LISTENING)),
        Filled: Row(Turns.filled, (_THINKING,)),
        Key: Row(Turns.key_over_agent, (_THINKING,)),
        Typed: Row(Turns.typed, (_THINKING, _LISTENING)),
        Flush: Row(Turns.flush, (_THINKING, _LISTENING)),
    },
    State.SPEAKING: {
        SpeechStarted: Row(Turns.speech_over_agent, (_INTERRUPTED, _SPEAKING)),
        SpeechEnded: Row(Turns.speech_over_agent_ended, (_SPEAKING,)),
        Final: Row(Turns.final, (_SPEAKING, _LISTENING, _THINKING)),
        ReplyHeard: Row(Turns.reply_heard, (_LISTENING, _THINKING, _IDLE)),
        ReplyFailed: Row(Turns.reply_failed, (_THINKING, _IDLE)),
        Key: Row(Turns.key_over_agent, (_SPEAKING, _LISTENING, _THINKING)),
        Typed: Row(Turns.typed, (_SPEAKING, _LISTENING, _THINKING)),
        Flush: Row(Turns.flush, (_SPEAKING, _LISTENING, _THINKING)),
    },
    State.INTERRUPTED: {
        SpeechStarted: Row(Turns.interrupted_speech_started, (_INTERRUPTED,)),
        SpeechSustained: Row(Turns.interrupted_sustained, (_LISTENING,)),
        Partial: Row(Turns.interrupted_partial, (_INTERRUPTED, _LISTENING)),
        SpeechEnded: Row(Turns.speech_over_agent_ended, (_INTERRUPTED,)),
        Final: Row(Turns.final, tuple(State)),
        ReplyBegan: Row(Turns.reply_began, (_INTERRUPTED,)),
        ReplyHeard: Row(Turns.reply_heard, (_INTERRUPTED,)),
        ReplyFailed: Row(Turns.reply_failed, (_INTERRUPTED,)),
        Key: Row(Turns.key_over_agent, (_INTERRUPTED, _LISTENING, _THINKING)),
        Typed: Row(Turns.typed, (_LISTENING, _THINKING)),
        Flush: Row(Turns.flush, (_LISTENING, _THINKING)),
    },
}

ALWAYS: dict[type, Row] = {
    TimerFired: Row(Turns.timer, tuple(State)),
    Leave: Row(Turns.time_is_up, (_THINKING, _SPEAKING, _INTERRUPTED, _LISTENING, _IDLE)),
    Broken: Row(Turns.broken, (_THINKING, _IDLE, _SPEAKING, _INTERRUPTED, _LISTENING)),
    Held: Row(Turns.held, tuple(State)),
    Unheld: Row(Turns.unheld, tuple(State)),
    Close: Row(Turns.close, (_IDLE,)),
}

WAITS: dict[Timer, Callable[[Turns], int | None]] = {
    "no_input": Turns.no_input_ms,
    "digits": Turns.digits_ms,
    "message": Turns.message_ms,
    "utterance": Turns.utterance_ms,
    "final": Turns.final_ms,
    "verdict": Turns.verdict_ms,
    "reply": Turns.reply_ms,
    "filler": Turns.filler_ms,
    "max_duration": Turns.max_duration_ms,
}
"""How long a timer runs now; None: it does not."""

HOLD_TIMERS: frozenset[Timer] = frozenset(("max_duration",))
"""Those that also run while the far end holds us."""

ON_TIMER: dict[Timer, Callable[[Turns, Event], State]] = {
    "no_input": Turns.no_input_timer,
    "digits": Turns.digits_timer,
    "message": Turns.message_timer,
    "utterance": Turns.utterance_timer,
    "final": Turns.final_timer,
    "verdict": Turns.verdict_timer,
    "reply": Turns.reply_timer,
    "filler": Turns.filler_timer,
    "max_duration": Turns.time_is_up,
}
