"""What all processes together have taken of budgets, in the database."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, cast

from sqlalchemy import Table, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from trunkline.clock import Clock
from trunkline.errors import StoreError
from trunkline.ports import Share
from trunkline.store import models
from trunkline.store.engine import Database, what_failed
from trunkline.store.hours import NANO
from trunkline.types import TenantId

KEPT_FOR = timedelta(days=3)  # each is of one day, and its last call may go on for a day

_BUDGETS = cast(Table, models.Budget.__table__)
_COSTS = cast(Table, models.CostRow.__table__)


class DatabaseBudgets:
    """`ports.Budgets`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._insert = postgresql.insert if database.dialect == "postgresql" else sqlite.insert

    async def take(self, tenant: TenantId, budget: str, share: Share) -> int:
        def part(taken: int) -> int:
            return max(0, min(share.nano_usd, share.limit_nano_usd - taken))

        try:
            async with self._database.write() as connection:
                taken = await self._taken(connection, tenant, budget)
                given = part(taken)
                await self._set(connection, tenant, budget, taken + given)
        except Exception as error:
            raise StoreError(f"budgets: {what_failed(error)}") from error
        return given

    async def give_back(self, tenant: TenantId, budget: str, nano_usd: int) -> None:
        try:
            async with self._database.write() as connection:
                taken = await self._taken(connection, tenant, budget)
                await self._set(connection, tenant, budget, max(0, taken - nano_usd))
        except Exception as error:
            raise StoreError(f"budgets: {what_failed(error)}") from error

    async def _taken(self, connection: AsyncConnection, tenant: TenantId, budget: str) -> int:
        """Locked until the transaction ends."""
        now = self._clock.wall()
        row = {"tenant_id": tenant, "budget": budget, "nano_usd": 0, "updated_at": now}
        inserted = await connection.execute(self._insert(_BUDGETS).values(row).on_conflict_do_nothing())
        if inserted.rowcount == 1:
            await connection.execute(delete(_BUDGETS).where(_BUDGETS.c.updated_at < now - KEPT_FOR))
            return 0
        mine = (_BUDGETS.c.tenant_id == tenant, _BUDGETS.c.budget == budget)
        found = await connection.execute(select(_BUDGETS.c.nano_usd).where(*mine).with_for_update())
        return int(found.scalar_one())

    async def _set(self, connection: AsyncConnection, tenant: TenantId, budget: str, nano_usd: int) -> None:
        mine = (_BUDGETS.c.tenant_id == tenant, _BUDGETS.c.budget == budget)
        values = {"nano_usd": nano_usd, "updated_at": self._clock.wall()}
        await connection.execute(update(_BUDGETS).where(*mine).values(values))


TAKEN_MAX = 100


async def taken_on(database: Database, tenant: TenantId, day: str) -> dict[tuple[str, str], Decimal]:
    """What is taken of the day's budgets, in USD, by scope and key; of the TAKEN_MAX with the most. Raises
    StoreError."""
    wanted = (
        select(_BUDGETS.c.budget, _BUDGETS.c.nano_usd)
        .where(_BUDGETS.c.tenant_id == tenant, _BUDGETS.c.budget.endswith(f":{day}", autoescape=True))
        .order_by(_BUDGETS.c.nano_usd.desc())
        .limit(TAKEN_MAX)
    )
    async with database.read() as connection:
        rows = (await connection.execute(wanted)).all()
    found = {}
    for name, nano_usd in rows:
        scope, _, key = name.removesuffix(f":{day}").partition(":")
        found[scope, key] = Decimal(nano_usd) / NANO
    return found


async def costs_since(database: Database, tenant: TenantId, since: datetime) -> list[Mapping[str, Any]]:
    """Of usages since then, summed by item; without a price `usd` is None. Raises StoreError."""
    columns = (_COSTS.c.provider, _COSTS.c.kind, _COSTS.c.product, _COSTS.c.item, _COSTS.c.unit)
    wanted = select(*columns, _COSTS.c.usd).where(_COSTS.c.tenant_id == tenant, _COSTS.c.at >= since)
    sums: dict[tuple[Any, ...], Decimal | None] = {}
    async with database.read() as connection:
        async for row in await connection.stream(wanted):
            key = (*row[:5], row.usd is None)
            sums[key] = None if row.usd is None else (sums.get(key) or Decimal(0)) + Decimal(row.usd)
    names = [column.name for column in columns]
    return [dict(zip(names, key[:5], strict=True)) | {"usd": usd} for key, usd in sums.items()]
