"""Devices that are known: whose they are, what they said of themselves, when they were last seen.

Written at once, not through the spool: who registers is told what came of it, and of two accounts that name the same
device the database says whose it is.
"""

from datetime import datetime
from typing import Any, cast

from sqlalchemy import Row, Table, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from trunkline.clock import Clock
from trunkline.errors import StoreError
from trunkline.ports import Conflict, Device, Registration
from trunkline.store import models
from trunkline.store.engine import Database, is_database, what_failed
from trunkline.types import TenantId

_DEVICES = cast(Table, models.Device.__table__)
_TENANTS = cast(Table, models.Tenant.__table__)


class KnownDevices:
    """`ports.Devices`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._insert = postgresql.insert if database.dialect == "postgresql" else sqlite.insert

    async def register(
        self, tenant: TenantId, device_id: str, device_account: str, said: Registration | None = None
    ) -> Device | Conflict:
        try:
            async with self._database.write() as connection:
                return await self._register(connection, tenant, device_id, device_account, said, self._clock.wall())
        except Exception as error:
            if not is_database(error):
                raise
            raise StoreError(f"the database is away ({what_failed(error)})") from error

    async def _register(
        self,
        connection: AsyncConnection,
        tenant: TenantId,
        device_id: str,
        device_account: str,
        said: Registration | None,
        now: datetime,
    ) -> Device | Conflict:
        of_tenant = {"id": tenant, "name": tenant, "created_at": now}
        await connection.execute(self._insert(_TENANTS).values(of_tenant).on_conflict_do_nothing())
        row = {
            "tenant_id": tenant,
            "id": device_id,
            "device_account": device_account,
            **_columns(said or Registration()),
            "created_at": now,
            "seen_at": now,
        }
        inserted = await connection.execute(self._insert(_DEVICES).values(row).on_conflict_do_nothing())
        mine = (_DEVICES.c.tenant_id == tenant, _DEVICES.c.id == device_id)
        if inserted.rowcount != 1:
            changed = {"seen_at": now} | ({} if said is None else _columns(said))
            of_account = _DEVICES.c.device_account == device_account
            updated = await connection.execute(update(_DEVICES).where(*mine, of_account).values(changed))
            if updated.rowcount != 1:
                return Conflict()
        return _device((await connection.execute(select(_DEVICES).where(*mine))).one())

    async def get(self, tenant: TenantId, device_id: str) -> Device | None:
        async with self._database.read() as connection:
            query = select(_DEVICES).where(_DEVICES.c.tenant_id == tenant, _DEVICES.c.id == device_id)
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else _device(row)


def _columns(said: Registration) -> dict[str, Any]:
    return {"name": said.name, "needs_arming": said.needs_arming, "facts": dict(said.facts)}


def _device(row: Row[Any]) -> Device:
    return Device(
        id=row.id,
        tenant=TenantId(row.tenant_id),
        device_account=row.device_account,
        created=row.created_at,
        seen=row.seen_at,
        name=row.name,
        needs_arming=row.needs_arming,
        facts=dict(row.facts),
    )
