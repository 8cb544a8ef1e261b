"""A tap behind a door: it hears the call only while the door is open.

What is said while it is shut is not kept anywhere, so nothing is filled in later: the tap is given silence for that
time, and its timeline stays the call's. The tap itself is opened with the first audio it may have, or at once where the
door is open from the beginning; before, there is no file. When the door shuts, what the agent would be heard to say
from now on is taken back.
"""

from collections.abc import Callable
from typing import Literal

from trunkline.media.bus import Tap
from trunkline.types import MULAW_8K, Format

Channel = Literal["caller", "agent"]

SILENCE_MS = 20_000
"""Of a gap, one sample is written this far apart: a recorder takes no position that lies a minute ahead."""


class Gate:
    """A Tap of the bus; `make` opens the one behind it, None: there is none."""

    def __init__(self, make: Callable[[], Tap | None], *, is_open: bool, format: Format = MULAW_8K) -> None:
        self._make: Callable[[], Tap | None] | None = make
        self._tap: Tap | None = None
        self._open = is_open
        self._silence = format.silence
        self._sample = len(format.silence)
        self._rate_hz = format.rate_hz
        self._step = SILENCE_MS * format.rate_hz // 1000
        self._now = 0  # how far the caller's lane has come, in samples
        self._known = 0  # how far the tap's timeline has
        if is_open:
            self._behind()

    @property
    def is_open(self) -> bool:
        return self._open

    def open(self) -> None:
        self._open = True

    def shut(self) -> None:
        """At once. Idempotent."""
        if not self._open:
            return
        self._open = False
        if self._tap is not None:
            self._tap.cut("agent", self._now)
            self._tap.cut("caller", self._now)
            self._known = min(self._known, self._now)

    @property
    def kept_s(self) -> float:
        """How long what is kept is: as long as the call was, once anything is. 0: nothing is."""
        return self._now / self._rate_hz if self._known else 0.0

    # --- the bus ---

    def write(self, channel: Channel, position: int, data: bytes) -> None:
        end = position + len(data) // self._sample
        if channel == "caller":
            self._now = max(self._now, end)
        if not self._open:
            return
        tap = self._behind()
        if tap is not None:
            self._catch_up(tap, position)
            tap.write(channel, position, data)
            self._known = max(self._known, end)

    def cut(self, channel: Channel, position: int) -> None:
        if self._tap is not None:
            self._tap.cut(channel, position)

    def close(self) -> None:
        tap, self._tap, self._make = self._tap, None, None
        if tap is not None:
            self._catch_up(tap, self._now)
            if self._now > self._known:
                tap.write("caller", self._now - 1, self._silence)  # as long as the call was
            tap.close()

    def _behind(self) -> Tap | None:
        make, self._make = self._make, None
        if make is not None:
            self._tap = make()
        return self._tap

    def _catch_up(self, tap: Tap, position: int) -> None:
        """Silence, as far as that is further than the tap knows."""
        while position - self._known > self._step:
            self._known += self._step
            tap.write("caller", self._known - 1, self._silence)
