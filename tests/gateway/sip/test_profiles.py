from dataclasses import replace
from typing import get_args

import pytest

from trunkline.gateway.sip import profiles, trunks
from trunkline.gateway.sip.message import caller, forwardings, parse_head
from trunkline.gateway.sip.profiles import PROFILES, Profile
from trunkline.gateway.sip.trunks import Trunk
from trunkline.settings import SIP_CODECS, SipTrunk
from trunkline.types import E164

CALLED, OURS, THEIRS = E164("+14155550199"), E164("+14155550100"), E164("+442079460123")
TRUNK = Trunk("t", (), host="sip.carrier.example:5080", registrar="pbx.example", caller_id=OURS, country="US")


def of(name: str) -> Trunk:
    return replace(TRUNK, profile=name)


def test_the_settings_know_every_profile() -> None:
    assert set(get_args(SipTrunk.model_fields["profile"].annotation)) == set(PROFILES)


def test_codecs_are_some_of_those_we_have() -> None:
    assert all(set(profile.codecs) <= set(SIP_CODECS) for profile in PROFILES.values())


def test_session_timers_are_within_the_standard() -> None:
    """RFC 4028 4 and 5: at least 90 s."""
    assert all(90 <= p.min_se_s <= p.session_expires_s for p in PROFILES.values())


PAI, DIVERSION = "P-Asserted-Identity", "Diversion"


@pytest.mark.parametrize(
    ("name", "request_uri", "from_uri", "headers"),
    [
        (
            "generic",
            "sip:+14155550199@sip.carrier.example:5080",
            "sip:+14155550100@sip.carrier.example",
            [(DIVERSION, "<sip:+14155550100@sip.carrier.example>;reason=unconditional")],
        ),
        (
            "strict",
            "sip:+14155550199@sip.carrier.example:5080;user=phone",
            "sip:+14155550100@pbx.example;user=phone",
            [
                (PAI, "<sip:+14155550100@pbx.example;user=phone>"),
                (DIVERSION, "<sip:+14155550100@pbx.example;user=phone>;reason=unconditional"),
            ],
        ),
        (
            "twilio_elastic_sip",
            "sip:+14155550199@sip.carrier.example:5080",
            "sip:+14155550100@sip.carrier.example",
            [(DIVERSION, "<sip:+14155550100@sip.carrier.example>;reason=unconditional")],
        ),
        (
            "telnyx",
            "sip:+14155550199@sip.carrier.example:5080",
            "sip:+14155550100@sip.carrier.example",
            [
                (PAI, "<sip:+14155550100@sip.carrier.example>"),
                (DIVERSION, "<sip:+14155550100@sip.carrier.example>;reason=unconditional"),
            ],
        ),
        (
            "asterisk",
            "sip:+14155550199@sip.carrier.example:5080",
            "sip:+14155550100@sip.carrier.example",
            [],
        ),
    ],
)
def test_what_each_profile_sends(name: str, request_uri: str, from_uri: str, headers: list[tuple[str, str]]) -> None:
    trunk = of(name)
    assert trunks.request_uri(trunk, CALLED) == request_uri
    assert trunks.from_uri(trunk, None, "203.0.113.1") == from_uri
    assert trunks.identity_headers(trunk, None, "203.0.113.1", OURS) == headers


def test_every_profile_is_in_the_table_above() -> None:
    (marks,) = [m for m in test_what_each_profile_sends.pytestmark if m.name == "parametrize"]  # type: ignore[attr-defined]
    assert {row[0] for row in marks.args[1]} == set(PROFILES)


@pytest.mark.parametrize(
    ("name", "refer", "refer_replaces", "reinvite", "session_timer", "prack"),
    [
        ("generic", "yes", "yes", "yes", "optional", "optional"),
        ("strict", "no", "no", "no", "required", "off"),
        ("twilio_elastic_sip", "yes", "no", "yes", "optional", "off"),
        ("telnyx", "yes", "yes", "yes", "optional", "off"),
        ("asterisk", "yes", "yes", "yes", "optional", "optional"),
    ],
)
def test_what_each_far_end_takes(
    name: str, refer: str, refer_replaces: str, reinvite: str, session_timer: str, prack: str
) -> None:
    p = PROFILES[name]
    found = (p.refer, p.refer_replaces, p.reinvite, p.session_timer, p.prack)
    assert found == (refer, refer_replaces, reinvite, session_timer, prack)


def test_a_profile_that_takes_no_refer_takes_none_with_replaces() -> None:
    assert all(p.refer_replaces == "no" for p in PROFILES.values() if p.refer == "no")


@pytest.mark.parametrize(
    ("number_format", "number", "country", "written"),
    [
        ("+e164", OURS, "US", "+14155550100"),
        ("e164", OURS, "US", "14155550100"),
        ("national", OURS, "US", "4155550100"),
        ("national", THEIRS, "GB", "02079460123"),
        ("national", THEIRS, "US", "+442079460123"),
        ("national", THEIRS, None, "+442079460123"),
        ("national", E164("+18765550100"), "US", "+18765550100"),  # Jamaica shares +1
        ("national", E164("+999"), "US", "+999"),
    ],
)
def test_numbers_are_written_as_the_trunk_wants_them(
    number_format: profiles.NumberFormat, number: E164, country: str | None, written: str
) -> None:
    assert profiles.written(Profile(number_format=number_format), number, country) == written


@pytest.mark.parametrize(
    ("identity", "shown", "withheld"),
    [
        ("from", [], [("Privacy", "id")]),
        (
            "pai",
            [(PAI, "<sip:+14155550100@h>")],
            [(PAI, "<sip:+14155550100@h>"), ("Privacy", "id")],
        ),
        (
            "ppi",
            [("P-Preferred-Identity", "<sip:+14155550100@h>")],
            [("P-Preferred-Identity", "<sip:+14155550100@h>"), ("Privacy", "id")],
        ),
        (
            "rpid",
            [("Remote-Party-ID", "<sip:+14155550100@h>;party=calling;screen=yes;privacy=off")],
            [
                ("Remote-Party-ID", "<sip:+14155550100@h>;party=calling;screen=yes;privacy=full"),
                ("Privacy", "id"),
            ],
        ),
    ],
)
def test_a_callers_number_is_shown_or_kept_for_the_network(
    identity: str, shown: list[tuple[str, str]], withheld: list[tuple[str, str]]
) -> None:
    profile = Profile(identity=identity)  # type: ignore[arg-type]
    assert profiles.identity_headers(profile, "h", OURS) == shown
    assert profiles.identity_headers(profile, "h", OURS, withheld=True) == withheld
    assert trunks.from_uri(TRUNK, OURS, "h", withheld=True) == "sip:anonymous@anonymous.invalid"


def test_what_we_send_is_understood_as_it_was_meant() -> None:
    """By our own reading of other people's INVITEs."""
    trunk = of("strict")
    lines = [f"{name}: {value}" for name, value in trunks.identity_headers(trunk, THEIRS, "h", OURS)]
    start = [f"INVITE {trunks.request_uri(trunk, CALLED)} SIP/2.0", f"From: <{trunks.from_uri(trunk, THEIRS, 'h')}>"]
    head = parse_head("\r\n".join([*start, *lines, "", ""]))
    found = caller(head, None)
    assert (found.number, found.withheld) == (THEIRS, False)
    assert [f.number for f in forwardings(head)] == [OURS]


@pytest.mark.parametrize(
    ("from_host", "host"),
    [("trunk", "sip.carrier.example"), ("ours", "203.0.113.1"), ("domain", "pbx.example")],
)
def test_the_host_in_from_is_the_profiles_to_say(monkeypatch: pytest.MonkeyPatch, from_host: str, host: str) -> None:
    monkeypatch.setattr(profiles, "PROFILES", {})  # nothing looks there but the trunk
    monkeypatch.setattr(trunks, "PROFILES", {"x": Profile(from_host=from_host)})  # type: ignore[arg-type]
    assert trunks.from_host(of("x"), "203.0.113.1") == host


def test_what_the_admin_maps_is_not_said_twice() -> None:
    mapped = [("p-asserted-identity", "<sip:me@x>")]
    assert [name for name, _ in trunks.identity_headers(of("telnyx"), OURS, "h", mapped=mapped)] == []


def test_an_accounts_name_is_no_phone() -> None:
    trunk = replace(of("strict"), caller_id=None, auth_username="front desk")
    assert trunks.from_uri(trunk, None, "h") == "sip:front%20desk@pbx.example"
    assert trunks.identity_headers(trunk, None, "h") == []


def test_a_profiles_transport_stands_after_the_user() -> None:
    trunk = replace(of("strict"), transport="tls")
    assert trunks.request_uri(trunk, CALLED).endswith("@sip.carrier.example:5080;user=phone;transport=tls")


def test_the_generic_profile_is_what_a_profile_is_without_quirks() -> None:
    assert PROFILES["generic"] == Profile(notes=PROFILES["generic"].notes)
