"""Two trunks, both sipp: which of them is dialled when the other fails, and how often."""

import time
from typing import Any

import httpx
import pytest

from trunkline.testing.ports import lease

pytestmark = pytest.mark.e2e

ANSWERED = """
< INVITE
> 100
> 180
. 200
> 200 sdp
< ACK
< BYE
> 200 plain
"""


@pytest.fixture(scope="module")
def ports() -> tuple[int, int]:
    return lease(), lease()


@pytest.fixture(scope="module")
def gateway(shared_sip_gateway: Any, ports: tuple[int, int]) -> Any:
    return shared_sip_gateway(
        outbound__allow="US",
        outbound__retry_busy="1",
        outbound__retry_busy_after_s="10",
        sip__trunks__dear__host=f"127.0.0.1:{ports[1]}",
        sip__trunks__dear__ping_s="0",
        sip__trunks__dear__caller_id="+14155550102",
        sip__trunks__dear__cost_per_minute="0.05",
        sip__trunks__cheap__host=f"127.0.0.1:{ports[0]}",
        sip__trunks__cheap__ping_s="0",
        sip__trunks__cheap__caller_id="+14155550101",
        sip__trunks__cheap__cost_per_minute="0.01",
    )


def placed(gateway: Any, **order: Any) -> str:
    answer = gateway.dial(**order)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def invites(run: Any) -> list[str]:
    """Call-IDs of the INVITEs that came, repetitions left out."""
    found = [m.header("Call-ID") for m in run.messages() if m.received and m.start.startswith("INVITE")]
    return list(dict.fromkeys(found))


def attempts(record: Any) -> list[tuple[int, str]]:
    return [(e["data"]["attempt"], e["data"]["trunk"]) for e in record["events"] if e["kind"] == "attempt"]


def test_the_next_trunk_is_dialled_once_when_the_first_refuses(
    gateway: Any, sipp: Any, phone: Any, ports: tuple[int, int]
) -> None:
    first = sipp.answer(ports[0], "< INVITE\n> 503\n< ACK")
    second = sipp.answer(ports[1], ANSWERED, phone)
    call_id = placed(gateway)
    phone.until(lambda: phone.loud() > 20)
    assert httpx.delete(f"{gateway.origin}/v1/calls/{call_id}", timeout=5.0).status_code == 202
    first.ok()
    second.ok()
    record = gateway.ended(call_id)
    assert (len(invites(first)), len(invites(second))) == (1, 1)
    assert attempts(record) == [(1, "cheap"), (2, "dear")]
    assert record.event("attempt_ended")["provider_code"] == "sip:503"
    assert record["end_reason"] == "agent_hung_up", record.end()
    assert [record["provider_call_id"]] == invites(second)
    assert "sip:+14155550102@" in second.got("INVITE").header("From")
    assert "X-nat" not in second.got("INVITE").text
    assert len([call for call in gateway.calls() if call["id"] == call_id]) == 1
    gateway.is_well()


@pytest.mark.parametrize(("script", "reason"), [("> 180\n> 480", "no_answer"), ("> 180\n> 500", "failed")])
def test_the_next_trunk_is_not_dialled_when_the_first_rang(
    gateway: Any, sipp: Any, ports: tuple[int, int], script: str, reason: str
) -> None:
    first = sipp.answer(ports[0], f"< INVITE\n{script}\n< ACK")
    second = sipp.answer(ports[1], "< INVITE\n> 486\n< ACK")
    call_id = placed(gateway)
    first.ok()
    record = gateway.ended(call_id)
    time.sleep(1.0)
    assert (len(invites(first)), len(invites(second))) == (1, 0)
    assert record["end_reason"] == reason, record.end()
    assert attempts(record) == [(1, "cheap")]
    gateway.is_well()


def test_who_is_busy_is_called_again_by_policy_over_the_first_trunk(
    gateway: Any, sipp: Any, ports: tuple[int, int]
) -> None:
    first = sipp.answer(ports[0], "< INVITE\n> 180\n> 486\n< ACK", options=("-m", "2"))
    second = sipp.answer(ports[1], "< INVITE\n> 486\n< ACK")
    began = time.monotonic()
    call_id = placed(gateway)
    first.ok()
    took_s = time.monotonic() - began
    record = gateway.ended(call_id)
    assert 10 <= took_s < 15
    assert (len(invites(first)), len(invites(second))) == (2, 0)
    assert attempts(record) == [(1, "cheap"), (2, "cheap")]
    assert record["end_reason"] == "busy"
    gateway.is_well()


def test_a_trunk_that_no_connection_can_be_made_to_is_passed_over(sip_gateway: Any, sipp: Any, phone: Any) -> None:
    shut, open_ = lease(), lease()
    gateway = sip_gateway(
        outbound__allow="US",
        sip__trunks__shut__host=f"127.0.0.1:{shut}",
        sip__trunks__shut__transport="tcp",
        sip__trunks__shut__ping_s="0",
        sip__trunks__shut__cost_per_minute="0.01",
        sip__trunks__open__host=f"127.0.0.1:{open_}",
        sip__trunks__open__ping_s="0",
    )
    run = sipp.answer(open_, "< INVITE\n> 180\n> 603\n< ACK")
    call_id = placed(gateway)
    run.ok()
    record = gateway.ended(call_id)
    assert attempts(record) == [(1, "shut"), (2, "open")]
    assert record["end_reason"] == "rejected", record.end()
    gateway.is_well()


@pytest.mark.parametrize("script", ["< INVITE\n> 180\n< ACK", "< INVITE\n> 180\n> 486\n< ACK"], ids=["rings", "waits"])
def test_after_a_crash_nobody_is_dialled_again(sip_gateway: Any, sipp: Any, tmp_path: Any, script: str) -> None:
    peer = lease()
    settings = {
        "data_dir": str(tmp_path / "data"),
        "outbound__allow": "US",
        "outbound__retry_busy": "3",
        "outbound__retry_busy_after_s": "10",
        "sip__trunks__carrier__host": f"127.0.0.1:{peer}",
        "sip__trunks__carrier__ping_s": "0",
    }
    gateway = sip_gateway(**settings)
    run = sipp.answer(peer, script)
    call_id = placed(gateway)
    if "486" in script:
        run.ok()
        gateway.until(lambda: "waiting" in [e["kind"] for e in gateway.get(f"/v1/calls/{call_id}")["events"]])
    else:
        run.until(lambda: run.has("INVITE"))
    gateway.kill()
    run.kill()
    again = sipp.answer(peer, "< INVITE\n> 486\n< ACK")
    gateway = sip_gateway(**settings)
    record = gateway.ended(call_id)
    assert record["end_reason"] == "gateway_lost"
    assert attempts(record) == [(1, "carrier")]
    time.sleep(11)
    assert invites(again) == []
    gateway.is_well()
