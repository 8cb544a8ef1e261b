"""When the agent's frames leave, one every 20 ms, and what of them was heard: what has left. Plain values.

A short queue stands between playout and wire, so a clear drops it at once and knows to the frame what it dropped. While
there is nothing to say nothing is sent, as with DTX: some silence after the last word, for the far end's concealment
not to carry on its sound, then one frame of it every KEEPALIVE_S, for NATs and for the far end's sake. The RTP clock
runs on.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from trunkline.media.playout import LeadPolicy, Message
from trunkline.types import FRAME_MS, MULAW_8K

FRAME_S = FRAME_MS / 1000
HANGOVER_FRAMES = 10
KEEPALIVE_S = 0.4  # as libopus's DTX has it
SLIP_MS = 100  # more than this beyond the lead waits only when nobody has asked for so long
EARLY_S = FRAME_S / 4  # a beat may come so much before its time
STEP = 960  # of the RTP clock, per frame
FRAME_BYTES = MULAW_8K.frame_bytes


def webrtc_lead(lead_ms: int = 60) -> LeadPolicy:
    """Constant: nothing between us and the queue can be late but ourselves. In single frames."""
    return LeadPolicy(start_ms=lead_ms, min_ms=lead_ms, max_ms=lead_ms, message_ms=FRAME_MS)


class Due(NamedTuple):
    """A frame to send now. `audio` is empty: silence."""

    audio: bytes
    timestamp: int
    """Of RTP, from 0."""
    begins: bool
    """After a pause: RTP's marker."""


class Outgoing:
    def __init__(self, now: float, lead: LeadPolicy) -> None:
        self.writable = True
        self.sent_frames = 0
        """Of the agent's voice."""
        self._max_ms = lead.max_ms
        self._queue: deque[tuple[bytes, str]] = deque()
        self._origin = self._next_at = now
        self._silent = HANGOVER_FRAMES  # frames of silence since the last word
        self._place = -1  # of the last frame sent, in frames from the origin

    def put(self, messages: Sequence[Message]) -> None:
        for message in messages:
            audio = message.audio
            for start in range(0, len(audio), FRAME_BYTES):
                last = start + FRAME_BYTES >= len(audio)
                self._queue.append((audio[start : start + FRAME_BYTES], message.mark if last else ""))
        if len(self._queue) * FRAME_MS > self._max_ms + SLIP_MS:
            self.writable = False

    def clear(self) -> int:
        """How many ms it dropped."""
        dropped_ms = len(self._queue) * FRAME_MS
        self._queue.clear()
        self.writable = True
        return dropped_ms

    @property
    def speaking(self) -> bool:
        return bool(self._queue)

    def due(self, now: float, marked: Callable[[str], None]) -> list[Due]:
        """What is to be sent now; `marked` is told of the marks that are reached by it. Beats that were missed are made
        up, as far as there is something to say."""
        found: list[Due] = []
        while self._next_at <= now + EARLY_S:
            if not self._queue:
                if (silence := self._silence(now)) is not None:
                    found.append(silence)
                break
            if self._silent or now - self._next_at > self._max_ms / 1000:
                self._next_at = max(self._next_at, now)  # nothing is late: we had nothing to say, or were held up long
            audio, mark = self._queue.popleft()
            found.append(Due(audio, self._timestamp(), self._silent > 0))
            self._silent = 0
            self.sent_frames += 1
            self._next_at += FRAME_S
            if mark:
                marked(mark)
        if not self.writable and len(self._queue) * FRAME_MS <= self._max_ms:
            self.writable = True
        return found

    def _silence(self, now: float) -> Due | None:
        if self._silent >= HANGOVER_FRAMES and now + EARLY_S < self._next_at + KEEPALIVE_S:
            return None
        self._next_at = max(self._next_at, now - EARLY_S)
        due = Due(b"", self._timestamp(), False)
        self._silent += 1
        self._next_at += FRAME_S
        return due

    def _timestamp(self) -> int:
        self._place = max(self._place + 1, int((self._next_at - self._origin) / FRAME_S + 0.5))
        return self._place * STEP & 0xFFFFFFFF
