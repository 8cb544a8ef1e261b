from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from trunkline.gateway.hooks.schedule import GIVE_UP_AFTER, RETRY_S, pause_s, settle
from trunkline.hooks import Attempt, Endpoint, Settled
from trunkline.types import TenantId

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
ENDPOINT = Endpoint(TenantId("default"), "wh_1", "https://example.com/", (), True, False, NOW, 1)
FAILED = Attempt(500, "status 500")


def after(endpoint: Endpoint, settled: Settled) -> Endpoint:
    return replace(endpoint, failing_since=settled.failing_since, failed_at=settled.failed_at)


def test_a_delivery_that_fails_is_tried_ten_times_over_two_days_and_is_dead_then() -> None:
    endpoint, now, pauses = ENDPOINT, NOW, []
    for attempts in count(1):
        settled = settle(endpoint, attempts, FAILED, now, 0.5)
        if settled.state == "dead":
            break
        assert settled.next_at is not None
        pauses.append((settled.next_at - now).total_seconds())
        endpoint, now = after(endpoint, settled), settled.next_at
    assert pauses == [5, 30, 120, 600, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 24 * 3600]
    assert attempts == 10
    assert settled.disabled_why == ""
    assert timedelta(hours=46) < now - NOW < timedelta(hours=47)


@pytest.mark.parametrize(("roll", "share"), [(0.0, 0.8), (0.5, 1.0), (1.0, 1.2)])
def test_a_pause_is_a_fifth_shorter_or_longer(roll: float, share: float) -> None:
    assert [pause_s(n, roll) for n in range(1, 10)] == pytest.approx([share * seconds for seconds in RETRY_S])
    assert pause_s(10, roll) is None


def test_any_2xx_is_delivered_and_the_endpoint_fails_no_more() -> None:
    failing = replace(ENDPOINT, failing_since=NOW, failed_at=NOW)
    for status in (200, 202, 204, 299):
        assert settle(failing, 3, Attempt(status), NOW, 0.5) == Settled("delivered")
    assert settle(failing, 3, Attempt(302, "status 302"), NOW, 0.5).state == "waiting"


def test_who_asks_for_patience_has_up_to_an_hour() -> None:
    for asked, given in ((3.0, 5.0), (60.0, 60.0), (86_400.0, 3600.0)):
        settled = settle(ENDPOINT, 1, Attempt(429, "status 429", asked), NOW, 0.5)
        assert settled.next_at == NOW + timedelta(seconds=given)


def test_gone_is_gone() -> None:
    settled = settle(ENDPOINT, 1, Attempt(410, "status 410"), NOW, 0.5)
    assert (settled.state, settled.next_at) == ("dead", None)
    assert "410" in settled.disabled_why


def test_an_endpoint_that_fails_for_days_is_disabled() -> None:
    failing = replace(ENDPOINT, failing_since=NOW - GIVE_UP_AFTER + timedelta(seconds=1), failed_at=NOW)
    assert settle(failing, 1, FAILED, NOW, 0.5).disabled_why == ""
    settled = settle(failing, 1, FAILED, NOW + timedelta(seconds=1), 0.5)
    assert settled.state == "dead"
    assert settled.disabled_why == "nothing was delivered since 2026-11-25T12:00:01+00:00; at last: status 500"


def test_a_failure_after_a_long_quiet_is_the_first() -> None:
    long_ago = NOW - timedelta(days=30)
    failing = replace(ENDPOINT, failing_since=long_ago, failed_at=long_ago)
    settled = settle(failing, 1, FAILED, NOW, 0.5)
    assert (settled.state, settled.failing_since, settled.disabled_why) == ("waiting", NOW, "")
