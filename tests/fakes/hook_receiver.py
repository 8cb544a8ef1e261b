"""Whoever receives webhooks: answers as it is told to, and keeps what came."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from tests.fakes.http_server import Gone, Stream


@dataclass(frozen=True)
class Received:
    path: str
    headers: Mapping[str, str]
    """By their names in lowercase."""
    raw: bytes
    connection: int

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def body(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.raw)
        return found


Answer = int | str | tuple[int, Mapping[str, str]]
"""A status, with headers; `stall`: none; `drop`: the connection breaks; `endless`: 200, and a body without an end."""


class HookReceiver:
    def __init__(self, *answers: Answer, port: int = 0, otherwise: Answer = 204) -> None:
        """Each in turn, then `otherwise`."""
        self.received: list[Received] = []
        self.connections = self.at_once = self.most_at_once = 0
        self.otherwise = otherwise
        self._answers, self._port = [*answers], port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
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
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/hook"

    async def until(self, count: int, timeout_s: float = 10.0) -> list[Received]:
        async with asyncio.timeout(timeout_s), self._news:
            await self._news.wait_for(lambda: len(self.received) >= count)
        return self.received

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer, self.connections))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> None:
        try:
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                pairs = (line.partition(":") for line in lines[1:] if line)
                headers = {name.lower(): value.strip() for name, _, value in pairs}
                raw = await reader.readexactly(int(headers.get("content-length", "0")))
                self.at_once += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
                try:
                    async with self._news:
                        self.received.append(Received(lines[0].split()[1], headers, raw, connection))
                        self._news.notify_all()
                    answer = self._answers.pop(0) if self._answers else self.otherwise
                    await self._answer(answer, Stream(reader, writer))
                finally:
                    self.at_once -= 1
        except (Gone, ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, answer: Answer, stream: Stream) -> None:
        if answer == "stall":
            await stream.wait(float("inf"))
        elif answer == "drop":
            stream.drop()
        elif answer == "endless":
            stream.begin("text/plain")
            while True:
                await stream.chunk(b"x" * 4096)
                await asyncio.sleep(0)
        elif isinstance(answer, str):
            raise AssertionError(answer)
        else:
            status, headers = answer if isinstance(answer, tuple) else (answer, {})
            if status == 204:
                await stream.unframed(b"HTTP/1.1 204 No Content\r\n\r\n")
            else:
                await stream.whole(status, {}, headers)
