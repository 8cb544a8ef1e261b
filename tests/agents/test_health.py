"""The circuit breaker and the order of choice, on a clock of numbers."""

from trunkline.agents.health import Breaker, BreakerTerms, Health
from trunkline.errors import ProviderError

DOWN = ProviderError("llm", "unavailable", retryable=True)
KEY_REFUSED = ProviderError("llm", "auth", retryable=False)
QUOTA = ProviderError("llm", "rate_limited", "quota used up", retryable=False)
BUSY = ProviderError("llm", "rate_limited", retryable=True)
TERMS = BreakerTerms(failures=3, probe_after_s=5, probe_max_s=15)


def failed(times: int, error: ProviderError = DOWN, now: float = 0.0) -> Breaker:
    breaker = Breaker(TERMS)
    for _ in range(times):
        breaker.failed(error, now)
    return breaker


def test_it_opens_after_so_many_failures_in_a_row_and_not_before() -> None:
    assert failed(2).state == "closed"
    assert failed(3).state == "open"


def test_a_success_between_begins_the_row_anew() -> None:
    breaker = failed(2)
    breaker.succeeded()
    breaker.failed(DOWN, 0)
    breaker.failed(DOWN, 0)
    assert breaker.state == "closed"
    assert (breaker.successes, breaker.failures) == (1, 4)


def test_a_refused_key_or_a_used_up_quota_opens_it_at_once_a_busy_server_does_not() -> None:
    assert failed(1, KEY_REFUSED).state == "open"
    assert failed(1, QUOTA).state == "open"
    assert failed(1, BUSY).state == "closed"


def test_one_probe_is_sent_when_its_time_is_over_and_closes_it() -> None:
    breaker = failed(3)
    assert not breaker.ready(4.9)
    assert breaker.ready(5.0)
    breaker.asked(5.0)
    assert breaker.state == "half_open"
    assert not breaker.ready(5.1), "one probe at a time"
    breaker.succeeded()
    assert breaker.ready(5.2)
    assert breaker.in_a_row == 0


def test_each_probe_that_fails_doubles_the_wait_up_to_the_cap() -> None:
    breaker, now, waits = failed(3), 0.0, []
    for _ in range(4):
        waits.append(breaker.probe_at - now)
        now = breaker.probe_at
        breaker.asked(now)
        breaker.failed(DOWN, now)
    assert waits == [5, 10, 15, 15]
    assert breaker.opened == 1


def test_being_asked_for_want_of_another_is_no_probe() -> None:
    breaker = failed(3)
    breaker.asked(1.0)
    breaker.failed(DOWN, 1.0)
    assert (breaker.state, breaker.probe_at) == ("open", 5.0)


def test_a_probe_that_was_never_heard_of_again_leaves_room_for_another() -> None:
    breaker = failed(3)
    breaker.asked(5.0)
    assert not breaker.ready(34.9)
    assert breaker.ready(35.0)


def test_the_order_is_the_files_with_the_open_ones_behind() -> None:
    health = Health(TERMS)
    keys = ["llm.a", "llm.b", "llm.c"]
    assert health.order(keys, 0) == keys
    health.failed("llm.a", KEY_REFUSED, 0)
    assert health.order(keys, 1) == ["llm.b", "llm.c", "llm.a"]
    assert health.order(keys, 5) == keys, "due for a probe"


def test_with_all_open_nobody_is_refused_and_the_first_due_is_first() -> None:
    health = Health(TERMS)
    health.failed("llm.a", KEY_REFUSED, 3)
    health.failed("llm.b", KEY_REFUSED, 1)
    assert health.order(["llm.a", "llm.b"], 4) == ["llm.b", "llm.a"]


def test_the_report_is_a_row_for_each() -> None:
    health = Health(TERMS)
    health.failed("llm.a", KEY_REFUSED, 3)
    health.succeeded("tts.b")
    rows = health.report(4)
    assert [(row["provider"], row["state"], row["probe_in_s"]) for row in rows] == [
        ("llm.a", "open", 4),
        ("tts.b", "closed", None),
    ]
