"""What people said is sealed in the spool and in the database, and all that reads it reads it as before."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trunkline.ports import CallEnded, CallEvent, CallStarted, TurnEnded, TurnRecord
from trunkline.privacy.sealed import KeyRing
from trunkline.privacy.texts import TextSeal
from trunkline.store.subjects import files_with
from trunkline.types import DEFAULT_TENANT as US
from trunkline.types import CallId

AT = datetime(2026, 11, 22, 15, tzinfo=UTC)
ANN = "+12125550177"
WORDS = "my maiden name is Featherstonehaugh"
OpenStore = Any  # of conftest.py
FIRST, SECOND = bytes(32), bytes(range(32))


def seal(**keys: bytes) -> TextSeal:
    return TextSeal(KeyRing(keys or {"first": FIRST}))


def a_call(spool: Any, call_id: str = "c1") -> None:
    call = CallId(call_id)
    spool.append(CallStarted(call, US, "inbound", "sip", "clinic", AT, ANN, "+12125550100", call_id))
    spool.append(TurnEnded(call, AT, TurnRecord(0, WORDS, "Thank you.")))
    spool.append(CallEvent(call, AT, "answered", {}))
    spool.append(CallEvent(call, AT, "attributes", {"said": [WORDS]}))
    spool.append(CallEnded(call, AT, "caller_hung_up"))


def test_words_are_nowhere_in_clear_and_the_record_has_them(open_store: OpenStore, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store(seal=seal()) as store:
            a_call(store.spool)
            assert files_with(tmp_path / "spool", "Featherstonehaugh") == []
            assert files_with(tmp_path / "spool", ANN) == []  # a line is sealed whole
            assert await store.writer.flush()
            (turn,), events = await store.rows("turns"), await store.rows("call_events")
            assert turn["caller_text"].startswith("sealed:1:first:")
            assert "Featherstonehaugh" not in str(turn) + str(events)
            record = await store.records.get(US, CallId("c1"))
            assert (record["turns"][0]["caller_text"], record["turns"][0]["agent_text"]) == (WORDS, "Thank you.")
            assert [event["data"] for event in record["events"]] == [{}, {"said": [WORDS]}]
            assert files_with(tmp_path, "Featherstonehaugh") == []

    asyncio.run(scenario())


def test_the_spool_of_a_dead_process_is_replayed_with_its_key(open_store: OpenStore) -> None:
    async def scenario() -> None:
        async with open_store(seal=seal(), start=False) as store:
            a_call(store.spool)
        async with open_store(seal=seal(second=SECOND, first=FIRST)) as store:
            assert await store.writer.flush()
            assert store.spool.stats.locked == 0
            assert (await store.rows("turns"))[0]["caller_text"].startswith("sealed:1:second:")
            assert (await store.records.get(US, CallId("c1")))["turns"][0]["caller_text"] == WORDS

    asyncio.run(scenario())


def test_a_lost_key_costs_what_it_sealed_and_is_named(open_store: OpenStore, tmp_path: Path, caplog: Any) -> None:
    async def scenario() -> None:
        async with open_store(seal=seal()) as store:
            a_call(store.spool)
            assert await store.writer.flush()
        async with open_store("w1", seal=seal(), start=False) as store:
            a_call(store.spool, "c2")
        async with open_store("w1", seal=seal(second=SECOND)) as store:  # "first" is gone
            a_call(store.spool, "c3")
            assert await store.writer.flush()
            record = await store.records.get(US, CallId("c1"))
            why = "the key 'first' is needed: privacy.keys has second"
            assert record["turns"][0]["caller_text"] == f"[sealed: {why}]"
            assert record["events"][1]["data"] == {"sealed": why}
            assert record["end_reason"] == "caller_hung_up"
            assert (await store.records.get(US, CallId("c3")))["turns"][0]["caller_text"] == WORDS
            assert await store.records.get(US, CallId("c2")) is None
            assert store.spool.stats.locked == 5
            assert caplog.text.count(why) == 1
        (kept,) = (tmp_path / "spool" / "w1").glob("*.kept")
        kept.rename(kept.with_suffix(".spool"))
        async with open_store("w1", seal=seal(second=SECOND, first=FIRST)) as store:  # it was found again
            assert await store.writer.flush()
            assert (await store.records.get(US, CallId("c2")))["turns"][0]["caller_text"] == WORDS

    asyncio.run(scenario())


def test_what_waits_for_its_call_is_sealed_and_comes_with_it(open_store: OpenStore) -> None:
    async def scenario() -> None:
        async with open_store(seal=seal()) as store:
            store.spool.append(CallEvent(CallId("c1"), AT, "attributes", {"said": WORDS}))
            assert await store.writer.flush()
            (waiting,) = await store.rows("unplaced_events")
            assert waiting["body"].startswith("sealed:1:first:")
        async with open_store(seal=seal(second=SECOND)) as store:  # without the key it waits, and holds nobody up
            store.spool.append(CallStarted(CallId("c1"), US, "inbound", "sip", "clinic", AT, ANN, None, "c1"))
            assert await store.writer.flush()
            assert await store.count("unplaced_events") == 1
            assert await store.count("calls") == 1
        async with open_store(seal=seal()) as store:
            store.spool.append(CallEvent(CallId("c2"), AT, "attributes", {"said": WORDS}))
            store.spool.append(CallStarted(CallId("c2"), US, "inbound", "sip", "clinic", AT, ANN, None, "c2"))
            assert await store.writer.flush()
            assert (await store.records.get(US, CallId("c2")))["events"][0]["data"] == {"said": WORDS}

    asyncio.run(scenario())


def test_words_moved_to_another_row_do_not_open_there(open_store: OpenStore) -> None:
    async def scenario() -> None:
        from sqlalchemy import text

        async with open_store(seal=seal()) as store:
            a_call(store.spool)
            a_call(store.spool, "c2")
            assert await store.writer.flush()
            async with store.database.write() as connection:
                moved = "UPDATE turns SET caller_text = (SELECT caller_text FROM turns WHERE call_id = 'c2')"
                await connection.execute(text(moved + " WHERE call_id = 'c1'"))
            record = await store.records.get(US, CallId("c1"))
            assert record["turns"][0]["caller_text"].startswith("[sealed: not as it was sealed")

    asyncio.run(scenario())
