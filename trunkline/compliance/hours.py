"""Whether it is a time to call, at everyone's place where the called person may be."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from trunkline.compliance.places import Where
from trunkline.compliance.tables import Hours, Tables
from trunkline.ports import Purpose

_QUARTER_S = 900  # clocks are put forward and back on a quarter of an hour

_Week = tuple[tuple[Hours, ...], ...]


def closed(where: Where, purpose: Purpose | None, tables: Tables, now: datetime) -> str | None:
    """Which rule says no, and when it would not; None: the window is open. A place without a zone is closed."""
    offsets = _offsets(where.zones, int(now.timestamp()) // _QUARTER_S)
    if not offsets:
        return "no time zone is known"
    utc = now.astimezone(UTC)
    days = tables.remembered(("open", where.places, purpose), lambda: _every_day(tables, where, purpose))
    moments: list[tuple[date, time]] = []
    surely_open = True
    for offset in offsets:
        local = utc + offset
        day, moment = local.date(), local.time()
        moments.append((day, moment))
        surely_open = surely_open and days[local.weekday()].surely_open(day, moment, tables)
    return None if surely_open else _against(where, purpose, moments, tables)


@dataclass(frozen=True, slots=True)
class _Day:
    """A day of the week under all rules of somebody's places together, so that most answers need no look at each."""

    spans: tuple[tuple[time, time], ...]
    """When every rule lets a call through, where it is no holiday."""
    holidays: frozenset[str]
    """The regions with a rule that closes on them."""

    def surely_open(self, day: date, moment: time, tables: Tables) -> bool:
        if not any(start <= moment < end for start, end in self.spans):
            return False
        return not any(tables.holiday(region, day) for region in self.holidays)


def _every_day(tables: Tables, where: Where, purpose: Purpose | None) -> tuple[_Day, ...]:
    weeks = [(region, week) for place in where.places for region, week in _weeks(tables, place, purpose)]
    days = []
    for weekday in range(7):
        spans: tuple[tuple[time, time], ...] = ((time.min, time.max),)
        for _, week in weeks:
            both = ((max(s, row.start), min(e, row.end)) for s, e in spans for row in week[weekday])
            spans = tuple(dict.fromkeys((start, end) for start, end in both if start < end))
        caring = frozenset(r for r, week in weeks if any(row.holidays == "closed" for row in week[weekday]))
        days.append(_Day(spans, caring))
    return tuple(days)


def _against(where: Where, purpose: Purpose | None, moments: Sequence[tuple[date, time]], tables: Tables) -> str | None:
    """The first rule, by its region, that says no."""
    weeks = [each for place in where.places for each in _weeks(tables, place, purpose)]
    for region in sorted({region for region, _ in weeks}):
        closed = [
            (day, moment)
            for name, week in weeks
            if name == region
            for day, moment in moments
            if not _open(region, week[day.weekday()], day, moment, tables)
        ]
        if closed:
            day, moment = min(closed)
            return _why(region, _rows(tables, where, purpose, region, day), day, moment, tables)
    return None


@lru_cache(maxsize=4096)
def _offsets(zones: tuple[str, ...], quarter: int) -> tuple[timedelta, ...]:
    """From UTC, each once."""
    now = datetime.fromtimestamp(quarter * _QUARTER_S, UTC)
    return tuple({now.astimezone(_zone(zone)).utcoffset() or timedelta() for zone in zones})


def _weeks(tables: Tables, place: str | None, purpose: Purpose | None) -> Sequence[tuple[str, _Week]]:
    """Each region's rules for one purpose, by the day of the week."""

    def make() -> tuple[tuple[str, _Week], ...]:
        groups: dict[tuple[str, Purpose | None], list[Hours]] = {}
        for row in tables.rows(tables.hours, place):
            if purpose is None or row.purpose in (None, purpose):
                groups.setdefault((row.region, row.purpose), []).append(row)
        return tuple(
            (region, tuple(tuple(row for row in rows if day in row.days) for day in range(7)))
            for (region, _), rows in groups.items()
        )

    return tables.remembered(("weeks", place, purpose), make)


def _open(region: str, today: Sequence[Hours], day: date, moment: time, tables: Tables) -> bool:
    for row in today:
        if row.start <= moment < row.end:
            return row.holidays == "open" or not tables.holiday(region, day)
    return False


def _rows(tables: Tables, where: Where, purpose: Purpose | None, region: str, day: date) -> list[Hours]:
    weeks = (week for place in where.places for name, week in _weeks(tables, place, purpose) if name == region)
    return sorted({row for week in weeks for row in week[day.weekday()]}, key=lambda row: row.start)


def _why(region: str, today: list[Hours], day: date, moment: time, tables: Tables) -> str:
    if not today:
        return f"{region}: not on this day of the week"
    if any(row.holidays == "closed" for row in today) and tables.holiday(region, day):
        return f"{region}: a holiday"
    spans = ", ".join(f"{row.start:%H:%M}-{row.end:%H:%M}" for row in today)
    return f"{region}: {spans}, and it is {moment:%H:%M} there"


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
