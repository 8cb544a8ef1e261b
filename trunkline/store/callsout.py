"""Calls out of the last hour, of every worker, in the database. Raises StoreError when it is away."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import Table, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from trunkline.ports import CallOut
from trunkline.store import models
from trunkline.store.engine import Database
from trunkline.types import TenantId

KEPT = timedelta(hours=2)
_OUT = cast(Table, models.CallOut.__table__)


class CallsOut:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def note(self, tenant: TenantId, calls: Sequence[CallOut]) -> None:
        """The same call twice is noted once."""
        rows = [{"tenant_id": tenant, "id": c.id, "number": c.number, "country": c.country, "at": c.at} for c in calls]
        async with self._database.writing() as connection:
            put = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
            await connection.execute(put(_OUT).on_conflict_do_nothing(), rows)
            await connection.execute(delete(_OUT).where(_OUT.c.at < max(c.at for c in calls) - KEPT))

    async def since(self, tenant: TenantId, at: datetime) -> list[CallOut]:
        async with self._database.read() as connection:
            rows = await connection.execute(select(_OUT).where(_OUT.c.tenant_id == tenant, _OUT.c.at >= at))
            return [CallOut(row.id, row.number, row.country, row.at) for row in rows]
