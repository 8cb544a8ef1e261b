"""Who answers a number. Plain: what is known of the number and of the call in, who answers and why out.

In this order, the first that says who it is:

    the tenant's outage switch ─► a number out of service ─► the tenant's countries ─► the route's rules, one by one
      ─► the route's hours (`closed`) ─► the route's answer, with the number's own agents in place of the route's

A number without a route of its own has the one whose pattern fits it best; without any, the gateway's own agent has it.
Of several agents, shares are drawn by the call's name, so a call that comes back has the same; an agent without a
published version has no share. The others stand after the drawn one, in their order, for when its version is not ready.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import blake2b
from typing import Any

from trunkline.numbers import hours as opening
from trunkline.numbers.patterns import Match, matches
from trunkline.numbers.resources import (
    Answer,
    ByAgents,
    ByBusy,
    ByMessage,
    ByNumber,
    Hours,
    Number,
    Queue,
    Route,
    Share,
    Tenant,
    Verdict,
)
from trunkline.ports import CallerVerdict
from trunkline.types import TenantId

_NO_TERMS = Tenant()


@dataclass(frozen=True, slots=True)
class View:
    """What is known of a number that is called."""

    tenant: TenantId
    number: Number | None = None
    """None: it is in no inventory."""
    route: Route | None = None
    match: Match | None = None
    """By which pattern it has that route."""
    hours: Mapping[str, Hours] = field(default_factory=dict)
    """Those that the route names."""
    published: Mapping[str, int | None] = field(default_factory=dict)
    """By agent, of those that number and route name."""
    terms: Tenant = _NO_TERMS


@dataclass(frozen=True, slots=True)
class Caller:
    """A call that comes."""

    number: str | None
    """None: withheld."""
    at: datetime
    """Aware."""
    draw: float = 0.0
    """In [0, 1): `draw_of`."""
    verdict: Verdict = "unknown"
    country_of: Callable[[str], str | None] = lambda number: None
    """Two letters, of a number in E.164; None: of none, or of several."""


@dataclass(frozen=True, slots=True)
class AgentVersion:
    agent: str
    version: int
    pinned: bool = field(default=False, compare=False)
    """The share names it. Else it is the one that is published."""

    def __str__(self) -> str:
        return f"{self.agent}@{self.version}"


@dataclass(frozen=True, slots=True)
class ByVersions:
    """The first of them that is ready."""

    versions: tuple[AgentVersion, ...]


@dataclass(frozen=True, slots=True)
class ByOwnAgent:
    """That of the gateway's settings."""


@dataclass(frozen=True, slots=True)
class Declined:
    """Nobody. Codes: `unknown_number`, `country`, `no_agent`."""

    code: str
    why: str


Answerer = ByVersions | ByOwnAgent | ByNumber | ByMessage | ByBusy | Declined


@dataclass(frozen=True, slots=True)
class Answered:
    tenant: TenantId
    by: Answerer
    why: tuple[str, ...]
    """Step by step, in plain words."""
    route: str | None = None
    fallback_number: str | None = None
    """Where the caller goes when we cannot take them. None here and below: as the settings have it."""
    overflow_number: str | None = None
    queue: Queue | None = None
    max_calls: int | None = None
    reserved_inbound: int = 0
    tenant_max_calls: int | None = None
    tenant_reserved_inbound: int = 0

    def and_so(self, by: Answerer, *why: str) -> "Answered":
        return replace(self, by=by, why=(*self.why, *why))


def told(answered: Answered) -> dict[str, Any]:
    """As JSON, for command line and API."""
    by = answered.by
    kinds = {ByVersions: "agent", ByOwnAgent: "own_agent", ByNumber: "number", ByMessage: "message", ByBusy: "busy"}
    found: dict[str, Any] = {"by": kinds.get(type(by), "nobody"), "tenant": answered.tenant, "route": answered.route}
    match by:
        case ByVersions(versions):
            found |= {"agent": versions[0].agent, "version": versions[0].version}
            found["then"] = [{"agent": each.agent, "version": each.version} for each in versions[1:]]
        case ByNumber(number=to):
            found["number"] = to
        case ByMessage(text=text):
            found["text"] = text
        case Declined(code, _):
            found["code"] = code
    found |= {name: getattr(answered, name) for name in ("fallback_number", "overflow_number", "max_calls")}
    found["queue"] = None if answered.queue is None else answered.queue.model_dump(mode="json")
    return {**found, "why": list(answered.why)}


def draw_of(name: str) -> float:
    """In [0, 1), the same for the same name."""
    return int.from_bytes(blake2b(name.encode(), digest_size=7).digest()) / 2**56


def verdict_of(verdict: CallerVerdict | None) -> Verdict:
    """As routes have it. `unknown`: nobody looked."""
    if verdict is None:
        return "unknown"
    found: dict[str, Verdict] = {"passed": "verified", "failed": "invalid", "none": "unsigned"}
    return found[verdict.verdict]


def known_of(view: View) -> Answered:
    """What holds for every call of a number, whoever answers it."""
    terms, number, route = view.terms, view.number, view.route
    limits = next((each for each in (number, route) if each is not None and each.max_calls is not None), None)
    return Answered(
        view.tenant,
        ByOwnAgent(),
        (_found(view),),
        route=None if route is None else route.name,
        fallback_number=_first(number, route, terms, name="fallback_number"),
        overflow_number=_first(number, route, name="overflow_number"),
        queue=None if route is None else route.queue,
        max_calls=None if limits is None else limits.max_calls,
        reserved_inbound=0 if limits is None else limits.reserved_inbound,
        tenant_max_calls=terms.max_calls,
        tenant_reserved_inbound=terms.reserved_inbound,
    )


def answer(view: View, caller: Caller) -> Answered:
    terms, number, route, known = view.terms, view.number, view.route, known_of(view)
    if terms.outage:
        if terms.outage_number is not None:
            return known.and_so(
                ByNumber(kind="number", number=terms.outage_number), "the outage switch is on: to the outage number"
            )
        return known.and_so(
            ByMessage(kind="message", text=terms.outage_text), "the outage switch is on: the outage text is said"
        )
    if number is not None and not number.enabled:
        return known.and_so(Declined("unknown_number", "the number is switched off"), "the number is switched off")
    if (foreign := _foreign(view, caller)) is not None:
        return known.and_so(Declined("country", foreign), foreign)
    if route is None:
        if number is not None and number.route is not None:
            return without_agents(known, f"route {number.route} cannot be read")
        if number is None or not number.agents:
            return known.and_so(ByOwnAgent(), "the gateway's own agent answers")
        return _by(ByAgents(kind="agents", agents=number.agents), view, caller, known)
    return _by_route(route, view, caller, known)


def without_agents(answered: Answered, *why: str) -> Answered:
    """None of its versions can be had."""
    if answered.fallback_number is not None:
        return answered.and_so(ByNumber(kind="number", number=answered.fallback_number), *why, "to the fallback number")
    said = "no agent can answer"
    return answered.and_so(Declined("no_agent", why[-1] if why else said), *why, said)


# --- the steps ------------------------------------------------------------------------------------------------------


def _found(view: View) -> str:
    if view.number is None:
        found = f"the number is in no inventory (tenant {view.tenant})"
    else:
        found = f"{view.number.number} is a number of tenant {view.tenant}"
    if view.match is not None:
        return f"{found}; route {view.match.route} matches it by {view.match.pattern}"
    if view.route is not None:
        return f"{found}, with route {view.route.name}"
    return f"{found}, without a route"


def _first(*owners: Number | Route | Tenant | None, name: str) -> str | None:
    return next((found for owner in owners if owner is not None and (found := getattr(owner, name))), None)


def _foreign(view: View, caller: Caller) -> str | None:
    """A withheld number is of no country."""
    allowed = view.terms.countries
    if not allowed or caller.number is None:
        return None
    country = caller.country_of(caller.number)
    if country in allowed:
        return None
    return f"callers of {country or 'no known country'} may not reach this tenant ({', '.join(allowed)} may)"


def _by_route(route: Route, view: View, caller: Caller, known: Answered) -> Answered:
    for rule in route.rules:
        no = _misses(rule.callers, rule.verdicts, caller)
        if not no and rule.hours is not None:
            hours = view.hours.get(rule.hours)
            no = f"there are no hours {rule.hours}" if hours is None else ""
            if hours is not None and not opening.is_open(hours, caller.at):
                no = opening.told(hours, caller.at)
        if not no:
            return _by(rule.answer, view, caller, known.and_so(known.by, f"rule {rule.name} holds"))
        known = known.and_so(known.by, f"rule {rule.name} does not hold: {no}")
    if route.hours is not None and (hours := view.hours.get(route.hours)) is not None:
        known = known.and_so(known.by, opening.told(hours, caller.at))
        if not opening.is_open(hours, caller.at) and route.closed is not None:
            return _by(route.closed, view, caller, known)
    chosen = route.answer
    if isinstance(chosen, ByAgents) and view.number is not None and view.number.agents:
        chosen = ByAgents(kind="agents", agents=view.number.agents)
        known = known.and_so(known.by, "the number has agents of its own")
    return _by(chosen, view, caller, known)


def _misses(callers: Sequence[str], verdicts: Sequence[Verdict], caller: Caller) -> str:
    """Why not; empty: it holds."""
    if callers and not any(_is(each, caller.number) for each in callers):
        return "the caller's number is none of its callers"
    if verdicts and caller.verdict not in verdicts:
        return f"the caller's number is {caller.verdict}, not {' or '.join(verdicts)}"
    return ""


def _is(pattern: str, number: str | None) -> bool:
    if pattern == "anonymous" or number is None:
        return pattern == "anonymous" and number is None
    return matches(pattern, number)


def _by(chosen: Answer, view: View, caller: Caller, known: Answered) -> Answered:
    match chosen:
        case ByAgents(agents=shares):
            return _by_agents(shares, view, caller, known)
        case ByNumber(number=to):
            return known.and_so(chosen, f"the caller is put through to {to}")
        case ByMessage():
            return known.and_so(chosen, "a message is said")
        case _:
            return known.and_so(chosen, "a busy tone")


def _by_agents(shares: Sequence[Share], view: View, caller: Caller, known: Answered) -> Answered:
    usable: list[tuple[AgentVersion, int]] = []
    why: list[str] = []
    for share in shares:
        version = share.version or view.published.get(share.agent)
        if version is None:
            why.append(f"agent {share.agent} has no published version")
        elif share.weight:
            usable.append((AgentVersion(share.agent, version, share.version is not None), share.weight))
    if not usable:
        return without_agents(known, *why, "none of its agents has a version that may answer")
    total = sum(weight for _, weight in usable)
    at, first = caller.draw * total, 0
    while first < len(usable) - 1 and at >= usable[first][1]:
        at -= usable[first][1]
        first += 1
    drawn, weight = usable[first]
    why.append(f"agent {drawn} answers" + (f" ({weight} of {total} shares)" if len(usable) > 1 else ""))
    others = (version for position, (version, _) in enumerate(usable) if position != first)
    return known.and_so(ByVersions((drawn, *others)), *why)
