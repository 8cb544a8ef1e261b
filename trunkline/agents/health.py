"""Which provider to ask: a circuit breaker for each, and the order of choice over them. Plain values and `now`.

    CLOSED ── N failures in a row, or one that no retry mends ──► OPEN ── its time is over ──► HALF_OPEN (one probe)
       ▲                                                            ▲                              │
       └──────────────────────── it answered ◄──────────────────────┼──────────────────────────────┤
                                                                    └── twice as long, capped ◄─── it failed

A caller is waiting whenever somebody asks: so an open breaker puts its provider last, and never refuses. With all of
them open, the one whose probe is due first is asked first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from trunkline.errors import ProviderError

State = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class BreakerTerms:
    failures: int = 3
    """In a row, until it opens."""
    probe_after_s: float = 5.0
    """From opening to the first probe; each that fails doubles it."""
    probe_max_s: float = 300.0
    probe_lost_s: float = 30.0
    """A probe of which nothing was heard for so long is nobody's: another may be sent."""


@dataclass(slots=True)
class Breaker:
    terms: BreakerTerms = BreakerTerms()
    state: State = "closed"
    in_a_row: int = 0
    successes: int = 0
    failures: int = 0
    opened: int = 0
    last_code: str = ""
    """Of the ProviderError that was last."""
    probe_at: float = 0.0
    """Monotonic seconds; while open: when it may be probed, while half-open: when the probe counts as lost."""
    _wait_s: float = 0.0

    def ready(self, now: float) -> bool:
        """Whether it is as good as another: closed, or due for a probe."""
        return self.state == "closed" or now >= self.probe_at

    def asked(self, now: float) -> None:
        """Somebody asks it now; of an open one, this is the probe."""
        if self.state != "closed" and now >= self.probe_at:
            self.state = "half_open"
            self.probe_at = now + self.terms.probe_lost_s

    def succeeded(self) -> None:
        self.successes += 1
        self.mended()

    def mended(self) -> None:
        """It is as good as any from now on; counts stay."""
        self.in_a_row, self.state, self._wait_s = 0, "closed", 0.0

    def failed(self, error: ProviderError, now: float) -> None:
        self.failures += 1
        self.in_a_row += 1
        self.last_code = error.code
        if self.state == "half_open" or self.in_a_row >= self.terms.failures or lasting(error):
            self._open(now)

    def _open(self, now: float) -> None:
        if self.state == "open" and now < self.probe_at:
            return  # asked for want of another: that is no probe
        self.opened += self.state == "closed"
        self._wait_s = min(max(self.terms.probe_after_s, self._wait_s * 2), self.terms.probe_max_s)
        self.state, self.probe_at = "open", now + self._wait_s


def lasting(error: ProviderError) -> bool:
    """A key that is refused, a quota that is used up: asking again does not help, only an admin does."""
    return not error.retryable and error.code in ("auth", "rate_limited")


@dataclass(slots=True)
class Health:
    """Of all providers of a process, by their keys (`llm.openai`)."""

    terms: BreakerTerms = BreakerTerms()
    breakers: dict[str, Breaker] = field(default_factory=dict)

    def of(self, key: str) -> Breaker:
        if key not in self.breakers:
            self.breakers[key] = Breaker(self.terms)
        return self.breakers[key]

    def order(self, keys: Sequence[str], now: float) -> list[str]:
        """The preferred first; those that are open behind all others, the one that may be well soonest before the
        rest."""
        ready = [key for key in keys if self.of(key).ready(now)]
        return ready + sorted((key for key in keys if key not in ready), key=lambda key: self.of(key).probe_at)

    def asked(self, key: str, now: float) -> None:
        self.of(key).asked(now)

    def succeeded(self, key: str) -> None:
        self.of(key).succeeded()

    def failed(self, key: str, error: ProviderError, now: float) -> None:
        self.of(key).failed(error, now)

    def report(self, now: float) -> list[Mapping[str, object]]:
        """For people and machines: one row a provider."""
        return [
            {
                "provider": key,
                "state": each.state,
                "successes": each.successes,
                "failures": each.failures,
                "opened": each.opened,
                "last_error": each.last_code or None,
                "probe_in_s": None if each.state == "closed" else round(max(0.0, each.probe_at - now), 1),
            }
            for key, each in sorted(self.breakers.items())
        ]
