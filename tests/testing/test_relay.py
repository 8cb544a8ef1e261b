from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from trunkline.testing.relay import HELD_BYTES, SEGMENT_BYTES, Impairment, Path


def run(path: Path, sends: list[tuple[float, bytes]], until: float) -> list[tuple[float, bytes]]:
    """Every arrival with its time, by a clock that steps from one due time to the next."""
    arrived: list[tuple[float, bytes]] = []
    waiting = list(sends)
    now = 0.0
    while now < until:
        ahead = [at for at in (path.next_at, waiting[0][0] if waiting else None) if at is not None]
        if not ahead:
            break
        now = max(now, min(ahead))
        while waiting and waiting[0][0] <= now:
            path.push(waiting.pop(0)[1], now)
        arrived += [(now, piece) for piece in path.pop(now)]
    return arrived


def steady(count: int, size: int = 300) -> list[tuple[float, bytes]]:
    return [(i * 0.1, bytes([i % 256]) * size) for i in range(count)]


def test_a_perfect_path_passes_everything_at_once() -> None:
    sends = steady(50)
    assert run(Path(Impairment(), 1, 0.0), sends, 60) == sends


def test_a_lone_lost_segment_waits_for_the_timer_and_holds_what_is_behind_it() -> None:
    path = Path(Impairment(loss=0.5), 7, 0.0)  # a seed that loses the first and not the second
    path.push(b"first", 0.0)
    path.push(b"second", 0.05)
    assert path.stats.lost == 1
    assert path.pop(0.19) == []
    assert 0.2 <= (path.next_at or 0) <= 0.25
    assert path.pop(0.25) == [b"firstsecond"]
    assert 200 <= path.stats.latest_ms <= 251


def test_a_loss_within_a_burst_is_noticed_within_two_round_trips() -> None:
    path = Path(Impairment(loss=1.0, round_trip_ms=20), 1, 0.0)
    path.push(bytes(3 * SEGMENT_BYTES), 0.0)
    assert path.pop(0.019) == []
    assert sum(map(len, path.pop(0.041))) == 3 * SEGMENT_BYTES


def test_the_share_of_lost_segments_is_the_one_asked_for_and_the_same_for_a_seed() -> None:
    arrivals = []
    for seed in (7, 7, 8):
        path = Path(Impairment(loss=0.02), seed, 0.0)
        arrivals.append(run(path, steady(5000), 600))
        assert 60 <= path.stats.lost <= 140
    assert arrivals[0] == arrivals[1] != arrivals[2]


def test_stalls_come_every_few_seconds_and_nothing_passes_meanwhile() -> None:
    path = Path(Impairment(stall_every_s=3.0, stall_ms=300), 3, 0.0)
    arrived = run(path, [(i * 0.02, b"x") for i in range(3000)], 90)
    times = [at for at, _ in arrived]
    pauses = [b - a for a, b in pairwise(times) if b - a > 0.1]
    assert 13 <= len(pauses) <= 25  # 60 s
    assert all(0.28 <= pause <= 0.33 for pause in pauses)
    assert path.stats.stalls == len(pauses)


def test_a_narrow_path_takes_its_time() -> None:
    path = Path(Impairment(bytes_per_s=10_000), 1, 0.0)
    arrived = run(path, [(0.0, bytes(20_000))], 10)
    assert 1.9 < arrived[-1][0] < 2.1


def test_a_frozen_path_gives_nothing_until_it_thaws() -> None:
    path = Path(Impairment(), 1, 0.0)
    path.frozen = True
    path.push(bytes(HELD_BYTES + 1), 0.0)
    assert path.next_at is None
    assert path.pop(100.0) == []
    assert path.held_bytes > HELD_BYTES
    path.frozen = False
    assert sum(map(len, path.pop(100.0))) == HELD_BYTES + 1


@given(
    st.integers(0, 1000),
    st.lists(st.tuples(st.floats(0, 0.5), st.binary(min_size=1, max_size=4000)), max_size=30),
    st.sampled_from([0.0, 0.1, 0.9]),
    st.sampled_from([None, 0.5]),
    st.sampled_from([None, 20_000]),
    st.sampled_from([None, 1, 700]),
)
def test_bytes_come_whole_and_in_order_whatever_the_path_does(
    seed: int,
    gaps: list[tuple[float, bytes]],
    loss: float,
    stall_every_s: float | None,
    bytes_per_s: int | None,
    piece_bytes: int | None,
) -> None:
    impairment = Impairment(loss=loss, stall_every_s=stall_every_s, bytes_per_s=bytes_per_s, piece_bytes=piece_bytes)
    sends, at = [], 0.0
    for gap, data in gaps:
        at += gap
        sends.append((at, data))
    path = Path(impairment, seed, 0.0)
    arrived = run(path, sends, 1000)
    assert b"".join(piece for _, piece in arrived) == b"".join(data for _, data in sends)
    assert path.held_bytes == 0
    assert all(1 <= len(piece) <= piece_bytes for _, piece in arrived) if piece_bytes else True
