"""Idempotency keys: which orders were taken, and the call each became. Durable before anything is dialled.

A key is inserted in a transaction of its own, not through the spool: that two processes cannot both take an order is
the database's to say. It is kept for KEPT_FOR, beyond which nobody repeats an order.
"""

import logging
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import Table, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from trunkline.clock import Clock
from trunkline.errors import StoreError
from trunkline.ports import Claimed, Conflict, Known
from trunkline.store import models
from trunkline.store.engine import Database, is_database, what_failed
from trunkline.types import CallId, TenantId

log = logging.getLogger(__name__)

KEPT_FOR = timedelta(hours=24)
SWEEP_EVERY = timedelta(hours=1)

_KEYS = cast(Table, models.IdempotencyKey.__table__)


class OrderKeys:
    """`ports.Orders`."""

    def __init__(self, database: Database, clock: Clock, *, worker: str) -> None:
        self._database, self._clock, self._worker = database, clock, worker
        self._insert = postgresql.insert if database.dialect == "postgresql" else sqlite.insert
        self._swept_at: datetime | None = None

    async def claim(self, tenant: TenantId, key: str, fingerprint: str, call_id: CallId) -> Claimed | Known | Conflict:
        now = self._clock.wall()
        await self._sweep(now)
        try:
            while True:
                async with self._database.write() as connection:
                    found = await self._claim(connection, tenant, key, fingerprint, call_id, now)
                if found is not None:
                    return found
        except Exception as error:
            raise _away(error) from error

    async def _claim(
        self, connection: AsyncConnection, tenant: TenantId, key: str, fingerprint: str, call_id: CallId, now: datetime
    ) -> Claimed | Known | Conflict | None:
        """None: it was released or has expired between the two looks."""
        mine = (_KEYS.c.tenant_id == tenant, _KEYS.c.key == key)
        await connection.execute(delete(_KEYS).where(*mine, _KEYS.c.expires_at <= now))
        row = {
            "tenant_id": tenant,
            "key": key,
            "fingerprint": fingerprint,
            "call_id": call_id,
            "worker": self._worker,
            "expires_at": now + KEPT_FOR,
        }
        inserted = await connection.execute(self._insert(_KEYS).values(row).on_conflict_do_nothing())
        if inserted.rowcount == 1:
            return Claimed()
        taken = (await connection.execute(select(_KEYS).where(*mine))).one_or_none()
        if taken is None:
            return None
        if taken.fingerprint != fingerprint:
            return Conflict()
        return Known(CallId(taken.call_id), ours=taken.worker == self._worker)

    async def release(self, tenant: TenantId, key: str, call_id: CallId) -> None:
        mine = (_KEYS.c.tenant_id == tenant, _KEYS.c.key == key, _KEYS.c.call_id == call_id)
        try:
            async with self._database.write() as connection:
                await connection.execute(delete(_KEYS).where(*mine))
        except Exception as error:
            raise _away(error) from error

    async def _sweep(self, now: datetime) -> None:
        """In a transaction of its own: what fails here (two workers that sweep at once) is tried again next hour."""
        if self._swept_at is not None and now - self._swept_at < SWEEP_EVERY:
            return
        self._swept_at = now
        try:
            async with self._database.write() as connection:
                await connection.execute(delete(_KEYS).where(_KEYS.c.expires_at <= now))
        except Exception as error:
            if not is_database(error):
                raise
            log.warning("expired idempotency keys are still there: %s", what_failed(error))


def _away(error: Exception) -> Exception:
    return StoreError(f"the database is away ({what_failed(error)})") if is_database(error) else error
