"""A whole call over WebRTC, by WHIP: `whip:http://HOST/whip`. An edge; returns a report.

ICE, DTLS, SRTP and SCTP are aiortc's RTCPeerConnection; its tracks and codecs are left out, so that one core holds many
callers: a frame of the caller's is encoded here (Opus from 8 kHz) and handed over as it is, and what comes is taken
before it would be decoded. To the `Line` it is the RTP of a telephone: 20 ms of mu-law a packet.
"""

import asyncio
import fractions
import json
import secrets
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import httpx

from trunkline.clock import SYSTEM_CLOCK, Clock
from trunkline.errors import ConfigError, MissingExtra, PeerError
from trunkline.gateway.webrtc.opus import SILENCE, Decoder, Encoder
from trunkline.media.g711 import decode, encode
from trunkline.testing.caller.bench import BenchOptions, BenchReport, MakeLine, is_local, run_bench
from trunkline.testing.caller.bulk import Ticker
from trunkline.testing.caller.line import Line
from trunkline.testing.caller.report import CallReport
from trunkline.testing.caller.sip import rtp, sdp
from trunkline.testing.caller.sip.stream import RtpStream
from trunkline.types import MULAW_8K

if TYPE_CHECKING:
    from aiortc import RTCPeerConnection

SCHEME = "whip:"
CONNECT_S = 15.0
MAX_QUEUED = 25  # frames of ours that the sender has not taken: half a second
_SESSION = sdp.Session("webrtc", 9, "mulaw", sdp.PAYLOAD_TYPES["mulaw"])
_HEADER = struct.Struct("!BBHII")
_FRAME = MULAW_8K.frame_bytes
_SILENT = MULAW_8K.silence * _FRAME
_OPUS_STEP, _STEPS = 960, 6  # of Opus's 48 kHz, in a frame and in a sample of ours


def whip_url(target: str) -> str:
    """`whip:http://HOST:PORT/whip`, or just its origin. Raises ConfigError."""
    url = target[len(SCHEME) :] if target.lower().startswith(SCHEME) else target
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError("target", target, "whip:http(s)://HOST[:PORT]/whip")
    return parts._replace(path=parts.path.rstrip("/") or "/whip").geturl()


def _microphone() -> Any:
    """A track whose frames are Opus already."""
    try:
        from aiortc import MediaStreamTrack
        from av import Packet
    except ImportError as error:
        raise MissingExtra("aiortc", "webrtc") from error
    clock = fractions.Fraction(1, 48_000)

    class Microphone(MediaStreamTrack):
        kind = "audio"

        def __init__(self) -> None:
            super().__init__()
            self.queue: asyncio.Queue[bytes] = asyncio.Queue(MAX_QUEUED)
            self._at = 0

        async def recv(self) -> Any:
            packet = Packet(await self.queue.get())
            packet.pts, packet.time_base = self._at, clock
            self._at += _OPUS_STEP
            return packet

    return Microphone()


class WhipCall:
    """`await WhipCall(...).call()`, once, on a ticker that runs. Never raises for what the far end does."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        url: str,
        make_line: Callable[[RtpStream], Line],
        clock: Clock,
        ticker: Ticker,
        *,
        token: str = "",
        keep_audio: bool = False,
        keep_answers: bool = False,
    ) -> None:
        self._http, self._url, self._token = http, url, token
        self._make_line, self._clock, self._ticker = make_line, clock, ticker
        loop = asyncio.get_running_loop()
        self._connected: asyncio.Future[None] = loop.create_future()
        self._over: asyncio.Future[None] = loop.create_future()
        self._decoder, self._encoder = Decoder(), Encoder()
        self._microphone: Any = None
        self._channel: Any = None
        self._peer: RTCPeerConnection | None = None
        self.line: Line | None = None
        self.stream = RtpStream(
            "",
            _SESSION,
            rtp.Sender(secrets.randbits(32), secrets.randbits(15), secrets.randbits(32)),
            send_info=self._key,
            prefer_info=True,
            keep_audio=keep_audio,
            keep_answers=keep_answers,
        )
        self.report = CallReport("")
        self.setup_ms: float | None = None
        self.events: list[dict[str, Any]] = []
        """What the data channel told."""
        self.unsent = 0

    async def call(self) -> CallReport:
        started = self._clock.now()
        location = ""
        try:
            location = await self._offer()
            async with asyncio.timeout(CONNECT_S):
                await self._connected
            self.setup_ms = (self._clock.now() - started) * 1000
            self.line = self._make_line(self.stream)
            self.line.open(self._clock.now())
            self._ticker.join(self, lambda: None if self._over.done() else self._over.set_result(None))
            await self._over
            self.report.end = self.line.ended or ""
        except PeerError as error:
            self.report.end, self.report.detail = "failed", str(error)
        except TimeoutError:
            self.report.end, self.report.detail = "failed", f"not connected in {CONNECT_S:g} s"
        finally:
            self._ticker.leave(self)
            await self._leave(location)
        self.report.duration_s = self._clock.now() - started
        if self.line is not None:
            self.report.add_line(self.line)
        self.report.call_sid = self.stream.call_id
        return self.report

    async def _offer(self) -> str:
        """Where the session is. Raises PeerError."""
        self._microphone = _microphone()
        from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

        self._peer = peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        peer.addTrack(self._microphone)
        self._channel = peer.createDataChannel("events")
        self._channel.on("message", self._event)
        peer.on("connectionstatechange", self._changed)
        receiver: Any = peer.getReceivers()[0]
        receiver._handle_rtp_packet = self._packet  # before it would be decoded
        await peer.setLocalDescription(await peer.createOffer())
        headers = {"Content-Type": "application/sdp"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            response = await self._http.post(self._url, content=peer.localDescription.sdp, headers=headers)
        except httpx.HTTPError as error:
            raise PeerError(f"the offer was not answered: {str(error) or type(error).__name__}") from error
        if response.status_code != 201:
            raise PeerError(f"{response.status_code}: {_detail(response)}")
        try:
            await peer.setRemoteDescription(RTCSessionDescription(response.text, "answer"))
        except ValueError as error:
            raise PeerError(f"the answer cannot be: {error}") from error
        location: str = response.headers.get("location", "")
        return urljoin(self._url, location)

    async def _leave(self, location: str) -> None:
        vanished = self.line is not None and self.line.ended == "vanished"
        if location and not vanished and self.report.end != "server_closed":
            try:
                await self._http.delete(location)
            except httpx.HTTPError:
                self.report.detail = self.report.detail or "no answer to DELETE"
        self._connected.cancel()  # nobody waits for it any more
        if self._peer is not None:
            await self._peer.close()
        self._decoder.close()
        self._encoder.close()

    # --- what comes ---

    def _changed(self) -> None:
        assert self._peer is not None
        state = self._peer.connectionState
        if state == "connected" and not self._connected.done():
            self._connected.set_result(None)
        elif state in ("closed", "failed"):
            if not self._connected.done():
                self._connected.set_exception(PeerError(f"WebRTC {state}"))
            if self.line is not None:
                self.line.closed(self._clock.now(), clean=any(e.get("type") == "ended" for e in self.events))

    def _event(self, message: str) -> None:
        event = json.loads(message)
        self.events.append(event)
        if event.get("type") == "joined":
            self.stream.call_id = event["call_id"]
        elif event.get("type") == "ended" and self.line is not None:
            self.line.closed(self._clock.now(), clean=True)

    async def _packet(self, packet: Any, arrival_time_ms: int) -> None:
        if self.line is None or not packet.payload:
            return
        audio = encode(self._decoder.decode(packet.payload), "mulaw")
        if len(audio) == _FRAME:
            plain = _HEADER.pack(0x80, 0, packet.sequence_number, packet.timestamp // _STEPS & 0xFFFFFFFF, packet.ssrc)
            self.line.receive(plain + audio, self._clock.now())

    def _key(self, digit: str) -> None:
        if self._channel is not None and self._channel.readyState == "open":
            self._channel.send(json.dumps({"type": "dtmf", "digits": digit}))

    # --- what goes: every 20 ms ---

    def tick(self) -> bool:
        line = self.line
        if line is None or line.ended is not None:
            return False
        for packet in line.tick(self._clock.now()):
            audio = packet[rtp.HEADER_BYTES :]
            payload = SILENCE if audio == _SILENT else self._encoder.encode(decode(audio, "mulaw"))
            try:
                self._microphone.queue.put_nowait(payload)
            except asyncio.QueueFull:
                self.unsent += 1
        return line.ended is None


def _detail(response: httpx.Response) -> str:
    try:
        return str(response.json().get("detail", "")) or response.reason_phrase
    except ValueError:
        return response.reason_phrase


# --- many ---


class WhipDialer:
    raw = True

    def __init__(self, options: BenchOptions, clock: Clock, ticker: Ticker) -> None:
        self._options, self._clock, self._ticker = options, clock, ticker
        self._url = whip_url(options.target)
        parts = urlsplit(self._url)
        self.origin = options.api_url or f"{parts.scheme}://{parts.netloc}"
        self.local_port = (parts.port or (443 if parts.scheme == "https" else 80)) if is_local(parts.hostname) else None
        self._http = httpx.AsyncClient(trust_env=False, timeout=CONNECT_S, verify=options.verify_tls)
        self.calls: list[WhipCall] = []

    async def open(self) -> None: ...

    async def call(self, make_line: MakeLine) -> CallReport:
        keep = self._options.heard_dir is not None
        call = WhipCall(self._http, self._url, make_line, self._clock, self._ticker, keep_answers=keep)
        self.calls.append(call)
        return await call.call()

    def window_opens(self) -> None: ...

    def window_closes(self, report: BenchReport) -> None: ...

    def hang_up(self) -> None: ...

    def ended(self, report: BenchReport) -> None: ...

    async def close(self) -> None:
        await self._http.aclose()


async def bench_webrtc(options: BenchOptions, *, clock: Clock = SYSTEM_CLOCK) -> BenchReport:
    """As `bench_twilio`, with `options.target` a WHIP endpoint."""
    return await run_bench(options, clock, lambda ticker: WhipDialer(options, clock, ticker))
