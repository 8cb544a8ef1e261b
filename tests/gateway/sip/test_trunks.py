from dataclasses import fields, replace
from decimal import Decimal
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.gateway.sip import message
from trunkline.gateway.sip import trunks as t
from trunkline.gateway.sip.message import Head
from trunkline.gateway.sip.profiles import Profile
from trunkline.gateway.sip.trunks import Screened, Trunk
from trunkline.ports import Refuse
from trunkline.settings import Sip, SipTrunk
from trunkline.types import E164

OURS = E164("+14155550100")
CARRIER = Trunk(
    "carrier",
    (ip_network("192.0.2.0/24"),),
    host="sip.carrier.example:5080",
    caller_id=OURS,
    numbers=("+14155550100", "+1628*"),
    country="US",
    block=("+1900*", "spam"),
    max_calls=2,
    headers_in={"X-Order": "order", "User-to-User": "uui"},
    headers_out={"order": "X-Order", "from": "P-Asserted-Identity"},
)


def invite(number: str = "+14155550100", caller: str = "+442079460123", *lines: str) -> Head:
    start = [f"INVITE sip:{number}@198.51.100.7 SIP/2.0", f"From: <sip:{caller}@192.0.2.10>;tag=1"]
    return message.parse_head("\r\n".join([*start, f"To: <sip:{number}@198.51.100.7>", *lines, "", ""]))


def screened(trunk: Trunk, head: Head, live_calls: int = 0) -> Screened:
    result = t.screen(trunk, head, live_calls)
    assert isinstance(result, Screened), result
    return result


def refused(trunk: Trunk, head: Head, live_calls: int = 0) -> str:
    result = t.screen(trunk, head, live_calls)
    assert isinstance(result, Refuse)
    return result.code


# --- whose peer ---


def test_the_narrowest_network_decides_whose_peer_it_is() -> None:
    one = Trunk("one", (ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")))
    two = Trunk("two", (ip_network("192.0.2.7/32"),))
    found = {ip: t.find_trunk((one, two), ip) for ip in ("192.0.2.6", "192.0.2.7", "2001:db8::1", "198.51.100.1")}
    assert list(found.values()) == [one, two, one, None]
    assert t.find_trunk((), "192.0.2.6") is None


@pytest.mark.parametrize("source", ["::ffff:192.0.2.7", "[::ffff:192.0.2.7]", "192.0.2.7"])
def test_ipv4_through_an_ipv6_socket_is_ipv4(source: str) -> None:
    assert t.find_trunk((CARRIER,), source) == CARRIER


@given(st.text())
def test_a_source_that_is_no_address_is_a_stranger(source: str) -> None:
    assert t.find_trunk((replace(CARRIER, peers=()), CARRIER), f"x{source}") is None


@pytest.mark.parametrize("source", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "::ffff:127.0.0.1"])
def test_without_a_configured_trunk_this_machine_may_call(source: str) -> None:
    trunks = t.configured(Sip())
    assert t.find_trunk(trunks, source) == t.loopback_trunk()
    assert t.find_trunk(trunks, "192.0.2.1") is None
    assert screened(trunks[0], invite("clinic", "me")).called.user == "clinic"


# --- the settings ---


def test_a_trunk_is_what_the_settings_say() -> None:
    written = SipTrunk.model_validate(
        {
            "peers": "192.0.2.0/24, 2001:db8::1",
            "media_peers": "203.0.113.0/24",
            "username": "u",
            "password": "p",
            "digest_algorithms": "SHA-256, MD5",
            "refer": True,
            "host": "h",
            "proxy": "proxy:5070",
            "transport": "tls",
            "auth_username": "au",
            "auth_password": "ap",
            "caller_id": OURS,
            "number_from": "to",
            "numbers": "+1*",
            "country": "us",
            "block": "spam",
            "max_calls": 3,
            "srtp": "required",
            "dtmf": "info",
            "headers_in": {"X-A": "a"},
            "headers_out": {"b": "X-B"},
            "ping_s": 60,
            "profile": "strict",
            "codecs": "g722, pcma",
            "tells_hold": False,
            "cost_per_minute": {"+1": 0.01, "*": "0.05"},
            "register": True,
            "registrar": "pbx.example:5070",
            "register_expires_s": 600,
            "contact_user": "100",
        }
    )
    (trunk,) = t.configured(Sip(trunks={"carrier": written}))
    assert trunk == Trunk(
        name="carrier",
        peers=(ip_network("192.0.2.0/24"), ip_network("2001:db8::1/128")),
        media_peers=(ip_network("203.0.113.0/24"),),
        username="u",
        password="p",
        digest_algorithms=("SHA-256", "MD5"),
        refer=True,
        host="h",
        proxy="proxy:5070",
        transport="tls",
        auth_username="au",
        auth_password="ap",
        caller_id=OURS,
        number_from="to",
        numbers=("+1*",),
        country="US",
        block=("spam",),
        max_calls=3,
        srtp="required",
        dtmf="info",
        headers_in={"X-A": "a"},
        headers_out={"b": "X-B"},
        ping_s=60.0,
        profile="strict",
        codecs=("G722", "PCMA"),
        tells_hold=False,
        cost_per_minute={"+1": Decimal("0.01"), "*": Decimal("0.05")},
        registers=True,
        registrar="pbx.example:5070",
        register_expires_s=600,
        contact_user="100",
    )
    assert "'p'" not in repr(trunk)
    assert "'ap'" not in repr(trunk)


def test_the_settings_have_what_a_trunk_has_and_the_same_defaults() -> None:
    assert set(SipTrunk.model_fields) == {field.name for field in fields(Trunk)} - {"name", "tenant"}
    (trunk,) = t.configured(Sip(trunks={"x": SipTrunk(host="h")}))
    assert trunk == Trunk("x", (), host="h")


def test_digits_go_as_the_profile_says_unless_the_trunk_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(t, "PROFILES", {"generic": Profile(dtmf="info")})
    written = {"x": SipTrunk(host="h"), "y": SipTrunk(host="h", dtmf="rfc4733")}
    assert [trunk.dtmf for trunk in t.configured(Sip(trunks=written))] == ["info", "rfc4733"]


def test_codecs_are_the_trunks_own_else_the_profiles_of_those_in_the_settings() -> None:
    def codecs(settings: tuple[str, ...], **written: Any) -> tuple[str, ...]:
        trunk = SipTrunk(host="pbx.example.com", **written)
        return t.configured(Sip(codecs=settings, trunks={"pbx": trunk}))[0].codecs

    everything = ("PCMU", "PCMA", "G722", "opus")
    assert codecs(everything) == ()
    assert codecs(everything, profile="strict") == ("PCMU", "PCMA")
    assert codecs(("opus", "PCMA"), profile="strict") == ("PCMA",)
    assert codecs(("opus",), profile="strict") == ()
    assert codecs(everything, profile="strict", codecs=("G722", "PCMA")) == ("G722", "PCMA")


def test_where_and_as_whom_a_trunk_registers() -> None:
    extension = replace(CARRIER, registers=True, auth_username="100", transport="tcp")
    assert t.registrar_uri(extension) == "sip:sip.carrier.example:5080;transport=tcp"
    assert t.address_of_record(extension) == "sip:100@sip.carrier.example"
    named = replace(extension, registrar="pbx.example:5070", contact_user="front desk")
    assert t.registrar_uri(named) == "sip:pbx.example:5070;transport=tcp"
    assert t.address_of_record(named) == "sip:front%20desk@pbx.example"
    assert t.registrar_uri(CARRIER) is t.address_of_record(CARRIER) is None


def test_who_only_calls_us_is_not_pinged() -> None:
    (trunk,) = t.configured(Sip(trunks={"x": SipTrunk.model_validate({"peers": "192.0.2.1"})}))
    assert (trunk.host, trunk.ping_s) == (None, 0)


# --- a call of theirs ---


def test_a_call_of_a_peer_is_read_once_for_all() -> None:
    head = invite(
        "4155550100",
        "+442079460123",
        "X-Order: 7",
        "Diversion: <sip:+16285550100@h>;reason=no-answer",
        "Identity: token",
    )
    call = screened(CARRIER, head, 1)
    assert (call.called.number, call.called.user) == (OURS, "4155550100")
    assert call.caller.number == "+442079460123"
    assert [f.number for f in call.forwardings] == ["+16285550100"]
    assert call.attributes == {"order": "7"}
    assert call.identities == ("token",)


@pytest.mark.parametrize(("number", "known"), [("+14155550100", True), ("+16285550123", True), ("+14155550101", False)])
def test_only_our_numbers_are_answered(number: str, known: bool) -> None:
    result = t.screen(CARRIER, invite(number), 0)
    assert isinstance(result, Screened) is known
    if not known:
        assert refused(CARRIER, invite(number)) == "unknown_number"


def test_a_number_may_be_known_as_the_peer_sends_it() -> None:
    assert screened(replace(CARRIER, numbers=("100",), country=None), invite("100")).called.number is None


def test_a_number_without_form_is_malformed() -> None:
    head = message.parse_head("INVITE sip:x@y SIP/2.0\r\n\r\n")
    assert refused(replace(CARRIER, number_from="to"), head) == "malformed"


@pytest.mark.parametrize("caller", ["+19005550100", "9005550100", "spam"])
def test_blocked_callers_are_declined_however_they_are_written(caller: str) -> None:
    assert refused(CARRIER, invite(caller=caller)) == "declined"


def test_a_withheld_number_is_blocked_like_a_shown_one() -> None:
    head = invite("+14155550100", "anonymous", "P-Asserted-Identity: <sip:+19005550100@h>", "Privacy: id")
    assert refused(CARRIER, head) == "declined"
    assert refused(replace(CARRIER, block=("anonymous",)), head) == "declined"
    assert screened(replace(CARRIER, block=()), head).caller.withheld


def test_more_calls_than_the_trunk_may_have_are_busy() -> None:
    assert refused(CARRIER, invite(), 2) == "busy"
    screened(replace(CARRIER, max_calls=None), invite(), 10_000)


def test_a_wrong_number_is_unknown_even_when_all_lines_are_busy() -> None:
    assert refused(CARRIER, invite("+14155550199"), 2) == "unknown_number"


def test_attributes_are_bounded() -> None:
    trunk = replace(CARRIER, headers_in={f"X-{n}": f"a{n}" for n in range(50)})
    head = invite("+14155550100", "+442079460123", *(f"X-{n}: {'v' * 300}" for n in range(50)), "X-0: w")
    found = t.attributes(trunk, head)
    assert len(found) == t.MAX_ATTRIBUTES
    assert {len(value) for value in found.values()} == {t.MAX_ATTRIBUTE_CHARS}


def test_a_header_that_comes_twice_is_one_attribute() -> None:
    assert t.attributes(CARRIER, invite("1", "2", "x-order: a", "X-ORDER: b, c")) == {"order": "a, b, c"}


# --- a call of ours ---


def test_attributes_become_headers_where_the_trunk_maps_them() -> None:
    given = {"order": "7", "other": "x"}
    assert t.headers_out(CARRIER, given) == [("X-Order", "7")]


def test_an_attribute_cannot_begin_a_header_of_its_own() -> None:
    with pytest.raises(ValueError, match=r"^order: printable"):
        t.headers_out(CARRIER, {"order": "7\r\nX-Evil: 1"})


@pytest.mark.parametrize(
    ("changes", "uri"),
    [
        ({}, "sip:+14155550100@sip.carrier.example:5080"),
        ({"transport": "tcp"}, "sip:+14155550100@sip.carrier.example:5080;transport=tcp"),
        ({"host": "[2001:db8::1]", "transport": "tls"}, "sip:+14155550100@[2001:db8::1];transport=tls"),
    ],
)
def test_our_calls_go_to_the_trunks_host(changes: dict[str, str], uri: str) -> None:
    assert t.request_uri(replace(CARRIER, **changes), OURS) == uri  # type: ignore[arg-type]


def test_a_trunk_without_a_host_cannot_be_called() -> None:
    with pytest.raises(ValueError, match="loopback has no host"):
        t.request_uri(t.loopback_trunk(), OURS)
    assert t.ping_uri(t.loopback_trunk()) is t.proxy_uri(t.loopback_trunk()) is None


def test_a_proxy_is_a_loose_route() -> None:
    assert t.proxy_uri(replace(CARRIER, proxy="p:5070", transport="tls")) == "sip:p:5070;transport=tls;lr"
    assert t.ping_uri(CARRIER) == "sip:sip.carrier.example:5080"


@pytest.mark.parametrize(
    ("changes", "caller_id", "uri"),
    [
        ({}, E164("+16285550100"), "sip:+16285550100@sip.carrier.example"),
        ({}, None, "sip:+14155550100@sip.carrier.example"),
        ({"caller_id": None, "auth_username": "our user;x"}, None, "sip:our%20user%3Bx@sip.carrier.example"),
        ({"caller_id": None, "host": None}, None, "sip:trunkline@203.0.113.1"),
        ({"host": "[2001:db8::1]"}, None, "sip:+14155550100@[2001:db8::1]"),
        ({"host": "[2001:db8::1]:5061"}, None, "sip:+14155550100@[2001:db8::1]"),
    ],
)
def test_we_call_as_the_order_the_trunk_or_the_account_says(
    changes: dict[str, str | None], caller_id: E164 | None, uri: str
) -> None:
    assert t.from_uri(replace(CARRIER, **changes), caller_id, "203.0.113.1") == uri  # type: ignore[arg-type]
