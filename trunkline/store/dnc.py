"""Do-not-call lists and attempts at numbers, in the database. All methods raise StoreError when it is away."""

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import Table, delete, insert, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from trunkline.clock import SYSTEM_CLOCK, Clock
from trunkline.store import models
from trunkline.store.engine import Database
from trunkline.types import TenantId

ATTEMPTS_KEPT = timedelta(days=31)
EVERYBODY = "*"
"""The number of the list `stop`: no call goes out."""
_PORTION = 500
_TAKEN = 20_000
"""In one transaction: a second or two, so that calls can be noted while a long list comes in."""

_ENTRIES = cast(Table, models.DncEntry.__table__)
_LISTS = cast(Table, models.DncList.__table__)
_ATTEMPTS = cast(Table, models.CallAttempt.__table__)


@dataclass(frozen=True, slots=True)
class Looked:
    """`on`: the lists (and their regions) that hold the number. `drawn`: when each list here was drawn."""

    on: frozenset[tuple[str, str]]
    drawn: Mapping[tuple[str, str], datetime]


async def put_on(
    connection: AsyncConnection,
    tenant: TenantId,
    name: str,
    numbers: Iterable[str],
    at: datetime,
    source: str,
    region: str = "",
    *,
    renew: bool = False,
) -> None:
    """Those that are there already stay as they are, or (`renew`) are added at `at`."""
    insert_into = (postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert)(_ENTRIES)
    statement: Any = insert_into.on_conflict_do_nothing()
    if renew:
        statement = insert_into.on_conflict_do_update(
            index_elements=[column.name for column in _ENTRIES.primary_key], set_={"added_at": at}
        )
    for portion in _portions(numbers):
        rows = [
            {"tenant_id": tenant, "list": name, "region": region, "number": n, "added_at": at, "source": source}
            for n in portion
        ]
        await connection.execute(statement, rows)


def _portions(numbers: Iterable[str], size: int = _PORTION) -> Iterable[Sequence[str]]:
    portion: list[str] = []
    for number in numbers:
        portion.append(number)
        if len(portion) == size:
            yield portion
            portion = []
    if portion:
        yield portion


class DncLists:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self, tenant: TenantId, name: str, numbers: Sequence[str], at: datetime, source: str, region: str = ""
    ) -> None:
        async with self._database.writing() as connection:
            await put_on(connection, tenant, name, numbers, at, source, region)

    async def start_again(self, tenant: TenantId) -> bool:
        """Calls may go out again. False: they were not stopped."""
        async with self._database.writing() as connection:
            gone = await connection.execute(
                delete(_ENTRIES).where(_ENTRIES.c.tenant_id == tenant, _ENTRIES.c.list == "stop")
            )
            return gone.rowcount > 0

    async def take(
        self,
        tenant: TenantId,
        name: str,
        region: str,
        numbers: Sequence[str],
        drawn_at: datetime,
        now: datetime,
        progress: Callable[[int], None] = lambda taken: None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """A list as a whole, in place of its older copy; of the company's own, what is here stays. In portions: until
        the last is there, and where it never comes, who is on either copy is on the list, which keeps its old date.
        `now`: later than that of the older copy."""
        mine = [table.c.tenant_id == tenant for table in (_ENTRIES, _LISTS)]
        taken, began = 0, clock.now()
        for portion in _portions(numbers, _TAKEN):
            # The company's is followed by when its rows came (`since`): those of a long import come minutes later.
            at = now + timedelta(seconds=int(clock.now() - began)) if name == "company" else now
            async with self._database.writing() as connection:
                await put_on(connection, tenant, name, portion, at, "import", region, renew=name != "company")
            taken += len(portion)
            progress(taken)
        async with self._database.writing() as connection:
            if name != "company":
                older = (_ENTRIES.c.list == name, _ENTRIES.c.region == region, _ENTRIES.c.added_at < now)
                await connection.execute(delete(_ENTRIES).where(mine[0], *older))
            await connection.execute(delete(_LISTS).where(mine[1], _LISTS.c.list == name, _LISTS.c.region == region))
            row = {
                "tenant_id": tenant,
                "list": name,
                "region": region,
                "drawn_at": drawn_at,
                "imported_at": now,
                "numbers": len(numbers),
            }
            await connection.execute(insert(_LISTS), [row])

    async def look(self, tenant: TenantId, number: str) -> Looked:
        async with self._database.read() as connection:
            on = await connection.execute(
                select(_ENTRIES.c.list, _ENTRIES.c.region).where(
                    _ENTRIES.c.tenant_id == tenant, _ENTRIES.c.number.in_([number, EVERYBODY])
                )
            )
            found = frozenset((row.list, row.region) for row in on)
            lists = await connection.execute(select(_LISTS).where(_LISTS.c.tenant_id == tenant))
            return Looked(found, {(row.list, row.region): row.drawn_at for row in lists})

    async def since(self, tenant: TenantId, at: datetime | None) -> tuple[list[str], bool, datetime | None]:
        """The company's list as it grew from `at` on, whether calls are stopped, and the latest entry."""
        which = [_ENTRIES.c.tenant_id == tenant, _ENTRIES.c.list == "company"]
        if at is not None:
            which.append(_ENTRIES.c.added_at >= at)
        async with self._database.read() as connection:
            rows = (await connection.execute(select(_ENTRIES.c.number, _ENTRIES.c.added_at).where(*which))).all()
            stop = await connection.execute(
                select(_ENTRIES.c.number).where(_ENTRIES.c.tenant_id == tenant, _ENTRIES.c.list == "stop")
            )
            latest = max((row.added_at for row in rows), default=at)
            return [row.number for row in rows], stop.first() is not None, latest

    async def summary(self, tenant: TenantId) -> list[dict[str, Any]]:
        async with self._database.read() as connection:
            rows = await connection.execute(
                select(_LISTS).where(_LISTS.c.tenant_id == tenant).order_by(_LISTS.c.list, _LISTS.c.region)
            )
            return [
                {"list": r.list, "region": r.region, "drawn_at": r.drawn_at.isoformat(), "numbers": r.numbers}
                for r in rows
            ]

    # --- attempts ---

    async def attempts(self, tenant: TenantId, number: str, since: datetime) -> tuple[datetime, ...]:
        async with self._database.read() as connection:
            return await self._attempts(connection, tenant, number, since)

    async def attempt(
        self, tenant: TenantId, number: str, at: datetime, since: datetime
    ) -> tuple[str, tuple[datetime, ...]]:
        """Note one, durably, and tell those before it: of two at once the second sees the first. Its id is for
        `not_tried`."""
        attempt_id = secrets.token_hex(12)
        async with self._database.writing() as connection:
            if self._database.dialect == "postgresql":
                await connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:n))"), {"n": number})
            before = await self._attempts(connection, tenant, number, since)
            row = {"tenant_id": tenant, "id": attempt_id, "number": number, "at": at}
            await connection.execute(insert(_ATTEMPTS), [row])
            await connection.execute(delete(_ATTEMPTS).where(_ATTEMPTS.c.at < at - ATTEMPTS_KEPT))
        return attempt_id, before

    async def _attempts(
        self, connection: AsyncConnection, tenant: TenantId, number: str, since: datetime
    ) -> tuple[datetime, ...]:
        found = await connection.scalars(
            select(_ATTEMPTS.c.at).where(
                _ATTEMPTS.c.tenant_id == tenant, _ATTEMPTS.c.number == number, _ATTEMPTS.c.at >= since
            )
        )
        return tuple(found)

    async def not_tried(self, tenant: TenantId, attempt_id: str) -> None:
        async with self._database.writing() as connection:
            await connection.execute(
                delete(_ATTEMPTS).where(_ATTEMPTS.c.tenant_id == tenant, _ATTEMPTS.c.id == attempt_id)
            )
