"""First paint of the console's pages of calls among a million: bench/desk_pages.py [--calls N] [--folder DIR] [--json]
[--shots DIR].

Fills a SQLite database as bench/desk_calls.py does (ending now), starts a real gateway on it, makes the first admin by
its link, and opens each page ROUNDS times in Debian's Chromium on loopback. First paint is the browser's own
(first-contentful-paint); `drawn` is when all charts are. Needs playwright and /usr/bin/chromium.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import desk_calls
from playwright.sync_api import Page, sync_playwright

from trunkline.store.engine import Database, database_url

ROUNDS = 15
READY_S = 60
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def filled(folder: Path, count: int) -> None:
    desk_calls.END = datetime.now(UTC)
    desk_calls.BEGIN = desk_calls.END - timedelta(days=desk_calls.DAYS)

    async def made() -> None:
        database = Database(database_url(None, folder))
        await database.upgrade()
        await database.close()

    asyncio.run(made())
    desk_calls.fill_sqlite(folder / "trunkline.db", count)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def gateway(folder: Path) -> Iterator[str]:
    """Its link for the first admin."""
    settings = {"HTTP__PORT": str(free_port()), "DATA_DIR": str(folder), "SIP__ENABLED": "false"}
    settings |= {"WEBRTC__ENABLED": "false", "SPEECH__WORKERS": "1", "LIMITS__WATCHDOG": "false"}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}
    log_path = folder / "gateway.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "trunkline.cli", "serve"],
            env=clean | {f"TRUNKLINE_{name}": value for name, value in settings.items()},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + READY_S
        while (link := re.search(r"http://\S+/console/setup\?token=\S+", log_path.read_text())) is None:
            if time.monotonic() > deadline or process.poll() is not None:
                raise SystemExit(log_path.read_text()[-2000:])
            time.sleep(0.1)
        yield link[0]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def opened(page: Page, address: str, *, charts: bool) -> dict[str, float]:
    page.goto(address, wait_until="load")
    while (paint_ms := page.evaluate(PAINT)) is None:
        page.wait_for_timeout(20)
    found = {"paint_ms": float(paint_ms)}
    if charts:
        page.wait_for_selector("[data-chart] canvas", state="attached")
        found["drawn_ms"] = float(page.evaluate("performance.now()"))
    return found


def figures(link: str, shots: Path | None) -> dict[str, Any]:
    origin = link.partition("/console/")[0]
    found: dict[str, Any] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(link)
        page.fill("input[type=email]", "ann@example.com")
        for each in page.query_selector_all("input[type=password]"):
            each.fill("correct horse battery staple")
        page.click("main button[type=submit]")

        page.wait_for_selector("nav#nav")
        page.goto(f"{origin}/console/calls")
        one = page.eval_on_selector("table.calls tbody tr:last-child th a", "link => link.href")
        pages = {
            "today, 24 hours": ("/console/", True),
            "today, 7 days": ("/console/?span=7d", True),
            "today, 30 days": ("/console/?span=30d", True),
            "calls": ("/console/calls", False),
            "calls, searched": ("/console/calls?agent=sales&end_reason=no_input&min_duration_s=300", False),
            "one call": (one.removeprefix(origin), False),
        }
        for name, (path, charts) in pages.items():
            rounds = [opened(page, origin + path, charts=charts) for _ in range(ROUNDS)]
            found[name] = {
                f"{what.removesuffix('_ms')}_{rank}_ms": round(sorted(each[what] for each in rounds)[at])
                for what in rounds[0]
                for rank, at in (("p50", ROUNDS // 2), ("worst", -1))
            }
            if shots is not None:
                page.wait_for_timeout(500)
                page.screenshot(path=shots / f"{re.sub('[^a-z0-9]+', '-', name)}.png", full_page="today" in name)
        browser.close()
    return found


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--calls", type=int, default=1_000_000)
    given.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    given.add_argument("--shots", type=Path)
    given.add_argument("--json", action="store_true")
    options = given.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as own:
        filled(Path(own), options.calls)
        with gateway(Path(own)) as link:
            found = figures(link, options.shots)
    if options.json:
        print(json.dumps(found))
        return
    for name, each in found.items():
        print(f"{name:20}{each}")


if __name__ == "__main__":
    main()
