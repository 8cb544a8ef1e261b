"""A client's WebSocket (RFC 6455) for the hot path: no task, no queue and no log line; sending never waits.

The protocol is the `websockets` package's own, without its connection: what arrives is told from the transport's
callback, what is sent goes to the transport at once. A port's feed() may not wait, and with that package's client it
would need a queue and a task to empty it; the CPU is about the same (bench/README.md). It offers no compression.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping
from typing import cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

MAX_MESSAGE_BYTES = 1024 * 1024
STALE_BYTES = 4096  # of a moment: an event loop may hold these until it has finished its round
MAX_UNSENT_BYTES = 256 * 1024
"""A peer that reads so far behind is taken for dead."""
_SILENT = logging.getLogger("trunkline.websocket.silent")
_SILENT.disabled = True  # it would write headers, with their keys, and what is said


class Refused(Exception):
    """The handshake was answered with another HTTP status than 101."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        super().__init__(status)
        self.status, self.headers, self.body = status, headers, body


class Gone(Exception):
    """The connection is lost. `code` and `reason` as the peer's close frame had them; 1006 without one."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code, self.reason = code, reason


class Link(asyncio.Protocol):
    """One connection. `on_message` gets text as str, binary as bytes; `on_gone` is called once, after a handshake that
    succeeded, unless close() or abort() came first; no callback follows these. None comes before who awaited open()
    waits again."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        on_message: Callable[[str | bytes], None],
        on_gone: Callable[[Gone], None],
    ) -> None:
        self._ws = ClientProtocol(parse_uri(url), max_size=MAX_MESSAGE_BYTES, logger=_SILENT)
        self._headers = headers
        self._on_message: Callable[[str | bytes], None] | None = on_message
        self._on_gone: Callable[[Gone], None] | None = on_gone
        self._opened: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._early: list[str | bytes | Gone] | None = []
        self._parts: list[bytes] = []
        self._is_text = False
        self.received_bytes = 0
        """Of anything: who still reads answers pings."""

    async def open(self, tls: ssl.SSLContext | None) -> None:
        """Raises Refused, OSError, Gone. To be bounded by the caller; a wait that is cancelled leaves nothing open."""
        loop = asyncio.get_running_loop()
        uri = self._ws.uri
        self._opened = loop.create_future()
        try:
            await loop.create_connection(lambda: self, uri.host, uri.port, ssl=tls if uri.secure else None)
            await self._opened
        except BaseException:
            self.abort()
            raise
        loop.call_soon(self._tell_early)

    def send(self, data: str | bytes) -> None:
        """Text or binary. What is sent on a connection that is gone is lost; `on_gone` has said or will say so."""
        if self._ws.state is not State.OPEN or self._transport is None:
            return
        if isinstance(data, str):
            self._ws.send_text(data.encode())
        else:
            self._ws.send_binary(data)
        self._flush()
        if self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self._transport.abort()

    def ping(self) -> None:
        if self._ws.state is State.OPEN and self._transport is not None:
            self._ws.send_ping(b"")
            self._flush()

    def close(self) -> None:
        """Say goodbye and leave, after what has been sent; what a peer that does not read has not taken yet is not
        given to it any more: the caller may just have forbidden it. Idempotent."""
        self._on_message = self._on_gone = None
        if self._transport is None:
            return
        if self._transport.get_write_buffer_size() > STALE_BYTES:
            self._transport.abort()
            return
        if self._ws.state is State.OPEN:
            self._ws.send_close(1000)
            self._flush()
        self._transport.close()

    def abort(self) -> None:
        self._on_message = self._on_gone = None
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its type
        request = self._ws.connect()
        for name, value in self._headers.items():
            request.headers[name] = value
        self._ws.send_request(request)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self.received_bytes += len(data)
        self._ws.receive_data(data)
        self._take_events()

    def eof_received(self) -> None:
        self._ws.receive_eof()
        self._take_events()

    def connection_lost(self, error: Exception | None) -> None:
        if self._ws.state is not State.CLOSED:
            self._ws.receive_eof()
            self._take_events()
        code = self._ws.close_rcvd.code if self._ws.close_rcvd else 1006
        self._lose(Gone(code, self._ws.close_rcvd.reason if self._ws.close_rcvd else ""))

    # --- pieces ---

    def _take_events(self) -> None:
        for event in self._ws.events_received():
            if isinstance(event, Frame):
                self._take_frame(event)
        if self._opened is not None and not self._opened.done():
            if self._ws.handshake_exc is not None:
                self._opened.set_exception(_refusal(self._ws.handshake_exc))
            elif self._ws.state is not State.CONNECTING:
                self._opened.set_result(None)
        self._flush()
        if self._ws.close_expected() and self._transport is not None:
            self._transport.close()

    def _take_frame(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._is_text = frame.opcode is Opcode.TEXT
        elif frame.opcode is not Opcode.CONT:
            return
        self._parts.append(bytes(frame.data))
        if not frame.fin:
            return
        whole, self._parts = b"".join(self._parts), []
        self._tell(whole.decode("utf-8", "replace") if self._is_text else whole)

    def _tell(self, what: str | bytes | Gone) -> None:
        if self._early is not None:
            self._early.append(what)
        elif not isinstance(what, Gone):
            if self._on_message is not None:
                self._on_message(what)
        else:
            then, self._on_gone = self._on_gone, None
            self.abort()
            if then is not None:
                then(what)

    def _tell_early(self) -> None:
        early, self._early = self._early or [], None
        for what in early:
            self._tell(what)

    def _flush(self) -> None:
        assert self._transport is not None
        for data in self._ws.data_to_send():
            if data:
                self._transport.write(data)
            else:  # half a close: the rest is TCP's
                self._transport.close()

    def _lose(self, gone: Gone) -> None:
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(gone)
        else:
            self._tell(gone)


def _refusal(error: Exception) -> Exception:
    if isinstance(error, InvalidStatus):
        headers = {name.lower(): value for name, value in error.response.headers.raw_items()}
        return Refused(error.response.status_code, headers, bytes(error.response.body or b""))
    return Gone(1002, type(error).__name__)
