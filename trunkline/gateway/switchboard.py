"""The switchboard: every live call of this process, and the only place where a call's parts meet.

A call is admitted by its webhook (`admit`), gets its leg when the media stream shows the token (`attach`), and from
then on is a bus, an attendant and a state machine whose effects are performed here. What ends, ends once: the bus and
the attendant are released, the record is closed, and a short memory of the CallSid stays for late callbacks.

Errors of one call are caught here and end that call (`reason="error"`); no other notices.
"""

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from trunkline.agents.cascade import Attendant, Cascade
from trunkline.clock import Clock
from trunkline.errors import PeerError
from trunkline.gateway import call as c
from trunkline.gateway.api.calls import LiveCall
from trunkline.gateway.rfc6455 import GOING_AWAY
from trunkline.gateway.twilio.leg import CLOSE_WAIT_S, LegCall, TwilioLeg
from trunkline.gateway.twilio.tokens import POLICY_VIOLATION, Tokens
from trunkline.gateway.twilio.webhooks import Arrival, CallStatus, CallView
from trunkline.gateway.twilio.wire import Started
from trunkline.media.bus import Bus, Echo, Tap
from trunkline.media.ears import Ears
from trunkline.media.heartbeat import Heartbeat
from trunkline.media.playout import LeadPolicy
from trunkline.metrics import Drop, Metrics
from trunkline.ports import (
    Allow,
    CallEnded,
    CallEvent,
    CallFacts,
    CallStarted,
    Decide,
    Decision,
    Door,
    EndReason,
    Facts,
    Message,
    RecordSink,
    Refuse,
    TurnEnded,
    TurnRecord,
    Usage,
    UsageMetered,
)
from trunkline.telemetry import Telemetry
from trunkline.types import DEFAULT_TENANT, E164, CallId, CallSid, StreamSid

log = logging.getLogger(__name__)

CHECK_S = 0.25  # how often deadlines of sockets are looked at
STRANGER_S = 1.0  # a socket without a token may keep others out for so long, when there are too many
GOODBYE_S = 8.0  # for the last words to be said
REMEMBER_ENDED = 4096  # calls whose late callbacks we still recognise
OVERLOADED_LATE_S = 0.1  # beats this late on average: callers would notice
TOKEN_PARAMETER = "token"
RESUMED = "I'm sorry, we were cut off. How can I help?"
TRANSFER_FAILED = "I'm sorry, I could not reach them. Can I help you with anything else?"

_STATUS_REASONS: dict[str, EndReason] = {
    "completed": "caller_hung_up",
    "busy": "busy",
    "failed": "failed",
    "no-answer": "no_answer",
    "canceled": "caller_hung_up",
}


@dataclass(frozen=True, slots=True)
class Line:
    """What every call's media needs of the process."""

    ears: Ears
    heartbeat: Heartbeat
    lead: LeadPolicy
    echo: Callable[[], Echo | None]
    recorder: Callable[[CallId, Allow], Tap | None]
    """Opens a recording; the permit is the decision that allows it."""


@dataclass(frozen=True, slots=True)
class Limits:
    max_calls: int
    max_call_s: float
    max_unauthenticated: int
    start_timeout_s: float
    media_timeout_s: float


@dataclass(frozen=True, slots=True)
class FormerCall:
    """What is remembered of a call that has ended."""

    id: CallId
    reason: EndReason
    conversation: tuple[Message, ...] = ()
    """Of a call that may return."""

    @property
    def may_return(self) -> bool:
        """The leg was lost and Twilio asks us again; or no line was free and the caller's carrier tries once more."""
        return self.reason in ("media_lost", "overloaded")


_OVER = Refuse("ended", "this call is over")


class Switchboard:
    """Serves the webhooks (twilio.webhooks.Switchboard), the sockets (MediaDoor) and the API (LiveCalls)."""

    def __init__(
        self,
        agent: Cascade,
        line: Line,
        limits: Limits,
        tokens: Tokens,
        records: RecordSink,
        decide: Decide,
        metrics: Metrics,
        telemetry: Telemetry,
        clock: Clock,
    ) -> None:
        self.agent, self.line, self.limits = agent, line, limits
        self.records, self.metrics, self.telemetry, self.clock = records, metrics, telemetry, clock
        self.decide = decide
        self.draining = False
        self._tokens = tokens
        self._calls: dict[CallId, LineCall] = {}
        self._by_sid: dict[CallSid, LineCall] = {}
        self._ended: OrderedDict[CallSid, FormerCall] = OrderedDict()
        self._legs: set[TwilioLeg] = set()
        self._checking: asyncio.TimerHandle | None = None
        self._closed = False
        self._idle, self._no_legs = asyncio.Event(), asyncio.Event()
        self._idle.set()
        self._no_legs.set()

    # --- webhooks ---

    def admit(self, arrival: Arrival) -> CallId | Refuse:
        known = self._by_sid.get(arrival.call_sid)
        if known is not None:
            return known.id if known.machine.state is not c.State.ENDING else _OVER
        before = self._ended.get(arrival.call_sid)
        if before is not None and not before.may_return:
            return _OVER
        call = LineCall(self, arrival, before)
        call.record_start()
        if (no_line := self._no_line()) is not None:
            call.end("overloaded", no_line.code)
            return no_line
        decision = call.ask("answer")
        if isinstance(decision, Refuse):
            call.end("refused", decision.code)
            return decision
        self._calls[call.id] = self._by_sid[arrival.call_sid] = call
        self._idle.clear()
        self.metrics.live_calls(len(self._calls))
        call.begin()
        return call.id

    def _no_line(self) -> Refuse | None:
        if self.draining:
            return Refuse("draining", "the gateway is being stopped")
        if len(self._calls) >= self.limits.max_calls or self.line.heartbeat.late_s > OVERLOADED_LATE_S:
            return Refuse("overloaded", "no line is free")
        return None

    def by_call_sid(self, call_sid: CallSid) -> CallView | None:
        call = self._by_sid.get(call_sid)
        if call is None:
            former = self._ended.get(call_sid)
            # One that may return is as good as never seen.
            return None if former is None or former.may_return else CallView(former.id, "ended")
        if call.machine.state is c.State.ENDING:
            return CallView(call.id, "ended")
        if call.machine.state is c.State.TRANSFERRING:
            return CallView(call.id, "transferring", call.transfer_number)
        return CallView(call.id, "live")

    def status(self, call_sid: CallSid, status: CallStatus, duration_s: int | None) -> None:
        call = self._by_sid.get(call_sid)
        if call is not None:
            call.event("carrier_status", status=status, duration_s=duration_s)
            if status in _STATUS_REASONS:
                call.happened(c.StatusFinal(_STATUS_REASONS[status]))

    def stream_event(self, call_sid: CallSid, stream_sid: StreamSid, event: str, error: str) -> None:
        call = self._by_sid.get(call_sid) or self._ended.get(call_sid)
        if call is not None:
            data = {"event": event, "error": error}
            self.records.append(CallEvent(call.id, self.clock.wall(), "stream_status", data))

    def dialled(self, call_sid: CallSid, status: CallStatus, duration_s: int | None) -> None:
        call = self._by_sid.get(call_sid)
        if call is not None:
            call.event("dialled", status=status, duration_s=duration_s)
            call.happened(c.Dialled() if status == "completed" else c.DialFailed())

    # --- sockets ---

    def new_leg(self) -> TwilioLeg:
        leg = TwilioLeg(
            self,
            self.clock,
            start_timeout_s=self.limits.start_timeout_s,
            media_timeout_s=self.limits.media_timeout_s,
        )
        self._legs.add(leg)
        self._no_legs.clear()
        self._check_soon()
        return leg

    def welcome(self, leg: TwilioLeg) -> bool:
        self.metrics.sockets(len(self._legs))
        strangers = [other for other in self._legs if not other.authenticated and not other.closing]
        if self._closed:
            return False
        if len(strangers) <= self.limits.max_unauthenticated:
            return True
        # A carrier shows its token at once; whoever has not by now must not keep the next caller out.
        oldest = min(strangers, key=lambda other: other.opened_at)
        if self.clock.now() - oldest.opened_at < STRANGER_S:
            return False
        self.misbehaved("a stranger that stayed")
        oldest.abort()
        return True

    def attach(self, leg: TwilioLeg, started: Started) -> tuple[LegCall, Bus]:
        call_id = self._tokens.redeem(started.parameters.get(TOKEN_PARAMETER, ""), started.call_sid, self.clock.now())
        call = self._calls.get(call_id)
        if call is None:
            raise PeerError("no such call any more", POLICY_VIOLATION)
        return call, call.attach(leg)

    def gone(self, leg: TwilioLeg, code: int) -> None:
        self._legs.discard(leg)
        if not self._legs:
            self._no_legs.set()
        self.metrics.ws_closed(code)
        self.metrics.sockets(len(self._legs))
        stats = leg.stream.stats
        self._drop("sequence_gap", stats.gaps)
        self._drop("bad_message", stats.ignored)

    def misbehaved(self, what: str) -> None:
        self.metrics.drop("slow_reader" if what == "slow reader" else "bad_message")

    def _drop(self, cause: Drop, count: int) -> None:
        if count:
            self.metrics.drop(cause, count)

    def _check_soon(self) -> None:
        if self._checking is None:
            self._checking = asyncio.get_running_loop().call_later(CHECK_S, self._check_legs)

    def _check_legs(self) -> None:
        self._checking = None
        now = self.clock.now()
        for leg in tuple(self._legs):
            try:
                leg.check(now)
            except Exception:
                log.exception("a media socket's deadline")
                leg.abort()
        if self._legs:
            self._check_soon()

    # --- the API ---

    def live(self, call_id: CallId) -> LiveCall | None:
        call = self._calls.get(call_id)
        return None if call is None else LiveCall(call.started, call.machine.state.value)

    def hang_up(self, call_id: CallId) -> bool:
        call = self._calls.get(call_id)
        if call is None:
            return False
        call.hang_up("agent_hung_up")
        return True

    @property
    def live_calls(self) -> int:
        return len(self._calls)

    # --- the end ---

    def ended(self, call: "LineCall") -> None:
        self._calls.pop(call.id, None)
        if self._by_sid.get(call.arrival.call_sid) is call:
            del self._by_sid[call.arrival.call_sid]
        self._ended[call.arrival.call_sid] = call.former()
        self._ended.move_to_end(call.arrival.call_sid)
        while len(self._ended) > REMEMBER_ENDED:
            self._ended.popitem(last=False)
        self.metrics.live_calls(len(self._calls))
        if not self._calls:
            self._idle.set()

    async def drain(self, patience_s: float, goodbye_s: float = GOODBYE_S) -> None:
        """New calls go to the fallback; live ones may finish for `patience_s`, then hear goodbye, then end."""
        self.draining = True
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

    async def close(self) -> None:
        """Cut off what is left: no call and no socket is there when this returns, whatever the peers do. The sockets
        see 1001. Idempotent."""
        self.draining = self._closed = True
        for leg in tuple(self._legs):
            leg.close(GOING_AWAY, "going away")
        for call in tuple(self._calls.values()):
            call.hang_up("drained")
            call.end("drained")
        try:
            async with asyncio.timeout(CLOSE_WAIT_S + 2 * CHECK_S):
                await self._no_legs.wait()
        except TimeoutError:
            for leg in tuple(self._legs):
                leg.abort()
            self._legs.clear()
        if self._checking is not None:
            self._checking.cancel()
            self._checking = None


class LineCall:
    """One call: the leg's LegCall, the agent's CallControl and Report."""

    def __init__(self, board: Switchboard, arrival: Arrival, before: FormerCall | None) -> None:
        self.arrival = arrival
        self.id = CallId("call_" + secrets.token_hex(12))
        self.machine = c.Call(board.limits.max_call_s)
        self.end_reason: EndReason | None = None
        self.transfer_number: E164 | None = None
        self._board = board
        self._greeting = {"new": None, "leg_lost": RESUMED, "transfer_failed": TRANSFER_FAILED}[arrival.why]
        self.conversation: Sequence[Message] = before.conversation if before is not None else ()
        self._leg: TwilioLeg | None = None
        self._bus: Bus | None = None
        self._attendant: Attendant | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._limit: asyncio.TimerHandle | None = None
        self._attached_at: float | None = None
        self._ending_as: EndReason | None = None
        # Twilio keeps the CallSid when a call comes back; a record of ours ends once, so each has a name of its own.
        again = f"/{arrival.reconnects + 1}" if arrival.reconnects else ""
        self.started = CallStarted(
            call_id=self.id,
            tenant=DEFAULT_TENANT,
            direction=arrival.direction,
            leg="twilio",
            agent=board.agent.definition.name,
            at=board.clock.wall(),
            from_number=arrival.from_number,
            to_number=arrival.to_number,
            provider_call_id=arrival.call_sid + again,
        )

    # --- records ---

    def record_start(self) -> None:
        self._board.records.append(self.started)
        self._board.telemetry.call_started(self.started)

    def event(self, kind: str, **data: Any) -> None:
        self._board.records.append(CallEvent(self.id, self._board.clock.wall(), kind, data))

    def turn(self, turn: TurnRecord, ago_s: float) -> None:
        board = self._board
        now = board.clock.wall()
        board.metrics.turn(turn)
        if isinstance(self.ask("transcript"), Refuse):
            turn = replace(turn, caller_text="", agent_text="")
        ended = TurnEnded(self.id, now, turn)
        board.records.append(ended)
        board.telemetry.turn(ended, now - timedelta(seconds=ago_s))

    def usage(self, usage: Usage) -> None:
        self._board.records.append(UsageMetered(self._board.clock.wall(), usage))

    def ask(self, door: Door, target: str | None = None) -> Decision:
        """Every door leads through here; what was refused is in the record."""
        facts = Facts(
            door=door,
            tenant=self.started.tenant,
            direction=self.started.direction,
            from_number=self.started.from_number,
            to_number=self.started.to_number,
            target=target,
        )
        decision = self._board.decide(facts, self._board.clock.wall())
        if isinstance(decision, Refuse) and door != "record":
            self.event("refused", door=door, target=target, code=decision.code, why=decision.why)
        return decision

    # --- the machine ---

    def begin(self) -> None:
        loop = asyncio.get_running_loop()
        self._limit = loop.call_later(self._board.limits.max_call_s, self._out_of_time)
        self._perform_all(self.machine.begin())

    def happened(self, event: c.Event) -> None:
        """Never raises: what fails ends this call."""
        try:
            effects = self.machine.handle(event)
        except Exception as error:
            self.crashed(error)
        else:
            self._perform_all(effects)

    def _perform_all(self, effects: Sequence[c.Effect]) -> None:
        """Each, whatever became of those before: a bus that cannot be released must not keep the record open."""
        for effect in effects:
            try:
                self._perform(effect)
            except Exception as error:
                self.crashed(error)

    def _perform(self, effect: c.Effect) -> None:
        match effect:
            case c.Attend(why):
                self._attend(why)
            case c.Release():
                self._release()
            case c.CloseLeg():
                if self._leg is not None:
                    self._leg.close()
            case c.SetDeadline(after_s):
                self._set_deadline(after_s)
            case c.EndRecord(reason, detail):
                self.end(reason, detail)

    def _out_of_time(self) -> None:
        """The agent has limits of its own; this one also holds across lost legs, and when the agent is stuck."""
        loop = asyncio.get_running_loop()
        if self.machine.state is c.State.TRANSFERRING:  # there <Dial timeLimit> holds
            self._limit = loop.call_later(GOODBYE_S, self._out_of_time)
            return
        self._limit = loop.call_later(GOODBYE_S, self.hang_up, "max_duration")
        self.say_goodbye("max_duration")

    def _set_deadline(self, after_s: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if self.end_reason is not None:
            return
        self._deadline = asyncio.get_running_loop().call_later(after_s, self.happened, c.DeadlinePassed())

    # --- the leg (LegCall) ---

    def attach(self, leg: TwilioLeg) -> Bus:
        """The stream showed its token. The agent speaks from here on."""
        if self.machine.state not in (c.State.RINGING, c.State.ACTIVE, c.State.TRANSFERRING):
            raise PeerError("the call is ending", POLICY_VIOLATION)
        old, self._leg = self._leg, leg
        self.happened(c.MediaStarted())
        if old is not None and old is not leg:
            old.detach()
            old.close(1001, "replaced")
        if self._bus is None:
            raise PeerError("the call could not be attended", POLICY_VIOLATION)
        return self._bus

    def key(self, digit: str) -> None:
        if self._attendant is not None:
            self._attendant.key(digit)

    def stopped(self, leg: TwilioLeg) -> None:
        if leg is self._leg:
            self.happened(c.MediaStopped())

    def lost(self, leg: TwilioLeg, why: str) -> None:
        if leg is self._leg:
            self.happened(c.MediaLost(why))

    # --- the agent (CallControl and Report) ---

    def hang_up(self, reason: EndReason) -> None:
        if reason == "transferred" and self.transfer_number is not None:
            self.happened(c.Transfer())
        else:
            self.happened(c.HangUp(self._ending_as or reason))

    def transfer(self, target: str) -> Decision:
        """Allowed: performed when the agent hangs up with reason `transferred`, after its words were heard."""
        number = self._board.agent.definition.targets.get(target)
        if number is None:
            return Refuse("unknown_target", f"no transfer target is named {target}")
        decision = self.ask("transfer", target)
        if isinstance(decision, Allow):
            self.transfer_number = E164(number)
            self.event("transfer", target=target)
        return decision

    def send_dtmf(self, digits: str) -> None:
        """Media Streams has no outbound DTMF: the agent sends tones in its audio."""
        self.event("dtmf_sent", count=len(digits))

    def say_goodbye(self, reason: EndReason) -> None:
        """The line the caller hears before we leave; ends with this reason."""
        if self._attendant is None:
            self.hang_up(reason)
        else:
            self._ending_as = reason
            self._attendant.say_goodbye()

    def crashed(self, error: BaseException) -> None:
        log.error("call %s: %s", self.id, error, exc_info=error)
        if self.end_reason is None:
            self.event("crashed", error=type(error).__name__)
            self.happened(c.HangUp("error"))

    # --- effects ---

    def _attend(self, why: str) -> None:
        board, leg = self._board, self._leg
        assert leg is not None
        for provider in (board.agent.minds.stt, board.agent.minds.llm, board.agent.minds.tts):
            if provider.third_party and isinstance(self.ask("third_party", provider.name), Refuse):
                self.happened(c.HangUp("refused"))
                return
        line = board.line
        self._bus = bus = Bus(leg, line.ears, line.heartbeat, board.clock, line.lead, line.echo())
        permit = self.ask("record")
        if isinstance(permit, Allow):
            tap = line.recorder(self.id, permit)
            if tap is not None:
                bus.taps.append(tap)
        facts = CallFacts(
            call_id=self.id,
            tenant=self.started.tenant,
            direction=self.started.direction,
            from_number=self.started.from_number,
            to_number=self.started.to_number,
            started=self.started.at,
        )
        loop = asyncio.get_running_loop()
        self._attendant = board.agent.attend(facts, bus, self, self, board.clock, loop.call_later)
        self._attached_at = board.clock.now()
        self.transfer_number = None
        self.event("answered" if why == "new" else "resumed")
        greeting = {"new": self._greeting, "replaced": RESUMED, "transfer_failed": TRANSFER_FAILED}[why]
        self._attendant.begin(greeting, self.conversation)

    def _release(self) -> None:
        attendant, self._attendant = self._attendant, None
        bus, self._bus = self._bus, None
        try:
            if attendant is not None:
                attendant.close()
                self.conversation = tuple(attendant.conversation)
        finally:
            if bus is not None:
                bus.close()
        if bus is None:
            return
        stats, lane = bus.playout.stats, bus.stats
        seconds = self._board.clock.now() - (self._attached_at or self._board.clock.now())
        self.usage(Usage(self.id, "twilio", "leg", "seconds", round(seconds, 3)))
        self.event(
            "media",
            received_frames=lane.received_frames,
            lost_ms=lane.lost_ms,
            sent_ms=stats.sent_ms,
            underruns=stats.underruns,
            underrun_ms=round(stats.underrun_ms),
            clears=stats.clears,
            late_marks=stats.late_marks,
            dead_marks=stats.dead_marks,
            dropped_ms=stats.dropped_ms,
        )

    def end(self, reason: EndReason, detail: str = "") -> None:
        """Close the record, once."""
        if self.end_reason is not None:
            return
        self.end_reason = reason
        for timer in (self._deadline, self._limit):
            if timer is not None:
                timer.cancel()
        self._deadline = self._limit = self._leg = None
        ended = CallEnded(self.id, self._board.clock.wall(), reason, detail)
        try:
            self._board.records.append(ended)
            self._board.metrics.call_ended(reason)
            self._board.telemetry.call_ended(ended)
        finally:
            self._board.ended(self)
        log.info("call %s ended: %s%s", self.id, reason, f" ({detail})" if detail else "")

    def former(self) -> FormerCall:
        assert self.end_reason is not None
        former = FormerCall(self.id, self.end_reason)
        return replace(former, conversation=tuple(self.conversation)) if former.may_return else former
