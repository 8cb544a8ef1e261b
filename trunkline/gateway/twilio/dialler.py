"""Calls of ours over Twilio: the Dialler of the trunk `twilio`, and what its callbacks say of them.

    dial ─► create ─┬─► Taken ─────────────► the CallSid is the call's name from here on
                    ├─► NotTaken ──────────► failed; 429 is tried again, as nothing was created
                    └─► Unknown ─► look for it ─┬─► found
                                                └─► not there: failed, and hung up should it turn up after all

No order is sent twice unless Twilio has certainly not taken it. Each carries a token in its callback URLs; whatever
brings the token first (a callback may overtake the answer to `create`) ties the CallSid to the call, and Twilio's own
list of requests shows the token of a call whose answer was lost. A token names one call: a second one is hung up.

The leg that rings is the order itself (`Placed`). When the far end answers, Twilio asks our voice webhook, which lets
the media stream in as for any other call. A second leg of a call (`SecondLeg`) is dialled in the same way; the order's
token leads its stream to it. Hanging up without a stream goes over REST, until Twilio has heard it; a second leg is
hung up in both ways.
"""

import asyncio
import logging
import math
import secrets
from collections import OrderedDict
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

from trunkline.clock import Clock
from trunkline.compliance.money.account import Need
from trunkline.errors import MisuseError
from trunkline.gateway import endings
from trunkline.gateway.answeredby import greeting_over
from trunkline.gateway.api.trunks import TrunkView
from trunkline.gateway.dialling import DialOrder
from trunkline.gateway.endings import leg_product
from trunkline.gateway.leg import FurtherLegCall, Leg, LegCall, LegKind, Plan
from trunkline.gateway.outbound import Failure, Route, twilio_failure
from trunkline.gateway.twilio.account import TOO_MANY, Account, CallOrder, NotTaken, Taken, Unknown
from trunkline.gateway.twilio.webhooks import FINAL, Heard
from trunkline.media.playout import LeadPolicy, Message
from trunkline.ports import Refuse
from trunkline.types import E164, CallId, CallSid

log = logging.getLogger("trunkline.twilio")

TRUNK = "twilio"
MAX_PLACING = 32  # orders whose answer is awaited, at once; more are refused
MAX_REMEMBERED = 16_384  # orders whose callbacks we recognise: more than can be alive
RING_SLACK_S = 60.0  # Twilio ends the ringing itself; ours also spans its stalls and our looking
MAX_RING_S, MAX_LIMIT_S = 600, 14_400  # Twilio's own
BUSY_TRIES, BUSY_WAIT_S, MAX_BUSY_WAIT_S = 3, 1.0, 10.0
LOOK_AFTER_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
CLOCK_SKEW_S = 60.0  # between Twilio's dates and ours
END_AGAIN_S = (1.0, 2.0, 4.0, 8.0)
TOLD_S = 2.0  # from our hanging up to the callback that confirms it; less than a transfer waits for it (Policy.clear_s)
CHECK_AGAIN_S = 10.0
CLOSE_S = 5.0

Detection = Literal["Enable", "DetectMessageEnd"]


@dataclass(frozen=True, slots=True)
class Terms:
    """How the account's calls are made, of the settings."""

    origin: str
    """Twilio reaches us there."""
    from_number: E164 | None
    limit_s: float
    """The longest that a call may be connected, transfers included."""
    machine_detection: Detection | None = None
    hang_up_on_machine: bool = False


class Board(Protocol):
    def named(self, call_id: CallId, provider_call_id: str) -> None:
        """The carrier's name of a call of ours, which it tells only after it took the order."""
        ...

    def call(self, call_id: CallId) -> object | None:
        """A live one."""
        ...

    def may_last_s(self, call_id: CallId, slack_s: float, further: Need | None = None) -> float:
        """The limit of a leg that begins now; `further`: one beside the call's own."""
        ...


class Placed:
    """One order, from its dialling to its last callback; the call's Leg until a stream takes its place."""

    kind: LegKind = "twilio"
    transfers = sends_dtmf = False  # there is no media yet
    writable = True

    def __init__(self, desk: "TwilioDialler", token: str, order: CallOrder, call: LegCall, since: datetime) -> None:
        self.token, self.order, self.call, self.since = token, order, call, since
        self.lead = LeadPolicy()
        self.call_sid: CallSid | None = None
        self.tied = asyncio.Event()
        self.leaving = False
        """We want it to end."""
        self.answered = False
        self.over = False
        """Nothing of it is at Twilio, or Twilio has said its last word."""
        self.ringing = False
        self.failure: Failure | None = None
        self.further = call if isinstance(call, FurtherLegCall) else None
        """A second leg of a call that has a name already."""
        self._desk = desk

    def send(self, messages: Sequence[Message]) -> None:
        raise MisuseError("a call that rings has no media")

    def clear(self) -> int | None:
        return None

    def send_dtmf(self, digits: str) -> None:
        raise MisuseError("a call that rings has no media")

    def stats(self) -> Mapping[str, int]:
        return {}

    def close(self, why: str = "") -> None:
        """Hang up, now or as soon as it has a name. Idempotent."""
        if why == "replaced":
            return  # the stream is the leg from now on
        if not self.leaving:
            self.leaving = True
            self._desk.leave(self)

    def detach(self) -> None:
        """The stream has come: its own end ends the call."""


class TwilioDialler:
    """The Dialler of the switchboard, and who the webhooks tell of its calls. Methods return at once, but `close`."""

    def __init__(self, account: Account, board: Board, terms: Terms, clock: Clock) -> None:
        self._account, self._board, self._terms, self._clock = account, board, terms, clock
        self._orders: OrderedDict[str, Placed] = OrderedDict()
        self._sids: set[CallSid | None] = set()
        self._tasks: set[asyncio.Task[object]] = set()
        self._placing = 0
        self._refused: NotTaken | None = None
        """Why no call can go out now, when Twilio said so last."""
        self._reached = False
        self._checking: asyncio.Task[None] | None = None
        self._closed = False

    def start(self) -> None:
        """Find out whether we may log in; calls need not wait for it."""
        self._check_soon(0.0)

    async def close(self) -> None:
        """After the switchboard has left its calls: what is being hung up has CLOSE_S. Idempotent."""
        self._closed = True
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.gather(self._checking, return_exceptions=True)
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=CLOSE_S)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for placed in self._orders.values():
            if placed.call_sid is None and not placed.over:
                placed.over = True
                log.warning("call %s: Twilio may yet dial it; whoever answers is hung up on", placed.call.id)
        await self._account.close()

    def trunks(self) -> list[TrunkView]:
        live = sum(not p.over and self._board.call(p.call.id) is not None for p in self._orders.values())
        state: Literal["unknown", "up", "down"] = "down" if self._refused else "up" if self._reached else "unknown"
        why = self._refusal()
        return [TrunkView(TRUNK, state, takes_calls=True, calls=live, why=why.code if why else "")]

    # --- Dialler ----------------------------------------------------------------------------------------------------

    def routes(self, order: DialOrder) -> list[Route]:
        if order.trunk not in (None, TRUNK):
            return []
        return [Route(TRUNK, order.from_number or self._terms.from_number, usable=self._refused is None)]

    def plan(self, order: DialOrder) -> Plan | Refuse:
        if order.trunk not in (None, TRUNK):
            return Refuse("no_trunk", f"no trunk {order.trunk} takes outbound calls")
        if (refused := self._refusal()) is not None:
            return refused
        if self._placing >= MAX_PLACING:
            return Refuse("overloaded", "Twilio has not yet answered the orders before")
        from_number = order.from_number or self._terms.from_number
        if from_number is None:
            return Refuse("no_caller_id", "twilio.from_number, or `from` in the order: a number of the account")
        return Plan(order, "twilio", secrets.token_hex(16), TRUNK, from_number, RING_SLACK_S)

    def _refusal(self) -> Refuse | None:
        if self._refused is None:
            return None
        if self._refused.unauthorized:
            return Refuse("trunk_unauthorized", "Twilio does not accept our account_sid and its key or token")
        return Refuse("trunk_down", "Twilio's REST API cannot be reached")

    def dial(self, plan: Plan, call: LegCall) -> Leg:
        assert plan.from_number is not None
        token = plan.provider_call_id
        product = leg_product("transfer", plan.order.to_number)
        further: Need | None = ("twilio", "leg", product) if isinstance(call, FurtherLegCall) else None
        limit_s = min(self._terms.limit_s, self._board.may_last_s(call.id, self._terms.limit_s, further))
        order = CallOrder(
            to_number=plan.order.to_number,
            from_number=plan.from_number,
            url=self._url("voice", token),
            status_callback=self._url("status", token),
            ring_s=min(MAX_RING_S, math.ceil(plan.order.ring_timeout_s)),
            limit_s=min(MAX_LIMIT_S, math.ceil(limit_s)),
            machine_detection=self._terms.machine_detection,
            machine_callback=self._url("machine", token) if self._terms.machine_detection else "",
        )
        placed = self._orders[token] = Placed(self, token, order, call, self._clock.wall())
        if len(self._orders) > MAX_REMEMBERED:
            _, oldest = self._orders.popitem(last=False)
            self._sids.discard(oldest.call_sid)
        self._placing += 1
        self._spawn(self._place(placed), placed)
        return placed

    def _url(self, what: str, token: str) -> str:
        return f"{self._terms.origin}/twilio/{what}?order={token}"

    # --- the order --------------------------------------------------------------------------------------------------

    async def _place(self, placed: Placed) -> None:
        try:
            answer = await self._create(placed)
        finally:
            self._placing -= 1
        if isinstance(answer, Taken):
            self._is_well()
            self._tie(placed, answer.call_sid)
        elif isinstance(answer, NotTaken):
            self._not_taken(placed, answer)
        elif answer is None:
            placed.over = True
            placed.call.finished("no_answer", "called off before it was ordered", "gateway")
        else:
            await self._look_for(placed, answer)

    async def _create(self, placed: Placed) -> Taken | NotTaken | Unknown | None:
        """None: it was called off before it was sent."""
        for attempt in range(1, BUSY_TRIES + 1):
            if placed.leaving:
                return None
            answer = await self._account.create(placed.order)
            if not isinstance(answer, NotTaken) or answer.status != TOO_MANY or attempt == BUSY_TRIES:
                return answer
            wait_s = answer.retry_after_s if answer.retry_after_s is not None else BUSY_WAIT_S * attempt
            if wait_s > MAX_BUSY_WAIT_S:
                return answer
            placed.call.event("carrier_busy", http_status=answer.status, again_in_s=wait_s)
            await asyncio.sleep(wait_s)
        raise AssertionError("the last attempt returns")

    def _not_taken(self, placed: Placed, answer: NotTaken) -> None:
        placed.over = True
        if answer.unauthorized or answer.unreached:
            self._is_ill(answer)
        else:
            self._is_well()
        ended = (
            endings.unreachable(answer.why) if answer.unreached else endings.from_twilio_api(answer.status, answer.code)
        )
        placed.failure = replace(twilio_failure(answer.status, answer.code), ended=ended, may_have_rung=False)
        placed.call.event("carrier_refused", http_status=answer.status, error=answer.code, why=answer.why)
        placed.call.finished(ended.reason, ended.detail, ended.by, ended.provider_code)

    async def _look_for(self, placed: Placed, answer: Unknown) -> None:
        """Its callbacks find the way by themselves; where they cannot reach us, Twilio's list does."""
        placed.call.event("carrier_unclear", why=answer.why)
        log.warning("call %s: Twilio may or may not have taken the order (%s)", placed.call.id, answer.why)
        for pause_s in LOOK_AFTER_S:
            try:
                async with asyncio.timeout(pause_s):
                    await placed.tied.wait()
            except TimeoutError:
                pass
            if placed.call_sid is not None or placed.over:
                return
            found = await self._find(placed)
            if found is not None:
                placed.call.event("carrier_found", call_sid=found)
                self._tie(placed, found)
                return
        placed.leaving = True  # should it turn up after all
        code = endings.from_twilio_api(0).provider_code
        why = "Twilio did not say whether it took the order, and shows no such call"
        placed.call.finished("failed", why, provider_code=code)

    async def _find(self, placed: Placed) -> CallSid | None:
        """The call of this order, for certain: Twilio shows that it asked or told us something with its token."""
        listed = await self._account.recent(placed.order.to_number, placed.order.from_number)
        if isinstance(listed, NotTaken | Unknown):
            return None
        earliest = placed.since - timedelta(seconds=CLOCK_SKEW_S)
        for call in listed:
            if not call.ours or call.created < earliest or call.call_sid in self._sids:
                continue
            urls = await self._account.requested(call.call_sid)
            if not isinstance(urls, NotTaken | Unknown) and any(placed.token in url for url in urls):
                return call.call_sid
        return None

    def _tie(self, placed: Placed, call_sid: CallSid) -> bool:
        """False: the order has another call already, so this one is too many."""
        if placed.call_sid is None:
            placed.call_sid = call_sid
            self._sids.add(call_sid)
            if placed.further is None:
                self._board.named(placed.call.id, call_sid)
            else:
                placed.call.event("leg_named", provider_call_id=call_sid)
            placed.tied.set()
            log.info("call %s is %s", placed.call.id, call_sid)
            if placed.leaving:
                self.leave(placed)
        elif placed.call_sid != call_sid:
            log.error("call %s: Twilio made a second call of it, %s, which is hung up", placed.call.id, call_sid)
            placed.call.event("carrier_twice", call_sid=call_sid)
            self._spawn(self._end(call_sid))
            return False
        return True

    # --- the webhooks (PlacedCalls) ---------------------------------------------------------------------------------

    def answer(self, token: str, call_sid: CallSid) -> Literal["call", "leg"] | None:
        """The far end picked up, and Twilio asks what now. None: hang up."""
        placed = self._orders.get(token)
        if placed is None or not self._tie(placed, call_sid) or placed.leaving or placed.over:
            return None
        placed.answered = True
        placed.call.answered()
        return "call" if placed.further is None else "leg"

    def further(self, token: str) -> LegCall | None:
        """The second leg that was ordered so, while it is wanted: its stream has come."""
        placed = self._orders.get(token)
        return None if placed is None or placed.leaving or placed.over else placed.further

    def heard(self, token: str, heard: Heard) -> bool:
        """False: no order of ours, as far as we know."""
        placed = self._orders.get(token)
        if placed is None:
            return False
        if not self._tie(placed, heard.call_sid) or placed.over:
            return True
        call = placed.call
        call.event(
            "carrier_status",
            status=heard.status,
            duration_s=heard.duration_s,
            sip_status=heard.sip_status,
            error=heard.error,
        )
        if heard.status == "ringing" and not placed.ringing:
            placed.ringing = True
            call.event("ringing")
        elif heard.status == "in-progress":
            placed.answered = True
            call.answered()
        elif heard.status in FINAL:
            placed.over = True
            ended = endings.from_twilio(
                heard.status,
                outbound=True,
                answered=placed.answered,
                sip_status=heard.sip_status,
                error=heard.error,
            )
            call.finished(ended.reason, ended.detail, ended.by, ended.provider_code)
        return True

    def machine(self, token: str, call_sid: CallSid, answered_by: str, after_ms: int | None) -> None:
        placed = self._orders.get(token)
        if placed is None or not self._tie(placed, call_sid):
            return
        placed.call.event("answered_by", who=answered_by, after_ms=after_ms)
        machine = answered_by == "fax" or answered_by.startswith("machine")
        if placed.further is not None:
            if machine and not placed.over:
                placed.further.answered_by_machine()
        elif machine and self._terms.hang_up_on_machine and not placed.over:
            placed.call.finished("no_answer", "a machine answered", "policy")
            self.hang_up(call_sid)
        elif machine and not placed.over:
            placed.call.answered_by_machine(greeting_over(answered_by))

    def stream_event(self, token: str, call_sid: CallSid, event: str, error: str) -> bool:
        """False: no second leg of ours."""
        placed = self._orders.get(token)
        if placed is None or placed.further is None or placed.call_sid != call_sid:
            return False
        placed.call.event("stream_status", event=event, error=error)
        return True

    # --- hanging up -------------------------------------------------------------------------------------------------

    def leave(self, placed: Placed) -> None:
        if placed.call_sid is not None and not placed.over:
            self._spawn(self._leave(placed, placed.call_sid))

    async def _leave(self, placed: Placed, call_sid: CallSid) -> None:
        if await self._end(call_sid):
            asyncio.get_running_loop().call_later(TOLD_S, self._untold, placed)

    def _untold(self, placed: Placed) -> None:
        """Twilio has ended it for us, and the callback that says so was lost."""
        if not placed.over and not self._closed:
            placed.over = True
            status = "completed" if placed.answered else "canceled"
            ended = endings.from_twilio(status, outbound=True, answered=placed.answered)
            placed.call.finished(ended.reason, ended.detail, ended.by, ended.provider_code)

    def hang_up(self, call_sid: CallSid) -> None:
        """A call of Twilio's that has no stream to end it by, either way. Idempotent."""
        self._spawn(self._end(call_sid))

    async def _end(self, call_sid: CallSid) -> bool:
        """Whether Twilio has heard it."""
        for pause_s in (*END_AGAIN_S, None):
            answer = await self._account.end(call_sid)
            if isinstance(answer, Taken):
                return True
            if pause_s is None or (isinstance(answer, NotTaken) and answer.status not in (0, TOO_MANY)):
                log.error("%s is not hung up: %s", call_sid, answer.why)
                return False
            await asyncio.sleep(pause_s)
        raise AssertionError("the last attempt returns")

    # --- the account's health ---------------------------------------------------------------------------------------

    def _is_well(self) -> None:
        if self._refused is not None:
            log.info("trunk %s is up", TRUNK)
        self._refused, self._reached = None, True

    def _is_ill(self, refused: NotTaken) -> None:
        if self._refused is None or self._refused.unauthorized != refused.unauthorized:
            why = (
                "Twilio does not accept our login (401): see twilio.account_sid, api_key_sid and auth_token"
                if refused.unauthorized
                else f"Twilio's REST API cannot be reached ({refused.why})"
            )
            log.error("trunk %s is down: %s", TRUNK, why)
        self._refused = refused
        self._check_soon(CHECK_AGAIN_S)

    def _check_soon(self, after_s: float) -> None:
        if self._checking is None and not self._closed:
            self._checking = asyncio.create_task(self._check(after_s), name="twilio check")

    async def _check(self, after_s: float) -> None:
        while True:
            await asyncio.sleep(after_s)
            answer = await self._account.check()
            if answer is None:
                self._is_well()
            elif isinstance(answer, NotTaken) and (answer.unauthorized or answer.unreached):
                self._is_ill(answer)
            if self._refused is None:
                self._checking = None
                return
            after_s = CHECK_AGAIN_S

    # --- tasks ------------------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, object], placed: Placed | None = None) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda done: self._done(done, placed))

    def _done(self, task: "asyncio.Task[object]", placed: Placed | None) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        if placed is not None:
            placed.call.crashed(error)
        else:
            log.error("hanging up at Twilio: %s", error, exc_info=error)
