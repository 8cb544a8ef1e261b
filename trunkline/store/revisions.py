"""A tenant's changes are numbered one after the other: the row is a lock, so whoever else changes it waits."""

from datetime import datetime
from typing import cast

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from trunkline.store import models
from trunkline.types import TenantId

_TENANTS = cast(Table, models.Tenant.__table__)
_REVISIONS = cast(Table, models.Revision.__table__)


async def next_revision(connection: AsyncConnection, tenant: TenantId, at: datetime, *, of_desk: bool) -> int:
    """In the transaction of the change, before anything else of it. `of_desk`: what is owned changes, not only who may
    come in."""
    make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    row = {"id": tenant, "name": tenant, "created_at": at}
    await connection.execute(make(_TENANTS).values(row).on_conflict_do_nothing())
    more = int(of_desk)
    raised = (
        make(_REVISIONS)
        .values(tenant_id=tenant, revision=1, desk=more)
        .on_conflict_do_update(
            index_elements=[_REVISIONS.c.tenant_id],
            set_={"revision": _REVISIONS.c.revision + 1, "desk": _REVISIONS.c.desk + more},
        )
    )
    return int((await connection.execute(raised.returning(_REVISIONS.c.revision))).scalar_one())
