import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from sqlalchemy.engine import URL

from trunkline.errors import StoreError
from trunkline.ports import Conflict, Device, Registration
from trunkline.store.devices import KnownDevices
from trunkline.store.engine import Database
from trunkline.testing.clock import ManualClock
from trunkline.types import TenantId

A, B = TenantId("a"), TenantId("b")
SAID = Registration("Kitchen", needs_arming=True, facts={"model": "s1"})


def run(url: URL, scenario: Callable[[KnownDevices, ManualClock], Awaitable[None]]) -> None:
    async def whole() -> None:
        database, clock = Database(url), ManualClock()
        await database.upgrade()
        try:
            await scenario(KnownDevices(database, clock), clock)
        finally:
            await database.close()

    asyncio.run(whole())


def test_a_device_that_registers_twice_is_one_device(url: URL) -> None:
    async def scenario(devices: KnownDevices, clock: ManualClock) -> None:
        begun = clock.wall()
        first = await devices.register(A, "kitchen", "ann", SAID)
        assert first == Device("kitchen", A, "ann", begun, begun, "Kitchen", True, {"model": "s1"})
        clock.advance(60)
        again = await devices.register(A, "kitchen", "ann", Registration("Galley"))
        assert again == Device("kitchen", A, "ann", begun, begun + timedelta(seconds=60), "Galley", False, {})
        assert await devices.get(A, "kitchen") == again

    run(url, scenario)


def test_who_only_comes_by_is_seen_and_keeps_what_was_said(url: URL) -> None:
    async def scenario(devices: KnownDevices, clock: ManualClock) -> None:
        await devices.register(A, "kitchen", "ann", SAID)
        clock.advance(60)
        seen = await devices.register(A, "kitchen", "ann")
        assert isinstance(seen, Device)
        assert (seen.name, seen.needs_arming, seen.facts) == ("Kitchen", True, {"model": "s1"})
        assert seen.seen - seen.created == timedelta(seconds=60)

    run(url, scenario)


def test_one_account_has_several_devices_and_a_device_one_account(url: URL) -> None:
    async def scenario(devices: KnownDevices, clock: ManualClock) -> None:
        await devices.register(A, "kitchen", "ann", SAID)
        assert isinstance(await devices.register(A, "hall", "ann"), Device)
        assert await devices.register(A, "kitchen", "bob", Registration("mine now")) == Conflict()
        kept = await devices.get(A, "kitchen")
        assert kept is not None
        assert (kept.device_account, kept.name) == ("ann", "Kitchen")

    run(url, scenario)


def test_devices_are_a_tenants_own(url: URL) -> None:
    async def scenario(devices: KnownDevices, clock: ManualClock) -> None:
        await devices.register(A, "kitchen", "ann", SAID)
        assert await devices.get(B, "kitchen") is None
        assert isinstance(await devices.register(B, "kitchen", "bob"), Device)

    run(url, scenario)


def test_of_two_accounts_that_register_at_once_one_has_it(url: URL) -> None:
    async def scenario(devices: KnownDevices, clock: ManualClock) -> None:
        found = await asyncio.gather(*(devices.register(A, "kitchen", name) for name in ("ann", "bob", "cy")))
        assert sorted(type(each).__name__ for each in found) == ["Conflict", "Conflict", "Device"]

    run(url, scenario)


def test_a_database_that_is_away_is_said_so(url: URL) -> None:
    async def whole() -> None:
        database = Database(url.set(port=1) if url.port else url)  # never upgraded: it counts as away
        try:
            with pytest.raises(StoreError):
                await KnownDevices(database, ManualClock()).get(A, "kitchen")
            with pytest.raises(StoreError):
                await KnownDevices(database, ManualClock()).register(A, "kitchen", "ann")
        finally:
            await database.close()

    asyncio.run(whole())
