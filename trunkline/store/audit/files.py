"""The audit log's folder: FOLDER/WORKER/DAY.jsonl, the day's manifest, and FOLDER/WORKER/DAY/SEQ.parquet, one a batch.

Nothing here is ever torn. A file is written aside and synced, then the manifest that names it is put in place, then the
file is; whoever dies in between leaves a file aside whose hash the manifest has, and the next to come puts it there. A
file aside that no manifest names is of a batch that was lost. The day of a row is the one it is of, the day of a
manifest's line the one it was written on. Whoever writes to a worker's chain (it, or somebody who erases) has its lock.

With a bucket the folder is where files wait until they are there, and where the chain is written: manifests stay in
both. `move` puts the files there first, then the manifests that name them, and only then takes the files away here: so
one that was moved, and is still here after a kill -9, is moved again and is the same. Whose folder is empty or old
takes the chain over as the bucket has it.

All of it blocks: call it in a thread. Everything raises StoreError for a disk that is full, broken or away.
"""

import fcntl
import logging
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from itertools import groupby
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from trunkline.errors import StoreError
from trunkline.privacy.sealed import Keys
from trunkline.store.audit.chain import (
    Broken,
    Chain,
    File,
    Line,
    call_hash,
    canonical,
    follow,
    parse,
    row_hash,
    wrong_by_itself,
)
from trunkline.store.audit.parquet import TOMBSTONE, packed, salted
from trunkline.store.audit.places import ASIDE, Both, Folder, is_manifest
from trunkline.store.audit.reading import Reader, Verified, digest, holds
from trunkline.store.audit.rows import Row
from trunkline.store.audit.signing import Signer, Trusted

if TYPE_CHECKING:
    from trunkline.store.audit.bucket import Bucket

log = logging.getLogger(__name__)

LOCK_TRIES, LOCK_PAUSE_S = 200, 0.05
MOVED = ".moved"
"""Holds the head of the chain as the bucket had it last."""
LOOKS, LOOK_PAUSE_S = 3, 1.0
"""What is broken in a bucket is looked at again: a rewritten file and its manifest do not come at once."""


@dataclass(frozen=True, slots=True)
class Custody:
    """Who vouches for the log, who can read it, and where it goes. `trusted`: of whom lines are good."""

    signer: Signer | None = None
    trusted: Trusted | None = None
    keys: Keys | None = None
    bucket: "Bucket | None" = None


PLAIN = Custody()


class AuditFiles:
    """Of one worker."""

    def __init__(self, folder: Path, worker: str, custody: Custody = PLAIN) -> None:
        self.worker, self._custody = worker, custody
        self._folder = folder / worker
        near = Folder(self._folder)
        self._far = None if custody.bucket is None else custody.bucket.of(worker)
        place = near if self._far is None else Both(near, self._far)
        self._reader = Reader(worker, place, None, custody.keys)
        self._near = Reader(worker, near, None, custody.keys)
        self._verifier = Reader(worker, near if self._far is None else self._far, custody.trusted, custody.keys)
        self._caught_up = self._far is None
        self._marked = ""
        self._moved: dict[str, str] = {}
        """Digests of manifests, as they were last put into the bucket."""

    @property
    def is_here(self) -> bool:
        """Its chain is written on this machine."""
        return (self._folder / ".lock").exists() or bool(self._manifests())

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
            self._know_the_end()
            day, lines, last, gone = self._end(now)
            wanted = [row for row in rows if call_hash(row.call_id) not in gone]
            aside, fresh = [], list[Line]()
            for of, each in groupby(sorted(wanted, key=_day_of), key=_day_of):
                kept = [salted(row) for row in each]
                name = f"{of}/{1 if last is None else last['seq'] + 1:08d}.parquet"
                data = packed(kept, self._custody.keys)
                aside.append((name, data))
                body = {"file": name, "sha256": digest(data), "rows": [row_hash(row) for row in kept]}
                fresh.append(last := self._follow(last, "file", now, body))
            if fresh:
                self._commit(day, [*lines, *fresh], aside)

    def mark(self, now: datetime) -> bool:
        """That somebody was here on this day: whether it was the first line of it."""
        today = now.astimezone(UTC).date().isoformat()
        if self._marked == today:
            return False
        with self._locked():
            self._know_the_end()
            day, lines, last, _ = self._end(now)
            if not lines:
                self._commit(day, [self._follow(last, "day", now, {})], [])
            self._marked = today
            return not lines

    def erase(self, calls: Sequence[str], text: str, now: datetime) -> int:
        """Rows of these calls, and whatever others hold the text, become tombstones: how many. Rows of these calls
        that wait to be written never will be."""
        wanted = frozenset(calls)
        seen: dict[tuple[str, str], tuple[list[int], list[dict[str, Any]]]] = {}

        def look(files: Mapping[str, File]) -> None:
            for name, rows in self._reader.files(files):
                places = [place for place, row in enumerate(rows) if row["call_id"] in wanted or holds(row, text)]
                seen[name, files[name].sha256] = places, rows if places else []

        if self._far is not None:  # what takes long is done before the lock
            with self._named():
                look(self._reader.chain().files)
        with self._locked():
            self._know_the_end()
            self._recover()
            known, count = self._near.chain().files, 0
            look({name: file for name, file in known.items() if (name, file.sha256) not in seen})
            files: list[dict[str, Any]] = []
            aside: list[tuple[str, bytes]] = []
            for name, file in known.items():
                places, rows = seen.get((name, file.sha256), ([], []))
                if places and not file.expired:
                    erased = [TOMBSTONE if place in places else row for place, row in enumerate(rows)]
                    data = packed(erased, self._custody.keys)
                    files.append({"file": name, "sha256": digest(data), "rows": places})
                    aside.append((name, data))
                    count += len(places)
            if files or wanted:
                body = {"files": files, "calls": sorted(map(call_hash, wanted))}
                self._append(now, "erase", body, aside)
        return count

    def expire(self, before: date, now: datetime) -> int:
        """Delete the files of earlier days: how many."""
        with self._locked():
            self._know_the_end()
            chain = self._near.chain()
            files = chain.files.items()
            old = [name for name, file in files if name < before.isoformat() and not file.expired]
            if old:
                self._append(now, "expire", {"before": before.isoformat(), "files": old}, [])
            for day in sorted(self._folder.iterdir()):  # also what a dead process had not yet deleted
                if day.is_dir() and day.name < before.isoformat():
                    for path in day.iterdir():
                        if f"{day.name}/{path.name.removesuffix(ASIDE)}" in chain.files:
                            path.unlink()
                    with suppress(OSError):  # not empty: somebody else's
                        day.rmdir()
        if self._far is not None:
            self.move()
            for name in self._far.names():
                if name < before.isoformat() and name in chain.files:
                    self._far.delete(name)
        return len(old)

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """Those that are not erased, in the order they were written."""
        with self._named():
            yield from self._reader.rows()

    def verify(self, heads: Sequence[str] = ()) -> tuple[Verified, set[str]]:
        """And those of the heads that are its own. What is broken is looked at twice: somebody may be writing. Of a
        bucket: what is there, and whether it is what was written here."""
        with self._named():
            before = None
            for look in range(1, 1 << 30):
                found, chain = self._verifier.verify()
                if found.broken is None and self._far is not None:
                    found = self._compared(found, chain)
                again = look < LOOKS and self._far is not None
                if found.broken is None or (str(found.broken) == before and not again):
                    break
                before = str(found.broken)
                if self._far is not None:
                    Event().wait(LOOK_PAUSE_S)
            return replace(found, since=chain.since(heads)), chain.hashes.intersection(heads)

    def _compared(self, found: Verified, there: Chain) -> Verified:
        """Whatever was moved there is there still: it was neither written anew as a whole nor cut off."""
        mark = self._folder / MOVED
        if not mark.exists() or mark.read_text() in there.hashes:
            return found
        why = "the chain ends before what was moved there, or is another one"
        return replace(found, broken=Broken(f"{found.last[:10] or 'its first day'}.jsonl", None, why))

    @property
    def waiting(self) -> int:
        """Files that are not in the bucket yet."""
        return 0 if self._far is None else sum(1 for _ in self._folder.glob("*/*.parquet"))

    def move(self, stop: Event | None = None) -> int:
        """Puts what waits into the bucket: how many files. When it raises, what is left waits on. With `stop` set it
        returns after the file it is at."""
        far = self._far
        if far is None:
            return 0
        with self._locked(".moving"):
            texts = {path.name: path.read_bytes() for path in self._manifests()}  # before: what they name is here
            changed = {name: text for name, text in texts.items() if self._moved.get(name) != digest(text)}
            names = [name for name in Folder(self._folder).names() if not is_manifest(name)]
            if not changed and not names:
                return 0
            with self._locked():
                self._catch_up()
            moved = dict[str, bytes]()
            for name in names:
                if stop is not None and stop.is_set():
                    return 0
                moved[name] = (self._folder / name).read_bytes()
                far.write(name, moved[name])
            for name, text in changed.items():
                if self._moved.get(name) != (hash_ := digest(text)):
                    far.write(name, text)
                    self._moved[name] = hash_
            with self._locked():
                _write_aside(self._folder / MOVED, self._last_of(texts)["hash"].encode())
                os.replace(_aside(self._folder / MOVED), self._folder / MOVED)
                for name, data in moved.items():
                    path = self._folder / name
                    if path.read_bytes() == data:  # nobody erased from it meanwhile
                        path.unlink()
                        with suppress(OSError):
                            path.parent.rmdir()
            return len(moved)

    def _catch_up(self) -> None:
        """Our chain goes on where the bucket's ends, or the other way round; else nothing is written to either."""
        assert self._far is not None
        theirs, here = self._far.manifests(), {path.name: path for path in self._manifests()}
        if theirs:
            end = self._last_of(self._there(theirs[-1:]))
            last = self._last_of({max(here): here[max(here)].read_bytes()}) if here else None
            if last is None or last["seq"] < end["seq"]:
                self._take_over(theirs, last)
            elif theirs[-1] not in here or end["hash"] not in {line["hash"] for line in self._lines(here[theirs[-1]])}:
                raise self._parted()
            for name in theirs[:-1]:  # what is before the last does not change
                if name not in self._moved and name in here:
                    self._moved[name] = digest(here[name].read_bytes())
        self._caught_up = True

    def _take_over(self, theirs: Sequence[str], last: Line | None) -> None:
        texts = self._there(theirs)
        if last is not None and last["hash"] not in {line["hash"] for line in self._parsed(texts)}:
            raise self._parted()
        for name, text in texts.items():
            path = self._folder / name
            _write_aside(path, text)
            os.replace(_aside(path), path)
            self._moved[name] = digest(text)
        _sync(self._folder)
        log.info("audit log of worker %s: taken over from %s", self.worker, self._far)

    def _there(self, names: Sequence[str]) -> dict[str, bytes]:
        assert self._far is not None
        return {name: next(self._far.candidates(name), b"") for name in names}

    def _last_of(self, texts: Mapping[str, bytes]) -> Line:
        lines = self._parsed(texts)
        if not lines:
            raise StoreError(f"audit log {self._far}: {max(texts)} is empty (trunkline audit verify)")
        return lines[-1]

    def _parsed(self, texts: Mapping[str, bytes]) -> list[dict[str, Any]]:
        try:
            return [line for name in sorted(texts) for line in parse(name, texts[name])]
        except Broken as error:
            raise StoreError(f"audit log {self._far}: {error} (trunkline audit verify)") from None

    def _parted(self) -> StoreError:
        return StoreError(
            f"audit log {self._far}: its chain is not the one of {self._folder}: keep one of them elsewhere "
            "(trunkline audit verify)"
        )

    def _know_the_end(self) -> None:
        """Whoever has nothing here cannot write before the bucket has told where its chain ends."""
        if not self._caught_up and not self._manifests():
            self._catch_up()

    # --- reading ---

    def _manifests(self) -> list[Path]:
        return sorted(self._folder.glob("*.jsonl"))

    def _lines(self, path: Path) -> list[dict[str, Any]]:
        try:
            return parse(path.name, path.read_bytes())
        except Broken as error:
            raise StoreError(f"audit log {self._folder}: {error} (trunkline audit verify)") from None

    def _end(self, now: datetime) -> tuple[str, list[dict[str, Any]], Line | None, set[str]]:
        """The day that is written on, its lines, the chain's last, and the calls that were erased then or on the day
        before."""
        paths = self._manifests()
        today = now.astimezone(UTC).date().isoformat()
        day = max(today, paths[-1].stem) if paths else today  # a clock may be set back
        latest = [(path.stem, self._lines(path)) for path in paths[-2:]]
        gone = {call for _, lines in latest for line in lines if line["event"] == "erase" for call in line["calls"]}
        lines = next((lines for stem, lines in latest if stem == day), [])
        last = next((lines[-1] for _, lines in reversed(latest) if lines), None)
        if last is not None and not lines:
            log.info("audit log of worker %s: %s ended with head %s", self.worker, paths[-1].stem, last["hash"])
        if last is not None and (why := wrong_by_itself(last, self.worker, self._custody.trusted)):
            raise StoreError(
                f"audit log {self._folder}: {paths[-1].name}: {why}: nothing is written after it; keep the folder "
                "elsewhere, and a new chain begins"
            )
        return day, lines, last, gone

    # --- writing ---

    def _follow(self, last: Line | None, event: str, now: datetime, body: Mapping[str, Any]) -> Line:
        return follow(last, event, now, body, self.worker, self._custody.signer)

    def _append(self, now: datetime, event: str, body: Mapping[str, Any], aside: Sequence[tuple[str, bytes]]) -> None:
        day, lines, last, _ = self._end(now)
        self._commit(day, [*lines, self._follow(last, event, now, body)], aside)

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
        files = self._near.chain().files
        for path in left:
            name = f"{path.parent.name}/{path.name.removesuffix(ASIDE)}"
            if name in files and not files[name].expired and digest(path.read_bytes()) == files[name].sha256:
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
    def _locked(self, name: str = ".lock") -> Generator[None]:
        with self._named():
            lock = os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                _take(lock, self._folder)
                yield
            finally:
                os.close(lock)


def _day_of(row: Row) -> str:
    return row.at.astimezone(UTC).date().isoformat()


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
