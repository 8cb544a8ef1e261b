"""Files of spools, read and written from outside: whether somebody is still in them, and without them.

A folder that a running process has is only read: what it holds is in the database within a second, and gone from the
file within a minute or two. What a dead process left, and lines that were put aside (`.kept`), are written anew.
"""

import fcntl
import json
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trunkline.errors import StoreError
from trunkline.ports import CallStarted
from trunkline.privacy.texts import TextSeal
from trunkline.store import codec

_FILES = ("*.spool", "*.kept")


@dataclass(slots=True)
class SpoolErasure:
    lines: int = 0
    """Deleted, or written anew without them."""
    in_use: list[str] = field(default_factory=list)
    """Folders of running processes that hold something of them."""


def spool_with(folder: Path, text: str, seal: TextSeal | None) -> list[str]:
    """Names of files of which a *sealed* line holds it; one that cannot be opened says so. (What stands in clear,
    whoever reads bytes finds.) Blocking."""
    found = []
    for path in _paths(folder):
        why = ""
        for line, run in _lines(path):
            if not codec.sealed_text(line):
                continue
            try:
                if text in str(_opened(line, run, seal)):
                    why = "sealed"
                    break
            except codec.Locked as error:
                why = str(error)
        if why:
            found.append(f"{path.relative_to(folder)} ({why})")
    return found


def erase_from_spool(
    folder: Path, subject: str, over: Collection[str], live: Collection[str], seal: TextSeal | None, erased: Any
) -> SpoolErasure:
    """Lines of the calls `over`, and of calls from or to `subject` that no database knows yet, but of no `live` one;
    in other lines `erased` takes the subject out. Blocking. Raises StoreError for a disk that is full or broken."""
    done = SpoolErasure()
    try:
        for worker in sorted({path.parent for path in _paths(folder)}):
            with _taken(worker) as ours:
                paths = [path for path in _paths(worker) if ours or path.suffix == ".kept"]
                calls = (set(over) | _calls_of(paths, subject, seal)) - set(live)
                for path in paths:
                    done.lines += _without(path, subject, calls, live, seal, erased)
                if not ours and any(_holds(path, subject, calls, seal) for path in _paths(worker)):
                    done.in_use.append(worker.name)
    except OSError as error:
        raise StoreError(f"spool folder {folder}: {(error.strerror or 'unreadable').lower()}") from error
    return done


def _paths(folder: Path) -> list[Path]:
    return sorted(path for pattern in _FILES for path in folder.rglob(pattern)) if folder.is_dir() else []


def _lines(path: Path) -> Iterator[tuple[bytes, str]]:
    """Each with its run."""
    run = path.name.partition(".")[0]
    try:
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line[:-1], run
    except FileNotFoundError:  # it is all in the database
        return


def _opened(line: bytes, run: str, seal: TextSeal | None) -> str | bytes:
    """The JSON of a line. Raises Locked."""
    text = line.split(b" ", 2)[-1]
    return codec.opened(text, run, seal)


def _calls_of(paths: Sequence[Path], subject: str, seal: TextSeal | None) -> set[str]:
    found = set()
    for path in paths:
        for line, run in _lines(path):
            try:
                event = codec.decode(line, run, seal).event
            except (codec.Damaged, codec.Unknown, codec.Locked):
                continue
            if isinstance(event, CallStarted) and subject in (event.from_number, event.to_number):
                found.add(str(event.call_id))
    return found


def _call_in(document: Any) -> str:
    event = document.get("e", {})
    return str(event.get("call_id") or event.get("usage", {}).get("call_id", ""))


def _holds(path: Path, subject: str, calls: Collection[str], seal: TextSeal | None) -> bool:
    for line, run in _lines(path):
        try:
            text = _opened(line, run, seal)
            if subject in (text if isinstance(text, str) else text.decode()) or _call_in(json.loads(text)) in calls:
                return True
        except (codec.Locked, ValueError, AttributeError):
            if subject.encode() in line:
                return True
    return False


def _without(
    path: Path, subject: str, calls: Collection[str], live: Collection[str], seal: TextSeal | None, erased: Any
) -> int:
    """How many lines changed."""
    kept: list[bytes] = []
    changed = 0
    for line, run in _lines(path):
        now = _line_without(line, run, subject, calls, live, seal, erased)
        changed += now != line
        if now is not None:
            kept.append(now + b"\n")
    if changed:
        aside = path.with_name(f"{path.name}.new")
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.writelines(kept)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
    return changed


def _line_without(
    line: bytes,
    run: str,
    subject: str,
    calls: Collection[str],
    live: Collection[str],
    seal: TextSeal | None,
    erased: Any,
) -> bytes | None:
    try:
        text = _opened(line, run, seal)
        document = json.loads(text)
        call_id = _call_in(document)
    except (codec.Locked, ValueError, AttributeError):
        return None if subject.encode() in line else line
    if call_id in calls:
        return None
    if call_id in live or subject not in (text if isinstance(text, str) else text.decode()):
        return line
    without = codec.dumped({**document, "e": erased(document["e"], subject)})
    return codec.framed(without, int(document["n"]), run, seal if codec.sealed_text(line) else None)[:-1]


@contextmanager
def _taken(worker: Path) -> Iterator[bool]:
    """Whether no process has the folder, and none gets it meanwhile."""
    fd = os.open(worker, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)
