"""A trunk that an admin makes by the API takes calls within a second or two, and when it goes its calls go on."""

import time
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.e2e

CALL = """
> INVITE sdp
< 100
< 180
< 200
> ACK 2xx
. {talk_ms}
> BYE
< 200
"""
STRANGER = """
> INVITE sdp once
. 500
"""


@pytest.fixture
def gateway(sip_gateway: Any) -> Any:
    return sip_gateway(sip__trunks__far__peers="192.0.2.0/24")  # so that loopback is a stranger


def trunks(gateway: Any) -> list[str]:
    return [trunk["name"] for trunk in gateway.get("/v1/trunks")["trunks"]]


def test_a_trunk_of_the_desk_comes_and_goes_while_the_gateway_runs(gateway: Any, sipp: Any, phone: Any) -> None:
    sipp.call(gateway, STRANGER, phone).ok()
    assert gateway.calls() == []
    settings = {"peers": ["127.0.0.1/32"], "number_from": "to"}
    made = httpx.post(f"{gateway.origin}/v1/sip-trunks", json={"name": "pbx", "settings": settings})
    assert made.status_code == 201, made.text
    gateway.gateway.until(lambda: trunks(gateway) == ["far", "pbx"], 5.0)
    sipp.call(gateway, CALL.format(talk_ms=1000), phone).ok()
    assert gateway.ended().event("arrived")["trunk"] == "pbx"

    running = sipp.call(gateway, CALL.format(talk_ms=6000), phone)
    gateway.live(1)
    gone = httpx.delete(f"{gateway.origin}/v1/sip-trunks/pbx", headers={"If-Match": "*"})
    assert gone.status_code == 204
    gateway.gateway.until(lambda: trunks(gateway) == ["far"], 5.0)
    time.sleep(1.0)
    gateway.live(1)
    running.ok()
    assert gateway.ended().end() == ("caller_hung_up", "")
    before = len(gateway.calls())
    sipp.call(gateway, STRANGER, phone).ok()
    assert len(gateway.calls()) == before
    gateway.is_well()
