"""G.711, both laws.

Streams and single frames go through `audioop` (the quickest for 160 samples); batches of windows go through the tables
below with `.take`. The samples of G.711 are 14 bits (mu-law) and 13 bits (A-law); 16-bit PCM is brought there by an
arithmetic shift. G.711 does not say where a sample lying exactly on a decision value belongs: here outward, but for
negative A-law samples inward. (ITU's G.191 program goes inward for negative mu-law too; decoding is alike everywhere.)
"""

import warnings
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trunkline.types import Format

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # 3.11 and 3.12; on 3.13 this is audioop-lts
    import audioop

Law = Literal["mulaw", "alaw"]

_ENCODE: dict[str, Any] = {"mulaw": audioop.lin2ulaw, "alaw": audioop.lin2alaw}
_DECODE: dict[str, Any] = {"mulaw": audioop.ulaw2lin, "alaw": audioop.alaw2lin}


def encode(pcm16: bytes, law: Law) -> bytes:
    """Native-endian 16-bit PCM to one byte a sample. Raises audioop.error on half a sample."""
    encoded: bytes = _ENCODE[law](pcm16, 2)
    return encoded


def decode(data: bytes, law: Law) -> bytes:
    """One byte a sample to 16-bit PCM, full scale 32,124 (mu-law) or 32,256 (A-law)."""
    decoded: bytes = _DECODE[law](data, 2)
    return decoded


def transcode(data: bytes, from_format: Format, to_format: Format) -> bytes:
    """Change the encoding, not the rate (that is `resample.Resampler`). Raises ValueError when the rates differ."""
    if from_format.rate_hz != to_format.rate_hz:
        raise ValueError(f"transcode keeps the rate: {from_format} to {to_format} needs a Resampler")
    source, target = from_format.encoding, to_format.encoding
    if source == target:
        return data
    if source == "pcm16":
        assert target != "pcm16"
        return encode(data, target)
    if target == "pcm16":
        return decode(data, source)
    return data.translate(_LAW_TO_LAW[source])


def _table(law: Law) -> NDArray[np.int16]:
    return np.frombuffer(decode(bytes(range(256)), law), dtype=np.int16)


MULAW_I16 = _table("mulaw")
ALAW_I16 = _table("alaw")
MULAW_F32: NDArray[np.float32] = (MULAW_I16 / 32768.0).astype(np.float32)
"""Code to sample in [-1, 1). `MULAW_F32.take(codes, out=...)` is the quickest way for a batch of windows."""
ALAW_F32: NDArray[np.float32] = (ALAW_I16 / 32768.0).astype(np.float32)

for _shared in (MULAW_I16, ALAW_I16, MULAW_F32, ALAW_F32):
    _shared.setflags(write=False)

_LAW_TO_LAW: dict[str, bytes] = {
    "mulaw": encode(MULAW_I16.tobytes(), "alaw"),
    "alaw": encode(ALAW_I16.tobytes(), "mulaw"),
}
