import json
from typing import Any

import pytest

from trunkline.gateway import live
from trunkline.gateway.device import MAX_MESSAGES_S, MESSAGE_BURST_S, Allowance, Device
from trunkline.gateway.entering import Origins, is_ours_alone


class Call:
    def __init__(self) -> None:
        self.said: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **more: self.said.append((name, *args, *more.values()))


def test_an_allowance_is_an_average_and_a_burst() -> None:
    allowance = Allowance(10.0, 20.0, now=0.0)
    assert [allowance.take(8, 0.0), allowance.take(8, 0.0), allowance.take(8, 0.0)] == [True, True, False]
    assert allowance.take(8, 0.5)
    assert not allowance.take(21, 1000.0)
    assert allowance.take(20, 1000.0)


def test_too_many_messages_are_told_once_until_one_is_read_again() -> None:
    told: list[live.Mistake] = []
    device = Device(False, told.append, 0.0)
    key = '{"type":"dtmf","digits":"1"}'
    for _ in range(int(MAX_MESSAGES_S * MESSAGE_BURST_S)):
        assert device.read(key, 0.0) == live.Keyed("1")
    for _ in range(10):
        assert device.read(key, 0.0) is None
    assert [mistake.code for mistake in told] == ["too_many"]
    assert device.read(key, 1.0) == live.Keyed("1")


def test_written_words_are_rationed_and_everything_else_goes_on() -> None:
    told: list[live.Mistake] = []
    device = Device(False, told.append, 0.0)
    text, key = json.dumps({"type": "text", "text": "again"}), json.dumps({"type": "dtmf", "digits": "1"})
    read = [device.read(text, 0.0) for _ in range(8)]
    assert read[:6] == [live.Typed("again")] * 6
    assert read[6:] == [None, None]
    assert [each.code for each in told] == ["too_many"] * 2
    assert device.read(key, 0.0) == live.Keyed("1")
    assert device.read(text, 2.0) == live.Typed("again")
    assert device.read(text, 2.0) is None


def test_arming_is_recorded_where_it_is_needed_and_audio_before_it_told_once_a_time() -> None:
    told: list[live.Mistake] = []
    device, call = Device(True, told.append, 0.0), Call()
    armed = live.Armed("wake_word", "computer", 0.9)
    for _ in range(3):
        device.refuse_audio()
    device.do(armed, call)
    assert device.armed
    device.do(live.Disarmed(), call)
    assert not device.armed
    device.do(armed, None)
    device.do(live.Disarmed(), None)
    device.refuse_audio()
    assert [mistake.code for mistake in told] == ["not_armed", "not_armed"]
    assert (device.unarmed, call.said) == (4, [("event", "armed", "wake_word", "computer", 0.9)])
    free, talk = Device(False, told.append, 0.0), Call()
    free.do(live.Disarmed(), talk)
    free.do(armed, talk)
    assert (free.armed, talk.said) == (True, [])
    free.do(live.Disarmed(), talk)
    assert not free.armed, "it sends nothing: the lane hears silence instead"


def test_flushes_are_rationed_for_each_may_cost_an_answer() -> None:
    told: list[live.Mistake] = []
    device = Device(False, told.append, 0.0)
    read = [device.read('{"type":"flush"}', 0.0) for _ in range(8)]
    assert read == [live.Flush()] * 6 + [None] * 2
    assert [each.code for each in told] == ["too_many"] * 2


def test_asides_are_read_only_where_the_leg_understands_them() -> None:
    aside = live.Aside()
    told: list[live.Mistake] = []
    message = json.dumps({"type": "played"})
    assert Device(False, told.append, 0.0, asides={"played": lambda given: aside}).read(message, 0.0) is aside
    assert Device(False, told.append, 0.0).read(message, 0.0) is None
    assert told[0].code == "unknown_type"


@pytest.mark.parametrize(
    ("origin", "own", "allowed"),
    [
        (None, True, True),
        ("https://ours.example", True, True),
        ("http://127.0.0.1:8080", True, True),
        ("https://shop.example", False, True),
        ("https://127.0.0.1:8080", False, False),
        ("null", False, False),
        ("", False, False),
    ],
)
def test_whose_pages_may_call(origin: str | None, own: bool, allowed: bool) -> None:
    origins = Origins("https://ours.example", ("https://shop.example",))
    assert origins.own(origin, "http", "127.0.0.1:8080") is own
    assert origins.allow(origin, "http", "127.0.0.1:8080") is allowed


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("127.0.0.1:8080", True),
        ("localhost", True),
        ("[::1]:8080", True),
        ("rebound.example:8080", False),
        ("127.0.0.1.example", False),
        ("", False),
        ("[::1", False),
    ],
)
def test_only_a_loopback_name_is_ours_alone(host: str, ours: bool) -> None:
    assert is_ours_alone(host) is ours
