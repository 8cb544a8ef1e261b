"""A call of ours over SIP under the rules: the lines first, the question, a key."""

import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.e2e.sip.test_refer import presses
from tests.e2e.test_consent import events
from tests.e2e.test_opening_out import QUESTION, agreed_to_calls, judge, rules, where
from trunkline.agents.examples import example
from trunkline.media import g711
from trunkline.testing.ports import lease

pytestmark = pytest.mark.e2e

ANSWERS = "< INVITE\n> 100\n> 180\n. 200\n> 200 sdp\n< ACK\n< BYE\n> 200 plain"
TO = "+14155550123"


def test_who_answers_hears_the_lines_first_and_is_asked(
    sip_gateway: Any, sipp: Any, phone: Any, tmp_path: Path
) -> None:
    port, settings = lease(), rules(tmp_path)
    gateway = sip_gateway(
        agent=example("clinic"),
        outbound__allow="US",
        sip__trunks__carrier__host=f"127.0.0.1:{port}",
        sip__trunks__carrier__ping_s="0",
        sip__trunks__carrier__caller_id="+14155550100",
        **settings,
    )
    agreed_to_calls(tmp_path, settings, TO)
    sipp.run_s = 60
    far = sipp.answer(port, ANSWERS, phone)
    placed = gateway.dial(TO, purpose="informational")
    assert placed.status_code == 201, placed.text
    call_id = placed.json()["id"]
    far.until(lambda: far.has("ACK"))
    deadline = time.monotonic() + 35
    while where(heard(phone), QUESTION) is None:
        assert time.monotonic() < deadline
        time.sleep(1)
    presses(phone, far, "INVITE", "1")
    gateway.until(lambda: events(gateway.get(f"/v1/calls/{call_id}"), "consent"), 5)
    time.sleep(1)
    assert httpx.delete(f"{gateway.origin}/v1/calls/{call_id}", timeout=5.0).status_code == 202
    far.ok()
    record = gateway.ended(call_id)
    judge(record, heard(phone))
    assert [(e["state"], e["via"]) for e in events(record, "consent")] == [("granted", "keypad")]
    gateway.is_well()


def heard(phone: Any) -> Any:
    audio = b"".join(packet.payload for _, packet in tuple(phone.packets) if packet.payload_type == 0)
    return np.frombuffer(g711.decode(audio, "mulaw"), dtype=np.int16)
