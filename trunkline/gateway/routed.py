"""Who answers a call that comes: the number's route, asked once before the call is let in, and the agent it names.

    expect ─► the directory (awaits) ─► numbers.routing.answer ─► the first version that is ready ─► kept
    admit  ─► `take`: what was kept, by the name of the call; else of what is remembered, at once

Without an inventory there is nothing here to ask, and every call is the gateway's own agent's, of the default tenant.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from trunkline.agents.attending import Agent
from trunkline.clock import Clock
from trunkline.gateway.arrival import Arrival
from trunkline.gateway.slots import SlotLimits
from trunkline.numbers.directory import Directory
from trunkline.numbers.queueing import Hold
from trunkline.numbers.resources import ByBusy, ByMessage, ByNumber
from trunkline.numbers.routing import (
    AgentVersion,
    Answered,
    ByOwnAgent,
    ByVersions,
    Caller,
    Declined,
    View,
    answer,
    draw_of,
    known_of,
    verdict_of,
    without_agents,
)
from trunkline.ports import Refuse
from trunkline.types import DEFAULT_TENANT, E164, TenantId
from trunkline.types import AgentVersion as Named

READY_S = 5.0
"""For a version's start, while the caller waits; then the next one's."""
ALL_READY_S = 8.0
"""For all of them: Twilio gives up on a webhook after 15 s."""
_KEPT = 4096
_ROUTED_LEGS = ("twilio", "sip")


class Agents(Protocol):
    """Versions of AI agents by their keys, as `key_of` (agents.roster)."""

    async def ready(self, key: str) -> Agent | Refuse:
        """Starts it where it is not. Does not raise."""
        ...

    def agent(self, key: str) -> Agent | None:
        """At once, a version; or by `acme/reception` the one that calls have, which may be the one before the published
        one. None: it is not started."""
        ...


def key_of(tenant: TenantId, version: AgentVersion) -> str:
    return f"{tenant}/{version}"


@dataclass(frozen=True, slots=True)
class Routed:
    answered: Answered
    agent: Agent | None = None
    """Of the version below; None: the gateway's own, or nobody."""
    version: AgentVersion | None = None

    @property
    def tenant(self) -> TenantId:
        return self.answered.tenant

    @property
    def to_agent(self) -> bool:
        return isinstance(self.answered.by, ByVersions | ByOwnAgent)

    def told(self) -> dict[str, Any]:
        """For the record."""
        by = self.answered.by
        kinds = {ByVersions: "agent", ByOwnAgent: "own_agent", ByNumber: "number", ByMessage: "message", ByBusy: "busy"}
        return {
            "by": kinds.get(type(by), "nobody"),
            "route": self.answered.route,
            "agent": None if self.version is None else self.version.agent,
            "version": None if self.version is None else self.version.version,
            "why": list(self.answered.why),
        }

    def limits(self, of_settings: SlotLimits) -> SlotLimits:
        """Of number, route and tenant, within those of the settings: both hold."""
        found, limits = self.answered, replace(of_settings, tenant=self.tenant)
        if found.tenant_max_calls is not None:
            most, reserved = _both(
                (found.tenant_max_calls, found.tenant_reserved_inbound),
                (of_settings.per_tenant, of_settings.reserved_per_tenant),
            )
            limits = replace(limits, per_tenant=most, reserved_per_tenant=reserved)
        if found.max_calls is not None:
            most, reserved = _both(
                (found.max_calls, found.reserved_inbound), (of_settings.per_number, of_settings.reserved_per_number)
            )
            limits = replace(limits, per_number=most, reserved_per_number=reserved)
        return limits


def _both(own: tuple[int, int], of_settings: tuple[int | None, int]) -> tuple[int, int]:
    """Limits as (most, of these kept for calls in)."""
    most, reserved = of_settings
    if most is None:
        return own
    out = min(own[0] - own[1], most - reserved)
    both = min(own[0], most)
    return both, both - out


def limits_of(view: View) -> Routed:
    """Of a number of ours, whoever answers it."""
    return Routed(known_of(view))


@dataclass(frozen=True, slots=True)
class Elsewhere(Refuse):
    """The call is not taken, and its caller goes there."""

    number: E164 | None = None
    """Put through to it; the transfer door has let them."""
    text: str = ""
    """Heard, then it ends."""
    limit_s: int | None = None
    """How long budgets pay for it; None: as long as calls may last."""


@dataclass(frozen=True, slots=True)
class Queued(Refuse):
    """The call is not taken yet: its caller hears this, and asks again."""

    turn: Hold = field(kw_only=True)
    unwritten: bool = False
    """They asked to be called back, and that could not be noted."""


class Routing:
    """Of one process."""

    def __init__(
        self, directory: Directory, agents: Agents, clock: Clock, country_of: Callable[[str], str | None]
    ) -> None:
        self.directory, self.agents, self._clock, self._country_of = directory, agents, clock, country_of
        self._kept: OrderedDict[str, Routed] = OrderedDict()

    @property
    def is_empty(self) -> bool:
        return self.directory.is_empty

    async def expect(self, arrival: Arrival) -> Routed | None:
        """Before `take`. None: the gateway's own agent, of the default tenant; never for a call over another tenant's
        own trunk. Does not raise."""
        if not _has_route(arrival):
            return None
        name = arrival.provider_call_id
        if (kept := self._kept.get(name)) is not None:
            return kept
        view = await self.directory.view(arrival.to_number, _trunk_of(arrival), arrival.tenant)
        if view is None:
            return _unread(arrival)
        routed = await self._readied(answer(view, self._caller(arrival)))
        self._kept[name] = routed
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return routed

    def take(self, arrival: Arrival) -> Routed | None:
        """At once, for a call that is let in now."""
        if (kept := self._kept.pop(arrival.provider_call_id, None)) is not None:
            return kept
        if not _has_route(arrival):
            return None
        view = self.directory.remembered(arrival.to_number, _trunk_of(arrival), arrival.tenant)
        return _unread(arrival) if view is None else self._at_once(answer(view, self._caller(arrival)))

    def view_of(self, number: str | None, tenant: TenantId | None = None) -> View | None:
        """At once, of a number of ours; of this tenant's, or None: as the gateway's own ways in have it."""
        return self.directory.remembered(number, tenant=tenant)

    def _caller(self, arrival: Arrival) -> Caller:
        return Caller(
            arrival.from_number,
            self._clock.wall(),
            draw_of(arrival.provider_call_id),
            verdict_of(arrival.stir),
            self._country_of,
        )

    async def _readied(self, answered: Answered) -> Routed:
        if not isinstance(answered.by, ByVersions):
            return Routed(answered)
        loop = asyncio.get_running_loop()
        until = loop.time() + ALL_READY_S
        for version in answered.by.versions:
            key = key_of(answered.tenant, version)
            try:
                async with asyncio.timeout_at(min(until, loop.time() + READY_S)):
                    agent = await self.agents.ready(key)
            except TimeoutError:
                agent = self.agents.agent(key) or Refuse("slow", "it does not start in time")
            if not isinstance(agent, Refuse) and agent.ready():
                return Routed(answered, agent, version)
            why = agent.why if isinstance(agent, Refuse) else "it cannot be reached"
            answered = answered.and_so(answered.by, f"agent {version} is not ready: {why}")
        return self._by_former(answered)

    def _at_once(self, answered: Answered) -> Routed:
        if not isinstance(answered.by, ByVersions):
            return Routed(answered)
        for version in answered.by.versions:
            agent = self.agents.agent(key_of(answered.tenant, version))
            if agent is not None and agent.ready():
                return Routed(answered, agent, version)
            answered = answered.and_so(answered.by, f"agent {version} is not ready")
        return self._by_former(answered)

    def _by_former(self, answered: Answered) -> Routed:
        """None that is to answer is ready. What was published before is as good as a version that nobody pinned."""
        versions = answered.by.versions if isinstance(answered.by, ByVersions) else ()
        for wanted in versions:
            agent = None if wanted.pinned else self.agents.agent(f"{answered.tenant}/{wanted.agent}")
            here = None if agent is None else Named.read(agent.definition.version)
            if agent is not None and here is not None and isinstance(here.number, int) and agent.ready():
                version = AgentVersion(here.agent, here.number)
                why = f"agent {version}, which is here already, answers in place of {wanted}"
                return Routed(answered.and_so(answered.by, why), agent, version)
        return Routed(without_agents(answered))


def _has_route(arrival: Arrival) -> bool:
    return arrival.direction == "inbound" and arrival.leg in _ROUTED_LEGS


def _unread(arrival: Arrival) -> Routed | None:
    """Nothing is known of the number: over the gateway's own ways in its own agent answers, but that is no other
    tenant's."""
    if arrival.tenant in (None, DEFAULT_TENANT):
        return None
    why = "the numbers of its tenant cannot be read now"
    return Routed(Answered(arrival.tenant, Declined("no_agent", why), (why,)))


def _trunk_of(arrival: Arrival) -> str:
    """As its tenant calls it: the gateway knows it as `acme.office`."""
    return arrival.trunk if arrival.tenant is None else arrival.trunk.removeprefix(f"{arrival.tenant}.")
