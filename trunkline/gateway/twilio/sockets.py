"""Twilio's media sockets: who may knock, whose call a stream is, and the end of all of them.

A socket is let in while not too many strangers wait; the token in its `start` names the call, or the second leg of one,
that is then attached to it. Deadlines of all sockets are looked at in one timer.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from trunkline.clock import Clock
from trunkline.errors import PeerError
from trunkline.gateway.leg import LegCall
from trunkline.gateway.rfc6455 import GOING_AWAY
from trunkline.gateway.switchboard import Switchboard
from trunkline.gateway.twilio.leg import CLOSE_WAIT_S, TwilioLeg
from trunkline.gateway.twilio.tokens import POLICY_VIOLATION, Tokens
from trunkline.gateway.twilio.wire import Started
from trunkline.media.bus import Receiver
from trunkline.media.playout import LeadPolicy
from trunkline.metrics import Drop, Metrics
from trunkline.ports import Refuse
from trunkline.types import CallId, CallSid

log = logging.getLogger(__name__)

CHECK_S = 0.25  # how often deadlines of sockets are looked at
STRANGER_S = 1.0  # a socket without a token may keep others out for so long, when there are too many
TOKEN_PARAMETER = "token"


@dataclass(frozen=True, slots=True)
class SocketLimits:
    max_unauthenticated: int
    start_timeout_s: float
    media_timeout_s: float
    lead: LeadPolicy = field(default_factory=LeadPolicy)


class Sockets:
    """The MediaDoor of this process."""

    def __init__(
        self,
        switchboard: Switchboard,
        tokens: Tokens,
        limits: SocketLimits,
        metrics: Metrics,
        clock: Clock,
        hang_up: Callable[[CallSid], None] | None = None,
        further: Callable[[str], LegCall | None] | None = None,
    ) -> None:
        """`hang_up`: ends a call that has no stream any more; without an account nobody can. `further`: the second leg
        of an order."""
        self._switchboard, self._tokens, self._limits = switchboard, tokens, limits
        self._metrics, self._clock, self._hang_up, self._further = metrics, clock, hang_up, further
        self._legs: set[TwilioLeg] = set()
        self._checking: asyncio.TimerHandle | None = None
        self._closed = False
        self._empty = asyncio.Event()
        self._empty.set()

    def new_leg(self) -> TwilioLeg:
        leg = TwilioLeg(
            self,
            self._clock,
            start_timeout_s=self._limits.start_timeout_s,
            media_timeout_s=self._limits.media_timeout_s,
            lead=self._limits.lead,
        )
        self._legs.add(leg)
        self._empty.clear()
        self._check_soon()
        return leg

    # --- MediaDoor ---

    def welcome(self, leg: TwilioLeg) -> bool:
        self._metrics.sockets(len(self._legs))
        strangers = [other for other in self._legs if not other.authenticated and not other.closing]
        if self._closed:
            return False
        if len(strangers) <= self._limits.max_unauthenticated:
            return True
        # A carrier shows its token at once; whoever has not by now must not keep the next caller out.
        oldest = min(strangers, key=lambda other: other.opened_at)
        if self._clock.now() - oldest.opened_at < STRANGER_S:
            return False
        self.misbehaved("a stranger that stayed")
        oldest.abort()
        return True

    def attach(self, leg: TwilioLeg, started: Started) -> tuple[LegCall, Receiver]:
        whose = self._tokens.redeem(started.parameters.get(TOKEN_PARAMETER, ""), started.call_sid, self._clock.now())
        call = self._whose(whose)
        if call is None:
            raise PeerError("no such call any more", POLICY_VIOLATION)
        bus = call.attach(leg)
        if isinstance(bus, Refuse):
            raise PeerError(bus.why, POLICY_VIOLATION)
        return call, bus

    def _whose(self, name: str) -> LegCall | None:
        call = self._switchboard.call(CallId(name))
        return self._further(name) if call is None and self._further is not None else call

    def gone(self, leg: TwilioLeg, code: int) -> None:
        self._legs.discard(leg)
        if not self._legs:
            self._empty.set()
        self._metrics.ws_closed(code)
        self._metrics.sockets(len(self._legs))
        stats = leg.stream.stats
        self._drop("sequence_gap", stats.gaps)
        self._drop("bad_message", stats.ignored)

    def hang_up(self, call_sid: CallSid) -> None:
        if self._hang_up is not None:
            self._hang_up(call_sid)

    def misbehaved(self, what: str) -> None:
        self._metrics.drop("slow_reader" if what == "slow reader" else "bad_message")

    def _drop(self, cause: Drop, count: int) -> None:
        if count:
            self._metrics.drop(cause, count)

    # --- deadlines ---

    def _check_soon(self) -> None:
        if self._checking is None:
            self._checking = asyncio.get_running_loop().call_later(CHECK_S, self._check)

    def _check(self) -> None:
        self._checking = None
        now = self._clock.now()
        for leg in tuple(self._legs):
            try:
                leg.check(now)
            except Exception:
                log.exception("a media socket's deadline")
                leg.abort()
        if self._legs:
            self._check_soon()

    # --- the end ---

    def say_goodbye(self) -> None:
        """Nobody new is let in; every socket sees 1001. Idempotent."""
        self._closed = True
        for leg in tuple(self._legs):
            leg.shut(GOING_AWAY, "going away")

    async def close(self) -> None:
        """No socket is there when this returns, whatever the peers do. Idempotent."""
        self.say_goodbye()
        try:
            async with asyncio.timeout(CLOSE_WAIT_S + 2 * CHECK_S):
                await self._empty.wait()
        except TimeoutError:
            for leg in tuple(self._legs):
                leg.abort()
            self._legs.clear()
        if self._checking is not None:
            self._checking.cancel()
            self._checking = None
