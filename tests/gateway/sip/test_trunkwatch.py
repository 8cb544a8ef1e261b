"""Pings and registrations as the desk has them, above a scripted stack."""

import asyncio
from dataclasses import replace

from tests.gateway.sip.test_desk import CARRIER, Desk, run
from trunkline.gateway.sip import stack as s


def test_a_trunk_that_does_not_answer_is_not_dialled_and_comes_back() -> None:
    pinged = replace(CARRIER, ping_s=30.0)
    spare = replace(pinged, name="spare", host="spare.example.com")

    async def scenario(here: Desk) -> None:
        await asyncio.sleep(6)
        assert sorted(told[1] for told in here.stack.commands("ping")) == ["carrier", "spare"]
        here.stack.happens(s.Pinged("spare", 200), s.Pinged("carrier", 0))
        await asyncio.sleep(6)
        here.stack.happens(s.Pinged("carrier", 408))
        assert here.desk.trunk_states == {"carrier": "down", "spare": "up"}
        assert here.not_dialled(trunk="carrier") == "trunk_down"
        here.dialled()
        assert here.stack.commands("dial")[-1][2] == "spare"
        before = len(here.stack.commands("ping"))
        await asyncio.sleep(40)
        assert len(here.stack.commands("ping")) > before
        here.stack.happens(s.Pinged("carrier", 405), s.Pinged("nobody", 200))
        here.dialled(trunk="carrier")

    run(scenario, pinged, spare)


def test_a_trunk_that_registers_is_registered_from_the_start_and_shown_as_it_is() -> None:
    async def scenario(here: Desk) -> None:
        assert ("register", "carrier", True) in here.stack.told
        assert [view.registered for view in here.desk.trunks()] == [False]
        here.stack.happens(s.Registered("carrier", 200, "OK", 300))
        assert [view.registered for view in here.desk.trunks()] == [True]
        here.stack.happens(s.Registered("carrier", 503, "Busy", 120, retry_s=4))  # still is, for as long as it was
        assert [view.registered for view in here.desk.trunks()] == [True]
        here.stack.happens(s.Registered("carrier", 403, "Forbidden", 0, retry_s=60))
        assert [view.registered for view in here.desk.trunks()] == [False]

    run(scenario, replace(CARRIER, registers=True))


def test_other_trunks_are_not_registered() -> None:
    async def scenario(here: Desk) -> None:
        assert not [told for told in here.stack.told if told[0] == "register"]
        assert [view.registered for view in here.desk.trunks()] == [None]

    run(scenario)
