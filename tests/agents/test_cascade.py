"""An attendant on a real bus with a far end that plays what it is sent; its providers say what a test has them say."""

import asyncio
import gc
import random
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, cast

import pytest

from trunkline.agents import turns as t
from trunkline.agents.cascade import Cascade, CascadeAttendant
from trunkline.agents.definition import AgentDefinition, Failover, ProviderChoice
from trunkline.agents.exchange import UNKNOWN_OUTCOME
from trunkline.agents.providers import Minds
from trunkline.agents.tools import perform
from trunkline.errors import ProviderError
from trunkline.live import Follower, Heard, Progress, Saying, ToolDone, TurnState
from trunkline.media.bus import Bus
from trunkline.media.dtmf import tone
from trunkline.media.ears import Ears
from trunkline.media.heartbeat import Heartbeat
from trunkline.media.playout import Message as Audio
from trunkline.media.vad import EnergyGate, VoiceDetector
from trunkline.ports import (
    Allow,
    CallControl,
    CallFacts,
    Decision,
    EndReason,
    Expect,
    Expectation,
    LlmEvent,
    LlmUsage,
    Message,
    OpenQuestion,
    Refuse,
    SttEvent,
    SttFailed,
    SttFinal,
    SttPartial,
    TextDelta,
    ToolCall,
    TtsAudio,
    TurnDetector,
    TurnRecord,
    Usage,
    Wish,
    Word,
)
from trunkline.testing.clock import ManualClock
from trunkline.types import DEFAULT_TENANT, FRAME_MS, MULAW_8K, CallId, Format

WORD_MS = 200
CHOICE = ProviderChoice("test")
AGENT = AgentDefinition(
    "clinic", CHOICE, CHOICE, CHOICE, greeting="Hello there.", goodbye="Bye.", apology="Sorry.", failure="Broken."
)
FACTS = CallFacts(CallId("call_1"), DEFAULT_TENANT, "inbound", None, None, datetime(2026, 11, 22, tzinfo=UTC))
DOWN = ProviderError("llm", "unavailable", retryable=True)


class Deaf:
    rate_hz, window_samples, context_samples = 8000, 256, 32

    def reset(self, slot: int) -> None: ...


# --- providers ------------------------------------------------------------------------------------------------------


@dataclass
class Stream:
    on_event: Callable[[SttEvent], None]
    fed_bytes: int = 0
    finalized: int = 0
    cancelled: int = 0
    closed: bool = False
    expected: list[Expectation] = field(default_factory=list)
    begun: list[tuple[int, int]] = field(default_factory=list)
    """How long ago the caller began, and how much had been fed then."""

    def feed(self, audio: bytes) -> None:
        self.fed_bytes += len(audio)

    def began(self, ago_ms: int) -> None:
        self.begun.append((ago_ms, self.fed_bytes))

    def expect(self, expectation: Expectation) -> None:
        self.expected.append(expectation)

    def finalize(self) -> None:
        self.finalized += 1

    def cancel(self) -> None:
        self.cancelled += 1

    def close(self) -> None:
        self.closed = True


class Stt:
    name = "ears"
    third_party = False
    formats: tuple[Format, ...] = (MULAW_8K,)

    def __init__(self, feed_mode: Literal["all", "gated"] = "gated") -> None:
        self.feed_mode: Literal["all", "gated"] = feed_mode
        self.streams: list[Stream] = []

    async def start(self) -> None: ...

    def open(self, call: CallFacts, format: Format, on_event: Callable[[SttEvent], None]) -> Stream:
        self.streams.append(Stream(on_event))
        return self.streams[-1]

    async def close(self) -> None: ...


class Pen:
    """One request to the model, as the test has it written."""

    def __init__(self, asked: Sequence[Message], understood: bool) -> None:
        self.asked, self.understood = list(asked), understood
        self.closed = self.done = False
        self._events: asyncio.Queue[LlmEvent | Exception | None] = asyncio.Queue()

    def write(self, *events: LlmEvent | str) -> "Pen":
        for event in events:
            self._events.put_nowait(TextDelta(event) if isinstance(event, str) else event)
        return self

    def end(self) -> None:
        self._events.put_nowait(None)

    def fail(self, error: Exception = DOWN) -> None:
        self._events.put_nowait(error)

    async def events(self) -> AsyncGenerator[LlmEvent, None]:
        try:
            while (event := await self._events.get()) is not None:
                if isinstance(event, Exception):
                    raise event
                yield event
            self.done = True
        finally:
            self.closed = True


class Llm:
    name = "llm"
    third_party = False

    def __init__(self) -> None:
        self.pens: list[Pen] = []
        self.prompt_sha256 = ""
        self.closed = 0

    async def start(self) -> None: ...

    def open(self, call: CallFacts) -> "Llm":
        return self

    def reply(self, conversation: Sequence[Message], *, understood: bool = True) -> AsyncGenerator[LlmEvent, None]:
        self.pens.append(Pen(conversation, understood))
        self.prompt_sha256 = f"prompt {len(self.pens)}"
        return self.pens[-1].events()

    def close(self) -> Any:
        self.closed += 1
        return None


class Tts:
    name = "voice"
    third_party = False

    def __init__(self, *, word_times: bool = True) -> None:
        self.word_times = word_times
        self.spoken: list[str] = []
        self.cancelled: list[str] = []
        self.hold: set[str] = set()
        self.errors: dict[str, Exception] = {}

    async def start(self) -> None: ...

    async def speak(self, text: str, format: Format) -> AsyncGenerator[TtsAudio, None]:
        self.spoken.append(text)
        try:
            for at, word in enumerate(text.split()):
                if word in self.errors:
                    raise self.errors[word]
                while word in self.hold:
                    await asyncio.sleep(0)
                times = (Word(word, at * WORD_MS, (at + 1) * WORD_MS),) if self.word_times else ()
                yield TtsAudio(bytes([at]) * (WORD_MS * format.bytes_per_ms), times)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.append(text)
            raise

    async def close(self) -> None: ...


# --- the call -------------------------------------------------------------------------------------------------------


class FarEnd:
    """Plays 20 ms a tick, returns marks as they are reached, and all of them on a clear."""

    writable = True

    def __init__(self) -> None:
        self.queue: list[bytes | str] = []
        self.returned: list[str] = []
        self.played_ms = self.clears = 0

    def send(self, messages: Sequence[Audio]) -> None:
        for audio, mark, _, _ in messages:
            self.queue += [audio[at : at + 160] for at in range(0, len(audio), 160)]
            self.queue.append(mark)

    def clear(self) -> None:
        self.clears += 1
        self.returned += [mark for mark in self.queue if isinstance(mark, str)]
        self.queue.clear()

    def tick(self) -> None:
        if self.queue and isinstance(self.queue[0], bytes):
            self.queue.pop(0)
            self.played_ms += FRAME_MS
        while self.queue and isinstance(self.queue[0], str):
            self.returned.append(self.queue.pop(0))  # type: ignore[arg-type]


@dataclass
class Timer:
    due: float
    then: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


class Call:
    """The leg, the control and the report of one attendant, and its time."""

    def __init__(
        self,
        agent: AgentDefinition = AGENT,
        stt: Stt | None = None,
        tts: Tts | None = None,
        cascade: Cascade | None = None,
        detector: TurnDetector | None = None,
        llm: Llm | None = None,
    ) -> None:
        self.clock = ManualClock()
        self.timers: list[Timer] = []
        self.turns: list[TurnRecord] = []
        self.metered: list[Usage] = []
        self.events: list[str] = []
        self.crashes: list[BaseException] = []
        self.hang_ups: list[EndReason] = []
        self.transfers: list[str] = []
        self.sounded: list[str] = []
        self.handed: list[str] = []
        self.given_over = 0
        self.decision: Decision = Allow()
        self.tool: Callable[[ToolCall, CallControl], Coroutine[Any, Any, str]] = self._no_tool
        self.stt, self.llm, self.tts = stt or Stt(), llm or Llm(), tts or Tts()
        ears = Ears(MULAW_8K, 1, cast(VoiceDetector, Deaf()), EnergyGate(1))
        self.heartbeat = Heartbeat(self.clock, lambda *_: None, lambda late_s, took_s: None)
        self.far = FarEnd()
        self.bus = Bus(self.far, ears, self.heartbeat, self.clock)
        minds = Minds(self.stt, self.llm, self.tts, detector=detector)
        self.cascade = cascade or Cascade(agent, minds, self._tool)
        if cascade is not None:
            self.stt, self.llm, self.tts = (
                cast(Any, p) for p in (cascade.minds.stt, cascade.minds.llm, cascade.minds.tts)
            )
        self.attendant: CascadeAttendant = self.cascade.attend(FACTS, self.bus, self, self, self.clock, self.after)
        self.ears = self.stt.streams[-1]

    def after(self, seconds: float, then: Callable[[], None]) -> Timer:
        timer = Timer(self.clock.now() + seconds, then)
        self.timers.append(timer)
        return timer

    async def _tool(self, tool: ToolCall, control: CallControl, call: CallFacts) -> str:
        return await self.tool(tool, control)

    async def _no_tool(self, tool: ToolCall, control: CallControl) -> str:
        return "done"

    # Control

    sends_dtmf = False
    """Whether the leg does; else the agent."""

    def hang_up(self, reason: EndReason) -> None:
        self.hang_ups.append(reason)
        self.attendant.close()
        self.bus.close()

    def transfer(self, target: str) -> Decision:
        self.transfers.append(target)
        return self.decision

    def hand_off(self, agent: str) -> Decision:
        self.handed.append(agent)
        return self.decision

    def handed_off(self) -> None:
        self.given_over += 1

    def wished(self, wish: Wish) -> None:
        self.wishes = [*getattr(self, "wishes", ()), wish]

    def call_back(self) -> Decision:
        return Allow()

    def send_dtmf(self, digits: str) -> None:
        self.sounded.append(digits)

    fallen_back = 0

    fall_back_decision: Decision = Allow()

    def fall_back(self) -> Decision:
        self.fallen_back += isinstance(self.fall_back_decision, Allow)
        return self.fall_back_decision

    # Report

    follower: Follower | None = None

    def turn(self, turn: TurnRecord, ago_s: float) -> None:
        assert ago_s >= 0
        self.turns.append(turn)

    def usage(self, usage: Usage) -> None:
        self.metered.append(usage)

    def event(self, kind: str, **data: Any) -> None:
        self.events.append(kind)

    def crashed(self, error: BaseException) -> None:
        self.crashes.append(error)

    # time

    async def settle(self) -> None:
        for _ in range(30):
            await asyncio.sleep(0)

    async def run(self, milliseconds: int) -> None:
        """As a worker does: every 20 ms the beat, marks and audio from the far end, timers, tasks."""
        for _ in range(milliseconds // FRAME_MS):
            self.clock.advance(FRAME_MS / 1000)
            self.far.tick()
            self.bus.receive(b"\xff" * 160, self.bus.carrier_ms + FRAME_MS)
            marks, self.far.returned = self.far.returned, []
            for mark in marks:
                self.bus.mark_returned(mark)
            self.heartbeat.beat(self.clock.now())
            for timer in [timer for timer in self.timers if timer.due <= self.clock.now()]:
                self.timers.remove(timer)
                if not timer.cancelled:
                    timer.then()
            await self.settle()

    # people

    async def begun(self) -> "Call":
        self.attendant.begin()
        await self.run(1000)
        assert self.attendant.turns.state is t.State.LISTENING
        return self

    def starts(self) -> None:
        self.bus.speech_started(self.clock.now())

    async def says(self, text: str, length_ms: int = 500) -> None:
        self.starts()
        await self.run(length_ms)
        self.bus.speech_ended(self.clock.now() - 0.2)
        self.ears.on_event(SttFinal(text))
        await self.settle()

    async def is_silent(self) -> None:
        self.bus.speech_ended(self.clock.now() - 0.32)
        self.ears.on_event(SttFinal("", understood=False))
        await self.settle()

    async def interrupts(self) -> None:
        self.starts()
        await self.run(500)
        self.bus.speech_sustained()
        await self.settle()

    @property
    def pen(self) -> Pen:
        return self.llm.pens[-1]

    @property
    def talk(self) -> list[tuple[str, str]]:
        return [(message.role, message.text) for message in self.attendant.conversation]

    @property
    def state(self) -> t.State:
        return self.attendant.turns.state


def on_a_call(test: Callable[[Call], Coroutine[Any, Any, None]], **kind: Any) -> None:
    async def main() -> None:
        call = await Call(**kind).begun()
        await test(call)
        call.attendant.close()
        call.bus.close()
        await call.settle()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, "a task outlives its call"
        assert not call.crashes
        assert all(pen.closed for pen in call.llm.pens)
        assert all(timer.cancelled for timer in call.timers), "a timer outlives its call"

    asyncio.run(main())


# --- speaking while the model writes --------------------------------------------------------------------------------


def test_what_another_mind_left_unwritten_is_recognised_and_answered() -> None:
    async def conversation() -> None:
        call = Call()
        call.attendant.go_on([Message("agent", "Hello there.")], b"\x20" * 8000)
        await call.settle()
        assert (call.ears.fed_bytes, call.ears.finalized) == (8000, 1)
        assert call.tts.spoken == [], "no greeting: an answer is owed"
        call.ears.on_event(SttFinal("when do you open"))
        await call.settle()
        call.llm.pens[-1].write("We open at eight.").end()
        await call.run(3000)
        said = [message.text for message in call.attendant.conversation]
        assert said == ["Hello there.", "when do you open", "We open at eight."]
        assert [u.quantity for u in call.metered if u.kind == "stt"] == [1.0]
        call.attendant.close()
        call.bus.close()

    asyncio.run(conversation())


def test_what_another_mind_left_unwritten_and_nobody_can_read_is_asked_again() -> None:
    async def conversation() -> None:
        call = Call()
        call.attendant.go_on([Message("agent", "Hello there.")], b"\x20" * 8000)
        await call.settle()
        call.ears.on_event(SttFailed(DOWN))
        await call.run(1000)
        assert call.tts.spoken == ["Sorry."]
        call.attendant.close()
        call.bus.close()

    asyncio.run(conversation())


class Unopened(Llm):
    name = "unopened"

    def __init__(self, error: Exception = DOWN) -> None:
        super().__init__()
        self.error = error

    def open(self, call: CallFacts) -> Llm:
        raise self.error


@pytest.mark.parametrize("error", [DOWN, RuntimeError("a bug")])
def test_where_no_mind_can_be_opened_no_ear_stays_open(error: Exception) -> None:
    async def conversation() -> None:
        stt = Stt()
        with pytest.raises(type(error)):
            Call(stt=stt, cascade=Cascade(AGENT, Minds(stt, Unopened(error), Tts()), Call._no_tool))  # type: ignore[arg-type]
        assert [stream.closed for stream in stt.streams] == [True]

    asyncio.run(conversation())


def test_a_mind_that_cannot_be_opened_is_followed_as_the_call_begins() -> None:
    async def conversation() -> None:
        second = Llm()
        call = Call(cascade=Cascade(AGENT, Minds(Stt(), Unopened(), Tts(), {"llm": (second,)}), Call._no_tool))  # type: ignore[arg-type]
        await call.begun()
        await call.says("when do you open")
        second.pens[-1].write("We open at eight.").end()
        await call.run(1500)
        assert call.talk[-1] == ("agent", "We open at eight.")
        assert call.cascade.minds.health.of("llm.unopened").failures >= 1
        call.attendant.close()
        call.bus.close()

    asyncio.run(conversation())


def test_a_phrase_is_spoken_while_the_next_is_written() -> None:
    async def conversation(call: Call) -> None:
        await call.says("what are your hours")
        assert call.pen.asked == [Message("agent", "Hello there."), Message("caller", "what are your hours")]
        call.pen.write("We open at eight. And")
        await call.settle()
        assert call.tts.spoken[-1] == "We open at eight."
        assert call.state.name == "SPEAKING"
        call.pen.write(" we close at five.").end()
        await call.run(3000)
        assert call.tts.spoken[-2:] == ["We open at eight.", "And we close at five."]
        assert call.talk[-1] == ("agent", "We open at eight. And we close at five.")
        assert call.state is t.State.LISTENING

    on_a_call(conversation)


def test_the_record_of_a_turn_tells_its_latencies() -> None:
    async def conversation(call: Call) -> None:
        call.starts()
        await call.run(600)
        call.bus.speech_ended(call.clock.now() - 0.2)
        await call.run(60)
        call.ears.on_event(SttFinal("hours"))
        await call.run(340)
        call.tts.hold.add("Eight.")
        call.pen.write("Eight.").end()
        await call.settle()
        await call.run(100)
        call.tts.hold.clear()
        await call.settle()
        await call.run(1000)
        assert call.turns[-1] == TurnRecord(
            1, "hours", "Eight.", endpointing_ms=200, stt_ms=60, llm_ms=340, tts_ms=100, total_ms=700
        )

    on_a_call(conversation)


def test_the_greeting_is_a_turn_nobody_asked_for() -> None:
    async def conversation(call: Call) -> None:
        assert [(turn.index, turn.caller_text, turn.agent_text) for turn in call.turns] == [(0, "", "Hello there.")]
        assert call.turns[0].total_ms is None
        assert call.talk == [("agent", "Hello there.")]

    on_a_call(conversation)


def test_what_is_used_is_metered() -> None:
    async def conversation(call: Call) -> None:
        await call.says("hours", length_ms=700)
        call.pen.write("Eight to five.", LlmUsage(12, 4)).end()
        await call.run(1000)
        used = [(usage.kind, usage.provider, usage.unit, usage.quantity) for usage in call.metered]
        assert used == [
            ("tts", "voice", "characters", 12),
            ("stt", "ears", "seconds", 1.0),
            ("llm", "llm", "tokens_in", 12),
            ("llm", "llm", "tokens_out", 4),
            ("tts", "voice", "characters", 14),
        ]

    on_a_call(conversation)


def test_a_gated_recogniser_hears_speech_with_its_pre_roll_and_nothing_else() -> None:
    async def conversation(call: Call) -> None:
        assert call.ears.fed_bytes == 0
        call.starts()
        assert call.ears.fed_bytes == 300 * 8
        await call.run(500)
        call.bus.speech_ended(call.clock.now())
        await call.run(500)
        assert call.ears.fed_bytes == 800 * 8
        assert call.ears.finalized == 1

    on_a_call(conversation)


class Oracle:
    name, third_party = "oracle", False

    def __init__(self, says: float = 1.0) -> None:
        self.says, self.asked = says, list[tuple[str, str]]()

    async def start(self) -> None: ...

    async def probability(self, text: str, language: str) -> float:
        self.asked.append((text, language))
        return self.says

    async def close(self) -> None: ...


def test_the_turn_detector_is_asked_of_a_callers_words_and_its_answer_counts() -> None:
    oracle = Oracle()

    async def conversation(call: Call) -> None:
        ends: list[int] = []
        call.bus.set_endpoint = ends.append  # type: ignore[method-assign,assignment]
        call.ears.on_event(SttPartial("nobody speaks"))
        await call.settle()
        assert oracle.asked == []
        call.starts()
        call.ears.on_event(SttPartial("what are your hours"))
        await call.settle()
        assert oracle.asked == [("what are your hours", "en-US")]
        assert ends == [600, 600, 200]
        oracle.says = 0.0
        call.ears.on_event(SttPartial("what are your hours on"))
        await call.settle()
        assert ends[3:] == [600, 3000]
        call.bus.speech_ended(call.clock.now())
        call.ears.on_event(SttPartial("late"))
        await call.settle()
        assert len(oracle.asked) == 2

    on_a_call(conversation, detector=oracle)


def test_of_what_a_grammar_understood_no_turn_detector_is_asked() -> None:
    oracle = Oracle()

    class Grammar(Stt):
        free_text = False

    async def conversation(call: Call) -> None:
        call.starts()
        call.ears.on_event(SttPartial("what are your hours"))
        await call.settle()
        assert oracle.asked == []

    on_a_call(conversation, stt=Grammar(), detector=oracle)


def test_a_recogniser_of_everything_hears_everything() -> None:
    async def conversation(call: Call) -> None:
        assert call.ears.fed_bytes == 1000 * 8
        await call.says("hours")
        await call.run(200)
        assert call.ears.fed_bytes == 1700 * 8
        assert call.ears.begun == [(300, 1000 * 8)]

    on_a_call(conversation, stt=Stt("all"))


@pytest.mark.parametrize("mode", ["all", "gated"])
def test_on_hold_the_answer_waits_and_nothing_is_fed(mode: Literal["all", "gated"]) -> None:
    async def conversation(call: Call) -> None:
        await call.says("hours")
        call.pen.write("We open at eight in the morning.").end()
        await call.run(500)
        call.attendant.hold(True)
        fed = call.ears.fed_bytes
        call.starts()
        await call.run(60_000)
        assert call.far.queue == []
        assert (call.ears.fed_bytes, call.hang_ups, len(call.talk)) == (fed, [], 2)
        call.attendant.hold(False)
        await call.run(2500)
        assert call.talk[-1] == ("agent", "We open at eight in the morning.")
        assert not call.turns[-1].interrupted
        before = call.ears.fed_bytes
        call.starts()
        await call.run(500)
        assert call.ears.fed_bytes > before

    on_a_call(conversation, stt=Stt(mode))


def test_a_book_is_spoken_as_fast_as_it_is_heard() -> None:
    async def conversation(call: Call) -> None:
        await call.says("read")
        for _ in range(7):
            call.pen.write("word " * 99 + "end. ")
        call.pen.end()
        await call.settle()
        assert call.bus.playout.queued_ms <= 121_000
        await call.run(141_000)
        assert call.state is t.State.LISTENING
        assert len(call.talk[-1][1].split()) == 700

    on_a_call(conversation)


# --- interrupting ---------------------------------------------------------------------------------------------------


def test_an_interruption_closes_the_models_and_the_voices_requests() -> None:
    async def conversation(call: Call) -> None:
        await call.says("hours")
        call.tts.hold.add("five")
        call.pen.write("We open at eight. We close at five on")
        call.pen.write(" Sundays. And")
        await call.run(400)
        epoch = call.attendant.epoch
        await call.interrupts()
        await call.settle()
        assert call.attendant.epoch > epoch
        assert call.pen.closed
        assert not call.pen.done
        assert call.tts.cancelled == ["We close at five on Sundays."]
        assert call.far.clears == 1
        assert call.state is t.State.LISTENING

    on_a_call(conversation)


def test_the_conversation_holds_what_was_heard_though_the_model_was_still_writing() -> None:
    async def conversation(call: Call) -> None:
        await call.says("hours")
        call.pen.write("We open at eight in the morning. And")
        await call.run(700)
        await call.interrupts()
        agent = call.attendant.conversation[-1]
        assert agent == Message("agent", "We open at", cut=True)
        turn = call.turns[-1]
        assert (turn.agent_text, turn.interrupted, turn.heard_exact) == ("We open at", True, True)
        assert turn.cut_text == "eight in the morning. And"
        assert turn.barge_in_ms == 0

    on_a_call(conversation)


def test_a_phrase_heard_to_its_end_stands_as_it_was_written() -> None:
    async def conversation(call: Call) -> None:
        await call.says("hours")
        call.pen.write("We open  at 8:00. And").end()
        await call.run(820)
        await call.interrupts()
        assert call.attendant.conversation[-1] == Message("agent", "We open  at 8:00.", cut=True)

    on_a_call(conversation)


def test_a_voice_without_word_times_is_estimated_and_marked_so() -> None:
    async def conversation(call: Call) -> None:
        await call.says("hours")
        call.pen.write("We open at eight in the morning.").end()
        await call.run(900)
        await call.interrupts()
        turn = call.turns[-1]
        assert not turn.heard_exact
        assert "We open at eight in the morning.".startswith(turn.agent_text)
        assert len(turn.agent_text.split()) <= 4

    on_a_call(conversation, tts=Tts(word_times=False))


def test_an_interruption_before_the_first_word_was_heard_leaves_no_trace_of_the_answer() -> None:
    async def conversation(call: Call) -> None:
        await call.says("hours")
        call.pen.write("We open at eight.").end()
        await call.run(20)
        await call.interrupts()
        assert call.talk[-1] == ("caller", "hours")
        await call.says("on sunday")
        assert call.pen.asked[-2:] == [Message("caller", "hours"), Message("caller", "on sunday")]

    on_a_call(conversation)


def test_a_cough_pauses_the_answer_and_loses_nothing_of_it() -> None:
    async def conversation(call: Call) -> None:
        await call.says("hours")
        call.pen.write("We open at eight in the morning.").end()
        await call.run(500)
        call.starts()
        await call.run(200)
        queued = call.far.queue
        assert queued == []
        await call.is_silent()
        await call.run(2000)
        assert call.talk[-1] == ("agent", "We open at eight in the morning.")
        assert not call.turns[-1].interrupted
        assert call.turns[-1].barge_in_ms is None
        assert len(call.llm.pens) == 1

    on_a_call(conversation)


def test_going_on_while_the_agent_thinks_asks_once_more_and_says_nothing_twice() -> None:
    async def conversation(call: Call) -> None:
        await call.says("i would like")
        await call.run(100)
        first = call.pen
        await call.interrupts()
        await call.says("an appointment")
        assert first.closed
        assert call.pen.asked[1:] == [Message("caller", "i would like"), Message("caller", "an appointment")]
        call.pen.write("Gladly.").end()
        await call.run(1000)
        assert [turn.caller_text for turn in call.turns] == ["", "i would like", "an appointment"]
        assert call.talk == [
            ("agent", "Hello there."),
            ("caller", "i would like"),
            ("caller", "an appointment"),
            ("agent", "Gladly."),
        ]

    on_a_call(conversation)


def test_an_answer_made_while_the_caller_coughed_is_spoken_after_it() -> None:
    async def conversation(call: Call) -> None:
        await call.says("hours")
        call.starts()
        call.pen.write("Eight to five.").end()
        await call.run(200)
        assert call.far.queue == []
        assert call.state.name == "INTERRUPTED"
        await call.is_silent()
        await call.run(1000)
        assert call.talk[-1] == ("agent", "Eight to five.")
        assert call.state is t.State.LISTENING

    on_a_call(conversation)


def test_the_timers_of_an_answer_resumed_do_not_outlive_it() -> None:
    async def conversation(call: Call) -> None:
        await call.says("hours")
        call.starts()
        call.pen.write("Eight to five.").end()
        await call.run(200)
        await call.is_silent()
        await call.run(6000)
        assert [turn.agent_text for turn in call.turns] == ["Hello there.", "Eight to five."]

    on_a_call(conversation)


def test_a_chunk_that_comes_after_the_cancel_is_void() -> None:
    class Stubborn(Tts):
        async def speak(self, text: str, format: Format) -> AsyncGenerator[TtsAudio, None]:
            if text != "Never mind.":
                async for chunk in super().speak(text, format):
                    yield chunk
                return
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                yield TtsAudio(b"\x00" * 8000)

    async def conversation(call: Call) -> None:
        await call.says("hours")
        call.pen.write("Never mind.").end()
        await call.run(100)
        await call.interrupts()
        await call.settle()
        assert call.bus.playout.queued_ms == 0
        assert call.state is t.State.LISTENING
        await call.says("again")
        call.pen.write("Eight.").end()
        await call.run(500)
        assert call.talk[-1] == ("agent", "Eight.")

    on_a_call(conversation, tts=Stubborn())


def test_a_request_that_fails_as_it_is_closed_does_not_disturb_the_next_answer() -> None:
    async def conversation(call: Call) -> None:
        async def spiteful(*_: Any, **__: Any) -> AsyncGenerator[LlmEvent, None]:
            try:
                await asyncio.sleep(3600)
                yield TextDelta("")
            finally:
                raise DOWN

        reply, call.llm.reply = call.llm.reply, spiteful  # type: ignore[method-assign]
        await call.says("hours")
        await call.run(100)
        call.starts()
        await call.run(200)
        call.llm.reply = reply  # type: ignore[method-assign]
        call.bus.speech_ended(call.clock.now())
        call.ears.on_event(SttFinal("on sunday"))
        await call.settle()
        call.pen.write("Closed.").end()
        await call.run(500)
        assert call.events == []
        assert call.talk[-1] == ("agent", "Closed.")

    on_a_call(conversation)


def test_a_voice_that_fails_as_it_is_closed_does_not_disturb_the_next_answer() -> None:
    class Spiteful(Tts):
        async def speak(self, text: str, format: Format) -> AsyncGenerator[TtsAudio, None]:
            try:
                async for chunk in super().speak(text, format):
                    yield chunk
            except asyncio.CancelledError:
                raise DOWN from None

    async def conversation(call: Call) -> None:
        call.tts.hold.add("eight.")
        await call.says("hours")
        call.pen.write("We open at eight. And")
        await call.run(500)
        call.attendant.key("1")
        await call.settle()
        call.pen.write("One.").end()
        await call.run(1000)
        assert call.events == []
        assert call.talk[-1] == ("agent", "One.")

    on_a_call(conversation, tts=Spiteful())


def test_a_key_interrupts_and_is_answered_as_a_key() -> None:
    async def conversation(call: Call) -> None:
        await call.says("hours")
        call.pen.write("We open at eight in the morning.").end()
        await call.run(500)
        call.attendant.key("2")
        await call.settle()
        assert call.pen.asked[-2:] == [Message("agent", "We open", cut=True), Message("caller", "2", keyed=True)]
        call.pen.write("Two.").end()
        await call.run(500)
        turn = call.turns[-1]
        assert (turn.caller_text, turn.keyed) == ("2", True)
        assert (turn.endpointing_ms, turn.stt_ms, turn.total_ms) == (0, None, 20)

    on_a_call(conversation)


def test_what_is_said_under_an_uninterruptible_line_is_timed_from_its_end() -> None:
    async def main() -> None:
        call = Call(replace(AGENT, greeting="This call is recorded for all of us.", greeting_interruptible=False))
        call.attendant.begin()
        await call.run(200)
        await call.says("hours", length_ms=300)
        await call.run(1200)
        call.pen.write("Eight.").end()
        await call.run(1000)
        assert call.turns[-1].caller_text == "hours"
        assert call.turns[-1].total_ms is not None
        assert call.turns[-1].total_ms < 200
        assert call.far.clears == 0
        call.attendant.close()

    asyncio.run(main())


# --- what is expected next ------------------------------------------------------------------------------------------


def test_an_expectation_holds_from_when_the_question_is_heard() -> None:
    async def conversation(call: Call) -> None:
        digits = Expectation("digits_n", 4, 4)
        await call.says("confirm")
        call.pen.write(Expect(digits))
        await call.run(100)
        assert call.ears.expected == []
        call.pen.write("Key your number.").end()
        await call.run(100)
        assert call.ears.expected == [digits]
        assert call.attendant.turns.expectation == digits

    on_a_call(conversation)


class Resuming(Llm):
    """It knows what it had asked."""

    def left_open(self, conversation: Sequence[Message]) -> OpenQuestion | None:
        return OpenQuestion("Your number?", DIGITS) if conversation else None


SAID = (Message("agent", "Hello."), Message("caller", "book"), Message("agent", "Right. Your number?"))
DIGITS = Expectation("digits_patient", 4, 4)


def test_a_question_that_was_left_open_is_asked_again_and_its_keys_belong_together() -> None:
    async def main() -> None:
        call = Call(llm=Resuming())
        call.attendant.begin("We were cut off. How can I help?", SAID, before_question="We were cut off.")
        assert call.ears.expected == [DIGITS]
        await call.run(1500)
        for digit in "4711":
            call.attendant.key(digit)
        await call.settle()
        assert call.talk[-2:] == [("agent", "We were cut off. Your number?"), ("caller", "4711")]
        assert call.pen.asked[-1] == Message("caller", "4711", keyed=True)
        call.attendant.close()
        await call.settle()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("llm", "said", "pending", "expected", "spoken"),
    [
        (Llm, SAID, (), [], "Here I am."),
        (Resuming, (), (), [], "Here I am."),
        (Resuming, SAID, ("book",), [], None),
        (Resuming, SAID, (), [DIGITS], "Here I am."),
    ],
)
def test_a_line_that_asks_nothing_stays_as_it_is(
    llm: type[Llm], said: Sequence[Message], pending: Sequence[str], expected: list[Expectation], spoken: str | None
) -> None:
    async def main() -> None:
        call = Call(llm=llm())
        call.attendant.begin("Here I am.", said, pending)
        assert call.ears.expected == expected
        await call.run(1000)
        assert call.tts.spoken == ([] if spoken is None else [spoken])
        call.attendant.close()
        await call.settle()

    asyncio.run(main())


def test_a_question_that_failed_expects_nothing() -> None:
    async def conversation(call: Call) -> None:
        await call.says("confirm")
        call.pen.write(Expect(Expectation("digits_n", 4, 4))).fail()
        await call.run(500)
        assert call.ears.expected == []

    on_a_call(conversation)


def test_a_question_nobody_heard_expects_nothing() -> None:
    async def conversation(call: Call) -> None:
        await call.says("confirm")
        call.pen.write(Expect(Expectation("digits_n", 4, 4)))
        await call.run(100)
        await call.interrupts()
        assert call.ears.expected == []
        assert call.attendant.turns.expectation == Expectation()

    on_a_call(conversation)


# --- tools ----------------------------------------------------------------------------------------------------------


def test_a_tools_result_is_answered_and_the_order_is_what_providers_need() -> None:
    async def conversation(call: Call) -> None:
        look, count = ToolCall("a", "look", {"day": "monday"}), ToolCall("b", "count", {})
        await call.says("when")
        call.pen.write("Let me see.", look, count).end()
        await call.settle()
        assert len(call.llm.pens) == 2
        exchange = [
            Message("agent", "Let me see.", tool_calls=(look, count)),
            Message("tool", "done", tool_call_id="a"),
            Message("tool", "done", tool_call_id="b"),
        ]
        assert call.pen.asked[2:] == exchange
        call.pen.write("At ten.").end()
        await call.run(2000)
        assert call.attendant.conversation[2:] == [*exchange, Message("agent", "At ten.")]
        assert (call.turns[-1].tools, call.turns[-1].agent_text) == (("look", "count"), "Let me see. At ten.")

    on_a_call(conversation)


def test_the_evidence_of_a_turn_is_what_was_asked_and_done() -> None:
    async def conversation(call: Call) -> None:
        async def outcomes(tool: ToolCall, control: CallControl) -> str:
            return {"look": '{"ok": true, "result": 4}', "book": '{"ok": false, "code": "busy"}'}.get(tool.name, "[")

        call.tool = outcomes
        await call.says("when")
        look = ToolCall("a", "look", {"day": "monday"})
        call.pen.write("Let me see.", look, ToolCall("b", "book", {}), ToolCall("c", "tell", {})).end()
        await call.settle()
        call.pen.write("At ten.").end()
        await call.run(2000)
        evidence = call.turns[-1].evidence
        assert evidence is not None
        assert evidence.prompts == ("prompt 1", "prompt 2")
        assert [(use.name, use.arguments, use.outcome) for use in evidence.tools] == [
            ("look", {"day": "monday"}, "ok"), ("book", {}, "busy"), ("tell", {}, "unknown")
        ]  # fmt: skip

    on_a_call(conversation)


def test_a_request_that_brought_nothing_was_made_all_the_same() -> None:
    async def conversation(call: Call) -> None:
        await call.says("when")
        call.pen.fail()
        await call.run(4000)
        evidence = next(turn.evidence for turn in call.turns if turn.caller_text)
        assert evidence is not None
        assert evidence.prompts[:1] == ("prompt 1",)

    on_a_call(conversation)


def test_a_tool_that_was_interrupted_has_a_result_all_the_same() -> None:
    async def conversation(call: Call) -> None:
        async def slow(tool: ToolCall, control: CallControl) -> str:
            if tool.id == "b":
                await asyncio.sleep(3600)
            return "done"

        call.tool = slow
        calls = ToolCall("a", "look", {}), ToolCall("b", "book", {}), ToolCall("c", "tell", {})
        await call.says("book it")
        call.pen.write("Let me see what I can do.", *calls).end()
        await call.run(500)
        await call.interrupts()
        assert call.attendant.conversation[-3:] == [
            Message("agent", "Let me", tool_calls=calls[:2], cut=True),
            Message("tool", "done", tool_call_id="a"),
            Message("tool", UNKNOWN_OUTCOME, tool_call_id="b"),
        ]

    on_a_call(conversation)


def test_the_same_words_said_again_while_the_agent_thinks_are_said_twice() -> None:
    async def conversation(call: Call) -> None:
        await call.says("double five")
        for times in (2, 3):
            call.starts()
            await call.run(400)
            call.bus.speech_sustained()
            await call.settle()
            call.bus.speech_ended(call.clock.now() - 0.2)
            call.ears.on_event(SttFinal("double five", understood=True))
            await call.settle()
            assert [m.text for m in call.pen.asked if m.role == "caller"] == ["double five"] * times
        call.pen.write("Thanks.").end()
        await call.run(1500)
        assert call.turns[-1].caller_text == "double five"

    on_a_call(conversation)


def test_words_before_a_tool_was_done_are_not_asked_about_twice() -> None:
    async def conversation(call: Call) -> None:
        book = ToolCall("a", "book", {})
        await call.says("book it")
        call.pen.write(book).end()
        await call.settle()
        await call.interrupts()
        await call.says("for tuesday")
        assert call.pen.asked[1:] == [
            Message("caller", "book it"),
            Message("agent", "", tool_calls=(book,)),
            Message("tool", "done", tool_call_id="a"),
            Message("caller", "for tuesday"),
        ]

    on_a_call(conversation)


def test_hanging_up_waits_until_goodbye_was_heard() -> None:
    async def conversation(call: Call) -> None:
        async def hang_up(tool: ToolCall, control: CallControl) -> str:
            control.hang_up("agent_hung_up")
            return "done"

        call.tool = hang_up
        await call.says("bye")
        call.pen.write("Good bye then.", ToolCall("a", "hang_up", {})).end()
        await call.run(500)
        assert call.hang_ups == []
        assert len(call.llm.pens) == 1  # nothing more to say
        await call.run(200)
        assert call.hang_ups == ["agent_hung_up"]
        assert call.far.played_ms == 400 + 600
        assert call.talk[-2] == ("agent", "Good bye then.")

    on_a_call(conversation)


def test_a_transfer_waits_until_it_was_announced() -> None:
    async def conversation(call: Call) -> None:
        async def transfer(tool: ToolCall, control: CallControl) -> str:
            return str(isinstance(control.transfer("desk"), Allow))

        call.tool = transfer
        await call.says("a person")
        call.pen.write("I will connect you.", ToolCall("a", "transfer", {})).end()
        await call.run(600)
        assert (call.transfers, call.hang_ups) == (["desk"], [])
        await call.run(400)
        assert call.hang_ups == ["transferred"]

    on_a_call(conversation)


def test_a_transfer_refused_is_told_to_the_model_and_the_call_goes_on() -> None:
    async def conversation(call: Call) -> None:
        async def transfer(tool: ToolCall, control: CallControl) -> str:
            return "yes" if isinstance(control.transfer("desk"), Allow) else "no"

        call.tool, call.decision = transfer, Refuse("closed", "it is night")
        await call.says("a person")
        call.pen.write(ToolCall("a", "transfer", {})).end()
        await call.settle()
        assert call.pen.asked[-1] == Message("tool", "no", tool_call_id="a")
        call.pen.write("Nobody is in.").end()
        await call.run(1000)
        assert (call.hang_ups, call.state) == ([], t.State.LISTENING)

    on_a_call(conversation)


def test_a_tool_that_ends_after_its_answer_was_cut_can_do_nothing_to_the_call() -> None:
    async def conversation(call: Call) -> None:
        hands: list[CallControl] = []

        async def keep(tool: ToolCall, control: CallControl) -> str:
            hands.append(control)
            await asyncio.Event().wait()
            return ""

        call.tool = keep
        await call.says("bye")
        call.pen.write(ToolCall("a", "hang_up", {})).end()
        await call.settle()
        await call.interrupts()
        await call.says("no wait")
        hands[0].hang_up("agent_hung_up")
        assert isinstance(hands[0].transfer("desk"), Refuse)
        call.pen.write("Yes?").end()
        await call.run(1000)
        assert (call.hang_ups, call.transfers) == ([], [])

    on_a_call(conversation)


def test_keys_are_sounded_after_the_words_before_them() -> None:
    async def conversation(call: Call) -> None:
        async def send(tool: ToolCall, control: CallControl) -> str:
            control.send_dtmf("12")
            return "done"

        call.tool = send
        await call.says("press it")
        call.tts.hold.add("two.")
        call.pen.write("One two.", ToolCall("a", "send_dtmf", {})).end()
        await call.run(60)
        before = call.bus.position_ms
        call.tts.hold.clear()
        call.pen.write("Done.").end()
        await call.settle()
        assert call.sounded == ["12"]
        assert call.bus.position_ms - before > WORD_MS * 2
        words = call.bus.playout.ledger._words
        assert words[-1].text == "Done."
        assert words[-1].start_ms - words[-2].end_ms >= 200  # the tones
        await call.run(3000)
        assert call.talk[-1] == ("agent", "Done.")

    on_a_call(conversation)


def test_keys_the_leg_sends_leave_when_the_words_before_them_were_heard() -> None:
    async def conversation(call: Call) -> None:
        async def send(tool: ToolCall, control: CallControl) -> str:
            control.send_dtmf("12")
            return "done"

        call.tool, call.sends_dtmf = send, True
        await call.says("press it")
        call.pen.write("One two.", ToolCall("a", "send_dtmf", {})).end()
        await call.settle()
        call.pen.write("Done.").end()
        await call.run(WORD_MS)
        assert call.sounded == []
        await call.run(WORD_MS + 200)
        assert call.sounded == ["12"]
        words = call.bus.playout.ledger._words
        assert words[-1].text == "Done."
        assert words[-1].start_ms - words[-2].end_ms >= 200  # silence, while they are sent
        await call.run(3000)
        assert call.talk[-1] == ("agent", "Done.")

    on_a_call(conversation)


def test_keys_of_an_answer_that_was_cut_are_not_sent() -> None:
    async def conversation(call: Call) -> None:
        async def send(tool: ToolCall, control: CallControl) -> str:
            control.send_dtmf("12")
            return "done"

        call.tool, call.sends_dtmf = send, True
        await call.says("press it")
        call.pen.write("One two three four five.", ToolCall("a", "send_dtmf", {})).end()
        await call.run(WORD_MS)
        await call.interrupts()
        await call.says("no wait")
        call.pen.write("Yes?").end()
        await call.run(4000)
        assert call.sounded == []

    on_a_call(conversation)


def test_an_answer_of_only_a_tool_is_over_at_once() -> None:
    async def conversation(call: Call) -> None:
        async def hang_up(tool: ToolCall, control: CallControl) -> str:
            control.hang_up("agent_hung_up")
            return "done"

        call.tool = hang_up
        await call.says("bye")
        call.pen.write(ToolCall("a", "hang_up", {})).end()
        await call.settle()
        assert call.hang_ups == ["agent_hung_up"]

    on_a_call(conversation)


def test_a_model_that_only_calls_tools_is_stopped() -> None:
    async def conversation(call: Call) -> None:
        await call.says("hours")
        for at in range(5):
            call.pen.write(ToolCall(str(at), "look", {})).end()
            await call.settle()
        assert call.tts.spoken[-1] == "Sorry."
        assert call.events == ["reply_failed"]

    on_a_call(conversation)


# --- failures -------------------------------------------------------------------------------------------------------


def test_a_model_that_fails_before_its_first_word_is_apologised_for() -> None:
    async def conversation(call: Call) -> None:
        await call.says("hours")
        call.pen.fail()
        await call.run(500)
        assert call.events == ["reply_failed"]
        assert [turn.agent_text for turn in call.turns[1:]] == ["", "Sorry."]
        assert call.talk[-2:] == [("caller", "hours"), ("agent", "Sorry.")]
        assert call.state is t.State.LISTENING

    on_a_call(conversation)


def test_a_model_that_fails_in_the_middle_is_heard_as_far_as_it_came() -> None:
    async def conversation(call: Call) -> None:
        await call.says("hours")
        call.pen.write("We open at eight. And then").fail()
        await call.run(700)
        assert call.tts.spoken[-1] == "We open at eight."
        await call.run(1000)
        assert call.talk[-2:] == [("agent", "We open at eight."), ("agent", "Sorry.")]
        assert not call.turns[1].interrupted

    on_a_call(conversation)


def test_a_voice_that_fails_in_the_middle_is_heard_as_far_as_it_came() -> None:
    async def conversation(call: Call) -> None:
        call.tts.errors["eight."] = ProviderError("voice", "timeout", retryable=True)
        await call.says("hours")
        call.pen.write("We open at eight. And close at five.").end()
        await call.run(2000)
        assert call.talk[-2:] == [("agent", "We open at"), ("agent", "Sorry.")]
        assert call.pen.closed

    on_a_call(conversation)


def test_a_voice_that_is_dead_is_a_tone_and_ends_the_call() -> None:
    async def conversation(call: Call) -> None:
        dead = ProviderError("voice", "unavailable", retryable=False)
        call.tts.errors = {"Eight.": dead, "Sorry.": dead, "Broken.": dead}
        sent = call.bus.playout.end_ms
        await call.says("hours")
        call.pen.write("Eight.").end()
        await call.run(1500)
        assert call.bus.playout.end_ms - sent == 1000, "the caller does not hear nothing"
        assert call.talk[-1] == ("caller", "hours")
        await call.says("hours")
        call.pen.write("Eight.").end()
        await call.run(1500)
        assert call.hang_ups == ["error"]
        assert call.events == ["reply_failed", "line_unspoken"] * 2

    on_a_call(conversation)


def test_an_empty_answer_is_a_failure_not_a_silence() -> None:
    async def conversation(call: Call) -> None:
        await call.says("hours")
        call.pen.write(" ").end()
        await call.run(500)
        assert call.talk[-1] == ("agent", "Sorry.")

    on_a_call(conversation)


def test_a_model_that_never_answers_is_filled_then_apologised_for() -> None:
    async def conversation(call: Call) -> None:
        await call.says("hours")
        await call.run(10_200)
        fillers = ["One moment.", *["Just a moment longer, please."] * 3]
        assert call.tts.spoken[1:] == [*fillers, "Sorry."]
        assert call.llm.pens[0].closed
        await call.run(1000)
        assert [turn.agent_text for turn in call.turns] == ["Hello there.", "", "Sorry."]

    on_a_call(conversation)


def test_a_model_that_stalls_in_the_middle_is_given_up() -> None:
    async def conversation(call: Call) -> None:
        await call.says("hours")
        call.pen.write("We open at eight. And")
        await call.run(10_000)
        assert call.state is t.State.SPEAKING
        await call.run(1_200)
        assert call.talk[-2:] == [("agent", "We open at eight."), ("agent", "Sorry.")]
        assert call.pen.closed
        assert call.tts.spoken[-4:-1] == ["Just a moment longer, please."] * 3, "it is filled meanwhile"

    on_a_call(conversation)


def test_a_tool_that_takes_long_in_mid_answer_is_filled_and_the_answer_is_whole() -> None:
    done = asyncio.Event()

    async def conversation(call: Call) -> None:
        async def slow(tool: ToolCall, control: CallControl) -> str:
            await done.wait()
            return "42"

        call.tool = slow
        await call.says("hours")
        call.pen.write("Let me look.", ToolCall("1", "http", {})).end()
        silent = longest = 0
        for _ in range(300):  # 6 s
            before = call.far.played_ms
            await call.run(20)
            silent = 0 if call.far.played_ms > before else silent + 20
            longest = max(longest, silent)
        assert 1400 <= longest <= 1600
        assert call.tts.spoken[-1] == "Just a moment longer, please."
        done.set()
        await call.settle()
        call.pen.write("It is done.").end()
        await call.run(4000)
        assert call.talk[-3:] == [("agent", "Let me look."), ("tool", "42"), ("agent", "It is done.")]
        assert call.turns[-1].agent_text == "Let me look. It is done."

    on_a_call(conversation)


def test_between_two_fillers_the_silence_is_short() -> None:
    async def conversation(call: Call) -> None:
        await call.says("hours")
        silent = longest = 0
        for _ in range(450):  # 9 s
            before = call.far.played_ms
            await call.run(20)
            silent = 0 if call.far.played_ms > before else silent + 20
            longest = max(longest, silent)
        assert longest <= 1600

    on_a_call(conversation)


def test_work_can_be_heard_while_an_answer_is_awaited_and_holds_it_up_for_a_moment_only() -> None:
    async def conversation(call: Call) -> None:
        await call.says("hours")
        await call.run(400)
        before = call.far.played_ms
        await call.run(1000)
        assert 800 <= call.far.played_ms - before <= 1000
        assert call.turns[-1].agent_text == "Hello there.", "it is no answer"
        call.pen.write("We open at eight.").end()
        await call.settle()
        asked_at = call.clock.now()
        await call.run(2000)
        assert call.talk[-1] == ("agent", "We open at eight.")
        assert call.turns[-1].total_ms is not None
        assert call.state is t.State.LISTENING
        assert call.clock.now() - asked_at <= 2.0

    on_a_call(conversation, agent=replace(AGENT, background=True))


def test_a_tool_in_mid_answer_is_heard_working_and_filled_and_given_up_in_time() -> None:
    async def conversation(call: Call) -> None:
        async def never(tool: ToolCall, control: CallControl) -> str:
            await asyncio.Event().wait()
            return ""

        call.tool = never
        await call.says("hours")
        call.pen.write("Let me look.", ToolCall("1", "http", {})).end()
        silent = longest = 0
        for _ in range(500):  # 10 s
            before = call.far.played_ms
            await call.run(20)
            silent = 0 if call.far.played_ms > before else silent + 20
            longest = max(longest, silent)
        assert longest <= 160
        assert "One moment." in call.tts.spoken
        assert call.state is t.State.SPEAKING
        await call.run(2000)
        assert call.tts.spoken[-1] == "Sorry."
        assert [text for role, text in call.talk if role == "agent"][-2:] == ["Let me look.", "Sorry."]

    on_a_call(conversation, agent=replace(AGENT, background=True))


def test_when_nothing_works_the_caller_is_put_through_where_the_file_says_so() -> None:
    async def conversation(call: Call) -> None:
        for _ in range(2):
            await call.says("hours")
            call.pen.fail()
            await call.run(1000)
        assert call.tts.spoken[-1] == "Broken."
        assert call.transfers == ["desk"]
        assert call.hang_ups == ["transferred"]

    on_a_call(conversation, agent=replace(AGENT, failover=Failover(last_resort="transfer", target="desk")))


def test_a_last_resort_that_is_refused_ends_the_call_as_an_error() -> None:
    async def conversation(call: Call) -> None:
        call.decision = Refuse("closed", "nobody there")
        for _ in range(2):
            await call.says("hours")
            call.pen.fail()
            await call.run(1000)
        assert call.hang_ups == ["error"]

    on_a_call(conversation, agent=replace(AGENT, failover=Failover(last_resort="transfer", target="desk")))


def test_when_nothing_works_a_message_is_taken() -> None:
    async def conversation(call: Call) -> None:
        for _ in range(2):
            await call.says("hours")
            call.pen.fail()
            await call.run(1000)
        await call.run(2000)
        assert call.tts.spoken[-1].startswith("Please leave a message")
        assert call.state is t.State.LISTENING
        asked = len(call.llm.pens)
        await call.says("please call me back")
        await call.says("after five")
        assert call.events.count("message") == 2
        assert len(call.llm.pens) == asked, "nobody is asked any more"
        await call.run(9000)
        assert call.tts.spoken[-1] == "Bye."
        assert call.hang_ups == ["error"]

    on_a_call(conversation, agent=replace(AGENT, failover=Failover(last_resort="message")))


def test_a_recogniser_that_fails_is_apologised_for_and_recorded() -> None:
    async def conversation(call: Call) -> None:
        call.starts()
        await call.run(500)
        call.bus.speech_ended(call.clock.now())
        call.ears.on_event(SttFailed(RuntimeError("gone")))
        await call.run(500)
        assert call.events == ["stt_failed"]
        assert call.talk[-1] == ("agent", "Sorry.")

    on_a_call(conversation)


def test_speech_nobody_understood_is_put_to_the_model_as_such() -> None:
    async def conversation(call: Call) -> None:
        call.starts()
        await call.run(500)
        call.bus.speech_ended(call.clock.now())
        call.ears.on_event(SttFinal("flour", understood=False))
        await call.settle()
        assert (call.pen.asked[-1], call.pen.understood) == (Message("caller", "flour"), False)
        call.pen.write("Pardon?").end()
        await call.run(500)
        assert not call.turns[-1].understood

    on_a_call(conversation)


# --- fillers --------------------------------------------------------------------------------------------------------


def test_a_filler_is_no_part_of_the_answer() -> None:
    async def conversation(call: Call) -> None:
        await call.says("hours")
        await call.run(1600)
        assert call.tts.spoken[-1] == "One moment."
        assert call.state is t.State.THINKING  # its first audio is no answer's
        call.pen.write("Eight to five daily.").end()
        await call.run(2000)
        assert call.talk[-1] == ("agent", "Eight to five daily.")
        assert call.far.played_ms == 400 + 400 + 800
        assert call.turns[-1].total_ms is not None
        assert call.turns[-1].total_ms >= 1600

    on_a_call(conversation)


def test_words_after_a_filler_are_counted_from_where_they_lie() -> None:
    async def conversation(call: Call) -> None:
        await call.says("hours")
        call.pen.write("Eight to five daily.").end()
        call.tts.hold.add("Eight")
        await call.run(1600)
        call.tts.hold.clear()
        await call.run(840)
        await call.interrupts()
        assert call.attendant.conversation[-1] == Message("agent", "Eight to", cut=True)

    on_a_call(conversation)


def test_a_filler_that_comes_too_late_is_not_spoken() -> None:
    async def conversation(call: Call) -> None:
        await call.says("hours")
        call.tts.hold.add("moment.")
        await call.run(1600)
        call.pen.write("Eight.").end()
        await call.settle()
        call.tts.hold.clear()
        await call.run(1000)
        assert call.tts.cancelled == ["One moment."]
        assert call.far.played_ms == 400 + 200

    on_a_call(conversation)


def test_a_filler_is_silenced_when_the_caller_goes_on() -> None:
    async def conversation(call: Call) -> None:
        call.starts()
        await call.run(500)
        call.bus.speech_ended(call.clock.now())
        await call.run(1600)  # the recogniser thinks
        await call.interrupts()
        assert call.bus.playout.queued_ms == 0
        assert not call.bus.playout.paused
        assert call.far.queue == []

    on_a_call(conversation)


def test_a_filler_that_cannot_be_spoken_is_left_out() -> None:
    async def conversation(call: Call) -> None:
        call.tts.errors["moment."] = ProviderError("voice", "timeout", retryable=True)
        await call.says("hours")
        await call.run(1600)
        call.pen.write("Eight.").end()
        await call.run(500)
        assert call.events == ["filler_failed"]
        assert call.talk[-1] == ("agent", "Eight.")

    on_a_call(conversation)


# --- the end --------------------------------------------------------------------------------------------------------


def test_silence_ends_in_goodbye() -> None:
    async def conversation(call: Call) -> None:
        await call.run(26_000)
        assert call.hang_ups == ["no_input"]
        assert [text for _, text in call.talk[1:]] == ["Are you still there?", "I can't hear you.", "Bye."]

    on_a_call(conversation)


def test_the_gateway_can_ask_for_goodbye_at_any_moment() -> None:
    async def conversation(call: Call) -> None:
        await call.says("hours")
        call.pen.write("We open at eight in the morning. And")
        await call.run(500)
        call.attendant.say_goodbye()
        await call.run(500)
        assert call.hang_ups == ["max_duration"]
        assert call.talk[-2:] == [("agent", "We open"), ("agent", "Bye.")]

    on_a_call(conversation)


@pytest.mark.parametrize("moment_ms", [0, 20, 100, 140, 200, 400, 700, 1500, 1700, 2500, 3500])
def test_closing_at_any_moment_leaves_nothing_behind(moment_ms: int) -> None:
    async def conversation(call: Call) -> None:
        async def act() -> None:
            await call.says("hours", length_ms=100)
            call.pen.write("Let me see.", ToolCall("a", "look", {})).end()
            await call.run(40)
            call.pen.write("We open at eight. And")
            await call.run(600)
            call.starts()
            await call.run(200)
            await call.is_silent()
            await call.run(4000)

        acting = asyncio.create_task(act())
        start = call.clock.now()
        while (call.clock.now() - start) * 1000 < moment_ms - 1:
            await asyncio.sleep(0)
        acting.cancel()
        call.attendant.close()
        turns = len(call.turns)
        call.attendant.close()
        await call.settle()
        assert len(call.turns) == turns
        assert call.ears.closed
        assert call.llm.closed == 1
        call.ears.on_event(SttPartial("late"))
        call.ears.on_event(SttFinal("late"))
        call.ears.on_event(SttFailed(RuntimeError("late")))
        call.attendant.key("1")
        call.attendant.say_goodbye()
        call.bus.speech_started(call.clock.now())
        await call.run(500)
        assert (len(call.turns), call.events, call.state) == (turns, [], t.State.IDLE)

    on_a_call(conversation)


def test_a_caller_who_hangs_up_has_heard_what_was_played() -> None:
    async def conversation(call: Call) -> None:
        await call.says("hours")
        call.pen.write("We open at eight in the morning.").end()
        await call.run(700)
        call.attendant.close()
        assert call.talk[-1] == ("agent", "We open at")
        assert call.turns[-1].agent_text == "We open at"

    on_a_call(conversation)


def test_calls_of_one_agent_share_nothing() -> None:
    async def main() -> None:
        first = await Call().begun()
        second = Call(cascade=first.cascade)
        second.attendant.begin("Another hello.", [Message("caller", "before")])
        await second.run(1000)
        await first.says("hours")
        assert second.talk == [("caller", "before"), ("agent", "Another hello.")]
        assert second.state.name == "LISTENING"
        first.attendant.close()
        await second.says("more")
        assert second.state is t.State.THINKING
        assert not second.ears.closed
        second.attendant.close()
        await second.settle()

    asyncio.run(main())


def test_a_bug_in_one_call_is_reported_not_raised() -> None:
    async def main() -> None:
        call = await Call().begun()
        bug = ValueError("bug")

        async def broken(tool: ToolCall, control: CallControl) -> str:
            raise bug

        call.tool = broken
        await call.says("hours")
        call.pen.write(ToolCall("a", "look", {})).end()
        await call.settle()
        assert call.crashes == [bug]
        call.ears.finalize = broken  # type: ignore[method-assign, assignment]
        call.bus.leg = cast(Any, None)
        call.starts()
        call.attendant.close()
        await call.settle()

    asyncio.run(main())


def test_a_bug_in_an_effect_is_reported_not_raised() -> None:
    async def main() -> None:
        call = await Call().begun()

        def broken() -> None:
            raise ValueError("bug")

        call.ears.finalize = broken  # type: ignore[method-assign]
        call.starts()
        call.bus.speech_ended(call.clock.now())
        assert [str(crash) for crash in call.crashes] == ["bug"]
        call.ears.cancel = broken  # type: ignore[method-assign]
        call.attendant.close()
        assert len(call.crashes) == 2
        assert call.ears.closed

    asyncio.run(main())


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_on_a_call_nothing_crashes_and_nothing_stays(seed: int) -> None:
    async def conversation(call: Call) -> None:
        dice = random.Random(seed)

        async def tool(asked: ToolCall, control: CallControl) -> str:
            for _ in range(dice.randrange(40)):
                await asyncio.sleep(0)
            if asked.name == "transfer":
                control.transfer("desk")
            elif asked.name == "send_dtmf":
                control.send_dtmf("1")
            return "done"

        def final() -> SttEvent:
            text = dice.choice(["", "mm-hm", "stop", "hours please"])
            events: list[SttEvent] = [SttFinal(text), SttFinal(text, False), SttPartial(text), SttFailed(DOWN)]
            return dice.choice(events)

        def write() -> None:
            if call.llm.pens:
                events: list[LlmEvent | str] = ["One. ", "two three four. ", "five, "]
                events += [ToolCall("t", name, {}) for name in ("look", "transfer", "send_dtmf")]
                call.pen.write(dice.choice(events))
                if dice.random() < 0.3:
                    call.pen.end()
                elif dice.random() < 0.1:
                    call.pen.fail()

        moves: list[Callable[[], object]] = [
            lambda: call.bus.speech_started(call.clock.now()),
            lambda: call.bus.speech_sustained(),
            lambda: call.bus.speech_ended(call.clock.now()),
            lambda: call.ears.on_event(final()),
            lambda: call.attendant.key(dice.choice("019#*")),
            write,
            write,
            lambda: call.tts.hold.add("two") if dice.random() < 0.3 else call.tts.hold.clear(),
        ]
        for _ in range(60):
            dice.choice(moves)()
            if dice.random() < 0.5:
                await call.run(dice.choice([20, 60, 400, 1500]))
            if call.hang_ups:
                break
            assert (call.state is t.State.INTERRUPTED) == call.bus.playout.paused
            busy = call.attendant._task is not None or call.bus.playout.speaking
            assert busy or call.state is not t.State.SPEAKING, "speaking, and nothing is said"
        assert len(call.hang_ups) <= 1
        assert [turn.index for turn in call.turns] == list(range(len(call.turns)))
        assert all(value is None or value >= 0 for turn in call.turns for value in (turn.total_ms, turn.endpointing_ms))
        awaited = {made.id for message in call.attendant.conversation for made in message.tool_calls}
        answered = {message.tool_call_id for message in call.attendant.conversation if message.role == "tool"}
        assert awaited == answered
        call.tts.hold.clear()

    on_a_call(conversation)


def test_an_attendant_that_is_closed_is_freed_at_once() -> None:
    async def main() -> None:
        call = await Call().begun()
        call.attendant.close()
        call.bus.close()
        await call.settle()
        left = weakref.ref(call.attendant)
        del call.attendant
        call.timers.clear()
        assert left() is None, "a cycle keeps it until the next collection"

    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()


# --- who follows the call while it goes on --------------------------------------------------------------------------


def test_whoever_follows_is_told_what_is_said_how_far_it_was_heard_and_what_tools_did() -> None:
    told: list[Progress] = []

    async def conversation(call: Call) -> None:
        call.follower = told.append
        call.starts()
        call.ears.on_event(SttPartial("what are"))
        await call.run(500)
        await call.says("what are your hours")
        assert told[:2] == [TurnState("listening"), Heard("what are", final=False)]
        assert Heard("what are your hours", final=True) in told
        call.pen.write("We open at eight in the morning. ")
        await call.run(600)
        sayings = [each for each in told if isinstance(each, Saying)]
        assert sayings[-1].text == "We open at eight in the morning."
        assert 0 < sayings[-1].heard_characters < len(sayings[-1].text)
        assert sayings[-1].text[: sayings[-1].heard_characters].endswith(("We", "open", "at", "eight", "in", "the"))
        call.pen.write(ToolCall("a", "look", {})).end()
        await call.settle()
        assert ToolDone("look", "done") in told
        call.pen.end()
        await call.run(3000)
        assert told[-2] == Saying("We open at eight in the morning.", 32, over=True)
        assert told[-1] == TurnState("listening")
        states = [each.state for each in told if isinstance(each, TurnState)]
        assert states[-3:] == ["thinking", "speaking", "listening"]

    on_a_call(conversation)


def test_words_that_came_to_nothing_are_taken_back() -> None:
    told: list[Progress] = []

    async def conversation(call: Call) -> None:
        call.follower = told.append
        call.starts()
        call.ears.on_event(SttPartial("what are"))
        call.attendant.typed("what are your hours")
        call.ears.on_event(SttFinal("of before", understood=True))
        await call.settle()
        heard = [each for each in told if isinstance(each, Heard)]
        assert heard == [Heard("what are", final=False), Heard("what are your hours", final=True)]
        call.attendant.flush()
        call.starts()
        call.ears.on_event(SttPartial("hm"))
        call.attendant.key("1")
        assert [each for each in told if isinstance(each, Heard)][2:] == [
            Heard("hm", final=False),
            Heard("", final=True),
        ]

    on_a_call(conversation)


def test_who_stops_the_answer_before_it_begins_is_answered_what_they_say_next_and_has_asked_what_they_asked() -> None:
    async def conversation(call: Call) -> None:
        await call.says("what are your hours")
        call.attendant.flush()
        await call.settle()
        assert call.state is t.State.LISTENING
        await call.says("do you take walk ins")
        call.pen.write("Yes. ")
        call.pen.end()
        await call.run(2000)
        assert call.talk[-3:] == [
            ("caller", "what are your hours"),
            ("caller", "do you take walk ins"),
            ("agent", "Yes."),
        ]
        assert call.turns[-1].caller_text == "do you take walk ins"

    on_a_call(conversation)


def test_who_follows_learns_what_of_an_answer_was_cut() -> None:
    told: list[Progress] = []

    async def conversation(call: Call) -> None:
        call.follower = told.append
        await call.says("what are your hours")
        call.pen.write("We open at eight in the morning. ")
        await call.run(600)
        call.attendant.flush()
        await call.settle()
        last = [each for each in told if isinstance(each, Saying)][-1]
        assert last.over
        assert last.cut
        assert "We open at eight in the morning.".startswith(last.text)
        assert len(last.text) < 32
        assert call.state is t.State.LISTENING

    on_a_call(conversation)


def test_written_words_get_an_answer_and_stand_in_the_conversation() -> None:
    async def conversation(call: Call) -> None:
        call.attendant.typed("what are your hours")
        await call.settle()
        call.pen.write("At eight. ")
        call.pen.end()
        await call.run(2000)
        assert call.talk[-2:] == [("caller", "what are your hours"), ("agent", "At eight.")]

    on_a_call(conversation)


# --- a caller who needs help (help.py) ---


def test_a_transfer_to_an_emergency_number_is_answered_by_us_and_not_by_the_model() -> None:
    async def conversation(call: Call) -> None:
        async def transfer(tool: ToolCall, control: CallControl) -> str:
            return "yes" if isinstance(control.transfer("help"), Allow) else "no"

        call.tool, call.decision = transfer, Refuse("emergency", "never called")
        await call.says("get me some help")
        call.pen.write("One moment.", ToolCall("a", "transfer", {})).end()
        await call.run(6000)
        assert len(call.llm.pens) == 1  # the model is not asked what to say now
        assert call.talk[-1][0] == "agent"
        assert "I can't call emergency services. Hang up and dial" in call.talk[-1][1]
        assert "help_line" in call.events
        assert call.hang_ups == []

    on_a_call(conversation)


def test_who_asks_for_an_ambulance_hears_what_to_dial_and_no_model_is_asked() -> None:
    async def conversation(call: Call) -> None:
        await call.says("please call an ambulance")
        await call.run(4000)
        assert call.llm.pens == []
        assert "I can't call emergency services. Hang up and dial" in call.talk[-1][1]
        assert call.hang_ups == []
        await call.says("and when do you open")
        assert len(call.llm.pens) == 1  # the call goes on

    on_a_call(conversation)


# --- what is keyed in secret ----------------------------------------------------------------------------------------

PAYING = replace(
    AGENT,
    script={
        "tools": {
            "pay": {
                "type": "http",
                "url": "https://pay.example.com/",
                "method": "POST",
                "body": {"card": "{card_number}"},
                "secure": {"card_number": "13-19"},
                "prompt": "Key in your card.",
            }
        }
    },
)
CARD = "4111111111111111"


class Tap:
    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def write(self, channel: str, position: int, data: bytes) -> None:
        if channel == "caller":
            self.heard.append(data)

    def cut(self, channel: str, position: int) -> None: ...

    def close(self) -> None: ...


class Webhook:
    def __init__(self) -> None:
        self.got: list[dict[str, str]] = []

    async def run(self, tool: Any, values: Mapping[str, str]) -> dict[str, str] | str:
        self.got.append(dict(values))
        return f'{{"paid_with": "{values["card_number"]}"}}'


def paying(call: Call) -> Webhook:
    webhook = Webhook()

    async def tool(tool: ToolCall, control: CallControl) -> str:
        return await perform(tool, PAYING, control, webhook)

    call.tool = tool
    return webhook


def test_a_card_is_keyed_past_model_record_and_taps_to_its_tool() -> None:
    async def conversation(call: Call) -> None:
        webhook, tap = paying(call), Tap()
        call.bus.taps.append(tap)
        await call.says("pay")
        call.pen.write(ToolCall("a", "pay", {})).end()
        await call.run(200)
        tap.heard.clear()
        fed = call.ears.fed_bytes
        for key in f"{CARD}#":
            call.attendant.key(key)
            tone_at = call.bus.carrier_ms + FRAME_MS
            call.bus.receive(tone(key, MULAW_8K)[:160], tone_at)
            assert set(tap.heard[-1]) == {0xFF}
            await call.run(2000)  # far slower than a reply may be silent
        assert set(b"".join(tap.heard)) == {0xFF}
        assert call.ears.fed_bytes == fed
        assert call.state is t.State.SPEAKING
        assert [got["card_number"] for got in webhook.got] == [CARD]
        call.pen.write("Paid.").end()
        await call.run(2000)
        assert CARD not in repr((call.turns, call.attendant.conversation, [pen.asked for pen in call.llm.pens]))
        assert call.talk[-1] == ("agent", "Paid.")
        assert "[card_number]" in call.attendant.conversation[-2].text
        assert call.events.count("secure_entry") == 2
        tap.heard.clear()
        call.bus.receive(tone("1", MULAW_8K)[:160], call.bus.carrier_ms + FRAME_MS)
        assert set(tap.heard[-1]) != {0xFF}  # the ears are open again

    on_a_call(conversation, agent=PAYING)


def test_what_is_not_keyed_in_time_is_an_answer_too() -> None:
    async def conversation(call: Call) -> None:
        webhook = paying(call)
        await call.says("pay")
        call.pen.write(ToolCall("a", "pay", {})).end()
        await call.run(200)
        for key in "41*5#":
            call.attendant.key(key)
        await call.run(200)
        assert webhook.got == []
        assert "not_keyed" in call.pen.asked[-1].text
        call.pen.write("Later, then.").end()
        await call.run(2000)

    on_a_call(conversation, agent=PAYING)


def test_what_is_keyed_beyond_the_entry_is_no_answer_to_anything() -> None:
    async def conversation(call: Call) -> None:
        webhook = paying(call)
        await call.says("pay")
        call.pen.write(ToolCall("a", "pay", {})).end()
        await call.run(200)
        assert call.attendant.keyed_in_secret
        for key in f"{CARD}123999#":  # 19 digits are taken
            call.attendant.key(key)
        await call.run(200)
        call.pen.write("Paid. Press one for a receipt.").end()
        await call.run(1000)
        call.attendant.key("9")
        await call.run(2100)
        assert [got["card_number"] for got in webhook.got] == [f"{CARD}123"]
        assert not any(message.keyed for message in call.attendant.conversation)
        assert not call.attendant.keyed_in_secret
        call.attendant.key("1")
        await call.run(2500)
        assert [message.text for message in call.attendant.conversation if message.keyed] == ["1"]

    on_a_call(conversation, agent=PAYING)


def test_the_rest_of_a_number_that_was_keyed_too_slowly_is_no_answer_either() -> None:
    async def conversation(call: Call) -> None:
        webhook = paying(call)
        await call.says("pay")
        call.pen.write(ToolCall("a", "pay", {})).end()
        await call.run(200)
        for key in CARD[:8]:
            call.attendant.key(key)
        await call.run(8100)
        for key in f"{CARD[8:]}#":
            call.attendant.key(key)
            await call.run(1500)
        assert webhook.got == []
        assert not any(message.keyed for message in call.attendant.conversation)
        call.pen.write("Later, then.").end()
        await call.run(2000)

    on_a_call(conversation, agent=PAYING)


def test_a_call_that_ends_in_the_middle_of_an_entry_leaves_nothing_of_it() -> None:
    async def conversation(call: Call) -> None:
        webhook = paying(call)
        await call.says("pay")
        call.pen.write(ToolCall("a", "pay", {})).end()
        await call.run(200)
        for key in CARD[:12]:
            call.attendant.key(key)
        call.attendant.close()
        await call.settle()
        assert webhook.got == []
        assert CARD[:12] not in repr((call.turns, call.attendant.conversation))

    on_a_call(conversation, agent=PAYING)


def test_who_takes_over_without_a_word_leaves_no_turn_in_the_record() -> None:
    async def main() -> None:
        call = Call()
        call.attendant.begin("", [Message("caller", "are you open"), Message("agent", "Yes.")])
        await call.run(500)
        assert call.state is t.State.LISTENING
        assert call.turns == []
        await call.says("thank you")
        call.llm.pens[-1].write("You are welcome.").end()
        await call.run(2000)
        assert [(turn.caller_text, turn.agent_text) for turn in call.turns] == [("thank you", "You are welcome.")]
        call.attendant.close()
        call.bus.close()
        await call.settle()

    asyncio.run(main())


def test_a_voice_that_is_billed_for_its_audio_is_metered_in_seconds_of_what_came() -> None:
    tts = Tts()
    tts.billed_in, tts.product, tts.third_party = "seconds", "gpt-4o-mini-tts", True  # type: ignore[attr-defined]

    async def conversation(call: Call) -> None:
        call.metered.clear()
        await call.says("when")
        call.pen.write("We open at eight. ")
        await call.run(300)
        tts.hold.add("late.")
        call.pen.write("You may come late.").end()
        await call.run(400)
        await call.interrupts()
        voiced = [(used.unit, used.quantity, used.product) for used in call.metered if used.kind == "tts"]
        assert voiced == [("seconds", 0.8, "gpt-4o-mini-tts"), ("seconds", 0.6, "gpt-4o-mini-tts")]

    on_a_call(conversation, tts=tts)
