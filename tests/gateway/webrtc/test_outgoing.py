from itertools import pairwise

from trunkline.gateway.webrtc.outgoing import HANGOVER_FRAMES, KEEPALIVE_S, STEP, Due, Outgoing, webrtc_lead
from trunkline.media.playout import Message

FRAME = 160


def message(n: int, frames: int = 1) -> Message:
    return Message(bytes([n]) * FRAME * frames, f"0:{n}", 0.0)


class Beats:
    """An Outgoing, asked every 20 ms."""

    def __init__(self) -> None:
        self.now = 100.0
        self.outgoing = Outgoing(self.now, webrtc_lead(60))
        self.marks: list[str] = []

    def beat(self, after_s: float = 0.02) -> list[Due]:
        self.now += after_s
        return self.outgoing.due(self.now, self.marks.append)


def test_one_frame_leaves_a_beat_and_its_mark_with_it() -> None:
    beats = Beats()
    beats.outgoing.put([message(1), message(2), message(3)])
    sent = [beats.beat() for _ in range(3)]
    assert [[due.audio[0] for due in one] for one in sent] == [[1], [2], [3]]
    assert beats.marks == ["0:1", "0:2", "0:3"]
    times = [one[0].timestamp for one in sent]
    assert [b - a for a, b in pairwise(times)] == [STEP, STEP]
    assert [one[0].begins for one in sent] == [True, False, False]


def test_a_mark_waits_for_the_last_frame_of_its_message() -> None:
    beats = Beats()
    beats.outgoing.put([message(1, frames=2)])
    beats.beat()
    assert beats.marks == []
    beats.beat()
    assert beats.marks == ["0:1"]


def test_a_late_beat_is_made_up() -> None:
    beats = Beats()
    beats.outgoing.put([message(n) for n in range(1, 5)])
    beats.beat()
    assert len(beats.beat(0.06)) == 3


def test_after_a_pause_nothing_is_made_up() -> None:
    beats = Beats()
    for _ in range(HANGOVER_FRAMES + 5):
        beats.beat()
    beats.beat(0.05)
    beats.outgoing.put([message(1), message(2), message(3)])
    assert len(beats.beat(0.001)) == 1
    assert len(beats.beat()) == 1


def test_clear_drops_what_has_not_left_and_says_how_much() -> None:
    beats = Beats()
    beats.outgoing.put([message(1), message(2), message(3)])
    beats.beat()
    assert beats.outgoing.clear() == 40
    assert all(not due.audio for due in beats.beat())
    assert beats.marks == ["0:1"]


def test_silence_follows_the_last_word_and_then_only_now_and_then() -> None:
    beats = Beats()
    beats.outgoing.put([message(1)])
    beats.beat()
    tail = [beats.beat() for _ in range(HANGOVER_FRAMES)]
    assert all(len(one) == 1 and not one[0].audio for one in tail)
    seconds = [due for _ in range(100) for due in beats.beat()]
    assert 2 / KEEPALIVE_S - 2 <= len(seconds) <= 2 / KEEPALIVE_S + 1


def test_the_clock_of_rtp_runs_on_through_silence() -> None:
    beats = Beats()
    beats.outgoing.put([message(1)])
    first = beats.beat()[0].timestamp
    for _ in range(99):
        beats.beat()
    beats.outgoing.put([message(2)])
    second = beats.beat()[0]
    assert second.begins
    assert abs((second.timestamp - first) - 100 * STEP) <= STEP


def test_timestamps_never_repeat() -> None:
    beats = Beats()
    seen = []
    for n in range(400):
        if n % 37 < 5:
            beats.outgoing.put([message(n % 200)])
        seen += [due.timestamp for due in beats.beat(0.013 if n % 3 else 0.034)]
    assert seen == sorted(set(seen))


def test_a_queue_that_nobody_empties_takes_no_more() -> None:
    outgoing = Outgoing(0.0, webrtc_lead(60))
    outgoing.put([message(n) for n in range(9)])
    assert not outgoing.writable
    outgoing.due(0.2, lambda mark: None)
    for n in range(20):
        outgoing.due(0.2 + n * 0.02, lambda mark: None)
    assert outgoing.writable
