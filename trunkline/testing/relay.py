"""A TCP relay that is as bad as the network one names: lost segments, stalls, a narrow path, odd pieces, silence.

`Path` is one direction, plain: bytes and `now` in, bytes when they are due out. `Relay` puts two of them between real
sockets. The same seed makes the same losses and the same times of stalls.

TCP never loses bytes, it is late with them, and with everything behind them. How late a lost segment is follows from
what was sent beside it: a lone one waits for the retransmission timer (Linux: 200 ms and a little, RFC 6298), one of
several is noticed within two round trips, by acknowledgements or a tail loss probe (RFC 8985). So a loss costs a
steady stream of small messages far more than a burst.

    async with Relay(port, down=Impairment(loss=0.02, stall_every_s=3), seed=1) as relay:
        await place_call(CallOptions(relay.origin, ..., public_url=gateway_origin))
"""

import asyncio
import contextlib
import random
from collections import deque
from dataclasses import dataclass
from typing import Self, cast

from trunkline.clock import SYSTEM_CLOCK, Clock

SEGMENT_BYTES = 1448  # Ethernet's, with timestamps
HELD_BYTES = 256 * 1024  # then the sender is not read from: the window is closed
TICK_S = 0.002  # what is due within this goes out together


@dataclass(frozen=True, slots=True)
class Impairment:
    """Of one direction. The default is a perfect path."""

    loss: float = 0.0
    """Share of segments that are lost once."""
    retransmit_ms: tuple[int, int] = (200, 250)
    """How late a lone lost segment is."""
    round_trip_ms: int = 20
    """One lost among several is late by one or two of these. 0: such a one waits for the timer as well."""
    stall_every_s: float | None = None
    """Nothing passes every so many seconds, half to one and a half of it..."""
    stall_ms: int = 300
    """... for so long."""
    delay_ms: int = 0
    bytes_per_s: int | None = None
    piece_bytes: int | None = None
    """What is delivered comes in pieces of one byte to this many, each by itself."""


PERFECT = Impairment()


@dataclass(slots=True)
class PathStats:
    segments: int = 0
    lost: int = 0
    stalls: int = 0
    """That something had to wait for."""
    bytes: int = 0
    """Delivered."""
    latest_ms: float = 0.0
    """The longest that anything was held."""


class Path:
    """One direction. `push` what was read, `pop` what is due, `next_at` says when to pop again."""

    def __init__(self, impairment: Impairment, seed: int, now: float) -> None:
        self.stats = PathStats()
        self.frozen = False
        self._impairment = impairment
        self._chance, self._timing = random.Random(f"{seed} loss"), random.Random(f"{seed} stall")
        self._pieces = random.Random(f"{seed} pieces")
        self._held: deque[tuple[float, float, bytes]] = deque()  # due, pushed, bytes
        self._last_due = now
        self.held_bytes = 0
        self._stall_at = float("inf")
        self._waited_at = -1.0  # start of the stall that was counted last
        if impairment.stall_every_s is not None:
            self._stall_at = now + self._until_stall()

    def push(self, data: bytes, now: float) -> None:
        """What one read gave: segments that were under way together."""
        segments = [data[at : at + SEGMENT_BYTES] for at in range(0, len(data), SEGMENT_BYTES)]
        for segment in segments:
            due = now + self._impairment.delay_ms / 1000 + self._late_s(alone=len(segments) == 1)
            due = max(due, self._last_due)  # head of line
            if self._impairment.bytes_per_s is not None:
                due += len(segment) / self._impairment.bytes_per_s
            self._last_due = due = self._after_stall(due)
            self._held.append((due, now, segment))
            self.held_bytes += len(segment)

    def pop(self, now: float) -> list[bytes]:
        """What is delivered now, in the pieces in which it is to arrive."""
        out = bytearray()
        while self._held and not self.frozen and self._held[0][0] <= now + TICK_S / 2:
            _, pushed, segment = self._held.popleft()
            out += segment
            self.stats.latest_ms = max(self.stats.latest_ms, (now - pushed) * 1000)
        self.held_bytes -= len(out)
        self.stats.bytes += len(out)
        return self._cut(bytes(out))

    @property
    def next_at(self) -> float | None:
        return None if self.frozen or not self._held else self._held[0][0]

    def _late_s(self, *, alone: bool) -> float:
        impairment = self._impairment
        self.stats.segments += 1
        if self._chance.random() >= impairment.loss:
            return 0.0
        self.stats.lost += 1
        if alone or not impairment.round_trip_ms:
            return self._chance.uniform(*impairment.retransmit_ms) / 1000
        return self._chance.uniform(1, 2) * impairment.round_trip_ms / 1000

    def _until_stall(self) -> float:
        return (self._impairment.stall_every_s or 0.0) * self._timing.uniform(0.5, 1.5)

    def _after_stall(self, due: float) -> float:
        stall_s = self._impairment.stall_ms / 1000
        while due >= self._stall_at + stall_s:
            self._stall_at += stall_s + self._until_stall()
        if due < self._stall_at:
            return due
        if self._waited_at != self._stall_at:
            self._waited_at = self._stall_at
            self.stats.stalls += 1
        return self._stall_at + stall_s

    def _cut(self, data: bytes) -> list[bytes]:
        if self._impairment.piece_bytes is None:
            return [data] if data else []
        pieces: list[bytes] = []
        while data:
            size = self._pieces.randint(1, self._impairment.piece_bytes)
            pieces.append(data[:size])
            data = data[size:]
        return pieces


class Relay:
    """Listens on a port of 127.0.0.1 for what is meant for `port` there. An async context manager."""

    def __init__(
        self,
        port: int,
        *,
        up: Impairment = PERFECT,
        down: Impairment = PERFECT,
        seed: int = 0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`up`: from who calls us to `port`; `down`: back."""
        self._target = port
        self._up, self._down, self._seed, self._clock = up, down, seed, clock
        self._server: asyncio.Server | None = None
        self._links: list[_Link] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._frozen: tuple[bool, bool] = (False, False)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _End(self), "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._opening:
            task.cancel()
        for link in self._links:
            link.abort()
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def freeze(self, *, up: bool = True, down: bool = True) -> None:
        """From now on nothing passes and nothing is read; every socket stays open. Also of connections to come."""
        self._frozen = (up, down)
        for link in self._links:
            link.freeze(up, down)

    def thaw(self) -> None:
        self.freeze(up=False, down=False)

    def abort(self) -> None:
        """Every connection is reset."""
        for link in self._links:
            link.abort()

    @property
    def up(self) -> list[PathStats]:
        """Of every connection so far."""
        return [link.up.path.stats for link in self._links]

    @property
    def down(self) -> list[PathStats]:
        return [link.down.path.stats for link in self._links]

    # --- connections ---

    def accepted(self, near: "_End") -> None:
        task = asyncio.get_running_loop().create_task(self._connect(near))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect(self, near: "_End") -> None:
        far = _End(None)
        try:
            await asyncio.get_running_loop().create_connection(lambda: far, "127.0.0.1", self._target)
        except OSError:
            near.abort()
            return
        if near.gone:
            far.abort()
            return
        number, now = len(self._links), self._clock.now()
        link = _Link(
            _Flow(near, far, Path(self._up, self._seed * 1000 + 2 * number, now), self._clock),
            _Flow(far, near, Path(self._down, self._seed * 1000 + 2 * number + 1, now), self._clock),
        )
        self._links.append(link)
        link.freeze(*self._frozen)


class _End(asyncio.Protocol):
    """One socket of a connection through the relay."""

    def __init__(self, relay: Relay | None) -> None:
        self.out: _Flow | None = None
        """Takes what is read here."""
        self.into: _Flow | None = None
        """Writes here."""
        self._relay = relay
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.pause_reading()  # until both ends are there
        if self._relay is not None:
            self._relay.accepted(self)

    @property
    def gone(self) -> bool:
        return self._transport is None

    def data_received(self, data: bytes) -> None:
        assert self.out is not None
        self.out.take(data)

    def eof_received(self) -> bool:
        if self.out is not None:
            self.out.finish()
        return True  # the other direction may go on

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self.out is not None:
            self.out.broken(error)

    def pause_writing(self) -> None:
        if self.into is not None:
            self.into.hold(True)

    def resume_writing(self) -> None:
        if self.into is not None:
            self.into.hold(False)

    def reading(self, on: bool) -> None:
        if self._transport is not None and not self._transport.is_closing():
            if on:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def write(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            if self._transport is not None:
                self._transport.write(piece)

    def write_eof(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            with contextlib.suppress(OSError):  # reset in this moment
                self._transport.write_eof()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class _Flow:
    """One direction between two sockets."""

    def __init__(self, source: _End, sink: _End, path: Path, clock: Clock) -> None:
        self.path, self._clock = path, clock
        self._source, self._sink = source, sink
        self._timer: asyncio.TimerHandle | None = None
        self._blocked = self._finished = False
        source.out = sink.into = self
        source.reading(True)

    def take(self, data: bytes) -> None:
        self.path.push(data, self._clock.now())
        if self.path.held_bytes > HELD_BYTES:
            self._source.reading(False)
        self._deliver()

    def _deliver(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._blocked:
            return
        now = self._clock.now()
        before = self.path.held_bytes
        self._sink.write(self.path.pop(now))
        if before > HELD_BYTES >= self.path.held_bytes:
            self._source.reading(True)
        next_at = self.path.next_at
        if next_at is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, next_at - now), self._deliver)
        elif self._finished and not self.path.frozen:
            self._sink.write_eof()

    def hold(self, on: bool) -> None:
        """The sink's socket is full."""
        self._blocked = on
        if not on:
            self._deliver()

    def freeze(self, on: bool) -> None:
        if on != self.path.frozen:
            self.path.frozen = on
            self._source.reading(not on)
            self._deliver()

    def finish(self) -> None:
        self._finished = True
        self._deliver()

    def broken(self, error: Exception | None) -> None:
        """The source is gone. A reset does not wait in a queue; a frozen path tells nobody of anything."""
        if self.path.frozen:
            return
        if error is not None:
            self._sink.abort()
        else:
            self.finish()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


@dataclass(frozen=True, slots=True)
class _Link:
    up: _Flow
    down: _Flow

    def freeze(self, up: bool, down: bool) -> None:
        self.up.freeze(up)
        self.down.freeze(down)

    def abort(self) -> None:
        for flow in (self.up, self.down):
            flow.stop()
            flow._source.abort()
