import struct
from datetime import UTC, datetime, timedelta

from trunkline.testing.caller.sip.sockets import Stamps

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class TwoClocks:
    """The wall clock is set forward by `set_by_s`; each reading takes `reading_s`."""

    def __init__(self) -> None:
        self.at_s = self.set_by_s = self.reading_s = 0.0

    def now(self) -> float:
        self.at_s += self.reading_s
        return 1000.0 + self.at_s

    def wall(self) -> datetime:
        return EPOCH + timedelta(seconds=self.at_s + self.set_by_s)


def stamp(at_s: float) -> bytes:
    return struct.pack("@qq", int(EPOCH.timestamp()) + int(at_s), round(at_s % 1 * 1e9))


def test_an_arrival_is_told_in_the_callers_own_time() -> None:
    assert abs(Stamps(TwoClocks()).arrival(stamp(2.5)) - 1002.5) < 1e-6


def test_a_wall_clock_that_is_set_is_looked_at_again() -> None:
    clocks = TwoClocks()
    stamps = Stamps(clocks)
    clocks.at_s, clocks.set_by_s = 1.0, 3600.0
    stamps.now()
    assert abs(stamps.arrival(stamp(3601.0)) - 1001.0) < 1e-6


def test_a_look_that_was_interrupted_is_not_believed() -> None:
    clocks = TwoClocks()
    stamps = Stamps(clocks)
    clocks.at_s, clocks.set_by_s, clocks.reading_s = 1.0, 3600.0, 0.01
    stamps.now()
    assert abs(stamps.arrival(stamp(1.0)) - 1001.0) < 1e-6
