"""The playout against a far end that plays what it was sent, on a manual clock."""

import random

from hypothesis import given
from hypothesis import strategies as st

from trunkline.media.playout import LeadPolicy, Playout
from trunkline.ports import Word
from trunkline.types import FRAME_MS, MULAW_8K

WORD_MS = 240


class FarEnd:
    """Plays 20 ms a tick from its buffer, returns marks when reached, all of them on a clear. One-way delay 0."""

    def __init__(self, playout: Playout) -> None:
        self.playout, self.now, self.carrier_ms = playout, 100.0, 0
        self.buffer: list[bytes | str] = []
        self.played = bytearray()
        self.marks: list[str] = []
        self.silent_ticks = 0

    def send_due(self) -> None:
        for audio, mark, _, _ in self.playout.due(self.now):
            assert len(audio) % MULAW_8K.frame_bytes == 0
            self.buffer += [audio[i : i + 160] for i in range(0, len(audio), 160)]
            self.buffer.append(mark)

    def tick(self, *, return_marks: bool = True, receive: bool = True) -> None:
        if receive:
            self.send_due()
        self.now += FRAME_MS / 1000
        self.carrier_ms += FRAME_MS
        if self.buffer and isinstance(self.buffer[0], bytes):
            self.played += self.buffer.pop(0)  # type: ignore[arg-type]
        elif self.playout.speaking:
            self.silent_ticks += 1
        while self.buffer and isinstance(self.buffer[0], str):
            self.marks.append(self.buffer.pop(0))  # type: ignore[arg-type]
        if return_marks:
            self.flush_marks()

    def flush_marks(self) -> None:
        for mark in self.marks:
            self.playout.mark_returned(mark, self.carrier_ms, self.now)
        self.marks.clear()

    def clear(self) -> None:
        self.marks += [m for m in self.buffer if isinstance(m, str)]
        self.buffer.clear()

    def run(self, ticks: int) -> None:
        for _ in range(ticks):
            self.tick()


def answer(playout: Playout, words: int) -> bytes:
    """Each word is 240 ms of one byte value, so that what was played tells which words were."""
    playout.begin()
    offset = playout.end_ms
    audio = b"".join(bytes([i % 200]) * (WORD_MS * 8) for i in range(words))
    playout.append(audio)
    playout.ledger.add([Word(f"w{i}", i * WORD_MS, (i + 1) * WORD_MS) for i in range(words)], offset)
    playout.end()
    return audio


def test_an_answer_is_played_whole_without_a_gap_and_then_is_heard() -> None:
    playout = Playout(MULAW_8K)
    far = FarEnd(playout)
    audio = answer(playout, 20)
    far.run(20 * WORD_MS // FRAME_MS)
    assert bytes(far.played) == audio
    assert far.silent_ticks == 0
    assert playout.all_heard
    assert playout.ledger.text(0, playout.heard_ms(far.carrier_ms)).split() == [f"w{i}" for i in range(20)]


def test_the_far_end_holds_the_lead_and_no_more() -> None:
    playout = Playout(MULAW_8K, LeadPolicy(start_ms=400, min_ms=400))
    far = FarEnd(playout)
    answer(playout, 40)
    far.send_due()
    assert 400 <= playout.sent_ms < 400 + 100
    far.run(50)
    assert 400 <= playout.sent_ms - len(far.played) // 8 < 500 + FRAME_MS


def test_nothing_is_sent_while_paused_and_the_rest_follows_on_resume() -> None:
    playout = Playout(MULAW_8K)
    far = FarEnd(playout)
    audio = answer(playout, 20)
    far.run(30)
    heard = playout.pause(far.carrier_ms)
    far.clear()
    assert heard == 600 - FRAME_MS or heard == 600
    assert playout.due(far.now + 1) == []
    played = len(far.played)
    playout.resume()
    far.run(400)
    # w2 (480..720 ms) was cut: it is said again from its start, what came before it is not
    assert bytes(far.played[played:]) == audio[480 * 8 :]
    assert playout.all_heard


def test_marks_of_a_cleared_segment_mean_nothing() -> None:
    playout = Playout(MULAW_8K)
    far = FarEnd(playout)
    answer(playout, 20)
    far.run(10)
    heard = playout.pause(far.carrier_ms)
    far.clear()
    far.flush_marks()
    assert playout.stats.dead_marks > 0
    assert playout.heard_ms(far.carrier_ms) <= heard


def test_after_a_cut_the_next_answer_starts_where_the_ear_was() -> None:
    playout = Playout(MULAW_8K)
    far = FarEnd(playout)
    answer(playout, 20)
    far.run(37)
    heard = playout.cut(far.carrier_ms)
    far.clear()
    far.flush_marks()
    assert playout.ledger.text(0, heard) == "w0 w1 w2"
    assert not playout.speaking
    answer(playout, 2)
    far.run(30)
    assert playout.all_heard
    assert playout.ledger.text(playout.answer_ms, 1e9) == "w0 w1"


@given(st.integers(1, 300), st.integers(0, 2**32))
def test_never_a_word_more_than_was_played_and_at_most_one_less(ticks: int, seed: int) -> None:
    rng = random.Random(seed)
    playout = Playout(MULAW_8K)
    far = FarEnd(playout)
    answer(playout, 40)
    for _ in range(ticks):
        far.tick(return_marks=rng.random() < 0.8)  # marks may be late, never early
    heard = playout.cut(far.carrier_ms)
    believed = len(playout.ledger.text(0, heard).split())
    truly = len(far.played) // 8 // WORD_MS
    assert truly - 1 <= believed <= truly


@given(st.lists(st.tuples(st.integers(5, 60), st.integers(0, 20)), max_size=6))
def test_pauses_never_lose_audio_and_repeat_at_most_the_cut_word(pauses: list[tuple[int, int]]) -> None:
    playout = Playout(MULAW_8K)
    far = FarEnd(playout)
    answer(playout, 30)
    for speak, hold in pauses:
        far.run(speak)
        playout.pause(far.carrier_ms)
        far.clear()
        far.run(hold)
        playout.resume()
    far.run(30 * WORD_MS // FRAME_MS + 100)
    runs: list[tuple[int, int]] = []
    for value in far.played[::8]:
        if runs and runs[-1][0] == value:
            runs[-1] = (value, runs[-1][1] + 1)
        else:
            runs.append((value, 1))
    assert [v for v, _ in runs] == list(range(30))
    for _, length_ms in runs:
        assert length_ms >= WORD_MS - 1
    assert sum(n for _, n in runs) <= (30 + len(pauses)) * WORD_MS
    assert playout.all_heard


def test_a_late_mark_raises_the_lead_and_punctual_ones_lower_it() -> None:
    policy = LeadPolicy(start_ms=400, min_ms=400)
    playout = Playout(MULAW_8K, policy)
    far = FarEnd(playout)
    answer(playout, 100)
    far.run(20)
    for _ in range(15):  # nothing gets through for 300 ms
        far.tick(return_marks=False)
    far.flush_marks()
    raised = playout.lead_ms
    assert raised > 700
    far.run(500)
    assert playout.lead_ms < raised
    assert playout.stats.underruns == 0


def test_a_slow_voice_is_an_underrun_and_counted() -> None:
    playout = Playout(MULAW_8K)
    far = FarEnd(playout)
    playout.begin()
    playout.append(b"\x01" * 1600)
    far.run(20)
    playout.append(b"\x02" * 1600)
    playout.end()
    far.run(20)
    assert playout.stats.underruns == 1
    assert playout.stats.underrun_ms >= 180
    assert playout.all_heard


def test_an_odd_length_is_filled_to_a_frame_when_the_answer_ends() -> None:
    playout = Playout(MULAW_8K)
    far = FarEnd(playout)
    playout.begin()
    playout.append(b"\x01" * 333)
    far.run(3)
    assert len(far.played) == 320
    playout.end()
    far.run(3)
    assert bytes(far.played[320:]) == b"\x01" * 13 + b"\xff" * 147
    assert playout.all_heard


def test_a_peer_without_marks_is_overdue_and_then_assumed_to_have_played() -> None:
    playout = Playout(MULAW_8K)
    far = FarEnd(playout)
    answer(playout, 2)
    for _ in range(30):
        far.tick(return_marks=False)
    assert not playout.all_heard
    assert not playout.overdue(far.now, grace_s=1.0)
    assert playout.overdue(far.now + 1, grace_s=1.0)
    playout.assume_heard()
    assert playout.all_heard


def test_a_long_call_forgets_audio_far_behind() -> None:
    playout = Playout(MULAW_8K)
    far = FarEnd(playout)
    for _ in range(10):
        answer(playout, 20)
        far.run(20 * WORD_MS // FRAME_MS + 5)
    assert playout.all_heard
    assert len(playout._audio) < 8 * 8000


def test_silence_between_answers_is_not_taken_for_hearing_the_next_one() -> None:
    playout = Playout(MULAW_8K)
    far = FarEnd(playout)
    answer(playout, words=2)
    far.run(200)  # heard long ago
    answer(playout, words=4)
    start_ms = playout.answer_ms
    far.tick(return_marks=False)
    assert playout.heard_ms(far.carrier_ms) <= start_ms
    far.run(20)
    assert start_ms < playout.heard_ms(far.carrier_ms) <= start_ms + 420


def test_a_filler_is_heard_before_the_answer_and_is_no_part_of_it() -> None:
    playout = Playout(MULAW_8K)
    far = FarEnd(playout)
    playout.begin()
    playout.fill(b"f" * 2005)
    assert playout.answer_ms == playout.end_ms == 260
    playout.append(b"a" * 1600)
    playout.end()
    far.run(40)
    assert bytes(far.played).rstrip(b"a") == b"f" * 2005 + MULAW_8K.silence * 75
    assert playout.all_heard


def test_what_a_far_end_without_marks_was_assumed_to_have_heard_is_not_said_again() -> None:
    playout = Playout(MULAW_8K)
    far = FarEnd(playout)
    answer(playout, words=2)
    for _ in range(200):
        far.tick(return_marks=False)
    playout.assume_heard()
    end_ms = playout.end_ms
    assert playout.pause(far.carrier_ms) == end_ms
    playout.resume()
    assert playout.due(far.now) == []


def test_audio_continues_what_was_sent_if_it_was_there_by_then() -> None:
    playout = Playout(MULAW_8K, LeadPolicy(60, 60, 60, 20))
    playout.begin()
    playout.append(b"\x01" * 800)  # 100 ms
    assert [m.continues for m in playout.due(100.0)] == [False, True]
    assert [m.continues for m in playout.due(100.04)] == [True, True]
    playout.append(b"\x02" * 800)  # the queue was empty when the last was sent
    assert [m.continues for m in playout.due(100.5)] == [False, True]
    playout.pause(0, dropped_ms=40)
    playout.resume()
    assert [m.continues for m in playout.due(101.0)] == [False, True]


def test_half_a_frame_that_waits_is_not_yet_there() -> None:
    playout = Playout(MULAW_8K, LeadPolicy(60, 60, 60, 20))
    playout.begin()
    playout.append(b"\x01" * (320 + 80))
    assert [m.continues for m in playout.due(100.0)] == [False]
    playout.append(b"\x01" * 80)
    assert [m.continues for m in playout.due(100.02)] == [False]


def test_what_is_retracted_from_the_queue_is_never_heard_and_nobody_notices() -> None:
    playout = Playout(MULAW_8K)
    far = FarEnd(playout)
    answer(playout, 10)
    far.run(10)
    segment = playout.sent_ms
    assert playout.retract(5 * WORD_MS, far.carrier_ms) == 5 * WORD_MS
    assert playout.sent_ms == segment, "what was sent goes on"
    playout.append(b"\x7e" * (WORD_MS * 8))
    playout.end()
    far.run(200)
    assert len(far.played) == 6 * WORD_MS * 8
    assert far.played[-WORD_MS * 8 :] == b"\x7e" * (WORD_MS * 8)
    assert playout.all_heard
    assert far.silent_ticks == 0


def test_what_was_sent_is_retracted_by_a_clear_and_goes_on_where_the_ear_was() -> None:
    playout = Playout(MULAW_8K, LeadPolicy(2000, 2000, 2000))
    far = FarEnd(playout)
    answer(playout, 10)
    far.run(30)
    heard_ms = playout.heard_ms(far.carrier_ms)
    assert playout.sent_ms > 5 * WORD_MS > heard_ms
    far.clear()
    assert playout.retract(5 * WORD_MS, far.carrier_ms) == 5 * WORD_MS
    playout.append(b"\x7e" * (WORD_MS * 8))
    playout.end()
    far.run(200)
    assert playout.all_heard
    assert playout.end_ms == 6 * WORD_MS
    assert far.played[-WORD_MS * 8 :] == b"\x7e" * (WORD_MS * 8)
    again_ms = len(far.played) // 8 - 6 * WORD_MS
    assert 0 <= again_ms <= 3 * FRAME_MS, "as much as we did not know to be heard"


def test_what_was_heard_cannot_be_retracted() -> None:
    playout = Playout(MULAW_8K)
    far = FarEnd(playout)
    answer(playout, 4)
    far.run(30)
    heard_ms = playout.heard_ms(far.carrier_ms)
    far.clear()
    assert playout.retract(WORD_MS, far.carrier_ms) >= heard_ms > WORD_MS
    assert playout.end_ms < 4 * WORD_MS


def test_what_is_retracted_while_paused_waits_for_the_resume() -> None:
    playout = Playout(MULAW_8K)
    far = FarEnd(playout)
    answer(playout, 4)
    far.run(10)
    far.clear()
    playout.pause(far.carrier_ms)
    assert playout.retract(2 * WORD_MS, far.carrier_ms) == 2 * WORD_MS
    assert playout.paused
    playout.resume()
    playout.end()
    far.run(100)
    assert playout.all_heard
    assert playout.end_ms == 2 * WORD_MS
