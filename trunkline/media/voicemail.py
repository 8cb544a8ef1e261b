"""When a message may begin that a machine is to keep. Plain: audio in, a word out.

After its beep: whoever beeps is a machine, though nobody has said so. Where it is known for one already (by its
carrier, by `answering.py`), also after `SILENT_MS` of quiet behind its greeting; a beep that comes later still counts.
Frames are looked at `LOOK_FRAMES` at a time, and only for the first `WATCH_MS` of what is received.
"""

from math import pi
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trunkline.media import g711
from trunkline.media.answering import BEEP_DBFS, BEEP_HZ, FRAME, PURITY, Beep, loud_dbfs
from trunkline.types import FRAME_MS, MULAW_8K

After = Literal["beep", "silence", "time"]

WATCH_MS = 40_000  # a greeting that is longer is talked into
SILENT_MS = 2_000  # a pause within a greeting is shorter; machines record some seconds of silence before they give up
SILENT_FRAMES = SILENT_MS // FRAME_MS
LOOK_FRAMES = 5

_NOT_A_SINE = 0.25
_QUIET_POWER = 1e-9
_N = np.arange(FRAME, dtype=np.float32)


class MessageStart:
    """One leg's, from its answer on; `after` is None while the message must wait."""

    __slots__ = ("_beep", "_frames", "_levels", "_loud_dbfs", "_loud_from", "_machine", "_rest", "after")

    def __init__(self) -> None:
        self.after: After | None = None
        self._beep = Beep()
        self._levels = np.full(WATCH_MS // FRAME_MS, -90.0, np.float32)
        self._frames = self._loud_from = 0
        self._loud_dbfs = 0.0
        self._machine = False
        self._rest = b""

    @property
    def done(self) -> bool:
        """Nothing more is to come: feed() need not be called."""
        return self.after == "beep" or self._frames == len(self._levels)

    @property
    def heard_ms(self) -> int:
        return self._frames * FRAME_MS

    def is_machine(self) -> None:
        """Somebody else knows. What was quiet before counts; `after` may have changed."""
        self._machine = True
        self._decide()

    def feed(self, audio: bytes) -> bool:
        """MULAW_8K of any length. Whether `after` has changed."""
        self._rest += audio
        if self.done or len(self._rest) < LOOK_FRAMES * FRAME:
            return False
        before = self.after
        whole = len(self._rest) - len(self._rest) % FRAME
        frames, self._rest = self._rest[:whole], self._rest[whole:]
        self._look(g711.MULAW_F32.take(np.frombuffer(frames, np.uint8)).reshape(-1, FRAME))
        return self.after != before

    def _look(self, frames: NDArray[np.float32]) -> None:
        frames = frames[: len(self._levels) - self._frames]
        power = np.mean(frames * frames, axis=1)
        levels = 10 * np.log10(np.maximum(power, _QUIET_POWER))
        self._levels[self._frames : self._frames + len(frames)] = levels
        self._frames += len(frames)
        found = tones(frames, power, levels) if levels.max() >= BEEP_DBFS else [0.0] * len(frames)
        for hz, level in zip(found, levels.tolist(), strict=True):
            if self._beep.frame(hz or None, level) is not None:
                self.after = "beep"
                return
        self._decide()

    def _decide(self) -> None:
        if not self._machine or self.after is not None:
            return
        if self._quiet():
            self.after = "silence"
        elif self.done:
            self.after = "time"

    def _quiet(self) -> bool:
        heard = self._levels[: self._frames]
        if len(heard) < SILENT_FRAMES:
            return False
        if self._frames >= self._loud_from:
            self._loud_dbfs, self._loud_from = loud_dbfs(heard), self._frames + SILENT_FRAMES // 2
        return bool(np.all(heard[-SILENT_FRAMES:] < self._loud_dbfs))


def tones(frames: NDArray[np.float32], power: NDArray[np.float32], levels: NDArray[np.float32]) -> list[float]:
    """The frequency of each frame that is nearly a sine and nothing else; 0 of the others. Of a sine, x[n-1] + x[n+1] =
    2 cos(w) x[n]."""
    middle, both = frames[:, 1:-1], frames[:, :-2] + frames[:, 2:]
    energy = np.maximum(np.sum(middle * middle, axis=1), _QUIET_POWER)
    half = np.sum(both * middle, axis=1) / energy / 2
    left = both - 2 * half[:, None] * middle
    sine = np.sum(left * left, axis=1) <= _NOT_A_SINE * energy
    w = np.arccos(np.clip(half, -1.0, 1.0))
    hz = w * MULAW_8K.rate_hz / (2 * pi)
    found = [0.0] * len(frames)
    for at in np.flatnonzero(sine & (levels >= BEEP_DBFS) & (hz >= BEEP_HZ[0]) & (hz <= BEEP_HZ[1])).tolist():
        at_it = abs(complex(frames[at] @ np.exp(np.complex64(-1j * w[at]) * _N)))
        if 2 * at_it**2 / FRAME**2 >= PURITY * power[at]:
            found[at] = float(hz[at])
    return found
