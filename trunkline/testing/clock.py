"""A clock moved by hand."""

from datetime import UTC, datetime, timedelta


class ManualClock:
    def __init__(self, now: float = 1000.0, wall: datetime = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)) -> None:
        self._now, self._wall = now, wall

    def now(self) -> float:
        return self._now

    def wall(self) -> datetime:
        return self._wall

    def advance(self, seconds: float) -> float:
        self._now += seconds
        self._wall += timedelta(seconds=seconds)
        return self._now
