"""Summaries on a live call: in the background, one at a time, metered, and never in the way of an answer."""

import asyncio
from dataclasses import replace

from tests.agents.test_cascade import AGENT, Call, Llm, Pen, Stt, Tts, on_a_call
from tests.agents.test_realtime_attendant import RealtimeCall
from tests.agents.test_realtime_attendant import on_a_call as on_a_realtime_call
from trunkline.agents.cascade import Cascade
from trunkline.agents.definition import ContextTerms
from trunkline.agents.providers import Minds
from trunkline.errors import ProviderError
from trunkline.ports import LlmUsage, Message, ModelLost, ToolCall, Usage

TERMS = ContextTerms(max_tokens=60, keep_messages=2, deadline_ms=3000)
LONG = replace(AGENT, context=TERMS)
STORY = "incomprehensibilities " * 6


class Scripted(Llm):
    continues = False


async def exchange(call: Call, question: str, answer: str) -> None:
    await call.says(question)
    call.pen.write(answer).end()
    await call.run(200 * len(answer.split()) + 600)
    assert call.talk[-1] == ("agent", answer.strip())


async def asked_for_a_summary(call: Call) -> Pen:
    await exchange(call, "one", STORY)
    await exchange(call, "two", STORY)
    pen = call.pen
    [asked] = pen.asked
    assert "Sum it up" in asked.text
    return pen


def test_the_next_answer_is_asked_for_with_the_summary_in_place_of_the_old_messages() -> None:
    async def conversation(call: Call) -> None:
        pen = await asked_for_a_summary(call)
        assert "Caller: one" in pen.asked[0].text
        pen.write("They counted to two.", LlmUsage(90, 7)).end()
        await call.settle()
        await call.says("three")
        assert call.pen.asked == [Message("summary", "They counted to two."), *call.attendant.conversation[-3:]]
        assert [m.text for m in call.pen.asked[1:]] == ["two", STORY.strip(), "three"]
        assert ("one", STORY.strip()) == (call.talk[1][1], call.talk[2][1])  # nothing is lost of what was said
        used = [(u.kind, u.unit, u.quantity) for u in call.metered if u.kind == "llm"]
        assert used == [("llm", "tokens_in", 90), ("llm", "tokens_out", 7)]
        assert call.events.count("context_summarised") == 1
        call.pen.write("Three.").end()
        await call.run(600)
        call.attendant.close()
        assert call.attendant.conversation[0] == Message("summary", "They counted to two.")

    on_a_call(conversation, agent=LONG)


def test_an_answer_does_not_wait_for_a_summary_and_there_is_never_a_second() -> None:
    async def conversation(call: Call) -> None:
        pen = await asked_for_a_summary(call)
        await exchange(call, "three", STORY)
        assert len([p for p in call.llm.pens if "Sum it up" in p.asked[0].text]) == 1
        assert call.pen.asked[0].role == "agent"  # the greeting: as it was said
        assert not pen.closed
        pen.write("Late.").end()
        await call.settle()
        await call.says("four")
        assert call.pen.asked[0] == Message("summary", "Late.")

    on_a_call(conversation, agent=LONG)


def test_a_summary_under_way_is_closed_with_the_call() -> None:
    async def conversation(call: Call) -> None:
        pen = await asked_for_a_summary(call)
        call.attendant.close()
        await call.settle()
        assert pen.closed

    on_a_call(conversation, agent=LONG)


def test_what_cannot_be_summed_up_in_time_is_left_out_and_recorded() -> None:
    async def conversation(call: Call) -> None:
        pen = await asked_for_a_summary(call)
        await call.run(TERMS.deadline_ms + 100)
        assert pen.closed
        assert "context_left_out" in call.events
        await call.says("three")
        assert [m.text for m in call.pen.asked] == ["two", STORY.strip(), "three"]

    on_a_call(conversation, agent=LONG)


def test_a_model_that_fails_or_only_uses_tools_sums_up_nothing() -> None:
    async def conversation(call: Call) -> None:
        pen = await asked_for_a_summary(call)
        pen.write(ToolCall("t", "hang_up", {})).end()
        await call.settle()
        assert call.events.count("context_left_out") == 1
        await exchange(call, "three", STORY)
        call.pen.fail(ProviderError("llm", "rate_limited", retryable=True))
        await call.settle()
        assert call.events.count("context_left_out") == 2
        assert call.hang_ups == []

    on_a_call(conversation, agent=LONG)


def test_a_script_is_neither_asked_for_a_summary_nor_told_one() -> None:
    async def main() -> None:
        scripted = Scripted()
        cascade = Cascade(LONG, Minds(Stt(), scripted, Tts()), Call()._tool)
        call = await Call(cascade=cascade).begun()
        await exchange(call, "one", STORY)
        await exchange(call, "two", STORY)
        assert "context_left_out" in call.events
        await call.says("three")
        assert [m.text for m in call.pen.asked][:2] == ["Hello there.", "one"]
        call.attendant.close()
        await call.settle()
        assert not call.crashes

    asyncio.run(main())


def test_a_model_of_its_own_sums_up() -> None:
    async def main() -> None:
        own = Llm()
        cascade = Cascade(LONG, Minds(Stt(), Llm(), Tts()), Call()._tool, summariser=own)
        assert own in cascade.providers  # the door is asked for it
        call = await Call(cascade=cascade).begun()
        await exchange(call, "one", STORY)
        await exchange(call, "two", STORY)
        assert len(own.pens) == 1
        call.attendant.close()
        await call.settle()

    asyncio.run(main())


def test_a_new_session_of_a_realtime_model_is_told_the_summary() -> None:
    async def conversation(call: RealtimeCall) -> None:
        for at, question in enumerate(("one", "two")):
            await call.spoken()
            await call.took(f"u{at}")
            call.session.says(STORY, 800)
            await call.transcribed(f"u{at}", question)
            await call.run(1500)
        call.pen.write("They counted.").end()
        await call.settle()
        before = call.session
        before.on_event(ModelLost(ProviderError("model", "unavailable", retryable=True)))
        await call.run(600)
        assert call.session is not before
        assert call.session.conversation == [Message("summary", "They counted."), *call.attendant.conversation[-2:]]

    on_a_realtime_call(conversation, agent=LONG)


def test_usage_is_of_the_call_that_was_summed_up() -> None:
    found: list[Usage] = []

    async def conversation(call: Call) -> None:
        pen = await asked_for_a_summary(call)
        pen.write("So.", LlmUsage(1, 1)).end()
        await call.settle()
        found.extend(call.metered)

    on_a_call(conversation, agent=LONG)
    assert {usage.call_id for usage in found} == {"call_1"}
