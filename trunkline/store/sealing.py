"""Which columns hold what people said, and how they stand in the database where there are keys (privacy.texts).

Sealed are the words of turns, what events say, what waits for its call, what webhooks tell and the secrets they are
signed with. Each is bound to its table, column and row. By what records are found stands in clear: numbers, ids, times,
kinds.
"""

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, cast

from sqlalchemy import Table, Text, and_, literal, not_, or_, select, tuple_
from sqlalchemy import cast as as_type

from trunkline.errors import StoreError
from trunkline.privacy.texts import NO_KEYS, TextSeal, is_sealed, key_of, sealed_under
from trunkline.store import models
from trunkline.store.engine import Database

Row = dict[str, Any]

TURNS = cast(Table, models.TurnRow.__table__)
EVENTS = cast(Table, models.CallEventRow.__table__)
UNPLACED = cast(Table, models.UnplacedEvent.__table__)
ENDPOINTS = cast(Table, models.WebhookEndpoint.__table__)
DELIVERIES = cast(Table, models.WebhookDelivery.__table__)
SEALED: Mapping[Table, tuple[str, ...]] = {
    TURNS: ("caller_text", "agent_text", "cut_text"),
    EVENTS: ("data",),
    UNPLACED: ("body",),
    ENDPOINTS: ("secret", "previous_secret"),
    DELIVERIES: ("body",),
}
_BOX = "sealed"  # the one key of sealed JSON
_PORTION = 500


def keys_of(table: Table) -> tuple[str, ...]:
    """The columns that name a row."""
    return tuple(column.name for column in table.primary_key)


def is_row(table: Table, row: Mapping[Any, Any]) -> Any:
    """The condition that it is this one."""
    return and_(*(table.c[name] == row[name] for name in keys_of(table)))


def _place(table: Table, column: str, row: Mapping[Any, Any]) -> str:
    if table in (ENDPOINTS, DELIVERIES):
        return "/".join([table.name, column, *(row[name] for name in keys_of(table))])
    return f"{table.name}/{column}/{row.get('tenant_id', '')}/{row['call_id']}/{row['run']}/{row['seq']}"


def sealed_rows(seal: TextSeal | None, table: Table, rows: Iterable[Row]) -> list[Row]:
    """As they are written."""
    if seal is None or table not in SEALED:
        return list(rows)
    return [row | {name: _sealed(seal, row[name], _place(table, name, row)) for name in SEALED[table]} for row in rows]


def _sealed(seal: TextSeal, value: Any, place: str) -> Any:
    if isinstance(value, str):
        return seal.seal(value, place)
    return {_BOX: seal.seal(json.dumps(value, ensure_ascii=False), place)} if value else value


def box_of(value: Any) -> str | None:
    """The sealed text that a column holds; None: it is in clear."""
    if isinstance(value, Mapping) and list(value) == [_BOX]:
        value = value[_BOX]
    return value if isinstance(value, str) and is_sealed(value) else None


def opened_value(seal: TextSeal | None, table: Table, name: str, row: Mapping[Any, Any]) -> Any:
    """Raises StoreError, naming the key."""
    value = row[name]
    box = box_of(value)
    if box is None:
        return value
    if seal is None:
        raise StoreError(f"the key {key_of(box)!r} is needed: {NO_KEYS}")
    text = seal.open(box, _place(table, name, row))
    return json.loads(text) if isinstance(value, Mapping) else text


def opened_row(seal: TextSeal | None, table: Table, row: Mapping[Any, Any]) -> Row:
    """To show: what cannot be opened says why, in its place, and nothing else is missing."""
    opened = dict(row)
    for name in SEALED.get(table, ()):
        try:
            opened[name] = opened_value(seal, table, name, row)
        except StoreError as error:
            opened[name] = f"[sealed: {error}]" if isinstance(row[name], str) else {_BOX: str(error)}
    return opened


def is_locked(value: Any) -> bool:
    """What `opened_row` gave says only why it could not be opened."""
    return isinstance(value, Mapping) and list(value) == [_BOX]


def has_sealed(rows: Iterable[Mapping[Any, Any]], table: Table) -> bool:
    return any(box_of(row[name]) for row in rows for name in SEALED.get(table, ()))


def begins(name: str, key: str | None) -> Sequence[str]:
    """What a column of that kind begins with when it is sealed, under `key` or any."""
    head = sealed_under(key) if key is not None else "sealed:1:"
    return (head,) if name != "data" else (json.dumps({_BOX: head})[:-2],)


def is_under(table: Table, name: str, key: str | None = None) -> Any:
    """The condition that a column is sealed, under that key or any."""
    column = as_type(table.c[name], Text)
    return or_(*(column.startswith(head, autoescape=True) for head in begins(name, key)))


def not_under(table: Table, key: str) -> Any:
    """The condition that a row has something to be sealed under `key`."""
    return or_(
        *(
            and_(as_type(table.c[name], Text).not_in(("", "{}", "null")), not_(is_under(table, name, key)))
            for name in SEALED[table]
        )
    )


async def portions(database: Database, table: Table, *where: Any) -> AsyncIterator[list[Row]]:
    """Rows by their key, some hundred at a time, each in a transaction of its own."""
    after: Row | None = None
    while True:
        async with database.read() as connection:
            found = await connection.execute(
                select(table)
                .where(*beyond(table, after), *where)
                .order_by(*(table.c[name] for name in keys_of(table)))
                .limit(_PORTION)
            )
            rows = [dict(row) for row in found.mappings()]
        if not rows:
            return
        yield rows
        after = rows[-1]


def beyond(table: Table, after: Row | None) -> tuple[Any, ...]:
    """The condition that a row comes after that one, by their keys."""
    if after is None:
        return ()
    columns = [table.c[name] for name in keys_of(table)]
    return (tuple_(*columns) > tuple_(*(literal(after[column.name], column.type) for column in columns)),)
