"""What a timer sounds like: three times two notes, 16 kHz."""

from functools import cache

import numpy as np

from trunkline.types import PCM_16K

NOTES_HZ = (1046.5, 1318.5)  # C6, E6
NOTE_S, PAUSE_S = 0.15, 0.4
PEAK = 8000.0


@cache
def chime() -> bytes:
    at = np.arange(round(NOTE_S * PCM_16K.rate_hz)) / PCM_16K.rate_hz
    notes = [PEAK * np.sin(2 * np.pi * hz * at) * np.exp(-at / 0.08) for hz in NOTES_HZ]
    once = np.concatenate([*notes, np.zeros(round(PAUSE_S * PCM_16K.rate_hz))])
    return np.tile(once, 3).astype(np.int16).tobytes()
