"""Who is in a call beside its caller and its AI agent, and the room they meet in.

Others are dialled (`invite`) and come into the room when they answer: a supervisor, who listens, whispers or speaks, or
a further representative. Nobody notices but them: the caller's and the agent's audio moves into the room and back
without a gap. Transfers and holds use the same room (`enter`, `leave`), so a supervisor hears those as well. A leg that
replaces the caller's finds the others waiting (`suspend`, `gather`). All methods return at once.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

from trunkline.clock import Clock
from trunkline.gateway import dialledleg
from trunkline.gateway.dialledleg import DialledLeg, HungUp, Lost, Over, Unanswered
from trunkline.gateway.dialling import DialOrder
from trunkline.gateway.hands import Hands
from trunkline.gateway.leg import Dialler
from trunkline.gateway.notice import Notice, before_joining
from trunkline.gateway.room import CallRoom
from trunkline.gateway.waysout import Way, WaysOut
from trunkline.media.bus import Bus, Receiver
from trunkline.media.members import Port, Supervision
from trunkline.ports import Decision, Refuse

if TYPE_CHECKING:
    from trunkline.gateway.switchboard import Line

MAX_OTHERS = 5  # of the room's eight places three are kept: for the caller, the agent and a transfer's target
SUPERVISION_KEYS: Mapping[str, Supervision] = {"4": "listen", "5": "whisper", "6": "speak"}
"""On a supervisor's keypad, as Asterisk's ChanSpy(d) has them."""

OtherRole = Literal["supervisor", "representative"]


@dataclass(frozen=True, slots=True)
class Invitation:
    """Who is to come. `name` is a configured target's, and empty where only a number was given."""

    order: DialOrder
    role: OtherRole = "supervisor"
    supervision: Supervision = "listen"
    name: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """None: as it is."""

    supervision: Supervision | None = None
    muted: bool | None = None


@dataclass(frozen=True, slots=True)
class OtherView:
    """A further leg, for the API."""

    id: str
    role: OtherRole
    state: Literal["ringing", "joined", "ending"]
    name: str
    trunk: str
    supervision: Supervision | None
    """None: a representative."""
    muted: bool


class Host(dialledleg.Host, Protocol):
    """The call."""

    def may_come(self, invitation: Invitation) -> Decision:
        """Whether there is a conversation to come to, and the rule for this number."""
        ...

    def notice(self) -> Notice | None:
        """That who comes in hears before."""
        ...

    def here(self) -> tuple[Hands, Bus, bool] | None:
        """The caller's leg, the agent's bus, and whether the agent is with the caller. None: no conversation."""
        ...

    def deserted(self) -> None:
        """The last further representative has left."""
        ...

    def member_crashed(self, name: str | None, error: Exception) -> None:
        """Our own bug with this member of the room, or with the room."""
        ...


class Other(DialledLeg):
    """One of them, until they are over."""

    def __init__(self, party: "Party", invitation: Invitation, trunk: str, ways: WaysOut, place: int) -> None:
        """`place`: which of the trunks it is, from 1."""
        super().__init__(party.host, party.clock, role=invitation.role)
        self.invitation, self.trunk, self.ways, self.place = invitation, trunk, ways, place
        self.supervision: Supervision = invitation.supervision
        self.muted = self.dismissed = self.told = False
        self.number = invitation.order.to_number
        self._party = party
        self._ringing: asyncio.TimerHandle | None = None

    def ring_for(self, seconds: float) -> None:
        self._ringing = asyncio.get_running_loop().call_later(seconds, self.hang_up_leg, "no_answer")

    def _stop_ringing(self) -> None:
        if self._ringing is not None:
            self._ringing.cancel()
            self._ringing = None

    def picked_up(self) -> Receiver | Refuse:
        self._stop_ringing()
        return self._party.arrived(self)

    def ended(self, how: Over) -> None:
        self._stop_ringing()
        self._party.gone(self, how)

    def key(self, digit: str) -> None:
        supervision = SUPERVISION_KEYS.get(digit)
        if supervision is not None and self.invitation.role == "supervisor":
            self._party.change(self.name, Change(supervision))

    @property
    def view(self) -> OtherView:
        role = self.invitation.role
        return OtherView(
            id=self.name,
            role=role,
            state="ending" if self.leaving else "joined" if self.is_answered else "ringing",
            name=self.invitation.name,
            trunk=self.trunk,
            supervision=self.supervision if role == "supervisor" else None,
            muted=self.muted,
        )


class Party:
    """One call's. `room` is None while the caller and the agent are alone."""

    def __init__(self, host: Host, diallers: Sequence[Dialler], line: "Line", clock: Clock) -> None:
        self.host, self.clock = host, clock
        self.room: CallRoom | None = None
        self._diallers, self._line = diallers, line
        self._others: dict[str, Other] = {}
        self._in_use = False  # by a transfer or a hold

    # --- the room ---

    def enter(self) -> CallRoom:
        """For a transfer or a hold: the agent has stepped aside. `leave` follows, or the end of the call."""
        self._in_use = True
        room = self._made()
        room.unseat_agent()
        return room

    def leave(self) -> None:
        """The caller is to be with the agent again, who comes (`gather`)."""
        self._in_use = False
        if self.room is not None:
            self.room.free_caller()
        self._settle()

    def gather(self) -> None:
        """The agent has the line, and says nothing yet: who waits comes in."""
        for other in tuple(self._others.values()):
            if other.is_answered and other.port is None and not other.leaving:
                self._bring_in(other)
        self._settle()

    def suspend(self) -> None:
        """The caller's leg or the agent's bus is about to go. Idempotent."""
        room, self.room = self.room, None
        self._in_use = False
        for other in self._others.values():
            other.unplug()
        if room is not None:
            room.close()

    def close(self, why: str) -> None:
        """The call is over: nobody is left on a line. Idempotent."""
        self.suspend()
        for other in tuple(self._others.values()):
            other.hang_up_leg(why)

    def _made(self) -> CallRoom:
        if self.room is None:
            here = self.host.here()
            assert here is not None, "there is a conversation"
            leg, bus, _ = here
            self.room = CallRoom(leg, bus, self._line, self.clock, self.host.member_crashed)
        return self.room

    @property
    def others_speak(self) -> bool:
        """Somebody else than the caller may be heard by the agent."""
        return any(
            each.port is not None and (each.invitation.role != "supervisor" or each.supervision != "listen")
            for each in self._others.values()
        )

    def _settle(self) -> None:
        """The agent sits in the room as long as there is somebody to hear."""
        room, here = self.room, self.host.here()
        if room is None or self._in_use:
            return
        if here is None or not any(other.port is not None for other in self._others.values()):
            self.room = None
            room.close()
        elif here[2]:
            room.seat_agent()

    # --- the others ---

    def invite(self, invitation: Invitation) -> OtherView | Refuse:
        """Rings them. Codes: `not_now`, `not_supported`, `conference_full`, `overloaded`, the rule's and the dialler's
        own."""
        allowed = self.host.may_come(invitation)
        if isinstance(allowed, Refuse):
            return allowed
        if len(self._others) >= MAX_OTHERS:
            return Refuse("conference_full", f"at most {MAX_OTHERS} may be invited to a call")
        if any(other.invitation.order.to_number == invitation.order.to_number for other in self._others.values()):
            return Refuse("not_now", "this number rings already, or is in the call")  # a request that was repeated
        ways = WaysOut(self._diallers, invitation.order)
        way = ways.first(self.clock.now())
        return way if isinstance(way, Refuse) else self._ring(invitation, ways, way)

    def _ring(self, invitation: Invitation, ways: WaysOut, way: Way, name: str = "") -> OtherView | Refuse:
        """`name`: of who was tried over another trunk."""
        if (no_line := self.host.take_line()) is not None:
            return no_line
        place, dialler, plan = way
        other = Other(self, invitation, plan.trunk, ways, place.attempt)
        other.name = name or other.name
        self._others[other.name] = other
        self.host.event(
            "leg_dialled", leg=other.name, role=invitation.role, target=invitation.name or None, trunk=plan.trunk
        )
        try:
            other.expect(dialler.dial(plan, other))
        except Exception as error:  # our own bug costs this leg, not the call
            other.crashed(error)
            return Refuse("error", "the call could not be placed")
        if other.over:
            return Refuse("failed", "the call could not be placed")
        other.ring_for(invitation.order.ring_timeout_s + plan.ring_slack_s)
        return other.view

    def change(self, name: str, change: Change) -> Refuse | None:
        """Codes: `unknown_leg`, `not_supported` (a representative has no supervision)."""
        other = self._others.get(name)
        if other is None:
            return Refuse("unknown_leg", "the call has no such leg")
        if change.supervision is not None:
            if other.invitation.role != "supervisor":
                return Refuse("not_supported", "only a supervisor listens, whispers or speaks")
            other.supervision = change.supervision
        if change.muted is not None:
            other.muted = change.muted
        self._apply(other)
        self.host.event("leg_changed", leg=name, supervision=other.supervision, muted=other.muted)
        return None

    def dismiss(self, name: str) -> Refuse | None:
        """Hangs up that leg. Code: `unknown_leg`."""
        other = self._others.get(name)
        if other is None:
            return Refuse("unknown_leg", "the call has no such leg")
        self.host.event("operator", asked="dismiss", leg=name)
        other.dismissed = True
        self._take_out(other)
        other.hang_up_leg("agent_hung_up")
        return None

    def views(self) -> list[OtherView]:
        return [other.view for other in self._others.values()]

    def leg_named(self, name: str | None) -> DialledLeg | None:
        return self._others.get(name or "")

    def arrived(self, other: Other) -> Receiver | Refuse:
        if self.host.here() is None:
            other.hang_up_leg("ended")
            return Refuse("ending", "there is no conversation to come to")
        self._bring_in(other)
        self._settle()
        return other.port or Refuse("conference_full", "the room is full")

    def gone(self, other: Other, how: Over) -> None:
        self._others.pop(other.name, None)
        match how:
            case Unanswered():
                self._unanswered(other, how)
            case HungUp():
                self.host.event("left", leg=other.name)
            case Lost(why):
                self.host.event("left", leg=other.name, why=why)
        self._take_out(other)
        if other.invitation.role == "representative" and not self.represented:
            self.host.deserted()

    def _unanswered(self, other: Other, how: Unanswered) -> None:
        """Over the next trunk, while they are still wanted and nobody can have been rung."""
        failure = other.failed(how, trunk=other.trunk)
        if other.dismissed or self.host.here() is None:
            return
        way = other.ways.next(other.place, failure, self.clock.now())
        if way is not None:
            self._ring(other.invitation, other.ways, way, other.name)

    @property
    def represented(self) -> bool:
        """A further representative is with the caller."""
        return any(o.port is not None and o.invitation.role == "representative" for o in self._others.values())

    def _bring_in(self, other: Other) -> None:
        assert other.media is not None
        port = self._made().join(other.media, other.invitation.role, other.name)
        if isinstance(port, Refuse):  # never: places are kept
            other.hang_up_leg("error")
            return
        other.port = other.media.bus = port
        self._apply(other)
        notice = None if other.told else self.host.notice()
        before_joining(self._made().conference, port, notice, partial(self._let_in, other, port, notice))

    def _let_in(self, other: Other, port: Port, notice: Notice | None, told: bool) -> None:
        if self.room is None or other.port is not port:
            return
        if told and notice is not None:
            other.told = True
            self.host.event("notified", **notice.event(other.name))
            self.room.conference.resume(port)
        self.host.event("joined", leg=other.name, role=other.invitation.role, supervision=other.supervision)

    def _apply(self, other: Other) -> None:
        room, port = self.room, other.port
        if room is not None and port is not None:
            if other.invitation.role == "supervisor":
                room.conference.supervise(port, other.supervision)
            room.conference.mute(port, other.muted)

    def _take_out(self, other: Other) -> None:
        port = other.unplug()
        if port is not None and self.room is not None:
            self.room.conference.leave(port)
        self._settle()
