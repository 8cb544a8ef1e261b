"""What every recogniser must do (ports.Stt, ports.SttStream)."""

import asyncio
from collections.abc import Awaitable, Callable

from trunkline.ports import Expectation, Stt, SttEvent, SttFailed, SttFinal, SttStream
from trunkline.testing.conformance.stage import CALL, Conformance, Situation, Stage, needs
from trunkline.types import MULAW_8K, Format

CHUNK_MS = 20


class Ears:
    """A stream and what came of it."""

    def __init__(self, stt: Stt, format: Format, speech: bytes) -> None:
        self.events: list[SttEvent] = []
        self._arrived = asyncio.Event()
        self.format, self.speech = format, speech
        self.stream: SttStream = stt.open(CALL, format, self._take)

    def _take(self, event: SttEvent) -> None:
        self.events.append(event)
        self._arrived.set()

    async def say(self, speech: bytes | None = None) -> None:
        """Feed an utterance as a call does, only faster."""
        speech = self.speech if speech is None else speech
        size = CHUNK_MS * self.format.bytes_per_ms
        for start in range(0, len(speech), size):
            self.stream.feed(speech[start : start + size])
            await asyncio.sleep(0)

    @property
    def ends(self) -> list[SttFinal | SttFailed]:
        return [event for event in self.events if isinstance(event, SttFinal | SttFailed)]

    async def until_ends(self, count: int) -> None:
        while len(self.ends) < count:
            self._arrived.clear()
            await self._arrived.wait()


class SttConformance(Conformance[Stt]):
    """Where the stage's far end `answers`, it understands `words` in each utterance of `speech`, however often."""

    format: Format = MULAW_8K
    words: str = "caller phrase"
    unsaid: str = ""
    """What it makes of no audio at all; a stand-in may hear words in it."""
    quiet_s: float = 0.3
    """How long nothing must follow where nothing may."""

    def speech(self) -> bytes:
        """One utterance in `format`, as a gated ear is fed it: pre-roll, words, hangover."""
        tone = bytes(range(0x20, 0x70)) + bytes(range(0xA0, 0xF0))  # no silence, and found again in a log
        return (tone * 10 * self.format.bytes_per_ms)[: 1600 * self.format.bytes_per_ms]

    @needs("answers")
    def test_what_is_fed_and_finalized_becomes_one_final(self) -> None:
        async def case(ears: Ears) -> None:
            await ears.say()
            ears.stream.finalize()
            await self._ends("answers", ears, 1)
            assert ears.ends == [SttFinal(self.words)]
            assert isinstance(ears.events[-1], SttFinal), "a partial came after the final of its utterance"

        self._hear("answers", case)

    @needs("answers")
    def test_one_that_is_told_where_the_utterance_began_hears_all_of_it(self) -> None:
        async def case(ears: Ears) -> None:
            ears.stream.began(0)
            await ears.say()
            ears.stream.began(len(self.speech()) // self.format.bytes_per_ms)
            ears.stream.finalize()
            await self._ends("answers", ears, 1)
            assert ears.ends == [SttFinal(self.words)]

        self._hear("answers", case)

    @needs("answers")
    def test_each_of_two_utterances_has_its_final(self) -> None:
        async def case(ears: Ears) -> None:
            for count in (1, 2):
                ears.stream.expect(Expectation())
                await ears.say()
                ears.stream.finalize()
                await self._ends("answers", ears, count)
            for _ in range(2):  # the second begins before the first has its final
                await ears.say()
                ears.stream.finalize()
            await self._ends("answers", ears, 4)
            assert ears.ends == [SttFinal(self.words)] * 4

        self._hear("answers", case)

    @needs("answers")
    def test_finalize_without_audio_has_a_final_too(self) -> None:
        async def case(ears: Ears) -> None:
            ears.stream.finalize()
            await self._ends("answers", ears, 1)
            final = ears.ends[0]
            assert isinstance(final, SttFinal), f"{final}"
            assert (final.text, final.understood) in (("", True), ("", False), (self.unsaid, True)), f"{final}"

        self._hear("answers", case)

    @needs("answers")
    def test_what_is_cancelled_has_no_final_and_the_next_has_its_own(self) -> None:
        async def case(ears: Ears) -> None:
            await ears.say()
            ears.stream.cancel()
            ears.stream.cancel()
            await asyncio.sleep(self.quiet_s)
            assert ears.ends == [], "a final of what was cancelled"
            await ears.say()
            ears.stream.finalize()
            await self._ends("answers", ears, 1)
            assert ears.ends == [SttFinal(self.words)]

        self._hear("answers", case)

    @needs("answers")
    def test_cancel_leaves_those_that_were_finalized_their_final(self) -> None:
        async def case(ears: Ears) -> None:
            await ears.say()
            ears.stream.finalize()
            await ears.say(ears.speech[: len(ears.speech) // 4])
            ears.stream.cancel()
            await self._ends("answers", ears, 1)
            assert ears.ends == [SttFinal(self.words)]

        self._hear("answers", case)

    @needs("answers")
    def test_after_close_nothing_follows_and_nothing_raises(self) -> None:
        async def case(ears: Ears) -> None:
            await ears.say()
            ears.stream.finalize()
            ears.stream.close()
            seen = len(ears.events)
            ears.stream.close()
            await ears.say()
            ears.stream.expect(Expectation())
            ears.stream.finalize()
            ears.stream.cancel()
            await asyncio.sleep(self.quiet_s)
            assert len(ears.events) == seen, f"after close: {ears.events[seen:]}"

        self._hear("answers", case)

    @needs("answers")
    def test_one_call_does_not_hear_another(self) -> None:
        async def case(stt: Stt, stage: Stage[Stt]) -> None:
            one, other = (Ears(stt, self.format, self.speech()) for _ in range(2))
            self.audio.append(one.speech[:CHUNK_MS])
            await one.say()
            one.stream.close()
            await other.say()
            other.stream.finalize()
            await self._ends("answers", other, 1)
            assert other.ends == [SttFinal(self.words)]
            assert one.ends == []
            other.stream.close()

        self.play("answers", case)

    @needs("silent")
    def test_closing_closes_the_connection(self) -> None:
        async def case(stt: Stt, stage: Stage[Stt]) -> None:
            ears = Ears(stt, self.format, self.speech())
            await ears.say()
            await asyncio.sleep(self.deadline_s / 20)  # it is on its way
            ears.stream.close()
            await self.sees_closed("silent", stage)

        self.play("silent", case)

    def fails(self, situation: Situation) -> None:
        """Each utterance gets its one answer, also when all is lost."""

        async def case(stt: Stt, stage: Stage[Stt]) -> None:
            ears = Ears(stt, self.format, self.speech())
            self.audio.append(ears.speech[:CHUNK_MS])
            for count in (1, 2):
                await ears.say()
                ears.stream.finalize()
                await self._ends(situation, ears, count)
                end = ears.ends[-1]
                assert isinstance(end, SttFailed), f"{situation}: {end}"
                self.check_failure(situation, end.error, stt)
            await asyncio.sleep(self.quiet_s)
            assert len(ears.ends) == 2, f"{situation}: {ears.ends}"
            ears.stream.close()

        self.play(situation, case)

    def _hear(self, situation: Situation, case: Callable[[Ears], Awaitable[None]]) -> None:
        async def heard(stt: Stt, stage: Stage[Stt]) -> None:
            ears = Ears(stt, self.format, self.speech())
            self.audio.append(ears.speech[:CHUNK_MS])
            await case(ears)
            ends = len(ears.ends)
            await asyncio.sleep(self.quiet_s)
            assert len(ears.ends) == ends, f"more than one answer: {ears.ends}"
            ears.stream.close()

        self.play(situation, heard)

    async def _ends(self, situation: Situation, ears: Ears, count: int) -> None:
        what = f"no {count} finals or failures (but {ears.events})"
        await self.in_time(situation, ears.until_ends(count), what)
