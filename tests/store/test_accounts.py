import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest
from sqlalchemy import Table, select
from sqlalchemy.engine import URL

from trunkline.errors import StoreError
from trunkline.identity import AccountError, NewKey, NewUser
from trunkline.numbers.desk import new, read
from trunkline.privacy.sealed import KeyRing
from trunkline.privacy.texts import TextSeal
from trunkline.store import models
from trunkline.store.accounts import Accounts
from trunkline.store.apikeys import ApiKeys
from trunkline.store.desk import Desk
from trunkline.store.directory import DatabaseNumbers
from trunkline.store.engine import Database
from trunkline.testing.clock import ManualClock
from trunkline.types import DEFAULT_TENANT, TenantId

A, B = TenantId("a"), TenantId("b")
ANN = NewUser("Ann@Example.com", "admin", password_hash="hash-1")
HOUR = timedelta(hours=1)


class House:
    def __init__(self, database: Database, clock: ManualClock) -> None:
        self.database, self.clock = database, clock
        self.users, self.keys = Accounts(database, clock), ApiKeys(database, clock)

    async def changes(self, tenant: TenantId = A) -> list[tuple[str, str, str, str]]:
        table = cast(Table, models.Change.__table__)
        async with self.database.read() as connection:
            rows = await connection.execute(select(table).where(table.c.tenant_id == tenant).order_by(table.c.seq))
            found = list(rows)
        assert [row.seq for row in found] == sorted({row.seq for row in found})
        assert "hash" not in repr([{**(row.before or {}), **(row.after or {})} for row in found]).replace(
            "password_hash_changed", ""
        )
        return [(row.actor, row.action, row.kind, row.key) for row in found]


def run(url: URL, scenario: Callable[[House], Awaitable[None]]) -> None:
    async def whole() -> None:
        database, clock = Database(url), ManualClock()
        await database.upgrade()
        try:
            await scenario(House(database, clock))
        finally:
            await database.close()

    asyncio.run(whole())


async def refused(work: Awaitable[Any]) -> str:
    with pytest.raises(AccountError) as caught:
        await work
    return caught.value.code


def test_a_user_is_its_tenants_and_its_email_is_nobody_elses(url: URL) -> None:
    async def scenario(house: House) -> None:
        assert await house.users.locked() is False
        ann = await house.users.create_user(A, "operator", ANN)
        assert (ann.name, ann.email, ann.role, ann.version, ann.enabled) == ("ann", "ann@example.com", "admin", 1, True)
        assert await house.users.locked() is True
        assert await house.users.user(A, "ann") == await house.users.by_email(" ANN@example.com") == ann
        assert await house.users.user(B, "ann") is None
        assert await house.users.users(B, limit=10) == []
        assert await refused(house.users.create_user(B, "operator", ANN)) == "taken"
        again = await house.users.create_user(A, "operator", replace(ANN, email="ann@example.org", role="viewer"))
        assert again.name == "ann-2"
        assert [user.name for user in await house.users.users(A, limit=10, after="ann")] == ["ann-2"]
        assert await refused(house.users.change_user(B, "x", "ann", {"label": "mine"})) == "not_found"
        assert await refused(house.users.delete_user(B, "x", "ann")) == "not_found"
        assert await house.changes() == [
            ("operator", "create", "users", "ann"),
            ("operator", "create", "users", "ann-2"),
        ]

    run(url, scenario)


def test_a_change_of_an_older_version_is_stale_and_the_last_admin_stays_one(url: URL) -> None:
    async def scenario(house: House) -> None:
        await house.users.create_user(A, "operator", ANN)
        await house.users.create_user(B, "operator", NewUser("bob@example.com", "admin"))  # of another tenant
        changed = await house.users.change_user(A, "user:ann", "ann", {"label": "Ann"}, 1)
        assert (changed.version, changed.label) == (2, "Ann")
        assert await refused(house.users.change_user(A, "user:ann", "ann", {"label": "An"}, 1)) == "stale"
        for changes in ({"role": "viewer"}, {"enabled": False}):
            assert await refused(house.users.change_user(A, "user:ann", "ann", changes)) == "last_admin"
        assert await refused(house.users.delete_user(A, "user:ann", "ann")) == "last_admin"
        await house.users.create_user(A, "operator", NewUser("eve@example.com", "admin"))
        both = await asyncio.gather(
            house.users.delete_user(A, "x", "ann"), house.users.delete_user(A, "x", "eve"), return_exceptions=True
        )
        assert sorted(str(getattr(each, "code", None)) for each in both) == ["None", "last_admin"]
        assert len(await house.users.users(A, limit=9)) == 1

    run(url, scenario)


def test_who_is_disabled_or_has_a_new_password_is_signed_out(url: URL) -> None:
    async def scenario(house: House) -> None:
        ann = await house.users.create_user(A, "operator", ANN)
        bob = await house.users.create_user(A, "operator", NewUser("bob@example.com", "viewer"))
        expires = house.clock.wall() + HOUR
        await house.users.open_session(ann, "s1", expires, "Firefox")
        await house.users.open_session(ann, "s2", expires, "Chromium", instead_of="s1")
        await house.users.open_session(bob, "s3", expires, "Safari")
        await house.users.open_link("l1", bob, expires)
        assert await house.users.session("s1") is None
        found = await house.users.session("s2")
        assert found is not None
        assert (found.user, found.agent, found.expires_at) == (ann, "Chromium", expires)
        assert [each.sha256 for each in await house.users.sessions_of(A, "ann")] == ["s2"]
        assert await house.users.sessions_of(B, "ann") == []
        await house.users.change_user(A, "x", "ann", {"password_hash": "hash-2"})
        assert await house.users.session("s2") is None
        assert await house.users.session("s3") is not None
        assert await house.users.link("l1") == (bob,)
        await house.users.change_user(A, "x", "bob", {"enabled": False})
        assert await house.users.session("s3") is None
        assert await house.users.link("l1") is None

    run(url, scenario)


def test_a_link_is_good_once_and_for_a_time(url: URL) -> None:
    async def scenario(house: House) -> None:
        ann = await house.users.create_user(A, "operator", ANN)
        await house.users.open_link("l1", ann, house.clock.wall() + HOUR)
        await house.users.open_link("l2", None, house.clock.wall() + HOUR)
        assert await house.users.link("l2") == (None,)
        taken = await asyncio.gather(house.users.close_link("l1"), house.users.close_link("l1"))
        assert sorted(taken) == [False, True]
        house.clock.advance(3600)
        assert await house.users.link("l2") is None
        assert await house.users.close_link("l2") is False

    run(url, scenario)


def test_there_is_one_first_admin(url: URL) -> None:
    async def scenario(house: House) -> None:
        made = await asyncio.gather(
            house.users.create_first(NewUser("ann@example.com", "admin")),
            house.users.create_first(NewUser("eve@example.com", "admin")),
        )
        assert sum(user is not None for user in made) == 1
        assert await house.users.has_admin()
        assert len(await house.users.users(DEFAULT_TENANT, limit=9)) == 1

    run(url, scenario)


def test_a_key_is_its_tenants_and_found_by_its_id(url: URL) -> None:
    async def scenario(house: House) -> None:
        new = NewKey("crm", "abcdefghijkl", "0" * 64, frozenset({"read", "calls"}), "CRM", house.clock.wall() + HOUR)
        key = await house.keys.create_key(A, "user:ann", new)
        assert await house.keys.by_id("abcdefghijkl") == await house.keys.key(A, "crm") == key
        assert await house.keys.key(B, "crm") is None
        assert key.holds(house.clock.wall())
        assert not key.holds(house.clock.wall() + HOUR)
        assert await refused(house.keys.create_key(A, "user:ann", new)) == "taken"
        assert await refused(house.keys.change_key(B, "x", "crm", {"enabled": False})) == "not_found"
        await house.keys.used("abcdefghijkl")
        changed = await house.keys.change_key(A, "x", "crm", {"scopes": frozenset({"read"}), "enabled": False}, 1)
        assert (changed.version, changed.scopes, changed.used_at) == (2, frozenset({"read"}), house.clock.wall())
        assert not changed.holds(house.clock.wall())
        assert await refused(house.keys.delete_key(A, "x", "crm", 1)) == "stale"
        await house.keys.delete_key(A, "x", "crm", 2)
        assert await house.keys.by_id("abcdefghijkl") is None
        assert [line[1] for line in await house.changes()] == ["create", "replace", "delete"]
        assert "0000" not in repr(key)

    run(url, scenario)


def test_without_the_database_it_is_a_store_error(url: URL) -> None:
    async def scenario(house: House) -> None:
        away = House(
            Database(url.set(database="/nowhere/none.db") if house.database.dialect == "sqlite" else url), house.clock
        )
        if house.database.dialect == "postgresql":
            return
        for work in (away.users.locked(), away.keys.by_id("x"), away.users.create_user(A, "x", ANN)):
            with pytest.raises(StoreError):
                await cast(Any, work)

    run(url, scenario)


def test_who_signs_in_makes_no_desk_old(url: URL) -> None:
    """Else whoever tries passwords would have every process read all desks again, and take an empty one for used."""

    async def run() -> None:
        database, clock = Database(url), ManualClock()
        await database.upgrade()
        accounts = Accounts(database, clock)
        desk = Desk(database, clock, TextSeal(KeyRing({"one": bytes(32)})))
        await accounts.note(DEFAULT_TENANT, "nobody", "sign_in_failed", "users", "ann")
        assert await DatabaseNumbers(database).revisions() == {}
        assert await desk.revisions() == 0
        async with desk.changing(DEFAULT_TENANT, "user:ann") as changes:
            await changes.create([new(read("routes", {"name": "main", "answer": {"kind": "busy"}}))])
        await accounts.note(DEFAULT_TENANT, "nobody", "sign_in_failed", "users", "ann")
        assert await DatabaseNumbers(database).revisions() == {DEFAULT_TENANT: 1}
        lines, _ = await desk.changes(DEFAULT_TENANT)
        assert [line.seq for line in lines] == [3, 2, 1]
        await database.close()

    asyncio.run(run())
