"""Callers who wait for a line of a number whose route has a queue: over Twilio, in this process.

    admit ─► no line ─► join ─► (music) ─► ask, again ─┬─► a line, and it is theirs ─► the switchboard takes the call
                                   ▲                   ├─► keep on waiting
                                   └───────────────────┘   └─► Over, a callback, hung up ─► the record is closed

A caller who waits has a record and no line, leg or slot: Twilio asks for them every few seconds. Each who asks looks
for those before them, too: the slots that are free are kept for the first, so that nobody passes them and none stays
empty because the first has not asked yet. Who waits in which order is numbers/queueing.py's.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from trunkline.callbacks import KEPT_FOR, PURPOSE, CallBack
from trunkline.errors import StoreError
from trunkline.gateway.arrival import Arrival
from trunkline.gateway.linecall import LineCall
from trunkline.gateway.routed import Elsewhere, Queued, Routed
from trunkline.gateway.slots import UNKNOWN
from trunkline.numbers.queueing import OFFER, OFFER_VERSION, Line, Over, Waiting
from trunkline.ports import Allow, EndReason, Facts, Grant, Refuse
from trunkline.types import DEFAULT_TENANT, E164, CallId, TenantId

if TYPE_CHECKING:
    from trunkline.gateway.switchboard import Switchboard

log = logging.getLogger(__name__)

MOST = 2000
"""Of all numbers together."""
SWEEP_S = 5.0
ASK_S = 4.0
"""For the slots of all those before them: Twilio waits 15 s for an answer."""
NOTE_S = 2.0
"""For a callback to be written, while its caller listens."""
CALLBACK_KEY = "1"
CALLED_BACK = "Thank you. We will call you back at this number as soon as a line is free. Goodbye."
OTHERS_FIRST = Refuse("number_full", "others wait for this number already")
FULL = ("tenant_full", "number_full", "overloaded")
_NEVER = (
    "outbound_closed",
    "country_closed",
    "invalid_number",
    "emergency",
    "premium",
    "company_dnc",
    "callback_unset",
)
"""Refusals of a call to them that no waiting changes."""

Key = tuple[TenantId, str]


class CallBacks(Protocol):
    async def note(self, wanted: CallBack) -> None:
        """Durable when it returns; the same caller's for the same number takes the place of one before. Raises
        StoreError."""
        ...


@dataclass(slots=True)
class _Waits:
    call: LineCall
    number: E164
    line: Line
    waiting: Waiting
    may_go: bool = False
    """As was found out when it last asked."""
    called_back: bool = False
    unwritten: bool = False


class WaitingRoom:
    def __init__(self, board: "Switchboard") -> None:
        self._board = board
        self._lines: dict[Key, Line] = {}
        self._waits: dict[str, _Waits] = {}
        self._sweeping: asyncio.Task[None] | None = None
        self.call_backs: CallBacks | None = None
        """None: nobody is offered one."""

    def __len__(self) -> int:
        return len(self._waits)

    def __contains__(self, name: str) -> bool:
        return name in self._waits

    def since(self, tenant: TenantId, number: str) -> float | None:
        """Of who has waited longest for it, on our clock."""
        line = self._lines.get((tenant, number))
        return None if line is None else line.since()

    # --- a caller who comes ---

    def others_first(self, arrival: Arrival, routed: Routed | None) -> Refuse | None:
        """Who comes now does not pass those who wait."""
        if routed is None or arrival.to_number is None or not _may_wait(arrival, routed):
            return None
        return OTHERS_FIRST if self._lines.get((routed.tenant, arrival.to_number)) else None

    def join(self, call: LineCall, no_line: Refuse) -> Refuse | None:
        """A Queued, or what the answer door says; None: there is no queue, or no place in it."""
        if no_line.code not in FULL or not _may_wait(call.arrival, call.routed) or len(self._waits) >= MOST:
            return None
        assert call.routed is not None
        terms = call.routed.answered.queue
        assert terms is not None
        assert call.arrival.to_number is not None
        key, name = (call.tenant, call.arrival.to_number), call.arrival.provider_call_id
        line = self._lines.get(key) or Line()
        if len(line) >= terms.max_waiting:
            return None
        decision = call.ask("answer")
        if isinstance(decision, Refuse):
            call.end("refused", decision.code)
            return decision
        may_be_called = terms.offer_callback and self._may_call_back(call)
        waiting = line.join(name, terms, self._now(), may_be_called_back=may_be_called)
        assert waiting is not None
        self._lines[key] = line
        waits = self._waits[name] = _Waits(call, key[1], line, waiting)
        call.event("queued", position=len(line), why=no_line.code, max_wait_s=terms.max_wait_s)
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.get_running_loop().create_task(self._sweep(), name="queues")
        return self._on_hold(waits, no_line)

    def _may_call_back(self, call: LineCall) -> bool:
        """What the ledger and the hours say is asked when they are called: of the rest we know now."""
        board, number = self._board, call.started.from_number
        if self.call_backs is None or not board.diallers or number is None:
            return False
        if board.consents is not None and call.tenant != DEFAULT_TENANT:
            return False  # the rules' lists are one tenant's
        facts = Facts("dial", call.tenant, "outbound", call.started.to_number, number, purpose=PURPOSE)
        decision = board.decide(facts, board.clock.wall())
        return isinstance(decision, Allow) or decision.code not in _NEVER

    # --- and asks again ---

    async def ask(self, name: str) -> None:
        """Before `again`: whether the slots that are free are enough for those before them, and for them. Does not
        raise, and takes ASK_S at most."""
        waits = self._waits.get(name)
        if waits is None:
            return
        waits.may_go = False
        with suppress(TimeoutError):
            async with asyncio.timeout(ASK_S):
                await self._ask(waits, name)

    async def _ask(self, waits: _Waits, name: str) -> None:
        slots, ahead = self._board.slots, waits.line.ahead_of(name)
        for each in (*ahead, name):
            if slots is None or (theirs := self._waits.get(each)) is None:
                continue
            limits = self._board.limits_of(theirs.call.routed)
            refused = await slots.reserve(each, "inbound", waits.number, limits)
            if each not in self._waits:  # hung up meanwhile
                slots.free(each)
            elif refused is not None:  # while the store is away the first is counted by this process
                waits.may_go = refused.code == UNKNOWN.code and not ahead
                return
        waits.may_go = True

    def again(self, name: str) -> CallId | Refuse | None:
        """Of a caller who waits; None: they do not."""
        waits = self._waits.get(name)
        if waits is None:
            return None
        if waits.called_back:
            self._end(waits, "callback", "overloaded")
            return Elsewhere("callback", "they will be called back", text=CALLED_BACK)
        no_line = self._no_line(waits)
        waits.may_go = False
        if no_line is None:
            self._leave(waits, "answered")
            return self._board.enter(waits.call) or waits.call.id
        if no_line.code in FULL:
            queued = self._on_hold(waits, no_line)
            if queued is not None:
                return queued
        way_out = self._board.way_out(waits.call, no_line)
        self._end(waits, "max_wait" if no_line.code in FULL else no_line.code, "overloaded")
        return way_out

    def _no_line(self, waits: _Waits) -> Refuse | None:
        board, ahead = self._board, len(waits.line.ahead_of(waits.waiting.name))
        if (refused := board.no_line()) is not None:
            return refused
        if board.free_lines <= ahead:
            return Refuse("overloaded", "the lines that are free are for those before them")
        return board.no_line_for(waits.call) if waits.may_go else OTHERS_FIRST

    def _on_hold(self, waits: _Waits, no_line: Refuse) -> Queued | None:
        """None: they have waited long enough."""
        turn = waits.line.turn(waits.waiting.name, self._now())
        if isinstance(turn, Over):
            return None
        if turn.offers:
            waits.call.event("callback", state="offered")
        unwritten, waits.unwritten = waits.unwritten, False
        return Queued(no_line.code, no_line.why, turn=turn, unwritten=unwritten)

    # --- to be called back ---

    async def keyed(self, name: str, digits: str) -> None:
        """While they wait. Does not raise, and takes NOTE_S at most."""
        waits = self._waits.get(name)
        if waits is None or digits != CALLBACK_KEY or waits.called_back:
            return
        call, number = waits.call, waits.call.started.from_number
        if (
            self.call_backs is None
            or number is None
            or not (waits.waiting.may_be_called_back and waits.waiting.offered)
        ):
            return
        now = self._board.clock.wall()
        wanted = CallBack(call.tenant, call.id, E164(number), waits.number, now, now + KEPT_FOR)
        try:
            async with asyncio.timeout(NOTE_S):
                await self.call_backs.note(wanted)
        except (StoreError, TimeoutError) as error:
            log.warning("call %s: a callback was not noted: %s", call.id, str(error) or "the database is slow")
            call.event("callback", state="not_noted")
            waits.unwritten = True
            return
        self._agreed(wanted)
        waits.called_back = True
        call.event("callback", state="waiting", until=wanted.until.isoformat())

    def _agreed(self, wanted: CallBack) -> None:
        """A key pressed in a call, for this one call to them."""
        if self._board.consents is None:
            return
        self._board.consents.grant(
            Grant(
                wanted.tenant,
                wanted.number,
                "express_oral",
                wanted.asked_at,
                "keypad",
                ("artificial_voice", "autodialer"),
                OFFER,
                OFFER_VERSION,
                purposes=(PURPOSE,),
                call_id=wanted.call_id,
                valid_until=wanted.until + timedelta(minutes=1),
            )
        )

    # --- the end ---

    def hung_up(self, name: str) -> bool:
        """Their carrier says so. False: they do not wait."""
        waits = self._waits.get(name)
        if waits is None:
            return False
        self._end(waits, "callback" if waits.called_back else "hung_up", "caller_hung_up")
        return True

    def close(self) -> None:
        """The gateway stops. Idempotent."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for waits in tuple(self._waits.values()):
            self._end(waits, "drained", "drained")

    def _leave(self, waits: _Waits, why: str) -> None:
        name = waits.waiting.name
        position = len(waits.line.ahead_of(name)) + 1
        waits.line.leave(name)
        del self._waits[name]
        key = waits.call.tenant, waits.number
        if not waits.line:
            self._lines.pop(key, None)
        waited_s = round(self._now() - waits.waiting.since, 1)
        waits.call.event("left_queue", why=why, waited_s=waited_s, position=position)

    def _end(self, waits: _Waits, why: str, reason: EndReason) -> None:
        self._leave(waits, why)
        waits.call.end(reason, "waiting" if reason == "caller_hung_up" else why)

    async def _sweep(self) -> None:
        """Who has hung up, where no status callback says so."""
        while self._waits:
            await asyncio.sleep(SWEEP_S)
            for waits in tuple(self._gone()):
                with suppress(Exception):
                    self._end(waits, "not_heard_of", "caller_hung_up")

    def _gone(self) -> Iterator[_Waits]:
        now = self._now()
        for line in tuple(self._lines.values()):
            yield from (self._waits[name] for name in line.gone(now))

    def _now(self) -> float:
        return self._board.clock.now()


def _may_wait(arrival: Arrival, routed: Routed | None) -> bool:
    has_queue = routed is not None and routed.to_agent and routed.answered.queue is not None
    is_new = arrival.leg == "twilio" and arrival.direction == "inbound" and arrival.why == "new"
    return has_queue and is_new and arrival.to_number is not None
