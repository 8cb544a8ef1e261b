"""One call's money: what it has cost, what it may cost, and what is to be done about it. Plain: the call performs.

The hard limit is reached when the call would be over its budget if it began to say goodbye at the next look: its legs
rounded up to when that is over, the goodbye itself, and the dearest answer so far, which may be under way. So the bill
ends within the budget, not behind it.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from trunkline.compliance.money.forecast import Pace
from trunkline.compliance.money.leases import Lease
from trunkline.compliance.money.meter import ZERO, Meter, by, exact, text
from trunkline.ports import Cost, Usage, UsageKind, UsageUnit

LOOK_S = 1.0
"""Between two looks at a call that is near a limit, or has used something."""
QUIET_S = 4.0
"""At any other."""
GOODBYE_S = 8.0
GOODBYE_CHARACTERS = 120
LONGEST_S = 86_400
MINUTE_S = 60.0
RING_S = 30.0
"""A further leg is taken to be answered by then: what the call comes to meanwhile is set aside with it."""

Need = tuple[str, UsageKind, str]
"""Provider, kind, product."""
Cheaper = Literal["minutes", "usd", "resolved", "backend"]


@dataclass(frozen=True, slots=True)
class WrapUp:
    """The model is told to come to an end."""


@dataclass(frozen=True, slots=True)
class CheaperRoute:
    """Another agent goes on, at the end of a turn. Where there is none: for `backend` the call ends, else nothing."""

    why: Cheaper


@dataclass(frozen=True, slots=True)
class End:
    """A goodbye, or a transfer. `budget`: call, tenant, agent, number."""

    budget: str


Step = WrapUp | CheaperRoute | End


@dataclass(frozen=True, slots=True)
class Terms:
    """None: no such limit."""

    call_usd: Decimal | None = None
    wrap_up_share: Decimal = Decimal("0.8")
    """Of call_usd: from there on the model is told to come to an end."""
    cheaper_after_s: float | None = None
    cheaper_after_usd: Decimal | None = None
    cheaper_after_tools: frozenset[str] = frozenset()
    backend_s: Mapping[str, float] = field(default_factory=dict)
    """How long a provider may attend one call."""
    assumed_usd_minute: Decimal | None = None
    """What a minute is taken to cost of each thing that has no price, from when it is first used; one at least."""


@dataclass(frozen=True, slots=True)
class SoFar:
    """What a call has come to."""

    usd: Decimal = ZERO
    seconds: float = 0.0
    """Since it was answered."""


NOTHING = SoFar()


@dataclass(slots=True)
class Account:
    meter: Meter
    terms: Terms
    goodbye_usd: Decimal
    """What the last words cost at most, the leg apart."""
    call: str = ""
    leases: Mapping[str, Lease] = field(default_factory=dict)
    """By scope."""
    before: SoFar = NOTHING
    """Of a call that goes on here: what it had come to elsewhere, or before its leg was lost. Of its budget, and of no
    day's: there it counts already."""
    began: float | None = None
    """When it was answered."""
    carrier_s: float | None = None
    """How long its carrier says that it lasted."""
    refused: set[str] = field(default_factory=set)
    """What it was not let use, as its record has been told."""
    backends: tuple[str, ...] = ()
    attended_since: float = 0.0
    exempt: bool = False
    """Its budget is spent, and what it does now is what was wanted then: no budget ends it any more."""
    _pace: Pace = field(default_factory=Pace)
    _burst_at: float = -1.0
    _burst: Decimal = ZERO
    _dearest: dict[tuple[str, ...], Decimal] = field(default_factory=dict)
    """An answer, of those who have the line."""
    _resolved: bool = False
    _done: set[str] = field(default_factory=set)
    _due_at: float = 0.0

    # --- what happens ---

    def take(self, usage: Usage, now: float) -> tuple[Cost, ...]:
        self._due_at = 0.0
        if usage.kind == "leg" and self.began is None:
            self.began = now if usage.unit == "calls" else now - usage.quantity
        before = self.meter.spent
        costs = self.meter.take(usage, now)
        if usage.kind != "leg" and self.meter.spent != before:
            if now - self._burst_at > LOOK_S:
                self._burst, self._burst_at = ZERO, now
            self._burst += self.meter.spent - before
            self._dearest[self.backends] = max(self._dearest.get(self.backends, ZERO), self._burst)
        return costs

    def open(self, provider: str, product: str, unit: UsageUnit, now: float) -> None:
        """A leg's time runs, or its media stream's. Idempotent, for one leg of a product."""
        if self.meter.open_since(provider, product, unit) is None:
            self._due_at = 0.0
            self.began = now if self.began is None else self.began
            self.meter.open(provider, product, unit, now)

    def corrected(self, usd: Decimal) -> None:
        """Its carrier says that it cost so much more, or less, once it is closed."""
        for lease in self.leases.values():
            lease.settle(self.call, usd)

    def attended(self, backends: Sequence[str], now: float, goodbye_usd: Decimal | None = None) -> None:
        """Another agent has the line, whose last words cost so much, where that is known."""
        if tuple(backends) == tuple(self.backends):
            return
        self.backends, self.attended_since, self._burst = tuple(backends), now, ZERO
        self._done.discard("backend")
        if goodbye_usd is not None:
            self.goodbye_usd = goodbye_usd

    def used_tools(self, tools: Sequence[str]) -> None:
        self._due_at = 0.0
        self._resolved = self._resolved or bool(self.terms.cheaper_after_tools.intersection(tools))

    # --- what it comes to ---

    def assumed(self, now: float) -> Decimal:
        """For what has no price."""
        rate = self.terms.assumed_usd_minute
        if rate is None or not self.meter.missing:
            return ZERO
        since: dict[tuple[str, str, str], float] = {}
        for row, at in self.meter.missing.items():
            thing = (row.provider, row.kind, row.product)
            since[thing] = min(at, since.get(thing, at))
        return rate * sum((exact(round(max(MINUTE_S, now - at), 3)) for at in since.values()), ZERO) / 60

    def cost(self, now: float, heard: Sequence[Usage] = ()) -> Decimal:
        return self.meter.so_far(now, heard) + self.assumed(now)

    def so_far(self, now: float, heard: Sequence[Usage] = ()) -> SoFar:
        """With what was before."""
        return SoFar(self.before.usd + self.cost(now, heard), self.before.seconds + self._lasted_s(now))

    def _lasted_s(self, now: float) -> float:
        return 0.0 if self.began is None else max(0.0, now - self.began)

    def committed(self, now: float, heard: Sequence[Usage] = (), look_s: float = LOOK_S) -> Decimal:
        """If it began to end at the next look, in so many seconds."""
        at = now + look_s + GOODBYE_S
        return (
            self.meter.so_far(at, heard) + self.assumed(at) + self.goodbye_usd + self._dearest.get(self.backends, ZERO)
        )

    def sets_aside(self, usd: Decimal, now: float, heard: Sequence[Usage] = ()) -> str:
        """For a further leg's first minute, and to end the call after that. Whose budget that is too much for; empty:
        nobody's. Of days it is held until the next look."""
        if self.exempt:
            return ""
        over = self._over(self.committed(now, heard, RING_S) + usd)
        self._due_at = 0.0
        return "" if over is None else over.budget

    def forecast(self, now: float, end: float, heard: Sequence[Usage] = ()) -> Decimal:
        """What it will have cost here when it ends at `end`; never over its budget, where it has one."""
        variable = self._variable(heard)
        total = self.meter.so_far(end, heard) + self.assumed(end) + self._pace.ahead(now, variable, end)
        budget = self.terms.call_usd
        return total if budget is None else min(total, max(budget - self.before.usd, self.cost(now, heard)))

    def _variable(self, heard: Sequence[Usage]) -> Decimal:
        return self.meter.spent - self.meter.spent_on_legs + self.meter.untold(heard)

    def _budget(self) -> Decimal | None:
        """The least it may cost here in all, as far as this process knows; None: as much as it likes."""
        if self.exempt:
            return None
        own = None if self.terms.call_usd is None else self.terms.call_usd - self.before.usd
        of_days = (lease.limit - lease.used + lease.holds.get(self.call, ZERO) for lease in self.leases.values())
        return min((b for b in (own, *of_days) if b is not None), default=None)

    def pays_s(self, now: float, legs: Sequence[tuple[Need, UsageUnit]], heard: Sequence[Usage] = ()) -> float:
        """For how many whole seconds, one at least, its budgets pay for the open legs and further ones (or only their
        streams) that begin now, rounded as they are billed, and for nothing else: the limit that is set outside
        Python."""
        budget = self._budget()

        def fits(seconds: int) -> bool:
            more = (self.meter.prices.of(*need, unit) for need, unit in legs)
            leg_usd = sum((row.cost(Decimal(seconds)) for rows in more for row in rows), ZERO)
            return self.cost(now + seconds, heard) + leg_usd <= (budget or ZERO)

        if budget is None or fits(LONGEST_S):
            return float("inf")
        return float(max(1, bisect_left(range(LONGEST_S), True, key=lambda seconds: not fits(seconds)) - 1))

    def lasts_s(self, now: float, heard: Sequence[Usage] = ()) -> float:
        """How long its budget pays for the open legs, and for nothing else: whoever is stuck asks no provider."""
        budget, cost = self._budget(), self.cost(now, heard)
        hour = self.meter.reserved(now + 3600) - self.meter.reserved(now)
        if budget is None or hour <= 0:
            return float("inf")
        return float(max(ZERO, budget - cost) / hour * 3600)

    # --- what is to be done ---

    def due(self, now: float) -> bool:
        """Whether it is worth a look: cheap."""
        return now >= self._due_at

    def look(self, now: float, heard: Sequence[Usage] = ()) -> Step | None:
        """Each step is told once; End every time, until the call is over."""
        if heard:
            self.meter.notice(heard, now)
        if self._pace.wants(now):
            self._pace.note(now, self._variable(heard))
        at_most = self.committed(now, heard, QUIET_S)
        over = self._over(at_most)
        self._due_at = now + QUIET_S
        if over is not None:
            self._due_at = now + LOOK_S
            if (over := self._over(self.committed(now, heard))) is not None:
                return over
        return self._softer(now, heard, at_most)

    def not_yet(self) -> None:
        """The cheaper route could not be taken: it is told again."""
        self._done.discard("cheaper")

    def _over(self, committed: Decimal) -> End | None:
        """What that would be too much for."""
        if self.terms.call_usd is not None and self.before.usd + committed > self.terms.call_usd:
            return End("call")
        for scope, lease in self.leases.items():
            if not lease.hold(self.call, committed):
                return End(scope)
        return None

    def _softer(self, now: float, heard: Sequence[Usage], at_most: Decimal) -> Step | None:
        terms, at_most = self.terms, self.before.usd + at_most
        if self.began is None:
            return None
        if terms.call_usd is not None and "wrap_up" not in self._done:
            soft = terms.call_usd * terms.wrap_up_share
            if at_most > soft and self.so_far(now, heard).usd > soft:
                self._done.add("wrap_up")
                return WrapUp()
        if (why := self._cheaper(now, heard, at_most)) is not None:
            self._done.add("cheaper" if why != "backend" else "backend")
            return CheaperRoute(why)
        return None

    def _cheaper(self, now: float, heard: Sequence[Usage], at_most: Decimal) -> Cheaper | None:
        terms = self.terms
        attended_s = now - self.attended_since
        if "backend" not in self._done and any(attended_s >= terms.backend_s.get(b, 1e9) for b in self.backends):
            return "backend"
        if "cheaper" in self._done:
            return None
        if self._resolved:
            return "resolved"
        lasted_s = self.before.seconds + self._lasted_s(now)
        if terms.cheaper_after_s is not None and lasted_s >= terms.cheaper_after_s:
            return "minutes"
        usd = terms.cheaper_after_usd
        if usd is not None and at_most >= usd and self.so_far(now, heard).usd >= usd:
            return "usd"
        return None

    def close(self, now: float) -> Decimal:
        """It is over. What it cost."""
        total = self.cost(now)
        for lease in self.leases.values():
            lease.settle(self.call, total)
        return total

    # --- for people ---

    def told(self, now: float, heard: Sequence[Usage] = (), end: float | None = None) -> dict[str, Any]:
        """As JSON: USD as text. `complete`: everything that was used has a price."""
        meter = self.meter
        found: dict[str, Any] = {
            "usd": text(self.cost(now, heard)),
            "complete": not meter.missing,
            "missing": [str(m) for m in meter.missing],
            "prices": meter.prices.version,
        }
        if self.before.usd > 0:
            found["before_usd"] = text(self.before.usd)
        if (assumed := self.assumed(now)) > 0:
            found["assumed_usd"] = text(assumed)
        for what in ("product", "provider", "kind"):
            found[f"by_{what}"] = {name: text(usd) for name, usd in by(meter.lines.values(), what).items()}
        legs = [line for line in meter.lines.values() if line.kind == "leg"]
        found["by_leg"] = {name: text(usd) for name, usd in by(legs, "leg").items()}
        if end is not None:
            found["reserved_usd"] = text(meter.reserved(now, heard))
            found["forecast_usd"] = text(self.forecast(now, end, heard))
        if self.terms.call_usd is not None:
            found["budget_usd"] = text(self.terms.call_usd)
        return found
