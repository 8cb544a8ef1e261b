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
"""A region's rows for one purpose, by the day of the week."""


def closed(where: Where, purpose: Purpose | None, tables: Tables, now: datetime) -> str | None:
    """Which rule says no, and when it would not; None: the window is open. A place without a zone is closed."""
    offsets = _offsets(where.zones, int(now.timestamp()) // _QUARTER_S)
    if not offsets:
        return "no time zone is known"
    utc = now.astimezone(UTC)
    rules: _Rules = tables.remembered(("open", where.regions, purpose), lambda: _rules(tables, where, purpose))
    moments: list[tuple[date, time]] = []
    surely_open = True
    for offset in offsets:
        local = utc + offset
        day, moment = local.date(), local.time()
        moments.append((day, moment))
        surely_open = surely_open and rules.days[day.weekday()].surely_open(day, moment, tables)
    return None if surely_open else _against(rules, moments, tables)


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


@dataclass(frozen=True, slots=True)
class _Region:
    name: str
    weeks: tuple[_Week, ...]
    """Each must be open."""
    shown: tuple[str, ...]
    """By the day of the week: when it is open. Empty: not at all."""


@dataclass(frozen=True, slots=True)
class _Rules:
    """Of all places where somebody may be, for one purpose."""

    days: tuple[_Day, ...]
    regions: tuple[_Region, ...]
    """By name, so that the same one says no whatever order the rows have."""


def _rules(tables: Tables, where: Where, purpose: Purpose | None) -> _Rules:
    groups: dict[tuple[str, Purpose | None], dict[Hours, None]] = {}
    for place in where.places:
        for row in tables.rows(tables.hours, place):
            if purpose is None or row.purpose in (None, purpose):
                groups.setdefault((row.region, row.purpose), {})[row] = None
    weeks: dict[str, list[_Week]] = {}
    for (name, _), rows in groups.items():
        weeks.setdefault(name, []).append(tuple(tuple(row for row in rows if day in row.days) for day in range(7)))
    regions = tuple(
        _Region(name, tuple(weeks[name]), tuple(_spans(weeks[name], day) for day in range(7))) for name in sorted(weeks)
    )
    return _Rules(tuple(_day(regions, day) for day in range(7)), regions)


def _day(regions: Sequence[_Region], weekday: int) -> _Day:
    spans: tuple[tuple[time, time], ...] = ((time.min, time.max),)
    for week in (week for region in regions for week in region.weeks):
        both = ((max(s, row.start), min(e, row.end)) for s, e in spans for row in week[weekday])
        spans = tuple(dict.fromkeys((start, end) for start, end in both if start < end))
    caring = (
        region.name
        for region in regions
        if any(row.holidays == "closed" for week in region.weeks for row in week[weekday])
    )
    return _Day(spans, frozenset(caring))


def _spans(weeks: Sequence[_Week], weekday: int) -> str:
    rows = sorted({row for week in weeks for row in week[weekday]}, key=lambda row: (row.start, row.end))
    return ", ".join(dict.fromkeys(f"{row.start:%H:%M}-{row.end:%H:%M}" for row in rows))


def _against(rules: _Rules, moments: Sequence[tuple[date, time]], tables: Tables) -> str | None:
    """The first rule, by its region, that says no."""
    for region in rules.regions:
        closed = [
            (day, moment)
            for week in region.weeks
            for day, moment in moments
            if not _open(region.name, week[day.weekday()], day, moment, tables)
        ]
        if closed:
            return _why(region, *min(closed), tables)
    return None


@lru_cache(maxsize=4096)
def _offsets(zones: tuple[str, ...], quarter: int) -> tuple[timedelta, ...]:
    """From UTC, each once."""
    now = datetime.fromtimestamp(quarter * _QUARTER_S, UTC)
    return tuple({now.astimezone(_zone(zone)).utcoffset() or timedelta() for zone in zones})


def _open(region: str, today: Sequence[Hours], day: date, moment: time, tables: Tables) -> bool:
    return any(
        row.start <= moment < row.end and (row.holidays == "open" or not tables.holiday(region, day)) for row in today
    )


def _why(region: _Region, day: date, moment: time, tables: Tables) -> str:
    shown = region.shown[day.weekday()]
    if not shown:
        return f"{region.name}: not on this day of the week"
    caring = any(row.holidays == "closed" for week in region.weeks for row in week[day.weekday()])
    if caring and tables.holiday(region.name, day):
        return f"{region.name}: a holiday"
    return f"{region.name}: {shown}, and it is {moment:%H:%M} there"


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
