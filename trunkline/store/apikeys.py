"""`identity.Keys`: programs of a tenant, and what they may."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Row, Table, delete, insert, select, update

from trunkline.clock import Clock
from trunkline.identity import AccountError, Body, Key, NewKey, Scope
from trunkline.store import models
from trunkline.store.accounts import Change, changing
from trunkline.store.engine import Database
from trunkline.types import TenantId

_KEYS = cast(Table, models.ApiKey.__table__)


class ApiKeys:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    async def keys(self, tenant: TenantId, *, limit: int, after: str = "") -> Sequence[Key]:
        mine = (_KEYS.c.tenant_id == tenant, _KEYS.c.name > after)
        async with self._database.read() as connection:
            rows = await connection.execute(select(_KEYS).where(*mine).order_by(_KEYS.c.name).limit(limit))
            return [_key(row) for row in rows]

    async def key(self, tenant: TenantId, name: str) -> Key | None:
        async with self._database.read() as connection:
            mine = (_KEYS.c.tenant_id == tenant, _KEYS.c.name == name)
            row = (await connection.execute(select(_KEYS).where(*mine))).one_or_none()
        return None if row is None else _key(row)

    async def by_id(self, key_id: str) -> Key | None:
        async with self._database.read() as connection:
            row = (await connection.execute(select(_KEYS).where(_KEYS.c.id == key_id))).one_or_none()
        return None if row is None else _key(row)

    async def create_key(self, tenant: TenantId, actor: str, new: NewKey) -> Key:
        async with changing(self._database, self._clock, tenant, actor) as change:
            if await _get(change, new.name) is not None:
                raise AccountError("taken", f"there is a key {new.name} already", {"name": "one that is not there yet"})
            made = Key(
                tenant=tenant,
                name=new.name,
                id=new.id,
                sha256=new.sha256,
                scopes=new.scopes,
                version=1,
                created_at=change.at,
                updated_at=change.at,
                created_by=actor,
                label=new.label,
                expires_at=new.expires_at,
            )
            row = {name: getattr(made, name) for name in Key.__slots__ if name not in ("tenant", "scopes")}
            await change.connection.execute(insert(_KEYS).values(tenant_id=tenant, scopes=sorted(made.scopes), **row))
            await change.note("create", "keys", new.name, None, _shown(made))
            return made

    async def change_key(
        self, tenant: TenantId, actor: str, name: str, changes: Body, if_version: int | None = None
    ) -> Key:
        async with changing(self._database, self._clock, tenant, actor) as change:
            before = await _at_version(change, name, if_version)
            after = replace(before, **changes)
            if after == before:
                return before
            after = replace(after, version=before.version + 1, updated_at=change.at)
            row = {field: getattr(after, field) for field in (*changes, "version", "updated_at")}
            if "scopes" in row:
                row["scopes"] = sorted(after.scopes)
            await change.connection.execute(update(_KEYS).where(*_mine(change, name)).values(row))
            await change.note("replace", "keys", name, _shown(before), _shown(after))
            return after

    async def delete_key(self, tenant: TenantId, actor: str, name: str, if_version: int | None = None) -> Key:
        async with changing(self._database, self._clock, tenant, actor) as change:
            before = await _at_version(change, name, if_version)
            await change.connection.execute(delete(_KEYS).where(*_mine(change, name)))
            await change.note("delete", "keys", name, _shown(before))
            return before

    async def used(self, key_id: str) -> None:
        async with self._database.writing() as connection:
            await connection.execute(update(_KEYS).where(_KEYS.c.id == key_id).values(used_at=self._clock.wall()))


async def _get(change: Change, name: str) -> Key | None:
    row = (await change.connection.execute(select(_KEYS).where(*_mine(change, name)))).one_or_none()
    return None if row is None else _key(row)


async def _at_version(change: Change, name: str, if_version: int | None) -> Key:
    found = await _get(change, name)
    if found is None:
        raise AccountError("not_found", f"there is no key {name}")
    if if_version is not None and found.version != if_version:
        raise AccountError("stale", f"key {name} was changed meanwhile (it is at {found.version}): look at it again")
    return found


def _mine(change: Change, name: str) -> tuple[Any, Any]:
    return _KEYS.c.tenant_id == change.tenant, _KEYS.c.name == name


def _shown(key: Key) -> dict[str, Any]:
    """For the audit."""
    expires: datetime | None = key.expires_at
    return {
        "name": key.name,
        "label": key.label,
        "id": key.id,
        "scopes": sorted(key.scopes),
        "enabled": key.enabled,
        "expires_at": None if expires is None else expires.isoformat(),
    }


def _key(row: Row[Any]) -> Key:
    given = row._mapping
    rest = {name: given[name] for name in Key.__slots__ if name not in ("tenant", "scopes")}
    return Key(tenant=TenantId(row.tenant_id), scopes=frozenset(cast(list[Scope], row.scopes)), **rest)
