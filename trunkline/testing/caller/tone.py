"""A tiny gateway of canned tones, so that the caller can be tried without the real one. For tests; no model of ours."""

import asyncio
import contextlib
import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from websockets.asyncio.server import ServerConnection, serve

from trunkline.media.g711 import MULAW_I16, encode

TONE = encode((np.sin(np.arange(8000) * 0.5) * 8000).astype("<i2").tobytes(), "mulaw")  # a second of it

CONNECT = '<Response><Connect action="/twilio/after"><Stream url="{ws}" statusCallback="/twilio/stream-status">'
CONNECT += '<Parameter name="token" value="t-1"/></Stream></Connect></Response>'
GOODBYE = "<Response><Say>Goodbye</Say><Hangup/></Response>"


@dataclass
class ToneGateway:
    """Greets with `greeting_ms` of tone; answers 100 ms after a caller's loud frames stop; clears when interrupted."""

    greeting_ms: int = 200
    answer_ms: int = 300
    closes_after_answers: int = 0
    twiml: list[str] = field(default_factory=lambda: [CONNECT, GOODBYE])
    """Documents to answer webhooks with, in order; then the last again. {ws}: the media URL."""
    posts: list[tuple[str, dict[str, str], str]] = field(default_factory=list)
    """(path, form, signature)."""
    events: list[dict[str, Any]] = field(default_factory=list)
    closed: list[int | None] = field(default_factory=list)
    origin: str = ""
    ws_url: str = ""

    async def media(self, socket: ServerConnection) -> None:
        sid, loud, quiet, answers, marks = "", False, 0, 0, 0

        async def speak(ms: int) -> None:
            nonlocal marks
            for at in range(0, ms, 40):
                payload = b64encode(TONE[: 8 * min(40, ms - at)]).decode()
                await socket.send(json.dumps({"event": "media", "streamSid": sid, "media": {"payload": payload}}))
            marks += 1
            await socket.send(json.dumps({"event": "mark", "streamSid": sid, "mark": {"name": f"m{marks}"}}))

        try:
            async for text in socket:
                message = json.loads(text)
                self.events.append(message)
                if message["event"] == "start":
                    sid = message["start"]["streamSid"]
                    await speak(self.greeting_ms)
                elif message["event"] == "media":
                    frame = b64decode(message["media"]["payload"])
                    if sum(abs(s) for s in MULAW_I16[list(frame)].tolist()) > 160 * 200:
                        if not loud:
                            await socket.send(json.dumps({"event": "clear", "streamSid": sid}))
                        loud, quiet = True, 0
                    elif loud:
                        quiet += 1
                        if quiet == 5:
                            loud, quiet, answers = False, 0, answers + 1
                            await speak(self.answer_ms)
                elif message["event"] == "dtmf":
                    await speak(self.answer_ms)
                elif message["event"] == "mark" and answers and answers == self.closes_after_answers:
                    await socket.close(1000)
                elif message["event"] == "stop":
                    break
        finally:
            with contextlib.suppress(Exception):
                await socket.wait_closed()
            self.closed.append(socket.close_code)

    async def http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                path = line.split()[1].decode()
                headers: dict[str, str] = {}
                while (header := (await reader.readline()).decode().strip()) != "":
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                form = dict(
                    parse_qsl(
                        (await reader.readexactly(int(headers["content-length"]))).decode(), keep_blank_values=True
                    )
                )
                self.posts.append((path, form, headers.get("x-twilio-signature", "")))
                voice = path not in ("/twilio/status", "/twilio/stream-status")
                body = (self.twiml.pop(0) if len(self.twiml) > 1 else self.twiml[0]) if voice else ""
                body = body.replace("{ws}", self.ws_url)
                head = f"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body.encode())
                await writer.drain()
        finally:
            writer.close()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["ToneGateway"]:
        server = await asyncio.start_server(self.http, "127.0.0.1", 0)
        self.origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with serve(self.media, "127.0.0.1", 0) as media:
            self.ws_url = f"ws://127.0.0.1:{next(iter(media.sockets)).getsockname()[1]}/twilio/media"
            yield self
        server.close()
        await server.wait_closed()
