"""A contact center's first day, in Debian's Chromium: from the link that `serve` prints to a published agent, a route,
a live call watched, and back to the version before. TRUNKLINE_SHOTS names a folder for pictures."""

import asyncio
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trunkline.testing.caller.commands import CallOptions, HangUp, Listen, Pause, place_call
from trunkline.testing.caller.script import Say

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.e2e

Start = Callable[..., Any]  # conftest.start_gateway
NUMBER = "+14155550100"
SHOTS = os.environ.get("TRUNKLINE_SHOTS")
FLAGS = (
    "--no-sandbox",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)


@pytest.fixture
def gateway(start_gateway: Start) -> Any:
    return start_gateway(agent=None, webrtc__enabled="true")


@pytest.fixture
def page(gateway: Any) -> Iterator[Any]:
    """Signed out; whatever a page's scripts complain of fails the test."""
    said: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        found = browser.new_page(viewport={"width": 1280, "height": 800})
        found.set_default_timeout(20_000)
        found.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        found.on("pageerror", lambda error: said.append(str(error)))
        found.on("dialog", lambda dialog: dialog.accept())
        yield found
        browser.close()
    assert said == []


def shot(page: Any, name: str) -> None:
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"console-{name}.png")


class Call(threading.Thread):
    """A caller who asks for the hours and stays a little."""

    def __init__(self, origin: str) -> None:
        super().__init__(daemon=True)
        asked = (Listen(), Say("What are your opening hours?"), Listen(), Pause(4000), HangUp())
        self._options = CallOptions(f"{origin}/twilio/voice", asked, from_number="+14155550101", to_number=NUMBER)

    def run(self) -> None:
        asyncio.run(place_call(self._options))


def test_the_first_day(gateway: Any, page: Any) -> None:
    origin, expect = gateway.origin, playwright.expect
    link = re.search(r"http://\S+/console/setup\?token=\S+", gateway.log)
    assert link is not None, gateway.log

    # the admin
    page.goto(link[0])
    shot(page, "setup")
    page.fill("input[type=email]", "ann@example.com")
    page.fill("input[type=password]", "correct horse battery staple")
    page.click("main button[type=submit]")

    # a number, an agent
    page.wait_for_url("**/console/start**")
    page.fill("input[name=number]", NUMBER)
    page.fill("input[name=label]", "Front desk")
    page.click("text=Add the number")
    page.check("#example-clinic")
    page.fill("input[name=name]", "reception")
    shot(page, "wizard")
    page.click("text=Publish it")

    # a call from this very page
    page.click("text=Open the telephone")
    telephone = page.frame_locator("iframe.call")
    telephone.locator("#call").click()
    expect(telephone.locator("#talk")).to_contain_text("automated front desk", timeout=30_000)
    telephone.locator("#words").fill("what are your opening hours")
    telephone.locator("#write button").click()
    expect(telephone.locator("#talk")).to_contain_text("eight to five", timeout=30_000)
    shot(page, "first-call")
    telephone.locator("#call").click()

    # the agent is edited: a mistake is told as one types, then it is mended and published
    page.goto(f"{origin}/console/agents/reception")
    script = page.locator("#f-draft")
    text = script.input_value()
    script.fill(text.replace("[[intents]]", "[[intentions]]", 1))
    expect(page.locator("#problems")).to_contain_text("intentions")
    shot(page, "agent-mistake")
    script.fill(text.replace("Elm Street Clinic, this is", "Maple Road Clinic, this is"))
    expect(page.locator("#problems")).not_to_contain_text("intentions")
    page.click("text=Save the draft")
    expect(page.locator("main")).to_contain_text("Maple Road Clinic, this is")
    page.fill("input[name=note]", "we have moved")
    page.click("text=Publish the draft")
    expect(page.locator("h1")).to_contain_text("version 2 answers")
    shot(page, "agent")

    # a route of its own for the number
    page.goto(f"{origin}/console/routes/_new")
    page.fill("input[name=name]", "main")
    page.select_option("select[name='answer.kind']", "agents")
    page.select_option("select[name='answer.agents.0.agent']", "reception")
    shot(page, "route")
    page.get_by_role("button", name="Add", exact=True).click()
    page.goto(f"{origin}/console/numbers/{NUMBER}")
    page.select_option("select[name=route]", "main")
    page.get_by_role("button", name="Save", exact=True).click()
    page.goto(f"{origin}/console/routes/main")
    page.fill("input[name=label]", "Everybody")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("main")).to_contain_text("Version 2, changed")

    # a live call
    page.goto(f"{origin}/console/live")
    page.wait_for_selector("[data-connection].good")
    call = Call(origin)
    call.start()
    row = page.locator("tr[data-call]")
    row.wait_for(timeout=15_000)
    expect(row.locator("[data-words]")).to_contain_text("Maple Road", timeout=20_000)
    call.join(60)
    assert answered(gateway) == "default/reception@2"

    # and back
    page.goto(f"{origin}/console/agents/reception")
    page.click("text=Go back to 1")
    expect(page.locator("h1")).to_contain_text("version 1 answers")
    shot(page, "rolled-back")
    again = Call(origin)
    again.start()
    again.join(60)
    assert answered(gateway) == "default/reception@1"

    page.goto(f"{origin}/console/changes")
    expect(page.locator("main")).to_contain_text("rolled back")
    shot(page, "changes")
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{origin}/console/numbers")
    expect(page.locator("main")).to_contain_text(NUMBER)
    shot(page, "telephone")
    assert not gateway.complaints()


def answered(gateway: Any) -> str:
    """Who had the newest call, as its record says."""
    with sqlite3.connect(gateway.data_dir / "trunkline.db") as connection:
        found = connection.execute("SELECT agent FROM calls WHERE leg = 'twilio' ORDER BY started_at DESC").fetchone()
    return str(found[0])
