"""A SIP leg between a bus and a line that ticks by hand."""

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import MisuseError
from trunkline.gateway.leg import LegCall
from trunkline.gateway.sip.leg import SLIP_MS, SipLeg, sip_lead
from trunkline.gateway.sip.stack import Handle
from trunkline.media.bus import Bus
from trunkline.media.ears import Ears
from trunkline.media.heartbeat import Heartbeat
from trunkline.media.vad import EnergyGate
from trunkline.ports import Refuse, Word
from trunkline.testing.clock import ManualClock
from trunkline.testing.sipstack import FakeLine
from trunkline.types import MULAW_8K

LEAD_MS = 60
VOICE = bytes(range(1, 250)) * 1000


class Desk:
    def __init__(self) -> None:
        self.left: list[str] = []
        self.digits = ""
        self.referred: list[str | SipLeg] = []
        self.held: list[bool] = []
        self.refers = True
        self.crashes: list[BaseException] = []

    def leave(self, leg: SipLeg, why: str) -> None:
        self.left.append(why)

    def send_digits(self, leg: SipLeg, digits: str) -> None:
        self.digits += digits

    def crashed(self, error: BaseException) -> None:
        self.crashes.append(error)

    def hold(self, leg: SipLeg, held: bool) -> None:
        self.held.append(held)

    def refer(self, leg: SipLeg, to: str | SipLeg) -> str | Refuse:
        self.referred.append(to)
        return "carrier" if self.refers else Refuse("not_now", "it is ending")


class Agent:
    def __init__(self) -> None:
        self.told: list[str] = []

    def speech_started(self, at: float) -> None: ...

    def speech_sustained(self) -> None: ...

    def speech_ended(self, at: float) -> None: ...

    def first_audio_sent(self, at: float) -> None:
        self.told.append("first audio")

    def answer_heard(self) -> None:
        self.told.append("heard")

    def crashed(self, error: Exception) -> None:
        raise error


class Deaf:
    def run(self, slots: Any, windows: Any) -> Any: ...

    def skip(self, slots: Any, windows: Any) -> None: ...

    def reset(self, slot: int) -> None: ...


class Call:
    """A bus on a SIP leg. `beats`: first the line's tick, then ours, as a late Python has it."""

    def __init__(self) -> None:
        self.clock, self.desk, self.line, self.agent = ManualClock(), Desk(), FakeLine(), Agent()
        ears = Ears(MULAW_8K, 2, cast(Any, Deaf()), EnergyGate(2))
        self.heartbeat = Heartbeat(self.clock, ears.beat, lambda late, took: None)
        self.leg = SipLeg(Handle(1), self.desk, cast(LegCall, self.desk), sip_lead(LEAD_MS))
        self.leg.line = self.line
        self.line.sink = self.leg
        self.bus = Bus(self.leg, ears, self.heartbeat, self.clock, self.leg.lead)
        self.leg.bus, self.bus.listener = self.bus, self.agent
        self.most_waiting_ms = 0

    def beats(self, count: int) -> None:
        for _ in range(count):
            self.clock.advance(0.02)
            self.line.tick()
            self.heartbeat.beat(self.clock.now())
            self.most_waiting_ms = max(self.most_waiting_ms, 20 * len(self.line.ring))

    def answer(self, ms: int) -> bytes:
        self.bus.begin()
        offset = self.bus.position_ms
        audio = VOICE[: ms * 8]
        self.bus.append(audio, [Word(f"w{i}", i * 200, i * 200 + 200) for i in range(ms // 200)], offset)
        self.bus.end()
        return audio


@pytest.fixture
def call() -> Call:
    return Call()


def test_an_answer_is_taken_whole_without_a_gap_and_the_ring_holds_the_lead_and_a_frame(call: Call) -> None:
    audio = call.answer(2000)
    assert call.agent.told == ["first audio"]
    call.beats(99)
    assert call.agent.told == ["first audio"]
    call.beats(2)
    assert call.agent.told == ["first audio", "heard"]
    assert bytes(call.line.heard) == audio
    assert LEAD_MS - 20 <= call.most_waiting_ms <= LEAD_MS + 20
    assert call.bus.playout.stats.underruns == 0
    assert call.bus.playout.stats.late_marks == 0


def test_what_is_said_to_belong_together_does_and_the_next_answer_does_not(call: Call) -> None:
    told: list[bool] = []
    write = call.line.write

    def noted(audio: bytes, continues: bool) -> int:
        told.append(continues)
        return write(audio, continues)

    call.line.write = noted  # type: ignore[method-assign]
    call.answer(200)
    call.beats(30)
    assert told == [False] + [True] * 8  # 40 ms first, then 20 each
    told.clear()
    call.answer(60)
    call.beats(5)
    assert told == [False, True]


def test_a_voice_that_is_late_itself_is_no_gap_of_ours(call: Call) -> None:
    told: list[bool] = []
    write = call.line.write

    def noted(audio: bytes, continues: bool) -> int:
        told.append(continues)
        return write(audio, continues)

    call.line.write = noted  # type: ignore[method-assign]
    call.bus.begin()
    call.bus.append(VOICE[:320], (), 0)
    call.beats(10)
    call.bus.append(VOICE[:320], (), 0)
    call.bus.end()
    call.beats(10)
    assert told == [False, False]
    assert call.agent.told == ["first audio", "heard"]


@given(st.integers(0, 80))
def test_a_cut_knows_to_the_frame_what_was_heard(ticks: int) -> None:
    call = Call()
    call.answer(1400)
    call.beats(ticks)
    heard_ms = call.bus.cut()
    assert heard_ms == min(20 * ticks, 1400) == len(call.line.heard) // 8
    assert call.line.ring == []
    assert call.bus.playout.ledger.text(0, heard_ms).split() == [f"w{i}" for i in range(heard_ms // 200)]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 20)), max_size=5))
def test_pauses_lose_nothing_and_repeat_only_the_cut_word(pauses: list[tuple[int, int]]) -> None:
    call = Call()
    audio = call.answer(3000)
    for speak, hold in pauses:
        call.beats(speak)
        before = len(call.line.heard)
        call.bus.pause()
        call.beats(hold)
        assert len(call.line.heard) == before
        call.bus.resume()
    call.beats(3000 // 20 + 80)
    heard = bytes(call.line.heard)
    assert heard.endswith(audio[-160:])
    said_ms = len(heard) // 8
    assert 3000 <= said_ms <= 3000 + 200 * len(pauses)
    assert call.agent.told == ["first audio", "heard"]


def test_marks_of_what_was_cleared_do_not_come_back(call: Call) -> None:
    call.answer(1000)
    call.beats(5)
    call.bus.cut()
    call.answer(400)
    call.beats(25)
    assert call.agent.told == ["first audio", "first audio", "heard"]
    assert call.bus.playout.stats.dead_marks == 0


def test_a_clock_that_stood_still_is_not_filled_with_more_than_it_may_hold(call: Call) -> None:
    audio = call.answer(3000)
    call.beats(10)
    for _ in range(20):  # PJSIP's clock stands still, ours does not
        call.clock.advance(0.02)
        call.heartbeat.beat(call.clock.now())
    assert len(call.line.ring) * 20 <= LEAD_MS + SLIP_MS + 40
    assert not call.leg.writable
    call.beats(200)
    assert call.leg.writable
    assert bytes(call.line.heard) == audio
    assert call.agent.told == ["first audio", "heard"]


def test_a_cut_while_the_ring_is_too_full_opens_it_again(call: Call) -> None:
    call.answer(3000)
    for _ in range(20):
        call.clock.advance(0.02)
        call.heartbeat.beat(call.clock.now())
    assert not call.leg.writable
    assert call.bus.cut() == 0
    call.answer(100)
    call.beats(10)
    assert call.agent.told[-1] == "heard"


def test_a_late_beat_of_ours_is_covered_by_the_lead(call: Call) -> None:
    audio = call.answer(1000)
    for _ in range(10):
        call.clock.advance(0.04)
        call.line.tick(2)
        call.heartbeat.beat(call.clock.now())
    call.beats(40)
    assert bytes(call.line.heard) == audio
    assert call.bus.playout.stats.underruns == 0


def test_the_callers_frames_reach_the_bus_on_the_lines_clock(call: Call) -> None:
    call.line.tick(3)
    call.line.tick(2, audio=None)
    call.line.tick()
    assert call.bus.stats.received_frames == 4
    assert call.bus.carrier_ms == 100
    assert call.bus.stats.lost_ms == 40


def test_digits_go_the_way_the_far_end_takes_them(call: Call) -> None:
    assert not call.leg.sends_dtmf
    with pytest.raises(MisuseError):
        call.leg.send_dtmf("1")
    call.leg.dtmf = "rfc4733"
    assert call.leg.sends_dtmf
    call.leg.send_dtmf("12")
    assert call.desk.digits == "12"


def test_closing_says_why_once_and_sends_nothing_after_it(call: Call) -> None:
    call.answer(500)
    call.leg.close("agent_hung_up")
    call.leg.close("error")
    waiting = len(call.line.ring)
    call.leg.send(call.bus.playout.due(call.clock.now() + 1))
    assert (call.desk.left, len(call.line.ring)) == (["agent_hung_up"], waiting)


def test_a_dialog_that_is_over_gives_its_line_back(call: Call) -> None:
    call.answer(500)
    call.leg.over()
    call.leg.over()
    assert call.line.closed
    assert call.line.sink is None
    assert call.leg.clear() is None
    assert call.leg.stats() == {}
    call.beats(3)


def test_before_the_media_nothing_is_sent_and_nothing_breaks() -> None:
    desk = Desk()
    leg = SipLeg(Handle(1), desk, cast(LegCall, desk), sip_lead())
    leg.frame(b"\xff" * 160, 0)
    leg.played(20)
    assert leg.clear() is None
    leg.over()


def test_the_lines_counters_go_into_the_record(call: Call) -> None:
    call.answer(200)
    call.beats(20)
    stats = call.leg.stats()
    assert stats["taken_frames"] == 10
    assert "quiet_s" not in stats


def test_a_bug_in_one_call_is_that_calls_own(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(call.bus, "receive", broken)
    monkeypatch.setattr(call.bus, "mark_returned", broken)
    call.answer(200)
    call.line.tick(3)
    assert len(call.desk.crashes) >= 2


def test_what_becomes_of_a_refer_is_told_to_whoever_sent_it() -> None:
    call, told = Call(), list[tuple[int, bool]]()

    def note(code: int, reason: str, *, notify: bool, final: bool) -> None:
        told.append((code, notify))

    call.leg.referred(202, "", notify=False, final=False)  # nobody sent one
    assert call.leg.put_through("+12025550123", note) == "carrier"
    call.leg.referred(202, "Accepted", notify=False, final=False)
    call.desk.refers = False
    assert isinstance(call.leg.put_through("+12025550124", note), Refuse)
    call.leg.referred(200, "OK", notify=True, final=True)
    assert told == [(202, False), (200, True)]
    assert call.desk.referred == ["+12025550123", "+12025550124"]
