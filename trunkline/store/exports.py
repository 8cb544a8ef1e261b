"""Calls as a table, part by part: CSV, or Parquet with the extra `audit`. No more than one part is in memory.

A cell of CSV that a spreadsheet would take for a formula (it begins with = + - @, a tab or a line break) gets an
apostrophe before it. A number as +14155550100 does not: no spreadsheet makes more of it than a number.
"""

import csv
import io
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from trunkline.errors import MissingExtra

Format = Literal["csv", "parquet"]
PAGE = 200  # calls: a few ms of the event loop
GROUP = 5_000  # ... of a Parquet row group
_E164 = re.compile(r"\+[0-9]{1,15}")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")

COLUMNS: Mapping[str, Literal["text", "time", "whole", "number", "usd"]] = {
    "id": "text",
    "direction": "text",
    "leg": "text",
    "agent": "text",
    "from_number": "text",
    "to_number": "text",
    "provider_call_id": "text",
    "started_at": "time",
    "answered_at": "time",
    "ended_at": "time",
    "end_reason": "text",
    "ended_by": "text",
    "end_detail": "text",
    "provider_code": "text",
    "duration_ms": "whole",
    "turn_count": "whole",
    "turn_p95_ms": "number",
    "cost_usd": "usd",
    "mos": "number",
    "error_count": "whole",
    "refusal_count": "whole",
    "transfer_count": "whole",
}


def harmless(cell: Any) -> Any:
    if not isinstance(cell, str) or not cell.startswith(_FORMULA) or _E164.fullmatch(cell):
        return cell
    return f"'{cell}"


async def csv_parts(pages: AsyncIterator[Sequence[Mapping[str, Any]]]) -> AsyncGenerator[bytes, None]:
    """RFC 4180, UTF-8, with a line of names."""
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(COLUMNS)
    async for page in pages:
        rows.writerows([harmless(call.get(name)) for name in COLUMNS] for call in page)
        yield text.getvalue().encode("utf-8", "replace")
        text.seek(0)
        text.truncate()
    if text.tell():
        yield text.getvalue().encode()


async def parquet_parts(pages: AsyncIterator[Sequence[Mapping[str, Any]]]) -> AsyncGenerator[bytes, None]:
    """Raises MissingExtra."""
    try:
        from trunkline.store.audit.parquet import TableFile
    except MissingExtra:
        raise
    except ImportError as error:
        raise MissingExtra("pyarrow", "audit") from error
    file = TableFile(COLUMNS)
    rows: list[dict[str, Any]] = []
    async for page in pages:
        rows += [{name: _value(kind, call.get(name)) for name, kind in COLUMNS.items()} for call in page]
        if len(rows) >= GROUP:
            yield await file.add(rows)
            rows = []
    if rows:
        yield await file.add(rows)
    yield await file.end()


def _value(kind: str, value: Any) -> Any:
    if value is None:
        return None
    if kind == "time":
        return datetime.fromisoformat(value)
    return Decimal(value) if kind == "usd" else value
