"""A UDP relay that is as bad as the network one names: datagrams lost one by one or in bursts, and late by turns.

`Weather` is one direction, plain: when a datagram that comes `now` goes on, or that it does not. The same seed makes
the same losses. `UdpRelay` stands before one address: who sends to its port is passed on from a socket of their own.

    async with UdpRelay(("127.0.0.1", 20000), up=Impairment(loss=0.02, jitter_ms=50), seed=1) as relay:
        ...  # talk to relay.port
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, cast

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Impairment:
    """Of one direction. The default is a perfect path."""

    loss: float = 0.0
    """Share of datagrams lost."""
    burst: float = 1.0
    """How many are lost in a row, on average."""
    jitter_ms: int = 0
    """Each is late by 0 to so much, evenly; so neighbours overtake each other."""


PERFECT = Impairment()


class Weather:
    """Loss by Gilbert's two states: in the bad one everything is lost, `burst` datagrams on average."""

    def __init__(self, impairment: Impairment, seed: int) -> None:
        self._impairment, self._random = impairment, random.Random(seed)
        self._bad = False
        self.passed = self.lost = 0

    def due(self, now: float) -> float | None:
        """None: it is lost."""
        given, chance = self._impairment, self._random.random
        if given.loss:
            leaves = 1 / max(1.0, given.burst)
            enters = min(1.0, leaves * given.loss / (1 - given.loss))
            self._bad = chance() >= leaves if self._bad else chance() < enters
        late_s = chance() * given.jitter_ms / 1000
        if self._bad:
            self.lost += 1
            return None
        self.passed += 1
        return now + late_s


class UdpRelay:
    def __init__(self, target: Address, *, up: Impairment = PERFECT, down: Impairment = PERFECT, seed: int = 0) -> None:
        """`up`: to the target."""
        self._target = target
        self.up, self.down = Weather(up, seed), Weather(down, seed + 1)
        self._near: asyncio.DatagramTransport | None = None
        self._far: dict[Address, asyncio.DatagramTransport] = {}
        self._opening: dict[Address, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Ear(self._from_near), ("127.0.0.1", 0))
        self._near = transport
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._opening.values():
            task.cancel()
        for transport in (self._near, *self._far.values()):
            if transport is not None:
                transport.close()

    @property
    def port(self) -> int:
        assert self._near is not None
        return int(self._near.get_extra_info("sockname")[1])

    def _from_near(self, data: bytes, source: Address) -> None:
        far = self._far.get(source)
        if far is not None:
            self._later(self.up, far, data, None)
        elif source not in self._opening:  # what comes meanwhile is lost
            self._opening[source] = asyncio.create_task(self._open(source, data))

    async def _open(self, source: Address, first: bytes) -> None:
        def back(data: bytes, _: Address) -> None:
            assert self._near is not None
            self._later(self.down, self._near, data, source)

        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Ear(back), remote_addr=self._target)
        self._far[source] = transport
        self._later(self.up, transport, first, None)

    def _later(self, weather: Weather, to: asyncio.DatagramTransport, data: bytes, address: Address | None) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        due = weather.due(now)
        if due is None:
            return
        if due <= now:
            to.sendto(data, address)
        else:
            loop.call_at(due, lambda: None if to.is_closing() else to.sendto(data, address))


class _Ear(asyncio.DatagramProtocol):
    def __init__(self, heard: Callable[[bytes, Address], None]) -> None:
        self._heard = heard

    def datagram_received(self, data: bytes, addr: tuple[object, ...]) -> None:
        self._heard(data, cast(Address, (addr[0], addr[1])))
