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
from trunkline.agents.fixedlines import FixedLines
from trunkline.agents.invoiced import billed_in
from trunkline.agents.seam import MS_A_LETTER, spoken_by_estimate, spoken_of
from trunkline.errors import ProviderError
from trunkline.media.bus import Bus
from trunkline.ports import TtsAudio, Word

ROOM_POLL_S = 0.25
FILLER_WAIT_S = 0.4
"""For a filler or an apology from the only voice there is: then a mere sound is better."""

Append = Callable[[bytes, Sequence[Word], int], bool]
"""(audio, words, where they begin): False when the reply was cancelled."""


class Speaking:
    def __init__(
        self,
        choice: Choice,
        bus: Bus,
        after: After,
        terms: Failover,
        meter: Callable[[Any, float], None],
        lines: FixedLines,
    ) -> None:
        """`meter(voice, quantity)`: what was asked of it, or came of it, in the unit it is billed in."""
        self._lines = lines
        self._voice = Sticky(choice)
        self._bus, self._after, self._terms, self._meter = bus, after, terms, meter
        self._doubted = False
        self._ms_a_letter: dict[str, float] = {}  # as spoken in this call, where a voice gives no word times

    @property
    def alone(self) -> bool:
        """There is no other to go on from where this one breaks off."""
        return self._voice.following() is None

    async def speak(self, text: str, written: Written, append: Append) -> None:
        """One phrase, to its end or until it is void. Raises ProviderError when no voice is left."""
        if self._doubted and self._repeat(text, self._voice.key, written, append):
            return
        while text:
            key = self._voice.key
            tts = self._voice.choice.asked(key)
            self._asked_for(tts, text)
            given = _Given(text)
            try:
                try:
                    spoken = await self._speak(key, tts, given, written, append)
                finally:
                    self._given(tts, given.audio_bytes)
                if not spoken:
                    return
            except ProviderError as error:
                left = self._take_over(tts, key, given, written, error)
                if left is None:
                    self.doubt()
                    if given.phrase is not None or not self._repeat(text, key, written, append):
                        raise
                    return
                text = left
            else:
                self._doubted = False
                self._voice.choice.succeeded(key)
                self._note(key, tts, given)
                return

    def _asked_for(self, tts: Any, text: str) -> None:
        if billed_in(tts) == "characters":
            self._meter(tts, len(text))

    def _given(self, tts: Any, audio_bytes: int) -> None:
        if billed_in(tts) == "seconds" and audio_bytes:
            self._meter(tts, round(audio_bytes / self._bus.playout.format.bytes_per_ms / 1000, 3))

    def doubt(self) -> None:
        """It has failed, and nobody follows: of the fixed lines it is not asked before it has spoken again."""
        self._doubted = self.alone

    def _repeat(self, text: str, key: str, written: Written, append: Append) -> bool:
        """A fixed line as it was spoken before, by the voice of that key or else by another; False where it never
        was."""
        kept = self._lines.of_any(text, self._bus.playout.format, key)
        if kept is None:
            return False
        phrase = Phrase(text, self._bus.position_ms)
        written.phrases.append(phrase)
        for chunk in kept:
            append(chunk.data, chunk.words, phrase.start_ms)
        phrase.end_ms = self._bus.position_ms
        if not any(chunk.words for chunk in kept):
            self._bus.playout.ledger.add_estimate(text, phrase.start_ms, phrase.end_ms)
        return True

    async def record(self, text: str) -> bytes:
        """A fixed line, spoken whole, and not on the bus: in the call's voice, in another where that one is failing.
        Raises ProviderError when no voice is left."""
        format = self._bus.playout.format
        while True:
            key = self._voice.key
            find = self._lines.of_any if self._doubted else self._lines.get
            if (kept := find(text, format, key)) is not None:
                return _sound(kept)
            tts = self._voice.choice.asked(key)
            audio = bytearray()
            try:
                async with aclosing(self._chunks(tts, text, FILLER_WAIT_S if self.alone else None)) as chunks:
                    async for chunk in chunks:
                        audio += chunk.data
            except ProviderError as error:
                if self._voice.failed(key, error):
                    continue
                if (kept := self._lines.of_any(text, format, key)) is None:
                    raise
                return _sound(kept)
            else:
                self._voice.choice.succeeded(key)
                self._asked_for(tts, text)
                return bytes(audio)
            finally:
                self._given(tts, len(audio))

    def _chunks(self, tts: Any, text: str, first_s: float | None = None) -> Any:
        last = self._voice.following() is None and not self._lines.wants(text)  # a line unsaid is no reason to wait
        terms = self._terms
        if self._doubted and self._lines.wants(text):
            first_s = FILLER_WAIT_S
        return timely(
            tts.speak(text, self._bus.playout.format),
            self._after,
            tts.name,
            first_s or (None if last else terms.first_audio_ms / 1000),
            None if last else terms.stall_ms / 1000,
            _audible,
        )

    async def _speak(self, key: str, tts: Any, given: "_Given", written: Written, append: Append) -> bool:
        """False when it is void."""
        bus = self._bus
        async with aclosing(self._chunks(tts, given.text)) as chunks:
            async for chunk in chunks:
                if given.phrase is None:  # a filler may have gone before it
                    given.phrase = Phrase(given.text, bus.position_ms)
                    written.phrases.append(given.phrase)
                given.words += chunk.words
                given.audio_bytes += len(chunk.data)
                if not append(chunk.data, chunk.words, given.phrase.start_ms):
                    return False
                if not tts.word_times:  # it may be cut before the rest is here
                    bus.playout.ledger.estimate_so_far(
                        given.text, given.phrase.start_ms, bus.position_ms, self._pace(key)
                    )
                while not bus.has_room:  # a model that writes a book
                    await sleep(self._after, ROOM_POLL_S)
        if given.phrase is None and any(map(str.isalnum, given.text)) and self._voice.following() is not None:
            raise ProviderError(tts.name, "protocol", "no audio", retryable=True)
        if given.phrase is not None and append(b"", (), given.phrase.start_ms):
            given.phrase.end_ms = bus.position_ms
            text, from_ms = given.untimed(tts.word_times)
            if text:
                bus.playout.ledger.add_estimate(text, given.phrase.start_ms + from_ms, given.phrase.end_ms)
        return True

    def _take_over(self, tts: Any, key: str, given: "_Given", written: Written, error: ProviderError) -> str | None:
        """What the next voice has to say; None where there is no next."""
        bus, phrase = self._bus, given.phrase
        count, until_ms = given.spoken(tts.word_times, bus.position_ms, self._pace(key))
        words = given.text.split()
        if not self._voice.failed(key, error, words_spoken=count, words_left=len(words) - count):
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

    def _pace(self, key: str) -> float:
        """Milliseconds a letter."""
        return self._ms_a_letter.get(key, MS_A_LETTER)

    def _note(self, key: str, tts: Any, given: "_Given") -> None:
        if not tts.word_times and given.phrase is not None and given.phrase.end_ms is not None:
            letters = sum(len(word) + 1 for word in given.text.split())
            self._ms_a_letter[key] = (given.phrase.end_ms - given.phrase.start_ms) / max(1, letters)


class _Given:
    """What a voice was asked to say, and what has come of it."""

    __slots__ = ("audio_bytes", "phrase", "text", "words")

    def __init__(self, text: str) -> None:
        self.text, self.audio_bytes = text, 0
        self.phrase: Phrase | None = None
        self.words: list[Word] = []

    def spoken(self, word_times: bool, position_ms: int, ms_a_letter: float) -> tuple[int, int]:
        """How many of its words were wholly spoken, and where the last of them ends."""
        if self.phrase is None:
            return 0, 0
        if word_times and self.words:
            return spoken_of(self.text, self.words), self.words[-1].end_ms
        return spoken_by_estimate(self.text, position_ms - self.phrase.start_ms, ms_a_letter)

    def untimed(self, word_times: bool) -> tuple[str, int]:
        """The words behind the last that the voice gave a time, and where that one ends (ms). Also a voice with word
        times may owe those of a phrase."""
        if not word_times or not self.words:
            return self.text, 0
        rest = self.text.split()[spoken_of(self.text, self.words) :]
        return " ".join(rest) if any(map(str.isalnum, "".join(rest))) else "", self.words[-1].end_ms


def _sound(chunks: Sequence[TtsAudio]) -> bytes:
    return b"".join(chunk.data for chunk in chunks)


def _audible(chunk: TtsAudio) -> bool:
    return bool(chunk.data)
