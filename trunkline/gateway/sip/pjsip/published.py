"""Audio over the published wheel, which has no Bridge: in Python callbacks, on PJSIP's clock thread. Good for four
calls and a first try."""

import contextlib
import ctypes
from collections import deque
from collections.abc import Callable
from typing import Any

import pjsua2 as pj

from trunkline.gateway.sip.stack import Event, FirstMedia, Handle, LineCounters, LineSink
from trunkline.media import g711
from trunkline.types import FRAME_MS, MULAW_8K, PCM_8K


class PublishedPort(pj.AudioMediaPort):
    """A call's place in PJSIP's conference. `tell` and `limit_reached` are called on the loop."""

    def __init__(
        self,
        handle: Handle,
        limit_frames: int,
        on_loop: Callable[[Callable[[], None]], None],
        tell: Callable[[Event], None],
        limit_reached: Callable[[Handle], None],
    ) -> None:
        super().__init__()
        format = pj.MediaFormatAudio()
        format.init(pj.PJMEDIA_FORMAT_PCM, PCM_8K.rate_hz, 1, FRAME_MS * 1000, 16)
        self.createPort("line", format)
        self.line = PublishedLine()
        self._handle, self._limit_frames = handle, limit_frames
        self._on_loop, self._tell, self._limit_reached = on_loop, tell, limit_reached
        self._pinned = False

    def onFrameReceived(self, frame: Any) -> None:
        if not self._pinned:  # one thread state for good, instead of one made and destroyed at every callback
            ctypes.pythonapi.PyGILState_Ensure()
            self._pinned = True
        line = self.line
        audio = b""
        if frame.size == PCM_8K.frame_bytes:
            data = ctypes.c_void_p.from_address(int(frame.buf.this)).value  # std::vector's first member: its data
            audio = g711.encode(ctypes.string_at(data, frame.size), "mulaw") if data else b""
        position_ms, line.position_ms = line.position_ms, line.position_ms + FRAME_MS
        taken_ms = line.taken_ms
        self._on_loop(lambda: self._deliver(audio, position_ms, taken_ms))

    def onFrameRequested(self, frame: Any) -> None:
        line = self.line
        frame.type = pj.PJMEDIA_FRAME_TYPE_NONE
        with contextlib.suppress(IndexError):
            pcm = g711.decode(line.said.popleft(), "mulaw")
            line.taken_ms += FRAME_MS
            frame.buf.resize(len(pcm))
            ctypes.memmove(ctypes.c_void_p.from_address(int(frame.buf.this)).value or 0, pcm, len(pcm))
            frame.size = len(pcm)
            frame.type = pj.PJMEDIA_FRAME_TYPE_AUDIO

    def _deliver(self, audio: bytes, position_ms: int, taken_ms: int) -> None:
        line = self.line
        if position_ms == 0:
            self._tell(FirstMedia(self._handle))
        if self._limit_frames and position_ms == self._limit_frames * FRAME_MS:
            self._limit_reached(self._handle)
        if line.sink is None:
            return
        if audio:
            line.sink.frame(audio, position_ms)
        if taken_ms != line.told_ms:
            line.told_ms = taken_ms
            line.sink.played(taken_ms)


class PublishedLine:
    """`stack.Line` of a PublishedPort."""

    def __init__(self) -> None:
        self.sink: LineSink | None = None
        self.codec = ""
        self.position_ms = self.taken_ms = self.told_ms = self.cleared_frames = 0
        self.said: deque[bytes] = deque(maxlen=64)

    def write(self, audio: bytes, continues: bool) -> int:
        size = MULAW_8K.frame_bytes
        self.said.extend(audio[at : at + size] for at in range(0, len(audio) - size + 1, size))
        return len(self.said) * FRAME_MS

    def clear(self) -> int:
        dropped = 0
        with contextlib.suppress(IndexError):
            while True:
                self.said.popleft()
                dropped += 1
        self.cleared_frames += dropped
        return dropped * FRAME_MS

    def counters(self) -> LineCounters:
        return LineCounters(taken_frames=self.taken_ms // FRAME_MS, cleared_frames=self.cleared_frames)

    def close(self) -> None:
        self.sink = None
