"""The recorder tap: one stereo WAV a call, caller left and agent right, aligned by sample position. Off by default.

The caller of `write` never waits: frames go into a bounded queue, and a thread of the recording writes what is older
than HOLD_MS twice a second, then patches the sizes in the header. So the file is a whole WAV at any moment, also after
kill -9 (it then lacks the last seconds). In a mu-law lane's own encoding a minute takes 940 KiB.

A full disk ends the recording, not the call: said once in the log and in `stats.failed`.

Whoever wants to know later whether a file is whole is told at its end how much audio went into it, and its SHA-256
(`Finished`): a file that was cut between two chunks looks like one whose writer died.
"""

import logging
import os
import struct
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import Event, Thread
from typing import Any, BinaryIO, Literal

from trunkline.errors import MisuseError, StoreError
from trunkline.ports import Allow, Decision
from trunkline.privacy.sealed import Keys, Sealer, unseal
from trunkline.types import MULAW_8K, Format

log = logging.getLogger(__name__)

Channel = Literal["caller", "agent"]
_SIDE: dict[Channel, int] = {"caller": 0, "agent": 1}

HOLD_MS = 3000
"""Written this much late: agent audio is placed ahead of time, and may still be cut by a `clear`."""
FLUSH_S = 0.5
MAX_QUEUED = 1000  # 10 s of both lanes: longer than any disk should stall
MAX_AHEAD_MS = 60_000  # of one lane: a position beyond is a bug, not audio


@dataclass(slots=True)
class RecordingStats:
    frames: int = 0
    dropped: int = 0
    """Frames that found the queue full or the recording stopped."""
    late: int = 0
    """Frames (or cuts) whose place was already on disk."""
    failed: str = ""
    """Why the recording stopped early, if it did."""


@dataclass(frozen=True, slots=True)
class Finished:
    """What was written: of the audio alone, so it stays true when the file is sealed anew."""

    file: str
    audio_bytes: int
    sha256: str
    failed: str = ""


class Interleaved:
    """Both channels from `base` on, as the file wants them; what nobody wrote is silence."""

    def __init__(self, format: Format) -> None:
        self._silence = format.silence
        self._sample = len(format.silence)
        self._buffer = bytearray()
        self.base = 0
        self.end = 0

    def place(self, side: int, position: int, data: bytes) -> bool:
        """False when some of it came too late."""
        in_time = position >= self.base
        if not in_time:
            data = data[(self.base - position) * self._sample :]
            position = self.base
        samples = len(data) // self._sample
        self._grow(position + samples)
        start = (position - self.base) * 2 * self._sample
        for byte in range(self._sample):
            first = start + side * self._sample + byte
            self._buffer[first : first + samples * 2 * self._sample : 2 * self._sample] = data[byte :: self._sample]
        return in_time

    def cut(self, side: int, position: int) -> bool:
        """Silence from here on. False when some of it is already taken."""
        start = max(position, self.base)
        if start < self.end:
            self.place(side, start, self._silence * (self.end - start))
        return position >= self.base

    def take(self, until: int) -> bytes:
        """All before sample `until`, which then can no longer change."""
        samples = max(0, min(until, self.end) - self.base)
        taken = bytes(self._buffer[: samples * 2 * self._sample])
        del self._buffer[: len(taken)]
        self.base += samples
        return taken

    def _grow(self, end: int) -> None:
        if end > self.end:
            self._buffer += self._silence * 2 * (end - self.end)
            self.end = end


class Recorder:
    """write... -> close; or a tap on the bus. `permit` is the answer of the `record` door: no Allow, no recorder.

    The file must not exist, is readable by its owner only, and is made by the thread: an unwritable path shows in
    `stats.failed`, not as an exception here.
    """

    def __init__(
        self,
        path: Path,
        permit: Decision,
        format: Format = MULAW_8K,
        keys: Keys | None = None,
        finished: Callable[[Finished], None] = lambda finished: None,
    ) -> None:
        """`keys`: the file is sealed (privacy.sealed), and no WAV until it is opened (`opened_wav`). `finished` is
        called by the thread."""
        if not isinstance(permit, Allow):
            raise MisuseError(f"a recording needs the record door's Allow, not {permit!r}")
        self.path, self.format, self._keys, self._finished = path, format, keys, finished
        self.stats = RecordingStats()
        self._sum, self._audio_bytes = sha256(), 0
        self._queue: deque[tuple[int, int, bytes | None]] = deque()
        self._audio = Interleaved(format)
        self._wake = Event()
        self._closing = False
        self._thread = Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def write(self, channel: Channel, position: int, data: bytes) -> None:
        """Audio at sample `position` of the call, in the recorder's format. Never blocks, never raises for the disk."""
        self._put(_SIDE[channel], position, data)

    def cut(self, channel: Channel, position: int) -> None:
        """What was written from `position` on was never heard."""
        self._put(_SIDE[channel], position, None)

    # A tap of the bus: times are the carrier's media clock, the agent's audio comes ahead of its playing.

    def close(self) -> None:
        """Ends the recording; the thread finishes the file. Idempotent, returns at once."""
        self._closing = True
        self._wake.set()

    def wait(self, timeout_s: float) -> bool:
        """Blocks until the file is finished (after `close`): for a thread, not for the event loop."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _put(self, side: int, position: int, data: bytes | None) -> None:
        if self._closing or self.stats.failed or len(self._queue) >= MAX_QUEUED:
            self.stats.dropped += 1
            return
        self._queue.append((side, position, data))
        self.stats.frames += 1

    # --- in the thread ---

    def _run(self) -> None:
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb", buffering=0) as file:
                self._record(file)
        except (OSError, StoreError) as error:
            self.stats.failed = (error.strerror if isinstance(error, OSError) else None) or str(error)
            log.error("recording stopped: %s", self.stats.failed)
            self._queue.clear()
        self._finished(Finished(self.path.name, self._audio_bytes, self._sum.hexdigest(), self.stats.failed))

    def _record(self, file: BinaryIO) -> None:
        seal = (
            None
            if self._keys is None
            else Sealer(file, self._keys, {"wav": [self.format.encoding, self.format.rate_hz]})
        )
        if seal is None:
            _write_all(file, wav_header(self.format, 0))
        while True:
            closing = self._wake.wait(FLUSH_S)
            self._drain()
            hold = 0 if closing else HOLD_MS * self.format.rate_hz // 1000
            data = self._audio.take(self._audio.end - hold)
            if data and seal is not None:
                seal.add(data)
            elif data:
                _write_all(file, data)
                file.seek(0)
                _write_all(file, wav_header(self.format, self._audio_bytes + len(data)))
                file.seek(0, os.SEEK_END)
            self._sum.update(data)
            self._audio_bytes += len(data)
            if closing:
                if seal is not None:
                    seal.finish()
                return

    def _drain(self) -> None:
        while self._queue:
            side, position, data = self._queue.popleft()
            if position > self._audio.end + MAX_AHEAD_MS * self.format.rate_hz // 1000:
                self.stats.dropped += 1
                continue
            placed = self._audio.cut(side, position) if data is None else self._audio.place(side, position, data)
            self.stats.late += not placed


def _write_all(file: BinaryIO, data: bytes) -> None:
    """An unbuffered file may take only a part, as when the disk fills up: the next write then raises."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def format_of(about: Mapping[str, Any]) -> Format:
    """Of a sealed recording, by what its head says. Raises StoreError."""
    try:
        encoding, rate_hz = about["wav"]
        return Format(encoding, rate_hz)
    except (KeyError, TypeError, ValueError):
        raise StoreError("the sealed file is no recording") from None


def opened_wav(sealed: BinaryIO, wav: BinaryIO, keys: Keys) -> bool:
    """A sealed recording as a WAV, into an empty file that can be sought in. False: its end is missing, as after
    kill -9. Raises StoreError."""
    opened = unseal(sealed, keys)
    format = format_of(opened.about)
    _write_all(wav, wav_header(format, 0))
    written = 0
    for chunk in opened.chunks:
        _write_all(wav, chunk)
        written += len(chunk)
    wav.seek(0)
    _write_all(wav, wav_header(format, written))
    return opened.finished


def wav_header(format: Format, data_bytes: int) -> bytes:
    """RIFF header of a stereo file: PCM, or G.711 with the `fact` chunk that non-PCM needs."""
    tag, sample = {"pcm16": (1, 2), "alaw": (6, 1), "mulaw": (7, 1)}[format.encoding]
    block = 2 * sample
    fmt = struct.pack("<HHIIHHH", tag, 2, format.rate_hz, format.rate_hz * block, block, 8 * sample, 0)
    fact = struct.pack("<4sII", b"fact", 4, data_bytes // block)
    body = b"WAVE" + struct.pack("<4sI", b"fmt ", len(fmt)) + fmt + fact + struct.pack("<4sI", b"data", data_bytes)
    return struct.pack("<4sI", b"RIFF", len(body) + data_bytes) + body
