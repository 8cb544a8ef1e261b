"""What requests with an Idempotency-Key were answered, for a day (`gateway.api.replies`)."""

import json
from datetime import timedelta
from typing import Literal, cast

from sqlalchemy import Table, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from trunkline.clock import Clock
from trunkline.store import models
from trunkline.store.engine import Database
from trunkline.types import TenantId

KEPT_FOR = timedelta(days=1)
UNDER_WAY = timedelta(seconds=120)
_REPLIES = cast(Table, models.Reply.__table__)


class Replies:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._insert = postgresql.insert if database.dialect == "postgresql" else sqlite.insert

    async def claim(
        self, tenant: TenantId, key: str, fingerprint: str
    ) -> tuple[int, dict[str, str], bytes] | Literal["claimed", "under_way", "other"]:
        now = self._clock.wall()
        given_up = _REPLIES.c.status.is_(None) & (_REPLIES.c.expires_at <= now + KEPT_FOR - UNDER_WAY)
        row = {
            "tenant_id": tenant,
            "key": key,
            "fingerprint": fingerprint,
            "status": None,
            "body": "",
            "expires_at": now + KEPT_FOR,
        }
        async with self._database.writing() as connection:
            await connection.execute(delete(_REPLIES).where(or_(_REPLIES.c.expires_at <= now, given_up)))
            made = await connection.execute(self._insert(_REPLIES).values(row).on_conflict_do_nothing())
            if made.rowcount == 1:
                return "claimed"
            mine = (_REPLIES.c.tenant_id == tenant, _REPLIES.c.key == key)
            known = (await connection.execute(select(_REPLIES).where(*mine))).one()
        if known.fingerprint != fingerprint:
            return "other"
        if known.status is None:
            return "under_way"
        told = json.loads(known.body)
        return known.status, told["headers"], told["body"].encode()

    async def answered(self, tenant: TenantId, key: str, status: int, headers: dict[str, str], body: bytes) -> None:
        told = json.dumps({"headers": headers, "body": body.decode()})
        mine = (_REPLIES.c.tenant_id == tenant, _REPLIES.c.key == key)
        async with self._database.writing() as connection:
            await connection.execute(update(_REPLIES).where(*mine).values(status=status, body=told))

    async def free(self, tenant: TenantId, key: str) -> None:
        mine = (_REPLIES.c.tenant_id == tenant, _REPLIES.c.key == key)
        async with self._database.writing() as connection:
            await connection.execute(delete(_REPLIES).where(*mine))
