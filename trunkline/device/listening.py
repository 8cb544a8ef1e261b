"""The wake word's detector in a process of its own: decoding keeps the GIL (PocketSphinx), and a device's loop must not
stand still.

It is a speech pool of one worker (`agents/local/pool.py`): what is not yet heard is bounded, a worker that dies or
hangs is replaced, and the device is deaf for that long.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from trunkline.agents.local.pool import Job, Reply, SpeechPool
from trunkline.agents.local.wire import Message
from trunkline.device.wakeword import Hit, WakeWord, find_wake_word
from trunkline.errors import ConfigError, MissingExtra, ProviderError
from trunkline.types import FRAME_MS, PCM_16K

KIND = "wakeword"
QUEUE_MS = 2000
READY_S = 30.0  # imports, a decoder


class Listening:
    """`on_hit(phrase, hit)`: `Hit.ends_at` in the samples that `push` counts."""

    def __init__(self, detector: str, phrase: str, threshold: float, on_hit: Callable[[str, Hit], None]) -> None:
        self.dropped_frames = 0
        """Not listened to: the detector is behind, or not there."""
        self._begin = Message("begin", {"detector": detector, "phrase": phrase, "threshold": threshold})
        self._on_hit = on_hit
        queue_bytes = QUEUE_MS // FRAME_MS * (PCM_16K.frame_bytes + 64)
        kinds = {KIND: f"{__name__}:Detecting"}
        self._pool = SpeechPool(1, jobs_per_worker=1, queue_bytes_per_worker=queue_bytes, kinds=kinds)
        self._job: Job | None = None
        self._ready: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Raises ConfigError, MissingExtra, ProviderError."""
        await self._pool.start()
        self._ready = asyncio.get_running_loop().create_future()
        try:
            self._job = self._pool.borrow(KIND, self._replied, self._begin)
            async with asyncio.timeout(READY_S):
                await self._ready
        except TimeoutError:
            raise ProviderError("wake word", "timeout", "its detector does not begin", retryable=False) from None

    def push(self, pcm16: bytes, ends_at: int) -> None:
        """The next audio, which ends so many samples after the first that was heard. What lies between two pushes was
        not to be listened to."""
        try:
            if self._job is None or not self._job.open:
                self._job = self._pool.borrow(KIND, self._replied, self._begin)
            self._job.send("hear", pcm16, ends_at=ends_at)
        except ProviderError:
            self.dropped_frames += 1

    async def close(self) -> None:
        """Idempotent."""
        if self._job is not None:
            self._job.close()
        await self._pool.close()

    def _replied(self, reply: Reply) -> None:
        if isinstance(reply, Message) and reply.name == "hit":
            self._on_hit(reply.fields["phrase"], Hit(reply.fields["ends_at"], reply.fields["score"]))
        elif self._ready is not None and not self._ready.done():
            if isinstance(reply, ProviderError):
                self._ready.set_exception(reply)
            elif reply.name == "refused":
                self._ready.set_exception(_error(**reply.fields))
            else:
                self._ready.set_result(None)


def _error(config: list[Any], extra: list[str]) -> Exception:
    return ConfigError(*config) if config else MissingExtra(*extra)


# --- in the worker --------------------------------------------------------------------------------------------------


class Detecting:
    """`agents.local.worker.Kind`."""

    def preload(self, message: Message) -> Iterable[Message]:
        return ()

    def open(self) -> "Detector":
        return Detector()


class Detector:
    """`agents.local.worker.Handler`: one microphone's."""

    def __init__(self) -> None:
        self._wake_word: WakeWord | None = None
        self._pushed = 0

    def handle(self, message: Message) -> Iterable[Message]:
        if message.name == "begin":
            yield self._made(**message.fields)
        elif self._wake_word is not None:
            self._pushed += len(message.data) // 2
            hit = self._wake_word.push(message.data)
            if hit is not None:
                ends_at = message.fields["ends_at"] - (self._pushed - hit.ends_at)
                yield Message("hit", {"phrase": self._wake_word.phrase, "ends_at": ends_at, "score": hit.score})

    def _made(self, detector: str, phrase: str, threshold: float) -> Message:
        try:
            self._wake_word = find_wake_word(detector, phrase, threshold)
        except ConfigError as error:
            return Message("refused", {"config": [error.key, error.value, error.allowed], "extra": []})
        except MissingExtra as error:
            return Message("refused", {"config": [], "extra": [error.package, error.extra]})
        return Message("ready")

    def close(self) -> None:
        self._wake_word = None
