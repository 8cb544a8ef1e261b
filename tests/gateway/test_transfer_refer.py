import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.gateway.transfer_refer import (
    ReferFollowed,
    ReferRate,
    ReferRefusal,
    ReferRules,
    Replaces,
    judge_refer,
    parse_replaces,
)
from trunkline.ports import Allow, Decision, Refuse
from trunkline.types import E164

KNOWN = Replaces("abc@host", "1", "2")


def decide(number: E164) -> Decision:
    return Allow() if number.startswith("+1") else Refuse("country_closed", "outbound.allow has no such country")


RULES = ReferRules(allowed=True, country="US", decide=decide, knows=lambda replaces: replaces == KNOWN)


def judged(refer_to: str, rules: ReferRules = RULES) -> tuple[int, str]:
    decision = judge_refer(refer_to, rules, ReferRate(), 0.0)
    return (decision.status, decision.code) if isinstance(decision, ReferRefusal) else (202, "")


def test_a_number_in_an_open_country_is_called_wherever_the_refer_points() -> None:
    followed = judge_refer("<sip:+12025550123@elsewhere.example>", RULES, ReferRate(), 0.0)
    assert followed == ReferFollowed(E164("+12025550123"))
    assert judged('"Sales" <sip:2025550123@pbx.example;user=phone>') == (202, "")
    assert judged("tel:+12025550123") == (202, "")


@pytest.mark.parametrize(
    ("refer_to", "status", "code"),
    [
        ("<sip:+442079460000@pbx.example>", 403, "country_closed"),
        ("<sip:sales@pbx.example>", 403, "no_number"),
        ("<sip:pbx.example>", 403, "no_number"),
        ("<http://example.com/>", 416, "foreign_scheme"),
        ("mailto:a@example.com", 416, "foreign_scheme"),
        ("<javascript:alert(1)>", 416, "foreign_scheme"),
        ("<sips:+12025550123@pbx.example>", 416, "foreign_scheme"),
        ("<sip:+12025550123@pbx.example;method=BYE>", 403, "foreign_method"),
        ("sip:+12025550123@pbx.example;method=SUBSCRIBE", 403, "foreign_method"),
        ("<sip:+12025550123@pbx.example?Replaces=other%40host%3Bto-tag%3D1%3Bfrom-tag%3D2>", 603, "unknown_dialog"),
        ("<sip:+12025550123@pbx.example?Replaces=abc%40host%3Bto-tag%3D9%3Bfrom-tag%3D2>", 603, "unknown_dialog"),
        ("<sip:+12025550123@pbx.example?Replaces=abc%40host>", 400, "malformed"),
        ("sip:+12025550123@pbx.example?Replaces=abc%40host%3Bto-tag%3D1%3Bfrom-tag%3D2", 400, "malformed"),
        ("", 400, "malformed"),
        ("<sip:", 400, "malformed"),
        ("<sip:+12025550123@pbx.example>" + "x" * 2000, 400, "malformed"),
    ],
)
def test_what_is_refused_and_how(refer_to: str, status: int, code: str) -> None:
    assert judged(refer_to) == (status, code)


def test_a_replaces_of_a_call_of_ours_dials_nobody() -> None:
    refer_to = "<sip:x@pbx.example?Replaces=abc%40host%3Bto-tag%3D1%3Bfrom-tag%3D2>"
    assert judge_refer(refer_to, RULES, ReferRate(), 0.0) == ReferFollowed(None, KNOWN)


def test_nothing_is_followed_on_a_trunk_that_does_not_allow_it() -> None:
    closed = ReferRules(False, "US", decide, lambda replaces: True)
    assert judged("<sip:+12025550123@pbx.example>", closed) == (603, "not_allowed")
    assert judged("<http://example.com/>", closed) == (603, "not_allowed")


def test_a_thousand_refers_are_a_few() -> None:
    rate, asked = ReferRate(), list[E164]()

    def asking(number: E164) -> Decision:
        asked.append(number)
        return Allow()

    rules = ReferRules(True, "US", asking, lambda replaces: False)
    refused = 0
    for n in range(1000):
        decision = judge_refer("<sip:+12025550123@pbx.example>", rules, rate, n * 0.01)
        if isinstance(decision, ReferRefusal):
            assert (decision.status, decision.code, decision.retry_after_s) == (503, "rate", 60)
            refused += 1
    assert (len(asked), refused) == (3, 997)
    assert isinstance(judge_refer("<sip:+12025550123@pbx.example>", rules, rate, 20.1), ReferFollowed)


def test_a_clock_that_stands_still_gives_nothing_and_a_long_rest_no_more_than_the_burst() -> None:
    rate = ReferRate(per_minute=60, burst=2)
    assert [rate.allows(5.0) for _ in range(4)] == [True, True, False, False]
    assert [rate.allows(5000.0) for _ in range(4)] == [True, True, False, False]


def test_a_dialog_over_its_own_rate_uses_up_nothing_of_its_trunks() -> None:
    trunk = ReferRate(per_minute=60, burst=4)
    one, other = ReferRate(within=trunk), ReferRate(within=trunk)
    assert [one.allows(5.0) for _ in range(100)].count(True) == 3
    assert [other.allows(5.0) for _ in range(100)].count(True) == 1
    assert other.allows(16.0)


def test_replaces_as_in_rfc_3891() -> None:
    assert parse_replaces("a@b;to-tag=x;from-tag=y") == Replaces("a@b", "x", "y")
    assert parse_replaces("a@b;from-tag=y;to-tag=x;early-only") == Replaces("a@b", "x", "y", early_only=True)
    assert parse_replaces("a@b;to-tag=x") is None
    assert parse_replaces(";to-tag=x;from-tag=y") is None


@given(st.text(max_size=200) | st.text(alphabet="<>sip:tel@;?=%+0123456789Replaces", max_size=80))
def test_whatever_is_referred_to_gets_a_decision(refer_to: str) -> None:
    status, _ = judged(refer_to)
    assert status in (202, 400, 403, 416, 603)
