"""The stricter states of facts/compliance.md 2.2, at the minute they open and close: marketing, in the callee's time.

No vectors of decisions exist under the shared ones (they are of STIR, webhooks and prices); this table is the facts',
and where its sources conflict the strictest row."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from trunkline.compliance.hours import closed
from trunkline.compliance.places import Where, where
from trunkline.compliance.tables import ours

EAST, CENTRAL, MOUNTAIN, PACIFIC = "America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles"
WEDNESDAY, SATURDAY, SUNDAY = date(2026, 11, 18), date(2026, 11, 21), date(2026, 11, 22)
NONE = ("", "")
STATES = [
    ("AL", "205", CENTRAL, ("08:00", "20:00"), None, NONE),
    ("CT", "203", EAST, ("09:00", "20:00"), None, None),
    ("FL", "305", EAST, ("08:00", "20:00"), None, None),
    ("IL", "312", CENTRAL, ("09:00", "21:00"), None, None),
    ("KY", "859", EAST, ("10:00", "21:00"), None, None),
    ("LA", "504", CENTRAL, ("08:00", "20:00"), None, NONE),
    ("MS", "601", CENTRAL, ("08:00", "20:00"), None, NONE),
    ("MD", "301", EAST, ("08:00", "20:00"), None, None),
    ("MA", "617", EAST, ("08:00", "20:00"), None, None),
    ("WY", "307", MOUNTAIN, ("08:00", "20:00"), None, None),
    ("MI", "313", EAST, ("09:00", "21:00"), None, None),
    ("MN", "612", CENTRAL, ("09:00", "21:00"), None, None),
    ("NM", "505", MOUNTAIN, ("09:00", "21:00"), None, None),
    ("IN", "317", EAST, ("09:00", "20:00"), None, None),
    ("NV", "702", PACIFIC, ("09:00", "20:00"), None, None),
    ("UT", "801", MOUNTAIN, ("09:00", "20:00"), None, NONE),  # Sundays: the strictest reading of an old table
    ("OK", "405", CENTRAL, ("08:00", "20:00"), None, None),
    ("PA", "215", EAST, ("08:00", "21:00"), None, ("13:30", "21:00")),
    ("RI", "401", EAST, ("09:00", "18:00"), ("10:00", "17:00"), NONE),
    ("TX", "214", CENTRAL, ("09:00", "21:00"), None, ("12:00", "21:00")),
    ("WA", "206", PACIFIC, ("08:00", "20:00"), None, None),
    ("NY", "212", EAST, ("08:00", "21:00"), None, None),
]
"""State, an area code of one zone, that zone, weekdays, Saturdays and Sundays (None: as on weekdays)."""


def is_open(code: str, zone: str, day: date, moment: time) -> bool:
    at = datetime.combine(day, moment, ZoneInfo(zone)).astimezone(UTC)
    place = where(f"+1{code}5550100", None, None, ours())
    assert place.zones == (zone,), place
    return closed(place, "marketing", ours(), at) is None


@pytest.mark.parametrize(("state", "code", "zone", "week", "saturday", "sunday"), STATES, ids=[s[0] for s in STATES])
def test_hours_of_the_stricter_states(
    state: str,
    code: str,
    zone: str,
    week: tuple[str, str],
    saturday: tuple[str, str] | None,
    sunday: tuple[str, str] | None,
) -> None:
    assert ours().area_codes[code][0] == f"US-{state}"
    for day, hours in ((WEDNESDAY, week), (SATURDAY, saturday or week), (SUNDAY, sunday or week)):
        if hours == NONE:
            assert not any(is_open(code, zone, day, time(hour)) for hour in range(24))
            continue
        start, end = map(time.fromisoformat, hours)
        before = (datetime.combine(day, start) - timedelta(minutes=1)).time()
        last = (datetime.combine(day, end) - timedelta(seconds=1)).time()
        got = [is_open(code, zone, day, moment) for moment in (before, start, last, end)]
        assert got == [False, True, True, False], (state, day)


def test_a_place_without_a_zone_is_closed() -> None:
    at = datetime(2026, 11, 18, 17, tzinfo=UTC)
    assert closed(Where(("US-NY",), ()), "marketing", ours(), at) == "no time zone is known"
    assert closed(Where(("US-NY",), (EAST,)), "marketing", ours(), at) is None
