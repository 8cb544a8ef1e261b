"""Ears: what callers say, for all calls of the process together, once a beat.

Every call has a slot: a ring of its latest audio as it came (two seconds of mu-law, say), and a row in each array
below. `write` is called per received frame and only copies. `beat` drains every complete 32 ms window of every call:
decode, energy gate, Silero on what passed, then the speech state as array arithmetic. Python runs per call only where
something changed: speech began, has lasted, or has ended.

Positions are samples since the call's first. Silence is counted in *received* audio: while frames are missing, nothing
ends. Speech ends at its last loud 8 ms block, not where the model's score decays, so an end of turn is due exactly
`endpoint_ms` after that block was received; what is received beyond the last complete window is checked by its energy.

A slot may rest: somebody else tells speech from silence there (a model that owns its turns). What is received is then
only kept, as pre-roll, and costs the beat nothing.

Our own voice coming back on the line is not speech: while a slot is guarded, windows that score as speech are shown to
the listener's `is_echo` first.

Guarded is also when a beginning must be noticed soonest, since it interrupts. A word like "can" is 60 ms of hiss before
its voice, so it shows in the second window or the third, by chance; hence the newest 32 ms of guarded slots are glanced
at in every beat in which they end loudly, across the windows. That finds onsets 16 ms sooner on average, and 95 of 100
within 60 ms instead of 80 (bench/onsets.py).
"""

from array import array
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trunkline.media.g711 import ALAW_F32, MULAW_F32
from trunkline.media.vad import SUB_BLOCK_MS, WINDOW_MS, EnergyGate, Floats, Ints, VoiceDetector
from trunkline.types import Format

ONSET = 0.5  # a window this likely begins speech
GOES_ON = 0.35  # and one this likely continues it
SUSTAINED_MS = 500  # of speech windows: no cough, no "mm-hm"
RING_MS = 2048  # a power of two, so that windows never wrap


Raw = NDArray[Any]  # uint8 or int16, by the lane


class Listener(Protocol):
    """Who is told, per call. Times are monotonic seconds at which the audio in question was received."""

    def speech_started(self, at: float) -> None: ...

    def speech_sustained(self) -> None: ...

    def speech_ended(self, at: float) -> None: ...

    def is_echo(self, recent: Floats, at: float) -> bool:
        """Whether these samples (up to 128 ms, the last received at `at`) are our own voice."""
        ...

    def may_be_echo(self, recent: Floats, at: float) -> bool:
        """Whether they could be: asked between the windows, and only their whole window decides then."""
        ...

    def crashed(self, error: Exception) -> None:
        """One of the above raised: our bug, this call's end."""
        ...


class Ears:
    """`capacity` calls whose lanes have one format. A lane of another format has ears of its own."""

    def __init__(self, format: Format, capacity: int, detector: VoiceDetector, gate: EnergyGate) -> None:
        self.format = format
        self.capacity = capacity
        self._detector, self._gate = detector, gate
        self._per_ms = format.rate_hz // 1000
        self._sample_bytes = format.bytes_per_ms // self._per_ms
        self._window = WINDOW_MS * self._per_ms
        self._ring_samples = RING_MS * self._per_ms
        self._ring_bytes = self._ring_samples * self._sample_bytes
        self._store = bytearray(capacity * self._ring_bytes)
        self._memory = memoryview(self._store)
        dtype = np.int16 if format.encoding == "pcm16" else np.uint8
        self._ring = np.frombuffer(self._store, dtype).reshape(capacity, self._ring_samples)
        self._lut = {"mulaw": MULAW_F32, "alaw": ALAW_F32, "pcm16": None}[format.encoding]

        # Written by `write`, per frame, where an array is cheaper than numpy; read by `beat` through numpy views.
        self._written = array("q", bytes(8 * capacity))
        self._received_at = array("d", bytes(8 * capacity))
        self._written_view: Ints = np.frombuffer(self._written, np.int64)
        self._received_at_view: NDArray[np.float64] = np.frombuffer(self._received_at, np.float64)

        self._read: Ints = np.zeros(capacity, np.int64)
        self._voiced: NDArray[np.bool_] = np.zeros(capacity, np.bool_)
        self._guarded: NDArray[np.bool_] = np.zeros(capacity, np.bool_)
        self._resting: NDArray[np.bool_] = np.zeros(capacity, np.bool_)
        self._onset: Ints = np.zeros(capacity, np.int64)
        self._last_loud: Ints = np.zeros(capacity, np.int64)
        self._speech_windows: Ints = np.zeros(capacity, np.int64)
        self._endpoint: Ints = np.zeros(capacity, np.int64)
        self._echo_until: Ints = np.zeros(capacity, np.int64)
        self._threshold: Floats = np.zeros(capacity, np.float32)
        self._listeners: list[Listener | None] = [None] * capacity
        self._free = list(range(capacity - 1, -1, -1))
        self.dropped_samples = 0
        """Overwritten before they were looked at: the process was too late by two seconds."""
        self.windows = self.scored = 0

    # --- slots ---

    def open(self, listener: Listener) -> int | None:
        """A slot for a call, None when all are taken."""
        if not self._free:
            return None
        slot = self._free.pop()
        self._written[slot] = 0
        self._read[slot] = 0
        self._voiced[slot] = self._guarded[slot] = self._resting[slot] = False
        self._last_loud[slot] = self._onset[slot] = self._speech_windows[slot] = self._echo_until[slot] = 0
        self._threshold[slot] = np.inf
        self.set_endpoint(slot, 600)
        self._detector.reset(slot)
        self._gate.reset(slot)
        self._listeners[slot] = listener
        return slot

    def close(self, slot: int) -> None:
        self._listeners[slot] = None
        self._written[slot] = 0
        self._read[slot] = 0
        self._voiced[slot] = False
        self._free.append(slot)

    @property
    def free(self) -> int:
        """Slots not taken."""
        return len(self._free)

    def set_endpoint(self, slot: int, silence_ms: int) -> None:
        """Speech has ended after this much silence. Takes effect at once, also within speech."""
        self._endpoint[slot] = silence_ms * self._per_ms

    def guard(self, slot: int, on: bool) -> None:
        """While on, speech is checked against our own voice (`is_echo`)."""
        self._guarded[slot] = on

    def rest(self, slot: int, on: bool) -> None:
        """While on, nobody is told of speech. Afterwards what comes is heard as if the call had just begun."""
        if on == self._resting[slot]:
            return
        self._resting[slot] = on
        self._voiced[slot] = self._guarded[slot] = False
        if not on:
            self._read[slot] = self._written[slot] // self._window * self._window
            self._detector.reset(slot)
            self._gate.reset(slot)

    def forget_speech(self, slot: int) -> None:
        """Whatever is being said counts no longer (an answer was keyed): the next window begins anew."""
        self._voiced[slot] = False

    def hearing_speech(self, slot: int) -> bool:
        return bool(self._voiced[slot])

    def silent_ms(self, slot: int) -> int:
        """Received since speech was last loud."""
        return int(self._written[slot] - int(self._last_loud[slot])) // self._per_ms

    # --- per frame ---

    def write(self, slot: int, audio: bytes, now: float) -> None:
        """Received audio, at most a second of it, whole samples."""
        written = self._written[slot]
        base = slot * self._ring_bytes
        start = written * self._sample_bytes % self._ring_bytes
        end = start + len(audio)
        if end <= self._ring_bytes:
            self._memory[base + start : base + end] = audio
        else:
            head = self._ring_bytes - start
            self._memory[base + start : base + self._ring_bytes] = audio[:head]
            self._memory[base : base + len(audio) - head] = audio[head:]
        self._written[slot] = written + len(audio) // self._sample_bytes
        self._received_at[slot] = now

    def latest(self, slot: int, length_ms: int) -> bytes:
        """The last `length_ms` received, as they came, without what was our own voice: pre-roll for a recogniser."""
        end = self._written[slot]
        start = max(0, end - min(length_ms, RING_MS) * self._per_ms, int(self._echo_until[slot]))
        return self._between(slot, start, end).tobytes()

    def _between(self, slot: int, start: int, end: int) -> Raw:
        a, b = start % self._ring_samples, end % self._ring_samples
        row = self._ring[slot]
        return row[a:b] if a < b or start == end else np.concatenate((row[a:], row[:b]))

    def _decode(self, raw: Raw) -> Floats:
        if self._lut is None:
            return raw.astype(np.float32) / np.float32(32768)
        return self._lut.take(raw)

    # --- per beat ---

    def beat(self, now: float) -> None:
        """Everything received so far. Each complete window of each call once, the oldest first."""
        while True:
            pending = self._written_view - self._read
            slots: Ints = np.flatnonzero((pending >= self._window) & ~self._resting)
            if not len(slots):
                break
            overrun = slots[pending[slots] > self._ring_samples]
            if len(overrun):
                self._skip_overwritten(overrun)
            self._hear(slots)
        if self._guarded.any():
            self._glance()
        self._end_turns(now)

    def _skip_overwritten(self, slots: Ints) -> None:
        """Two seconds late: go on with the newest half second, and count what nobody looked at."""
        for slot in slots:
            newest = self._written[slot] - 500 * self._per_ms
            newest -= newest % self._window
            self.dropped_samples += newest - int(self._read[slot])
            self._read[slot] = newest

    def _hear(self, slots: Ints) -> None:
        """One window of each of these slots."""
        read = self._read[slots]
        windows_per_ring = self._ring_samples // self._window
        raw: Raw = self._ring.reshape(self.capacity, windows_per_ring, self._window)[
            slots, (read // self._window) % windows_per_ring
        ]
        windows = self._decode(raw)
        self._read[slots] = read + self._window
        gated = self._gate.run(slots, windows)
        self._threshold[slots] = gated.threshold
        probabilities = np.zeros(len(slots), np.float32)
        is_open = gated.open
        closed = ~is_open
        if closed.any():
            self._detector.skip(slots[closed], windows[closed])
        if is_open.any():
            probabilities[is_open] = self._detector.run(slots[is_open], windows[is_open])
        self.windows += len(slots)
        self.scored += int(is_open.sum())

        voiced = self._voiced[slots]
        speech = probabilities >= np.where(voiced, GOES_ON, ONSET)
        if not speech.any():
            return
        suspects = np.flatnonzero(speech & self._guarded[slots])
        for i in suspects:
            if self._is_echo(int(slots[i]), int(read[i]) + self._window):
                speech[i] = False
                self._echo_until[slots[i]] = read[i] + self._window

        block = SUB_BLOCK_MS * self._per_ms
        loud = speech & (gated.last_loud >= 0)
        self._speech_windows[slots[loud]] += 1  # without the 150 ms and more for which the model's score decays
        self._last_loud[slots[loud]] = read[loud] + (gated.last_loud[loud] + 1) * block
        for i in np.flatnonzero(speech & ~voiced):
            first = max(0, int(gated.first_loud[i])) * block
            self._begin(int(slots[i]), int(read[i]) + first, int(read[i]) + self._window)
        sustained = speech & (self._speech_windows[slots] * WINDOW_MS >= SUSTAINED_MS)
        for i in np.flatnonzero(sustained & voiced):
            self._sustain(int(slots[i]))

    def _glance(self) -> None:
        """What is newer than the last window of guarded slots, before its own window is complete."""
        block = SUB_BLOCK_MS * self._per_ms
        whole = self._window + self._detector.context_samples
        fresh = (
            self._guarded & ~self._voiced & (self._written_view - self._read >= block) & (self._written_view >= whole)
        )
        slots: Ints = np.flatnonzero(fresh)
        if not len(slots):
            return
        ends = self._decode(self._newest(slots, block))
        slots = slots[np.einsum("ns,ns->n", ends, ends) > self._threshold[slots] * block]
        if not len(slots):
            return
        probabilities = self._detector.glance(slots, self._decode(self._newest(slots, whole)))
        for slot in slots[probabilities >= ONSET].tolist():
            end = self._written[slot]
            if self._is_echo(slot, end, glanced=True):
                continue
            self._begin(slot, self._loud_since(slot, end), end)
            self._speech_windows[slot] = 0  # its window is still to come

    def _loud_since(self, slot: int, end: int) -> int:
        """Where the loud blocks before `end` begin, within what is in no window yet."""
        block, start = SUB_BLOCK_MS * self._per_ms, end - SUB_BLOCK_MS * self._per_ms
        while start - block >= self._read[slot]:
            before = self._decode(self._between(slot, start - block, start))
            if float(before.dot(before)) <= float(self._threshold[slot]) * block:
                break
            start -= block
        return start

    def _newest(self, slots: Ints, samples: int) -> Raw:
        """[n, samples], as they came."""
        columns = (self._written_view[slots, None] + np.arange(-samples, 0)) % self._ring_samples
        raw: Raw = self._ring[slots[:, None], columns]
        return raw

    def _is_echo(self, slot: int, position: int, *, glanced: bool = False) -> bool:
        listener = self._listeners[slot]
        if listener is None:
            return False
        recent = self._decode(self._between(slot, max(0, position - 128 * self._per_ms), position))
        ask = listener.may_be_echo if glanced else listener.is_echo
        try:
            return ask(recent, self._time_of(slot, position))
        except Exception as error:
            listener.crashed(error)
            return False

    def _begin(self, slot: int, onset: int, window_end: int) -> None:
        self._voiced[slot] = True
        self._onset[slot] = onset
        self._speech_windows[slot] = 1
        self._last_loud[slot] = max(int(self._last_loud[slot]), onset)
        self._tell(slot, lambda listener: listener.speech_started(self._time_of(slot, onset)))

    def _sustain(self, slot: int) -> None:
        self._speech_windows[slot] = -(1 << 40)  # said once; begins again with the next onset
        self._tell(slot, lambda listener: listener.speech_sustained())

    def _end_turns(self, now: float) -> None:
        # Audio comes in frames: the one that is under way counts, as far as it must have got by now.
        under_way = (now - self._received_at_view) * self.format.rate_hz
        np.clip(under_way, 0, self.format.frame_samples, out=under_way)
        silent = self._voiced & (self._written_view + under_way - self._last_loud >= self._endpoint)
        for slot in np.flatnonzero(silent).tolist():
            if self._tail_is_loud(slot):
                continue
            self._voiced[slot] = False
            self._tell(slot, lambda listener, s=slot: listener.speech_ended(self._time_of(s, int(self._last_loud[s]))))

    def _tail_is_loud(self, slot: int) -> bool:
        """Audio after the last complete window, not yet scored: speech may have begun again in it."""
        start, end = int(self._read[slot]), self._written[slot]
        if end - start < SUB_BLOCK_MS * self._per_ms:
            return False
        tail = self._decode(self._between(slot, start, end))
        return float(tail.dot(tail)) / len(tail) > float(self._threshold[slot])

    def _time_of(self, slot: int, position: int) -> float:
        return self._received_at[slot] - (self._written[slot] - int(position)) / self.format.rate_hz

    def _tell(self, slot: int, say: "Say") -> None:
        listener = self._listeners[slot]
        if listener is None:
            return
        try:
            say(listener)
        except Exception as error:
            listener.crashed(error)


class Say(Protocol):
    def __call__(self, listener: Listener) -> None: ...
