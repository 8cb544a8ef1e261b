"""Twilio's half of a stream, by hand: one tick is 20 ms."""

import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.testing.caller.answers import GAP_LIMIT_MS
from trunkline.testing.caller.carrier import Carrier, StreamIds
from trunkline.testing.caller.wire import Cleared, Invalid, Marked, Media
from trunkline.types import CallSid, StreamSid

IDS = StreamIds("AC1", CallSid("CA1"), StreamSid("MZ1"))
LOUD = b"\x10"


def carrier(**options: Any) -> Carrier:
    return Carrier(IDS, {"token": "t"}, **options)


def media(ms: int, code: bytes = LOUD) -> str:
    payload = b64encode(code * (8 * ms)).decode()
    return json.dumps({"event": "media", "streamSid": "MZ1", "media": {"payload": payload}})


def mark(name: str) -> str:
    return json.dumps({"event": "mark", "streamSid": "MZ1", "mark": {"name": name}})


CLEAR = '{"event":"clear","streamSid":"MZ1"}'


def names(messages: list[bytes]) -> list[str]:
    return [json.loads(m)["mark"]["name"] for m in messages]


def play(c: Carrier, ms: int) -> list[str]:
    return [name for _ in range(ms // 20) for name in names(c.tick(0.0))]


def test_a_stream_opens_with_connected_and_start_and_numbers_what_follows() -> None:
    c = carrier()
    connected, start = map(json.loads, c.opening())
    assert connected == {"event": "connected", "protocol": "Call", "version": "1.0.0"}
    assert start == {
        "event": "start",
        "sequenceNumber": "1",
        "streamSid": "MZ1",
        "start": {
            "accountSid": "AC1",
            "streamSid": "MZ1",
            "callSid": "CA1",
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {"token": "t"},
        },
    }
    first, digit, second, stop = map(json.loads, [c.media(b"AAAA"), *c.dtmf("5"), c.media(b"BBBB"), *c.stop()])
    body = {"track": "inbound", "chunk": "1", "timestamp": "0", "payload": "AAAA"}
    assert first == {"event": "media", "sequenceNumber": "2", "media": body, "streamSid": "MZ1"}
    assert digit["sequenceNumber"] == "3"
    assert digit["dtmf"] == {"track": "inbound_track", "digit": "5"}
    assert (second["sequenceNumber"], second["media"]["chunk"], second["media"]["timestamp"]) == ("4", "2", "20")
    assert stop == {
        "event": "stop",
        "sequenceNumber": "5",
        "streamSid": "MZ1",
        "stop": {"accountSid": "AC1", "callSid": "CA1"},
    }


def test_a_mark_comes_back_when_all_audio_before_it_has_been_played() -> None:
    c = carrier()
    c.receive(media(60), 0.0)
    assert c.receive(mark("a"), 0.0) == Marked([])
    c.receive(media(40), 0.0)
    c.receive(mark("b"), 0.0)
    assert play(c, 40) == []
    assert play(c, 20) == ["a"]
    assert play(c, 20) == []
    assert play(c, 20) == ["b"]


def test_a_mark_comes_back_at_once_when_nothing_is_queued() -> None:
    c = carrier()
    received = c.receive(mark("a"), 0.0)
    assert isinstance(received, Marked)
    assert names(received.replies) == ["a"]


def test_clear_brings_back_every_pending_mark_and_throws_away_the_rest() -> None:
    c = carrier()
    c.receive(media(100), 0.0)
    c.receive(mark("a"), 0.0)
    c.receive(media(400), 0.0)
    c.receive(mark("b"), 0.0)
    c.receive(mark("c"), 0.0)
    assert play(c, 200) == ["a"]
    received = c.receive(CLEAR, 5.0)
    assert isinstance(received, Cleared)
    assert received.cut is not None
    assert names(received.replies) == ["b", "c"]
    assert (received.cut.heard_ms, received.cut.unheard_ms, received.cut.last_mark) == (200, 300, "a")
    assert (received.cut.pending_marks, received.cut.cleared_at) == (("b", "c"), 5.0)
    assert not c.playing
    assert play(c, 100) == []


def test_marks_after_a_clear_count_only_what_came_after_it() -> None:
    c = carrier()
    c.receive(media(500), 0.0)
    play(c, 20)
    c.receive(CLEAR, 0.0)
    c.receive(media(40), 0.0)
    c.receive(mark("x"), 0.0)
    assert play(c, 20) == []
    assert play(c, 20) == ["x"]


def test_a_clear_of_nothing_cuts_nothing() -> None:
    c = carrier()
    c.receive(media(20), 0.0)
    play(c, 40)
    assert c.receive(CLEAR, 0.0) == Cleared([], None)


def test_a_buffer_that_runs_dry_inside_an_answer_is_a_gap() -> None:
    c = carrier()
    c.receive(media(40), 1.0)
    play(c, 100)
    c.receive(media(40), 1.1)
    play(c, 60)
    c.receive(media(20), 1.2)
    (answer,) = c.answers
    assert (answer.gaps, answer.gap_ms, answer.largest_gap_ms, answer.started_at) == (2, 80, 60, 1.0)


def test_audio_after_the_caller_spoke_is_another_answer_not_a_gap() -> None:
    c = carrier()
    c.receive(media(40), 1.0)
    play(c, 100)
    c.caller_spoke()
    c.receive(media(40), 1.1)
    assert [a.gap_ms for a in c.answers] == [0, 0]


def test_an_answer_that_goes_on_without_a_break_stays_one_though_the_caller_spoke() -> None:
    c = carrier()
    c.receive(media(100), 1.0)
    play(c, 40)
    c.caller_spoke()
    c.receive(media(100), 1.1)
    assert len(c.answers) == 1


def test_audio_after_a_long_silence_is_another_answer() -> None:
    c = carrier()
    c.receive(media(40), 1.0)
    play(c, 40 + GAP_LIMIT_MS)
    c.receive(media(40), 4.0)
    assert len(c.answers) == 1
    play(c, 40 + GAP_LIMIT_MS + 20)
    c.receive(media(40), 7.0)
    assert [a.gap_ms for a in c.answers] == [GAP_LIMIT_MS, 0]


def test_what_was_heard_is_kept_a_frame_a_tick_and_by_answer() -> None:
    c = carrier(keep_audio=True, keep_answers=True)
    c.tick(0.0)
    c.receive(media(30), 0.0)
    c.tick(0.0)
    c.tick(0.0)
    assert c.heard == [b"\xff" * 160, LOUD * 160, LOUD * 80 + b"\xff" * 80]
    assert bytes(c.answers[0].audio or b"") == LOUD * 240


def test_a_message_of_silence_is_not_audible() -> None:
    c = carrier()
    assert c.receive(media(20, b"\xff"), 0.0) == Media(audible=False)
    assert c.receive(media(20), 0.0) == Media(audible=True)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not a message"),
        ("[]", "not a message"),
        ('{"event":"clear"}', "wrong streamSid"),
        ('{"event":"clear","streamSid":"MZ2"}', "wrong streamSid"),
        ('{"event":"media","streamSid":"MZ1"}', "media without payload"),
        ('{"event":"media","streamSid":"MZ1","media":{"payload":"%%%"}}', "bad base64"),
        ('{"event":"media","streamSid":"MZ1","media":{"payload":""}}', "empty payload"),
        ('{"event":"mark","streamSid":"MZ1"}', "mark without name"),
        ('{"event":"stop","streamSid":"MZ1"}', "unknown event"),
    ],
)
def test_what_twilio_would_refuse_is_counted_and_ignored(text: str, why: str) -> None:
    c = carrier()
    assert c.receive(text, 0.0) == Invalid(why)
    assert c.counts.invalid == {why: 1}
    assert not c.playing


@given(st.lists(st.one_of(st.integers(1, 400), st.just("mark"), st.just("clear"), st.just("tick")), max_size=60))
def test_every_mark_comes_back_once_and_in_order(steps: list[int | str]) -> None:
    c = carrier()
    asked, back = 0, []
    queued = played = dropped = 0
    for step in steps:
        if step == "tick":
            back += names(c.tick(0.0))
        elif step == "mark":
            received = c.receive(mark(str(asked)), 0.0)
            asked += 1
            assert isinstance(received, Marked)
            back += names(received.replies)
        elif step == "clear":
            dropped += c.queued_bytes
            cleared = c.receive(CLEAR, 0.0)
            assert isinstance(cleared, Cleared)
            back += names(cleared.replies)
        else:
            assert isinstance(step, int)
            queued += 8 * step
            c.receive(media(step), 0.0)
    played = sum(a.heard_bytes for a in c.answers)
    assert queued == played + dropped + c.queued_bytes
    back += play(c, c.queued_bytes // 8 + 20)
    assert back == [str(i) for i in range(asked)]
