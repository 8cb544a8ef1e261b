"""The front door under a real uvicorn, on a loopback socket: this holds us to what we lean on there."""

import asyncio
import contextlib
import logging
import re
import socket
import ssl
import tomllib
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from trunkline.clock import SYSTEM_CLOCK
from trunkline.errors import PeerError
from trunkline.gateway import front
from trunkline.gateway.front import _asked, front_door
from trunkline.gateway.leg import LegCall
from trunkline.gateway.mediasocket import MediaSocket
from trunkline.gateway.twilio.leg import TwilioLeg
from trunkline.gateway.twilio.wire import Started
from trunkline.media.bus import Bus
from trunkline.types import CallSid

ROOT = Path(__file__).parents[2]
WAIT_S = 5.0


@dataclass
class Door:
    """Lets every socket in and no stream."""

    legs: list[TwilioLeg] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    went: asyncio.Event = field(default_factory=asyncio.Event)

    def hang_up(self, call_sid: CallSid) -> None:
        raise AssertionError("no stream was let in")

    def new_leg(self) -> TwilioLeg:
        leg = TwilioLeg(self, SYSTEM_CLOCK, start_timeout_s=5, media_timeout_s=3)
        self.legs.append(leg)
        return leg

    def welcome(self, socket: MediaSocket) -> bool:
        return True

    def attach(self, leg: TwilioLeg, started: Started) -> tuple[LegCall, Bus]:
        raise PeerError("token_forged", 1008)

    def gone(self, socket: MediaSocket, code: int) -> None:
        self.codes.append(code)
        self.went.set()

    def misbehaved(self, what: str) -> None: ...


async def _echo(request: Request) -> Response:
    body = await request.body()
    scheme, peer = request.url.scheme, request.client
    return PlainTextResponse(f"{request.method} {scheme} {peer is not None} {request.url.path} {body.decode()}")


@dataclass
class Running:
    door: Door
    server: uvicorn.Server
    port: int
    tls: ssl.SSLContext | None = None

    @property
    def origin(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    @property
    def media(self) -> str:
        return f"ws{'s' if self.tls else ''}://127.0.0.1:{self.port}/twilio/media"

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


@contextlib.asynccontextmanager
async def running(tls: ssl.SSLContext | None = None) -> AsyncIterator[Running]:
    door = Door()
    app = Starlette(routes=[Route("/{path:path}", _echo, methods=["GET", "POST"])])
    sock = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=front_door({"/twilio/media": door.new_leg, "/ws/audio": door.new_leg}),
        ws="none",
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=2,
        ssl_certfile=str(CERTIFICATE) if tls else None,
        ssl_keyfile=str(CERTIFICATE) if tls else None,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve(sockets=[sock]))
    async with asyncio.timeout(WAIT_S):
        while not server.started:
            await asyncio.sleep(0.001)
    try:
        yield Running(door, server, sock.getsockname()[1], tls)
    finally:
        server.should_exit = True
        async with asyncio.timeout(WAIT_S):
            await serving


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """On the loop that `serve` runs on."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario)


# --- HTTP goes to uvicorn as if we were not there ---


def test_http_requests_bodies_and_keep_alive_reach_the_application() -> None:
    async def scenario() -> None:
        async with running() as gateway, httpx.AsyncClient(base_url=gateway.origin) as http:
            assert (await http.get("/v1/calls")).text == "GET http True /v1/calls "
            body = "x" * 100_000
            assert (await http.post("/twilio/voice", content=body)).text == f"POST http True /twilio/voice {body}"
            assert (await http.get("/twilio/media")).status_code == 200  # keep-alive: only the first request counts
            assert gateway.door.legs == []

    run(scenario())


ALIKE = ("/twilio/mediax", "/twilio/media/", "/twilio/medi", "/twilio/media%3f", "/Twilio/media", "//twilio/media")


def test_a_path_that_is_only_alike_is_http() -> None:
    async def scenario() -> None:
        async with running() as gateway:
            for path in ALIKE:
                reader, writer = await gateway.raw()
                writer.write(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
                assert (await reader.read()).startswith(b"HTTP/1.1 200"), path
                writer.close()
            assert gateway.door.legs == []

    run(scenario())


def test_a_request_that_comes_byte_by_byte_is_served() -> None:
    async def scenario() -> None:
        async with running() as gateway:
            for path, expected in (("/healthz", b"200"), ("/twilio/media", b"426")):
                reader, writer = await gateway.raw()
                for byte in f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode():
                    writer.write(bytes([byte]))
                    await asyncio.sleep(0)
                    await writer.drain()
                assert (await reader.read()).split()[1] == expected
                writer.close()

    run(scenario())


def test_pipelined_requests_are_answered_in_order() -> None:
    async def scenario() -> None:
        async with running() as gateway:
            reader, writer = await gateway.raw()
            request = "GET /{} HTTP/1.1\r\nHost: test\r\n{}\r\n"
            writer.write((request.format("one", "") + request.format("two", "Connection: close\r\n")).encode())
            answer = await reader.read()
            assert answer.index(b"/one") < answer.index(b"/two")
            writer.close()

    run(scenario())


RUBBISH = (b"\x16\x03\x01\x02\x00", b"\r\n\r\nGET", b"\x00" * 50, b"G\r\n\r\n")


def test_rubbish_is_uvicorns_to_refuse(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with running() as gateway:
            for rubbish in RUBBISH:
                reader, writer = await gateway.raw()
                writer.write(rubbish)
                writer.write_eof()
                assert (await reader.read())[:12] in (b"", b"HTTP/1.1 400"), rubbish
                writer.close()

    run(scenario())
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


def test_a_peer_that_says_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "FIRST_BYTES_S", 0.05)

    async def scenario() -> None:
        async with running() as gateway:
            reader, writer = await gateway.raw()
            writer.write(b"GET /twi")
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(reader.read(), WAIT_S) == b""
            writer.close()

    run(scenario())


# --- media ---


def test_a_media_socket_becomes_a_leg() -> None:
    async def scenario() -> None:
        async with running() as gateway:
            async with connect(gateway.media, compression=None, proxy=None) as ws:
                await ws.send('{"event":"connected","protocol":"Call","version":"1.0.0"}')
                assert await (await ws.ping()) >= 0
                assert len(gateway.door.legs) == 1
            await asyncio.wait_for(gateway.door.went.wait(), WAIT_S)
            assert gateway.door.codes == [1000]

    run(scenario())


def test_a_client_that_offers_compression_and_a_query_is_taken_without_them() -> None:
    async def scenario() -> None:
        async with running() as gateway, connect(gateway.media + "?token=x", proxy=None) as ws:
            assert ws.response is not None
            assert "Sec-WebSocket-Extensions" not in ws.response.headers
            await ws.send(b"binary")
            with pytest.raises(ConnectionClosed):
                await ws.recv()
            assert ws.close_code == 1003

    run(scenario())


def test_another_websocket_path_is_refused() -> None:
    async def scenario() -> None:
        async with running() as gateway:
            with pytest.raises(InvalidStatus):
                async with connect(gateway.media + "x", proxy=None):
                    pass
            assert gateway.door.legs == []

    run(scenario())


# --- stopping ---


def test_the_server_stops_at_once_with_silent_peers_on_the_line(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with running() as gateway:
            silent = [await gateway.raw() for _ in range(3)]
            async with asyncio.timeout(WAIT_S):
                while len(gateway.server.server_state.connections) < 3:
                    await asyncio.sleep(0.001)
            gateway.server.should_exit = True
            for reader, writer in silent:
                assert await asyncio.wait_for(reader.read(), 1.5) == b""
                writer.close()

    run(scenario())
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


def test_a_media_socket_is_told_before_the_server_stops() -> None:
    async def scenario() -> None:
        async with running() as gateway, connect(gateway.media, proxy=None) as ws:
            gateway.door.legs[0].close("going away")
            gateway.server.should_exit = True
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(ws.recv(), WAIT_S)
            assert (ws.close_code, ws.close_reason) == (1001, "going away")
            assert gateway.server.server_state.connections == set()

    run(scenario())


# --- TLS ---


CERTIFICATE = ROOT / "tests" / "vectors" / "tls" / "loopback.pem"


def test_http_and_media_over_tls() -> None:
    trusted = ssl.create_default_context(cafile=str(CERTIFICATE))

    async def scenario() -> None:
        async with running(tls=trusted) as gateway:
            async with httpx.AsyncClient(base_url=gateway.origin, verify=trusted) as http:
                assert (await http.post("/twilio/voice", content="a=b")).text == "POST https True /twilio/voice a=b"
            async with connect(gateway.media, ssl=trusted, proxy=None) as ws:
                assert await (await ws.ping()) >= 0
            await asyncio.wait_for(gateway.door.went.wait(), WAIT_S)
            assert gateway.door.codes == [1000]

    run(scenario())


# --- what we lean on ---


def test_uvicorn_is_pinned_to_the_minor_version_this_is_tested_with() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (pin,) = [d for d in wanted if d.startswith("uvicorn")]
    low, high = re.fullmatch(r"uvicorn>=0\.(\d+),<0\.(\d+)", pin).groups()  # type: ignore[union-attr]
    assert int(high) == int(low) + 1
    assert version("uvicorn").startswith(f"0.{low}.")


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (b"", None),
        (b"G", None),
        (b"GET /twilio/media", None),
        (b"GET /twilio/media ", b"GET /twilio/media"),
        (b"GET /twilio/media?", b"GET /twilio/media"),
        (b"GET /ws/aud", None),
        (b"GET /ws/audio ", b"GET /ws/audio"),
        (b"GET /ws/audiox", b""),
        (b"GET /wt", b""),
        (b"GET /twilio/media#", b""),
        (b"GET /twilio/mediax", b""),
        (b"POST", b""),
        (b"GET  /twilio/media ", b""),
        (b"get /twilio/media ", b""),
    ],
)
def test_the_first_bytes_tell_media_from_http(start: bytes, expected: Any) -> None:
    assert _asked(start, (b"GET /twilio/media", b"GET /ws/audio")) == expected
