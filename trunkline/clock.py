"""The only reader of time. Cores take `now`; edges own a Clock and pass it down.

`now()` is monotonic seconds (deadlines, latencies); `wall()` is UTC (records, people).
"""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Monotonic seconds, the same base as the event loop's `loop.time()`."""
        ...

    def wall(self) -> datetime:
        """Timezone-aware UTC."""
        ...


class SystemClock:
    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> datetime:
        return datetime.now(UTC)


SYSTEM_CLOCK = SystemClock()
