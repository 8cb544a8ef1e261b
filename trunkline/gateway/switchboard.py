"""The switchboard: every live call of this process, whoever brings it.

A call comes in (`admit`: a webhook, an INVITE) or goes out (`dial`), gets its leg when there is media, and is from then
on its own (`linecall.py`). What has ended leaves a short memory of its provider's id, for callbacks that come late.
"""

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from trunkline.agents.attending import Agent
from trunkline.agents.wishes.ears import SecondEars
from trunkline.clock import Clock
from trunkline.compliance.money.account import Need, SoFar
from trunkline.gateway import call as c
from trunkline.gateway.api.calls import LiveCall
from trunkline.gateway.arrival import Arrival
from trunkline.gateway.consent import Carried, House
from trunkline.gateway.dialling import DialOrder, new_call_id
from trunkline.gateway.endings import from_twilio, leg_product
from trunkline.gateway.joining import Joining, Keeper, NoSessions
from trunkline.gateway.leg import Dialler, LegKind, Plan
from trunkline.gateway.linecall import GOODBYE_S, FormerCall, LineCall
from trunkline.gateway.outbound import NEVER_AGAIN, RetryPolicy
from trunkline.gateway.placing import Placing
from trunkline.gateway.recital import Reciter
from trunkline.gateway.routed import Elsewhere, Routed, Routing, limits_of
from trunkline.gateway.slots import SlotLimits, Slots
from trunkline.gateway.spending import Spending
from trunkline.gateway.twilio.webhooks import FINAL, CallStatus, CallView
from trunkline.gateway.waiting import WaitingRoom
from trunkline.media.bus import Echo, Tap
from trunkline.media.ears import Ears
from trunkline.media.heartbeat import Heartbeat
from trunkline.metrics import Metrics
from trunkline.numbers.resources import ByMessage, ByNumber
from trunkline.numbers.routing import Declined
from trunkline.ports import (
    NAMED,
    Allow,
    CallEvent,
    Consents,
    Decide,
    Decision,
    Facts,
    RecordSink,
    Refuse,
    Revocation,
    UsageMetered,
)
from trunkline.privacy.calls import Policies
from trunkline.telemetry import Telemetry
from trunkline.types import DEFAULT_TENANT, E164, CallId, CallSid, StreamSid, TenantId, ruled_as

log = logging.getLogger(__name__)

REMEMBER_ENDED = 4096  # calls whose late callbacks we still recognise
NO_LEG: LegKind = "sip"  # what a call that was not dialled would have been
OVERLOADED_LATE_S = 0.1  # beats this late on average: callers would notice
OVERFLOWS = ("tenant_full", "number_full", "overloaded")


@dataclass(frozen=True, slots=True)
class Line:
    """What every call's media needs of the process."""

    ears: Ears
    heartbeat: Heartbeat
    echo: Callable[[], Echo | None]
    recorder: Callable[[CallId, Allow], Tap | None]
    """Opens a recording; the permit is the decision that allows it."""


@dataclass(frozen=True, slots=True)
class Limits:
    max_calls: int
    max_call_s: float
    reserved_inbound: int = 0
    """Lines that calls out leave free."""


Prepare = Callable[[DialOrder], Awaitable[DialOrder]]

_KEPT_FREE = Refuse("overloaded", "the lines that are free are kept for calls that come in")
_OVER = Refuse("ended", "this call is over")


class Switchboard:
    """Serves the webhooks (twilio.webhooks.Switchboard), the media sockets, the SIP desk and the API (LiveCalls)."""

    def __init__(
        self,
        agent: Agent,
        line: Line,
        limits: Limits,
        records: RecordSink,
        decide: Decide,
        metrics: Metrics,
        telemetry: Telemetry,
        clock: Clock,
        retry: RetryPolicy = NEVER_AGAIN,
        agents: Mapping[str, Agent] | None = None,
    ) -> None:
        """`agents`: to whom calls may be given and handed, by their files, or by their names at the desk; they come and
        go. `agent` has every call first."""
        self.retry = retry
        self.agents = {} if agents is None else agents
        self.agent, self.line, self.limits = agent, line, limits
        self.records, self.metrics, self.telemetry, self.clock = records, metrics, telemetry, clock
        self.decide = decide
        self.went_out: Callable[[str, bool], None] = lambda number, to_target: None
        """Told of every number that is called, also for a further leg."""
        self.house: House | None = None
        """What callers hear first, where the rules are in force."""
        self.prepare: Prepare | None = None
        """Gathers what the dial door wants to know, before each later attempt."""
        self.consents: Consents | None = None
        """The ledger. None: the rules for calls are not in force."""
        self.keys = ("", "")
        """By which callers ask not to be called again, and that nothing is kept."""
        self.second_ears: SecondEars | None = None
        self.diallers: list[Dialler] = []
        """Whoever can place calls, in the order they are asked."""
        self.policies = Policies()
        """What of a call's words is redacted, by its agent."""
        self.sessions: Keeper = NoSessions()
        """Who keeps what was said in devices' calls."""
        self.spending: Spending | None = None
        """What calls cost and may cost; None: nobody counts."""
        self.slots: Slots | None = None
        """How many calls at once a tenant and a number may have; None: as many as there are lines."""
        self.routing: Routing | None = None
        """Which agent of which tenant answers a number; None: the gateway's own, always."""
        self.reciter: Reciter | None = None
        """Says texts in place of conversations; None: the agent's own voice does."""
        self.waiting = WaitingRoom(self)
        """Callers for whom there is no line yet."""
        self.draining = False
        self._second_legs = 0
        self._calls: dict[CallId, LineCall] = {}
        self._by_provider_id: dict[str, LineCall] = {}
        self._placing: dict[CallId, Placing] = {}
        self._ended: OrderedDict[str, FormerCall] = OrderedDict()
        self._idle = asyncio.Event()
        self._idle.set()

    # --- calls that come ---

    async def expect(self, arrival: Arrival) -> None:
        """Before `admit` or `join`: looks who is to answer, and asks for the slot that it will need, where there are
        limits. Does not raise."""
        name = arrival.provider_call_id
        former = self._ended.get(name)
        is_over = former is not None and not former.may_return
        if name in self._by_provider_id or is_over:
            return
        if name in self.waiting:
            await self.waiting.ask(name)
            return
        routed = None if former is None else former.routed
        if routed is None and self.routing is not None:
            routed = await self.routing.expect(arrival)
        if self.waiting.others_first(arrival, routed) is not None:
            return
        if self.slots is not None and (routed is None or routed.to_agent):
            await self.slots.ask(name, "inbound", arrival.to_number, self.limits_of(routed))

    @property
    def waits(self) -> bool:
        """`expect` has something to ask."""
        limited = self.slots is not None and self.slots.limits.any
        return limited or (self.routing is not None and not self.routing.is_empty)

    def limits_of(self, routed: Routed | None) -> SlotLimits | None:
        return None if routed is None or self.slots is None else routed.limits(self.slots.limits)

    async def expect_joining(self, joining: Joining, leg: LegKind) -> None:
        await self.expect(_joined(joining, leg))

    async def expect_order(self, order: DialOrder) -> DialOrder:
        """As `expect`, before `dial`, which is asked with the order that this returns."""
        if self.slots is None or not self.diallers:
            return order
        way = Placing(self, order, self.retry).first()
        number = order.from_number if isinstance(way, Refuse) else way[2].from_number
        order = replace(order, call_id=order.call_id or new_call_id())
        await self.slots.ask(str(order.call_id), "outbound", number, self._limits_out(order.tenant, number))
        return order

    async def line_for(self, order: DialOrder) -> Refuse | None:
        """As `expect_order`, for whoever asks again later, and leaves no record till then. None: `dial` follows, or its
        slot is given back by the order's call_id."""
        assert order.call_id is not None
        if (refused := self.no_line()) is not None:
            return refused
        if self.free_lines <= self.limits.reserved_inbound:
            return _KEPT_FREE
        if self.slots is None:
            return None
        limits = self._limits_out(order.tenant, order.from_number)
        return await self.slots.reserve(str(order.call_id), "outbound", order.from_number, limits)

    def _limits_out(self, tenant: TenantId, number: str | None) -> SlotLimits | None:
        """Of a call out that shows this number."""
        if self.slots is None:
            return None
        view = None if self.routing is None else self.routing.view_of(number, tenant)
        if view is None:
            return replace(self.slots.limits, tenant=tenant)
        return limits_of(view).limits(self.slots.limits)

    def admit(self, arrival: Arrival) -> CallId | Refuse:
        known = self._by_provider_id.get(arrival.provider_call_id)
        if known is not None:
            return known.id if known.machine.state is not c.State.ENDING else _OVER
        if (waits := self.waiting.again(arrival.provider_call_id)) is not None:
            return waits
        before = self._ended.get(arrival.provider_call_id)
        if before is not None and not before.may_return:
            return _OVER
        routed = None if before is None else before.routed
        if routed is None and self.routing is not None:
            routed = self.routing.take(arrival)
        call = LineCall(self, arrival, before, routed=routed, tenant=arrival.tenant or DEFAULT_TENANT)
        return self._let_in(call) or call.id

    def _let_in(self, call: LineCall) -> Refuse | None:
        call.record_start()
        if (elsewhere := self._answered_elsewhere(call)) is not None:
            return elsewhere
        if (no_line := self.waiting.others_first(call.arrival, call.routed) or self.no_line_for(call)) is not None:
            if (queued := self.waiting.join(call, no_line)) is not None:
                return queued
            no_line = self.way_out(call, no_line)
            call.end("overloaded", no_line.code)
            return no_line
        decision = call.ask("answer")
        if isinstance(decision, Refuse):
            call.end("refused", decision.code)
            return decision
        return self.enter(call)

    def enter(self, call: LineCall) -> Refuse | None:
        """A line is its own, and it may be answered."""
        if (dear := self._may_cost(call)) is not None:
            return dear
        self._take(call)
        return None

    def _answered_elsewhere(self, call: LineCall) -> Refuse | None:
        """By none of our agents: the call takes no line."""
        if call.routed is None or call.routed.to_agent:
            return None
        by, why = call.routed.answered.by, call.routed.answered.why[-1]
        if isinstance(by, ByMessage) and call.started.leg == "sip":  # there our own voice says it
            call.says = by.text
            return None
        decision = call.ask("answer")
        if isinstance(decision, Allow) and isinstance(by, ByNumber):
            decision = call.ask("transfer", "route", by.number)
        if isinstance(decision, Refuse):
            call.end("refused", decision.code)
            return decision
        if isinstance(by, ByNumber):
            through = self._sends_to(call, Refuse("number", why), by.number)
            if isinstance(through, Elsewhere):
                call.end("transferred", why)
            else:
                call.end("refused", through.code)
            return through
        refused = Refuse(by.code, by.why) if isinstance(by, Declined) else Refuse("busy", why)
        if isinstance(by, ByMessage):
            refused = Elsewhere("message", why, text=by.text)
        call.end("refused", refused.code)
        return refused

    def way_out(self, call: LineCall, no_line: Refuse) -> Refuse:
        """With the number where the caller may go instead, of the number called, its route or its tenant."""
        if call.routed is None or call.started.direction == "outbound":
            return no_line
        known = call.routed.answered
        ways = [("fallback", known.fallback_number)]
        if no_line.code in OVERFLOWS:
            ways.insert(0, ("overflow", known.overflow_number))
        for name, number in ways:
            if number is not None and isinstance(call.ask("transfer", name, number), Allow):
                through = self._sends_to(call, no_line, number)
                return through if isinstance(through, Elsewhere) else no_line
        return no_line

    def _sends_to(self, call: LineCall, instead: Refuse, number: str) -> Refuse:
        """An Elsewhere, where budgets pay for it. Over SIP the carrier is told the number, and the call is not ours."""
        limit_s = float("inf")
        if self.spending is not None and call.started.leg == "twilio":
            found = self.spending.sends_to(call, number)
            if isinstance(found, Refuse):
                call.event("refused", door="transfer", target=None, code=found.code, why=found.why)
                return found
            limit_s = min(found, self.limits.max_call_s)
        most_s = None if limit_s == float("inf") else int(limit_s)
        return Elsewhere(instead.code, instead.why, number=E164(number), limit_s=most_s)

    def _may_cost(self, call: LineCall) -> Refuse | None:
        """The last door: from here on its account is open."""
        refused = None if self.spending is None else self.spending.open(call, call.attended.agent)
        if not isinstance(refused, Refuse):
            return None
        door = "answer" if call.arrival.direction == "inbound" else "dial"
        call.event("refused", door=door, target=None, code=refused.code, why=refused.why)
        call.end("refused", refused.code)
        return refused

    def join(self, joining: Joining, leg: LegKind) -> CallId | Refuse:
        """A device that its token let in: the session's live call, whose leg it replaces, or a new one that goes on
        with the conversation. Refuse codes as of `admit`, `unknown_agent` and `agent_away`."""
        known = self._by_provider_id.get(joining.session_id)
        if known is not None and known.machine.state is not c.State.ENDING:
            self.sessions.begun(joining, known)
            return known.id
        agent = self.agent_of(joining.tenant, joining.agent)
        if agent is None:
            return Refuse("unknown_agent", f"there is no agent {joining.agent}")
        if agent is not self.agent and not agent.ready():
            return Refuse("agent_away", f"the agent {joining.agent} cannot be reached now")
        before = FormerCall(CallId(joining.session_id), "media_lost", joining.conversation, agent)
        former = self._ended.get(joining.session_id)
        if former is not None and former.consent is not None:
            before = replace(before, consent=former.consent)
        elif joining.shut:  # in another process
            before = replace(before, consent=Carried(dict.fromkeys(joining.shut, "withdrawn")))
        if joining.cut_off:
            here = SoFar() if former is None else former.so_far
            before = replace(before, so_far=max(here, joining.so_far, key=lambda so_far: so_far.usd))
        call = LineCall(self, _joined(joining, leg), before)
        if (refused := self._let_in(call)) is not None:
            return refused
        self.sessions.begun(joining, call)
        return call.id

    def revoked(self, said: Revocation) -> None:
        """Somebody took it back, elsewhere than in their call: that shuts the doors of one that is going on, too."""
        kept = {"recording", "transcript", "ai_processing"}
        if said.technologies and not kept & set(said.technologies):
            return
        for call in list(self._calls.values()):
            if call.id != said.call_id and (call.tenant, call.other_number) == (said.tenant, said.subject):
                call.consent_revoked(said.via)

    def agent_named(self, name: str) -> Agent | None:
        """Of this gateway; empty: whoever has every call first. One of the desk by its version, `default/reception@3`;
        where that is gone, or by `default/reception`, the one that is published."""
        if name in ("", self.agent.definition.known_as):
            return self.agent
        found = self.agents.get(name) or self.agents.get(ruled_as(name))
        if found is not None and found.definition.version:
            return found
        return next((agent for agent in self.agents.values() if agent.definition.known_as == name), None)

    def agent_of(self, tenant: TenantId, name: str) -> Agent | None:
        """As `agent_named`, but not another tenant's."""
        agent = self.agent_named(name)
        of_desk = agent is not None and agent.definition.version
        return None if of_desk and not of_desk.startswith(f"{tenant}/") else agent

    def attending(self) -> Iterator[Agent]:
        """Whoever has a live call now, or may have it again."""
        for call in self._calls.values():
            yield call.attended.agent
            yield call.attended.whole

    def still_here(self, agent: Agent) -> Agent | None:
        """For a call that comes back to an agent of the desk, which may have gone meanwhile: who follows it. None:
        nobody does."""
        version = agent.definition.version
        return self.agent_named(version) if version else agent

    def turn_away(self, arrival: Arrival, refused: Refuse) -> None:
        """A call that its leg's own rules refuse: all that is left of it is its record."""
        call = LineCall(self, arrival, None)
        call.record_start()
        call.event("turned_away", code=refused.code, why=refused.why)
        call.end("refused", refused.code)

    def no_line(self) -> Refuse | None:
        """Why no further call can be taken now."""
        if self.draining:
            return Refuse("draining", "the gateway is being stopped")
        return self._full()

    def no_line_for(self, call: LineCall) -> Refuse | None:
        """None: its slot is claimed."""
        if (no_line := self.no_line()) is not None:
            return no_line
        limits, out = self.limits, call.started.direction == "outbound"
        if out and len(self._calls) + self._second_legs >= limits.max_calls - limits.reserved_inbound:
            return _KEPT_FREE
        if self.slots is None or call.says:
            return None
        own = self._limits_out(call.tenant, _ours(call)) if out else self.limits_of(call.routed)
        return self.slots.claim(_slot(call), call.started.direction, _ours(call), own)

    @property
    def free_lines(self) -> int:
        return self.limits.max_calls - len(self._calls) - self._second_legs

    def _full(self) -> Refuse | None:
        if self.free_lines <= 0 or self.line.heartbeat.late_s > OVERLOADED_LATE_S:
            return Refuse("overloaded", "no line is free")
        return None

    # --- further legs of calls ---

    def take_line(self) -> Refuse | None:
        """For a further leg of a live call, which counts as a call does; also while draining. `give_line` once, when it
        is over."""
        if (full := self._full()) is not None:
            return full
        self._second_legs += 1
        return None

    def give_line(self) -> None:
        self._second_legs -= 1

    def may_last_s(self, call_id: CallId, slack_s: float, further: Need | None = None) -> float:
        """The limit outside Python of a leg that begins now: of time, with what its own end takes as slack, or of
        money. `further`: one that is dialled beside the call's own."""
        call, longest_s = self._calls.get(call_id), self.limits.max_call_s + slack_s
        if call is None or self.spending is None:
            return longest_s
        return min(longest_s, self.spending.pays_s(call, further))

    def call(self, call_id: CallId) -> LineCall | None:
        """A live one."""
        return self._calls.get(call_id)

    def knows(self, provider_call_id: str) -> bool:
        """A call of this name lives, or has ended not long ago."""
        return provider_call_id in self._by_provider_id or provider_call_id in self._ended

    def _take(self, call: LineCall) -> None:
        self._calls[call.id] = self._by_provider_id[call.arrival.provider_call_id] = call
        self._idle.clear()
        self.metrics.live_calls(len(self._calls))
        call.begin()

    # --- calls that go ---

    def dial(self, order: DialOrder) -> CallId | Refuse:
        """Place a call. Refuse codes: `overloaded`, `draining`, the policy's own, and the dialler's, among them
        `no_trunk` and `trunk_down`. Each leaves a record that says so, but where nothing here can dial at all."""
        if not self.diallers:
            return self.may_dial(order) or Refuse("no_trunk", "no trunk takes outbound calls")
        placing = Placing(self, order, self.retry)
        way = placing.first()
        plan = way if isinstance(way, Refuse) else way[2]
        departure, longest_s = _departure(order, plan), placing.longest_s
        call = LineCall(self, departure, None, longest_s, order.call_id, order.routed, order.tenant)
        call.record_start()
        if (no_line := self.no_line_for(call)) is not None:
            call.end("overloaded", no_line.code)
            return no_line
        decision = call.ask("dial", counts=False)
        if isinstance(decision, Refuse):
            call.end("refused", decision.code)
            return decision
        if isinstance(way, Refuse):
            call.end("failed", way.code)
            return way
        if (dear := self._may_cost(call)) is not None:
            return dear
        self.went_out(order.to_number, False)
        call.event("dialling", trunk=way[2].trunk, ring_timeout_s=order.ring_timeout_s)
        self._take(call)
        self._placing[call.id] = placing
        return placing.dial(call, *way) or call.id

    def named(self, call_id: CallId, provider_call_id: str) -> None:
        """The carrier's name of a call of ours, where it is told only after the order was taken."""
        call = self._calls.get(call_id)
        if call is not None:
            self._by_provider_id.pop(call.arrival.provider_call_id, None)
            call.named(provider_call_id)
            self._by_provider_id[provider_call_id] = call
            return
        former = next((f for f in reversed(self._ended.values()) if f.id == call_id), None)
        if former is not None:  # given up meanwhile
            self._remember(provider_call_id, former)
            self.records.append(CallEvent(call_id, self.clock.wall(), NAMED, {"provider_call_id": provider_call_id}))

    def may_dial(self, order: DialOrder) -> Refuse | None:
        facts = Facts(
            "dial",
            order.tenant,
            "outbound",
            order.from_number,
            order.to_number,
            purpose=order.purpose,
            standing=order.standing,
        )
        decision = self.decide(facts, self.clock.wall())
        return decision if isinstance(decision, Refuse) else None

    def may_fall_back(self, number: E164, ours: E164 | None) -> Decision:
        """The transfer door, for a caller of `ours` whom Twilio is to put through to the settings' fallback number."""
        facts = Facts(
            "transfer",
            self._tenant_of(ours),
            "inbound",
            to_number=ours or number,
            target="fallback_number",
            target_number=number,
        )
        decision = self.decide(facts, self.clock.wall())
        if isinstance(decision, Allow):
            self.went_out(number, True)
        else:
            log.warning("twilio.fallback_number is not called: %s (%s)", decision.code, decision.why)
        return decision

    def _tenant_of(self, ours: E164 | None) -> TenantId:
        view = None if self.routing is None else self.routing.view_of(ours)
        return DEFAULT_TENANT if view is None else view.tenant

    def lost(self, order: DialOrder) -> None:
        """The process that had taken this order died before it was recorded as a call: it was never dialled, and never
        will be. Changes nothing where its record is only late."""
        nowhere = Refuse("gateway_lost", "the gateway stopped before it was dialled")
        call = LineCall(self, _departure(order, nowhere), None, call_id=order.call_id, tenant=order.tenant)
        call.record_start()
        call.end("gateway_lost", nowhere.why)

    # --- Twilio's callbacks ---

    def by_call_sid(self, call_sid: CallSid) -> CallView | None:
        call = self._by_provider_id.get(call_sid)
        if call is None:
            former = self._ended.get(call_sid)
            # One that may return is as good as never seen.
            return None if former is None or former.may_return else CallView(former.id, "ended")
        if call.machine.state is c.State.ENDING:
            return CallView(call.id, "ended")
        if call.machine.state is c.State.TRANSFERRING:
            limit_s = self.may_last_s(call.id, 0.0, ("twilio", "leg", leg_product("transfer", call.transfer_number)))
            return CallView(call.id, "transferring", call.transfer_number, int(limit_s))
        return CallView(call.id, "live")

    def status(self, call_sid: CallSid, status: CallStatus, duration_s: int | None) -> None:
        call = self._by_provider_id.get(call_sid)
        if call is None:
            if status not in FINAL or not self.waiting.hung_up(call_sid):
                self._counted(call_sid, duration_s)
        else:
            call.event("carrier_status", status=status, duration_s=duration_s)
            if status in FINAL:
                if self.spending is not None and duration_s:
                    self.spending.carrier_told(call, float(duration_s))
                said = from_twilio(status)
                call.finished(said.reason, "", said.by, said.provider_code)

    def _counted(self, call_sid: CallSid, duration_s: int | None) -> None:
        """Of a call that is over: its stream's end came first."""
        former = self._ended.get(call_sid)
        if self.spending is None or former is None or not duration_s:
            return
        if (found := self.spending.carrier_told_late(former.id, float(duration_s))) is not None:
            self.records.append(UsageMetered(self.clock.wall(), *found))

    def sent_on(self, call_sid: CallSid, duration_s: int) -> None:
        former = self._ended.get(call_sid)
        if self.spending is None or former is None:
            return
        if (found := self.spending.sent_on_told(former.id, float(duration_s))) is not None:
            self.records.append(UsageMetered(self.clock.wall(), *found))

    def stream_event(self, call_sid: CallSid, stream_sid: StreamSid, event: str, error: str) -> None:
        call = self._by_provider_id.get(call_sid) or self._ended.get(call_sid)
        if call is not None:
            data = {"event": event, "error": error}
            self.records.append(CallEvent(call.id, self.clock.wall(), "stream_status", data))

    def dialled(self, call_sid: CallSid, status: CallStatus, duration_s: int | None) -> None:
        call = self._by_provider_id.get(call_sid)
        if call is not None:
            call.event("dialled", status=status, duration_s=duration_s)
            if self.spending is not None and duration_s:
                self.spending.dialled(call, float(duration_s), call.transfer_number)
            call.happened(c.Dialled() if status == "completed" else c.DialFailed())

    # --- the API ---

    def is_ready(self, call_id: CallId) -> bool:
        """Whoever attends this call can speak."""
        call = self._calls.get(call_id)
        if call is not None and call.says and self.reciter is not None:
            return self.reciter.ready()
        return call is not None and call.attended.agent.ready()

    def live(self, call_id: CallId) -> LiveCall | None:
        call = self._calls.get(call_id)
        if call is None:
            return None
        cost = None if self.spending is None else self.spending.told(call)
        return LiveCall(call.started, call.machine.state.value, cost)

    def all_live(self) -> list[LiveCall]:
        return [live for call_id in list(self._calls) if (live := self.live(call_id)) is not None]

    def hang_up(self, call_id: CallId) -> bool:
        call = self._calls.get(call_id)
        if call is None:
            return False
        call.hang_up("agent_hung_up", by="operator")
        return True

    @property
    def live_calls(self) -> int:
        return len(self._calls)

    def lasting(self) -> dict[str, dict[str, Any]]:
        """For the watchdog, of each live call: how long it may yet last (`left_s`), and its CallSid (`sid`) if it is
        Twilio's."""
        found: dict[str, dict[str, Any]] = {}
        for call in self._calls.values():
            left_s = call.ends_in_s() + GOODBYE_S if call.limited else self.limits.max_call_s + GOODBYE_S
            if self.spending is not None:
                left_s = min(left_s, self.spending.lasts_s(call))
            found[call.id] = {"left_s": round(left_s, 1)}
            if call.started.leg == "twilio":
                found[call.id]["sid"] = call.arrival.provider_call_id
        return found

    # --- the end ---

    def ended(self, call: LineCall) -> None:
        """Told by each call, once."""
        self._calls.pop(call.id, None)
        if (placing := self._placing.pop(call.id, None)) is not None:
            placing.close()
        name, session_id = call.arrival.provider_call_id, call.arrival.session_id
        if self._by_provider_id.get(name) is call:
            del self._by_provider_id[name]
        if session_id is not None:
            self.sessions.ended(session_id, call)
        if self.slots is not None and not (call.started.direction == "inbound" and name in self._by_provider_id):
            self.slots.free(_slot(call))  # else who came back has it
        self._remember(name, call.former())
        self.metrics.live_calls(len(self._calls))
        if not self._calls:
            self._idle.set()

    def _remember(self, provider_call_id: str, former: FormerCall) -> None:
        self._ended[provider_call_id] = former
        self._ended.move_to_end(provider_call_id)
        while len(self._ended) > REMEMBER_ENDED:
            self._ended.popitem(last=False)

    async def drain(self, patience_s: float, goodbye_s: float = GOODBYE_S) -> None:
        """New calls go to the fallback; live ones may finish for `patience_s`, then hear goodbye, then end."""
        self.draining = True
        for placing in tuple(self._placing.values()):
            placing.drain()
        if await self._all_ended(patience_s):
            return
        for call in tuple(self._calls.values()):
            call.say_goodbye("drained")
        if await self._all_ended(goodbye_s):
            return
        for call in tuple(self._calls.values()):
            call.hang_up("drained")
        await self._all_ended(c.CLOSE_WAIT_S + 1)

    async def _all_ended(self, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Cut off what is left: no call is there when this returns. Idempotent."""
        self.draining = True
        self.waiting.close()
        for call in tuple(self._calls.values()):
            call.hang_up("drained")
            call.end("drained")


def _ours(call: LineCall) -> str | None:
    return call.started.to_number if call.started.direction == "inbound" else call.started.from_number


def _slot(call: LineCall) -> str:
    """By what its slot is known: what its carrier or device calls it, or of a call out we do."""
    return call.arrival.provider_call_id if call.started.direction == "inbound" else call.id


def _joined(joining: Joining, leg: LegKind) -> Arrival:
    facts = {
        "session_id": joining.session_id,
        "device_id": joining.device_id,
        "device_account": joining.device_account,
    }
    return Arrival(
        joining.session_id,
        leg,
        "inbound",
        from_number=None,
        to_number=None,
        reconnects=joining.number - 1,
        why="new" if not joining.resumed else "leg_lost" if joining.cut_off else "again",
        attributes=facts,
        session_id=joining.session_id,
    )


def _departure(order: DialOrder, plan: Plan | Refuse) -> Arrival:
    if isinstance(plan, Refuse):
        name, kind, from_number, trunk = secrets.token_hex(16), NO_LEG, order.from_number, ""
    else:
        name, kind, from_number, trunk = plan.provider_call_id, plan.kind, plan.from_number, plan.sip_trunk
    return Arrival(
        name,
        kind,
        "outbound",
        from_number=from_number,
        to_number=order.to_number,
        attributes=order.attributes,
        purpose=order.purpose,
        standing=order.standing,
        trunk=trunk,
    )
