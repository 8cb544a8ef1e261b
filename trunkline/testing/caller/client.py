"""The WebSocket edge of one call: a Line over the `websockets` client, paced by absolute deadlines."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from trunkline.clock import Clock
from trunkline.errors import PeerError
from trunkline.testing.caller.line import Line
from trunkline.types import FRAME_MS

TICK_S = FRAME_MS / 1000
RESYNC_S = 0.2  # further behind than this the schedule is given up, and counted
OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 5.0
MAX_MESSAGE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Misbehave:
    """What a broken carrier or network does, for tests."""

    garbage: tuple[tuple[int, bytes | str], ...] = ()
    """(ms of the call, message): bytes go as a binary message, text as text."""
    stop_reading_at_ms: int | None = None
    """A slow reader: nothing is read from then on."""
    half_open_at_ms: int | None = None
    """Neither read nor written from then on, yet open, until the line's own end."""


@dataclass(slots=True)
class StreamEnd:
    close_code: int | None = None
    close_reason: str = ""
    late_max_ms: float = 0.0
    resyncs: int = 0


Send = Callable[[ClientConnection, bytes], Awaitable[None]]


async def _as_text(socket: ClientConnection, message: bytes) -> None:
    await socket.send(message, text=True)


async def run_line(
    url: str, line: Line, clock: Clock, misbehave: Misbehave | None = None, send: Send = _as_text
) -> StreamEnd:
    """Hold one stream until the line or the server ends it. Raises PeerError when the server refuses the handshake."""
    end, trouble = StreamEnd(), misbehave or Misbehave()
    try:
        socket = await connect(
            url,
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            max_size=MAX_MESSAGE_BYTES,
            compression=None,
            user_agent_header="Twilio.TmeWs/1.0",
            proxy=None,
        )
    except (OSError, InvalidHandshake, InvalidURI, TimeoutError) as error:
        raise PeerError(f"cannot open the media stream at {url}: {error}") from error
    reader = asyncio.create_task(_read(socket, line, clock, trouble, send))
    try:
        await _write(socket, line, clock, trouble, end, send)
    except ConnectionClosed:
        pass
    finally:
        await _close(socket, line, reader)
    line.closed(clock.now(), clean=socket.close_code == 1000)
    end.close_code, end.close_reason = socket.close_code, socket.close_reason or ""
    return end


async def _read(socket: ClientConnection, line: Line, clock: Clock, trouble: Misbehave, send: Send) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for message in socket:
            for reply in line.receive(message, clock.now()):
                await send(socket, reply)
            if _reached(trouble.stop_reading_at_ms, line, clock) or _reached(trouble.half_open_at_ms, line, clock):
                socket.transport.pause_reading()
                return
    line.closed(clock.now(), clean=socket.close_code == 1000)


def _reached(at_ms: int | None, line: Line, clock: Clock) -> bool:
    return at_ms is not None and (clock.now() - (line.turns.started_at or clock.now())) * 1000 >= at_ms


async def _write(
    socket: ClientConnection, line: Line, clock: Clock, trouble: Misbehave, end: StreamEnd, send: Send
) -> None:
    garbage = sorted(trouble.garbage, key=lambda g: g[0])
    for message in line.open(clock.now()):
        await send(socket, message)
    deadline = clock.now() + TICK_S
    while line.ended is None:
        now = clock.now()
        if now < deadline:
            await asyncio.sleep(deadline - now)
            now = clock.now()
        end.late_max_ms = max(end.late_max_ms, (now - deadline) * 1000)
        deadline += TICK_S
        if now - deadline > RESYNC_S:
            deadline, end.resyncs = now, end.resyncs + 1
        if line.ended is not None:
            break
        messages = line.tick(now)
        if _reached(trouble.half_open_at_ms, line, clock):
            continue
        for message in messages:
            await send(socket, message)
        while garbage and _reached(garbage[0][0], line, clock):
            await socket.send(garbage.pop(0)[1])


async def _close(socket: ClientConnection, line: Line, reader: asyncio.Task[None]) -> None:
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    if line.ended == "vanished":
        socket.transport.abort()
        return
    socket.transport.resume_reading()
    await socket.close()
