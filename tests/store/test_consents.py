"""The consent ledger, the lists and the journal, on both databases."""

import asyncio
import errno
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine import URL

from trunkline.errors import StoreError
from trunkline.ports import Evidence, Grant, Revocation
from trunkline.store.consentjournal import ConsentJournal, decode, encode
from trunkline.store.consents import ConsentLedger, Noted, new_id
from trunkline.store.dnc import DncLists
from trunkline.store.engine import Database
from trunkline.testing.clock import ManualClock
from trunkline.types import DEFAULT_TENANT as US
from trunkline.types import CallId, TenantId

AT = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)
YEAR_ON = AT + timedelta(days=365)
ANN, BOB = "+12125550100", "+12125550101"


def grant(subject: str = ANN, **changes: Any) -> Grant:
    given = Grant(
        US, subject, "express_oral", AT, "keypad", ("artificial_voice",), "May we call?", "v1", ("marketing",),
        call_id=CallId("call_1"), evidence=(Evidence("recording", "s3://x/1.wav"),), valid_until=YEAR_ON,
    )  # fmt: skip
    return replace(given, **changes)


def revocation(subject: str = ANN, **changes: Any) -> Revocation:
    return replace(Revocation(US, subject, AT, "speech", "take me off your list"), **changes)


@asynccontextmanager
async def opened(url: URL) -> AsyncGenerator[Database]:
    database = Database(url, busy_timeout_ms=2000)
    try:
        await database.upgrade()
        yield database
    finally:
        await database.close()


def with_database(url: URL, scenario: Callable[[Database], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(url) as database:
            await scenario(database)

    asyncio.run(run())


async def execute(database: Database, statement: str) -> None:
    async with database.write() as connection:
        await connection.execute(text(statement))


def noted(*said: Grant | Revocation) -> list[Noted]:
    return [Noted(new_id(), each) for each in said]


def test_what_was_said_is_kept_and_taken_once(url: URL) -> None:
    async def scenario(database: Database) -> None:
        ledger = ConsentLedger(database)
        said = noted(grant(), revocation(), grant(BOB))
        assert await ledger.note(US, said) == 3
        assert await ledger.note(US, [*said, *noted(revocation(BOB))]) == 1
        rows = await ledger.of(US, ANN)
        assert [row.event for row in rows] == ["grant", "revoke"]
        assert rows[0].at == AT
        body = rows[0].body
        assert body["form"] == "express_oral"
        assert body["evidence"] == [{"kind": "recording", "uri": "s3://x/1.wav", "sha256": ""}]
        assert "May we call?" not in str(body), "the wording is kept by its hash"
        assert rows[1].body["verbatim"] == "take me off your list"
        assert await ledger.of(TenantId("another"), ANN) == []
        verified = await ledger.verify(US)
        assert (verified.rows, verified.broken) == (4, None)

    with_database(url, scenario)


@pytest.mark.parametrize(
    ("statement", "row"),
    [
        ("UPDATE consent_events SET body = replace(body, 'express_oral', 'express_written') WHERE seq = 2", 2),
        ("UPDATE consent_events SET subject = '+12125550199' WHERE seq = 3", 3),
        ("UPDATE consent_events SET event = 'revoke' WHERE seq = 2", 2),
        ("DELETE FROM consent_events WHERE seq = 2", 2),
        ("DELETE FROM consent_events WHERE seq = 1", 1),
        ("UPDATE consent_events SET prev_hash = hash WHERE seq = 3", 3),
        ("UPDATE consent_events SET body = NULL, salt = NULL, subject = NULL WHERE seq = 2", 2),
        ("UPDATE consent_events SET body = NULL WHERE seq = 2", 2),
        ("UPDATE consent_events SET at = '2026-11-21 15:00:00' WHERE seq = 4", 4),
    ],
)
def test_the_first_row_that_was_touched_is_named(url: URL, statement: str, row: int) -> None:
    async def scenario(database: Database) -> None:
        ledger = ConsentLedger(database)
        await ledger.note(US, noted(grant(), grant(BOB), revocation(), revocation(BOB)))
        await execute(database, statement)
        verified = await ledger.verify(US)
        assert verified.broken == row, verified
        assert verified.why

    with_database(url, scenario)


def test_an_erasure_leaves_a_chain_that_can_be_checked_and_the_do_not_call_entry(url: URL) -> None:
    async def scenario(database: Database) -> None:
        ledger, lists = ConsentLedger(database), DncLists(database)
        await ledger.note(US, noted(grant(), grant(BOB), revocation(do_not_call=True)))
        head = (await ledger.verify(US)).head
        assert await ledger.erase(US, ANN, AT) == 2
        assert await ledger.erase(US, ANN, AT) == 0
        assert (await ledger.export(US, ANN))["events"] == []
        assert len((await ledger.export(US, BOB))["events"]) == 1
        verified = await ledger.verify(US)
        assert (verified.rows, verified.broken) == (4, None)
        assert verified.head != head
        async with database.read() as connection:
            rows = (await connection.execute(text("SELECT * FROM consent_events"))).all()
        assert ANN not in str(rows)
        assert ("company", "") in (await lists.look(US, ANN)).on
        await ledger.note(US, noted(grant()))
        assert (await ledger.verify(US)).broken is None

    with_database(url, scenario)


def test_writers_at_once_make_one_chain(url: URL) -> None:
    async def scenario(database: Database) -> None:
        ledgers = [ConsentLedger(database) for _ in range(4)]
        await asyncio.gather(*(ledger.note(US, noted(grant(), revocation())) for ledger in ledgers for _ in range(5)))
        verified = await ledgers[0].verify(US)
        assert (verified.rows, verified.broken) == (40, None)

    with_database(url, scenario)


def test_lists(url: URL) -> None:
    async def scenario(database: Database) -> None:
        lists = DncLists(database)
        await lists.take(US, "national", "US", [ANN, BOB], AT, AT)
        await lists.take(US, "state", "US-TX", [], AT, AT)
        looked = await lists.look(US, ANN)
        assert looked.on == {("national", "US")}
        assert looked.drawn == {("national", "US"): AT, ("state", "US-TX"): AT}
        later = AT + timedelta(days=1)
        await lists.take(US, "national", "US", [BOB] + [f"+1212555{n:04d}" for n in range(1200)], later, later)
        assert (await lists.look(US, ANN)).on == {("national", "US")}, "it is among the new ones"
        last = later + timedelta(seconds=1)
        taken: list[int] = []
        await lists.take(US, "national", "US", [BOB], last, last, taken.append)
        assert taken == [1]
        assert (await lists.look(US, ANN)).on == frozenset()
        assert (await lists.look(US, BOB)).on == {("national", "US")}
        await lists.add(US, "company", [ANN, ANN], AT, "api")
        await lists.take(US, "company", "", [BOB], AT, later)
        assert await lists.since(US, None) == ([ANN, BOB], False, later)
        assert (await lists.since(US, later))[0] == [BOB]
        await lists.add(US, "stop", ["*"], later, "operator")
        assert (await lists.since(US, later))[1]
        assert ("stop", "") in (await lists.look(US, "+4930123456")).on
        assert await lists.start_again(US)
        assert not await lists.start_again(US)

    with_database(url, scenario)


def test_who_follows_the_company_list_sees_the_end_of_a_long_import(url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.store.dnc._TAKEN", 1)

    async def scenario(database: Database) -> None:
        lists, clock = DncLists(database), ManualClock()

        def slow(taken: int) -> None:
            clock.advance(300)

        await lists.take(US, "company", "", [ANN, BOB], AT, AT, slow, clock)
        assert (await lists.since(US, AT + timedelta(seconds=200)))[0] == [BOB]

    with_database(url, scenario)


def test_a_list_that_came_in_half_holds_both_copies_under_the_old_date(url: URL) -> None:
    async def scenario(database: Database) -> None:
        lists, later = DncLists(database), AT + timedelta(days=1)
        await lists.take(US, "national", "US", [ANN], AT, AT)

        def dies(taken: int) -> None:
            raise KeyboardInterrupt

        many = (
            [BOB]
            + [f"+1212555{n:04d}" for n in range(9999)]
            + [f"+1213555{n:04d}" for n in range(9999)]
            + [f"+1214{n:07d}" for n in range(5000)]
        )
        with pytest.raises(KeyboardInterrupt):
            await lists.take(US, "national", "US", many, later, later, dies)
        for number in (ANN, BOB):
            looked = await lists.look(US, number)
            assert looked.on == {("national", "US")}
            assert looked.drawn == {("national", "US"): AT}

    with_database(url, scenario)


def test_attempts_are_noted_before_they_are_made(url: URL) -> None:
    async def scenario(database: Database) -> None:
        lists, since = DncLists(database), AT - timedelta(days=30)
        first, before = await lists.attempt(US, ANN, AT, since)
        assert before == ()
        both = await asyncio.gather(*(lists.attempt(US, ANN, AT + timedelta(hours=1), since) for _ in range(2)))
        assert sorted(len(times) for _, times in both) == [1, 2], "of two at once the second sees the first"
        await lists.not_tried(US, first)
        assert len(await lists.attempts(US, ANN, since)) == 2
        await lists.attempt(US, BOB, AT + timedelta(days=40), since)
        assert await lists.attempts(US, ANN, since) == (), "old ones are swept"

    with_database(url, scenario)


def test_a_database_that_is_away_says_so(tmp_path: Path, url: URL) -> None:
    async def run() -> None:
        database = Database(url)  # never upgraded
        ledger, lists = ConsentLedger(database), DncLists(database)
        try:
            for asked in (ledger.of(US, ANN), ledger.note(US, noted(grant())), lists.look(US, ANN), ledger.verify(US)):
                with pytest.raises(StoreError):
                    await asked
        finally:
            await database.close()

    if url.get_backend_name() == "sqlite":
        asyncio.run(run())


# --- the journal -----------------------------------------------------------------------------------------------------


class Taker:
    def __init__(self) -> None:
        self.away = False
        self.taken: list[Noted] = []

    async def note(self, tenant: TenantId, noted: Sequence[Noted]) -> None:
        if self.away:
            raise StoreError("away")
        self.taken += noted


def test_a_line_of_the_journal_is_what_was_said() -> None:
    for said in (grant(), grant(valid_until=None, evidence=()), revocation(do_not_call=True, call_id=CallId("call_2"))):
        each = Noted("1", said)
        assert decode(encode(each)) == each
    for line in (b"", b"{}", b"[1]", b'{"id":"1","kind":"sale","said":{}}', encode(noted(grant())[0])[:-20]):
        with pytest.raises(ValueError):
            decode(line)


def test_what_was_said_while_the_database_was_away_survives_the_process(tmp_path: Path) -> None:
    async def run() -> None:
        taker = Taker()
        taker.away = True
        dies = ConsentJournal(tmp_path / "spool" / "j", taker.note)
        dies.grant(grant())
        dies.revoke(revocation())
        with pytest.raises(StoreError):
            await dies.drain()
        with (tmp_path / "spool" / "j").open("ab") as file:
            file.write(b'{"torn')
        taker.away = False
        lives = ConsentJournal(tmp_path / "spool" / "j", taker.note)
        lives.revoke(revocation(BOB))
        await lives.close()
        assert [n.said for n in taker.taken] == [grant(), revocation(), revocation(BOB)]
        assert (tmp_path / "spool" / "j").read_bytes() == b""

    asyncio.run(run())


def test_the_journal_drains_by_itself(tmp_path: Path) -> None:
    async def run() -> None:
        taker = Taker()
        journal = ConsentJournal(tmp_path / "j", taker.note)
        journal.start()
        journal.revoke(revocation())
        async with asyncio.timeout(5):
            while not taker.taken:
                await asyncio.sleep(0.01)
        await journal.close()
        assert journal.waiting == ()

    asyncio.run(run())


class FullDisk:
    """os.write that takes `room` more bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int = 0) -> None:
        self.room, self._write = room, os.write
        monkeypatch.setattr("trunkline.store.consentjournal.os.write", self.write)

    def write(self, fd: int, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = self._write(fd, data[: self.room])
        self.room -= taken
        return taken


@pytest.mark.parametrize("room", [0, 40])
def test_on_a_full_disk_what_was_said_reaches_the_ledger_from_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, room: int
) -> None:
    async def run() -> None:
        taker = Taker()
        journal = ConsentJournal(tmp_path / "j", taker.note)
        FullDisk(monkeypatch, room)
        journal.grant(grant())
        journal.revoke(revocation())
        assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
        assert "2 in memory only" in caplog.text
        assert ANN not in caplog.text
        await journal.drain()
        assert [n.said for n in taker.taken] == [grant(), revocation()]
        await journal.close()

    asyncio.run(run())


def test_when_the_disk_has_room_again_what_was_in_memory_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        taker = Taker()
        taker.away = True
        dies = ConsentJournal(tmp_path / "j", taker.note)
        disk = FullDisk(monkeypatch, 40)
        dies.grant(grant())
        disk.room = 1 << 20
        dies.revoke(revocation())
        lives = ConsentJournal(tmp_path / "j", taker.note)
        assert [n.said for n in lives.waiting] == [grant(), revocation()]

    asyncio.run(run())


def test_what_neither_disk_nor_memory_holds_is_told_loudly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        taker = Taker()
        taker.away = True
        monkeypatch.setattr("trunkline.store.consentjournal.MAX_WAITING", 1)
        journal = ConsentJournal(tmp_path / "j", taker.note)
        journal.revoke(revocation())
        disk = FullDisk(monkeypatch)
        journal.revoke(revocation(BOB))
        assert (journal.lost, journal.dropped, len(journal.waiting)) == (1, 0, 1)
        assert "LOST" in caplog.text
        disk.room = 1 << 20
        journal.revoke(revocation(BOB))
        assert (journal.lost, journal.dropped) == (1, 1), "on disk"
        caplog.clear()
        await journal.close(0.01)
        assert "LOST" not in caplog.text

    asyncio.run(run())


def test_a_journal_that_closes_on_a_full_disk_without_a_database_says_what_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        taker = Taker()
        taker.away = True
        journal = ConsentJournal(tmp_path / "j", taker.note)
        FullDisk(monkeypatch)
        journal.revoke(revocation())
        await journal.close(0.01)
        assert "1 events are LOST" in caplog.text

    asyncio.run(run())


def test_it_tells_whether_what_was_said_is_on_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        taker = Taker()
        taker.away = True
        journal = ConsentJournal(tmp_path / "j", taker.note)
        journal.revoke(revocation())
        assert await journal.on_disk()

        def full(fd: int, data: bytes) -> int:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as disk:
            disk.setattr("trunkline.store.consentjournal.os.write", full)
            journal.revoke(revocation(BOB))
        assert not await journal.on_disk()  # neither there nor in the database
        assert [n.said for n in journal.waiting] == [revocation(), revocation(BOB)]
        taker.away = False
        assert await journal.on_disk()  # the database has it, and its disk
        assert [n.said for n in taker.taken] == [revocation(), revocation(BOB)]
        await journal.close()

    asyncio.run(run())
