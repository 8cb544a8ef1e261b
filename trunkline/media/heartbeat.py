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
    """What the heartbeat drives. `pump` sends what is due; True while there is more to send or to be heard."""

    def pump(self, now: float) -> bool: ...

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
        self._speaking: set[Beating] = set()
        self._schedule = Schedule(clock.now())
        self._handle: asyncio.TimerHandle | None = None
        self.late_s = 0.0
        """Lateness of recent beats, smoothed: what admission looks at."""

    def speaks(self, bus: Beating) -> None:
        """This call has audio to send; it is pumped every beat until it says there is no more. Idempotent."""
        self._speaking.add(bus)

    def forget(self, bus: Beating) -> None:
        self._speaking.discard(bus)

    def beat(self, now: float) -> None:
        """One beat, for all calls. An error in one call ends that call only."""
        for bus in tuple(self._speaking):
            try:
                if not bus.pump(now):
                    self._speaking.discard(bus)
            except Exception as error:
                self._speaking.discard(bus)
                bus.crashed(error)
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
