"""Slots that all processes share: over SQLite, PostgreSQL when TRUNKLINE_TEST_DATABASE_URL names a server, and
a Redis of the test's own."""

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.e2e.redis_server import redis_server
from tests.store.conftest import new_database
from trunkline.errors import StoreError
from trunkline.ports import SlotStore
from trunkline.store.engine import Database, database_url
from trunkline.store.slots import DatabaseSlots
from trunkline.testing.clock import ManualClock
from trunkline.types import TenantId

TENANT, OTHERS = TenantId("default"), TenantId("others")
NUMBER = "number:+14155550100"
LEASE_S = 30.0
ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["sqlite", "postgresql", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Of an empty store."""
    if request.param == "redis":
        with redis_server(tmp_path) as redis:
            yield redis.url
        return
    with new_database(request.param, tmp_path) as found:
        yield found.render_as_string(hide_password=False)


@asynccontextmanager
async def process(url: str) -> AsyncGenerator[SlotStore]:
    if url.startswith("redis:"):
        from trunkline.store.redis import RedisSlots

        redis = RedisSlots(url)
        yield redis
        await redis.close()
        return
    database = Database(database_url(url, Path()))
    await database.upgrade()
    yield DatabaseSlots(database, ManualClock())
    await database.close()


def test_no_scope_has_more_than_it_may_whoever_asks(url: str) -> None:
    async def scenario() -> None:
        async with process(url) as one, process(url) as other:
            assert await one.take(TENANT, "1:a", {"tenant": 3, NUMBER: 2}, LEASE_S) is None
            assert await other.take(TENANT, "2:b", {"tenant": 3, NUMBER: 2}, LEASE_S) is None
            assert await other.take(TENANT, "2:b", {"tenant": 3, NUMBER: 2}, LEASE_S) is None  # it has it
            assert await one.take(TENANT, "1:c", {"tenant": 3, NUMBER: 2}, LEASE_S) == NUMBER
            assert await one.take(TENANT, "1:d", {"tenant": 3}, LEASE_S) is None  # c took nothing anywhere
            assert await other.take(TENANT, "2:e", {"tenant": 3}, LEASE_S) == "tenant"
            assert await other.take(OTHERS, "2:f", {"tenant": 3, NUMBER: 2}, LEASE_S) is None
            await one.give_back(TENANT, ["1:a"])
            assert await other.take(TENANT, "2:g", {"tenant": 3, NUMBER: 2}, LEASE_S) is None

    asyncio.run(scenario())


def test_who_ask_at_the_same_time_are_not_given_the_same(url: str) -> None:
    async def scenario() -> None:
        async with process(url) as a, process(url) as b, process(url) as c:
            asked = [
                each.take(TENANT, f"{i}:{n}", {"tenant": 4}, LEASE_S)
                for n in range(4)
                for i, each in enumerate((a, b, c))
            ]
            given = await asyncio.gather(*asked)
            assert given.count(None) == 4

    asyncio.run(scenario())


def test_a_lease_that_is_not_renewed_is_nobodys() -> None:
    async def scenario(url: str) -> None:
        clock = ManualClock()
        database = Database(database_url(None, Path(url)))
        await database.upgrade()
        store = DatabaseSlots(database, clock)
        await store.take(TENANT, "1:dead", {"tenant": 2}, LEASE_S)
        await store.take(TENANT, "1:live", {"tenant": 2}, LEASE_S)
        clock.advance(LEASE_S - 10)
        await store.renew(TENANT, {"1:live": ["tenant"]}, LEASE_S)
        assert await store.take(TENANT, "2:x", {"tenant": 2}, LEASE_S) == "tenant"
        clock.advance(11)
        assert await store.take(TENANT, "2:x", {"tenant": 2}, LEASE_S) is None
        assert await store.take(TENANT, "2:y", {"tenant": 2}, LEASE_S) == "tenant"
        await database.close()

    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(folder))


def test_a_lease_in_redis_ends_by_its_own_clock(tmp_path: Path) -> None:
    async def scenario(url: str) -> None:
        async with process(url) as one, process(url) as other:
            await one.take(TENANT, "1:dead", {"tenant": 2}, 0.3)
            await one.take(TENANT, "1:live", {"tenant": 2}, 0.3)
            await one.renew(TENANT, {"1:live": ["tenant"]}, LEASE_S)
            assert await other.take(TENANT, "2:x", {"tenant": 2}, LEASE_S) == "tenant"
            await asyncio.sleep(0.4)
            assert await other.take(TENANT, "2:x", {"tenant": 2}, LEASE_S) is None
            assert await other.take(TENANT, "2:y", {"tenant": 2}, LEASE_S) == "tenant"

    with redis_server(tmp_path) as redis:
        asyncio.run(scenario(redis.url))


def test_a_store_that_forgot_learns_of_live_calls_when_they_are_renewed(url: str) -> None:
    async def scenario() -> None:
        async with process(url) as one, process(url) as other:
            await one.renew(TENANT, {"1:a": ["tenant", NUMBER], "1:b": ["tenant"]}, LEASE_S)
            assert await other.take(TENANT, "2:c", {"tenant": 2}, LEASE_S) == "tenant"
            assert await other.take(TENANT, "2:c", {"tenant": 3, NUMBER: 1}, LEASE_S) == NUMBER
            await one.give_back(TENANT, ["1:a"])
            assert await other.take(TENANT, "2:c", {"tenant": 2, NUMBER: 1}, LEASE_S) is None

    asyncio.run(scenario())


@pytest.mark.parametrize("away", ["redis://127.0.0.1:1/0", "database"])
def test_a_store_that_is_away_says_so(away: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        if away == "database":
            store: SlotStore = DatabaseSlots(Database(database_url(None, tmp_path / "none")), ManualClock())
        else:
            from trunkline.store.redis import RedisSlots

            store = RedisSlots(away)
        with pytest.raises(StoreError):
            await store.take(TENANT, "1:a", {"tenant": 1}, LEASE_S)
        with pytest.raises(StoreError):
            await store.renew(TENANT, {"1:a": ["tenant"]}, LEASE_S)

    asyncio.run(scenario())


WORKER = textwrap.dedent("""
    import asyncio, sys
    from tests.store.test_slots import LEASE_S, TENANT, process

    async def main():
        async with process(sys.argv[1]) as store:
            sys.stdin.readline()
            taken = 0
            for n in range(20):
                taken += await store.take(TENANT, f"{sys.argv[2]}:{n}", {"tenant": 25}, LEASE_S) is None
            print(taken, flush=True)

    print("ready", flush=True)
    asyncio.run(main())
""")


def test_processes_share_what_there_is(url: str) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, url, str(n)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(3)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        taken = [int(worker.communicate(timeout=60)[0]) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert sum(taken) == 25
