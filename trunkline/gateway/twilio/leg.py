"""A Twilio media socket, from its opening handshake to its close: asyncio protocol calls in, bytes out.

The handshake is the websockets library's, the frames rfc6455.py's, the messages wire.py's; here they meet a transport.
A socket is nobody's until its `start` has shown a valid token; then it is a leg of that call (`attach`). What
middleware would have checked for an HTTP route is checked here: size, deadlines, token, how many strangers may wait.

A slow reader costs only itself: above HIGH_WATER nothing more is sent (the playout waits), and after STALL_S the leg is
lost. Nothing here awaits; `check`, called a few times a second, is where all deadlines are kept.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

from websockets.http11 import Request
from websockets.server import ServerProtocol

from trunkline.clock import Clock
from trunkline.errors import MisuseError, PeerError
from trunkline.gateway import rfc6455
from trunkline.gateway.hands import Told
from trunkline.gateway.leg import Leg, LegCall, LegKind
from trunkline.gateway.rfc6455 import FrameParser
from trunkline.gateway.twilio.wire import Audio, Keyed, Marked, MediaStream, Phase, Started, Stopped
from trunkline.media.bus import Receiver
from trunkline.media.playout import LeadPolicy, Message
from trunkline.ports import Refuse
from trunkline.types import CallSid

log = logging.getLogger(__name__)

MAX_HEAD_BYTES = 16 * 1024  # of the opening handshake
HIGH_WATER_BYTES = 64 * 1024  # 5 s of audio: the peer has stopped reading
STALL_S = 5.0
CLOSE_WAIT_S = 2.0  # for the peer's half of the closing handshake
_OUR_WISH = {"agent_hung_up", "no_input", "max_duration", "refused", "error"}
_CLOSE_CODES = {"replaced": rfc6455.GOING_AWAY, "going away": rfc6455.GOING_AWAY}
_NO_REFER = Refuse("not_supported", "Twilio puts callers through by <Dial>, which ends the stream")
BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class MediaDoor(Protocol):
    """Who lets sockets in (`Sockets`)."""

    def welcome(self, leg: "TwilioLeg") -> bool:
        """A new socket. False: too many strangers already."""
        ...

    def attach(self, leg: "TwilioLeg", started: Started) -> tuple[LegCall, Receiver]:
        """A stream has started. Raises PeerError (1008) when its token does not let it in."""
        ...

    def gone(self, leg: "TwilioLeg", code: int) -> None:
        """The socket is closed, with this code of ours or 1006."""
        ...

    def hang_up(self, call_sid: CallSid) -> None:
        """The call has no stream to end it by."""
        ...

    def misbehaved(self, what: str) -> None:
        """A protocol error, for the metrics."""
        ...


class TwilioLeg(asyncio.Protocol):
    """One socket, and once it has shown its token the call's Leg."""

    kind: LegKind = "twilio"
    transfers = True  # by <Dial>
    sends_dtmf = False  # Media Streams has no outbound DTMF
    networked = True
    puts_through = False  # there is no REFER

    def __init__(
        self,
        door: MediaDoor,
        clock: Clock,
        *,
        start_timeout_s: float,
        media_timeout_s: float,
        lead: LeadPolicy | None = None,
    ) -> None:
        self.stream = MediaStream()
        self.lead = lead or LeadPolicy()
        self.writable = True
        self.authenticated = False
        self._door, self._clock = door, clock
        self._start_timeout_s, self._media_timeout_s = start_timeout_s, media_timeout_s
        self._transport: asyncio.Transport | None = None
        self._frames = FrameParser()
        self._head = b""
        self._open = False
        self._call: LegCall | None = None
        self.bus: Receiver | None = None
        self._call_sid: CallSid | None = None
        self.opened_at = self._media_at = clock.now()
        self._stalled_at: float | None = None
        self._closing_at: float | None = None
        self._code = 1006

    @property
    def closing(self) -> bool:
        return self._closing_at is not None

    # --- asyncio.Protocol ---

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
        self._lose("socket lost")
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
            welcome = self._door.welcome(self)
            response = server.accept(request) if welcome else server.reject(503, "too many media sockets\n")
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
                self._message(payload)
            elif opcode == rfc6455.PING:
                if self.writable:  # else pings of a peer that does not read would fill our memory
                    self._write(rfc6455.frame(rfc6455.PONG, payload))
            elif opcode == rfc6455.BINARY:
                raise PeerError("binary message", rfc6455.UNSUPPORTED)
        if self._frames.error is not None and self._closing_at is None:
            raise self._frames.error

    def _peer_closes(self, payload: bytes) -> None:
        if self._closing_at is None:
            code = rfc6455.close_code(payload)
            self._code = rfc6455.NORMAL
            self._write(rfc6455.frame(rfc6455.CLOSE, payload[:2]))
            self._lose(f"the carrier closed the socket ({code})")
        self._close_transport()

    def _message(self, text: bytes) -> None:
        event = self.stream.receive(text)
        if isinstance(event, Audio):
            self._media_at = self._clock.now()
            if self.bus is not None:
                self.bus.receive(event.data, event.timestamp_ms)
        elif isinstance(event, Marked):
            if self.bus is not None:
                self.bus.mark_returned(event.name)
        elif isinstance(event, Keyed):
            if self._call is not None:
                self._call.key(event.digit)
        elif isinstance(event, Started):
            self._call, self.bus = self._door.attach(self, event)
            self._call_sid = event.call_sid
            self.authenticated = True
            self._media_at = self._clock.now()
        elif isinstance(event, Stopped):
            call, self._call = self._call, None
            if call is not None:
                call.stopped(self)
            self.shut()

    # --- the call's Leg ---

    def send(self, messages: Sequence[Message]) -> None:
        if self._closing_at is not None:
            return  # RFC 6455 5.5.1: no data frame after a close frame
        stream, frame, text = self.stream, rfc6455.frame, rfc6455.TEXT
        out: list[bytes] = []
        for message in messages:
            out.append(frame(text, stream.media(message.audio)))
            if message.mark:
                out.append(frame(text, stream.mark(message.mark)))
        self._write(b"".join(out))

    def clear(self) -> None:
        if self._closing_at is None:
            self._write(rfc6455.frame(rfc6455.TEXT, self.stream.clear()))

    def send_dtmf(self, digits: str) -> None:
        raise MisuseError("Media Streams sends no digits")

    def stats(self) -> Mapping[str, int]:
        return {}

    def close(self, why: str = "") -> None:
        """The peer is told goodbye. Idempotent; `lost` or `stopped` follows. Without a socket (Twilio dials for us, or
        has lost it) the call itself is ended over REST, where ending it was our wish."""
        if why in _OUR_WISH and self._call_sid is not None:
            if self._transport is None:
                self._door.hang_up(self._call_sid)
            self._call_sid = None  # once: the end of the stream is the end of the call
        self.shut(_CLOSE_CODES.get(why, rfc6455.NORMAL), why if why in _CLOSE_CODES else "")

    def detach(self) -> None:
        """The call wants nothing more of this socket."""
        self._call = self.bus = None

    # --- Hands ---

    def put_through(self, address: str, told: Told) -> str | Refuse:
        return _NO_REFER

    def put_through_to(self, other: Leg, told: Told) -> str | Refuse:
        return _NO_REFER

    # --- the end ---

    def check(self, now: float) -> None:
        """The deadlines. Called a few times a second."""
        if self._closing_at is not None:
            if now - self._closing_at > CLOSE_WAIT_S:
                self.abort()
        elif not self.authenticated:
            if now - self.opened_at > self._start_timeout_s:
                self._door.misbehaved("no start in time")
                self._give_up(rfc6455.POLICY, "no start in time")
        elif self._stalled_at is not None and now - self._stalled_at > STALL_S:
            self._door.misbehaved("slow reader")
            self._lose("peer does not read")
            self.abort()
        elif self.stream.phase is Phase.STREAMING and now - self._media_at > self._media_timeout_s:
            self._lose("no media")
            self._give_up(rfc6455.GOING_AWAY, "no media")

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
        self._lose(reason)
        self.shut(code, reason)

    def _crash(self, error: Exception) -> None:
        self.shut(rfc6455.INTERNAL)
        if self._call is not None:
            self._call.crashed(error)
        else:
            log.error("media socket: %s", error, exc_info=error)

    def _lose(self, why: str) -> None:
        call, self._call, self.bus = self._call, None, None
        if call is not None:
            call.lost(self, why)

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
