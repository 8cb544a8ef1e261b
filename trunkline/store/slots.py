"""Slots that live calls hold, of all processes, in the database. A lease that is over is nobody's; hosts' clocks are
taken to differ by less than it lasts."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import cast

from sqlalchemy import Table, delete, func, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from trunkline.clock import Clock
from trunkline.store import models
from trunkline.store.engine import Database
from trunkline.types import TenantId

_SLOTS = cast(Table, models.Slot.__table__)
_ONE_BY_ONE = text("SELECT pg_advisory_xact_lock(hashtext(:key))")


class DatabaseSlots:
    """`ports.SlotStore`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    async def take(self, tenant: TenantId, name: str, scopes: Mapping[str, int], lease_s: float) -> str | None:
        now = self._clock.wall()
        async with self._database.writing() as connection:
            if connection.dialect.name == "postgresql":  # SQLite has one writer at a time anyway
                await connection.execute(_ONE_BY_ONE, {"key": f"trunkline slots {tenant}"})
            await connection.execute(delete(_SLOTS).where(_SLOTS.c.tenant_id == tenant, _SLOTS.c.until <= now))
            for scope, most in scopes.items():
                others = select(func.count()).where(
                    _SLOTS.c.tenant_id == tenant, _SLOTS.c.scope == scope, _SLOTS.c.name != name
                )
                if (await connection.execute(others)).scalar_one() >= most:
                    return scope
            await self._put(connection, tenant, {name: list(scopes)}, lease_s)
        return None

    async def renew(self, tenant: TenantId, held: Mapping[str, Sequence[str]], lease_s: float) -> None:
        async with self._database.writing() as connection:
            await self._put(connection, tenant, held, lease_s)

    async def give_back(self, tenant: TenantId, names: Sequence[str]) -> None:
        async with self._database.writing() as connection:
            await connection.execute(delete(_SLOTS).where(_SLOTS.c.tenant_id == tenant, _SLOTS.c.name.in_(names)))

    async def _put(
        self, connection: AsyncConnection, tenant: TenantId, held: Mapping[str, Sequence[str]], lease_s: float
    ) -> None:
        until = self._clock.wall() + timedelta(seconds=lease_s)
        rows = [
            {"tenant_id": tenant, "scope": scope, "name": name, "until": until}
            for name, scopes in held.items()
            for scope in scopes
        ]
        if not rows:
            return
        insert = (postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert)(_SLOTS)
        await connection.execute(
            insert.on_conflict_do_update(
                index_elements=["tenant_id", "scope", "name"], set_={"until": insert.excluded.until}
            ),
            rows,
        )
