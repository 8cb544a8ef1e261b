"""The price table: CSV with a version, a date and a source in every row; nothing is believed before it is checked.

A usage is priced by provider, kind, product and unit. The row of its very product goes before one that ends with `*`,
of those the longest; each `item` is looked for by itself, and all that are found are charged. What no row prices is
told as Missing, and never as zero. Money is Decimal, in USD. A leg over a SIP trunk is `TRUNK/inbound-US`: a row for
that trunk goes before one for all trunks, whose product has no `TRUNK/`.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from trunkline.errors import ConfigError
from trunkline.ports import HERE, UsageKind, UsageUnit

FILE = "prices.csv"
COLUMNS = "provider,kind,product,item,unit,price,per,round_to,date,source"
MAX_TABLE_BYTES = 1 << 20
MAX_ROWS = 20_000
MAX_FIELD_CHARS = 200
_PICO = Decimal("1e-12")
MAX_PRICE = Decimal(10_000)
MAX_PER = 1_000_000_000

ALSO: Mapping[UsageUnit, UsageUnit] = {"cached_tokens_in": "tokens_in", "cached_audio_tokens_in": "audio_tokens_in"}
"""What has no row of its own, and is charged as if it were the other: dearer, never cheaper."""
NEEDS: Mapping[UsageKind, tuple[frozenset[UsageUnit], ...]] = {
    "leg": (frozenset({"seconds"}),),
    "stt": (frozenset({"seconds"}), frozenset({"tokens_in", "audio_tokens_in", "tokens_out"})),
    "llm": (frozenset({"tokens_in", "tokens_out"}),),
    "tts": (frozenset({"characters"}), frozenset({"seconds"})),
    "realtime": (frozenset({"tokens_in", "tokens_out", "audio_tokens_in", "audio_tokens_out"}),),
    "recording": (frozenset({"seconds"}),),
}
"""The units that must be priced before something of a kind is used: one of these sets."""
STREAMED = frozenset({"twilio"})
"""Carriers whose media stream is billed beside the telephone minute, and for as long as it runs only."""


@dataclass(frozen=True, slots=True)
class Price:
    provider: str
    kind: UsageKind
    product: str
    item: str
    unit: UsageUnit
    price: Decimal
    per: int
    round_to: Decimal | None
    date: date
    source: str
    row: int
    """Of the file."""

    def is_of(self, product: str) -> bool:
        return self.product == product or (self.product[-1:] == "*" and product.startswith(self.product[:-1]))

    def billed(self, quantity: Decimal) -> Decimal:
        """In whole steps, where the invoice counts so."""
        if self.round_to is None or not quantity:
            return quantity
        return (quantity / self.round_to).to_integral_value(ROUND_CEILING) * self.round_to

    def cost(self, quantity: Decimal) -> Decimal:
        """To the picodollar: sums stay exact."""
        return (self.billed(quantity) * self.price / self.per).quantize(_PICO)


def leg_units(provider: str) -> tuple[UsageUnit, ...]:
    """What a leg with its audio here is billed in."""
    return ("seconds", "stream_seconds") if provider in STREAMED else ("seconds",)


@dataclass(frozen=True, slots=True)
class Missing:
    """The row that is not there."""

    provider: str
    kind: UsageKind
    product: str
    unit: UsageUnit

    def __str__(self) -> str:
        return f"no price for {self.provider},{self.kind},{self.product or '*'} per {self.unit}"


@dataclass(frozen=True)
class Prices:
    version: str
    rows: tuple[Price, ...]
    _found: dict[tuple[str, str, str, str], tuple[Price, ...]] = field(default_factory=dict, compare=False, repr=False)

    def of(self, provider: str, kind: UsageKind, product: str, unit: UsageUnit) -> tuple[Price, ...]:
        """What one unit is charged as, an invoice's items; empty: no row prices it."""
        key = (provider, kind, product, unit)
        found = self._found.get(key)
        if found is None:
            found = self._look(provider, kind, product, unit)
            if not found and unit in ALSO:
                found = self._look(provider, kind, product, ALSO[unit])
            if len(self._found) > _REMEMBERED:  # products may be named by callers' countries
                self._found.clear()
            self._found[key] = found
        return found

    def _look(self, provider: str, kind: str, product: str, unit: str) -> tuple[Price, ...]:
        names = {product, product.partition("/")[2] if kind == "leg" else ""} - {""} or {""}
        best: dict[str, tuple[tuple[bool, bool, int], Price]] = {}
        for row in self.rows:
            if (row.provider, row.kind, row.unit) != (provider, kind, unit) or not any(map(row.is_of, names)):
                continue
            rank = ("/" in row.product, row.product in names, len(row.product))
            if row.item not in best or rank > best[row.item][0]:
                best[row.item] = rank, row
        return tuple(row for _, row in best.values())

    def missing(self, provider: str, kind: UsageKind, product: str) -> tuple[Missing, ...]:
        """What must be priced before it is used. Of several ways to bill, the one that lacks least."""
        if product == HERE:
            return ()
        needs = (frozenset(leg_units(provider)),) if kind == "leg" else NEEDS[kind]
        lacks = [
            tuple(Missing(provider, kind, product, u) for u in sorted(units) if not self.of(provider, kind, product, u))
            for units in needs
        ]
        return min(lacks, key=len)

    def old(self, today: date, max_age_days: int) -> tuple[Price, ...]:
        return tuple(row for row in self.rows if (today - row.date).days > max_age_days)


_REMEMBERED = 4096


def load(folder: Path | None = None) -> Prices:
    """`prices.csv` of `folder`; without one, ours. Raises ConfigError naming row and field."""
    path: Any = files(__package__).joinpath(FILE) if folder is None else folder / FILE
    if folder is not None and not path.exists():
        raise ConfigError(FILE, str(folder), "in the folder of money.prices; without that setting ours counts")
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_TABLE_BYTES + 1)
        text: str = raw.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(FILE, type(error).__name__, "a readable file in UTF-8") from None
    if len(raw) > MAX_TABLE_BYTES:
        raise ConfigError(FILE, f"over {MAX_TABLE_BYTES} bytes", "a smaller table")
    return read(text)


def read(text: str) -> Prices:
    """Raises ConfigError that names row (of the file) and field."""
    lines = text.splitlines()
    version = lines[0].removeprefix("# version ").strip() if lines else ""
    if not lines or not lines[0].startswith("# version ") or not 0 < len(version) <= 40 or not version.isprintable():
        raise ConfigError(f"{FILE} row 1", (lines or [""])[0][:40], "# version YYYY-MM-DD")
    numbered = [(i, line) for i, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    if not numbered or numbered[0][1].strip() != COLUMNS:
        row = numbered[0][0] if numbered else len(lines) + 1
        raise ConfigError(f"{FILE} row {row}", numbered[0][1][:80] if numbered else "", COLUMNS)
    if not 1 < len(numbered) <= MAX_ROWS:
        raise ConfigError(FILE, f"{len(numbered) - 1} rows", f"1 to {MAX_ROWS} rows")
    rows = [_price(number, line) for number, line in numbered[1:]]
    _once(rows)
    return Prices(version, tuple(rows))


def _once(rows: Iterable[Price]) -> None:
    seen: dict[tuple[str, ...], int] = {}
    for row in rows:
        key = (row.provider, row.kind, row.product, row.item, row.unit)
        if (first := seen.setdefault(key, row.row)) != row.row:
            shown = ",".join(key)
            raise ConfigError(f"{FILE} row {row.row}, product", shown, f"a price once: it is in row {first} already")


def _price(number: int, line: str) -> Price:
    names = COLUMNS.split(",")
    try:
        values = [value.strip() for value in next(csv.reader([line], strict=True))]
    except (csv.Error, StopIteration):
        raise ConfigError(f"{FILE} row {number}", line[:40], "fields with commas between") from None
    if len(values) != len(names) or any(len(v) > MAX_FIELD_CHARS or not v.isprintable() for v in values):
        raise ConfigError(f"{FILE} row {number}", f"{len(values)} fields", COLUMNS)
    row = _Row(number, dict(zip(names, values, strict=True)))
    return Price(
        row.text("provider"),
        row.one_of("kind", get_args(UsageKind)),
        row.product(),
        row.text("item"),
        row.one_of("unit", get_args(UsageUnit)),
        row.amount("price"),
        row.whole("per", MAX_PER),
        Decimal(row.whole("round_to", 3600)) if row.values["round_to"] else None,
        row.date("date"),
        row.text("source"),
        number,
    )


class _Row:
    def __init__(self, number: int, values: Mapping[str, str]) -> None:
        self._number, self.values = number, values

    def wrong(self, name: str, allowed: str) -> ConfigError:
        return ConfigError(f"{FILE} row {self._number}, {name}", self.values[name][:40], allowed)

    def text(self, name: str) -> str:
        if not self.values[name]:
            raise self.wrong(name, "a text")
        return self.values[name]

    def product(self) -> str:
        value = self.text("product")
        if "*" in value[:-1] or value == HERE:
            raise self.wrong("product", "a name, a beginning with * behind it, or *")
        return value

    def one_of(self, name: str, allowed: Sequence[str]) -> Any:
        if self.values[name] not in allowed:
            raise self.wrong(name, f"one of {', '.join(allowed)}")
        return self.values[name]

    def amount(self, name: str) -> Decimal:
        try:
            value = Decimal(self.values[name])
        except InvalidOperation:
            value = Decimal(-1)
        if not value.is_finite() or not 0 <= value <= MAX_PRICE or value.as_tuple().exponent < -15:  # type: ignore[operator]
            raise self.wrong(name, f"USD from 0 to {MAX_PRICE}; what has no price has no row")
        return value

    def whole(self, name: str, most: int) -> int:
        value = self.values[name]
        if not (value.isascii() and value.isdigit() and len(value) <= 10 and 1 <= int(value) <= most):
            raise self.wrong(name, f"1 to {most}")
        return int(value)

    def date(self, name: str) -> date:
        try:
            return date.fromisoformat(self.values[name])
        except ValueError:
            raise self.wrong(name, "a date as YYYY-MM-DD") from None
