"""Twilio's media sockets: who may knock, whose call a stream is, and the end of all of them.

A socket is let in while not too many strangers wait; the token in its `start` names the call, or the second leg of one,
that is then attached to it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from trunkline.clock import Clock
from trunkline.errors import PeerError
from trunkline.gateway.leg import LegCall
from trunkline.gateway.mediasocket import MediaSocket, SocketDesk
from trunkline.gateway.switchboard import Switchboard
from trunkline.gateway.twilio.leg import TwilioLeg
from trunkline.gateway.twilio.tokens import POLICY_VIOLATION, Tokens
from trunkline.gateway.twilio.wire import Started
from trunkline.media.bus import Receiver
from trunkline.media.playout import LeadPolicy
from trunkline.metrics import Drop, Metrics
from trunkline.ports import Refuse
from trunkline.types import CallId, CallSid

TOKEN_PARAMETER = "token"


@dataclass(frozen=True, slots=True)
class SocketLimits:
    max_unauthenticated: int
    start_timeout_s: float
    media_timeout_s: float
    lead: LeadPolicy = field(default_factory=LeadPolicy)


class Sockets(SocketDesk[TwilioLeg]):
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
        super().__init__(limits.max_unauthenticated, metrics, clock)
        self._switchboard, self._tokens, self._limits = switchboard, tokens, limits
        self._hang_up, self._further = hang_up, further

    def new_leg(self) -> TwilioLeg:
        limits = self._limits
        return self._took(
            TwilioLeg(
                self,
                self._clock,
                start_timeout_s=limits.start_timeout_s,
                media_timeout_s=limits.media_timeout_s,
                lead=limits.lead,
            )
        )

    # --- MediaDoor ---

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

    def gone(self, socket: MediaSocket, code: int) -> None:
        super().gone(socket, code)
        assert isinstance(socket, TwilioLeg)
        stats = socket.stream.stats
        self._drop("sequence_gap", stats.gaps)
        self._drop("bad_message", stats.ignored)

    def hang_up(self, call_sid: CallSid) -> None:
        if self._hang_up is not None:
            self._hang_up(call_sid)

    def _drop(self, cause: Drop, count: int) -> None:
        if count:
            self._metrics.drop(cause, count)
