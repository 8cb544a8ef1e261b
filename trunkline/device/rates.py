"""Between 8 and 16 kHz with a millisecond's delay: a half-band filter of 31 taps, where soxr's blocks would hold a tenth
of a second of a live voice."""

import numpy as np
from numpy.typing import NDArray

_TAPS = 31
_AT = np.arange(_TAPS) - _TAPS // 2
_HALF_BAND: NDArray[np.float32] = (np.sinc(_AT / 2) / 2 * np.hamming(_TAPS)).astype(np.float32)
_HALF_BAND /= _HALF_BAND.sum()


class Halver:
    """PCM16 at 16 kHz -> 8 kHz, an even number of samples at a time."""

    def __init__(self) -> None:
        self._held = np.zeros(_TAPS - 1, np.float32)

    def feed(self, pcm16: bytes) -> bytes:
        samples = np.concatenate([self._held, np.frombuffer(pcm16, np.int16).astype(np.float32)])
        self._held = samples[len(samples) - _TAPS + 1 :]
        return _rounded(np.convolve(samples, _HALF_BAND, "valid")[::2])


class Doubler:
    """PCM16 at 8 kHz -> 16 kHz."""

    def __init__(self) -> None:
        self._held = np.zeros(_TAPS - 1, np.float32)

    def feed(self, pcm16: bytes) -> bytes:
        given = np.frombuffer(pcm16, np.int16).astype(np.float32)
        spread = np.zeros(2 * len(given), np.float32)
        spread[::2] = 2 * given
        samples = np.concatenate([self._held, spread])
        self._held = samples[len(samples) - _TAPS + 1 :]
        return _rounded(np.convolve(samples, _HALF_BAND, "valid"))


def _rounded(samples: NDArray[np.float32]) -> bytes:
    return np.rint(samples).clip(-32768, 32767).astype(np.int16).tobytes()
