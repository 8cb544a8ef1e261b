"""The audio of all calls over our build's Bridge: frames of every line in one read a tick. All on the loop."""

import logging
import struct
from collections.abc import Callable
from typing import Any

from trunkline.gateway.sip.stack import Event, FirstMedia, Handle, LimitReached, LineCounters, LineSink
from trunkline.types import MULAW_8K

log = logging.getLogger("trunkline.sip")

RECORD = struct.Struct("=HHIII")
RECORD_BYTES = RECORD.size + MULAW_8K.frame_bytes
FRAME_THERE, RTP_CAME, LIMIT_HIT = 1, 2, 4


class Lines:
    """By their index in the bridge."""

    def __init__(self, count: int) -> None:
        self.bridge: Any = None
        """Ours, once PJSIP runs."""
        self._lines: list[Line | None] = [None] * count
        self._buffer = bytearray(RECORD_BYTES * 2 * count)
        self._view = memoryview(self._buffer)

    def __len__(self) -> int:
        return len(self._lines)

    def open(self, line: "Line") -> None:
        self._lines[line.index] = line

    def close(self, line: "Line") -> None:
        if self._lines[line.index] is line:
            self._lines[line.index] = None
        self.bridge.close(line.index)

    def read(self, tell: Callable[[Event], None]) -> bool:
        """What the tick brought, to the lines' sinks. False: nothing."""
        full = len(self._buffer) // RECORD_BYTES
        read = count = self._read_once(tell)
        while count == full:  # we were away: the rings hold more, and no more than they hold
            count = self._read_once(tell)
        return read > 0

    def _read_once(self, tell: Callable[[Event], None]) -> int:
        lines, view, unpack, size = self._lines, self._view, RECORD.unpack_from, RECORD.size
        count: int = self.bridge.read(self._buffer)
        for at in range(0, count * RECORD_BYTES, RECORD_BYTES):
            index, flags, position_ms, taken_ms, _ = unpack(self._buffer, at)
            line = lines[index]
            if line is None or line.sink is None:
                continue
            try:
                if flags & FRAME_THERE:
                    line.sink.frame(bytes(view[at + size : at + RECORD_BYTES]), position_ms)
                if taken_ms != line.taken_ms:
                    line.taken_ms = taken_ms
                    if line.sink is not None:  # it may have closed the line
                        line.sink.played(taken_ms)
            except Exception:
                log.exception("a line's sink")
                line.sink = None
            if flags & line.unsaid_flags:
                _say(line, flags, tell)
        return count


class Line:
    """`stack.Line` over the bridge."""

    def __init__(self, lines: Lines, handle: Handle, index: int) -> None:
        self.sink: LineSink | None = None
        self.codec = ""
        self.handle, self.index = handle, index
        self.taken_ms = 0
        self.unsaid_flags = RTP_CAME | LIMIT_HIT
        self.closed = False
        self._lines, self._bridge = lines, lines.bridge

    def write(self, audio: bytes, continues: bool) -> int:
        return 0 if self.closed else max(0, int(self._bridge.write(self.index, audio, continues)))

    def clear(self) -> int:
        return 0 if self.closed else int(self._bridge.clear(self.index))

    def counters(self) -> LineCounters:
        if self.closed:
            return LineCounters()
        taken, replaced, cleared, overrun, missing, strange, quiet_ms = map(
            int, self._bridge.counters(self.index).split()
        )
        return LineCounters(taken, replaced, cleared, overrun, missing, strange, quiet_ms / 1000)

    def close(self) -> None:
        """Here and nowhere else is the bridge's line given back: its next user must not hear what we still say."""
        if not self.closed:
            self.closed, self.sink = True, None
            self._lines.close(self)


def _say(line: Line, flags: int, tell: Callable[[Event], None]) -> None:
    """Each of them once."""
    news, line.unsaid_flags = flags & line.unsaid_flags, line.unsaid_flags & ~flags
    if news & RTP_CAME:
        tell(FirstMedia(line.handle))
    if news & LIMIT_HIT:
        tell(LimitReached(line.handle))
