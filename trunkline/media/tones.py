"""What a telephone network sounds like: call progress tones by country, as data.

Cadences and frequencies are of the ITU's list of national tones (E.180 Supplement 2), the United Kingdom's of BT SIN
350; the level is of E.180 section 2: -10 dBm0, within +-5, here for the whole tone. What a country does not define is
E.180's own advice.
"""

from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trunkline.media import g711
from trunkline.media.sources import Loop
from trunkline.types import FRAME_MS, MULAW_8K

ToneName = Literal["dial", "ringback", "busy", "congestion", "call_waiting", "special_information"]

Hz = tuple[int, ...]
Segment = tuple[Hz, int]
"""Frequencies sounding together (none: silence) and for how many ms; 0 ms is for ever."""
Cadence = tuple[Segment, ...]
"""Repeated until somebody stops it."""

LEVEL_DBM0 = -10.0
RAMP_MS = 4  # a burst cut off square clicks; E.180's cadences allow for far more
_DBM0_PEAK = 32124 / 10 ** (3.17 / 20)  # amplitude of a 0 dBm0 sine: G.711 full scale is +3.17 dBm0


def _beeps(hz: Hz, *on_off_ms: int) -> Cadence:
    """On, off, on, off..."""
    return tuple((() if i % 2 else hz, ms) for i, ms in enumerate(on_off_ms))


def _always(*hz: int) -> Cadence:
    return ((hz, 0),)


def _rising(*hz: int) -> Cadence:
    """E.180 8: three tones of 330 ms one after the other, then a second of silence."""
    return (*(((f,), 330) for f in hz), ((), 1000))


@dataclass(frozen=True, slots=True)
class TonePlan:
    dial: Cadence
    ringback: Cadence
    busy: Cadence
    congestion: Cadence
    """In North America: reorder."""
    call_waiting: Cadence
    special_information: Cadence


_ADVISED = TonePlan(
    dial=_always(425),
    ringback=_beeps((425,), 1000, 4000),
    busy=_beeps((425,), 500, 500),
    congestion=_beeps((425,), 250, 250),
    call_waiting=_beeps((425,), 200, 600, 200, 3000),
    special_information=_rising(950, 1400, 1800),
)
"""E.180's, of which most of Europe's differ in a tone or two."""

_NORTH_AMERICA = replace(
    _ADVISED,
    dial=_always(350, 440),
    ringback=_beeps((440, 480), 2000, 4000),
    busy=_beeps((480, 620), 500, 500),
    congestion=_beeps((480, 620), 250, 250),
    call_waiting=_beeps((440,), 300, 10_000),
)

PLANS: dict[str, TonePlan] = {
    "US": _NORTH_AMERICA,
    "CA": _NORTH_AMERICA,
    "GB": replace(
        _ADVISED,
        dial=_always(350, 440),
        ringback=_beeps((400, 450), 400, 200, 400, 2000),
        busy=_beeps((400,), 375, 375),
        congestion=_beeps((400,), 400, 350, 225, 525),
        call_waiting=_beeps((400,), 100, 4000),
    ),
    "DE": replace(
        _ADVISED,
        busy=_beeps((425,), 480, 480),
        congestion=_beeps((425,), 240, 240),
        call_waiting=_beeps((425,), 200, 200, 200, 5000),
    ),
    "FR": replace(
        _ADVISED,
        dial=_always(440),
        ringback=_beeps((440,), 1500, 3500),
        busy=_beeps((440,), 500, 500),
        congestion=_beeps((440,), 250, 250),
        call_waiting=_beeps((440,), 300, 10_000),
    ),
    "AT": replace(
        _ADVISED,
        dial=_always(420),
        ringback=_beeps((420,), 1000, 5000),
        busy=_beeps((420,), 400, 400),
        congestion=_beeps((420,), 200, 200),
        call_waiting=_beeps((420,), 40, 1960),
        special_information=_rising(950, 1450, 1850),
    ),
    "CH": replace(
        _ADVISED,
        congestion=_beeps((425,), 200, 200),
        call_waiting=_beeps((425,), 200, 200, 200, 4000),
    ),
    "ES": replace(
        _ADVISED,
        ringback=_beeps((425,), 1500, 3000),
        busy=_beeps((425,), 200, 200),
        congestion=_beeps((425,), 200, 200, 200, 200, 200, 600),
        call_waiting=_beeps((425,), 175, 175, 175, 3500),
    ),
    "IT": replace(
        _ADVISED,
        dial=_beeps((425,), 200, 200, 600, 1000),
        congestion=_beeps((425,), 200, 200),
        call_waiting=_beeps((425,), 400, 100, 250, 100, 150, 14_000),
    ),
    "NL": replace(_ADVISED, call_waiting=_beeps((425,), 500, 9500)),
}


def plan(country: str | None) -> TonePlan:
    """By ISO 3166 code (`UK` too); E.180's own plan for a country that is not in the table."""
    code = (country or "").upper()
    return PLANS.get("GB" if code == "UK" else code, _ADVISED)


def tone(name: ToneName, country: str | None = None) -> Loop:
    """As a loop of whole frames, made once per process and cadence."""
    cadence: Cadence = getattr(plan(country), name)
    return _loop(cadence)


@cache
def _loop(cadence: Cadence) -> Loop:
    period_ms = sum(ms for _, ms in cadence)
    if period_ms == 0:
        # Every whole number of hertz fits a second: the loop has no seam.
        return Loop(_encode(_sines(cadence[0][0], 1000)))
    pcm = np.concatenate([_ramped(_sines(hz, ms)) for hz, ms in cadence])
    times = next(n for n in range(1, FRAME_MS + 1) if n * period_ms % FRAME_MS == 0)
    return Loop(_encode(np.tile(pcm, times)))


def _sines(hz: Hz, ms: int) -> NDArray[np.float64]:
    t = np.arange(ms * MULAW_8K.rate_hz // 1000) / MULAW_8K.rate_hz
    if not hz:
        return np.zeros(len(t))
    peak = _DBM0_PEAK * 10 ** (LEVEL_DBM0 / 20) / np.sqrt(len(hz))
    return np.asarray(peak * sum(np.sin(2 * np.pi * f * t) for f in hz), dtype=np.float64)


def _ramped(burst: NDArray[np.float64]) -> NDArray[np.float64]:
    n = np.arange(len(burst))
    ramp = np.minimum(1.0, np.minimum(n, n[::-1]) / (MULAW_8K.rate_hz * RAMP_MS / 1000))
    return np.asarray(burst * ramp, dtype=np.float64)


def _encode(pcm: NDArray[np.float64]) -> bytes:
    return g711.encode(np.round(pcm).astype(np.int16).tobytes(), "mulaw")
