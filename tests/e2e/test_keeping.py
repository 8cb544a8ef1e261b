"""What a real gateway keeps of a call, sealed under a key service's key: nothing in clear, also after kill -9 in the
middle of it; opened, searched and forgotten by the commands."""

import asyncio
import base64
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import environment
from trunkline.agents.examples import example
from trunkline.store.subjects import files_with
from trunkline.testing.caller.commands import Action, CallOptions, HangUp, Listen, Pause, Speak, place_call
from trunkline.testing.caller.speech import synthesize, to_speech

pytestmark = pytest.mark.e2e

Start = Callable[..., Any]  # conftest.start_gateway
CALLER = "+12125550177"
KEY = base64.b64encode(bytes(range(32))).decode()
SERVICE = """#!{python}
import base64, sys
from trunkline.privacy.sealed import KeyRing
ring, given = KeyRing({{"vault": bytes(32)}}), base64.b64decode(sys.stdin.read())
if sys.argv[1] == "wrap":
    name, wrapped = ring.wrap(given)
    print(name, base64.b64encode(wrapped).decode())
else:
    print(base64.b64encode(ring.unwrap(sys.argv[2], given)).decode())
"""


def command(settings: dict[str, str], *arguments: str) -> tuple[int, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "trunkline.cli", *arguments],
        env=environment(**settings), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout) if done.stdout[:1] in ("{", "[") else done.stdout + done.stderr


async def call_until(gateway: Any, happened: Callable[[], bool]) -> None:
    """A call that asks something and stays; the gateway is killed when that has happened."""
    asked = "what are your opening hours"
    said = Speak(to_speech(asked, await synthesize(asked, "en-us", 150)))
    actions: list[Action] = [Listen(), said, Listen(), Pause(60_000), HangUp()]
    options = CallOptions(gateway.origin, actions, from_number=CALLER, to_number="+12125550100", noise_dbfs=-60.0)
    calling = asyncio.create_task(place_call(options))
    try:
        await asyncio.to_thread(gateway.until, happened, 60.0)
    finally:
        await asyncio.to_thread(gateway.kill)
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)


def test_a_killed_gateway_leaves_nothing_in_clear_and_loses_nothing(start_gateway: Start, tmp_path: Path) -> None:
    service = tmp_path / "kms"
    service.write_text(SERVICE.format(python=sys.executable))
    service.chmod(0o700)
    settings = {
        "data_dir": str(tmp_path / "data"),
        "record": "true",
        "privacy__kms": f"command: {service}",
        "privacy__kms_seconds": "30",
        "privacy__recordings_days": "30",
        "privacy__residency__us__countries": "US",
        "privacy__residency__us__recordings": str(tmp_path / "us"),
    }
    gateway = start_gateway(example("clinic"), **settings)

    def turns() -> list[Any]:
        calls = httpx.get(gateway.origin + "/v1/calls").json()["calls"]
        found = httpx.get(f"{gateway.origin}/v1/calls/{calls[0]['id']}").json()["turns"] if calls else []
        return [turn for turn in found if turn["caller_text"]]

    def has_talked() -> bool:
        sealed = list((tmp_path / "us").glob("*.wav.sealed"))
        return bool(sealed and sealed[0].stat().st_size > 100_000 and turns())

    asyncio.run(call_until(gateway, has_talked))
    (sealed,) = (tmp_path / "us").iterdir()
    call_id = sealed.name.partition(".")[0]

    gateway = start_gateway(example("clinic"), **settings)
    record = httpx.get(f"{gateway.origin}/v1/calls/{call_id}").json()
    assert record["end_reason"] == "gateway_lost"
    words = [turn["caller_text"] for turn in record["turns"] if turn["caller_text"]]
    assert words
    for said in [*words, *(turn["agent_text"] for turn in record["turns"] if turn["agent_text"])]:
        assert files_with(tmp_path / "data", said) == [], said
    code, (row,) = command(settings, "recordings", "verify", "--json")
    assert (code, "its writer died" in row["found"]) == (1, True), row
    wav = tmp_path / "opened.wav"
    code, opened = command(settings, "recordings", "export", call_id, "--out", str(wav))
    assert (code, opened["whole"]) == (0, False), opened
    assert wav.stat().st_size > 100_000 - 10_000
    code, found = command(settings, "privacy", "search", words[0])
    assert (code, found["left"]["rows"]) == (1, ["turns.caller_text"])
    assert not gateway.complaints()

    ring = {name: value for name, value in settings.items() if not name.startswith("privacy__kms")}
    lost = ring | {"privacy__keys": json.dumps({"other": KEY})}
    code, found = command(lost, "privacy", "search", words[0])
    assert code == 1
    assert any("privacy.kms is not set" in row for row in found["left"]["rows"])

    gateway.signal()
    gateway.wait()
    time.sleep(0.1)
    code, done = command(settings, "privacy", "erase", CALLER)
    assert (code, done["erased"]["calls"], done["erased"]["recordings"]) == (0, 1, 1), done
    assert done["left"] == {"rows": [], "files": []}
    assert list((tmp_path / "us").iterdir()) == []
