"""When a delivery is tried again, and when it or its endpoint is given up. Plain: what came of an attempt and `now`
come in; what is to become of it goes out.

    attempt 1 ─ 5 s ─ 30 s ─ 2 min ─ 10 min ─ 1 h ─ 3 h ─ 6 h ─ 12 h ─ 24 h ─► dead, after 10 attempts and two days

Each pause is up to a fifth shorter or longer, so that a receiver that comes back is not met by all at once.
"""

from datetime import datetime, timedelta

from trunkline.hooks import Attempt, Endpoint, Settled

RETRY_S = (5.0, 30.0, 120.0, 600.0, 3600.0, 3 * 3600.0, 6 * 3600.0, 12 * 3600.0, 24 * 3600.0)
JITTER = 0.2
MOST_RETRY_AFTER_S = 3600.0
GIVE_UP_AFTER = timedelta(days=3)
"""Of an endpoint whose every attempt fails."""
QUIET_FOR = timedelta(hours=30)
"""Longer than any pause: a failure after it begins a new row of failures."""
GONE = 410


def pause_s(attempts: int, roll: float) -> float | None:
    """After so many attempts; `roll` from 0 to 1. None: there is no further one."""
    if attempts > len(RETRY_S):
        return None
    return RETRY_S[attempts - 1] * (1 - JITTER + 2 * JITTER * roll)


def settle(endpoint: Endpoint, attempts: int, attempt: Attempt, now: datetime, roll: float) -> Settled:
    """`attempts`: this one among them."""
    if attempt.is_delivered:
        return Settled("delivered")
    since = endpoint.failing_since
    if since is None or endpoint.failed_at is None or now - endpoint.failed_at > QUIET_FOR:
        since = now
    if attempt.status == GONE:
        return Settled("dead", None, since, now, "it answered 410: it is gone")
    if now - since >= GIVE_UP_AFTER:
        why = f"nothing was delivered since {since.isoformat(timespec='seconds')}; at last: {said(attempt)}"
        return Settled("dead", None, since, now, why)
    seconds = pause_s(attempts, roll)
    if seconds is None:
        return Settled("dead", None, since, now)
    seconds = max(seconds, min(attempt.retry_after_s or 0.0, MOST_RETRY_AFTER_S))
    return Settled("waiting", now + timedelta(seconds=seconds), since, now)


def said(attempt: Attempt) -> str:
    """For people."""
    return attempt.error or f"status {attempt.status}"
