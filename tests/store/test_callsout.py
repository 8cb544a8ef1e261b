"""Calls out, as every worker tells of them."""

import asyncio
from datetime import timedelta

from sqlalchemy.engine import URL

from trunkline.compliance.caps import Outgoing
from trunkline.store.callsout import CallsOut
from trunkline.store.engine import Database
from trunkline.testing.clock import ManualClock
from trunkline.types import DEFAULT_TENANT


def test_two_workers_and_one_that_starts_again(url: URL) -> None:
    async def scenario() -> None:
        database, now = Database(url), ManualClock().wall()
        await database.upgrade()
        store, one, other = CallsOut(database), Outgoing(), Outgoing()
        one.went("+13055550100", now)
        other.went("+13055550100", now, to_target=True)
        for each in (one, one, other):  # the same twice is noted once
            await store.note(DEFAULT_TENANT, each.untold())
        again = Outgoing()
        again.heard(await store.since(DEFAULT_TENANT, now - timedelta(hours=1)), now)
        traffic = again.traffic("+13055550100", now)
        assert (traffic.number, traffic.country, traffic.total) == (1, 2, 2)
        assert await store.since(DEFAULT_TENANT, now + timedelta(seconds=1)) == []
        await database.close()

    asyncio.run(scenario())
