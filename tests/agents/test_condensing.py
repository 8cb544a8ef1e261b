"""Summaries on a live call: in the background, one at a time, metered, and never in the way of an answer."""

import asyncio
from dataclasses import replace

from tests.agents.test_cascade import AGENT, Call, Llm, Pen, Stt, Tts, on_a_call
from tests.agents.test_realtime_attendant import RealtimeCall
from tests.agents.test_realtime_attendant import on_a_call as on_a_realtime_call
from trunkline.agents.cascade import Cascade
from trunkline.agents.context import estimate
from trunkline.agents.definition import ContextTerms, TurnTaking
from trunkline.agents.providers import Minds
from trunkline.errors import ProviderError
from trunkline.ports import LlmUsage, Message, ModelLost, SttFinal, SttPartial, ToolCall, Usage

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


def test_an_answer_asked_for_early_is_asked_for_with_the_summary_too() -> None:
    async def conversation(call: Call) -> None:
        pen = await asked_for_a_summary(call)
        pen.write("They counted to two.").end()
        await call.settle()
        call.starts()
        await call.run(400)
        call.ears.on_event(SttPartial("three", complete=True))
        await call.settle()
        early = call.pen
        assert early.asked[0] == Message("summary", "They counted to two.")
        early.write("Three. ").end()
        await call.run(200)
        call.bus.speech_ended(call.clock.now() - 0.2)
        call.ears.on_event(SttFinal("three", understood=True))
        await call.settle()
        assert call.pen is early
        assert call.tts.spoken[-1] == "Three."

    on_a_call(conversation, agent=replace(LONG, turns=TurnTaking(speculate=True)))


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


def test_what_is_not_summed_up_in_time_is_told_as_it_was_said_and_asked_for_again() -> None:
    async def conversation(call: Call) -> None:
        pen = await asked_for_a_summary(call)
        await call.run(TERMS.deadline_ms + 100)
        assert pen.closed
        assert call.events.count("context_not_summarised") == 1
        await call.says("three")
        assert [m.text for m in call.pen.asked][1:] == ["one", STORY.strip(), "two", STORY.strip(), "three"]
        call.pen.write("Three.").end()
        await call.run(600)
        assert "Caller: one" in call.pen.asked[0].text
        call.pen.write("They counted.").end()
        await call.settle()
        await call.says("four")
        assert call.pen.asked[0] == Message("summary", "They counted.")

    on_a_call(conversation, agent=LONG)


def test_a_summary_that_was_cut_off_is_on_the_bill() -> None:
    async def conversation(call: Call) -> None:
        call.llm.third_party, call.llm.product = True, "mind"  # type: ignore[attr-defined]
        await asked_for_a_summary(call)
        await call.run(TERMS.deadline_ms + 100)
        assert [(u.unit, u.quantity, u.product) for u in call.metered if u.kind == "llm"] == [("calls", 1, "mind")]

    on_a_call(conversation, agent=LONG)


def test_without_summaries_the_oldest_are_told_to_nobody_beyond_the_limit_and_it_is_recorded() -> None:
    async def conversation(call: Call) -> None:
        for at in range(8):
            await exchange(call, f"number {at}", STORY)
            call.pen.fail(ProviderError("llm", "rate_limited", retryable=True))
            await call.settle()
        assert "context_left_out" in call.events
        await call.says("well")
        assert estimate(call.pen.asked[:-1]) <= 3 * TERMS.max_tokens
        assert call.pen.asked[-1].text == "well"

    on_a_call(conversation, agent=LONG)


def test_a_model_that_fails_or_only_uses_tools_sums_up_nothing_and_is_the_less_trusted() -> None:
    async def conversation(call: Call) -> None:
        pen = await asked_for_a_summary(call)
        pen.write(ToolCall("t", "hang_up", {})).end()
        await call.settle()
        assert call.events.count("context_not_summarised") == 1
        health = call.cascade.minds.health.of("llm.llm")
        assert (health.failures, health.last_code) == (1, "protocol")
        await exchange(call, "three", STORY)
        call.pen.fail(ProviderError("llm", "rate_limited", retryable=True))
        await call.settle()
        assert call.events.count("context_not_summarised") == 2
        assert health.failures == 2
        assert call.hang_ups == []

    on_a_call(conversation, agent=LONG)


def test_after_a_summary_that_fails_the_next_model_is_asked_for_it() -> None:
    async def main() -> None:
        first, second = Llm(), Llm()
        cascade = Cascade(LONG, Minds(Stt(), first, Tts(), {"llm": (second,)}), Call()._tool)
        call = await Call(cascade=cascade).begun()
        for question in ("one", "two"):
            await call.says(question)
            first.pens[-1].write(STORY).end()
            await call.run(200 * len(STORY.split()) + 600)
        assert "Sum it up" in first.pens[-1].asked[0].text
        first.pens[-1].fail(ProviderError("llm", "unavailable", retryable=True))
        await call.settle()
        await call.says("three")
        first.pens[-1].write("Three.").end()
        await call.run(800)
        [pen] = second.pens
        assert "Sum it up" in pen.asked[0].text
        pen.write("They counted.").end()
        await call.settle()
        assert "context_summarised" in call.events
        call.attendant.close()
        await call.settle()

    asyncio.run(main())


def test_a_script_is_neither_asked_for_a_summary_nor_told_one() -> None:
    async def main() -> None:
        scripted = Scripted()
        cascade = Cascade(LONG, Minds(Stt(), scripted, Tts()), Call()._tool)
        call = await Call(cascade=cascade).begun()
        await exchange(call, "one", STORY)
        await exchange(call, "two", STORY)
        assert len(call.llm.pens) == 2
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
