"""The consent ledger in the database: grants, revocations and erasures, appended and never changed, one chain a tenant.

A revocation that says so puts its number on the company's do-not-call list, in the same transaction. All methods raise
StoreError when the database is away.
"""

import json
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, cast

from sqlalchemy import Table, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from trunkline.ports import Grant, Revocation
from trunkline.store import models
from trunkline.store.chain import GENESIS, Link, Verified, Verifier, link
from trunkline.store.dnc import put_on
from trunkline.store.engine import Database
from trunkline.store.hookspool import HookSpool
from trunkline.types import TenantId

_EVENTS = cast(Table, models.ConsentEvent.__table__)
_PORTION = 1000
_LOCK = 0x636F6E73656E74  # "consent": one writer at a time makes the chain, on PostgreSQL


@dataclass(frozen=True, slots=True)
class Noted:
    """What goes into the ledger. `id`: the same one is taken once."""

    id: str
    said: Grant | Revocation


@dataclass(frozen=True, slots=True)
class Kept:
    """A row as the ledger gives it: `body` holds what the Grant or Revocation said."""

    seq: int
    event: str
    at: datetime
    body: Mapping[str, Any]


def new_id() -> str:
    return secrets.token_hex(16)


def body_of(said: Grant | Revocation) -> dict[str, Any]:
    """Without subject and tenant. The wording is kept by its hash."""
    body: dict[str, Any] = {
        "via": said.via,
        "technologies": list(said.technologies),
        "purposes": list(said.purposes),
        "seller": said.seller,
        "call_id": said.call_id,
    }
    if isinstance(said, Revocation):
        return body | {"verbatim": said.verbatim, "do_not_call": said.do_not_call}
    return body | {
        "form": said.form,
        "channels": list(said.channels),
        "wording_sha256": sha256(said.wording.encode()).hexdigest(),
        "wording_version": said.wording_version,
        "evidence": [{"kind": e.kind, "uri": e.uri, "sha256": e.sha256} for e in said.evidence],
        "jurisdiction": said.jurisdiction,
        "valid_from": _iso(said.valid_from or said.at),
        "valid_until": _iso(said.valid_until),
    }


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at is not None else None


class ConsentLedger:
    def __init__(self, database: Database, hooks: HookSpool | None = None) -> None:
        """`hooks`: makes webhooks of what is revoked."""
        self._database, self._hooks = database, hooks

    async def note(self, tenant: TenantId, noted: Sequence[Noted]) -> int:
        """How many were new. All of them are in the database when it returns, or none is."""
        async with self._writing() as connection:
            known = set(
                await connection.scalars(
                    select(_EVENTS.c.id).where(_EVENTS.c.tenant_id == tenant, _EVENTS.c.id.in_([n.id for n in noted]))
                )
            )
            new = [n for n in noted if n.id not in known]
            rows = [
                ("grant" if isinstance(n.said, Grant) else "revoke", n.id, n.said.at, n.said.subject, body_of(n.said))
                for n in new
            ]
            await self._append(connection, tenant, rows)
            for each in new:
                said = each.said
                if isinstance(said, Revocation) and said.do_not_call:
                    source = said.call_id or said.via
                    await put_on(connection, tenant, "company", [said.subject], said.at, source)
                if isinstance(said, Revocation) and self._hooks is not None:
                    await self._hooks.revoked(connection, each.id, said)
        return len(new)

    async def _append(
        self,
        connection: AsyncConnection,
        tenant: TenantId,
        rows: Sequence[tuple[str, str, datetime, str, dict[str, Any]]],
    ) -> None:
        last = (
            await connection.execute(
                select(_EVENTS.c.seq, _EVENTS.c.hash)
                .where(_EVENTS.c.tenant_id == tenant)
                .order_by(_EVENTS.c.seq.desc())
                .limit(1)
            )
        ).one_or_none()
        seq, head = (last.seq, last.hash) if last is not None else (0, GENESIS)
        made = []
        for event, event_id, at, subject, body in rows:
            seq += 1
            row = link(head, seq, event_id, event, at, subject, body, secrets.token_hex(16))
            head = row.hash
            made.append({name: getattr(row, name) for name in _COLUMNS} | {"tenant_id": tenant})
        if made:
            await connection.execute(insert(_EVENTS), made)

    async def of(self, tenant: TenantId, subject: str) -> list[Kept]:
        """In the order they were noted."""
        async with self._database.read() as connection:
            rows = await connection.execute(
                select(_EVENTS)
                .where(_EVENTS.c.tenant_id == tenant, _EVENTS.c.subject == subject, _EVENTS.c.body.is_not(None))
                .order_by(_EVENTS.c.seq)
            )
            return [Kept(row.seq, row.event, row.at, json.loads(row.body)) for row in rows]

    async def export(self, tenant: TenantId, subject: str) -> dict[str, Any]:
        """Everything about them, with what proves it."""
        async with self._database.read() as connection:
            rows = await connection.execute(
                select(_EVENTS)
                .where(_EVENTS.c.tenant_id == tenant, _EVENTS.c.subject == subject)
                .order_by(_EVENTS.c.seq)
            )
            events = [
                {
                    "seq": row.seq,
                    "id": row.id,
                    "event": row.event,
                    "at": row.at.isoformat(),
                    **json.loads(row.body or "{}"),
                    "salt": row.salt,
                    "body_hash": row.body_hash,
                    "prev_hash": row.prev_hash,
                    "hash": row.hash,
                }
                for row in rows
            ]
        return {"subject": subject, "events": events}

    async def erase(self, tenant: TenantId, subject: str, at: datetime) -> int:
        """Forget what they said, and note that it was forgotten. How many rows; do-not-call entries stay."""
        theirs = (_EVENTS.c.tenant_id == tenant, _EVENTS.c.subject == subject)
        async with self._writing() as connection:
            erased = list(await connection.scalars(select(_EVENTS.c.seq).where(*theirs).order_by(_EVENTS.c.seq)))
            if erased:
                await connection.execute(update(_EVENTS).where(*theirs).values(subject=None, body=None, salt=None))
                await self._append(connection, tenant, [("erase", new_id(), at, "", {"erased": erased})])
        return len(erased)

    async def verify(self, tenant: TenantId) -> Verified:
        verifier, seq = Verifier(), 0
        while True:
            async with self._database.read() as connection:
                found = await connection.execute(
                    select(_EVENTS)
                    .where(_EVENTS.c.tenant_id == tenant, _EVENTS.c.seq > seq)
                    .order_by(_EVENTS.c.seq)
                    .limit(_PORTION)
                )
                rows = [Link(*(getattr(row, name) for name in _COLUMNS)) for row in found]
            if not rows:
                return verifier.verdict()
            verifier.take(rows)
            seq = rows[-1].seq

    @asynccontextmanager
    async def _writing(self) -> AsyncGenerator[AsyncConnection]:
        async with self._database.writing() as connection:
            if self._database.dialect == "postgresql":
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            yield connection


_COLUMNS = tuple(Link.__slots__)
