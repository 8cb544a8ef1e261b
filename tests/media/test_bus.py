"""A bus between a leg that notes what it is sent and an agent that notes what it is told, on a manual clock."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from trunkline.media.bus import MARK_GRACE_S, Bus
from trunkline.media.ears import Ears
from trunkline.media.heartbeat import Heartbeat
from trunkline.media.playout import Message
from trunkline.media.vad import EnergyGate, Floats, Ints
from trunkline.ports import Word
from trunkline.testing.clock import ManualClock
from trunkline.types import MULAW_8K

SILENCE = b"\xff" * 160


class Leg:
    def __init__(self) -> None:
        self.writable = True
        self.sent: list[Message] = []
        self.clears = 0
        self.dropped_ms: int | None = None

    def send(self, messages: Sequence[Message]) -> None:
        self.sent += messages

    def clear(self) -> int | None:
        self.clears += 1
        return self.dropped_ms

    @property
    def sent_ms(self) -> int:
        return sum(len(m.audio) // 8 for m in self.sent)


class Agent:
    def __init__(self) -> None:
        self.told: list[str] = []

    def speech_started(self, at: float) -> None:
        self.told.append("started")

    def speech_sustained(self) -> None:
        self.told.append("sustained")

    def speech_ended(self, at: float) -> None:
        self.told.append("ended")

    def first_audio_sent(self, at: float) -> None:
        self.told.append("first audio")

    def answer_heard(self) -> None:
        self.told.append("heard")

    def crashed(self, error: Exception) -> None:
        self.told.append(f"crashed: {error}")


class Deaf:
    rate_hz, window_samples, context_samples = 8000, 256, 32

    def run(self, slots: Ints, windows: Floats) -> Floats:
        raise AssertionError("nothing here is loud enough to be scored")

    def skip(self, slots: Ints, windows: Floats) -> None: ...

    def glance(self, slots: Ints, audio: Floats) -> Floats:
        raise AssertionError("nothing here is loud enough to be scored")

    def reset(self, slot: int) -> None: ...


class Call:
    def __init__(self, echo: Any = None) -> None:
        self.clock, self.leg, self.agent = ManualClock(), Leg(), Agent()
        self.ears = Ears(MULAW_8K, 2, Deaf(), EnergyGate(2))
        self.heartbeat = Heartbeat(self.clock, self.ears.beat, lambda late, took: None)
        self.bus = Bus(self.leg, self.ears, self.heartbeat, self.clock, echo=echo)
        self.bus.listener = self.agent
        self.carrier_ms = 0

    def beats(self, count: int, marks: bool = False) -> None:
        """20 ms each: the carrier's frame, the marks it reached, a beat."""
        for _ in range(count):
            self.clock.advance(0.02)
            self.carrier_ms += 20
            self.bus.receive(SILENCE, self.carrier_ms)
            if marks:
                for message in self.leg.sent:
                    if message.play_at + len(message.audio) / 8000 <= self.clock.now():
                        self.bus.mark_returned(message.mark)
            self.heartbeat.beat(self.clock.now())

    def answer(self, ms: int) -> None:
        self.bus.begin()
        offset = self.bus.position_ms
        words = [Word(f"w{i}", i * 200, (i + 1) * 200) for i in range(ms // 200)]
        self.bus.append(b"\x20" * ms * 8, words, offset)
        self.bus.end()


@pytest.fixture
def call() -> Call:
    return Call()


def test_the_first_audio_of_an_answer_leaves_at_once_not_at_the_next_beat(call: Call) -> None:
    call.bus.begin()
    call.bus.append(b"\x20" * 800, (), 0)
    assert call.leg.sent_ms == 100
    assert call.agent.told == ["first audio"]


def test_an_answer_is_heard_when_its_last_mark_has_come_back(call: Call) -> None:
    call.answer(2000)
    call.beats(99, marks=True)
    assert call.agent.told == ["first audio"]
    call.beats(3, marks=True)
    assert call.agent.told == ["first audio", "heard"]
    assert call.bus.heard_text(0).split()[-1] == "w9"
    call.beats(50, marks=True)
    assert call.agent.told.count("heard") == 1


def test_a_peer_that_returns_no_marks_is_believed_after_a_grace(call: Call) -> None:
    call.answer(400)
    call.beats(int((0.4 + MARK_GRACE_S) / 0.02) - 1)
    assert call.agent.told == ["first audio"]
    call.beats(3)
    assert call.agent.told == ["first audio", "heard"]


def test_an_answer_with_nothing_to_say_is_heard_at_once(call: Call) -> None:
    call.bus.begin()
    call.bus.end()
    assert call.agent.told == ["heard"]
    assert call.leg.sent == []


def test_a_pause_clears_the_far_end_and_resume_sends_the_rest(call: Call) -> None:
    call.answer(3000)
    call.beats(50, marks=True)
    call.bus.pause()
    call.bus.pause()
    assert call.leg.clears == 1
    before = len(call.leg.sent)
    call.beats(30)
    assert len(call.leg.sent) == before
    call.bus.resume()
    assert len(call.leg.sent) > before  # at once
    call.beats(200, marks=True)
    assert call.agent.told == ["first audio", "heard"]


def test_nothing_to_clear_sends_no_clear(call: Call) -> None:
    call.bus.begin()
    call.bus.pause()
    call.bus.append(b"\x20" * 1600, (), 0)
    call.beats(5)
    assert call.leg.clears == 0
    assert call.leg.sent == []
    call.bus.resume()
    assert call.leg.sent_ms == 200


def test_a_cut_answer_is_not_heard_and_the_text_stops_at_the_ear(call: Call) -> None:
    call.answer(3000)
    call.beats(51, marks=True)
    heard_ms = call.bus.cut()
    assert 960 <= heard_ms <= 1020
    assert call.bus.playout.ledger.text(0, heard_ms) == "w0 w1 w2 w3" + (" w4" if heard_ms >= 1000 else "")
    call.beats(300, marks=True)
    assert "heard" not in call.agent.told


@pytest.mark.parametrize("interrupt", ["cut", "pause"])
def test_a_leg_that_knows_what_it_dropped_is_believed_over_the_marks(call: Call, interrupt: str) -> None:
    call.answer(3000)
    call.beats(51, marks=True)
    call.leg.dropped_ms = call.bus.playout.sent_ms - 1020
    getattr(call.bus, interrupt)()
    assert call.bus.playout._paused_at_ms == 1020


def test_a_leg_cannot_have_dropped_what_a_mark_has_confirmed(call: Call) -> None:
    call.answer(3000)
    call.beats(51, marks=True)
    confirmed_ms = call.bus.playout._mark_ms
    call.leg.dropped_ms = 10_000
    assert call.bus.cut() == confirmed_ms > 900


def test_a_peer_that_does_not_read_waits_and_is_caught_up(call: Call) -> None:
    call.leg.writable = False
    call.answer(1000)
    call.beats(10)
    assert call.leg.sent == []
    call.leg.writable = True  # and tells nobody
    call.beats(100, marks=True)
    assert call.leg.sent_ms == 1000
    assert call.agent.told == ["first audio", "heard"]


def test_the_recogniser_gets_what_was_just_heard_and_every_frame_at_arrival(call: Call) -> None:
    fed: list[bytes] = []
    call.beats(40)
    call.bus.feed(fed.append, 300)
    assert [len(audio) for audio in fed] == [2400]
    call.bus.receive(b"\x55" * 160, 820)
    assert fed[-1] == b"\x55" * 160
    call.bus.stop_feed()
    call.bus.receive(b"\x66" * 160, 840)
    assert fed[-1] == b"\x55" * 160


def test_media_that_never_came_is_counted_by_the_carriers_clock(call: Call) -> None:
    call.bus.receive(SILENCE, 20)
    call.bus.receive(SILENCE, 120)
    call.bus.receive(SILENCE, 100)  # late: the clock does not run back
    assert call.bus.stats.lost_ms == 80
    assert call.bus.carrier_ms == 120


class Tap:
    def __init__(self) -> None:
        self.notes: list[tuple[str, str, int]] = []

    def write(self, channel: str, position: int, data: bytes) -> None:
        self.notes.append(("write", channel, position // 8))

    def cut(self, channel: str, position: int) -> None:
        self.notes.append(("cut", channel, position // 8))

    def close(self) -> None:
        self.notes.append(("close", "", 0))


def test_a_tap_hears_both_lanes_on_the_carriers_clock(call: Call) -> None:
    tap = Tap()
    call.bus.taps.append(tap)
    call.beats(2)
    call.answer(400)
    call.beats(5)
    call.bus.cut()
    call.bus.close()
    assert tap.notes[:2] == [("write", "caller", 0), ("write", "caller", 20)]
    agent = [at for note, channel, at in tap.notes if (note, channel) == ("write", "agent")]
    assert agent == [20, 60, 160, 260, 360]
    assert tap.notes[-2:] == [("cut", "agent", 120), ("close", "", 0)]


def test_a_closed_bus_takes_and_sends_nothing_and_gives_its_slot_back(call: Call) -> None:
    call.answer(1000)
    call.bus.close()
    call.bus.close()
    sent = len(call.leg.sent)
    call.bus.receive(SILENCE, 1000)
    call.bus.mark_returned("0:40")
    call.heartbeat.beat(call.clock.now())
    assert len(call.leg.sent) == sent
    assert call.ears.open(call.bus) is not None
    assert call.ears.open(call.bus) is not None
    assert call.ears.open(call.bus) is None


def test_a_call_is_looked_at_when_something_is_due_and_not_in_every_beat(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    pumped: list[float] = []
    pump = call.bus.pump

    def counted(now: float) -> float | None:
        pumped.append(now)
        return pump(now)

    monkeypatch.setattr(call.bus, "pump", counted)
    call.answer(4000)
    call.beats(150, marks=True)
    assert 30 <= len(pumped) <= 45  # a message of 100 ms each
    call.beats(100, marks=True)
    assert call.agent.told == ["first audio", "heard"]
    before = len(pumped)
    call.beats(100, marks=True)
    assert len(pumped) <= before + 1  # for marks that are overdue, which are not


class OurVoice:
    def __init__(self) -> None:
        self.noted = 0

    def played(self, position: int, audio: bytes) -> None:
        self.noted += len(audio)

    def cut(self, position: int) -> None: ...

    def explains(self, recent: Floats, position: int) -> bool:
        return True

    def may_explain(self, recent: Floats, position: int) -> bool:
        return True


def test_whoever_takes_the_line_does_not_hear_the_last_words_come_back() -> None:
    for rests in (False, True):
        voice = OurVoice()
        call = Call(voice)
        call.bus.rest_ears(rests)
        call.answer(400)
        call.beats(20, marks=True)
        assert voice.noted == 3200
        call.bus.rest_ears(False)
        assert call.bus.is_echo(np.zeros(256, np.float32), call.clock.now())
        call.beats(60)
        assert not call.bus.is_echo(np.zeros(256, np.float32), call.clock.now())
