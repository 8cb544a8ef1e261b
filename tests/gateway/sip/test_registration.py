"""When the next REGISTER is due."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.gateway.sip import registration as r
from trunkline.gateway.sip.registration import Registration


def test_a_registration_is_renewed_at_half_time() -> None:
    one = Registration()
    assert one.answered(200, 300, 100.0) == 150.0
    assert (one.left_s(100.0), one.left_s(399.0), one.left_s(400.0)) == (300, 1, 0)


def test_a_registrar_that_grants_next_to_nothing_is_not_hammered() -> None:
    assert Registration().answered(200, 1, 0.0) == r.LEAST_RENEWAL_S


def test_what_grants_nothing_is_a_failure() -> None:
    one = Registration(lambda: 1.0)
    assert one.answered(200, 0, 0.0) == r.FIRST_RETRY_S
    assert (one.failures, one.left_s(0.0)) == (1, 0)


def test_a_registrar_that_is_away_is_tried_ever_more_rarely() -> None:
    one = Registration(lambda: 1.0)
    assert [one.answered(0, 0, 0.0) for _ in range(9)] == [4, 8, 16, 32, 64, 128, 256, 300, 300]


@pytest.mark.parametrize("code", [401, 403, 404, 407, 603])
def test_a_registrar_that_says_no_is_left_alone_for_minutes(code: int) -> None:
    one = Registration(lambda: 1.0)
    assert [one.answered(code, 0, 0.0) for _ in range(6)] == [120, 240, 480, 960, 1800, 1800]


def test_a_failed_renewal_takes_nothing_away() -> None:
    one = Registration()
    one.answered(200, 60, 0.0)
    one.answered(503, 0, 30.0)
    assert (one.left_s(30.0), one.failures) == (30, 1)
    one.answered(200, 60, 35.0)
    assert (one.left_s(35.0), one.failures) == (60, 0)


def test_retry_after_is_waited_within_reason() -> None:
    assert Registration().answered(503, 0, 0.0, retry_after_s=60) == 60
    assert Registration().answered(503, 0, 0.0, retry_after_s=999_999) == r.LAST_AFTER_NO_S


@given(st.integers(0, 699), st.integers(1, 5000), st.floats(0, 1))
def test_every_wait_is_positive_spread_and_bounded(code: int, failures: int, chance: float) -> None:
    one = Registration(lambda: chance)
    one.failures = failures
    wait_s = one.answered(code, 0, 0.0)
    assert r.FIRST_RETRY_S / 2 <= wait_s <= r.LAST_AFTER_NO_S
