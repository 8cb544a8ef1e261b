"""Rows to Parquet and back: the one file that imports pyarrow.

With keys a file is encrypted as Parquet says (modular encryption, AES-256-GCM, footer and all columns), by a key of its
own that the master key wraps; so whoever has the master key can read it with other tools too.
"""

import asyncio
import base64
import binascii
import io
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC
from decimal import Decimal
from typing import Any

from trunkline.errors import MissingExtra, StoreError
from trunkline.privacy.sealed import Keys
from trunkline.store.audit.rows import Row

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
    import pyarrow.parquet.encryption as pe
    from pyarrow import fs as fs
except ImportError as error:
    raise MissingExtra("pyarrow", "audit") from error

_USD = Decimal(1).scaleb(-12)
_TEXT = (
    "turn_id kind why call_id tenant session_id direction leg agent agent_sha256 consent caller_text agent_text door"
    " target code reason"
)
_LISTS = "prompts_sha256 tools tool_calls"
_MS = "endpointing_ms stt_ms llm_ms tts_ms total_ms barge_in_ms"
SCHEMA = pa.schema(
    [
        pa.field("at", pa.timestamp("us", tz="UTC")),
        *(pa.field(name, pa.string()) for name in _TEXT.split()),
        *(pa.field(name, pa.list_(pa.string())) for name in _LISTS.split()),
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
        **{name: list(found[name]) for name in _LISTS.split()},
        "cost_usd": cost,
        "salt": secrets.token_hex(16),
        "erased": False,
    }


def packed(rows: Sequence[Mapping[str, Any]], keys: Keys | None = None) -> bytes:
    """Raises StoreError: the key service is away."""
    out = io.BytesIO()
    sealed = None if keys is None else _factory(keys).file_encryption_properties(pe.KmsConnectionConfig(), _ENCRYPTION)
    table = pa.Table.from_pylist([*map(dict, rows)], schema=SCHEMA)
    pq.write_table(table, out, compression="zstd", encryption_properties=sealed)
    return out.getvalue()


def unpacked(data: bytes, keys: Keys | None = None) -> list[dict[str, Any]]:
    """Raises UNREADABLE; StoreError where the key is not there that it was encrypted with."""
    opened = None
    if is_encrypted(data):
        if keys is None:
            raise StoreError("the audit log's files are encrypted: privacy.keys is needed")
        opened = _factory(keys).file_decryption_properties(pe.KmsConnectionConfig(), pe.DecryptionConfiguration())
    table = pq.read_table(io.BytesIO(data), decryption_properties=opened)
    if table.schema.names != SCHEMA.names:
        raise ValueError("its columns are others")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def is_encrypted(data: bytes) -> bool:
    return data[-4:] == b"PARE"  # Parquet's encryption, 5.1


_ENCRYPTION = pe.EncryptionConfiguration(
    footer_key="trunkline", uniform_encryption=True, double_wrapping=False, data_key_length_bits=256
)


class _Ring(pe.KmsClient):  # type: ignore[misc]
    """The master key's own name is kept with what it wraps."""

    def __init__(self, keys: Keys) -> None:
        super().__init__()
        self._keys = keys

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> str:
        name, wrapped = self._keys.wrap(key_bytes)
        return f"{name}:{base64.b64encode(wrapped).decode()}"

    def unwrap_key(self, wrapped_key: str, master_key_identifier: str) -> bytes:
        name, _, wrapped = wrapped_key.rpartition(":")
        try:
            return self._keys.unwrap(name, base64.b64decode(wrapped))
        except binascii.Error as error:
            raise ValueError("its key cannot be read") from error


def _factory(keys: Keys) -> Any:
    return pe.CryptoFactory(lambda config: _Ring(keys))


# --- tables that are handed out ---

_KINDS = {
    "text": pa.string(),
    "time": pa.timestamp("us", tz="UTC"),
    "whole": pa.int64(),
    "number": pa.float64(),
    "usd": pa.decimal128(38, 9),
}


class TableFile:
    """A Parquet file, given out as it is written: nothing of it is kept."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._schema = pa.schema([pa.field(name, _KINDS[kind]) for name, kind in columns.items()])
        self._out = _Outgoing()
        self._writer = pq.ParquetWriter(self._out, self._schema, compression="zstd")

    async def add(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        """A row group."""
        await asyncio.to_thread(self._write, rows)
        return self._out.taken()

    async def end(self) -> bytes:
        await asyncio.to_thread(self._writer.close)
        return self._out.taken()

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._writer.write_table(pa.Table.from_pylist(list(rows), schema=self._schema))


class _Outgoing(io.RawIOBase):
    """Bytes until they are taken. It cannot be sought in, and need not be."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._at = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        self._at += len(self._parts[-1])
        return len(self._parts[-1])

    def taken(self) -> bytes:
        whole, self._parts = b"".join(self._parts), []
        return whole
