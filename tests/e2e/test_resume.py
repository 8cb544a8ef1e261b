"""A WebRTC client that is not ours comes back: its worker was killed in mid-conversation, or its network changed."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("aiortc")

from tests.e2e.browser import Browser, loud
from tests.e2e.redis_server import redis_server
from tests.e2e.test_webrtc import record, turns, words
from trunkline.compliance.money.prices import COLUMNS

pytestmark = pytest.mark.e2e

Start = Callable[..., Any]
ME = {"device_id": "kitchen", "account_id": "ann"}
TAKE_OVER_S = 5.0
ASKED = "Please key in the four digits of your appointment number, or say them one by one."
NUMBER = "four seven one one"
KEYED = json.dumps({"type": "dtmf", "digits": "4711"})
READ_BACK = "I heard four seven one one."


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    with redis_server(tmp_path) as server:
        yield server.url


def opened(gateway: Any) -> Any:
    answer = httpx.post(f"{gateway.origin}/v1/session", json=ME, timeout=10)
    assert answer.status_code == 201, answer.text
    return answer.json()


def said(gateway: Any, session_id: str) -> list[str]:
    answer = httpx.get(f"{gateway.origin}/v1/session/{session_id}", params={"account_id": "ann"}, timeout=10)
    assert answer.status_code == 200, answer.text
    return [each["text"] for each in answer.json()["conversation"]]


def resume_token(browser: Browser) -> str:
    return str(next(event["resume_token"] for event in browser.events if event["type"] == "joined"))


def first_loud_at(browser: Browser) -> float | None:
    return next((at for at, samples in browser.heard if loud(samples)), None)


def test_a_caller_whose_worker_is_killed_goes_on_at_another_with_what_was_said(
    start_gateway: Start, redis_url: str, tmp_path: Path
) -> None:
    """The number that the first worker has asked for is asked for again by the second, and taken where it is keyed at
    once. What the call has cost is of its budget there."""
    row = "webrtc,leg,*,egress,seconds,0.01,1,1,2026-11-28,the test"
    (tmp_path / "prices.csv").write_text(f"# version test\n{COLUMNS}\n{row}")
    money = {"money__prices": str(tmp_path), "money__call_usd": "5"}
    first, second = (start_gateway(agent=None, webrtc__enabled="true", redis_url=redis_url, **money) for _ in range(2))
    session, confirm = opened(first), words("confirm my appointment")

    async def talk() -> tuple[float, float, str]:
        async with Browser(f"{first.origin}/whip", token=session["join_token"]) as browser:
            answered_at = time.monotonic()
            await browser.listen()
            await browser.say(confirm)
            await browser.listen()
            token = resume_token(browser)
            await asyncio.sleep(0.6)  # what was said is written within half a second
            os.killpg(first.process.pid, signal.SIGKILL)
            killed_at = time.monotonic()
        async with Browser(f"{second.origin}/whip", token=token) as browser:
            await browser.until(lambda: first_loud_at(browser) is not None, TAKE_OVER_S)
            heard_at = first_loud_at(browser)
            assert heard_at is not None
            assert browser.events[0]["resumed"]
            await browser.listen()
            browser.channel.send(KEYED)
            await browser.listen()
            await asyncio.sleep(0.6)
            return heard_at - killed_at, killed_at - answered_at, browser.call_id

    took_s, lasted_s, call_id = asyncio.run(talk())
    print(f"from kill -9 to the agent's voice: {took_s:.2f} s")
    assert took_s < TAKE_OVER_S
    conversation = said(second, session["session_id"])
    asked = conversation.index("confirm my appointment")
    assert conversation[asked + 1] == ASKED
    assert conversation[asked + 2] == f"I'm sorry, we were cut off. {ASKED}"
    assert conversation[asked + 3] == "4711"
    assert "appointment four seven one one" in conversation[asked + 4]
    call = record(second, call_id)
    assert (call["provider_call_id"], call["leg"]) == (f"{session['session_id']}/2", "webrtc")
    assert turns(call) == ["4711"]
    [cost] = [event["data"] for event in call["events"] if event["kind"] == "cost"]
    before_usd, usd = Decimal(cost["before_usd"]), Decimal(cost["usd"])
    assert abs(before_usd - Decimal(str(lasted_s)) / 100) < Decimal("0.03"), "to a cent, and the last second or two"
    assert (usd > 0, cost["budget_usd"]) == (True, "5")
    assert second.complaints() == []

    # On the same gateway: another network, while the old leg has not noticed.
    session = opened(second)

    async def move() -> tuple[str, str]:
        async with Browser(f"{second.origin}/whip", token=session["join_token"]) as before:
            await before.listen()
            await before.say(confirm)
            await before.listen()
            async with Browser(f"{second.origin}/whip", token=resume_token(before)) as after:
                await after.listen()
                await before.until(lambda: before.peer.connectionState == "closed", 5)
                after.channel.send(json.dumps({"type": "text", "text": NUMBER}))
                await after.listen()
                await asyncio.to_thread(httpx.delete, after.location)
                return before.call_id, after.call_id

    before, after = asyncio.run(move())
    assert before == after
    call = record(second, after)
    assert turns(call) == ["confirm my appointment", NUMBER]
    assert READ_BACK in call["turns"][-1]["agent_text"]
    listed = httpx.get(f"{second.origin}/v1/calls", timeout=10).json()["calls"]
    assert [each["id"] for each in listed if each["provider_call_id"].startswith(session["session_id"])] == [after]
    assert second.complaints() == []
