"""The cascade: streaming STT -> LLM -> TTS on a call's bus.

`Cascade` is an agent of this process (its definition and started providers); `Attendant` answers one call with it. The
attendant performs what the turn machine decides: it feeds the recogniser, runs one reply task at a time (the model
writes phrases while the voice speaks them), and keeps the conversation as the caller *heard* it.

One reply is two coroutines joined by a bounded queue of phrases. Interrupting cancels both, which closes the model's
and the voice's requests; the epoch rises, so a tool that ends later finds that nobody waits for it.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from trunkline.agents import turns as t
from trunkline.agents.definition import AgentDefinition
from trunkline.agents.providers import Minds
from trunkline.agents.splitter import PhraseSplitter
from trunkline.agents.turns import Turns
from trunkline.clock import Clock
from trunkline.errors import ProviderError
from trunkline.media.bus import Bus
from trunkline.media.dtmf import tones
from trunkline.ports import (
    Allow,
    CallControl,
    CallFacts,
    Decision,
    EndReason,
    Expect,
    LlmUsage,
    Message,
    SttEvent,
    SttFailed,
    SttFinal,
    SttPartial,
    TextDelta,
    ToolCall,
    TurnRecord,
    Usage,
)

log = logging.getLogger(__name__)

PHRASES_WAITING = 16
TOOL_ROUNDS = 5  # a model that keeps calling tools without a word is stopped
ROOM_POLL_S = 0.25

Handle = asyncio.TimerHandle
After = Callable[[float, Callable[[], None]], Any]
"""Call back after so many seconds; the result has cancel()."""


class Tools(Protocol):
    """Performs a model's tool calls (agents/tools.py)."""

    async def __call__(self, tool: ToolCall, control: CallControl, call: CallFacts) -> str:
        """The result as text for the model. Never raises for a tool's failure: that is a result too."""
        ...


class Report(Protocol):
    """Where an attendant tells of its call."""

    def turn(self, turn: TurnRecord, ago_s: float) -> None:
        """A turn is over; it began (T0) so many seconds ago."""
        ...

    def usage(self, usage: Usage) -> None: ...

    def event(self, kind: str, **data: Any) -> None: ...

    def crashed(self, error: BaseException) -> None:
        """Our own bug: this call ends."""
        ...


@dataclass(slots=True)
class Cascade:
    """One agent of this process."""

    definition: AgentDefinition
    minds: Minds
    tools: Tools

    def attend(
        self, call: CallFacts, bus: Bus, control: CallControl, report: Report, clock: Clock, after: After
    ) -> "Attendant":
        return Attendant(self, call, bus, control, report, clock, after)


@dataclass(slots=True)
class _Turn:
    """A turn as it happens. Times are monotonic seconds."""

    caller_text: str = ""
    understood: bool = True
    keyed: bool = False
    caller_ended_at: float | None = None
    decided_at: float | None = None
    final_at: float | None = None
    asked_at: float | None = None
    first_phrase_at: float | None = None
    first_audio_at: float | None = None
    spoke_at: float | None = None
    barge_in_ms: float | None = None
    tools: list[str] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    """What the agent did in it, as generated; cut to what was heard when it is over."""


class Attendant:
    """One call's agent. Methods return at once; close() is idempotent."""

    def __init__(
        self,
        agent: Cascade,
        call: CallFacts,
        bus: Bus,
        control: CallControl,
        report: Report,
        clock: Clock,
        after: After,
    ) -> None:
        self.conversation: list[Message] = []
        self.epoch = 0
        self.turns = Turns(agent.definition)
        self._agent, self._call, self._bus, self._control, self._report = agent, call, bus, control, report
        self._clock, self._after = clock, after
        self._stt = agent.minds.stt.open(call, bus.playout.format, self._heard)
        self._gated = agent.minds.stt.feed_mode == "gated"
        self._llm = agent.minds.llm.open(call)
        self._timers: dict[str, Any] = {}
        self._task: asyncio.Task[None] | None = None
        self._turn: _Turn | None = None
        self._turn_index = 0
        self._next = _Turn()  # what is known of the turn the caller is taking
        self._closed = False
        bus.listener = self

    # --- the call's life ---

    def begin(self, greeting: str | None = None, conversation: Sequence[Message] = ()) -> None:
        """Greet; with another greeting and the conversation so far when a call is taken up again."""
        self.conversation += conversation
        if not self._gated:
            self._bus.feed(self._stt.feed, 0)
        self._handle(t.Begin(self._agent.definition.greeting if greeting is None else greeting))

    def key(self, digit: str) -> None:
        self._next.caller_ended_at = self._clock.now()
        self._handle(t.Key(digit))

    def say_goodbye(self) -> None:
        """The call's time is up: a spoken goodbye, then the end."""
        self._handle(t.TimerFired("max_duration"))

    def close(self) -> None:
        """The call is over. Before the bus is closed: the last turn is cut to what was heard."""
        if not self._closed:
            self._handle(t.Close())
            self._closed = True
            self._stt.close()
            self._llm.close()

    # --- from the bus (BusListener) ---

    def speech_started(self, at: float) -> None:
        self._handle(t.SpeechStarted(at))
        if self._turn is not None and self.turns.state is t.State.INTERRUPTED and self._turn.barge_in_ms is None:
            self._turn.barge_in_ms = (self._clock.now() - at) * 1000

    def speech_sustained(self) -> None:
        self._handle(t.SpeechSustained())

    def speech_ended(self, at: float) -> None:
        self._next.caller_ended_at, self._next.decided_at = at, self._clock.now()
        self._handle(t.SpeechEnded(at))

    def first_audio_sent(self, at: float) -> None:
        if self._turn is not None:
            self._turn.spoke_at = at
        self._handle(t.ReplyBegan())

    def answer_heard(self) -> None:
        self._end_turn(cut=False)
        self._handle(t.ReplyHeard())

    def crashed(self, error: BaseException) -> None:
        self._report.crashed(error)

    # --- from the recogniser ---

    def _heard(self, event: SttEvent) -> None:
        if isinstance(event, SttPartial):
            self._handle(t.Partial(event.text, event.complete))
            return
        self._next.final_at = self._clock.now()
        if isinstance(event, SttFinal):
            self._handle(t.Final(event.text, event.understood))
        elif isinstance(event, SttFailed):
            self._report.event("stt_failed", error=str(event.error))
            self._handle(t.Final("", understood=False))

    # --- effects ---

    def _handle(self, event: t.Event) -> None:
        if self._closed:
            return
        try:
            for effect in self.turns.handle(event):
                self._perform(effect)
        except Exception as error:
            self._report.crashed(error)

    def _perform(self, effect: t.Effect) -> None:
        match effect:
            case t.Feed(pre_roll_ms):
                if self._gated:
                    self._bus.feed(self._stt.feed, pre_roll_ms)
            case t.FinalizeStt():
                self._stop_feed()
                self._stt.finalize()
            case t.CancelStt():
                self._stop_feed()
                self._bus.forget_speech()
                self._stt.cancel()
            case t.Endpoint(silence_ms):
                self._bus.set_endpoint(silence_ms)
            case t.Answer(texts, understood, keyed):
                self._answer(texts, understood, keyed)
            case t.Say(text):
                self._start(_Turn(), self._line(text))
            case t.PauseOutput():
                self._bus.pause()
            case t.ResumeOutput():
                self._bus.resume()
            case t.CancelReply():
                self._cancel_reply()
            case t.SetTimer(name, after_ms):
                self._cancel_timer(name)
                self._timers[name] = self._after(after_ms / 1000, lambda: self._handle(t.TimerFired(name)))
            case t.CancelTimer(name):
                self._cancel_timer(name)
            case t.HangUp(reason):
                self._control.hang_up(reason)

    def _stop_feed(self) -> None:
        if self._gated:
            self._bus.stop_feed()

    def _cancel_timer(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    # --- replies ---

    def _answer(self, texts: Sequence[str], understood: bool, keyed: bool) -> None:
        turn, self._next = self._next, _Turn()
        turn.caller_text, turn.understood, turn.keyed = " ".join(texts), understood, keyed
        turn.asked_at = self._clock.now()
        if keyed:
            turn.decided_at = turn.final_at = None
        while self.conversation and self.conversation[-1].role == "caller" and self.conversation[-1].text in texts:
            self.conversation.pop()  # carried over: it is answered now, together with what followed
        self.conversation += [Message("caller", text, keyed=keyed) for text in texts]
        self._start(turn, self._reply(turn, understood))

    def _start(self, turn: _Turn, coroutine: Coroutine[Any, Any, None]) -> None:
        self._cancel_reply()
        self._turn = turn
        self._bus.begin()
        self._task = asyncio.get_running_loop().create_task(self._guarded(coroutine))

    def _cancel_reply(self) -> None:
        self.epoch += 1
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self._turn is not None:
            self._end_turn(cut=True)

    async def _guarded(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """A reply to its end: heard later, or failed."""
        try:
            await coroutine
        except ProviderError as error:
            self._report.event("reply_failed", error=str(error), provider=error.provider, code=error.code)
            self._bus.end()
            self._task = None
            self._end_turn(cut=True)
            self._handle(t.ReplyFailed())
        except Exception as error:
            self._report.crashed(error)
        else:
            self._task = None
            self._bus.end()

    async def _line(self, text: str) -> None:
        assert self._turn is not None
        self._turn.messages.append(Message("agent", text))
        await self._speak(text, self._turn)

    async def _reply(self, turn: _Turn, understood: bool) -> None:
        phrases: asyncio.Queue[str | None] = asyncio.Queue(PHRASES_WAITING)
        writer = asyncio.get_running_loop().create_task(self._write_all(turn, understood, phrases))
        try:
            while (phrase := await phrases.get()) is not None:
                if turn.first_phrase_at is None:
                    turn.first_phrase_at = self._clock.now()
                await self._speak(phrase, turn)
            await writer
        finally:
            writer.cancel()
            writer.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _write_all(self, turn: _Turn, understood: bool, phrases: "asyncio.Queue[str | None]") -> None:
        """The writer's failure is raised only after what it had written is spoken."""
        try:
            await self._write(turn, understood, phrases)
        except Exception:
            await phrases.put(None)
            raise
        await phrases.put(None)

    async def _write(self, turn: _Turn, understood: bool, phrases: "asyncio.Queue[str | None]") -> None:
        """The model's side: text into phrases, tools performed, until it has nothing more to say."""
        epoch = self.epoch
        for _ in range(TOOL_ROUNDS):
            splitter, text, calls = PhraseSplitter(), "", list[ToolCall]()
            asked = [*self.conversation, *turn.messages]
            async with aclosing(self._llm.reply(asked, understood=understood)) as events:
                async for event in events:
                    if isinstance(event, TextDelta):
                        text += event.text
                        for phrase in splitter.feed(event.text):
                            await phrases.put(phrase)
                    elif isinstance(event, ToolCall):
                        calls.append(event)
                    elif isinstance(event, Expect):
                        self._expect(event)
                    else:
                        self._meter_tokens(event)
            for phrase in splitter.flush():
                await phrases.put(phrase)
            turn.messages.append(Message("agent", text.strip(), tool_calls=tuple(calls)))
            for call in calls:
                turn.tools.append(call.name)
                result = await self._agent.tools(call, self._Hands(self), self._call)
                if epoch != self.epoch:
                    return
                turn.messages.append(Message("tool", result, tool_call_id=call.id))
            if not calls or self.turns.ending is not None:
                return

    def _expect(self, event: Expect) -> None:
        self.turns.expect(event.expectation)
        self._stt.expect(event.expectation)

    async def _speak(self, phrase: str, turn: _Turn) -> None:
        tts, bus = self._agent.minds.tts, self._bus
        offset_ms = bus.position_ms
        self._meter("tts", tts.name, "characters", len(phrase))
        async with aclosing(self._voice(phrase)) as chunks:
            async for audio, words in chunks:
                if turn.first_audio_at is None:
                    turn.first_audio_at = self._clock.now()
                bus.append(audio, words, offset_ms)
                while not bus.has_room:  # noqa: ASYNC110 - a model that writes a book is rare
                    await asyncio.sleep(ROOM_POLL_S)
        if not tts.word_times:
            bus.playout.ledger.add_estimate(phrase, offset_ms, bus.position_ms)

    async def _voice(self, phrase: str) -> AsyncGenerator[tuple[bytes, Sequence[Any]], None]:
        async with aclosing(self._agent.minds.tts.speak(phrase, self._bus.playout.format)) as chunks:
            async for chunk in chunks:
                yield chunk.data, chunk.words

    # --- the record of a turn ---

    def _end_turn(self, *, cut: bool) -> None:
        """The answer was heard, or is cut to what was. Idempotent."""
        turn, self._turn = self._turn, None
        if turn is None:
            return
        playout = self._bus.playout
        start_ms = playout.answer_ms
        exact = playout.ledger.exact(start_ms)
        if cut:
            unfinished = self._bus.playout.speaking
            heard_ms = self._bus.cut()
            text = playout.ledger.text(start_ms, heard_ms)
            turn.messages = _cut_to(turn.messages, text) if unfinished else turn.messages
            cut = unfinished
        else:
            text = " ".join(m.text for m in turn.messages if m.role == "agent" and m.text)
        playout.ledger.forget(playout.end_ms)
        self.conversation += [m for m in turn.messages if m.text or m.tool_calls]
        now = self._clock.now()
        ago_s = now - (turn.caller_ended_at or turn.asked_at or turn.spoke_at or now)
        self._report.turn(_record(turn, self._turn_index, text, interrupted=cut, exact=exact), ago_s)
        self._turn_index += 1

    def _meter_tokens(self, usage: LlmUsage) -> None:
        name = self._agent.minds.llm.name
        self._meter("llm", name, "tokens_in", usage.tokens_in)
        self._meter("llm", name, "tokens_out", usage.tokens_out)

    def _meter(self, kind: Any, provider: str, unit: Any, quantity: float) -> None:
        self._report.usage(Usage(self._call.call_id, provider, kind, unit, quantity))

    class _Hands:
        """What tools may do to the call: they wait for the answer to be heard."""

        def __init__(self, attendant: "Attendant") -> None:
            self._attendant = attendant

        def hang_up(self, reason: EndReason) -> None:
            self._attendant.turns.end_after_answer(reason)

        def transfer(self, target: str) -> Decision:
            return self._attendant._transfer(target)

        def send_dtmf(self, digits: str) -> None:
            bus = self._attendant._bus
            bus.append(tones(digits, bus.playout.format), (), bus.position_ms)

    def _transfer(self, target: str) -> Decision:
        decision = self._control.transfer(target)
        if isinstance(decision, Allow):
            self.turns.end_after_answer("transferred")
        return decision


def _cut_to(messages: Sequence[Message], heard: str) -> list[Message]:
    """The agent's messages, their texts shortened to the words that were heard."""
    words = heard.split()
    cut: list[Message] = []
    for message in messages:
        if message.role != "agent":
            cut.append(message)
            continue
        count = len(message.text.split())
        cut.append(replace(message, text=" ".join(words[:count]), cut=count > len(words)))
        words = words[count:]
    return cut


def _record(turn: _Turn, index: int, text: str, *, interrupted: bool, exact: bool) -> TurnRecord:
    def between(start: float | None, end: float | None) -> float | None:
        return None if start is None or end is None else round((end - start) * 1000, 1)

    return TurnRecord(
        index=index,
        caller_text=turn.caller_text,
        agent_text=text,
        understood=turn.understood,
        keyed=turn.keyed,
        interrupted=interrupted,
        heard_exact=exact,
        endpointing_ms=between(turn.caller_ended_at, turn.decided_at),
        stt_ms=between(turn.decided_at, turn.final_at),
        llm_ms=between(turn.asked_at, turn.first_phrase_at),
        tts_ms=between(turn.first_phrase_at, turn.first_audio_at),
        total_ms=between(turn.caller_ended_at, turn.spoke_at),
        barge_in_ms=None if turn.barge_in_ms is None or not interrupted else round(turn.barge_in_ms, 1),
        tools=tuple(turn.tools),
    )
