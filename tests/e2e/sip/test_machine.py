"""Who answers calls of ours, over the wire. sipp is called; a telephone beside it plays what people and machines do."""

import asyncio
from typing import Any

import numpy as np
import pytest

from trunkline.testing.caller.speech import synthesize, to_frames
from trunkline.testing.ports import lease

pytestmark = pytest.mark.e2e

ANSWERS = "< INVITE\n> 100\n> 180\n. 200\n> 200 sdp\n< ACK\n"


@pytest.fixture(scope="module")
def port() -> int:
    return lease()


@pytest.fixture(scope="module")
def gateway(shared_sip_gateway: Any, port: int) -> Any:
    return shared_sip_gateway(
        outbound__allow="US",
        sip__machine_detection="enable",
        sip__on_machine="hang_up",
        sip__trunks__carrier__host=f"127.0.0.1:{port}",
        sip__trunks__carrier__ping_s="0",
        sip__trunks__carrier__caller_id="+14155550100",
    )


def spoken(text: str) -> bytes:
    said = asyncio.run(synthesize(text))
    return b"".join(to_frames(np.concatenate([np.zeros(3200, np.float32), said])))


def test_a_machine_is_hung_up(gateway: Any, sipp: Any, phone: Any, port: int) -> None:
    said = spoken("You have reached Bob Miller. I cannot take your call right now. Please leave a message.")
    far = sipp.answer(port, ANSWERS + "< BYE\n> 200 plain", phone)
    call_id = gateway.dial().json()["id"]
    far.until(lambda: far.has("ACK"))
    phone.say(said)
    far.ok()
    record = gateway.ended(call_id)
    assert record.end() == ("no_answer", "a machine answered")
    assert record["ended_by"] == "policy"
    answered = record.event("answered_by")
    assert answered["who"] == "machine_start"
    assert 2_400 <= answered["after_ms"] <= 5_000
    gateway.is_well()


def test_a_person_is_talked_to(gateway: Any, sipp: Any, phone: Any, port: int) -> None:
    far = sipp.answer(port, ANSWERS + ". 5000\n> BYE\n< 200\n", phone)
    call_id = gateway.dial().json()["id"]
    far.until(lambda: far.has("ACK"))
    phone.say(spoken("Hello?"))
    far.ok()
    record = gateway.ended(call_id)
    assert record["end_reason"] == "caller_hung_up", record.end()
    assert record.event("answered_by")["who"] == "human"
    gateway.is_well()
