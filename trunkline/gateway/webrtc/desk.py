"""All WebRTC legs of the process: who is let in, what drives them, and the end of them.

An offer becomes a leg in this order, each step bounded: room (lines, and how many may be connecting), the SDP, the
token, the call, where we can be reached. What fails before the answer is a `Refuse` of its own code; what fails after
it (ICE, DTLS) ends the call's record as never_started.

A leg has no task or timer of its own: one timer beats for all of them every 20 ms, and watches their deadlines.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from trunkline.clock import Clock
from trunkline.gateway.entering import Entrance
from trunkline.gateway.joining import Verifier
from trunkline.gateway.switchboard import Switchboard
from trunkline.gateway.webrtc import sdp
from trunkline.gateway.webrtc.ice import Credentials, credentials, links
from trunkline.gateway.webrtc.leg import WebRtcLeg
from trunkline.gateway.webrtc.sdp import Ours, SdpError
from trunkline.gateway.webrtc.wire import Paths, Wire
from trunkline.media.heartbeat import BEAT_S, Beats
from trunkline.media.playout import LeadPolicy
from trunkline.ports import Refuse

log = logging.getLogger(__name__)

CHECK_BEATS = 25  # between looks at the deadlines of all
CREDENTIALS_S = 3600  # of TURN; a call that lasts longer keeps its relay, it is only asked for anew
CLOSE_S = 3.0


@dataclass(frozen=True, slots=True)
class DeskTerms:
    """Of all legs."""

    paths: Paths
    lead: LeadPolicy
    max_connecting: int
    media_timeout_s: float
    anonymous: bool
    """Whoever has no token may call."""
    turn_secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Opened:
    """A leg that was let in."""

    id: str
    """Names it in its URL, and is known to nobody else."""
    etag: str
    answer: str
    resume_token: str = field(default="", repr=False)


@dataclass(slots=True)
class _Guest:
    leg: WebRtcLeg
    wire: Wire
    opened: Opened
    ice_username: str


class WebRtcDesk:
    def __init__(
        self,
        switchboard: Switchboard,
        verifier: Verifier | None,
        new_wire: Callable[[], Wire],
        terms: DeskTerms,
        clock: Clock,
    ) -> None:
        """`verifier`: None where there are no sessions; then every token is refused."""
        self._board, self._new_wire = switchboard, new_wire
        self._entrance = Entrance(switchboard, verifier, anonymous=terms.anonymous)
        self._terms, self._clock = terms, clock
        self._guests: dict[str, _Guest] = {}
        self._opening = 0
        self._closed = False
        self._leaving: set[asyncio.Task[None]] = set()
        self._timer = Beats(clock, self._beat)
        self._beats = 0

    # --- what WHIP asks ---

    async def open(self, body: bytes, token: str) -> Opened | Refuse:
        """An offer. Does not raise. Refuse codes: `overloaded`, `draining`, `sessions_away` (another try may help), the
        SDP's (sdp.Code), `no_token`, those of Verifier.join and of Switchboard.join and admit."""
        opened = await self._open(body, token)
        self._board.metrics.webrtc_offer(opened.code if isinstance(opened, Refuse) else "opened")
        return opened

    async def may_call(self, token: str) -> Refuse | None:
        """As Entrance.may: the token stays good."""
        return await self._entrance.may(token)

    async def _open(self, body: bytes, token: str) -> Opened | Refuse:
        if (no_line := self._board.no_line()) is not None:
            return no_line
        if self._closed:
            return Refuse("draining", "the gateway is being stopped")
        if self._opening + self._connecting >= self._terms.max_connecting:
            return Refuse("overloaded", "too many are connecting already")
        try:
            offer = sdp.read_offer(body)
        except SdpError as error:
            return Refuse(error.code, error.why)
        self._opening += 1
        wire = self._new_wire()
        try:
            # Where we are reached first, for the token is good once, and a call that cannot be reached is none.
            here = await wire.gather(self._terms.paths, self._credentials("gateway"))
            if not here.candidates:
                wire.close()
                return Refuse("no_path", "no address or relay that this gateway can be reached at over WebRTC")
            entered = await self._entrance.enter(token, "webrtc", f"webrtc-{secrets.token_hex(12)}")
        except BaseException:
            wire.close()
            raise
        finally:
            self._opening -= 1
        if isinstance(entered, Refuse):
            wire.close()
            return entered
        name, etag = secrets.token_urlsafe(18), f'"{secrets.token_hex(8)}"'
        leg = WebRtcLeg(wire, offer, self, entered, self._terms.lead, self._clock)
        ours = Ours(
            here.ice_username,
            here.ice_password,
            here.fingerprint,
            here.candidates,
            leg.ssrc,
            secrets.randbits(31),
        )
        opened = Opened(name, etag, sdp.write_answer(offer, ours), entered.joined.resume_token)
        self._guests[name] = _Guest(leg, wire, opened, offer.ice_username)
        wire.start(offer, self._terms.paths.connect_s, leg)
        self._timer.start()
        return opened

    def trickle(self, name: str, etag: str, body: bytes) -> Refuse | None:
        """Candidates of a far end. Refuse codes: `unknown`, `wrong_etag`, `no_restart`, the SDP's."""
        guest = self._guests.get(name)
        if guest is None:
            return Refuse("unknown", "no such session")
        if etag not in ("*", guest.opened.etag):
            return Refuse("wrong_etag", "If-Match names another ICE session than this one")
        try:
            trickled = sdp.read_trickled(body)
        except SdpError as error:
            return Refuse(error.code, error.why)
        if etag == "*" or (trickled.ice_username is not None and trickled.ice_username != guest.ice_username):
            return Refuse("no_restart", "ICE cannot be restarted here: POST a new offer with a token of the session")
        guest.wire.add_candidates(trickled.candidates, end=trickled.end)
        return None

    def hang_up(self, name: str) -> bool:
        """False: there is no such leg any more."""
        guest = self._guests.get(name)
        if guest is None:
            return False
        guest.leg.hang_up()
        return True

    @property
    def server_links(self) -> list[str]:
        """STUN and TURN servers for a device, as Link headers."""
        return links(self._terms.paths.servers, self._credentials("device"))

    def _credentials(self, name: str) -> Credentials | None:
        secret = self._terms.turn_secret
        if not secret:
            return None
        return credentials(secret, name, int(self._clock.wall().timestamp()) + CREDENTIALS_S)

    # --- LegDesk ---

    def left(self, leg: WebRtcLeg, why: str) -> None:
        name = next((name for name, guest in self._guests.items() if guest.leg is leg), None)
        if name is not None:
            guest = self._guests.pop(name)
            self._count(leg, why)
            task = asyncio.create_task(guest.wire.closed(), name="webrtc leaving")
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    def _count(self, leg: WebRtcLeg, why: str) -> None:
        metrics = self._board.metrics
        if leg.is_connected:
            metrics.webrtc_ended(leg.stats())
        else:
            metrics.webrtc_unreached("ice" if why.startswith("ICE") else "dtls" if why.startswith("DTLS") else "other")

    def measure(self) -> None:
        """How many legs there are, for the metrics."""
        connecting = self._connecting
        self._board.metrics.webrtc_legs(self._opening + connecting, len(self._guests) - connecting)

    @property
    def _connecting(self) -> int:
        return sum(not guest.leg.is_connected for guest in self._guests.values())

    @property
    def legs(self) -> int:
        return len(self._guests)

    # --- one timer ---

    def _beat(self, now: float) -> float | None:
        self._beats += 1
        for guest in tuple(self._guests.values()):
            guest.leg.beat(now)
        if self._beats % CHECK_BEATS == 0:
            self._check(now)
        return BEAT_S if self._guests else None

    def _check(self, now: float) -> None:
        for guest in tuple(self._guests.values()):
            leg = guest.leg
            if leg.is_connected and now - leg.heard_at > self._terms.media_timeout_s:
                leg.lose("no media")

    # --- the end ---

    def say_goodbye(self) -> None:
        """Nobody new is let in, and every leg is closed. Idempotent."""
        self._closed = True
        for guest in tuple(self._guests.values()):
            guest.leg.close("going away")

    async def close(self) -> None:
        """No leg is there when this returns. Idempotent."""
        self.say_goodbye()
        if self._leaving:
            await asyncio.wait(tuple(self._leaving), timeout=CLOSE_S)
        self._timer.stop()
