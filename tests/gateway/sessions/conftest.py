"""Every store's tests run on memory, and on Redis when TRUNKLINE_TEST_REDIS_URL names one to use (it is emptied)."""

import asyncio
import os
from collections.abc import Awaitable, Callable

import pytest

from trunkline.gateway.sessions.memory import MemorySessions
from trunkline.gateway.sessions.store import SessionStore
from trunkline.privacy.sealed import KeyRing
from trunkline.privacy.texts import TextSeal
from trunkline.testing.clock import ManualClock

SERVER = os.environ.get("TRUNKLINE_TEST_REDIS_URL")
IDLE_S = 1.0

Pass = Callable[[float], Awaitable[None]]
Scenario = Callable[[SessionStore, Pass], Awaitable[None]]
RunStore = Callable[[Scenario], None]


@pytest.fixture(params=["memory", "redis", "redis-sealed"])
def run_store(request: pytest.FixtureRequest) -> RunStore:
    """Play a scenario on a new, empty store that forgets after IDLE_S; `Pass` lets time pass, there as well."""
    if request.param != "memory" and not SERVER:
        pytest.skip("TRUNKLINE_TEST_REDIS_URL is not set")

    def run(scenario: Scenario) -> None:
        if request.param == "memory":
            asyncio.run(_in_memory(scenario))
        else:
            seal = TextSeal(KeyRing({"first": bytes(32)})) if request.param == "redis-sealed" else None
            asyncio.run(_on_redis(scenario, seal))

    return run


async def _in_memory(scenario: Scenario) -> None:
    clock = ManualClock()
    store = MemorySessions(clock, idle_s=IDLE_S, at_most=100)

    async def pass_time(seconds: float) -> None:
        clock.advance(seconds)

    await scenario(store, pass_time)
    await store.close()


async def _on_redis(scenario: Scenario, seal: TextSeal | None) -> None:
    from trunkline.gateway.sessions.redis import RedisSessions

    assert SERVER is not None
    store = RedisSessions(SERVER, idle_s=IDLE_S, seal=seal)
    await store._link.redis.flushdb()

    async def pass_time(seconds: float) -> None:
        await asyncio.sleep(seconds)

    try:
        await scenario(store, pass_time)
    finally:
        await store.close()
