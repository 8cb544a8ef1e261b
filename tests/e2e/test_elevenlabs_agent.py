"""The clinic agent with ElevenLabs' voice, interrupted in mid-word: what it believes was heard, beside what was played.

The fake speaks with espeak-ng, so every word's place in the audio is known; the caller's recording says which frames
of it were played. Local ears, the script as mind, real processes, real time, Twilio's protocol and SIP.
"""

import asyncio
import bisect
import importlib.util
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes.elevenlabs_server import ElevenLabsServer, Phrase, Take
from trunkline.agents import script
from trunkline.agents.examples import example
from trunkline.media import g711
from trunkline.testing.caller.commands import (
    Action,
    CallOptions,
    CallReport,
    HangUp,
    Listen,
    ListenInto,
    Say,
    place_call,
)
from trunkline.testing.ports import lease
from trunkline.types import FRAME_MS

pytestmark = pytest.mark.e2e

Start = Callable[..., Any]  # conftest.start_gateway

KEY = "xi-the-clinic-s-own-key"
FIRST_S = 0.1
ADDRESS = "The clinic is at"
QUIET = 8  # of 32,768: the codes next to zero
FRAME_BYTES = FRAME_MS * 16
NO_SIP = importlib.util.find_spec("pjsua2") is None
needs_sip = pytest.mark.skipif(NO_SIP, reason="pjsua2 is not installed: make pjsip")


@dataclass
class Spoken:
    """A reply as the voice said it: its phrases, one after another."""

    pcm: bytes
    words: list[tuple[str, float, float]]

    @classmethod
    def of(cls, phrases: Sequence[Phrase]) -> "Spoken":
        at_ms, pcm, words = 0.0, b"", list[tuple[str, float, float]]()
        for phrase in phrases:
            words += [(word, at_ms + start, at_ms + end) for word, start, end in phrase.words]
            pcm += g711.decode(phrase.audio, "mulaw")
            at_ms = len(pcm) / 16
        return cls(pcm, words)

    @property
    def frames(self) -> list[bytes]:
        return [self.pcm[at : at + FRAME_BYTES] for at in range(0, len(self.pcm) - FRAME_BYTES + 1, FRAME_BYTES)]

    def ended_by(self, ms: float) -> int:
        return bisect.bisect_right([end for _, _, end in self.words], ms)

    def within_a_word(self, ms: float) -> bool:
        return any(start < ms < end for _, start, end in self.words)


def audible(frame: bytes) -> bool:
    return int(np.abs(np.frombuffer(frame, "<i2").astype(np.int32)).max()) > QUIET


def played_ms(recording: Sequence[bytes], spoken: Spoken) -> tuple[int, int]:
    """How far the reply was played: to its last frame that was heard, and to where silence would hide more."""
    place = {frame: at for at, frame in enumerate(spoken.frames) if audible(frame)}
    last = max((place[frame] for frame in recording if frame in place), default=-1)
    until = last + 1
    while until < len(spoken.frames) and not audible(spoken.frames[until]):
        until += 1
    return (last + 1) * FRAME_MS, until * FRAME_MS


def frames_of(path: Path) -> list[bytes]:
    """The agent's side of a recording."""
    with wave.open(str(path)) as wav:
        both = np.frombuffer(wav.readframes(wav.getnframes()), dtype="<i2").reshape(-1, 2)
    agent = np.ascontiguousarray(both[:, 1]).tobytes()
    return [agent[at : at + FRAME_BYTES] for at in range(0, len(agent) - FRAME_BYTES + 1, FRAME_BYTES)]


def agent_file(folder: Path, url: str) -> Path:
    path = folder / "clinic.toml"
    voice = f'[tts]\nprovider = "elevenlabs"\nvoice = "alice"\nbase_url = "{url}"\n'
    text = example("clinic").read_text(encoding="utf-8")
    assert '[tts]\nprovider = "espeak"\n' in text
    path.write_text(text.replace('[tts]\nprovider = "espeak"\n', voice))
    return path


@pytest.mark.parametrize("leg", ["twilio", pytest.param("sip", marks=(needs_sip, pytest.mark.show))])
def test_the_record_holds_the_words_heard_of_an_answer_cut_in_mid_word(
    leg: str, start_gateway: Start, tmp_path: Path
) -> None:
    into = [700, 1130, 1710, 2290, 2870, 3450]

    async def run() -> tuple[list[CallReport], ElevenLabsServer]:
        async with ElevenLabsServer(KEY, first_s=FIRST_S) as server:
            sip = {"sip__enabled": "true", "sip__port": str(lease())} if leg == "sip" else {}
            agent = agent_file(tmp_path, server.base_url)
            gateway = await asyncio.to_thread(start_gateway, agent, elevenlabs__api_key=KEY, **sip)
            target = f"sip:+15005550001@127.0.0.1:{sip['sip__port']}" if sip else gateway.origin

            async def one(number: int, into_ms: int) -> CallReport:
                await asyncio.sleep(number * 1.5)
                actions: list[Action] = [Listen(), Say("when are you open"), ListenInto(into_ms)]
                actions += [Say("where is the clinic"), Listen(), HangUp()]
                api = gateway.origin if sip else "auto"
                return await place_call(CallOptions(target, actions, out=tmp_path / f"{number}.wav", api_url=api))

            async with asyncio.timeout(90):
                reports = await asyncio.gather(*(one(*plan) for plan in enumerate(into)))
            assert gateway.complaints() == []
            assert KEY not in gateway.log
            return list(reports), server

    reports, server = asyncio.run(run())
    agent = script.load(example("clinic"))
    recorded = {*agent.filler, agent.apology, agent.failure, agent.failover.words, agent.goodbye}  # at start
    by_text = {phrase.text: phrase for phrase in server.phrases if phrase.text not in recorded}
    judged = in_mid_word = 0
    for number, report in enumerate(reports):
        assert report.record is not None, report
        asked = [turn for turn in report.record["turns"] if turn["caller_text"] == "when are you open"]
        assert asked, report.record["turns"]
        (turn,) = asked
        if not turn["interrupted"]:
            continue
        others = " ".join(each["agent_text"] for each in report.record["turns"] if each is not turn)
        hours = [text for text in by_text if text not in others]
        spoken = Spoken.of([by_text[text] for text in hours])
        heard = turn["agent_text"].split()
        assert heard == [word for word, _, _ in spoken.words][: len(heard)], turn
        assert turn["heard_exact"]
        least_ms, most_ms = played_ms(frames_of(tmp_path / f"{number}.wav"), spoken)
        least, most = spoken.ended_by(least_ms), spoken.ended_by(most_ms + 1)
        print(f"{leg}: played {least_ms} ms, {least} words; {len(heard)} in the record")
        assert least - 1 <= len(heard) <= most, (turn, least_ms, most_ms)
        judged += 1
        in_mid_word += spoken.within_a_word(least_ms)
    assert judged >= 4, reports
    assert in_mid_word >= 2
    usage = reports[0].record["usage"] if reports[0].record is not None else []
    assert {u["unit"] for u in usage if u["provider"] == "elevenlabs"} == {"characters"}


def test_a_voice_that_fails_is_in_the_record_and_another_goes_on(start_gateway: Start, tmp_path: Path) -> None:
    async def run() -> CallReport:
        async with ElevenLabsServer(KEY) as server:
            gateway = await asyncio.to_thread(
                start_gateway, agent_file(tmp_path, server.base_url), elevenlabs__api_key=KEY
            )
            async with asyncio.timeout(20):
                while len(server.phrases) < 5 or not server.phrases[-1].complete:  # its fixed lines, recorded at start
                    await asyncio.sleep(0.1)
            await asyncio.sleep(0.5)
            server.takes += [Take(), Take(error=("system_busy", "busy"))]
            actions: list[Action] = [
                Listen(),
                Say("when are you open"),
                Listen(),
                Say("where is the clinic"),
                Listen(),
                HangUp(),
            ]
            report = await place_call(CallOptions(gateway.origin, actions, api_url="auto"))
            assert gateway.complaints() == []
            return report

    report = asyncio.run(run())
    assert report.record is not None
    switched = [event["data"] for event in report.record["events"] if event["kind"] == "provider_switched"]
    assert [(event["provider"], event["following"], event["code"]) for event in switched] == [
        ("tts.elevenlabs", "tts.espeak", "overloaded")
    ]
    assert "eight to five" in report.record["turns"][1]["agent_text"]
    assert report.record["end_reason"] == "caller_hung_up"
    assert ADDRESS in report.record["turns"][-1]["agent_text"]
