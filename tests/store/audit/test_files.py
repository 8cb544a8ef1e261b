"""The audit log's folder: written whole, found out when anybody changes it, and forgetting whom it must."""

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from trunkline.errors import StoreError
from trunkline.store.audit import files as files_module
from trunkline.store.audit.chain import GENESIS, Taken, canonical, follow
from trunkline.store.audit.files import AuditFiles
from trunkline.store.audit.folder import AuditFolder
from trunkline.store.audit.parquet import packed, unpacked
from trunkline.store.audit.reading import Verified
from trunkline.store.audit.rows import Row

AT = datetime(2026, 11, 28, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def row(call: str, index: int, text: str = "hello", at: datetime = AT) -> Row:
    return Row(f"{call}:{index}", "turn", "sample", at, call, caller_text=text)


@pytest.fixture
def files(tmp_path: Path) -> AuditFiles:
    """Three files on two days: of ann, bob and ann, bob."""
    found = AuditFiles(tmp_path, "0")
    found.open()
    found.write([row("ann", 0), row("ann", 1), row("bob", 0)], AT)
    found.write([row("bob", 1), row("ann", 2)], AT)
    found.write([row("bob", 2, at=AT + DAY)], AT + DAY)
    return found


def verified(files: AuditFiles) -> Verified:
    return files.verify()[0]


def wrong(files: AuditFiles) -> tuple[str, int | None, str]:
    broken = verified(files).broken
    assert broken is not None
    return broken.file, broken.row, broken.why


def parquets(tmp_path: Path) -> list[Path]:
    return sorted(tmp_path.glob("0/*/*.parquet"))


def manifest(tmp_path: Path, day: str = "2026-11-28") -> Path:
    return tmp_path / "0" / f"{day}.jsonl"


def edit(path: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    rows = unpacked(path.read_bytes())
    change(rows)
    path.write_bytes(packed(rows))


def test_what_was_written_is_read_and_verified(files: AuditFiles) -> None:
    found = verified(files)
    assert (found.files, found.rows, found.erased, found.expired, found.broken) == (3, 6, 0, 0, None)
    assert [each["turn_id"] for each in files.rows()] == ["ann:0", "ann:1", "bob:0", "bob:1", "ann:2", "bob:2"]


def test_pyarrow_alone_reads_a_file(files: AuditFiles, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(parquets(tmp_path)[0])
    assert table.column("turn_id").to_pylist() == ["ann:0", "ann:1", "bob:0"]


def test_other_folders_are_none_of_ours_and_all_manifests_gone_is_found(files: AuditFiles, tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    assert [each.worker for each in AuditFolder(tmp_path).workers] == ["0"]
    assert [each.worker for each in AuditFolder(tmp_path / "nowhere").workers] == []
    for path in tmp_path.glob("0/*.jsonl"):
        path.unlink()
    [found] = AuditFolder(tmp_path).workers
    assert wrong(found) == ("2026-11-28/00000001.parquet", None, "no manifest names it")


# --- changed by somebody ---


def test_an_edited_row_is_named(files: AuditFiles, tmp_path: Path) -> None:
    edit(parquets(tmp_path)[1], lambda rows: rows[1].update(agent_text="I never said that"))
    assert wrong(files) == ("2026-11-28/00000002.parquet", 2, "the row was changed")


def test_rows_that_were_moved_taken_out_or_added_are_named(files: AuditFiles, tmp_path: Path) -> None:
    path = parquets(tmp_path)[0]
    whole = path.read_bytes()
    edit(path, lambda rows: rows.reverse())
    assert wrong(files) == ("2026-11-28/00000001.parquet", 1, "the row was changed")
    path.write_bytes(whole)
    edit(path, lambda rows: rows.pop())
    assert wrong(files) == ("2026-11-28/00000001.parquet", 3, "rows are missing")
    path.write_bytes(whole)
    edit(path, lambda rows: rows.append(rows[0]))
    assert wrong(files) == ("2026-11-28/00000001.parquet", 4, "the row was added")


@pytest.mark.parametrize("keep", [0, 10, -1])
def test_a_file_that_was_cut_off_is_named(files: AuditFiles, tmp_path: Path, keep: int) -> None:
    path = parquets(tmp_path)[1]
    path.write_bytes(path.read_bytes()[:keep])
    assert wrong(files) == ("2026-11-28/00000002.parquet", None, "it cannot be read: cut off, or no file of ours")


def test_files_that_are_missing_exchanged_or_more_are_named(files: AuditFiles, tmp_path: Path) -> None:
    one, two, _ = parquets(tmp_path)
    whole, other = one.read_bytes(), two.read_bytes()
    one.unlink()
    assert wrong(files) == ("2026-11-28/00000001.parquet", None, "the file is missing")
    one.write_bytes(other)
    two.write_bytes(whole)
    assert wrong(files) == ("2026-11-28/00000001.parquet", 1, "the row was changed")
    one.write_bytes(whole)
    two.write_bytes(other)
    (one.parent / "00000009.parquet").write_bytes(whole)
    assert wrong(files) == ("2026-11-28/00000009.parquet", None, "no manifest names it")


def test_any_flipped_byte_of_a_file_is_found(files: AuditFiles, tmp_path: Path) -> None:
    path = parquets(tmp_path)[0]
    whole = path.read_bytes()
    for place in range(0, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert wrong(files)[0] == "2026-11-28/00000001.parquet"


def test_a_manifest_that_was_edited_cut_or_reordered_is_named(files: AuditFiles, tmp_path: Path) -> None:
    path = manifest(tmp_path)
    whole = path.read_text()
    one, two = whole.splitlines()
    path.write_text(whole.replace('"file":"2026-11-28/00000002', '"file":"2026-11-28/00000007'))
    assert wrong(files) == ("2026-11-28.jsonl", 2, "the line was changed")
    path.write_text(f"{two}\n{one}\n")
    assert wrong(files) == ("2026-11-28.jsonl", 1, "missing or moved: line 2 follows line 0")
    path.write_text(f"{one}\n")
    assert wrong(files) == ("2026-11-29.jsonl", 1, "missing or moved: line 3 follows line 1")
    path.write_text(whole[:-20])
    assert wrong(files) == ("2026-11-28.jsonl", 2, "the line cannot be read")
    path.write_text("[]\n")
    assert wrong(files) == ("2026-11-28.jsonl", 1, "the line cannot be read")
    path.unlink()
    assert wrong(files) == ("2026-11-29.jsonl", 1, "missing or moved: line 3 follows line 0")


def test_a_line_that_was_written_anew_does_not_fit_the_next_day(files: AuditFiles, tmp_path: Path) -> None:
    path = manifest(tmp_path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    body = {key: lines[1][key] for key in ("file", "sha256", "rows")}
    body["rows"] = body["rows"][::-1]
    lines[1] = follow(lines[0], "file", AT, body)
    path.write_bytes(b"".join(canonical(line) + b"\n" for line in lines))
    assert wrong(files) == ("2026-11-29.jsonl", 1, "it does not follow the line before it")


def test_lines_cut_off_at_the_end_show_by_a_head_kept_elsewhere(files: AuditFiles, tmp_path: Path) -> None:
    head = verified(files).head
    assert files.verify([head])[1] == {head}
    manifest(tmp_path, "2026-11-29").unlink()
    parquets(tmp_path)[2].unlink()
    found, known = files.verify([head])
    assert (found.broken, known) == (None, set())


def test_a_folder_of_nothing_is_whole(tmp_path: Path) -> None:
    files = AuditFiles(tmp_path, "0")
    files.open()
    assert verified(files) == Verified("0", 0, 0, 0, 0, GENESIS)


# --- forgotten ---


def test_whoever_is_erased_is_gone_and_the_rest_still_verifies(files: AuditFiles, tmp_path: Path) -> None:
    assert files.erase(["ann"], "+12125550177", AT + 2 * DAY) == 3
    found = verified(files)
    assert (found.rows, found.erased, found.broken) == (6, 3, None)
    assert [each["turn_id"] for each in files.rows()] == ["bob:0", "bob:1", "bob:2"]
    for path in parquets(tmp_path):
        assert all(each["call_id"] != "ann" for each in unpacked(path.read_bytes()))
    assert b'"ann' not in b"".join(path.read_bytes() for path in tmp_path.glob("0/*.jsonl"))


def test_another_calls_row_that_holds_the_number_goes_as_well(tmp_path: Path) -> None:
    files = AuditFiles(tmp_path, "0")
    files.open()
    files.write([row("bob", 0, "ask +12125550177"), row("bob", 1)], AT)
    assert files.erase([], "+12125550177", AT) == 1
    assert [each["turn_id"] for each in files.rows()] == ["bob:1"]
    assert verified(files).broken is None


def test_an_erasure_hides_no_other_change(files: AuditFiles, tmp_path: Path) -> None:
    edit(parquets(tmp_path)[0], lambda rows: rows[2].update(caller_text="yes, I agree"))
    files.erase(["ann"], "+12125550177", AT)
    assert wrong(files) == ("2026-11-28/00000001.parquet", 3, "the row was changed")


def test_a_row_put_back_or_taken_out_by_hand_is_named(files: AuditFiles, tmp_path: Path) -> None:
    path = parquets(tmp_path)[0]
    before = path.read_bytes()
    files.erase(["ann"], "+12125550177", AT)
    path.write_bytes(before)
    assert wrong(files) == ("2026-11-28/00000001.parquet", 1, "the row is erased by the manifest, and is not empty")


def test_a_tombstone_that_no_erasure_names_is_found(files: AuditFiles, tmp_path: Path) -> None:
    def take_out(rows: list[dict[str, Any]]) -> None:
        rows[1] = {**dict.fromkeys(rows[1]), "erased": True}

    edit(parquets(tmp_path)[0], take_out)
    assert wrong(files)[1:] == (2, "the row was taken out, and no erasure names it")


def test_rows_that_waited_while_their_call_was_erased_are_not_written(files: AuditFiles) -> None:
    files.erase(["carl"], "+12125550199", AT + DAY)
    files.write([row("carl", 0), row("bob", 3)], AT + DAY)
    assert [each["turn_id"] for each in files.rows()][-2:] == ["bob:2", "bob:3"]


def test_old_days_go_and_are_told(files: AuditFiles, tmp_path: Path) -> None:
    folder = AuditFolder(tmp_path)
    assert folder.expire(2, AT + 2 * DAY) == 2
    assert [path.name for path in parquets(tmp_path)] == ["00000003.parquet"]
    found = verified(files)
    assert (found.files, found.rows, found.expired, found.broken) == (1, 1, 2, None)
    assert not parquets(tmp_path)[0].parent.with_name("2026-11-28").exists()
    left = tmp_path / "0" / "2026-11-28" / "00000001.parquet"  # as of a process that died before it was deleted
    left.parent.mkdir()
    left.write_bytes(b"x")
    assert folder.expire(2, AT + 2 * DAY) == 0
    assert not left.exists()


def forge(tmp_path: Path, event: str, body: dict[str, Any], day: str = "2026-11-29") -> None:
    """By somebody who may write to the folder and has no key."""
    path = manifest(tmp_path, day)
    last = json.loads(path.read_bytes().splitlines()[-1])
    path.write_bytes(path.read_bytes() + canonical(follow(last, event, AT + DAY, body)) + b"\n")


@pytest.mark.parametrize(
    ("before", "why"),
    [
        (None, "the line is none of ours"),
        ("2026-11-28", "it deletes 2026-11-29/00000003.parquet for its age, which is not before 2026-11-28"),
        ("2026-11-29", "it deletes 2026-11-29/00000003.parquet for its age, which is not before 2026-11-29"),
        ("2026-11-30", "it deletes for their age files of 2026-11-29 and later"),
    ],
)
def test_a_forged_line_cannot_delete_a_file_of_its_own_day_for_its_age(
    files: AuditFiles, tmp_path: Path, before: str | None, why: str
) -> None:
    name = "2026-11-29/00000003.parquet"
    forge(tmp_path, "expire", {"files": [name], **({} if before is None else {"before": before})})
    (tmp_path / "0" / name).unlink()
    assert wrong(files) == ("2026-11-29.jsonl", 2, why)


def test_an_erasure_of_rows_that_are_not_there_is_named(files: AuditFiles, tmp_path: Path) -> None:
    name = "2026-11-29/00000003.parquet"
    forge(tmp_path, "erase", {"calls": [], "files": [{"file": name, "sha256": "0" * 64, "rows": [0, 1]}]})
    assert wrong(files) == ("2026-11-29.jsonl", 2, f"it erases what {name} does not hold")


def test_what_was_erased_and_deleted_since_a_head_is_told(files: AuditFiles, tmp_path: Path) -> None:
    head = verified(files).head
    assert files.verify([head])[0].since == Taken()
    files.erase(["ann"], "+12125550177", AT + DAY)
    AuditFolder(tmp_path).expire(2, AT + 2 * DAY)
    assert files.verify([head])[0].since == Taken(rows=3, files=2)
    assert files.verify([verified(files).head])[0].since == Taken()
    assert verified(files).since is None


# --- a disk that is full, a process that dies ---


def test_a_full_disk_tears_nothing_and_the_batch_is_written_later(
    files: AuditFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted((path, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file())
    room = [0]
    real = files_module._write_aside

    def full(path: Path, data: bytes) -> None:
        if room[0] == 0:
            files_module._aside(path).write_bytes(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room[0] -= 1
        real(path, data)

    monkeypatch.setattr(files_module, "_write_aside", full)
    for count in (0, 1):  # the file, then the manifest
        room[0] = count
        with pytest.raises(StoreError, match=r"audit log .*: no space left on device"):
            files.write([row("bob", 3)], AT + DAY)
        room[0] = count
        with pytest.raises(StoreError, match="no space left on device"):
            files.erase(["ann"], "+12125550177", AT + DAY)
        assert sorted((path, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file()) == before
    room[0] = 9
    files.write([row("bob", 3)], AT + DAY)
    assert (verified(files).rows, verified(files).broken) == (7, None)


@pytest.mark.parametrize("step", range(1, 4))
def test_whoever_dies_at_any_step_leaves_a_whole_log(
    files: AuditFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Steps: the file aside, the manifest in place, the file in place."""

    class Killed(BaseException):
        pass

    left = [step]
    real_write, real_replace = files_module._write_aside, os.replace

    def write(path: Path, data: bytes) -> None:
        real_write(path, data)
        if path.suffix == ".parquet" and left[0] == 1:
            raise Killed

    def replace(source: Path, target: Path) -> None:
        if target.suffix == ".parquet" and left[0] == 2:
            raise Killed
        real_replace(source, target)
        if target.suffix == ".parquet" and left[0] == 3:
            raise Killed

    monkeypatch.setattr(files_module, "_write_aside", write)
    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(Killed):
        files.write([row("bob", 3)], AT + DAY)
    rows = 6 if step == 1 else 7
    assert (verified(files).rows, verified(files).broken) == (rows, None)
    left[0] = 0
    again = AuditFiles(tmp_path, "0")
    again.open()
    assert list(tmp_path.rglob("*.aside")) == []
    again.write([row("bob", 4)], AT + DAY)
    assert (verified(again).rows, verified(again).broken) == (rows + 1, None)


def test_an_erasure_that_dies_before_the_file_is_in_place_is_finished_by_the_next(
    files: AuditFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    real = os.replace

    def replace(source: Path, target: Path) -> None:
        if target.suffix == ".parquet":
            raise Killed
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace)
        with pytest.raises(Killed):
            files.erase(["ann"], "+12125550177", AT + DAY)
    assert (verified(files).erased, verified(files).broken) == (3, None)
    assert [each["call_id"] for each in files.rows()] == ["bob"] * 3
    assert files.erase(["ann"], "+12125550177", AT + DAY) == 0  # it was
    assert list(tmp_path.rglob("*.aside")) == []
    assert all(each["call_id"] != "ann" for path in parquets(tmp_path) for each in unpacked(path.read_bytes()))
    assert verified(files).broken is None


def test_kill_9_loses_the_last_batch_at_most(tmp_path: Path) -> None:
    """A process that writes as fast as it can, killed in the midst of it, a few times over."""
    script = textwrap.dedent(f"""
        from datetime import UTC, datetime
        from pathlib import Path
        from trunkline.store.audit.files import AuditFiles
        from trunkline.store.audit.rows import Row
        at = datetime(2026, 11, 28, 12, tzinfo=UTC)
        files = AuditFiles(Path({str(tmp_path)!r}), "0")
        files.open()
        for n in range(100_000):
            files.write([Row(f"c:{{n}}", "turn", "sample", at, "c")] * 3, at)
            print(n, flush=True)
    """)
    told = 0
    for batches in (1, 4, 7):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ})
        assert process.stdout is not None
        for _ in range(batches):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        told += batches + len(process.stdout.read().splitlines())
        process.wait()
        process.stdout.close()
        found = verified(AuditFiles(tmp_path, "0"))
        assert found.broken is None
        assert told <= found.files <= told + 1  # one was written, and not told
        told = found.files


def test_a_log_that_was_tampered_with_is_not_written_over(files: AuditFiles, tmp_path: Path) -> None:
    path = manifest(tmp_path, "2026-11-29")
    path.write_text(path.read_text()[:-9])
    with pytest.raises(StoreError, match=r"2026-11-29.jsonl, row 1: the line cannot be read .trunkline audit verify"):
        files.write([row("bob", 3)], AT + DAY)


def test_a_clock_that_is_set_back_breaks_no_chain(files: AuditFiles) -> None:
    files.write([row("bob", 9, at=AT - DAY)], AT - DAY)
    assert (verified(files).rows, verified(files).broken) == (7, None)


def test_two_processes_of_one_name_keep_one_chain(files: AuditFiles, tmp_path: Path) -> None:
    other = AuditFiles(tmp_path, "0")
    other.open()
    for n in range(3):
        other.write([row("x", n)], AT + DAY)
        files.write([row("y", n)], AT + DAY)
    assert (verified(files).rows, verified(files).broken) == (12, None)
