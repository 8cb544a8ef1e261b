"""Devices' calls over a WebSocket, by the `websockets` library as the device, against one gateway."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from trunkline.media.g711 import encode
from trunkline.testing.caller.commands import Action, CallOptions, HangUp, Listen, ListenInto, Say, place_call
from trunkline.testing.caller.speech import synthesize
from trunkline.testing.caller.websocket import DeviceAudio

pytestmark = pytest.mark.e2e

WAIT_S = 20.0


@pytest.fixture(scope="module")
def gateway(start_shared_gateway: Callable[..., Any]) -> Any:
    return start_shared_gateway(agent=None)


def record(gateway: Any, call_id: str) -> dict[str, Any]:
    """The ended call's."""
    found: dict[str, Any] = {}

    def ended() -> bool:
        found.update(httpx.get(f"{gateway.origin}/v1/calls/{call_id}", timeout=5).json())
        return bool(found.get("ended_at"))

    gateway.until(ended, 5.0)
    return found


def turns(call: Mapping[str, Any]) -> list[str]:
    return [turn["caller_text"] for turn in call["turns"] if turn["caller_text"]]


def call(gateway: Any, audio: DeviceAudio, *actions: Action) -> Mapping[str, Any]:
    """The record of a call that the device hangs up."""
    target = gateway.origin.replace("http", "ws")
    report = asyncio.run(place_call(CallOptions(target, actions=[*actions, HangUp()], api_url="auto", audio=audio)))
    assert report.end == "hung_up", report.detail
    assert report.record is not None
    assert (report.record["leg"], report.record["end_reason"]) == ("websocket", "caller_hung_up")
    media = next(event["data"] for event in report.record["events"] if event["kind"] == "media")
    assert media["bad_messages"] == media["over_rate_messages"] == 0
    return report.record


def test_a_device_asks_in_mulaw_and_interrupts(gateway: Any) -> None:
    asked: list[Action] = [
        Say("what are your opening hours"),
        ListenInto(1000),
        Say("I want to confirm my appointment"),
    ]
    said = call(gateway, "mulaw", Listen(), *asked, Listen())
    assert turns(said) == ["what are your opening hours", "i want to confirm my appointment"], said["turns"]
    hours = next(turn for turn in said["turns"] if turn["caller_text"].startswith("what"))
    assert hours["interrupted"]
    assert hours["barge_in_ms"] < 200
    assert 0 < len(hours["agent_text"].split()) < 12
    assert gateway.complaints() == []


def test_a_device_is_understood_in_pcm_at_16_khz(gateway: Any) -> None:
    said = call(gateway, "pcm16-16k", Listen(), Say("what are your opening hours"), Listen())
    assert turns(said) == ["what are your opening hours"], said["turns"]


class Device:
    """By hand: hears everything, and says what it is told to."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket, self.events = socket, list[dict[str, Any]]()
        self.heard_ms = 0
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in self.socket:
                if isinstance(message, bytes):
                    self.heard_ms += 20
                else:
                    self.events.append(json.loads(message))

    async def until(self, happened: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async with asyncio.timeout(WAIT_S):
            while True:
                for event in self.events:
                    if happened(event):
                        return event
                await asyncio.sleep(0.02)

    async def say(self, audio: bytes) -> None:
        """In real time."""
        loop = asyncio.get_running_loop()
        at = loop.time()
        for start in range(0, len(audio), 160):
            await self.socket.send(audio[start : start + 160].ljust(160, b"\xff"))
            at += 0.02
            await asyncio.sleep(max(0.0, at - loop.time()))


def start(token: str) -> str:
    return json.dumps({"type": "start", "token": token, "encoding": "mulaw", "rate_hz": 8000, "acks": False})


def words(text: str) -> bytes:
    pcm = (asyncio.run(synthesize(text, "en-us")) * 32767).astype(np.int16).tobytes()
    return encode(pcm, "mulaw") + b"\xff" * 16_000  # the silence after them


def test_a_token_is_good_once_and_the_resume_token_brings_the_conversation_back(gateway: Any) -> None:
    opened = httpx.post(f"{gateway.origin}/v1/session", json={"device_id": "lamp", "account_id": "home"}).json()
    assert opened["ws_url"] == gateway.origin.replace("http", "ws") + "/ws/audio"
    question = words("what are your opening hours")

    async def refused(token: str) -> tuple[str, int | None]:
        async with connect(opened["ws_url"], proxy=None) as socket:
            await socket.send(start(token))
            told = json.loads(await socket.recv())
            with pytest.raises(ConnectionClosed):
                await socket.recv()
            return told["code"], socket.close_code

    async def talk() -> tuple[dict[str, Any], dict[str, Any]]:
        first = await connect(opened["ws_url"], proxy=None)
        await first.send(start(opened["join_token"]))
        device = Device(first)
        joined = await device.until(lambda e: e["type"] == "joined")
        assert await refused(opened["join_token"]) == ("token_used", 1008)
        await device.say(question)
        await device.until(lambda e: e["type"] == "saying" and "open" in e["text"].lower() and e["over"])
        # Its network is gone without a word; the next one is there before the gateway has noticed.
        async with connect(opened["ws_url"], proxy=None) as second:
            await second.send(start(joined["resume_token"]))
            again = Device(second)
            back = await again.until(lambda e: e["type"] == "joined")
            await asyncio.wait_for(first.wait_closed(), 5)
            assert (first.close_code, first.close_reason) == (1001, "replaced")
            await second.send(json.dumps({"type": "text", "text": "goodbye"}))
            over = await again.until(lambda e: e["type"] == "ended")
            assert over["reason"] == "agent_hung_up"
            await asyncio.wait_for(second.wait_closed(), 5)
            assert second.close_code == 1000
            assert again.heard_ms > 200
        return joined, back

    joined, back = asyncio.run(talk())
    assert (back["call_id"], back["resumed"]) == (joined["call_id"], True)
    assert turns(record(gateway, joined["call_id"])) == ["what are your opening hours", "goodbye"]
    assert gateway.complaints() == []
