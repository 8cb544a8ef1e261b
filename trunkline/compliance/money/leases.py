"""What several processes may spend together: each has a slice of a budget for itself, and asks for another before it is
used up. So a check costs no round trip. Plain: what must be asked of the store is told by `wanted`.

A call *holds* what it has cost and what it takes to end it; what is held fits into the slices, or the call is told that
there is no more and ends by what it holds already. While the store is away nothing is refused to calls that are there:
they have budgets of their own. New ones come in on a slice that was not granted yet, at most. A process that dies takes
its unused slice with it until the day is over.
"""

from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from typing import Literal, NamedTuple

from trunkline.ports import Share
from trunkline.types import DEFAULT_TENANT, TenantId

_NOTHING = Decimal(0)
NANO = Decimal(1_000_000_000)
"""Of a USD: what stores count in."""
SLICES = 50
"""Of a budget: so many parts, of LEAST_USD or more, but never over a quarter of it."""
LEAST_USD = Decimal("0.25")
ASK_AGAIN_S = 30.0
"""The store, when it had no more: others give back what they did not spend."""


class Purse(NamedTuple):
    """Whose budget: `tenant`, `agent` or `number`, its name, and the day in UTC."""

    scope: Literal["tenant", "agent", "number"]
    key: str
    day: str
    tenant: TenantId = DEFAULT_TENANT


@dataclass(slots=True)
class Lease:
    limit: Decimal
    granted: Decimal = Decimal(0)
    used: Decimal = Decimal(0)
    """By calls that are over, and held by others."""
    spent_out: bool = False
    """The store had no more to give, when it was asked last."""
    ask_again_at: float = 0.0
    """Then, at the earliest."""
    known: bool = False
    """The store has answered."""
    holds: dict[str, Decimal] = field(default_factory=dict)

    @property
    def slice(self) -> Decimal:
        return min(max(LEAST_USD, self.limit / SLICES), self.limit / 4)

    @property
    def short(self) -> Decimal:
        """How much to ask for, so that half a slice is there."""
        lacking = self.used + self.slice / 2 - self.granted
        return lacking + self.slice / 2 if lacking > 0 else Decimal(0)

    def pays(self, amount: Decimal) -> bool:
        """Out of what was granted, so that the store need not be asked."""
        return self.known and self.used + amount <= self.granted

    def admits(self, amount: Decimal) -> bool:
        """A new call. The first always comes in where the store has not said no: a slice may be less than it holds."""
        if self.spent_out:
            return self.used + amount <= self.granted
        return self.used == 0 or self.used + amount <= self.granted + self.slice

    def hold(self, call: str, amount: Decimal) -> bool:
        """The call's hold is `amount` in all. False: there is no more, and it stays as it was."""
        more = amount - self.holds.get(call, _NOTHING)
        if more > 0 and self.spent_out and self.used + more > self.granted:
            return False
        self.used += more
        self.holds[call] = amount
        return True

    def settle(self, call: str, amount: Decimal) -> None:
        """It is over, and cost so much."""
        self.used += amount - self.holds.pop(call, Decimal(0))


class Leases:
    """Of one process."""

    def __init__(self) -> None:
        self._leases: dict[Purse, Lease] = {}

    def of(self, purse: Purse, limit: Decimal) -> Lease:
        lease = self._leases.get(purse)
        if lease is None:
            lease = self._leases[purse] = Lease(limit)
        return lease

    def wanted(self, now: float) -> list[tuple[Purse, Share]]:
        """What to ask the store for: nano-USD, and the limit they count against."""
        return [
            (purse, Share(nano(lease.short), nano(lease.limit), nano(lease.granted)))
            for purse, lease in self._leases.items()
            if lease.short > 0 and (not lease.spent_out or now >= lease.ask_again_at)
        ]

    def granted(self, purse: Purse, share: Share, given: int, now: float) -> None:
        lease = self._leases.get(purse)
        if lease is None:
            return
        lease.known = True
        lease.granted += Decimal(given) / NANO
        lease.spent_out = given < share.nano_usd
        lease.ask_again_at = now + ASK_AGAIN_S

    def over(self, today: str, *, everything: bool = False) -> list[tuple[Purse, int]]:
        """Leases that no call uses any more, of other days or all: gone from here, and what is left of each is to be
        given back (negative: it cost more than was granted)."""
        done = [p for p, lease in self._leases.items() if not lease.holds and (everything or p.day != today)]
        gone = [(purse, self._leases.pop(purse)) for purse in done]
        return [(purse, nano(lease.granted - lease.used)) for purse, lease in gone]


def nano(usd: Decimal) -> int:
    return int((usd * NANO).to_integral_value(ROUND_CEILING))
