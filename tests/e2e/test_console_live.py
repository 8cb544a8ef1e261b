"""A call as the console shows it: Chromium watches it live, and then its record. A real gateway, a real caller."""

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trunkline.testing.caller.commands import CallOptions, CallReport, HangUp, Listen, Pause, place_call
from trunkline.testing.caller.script import Say

playwright = pytest.importorskip("playwright.async_api")
pytestmark = pytest.mark.e2e

Start = Callable[..., Any]  # conftest.start_gateway
CALL_S = 90.0
SHOTS = os.environ.get("TRUNKLINE_SHOTS")
"""A folder for screenshots."""


@pytest.fixture
def gateway(start_gateway: Start) -> Any:
    return start_gateway(agent=None, record="true")


async def signed_in(page: Any, gateway: Any) -> None:
    link = re.search(r"http://\S+/console/setup\?token=\S+", gateway.log)
    assert link is not None, gateway.log
    await page.goto(link[0])
    await page.fill("input[type=email]", "ann@example.com")
    await page.fill("input[type=password]", "correct horse battery staple")
    await page.click("main button[type=submit]")
    await page.wait_for_selector("#nav")


async def shot(page: Any, name: str) -> None:
    if SHOTS:
        await page.screenshot(path=Path(SHOTS) / f"{name}.png")


async def watched(gateway: Any) -> CallReport:
    said: list[str] = []
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = await browser.new_page(viewport={"width": 1280, "height": 800})
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        await signed_in(page, gateway)
        await page.goto(f"{gateway.origin}/console/live")
        await page.wait_for_selector("[data-connection].good")
        assert await page.locator("tr[data-call]").count() == 0

        actions = (
            Listen(), Say("What are your opening hours?"), Listen(), Say("Where is the clinic?"), Listen(),
            Pause(3000), HangUp(),
        )  # fmt: skip
        options = CallOptions(f"{gateway.origin}/twilio/voice", actions, from_number="+14155550101")
        call = asyncio.create_task(place_call(options))

        row = page.locator("tr[data-call]")
        await row.wait_for(timeout=20_000)  # it came by itself
        assert "+14155550101" in await row.inner_text()
        await playwright.expect(row.locator("[data-state]")).to_have_text("talking", timeout=10_000)
        await playwright.expect(row.locator("[data-words]")).to_contain_text("automated front desk", timeout=20_000)
        await row.locator("a").click()
        await playwright.expect(page.locator("[data-said]")).to_contain_text("opening hours", timeout=30_000)
        await playwright.expect(page.locator("[data-said]")).to_contain_text("opposite the library", timeout=40_000)
        assert await page.locator("[data-happened] li").count() > 0
        await shot(page, "console-live")
        over = page.locator("[data-over]")
        await over.wait_for(timeout=30_000)
        assert "the caller hung up" in await over.inner_text()
        assert not await page.locator("[data-hands]").first.is_visible()
        report = await call

        await over.locator("a").click()
        timeline = page.locator(".timeline")
        await playwright.expect(timeline).to_contain_text("what are your opening hours")
        await playwright.expect(timeline).to_contain_text("over: the caller hung up")
        assert await page.locator(".timeline svg rect").count() > 2
        await shot(page, "console-call")
        await page.evaluate("document.querySelector('audio').load()")
        await page.evaluate("document.querySelector('audio').play().catch(() => {})")
        for _ in range(100):
            if await page.evaluate("document.querySelector('audio').duration > 5"):
                break
            await asyncio.sleep(0.1)
        else:
            raise AssertionError("the recording is not played")
        await page.evaluate("document.querySelector('audio').currentTime = 5")
        await page.reload()
        await playwright.expect(timeline).to_contain_text("recording played")
        await page.goto(f"{gateway.origin}/console/calls?number=%2B14155550101")
        await playwright.expect(page.locator("table.calls tbody tr")).to_have_count(1)
        await page.goto(f"{gateway.origin}/console/")
        await page.wait_for_selector("[data-chart] canvas", state="attached")
        await browser.close()
    assert said == []
    assert not gateway.complaints()
    return report


def test_a_call_is_watched_as_it_goes_and_read_when_it_is_over(gateway: Any) -> None:
    report = asyncio.run(asyncio.wait_for(watched(gateway), CALL_S))
    assert report.end == "hung_up"
