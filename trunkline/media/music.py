"""The music a caller on hold hears where the admin gives none: made by arithmetic, so it is ours and needs no file.

Four bars of soft chords with a plucked line over them, written in notes (semitones from middle C) below. What rings on
past the end goes on at the beginning, so the loop has no seam.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from trunkline.media import g711
from trunkline.media.sources import Loop
from trunkline.types import MULAW_8K

RATE_HZ = MULAW_8K.rate_hz
BEAT_S = 0.75  # 80 a minute
BEATS_A_BAR = 4
MIDDLE_C_HZ = 261.63
LEVEL_DBFS = -22.0  # rms: about as loud as the agent, below the level at which a telephone's speaker rattles

CHORDS = ((0, 4, 7, 11), (-3, 0, 4, 7), (-7, -3, 0, 4), (-5, -1, 2, 5))  # C maj7, A m7, F maj7, G 7
LINE = (
    (7, 11, 12, 11, 7, 4, 7, 11),
    (4, 7, 9, 12, 9, 7, 4, 0),
    (5, 9, 12, 9, 5, 4, 0, 4),
    (2, 5, 7, 11, 14, 11, 7, 5),
)
"""Eighths, a bar a row."""


@cache
def hold_music() -> Loop:
    """Twelve seconds. The first call takes two or three beats of time: make it at start."""
    length = round(len(CHORDS) * BEATS_A_BAR * BEAT_S * RATE_HZ)
    track = np.zeros(length)
    for bar, (chord, line) in enumerate(zip(CHORDS, LINE, strict=True)):
        at = bar * BEATS_A_BAR * BEAT_S
        for note in chord:
            _add(track, at, _pad(note))
        _add(track, at, _pad(chord[0]))  # a root twice as strong in place of a bass: a telephone has none
        for eighth, note in enumerate(line):
            _add(track, at + eighth * BEAT_S / 2, _pluck(note))
    track *= 10 ** (LEVEL_DBFS / 20) * 32767 / np.sqrt(np.mean(track**2))
    return Loop(g711.encode(np.round(track).clip(-32000, 32000).astype(np.int16).tobytes(), "mulaw"))


def _add(track: NDArray[np.float64], at_s: float, sound: NDArray[np.float64]) -> None:
    places = (round(at_s * RATE_HZ) + np.arange(len(sound))) % len(track)
    track[places] += sound  # a sound is shorter than the track: no place comes twice


def _hz(note: int) -> float:
    return float(MIDDLE_C_HZ * 2 ** (note / 12))


def _pad(note: int) -> NDArray[np.float64]:
    """A bar long and half a beat of swelling on either side."""
    swell_s = BEAT_S / 2
    t = np.arange(round((BEATS_A_BAR * BEAT_S + swell_s) * RATE_HZ)) / RATE_HZ
    envelope = np.minimum(1.0, np.minimum(t, t[::-1]) / swell_s) ** 2
    w = 2 * np.pi * _hz(note) * t
    return np.asarray(0.16 * envelope * (np.sin(w) + 0.35 * np.sin(2 * w) + 0.1 * np.sin(3 * w)), dtype=np.float64)


def _pluck(note: int) -> NDArray[np.float64]:
    t = np.arange(round(1.4 * RATE_HZ)) / RATE_HZ
    envelope = np.minimum(1.0, t / 0.006) * np.exp(-t / 0.32) * np.minimum(1.0, (1.4 - t) / 0.05)
    w = 2 * np.pi * _hz(note) * t
    return np.asarray(0.5 * envelope * (np.sin(w) + 0.3 * np.sin(2 * w)), dtype=np.float64)
