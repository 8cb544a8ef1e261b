"""How many requests somebody may make of /v1: a token bucket each, by who they are."""

from collections import OrderedDict
from dataclasses import dataclass

MOST_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Verdict:
    allowed: bool
    limit: int
    """In a minute."""
    remaining: int
    retry_after_s: int
    """Until the next is allowed; 0: now."""

    @property
    def headers(self) -> dict[str, str]:
        """draft-ietf-httpapi-ratelimit-headers-10; Retry-After where it was one too many."""
        policy = f'"default";q={self.limit};w=60'
        told = {"RateLimit-Policy": policy, "RateLimit": f'"default";r={self.remaining};t={self.retry_after_s}'}
        return told if self.allowed else {**told, "Retry-After": str(self.retry_after_s)}


class RateLimit:
    """Of one process. Whoever comes after MOST_REMEMBERED others is forgotten, and has a full bucket again."""

    def __init__(self, per_minute: int, burst: int | None = None) -> None:
        self._per_s = per_minute / 60
        self._limit, self._burst = per_minute, float(burst or per_minute)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, who: str, now: float) -> Verdict:
        left, at = self._buckets.pop(who, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._per_s)
        allowed = left >= 1.0
        if allowed:
            left -= 1.0
        self._buckets[who] = left, now
        if len(self._buckets) > MOST_REMEMBERED:
            self._buckets.popitem(last=False)
        wait_s = 0 if left >= 1.0 else int((1.0 - left) / self._per_s) + 1
        return Verdict(allowed, self._limit, int(left), wait_s)
