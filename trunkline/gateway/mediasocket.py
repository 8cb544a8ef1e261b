"""A WebSocket that carries media, from its opening handshake to its close: asyncio protocol calls in, bytes out.

The handshake is the websockets library's, the frames rfc6455.py's; here they meet a transport. What the messages mean
is the leg's that inherits from this. What middleware would have checked for an HTTP route is checked here: size,
deadlines, how many strangers may wait.

A slow reader costs only itself: above HIGH_WATER nothing more is sent (the playout waits), and after STALL_S the leg is
lost. Nothing here awaits; `check`, called a few times a second, is where all deadlines are kept.
"""

import asyncio
import logging
from http import HTTPStatus
from typing import Generic, NamedTuple, Protocol, TypeVar, cast

from websockets.http11 import Request
from websockets.server import ServerProtocol

from trunkline.clock import Clock
from trunkline.errors import PeerError
from trunkline.gateway import rfc6455
from trunkline.gateway.rfc6455 import MAX_MESSAGE_BYTES, FrameParser
from trunkline.media.bus import Receiver
from trunkline.metrics import Metrics

log = logging.getLogger(__name__)

MAX_HEAD_BYTES = 16 * 1024  # of the opening handshake
HIGH_WATER_BYTES = 64 * 1024  # 5 s of Twilio's audio: the peer has stopped reading
STALL_S = 5.0
CLOSE_WAIT_S = 2.0  # for the peer's half of the closing handshake
CHECK_S = 0.25  # how often deadlines of sockets are looked at
STRANGER_S = 1.0  # a socket without a token may keep others out for so long, when there are too many
BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Denied(NamedTuple):
    """A handshake that is refused."""

    status: HTTPStatus
    why: str


class SocketDoor(Protocol):
    """Who lets sockets in (`SocketDesk`)."""

    def welcome(self, socket: "MediaSocket") -> bool:
        """A new socket. False: too many strangers already."""
        ...

    def gone(self, socket: "MediaSocket", code: int) -> None:
        """The socket is closed, with this code of ours or 1006."""
        ...

    def misbehaved(self, what: str) -> None:
        """A protocol error, for the metrics."""
        ...


class MediaSocket(asyncio.Protocol):
    """A socket is nobody's until it is `authenticated`. A leg says what its messages mean (`text`, `binary`), what else
    has a deadline (`check_media`), and tells its call (`lose`, `fell`)."""

    def __init__(
        self, door: SocketDoor, clock: Clock, *, start_timeout_s: float, max_message_bytes: int = MAX_MESSAGE_BYTES
    ) -> None:
        self.writable = True
        self.authenticated = False
        self.waits_for_us = False
        """It has shown its token, and we look at it."""
        self.bus: Receiver | None = None
        self.opened_at = clock.now()
        self._door, self._clock, self._start_timeout_s = door, clock, start_timeout_s
        self._transport: asyncio.Transport | None = None
        self._frames = FrameParser(max_message_bytes)
        self._head = b""
        self._open = False
        self._stalled_at: float | None = None
        self._closing_at: float | None = None
        self._code = 1006

    # --- a leg's ---

    def denied(self, request: Request) -> Denied | None:
        """Why this request gets no WebSocket."""
        return None

    def text(self, data: bytes) -> None:
        """Raises PeerError, which ends the socket with its code."""
        raise PeerError("text message", rfc6455.UNSUPPORTED)

    def binary(self, data: bytes) -> None:
        raise PeerError("binary message", rfc6455.UNSUPPORTED)

    def pong(self, data: bytes) -> None:
        """The answer to a ping of ours, or none of ours."""

    def check_media(self, now: float) -> None:
        """The deadlines of its own, once it is authenticated."""

    def lose(self, why: str) -> None:
        """The call is told that this leg is lost, where it has not been yet."""

    def fell(self, error: Exception) -> bool:
        """Our own bug: the call is told. False: there is none yet."""
        return False

    # --- asyncio.Protocol ---

    @property
    def closing(self) -> bool:
        return self._closing_at is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(HIGH_WATER_BYTES)

    def data_received(self, data: bytes) -> None:
        try:
            if self._open:
                self._read(data)
            elif self._closing_at is None:
                self._handshake(data)
        except PeerError as error:
            self._door.misbehaved(error.reason)
            log.debug("media socket: %s", error.reason)
            self._give_up(error.close_code, error.reason)
        except Exception as error:
            self._crash(error)

    def eof_received(self) -> bool:
        return False  # closes the transport

    def connection_lost(self, error: Exception | None) -> None:
        self._open = False
        self._transport = None
        self.lose("socket lost")
        self._door.gone(self, self._code)

    def pause_writing(self) -> None:
        self.writable = False
        self._stalled_at = self._clock.now()

    def resume_writing(self) -> None:
        self.writable = True
        self._stalled_at = None

    # --- handshake ---

    def _handshake(self, data: bytes) -> None:
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            if len(self._head) > MAX_HEAD_BYTES:
                self.abort()
            return
        head, rest = self._head[: end + 4], self._head[end + 4 :]
        self._head = b""
        server = ServerProtocol()
        server.receive_data(head)
        request = next((e for e in server.events_received() if isinstance(e, Request)), None)
        answer = b"".join(server.data_to_send())  # the library has answered some bad heads itself
        if request is not None:
            denied = self.denied(request)
            if denied is None and not self._door.welcome(self):
                denied = Denied(HTTPStatus.SERVICE_UNAVAILABLE, "too many media sockets")
            response = server.accept(request) if denied is None else server.reject(denied.status, denied.why + "\n")
            self._open = response.status_code == 101
            server.send_response(response)
            answer += b"".join(server.data_to_send())
        self._write(answer or BAD_REQUEST)
        if not self._open:
            self._door.misbehaved("bad handshake")
            self._close_transport()
        elif rest:
            self._read(rest)

    # --- frames ---

    def _read(self, data: bytes) -> None:
        for opcode, payload in self._frames.feed(data):
            if opcode == rfc6455.CLOSE:
                self._peer_closes(payload)
            elif self._closing_at is not None:
                pass  # we have said goodbye: only its answer matters
            elif opcode == rfc6455.TEXT:
                self.text(payload)
            elif opcode == rfc6455.BINARY:
                self.binary(payload)
            elif opcode == rfc6455.PING and self.writable:
                # else pings of a peer that does not read would fill our memory
                self._write(rfc6455.frame(rfc6455.PONG, payload))
            elif opcode == rfc6455.PONG:
                self.pong(payload)
        if self._frames.error is not None and self._closing_at is None:
            raise self._frames.error

    def _peer_closes(self, payload: bytes) -> None:
        if self._closing_at is None:
            code = rfc6455.close_code(payload)
            self._code = rfc6455.NORMAL
            self._write(rfc6455.frame(rfc6455.CLOSE, payload[:2]))
            self.peer_closed(code)
        self._close_transport()

    def peer_closed(self, code: int) -> None:
        """It has said goodbye of itself."""
        self.lose(f"the peer closed the socket ({code})")

    # --- the end ---

    def check(self, now: float) -> None:
        """The deadlines. Called a few times a second."""
        if self._closing_at is not None:
            if now - self._closing_at > CLOSE_WAIT_S:
                self.abort()
        elif not self.authenticated:
            if not self.waits_for_us and now - self.opened_at > self._start_timeout_s:
                self._door.misbehaved("no start in time")
                self.too_late()
        elif self._stalled_at is not None and now - self._stalled_at > STALL_S:
            self._door.misbehaved("slow reader")
            self.lose("peer does not read")
            self.abort()
        else:
            self.check_media(now)

    def too_late(self) -> None:
        """Nothing has authenticated it in time."""
        self._give_up(rfc6455.POLICY, "no start in time")

    def shut(self, code: int = rfc6455.NORMAL, reason: str = "") -> None:
        """Say goodbye; the peer answers or is cut off after CLOSE_WAIT_S. Idempotent."""
        if self._closing_at is not None or self._transport is None:
            return
        self._closing_at = self._clock.now()
        self._code = code
        if self._open:
            self._write(rfc6455.close_frame(code, reason))
        else:
            self._close_transport()

    def _give_up(self, code: int, reason: str) -> None:
        self.lose(reason)
        self.shut(code, reason)

    def _crash(self, error: Exception) -> None:
        self.shut(rfc6455.INTERNAL)
        if not self.fell(error):
            log.error("media socket: %s", error, exc_info=error)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _close_transport(self) -> None:
        if self._closing_at is None:
            self._closing_at = self._clock.now()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Without a goodbye. `gone` follows."""
        self._open = False
        if self._closing_at is None:
            self._closing_at = self._clock.now()
        if self._transport is not None:
            self._transport.abort()


Socket = TypeVar("Socket", bound=MediaSocket)


class SocketDesk(Generic[Socket]):
    """All sockets of a kind: who may knock, their deadlines in one timer, and the end of them."""

    def __init__(self, max_unauthenticated: int, metrics: Metrics, clock: Clock) -> None:
        self._max_unauthenticated, self._metrics, self._clock = max_unauthenticated, metrics, clock
        self._legs: set[Socket] = set()
        self._checking: asyncio.TimerHandle | None = None
        self._closed = False
        self._empty = asyncio.Event()
        self._empty.set()

    def _took(self, leg: Socket) -> Socket:
        self._legs.add(leg)
        self._metrics.socket_opened()
        self._empty.clear()
        self._check_soon()
        return leg

    # --- SocketDoor ---

    def welcome(self, socket: MediaSocket) -> bool:
        strangers = [other for other in self._legs if not other.authenticated and not other.closing]
        if self._closed:
            return False
        if len(strangers) <= self._max_unauthenticated:
            return True
        # A carrier shows its token at once; whoever has not by now must not keep the next caller out.
        silent = (other for other in strangers if not other.waits_for_us)
        oldest = min(silent, key=lambda other: other.opened_at, default=None)
        if oldest is None or self._clock.now() - oldest.opened_at < STRANGER_S:
            return False
        self.misbehaved("a stranger that stayed")
        oldest.abort()
        return True

    def gone(self, socket: MediaSocket, code: int) -> None:
        self._forget(socket)
        self._metrics.ws_closed(code)

    def misbehaved(self, what: str) -> None:
        self._metrics.drop("slow_reader" if what == "slow reader" else "bad_message")

    def _forget(self, socket: MediaSocket) -> None:
        leg = cast(Socket, socket)
        if leg in self._legs:
            self._legs.remove(leg)
            self._metrics.socket_closed()
        if not self._legs:
            self._empty.set()

    # --- deadlines ---

    def _check_soon(self) -> None:
        if self._checking is None:
            self._checking = asyncio.get_running_loop().call_later(CHECK_S, self._check)

    def _check(self) -> None:
        self._checking = None
        now = self._clock.now()
        for leg in tuple(self._legs):
            try:
                leg.check(now)
            except Exception:
                log.exception("a media socket's deadline")
                leg.abort()
        if self._legs:
            self._check_soon()

    # --- the end ---

    def say_goodbye(self) -> None:
        """Nobody new is let in; every socket sees 1001. Idempotent."""
        self._closed = True
        for leg in tuple(self._legs):
            leg.shut(rfc6455.GOING_AWAY, "going away")

    async def close(self) -> None:
        """No socket is there when this returns, whatever the peers do. Idempotent."""
        self.say_goodbye()
        try:
            async with asyncio.timeout(CLOSE_WAIT_S + 2 * CHECK_S):
                await self._empty.wait()
        except TimeoutError:
            for leg in tuple(self._legs):
                leg.abort()
                self._forget(leg)
        if self._checking is not None:
            self._checking.cancel()
            self._checking = None
