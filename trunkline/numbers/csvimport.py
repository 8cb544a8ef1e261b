"""A CSV of numbers, looked at before anything is done: what it would make, change and leave, and every mistake by line.

    found = preview(data, existing={...}, known=Known(agents={"reception"}))    # resources.Number by number
    found.create, found.change, found.unchanged, found.mistakes

Plain: nothing is written here. Whoever applies a preview does it whole, in one transaction, or not at all; lines with a
mistake are in none of its lists. The file is somebody's spreadsheet, so: columns in any order, commas, semicolons or
tabs, a BOM, UTF-16, Windows' line ends, national numbers where a country is given.

Only what the file has a column for changes; an empty cell takes a value away, a missing column leaves it. `agent` is
one, `reception`, or several with their weights and pinned versions, `reception:80|sales@3:20`. `country` says how the
row's numbers are read, and that they are of it.
"""

import csv
import io
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pydantic import ValidationError

from trunkline.numbers import e164
from trunkline.numbers.e164 import BadNumber, Beginning, Range
from trunkline.numbers.resources import Number, Share, said
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
    "carrier_id",
    "trunk",
    "country",
    "tags",
    "enabled",
    "max_calls",
    "reserved_inbound",
    "overflow_number",
    "fallback_number",
)
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}", re.ASCII)
_SHARE = re.compile(r"([^@:]+)(?:@([1-9][0-9]{0,8}))?(?::([0-9]{1,4}))?", re.ASCII)
_YES = {"true": True, "yes": True, "1": True, "": True, "false": False, "no": False, "0": False}
_DELIMITERS = ",;\t"


@dataclass(frozen=True, slots=True)
class Change:
    before: Number
    after: Number

    @property
    def fields(self) -> tuple[str, ...]:
        """Those that differ."""
        names = Number.model_fields
        return tuple(name for name in names if getattr(self.before, name) != getattr(self.after, name))


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
    countries: Collection[str] = ()
    """Numbers of these only; none: of all."""


@dataclass(frozen=True, slots=True)
class Preview:
    create: Sequence[Number] = ()
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
    create: list[Number] = field(default_factory=list)
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
    existing: Mapping[str, Number] | None = None,
    known: Known = Known(),
    country: str | None = None,
) -> Preview:
    """`existing`: the tenant's numbers. `country` (two letters): how numbers without + are read where
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


_OWN = ("label", "carrier_id")
"""Mostly another on every line."""
_FIELDS = {"agent": "agents"}
"""Columns whose name is not the resource's."""
_COLUMNS_OF = {field: column for column, field in _FIELDS.items()}


class _Cells:
    """Of all columns but the number and its country. Most hold few values on many lines: each is judged once."""

    def __init__(self, columns: Collection[str], known: Known) -> None:
        names = {"route": known.routes, "carrier": known.carriers, "trunk": known.trunks}
        readers: dict[str, Callable[[str, str | None], Any]] = {
            "label": lambda cell, country: _text("label", cell, 120),
            "carrier_id": lambda cell, country: _text("carrier_id", cell, 64),
            "agent": lambda cell, country: _agents(cell, known.agents),
            "tags": lambda cell, country: _tags(cell),
            "enabled": lambda cell, country: _enabled(cell),
            "max_calls": lambda cell, country: _count("max_calls", cell, 1),
            "reserved_inbound": lambda cell, country: _count("reserved_inbound", cell, 0) or 0,
            "overflow_number": partial(_one, "overflow_number"),
            "fallback_number": partial(_one, "fallback_number"),
        }
        readers |= {column: partial(_name, column, known=among) for column, among in names.items()}
        self._readers = [(column, readers[column]) for column in readers if column in columns]
        self.made: dict[tuple[Any, ...], Number] = {}
        """By all columns but _OWN."""
        self._judged: dict[tuple[str, str, str | None], Any] = {}

    def values(self, given: Mapping[str, str], country: str | None) -> dict[str, Any]:
        found = {}
        for column, read in self._readers:
            key = (column, given[column], country)
            if (value := self._judged.get(key)) is None:
                value = read(given[column], country)
                if column not in _OWN:
                    self._judged[key] = value
            found[_FIELDS.get(column, column)] = value
        return found


def _take(
    line: int,
    given: Mapping[str, str],
    found: _Found,
    existing: Mapping[str, Number],
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
    for number in numbers:
        if (before := found.first_lines.setdefault(number, line)) != line:
            raise _Wrong("number", number, f"stands on line {before} already")
    made = [_made(number, changes, existing.get(number), cells) for number in numbers]
    for new in made:
        present = existing.get(new.number)
        if present is None:
            found.create.append(new)
        elif present is new:
            found.unchanged.append(new.number)
        else:
            found.change.append(Change(present, new))


def _made(number: str, changes: Mapping[str, Any], present: Number | None, cells: _Cells) -> Number:
    """`present` itself where nothing changes."""
    if present is not None:
        if all(getattr(present, name) == value for name, value in changes.items()):
            return present
        made = _valid({**dict(present), **changes})
    else:
        # The resource's own checks cost more than all the rest; what differs from line to line is judged already.
        shared = {name: value for name, value in changes.items() if name not in _OWN}
        key = tuple(shared.values())
        if (like := cells.made.get(key)) is None:
            like = cells.made[key] = _valid({"number": number, **shared})
        made = like.model_copy(update={"number": number, **{n: changes[n] for n in _OWN if n in changes}})
    for column in ("overflow_number", "fallback_number"):
        if changes.get(column) == number:
            raise _Wrong(column, number, "is the number itself: calls would come back")
    return made


def _valid(fields: Mapping[str, Any]) -> Number:
    try:
        return Number.model_validate(fields)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False)[0]
        name = str(first["loc"][0] if first["loc"] else first.get("ctx", {}).get("key", ""))
        raise _Wrong(_COLUMNS_OF.get(name, name), str(fields.get(name, "")), said(first)) from None


def _numbers(text: str, own_country: str | None, known: Known, country: str | None) -> list[str]:
    if not text:
        raise _Wrong("number", "", "is missing: +COUNTRY NUMBER, or a range +14155550100-+14155550199")
    try:
        span = e164.span(text, country)
        if isinstance(span, Beginning):
            raise _Wrong("number", text, "numbers, one by one or a range: a beginning belongs into a route's `matches`")
        ones = [e164.number(each) for each in span] if isinstance(span, Range) else [span]
        for one in ones:
            e164.allowed(one, known.countries)
            if own_country and one.country not in (own_country, None):
                raise _Wrong("country", own_country, f"{one.e164} is of {one.country}")
    except BadNumber as bad:
        raise _Wrong("number", text, bad.why if bad.value.strip() == text else str(bad)) from None
    return [one.e164 for one in ones]


def _country(text: str) -> str | None:
    if not text:
        return None
    if not re.fullmatch("[A-Za-z]{2}", text) or not e164.is_country(text.upper()):
        raise _Wrong("country", text, "two letters of a country, such as US")
    return text.upper()


def _text(column: str, cell: str, most: int) -> str:
    if not cell.isprintable() or len(cell) > most:
        raise _Wrong(column, cell, f"one line of text, {most} characters at most")
    return cell


def _agents(cell: str, known: Collection[str] | None) -> tuple[Share, ...]:
    shares = []
    for written in filter(None, (each.strip() for each in re.split(r"[|,;]", cell))):
        found = _SHARE.fullmatch(written)
        if found is None or int(found[3] or 100) > 1000:
            raise _Wrong(
                "agent", written, "an agent, such as reception, reception@3 (its version) or reception@3:20 (a weight)"
            )
        name = _name("agent", found[1], None, known)
        shares.append(Share(agent=name or "", version=int(found[2]) if found[2] else None, weight=int(found[3] or 100)))
    return tuple(shares)


def _enabled(cell: str) -> bool:
    if cell.lower() not in _YES:
        raise _Wrong("enabled", cell, "true or false")
    return _YES[cell.lower()]


def _tags(cell: str) -> tuple[str, ...]:
    tags = sorted({tag.strip() for tag in re.split(r"[,;| ]", cell) if tag.strip()})
    if bad := next((tag for tag in tags if not _NAME.fullmatch(tag)), None):
        raise _Wrong("tags", bad, "a tag has small letters, digits, - and _, 40 at most")
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
        raise _Wrong(column, cell, "a name of small letters, digits, - and _, 40 at most")
    if known is not None and cell not in known:
        near = ", ".join(sorted(known)[:10]) or "there are none yet"
        raise _Wrong(column, cell, f"is not known: {near}")
    return cell
