"""When opening hours are next otherwise. Plain."""

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from trunkline.numbers.hours import is_open, told
from trunkline.numbers.resources import DAYS, Hours

__all__ = ["is_open", "next_change", "told"]

DAYS_AHEAD = 370
"""A holiday comes once a year."""


def next_change(hours: Hours, at: datetime) -> datetime | None:
    """In UTC's or `at`'s zone. None: not within DAYS_AHEAD."""
    now = is_open(hours, at)
    start = at.astimezone(ZoneInfo(hours.zone)).date()
    for ahead in range(DAYS_AHEAD):
        for moment in sorted(_ends(hours, start + timedelta(days=ahead))):
            here = moment.astimezone(at.tzinfo)
            if here > at and is_open(hours, here) != now:
                return here
    return None


def _ends(hours: Hours, day: date) -> Iterator[datetime]:
    """Where anything may begin or end: midnight as well, since a day may follow on one that is open to its end."""
    zone = ZoneInfo(hours.zone)
    yield datetime.combine(day, time(), zone)
    holiday = next((each for each in hours.holidays if each.date == day), None)
    name = DAYS[day.weekday()]
    spans = hours.weekly.get(name, ()) if holiday is None else holiday.open  # type: ignore[call-overload]
    for span in spans:
        for text in (span[:5], span[6:]):
            if text != "24:00":
                yield datetime.combine(day, time.fromisoformat(text), zone)
