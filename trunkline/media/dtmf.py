"""Keypad tones in the speech band (ITU-T Q.23), for keys sent where the leg has no message for them."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from trunkline.media import g711
from trunkline.types import PCM_8K, Format

KEYPAD = (
    #    1209 1336 1477 1633 Hz
    (697, "123A"),
    (770, "456B"),
    (852, "789C"),
    (941, "*0#D"),
)
HIGH_HZ = (1209, 1336, 1477, 1633)
FREQUENCIES: dict[str, tuple[int, int]] = {
    key: (low, high) for low, row in KEYPAD for key, high in zip(row, HIGH_HZ, strict=True)
}
KEYS = "0123456789*#ABCD"

TONE_MS = 100  # Q.24 receivers accept from 40 ms; networks that squeeze tones make 100 the usual choice
GAP_MS = 80
LOW_DBM0, HIGH_DBM0 = (
    -9.0,
    -7.0,
)  # ETSI ES 201 235-2: the high group 2 dB above the low one, for cables favour low tones
RAMP_MS = 2  # a tone cut off square clicks over the whole band

_DBM0_PEAK = 32124 / 10 ** (3.17 / 20)  # amplitude of a 0 dBm0 sine: G.711 full scale is +3.17 dBm0


@cache
def tone(key: str, format: Format = PCM_8K) -> bytes:
    """One key: 100 ms of tone, 80 ms of silence (nine frames). Raises ValueError for what is no key."""
    if key not in FREQUENCIES:
        raise ValueError(f"{key!r} is no key: {KEYS}")
    pcm = np.concatenate((_burst(*FREQUENCIES[key], format.rate_hz), np.zeros(format.rate_hz * GAP_MS // 1000)))
    samples = np.round(pcm).astype(np.int16).tobytes()
    return samples if format.encoding == "pcm16" else g711.encode(samples, format.encoding)


def tones(keys: str, format: Format = PCM_8K) -> bytes:
    """Several keys in a row. `w` and `W` wait half a second and a second, as in Twilio's sendDigits."""
    pauses = {"w": 500, "W": 1000}
    return b"".join(
        format.silence * (format.rate_hz * pauses[key] // 1000) if key in pauses else tone(key.upper(), format)
        for key in keys
    )


def _burst(low_hz: int, high_hz: int, rate_hz: int) -> NDArray[np.float64]:
    n = rate_hz * TONE_MS // 1000
    t = np.arange(n) / rate_hz
    low = 10 ** (LOW_DBM0 / 20) * np.sin(2 * np.pi * low_hz * t)
    high = 10 ** (HIGH_DBM0 / 20) * np.sin(2 * np.pi * high_hz * t)
    ramp = np.minimum(1.0, np.minimum(np.arange(n), np.arange(n)[::-1]) / (rate_hz * RAMP_MS / 1000))
    burst: NDArray[np.float64] = _DBM0_PEAK * (low + high) * ramp
    return burst
