"""What a carrier is told of a call that no agent of ours takes, by the gateway's own stack."""

from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.e2e

OURS, SPARE = "+14155550111", "+14155550177"


def routed(gateway: Any, name: str, ours: str, **answer: str) -> None:
    made = [
        httpx.post(f"{gateway.origin}/v1/routes", json={"name": name, "answer": answer}),
        httpx.post(f"{gateway.origin}/v1/numbers", json={"number": ours, "route": name}),
    ]
    assert [each.status_code for each in made] == [201, 201], [each.text for each in made]


def test_a_number_is_a_302_and_busy_a_486(sip_gateway: Any, wires: Any) -> None:
    gateway = sip_gateway(sip__trunks__pbx__peers="127.0.0.1/32", sip__trunks__pbx__number_from="to")
    routed(gateway, "on", OURS, kind="number", number=SPARE)
    routed(gateway, "busy", "+14155550112", kind="busy")

    wire = wires(gateway)
    wire.send(wire.request("INVITE", number=OURS, body=wire.sdp()))
    answer = wire.until(302, "INVITE")
    contacts = [line for line in answer.text.splitlines() if line.lower().startswith("contact:")]
    assert contacts == [f"Contact: <tel:{SPARE}>"]

    busy = wires(gateway)
    busy.send(busy.request("INVITE", number="+14155550112", body=busy.sdp()))
    busy.until(486, "INVITE")
    records = [gateway.get(f"/v1/calls/{call['id']}") for call in gateway.calls()]
    told = {
        record["to_number"]: [e["data"]["by"] for e in record["events"] if e["kind"] == "routed"] for record in records
    }
    assert told == {OURS: ["number"], "+14155550112": ["busy"]}
    gateway.is_well()


def test_a_message_is_said_by_our_own_voice(sip_gateway: Any, sipp: Any, phone: Any) -> None:
    gateway = sip_gateway(sip__trunks__pbx__peers="127.0.0.1/32", sip__trunks__pbx__number_from="to")
    routed(gateway, "closed", "+15005550001", kind="message", text="We are closed. Please call again tomorrow.")
    sipp.call(gateway, "> INVITE sdp\n< 100\n< 180\n< 200\n> ACK 2xx\n< BYE\n> 200", phone).ok()
    ended = gateway.ended()
    assert ended.end() == ("agent_hung_up", "")
    gateway.is_well()
