from dataclasses import replace
from typing import Any

import pytest

from trunkline.numbers import e164
from trunkline.numbers.carriers.account import NotTaken, Owned, Unknown
from trunkline.numbers.carriers.owning import pointing
from trunkline.numbers.readiness import (
    Answered,
    Check,
    GatewayFacts,
    NumberFacts,
    TrunkFacts,
    gateway_checks,
    number_checks,
    trunk_checks,
    worst,
)

URL = "https://voice.example.com"
OURS = pointing(URL)
GATEWAY = GatewayFacts(
    public_url=URL,
    carrier_token=True,
    api_key=True,
    here=Answered(200),
    outside=Answered(200),
    max_calls=300,
    rtp_ports=10_000,
    outbound_countries=("DE",),
    tenant_budget=True,
)
TRUNK = TrunkFacts(
    name="office", state="up", codecs=("PCMU", "G722"), profile_codecs=("PCMU", "PCMA"), listens_outside=True
)
NUMBER = e164.number("+14155550100")
OWNED = Owned(
    "PN" + "1" * 32,
    NUMBER.e164,
    "Main",
    frozenset({"voice"}),
    OURS.voice_url,
    fallback_url=OURS.fallback_url,
    status_url=OURS.status_url,
)
AT_TWILIO = NumberFacts(number=NUMBER, over="twilio", owned=OWNED, asked=True, agent="reception", agent_ready=True)
ON_TRUNK = NumberFacts(number=NUMBER, over="office", trunk=TRUNK, agent="reception", agent_ready=True)


def bad(checks: list[Check]) -> list[str]:
    return [f"{each.verdict} {each.what}: {each.detail}" for each in checks if each.verdict != "ok"]


def test_where_all_is_well_nothing_is_said() -> None:
    checks = [
        *gateway_checks(GATEWAY),
        *trunk_checks(TRUNK, GATEWAY),
        *number_checks(AT_TWILIO, GATEWAY, ["US"]),
        *number_checks(ON_TRUNK, GATEWAY),
    ]
    assert bad(checks) == []
    assert worst(checks) == "ok"


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"here": None}, "warn gateway: was not asked"),
        ({"here": Answered(None, "refused")}, "fail gateway: does not answer (refused)"),
        ({"here": Answered(503, "draining")}, "fail gateway: takes no calls: draining"),
        ({"public_url": None}, "fail public URL: is not set: no carrier can reach us"),
        ({"public_url": "http://127.0.0.1"}, "fail public URL: http://127.0.0.1 is no https address"),
        ({"outside": None}, f"warn public URL: {URL} was not asked"),
        (
            {"outside": Answered(None, "no such name")},
            f"fail public URL: {URL} does not answer from here (no such name)",
        ),
        ({"outside": Answered(502)}, f"fail public URL: {URL} answers 502: something else is there"),
        ({"outside": Answered(302)}, f"warn public URL: {URL} answers 302"),
        ({"carrier_token": False}, "fail webhooks: are not signed: twilio.auth_token is not set"),
        ({"api_key": False}, "warn webhooks: are signed; /v1 is open: http.api_key is not set"),
        ({"rtp_ports": 100}, "warn RTP ports: enough for 50 SIP calls, and limits.max_calls is 300"),
        ({"tenant_budget": False}, "warn budget: nothing bounds what a day may cost"),
    ],
)
def test_what_is_wrong_with_a_gateway(facts: dict[str, Any], said: str) -> None:
    checks = gateway_checks(replace(GATEWAY, **facts))
    assert bad(checks) == [said]
    assert all(each.remedy for each in checks if each.verdict == "fail")


def test_where_nobody_asks_us_over_https_no_public_url_is_wanted() -> None:
    assert bad(gateway_checks(replace(GATEWAY, public_url=None, carrier_token=False), webhooks=False)) == []


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"state": None}, "warn trunk office: nobody could say whether it answers"),
        ({"state": "down"}, "fail trunk office: does not answer OPTIONS"),
        ({"state": "unknown"}, "warn trunk office: has not answered yet"),
        ({"state": "unknown", "ping": False}, "warn trunk office: is not asked (ping_s = 0)"),
        ({"registers": True, "registered": False}, "fail trunk office: we are not registered"),
        ({"registers": True}, "warn trunk office: nobody could say whether we are registered"),
        ({"listens_outside": False}, "warn trunk office: SIP listens on this machine alone"),
        ({"calls_in": False}, "warn trunk office: takes no calls: it has no peers"),
        ({"codecs": ("opus",)}, "fail trunk office: no codec in common: it takes PCMU, PCMA"),
        ({"tls": True}, "warn trunk office: calls by TLS, and takes no calls by it"),
    ],
)
def test_what_is_wrong_with_a_trunk(facts: dict[str, Any], said: str) -> None:
    assert bad(trunk_checks(replace(TRUNK, **facts), GATEWAY)) == [said]


def test_calls_of_ours_want_a_country_and_in_the_united_states_a_signature() -> None:
    closed = replace(GATEWAY, outbound_countries=())
    assert bad(trunk_checks(TRUNK, closed)) == ["warn trunk office: no call of ours goes: outbound.allow is empty"]
    assert bad(trunk_checks(replace(TRUNK, calls_out=False), closed)) == []
    states = replace(GATEWAY, outbound_countries=("US",), stir_keys=True)
    assert "not signed by us" in bad(trunk_checks(TRUNK, states))[0]
    assert bad(trunk_checks(replace(TRUNK, stir_sign=True), states)) == []


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"owned": None}, "fail +14155550100: is no number of the Twilio account"),
        ({"asked": False}, "warn +14155550100: Twilio was not asked: there is no account in the settings"),
        ({"owned": NotTaken(401, 20003, "Authenticate")}, "warn +14155550100: Twilio does not say: Authenticate"),
        ({"owned": Unknown("HTTP 500")}, "warn +14155550100: Twilio does not say: HTTP 500"),
        ({"owned": replace(OWNED, capabilities=frozenset({"sms"}))}, "fail +14155550100: cannot take calls (no voice)"),
        (
            {"owned": replace(OWNED, trunk_id="TK1")},
            "fail +14155550100: calls go to the SIP trunk TK1, and the voice URL is ignored",
        ),
        (
            {"owned": replace(OWNED, voice_url="https://demo.twilio.com/")},
            f"fail +14155550100: its voice URL is https://demo.twilio.com/, and should be {URL}/twilio/voice",
        ),
        (
            {"owned": replace(OWNED, status_url="")},
            f"warn +14155550100: its status callback is not set, and should be {URL}/twilio/status",
        ),
        ({"agent": None}, "fail +14155550100: nobody would answer"),
        ({"agent_ready": None}, "warn +14155550100: reception would answer; nobody could say whether it is ready"),
        ({"agent_ready": False, "agent_why": "speech"}, "fail +14155550100: reception is not ready: speech"),
    ],
)
def test_what_is_wrong_with_a_number_at_twilio(facts: dict[str, Any], said: str) -> None:
    assert bad(number_checks(replace(AT_TWILIO, **facts), GATEWAY)) == [said]


def test_what_is_wrong_with_a_number_on_a_trunk() -> None:
    assert bad(number_checks(replace(ON_TRUNK, trunk_takes=False), GATEWAY)) == [
        "fail +14155550100: is none of the numbers of the trunk office: its calls are answered 404"
    ]
    assert bad(number_checks(replace(ON_TRUNK, over="", trunk=None), GATEWAY)) == [
        "fail +14155550100: is at no carrier and on no trunk that is set up here"
    ]
    assert bad(number_checks(ON_TRUNK, GATEWAY, ["DE"])) == ["fail +14155550100: is of US, which is not allowed"]


def test_a_number_without_a_public_url_cannot_be_pointed() -> None:
    assert "there is no http.public_url" in bad(number_checks(AT_TWILIO, replace(GATEWAY, public_url=None)))[0]
