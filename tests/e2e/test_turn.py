"""Relay only, through Debian's coturn with a shared secret: the browser has no other way to us, nor we to it."""

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

pytest.importorskip("aiortc")

from tests.e2e.browser import Browser
from tests.e2e.chromium import browsing
from trunkline.testing.caller.speech import synthesize
from trunkline.testing.ports import lease

pytestmark = pytest.mark.e2e

Start = Callable[..., Any]
SECRET = "a secret that coturn and the gateway share"


@pytest.fixture
def turn_port(tmp_path: Path) -> Iterator[int]:
    program = shutil.which("turnserver")
    if program is None:
        pytest.skip("coturn is not installed (make setup-test)")
    port = lease()
    command = [program, "-n", "--no-cli", "--use-auth-secret", f"--static-auth-secret={SECRET}", "--realm=test"]
    command += [
        f"--listening-port={port}",
        "--listening-ip=127.0.0.1",
        "--relay-ip=127.0.0.1",
        "--allow-loopback-peers",
    ]
    command += ["--min-port=43000", "--max-port=43999", f"--pidfile={tmp_path}/pid", f"--userdb={tmp_path}/db"]
    command += ["--no-tls", "--no-dtls", "--log-file=stdout", "--simple-log"]
    with (tmp_path / "turn.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 15
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (tmp_path / "turn.log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "turn.log").read_text()
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def test_a_call_over_a_relay_and_no_other_way(start_gateway: Start, turn_port: int, tmp_path: Path) -> None:
    gateway = start_gateway(
        agent=None,
        webrtc__enabled="true",
        webrtc__ice_servers=f"turn:127.0.0.1:{turn_port}",
        webrtc__turn_secret=SECRET,
        webrtc__relay_only="true",
    )
    hours = (asyncio.run(synthesize("what are your opening hours", "en-us")) * 32767).astype(np.int16).tobytes()

    async def talk() -> tuple[str, str]:
        async with Browser(f"{gateway.origin}/whip") as browser:
            await browser.listen()
            await browser.say(hours)
            await browser.listen()
            await asyncio.to_thread(httpx.delete, browser.location)
            return browser.call_id, browser.answered

    call_id, answer = asyncio.run(talk())
    candidates = {line.split(" typ ")[1].split()[0] for line in answer.split("\r\n") if " typ " in line}
    assert candidates == {"relay"}
    found: dict[str, Any] = {}

    def ended() -> bool:
        found.update(httpx.get(f"{gateway.origin}/v1/calls/{call_id}", timeout=5).json())
        return bool(found.get("ended_at"))

    gateway.until(ended, 5)
    assert [turn["caller_text"] for turn in found["turns"] if turn["caller_text"]] == ["what are your opening hours"]
    asyncio.run(page_over_the_relay(gateway.origin, tmp_path))


async def page_over_the_relay(origin: str, tmp_path: Path) -> None:
    """The page learns of the relay before it offers, and may use nothing else."""
    async with browsing(origin, tmp_path / "profile") as page:
        await page.value(
            "window.RTCPeerConnection = class extends RTCPeerConnection {"
            " constructor(given) { super({...given, iceTransportPolicy: 'relay'}); window.peer = this; } }; 0"
        )
        await page.click("#call")
        await page.until("!document.getElementById('write').hidden", 20)
        kinds = (
            "[...(await peer.getStats()).values()].filter(s => s.type === 'local-candidate').map(s => s.candidateType)"
        )
        assert set(await page.value(f"(async () => {kinds})()")) == {"relay"}
        assert await page.value("document.querySelectorAll('#talk li.tool').length") == 0  # it did not go around
        await page.click("#call")
