"""A WebRTC caller that shares nothing with ours: aiortc as its documentation uses it, tracks, frames, 48 kHz."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import httpx
import numpy as np
from aiortc import (
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError
from av import AudioResampler

from tests.fakes.microphone import Microphone

RATE_HZ = 8000
LOUD = 300  # RMS of 20 ms: the agent speaks


class Browser:
    """`async with Browser(url) as browser`: connected, and the agent is heard."""

    def __init__(
        self,
        url: str,
        *,
        answer: Callable[[str], Awaitable[str]] | None = None,
        ice_servers: list[RTCIceServer] | None = None,
        token: str = "",
    ) -> None:
        """`answer`: what becomes of the gateway's SDP on its way here; ours then tells no address, so that there is no
        way but by that."""
        self._url, self._edit, self._token = url, answer, token
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=ice_servers or []))
        self.microphone = Microphone(RATE_HZ)
        self.heard: list[tuple[float, np.ndarray[Any, Any]]] = []
        """When each frame was decoded, and its samples."""
        self.events: list[dict[str, Any]] = []
        self.location = self.answered = ""
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Browser":
        self.peer.addTrack(self.microphone)
        self.channel = self.peer.createDataChannel("events")
        self.channel.on("message", lambda text: self.events.append(json.loads(text)))
        self.peer.on("track", lambda track: self._tasks.append(asyncio.create_task(self._hear(track))))
        await self.peer.setLocalDescription(await self.peer.createOffer())
        headers = {"Content-Type": "application/sdp"} | (
            {"Authorization": f"Bearer {self._token}"} if self._token else {}
        )
        offer = self.peer.localDescription.sdp
        if self._edit is not None:
            offer = "\r\n".join(line for line in offer.split("\r\n") if not line.startswith("a=candidate"))
        async with httpx.AsyncClient(trust_env=False) as http:
            response = await http.post(self._url, content=offer, headers=headers, timeout=15)
        assert response.status_code == 201, response.text
        self.location = str(httpx.URL(self._url).join(response.headers["location"]))
        self.answered = response.text
        answer = response.text if self._edit is None else await self._edit(response.text)
        await self.peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        await self.until(lambda: self.peer.connectionState == "connected", 15)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.peer.close()
        for task in self._tasks:
            task.cancel()

    async def _hear(self, track: Any) -> None:
        resampler = AudioResampler(format="s16", layout="mono", rate=RATE_HZ)
        try:
            while True:
                for frame in resampler.resample(await track.recv()):
                    samples = np.frombuffer(bytes(frame.planes[0])[: frame.samples * 2], np.int16)
                    self.heard.append((time.monotonic(), samples))
        except MediaStreamError:
            pass

    async def until(self, happened: Callable[[], bool], within_s: float = 10.0) -> None:
        deadline = time.monotonic() + within_s
        while not happened():
            assert time.monotonic() < deadline, (self.peer.connectionState, self.events[-5:])
            await asyncio.sleep(0.02)

    async def say(self, pcm: bytes) -> None:
        """Until it is said."""
        self.microphone.said += pcm
        await self.until(lambda: not self.microphone.said, 60)

    async def listen(self, quiet_s: float = 0.8, within_s: float = 20.0) -> None:
        """Until the agent has spoken, and been quiet for so long."""
        start = len(self.heard)
        await self.until(lambda: any(loud(samples) for _, samples in self.heard[start:]), within_s)
        await self.until(lambda: self._quiet_s() >= quiet_s, within_s)

    def _quiet_s(self) -> float:
        last = next((at for at, samples in reversed(self.heard) if loud(samples)), 0.0)
        return time.monotonic() - last

    def largest_gap_s(self, start: int) -> float:
        """Between frames from index `start` on, from the first loud one to the last, beyond their own 20 ms."""
        voiced = [i for i in range(start, len(self.heard)) if loud(self.heard[i][1])]
        times = [at for at, _ in self.heard[voiced[0] : voiced[-1] + 1]]
        return max(b - a for a, b in pairwise(times)) - 0.02

    @property
    def call_id(self) -> str:
        return str(next(event["call_id"] for event in self.events if event["type"] == "joined"))


def loud(samples: np.ndarray[Any, Any]) -> bool:
    return len(samples) > 0 and float(np.sqrt((samples.astype(np.float32) ** 2).mean())) > LOUD
