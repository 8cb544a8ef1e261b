"""Whether a trunk's far end is there: OPTIONS at intervals, and what their answers say. Plain over `now`.

    unknown ──answer──► up ──two misses──► down ──answer──► up
        └──────────────two misses──────────►┘

Any answer proves that somebody is there, 404 and 405 as well: many answer OPTIONS with either. A miss is no answer, or
what says the same: 408 (which the stack itself gives when time is out), 502 (its own when the name has no address), 503
(its own when there is no connection; a far end that says it has nothing to offer calls either), 504. Between a first
miss and the next ping less time passes, so that a dead trunk is known soon and one lost datagram changes nothing.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

State = Literal["unknown", "up", "down"]

MISSES = 2
FIRST_WITHIN_S = 5.0  # the first pings after a start, spread
SPREAD = 0.1  # of the interval, to both sides: many trunks, and many gateways of one carrier, drift apart
AGAIN_S = 5.0  # after the first miss

_MISSED = frozenset({0, 408, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Changed:
    trunk: str
    state: State
    before: State
    code: int
    """The answer that decided it; 0: none."""
    after_s: float
    """How long it was in the state before."""


class TrunkHealth:
    """Call `next_ping` after the start and after every answer; `answered` with each Pinged."""

    def __init__(self, trunk: str, ping_s: float, now: float, rand: Callable[[], float] = random.random) -> None:
        self.trunk, self.ping_s = trunk, ping_s
        self.state: State = "unknown"
        self.last_code: int | None = None
        self.misses = 0
        """In a row."""
        self._rand = rand
        self._since = now

    @property
    def pinged(self) -> bool:
        return self.ping_s > 0

    @property
    def usable(self) -> bool:
        """Worth a call: not known to be down. A trunk that is not pinged always is."""
        return self.state != "down"

    def next_ping(self, now: float) -> float | None:
        """When to ask next; None: never."""
        if not self.pinged:
            return None
        if self.last_code is None:
            return now + min(self.ping_s, FIRST_WITHIN_S) * self._rand()
        again_s = min(self.ping_s, AGAIN_S) if 0 < self.misses < MISSES else self.ping_s
        return now + again_s * (1 + SPREAD * (2 * self._rand() - 1))

    def answered(self, code: int, now: float) -> Changed | None:
        """Only a change is worth telling."""
        if 100 <= code < 200:
            return None  # provisional: nothing is decided
        self.last_code = code
        self.misses = self.misses + 1 if code in _MISSED else 0
        if self.misses == 0:
            return self._become("up", code, now)
        return self._become("down", code, now) if self.misses >= MISSES else None

    def _become(self, state: State, code: int, now: float) -> Changed | None:
        if state == self.state:
            return None
        change = Changed(self.trunk, state, self.state, code, now - self._since)
        self.state, self._since = state, now
        return change
