"""Who may come in over a device's leg, and whose call that is then: the same for every kind of such leg."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from trunkline.gateway import live
from trunkline.gateway.arrival import Arrival
from trunkline.gateway.joining import Joining, Verifier
from trunkline.gateway.leg import DeviceCall, LegKind
from trunkline.gateway.switchboard import Switchboard
from trunkline.ports import Refuse
from trunkline.settings import is_loopback
from trunkline.types import CallId

RETRY_S = 2
AGAIN = frozenset({"overloaded", "tenant_full", "draining", "sessions_away", "database_away", "no_path", "agent_away"})
"""Codes that another try may help."""
NO_TOKEN = Refuse("no_token", "a join token is needed")
_NO_SESSIONS = Refuse("no_sessions", "there are no sessions here to join")


@dataclass(frozen=True, slots=True)
class Origins:
    """Whose pages may call."""

    ours: str
    others: Sequence[str] = ()

    def own(self, origin: str | None, scheme: str, host: str) -> bool:
        """No page, or one of ours. `scheme` and `host` are those the request came to."""
        return origin is None or origin in (self.ours, f"{scheme}://{host}")

    def allow(self, origin: str | None, scheme: str, host: str) -> bool:
        return self.own(origin, scheme, host) or origin in self.others


def is_ours_alone(host: str) -> bool:
    """A Host header names this machine by a loopback name; where only that should reach us, any other is DNS
    rebinding."""
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Entered:
    """Who came, and what holds for them."""

    call: DeviceCall
    joined: live.Joined
    needs_arming: bool = False


class Entrance:
    def __init__(self, switchboard: Switchboard, verifier: Verifier | None, *, anonymous: bool) -> None:
        """`verifier`: None where there are no sessions; then every token is refused. `anonymous`: whoever has no token
        may call."""
        self._board, self._verifier, self._anonymous = switchboard, verifier, anonymous

    async def may(self, token: str) -> Refuse | None:
        """Whether `enter` would let them in, as far as the token tells; it stays good. Codes: `no_token`,
        `no_sessions`, those of Verifier.check."""
        if not token:
            return None if self._anonymous else NO_TOKEN
        if self._verifier is None:
            return _NO_SESSIONS
        return await self._verifier.check(token)

    async def enter(self, token: str, leg: LegKind, name: str) -> Entered | Refuse:
        """The call is there when this returns; its leg is not. `name`: of the call, where it has no session. Does not
        raise. Codes: `no_token`, `no_sessions`, `ended`, those of Verifier.join, Switchboard.join and admit."""
        if token:
            if self._verifier is None:
                return _NO_SESSIONS
            joined = await self._verifier.join(token)
            if isinstance(joined, Refuse):
                return joined
            return await attend(self._board, joined, leg)
        if not self._anonymous:
            return NO_TOKEN
        arrival = Arrival(name, leg, "inbound", from_number=None, to_number=None)
        await self._board.expect(arrival)
        call_id = self._board.admit(arrival)
        return call_id if isinstance(call_id, Refuse) else _entered(self._board, call_id)


async def attend(board: Switchboard, joining: Joining, leg: LegKind) -> Entered | Refuse:
    """Whoever has joined a session has its call: as Entrance.enter, without a token."""
    await board.expect_joining(joining, leg)
    call_id = board.join(joining, leg)
    return call_id if isinstance(call_id, Refuse) else _entered(board, call_id, joining)


def _entered(board: Switchboard, call_id: CallId, joining: Joining | None = None) -> Entered | Refuse:
    call = board.call(call_id)
    if call is None:
        return Refuse("ended", "this call is over")
    if joining is None:
        return Entered(call, live.Joined(session_id="", call_id=call_id, agent=call.started.agent))
    joined = live.Joined(
        session_id=joining.session_id,
        call_id=call_id,
        agent=call.started.agent,
        resumed=joining.resumed,
        resume_token=joining.resume_token,
    )
    return Entered(call, joined, joining.needs_arming)
