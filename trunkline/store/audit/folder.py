"""The audit logs of all workers: what is kept of somebody there, and what is old. It blocks, and raises StoreError."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from trunkline.errors import StoreError
from trunkline.store.audit.files import PLAIN, AuditFiles, Custody
from trunkline.store.audit.reading import holds


class AuditFolder:
    def __init__(self, folder: Path, custody: Custody = PLAIN) -> None:
        self._folder, self._custody = folder, custody

    @property
    def workers(self) -> list[AuditFiles]:
        """Those that ever wrote; other folders beside them are none of ours."""
        marks = [path for sign in (".lock", "*.jsonl", "*/*.parquet") for path in self._folder.glob(f"*/{sign}")]
        names = {path.relative_to(self._folder).parts[0] for path in marks}
        if self._custody.bucket is not None:
            names.update(self._custody.bucket.workers)
        return [AuditFiles(self._folder, name, self._custody) for name in sorted(names)]

    def rows(self, wanted: Callable[[Mapping[str, Any]], bool] = lambda row: True) -> Iterator[Mapping[str, Any]]:
        for each in self.workers:
            yield from filter(wanted, each.rows())

    def of_calls(self, calls: Sequence[str]) -> list[dict[str, Any]]:
        """For JSON."""
        those = frozenset(calls)
        return [for_json(row) for row in self.rows(lambda row: row["call_id"] in those)]

    def with_text(self, text: str) -> list[str]:
        """Turns whose rows hold it."""
        return [row["turn_id"] for row in self.rows(lambda row: holds(row, text))]

    def erase(self, calls: Sequence[str], text: str, now: datetime, *, elsewhere: bool = True) -> int:
        """`elsewhere`: a chain that is written on another machine, and has rows of theirs, raises StoreError before
        anything is erased: two machines must not write to it. False: it is left as it is."""
        here, those = [each for each in self.workers if each.is_here], frozenset(calls)
        if elsewhere:
            for each in self.workers:
                if not each.is_here and any(row["call_id"] in those or holds(row, text) for row in each.rows()):
                    raise StoreError(
                        f"the audit log of worker {each.worker} has rows of theirs, and is written on another machine: "
                        "trunkline audit erase there first"
                    )
        count = sum(each.erase(calls, text, now) for each in here)
        for each in here:
            each.move()
        return count

    def expire(self, days: int, now: datetime) -> int:
        """What was written of turns that many days ago and earlier, by whole days: kept at most so long."""
        before = (now.astimezone(UTC) - timedelta(days=days)).date() + timedelta(days=1)
        return sum(each.expire(before, now) for each in self.workers if each.is_here)


def for_json(row: Mapping[str, Any]) -> dict[str, Any]:
    plain = {"at": row["at"].isoformat(), "cost_usd": None if row["cost_usd"] is None else f"{row['cost_usd']:f}"}
    return {**row, **plain}
