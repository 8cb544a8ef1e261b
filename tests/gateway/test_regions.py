import asyncio
import math
from collections.abc import Awaitable, Callable

import pytest

from trunkline.gateway import regionwatch
from trunkline.gateway.regions import Pulse, Region, Regions, distance_km
from trunkline.gateway.regionwatch import RegionWatch

FRANKFURT = Region("eu", "https://eu.example.com", 50.11, 8.68)
VIRGINIA = Region("us", "https://us.example.com", 38.9, -77.45)
SYDNEY = Region("au", "https://au.example.com", -33.87, 151.21)
BERLIN, BOSTON, SUVA = (52.52, 13.40), (42.36, -71.06), (-18.14, 178.44)
SAMOA = (-13.83, -171.77)  # beyond the date line: 5,000 km to Sydney eastwards


class World:
    def __init__(self, ready: bool = True) -> None:
        self.ready = ready
        self.regions = Regions([FRANKFURT, VIRGINIA, SYDNEY], "eu", lambda: self.ready)
        self.regions.answered("us", True)
        self.regions.answered("au", True)

    def nearest(self, place: tuple[float, float] | tuple[()] = ()) -> str | None:
        found = self.regions.nearest(*place)
        return None if found is None else found[0].name


@pytest.mark.parametrize(("place", "region"), [(BERLIN, "eu"), (BOSTON, "us"), (SUVA, "au"), (SAMOA, "au"), ((), "eu")])
def test_the_nearest_is_along_the_great_circle(place: tuple[float, float], region: str) -> None:
    assert World().nearest(place) == region


def test_distances_are_known_ones() -> None:
    assert distance_km(*BERLIN, FRANKFURT) == pytest.approx(424, abs=5)
    assert distance_km(*BOSTON, FRANKFURT) == pytest.approx(5890, abs=30)
    assert distance_km(-50.11, 8.68 - 180, FRANKFURT) == pytest.approx(math.pi * 6371.0088, abs=1)  # the antipode
    assert distance_km(*BERLIN, Region("here", "http://127.0.0.1:8080")) == math.inf


def test_a_region_that_is_down_is_nobodys_nearest_and_after_two_answers() -> None:
    world = World()
    assert not world.regions.answered("us", False)
    assert world.nearest(BOSTON) == "us"
    assert world.regions.answered("us", False)
    assert world.nearest(BOSTON) == "eu"
    assert not world.regions.answered("us", True)
    assert not world.regions.answered("us", False)
    assert not world.regions.answered("us", True)
    assert world.nearest(BOSTON) == "eu"  # it comes and goes
    assert world.regions.answered("us", True)
    assert world.nearest(BOSTON) == "us"


def test_ours_is_as_ready_as_we_are() -> None:
    world = World(ready=False)
    assert world.nearest(BERLIN) == "us"
    assert world.nearest() == "us"
    for name in ("us", "au"):
        world.regions.answered(name, False)
        world.regions.answered(name, False)
    assert world.nearest(BERLIN) is None


def test_who_was_never_asked_is_not_healthy_and_the_first_answer_counts() -> None:
    regions = Regions([FRANKFURT, VIRGINIA], "eu", lambda: False)
    assert regions.nearest() is None
    assert regions.answered("us", True)
    found = regions.nearest(*BERLIN)
    assert found is not None
    assert found[0] is VIRGINIA
    assert found[1] == pytest.approx(6700, abs=100)


def test_one_region_without_a_place_is_the_nearest_there_is() -> None:
    alone = Region("local", "http://127.0.0.1:8080")
    assert Regions([alone], "local", lambda: True).nearest(*BERLIN) == (alone, None)


def test_a_pulse_that_stays_the_same_does_not_change() -> None:
    pulse = Pulse()
    assert pulse.answered(False)
    assert [pulse.answered(False) for _ in range(5)] == [False] * 5


# --- asking them ---


async def _answering(body: bytes, wait_s: float = 0.0) -> tuple[asyncio.Server, str]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(wait_s)
            writer.write(body)
            await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


READY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
DRAINING = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}"
MOVED = b"HTTP/1.1 302 Found\r\nLocation: /console\r\nContent-Length: 0\r\n\r\n"


async def _until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not happened():
            await asyncio.sleep(0.01)


def test_regions_are_asked_whether_they_are_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regionwatch, "EVERY_S", 0.02)
    monkeypatch.setattr(regionwatch, "DEADLINE_S", 0.2)

    async def scenario() -> None:
        servers = [await _answering(READY), await _answering(DRAINING), await _answering(MOVED)]
        servers.append(await _answering(READY, wait_s=1.0))  # too slow
        urls = {name: url for name, (_, url) in zip(("good", "drains", "moved", "slow"), servers, strict=True)}
        urls["dead"] = "http://127.0.0.1:9"
        found = [Region(name, url, 0.0, 0.0) for name, url in urls.items()]
        regions = Regions([Region("own", "http://127.0.0.1:1"), *found], "own", lambda: True)
        watch = RegionWatch(regions)
        watch.start()
        await _until(lambda: all(pulse.healthy is not None for pulse in regions._pulses.values()))
        assert [name for name in urls if regions.healthy(name)] == ["good"]
        servers[0][0].close()
        await _until(lambda: not regions.healthy("good"))
        await watch.close()
        await watch.close()
        for server, _ in servers:
            server.close()

    asyncio.run(scenario())


def test_one_region_is_not_asked() -> None:
    async def scenario() -> None:
        before: Awaitable[None] | None
        watch = RegionWatch(Regions([FRANKFURT], "eu", lambda: True))
        watch.start()
        before = watch._task
        assert before is None
        await watch.close()

    asyncio.run(scenario())
