"""What never goes out, however it is written, and how often anything may."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from trunkline.compliance.caps import Caps, Outgoing
from trunkline.compliance.decision import Policy, Terms
from trunkline.ports import Allow, CallOut, Facts, Lists, Refuse, Standing, Traffic
from trunkline.types import DEFAULT_TENANT

NOW = datetime(2026, 11, 23, 17, 0, tzinfo=UTC)
OURS = "+12125550111"
POLICY = Policy(outbound_allow=("US", "GB", "DE"))
CLEAN = Standing(lists=Lists(stopped=False, company=False))


def dial(number: str) -> str:
    facts = Facts("dial", DEFAULT_TENANT, "outbound", to_number=number, standing=CLEAN, traffic=Traffic(0, 0, 0))
    decision = POLICY.decide(facts, NOW)
    return decision.code if isinstance(decision, Refuse) else "allowed"


def transfer(number: str | None, policy: Policy = POLICY) -> str:
    facts = Facts("transfer", DEFAULT_TENANT, "inbound", "+13055550100", OURS, "desk", target_number=number)
    decision = policy.decide(replace(facts, traffic=Traffic(0, 0, 0)), NOW)
    return decision.code if isinstance(decision, Refuse) else "allowed"


@pytest.mark.parametrize(
    "number",
    [
        "911",
        "112",
        "999",
        "0112",
        "110",
        "933",
        "+1911",
        "+44999",
        "+440999",
        "+49110",
        "+112",
        "+933",
        "sip:911@trunk",
        "tel:911",
        "9-1-1",
        "９１１",
        "tel:911;phone-context=+1",
    ],
)
def test_no_emergency_number_is_dialled(number: str) -> None:
    assert dial(number) in ("emergency", "invalid_number")
    assert dial(number) != "allowed"


@pytest.mark.parametrize(
    "number",
    [
        "+19005551212",
        "tel:+19005551212",
        "tel:+1 900 555 1212",
        "+1-900-555-1212",
        "+1 (900) 555-1212",
        "+019005551212",
        "+0019005551212",
        "sip:+19005551212@trunk",
        "sip:19005551212@trunk;user=phone",
        "+１9005551212",
        "0019005551212",
        "01119005551212",
        "+12129761234",
        "+870773111632",
        "+881612345678",
        "+8821612345678",
        "+979012345678",
        "+447012345678",
        "+448431234567",
        "+491805123456",
        "+15005550100",
        "+12345",
        "12345",
        "+19005551212;ext=1",
        "",
    ],
)
def test_no_premium_satellite_shared_personal_or_short_number_is_dialled(number: str) -> None:
    assert dial(number) in ("premium", "invalid_number", "emergency")


@pytest.mark.parametrize("number", ["911", "112", "9911", "0112", "999", "933", "000", "+1911"])
def test_no_target_is_an_emergency_number_also_by_sip_uri(number: str) -> None:
    assert transfer(number) == "emergency"


@pytest.mark.parametrize(
    "digits", ["19005551212", "9005551212", "919005551212", "0019005551212", "01119005551212", "901119005551212"]
)
def test_digits_of_a_sip_uri_are_read_as_its_host_may_read_them(digits: str) -> None:
    assert transfer(digits) == "premium"


def test_digits_that_lead_abroad_are_refused_and_plain_ones_are_not() -> None:
    assert transfer("5352345678") == "ambiguous_number"  # Cuba, should its + be lost
    assert transfer("1234567890123") == "ambiguous_number"
    assert transfer("13055550100") == "allowed"


def test_extensions_and_names_are_nobodys_number() -> None:
    assert [transfer(each) for each in ("100", "101", "2001", "778899", None)] == ["allowed"] * 5
    # 110 is the police where we are, in Germany; 100 is an extension there as well
    german = Policy(terms=Terms(region="DE"))
    assert [transfer(each, german) for each in ("110", "100")] == ["emergency", "allowed"]


@pytest.mark.parametrize("by", ["911", "112", "999", "110", "+1911"])
def test_an_emergency_call_that_was_sent_on_to_us_is_not_answered(by: str) -> None:
    facts = Facts("answer", DEFAULT_TENANT, "inbound", "+13055550100", OURS, forwarded_by=by)
    decision = POLICY.decide(facts, NOW)
    assert isinstance(decision, Refuse)
    assert decision.code == "emergency"


@pytest.mark.parametrize("by", [None, "+13055550100", "101", "9112", "2911", "reception"])
def test_other_forwarded_calls_are(by: str | None) -> None:
    facts = Facts("answer", DEFAULT_TENANT, "inbound", "+13055550100", OURS, forwarded_by=by)
    assert isinstance(POLICY.decide(facts, NOW), Allow)


# --- caps ---


def test_what_another_worker_called_counts_here_once() -> None:
    ours, theirs = Outgoing(), Outgoing()
    theirs.went("+13055550100", NOW)
    theirs.went("+13055550100", NOW - timedelta(minutes=59))
    ours.went("+13055550100", NOW - timedelta(minutes=30))
    told = [*theirs.untold(), *ours.untold()]
    for _ in range(2):
        ours.heard(told, NOW)
    assert ours.traffic("+13055550100", NOW) == Traffic(3, 3, 3)
    assert ours.traffic("+13055550100", NOW + timedelta(minutes=2)) == Traffic(2, 2, 2)
    assert ours.traffic("+13055550100", NOW + timedelta(hours=1)) == Traffic(0, 0, 0)
    ours.heard([CallOut("old", "+13055550100", "US", NOW - timedelta(hours=2))], NOW)
    assert ours.traffic("+13055550100", NOW + timedelta(hours=1)) == Traffic(0, 0, 0)


def test_one_over_a_cap_is_refused_and_others_still_go() -> None:
    policy, out = Policy(outbound_allow=("US",), caps=Caps(number=3)), Outgoing()
    went = []
    for number in ["+13055550100"] * 5 + ["+13055550101"]:
        facts = Facts("dial", DEFAULT_TENANT, "outbound", to_number=number, standing=CLEAN)
        decision = policy.decide(replace(facts, traffic=out.traffic(number, NOW)), NOW)
        went.append(decision.code if isinstance(decision, Refuse) else "allowed")
        if isinstance(decision, Allow):
            out.went(number, NOW)
    assert went == ["allowed"] * 3 + ["number_cap"] * 2 + ["allowed"]
