"""What calls cost while they go on: each has an account, all are looked at once a second, and what the account says is
done by the call. Without a treasury nothing is counted (devices offline, tests).
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from trunkline.agents.attending import Agent
from trunkline.agents.invoiced import product_of
from trunkline.agents.providers import KINDS
from trunkline.compliance.money.account import LOOK_S, Account, CheaperRoute, End, Need, SoFar, Step, WrapUp
from trunkline.compliance.money.meter import exact, text
from trunkline.compliance.money.prices import STREAMED, leg_units
from trunkline.compliance.money.treasury import Treasury, Wanted
from trunkline.gateway.endings import leg_product
from trunkline.ports import HERE, Allow, Cost, Decision, Refuse, Usage, UsageUnit
from trunkline.types import ruled_as

if TYPE_CHECKING:
    from trunkline.gateway.linecall import LineCall
    from trunkline.metrics import Metrics

log = logging.getLogger(__name__)

WRAP_UP = (
    "(This note is from the telephone system, not from the caller. The call must come to an end within a minute or two:"
    " settle what is most important, in short sentences, start nothing new, and say goodbye.)"
)
OWN_NETWORK = {"webrtc", "websocket"}
UNCOUNTED = 1024
"""Calls whose carrier's word is waited for: it comes within seconds, or when those who were put through are done."""


def needs_of(agent: Agent) -> list[Need]:
    """What an agent's providers are billed for. Those on this machine are not."""
    found: list[Need] = []
    for provider in agent.providers:
        if product_of(provider) == HERE:
            continue
        if hasattr(provider, "transcribes"):
            found.append((provider.name, "realtime", product_of(provider)))
            if transcriber := getattr(provider, "transcriber", ""):
                found.append((provider.name, "stt", transcriber))
            continue
        kinds = [kind for kind in KINDS if any(provider is each for each in agent.minds.everything(kind).values())]
        if not kinds and provider is not agent.minds.detector:
            kinds = ["llm"]  # who sums up
        found += [(provider.name, kind, product_of(provider)) for kind in kinds]
    return found


@dataclass(frozen=True, slots=True)
class Ways:
    """What is done at the limits: names of the agent's file; empty: none."""

    cheaper_agent: str = ""
    target: str = ""


class Spending:
    """Of one process."""

    def __init__(self, treasury: Treasury, ways: Ways, metrics: "Metrics", clock_now: Callable[[], float]) -> None:
        self.treasury, self.ways, self._metrics, self._now = treasury, ways, metrics, clock_now
        self._calls: dict[str, tuple[LineCall, Account]] = {}
        self._told: set[str] = set()
        """Missing rows that are in the log."""
        self._uncounted: OrderedDict[str, tuple[Account, Usage]] = OrderedDict()
        """Calls that are over, and what was metered for the time that their carrier has yet to tell."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._look_at_all(), name="spending")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    # --- a call's life ---

    def open(self, call: "LineCall", agent: Agent) -> Account | Refuse:
        """Before it is let in."""
        return self._begin(call, needs_of(agent))

    def sends_to(self, call: "LineCall", number: str) -> float | Refuse:
        """In place of `open`, of a caller whom Twilio puts through to this number: how many seconds the budgets pay
        for. The call ends here then, and its legs' time is what Twilio tells (`carrier_told_late`,
        `sent_on_told`)."""
        dialled: Need = (call.started.leg, "leg", leg_product("transfer", number))
        account = self._begin(call, [dialled])
        if isinstance(account, Refuse):
            return account
        used = Usage(call.id, dialled[0], "leg", "seconds", 0.0, dialled[2])
        self._await(_sent_on(call.id), account, used)
        return self.pays_s(call, dialled)

    def _begin(self, call: "LineCall", needs: Sequence[Need]) -> Account | Refuse:
        started = call.started
        ours = started.to_number if started.direction == "inbound" else started.from_number
        leg: Need = (started.leg, "leg", self.leg(call))
        needs = [leg, *needs]
        named = ruled_as(started.agent)
        account = self.treasury.open(Wanted(started.call_id, named, ours, needs, call.so_far, started.tenant))
        if isinstance(account, Account):
            self._calls[call.id] = (call, account)
            if started.leg in STREAMED and started.direction == "inbound":  # answered by our very answer
                self.line_began(call)
        return account

    def may_attend(self, call: "LineCall", agent: Agent) -> Decision:
        """Whether it may go on with this agent, by the prices it began with."""
        return self._may_use(call, needs_of(agent))

    def may_replace(self, call: "LineCall", leg: str, product: str) -> Decision:
        """The same of a leg in place of its own."""
        return self._may_use(call, [(leg, "leg", product)])

    def may_add(self, call: "LineCall", leg: str, product: str) -> Decision:
        """Of a leg beside its own: whether its first minute and a goodbye fit in, too. Code: `budget`."""
        decision, found = self.may_replace(call, leg, product), self._calls.get(call.id)
        if isinstance(decision, Refuse) or found is None:
            return decision
        usd = self.treasury.further_usd((leg, "leg", product))
        if not (whose := found[1].sets_aside(usd, self._now(), _heard(call))):
            return decision
        why = f"what is left of the {whose}'s budget is less than a minute of {leg},{product} and a goodbye"
        return self._refused(call, found[1], Refuse("budget", why))

    def _may_use(self, call: "LineCall", needs: Sequence[Need]) -> Decision:
        found = self._calls.get(call.id)
        if found is None or (refused := self.treasury.unknown(needs, found[1].meter.prices)) is None:
            return Allow()
        return self._refused(call, found[1], refused)

    def _refused(self, call: "LineCall", account: Account, refused: Refuse) -> Refuse:
        """In the record once."""
        if refused.why not in account.refused:
            account.refused.add(refused.why)
            call.event("refused", door="price", target=None, code=refused.code, why=refused.why)
        return refused

    def succeeded(self, call: "LineCall", product: str, seconds: float) -> None:
        """Another leg has the place of its own, which was there for so long."""
        call.usage(self.leg_used(call, seconds))
        call.billed_as = product
        self._open(call, "seconds")

    def leg(self, call: "LineCall") -> str:
        """What its leg is billed as."""
        started = call.started
        if call.billed_as:
            return call.billed_as
        if started.leg in OWN_NETWORK:
            return HERE
        return leg_product(started.direction, started.to_number, call.arrival.trunk)

    def line_began(self, call: "LineCall") -> None:
        """Its carrier counts from now on, whether there is audio or not. Idempotent."""
        self._open(call, "seconds")

    def answered(self, call: "LineCall") -> None:
        """Its audio is here from now on. Idempotent until `leg_used` is metered."""
        for unit in leg_units(call.started.leg):
            self._open(call, unit)

    def _open(self, call: "LineCall", unit: UsageUnit) -> None:
        if (found := self._calls.get(call.id)) is not None:
            found[1].open(call.started.leg, self.leg(call), unit, self._now())

    def leg_used(self, call: "LineCall", seconds: float) -> Usage:
        """Its audio was here for so long: the leg's time, or its stream's where the carrier counts on."""
        unit = leg_units(call.started.leg)[-1]
        return Usage(call.id, call.started.leg, "leg", unit, seconds, self.leg(call))

    def carrier_told(self, call: "LineCall", seconds: float) -> None:
        """How long its carrier's invoice says that it lasted."""
        if (found := self._calls.get(call.id)) is not None:
            found[1].carrier_s = seconds

    def line_over(self, call: "LineCall") -> None:
        """The last that is metered of it: all its time at the carrier, where that was not told with its audio."""
        found, leg, product = self._calls.get(call.id), call.started.leg, self.leg(call)
        if found is None or (since := found[1].meter.open_since(leg, product, "seconds")) is None:
            return
        account = found[1]
        counted = account.carrier_s if account.carrier_s is not None and not account.before.seconds else None
        seconds = round(self._now() - since, 3) if counted is None else counted
        used = Usage(call.id, leg, "leg", "seconds", seconds, product)
        call.usage(used)
        if counted is None and not account.before.seconds:
            self._await(call.id, account, used)

    def _await(self, name: str, account: Account, used: Usage) -> None:
        self._uncounted[name] = (account, used)
        while len(self._uncounted) > UNCOUNTED:
            self._uncounted.popitem(last=False)

    def sent_on_told(self, call_id: str, seconds: float) -> tuple[Usage, tuple[Cost, ...]] | None:
        """How long they talked to whom they were put through to, as `carrier_told_late`."""
        return self.carrier_told_late(_sent_on(call_id), seconds)

    def carrier_told_late(self, call_id: str, seconds: float) -> tuple[Usage, tuple[Cost, ...]] | None:
        """The same, of a call that is over: what is to be added to its record. None: it comes to the same."""
        account, used = self._uncounted.pop(call_id, (None, None))
        if account is None or used is None:
            return None
        rows = account.meter.prices.of(used.provider, used.kind, used.product, used.unit)
        ours, theirs = exact(used.quantity), exact(seconds)
        more = [(row, row.billed(theirs) - row.billed(ours), row.cost(theirs) - row.cost(ours)) for row in rows]
        costs = tuple(Cost(row.item, text(n), text(usd), row.date.isoformat()) for row, n, usd in more if usd)
        if not costs:
            return None
        account.corrected(sum((usd for _, _, usd in more), Decimal(0)))
        for row, _, usd in more:
            if usd > 0:
                self._metrics.cost(row.provider, row.kind, used.product, text(usd))
        return replace(used, quantity=float(theirs - ours)), costs

    def dialled(self, call: "LineCall", seconds: float, number: str | None) -> None:
        """By the carrier, while our stream was away: the caller's leg went on, and there was another."""
        call.usage(Usage(call.id, call.started.leg, "leg", "seconds", seconds, leg_product("transfer", number)))

    def attended(self, call: "LineCall", agent: Agent) -> None:
        if (found := self._calls.get(call.id)) is not None:
            goodbye_usd = self.treasury.goodbye_usd(needs_of(agent))
            found[1].attended([provider.name for provider in agent.providers], self._now(), goodbye_usd)

    def used(self, call: "LineCall", usage: Usage) -> tuple[Cost, ...]:
        found = self._calls.get(call.id)
        if found is None:
            return ()
        before = len(found[1].meter.missing)
        costs = found[1].take(usage, self._now())
        for cost in costs:
            self._metrics.cost(usage.provider, usage.kind, usage.product, cost.usd)
        self._tell_missing(call, found[1], before)
        return costs

    def _tell_missing(self, call: "LineCall", account: Account, known: int) -> None:
        for row in list(account.meter.missing)[known:]:
            if str(row) not in self._told:  # once: a trunk without a row has thousands of calls
                self._told.add(str(row))
                log.warning("%s (call %s is the first of this process)", row, call.id)
            call.event("unknown_price", missing=str(row))

    def turn_over(self, call: "LineCall", tools: Sequence[str]) -> None:
        if (found := self._calls.get(call.id)) is not None:
            found[1].used_tools(tools)

    def lasts_s(self, call: "LineCall") -> float:
        """Until its legs alone have used up its budget."""
        found = self._calls.get(call.id)
        return float("inf") if found is None else found[1].lasts_s(self._now(), _heard(call))

    def so_far(self, call: "LineCall") -> SoFar | None:
        """None: it has no account, or none any more."""
        found = self._calls.get(call.id)
        return None if found is None else found[1].so_far(self._now(), _heard(call))

    def pays_s(self, call: "LineCall", further: Need | None = None) -> float:
        """How long budgets pay for its legs from now on, rounded as they are billed. `further`: a leg that is dialled
        beside them."""
        found = self._calls.get(call.id)
        if found is None:
            return float("inf")
        account, own = found[1], (call.started.leg, self.leg(call))
        legs: list[tuple[Need, UsageUnit]] = [
            ((own[0], "leg", own[1]), unit)
            for unit in leg_units(own[0])
            if account.meter.open_since(*own, unit) is None
        ]
        if further is not None:
            legs += [(further, unit) for unit in leg_units(further[0])]
        return account.pays_s(self._now(), legs, _heard(call))

    def told(self, call: "LineCall") -> dict[str, Any] | None:
        found = self._calls.get(call.id)
        if found is None:
            return None
        return found[1].told(self._now(), _heard(call), self._now() + max(0.0, call.ends_in_s()))

    def ended(self, call: "LineCall") -> dict[str, Any] | None:
        """Once. What it cost, for the record."""
        found = self._calls.pop(call.id, None)
        if found is None:
            return None
        now = self._now()
        told = found[1].told(now)
        found[1].close(now)
        return told if found[1].meter.lines or found[1].meter.missing else None

    # --- limits ---

    async def _look_at_all(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()

    def look(self) -> None:
        now = self._now()
        for call, account in tuple(self._calls.values()):
            if not account.due(now):
                continue
            known = len(account.meter.missing)
            try:
                step = account.look(now, _heard(call))
                self._tell_missing(call, account, known)
                if step is not None:
                    self._do(call, account, step, now)
            except Exception as error:
                call.crashed(error)

    def _do(self, call: "LineCall", account: Account, step: Step, now: float) -> None:
        match step:
            case WrapUp():
                call.event("wrap_up", usd=_cents(account.cost(now)))
                call.instruct(WRAP_UP)
            case CheaperRoute(why):
                if call.cheaper(self.ways.cheaper_agent, why):
                    return
                if why == "backend":
                    call.out_of_budget("backend", "")
                elif self.ways.cheaper_agent:
                    account.not_yet()
            case End(budget):
                account.exempt = account.exempt or (bool(self.ways.target) and not call.is_away)
                call.out_of_budget(budget, self.ways.target)


def _sent_on(call_id: str) -> str:
    return f"{call_id}/sent on"


def _heard(call: "LineCall") -> Sequence[Usage]:
    attendant = call.attended.attendant
    return () if attendant is None else attendant.unmetered()


def _cents(usd: Decimal) -> str:
    return str(usd.quantize(Decimal("0.0001")))
