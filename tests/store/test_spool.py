import errno
import os
import random
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from trunkline.errors import StoreError
from trunkline.ports import CallEnded, CallEvent, CallStarted, RecordEvent
from trunkline.store.codec import Entry, encode
from trunkline.store.spool import Spool
from trunkline.types import CallId, TenantId

AT = datetime(2026, 11, 22, 15, tzinfo=UTC)


def event(number: int, size: int = 0) -> CallEvent:
    return CallEvent(CallId("c1"), AT, str(number), {"fill": "x" * size} if size else {})


def started(call: str) -> CallStarted:
    return CallStarted(CallId(call), TenantId("default"), "inbound", "twilio", "clinic", AT)


def ended(call: str) -> CallEnded:
    return CallEnded(CallId(call), AT, "caller_hung_up")


def opened(folder: Path, **options: Any) -> Spool:
    return Spool(folder, sync_period_s=None, **options)


def everything(spool: Spool, limit: int = 7) -> list[Entry]:
    entries: list[Entry] = []
    while batch := spool.read(limit):
        assert len({entry.run for entry in batch}) == 1
        entries += batch
    return entries


def kinds(entries: list[Entry]) -> list[str]:
    return [entry.event.kind for entry in entries if isinstance(entry.event, CallEvent)]


def numbers(upto: int, start: int = 0) -> list[str]:
    return [str(number) for number in range(start, upto)]


def abandon(spool: Spool) -> None:
    """As a kill -9 leaves it: nothing is flushed, deleted or said."""
    spool._release_folder()


def segments(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.spool"))


class Disk:
    """os.write with room for so many bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room = room
        self.error = errno.ENOSPC
        self._write = os.write
        monkeypatch.setattr(os, "write", self)

    def __call__(self, fd: int, data: bytes) -> int:
        if not self.room:
            raise OSError(self.error, os.strerror(self.error))
        written = self._write(fd, data[: self.room])
        self.room -= written
        return written


def test_events_come_back_in_order_and_once(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for number in range(20):
        spool.append(event(number))
    entries = everything(spool)
    assert kinds(entries) == numbers(20)
    assert [entry.seq for entry in entries] == list(range(1, 21))
    assert spool.read(7) == []
    spool.append(event(20))
    assert kinds(spool.read(7)) == ["20"]
    spool.close()


def test_a_dead_process_leaves_its_events_to_the_next_one(tmp_path: Path) -> None:
    first = opened(tmp_path)
    for number in range(5):
        first.append(event(number))
    abandon(first)
    second = opened(tmp_path)
    second.append(event(5))
    assert second.dead_runs == (first.run,)
    assert second.replaying
    entries = everything(second)
    assert kinds(entries) == numbers(6)
    assert [entry.run for entry in entries] == [first.run] * 5 + [second.run]
    assert not second.replaying
    second.close()


def test_segments_rotate_and_go_when_all_of_them_is_committed(tmp_path: Path) -> None:
    spool = opened(tmp_path, segment_bytes=1000)
    for number in range(30):
        spool.append(event(number))
    files = segments(tmp_path)
    assert len(files) > 3
    entries = everything(spool)
    assert kinds(entries) == numbers(30)
    spool.commit(spool.run, entries[10].seq)
    assert 1 < len(segments(tmp_path)) < len(files)
    spool.commit(spool.run, entries[-1].seq)
    assert segments(tmp_path) == files[-1:]
    spool.close()


def test_a_clean_end_leaves_nothing(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for one in (started("c1"), ended("c1")):
        spool.append(one)
    spool.commit(spool.run, everything(spool)[-1].seq)
    spool.close()
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_an_end_with_events_left_or_a_call_open_leaves_the_run_to_be_found(tmp_path: Path) -> None:
    spool = opened(tmp_path / "left")
    spool.append(event(0))
    spool.close()
    assert len(segments(tmp_path / "left")) == 1
    spool = opened(tmp_path / "open")
    spool.append(started("c1"))
    spool.commit(spool.run, everything(spool)[-1].seq)
    spool.close()
    again = opened(tmp_path / "open")
    assert again.dead_runs == (spool.run,)
    again.close()


def test_files_of_dead_runs_stay_until_they_are_forgotten(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.append(started("c1"))
    abandon(first)
    second = opened(tmp_path)
    second.forget_dead_runs()
    assert len(segments(tmp_path)) == 2  # not read yet
    entries = everything(second)
    second.commit(first.run, entries[-1].seq)
    assert len(segments(tmp_path)) == 2
    second.forget_dead_runs()
    assert segments(tmp_path) == [f"{second.run}.000001.spool"]
    second.append(event(1))
    assert kinds(everything(second)) == ["1"]
    second.close()


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_torn_last_line_is_skipped_and_counted(tmp_path: Path, cut: int) -> None:
    first = opened(tmp_path)
    for number in range(3):
        first.append(event(number))
    abandon(first)
    path = tmp_path / segments(tmp_path)[0]
    os.truncate(path, path.stat().st_size - cut)
    second = opened(tmp_path)
    second.append(event(3))
    assert kinds(everything(second)) == ["0", "1", "3"]
    assert (second.stats.torn, second.stats.damaged) == (1, 0)
    second.close()


def test_a_damaged_line_costs_itself_and_the_file_is_kept_for_a_person(tmp_path: Path) -> None:
    first = opened(tmp_path)
    for number in range(5):
        first.append(event(number))
    abandon(first)
    path = tmp_path / segments(tmp_path)[0]
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"1"', b'"9"')
    lines[3] = b"\0" * len(lines[3]) + b"\n"
    path.write_bytes(b"".join(lines))
    second = opened(tmp_path)
    entries = everything(second)
    assert kinds(entries) == ["0", "2", "4"]
    assert second.stats.damaged == 2
    second.forget_dead_runs()
    assert path.with_suffix(".kept").exists()
    second.close()


def test_a_megabyte_of_rubbish_ends_at_its_newline(tmp_path: Path) -> None:
    rubbish = random.Random(1).randbytes(1_000_000).replace(b"\n", b"")
    path = tmp_path / "000001-0123456789abcdef.000001.spool"
    path.write_bytes(encode(event(0), 1) + rubbish + b"\n" + encode(event(1), 2) + encode(event(2), 3))
    spool = opened(tmp_path)
    assert kinds(everything(spool, limit=1)) == ["0", "1", "2"]
    assert spool.stats.damaged >= 1
    spool.close()


def test_kinds_of_a_later_version_are_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "000001-0123456789abcdef.000001.spool"
    later = b'{"v":1,"n":1,"k":"call_sung","e":{}}'
    path.write_bytes(b"%08x %d %b\n" % (crc32(later), len(later), later) + encode(event(1), 2))
    spool = opened(tmp_path)
    assert kinds(everything(spool)) == ["1"]
    assert spool.stats.unknown == 1
    spool.forget_dead_runs()
    assert path.with_suffix(".kept").exists()
    spool.close()


def test_long_lines_come_back_whole(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for number in range(4):
        spool.append(event(number, size=200_000))
    entries = everything(spool)
    assert [entry.event for entry in entries] == [event(number, size=200_000) for number in range(4)]
    spool.close()


def test_on_a_full_disk_events_wait_in_memory_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = opened(tmp_path)
    disk = Disk(monkeypatch, room=250)  # ends in the middle of a line
    for number in range(6):
        spool.append(event(number))
    assert spool.stats.held == 4
    assert spool.stats.dropped == 0
    spool.tick()
    assert spool.stats.held == 4
    disk.room = 10**9
    spool.tick()
    assert spool.stats.held == 0
    spool.append(event(6))
    abandon(spool)
    again = opened(tmp_path)
    assert kinds(everything(again)) == numbers(7)
    assert (again.stats.torn, again.stats.damaged) == (0, 0)
    again.close()


def test_the_database_is_fed_from_memory_while_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = opened(tmp_path)
    spool.append(event(0))
    disk = Disk(monkeypatch, room=0)
    for number in range(1, 6):
        spool.append(event(number))
    entries = spool.read(3)
    assert kinds(entries) == ["0"]
    entries = spool.read(3)
    assert kinds(entries) == ["1", "2", "3"]
    spool.commit(spool.run, entries[-1].seq)
    assert spool.stats.held == 2
    disk.room = 10**9
    spool.tick()
    spool.append(event(6))
    assert kinds(everything(spool)) == ["4", "5", "6"]
    spool.close()


def test_what_was_read_from_memory_is_not_read_again_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = opened(tmp_path)
    disk = Disk(monkeypatch, room=0)
    for number in range(3):
        spool.append(event(number))
    assert kinds(spool.read(2)) == ["0", "1"]
    disk.room = 10**9
    spool.tick()
    assert kinds(everything(spool)) == ["2"]
    spool.close()


def test_memory_is_bounded_and_ends_of_calls_have_the_last_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = opened(tmp_path, held_bytes=4000)
    disk = Disk(monkeypatch, room=0)
    for number in range(50):
        spool.append(event(number))
    held = spool.stats.held
    assert spool.stats.dropped == 50 - held > 0
    spool.append(ended("c1"))
    assert (spool.stats.held, spool.stats.dropped) == (held + 1, 50 - held)
    for _ in range(10):
        spool.append(ended("c1"))
    assert spool.stats.dropped > 50 - held
    disk.room = 10**9
    spool.tick()
    entries = everything(spool)
    assert kinds(entries) == numbers(held)
    spool.commit(spool.run, entries[-1].seq)
    assert spool.read(1) == []
    assert spool.caught_up()  # what was dropped is not waited for
    spool.close()


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.ENOSPC])
def test_no_error_of_the_disk_reaches_a_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    spool = opened(tmp_path)
    disk = Disk(monkeypatch, room=0)
    disk.error = code
    spool.append(event(0))
    assert spool.stats.held == 1
    assert spool.stats.write_errors == 1
    disk.room = 10**9
    spool.close()
    again = opened(tmp_path)
    assert kinds(everything(again)) == ["0"]
    again.close()


def test_a_stump_that_cannot_be_cut_off_ends_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = opened(tmp_path)
    disk = Disk(monkeypatch, room=40)

    def refuse(fd: int, length: int) -> None:
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(os, "ftruncate", refuse)
    spool.append(event(0))
    disk.room = 10**9
    spool.append(event(1))
    assert spool.stats.held == 2
    spool.tick()
    assert len(segments(tmp_path)) == 2
    assert kinds(everything(spool)) == ["0", "1"]
    abandon(spool)
    again = opened(tmp_path)
    assert kinds(everything(again)) == ["0", "1"]
    assert again.stats.torn == 1
    again.close()


def test_a_deleted_folder_loses_nothing_that_is_not_yet_committed(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    spool = opened(folder)
    spool.append(event(0))
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    spool.append(event(1))
    spool.tick()
    spool.append(event(2))
    assert len(segments(folder)) == 1
    entries = everything(spool)
    assert kinds(entries) == ["0", "1", "2"]
    with pytest.raises(StoreError, match="in use"):
        opened(folder)
    spool.commit(spool.run, entries[-1].seq)
    spool.close()
    assert segments(folder) == []


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    with pytest.raises(StoreError, match="in use by another process; each worker needs its own"):
        opened(tmp_path)
    spool.close()
    opened(tmp_path).close()


def test_a_folder_that_only_an_admin_can_mend_is_said_at_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"Not a directory|File exists"):
        opened(tmp_path / "file")


def test_a_read_only_folder_is_said_at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def read_only(path: Any, flags: int, *rest: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(StoreError, match="Read-only file system"):
        opened(tmp_path)


def test_a_full_disk_at_start_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, full = os.open, [True]

    def no_room(path: Any, flags: int, *rest: Any) -> int:
        if full[0] and flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", no_room)
    spool = opened(tmp_path)
    spool.append(event(0))
    assert spool.stats.held == 1
    full[0] = False
    spool.tick()
    spool.append(event(1))
    assert kinds(everything(spool)) == ["0", "1"]
    spool.close()


def test_transcripts_do_not_stay_on_disk_long_after_their_commit(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.append(event(0))
    spool.commit(spool.run, everything(spool)[-1].seq)
    for _ in range(60):
        spool.tick()
    assert spool.read(1) == []
    spool.tick()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b""]
    spool.append(event(1))
    assert kinds(everything(spool)) == ["1"]
    spool.close()


def test_rewind_gives_all_that_is_left_again(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for number in range(3):
        spool.append(event(number))
    spool.commit(spool.run, everything(spool)[1].seq)
    spool.rewind()
    assert kinds(everything(spool)) == numbers(3)
    spool.close()


def test_after_close_nothing_is_taken_and_nothing_raised(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.close()
    spool.append(event(0))
    assert spool.stats.dropped == 1


def test_a_value_that_is_no_event_costs_only_itself(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    nonsense: Any = object()
    spool.append(nonsense)
    spool.append(event(1))
    assert kinds(everything(spool)) == ["1"]
    assert spool.stats.dropped == 1
    spool.close()


def test_only_the_owner_may_read_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    spool = opened(folder)
    assert folder.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
    spool.close()


def test_threads_append_at_once_and_each_line_is_whole(tmp_path: Path) -> None:
    spool = opened(tmp_path, segment_bytes=5000)

    def many(thread: int) -> None:
        for number in range(100):
            spool.append(event(thread * 1000 + number))

    threads = [threading.Thread(target=many, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = everything(spool)
    assert len(entries) == 400
    assert [entry.seq for entry in entries] == list(range(1, 401))
    assert spool.stats.damaged == 0
    spool.close()


def test_the_thread_syncs_and_ends_with_the_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = threading.Event()
    real = os.fdatasync

    def seen(fd: int) -> None:
        real(fd)
        synced.set()

    monkeypatch.setattr(os, "fdatasync", seen)
    spool = Spool(tmp_path, sync_period_s=0.001)
    spool.append(event(0))
    assert synced.wait(2)
    spool.close()
    assert all(thread.name != "spool-sync" for thread in threading.enumerate())


CHILD = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from trunkline.ports import CallEvent
from trunkline.store.spool import Spool
spool = Spool(Path(sys.argv[1]), segment_bytes=20_000)
at = datetime(2026, 11, 22, tzinfo=UTC)
number = 0
while True:
    spool.append(CallEvent("c1", at, str(number)))
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
    number += 1
"""


def test_after_kill_9_every_event_that_was_taken_is_there(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    reported: list[str] = []
    for _ in range(random.randint(1, 3000)):
        reported.append(child.stdout.readline().strip())
    child.send_signal(signal.SIGKILL)
    rest, _ = child.communicate()
    reported += [line for line in rest.split("\n")[:-1]]
    spool = opened(tmp_path)
    found = kinds(everything(spool, limit=500))
    assert found[: len(reported)] == reported == numbers(len(reported))
    assert len(found) - len(reported) <= 1  # taken, and killed before it could say so
    spool.close()


def test_replays_of_a_killed_run_give_the_same_again(tmp_path: Path) -> None:
    taken: list[RecordEvent] = [started("c1"), event(0), ended("c1")]
    first = opened(tmp_path)
    for one in taken:
        first.append(one)
    abandon(first)
    for _ in range(2):
        again = opened(tmp_path)
        assert [(entry.seq, entry.event) for entry in everything(again)] == list(enumerate(taken, 1))
        abandon(again)
