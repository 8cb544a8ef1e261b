import struct

from hypothesis import given
from hypothesis import strategies as st

from trunkline.testing.caller.sip.rtp import LATE_MS, Packet, Playout, Receiver, Sender, parse


def packet(sequence: int, timestamp: int | None = None, ssrc: int = 7) -> Packet:
    stamp = sequence * 160 if timestamp is None else timestamp
    return Packet(0, False, sequence & 0xFFFF, stamp & 0xFFFFFFFF, ssrc, b"\x10" * 160)


def received(*sequences: int) -> Receiver:
    receiver = Receiver()
    for i, sequence in enumerate(sequences):
        receiver.seen(packet(sequence), i * 0.02)
    return receiver


def sent(sender: Sender, digits: str = "", ticks: int = 1) -> list[Packet]:
    packets = []
    for _ in range(ticks):
        sender.tick()
        if digits:
            sender.key(digits)
            digits = ""
        raw = sender.event(101) if sender.keying else sender.audio(b"\x10" * 160, 0)
        found = parse(raw)
        assert found is not None
        packets.append(found)
    return packets


def test_audio_is_numbered_and_timed_and_begins_with_a_marker() -> None:
    first, second, third = sent(Sender(7, 0xFFFE, 0xFFFFFF00), ticks=3)
    assert (first.sequence, second.sequence, third.sequence) == (0xFFFE, 0xFFFF, 0)
    assert (second.timestamp - first.timestamp) & 0xFFFFFFFF == 160
    assert [p.marker for p in (first, second, third)] == [True, False, False]
    assert {p.ssrc for p in (first, second)} == {7}


def test_time_runs_on_while_nothing_is_sent_and_the_next_packet_is_marked() -> None:
    sender = Sender(7, 0, 0)
    (before,) = sent(sender)
    for _ in range(5):
        sender.tick()
    (after,) = sent(sender)
    assert after.timestamp - before.timestamp == 6 * 160
    assert after.sequence == before.sequence + 1
    assert after.marker


def test_a_digit_is_one_event_with_three_end_packets() -> None:
    sender = Sender(7, 0, 0)
    events = sent(sender, "#", ticks=7)
    assert [p.payload_type for p in events] == [101] * 7
    assert {p.timestamp for p in events} == {160}
    assert [p.marker for p in events] == [True] + [False] * 6
    bodies = [struct.unpack("!BBH", p.payload) for p in events]
    assert [b[0] for b in bodies] == [11] * 7
    assert [bool(b[1] & 0x80) for b in bodies] == [False] * 4 + [True] * 3
    assert [b[2] for b in bodies] == [160, 320, 480, 640, 800, 800, 800]
    (audio,) = sent(sender)
    assert (audio.payload_type, audio.marker, audio.timestamp) == (0, True, 160 * 8)


def test_padding_extensions_and_sources_are_stripped() -> None:
    header = struct.pack("!BBHII", 0x80 | 0x20 | 0x10 | 1, 8, 1, 2, 3)
    data = header + b"csrc" + struct.pack("!HH", 1, 1) + b"ext." + b"audio" + b"\0\0\x03"
    found = parse(data)
    assert found is not None
    assert found.payload == b"audio"


def test_what_is_no_rtp_is_none() -> None:
    rtcp = struct.pack("!BBH", 0x81, 200, 6) + bytes(24)
    for data in (b"", bytes(20), rtcp, b"\x90\x00" + bytes(10) + b"\0\0\xff\xff", b"\xa0\x00" + bytes(9) + b"\xff"):
        assert parse(data) is None


@given(st.binary(max_size=64))
def test_noise_never_breaks_the_parser(data: bytes) -> None:
    found = parse(data)
    assert found is None or len(found.payload) <= len(data) - 12


def test_loss_is_counted_by_sequence_and_taken_back_when_a_packet_comes_after_all() -> None:
    assert received(1, 2, 3, 4).counts.lost == 0
    assert received(1, 2, 5, 6).counts.lost == 2
    late = received(1, 2, 5, 4, 6).counts
    assert (late.lost, late.reordered) == (1, 1)
    assert received(65534, 65535, 0, 1).counts.lost == 0
    assert received(1, 2, 2, 3).counts.duplicate == 1


def test_intervals_are_between_neighbours_only() -> None:
    receiver = received(1, 2, 5, 6)
    assert [round(v) for v in receiver.intervals_ms] == [20, 20]


def test_another_source_or_a_jump_is_a_restart_and_no_loss() -> None:
    receiver = received(1, 2, 30_000, 30_001)
    assert (receiver.counts.restarts, receiver.counts.lost) == (1, 0)
    receiver.seen(packet(5, ssrc=8), 1.0)
    assert receiver.counts.restarts == 2


def test_a_packet_far_behind_the_streams_own_clock_is_late() -> None:
    receiver = Receiver()
    for i in range(10):
        receiver.seen(packet(i), i * 0.02 + (LATE_MS / 1000 + 0.005 if i == 7 else 0.0))
    assert receiver.counts.late == 1
    assert receiver.counts.jitter_ms > 1


def test_a_sender_that_lost_time_for_good_is_late_for_some_seconds_only() -> None:
    receiver = Receiver()
    for i in range(2000):
        receiver.seen(packet(i), i * 0.02 + (0.1 if i >= 100 else 0.0))
    assert 250 <= receiver.counts.late <= 500


def test_the_playout_buffer_waits_then_plays_a_frame_a_tick() -> None:
    playout = Playout(delay_ms=40)
    playout.put(0, b"\x01" * 160)
    assert playout.take() is None
    playout.put(160, b"\x02" * 160)
    assert [playout.take() for _ in range(3)] == [b"\x01" * 160, b"\x02" * 160, None]


def test_a_hole_is_played_as_silence_and_what_comes_late_is_counted() -> None:
    playout = Playout(delay_ms=60)
    playout.put(0, b"\x01" * 160)
    playout.put(320, b"\x03" * 160)
    playout.put(160, b"\x02" * 160)
    assert [playout.take() for _ in range(3)] == [b"\x01" * 160, b"\xff" * 160, b"\x03" * 160]
    assert playout.late == 1


def test_a_far_end_that_runs_fast_does_not_fill_the_buffer() -> None:
    playout = Playout(delay_ms=40, limit_ms=100)
    for i in range(10):
        playout.put(i * 160, bytes([i]) * 160)
    assert playout.dropped_ms == 100
    assert playout.take() == bytes([5]) * 160
