"""What a call will have cost by its end, from its own pace. Plain.

Legs are known exactly, with their rounding. All else goes on at the pace of the last minutes, and where the pace rises,
because a model is sent the whole conversation again each turn, it goes on rising. It never falls: a quiet minute is no
promise.
"""

from collections import deque
from dataclasses import dataclass, field
from decimal import Decimal

STEP_S = 15.0
WINDOW = 13  # samples: three minutes


@dataclass(slots=True)
class Pace:
    """Of what is spent but for legs. `note` once a second is cheap: most are dropped."""

    _samples: "deque[tuple[float, Decimal]]" = field(default_factory=lambda: deque(maxlen=WINDOW))

    def wants(self, now: float) -> bool:
        return not self._samples or now - self._samples[-1][0] >= STEP_S

    def note(self, now: float, spent: Decimal) -> None:
        if self.wants(now):
            self._samples.append((now, spent))

    def ahead(self, now: float, spent: Decimal, end: float) -> Decimal:
        """How much more until `end`."""
        left = max(0.0, end - now)
        samples = [*self._samples, (now, spent)]
        first = samples[0]
        if now - first[0] < 1.0 or not left:
            return Decimal(0)
        middle = samples[len(samples) // 2]
        rate = _rate(first, samples[-1])
        if not first[0] < middle[0] < now:
            return rate * _exact(left)
        before, lately = _rate(first, middle), _rate(middle, samples[-1])
        rising = max(Decimal(0), (lately - before) / _exact((now - first[0]) / 2))
        at_last = lately + rising * _exact((now - middle[0]) / 2)  # `lately` is of the middle of its half
        return max(rate, at_last) * _exact(left) + rising * _exact(left * left / 2)


def _rate(a: tuple[float, Decimal], b: tuple[float, Decimal]) -> Decimal:
    return (b[1] - a[1]) / _exact(b[0] - a[0])


def _exact(seconds: float) -> Decimal:
    return Decimal(round(seconds, 3)).quantize(Decimal("0.001"))
