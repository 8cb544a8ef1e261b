"""Calls those back who asked for it while they waited: one of a number at a time, when it has a line to spare.

    claim ─► before those who wait? ─► who answers the number now? ─► a line ─► the dial door ─► begin ─► dial
                └───────────────┴──────── later, till a day is over ────┴──────────┘

Everything is asked first, so that only a call that goes out leaves a record. What became of it is an event `callback`
of the call in which they asked.
"""

import asyncio
import logging
from collections.abc import Awaitable
from contextlib import suppress
from datetime import timedelta
from typing import Protocol

from trunkline.callbacks import PURPOSE, CallBack, CallBacks, State
from trunkline.clock import Clock
from trunkline.errors import StoreError
from trunkline.gateway.arrival import Arrival
from trunkline.gateway.dialling import DialOrder, new_call_id
from trunkline.gateway.routed import Routed
from trunkline.gateway.switchboard import Switchboard
from trunkline.ports import CallEvent, Refuse
from trunkline.types import CallId

log = logging.getLogger(__name__)

POLL_S = 3.0
AWAY_S = 10.0
"""After a look at a database that is away."""
MOST_AT_ONCE = 8
SOON_S = 5.0
"""Till the next try, where a line is missing,"""
LATER_S = 120.0
"""and where something else is in the way that passes: the hour, a count, a list that cannot be read."""
_SOON = ("overloaded", "tenant_full", "number_full", "slots_unknown", "others_first")
_NEVER = (
    "outbound_closed",
    "country_closed",
    "invalid_number",
    "emergency",
    "premium",
    "company_dnc",
    "callback_unset",
    "consent_revoked",
    "number_moved",
)
_TAKEN = Refuse("taken", "another process places it, or they asked again")


class Counsel(Protocol):
    """As `api.calls.Counsel`."""

    def prepare(self, order: DialOrder) -> Awaitable[DialOrder]: ...

    def refused(self, order: DialOrder) -> Awaitable[None]: ...


class CallingBack:
    def __init__(
        self, board: Switchboard, backs: CallBacks, counsel: Counsel, clock: Clock, *, trunk: str | None = None
    ) -> None:
        """`trunk`: over which they came, and are called."""
        self._board, self._backs, self._counsel, self._clock, self._trunk = board, backs, counsel, clock, trunk
        self._task: asyncio.Task[None] | None = None
        self._begun = False
        """What is being placed now."""

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="callbacks")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            pause_s = POLL_S
            try:
                if not self._board.draining:
                    await self.round()
            except StoreError as error:
                log.warning("callbacks wait: %s", error)
                pause_s = AWAY_S
            except Exception:
                log.exception("callbacks")
                pause_s = AWAY_S
            await asyncio.sleep(pause_s)

    async def round(self) -> int:
        """How many were placed. Raises StoreError."""
        found = await self._backs.claim(MOST_AT_ONCE)
        for wanted, state, code in found.over:
            self._told(wanted, state, code=code)
        placed = 0
        for wanted in found.due:
            came = await self._place(wanted)
            placed += not isinstance(came, Refuse)
            if isinstance(came, Refuse):
                await self._not_now(wanted, came)
        return placed

    async def _not_now(self, wanted: CallBack, refused: Refuse) -> None:
        if refused is _TAKEN:
            return
        if refused.code in _NEVER:
            self._told(wanted, "failed", code=refused.code)
            await self._backs.settle(wanted, "failed", None, refused.code, begun=self._begun)
            return
        wait_s = SOON_S if refused.code in _SOON else LATER_S
        await self._backs.later(wanted, self._clock.wall() + timedelta(seconds=wait_s), refused.code, begun=self._begun)

    async def _place(self, wanted: CallBack) -> CallId | Refuse:
        """Raises StoreError."""
        self._begun = False
        if self._came_before(wanted):
            return Refuse("others_first", "others have waited longer")
        call_id = new_call_id()
        routed = await self._answering(wanted, call_id)
        if isinstance(routed, Refuse):
            return routed
        order = DialOrder(
            wanted.number,
            wanted.our_number,
            self._trunk,
            attributes={"callback_of": wanted.call_id},
            purpose=PURPOSE,
            call_id=call_id,
            tenant=wanted.tenant,
            routed=routed,
        )
        if (no_line := await self._board.line_for(order)) is not None:
            return no_line
        try:
            return await self._dial(wanted, order, call_id)
        finally:
            if self._board.call(call_id) is None and self._board.slots is not None:
                self._board.slots.free(call_id)

    async def _dial(self, wanted: CallBack, order: DialOrder, call_id: CallId) -> CallId | Refuse:
        prepared = await self._counsel.prepare(order)
        placed: CallId | Refuse = self._board.may_dial(prepared) or call_id
        if not isinstance(placed, Refuse):
            self._begun = await self._backs.begin(wanted)
            placed = self._board.dial(prepared) if self._begun else _TAKEN
        if isinstance(placed, Refuse):
            await self._counsel.refused(prepared)
            return placed
        self._told(wanted, "placed", call_id=placed)
        await self._backs.settle(wanted, "placed", placed, begun=True)
        return placed

    def _came_before(self, wanted: CallBack) -> bool:
        """Somebody who waits here for the same number."""
        since = self._board.waiting.since(wanted.tenant, wanted.our_number)
        waited_s = None if since is None else self._clock.now() - since
        return waited_s is not None and waited_s > (self._clock.wall() - wanted.asked_at).total_seconds()

    async def _answering(self, wanted: CallBack, call_id: CallId) -> Routed | Refuse | None:
        """Who would answer, if they called now."""
        routing = self._board.routing
        if routing is None:
            return None
        here = Arrival(call_id, "twilio", "inbound", wanted.number, wanted.our_number)
        routed = await routing.expect(here)
        routing.take(here)
        if routed is None or routed.tenant != wanted.tenant:
            return Refuse("number_moved", "the number they called is not this tenant's any more")
        if not routed.to_agent:
            return Refuse("closed", routed.answered.why[-1])
        return routed

    def _told(self, wanted: CallBack, state: State, **more: str) -> None:
        self._board.records.append(CallEvent(wanted.call_id, self._clock.wall(), "callback", {"state": state, **more}))
