import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from trunkline.errors import StoreError
from trunkline.ports import NAMED, CallEnded, CallEvent, CallStarted, EndReason, TurnEnded, TurnRecord
from trunkline.store.engine import Database, database_url
from trunkline.store.records import CallRecords
from trunkline.types import CallId, TenantId

AT = datetime(2026, 11, 22, 15, tzinfo=UTC)
A, B = TenantId("a"), TenantId("b")
OpenStore = Any  # of conftest.py


def minutes(number: float) -> datetime:
    return AT + timedelta(minutes=number)


async def fill(store: Any, tenant: TenantId, *names: str, at: datetime | None = None) -> None:
    for number, name in enumerate(names):
        start = at or minutes(number)
        store.spool.append(
            CallStarted(CallId(name), tenant, "inbound", "sip", "clinic", start, "+15550100", None, f"id-{name}")
        )
    assert await store.writer.flush()


def ids(page: Any) -> list[str]:
    return [call["id"] for call in page.calls]


def test_a_record_is_json_with_times_in_utc(open_store: OpenStore) -> None:
    async def scenario() -> None:
        async with open_store() as store:
            await fill(store, A, "c1")
            record = await store.records.get(A, CallId("c1"))
            assert json.loads(json.dumps(record)) == {
                "id": "c1",
                "direction": "inbound",
                "leg": "sip",
                "agent": "clinic",
                "provider_call_id": "id-c1",
                "from_number": "+15550100",
                "to_number": None,
                "started_at": "2026-11-22T15:00:00+00:00",
                "answered_at": None,
                "ended_at": None,
                "end_reason": None,
                "end_detail": None,
                "ended_by": None,
                "provider_code": None,
                "duration_ms": None,
                "turn_count": None,
                "turn_p95_ms": None,
                "cost_usd": None,
                "mos": None,
                "error_count": None,
                "refusal_count": None,
                "transfer_count": None,
                "turns": [],
                "events": [],
                "usage": [],
                "costs": [],
            }

    asyncio.run(scenario())


def test_turns_come_in_the_order_they_happened(open_store: OpenStore) -> None:
    async def scenario() -> None:
        async with open_store() as store:
            await fill(store, A, "c1")
            for index in (1, 0, 2, 3):
                at = minutes(min(index, 2))
                store.spool.append(TurnEnded(CallId("c1"), at, TurnRecord(index, "yes", "good")))
            assert await store.writer.flush()
            record = await store.records.get(A, CallId("c1"))
            assert [turn["index"] for turn in record["turns"]] == [0, 1, 2, 3]

    asyncio.run(scenario())


def test_no_tenant_sees_another_tenants_call(open_store: OpenStore) -> None:
    async def scenario() -> None:
        async with open_store() as store:
            await fill(store, A, "a1")
            await fill(store, B, "b1")
            assert await store.records.get(B, CallId("a1")) is None
            assert await store.records.find_by_provider_id(B, "id-a1") is None
            assert ids(await store.records.list(B)) == ["b1"]
            assert (await store.records.find_by_provider_id(A, "id-a1"))["id"] == "a1"

    asyncio.run(scenario())


def test_pages_run_from_the_newest_to_the_oldest_and_miss_none(open_store: OpenStore) -> None:
    async def scenario() -> None:
        async with open_store() as store:
            await fill(store, A, *(f"c{number}" for number in range(5)))
            await fill(store, A, "x1", "x2", "x3", at=minutes(1))  # at the same instant as c1
            seen: list[str] = []
            cursor: str | None = None
            while True:
                page = await store.records.list(A, limit=2, cursor=cursor)
                seen += ids(page)
                if cursor is None:
                    await fill(store, A, "newer", at=minutes(60))
                cursor = page.next_cursor
                if cursor is None:
                    break
            assert seen == ["c4", "c3", "c2", "x3", "x2", "x1", "c1", "c0"]

    asyncio.run(scenario())


def test_a_full_last_page_has_no_next(open_store: OpenStore) -> None:
    async def scenario() -> None:
        async with open_store() as store:
            assert (await store.records.list(A)).calls == []
            await fill(store, A, "c1", "c2")
            assert (await store.records.list(A, limit=2)).next_cursor is None

    asyncio.run(scenario())


def test_lists_are_cut_by_time_and_by_how_calls_ended(open_store: OpenStore) -> None:
    async def scenario() -> None:
        async with open_store() as store:
            await fill(store, A, "c0", "c1", "c2", "c3")
            ends: list[tuple[str, EndReason]] = [("c1", "no_input"), ("c2", "error")]
            for call, reason in ends:
                store.spool.append(CallEnded(CallId(call), minutes(9), reason))
            assert await store.writer.flush()
            records = store.records
            assert ids(await records.list(A, since=minutes(1), until=minutes(3))) == ["c2", "c1"]
            assert ids(await records.list(A, end_reason="error")) == ["c2"]
            assert ids(await records.list(A, until=minutes(1), end_reason="error")) == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "wrong",
    [
        {"cursor": "nonsense"},
        {"cursor": "é"},
        {"cursor": "MjAyNg=="},
        {"limit": 0},
        {"limit": 501},
        {"since": datetime(2026, 1, 1)},
    ],
)
def test_a_question_that_makes_no_sense_is_a_value_error(open_store: OpenStore, wrong: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with open_store() as store:
            with pytest.raises(ValueError):
                await store.records.list(A, **wrong)

    asyncio.run(scenario())


def test_a_database_that_is_away_is_a_store_error(tmp_path: Any) -> None:
    async def scenario() -> None:
        database = Database(database_url(f"sqlite:///{tmp_path}/nowhere/x.db", tmp_path))
        with pytest.raises(StoreError, match="the database is away"):
            await CallRecords(database).get(A, CallId("c1"))
        await database.close()

    asyncio.run(scenario())


def test_a_call_of_ours_has_the_name_that_its_carrier_gives_it_later(open_store: OpenStore) -> None:
    """In the same batch or another; a name that another call has is left to that call."""

    async def scenario() -> None:
        async with open_store() as store:
            await fill(store, A, "c1")
            assert await store.writer.flush()
            store.spool.append(CallEvent(CallId("c1"), minutes(1), NAMED, {"provider_call_id": "CA1"}))
            await fill(store, A, "c2", "c3")
            store.spool.append(CallEvent(CallId("c2"), minutes(1), NAMED, {"provider_call_id": "CA2"}))
            store.spool.append(CallEvent(CallId("c3"), minutes(1), NAMED, {"provider_call_id": "CA1"}))
            assert await store.writer.flush()
            found = [await store.records.get(A, CallId(name)) for name in ("c1", "c2", "c3")]
            assert [record["provider_call_id"] for record in found] == ["CA1", "CA2", "id-c3"]

    asyncio.run(scenario())


def test_who_ended_a_call_and_what_the_provider_said_are_in_its_record(open_store: OpenStore) -> None:
    async def scenario() -> None:
        async with open_store() as store:
            await fill(store, A, "c1", "c2")
            store.spool.append(CallEnded(CallId("c1"), minutes(5), "rejected", "rejected", "caller", "sip:603"))
            store.spool.append(CallEnded(CallId("c2"), minutes(5), "busy"))
            assert await store.writer.flush()
            found = [await store.records.get(A, CallId(name)) for name in ("c1", "c2")]
            assert [(r["ended_by"], r["provider_code"]) for r in found] == [("caller", "sip:603"), ("network", None)]

    asyncio.run(scenario())
