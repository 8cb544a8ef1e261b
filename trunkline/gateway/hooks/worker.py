"""Sends what is due: a round claims as much as there is room for, each delivery is a task of its own.

At most MOST_AT_ONCE attempts are under way, and PER_ENDPOINT to one endpoint, so a slow one holds up nobody else. What
a process that dies had claimed is due again when its lease ends; what is cut off by a stop, too.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from trunkline.clock import Clock
from trunkline.errors import StoreError
from trunkline.gateway.hooks.schedule import settle
from trunkline.hooks import Attempt, Due, Endpoint, Queue
from trunkline.metrics import Metrics
from trunkline.types import TenantId

log = logging.getLogger(__name__)

PER_ENDPOINT, MOST_AT_ONCE = 4, 32
POLL_S = 1.0
AWAY_S = 5.0
"""After a look at a database that is away."""
MEASURE_S = 10.0
LEAVE_S = 2.0
"""For attempts under way when the gateway stops."""
SETTLE_TRIES = 5

Send = Callable[[str, str, bytes, Sequence[str]], Awaitable[Attempt]]
"""URL, id, body, secrets."""


class HookWorker:
    def __init__(
        self, queue: Queue, send: Send, metrics: Metrics, clock: Clock, roll: Callable[[], float] = random.random
    ) -> None:
        self._queue, self._send, self._metrics, self._clock, self._roll = queue, send, metrics, clock, roll
        self._under_way: Counter[tuple[TenantId, str]] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._main: asyncio.Task[None] | None = None
        self._measured_at: float | None = None

    def start(self) -> None:
        self._main = asyncio.create_task(self._run(), name="webhooks")

    def wake(self) -> None:
        """Something is due, or will be once a transaction is over."""
        self._wake.set()

    async def close(self) -> None:
        while self._main is not None and not self._main.done():
            self._main.cancel()  # which a driver that is connecting may lose
            await asyncio.wait({self._main}, timeout=1.0)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=LEAVE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            pause_s = POLL_S
            self._wake.clear()
            try:
                await self.round()
                await self._measure()
            except StoreError as error:
                log.warning("webhooks wait: %s", error)
                pause_s = AWAY_S
            except Exception:
                log.exception("webhooks")
                pause_s = AWAY_S
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            # The news comes inside the transaction; and many come together.
            await asyncio.sleep(0.02)

    async def round(self) -> int:
        """Claim what is due and begin to send it. How many. Raises StoreError."""
        most = MOST_AT_ONCE - len(self._tasks)
        if most <= 0:
            return 0
        claimed = await self._queue.claim(self._room, most)
        for due in claimed:
            self._under_way[_key(due.endpoint)] += 1
            task = asyncio.create_task(self._deliver(due), name="webhook")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return len(claimed)

    def _room(self, endpoint: Endpoint) -> int:
        return PER_ENDPOINT - self._under_way[_key(endpoint)]

    async def idle(self) -> None:
        """Until nothing is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _deliver(self, due: Due) -> None:
        try:
            if due.locked:
                attempt = Attempt(error=due.locked)
            else:
                attempt = await self._send(due.endpoint.url, due.id, due.body, due.secrets)
            await self._settle(due, attempt)
        except Exception:
            log.exception("a webhook of endpoint %s", due.endpoint.id)
        finally:
            key = _key(due.endpoint)
            self._under_way[key] -= 1
            if not self._under_way[key]:
                del self._under_way[key]
            self.wake()

    async def _settle(self, due: Due, attempt: Attempt) -> None:
        settled = settle(due.endpoint, due.attempts + 1, attempt, self._clock.wall(), self._roll())
        self._metrics.hook_attempt("delivered" if attempt.is_delivered else "failed")
        if settled.state == "dead":
            self._metrics.hook_attempt("dead")
        if settled.disabled_why:
            log.error("webhook endpoint %s is disabled: %s", due.endpoint.id, settled.disabled_why)
        for tried in range(SETTLE_TRIES):
            try:
                await self._queue.settle(due, attempt, settled)
                return
            except StoreError as error:
                if tried == SETTLE_TRIES - 1:  # it is sent again when its lease ends
                    log.warning("what became of a webhook is not written: %s", error)
                await asyncio.sleep(1.0)

    async def _measure(self) -> None:
        now = self._clock.now()
        if self._measured_at is not None and now - self._measured_at < MEASURE_S:
            return
        self._measured_at = now
        backlog = await self._queue.backlog()
        age_s = 0.0 if backlog.oldest is None else (self._clock.wall() - backlog.oldest).total_seconds()
        self._metrics.hook_backlog(backlog.waiting, age_s)


def _key(endpoint: Endpoint) -> tuple[TenantId, str]:
    return endpoint.tenant, endpoint.id
