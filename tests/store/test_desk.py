"""What admins own: kept by tenant, in one transaction, with its version, its names and its audit; on both databases."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine import URL

from trunkline.errors import StoreError
from trunkline.numbers.desk import new, read
from trunkline.owned import DeskError, New
from trunkline.privacy.sealed import KeyRing
from trunkline.privacy.texts import TextSeal
from trunkline.store.desk import Desk
from trunkline.store.engine import Database
from trunkline.testing.clock import ManualClock
from trunkline.types import TenantId

OURS, THEIRS = TenantId("ours"), TenantId("theirs")
BUSY = {"answer": {"kind": "busy"}}


@asynccontextmanager
async def opened(url: URL) -> AsyncGenerator[Desk]:
    database = Database(url)
    await database.upgrade()
    try:
        yield Desk(database, ManualClock(), TextSeal(KeyRing({"one": bytes(32)})))
    finally:
        await database.close()


def made(kind: str, **fields: Any) -> New:
    return new(read(kind, fields))


def number(last: int, **fields: Any) -> New:
    return made("numbers", number=f"+1415555{last:04}", **fields)


async def put(desk: Desk, *some: New, tenant: TenantId = OURS, actor: str = "user:ann") -> None:
    async with desk.changing(tenant, actor) as changes:
        await changes.create(some)


def on(url: URL, test: Any) -> None:
    async def run() -> None:
        async with opened(url) as desk:
            await test(desk)

    asyncio.run(run())


def test_what_is_created_is_read_as_it_was_and_by_its_tenant_only(url: URL) -> None:
    async def test(desk: Desk) -> None:
        hours = made("hours", name="office", zone="Europe/Berlin", weekly={"mon": ["09:00-17:00"]})
        await put(
            desk, hours, made("routes", name="main", hours="office", **BUSY), number(100, route="main", tags=["vip"])
        )
        kept = await desk.get(OURS, "numbers", "+14155550100")
        assert kept is not None
        assert kept.version == 1
        assert kept.body == number(100, route="main", tags=["vip"]).body
        assert (await desk.get(OURS, "hours", "office")).body == hours.body  # type: ignore[union-attr]
        for kind, key in (("numbers", "+14155550100"), ("routes", "main"), ("hours", "office")):
            assert await desk.get(THEIRS, kind, key) is None
        assert (await desk.page(THEIRS, "numbers")).items == []
        assert await desk.count(THEIRS, "numbers") == 0
        assert await desk.used_by(THEIRS, "routes", "main") == []
        assert (await desk.changes(THEIRS))[0] == []

    on(url, test)


def test_nothing_of_a_transaction_with_a_mistake_is_kept(url: URL) -> None:
    async def test(desk: Desk) -> None:
        await put(desk, number(100))
        with pytest.raises(DeskError, match="number \\+14155550100 is there already") as taken:
            await put(desk, number(101), number(100))
        assert taken.value.code == "taken"
        with pytest.raises(
            DeskError, match="number \\+14155550102 names the route nowhere, which is not there"
        ) as unknown:
            await put(desk, number(101), number(102, route="nowhere"))
        assert unknown.value.code == "unknown_name"
        assert [kept.key for kept in (await desk.page(OURS, "numbers")).items] == ["+14155550100"]
        assert await desk.revision(OURS) == 1

    on(url, test)


def test_a_number_has_one_tenant(url: URL) -> None:
    async def test(desk: Desk) -> None:
        await put(desk, number(100))
        with pytest.raises(DeskError) as taken:
            await put(desk, number(100), tenant=THEIRS)
        assert taken.value.code == "taken"
        await put(desk, made("routes", name="main", **BUSY))
        await put(desk, made("routes", name="main", **BUSY), tenant=THEIRS)  # a name is its tenant's

    on(url, test)


def test_another_tenants_names_are_not_there(url: URL) -> None:
    async def test(desk: Desk) -> None:
        await put(desk, made("routes", name="main", **BUSY), tenant=THEIRS)
        with pytest.raises(DeskError) as unknown:
            await put(desk, number(100, route="main"))
        assert unknown.value.code == "unknown_name"

    on(url, test)


def test_a_change_on_an_old_version_is_stale_and_one_that_changes_nothing_is_none(url: URL) -> None:
    async def test(desk: Desk) -> None:
        await put(desk, number(100))
        async with desk.changing(OURS, "user:bob") as changes:
            kept = await changes.replace(number(100, label="front"), if_version=1)
        assert kept.version == 2

        async def again(change: str) -> None:
            async with desk.changing(OURS, "user:ann") as changes:
                if change == "replace":
                    await changes.replace(number(100, label="back"), if_version=1)
                else:
                    await changes.delete("numbers", "+14155550100", if_version=1)

        for change in ("replace", "delete"):
            with pytest.raises(DeskError, match="changed meanwhile \\(it is at 2\\)") as stale:
                await again(change)
            assert stale.value.code == "stale"
        revision = await desk.revision(OURS)
        async with desk.changing(OURS, "user:bob") as changes:
            assert (await changes.replace(number(100, label="front"))).version == 2
        assert await desk.revision(OURS) == revision

    on(url, test)


def test_what_is_named_cannot_go_until_it_is_named_no_more(url: URL) -> None:
    async def test(desk: Desk) -> None:
        await put(desk, made("routes", name="main", **BUSY), number(100, route="main"), number(101, route="main"))

        async def drop() -> None:
            async with desk.changing(OURS, "user:ann") as changes:
                await changes.delete("routes", "main")

        told = "route main is in use by number \\+14155550100, number \\+14155550101: change or delete these first"
        with pytest.raises(DeskError, match=told) as in_use:
            await drop()
        assert in_use.value.code == "in_use"
        async with desk.changing(OURS, "user:ann") as changes:
            await changes.replace(number(100))
            await changes.delete("numbers", "+14155550101")
        await drop()
        assert await desk.get(OURS, "routes", "main") is None

    on(url, test)


def test_every_change_is_noted_with_who_and_what_and_without_secrets(url: URL) -> None:
    async def test(desk: Desk) -> None:
        await put(desk, made("carriers", name="tw", type="twilio", auth_token="hush-hush"))
        async with desk.changing(OURS, "key:crm") as changes:
            await changes.replace(made("carriers", name="tw", type="twilio", label="Twilio", auth_token="new-one"))
        async with desk.changing(OURS, "user:ann") as changes:
            await changes.delete("carriers", "tw")
        lines, cursor = await desk.changes(OURS)
        assert cursor is None
        assert [(line.seq, line.actor, line.action, line.key) for line in lines] == [
            (3, "user:ann", "delete", "tw"),
            (2, "key:crm", "replace", "tw"),
            (1, "user:ann", "create", "tw"),
        ]
        assert lines[1].before is not None
        assert lines[1].after is not None
        assert (lines[1].before["label"], lines[1].after["label"]) == ("", "Twilio")
        assert lines[1].after["auth_token_changed"] is True
        assert "hush-hush" not in repr(lines)
        assert "new-one" not in repr(lines)

    on(url, test)


def test_a_secret_is_sealed_kept_where_none_is_given_and_never_given_back(url: URL) -> None:
    async def test(desk: Desk) -> None:
        await put(desk, made("carriers", name="tw", type="twilio", auth_token="hush-hush"))
        async with desk.changing(OURS, "user:ann") as changes:
            kept = await changes.replace(made("carriers", name="tw", type="twilio", label="Twilio"))
        assert kept.secrets == {"auth_token"}
        read_again = await desk.get(OURS, "carriers", "tw")
        assert read_again is not None
        assert read_again.body["auth_token"] is None
        assert read_again.secrets == {"auth_token"}
        assert await desk.secret(OURS, "carriers", "tw", "auth_token") == "hush-hush"
        assert await desk.secret(OURS, "carriers", "tw", "api_secret") is None
        assert await desk.secret(THEIRS, "carriers", "tw", "auth_token") is None
        async with desk._database.read() as connection:
            (stored,) = (await connection.execute(text("SELECT auth_token FROM carriers"))).scalars()
        assert stored.startswith("sealed:1:one:")

    on(url, test)


def test_pages_are_by_key_and_searches_find_by_part_name_and_what_is_named(url: URL) -> None:
    async def test(desk: Desk) -> None:
        await put(desk, made("routes", name="main", **BUSY))
        await put(
            desk, *(number(last, label=f"Line {last}%", tags=["vip"] * (last == 103)) for last in range(100, 107))
        )
        async with desk.changing(OURS, "a") as changes:
            await changes.replace(number(105, route="main"))
        first = await desk.page(OURS, "numbers", limit=4)
        rest = await desk.page(OURS, "numbers", limit=4, cursor=first.next_cursor)
        assert [kept.key[-3:] for kept in (*first.items, *rest.items)] == [str(last) for last in range(100, 107)]
        assert rest.next_cursor is None

        async def found(**query: Any) -> list[str]:
            return [kept.key[-3:] for kept in (await desk.page(OURS, "numbers", **query)).items]

        assert await found(search="555010") == [str(last) for last in range(100, 107)]
        assert await found(search="LINE 102%") == ["102"]
        assert await found(search="_") == []
        assert await found(where={"route": "main"}) == ["105"]
        assert await found(where={"uses": ("routes", "main")}) == ["105"]
        assert await found(where={"tags": "vip"}) == ["103"]
        assert await found(where={"tags": "vi"}) == []
        for wrong in ("nonsense!", "é"):
            with pytest.raises(ValueError, match="not a cursor"):
                await desk.page(OURS, "numbers", cursor=wrong)
        with pytest.raises(ValueError, match="not a cursor"):
            await desk.changes(OURS, cursor=first.next_cursor)

    on(url, test)


def test_versions_of_an_agent_are_numbered_and_stay(url: URL) -> None:
    async def test(desk: Desk) -> None:
        await put(desk, made("agents", name="desk", draft="one"))
        async with desk.changing(OURS, "user:ann") as changes:
            assert (await changes.add_version("desk", "one", "first")).number == 1
            assert (await changes.add_version("desk", "two", "")).number == 2
        versions = await desk.versions(OURS, "desk")
        assert [(each.number, each.script, each.note) for each in versions] == [(2, "two", ""), (1, "one", "first")]
        assert await desk.version(OURS, "desk", 1) == versions[1]
        assert await desk.versions(THEIRS, "desk") == []
        assert await desk.version(THEIRS, "desk", 1) is None

    on(url, test)


def test_two_who_change_at_once_come_one_after_the_other(url: URL) -> None:
    async def test(desk: Desk) -> None:
        await put(desk, number(100))

        async def change(label: str) -> str:
            try:
                async with desk.changing(OURS, label) as changes:
                    await asyncio.sleep(0.02)
                    await changes.replace(number(100, label=label), if_version=1)
            except DeskError as error:
                return error.code
            return "changed"

        assert sorted(await asyncio.gather(*(change(f"l{each}") for each in range(4)))) == ["changed", *["stale"] * 3]
        assert await desk.revision(OURS) == 2

    on(url, test)


def test_only_shown_it_is_undone(url: URL) -> None:
    async def test(desk: Desk) -> None:
        async with desk.changing(OURS, "a", keep=False) as changes:
            await changes.create([number(100)])
            assert await changes.get("numbers", "+14155550100") is not None
        assert await desk.count(OURS, "numbers") == 0
        assert await desk.revision(OURS) == 0

    on(url, test)


def test_a_database_that_is_away_is_said_to_be(url: URL) -> None:
    async def run() -> None:
        database = Database(url.set(database=f"{url.database}_gone"))
        desk = Desk(database, ManualClock(), TextSeal(KeyRing({"one": bytes(32)})))
        with pytest.raises(StoreError, match="the database is away"):
            await desk.get(OURS, "numbers", "+14155550100")
        with pytest.raises(StoreError, match="the database is away"):
            await put(desk, number(100))
        await database.close()

    asyncio.run(run())


async def published(desk: Desk, agent: str, tenant: TenantId = OURS, version: int = 1) -> None:
    await put(desk, made("agents", name=agent, published=version), tenant=tenant)


def test_versions_that_may_have_calls_are_those_published_and_those_pinned(url: URL) -> None:
    async def test(desk: Desk) -> None:
        for agent in ("reception", "sales", "nights", "unnamed", "weekend"):
            await published(desk, agent, version=4)
        shares = [{"agent": "reception"}, {"agent": "sales", "version": 2}]
        await put(
            desk,
            made(
                "routes",
                name="main",
                answer={"kind": "agents", "agents": shares},
                closed={"kind": "agents", "agents": [{"agent": "nights", "version": 1}]},
                rules=[
                    {
                        "name": "one",
                        "callers": ["anonymous"],
                        "answer": {"kind": "agents", "agents": [{"agent": "nights", "version": 3}]},
                    }
                ],
            ),
            made("routes", name="said", answer={"kind": "message", "text": 'The "version": 7 is out.'}),
            number(100, agents=[{"agent": "weekend", "version": 9}]),
            number(101, agents=[{"agent": "weekend", "version": 9}]),
        )
        wanted = {"reception@4", "sales@4", "sales@2", "nights@4", "nights@1", "nights@3", "weekend@4", "weekend@9"}
        found = await desk.answering(50)
        assert sorted(found) == sorted(f"ours/{key}" for key in wanted)
        assert len(await desk.answering(3)) == 3

    on(url, test)


def test_a_tenant_with_many_agents_pushes_nobody_elses_out(url: URL) -> None:
    async def test(desk: Desk) -> None:
        await published(desk, "desk", THEIRS)
        await put(desk, number(999, agents=[{"agent": "desk"}]), tenant=THEIRS)
        for n in range(8):
            await published(desk, f"agent{n}")
            await put(desk, number(n, agents=[{"agent": f"agent{n}", "version": 5}]))
        found = await desk.answering(4)
        assert "theirs/desk@1" in found[:2]
        assert len(found) == 4

    on(url, test)
