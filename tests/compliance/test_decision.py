import builtins
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from trunkline.compliance.decision import Policy
from trunkline.errors import ConfigError
from trunkline.ports import Allow, Decide, Decision, Door, Facts, Lists, Refuse, Standing, Traffic
from trunkline.types import DEFAULT_TENANT

NOW = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)


def decided(
    door: Door,
    *,
    record: bool = False,
    target: str | None = None,
    target_number: str | None = None,
    to: str | None = None,
    allow: tuple[str, ...] = (),
) -> str:
    decision = decision_on(
        Facts(door, DEFAULT_TENANT, "inbound", to_number=to, target=target, target_number=target_number), allow, record
    )
    return decision.code if isinstance(decision, Refuse) else "allowed"


KNOWN = Standing(lists=Lists(stopped=False, company=False))
QUIET = Traffic(0, 0, 0)


def decision_on(facts: Facts, allow: tuple[str, ...] = (), record: bool = False) -> Decision:
    facts = replace(facts, standing=KNOWN, traffic=QUIET)
    decide: Decide = Policy(record=record, outbound_allow=allow).decide
    decision = decide(facts, NOW)
    assert isinstance(decision, Allow | Refuse)
    return decision


def why(to: str, *allow: str) -> str:
    decision = decision_on(Facts("dial", DEFAULT_TENANT, "outbound", to_number=to), allow)
    assert isinstance(decision, Refuse)
    return decision.why


@pytest.mark.parametrize("door", ["answer", "transcript", "third_party"])
def test_open_doors(door: Door) -> None:
    assert decided(door) == "allowed"


def test_recording_is_by_settings() -> None:
    assert decided("record") == "recording_off"
    assert decided("record", record=True) == "allowed"


def test_a_transfer_goes_to_a_named_target() -> None:
    assert decided("transfer") == "no_target"
    assert decided("transfer", target="reception") == "allowed"
    assert decided("transfer", target_number="+12025550123") == "no_target"


@pytest.mark.parametrize(
    ("called", "target", "allow", "code"),
    [
        ("+15005550001", "+12025550123", (), "allowed"),  # within the country of the number that was called
        ("+442079460000", "+442079460001", (), "allowed"),
        ("+442079460000", "+12025550123", (), "country_closed"),
        ("+442079460000", "+12025550123", ("US",), "allowed"),
        ("+12025550100", "+18767654321", ("US",), "country_closed"),  # Jamaica shares +1
        (None, "+12025550123", (), "country_closed"),  # unknown never weakens
        (None, "+12025550123", ("US",), "allowed"),
        ("+12025550100", "+80012345678", ("US",), "country_closed"),
        ("+12025550100", "+1202", ("US",), "invalid_number"),
    ],
)
def test_a_target_is_in_the_country_of_our_number_or_in_one_that_is_open(
    called: str | None, target: str, allow: tuple[str, ...], code: str
) -> None:
    theirs = "+33142685300"
    facts = Facts("transfer", DEFAULT_TENANT, "inbound", theirs, called, target="desk", target_number=target)
    ours = replace(facts, direction="outbound", from_number=called, to_number=theirs)
    for decision in (decision_on(facts, allow), decision_on(ours, allow)):
        assert (decision.code if isinstance(decision, Refuse) else "allowed") == code


def test_a_target_without_a_number_has_no_country() -> None:
    assert decided("transfer", target="reception") == "allowed"


def test_a_transfer_goes_to_no_emergency_or_premium_number_where_the_number_is_known() -> None:
    assert decided("transfer", target="reception", target_number="+12025550123", to="+12025550100") == "allowed"
    assert decided("transfer", target="police", target_number="911") == "emergency"
    assert decided("transfer", target="chat", target_number="+19005551234") == "premium"


def test_dialling_is_closed_until_a_country_is_opened() -> None:
    assert decided("dial") == "outbound_closed"
    assert decided("dial", target="reception") == "outbound_closed"
    assert decided("dial", to="+14165550100") == "outbound_closed"
    assert decided("dial", to="nonsense") == "outbound_closed"
    assert decided("dial", to="+14165550100", allow=("CA",)) == "allowed"


def test_an_unknown_number_never_passes() -> None:
    assert decided("dial", allow=("US",)) == "invalid_number"


@pytest.mark.parametrize(
    ("to", "code"),
    [
        ("+12025550123", "allowed"),
        ("+18005550199", "allowed"),
        ("+14165550100", "country_closed"),
        ("+12423221234", "country_closed"),
        ("+17872231234", "country_closed"),
        ("+80012345678", "country_closed"),
        ("+1911", "emergency"),
        ("+19005551234", "premium"),
        ("2025550123", "invalid_number"),
    ],
)
def test_an_open_country_is_that_country_only(to: str, code: str) -> None:
    assert decided("dial", to=to, allow=("US",)) == code


def test_no_country_can_be_opened_for_emergency_and_premium_numbers() -> None:
    assert decided("dial", to="+441624612345", allow=("GB",)) == "country_closed"
    assert decided("dial", to="+44999", allow=("GB",)) == "emergency"
    assert decided("dial", to="+449012345678", allow=("GB",)) == "premium"
    assert decided("dial", to="911") == "emergency", "also while dialling is closed: opening it would be no remedy"


def test_a_refusal_says_what_to_do() -> None:
    assert why("+12025550123") == "outbound.allow = (): add the country, such as US"
    assert why("+442079460000") == "outbound.allow = (): add the country, such as GB"
    assert why("+80012345678") == "outbound.allow = (): add the country, such as US"
    assert why("+442079460000", "US") == "outbound.allow = ('US',): add GB to call there"
    assert "+COUNTRY NUMBER" in why("020 7946 0000", "US")


def test_a_country_without_numbers_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigError, match=r"outbound.allow = 'UK'"):
        Policy(outbound_allow=("US", "UK"))


def test_a_decision_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A numbering plan is a module: read in the middle of a call it would hold up everyone's audio."""
    policy, imported = Policy(outbound_allow=("US",)), list[str]()
    really = builtins.__import__

    def counted(name: str, *more: Any, **named: Any) -> Any:
        imported.append(name)
        return really(name, *more, **named)

    with monkeypatch.context() as watched:
        watched.setattr("builtins.__import__", counted)
        for number in ("123456", "+88213000000", "+2902123", "+6834123", "+12025550123"):
            policy.decide(Facts("dial", DEFAULT_TENANT, "outbound", to_number=number), NOW)
    assert imported == []
