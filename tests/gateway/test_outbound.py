from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.gateway import outbound
from trunkline.gateway.endings import Ended, ended
from trunkline.gateway.outbound import (
    BEGUN,
    CONCLUDED,
    Again,
    Attempts,
    Failure,
    Finish,
    Place,
    RetryPolicy,
    Route,
    Wait,
    cheapest_first,
    cost,
    retry_policy,
    routes,
    sip_failure,
    twilio_failure,
    unplaced,
)
from trunkline.gateway.sip.message import Reason
from trunkline.gateway.sip.trunks import Trunk
from trunkline.ports import Refuse
from trunkline.settings import Outbound
from trunkline.types import E164

A, B, C = Route("a"), Route("b"), Route("c")
DOWN = sip_failure(503, from_peer=True, rang=False)
BUSY = sip_failure(486, from_peer=True, rang=False)
SILENT = sip_failure(487, from_peer=True, rang=True, we_gave_up=True)


def prices(text: str) -> dict[str, Decimal]:
    return {name: Decimal(price) for name, _, price in (item.partition("=") for item in text.split())}


# --- routes ---


@pytest.mark.parametrize(
    ("costs", "number", "price"),
    [
        ("*=0.05", "+14155550100", "0.05"),
        ("+1=0.01 *=0.05", "+14155550100", "0.01"),
        ("+1=0.01 +1415=0.02 *=0.05", "+14155550100", "0.02"),
        ("+1=0.01 *=0.05", "+442079460123", "0.05"),
        ("+1=0.01", "+442079460123", None),
        ("", "+442079460123", None),
    ],
)
def test_the_longest_beginning_says_what_a_number_costs(costs: str, number: str, price: str | None) -> None:
    assert cost(prices(costs), E164(number)) == (None if price is None else Decimal(price))


def test_the_cheapest_comes_first_and_of_equals_the_first_that_was_configured() -> None:
    a, b = Route("a"), Route("b", None, Decimal("0.02"))
    c, d = Route("c", None, Decimal("0.010")), Route("d", None, Decimal("0.01"))
    assert cheapest_first([a, b, c, d]) == [c, d, b, a]
    assert cheapest_first([Route("x"), Route("y")]) == [Route("x"), Route("y")]
    assert cheapest_first([Route("x", None, Decimal(0)), Route("free", None, None)])[0].trunk == "x"


def test_a_trunk_that_is_down_is_passed_over() -> None:
    assert cheapest_first([Route("a", None, Decimal(0), usable=False), B]) == [B]


def test_routes_are_the_trunks_that_take_calls_with_their_own_caller_id_and_price() -> None:
    ours, ordered, called = E164("+14155550100"), E164("+16285550100"), E164("+442079460123")
    trunks = [
        Trunk("in", ()),
        Trunk("one", (), host="h", caller_id=ours, cost_per_minute={"+44": Decimal("0.02")}),
        Trunk("two", (), host="h"),
    ]
    assert routes(trunks, lambda name: name != "two", called) == [
        Route("one", ours, Decimal("0.02")),
        Route("two", usable=False),
    ]
    assert routes(trunks, lambda name: True, called, ordered, "two") == [Route("two", ordered)]


def test_the_policy_is_what_the_settings_say() -> None:
    assert retry_policy(Outbound()) == RetryPolicy({}, 6, 3600)
    written = Outbound(retry_busy=2, retry_busy_after_s=60, max_attempts=3, give_up_after_s=900)
    assert retry_policy(written) == RetryPolicy({"busy": Again(2, 60)}, 3, 900)


# --- may the next trunk be tried? ---


@pytest.mark.parametrize("status", [500, 502, 503, 504, 401, 407])
def test_a_trunk_that_says_it_cannot_has_rung_nobody(status: int) -> None:
    assert not sip_failure(status, from_peer=True, rang=False).may_have_rung


@pytest.mark.parametrize(
    "status", [300, 302, 400, 403, 404, 408, 480, 481, 482, 484, 486, 487, 488, 505, 600, 603, 606]
)
def test_every_other_answer_is_about_the_number(status: int) -> None:
    assert sip_failure(status, from_peer=True, rang=False).may_have_rung


@given(st.integers(0, 699), st.booleans(), st.booleans(), st.text(max_size=20))
def test_what_rang_is_never_tried_elsewhere(status: int, from_peer: bool, dialled: bool, words: str) -> None:
    assert sip_failure(status, from_peer=from_peer, rang=True, dialled=dialled, words=words).may_have_rung


@pytest.mark.parametrize(
    ("cause", "rung"),
    [(34, False), (38, False), (41, False), (42, False), (3, False), (17, True), (19, True), (102, True), (16, True)],
)
def test_a_cause_of_the_called_side_outweighs_the_status(cause: int, rung: bool) -> None:
    reasons = (Reason("SIP", 503), Reason("Q.850", cause))
    assert sip_failure(503, reasons, from_peer=True, rang=False).may_have_rung is rung


@pytest.mark.parametrize(
    ("status", "words", "dialled", "rung"),
    [
        (0, "Invalid URI", False, False),
        (502, "gethostbyname() has returned error", True, False),
        (503, "Connection refused", True, False),
        (503, "No route to host", True, False),
        (503, "SSL certificate verification error", True, False),
        (503, "Connection reset by peer", True, True),
        (503, "Connection timed out", True, True),
        (503, "", True, True),
        (408, "Request Timeout", True, True),
        (0, "", True, True),
        (487, "Request Terminated", True, True),
    ],
)
def test_silence_proves_nothing_but_what_never_left_has_rung_nobody(
    status: int, words: str, dialled: bool, rung: bool
) -> None:
    assert sip_failure(status, from_peer=False, rang=False, words=words, dialled=dialled).may_have_rung is rung


def test_whom_we_gave_up_on_may_have_been_rung() -> None:
    for status in (0, 408, 487, 503):
        assert sip_failure(
            status, from_peer=False, rang=False, we_gave_up=True, words="Connection refused"
        ).may_have_rung


def test_a_trunk_that_cannot_be_reached_says_why() -> None:
    failure = sip_failure(503, from_peer=False, rang=False, words="Connection refused")
    assert failure.ended == Ended("failed", "network", "the trunk cannot be reached: Connection refused")


@pytest.mark.parametrize(
    ("http_status", "rung", "lasting"),
    [(400, False, True), (429, False, False), (408, True, False), (500, True, False), (0, True, False)],
)
def test_what_twilio_refuses_it_has_not_dialled(http_status: int, rung: bool, lasting: bool) -> None:
    failure = twilio_failure(http_status)
    assert (failure.may_have_rung, failure.lasting) == (rung, lasting)


# --- one after the other ---


def test_the_next_trunk_is_tried_while_nobody_can_have_been_rung() -> None:
    attempts = Attempts()
    assert attempts.begin([A, B, C], 0) == Place(1, A)
    assert attempts.failed(1, DOWN, 1) == Place(2, B)
    assert attempts.failed(2, DOWN, 2) == Place(3, C)
    assert attempts.failed(3, DOWN, 3) == Finish(DOWN.ended)
    assert attempts.state == "over"


def test_no_other_trunk_is_tried_after_ringing_or_an_answer_about_the_number() -> None:
    attempts = Attempts()
    attempts.begin([A, B], 0)
    assert attempts.failed(1, BUSY, 1) == Finish(BUSY.ended)
    attempts = Attempts()
    attempts.begin([A, B], 0)
    attempts.rang(1)
    assert attempts.failed(1, DOWN, 1) == Finish(DOWN.ended)


def test_ringing_of_one_attempt_is_not_ringing_of_the_next() -> None:
    attempts = Attempts()
    attempts.begin([A, B, C], 0)
    attempts.failed(1, DOWN, 1)
    attempts.rang(1)  # late
    assert attempts.failed(2, DOWN, 2) == Place(3, C)


def test_what_comes_late_of_an_earlier_attempt_changes_nothing() -> None:
    attempts = Attempts()
    attempts.begin([A, B], 0)
    attempts.failed(1, DOWN, 1)
    assert attempts.failed(1, DOWN, 2) is attempts.refused(1, Refuse("x", "")) is None
    attempts.answered(1)
    assert (attempts.state, attempts.number) == ("trying", 2)


def test_an_answered_call_is_over_with_the_call_and_not_repeated() -> None:
    attempts = Attempts(RetryPolicy({"busy": Again(3, 10)}))
    attempts.begin([A, B], 0)
    attempts.answered(1)
    assert attempts.failed(1, BUSY, 5) is attempts.due([A], 6) is attempts.stop(ended("drained")) is None
    assert attempts.state == "answered"


def test_without_a_trunk_nothing_is_tried() -> None:
    down = Route("a", usable=False)
    assert Attempts().begin([down], 0) == Finish(Ended("failed", "network", "trunk_down"))


def test_a_dialler_that_says_no_has_rung_nobody() -> None:
    attempts = Attempts()
    attempts.begin([A, B], 0)
    assert attempts.failed(1, unplaced(Refuse("trunk_down", "")), 1) == Place(2, B)


def test_a_rules_no_is_final_for_every_trunk() -> None:
    attempts = Attempts(RetryPolicy({"refused": Again(3, 10)}))
    attempts.begin([A, B], 0)
    assert attempts.refused(1, Refuse("quiet_hours", "")) == Finish(Ended("refused", "policy", "quiet_hours"))
    assert attempts.state == "over"


# --- again ---

POLICY = RetryPolicy({"busy": Again(2, 60), "no_answer": Again(1, 300), "failed": Again(1, 30)}, give_up_after_s=1000)


def test_a_busy_number_is_called_again_as_often_as_the_policy_says() -> None:
    attempts = Attempts(POLICY)
    attempts.begin([A, B], 0)
    assert attempts.failed(1, BUSY, 10) == Wait(70, BUSY.ended)
    assert attempts.due([B], 70) == Place(2, B)
    assert attempts.failed(2, BUSY, 80) == Wait(140, BUSY.ended)
    attempts.due([A], 140)
    assert attempts.failed(3, BUSY, 150) == Finish(BUSY.ended)


def test_each_reason_is_counted_for_itself() -> None:
    attempts = Attempts(POLICY)
    attempts.begin([A], 0)
    assert attempts.failed(1, SILENT, 30) == Wait(330, SILENT.ended)
    attempts.due([A], 330)
    assert attempts.failed(2, BUSY, 340) == Wait(400, BUSY.ended)
    attempts.due([A], 400)
    assert attempts.failed(3, SILENT, 430) == Finish(SILENT.ended)


def test_when_no_trunk_is_left_all_of_them_are_tried_again_later() -> None:
    attempts = Attempts(POLICY)
    attempts.begin([A, B], 0)
    attempts.failed(1, DOWN, 1)
    assert attempts.failed(2, DOWN, 2) == Wait(32, DOWN.ended)
    assert attempts.due([A, B], 32) == Place(3, A)


def test_a_trunk_may_ask_for_more_time() -> None:
    attempts = Attempts(POLICY)
    attempts.begin([A], 0)
    assert attempts.failed(1, sip_failure(503, from_peer=True, rang=False, retry_after_s=120), 1) == Wait(
        121, DOWN.ended
    )


def test_a_number_that_is_none_is_not_called_again() -> None:
    attempts = Attempts(POLICY)
    attempts.begin([A], 0)
    wrong = sip_failure(404, from_peer=True, rang=False)
    assert (wrong.lasting, attempts.failed(1, wrong, 1)) == (True, Finish(wrong.ended))


def test_nothing_begins_after_its_time() -> None:
    attempts = Attempts(POLICY)
    attempts.begin([A], 0)
    assert attempts.failed(1, BUSY, 941) == Finish(BUSY.ended)
    attempts = Attempts(POLICY)
    attempts.begin([A], 0)
    assert attempts.failed(1, BUSY, 940) == Wait(1000, BUSY.ended)
    assert attempts.due([A], 1001) == Finish(BUSY.ended)  # the timer came late


def test_the_attempts_are_limited_in_all() -> None:
    attempts = Attempts(RetryPolicy({"failed": Again(9, 1)}, max_attempts=2))
    attempts.begin([A, B, C], 0)
    assert attempts.failed(1, DOWN, 1) == Place(2, B)
    assert attempts.failed(2, DOWN, 2) == Finish(DOWN.ended)


def test_who_waits_can_be_stopped() -> None:
    attempts = Attempts(POLICY)
    attempts.begin([A], 0)
    attempts.failed(1, BUSY, 1)
    assert attempts.stop(ended("agent_hung_up", by="operator")) == Finish(Ended("agent_hung_up", "operator"))
    assert attempts.due([A], 61) is None


# --- never twice ---


@given(st.data())
def test_whatever_happens_one_attempt_is_out_and_nobody_is_rung_by_two(data: st.DataObject) -> None:
    policy = RetryPolicy(
        {reason: Again(data.draw(st.integers(0, 3)), 10) for reason in ("busy", "no_answer", "failed")},
        max_attempts=data.draw(st.integers(1, 5)),
        give_up_after_s=200,
    )
    attempts, now, out, placed, may_ring = Attempts(policy), 0.0, 0, 0, False
    step: Any = attempts.begin([A, B, C], now)
    for _ in range(30):
        if isinstance(step, Place):
            assert out == 0, "two at once"
            assert not may_ring, "another trunk after one that may have rung"
            out, placed = step.attempt, placed + 1
        elif isinstance(step, Finish):
            break
        now += data.draw(st.integers(1, 20))
        late = data.draw(st.integers(0, placed))
        match data.draw(st.sampled_from(["failed", "rang", "answered", "due", "late"])):
            case "failed" if out:
                failure = data.draw(st.sampled_from([DOWN, BUSY, SILENT]))
                rung = attempts._rang or failure.may_have_rung
                step, out = attempts.failed(out, failure, now), 0
                may_ring = rung and not isinstance(step, Wait)
            case "rang" if out:
                attempts.rang(out)
                step = None
            case "answered" if out:
                attempts.answered(out)
                assert attempts.failed(out, DOWN, now) is attempts.due([A], now) is None
                return
            case "late" if late != out:
                assert attempts.failed(late, DOWN, now) is None
                step = None
            case "due":
                step = attempts.due([A, B, C], now)
            case _:
                step = None
    assert placed <= policy.max_attempts


def test_an_attempt_that_began_and_has_no_end_is_lost_with_the_gateway() -> None:
    place = Place(2, Route("b", None, Decimal("0.01")))
    one: list[tuple[str, Mapping[str, Any]]] = [
        ("dialling", {}),
        (BEGUN, outbound.begun(Place(1, A))),
        (CONCLUDED, outbound.concluded(1, DOWN)),
    ]
    assert Attempts.after_restart(one) is None
    lost = Attempts.after_restart([*one, (BEGUN, outbound.begun(place))])
    assert lost == Ended("gateway_lost", "gateway", "it may have rung when the gateway died")


def test_what_is_recorded_of_an_attempt() -> None:
    assert outbound.begun(Place(2, Route("b", None, Decimal("0.010")))) == {
        "attempt": 2,
        "trunk": "b",
        "cost_per_minute": "0.010",
    }
    assert outbound.concluded(2, Failure(Ended("busy", "network", "busy", "sip:486"), may_have_rung=True)) == {
        "attempt": 2,
        "reason": "busy",
        "by": "network",
        "detail": "busy",
        "provider_code": "sip:486",
        "may_have_rung": True,
    }
