"""docs/webhooks.md says what the code does."""

import re
import time
from pathlib import Path
from typing import Any

from trunkline.gateway.hooks import signing
from trunkline.hooks import EVENT_TYPES

PAGE = (Path(__file__).parents[3] / "docs" / "webhooks.md").read_text(encoding="utf-8")
BODY = b'{"type":"call.ended"}'


def verified() -> Any:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    room: dict[str, Any] = {}
    exec(example, room)
    return room["verified"]


def test_the_example_verifies_what_is_sent() -> None:
    check, new, old, now = verified(), signing.new_secret(), signing.new_secret(), int(time.time())
    sent = signing.headers((new, old), "evt_1", now, BODY)
    assert check(new, sent, BODY)
    assert check(old, sent, BODY)


def test_the_example_refuses_what_was_not_sent() -> None:
    check, secret, now = verified(), signing.new_secret(), int(time.time())
    sent = signing.headers((secret,), "evt_1", now, BODY)
    assert not check(signing.new_secret(), sent, BODY)
    assert not check(secret, sent, BODY + b" ")
    assert not check(secret, sent | {"webhook-id": "evt_2"}, BODY)
    assert not check(secret, signing.headers((secret,), "evt_1", now - 301, BODY), BODY)
    assert not check(secret, sent | {"webhook-timestamp": "soon"}, BODY)


def test_every_event_is_named() -> None:
    assert [event for event in EVENT_TYPES if f"`{event}`" not in PAGE] == []
