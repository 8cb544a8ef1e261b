"""The wire of a WebRTC leg by aiortc and aioice: ICE, DTLS, SRTP and SCTP are theirs. The only file that knows them.

Taken are aioice's Connection and aiortc's DTLS and SCTP transports, not its RTCPeerConnection: a track there costs two
tasks, a thread and a queue hop for every packet, 48 kHz stereo and a resampler. Here a datagram goes from the socket
through libsrtp to the leg in one call, and back likewise; the two classes' own queue and task remain for DTLS and the
data channel, a few packets a minute.

This leans on: Connection's data_received, get_component_candidates and _nominated, StunProtocol, the transport that
RTCDtlsTransport asks for (_recv, _send, role), its _rx_srtp, _tx_srtp and _set_role. aiortc is pinned to one minor
version and tests/gateway/webrtc/test_rtc.py holds it to that.
"""

import asyncio
import contextlib
import logging
import random
import socket
from collections.abc import Callable, Coroutine, Sequence
from ipaddress import ip_address
from typing import Any, cast

from aioice import Candidate, Connection, TransportPolicy
from aioice import ice as aioice
from aioice.candidate import candidate_foundation, candidate_priority
from aiortc import RTCCertificate, RTCDtlsFingerprint, RTCDtlsParameters, RTCDtlsTransport, RTCSctpTransport
from aiortc.rtcsctptransport import RTCSctpCapabilities
from pylibsrtp import Error as SrtpError

from trunkline.gateway.webrtc.ice import Credentials, IceServer
from trunkline.gateway.webrtc.rtp import MAX_PACKET_BYTES
from trunkline.gateway.webrtc.sdp import MAX_MESSAGE_BYTES, Fingerprint, Offer
from trunkline.gateway.webrtc.wire import EVENTS_CHANNEL, Here, Paths, WireSink

log = logging.getLogger(__name__)

SOCKET_BUFFER_BYTES = 256 * 1024
MAX_QUEUE = 128  # datagrams of DTLS and data channel that wait
MAX_UNSENT_BYTES = 128 * 1024  # on the data channel: the far end does not read
MAX_CHANNELS = 8
CLOSE_S = 2.0
BIND_TRIES = 20

_certificate: RTCCertificate | None = None


def certificate() -> RTCCertificate:
    """One for the process: its key is made once."""
    global _certificate
    if _certificate is None:
        _certificate = RTCCertificate.generateCertificate()
    return _certificate


class _Stun(aioice.StunProtocol):
    """A socket of it: media goes by without being tried as STUN first."""

    receiver: "_Ice"

    def datagram_received(self, data: bytes | str, addr: tuple[Any, ...]) -> None:
        if data and 127 < data[0] < 192:  # type: ignore[operator]
            self.receiver.data_received(cast(bytes, data), 1)
        else:
            super().datagram_received(data, addr)


class _Ice(Connection):
    """aioice's agent, on our addresses and ports, with media taken out before its queue."""

    def __init__(self, paths: Paths, given: Credentials | None) -> None:
        stun = next((s for s in paths.servers if not s.relays), None)
        turn = next((s for s in paths.servers if s.relays), None)
        super().__init__(
            ice_controlling=False,
            stun_server=_address(stun),
            turn_server=_address(turn),
            turn_username=given.username if given is not None else None,
            turn_password=given.password if given is not None else None,
            turn_ssl=turn is not None and turn.tls,
            turn_transport=turn.transport if turn is not None else "udp",
            transport_policy=TransportPolicy.RELAY if paths.relay_only else TransportPolicy.ALL,
        )
        self._paths = paths
        self.media: Callable[[bytes], None] | None = None
        """Takes RTP and RTCP (RFC 7983), as they came."""
        self.dropped = 0

    @property
    def lost(self) -> bool:
        """The far end's consent to be sent to has run out (RFC 7675), or the socket is gone."""
        return self._closing or not self._nominated

    def data_received(self, data: bytes, component: int) -> None:
        if data and 127 < data[0] < 192:
            if self.media is not None:
                self.media(data)
        elif self._queue.qsize() < MAX_QUEUE:
            super().data_received(data, component)
        else:
            self.dropped += 1

    async def get_component_candidates(self, component: int, addresses: list[str], timeout: int = 5) -> list[Candidate]:
        """As aioice's, but for addresses, ports and patience."""
        paths = self._paths
        if paths.relay_only:
            addresses = []
        else:
            addresses = [str(address) for address in paths.addresses] or addresses
            addresses = addresses + ["127.0.0.1"] * (paths.loopback and "127.0.0.1" not in addresses)
        found: list[Candidate] = []
        for address in addresses:
            if (protocol := await self._listen(address, component)) is not None:
                self._protocols.append(protocol)
                found.append(protocol.local_candidate)
        asked = [
            aioice.server_reflexive_candidate(protocol, self.stun_server)
            for protocol in self._protocols
            if self.stun_server is not None and ip_address(protocol.local_candidate.host).version == 4
        ]
        tasks = [asyncio.create_task(cast(Coroutine[Any, Any, Any], each)) for each in asked]
        if self.turn_server is not None:
            tasks.append(asyncio.create_task(self._relayed(component, self.turn_server)))
        if tasks:
            done, late = await asyncio.wait(tasks, timeout=paths.gather_s)
            for task in late:
                task.cancel()
            for task in done:
                if (error := task.exception()) is not None:
                    log.warning("a STUN or TURN server did not serve: %s", str(error) or type(error).__name__)
                    continue
                candidate, relay = task.result()
                found.append(candidate)
                if relay is not None:
                    self._protocols.append(relay)
            if late:
                log.warning("a STUN or TURN server did not answer within %g s", paths.gather_s)
        return found

    async def _relayed(self, component: int, server: tuple[str, int]) -> tuple[Candidate, Any]:
        return await aioice.relayed_candidate(
            component=component,
            hide_related_address=self._paths.relay_only,
            protocol_factory=lambda: _Stun(self),
            turn_server=server,
            turn_username=self.turn_username,
            turn_password=self.turn_password,
            turn_ssl=self.turn_ssl,
            turn_transport=self.turn_transport,
        )

    async def _listen(self, address: str, component: int) -> _Stun | None:
        loop = asyncio.get_running_loop()
        ports = range(self._paths.port_min, self._paths.port_max + 1)
        for _ in range(BIND_TRIES):
            try:
                transport, protocol = await loop.create_datagram_endpoint(
                    lambda: _Stun(self), local_addr=(address, random.choice(ports))
                )
            except OSError:
                continue
            sock = transport.get_extra_info("socket")
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
            host, port = transport.get_extra_info("sockname")[:2]
            protocol.local_candidate = Candidate(
                foundation=candidate_foundation("host", "udp", host),
                component=component,
                transport="udp",
                priority=candidate_priority(component, "host"),
                host=host,
                port=port,
                type="host",
            )
            return protocol
        return None


class _Path:
    """An ICE connection as RTCDtlsTransport wants it."""

    def __init__(self, ice: _Ice) -> None:
        self._recv, self._send = ice.recv, ice.send

    role = "controlled"


class AiortcWire:
    """`gather`, then `start`, then `close`; each once."""

    def __init__(self) -> None:
        self._ice: _Ice | None = None
        self._dtls: RTCDtlsTransport | None = None
        self._sctp: RTCSctpTransport | None = None
        self._inbound: Any = None  # SRTP, from the handshake on
        self._outbound: Any = None
        self._channel: Any = None
        self._sink: WireSink | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._channels = 0

    async def gather(self, paths: Paths, given: Credentials | None) -> Here:
        self._ice = ice = _Ice(paths, given)
        await ice.gather_candidates()
        prints = certificate().getFingerprints()
        sha256 = next(p for p in prints if p.algorithm == "sha-256")
        advertised = paths.advertised
        candidates = []
        for candidate in ice.local_candidates:
            text = candidate.to_sdp()
            if advertised is not None and candidate.type == "host":
                if ip_address(candidate.host).version != advertised.version:
                    continue
                text = text.replace(f" {candidate.host} ", f" {advertised} ", 1)
            candidates.append(text)
        return Here(ice.local_username, ice.local_password, Fingerprint("sha-256", sha256.value), tuple(candidates))

    def start(self, offer: Offer, connect_s: float, sink: WireSink) -> None:
        assert self._ice is not None
        self._sink = sink
        self._ice.media = self._media
        self._ice.ice_controlling = offer.ice_lite
        self._ice.remote_is_lite = offer.ice_lite
        self._ice.remote_username, self._ice.remote_password = offer.ice_username, offer.ice_password
        self._task = asyncio.create_task(self._live(self._ice, offer, connect_s), name="webrtc")

    def add_candidates(self, candidates: Sequence[str], *, end: bool) -> None:
        if self._ice is None:
            return
        # Neither waits for anything: names (mDNS) are left out, as such a peer's own checks tell its address.
        for text in candidates:
            try:
                candidate = Candidate.from_sdp(text)
                ip_address(candidate.host)
            except (ValueError, AssertionError):
                continue
            if candidate.type in ("host", "srflx", "relay"):
                _run(self._ice.add_remote_candidate(candidate))

    def send(self, packet: bytes) -> None:
        if self._outbound is not None:
            self._transmit(self._outbound.protect(packet))

    def send_control(self, packet: bytes) -> None:
        if self._outbound is not None:
            self._transmit(self._outbound.protect_rtcp(packet))

    def _transmit(self, datagram: bytes) -> None:
        pair = self._ice._nominated.get(1) if self._ice is not None else None
        if pair is not None:
            pair.protocol.transport.sendto(datagram, pair.remote_addr)

    def tell(self, message: str) -> bool:
        channel = self._channel
        if channel is None or channel.readyState != "open" or channel.bufferedAmount > MAX_UNSENT_BYTES:
            return False
        channel.send(message)
        return True

    def close(self, linger_s: float = 0.0) -> None:
        self._sink = None
        if self._ice is not None:
            self._ice.media = None
        if self._closing is None:
            self._closing = asyncio.create_task(self._shut(linger_s), name="webrtc close")

    async def closed(self) -> None:
        if self._closing is not None:
            await asyncio.wait((self._closing,), timeout=2 * CLOSE_S)

    # --- its life ---

    async def _live(self, ice: _Ice, offer: Offer, connect_s: float) -> None:
        in_order = False
        try:
            why = await self._connect(ice, offer, connect_s)
            if not why:
                if self._sink is not None:
                    self._sink.connected()
                await self._over
                in_order = not ice.lost
                why = "the far end has closed it" if in_order else "the far end does not answer any more"
        except Exception as error:
            log.warning("a WebRTC leg: %s: %s", type(error).__name__, error)
            why = "our own fault"
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.gone(why, in_order=in_order)
        self.close()

    async def _connect(self, ice: _Ice, offer: Offer, connect_s: float) -> str:
        """Why it is not connected; empty when it is."""
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        phase = "ICE"
        try:
            async with asyncio.timeout(connect_s):
                self.add_candidates(offer.candidates, end=offer.candidates_end)
                await ice.connect()
                phase = "DTLS"
                self._dtls = dtls = RTCDtlsTransport(cast(Any, _Path(ice)), [certificate()])
                dtls._set_role("client" if offer.setup == "active" else "server")
                dtls.on("statechange", self._changed)
                prints = [RTCDtlsFingerprint(each.hash, each.value) for each in offer.fingerprints]
                await dtls.start(RTCDtlsParameters(prints))
                if dtls.state != "connected":
                    return "DTLS failed: the handshake, or the offer's fingerprint"
                self._inbound, self._outbound = dtls._rx_srtp, dtls._tx_srtp
                if offer.events is not None:
                    self._sctp = RTCSctpTransport(dtls)
                    self._sctp.on("datachannel", self._channel_opened)
                    await self._sctp.start(RTCSctpCapabilities(MAX_MESSAGE_BYTES), offer.sctp_port)
        except TimeoutError:
            return f"{phase} did not complete within {connect_s:g} s"
        except ConnectionError:
            return f"{phase} failed"
        return ""

    def _changed(self) -> None:
        if self._dtls is not None and self._dtls.state in ("closed", "failed") and not self._over.done():
            self._over.set_result(None)

    def _channel_opened(self, channel: Any) -> None:
        self._channels += 1
        if channel.label != EVENTS_CHANNEL or self._channel is not None or self._channels > MAX_CHANNELS:
            channel.close()
            return
        self._channel = channel
        channel.on("message", self._message)
        if self._sink is not None:
            self._sink.opened()

    def _message(self, data: str | bytes) -> None:
        if self._sink is not None:
            self._sink.message(data)

    def _media(self, data: bytes) -> None:
        srtp, sink = self._inbound, self._sink
        if srtp is None or sink is None or not 12 <= len(data) <= MAX_PACKET_BYTES:
            return
        try:
            is_control = 191 < data[1] < 224  # by its type (RFC 5761 4)
            plain = srtp.unprotect_rtcp(data) if is_control else srtp.unprotect(data)
        except SrtpError:
            return  # not of our peer, or twice
        if is_control:
            sink.control(plain)
        else:
            sink.packet(plain)

    async def _shut(self, linger_s: float) -> None:
        if linger_s:
            await asyncio.sleep(linger_s)
        task = self._task
        if task is not None and task is not asyncio.current_task() and not task.done():
            task.cancel()
        try:
            async with asyncio.timeout(CLOSE_S):
                if self._sctp is not None:
                    await self._sctp.stop()
                if self._dtls is not None:
                    await self._dtls.stop()
                if self._ice is not None:
                    await self._ice.close()
        except (TimeoutError, ConnectionError):
            pass
        except Exception as error:
            log.warning("closing a WebRTC leg: %s: %s", type(error).__name__, error)


def _address(server: IceServer | None) -> tuple[str, int] | None:
    return (server.host, server.port) if server is not None else None


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    """One that does not wait."""
    with contextlib.suppress(StopIteration, ValueError):
        coroutine.send(None)
    coroutine.close()
