import random

from hypothesis import given
from hypothesis import strategies as st

from trunkline.gateway.webrtc.incoming import (
    FIRST_PATIENCE_S,
    MAX_HELD,
    MAX_PATIENCE_S,
    MIN_PATIENCE_S,
    Incoming,
    Piece,
)
from trunkline.gateway.webrtc.rtp import Packet

START = 65_530  # it wraps within a few packets


def packet(n: int, *, ssrc: int = 1, late_steps: int = 0) -> Packet:
    time = (4_294_960_000 + (n + late_steps) * 960) & 0xFFFFFFFF
    return Packet(111, False, (START + n) & 0xFFFF, time, ssrc, b"%d" % n)


def played(pieces: list[Piece]) -> list[tuple[str, int, bytes]]:
    return [(p.kind, p.position_ms, p.payload) for p in pieces]


def test_what_is_next_goes_on_as_it_comes() -> None:
    incoming = Incoming()
    for n in range(20):
        assert played(incoming.push(packet(n), 20, n * 0.02)) == [("audio", n * 20, b"%d" % n)]
    assert not incoming.waiting


def test_a_swapped_pair_is_put_in_order() -> None:
    incoming = Incoming()
    incoming.push(packet(0), 20, 0.0)
    assert incoming.push(packet(2), 20, 0.04) == []
    assert incoming.waiting
    assert played(incoming.push(packet(1), 20, 0.05)) == [("audio", 20, b"1"), ("audio", 40, b"2")]
    assert incoming.lost == 0


def test_a_lost_packet_is_concealed_from_the_one_after_it() -> None:
    incoming = Incoming()
    incoming.push(packet(0), 20, 0.0)
    incoming.push(packet(2), 20, 0.04)
    assert incoming.due(0.04 + FIRST_PATIENCE_S - 0.01) == []
    pieces = incoming.due(0.04 + FIRST_PATIENCE_S)
    assert played(pieces) == [("lost", 20, b"2"), ("audio", 40, b"2")]
    assert incoming.lost == 1
    assert played(incoming.push(packet(3), 20, 0.2)) == [("audio", 60, b"3")]


def test_a_long_hole_is_concealed_at_its_end_only_and_keeps_its_place() -> None:
    incoming = Incoming()
    incoming.push(packet(0), 20, 0.0)
    incoming.push(packet(31), 20, 0.62)
    pieces = incoming.due(1.0)
    assert [p.kind for p in pieces] == ["lost"] * 5 + ["audio"]
    assert (pieces[0].position_ms, pieces[-1].position_ms) == (620 - 100, 620)
    assert incoming.lost == 30


def test_patience_grows_by_who_comes_late_and_shrinks_by_who_does_not() -> None:
    incoming = Incoming()
    incoming.push(packet(0), 20, 0.0)
    incoming.push(packet(2), 20, 0.04)
    incoming.due(0.10)
    assert incoming.push(packet(1), 20, 0.12) == []  # 20 ms after it was given up
    assert incoming.late == 1
    assert incoming.patience_s > FIRST_PATIENCE_S + 0.02
    assert incoming.patience_s <= MAX_PATIENCE_S
    for n in range(3, 5000):
        incoming.push(packet(n), 20, n * 0.02)
    assert incoming.patience_s == MIN_PATIENCE_S


def test_twice_is_once() -> None:
    incoming = Incoming()
    incoming.push(packet(0), 20, 0.0)
    assert incoming.push(packet(0), 20, 0.0) == []
    incoming.push(packet(2), 20, 0.0)
    assert incoming.push(packet(2), 20, 0.0) == []
    assert (incoming.repeated, incoming.late) == (2, 0)


def test_a_pause_of_the_clock_alone_is_silence() -> None:
    """DTX: the numbers go on, time has leapt."""
    incoming = Incoming()
    incoming.push(packet(0), 20, 0.0)
    pieces = incoming.push(packet(1, late_steps=20), 20, 0.44)
    assert [(p.kind, p.position_ms, p.length_ms) for p in pieces] == [("silence", 20, 400), ("audio", 420, 20)]


def test_another_stream_goes_on_where_time_has_got_to() -> None:
    incoming = Incoming()
    incoming.push(packet(0), 20, 10.0)
    pieces = incoming.push(packet(9000, ssrc=2), 20, 11.0)
    assert played(pieces) == [("audio", 1020, b"9000")]
    assert incoming.restarts == 1


def test_no_more_is_held_than_a_second() -> None:
    incoming = Incoming()
    incoming.push(packet(0), 20, 0.0)
    pieces: list[Piece] = []
    for n in range(2, 100):
        pieces += incoming.push(packet(n), 20, 0.0)
        assert len(incoming._held) <= MAX_HELD
    assert [p.payload for p in pieces if p.kind == "audio"][:1] == [b"2"]


def test_behind_a_second_gap_nothing_waits_for_longer_than_behind_one() -> None:
    incoming = Incoming()
    incoming.push(packet(0), 20, 0.0)
    incoming.push(packet(2), 20, 0.04)
    incoming.push(packet(4), 20, 0.04)
    assert [p.payload for p in incoming.due(0.04 + incoming.patience_s) if p.kind == "audio"] == [b"2", b"4"]


@given(st.integers(0, 1 << 30), st.integers(0, 20), st.integers(0, 60))
def test_whatever_the_network_does_time_goes_forward_and_nothing_is_heard_twice(
    seed: int, loss_percent: int, jitter_ms: int
) -> None:
    rng = random.Random(seed)
    sent = [(n * 0.02 + rng.random() * jitter_ms / 1000, n) for n in range(200) if rng.randrange(100) >= loss_percent]
    sent.sort()
    incoming, pieces, now = Incoming(), list[Piece](), 0.0
    for at, n in sent:
        while now + 0.02 <= at:
            now += 0.02
            pieces += incoming.due(now)
        pieces += incoming.push(packet(n), 20, at)
    pieces += incoming.due(now + 10)
    ends = 0
    for piece in pieces:
        assert piece.position_ms >= ends
        ends = piece.position_ms + piece.length_ms
    heard = [int(p.payload) for p in pieces if p.kind == "audio"]
    assert heard == sorted(set(heard))
    assert len(heard) + incoming.late + incoming.restarts >= len(sent) - 1 - incoming.repeated
    if jitter_ms <= 15:
        assert incoming.late == 0
