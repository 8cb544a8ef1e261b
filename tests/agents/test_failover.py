"""Providers that fail within a turn, on the bus of test_cascade: what the far end has played is what counts."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.agents.test_cascade import AGENT, Call, Stt
from trunkline.agents import fixedlines
from trunkline.agents import turns as t
from trunkline.agents.cascade import Cascade
from trunkline.agents.choice import Choice, timely
from trunkline.agents.definition import Failover
from trunkline.agents.fixedlines import FixedLines
from trunkline.agents.health import BreakerTerms, Health
from trunkline.agents.providers import Minds
from trunkline.agents.seam import GO_ON
from trunkline.agents.speaking import Speaking
from trunkline.errors import ProviderError
from trunkline.ports import (
    CallFacts,
    Expectation,
    LlmEvent,
    Message,
    SttEvent,
    SttFailed,
    SttFinal,
    TextDelta,
    ToolCall,
    TtsAudio,
    Word,
)
from trunkline.types import Format

WORD_MS = 200
Fault = Literal["fail", "stall"]


def down(name: str) -> ProviderError:
    return ProviderError(name, "unavailable", retryable=True)


# --- providers that know the answer ---------------------------------------------------------------------------------


class Model:
    """Writes `answer` word by word; asked to go on, what follows what was said. It fails after `after` words."""

    third_party = False

    def __init__(self, name: str, answer: str, after: int | None = None, fault: Fault = "fail") -> None:
        self.name, self.words, self.after, self.fault = name, answer.split(), after, fault
        self.asked: list[list[Message]] = []
        self.closed = 0
        self.again = False
        """Asked to go on, it begins from the start."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def open(self, call: CallFacts) -> "_Session":
        return _Session(self)


class _Session:
    def __init__(self, model: Model) -> None:
        self.model = model

    async def reply(
        self, conversation: Sequence[Message], *, understood: bool = True
    ) -> AsyncGenerator[LlmEvent, None]:
        model = self.model
        model.asked.append(list(conversation))
        begun = 0
        if conversation[-1].text == GO_ON and not model.again:
            begun = len(conversation[-2].text.split())
        try:
            for at, word in enumerate(model.words[begun:]):
                if at == model.after:
                    if model.fault == "fail":
                        raise down(model.name)
                    await asyncio.Event().wait()
                yield TextDelta(word + " ")
            if model.after is not None and model.after >= len(model.words) - begun:
                raise down(model.name)
        finally:
            model.closed += 1

    def close(self) -> None: ...


@dataclass
class Voice:
    """Each word is WORD_MS of its number, in chunks of `chunk_ms`; it breaks once so many chunks were given in all."""

    name: str
    after: int | None = None
    fault: Fault = "fail"
    chunk_ms: int = 300
    word_times: bool = True
    third_party: bool = False
    spoken: list[str] = field(default_factory=list)
    given: int = 0
    closed: int = 0

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def speak(self, text: str, format: Format) -> AsyncGenerator[TtsAudio, None]:
        self.spoken.append(text)
        words = text.split()
        audio = b"".join(bytes([number(word)]) * (WORD_MS * format.bytes_per_ms) for word in words)
        try:
            for start in range(0, len(audio), self.chunk_ms * format.bytes_per_ms):
                if self.given == self.after:
                    if self.fault == "fail":
                        raise down(self.name)
                    await asyncio.Event().wait()
                self.given += 1
                data = audio[start : start + self.chunk_ms * format.bytes_per_ms]
                begin, end = start // format.bytes_per_ms, (start + len(data)) // format.bytes_per_ms
                ended = [i for i in range(len(words)) if begin < (i + 1) * WORD_MS <= end]
                times = tuple(Word(words[i], i * WORD_MS, (i + 1) * WORD_MS) for i in ended)
                yield TtsAudio(data, times if self.word_times else ())
        finally:
            self.closed += 1


def number(word: str) -> int:
    digits = "".join(c for c in word if c.isdigit())
    return int(digits) if digits else 254  # words of fixed lines are all the same


def numbered(count: int, sentence: int = 5) -> str:
    return " ".join(f"w{i}" + ("." if i % sentence == sentence - 1 else "") for i in range(count))


class Line(Call):
    """Keeps what the far end has played."""

    def __init__(self, models: Sequence[Any], voices: Sequence[Any], ears: Sequence[Any] = (), **terms: Any) -> None:
        ears = ears or (Stt(),)
        minds = Minds(
            cast(Any, ears[0]),
            models[0],
            voices[0],
            {"stt": tuple(ears[1:]), "llm": tuple(models[1:]), "tts": tuple(voices[1:])},
            Health(BreakerTerms(failures=100)),
        )
        self.switches: list[tuple[str, str, str]] = []
        agent = replace(AGENT, failover=Failover(), **terms)
        super().__init__(cascade=Cascade(agent, minds, self._tool))
        self.heard: list[int] = []
        self.audible: list[bool] = []
        """By frame: whether there was any sound."""
        play = self.far.tick

        def tick() -> None:
            frame = self.far.queue[0] if self.far.queue and isinstance(self.far.queue[0], bytes) else b"\xff"
            self.heard.append(frame[0])
            self.audible.append(frame.strip(b"\xff") != b"")
            play()

        self.far.tick = tick  # type: ignore[method-assign]

    def event(self, kind: str, **data: Any) -> None:
        super().event(kind, **data)
        if kind == "provider_switched":
            self.switches.append((data["provider"], data["following"], data["code"]))

    @property
    def words(self) -> list[int]:
        """Heard whole, in their order; -1 for a piece of one."""
        found: list[int] = []
        at = 0
        frames = [value for value in self.heard if value < 254]
        while at < len(frames):
            run = next((i for i in range(at, len(frames)) if frames[i] != frames[at]), len(frames)) - at
            whole, rest = divmod(run, WORD_MS // 20)
            found += [frames[at]] * whole + [-1] * bool(rest)
            at += run
        return found

    @property
    def silence_ms(self) -> int:
        """The longest between two words of the answer."""
        first = next(i for i, value in enumerate(self.heard) if value < 254)
        last = max(i for i, value in enumerate(self.heard) if value < 254)
        longest = run = 0
        for value in self.heard[first:last]:
            run = run + 1 if value == 255 else 0
            longest = max(longest, run)
        return longest * 20


def on_a_line(test: Callable[[Line], Any], make: Callable[[], Line]) -> None:
    async def main() -> None:
        line = make()
        line.attendant.begin()
        while line.state is not t.State.LISTENING:
            await line.run(500)
        await test(line)
        line.attendant.close()
        line.bus.close()
        await line.settle()
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a task outlives its call"
        assert not line.crashes
        assert all(timer.cancelled for timer in line.timers), "a timer outlives its call"

    asyncio.run(main())


async def answered(line: Line, at_most_ms: int) -> None:
    await line.says("what are your hours")
    await answered_on(line, at_most_ms)


async def answered_on(line: Line, at_most_ms: int) -> None:
    while line.state is not t.State.LISTENING and at_most_ms > 0:
        await line.run(500)
        at_most_ms -= 500


# --- the model ------------------------------------------------------------------------------------------------------

ANSWER = numbered(20)


def test_a_model_that_refuses_is_followed_before_a_word_is_missed() -> None:
    models = Model("a", ANSWER, 0), Model("b", ANSWER)

    async def turn(line: Line) -> None:
        await answered(line, 6000)
        assert line.words == list(range(20))
        assert line.switches == [("llm.a", "llm.b", "unavailable")]
        assert models[1].asked[0][-1].text == "what are your hours", "nothing was said: it is simply asked"
        assert line.talk[-1] == ("agent", ANSWER)

    on_a_line(turn, lambda: Line(models, [Voice("v")]))


def test_a_model_that_breaks_off_is_followed_from_the_last_whole_phrase() -> None:
    models = Model("a", ANSWER, 8), Model("b", ANSWER)

    async def turn(line: Line) -> None:
        await answered(line, 8000)
        assert line.words == list(range(20))
        assert [message.text for message in models[1].asked[0][-2:]] == [numbered(5), GO_ON]
        assert line.talk[-1] == ("agent", ANSWER)
        assert models[0].closed == 1

    on_a_line(turn, lambda: Line(models, [Voice("v")]))


def test_a_model_that_begins_again_is_not_heard_twice() -> None:
    models = Model("a", ANSWER, 12), Model("b", ANSWER)
    models[1].again = True

    async def turn(line: Line) -> None:
        await answered(line, 8000)
        assert line.words == list(range(20))
        assert line.talk[-1] == ("agent", ANSWER)

    on_a_line(turn, lambda: Line(models, [Voice("v")]))


def test_a_model_that_stalls_is_closed_and_followed_in_time() -> None:
    models = Model("a", ANSWER, 6, "stall"), Model("b", ANSWER)

    async def turn(line: Line) -> None:
        await answered(line, 8000)
        assert line.words == list(range(20))
        assert line.switches == [("llm.a", "llm.b", "timeout")]
        assert models[0].closed == 1
        assert line.silence_ms < 500

    on_a_line(turn, lambda: Line(models, [Voice("v")]))


def test_a_model_alone_has_its_own_deadlines() -> None:
    model = Model("a", ANSWER, 6, "stall")

    async def turn(line: Line) -> None:
        await answered(line, 5000)
        assert not line.switches
        assert model.closed == 0

    on_a_line(turn, lambda: Line([model], [Voice("v")]))


def test_the_last_models_failure_is_apologised_for() -> None:
    models = Model("a", ANSWER, 0), Model("b", ANSWER, 0)

    async def turn(line: Line) -> None:
        await answered(line, 3000)
        assert line.talk[-1] == ("agent", "Sorry.")
        assert "reply_failed" in line.events

    on_a_line(turn, lambda: Line(models, [Voice("v")]))


def test_an_empty_answer_is_a_failure_too() -> None:
    models = Model("a", ""), Model("b", ANSWER)

    async def turn(line: Line) -> None:
        await answered(line, 6000)
        assert line.words == list(range(20))

    on_a_line(turn, lambda: Line(models, [Voice("v")]))


def test_one_that_cannot_go_on_answers_the_caller_itself() -> None:
    models = Model("a", ANSWER, 8), Model("b", numbered(3))
    models[1].continues = False  # type: ignore[attr-defined]

    async def turn(line: Line) -> None:
        await answered(line, 6000)
        assert line.words == [0, 1, 2, 3, 4, 0, 1, 2]
        assert models[1].asked[0][-1].text == "what are your hours"

    on_a_line(turn, lambda: Line(models, [Voice("v")]))


class Booking(Model):
    """Books once it is asked, and says so when it has the result. `breaks`: on the result."""

    def __init__(self, name: str, *, continues: bool = True, breaks: bool = False) -> None:
        super().__init__(name, "")
        self.continues, self.breaks = continues, breaks

    def open(self, call: CallFacts) -> "_Session":
        return _BookingSession(self)


class _BookingSession(_Session):
    async def reply(
        self, conversation: Sequence[Message], *, understood: bool = True
    ) -> AsyncGenerator[LlmEvent, None]:
        self.model.asked.append(list(conversation))
        if conversation[-1].role != "tool":
            yield TextDelta("w0 w1 w2 w3. ")
            yield ToolCall(f"{self.model.name}{len(self.model.asked)}", "book", {})
        elif cast(Booking, self.model).breaks:
            raise down(self.model.name)
        else:
            yield TextDelta("w4 w5 w6 w7. ")


@pytest.mark.parametrize("open_breaker", [False, True])
def test_one_that_cannot_go_on_uses_its_own_tool_once_and_learns_the_result(open_breaker: bool) -> None:
    a, b = Model("a", "x", after=0), Booking("b", continues=False)
    used: list[str] = []

    async def turn(line: Line) -> None:
        async def tool(call: ToolCall, control: Any) -> str:
            used.append(call.id)
            return "{}"

        line.tool = tool
        if open_breaker:
            line.cascade.minds.health.failed("llm.a", ProviderError("a", "auth", retryable=False), line.clock.now())
            await answered(line, 3000)
            assert a.asked == []
        else:
            await answered(line, 3000)
        assert used == ["b1"]
        assert [each[-1].role for each in b.asked] == ["caller", "tool"]
        assert line.words == [*range(8)]
        assert "reply_failed" not in line.events

    on_a_line(turn, lambda: Line([a, b], [Voice("v")]))


def test_a_tool_that_the_lost_model_has_used_is_not_used_again_by_one_that_answers_anew() -> None:
    a, b = Booking("a", breaks=True), Booking("b", continues=False)
    used: list[str] = []

    async def turn(line: Line) -> None:
        async def tool(call: ToolCall, control: Any) -> str:
            used.append(call.id)
            return '{"number": 7}'

        line.tool = tool
        await answered(line, 4000)
        assert used == ["a1"]
        assert [each[-1].role for each in b.asked] == ["caller", "tool"]
        assert b.asked[1][-1] == Message("tool", '{"number": 7}', tool_call_id="b1")
        assert line.words == [*range(4), *range(8)]
        assert "reply_failed" not in line.events

    on_a_line(turn, lambda: Line([a, b], [Voice("v")]))


def test_a_tool_that_was_asked_for_before_the_break_is_not_used() -> None:
    class Asks(Model):
        def open(self, call: CallFacts) -> Any:
            return AskingSession(self)

    class AskingSession(_Session):
        async def reply(self, asked: Sequence[Message], *, understood: bool = True) -> AsyncGenerator[LlmEvent, None]:
            yield ToolCall("1", "hang_up", {})
            raise down("a")

    async def turn(line: Line) -> None:
        await answered(line, 6000)
        assert line.words == list(range(20))
        assert not line.turns[-1].tools

    on_a_line(turn, lambda: Line([Asks("a", ""), Model("b", ANSWER)], [Voice("v")]))


# --- the voice ------------------------------------------------------------------------------------------------------


def test_a_voice_that_cannot_speak_is_followed_and_the_next_one_stays() -> None:
    voices = Voice("v", after=0), Voice("w")

    async def turn(line: Line) -> None:
        await answered(line, 6000)
        assert line.words == list(range(20))
        assert line.switches == [("tts.v", "tts.w", "unavailable")]
        await answered(line, 6000)
        assert len(voices[0].spoken) == 1, "a voice never comes back in a call"

    on_a_line(turn, lambda: Line([Model("a", ANSWER)], voices))


def test_a_voice_that_breaks_in_mid_word_is_followed_from_that_word_on() -> None:
    voices = Voice("v", after=7), Voice("w")  # the greeting takes 2 of them, the first sentence 4

    async def turn(line: Line) -> None:
        await answered(line, 7000)
        assert line.words == list(range(20))
        assert voices[1].spoken[0] == "w6 w7 w8 w9."
        assert line.talk[-1] == ("agent", ANSWER)
        assert line.turns[-1].heard_exact

    on_a_line(turn, lambda: Line([Model("a", ANSWER)], voices))


def test_a_voice_that_stalls_when_its_audio_has_run_out_is_followed() -> None:
    voices = Voice("v", after=5, fault="stall"), Voice("w")

    async def turn(line: Line) -> None:
        await answered(line, 8000)
        pieces = line.words.count(-1)
        assert [word for word in line.words if word >= 0] == list(range(20))
        assert pieces <= 1, "of the word in which it fell silent, the beginning had been heard"
        assert line.silence_ms <= 1100

    on_a_line(turn, lambda: Line([Model("a", ANSWER)], voices))


def test_a_voice_without_word_times_is_followed_near_the_cut() -> None:
    voices = Voice("v", after=12, word_times=False), Voice("w", word_times=False)

    async def turn(line: Line) -> None:
        await answered(line, 8000)
        whole = [word for word in line.words if word >= 0]
        assert set(range(20)) - set(whole) <= {whole[-1]} | {10, 11, 12, 13}
        assert not line.turns[-1].heard_exact
        assert line.talk[-1] == ("agent", ANSWER)

    on_a_line(turn, lambda: Line([Model("a", ANSWER)], voices))


def test_a_voice_with_word_times_that_owes_those_of_a_phrase_is_estimated_and_marked() -> None:
    """A service may leave them out: the end of the phrase is no time of its words."""

    class Owing(Voice):
        async def speak(self, text: str, format: Format) -> AsyncGenerator[TtsAudio, None]:
            async for chunk in super().speak(text, format):
                yield TtsAudio(chunk.data, chunk.words if "w5" not in text else ())

    async def turn(line: Line) -> None:
        await answered(line, 6000)
        assert line.talk[-1] == ("agent", ANSWER)
        assert not line.turns[-1].heard_exact
        await line.says("what are your hours")
        await line.run(2200)  # into the second phrase, whose words have no times
        await line.interrupts()
        assert line.turns[-1].interrupted
        played, believed = [word for word in line.words[20:] if word >= 0], line.turns[-1].agent_text.split()
        assert 5 < len(believed) <= len(played)

    on_a_line(turn, lambda: Line([Model("a", ANSWER)], [Owing("v")]))


def test_of_a_phrase_without_times_that_is_cut_while_it_comes_the_words_so_far_count() -> None:
    """A voice may take as long to send a phrase as to speak it."""

    class Live(Voice):
        async def speak(self, text: str, format: Format) -> AsyncGenerator[TtsAudio, None]:
            async for chunk in super().speak(text, format):
                yield chunk
                if self.given > 24:
                    await asyncio.Event().wait()  # in the first phrase of the second answer

    async def turn(line: Line) -> None:
        await answered(line, 8000)
        before = len(line.words)
        await line.says("what are your hours")
        await line.run(3000)
        await line.interrupts()
        played = [word for word in line.words[before:] if word >= 0]
        believed = line.turns[-1].agent_text.split()
        assert line.turns[-1].interrupted
        assert not line.turns[-1].heard_exact
        assert 0 < len(believed) <= len(played), (believed, played)

    long = numbered(20, sentence=20)
    on_a_line(turn, lambda: Line([Model("a", long)], [Live("v", word_times=False)]))


def test_a_voice_that_gives_all_but_the_last_times_is_exact_up_to_there() -> None:
    class Short(Voice):
        async def speak(self, text: str, format: Format) -> AsyncGenerator[TtsAudio, None]:
            async for chunk in super().speak(text, format):
                yield TtsAudio(chunk.data, tuple(word for word in chunk.words if word.text not in ("w3", "w4.")))

    async def turn(line: Line) -> None:
        await answered(line, 6000)
        assert line.talk[-1] == ("agent", ANSWER), "no word is lost, none is there twice"
        assert not line.turns[-1].heard_exact

    on_a_line(turn, lambda: Line([Model("a", ANSWER)], [Short("v")]))


def test_a_filler_and_an_answer_that_fail_with_one_voice_change_it_once() -> None:
    voices = Voice("v", after=2, fault="stall"), Voice("w"), Voice("x")  # the greeting takes 2

    async def turn(line: Line) -> None:
        model = line.cascade.minds.llm
        assert isinstance(model, Slow)
        await line.says("hours")
        await line.run(1600)  # a filler is being spoken, and stalls
        model.go.set()
        await answered_on(line, 8000)
        assert line.words == list(range(20))
        assert line.switches == [("tts.v", "tts.w", "timeout")]

    class Slow(Model):
        def open(self, call: CallFacts) -> Any:
            return SlowSession(self)

        go = asyncio.Event()

    class SlowSession(_Session):
        async def reply(self, asked: Sequence[Message], *, understood: bool = True) -> AsyncGenerator[LlmEvent, None]:
            await Slow.go.wait()
            async for event in super().reply(asked, understood=understood):
                yield event

    on_a_line(turn, lambda: Line([Slow("a", ANSWER)], voices))


def test_with_every_voice_lost_all_are_tried_again_for_the_apology() -> None:
    voices = Voice("v", after=3), Voice("w", after=0)

    async def turn(line: Line) -> None:
        await answered(line, 4000)
        assert "reply_failed" in line.events
        assert voices[1].spoken.count("Sorry.") + voices[0].spoken.count("Sorry.") >= 2

    on_a_line(turn, lambda: Line([Model("a", ANSWER)], voices))


# --- the only voice ---


def longest_silence_ms(line: Line, since: int) -> int:
    longest = run = 0
    for sounds in line.audible[since:]:
        run = 0 if sounds else run + 1
        longest = max(longest, run)
    return longest * 20


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("after", [2, 4])  # the greeting takes 2: before the first sound of the answer, in its middle
def test_the_only_voice_stalls_and_there_is_no_dead_air(recorded: bool, after: int) -> None:
    """What it said at start is there; where it never spoke, a soft sound is, and a tone for the apology."""

    class Impatient(Voice):
        async def speak(self, text: str, format: Format) -> AsyncGenerator[TtsAudio, None]:
            """As the cloud's are: it gives itself up after three seconds."""
            speech = super().speak(text, format)
            async with aclosing(timely(speech, line_of["line"].after, self.name, 3.0, 3.0)) as chunks:
                async for chunk in chunks:
                    yield chunk

    voice = Impatient("v", after=after, fault="stall")
    line_of: dict[str, Line] = {}

    async def turn(line: Line) -> None:
        await line.says("what are your hours")
        since = len(line.audible)
        await line.run(12_000)
        assert "reply_failed" in line.events
        assert ("line_unspoken" in line.events) is not recorded
        while not line.audible[-1]:  # it is the caller's turn
            line.audible.pop()
        assert longest_silence_ms(line, since) <= 2000

    def make() -> Line:
        line = line_of["line"] = Line([Model("a", ANSWER)], [voice])
        if recorded:
            lines = line.cascade.minds.lines
            for text in (AGENT.apology, AGENT.failure, *AGENT.filler):
                data = bytes([254]) * (len(text.split()) * WORD_MS * 8)
                lines["tts.v", text, line.bus.playout.format] = (TtsAudio(data),)
        return line

    on_a_line(turn, make)


# --- fixed lines, as they were recorded ---


async def recorded(line: Line) -> None:
    await FixedLines(line.cascade.definition, line.cascade.minds).record(line.clock)


def spoke(line: Line, voice: str) -> set[str]:
    return {text for key, text, _ in line.cascade.minds.lines if key == f"tts.{voice}"}


LINES = {AGENT.apology, AGENT.failure, AGENT.goodbye, *AGENT.filler}


def test_lines_are_recorded_again_once_the_preferred_voice_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixedlines, "RETRY_S", (0.0,))
    voices = Voice("v", after=0), Voice("w")

    async def main() -> None:
        line = Line([Model("a", ANSWER)], voices)
        task = asyncio.create_task(recorded(line))
        for _ in range(50):
            await asyncio.sleep(0)
        assert (spoke(line, "v"), spoke(line, "w")) == (set(), LINES)
        assert sorted(voices[1].spoken) == sorted(LINES), "once, and not at every try"
        assert not task.done()
        voices[0].after = None
        await asyncio.wait_for(task, 5)
        assert spoke(line, "v") == LINES
        line.attendant.close()
        line.bus.close()

    asyncio.run(main())


def test_a_preferred_voice_whose_breaker_is_open_is_not_asked_before_it_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixedlines, "RETRY_S", (0.0,))
    voices = Voice("v"), Voice("w")

    async def main() -> None:
        line = Line([Model("a", ANSWER)], voices)
        line.cascade.minds.did_not_start("tts.v", down("v"), line.clock.now())
        task = asyncio.create_task(recorded(line))
        for _ in range(50):
            await asyncio.sleep(0)
        assert (spoke(line, "v"), spoke(line, "w")) == (set(), LINES)
        assert voices[0].spoken == []
        line.clock.advance(10)
        await asyncio.wait_for(task, 5)
        assert spoke(line, "v") == LINES
        line.attendant.close()
        line.bus.close()

    asyncio.run(main())


def speaking(line: Line) -> Speaking:
    minds, definition = line.cascade.minds, line.cascade.definition
    choice = Choice(minds, "tts", line.clock, line.event)
    lines = FixedLines(definition, minds)
    return Speaking(choice, line.bus, line.after, definition.failover, lambda voice, characters: None, lines)


def test_a_filler_is_in_the_calls_voice_not_in_that_of_the_lifeboat_that_once_recorded_it() -> None:
    voices = Voice("v"), Voice("w")

    async def turn(line: Line) -> None:
        filler = AGENT.filler[0]
        line.cascade.minds.lines["tts.w", filler, line.bus.playout.format] = (TtsAudio(b"w"),)
        spoken = speaking(line)
        asked = len(voices[0].spoken)
        assert await spoken.record(filler) != b"w"
        assert voices[0].spoken[asked:] == [filler]
        line.cascade.minds.lines["tts.v", filler, line.bus.playout.format] = (TtsAudio(b"v"),)
        assert await spoken.record(filler) == b"v"
        assert voices[0].spoken[asked:] == [filler], "it is recorded now"

    on_a_line(turn, lambda: Line([Model("a", ANSWER)], voices))


def test_a_filler_of_another_voice_is_used_where_the_calls_own_fails() -> None:
    voices = Voice("v"), Voice("w")

    async def turn(line: Line) -> None:
        filler = AGENT.filler[0]
        for voice in voices:
            voice.after = voice.given
        spoken = speaking(line)
        with pytest.raises(ProviderError):
            await spoken.record(filler)
        line.cascade.minds.lines["tts.w", filler, line.bus.playout.format] = (TtsAudio(b"w"),)
        assert await spoken.record(filler) == b"w"
        voices[1].after = None
        assert voices[1].spoken == [filler], "what is there is not asked for again"

    on_a_line(turn, lambda: Line([Model("a", ANSWER)], voices))


# --- the ears -------------------------------------------------------------------------------------------------------


class Ear(Stt):
    def __init__(self, name: str, feed_mode: Literal["all", "gated"] = "gated") -> None:
        super().__init__(feed_mode)
        self.name = name


def test_a_recogniser_that_fails_is_followed_by_one_that_hears_the_utterance_so_far() -> None:
    ears = Ear("e"), Ear("f")

    async def turn(line: Line) -> None:
        line.starts()
        await line.run(600)
        fed = ears[0].streams[0].fed_bytes
        assert fed > 0
        ears[0].streams[0].on_event(SttFailed(down("e")))
        assert ears[0].streams[0].closed
        assert ears[1].streams[0].fed_bytes == fed
        line.bus.speech_ended(line.clock.now() - 0.2)
        assert ears[1].streams[0].finalized == 1
        ears[1].streams[0].on_event(SttFinal("hours"))
        await line.run(6000)
        assert line.words == list(range(20))
        assert line.switches == [("stt.e", "stt.f", "unavailable")]

    on_a_line(turn, lambda: Line([Model("a", ANSWER)], [Voice("v")], ears))


def test_a_final_that_does_not_come_is_asked_of_the_next() -> None:
    ears = Ear("e"), Ear("f")

    async def turn(line: Line) -> None:
        line.starts()
        await line.run(600)
        line.bus.speech_ended(line.clock.now() - 0.2)
        await line.run(1520)
        following = ears[1].streams[0]
        assert (following.finalized, following.fed_bytes) == (1, ears[0].streams[0].fed_bytes)
        ears[0].streams[0].on_event(SttFinal("late"))
        following.on_event(SttFinal("hours"))
        await line.run(6000)
        assert ("caller", "hours") in line.talk
        assert ("caller", "late") not in line.talk
        assert line.words == list(range(20))

    on_a_line(turn, lambda: Line([Model("a", ANSWER)], [Voice("v")], ears))


def test_ears_that_want_only_speech_may_follow_ears_that_want_all() -> None:
    ears = Ear("e", "all"), Ear("f", "gated")

    async def turn(line: Line) -> None:
        ears[0].streams[0].on_event(SttFailed(down("e")))
        before = ears[1].streams[0].fed_bytes
        await line.run(1000)
        assert ears[1].streams[0].fed_bytes == before, "silence is not fed to it"

    on_a_line(turn, lambda: Line([Model("a", ANSWER)], [Voice("v")], ears))


def test_the_last_ears_failure_is_apologised_for() -> None:
    ears = Ear("e"), Ear("f")

    async def turn(line: Line) -> None:
        line.starts()
        await line.run(600)
        line.bus.speech_ended(line.clock.now() - 0.2)
        ears[0].streams[0].on_event(SttFailed(down("e")))
        ears[1].streams[0].on_event(SttFailed(down("f")))
        await line.run(2000)
        assert ("agent", "Sorry.") in line.talk
        assert line.state is t.State.LISTENING

    on_a_line(turn, lambda: Line([Model("a", ANSWER)], [Voice("v")], ears))


def test_ears_that_all_fail_are_left_alone_until_the_utterance_is_over() -> None:
    class Broken(Ear):
        def open(self, call: CallFacts, format: Format, on_event: Callable[[SttEvent], None]) -> Any:
            stream = super().open(call, format, on_event)
            stream.feed = lambda audio: on_event(SttFailed(down(self.name)))  # type: ignore[method-assign]
            return stream

    ears = Broken("e"), Broken("f")

    async def turn(line: Line) -> None:
        line.starts()
        await line.run(1000)
        assert len(line.switches) == 1
        line.bus.speech_ended(line.clock.now() - 0.2)
        await line.run(2000)
        assert ("agent", "Sorry.") in line.talk
        assert line.state is t.State.LISTENING

    on_a_line(turn, lambda: Line([Model("a", ANSWER)], [Voice("v")], ears))


def test_expectations_and_audio_of_ears_in_use_are_the_owners() -> None:
    ears = Ear("e"), Ear("f")

    async def turn(line: Line) -> None:
        line.attendant._stt.expect(Expectation("digits", 4, 4))
        ears[0].streams[0].on_event(SttFailed(down("e")))
        assert ears[1].streams[0].expected == [Expectation("digits", 4, 4)]

    on_a_line(turn, lambda: Line([Model("a", ANSWER)], [Voice("v")], ears))


# --- wherever it breaks ---------------------------------------------------------------------------------------------

FAULTS = st.sampled_from(["fail", "stall"])


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 30),
    sentence=st.integers(1, 9),
    model_breaks=st.lists(st.tuples(st.integers(0, 30), FAULTS), max_size=2),
    voice_breaks=st.lists(st.tuples(st.integers(0, 30), FAULTS), max_size=2),
    chunk_ms=st.sampled_from([60, 100, 200, 260, 400, 700]),
    again=st.booleans(),
)
def test_wherever_models_and_voices_break_each_word_is_heard_once(
    count: int,
    sentence: int,
    model_breaks: list[tuple[int, Fault]],
    voice_breaks: list[tuple[int, Fault]],
    chunk_ms: int,
    again: bool,
) -> None:
    """A piece of a word may be heard where a voice falls silent in it: then the word is begun anew."""
    answer = numbered(count, sentence)
    models = [Model(f"m{i}", answer, after, fault) for i, (after, fault) in enumerate(model_breaks)]
    models.append(Model("good", answer))
    models[-1].again = again and sentence >= 3
    voices = [Voice(f"v{i}", after, fault, chunk_ms) for i, (after, fault) in enumerate(voice_breaks)]
    voices.append(Voice("good", chunk_ms=chunk_ms))

    async def turn(line: Line) -> None:
        await answered(line, count * WORD_MS + 16_000)
        assert [word for word in line.words if word >= 0] == list(range(count))
        assert line.words.count(-1) <= sum(fault == "stall" for _, fault in voice_breaks)
        assert ("agent", answer) in line.talk
        assert "reply_failed" not in line.events
        assert all(model.closed == len(model.asked) for model in models)

    on_a_line(turn, lambda: Line(models, voices))


def elsewhere(name: str, product: str, feed_mode: Literal["all", "gated"]) -> Ear:
    ear = Ear(name, feed_mode)
    ear.third_party, ear.product = True, product  # type: ignore[attr-defined]
    return ear


@pytest.mark.parametrize("feeds", [("all", "all"), ("all", "gated"), ("gated", "all"), ("gated", "gated")])
def test_each_recogniser_is_billed_for_what_it_was_given(feeds: tuple[Any, Any]) -> None:
    """The one that failed, until then; the next one, also for the utterance that it heard once more."""
    first, second = elsewhere("cloud", "dear", feeds[0]), elsewhere("other", "cheap", feeds[1])
    lines: list[Line] = []

    async def turn(line: Line) -> None:
        lines.append(line)
        line.starts()
        await line.run(3000)
        unmetered = [(usage.provider, usage.product) for usage in line.attendant.unmetered()]
        assert unmetered == [("cloud", "dear")]
        first.streams[0].on_event(SttFailed(down("cloud")))
        assert [u.quantity for u in line.metered if u.kind == "stt" and u.provider == "cloud"] == seconds(first)
        line.bus.speech_ended(line.clock.now() - 0.2)
        second.streams[0].on_event(SttFinal("hours"))
        await line.run(6000)

    def seconds(ear: Ear) -> list[float]:
        return [round(sum(stream.fed_bytes for stream in ear.streams) / 8000, 3)]

    on_a_line(turn, lambda: Line([Model("a", ANSWER)], [Voice("v")], (first, second)))
    billed = {(u.provider, u.product): 0.0 for u in lines[0].metered if u.kind == "stt"}
    for usage in lines[0].metered:
        if usage.kind == "stt":
            billed[usage.provider, usage.product] += usage.quantity
    assert [round(billed["cloud", "dear"], 3)] == seconds(first)
    assert [round(billed["other", "cheap"], 3)] == seconds(second)
    assert billed["cloud", "dear"] >= 3.0


def test_ears_of_another_language_are_billed_from_when_they_hear() -> None:
    first, second = elsewhere("cloud", "english", "all"), elsewhere("cloud", "spanish", "all")

    async def turn(line: Line) -> None:
        await line.run(2000)
        given = first.streams[0].fed_bytes
        minds = Minds(cast(Any, second), cast(Any, Model("a", ANSWER)), cast(Any, Voice("v")))
        line.attendant._stt.follow(Choice(minds, "stt", line.clock, line.event))
        assert [(u.product, u.quantity) for u in line.metered if u.kind == "stt"] == [("english", given / 8000)]
        await line.run(1000)
        assert [(u.product, u.quantity) for u in line.attendant.unmetered()] == [("spanish", 1.0)]

    on_a_line(turn, lambda: Line([Model("a", ANSWER)], [Voice("v")], (first,)))
