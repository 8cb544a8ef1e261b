"""What a device asks for, and how much of it."""

import json

from trunkline.gateway import live
from trunkline.gateway.device import Device


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
