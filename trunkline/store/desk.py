"""`owned.DeskStore`: what admins own, in its tables. One writer for all kinds, so that each change of any of them is
checked, numbered and noted in the same way, in the transaction that makes it.

A transaction first raises the tenant's revision. That row is a lock as well: changes of one tenant's desk come one
after the other, in all processes, so what was looked at is still so when it is written. Other tenants are not held up.
"""

import asyncio
import base64
import binascii
import hashlib
import json
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, cast

from sqlalchemy import (
    Column,
    ColumnElement,
    RowMapping,
    Table,
    Text,
    delete,
    func,
    insert,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy import cast as as_type
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from trunkline.clock import Clock
from trunkline.errors import StoreError
from trunkline.hooks import EventType, Told
from trunkline.owned import Body, Changed, DeskError, Kept, KeptPage, New, Use, Version
from trunkline.privacy.texts import TextSeal
from trunkline.store import models
from trunkline.store.engine import Database, code_of, is_database, what_failed
from trunkline.store.hookspool import HookSpool
from trunkline.store.revisions import next_revision
from trunkline.types import TenantId

LIMIT_MAX = 500
_TOLD: dict[tuple[str, str], EventType] = {
    ("numbers", action): "number.changed" for action in ("create", "replace", "delete")
}
_TOLD |= {("agents", action): "agent.published" for action in ("publish", "roll_back")}
_BATCH = 500  # rows of one statement
_LOOKUP = 400  # keys of one question: databases have a most of parameters


@dataclass(frozen=True, slots=True)
class _Kind:
    table: Table
    key: str = "name"
    sealed: tuple[str, ...] = ()
    searched: tuple[str, ...] = ("name", "label")
    lists: tuple[str, ...] = ()
    """Fields that are asked whether they have an item."""

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.table.c if column.name not in _NOT_IN_A_BODY)

    @property
    def key_column(self) -> Any:
        return self.table.c[self.key]


_NOT_IN_A_BODY = {"tenant_id", "version", "created_at", "updated_at"}


def _table(model: type[models.Base]) -> Table:
    return cast(Table, model.__table__)


_KINDS = {
    "tenant": _Kind(_table(models.TenantTerms)),
    "carriers": _Kind(_table(models.CarrierRow), sealed=("auth_token", "api_secret")),
    "trunks": _Kind(_table(models.TrunkRow), sealed=("password", "auth_password")),
    "hours": _Kind(_table(models.HoursRow)),
    "agents": _Kind(_table(models.AgentRow)),
    "routes": _Kind(_table(models.RouteRow)),
    "numbers": _Kind(_table(models.NumberRow), "number", searched=("number", "label"), lists=("tags",)),
    "budgets": _Kind(_table(models.BudgetRow)),
}
_REVISIONS = _table(models.Revision)
_CHANGES, _NAMED, _VERSIONS = _table(models.Change), _table(models.Named), _table(models.AgentVersion)
_ROUTES = _KINDS["routes"].table.c
_SHARES = (_KINDS["numbers"].table.c.agents, _ROUTES.answer, _ROUTES.closed, _ROUTES.rules)
"""Where agents are named, and versions of them pinned."""
_SINGULAR = {"tenant": "tenant", "hours": "hours"}


def called(kind: str, key: str) -> str:
    """For people: `route office`."""
    return f"{_SINGULAR.get(kind, kind.removesuffix('s'))} {key}"


class Desk:
    def __init__(self, database: Database, clock: Clock, seal: TextSeal, hooks: HookSpool | None = None) -> None:
        """`seal`: of the secrets. `hooks`: told of changes, where somebody listens."""
        self._database, self._clock, self._seal, self._hooks = database, clock, seal, hooks

    # --- changing ---

    @asynccontextmanager
    async def changing(self, tenant: TenantId, actor: str, *, keep: bool = True) -> AsyncGenerator["Changes"]:
        try:
            async with self._database.write() as connection:
                changes = Changes(connection, tenant, actor, self._clock.wall(), self._seal)
                await changes.begin()
                yield changes
                await changes.end()
                if keep and self._hooks is not None:
                    await self._tell(self._hooks, changes)
                if not keep or not changes.parts:
                    raise _Undo
        except _Undo:
            pass
        except Exception as error:
            if not is_database(error):
                raise
            raise StoreError(f"the database is away ({what_failed(error)})") from error

    async def _tell(self, hooks: HookSpool, changes: "Changes") -> None:
        """Endpoints hear of numbers that changed and agents that were published or rolled back, with the change."""
        told = []
        for line in changes.lines:
            event = _TOLD.get((line["kind"], line["action"]))
            if event is not None:
                after = line["after"] or {}
                shown = {"published": after.get("published")} if event == "agent.published" else line["after"]
                data = {"key": line["key"], "action": line["action"], "by": line["actor"], "after": shown}
                told.append((f"change/{line['seq']}/{line['part']}", Told(event, changes.at, data)))
        if told:
            await hooks.tell_all(changes.connection, changes.tenant, told)

    # --- reading ---

    async def text(self, tenant: TenantId, agent: str, version: int) -> str | None:
        """`ports.AgentVersions`."""
        found = await self.version(tenant, agent, version)
        return None if found is None else found.script

    async def published(self, tenant: TenantId, agent: str) -> int | None:
        """`ports.AgentVersions`."""
        found = await self.get(tenant, "agents", agent)
        return None if found is None else found.body["published"]

    async def answering(self, most: int) -> list[str]:
        """The versions of agents that numbers and routes name, of all tenants, as `default/reception@3`: those that
        are published and those that are pinned. By turns of each tenant's, of which those changed last come first."""
        agents = _KINDS["agents"].table
        named = (_NAMED.c.tenant_id == agents.c.tenant_id) & (_NAMED.c.key == agents.c.name)
        published = (
            select(agents.c.tenant_id, agents.c.name, agents.c.published, agents.c.updated_at.label("at"))
            .where(agents.c.published.is_not(None))
            .where(select(_NAMED.c.key).where(named, _NAMED.c.kind == "agents").exists())
        )
        found: list[tuple[str, datetime, str]] = []
        async with self._database.read() as connection:
            for row in await connection.execute(_by_turns(published, most)):
                found.append((row.tenant_id, row.at, f"{row.tenant_id}/{row.name}@{row.published}"))
            for row in await connection.execute(_by_turns(union_all(*map(_pinning, _SHARES)), most)):
                keys = [f"{row.tenant_id}/{agent}@{version}" for agent, version in _pinned(json.loads(row.said))]
                found += [(row.tenant_id, row.at, key) for key in keys]
        return _fairly(found)[:most]

    async def get(self, tenant: TenantId, kind: str, key: str) -> Kept | None:
        async with self._database.read() as connection:
            return await _get(connection, tenant, kind, key)

    async def page(
        self,
        tenant: TenantId,
        kind: str,
        *,
        limit: int = 50,
        cursor: str | None = None,
        search: str = "",
        where: Mapping[str, Any] | None = None,
    ) -> KeptPage:
        if not 1 <= limit <= LIMIT_MAX:
            raise ValueError(f"limit = {limit}: 1 to {LIMIT_MAX}")
        known = _KINDS[kind]
        wanted: list[ColumnElement[bool]] = [known.table.c.tenant_id == tenant]
        for name, value in (where or {}).items():
            if name == "uses":
                wanted.append(known.key_column.in_(_users(tenant, kind, *value)))
            elif name in known.lists:
                wanted.append(as_type(known.table.c[name], Text).like(_like(f'"{value}"'), escape="\\"))
            else:
                wanted.append(known.table.c[name] == value)
        if search:
            like = _like(search.lower())
            wanted.append(or_(*(func.lower(known.table.c[name]).like(like, escape="\\") for name in known.searched)))
        if cursor is not None:
            wanted.append(known.key_column > _from_cursor(cursor))
        query = select(known.table).where(*wanted).order_by(known.key_column).limit(limit + 1)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        items = [_kept(kind, row) for row in rows[:limit]]
        return KeptPage(items, _to_cursor(items[-1].key) if len(rows) > limit else None)

    async def every(self, tenant: TenantId, kind: str) -> AsyncIterator[Kept]:
        cursor = None
        while True:
            page = await self.page(tenant, kind, limit=LIMIT_MAX, cursor=cursor)
            for item in page.items:
                yield item
            if (cursor := page.next_cursor) is None:
                return

    async def count(self, tenant: TenantId, kind: str) -> int:
        table = _KINDS[kind].table
        query = select(func.count()).select_from(table).where(table.c.tenant_id == tenant)
        async with self._database.read() as connection:
            return int((await connection.execute(query)).scalar_one())

    async def used_by(self, tenant: TenantId, kind: str, key: str, limit: int = 20) -> Sequence[Use]:
        async with self._database.read() as connection:
            return await _used_by(connection, tenant, kind, key, limit)

    async def versions(self, tenant: TenantId, agent: str) -> Sequence[Version]:
        mine = (_VERSIONS.c.tenant_id == tenant, _VERSIONS.c.agent == agent)
        query = select(_VERSIONS).where(*mine).order_by(_VERSIONS.c.number.desc())
        async with self._database.read() as connection:
            return [_version(row) for row in (await connection.execute(query)).mappings()]

    async def version(self, tenant: TenantId, agent: str, number: int) -> Version | None:
        async with self._database.read() as connection:
            return await _one_version(connection, tenant, agent, number)

    async def secret(self, tenant: TenantId, kind: str, key: str, name: str) -> str | None:
        known = _KINDS[kind]
        assert name in known.sealed
        query = select(known.table.c[name]).where(known.table.c.tenant_id == tenant, known.key_column == key)
        async with self._database.read() as connection:
            box = (await connection.execute(query)).scalar_one_or_none()
        if box is None:
            return None
        return await asyncio.to_thread(self._seal.open, box, _place(tenant, kind, key, name))

    async def trunks(self) -> Sequence[tuple[TenantId, Body]]:
        """Those of all tenants that are to be in force, with their passwords: for the process that speaks SIP."""
        known = _KINDS["trunks"]
        table = known.table
        query = select(table).where(table.c.enabled).order_by(table.c.tenant_id, table.c.name)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return await asyncio.to_thread(self._opened_trunks, rows) if rows else ()

    def _opened_trunks(self, rows: Sequence[RowMapping]) -> Sequence[tuple[TenantId, Body]]:
        """Raises StoreError for a key that is not there."""
        return [(TenantId(row["tenant_id"]), {**row, **self._opened("trunks", row)}) for row in rows]

    def _opened(self, kind: str, row: RowMapping) -> dict[str, str | None]:
        known = _KINDS[kind]
        key, tenant = row[known.key], TenantId(row["tenant_id"])
        return {
            name: row[name] and self._seal.open(row[name], _place(tenant, kind, key, name)) for name in known.sealed
        }

    async def budgets(self) -> Sequence[tuple[TenantId, Body]]:
        """Those of all tenants."""
        async with self._database.read() as connection:
            rows = (await connection.execute(select(_KINDS["budgets"].table))).mappings().all()
        return [(TenantId(row["tenant_id"]), dict(row)) for row in rows]

    async def revisions(self) -> int:
        """A number that is another one whenever anything of any tenant's was changed."""
        async with self._database.read() as connection:
            return int((await connection.execute(select(func.sum(_REVISIONS.c.desk)))).scalar_one() or 0)

    async def changes(
        self, tenant: TenantId, *, limit: int = 50, cursor: str | None = None, kind: str = "", key: str = ""
    ) -> tuple[Sequence[Changed], str | None]:
        if not 1 <= limit <= LIMIT_MAX:
            raise ValueError(f"limit = {limit}: 1 to {LIMIT_MAX}")
        wanted = [_CHANGES.c.tenant_id == tenant]
        if kind:
            wanted.append(_CHANGES.c.kind == kind)
        if key:
            wanted.append(_CHANGES.c.key == key)
        if cursor is not None:
            seq, _, part = _from_cursor(cursor).partition("/")
            if not (seq.isascii() and seq.isdigit() and part.isascii() and part.isdigit()):
                raise ValueError("not a cursor of ours")
            same = (_CHANGES.c.seq == int(seq)) & (_CHANGES.c.part < int(part))
            wanted.append(or_(_CHANGES.c.seq < int(seq), same))
        query = select(_CHANGES).where(*wanted).order_by(_CHANGES.c.seq.desc(), _CHANGES.c.part.desc())
        async with self._database.read() as connection:
            rows = (await connection.execute(query.limit(limit + 1))).mappings().all()
        found = [_changed(row) for row in rows[:limit]]
        return found, _to_cursor(f"{found[-1].seq}/{found[-1].part}") if len(rows) > limit else None

    async def revision(self, tenant: TenantId) -> int:
        query = select(_REVISIONS.c.desk).where(_REVISIONS.c.tenant_id == tenant)
        async with self._database.read() as connection:
            return (await connection.execute(query)).scalar_one_or_none() or 0


class _Undo(Exception):
    pass


@dataclass
class Changes:
    """`owned.Changing`."""

    connection: AsyncConnection
    tenant: TenantId
    actor: str
    at: datetime
    seal: TextSeal
    parts: int = 0
    _seq: int = 0
    _seen: dict[str, dict[str, Kept | None]] = field(default_factory=dict)
    _seen_all: set[str] = field(default_factory=set)
    lines: list[dict[str, Any]] = field(default_factory=list)
    """Of the audit, written at its end."""

    async def begin(self) -> None:
        self._seq = await next_revision(self.connection, self.tenant, self.at, of_desk=True)

    async def end(self) -> None:
        for some in _batches(self.lines):
            await self.connection.execute(insert(_CHANGES), some)

    async def get(self, kind: str, key: str) -> Kept | None:
        """Nobody else changes what was looked at, so it is looked at once."""
        seen = self._seen.get(kind)
        if seen is not None and (key in seen or kind in self._seen_all):
            return seen.get(key)
        found = await _get(self.connection, self.tenant, kind, key)
        self._seen.setdefault(kind, {})[key] = found
        return found

    async def all(self, kind: str) -> dict[str, Kept]:
        table = _KINDS[kind].table
        rows = (await self.connection.execute(select(table).where(table.c.tenant_id == self.tenant))).mappings()
        found = {kept.key: kept for kept in (_kept(kind, row) for row in rows)}
        self._seen[kind] = dict(found)
        self._seen_all.add(kind)
        return found

    def _look_again(self, kind: str, *keys: str) -> None:
        """At what this transaction has changed."""
        self._seen_all.discard(kind)
        for key in keys:
            self._seen.get(kind, {}).pop(key, None)

    async def create(self, new: Iterable[New]) -> None:
        by_kind: defaultdict[str, list[New]] = defaultdict(list)
        for each in new:
            by_kind[each.kind].append(each)
        for kind, some in by_kind.items():
            await self._create(kind, some)

    async def _create(self, kind: str, some: Sequence[New]) -> None:
        known = _KINDS[kind]
        keys = [each.key for each in some]
        taken = await self._there(kind, keys, every_tenant=kind == "numbers")
        if taken or len(set(keys)) < len(keys):
            which = next(iter(taken), None) or next(key for key in keys if keys.count(key) > 1)
            raise DeskError(
                "taken", f"{called(kind, which)} is there already", {known.key: "one that is not there yet"}
            )
        await self._known(some)
        stamps = {"tenant_id": self.tenant, "version": 1, "created_at": self.at, "updated_at": self.at}
        try:
            for part in _batches(some):
                rows = [{**self._row(known, each), **stamps} for each in part]
                await self.connection.execute(insert(known.table), rows)
                await asyncio.sleep(0)  # calls go on while many are made
        except IntegrityError as error:  # another tenant's number, at the same moment
            if code_of(error) not in ("23505", "SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"):
                raise
            raise DeskError("taken", f"one of these {kind} is there already") from None
        await self._name(some)
        self._look_again(kind, *keys)
        for each in some:
            self._line("create", kind, each.key, None, _without_secrets(known, each.body))

    async def replace(self, new: New, if_version: int | None = None, action: str = "replace") -> Kept:
        known = _KINDS[new.kind]
        before = await self._at_version(new.kind, new.key, if_version)
        await self._known([new])
        row = self._row(known, new)
        for name in known.sealed:
            if row[name] is None:
                del row[name]
        body = _without_secrets(known, new.body)
        if body == before.body and not any(new.body.get(name) for name in known.sealed):
            return before
        changed = {**row, "version": before.version + 1, "updated_at": self.at}
        await self.connection.execute(update(known.table).where(*self._mine(known, new.key)).values(changed))
        named = (_NAMED.c.tenant_id == self.tenant, _NAMED.c.by_kind == new.kind, _NAMED.c.by_key == new.key)
        await self.connection.execute(delete(_NAMED).where(*named))
        await self._name([new])
        secrets = {f"{name}_changed": True for name in known.sealed if new.body.get(name)}
        self._line(action, new.kind, new.key, before.body, {**body, **secrets})
        kept = before.secrets | {name for name in known.sealed if new.body.get(name)}
        after = replace(before, body=body, version=before.version + 1, updated_at=self.at, secrets=kept)
        self._seen.setdefault(new.kind, {})[new.key] = after
        return after

    async def delete(self, kind: str, key: str, if_version: int | None = None) -> None:
        known = _KINDS[kind]
        before = await self._at_version(kind, key, if_version)
        by = await _used_by(self.connection, self.tenant, kind, key, 6)
        if by:
            names = ", ".join(called(*each) for each in by[:5]) + (", ..." if len(by) > 5 else "")
            raise DeskError("in_use", f"{called(kind, key)} is in use by {names}: change or delete these first")
        named = (_NAMED.c.tenant_id == self.tenant, _NAMED.c.by_kind == kind, _NAMED.c.by_key == key)
        await self.connection.execute(delete(_NAMED).where(*named))
        await self.connection.execute(delete(known.table).where(*self._mine(known, key)))
        self._look_again(kind, key)
        self._line("delete", kind, key, before.body, None)

    async def add_version(self, agent: str, script: str, note: str) -> Version:
        mine = (_VERSIONS.c.tenant_id == self.tenant, _VERSIONS.c.agent == agent)
        last = (await self.connection.execute(select(func.max(_VERSIONS.c.number)).where(*mine))).scalar_one()
        number = max(last or 0, await self._last_version_before(agent)) + 1
        sha256 = hashlib.sha256(script.encode()).hexdigest()
        made = Version(agent, number, script, sha256, note, self.actor, self.at)
        row = {name: getattr(made, name) for name in made.__slots__}
        await self.connection.execute(insert(_VERSIONS).values(tenant_id=self.tenant, **row))
        self._line("add_version", "agents", agent, None, {"version": made.number, "sha256": sha256, "note": note})
        return made

    async def _last_version_before(self, agent: str) -> int:
        """Of an agent of this name that was deleted: numbers are not given twice, since processes and records know a
        version by its number."""
        lines = (_CHANGES.c.tenant_id == self.tenant, _CHANGES.c.kind == "agents", _CHANGES.c.key == agent)
        query = select(_CHANGES.c.after).where(*lines, _CHANGES.c.action == "add_version")
        found = (await self.connection.execute(query.order_by(_CHANGES.c.seq.desc()).limit(1))).scalar_one_or_none()
        return int(found["version"]) if found else 0

    async def version(self, agent: str, number: int) -> Version | None:
        return await _one_version(self.connection, self.tenant, agent, number)

    async def note(self, action: str, kind: str, key: str, before: Body | None, after: Body | None) -> None:
        self._line(action, kind, key, before, after)

    # --- parts of it ---

    def _row(self, known: _Kind, new: New) -> dict[str, Any]:
        row = {name: new.body[name] for name in known.fields}
        for name in known.sealed:
            if row[name] is not None:
                row[name] = self.seal.seal(row[name], _place(self.tenant, new.kind, new.key, name))
        return row

    def _mine(self, known: _Kind, key: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
        return known.table.c.tenant_id == self.tenant, known.key_column == key

    async def _at_version(self, kind: str, key: str, if_version: int | None) -> Kept:
        found = await self.get(kind, key)
        if found is None:
            raise DeskError("not_found", f"there is no {called(kind, key)}")
        if if_version is not None and found.version != if_version:
            raise DeskError(
                "stale", f"{called(kind, key)} was changed meanwhile (it is at {found.version}): look at it again"
            )
        return found

    async def _there(self, kind: str, keys: Sequence[str], *, every_tenant: bool = False) -> set[str]:
        known = _KINDS[kind]
        found: set[str] = set()
        for some in _batches(list(dict.fromkeys(keys)), _LOOKUP):
            wanted = [known.key_column.in_(some)]
            if not every_tenant:
                wanted.append(known.table.c.tenant_id == self.tenant)
            found |= set((await self.connection.execute(select(known.key_column).where(*wanted))).scalars())
        return found

    async def _known(self, some: Sequence[New]) -> None:
        wanted: defaultdict[str, list[str]] = defaultdict(list)
        for each in some:
            for kind, key in each.uses:
                wanted[kind].append(key)
        for kind, keys in wanted.items():
            missing = set(keys) - await self._there(kind, keys)
            if missing:
                name = min(missing)
                of = next(each for each in some if (kind, name) in each.uses)
                raise DeskError(
                    "unknown_name", f"{called(of.kind, of.key)} names the {called(kind, name)}, which is not there"
                )

    async def _name(self, some: Sequence[New]) -> None:
        rows = [
            {"tenant_id": self.tenant, "kind": kind, "key": key, "by_kind": each.kind, "by_key": each.key}
            for each in some
            for kind, key in dict.fromkeys(each.uses)
        ]
        for part in _batches(rows):
            await self.connection.execute(insert(_NAMED), part)

    def _line(self, action: str, kind: str, key: str, before: Body | None, after: Body | None) -> None:
        told = {"action": action, "kind": kind, "key": key, "before": before, "after": after}
        self.lines.append(
            {"tenant_id": self.tenant, "seq": self._seq, "part": self.parts, "at": self.at, "actor": self.actor, **told}
        )
        self.parts += 1


def _pinning(column: Column[Any]) -> Any:
    """Each of its values once that names a version, as text, and when that was written last."""
    table, said = column.table.c, as_type(column, Text)
    return (
        select(table.tenant_id, said.label("said"), func.max(table.updated_at).label("at"))
        .where(func.replace(said, '"version": null', "").like('%"version": %'))
        .group_by(table.tenant_id, said)
    )


def _by_turns(query: Any, most: int) -> Any:
    """`most` of its rows: of each tenant the one with the latest `at`, of each the next, and so on."""
    rows = query.subquery()
    turn = func.row_number().over(partition_by=rows.c.tenant_id, order_by=rows.c.at.desc())
    ranked = select(*rows.c, turn.label("turn")).subquery()
    return select(ranked).order_by(ranked.c.turn, ranked.c.at.desc()).limit(most)


def _pinned(value: Any) -> Iterator[tuple[str, int]]:
    """Of an answer, rules or shares as JSON."""
    if isinstance(value, list):
        for each in value:
            yield from _pinned(each)
    elif isinstance(value, dict):
        if value.get("version") is not None and "agent" in value:
            yield value["agent"], value["version"]
        for each in value.values():
            yield from _pinned(each)


def _fairly(found: Iterable[tuple[str, datetime, str]]) -> list[str]:
    """Of (tenant, at, key): each key once, the tenants by turns."""
    turns: defaultdict[str, dict[str, int]] = defaultdict(dict)
    ranked: list[tuple[int, str]] = []
    for tenant, _, key in sorted(found, key=lambda each: each[1], reverse=True):
        if key not in turns[tenant]:
            turns[tenant][key] = len(turns[tenant])
            ranked.append((turns[tenant][key], key))
    return [key for _, key in sorted(ranked, key=lambda each: each[0])]


def _batches(rows: Sequence[Any], most: int = _BATCH) -> Iterable[Sequence[Any]]:
    for start in range(0, len(rows), most):
        yield rows[start : start + most]


async def _get(connection: AsyncConnection, tenant: TenantId, kind: str, key: str) -> Kept | None:
    known = _KINDS[kind]
    query = select(known.table).where(known.table.c.tenant_id == tenant, known.key_column == key)
    row = (await connection.execute(query)).mappings().one_or_none()
    return None if row is None else _kept(kind, row)


async def _used_by(connection: AsyncConnection, tenant: TenantId, kind: str, key: str, limit: int) -> list[Use]:
    mine = (_NAMED.c.tenant_id == tenant, _NAMED.c.kind == kind, _NAMED.c.key == key)
    order = (_NAMED.c.by_kind, _NAMED.c.by_key)
    query = select(*order).where(*mine).order_by(*order).limit(limit)
    return [(row.by_kind, row.by_key) for row in await connection.execute(query)]


async def _one_version(connection: AsyncConnection, tenant: TenantId, agent: str, number: int) -> Version | None:
    mine = (_VERSIONS.c.tenant_id == tenant, _VERSIONS.c.agent == agent, _VERSIONS.c.number == number)
    row = (await connection.execute(select(_VERSIONS).where(*mine))).mappings().one_or_none()
    return None if row is None else _version(row)


def _users(tenant: TenantId, by_kind: str, kind: str, key: str) -> Any:
    mine = (_NAMED.c.tenant_id == tenant, _NAMED.c.by_kind == by_kind, _NAMED.c.kind == kind, _NAMED.c.key == key)
    return select(_NAMED.c.by_key).where(*mine)


def _kept(kind: str, row: RowMapping) -> Kept:
    known = _KINDS[kind]
    body = {name: None if name in known.sealed else row[name] for name in known.fields}
    secrets = frozenset(name for name in known.sealed if row[name] is not None)
    return Kept(kind, str(body[known.key]), body, row["version"], row["created_at"], row["updated_at"], secrets)


def _without_secrets(known: _Kind, body: Body) -> dict[str, Any]:
    return {name: None if name in known.sealed else body[name] for name in known.fields}


def _version(row: RowMapping) -> Version:
    return Version(*(row[name] for name in Version.__slots__))


def _changed(row: RowMapping) -> Changed:
    return Changed(*(row[name] for name in Changed.__slots__))


def _place(tenant: TenantId, kind: str, key: str, name: str) -> str:
    return f"desk/{tenant}/{kind}/{key}/{name}"


def _like(text: str) -> str:
    plain = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{plain}%"


def _to_cursor(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def _from_cursor(cursor: str) -> str:
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise ValueError("not a cursor of ours") from None
