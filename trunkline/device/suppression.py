"""Noise suppression for speakerphones: RNNoise, of the `pyrnnoise` wheel.

Only its shared library is used: importing the package would bring a decoder of audio files and a plotting library.
RNNoise works on 10 ms at 48 kHz; the microphone's 16 kHz are brought there and back by filters of a millisecond's
delay. With RNNoise's own look-ahead and frames the voice comes 32 ms later.
"""

import ctypes
import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trunkline.errors import MissingExtra

RATE_HZ = 48_000
FRAME_SAMPLES = 480
_FACTOR = 3  # from 16 kHz
_TAPS = 95
_AT = np.arange(_TAPS) - _TAPS // 2
_THIRD_BAND: NDArray[np.float32] = (np.sinc(_AT / _FACTOR) / _FACTOR * np.hamming(_TAPS)).astype(np.float32)
_FLOATS = ctypes.POINTER(ctypes.c_float)


class NoiseSuppression:
    """One microphone's, PCM16 at 16 kHz: as much comes out as goes in, a little later."""

    def __init__(self) -> None:
        """Raises MissingExtra."""
        self._library = _library()
        self._state = self._library.rnnoise_create(None)
        self._up = np.zeros(_TAPS - 1, np.float32)
        self._down = np.zeros(_TAPS - 1, np.float32)
        self._waiting = np.zeros(0, np.float32)
        self._ready = np.zeros(FRAME_SAMPLES, np.float32)  # what a frame needs to be whole, whatever the chunks

    def feed(self, pcm16: bytes) -> bytes:
        given = np.frombuffer(pcm16, np.int16).astype(np.float32)
        spread = np.zeros(_FACTOR * len(given), np.float32)
        spread[::_FACTOR] = _FACTOR * given
        samples = np.concatenate([self._up, spread])
        self._up = samples[len(samples) - _TAPS + 1 :]
        waiting = np.concatenate([self._waiting, np.convolve(samples, _THIRD_BAND, "valid")])
        whole = len(waiting) // FRAME_SAMPLES * FRAME_SAMPLES
        self._waiting = waiting[whole:]
        frames = np.ascontiguousarray(waiting[:whole], np.float32)
        for start in range(0, whole, FRAME_SAMPLES):
            frame = frames[start : start + FRAME_SAMPLES].ctypes.data_as(_FLOATS)
            self._library.rnnoise_process_frame(self._state, frame, frame)
        ready = np.concatenate([self._ready, frames])
        wanted = _FACTOR * len(given)
        out, self._ready = ready[:wanted], ready[wanted:]
        samples = np.concatenate([self._down, out])
        self._down = samples[len(samples) - _TAPS + 1 :]
        kept = np.convolve(samples, _THIRD_BAND, "valid")[::_FACTOR]
        return np.rint(kept).clip(-32768, 32767).astype(np.int16).tobytes()

    def close(self) -> None:
        """Idempotent."""
        if self._state is not None:
            self._library.rnnoise_destroy(self._state)
            self._state = None


def _library() -> ctypes.CDLL:
    found = importlib.util.find_spec("pyrnnoise")
    folders = found.submodule_search_locations if found is not None else None
    path = Path(folders[0]) / "librnnoise.so" if folders else None
    if path is None or not path.exists():
        raise MissingExtra("pyrnnoise", "device")
    library = ctypes.CDLL(str(path))
    library.rnnoise_create.argtypes, library.rnnoise_create.restype = [ctypes.c_void_p], ctypes.c_void_p
    library.rnnoise_destroy.argtypes, library.rnnoise_destroy.restype = [ctypes.c_void_p], None
    library.rnnoise_process_frame.argtypes = [ctypes.c_void_p, _FLOATS, _FLOATS]
    library.rnnoise_process_frame.restype = ctypes.c_float
    return library
