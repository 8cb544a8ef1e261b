"""A room of noted legs on a manual clock, beaten by hand."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.errors import MisuseError
from trunkline.media import g711
from trunkline.media.bus import DEAF_TAIL_MS, Bus
from trunkline.media.conference import MAX_MEMBERS, Conference
from trunkline.media.ears import Ears
from trunkline.media.heartbeat import Heartbeat
from trunkline.media.members import LIMIT_FRAMES, Port, Role, Seat
from trunkline.media.music import hold_music
from trunkline.media.playout import LeadPolicy, Message
from trunkline.media.sources import FRAME, SILENT_FRAME
from trunkline.media.vad import EnergyGate, Floats, Ints
from trunkline.ports import Refuse, Word
from trunkline.testing.clock import ManualClock
from trunkline.types import FRAME_MS, MULAW_8K


def frame(level: int) -> bytes:
    """Constant PCM of this level, as near as mu-law has it."""
    return g711.encode(np.full(FRAME, level, np.int16).tobytes(), "mulaw")


def level(audio: bytes) -> int:
    return int(g711.MULAW_I16[audio[0]])


A, B, C, D = frame(1000), frame(3000), frame(-5000), frame(700)


class Leg:
    """A SIP-like leg: its ring gives a frame to the far end at each `tick`."""

    def __init__(self) -> None:
        self.writable = True
        self.sent: list[Message] = []
        self.ring: list[Message] = []
        self.port: Port | None = None
        self.broken: Exception | None = None
        self.empty_ticks = 0
        self.heard: list[bytes] = []

    def send(self, messages: Sequence[Message]) -> None:
        if self.broken is not None:
            raise self.broken
        self.sent += messages
        self.ring += messages

    def clear(self) -> int | None:
        dropped = sum(len(m.audio) for m in self.ring) // 8
        self.ring.clear()
        return dropped

    def tick(self) -> None:
        if self.ring:
            message = self.ring.pop(0)
            self.heard.append(message.audio)
            if self.port is not None:
                self.port.mark_returned(message.mark)
        else:
            self.empty_ticks += 1

    @property
    def latest(self) -> bytes:
        return self.sent[-1].audio if self.sent else b""


@dataclass
class Tap:
    written: list[tuple[str, int, bytes]] = field(default_factory=list)
    closed: int = 0

    def write(self, channel: Literal["caller", "agent"], position: int, data: bytes) -> None:
        self.written.append((channel, position, data))

    def cut(self, channel: Literal["caller", "agent"], position: int) -> None: ...

    def close(self) -> None:
        self.closed += 1


class Room:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.ears = Ears(MULAW_8K, 2, Deaf(), EnergyGate(2))
        self.heartbeat = Heartbeat(self.clock, self.ears.beat, lambda late, took: None)
        self.crashes: list[tuple[str | None, Exception]] = []
        self.conference = Conference(self.heartbeat, self.clock, lambda name, error: self.crashes.append((name, error)))
        self.ms = 0

    def join(self, role: Role, name: str = "", networked: bool = False) -> tuple[Leg, Port]:
        leg = Leg()
        port = self.conference.join(leg, role, name or role, networked=networked)
        assert isinstance(port, Port)
        leg.port = port
        return leg, port

    def seat(self, role: Role = "agent") -> Seat:
        seat = self.conference.seat(role, role)
        assert isinstance(seat, Seat)
        return seat

    def beat(self, *says: tuple[Port, bytes]) -> None:
        """These say a frame each, then a beat."""
        self.clock.advance(0.02)
        self.ms += 20
        for port, audio in says:
            port.receive(audio, self.ms)
        self.heartbeat.beat(self.clock.now())


class Deaf:
    rate_hz, window_samples, context_samples = 8000, 256, 32

    def run(self, slots: Ints, windows: Floats) -> Floats:
        return np.zeros(len(slots), np.float32)

    def skip(self, slots: Ints, windows: Floats) -> None: ...

    def glance(self, slots: Ints, audio: Floats) -> Floats:
        raise AssertionError("nothing here is loud enough to be scored")

    def reset(self, slot: int) -> None: ...


@pytest.fixture
def room() -> Room:
    return Room()


# --- who hears whom ---


def test_three_hear_the_sum_of_the_others_and_never_themselves(room: Room) -> None:
    (a, pa), (b, pb), (c, pc) = room.join("caller"), room.join("representative"), room.join("representative", "second")
    room.beat((pa, A), (pb, B), (pc, C))
    assert level(a.latest) == pytest.approx(-2000, abs=160)
    assert level(b.latest) == pytest.approx(-4000, abs=160)
    assert level(c.latest) == pytest.approx(4000, abs=160)


def test_who_hears_one_voice_gets_its_very_bytes(room: Room) -> None:
    (a, pa), (b, pb), (c, pc) = room.join("caller"), room.join("representative"), room.join("representative", "second")
    noise = bytes(range(160))
    room.beat((pa, noise), (pb, SILENT_FRAME), (pc, SILENT_FRAME))
    assert b.latest == c.latest == noise
    assert a.latest == SILENT_FRAME


def test_loud_voices_are_cut_off_at_full_scale_not_wrapped_round(room: Room) -> None:
    loud = frame(30000)
    (_, pa), (_, pb), (c, pc) = room.join("caller"), room.join("representative"), room.join("representative", "second")
    room.beat((pa, loud), (pb, loud), (pc, A))
    assert level(c.latest) == 32124


def test_who_is_muted_hears_and_is_not_heard(room: Room) -> None:
    (a, pa), (b, pb), (c, pc) = room.join("caller"), room.join("representative"), room.join("representative", "second")
    room.conference.mute(pa, True)
    room.beat((pa, A), (pb, B), (pc, SILENT_FRAME))
    assert (a.latest, b.latest, c.latest) == (B, SILENT_FRAME, B)
    room.conference.mute(pa, False)
    room.beat((pa, A), (pb, SILENT_FRAME), (pc, SILENT_FRAME))
    assert b.latest == A


def test_a_listening_supervisor_hears_all_and_is_heard_by_none(room: Room) -> None:
    (a, pa), (b, pb), (s, ps) = room.join("caller"), room.join("representative"), room.join("supervisor")
    room.beat((pa, A), (pb, B), (ps, C))
    assert (a.latest, b.latest) == (B, A)
    assert level(s.latest) == pytest.approx(4000, abs=160)


def test_a_whisper_is_for_the_representative_not_for_the_caller_nor_the_agent(room: Room) -> None:
    (a, pa), (b, pb), (_, ps) = room.join("caller"), room.join("representative"), room.join("supervisor")
    bus, seat = agent(room)
    noted: list[bytes] = []
    bus.feed(noted.append, 0)
    room.conference.supervise(ps, "whisper")
    room.beat((pa, SILENT_FRAME), (pb, SILENT_FRAME), (ps, C))
    assert (a.latest, b.latest, noted[-1]) == (SILENT_FRAME, C, SILENT_FRAME)
    room.conference.supervise(ps, "speak")
    room.beat((pa, SILENT_FRAME), (pb, SILENT_FRAME), (ps, C))
    assert (a.latest, b.latest, noted[-1]) == (C, C, C)
    assert seat.heard_frames == 2


def test_only_a_supervisor_supervises(room: Room) -> None:
    _, port = room.join("caller")
    with pytest.raises(MisuseError):
        room.conference.supervise(port, "whisper")


# --- hold ---


def test_hold_is_music_from_the_next_frame_on_and_heard_by_nobody(room: Room) -> None:
    (a, pa), (b, pb), (_, pc) = room.join("caller"), room.join("representative"), room.join("representative", "second")
    room.beat((pa, A), (pb, B), (pc, SILENT_FRAME))
    music = hold_music()
    room.conference.hold(pa, music.play())
    for n in range(5):
        room.beat((pa, A), (pb, B), (pc, SILENT_FRAME))
        assert a.latest == music.audio[n * FRAME : (n + 1) * FRAME]
    assert b.latest == SILENT_FRAME
    room.conference.resume(pa)
    room.beat((pa, A), (pb, B), (pc, SILENT_FRAME))
    assert (a.latest, b.latest) == (B, A)


def test_hold_without_a_source_is_silence(room: Room) -> None:
    (a, pa), (_, pb) = room.join("caller"), room.join("representative")
    room.conference.hold(pa, None)
    room.beat((pa, A), (pb, B))
    assert a.latest == SILENT_FRAME


def test_from_a_bridged_call_to_music_takes_one_beat(room: Room) -> None:
    (a, pa), (_, pb) = room.join("caller"), room.join("representative")
    room.beat((pa, A), (pb, B))
    assert room.conference.passing_on
    room.conference.hold(pa, hold_music().play())
    room.beat((pa, A), (pb, B))
    assert a.latest == hold_music().audio[:FRAME]


# --- two alone ---


def test_two_alone_are_passed_on_at_arrival_without_a_beat(room: Room) -> None:
    (a, pa), (b, pb) = room.join("caller"), room.join("representative")
    noise = bytes(range(160))
    pa.receive(noise, 0)
    assert [m.audio for m in b.sent] == [noise]
    assert not b.sent[0].continues  # a gap would be the caller's, not ours
    pb.receive(B, 0)
    assert [m.audio for m in a.sent] == [B]
    room.heartbeat.beat(room.clock.now())
    assert len(a.sent) == len(b.sent) == 1


def test_of_two_of_whom_one_is_muted_only_the_other_is_heard() -> None:
    for muted, other in ((0, 1), (1, 0)):
        room = Room()
        two = [room.join("caller"), room.join("representative")]
        room.conference.mute(two[muted][1], True)
        assert not room.conference.passing_on
        room.beat((two[0][1], A), (two[1][1], A))
        assert two[other][0].latest == SILENT_FRAME
        assert two[muted][0].latest == A


def test_what_waited_for_a_beat_is_not_lost_when_the_third_leaves(room: Room) -> None:
    (_, pa), (b, _), (_, pc) = room.join("caller"), room.join("representative"), room.join("representative", "second")
    pa.receive(A, 0)
    pa.receive(B, 20)
    assert b.sent == []
    room.conference.leave(pc)
    assert [m.audio for m in b.sent] == [A, B]
    room.conference.leave(pc)  # again changes nothing
    assert len(room.conference.members) == 2


def test_a_third_who_is_on_hold_does_not_make_the_two_be_decoded(room: Room) -> None:
    (_, pa), (b, _) = room.join("caller"), room.join("representative")
    c, pc = room.join("representative", "second")
    room.conference.hold(pc, hold_music().play())
    pa.receive(A, 0)
    assert b.latest == A
    room.beat()
    assert c.latest == hold_music().audio[:FRAME]
    assert len(b.sent) == 1


def test_frames_of_another_size_are_cut_to_ours(room: Room) -> None:
    (_, pa), (b, _) = room.join("caller"), room.join("representative")
    pa.receive(A[:100], 0)
    assert b.sent == []
    pa.receive(A + A[:60], 13)
    assert [m.audio for m in b.sent] == [A, A]


# --- clocks and bursts ---


def test_a_missing_frame_is_bridged_once_then_silent_and_counted(room: Room) -> None:
    (_, pa), (b, pb), (_, pc) = room.join("caller"), room.join("representative"), room.join("representative", "second")
    quiet = ((pb, SILENT_FRAME), (pc, SILENT_FRAME))
    room.beat((pa, A), *quiet)
    for wanted in (A, SILENT_FRAME, SILENT_FRAME):
        room.beat(*quiet)
        assert b.latest == wanted
    assert (pa.stats.repeated_frames, pa.stats.missing_frames) == (1, 2)
    assert pa.stats.lost_ms == 0
    room.beat((pa, A), *quiet)
    assert pa.stats.lost_ms == 60
    assert b.latest == A


def test_a_burst_waits_is_bounded_and_worked_off(room: Room) -> None:
    (_, pa), (_, pb), (_, pc) = room.join("caller"), room.join("representative"), room.join("representative", "second")
    for n in range(LIMIT_FRAMES + 5):
        pa.receive(A, n * 20)
    assert pa.stats.dropped_frames == 5
    for _ in range(25 * LIMIT_FRAMES + 50):
        room.beat((pa, A), (pb, B), (pc, C))
    assert pa.stats.dropped_frames == 5 + LIMIT_FRAMES
    assert pa.stats.repeated_frames == 0


def test_of_what_waits_the_quietest_is_dropped(room: Room) -> None:
    (_, pa), (b, pb), (_, pc) = room.join("caller"), room.join("representative"), room.join("representative", "second")
    says = [frame(1000 + 100 * n) for n in range(31)]
    says[26] = frame(50)
    for audio in says[:3]:
        pa.receive(audio, 0)
    for audio in says[3:]:
        room.beat((pa, audio), (pb, SILENT_FRAME), (pc, SILENT_FRAME))
    assert pa.stats.dropped_frames == 1
    assert [m.audio for m in b.sent] == says[:26] + says[27:29]


@pytest.mark.parametrize("ppm", [-3000, 3000])
def test_clocks_that_run_apart_cost_a_counted_frame_now_and_then_and_no_delay(room: Room, ppm: int) -> None:
    """The caller's and the representative's clocks run fast or slow against the beat; a third hears both."""
    (a, pa), (b, pb), (_, pc) = room.join("caller"), room.join("representative"), room.join("representative", "second")
    due = 0.0
    for n in range(6000):  # two minutes
        due += 1 + ppm / 1e6
        says = [(pb, B), (pc, SILENT_FRAME)]
        while due >= 1:
            due -= 1
            says.append((pa, A))
            a.tick()
        room.beat(*says)
        if n > 50:
            assert len(pa._arrived) <= 1
            assert len(a.ring) <= 3
        b.tick()
    drift = 6000 * abs(ppm) // 1_000_000
    stats = pa.stats
    if ppm > 0:
        assert drift - 2 <= stats.dropped_frames <= drift + 2
        assert a.empty_ticks <= drift + 2
    else:
        assert drift - 2 <= stats.repeated_frames + stats.missing_frames <= drift + 2
        assert drift - 4 <= stats.skipped_frames <= drift + 2
    assert pb.stats.dropped_frames == pb.stats.skipped_frames == 0


def test_a_bridged_call_adds_at_most_two_frames_after_a_burst_has_been_worked_off(room: Room) -> None:
    (_, pa), (b, _) = room.join("caller", networked=True), room.join("representative")
    for n in range(10):
        pa.receive(A, n * 20)  # a stall of 200 ms comes all at once
    assert len(b.ring) == 10
    for n in range(300):
        pa.receive(A, 200 + n * 20)
        b.tick()
    assert len(b.ring) <= 2
    assert b.port is not None
    assert b.port.stats.skipped_frames == 9


@given(
    arrives_ms=st.floats(0, 20),
    ticks_ms=st.floats(0, 20),
    mixed=st.booleans(),
    late_ms=st.lists(st.floats(0, 9), min_size=7, max_size=13),
)
@settings(max_examples=30, deadline=None)
def test_between_two_sip_legs_at_most_two_frames_are_added_to_the_wait_for_the_far_ends_clock(
    arrives_ms: float, ticks_ms: float, mixed: bool, late_ms: list[float]
) -> None:
    """Clocks in any phase to one another, and beats late by up to 9 ms; passed on, or in a room of three."""
    room = Room()
    (_, pa), (b, _) = room.join("caller"), room.join("representative")
    if mixed:
        room.join("supervisor")
    events = sorted(
        event
        for n in range(500)
        for event in (
            (n * 20 + arrives_ms, "arrives"),
            (n * 20 + ticks_ms, "ticks"),
            (n * 20 + late_ms[n % len(late_ms)], "beats"),
        )
    )
    said: list[float] = []
    delays: list[float] = []
    for at, what in events:
        room.clock.advance(at / 1000 - (room.clock.now() - 1000))
        if what == "arrives":
            pa.receive(bytes([len(said) // 100, len(said) % 100]) + SILENT_FRAME[2:], len(said) * 20)
            said.append(at)
        elif what == "beats":
            room.heartbeat.beat(room.clock.now())
        else:
            heard = len(b.heard)
            b.tick()
            if len(b.heard) > heard and b.heard[-1] != SILENT_FRAME:
                delays.append(at - said[b.heard[-1][0] * 100 + b.heard[-1][1]])
    settled = delays[100:]
    assert len(settled) > 380
    assert max(settled) <= 40 + 20
    assert sum(settled) / len(settled) <= 50


def test_over_a_network_the_marks_own_way_is_not_taken_for_a_queue(room: Room) -> None:
    """Marks 120 ms late from the first on: nothing is skipped. Then 200 ms more wait there: most of that is."""
    (_, pa), (b, pb) = room.join("caller"), room.join("representative", networked=True)
    underway: list[Message] = []  # marks

    def play(count: int) -> None:
        for _ in range(count):
            pa.receive(A, 0)
            if b.ring:
                underway.append(b.ring.pop(0))
                if len(underway) > 6:
                    pb.mark_returned(underway.pop(0).mark)

    play(200)
    assert pb.stats.skipped_frames == 0
    for _ in range(10):
        pa.receive(A, 0)
    assert len(b.ring) == 10
    play(500)
    assert pb.stats.skipped_frames == 9
    assert len(b.ring) <= 1


def test_a_network_that_has_become_slower_costs_a_few_frames_not_one_in_each_window(room: Room) -> None:
    (_, pa), (b, pb) = room.join("caller"), room.join("representative", networked=True)
    sent: list[int] = []
    for n in range(4000):
        pa.receive(A, 0)
        sent.append(len(b.sent))
        late = 3 if n < 500 else 15  # a mark tells what was played then, however little is on its way now
        if n >= late:
            pb.mark_returned(b.sent[sent[n - late] - 1].mark)
    assert 1 <= pb.stats.skipped_frames <= 10


def test_over_a_network_a_mark_follows_each_tenth_of_a_second(room: Room) -> None:
    (_, pa), (b, _) = room.join("caller"), room.join("representative", networked=True)
    for n in range(12):
        pa.receive(A, n * 20)
    assert [m.mark for m in b.sent if m.mark] == ["c100", "c200"]
    assert len(b.sent) == 12


def test_marks_that_never_come_back_skip_nothing(room: Room) -> None:
    (_, pa), (b, pb) = room.join("caller"), room.join("representative", networked=True)
    for n in range(500):
        pa.receive(A, n * 20)
    assert len(b.sent) == 500
    for strange in ("", "c", "cx", "c" + "9" * 5000, "0:340", "c99999999"):
        pb.mark_returned(strange)
    pa.receive(A, 0)
    assert len(b.sent) == 501


def test_a_leg_that_does_not_read_is_sent_nothing_and_goes_on_when_it_does(room: Room) -> None:
    (_, pa), (b, pb) = room.join("caller"), room.join("representative")
    b.writable = False
    pa.receive(A, 0)
    assert b.sent == []
    assert pb.stats.refused_frames == 1
    b.writable = True
    pa.receive(B, 20)
    assert b.latest == B


# --- the agent's seat ---


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
        self.told.append(f"crashed: {error}")


def bus_on(room: Room, leg: Leg | Seat, lead: LeadPolicy | None = None) -> Bus:
    bus = Bus(leg, room.ears, room.heartbeat, room.clock, lead)
    bus.listener = Agent()
    return bus


def agent(room: Room) -> tuple[Bus, Seat]:
    seat = room.seat()
    bus = bus_on(room, seat)
    seat.plug(bus)
    return bus, seat


def speak(bus: Bus, ms: int) -> None:
    bus.begin()
    offset = bus.position_ms
    bus.append(b"\x20" * ms * 8, [Word(f"w{i}", i * 100, (i + 1) * 100) for i in range(ms // 100)], offset)
    bus.end()


def test_the_agent_says_a_frame_a_beat_and_hears_one_also_of_nobody(room: Room) -> None:
    (a, pa) = room.join("caller")
    bus, _ = agent(room)
    speak(bus, 200)
    for _ in range(10):
        assert bus.heard_ms < 200
        room.beat((pa, SILENT_FRAME))
        assert a.latest == b"\x20" * FRAME
    assert bus.heard_ms == 200
    room.beat()
    assert bus.stats.received_frames == 11
    assert bus.stats.lost_ms == 0
    assert isinstance(bus.listener, Agent)
    assert bus.listener.told == ["first audio", "heard"]


def test_what_the_agent_was_heard_to_say_is_exact_when_it_is_interrupted(room: Room) -> None:
    (a, pa) = room.join("caller")
    bus, _ = agent(room)
    speak(bus, 2000)
    for _ in range(25):
        room.beat((pa, SILENT_FRAME))
    assert bus.cut() == 500
    assert bus.heard_text(0).split() == ["w0", "w1", "w2", "w3", "w4"]
    room.beat((pa, SILENT_FRAME))
    assert a.latest == SILENT_FRAME


def test_an_answer_begun_on_the_leg_is_finished_in_the_room_without_loss(room: Room) -> None:
    """The switchboard's way: bus on the leg, then the leg in a room and the bus in a seat, then back."""
    leg = Leg()
    bus = bus_on(room, leg, LeadPolicy(60, 60, 60, 20))
    ms = 0
    answer = b"".join(bytes([n]) * FRAME for n in range(100))

    def beats(count: int, port: Port | None) -> None:
        nonlocal ms
        for _ in range(count):
            ms += 20
            room.clock.advance(0.02)
            (port or bus).receive(SILENT_FRAME, ms)
            if leg.ring:
                message = leg.ring.pop(0)
                leg.heard.append(message.audio)
                (port or bus).mark_returned(message.mark)
            room.heartbeat.beat(room.clock.now())

    bus.begin()
    bus.append(answer, (), 0)
    bus.end()
    beats(20, None)
    port, seat = room.conference.join(leg, "caller", "caller"), room.seat()
    assert isinstance(port, Port)
    room.conference.take_taps(bus)
    seat.plug(bus)
    beats(40, port)
    room.conference.close()
    seat.unplug(leg)
    beats(60, None)
    said = [audio[at] for audio in leg.heard for at in range(0, len(audio), FRAME) if audio != SILENT_FRAME]
    assert said == list(range(100))
    assert isinstance(bus.listener, Agent)
    assert bus.listener.told == ["first audio", "heard"]
    assert bus.stats.lost_ms == 0
    assert bus.heard_ms == len(answer) // 8


def test_a_seat_that_is_too_full_says_so_until_it_is_half_empty(room: Room) -> None:
    room.join("caller")
    seat = room.seat()
    bus = bus_on(room, seat)
    seat.plug(bus)
    seat.send([Message(SILENT_FRAME * 100, "0:2000", 0.0)])
    assert not seat.writable
    for _ in range(51):
        room.beat()
    assert seat.writable
    assert seat.clear() == 49 * 20
    assert seat.clear() == 0


# --- crowds, crashes, the end ---


def test_a_ninth_is_refused_and_two_of_a_name_are_a_bug(room: Room) -> None:
    for n in range(MAX_MEMBERS):
        room.join("representative", f"r{n}")
    refused = room.conference.join(Leg(), "caller", "late")
    assert isinstance(refused, Refuse)
    assert refused.code == "conference_full"
    room.conference.leave(room.conference.members[0])
    with pytest.raises(MisuseError):
        room.conference.join(Leg(), "representative", "r3")


def test_one_members_crash_ends_that_member_only(room: Room) -> None:
    (a, pa), (b, pb), (c, pc) = room.join("caller"), room.join("representative"), room.join("representative", "second")
    c.broken = RuntimeError("ours")
    room.beat((pa, A), (pb, B), (pc, C))
    assert [name for name, _ in room.crashes] == ["second"]
    assert not pc.inside
    pa.receive(A, 100)
    assert b.latest == A
    b.broken = RuntimeError("ours too")
    pa.receive(A, 120)  # does not raise into the caller's leg
    assert [name for name, _ in room.crashes] == ["second", "representative"]
    room.beat((pa, A))
    assert a.latest == SILENT_FRAME


def test_a_bus_that_crashes_leaves_the_people_talking(room: Room) -> None:
    (a, pa), (_, pb) = room.join("caller"), room.join("representative")
    bus, seat = agent(room)

    def burst(audio: bytes) -> None:
        raise RuntimeError("the recogniser's feed")

    bus.feed(burst, 0)
    room.beat((pa, A), (pb, B))
    assert [name for name, _ in room.crashes] == ["agent"]
    assert not seat.inside
    assert a.latest == B
    pb.receive(D, 100)
    assert a.latest == D


def test_a_member_that_leaves_while_the_beat_runs_hears_no_more(room: Room) -> None:
    (a, pa) = room.join("caller")
    bus, _ = agent(room)
    bus.feed(lambda audio: room.conference.close(), 0)
    room.beat((pa, A))
    assert len(a.sent) == 1
    assert room.crashes == []
    room.beat((pa, A))
    assert len(a.sent) == 1


def test_an_empty_room_needs_no_beat_and_closes_its_taps_once(room: Room) -> None:
    tap = Tap()
    room.conference.taps.append(tap)
    room.join("caller")
    assert room.conference.pump(0.0) is not None
    room.conference.close()
    room.conference.close()
    assert room.conference.pump(0.0) is None
    assert tap.closed == 1


# --- the recording ---


def test_a_recording_has_what_the_caller_said_and_what_the_caller_heard_and_no_whisper(room: Room) -> None:
    tap = Tap()
    room.conference.taps.append(tap)
    (_, pa), (_, pb), (_, ps) = room.join("caller"), room.join("representative"), room.join("supervisor")
    room.conference.supervise(ps, "whisper")
    room.beat((pa, A), (pb, B), (ps, C))
    room.conference.hold(pa, hold_music().play())
    room.beat((pa, D), (pb, B), (ps, C))
    said = [(at, audio) for channel, at, audio in tap.written if channel == "caller"]
    heard = [(at, audio) for channel, at, audio in tap.written if channel == "agent"]
    assert said == [(160, A), (320, D)]
    assert heard == [(160, B), (320, hold_music().audio[:FRAME])]


def test_a_recording_goes_on_on_the_buss_own_timeline(room: Room) -> None:
    leg, tap = Leg(), Tap()
    bus = bus_on(room, leg)
    bus.taps.append(tap)
    bus.receive(A, 5000)
    (_, pa), (_, pb) = room.join("caller"), room.join("representative")
    room.conference.take_taps(bus)
    pa.receive(B, 5020)
    pb.receive(C, 0)
    room.conference.give_taps(bus)
    bus.receive(D, 5040)
    assert tap.written == [("caller", 0, A), ("caller", 160, B), ("agent", 160, C), ("caller", 320, D)]


def test_what_is_keyed_in_secret_is_heard_by_nobody_in_the_room_nor_by_its_recording(room: Room) -> None:
    """A supervisor comes within the entry, or right after it; and goes within what follows it."""
    leg, tap = Leg(), Tap()
    bus = bus_on(room, leg)
    bus.taps.append(tap)
    bus.receive(A, 0)
    bus.deafen()
    (_, pa), (supervisor, _) = room.join("caller"), room.join("supervisor")
    room.conference.take_taps(bus)
    for _ in range(3):
        room.beat((pa, B))
    bus.hear_again()
    room.beat((pa, B))
    room.conference.give_taps(bus)
    bus.receive(B, room.ms)
    room.conference.take_taps(bus)
    while room.ms < 60 + DEAF_TAIL_MS - FRAME_MS:
        room.beat((pa, B))
    assert {audio for channel, _, audio in tap.written if channel == "caller"} == {A, SILENT_FRAME}
    assert {message.audio for message in supervisor.sent} <= {SILENT_FRAME}
    room.beat((pa, C))
    room.beat((pa, C))
    assert ("caller", room.ms * 8, C) in tap.written
    assert supervisor.latest == C


def test_what_the_caller_hears_lies_in_a_recording_without_seams_though_beats_come_unevenly(room: Room) -> None:
    tap = Tap()
    room.conference.taps.append(tap)
    (_, pa), (_, pb), (_, pc) = room.join("caller"), room.join("representative"), room.join("representative", "second")
    for n in range(100):
        for port in (pa, pb, pc):
            port.receive(B, n * 20)
        late_s = n % 4 * 0.005
        room.heartbeat.beat(room.clock.advance(late_s))
        room.clock.advance(0.02 - late_s)
    positions = [at for channel, at, _ in tap.written if channel == "agent"]
    assert all(b - a == FRAME for a, b in pairwise(positions))
