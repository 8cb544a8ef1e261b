"""`trunkline device` as a process, by WAV files: against a real gateway, and without one."""

import json
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.conftest import Start
from trunkline.agents.examples import example
from trunkline.device.quality import spoken
from trunkline.testing.ports import lease

pytestmark = pytest.mark.e2e


def device(tmp_path: Path, origin: str) -> tuple[list[dict[str, Any]], float]:
    """What it told, and the level of what it played."""
    other = spoken("we are closed on monday", "en-gb", 165, 50)
    with wave.open(str(tmp_path / "in.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(other + spoken("hey trunkline", "en-us", 165, 50))
    command = [sys.executable, "-m", "trunkline.cli", "device", "--gateway", origin, "--json", "--quiet-s", "3"]
    command += ["--in", str(tmp_path / "in.wav"), "--out", str(tmp_path / "out.wav")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    with wave.open(str(tmp_path / "out.wav"), "rb") as file:
        played = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(float)
    return [json.loads(line) for line in done.stdout.splitlines()], float(np.sqrt(np.mean(played**2)))


def texts(told: list[dict[str, Any]], kind: str) -> list[str]:
    return [line["text"] for line in told if line["kind"] == kind]


def test_it_wakes_by_its_word_and_the_agent_answers_the_question_behind_it(
    tmp_path: Path, start_gateway: Start
) -> None:
    gateway = start_gateway(agent=example("clinic"))
    told, level = device(tmp_path, gateway.origin)
    assert [line["kind"] for line in told][:2] == ["woken", "joined"], told
    assert "what are your opening hours" in texts(told, "heard")
    assert any("eight to five" in text for text in texts(told, "said"))
    assert level > 100
    stats = told[-1]
    assert 0 < stats["sent_frames"] * 0.02 < told[-2]["at_s"] - told[0]["at_s"] + 1.0, "nothing of before was sent"


def test_without_a_gateway_it_says_so_and_answers_itself(tmp_path: Path) -> None:
    told, level = device(tmp_path, f"http://127.0.0.1:{lease()}")
    said = texts(told, "said")
    assert "offline" in texts(told, "state")
    assert said[0] == "I'm offline."
    assert any("eight to five" in text for text in said)
    assert level > 100
