"""Fraud attempts over SIP, on the wire."""

from typing import Any

import pytest

from tests.e2e.sip.test_refer import events
from tests.e2e.sip.test_transfer import ASKS, LEAVES, record_of
from trunkline.testing.ports import lease

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def trunk_port() -> int:
    return lease()


@pytest.fixture(scope="module")
def gateway(shared_sip_gateway: Any, trunk_port: int, pytestconfig: Any) -> Any:
    return shared_sip_gateway(
        agent=pytestconfig.rootpath / "tests" / "e2e" / "agents" / "transfer.toml",
        outbound__allow="US",
        sip__trunks__carrier__peers="127.0.0.1/32",
        sip__trunks__carrier__host=f"127.0.0.1:{trunk_port}",
        sip__trunks__carrier__ping_s="0",
        sip__trunks__carrier__caller_id="+14155550100",
        sip__trunks__carrier__country="US",
        sip__trunks__carrier__refer="true",
    )


@pytest.mark.parametrize(
    ("refer_to", "codes"),
    [
        ("<sip:+19005551212@pbx.example>", {"premium"}),
        ("<sip:19005551212@pbx.example;user=phone>", {"premium"}),
        ("<sip:9005551212;phone-context=+1@pbx.example>", {"premium"}),
        ("<sip:+1-900-555-1212@pbx.example>", {"premium"}),
        ("<tel:+1-900-555-1212>", {"premium"}),
        ("<sip:+881612345678@pbx.example>", {"premium"}),
        ("<sip:911@pbx.example>", {"emergency", "no_number"}),
        ("<sip:+1911@pbx.example>", {"emergency", "no_number"}),
        ("<tel:112;phone-context=+49>", {"emergency", "no_number"}),
    ],
)
def test_a_far_end_that_refers_us_to_what_costs(
    gateway: Any, sipp: Any, phone: Any, refer_to: str, codes: set[str]
) -> None:
    script = ASKS + ". 300\n> REFER @refer\n< 403\n. 200\n" + LEAVES
    run = sipp.call(gateway, script, phone, texts={"refer": f"Refer-To: {refer_to}"}).ok()
    record = record_of(gateway, run)
    (asked,) = events(record, "refer_asked")
    assert asked["code"] in codes
    assert "leg_dialled" not in record.kinds()
    gateway.is_well()


@pytest.mark.parametrize(
    "header",
    [
        "Diversion: <sip:911@pbx.example>;reason=unconditional",
        "Diversion: <tel:112>;reason=no-answer",
        "Diversion: <sip:+13055550100@pbx.example>;reason=unconditional, <sip:911@pbx.example>;reason=unconditional",
    ],
)
def test_an_emergency_call_that_was_sent_on_to_us_goes_back(gateway: Any, sipp: Any, header: str) -> None:
    run = sipp.call(gateway, "> INVITE sdp @by\n<? 100\n< 404\n> ACK", texts={"by": header}).ok()
    record = record_of(gateway, run)
    assert record.end() == ("refused", "emergency")
    gateway.is_well()


def test_a_call_forwarded_by_anyone_else_is_answered(gateway: Any, sipp: Any, phone: Any) -> None:
    by = {"by": "Diversion: <sip:101@pbx.example>;reason=unconditional"}
    sipp.call(gateway, ASKS.replace("INVITE sdp", "INVITE sdp @by") + ". 300\n" + LEAVES, phone, texts=by).ok()
