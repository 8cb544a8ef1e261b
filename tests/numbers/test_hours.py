from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.numbers.hours import is_open, told
from trunkline.numbers.resources import DAYS, Holiday, Hours

NEW_YORK = "America/New_York"
DESK = Hours(
    name="desk",
    zone=NEW_YORK,
    weekly={day: ("09:00-12:00", "13:00-17:30") for day in DAYS[:5]} | {"sat": ("00:00-24:00",)},  # type: ignore[arg-type]
    holidays=(
        Holiday(date=date(2026, 12, 24), name="Christmas Eve", open=("09:00-11:00",)),
        Holiday(date=date(2026, 12, 25)),
    ),
)


def at(text: str, zone: str = NEW_YORK, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)


@pytest.mark.parametrize(
    ("when", "is_it"),
    [
        ("2026-12-01T08:59:59", False),
        ("2026-12-01T09:00:00", True),
        ("2026-12-01T11:59:59", True),
        ("2026-12-01T12:00:00", False),
        ("2026-12-01T17:29", True),
        ("2026-12-01T17:30", False),
        ("2026-12-04T23:59", False),  # Friday
        ("2026-12-05T00:00", True),
        ("2026-12-05T23:59:59", True),  # 24:00
        ("2026-12-06T00:00", False),
        ("2026-12-24T10:59", True),
        ("2026-12-24T11:00", False),
        ("2026-12-24T14:00", False),
        ("2026-12-25T10:00", False),
    ],
)
def test_it_is_open_from_and_until(when: str, is_it: bool) -> None:
    assert is_open(DESK, at(when)) is is_it
    assert is_open(DESK, at(when).astimezone(UTC)) is is_it


def test_the_clock_of_the_zone_counts_whatever_zone_the_moment_is_told_in() -> None:
    morning = datetime(2026, 12, 1, 14, 30, tzinfo=UTC)  # 09:30 there
    assert is_open(DESK, morning)
    assert not is_open(DESK, morning - timedelta(hours=1))
    assert is_open(DESK, morning.astimezone(ZoneInfo("Asia/Tokyo")))  # on the next day there


def hours(zone: str, *spans: str, holidays: tuple[Holiday, ...] = ()) -> Hours:
    return Hours(name="desk", zone=zone, weekly=dict.fromkeys(DAYS, spans), holidays=holidays)  # type: ignore[arg-type]


def test_what_the_clock_skips_is_not_there() -> None:
    """2026-03-08 in New York: after 01:59 comes 03:00."""
    desk = hours(NEW_YORK, "02:00-03:00")
    before = datetime(2026, 3, 8, 6, 59, tzinfo=UTC)  # 01:59
    assert not is_open(desk, before)
    assert not is_open(desk, before + timedelta(minutes=1))  # 03:00
    assert is_open(hours(NEW_YORK, "02:30-03:30"), before + timedelta(minutes=1))


def test_what_the_clock_shows_twice_is_open_twice() -> None:
    """2026-11-01 in New York: 01:00 to 02:00 comes twice."""
    desk = hours(NEW_YORK, "01:15-01:45")
    assert is_open(desk, at("2026-11-01T01:30", fold=0))
    assert not is_open(desk, at("2026-11-01T01:50", fold=0))
    assert is_open(desk, at("2026-11-01T01:30", fold=1))


def test_it_is_told_for_people() -> None:
    assert told(DESK, at("2026-12-24T12:00")) == (
        "hours desk: closed on Thu 2026-12-24 12:00 (America/New_York), a holiday: Christmas Eve"
    )
    assert told(DESK, at("2026-12-01T10:00")) == "hours desk: open on Tue 2026-12-01 10:00 (America/New_York)"
    assert told(DESK, at("2026-12-25T10:00")).endswith(", a holiday")


minutes = st.integers(0, 1440)
spans = (
    st.tuples(minutes, minutes)
    .filter(lambda p: p[0] < p[1] and p[0] < 1440)
    .map(lambda p: f"{p[0] // 60:02}:{p[0] % 60:02}-{p[1] // 60:02}:{p[1] % 60:02}")
)
CHANGES = [  # the day before: the whole of the change lies within two days
    (NEW_YORK, datetime(2026, 3, 7, tzinfo=UTC)),
    (NEW_YORK, datetime(2026, 10, 31, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 3, 28, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 10, 24, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, tzinfo=UTC)),  # half an hour
    ("Australia/Lord_Howe", datetime(2026, 10, 3, tzinfo=UTC)),
    ("Africa/Cairo", datetime(2026, 4, 23, tzinfo=UTC)),  # at midnight
    ("Asia/Kathmandu", datetime(2026, 6, 1, tzinfo=UTC)),
]


@given(
    st.sampled_from(CHANGES),
    st.dictionaries(st.sampled_from(DAYS), st.lists(spans, max_size=3).map(tuple), min_size=1),
    st.dictionaries(st.integers(0, 3), st.lists(spans, max_size=2).map(tuple), max_size=2),
    st.integers(0, 3 * 1440),
)
def test_it_agrees_with_counting_the_minutes_of_the_wall(
    change: tuple[str, datetime], weekly: dict[str, tuple[str, ...]], holidays: dict[int, tuple[str, ...]], minute: int
) -> None:
    zone, begin = change
    days = [Holiday(date=(begin + timedelta(days=n)).date(), open=open_) for n, open_ in holidays.items()]
    desk = Hours(name="desk", zone=zone, weekly=weekly, holidays=tuple(days))  # type: ignore[arg-type]
    wall = {  # every minute of every day of the wall that is open
        (day.date(), hour_minute)
        for day in (begin + timedelta(days=n) for n in range(-2, 6))
        for span in next((h.open for h in days if h.date == day.date()), weekly.get(DAYS[day.weekday()], ()))
        for hour_minute in range(_minutes(span[:5]), _minutes(span[6:]))
    }
    moment = begin + timedelta(minutes=minute)
    offset = moment.astimezone(ZoneInfo(zone)).utcoffset()
    assert offset is not None
    shown = moment.replace(tzinfo=None) + offset
    assert is_open(desk, moment) is ((shown.date(), shown.hour * 60 + shown.minute) in wall)


def _minutes(text: str) -> int:
    return int(text[:2]) * 60 + int(text[3:])
