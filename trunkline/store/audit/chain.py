"""The audit log's manifests: one JSON line for each file written, rewritten or deleted. Plain: lines in, state out.

    {"seq": 7, "event": "file", "at": "...", "prev": HASH, "file": DAY/NAME, "sha256": ..., "rows": [HASH, ...], "hash"}
    {"event": "erase", "files": [{"file", "sha256", "rows": [2, 5]}], "calls": [SHA-256 of a call's id], ...}
    {"event": "expire", "before": DAY, "files": [DAY/NAME, ...], ...}
    {"event": "day", ...}: a day began, and somebody was there to write

`hash` is the SHA-256 of the line without it. Each line names the one before it, over the days' manifests too, so a
file, a line or a day can be neither changed, moved nor left out. Where there is a key, `key` names it and `sig` signs
the hash (`signing`): then nobody else can write the chain anew either. A row's hash is salted, and its salt goes with
the row when that is erased: what stays cannot be guessed from. Erased rows are tombstones, named here; all others of
their file must still be as they were first written, so an erasure can hide nothing else. Age takes nothing of the day
it is written on, or of a later one. Lines cut off at the end leave
no trace in the rest: keep the heads that `verify` tells, elsewhere.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from trunkline.store.audit.signing import Signer, Trusted

GENESIS = "0" * 64
Line = Mapping[str, Any]


class Broken(Exception):
    """`file` (and its `row`, from 1) is the first that is not as it was written."""

    def __init__(self, file: str, row: int | None, why: str) -> None:
        super().__init__(file, row, why)
        self.file, self.row, self.why = file, row, why

    def __str__(self) -> str:
        return f"{self.file}{'' if self.row is None else f', row {self.row}'}: {self.why}"


@dataclass(slots=True)
class File:
    """As it must be now."""

    sha256: str
    rows: Sequence[str]
    """Hashes of the rows as first written."""
    erased: set[int] = field(default_factory=set)
    """Their places, from 0."""
    expired: bool = False


class Taken(NamedTuple):
    """By erasures, and for their age."""

    rows: int = 0
    files: int = 0


def canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=_plain).encode()


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    raise TypeError(type(value).__name__)


def row_hash(row: Mapping[str, Any]) -> str:
    """Of a row with its salt. 128 bits: it stands in the manifest, row by row."""
    return hashlib.sha256(canonical(row)).hexdigest()[:32]


def call_hash(call_id: str) -> str:
    return hashlib.sha256(call_id.encode()).hexdigest()


def follow(
    last: Line | None, event: str, at: datetime, body: Mapping[str, Any], worker: str = "", signer: Signer | None = None
) -> dict[str, Any]:
    """The line after `last`."""
    seq, prev = (last["seq"] + 1, last["hash"]) if last is not None else (1, GENESIS)
    line = {**body, "seq": seq, "event": event, "at": _plain(at), "prev": prev}
    if signer is not None:
        line["key"] = signer.id
    line["hash"] = hashlib.sha256(canonical(line)).hexdigest()
    return line if signer is None else {**line, "sig": signer.sign(worker, line["hash"])}


def wrong_by_itself(line: Line, worker: str, trusted: Trusted | None) -> str:
    """Why the line cannot have been written by us; empty: it can."""
    bare = {key: value for key, value in line.items() if key not in ("hash", "sig")}
    if line["hash"] != hashlib.sha256(canonical(bare)).hexdigest():
        return "the line was changed"
    return "" if trusted is None else trusted.wrong(worker, line)


def parse(name: str, text: bytes) -> list[dict[str, Any]]:
    """A manifest's lines. Raises Broken."""
    lines = []
    for place, raw in enumerate(text.splitlines(), 1):
        try:
            line = json.loads(raw)
        except ValueError:
            line = None
        if not isinstance(line, dict) or not isinstance(line.get("seq"), int) or not isinstance(line.get("hash"), str):
            raise Broken(name, place, "the line cannot be read")
        lines.append(line)
    if text and not text.endswith(b"\n"):
        raise Broken(name, len(lines), "the line is cut off")
    return lines


class Chain:
    """Manifests from the first day to the last; `files` is what must be there then, in the order it was written."""

    def __init__(self, worker: str = "", trusted: Trusted | None = None) -> None:
        """`trusted`: every line must be signed by one of them. None: signatures are not looked at."""
        self._worker, self._trusted = worker, trusted
        self.files: dict[str, File] = {}
        self.last: Line | None = None
        self.hashes: set[str] = set()
        self.taken = Taken()
        self._taken_by: dict[str, Taken] = {}
        """By heads."""
        self.erased_calls: set[str] = set()

    @property
    def head(self) -> str:
        return GENESIS if self.last is None else str(self.last["hash"])

    def take(self, name: str, lines: Iterable[Line]) -> None:
        """Of one day's manifest. Raises Broken."""
        for place, line in enumerate(lines, 1):
            try:
                why = self._wrong(line) or self._act(line, name.removesuffix(".jsonl"))
            except (KeyError, TypeError, ValueError):
                why = "the line is none of ours"
            if why:
                raise Broken(name, place, why)
            self.last = line
            self.hashes.add(line["hash"])
            self._taken_by[line["hash"]] = self.taken

    def since(self, heads: Iterable[str]) -> Taken | None:
        """What was taken after the first of these that is its own; None: none is."""
        known = [self._taken_by[head] for head in heads if head in self._taken_by]
        return Taken(self.taken.rows - min(known).rows, self.taken.files - min(known).files) if known else None

    def _wrong(self, line: Line) -> str:
        seq = 0 if self.last is None else self.last["seq"]
        if line["seq"] != seq + 1:
            return f"missing or moved: line {line['seq']} follows line {seq}"
        if line["prev"] != self.head:
            return "it does not follow the line before it"
        return wrong_by_itself(line, self._worker, self._trusted)

    def _act(self, line: Line, day: str) -> str:
        """`day`: of its manifest."""
        match line["event"]:
            case "file":
                if line["file"] in self.files:
                    return f"{line['file']} was written before"
                self.files[line["file"]] = File(line["sha256"], line["rows"])
            case "erase":
                self.erased_calls.update(line["calls"])
                for each in line["files"]:
                    file = self.files[each["file"]]
                    if file.expired or not all(0 <= place < len(file.rows) for place in each["rows"]):
                        return f"it erases what {each['file']} does not hold"
                    file.sha256 = each["sha256"]
                    file.erased.update(each["rows"])
                    self.taken = self.taken._replace(rows=self.taken.rows + len(each["rows"]))
            case "expire":
                if line["before"] > day:
                    return f"it deletes for their age files of {day} and later"
                for name in line["files"]:
                    if name >= line["before"]:
                        return f"it deletes {name} for its age, which is not before {line['before']}"
                    self.files[name].expired = True
                    self.taken = self.taken._replace(files=self.taken.files + 1)
            case "day":
                pass
            case _:
                return "the line is none of ours"
        return ""


def check_rows(name: str, file: File, rows: Sequence[Mapping[str, Any]]) -> None:
    """As they were read. Raises Broken."""
    for place, row in enumerate(rows):
        if place >= len(file.rows):
            raise Broken(name, place + 1, "the row was added")
        if place in file.erased:
            if any(value not in (None, False) for key, value in row.items() if key != "erased") or not row["erased"]:
                raise Broken(name, place + 1, "the row is erased by the manifest, and is not empty")
        elif row_hash(row) != file.rows[place]:
            why = "the row was taken out, and no erasure names it" if row.get("erased") else "the row was changed"
            raise Broken(name, place + 1, why)
    if len(rows) < len(file.rows):
        raise Broken(name, len(rows) + 1, "rows are missing")
