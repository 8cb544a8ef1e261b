import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import ConfigError, PeerError
from trunkline.testing.caller.sip.message import (
    Message,
    Splitter,
    Uri,
    param,
    parse,
    parse_uri,
    respond,
    sip_target,
    split_list,
)

INVITE = (
    b"INVITE sip:bob@example.com SIP/2.0\r\n"
    b"v: SIP/2.0/UDP a.example.com;branch=z9hG4bKone, SIP/2.0/UDP b.example.com;branch=z9hG4bKtwo\r\n"
    b"VIA: SIP/2.0/TCP c.example.com;branch=z9hG4bKthree\r\n"
    b'f: "A, B" <sip:alice@example.com>;tag=from1\r\n'
    b"t: <sip:bob@example.com>\r\n"
    b"i: abc@host\r\n"
    b"CSeq: 7   INVITE\r\n"
    b"Subject: folded\r\n   over two lines\r\n"
    b"l: 4\r\n"
    b"\r\n"
    b"bodyand more that is not of it"
)


def test_compact_and_oddly_written_headers_are_the_same_headers() -> None:
    message = parse(INVITE)
    assert (message.method, message.uri, message.body) == ("INVITE", "sip:bob@example.com", b"body")
    assert message.call_id == "abc@host"
    assert message.cseq == (7, "INVITE")
    assert message.branch == "z9hG4bKone"
    assert [param(via, "branch")[-3:] for via in message.all("via")] == ["one", "two", "ree"]
    assert message.tag("From") == "from1"
    assert message.tag("To") == ""
    assert message.get("subject") == "folded over two lines"


def test_a_response_copies_what_the_rfc_says_and_adds_its_tag() -> None:
    response = parse(respond(parse(INVITE), 200, "OK", to_tag="t1", more=[("Allow", "ACK")]).to_bytes())
    assert (response.status, response.reason, response.tag("To")) == (200, "OK", "t1")
    assert response.all("Via") == parse(INVITE).all("Via")
    assert response.cseq == (7, "INVITE")
    assert response.get("content-length") == "0"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        b"INVITE sip:a SIP/2.0\r\n",
        b"HELLO\r\n\r\n",
        b"INVITE sip:a SIP/3.0\r\n\r\n",
        b"SIP/2.0 99 No\r\n\r\n",
        b"OPTIONS sip:a SIP/2.0\r\nno colon\r\n\r\n",
        b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 5\r\n\r\nabc",
        b"OPTIONS sip:a SIP/2.0\r\nContent-Length: -1\r\n\r\nabc",
        b"OPTIONS sip:a SIP/2.0\r\nSubject: \xff\r\n\r\n",
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(PeerError):
        parse(data)


@pytest.mark.parametrize("cseq", ["INVITE", "-1 INVITE", "4294967296 INVITE", "x INVITE"])
def test_a_cseq_that_is_no_number_is_refused(cseq: str) -> None:
    with pytest.raises(PeerError):
        _ = Message(method="INVITE", headers=[("CSeq", cseq)]).cseq


@given(st.binary(max_size=200))
def test_noise_is_refused_and_nothing_else_happens(data: bytes) -> None:
    try:
        parse(data)
    except PeerError:
        pass


@given(st.lists(st.integers(1, 700), max_size=8))
def test_a_byte_stream_is_the_same_messages_however_it_is_cut(cuts: list[int]) -> None:
    whole = b"\r\n\r\n" + parse(INVITE).to_bytes() + b"\r\n" + respond(parse(INVITE), 180, "", to_tag="x").to_bytes()
    splitter, messages, at = Splitter(), list[Message](), 0
    for cut in [*cuts, len(whole)]:
        messages += splitter.feed(whole[at : at + cut])
        at += cut
    assert [m.what for m in messages] == ["INVITE", "180"]
    assert messages[0].body == b"body"


def test_a_stream_without_an_end_of_head_is_given_up() -> None:
    with pytest.raises(PeerError):
        Splitter().feed(b"a" * 70_000)


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("sip:127.0.0.1", Uri("127.0.0.1")),
        ("sip:+1500@host:5070;transport=TCP", Uri("host", "+1500", 5070, "sip", (("transport", "TCP"),))),
        ('"Bob, Jr" <sips:bob@[::1]:5061;lr>;tag=3', Uri("::1", "bob", 5061, "sips", (("lr", ""),))),
        ("<sip:h?Subject=x>", Uri("h")),
    ],
)
def test_an_address_is_read_bare_or_in_brackets(text: str, uri: Uri) -> None:
    assert parse_uri(text) == uri
    assert parse_uri(str(uri)) == uri


@pytest.mark.parametrize("text", ["", "tel:+1", "sip:", "sip:a:99999", "sip:a b", "<sip:>"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(PeerError):
        parse_uri(text)


def test_the_port_follows_the_transport() -> None:
    assert parse_uri("sip:h").address == ("h", 5060)
    assert parse_uri("sip:h;transport=tls").address == ("h", 5061)
    assert parse_uri("sips:h").transport == "tls"


def test_a_target_without_a_number_gets_the_one_dialled() -> None:
    assert str(sip_target("sip:127.0.0.1:5070", "+15")) == "sip:+15@127.0.0.1:5070"
    assert sip_target("sip:9@127.0.0.1", "+15").user == "9"
    with pytest.raises(ConfigError):
        sip_target("sip:", "+15")


def test_lists_are_cut_outside_quotes_and_brackets_only() -> None:
    assert split_list('"a, \\" b" <sip:x,y@h>;q=1 , <sip:z>') == ['"a, \\" b" <sip:x,y@h>;q=1', "<sip:z>"]
