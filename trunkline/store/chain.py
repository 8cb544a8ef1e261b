"""The consent ledger's chain. Plain: rows in, hashes and verdicts out.

    body_hash = SHA-256(salt, body)        salted, so that an erased body cannot be guessed from it
    hash      = SHA-256(prev_hash, seq, id, event, at, body_hash)

An erased row has lost subject, body and salt; its hashes stay, and a later row `erase` names it, so an erasure can be
told from a deletion. Rows cut off at the end leave no trace in the rest: keep the head that `verify` tells, elsewhere.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class Link:
    """A row as it is kept."""

    seq: int
    id: str
    event: str
    at: datetime
    subject: str | None
    body: str | None
    salt: str | None
    body_hash: str
    prev_hash: str
    hash: str


@dataclass(frozen=True, slots=True)
class Verified:
    """`broken`: the first row that is not as it was written; None: all are."""

    rows: int
    head: str
    broken: int | None = None
    why: str = ""


def canonical(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def link(
    prev_hash: str, seq: int, event_id: str, event: str, at: datetime, subject: str, body: Mapping[str, Any], salt: str
) -> Link:
    text = canonical({**body, "subject": subject})
    body_hash = _body_hash(salt, text)
    found = _hash(prev_hash, seq, event_id, event, at, body_hash)
    return Link(seq, event_id, event, at, subject, text, salt, body_hash, prev_hash, found)


def _body_hash(salt: str, body: str) -> str:
    return hashlib.sha256(f"{salt}:{body}".encode()).hexdigest()


def _hash(prev_hash: str, seq: int, event_id: str, event: str, at: datetime, body_hash: str) -> str:
    instant = at.astimezone(UTC).isoformat(timespec="microseconds")
    return hashlib.sha256(json.dumps([prev_hash, seq, event_id, event, instant, body_hash]).encode()).hexdigest()


class Verifier:
    """Rows from the first to the last, in any portions."""

    def __init__(self) -> None:
        self._head, self._rows = GENESIS, 0
        self._broken: tuple[int, str] | None = None
        self._erased: dict[int, None] = {}
        self._named: set[int] = set()

    def take(self, rows: Iterable[Link]) -> None:
        for row in rows:
            if self._broken is not None:
                return
            why = self._wrong(row)
            if why:
                self._broken = (self._rows + 1, why)
                return
            self._head, self._rows = row.hash, self._rows + 1

    def _wrong(self, row: Link) -> str:
        if row.seq != self._rows + 1:
            return f"missing: row {row.seq} follows row {self._rows}"
        if row.prev_hash != self._head:
            return "it does not follow the row before it"
        if row.hash != _hash(row.prev_hash, row.seq, row.id, row.event, row.at, row.body_hash):
            return "its hash is another"
        if row.body is None or row.salt is None:
            self._erased[row.seq] = None
            return "" if row.subject is None else "its body was taken out"
        if row.body_hash != _body_hash(row.salt, row.body):
            return "its body was changed"
        body = json.loads(row.body)
        if body.get("subject") != row.subject:
            return "its subject was changed"
        if row.event == "erase":
            self._named.update(body.get("erased", ()))
        return ""

    def verdict(self) -> Verified:
        if self._broken is not None:
            return Verified(self._rows, self._head, *self._broken)
        unnamed = next((seq for seq in self._erased if seq not in self._named), None)
        why = "" if unnamed is None else "its body was taken out, and no erasure names it"
        return Verified(self._rows, self._head, unnamed, why)
