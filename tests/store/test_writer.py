import asyncio
import logging
import os
import random
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine import URL

from trunkline.errors import StoreError
from trunkline.ports import CallEnded, CallEvent, CallStarted, RecordEvent, TurnEnded, TurnRecord, Usage, UsageMetered
from trunkline.store.engine import Database, database_url
from trunkline.store.records import OpenCall, RecordWriter
from trunkline.store.spool import Spool
from trunkline.store.writer import open_calls
from trunkline.testing.clock import ManualClock
from trunkline.types import CallId, TenantId

AT = datetime(2026, 11, 22, 15, tzinfo=UTC)
LATER = AT + timedelta(seconds=30)
T = TenantId("default")
OpenStore = Any  # of conftest.py


def started(call: str, provider_call_id: str | None = None, at: datetime = AT) -> CallStarted:
    number = "+15550100199"
    return CallStarted(CallId(call), T, "inbound", "twilio", "clinic", at, number, "+15550101", provider_call_id)


def happened(call: str, kind: str = "state", at: datetime = AT) -> CallEvent:
    return CallEvent(CallId(call), at, kind, {"to": "active"})


def ended(call: str, reason: Any = "caller_hung_up", at: datetime = LATER) -> CallEnded:
    return CallEnded(CallId(call), at, reason)


def turn(call: str, index: int = 0) -> TurnEnded:
    return TurnEnded(CallId(call), AT, TurnRecord(index, "hello", "good morning", total_ms=312.5, tools=("hours",)))


def metered(call: str) -> UsageMetered:
    return UsageMetered(AT, Usage(CallId(call), "espeak", "tts", "characters", 12))


def whole_call(call: str) -> list[RecordEvent]:
    return [started(call), happened(call, "answered"), turn(call), metered(call), ended(call)]


def killed(folder: Path, *events: RecordEvent) -> str:
    """A process took these and died. Its run."""
    spool = Spool(folder, sync_period_s=None)
    for event in events:
        spool.append(event)
    spool._release_folder()
    return spool.run


async def fill(store: Any, *events: RecordEvent) -> None:
    for event in events:
        store.spool.append(event)
    assert await store.writer.flush()


def test_a_call_reaches_the_database_as_it_happened(open_store: OpenStore) -> None:
    async def scenario() -> None:
        async with open_store() as store:
            await fill(store, *whole_call("c1"))
            record = await store.records.get(T, CallId("c1"))
            assert record["end_reason"] == "caller_hung_up"
            assert record["answered_at"] == "2026-11-22T15:00:00+00:00"
            assert (record["turns"][0]["total_ms"], record["turns"][0]["tools"]) == (312.5, ["hours"])
            assert record["usage"][0]["quantity"] == 12
            assert record["events"][0]["data"] == {"to": "active"}
            assert (await store.rows("spool_positions"))[0]["seq"] == 5
            assert store.writer.stats.written == 5

    asyncio.run(scenario())


def test_flush_waits_for_all_that_was_appended_before_it(open_store: OpenStore) -> None:
    async def scenario() -> None:
        async with open_store() as store:
            for number in range(200):
                store.spool.append(started(f"c{number}"))
            assert await store.writer.flush()
            assert await store.count("calls") == 200
            assert await store.writer.flush()

    asyncio.run(scenario())


def test_the_first_end_wins_and_a_second_changes_nothing(open_store: OpenStore) -> None:
    async def scenario() -> None:
        async with open_store() as store:
            await fill(store, started("c1"), ended("c1", "media_lost", AT))
            await fill(store, ended("c1", "caller_hung_up"), ended("c1", "error"))
            record = await store.records.get(T, CallId("c1"))
            assert (record["end_reason"], record["ended_at"]) == ("media_lost", AT.isoformat())

    asyncio.run(scenario())


def test_what_comes_before_its_call_waits_for_it(open_store: OpenStore) -> None:
    async def scenario() -> None:
        async with open_store() as store:
            for event in reversed(whole_call("c1")[1:]):
                await fill(store, event)
            assert await store.count("unplaced_events") == 4
            assert await store.records.get(T, CallId("c1")) is None
            await fill(store, started("c1"))
            record = await store.records.get(T, CallId("c1"))
            assert (record["end_reason"], len(record["turns"])) == ("caller_hung_up", 1)
            assert record["answered_at"] is not None
            assert await store.count("unplaced_events") == 0

    asyncio.run(scenario())


def test_a_run_that_died_is_replayed_once_however_often_it_dies(open_store: OpenStore, tmp_path: Path) -> None:
    killed(tmp_path / "spool" / "w0", *whole_call("c1"), *whole_call("c2"))

    async def dies_in_between() -> None:
        async with open_store(start=False) as store:
            await store.writer.step()
            store.spool._closed = True  # and so leaves its files as they are
            store.spool._release_folder()

    async def scenario() -> None:
        async with open_store() as store:
            await fill(store, *whole_call("c3"))
            for table, count in (("calls", 3), ("call_events", 3), ("turns", 3), ("usage", 3), ("unplaced_events", 0)):
                assert await store.count(table) == count, table
            assert [row["run"] for row in await store.rows("spool_positions")] == [store.spool.run]
            assert len(list(store.spool.folder.iterdir())) == 1

    asyncio.run(dies_in_between())
    asyncio.run(dies_in_between())
    asyncio.run(scenario())


def test_rows_survive_the_loss_of_the_position(open_store: OpenStore) -> None:
    async def scenario() -> None:
        async with open_store() as store:
            await fill(store, *whole_call("c1"), ended("c9"))
            async with store.database.write() as connection:
                await connection.execute(text("DELETE FROM spool_positions"))
            store.spool.rewind()
            await fill(store, happened("c1"))
            for table, count in (("calls", 1), ("call_events", 2), ("turns", 1), ("usage", 1), ("unplaced_events", 1)):
                assert await store.count(table) == count, table

    asyncio.run(scenario())


def test_a_commit_whose_answer_was_lost_is_not_done_twice(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with open_store(start=False) as store:
            for event in (started("c1"), happened("c1")):
                store.spool.append(event)
            write = store.writer._write_batch

            async def unsure(batch: Any) -> None:
                await write(batch)
                raise ConnectionResetError

            monkeypatch.setattr(store.writer, "_write_batch", unsure)
            with pytest.raises(ConnectionResetError):
                await store.writer.step()
            monkeypatch.undo()
            assert await store.writer.step()
            assert await store.count("call_events") == 1
            assert store.spool.stats.committed == 2

    asyncio.run(scenario())


def test_a_call_left_open_by_a_dead_process_is_ended_when_it_was_last_heard_of(
    open_store: OpenStore, tmp_path: Path
) -> None:
    heard = AT + timedelta(seconds=7)
    folder = tmp_path / "spool" / "w0"
    killed(folder, started("lost"), happened("lost", at=heard), *whole_call("done"), started("silent"))

    async def scenario() -> None:
        async with open_store() as store:
            await fill(store, started("live"))
            lost = await store.records.get(T, CallId("lost"))
            assert (lost["end_reason"], lost["ended_at"]) == ("gateway_lost", heard.isoformat())
            assert (await store.records.get(T, CallId("silent")))["ended_at"] == AT.isoformat()
            assert (await store.records.get(T, CallId("done")))["end_reason"] == "caller_hung_up"
            assert (await store.records.get(T, CallId("live")))["ended_at"] is None
            assert [call.call_id for call in await store.records.open_calls("w0")] == ["live"]
            assert store.writer.stats.lost_calls == 2

    asyncio.run(scenario())


def test_the_sweep_finds_a_call_whose_start_was_committed_long_before_the_death(
    open_store: OpenStore, tmp_path: Path
) -> None:
    async def first_life() -> None:
        async with open_store() as store:
            await fill(store, started("c1"))
            store.spool._closed = True
            store.spool._release_folder()

    async def second_life() -> None:
        async with open_store() as store:
            assert await store.writer.flush()
            assert (await store.records.get(T, CallId("c1")))["end_reason"] == "gateway_lost"

    asyncio.run(first_life())
    asyncio.run(second_life())


def test_the_sweep_leaves_calls_of_others_and_calls_carried_on(open_store: OpenStore, tmp_path: Path) -> None:
    killed(tmp_path / "spool" / "w0", started("lost"), started("resumed"))

    async def scenario() -> None:
        async with open_store("w1") as other:
            await fill(other, started("elsewhere"))
            async with open_store("w0", start=False) as store:
                store.spool.append(started("resumed"))  # Twilio came back to us with it
                await store.writer.start()
                assert await store.writer.flush()
                open_now = [call.call_id for call in await store.records.open_calls("w0")]
                assert open_now == ["resumed"]
                assert (await store.records.open_calls("w0"))[0].run == store.spool.run
                assert [call.call_id for call in await store.records.open_calls("w1")] == ["elsewhere"]

    asyncio.run(scenario())


def test_a_call_that_comes_back_during_the_sweep_is_not_swept(
    open_store: OpenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(tmp_path / "spool" / "w0", started("resumed"))

    async def scenario() -> None:
        async with open_store(start=False) as store:

            async def comes_back(*args: Any) -> Any:
                found = await open_calls(*args)
                store.spool.append(started("resumed"))
                return found

            monkeypatch.setattr("trunkline.store.writer.open_calls", comes_back)
            await store.writer.start()
            assert await store.writer.flush()
            monkeypatch.undo()
            (call,) = await store.records.open_calls("w0")
            assert (call.call_id, call.run) == ("resumed", store.spool.run)

    asyncio.run(scenario())


CHILD = """
import asyncio, sys
from pathlib import Path
from trunkline.clock import SYSTEM_CLOCK
from trunkline.ports import CallEvent, CallStarted
from trunkline.store.engine import Database, database_url
from trunkline.store.records import RecordWriter
from trunkline.store.spool import Spool
from trunkline.store.writer import open_calls

async def main():
    folder = Path(sys.argv[1])
    spool = Spool(folder / "spool" / "w0", segment_bytes=20_000)
    writer = RecordWriter(spool, Database(database_url(sys.argv[2], folder)), SYSTEM_CLOCK, worker="w0")
    await writer.start()
    at = SYSTEM_CLOCK.wall()
    spool.append(CallStarted("c1", "default", "inbound", "twilio", "clinic", at))
    for number in range(1_000_000):
        spool.append(CallEvent("c1", at, str(number)))
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
        if number % 50 == 0:
            await writer.flush()

asyncio.run(main())
"""


def test_after_kill_9_every_event_is_in_the_database_once(open_store: OpenStore, url: URL, tmp_path: Path) -> None:
    """At any moment: in a transaction, before the position is known, while a segment is deleted."""
    target = url.render_as_string(hide_password=False)
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path), target], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    reported = [child.stdout.readline().strip() for _ in range(random.randint(1, 1000))]
    child.kill()
    rest, _ = child.communicate()
    reported += rest.split("\n")[:-1]

    async def scenario() -> None:
        async with open_store() as store:
            assert await store.writer.flush(20)
            record = await store.records.get(T, CallId("c1"))
            found = sorted(int(event["kind"]) for event in record["events"])
            assert found[: len(reported)] == list(range(len(reported)))
            assert found == list(range(len(found)))
            assert record["end_reason"] == "gateway_lost"

    asyncio.run(scenario())


def test_a_known_status_is_better_than_gateway_lost(open_store: OpenStore, tmp_path: Path) -> None:
    killed(tmp_path / "spool" / "w0", started("c1", "CA1"), started("c2", "CA2"), started("c3", "CA3"), ended("c3"))

    def status_of(call: OpenCall) -> Any:
        return "caller_hung_up" if call.provider_call_id == "CA1" else None

    async def scenario() -> None:
        async with open_store(status_of=status_of) as store:
            assert await store.writer.flush()
            reasons = {call["id"]: call["end_reason"] for call in (await store.records.list(T)).calls}
            assert reasons == {"c1": "caller_hung_up", "c2": "gateway_lost", "c3": "caller_hung_up"}

    asyncio.run(scenario())


def test_two_calls_with_one_provider_id_are_both_kept(open_store: OpenStore) -> None:
    async def scenario() -> None:
        async with open_store() as store:
            await fill(store, started("c1", "CA1"))
            await fill(store, started("c2", "CA1"), turn("c2"))
            assert (await store.records.find_by_provider_id(T, "CA1"))["id"] == "c1"
            second = await store.records.get(T, CallId("c2"))
            assert [event["kind"] for event in second["events"]] == ["provider_call_id_taken"]

    asyncio.run(scenario())


def test_what_the_database_refuses_is_put_aside_and_the_rest_goes_on(
    open_store: OpenStore, caplog: pytest.LogCaptureFixture
) -> None:
    nobody: Any = None

    async def scenario() -> None:
        async with open_store() as store:
            bad = CallEvent(CallId("c1"), AT, nobody, {"number": "+15550100199"})
            await fill(store, started("c1"), bad, turn("c1"))
            assert len((await store.records.get(T, CallId("c1")))["turns"]) == 1
            (row,) = await store.rows("unplaced_events")
            assert (row["reason"], row["call_id"]) == ("refused", "c1")
            assert store.writer.stats.refused == 1

    asyncio.run(scenario())
    assert "c1" in caplog.text
    assert "5550100199" not in caplog.text


def test_records_wait_in_the_spool_while_the_database_is_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Locked by another process: sqlite answers BUSY."""

    async def scenario() -> None:
        spool = Spool(tmp_path / "spool", sync_period_s=None)
        database = Database(database_url(None, tmp_path), busy_timeout_ms=0)
        writer = RecordWriter(spool, database, ManualClock(), worker="w0")
        await writer.start()
        assert await writer.flush()
        other = sqlite3.connect(tmp_path / "trunkline.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for event in whole_call("c1"):
            spool.append(event)
        assert not await writer.flush(0.01)
        assert writer.stats.away
        other.close()
        assert await writer.drain(2)
        assert not writer.stats.away
        assert writer.stats.written == 5
        await writer.close()
        spool.close()
        await database.close()
        assert list((tmp_path / "spool").iterdir()) == []

    asyncio.run(scenario())
    assert "SQLITE_BUSY" in caplog.text
    assert "5550100199" not in caplog.text


def test_a_start_without_the_database_takes_calls_and_catches_up_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        spool = Spool(tmp_path / "spool", sync_period_s=None)
        database = Database(database_url(None, tmp_path))
        upgrade = database.upgrade

        async def away() -> None:
            raise ConnectionRefusedError

        monkeypatch.setattr(database, "upgrade", away)
        writer = RecordWriter(spool, database, ManualClock(), worker="w0")
        await writer.start()
        assert writer.stats.away
        for event in whole_call("c1"):
            spool.append(event)
        monkeypatch.setattr(database, "upgrade", upgrade)
        assert await writer.flush()
        assert writer.stats.written == 5
        await writer.close()
        spool.close()
        await database.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("trouble", ["rubbish", "folder", "newer"])
def test_what_an_admin_must_put_right_is_said_at_start(tmp_path: Path, trouble: str) -> None:
    path = tmp_path / "trunkline.db"
    if trouble == "rubbish":
        path.write_bytes(b"not a database, but long enough to look at" * 100)
    elif trouble == "folder":
        path.mkdir()

    async def scenario() -> None:
        spool = Spool(tmp_path / "spool", sync_period_s=None)
        database = Database(database_url(None, tmp_path))
        if trouble == "newer":
            await database.upgrade()
            async with database.write() as connection:
                await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        writer = RecordWriter(spool, database, ManualClock(), worker="w0")
        with pytest.raises(StoreError, match=r"SQLITE_NOTADB|SQLITE_CANTOPEN|another version"):
            await writer.start()
        await writer.close()
        spool.close()
        await database.close()

    asyncio.run(scenario())


def test_a_deleted_database_file_is_made_anew_from_what_the_spool_has(tmp_path: Path) -> None:
    async def scenario() -> None:
        spool = Spool(tmp_path / "spool", sync_period_s=None)
        database = Database(database_url(None, tmp_path))
        writer = RecordWriter(spool, database, ManualClock(), worker="w0")
        await writer.start()
        for event in whole_call("c1"):
            spool.append(event)
        assert await writer.flush()
        (tmp_path / "trunkline.db").unlink()
        for event in whole_call("c2"):
            spool.append(event)
        assert await writer.flush()
        await writer.close()
        spool.close()
        await database.close()
        found = sqlite3.connect(tmp_path / "trunkline.db")
        assert found.execute("SELECT id, end_reason FROM calls ORDER BY id").fetchall() == [
            ("c1", "caller_hung_up"),
            ("c2", "caller_hung_up"),
        ]
        found.close()

    asyncio.run(scenario())


def test_two_workers_write_one_database_at_the_same_time(open_store: OpenStore) -> None:
    async def scenario() -> None:
        async with open_store("w0") as one, open_store("w1") as two:
            for number in range(100):
                for store, name in ((one, "a"), (two, "b")):
                    for event in whole_call(f"{name}{number}"):
                        store.spool.append(event)
            assert all(await asyncio.gather(one.writer.flush(10), two.writer.flush(10)))
            assert await one.count("calls") == 200
            assert await one.count("turns") == 200

    asyncio.run(scenario())


def test_a_full_disk_under_the_spool_still_reaches_the_database(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with open_store() as store:
            assert await store.writer.flush()
            with monkeypatch.context() as patched:
                patched.setattr(store.spool, "_write", lambda lines: False)
                await fill(store, *whole_call("c1"))
            assert (await store.records.get(T, CallId("c1")))["end_reason"] == "caller_hung_up"
            assert store.spool.stats.held == 0

    asyncio.run(scenario())


def test_flush_without_a_running_writer_says_no(open_store: OpenStore) -> None:
    async def scenario() -> None:
        async with open_store(start=False) as store:
            assert not await store.writer.flush()
        async with open_store() as store:
            await store.writer.close()
            assert not await store.writer.flush()

    asyncio.run(scenario())


def test_postgresql_with_a_wrong_name_is_said_and_an_absent_server_is_waited_for(url: URL, tmp_path: Path) -> None:
    if url.get_backend_name() != "postgresql":
        pytest.skip("about servers")

    async def scenario() -> None:
        spool = Spool(tmp_path / "spool", sync_period_s=None)
        database = Database(url.set(database="nowhere"))
        with pytest.raises(StoreError, match="3D000"):
            await RecordWriter(spool, database, ManualClock(), worker="w0").start()
        await database.close()
        database = Database(url.set(port=1))
        writer = RecordWriter(spool, database, ManualClock(), worker="w0")
        await writer.start()
        assert writer.stats.away
        await writer.close()
        await database.close()
        spool.close()

    asyncio.run(scenario())


def test_a_lost_connection_is_replaced(open_store: OpenStore, url: URL, caplog: pytest.LogCaptureFixture) -> None:
    if url.get_backend_name() != "postgresql":
        pytest.skip("about servers")
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        async with open_store() as store:
            await fill(store, *whole_call("c1"))
            other = Database(url)
            async with other.write() as connection:
                await connection.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )
                )
            await other.close()
            await fill(store, *whole_call("c2"))
            assert await store.count("calls") == 2

    asyncio.run(scenario())


def test_nothing_of_a_record_is_in_the_folder_after_a_clean_end(open_store: OpenStore, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store() as store:
            await fill(store, *whole_call("c1"))

    asyncio.run(scenario())
    assert os.listdir(tmp_path / "spool" / "w0") == []
