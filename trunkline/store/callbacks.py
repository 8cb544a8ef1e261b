"""Callers who are to be called back, in the database, shared by all processes.

    note ─► waiting ── claim (lease, LEASE_S), begin ──► placing ── settle ──► placed | failed
               ▲ │                                         │  │
               │ └─ until is over ─► expired               │  └─ the lease ends: its process died ─► failed
               └───────────────── later ───────────────────┘

What was being placed when its process died may have rung: it is not placed again. What was only claimed is due again
when its lease ends.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import Table, and_, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from trunkline.callbacks import KEPT_FOR, OVER, CallBack, Found, State
from trunkline.clock import Clock
from trunkline.store import models
from trunkline.store.engine import Database
from trunkline.types import E164, CallId, TenantId

LEASE_S = 60.0
_LOOKED_AT = 200
_BACK = cast(Table, models.CallBackRow.__table__)
_OPEN: tuple[State, ...] = ("waiting", "placing")
_LOST, _EXPIRED = "gateway_lost", "expired"


class DatabaseCallBacks:
    """`callbacks.CallBacks`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    async def note(self, wanted: CallBack) -> None:
        """Durable when it returns. The same caller's for the same number takes the place of one that waits. Raises
        StoreError."""
        row = {
            "tenant_id": wanted.tenant,
            "call_id": wanted.call_id,
            "number": wanted.number,
            "our_number": wanted.our_number,
            "asked_at": wanted.asked_at,
            "until": wanted.until,
            "state": "waiting",
            "next_at": wanted.asked_at,
            "placed_call_id": None,
            "code": "",
        }
        same = (_BACK.c.tenant_id == wanted.tenant, _BACK.c.number == wanted.number)
        async with self._database.writing() as connection:
            await connection.execute(
                delete(_BACK).where(*same, _BACK.c.our_number == wanted.our_number, _BACK.c.state == "waiting")
            )
            insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
            await connection.execute(insert(_BACK).values(row).on_conflict_do_nothing())

    async def claim(self, most: int) -> Found:
        now = self._clock.wall()
        if not await self._anything(now):
            return Found((), ())
        async with self._database.writing() as connection:
            ended = await self._end(connection, now)
            waiting = select(_BACK).where(_BACK.c.state == "waiting", _BACK.c.next_at <= now)
            looked = await connection.execute(
                waiting.order_by(_BACK.c.asked_at, _BACK.c.call_id).limit(_LOOKED_AT).with_for_update(skip_locked=True)
            )
            first: dict[tuple[str, str], CallBack] = {}
            for row in looked:
                first.setdefault((row.tenant_id, row.our_number), _read(row))
            due = list(first.values())[:most]
            for wanted in due:
                await _set(connection, wanted, ("waiting",), next_at=now + timedelta(seconds=LEASE_S))
        return Found(due, ended)

    async def _anything(self, now: datetime) -> bool:
        """Without a lock: mostly there is nothing."""
        due = and_(_BACK.c.state.in_(_OPEN), _BACK.c.next_at <= now)
        async with self._database.read() as connection:
            found = await connection.execute(select(_BACK.c.call_id).where(due).limit(1))
            return found.first() is not None

    async def _end(self, connection: AsyncConnection, now: datetime) -> Sequence[tuple[CallBack, State, str]]:
        lost = and_(_BACK.c.state == "placing", _BACK.c.next_at <= now)
        late = and_(_BACK.c.state == "waiting", _BACK.c.next_at <= now, _BACK.c.until <= now)
        kinds: tuple[tuple[Any, State, str], ...] = ((lost, "failed", _LOST), (late, "expired", _EXPIRED))
        ended: list[tuple[CallBack, State, str]] = []
        for which, state, why in kinds:
            rows = await connection.execute(
                select(_BACK).where(which).limit(_LOOKED_AT).with_for_update(skip_locked=True)
            )
            for row in rows.all():
                code = row.code or why if state == "expired" else why
                await _set(connection, _read(row), (row.state,), state=state, code=code)
                ended.append((_read(row), state, code))
        return ended

    async def begin(self, wanted: CallBack) -> bool:
        next_at = self._clock.wall() + timedelta(seconds=LEASE_S)
        async with self._database.writing() as connection:
            return await _set(connection, wanted, ("waiting",), state="placing", next_at=next_at) == 1

    async def later(self, wanted: CallBack, at: datetime, code: str, *, begun: bool) -> None:
        """Raises StoreError."""
        async with self._database.writing() as connection:
            values = {"state": "waiting", "next_at": min(at, wanted.until), "code": code}
            await _set(connection, wanted, _ours(begun), **values)

    async def settle(
        self, wanted: CallBack, state: State, placed: CallId | None, code: str = "", *, begun: bool
    ) -> None:
        """Raises StoreError."""
        async with self._database.writing() as connection:
            await _set(connection, wanted, _ours(begun), state=state, placed_call_id=placed, code=code)


def _ours(begun: bool) -> tuple[State, ...]:
    """What another process has begun meanwhile is not ours to change."""
    return ("placing",) if begun else ("waiting",)


async def purge_callbacks(database: Database, now: datetime) -> int:
    """What is over. Raises StoreError."""
    async with database.writing() as connection:
        old = delete(_BACK).where(_BACK.c.state.in_(OVER), _BACK.c.until < now - KEPT_FOR)
        return (await connection.execute(old)).rowcount


async def _set(connection: AsyncConnection, wanted: CallBack, only: Sequence[State], **values: Any) -> int:
    mine = (_BACK.c.tenant_id == wanted.tenant, _BACK.c.call_id == wanted.call_id, _BACK.c.state.in_(only))
    return (await connection.execute(update(_BACK).where(*mine).values(values))).rowcount


def _read(row: Any) -> CallBack:
    return CallBack(
        TenantId(row.tenant_id),
        CallId(row.call_id),
        E164(row.number),
        E164(row.our_number),
        row.asked_at,
        row.until,
    )
