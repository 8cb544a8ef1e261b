"""What every language model provider must do (ports.Llm)."""

import asyncio
from collections.abc import AsyncGenerator

from trunkline.ports import Expect, Llm, LlmEvent, LlmUsage, Message, TextDelta
from trunkline.testing.conformance.stage import CALL, Conformance, Situation, Stage, needs


class LlmConformance(Conformance[Llm]):
    """The stage's far end answers `conversation` in words; more than once where it `answers`."""

    conversation: tuple[Message, ...] = (Message("agent", "Hello."), Message("caller", "When do you open?"))
    usage_reported: bool = True
    """False for a mind that counts no tokens."""

    @needs("answers")
    def test_a_reply_is_text_then_its_usage_once(self) -> None:
        async def case(llm: Llm, stage: Stage[Llm]) -> None:
            session = llm.open(CALL)
            for _ in range(2):
                self._check_whole([event async for event in session.reply(self.conversation)])
            session.close()
            session.close()

        self.play("answers", case)

    @needs("answers")
    def test_a_reply_that_was_closed_early_leaves_the_next_whole(self) -> None:
        async def case(llm: Llm, stage: Stage[Llm]) -> None:
            session = llm.open(CALL)
            reply = session.reply(self.conversation)
            await anext(reply)
            await reply.aclose()
            assert [event async for event in reply] == [], "a closed reply goes on"
            self._check_whole([event async for event in session.reply(self.conversation)])

        self.play("answers", case)

    @needs("stalls")
    def test_text_comes_before_the_answer_is_complete(self) -> None:
        async def case(llm: Llm, stage: Stage[Llm]) -> None:
            reply = llm.open(CALL).reply(self.conversation)
            first = await self.in_time("stalls", anext(reply), "the first text did not come")
            assert isinstance(first, TextDelta)
            await reply.aclose()

        self.play("stalls", case)

    @needs("stalls")
    def test_closing_the_reply_closes_the_request(self) -> None:
        async def case(llm: Llm, stage: Stage[Llm]) -> None:
            reply = llm.open(CALL).reply(self.conversation)
            await anext(reply)
            await reply.aclose()
            await self.sees_closed("stalls", stage)

        self.play("stalls", case)

    @needs("silent")
    def test_cancelling_before_the_first_text_closes_the_request(self) -> None:
        async def case(llm: Llm, stage: Stage[Llm]) -> None:
            reply = llm.open(CALL).reply(self.conversation)
            task = asyncio.get_running_loop().create_task(_until_end(reply))
            await asyncio.sleep(self.deadline_s / 20)  # it is on its way
            task.cancel()
            await asyncio.wait((task,))
            assert task.cancelled(), "it took the cancellation for something else"
            await self.sees_closed("silent", stage)

        self.play("silent", case)

    def fails(self, situation: Situation) -> None:
        async def case(llm: Llm, stage: Stage[Llm]) -> None:
            events: list[LlmEvent] = []
            error: Exception | None = None

            async def reply() -> None:
                async for event in llm.open(CALL).reply(self.conversation):
                    events.append(event)

            try:
                await self.in_time(situation, reply(), "neither an end nor an error came")
            except AssertionError:
                raise
            except Exception as caught:
                error = caught
            self.check_failure(situation, error, llm)
            if situation == "stalls":
                assert any(isinstance(event, TextDelta) for event in events), "what was said before is lost"
            assert not any(isinstance(event, LlmUsage) for event in events), "usage of an answer that never ended"

        self.play(situation, case)

    def _check_whole(self, events: list[LlmEvent]) -> None:
        text = "".join(event.text for event in events if isinstance(event, TextDelta))
        assert text.strip(), f"no text: {events}"
        assert all(event.text for event in events if isinstance(event, TextDelta)), f"empty text: {events}"
        usages = [event for event in events if isinstance(event, LlmUsage)]
        assert len(usages) == int(self.usage_reported), f"usage is reported {len(usages)} times"
        assert all(usage.tokens_in > 0 and usage.tokens_out > 0 for usage in usages), f"{usages}"
        expects = [at for at, event in enumerate(events) if isinstance(event, Expect)]
        assert len(expects) <= 1, f"{len(expects)} expectations of one reply"


async def _until_end(reply: AsyncGenerator[LlmEvent, None]) -> None:
    async for _ in reply:
        pass
