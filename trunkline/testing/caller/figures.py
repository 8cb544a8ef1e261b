"""Spreads of measured values, and what a bench of SIP calls shows beside the common figures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Spread:
    n: int
    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        if not len(values):
            return cls(0, None, None, None, None)
        p50, p95, p99 = (float(v) for v in np.percentile(np.asarray(values, dtype=np.float64), (50, 95, 99)))
        return cls(len(values), p50, p95, p99, float(max(values)))


def no_spread() -> Spread:
    return Spread.of(())


@dataclass(slots=True)
class SipFigures:
    transport: str = ""
    setup_ms: Spread = field(default_factory=no_spread)
    """INVITE sent -> 200 received."""
    failed_setups: dict[str, int] = field(default_factory=dict)
    """By final status, or by what happened instead."""
    codecs: dict[str, int] = field(default_factory=dict)
    resent: int = 0
    """SIP messages sent again for want of an answer."""
    rtp: dict[str, Any] = field(default_factory=dict)
    """Of the window. Intervals between neighbouring packets, by kernel timestamps: our own lateness is not in them."""
    unsent: int = 0
    """Packets of ours that the kernel did not take."""
