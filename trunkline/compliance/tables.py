"""The law as tables: CSV files with a version, a source in every row, and nothing believed before it is checked.

A row's region is a country, its part, a group of countries, or `*`. Somebody whose place is not known, or whose country
no table knows, is under every row.
"""

import csv
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, time
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args
from zoneinfo import available_timezones

from trunkline.errors import ConfigError
from trunkline.ports import Purpose

MAX_TABLE_BYTES = 1 << 20
MAX_ROWS = 20_000
MAX_FIELD_CHARS = 400
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Line = Literal["business", "ai", "recording", "opt_out", "callback"]
ListName = Literal["litigator", "national", "state", "reassigned"]
Form = Literal["none", "implied", "express_oral", "express_written"]
FORMS: tuple[str, ...] = get_args(Form)
"""The least first."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What every row has. `purpose` None: of every kind."""

    region: str
    purpose: Purpose | None
    source: str


@dataclass(frozen=True, slots=True)
class Hours(Rule):
    days: frozenset[int]
    """Monday is 0."""
    start: time
    end: time
    holidays: Literal["open", "closed"]


@dataclass(frozen=True, slots=True)
class Frequency(Rule):
    max: int
    hours: int


@dataclass(frozen=True, slots=True)
class Calling(Rule):
    form: Form


@dataclass(frozen=True, slots=True)
class Listed(Rule):
    list: ListName
    unless: Form | None
    max_age_days: int | None


@dataclass(frozen=True, slots=True)
class Recording(Rule):
    parties: Literal["one", "all"]


@dataclass(frozen=True, slots=True)
class Disclosure(Rule):
    direction: Literal["inbound", "outbound"] | None
    line: Line


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    version: str
    rows: tuple[Any, ...]

    @property
    def data(self) -> str:
        """As the record names it."""
        return f"{self.name} {self.version}"


@dataclass(frozen=True, slots=True)
class Tables:
    hours: Table
    holidays: Table
    """Rows of (region, date)."""
    frequency: Table
    calling: Table
    lists: Table
    recording: Table
    disclosure: Table
    area_codes: Mapping[str, tuple[str, tuple[str, ...]]]
    """Region and zones of each."""
    groups: Mapping[str, frozenset[str]]
    """The groups that each country is in."""
    _listed: frozenset[str]
    _memory: dict[tuple[Any, ...], Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def versions(self) -> dict[str, str]:
        tables = (self.hours, self.holidays, self.frequency, self.calling, self.lists, self.recording, self.disclosure)
        return {table.name: table.version for table in tables}

    def codes(self, place: str) -> frozenset[str]:
        """What `place` is: its part, its country, its groups."""
        country = place.partition("-")[0]
        return frozenset({place, country}) | self.groups.get(country, frozenset())

    def rows(self, table: Table, place: str | None) -> tuple[Any, ...]:
        """Those that hold there. Their purpose is the asker's to look at."""
        return self.remembered(
            (table.name, place), lambda: tuple(row for row in table.rows if self._fits(row.region, place))
        )

    def remembered(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        """What follows from the tables alone, once. Bounded."""
        found = self._memory.get(key)
        if found is None:
            if len(self._memory) > _MEMORY:
                self._memory.clear()
            found = self._memory[key] = make()
        return found

    def _fits(self, region: str, place: str | None) -> bool:
        if region == "*" or place is None:
            return True
        codes = self.codes(place)
        if not codes & self._listed:
            return True
        return region in codes or ("-" not in place and region.startswith(place + "-"))

    def holiday(self, region: str, day: date) -> bool:
        """In the region of a row; True as well where nobody knows."""

        def days() -> tuple[frozenset[date], date]:
            known = frozenset(row[1] for row in self.holidays.rows if row[0] in self.codes(region))
            return known, max(known, default=date.min)

        known, last = self.remembered(("holidays", region), days)
        return day in known or day > last


_MEMORY = 16_384
_NAMES = ("hours", "holidays", "frequency", "calling", "lists", "recording", "disclosure", "area_codes", "groups")


def load(folder: Path | None = None) -> Tables:
    """Those of `folder`, and ours for what it does not have. Raises ConfigError that names row and field."""
    return _tables({name: _text(name, folder) for name in _NAMES})


@cache
def ours() -> Tables:
    """Those that come with Trunkline."""
    return load()


def _text(name: str, folder: Path | None) -> str:
    path: Any = folder / f"{name}.csv" if folder is not None else None
    if path is None or not path.exists():
        path = files(__package__).joinpath("tables").joinpath(f"{name}.csv")
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_TABLE_BYTES + 1)
        text: str = raw.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}.csv", type(error).__name__, "a readable file in UTF-8") from None
    if len(raw) > MAX_TABLE_BYTES:
        raise ConfigError(f"{name}.csv", f"over {MAX_TABLE_BYTES} bytes", "a smaller table")
    return text


def _tables(texts: Mapping[str, str]) -> Tables:
    tables = {name: read(name, text) for name, text in texts.items()}
    area_codes = {row[0]: (row[1], row[2]) for row in tables["area_codes"].rows}
    groups: dict[str, set[str]] = {}
    for group, member, _ in tables["groups"].rows:
        groups.setdefault(member, set()).add(group)
    rules = (tables[name] for name in ("hours", "calling", "recording"))
    listed = {row.region.partition("-")[0] for table in rules for row in table.rows}
    hours, holidays, frequency, calling, lists, recording, disclosure = (tables[name] for name in _NAMES[:7])
    return Tables(
        hours,
        holidays,
        frequency,
        calling,
        lists,
        recording,
        disclosure,
        area_codes=area_codes,
        groups={member: frozenset(names) for member, names in groups.items()},
        _listed=frozenset(listed - {"*"}),
    )


# --- reading ---------------------------------------------------------------------------------------------------------


class _Row:
    """One row, field by field. What is wrong is told with its row and field."""

    def __init__(self, table: str, number: int, values: Mapping[str, str]) -> None:
        self._table, self._number, self._values = table, number, values

    def wrong(self, name: str, allowed: str) -> ConfigError:
        shown = "".join(c if c.isprintable() else "?" for c in self._values.get(name, ""))[:40]
        return ConfigError(f"{self._table}.csv row {self._number}, {name}", shown, allowed)

    def has(self, name: str) -> bool:
        return bool(self._values.get(name))

    def text(self, name: str) -> str:
        value = self._values.get(name, "")
        if not value:
            raise self.wrong(name, "a text")
        return value

    def one_of(self, name: str, allowed: Iterable[str]) -> Any:
        value = self._values.get(name, "")
        if value not in (among := tuple(allowed)):
            raise self.wrong(name, f"one of {', '.join(among)}")
        return value

    def maybe(self, name: str, allowed: Iterable[str], nothing: str = "*") -> Any:
        return (
            None if self._values.get(name, "") == nothing else self.one_of(name, (*allowed, *filter(None, [nothing])))
        )

    def number(self, name: str, most: int) -> int:
        value = self._values.get(name, "")
        if not (value.isascii() and value.isdigit() and len(value) < 8 and 1 <= int(value) <= most):
            raise self.wrong(name, f"1 to {most}")
        return int(value)

    def time(self, name: str) -> time:
        value = self._values.get(name, "")
        if value == "24:00":
            return time.max
        try:
            if len(value) == 5:
                return time.fromisoformat(value)
        except ValueError:
            pass
        raise self.wrong(name, "a time as HH:MM")

    def date(self, name: str) -> date:
        try:
            return date.fromisoformat(self._values.get(name, ""))
        except ValueError:
            raise self.wrong(name, "a date as YYYY-MM-DD") from None

    def region(self, name: str = "region", star: bool = True) -> str:
        value = self._values.get(name, "")
        country, dash, part = value.partition("-")
        good = len(country) == 2 and country.isascii() and country.isalpha() and country.isupper()
        good = good and (
            not dash or (1 <= len(part) <= 3 and part.isascii() and part.isalnum() and part == part.upper())
        )
        if not good and not (star and value == "*"):
            raise self.wrong(name, "a country or its part, such as DE, US-CA" + (", or *" if star else ""))
        return value

    def days(self, name: str) -> frozenset[int]:
        found: set[int] = set()
        for span in self._values.get(name, "").split():
            first, dash, last = span.partition("-")
            if first not in DAYS or (dash and last not in DAYS):
                raise self.wrong(name, "days such as mon-fri, or sat sun")
            start, end = DAYS.index(first), DAYS.index(last) if dash else DAYS.index(first)
            if end < start:
                raise self.wrong(name, "days in the order of the week")
            found.update(range(start, end + 1))
        if not found:
            raise self.wrong(name, "days such as mon-fri, or sat sun")
        return frozenset(found)

    def zones(self, name: str) -> tuple[str, ...]:
        found = tuple(self._values.get(name, "").split())
        if not set(found) <= _zones():
            raise self.wrong(name, "time zones as IANA names them")
        return found

    def rule(self) -> tuple[str, Any, str]:
        purposes = get_args(Purpose)
        purpose = self.maybe("purpose", purposes) if "purpose" in self._values else None
        return self.region(), purpose, self.text("source")


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _hours(row: _Row) -> Hours:
    start, end = row.time("start"), row.time("end")
    if end <= start:
        raise row.wrong("end", "a time after start")
    return Hours(*row.rule(), row.days("days"), start, end, row.one_of("holidays", ("open", "closed")))


def _listed(row: _Row) -> Listed:
    unless = row.maybe("unless", FORMS[1:], nothing="")
    age = row.number("max_age_days", 3650) if row.has("max_age_days") else None
    return Listed(*row.rule(), row.one_of("list", get_args(ListName)), unless, age)


_READERS: Mapping[str, tuple[str, Callable[[_Row], Any]]] = {
    "hours": ("region,purpose,days,start,end,holidays,source,note", _hours),
    "holidays": ("region,date,name,source", lambda row: (row.region(), row.date("date"), row.text("source"))),
    "frequency": (
        "region,purpose,max,hours,source,note",
        lambda row: Frequency(*row.rule(), row.number("max", 10_000), row.number("hours", 720)),
    ),
    "calling": (
        "region,purpose,form,source,note",
        lambda row: Calling(*row.rule(), row.one_of("form", FORMS)),
    ),
    "lists": ("region,purpose,list,unless,max_age_days,source,note", _listed),
    "recording": (
        "region,parties,source,note",
        lambda row: Recording(*row.rule(), row.one_of("parties", ("one", "all"))),
    ),
    "disclosure": (
        "region,direction,purpose,line,source,note",
        lambda row: Disclosure(
            *row.rule(), row.maybe("direction", ("inbound", "outbound")), row.one_of("line", get_args(Line))
        ),
    ),
    "area_codes": (
        "code,region,zones,source",
        lambda row: (str(row.number("code", 999)), row.region(star=False), row.zones("zones"), row.text("source")),
    ),
    "groups": (
        "group,member,source",
        lambda row: (row.region("group", star=False), row.region("member", star=False), row.text("source")),
    ),
}


def read(name: str, text: str) -> Table:
    """Raises ConfigError that names row (of the file) and field."""
    columns, reader = _READERS[name]
    lines = text.splitlines()
    version = lines[0].removeprefix("# version ").strip() if lines else ""
    if not lines or not lines[0].startswith("# version ") or not 0 < len(version) <= 40 or not version.isprintable():
        raise ConfigError(f"{name}.csv row 1", (lines or [""])[0][:40], "# version YYYY-MM-DD")
    numbered = [(i, line) for i, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    if len(numbered) > MAX_ROWS:
        raise ConfigError(f"{name}.csv", len(numbered), f"at most {MAX_ROWS} rows")
    if not numbered or numbered[0][1].strip() != columns:
        row = numbered[0][0] if numbered else len(lines) + 1
        raise ConfigError(f"{name}.csv row {row}", numbered[0][1][:80] if numbered else "", columns)
    names = columns.split(",")
    rows = []
    for number, line in numbered[1:]:
        try:
            values = [value.strip() for value in next(csv.reader([line], strict=True))]
        except (csv.Error, StopIteration):
            raise ConfigError(f"{name}.csv row {number}", line[:40], "fields with commas between") from None
        if len(values) > len(names) or any(len(value) > MAX_FIELD_CHARS or "\0" in value for value in values):
            raise ConfigError(f"{name}.csv row {number}", f"{len(values)} fields", f"at most {columns}")
        values += [""] * (len(names) - len(values))
        rows.append(reader(_Row(name, number, dict(zip(names, values, strict=True)))))
    if not rows:
        raise ConfigError(f"{name}.csv", "no rows", "at least one")
    return Table(name, version, tuple(rows))
