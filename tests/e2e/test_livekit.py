"""The AI agent in a LiveKit room: the SDK is LiveKit's own, the server is ours (tests/fakes/livekit_server.py)."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import numpy as np
import pytest

pytest.importorskip("livekit.rtc")
pytest.importorskip("aiortc")

from tests.fakes.livekit_server import LivekitServer, until
from trunkline.media.resample import Resampler
from trunkline.testing.caller.speech import synthesize
from trunkline.testing.ports import lease

pytestmark = pytest.mark.e2e

ME = {"device_id": "kitchen", "account_id": "ann"}
SECRET = "s" * 40


@pytest.fixture(scope="module")
def gateway(start_shared_gateway: Callable[..., Any]) -> tuple[Any, int]:
    """And the port of its LiveKit server."""
    port = lease()
    settings = {"url": f"ws://127.0.0.1:{port}", "api_key": "APItest", "api_secret": SECRET}
    here = start_shared_gateway(agent=None, **{f"livekit__{name}": value for name, value in settings.items()})
    return here, port


def words(text: str) -> bytes:
    pcm16 = (asyncio.run(synthesize(text, "en-us")) * 32767).astype(np.int16).tobytes()
    resampler = Resampler(8000, 48_000)
    return resampler.feed(pcm16) + resampler.flush()


async def opened(gateway: Any) -> Mapping[str, Any]:
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(f"{gateway.origin}/v1/session", json=ME, timeout=10)
    assert answer.status_code == 201, answer.text
    found: Mapping[str, Any] = answer.json()
    return found


def record(gateway: Any, call_id: str, within_s: float = 5.0) -> dict[str, Any]:
    """The ended call's."""
    found: dict[str, Any] = {}

    def ended() -> bool:
        found.update(httpx.get(f"{gateway.origin}/v1/calls/{call_id}", timeout=5).json())
        return bool(found.get("ended_at"))

    gateway.until(ended, within_s)
    return found


def test_the_agent_talks_with_the_participant_of_its_sessions_room(gateway: tuple[Any, int]) -> None:
    here, port = gateway
    hours = words("what are your opening hours")

    async def talk() -> str:
        async with LivekitServer(port, api_secret=SECRET) as server:
            session = await opened(here)
            assert session["livekit_url"] == server.url
            room = server.room(session["session_id"])
            assert room.client is not None, "the agent is there first"
            device = server.device(session["session_id"], "kitchen")
            await device.enter()
            await device.listen()
            await device.say(hours)
            await until(lambda: any(told["type"] == "turn" and told["stt_ms"] for told in device.messages), 20)
            device.send({"type": "nonsense"})
            await until(lambda: any(told["type"] == "mistake" for told in device.messages))
            await device.leave()
            first = str(next(told["call_id"] for told in device.messages if told["type"] == "joined"))
            assert {"joined", "state", "heard", "saying", "turn"} <= {told["type"] for told in device.messages}

            back = server.device(session["session_id"], "kitchen")
            await back.enter()
            await until(lambda: bool(back.messages))
            assert back.messages[0]["resumed"] is True
            assert back.messages[0]["call_id"] != first
            async with httpx.AsyncClient(trust_env=False) as http:
                url = f"{here.origin}/v1/session/{session['session_id']}?account_id=ann"
                assert (await http.delete(url)).status_code == 204
            await until(lambda: room.client is None)
            assert room.clients[0].left
            assert back.messages[-1] == {"type": "ended", "reason": "caller_hung_up"}
            return first

    call = record(here, asyncio.run(talk()))
    assert [turn["caller_text"] for turn in call["turns"] if turn["caller_text"]] == ["what are your opening hours"]
    assert (call["leg"], call["end_reason"]) == ("livekit", "caller_hung_up")
    assert here.complaints() == []


def test_a_session_is_opened_without_a_room_while_the_server_is_away(gateway: tuple[Any, int]) -> None:
    here, _ = gateway
    session = asyncio.run(opened(here))
    assert session["livekit_refused"]["code"] == "livekit_away"
    assert "livekit_token" not in session
    assert session["join_token"]
    assert any("the agent cannot join its LiveKit rooms" in line for line in here.complaints())
    assert SECRET not in here.log
