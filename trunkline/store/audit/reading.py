"""One worker's audit log as it stands in a place: its chain, its rows, and whether all is as it was written."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from trunkline.errors import StoreError
from trunkline.privacy.sealed import Keys
from trunkline.store.audit.chain import Broken, Chain, File, Taken, check_rows, parse
from trunkline.store.audit.parquet import TOMBSTONE, UNREADABLE, is_encrypted, unpacked
from trunkline.store.audit.places import Place, is_manifest
from trunkline.store.audit.signing import Trusted

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
    last: str = ""
    """When its last line was written."""
    silent: tuple[str, ...] = ()
    """Days between the first and the last on which nobody wrote a line."""
    unnamed: int = 0
    """Files beyond the end of the chain: their manifest is on its way."""
    unread: int = 0
    """Encrypted files whose erased rows nobody looked at: there was no key. They are what the manifest says."""
    since: Taken | None = None
    """The oldest head that was asked for: what was erased and deleted after it."""


class Reader:
    def __init__(self, worker: str, place: Place, trusted: Trusted | None = None, keys: Keys | None = None) -> None:
        self.worker, self._place, self._trusted, self._keys = worker, place, trusted, keys

    def chain(self) -> Chain:
        """Raises StoreError for one that is broken. Signatures are `verify`'s to check."""
        chain = Chain(self.worker)
        try:
            self._read(chain, self._place.names())
        except Broken as error:
            raise StoreError(f"audit log {self._place}: {error} (trunkline audit verify)") from None
        return chain

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """Those that are not erased, in the order they were written."""
        for _, rows in self.files(self.chain().files):
            yield from ({name: row[name] for name in SHOWN} for row in rows if not row["erased"])

    def files(self, files: Mapping[str, File]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        for name, file in files.items():
            data = None if file.expired else self.data(name, file.sha256)
            if data is not None:
                yield name, self.unpacked(name, data)

    def unpacked(self, name: str, data: bytes) -> list[dict[str, Any]]:
        try:
            return unpacked(data, self._keys)
        except UNREADABLE:
            raise StoreError(f"audit log {self._place}/{name}: it cannot be read (trunkline audit verify)") from None

    def data(self, name: str, sha256: str) -> bytes | None:
        """Of the file; of several that may be it the one that is."""
        found: bytes | None = None
        for each in self._place.candidates(name):
            if digest(each) == sha256:
                return each
            found = each if found is None else found
        return found

    def verify(self) -> tuple[Verified, Chain]:
        """Once. Whoever looks while somebody writes looks again."""
        chain, broken, rows, unnamed, unread = Chain(self.worker, self._trusted), None, 0, 0, 0
        names = self._place.names()
        try:
            self._read(chain, names)
            for name, file in chain.files.items():
                if not file.expired:
                    unread += not self._check(name, file)
                    rows += len(file.rows)
            for name in names:
                if not is_manifest(name) and name not in chain.files:
                    if not self._may_be_next(name, chain):
                        raise Broken(name, None, "no manifest names it")
                    unnamed += 1
        except Broken as error:
            broken = error
        files = chain.files.values()
        expired = sum(file.expired for file in files)
        erased = sum(len(file.erased) for file in files if not file.expired)
        found = Verified(
            self.worker,
            len(files) - expired,
            rows,
            erased,
            expired,
            chain.head,
            broken,
            "" if chain.last is None else str(chain.last["at"]),
            silent([name.removesuffix(".jsonl") for name in names if is_manifest(name)]),
            unnamed,
            unread,
        )
        return found, chain

    def _may_be_next(self, name: str, chain: Chain) -> bool:
        """In a bucket a file comes before the manifest that names it."""
        if not getattr(self._place, "files_come_first", False) or chain.last is None:
            return False
        number = name.rpartition("/")[2].removesuffix(".parquet")
        return number.isdecimal() and int(number) > chain.last["seq"]

    def _read(self, chain: Chain, names: Sequence[str]) -> None:
        for name in filter(is_manifest, names):
            chain.take(name, parse(name, next(self._place.candidates(name), b"")))

    def _check(self, name: str, file: File) -> bool:
        """Whether its rows could be looked at, where they had to be. Raises Broken."""
        data = self.data(name, file.sha256)
        if data is None:
            raise Broken(name, None, "the file is missing")
        whole = digest(data) == file.sha256
        if whole and not file.erased:
            return True
        if whole and self._keys is None and is_encrypted(data):
            return False
        try:
            rows = unpacked(data, self._keys)
        except UNREADABLE:
            raise Broken(name, None, "it cannot be read: cut off, or no file of ours") from None
        check_rows(name, file, rows)
        if not whole:
            raise Broken(name, None, "the file was changed, its rows were not")
        return True


def silent(days: Sequence[str]) -> tuple[str, ...]:
    """Days between the first and the last that are none of them. Those that are no days are left out."""
    known = set()
    for each in days:
        try:
            known.add(date.fromisoformat(each))
        except ValueError:
            continue
    if not known:
        return ()
    first, count = min(known), (max(known) - min(known)).days
    between = (first + timedelta(days=n) for n in range(count))
    return tuple(day.isoformat() for day in between if day not in known)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def holds(row: Mapping[str, Any], text: str) -> bool:
    return any(text in each for value in row.values() for each in _texts(value))


def _texts(value: Any) -> Sequence[str]:
    return (value,) if isinstance(value, str) else value if isinstance(value, list) else ()
