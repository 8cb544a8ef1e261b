import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import PeerError
from trunkline.gateway.sip import message as m
from trunkline.gateway.sip.message import Caller, Head, NameAddr, Party, Reason, Uri

INVITE = (
    "INVITE sip:+14155550100@198.51.100.7:5060;user=phone SIP/2.0\r\n"
    "Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK1\r\n"
    'From: "Ada \\"L\\" Byron" <sip:+442079460123@192.0.2.10;user=phone>;tag=1\r\n'
    "To: <sip:+14155550100@198.51.100.7>\r\n"
    "Call-ID: abc@192.0.2.10\r\n"
    "\r\n"
    "X-Body: no header\r\n"
)


def head(*lines: str, start: str = "INVITE sip:x@y SIP/2.0") -> Head:
    return m.parse_head("\r\n".join([start, *lines, "", ""]))


# --- the head ---


def test_a_request_is_its_method_uri_and_headers_up_to_the_empty_line() -> None:
    read = m.parse_head(INVITE)
    assert (read.method, read.uri, read.status) == ("INVITE", "sip:+14155550100@198.51.100.7:5060;user=phone", 0)
    assert [name for name, _ in read.fields] == ["via", "from", "to", "call-id"]
    assert read.first("CALL-id") == "abc@192.0.2.10"
    assert read.first("x-body") is None


def test_a_response_is_its_status() -> None:
    read = m.parse_head("SIP/2.0 486 Busy Here\r\nReason: Q.850;cause=17\r\n\r\n")
    assert (read.method, read.status, read.reason) == ("", 486, "Busy Here")
    assert m.parse_head("SIP/2.0 200\r\n\r\n").reason == ""


def test_compact_names_are_the_long_ones_whichever_is_asked_for() -> None:
    read = head("f: a", "t: b", "i: c", "m: d", "v: e", "c: f", "l: 0", "k: g", "s: h", "Y: token")
    names = ("from", "to", "call-id", "contact", "via", "content-type", "content-length", "supported", "subject")
    assert [read.first(name) for name in names] == ["a", "b", "c", "d", "e", "f", "0", "g", "h"]
    assert read.first("identity") == read.first("y") == "token"


def test_folded_lines_are_one_and_blanks_around_the_colon_do_not_matter() -> None:
    """RFC 4475 3.1.1.1, "a short tortuous INVITE"."""
    read = head("TO :", "  sip:vivekg@chair-dnrc.example.com ;   tag    = 1918181833n", "n:\t1")
    assert read.first("to") == "sip:vivekg@chair-dnrc.example.com ;   tag    = 1918181833n"
    address = m.parse_name_addr(read.first("to"))
    assert address == NameAddr(Uri("sip", "vivekg", {}, "chair-dnrc.example.com"), "", {"tag": "1918181833n"})


@pytest.mark.parametrize("newline", ["\r\n", "\n", "\r"])
def test_lines_end_where_pjsip_ends_them(newline: str) -> None:
    read = m.parse_head(newline.join(["INVITE sip:x@y SIP/2.0", "X-A: 1", "X-B: 2\x0b\x85\u2028X-C: 3", "", "X-D: 4"]))
    assert [name for name, _ in read.fields] == ["x-a", "x-b"]


def test_keep_alives_before_the_message_are_skipped() -> None:
    assert m.parse_head("\r\n\r\n" + INVITE).method == "INVITE"


def test_a_line_that_is_no_header_is_left_out() -> None:
    assert head("no colon here", "bad name: 1", ": 2", "Good: 3").fields == (("good", "3"),)


def test_several_values_are_several_items_but_not_at_quoted_commas() -> None:
    read = head('Contact: "a, \\", b" <sip:a@b?x=1,2>, <sip:c@d>', "m: <sip:e@f>")
    assert read.items("contact") == ('"a, \\", b" <sip:a@b?x=1,2>', "<sip:c@d>", "<sip:e@f>")


def test_what_no_database_takes_is_replaced() -> None:
    assert head("X: a\x00b\udcffc").first("x") == "a\ufffdb\ufffdc"


@pytest.mark.parametrize(
    "text",
    ["", "\r\n", "GET / HTTP/1.1\r\n\r\n", "INVITE sip:x@y SIP/3.0\r\n\r\n", "INVITE  SIP/2.0\r\n\r\n", "SIP/2.0 99 x"],
)
def test_what_is_no_sip_message_is_the_peers_error(text: str) -> None:
    with pytest.raises(PeerError, match="not a SIP message"):
        m.parse_head(text)


@pytest.mark.parametrize("flood", ["A: b\r\n" * 300, "A: " + "b" * 70_000])
def test_a_head_without_end_is_refused(flood: str) -> None:
    with pytest.raises(PeerError, match="more headers"):
        m.parse_head("INVITE sip:x@y SIP/2.0\r\n" + flood)


# --- addresses ---


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("sip:alice@example.com", Uri("sip", "alice", {}, "example.com")),
        ("SIPS:alice:secret@EXAMPLE.com:5061", Uri("sips", "alice", {}, "example.com", 5061)),
        ("sip:192.0.2.1;transport=tcp;lr", Uri("sip", "", {}, "192.0.2.1", None, {"transport": "tcp", "lr": ""})),
        ("sip:a%20b%00@[2001:db8::1]:5070", Uri("sip", "a b\ufffd", {}, "2001:db8::1", 5070)),
        ("sip:+1-415;ext=7@h;user=phone", Uri("sip", "+1-415", {"ext": "7"}, "h", None, {"user": "phone"})),
        ("sip:a?b@h?Reason=SIP%3Bcause%3D302", Uri("sip", "a?b", {}, "h", headers={"reason": "SIP;cause=302"})),
        ("tel:+1-415-555-0100;phone-context=x", Uri("tel", "+1-415-555-0100", {"phone-context": "x"})),
        # RFC 4475 3.1.1.4: a null character, escaped, and an escaped @ in the user
        ("sip:null-%00-null@example.com", Uri("sip", "null-\ufffd-null", {}, "example.com")),
        ("sip:user%40h@example.com", Uri("sip", "user@h", {}, "example.com")),
        # RFC 4475 3.1.1.11: semicolons in the user part
        ("sip:user;par=u%40x@example.com", Uri("sip", "user", {"par": "u%40x"}, "example.com")),
    ],
)
def test_a_uri_is_its_parts(text: str, uri: Uri) -> None:
    assert m.parse_uri(text) == uri


@pytest.mark.parametrize(
    "text",
    [
        "",
        "alice@example.com",
        "http://example.com",
        "sip:",
        "sip:@example.com",
        "sip:a@b@c",
        "sip:a@h:0",
        "sip:a@h:65536",
        "sip:a@h:x",
        "sip:a@[zz]",
        "sip:a@-h e-",
        "nobodyKnowsThisScheme:totallyopaquecontent",  # RFC 4475 3.3.2
        "sip:" + "9" * 200 + "@h",
    ],
)
def test_what_is_no_uri_is_none(text: str) -> None:
    assert m.parse_uri(text) is None


@pytest.mark.parametrize(
    ("text", "name_addr"),
    [
        ("<sip:a@h>;tag=1", NameAddr(Uri("sip", "a", {}, "h"), "", {"tag": "1"})),
        ('"A <sip:evil@x>; \\"q\\"" <sip:a@h;p=1>;x="y;z"', None),
        ("Alice Doe <sip:a@h>", NameAddr(Uri("sip", "a", {}, "h"), "Alice Doe")),
        # without <> what follows a semicolon is the header's
        ("sip:a@h;tag=1", NameAddr(Uri("sip", "a", {}, "h"), "", {"tag": "1"})),
    ],
)
def test_a_name_addr_is_name_uri_and_parameters(text: str, name_addr: NameAddr | None) -> None:
    expected = name_addr or NameAddr(Uri("sip", "a", {}, "h", None, {"p": "1"}), 'A <sip:evil@x>; "q"', {"x": "y;z"})
    assert m.parse_name_addr(text) == expected


@pytest.mark.parametrize("text", [None, "", "<sip:a@h", '"open <sip:a@h>', "<>", "<<sip:a@h>>", "Bell, A <x>"])
def test_what_is_no_name_addr_is_none(text: str | None) -> None:
    assert m.parse_name_addr(text) is None


# --- numbers ---


@pytest.mark.parametrize(
    ("uri", "country", "number"),
    [
        ("sip:+14155550100@h", None, "+14155550100"),
        ("sip:+1(415)555-01.00@h", None, "+14155550100"),
        ("sip:%2B14155550100@h", None, "+14155550100"),
        ("tel:+44-20-7946-0123", None, "+442079460123"),
        ("sip:4155550100@h", "US", "+14155550100"),
        ("sip:14155550100@h", "US", "+14155550100"),
        ("sip:011442079460123@h", "US", "+442079460123"),
        ("sip:442079460123@h", "US", "+442079460123"),  # cannot be a number of the US: its + got lost
        ("sip:030123456@h", "DE", "+4930123456"),
        ("tel:4155550100;phone-context=+1", None, "+14155550100"),
        ("sip:020-7946-0123;phone-context=+44@h;user=phone", "US", "+442079460123"),
        ("sip:4155550100@h", None, None),  # +41 55 550 100? Nobody knows.
        ("sip:100@h", "US", None),
        ("sip:911@h", "US", None),
        ("sip:clinic@h", "US", None),
        ("sip:anonymous@anonymous.invalid", "US", None),
        ("sip:+1415555010000000000@h", None, None),
        ("sip:++14155550100@h", None, None),
        ("sip:*67@h", "US", None),
        ("sip:+\u0664\u0661\u0665@h", None, None),
        ("sip:4155550100;phone-context=example.com@h", None, None),
    ],
)
def test_a_number_is_what_can_be_read_in_one_way(uri: str, country: str | None, number: str | None) -> None:
    parsed = m.parse_uri(uri)
    assert parsed is not None
    assert m.number_of(parsed, country) == number


# --- who is calling ---


def test_the_called_number_is_in_the_request_uri_or_in_to() -> None:
    read = head("To: <sip:+442079460123@h>", start="INVITE sip:+14155550100@h SIP/2.0")
    assert m.called(read, "request_uri") == Party("+14155550100", "+14155550100")  # type: ignore[arg-type]
    assert m.called(read, "to") == Party("+442079460123", "+442079460123")  # type: ignore[arg-type]
    assert m.called(head(start="INVITE urn:service:sos SIP/2.0"), "request_uri") is None
    assert m.called(head(), "to") is None


def test_the_caller_is_from() -> None:
    calling = m.caller(m.parse_head(INVITE))
    assert (calling.number, calling.display) == ("+442079460123", 'Ada "L" Byron')
    assert (calling.asserted, calling.withheld) == (False, False)


def test_an_asserted_number_wins_over_from() -> None:
    calling = m.caller(
        head("From: <sip:+442079460123@h>", "P-Asserted-Identity: <sip:ada@h>, <tel:+14155550100>", "Privacy: none")
    )
    assert (calling.number, calling.asserted, calling.withheld) == ("+14155550100", True, False)


def test_an_asserted_name_does_not_hide_the_number_in_from() -> None:
    calling = m.caller(head("From: <sip:+442079460123@h>", "P-Asserted-Identity: <sip:ada@h>"))
    assert (calling.number, calling.asserted) == ("+442079460123", False)


@pytest.mark.parametrize(
    "lines",
    [
        ["From: <sip:anonymous@anonymous.invalid>;tag=1"],
        ["From: Anonymous <sip:Restricted@192.0.2.1>"],
        ["From: <sip:x@anonymous.invalid>"],
        ["From: <sip:+442079460123@h>", "Privacy: header;id"],
        ["From: <sip:+442079460123@h>", "Privacy: ID;critical"],
    ],
)
def test_a_withheld_number_is_known_but_marked(lines: list[str]) -> None:
    calling = m.caller(head(*lines, "P-Asserted-Identity: <sip:+14155550100@h>"))
    assert (calling.number, calling.withheld, calling.asserted) == ("+14155550100", True, True)


def test_a_caller_without_a_readable_from_is_nobody() -> None:
    assert m.caller(head()) == m.caller(head("From: <<>>")) == Caller(None, "")


def test_a_diversion_says_who_forwarded_the_latest_first() -> None:
    read = head(
        'Diversion: "Desk" <sip:+14155550101@h>;reason=no-answer;counter=1, <tel:+14155550102>;reason=unconditional',
        "History-Info: <sip:+14155550199@h>;index=1, <sip:x@h;cause=302>;index=1.1",
    )
    found = [(f.number, f.display, f.reason) for f in m.forwardings(read)]
    assert found == [("+14155550101", "Desk", "no-answer"), ("+14155550102", "", "unconditional")]


def test_the_history_says_it_by_a_cause_or_a_reason() -> None:
    read = head(
        "History-Info: <sip:+14155550101@h?Reason=SIP%3Bcause%3D486>;index=1",
        "History-Info: <sip:+14155550102@h>;index=1.1, <sip:+14155550103@h;cause=408>;index=1.2;mp=1.1",
    )
    assert [(f.number, f.reason) for f in m.forwardings(read)] == [("+14155550102", "408"), ("+14155550101", "486")]
    assert m.forwardings(head("History-Info: <sip:+14155550101@h>;index=1")) == ()


def test_reasons_are_protocol_and_cause() -> None:
    read = head('Reason: SIP ;cause=200 ;text="Call completed elsewhere"', "Reason: Q.850;cause=17, x;cause=abc")
    assert m.reasons(read) == (
        Reason("SIP", 200, "Call completed elsewhere"),
        Reason("Q.850", 17),
        Reason("X", None),
    )


def test_every_identity_header_is_there_unchanged() -> None:
    token = "e30.e30." + "s" * 1300 + ";info=<https://cert.example.org/a,b.pem>;alg=ES256;ppt=shaken"
    read = head(f"Identity: {token}", f"y: {token}2,{token}3")
    assert m.identities(read) == (token, token + "2", token + "3")


# --- what we send ---


def test_a_header_value_of_ours_is_printable_text() -> None:
    assert m.safe_header_value(" order 7; ünïcode ") == "order 7; ünïcode"
    for wrong in ("a\r\nTo: b", "a\nb", "a\rb", "a\x00", "a\u2028b", "\udcff", "", " ", "x" * 513):
        with pytest.raises(ValueError, match=r"characters|printable"):
            m.safe_header_value(wrong)


# --- enemies ---

SCRAPS = [
    "INVITE ",
    " SIP/2.0",
    "\r\n",
    "\n ",
    "sip:",
    "tel:",
    "+1415",
    "%00",
    "%e2",
    "phone-context=+",
    "cause=",
    "id",
]
FRAGMENTS = st.lists(
    st.sampled_from([*'@;,<>"\\%=:?&[]\x00\udcff٣', *SCRAPS]) | st.text(max_size=4),
    max_size=40,
).map("".join)


@given(st.text() | FRAGMENTS, st.sampled_from([None, "US", "DE"]))
def test_no_text_raises_anything_but_what_is_documented(text: str, country: str | None) -> None:
    uri = m.parse_uri(text)
    if uri is not None:
        m.number_of(uri, country)
    m.parse_name_addr(text)
    for raw in (text, f"INVITE {text} SIP/2.0\r\n\r\n"):
        try:
            m.parse_head(raw)
        except PeerError:
            pass


@given(st.lists(FRAGMENTS, max_size=6), st.sampled_from([None, "US"]))
def test_no_header_keeps_a_head_from_being_read(values: list[str], country: str | None) -> None:
    names = ("From", "To", "P-Asserted-Identity", "Diversion", "History-Info", "Reason", "Identity", "Privacy")
    read = Head("INVITE", "sip:x@y", 0, "", tuple((n.lower(), v) for n, v in zip(names, values, strict=False)))
    calling = m.caller(read, country)
    assert max(len(calling.user), len(calling.display)) <= m.MAX_USER_CHARS
    m.called(read, "to", country)
    m.forwardings(read, country)
    m.reasons(read)
    m.identities(read)


@given(st.text())
def test_what_is_read_can_be_stored(text: str) -> None:
    try:
        read = m.parse_head(f"INVITE sip:x@y SIP/2.0\r\nX-A: {text}\r\n\r\n")
    except PeerError:
        return
    for _, value in read.fields:
        value.encode()
        assert not set(value) & set("\x00\r\n")
