"""Files of others: consents, do-not-call lists, batches to be previewed. Hostile until read: CSV text in, values out,
or every mistake with its row and field. All of a file is taken or none of it. No mistake quotes what the file held.
"""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar, get_args

from trunkline.compliance.destinations import country_of
from trunkline.compliance.places import known_zone
from trunkline.ports import CapturedBy, ConsentForm, Evidence, Grant, Purpose, Technology
from trunkline.types import TenantId

MAX_BYTES = 256 * 1024 * 1024
MAX_ROWS = 5_000_000
MAX_PREVIEW = 10_000
MAX_CHARS = 2000
MAX_ERRORS = 20

REGION = re.compile(r"[A-Z]{2}(-[A-Z0-9]{1,3})?")
_NATIONAL = re.compile(r"[2-9][0-9]{9}")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Mistake:
    """`row`: of the file, from 1."""

    row: int
    field: str
    wanted: str

    def __str__(self) -> str:
        return f"row {self.row}, {self.field}: {self.wanted}"


class BadFile(ValueError):
    """`mistakes`: the first MAX_ERRORS of them."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__("; ".join(map(str, mistakes)))
        self.mistakes = tuple(mistakes)


@dataclass(frozen=True, slots=True)
class Asked:
    """A row of a batch."""

    row: int
    to: str
    purpose: Purpose | None
    region: str | None
    zone: str | None


class _Wrong(Exception):
    def __init__(self, field: str, wanted: str) -> None:
        self.field, self.wanted = field, wanted


_COLUMNS = (
    "subject form purposes technologies wording wording_version at channels evidence_kind evidence_uri "
    "evidence_sha256 jurisdiction valid_from valid_until seller via"
)
CONSENT_COLUMNS = tuple(_COLUMNS.split())


def consents(text: str, tenant: TenantId, now: datetime) -> list[Grant]:
    """Raises BadFile."""

    def read(row: int, values: Mapping[str, str]) -> Grant:
        at = _when(values, "at", required=True)
        assert at is not None
        if at > now:
            raise _Wrong("at", "a time that is past")
        evidence = Evidence(values.get("evidence_kind", ""), values.get("evidence_uri", ""), _sha(values))
        until = _when(values, "valid_until")
        start = _when(values, "valid_from")
        if until is not None and until <= (start or at):
            raise _Wrong("valid_until", "a time after valid_from")
        return Grant(
            tenant,
            _number(values, "subject"),
            _one(values, "form", get_args(ConsentForm)),
            at,
            _one(values, "via", get_args(CapturedBy)) if values.get("via") else "import",
            _several(values, "technologies", get_args(Technology)),
            _text(values, "wording"),
            _text(values, "wording_version"),
            _several(values, "purposes", get_args(Purpose)),
            _several(values, "channels", ("voice", "sms", "email")) if values.get("channels") else ("voice",),
            values.get("seller", ""),
            None,
            (evidence,) if evidence.uri or evidence.kind else (),
            values.get("jurisdiction", ""),
            start,
            until,
        )

    return _read(text, CONSENT_COLUMNS, CONSENT_COLUMNS[:7], read, MAX_ROWS)


def numbers(text: str, country: str = "") -> list[str]:
    """A do-not-call list: one column, `number`, in E.164, or ten digits where `country` is US or CA. Raises BadFile."""

    def read(row: int, values: Mapping[str, str]) -> str:
        if country in ("US", "CA") and _NATIONAL.fullmatch(values.get("number", "")):
            return f"+1{values['number']}"
        return _number(values, "number", listed=True)

    return list(dict.fromkeys(_read(text, ("number",), ("number",), read, MAX_ROWS)))


def batch(text: str) -> list[Asked]:
    """Whom somebody means to call: `to`, and what is known of each. A number that cannot be called is for the decision
    to say. Raises BadFile."""

    def read(row: int, values: Mapping[str, str]) -> Asked:
        return asked(row, values)

    return _read(text, ("to", "purpose", "region", "zone"), ("to",), read, MAX_PREVIEW)


def asked(row: int, values: Mapping[str, Any]) -> Asked:
    """One of them, also from JSON. Raises BadFile naming `row`."""
    try:
        if any(not isinstance(value, str) for value in values.values()):
            raise _Wrong("to", "texts")
        purpose = _one(values, "purpose", get_args(Purpose)) if values.get("purpose") else None
        region, zone = values.get("region") or None, values.get("zone") or None
        if region is not None and not REGION.fullmatch(region):
            raise _Wrong("region", "a country or its part, such as DE, US-CA")
        if zone is not None and not known_zone(zone):
            raise _Wrong("zone", "a time zone as IANA names it")
        to = _text(values, "to")
        if len(to) > 32:
            raise _Wrong("to", "a number as +COUNTRY NUMBER")
    except _Wrong as wrong:
        raise BadFile([Mistake(row, wrong.field, wrong.wanted)]) from None
    return Asked(row, to, purpose, region, zone)


def _read(
    text: str,
    columns: Sequence[str],
    needed: Sequence[str],
    read: Callable[[int, Mapping[str, str]], T],
    most: int,
) -> list[T]:
    found: list[T] = []
    mistakes: list[Mistake] = []
    for number, values in _rows(text, columns, needed):
        if len(found) >= most:
            raise BadFile([Mistake(number, "file", f"at most {most} rows")])
        if isinstance(values, Mistake):
            mistakes.append(values)
        else:
            try:
                found.append(read(number, values))
            except _Wrong as wrong:
                mistakes.append(Mistake(number, wrong.field, wrong.wanted))
            except BadFile as bad:
                mistakes += bad.mistakes
        if len(mistakes) >= MAX_ERRORS:
            break
    if mistakes:
        raise BadFile(mistakes)
    if not found:
        raise BadFile([Mistake(1, "file", "at least one row below the header")])
    return found


def _rows(
    text: str, columns: Sequence[str], needed: Sequence[str]
) -> Iterator[tuple[int, Mapping[str, str] | Mistake]]:
    """One line a row: a quoted line end would let one row hide others."""
    names: list[str] | None = None
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        if not line.strip():
            continue
        try:
            values = [value.strip() for value in next(csv.reader([line], strict=True))]
        except (csv.Error, StopIteration):
            yield number, Mistake(number, "row", "fields with commas between, quotes closed on the same line")
            continue
        if names is None:
            names = values
            if (unknown := [n for n in names if n not in columns]) or len(set(names)) != len(names):
                raise BadFile([Mistake(number, "header", f"{','.join(columns)} ({len(unknown)} unknown or twice)")])
            if missing := [n for n in needed if n not in names]:
                raise BadFile([Mistake(number, "header", f"needs {','.join(missing)}")])
            continue
        wrong = next((i for i, v in enumerate(values) if len(v) > MAX_CHARS or any(ord(c) < 32 for c in v)), None)
        if len(values) > len(names):
            yield number, Mistake(number, "row", f"at most {len(names)} fields")
        elif wrong is not None:
            yield number, Mistake(number, names[wrong], f"at most {MAX_CHARS} characters, none of control")
        else:
            yield number, dict(zip(names, values, strict=False))
    if names is None:
        raise BadFile([Mistake(1, "header", ",".join(columns))])


def decoded(raw: bytes) -> str:
    """Raises BadFile."""
    if len(raw) > MAX_BYTES:
        raise BadFile([Mistake(1, "file", f"at most {MAX_BYTES} bytes")])
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        row = raw.count(b"\n", 0, error.start) + 1
        raise BadFile([Mistake(row, "row", "UTF-8")]) from None


def _text(values: Mapping[str, str], name: str) -> str:
    value = values.get(name, "")
    if not value:
        raise _Wrong(name, "not empty")
    return value


def _number(values: Mapping[str, str], name: str, listed: bool = False) -> str:
    """On a list a number may be out of service, and is still one."""
    value = values.get(name, "")
    digits = value[1:]
    good = value.startswith("+") and digits.isascii() and digits.isdigit() and 7 <= len(digits) <= 15
    if not good or (not listed and country_of(value) is None):
        raise _Wrong(name, "a valid number as +COUNTRY NUMBER without spaces")
    return value


def _one(values: Mapping[str, str], name: str, allowed: Sequence[str]) -> Any:
    value = values.get(name, "")
    if value not in allowed:
        raise _Wrong(name, f"one of {', '.join(allowed)}")
    return value


def _several(values: Mapping[str, str], name: str, allowed: Sequence[str]) -> Any:
    found = tuple(values.get(name, "").split())
    if not found or not set(found) <= set(allowed):
        raise _Wrong(name, f"some of {' '.join(allowed)}, with blanks between")
    return tuple(dict.fromkeys(found))


def _when(values: Mapping[str, str], name: str, required: bool = False) -> datetime | None:
    value = values.get(name, "")
    if not value and not required:
        return None
    try:
        at = datetime.fromisoformat(value)
        if at.tzinfo is None:
            raise ValueError
        return at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _Wrong(name, "a time with its zone, such as 2026-11-22T15:00:00Z") from None


def _sha(values: Mapping[str, str]) -> str:
    value = values.get("evidence_sha256", "")
    if value and not re.fullmatch(r"[0-9a-f]{64}", value):
        raise _Wrong("evidence_sha256", "64 hexadecimal digits")
    return value
