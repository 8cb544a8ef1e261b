"""Files of numbers, in a desk: all of one or nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy.engine import URL

from trunkline.numbers.desk import Desk
from trunkline.numbers.importing import bring
from trunkline.owned import DeskError
from trunkline.privacy.sealed import KeyRing
from trunkline.privacy.texts import TextSeal
from trunkline.store.desk import Desk as Store
from trunkline.store.engine import Database
from trunkline.testing.clock import ManualClock
from trunkline.types import DEFAULT_TENANT, TenantId

OURS, THEIRS, ANN = DEFAULT_TENANT, TenantId("theirs"), "user:ann"


def on(url: URL, test: Callable[[Desk, list[TenantId]], Awaitable[None]]) -> None:
    async def run() -> None:
        database, told = Database(url), list[TenantId]()
        await database.upgrade()
        seal = TextSeal(KeyRing({"one": bytes(32)}))
        await test(Desk(Store(database, ManualClock(), seal), lambda script: [], told.append), told)
        await database.close()

    asyncio.run(run())


async def bodies(desk: Desk, tenant: TenantId = OURS) -> dict[str, Any]:
    return {kept.key: kept.body async for kept in desk.store.every(tenant, "numbers")}


def test_a_file_is_one_change_of_the_desk(url: URL) -> None:
    async def test(desk: Desk, told: list[TenantId]) -> None:
        await desk.make(OURS, ANN, "routes", {"name": "main", "answer": {"kind": "busy"}})
        await desk.make(OURS, ANN, "numbers", {"number": "+14155550100", "label": "Old", "max_calls": 5})
        before, told[:] = await desk.store.revision(OURS), []
        text = "number,label,route\n+14155550100,New,main\n+14155550101-+14155550110,,main\n"
        found = await bring(desk, OURS, ANN, text)
        assert (len(found.create), len(found.change), found.clean) == (10, 1, True)
        kept = await bodies(desk)
        assert len(kept) == 11
        assert {body["route"] for body in kept.values()} == {"main"}
        assert (kept["+14155550100"]["label"], kept["+14155550100"]["max_calls"]) == ("New", 5)
        assert await desk.store.revision(OURS) == before + 1
        assert told == [OURS]
        assert await bodies(desk, THEIRS) == {}
        again = await bring(desk, OURS, ANN, text)
        assert len(again.unchanged) == 11
        assert await desk.store.revision(OURS) == before + 1

    on(url, test)


def test_a_file_with_a_mistake_is_not_half_applied(url: URL) -> None:
    async def test(desk: Desk, told: list[TenantId]) -> None:
        text = "number,route\n+14155550100,\n+14155550101,nowhere\n"
        assert (await bring(desk, OURS, ANN, text)).mistakes_count == 1
        assert await bodies(desk) == {}
        assert (await bring(desk, OURS, ANN, text, keep=False, skip_mistakes=True)).mistakes_count == 1
        assert await bodies(desk) == {}
        await bring(desk, OURS, ANN, text, skip_mistakes=True)
        assert list(await bodies(desk)) == ["+14155550100"]

    on(url, test)


def test_numbers_of_other_countries_and_versions_that_are_not_there_are_refused(url: URL) -> None:
    async def test(desk: Desk, told: list[TenantId]) -> None:
        await desk.replace(OURS, ANN, "tenant", "tenant", {"countries": ["US"]})
        await desk.make(OURS, ANN, "agents", {"name": "desk", "draft": "name = 'one'"})
        found = await bring(desk, OURS, ANN, "number\n+442079460123\n")
        assert "of GB, and only US" in str(found.mistakes[0])
        with pytest.raises(DeskError, match="agent desk: it has no 3"):
            await bring(desk, OURS, ANN, "number,agent\n+14155550100,\n+14155550101,desk@3\n")
        assert await bodies(desk) == {}

    on(url, test)


def test_what_was_changed_meanwhile_is_not_written_over(url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(desk: Desk, told: list[TenantId]) -> None:
        await desk.make(OURS, ANN, "numbers", {"number": "+14155550100", "label": "Old"})
        store = desk.store

        class SomebodyIsFirst:
            def __getattr__(self, name: str) -> Any:
                return getattr(store, name)

            async def get(self, tenant: TenantId, kind: str, key: str) -> Any:
                """Asked after the numbers were read."""
                other = Desk(store, lambda script: [])
                await other.replace(OURS, "user:bob", "numbers", "+14155550100", {"label": "Bob's"})
                return await store.get(tenant, kind, key)

        monkeypatch.setattr(desk, "store", SomebodyIsFirst())
        with pytest.raises(DeskError) as stale:
            await bring(desk, OURS, ANN, "number,label\n+14155550100,Ann's\n+14155550101,\n")
        assert stale.value.code == "stale"
        kept = await bodies(desk)
        assert [(key, body["label"]) for key, body in kept.items()] == [("+14155550100", "Bob's")]

    on(url, test)
