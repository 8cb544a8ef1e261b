"""A local LiveKit server: signalling at `/rtc` and one room for each name, with the device's participant played here.

Written from LiveKit's protocol (github.com/livekit/protocol: livekit_rtc.proto, livekit_models.proto; "Client
protocol" in its documentation), every message built from the types of `livekit-protocol`. Two peer connections a
client, the subscriber's primary: `/rtc/v1` (one connection for both) answers 404, as servers do that do not have it.
The media are aiortc's, so what a client sends and hears has gone through ICE, DTLS, SRTP and Opus.

    async with LivekitServer() as server:
        ... server.url, server.api_key, server.api_secret ...
        device = server.device("ses_1", "kitchen")
        await device.enter()
        await device.say(pcm16_48k)
        ... device.heard, device.messages ...

What it is not: a selective forwarder. A room has one client and one participant of ours.
"""

import asyncio
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import jwt
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from aiortc.sdp import candidate_from_sdp
from livekit.protocol import models, rtc
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.fakes.microphone import Microphone

RATE_HZ = 48_000
PING_S, PING_TIMEOUT_S = 10, 20
LOUD = 300  # RMS of 20 ms: somebody speaks
_sids = itertools.count(1)


def _sid(kind: str) -> str:
    return f"{kind}_{next(_sids):012d}"


class Device:
    """The participant at the other end."""

    def __init__(self, room: "Room", identity: str) -> None:
        self.identity = identity
        self.heard: list[tuple[float, np.ndarray[Any, Any]]] = []
        """What the client published: when each frame was decoded, and its samples (mono, 48 kHz)."""
        self.messages: list[dict[str, Any]] = []
        """Of the topic "events"."""
        self.microphone: Microphone | None = None
        self._room = room
        self._info = models.ParticipantInfo()

    async def enter(self, *, microphone: bool = True) -> None:
        """The room is entered, and the microphone published."""
        state = models.ParticipantInfo.ACTIVE
        self._info = models.ParticipantInfo(sid=_sid("PA"), identity=self.identity, state=state, name="a device")
        self._room.others = [self._info]
        if microphone:
            self._info.tracks.append(
                models.TrackInfo(
                    sid=_sid("TR"), type=models.TrackType.AUDIO, source=models.TrackSource.MICROPHONE, name="mic"
                )
            )
            self.microphone = Microphone(RATE_HZ)
        await self._room.tell_update(self._info)

    async def leave(self, reason: models.DisconnectReason = models.DisconnectReason.CLIENT_INITIATED) -> None:
        self._info.state, self._info.disconnect_reason = models.ParticipantInfo.DISCONNECTED, reason
        self._info.version += 1
        self._room.others = []
        if self.microphone is not None:
            self.microphone.stop()
        await self._room.tell_update(self._info)

    @property
    def sid(self) -> str:
        return self._info.sid

    @property
    def track_sid(self) -> str:
        return self._info.tracks[0].sid

    def send(self, message: Any, topic: str = "events") -> None:
        payload = message if isinstance(message, bytes) else json.dumps(message).encode()
        user = models.UserPacket(payload=payload, topic=topic, participant_identity=self.identity)
        user.participant_sid = self.sid
        packet = models.DataPacket(kind=models.DataPacket.RELIABLE, user=user, participant_identity=self.identity)
        self._room.send_data(packet.SerializeToString())

    async def say(self, pcm16: bytes) -> None:
        """Until it is said."""
        assert self.microphone is not None
        self.microphone.said += pcm16
        await until(lambda: self.microphone is None or not self.microphone.said, 60)

    async def listen(self, quiet_s: float = 0.8, within_s: float = 20.0) -> None:
        """Until the client has spoken, and been quiet for so long."""
        start = len(self.heard)
        await until(lambda: any(loud(samples) for _, samples in self.heard[start:]), within_s)
        await until(lambda: self.quiet_s >= quiet_s, within_s)

    @property
    def quiet_s(self) -> float:
        last = next((at for at, samples in reversed(self.heard) if loud(samples)), 0.0)
        return time.monotonic() - last


@dataclass
class Client:
    """A connection of an SDK's."""

    identity: str
    claims: dict[str, Any]
    query: dict[str, str]
    requests: list[str] = field(default_factory=list)
    """Which SignalRequests it sent, in order."""
    published: list[Any] = field(default_factory=list)
    """Its AddTrackRequests."""
    left: bool = False


class Room:
    def __init__(self, server: "LivekitServer", name: str) -> None:
        self.name = name
        self.clients: list[Client] = []
        """All that were ever here, in order."""
        self.others: list[Any] = []
        self.device: Device | None = None
        self._server = server
        self._link: _Link | None = None

    @property
    def client(self) -> Client | None:
        """Who is here now."""
        return self._link.client if self._link is not None else None

    async def tell_update(self, info: Any) -> None:
        if self._link is not None:
            await self._link.send(update=rtc.ParticipantUpdate(participants=[info]))

    def send_data(self, packet: bytes) -> None:
        assert self._link is not None
        self._link.send_data(packet)

    async def dismiss(self, reason: models.DisconnectReason = models.DisconnectReason.ROOM_DELETED) -> None:
        """The client is sent away for good."""
        assert self._link is not None
        action = rtc.LeaveRequest.Action.DISCONNECT
        await self._link.send(leave=rtc.LeaveRequest(reason=reason, action=action))

    async def entered(self, link: "_Link") -> None:
        self._link = link
        self.clients.append(link.client)

    def gone(self, link: "_Link") -> None:
        if self._link is link:
            self._link = None


class LivekitServer:
    """One server. `hangs`: it takes connections and says nothing."""

    def __init__(self, port: int = 0, api_key: str = "APItest", api_secret: str = "s" * 32) -> None:
        self.port, self.api_key, self.api_secret = port, api_key, api_secret
        self.rooms: dict[str, Room] = {}
        self.hangs = False
        self.refused = 0
        self._server: Server | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await serve(self._serve, "127.0.0.1", self.port, process_request=self._admit)
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    def room(self, name: str) -> Room:
        return self.rooms.setdefault(name, Room(self, name))

    def device(self, room: str, identity: str) -> Device:
        here = self.room(room)
        here.device = Device(here, identity)
        return here.device

    async def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        if self.hangs:
            await asyncio.sleep(60)
        path = urlsplit(request.path).path
        if path not in ("/rtc", "/rtc/validate"):
            return connection.respond(HTTPStatus.NOT_FOUND, "no such path\n")
        if self._claims(request) is None:
            self.refused += 1
            return connection.respond(HTTPStatus.UNAUTHORIZED, "invalid token\n")
        return connection.respond(HTTPStatus.OK, "success") if path == "/rtc/validate" else None

    def _claims(self, request: Request) -> dict[str, Any] | None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        token = token or parse_qs(urlsplit(request.path).query).get("access_token", [""])[0]
        try:
            claims: dict[str, Any] = jwt.decode(token, self.api_secret, algorithms=["HS256"], issuer=self.api_key)
        except jwt.InvalidTokenError:
            return None
        return claims if claims.get("video", {}).get("roomJoin") else None

    async def _serve(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        claims = self._claims(socket.request)
        assert claims is not None
        query = {name: values[0] for name, values in parse_qs(urlsplit(socket.request.path).query).items()}
        room = self.room(claims["video"]["room"])
        link = _Link(socket, room, Client(claims["sub"], claims, query))
        await room.entered(link)
        try:
            await link.run()
        except ConnectionClosed:
            pass
        finally:
            room.gone(link)
            await link.close()


class _Link:
    """One client's signalling, and its two peer connections."""

    def __init__(self, socket: ServerConnection, room: Room, client: Client) -> None:
        self.client = client
        self._socket, self._room = socket, room
        self._up = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._down = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._reliable = self._down.createDataChannel("_reliable", ordered=True)
        self._down.createDataChannel("_lossy", ordered=False, maxRetransmits=0)
        self._stable = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._wanted: set[str] = set()
        """Tracks that the client has asked for."""
        self._forwarded: set[str] = set()
        self._sids: list[str] = []
        """Of what the client has published and the participant is about to hear."""
        self._up.on("track", self._heard)
        self._up.on("datachannel", lambda channel: channel.on("message", self._data))
        self._info = models.ParticipantInfo(
            sid=_sid("PA"), identity=client.identity, state=models.ParticipantInfo.JOINED
        )

    async def send(self, **message: Any) -> None:
        await self._socket.send(rtc.SignalResponse(**message).SerializeToString())

    async def run(self) -> None:
        room = models.Room(sid=_sid("RM"), name=self._room.name)
        info = models.ServerInfo(version="1.9.0", protocol=16, edition=models.ServerInfo.Edition.Standard)
        await self.send(
            join=rtc.JoinResponse(
                room=room,
                participant=self._info,
                other_participants=self._room.others,
                server_version="1.9.0",
                server_info=info,
                subscriber_primary=True,
                ping_interval=PING_S,
                ping_timeout=PING_TIMEOUT_S,
            )
        )
        await self._offer()
        async for data in self._socket:
            request = rtc.SignalRequest()
            assert isinstance(data, bytes)
            request.ParseFromString(data)
            kind = str(request.WhichOneof("message"))
            self.client.requests.append(kind)
            if not await self._handle(kind, request):
                return

    async def _handle(self, kind: str, request: Any) -> bool:
        if kind == "answer":
            await self._down.setRemoteDescription(RTCSessionDescription(request.answer.sdp, "answer"))
            self._stable.set()
            await self._forward()
        elif kind == "offer":
            await self._up.setRemoteDescription(RTCSessionDescription(request.offer.sdp, "offer"))
            await self._up.setLocalDescription(await self._up.createAnswer())
            answer = rtc.SessionDescription(type="answer", sdp=self._up.localDescription.sdp, id=request.offer.id)
            await self.send(answer=answer)
            while self._sids:
                await self.send(track_subscribed=rtc.TrackSubscribed(track_sid=self._sids.pop()))
        elif kind == "trickle":
            await self._trickled(request.trickle)
        elif kind == "add_track":
            await self._published(request.add_track)
        elif kind == "subscription":
            self._wanted.update(request.subscription.track_sids if request.subscription.subscribe else ())
            await self._forward()
        elif kind in ("ping", "ping_req"):
            await self.send(pong=request.ping)
            pong = rtc.Pong(last_ping_timestamp=request.ping_req.timestamp, timestamp=int(time.time() * 1000))
            await self.send(pong_resp=pong)
        elif kind == "leave":
            self.client.left = True
            return False
        return True

    async def _trickled(self, trickle: Any) -> None:
        told = json.loads(trickle.candidateInit)
        text = told.get("candidate", "").removeprefix("candidate:")
        if not text or " tcp " in text.lower():
            return
        candidate = candidate_from_sdp(text)
        candidate.sdpMid, candidate.sdpMLineIndex = told.get("sdpMid"), told.get("sdpMLineIndex")
        peer = self._down if trickle.target == rtc.SignalTarget.SUBSCRIBER else self._up
        if peer.remoteDescription is not None:
            await peer.addIceCandidate(candidate)

    async def _published(self, request: Any) -> None:
        self.client.published.append(request)
        track = models.TrackInfo(sid=_sid("TR"), type=request.type, name=request.name, source=request.source)
        self._info.tracks.append(track)
        self._info.state = models.ParticipantInfo.ACTIVE
        self._sids.append(track.sid)
        await self.send(track_published=rtc.TrackPublishedResponse(cid=request.cid, track=track))

    async def _forward(self) -> None:
        """The participant's microphone, to the client that has asked for it."""
        device = self._room.device
        if device is None or device.microphone is None or not self._stable.is_set():
            return
        sid = device.track_sid
        if sid in self._wanted and sid not in self._forwarded:
            self._forwarded.add(sid)
            sender = self._down.addTrack(device.microphone)
            sender._stream_id, sender._track_id = f"{device.sid}|{sid}", sid
            await self._offer()

    async def _offer(self) -> None:
        self._stable.clear()
        await self._down.setLocalDescription(await self._down.createOffer())
        await self.send(offer=rtc.SessionDescription(type="offer", sdp=self._down.localDescription.sdp))

    def _heard(self, track: Any) -> None:
        self._tasks.append(asyncio.create_task(self._hear(track)))

    async def _hear(self, track: Any) -> None:
        try:
            while True:
                frame = await track.recv()
                samples = frame.to_ndarray().reshape(-1, len(frame.layout.channels))[:, 0]
                if self._room.device is not None:
                    self._room.device.heard.append((time.monotonic(), samples))
        except MediaStreamError:
            pass

    def _data(self, data: bytes) -> None:
        packet = models.DataPacket()
        packet.ParseFromString(data)
        if packet.WhichOneof("value") == "user" and self._room.device is not None and packet.user.topic == "events":
            self._room.device.messages.append(json.loads(packet.user.payload))

    def send_data(self, packet: bytes) -> None:
        self._reliable.send(packet)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self._up.close()
        await self._down.close()


async def until(happened: Callable[[], bool], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


def loud(samples: np.ndarray[Any, Any]) -> bool:
    return len(samples) > 0 and float(np.sqrt((samples.astype(np.float32) ** 2).mean())) > LOUD
