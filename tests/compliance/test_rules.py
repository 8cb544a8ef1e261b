"""The rules in force: what is refused, and what is owed."""

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from trunkline.compliance.decision import Policy, Terms
from trunkline.compliance.tables import Listed, Tables, ours
from trunkline.ports import Allow, Facts, Lists, Obligation, Refuse, Standing, Traffic
from trunkline.types import DEFAULT_TENANT

MONDAY_NOON = datetime(2026, 11, 23, 17, 0, tzinfo=UTC)  # in New York
NEW_YORK, FLORIDA, TEXAS, INDIANA = "+12125550100", "+13055550100", "+12145550100", "+12195550100"
BERLIN = "+493012345678"
CLEAN = Lists(False, False, False, False, False, False, {"national": MONDAY_NOON, "state": MONDAY_NOON})
GOOD = Standing(lists=CLEAN, consent="express_written", attempts=())
QUIET = Traffic(0, 0, 0)
TERMS = Terms("Acme Clinic", "US-NY", callback=True)


def call(**changes: Any) -> Facts:
    given: dict[str, Any] = {
        "to_number": NEW_YORK,
        "purpose": "marketing",
        "standing": GOOD,
        "traffic": QUIET,
    } | changes
    return Facts("dial", DEFAULT_TENANT, "outbound", "+12125550111", **given)


def policy(terms: Terms = TERMS, tables: Tables | None = None) -> Policy:
    return Policy(record=True, outbound_allow=("US", "DE", "JP"), terms=terms, tables=tables or ours())


def decided(facts: Facts, now: datetime = MONDAY_NOON, terms: Terms = TERMS) -> str:
    decision = policy(terms).decide(facts, now)
    return decision.code if isinstance(decision, Refuse) else "allowed"


def standing(**changes: Any) -> Standing:
    lists = {f.name: changes.pop(f.name) for f in fields(Lists) if f.name in changes}
    return replace(GOOD, lists=replace(CLEAN, **lists), **changes)


def test_a_call_that_nothing_is_against() -> None:
    assert decided(call()) == "allowed"
    assert decided(call(purpose="informational")) == "allowed"


@pytest.mark.parametrize(
    ("known", "code"),
    [
        ({"stopped": True}, "stopped"),
        ({"company": True}, "company_dnc"),
        ({"company": None}, "company_dnc_unknown"),
        ({"litigator": True}, "litigator"),
        ({"litigator": None}, "litigator_unknown"),
        ({"national": True}, "allowed"),  # written consent goes before it
        ({"national": True, "consent": "express_oral"}, "national_dnc"),
        ({"national": None, "consent": "express_oral"}, "national_dnc_unknown"),
        ({"reassigned": None}, "reassigned_unknown"),
        ({"consent": "express_oral"}, "no_consent"),
        ({"consent": "revoked"}, "consent_revoked"),
        ({"consent": None}, "national_dnc_unknown"),
        ({"attempts": None}, "frequency_unknown"),
        ({"company": True, "litigator": True, "consent": None}, "company_dnc"),  # the first in the order
    ],
)
def test_lists_and_consent(known: dict[str, Any], code: str) -> None:
    old = {"national": MONDAY_NOON - timedelta(days=32)} if known.get("consent", 1) is None else CLEAN.as_of
    assert decided(call(standing=standing(**{"as_of": old} | known))) == code


def test_an_old_copy_is_believed_where_it_says_yes() -> None:
    old = {"national": MONDAY_NOON - timedelta(days=400)}
    assert decided(call(standing=standing(national=True, consent="express_oral", as_of=old))) == "national_dnc"


@pytest.mark.parametrize("name", ["litigator", "reassigned"])
def test_a_call_without_a_purpose_is_under_the_lists_of_all(name: str) -> None:
    assert decided(call(purpose="informational", standing=standing(**{name: True}))) == "allowed"
    assert decided(call(purpose=None, standing=standing(**{name: True}))) == name


def test_the_rows_of_an_address_hold_beside_those_of_the_number() -> None:
    tried = tuple(MONDAY_NOON - timedelta(hours=h) for h in (1, 2, 3))
    assert decided(call(standing=standing(attempts=tried))) == "allowed"
    assert decided(call(standing=standing(attempts=tried, region="US-FL"))) == "frequency"


def test_where_no_row_says_what_consent_is_needed_it_is_a_written_one() -> None:
    calling = replace(ours().calling, rows=())
    rules = policy(tables=replace(ours(), calling=calling, _memory={}))
    for consent, code in (("express_oral", "no_consent"), ("express_written", "allowed")):
        decision = rules.decide(call(standing=standing(consent=consent), purpose="informational"), MONDAY_NOON)
        assert (decision.code if isinstance(decision, Refuse) else "allowed") == code


def test_a_purpose_or_a_place_that_no_row_speaks_of_asks_for_a_written_consent_beside_others() -> None:
    """What the purpose is, or that they may be elsewhere too, cannot help."""
    calling = replace(ours().calling, rows=tuple(row for row in ours().calling.rows if row.purpose == "informational"))
    rules = policy(tables=replace(ours(), calling=calling, _memory={}))
    implied = standing(consent="implied", national=False)
    for facts in (
        call(standing=implied, purpose=None),
        call(standing=replace(implied, region="US-NY"), purpose="transactional"),
    ):
        decision = rules.decide(facts, MONDAY_NOON)
        assert [check.answer for check in decision.checks if check.name == "consent"] == ["refuse"]
    decision = rules.decide(call(standing=implied, purpose="informational"), MONDAY_NOON)
    assert isinstance(decision, Allow)


@pytest.mark.parametrize(
    ("second", "known", "code"),
    [
        (Listed("US-NY", None, "x", "national", None, 31), {"national": True}, "national_dnc"),
        (Listed("US-NY", None, "x", "national", "express_written", 31), {"national": True}, "allowed"),
        (Listed("US-NY", None, "x", "national", None, 5), {}, "national_dnc_unknown"),
        (Listed("US-NY", None, "x", "national", None, 31), {}, "allowed"),
        (
            Listed("US-NY", None, "x", "national", "express_written", 5),
            {"consent": "express_oral"},
            "national_dnc_unknown",
        ),
    ],
)
def test_each_row_of_a_list_counts(second: Listed, known: dict[str, Any], code: str) -> None:
    """One is passed by a written consent, the other by none, or wants a younger copy."""
    first = Listed("US", None, "x", "national", "express_written", 31)
    rules = policy(tables=replace(ours(), lists=replace(ours().lists, rows=(first, second)), _memory={}))
    drawn = {"national": MONDAY_NOON - timedelta(days=10)}
    decision = rules.decide(call(standing=standing(as_of=drawn, **known)), MONDAY_NOON)
    assert (decision.code if isinstance(decision, Refuse) else "allowed") == code


def test_a_copy_of_the_national_list_is_31_days_old_at_most() -> None:
    for days, code in ((31, "allowed"), (32, "national_dnc_unknown"), (-1, "national_dnc_unknown")):
        drawn = MONDAY_NOON - timedelta(days=days)
        decision = Policy(outbound_allow=("US",), terms=TERMS).decide(
            call(standing=standing(as_of={"national": drawn}, consent="express_oral")), MONDAY_NOON
        )
        assert isinstance(decision, Refuse)
        assert decision.code == (code if code != "allowed" else "no_consent")


@pytest.mark.parametrize(
    ("to", "at", "purpose", "code"),
    [
        (NEW_YORK, "2026-11-23T13:00", "marketing", "allowed"),  # 8:00
        (NEW_YORK, "2026-11-23T12:59", "marketing", "window"),
        (NEW_YORK, "2026-11-24T02:00", "marketing", "window"),  # 21:00
        (FLORIDA, "2026-11-24T01:00", "marketing", "window"),  # 20:00
        (FLORIDA, "2026-11-24T01:00", "informational", "allowed"),
        (TEXAS, "2026-11-22T17:00", "marketing", "window"),  # Sunday at 11 in Dallas
        (TEXAS, "2026-11-22T18:00", "marketing", "allowed"),
        (INDIANA, "2026-11-23T14:00", "marketing", "window"),  # 9:00 in the east, 8:00 in the west of it
        (INDIANA, "2026-11-23T15:00", "marketing", "allowed"),
        (NEW_YORK, "2026-11-22T13:00", "marketing", "allowed"),
        (NEW_YORK, "2026-03-08T12:00", "marketing", "allowed"),  # the day the clocks go forward
        (NEW_YORK, "2026-03-07T12:00", "marketing", "window"),
        ("+12055550100", "2026-11-26T18:00", "marketing", "window"),  # Thanksgiving in Alabama
        ("+12055550100", "2026-11-25T18:00", "marketing", "allowed"),
        ("+12055550100", "2028-11-22T18:00", "marketing", "window"),  # nobody knows its holidays
        ("+18005550100", "2026-11-23T17:00", "informational", "window"),  # toll-free: anywhere, Hawaii too
        ("+18005550100", "2026-11-23T18:30", "informational", "allowed"),
        (BERLIN, "2026-11-23T12:00", "marketing", "allowed"),
        ("+81312345678", "2026-11-23T02:00", "informational", "allowed"),  # 11:00 in Tokyo, and no table knows it
        ("+81312345678", "2026-11-22T02:00", "informational", "window"),
    ],
)
def test_hours_are_those_of_who_is_called(to: str, at: str, purpose: str, code: str) -> None:
    now = datetime.fromisoformat(at).replace(tzinfo=UTC)
    lists = replace(CLEAN, as_of={"national": now, "state": now})
    assert decided(call(to_number=to, purpose=purpose, standing=replace(GOOD, lists=lists)), now) == code


def test_an_address_elsewhere_narrows_the_hours() -> None:
    at = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)  # 10:00 in New York, 7:00 in Los Angeles
    assert decided(call(), at) == "allowed"
    assert decided(call(standing=replace(GOOD, region="US-CA")), at) == "window"
    assert decided(call(standing=replace(GOOD, zone="America/Los_Angeles")), at) == "window"
    assert decided(call(standing=replace(GOOD, region="US-NY"))) == "allowed"


def test_where_only_addresses_count_a_number_alone_is_anywhere_in_its_country() -> None:
    terms = replace(TERMS, by_address=True)
    assert decided(call(), terms=terms) == "window"  # it is 7:00 in Hawaii
    assert decided(call(standing=replace(GOOD, region="US-NY")), terms=terms) == "allowed"


@pytest.mark.parametrize(
    ("to", "tried", "code"), [(FLORIDA, 2, "allowed"), (FLORIDA, 3, "frequency"), (NEW_YORK, 9, "allowed")]
)
def test_attempts_are_counted(to: str, tried: int, code: str) -> None:
    attempts = tuple(MONDAY_NOON - timedelta(hours=h) for h in range(1, tried + 1))
    assert decided(call(to_number=to, standing=replace(GOOD, attempts=attempts))) == code
    old = tuple(at - timedelta(hours=24) for at in attempts)
    assert decided(call(to_number=to, standing=replace(GOOD, attempts=old))) == "allowed"


def test_caps() -> None:
    for traffic, code in (
        (Traffic(9, 0, 0), "allowed"),
        (Traffic(10, 0, 0), "number_cap"),
        (Traffic(0, 600, 600), "country_cap"),
        (Traffic(0, 0, 1200), "total_cap"),
        (None, "number_cap_unknown"),
    ):
        assert decided(call(traffic=traffic)) == code
        forward = Facts(
            "transfer", DEFAULT_TENANT, "inbound", None, NEW_YORK, "desk", target_number=TEXAS, traffic=traffic
        )
        to_a_desk = {"number_cap": "allowed", "number_cap_unknown": "country_cap_unknown"}
        assert decided(forward) == to_a_desk.get(code, code)


# --- what is owed ----------------------------------------------------------------------------------------------------


def owed(facts: Facts, terms: Terms = TERMS) -> dict[str, Obligation]:
    decision = policy(terms).decide(facts, MONDAY_NOON)
    assert isinstance(decision, Allow), decision
    return {each.kind: each for each in decision.obligations}


def incoming(number: str | None) -> Facts:
    return Facts("answer", DEFAULT_TENANT, "inbound", number, NEW_YORK)


def test_without_a_business_nothing_is_owed() -> None:
    assert owed(incoming(NEW_YORK), Terms()) == {}


def test_opening_lines() -> None:
    assert list(owed(call())) == ["say_business", "say_ai", "say_recording", "say_opt_out", "say_callback"]
    assert "say_opt_out" not in owed(call(purpose="transactional"))
    assert "say_callback" not in owed(incoming(NEW_YORK))


def test_a_call_that_must_name_a_number_to_call_back_and_has_none_is_refused() -> None:
    unset = replace(TERMS, callback=False)
    assert decided(call(), terms=unset) == "callback_unset"
    decision = policy(unset).decide(call(), MONDAY_NOON)
    assert isinstance(decision, Refuse)
    assert "compliance.callback_number" in decision.why
    assert decided(call(standing=standing(company=True)), terms=unset) == "company_dnc"
    assert "say_ai" in owed(incoming(NEW_YORK), unset), "callers are answered"
    assert decided(call(), terms=Terms()) == "allowed", "without a business the rules are not in force"


def test_recording_asks_where_either_end_does() -> None:
    assert "ask_consent" not in owed(incoming(NEW_YORK))
    for number, terms in (
        ("+14155550100", TERMS),
        (NEW_YORK, replace(TERMS, region="US-CA")),
        (NEW_YORK, Terms("Acme")),
    ):
        asked = owed(incoming(number), terms)["ask_consent"]
        assert asked.doors == ("record", "transcript", "third_party")
        assert asked.basis.startswith("recording/")
    assert "ask_consent" in owed(incoming(BERLIN))


def test_an_anonymous_caller_is_answered_under_everything() -> None:
    everything = owed(incoming(None))
    assert set(owed(incoming(NEW_YORK))) < set(everything)
    assert everything["ask_consent"].basis == "recording/unknown"


def test_the_doors_that_consent_opens_say_so() -> None:
    for door in ("record", "transcript", "third_party"):
        facts = Facts(door, DEFAULT_TENANT, "inbound", "+14155550100", NEW_YORK)
        assert owed(facts)["ask_consent"].doors == (door,)
        assert owed(replace(facts, from_number=NEW_YORK)) == {}


def test_checks_are_the_answers_in_their_order_and_show_no_number() -> None:
    for facts in (call(), call(standing=standing(company=True, consent="revoked"))):
        decision = policy().decide(facts, MONDAY_NOON)
        names = [check.name for check in decision.checks]
        assert names[:4] == ["destination", "country", "stopped", "company_dnc"]
        assert names[4:10] == ["litigator", "national_dnc", "state_dnc", "reassigned", "consent", "window"]
        assert all(NEW_YORK not in check.input + check.why for check in decision.checks)
        assert {check.data for check in decision.checks if check.name == "window"} == {"hours 2026-11-28"}
