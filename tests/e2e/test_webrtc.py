"""Browsers' calls: by a WebRTC client that is not ours, over good and bad networks, and what is no call at all."""

import asyncio
import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

pytest.importorskip("aiortc")


from tests.e2e.browser import Browser
from trunkline.settings.webrtc import WebRtc
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
        pytest.param(Impairment(loss=0.05, burst=3), 2, marks=pytest.mark.show),
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


@dataclass(frozen=True)
class Held:
    """By a process."""

    files: int
    sockets: int
    udp: int
    rss_mb: int


def gauge(gateway: Any, name: str) -> float:
    metrics = httpx.get(f"{gateway.origin}/metrics", timeout=5).text
    return float(next(line.split()[-1] for line in metrics.splitlines() if line.startswith(name + " ")))


def held(pid: int) -> Held:
    links = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            links.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    inodes = {link[8:-1] for link in links if link.startswith("socket:")}
    rows = [*Path("/proc/net/udp").read_text().splitlines()[1:], *Path("/proc/net/udp6").read_text().splitlines()[1:]]
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    udp = len(inodes & {row.split()[9] for row in rows})
    return Held(len(links), len(inodes), udp, pages * os.sysconf("SC_PAGE_SIZE") >> 20)


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
    assert WebRtc().connect_timeout_s == 10


FLOOD = """
import asyncio, sys

async def main():
    host, port, body = sys.argv[1:]
    request = (
        f"POST /whip HTTP/1.1\\r\\nHost: {host}:{port}\\r\\nContent-Type: application/sdp\\r\\n"
        f"Connection: close\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n{body}"
    ).encode()
    free = asyncio.Semaphore(300)

    async def offer():
        async with free:
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(request)
            answer = (await asyncio.wait_for(reader.read(), 60)).decode().lower()
            writer.close()
            return answer.split()[1] + " " + answer.partition("retry-after: ")[2].partition("\\r")[0]

    for answer in await asyncio.gather(*(offer() for _ in range(1000))):
        print(answer)

asyncio.run(main())
"""


def test_a_thousand_offers_at_once_leave_the_call_that_is_there_alone(start_gateway: Start) -> None:
    """Nor does anything of them stay: no socket, no task, no memory to speak of."""
    gateway = start_gateway(
        agent=None, webrtc__enabled="true", webrtc__connect_timeout_s="2", webrtc__max_connecting="20"
    )
    url, pid = f"{gateway.origin}/whip", gateway.process.pid
    address = urlsplit(gateway.origin)
    said = words("what are your opening hours")
    assert httpx.post(url, content=offer_of(), headers=SDP).status_code == 201  # what is loaded once is loaded
    record(gateway, httpx.get(f"{gateway.origin}/v1/calls").json()["calls"][0]["id"])
    before, tasks_before = held(pid), gauge(gateway, "trunkline_tasks")

    async def talk() -> tuple[str, list[str], float]:
        async with Browser(url) as browser:
            await browser.listen()
            begun = time.monotonic()
            flood = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", FLOOD, str(address.hostname), str(address.port), offer_of()),
                stdout=asyncio.subprocess.PIPE,
            )
            answers = asyncio.create_task(flood.communicate())
            await browser.say(said)  # in the midst of it
            await browser.listen()
            told = (await answers)[0].decode().split("\n")[:-1]
            took_s = time.monotonic() - begun
            await asyncio.to_thread(httpx.delete, browser.location)
        return browser.call_id, told, took_s

    call_id, answers, took_s = asyncio.run(talk())
    taken = answers.count("201 ")
    assert len(answers) == 1000
    assert 0 < taken <= 20 * (took_s / 2 + 1)  # 20 at a time, each for 2 s
    assert answers.count("503 2") == 1000 - taken
    assert turns(record(gateway, call_id)) == ["what are your opening hours"]
    gateway.until(lambda: held(pid).sockets <= before.sockets, 15)
    gateway.until(lambda: gauge(gateway, "trunkline_tasks") <= tasks_before, 5)
    after = held(pid)
    print(f"1,000 offers in {took_s:.1f} s, {taken} taken; before {before}, after {after}")
    assert after.udp <= before.udp
    assert after.files <= before.files + 2
    assert after.rss_mb < before.rss_mb + 60
    assert gateway.complaints() == []


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
