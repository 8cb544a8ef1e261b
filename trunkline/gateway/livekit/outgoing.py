"""What of the agent's voice the room has taken, by the clock. Plain values.

The SDK plays its queue in real time, one 10 ms step after the other, so its end is known when something is put there.
A clear drops the rest at once; how much that was is reckoned to a whole frame and one more, for the SDK's steps are not
ours: what counts as heard is never more than was sent on.
"""

from collections import deque
from collections.abc import Sequence

from trunkline.media.playout import LeadPolicy, Message
from trunkline.types import FRAME_MS, MULAW_8K

MESSAGE_MS = 100  # each costs an event of the SDK's, in every room of the process


def livekit_lead() -> LeadPolicy:
    """Constant: the queue is this process's, and a clear empties it."""
    return LeadPolicy(start_ms=240, min_ms=240, max_ms=240, message_ms=MESSAGE_MS)


class Outgoing:
    def __init__(self) -> None:
        self._empty_at = 0.0
        self._run_at = 0.0  # since when it plays without a pause
        self._marks: deque[tuple[float, str]] = deque()

    def put(self, messages: Sequence[Message], now: float) -> None:
        for message in messages:
            if self._empty_at <= now:
                self._empty_at = self._run_at = now
            self._empty_at += len(message.audio) / MULAW_8K.rate_hz
            if message.mark:
                self._marks.append((self._empty_at, message.mark))

    def due(self, now: float) -> list[str]:
        """The marks that were reached."""
        found = []
        while self._marks and self._marks[0][0] <= now:
            found.append(self._marks.popleft()[1])
        return found

    def clear(self, now: float) -> int:
        """How many ms it dropped."""
        self._marks.clear()
        if self._empty_at <= now:
            return 0
        rest_ms, run_ms = round((self._empty_at - now) * 1000), round((self._empty_at - self._run_at) * 1000)
        self._empty_at = now
        return min(run_ms, -(-rest_ms // FRAME_MS) * FRAME_MS + FRAME_MS)

    def queued_ms(self, now: float) -> int:
        return max(0, round((self._empty_at - now) * 1000))
