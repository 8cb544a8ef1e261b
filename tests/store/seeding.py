"""Rows of the desk, as `store.desk` writes them, for tests that only read."""

from typing import Any, cast

from sqlalchemy import Table, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from trunkline.numbers.resources import Agent, Hours, Number, Resource, Route, Tenant
from trunkline.store import models
from trunkline.store.engine import Database
from trunkline.testing.clock import ManualClock
from trunkline.types import TenantId

_TABLES = {
    Agent: models.AgentRow,
    Hours: models.HoursRow,
    Number: models.NumberRow,
    Route: models.RouteRow,
    Tenant: models.TenantTerms,
}


async def put(database: Database, tenant: TenantId, *resources: Resource) -> None:
    """Each takes the place of what had its key."""
    async with database.write() as connection:
        await _own(connection, tenant)
        for resource in resources:
            table = cast(Table, _TABLES[type(resource)].__table__)
            key = table.c[resource.key_field]
            await connection.execute(delete(table).where(table.c.tenant_id == tenant, key == resource.key))
            await connection.execute(insert(table).values(row(tenant, resource)))
        await _revise(connection, tenant)


async def take(database: Database, tenant: TenantId, number: str) -> None:
    table = cast(Table, models.NumberRow.__table__)
    async with database.write() as connection:
        await connection.execute(delete(table).where(table.c.tenant_id == tenant, table.c.number == number))
        await _revise(connection, tenant)


def row(tenant: TenantId, resource: Resource) -> dict[str, Any]:
    now = ManualClock().wall()
    fields = resource.model_dump(mode="json")
    return {"tenant_id": tenant, "version": 1, "created_at": now, "updated_at": now, **fields}


async def _own(connection: AsyncConnection, tenant: TenantId) -> None:
    tenants, revisions = cast(Table, models.Tenant.__table__), cast(Table, models.Revision.__table__)
    found = select(func.count()).select_from(tenants).where(tenants.c.id == tenant)
    if not (await connection.execute(found)).scalar_one():
        now = ManualClock().wall()
        await connection.execute(insert(tenants).values({"id": tenant, "name": tenant, "created_at": now}))
    found = select(func.count()).select_from(revisions).where(revisions.c.tenant_id == tenant)
    if not (await connection.execute(found)).scalar_one():
        await connection.execute(insert(revisions).values({"tenant_id": tenant, "revision": 0, "desk": 0}))


async def _revise(connection: AsyncConnection, tenant: TenantId) -> None:
    table = cast(Table, models.Revision.__table__)
    await connection.execute(
        table.update().where(table.c.tenant_id == tenant).values(revision=table.c.revision + 1, desk=table.c.desk + 1)
    )
