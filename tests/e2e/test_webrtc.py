"""Browsers' calls: by a WebRTC client that is not ours, over good and bad networks, and what is no call at all."""

import asyncio
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import numpy as np
import pytest

pytest.importorskip("aiortc")


from tests.e2e.browser import Browser
from trunkline.testing.caller.commands import Action, CallOptions, HangUp, Keys, Listen, ListenInto, Say, place_call
from trunkline.testing.caller.speech import synthesize
from trunkline.testing.lossy import Impairment, UdpRelay

pytestmark = pytest.mark.e2e

Start = Callable[..., Any]
SDP = {"Content-Type": "application/sdp"}


def words(text: str) -> bytes:
    return (asyncio.run(synthesize(text, "en-us")) * 32767).astype(np.int16).tobytes()


def record(gateway: Any, call_id: str, within_s: float = 5.0) -> dict[str, Any]:
    """The ended call's."""
    found: dict[str, Any] = {}

    def ended() -> bool:
        found.update(httpx.get(f"{gateway.origin}/v1/calls/{call_id}", timeout=5).json())
        return bool(found.get("ended_at"))

    gateway.until(ended, within_s)
    return found


def turns(call: Mapping[str, Any]) -> list[str]:
    return [turn["caller_text"] for turn in call["turns"] if turn["caller_text"]]


def media(call: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(event["data"] for event in call["events"] if event["kind"] == "media")
    return found


def test_a_client_that_is_not_ours_asks_and_is_answered(start_gateway: Start) -> None:
    gateway = start_gateway(agent=None, webrtc__enabled="true")
    hours, goodbye = words("what are your opening hours"), words("goodbye")

    async def talk() -> str:
        async with Browser(f"{gateway.origin}/whip") as browser:
            await browser.listen()
            await browser.say(hours)
            await browser.listen()
            await browser.say(goodbye)
            await browser.until(lambda: any(e["type"] == "ended" for e in browser.events), 20)
            await browser.until(lambda: browser.peer.connectionState == "closed", 5)
            assert browser.events[0]["type"] == "joined"
            return browser.call_id

    call = record(gateway, asyncio.run(talk()))
    assert turns(call) == ["what are your opening hours", "goodbye"]
    assert (call["leg"], call["end_reason"]) == ("webrtc", "agent_hung_up")
    counted = media(call)
    assert counted["lost_packets"] == counted["undecodable_packets"] == 0
    assert counted["received_packets"] > 300
    assert gateway.complaints() == []


def only(sdp: str, port: int) -> str:
    """The answer with that port of this machine in the place of the gateway's own addresses."""
    told = f"a=candidate:1 1 udp 2130706431 127.0.0.1 {port} typ host\r\na=end-of-candidates"
    lines = [line for line in sdp.split("\r\n") if not line.startswith("a=candidate")]
    return "\r\n".join(told if line == "a=end-of-candidates" else line for line in lines)


@pytest.mark.parametrize(
    ("impairment", "least"),
    [
        pytest.param(Impairment(loss=0.02), 3, marks=pytest.mark.show),
        (Impairment(loss=0.05, burst=3), 2),
        pytest.param(Impairment(jitter_ms=50), 3, marks=pytest.mark.show),
        (Impairment(0.02, 1, 50), 2),
    ],
    ids=["2 % random", "5 % in bursts", "50 ms jitter", "2 % and 50 ms"],
)
def test_words_are_understood_on_a_bad_network(start_gateway: Start, impairment: Impairment, least: int) -> None:
    """The caller's packets suffer; the agent's voice has no gap over 60 ms for it. `least`: of three questions; where
    three packets in a row are gone on average, a word of a short one can be gone as a whole."""
    gateway = start_gateway(agent=None, webrtc__enabled="true")
    hours, where = words("what are your opening hours"), words("where is the clinic")
    relays: list[UdpRelay] = []

    async def through(sdp: str) -> str:
        found = re.search(r"udp \d+ 127\.0\.0\.1 (\d+) typ host", sdp)
        assert found is not None
        relays.append(await UdpRelay(("127.0.0.1", int(found[1])), up=impairment, seed=3).__aenter__())
        return only(sdp, relays[0].port)

    async def talk() -> tuple[str, float]:
        async with Browser(f"{gateway.origin}/whip", answer=through) as browser:
            await browser.listen()
            gaps = []
            for phrase in (hours, where, hours):
                start = len(browser.heard)
                await browser.say(phrase)
                await browser.listen()
                gaps.append(browser.largest_gap_s(start))
            await asyncio.to_thread(httpx.delete, browser.location)
        await relays[0].__aexit__()
        return browser.call_id, max(gaps)

    call_id, gap_s = asyncio.run(talk())
    call = record(gateway, call_id)
    counted, weather = media(call), relays[0].up
    asked = ["what are your opening hours", "where is the clinic", "what are your opening hours"]
    understood = [text for text in turns(call) if text in asked]
    assert len(understood) >= least, (call["turns"], counted)
    if impairment.loss:
        assert weather.lost > 5
        assert counted["lost_packets"] + counted["late_packets"] >= weather.lost // 2
    assert gap_s <= 0.06


def test_our_own_caller_keys_interrupts_and_hangs_up(start_gateway: Start) -> None:
    gateway = start_gateway(agent=None, webrtc__enabled="true")
    actions: list[Action] = [
        Listen(),
        Say("what are your opening hours"),
        ListenInto(1000),
        Say("I want to confirm my appointment"),
        Listen(),
        Keys("4711"),
        Listen(),
        HangUp(),
    ]
    report = asyncio.run(place_call(CallOptions(f"whip:{gateway.origin}", actions=actions, api_url="auto")))
    assert report.end == "hung_up", report.detail
    assert report.record is not None
    assert turns(report.record) == ["what are your opening hours", "i want to confirm my appointment", "4711"]
    hours = next(t for t in report.record["turns"] if t["caller_text"].startswith("what"))
    assert hours["interrupted"]
    assert hours["barge_in_ms"] < 200
    assert 0 < len(hours["agent_text"].split()) < 12
    assert report.record["end_reason"] == "caller_hung_up"


def offer_of(ufrag: str = "abcd") -> str:
    """Nobody is behind it."""
    fingerprint = ":".join(["AB"] * 32)
    return (
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n"
        "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=rtcp-mux\r\na=sendrecv\r\n"
        f"a=ice-ufrag:{ufrag}\r\na=ice-pwd:{'p' * 22}\r\na=setup:actpass\r\na=fingerprint:sha-256 {fingerprint}\r\n"
        "a=rtpmap:111 opus/48000/2\r\n"
    )


def test_ice_that_never_completes_is_given_up_and_recorded(start_gateway: Start) -> None:
    gateway = start_gateway(agent=None, webrtc__enabled="true", webrtc__connect_timeout_s="2")
    answered = httpx.post(f"{gateway.origin}/whip", content=offer_of(), headers=SDP)
    assert answered.status_code == 201
    where = gateway.origin + answered.headers["location"]
    call_id = httpx.get(f"{gateway.origin}/v1/calls").json()["calls"][0]["id"]
    call = record(gateway, call_id)
    assert (call["end_reason"], call["end_detail"]) == ("never_started", "ICE did not complete within 2 s")
    assert httpx.delete(where).status_code == 404


FLOOD = """
import asyncio, sys, httpx

async def main():
    url, body = sys.argv[1:]
    async with httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=100), timeout=120) as http:
        async def offer():
            answer = await http.post(url, content=body, headers={"Content-Type": "application/sdp"})
            return answer.status_code, answer.headers.get("retry-after", "")
        for answer in await asyncio.gather(*(offer() for _ in range(1000))):
            print(*answer)

asyncio.run(main())
"""


def test_a_thousand_offers_at_once_leave_the_call_that_is_there_alone(start_gateway: Start) -> None:
    gateway = start_gateway(
        agent=None, webrtc__enabled="true", webrtc__connect_timeout_s="2", webrtc__max_connecting="20"
    )
    url = f"{gateway.origin}/whip"
    said = words("what are your opening hours")

    async def talk() -> tuple[str, list[str]]:
        async with Browser(url) as browser:
            await browser.listen()
            flood = await asyncio.create_subprocess_exec(
                sys.executable, "-c", FLOOD, url, offer_of(), stdout=asyncio.subprocess.PIPE
            )
            await browser.say(said)  # in the midst of it
            await browser.listen()
            await asyncio.to_thread(httpx.delete, browser.location)
        return browser.call_id, (await flood.communicate())[0].decode().split("\n")[:-1]

    call_id, answers = asyncio.run(talk())
    taken = answers.count("201 ")
    assert len(answers) == 1000
    assert 0 < taken <= 200  # 20 at a time, each for 2 s
    assert answers.count("503 2") == 1000 - taken
    assert turns(record(gateway, call_id)) == ["what are your opening hours"]
    gateway.until(lambda: sockets(gateway) < 15, 15)
    assert gateway.complaints() == []


def sockets(gateway: Any) -> int:
    """UDP ones of the process."""
    count = 0
    for name in os.listdir(f"/proc/{gateway.process.pid}/fd"):
        try:
            count += os.readlink(f"/proc/{gateway.process.pid}/fd/{name}").startswith("socket:")
        except OSError:
            pass
    return count


def test_a_browser_that_dies_is_noticed(start_gateway: Start) -> None:
    gateway = start_gateway(agent=None, webrtc__enabled="true", webrtc__media_timeout_s="3")

    async def talk() -> str:
        relays: list[UdpRelay] = []

        async def through(sdp: str) -> str:
            found = re.search(r"udp \d+ 127\.0\.0\.1 (\d+) typ host", sdp)
            assert found is not None
            relays.append(await UdpRelay(("127.0.0.1", int(found[1]))).__aenter__())
            return only(sdp, relays[0].port)

        async with Browser(f"{gateway.origin}/whip", answer=through) as browser:
            await browser.listen()
            await relays[0].__aexit__()  # the network is gone, without a goodbye
            await asyncio.sleep(5)
        return browser.call_id

    call = record(gateway, asyncio.run(talk()))
    assert (call["end_reason"], call["end_detail"]) == ("media_lost", "no media")
