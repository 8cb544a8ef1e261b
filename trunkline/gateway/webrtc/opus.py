"""Opus by libopus itself, straight from and to the 8 kHz of a lane: it decodes and encodes at that rate, so there is no
48 kHz and no resampler between. A lost packet is concealed, from the next one's redundancy where that has any.

The library is the one that aiortc's PyAV brings in its wheel, else the system's. Calls keep the GIL: each takes a few
hundredths of a millisecond.
"""

import ctypes
import ctypes.util
import importlib.util
from functools import cache
from pathlib import Path

from trunkline.errors import MissingExtra

RATE_HZ = 8000
MAX_PACKET_MS = 120  # RFC 6716 2.1.4
BIT_RATE = 32_000
"""In CELT alone, whose noise is then 27 dB below the voice at this rate and band (bench/README.md)."""
SILENCE = b"\x98\xff\xfe"
"""20 ms of it: what the encoder makes of zeros (CELT, narrow band, mono)."""

_LOW_DELAY = 2051  # OPUS_APPLICATION_RESTRICTED_LOWDELAY: CELT without SILK, at half of its work
_SET_BITRATE, _SET_COMPLEXITY, _SET_SIGNAL, _VOICE = 4002, 4010, 4024, 3001
_BYTES = 2


@cache
def library() -> ctypes.PyDLL:
    """Raises MissingExtra."""
    for path in _places():
        try:
            found = ctypes.PyDLL(path)
        except OSError:
            continue
        pointer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
        for name, result, arguments in (
            ("opus_decoder_create", pointer, (ctypes.c_int32, number, ctypes.POINTER(number))),
            ("opus_decoder_destroy", None, (pointer,)),
            ("opus_decode", number, (pointer, text, ctypes.c_int32, pointer, number, number)),
            ("opus_encoder_create", pointer, (ctypes.c_int32, number, number, ctypes.POINTER(number))),
            ("opus_encoder_destroy", None, (pointer,)),
            ("opus_encode", ctypes.c_int32, (pointer, text, number, pointer, ctypes.c_int32)),
        ):
            function = getattr(found, name)
            function.restype, function.argtypes = result, arguments
        found.opus_encoder_ctl.restype = number  # variadic: the arguments say themselves what they are
        return found
    raise MissingExtra("libopus (of PyAV)", "webrtc")


def _places() -> list[str]:
    spec = importlib.util.find_spec("av")
    packages = [Path(spec.origin).parents[1]] if spec is not None and spec.origin else []
    bundled = [str(path) for folder in packages for path in sorted((folder / "av.libs").glob("libopus*"))]
    system = ctypes.util.find_library("opus")
    return [*bundled, *([system] if system else [])]


def duration_ms(packet: bytes) -> int:
    """Of the audio in a packet by its first bytes (RFC 6716 3.1), whole ms (2.5 counts as 2); 0: it is not Opus."""
    if not packet:
        return 0
    first = packet[0]
    count = (1, 2, 2, packet[1] & 0x3F if len(packet) > 1 else 0)[first & 3]
    tenths = _FRAME_TENTHS[first >> 3] * count
    return tenths // 10 if tenths <= MAX_PACKET_MS * 10 else 0


_FRAME_TENTHS = (*(100, 200, 400, 600) * 3, *(100, 200) * 2, *(25, 50, 100, 200) * 4)
"""Of ms, by the configuration number: SILK, hybrid, CELT (RFC 6716 table 2)."""


class Decoder:
    def __init__(self) -> None:
        self._opus = library()
        error = ctypes.c_int()
        self._state = ctypes.c_void_p(self._opus.opus_decoder_create(RATE_HZ, 1, ctypes.byref(error)))
        self._samples = MAX_PACKET_MS * RATE_HZ // 1000
        self._out = ctypes.create_string_buffer(self._samples * _BYTES)
        self._view = memoryview(self._out)

    def decode(self, packet: bytes) -> bytes:
        """PCM, 16 bits. Empty: it is not Opus."""
        count = self._opus.opus_decode(self._state, packet, len(packet), self._out, self._samples, 0)
        return bytes(self._view[: count * _BYTES]) if count > 0 else b""

    def conceal(self, lost_ms: int, following: bytes | None = None) -> bytes:
        """Audio in the place of a lost packet; `following`: the packet right after it, which may repeat it (FEC)."""
        wanted = lost_ms * RATE_HZ // 1000
        if following is None:
            count = self._opus.opus_decode(self._state, None, 0, self._out, wanted, 0)
        else:
            count = self._opus.opus_decode(self._state, following, len(following), self._out, wanted, 1)
        return bytes(self._view[: count * _BYTES]) if count > 0 else b""

    def close(self) -> None:
        """Idempotent; nothing is decoded after."""
        if self._state.value:
            self._opus.opus_decoder_destroy(self._state)
            self._state = ctypes.c_void_p()

    __del__ = close


class Encoder:
    def __init__(self, complexity: int = 0) -> None:
        self._opus = library()
        error = ctypes.c_int()
        self._state = ctypes.c_void_p(self._opus.opus_encoder_create(RATE_HZ, 1, _LOW_DELAY, ctypes.byref(error)))
        for what, value in ((_SET_COMPLEXITY, complexity), (_SET_BITRATE, BIT_RATE), (_SET_SIGNAL, _VOICE)):
            self._opus.opus_encoder_ctl(self._state, ctypes.c_int(what), ctypes.c_int(value))
        self._out = ctypes.create_string_buffer(400)
        self._view = memoryview(self._out)

    def encode(self, pcm: bytes) -> bytes:
        """20 ms of 16-bit PCM. Empty where libopus will not."""
        count = self._opus.opus_encode(self._state, pcm, len(pcm) // _BYTES, self._out, 400)
        return bytes(self._view[:count]) if count > 0 else b""

    def close(self) -> None:
        """Idempotent; nothing is encoded after."""
        if self._state.value:
            self._opus.opus_encoder_destroy(self._state)
            self._state = ctypes.c_void_p()

    __del__ = close
