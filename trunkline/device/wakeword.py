"""Wake words: the port, where other detectors come from, and PocketSphinx's keyphrase spotting.

PocketSphinx compares the phrase with a loop of all sounds, frame by frame, and reports it where the ratio exceeds
`kws_threshold`. Three things make that work with its wheel's model: the cepstral mean starts where speech has it
(`ears.MEAN`) and not at clean read speech; the loop is told to be unlikely (`kws_plp`), without which the phrase hardly
ever wins; and the beam is wide, because the phrase begins in the middle of sounds. Only loud
stretches are decoded, each from the same mean (`_begin`): a quiet room costs nothing. bench/wakeword.py measures.
"""

import importlib
from collections import deque
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Protocol

import numpy as np

from trunkline.agents.local import ears
from trunkline.errors import ConfigError
from trunkline.types import PCM_16K

GROUP = "trunkline.wakewords"
DEFAULT_PHRASE = "hey trunkline"
DEFAULT_THRESHOLD = 1e-15
"""Of those in bench/wakeword.py's table the one with the fewest false accepts."""
FRAME_SAMPLES = PCM_16K.rate_hz // 100  # the decoder's
PRE_ROLL = 15
"""Pushes kept while it is quiet: 0.3 s of 20 ms each. Words begin softer than they are."""
PAUSE_SAMPLES = PCM_16K.rate_hz * 6 // 10
"""Of quiet end a stretch of speech: longer than the decoder takes to tell."""
STRETCH_SAMPLES = 8 * PCM_16K.rate_hz
"""Of speech without a pause: its mean has strayed from any one speaker's."""
LOUD = 2.5  # times the quietest of late
FLOOR_RISES = 1.01  # a push: 10 dB in 2.3 s
MIN_FLOOR = 20.0  # of 32,767: digital silence has no level, and rooms are louder


@dataclass(frozen=True, slots=True)
class Hit:
    ends_at: int
    """Samples from the first that was pushed to where the wake word ends."""
    score: float | None = None
    """0 to 1, where the detector knows."""


class WakeWord(Protocol):
    """One microphone's detector."""

    phrase: str

    def push(self, pcm16: bytes) -> Hit | None:
        """The next audio, PCM16 at 16 kHz. At most one hit a call."""
        ...


class WakeWordFactory(Protocol):
    def __call__(self, phrase: str, threshold: float) -> WakeWord: ...


class KeyphraseSpotter:
    """PocketSphinx. English phrases of words that its dictionary has."""

    def __init__(self, phrase: str, threshold: float = DEFAULT_THRESHOLD) -> None:
        """Raises ConfigError, MissingExtra."""
        self.phrase = " ".join(phrase.lower().split())
        words = self.phrase.split()
        unknown = sorted(set(words) - ears.pronunciations(words).keys())
        if not words or unknown:
            raise ConfigError("wake-word", phrase, f"English words of the dictionary; unknown: {', '.join(unknown)}")
        if not 0 < threshold <= 1:
            raise ConfigError("threshold", threshold, "above 0, at most 1, such as 1e-40")
        self._decoder = ears.keyphrase_decoder(self.phrase, threshold)
        self._mean = ",".join(map(str, ears.MEAN))
        self._before: deque[bytes] = deque(maxlen=PRE_ROLL)
        self._floor = float("inf")
        self._pushed = self._begun = self._loud_at = self._step = 0
        self._listening = False

    def push(self, pcm16: bytes) -> Hit | None:
        self._step = len(pcm16) // 2
        self._pushed += self._step
        if self._is_loud(pcm16):
            self._loud_at = self._pushed
            if not self._listening:
                self._begin()
        if not self._listening:
            self._before.append(pcm16)
            return None
        self._decoder.process_raw(pcm16, False, False)
        if self._decoder.hyp() is not None:
            last = max(self._decoder.seg(), key=lambda each: each.end_frame)
            ends_at = min(self._begun + (int(last.end_frame) + 1) * FRAME_SAMPLES, self._pushed)
            self._end()
            return Hit(ends_at, round(min(1.0, max(0.0, float(last.prob))), 3))
        if self._pushed - self._loud_at >= PAUSE_SAMPLES:
            self._end()
        elif self._pushed - self._begun >= STRETCH_SAMPLES:
            self._end()
            self._begin()
        return None

    def _is_loud(self, pcm16: bytes) -> bool:
        samples = np.frombuffer(pcm16, np.int16).astype(np.float32)
        level = max(MIN_FLOOR, float(np.sqrt(np.mean(samples * samples))))
        self._floor = min(level, self._floor * FLOOR_RISES)
        return level > LOUD * self._floor

    def _begin(self) -> None:
        """A stretch of speech, with the mean it is expected to have: that of the voice before, or of the quiet, is
        worse than a guess."""
        self._decoder.set_cmn(self._mean)
        self._decoder.start_utt()
        self._begun = max(0, self._pushed - self._step - sum(len(each) for each in self._before) // 2)
        for each in self._before:
            self._decoder.process_raw(each, False, False)
        self._before.clear()
        self._listening = True

    def _end(self) -> None:
        self._decoder.end_utt()
        self._listening = False


def find_wake_word(name: str, phrase: str, threshold: float) -> WakeWord:
    """`name`: an entry point of `trunkline.wakewords`, or `package.module:factory`. Raises ConfigError,
    MissingExtra."""
    factory: Any = None
    module, colon, attribute = name.partition(":")
    if colon:
        try:
            factory = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ConfigError("detector", name, f"package.module:factory ({error})") from error
    else:
        known = {entry.name: entry for entry in entry_points(group=GROUP)}
        if name not in known:
            raise ConfigError("detector", name, f"one of {', '.join(sorted(known))}, or package.module:factory")
        factory = known[name].load()
    made: WakeWord = factory(phrase, threshold)
    return made
