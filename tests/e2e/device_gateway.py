"""`python -m tests.e2e.device_gateway`: a whole gateway, and on DEVICE_PORT devices without a network: each connection
is one, in lines of JSON. What it asks goes the way every leg goes (Verifier, Switchboard.join, attach); its audio is
silence, and its ear hears what it was sent in the time that takes.

    {"join": TOKEN}   -> {"joined": {...}} or {"refused": CODE}
    {"key": "1"}      -> {}
    {"vanish": true}  -> the leg is lost, as when a network goes
    closing           -> the device has hung up
"""

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from trunkline import app
from trunkline.gateway.leg import LegKind
from trunkline.gateway.linecall import LineCall
from trunkline.media.bus import Receiver
from trunkline.media.playout import LeadPolicy, Message
from trunkline.ports import Refuse
from trunkline.settings import load
from trunkline.types import MULAW_8K

FRAME_S = 0.02


class ScriptedLeg:
    """`gateway.leg.Leg`, with a perfect line."""

    kind: LegKind = "websocket"
    transfers, sends_dtmf, writable = False, False, True

    def __init__(self) -> None:
        self.lead = LeadPolicy()
        self.bus: Receiver | None = None
        self.call: LineCall | None = None
        self.closed = ""
        self._over = asyncio.Event()
        self._empty_at = 0.0
        self._marks: list[asyncio.TimerHandle] = []

    def send(self, messages: Sequence[Message]) -> None:
        loop = asyncio.get_running_loop()
        for message in messages:
            self._empty_at = max(self._empty_at, loop.time()) + len(message.audio) / 8000
            if message.mark:
                self._marks.append(loop.call_at(self._empty_at, self._heard, message.mark))

    def _heard(self, mark: str) -> None:
        if self.bus is not None:
            self.bus.mark_returned(mark)

    def clear(self) -> int | None:
        for timer in self._marks:
            timer.cancel()
        self._empty_at = 0.0
        return None

    def send_dtmf(self, digits: str) -> None: ...

    def stats(self) -> Mapping[str, int]:
        return {}

    def close(self, why: str = "") -> None:
        if self.call is not None and not self.closed:
            asyncio.get_running_loop().call_soon(self.call.lost, self, "closed")
        self.closed = self.closed or why or "closed"
        self._over.set()

    def detach(self) -> None:
        self.bus = None

    async def speak(self) -> None:
        """Silence, in real time, until it is closed."""
        loop, frame, position = asyncio.get_running_loop(), MULAW_8K.silence * 160, 0
        begun = loop.time()
        while not self._over.is_set():
            if self.bus is not None:
                self.bus.receive(frame, position)
            position += 20
            await asyncio.sleep(max(0.0, begun + position / 1000 - loop.time()))


class Device:
    def __init__(self, gateway: app.Gateway) -> None:
        self._gateway = gateway
        self.leg = ScriptedLeg()
        self.call: LineCall | None = None
        self._speaking: asyncio.Task[None] | None = None

    async def asked(self, line: Mapping[str, Any]) -> dict[str, Any]:
        if "join" in line:
            return await self._join(line["join"])
        assert self.call is not None
        if "key" in line:
            self.call.key(line["key"])
        if "vanish" in line:
            self.call.lost(self.leg, "the network went away")
            self.leg.close()
        return {"closed": self.leg.closed}

    async def _join(self, token: str) -> dict[str, Any]:
        joining = await self._gateway.verifier.join(token)
        if isinstance(joining, Refuse):
            return {"refused": joining.code}
        call_id = self._gateway.switchboard.join(joining, self.leg.kind)
        if isinstance(call_id, Refuse):
            return {"refused": call_id.code}
        self.call = self._gateway.switchboard.call(call_id)
        assert self.call is not None
        receiver = self.call.attach(self.leg)
        assert not isinstance(receiver, Refuse), receiver
        self.leg.bus, self.leg.call = receiver, self.call
        self._speaking = asyncio.create_task(self.leg.speak())
        return {
            "joined": {
                "session_id": joining.session_id,
                "call_id": call_id,
                "number": joining.number,
                "resumed": joining.resumed,
                "cut_off": joining.cut_off,
                "conversation": [[message.role, message.text] for message in joining.conversation],
                "resume_token": joining.resume_token,
            }
        }

    def hang_up(self) -> None:
        if self.call is not None and not self.leg.closed:
            self.call.stopped(self.leg)
            self.leg.close()


def serve_devices(gateway: app.Gateway) -> None:
    async def device(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        one = Device(gateway)
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await one.asked(json.loads(line))).encode() + b"\n")
                await writer.drain()
        finally:
            one.hang_up()
            writer.close()

    tasks.append(asyncio.ensure_future(asyncio.start_server(device, "127.0.0.1", int(os.environ["DEVICE_PORT"]))))


tasks: list["asyncio.Future[asyncio.Server]"] = []

if __name__ == "__main__":
    settings = load()
    app.configure_logs(settings)
    asyncio.run(app.serve(settings, ready=serve_devices))
