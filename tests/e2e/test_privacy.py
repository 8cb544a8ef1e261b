"""A card keyed and said in a real call, then searched for in every row, file and log; then the caller forgotten."""

import asyncio
import base64
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trunkline.agents.examples import example
from trunkline.testing.caller.commands import (
    Action,
    CallOptions,
    CallReport,
    HangUp,
    Keys,
    Listen,
    Pause,
    Speak,
    place_call,
)
from trunkline.testing.caller.speech import synthesize, to_speech

pytestmark = pytest.mark.e2e

Start = Callable[..., Any]  # conftest.start_gateway

KEYED, SAID = "4111111111111111", "5500000000000004"
WORDS = "five five zero zero zero zero zero zero zero zero zero zero zero zero zero four"
CALLER = "+15005550177"
KEY = base64.b64encode(bytes(32)).decode()
PAYING = """
[[intents]]
name = "pay"
phrases = ["pay my bill [please]"]
tool = "pay"
reply = "Your payment went through."

[[intents]]
name = "card"
phrases = ["read you my card [please]"]
ask = "card"
reply = "Thank you, I have it."

[digits.card]
prompt = "Please say the number, digit by digit."
min = 13
max = 19
spoken = true

[tools.pay]
type = "http"
method = "POST"
url = "{url}"
body = {{ card = "{{card_number}}" }}
secure = {{ card_number = "13-19" }}
prompt = "Please key in your card number, and then the pound key."
"""


class Bank:
    """Who the tool pays; it says the card back, as careless services do."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])  # type: ignore[index]
        body = await reader.readexactly(length)
        self.asked.append(body)
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        await writer.drain()
        writer.close()


def run(gateway: Any, *arguments: str) -> tuple[int, Any]:
    config = gateway.data_dir.parent / "cli.toml"
    config.write_text(f'data_dir = "{gateway.data_dir}"\n[privacy.keys]\nfirst = "{KEY}"\n')
    command = [sys.executable, "-m", "trunkline.cli", *arguments, "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


def test_a_card_keyed_and_said_is_nowhere_and_its_caller_can_be_forgotten(start_gateway: Start, tmp_path: Path) -> None:
    async def call() -> tuple[CallReport, Bank, Any]:
        bank = Bank()
        server = await asyncio.start_server(bank.serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/pay"
        agent = tmp_path / "paying.toml"
        agent.write_text(example("clinic").read_text(encoding="utf-8") + PAYING.format(url=url), encoding="utf-8")
        gateway = await asyncio.to_thread(
            start_gateway,
            agent,
            record="true",
            log__level="debug",
            tools__allow_private_addresses="true",
            privacy__keys=json.dumps({"first": KEY}),
        )

        async def say(text: str) -> Speak:
            return Speak(to_speech(text, await synthesize(text, "en-us", 150)))

        actions: list[Action] = [
            Listen(), await say("pay my bill"), Pause(4000), Keys(f"{KEYED}#"), Listen(),
            await say("read you my card"), Listen(), await say(WORDS), Listen(), HangUp(),
        ]  # fmt: skip
        async with asyncio.timeout(120):
            report = await place_call(
                CallOptions(gateway.origin, actions, api_url=gateway.origin, from_number=CALLER, noise_dbfs=-60.0)
            )
        server.close()
        return report, bank, gateway

    report, bank, gateway = asyncio.run(call())
    assert report.record is not None, gateway.log
    for turn in report.record["turns"]:
        print(turn["caller_text"], "|", turn["agent_text"], "|", turn["tools"])
    assert [json.loads(body) for body in bank.asked] == [{"card": KEYED}]
    assert [event["data"]["what"] for event in report.record["events"] if event["kind"] == "secure_entry"] == [
        "begun",
        "ended",
    ]
    texts = " ".join(f"{turn['caller_text']} {turn['agent_text']}" for turn in report.record["turns"])
    assert "[card]" in texts or "[digits]" in texts  # as the recogniser understood what was said
    left = json.dumps(report.record) + gateway.log
    for wanted in (KEYED, KEYED[:12], SAID, SAID[:12], "zero zero zero zero zero zero"):
        code, found = run(gateway, "privacy", "search", wanted)
        assert (code, found) == (0, {"left": {"rows": [], "files": []}}), wanted
        assert wanted not in left
    sealed = list((gateway.data_dir / "recordings").iterdir())
    assert [path.suffix for path in sealed] == [".sealed"]

    gateway.signal()
    gateway.wait()
    assert run(gateway, "privacy", "search", CALLER)[0] == 1
    time.sleep(0.1)
    code, done = run(gateway, "privacy", "erase", CALLER)
    assert (code, done["erased"]["calls"], done["erased"]["recordings"]) == (0, 1, 1), done
    assert done["left"] == {"rows": [], "files": []}
