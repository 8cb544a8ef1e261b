"""The audit log's folder: FOLDER/WORKER/DAY.jsonl, the day's manifest, and FOLDER/WORKER/DAY/SEQ.parquet, one a batch.

Nothing here is ever torn. A file is written aside and synced, then the manifest that names it is put in place, then the
file is; whoever dies in between leaves a file aside whose hash the manifest has, and the next to come puts it there. A
file aside that no manifest names is of a batch that was lost. The day of a row is the one it is of, the day of a
manifest's line the one it was written on. Whoever writes to a worker's chain (it, or somebody who erases) has its lock.

All of it blocks: call it in a thread. Everything raises StoreError for a disk that is full, broken or away.
"""

import fcntl
import hashlib
import logging
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from pathlib import Path
from threading import Event
from typing import Any

from trunkline.errors import StoreError
from trunkline.store.audit.chain import Broken, Chain, Line, call_hash, canonical, check_rows, follow, parse, row_hash
from trunkline.store.audit.parquet import TOMBSTONE, UNREADABLE, packed, salted, unpacked
from trunkline.store.audit.rows import Row

log = logging.getLogger(__name__)

LOCK_TRIES, LOCK_PAUSE_S = 200, 0.05
ASIDE = ".aside"
SHOWN = tuple(name for name in TOMBSTONE if name not in ("salt", "erased"))


@dataclass(frozen=True, slots=True)
class Verified:
    """Of one worker's chain."""

    worker: str
    files: int
    rows: int
    erased: int
    """Rows that are tombstones."""
    expired: int
    """Files that were deleted for their age."""
    head: str
    broken: Broken | None = None


class AuditFiles:
    """Of one worker."""

    def __init__(self, folder: Path, worker: str) -> None:
        self.worker = worker
        self._folder = folder / worker

    def open(self) -> None:
        """Makes the folder, and puts right what a dead process left."""
        with self._named():
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._locked():
            try:
                self._recover()
            except StoreError as error:  # it stays as it is, for `verify` to tell
                log.error("%s", error)

    def write(self, rows: Sequence[Row], now: datetime) -> None:
        """One file for each day they are of. When it raises, none of them was written."""
        with self._locked():
            day, lines, gone = self._end(now)
            wanted = [row for row in rows if call_hash(row.call_id) not in gone]
            last, aside = lines[-1] if lines else self._before(day), []
            fresh: list[Line] = []
            for of, each in groupby(sorted(wanted, key=_day_of), key=_day_of):
                kept = [salted(row) for row in each]
                name = f"{of}/{1 if last is None else last['seq'] + 1:08d}.parquet"
                data = packed(kept)
                aside.append((name, data))
                body = {"file": name, "sha256": _sha256(data), "rows": [row_hash(row) for row in kept]}
                fresh.append(last := follow(last, "file", now, body))
            if fresh:
                self._commit(day, [*lines, *fresh], aside)

    def erase(self, calls: Sequence[str], text: str, now: datetime) -> int:
        """Rows of these calls, and whatever others hold the text, become tombstones: how many. Rows of these calls
        that wait to be written never will be."""
        with self._locked():
            self._recover()
            chain, wanted, count = self._chain(), frozenset(calls), 0
            files: list[dict[str, Any]] = []
            aside: list[tuple[str, bytes]] = []
            for name, rows in self._rows(chain):
                places = [place for place, row in enumerate(rows) if row["call_id"] in wanted or _holds(row, text)]
                if places:
                    data = packed([TOMBSTONE if place in places else row for place, row in enumerate(rows)])
                    files.append({"file": name, "sha256": _sha256(data), "rows": places})
                    aside.append((name, data))
                    count += len(places)
            if files or wanted:
                body = {"files": files, "calls": sorted(map(call_hash, wanted))}
                self._append(now, "erase", body, aside)
            return count

    def expire(self, before: date, now: datetime) -> int:
        """Delete the files of earlier days: how many."""
        with self._locked():
            chain = self._chain()
            files = chain.files.items()
            old = [name for name, file in files if name < before.isoformat() and not file.expired]
            if old:
                self._append(now, "expire", {"files": old}, [])
            for day in sorted(self._folder.iterdir()):  # also what a dead process had not yet deleted
                if day.is_dir() and day.name < before.isoformat():
                    for path in day.iterdir():
                        if f"{day.name}/{path.name.removesuffix(ASIDE)}" in chain.files:
                            path.unlink()
                    with suppress(OSError):  # not empty: somebody else's
                        day.rmdir()
            return len(old)

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """Those that are not erased, in the order they were written."""
        with self._named():
            for _, rows in self._rows(self._chain()):
                yield from ({name: row[name] for name in SHOWN} for row in rows if not row["erased"])

    def verify(self, heads: Sequence[str] = ()) -> tuple[Verified, set[str]]:
        """And those of the heads that are its own. What is broken is looked at twice: somebody may be writing."""
        with self._named():
            before = None
            while True:
                found, chain = self._verify()
                if found.broken is None or str(found.broken) == before:
                    return found, chain.hashes.intersection(heads)
                before = str(found.broken)

    def _verify(self) -> tuple[Verified, Chain]:
        chain, broken, rows = Chain(), None, 0
        try:
            self._read(chain)
            for name, file in chain.files.items():
                if not file.expired:
                    self._check(name, chain)
                    rows += len(file.rows)
            for path in sorted(self._folder.glob("*/*.parquet")):
                if (name := f"{path.parent.name}/{path.name}") not in chain.files:
                    raise Broken(name, None, "no manifest names it")
        except Broken as error:
            broken = error
        files = chain.files.values()
        expired, erased = (
            sum(f.expired for f in files),
            sum(len(f.erased) for f in files if not f.expired),
        )
        return Verified(self.worker, len(files) - expired, rows, erased, expired, chain.head, broken), chain

    def _check(self, name: str, chain: Chain) -> None:
        file = chain.files[name]
        data = self._data(name, file.sha256)
        if data is None:
            raise Broken(name, None, "the file is missing")
        whole = _sha256(data) == file.sha256
        if whole and not file.erased:
            return
        try:
            rows = unpacked(data)
        except UNREADABLE:
            raise Broken(name, None, "it cannot be read: cut off, or no file of ours") from None
        check_rows(name, file, rows)
        if not whole:
            raise Broken(name, None, "the file was changed, its rows were not")

    # --- reading ---

    def _manifests(self) -> list[Path]:
        return sorted(self._folder.glob("*.jsonl"))

    def _read(self, chain: Chain) -> None:
        for path in self._manifests():
            chain.take(path.name, parse(path.name, path.read_bytes()))

    def _chain(self) -> Chain:
        chain = Chain()
        try:
            self._read(chain)
        except Broken as error:
            raise StoreError(f"audit log {self._folder}: {error} (trunkline audit verify)") from None
        return chain

    def _data(self, name: str, sha256: str) -> bytes | None:
        """Of the file: where it stands, or aside where that is the one."""
        path = self._folder / name
        found: bytes | None = None
        with suppress(FileNotFoundError):
            found = path.read_bytes()
        if found is None or _sha256(found) != sha256:
            with suppress(FileNotFoundError):
                data = _aside(path).read_bytes()
                found = data if _sha256(data) == sha256 else found
        return found

    def _rows(self, chain: Chain) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        for name, file in chain.files.items():
            data = None if file.expired else self._data(name, file.sha256)
            if data is None:
                continue
            try:
                yield name, unpacked(data)
            except UNREADABLE:
                raise StoreError(
                    f"audit log {self._folder / name}: it cannot be read (trunkline audit verify)"
                ) from None

    def _lines(self, path: Path) -> list[dict[str, Any]]:
        try:
            return parse(path.name, path.read_bytes())
        except Broken as error:
            raise StoreError(f"audit log {self._folder}: {error} (trunkline audit verify)") from None

    def _end(self, now: datetime) -> tuple[str, list[dict[str, Any]], set[str]]:
        """The day that is written on, its lines, and the calls that were erased then or on the day before."""
        paths = self._manifests()
        today = now.astimezone(UTC).date().isoformat()
        day = max(today, paths[-1].stem) if paths else today  # a clock may be set back
        latest = [(path.stem, self._lines(path)) for path in paths[-2:]]
        gone = {call for _, lines in latest for line in lines if line["event"] == "erase" for call in line["calls"]}
        return day, next((lines for stem, lines in latest if stem == day), []), gone

    def _before(self, day: str) -> Line | None:
        paths = [path for path in self._manifests() if path.stem < day]
        if not paths:
            return None
        last = self._lines(paths[-1])[-1]
        log.info("audit log of worker %s: %s ended with head %s", self.worker, paths[-1].stem, last["hash"])
        return last

    # --- writing ---

    def _append(self, now: datetime, event: str, body: Mapping[str, Any], aside: Sequence[tuple[str, bytes]]) -> None:
        day, lines, _ = self._end(now)
        last = lines[-1] if lines else self._before(day)
        self._commit(day, [*lines, follow(last, event, now, body)], aside)

    def _commit(self, day: str, lines: Sequence[Line], aside: Sequence[tuple[str, bytes]]) -> None:
        paths = [(self._folder / name, data) for name, data in aside]
        text = b"".join(canonical(line) + b"\n" for line in lines)
        manifest = self._folder / f"{day}.jsonl"
        try:
            for path, data in paths:
                path.parent.mkdir(exist_ok=True, mode=0o700)
                _write_aside(path, data)
                _sync(path.parent)
            _write_aside(manifest, text)
            os.replace(_aside(manifest), manifest)
        except OSError:
            for path in (manifest, *(path for path, _ in paths)):
                _aside(path).unlink(missing_ok=True)
            raise
        try:
            _sync(self._folder)
            for path, _ in paths:
                os.replace(_aside(path), path)
                _sync(path.parent)
        except OSError as error:  # they are written: aside, where the manifest finds them
            log.error("audit log %s: %s", self._folder, error.strerror)

    def _recover(self) -> None:
        left = sorted(self._folder.rglob(f"*{ASIDE}"))
        if not left:
            return
        files = self._chain().files
        for path in left:
            name = f"{path.parent.name}/{path.name.removesuffix(ASIDE)}"
            if name in files and not files[name].expired and _sha256(path.read_bytes()) == files[name].sha256:
                os.replace(path, path.with_name(path.name.removesuffix(ASIDE)))
                _sync(path.parent)
            else:
                path.unlink()

    @contextmanager
    def _named(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"audit log {self._folder}: {(error.strerror or str(error)).lower()}") from error

    @contextmanager
    def _locked(self) -> Generator[None]:
        with self._named():
            lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                _take(lock, self._folder)
                yield
            finally:
                os.close(lock)


class AuditFolder:
    """Of all workers: what is kept of somebody there, and what is old."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def workers(self) -> list[AuditFiles]:
        """Those that ever wrote; other folders beside them are none of ours."""
        marks = [path for sign in (".lock", "*.jsonl", "*/*.parquet") for path in self._folder.glob(f"*/{sign}")]
        names = {path.relative_to(self._folder).parts[0] for path in marks}
        return [AuditFiles(self._folder, name) for name in sorted(names)]

    def rows(self, wanted: Callable[[Mapping[str, Any]], bool] = lambda row: True) -> Iterator[Mapping[str, Any]]:
        for each in self.workers:
            yield from filter(wanted, each.rows())

    def of_calls(self, calls: Sequence[str]) -> list[dict[str, Any]]:
        """For JSON."""
        those = frozenset(calls)
        return [for_json(row) for row in self.rows(lambda row: row["call_id"] in those)]

    def with_text(self, text: str) -> list[str]:
        """Turns whose rows hold it."""
        return [row["turn_id"] for row in self.rows(lambda row: _holds(row, text))]

    def erase(self, calls: Sequence[str], text: str, now: datetime) -> int:
        return sum(each.erase(calls, text, now) for each in self.workers)

    def expire(self, days: int, now: datetime) -> int:
        """What was written of turns that many days ago and earlier, by whole days: kept at most so long."""
        before = (now.astimezone(UTC) - timedelta(days=days)).date() + timedelta(days=1)
        return sum(each.expire(before, now) for each in self.workers)


def for_json(row: Mapping[str, Any]) -> dict[str, Any]:
    plain = {"at": row["at"].isoformat(), "cost_usd": None if row["cost_usd"] is None else f"{row['cost_usd']:f}"}
    return {**row, **plain}


def _holds(row: Mapping[str, Any], text: str) -> bool:
    return any(text in each for value in row.values() for each in _texts(value))


def _texts(value: Any) -> Sequence[str]:
    return (value,) if isinstance(value, str) else value if isinstance(value, list) else ()


def _day_of(row: Row) -> str:
    return row.at.astimezone(UTC).date().isoformat()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _aside(path: Path) -> Path:
    return path.with_name(path.name + ASIDE)


def _write_aside(path: Path, data: bytes) -> None:
    descriptor = os.open(_aside(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        os.fsync(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _take(lock: int, folder: Path) -> None:
    for _ in range(LOCK_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        Event().wait(LOCK_PAUSE_S)
    raise StoreError(f"audit log {folder}: another process holds it")
