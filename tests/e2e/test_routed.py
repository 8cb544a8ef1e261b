"""Two tenants, two numbers, two agents: each caller is greeted by the right one, until the outage switch is turned."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.store.seeding import put
from trunkline.agents.attending import Agent as Attends
from trunkline.app import Gateway, serve
from trunkline.gateway.switchboard import Switchboard
from trunkline.numbers.resources import Agent, ByAgents, Number, Route, Share, Tenant
from trunkline.ports import Refuse
from trunkline.settings import load
from trunkline.store.engine import Database, database_url
from trunkline.store.records import CallRecords
from trunkline.testing.caller.commands import CallOptions, CallReport, Listen, place_call
from trunkline.testing.ports import lease
from trunkline.types import DEFAULT_TENANT, TenantId

pytestmark = pytest.mark.e2e

ACME, BAKER = TenantId("acme"), TenantId("baker")
OF_ACME, OF_BAKER, NOBODYS = "+14155550111", "+14155550112", "+14155550113"
SCRIPT = """
name = "{name}"
greeting = "{greeting}"
{agents}
[stt]
provider = "pocketsphinx"
[llm]
provider = "script"
[tts]
provider = "espeak"
[[intents]]
name = "hours"
phrases = ["when are you open"]
reply = "Always."
"""


class OfFiles:
    """The versions that tenants have published stand in files of this gateway."""

    def __init__(self, board: Switchboard) -> None:
        self._board = board

    async def ready(self, key: str) -> Attends | Refuse:
        return self.agent(key) or Refuse("unknown_agent", f"there is no {key}")

    def agent(self, key: str) -> Attends | None:
        name = {"acme/desk@1": "Acme", "baker/desk@4": "Baker"}.get(key)
        return None if name is None else self._board.agent_named(name)


@asynccontextmanager
async def running(folder: Path, port: int) -> AsyncGenerator[Gateway]:
    others = ""
    for name in ("Acme", "Baker"):
        script = SCRIPT.format(name=name, greeting=f"This is {name}.", agents="")
        (folder / f"{name.lower()}.toml").write_text(script)
        others += f'[agents.{name.lower()}]\nfile = "{name.lower()}.toml"\nwhen = "asked"\n'
    (folder / "own.toml").write_text(SCRIPT.format(name="Own", greeting="This is nobody's.", agents=others))
    (folder / "trunkline.toml").write_text(
        f'agent = "{folder / "own.toml"}"\ndata_dir = "{folder / "data"}"\n'
        f"[http]\nport = {port}\n[speech]\nworkers = 1\n[sip]\nenabled = false\n[webrtc]\nenabled = false\n"
        "[limits]\nwatchdog = false\n"
    )
    ready: asyncio.Future[Gateway] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(load(folder / "trunkline.toml"), ready.set_result))
    await asyncio.wait((serving, ready), timeout=60, return_when=asyncio.FIRST_COMPLETED)
    try:
        yield ready.result()
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(serving, 60)


async def call(port: int, number: str) -> CallReport:
    actions: list[Any] = [Listen(quiet_ms=600, timeout_s=15)]
    return await asyncio.wait_for(
        place_call(CallOptions(f"http://127.0.0.1:{port}/twilio/voice", actions, to_number=number)), 40
    )


async def greeted(database: Database, tenant: TenantId, number: str) -> list[Any]:
    """What callers of a number were told first, oldest call first."""
    records = CallRecords(database)
    for _ in range(100):
        found = [each for each in (await records.list(tenant)).calls if each["to_number"] == number]
        whole = [await records.get(tenant, each["id"]) for each in found]
        if whole and all(record is not None and record["ended_at"] for record in whole):
            break
        await asyncio.sleep(0.1)
    return [
        (record["agent"], [turn["agent_text"] for turn in record["turns"]][:1], record["end_reason"])
        for record in reversed(whole)
        if record is not None
    ]


def test_each_number_is_its_tenants_and_an_outage_is_one_tenants(tmp_path: Path) -> None:
    async def scenario() -> None:
        port = lease()
        async with running(tmp_path, port) as gateway:
            assert gateway.switchboard.routing is not None
            gateway.switchboard.routing.agents = OfFiles(gateway.switchboard)
            database = Database(database_url(None, tmp_path / "data"))
            await database.upgrade()
            for tenant, number, version in ((ACME, OF_ACME, 1), (BAKER, OF_BAKER, 4)):
                answer = ByAgents(kind="agents", agents=(Share(agent="desk"),))
                desk = Agent(name="desk", published=version), Route(name="main", answer=answer)
                await put(database, tenant, *desk, Number(number=number, route="main"))
            await asyncio.sleep(1.2)  # another process's change is noticed within a second
            for number in (OF_ACME, OF_BAKER, NOBODYS):
                await call(port, number)
            assert await greeted(database, ACME, OF_ACME) == [("Acme", ["This is Acme."], "caller_hung_up")]
            assert await greeted(database, BAKER, OF_BAKER) == [("Baker", ["This is Baker."], "caller_hung_up")]
            own = await greeted(database, DEFAULT_TENANT, NOBODYS)
            assert own == [("Own", ["This is nobody's."], "caller_hung_up")]
            assert await greeted(database, BAKER, OF_ACME) == []

            await put(database, ACME, Tenant(outage=True, outage_text="We are ill."))
            await asyncio.sleep(1.2)
            out, still = await call(port, OF_ACME), await call(port, OF_BAKER)
            assert out.greeting_ms is None
            assert still.greeting_ms is not None
            assert (await greeted(database, ACME, OF_ACME))[1:] == [("", [], "refused")]
            await put(database, ACME, Tenant())
            await asyncio.sleep(1.2)
            assert (await call(port, OF_ACME)).greeting_ms is not None
            await database.close()

    asyncio.run(scenario())
