"""Calls that come in over SIP, as sipp places them."""

from typing import Any

import pytest

pytestmark = pytest.mark.e2e

CALL = """
> INVITE sdp
<? 100
<? 180
< 200
> ACK 2xx
. 1200
> BYE
< 200
"""
REFUSED = """
> INVITE sdp
<? 100
<? 180
< {status}
> ACK
"""


@pytest.fixture(scope="module")
def gateway(shared_sip_gateway: Any) -> Any:
    return shared_sip_gateway(
        sip__trunks__pbx__peers="127.0.0.1/32",
        sip__trunks__pbx__number_from="to",
        sip__trunks__pbx__country="US",
        sip__trunks__pbx__headers_in="X-Order=order,Diversion=diversion,User-to-User=uui,Identity=passport",
        sip__trunks__door__peers="127.0.0.2/32",
        sip__trunks__door__numbers="+15005550001,+1415*",
        sip__trunks__door__block="+15005550009,anonymous",
        sip__trunks__door__max_calls="1",
    )


# --- answered -------------------------------------------------------------------------------------------------------


def test_a_call_rings_is_answered_and_hears_the_agent(gateway: Any, sipp: Any, phone: Any) -> None:
    run = sipp.call(
        gateway,
        """
        > INVITE sdp
        < 100
        < 180
        < 200
        > ACK 2xx
        . 3000
        > BYE
        < 200
        """,
        phone,
    ).ok()
    assert "a=sendrecv" in run.got("200").text
    assert phone.loud() > 50
    record = gateway.ended()
    assert record.end() == ("caller_hung_up", "")
    assert (record["leg"], record["direction"]) == ("sip", "inbound")
    assert (record["from_number"], record["to_number"]) == ("+15005550006", "+15005550001")
    arrived = record.event("arrived")
    assert (arrived["trunk"], arrived["transport"]) == ("pbx", "udp")
    assert record.ladder() == [
        "in INVITE",
        "out 100 Trying",
        "out 180 Ringing",
        "out 200 OK",
        "in ACK",
        "in BYE",
        "out 200 OK",
    ]
    steps = record.event("sip_ladder")["steps"]
    assert steps[1]["at_ms"] < 100
    assert steps[3]["at_ms"] < 500
    media = record.event("sip_media")
    assert media["codec"] == "PCMU/8000"
    assert media["in_packets"] > 130
    assert (media["in_lost"], media["in_loss_percent"]) == (0, 0)
    assert media["in_jitter_ms"] < 20
    assert media["mos"] > 4
    assert record["turns"][0]["heard_exact"]


def test_an_invite_without_an_offer_gets_ours_and_answers_in_the_ack(gateway: Any, sipp: Any, phone: Any) -> None:
    run = sipp.call(
        gateway,
        """
        > INVITE
        < 100
        < 180
        < 200
        > ACK 2xx sdp
        . 2500
        > BYE
        < 200
        """,
        phone,
    ).ok()
    offer = run.got("200").text
    assert "m=audio" in offer
    assert "PCMU/8000" in offer
    assert "opus/48000" in offer
    assert phone.loud() > 20
    record = gateway.ended()
    assert record.end() == ("caller_hung_up", "")
    assert record.event("sip_audio")["codec"] == "PCMU/8000"


def test_pcma_is_taken_when_it_is_offered(gateway: Any, sipp: Any, phone: Any) -> None:
    phone.payload_type, phone.sound = 8, b"\xd5" * 160
    sipp.call(gateway, CALL.replace("INVITE sdp", "INVITE sdp=pcma").replace("1200", "2500"), phone).ok()
    assert gateway.ended().event("sip_media")["codec"] == "PCMA/8000"
    assert {packet.payload_type for _, packet in phone.packets} == {8}


def test_sipps_own_stream_is_a_call_as_well(gateway: Any, sipp: Any, tmp_path: Any) -> None:
    """RTP and its clock by another implementation."""
    tone = tmp_path / "quiet.ul"
    tone.write_bytes(b"\xff" * 8000)
    script = CALL.replace("INVITE sdp", "INVITE sdp=own").replace(". 1200", f"play {tone}\n. 2500")
    sipp.call(gateway, script).ok()
    record = gateway.ended()
    assert record.end() == ("caller_hung_up", "")
    media = record.event("sip_media")
    assert media["in_packets"] > 100
    assert media["in_lost"] == 0


def test_our_side_says_bye(gateway: Any, sipp: Any, phone: Any) -> None:
    import httpx

    run = sipp.call(
        gateway,
        """
        > INVITE sdp
        <? 100
        <? 180
        < 200
        > ACK 2xx
        < BYE
        > 200 plain
        """,
        phone,
    )
    phone.until(lambda: phone.loud() > 5)
    (live,) = [call for call in gateway.calls() if call["live"]]
    assert httpx.delete(f"{gateway.origin}/v1/calls/{live['id']}").status_code == 202
    run.ok()
    record = gateway.ended(live["id"])
    assert record.ladder()[-2:] == ["out BYE", "in 200 OK"]
    assert record["end_reason"] == "agent_hung_up", record.end()


# --- who calls whom -------------------------------------------------------------------------------------------------


def test_numbers_are_read_from_to_and_written_as_e164(gateway: Any, sipp: Any, phone: Any) -> None:
    texts = {"to": "<sip:(415)555-0199;phone-context=+1@carrier.example>"}
    caller = '"A, B; C" <sip:4155550123@carrier.example;user=phone>'
    sipp.call(gateway, CALL, phone, number="trunk-account", caller=caller, texts=texts).ok()
    record = gateway.ended()
    assert (record["from_number"], record["to_number"]) == ("+14155550123", "+14155550199")


def test_headers_become_attributes_and_the_network_says_who_calls(gateway: Any, sipp: Any, phone: Any) -> None:
    texts = {
        "headers": "\n".join(
            (
                "X-Order: 4711",
                "X-Other: nobody asked",
                "Diversion: <sip:+14155550177@carrier.example>;reason=no-answer;counter=1",
                "User-to-User: 56a390f3d2b7310023a2;encoding=hex",
                'P-Asserted-Identity: "Ann" <sip:+14155550155@carrier.example>, <tel:+14155550155>',
            )
        )
    }
    sipp.call(gateway, CALL.replace("INVITE sdp", "INVITE sdp @headers"), phone, texts=texts).ok()
    record = gateway.ended()
    assert record["from_number"] == "+14155550155"
    assert record.event("arrived")["asserted"] is True
    assert record.event("attributes") == {
        "order": "4711",
        "diversion": "<sip:+14155550177@carrier.example>;reason=no-answer;counter=1",
        "uui": "56a390f3d2b7310023a2;encoding=hex",
    }


def test_a_withheld_number_is_not_in_the_record(gateway: Any, sipp: Any, phone: Any) -> None:
    texts = {"headers": "Privacy: id\nP-Asserted-Identity: <sip:+14155550155@carrier.example>"}
    caller = '"Anonymous" <sip:anonymous@anonymous.invalid>'
    sipp.call(gateway, CALL.replace("INVITE sdp", "INVITE sdp @headers"), phone, texts=texts, caller=caller).ok()
    record = gateway.ended()
    assert record["from_number"] is None
    assert record.event("arrived")["withheld"] is True
    assert "4155550155" not in str(record)


def test_an_identity_header_beyond_a_datagrams_usual_size_comes_through(gateway: Any, sipp: Any, phone: Any) -> None:
    passport = "eyJhbGciOiJFUzI1NiJ9." + "a" * 1800 + "." + "b" * 86
    texts = {"headers": f"Identity: {passport};info=<https://cert.example/a.pem>;alg=ES256;ppt=shaken"}
    sipp.call(gateway, CALL.replace("INVITE sdp", "INVITE sdp @headers"), phone, texts=texts).ok()
    record = gateway.ended()
    assert record.end() == ("caller_hung_up", "")
    assert record.event("attributes")["passport"].startswith("eyJhbGciOiJFUzI1NiJ9.aaa")


# --- refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "caller", "status"),
    [
        ("+15005550002", "<sip:+15005550006@a.example>", 404),
        ("+14155550002", "<sip:+15005550009@a.example>", 603),
        ("+14155550002", "<sip:anonymous@anonymous.invalid>", 603),
    ],
)
def test_a_trunk_refuses_by_its_rules(gateway: Any, sipp: Any, number: str, caller: str, status: int) -> None:
    sipp.call(gateway, REFUSED.format(status=status), number=number, caller=caller, host="127.0.0.2").ok()


def test_a_trunk_with_all_its_calls_is_busy(gateway: Any, sipp: Any, phone: Any) -> None:
    first = sipp.call(gateway, CALL.replace("1200", "2000"), phone, host="127.0.0.2")
    first.until(lambda: first.has("200"))
    sipp.call(gateway, REFUSED.format(status=486), number="+14155550002", host="127.0.0.2").ok()
    first.ok()
    gateway.ended()
    sipp.call(gateway, CALL, phone, host="127.0.0.2").ok()


def test_no_codec_in_common_is_488(gateway: Any, sipp: Any) -> None:
    sipp.call(gateway, REFUSED.format(status=488).replace("INVITE sdp", "INVITE sdp=g729")).ok()
    gateway.live(0)


# --- options --------------------------------------------------------------------------------------------------------


def test_peers_options_are_answered_and_strangers_are_not(gateway: Any, wires: Any) -> None:
    peer, stranger = wires(gateway), wires(gateway, "127.0.0.3")
    peer.send(peer.request("OPTIONS"))
    assert "INVITE" in peer.until(200, "OPTIONS").header("Allow")
    stranger.send(stranger.request("OPTIONS"))
    assert stranger.receive(0.5) is None


def test_other_requests_outside_a_call_are_not_for_us(gateway: Any, wires: Any) -> None:
    for method in ("REGISTER", "SUBSCRIBE", "MESSAGE", "PUBLISH", "FOOBAR"):
        peer = wires(gateway)
        peer.send(peer.request(method))
        peer.until(405, method)


def test_the_gateway_is_well_after_all_of_that(gateway: Any) -> None:
    gateway.live(0)
    gateway.is_well()
