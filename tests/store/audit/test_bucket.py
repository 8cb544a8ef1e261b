"""A bucket on the wire: what waits for it, what becomes of it while the store is away, and who changed it there."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event

import pytest

from tests.fakes.s3_server import KEY_ID, SECRET, S3Server
from trunkline.errors import StoreError
from trunkline.store.audit import bucket as bucket_module
from trunkline.store.audit import files as files_module
from trunkline.store.audit.bucket import Access, Bucket
from trunkline.store.audit.chain import Broken
from trunkline.store.audit.files import AuditFiles, Custody
from trunkline.store.audit.folder import AuditFolder
from trunkline.store.audit.log import AuditLog
from trunkline.store.audit.rows import Row
from trunkline.store.audit.signing import Signer, Trusted, public_key
from trunkline.testing.clock import ManualClock

AT = datetime(2026, 11, 28, 12, tzinfo=UTC)
DAY = timedelta(days=1)
KEY = b"o" * 32


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    monkeypatch.setattr(bucket_module, "TRIES", 0)
    monkeypatch.setattr(files_module, "LOOK_PAUSE_S", 0.01)
    with S3Server("audit") as found:
        yield found


def custody(store: S3Server, secret: str = SECRET, bucket: str = "audit") -> Custody:
    there = Bucket(f"s3://{bucket}/of calls", Access(KEY_ID, secret, store.url))
    return Custody(Signer(KEY), Trusted([public_key(KEY)]), bucket=there)


def opened(folder: Path, store: S3Server, worker: str = "0") -> AuditFiles:
    files = AuditFiles(folder, worker, custody(store))
    files.open()
    return files


def row(call: str, index: int, text: str = "hello") -> Row:
    return Row(f"{call}:{index}", "turn", "sample", AT, call, caller_text=text)


def turns(files: AuditFiles) -> list[str]:
    return [each["turn_id"] for each in files.rows()]


def wrong(files: AuditFiles) -> Broken:
    broken = files.verify()[0].broken
    assert broken is not None
    return broken


ONE, MANIFEST = "audit/of calls/0/2026-11-28/00000001.parquet", "audit/of calls/0/2026-11-28.jsonl"


def test_files_are_moved_there_and_verified_there(tmp_path: Path, store: S3Server) -> None:
    files = opened(tmp_path, store)
    files.write([row("ann", 0), row("bob", 0)], AT)
    assert (files.waiting, [*store.objects]) == (1, [])
    assert files.move() == 1
    assert sorted(store.objects) == [MANIFEST, ONE]
    assert (files.waiting, [*tmp_path.glob("0/*/*.parquet")]) == (0, [])
    files.write([row("ann", 1)], AT + DAY)
    assert turns(files) == ["ann:0", "bob:0", "ann:1"]  # what waits is there as well
    files.move()
    elsewhere = AuditFolder(tmp_path / "elsewhere", custody(store))
    [found] = [each.verify()[0] for each in elsewhere.workers]
    assert (found.worker, found.files, found.rows, found.broken) == ("0", 2, 3, None)
    assert len([*elsewhere.rows()]) == 3


def test_a_listing_that_comes_in_pages_is_read_to_its_end(tmp_path: Path, store: S3Server) -> None:
    files, store.page = opened(tmp_path, store), 2
    for n in range(5):
        files.write([row("ann", n)], AT + n * DAY)
    files.move()
    assert files.verify()[0].files == 5


def test_while_the_store_is_away_files_wait_which_is_said_once(
    tmp_path: Path, store: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        told = list[int]()
        files = AuditFiles(tmp_path, "0", custody(store))
        files.open()
        files.mark(ManualClock().wall())
        files.move()
        audit = AuditLog(files, ManualClock(), lambda count: None, batch_s=3600, waiting=told.append)
        store.away = True
        for n in range(3):
            audit.append(row("ann", n))
            assert await audit.write()
            await audit.tend()
        assert told == [1, 2, 3]
        store.away = False
        await audit.tend()
        assert told == [1, 2, 3, 0]
        found = files.verify()[0]
        assert (found.rows, found.broken) == (3, None)

    with caplog.at_level(logging.WARNING, "trunkline.store.audit.log"):
        asyncio.run(scenario())
    [away, back] = [record.getMessage() for record in caplog.records]
    assert away.startswith("audit log s3://audit/of calls: network_connection: ")
    assert away.endswith("; files wait in the folder")
    assert back == "the audit log is moved to its bucket again"


@pytest.mark.parametrize(
    ("secret", "bucket", "status", "said"),
    [
        ("wrong", "audit", None, r"s3://audit/of calls: (signature_does_not_match|access_denied): "),
        (SECRET, "other", None, r"s3://other/of calls: (there is no such bucket|no_such_bucket: )"),
        (SECRET, "audit", 503, r"s3://audit/of calls: slow_down: "),
    ],
)
def test_a_store_that_refuses_is_named_in_one_line(
    tmp_path: Path, store: S3Server, secret: str, bucket: str, status: int | None, said: str
) -> None:
    files = AuditFiles(tmp_path, "0", custody(store))
    files.open()
    files.mark(AT)
    files.move()
    refused = AuditFiles(tmp_path, "0", custody(store, secret, bucket))
    refused.write([row("ann", 0)], AT)
    store.answer_status = status
    with pytest.raises(StoreError, match=said) as caught:
        refused.move()
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
    store.answer_status = None
    assert files.move() == 1
    assert files.verify()[0].broken is None


def test_a_store_that_stalls_is_given_up(tmp_path: Path, store: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_module, "STALL_S", 1.0)
    files = opened(tmp_path, store)
    files.mark(AT)
    files.write([row("ann", 0)], AT)
    store.running.clear()
    with pytest.raises(StoreError, match="network_connection"):
        files.move()
    store.running.set()
    assert files.move() == 1


def test_what_is_stopped_in_the_middle_names_nothing_that_is_not_there(tmp_path: Path, store: S3Server) -> None:
    files = opened(tmp_path, store)
    files.write([row("ann", 0)], AT)
    stop = Event()
    stop.set()
    assert files.move(stop) == 0
    assert [*store.objects] == []
    assert files.move() == 1


def test_kill_9_between_upload_and_bookkeeping_makes_nothing_twice(tmp_path: Path, store: S3Server) -> None:
    """Killed after the file, after its manifest, and before the file is taken away here."""
    script = textwrap.dedent(f"""
        import os, signal, sys
        from datetime import UTC, datetime
        from pathlib import Path
        from trunkline.store.audit.bucket import Access, Bucket, Shelf
        from trunkline.store.audit.files import AuditFiles, Custody
        from trunkline.store.audit.rows import Row
        at = datetime(2026, 11, 28, 12, tzinfo=UTC)
        bucket = Bucket("s3://audit/of calls", Access({KEY_ID!r}, {SECRET!r}, {store.url!r}))
        files = AuditFiles(Path({str(tmp_path)!r}), "0", Custody(bucket=bucket))
        files.open()
        for n in range(2):
            files.write([Row(f"c:{{sys.argv[1]}}:{{n}}", "turn", "sample", at, "c")], at)
        left, write = int(sys.argv[1]), Shelf.write
        def killed(shelf, name, data):
            global left
            write(shelf, name, data)
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        Shelf.write = killed
        files.move()
    """)
    for writes in (1, 2, 3):
        process = subprocess.run([sys.executable, "-c", script, str(writes)], env={**os.environ}, timeout=60)
        assert process.returncode == -signal.SIGKILL
        there = Bucket("s3://audit/of calls", Access(KEY_ID, SECRET, store.url))
        files = AuditFiles(tmp_path, "0", Custody(bucket=there))
        assert len(set(turns(files))) == len(turns(files)) == 2 * writes
        files.open()
        assert files.move() == 2
        found = AuditFiles(tmp_path / "elsewhere", "0", Custody(bucket=there)).verify()[0]
        assert (found.files, found.rows, found.unnamed, found.broken) == (2 * writes, 2 * writes, 0, None)


# --- whose folder it is ---


def test_an_empty_folder_takes_the_chain_over(tmp_path: Path, store: S3Server) -> None:
    """A container that began anew."""
    files = opened(tmp_path / "one", store)
    files.write([row("ann", 0)], AT)
    files.move()
    anew = opened(tmp_path / "two", store)
    anew.write([row("ann", 1)], AT + DAY)
    anew.move()
    assert (anew.verify()[0].rows, anew.verify()[0].broken) == (2, None)
    back = opened(tmp_path / "one", store)  # and its folder is old now
    back.move()
    back.write([row("ann", 2)], AT + DAY)
    back.move()
    assert turns(back) == ["ann:0", "ann:1", "ann:2"]
    assert back.verify()[0].broken is None


def test_an_empty_folder_writes_nothing_before_it_knows_where_the_chain_ends(tmp_path: Path, store: S3Server) -> None:
    files = opened(tmp_path / "one", store)
    files.write([row("ann", 0)], AT)
    files.move()
    store.away = True
    anew = opened(tmp_path / "two", store)
    with pytest.raises(StoreError, match="network_connection"):
        anew.write([row("ann", 1)], AT)
    store.away = False
    anew.write([row("ann", 1)], AT)
    anew.move()
    assert (anew.verify()[0].rows, anew.verify()[0].broken) == (2, None)


def test_two_machines_that_wrote_to_one_chain_are_told(tmp_path: Path, store: S3Server) -> None:
    one, two = opened(tmp_path / "one", store), opened(tmp_path / "two", store)
    one.write([row("ann", 0)], AT)
    two.write([row("bob", 0)], AT)
    one.move()
    before = dict(store.objects)
    with pytest.raises(StoreError, match=r"its chain is not the one of .*two/0: keep one of them elsewhere"):
        two.move()
    assert store.objects == before


# --- changed by somebody ---


def test_what_was_changed_there_is_named(tmp_path: Path, store: S3Server) -> None:
    files = opened(tmp_path, store)
    files.write([row("ann", 0)], AT)
    files.write([row("bob", 0)], AT)
    files.move()
    whole, manifest = store.objects[ONE], store.objects[MANIFEST]
    store.objects[ONE] = whole[:-1]
    assert str(wrong(files)) == "2026-11-28/00000001.parquet: it cannot be read: cut off, or no file of ours"
    del store.objects[ONE]
    assert str(wrong(files)) == "2026-11-28/00000001.parquet: the file is missing"
    store.objects[ONE] = whole
    store.objects[ONE.replace("00000001", "00000000")] = whole
    assert str(wrong(files)) == "2026-11-28/00000000.parquet: no manifest names it"
    del store.objects[ONE.replace("00000001", "00000000")]
    store.objects[MANIFEST] = manifest[:-9]
    assert str(wrong(files)) == "2026-11-28.jsonl, row 2: the line cannot be read"
    del store.objects[MANIFEST]
    assert str(wrong(files)) == "2026-11-28/00000001.parquet: no manifest names it"


def test_an_end_that_was_cut_off_there_is_missed_by_whoever_moved_it(tmp_path: Path, store: S3Server) -> None:
    files = opened(tmp_path, store)
    files.write([row("ann", 0)], AT)
    files.move()
    before = dict(store.objects)
    files.write([row("ann", 1)], AT)
    files.move()
    store.objects = before
    assert wrong(files).why == "the chain ends before what was moved there, or is another one"


def test_a_chain_that_was_written_anew_is_none_of_ours_even_without_keys(tmp_path: Path, store: S3Server) -> None:
    there = Bucket("s3://audit/of calls", Access(KEY_ID, SECRET, store.url))
    files = AuditFiles(tmp_path / "ours", "0", Custody(bucket=there))
    files.open()
    files.write([row("ann", 0)], AT)
    files.move()
    store.objects.clear()
    forged = AuditFiles(tmp_path / "theirs", "0", Custody(bucket=there))
    forged.open()
    forged.write([row("ann", 0, "I never agreed")], AT)
    forged.move()
    assert str(wrong(files)) == "2026-11-28.jsonl: the chain ends before what was moved there, or is another one"
    assert wrong(opened(tmp_path / "elsewhere", store)).why == "the line is not signed"


# --- forgotten ---


def test_whoever_is_erased_is_gone_there_and_the_rest_verifies(tmp_path: Path, store: S3Server) -> None:
    files = opened(tmp_path, store)
    files.write([row("ann", 0), row("bob", 0)], AT)
    files.move()
    files.write([row("ann", 1), row("bob", 1)], AT)  # waits
    folder = AuditFolder(tmp_path, custody(store))
    assert folder.erase(["ann"], "+12125550177", AT + DAY) == 2
    assert turns(files) == ["bob:0", "bob:1"]
    found = AuditFiles(tmp_path / "elsewhere", "0", custody(store)).verify()[0]
    assert (found.rows, found.erased, found.broken) == (4, 2, None)
    assert files.waiting == 0


def test_another_machines_chain_is_not_erased_from_here(tmp_path: Path, store: S3Server) -> None:
    one = opened(tmp_path / "one", store)
    one.write([row("ann", 0)], AT)
    one.move()
    two = opened(tmp_path / "two", store, worker="1")
    two.write([row("ann", 1)], AT)
    two.move()
    folder = AuditFolder(tmp_path / "two", custody(store))
    with pytest.raises(StoreError, match="worker 0 has rows of theirs, and is written on another machine"):
        folder.erase(["ann"], "+12125550177", AT)
    assert folder.with_text("ann:") == ["ann:0", "ann:1"]
    assert AuditFolder(tmp_path / "one", custody(store)).erase(["ann"], "+1", AT, elsewhere=False) == 1
    assert folder.erase(["ann"], "+12125550177", AT) == 1
    assert [*folder.rows()] == []


def test_old_days_go_there_too(tmp_path: Path, store: S3Server) -> None:
    files = opened(tmp_path, store)
    files.write([row("ann", 0)], AT)
    files.move()
    files.write([row("ann", 1)], AT)
    assert AuditFolder(tmp_path, custody(store)).expire(2, AT + 5 * DAY) == 2
    assert [name for name in store.objects if name.endswith(".parquet")] == []
    found = files.verify()[0]
    assert (found.files, found.expired, found.broken) == (0, 2, None)
