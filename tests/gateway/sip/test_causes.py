from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.gateway.sip import causes
from trunkline.gateway.sip.causes import FinalAnswer, refusal, unanswered
from trunkline.gateway.sip.message import Reason
from trunkline.ports import EndReason


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("unknown_number", 404),
        ("declined", 603),
        ("busy", 486),
        ("ended", 481),
        ("malformed", 400),
        ("no_codec", 488),
        ("consent_missing", 403),
        ("outside_hours", 403),
    ],
)
def test_a_refusal_has_its_status_and_a_rules_no_is_403(code: str, status: int) -> None:
    assert (refusal(code).status, refusal(code).headers) == (status, ())


@pytest.mark.parametrize("code", ["overloaded", "draining"])
def test_a_full_or_stopping_gateway_says_when_to_come_back(code: str) -> None:
    assert refusal(code, 7) == FinalAnswer(503, "Service Unavailable", (("Retry-After", "7"),))


def test_why_a_rule_said_no_is_not_told() -> None:
    assert refusal("watch_list_7") == FinalAnswer(403, "Forbidden")


@pytest.mark.parametrize(
    ("status", "reason", "detail"),
    [
        (486, "busy", "busy (SIP 486)"),
        (600, "busy", "busy (SIP 600)"),
        (408, "no_answer", "nobody answered (SIP 408)"),
        (480, "no_answer", "not reachable (SIP 480)"),
        (487, "no_answer", "nobody answered (SIP 487)"),
        (403, "rejected", "rejected (SIP 403)"),
        (603, "rejected", "rejected (SIP 603)"),
        (607, "rejected", "unwanted (SIP 607)"),
        (608, "rejected", "blocked by a network on the way (SIP 608)"),
        (404, "failed", "no such number (SIP 404)"),
        (410, "failed", "no such number (SIP 410)"),
        (484, "failed", "no such number (SIP 484)"),
        (604, "failed", "no such number (SIP 604)"),
        (401, "failed", "the trunk did not accept our credentials (SIP 401)"),
        (488, "failed", "no common codec or encryption (SIP 488)"),
        (302, "failed", "redirected elsewhere (SIP 302)"),
        (503, "failed", "the trunk failed (SIP 503)"),
        (420, "failed", "refused (SIP 420)"),
        (0, "failed", "the trunk did not answer"),
    ],
)
def test_the_final_status_of_a_call_of_ours_says_how_it_ended(status: int, reason: str, detail: str) -> None:
    assert unanswered(status) == (reason, detail)


@pytest.mark.parametrize(
    ("status", "cause", "reason", "detail"),
    [
        (480, 17, "busy", "busy (SIP 480, Q.850 17)"),
        (503, 1, "failed", "no such number (SIP 503, Q.850 1)"),
        (500, 19, "no_answer", "nobody answered (SIP 500, Q.850 19)"),
        (480, 21, "rejected", "rejected (SIP 480, Q.850 21)"),
        (503, 34, "failed", "the network is full (SIP 503, Q.850 34)"),
    ],
)
def test_the_exchanges_cause_says_more_than_the_status(status: int, cause: int, reason: str, detail: str) -> None:
    assert unanswered(status, (Reason("SIP", 200), Reason("Q.850", cause))) == (reason, detail)


def test_a_cause_that_says_nothing_leaves_the_status() -> None:
    assert unanswered(486, (Reason("Q.850", 16),)) == unanswered(486, (Reason("Q.850", None),)) == unanswered(486)
    assert unanswered(608, (Reason("Q.850", 21),)) == unanswered(608)
    assert unanswered(486, (Reason("SIP", 1),)) == unanswered(486)


def test_a_trunk_that_never_said_anything_is_down() -> None:
    assert unanswered(408, rang=False) == ("failed", "the trunk did not answer")


def test_our_own_ring_timeout_is_no_answer_whatever_cause_the_cancel_had() -> None:
    assert unanswered(487, (Reason("Q.850", 21),), we_gave_up=True)[0] == "no_answer"
    assert unanswered(0, we_gave_up=True) == ("no_answer", "nobody answered")
    assert unanswered(0, rang=False, we_gave_up=True)[0] == "failed"


@given(st.integers(0, 999), st.lists(st.builds(Reason, st.text(), st.none() | st.integers())), st.booleans())
def test_every_ending_is_an_end_reason_and_a_few_words(status: int, reasons: list[Reason], flag: bool) -> None:
    reason, detail = unanswered(status, tuple(reasons), rang=flag, we_gave_up=not flag)
    assert reason in get_args(EndReason)
    assert 0 < len(detail) < 100


def test_every_refusal_is_a_final_answer() -> None:
    assert all(400 <= refusal(code).status < 700 for code in causes._REFUSALS)
