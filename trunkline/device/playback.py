"""What the loudspeaker has still to play, and how far it is: the device's half of the position (`played`, `clear`).

A loudspeaker's driver pulls from a thread of its own, so each method holds a lock for a copy's time.
"""

import threading
from collections import deque

import numpy as np

from trunkline.types import PCM_16K

MAX_MS = 30_000  # the gateway sends a second ahead at most


class Playback:
    """PCM16 at 16 kHz in, the same out, and milliseconds of both."""

    def __init__(self, latency_ms: float = 0.0) -> None:
        """`latency_ms`: from being pulled to being heard."""
        self.latency_ms = latency_ms
        self.dropped_ms = 0.0
        """Given beyond MAX_MS: never played."""
        self._lock = threading.Lock()
        self._chunks: deque[bytes] = deque()
        self._queued = 0
        self._given = 0
        self._over = b""

    def ring(self, pcm16: bytes) -> None:
        """Over whatever else is played, and part of no position."""
        with self._lock:
            self._over = pcm16

    def give(self, pcm16: bytes) -> None:
        with self._lock:
            self._given += len(pcm16)
            if self._queued + len(pcm16) > MAX_MS * PCM_16K.bytes_per_ms:
                self.dropped_ms += len(pcm16) / PCM_16K.bytes_per_ms
                return
            self._chunks.append(pcm16)
            self._queued += len(pcm16)

    def pull(self, size: int) -> bytes:
        """The next `size` bytes, silence where there is nothing."""
        with self._lock:
            taken, wanted = [], size
            while wanted and self._chunks:
                chunk = self._chunks.popleft()
                if len(chunk) > wanted:
                    self._chunks.appendleft(chunk[wanted:])
                    chunk = chunk[:wanted]
                taken.append(chunk)
                wanted -= len(chunk)
            self._queued -= size - wanted
            pcm16 = b"".join(taken) + bytes(wanted)
            over, self._over = self._over[:size], self._over[size:]
        return _mixed(pcm16, over) if over else pcm16

    def clear(self) -> int:
        """Drop what was not played, at once: so many ms were. Counting goes on behind what was dropped."""
        with self._lock:
            played_ms = self._played_ms()
            self._chunks.clear()
            self._queued = 0
            return played_ms

    def restart(self) -> None:
        """Another connection: both sides count from 0."""
        with self._lock:
            self._chunks.clear()
            self._queued = self._given = 0

    @property
    def played_ms(self) -> int:
        with self._lock:
            return self._played_ms()

    @property
    def queued_ms(self) -> int:
        return self._queued // PCM_16K.bytes_per_ms

    @property
    def playing(self) -> bool:
        return self._queued > 0 or bool(self._over)

    def _played_ms(self) -> int:
        behind_ms = self.latency_ms if self._queued else 0.0
        return max(0, int((self._given - self._queued) / PCM_16K.bytes_per_ms - behind_ms))


def _mixed(pcm16: bytes, over: bytes) -> bytes:
    both = np.frombuffer(pcm16, np.int16).astype(np.int32)
    both[: len(over) // 2] += np.frombuffer(over, np.int16)
    mixed: bytes = both.clip(-32768, 32767).astype(np.int16).tobytes()
    return mixed
