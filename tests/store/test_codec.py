import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import MisuseError
from trunkline.ports import (
    CallEnded,
    CallEvent,
    CallStarted,
    Cost,
    RecordEvent,
    TurnEnded,
    TurnRecord,
    Usage,
    UsageMetered,
)
from trunkline.store import codec
from trunkline.store.codec import Damaged, Entry, Unknown, decode, encode
from trunkline.store.fold import KnownCall, fold
from trunkline.types import CallId, TenantId

AT = datetime(2026, 11, 22, 15, 0, 0, 123456, tzinfo=UTC)
CALL = CallId("c1")

EVENTS: list[RecordEvent] = [
    CallStarted(CALL, TenantId("t"), "inbound", "twilio", "clinic", AT, "+15550100", None, "CA1"),
    CallEvent(CALL, AT, "answered", {"deep": [1, {"a": None}], "text": "naïve ☎\n"}),
    TurnEnded(CALL, AT, TurnRecord(3, "yes", "good", interrupted=True, total_ms=412.5, tools=("hang_up",))),
    UsageMetered(AT, Usage(CALL, "espeak", "tts", "characters", 17)),
    CallEnded(CALL, AT, "caller_hung_up", "stop"),
]


def lined(document: Any) -> bytes:
    text = json.dumps(document).encode()
    return b"%08x %d %b" % (crc32(text), len(text), text)


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: type(e).__name__)
def test_every_event_comes_back_as_it_was(event: RecordEvent) -> None:
    line = encode(event, 7)
    assert line.count(b"\n") == 1
    assert decode(line[:-1], "run") == Entry("run", 7, event)


def test_the_line_is_crc_length_and_json_of_a_version() -> None:
    crc, length, text = encode(EVENTS[4], 9).rstrip(b"\n").split(b" ", 2)
    assert int(crc, 16) == crc32(text)
    assert int(length) == len(text)
    assert json.loads(text) == {
        "v": 1,
        "n": 9,
        "k": "call_ended",
        "e": {
            "call_id": "c1",
            "at": "2026-11-22T15:00:00.123456+00:00",
            "reason": "caller_hung_up",
            "detail": "stop",
            "by": None,
            "provider_code": "",
        },
    }


@given(st.sampled_from(EVENTS), st.integers(0, 600), st.integers(1, 255))
def test_no_flipped_byte_goes_unnoticed(event: RecordEvent, at: int, flip: int) -> None:
    line = bytearray(encode(event, 1)[:-1])
    line[at % len(line)] ^= flip
    try:
        assert decode(bytes(line), "run").event == event  # another spelling of the CRC or the length
    except Damaged:
        pass


@given(st.sampled_from(EVENTS), st.data())
def test_no_cut_line_goes_unnoticed(event: RecordEvent, data: st.DataObject) -> None:
    line = encode(event, 1)[:-1]
    with pytest.raises(Damaged):
        decode(line[: data.draw(st.integers(0, len(line) - 1))], "run")


@pytest.mark.parametrize(
    "document",
    [
        {"v": 2, "n": 1, "k": "call_ended", "e": {}},
        {"v": 1, "n": 1, "k": "call_sung", "e": {}},
        {"v": 1, "n": 1, "k": "call_ended", "e": {"call_id": "c"}},
        {"v": 1, "n": 1, "k": "call_ended", "e": {"call_id": "c", "at": "noon", "reason": "error"}},
        {"v": 1, "n": 1, "k": "call_ended"},
    ],
)
def test_what_another_version_wrote_is_unknown_not_damaged(document: Any) -> None:
    with pytest.raises(Unknown):
        decode(lined(document), "run")


def test_a_newer_field_is_ignored_and_a_missing_one_has_its_default() -> None:
    ended = {"call_id": "c1", "at": AT.isoformat(), "reason": "error", "mood": "good"}
    entry = decode(lined({"v": 1, "n": 1, "k": "call_ended", "e": ended}), "run")
    assert entry.event == CallEnded(CALL, AT, "error")


def test_times_come_back_in_utc_whatever_zone_they_were_written_in() -> None:
    there = AT.astimezone(timezone(timedelta(hours=-5)))
    for at in (there, AT.replace(tzinfo=None)):
        event = decode(encode(CallEnded(CALL, at, "error"), 1)[:-1], "run").event
        assert event == CallEnded(CALL, AT, "error")
        assert isinstance(event, CallEnded)
        assert event.at.utcoffset() == timedelta(0)


def test_what_no_database_takes_is_taken_out() -> None:
    data: dict[Any, Any] = {
        "nul": "a\0b",
        "surrogate": "a\ud800",
        "nan": float("nan"),
        "audio": b"\xff" * 160,
        "huge": 10**30,
        3: {1},
        "inf": [float("-inf")],
    }
    event = decode(encode(CallEvent(CALL, AT, "odd", data), 1)[:-1], "run").event
    assert isinstance(event, CallEvent)
    assert event.data == {
        "nul": "ab",
        "surrogate": "a?",
        "nan": None,
        "audio": "<bytes>",
        "huge": 1e30,
        "3": [1],
        "inf": [None],
    }


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_latency_that_is_no_number_is_none(number: float) -> None:
    event = decode(encode(TurnEnded(CALL, AT, TurnRecord(0, "hi", "yes", total_ms=number)), 1)[:-1], "run").event
    assert event == TurnEnded(CALL, AT, TurnRecord(0, "hi", "yes"))


def test_endless_data_is_cut() -> None:
    loop: dict[str, Any] = {}
    loop["self"] = loop
    assert len(encode(CallEvent(CALL, AT, "loop", loop), 1)) < 1000


def test_a_long_text_is_cut_and_too_much_data_is_named_by_its_size() -> None:
    long = "x" * 300_000
    turn = decode(encode(TurnEnded(CALL, AT, TurnRecord(0, long, "hm")), 1)[:-1], "run").event
    assert isinstance(turn, TurnEnded)
    assert turn.turn.caller_text == "x" * codec.MAX_TEXT_CHARS
    event = decode(encode(CallEvent(CALL, AT, "much", {str(i): long for i in range(99)}), 1)[:-1], "run").event
    assert isinstance(event, CallEvent)
    assert event.data.keys() == {"too_large_bytes"}


def test_something_else_is_our_own_mistake() -> None:
    with pytest.raises(MisuseError):
        encode("call ended", 1)  # type: ignore[arg-type]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(), st.dictionaries(st.text(), json_values, max_size=4))
def test_whatever_is_said_becomes_a_readable_line(kind: str, data: dict[str, Any]) -> None:
    line = encode(CallEvent(CALL, AT, kind, data), 1)
    assert line.count(b"\n") == 1
    assert b"\\u0000" not in line
    event = decode(line[:-1], "run").event
    assert encode(event, 1) == line


def test_costs_go_with_their_usage_and_an_older_line_has_none() -> None:
    at = datetime(2026, 11, 28, tzinfo=UTC)
    costs = (Cost("voice", "60", "0.0085", "2026-11-28"), Cost("unpriced", "1", None, estimated=True))
    event = UsageMetered(at, Usage(CallId("c"), "twilio", "leg", "seconds", 31.5, "inbound-US"), costs)
    line = codec.encode(event, 1).rstrip(b"\n")
    assert codec.decode(line, "run").event == event
    old = codec.body(UsageMetered(at, Usage(CallId("c"), "twilio", "leg", "seconds", 31.5)), 1).decode()
    old = old.replace(',"costs":[]', "").replace(',"product":""', "")
    assert "costs" not in old
    read = codec.decode_body(old, "run").event
    assert isinstance(read, UsageMetered)
    assert (read.costs, read.usage.product) == ((), "")
    rows = fold([codec.decode(line, "run")], {"c": KnownCall("default", "run", False)}, frozenset(), "0")
    assert [(row["item"], row["usd"], row["product"]) for row in rows.costs] == [
        ("voice", "0.0085", "inbound-US"),
        ("unpriced", None, "inbound-US"),
    ]
