import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import pytest

from trunkline.errors import StoreError
from trunkline.numbers.directory import Directory
from trunkline.numbers.resources import ByBusy, Number, Route, Tenant
from trunkline.ports import Columns, DeskRows
from trunkline.types import DEFAULT_TENANT, TenantId

ACME, OTHER = TenantId("acme"), TenantId("other")
OURS, NOBODYS = "+14155550100", "+14155550142"


class Rows:
    """Of which the test says what is there, and counts what was asked."""

    def __init__(self) -> None:
        self.revision: dict[TenantId, int] = {ACME: 1, DEFAULT_TENANT: 1}
        self.numbers: dict[str, tuple[TenantId, Columns]] = {OURS: (ACME, columns(Number(number=OURS, route="main")))}
        self.routes: dict[tuple[TenantId, str], Columns] = {
            (ACME, "main"): columns(Route(name="main", answer=ByBusy(kind="busy"))),
            (ACME, "sip"): columns(Route(name="sip", answer=ByBusy(kind="busy"), matches=("+1*",), trunk="office")),
            (DEFAULT_TENANT, "rest"): columns(Route(name="rest", answer=ByBusy(kind="busy"), matches=("+1415*",))),
        }
        self.asked: list[str] = []
        self.away = self.hangs = False
        self.during: Callable[[], None] = lambda: None

    async def revisions(self) -> Mapping[TenantId, int]:
        await self._ask("revisions")
        return dict(self.revision)

    async def owner_of(self, number: str) -> tuple[TenantId, Columns] | None:
        await self._ask("owner_of")
        return self.numbers.get(number)

    async def desk(self, tenant: TenantId) -> DeskRows:
        found = [
            (name, row["matches"], row["trunk"])
            for (whose, name), row in self.routes.items()
            if whose == tenant and row["matches"]
        ]
        await self._ask("desk")
        return DeskRows(columns(Tenant(label=tenant)), found, {})

    async def route(self, tenant: TenantId, name: str) -> tuple[Columns, Sequence[Columns]] | None:
        await self._ask("route")
        found = self.routes.get((tenant, name))
        return None if found is None else (found, ())

    async def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.away:
            raise StoreError("the database is away")
        if self.hangs:
            await asyncio.sleep(60)
        self.during()


def columns(resource: Any) -> Columns:
    found: Columns = resource.model_dump(mode="json")
    return found


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def test_a_number_is_read_once() -> None:
    async def scenario() -> None:
        rows = Rows()
        directory = Directory(rows)
        await directory.look()
        assert directory.remembered(OURS) is None
        view = await directory.view(OURS)
        assert view is not None
        assert view.route is not None
        assert (view.tenant, view.route.name, view.match) == (ACME, "main", None)
        assert rows.asked == ["revisions", "owner_of", "desk", "route"]
        assert await directory.view(OURS) == directory.remembered(OURS) == view
        assert len(rows.asked) == 4

    run(scenario())


def test_what_is_nobodys_is_remembered_too_and_has_the_default_tenants_patterns() -> None:
    async def scenario() -> None:
        rows = Rows()
        directory = Directory(rows)
        await directory.look()
        for _ in range(3):
            view = await directory.view(NOBODYS)
        assert rows.asked.count("owner_of") == 1
        assert view is not None
        assert view.route is not None
        assert (view.tenant, view.route.name, view.number) == (DEFAULT_TENANT, "rest", None)

    run(scenario())


def test_a_tenants_own_trunk_brings_calls_to_that_tenant_only() -> None:
    async def scenario() -> None:
        rows = Rows()
        directory = Directory(rows)
        await directory.look()
        view = await directory.view(NOBODYS, "office", ACME)
        assert view is not None
        assert view.route is not None
        assert (view.tenant, view.route.name) == (ACME, "sip")
        view = await directory.view(OURS, "theirs", OTHER)
        assert view is not None
        assert (view.tenant, view.number, view.route) == (OTHER, None, None)
        view = await directory.view(NOBODYS, "office")  # a trunk of the gateway's that has the same name
        assert view is not None
        assert view.tenant == DEFAULT_TENANT

    run(scenario())


def test_a_number_on_a_tenants_own_trunk_is_that_tenants_over_that_trunk_only() -> None:
    async def scenario() -> None:
        rows = Rows()
        rows.numbers[OURS] = (ACME, columns(Number(number=OURS, route="main", trunk="office")))
        directory = Directory(rows)
        await directory.look()
        view = await directory.view(OURS)  # over the gateway's own ways in
        assert view is not None
        assert view.route is not None
        assert (view.tenant, view.number, view.route.name) == (DEFAULT_TENANT, None, "rest")
        view = await directory.view(OURS, "office", ACME)
        assert view is not None
        assert view.number is not None
        assert (view.tenant, view.number.number) == (ACME, OURS)

    run(scenario())


def test_where_there_is_nothing_nothing_is_read() -> None:
    async def scenario() -> None:
        rows = Rows()
        rows.revision = {}
        directory = Directory(rows)
        await directory.look()
        assert directory.is_empty
        assert await directory.view(OURS) is None
        assert directory.remembered(OURS) is None
        assert rows.asked == ["revisions"]
        directory.changed(ACME)
        assert not directory.is_empty
        assert await directory.view(OURS) is not None

    run(scenario())


def test_a_change_during_the_reading_makes_it_old() -> None:
    async def scenario() -> None:
        rows = Rows()
        directory = Directory(rows)
        await directory.look()

        def change() -> None:
            if rows.asked[-1] == "desk" and rows.asked.count("desk") == 1:
                directory.changed(ACME)

        rows.during = change
        assert await directory.view(OURS) is not None
        assert directory.remembered(OURS) is None
        assert await directory.view(OURS) is not None
        assert directory.remembered(OURS) is not None

    run(scenario())


def test_what_is_known_holds_while_the_database_is_away_and_the_log_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        rows = Rows()
        directory = Directory(rows)
        await directory.look()
        view = await directory.view(OURS)
        rows.away = True
        directory.changed(ACME)
        assert await directory.view(OURS) == view
        assert await directory.view(NOBODYS) is None
        asked = len(rows.asked)
        assert await directory.view(NOBODYS) is None
        assert len(rows.asked) == asked  # nobody waits for it again and again
        await directory.look()
        rows.away = False
        await directory.look()
        assert await directory.view(NOBODYS) is not None

    with caplog.at_level(logging.WARNING):
        run(scenario())
    assert [record.getMessage() for record in caplog.records] == [
        "the database is away; numbers that were not called before are answered by the gateway's own agent, "
        "over tenants' own trunks by nobody",
        "numbers can be read again",
    ]


def test_one_slow_read_keeps_no_other_number_from_being_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.numbers.directory.READ_S", 0.01)

    async def scenario() -> None:
        rows = Rows()
        directory = Directory(rows)
        await directory.look()
        rows.hangs = True
        assert await directory.view(NOBODYS) is None
        rows.hangs = False
        view = await directory.view(OURS)
        assert view is not None
        assert view.tenant == ACME

    run(scenario())


def test_a_database_that_does_not_answer_a_look_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.numbers.directory.READ_S", 0.01)

    async def scenario() -> None:
        rows = Rows()
        directory = Directory(rows)
        await directory.look()
        rows.hangs = True
        await directory.look()
        assert await directory.view(OURS) is None
        assert rows.asked == ["revisions", "revisions"]

    run(scenario())


def test_it_remembers_so_many_numbers() -> None:
    async def scenario() -> None:
        rows = Rows()
        directory = Directory(rows, max_numbers=3)
        await directory.look()
        for n in range(5):
            await directory.view(f"+1415555010{n}")
        await directory.view("+14155550102")
        assert rows.asked.count("owner_of") == 5
        await directory.view("+14155550101")
        assert rows.asked.count("owner_of") == 6

    run(scenario())


def test_a_row_that_this_version_does_not_know_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        rows = Rows()
        rows.routes[ACME, "main"] = {**rows.routes[ACME, "main"], "answer": {"kind": "oracle"}}
        directory = Directory(rows)
        await directory.look()
        view = await directory.view(OURS)
        assert view is not None
        assert view.route is None
        assert view.number is not None

    run(scenario())
    assert "routes main cannot be read, and is taken as missing: answer:" in caplog.text
