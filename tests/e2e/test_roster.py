"""AI agents of the desk by voice: versions are published under a gateway that runs, in this process, and calls are held
with them by real devices' sockets. Ears and voice are the local ones: new phrases are heard by workers that run."""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from trunkline.agents.examples import example
from trunkline.app import Gateway, serve
from trunkline.ports import Refuse
from trunkline.settings import Settings
from trunkline.testing.caller.commands import Action, CallOptions, HangUp, Listen, Pause, Say, place_call
from trunkline.testing.ports import lease
from trunkline.types import DEFAULT_TENANT, TenantId

pytestmark = pytest.mark.e2e

ONE, TWO, BILLING = "default/bakery@1", "default/bakery@2", "default/billing@1"


def bakery(price: str, more: str = "") -> str:
    return f"""
name = "Bakery"
greeting = "Bakery, hello."
[[intents]]
name = "price"
phrases = ["[what is] the price of bread"]
reply = "Bread is {price} dollars."
[[intents]]
name = "bill"
phrases = ["a question about my invoice"]
reply = "Billing will help you."
hand_off = "billing"
[agents.billing]
agent = "billing"
when = "invoices"
greeting = "Billing here."
{more}
"""


class Desk:
    """Where versions are kept, until there is a store of them."""

    texts: Mapping[tuple[str, int], str] = {
        ("bakery", 1): bakery("two"),
        ("bakery", 2): bakery(
            "three", '[[intents]]\nname = "cake"\nphrases = ["i want to order a cake"]\nreply = "We bake them."'
        ),
        (
            "billing",
            1,
        ): 'name = "Billing"\ngreeting = "Hi."\n[[intents]]\nname = "pay"\nphrases = ["pay"]\nreply = "OK."',
    }

    async def text(self, tenant: TenantId, agent: str, version: int) -> str | None:
        return self.texts.get((agent, version))

    async def published(self, tenant: TenantId, agent: str) -> int | None:
        return 1 if agent == "billing" else None


async def call(gateway: Gateway, agent: str, *actions: Action) -> Mapping[str, Any]:
    """The record of a device's call with that agent."""
    origin = gateway.settings.http.origin
    async with httpx.AsyncClient(base_url=origin) as http:
        asked = {"device_id": f"d{lease()}", "account_id": "ann", "agent": agent}
        opened = await http.post("/v1/session", json=asked)
        assert opened.status_code == 201, opened.text
    report = await place_call(
        CallOptions(
            origin.replace("http", "ws"),
            actions=[*actions, HangUp()],
            api_url="auto",
            join_token=opened.json()["join_token"],
        )
    )
    assert report.end == "hung_up", report.detail
    assert report.record is not None
    return report.record


def said(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(turn["caller_text"], turn["agent_text"]) for turn in record["turns"]]


async def story(gateway: Gateway) -> None:
    roster = gateway.roster
    roster.versions = Desk()
    roster.want([ONE])
    assert not isinstance(await roster.ready(ONE, 30), Refuse)
    price: Sequence[Action] = (Listen(), Say("what is the price of bread"), Listen())
    before = asyncio.create_task(call(gateway, ONE, *price, Pause(4000), *price[1:]))
    await asyncio.sleep(2)
    roster.want([TWO])  # in the middle of that call
    assert not isinstance(await roster.ready(TWO, 30), Refuse)
    after, old = await call(gateway, TWO, *price, Say("i want to order a cake"), Listen()), await before

    assert old["agent"] == ONE
    assert [agent for _, agent in said(old)[1:]] == ["Bread is two dollars."] * 2, "it keeps the version it began with"
    assert after["agent"] == TWO
    assert said(after) == [
        ("", "Bakery, hello."),
        ("what is the price of bread", "Bread is three dollars."),
        ("i want to order a cake", "We bake them."),
    ]

    handed = await call(gateway, TWO, Listen(), Say("a question about my invoice"), Listen(), Pause(3000))
    [changed] = [event["data"] for event in handed["events"] if event["kind"] == "agent_changed"]
    assert (changed["before"], changed["agent"], changed["why"]) == (TWO, BILLING, "handed_off")
    assert said(handed)[-1] == ("", "Billing here.")

    draft = await roster.draft(DEFAULT_TENANT, "bakery", bakery("nine"))
    assert isinstance(draft, str), draft
    tried = await call(gateway, draft, *price)
    assert said(tried)[-1] == ("what is the price of bread", "Bread is nine dollars.")
    here = {each.definition.known_as for each in roster.everyone()}
    assert here == {"Elm Street Clinic", ONE, TWO, BILLING, draft}


def test_versions_are_published_while_calls_are_held(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(
        agent=example("clinic"),
        data_dir=tmp_path,
        http={"port": lease()},
        sip={"enabled": False},
        webrtc={"enabled": False},
        limits={"watchdog": False},
    )

    async def main() -> None:
        running: asyncio.Future[Gateway] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(serve(settings, running.set_result))
        try:
            async with asyncio.timeout(180):
                await asyncio.wait((running, serving), return_when=asyncio.FIRST_COMPLETED)
                await story(running.result())
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            await serving

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
