"""REFERs from the far end: who talks with the agent, or with a caller of ours, asks us to call somebody else."""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.sip.test_transfer import (
    ANSWERS,
    ASKS,
    IS_LEFT,
    LEAVES,
    REFUSES_REFER,
    RINGS,
    hear_each_other,
    pitches,
    record_of,
    tone,
)
from trunkline.testing.ports import lease

pytestmark = pytest.mark.e2e

NUMBER = "+12025550123"
HOURS = "We open at eight in the morning."
TEXTS = {"refer": f"Refer-To: <sip:{NUMBER}@198.51.100.9>", "silent": "Refer-Sub: false"}
TOLD = "< NOTIFY\n> 200 plain\n"
REFERS = ". 600\n> REFER @refer\n< 202\n"


@pytest.fixture(scope="module")
def far_port() -> int:
    return lease()


@pytest.fixture(scope="module")
def desk_port() -> int:
    return lease()


@pytest.fixture(scope="module")
def gateway(shared_sip_gateway: Any, far_port: int, desk_port: int, pytestconfig: Any) -> Any:
    """The desk is called over the callers' trunk, whom a REFER names over another, which is cheaper there."""
    return shared_sip_gateway(
        agent=pytestconfig.rootpath / "tests" / "e2e" / "agents" / "transfer.toml",
        outbound__allow="US",
        sip__trunks__carrier__peers="127.0.0.1/32",
        sip__trunks__carrier__host=f"127.0.0.1:{desk_port}",
        sip__trunks__carrier__ping_s="0",
        sip__trunks__carrier__caller_id="+14155550100",
        sip__trunks__carrier__refer="true",
        sip__trunks__carrier__cost_per_minute="*=0.05",
        sip__trunks__far__host=f"127.0.0.1:{far_port}",
        sip__trunks__far__media_peers="127.0.0.1/32",
        sip__trunks__far__ping_s="0",
        sip__trunks__far__caller_id="+14155550100",
        sip__trunks__far__cost_per_minute="+1202=0.01, *=0.5",
    )


def told(run: Any) -> list[tuple[str, str]]:
    """By the NOTIFYs that came: Subscription-State and the fragment's line, each once."""
    found: list[tuple[str, str]] = []
    for message in run.messages():
        if message.received and message.start.startswith("NOTIFY"):
            assert message.header("Event") == "refer"
            assert message.header("Content-Type").replace(" ", "") == "message/sipfrag;version=2.0"
            one = message.header("Subscription-State"), message.text.split("\n\n", 1)[1].strip()
            if one not in found:
                found.append(one)
    return found


TRYING, RINGING = ("active;expires=180", "SIP/2.0 100 Trying"), ("active;expires=180", "SIP/2.0 180 Ringing")


def over(line: str) -> tuple[str, str]:
    return "terminated;reason=noresource", f"SIP/2.0 {line}"


def presses(phone: Any, run: Any, start: str, digit: str) -> None:
    """The key that the far end understands, by its SDP in this message."""
    keys = re.search(r"a=rtpmap:(\d+) telephone-event", run.got(start).text)
    assert keys is not None
    phone.keys_type = int(keys[1])
    phone.key(digit)


def hears_the_agent(phone: Any, press: Callable[[], None]) -> None:
    before = phone.loud()
    press()
    phone.until(lambda: phone.loud() > before + 20)


def events(record: Any, kind: str) -> list[Any]:
    return [event["data"] for event in record["events"] if event["kind"] == kind]


# --- followed -------------------------------------------------------------------------------------------------------


def test_whom_the_far_end_names_talks_with_the_agent_instead(
    gateway: Any, sipp: Any, phones: Any, far_port: int
) -> None:
    caller, target = phones(), phones()
    target.sound = tone(1500)  # so that a gap would be seen in what the agent's line hears
    far = sipp.answer(far_port, ANSWERS + ". 5000\n" + LEAVES, target)
    run = sipp.call(gateway, ASKS + REFERS + 3 * TOLD + LEAVES, caller, texts=TEXTS).ok()
    left = time.monotonic()
    assert told(run) == [TRYING, RINGING, over("200 OK")]
    invite = far.got("INVITE")
    assert invite.start.startswith(f"INVITE sip:{NUMBER}@127.0.0.1:{far_port}")  # not the host that was named
    assert "+15005550001" in invite.header("Diversion")
    target.sound = b"\xff" * 160
    hears_the_agent(target, lambda: presses(target, far, "INVITE", "1"))
    far.ok()
    assert pitches(caller, left + 0.3) == []
    record = record_of(gateway, run)
    assert record.end() == ("caller_hung_up", "")
    assert HOURS in record["turns"][-1]["agent_text"]
    assert events(record, "refer_asked") == [{"status": 202, "code": "accepted", "target": "+1202***23"}]
    (followed,) = events(record, "refer_followed")
    assert (followed["result"], followed["status"]) == ("followed", 200)
    assert followed["leg"] == record.event("leg_dialled")["leg"]
    assert len(events(record, "sip_ladder")) == 2
    assert record.event("media")["lost_ms"] < 1000  # the new line's clock goes on where the old one was
    gateway.live(0)
    gateway.is_well()
    assert NUMBER not in gateway.log


def test_who_asked_and_does_not_leave_is_hung_up(gateway: Any, sipp: Any, phones: Any, far_port: int) -> None:
    far = sipp.answer(far_port, ANSWERS + ". 3500\n" + LEAVES, phones())
    run = sipp.call(gateway, ASKS + REFERS + 3 * TOLD + IS_LEFT, phones(), texts=TEXTS)
    run.ok()
    assert gateway.calls()[0]["live"]
    far.ok()
    assert record_of(gateway, run).end() == ("caller_hung_up", "")
    gateway.is_well()


def test_the_agent_and_who_asked_talk_on_while_it_rings(gateway: Any, sipp: Any, phones: Any, far_port: int) -> None:
    caller = phones()
    ringing = ANSWERS.replace(". 300", ". 4500")
    far = sipp.answer(far_port, ringing + ". 500\n" + LEAVES, phones())
    run = sipp.call(gateway, ASKS + REFERS + 3 * TOLD + LEAVES, caller, texts=TEXTS)
    far.until(lambda: far.has("INVITE"))
    hears_the_agent(caller, lambda: caller.key("1"))
    assert not far.has("ACK")
    run.ok()
    far.ok()
    gateway.is_well()


def test_who_wants_to_hear_nothing_hears_nothing(gateway: Any, sipp: Any, phones: Any, far_port: int) -> None:
    far = sipp.answer(far_port, ANSWERS + ". 2500\n" + LEAVES, phones())
    script = ASKS + REFERS.replace("@refer", "@refer @silent") + IS_LEFT
    run = sipp.call(gateway, script, phones(), texts=TEXTS).ok()
    assert run.got("202").header("Refer-Sub") == "false"
    assert told(run) == []
    far.ok()
    gateway.is_well()


# --- not followed to its end: the far end keeps the agent -------------------------------------------------------------


@pytest.mark.parametrize(("status", "line"), [(486, "486 Busy Here"), (404, "404 Not Found"), (603, "603 Decline")])
def test_whoever_does_not_answer_is_told_of_and_nothing_changes(
    gateway: Any, sipp: Any, phone: Any, far_port: int, status: int, line: str
) -> None:
    far = sipp.answer(far_port, f"< INVITE\n> 100\n> 180\n. 300\n> {status}\n< ACK")
    run = sipp.call(gateway, ASKS + REFERS + 3 * TOLD + ". 3500\n" + LEAVES, phone, texts=TEXTS)
    far.ok()
    run.until(lambda: over(line) in told(run))
    assert told(run) == [TRYING, RINGING, over(line)]
    hears_the_agent(phone, lambda: phone.key("1"))
    run.ok()
    record = record_of(gateway, run)
    assert record.end() == ("caller_hung_up", "")
    assert record.event("refer_followed")["status"] == status
    gateway.is_well()


def test_a_far_end_that_refuses_notifys_keeps_its_call(gateway: Any, sipp: Any, phone: Any, far_port: int) -> None:
    """481 ends the subscription (RFC 6665 4.1.2.2); were NOTIFY a request of the call's, it would end the call."""
    far = sipp.answer(far_port, "< INVITE\n> 100\n> 180\n. 300\n> 486\n< ACK")
    run = sipp.call(gateway, ASKS + REFERS + "< NOTIFY\n> 481 plain\n. 3500\n" + LEAVES, phone, texts=TEXTS)
    far.ok()
    hears_the_agent(phone, lambda: phone.key("1"))
    run.ok()
    assert told(run) == [TRYING]
    assert record_of(gateway, run).end() == ("caller_hung_up", "")
    gateway.is_well()


def test_who_asks_and_hangs_up_leaves_nobody_ringing(gateway: Any, sipp: Any, phone: Any, far_port: int) -> None:
    far = sipp.answer(far_port, RINGS)
    run = sipp.call(gateway, ASKS + REFERS + 2 * TOLD + ". 300\n" + LEAVES, phone, texts=TEXTS).ok()
    far.ok()
    record = record_of(gateway, run)
    assert record.end() == ("caller_hung_up", "")
    assert record.event("refer_followed")["result"] == "the call is over"
    gateway.live(0)
    gateway.is_well()


# --- refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refer_to", "status", "code"),
    [
        ("<http://example.com/>", 416, "foreign_scheme"),
        ("<sips:+12025550123@pbx.example>", 416, "foreign_scheme"),
        ("<sip:+12025550123@pbx.example;method=BYE>", 403, "foreign_method"),
        ("<sip:sales@pbx.example>", 403, "no_number"),
        ("<sip:+442079460000@pbx.example>", 403, "country_closed"),
        ("<sip:+19005550123@pbx.example>", 403, "premium"),
        ("<sip:+12025550123@pbx.example?Replaces=no%40host%3Bto-tag%3D1%3Bfrom-tag%3D2>", 603, "unknown_dialog"),
        ("sip:+12025550123@pbx.example?Replaces=no%40host%3Bto-tag%3D1%3Bfrom-tag%3D2", 400, "malformed"),
        ("<sip:", 400, "malformed"),
    ],
)
def test_what_is_refused_is_refused_and_nothing_changes(
    gateway: Any, sipp: Any, phone: Any, refer_to: str, status: int, code: str
) -> None:
    texts = {"refer": f"Refer-To: {refer_to}"}
    run = sipp.call(gateway, ASKS + f". 600\n> REFER @refer\n< {status}\n. 2500\n" + LEAVES, phone, texts=texts)
    run.until(lambda: run.has(f"SIP/2.0 {status}"))
    hears_the_agent(phone, lambda: phone.key("1"))
    run.ok()
    record = record_of(gateway, run)
    assert record.end() == ("caller_hung_up", "")
    assert events(record, "refer_asked") == [{"status": status, "code": code}]
    assert events(record, "leg_dialled") == []
    gateway.is_well()


def test_a_trunk_that_was_not_opened_for_it_declines(sip_gateway: Any, sipp: Any, phone: Any) -> None:
    gateway = sip_gateway(outbound__allow="US")
    run = sipp.call(gateway, ASKS + "> REFER @refer\n< 603\n. 300\n" + LEAVES, phone, texts=TEXTS).ok()
    assert events(record_of(gateway, run), "refer_asked") == [{"status": 603, "code": "not_allowed"}]
    gateway.is_well()


def test_a_second_refer_waits_for_the_first(gateway: Any, sipp: Any, phone: Any, far_port: int) -> None:
    far = sipp.answer(far_port, RINGS)
    script = ASKS + REFERS + 2 * TOLD + "> REFER @refer\n< 491\n" + LEAVES
    run = sipp.call(gateway, script, phone, texts=TEXTS).ok()
    far.ok()
    assert [one["code"] for one in events(record_of(gateway, run), "refer_asked")] == ["accepted", "pending"]
    gateway.is_well()


# --- bad weather ----------------------------------------------------------------------------------------------------


def talking(gateway: Any, wire: Any, phone: Any) -> str:
    """A call by hand: our tag."""
    wire.send(wire.request("INVITE", body=wire.sdp(phone.port)))
    tag = wire.until(200, "INVITE").to_tag
    wire.send(wire.request("ACK", tag=tag, branch="ack"))
    phone.until(lambda: phone.loud() > 5)
    return str(tag)


def test_a_refer_and_a_bye_at_once(sip_gateway: Any, wires: Any, phone: Any) -> None:
    """Each is answered, in whichever order, and the call is over. A gateway of its own, as an INVITE to where nobody
    listens is repeated for half a minute."""
    gateway = sip_gateway(
        outbound__allow="US",
        sip__trunks__pbx__peers="127.0.0.1/32",
        sip__trunks__pbx__host=f"127.0.0.1:{lease()}",
        sip__trunks__pbx__ping_s="0",
        sip__trunks__pbx__refer="true",
    )
    refer_to = f"<sip:{NUMBER}@pbx.example>"
    for first, second in (("BYE", "REFER"), ("REFER", "BYE")):
        wire = wires(gateway)
        tag = talking(gateway, wire, phone)
        for cseq, method in ((2, first), (3, second)):
            more = {"refer_to": refer_to} if method == "REFER" else {}
            wire.send(wire.request(method, cseq, tag=tag, **more))
        answers = {a.header("CSeq").split()[1]: a.start for a in wire.drain(1.5) if a.start.startswith("SIP/2.0")}
        assert answers["BYE"] == "SIP/2.0 200 OK"
        assert "REFER" in answers
        record = gateway.ended(wire.call_id)
        assert record.end() == ("caller_hung_up", "")
        phone.gateway = None
        phone.packets.clear()
    gateway.live(0)
    gateway.is_well()


def test_a_thousand_refers_do_not_disturb_a_call(sip_gateway: Any, sipp: Any, wires: Any, phones: Any) -> None:
    """Three are looked at, the rest is refused; the record has some of them."""
    gateway = sip_gateway(outbound__allow="US", sip__trunks__pbx__peers="127.0.0.1/32", sip__trunks__pbx__refer="true")
    live, other = phones(), phones()
    run = sipp.call(gateway, ASKS + ". 7000\n" + LEAVES, live)
    live.until(lambda: live.loud() > 5)
    wire = wires(gateway)
    tag = talking(gateway, wire, other)
    answers = []
    for cseq in range(2, 1002):
        wire.send(wire.request("REFER", cseq, tag=tag, refer_to="<sip:+442079460000@pbx.example>"))
        time.sleep(0.002)
        if cseq % 100 == 0:
            answers += [answer.start for answer in wire.drain(0.05)]
    answers += [answer.start for answer in wire.drain(1.0)]
    assert len(answers) == 1000
    assert answers.count("SIP/2.0 403 Forbidden") == 3
    assert answers.count("SIP/2.0 503 Service Unavailable") == 997
    wire.send(wire.request("BYE", 1002, tag=tag))
    wire.until(200, "BYE")
    record = gateway.ended(wire.call_id)
    assert len(events(record, "refer_asked")) == 16
    gateway.until(lambda: gateway.metric("trunkline_sip_turned_away_total") >= 980)  # before Python saw them
    run.ok()
    undisturbed = record_of(gateway, run)
    assert undisturbed.end() == ("caller_hung_up", "")
    assert undisturbed.event("sip_media")["in_lost"] == 0
    assert undisturbed.event("media")["replaced_frames"] == 0
    assert undisturbed.event("media")["overrun_frames"] == 0
    gateway.is_well()


# --- a representative -----------------------------------------------------------------------------------------------


def test_a_representative_names_somebody_who_takes_their_place(
    gateway: Any, sipp: Any, phones: Any, desk_port: int, far_port: int
) -> None:
    caller, first, second = phones(), phones(), phones()
    asks = ". 3000\n> REFER @refer\n< 202\n" + 3 * TOLD + LEAVES
    desk = sipp.answer(desk_port, ANSWERS + asks, first, texts=TEXTS)
    far = sipp.answer(far_port, ANSWERS + ". 3500\n" + LEAVES, second)
    run = sipp.call(gateway, ASKS + REFUSES_REFER + IS_LEFT, caller)
    caller.until(lambda: caller.loud() > 5)
    caller.key("0")
    desk.until(lambda: desk.has("ACK"))
    hear_each_other(caller, first)
    desk.ok()
    assert told(desk) == [TRYING, RINGING, over("200 OK")]
    hear_each_other(caller, second)
    far.ok()
    run.ok()
    record = record_of(gateway, run)
    assert record["end_reason"] == "transferred"
    assert len({one["leg"] for one in events(record, "joined")}) == 2
    assert sorted(one["attempt"] for one in events(record, "leg_ended")) == [2, 2]
    assert record.event("refer_followed")["result"] == "followed"
    gateway.live(0)
    gateway.is_well()


def test_a_representative_whose_wish_fails_stays(gateway: Any, sipp: Any, phones: Any, desk_port: int) -> None:
    caller, first = phones(), phones()
    desk = sipp.answer(
        desk_port,
        ANSWERS + ". 2500\n> REFER @refer\n< 403\n. 2500\n" + LEAVES,
        first,
        texts={"refer": "Refer-To: <sip:+442079460000@198.51.100.9>"},
    )
    run = sipp.call(gateway, ASKS + REFUSES_REFER + IS_LEFT, caller)
    caller.until(lambda: caller.loud() > 5)
    caller.key("0")
    desk.until(lambda: desk.has("403"))
    hear_each_other(caller, first)
    desk.ok()
    run.ok()
    assert record_of(gateway, run).event("refer_asked")["code"] == "country_closed"
    gateway.is_well()


# --- Replaces -------------------------------------------------------------------------------------------------------


def test_a_far_end_of_another_call_is_taken_and_nobody_is_called(
    gateway: Any, sipp: Any, wires: Any, phones: Any
) -> None:
    asking, other = phones(), phones()
    run = sipp.call(gateway, ASKS + ". 6000\n" + LEAVES, other)
    other.until(lambda: other.loud() > 5)
    wire = wires(gateway)
    tag = talking(gateway, wire, asking)
    ours, theirs = run.got("200").to_tag, re.search(r";tag=([^;>\s]+)", run.got("200").header("From"))
    assert theirs is not None
    call_id = run.got("200").header("Call-ID")
    dialog = f"{call_id};to-tag={ours};from-tag={theirs[1]}"
    escaped = dialog.replace("@", "%40").replace(";", "%3B").replace("=", "%3D")
    wire.send(wire.request("REFER", 2, tag=tag, refer_to=f"<sip:x@127.0.0.1?Replaces={escaped}>"))
    wire.until(202, "REFER")
    for said in ("100 Trying", "200 OK"):
        notify = wire.until(0, "NOTIFY")
        assert f"SIP/2.0 {said}" in notify.text
        answer(wire, notify, "200 OK")
    wire.send(wire.request("BYE", 3, tag=tag))
    wire.until(200, "BYE")
    taken = gateway.ended(call_id)
    assert taken.end() == ("transferred", "taken by another call")
    assert next(call for call in gateway.calls() if call["provider_call_id"] == wire.call_id)["live"]
    hears_the_agent(other, lambda: presses(other, run, "200", "1"))
    run.ok()
    record = gateway.ended(wire.call_id)
    assert record.end() == ("caller_hung_up", "")
    assert HOURS in record["turns"][-1]["agent_text"]
    assert events(record, "leg_dialled") == []
    gateway.live(0)
    gateway.is_well()


def answer(wire: Any, request: Any, status: str) -> None:
    copied = [f"{name}: {request.header(name)}" for name in ("Via", "From", "To", "Call-ID", "CSeq")]
    wire.send("\r\n".join([f"SIP/2.0 {status}", *copied, "Content-Length: 0", "", ""]))
