"""Kitchen timers: values and `now`. What rings, and when."""

from dataclasses import dataclass

MAX_TIMERS = 10
MAX_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class Timer:
    minutes: int
    rings_at: float


class Timers:
    def __init__(self) -> None:
        self._running: list[Timer] = []

    def set(self, minutes: int, now: float) -> Timer | None:
        """None: there are too many, or it is none."""
        if len(self._running) >= MAX_TIMERS or not 0 < minutes <= MAX_MINUTES:
            return None
        timer = Timer(minutes, now + 60.0 * minutes)
        self._running.append(timer)
        self._running.sort(key=lambda each: each.rings_at)
        return timer

    def left_s(self, now: float) -> float | None:
        """Of the next that rings."""
        return self._running[0].rings_at - now if self._running else None

    def cancel(self) -> int:
        """All of them: so many."""
        cancelled, self._running = len(self._running), []
        return cancelled

    def due(self, now: float) -> list[Timer]:
        """Those that ring now, once."""
        ringing = [timer for timer in self._running if timer.rings_at <= now]
        self._running = self._running[len(ringing) :]
        return ringing


def spoken(seconds: float) -> str:
    """ "2 minutes and 5 seconds"."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    parts = [_count(minutes, "minute")] if minutes else []
    if rest or not minutes:
        parts.append(_count(rest, "second"))
    return " and ".join(parts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
