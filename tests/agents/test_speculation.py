"""An answer asked for early: on a call (kept, dropped, its tools held), and by itself."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.agents.test_cascade import AGENT, DOWN, Call, on_a_call
from trunkline.agents.cascade import SPECULATIONS
from trunkline.agents.definition import TurnTaking
from trunkline.agents.speculation import EVENTS_AHEAD, Speculation
from trunkline.media.bus import Bus
from trunkline.ports import CallControl, LlmEvent, LlmUsage, Message, SttFinal, SttPartial, TextDelta, ToolCall

EAGER = replace(AGENT, turns=TurnTaking(speculate=True))
ASKED = "what are your hours"


async def speaks(call: Call, text: str = ASKED) -> None:
    """Words that seem whole, then silence."""
    call.starts()
    await call.run(400)
    call.ears.on_event(SttPartial(text, complete=True))
    await call.settle()


async def ends(call: Call, text: str = ASKED, *, understood: bool = True) -> None:
    call.bus.speech_ended(call.clock.now() - 0.2)
    call.ears.on_event(SttFinal(text, understood))
    await call.settle()


def used(call: Call) -> list[tuple[str, float]]:
    return [(usage.unit, usage.quantity) for usage in call.metered if usage.kind == "llm"]


def test_what_came_early_is_spoken_once_the_turn_has_ended_and_no_sooner() -> None:
    async def conversation(call: Call) -> None:
        await speaks(call)
        assert call.pen.asked == [Message("agent", "Hello there."), Message("caller", ASKED)]
        call.pen.write("We open at eight. ", LlmUsage(12, 4)).end()
        await call.run(200)
        assert call.tts.spoken == ["Hello there."]
        assert call.talk == [("agent", "Hello there.")]
        assert used(call) == []
        await ends(call, "What are your hours?")
        assert call.tts.spoken[-1] == "We open at eight."
        await call.run(1500)
        assert len(call.llm.pens) == 1
        assert call.talk[1:] == [("caller", "What are your hours?"), ("agent", "We open at eight.")]
        assert used(call) == [("tokens_in", 12), ("tokens_out", 4)]
        assert call.turns[-1].llm_ms == 0
        assert [event for event in call.events if event == "speculation"] == ["speculation"]

    on_a_call(conversation, agent=EAGER)


def test_what_still_comes_is_spoken_as_it_comes() -> None:
    async def conversation(call: Call) -> None:
        await speaks(call)
        call.pen.write("We open ")
        await ends(call)
        assert call.tts.spoken[-1] != "We open"
        call.pen.write("at eight. And ")
        await call.settle()
        assert call.tts.spoken[-1] == "We open at eight."
        call.pen.write("close at five.").end()
        await call.run(2500)
        assert call.talk[-1] == ("agent", "We open at eight. And close at five.")
        assert len(call.llm.pens) == 1

    on_a_call(conversation, agent=EAGER)


@pytest.mark.parametrize("final", ["what are your hours on Monday", "what were your hours"])
def test_of_other_words_it_is_dropped_and_its_request_closed(final: str) -> None:
    async def conversation(call: Call) -> None:
        await speaks(call)
        early = call.pen.write("We open at eight. ")
        await call.settle()
        await ends(call, final)
        assert early.closed
        assert not early.done
        assert call.pen is not early
        assert call.pen.asked[-1] == Message("caller", final)
        assert used(call) == [("calls", 1)]
        call.pen.write("On Monday at nine.").end()
        await call.run(2000)
        assert call.talk[-1] == ("agent", "On Monday at nine.")
        assert "We open at eight." not in call.tts.spoken

    on_a_call(conversation, agent=EAGER)


def test_when_the_caller_goes_on_it_is_dropped_at_once_and_what_it_used_is_metered() -> None:
    async def conversation(call: Call) -> None:
        await speaks(call)
        early = call.pen.write("We open at eight.", LlmUsage(12, 4))
        early.end()
        await call.settle()
        call.ears.on_event(SttPartial(ASKED + " on"))
        await call.settle()
        assert early.closed
        assert used(call) == [("tokens_in", 12), ("tokens_out", 4)]
        call.ears.on_event(SttPartial(ASKED + " on Monday"))
        await ends(call, ASKED + " on Monday")
        call.pen.write("At nine.").end()
        await call.run(1000)
        assert call.talk[-1] == ("agent", "At nine.")
        assert used(call) == [("tokens_in", 12), ("tokens_out", 4)]
        assert len(call.llm.pens) == 2

    on_a_call(conversation, agent=EAGER)


def test_tools_wait_for_the_end_of_the_turn() -> None:
    done: list[str] = []

    async def tool(call: ToolCall, control: CallControl) -> str:
        done.append(call.name)
        return "ok"

    async def conversation(call: Call) -> None:
        call.tool = tool
        await speaks(call, "please hang up")
        call.pen.write(ToolCall("1", "hang_up", {})).end()
        await call.run(500)
        assert done == []
        await ends(call, "please hang up")
        assert done == ["hang_up"]
        call.pen.write("Done.").end()
        await call.run(1000)

    on_a_call(conversation, agent=EAGER)
    done.clear()

    async def other(call: Call) -> None:
        call.tool = tool
        await speaks(call, "please hang up")
        call.pen.write(ToolCall("1", "hang_up", {})).end()
        await call.run(500)
        await ends(call, "please hang up the phone on my daughter's behalf")
        call.pen.write("I cannot.").end()
        await call.run(1000)
        assert done == []

    on_a_call(other, agent=EAGER)


def test_one_that_failed_is_as_good_as_none() -> None:
    async def conversation(call: Call) -> None:
        await speaks(call)
        call.pen.fail(DOWN)
        await call.settle()
        await ends(call)
        assert len(call.llm.pens) == 2
        call.pen.write("We open at eight.").end()
        await call.run(1500)
        assert call.talk[-1] == ("agent", "We open at eight.")

    on_a_call(conversation, agent=EAGER)


def test_a_turn_that_the_recogniser_ends_takes_it() -> None:
    async def conversation(call: Call) -> None:
        await speaks(call)
        call.ears.on_event(SttFinal("What are your hours?"))
        await call.settle()
        call.pen.write("We open at eight.").end()
        await call.run(1500)
        assert len(call.llm.pens) == 1
        assert call.talk[-1] == ("agent", "We open at eight.")

    on_a_call(conversation, agent=EAGER)


@pytest.mark.parametrize("what", ["key", "noise", "hold", "hang up", "again"])
def test_whatever_else_happens_closes_it(what: str) -> None:
    async def conversation(call: Call) -> None:
        await speaks(call)
        early = call.pen.write("We open ")
        match what:
            case "key":
                call.attendant.key("1")
            case "noise":
                await ends(call, "", understood=False)
            case "hold":
                call.attendant.hold(True)
            case "hang up":
                call.attendant.close()
            case "again":
                call.bus.speech_ended(call.clock.now())
                call.starts()
        await call.settle()
        assert early.closed
        assert used(call)[0] == ("calls", 1)
        assert "We open" not in call.tts.spoken

    on_a_call(conversation, agent=EAGER)


def test_an_answer_that_is_interrupted_before_it_is_asked_for_leaves_no_request() -> None:
    async def conversation(call: Call) -> None:
        await speaks(call)
        early = call.pen.write("We open ")
        call.bus.speech_ended(call.clock.now() - 0.2)
        call.ears.on_event(SttFinal(ASKED))
        call.attendant.key("1")  # over the agent: type-ahead
        call.attendant.say_goodbye()
        await call.settle()
        assert early.closed
        await call.run(1000)

    on_a_call(conversation, agent=EAGER)


def test_a_model_that_moves_on_by_being_asked_is_not_asked_early() -> None:
    async def conversation(call: Call) -> None:
        call.llm.speculates = False  # type: ignore[attr-defined]
        await speaks(call)
        await call.run(200)
        assert call.llm.pens == []

    on_a_call(conversation, agent=EAGER)


def test_of_one_utterance_only_so_much_is_asked_in_vain() -> None:
    async def conversation(call: Call) -> None:
        call.starts()
        await call.run(400)
        for at in range(SPECULATIONS + 2):
            call.ears.on_event(SttPartial(f"well {at}", complete=True))
            await call.settle()
        assert len(call.llm.pens) == SPECULATIONS
        await ends(call, "well")
        call.pen.write("Well.").end()
        await call.run(1000)
        await speaks(call)
        assert call.pen.asked[-1] == Message("caller", ASKED)
        await ends(call)
        call.pen.write("Eight.").end()
        await call.run(1000)

    on_a_call(conversation, agent=EAGER)


def test_words_that_grow_while_they_are_said_are_asked_about_when_the_caller_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However often they seemed whole before."""

    async def conversation(call: Call) -> None:
        silent_ms = 0
        monkeypatch.setattr(Bus, "silent_ms", property(lambda bus: silent_ms))
        call.starts()
        words = ["what", "are", "your", "opening", "hours", "on", "Monday", "and", "on", "Tuesday"]
        for count in range(4, len(words) + 1):
            call.ears.on_event(SttPartial(" ".join(words[:count]), complete=True))
            await call.run(240)
        assert call.llm.pens == []
        silent_ms = 200
        await call.run(240)
        assert [pen.asked[-1].text for pen in call.llm.pens] == [" ".join(words)]

    on_a_call(conversation, agent=EAGER)


def test_while_the_caller_speaks_it_waits_for_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    async def conversation(call: Call) -> None:
        silent_ms = 0
        monkeypatch.setattr(Bus, "silent_ms", property(lambda bus: silent_ms))
        await speaks(call)
        await call.run(400)
        assert call.llm.pens == []
        silent_ms = 200
        await call.run(220)
        assert len(call.llm.pens) == 1

    on_a_call(conversation, agent=EAGER)


# --- by itself ------------------------------------------------------------------------------------------------------


def spawn(coroutine: Any) -> "asyncio.Task[None]":
    return asyncio.get_running_loop().create_task(coroutine)


def test_a_book_waits_at_the_models_side() -> None:
    written = 0

    async def book() -> AsyncGenerator[LlmEvent, None]:
        nonlocal written
        while True:
            written += 1
            yield TextDelta("word ")

    async def main() -> None:
        early = Speculation("llm.test", (), book, spawn)
        for _ in range(2 * EVENTS_AHEAD):
            await asyncio.sleep(0)
        assert written == EVENTS_AHEAD + 1
        early.drop()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


@pytest.mark.parametrize(
    ("key", "asked", "understood", "answers"),
    [
        ("a", [Message("caller", "Hours?")], True, True),
        ("a", [Message("caller", "hours")], False, False),
        ("b", [Message("caller", "hours")], True, False),
        ("a", [Message("caller", "hours", keyed=True)], True, False),
        ("a", [Message("caller", "hours"), Message("caller", "hours")], True, False),
        ("a", [Message("agent", "hours")], True, False),
        ("a", [Message("caller", "our")], True, False),
    ],
)
def test_it_answers_the_same_words_only(key: str, asked: Sequence[Message], understood: bool, answers: bool) -> None:
    async def silence() -> AsyncGenerator[LlmEvent, None]:
        await asyncio.Event().wait()
        yield TextDelta("")

    async def main() -> None:
        early = Speculation("a", [Message("caller", "hours")], silence, spawn)
        assert early.answers(key, asked, understood=understood) is answers
        assert early.drop() == []
        await asyncio.sleep(0)

    asyncio.run(main())
