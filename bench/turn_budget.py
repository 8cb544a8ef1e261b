"""The turn latency budget, part by part: `python bench/turn_budget.py [--turns 120] [--calls 4] [--speculate]`.

A gateway of its own process, callers over the Twilio protocol, and behind it the fakes of tests/fakes at the latencies
their products publish: Deepgram's words 150 ms after the audio (partials and finals), OpenAI's first token lognormal
with p50 350 and p95 700 ms (its quantiles in random order, so that every run has the same), ElevenLabs' first audio 100
to 150 ms. The rest of the first phrase comes PHRASE_S after the first token.

From each call's record: endpointing, and T1 - T0. What the fakes waited is known for each turn by the number in its
words. Ours is what is left: recognising the end, frames, windows, ticks, sockets, and the fakes' own time.

Exit status 1 where a promise is broken: p95 of a turn under 1,300 ms; ours, without speculation, under 80 ms.
"""

import argparse
import asyncio
import json
import math
import os
import random
import re
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
from served import served

from tests.fakes.deepgram_server import LOUD, DeepgramServer, Late
from tests.fakes.elevenlabs_server import ElevenLabsServer, Take, spoken
from tests.fakes.http_server import Request
from tests.fakes.openai_server import Answer, OpenAiServer, Refusal, Speech, Wait
from trunkline.agents.local.voice import synthesize
from trunkline.media.g711 import encode
from trunkline.testing.caller import speech
from trunkline.testing.caller.commands import Action, CallOptions, CallReport, HangUp, Listen, Speak, place_call
from trunkline.types import MULAW_8K

STT_S = 0.150
TOKEN_P50_S, TOKEN_P95_S = 0.350, 0.700
PHRASE_S = 0.060
AUDIO_S = (0.100, 0.150)
TURN_MS, OURS_MS = 1300, 80
START_S = 30.0
WARM = 999_999
"""A number nobody says."""
SAID = "what are your opening hours in room seventeen"
"""What callers say, whatever the ears make of it."""
HEARD_EARLY = 0.9
"""The last word is known when so much of the audio has come: it is heard before it has died away."""

AGENT = """
name = "Bench"
greeting = "Hello."
filler = []
[stt]
provider = "deepgram"
url = "{stt}"
[llm]
provider = "openai"
model = "m"
base_url = "{llm}"
[tts]
provider = "elevenlabs"
voice = "v"
base_url = "{tts}"
[failover]
lifeboat = false
[turns]
speculate = {speculate}
"""


def question(number: int) -> str:
    return f"What are your opening hours in room {number}?"


def fragment(number: int) -> str:
    """Words that may go on: the detector leaves it to silence."""
    return f"Room {number}"


def number_in(text: str) -> int:
    return int(re.findall(r"\d+", text)[-1])


def first_phrase(number: int) -> str:
    return f"Room {number} opens at eight."


def first_tokens(count: int, rng: random.Random) -> list[float]:
    """The lognormal's quantiles, shuffled, in seconds."""
    sigma = math.log(TOKEN_P95_S / TOKEN_P50_S) / statistics.NormalDist().inv_cdf(0.95)
    normal = statistics.NormalDist(math.log(TOKEN_P50_S), sigma)
    draws = [math.exp(normal.inv_cdf((at + 0.5) / count)) for at in range(count)]
    rng.shuffle(draws)
    return draws


class Model(OpenAiServer):
    """Waits, for each number, as long as was drawn for it."""

    def __init__(self, draws: Mapping[int, float]) -> None:
        super().__init__()
        self.draws = draws
        self.asked: list[int] = []

    def _answer(self, request: Request) -> Answer | Speech | Refusal:
        number = number_in(request.body["messages"][-1]["content"])
        self.asked.append(number)
        return Answer("Room ", Wait(PHRASE_S), f"{number} opens at eight. ", delay_s=self.draws[number])


class Voice(ElevenLabsServer):
    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.rng = rng
        self.waited_s: dict[str, float] = {}

    def next_take(self) -> Take:
        wait_s = self.rng.uniform(*AUDIO_S)
        self.waited_s[self.phrases[-1].text] = wait_s
        return Take(first_s=wait_s)


def word_ms(words: int) -> int:
    """So that the fake's words grow as the caller's do."""
    audio = encode(synthesize(SAID), "mulaw")
    loud = sum(sum(byte in LOUD for byte in audio[at : at + 160]) >= 40 for at in range(0, len(audio), 160))
    return int(loud * 20 * HEARD_EARLY / words)


async def warm(model: Model) -> None:
    """What the fake builds at its first answer is none of ours."""
    asked = {
        "model": "m",
        "messages": [{"role": "user", "content": str(WARM)}],
        "stream_options": {"include_usage": True},
    }
    async with httpx.AsyncClient() as http:
        await http.post(model.base_url + "/chat/completions", json=asked)
    model.asked.clear()


async def measure(origin: str, calls: int, each: int) -> list[CallReport]:
    """Callers who begin one after another, and each talk for `each` turns."""
    actions: list[Action] = [Listen()]
    said = speech.to_speech(SAID, await speech.synthesize(SAID))
    for _ in range(each):
        actions += [Speak(said), Listen()]

    async def one(number: int) -> CallReport:
        await asyncio.sleep(number * 0.7)
        return await place_call(CallOptions(origin, [*actions, HangUp()], api_url="auto"))

    return await asyncio.gather(*map(one, range(calls)))


async def run(
    turns: int,
    calls: int,
    line: Any,
    speculate: bool,
    rng: random.Random,
    *,
    alone: bool = False,
    verbose: bool = False,
) -> dict[str, Any]:
    """`line(number)`: what the ears make of a turn."""
    draws = dict(enumerate(first_tokens(turns, rng))) | {WARM: 0.0}
    for number in range(turns):
        spoken(first_phrase(number), MULAW_8K)  # it remembers
    lines = [line(number) for number in range(turns)]
    model, voice = Model(draws), Voice(rng)
    ears = DeepgramServer(*lines, always=Late(STT_S), word_ms=word_ms(len(lines[0].split())))
    async with ears, model, voice:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            agent = folder / "agent.toml"
            await warm(model)
            urls = {"stt": ears.url, "llm": model.base_url, "tts": voice.base_url}
            agent.write_text(AGENT.format(speculate=str(speculate).lower(), **urls))
            settings = {"SIP__ENABLED": "false", "SPEECH__WORKERS": 1, "ELEVENLABS__API_KEY": "k"}
            before = ["chrt", "-f", "10", "taskset", "-c", "0"] if alone else []
            serving = served(folder, agent, settings, before)
            origin = await asyncio.to_thread(serving.__enter__)
            try:
                reports = await measure(origin, calls, turns // calls)
            finally:
                await asyncio.to_thread(serving.__exit__, None, None, None)
    found: dict[str, list[float]] = {part: [] for part in (*PARTS, *OURS, "total")}
    for report in reports:
        assert report.record is not None, report
        for turn in report.record["turns"]:
            if not turn["caller_text"] or turn["total_ms"] is None:
                continue
            number = number_in(turn["caller_text"])
            parts = {
                "endpointing": turn["endpointing_ms"],
                "STT final": STT_S * 1000,
                "LLM first token": draws[number] * 1000,
                "first phrase": PHRASE_S * 1000,
                "TTS first audio": voice.waited_s[first_phrase(number)] * 1000,
            }
            thought_ms = parts["LLM first token"] + parts["first phrase"]
            ours = {
                "ours": turn["total_ms"] - sum(parts.values()),
                "ours: the final": turn["stt_ms"] - parts["STT final"],
                "ours: the model": turn["llm_ms"] - thought_ms,
                "ours: the voice": turn["tts_ms"] - parts["TTS first audio"],
            }
            for part, value in (parts | ours).items():
                found[part].append(value)
            if verbose:
                print(number, turn["index"], {part: round(value) for part, value in ours.items()}, file=sys.stderr)
            found["total"].append(turn["total_ms"])
    heard = [turn.latency_ms for report in reports for turn in report.turns if turn.latency_ms is not None]
    return {
        "turns": len(found["total"]),
        "answers_asked_for": len(model.asked),
        "parts": {part: figures(values) for part, values in found.items()},
        "at_the_caller": figures(heard),
    }


PARTS = ("endpointing", "STT final", "LLM first token", "first phrase", "TTS first audio")
OURS = ("ours", "ours: the final", "ours: the model", "ours: the voice")
"""What is left of all; and what its parts took longer than the fakes waited."""


def figures(values: Sequence[float]) -> dict[str, int]:
    ordered = sorted(values)
    return {f"p{p}": round(ordered[min(len(ordered) - 1, int(len(ordered) * p / 100))]) for p in (50, 95, 99)}


def render(title: str, result: Mapping[str, Any]) -> str:
    rows = [f"{title}: {result['turns']} turns, {result['answers_asked_for']} answers asked for"]
    rows += ["| ms | p50 | p95 | p99 |", "|---|---|---|---|"]
    for part, found in (result["parts"] | {"total, as the caller hears it": result["at_the_caller"]}).items():
        rows.append(f"| {part} | {found['p50']} | {found['p95']} | {found['p99']} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--turns", type=int, default=120)
    parser.add_argument("--calls", type=int, default=4)
    parser.add_argument("--speculate", action="store_true")
    parser.add_argument("--open", action="store_true", help="words that may go on, in place of whole questions")
    parser.add_argument("--alone", action="store_true", help="two cores that other work is kept off (chrt; root)")
    parser.add_argument("--verbose", action="store_true", help="each turn")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    line = fragment if given.open else question
    if given.alone:
        os.sched_setaffinity(0, {1})
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    how = {"alone": given.alone, "verbose": given.verbose}
    result = asyncio.run(run(given.turns, given.calls, line, given.speculate, random.Random(5), **how))
    title = (
        f"{'open words' if given.open else 'whole questions'}, {'with' if given.speculate else 'without'} speculation"
    )
    print(json.dumps({"title": title, **result}) if given.json else render(title, result))
    if given.open:
        return
    total, ours = result["parts"]["total"]["p95"], result["parts"]["ours"]["p95"]
    if total >= TURN_MS or (ours >= OURS_MS and not given.speculate):
        sys.exit(f"p95 of a turn {total} ms (promised {TURN_MS}), ours {ours} ms (promised {OURS_MS})")


if __name__ == "__main__":
    main()
