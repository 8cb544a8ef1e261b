"""A number with one line: the second caller waits to music, and talks with the agent when the first has hung up."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_routed import ACME, OF_ACME, OfFiles, running
from tests.store.seeding import put
from trunkline.numbers.queueing import TURN_S
from trunkline.numbers.resources import Agent, ByAgents, Number, Queue, Route, Share
from trunkline.store.engine import Database, database_url
from trunkline.store.records import CallRecords
from trunkline.testing.caller.commands import CallOptions, CallReport, Listen, place_call
from trunkline.testing.caller.script import Pause
from trunkline.testing.ports import lease

pytestmark = pytest.mark.e2e


async def call(port: int, heard: list[str], *actions: Any) -> CallReport:
    options = CallOptions(f"http://127.0.0.1:{port}/twilio/voice", list(actions), to_number=OF_ACME)
    return await asyncio.wait_for(place_call(options, on_say=heard.append), 60)


def test_the_second_caller_of_one_line_waits_for_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        port = lease()
        async with running(tmp_path, port) as gateway:
            assert gateway.switchboard.routing is not None
            gateway.switchboard.routing.agents = OfFiles(gateway.switchboard)
            database = Database(database_url(None, tmp_path / "data"))
            await database.upgrade()
            answer = ByAgents(kind="agents", agents=(Share(agent="desk"),))
            route = Route(name="main", answer=answer, queue=Queue(max_wait_s=60), max_calls=1)
            await put(database, ACME, Agent(name="desk", published=1), route, Number(number=OF_ACME, route="main"))
            await asyncio.sleep(1.2)

            first = asyncio.create_task(call(port, [], Listen(quiet_ms=600, timeout_s=15), Pause(8000)))
            while gateway.switchboard.live_calls == 0:
                await asyncio.sleep(0.05)
            heard: list[str] = []
            second = await call(port, heard, Listen(quiet_ms=600, timeout_s=15))
            await first
            assert heard[:2] == ["All our lines are busy. Please hold.", "You are number 1 in line."]
            assert heard[2].endswith("/twilio/hold-0.wav")
            assert second.greeting_ms is not None
            assert second.duration_s > TURN_S

            records, found = CallRecords(database), None
            for _ in range(100):
                found = (await records.list(ACME)).calls
                if len(found) == 2 and all(each["ended_at"] for each in found):
                    break
                await asyncio.sleep(0.1)
            assert found is not None
            record = await records.get(ACME, found[0]["id"])
            assert record is not None
            kinds = [event["kind"] for event in record["events"]]
            assert kinds.index("queued") < kinds.index("left_queue")
            assert record["turns"][0]["agent_text"] == "This is Acme."
            await database.close()

    asyncio.run(scenario())
