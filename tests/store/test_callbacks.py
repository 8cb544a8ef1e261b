"""Callers who are to be called back: each once, first come first served, by one process."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import URL

from trunkline.callbacks import KEPT_FOR, CallBack, Found
from trunkline.store.callbacks import LEASE_S, DatabaseCallBacks, purge_callbacks
from trunkline.store.engine import Database
from trunkline.store.subjects import Subjects
from trunkline.testing.clock import ManualClock
from trunkline.types import E164, CallId, TenantId

ACME, BAKER = TenantId("acme"), TenantId("baker")
OURS, OTHER = E164("+14155550111"), E164("+14155550112")


def run(url: URL, scenario: Callable[[DatabaseCallBacks, ManualClock, Database], Awaitable[None]]) -> None:
    async def whole() -> None:
        database, clock = Database(url), ManualClock()
        await database.upgrade()
        try:
            await scenario(DatabaseCallBacks(database, clock), clock, database)
        finally:
            await database.close()

    asyncio.run(whole())


def wanted(clock: ManualClock, number: int = 1, tenant: TenantId = ACME, ours: E164 = OURS) -> CallBack:
    now = clock.wall()
    caller = E164(f"+141555501{20 + number}")
    return CallBack(tenant, CallId(f"call_{number}"), caller, ours, now, now + KEPT_FOR)


async def states(database: Database) -> dict[str, Any]:
    async with database.read() as connection:
        rows = await connection.execute(text("SELECT call_id, state, code FROM callbacks"))
        return {row.call_id: (row.state, row.code) for row in rows}


def test_of_each_number_who_asked_first_is_due_and_is_claimed_once(url: URL) -> None:
    async def scenario(backs: DatabaseCallBacks, clock: ManualClock, database: Database) -> None:
        for each in (wanted(clock, 1), wanted(clock, 3, BAKER, OTHER)):
            await backs.note(each)
        clock.advance(1)
        second = wanted(clock, 2)
        await backs.note(second)
        found = await backs.claim(8)
        assert {each.call_id for each in found.due} == {"call_1", "call_3"}
        assert found.due[0].tenant in (ACME, BAKER)
        assert await backs.claim(8) == Found([second], [])
        assert await backs.claim(8) == Found((), ())

    run(url, scenario)


def test_two_processes_do_not_claim_the_same(url: URL) -> None:
    async def scenario(backs: DatabaseCallBacks, clock: ManualClock, database: Database) -> None:
        for number in range(1, 6):
            await backs.note(wanted(clock, number, ours=E164(f"+141555501{10 + number}")))
        other = DatabaseCallBacks(Database(url), clock)
        other._database._file_id = database._file_id
        both = await asyncio.gather(backs.claim(8), other.claim(8))
        claimed = [each.call_id for found in both for each in found.due]
        assert len(claimed) == len(set(claimed))
        claimed += [each.call_id for each in (await backs.claim(8)).due]
        assert sorted(claimed) == [f"call_{number}" for number in range(1, 6)]
        await other._database.close()

    run(url, scenario)


def test_who_asks_twice_is_called_once(url: URL) -> None:
    async def scenario(backs: DatabaseCallBacks, clock: ManualClock, database: Database) -> None:
        first = wanted(clock)
        again = replace(first, call_id=CallId("call_again"))
        for each in (first, first, again):
            await backs.note(each)
        assert [each.call_id for each in (await backs.claim(8)).due] == ["call_again"]

    run(url, scenario)


def test_what_could_not_be_placed_is_tried_later_and_not_for_ever(url: URL) -> None:
    async def scenario(backs: DatabaseCallBacks, clock: ManualClock, database: Database) -> None:
        await backs.note(wanted(clock))
        (due,) = (await backs.claim(8)).due
        await backs.later(due, clock.wall() + timedelta(seconds=60), "window", begun=False)
        clock.advance(59)
        assert (await backs.claim(8)).due == ()
        clock.advance(1)
        assert (await backs.claim(8)).due == [due]
        await backs.later(due, clock.wall() + timedelta(days=3), "window", begun=False)
        clock.advance(KEPT_FOR.total_seconds())
        assert await backs.claim(8) == Found([], [(due, "expired", "window")])
        assert await states(database) == {"call_1": ("expired", "window")}

    run(url, scenario)


def test_what_a_dead_process_was_placing_is_not_placed_again(url: URL) -> None:
    async def scenario(backs: DatabaseCallBacks, clock: ManualClock, database: Database) -> None:
        await backs.note(wanted(clock))
        await backs.claim(8)
        clock.advance(LEASE_S)
        (due,) = (await backs.claim(8)).due  # it was only looked at
        assert await backs.begin(due)
        assert not await backs.begin(due)
        clock.advance(LEASE_S)
        assert await backs.claim(8) == Found([], [(due, "failed", "gateway_lost")])
        await backs.settle(due, "placed", CallId("call_9"), begun=True)  # too late
        assert await states(database) == {"call_1": ("failed", "gateway_lost")}

    run(url, scenario)


def test_what_is_over_is_forgotten_two_days_after_it_was_asked_for(url: URL) -> None:
    async def scenario(backs: DatabaseCallBacks, clock: ManualClock, database: Database) -> None:
        await backs.note(wanted(clock))
        (due,) = (await backs.claim(8)).due
        assert await backs.begin(due)
        await backs.later(due, clock.wall(), "overloaded", begun=False)  # by who was too slow
        await backs.settle(due, "placed", CallId("call_9"), begun=True)
        clock.advance(2 * KEPT_FOR.total_seconds() + 1)
        await backs.note(wanted(clock, 2))
        assert await purge_callbacks(database, clock.wall()) == 1
        assert await states(database) == {"call_2": ("waiting", "")}

    run(url, scenario)


def test_who_is_erased_is_not_called_back(url: URL) -> None:
    async def scenario(backs: DatabaseCallBacks, clock: ManualClock, database: Database) -> None:
        theirs = wanted(clock)
        await backs.note(theirs)
        subjects = Subjects(database)
        assert [row["call_id"] for row in (await subjects.export(ACME, theirs.number))["callbacks"]] == ["call_1"]
        assert (await subjects.erase(ACME, theirs.number, clock.wall()))["callbacks"] == 1
        assert await states(database) == {}

    run(url, scenario)
