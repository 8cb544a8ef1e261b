"""What all processes together have taken of budgets: one suite over SQLite, PostgreSQL when TRUNKLINE_TEST_DATABASE_URL
names a server, and Redis when TRUNKLINE_TEST_REDIS_URL names one (it is emptied)."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from pathlib import Path

import pytest

from tests.store.conftest import new_database
from tests.store.spender import DAY_USD, MINUTE_USD, opened
from trunkline.errors import StoreError
from trunkline.ports import Budgets, Share
from trunkline.store.budgets import DatabaseBudgets
from trunkline.store.engine import Database, database_url
from trunkline.testing.clock import ManualClock
from trunkline.types import TenantId

REDIS = os.environ.get("TRUNKLINE_TEST_REDIS_URL")
ROOT = Path(__file__).parents[2]
TENANT, OTHERS = TenantId("default"), TenantId("others")
DAY, NEXT_DAY = "tenant:default:2026-11-28", "tenant:default:2026-11-29"
SHARE = Share(400, 1000)


class Shop:
    """A store that processes share."""

    def __init__(self, url: str) -> None:
        self.url = url

    def process(self) -> AbstractAsyncContextManager[Budgets]:
        return opened(self.url)


@pytest.fixture(params=["sqlite", "postgresql", "redis"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """A new, empty one."""
    if request.param != "redis":
        with new_database(request.param, tmp_path) as url:
            yield Shop(url.render_as_string(hide_password=False))
        return
    if not REDIS:
        pytest.skip("TRUNKLINE_TEST_REDIS_URL is not set")
    asyncio.run(_empty(REDIS))
    yield Shop(REDIS)


async def _empty(url: str) -> None:
    from redis.asyncio import Redis

    redis = Redis.from_url(url)
    await redis.flushdb()
    await redis.aclose()


def test_a_budget_is_taken_to_the_last_and_no_further(shop: Shop) -> None:
    async def scenario() -> None:
        async with shop.process() as one, shop.process() as other:
            assert await one.take(TENANT, DAY, SHARE) == 400
            assert await other.take(TENANT, DAY, SHARE) == 400
            assert await one.take(TENANT, DAY, Share(400, 1000, 400)) == 200
            assert await other.take(TENANT, DAY, Share(400, 1000, 400)) == 0
            assert await one.take(TENANT, NEXT_DAY, SHARE) == 400
            assert await one.take(OTHERS, DAY, SHARE) == 400

    asyncio.run(scenario())


def test_who_ask_at_the_same_time_are_not_given_the_same(shop: Shop) -> None:
    async def scenario() -> None:
        async with shop.process() as a, shop.process() as b, shop.process() as c, shop.process() as d:
            given = await asyncio.gather(*(each.take(TENANT, DAY, SHARE) for each in (a, b, c, d)))
            assert sorted(given) == [0, 200, 400, 400]

    asyncio.run(scenario())


def test_what_is_given_back_is_there_for_others(shop: Shop) -> None:
    async def scenario() -> None:
        async with shop.process() as one, shop.process() as other:
            assert await one.take(TENANT, DAY, SHARE) == 400
            await one.give_back(TENANT, DAY, 300)
            assert await other.take(TENANT, DAY, Share(2000, 1000)) == 900

    asyncio.run(scenario())


def test_what_a_redis_that_hung_is_asked_twice_to_take_back_it_takes_once(shop: Shop) -> None:
    async def scenario() -> None:
        async with shop.process() as one, shop.process() as other:
            assert await one.take(TENANT, DAY, SHARE) == 400
            for _ in range(2):
                await one.give_back(TENANT, DAY, 300)
            assert await other.take(TENANT, DAY, Share(2000, 1000)) == 900

    if not shop.url.startswith("redis"):
        pytest.skip("a database is asked once")
    asyncio.run(scenario())


def test_what_was_spent_beyond_it_is_nobodys(shop: Shop) -> None:
    async def scenario() -> None:
        async with shop.process() as one, shop.process() as other:
            assert await one.take(TENANT, DAY, SHARE) == 400
            await one.give_back(TENANT, DAY, -500)
            assert await other.take(TENANT, DAY, SHARE) == 100

    asyncio.run(scenario())


def test_a_limit_that_was_lowered_gives_nothing_and_takes_nothing_away(shop: Shop) -> None:
    async def scenario() -> None:
        async with shop.process() as one:
            assert await one.take(TENANT, DAY, SHARE) == 400
            assert await one.take(TENANT, DAY, Share(100, 300, 400)) == 0
            assert await one.take(TENANT, DAY, Share(100, 500, 400)) == 100

    asyncio.run(scenario())


def test_the_budgets_of_large_companies_are_counted_to_the_nanodollar(shop: Shop) -> None:
    async def scenario() -> None:
        async with shop.process() as one, shop.process() as other:
            million = 10**15
            assert await one.take(TENANT, DAY, Share(million - 1, million)) == million - 1
            assert await other.take(TENANT, DAY, Share(50, million)) == 1

    asyncio.run(scenario())


def test_two_processes_spend_one_budget(shop: Shop) -> None:
    """To the last minute, but for what lies in the other's slice."""
    asyncio.run(_prepare(shop))
    command = [sys.executable, "-m", "tests.store.spender", shop.url]
    pipe = subprocess.PIPE
    spenders = [subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    try:
        assert answers(spenders) == ["ready", "ready"]
        spent = [Decimal(answer) for answer in answers(spenders, go=True)]
        assert answers(spenders, go=True) == ["over", "over"]
    finally:
        for spender in spenders:
            spender.kill()
            spender.communicate()
    assert min(spent) > 0
    assert DAY_USD - 2 * MINUTE_USD < sum(spent) <= DAY_USD

    async def left() -> int:
        async with shop.process() as third:
            return await third.take(TENANT, "tenant:default:2026-11-22", Share(10**10, int(DAY_USD * 10**9)))

    assert asyncio.run(left()) == int((DAY_USD - sum(spent)) * 10**9)


async def _prepare(shop: Shop) -> None:
    async with shop.process():
        pass


def answers(spenders: "list[subprocess.Popen[str]]", *, go: bool = False) -> list[str]:
    """The next line of each; `go`: once all were told to."""
    for spender in spenders if go else ():
        assert spender.stdin is not None
        spender.stdin.write("\n")
        spender.stdin.flush()
    return [spender.stdout.readline().strip() for spender in spenders if spender.stdout is not None]


only_redis = pytest.mark.parametrize("shop", ["redis"], indirect=True)


@only_redis
def test_what_is_asked_again_because_no_answer_came_is_given_once(shop: Shop) -> None:
    async def scenario() -> None:
        async with shop.process() as one, shop.process() as other:
            for _ in range(5):
                assert await one.take(TENANT, DAY, SHARE) == 400
            assert await one.take(TENANT, DAY, Share(500, 1000)) == 500  # it needs more by now
            assert await other.take(TENANT, DAY, SHARE) == 400

    asyncio.run(scenario())


@only_redis
def test_a_redis_that_has_forgotten_learns_from_each_process_what_it_has(shop: Shop) -> None:
    async def scenario() -> None:
        async with shop.process() as one, shop.process() as other:
            assert await one.take(TENANT, DAY, SHARE) == 400
            assert await other.take(TENANT, DAY, SHARE) == 400
            await _empty(shop.url)
            assert await one.take(TENANT, DAY, Share(100, 1000, 400)) == 100
            assert await other.take(TENANT, DAY, Share(400, 1000, 400)) == 100

    asyncio.run(scenario())


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "postgresql://nobody@127.0.0.1:1/none"])
def test_a_store_that_is_away_says_so(url: str) -> None:
    async def scenario() -> None:
        budgets: Budgets
        if url.startswith("redis"):
            redis = pytest.importorskip("trunkline.store.redis")
            budgets = redis.RedisBudgets(url)
        else:
            budgets = DatabaseBudgets(Database(database_url(url, Path())), ManualClock())
        with pytest.raises(StoreError, match="budgets: "):
            await budgets.take(TENANT, DAY, SHARE)
        with pytest.raises(StoreError, match="budgets: "):
            await budgets.give_back(TENANT, DAY, 1)

    asyncio.run(scenario())
