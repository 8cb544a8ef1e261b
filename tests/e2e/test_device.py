"""`trunkline device` as a process, by WAV files, through a proxy that counts: one gateway, which does not live to the
end."""

import asyncio
import json
import sys
import time
import wave
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from trunkline.agents.examples import example
from trunkline.device.quality import spoken
from trunkline.device.sound import read_wav
from trunkline.testing.ports import lease
from trunkline.types import PCM_16K

pytestmark = pytest.mark.e2e

OTHER = "we are closed on monday"
END = "on wednesday and eight to three on friday"  # of the answer; of its middle the recogniser loses a day or two
GRAMMAR = """#JSGF V1.0; grammar answer; public <answer> = <part>+;
<part> = we are (closed | open) right now | we open again | tomorrow | our hours are | <hour> to <hour> | at <hour> a m
  | on <day> | <day> | and | i'm offline;
<hour> = eight | nine | ten | noon | three | four | five; <day> = monday | tuesday | wednesday | thursday | friday;"""


@dataclass
class Told:
    lines: list[dict[str, Any]] = field(default_factory=list)
    opened: list[float] = field(default_factory=list)
    audio: list[tuple[float, int]] = field(default_factory=list)
    """What left the device for the gateway: when, and so many ms of it."""
    first: list[str] = field(default_factory=list)
    """The device's first three messages, audio as "audio"."""
    woken_at: float = 0.0

    def texts(self, kind: str) -> list[str]:
        return [line["text"] for line in self.lines if line["kind"] == kind]


async def device(
    gateway: Any, question: bytes, out: Path, on_line: Callable[[dict[str, Any]], None] = lambda line: None
) -> Told:
    told = Told()

    async def between(ours: ServerConnection) -> None:
        told.opened.append(time.monotonic())
        try:
            async with (
                connect(gateway.origin.replace("http", "ws") + "/ws/audio") as theirs,
                asyncio.TaskGroup() as both,
            ):
                both.create_task(back(theirs, ours))
                async for message in ours:
                    if isinstance(message, bytes):
                        told.audio.append((time.monotonic(), len(message) // PCM_16K.bytes_per_ms))
                    if len(told.first) < 3:
                        told.first.append("audio" if isinstance(message, bytes) else json.loads(message)["type"])
                    await theirs.send(message)
                await theirs.close()
        except* (OSError, ConnectionClosed):
            await ours.close()

    async def back(theirs: Any, ours: ServerConnection) -> None:
        async for message in theirs:
            await ours.send(message)
        await ours.close()

    with wave.open(str(out.with_suffix(".in.wav")), "wb") as file:
        file.setparams((1, 2, PCM_16K.rate_hz, 0, "NONE", ""))
        file.writeframes(spoken(OTHER, "en-gb", 165, 50) + question)
    async with serve(between, "127.0.0.1", port := lease()), asyncio.timeout(60):
        command = [sys.executable, "-m", "trunkline.cli", "device", "--gateway", f"http://127.0.0.1:{port}", "--json"]
        command += ["--quiet-s", "2", "--in", str(out.with_suffix(".in.wav")), "--out", str(out)]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        try:
            assert process.stdout is not None
            async for line in process.stdout:
                told.lines.append(json.loads(line))
                if told.lines[-1]["kind"] == "woken":
                    told.woken_at = time.monotonic()
                on_line(told.lines[-1])
        finally:
            if process.returncode is None and process.stdout is not None and not process.stdout.at_eof():
                process.kill()
            await process.wait()
    assert process.returncode == 0
    return told


def words(wav: Path, folder: Path) -> str:
    from pocketsphinx import Decoder

    (folder / "answer.gram").write_text(GRAMMAR)
    decoder = Decoder(jsgf=str(folder / "answer.gram"), lm=None, loglevel="FATAL")
    decoder.start_utt()
    decoder.process_raw(read_wav(wav), False, True)
    decoder.end_utt()
    return str(decoder.hyp().hypstr) if decoder.hyp() is not None else ""


@pytest.fixture(scope="module")
def gateway(start_shared_gateway: Callable[..., Any]) -> Any:
    return start_shared_gateway(agent=example("clinic"))


def test_not_a_frame_leaves_it_before_its_wake_word_and_the_whole_answer_is_played(
    tmp_path: Path, gateway: Any
) -> None:
    told = asyncio.run(device(gateway, spoken("hey trunkline", "en-us", 165, 50), tmp_path / "out.wav"))
    woken_s = told.lines[0]["at_s"]
    assert told.lines[0]["kind"] == "woken"
    assert woken_s > 5.0, "the other speech is long over"
    assert told.first == ["start", "armed", "audio"]
    assert min(told.opened) > told.woken_at - 0.5, "no connection before it, either"
    sent_ms = sum(ms for _, ms in told.audio)
    asleep_s = next(line["at_s"] for line in told.lines if line["text"] == "asleep")
    assert 0 < sent_ms <= 1000 * (asleep_s - woken_s) + 1000, "what was said since the wake word, and nothing before"
    assert told.texts("heard") == ["what are your opening hours"]
    assert words(tmp_path / "out.wav", tmp_path).endswith(END)
    assert gateway.complaints() == []


def test_where_the_gateway_dies_in_mid_conversation_it_tries_again_says_so_and_answers_itself(
    tmp_path: Path, gateway: Any
) -> None:
    def on_line(line: dict[str, Any]) -> None:
        if line["kind"] == "heard" and gateway.process.poll() is None:
            gateway.kill()

    again = bytes(500 * PCM_16K.bytes_per_ms) + spoken("", "en-us", 165, 50)  # said while there is nobody
    told = asyncio.run(
        device(gateway, spoken("hey trunkline", "en-us", 165, 50) + again, tmp_path / "out.wav", on_line)
    )
    lost_s, offline_s = (
        next(line["at_s"] for line in told.lines if line["kind"] == kind and text in line["text"])
        for kind, text in (("lost", "broke"), ("state", "offline"))
    )
    assert 4.5 < offline_s - lost_s < 6.0
    assert len(told.opened) > 3, "it tried again"
    assert told.texts("heard") == ["what are your opening hours"] * 2
    assert told.texts("said")[-2] == "I'm offline."
    assert words(tmp_path / "out.wav", tmp_path).endswith(END)
    assert told.lines[-1]["lost"] == told.lines[-1]["offline"] == 1
