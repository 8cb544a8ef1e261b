"""The meter of one call: usages in, priced lines out. Plain; every amount is a Decimal.

A leg is opened by a usage of one call and settled by one of all its seconds, its media stream (where that is billed by
itself) by one of its own; until then `reserved` prices it as if it ended at the moment that is asked about, rounded up
as its carrier rounds. What nobody has a price for is kept apart and
named: it is never part of a sum.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from trunkline.compliance.money.prices import Missing, Price, Prices, leg_units
from trunkline.ports import HERE, Cost, Usage, UsageKind, UsageUnit

ZERO = Decimal(0)
ESTIMATED_TOKENS = Decimal(1500)
"""Of a request that was cut off before any other of the call was told: a prompt and a short conversation."""

Key = tuple[str, UsageKind, str, str, UsageUnit]


@dataclass(slots=True)
class Line:
    """One item of an invoice, so far. `usd` None: no price."""

    provider: str
    kind: UsageKind
    product: str
    item: str
    unit: UsageUnit
    quantity: Decimal = ZERO
    billed: Decimal = ZERO
    usd: Decimal | None = ZERO
    estimated: bool = False

    @property
    def leg(self) -> str:
        return leg_name(self.provider, self.product)


@dataclass(slots=True)
class _Open:
    """A leg on the line. Its cost stays the same for a whole step of its carrier's, and is computed once for each."""

    product: str
    unit: UsageUnit
    since: float
    _usd: Decimal = ZERO
    _after: float = 0.0
    _until: float = -1.0

    def usd(self, prices: Prices, provider: str, at: float) -> Decimal:
        """If it ended then."""
        seconds = round(max(0.0, at - self.since), 3)
        if not self._after < seconds <= self._until:
            quantity = exact(seconds)
            found = prices.of(provider, "leg", self.product, self.unit)
            self._usd = sum((price.cost(quantity) for price in found), ZERO)
            self._until = float(min((price.billed(quantity) for price in found), default=quantity))
            self._after = float(max((price.billed(quantity) - (price.round_to or 0) for price in found), default=-1))
        return self._usd


@dataclass(slots=True)
class Meter:
    prices: Prices
    """Those the call began with: it is billed by one table."""
    spent: Decimal = ZERO
    """Settled."""
    spent_on_legs: Decimal = ZERO
    """Of it."""
    lines: dict[Key, Line] = field(default_factory=dict)
    missing: dict[Missing, float] = field(default_factory=dict)
    """Rows that are not there, and since when they are wanted."""
    _legs: dict[str, list[_Open]] = field(default_factory=dict)
    _asked: dict[tuple[str, UsageKind, str], Decimal] = field(default_factory=dict)
    """Tokens in of the last request that was told whole: what one that was cut off is taken to be."""

    def take(self, usage: Usage, now: float) -> tuple[Cost, ...]:
        """What it costs. `now`: when."""
        if usage.kind == "leg":
            if usage.unit == "calls":
                for unit in leg_units(usage.provider):
                    self.open(usage.provider, usage.product, unit, now)
                return ()
            self._closed(usage)
        if usage.product == HERE and not self._priced_here(usage):
            return ()
        quantity = exact(usage.quantity)
        if usage.unit == "calls":
            return self._cut_off(usage, quantity, now)
        if usage.unit == "tokens_in":
            self._asked[usage.provider, usage.kind, usage.product] = quantity
        return self._settle(usage, usage.unit, quantity, now)

    def open(self, provider: str, product: str, unit: UsageUnit, now: float) -> None:
        """A leg's time, or its media stream's, runs."""
        self._legs.setdefault(provider, []).append(_Open(product, unit, now))
        if product != HERE and not self.prices.of(provider, "leg", product, unit):
            self.missing.setdefault(Missing(provider, "leg", product, unit), now)

    def open_since(self, provider: str, product: str, unit: UsageUnit) -> float | None:
        legs = self._legs.get(provider, ())
        return next((leg.since for leg in legs if (leg.product, leg.unit) == (product, unit)), None)

    def notice(self, heard: Sequence[Usage], now: float) -> None:
        """What of it has no price is missing from when it was first used, and not from when it is told."""
        for usage in heard:
            known = usage.product == HERE or self.prices.of(usage.provider, usage.kind, usage.product, usage.unit)
            if not known and usage.quantity:
                self._lacks(usage, usage.unit, _since(usage, now))

    def _lacks(self, usage: Usage, unit: UsageUnit, since: float) -> None:
        missing = Missing(usage.provider, usage.kind, usage.product, unit)
        self.missing[missing] = min(since, self.missing.get(missing, since))

    def _priced_here(self, usage: Usage) -> bool:
        """Its own network, or its disk, costs what a row says: ours say nothing."""
        return usage.kind in ("leg", "recording") and bool(self.prices.of(usage.provider, usage.kind, HERE, usage.unit))

    def _settle(
        self, usage: Usage, unit: UsageUnit, quantity: Decimal, now: float, *, estimated: bool = False
    ) -> tuple[Cost, ...]:
        if not quantity:
            return ()
        found = self.prices.of(usage.provider, usage.kind, usage.product, unit)
        if not found:
            self._lacks(usage, unit, _since(usage, now))
            line = self._line(usage, "unpriced", unit)
            line.quantity += quantity
            line.usd = None
            return (Cost("unpriced", text(quantity), None, estimated=estimated),)
        return tuple(self._charge(usage, price, unit, quantity, estimated) for price in found)

    def _charge(self, usage: Usage, price: Price, unit: UsageUnit, quantity: Decimal, estimated: bool) -> Cost:
        billed = price.billed(quantity)
        usd = price.cost(quantity)
        line = self._line(usage, price.item, unit)
        line.quantity += quantity
        line.billed += billed
        if line.usd is not None:
            line.usd += usd
        line.estimated = line.estimated or estimated
        self.spent += usd
        if usage.kind == "leg":
            self.spent_on_legs += usd
        return Cost(price.item, text(billed), text(usd), price.date.isoformat(), estimated)

    def _line(self, usage: Usage, item: str, unit: UsageUnit) -> Line:
        key = (usage.provider, usage.kind, usage.product, item, unit)
        line = self.lines.get(key)
        if line is None:
            line = self.lines[key] = Line(*key)
        return line

    def _cut_off(self, usage: Usage, requests: Decimal, now: float) -> tuple[Cost, ...]:
        tokens = self._asked.get((usage.provider, usage.kind, usage.product), ESTIMATED_TOKENS)
        return self._settle(usage, "tokens_in", requests * tokens, now, estimated=True)

    def _closed(self, usage: Usage) -> None:
        legs = self._legs.get(usage.provider, [])
        for leg in legs:
            if (leg.product, leg.unit) == (usage.product, usage.unit):
                legs.remove(leg)
                return

    def reserved(self, at: float, heard: Sequence[Usage] = ()) -> Decimal:
        """What the open legs would cost if they ended at `at`, and what has been used and not been told (`heard`)."""
        total = ZERO
        for provider, legs in self._legs.items():
            for leg in legs:
                total += leg.usd(self.prices, provider, at)
        return total + self.untold(heard) if heard else total

    def untold(self, heard: Sequence[Usage]) -> Decimal:
        """What `heard` comes to."""
        total = ZERO
        for usage in heard:
            for price in self.prices.of(usage.provider, usage.kind, usage.product, usage.unit):
                total += price.cost(exact(usage.quantity))
        return total

    def so_far(self, now: float, heard: Sequence[Usage] = ()) -> Decimal:
        return self.spent + self.reserved(now, heard)


def _since(usage: Usage, now: float) -> float:
    return now - usage.quantity if usage.unit in ("seconds", "stream_seconds") else now


def exact(quantity: float) -> Decimal:
    """As it is written, not as a float holds it."""
    return Decimal(quantity) if isinstance(quantity, int) else Decimal(repr(quantity))


def text(amount: Decimal) -> str:
    """Without an exponent, and without zeros at the end."""
    if not amount:
        return "0"
    written = format(amount, "f")
    return written.rstrip("0").rstrip(".") if "." in written else written


def leg_name(provider: str, product: str) -> str:
    """`twilio inbound-US`, `webrtc`."""
    return provider if product in ("", HERE) else f"{provider} {product}"


def by(lines: Iterable[Line], what: str) -> dict[str, Decimal]:
    """Sums by `product`, `provider`, `kind` or `leg`. Unpriced lines are in none."""
    sums: dict[str, Decimal] = {}
    for line in lines:
        if line.usd is not None:
            name = str(getattr(line, what))
            name = line.provider if name in ("", HERE) else name
            sums[name] = sums.get(name, ZERO) + line.usd
    return sums
