"""Calls that go out over SIP, as sipp takes them."""

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
def peer_port() -> int:
    return lease()


@pytest.fixture(scope="module")
def gateway(shared_sip_gateway: Any, peer_port: int) -> Any:
    return shared_sip_gateway(
        outbound__allow="US",
        sip__trunks__carrier__peers="127.0.0.1/32",
        sip__trunks__carrier__host=f"127.0.0.1:{peer_port}",
        sip__trunks__carrier__ping_s="0",
        sip__trunks__carrier__caller_id="+14155550100",
        sip__trunks__carrier__auth_username="account",
        sip__trunks__carrier__auth_password="secret-word",
        sip__trunks__carrier__headers_out="order=X-Order,uui=User-to-User,passport=Identity",
    )


def placed(gateway: Any, **order: Any) -> str:
    answer = gateway.dial(**order)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def hang_up(gateway: Any, call_id: str) -> None:
    assert httpx.delete(f"{gateway.origin}/v1/calls/{call_id}", timeout=5.0).status_code == 202


# --- answered -------------------------------------------------------------------------------------------------------


def test_an_answered_call_hears_the_agent_until_we_hang_up(gateway: Any, sipp: Any, phone: Any, peer_port: int) -> None:
    run = sipp.answer(peer_port, ANSWERED, phone)
    call_id = placed(gateway)
    phone.until(lambda: phone.loud() > 20)
    hang_up(gateway, call_id)
    run.ok()
    invite = run.got("INVITE")
    assert "sip:+14155550123@" in invite.start
    assert "sip:+14155550100@" in invite.header("From")
    record = gateway.ended(call_id)
    assert (record["direction"], record["from_number"], record["to_number"]) == (
        "outbound",
        "+14155550100",
        "+14155550123",
    )
    assert record["provider_call_id"] == invite.header("Call-ID")
    assert record["end_reason"] == "agent_hung_up", record.end()
    assert record.ladder() == [
        "out INVITE",
        "in 100 Trying",
        "in 180 Ringing",
        "in 200 OK",
        "out ACK",
        "out BYE",
        "in 200 OK",
    ]
    media = record.event("sip_media")
    assert (media["codec"], media["in_lost"]) == ("PCMU/8000", 0)


def test_the_called_party_hangs_up(gateway: Any, sipp: Any, phone: Any, peer_port: int) -> None:
    script = """
    < INVITE
    > 180
    > 200 sdp
    < ACK
    . 1500
    > BYE
    < 200
    """
    run = sipp.answer(peer_port, script, phone)
    call_id = placed(gateway)
    run.ok()
    assert gateway.ended(call_id).end() == ("caller_hung_up", "")
    assert phone.loud() > 5


def test_an_order_names_the_caller_and_the_headers(gateway: Any, sipp: Any, phone: Any, peer_port: int) -> None:
    passport = "eyJhbGciOiJFUzI1NiJ9." + "a" * 480
    run = sipp.answer(peer_port, ANSWERED, phone)
    attributes = {"order": "4711", "uui": "56a390;encoding=hex", "passport": passport, "unmapped": "stays here"}
    call_id = placed(gateway, **{"from": "+14155550177"}, attributes=attributes)
    phone.until(lambda: phone.loud() > 2)
    hang_up(gateway, call_id)
    run.ok()
    invite = run.got("INVITE")
    assert "sip:+14155550177@" in invite.header("From")
    assert invite.header("X-Order") == "4711"
    assert invite.header("User-to-User") == "56a390;encoding=hex"
    assert invite.header("Identity") == passport
    assert "stays here" not in invite.text
    assert len(invite.text) > 1300  # over UDP, all the same (RFC 3261 18.1.1 would have it be TCP)


def test_early_media_is_heard_before_the_answer(gateway: Any, sipp: Any, phone: Any, peer_port: int) -> None:
    script = """
    < INVITE
    > 183 sdp
    . 1000
    > 200 sdp
    < ACK
    < BYE
    > 200 plain
    """
    run = sipp.answer(peer_port, script, phone)
    call_id = placed(gateway)
    phone.until(lambda: phone.loud() > 10)
    hang_up(gateway, call_id)
    run.ok()
    record = gateway.ended(call_id)
    assert record.kinds().index("early_media") < record.kinds().index("answered")
    assert record.event("progress")["code"] == 183
    assert record["turns"][0]["agent_text"]


# --- not answered ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "reason", "detail"),
    [
        (486, "busy", "busy"),
        (600, "busy", "busy"),
        (480, "no_answer", "not reachable"),
        (603, "rejected", "rejected"),
        (403, "rejected", "rejected"),
        (404, "failed", "no such number"),
        (488, "failed", "no common codec"),
        (500, "failed", "the trunk failed"),
        (503, "failed", "the trunk failed"),
    ],
)
def test_what_the_far_end_answers_is_the_reason(
    gateway: Any, sipp: Any, peer_port: int, status: int, reason: str, detail: str
) -> None:
    run = sipp.answer(peer_port, f"< INVITE\n> 100\n> 180\n> {status}\n< ACK")
    call_id = placed(gateway)
    run.ok()
    record = gateway.ended(call_id)
    assert record["end_reason"] == reason
    assert record["end_detail"].startswith(detail)
    assert str(status) in record["end_detail"]


def test_an_exchanges_cause_says_more_than_the_status(gateway: Any, sipp: Any, peer_port: int) -> None:
    texts = {"cause": 'Reason: Q.850;cause=1;text="unallocated"'}
    run = sipp.answer(peer_port, "< INVITE\n> 480 @cause\n< ACK", texts=texts)
    call_id = placed(gateway)
    run.ok()
    assert gateway.ended(call_id).end() == ("failed", "no such number (SIP 480, Q.850 1)")


def test_a_call_that_nobody_answers_is_cancelled(gateway: Any, sipp: Any, peer_port: int) -> None:
    script = """
    < INVITE
    > 180
    < CANCEL
    > 200
    > 487 invite
    < ACK
    """
    run = sipp.answer(peer_port, script)
    call_id = placed(gateway, ring_timeout_s=5)
    run.ok()
    record = gateway.ended(call_id)
    assert record["end_reason"] == "no_answer", record.end()
    assert "out CANCEL" in record.ladder()


def test_a_call_is_hung_up_while_it_rings(gateway: Any, sipp: Any, peer_port: int) -> None:
    script = """
    < INVITE
    > 180
    < CANCEL
    > 200
    > 487 invite
    < ACK
    """
    run = sipp.answer(peer_port, script)
    call_id = placed(gateway)
    run.until(lambda: run.has("INVITE"))
    hang_up(gateway, call_id)
    run.ok()
    assert gateway.ended(call_id)["end_reason"] == "agent_hung_up"


def test_an_answer_that_crosses_our_cancel_is_acknowledged_and_hung_up(gateway: Any, sipp: Any, peer_port: int) -> None:
    script = """
    < INVITE
    > 180
    < CANCEL
    > 200
    > 200 invite sdp
    < ACK
    < BYE
    > 200 plain
    """
    run = sipp.answer(peer_port, script)
    call_id = placed(gateway)
    run.until(lambda: run.has("INVITE"))
    hang_up(gateway, call_id)
    run.ok()
    assert gateway.ended(call_id)["end_reason"] == "agent_hung_up"


def test_a_redirection_is_not_followed(gateway: Any, sipp: Any, peer_port: int) -> None:
    """The far end would choose whom we call, past the dial door."""
    texts = {"elsewhere": "Contact: <sip:+19005550123@127.0.0.1:9>"}
    run = sipp.answer(peer_port, "< INVITE\n> 302 @elsewhere bare\n< ACK", texts=texts)
    call_id = placed(gateway)
    run.ok()
    record = gateway.ended(call_id)
    assert record.end() == ("failed", "redirected elsewhere (SIP 302)")
    assert record.ladder().count("out INVITE") == 1


@pytest.mark.parametrize(("status", "header"), [(401, "WWW-Authenticate"), (407, "Proxy-Authenticate")])
@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
def test_a_challenge_is_answered(
    gateway: Any, sipp: Any, phone: Any, peer_port: int, status: int, header: str, algorithm: str
) -> None:
    texts = {"challenge": f'{header}: Digest realm="carrier", nonce="abc", qop="auth", algorithm={algorithm}'}
    script = f"""
    < INVITE
    > {status} @challenge
    < ACK
    {ANSWERED.strip()}
    """
    run = sipp.answer(peer_port, script, phone, texts=texts)
    call_id = placed(gateway)
    phone.until(lambda: phone.loud() > 2)
    hang_up(gateway, call_id)
    run.ok()
    shown = run.got("INVITE", 1).header("Authorization" if status == 401 else "Proxy-Authorization")
    assert 'username="account"' in shown
    assert "secret-word" not in run.trace()


def test_credentials_that_are_refused_end_the_call(gateway: Any, sipp: Any, peer_port: int) -> None:
    texts = {"challenge": 'Proxy-Authenticate: Digest realm="carrier", nonce="abc", qop="auth", algorithm=MD5'}
    run = sipp.answer(peer_port, "< INVITE\n> 407 @challenge\n< ACK\n< INVITE\n> 407 @challenge\n< ACK", texts=texts)
    call_id = placed(gateway)
    run.ok()
    record = gateway.ended(call_id)
    assert record["end_reason"] == "failed"
    assert "credentials" in record["end_detail"]


# --- not even dialled -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("to", "code"), [("+33155550100", "country_closed"), ("911", "emergency")])
def test_closed_countries_and_emergency_numbers_send_nothing(gateway: Any, to: str, code: str) -> None:
    answer = gateway.dial(to=to)
    assert answer.status_code in (403, 422)
    assert answer.json()["code"] == code


def test_the_gateway_is_well_after_all_of_that(gateway: Any) -> None:
    gateway.live(0)
    gateway.is_well()
    assert "secret-word" not in gateway.log


# --- trunks that are there, or not ----------------------------------------------------------------------------------


def test_a_trunk_that_answers_no_options_is_down_and_is_not_dialled(sip_gateway: Any, sipp: Any) -> None:
    peer = lease()
    gateway = sip_gateway(
        outbound__allow="US",
        sip__trunks__carrier__host=f"127.0.0.1:{peer}",
        sip__trunks__carrier__ping_s="5",
    )
    sipp.answer(peer, "< OPTIONS\n> 503", options=("-m", "2")).ok()
    gateway.until(lambda: "trunk carrier is down (OPTIONS: 503)" in gateway.log)
    answer = gateway.dial()
    assert (answer.status_code, answer.json()["code"]) == (503, "trunk_down")
    sipp.answer(peer, "< OPTIONS\n> 200").ok()
    gateway.until(lambda: "trunk carrier is up" in gateway.log)
    run = sipp.answer(peer, "< INVITE\n> 486\n< ACK")
    call_id = placed(gateway)
    run.ok()
    assert gateway.ended(call_id)["end_reason"] == "busy"
    gateway.is_well()
