"""How good a call sounded: from packet counts to jitter, loss and an estimated MOS.

The MOS is the narrowband E-model's (ITU-T G.107) with its default values, so that what remains of it is

    R = 93.2 - Idd(delay) - Ie_eff(codec, loss)

where loss counts packets that came too late to be played, and is taken as random (BurstR = 1). What no counter knows
(the microphone, the room, loudness, echo) counts as perfect: 4.4 is the best there is, below 3.6 many are dissatisfied,
below 3.1 nearly all. It is an estimate to compare calls by, no measurement of one.
"""

from dataclasses import dataclass
from math import isfinite, log2
from typing import Any


@dataclass(frozen=True, slots=True)
class MediaReport:
    """One stream's packets. `in_`: what came to us; `out_`: what RTCP said of ours; None: it never did."""

    codec: str
    srtp: bool = False
    in_packets: int = 0
    in_lost: int = 0
    in_discarded: int = 0
    """Came too late for the jitter buffer."""
    in_jitter_ms: float = 0.0
    out_packets: int = 0
    out_lost: int | None = None
    out_jitter_ms: float | None = None
    rtt_ms: float | None = None
    buffer_ms: float = 0.0
    """The jitter buffer's mean delay."""


# --- the E-model ----------------------------------------------------------------------------------------------------

R_BEST = 93.2
PTIME_MS = 20.0  # a packet is sent when its last sample is there
MOS_LOWEST, MOS_HIGHEST = 1.0, 4.5


@dataclass(frozen=True, slots=True)
class Robustness:
    """A codec in the E-model: its impairment without loss, how well it bears loss, and what delay it adds."""

    ie: float
    bpl: float
    lookahead_ms: float = 0.0


_G711 = Robustness(ie=0.0, bpl=25.1)  # G.113 appendix I, with concealment (which PJSIP does)
_CODECS = {
    "pcmu": _G711,
    "pcma": _G711,
    # G.113 has neither of these on the narrowband scale, on which we hear them (the bridge runs at 8 kHz): taken as
    # G.711's, so that no call is said to be better than it may be for its codec's name.
    "g722": Robustness(ie=0.0, bpl=25.1, lookahead_ms=1.5),
    "opus": Robustness(ie=0.0, bpl=25.1, lookahead_ms=6.5),
}


def loss_in(report: MediaReport) -> float | None:
    """Of what the far end sent, the part that was not heard: 0 to 1. None: nothing came at all."""
    return _share(report.in_lost + max(0, report.in_discarded), report.in_packets + max(0, report.in_lost))


def loss_out(report: MediaReport) -> float | None:
    """Of what we sent, as RTCP told; what came there too late it does not tell."""
    return None if report.out_lost is None else _share(report.out_lost, report.out_packets)


def _share(lost: int, expected: int) -> float | None:
    # RFC 3550 6.4.1: duplicates make the cumulative number negative
    return min(1.0, max(0, lost) / expected) if expected > 0 else None


def mos(report: MediaReport) -> float | None:
    """As we heard the far end, 1.0 to 4.5. None: nothing came. Delay that RTCP did not tell counts as none."""
    loss = loss_in(report)
    return None if loss is None else _mos(report, loss, _positive(report.buffer_ms))


def mos_out(report: MediaReport) -> float | None:
    """As the far end heard us. None: RTCP never told. Its jitter buffer is taken to hold twice the jitter."""
    loss = loss_out(report)
    return None if loss is None else _mos(report, loss, 2 * _positive(report.out_jitter_ms))


def _mos(report: MediaReport, loss: float, buffer_ms: float) -> float:
    codec = _CODECS.get(report.codec.partition("/")[0].lower(), _G711)
    delay_ms = _positive(report.rtt_ms) / 2 + PTIME_MS + codec.lookahead_ms + buffer_ms
    return mos_of(R_BEST - delay_impairment(delay_ms) - loss_impairment(codec, 100 * loss))


def delay_impairment(delay_ms: float) -> float:
    """Idd, G.107 7.4: nothing up to 100 ms mouth to ear. Echo is taken to be cancelled."""
    if delay_ms <= 100:
        return 0.0
    x = log2(delay_ms / 100)
    return 25 * (_sixth_root(1 + x**6) - 3 * _sixth_root(1 + (x / 3) ** 6) + 2)


def _sixth_root(value: float) -> float:
    return float(value ** (1 / 6))


def loss_impairment(codec: Robustness, loss_percent: float) -> float:
    """Ie_eff, G.107 7.5, for random loss."""
    return codec.ie + (95 - codec.ie) * loss_percent / (loss_percent + codec.bpl)


def mos_of(r: float) -> float:
    """G.107 annex B. Below R = 6.5 its curve dips under 1, which nobody can vote."""
    if r <= 0:
        return MOS_LOWEST
    if r >= 100:
        return MOS_HIGHEST
    return min(MOS_HIGHEST, max(MOS_LOWEST, 1 + 0.035 * r + r * (r - 60) * (100 - r) * 7e-6))


def _positive(value: float | None) -> float:
    return value if value is not None and isfinite(value) and value > 0 else 0.0


def as_record(report: MediaReport) -> dict[str, Any]:
    """The data of the call's `media` event, JSON; what is not known is None."""
    return {
        "codec": report.codec,
        "srtp": report.srtp,
        "in_packets": report.in_packets,
        "in_lost": report.in_lost,
        "in_discarded": report.in_discarded,
        "in_loss_percent": _percent(loss_in(report)),
        "in_jitter_ms": _rounded(report.in_jitter_ms, 1),
        "out_packets": report.out_packets,
        "out_lost": report.out_lost,
        "out_loss_percent": _percent(loss_out(report)),
        "out_jitter_ms": _rounded(report.out_jitter_ms, 1),
        "rtt_ms": _rounded(report.rtt_ms, 1),
        "buffer_ms": _rounded(report.buffer_ms, 1),
        "mos": _rounded(mos(report), 2),
        "mos_out": _rounded(mos_out(report), 2),
    }


def _percent(share: float | None) -> float | None:
    return None if share is None else _rounded(100 * share, 2)


def _rounded(value: float | None, digits: int) -> float | None:
    return round(value, digits) if value is not None and isfinite(value) else None
