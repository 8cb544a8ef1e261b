"""The HTTP of a fake (RFC 9112): keep-alive, bodies of JSON, answers whole or in chunks, and clients that leave.

A fake overrides `answer`; while its stream waits, it listens for the client's leaving.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Request:
    path: str
    headers: Mapping[str, str]
    """By their names in lowercase."""
    body: Any
    query: Mapping[str, list[str]]


class Gone(Exception):
    """The client went away, or was left."""


class Stream:
    """One answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def whole(self, status: int, body: Any, headers: Mapping[str, str]) -> None:
        """JSON."""
        data = json.dumps(body).encode()
        lines = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            "Content-Type: application/json",
            f"Content-Length: {len(data)}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        await self.unframed("\r\n".join([*lines, "", ""]).encode() + data)

    def begin(self, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        """200, in chunks."""
        more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n{more}Transfer-Encoding: chunked\r\n\r\n"
        self.writer.write(head.encode())

    async def chunk(self, data: bytes) -> None:
        await self.unframed(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def end(self) -> None:
        await self.unframed(b"0\r\n\r\n")

    async def unframed(self, data: bytes) -> None:
        """Beside the framing of HTTP."""
        self.writer.write(data)
        await self.writer.drain()

    async def wait(self, seconds: float) -> None:
        """Raises Gone when the client leaves meanwhile."""
        if seconds <= 0:
            return
        try:
            async with asyncio.timeout(None if seconds == float("inf") else seconds):
                await self.reader.read(1)  # only its end can come: the request has been read
        except TimeoutError:
            return
        raise Gone

    def drop(self) -> None:
        """The connection breaks here. Raises Gone."""
        self.writer.transport.abort()
        raise Gone


class HttpServer:
    def __init__(self) -> None:
        self.accepted = 0
        """Connections."""
        self.disconnected = asyncio.Event()
        """Set when a client leaves before its answer is complete."""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def answer(self, request: Request, stream: Stream) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await _read_request(reader)) is not None:
                await self.answer(request, Stream(reader, writer))
        except (Gone, ConnectionError):
            self.disconnected.set()
        finally:
            writer.close()


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    """None: the client has no more."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    target = urlsplit(head[0].split()[1])
    return Request(target.path, headers, json.loads(body), parse_qs(target.query))
