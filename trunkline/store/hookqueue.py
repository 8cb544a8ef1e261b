"""Deliveries that are due: leased by whoever sends them, settled by what came of it. Shared by all processes.

    waiting ── claim (lease, LEASE_S) ──► sent ── settle ──► delivered | waiting, later | dead
                        ▲                   │
                        └── the lease ends ─┘  its process died: sent again, with the same id; at once where
                                               the process that comes after it, by the same name, begins

Of one call and endpoint, an event is not claimed before an earlier one had its first attempt; what has to be tried
again may be overtaken.

The order of locks is endpoint, then deliveries.
"""

import asyncio
import random
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import and_, delete, exists, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from trunkline.clock import Clock
from trunkline.errors import StoreError
from trunkline.hooks import Attempt, Backlog, Due, Endpoint, Settled
from trunkline.privacy.texts import TextSeal
from trunkline.store.engine import Database
from trunkline.store.hookspool import endpoint_of
from trunkline.store.sealing import DELIVERIES, ENDPOINTS, Row, opened_value

LEASE_S = 30.0
KEPT_FOR = timedelta(days=7)
DEAD_KEPT_FOR = timedelta(days=30)
DISABLED = "its endpoint was disabled"

_ON_ENDPOINT = and_(DELIVERIES.c.tenant_id == ENDPOINTS.c.tenant_id, DELIVERIES.c.endpoint_id == ENDPOINTS.c.id)
_ORDERED = (DELIVERIES.c.id, DELIVERIES.c.call_id, DELIVERIES.c.at, DELIVERIES.c.position)
_LAST = (datetime.max.replace(tzinfo=UTC), 0)
_LOOKED_AT = 64
"""Of what is due at an endpoint, at once: some may have to wait for an earlier event of their call."""


class HookQueue:
    """`hooks.Queue`."""

    def __init__(self, database: Database, clock: Clock, *, worker: str = "0", seal: TextSeal | None = None) -> None:
        """`worker`: of those that share the database, each has its own name. `seal`: of the secrets, where it is not
        the database's."""
        self._seal = seal or database.seal
        self._database, self._clock, self._ours = database, clock, f"{worker}:"
        self._have_begun, self._beginning = False, asyncio.Lock()

    async def _begin(self) -> None:
        """What our process before this one had leased is due: it is dead."""
        theirs = (DELIVERIES.c.state == "waiting", DELIVERIES.c.lease.startswith(self._ours, autoescape=True))
        async with self._beginning:
            if self._have_begun:
                return
            due: Row = {"lease": None, "next_at": self._clock.wall()}
            async with self._database.writing() as connection:
                await connection.execute(update(DELIVERIES).where(*theirs).values(due))
            self._have_begun = True

    async def claim(self, room: Callable[[Endpoint], int], most: int) -> Sequence[Due]:
        await self._begin()
        now = self._clock.wall()
        due = (_ON_ENDPOINT, DELIVERIES.c.state == "waiting", DELIVERIES.c.next_at <= now)
        async with self._database.read() as connection:
            rows = await connection.execute(
                select(ENDPOINTS).where(ENDPOINTS.c.enabled, exists().where(*due).correlate(ENDPOINTS))
            )
            endpoints = [row for row in rows.all() if room(endpoint_of(row)) > 0]
        random.shuffle(endpoints)  # where there is not room for all, nobody comes last each time
        if not endpoints or most <= 0:
            return ()
        lease, claimed = self._ours + secrets.token_hex(8), list[tuple[Any, Row]]()
        async with self._database.writing() as connection:
            for row in endpoints:
                left = min(room(endpoint_of(row)), most - len(claimed))
                if left > 0:
                    claimed += [(row, found) for found in await self._lease(connection, row, now, left, lease)]
        return await asyncio.to_thread(lambda: [self._opened(row, found, lease, now) for row, found in claimed])

    async def _lease(
        self, connection: AsyncConnection, endpoint: Any, now: datetime, most: int, lease: str
    ) -> list[Row]:
        mine = (DELIVERIES.c.tenant_id == endpoint.tenant_id, DELIVERIES.c.endpoint_id == endpoint.id)
        due = (*mine, DELIVERIES.c.state == "waiting", DELIVERIES.c.next_at <= now)
        order = (DELIVERIES.c.next_at, DELIVERIES.c.at, DELIVERIES.c.position)
        looked = await connection.execute(select(*_ORDERED).where(*due).order_by(*order).limit(_LOOKED_AT))
        candidates = looked.all()
        # Two plain look-ups: an anti-join is a matter of statistics, which a new table has none of.
        calls = sorted({row.call_id for row in candidates if row.call_id is not None})
        untried = (DELIVERIES.c.state == "waiting", DELIVERIES.c.attempts == 0, DELIVERIES.c.call_id.in_(calls))
        first: dict[str, tuple[datetime, int]] = {}
        for row in await connection.execute(select(*_ORDERED).where(*mine, *untried)) if calls else ():
            here = (row.at, row.position)
            first[row.call_id] = min(here, first.get(row.call_id, here))
        free = [row.id for row in candidates if (row.at, row.position) <= first.get(row.call_id, _LAST)]
        found = await connection.execute(
            select(DELIVERIES)
            .where(*due, DELIVERIES.c.id.in_(free[:most]))
            .order_by(*order)
            .with_for_update(skip_locked=True)
        )
        rows = [dict(row) for row in found.mappings()]
        if rows:
            await connection.execute(
                update(DELIVERIES)
                .where(*mine, DELIVERIES.c.id.in_([row["id"] for row in rows]))
                .values(lease=lease, next_at=now + timedelta(seconds=LEASE_S))
            )
        return rows

    def _opened(self, endpoint: Any, row: Row, lease: str, now: datetime) -> Due:
        """In a thread: a key may have to be asked for."""
        try:
            body = str(opened_value(self._database.seal, DELIVERIES, "body", row)).encode()
            keys, locked = opened_secrets(self._seal, endpoint._mapping, now), ""
        except StoreError as error:
            body, keys, locked = b"", (), str(error)
        return Due(endpoint_of(endpoint), row["id"], row["attempts"], lease, body, keys, locked)

    async def settle(self, due: Due, attempt: Attempt, settled: Settled) -> None:
        endpoint, now = due.endpoint, self._clock.wall()
        mine = (DELIVERIES.c.tenant_id == endpoint.tenant, DELIVERIES.c.endpoint_id == endpoint.id)
        async with self._database.writing() as connection:
            if settled.failing_since is not None or endpoint.failing_since is not None:
                await self._note_failing(connection, endpoint, settled)
            await connection.execute(
                update(DELIVERIES)
                .where(*mine, DELIVERIES.c.id == due.id, DELIVERIES.c.lease == due.lease)
                .values(
                    state=settled.state,
                    next_at=settled.next_at or now,
                    lease=None,
                    attempts=due.attempts + 1,
                    last_status=attempt.status,
                    last_error=attempt.error or None,
                    last_at=now,
                )
            )
            if settled.disabled_why:
                await let_die(connection, endpoint.tenant, endpoint.id)

    async def _note_failing(self, connection: AsyncConnection, endpoint: Endpoint, settled: Settled) -> None:
        values: Row = {"failing_since": settled.failing_since, "failed_at": settled.failed_at}
        if settled.disabled_why:
            values |= {
                "enabled": False,
                "disabled_why": settled.disabled_why,
                "version": ENDPOINTS.c.version + 1,
            }
        mine = (ENDPOINTS.c.tenant_id == endpoint.tenant, ENDPOINTS.c.id == endpoint.id)
        await connection.execute(update(ENDPOINTS).where(*mine).values(values))

    async def backlog(self) -> Backlog:
        async with self._database.read() as connection:
            waiting = DELIVERIES.c.state == "waiting"
            found = await connection.execute(select(func.count(), func.min(DELIVERIES.c.created_at)).where(waiting))
            count, oldest = found.one()
        return Backlog(count, oldest)


def opened_secrets(seal: TextSeal | None, endpoint: Any, now: datetime) -> tuple[str, ...]:
    """Blocking, perhaps. Raises StoreError, naming the key."""
    keys = [opened_value(seal, ENDPOINTS, "secret", endpoint)]
    until = endpoint["previous_until"]
    if endpoint["previous_secret"] is not None and until is not None and now < until:
        keys.append(opened_value(seal, ENDPOINTS, "previous_secret", endpoint))
    return tuple(keys)


async def let_die(connection: AsyncConnection, tenant: str, endpoint_id: str) -> None:
    """What waits for an endpoint that gets nothing more."""
    mine = (DELIVERIES.c.tenant_id == tenant, DELIVERIES.c.endpoint_id == endpoint_id)
    await connection.execute(
        update(DELIVERIES)
        .where(*mine, DELIVERIES.c.state == "waiting")
        .values(state="dead", lease=None, last_error=func.coalesce(DELIVERIES.c.last_error, DISABLED))
    )


async def purge_deliveries(database: Database, now: datetime, days: int | None) -> int:
    """What was delivered a week ago, or is dead for a month, or older than `days`."""
    old = or_(
        and_(DELIVERIES.c.state == "delivered", DELIVERIES.c.created_at < now - KEPT_FOR),
        and_(DELIVERIES.c.state == "dead", DELIVERIES.c.created_at < now - DEAD_KEPT_FOR),
        *(() if days is None else (DELIVERIES.c.created_at < now - timedelta(days=days),)),
    )
    async with database.writing() as connection:
        gone = await connection.execute(delete(DELIVERIES).where(old))
    return gone.rowcount
