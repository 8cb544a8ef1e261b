"""The worker with the real edge and the real queue, over a database of its own."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.fakes.hook_receiver import HookReceiver
from trunkline.clock import SYSTEM_CLOCK
from trunkline.gateway.hooks.bodies import Bodies
from trunkline.gateway.hooks.sending import Sender
from trunkline.gateway.hooks.worker import MOST_AT_ONCE, PER_ENDPOINT, HookWorker
from trunkline.hooks import Delivery, Endpoint, Wanted
from trunkline.metrics import Metrics
from trunkline.privacy.calls import Policies
from trunkline.store.engine import Database, database_url
from trunkline.store.hookqueue import HookQueue
from trunkline.store.hooks import WebhookEndpoints
from trunkline.store.hookspool import HookSpool
from trunkline.testing.clock import ManualClock
from trunkline.types import TenantId

T = TenantId("default")
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass
class Room:
    """Rounds are called for, and the clock is moved, by hand."""

    database: Database
    clock: ManualClock
    hooks: HookSpool
    endpoints: WebhookEndpoints
    worker: HookWorker
    metrics: Metrics

    async def added(self, url: str) -> Endpoint:
        made = await self.endpoints.add(T, Wanted(url, ()), SECRET)
        assert made is not None
        return made

    async def happen(self, *numbers: int) -> None:
        async with self.database.writing() as connection:
            for number in numbers:
                at = self.clock.wall()
                await self.hooks.tell(connection, T, "number.changed", f"number/{number}", at, {"n": number})

    async def round(self) -> int:
        count = await self.worker.round()
        await self.worker.idle()
        return count

    async def all(self, endpoint: Endpoint) -> list[Delivery]:
        found = await self.endpoints.deliveries(T, endpoint.id, limit=100, cursor=None, state=None)
        return list(found.deliveries)

    def counted(self, result: str) -> bool:
        return f'trunkline_hook_attempts_total{{result="{result}"}} 0.0' not in self.metrics.text().decode()


@asynccontextmanager
async def opened(folder: Path, send_s: float = 1.0) -> AsyncGenerator[Room]:
    clock, database, metrics = ManualClock(), Database(database_url(None, folder)), Metrics()
    await database.upgrade()
    sender = Sender(SYSTEM_CLOCK, allow_private=True, send_s=send_s)
    worker = HookWorker(HookQueue(database, clock), sender.send, metrics, clock, lambda: 0.5)
    hooks = HookSpool(database, Bodies(Policies()), clock)
    try:
        yield Room(database, clock, hooks, WebhookEndpoints(database, clock), worker, metrics)
    finally:
        await worker.close()
        await sender.close()
        await database.close()


def run(scenario: Callable[[Room], object], folder: Path, send_s: float = 1.0) -> None:
    async def whole() -> None:
        async with opened(folder, send_s) as room:
            await scenario(room)  # type: ignore[misc]

    asyncio.run(whole())


def test_what_fails_is_sent_again_with_the_same_id_until_it_is_delivered(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        async with HookReceiver(500, "stall", "drop", 200) as receiver:
            hook = await room.added(receiver.url)
            await room.happen(1)
            for pause_s in (0, 5, 30, 120):
                room.clock.advance(pause_s - 0.1)
                assert await room.round() == 0
                room.clock.advance(0.1)
                assert await room.round() == 1
            room.clock.advance(7 * 24 * 3600)
            assert await room.round() == 0
            assert len(receiver.received) == 4
            assert len({(got.id, got.raw) for got in receiver.received}) == 1
            (found,) = await room.all(hook)
            assert (found.state, found.attempts, found.last_status, found.last_error) == ("delivered", 4, 200, None)
            assert room.counted("failed")
            assert room.counted("delivered")

    run(scenario, tmp_path, send_s=0.3)


def test_who_answers_410_gets_nothing_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(room: Room) -> None:
        async with HookReceiver(410) as receiver:
            hook = await room.added(receiver.url)
            await room.happen(1)
            await room.round()
            await room.happen(2)
            room.clock.advance(3600)
            assert await room.round() == 0
            assert len(receiver.received) == 1
            found = await room.endpoints.get(T, hook.id)
            assert found is not None
            assert not found.enabled
            assert f"{hook.id} is disabled: it answered 410" in caplog.text

    with caplog.at_level(logging.ERROR):
        run(scenario, tmp_path)


def test_an_endpoint_that_fails_for_days_is_disabled_and_what_waited_can_be_sent_again(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        async with HookReceiver(otherwise=500) as receiver:
            hook = await room.added(receiver.url)
            for hour in range(0, 80, 6):
                await room.happen(hour)
                await room.round()
                room.clock.advance(6 * 3600)
            found = await room.endpoints.get(T, hook.id)
            assert found is not None
            assert not found.enabled
            assert "nothing was delivered since" in found.disabled_why
            receiver.otherwise, before = 200, len(receiver.received)
            await room.endpoints.change(T, hook.id, Wanted(enabled=True), None)
            dead = (await room.all(hook))[0]
            assert dead.state == "dead"
            await room.endpoints.redeliver(T, hook.id, dead.id)
            assert await room.round() == 1
            assert [got.id for got in receiver.received[before:]] == [dead.id]

    run(scenario, tmp_path)


def test_a_slow_endpoint_holds_up_nobody_else(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        async with HookReceiver(otherwise="stall") as slow, HookReceiver() as quick:
            await room.added(slow.url)
            await room.added(quick.url)
            await room.happen(*range(20))
            room.worker.start()
            await quick.until(20, timeout_s=5)
            assert slow.most_at_once == len(slow.received) == PER_ENDPOINT
            assert quick.most_at_once <= PER_ENDPOINT

    run(scenario, tmp_path, send_s=30.0)


def test_no_more_are_under_way_than_there_may_be(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        async with HookReceiver(otherwise="stall") as receiver:
            for _ in range(MOST_AT_ONCE // PER_ENDPOINT + 2):
                await room.added(receiver.url)
            await room.happen(*range(PER_ENDPOINT + 1))
            for _ in range(3):
                await room.worker.round()
            assert len(room.worker._tasks) == MOST_AT_ONCE
            await room.worker.idle()
            assert receiver.most_at_once <= MOST_AT_ONCE

    run(scenario, tmp_path, send_s=0.5)


def test_who_waits_is_woken_by_what_happens(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        async with HookReceiver() as receiver:
            hook = await room.added(receiver.url)
            room.hooks.on_new = room.worker.wake
            room.worker.start()
            await asyncio.sleep(0.2)
            began = SYSTEM_CLOCK.now()
            await room.happen(1)
            await receiver.until(1)
            assert SYSTEM_CLOCK.now() - began < 0.8, "not by the poll of every second"
            while (await room.all(hook))[0].state != "delivered":
                await asyncio.sleep(0.01)

    run(scenario, tmp_path)


def test_what_cannot_be_opened_is_tried_later(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        async with HookReceiver() as receiver:
            hook = await room.added(receiver.url)
            await room.happen(1)
            claim = room.worker._queue.claim

            async def locked(*args: object) -> object:
                return [replace(due, locked="the key 'a' is needed") for due in await claim(*args)]  # type: ignore[arg-type]

            room.worker._queue.claim = locked  # type: ignore[assignment,method-assign]
            await room.round()
            (found,) = await room.all(hook)
            assert (found.state, found.last_error, receiver.received) == ("waiting", "the key 'a' is needed", [])

    run(scenario, tmp_path)


def test_the_backlog_is_measured(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        async with HookReceiver(otherwise=500) as receiver:
            await room.added(receiver.url)
            await room.happen(1, 2)
            room.clock.advance(90)
            await room.worker._measure()
            text = room.metrics.text().decode()
            assert "trunkline_hooks_waiting 2.0" in text
            assert "trunkline_hooks_oldest_seconds 90.0" in text

    run(scenario, tmp_path)
