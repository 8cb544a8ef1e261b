"""The one 20 ms clock of a process: playout of every call first, then the ears of every call.

Deadlines are absolute. A beat that comes late is made up at once (every call drains all it has anyway); beyond
RESYNC_S behind, the missed beats are given up and counted. Early wake-ups are accepted (uvloop's timers
have 1 ms steps).
"""

import asyncio
import gc
from collections.abc import Callable
from typing import Protocol

from trunkline.clock import Clock
from trunkline.types import FRAME_MS

BEAT_S = FRAME_MS / 1000
RESYNC_S = 0.2


class Beating(Protocol):
    """What the heartbeat drives. `pump` sends what is due, and says from when on there may be more to do: a time that
    is past means every beat, None that there is nothing until it is said to speak again."""

    def pump(self, now: float) -> float | None: ...

    def crashed(self, error: Exception) -> None: ...


class Schedule:
    """When the next beat is due."""

    def __init__(self, now: float) -> None:
        self.due = now + BEAT_S
        self.resyncs = 0
        self.skipped = 0

    def after_beat(self, now: float) -> float:
        """Seconds to wait, 0 when behind."""
        self.due += BEAT_S
        if self.due < now - RESYNC_S:
            self.resyncs += 1
            self.skipped += round((now - self.due) / BEAT_S)
            self.due = now
        return max(0.0, self.due - now)


class Heartbeat:
    def __init__(self, clock: Clock, hear: Callable[[float], None], observe: Callable[[float, float], None]) -> None:
        """`hear` runs the ears; `observe(late_s, took_s)` is told of every beat."""
        self._clock, self._hear, self._observe = clock, hear, observe
        self._speaking: dict[Beating, float] = {}
        self._schedule = Schedule(clock.now())
        self._handle: asyncio.TimerHandle | None = None
        self.late_s = 0.0
        """Lateness of recent beats, smoothed: what admission looks at."""

    def speaks(self, bus: Beating) -> None:
        """This call has audio to send; it is pumped from the next beat on, whenever it says, until there is no more.
        Idempotent."""
        self._speaking[bus] = 0.0

    def forget(self, bus: Beating) -> None:
        self._speaking.pop(bus, None)

    def beat(self, now: float) -> None:
        """One beat, for all calls. An error in one call ends that call only."""
        speaking = self._speaking
        for bus in [bus for bus, due in speaking.items() if due <= now]:
            try:
                due = bus.pump(now)
            except Exception as error:
                speaking.pop(bus, None)
                bus.crashed(error)
                continue
            if due is None:
                speaking.pop(bus, None)
            elif bus in speaking:
                speaking[bus] = due
        self._hear(now)

    def hear(self) -> None:
        """Between two beats: a source has brought the frames of many calls at once. That saves them the wait for the
        beat, half of it on average and all of it in the worst case."""
        self._hear(self._clock.now())

    @property
    def resyncs(self) -> int:
        return self._schedule.resyncs

    # --- the edge ---

    def start(self) -> None:
        # A full collection of what start-up made takes 10 ms, half a beat; frozen it takes none.
        gc.collect()
        gc.freeze()
        self._schedule = Schedule(self._clock.now())
        self._handle = asyncio.get_running_loop().call_later(BEAT_S, self._run)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _run(self) -> None:
        started = self._clock.now()
        late_s = max(0.0, started - self._schedule.due)
        self.beat(started)
        now = self._clock.now()
        self.late_s += (late_s - self.late_s) * 0.02
        self._observe(late_s, now - started)
        wait_s = self._schedule.after_beat(now)
        self._handle = asyncio.get_running_loop().call_later(wait_s, self._run)


class Beats:
    """A timer of whoever has something to do every so often, while it has: desks drive their legs with it. A beat that
    comes late is followed by one at once, no more."""

    def __init__(self, clock: Clock, beat: Callable[[float], float | None]) -> None:
        """`beat(now)` says in how many seconds it comes again; None: not until `start`."""
        self._clock, self._beat = clock, beat
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def start(self, after_s: float = BEAT_S) -> None:
        """Idempotent."""
        if self._timer is None:
            self._due = self._clock.now()
            self._timer = asyncio.get_running_loop().call_later(after_s, self._run)

    def _run(self) -> None:
        now = self._clock.now()
        again_s = self._beat(now)
        self._timer = None
        if again_s is not None:
            self._due = max(self._due + again_s, now - again_s)
            wait_s = max(0.0, self._due + again_s - self._clock.now())
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._run)

    def stop(self) -> None:
        """Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
