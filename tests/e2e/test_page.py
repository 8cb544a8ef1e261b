"""The call page, in the browser a person would use: its microphone is a WAV, its transcript is read from the screen."""

import asyncio
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.chromium import Page, browsing
from tests.e2e.test_webrtc import record
from trunkline.agents.local.voice import synthesize
from trunkline.testing.caller.commands import Action, CallOptions, HangUp, Listen, Say, place_call

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


def only_call(gateway: Any) -> dict[str, Any]:
    """Once it has ended."""
    (one,) = calls(gateway)
    return record(gateway, one["id"])


def has(selector: str, text: str) -> str:
    return f"[...document.querySelectorAll('{selector}')].some(each => each.textContent.includes('{text}'))"


async def said(page: Page, who: str) -> list[str]:
    """What the transcript has of them, without notes."""
    lines: list[str] = await page.value(
        f"[...document.querySelectorAll('#talk li.{who}')].map(li => [...li.childNodes]"
        ".filter(n => n.nodeName !== 'SMALL').map(n => n.textContent).join(''))"
    )
    return lines


def test_a_call_from_the_page_is_understood_answered_written_down_and_heard(
    start_gateway: Start, tmp_path: Path
) -> None:
    gateway = start_gateway(agent=None, webrtc__enabled="true")
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
            await page.click("#mute")
            await page.until(has("#talk li.agent small", "(end of turn"), 30)
            await page.value("document.getElementById('words').value = 'goodbye'")
            await page.click("#write button")
            ended = "document.getElementById('state').textContent === 'The agent has hung up.'"
            await page.until(ended, 30)
            assert await page.value("document.getElementById('call').textContent") == "Call"
            assert (await said(page, "caller"))[-1] == "goodbye"

    asyncio.run(talk())
    call = only_call(gateway)
    asked = [turn["caller_text"] for turn in call["turns"] if turn["caller_text"] and turn["understood"]]
    assert asked[-2:] == ["what are your opening hours", "goodbye"]
    assert (call["leg"], call["end_reason"]) == ("webrtc", "agent_hung_up")
    assert gateway.complaints() == []


def test_the_page_interrupts_the_agent_by_its_button_and_hangs_up(start_gateway: Start, tmp_path: Path) -> None:
    gateway = start_gateway(agent=None, webrtc__enabled="true")

    async def talk() -> None:
        sound = microphone(tmp_path / "microphone.wav", "", 60.0)
        async with browsing(gateway.origin, tmp_path / "profile", sound) as page:
            await page.click("#call")
            await page.until("!document.getElementById('write').hidden", 30)
            await page.until("!document.getElementById('stop').hidden", 20)
            await asyncio.sleep(0.8)
            await page.click("#stop")
            await page.until("document.querySelector('#talk li.agent s')", 5)
            assert await page.until("document.getElementById('state').dataset.state === 'listening'", 5)
            await page.click("#call")
            await page.until("document.getElementById('state').textContent === 'You have hung up.'", 5)

    asyncio.run(talk())
    call = only_call(gateway)
    assert call["end_reason"] == "caller_hung_up"
    assert any(turn["interrupted"] for turn in call["turns"])


def test_every_refusal_is_said_in_words(start_gateway: Start, tmp_path: Path) -> None:
    gateway = start_gateway(webrtc__enabled="true", limits__max_calls="1")

    async def talk() -> tuple[str, str]:
        async with browsing(gateway.origin, tmp_path / "profile") as page:
            actions: list[Action] = [Listen(), Say("what are your opening hours"), Listen(), HangUp()]
            other = asyncio.create_task(place_call(CallOptions(gateway.origin, actions)))
            await asyncio.to_thread(gateway.until, lambda: calls(gateway) != [], 10)
            await page.click("#call")
            full = await page.until("document.getElementById('problem').textContent", 10)
            other.cancel()
            await page.value(
                "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotAllowedError'))"
            )
            await page.click("#call")
            denied = await page.until("document.getElementById('problem').textContent", 20)
        return full, denied

    full, denied = asyncio.run(talk())
    assert full.startswith("All lines are busy.")
    assert denied.startswith("The microphone is not allowed.")


def test_who_asks_for_no_html_gets_the_plain_index_and_frames_are_for_known_sites(start_gateway: Start) -> None:
    gateway = start_gateway(webrtc__enabled="true", devices__origins="https://clinic.example")
    plain = httpx.get(gateway.origin, timeout=5)
    assert plain.headers["content-type"].startswith("text/plain")
    assert "trunkline call" in plain.text
    page = httpx.get(gateway.origin, headers={"Accept": "text/html"}, timeout=5)
    assert page.headers["content-security-policy"].endswith("frame-ancestors 'self' https://clinic.example")
    assert "unsafe" not in page.headers["content-security-policy"]
    for file in ("call.js", "call.css", "embed.js"):
        assert httpx.get(f"{gateway.origin}/{file}", timeout=5).status_code == 200
