"""The call record, to read. Written by `RecordWriter` from the spool; `await writer.flush()` first to see the latest.

Every question names a tenant and sees no other. Phone numbers are in the answers in full: do not log them.
"""

import asyncio
import base64
import binascii
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import RowMapping, Table, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from trunkline.ports import CallQuery, EndReason
from trunkline.privacy.texts import TextSeal
from trunkline.store import models
from trunkline.store.engine import Database
from trunkline.store.exports import PAGE, Format, csv_parts, parquet_parts
from trunkline.store.hours import usd_text
from trunkline.store.sealing import EVENTS, has_sealed, is_locked, opened_row, sealed_rows
from trunkline.store.search import Place, check, find
from trunkline.store.stats import By, stats
from trunkline.store.writer import OpenCall, RecordWriter, WriterStats, open_calls
from trunkline.types import CallId, TenantId

__all__ = ["CallRecords", "OpenCall", "Page", "RecordWriter", "WriterStats"]

LIMIT, LIMIT_MAX = 50, 500

_CALLS = cast(Table, models.Call.__table__)
_PARTS = {
    "turns": cast(Table, models.TurnRow.__table__),
    "events": cast(Table, models.CallEventRow.__table__),
    "usage": cast(Table, models.UsageRow.__table__),
    "costs": cast(Table, models.CostRow.__table__),
}
_NOT_SHOWN = {"run", "seq", "tenant_id", "call_id", "worker"}
NANO_USD = "cost_nano_usd"

Record = dict[str, Any]
"""For JSON: times as ISO 8601 in UTC."""


@dataclass(frozen=True, slots=True)
class Page:
    calls: Sequence[Record]
    """Without turns, events and usage."""
    next_cursor: str | None
    """For the next, older page; None at the end."""


class CallRecords:
    """All methods raise StoreError when the database is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, tenant: TenantId, call_id: CallId) -> Record | None:
        """The whole record: the call with its `turns`, `events` and `usage` in the order they happened."""
        async with self._database.read() as connection:
            found = await _whole(connection, tenant, _CALLS.c.id == call_id)
        return await self._opened(found)

    async def find_by_provider_id(self, tenant: TenantId, provider_call_id: str) -> Record | None:
        async with self._database.read() as connection:
            found = await _whole(connection, tenant, _CALLS.c.provider_call_id == provider_call_id)
        return await self._opened(found)

    async def _opened(self, found: "_Found | None") -> Record | None:
        """In a thread where something is sealed: its key may have to be asked for."""
        if found is None:
            return None
        if any(has_sealed(rows, _PARTS[name]) for name, rows in found.parts.items()):
            return await asyncio.to_thread(_shown_whole, found, self._database.seal)
        return _shown_whole(found, None)

    async def open_calls(self, worker: str) -> Sequence[OpenCall]:
        """Calls without an end that this worker carries or carried, of all tenants."""
        async with self._database.read() as connection:
            return await open_calls(connection, _CALLS.c.worker == worker)

    async def list(
        self,
        tenant: TenantId,
        *,
        limit: int = LIMIT,
        cursor: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        end_reason: EndReason | None = None,
    ) -> Page:
        """`search` by time and end."""
        return await self.search(
            tenant, CallQuery(since=since, until=until, end_reason=end_reason), limit=limit, cursor=cursor
        )

    async def search(
        self, tenant: TenantId, query: CallQuery, *, limit: int = LIMIT, cursor: str | None = None
    ) -> Page:
        """Newest first. A page is unchanged by calls that start later; one that is short, even empty, is not the last
        while it has a `next_cursor` (store.search). Raises ValueError for a cursor that is not ours, a limit outside
        1-500, a time without a zone, and what cannot be searched for, in words for the user."""
        if not 1 <= limit <= LIMIT_MAX:
            raise ValueError(f"limit = {limit}: 1 to {LIMIT_MAX}")
        after = None if cursor is None else _from_cursor(cursor)
        check(query, sealed=self._database.seal is not None)
        async with self._database.read() as connection:
            found = await find(connection, tenant, query, limit, after)
        return Page([_shown(row) for row in found.calls], None if found.next is None else _to_cursor(found.next))

    async def export(self, tenant: TenantId, query: CallQuery, format: Format) -> AsyncGenerator[bytes, None]:
        """All of them as a file, newest first, part by part. Raises as `search` does, and MissingExtra."""
        parts = csv_parts if format == "csv" else parquet_parts
        async with aclosing(parts(self._pages(tenant, query))) as given:
            async for part in given:
                yield part

    async def _pages(self, tenant: TenantId, query: CallQuery) -> AsyncIterator[Sequence[Record]]:
        cursor: str | None = None
        while True:
            page = await self.search(tenant, query, limit=PAGE, cursor=cursor)
            yield page.calls
            cursor = page.next_cursor
            if cursor is None:
                return

    async def stats(self, tenant: TenantId, since: datetime, until: datetime, by: By) -> Record:
        return await stats(self._database, tenant, since, until, by)

    async def note(self, tenant: TenantId, call_id: CallId, kind: str, data: Mapping[str, Any], at: datetime) -> bool:
        """An event in the record of a call, from outside of it. False: there is no such call."""
        return await note_event(self._database, tenant, call_id, kind, data, at)


@dataclass(frozen=True, slots=True)
class _Found:
    call: RowMapping
    parts: Mapping[str, Sequence[RowMapping]]


async def _whole(connection: AsyncConnection, tenant: TenantId, which: Any) -> _Found | None:
    found = await connection.execute(select(_CALLS).where(_CALLS.c.tenant_id == tenant, which))
    call = found.mappings().one_or_none()
    if call is None:
        return None
    found_parts = {}
    for name, table in _PARTS.items():
        parts = await connection.execute(
            select(table)
            .where(table.c.tenant_id == tenant, table.c.call_id == call["id"])
            .order_by(table.c.at, table.c.run, table.c.seq)
        )
        found_parts[name] = parts.mappings().all()
    return _Found(call, found_parts)


def _shown_whole(found: _Found, seal: TextSeal | None) -> Record:
    parts = found.parts.items()
    return _shown(found.call) | {
        name: [_shown(opened_row(seal, _PARTS[name], row)) for row in rows] for name, rows in parts
    }


async def events_of(
    database: Database, tenant: TenantId, kind: str, call_id: CallId | None = None
) -> list[tuple[datetime, Mapping[str, Any]]]:
    """When, and the data of all events of a kind, oldest first. What cannot be opened is left out."""
    wanted = [EVENTS.c.tenant_id == tenant, EVENTS.c.kind == kind]
    if call_id is not None:
        wanted.append(EVENTS.c.call_id == call_id)
    async with database.read() as connection:
        found = await connection.execute(select(EVENTS).where(*wanted).order_by(EVENTS.c.at, EVENTS.c.seq))
        rows = found.mappings().all()
    opened = await asyncio.to_thread(lambda: [opened_row(database.seal, EVENTS, row) for row in rows])
    return [(row["at"], row["data"]) for row in opened if not is_locked(row["data"])]


async def note_event(
    database: Database, tenant: TenantId, call_id: CallId, kind: str, data: Mapping[str, Any], at: datetime
) -> bool:
    """Put an event into the record of a call from outside its process. False: there is no such call."""
    row = {"run": f"noted-{secrets.token_hex(8)}", "seq": 1, "tenant_id": tenant, "call_id": call_id}
    row |= {"at": at, "kind": kind, "data": dict(data)}
    async with database.writing() as connection:
        theirs = select(_CALLS.c.id).where(_CALLS.c.tenant_id == tenant, _CALLS.c.id == call_id)
        if await connection.scalar(theirs) is None:
            return False
        await connection.execute(insert(EVENTS), sealed_rows(database.seal, EVENTS, [row]))
    return True


def _shown(row: RowMapping | Mapping[str, Any]) -> Record:
    shown: Record = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in row.items()
        if name not in _NOT_SHOWN
    }
    if NANO_USD in shown:
        nano_usd = shown.pop(NANO_USD)
        shown["cost_usd"] = None if nano_usd is None else usd_text(nano_usd)
    return shown


def _to_cursor(place: Place) -> str:
    return base64.urlsafe_b64encode(f"{place.at.isoformat()} {place.call_id}".encode()).decode()


def _from_cursor(cursor: str) -> Place:
    try:
        at, call_id = base64.urlsafe_b64decode(cursor.encode()).decode().split(" ", 1)
        if "\0" in call_id:
            raise ValueError
        return Place(datetime.fromisoformat(at).astimezone(UTC), call_id)
    except (ValueError, OverflowError, binascii.Error):
        raise ValueError("cursor: the next_cursor of an earlier answer expected") from None
