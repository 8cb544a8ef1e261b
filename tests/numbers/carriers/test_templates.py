import configparser
import tomllib
from ipaddress import ip_address
from typing import Any

import pytest

from trunkline.errors import ConfigError
from trunkline.gateway.sip.profiles import PROFILES
from trunkline.gateway.sip.trunks import configured, find_trunk
from trunkline.numbers.carriers.templates import PLACEHOLDER, SECRET, Answers, names, template
from trunkline.settings import Sip

OURS = "203.0.113.10"
TWILIO = Answers("office", host="acme.pstn.twilio.com", public_address=OURS, numbers=("+14155550100",))
ANSWERS = [
    ("twilio", TWILIO),
    ("twilio", Answers("office", host="acme.pstn.twilio.com", auth_username="acme", caller_id="+14155550100")),
    ("telnyx", Answers("telnyx", public_address=OURS)),
    ("telnyx", Answers("telnyx", public_address=OURS, region="europe", auth_username="u", register=True)),
    ("asterisk", Answers("pbx", host="192.0.2.20", public_address=OURS, country="US")),
    ("asterisk", Answers("pbx", host="192.0.2.20", public_address=OURS, auth_username="700", register=True)),
    ("generic", Answers("carrier", host="sip.carrier.example", peers=("198.51.100.0/28",), public_address=OURS)),
    ("generic", Answers("carrier", host="[2001:db8::20]:5060", public_address="2001:db8::1")),
]


def sip(toml: str) -> Sip:
    """As a start reads it."""
    written: dict[str, Any] = tomllib.loads(toml)["sip"]
    return Sip(**{key: value for key, value in written.items() if not key.startswith("tls_")})


@pytest.mark.parametrize(("kind", "answers"), ANSWERS)
def test_what_is_made_are_settings_that_a_start_takes(kind: str, answers: Answers) -> None:
    made = template(kind, answers)
    (trunk,) = configured(sip(made.toml))
    assert (trunk.name, trunk.profile) == (answers.name, made.settings["profile"])
    assert trunk.profile in PROFILES
    assert (trunk.auth_password == SECRET) is bool(answers.auth_username)
    assert trunk.registers is answers.register
    assert made.as_json()["as_of"] == made.as_of.isoformat()


def test_every_template_is_tried() -> None:
    assert {kind for kind, _ in ANSWERS} == set(names())


def test_twilio_s_calls_are_known_by_their_address_wherever_they_come_from() -> None:
    made = template("twilio", TWILIO)
    trunks = configured(sip(made.toml))
    for address in ("54.172.60.3", "54.244.51.0", "35.156.191.130", "177.71.206.195"):
        assert find_trunk(trunks, address) is not None, address
    assert find_trunk(trunks, "54.172.61.1") is None
    assert any(ip_address("168.86.191.255") in network for network in trunks[0].media_peers)
    assert "2026-09-23" in " ".join(made.notes)
    assert "sip:203.0.113.10:5060" in made.far_side
    assert f"IP Access Control Lists: one with {OURS}" in made.far_side


def test_a_telnyx_trunk_is_of_one_region() -> None:
    europe = template("telnyx", Answers("t", region="europe"))
    assert europe.settings["host"] == "sip.telnyx.eu"
    assert europe.settings["peers"] == ["185.246.41.140/32", "185.246.41.141/32"]
    assert template("telnyx", Answers("t")).settings["host"] == "sip.telnyx.com"


def test_tls_comes_with_srtp_and_a_certificate() -> None:
    made = template("twilio", Answers("office", host="acme.pstn.twilio.com", public_address=OURS, secure=True))
    assert (made.settings["transport"], made.settings["srtp"]) == ("tls", "required")
    assert "tls_cert" in made.toml
    assert "Secure Trunking enabled" in made.far_side
    assert "sip:203.0.113.10:5061;transport=tls" in made.far_side


def test_no_password_passes_through_but_its_variable_is_named() -> None:
    made = template("twilio", Answers("office", host="acme.pstn.twilio.com", auth_username="acme"))
    assert made.secrets == {"auth_password": "TRUNKLINE_SIP__TRUNKS__OFFICE__AUTH_PASSWORD"}
    assert "TRUNKLINE_SIP__TRUNKS__OFFICE__AUTH_PASSWORD" in made.toml
    assert PLACEHOLDER in made.far_side + " ".join(made.notes)


@pytest.mark.parametrize("register", [False, True])
def test_asterisk_is_told_all_it_needs(register: bool) -> None:
    login: dict[str, Any] = {"auth_username": "700", "register": True} if register else {}
    made = template("asterisk", Answers("pbx", host="192.0.2.20", public_address=OURS, secure=True, **login))
    pjsip, _, extensions = made.far_side.partition("; extensions.conf")
    sections = pjsip.split("\n[")[1:]
    kinds = {}
    for section in sections:
        parser = configparser.ConfigParser(comment_prefixes=(";",), inline_comment_prefixes=None)
        parser.read_string("[" + section)
        (name,) = parser.sections()
        kinds[parser[name]["type"]] = dict(parser[name])
    assert set(kinds) == {"endpoint", "aor", "auth" if register else "identify"}
    assert kinds["endpoint"]["media_encryption"] == "sdes"
    if register:
        assert (kinds["endpoint"]["auth"], kinds["auth"]["username"]) == ("700", "700")
    else:
        assert kinds["identify"]["match"] == OURS
        assert kinds["aor"]["contact"] == rf"sip:{OURS}:5061\;transport=tls"
    assert "Dial(PJSIP/" in extensions


@pytest.mark.parametrize(
    ("kind", "answers", "why"),
    [
        ("acme", Answers("o"), "one of twilio, telnyx, asterisk, generic"),
        ("twilio", Answers("o"), "termination URI"),
        ("twilio", Answers("Office 1", host="h.example"), "small letters"),
        ("twilio", Answers("o", host="h.example", public_address="a b\n"), "reaches us at"),
        ("generic", Answers("o", host="sip.carrier.example"), "no permission"),
        ("generic", Answers("o", host="a b", peers=("192.0.2.1",)), "HOST or HOST:PORT"),
        ("generic", Answers("o", host="h.example", peers=("0.0.0.0/0",)), "lets anybody call"),
        ("telnyx", Answers("o", region="mars"), "one of us, europe"),
        ("asterisk", Answers("o", host="192.0.2.20", region="us"), "has none"),
        ("telnyx", Answers("o", register=True), "auth_username"),
        ("generic", Answers("o", host="192.0.2.20", caller_id="123"), "a phone number"),
    ],
)
def test_an_answer_that_cannot_be_is_told(kind: str, answers: Answers, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as error:
        template(kind, answers)
    assert "\n" not in str(error.value)
