"""Calls of a gateway that can no longer end them: its watchdog says BYE, in dialogs that PJSIP had set up."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.sip.conftest import Message, Run
from trunkline.compliance.money.prices import COLUMNS
from trunkline.gateway.sip.established import PJSIP_FIRST_CSEQ
from trunkline.gateway.sip.farewell import CSEQ_AHEAD
from trunkline.testing.ports import lease

pytestmark = pytest.mark.e2e

COMES = """
> INVITE sdp
<? 100
<? 180
< 200
> ACK 2xx
< BYE
> 200 plain
"""
GOES = """
< INVITE
> 100
> 180
> 200 sdp
< ACK
< BYE
> 200 plain
"""


def the_bye(run: Run, gateway: Any) -> Message:
    run.ok(within_s=40)
    bye = run.got("BYE")
    assert f":{gateway.sip_port};" in bye.header("Via"), bye.text
    assert int(bye.header("CSeq").split()[0]) >= CSEQ_AHEAD
    return bye


def killed(gateway: Any) -> float:
    time.sleep(0.5)  # from the answer until the watchdog knows
    os.kill(gateway.process.pid, signal.SIGKILL)
    return time.monotonic()


def test_a_caller_of_a_gateway_that_was_killed_is_hung_up_at_once(sip_gateway: Any, sipp: Any, phone: Any) -> None:
    gateway = sip_gateway(limits__watchdog="true")
    run = sipp.call(gateway, COMES, phone)
    phone.until(lambda: phone.loud() > 10)
    at = killed(gateway)
    bye = the_bye(run, gateway)
    assert time.monotonic() - at < 3
    assert bye.header("Call-ID") == run.got("200 OK").header("Call-ID")
    assert bye.header("From").rpartition(";tag=")[2] == run.got("200 OK").header("To").rpartition(";tag=")[2]


def test_a_caller_who_has_moved_since_is_found(sip_gateway: Any, wires: Any, phone: Any) -> None:
    gateway = sip_gateway(limits__watchdog="true")
    here, there = wires(gateway), wires(gateway)
    here.send(here.request("INVITE", body=here.sdp(phone.port)))
    tag = here.until(200, "INVITE").to_tag
    here.send(here.request("ACK", tag=tag, branch="ack"))
    phone.until(lambda: phone.loud() > 10)
    again = here.request("INVITE", 2, tag=tag, body=here.sdp(phone.port).replace(" 1 IN", " 2 IN"))
    here.send(again.replace(f"<sip:wire@{here.host}:{here.port}>", f"<sip:wire@{there.host}:{there.port}>"))
    here.until(200, "INVITE")
    here.send(here.request("ACK", 2, tag=tag, branch="ack2"))
    killed(gateway)
    bye = there.until(0, "BYE")
    assert (bye.header("Call-ID"), bye.start) == (here.call_id, f"BYE sip:wire@{there.host}:{there.port} SIP/2.0")


def test_so_is_who_was_called(sip_gateway: Any, sipp: Any, phone: Any) -> None:
    port = lease()
    gateway = sip_gateway(
        limits__watchdog="true",
        outbound__allow="US",
        sip__trunks__carrier__peers="127.0.0.1/32",
        sip__trunks__carrier__host=f"127.0.0.1:{port}",
        sip__trunks__carrier__ping_s="0",
        sip__trunks__carrier__caller_id="+14155550100",
    )
    run = sipp.answer(port, GOES, phone)
    assert gateway.dial().status_code == 201
    phone.until(lambda: phone.loud() > 10)
    at = killed(gateway)
    bye = the_bye(run, gateway)
    assert time.monotonic() - at < 3
    invite = run.got("INVITE")
    assert bye.header("From") == invite.header("From")
    assert int(bye.header("CSeq").split()[0]) == int(invite.header("CSeq").split()[0]) + CSEQ_AHEAD


def test_kill_stop_and_a_caller_hears_a_bye_when_the_budget_is_spent_and_the_process_is_killed(
    sip_gateway: Any, sipp: Any, phone: Any, tmp_path: Path
) -> None:
    rows = ["# version test", COLUMNS, "sip,leg,*,voice,seconds,0.01,1,1,2026-11-28,the test"]
    (tmp_path / "prices.csv").write_text("\n".join(rows))
    gateway = sip_gateway(limits__watchdog="true", money__prices=str(tmp_path), money__call_usd="0.12")
    sipp.run_s = 40
    run = sipp.call(gateway, COMES, phone)
    run.until(lambda: run.has("SIP/2.0 200"))
    answered = time.monotonic()
    time.sleep(1.5)
    gateway.signal(signal.SIGSTOP)
    the_bye(run, gateway)
    assert 11.0 < time.monotonic() - answered < 12.0 + 2.0 + 3.0
    assert gateway.process.wait(10) == -signal.SIGKILL


def test_a_gateway_that_stops_in_order_says_bye_itself(sip_gateway: Any, sipp: Any, phone: Any) -> None:
    gateway = sip_gateway(limits__watchdog="true", limits__drain_seconds="0")
    run = sipp.call(gateway, COMES, phone)
    phone.until(lambda: phone.loud() > 10)
    gateway.signal(signal.SIGTERM)
    run.ok(within_s=30)
    assert int(run.got("BYE").header("CSeq").split()[0]) <= PJSIP_FIRST_CSEQ + 10
    gateway.process.wait(30)
    time.sleep(1.5)
    assert "is gone" not in gateway.log
