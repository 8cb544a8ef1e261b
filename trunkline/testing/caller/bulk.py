"""Many lines on one core: a WebSocket client on a bare asyncio protocol, and one ticker for all calls.

The client does what a carrier's does and no more: no compression, no fragments outwards, one masking key for the whole
process (RFC 6455 5.3 wants a fresh one a frame; that protects proxies on the open web, of which a rig has none, and
lets the mask be a cached integer). The ticker serves the calls in `slots` groups spread over the 20 ms, each by its own
absolute deadline, and writes down how late it was: a rig that is late measures itself.
"""

import asyncio
import secrets
from array import array
from base64 import b64encode
from collections.abc import Callable
from typing import Protocol, cast
from urllib.parse import urlsplit

from trunkline.clock import Clock
from trunkline.errors import PeerError
from trunkline.testing.caller.client import CLOSE_TIMEOUT_S, OPEN_TIMEOUT_S, RESYNC_S, TICK_S, StreamEnd
from trunkline.testing.caller.line import Line

SLOTS = 4
MAX_HANDSHAKE_BYTES = 16 * 1024
MAX_MESSAGE_BYTES = 1 << 20
BLOCKED_TICKS = 150  # three seconds in which the server took nothing: it is gone

_KEY = secrets.token_bytes(4)
_masks: dict[int, int] = {}


def text_frame(payload: bytes, opcode: int = 0x1) -> bytes:
    """One final masked frame (RFC 6455 5.2)."""
    n = len(payload)
    mask = _masks.get(n)
    if mask is None:
        mask = _masks[n] = int.from_bytes((_KEY * (n // 4 + 1))[:n], "big")
    head = bytes((0x80 | opcode, 0x80 | n)) if n < 126 else bytes((0x80 | opcode, 0xFE)) + n.to_bytes(2, "big")
    return head + _KEY + (int.from_bytes(payload, "big") ^ mask).to_bytes(n, "big")


Framed = Callable[[bytes], bytes]


class FrameReader:
    """Server frames to (opcode, payload).

    Plain: feed bytes, take messages. Raises PeerError for what RFC 6455 forbids.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self._parts: list[bytes] = []
        self._opcode = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        buffer = self._buffer + data if self._buffer else data
        messages: list[tuple[int, bytes]] = []
        at, size = 0, len(buffer)
        while size - at >= 2:
            first, n, start = buffer[at], buffer[at + 1], at + 2
            if n > 127 or first & 0x70:
                raise PeerError("a server frame is masked or has reserved bits")
            if n > 125:
                width = 2 if n == 126 else 8
                if size - start < width:
                    break
                n = int.from_bytes(buffer[start : start + width], "big")
                start += width
            if n > MAX_MESSAGE_BYTES:
                raise PeerError("a server frame is over 1 MiB", 1009)
            if size - start < n:
                break
            at = start + n
            if first in (0x81, 0x88, 0x89, 0x8A):
                messages.append((first & 0x0F, buffer[start:at]))
            else:
                self._fragment(first, buffer[start:at], messages)
        self._buffer = buffer[at:] if at < size else b""
        return messages

    def _fragment(self, first: int, payload: bytes, messages: list[tuple[int, bytes]]) -> None:
        opcode = first & 0x0F
        if opcode not in (0x0, 0x1, 0x2) or (opcode == 0x0) != bool(self._parts):
            raise PeerError("server frames are out of order")
        self._opcode = opcode or self._opcode
        self._parts.append(payload)
        if sum(map(len, self._parts)) > MAX_MESSAGE_BYTES:
            raise PeerError("a server message is over 1 MiB", 1009)
        if first & 0x80:
            messages.append((self._opcode, b"".join(self._parts)))
            self._parts = []


class BulkSocket(asyncio.Protocol):
    """One call's connection. `opened` when the server has switched protocols, `closed` when the socket is gone."""

    def __init__(self, url: str, line: Line, clock: Clock, framed: Framed | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.line, self._clock = line, clock
        self._framed, self._is_json = framed or text_frame, framed is None
        self.opened: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.end = StreamEnd()
        self._url = urlsplit(url)
        self._reader = FrameReader()
        self._head: bytes | None = b""  # the handshake's answer so far; None once it is over
        self._transport: asyncio.Transport | None = None
        self._blocked_ticks = -1  # counting while the server takes nothing

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        path = (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")
        key = b64encode(secrets.token_bytes(16)).decode()
        transport.write(
            f"GET {path} HTTP/1.1\r\nHost: {self._url.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nUser-Agent: Twilio.TmeWs/1.0\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        try:
            if self._head is not None:
                data = self._shake(data)
            if data:
                self._take(data)
        except PeerError as error:
            self._fail(error)

    def _shake(self, data: bytes) -> bytes:
        assert self._head is not None
        self._head += data
        head, separator, rest = self._head.partition(b"\r\n\r\n")
        if not separator:
            if len(self._head) > MAX_HANDSHAKE_BYTES:
                raise PeerError("the handshake does not end")
            return b""
        status = head.split(b"\r\n", 1)[0].decode("latin-1")
        if status.split()[1:2] != ["101"]:
            raise PeerError(f"the server refused the stream: {status}")
        self._head = None
        self.opened.set_result(None)
        return rest

    def _take(self, data: bytes) -> None:
        now, line = self._clock.now(), self.line
        for opcode, payload in self._reader.feed(data):
            if opcode in (0x1, 0x2):
                replies = line.receive(payload if self._is_json or opcode == 0x2 else payload.decode(), now)
                if replies:
                    self.send(replies)
            elif opcode == 0x9:
                self._write(text_frame(payload, 0xA))
            elif opcode == 0x8:
                self.end.close_code = int.from_bytes(payload[:2], "big") if len(payload) > 1 else 1005
                self.end.close_reason = payload[2:].decode(errors="replace")
                self._write(text_frame(payload[:2], 0x8))
                line.closed(now, clean=self.end.close_code == 1000)

    def _fail(self, error: PeerError) -> None:
        if not self.opened.done():
            self.opened.set_exception(error)
        self.end.close_reason = self.end.close_reason or str(error)
        self.line.closed(self._clock.now(), clean=False)
        self.abort()

    def send(self, messages: list[bytes]) -> None:
        self._write(b"".join(map(self._framed, messages)) if len(messages) > 1 else self._framed(messages[0]))

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def tick(self) -> bool:
        if self.line.ended is not None:
            return False
        messages = self.line.tick(self._clock.now())
        if self._blocked_ticks >= 0:
            self._blocked_ticks += 1
            if self._blocked_ticks > BLOCKED_TICKS:
                self._fail(PeerError("the server has taken nothing for 3 s"))
        if messages:
            self.send(messages)
        return self.line.ended is None

    def pause_writing(self) -> None:
        self._blocked_ticks = 0

    def resume_writing(self) -> None:
        self._blocked_ticks = -1

    def say_goodbye(self) -> None:
        """The closing handshake's first half."""
        self._write(text_frame((1000).to_bytes(2, "big"), 0x8))

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(PeerError(f"the server closed the connection in the handshake: {exc or 'EOF'}"))
        self.line.closed(self._clock.now(), clean=False)
        if not self.closed.done():
            self.closed.set_result(None)


class Ticked(Protocol):
    def tick(self) -> bool:
        """20 ms of a call. False: it is over."""
        ...


class Ticker:
    """Calls every joined call each 20 ms. One for all; `start` once, then `stop`."""

    def __init__(self, clock: Clock, *, slots: int = SLOTS) -> None:
        self._clock, self._slots = clock, [dict[Ticked, Callable[[], None]]() for _ in range(slots)]
        self.late_ms = array("f")
        """Of each served slot: when its last call was served, after the slot's deadline."""
        self.resyncs = 0
        self._at = 0
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._deadline = self._clock.now() + TICK_S / len(self._slots)
        self._arm()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def join(self, socket: Ticked, on_end: Callable[[], None]) -> None:
        """`on_end` is called once, on the tick at which the call is over; it has then left."""
        min(self._slots, key=len)[socket] = on_end

    def leave(self, socket: Ticked) -> None:
        for slot in self._slots:
            slot.pop(socket, None)

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_at(self._deadline, self._serve)

    def _serve(self) -> None:
        slot = self._slots[self._at]
        ended = [socket for socket in slot if not socket.tick()]
        for socket in ended:
            slot.pop(socket)()
        now = self._clock.now()
        if slot:
            self.late_ms.append((now - self._deadline) * 1000)
        self._at = (self._at + 1) % len(self._slots)
        self._deadline += TICK_S / len(self._slots)
        if now - self._deadline > RESYNC_S:
            self._deadline, self.resyncs = now, self.resyncs + 1
        self._arm()


async def run_bulk(url: str, line: Line, clock: Clock, ticker: Ticker, framed: Framed | None = None) -> StreamEnd:
    """As `client.run_line`, on the shared ticker. `framed`: how messages are written, where not all are text; texts
    that come are then told from binary messages by their type."""
    parts = urlsplit(url)
    secure = parts.scheme == "wss"
    loop, socket = asyncio.get_running_loop(), BulkSocket(url, line, clock, framed)
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            port = parts.port or (443 if secure else 80)
            await loop.create_connection(lambda: socket, parts.hostname or "", port, ssl=secure or None)
            await socket.opened
    except (OSError, TimeoutError) as error:
        socket.abort()
        raise PeerError(f"cannot open the media stream at {url}: {error}") from error
    over: asyncio.Future[None] = loop.create_future()
    socket.send(line.open(clock.now()))
    ticker.join(socket, lambda: None if over.done() else over.set_result(None))
    try:
        await over
        if line.ended == "vanished":
            socket.abort()
        else:
            socket.say_goodbye()
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await asyncio.shield(socket.closed)
    except TimeoutError:
        pass
    finally:
        ticker.leave(socket)
        socket.abort()
    return socket.end
