"""Who answers a call, whatever its mind is: what a cascade's attendant and a realtime model's have in common.

An attendant performs what the turn machine decides. Here are its timers, the playout, fixed lines and fillers, one
reply at a time, the tools' hands, and the conversation as the caller *heard* it. Whoever inherits brings ears and a
mind: the abstract methods.

Interrupting cancels the reply's task and the epoch rises: whatever still comes of an older epoch (a late chunk, a
tool's hang-up) is void. A reply that fails is heard as far as it came, then reported.

An agent of several languages (agents/languages.py) changes to the caller's before it answers: the lines, the lists of
providers and the language that goes with the messages are then those of the other.
"""

import asyncio
import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import copy_context
from dataclasses import replace
from typing import Any, Literal, Protocol
from weakref import ref

from trunkline.agents import languages
from trunkline.agents import turns as t
from trunkline.agents.choice import Choice
from trunkline.agents.condensing import Condensing
from trunkline.agents.deadline import After, sleep
from trunkline.agents.definition import AgentDefinition
from trunkline.agents.entry import BROKEN_OFF_TAIL_S, GIVEN_TAIL_S, SecureEntry
from trunkline.agents.exchange import NOT_HANDED_OFF, Exchange, Written
from trunkline.agents.fixedlines import FixedLines
from trunkline.agents.following import EVERY_S, Following
from trunkline.agents.help import help_line
from trunkline.agents.invoiced import billed_in, product_of
from trunkline.agents.providers import Minds
from trunkline.agents.speaking import Speaking
from trunkline.agents.turns import Turns
from trunkline.agents.wishes import Heeding
from trunkline.clock import Clock
from trunkline.errors import ProviderError
from trunkline.live import Follower, ToolDone
from trunkline.media.bus import Bus
from trunkline.media.dtmf import tones
from trunkline.media.g711 import transcode
from trunkline.media.sources import Loop, soft_work
from trunkline.media.tones import tone
from trunkline.ports import (
    ON_BEHALF_OF,
    Allow,
    CallControl,
    CallFacts,
    Decision,
    EndReason,
    Expectation,
    Llm,
    Message,
    OpenQuestion,
    Refuse,
    ToolCall,
    TurnRecord,
    Usage,
    Wish,
    Word,
)
from trunkline.privacy.sensitive import Sensitive
from trunkline.types import FRAME_MS, MULAW_8K

BACKGROUND_AFTER_S = 0.4  # nobody hears a shorter wait as one
BACKGROUND_MS = 100  # at a time: the answer waits for no more than this
UNSPOKEN_MS = 1000
VOICE_STALLED_S = 1.0  # from when on a voice that was asked for a phrase and is silent may be played over
Hears = Literal["always", "late", "never"]
"""late: in a transcript beside a model, which may come late or not at all."""
TOOL_ROUNDS = 5  # a model that does nothing but call tools is stopped


class Tools(Protocol):
    """Performs a model's tool calls (agents/tools)."""

    async def __call__(self, tool: ToolCall, control: CallControl, call: CallFacts) -> str:
        """The result as text for the model. Never raises for a tool's failure: that is a result too."""
        ...


class Provider(Protocol):
    name: str
    third_party: bool


class Control(CallControl, Protocol):
    """The call itself, as its attendant has it."""

    @property
    def sends_dtmf(self) -> bool:
        """Digits are the leg's to send, at once; where not, they are sounded in the audio."""
        ...

    def handed_off(self) -> None:
        """What was said before a hand-off that was allowed has been heard: the other agent goes on."""
        ...

    def fall_back(self) -> Decision:
        """This attendant's mind is lost for good: the agent's cascade goes on with the conversation. Refused: it may
        not hear the caller, and nothing has changed."""
        ...


class Report(Protocol):
    """Where an attendant tells of its call."""

    def turn(self, turn: TurnRecord, ago_s: float) -> None:
        """A turn is over; it began (T0) so many seconds ago."""
        ...

    def usage(self, usage: Usage) -> None: ...

    def event(self, kind: str, **data: Any) -> None: ...

    @property
    def follower(self) -> Follower | None:
        """Who wants to know what is said while it is said; None: nobody."""
        ...

    def crashed(self, error: BaseException) -> None:
        """Our own bug: this call ends."""
        ...


def weakly(attendant: "Attendant", method: Callable[..., None]) -> Callable[..., None]:
    """A provider must not keep us: a call that is over, with all its audio, is freed at once."""
    me = ref(attendant)

    def call(*arguments: Any) -> None:
        listener = me()
        if listener is not None:
            method(listener, *arguments)

    return call


class Attendant(ABC):
    """One call's agent. Methods return at once; close() is idempotent."""

    def __init__(
        self,
        definition: AgentDefinition,
        minds: Minds,
        tools: Tools,
        call: CallFacts,
        bus: Bus,
        control: Control,
        report: Report,
        clock: Clock,
        after: After,
        *,
        gated: bool,
        sums_up: Callable[[], Mapping[str, Llm]],
    ) -> None:
        """`gated`: the ears are fed speech only. `sums_up`: who may be asked now for a summary of a long conversation,
        the best first, by key."""
        self.conversation: list[Message] = []
        self.epoch = 0
        self.turns = Turns(definition)
        self._in = definition.in_language
        self._tongues = definition.tags
        self._spoken = languages.Spoken(definition.language)
        self._heeding = Heeding()
        self._definition, self._tools, self._gated = definition, tools, gated
        self._call, self._bus, self._control, self._report = call, bus, control, report
        self._clock, self._after = clock, after
        self._minds = minds
        self._voices: dict[str, Speaking] = {}  # by the languages they have spoken in this call
        self._condensing = Condensing(
            definition.context, sums_up, weakly(self, Attendant._no_summary), call, report, after
        )
        self._timers: dict[str, Any] = {}
        self._events: deque[t.Event] = deque()
        self._handling = False
        self._tasks: set[asyncio.Task[None]] = set()  # also those that were cancelled and are not over yet
        self._task: asyncio.Task[None] | None = None  # the reply's
        self._filler: asyncio.Task[None] | None = None
        self._turn: Exchange | None = None
        self._turn_index = 0
        self._next = Exchange()  # what is known of the turn the caller is taking
        self._pending: tuple[str, ...] = ()  # what they said to whoever had the line before, until it is answered
        self._giving_over = ""  # id of the tool call by which another agent goes on, once what is said has been heard
        self._feeding = False
        self._closed = False
        self._entry: SecureEntry | None = None
        self._entry_tail_until = 0.0  # keys until then are of the last one
        self._following = Following(bus)
        self._background = soft_work().play() if definition.background else None
        bus.listener = self
        bus.rest_ears(False)

    # --- what its kind brings: ears and a mind ---

    @abstractmethod
    def _listener(self) -> Callable[[bytes], None]:
        """Who is fed the caller's audio."""

    @abstractmethod
    def _finalize(self) -> None:
        """The utterance is over: a Final is to follow."""

    @abstractmethod
    def _forget(self) -> None:
        """What is being heard was nothing: no Final."""

    @abstractmethod
    def _fed(self) -> None:
        """Who listened is fed no further."""

    @abstractmethod
    def _awaits(self, expectation: Expectation) -> None:
        """What the caller was asked for, from now on."""

    @abstractmethod
    def _answer(self, texts: Sequence[str], understood: bool, keyed: bool) -> None:
        """Start the reply to what the caller said or keyed."""

    @abstractmethod
    def _dismiss(self) -> None:
        """The call is over: ears and mind are let go."""

    @abstractmethod
    def _change_to(self, language: str) -> None:
        """The call is held in another language: whom ears and mind belong to."""

    def _left_open(self) -> OpenQuestion | None:
        """What the conversation so far has asked the caller, as far as the mind knows."""
        return None

    # --- the call's life ---

    @property
    def unwritten(self) -> bytes:
        """The caller's last words, as audio, where they were never put into words, nor answered. Once closed, too."""
        return b""

    def begin(
        self,
        greeting: str | None = None,
        conversation: Sequence[Message] = (),
        pending: Sequence[str] = (),
        *,
        before_question: str = "",
    ) -> None:
        """Greet; with another greeting and the conversation so far when a call is taken up again. `pending`: these of
        the caller's words, which the conversation has, are answered in place of it. `before_question`: said instead of
        that other greeting, where the conversation has left a question open, which is asked again then. The gateway's
        own greetings are in the agent's first language: a call that is held in another hears that one's apology."""
        self.conversation += conversation
        self._pending = tuple(pending)
        self._begin_in()
        if greeting and self._spoken.language != self._tongues[0]:
            greeting = self._definition.apology
            before_question = before_question and greeting
        question = None if self._pending else self._left_open()
        if question is not None:
            self.turns.expect(question.expectation)
            self._awaits(question.expectation)
            if before_question:
                greeting = f"{before_question} {question.text}"
        if not self._gated and not self.turns.on_hold:
            self._feed(0)
        self._handle(t.Begin(self._definition.greeting if greeting is None else greeting, self._pending))

    async def collect(self, name: str, least: int, most: int) -> Sensitive | None:
        """So many digits from the keypad, unheard and unwritten. None: they were not keyed."""
        if self._entry is not None:
            return None
        again = lambda: self._report.event("secure_entry", name=name, what="again")  # noqa: E731
        self._entry = entry = SecureEntry(self._bus, self._after, least, most, again)
        self._report.event("secure_entry", name=name, what="begun")
        digits = None
        try:
            digits = await entry.digits()
        finally:
            self._entry = None
            self._entry_tail_until = self._clock.now() + (GIVEN_TAIL_S if digits is not None else BROKEN_OFF_TAIL_S)
            entry.close()
            self._report.event("secure_entry", name=name, what="ended", given=digits is not None)
        return digits

    def key(self, digit: str) -> None:
        if self._entry is not None:
            self._entry.key(digit)
            return
        if self.keyed_in_secret:  # the rest of a number
            self._entry_tail_until = max(self._entry_tail_until, self._clock.now() + GIVEN_TAIL_S)
            return
        if self.turns.state is not t.State.THINKING:
            self._next.caller_ended_at = self._clock.now()
            self._next.decided_at = self._next.final_at = None
        self._handle(t.Key(digit))

    def typed(self, text: str) -> None:
        """Words of the caller that they have written, and that are no wish: answered as if they were said."""
        if self.turns.state is not t.State.THINKING:
            self._next.caller_ended_at = self._next.decided_at = self._next.final_at = self._clock.now()
        self._handle(t.Typed(text))

    def flush(self) -> None:
        """The caller has heard enough: stop speaking."""
        self._handle(t.Flush())

    def hold(self, held: bool) -> None:
        """The far end has put us on hold, or taken us back. Idempotent."""
        self._handle(t.Held() if held else t.Unheld())
        if not self._gated:
            if held:
                self._stop_feed()
            elif not self._feeding:
                self._feed(0)

    def say_goodbye(self, line: str | None = None) -> None:
        """The call's time is up: a spoken goodbye, or this line in its place, then the end."""
        self._handle(t.Leave(line))

    def close(self) -> None:
        """The call is over, or another goes on with it. Before the bus is closed: the last turn is cut to what was
        heard. The conversation is then as whoever goes on is told it."""
        if self._closed:
            return
        self._told_last()
        self._closed = True
        self._condensing.close()
        try:
            for effect in self.turns.handle(t.Close()):
                self._perform(effect)
        except Exception as error:
            self._report.crashed(error)
        finally:
            self.conversation[:] = self._condensing.context.view(self.conversation)
            self._stop_feed()
            self._dismiss()

    # --- from the bus (BusListener) ---

    def speech_started(self, at: float) -> None:
        self._next.caller_ended_at = self._next.decided_at = self._next.final_at = None
        self._handle(t.SpeechStarted(at))
        if self._turn is not None and self._turn.spoke_at is not None and self.turns.state is t.State.INTERRUPTED:
            self._turn.barge_in_ms = (self._clock.now() - at) * 1000

    def speech_sustained(self) -> None:
        self._handle(t.SpeechSustained())

    def speech_ended(self, at: float) -> None:
        self._next.caller_ended_at, self._next.decided_at = at, self._clock.now()
        self._next.final_at = None
        self._handle(t.SpeechEnded(at))

    def first_audio_sent(self, at: float) -> None:
        if self._turn is not None:
            self._turn.spoke_at = at
            self._expect(self._turn)
            self._watch(self._turn)
        self._pending = ()
        self._handle(t.ReplyBegan())

    def answer_heard(self) -> None:
        turn = self._turn
        if turn is None:
            return
        if not turn.failed:
            self._expect(turn)
        self._end_turn(cut=False)
        if self._next.caller_ended_at is not None:  # said or keyed while we spoke: nobody has waited for an answer yet
            self._next.caller_ended_at = self._clock.now()
            self._next.decided_at = self._next.final_at = None
        self._handle(t.ReplyFailed() if turn.failed else t.ReplyHeard())

    def crashed(self, error: BaseException) -> None:
        self._report.crashed(error)

    # --- effects ---

    def _handle(self, event: t.Event) -> None:
        """One event at a time: what an effect causes at once (a resumed playout that is heard) comes after it."""
        self._events.append(event)
        if self._handling:
            return
        self._handling = True
        try:
            while self._events and not self._closed:
                event = self._events.popleft()
                for effect in self.turns.handle(event):
                    self._perform(effect)
                if (tell := self._report.follower) is not None:
                    self._tell(event, tell)
        except Exception as error:
            self._report.crashed(error)
        finally:
            self._events.clear()
            self._handling = False

    def _tell(self, event: t.Event, tell: Follower) -> None:
        self._following.words(self.turns.words, tell)
        self._following.state(self.turns.state, tell)

    def _perform(self, effect: t.Effect) -> None:
        match effect:
            case t.Feed(pre_roll_ms):
                if self._gated:
                    self._feed(pre_roll_ms)
            case t.FinalizeStt():
                if self._gated:
                    self._stop_feed()
                self._finalize()
            case t.CancelStt():
                if self._gated:
                    self._stop_feed()
                self._bus.forget_speech()
                self._forget()
            case t.Endpoint(silence_ms):
                self._bus.set_endpoint(silence_ms)
            case t.Answer(texts, understood, keyed):
                self._answer(texts, understood, keyed)
            case t.Say(text):
                turn = Exchange()
                self._start(turn, lambda: self._line(text, turn))
            case t.Fill(text):
                self._stop_filler()
                self._filler = self._spawn(self._fill(text))
            case t.PutThrough(target):
                if not isinstance(self._control.transfer(target), Allow):
                    self.turns.end_after_answer("error")
            case t.TakeMessage(text):
                self._report.event("message", text=text)
            case t.PauseOutput():
                self._bus.pause()
            case t.ResumeOutput():
                self._bus.resume()
            case t.CancelReply():
                self._cancel_reply()
            case t.SetTimer(name, after_ms):
                self._set_timer(name, after_ms / 1000, lambda: self._handle(t.TimerFired(name)))
            case t.CancelTimer(name):
                self._cancel_timer(name)
            case t.HangUp(reason):
                self._control.hang_up(reason)
            case t.GiveOver():
                self._giving_over = ""
                self._control.handed_off()

    def _feed(self, pre_roll_ms: int) -> None:
        self._stop_feed()
        self._feeding = True
        self._bus.feed(self._listener(), pre_roll_ms)

    def _stop_feed(self) -> None:
        if self._feeding:
            self._feeding = False
            self._bus.stop_feed()
            self._fed()

    def _set_timer(self, name: str, after_s: float, then: Callable[[], None]) -> None:
        self._cancel_timer(name)
        self._timers[name] = self._after(after_s, then)

    def _cancel_timer(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    # --- wishes ---

    def _heed(self, wish: Wish | None) -> bool:
        """Whether what was said is dealt with: nobody answers it."""
        if wish is None:
            return False
        self._control.wished(wish)
        return wish.kind == "do_not_call" or self._closed

    def _told_last(self) -> None:
        """No final comes of what the caller was saying."""
        if self._definition.heeds:
            self._heed(self._heeding.lost())

    # --- languages ---

    @property
    def language(self) -> str:
        """What the call is held in."""
        return self._spoken.language

    @property
    def digits_awaited(self) -> bool:
        """Keys are an answer now."""
        return self.turns.expectation.digits_max > 0

    @property
    def keyed_in_secret(self) -> bool:
        """Keys are nobody else's business now."""
        return self._entry is not None or self._clock.now() < self._entry_tail_until

    @property
    def hears_words(self) -> Hears:
        """Whether wishes are found in what the caller says now."""
        return "always"

    @property
    def _language(self) -> str | None:
        """As the messages of the conversation have it."""
        return self._spoken.language if len(self._tongues) > 1 else None

    @property
    def _voice(self) -> Speaking:
        return self._voice_of(self._spoken.language)

    def _voice_of(self, language: str) -> Speaking:
        if language not in self._voices:
            minds, definition = self._minds.in_language(language), self._in(language)
            self._voices[language] = Speaking(
                Choice(minds, "tts", self._clock, self._report.event),
                self._bus,
                self._after,
                definition.failover,
                weakly(self, Attendant._meter_voice),
                FixedLines(definition, minds),
            )
        return self._voices[language]

    def _begin_in(self) -> None:
        """What the conversation so far was held in; else what came with the call says; else the first."""
        if len(self._tongues) == 1:
            return
        self._speak_language(
            languages.Spoken(languages.of_conversation(self.conversation, self._tongues)), "conversation"
        )
        asked = languages.lookup(self._call.attributes.get("language", ""), self._tongues)
        if asked is not None and not self.conversation:
            self._speak_language(languages.Spoken(asked), "call")

    def _speak_language(self, spoken: languages.Spoken, why: str) -> None:
        """From the next words on. Idempotent."""
        before, self._spoken = self._spoken, spoken
        if spoken.language == before.language:
            return
        self._definition = self._in(spoken.language)
        self.turns.speak(self._definition)
        self._report.event("language", **{"from": before.language, "to": spoken.language, "why": why})
        self._change_to(spoken.language)

    def _asked_to_speak(self, call: ToolCall, written: Written, turn: Exchange) -> str:
        """The result of the tool."""
        wanted = str(call.arguments.get("language", ""))
        tag = languages.lookup(wanted, self._tongues) if wanted else None
        if tag is None:
            why = f"the languages are {', '.join(self._tongues)}"
            return json.dumps({"ok": False, "code": "bad_arguments", "why": why})
        if turn.epoch == self.epoch:
            written.changed[call.id] = tag
            self._speak_language(languages.Spoken(tag), "asked")
        return json.dumps({"ok": True})

    # --- replies ---

    def _play_background(self, turn: Exchange) -> None:
        """Softly, while an answer is awaited or falls silent, a little at a time."""
        source, playout, now = self._background, self._bus.playout, self._clock.now()
        if source is None or turn.epoch != self.epoch or self._task is None:
            return
        again_s = BACKGROUND_MS / 1000
        asked_at = turn.first_phrase_at
        busy = turn.in_phrase and not (turn.first_audio_at is None and asked_at and now - asked_at > VOICE_STALLED_S)
        quiet_s = playout.playing_until + max(0, playout.queued_ms) / 1000 - now
        if quiet_s > again_s or playout.paused:
            again_s = max(again_s, quiet_s - FRAME_MS / 1000)
        elif not busy and self.turns.state in (t.State.THINKING, t.State.SPEAKING):
            audio = b"".join(source.frame() for _ in range(BACKGROUND_MS // FRAME_MS))
            if playout.format != MULAW_8K:
                audio = transcode(audio, MULAW_8K, playout.format)
            if turn.first_audio_at is None:
                self._bus.fill(audio)
            else:
                turn.background_from = now + quiet_s if turn.background_from is None else turn.background_from
                self._bus.append(audio, (), self._bus.position_ms)
        self._set_timer("background", again_s, lambda: self._play_background(turn))

    def _start(self, turn: Exchange, reply: "Reply") -> None:
        if self._turn is not None:
            self._cancel_reply()
        self.epoch += 1
        turn.epoch = self.epoch
        self._turn = turn
        self._bus.begin()
        self._task = self._spawn(self._guarded(turn, reply))
        self._follow(turn)

    def _follow(self, turn: Exchange) -> None:
        """Until it is over, where anybody follows."""
        if (tell := self._report.follower) is not None:
            self._following.progress(turn, tell)
            self._set_timer("follow", EVERY_S, lambda: self._follow(turn))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        context = copy_context()
        context.run(ON_BEHALF_OF.set, self._call.call_id)
        task = asyncio.get_running_loop().create_task(coroutine, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _cancel_reply(self) -> None:
        """Everything of the reply that comes from now on is void."""
        self.epoch += 1
        self._stop_filler()
        self._stop_task()
        if self._turn is not None:
            self._end_turn(cut=True)
        else:
            self._bus.cut()  # a filler
        if self._giving_over and (self._closed or self.turns.ending != "handed_off"):
            self._take_back()

    def _take_back(self) -> None:
        """The caller has the floor again: nobody else goes on."""
        call_id, self._giving_over = self._giving_over, ""
        results = (at for at, message in enumerate(self.conversation) if message.tool_call_id == call_id)
        for at in list(results)[-1:]:
            self.conversation[at] = replace(self.conversation[at], text=NOT_HANDED_OFF)

    def _stop_task(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        self._cancel_timer("stall")
        self._cancel_timer("background")

    def _stop_filler(self) -> None:
        filler, self._filler = self._filler, None
        if filler is not None:
            filler.cancel()

    async def _guarded(self, turn: Exchange, reply: "Reply") -> None:
        """A reply to its end: heard later, or failed. An older epoch's end interests nobody."""
        try:
            try:
                await reply()
            except ProviderError as error:
                if turn.epoch == self.epoch:
                    self._task = None
                    self._fail(turn, error)
            else:
                if turn.epoch == self.epoch:
                    self._task = None
                    self._bus.end()
        except Exception as error:
            self._report.crashed(error)

    def _fail(self, turn: Exchange, error: ProviderError) -> None:
        self._report.event("reply_failed", error=str(error), provider=error.provider, code=error.code)
        turn.failed = True
        self._stop_task()
        self._bus.end()

    def _watch(self, turn: Exchange) -> None:
        """A reply that falls silent in the middle is filled, and fails in the end; until its first audio the turn
        machine waits for it."""
        if turn.epoch != self.epoch or self._task is None:
            return
        if self._entry is not None:  # nobody waits but for the caller's keys
            turn.dry_at, turn.last_audio_at = None, self._clock.now()
        playout, terms = self._bus.playout, self._definition.turns
        now = self._clock.now()
        deadline_s, filler_s = terms.reply_deadline_ms / 1000, terms.filler_after_ms / 1000
        silent_from = max(turn.last_audio_at, playout.playing_until, now if playout.paused else 0.0)
        if not playout.paused:
            silent_from += max(0, playout.queued_ms) / 1000
        if turn.background_from is not None:
            silent_from = turn.background_from
        fails_at = (silent_from if turn.dry_at is None else max(turn.dry_at, turn.last_audio_at)) + deadline_s
        if playout.paused:
            fails_at = now + deadline_s
        if fails_at <= now:
            self._fail(turn, ProviderError("reply", "timeout", "stalled in the middle", retryable=True))
            return
        fills = turn.asked_at is not None and bool(self._definition.filler) and not playout.paused
        fills_at = silent_from + filler_s if fills else fails_at
        if fills_at <= now and turn.in_phrase and self._voice.alone and self.turns.state is t.State.SPEAKING:
            self._voice.doubt()
            self._fail(turn, ProviderError("reply", "timeout", "the voice stalled in the middle", retryable=True))
            return
        if fills_at <= now:
            fills_at = now + filler_s
            if self.turns.state is t.State.SPEAKING and not turn.in_phrase:
                self._stop_filler()
                self._filler = self._spawn(self._fill_between(turn, silent_from))
        self._set_timer("stall", max(0.0, min(fails_at, fills_at) - now), lambda: self._watch(turn))

    async def _fill_between(self, turn: Exchange, silent_from: float) -> None:
        """A filler in the middle of an answer: of its audio, but none of its words."""
        lines, heard_at = self._definition.filler, turn.last_audio_at
        text = lines[min(turn.fillers, len(lines) - 1)]
        turn.fillers += 1
        audio = await self._filler_audio(text)
        speaking = turn.epoch == self.epoch and self.turns.state is t.State.SPEAKING and self._task is not None
        if audio and speaking and not turn.in_phrase and turn.last_audio_at == heard_at:
            turn.dry_at = silent_from if turn.dry_at is None else turn.dry_at
            turn.background_from = None
            self._bus.append(audio, (), self._bus.position_ms)

    def _help(self) -> str:
        self._report.event("help_line")
        return help_line(self._call, self._spoken.language)

    async def _line(self, text: str, turn: Exchange) -> None:
        """Where no voice can say that it went wrong, a tone does: the caller is not to hear nothing."""
        line = Written(text, language=self._spoken.language)
        turn.written.append(line)
        if not text:
            return
        try:
            await self._speak(text, line, turn)
        except ProviderError as error:
            agent = self._definition
            sorry = (agent.apology, agent.failure, agent.failover.words, agent.failover.message)
            if line.phrases or text not in sorry:
                raise
            self._report.event("line_unspoken", error=str(error), provider=error.provider, code=error.code)
            turn.written.remove(line)
            self._append(turn, self._sounded(tone("congestion"), UNSPOKEN_MS), (), self._bus.position_ms)

    def _sounded(self, loop: Loop, length_ms: int) -> bytes:
        source, format = loop.play(), self._bus.playout.format
        audio = b"".join(source.frame() for _ in range(length_ms // FRAME_MS))
        return audio if format == MULAW_8K else transcode(audio, MULAW_8K, format)

    async def _fill(self, text: str) -> None:
        """Spoken whole or not at all: the answer may come at any moment. A soft sound where the voice is the only one
        and says nothing."""
        audio = await self._filler_audio(text)
        if not audio and self._voice.alone and self._background is None and self._turn is not None:
            self._background = soft_work().play()  # for the rest of the call
            self._play_background(self._turn)
        awaited = self.turns.state is t.State.THINKING and (self._turn is None or self._turn.first_audio_at is None)
        if audio and awaited:
            self._bus.fill(audio)
            self._handle(t.Filled(len(audio) // self._bus.playout.format.bytes_per_ms))

    async def _filler_audio(self, text: str) -> bytes:
        """Empty where it cannot be spoken."""
        try:
            return await self._voice.record(text)
        except ProviderError as error:
            self._report.event("filler_failed", error=str(error), provider=error.provider, code=error.code)
        except Exception as error:
            self._report.crashed(error)
        return b""

    def _used(self, call: ToolCall, written: Written, result: str) -> None:
        """A tool has this result."""
        written.results[call.id] = result
        if (tell := self._report.follower) is not None:
            tell(ToolDone(call.name, result))

    async def _key(self, turn: Exchange, digits: str) -> None:
        """After the words before them; where the leg sends them, silence keeps their place in the audio."""
        bus, sends = self._bus, self._control.sends_dtmf
        format, at_ms = bus.playout.format, bus.position_ms
        sounded = tones(digits, format)
        silence = format.silence * (len(sounded) // len(format.silence))
        self._append(turn, silence if sends else sounded, (), at_ms)
        if sends:
            while bus.heard_ms < at_ms:
                await sleep(self._after, FRAME_MS / 1000)
            if turn.epoch == self.epoch:
                self._control.send_dtmf(digits)

    def _expect(self, turn: Exchange) -> None:
        expectation, turn.expectation = turn.expectation, None
        if expectation is not None:
            self.turns.expect(expectation)
            self._awaits(expectation)

    async def _speak(self, text: str, written: Written, turn: Exchange) -> None:
        if turn.first_phrase_at is None:
            turn.first_phrase_at = self._clock.now()
        turn.in_phrase = True
        try:
            await self._voice_of(written.language or self._tongues[0]).speak(
                text, written, lambda audio, words, at_ms: self._append(turn, audio, words, at_ms)
            )
        finally:
            turn.in_phrase = False

    def _append(self, turn: Exchange, audio: bytes, words: Sequence[Word], offset_ms: int) -> bool:
        """False when it is void: the reply was cancelled."""
        if turn.epoch != self.epoch:
            return False
        if audio:
            turn.last_audio_at, turn.dry_at, turn.background_from = self._clock.now(), None, None
            if turn.first_audio_at is None:
                turn.first_audio_at = turn.last_audio_at
            self._stop_filler()
        self._bus.append(audio, words, offset_ms)
        return True

    # --- the record of a turn ---

    def _end_turn(self, *, cut: bool) -> None:
        """The answer was heard, or is cut to what was. Idempotent."""
        turn, self._turn = self._turn, None
        if turn is None:
            return
        if not cut:
            self._pending = ()
        playout = self._bus.playout
        exact = playout.ledger.exact(playout.answer_ms)
        interrupted = cut and playout.speaking
        heard_ms = self._cut(turn) if cut else playout.end_ms
        messages = turn.heard(playout.ledger, heard_ms) if interrupted or turn.failed else turn.messages()
        playout.ledger.forget(playout.end_ms)
        self._cancel_timer("follow")
        if (tell := self._report.follower) is not None:
            self._following.over(messages, interrupted, tell)
        self.conversation += messages
        now = self._clock.now()
        ago_s = now - (turn.caller_ended_at or turn.asked_at or turn.spoke_at or now)
        self._report.turn(turn.record(self._turn_index, messages, interrupted=interrupted, exact=exact), ago_s)
        self._turn_index += 1
        if not self._closed:
            self._condensing.between_turns(self.conversation)

    def _no_summary(self, key: str, error: ProviderError) -> None:
        if key in self._minds.named("llm"):  # else it is asked for summaries only
            self._minds.health.failed(key, error, self._clock.now())

    def _cut(self, turn: Exchange) -> int:
        """The answer ends where the caller stopped hearing it: that position."""
        return self._bus.cut()

    def _meter_voice(self, voice: Any, quantity: float) -> None:
        self._meter("tts", voice, billed_in(voice), quantity)

    def _meter(self, kind: Any, provider: Any, unit: Any, quantity: float) -> None:
        used = Usage(self._call.call_id, provider.name, kind, unit, quantity, product_of(provider))
        self._report.usage(used)

    def unmetered(self) -> Sequence[Usage]:
        """What was used and will be told later."""
        return ()

    @abstractmethod
    def instruct(self, text: str) -> None:
        """The model is told so beside what the caller says, from its next answer on."""

    # --- from the tools ---

    def _end_after(self, turn: Exchange, reason: EndReason) -> None:
        if turn.epoch == self.epoch:
            self.turns.end_after_answer(reason)

    def _transfer(self, turn: Exchange, target: str) -> Decision:
        if turn.epoch != self.epoch:
            return Refuse("interrupted", "the caller spoke")
        decision = self._control.transfer(target)
        if isinstance(decision, Allow):
            self.turns.end_after_answer("transferred")
        elif decision.code == "emergency":
            turn.urgent = True
        return decision

    def _hand_off(self, turn: Exchange, agent: str) -> Decision:
        if turn.epoch != self.epoch:
            return Refuse("interrupted", "the caller spoke")
        decision = self._control.hand_off(agent)
        if isinstance(decision, Allow):
            self.turns.end_after_answer("handed_off")
        return decision


Reply = Callable[[], Coroutine[Any, Any, None]]
"""Called when its task runs: one cancelled before that has begun nothing."""


class Hands:
    """What a tool may do to the call: it waits for the answer to be heard, and is void when that is cut."""

    def __init__(self, attendant: Attendant, turn: Exchange) -> None:
        self._attendant, self._turn = attendant, turn
        self.digits = ""
        """To be sounded after what was said before."""
        self.given_over = False

    def hang_up(self, reason: EndReason) -> None:
        self._attendant._end_after(self._turn, reason)

    def transfer(self, target: str) -> Decision:
        return self._attendant._transfer(self._turn, target)

    def hand_off(self, agent: str) -> Decision:
        decision = self._attendant._hand_off(self._turn, agent)
        self.given_over = isinstance(decision, Allow)
        return decision

    def wished(self, wish: Wish) -> None:
        """Void for no reason."""
        self._attendant._control.wished(wish)

    async def collect(self, name: str, least: int, most: int) -> Sensitive | None:
        return await self._attendant.collect(name, least, most)

    def send_dtmf(self, digits: str) -> None:
        control = self._attendant._control
        if not control.sends_dtmf:
            control.send_dtmf(digits)
        self.digits += digits

    def call_back(self) -> Decision:
        return self._attendant._control.call_back()
