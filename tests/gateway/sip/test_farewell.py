"""A BYE from outside the stack: by RFC 3261's own dialogs."""

import json

import pytest

from trunkline.errors import PeerError
from trunkline.gateway.sip.established import of_ours, of_theirs
from trunkline.gateway.sip.farewell import CSEQ_AHEAD, MAX_CSEQ, Hop, bye, from_told, next_hop
from trunkline.gateway.sip.message import parse_head

ANSWER = """SIP/2.0 200 OK
Via: SIP/2.0/UDP 192.0.2.1:5060;rport=5060;branch=z9hG4bK1
Record-Route: <sip:p2.example.com;lr>, <sip:p1.example.com:5070;lr>
f: Us <sip:+14155550100@192.0.2.1>;tag=ours
t: <sip:+14155550123@sip.example.com>;tag=theirs
i: one@192.0.2.1
CSeq: 4711 INVITE
m: "B" <sip:bob@198.51.100.7:5066;transport=udp>;expires=60
l: 0

""".replace("\n", "\r\n")
INVITE = """INVITE sip:+14155550100@192.0.2.1 SIP/2.0
Via: SIP/2.0/TCP 198.51.100.7:5060;branch=z9hG4bK2
Record-Route: <sip:p1.example.com;lr>
Record-Route: <sip:p2.example.com;lr>
From: "Ann, a caller" <sip:+14155550123@198.51.100.7>;tag=theirs
To: <sip:+14155550100@192.0.2.1>
Call-ID: two@198.51.100.7
CSeq: 1 INVITE
Contact: sip:ann@198.51.100.7;x=y

""".replace("\n", "\r\n")
OURS = "To: <sip:+14155550100@192.0.2.1>"
ACK = INVITE.replace("INVITE", "ACK").replace(OURS, f"{OURS};tag=ours")


def test_a_call_of_ours_is_left_by_its_route_with_a_higher_cseq() -> None:
    dialog = of_ours(ANSWER)
    hop = next_hop(dialog)
    assert hop == Hop("p1.example.com", 5070, "udp")
    assert bye(dialog, hop, "192.0.2.1:5060", "b").decode().split("\r\n") == [
        "BYE sip:bob@198.51.100.7:5066;transport=udp SIP/2.0",
        "Via: SIP/2.0/UDP 192.0.2.1:5060;rport;branch=z9hG4bKb",
        "Max-Forwards: 70",
        "Route: <sip:p1.example.com:5070;lr>",
        "Route: <sip:p2.example.com;lr>",
        "From: Us <sip:+14155550100@192.0.2.1>;tag=ours",
        "To: <sip:+14155550123@sip.example.com>;tag=theirs",
        "Call-ID: one@192.0.2.1",
        f"CSeq: {4711 + CSEQ_AHEAD} BYE",
        "Content-Length: 0",
        "",
        "",
    ]


def test_of_a_call_that_came_we_are_who_was_called() -> None:
    dialog = of_theirs(INVITE, ACK)
    assert (dialog.local, dialog.remote) == (
        "<sip:+14155550100@192.0.2.1>;tag=ours",
        '"Ann, a caller" <sip:+14155550123@198.51.100.7>;tag=theirs',
    )
    assert dialog.routes == ("<sip:p1.example.com;lr>", "<sip:p2.example.com;lr>")
    assert (dialog.target, next_hop(dialog)) == ("sip:ann@198.51.100.7", Hop("p1.example.com", 5060, "tcp"))


def test_without_a_route_the_contact_is_where_it_goes_also_after_it_moved() -> None:
    direct = of_ours(ANSWER.replace("Record-Route", "X-Route"))
    assert next_hop(direct) == Hop("198.51.100.7", 5066, "udp")
    moved = direct.moved("sip:bob@[2001:db8::7];transport=TCP")
    assert next_hop(moved) == Hop("2001:db8::7", 5060, "tcp")
    assert bye(moved, next_hop(moved), "a:1", "b").startswith(b"BYE sip:bob@[2001:db8::7];transport=TCP SIP/2.0\r\n")
    assert next_hop(direct.moved("sips:bob@sip.example.com")) == Hop("sip.example.com", 5061, "tls")
    assert next_hop(direct.moved("sip:sip.example.com;transport=tls")).port == 5061


def test_a_strict_router_is_asked_itself_and_the_target_comes_last() -> None:
    dialog = of_theirs(INVITE.replace("p1.example.com;lr", "p1.example.com"), ACK)
    lines = bye(dialog, next_hop(dialog), "a:1", "b").decode().split("\r\n")
    assert lines[0] == "BYE sip:p1.example.com SIP/2.0"
    assert [line for line in lines if line.startswith("Route")] == [
        "Route: <sip:p2.example.com;lr>",
        "Route: <sip:ann@198.51.100.7>",
    ]


def test_it_goes_through_a_pipe_and_a_parser() -> None:
    dialog = of_ours(ANSWER)
    assert from_told(json.loads(json.dumps(dialog.told()))) == dialog
    head = parse_head(bye(dialog, next_hop(dialog), "a:1", "b").decode())
    assert (head.method, head.first("call-id")) == ("BYE", "one@192.0.2.1")


def test_a_cseq_does_not_run_over() -> None:
    dialog = of_ours(ANSWER.replace("4711", str(MAX_CSEQ - 5)))
    assert f"CSeq: {MAX_CSEQ} BYE".encode() in bye(dialog, next_hop(dialog), "a:1", "b")


@pytest.mark.parametrize("name", ["f", "t", "i", "CSeq", "m"])
def test_a_dialog_that_lacks_something_is_none(name: str) -> None:
    with pytest.raises(PeerError):
        of_ours(ANSWER.replace(f"\n{name}: ", "\nX-Other: "))


@pytest.mark.parametrize("target", ["sip:", "tel:+14155550123", "sip:a@b:99999", "sip:[x"])
def test_an_address_that_cannot_be_read_is_said_so(target: str) -> None:
    with pytest.raises(PeerError):
        next_hop(of_ours(ANSWER.replace("Record-Route", "X-Route")).moved(target))
