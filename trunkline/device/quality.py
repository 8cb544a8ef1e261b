"""How good a wake word is: how often it is found where it is said, and how often where it is not."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from trunkline.agents.local.voice import VoiceOptions, engine
from trunkline.device.sound import read_wav
from trunkline.device.wakeword import DEFAULT_THRESHOLD, KeyphraseSpotter
from trunkline.types import PCM_16K

RATE_HZ = PCM_16K.rate_hz
STEP_BYTES = PCM_16K.frame_bytes
ROOM_RMS = 30.0  # of 32,767: no microphone is silent
VOICES = ("en-gb-x-rp", "en-gb-scotland", "en-us+f1", "en-us+f3", "en-us+m1", "en-us+m5")
SPEEDS_WPM, PITCHES = (150, 180), (45,)
"""The spotter was fitted on other voices (en-us, en-gb, en-us+f2, +f4, +m3, +m7), speeds and pitches than these."""
SNRS_DB = (None, 20.0, 10.0)
"""None: a quiet room."""
HEAD = """| threshold | hits, quiet | 20 dB | 10 dB | false accepts | per hour |
|---|---|---|---|---|---|"""
BEHIND = "what are your opening hours"


@dataclass(frozen=True, slots=True)
class Row:
    threshold: float
    hits: tuple[int, ...]
    """In each kind of noise."""
    said: int
    """So often, in each."""
    false_accepts: int
    hours: float

    @property
    def false_accepts_per_hour(self) -> float:
        return self.false_accepts / self.hours if self.hours else float("nan")


def spoken(phrase: str, voice: str, words_per_minute: int, pitch: int, *, snr_db: float | None = None) -> bytes:
    """A second of the room, the phrase and a question behind it, by espeak-ng, in white noise. PCM16 at 16 kHz."""
    espeak = engine()
    sound = espeak.speak(f"{phrase}, {BEHIND}", VoiceOptions(voice, words_per_minute, pitch))
    speech = soxr.resample(sound.samples.astype(np.float32), espeak.rate_hz, RATE_HZ)
    rng = np.random.default_rng((words_per_minute, pitch, len(voice)))
    level = ROOM_RMS if snr_db is None else float(np.sqrt(np.mean(speech**2))) / 10 ** (snr_db / 20)
    whole = np.concatenate([np.zeros(RATE_HZ), speech, np.zeros(RATE_HZ // 2)])
    return (whole + rng.normal(0, level, len(whole))).clip(-32768, 32767).astype(np.int16).tobytes()


def count(spotter: KeyphraseSpotter, pcm16: bytes) -> int:
    """How often it is found in it."""
    steps = range(0, len(pcm16), STEP_BYTES)
    return sum(spotter.push(pcm16[start : start + STEP_BYTES]) is not None for start in steps)


def hits(phrase: str, threshold: float, said: Iterable[bytes]) -> int:
    """In how many of them it is found. Each is a new microphone: nothing is learnt from the one before."""
    return sum(count(KeyphraseSpotter(phrase, threshold), pcm16) > 0 for pcm16 in said)


def false_accepts(phrase: str, threshold: float, files: Iterable[Path]) -> tuple[int, float]:
    """In speech without the phrase, one file after the other into one microphone: how many, in how many hours."""
    spotter, accepted, samples = KeyphraseSpotter(phrase, threshold), 0, 0
    for path in files:
        pcm16 = read_wav(path)
        accepted += count(spotter, pcm16)
        samples += len(pcm16) // 2
    return accepted, samples / RATE_HZ / 3600


def measured(phrase: str, threshold: float, files: Iterable[Path]) -> Row:
    ways = list(itertools.product(VOICES, SPEEDS_WPM, PITCHES))
    found = [hits(phrase, threshold, (spoken(phrase, *way, snr_db=snr_db) for way in ways)) for snr_db in SNRS_DB]
    return Row(threshold, tuple(found), len(ways), *false_accepts(phrase, threshold, files))


def render(rows: Sequence[Row]) -> str:
    """Of a Markdown table, below HEAD."""
    lines = []
    for row in rows:
        found = " | ".join(f"{hit}/{row.said}" for hit in row.hits)
        lines.append(f"| {row.threshold:.0e} | {found} | {row.false_accepts} | {row.false_accepts_per_hour:.1f} |")
    return "\n".join(lines)


__all__ = ["DEFAULT_THRESHOLD", "HEAD", "Row", "false_accepts", "hits", "measured", "render", "spoken"]
