"""Devices and browsers are asked as callers are: they say it, key it or write it. Whose worker dies is asked again."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

pytest.importorskip("aiortc")

from tests.e2e.browser import Browser
from tests.e2e.redis_server import redis_server
from tests.e2e.test_consent import ASKS, RULES, events
from tests.e2e.test_webrtc import record, words
from tests.e2e.test_ws_audio import Device, start
from trunkline.agents.examples import example

pytestmark = pytest.mark.e2e

ME = {"device_id": "kitchen", "account_id": "ann"}


def typed(text: str) -> str:
    return json.dumps({"type": "text", "text": text})


def opened(gateway: Any) -> Any:
    answer = httpx.post(f"{gateway.origin}/v1/session", json=ME, timeout=10)
    assert answer.status_code == 201, answer.text
    return answer.json()


def said(gateway: Any, session_id: str) -> list[str]:
    answer = httpx.get(f"{gateway.origin}/v1/session/{session_id}", params={"account_id": "ann"}, timeout=10)
    assert answer.status_code == 200, answer.text
    return [each["text"] for each in answer.json()["conversation"]]


def states(call: Any) -> list[tuple[str, str]]:
    return [(each["state"], each["via"]) for each in events(call, "consent")]


async def quiet(device: Device, for_s: float = 1.0, within_s: float = 40.0) -> None:
    """It has been spoken to, and nothing has come for so long."""
    before, deadline = device.heard_ms, time.monotonic() + within_s
    last, since = before, time.monotonic()
    while last == before or time.monotonic() - since < for_s:
        assert time.monotonic() < deadline, device.events[-5:]
        await asyncio.sleep(0.05)
        if device.heard_ms != last:
            last, since = device.heard_ms, time.monotonic()


def ws_call(gateway: Any, answer: str, keyed: bool = False) -> Any:
    session = opened(gateway)

    async def talk() -> str:
        async with connect(session["ws_url"], proxy=None) as socket:
            await socket.send(start(session["join_token"]))
            device = Device(socket)
            joined = await device.until(lambda e: e["type"] == "joined")
            await quiet(device)
            await socket.send(json.dumps({"type": "dtmf", "digits": answer}) if keyed else typed(answer))
            await quiet(device)
            await socket.send(typed(ASKS))
            await quiet(device)
            return str(joined["call_id"])

    call_id = asyncio.run(talk())
    return record(gateway, call_id), said(gateway, session["session_id"])


@pytest.mark.show
def test_a_device_writes_yes_and_another_no(start_gateway: Any) -> None:
    gateway = start_gateway(example("clinic"), **RULES)
    call, kept = ws_call(gateway, "yes")
    assert states(call) == [("granted", "keypad")]
    assert all(line["whole"] for line in events(call, "disclosed")[0]["lines"])
    assert ASKS in [turn["caller_text"] for turn in call["turns"]]
    assert ASKS in kept
    call, kept = ws_call(gateway, "No.")
    assert states(call) == [("refused", "keypad")]
    assert len(call["turns"]) > 1, "served all the same"
    assert {turn["caller_text"] + turn["agent_text"] for turn in call["turns"]} == {""}
    assert kept == []
    assert len(list((gateway.data_dir / "recordings").glob("*.wav"))) == 1, "of the first alone"
    assert gateway.complaints() == []


def test_a_browser_writes_no_and_another_says_yes(start_gateway: Any) -> None:
    gateway = start_gateway(example("clinic"), webrtc__enabled="true", **RULES)
    yes, hours = words("yes"), words(ASKS)

    async def talk(answer: str | bytes) -> str:
        async with Browser(f"{gateway.origin}/whip") as browser:
            await browser.listen(quiet_s=1.2, within_s=40)
            if isinstance(answer, str):
                browser.channel.send(typed(answer))
            else:
                await browser.say(answer)
            await browser.listen(quiet_s=1.2, within_s=40)
            await browser.say(hours)
            await browser.listen(within_s=40)
            await asyncio.to_thread(httpx.delete, browser.location)
            return browser.call_id

    call = record(gateway, asyncio.run(talk("no")))
    assert states(call) == [("refused", "keypad")]
    assert {turn["caller_text"] + turn["agent_text"] for turn in call["turns"]} == {""}
    call = record(gateway, asyncio.run(talk(yes)))
    assert states(call) == [("granted", "speech")]
    assert ASKS in [turn["caller_text"] for turn in call["turns"]]
    assert gateway.complaints() == []


# --- kill -9 --------------------------------------------------------------------------------------------------------


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    with redis_server(tmp_path) as server:
        yield server.url


def test_whose_worker_is_killed_is_asked_again_and_nothing_is_open_meanwhile(
    start_gateway: Callable[..., Any], redis_url: str
) -> None:
    """What was kept while they agreed may be gone on with; nothing new is kept until they agree anew."""
    first, second = (start_gateway(example("clinic"), redis_url=redis_url, **RULES) for _ in range(2))
    session = opened(first)

    async def talk() -> str:
        async with connect(session["ws_url"], proxy=None) as socket:
            await socket.send(start(session["join_token"]))
            device = Device(socket)
            token = (await device.until(lambda e: e["type"] == "joined"))["resume_token"]
            await quiet(device)
            await socket.send(typed("yes"))
            await quiet(device)
            await socket.send(typed(ASKS))
            await quiet(device)
            await asyncio.sleep(0.6)  # what was said is written within half a second
            await asyncio.to_thread(first.kill)
        async with connect(f"{second.origin.replace('http', 'ws')}/ws/audio", proxy=None) as socket:
            await socket.send(start(token))
            device = Device(socket)
            joined = await device.until(lambda e: e["type"] == "joined")
            assert joined["resumed"]
            await asyncio.sleep(2)
            await socket.send(typed("where is the clinic"))  # over the lines: to nobody
            await quiet(device)
            live = httpx.get(f"{second.origin}/v1/calls/{joined['call_id']}", timeout=10).json()
            assert states(live) == []
            assert list((second.data_dir / "recordings").glob("*")) == []
            await socket.send(typed("no"))
            await quiet(device)
            await socket.send(typed("where is the clinic"))
            await quiet(device)
            return str(joined["call_id"])

    call_id = asyncio.run(talk())
    call = record(second, call_id)
    assert "ask_consent" in [line["line"] for line in events(call, "disclosed")[0]["lines"]]
    assert states(call) == [("refused", "keypad")]
    assert {turn["caller_text"] + turn["agent_text"] for turn in call["turns"]} == {""}
    assert "where is the clinic" not in said(second, session["session_id"])
    assert list((second.data_dir / "recordings").glob("*")) == []
    assert second.complaints() == []
