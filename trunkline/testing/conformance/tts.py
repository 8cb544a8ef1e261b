"""What every voice must do (ports.Tts)."""

import asyncio
from contextlib import aclosing
from itertools import pairwise

from trunkline.ports import Tts, TtsAudio, Word
from trunkline.testing.conformance.stage import Conformance, Situation, Stage, needs
from trunkline.types import MULAW_8K, Format

SHORT_MS, LONG_MS = 40, 1500
"""Between these lies a spoken word of a phrase, pauses included."""


class TtsConformance(Conformance[Tts]):
    format: Format = MULAW_8K
    text: str = "Please come to the second floor. The doctor is expecting you."
    other_text: str = "We open at eight in the morning."
    similar: float = 0.1
    """By how much two readings of a text may differ in length."""

    @needs("answers")
    def test_a_phrase_is_spoken_whole_with_its_words_where_it_has_their_times(self) -> None:
        async def case(tts: Tts, stage: Stage[Tts]) -> None:
            for _ in range(2):
                chunks = await self._spoken(tts, self.text)
                heard_ms = _length(chunks) / self.format.bytes_per_ms
                words = self.text.split()
                assert SHORT_MS <= heard_ms / len(words) <= LONG_MS, f"{heard_ms:.0f} ms for {len(words)} words"
                assert _length(chunks) % (self.format.frame_bytes // self.format.frame_samples) == 0, "half a sample"
                self._check_words(chunks, words if tts.word_times else [])

        self.play("answers", case)

    @needs("answers")
    def test_two_phrases_at_once_do_not_mix(self) -> None:
        async def case(tts: Tts, stage: Stage[Tts]) -> None:
            alone = [_length(await self._spoken(tts, text)) for text in (self.text, self.other_text)]
            both = await asyncio.gather(self._spoken(tts, self.text), self._spoken(tts, self.other_text))
            for one, together in zip(alone, map(_length, both), strict=True):
                assert abs(one - together) <= one * self.similar, f"{one} bytes alone, {together} beside another"

        self.play("answers", case)

    @needs("answers")
    def test_text_without_words_harms_nothing(self) -> None:
        async def case(tts: Tts, stage: Stage[Tts]) -> None:
            for text in ("", "   ", "..."):
                await self._spoken(tts, text)
            assert _length(await self._spoken(tts, self.text)) > 0

        self.play("answers", case)

    @needs("stalls")
    def test_audio_comes_before_the_phrase_is_complete_and_closing_closes_the_request(self) -> None:
        async def case(tts: Tts, stage: Stage[Tts]) -> None:
            speech = tts.speak(self.text, self.format)
            first = await self.in_time("stalls", anext(speech), "the first audio did not come")
            assert first.data
            await speech.aclose()
            assert [audio async for audio in speech] == [], "a closed phrase goes on"
            await self.sees_closed("stalls", stage)

        self.play("stalls", case)

    @needs("silent")
    def test_cancelling_before_the_first_audio_closes_the_request(self) -> None:
        async def case(tts: Tts, stage: Stage[Tts]) -> None:
            task = asyncio.get_running_loop().create_task(self._spoken(tts, self.text))
            await asyncio.sleep(self.deadline_s / 20)  # it is on its way
            task.cancel()
            await asyncio.wait((task,))
            assert task.cancelled(), "it took the cancellation for something else"
            await self.sees_closed("silent", stage)

        self.play("silent", case)

    def fails(self, situation: Situation) -> None:
        chunks: list[TtsAudio] = []

        async def case(tts: Tts, stage: Stage[Tts]) -> None:
            error: Exception | None = None

            async def speak() -> None:
                async for audio in tts.speak(self.text, self.format):
                    chunks.append(audio)

            try:
                await self.in_time(situation, speak(), "neither an end nor an error came")
            except AssertionError:
                raise
            except Exception as caught:
                error = caught
            self.check_failure(situation, error, tts)
            if situation == "stalls":
                assert _length(chunks) > 0, "what was said before is lost"

        self.play(situation, case)

    async def _spoken(self, tts: Tts, text: str) -> list[TtsAudio]:
        async with aclosing(tts.speak(text, self.format)) as speech:
            chunks = [audio async for audio in speech]
        self.audio += [audio.data for audio in chunks]
        return chunks

    def _check_words(self, chunks: list[TtsAudio], expected: list[str]) -> None:
        words: list[Word] = [word for audio in chunks for word in audio.words]
        assert [word.text for word in words] == expected, f"{words}"
        so_far_ms = 0.0
        for audio in chunks:
            so_far_ms += len(audio.data) / self.format.bytes_per_ms
            late = [word for word in audio.words if word.end_ms > so_far_ms + 1]
            assert not late, f"words whose audio has not come: {late}, {so_far_ms:.0f} ms of it have"
        for word, following in pairwise(words):
            assert word.start_ms <= word.end_ms <= following.end_ms, f"{word} before {following}"
            assert word.start_ms <= following.start_ms, f"{word} before {following}"


def _length(chunks: list[TtsAudio]) -> int:
    return sum(len(audio.data) for audio in chunks)
