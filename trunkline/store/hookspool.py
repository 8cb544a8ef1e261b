"""Makes the deliveries of webhooks, in the very transaction in which what happened becomes durable: an event is made
once, whatever dies when, and survives what the record survives.

The writer of the record hands in the entries it has just written; the consent ledger its revocations; whoever else
changes something that is told (numbers, agents) calls `tell` in its own transaction. An event's id comes of what
happened (run and number of the entry), so that what is handed in twice is one event.

A bug in what is told must not cost a record: it is logged, and that event is not told.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any, cast

from sqlalchemy import Table, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from trunkline.clock import Clock
from trunkline.hooks import CallSummary, Endpoint, EventOf, EventType, Happening, Told, is_told
from trunkline.ports import CallEnded, CallEvent, CallStarted, Revocation
from trunkline.store import models
from trunkline.store.codec import Entry, call_of
from trunkline.store.engine import Database
from trunkline.store.fold import KnownCall, Row
from trunkline.store.sealing import DELIVERIES, ENDPOINTS, TURNS, has_sealed, opened_row, sealed_rows
from trunkline.types import TenantId

log = logging.getLogger(__name__)

MAX_BODY_CHARS = 256 * 1024
_CALLS = cast(Table, models.Call.__table__)
_COSTS = cast(Table, models.CostRow.__table__)
_SUMMARY = [name for name in CallSummary.__slots__ if name not in ("usd", "turns")]


def event_id(tenant: TenantId, what: str) -> str:
    """The same for the same thing."""
    return "evt_" + sha256(f"{tenant}\n{what}".encode()).hexdigest()[:32]


def endpoint_of(row: Any) -> Endpoint:
    return Endpoint(
        TenantId(row.tenant_id),
        row.id,
        row.url,
        tuple(row.events),
        row.enabled,
        row.transcripts,
        row.created_at,
        row.version,
        row.disabled_why,
        row.failing_since,
        row.failed_at,
    )


class HookSpool:
    def __init__(self, database: Database, event_of: EventOf, clock: Clock) -> None:
        self._database, self._event_of, self._clock = database, event_of, clock
        self._insert = postgresql.insert if database.dialect == "postgresql" else sqlite.insert
        self.on_new: Callable[[], None] = lambda: None
        """Called after something was told; its transaction may not be over yet."""

    # --- from the record --------------------------------------------------------------------------------------------

    async def take_over(
        self, connection: AsyncConnection, entries: Sequence[Entry], known: Mapping[str, KnownCall]
    ) -> None:
        """After the entries' rows are written. `known`: the calls that the database had before."""
        told = _fresh(entries, known)
        if not told:
            return
        tenants = {call.tenant for call in known.values()}
        tenants |= {entry.event.tenant for entry in told if isinstance(entry.event, CallStarted)}
        endpoints = await self._endpoints(connection, tenants)
        if not endpoints:
            return
        calls = await self._calls(connection, {call_of(entry.event) for entry in told})
        words = any(each.transcripts and each.wants("call.ended") for each in endpoints)
        happened = []
        for entry in told:
            row = calls.get(call_of(entry.event))
            if row is None:
                continue  # it waits for its call, and comes again with it
            tenant = TenantId(row.tenant_id)
            summary = CallSummary(**{name: getattr(row, name) for name in _SUMMARY})
            if isinstance(entry.event, CallEnded):
                summary = await self._whole(connection, tenant, summary, words)
            told_id = event_id(tenant, f"{entry.run}/{entry.seq}")
            happened.append(Happening(told_id, tenant, entry.event, summary, entry.seq))
        await self._tell(connection, happened, endpoints)

    async def _calls(self, connection: AsyncConnection, call_ids: set[str]) -> dict[str, Any]:
        columns = [_CALLS.c.tenant_id, *(_CALLS.c[name] for name in _SUMMARY)]
        found = await connection.execute(select(*columns).where(_CALLS.c.id.in_(sorted(call_ids))))
        return {row.id: row for row in found}

    async def _endpoints(self, connection: AsyncConnection, tenants: set[str]) -> list[Endpoint]:
        """Whoever deletes one waits until this transaction is over."""
        found = await connection.execute(
            select(ENDPOINTS)
            .where(ENDPOINTS.c.tenant_id.in_(sorted(tenants)), ENDPOINTS.c.enabled)
            .with_for_update(read=True, key_share=True)
        )
        return [endpoint_of(row) for row in found]

    async def _whole(
        self, connection: AsyncConnection, tenant: TenantId, summary: CallSummary, words: bool
    ) -> CallSummary:
        costs = (
            await connection.scalars(
                select(_COSTS.c.usd).where(_COSTS.c.tenant_id == tenant, _COSTS.c.call_id == summary.id)
            )
        ).all()
        usd = sum((Decimal(cost) for cost in costs), Decimal(0)) if costs and None not in costs else None
        if not words:
            return replace(summary, usd=usd)
        found = await connection.execute(
            select(TURNS)
            .where(TURNS.c.tenant_id == tenant, TURNS.c.call_id == summary.id)
            .order_by(TURNS.c.at, TURNS.c.run, TURNS.c.seq)
        )
        turns: list[Row] = [dict(row) for row in found.mappings()]
        if has_sealed(turns, TURNS):  # a key may have to be asked for
            turns = await asyncio.to_thread(lambda: [opened_row(self._database.seal, TURNS, row) for row in turns])
        return replace(summary, usd=usd, turns=turns)

    # --- from elsewhere ---------------------------------------------------------------------------------------------

    async def revoked(self, connection: AsyncConnection, noted_id: str, said: Revocation) -> None:
        endpoints = await self._endpoints(connection, {said.tenant})
        if endpoints:
            happened = Happening(event_id(said.tenant, f"consent/{noted_id}"), said.tenant, said)
            await self._tell(connection, [happened], endpoints)

    async def tell(
        self,
        connection: AsyncConnection,
        tenant: TenantId,
        event: EventType,
        what: str,
        at: datetime,
        data: Mapping[str, Any],
    ) -> None:
        """An event that is made elsewhere, in the transaction of whoever makes it. `what`: names this change, as
        `number/+14155550100/7`; the same is told once."""
        await self.tell_all(connection, tenant, [(what, Told(event, at, data))])

    async def tell_all(self, connection: AsyncConnection, tenant: TenantId, told: Sequence[tuple[str, Told]]) -> None:
        """As `tell`, of many."""
        for endpoint in await self._endpoints(connection, {tenant}):
            wanted = [(what, each) for what, each in told if endpoint.wants(each.type)]
            await self._add(connection, [self._row(endpoint, event_id(tenant, what), each, 0) for what, each in wanted])

    # --- deliveries -------------------------------------------------------------------------------------------------

    async def _tell(
        self, connection: AsyncConnection, happened: Sequence[Happening], endpoints: Sequence[Endpoint]
    ) -> None:
        rows = []
        for each in happened:
            for endpoint in endpoints:
                if endpoint.tenant != each.tenant:
                    continue
                try:
                    told = self._event_of(each, endpoint.transcripts)
                    if told is not None and endpoint.wants(told.type):
                        rows.append(self._row(endpoint, each.id, told, each.position))
                except Exception:
                    log.exception("a webhook of a %s is not told", type(each.said).__name__)
        await self._add(connection, rows)

    def _row(self, endpoint: Endpoint, told_id: str, told: Told, position: int) -> Row:
        now = self._clock.wall()
        call_id = None if told.once else told.data.get("call_id")
        return {
            "tenant_id": endpoint.tenant,
            "endpoint_id": endpoint.id,
            "id": event_id(endpoint.tenant, told.once) if told.once else told_id,
            "event": told.type,
            "call_id": call_id,
            "body": body_of(told),
            "at": told.at,
            "position": position,
            "attempts": 0,
            "state": "waiting",
            "next_at": now,
            "lease": None,
            "last_status": None,
            "last_error": None,
            "last_at": None,
            "created_at": now,
        }

    async def _add(self, connection: AsyncConnection, rows: Sequence[Row]) -> None:
        if rows:
            sealed = sealed_rows(self._database.seal, DELIVERIES, rows)
            await connection.execute(self._insert(DELIVERIES).on_conflict_do_nothing(), sealed)
            self.on_new()


def body_of(told: Told) -> str:
    """The JSON that is sent. Of a call that was too long to tell, without its words."""
    document = {"type": told.type, "timestamp": told.at.isoformat(), "data": told.data}
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    if len(text) > MAX_BODY_CHARS:
        data = {name: value for name, value in told.data.items() if name not in ("turns", "text")}
        document["data"] = data | {"left_out": [name for name in ("turns", "text") if name in told.data]}
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return text


def _fresh(entries: Sequence[Entry], known: Mapping[str, KnownCall]) -> list[Entry]:
    """A call starts once and ends once, as its row does; also where another process carried it on."""
    seen: set[tuple[type, str]] = {(CallStarted, call_id) for call_id in known}
    seen |= {(CallEnded, call_id) for call_id, call in known.items() if call.ended}
    fresh = []
    for entry in entries:
        if not is_told(entry.event):
            continue
        if not isinstance(entry.event, CallEvent):
            key = type(entry.event), call_of(entry.event)
            if key in seen:
                continue
            seen.add(key)
        fresh.append(entry)
    return fresh
