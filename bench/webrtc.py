"""What a WebRTC call costs, by our leg and by aiortc as its documentation uses it: the same gateway, agent and callers.

python bench/webrtc.py serve ours  --port 8080     # or naive
python bench/webrtc.py compare --calls 16 --seconds 20

`naive` puts a leg into the gateway that is what one writes first: RTCPeerConnection, its tracks, an AudioResampler to
8 kHz, AudioFrames back. `compare` runs both in turn, each on one core, the callers on another, and prints the figures.
"""

import argparse
import asyncio
import contextlib
import fractions
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from trunkline.gateway.leg import LegCall, LegKind
from trunkline.gateway.webrtc.desk import Opened, WebRtcDesk
from trunkline.gateway.webrtc.outgoing import webrtc_lead
from trunkline.media.bus import Receiver
from trunkline.media.g711 import decode, encode
from trunkline.media.playout import Message
from trunkline.ports import Refuse
from trunkline.testing.ports import lease
from trunkline.types import FRAME_MS

ROOT = Path(__file__).parents[1]
FRAME = 160
ALONE = ("chrt", "-f", "10")
"""Keeps other work off the two cores."""


def naive_track(leg: "NaiveLeg") -> Any:
    from aiortc import MediaStreamTrack
    from av import AudioFrame

    class Speaker(MediaStreamTrack):
        kind = "audio"

        def __init__(self) -> None:
            super().__init__()
            self._at, self._started = 0, time.monotonic()

        async def recv(self) -> Any:
            await asyncio.sleep(self._started + self._at * FRAME_MS / 1000 - time.monotonic())
            audio, mark = leg.queue.popleft() if leg.queue else (b"\xff" * FRAME, "")
            if mark and leg.bus is not None:
                leg.bus.mark_returned(mark)
            frame = AudioFrame(format="s16", layout="mono", samples=FRAME)
            frame.planes[0].update(decode(audio, "mulaw"))
            frame.sample_rate, frame.pts, frame.time_base = 8000, self._at * FRAME, fractions.Fraction(1, 8000)
            self._at += 1
            return frame

    return Speaker()


class NaiveLeg:
    kind: LegKind = "webrtc"
    transfers = sends_dtmf = networked = puts_through = False
    writable = True
    lead = webrtc_lead()

    def __init__(self, call: LegCall, connection: Any) -> None:
        self.call: LegCall | None = call
        self.bus: Receiver | None = None
        self.connection = connection
        self.queue: deque[tuple[bytes, str]] = deque()
        self._tasks: list[asyncio.Task[None]] = []
        connection.addTrack(naive_track(self))
        connection.on("track", self._track)
        connection.on("connectionstatechange", self._changed)

    def _track(self, track: Any) -> None:
        self._tasks.append(asyncio.create_task(self._hear(track)))

    def _changed(self) -> None:
        if self.connection.connectionState == "connected" and self.call is not None:
            bus = self.call.attach(self)
            self.bus = None if isinstance(bus, Refuse) else bus

    async def _hear(self, track: Any) -> None:
        from aiortc.mediastreams import MediaStreamError
        from av import AudioResampler

        resampler, at_ms, rest = AudioResampler(format="s16", layout="mono", rate=8000), 0, b""
        with contextlib.suppress(MediaStreamError):
            while True:
                for frame in resampler.resample(await track.recv()):
                    rest += encode(bytes(frame.planes[0])[: frame.samples * 2], "mulaw")
                while len(rest) >= FRAME:
                    if self.bus is not None:
                        self.bus.receive(rest[:FRAME], at_ms)
                    rest, at_ms = rest[FRAME:], at_ms + FRAME_MS

    def send(self, messages: Sequence[Message]) -> None:
        for message in messages:
            for start in range(0, len(message.audio), FRAME):
                last = start + FRAME >= len(message.audio)
                self.queue.append((message.audio[start : start + FRAME], message.mark if last else ""))

    def clear(self) -> int | None:
        dropped_ms = len(self.queue) * FRAME_MS
        self.queue.clear()
        return dropped_ms

    def send_dtmf(self, digits: str) -> None: ...

    def stats(self) -> Mapping[str, int]:
        return {}

    def close(self, why: str = "") -> None:
        call, self.call, self.bus = self.call, None, None
        if call is not None:
            call.lost(self, why)
            self._tasks.append(asyncio.create_task(self.connection.close()))

    def detach(self) -> None:
        self.call = self.bus = None


class NaiveDesk(WebRtcDesk):
    """Answers offers with a NaiveLeg."""

    async def open(self, body: bytes, token: str) -> Opened | Refuse:
        from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

        entered = await self._entrance.enter(token, "webrtc", f"naive-{secrets.token_hex(8)}")
        if isinstance(entered, Refuse):
            return entered
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        legs[name := secrets.token_hex(8)] = NaiveLeg(entered.call, connection)
        await connection.setRemoteDescription(RTCSessionDescription(body.decode(), "offer"))
        await connection.setLocalDescription(await connection.createAnswer())
        return Opened(name, '"1"', connection.localDescription.sdp)

    def hang_up(self, name: str) -> bool:
        leg = legs.pop(name, None)
        if leg is not None and leg.call is not None:
            call, leg.call = leg.call, None
            call.stopped(leg)
            leg._tasks.append(asyncio.create_task(leg.connection.close()))
        return leg is not None


legs: dict[str, NaiveLeg] = {}


def serve(leg: str, port: int) -> None:
    import trunkline.app
    from trunkline.cli import app

    if leg == "naive":
        vars(trunkline.app)["WebRtcDesk"] = NaiveDesk
    os.environ |= {"TRUNKLINE_HTTP__PORT": str(port), "TRUNKLINE_SIP__ENABLED": "false"}
    os.environ |= {"TRUNKLINE_LOG__LEVEL": "warning", "TRUNKLINE_AGENT": str(ROOT / "bench" / "standin.toml")}
    app(["serve"])


def compare(calls: int, seconds: float) -> None:
    print(f"{calls} calls, {seconds:g} s, Python {sys.version.split()[0]}, {time.strftime('%Y-%m-%d')}")
    per_call = {}
    for leg in ("naive", "ours"):
        port = lease()
        with tempfile.TemporaryDirectory() as folder:
            environment = os.environ | {"TRUNKLINE_DATA_DIR": folder}
            server = subprocess.Popen(
                [*ALONE, "taskset", "-c", "0", sys.executable, __file__, "serve", leg, "--port", str(port)],
                env=environment,
                stderr=subprocess.DEVNULL,
            )
            try:
                wait_for(f"http://127.0.0.1:{port}/readyz")
                idle = cpu_s(server.pid)
                time.sleep(2)
                idle = (cpu_s(server.pid) - idle) / 2
                bench = [sys.executable, "-m", "trunkline.cli", "bench", "webrtc", f"http://127.0.0.1:{port}"]
                bench += ["--calls", str(calls), "--seconds", str(seconds), "--json", "--pid", str(server.pid)]
                done = subprocess.run(
                    [*ALONE, "taskset", "-c", "1", *bench], capture_output=True, text=True, check=False
                )
            finally:
                server.send_signal(signal.SIGTERM)
                server.wait(15)
        report = json.loads(done.stdout)
        cpu = report["gateway_cpu_percent"] - idle * 100
        per_call[leg] = cpu / calls
        print(
            f"{leg:6} {cpu / calls:.2f} % of a core a call (idle {idle * 100:.1f} %), "
            f"{report['gateway_rss_kb_per_call']:.0f} KB a call, connected {report['connected']}, "
            f"turns {report['turns']} p50/p95 {report['turn_ms']['p50']:.0f}/{report['turn_ms']['p95']:.0f} ms, "
            f"barge-in p95 {report['barge_in_ms']['p95'] or 0:.0f} ms, talk {report['talk_percent']:.0f} %, "
            f"gaps {report['gaps']} (largest {report['largest_gap_ms']} ms), rig {report['rig_cpu_percent']:.0f} %, "
            f"failed {report['failed_calls']}"
        )
    print(f"calls per core: {per_call['naive'] / per_call['ours']:.1f} times as many")


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for(url: str) -> None:
    for _ in range(120):
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url).status_code == 200:
                return
        time.sleep(0.5)
    raise SystemExit("the gateway did not start")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    one = what.add_parser("serve")
    one.add_argument("leg", choices=("ours", "naive"))
    one.add_argument("--port", type=int, default=8080)
    both = what.add_parser("compare")
    both.add_argument("--calls", type=int, default=16)
    both.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    if options.what == "serve":
        serve(options.leg, options.port)
    else:
        compare(options.calls, options.seconds)


if __name__ == "__main__":
    main()
