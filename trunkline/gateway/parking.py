"""The caller's line without the agent: its leg in a room, with the recording's taps, until the agent's bus has both
again. Parked is no more than that, with music: an operator's hold."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from trunkline.clock import Clock
from trunkline.gateway.hands import Hands
from trunkline.media.bus import Bus
from trunkline.media.conference import Conference
from trunkline.media.members import Port
from trunkline.media.music import hold_music

if TYPE_CHECKING:
    from trunkline.gateway.switchboard import Line

Crashed = Callable[[str | None, Exception], None]


class CallerLine:
    """Taken at once. `bus` stays open, hears nothing and has nobody to speak to until give_back()."""

    def __init__(self, leg: Hands, bus: Bus, line: "Line", clock: Clock, crashed: Crashed) -> None:
        self.room = Conference(line.heartbeat, clock, crashed)
        self._leg, self._bus = leg, bus
        port = self.room.join(leg, "caller", "caller", networked=leg.networked)
        assert isinstance(port, Port), "the room is new"
        self.port = port
        self._given_back = False
        self.room.take_taps(bus)
        leg.bus = port

    def give_back(self) -> None:
        """Idempotent."""
        if self._given_back:
            return
        self._given_back = True
        self.room.leave(self.port)
        self.room.give_taps(self._bus)
        if self.room.caller_ms is not None:
            self._bus.skip_to(self.room.caller_ms)
        self._leg.clear()  # the music that was under way
        if self._leg.bus is self.port:
            self._leg.bus = self._bus
        self.room.close()


class Parked:
    """A caller on hold."""

    def __init__(self, leg: Hands, bus: Bus, line: "Line", clock: Clock, crashed: Crashed) -> None:
        self._line = CallerLine(leg, bus, line, clock, crashed)
        self._line.room.hold(self._line.port, hold_music().play())

    def close(self) -> None:
        """Idempotent."""
        self._line.give_back()
