import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.gateway import live
from trunkline.live import Saying, TurnOver
from trunkline.ports import TurnRecord


@pytest.mark.parametrize(
    ("message", "asked"),
    [
        ({"type": "text", "text": "  what are\nyour hours "}, live.Typed("what are your hours")),
        ({"type": "dtmf", "digits": "4711#"}, live.Keyed("4711#")),
        ({"type": "text", "text": "hi \ud800\x07there"}, live.Typed("hi there")),
        ({"type": "flush"}, live.Flush()),
        ({"type": "armed", "by": "button"}, live.Armed("button")),
        (
            {"type": "armed", "by": "wake_word", "wake_word": "hey clinic", "score": 1},
            live.Armed("wake_word", "hey clinic", 1.0),
        ),
        ({"type": "disarmed", "more": "is ignored"}, live.Disarmed()),
    ],
)
def test_what_a_device_may_ask(message: dict[str, Any], asked: live.Asked) -> None:
    assert live.decode(json.dumps(message)) == asked
    assert live.decode(json.dumps(message).encode()) == asked


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("", "not_json"),
        ("[]", "not_json"),
        ("null", "not_json"),
        ("[" * 4000, "not_json"),
        (b"\xff\xfe", "not_json"),
        ('{"type": "text", "text": "' + "a" * 5000 + '"}', "too_long"),
        ("{}", "unknown_type"),
        ('{"type": ["text"]}', "unknown_type"),
        ('{"type": "transfer", "target": "+15005550001"}', "unknown_type"),
        ('{"type": "text"}', "bad_value"),
        ('{"type": "text", "text": " "}', "bad_value"),
        ('{"type": "text", "text": "' + "a" * 1001 + '"}', "bad_value"),
        ('{"type": "dtmf", "digits": 5}', "bad_value"),
        ('{"type": "dtmf", "digits": "12a"}', "bad_value"),
        ('{"type": "dtmf", "digits": "\u0664"}', "bad_value"),
        ('{"type": "armed"}', "bad_value"),
        ('{"type": "armed", "by": "wake_word"}', "bad_value"),
        ('{"type": "armed", "by": "button", "score": 2}', "bad_value"),
        ('{"type": "armed", "by": "button", "score": true}', "bad_value"),
        ('{"type": "armed", "by": "button", "score": NaN}', "bad_value"),
    ],
)
def test_what_a_device_may_not_ask_is_told_to_it(message: str | bytes, code: str) -> None:
    mistake = live.decode(message)
    assert isinstance(mistake, live.Mistake)
    assert mistake.code == code
    assert mistake.why


@given(st.text() | st.binary())
def test_nothing_a_device_sends_raises(message: str | bytes) -> None:
    assert live.decode(message) is not None


def test_an_event_is_one_object_with_its_type() -> None:
    event = Saying("We open at eight.", heard_characters=7, cut=True, over=True)
    assert json.loads(live.encode(event)) == {
        "type": "saying",
        "text": "We open at eight.",
        "heard_characters": 7,
        "over": True,
        "cut": True,
    }


def test_a_turn_is_told_by_its_latencies_alone() -> None:
    turn = TurnRecord(3, "my number is 4711", "Thank you.", total_ms=640.0, stt_ms=120.0)
    told = json.loads(live.encode(TurnOver.of(turn)))
    assert told["total_ms"] == 640.0
    assert told["llm_ms"] is None
    assert "caller_text" not in told


def test_whatever_a_model_writes_can_be_sent_as_utf8() -> None:
    told = live.encode(Saying("caf\u00e9 \ud800", 0))
    assert json.loads(told.encode())["text"] == "caf\u00e9 \ud800"
