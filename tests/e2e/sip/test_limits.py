"""What is too much: calls beyond the limit, INVITEs beyond the rate, and calls to a gateway that leaves."""

import time
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

CALL = """
> INVITE sdp
<? 100
<? 180
< 200
> ACK 2xx
. {ms}
> BYE
< 200
"""
FULL = """
> INVITE sdp
<? 100
< 503
> ACK
"""
FLOOD_S = 5


def test_a_full_gateway_says_so_and_when_to_come_back(sip_gateway: Any, sipp: Any, phone: Any) -> None:
    gateway = sip_gateway(limits__max_calls="1")
    first = sipp.call(gateway, CALL.format(ms=2500), phone)
    gateway.live(1)
    time.sleep(0.5)  # the desk tells the front within its next look
    full = sipp.call(gateway, FULL).ok()
    assert int(full.got("503").header("Retry-After")) > 0
    first.ok()
    gateway.live(0)
    time.sleep(0.5)
    sipp.call(gateway, CALL.format(ms=300), phone).ok()
    gateway.is_well()
    assert gateway.metric("trunkline_sip_turned_away_total") >= 1


def test_the_last_line_is_not_given_twice(sip_gateway: Any, sipp: Any, phones: Any) -> None:
    """Before the desk has told the front: both come at once."""
    gateway = sip_gateway(limits__max_calls="1")
    script = "> INVITE sdp\n<? 100\n<? 180\n<? 503\n< 200\n> ACK 2xx\n. 1500\n> BYE\n< 200"
    runs = [sipp.call(gateway, script, phones()) for _ in range(3)]
    for run in runs:
        run.until(lambda run=run: run.has("SIP/2.0 200") or run.has("SIP/2.0 503"))
    (answered,) = [run for run in runs if run.has("SIP/2.0 200")]
    answered.ok()
    assert sum(run.has("SIP/2.0 503") for run in runs) == 2
    gateway.is_well()


def test_a_gateway_that_is_stopped_finishes_its_call_and_takes_no_other(
    sip_gateway: Any, sipp: Any, phone: Any
) -> None:
    gateway = sip_gateway(limits__drain_seconds="30")
    live = sipp.call(gateway, CALL.format(ms=4500), phone)
    phone.until(lambda: phone.loud() > 5)
    gateway.signal()
    time.sleep(0.6)
    away = sipp.call(gateway, FULL).ok()
    assert int(away.got("503").header("Retry-After")) > 0
    before = phone.heard()
    time.sleep(0.5)
    assert phone.heard() > before + 15
    live.ok()
    assert gateway.wait() == 0
    assert gateway.complaints() == []


def test_a_flood_of_invites_does_not_disturb_a_call(sip_gateway: Any, sipp: Any, phone: Any) -> None:
    """1,000 a second from one source that may send 100; then a call goes through at once."""
    gateway = sip_gateway(sip__trunks__pbx__peers="127.0.0.1/32", sip__trunks__crowd__peers="127.0.0.2/32")
    live = sipp.call(gateway, CALL.format(ms=10_000), phone)
    phone.until(lambda: phone.loud() > 5)
    rss_mb = gateway.rss_mb()
    flood = sipp.call(
        gateway,
        "> INVITE sdp once",
        number="+15005550999",
        host="127.0.0.2",
        options=("-r", "1000", "-m", str(1000 * FLOOD_S), "-l", "100000"),
        trace=False,
    )
    flood.process.wait(18)
    assert gateway.rss_mb() - rss_mb < 60
    live.ok()
    record = gateway.ended(
        lambda call: call["end_reason"] == "caller_hung_up" and "@127.0.0.1" in call["provider_call_id"]
    )
    assert record.event("sip_media")["in_lost"] == 0
    assert record.event("media")["replaced_frames"] == 0
    assert record.event("media")["overrun_frames"] == 0
    assert gateway.metric("trunkline_sip_turned_away_total") > 1000 * (FLOOD_S - 1) * 0.7
    sipp.call(gateway, CALL.format(ms=500), phone).ok()
    assert gateway.process.poll() is None
    assert gateway.complaints() == []
