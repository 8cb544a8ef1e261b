"""What calls read of the desk, and what a process remembers of it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy.engine import URL

from tests.store.seeding import put, take
from trunkline.numbers.directory import Directory
from trunkline.numbers.resources import Agent, ByAgents, ByBusy, Hours, Number, Route, Rule, Share, Tenant
from trunkline.store.directory import DatabaseNumbers
from trunkline.store.engine import Database
from trunkline.types import TenantId

ACME, OTHER = TenantId("acme"), TenantId("other")
OURS, THEIRS = "+14155550100", "+14155550101"
OFFICE = Hours(name="office", zone="America/New_York", weekly={"mon": ("09:00-17:00",)})
NIGHT = Hours(name="night", zone="UTC", weekly={"sat": ("00:00-24:00",)})
MAIN = Route(
    name="main",
    answer=ByAgents(agents=(Share(agent="reception"),)),
    rules=(Rule(name="late", hours="night", answer=ByBusy()),),
    hours="office",
)
DESK = (
    OFFICE,
    NIGHT,
    Agent(name="reception", published=3),
    Agent(name="new"),
    MAIN,
    Route(name="by_trunk", matches=("+1415555*",), trunk=None, answer=ByBusy()),
    Number(number=OURS, route="main", tags=("front",), agents=(Share(agent="new", version=1),)),
    Tenant(countries=("US",), outage=True),
)


@asynccontextmanager
async def opened(url: URL) -> AsyncGenerator[Database]:
    database = Database(url)
    await database.upgrade()
    try:
        yield database
    finally:
        await database.close()


def test_rows_are_what_was_put_there_and_of_one_tenant(url: URL) -> None:
    async def scenario() -> None:
        async with opened(url) as database:
            rows = DatabaseNumbers(database)
            assert await rows.revisions() == {}
            assert await rows.owner_of(OURS) is None
            await put(database, ACME, *DESK)
            await put(database, OTHER, Route(name="main", answer=ByBusy()), Number(number=THEIRS, route="main"))
            assert await rows.revisions() == {ACME: 1, OTHER: 1}

            owned = await rows.owner_of(OURS)
            assert owned is not None
            assert owned[0] == ACME
            assert Number.model_validate(owned[1]) == DESK[6]

            desk = await rows.desk(ACME)
            assert desk.terms is not None
            assert Tenant.model_validate(desk.terms) == DESK[7]
            assert desk.matches == [("by_trunk", ("+1415555*",), None)]
            assert desk.published == {"reception": 3, "new": None}
            others = await rows.desk(OTHER)
            assert (others.terms, others.matches, others.published) == (None, [], {})

            found = await rows.route(ACME, "main")
            assert found is not None
            assert Route.model_validate(found[0]) == MAIN
            assert sorted((Hours.model_validate(each) for each in found[1]), key=lambda h: h.name) == [NIGHT, OFFICE]
            assert await rows.route(OTHER, "by_trunk") is None

    asyncio.run(scenario())


def test_another_process_notices_a_change_at_its_next_look(url: URL) -> None:
    async def scenario() -> None:
        async with opened(url) as here, opened(url) as there:
            directory = Directory(DatabaseNumbers(here))
            await directory.look()
            assert directory.is_empty
            await put(there, ACME, *DESK)
            await directory.look()
            view = await directory.view(OURS)
            assert view is not None
            assert (view.tenant, view.route, view.number, view.terms.outage) == (ACME, MAIN, DESK[6], True)
            assert view.hours == {"office": OFFICE, "night": NIGHT}
            assert directory.remembered(OURS) == view
            nobodys = await directory.view(THEIRS)
            assert nobodys is not None
            assert (nobodys.tenant, nobodys.number, nobodys.route) == ("default", None, None)

            await put(there, ACME, Tenant(outage=False))
            assert directory.remembered(OURS) == view
            await directory.look()
            assert directory.remembered(OURS) is None
            view = await directory.view(OURS)
            assert view is not None
            assert not view.terms.outage

            await put(there, OTHER, Number(number=THEIRS))
            await directory.look()
            assert directory.remembered(OURS) == view  # another tenant's change
            theirs = await directory.view(THEIRS)
            assert theirs is not None
            assert theirs.tenant == OTHER
            await take(there, OTHER, THEIRS)
            await directory.look()
            gone = await directory.view(THEIRS)
            assert gone is not None
            assert gone.number is None

    asyncio.run(scenario())


def test_what_is_remembered_answers_while_the_database_is_away(url: URL, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(url) as database:
            await put(database, ACME, *DESK)
            directory = Directory(DatabaseNumbers(database))
            await directory.look()
            view = await directory.view(OURS)
            directory.changed(ACME)
            directory._rows = DatabaseNumbers(Database(url.set(database=str(tmp_path / "nowhere" / "no.db"))))
            assert await directory.view(OURS) == view

    asyncio.run(scenario())
