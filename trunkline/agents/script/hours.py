"""Opening hours: is it open at a moment, and how the answer is spoken. Plain arithmetic over `[hours]` and a time."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from trunkline.agents.script.words import spell

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SPAN = re.compile(r"\s*(\d{1,2}):(\d\d)\s*(?:-|–|to)\s*(\d{1,2}):(\d\d)\s*")
_LOOK_AHEAD_DAYS = 14

Span = tuple[int, int]
"""Minutes after midnight; 24:00 is 1440."""


@dataclass(frozen=True, slots=True)
class Hours:
    zone: ZoneInfo
    week: Mapping[int, tuple[Span, ...]]
    """Spans by weekday, 0 = Monday."""
    closed_days: frozenset[date] = field(default_factory=frozenset)

    def spans(self, day: date) -> tuple[Span, ...]:
        return () if day in self.closed_days else self.week.get(day.weekday(), ())

    def is_open(self, at: datetime) -> bool:
        local = at.astimezone(self.zone)
        minute = local.hour * 60 + local.minute
        return any(start <= minute < end for start, end in self.spans(local.date()))

    def next_opening(self, at: datetime) -> tuple[date, int] | None:
        """The next start of a span after `at`, within two weeks."""
        local = at.astimezone(self.zone)
        minute = local.hour * 60 + local.minute
        for ahead in range(_LOOK_AHEAD_DAYS):
            day = local.date() + timedelta(days=ahead)
            for start, _ in self.spans(day):
                if ahead or start > minute:
                    return day, start
        return None

    def spoken(self, at: datetime) -> dict[str, str]:
        """The variables `today`, `hours_today` and `next_opening`, as they are said."""
        today = at.astimezone(self.zone).date()
        opening = self.next_opening(at)
        return {
            "today": WEEKDAYS[today.weekday()].capitalize(),
            "hours_today": " and ".join(f"{say(a)} to {say(b)}" for a, b in self.spans(today)) or "closed",
            "next_opening": f"{_say_day(opening[0], today)} at {say(opening[1])}" if opening else "not known",
        }


def read_spans(text: str) -> tuple[Span, ...]:
    """`08:00-12:00, 13:00-17:30` or `closed`. Raises ValueError in the admin's words."""
    if text.strip().lower() == "closed":
        return ()
    spans: list[Span] = []
    for part in text.split(","):
        match = _SPAN.fullmatch(part)
        if not match:
            raise ValueError(f"{part.strip()!r} is not a span of time: write 08:00-17:00, or closed")
        start, end = int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])
        if int(match[2]) > 59 or int(match[4]) > 59 or end > 24 * 60:
            raise ValueError(f"{part.strip()!r} is not a time of day")
        if start >= end:
            raise ValueError(f"{part.strip()!r} ends before it starts: past midnight is two spans on two days")
        if spans and start < spans[-1][1]:
            raise ValueError(f"{part.strip()!r} overlaps the span before it")
        spans.append((start, end))
    return tuple(spans)


def say(minute: int) -> str:
    """A time of day for an American English voice: 8:30 -> `eight thirty A M`."""
    if minute in (0, 24 * 60):
        return "midnight"
    if minute == 12 * 60:
        return "noon"
    hour, past = divmod(minute, 60)
    clock = [*spell((hour - 1) % 12 + 1)]
    if past:
        clock += spell(past) if past > 9 else ["oh", *spell(past)]
    return " ".join([*clock, "A M" if hour < 12 else "P M"])


def _say_day(day: date, today: date) -> str:
    if day == today:
        return "today"
    if day == today + timedelta(days=1):
        return "tomorrow"
    name = WEEKDAYS[day.weekday()].capitalize()
    return name if (day - today).days < 7 else f"{name} next week"


def time_zone(name: str) -> ZoneInfo:
    """Raises ValueError."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone: write one like America/New_York or Europe/London") from None
