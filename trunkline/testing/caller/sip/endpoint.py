"""Signalling to one first hop, over UDP, TCP or TLS: one socket for all dialogs, told apart by Call-ID."""

import asyncio
import secrets
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from trunkline.clock import Clock
from trunkline.errors import ConfigError, PeerError
from trunkline.testing.caller.sip.dialog import ALLOW, Address, Dialog, Effect, Ended, Send, Via
from trunkline.testing.caller.sip.message import Message, Splitter, Uri, bracketed, parse, respond
from trunkline.testing.caller.sip.sockets import DATAGRAM_BYTES, StampedSocket, Stamps, local_host

OPEN_TIMEOUT_S = 10.0
CLOSE_S = 1.0
BEAT_S = 0.05  # of the retransmission timers
LINGER_S = 5.0  # an ended dialog still answers what is repeated
BUFFER_BYTES = 4 << 20

GATEWAY_HTTP_PORT = 8080

OnEffect = Callable[[Effect, float], None]
"""(effect, when the message that caused it arrived)."""


def tls_context(ca_file: Path | None, verify: bool) -> ssl.SSLContext:
    """Raises ConfigError."""
    try:
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError("ca_file", str(ca_file), f"a readable PEM file ({error})") from error
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def api_beside(target: Uri) -> str:
    """Where a gateway's HTTP is when nothing else is said."""
    return f"http://{bracketed(target.host)}:{GATEWAY_HTTP_PORT}"


class Endpoint:
    """`await open()`, then `start` a dialog; `close` at the end. Cannot be opened again."""

    def __init__(self, target: Uri, clock: Clock, *, context: ssl.SSLContext | None = None) -> None:
        """`context`: of a TLS target."""
        self._target, self._clock, self._context = target, clock, context
        self.stamps = Stamps(clock)
        self.host = ""
        """Our own address, as the target sees it."""
        self.via = Via("", 0)
        self.malformed = 0
        """Messages that were none."""
        self.strangers = 0
        """Requests outside our dialogs."""
        self._dialogs: dict[str, tuple[Dialog, OnEffect]] = {}
        self._hop: Address = ("", 0)
        self._udp: StampedSocket | None = None
        self._stream: asyncio.Transport | None = None
        self._closed = asyncio.Event()
        self._beat: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Raises PeerError when the target cannot be reached, ConfigError when its transport is none of ours."""
        loop, transport = asyncio.get_running_loop(), self._target.transport
        host, port = self._target.address
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        except OSError as error:
            raise PeerError(f"cannot find {host}: {error}") from error
        self._hop = (str(found[0][4][0]), port)
        self.host = local_host(self._hop)
        if transport == "udp":
            self._open_udp(loop)
        elif transport in ("tcp", "tls"):
            await self._open_stream(loop, host, secure=transport == "tls")
        else:
            raise ConfigError("target", str(self._target), "transport=udp, tcp or tls")
        self._beat = loop.call_later(BEAT_S, self._on_beat)

    def _open_udp(self, loop: asyncio.AbstractEventLoop) -> None:
        sock = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET, socket.SOCK_DGRAM)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
        sock.bind((self.host, 0))
        self._udp = udp = StampedSocket(sock, self.stamps, DATAGRAM_BYTES)
        self.via = Via(self.host, udp.address[1], "udp")
        loop.add_reader(sock, udp.drain, self._datagram)

    async def _open_stream(self, loop: asyncio.AbstractEventLoop, name: str, *, secure: bool) -> None:
        context = (self._context or tls_context(None, verify=True)) if secure else None
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                transport, _ = await loop.create_connection(
                    lambda: _Stream(self), *self._hop, ssl=context, server_hostname=name if secure else None
                )
        except (OSError, TimeoutError) as error:
            raise PeerError(f"cannot reach {self._target}: {error}") from error
        self._stream = transport
        own = transport.get_extra_info("sockname")
        self.via = Via(self.host, int(own[1]), "tls" if secure else "tcp")

    def start(self, dialog: Dialog, on_effect: OnEffect) -> None:
        """INVITE. `on_effect` hears all that follows, but for what was sent; it must only take note."""
        self._dialogs[dialog.call_id] = (dialog, on_effect)
        now = self._clock.now()
        self.perform(dialog, dialog.invite(now), now)

    def forget(self, dialog: Dialog) -> None:
        """Not another word to it or of it."""
        self._dialogs.pop(dialog.call_id, None)

    def perform(self, dialog: Dialog, effects: list[Effect], at: float) -> None:
        """What the dialog has returned."""
        entry = self._dialogs.get(dialog.call_id)
        for effect in effects:
            if isinstance(effect, Send):
                self._send(effect.data, effect.to)
            elif entry is not None:
                entry[1](effect, at)
                if isinstance(effect, Ended) and self._beat is not None:
                    asyncio.get_running_loop().call_later(LINGER_S, self.forget, dialog)

    def _send(self, data: bytes, to: Address | None) -> None:
        if self._udp is not None:
            self._udp.send(data, to or self._hop)
        elif self._stream is not None and not self._stream.is_closing():
            self._stream.write(data)

    def _on_beat(self) -> None:
        now = self._clock.now()
        for dialog, _ in list(self._dialogs.values()):
            at = dialog.next_at
            if at is not None and at <= now:
                self.perform(dialog, dialog.due(now), now)
        self._beat = asyncio.get_running_loop().call_later(BEAT_S, self._on_beat)

    def _datagram(self, data: bytes, source: Address, at: float) -> None:
        if not data.strip(b"\r\n\0"):
            return  # a keep-alive
        try:
            self.take(parse(data), source, at)
        except PeerError:
            self.malformed += 1

    def take(self, message: Message, source: Address, at: float) -> None:
        """Raises PeerError for a message that cannot be followed."""
        entry = self._dialogs.get(message.call_id)
        if entry is not None:
            self.perform(entry[0], entry[0].receive(message, source, at), at)
        elif message.method and message.cseq[1] != "ACK":
            self.strangers += 1
            status = (200, "OK") if message.cseq[1] == "OPTIONS" else (481, "Call Does Not Exist")
            answer = respond(message, *status, to_tag=secrets.token_hex(4), more=[("Allow", ALLOW)])
            self._send(answer.to_bytes(), source)

    def lost(self, why: str) -> None:
        """The connection is gone, and with it every dialog that is not over."""
        self._stream = None
        self._closed.set()
        now = self._clock.now()
        for dialog, _ in list(self._dialogs.values()):
            self.perform(dialog, dialog.lost(why), now)

    async def close(self) -> None:
        """Idempotent. A connection that is not closed in CLOSE_S is dropped."""
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None
        if self._udp is not None:
            asyncio.get_running_loop().remove_reader(self._udp.sock)
            self._udp.close()
            self._udp = None
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
            try:
                async with asyncio.timeout(CLOSE_S):
                    await self._closed.wait()
            except TimeoutError:
                stream.abort()


class _Stream(asyncio.Protocol):
    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint, self._splitter = endpoint, Splitter()
        self._transport: asyncio.BaseTransport | None = None
        self._source: Address = ("", 0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._source = (str(peer[0]), int(peer[1]))

    def data_received(self, data: bytes) -> None:
        at = self._endpoint.stamps.now()
        try:
            for message in self._splitter.feed(data):
                try:
                    self._endpoint.take(message, self._source, at)
                except PeerError:
                    self._endpoint.malformed += 1
        except PeerError:
            self._endpoint.malformed += 1
            if self._transport is not None:
                self._transport.close()  # where the next message begins is not known any more

    def connection_lost(self, exc: Exception | None) -> None:
        self._endpoint.lost(f"the connection was closed: {exc or 'EOF'}")
