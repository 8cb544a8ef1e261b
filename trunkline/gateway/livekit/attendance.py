"""Who is in the room, and what follows: when the call begins, when we go. Plain values.

The agent is there first. It waits for the device's participant until a deadline, and after a call a while for it to
come back. A call begins when both hear each other, for the greeting not to be lost; a participant that publishes no
microphone (it may only write), or subscribes to nothing, has its call after GRACE_S.
"""

from dataclasses import dataclass
from typing import Literal

GRACE_S = 3.0
RETURN_S = 60.0  # after a call, for the participant to be back

Step = Literal["begin", "leave"]


@dataclass(slots=True)
class Attendance:
    until: float
    """How long we wait for the participant."""
    present: bool = False
    hears: bool = False
    speaks: bool = False
    talking: bool = False
    """The call is on."""
    since: float = 0.0
    """When it came."""

    def entered(self, now: float) -> None:
        if not self.present:
            self.present, self.since = True, now

    def departed(self, now: float) -> None:
        self.present = self.hears = self.speaks = self.talking = False
        self.until = max(self.until, now + RETURN_S)

    def prolong(self, until: float) -> None:
        self.until = max(self.until, until)

    def due(self, now: float) -> Step | None:
        if self.present:
            ready = (self.hears and self.speaks) or now - self.since >= GRACE_S
            return "begin" if ready and not self.talking else None
        return "leave" if now >= self.until else None
