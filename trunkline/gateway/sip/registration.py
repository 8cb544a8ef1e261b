"""When a registration is renewed, and when it is tried again after a failure. Plain over `now`.

Renewed at half time, so that a failure leaves the other half to mend it. A registrar that is not there is tried again
soon, then ever more rarely (RFC 5626 4.5); one that has said no to the account would say so again, and locks accounts
that insist: first after minutes, then half an hour. All waits are spread, as many of us may have lost the same
registrar. What `Retry-After` asks for is waited, within reason.
"""

import random
from collections.abc import Callable

RENEW_AT = 0.5  # of what was granted
LEAST_RENEWAL_S = 1.0
FIRST_RETRY_S, LAST_RETRY_S = 4.0, 300.0
FIRST_AFTER_NO_S, LAST_AFTER_NO_S = 120.0, 1800.0
_NO = frozenset({400, 401, 403, 404, 405, 407, 410, 416, 420, 423, 484, 485, 600, 603, 604, 606})


class Registration:
    """`answered` with each answer to a REGISTER; what it returns is when the next one is due."""

    def __init__(self, rand: Callable[[], float] = random.random) -> None:
        self.failures = 0
        """In a row."""
        self._until = float("-inf")
        self._rand = rand

    def left_s(self, now: float) -> int:
        """For how long the registrar knows us; 0: not. A failed renewal takes nothing away."""
        return max(0, int(self._until - now)) if self._until > now else 0

    def answered(self, code: int, expires_s: int, now: float, retry_after_s: int = 0) -> float:
        """`code` 0: not at all. A 2xx that grants nothing is a failure. Seconds until the next REGISTER."""
        if code // 100 == 2 and expires_s > 0:
            self.failures, self._until = 0, now + expires_s
            return max(LEAST_RENEWAL_S, expires_s * RENEW_AT)
        self.failures += 1
        first, last = (FIRST_AFTER_NO_S, LAST_AFTER_NO_S) if code in _NO else (FIRST_RETRY_S, LAST_RETRY_S)
        wait_s = min(last, first * 2.0 ** min(self.failures - 1, 16)) * (0.5 + self._rand() / 2)
        return max(wait_s, float(min(retry_after_s, LAST_AFTER_NO_S)))
