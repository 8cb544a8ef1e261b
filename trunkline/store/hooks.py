"""Who is told what happens, and what became of it: endpoints of a tenant and their deliveries, for the API.

Secrets are sealed where there are keys, and given out by `secrets` only, to whoever signs.
"""

import asyncio
import base64
import binascii
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import and_, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from trunkline.clock import Clock
from trunkline.errors import StoreError
from trunkline.hooks import Delivery, DeliveryPage, Endpoint, State, Wanted
from trunkline.privacy.texts import TextSeal
from trunkline.store.engine import Database
from trunkline.store.hookqueue import let_die, opened_secrets
from trunkline.store.hookspool import endpoint_of
from trunkline.store.sealing import DELIVERIES, ENDPOINTS, Row, sealed_rows
from trunkline.types import TenantId

MAX_ENDPOINTS = 100
"""Of a tenant."""


class WebhookEndpoints:
    """`hooks.Endpoints`."""

    def __init__(self, database: Database, clock: Clock, seal: TextSeal | None = None) -> None:
        """`seal`: of the secrets, where it is not the database's."""
        self._database, self._clock, self._seal = database, clock, seal or database.seal

    # --- endpoints --------------------------------------------------------------------------------------------------

    async def add(self, tenant: TenantId, wanted: Wanted, secret: str) -> Endpoint | None:
        row: Row = {
            "tenant_id": tenant,
            "id": f"wh_{secrets.token_hex(12)}",
            "url": wanted.url,
            "events": list(wanted.events or ()),
            "enabled": wanted.enabled is not False,
            "transcripts": bool(wanted.transcripts),
            "secret": secret,
            "previous_secret": None,
            "previous_until": None,
            "created_at": self._clock.wall(),
            "version": 1,
            "disabled_why": "",
            "failing_since": None,
            "failed_at": None,
        }
        async with self._database.writing() as connection:
            count = select(func.count()).select_from(ENDPOINTS).where(ENDPOINTS.c.tenant_id == tenant)
            if (await connection.scalar(count) or 0) >= MAX_ENDPOINTS:
                return None
            await connection.execute(insert(ENDPOINTS), sealed_rows(self._seal, ENDPOINTS, [row]))
            return endpoint_of(await self._row(connection, tenant, row["id"]))

    async def list(self, tenant: TenantId) -> Sequence[Endpoint]:
        wanted = select(ENDPOINTS).where(ENDPOINTS.c.tenant_id == tenant)
        async with self._database.read() as connection:
            found = await connection.execute(wanted.order_by(ENDPOINTS.c.created_at, ENDPOINTS.c.id))
            return [endpoint_of(row) for row in found]

    async def get(self, tenant: TenantId, endpoint_id: str) -> Endpoint | None:
        async with self._database.read() as connection:
            row = await self._row(connection, tenant, endpoint_id)
        return None if row is None else endpoint_of(row)

    async def change(
        self, tenant: TenantId, endpoint_id: str, wanted: Wanted, version: int | None
    ) -> Endpoint | Literal["changed"] | None:
        async with self._database.writing() as connection:
            row = await self._row(connection, tenant, endpoint_id, locked=True)
            if row is None:
                return None
            if version is not None and row.version != version:
                return "changed"
            values: Row = {"version": row.version + 1}
            if wanted.url is not None:
                values["url"] = wanted.url
            if wanted.events is not None:
                values["events"] = [*wanted.events]
            if wanted.transcripts is not None:
                values["transcripts"] = wanted.transcripts
            if wanted.enabled is not None:
                values["enabled"] = wanted.enabled
                if wanted.enabled:
                    values |= {"disabled_why": "", "failing_since": None, "failed_at": None}
                else:
                    await let_die(connection, tenant, endpoint_id)
            await connection.execute(update(ENDPOINTS).where(*_is(tenant, endpoint_id)).values(values))
            return endpoint_of(await self._row(connection, tenant, endpoint_id))

    async def delete(self, tenant: TenantId, endpoint_id: str, version: int | None) -> bool | Literal["changed"]:
        """With its deliveries."""
        async with self._database.writing() as connection:
            row = await self._row(connection, tenant, endpoint_id, locked=True)
            if row is None:
                return False
            if version is not None and row.version != version:
                return "changed"
            await connection.execute(delete(ENDPOINTS).where(*_is(tenant, endpoint_id)))
        return True

    async def rotate(
        self, tenant: TenantId, endpoint_id: str, secret: str, previous_until: datetime
    ) -> Endpoint | None:
        """Of the one before, which is signed with as well until then. Raises StoreError where it cannot be opened."""
        async with self._database.writing() as connection:
            row = await self._row(connection, tenant, endpoint_id, locked=True)
            if row is None:
                return None
            before = await asyncio.to_thread(opened_secrets, self._seal, row._mapping, self._clock.wall())
            anew: Row = {"tenant_id": tenant, "id": endpoint_id, "secret": secret, "previous_secret": before[0]}
            (sealed,) = sealed_rows(self._seal, ENDPOINTS, [anew])
            values = {
                "secret": sealed["secret"],
                "previous_secret": sealed["previous_secret"],
                "previous_until": previous_until,
                "version": row.version + 1,
            }
            await connection.execute(update(ENDPOINTS).where(*_is(tenant, endpoint_id)).values(values))
            return endpoint_of(await self._row(connection, tenant, endpoint_id))

    async def secrets(self, tenant: TenantId, endpoint_id: str) -> tuple[str, ...]:
        async with self._database.read() as connection:
            row = await self._row(connection, tenant, endpoint_id)
        if row is None:
            raise StoreError("there is no such endpoint any more")
        return await asyncio.to_thread(opened_secrets, self._seal, row._mapping, self._clock.wall())

    async def _row(self, connection: AsyncConnection, tenant: TenantId, endpoint_id: str, locked: bool = False) -> Any:
        wanted = select(ENDPOINTS).where(*_is(tenant, endpoint_id))
        found = await connection.execute(wanted.with_for_update() if locked else wanted)
        return found.one_or_none()

    # --- deliveries -------------------------------------------------------------------------------------------------

    async def deliveries(
        self, tenant: TenantId, endpoint_id: str, *, limit: int, cursor: str | None, state: State | None
    ) -> DeliveryPage:
        created = DELIVERIES.c.created_at
        wanted = [DELIVERIES.c.tenant_id == tenant, DELIVERIES.c.endpoint_id == endpoint_id]
        if state is not None:
            wanted.append(DELIVERIES.c.state == state)
        if cursor is not None:
            at, delivery_id = _from_cursor(cursor)
            wanted.append(or_(created < at, and_(created == at, DELIVERIES.c.id < delivery_id)))
        newest = select(*_SHOWN).where(*wanted).order_by(created.desc(), DELIVERIES.c.id.desc())
        async with self._database.read() as connection:
            rows = (await connection.execute(newest.limit(limit + 1))).all()
        more = len(rows) > limit
        return DeliveryPage([_delivery(row) for row in rows[:limit]], _to_cursor(rows[limit - 1]) if more else None)

    async def redeliver(
        self, tenant: TenantId, endpoint_id: str, delivery_id: str
    ) -> Delivery | Literal["disabled"] | None:
        mine = (
            DELIVERIES.c.tenant_id == tenant,
            DELIVERIES.c.endpoint_id == endpoint_id,
            DELIVERIES.c.id == delivery_id,
        )
        async with self._database.writing() as connection:
            endpoint = await self._row(connection, tenant, endpoint_id, locked=True)
            if endpoint is None or await connection.scalar(select(DELIVERIES.c.id).where(*mine)) is None:
                return None
            if not endpoint.enabled:
                return "disabled"
            now = self._clock.wall()
            await connection.execute(
                update(DELIVERIES).where(*mine).values(state="waiting", attempts=0, next_at=now, lease=None)
            )
            return _delivery((await connection.execute(select(*_SHOWN).where(*mine))).one())


_SHOWN = [DELIVERIES.c[name] for name in Delivery.__slots__]


def _delivery(row: Any) -> Delivery:
    return Delivery(
        **{name: getattr(row, name) for name in Delivery.__slots__ if name != "next_at"},
        next_at=row.next_at if row.state == "waiting" else None,
    )


def _is(tenant: TenantId, endpoint_id: str) -> tuple[Any, ...]:
    return ENDPOINTS.c.tenant_id == tenant, ENDPOINTS.c.id == endpoint_id


def _to_cursor(row: Any) -> str:
    return base64.urlsafe_b64encode(f"{row.created_at.isoformat()} {row.id}".encode()).decode()


def _from_cursor(cursor: str) -> tuple[datetime, str]:
    try:
        at, delivery_id = base64.urlsafe_b64decode(cursor.encode()).decode().split(" ", 1)
        return datetime.fromisoformat(at).astimezone(UTC), delivery_id
    except (ValueError, binascii.Error):
        raise ValueError("not a cursor of this list") from None
