"""The call page, in the browser a person would use: its microphone is a WAV, its transcript is read from the screen."""

import asyncio
import contextlib
import functools
import threading
import wave
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.chromium import Page, browsing
from tests.e2e.redis_server import redis_server
from tests.e2e.test_webrtc import record
from trunkline.agents.local.voice import synthesize
from trunkline.testing.caller.commands import Action, CallOptions, HangUp, Listen, Say, place_call
from trunkline.testing.ports import lease

pytestmark = pytest.mark.e2e

Start = Callable[..., Any]
LEAD_S = 14.0  # the page opens, the call is placed, the agent greets


def microphone(file: Path, words: str, tail_s: float = 30.0) -> Path:
    """The words, and once more for ears that have not understood: the browser's noise suppression is at work."""
    pcm = synthesize(words, rate_hz=48_000) if words else b""
    pcm += bytes(2 * 12 * 48_000) + pcm
    with wave.open(str(file), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(48_000)
        out.writeframes(bytes(2 * int(LEAD_S * 48_000)) + pcm + bytes(2 * int(tail_s * 48_000)))
    return file


def calls(gateway: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{gateway.origin}/v1/calls", timeout=5).json()["calls"]
    return found


@pytest.fixture(scope="module")
def site() -> str:
    """The origin of another site, which may show the page."""
    return f"http://127.0.0.1:{lease()}"


@pytest.fixture(scope="module")
def gateway(start_shared_gateway: Start, site: str) -> Any:
    """The clinic, for all tests but one. Two lines."""
    return start_shared_gateway(agent=None, limits__max_calls="2", devices__origins=site, webrtc__enabled="true")


@contextlib.contextmanager
def hosting(origin: str, body: str) -> Iterator[None]:
    """A site whose only page has this body."""

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(f"<!doctype html><body>{body}".encode())

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", int(origin.rpartition(":")[2])), Site)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def one_call(gateway: Any) -> Iterator[dict[str, Any]]:
    """Filled, afterwards, with the record of the call that was made meanwhile."""
    before = {call["id"] for call in calls(gateway)}
    call: dict[str, Any] = {}
    yield call
    (made,) = {call["id"] for call in calls(gateway)} - before
    call.update(record(gateway, made))


def has(selector: str, text: str) -> str:
    return f"[...document.querySelectorAll('{selector}')].some(each => each.textContent.includes('{text}'))"


async def said(page: Page, who: str) -> list[str]:
    """What the transcript has of them, without notes."""
    lines: list[str] = await page.value(
        f"[...document.querySelectorAll('#talk li.{who}')].map(li => [...li.childNodes]"
        ".filter(n => n.nodeName !== 'SMALL').map(n => n.textContent).join(''))"
    )
    return lines


STATE = "document.getElementById('state').textContent"


def test_a_call_from_the_page_is_understood_answered_written_down_and_heard(gateway: Any, tmp_path: Path) -> None:
    sound = microphone(tmp_path / "microphone.wav", "what are your opening hours")

    async def talk() -> None:
        async with browsing(gateway.origin, tmp_path / "profile", sound) as page:
            assert await page.value("document.title") == "Call · Trunkline"
            await page.value(
                "window.loudest = 0; document.getElementById('voice').addEventListener('playing', () => {"
                " const c = new AudioContext(), a = c.createAnalyser(), d = new Float32Array(2048);"
                " c.createMediaStreamSource(document.getElementById('voice').srcObject).connect(a);"
                " setInterval(() => { a.getFloatTimeDomainData(d);"
                " for (const s of d) window.loudest = Math.max(window.loudest, Math.abs(s)); }, 50); })"
            )
            await page.click("#call")
            await page.until("document.querySelector('#talk li.agent')", 30)
            await page.until(has("#talk li.agent", "Our hours are"), 60)
            await asyncio.sleep(1.5)  # the picture in docs/webrtc.md is this one
            await page.picture(tmp_path / "call-page.png")
            assert (await said(page, "caller"))[-1] == "what are your opening hours"
            assert await page.value("window.loudest") > 0.05
            await page.click("#stop")  # the rest of it is struck out
            await page.until("document.querySelector('#talk li.agent s')", 5)
            await page.until("document.getElementById('state').dataset.state === 'listening'", 5)
            await page.click("#mute")
            await page.value("document.getElementById('words').value = 'goodbye'")
            await page.click("#write button")
            await page.until(f"{STATE} === 'The agent has hung up.'", 30)
            assert await page.value("document.getElementById('call').textContent") == "Call"
            assert (await said(page, "caller"))[-1] == "goodbye"

    with one_call(gateway) as call:
        asyncio.run(talk())
    asked = [turn["caller_text"] for turn in call["turns"] if turn["caller_text"] and turn["understood"]]
    assert asked[-2:] == ["what are your opening hours", "goodbye"]
    assert (call["leg"], call["end_reason"]) == ("webrtc", "agent_hung_up")
    assert any(turn["interrupted"] for turn in call["turns"])
    assert gateway.complaints() == []


def test_where_udp_is_blocked_the_page_calls_over_the_websocket(gateway: Any, tmp_path: Path) -> None:
    sound = microphone(tmp_path / "microphone.wav", "what are your opening hours")

    async def talk() -> None:
        blocked = "--webrtc-ip-handling-policy=disable_non_proxied_udp"
        async with browsing(gateway.origin, tmp_path / "profile", sound, blocked) as page:
            await page.click("#call")
            await page.until(has("#talk li.tool", "UDP is blocked: going over the WebSocket."), 10)
            await page.until(has("#talk li.agent", "Our hours are"), 60)
            assert (await said(page, "caller"))[-1] == "what are your opening hours"
            await asyncio.sleep(1.5)
            await page.picture(tmp_path / "fallback.png")
            await page.click("#stop")
            await page.until("document.querySelector('#talk li.agent s')", 5)
            heard = await page.value("document.querySelector('#talk li.agent:last-of-type .ahead').textContent")
            assert "from" in heard or "to" in heard
            await page.click("#call")
            await page.until(f"{STATE} === 'You have hung up.'", 5)

    with one_call(gateway) as call:
        asyncio.run(talk())
    assert (call["leg"], call["end_reason"]) == ("websocket", "caller_hung_up")
    (cut,) = [turn for turn in call["turns"] if turn["caller_text"] == "what are your opening hours"]
    assert cut["interrupted"]
    assert gateway.complaints() == []


def test_every_refusal_is_said_in_words(gateway: Any, tmp_path: Path) -> None:
    problem = "document.getElementById('problem').textContent"

    async def talk() -> list[str]:
        found = []
        async with browsing(gateway.origin, tmp_path / "profile") as page:
            actions: list[Action] = [Listen(), Say("what are your opening hours"), Listen(), HangUp()]
            before = len(calls(gateway))
            others = [asyncio.create_task(place_call(CallOptions(gateway.origin, actions))) for _ in range(2)]
            await asyncio.to_thread(gateway.until, lambda: len(calls(gateway)) == before + 2, 10)
            await page.click("#call")
            found.append(await page.until(problem, 10))
            for other in others:
                other.cancel()
            await page.value("location.hash = '#token=abc'; location.reload()")
            await asyncio.sleep(0.5)
            await page.until("document.readyState === 'complete'")
            await page.click("#call")
            found.append(await page.until(problem, 10))
            await page.value(
                "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotAllowedError'))"
            )
            await page.click("#call")
            found.append(await page.until(f"{problem}.includes('icrophone') && {problem}", 20))
        return found

    full, damaged, denied = asyncio.run(talk())
    assert full.startswith("All lines are busy.")
    assert damaged.startswith("This invitation is damaged.")
    assert denied.startswith("The microphone is not allowed.")


def test_embed_js_shows_the_page_in_a_site_that_may_and_in_no_other(gateway: Any, site: str, tmp_path: Path) -> None:
    script = f'<script src="{gateway.origin}/embed.js" async></script>'

    async def talk(origin: str, number: int, then: Callable[[Page], Awaitable[Any]]) -> None:
        with hosting(origin, script):
            async with browsing(origin, tmp_path / f"profile{number}") as page:
                await page.until("document.querySelector('iframe')")
                await then(page)

    async def calls_within(page: Page) -> None:
        frame = await page.frame()
        await page.until("document.readyState === 'complete' && document.getElementById('call')", within=frame)
        await page.value("document.getElementById('call').click()", within=frame)
        await page.until("!document.getElementById('write').hidden", 20, within=frame)
        await page.value("document.getElementById('call').click()", within=frame)

    async def shows_nothing(page: Page) -> None:
        frame = await page.frame()
        await page.until("location.href.startsWith('chrome-error:')", 10, within=frame)

    with one_call(gateway) as call:
        asyncio.run(talk(site, 0, calls_within))
    assert (call["leg"], call["end_reason"]) == ("webrtc", "caller_hung_up")
    asyncio.run(talk(f"http://127.0.0.1:{lease()}", 1, shows_nothing))


def test_a_page_whose_gateway_dies_comes_back_and_goes_on_where_it_was(start_gateway: Start, tmp_path: Path) -> None:
    pytest.importorskip("redis")
    with redis_server(tmp_path) as redis:
        first = start_gateway(redis_url=redis.url, webrtc__enabled="true")
        me = {"device_id": "kitchen", "account_id": "ann"}
        session = httpx.post(f"{first.origin}/v1/session", json=me, timeout=10).json()

        async def talk() -> None:
            url = f"{first.origin}/#token={session['join_token']}"
            async with browsing(url, tmp_path / "profile", microphone(tmp_path / "m.wav", "")) as page:
                await page.click("#call")
                await page.until(has("#talk li.agent", "word9"), 20)
                await page.until("document.getElementById('state').dataset.state === 'listening'", 20)
                await asyncio.sleep(1)  # what was said is written to Redis within half a second
                first.kill()
                await page.until(f"{STATE}.startsWith('The connection was lost. Trying')", 10)
                start = functools.partial(start_gateway, redis_url=redis.url, webrtc__enabled="true")
                again = await asyncio.to_thread(start, http__port=str(first.port))
                await page.until(has("#talk li.tool", "Connected again: resumed."), 5)
                assert len(await said(page, "agent")) >= 1  # and what was said before is still there
                await page.until(has("#talk li.agent", "word9"), 1)
                await page.click("#call")
                await page.until(f"{STATE} === 'You have hung up.'", 5)
                assert again.complaints() == []

        asyncio.run(talk())


def test_who_asks_for_no_html_gets_the_plain_index_and_frames_are_for_known_sites(gateway: Any, site: str) -> None:
    plain = httpx.get(gateway.origin, timeout=5)
    assert plain.headers["content-type"].startswith("text/plain")
    assert "trunkline call" in plain.text
    page = httpx.get(gateway.origin, headers={"Accept": "text/html"}, timeout=5)
    assert page.headers["content-security-policy"].endswith(f"frame-ancestors 'self' {site}")
    assert "unsafe" not in page.headers["content-security-policy"]
    for file in ("call.js", "ways.js", "sound.js", "call.css", "embed.js"):
        assert httpx.get(f"{gateway.origin}/{file}", timeout=5).status_code == 200
