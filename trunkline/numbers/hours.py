"""Opening hours: whether somebody is there at a moment.

Hours are those of the clock on the wall of their zone, and so are holidays: when the clock is put forward, what it
skips is not there; when it is put back, what it shows twice is open, or closed, both times.
"""

from datetime import date, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from trunkline.numbers.resources import DAYS, Hours

_ZONES = 512


@lru_cache(_ZONES)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def is_open(hours: Hours, at: datetime) -> bool:
    """`at`: aware, of any zone."""
    local = at.astimezone(_zone(hours.zone))
    minute = f"{local.hour:02}:{local.minute:02}"
    spans, _ = _of_day(hours, local.date())
    return any(span[:5] <= minute < span[6:] for span in spans)  # "24:00" is after them all


def told(hours: Hours, at: datetime) -> str:
    """For people: `hours desk: closed on Thu 2026-12-24 10:00 (America/New_York), a holiday: Christmas Eve`."""
    local = at.astimezone(_zone(hours.zone))
    _, holiday = _of_day(hours, local.date())
    state = "open" if is_open(hours, at) else "closed"
    of_holiday = "" if holiday is None else ", a holiday" + (f": {holiday}" if holiday else "")
    return f"hours {hours.name}: {state} on {local:%a %Y-%m-%d %H:%M} ({hours.zone}){of_holiday}"


def _of_day(hours: Hours, day: date) -> tuple[tuple[str, ...], str | None]:
    """And the name of the holiday that it is."""
    for holiday in hours.holidays:
        if holiday.date == day:
            return holiday.open, holiday.name
    return hours.weekly.get(DAYS[day.weekday()], ()), None  # type: ignore[call-overload]
