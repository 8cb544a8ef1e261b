"""The hot path's WebSocket against the `websockets` package's server, on the loop of the tests and on the gateway's."""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from trunkline.agents import websocket
from trunkline.agents.websocket import Gone, Link, Refused

SILENT = logging.getLogger("tests.silent")
SILENT.disabled = True
Run = Callable[[Awaitable[None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    factory = uvloop.new_event_loop if request.param == "uvloop" else None

    def told(story: Awaitable[None]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(10):
                await story

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(bounded())

    return told


class Client:
    """A link and what it told."""

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        self.messages: list[str | bytes] = []
        self.gone: list[Gone] = []
        self.told = asyncio.Event()
        self.link = Link(url, headers or {}, self.message, self.lost)

    def message(self, data: str | bytes) -> None:
        self.messages.append(data)
        self.told.set()

    def lost(self, gone: Gone) -> None:
        self.gone.append(gone)
        self.told.set()

    async def until(self, true: Callable[[], object]) -> None:
        while not true():
            self.told.clear()
            await self.told.wait()


@asynccontextmanager
async def server(
    handle: Callable[[ServerConnection], Awaitable[None]],
    answer: Callable[[ServerConnection, Request], Response | None] | None = None,
) -> AsyncGenerator[str, None]:
    async with serve(handle, "127.0.0.1", 0, logger=SILENT, process_request=answer, ping_interval=0.05) as running:
        yield f"ws://127.0.0.1:{next(iter(running.sockets)).getsockname()[1]}/path?model=x"


async def echo(client: ServerConnection) -> None:
    async for message in client:
        await client.send(message)


def test_text_and_binary_go_both_ways_and_pings_are_answered(run: Run) -> None:
    async def story() -> None:
        async with server(echo) as url:
            client = Client(url)
            await client.link.open(None)
            big = bytes(range(256)) * 1000
            for message in ("grüß", b"\x00\xff", big):
                client.link.send(message)
            await client.until(lambda: len(client.messages) == 3)
            assert client.messages == ["grüß", b"\x00\xff", big]
            await asyncio.sleep(0.15)  # the server pings, and would close without an answer
            client.link.send("still")
            await client.until(lambda: len(client.messages) == 4)
            client.link.close()
            client.link.close()

    run(story())


def test_a_ping_is_answered_by_who_still_reads(run: Run) -> None:
    async def story() -> None:
        async with serve(echo, "127.0.0.1", 0, logger=SILENT, ping_interval=None) as running:
            client = Client(f"ws://127.0.0.1:{next(iter(running.sockets)).getsockname()[1]}/")
            client.link.ping()  # nobody there yet
            await client.link.open(None)
            before = client.link.received_bytes
            client.link.ping()
            while client.link.received_bytes == before:
                await asyncio.sleep(0.01)
            assert client.messages == []
            client.link.close()
            client.link.ping()

    run(story())


def test_over_tls_the_certificate_is_checked(run: Run) -> None:
    pem = Path(__file__).parents[1] / "vectors" / "tls" / "loopback.pem"
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(pem)

    async def story() -> None:
        async with serve(echo, "127.0.0.1", 0, logger=SILENT, ssl=theirs) as running:
            url = f"wss://127.0.0.1:{next(iter(running.sockets)).getsockname()[1]}/"
            client = Client(url)
            await client.link.open(ssl.create_default_context(cafile=str(pem)))
            client.link.send("secret")
            await client.until(lambda: client.messages)
            assert client.messages == ["secret"]
            client.link.close()
            with pytest.raises(ssl.SSLCertVerificationError):
                await Client(url).link.open(ssl.create_default_context())

    run(story())


def test_a_message_in_fragments_is_one(run: Run) -> None:
    async def handle(client: ServerConnection) -> None:
        async def parts() -> AsyncGenerator[str, None]:
            for part in ("a", "b", "c"):
                yield part

        await client.send(parts())
        await client.wait_closed()

    async def story() -> None:
        async with server(handle) as url:
            client = Client(url)
            await client.link.open(None)
            await client.until(lambda: client.messages)
            assert client.messages == ["abc"]
            client.link.close()

    run(story())


def test_headers_are_sent_and_a_refusal_has_its_status_and_headers(run: Run) -> None:
    seen: list[str] = []

    def answer(client: ServerConnection, request: Request) -> Response:
        seen.append(request.headers["Authorization"])
        response = client.respond(429, "slowly")
        response.headers["Retry-After"] = "7"
        return response

    async def story() -> None:
        async with server(echo, answer) as url:
            client = Client(url, {"Authorization": "Token key"})
            with pytest.raises(Refused) as caught:
                await client.link.open(None)
            assert (caught.value.status, caught.value.headers["retry-after"]) == (429, "7")
            assert caught.value.body == b"slowly"
            assert client.gone == []
        assert seen == ["Token key"]

    run(story())


def test_the_peers_goodbye_is_told_once_with_its_code(run: Run) -> None:
    async def handle(client: ServerConnection) -> None:
        await client.close(1011, "NET-0001")

    async def story() -> None:
        async with server(handle) as url:
            client = Client(url)
            await client.link.open(None)
            await client.until(lambda: client.gone)
            await asyncio.sleep(0.05)
            assert [(gone.code, gone.reason) for gone in client.gone] == [(1011, "NET-0001")]
            client.link.send("into nothing")

    run(story())


def test_a_connection_that_breaks_is_1006(run: Run) -> None:
    async def handle(client: ServerConnection) -> None:
        client.transport.abort()

    async def story() -> None:
        async with server(handle) as url:
            client = Client(url)
            await client.link.open(None)
            await client.until(lambda: client.gone)
            assert [gone.code for gone in client.gone] == [1006]

    run(story())


def test_our_goodbye_comes_after_what_was_sent_and_is_told_to_nobody_here(run: Run) -> None:
    got: list[str | bytes] = []
    ended = asyncio.Event()

    async def handle(client: ServerConnection) -> None:
        try:
            async for message in client:
                got.append(message)
        finally:
            ended.set()

    async def story() -> None:
        async with server(handle) as url:
            client = Client(url)
            await client.link.open(None)
            client.link.send("last")
            client.link.close()
            await ended.wait()
            assert got == ["last"]
            await asyncio.sleep(0.02)
            assert client.gone == []

    run(story())


def test_a_peer_that_speaks_no_websocket_is_gone(run: Run) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.com ESMTP\r\n\r\n")
        await writer.drain()
        writer.close()

    async def story() -> None:
        listening = await asyncio.start_server(handle, "127.0.0.1", 0)
        client = Client(f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}/")
        with pytest.raises(Gone):
            await client.link.open(None)
        listening.close()

    run(story())


def test_nobody_there_is_an_oserror(run: Run) -> None:
    async def story() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            client = Client(f"ws://127.0.0.1:{taken.getsockname()[1]}/")
            with pytest.raises(OSError):
                await client.link.open(None)

    run(story())


def test_a_handshake_that_is_given_up_leaves_nothing_open(run: Run) -> None:
    left = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.read()
        left.set()
        writer.close()

    async def story() -> None:
        listening = await asyncio.start_server(handle, "127.0.0.1", 0)
        client = Client(f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}/")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.link.open(None)
        await left.wait()
        listening.close()

    run(story())


def test_a_peer_that_does_not_read_is_given_up(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "MAX_UNSENT_BYTES", 64 * 1024)

    over = asyncio.Event()

    async def handle(client: ServerConnection) -> None:
        client.transport.pause_reading()
        await over.wait()
        client.transport.abort()

    async def story() -> None:
        async with server(handle) as url:
            client = Client(url)
            await client.link.open(None)
            for _ in range(1000):
                client.link.send(bytes(64 * 1024))
                await asyncio.sleep(0)
                if client.gone:
                    break
            over.set()
            assert [gone.code for gone in client.gone] == [1006]

    run(story())


def test_nothing_of_it_is_logged(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def story() -> None:
        async with server(echo) as url:
            client = Client(url, {"Authorization": "Token key-4711"})
            await client.link.open(None)
            client.link.send("what the caller says")
            await client.until(lambda: client.messages)
            client.link.close()

    run(story())
    assert "key-4711" not in caplog.text
    assert "caller" not in caplog.text
