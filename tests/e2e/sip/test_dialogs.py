"""What happens within a call, and at its edges: races, hold, digits, lost messages."""

import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

CLINIC = Path(__file__).parents[3] / "trunkline" / "agents" / "examples" / "clinic.toml"
GREETING = "word0 word1 word2 word3 word4 word5 word6 word7 word8 word9."  # of the stand-in agent, 2 s
TALK = """
> INVITE sdp
<? 100
<? 180
< 200
> ACK 2xx
. 700
{within}
> BYE
< 200
"""


@pytest.fixture(scope="module")
def gateway(shared_sip_gateway: Any) -> Any:
    return shared_sip_gateway(sip__media_timeout_s="3")


# --- races ----------------------------------------------------------------------------------------------------------


def test_a_cancel_right_behind_its_invite_ends_the_call(gateway: Any, wires: Any) -> None:
    """Either it was in time (487), or our answer crossed it and the caller hangs up."""
    for _ in range(10):
        wire = wires(gateway)
        wire.send(wire.request("INVITE", branch="same", body=wire.sdp()))
        wire.send(wire.request("CANCEL", branch="same"))
        final = wire.until(487, "INVITE") if _cancelled(wire) else None
        if final is None:
            continue
        wire.send(wire.request("ACK", branch="same", tag=final.to_tag))
        record = gateway.ended(wire.call_id)
        assert record.end() == ("caller_hung_up", "cancelled")
        assert "in CANCEL" in record.ladder()
    gateway.live(0)


def _cancelled(wire: Any) -> bool:
    """Else it was answered first, and has been hung up."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        message = wire.receive()
        if message is None or not message.header("CSeq").endswith("INVITE"):
            continue
        if message.start.startswith("SIP/2.0 200"):
            wire.send(wire.request("ACK", branch="ack", tag=message.to_tag))
            wire.send(wire.request("BYE", 2, tag=message.to_tag))
            wire.until(200, "BYE")
            return False
        if message.start.startswith("SIP/2.0 487"):
            wire.send(wire.request("INVITE", branch="same", body=wire.sdp()))  # as if we had missed it
            return True
    raise AssertionError("no final answer")


def test_a_cancel_after_the_answer_changes_nothing(gateway: Any, wires: Any) -> None:
    wire = wires(gateway)
    wire.send(wire.request("INVITE", branch="same", body=wire.sdp()))
    answer = wire.until(200, "INVITE")
    wire.send(wire.request("CANCEL", branch="same"))
    wire.send(wire.request("ACK", branch="ack", tag=answer.to_tag))
    time.sleep(0.5)
    gateway.live(1)
    wire.send(wire.request("BYE", 2, tag=answer.to_tag))
    wire.until(200, "BYE")
    assert gateway.ended(wire.call_id).end() == ("caller_hung_up", "")


def test_an_invite_sent_again_is_one_call(gateway: Any, wires: Any) -> None:
    wire = wires(gateway)
    invite = wire.request("INVITE", branch="same", body=wire.sdp())
    wire.send(invite)
    wire.send(invite)
    answer = wire.until(200, "INVITE")
    wire.send(invite)
    again = wire.until(200, "INVITE")
    assert again.text == answer.text
    wire.send(wire.request("ACK", branch="ack", tag=answer.to_tag))
    wire.send(wire.request("BYE", 2, tag=answer.to_tag))
    wire.until(200, "BYE")
    record = gateway.ended(wire.call_id)
    assert record.event("sip_ladder")["steps"][0]["repeated"] == 2
    assert len([call for call in gateway.calls() if call["provider_call_id"] == wire.call_id]) == 1


def test_the_same_call_by_another_way_is_a_loop(gateway: Any, wires: Any) -> None:
    wire = wires(gateway)
    wire.send(wire.request("INVITE", branch="one", body=wire.sdp()))
    answer = wire.until(200, "INVITE")
    wire.send(wire.request("ACK", branch="ack", tag=answer.to_tag))
    wire.send(wire.request("INVITE", branch="two", body=wire.sdp()))  # forked on its way (RFC 3261 8.2.2.2)
    loop = wire.until(482, "INVITE")
    wire.send(wire.request("ACK", branch="two", tag=loop.to_tag))
    time.sleep(0.3)
    gateway.live(1)
    wire.send(wire.request("BYE", 2, tag=answer.to_tag))
    wire.until(200, "BYE")
    assert gateway.ended(wire.call_id).end() == ("caller_hung_up", "")


def test_a_caller_that_hangs_up_at_once(gateway: Any, sipp: Any, phone: Any) -> None:
    script = "> INVITE sdp\n<? 100\n<? 180\n< 200\n> ACK 2xx\n> BYE\n< 200"
    sipp.call(gateway, script, phone).ok()
    record = gateway.ended()
    assert record.end() == ("caller_hung_up", "")
    assert record["turns"] == []


def test_a_bye_without_an_ack_before_it(gateway: Any, wires: Any) -> None:
    wire = wires(gateway)
    wire.send(wire.request("INVITE", branch="same", body=wire.sdp()))
    answer = wire.until(200, "INVITE")
    wire.send(wire.request("BYE", 2, tag=answer.to_tag))
    wire.until(200, "BYE")
    assert gateway.ended(wire.call_id)["end_reason"] in ("caller_hung_up", "never_started")


def test_both_hang_up_at_once(gateway: Any, wires: Any) -> None:
    import httpx

    wire = wires(gateway)
    wire.send(wire.request("INVITE", branch="same", body=wire.sdp()))
    answer = wire.until(200, "INVITE")
    wire.send(wire.request("ACK", branch="ack", tag=answer.to_tag))
    gateway.until(lambda: any(c["live"] and c.get("state") == "active" for c in gateway.calls()))
    (live,) = [call for call in gateway.calls() if call["live"]]
    httpx.delete(f"{gateway.origin}/v1/calls/{live['id']}", timeout=5.0)
    bye = wire.until(0, "BYE")
    wire.send(wire.request("BYE", 2, tag=answer.to_tag))
    wire.until(200, "BYE") if not bye.start.startswith("BYE") else wire.drain(0.5)
    headers = "\r\n".join(f"{n}: {bye.header(n)}" for n in ("Via", "From", "To", "Call-ID", "CSeq"))
    wire.send(f"SIP/2.0 200 OK\r\n{headers}\r\nContent-Length: 0\r\n\r\n")
    assert gateway.ended(live["id"])["end_reason"] == "agent_hung_up"


def test_a_caller_whose_audio_stops_is_hung_up(gateway: Any, sipp: Any, phone: Any) -> None:
    run = sipp.call(gateway, "> INVITE sdp\n<? 100\n<? 180\n< 200\n> ACK 2xx\n< BYE\n> 200 plain", phone)
    phone.until(lambda: phone.loud() > 5)
    phone.sending = False
    run.ok()
    assert gateway.ended().end() == ("media_lost", "no media")


# --- hold -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "answered"),
    [("sdp=sendonly", "a=recvonly"), ("sdp=inactive", "a=inactive"), ("sdp=zero", ""), ("sdp=sendonly,zero", "")],
)
def test_a_call_is_held_and_taken_back(gateway: Any, sipp: Any, phone: Any, offered: str, answered: str) -> None:
    """Longer than the media timeout: what is held says nothing. The greeting goes on after it, and is heard whole."""
    within = f"> INVITE {offered}\n<? 100\n< 200\n> ACK 2xx\n. 4000\n> INVITE sdp\n<? 100\n< 200\n> ACK 2xx\n. 2500"
    run = sipp.call(gateway, TALK.format(within=within), phone)
    run.until(lambda: _answers(run) == 2)
    phone.sending = False
    assert answered in run.got("200", 1).text
    run.until(lambda: _answers(run) == 3)
    phone.sending = True
    before, loud = phone.heard(), phone.loud()
    run.ok()
    assert "a=sendrecv" in run.got("200", 2).text
    assert phone.heard() > before + 40
    record = gateway.ended()
    assert record.end() == ("caller_hung_up", "")
    assert phone.loud() > loud + 30
    assert record["turns"][0]["agent_text"] == GREETING
    assert len([kind for kind in record.kinds() if kind == "sip_audio"]) >= 2


def _answers(run: Any) -> int:
    return sum(
        m.received and m.start.startswith("SIP/2.0 200") and "INVITE" in m.header("CSeq") for m in run.messages()
    )


def test_the_audio_moves_to_another_port_and_codec(gateway: Any, sipp: Any, phones: Any) -> None:
    first, second = phones(), phones()
    second.payload_type, second.sound = 8, b"\xd5" * 160
    within = f". 500\n> INVITE sdp=pcma,{second.port}\n<? 100\n< 200\n> ACK 2xx\n. 2000"
    sipp.call(gateway, TALK.format(within=within), first).ok()
    record = gateway.ended()
    assert record.end() == ("caller_hung_up", "")
    assert second.heard() > 70
    assert {packet.payload_type for _, packet in second.packets} == {8}
    assert record.event("sip_audio")["codec"] == "PCMA/8000"
    last = record.event("sip_media")
    assert last["codec"] == "PCMA/8000"
    assert last["in_packets"] > 70


def test_a_reinvite_we_cannot_take_leaves_the_call_as_it_is(gateway: Any, sipp: Any, phone: Any) -> None:
    within = "> INVITE sdp=g729\n<? 100\n< 488\n> ACK\n. 1000"  # RFC 3261 14.2
    sipp.call(gateway, TALK.format(within=within), phone).ok()
    record = gateway.ended()
    assert record.end() == ("caller_hung_up", "")
    assert record.event("sip_media")["in_packets"] > 60


def test_an_update_is_answered(gateway: Any, sipp: Any, phone: Any) -> None:
    run = sipp.call(gateway, TALK.format(within="> UPDATE sdp\n< 200\n. 500"), phone).ok()
    assert "m=audio" in run.got("200", 1).text
    assert gateway.ended().end() == ("caller_hung_up", "")


@pytest.mark.parametrize("keep_alive", ["OPTIONS", "INFO"])
def test_keep_alives_within_a_call_are_answered(gateway: Any, sipp: Any, phone: Any, keep_alive: str) -> None:
    sipp.call(gateway, TALK.format(within=f"> {keep_alive}\n< 200\n" * 2), phone).ok()
    assert gateway.ended().end() == ("caller_hung_up", "")


def test_an_info_that_nobody_understands_is_said_to_be_one(gateway: Any, sipp: Any, phone: Any) -> None:
    texts = {"type": "Content-Type: application/media_control+xml", "xml": "<media_control/>"}
    sipp.call(gateway, TALK.format(within="> INFO @type body=xml\n< 415\n. 300"), phone, texts=texts).ok()
    assert gateway.ended().end() == ("caller_hung_up", "")


def test_a_transfer_that_is_asked_of_us_is_refused(gateway: Any, sipp: Any, phone: Any) -> None:
    texts = {"refer": "Refer-To: <sip:+19005550123@127.0.0.1:9>"}
    sipp.call(gateway, TALK.format(within="> REFER @refer\n< 603\n. 300"), phone, texts=texts).ok()
    assert gateway.ended().end() == ("caller_hung_up", "")


# --- what is never acknowledged -------------------------------------------------------------------------------------


def test_an_answer_that_nobody_acknowledges_is_said_again_and_then_is_over(gateway: Any, wires: Any) -> None:
    wire = wires(gateway)
    wire.send(wire.request("INVITE", branch="one", body=wire.sdp()))
    first = wire.until(200, "INVITE")
    assert wire.until(200, "INVITE").text == first.text
    assert wire.until(200, "INVITE").text == first.text
    record = gateway.ended(wire.call_id, within_s=15)
    assert record["end_reason"] == "never_started"
    assert record.event("sip_ladder")["steps"][3]["repeated"] >= 2


# --- digits ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clinic(shared_sip_gateway: Any) -> Any:
    return shared_sip_gateway(agent=CLINIC)


def test_digits_within_the_audio_are_heard(clinic: Any, sipp: Any, phone: Any) -> None:
    run = sipp.call(clinic, TALK.format(within=". 6000"), phone)
    phone.until(lambda: phone.loud() > 20)
    phone.key("3")
    run.ok()
    keyed = [turn for turn in clinic.ended()["turns"] if turn["keyed"]]
    assert len(keyed) == 1
    assert "12 Elm" in keyed[0]["agent_text"]


@pytest.mark.parametrize(
    ("kind", "body"),
    [("dtmf-relay", "Signal=3\nDuration=160"), ("dtmf-relay", "Signal= 3\nDuration= 160"), ("dtmf", "3")],
)
def test_digits_by_info_are_heard(clinic: Any, sipp: Any, phone: Any, kind: str, body: str) -> None:
    texts = {"type": f"Content-Type: application/{kind}", "digit": body}
    within = ". 1500\n> INFO @type body=digit\n< 200\n. 4000"
    sipp.call(clinic, TALK.format(within=within), phone, texts=texts).ok()
    keyed = [turn for turn in clinic.ended()["turns"] if turn["keyed"]]
    assert len(keyed) == 1
    assert "12 Elm" in keyed[0]["agent_text"]


def test_the_gateways_are_well_after_all_of_that(gateway: Any, clinic: Any) -> None:
    for one in (gateway, clinic):
        one.live(0)
        one.is_well()
