"""The edge of money: prices that are read again when their file changes, budgets whose slices are fetched from the
store, and an account for every call. A process has one.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import get_args

from trunkline.clock import Clock
from trunkline.compliance.money.account import GOODBYE_CHARACTERS, GOODBYE_S, NOTHING, Account, Need, SoFar, Terms
from trunkline.compliance.money.leases import Leases, Purse
from trunkline.compliance.money.meter import ZERO, Meter, text
from trunkline.compliance.money.prices import FILE, Missing, Prices, load
from trunkline.errors import ConfigError, StoreError
from trunkline.ports import Budgets, Refuse, UsageUnit
from trunkline.types import DEFAULT_TENANT, TenantId

log = logging.getLogger(__name__)

TURN_S = 0.25
REREAD_S = 5.0
TAKE_S = 3.0
"""Then the store counts as away: a database that hangs would take far longer to say so."""
GIVE_BACK_S = 3.0


@dataclass(frozen=True, slots=True)
class Policy:
    terms: Terms = field(default_factory=Terms)
    number_day_usd: Decimal | None = None
    agent_day_usd: Decimal | None = None
    tenant_day_usd: Decimal | None = None
    refuse_unknown: bool = False
    price_max_age_days: int = 90
    prices: Path | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A call that would begin."""

    call: str
    agent: str
    number: str | None
    needs: Sequence[Need]
    before: SoFar = NOTHING
    """Of one that goes on."""
    tenant: TenantId = DEFAULT_TENANT


class Treasury:
    def __init__(self, policy: Policy, budgets: Budgets | None, clock: Clock) -> None:
        """Raises ConfigError for a price table that is wrong. `budgets` None: no day has one."""
        self.policy, self._budgets, self._clock = policy, budgets, clock
        self.prices = load(policy.prices)
        self._seen = self._mark()
        self.problem = ""
        """Of the table: why the last good one is still in force."""
        old = self.prices.old(clock.wall().date(), policy.price_max_age_days)
        self._old = frozenset(row.row for row in old)
        self.leases = Leases()
        self._away = False
        self._told_old: set[int] = set()
        self._task: asyncio.Task[None] | None = None
        self._warn_of_age()

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep(), name="treasury")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            try:
                await self._task
            except asyncio.CancelledError:
                pass
        try:
            async with asyncio.timeout(GIVE_BACK_S):
                await self._give_back(everything=True)
        except TimeoutError:
            log.warning("budgets: what was not spent could not be given back in time")

    async def _keep(self) -> None:
        reread_at = self._clock.now() + REREAD_S
        while True:
            await asyncio.sleep(TURN_S)
            try:
                await self.turn()
                if self._clock.now() >= reread_at:
                    reread_at = self._clock.now() + REREAD_S
                    await asyncio.to_thread(self.reread)
            except Exception:
                log.exception("treasury")

    # --- calls ---

    def missing(self, needs: Sequence[Need], prices: Prices | None = None) -> list[Missing]:
        return [row for need in needs for row in (prices or self.prices).missing(*need)]

    def unknown(self, needs: Sequence[Need], prices: Prices | None = None) -> Refuse | None:
        """Where what has no price may not be used. Code: `unknown_price`."""
        if not self.policy.refuse_unknown or not (missing := self.missing(needs, prices)):
            return None
        return Refuse("unknown_price", f"{missing[0]}: add the row to {FILE}")

    def open(self, wanted: Wanted) -> Account | Refuse:
        """Codes: `unknown_price`, `budget`, `budget_unknown`. `close` once, when the call is over, on its account."""
        policy = self.policy
        if (unknown := self.unknown(wanted.needs)) is not None:
            return unknown
        self._warn_of_used(wanted.needs)
        account = self.account(wanted)
        first = account.committed(0.0) + self.minute_usd(wanted.needs) + self._assumed(wanted.needs)
        if policy.terms.call_usd is not None and (before := wanted.before.usd) + first > policy.terms.call_usd:
            spent = f"what the call has cost ({text(before)} USD), " if before else ""
            return Refuse("budget", f"money.call_usd is less than {spent}a minute and a goodbye: {text(first)} USD")
        for scope, lease in account.leases.items():
            if self._away and not lease.pays(first):
                refused = Refuse("budget_unknown", f"the {scope}'s budget of the day cannot be read")
            elif lease.admits(first) and lease.hold(wanted.call, first):
                continue
            elif lease.spent_out:
                refused = Refuse("budget", f"the {scope}'s budget of the day is spent")
            else:
                refused = Refuse("budget_unknown", f"what is left of the {scope}'s budget of the day was not told yet")
            for held in account.leases.values():
                held.settle(wanted.call, ZERO)
            return refused
        return account

    def account(self, wanted: Wanted) -> Account:
        """Nothing is held for it yet."""
        policy, day = self.policy, self._clock.wall().date().isoformat()
        limits = (
            ("tenant", wanted.tenant, policy.tenant_day_usd),
            ("agent", wanted.agent, policy.agent_day_usd),
            ("number", wanted.number, policy.number_day_usd),
        )
        leases = {
            scope: self.leases.of(Purse(scope, key, day, wanted.tenant), limit)  # type: ignore[arg-type]
            for scope, key, limit in limits
            if limit is not None and key is not None and self._budgets is not None
        }
        goodbye_usd = self.goodbye_usd(wanted.needs)
        return Account(Meter(self.prices), policy.terms, goodbye_usd, wanted.call, leases, wanted.before)

    def goodbye_usd(self, needs: Sequence[Need]) -> Decimal:
        """The last words by the dearest voice: GOODBYE_CHARACTERS, or as a realtime model counts eight seconds."""
        quantities = {
            "tts": (("characters", GOODBYE_CHARACTERS), ("seconds", int(GOODBYE_S))),
            "realtime": (("audio_tokens_out", 160), ("tokens_out", 40), ("tokens_in", 1500)),
        }
        return max((self._priced(need, quantities.get(need[1], ())) for need in needs), default=ZERO)

    def minute_usd(self, needs: Sequence[Need]) -> Decimal:
        """The first minute of the legs."""
        return sum(
            (self._priced(need, (("seconds", 9), ("stream_seconds", 9))) for need in needs if need[1] == "leg"), ZERO
        )

    def further_usd(self, leg: Need) -> Decimal:
        """The first minute of a leg that is dialled beside the caller's."""
        return self.minute_usd([leg]) + self._assumed([leg])

    def _assumed(self, needs: Sequence[Need]) -> Decimal:
        """The first minute of what has no price."""
        rate = self.policy.terms.assumed_usd_minute
        return ZERO if rate is None else rate * len({need for need in needs if self.prices.missing(*need)})

    def _priced(self, need: Need, quantities: Sequence[tuple[str, int]]) -> Decimal:
        rows = ((n, row) for unit, n in quantities for row in self.prices.of(*need, unit))  # type: ignore[arg-type]
        return sum((row.cost(Decimal(n)) for n, row in rows), ZERO)

    # --- budgets ---

    async def turn(self) -> None:
        """Fetch what calls will need, give back what nobody uses any more."""
        if self._budgets is None:
            return
        for purse, share in self.leases.wanted(self._clock.now()):
            try:
                async with asyncio.timeout(TAKE_S):
                    given = await self._budgets.take(purse.tenant, _name(purse), share)
            except (StoreError, TimeoutError) as error:
                if not self._away:
                    why = str(error) or "budgets: the store does not answer"
                    log.warning("%s; calls go on, and new ones need a budget that is known", why)
                self._away = True
                return
            self.leases.granted(purse, share, given, self._clock.now())
        if self._away:
            log.warning("budgets can be read again")
            self._away = False
        await self._give_back()

    async def _give_back(self, *, everything: bool = False) -> None:
        if self._budgets is None:
            return
        for purse, left in self.leases.over(self._clock.wall().date().isoformat(), everything=everything):
            try:
                async with asyncio.timeout(GIVE_BACK_S):
                    await self._budgets.give_back(purse.tenant, _name(purse), left)
            except (StoreError, TimeoutError) as error:
                why = str(error) or "budgets: the store does not answer"
                log.warning("%s; %s keeps what was not spent", why, _name(purse).partition(":")[0])

    # --- prices ---

    def reread(self) -> None:
        """Where the file has changed. A wrong one leaves the last good one in force."""
        mark = self._mark()
        if mark == self._seen:
            return
        self._seen = mark
        try:
            self.prices, self.problem = load(self.policy.prices), ""
        except ConfigError as error:
            self.problem = str(error)
            log.error("prices: %s; the last good table stays in force", error)
            return
        log.warning("prices: version %s", self.prices.version)
        self._warn_of_age()

    def _warn_of_used(self, needs: Sequence[Need]) -> None:
        """Each row once. Of our table, that is: nobody minds the age of rows that they do not use."""
        if self.policy.prices is not None or not self._old:
            return
        units = get_args(UsageUnit)
        used = {row.row: row for need in needs for unit in units for row in self.prices.of(*need, unit)}
        for number in used.keys() & self._old - self._told_old:
            self._told_old.add(number)
            row, days = used[number], self.policy.price_max_age_days
            shown = (row.provider, row.product, row.unit, row.date.isoformat(), days)
            log.warning("prices: %s %s per %s is of %s, more than %d days ago: money.prices is for yours", *shown)

    def _warn_of_age(self) -> None:
        """Of a table that somebody has made their own."""
        if self.policy.prices is None:
            return
        old = self.prices.old(self._clock.wall().date(), self.policy.price_max_age_days)
        if old:
            row = min(old, key=lambda row: row.date)
            log.warning(
                "prices: %d rows are older than %d days; the oldest is row %d (%s, %s, of %s)",
                len(old),
                self.policy.price_max_age_days,
                row.row,
                row.provider,
                row.product,
                row.date.isoformat(),
            )

    def _mark(self) -> tuple[int, int] | None:
        if self.policy.prices is None:
            return None
        try:
            found = (self.policy.prices / FILE).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size


def _name(purse: Purse) -> str:
    return f"{purse.scope}:{purse.key}:{purse.day}"
