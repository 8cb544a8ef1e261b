"""`identity.Users` and `identity.Sessions`: who may use the console of which tenant, and who is signed in.

What changes something raises the tenant's revision first. That row is a lock as well: of two changes of a tenant's
users one waits for the other, in all processes, so there is always an admin left.
"""

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Row, Table, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from trunkline.clock import Clock
from trunkline.identity import AccountError, Body, NewUser, Role, Session, User
from trunkline.store import models
from trunkline.store.engine import Database
from trunkline.store.revisions import next_revision
from trunkline.types import DEFAULT_TENANT, TenantId

_USERS, _KEYS = cast(Table, models.User.__table__), cast(Table, models.ApiKey.__table__)
_SESSIONS, _LINKS = cast(Table, models.UserSession.__table__), cast(Table, models.UserLink.__table__)
_CHANGES = cast(Table, models.Change.__table__)
_SHOWN = ("name", "label", "email", "role", "enabled")
_MAX_NAME = 40
_EXPIRED_AT_ONCE = 1000


@dataclass
class Change:
    """A transaction of one tenant's that changes something, with its line in the audit."""

    connection: AsyncConnection
    tenant: TenantId
    actor: str
    at: datetime
    seq: int
    _parts: int = 0

    async def note(
        self, action: str, kind: str, key: str, before: Body | None = None, after: Body | None = None
    ) -> None:
        told = {"action": action, "kind": kind, "key": key, "before": before, "after": after}
        row = {"tenant_id": self.tenant, "seq": self.seq, "part": self._parts, "at": self.at, "actor": self.actor}
        await self.connection.execute(insert(_CHANGES).values({**row, **told}))
        self._parts += 1


@asynccontextmanager
async def changing(database: Database, clock: Clock, tenant: TenantId, actor: str) -> AsyncGenerator[Change]:
    """Raises StoreError."""
    now = clock.wall()
    async with database.writing() as connection:
        seq = await next_revision(connection, tenant, now, of_desk=False)
        yield Change(connection, tenant, actor, now, seq)


class Accounts:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    async def note(
        self,
        tenant: TenantId,
        actor: str,
        action: str,
        kind: str,
        key: str,
        before: Body | None = None,
        after: Body | None = None,
    ) -> None:
        async with changing(self._database, self._clock, tenant, actor) as change:
            await change.note(action, kind, key, before, after)

    # --- users ---

    async def locked(self) -> bool:
        async with self._database.read() as connection:
            for table in (_USERS, _KEYS):
                if (await connection.execute(select(table.c.name).limit(1))).first() is not None:
                    return True
        return False

    async def has_admin(self) -> bool:
        async with self._database.read() as connection:
            return await _has_admin(connection)

    async def users(self, tenant: TenantId, *, limit: int, after: str = "") -> Sequence[User]:
        mine = (_USERS.c.tenant_id == tenant, _USERS.c.name > after)
        async with self._database.read() as connection:
            rows = await connection.execute(select(_USERS).where(*mine).order_by(_USERS.c.name).limit(limit))
            return [_user(row) for row in rows]

    async def user(self, tenant: TenantId, name: str) -> User | None:
        return await self._one(_USERS.c.tenant_id == tenant, _USERS.c.name == name)

    async def by_email(self, email: str) -> User | None:
        return await self._one(_USERS.c.email == email.strip().lower())

    async def by_subject(self, subject: str) -> User | None:
        return await self._one(_USERS.c.oidc_subject == subject)

    async def _one(self, *wanted: Any) -> User | None:
        async with self._database.read() as connection:
            row = (await connection.execute(select(_USERS).where(*wanted))).one_or_none()
        return None if row is None else _user(row)

    async def create_user(self, tenant: TenantId, actor: str, new: NewUser) -> User:
        async with changing(self._database, self._clock, tenant, actor) as change:
            return await _create(change, new)

    async def create_first(self, new: NewUser) -> User | None:
        async with changing(self._database, self._clock, DEFAULT_TENANT, "setup") as change:
            if await _has_admin(change.connection):
                return None
            return await _create(change, new)

    async def change_user(
        self, tenant: TenantId, actor: str, name: str, changes: Body, if_version: int | None = None
    ) -> User:
        async with changing(self._database, self._clock, tenant, actor) as change:
            before = await _at_version(change, name, if_version)
            new = dict(changes)
            if "email" in new:
                new["email"] = new["email"].strip().lower()
            if all(getattr(before, field) == value for field, value in new.items()):
                return before
            if before.role == "admin" and (new.get("role", "admin") != "admin" or not new.get("enabled", True)):
                await _another_admin(change, name)
            row = {**new, "version": before.version + 1, "updated_at": change.at}
            try:
                await change.connection.execute(update(_USERS).where(*_mine(change, name)).values(row))
            except IntegrityError:
                raise _taken_email() from None
            after = await _get(change, name)
            assert after is not None
            await change.note("replace", "users", name, _shown(before), {**_shown(after), **_secretly(new)})
            if {"password_hash", "role", "enabled", "email"} & new.keys():
                await _out(change.connection, tenant, name)
            return after

    async def rehash(self, user: User, password_hash: str) -> User:
        mine = (_USERS.c.tenant_id == user.tenant, _USERS.c.name == user.name)
        same = _USERS.c.password_hash == user.password_hash
        async with self._database.writing() as connection:
            changed = await connection.execute(update(_USERS).where(*mine, same).values(password_hash=password_hash))
        return replace(user, password_hash=password_hash) if changed.rowcount == 1 else user

    async def delete_user(self, tenant: TenantId, actor: str, name: str, if_version: int | None = None) -> None:
        async with changing(self._database, self._clock, tenant, actor) as change:
            before = await _at_version(change, name, if_version)
            if before.role == "admin":
                await _another_admin(change, name)
            await change.connection.execute(delete(_USERS).where(*_mine(change, name)))  # sessions and links with it
            await change.note("delete", "users", name, _shown(before))

    # --- sessions ---

    async def open_session(
        self, user: User, sha256: str, expires_at: datetime, agent: str, instead_of: str | None = None
    ) -> None:
        now = self._clock.wall()
        row = {
            "sha256": sha256,
            "tenant_id": user.tenant,
            "user": user.name,
            "created_at": now,
            "seen_at": now,
            "expires_at": expires_at,
            "agent": agent,
        }
        async with self._database.writing() as connection:
            old = select(_SESSIONS.c.sha256).where(_SESSIONS.c.expires_at <= now).limit(_EXPIRED_AT_ONCE)
            await connection.execute(
                delete(_SESSIONS).where(or_(_SESSIONS.c.sha256 == instead_of, _SESSIONS.c.sha256.in_(old)))
            )
            await connection.execute(insert(_SESSIONS).values(row))

    async def session(self, sha256: str) -> Session | None:
        both = select(*_SESSIONS.c, *(column.label(f"user_{column.name}") for column in _USERS.c)).join_from(
            _SESSIONS, _USERS, (_SESSIONS.c.tenant_id == _USERS.c.tenant_id) & (_SESSIONS.c.user == _USERS.c.name)
        )
        async with self._database.read() as connection:
            row = (await connection.execute(both.where(_SESSIONS.c.sha256 == sha256))).mappings().one_or_none()
        if row is None:
            return None
        user = _user({column.name: row[f"user_{column.name}"] for column in _USERS.c})
        return _session(row, user) if user.enabled else None

    async def seen(self, sha256: str) -> None:
        async with self._database.writing() as connection:
            await connection.execute(
                update(_SESSIONS).where(_SESSIONS.c.sha256 == sha256).values(seen_at=self._clock.wall())
            )

    async def close_session(self, sha256: str) -> None:
        async with self._database.writing() as connection:
            await connection.execute(delete(_SESSIONS).where(_SESSIONS.c.sha256 == sha256))

    async def close_sessions(self, tenant: TenantId, name: str, but: str | None = None) -> int:
        async with self._database.writing() as connection:
            return await _close(connection, tenant, name, but)

    async def sessions_of(self, tenant: TenantId, name: str) -> Sequence[Session]:
        user = await self.user(tenant, name)
        if user is None:
            return []
        mine = (_SESSIONS.c.tenant_id == tenant, _SESSIONS.c.user == name, _SESSIONS.c.expires_at > self._clock.wall())
        async with self._database.read() as connection:
            rows = await connection.execute(select(_SESSIONS).where(*mine).order_by(_SESSIONS.c.created_at.desc()))
            return [_session(row, user) for row in rows.mappings()]

    # --- links ---

    async def open_link(self, sha256: str, user: User | None, expires_at: datetime) -> None:
        row = {
            "sha256": sha256,
            "tenant_id": None if user is None else user.tenant,
            "user": None if user is None else user.name,
            "expires_at": expires_at,
        }
        async with self._database.writing() as connection:
            await connection.execute(delete(_LINKS).where(_LINKS.c.expires_at <= self._clock.wall()))
            await connection.execute(insert(_LINKS).values(row))

    async def link(self, sha256: str) -> tuple[User | None] | None:
        there = (_LINKS.c.sha256 == sha256, _LINKS.c.expires_at > self._clock.wall())
        async with self._database.read() as connection:
            row = (await connection.execute(select(_LINKS).where(*there))).one_or_none()
        if row is None:
            return None
        if row.user is None:
            return (None,)
        user = await self.user(TenantId(row.tenant_id), row.user)
        return (user,) if user is not None and user.enabled else None

    async def close_link(self, sha256: str) -> bool:
        there = (_LINKS.c.sha256 == sha256, _LINKS.c.expires_at > self._clock.wall())
        async with self._database.writing() as connection:
            return (await connection.execute(delete(_LINKS).where(*there))).rowcount == 1


async def _create(change: Change, new: NewUser) -> User:
    email = new.email.strip().lower()
    name = new.name or await _free_name(change, email)
    if await _get(change, name) is not None:
        raise AccountError("taken", f"there is a user {name} already", {"name": "one that is not there yet"})
    row = {
        "tenant_id": change.tenant,
        "name": name,
        "label": new.label,
        "email": email,
        "role": new.role,
        "enabled": True,
        "password_hash": new.password_hash,
        "oidc_subject": new.oidc_subject,
        "version": 1,
        "created_at": change.at,
        "updated_at": change.at,
    }
    try:
        await change.connection.execute(insert(_USERS).values(row))
    except IntegrityError:
        raise _taken_email() from None
    made = _user(row)
    await change.note("create", "users", name, None, _shown(made))
    return made


async def _free_name(change: Change, email: str) -> str:
    wished = re.sub(r"[^a-z0-9_-]+", "-", email.partition("@")[0]).strip("-_")[: _MAX_NAME - 4] or "user"
    like = (_USERS.c.tenant_id == change.tenant, _USERS.c.name.startswith(wished, autoescape=True))
    taken = set((await change.connection.execute(select(_USERS.c.name).where(*like))).scalars())
    return next(name for name in (wished, *(f"{wished}-{n}" for n in range(2, len(taken) + 3))) if name not in taken)


async def _get(change: Change, name: str) -> User | None:
    row = (await change.connection.execute(select(_USERS).where(*_mine(change, name)))).one_or_none()
    return None if row is None else _user(row)


async def _at_version(change: Change, name: str, if_version: int | None) -> User:
    found = await _get(change, name)
    if found is None:
        raise AccountError("not_found", f"there is no user {name}")
    if if_version is not None and found.version != if_version:
        raise AccountError("stale", f"user {name} was changed meanwhile (it is at {found.version}): look at it again")
    return found


async def _has_admin(connection: AsyncConnection) -> bool:
    admins = (_USERS.c.role == "admin", _USERS.c.enabled)
    return (await connection.execute(select(_USERS.c.name).where(*admins).limit(1))).first() is not None


async def _another_admin(change: Change, name: str) -> None:
    others = (_USERS.c.tenant_id == change.tenant, _USERS.c.name != name, _USERS.c.role == "admin", _USERS.c.enabled)
    count = (await change.connection.execute(select(func.count()).select_from(_USERS).where(*others))).scalar_one()
    if not count:
        raise AccountError("last_admin", f"{name} is the last admin: make another one first")


async def _out(connection: AsyncConnection, tenant: TenantId, name: str) -> None:
    await _close(connection, tenant, name)
    await connection.execute(delete(_LINKS).where(_LINKS.c.tenant_id == tenant, _LINKS.c.user == name))


async def _close(connection: AsyncConnection, tenant: TenantId, name: str, but: str | None = None) -> int:
    gone = [_SESSIONS.c.tenant_id == tenant, _SESSIONS.c.user == name]
    if but is not None:
        gone.append(_SESSIONS.c.sha256 != but)
    return (await connection.execute(delete(_SESSIONS).where(*gone))).rowcount


def _mine(change: Change, name: str) -> tuple[Any, Any]:
    return _USERS.c.tenant_id == change.tenant, _USERS.c.name == name


def _taken_email() -> AccountError:
    return AccountError("taken", "there is a user with this email already", {"email": "one that nobody has yet"})


def _shown(user: User) -> dict[str, Any]:
    return {field: getattr(user, field) for field in _SHOWN}


def _secretly(new: Mapping[str, Any]) -> dict[str, bool]:
    return {f"{field}_changed": True for field in ("password_hash", "oidc_subject") if field in new}


def _user(row: Row[Any] | Mapping[str, Any]) -> User:
    given = row if isinstance(row, Mapping) else row._mapping
    return User(
        tenant=TenantId(given["tenant_id"]),
        name=given["name"],
        email=given["email"],
        role=cast(Role, given["role"]),
        version=given["version"],
        created_at=given["created_at"],
        updated_at=given["updated_at"],
        label=given["label"],
        enabled=given["enabled"],
        password_hash=given["password_hash"],
        oidc_subject=given["oidc_subject"],
    )


def _session(row: Mapping[Any, Any], user: User) -> Session:
    return Session(row["sha256"], user, row["created_at"], row["seen_at"], row["expires_at"], row["agent"])
