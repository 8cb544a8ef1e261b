"""One line of the spool: `crc32 length json\\n`, for every RecordEvent. Plain: bytes in, values out.

    2f1c09ab 113 {"v":1,"n":7,"k":"call_event","e":{"call_id":"...","at":"...","kind":"answered","data":{}}}

With a seal the JSON is `{"v":1,"n":7,"k":"sealed","e":"sealed:1:..."}`, and holds the other one (privacy.texts).

JSON never holds a raw newline, so after any damage the next newline is a line's start again. `n` numbers the events of
one run of the spool. A reader skips and counts what it does not know: a higher `v`, another `k`, a missing field;
fields it does not know are ignored, fields with a default may be absent.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any
from zlib import crc32

from trunkline.errors import MisuseError, StoreError
from trunkline.ports import (
    CallEnded,
    CallEvent,
    CallStarted,
    Cost,
    RecordEvent,
    TurnEnded,
    TurnRecord,
    Usage,
    UsageMetered,
)
from trunkline.privacy.texts import NO_KEYS, TextSeal, key_of

VERSION = 1
KINDS: dict[str, type[RecordEvent]] = {
    "call_started": CallStarted,
    "call_event": CallEvent,
    "turn_ended": TurnEnded,
    "usage_metered": UsageMetered,
    "call_ended": CallEnded,
}
SEALED = "sealed"
_KIND_OF: dict[type, str] = {event: kind for kind, event in KINDS.items()}

MAX_LINE_BYTES = 256 * 1024  # an ordinary event is 150-600 bytes
MAX_TEXT_CHARS = 16 * 1024  # of one string, once a line is too long: 20 minutes of speech
_MAX_ITEMS = 256  # of one list or mapping, then
_MAX_DEPTH = 8


@dataclass(frozen=True, slots=True)
class Entry:
    """An event and its place: the `seq`-th of the spool's `run`."""

    run: str
    seq: int
    event: RecordEvent


class Damaged(ValueError):
    """The line is not what was written."""


class Unknown(ValueError):
    """The line is whole, but says nothing this version can read."""


class Locked(ValueError):
    """The line is whole, and its key is not to be had: says which."""


def call_of(event: RecordEvent) -> str:
    return event.usage.call_id if isinstance(event, UsageMetered) else event.call_id


# --- writing --------------------------------------------------------------------------------------------------------


def encode(event: RecordEvent, seq: int, run: str = "", seal: TextSeal | None = None) -> bytes:
    """The whole line; with a seal, for this place only. What JSON or a database cannot hold (NUL, lone surrogates, NaN,
    foreign objects, audio) is taken out; what is too long is cut. Raises MisuseError for what is no RecordEvent or
    cannot be made to fit."""
    return framed(body(event, seq), seq, run, seal)


def framed(text: bytes, seq: int, run: str, seal: TextSeal | None) -> bytes:
    """A line of this JSON."""
    if seal is not None:
        boxed = seal.seal(text.decode(), _place(run, seq))
        text = dumped({"v": VERSION, "n": seq, "k": SEALED, "e": boxed})
    return b"%08x %d %b\n" % (crc32(text), len(text), text)


def dumped(document: Any) -> bytes:
    return _ENCODER.encode(document).encode()


def body(event: RecordEvent, seq: int) -> bytes:
    """The JSON of the line."""
    kind = _KIND_OF.get(type(event))
    if kind is None:
        raise MisuseError(f"{type(event).__name__} is not a RecordEvent")
    document = {"v": VERSION, "n": seq, "k": kind, "e": event}
    try:
        text = _ENCODER.encode(document).encode()
        if len(text) <= MAX_LINE_BYTES and b"\\u0000" not in text:
            return text
    except (ValueError, TypeError, RecursionError):  # UnicodeEncodeError is a ValueError
        pass
    return _cleaned(document, event)


def _cleaned(document: dict[str, Any], event: RecordEvent) -> bytes:
    values = _clean(_FIELDS[type(event)](event))
    text = _ENCODER.encode({**document, "e": values}).encode()
    if len(text) > MAX_LINE_BYTES and isinstance(event, CallEvent):
        text = _ENCODER.encode({**document, "e": {**values, "data": {"too_large_bytes": len(text)}}}).encode()
    if len(text) > MAX_LINE_BYTES:
        raise MisuseError(f"{type(event).__name__} of {len(text)} bytes")
    return text


def _clean(value: Any, depth: int = 0) -> Any:
    if isinstance(value, str):
        return value[:MAX_TEXT_CHARS].replace("\0", "").encode("utf-8", "replace").decode()
    if value is None or isinstance(value, bool | datetime):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**63 else float(f"{value:e}") if abs(value) < 10**300 else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if type(value) in _FIELDS:
        value = _FIELDS[type(value)](value)
    if depth < _MAX_DEPTH and isinstance(value, Mapping):
        return {_clean(str(k)): _clean(value[k], depth + 1) for k in list(value)[:_MAX_ITEMS]}
    if depth < _MAX_DEPTH and isinstance(value, list | tuple | set | frozenset):
        return [_clean(item, depth + 1) for item in list(value)[:_MAX_ITEMS]]
    return f"<{type(value).__name__}>"  # never its repr: it may be audio or a secret


def _recorded(cls: type) -> tuple[str, ...]:
    return tuple(f.name for f in fields(cls) if f.metadata.get("recorded", True))


def _fields_of(cls: type) -> Callable[[Any], dict[str, Any]]:
    names = _recorded(cls)
    values = attrgetter(*names)
    return lambda event: dict(zip(names, values(event), strict=True))


_FIELDS = {cls: _fields_of(cls) for cls in (*KINDS.values(), TurnRecord, Usage, Cost)}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if type(value) in _FIELDS:
        return _FIELDS[type(value)](value)
    raise TypeError(type(value).__name__)


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)


# --- reading --------------------------------------------------------------------------------------------------------


def decode(line: bytes, run: str, seal: TextSeal | None = None) -> Entry:
    """One line without its newline. Raises Damaged, Unknown or Locked."""
    try:
        crc, length, text = line.split(b" ", 2)
        whole = len(text) == int(length) and crc32(text) == int(crc, 16)
    except ValueError:
        whole = False
    if not whole:
        raise Damaged
    return decode_body(opened(text, run, seal), run)


def opened(text: bytes, run: str, seal: TextSeal | None) -> bytes | str:
    """The JSON in a sealed one; another is given back. Raises Locked."""
    if b'"k":"sealed"' not in text[:40]:
        return text
    document = json.loads(text)
    if seal is None:
        raise Locked(f"the key {key_of(document['e'])!r} is needed: {NO_KEYS}")
    try:
        return seal.open(document["e"], _place(run, document["n"]))
    except StoreError as error:
        raise Locked(str(error)) from None


def sealed_text(line: bytes) -> str:
    """Of a sealed line; empty for another."""
    text = line.split(b" ", 2)[-1]
    try:
        document = json.loads(text) if b'"k":"sealed"' in text[:40] else {}
        return str(document.get("e", ""))
    except (ValueError, AttributeError):
        return ""


def _place(run: str, seq: int) -> str:
    return f"spool/{run}/{seq}"


def decode_body(text: bytes | str, run: str) -> Entry:
    """Raises Unknown."""
    document = json.loads(text)
    cls = KINDS.get(document.get("k"))
    if cls is None or document["v"] > VERSION:
        raise Unknown
    try:
        return Entry(run, document["n"], _read(cls, document["e"]))
    except (TypeError, KeyError, ValueError) as error:
        raise Unknown from error


def _when(text: str) -> datetime:
    """A time without a zone was meant as UTC."""
    at = datetime.fromisoformat(text)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


_READERS: dict[str, Callable[[Any], Any]] = {
    "at": _when,
    "turn": lambda value: _read(TurnRecord, value),
    "usage": lambda value: _read(Usage, value),
    "tools": tuple,
    "costs": lambda values: tuple(_read(Cost, value) for value in values),
}


def _read(cls: type, values: Mapping[str, Any]) -> Any:
    return cls(**{n: _READERS[n](values[n]) if n in _READERS else values[n] for n in _NAMES[cls] if n in values})


_NAMES = {cls: _recorded(cls) for cls in _FIELDS}
