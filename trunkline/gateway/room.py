"""A call's room: where its caller hears more than the AI agent alone (music, a representative, supervisors).

It is entered when the first of those comes and closed when caller and agent are alone again: then frames go straight
from leg to bus. The agent's bus stays open throughout. In the room it has a seat; when the agent has stepped aside it
hears nothing and has nobody to speak to. The recording's taps are the room's meanwhile.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from trunkline.clock import Clock
from trunkline.gateway.answeredby import plug, plugged
from trunkline.gateway.hands import Hands
from trunkline.media.bus import Bus
from trunkline.media.conference import Conference
from trunkline.media.members import Port, Role, Seat
from trunkline.media.music import hold_music
from trunkline.ports import Refuse

if TYPE_CHECKING:
    from trunkline.gateway.switchboard import Line

Crashed = Callable[[str | None, Exception], None]


class CallRoom:
    """The caller is in it from the start. `crashed` is told of our own bugs, by the member's name."""

    def __init__(self, leg: Hands, bus: Bus, line: "Line", clock: Clock, crashed: Crashed) -> None:
        self.conference = Conference(line.heartbeat, clock, crashed)
        self.open = True
        self._leg, self._bus = leg, bus
        self._seat: Seat | None = None
        port = self.join(leg, "caller", "caller")
        assert isinstance(port, Port), "the room is new"
        self.caller = port
        self.conference.take_taps(bus)
        plug(leg, port)

    def join(self, leg: Hands, role: Role, name: str) -> Port | Refuse:
        """Whose leg's `bus` the port then is to be. Code: `conference_full`."""
        return self.conference.join(leg, role, name, networked=leg.networked)

    def seat_agent(self) -> None:
        """The agent hears the room and speaks in it. Idempotent."""
        if self._seat is None:
            seat = self.conference.seat("agent", "agent")
            assert isinstance(seat, Seat), "a place is kept for the agent"
            seat.plug(self._bus)
            self._seat = seat

    def unseat_agent(self) -> None:
        """The agent has stepped aside, and says nothing more. Idempotent."""
        seat, self._seat = self._seat, None
        if seat is not None:
            seat.unplug(self._leg)
            self.conference.leave(seat)

    def hold_caller(self) -> None:
        self.conference.hold(self.caller, hold_music().play())

    def free_caller(self) -> None:
        """Off hold and heard again. What was still to be heard of music or ringback is dropped."""
        self.conference.mute(self.caller, False)
        self.conference.resume(self.caller)
        if self._seat is None:
            self._leg.clear()

    def close(self) -> None:
        """Leg, bus and taps are as they were before. Idempotent."""
        if not self.open:
            return
        self.open = False
        self.free_caller()
        self.conference.leave(self.caller)
        self.conference.give_taps(self._bus)
        if self.conference.caller_ms is not None:
            self._bus.skip_to(self.conference.caller_ms)
        if plugged(self._leg) is self.caller:
            plug(self._leg, self._bus)
        self.unseat_agent()
        self.conference.close()
