import json

import pytest

from trunkline.gateway.transfer_record import Attempt, Policy, Target, named_target, result_of, understood
from trunkline.ports import Refuse

TARGETS = {
    "reception": "+12025550123",
    "sales": "sip:sales@pbx.example:5061;transport=tls",
    "trunk": "sip:+442079460000@carrier.example",
    "dialled": "sip:112",
    "short": "112",
    "national": "020 7946 0000",
    "tel": "tel:+12025550123",
    "headers": "sip:sales@pbx.example?Replaces=1",
    "method": "sip:sales@pbx.example;method=SUBSCRIBE",
    "web": "https://example.com",
}


def test_a_target_is_a_number_or_a_plain_sip_uri_of_the_configuration() -> None:
    assert named_target(TARGETS, "reception") == Target("reception", "+12025550123")
    assert named_target(TARGETS, "sales") == Target("sales", TARGETS["sales"])
    unknown = named_target(TARGETS, "+12025550199")
    assert isinstance(unknown, Refuse)
    assert unknown.code == "unknown_target"


@pytest.mark.parametrize("name", ["short", "national", "tel", "headers", "method", "web"])
def test_what_is_neither_is_refused_by_name_and_without_its_number(name: str) -> None:
    refused = named_target(TARGETS, name)
    assert isinstance(refused, Refuse)
    assert refused.code == "bad_target"
    assert name in refused.why
    assert TARGETS[name] not in refused.why


def test_the_number_behind_a_target_is_what_the_country_check_sees() -> None:
    assert Target("a", "+12025550123").number == "+12025550123"
    assert Target("b", TARGETS["trunk"]).number == "+442079460000"
    assert Target("c", TARGETS["sales"]).number is None


def test_a_target_shown_in_a_log_hides_its_number() -> None:
    assert repr(Target("reception", "+12025550123")) == "Target(name='reception')"


def test_a_leg_that_was_never_answered_has_one_result() -> None:
    assert result_of("busy") == "busy"
    assert result_of("caller_hung_up") == "no_answer"
    assert result_of("never_started") == "failed"


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("Yes", "yes"),
        ("Okay, put them through!", "yes"),
        ("No problem", "yes"),
        ("no problem but not now", "no"),
        ("No, thank you.", "no"),
        ("I cannot", "no"),
        ("Who is this?", None),
        ("I know", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_what_a_representative_means(said: str, meant: str | None) -> None:
    assert understood(said, Policy()) == meant


def test_other_languages_are_policy() -> None:
    policy = Policy(yes=("ja", "gerne"), no=("nein",))
    assert understood("Ja, gerne", policy) == "yes"
    assert understood("nein", policy) == "no"
    assert understood("yes", policy) is None


def test_the_timeline_of_an_attempt_counts_from_its_own_beginning_and_the_callers_wait_from_the_first() -> None:
    attempt = Attempt(2, "sales", "warm", asked_at=100.0, started_at=130.0, ringing_at=131.0, answered_at=134.0)
    attempt.accepted_at = attempt.joined_at = attempt.ended_at = 141.5
    event = attempt.event()
    assert (event["waited_before_ms"], event["ringing_ms"], event["answered_ms"]) == (30000, 1000, 4000)
    assert (event["accepted_ms"], event["joined_ms"], event["time_to_human_ms"]) == (11500, 11500, 41500)
    assert json.loads(json.dumps(event)) == event
