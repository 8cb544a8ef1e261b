import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import URL

from trunkline.errors import StoreError
from trunkline.ports import Claimed, Conflict, Known
from trunkline.store.engine import Database, database_url
from trunkline.store.orders import KEPT_FOR, SWEEP_EVERY, OrderKeys
from trunkline.testing.clock import ManualClock
from trunkline.types import CallId, TenantId

A, B = TenantId("a"), TenantId("b")
ONE, TWO = CallId("call_1"), CallId("call_2")


def run(url: URL, scenario: Callable[[Database, ManualClock], Awaitable[None]]) -> None:
    async def whole() -> None:
        database = Database(url)
        await database.upgrade()
        try:
            await scenario(database, ManualClock())
        finally:
            await database.close()

    asyncio.run(whole())


async def count(database: Database) -> int:
    async with database.read() as connection:
        return int((await connection.execute(text("SELECT count(*) FROM idempotency_keys"))).scalar_one())


def test_an_order_is_taken_once_and_its_repeats_get_the_same_call(url: URL) -> None:
    async def scenario(database: Database, clock: ManualClock) -> None:
        keys = OrderKeys(database, clock, worker="w0")
        assert await keys.claim(A, "k", "f", ONE) == Claimed()
        assert await keys.claim(A, "k", "f", TWO) == Known(ONE, ours=True)
        assert await keys.claim(A, "other", "f", TWO) == Claimed()

    run(url, scenario)


def test_a_key_of_another_order_is_a_conflict(url: URL) -> None:
    async def scenario(database: Database, clock: ManualClock) -> None:
        keys = OrderKeys(database, clock, worker="w0")
        await keys.claim(A, "k", "f", ONE)
        assert await keys.claim(A, "k", "g", TWO) == Conflict()
        assert await keys.claim(A, "k", "f", TWO) == Known(ONE, ours=True)

    run(url, scenario)


def test_keys_are_a_tenants_own(url: URL) -> None:
    async def scenario(database: Database, clock: ManualClock) -> None:
        keys = OrderKeys(database, clock, worker="w0")
        await keys.claim(A, "k", "f", ONE)
        assert await keys.claim(B, "k", "g", TWO) == Claimed()
        await keys.release(B, "k", ONE)
        await keys.release(B, "k", TWO)
        assert await keys.claim(A, "k", "f", TWO) == Known(ONE, ours=True)

    run(url, scenario)


def test_an_order_of_which_nothing_came_may_be_given_again(url: URL) -> None:
    async def scenario(database: Database, clock: ManualClock) -> None:
        keys = OrderKeys(database, clock, worker="w0")
        await keys.claim(A, "k", "f", ONE)
        await keys.release(A, "k", TWO)  # not that call's
        assert await keys.claim(A, "k", "f", TWO) == Known(ONE, ours=True)
        await keys.release(A, "k", ONE)
        assert await keys.claim(A, "k", "g", TWO) == Claimed()
        await keys.release(A, "nobody's", ONE)

    run(url, scenario)


def test_a_key_is_kept_for_a_day(url: URL) -> None:
    async def scenario(database: Database, clock: ManualClock) -> None:
        keys = OrderKeys(database, clock, worker="w0")
        await keys.claim(A, "k", "f", ONE)
        clock.advance((KEPT_FOR - timedelta(seconds=1)).total_seconds())
        assert await keys.claim(A, "k", "f", TWO) == Known(ONE, ours=True)
        clock.advance(1)
        assert await keys.claim(A, "k", "g", TWO) == Claimed()
        assert await keys.claim(A, "k", "g", ONE) == Known(TWO, ours=True)

    run(url, scenario)


def test_expired_keys_do_not_pile_up(url: URL) -> None:
    async def scenario(database: Database, clock: ManualClock) -> None:
        keys = OrderKeys(database, clock, worker="w0")
        for number in range(5):
            await keys.claim(A, f"k{number}", "f", ONE)
        clock.advance((KEPT_FOR + SWEEP_EVERY).total_seconds())
        await keys.claim(A, "new", "f", TWO)
        assert await count(database) == 1

    run(url, scenario)


def test_of_many_who_claim_at_once_one_gets_it(url: URL) -> None:
    async def scenario(database: Database, clock: ManualClock) -> None:
        other = Database(url)
        await other.upgrade()
        workers = [OrderKeys(database, clock, worker="w0"), OrderKeys(other, clock, worker="w1")]
        claims = [workers[n % 2].claim(A, "k", "f", CallId(f"call_{n}")) for n in range(10)]
        found = await asyncio.gather(*claims)
        await other.close()
        assert found.count(Claimed()) == 1
        winner = found.index(Claimed())
        for n, result in enumerate(found):
            if n != winner:
                assert result == Known(CallId(f"call_{winner}"), ours=n % 2 == winner % 2)

    run(url, scenario)


def test_a_claim_outlives_the_process(url: URL) -> None:
    async def scenario(database: Database, clock: ManualClock) -> None:
        await OrderKeys(database, clock, worker="w0").claim(A, "k", "f", ONE)
        again = Database(url)
        await again.upgrade()
        assert await OrderKeys(again, clock, worker="w0").claim(A, "k", "f", TWO) == Known(ONE, ours=True)
        await again.close()

    run(url, scenario)


def test_without_the_database_no_order_is_taken(tmp_path: Path) -> None:
    async def scenario() -> None:
        database = Database(database_url(None, tmp_path))  # not upgraded: away
        keys = OrderKeys(database, ManualClock(), worker="w0")
        with pytest.raises(StoreError, match="the database is away"):
            await keys.claim(A, "k", "f", ONE)
        with pytest.raises(StoreError, match="the database is away"):
            await keys.release(A, "k", ONE)
        await database.close()

    asyncio.run(scenario())
