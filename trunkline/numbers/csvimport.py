"""A CSV of numbers, looked at before anything is done: what it would make, change and leave, and every mistake by line.

    found = preview(data, existing={...}, known=Known(agents={"reception"}))
    found.create, found.change, found.unchanged, found.mistakes

Plain: nothing is written here. Whoever applies a preview does it whole, in one transaction, or not at all; lines with a
mistake are in none of its lists. The file is somebody's spreadsheet, so: columns in any order, commas, semicolons or
tabs, a BOM, UTF-16, Windows' line ends, national numbers where a country is given.

Only what the file has a column for changes; an empty cell takes a value away, a missing column leaves it.
"""

import csv
import io
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

from trunkline.numbers import e164
from trunkline.numbers.e164 import BadNumber, Beginning, Range
from trunkline.types import E164

MAX_BYTES = 32 * 1024 * 1024
MAX_NUMBERS = 200_000  # those of ranges as well
MAX_MISTAKES = 1000  # those shown; all are counted
MAX_CELL_CHARS = 500
MAX_TAGS = 20
MAX_CALLS = 10_000
SHOWN_CHARS = 60

COLUMNS = (
    "number",
    "label",
    "agent",
    "route",
    "carrier",
    "trunk",
    "country",
    "tags",
    "max_calls",
    "reserved_inbound",
    "overflow_number",
    "fallback_number",
    "hours",
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}", re.ASCII)
_TAG = re.compile(r"[\w.:-]{1,40}")
_DELIMITERS = ",;\t"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A number as it is to be. None and "": nothing is set."""

    number: str
    """E.164, or a beginning and a *."""
    label: str = ""
    agent: str | None = None
    route: str | None = None
    carrier: str | None = None
    trunk: str | None = None
    country: str | None = None
    """Two letters, of the number's plan; of a beginning as the file says."""
    tags: tuple[str, ...] = ()
    """Sorted."""
    max_calls: int | None = None
    reserved_inbound: int | None = None
    """Of max_calls: kept for calls that come in."""
    overflow_number: E164 | None = None
    fallback_number: E164 | None = None
    hours: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    before: Row
    after: Row

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that differ."""
        return tuple(f.name for f in fields(Row) if getattr(self.before, f.name) != getattr(self.after, f.name))


@dataclass(frozen=True, slots=True)
class Mistake:
    line: int
    """Of the file, from 1; 0: the file as a whole."""
    column: str
    value: str
    """As it stood there, cut at SHOWN_CHARS."""
    remedy: str

    def __str__(self) -> str:
        where = f"line {self.line}" if self.line else "the file"
        named = f", {self.column}" if self.column else ""
        return f"{where}{named}{f' {self.value!r}' if self.value else ''}: {self.remedy}"


@dataclass(frozen=True, slots=True)
class Known:
    """What rows may name. None: not checked here."""

    agents: Collection[str] | None = None
    routes: Collection[str] | None = None
    carriers: Collection[str] | None = None
    trunks: Collection[str] | None = None
    hours: Collection[str] | None = None
    countries: Collection[str] = ()
    """Numbers of these only; none: of all."""


@dataclass(frozen=True, slots=True)
class Preview:
    create: Sequence[Row] = ()
    change: Sequence[Change] = ()
    unchanged: Sequence[str] = ()
    """Numbers."""
    mistakes: Sequence[Mistake] = ()
    """The first MAX_MISTAKES, by line."""
    mistakes_count: int = 0
    unknown_columns: Sequence[str] = ()
    """Read over."""
    lines: int = 0
    """With something on them, the header left out."""

    @property
    def clean(self) -> bool:
        return self.mistakes_count == 0

    def summary(self) -> str:
        found = (
            f"{len(self.create):,} new, {len(self.change):,} changed, {len(self.unchanged):,} unchanged, "
            f"{self.mistakes_count:,} with mistakes"
        )
        columns = ", ".join(map(repr, self.unknown_columns))
        return found + (f"; columns nobody knows, read over: {columns}" if columns else "")


class _Wrong(Exception):
    def __init__(self, column: str, value: str, remedy: str) -> None:
        self.column, self.value, self.remedy = column, value, remedy


@dataclass(slots=True)
class _Found:
    create: list[Row] = field(default_factory=list)
    change: list[Change] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)
    mistakes_count: int = 0
    lines: int = 0
    first_lines: dict[str, int] = field(default_factory=dict)
    """Where each number stood first."""

    def mistake(self, line: int, column: str, value: str, remedy: str) -> None:
        self.mistakes_count += 1
        if len(self.mistakes) < MAX_MISTAKES:
            shown = value if len(value) <= SHOWN_CHARS else value[:SHOWN_CHARS] + "..."
            self.mistakes.append(Mistake(line, column, shown, remedy))


def preview(
    data: bytes | str,
    existing: Mapping[str, Row] | None = None,
    known: Known = Known(),
    country: str | None = None,
) -> Preview:
    """`existing`: the tenant's numbers, by `Row.number`. `country` (two letters): how numbers without + are read where
    a row says nothing. Never raises for what the file holds."""
    found = _Found()
    try:
        text = _decoded(data)
        columns, unknown, reader = _opened(text)
    except _Wrong as wrong:
        found.mistake(1 if wrong.column else 0, wrong.column, wrong.value, wrong.remedy)
        return Preview(mistakes=found.mistakes, mistakes_count=1)
    cells_of = _Cells(columns, known)
    for line, cells in _records(reader, len(columns), found):
        given = {name: cell for name, cell in zip(columns, cells, strict=True) if name}
        found.lines += 1
        try:
            _take(line, given, found, existing or {}, known, cells_of, country)
        except _Wrong as wrong:
            found.mistake(line, wrong.column, wrong.value, wrong.remedy)
        if len(found.first_lines) > MAX_NUMBERS:
            found.mistake(line, "number", "", f"more than {MAX_NUMBERS:,} numbers: divide the file; nothing is taken")
            return Preview(mistakes=found.mistakes, mistakes_count=found.mistakes_count, lines=found.lines)
    return Preview(
        found.create,
        found.change,
        found.unchanged,
        found.mistakes,
        found.mistakes_count,
        unknown,
        found.lines,
    )


# --- the file -------------------------------------------------------------------------------------------------------


def _decoded(data: bytes | str) -> str:
    if len(data) > MAX_BYTES:
        raise _Wrong("", "", f"larger than {MAX_BYTES // 1024 // 1024} MiB: divide it")
    if isinstance(data, bytes):
        utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        try:
            data = data.decode("utf-16" if utf16 else "utf-8-sig")
        except UnicodeDecodeError:
            raise _Wrong("", "", "is no text in UTF-8: save it as CSV UTF-8") from None
    return data.removeprefix("\ufeff")


def _opened(text: str) -> tuple[list[str], list[str], Iterator[Any]]:
    """Known columns, "" for those that are not; their names; and the reader behind the header."""
    first = re.match(r"[^\r\n]*", text)[0]  # type: ignore[index]
    if not first.strip():
        raise _Wrong("", "", f"begins with no header: a line with the columns' names, such as {','.join(COLUMNS[:3])}")
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [cell.strip() for cell in next(reader)]
    except csv.Error as error:
        raise _Wrong("header", "", f"cannot be read: {error}") from None
    names = [cell.lower().replace(" ", "_") for cell in header]
    columns = [name if name in COLUMNS else "" for name in names]
    if "number" not in columns:
        shown = ", ".join(header)[:SHOWN_CHARS]
        raise _Wrong("header", shown, f"has no column `number`; there may be {', '.join(COLUMNS)}")
    if twice := next((name for name in COLUMNS if columns.count(name) > 1), None):
        raise _Wrong("header", twice, "stands there twice")
    return columns, [cell for cell, name in zip(header, columns, strict=True) if not name and cell], reader


def _records(reader: Any, width: int, found: _Found) -> Iterator[tuple[int, list[str]]]:
    """Each with the line it begins on. Short ones are filled up; empty ones are none."""
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            found.mistake(line, "", "", f"cannot be read ({error}): are its quotes closed?")
            if "end of data" in str(error):
                return
            continue
        cells = [cell.strip() for cell in cells]
        if not any(cells):
            continue
        if extra := next((cell for cell in cells[width:] if cell), None):
            found.mistake(line, "", extra, f"has {len(cells)} cells, and the header {width}: quote what holds a comma")
            continue
        yield line, cells[:width] + [""] * (width - len(cells))


# --- a row ----------------------------------------------------------------------------------------------------------


class _Cells:
    """Of all columns but the number and its country. Most hold few values on many lines: each is judged once."""

    def __init__(self, columns: Collection[str], known: Known) -> None:
        names = {
            "agent": known.agents,
            "route": known.routes,
            "carrier": known.carriers,
            "trunk": known.trunks,
            "hours": known.hours,
        }
        readers: dict[str, Callable[[str, str | None], Any]] = {
            "label": lambda cell, country: _label(cell),
            "tags": lambda cell, country: _tags(cell),
            "max_calls": lambda cell, country: _count("max_calls", cell, 1),
            "reserved_inbound": lambda cell, country: _count("reserved_inbound", cell, 0),
            "overflow_number": partial(_one, "overflow_number"),
            "fallback_number": partial(_one, "fallback_number"),
        }
        readers |= {column: partial(_name, column, known=among) for column, among in names.items()}
        self._readers = [(column, readers[column]) for column in readers if column in columns]
        self._judged: dict[tuple[str, str, str | None], Any] = {}

    def values(self, given: Mapping[str, str], country: str | None) -> dict[str, Any]:
        found = {}
        for column, read in self._readers:
            key = (column, given[column], country)
            if (value := self._judged.get(key)) is None:
                value = read(given[column], country)
                if column != "label":
                    self._judged[key] = value
            found[column] = value
        return found


def _take(
    line: int,
    given: Mapping[str, str],
    found: _Found,
    existing: Mapping[str, Row],
    known: Known,
    cells: _Cells,
    country: str | None,
) -> None:
    for column, cell in given.items():
        if len(cell) > MAX_CELL_CHARS:
            raise _Wrong(column, cell, f"is longer than {MAX_CELL_CHARS} characters")
    own_country = _country(given.get("country", ""))
    numbers = _numbers(given["number"], own_country, known, own_country or country)
    changes = cells.values(given, own_country or country)
    for number, _ in numbers:
        if (before := found.first_lines.setdefault(number, line)) != line:
            raise _Wrong("number", number, f"stands on line {before} already")
    if given["number"].endswith("*") and "country" in given:
        changes["country"] = own_country
    rows = [_row(number, of_country, changes, existing.get(number)) for number, of_country in numbers]
    for row in rows:
        present = existing.get(row.number)
        if present is None:
            found.create.append(row)
        elif present == row:
            found.unchanged.append(row.number)
        else:
            found.change.append(Change(present, row))


def _row(number: str, country: str | None, changes: Mapping[str, Any], present: Row | None) -> Row:
    row = replace(present, **changes) if present is not None else Row(number=number, **{"country": country, **changes})
    if row.reserved_inbound and row.reserved_inbound > (row.max_calls or 0):
        limit = f"max_calls, which is {row.max_calls}" if row.max_calls else "max_calls, which is not set"
        raise _Wrong("reserved_inbound", str(row.reserved_inbound), f"at most {limit}")
    for column in ("overflow_number", "fallback_number"):
        if getattr(row, column) == number:
            raise _Wrong(column, number, "is the number itself: calls would come back")
    return row


def _numbers(text: str, own_country: str | None, known: Known, country: str | None) -> list[tuple[str, str | None]]:
    """With their countries."""
    if not text:
        raise _Wrong("number", "", "is missing: +COUNTRY NUMBER, a range +14155550100-+14155550199, or +1415555*")
    try:
        span = e164.span(text, country)
        if isinstance(span, Beginning):
            return [(str(span), own_country)]
        ones = [e164.number(each) for each in span] if isinstance(span, Range) else [span]
        for one in ones:
            e164.allowed(one, known.countries)
            if own_country and one.country not in (own_country, None):
                raise _Wrong("country", own_country, f"{one.e164} is of {one.country}")
    except BadNumber as bad:
        raise _Wrong("number", text, bad.why if bad.value.strip() == text else str(bad)) from None
    return [(one.e164, one.country) for one in ones]


def _country(text: str) -> str | None:
    if not text:
        return None
    if not re.fullmatch("[A-Za-z]{2}", text) or not e164.is_country(text.upper()):
        raise _Wrong("country", text, "two letters of a country, such as US")
    return text.upper()


def _label(cell: str) -> str:
    if not cell.isprintable():
        raise _Wrong("label", cell, "one line of text")
    return cell


def _tags(cell: str) -> tuple[str, ...]:
    tags = sorted({tag.strip() for tag in re.split(r"[,;| ]", cell) if tag.strip()})
    if bad := next((tag for tag in tags if not _TAG.fullmatch(tag)), None):
        raise _Wrong("tags", bad, "a tag has letters, digits, _ . : and -, 40 at most")
    if len(tags) > MAX_TAGS:
        raise _Wrong("tags", cell, f"{MAX_TAGS} tags at most")
    return tuple(tags)


def _count(column: str, cell: str, least: int) -> int | None:
    if not cell:
        return None
    if not (cell.isascii() and cell.isdigit() and least <= int(cell) <= MAX_CALLS):
        raise _Wrong(column, cell, f"a whole number from {least} to {MAX_CALLS:,}")
    return int(cell)


def _one(column: str, cell: str, country: str | None) -> E164 | None:
    if not cell:
        return None
    try:
        return e164.number(cell, country).e164
    except BadNumber as bad:
        raise _Wrong(column, cell, bad.why) from None


def _name(column: str, cell: str, country: str | None, known: Collection[str] | None) -> str | None:
    if not cell:
        return None
    if not _NAME.fullmatch(cell):
        raise _Wrong(column, cell, "a name of letters, digits, _ . @ and -, 64 at most")
    if known is not None and cell not in known:
        near = ", ".join(sorted(known)[:10]) or "there are none yet"
        raise _Wrong(column, cell, f"is not known: {near}")
    return cell
