from trunkline.media.heartbeat import BEAT_S, Heartbeat, Schedule
from trunkline.testing.clock import ManualClock


def test_deadlines_are_absolute_so_a_late_beat_does_not_push_the_next() -> None:
    schedule = Schedule(0.0)
    assert schedule.due == BEAT_S
    assert schedule.after_beat(0.025) == 2 * BEAT_S - 0.025
    assert schedule.after_beat(0.041) == 3 * BEAT_S - 0.041


def test_missed_beats_run_at_once_until_a_fifth_of_a_second_behind() -> None:
    schedule = Schedule(0.0)
    assert schedule.after_beat(0.19) == 0.0
    assert schedule.due == 2 * BEAT_S
    assert schedule.resyncs == 0
    schedule.after_beat(0.5)
    assert schedule.resyncs == 1
    assert schedule.due == 0.5
    assert schedule.skipped == round((0.5 - 3 * BEAT_S) / BEAT_S)


class Bus:
    def __init__(self, beats: int, error: Exception | None = None, every_s: float = 0.0) -> None:
        self.beats, self.error, self.every_s = beats, error, every_s
        self.pumped = 0
        self.crashes: list[Exception] = []

    def pump(self, now: float) -> float | None:
        self.pumped += 1
        if self.error is not None:
            raise self.error
        return now + self.every_s if self.pumped < self.beats else None

    def crashed(self, error: Exception) -> None:
        self.crashes.append(error)


def heartbeat(order: list[str]) -> Heartbeat:
    return Heartbeat(ManualClock(), lambda now: order.append("ears"), lambda late, took: None)


def test_a_bus_is_pumped_until_it_has_nothing_more_and_then_left_alone() -> None:
    order: list[str] = []
    beat, bus = heartbeat(order), Bus(3)
    beat.speaks(bus)
    for _ in range(10):
        beat.beat(0.0)
    assert bus.pumped == 3
    assert order == ["ears"] * 10


def test_a_bus_that_has_sent_its_lead_is_left_alone_until_more_is_due_or_said() -> None:
    beat, bus = heartbeat([]), Bus(9, every_s=0.1)
    beat.speaks(bus)
    for at in range(10):
        beat.beat(at * BEAT_S)
    assert bus.pumped == 2
    beat.speaks(bus)  # more was said
    beat.beat(10 * BEAT_S)
    assert bus.pumped == 3


def test_an_error_of_one_bus_ends_that_one_and_the_others_go_on() -> None:
    beat = heartbeat([])
    broken, sound = Bus(5, RuntimeError("bug")), Bus(5)
    beat.speaks(broken)
    beat.speaks(sound)
    for _ in range(3):
        beat.beat(0.0)
    assert [str(e) for e in broken.crashes] == ["bug"]
    assert broken.pumped == 1
    assert sound.pumped == 3


def test_the_ears_hear_what_a_tick_brings_without_waiting_for_the_beat() -> None:
    order: list[str] = []
    beat, bus = heartbeat(order), Bus(3)
    beat.speaks(bus)
    beat.hear()
    assert order == ["ears"]
    assert bus.pumped == 0
