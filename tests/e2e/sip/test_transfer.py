"""Callers who ask the agent for a person: by REFER, or joined with a leg of ours. sipp is the caller and the target."""

import re
import time
from typing import Any

import httpx
import numpy as np
import pytest

from trunkline.media import g711
from trunkline.testing.ports import lease

pytestmark = pytest.mark.e2e

CALLER_HZ, TARGET_HZ = 1000, 1500  # whole cycles a frame
SORRY_BUSY, SORRY_NO_ANSWER = "I'm sorry, the line is busy.", "I'm sorry, nobody answers there."
SORRY = "I'm sorry, I could not reach them."

ASKS = """
> INVITE sdp
<? 100
<? 180
< 200
> ACK 2xx
"""
LEAVES = "> BYE\n< 200\n"
IS_LEFT = "< BYE\n> 200 plain\n"
ANSWERS = """
< INVITE
> 100
> 180
. 300
> 200 sdp
< ACK
"""
REFUSES_REFER = "< REFER\n> 405 plain\n"
SIPFRAG = {
    "event": "Event: refer",
    "active": "Subscription-State: active;expires=60",
    "over": "Subscription-State: terminated;reason=noresource",
    "type": "Content-Type: message/sipfrag",
    "trying": "SIP/2.0 100 Trying",
    "ringing": "SIP/2.0 180 Ringing",
    "ok": "SIP/2.0 200 OK",
    "busy": "SIP/2.0 486 Busy Here",
}


def notify(state: str, body: str) -> str:
    return f"> NOTIFY @event @{state} @type body={body}\n< 200\n"


@pytest.fixture(scope="module")
def desk_port() -> int:
    return lease()


@pytest.fixture(scope="module")
def gateway(shared_sip_gateway: Any, desk_port: int, pytestconfig: Any) -> Any:
    return shared_sip_gateway(
        agent=pytestconfig.rootpath / "tests" / "e2e" / "agents" / "transfer.toml",
        outbound__allow="US",
        sip__trunks__carrier__peers="127.0.0.1/32",
        sip__trunks__carrier__host=f"127.0.0.1:{desk_port}",
        sip__trunks__carrier__ping_s="0",
        sip__trunks__carrier__caller_id="+14155550100",
    )


def asks(gateway: Any, sipp: Any, phone: Any, script: str, **more: Any) -> Any:
    """A caller who presses 0 at the greeting, and what happens to them then."""
    run = sipp.call(gateway, ASKS + script, phone, texts=SIPFRAG, **more)
    phone.until(lambda: phone.loud() > 5)
    phone.key("0")
    return run


def sent(gateway: Any, sipp: Any, phone: Any, script: str, kind: str, **more: Any) -> Any:
    """A caller whom an operator sends to the desk."""
    run = sipp.call(gateway, ASKS + script, phone, texts=SIPFRAG, **more)
    phone.until(lambda: phone.loud() > 20)
    call_id = next(c["id"] for c in gateway.calls() if c["provider_call_id"] == run.messages()[0].header("Call-ID"))
    asked = {"target": "desk", "kind": kind, "summary": "It is about a lost key."}
    answer = httpx.post(f"{gateway.origin}/v1/calls/{call_id}/transfer", json=asked, timeout=5.0)
    assert answer.status_code == 202, answer.text
    return run


def record_of(gateway: Any, run: Any) -> Any:
    return gateway.ended(run.messages()[0].header("Call-ID"))


def says(gateway: Any, run: Any, words: str, within_s: float = 12.0) -> None:
    """Until the caller has heard it."""
    call_id, seen = run.messages()[0].header("Call-ID"), list[Any]()

    def said() -> bool:
        found = [call for call in gateway.calls() if call["provider_call_id"] == call_id]
        seen[:] = [gateway.get(f"/v1/calls/{found[0]['id']}")] if found else []
        return any(words in turn["agent_text"] for one in seen for turn in one["turns"])

    deadline = time.monotonic() + within_s
    while not said():
        assert time.monotonic() < deadline, (seen, gateway.log)
        time.sleep(0.1)


def attempts(record: Any) -> list[tuple[str, str]]:
    return [(e["data"]["how"], e["data"]["result"]) for e in record["events"] if e["kind"] == "transfer_attempt"]


def invites(run: Any) -> list[str]:
    """Call-IDs of those that came, as often as they were sent."""
    return [m.header("Call-ID") for m in run.messages() if m.received and m.start.startswith("INVITE")]


# --- what is heard --------------------------------------------------------------------------------------------------


def tone(hz: int) -> bytes:
    pcm = (8000 * np.sin(2 * np.pi * hz * np.arange(160) / 8000)).astype("<i2")
    return bytes(g711.encode(pcm.tobytes(), "mulaw"))


def pitches(phone: Any, since: float, until: float = float("inf")) -> list[int]:
    """Of each frame heard then: its loudest frequency, to 50 Hz; 0 is silence."""
    found = []
    for at, packet in tuple(phone.packets):
        if since <= at < until and len(packet.payload) == 160:
            pcm = np.frombuffer(g711.decode(packet.payload, "mulaw"), dtype="<i2").astype(float)
            loud = np.sqrt((pcm**2).mean()) > 200
            found.append(int(np.abs(np.fft.rfft(pcm)).argmax()) * 50 if loud else 0)
    return found


def share(found: list[int], hz: int) -> float:
    return sum(one == hz for one in found) / max(1, len(found))


def hear_each_other(caller: Any, target: Any) -> None:
    """For a second, and nothing else: neither the agent nor ringback."""
    caller.sound, target.sound = tone(CALLER_HZ), tone(TARGET_HZ)
    began = time.monotonic()
    target.until(lambda: pitches(target, began)[-40:].count(CALLER_HZ) == 40)
    caller.until(lambda: pitches(caller, began)[-40:].count(TARGET_HZ) == 40)
    began = time.monotonic()
    time.sleep(1.0)
    assert share(pitches(caller, began), TARGET_HZ) > 0.95, pitches(caller, began)
    assert share(pitches(target, began), CALLER_HZ) > 0.95, pitches(target, began)


# --- REFER ----------------------------------------------------------------------------------------------------------


def test_a_caller_is_put_through_by_their_carrier(gateway: Any, sipp: Any, phone: Any) -> None:
    told = notify("active", "trying") + notify("active", "ringing") + notify("over", "ok")
    run = asks(gateway, sipp, phone, "< REFER\n> 202 plain\n" + told + IS_LEFT).ok()
    assert "+14155550177" in run.got("REFER").header("Refer-To")
    record = record_of(gateway, run)
    assert record["end_reason"] == "transferred", record.end()
    assert attempts(record) == [("blind", "transferred")]
    attempt = record.event("transfer_attempt")
    assert (attempt["refer_status"], attempt["sip_status"], attempt["confirmed"]) == (202, 200, True)
    assert attempt["trunk"] == "carrier"
    assert attempt["ringing_ms"] <= attempt["joined_ms"]
    codes = [e["data"]["code"] for e in record["events"] if e["kind"] == "refer"]
    assert codes == [202, 100, 180, 200]
    assert "One moment." in record["turns"][-1]["agent_text"]
    gateway.is_well()


def test_a_caller_hears_ringback_while_their_carrier_dials(gateway: Any, sipp: Any, phone: Any) -> None:
    script = "< REFER\n> 202 plain\n" + notify("active", "trying") + ". 2000\n" + notify("over", "ok") + IS_LEFT
    run = asks(gateway, sipp, phone, script)
    run.until(lambda: run.has("REFER"))
    began = time.monotonic()
    run.ok()
    heard = pitches(phone, began + 0.3, began + 1.7)
    assert share(heard, 0) < 0.1, heard
    assert set(heard) - {0} <= {400, 450, 500}, heard


@pytest.mark.parametrize(
    ("answered", "result", "sorry"),
    [
        (f"> 202 plain\n{notify('active', 'trying')}{notify('over', 'busy')}", "busy", SORRY_BUSY),
        (f"> 202 plain\n{notify('over', 'busy')}", "busy", SORRY_BUSY),
    ],
    ids=["after 100", "at once"],
)
def test_a_target_that_is_busy_brings_the_caller_back(
    gateway: Any, sipp: Any, phone: Any, answered: str, result: str, sorry: str
) -> None:
    run = asks(gateway, sipp, phone, f"< REFER\n{answered}. 6000\n{LEAVES}")
    says(gateway, run, sorry)
    run.ok()
    record = record_of(gateway, run)
    assert record["end_reason"] == "caller_hung_up"
    assert attempts(record) == [("blind", result)]
    assert record.event("transfer_attempt")["sip_status"] == 486
    gateway.is_well()


def test_a_carrier_that_declines_a_blind_transfer_gives_the_caller_back(gateway: Any, sipp: Any, phone: Any) -> None:
    run = sent(gateway, sipp, phone, f"< REFER\n> 603 plain\n. 6000\n{LEAVES}", "blind")
    says(gateway, run, SORRY)
    run.ok()
    record = record_of(gateway, run)
    assert record["end_reason"] == "caller_hung_up"
    assert attempts(record) == [("blind", "refused_by_peer")]
    assert record.event("transfer_attempt")["refer_status"] == 603
    gateway.is_well()


def test_a_carrier_that_never_answers_a_refer_gives_the_caller_back(gateway: Any, sipp: Any, phone: Any) -> None:
    """After 15 s; nobody else is dialled, as it may have been followed."""
    run = asks(gateway, sipp, phone, f"< REFER\n. 22000\n{LEAVES}", options=("-timeout", "40"))
    says(gateway, run, SORRY, 26)
    run.ok(20)
    record = record_of(gateway, run)
    assert record["end_reason"] == "caller_hung_up"
    assert attempts(record) == [("blind", "timed_out")]
    assert 14_900 <= record.event("transfer_attempt")["ended_ms"] < 16_000
    gateway.is_well()


# --- joined ---------------------------------------------------------------------------------------------------------


def test_a_carrier_that_refuses_refer_has_the_caller_joined_by_us(
    gateway: Any, sipp: Any, phones: Any, desk_port: int
) -> None:
    caller, target = phones(), phones()
    desk = sipp.answer(desk_port, ANSWERS + IS_LEFT, target)
    run = asks(gateway, sipp, caller, REFUSES_REFER + ". 4500\n" + LEAVES)
    desk.until(lambda: desk.has("ACK"))
    hear_each_other(caller, target)
    run.ok()
    desk.ok()
    assert len(invites(desk)) == 1
    assert "sip:+14155550177@" in desk.got("INVITE").start
    record = record_of(gateway, run)
    assert record["end_reason"] == "transferred", record.end()
    assert attempts(record) == [("blind", "refused_by_peer"), ("bridged", "transferred")]
    attempt = record.event("transfer_attempt")
    assert attempt["answered_ms"] <= attempt["joined_ms"]
    assert record.event("leg_ended")["seconds"] > 1
    legs = {e["data"]["leg"] for e in record["events"] if e["kind"] in ("leg_dialled", "joined", "leg_ended")}
    assert len(legs) == 1
    gateway.is_well()


def test_the_representative_hangs_up_and_the_caller_is_hung_up(
    gateway: Any, sipp: Any, phones: Any, desk_port: int
) -> None:
    caller, target = phones(), phones()
    desk = sipp.answer(desk_port, ANSWERS + ". 3000\n" + LEAVES, target)
    run = asks(gateway, sipp, caller, REFUSES_REFER + IS_LEFT)
    desk.until(lambda: desk.has("ACK"))
    hear_each_other(caller, target)
    desk.ok()
    run.ok()
    assert record_of(gateway, run)["end_reason"] == "transferred"
    gateway.live(0)
    gateway.is_well()


@pytest.mark.parametrize(
    ("status", "result", "sorry"),
    [(486, "busy", SORRY_BUSY), (480, "no_answer", SORRY_NO_ANSWER), (603, "rejected", SORRY), (404, "failed", SORRY)],
)
def test_a_target_that_does_not_answer_our_call_brings_the_caller_back(
    gateway: Any, sipp: Any, phone: Any, desk_port: int, status: int, result: str, sorry: str
) -> None:
    desk = sipp.answer(desk_port, f"< INVITE\n> 100\n> 180\n. 300\n> {status}\n< ACK")
    run = asks(gateway, sipp, phone, f"{REFUSES_REFER}. 6500\n{LEAVES}")
    desk.ok()
    says(gateway, run, sorry)
    run.ok()
    assert len(invites(desk)) == 1
    record = record_of(gateway, run)
    assert record["end_reason"] == "caller_hung_up"
    assert attempts(record) == [("blind", "refused_by_peer"), ("bridged", result)]
    assert record.event("transfer_attempt")["sip_status"] == status
    gateway.is_well()


RINGS = """
< INVITE
> 100
> 180
< CANCEL
> 200
> 487 invite
< ACK
"""


def test_a_caller_who_hangs_up_while_it_rings_leaves_nobody_ringing(
    gateway: Any, sipp: Any, phone: Any, desk_port: int
) -> None:
    desk = sipp.answer(desk_port, RINGS)
    run = asks(gateway, sipp, phone, f"{REFUSES_REFER}. 2000\n{LEAVES}").ok()
    desk.ok()
    assert len(invites(desk)) == 1
    record = record_of(gateway, run)
    assert record["end_reason"] == "caller_hung_up", record.end()
    assert attempts(record) == [("blind", "refused_by_peer"), ("bridged", "caller_left")]
    gateway.is_well()


def test_a_target_that_rings_too_long_is_cancelled_and_the_caller_comes_back(
    gateway: Any, sipp: Any, phone: Any, desk_port: int
) -> None:
    """After 30 s."""
    desk = sipp.answer(desk_port, RINGS, options=("-timeout", "50"))
    run = asks(gateway, sipp, phone, f"{REFUSES_REFER}. 38000\n{LEAVES}", options=("-timeout", "60"))
    says(gateway, run, SORRY_NO_ANSWER, 45)
    desk.ok()
    assert len(invites(desk)) == 1
    run.ok(20)
    record = record_of(gateway, run)
    assert attempts(record) == [("blind", "refused_by_peer"), ("bridged", "no_answer")]
    gateway.is_well()


def test_a_target_hears_early_media_of_nobody_and_the_caller_hears_theirs(
    gateway: Any, sipp: Any, phones: Any, desk_port: int
) -> None:
    """An announcement before the answer, as exchanges play it."""
    caller, target = phones(), phones()
    target.sound = tone(TARGET_HZ)
    script = "< INVITE\n> 100\n> 183 sdp\n. 2500\n> 486\n< ACK"
    desk = sipp.answer(desk_port, script, target)
    caller.sound = tone(CALLER_HZ)
    run = asks(gateway, sipp, caller, f"{REFUSES_REFER}. 8000\n{LEAVES}")
    caller.until(lambda: pitches(caller, 0)[-30:].count(TARGET_HZ) == 30)
    desk.ok()
    assert CALLER_HZ not in pitches(target, 0)
    caller.sound = b"\xff" * 160
    says(gateway, run, SORRY_BUSY)
    run.ok()
    gateway.is_well()


def test_a_trunk_that_takes_no_refer_is_sent_none(sip_gateway: Any, sipp: Any, phones: Any, pytestconfig: Any) -> None:
    """Its profile says so: the caller is joined at once."""
    caller, target, port = phones(), phones(), lease()
    gateway = sip_gateway(
        agent=pytestconfig.rootpath / "tests" / "e2e" / "agents" / "transfer.toml",
        outbound__allow="US",
        sip__trunks__old__peers="127.0.0.1/32",
        sip__trunks__old__profile="strict",
        sip__trunks__out__host=f"127.0.0.1:{port}",
        sip__trunks__out__peers="127.0.0.2/32",
        sip__trunks__out__media_peers="127.0.0.1/32",
        sip__trunks__out__ping_s="0",
        sip__trunks__out__caller_id="+14155550100",
    )
    desk = sipp.answer(port, ANSWERS + IS_LEFT, target)
    script = ASKS.replace("> INVITE sdp", "> INVITE sdp @timer") + ". 6000\n" + LEAVES
    run = sipp.call(gateway, script, caller, texts={"timer": "Supported: timer"})
    caller.until(lambda: caller.loud() > 5)
    caller.key("0")
    desk.until(lambda: desk.has("ACK"))
    hear_each_other(caller, target)
    run.ok()
    desk.ok()
    record = record_of(gateway, run)
    assert not run.has("REFER")
    assert attempts(record) == [("bridged", "transferred")]
    assert record.event("transfer_attempt")["trunk"] == "out"
    gateway.is_well()


# --- briefed first --------------------------------------------------------------------------------------------------


def presses(target: Any, desk: Any, digit: str) -> None:
    """Into the briefing, once it is heard."""
    target.until(lambda: target.loud() > 50)
    keys = re.search(r"a=rtpmap:(\d+) telephone-event", desk.got("INVITE").text)
    assert keys is not None
    target.keys_type = int(keys[1])
    target.key(digit)


def test_a_representative_who_presses_1_takes_the_call(gateway: Any, sipp: Any, phones: Any, desk_port: int) -> None:
    caller, target = phones(), phones()
    desk = sipp.answer(desk_port, ANSWERS + IS_LEFT, target)
    run = sent(gateway, sipp, caller, f". 9000\n{LEAVES}", "warm")
    caller.sound = tone(CALLER_HZ)
    began = time.monotonic()
    target.until(lambda: target.loud() > 50)
    waited = pitches(caller, began + 0.5)
    assert share(waited, 0) < 0.1, "music"
    assert CALLER_HZ not in pitches(target, 0)
    presses(target, desk, "1")
    hear_each_other(caller, target)
    run.ok()
    desk.ok()
    record = record_of(gateway, run)
    assert record["end_reason"] == "transferred"
    assert attempts(record) == [("warm", "transferred")]
    attempt = record.event("transfer_attempt")
    assert attempt["answered_ms"] < attempt["accepted_ms"] <= attempt["joined_ms"]
    gateway.is_well()


def test_a_representative_who_presses_2_is_spared_and_the_caller_comes_back(
    gateway: Any, sipp: Any, phones: Any, desk_port: int
) -> None:
    caller, target = phones(), phones()
    desk = sipp.answer(desk_port, ANSWERS + IS_LEFT, target)
    run = sent(gateway, sipp, caller, f". 11000\n{LEAVES}", "warm")
    presses(target, desk, "2")
    desk.ok()
    says(gateway, run, "nobody can take your call right now")
    run.ok()
    record = record_of(gateway, run)
    assert record["end_reason"] == "caller_hung_up"
    assert attempts(record) == [("warm", "declined")]
    gateway.is_well()
