"""An operator's hold, as the far end is told of it over the wire. sipp is the caller."""

import time
from typing import Any

import httpx
import numpy as np
import pytest

from trunkline.media import g711

pytestmark = pytest.mark.e2e

CALLS = """
> INVITE sdp
<? 100
<? 180
< 200
> ACK 2xx
"""
LEAVES = "> BYE\n< 200\n"
HOLD = "< INVITE\n> 200 plain sdp=recvonly\n< ACK\n"
RESUME = "< INVITE\n> 200 plain sdp\n< ACK\n"


@pytest.fixture(scope="module")
def gateway(shared_sip_gateway: Any) -> Any:
    return shared_sip_gateway(
        sip__media_timeout_s="3",
        sip__trunks__carrier__peers="127.0.0.1/32",
        sip__trunks__quiet__peers="127.0.0.2/32",
        sip__trunks__quiet__tells_hold="false",
        sip__trunks__quiet__media_peers="127.0.0.1/32",
    )


def call_of(gateway: Any, run: Any, phone: Any) -> str:
    """Its id, once the agent is heard."""
    phone.until(lambda: phone.loud() > 5)
    call_id = run.messages()[0].header("Call-ID")
    return str(next(c["id"] for c in gateway.calls() if c["provider_call_id"] == call_id))


def operator(gateway: Any, call_id: str, what: str) -> None:
    answer = httpx.post(f"{gateway.origin}/v1/calls/{call_id}/{what}", json={}, timeout=5.0)
    assert answer.status_code == 202, answer.text


def music(phone: Any, since: float) -> float:
    """The share of packets since then that sound."""
    heard = [packet.payload for at, packet in tuple(phone.packets) if at >= since]
    levels = [np.abs(np.frombuffer(g711.decode(payload, "mulaw"), "<i2")).max() for payload in heard]
    return sum(int(level) > 200 for level in levels) / max(1, len(levels))


def held(record: Any) -> list[tuple[bool, int]]:
    return [(e["data"]["held"], e["data"]["code"]) for e in record["events"] if e["kind"] == "held"]


def test_a_hold_is_sendonly_with_music_and_its_end_sendrecv(gateway: Any, sipp: Any, phone: Any) -> None:
    """And a far end that sends nothing while it is on hold is not lost: three times the media timeout."""
    run = sipp.call(gateway, CALLS + HOLD + RESUME + ". 1500\n" + LEAVES, phone, options=("-timeout", "40"))
    call_id = call_of(gateway, run, phone)
    operator(gateway, call_id, "hold")
    run.until(lambda: run.has("ACK") and len([m for m in run.messages() if m.start.startswith("INVITE")]) == 2)
    phone.sending = False
    began = time.monotonic()
    time.sleep(9)
    assert music(phone, began + 0.2) > 0.9
    phone.sending = True
    operator(gateway, call_id, "resume")
    run.ok(20)
    assert "a=sendonly" in run.got("INVITE", 0).text
    assert "a=sendrecv" in run.got("INVITE", 1).text
    record = gateway.ended(call_id)
    assert record["end_reason"] == "caller_hung_up", record.end()
    assert held(record) == [(True, 200), (False, 200)]
    assert "I'm here again." in record["turns"][-1]["agent_text"]
    gateway.is_well()


def test_glare_is_waited_for_and_the_hold_comes_again(gateway: Any, sipp: Any, phone: Any) -> None:
    script = "< INVITE\n> 491 plain\n< ACK\n" + HOLD + RESUME + ". 500\n" + LEAVES
    run = sipp.call(gateway, CALLS + script, phone)
    call_id = call_of(gateway, run, phone)
    operator(gateway, call_id, "hold")
    began = time.monotonic()
    run.until(lambda: len([m for m in run.messages() if m.start.startswith("INVITE")]) == 3)
    time.sleep(1.0)
    assert music(phone, began + 0.2) > 0.9
    operator(gateway, call_id, "resume")
    run.ok()
    record = gateway.ended(call_id)
    assert held(record) == [(True, 200), (False, 200)]
    gateway.is_well()


@pytest.mark.parametrize("status", [488, 403])
def test_a_refused_hold_is_heard_all_the_same(gateway: Any, sipp: Any, phone: Any, status: int) -> None:
    run = sipp.call(gateway, CALLS + f"< INVITE\n> {status} plain\n< ACK\n. 3500\n" + LEAVES, phone)
    call_id = call_of(gateway, run, phone)
    operator(gateway, call_id, "hold")
    began = time.monotonic()
    time.sleep(1.5)
    assert music(phone, began + 0.2) > 0.9
    operator(gateway, call_id, "resume")
    run.ok()
    assert len([m for m in run.messages() if m.start.startswith("INVITE")]) == 2
    record = gateway.ended(call_id)
    assert record["end_reason"] == "caller_hung_up", record.end()
    assert held(record) == [(True, status)]
    gateway.is_well()


@pytest.mark.parametrize("how", ["profile", "setting"])
def test_a_trunk_that_takes_no_re_invite_is_sent_none(
    gateway: Any, sip_gateway: Any, sipp: Any, phone: Any, how: str
) -> None:
    if how == "profile":
        gateway = sip_gateway(sip__trunks__old__peers="127.0.0.1/32", sip__trunks__old__profile="strict")
    script = CALLS.replace("> INVITE sdp", "> INVITE sdp @timer") + ". 4000\n" + LEAVES
    where = {} if how == "profile" else {"host": "127.0.0.2"}
    run = sipp.call(gateway, script, phone, texts={"timer": "Supported: timer"}, **where)
    call_id = call_of(gateway, run, phone)
    operator(gateway, call_id, "hold")
    began = time.monotonic()
    time.sleep(1.5)
    assert music(phone, began + 0.2) > 0.9
    operator(gateway, call_id, "resume")
    run.ok()
    assert len([m for m in run.messages() if m.start.startswith("INVITE")]) == 1
    assert held(gateway.ended(call_id)) == []
    gateway.is_well()
