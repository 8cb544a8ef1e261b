from tests.gateway.api.test_app import gateway
from trunkline.gateway.api.ratelimit import MOST_REMEMBERED, RateLimit


def test_a_burst_then_the_rate() -> None:
    limit = RateLimit(60, burst=3)
    assert [limit.take("ann", 0.0).allowed for _ in range(4)] == [True, True, True, False]
    refused = limit.take("ann", 0.5)
    assert (refused.allowed, refused.retry_after_s) == (False, 1)
    assert refused.headers["Retry-After"] == "1"
    assert limit.take("ann", 1.0).allowed
    assert not limit.take("ann", 1.0).allowed
    assert limit.take("bob", 1.0).allowed


def test_what_is_left_is_told() -> None:
    limit = RateLimit(60, burst=3)
    assert limit.take("ann", 0.0).headers == {
        "RateLimit-Policy": '"default";q=60;w=60',
        "RateLimit": '"default";r=2;t=0',
    }


def test_it_remembers_so_many() -> None:
    limit = RateLimit(60, burst=1)
    for each in range(MOST_REMEMBERED + 1):
        limit.take(str(each), 0.0)
    assert limit.take("0", 0.0).allowed
    assert not limit.take(str(MOST_REMEMBERED), 0.0).allowed


def test_one_principal_is_counted_and_told() -> None:
    here = gateway()
    answers = [here.client.get("/v1/providers") for _ in range(1201)]
    assert [answer.status_code for answer in answers].count(200) == 1200
    assert answers[0].headers["ratelimit"] == '"default";r=1199;t=0'
    assert (answers[-1].status_code, answers[-1].headers["retry-after"]) == (429, "1")
    assert here.client.get("/healthz").status_code == 200
