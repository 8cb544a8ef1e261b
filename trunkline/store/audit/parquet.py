"""Rows to Parquet and back: the one file that imports pyarrow."""

import io
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC
from decimal import Decimal
from typing import Any

from trunkline.errors import MissingExtra
from trunkline.store.audit.rows import Row

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingExtra("pyarrow", "audit") from error

_USD = Decimal(1).scaleb(-12)
_TEXT = (
    "turn_id kind why call_id tenant session_id direction leg agent prompt_sha256 consent caller_text agent_text door"
    " target code reason"
)
_MS = "endpointing_ms stt_ms llm_ms tts_ms total_ms barge_in_ms"
SCHEMA = pa.schema(
    [
        pa.field("at", pa.timestamp("us", tz="UTC")),
        *(pa.field(name, pa.string()) for name in _TEXT.split()),
        pa.field("tools", pa.list_(pa.string())),
        *(pa.field(name, pa.bool_()) for name in ("understood", "interrupted", "cost_complete")),
        *(pa.field(name, pa.float64()) for name in _MS.split()),
        pa.field("cost_usd", pa.decimal128(38, 12)),
        pa.field("salt", pa.string()),
        pa.field("erased", pa.bool_()),
    ]
)
TOMBSTONE: Mapping[str, Any] = {**dict.fromkeys(SCHEMA.names), "erased": True}
UNREADABLE = (pa.ArrowException, OSError, ValueError, KeyError)
"""What `unpacked` raises for what is no file of ours, or is one no more."""


def salted(row: Row) -> dict[str, Any]:
    """As it is written and hashed."""
    found = asdict(row)
    ms = {name: None if found[name] is None else float(found[name]) for name in _MS.split()}
    usd = found["cost_usd"]
    cost = None if usd is None else usd.quantize(_USD)
    at = found["at"].astimezone(UTC)
    return {
        **found,
        **ms,
        "at": at,
        "tools": list(found["tools"]),
        "cost_usd": cost,
        "salt": secrets.token_hex(16),
        "erased": False,
    }


def packed(rows: Sequence[Mapping[str, Any]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([*map(dict, rows)], schema=SCHEMA), out, compression="zstd")
    return out.getvalue()


def unpacked(data: bytes) -> list[dict[str, Any]]:
    """Raises UNREADABLE."""
    table = pq.read_table(io.BytesIO(data))
    if table.schema.names != SCHEMA.names:
        raise ValueError("its columns are others")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows
