"""Wake words: the port, where other detectors come from, and PocketSphinx's keyphrase spotting.

PocketSphinx compares the phrase with a loop of all sounds, frame by frame, and reports it where the ratio exceeds
`kws_threshold`. Three things make that work with its wheel's model: the cepstral mean starts where speech has it
(`ears.MEAN`) and not at clean read speech; the loop is told to be unlikely (`kws_plp`), without which the phrase hardly
ever wins; and the beam is wide, because the phrase begins in the middle of sounds. bench/wakeword.py measures the rest.
"""

import importlib
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Protocol

from trunkline.agents.local import ears
from trunkline.errors import ConfigError
from trunkline.types import PCM_16K

GROUP = "trunkline.wakewords"
DEFAULT_PHRASE = "hey trunkline"
DEFAULT_THRESHOLD = 1e-40
"""Of bench/wakeword.py's table."""
FRAME_SAMPLES = PCM_16K.rate_hz // 100  # the decoder's
FRESH_SAMPLES = 30 * PCM_16K.rate_hz
"""An utterance of the decoder's is ended after so much: its history is not to grow."""


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
    """PocketSphinx. English phrases of words that its dictionary has; 4 % of a core."""

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
        self._pushed = self._begun = 0
        self._decoder.start_utt()

    def push(self, pcm16: bytes) -> Hit | None:
        self._decoder.process_raw(pcm16, False, False)
        self._pushed += len(pcm16) // 2
        hit = None
        if self._decoder.hyp() is not None:
            last = max((segment for segment in self._decoder.seg()), key=lambda each: each.end_frame)
            ends_at = self._begun + (int(last.end_frame) + 1) * FRAME_SAMPLES
            hit = Hit(min(ends_at, self._pushed), round(min(1.0, max(0.0, float(last.prob))), 3))
        if hit is not None or self._pushed - self._begun >= FRESH_SAMPLES:
            self._decoder.end_utt()
            self._decoder.start_utt()
            self._begun = self._pushed
        return hit


def find_wake_word(name: str, phrase: str, threshold: float) -> WakeWord:
    """`name`: an entry point of `trunkline.wakewords`, or `package.module:factory`. Raises ConfigError, MissingExtra."""
    factory: Any = None
    module, colon, attribute = name.partition(":")
    if colon:
        try:
            factory = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ConfigError("detector", name, f"package.module:factory ({error})") from error
    else:
        known = {entry.name: entry for entry in entry_points(group=GROUP)}
        if name == "pocketsphinx":  # also where our metadata is older than our code
            factory = KeyphraseSpotter
        elif name in known:
            factory = known[name].load()
        else:
            names = ", ".join(sorted({"pocketsphinx", *known}))
            raise ConfigError("detector", name, f"one of {names}, or package.module:factory")
    made: WakeWord = factory(phrase, threshold)
    return made
