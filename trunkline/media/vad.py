"""Voice activity: a cheap energy gate, then Silero, both over all calls of the process at once.

Every call has a slot; all state is arrays indexed by slot, and one `run` takes at most one window of each slot (a call
that has two windows waiting is run twice). A window is 32 ms: 256 new samples at 8 kHz, 512 at 16 kHz; the model also
sees the 32 (64) samples before it. Samples are float32 in [-1, 1).

One beat, as ears.py does it:

    gate = energy_gate.run(slots, windows)
    silero.skip(slots[~gate.open], windows[~gate.open])
    probabilities[gate.open] = silero.run(slots[gate.open], windows[gate.open])

**Deafness.** Silero is recurrent, and its state goes deaf: after a minute of noise at -44 dBFS, speech was found
20-35 ms later than at first; after 30 s of music 450 ms later, or not at all. So while the gate is closed the state
is not fed but kept (when it was reset there, onsets came 25-45 ms later at p95), and where the gate stays open,
DEAF_WINDOWS in a row below CLEAR_NON_SPEECH put it back to *rested*: not zeros but the state after a third of a
second of digital silence, from which onsets are found 10-15 ms sooner than from zeros. State is never touched within
speech.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trunkline.errors import ConfigError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

WINDOW_MS = 32
SUB_BLOCK_MS = 8
SUB_BLOCKS = WINDOW_MS // SUB_BLOCK_MS

MODEL = Path(__file__).parent / "models" / "silero_vad.onnx"

CLEAR_NON_SPEECH = 0.1
DEAF_WINDOWS = 16
"""Half a second. With 2 s instead, speech after music was found 20 ms later."""
REST_WINDOWS = 10


class VoiceDetector(Protocol):
    """What scores windows. Another model is plugged in by giving ears.py an object of this shape."""

    rate_hz: int
    window_samples: int
    context_samples: int

    def run(self, slots: Ints, windows: Floats) -> Floats:
        """Probability of speech of each window, [n]. Valid until the next `run`."""
        ...

    def skip(self, slots: Ints, windows: Floats) -> None:
        """These windows were too quiet to score; the next `run` of their slots follows on from them."""
        ...

    def glance(self, slots: Ints, audio: Floats) -> Floats:
        """Probability of speech in the newest of these slots, wherever their windows lie: [n, context_samples +
        window_samples], what came last. Nothing is kept of it. Valid until the next call."""
        ...

    def reset(self, slot: int) -> None:
        """A new call takes this slot."""
        ...


class SileroBatch:
    """Silero VAD over `capacity` slots of one rate (8,000 or 16,000 Hz; a second object for the other rate).

    Raises ConfigError naming the file when the model cannot be loaded, ValueError for another rate.
    """

    def __init__(self, capacity: int, rate_hz: int = 8000, model: Path = MODEL) -> None:
        if rate_hz not in (8000, 16000):
            raise ValueError(f"Silero hears 8,000 or 16,000 Hz, not {rate_hz}")
        self.rate_hz = rate_hz
        self.window_samples = rate_hz * WINDOW_MS // 1000
        self.context_samples = self.window_samples // 8
        self._session = _open_session(model)
        self._rate = np.array(rate_hz, dtype=np.int64)

        self.state: Floats = np.zeros((2, capacity, 128), np.float32)
        self.context: Floats = np.zeros((capacity, self.context_samples), np.float32)
        self._rested: Floats = np.zeros((2, 1, 128), np.float32)
        self._quiet = np.zeros(capacity, np.int32)  # windows in a row below CLEAR_NON_SPEECH
        # Scratch. A batch of n uses the first n rows, always contiguous: onnxruntime copies anything else.
        self._input: Floats = np.zeros((capacity, self.context_samples + self.window_samples), np.float32)
        self._gathered: Floats = np.zeros(2 * capacity * 128, np.float32)
        self._rest()

    def run(self, slots: Ints, windows: Floats) -> Floats:
        """Score one window [n, window_samples] of each of these (different) slots."""
        n = len(slots)
        if n == 0:
            return _NO_PROBABILITIES
        batch = self._input[:n]
        batch[:, : self.context_samples] = self.context.take(slots, axis=0)
        batch[:, self.context_samples :] = windows
        state = self._gathered[: 2 * n * 128].reshape(2, n, 128)
        self.state.take(slots, axis=1, out=state, mode="clip")  # "raise" would copy through a buffer

        output, state = self._session.run(None, {"input": batch, "state": state, "sr": self._rate})
        probabilities: Floats = output[:, 0]

        self.state[:, slots] = state
        self.context[slots] = windows[:, -self.context_samples :]
        self._drop_deaf_state(slots, probabilities)
        return probabilities

    def glance(self, slots: Ints, audio: Floats) -> Floats:
        n = len(slots)
        state = self._gathered[: 2 * n * 128].reshape(2, n, 128)
        self.state.take(slots, axis=1, out=state, mode="clip")
        output, _ = self._session.run(None, {"input": audio, "state": state, "sr": self._rate})
        probabilities: Floats = output[:, 0]
        return probabilities

    def skip(self, slots: Ints, windows: Floats) -> None:
        if len(slots) == 0:
            return
        self.context[slots] = windows[:, -self.context_samples :]

    def reset(self, slot: int) -> None:
        self.state[:, slot] = self._rested[:, 0]
        self.context[slot] = 0.0
        self._quiet[slot] = 0

    def _rest(self) -> None:
        silence = {"input": self._input[:1], "sr": self._rate}  # the scratch is still all zeros
        for _ in range(REST_WINDOWS):
            _, self._rested = self._session.run(None, {**silence, "state": self._rested})
        self.state[:] = self._rested

    def _drop_deaf_state(self, slots: Ints, probabilities: Floats) -> None:
        quiet = self._quiet[slots] + 1
        quiet[probabilities >= CLEAR_NON_SPEECH] = 0
        deaf = quiet >= DEAF_WINDOWS
        if deaf.any():
            self.state[:, slots[deaf]] = self._rested
            quiet[deaf] = 0
        self._quiet[slots] = quiet


_NO_PROBABILITIES: Floats = np.zeros(0, np.float32)


def _open_session(model: Path) -> Any:
    # Its import sets up telemetry of Microsoft's: a device id on disk, uploads over HTTPS. Not from here.
    os.putenv("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # a heavy library: loaded with the first detector, not with this module

    options = onnxruntime.SessionOptions()
    # One core, one beat: threads of its own would only fight the event loop, and spinning ones burn it.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base of their own
        raise ConfigError("vad model", str(model), f"must be the Silero VAD ONNX file ({error})") from error


FLOOR_RATIO = 6.0
"""A window this many times the floor's energy (7.8 dB) may be speech."""
SILENCE_ENERGY = 1e-6
"""-60 dBFS: quieter is never speech, however low the floor."""
FLOOR_CEILING = 1.6e-4
"""-38 dBFS: a floor is never believed to be higher, so that at -30 dBFS anything passes, whatever came before."""
HANGOVER_WINDOWS = 8
FLOOR_BLOCKS = 5
FLOOR_BLOCK_WINDOWS = 8
"""The floor is the least energy of 5 blocks of 8 windows: it falls at once and rises within 1.3 s."""
WARM_UP_WINDOWS = 12
"""A call may begin with speech. Until 384 ms have been heard all above WARM_UP_ENERGY passes."""
WARM_UP_ENERGY = 3.2e-6
"""-55 dBFS. Of calls that began with noise at -60 dBFS one in 25 had its first windows taken for speech."""


@dataclass(frozen=True, slots=True)
class Gated:
    """One row per window of the batch."""

    open: Bools
    """Worth scoring."""
    energy: Floats
    """Mean square of the window: 1.0 is a full-scale square wave."""
    threshold: Floats
    first_loud: Ints
    """The first 8 ms sub-block (0-3) louder than the threshold, -1 if none: where speech began."""
    last_loud: Ints
    """The last one: where it ended."""


class EnergyGate:
    """Lets through what is louder than the line's own noise, per slot, and what follows within 8 windows."""

    def __init__(self, capacity: int) -> None:
        self._blocks: Floats = np.full((capacity, FLOOR_BLOCKS), np.inf, np.float32)
        self._age = np.zeros(capacity, np.int64)
        self._hangover = np.zeros(capacity, np.int64)

    def run(self, slots: Ints, windows: Floats) -> Gated:
        """Judge one window [n, samples] of each of these (different) slots."""
        n = len(slots)
        blocks = windows.reshape(n, SUB_BLOCKS, windows.shape[1] // SUB_BLOCKS)
        sub = np.einsum("nbs,nbs->nb", blocks, blocks)
        sub *= SUB_BLOCKS / windows.shape[1]
        energy: Floats = sub.mean(axis=1)

        age = self._age[slots]
        floor = self._follow(slots, age, energy)
        np.minimum(floor, FLOOR_CEILING, out=floor)
        threshold = np.maximum(floor * np.float32(FLOOR_RATIO), np.float32(SILENCE_ENERGY))
        hangover = np.where(sub.max(axis=1) > threshold, HANGOVER_WINDOWS + 1, self._hangover[slots] - 1)
        np.maximum(hangover, 0, out=hangover)

        # While warming up, the threshold is near silence, but what passes only by that leaves no hangover behind.
        threshold[age < WARM_UP_WINDOWS] = WARM_UP_ENERGY
        loud = sub > threshold[:, None]
        any_loud = loud.any(axis=1)
        self._age[slots] = age + 1
        self._hangover[slots] = hangover
        return Gated(
            open=any_loud | (hangover > 0),
            energy=energy,
            threshold=threshold,
            first_loud=np.where(any_loud, loud.argmax(axis=1), -1),
            last_loud=np.where(any_loud, SUB_BLOCKS - 1 - loud[:, ::-1].argmax(axis=1), -1),
        )

    def reset(self, slot: int) -> None:
        """A new call takes this slot."""
        self._blocks[slot] = np.inf
        self._age[slot] = self._hangover[slot] = 0

    def _follow(self, slots: Ints, age: Ints, energy: Floats) -> Floats:
        """The least energy of the last 1-1.3 s, this window included."""
        column = (age // FLOOR_BLOCK_WINDOWS) % FLOOR_BLOCKS
        least = np.minimum(self._blocks[slots, column], energy)
        np.copyto(least, energy, where=age % FLOOR_BLOCK_WINDOWS == 0)  # a block begins
        self._blocks[slots, column] = least
        floor: Floats = self._blocks[slots].min(axis=1)
        return floor
