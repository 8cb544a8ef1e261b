"""A call's voice: one at a time, of an ordered list. When it fails, the next one goes on from the first word that was
not wholly spoken, and stays for the rest of the call.

Audio behind that word is taken back from the playout: queued audio without a trace, sent audio by a clear, so that the
caller hears each word once. Where a voice gives no word times its place is estimated, late rather than early.
"""

from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any

from trunkline.agents.choice import Choice, Sticky, timely
from trunkline.agents.deadline import After, sleep
from trunkline.agents.definition import Failover
from trunkline.agents.exchange import Phrase, Written
from trunkline.agents.seam import MS_A_LETTER, spoken_by_estimate, spoken_of
from trunkline.errors import ProviderError
from trunkline.media.bus import Bus
from trunkline.ports import TtsAudio, Word

ROOM_POLL_S = 0.25

Append = Callable[[bytes, Sequence[Word], int], bool]
"""(audio, words, where they begin): False when the reply was cancelled."""


class Speaking:
    def __init__(
        self,
        choice_of: Callable[[str], Choice],
        bus: Bus,
        after: After,
        terms: Failover,
        meter: Callable[[str, int], None],
    ) -> None:
        """`choice_of(language)`: the voices that speak it. `meter(voice, characters)`: what was asked of it."""
        self._choice_of, self._voices = choice_of, dict[str, Sticky]()
        self._bus, self._after, self._terms, self._meter = bus, after, terms, meter
        self._ms_a_letter: dict[str, float] = {}  # as spoken in this call, where a voice gives no word times

    async def speak(self, text: str, written: Written, append: Append) -> None:
        """One phrase, to its end or until it is void. Raises ProviderError when no voice is left."""
        voice = self._voice_of(written.language)
        while text:
            key = voice.key
            tts = voice.choice.asked(key)
            self._meter(tts.name, len(text))
            given = _Given(text)
            try:
                if not await self._speak(voice, tts, given, written, append):
                    return
            except ProviderError as error:
                left = self._take_over(voice, tts, key, given, written, error)
                if left is None:
                    raise
                text = left
            else:
                voice.choice.succeeded(key)
                self._note(key, tts, given)
                return

    async def record(self, text: str, language: str = "") -> bytes:
        """Spoken whole, and not on the bus. Raises ProviderError when no voice is left."""
        voice = self._voice_of(language)
        while True:
            key = voice.key
            tts = voice.choice.asked(key)
            audio = bytearray()
            try:
                async with aclosing(self._chunks(voice, tts, text)) as chunks:
                    async for chunk in chunks:
                        audio += chunk.data
            except ProviderError as error:
                if not voice.failed(key, error):
                    raise
            else:
                voice.choice.succeeded(key)
                self._meter(tts.name, len(text))
                return bytes(audio)

    def _voice_of(self, language: str) -> Sticky:
        if language not in self._voices:
            self._voices[language] = Sticky(self._choice_of(language))
        return self._voices[language]

    def _chunks(self, voice: Sticky, tts: Any, text: str) -> Any:
        last = voice.following() is None
        terms = self._terms
        return timely(
            tts.speak(text, self._bus.playout.format),
            self._after,
            tts.name,
            None if last else terms.first_audio_ms / 1000,
            None if last else terms.stall_ms / 1000,
            _audible,
        )

    async def _speak(self, voice: Sticky, tts: Any, given: "_Given", written: Written, append: Append) -> bool:
        """False when it is void."""
        bus = self._bus
        async with aclosing(self._chunks(voice, tts, given.text)) as chunks:
            async for chunk in chunks:
                if given.phrase is None:  # a filler may have gone before it
                    given.phrase = Phrase(given.text, bus.position_ms)
                    written.phrases.append(given.phrase)
                given.words += chunk.words
                if not append(chunk.data, chunk.words, given.phrase.start_ms):
                    return False
                while not bus.has_room:  # a model that writes a book
                    await sleep(self._after, ROOM_POLL_S)
        if given.phrase is None and any(map(str.isalnum, given.text)) and voice.following() is not None:
            raise ProviderError(tts.name, "protocol", "no audio", retryable=True)
        if given.phrase is not None and append(b"", (), given.phrase.start_ms):
            given.phrase.end_ms = bus.position_ms
            if not tts.word_times:
                bus.playout.ledger.add_estimate(given.text, given.phrase.start_ms, given.phrase.end_ms)
        return True

    def _take_over(
        self, voice: Sticky, tts: Any, key: str, given: "_Given", written: Written, error: ProviderError
    ) -> str | None:
        """What the next voice has to say; None where there is no next."""
        bus, phrase = self._bus, given.phrase
        count, until_ms = given.spoken(tts.word_times, bus.position_ms, self._ms_a_letter.get(key, MS_A_LETTER))
        words = given.text.split()
        if not voice.failed(key, error, words_spoken=count, words_left=len(words) - count):
            return None
        if phrase is None:
            return given.text
        bus.retract(phrase.start_ms + until_ms)
        phrase.text, phrase.end_ms = " ".join(words[:count]), bus.position_ms
        if not count:
            written.phrases.remove(phrase)
        elif not tts.word_times or not given.words:
            bus.playout.ledger.add_estimate(phrase.text, phrase.start_ms, phrase.end_ms)
        return " ".join(words[count:])

    def _note(self, key: str, tts: Any, given: "_Given") -> None:
        if not tts.word_times and given.phrase is not None and given.phrase.end_ms is not None:
            letters = sum(len(word) + 1 for word in given.text.split())
            self._ms_a_letter[key] = (given.phrase.end_ms - given.phrase.start_ms) / max(1, letters)


class _Given:
    """What a voice was asked to say, and what has come of it."""

    __slots__ = ("phrase", "text", "words")

    def __init__(self, text: str) -> None:
        self.text = text
        self.phrase: Phrase | None = None
        self.words: list[Word] = []

    def spoken(self, word_times: bool, position_ms: int, ms_a_letter: float) -> tuple[int, int]:
        """How many of its words were wholly spoken, and where the last of them ends."""
        if self.phrase is None:
            return 0, 0
        if word_times and self.words:
            return spoken_of(self.text, self.words), self.words[-1].end_ms
        return spoken_by_estimate(self.text, position_ms - self.phrase.start_ms, ms_a_letter)


def _audible(chunk: TtsAudio) -> bool:
    return bool(chunk.data)
