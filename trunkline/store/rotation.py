"""Under which keys the rows stand, and all of them under the current one.

They are taken a few at a time, each few in a transaction that writes: nobody changes them meanwhile, and whoever is
stopped begins again where it was. What cannot be opened stays as it is, and is counted.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from sqlalchemy import Table, Text, or_, select, update
from sqlalchemy import cast as as_type

from trunkline.errors import StoreError
from trunkline.privacy.texts import TextSeal, key_of
from trunkline.store import models
from trunkline.store.engine import Database
from trunkline.store.sealing import (
    SEALED,
    Row,
    beyond,
    box_of,
    is_row,
    keys_of,
    not_under,
    opened_value,
    portions,
    sealed_rows,
)

IN_CLEAR = "(in clear)"
_PORTION = 200
_CALLS = cast(Table, models.Call.__table__)


@dataclass(slots=True)
class Rotated:
    rows: int = 0
    left: Counter[str] = field(default_factory=Counter)
    """Why something stays as it is, and how much."""


async def rows_by_key(database: Database) -> Counter[str]:
    found: Counter[str] = Counter()
    for table, names in SEALED.items():
        something = or_(*(as_type(table.c[name], Text).not_in(("", "{}", "null")) for name in names))
        async for rows in portions(database, table, something):
            for row in rows:
                boxes = [box_of(row[name]) for name in names if row[name]]
                found.update({IN_CLEAR if box is None else key_of(box) for box in boxes})
    return found


async def rotate_rows(database: Database, seal: TextSeal, done: Rotated) -> None:
    """Raises StoreError when the database is away."""
    for table in SEALED:
        await _rotate_table(database, table, seal, done)


async def _rotate_table(database: Database, table: Table, seal: TextSeal, done: Rotated) -> None:
    after: Row | None = None
    while True:
        async with database.writing() as connection:
            found = await connection.execute(
                select(table)
                .where(*beyond(table, after), not_under(table, seal.key))
                .order_by(*(table.c[name] for name in keys_of(table)))
                .limit(_PORTION)
                .with_for_update()
            )
            rows = [dict(row) for row in found.mappings()]
            if not rows:
                return
            for row in await asyncio.to_thread(_sealed_anew, table, rows, seal, done):
                anew = {name: row[name] for name in SEALED[table]}
                await connection.execute(update(table).where(is_row(table, row)).values(anew))
        after = rows[-1]


def _sealed_anew(table: Table, rows: Sequence[Row], seal: TextSeal, done: Rotated) -> list[Row]:
    opened = []
    for row in rows:
        try:
            opened.append(row | {name: opened_value(seal, table, name, row) for name in SEALED[table]})
        except StoreError as error:
            done.left[str(error)] += 1
    done.rows += len(opened)
    return sealed_rows(seal, table, opened)


async def live_calls(database: Database) -> frozenset[str]:
    async with database.read() as connection:
        return frozenset(await connection.scalars(select(_CALLS.c.id).where(_CALLS.c.ended_at.is_(None))))
