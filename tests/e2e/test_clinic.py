"""`make call` against `make run`: the front desk of the clinic, heard and answered by the embedded agent."""

import asyncio
import json
import subprocess
import sys
import wave
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trunkline.testing.caller.commands import (
    Action,
    CallOptions,
    CallReport,
    HangUp,
    Keys,
    Listen,
    ListenInto,
    Pause,
    Speak,
    place_call,
)
from trunkline.testing.caller.speech import synthesize, to_speech

pytestmark = pytest.mark.e2e

Start = Callable[..., Any]  # conftest.start_gateway

REPOSITORY = Path(__file__).parents[2]
AGENTS = Path(__file__).parent / "agents"
HOURS = "Our hours are eight to five on Monday, Tuesday and Thursday"
CALL_S = 100.0


def turns_of(report: CallReport) -> list[Mapping[str, Any]]:
    assert report.record is not None, report
    turns: list[Mapping[str, Any]] = report.record["turns"]
    return turns


def seconds_of_speech(samples: np.ndarray[Any, np.dtype[np.int16]]) -> float:
    frames = samples[: len(samples) // 160 * 160].astype(np.float32).reshape(-1, 160)
    return float((np.sqrt((frames**2).mean(axis=1)) > 300).sum()) * 0.02


def test_make_calls_conversation_goes_as_the_readme_says(start_gateway: Start, tmp_path: Path) -> None:
    """Four turns and a goodbye in the caller's own words, one barge-in, a number keyed; both sides on the recording."""
    gateway = start_gateway(agent=None)
    out = tmp_path / "reply.wav"
    script = REPOSITORY / "scripts" / "clinic.caller"
    command = [sys.executable, "-m", "trunkline.cli", "call", f"{gateway.origin}/twilio/voice"]
    command += ["--script", str(script), "--out", str(out), "--noise-dbfs", "-50", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=CALL_S, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]
    report = json.loads(done.stdout)
    greeting, hours, confirm, keyed, where, goodbye = report["record"]["turns"]

    assert greeting["caller_text"] == ""
    assert greeting["agent_text"].startswith("Elm Street Clinic, this is the automated front desk.")
    assert hours["caller_text"] == "what are your opening hours"
    assert confirm["caller_text"] == "i want to confirm my appointment"
    assert "key in the four digits" in confirm["agent_text"]
    assert (keyed["caller_text"], keyed["keyed"]) == ("4711", True)
    assert "four seven one one" in keyed["agent_text"]
    assert where["caller_text"] == "where is the clinic"
    assert "opposite the library" in where["agent_text"]
    assert goodbye["caller_text"] == "goodbye"
    assert goodbye["agent_text"].startswith("Thank you for calling")

    # The hours were interrupted 1.5 s into them, by the words above.
    assert hours["interrupted"]
    assert 0 < len(hours["agent_text"].split()) < 12
    assert hours["agent_text"].startswith("We are ")
    assert hours["barge_in_ms"] < 200
    interrupting = next(turn for turn in report["turns"] if turn["interrupting"])
    assert interrupting["barge_in_ms"] < 400
    assert not any(turn["interrupted"] for turn in (greeting, confirm, keyed, where, goodbye))

    for turn in (hours, confirm, where, goodbye):
        assert 0 < turn["endpointing_ms"] < 1500
        assert 0 <= turn["stt_ms"] < 1000
        assert turn["llm_ms"] is not None
        assert turn["tts_ms"] is not None
        assert turn["total_ms"] < 2500
    assert all(turn["latency_ms"] is not None for turn in report["turns"])
    assert (report["end"], report["close_code"]) == ("server_closed", 1000)
    assert report["record"]["end_reason"] == "agent_hung_up"

    with wave.open(str(out)) as wav:
        assert (wav.getnchannels(), wav.getframerate(), wav.getsampwidth()) == (2, 8000, 2)
        both = np.frombuffer(wav.readframes(wav.getnframes()), dtype="<i2").reshape(-1, 2)
    assert seconds_of_speech(both[:, 0]) > 4
    assert seconds_of_speech(both[:, 1]) > 12


async def say(text: str, voice: str = "en-us", wpm: int = 165) -> Speak:
    return Speak(to_speech(text, await synthesize(text, voice, wpm)))


async def conversation(items: Sequence[Speak | Keys]) -> list[Action]:
    actions: list[Action] = [ListenInto(600)]  # callers who know what they want
    for item in items:
        actions += [item, Listen()]
    return [*actions, HangUp()]


async def place_all(origin: str, plans: Sequence[Sequence[Action]], **options: Any) -> list[CallReport]:
    async def one(at: int, actions: Sequence[Action]) -> CallReport:
        await asyncio.sleep(at * 0.2)
        return await place_call(
            CallOptions(origin, actions, api_url="auto", seed=at, max_duration_s=CALL_S - 10, **options)
        )

    async with asyncio.timeout(CALL_S):
        return list(await asyncio.gather(*(one(at, plan) for at, plan in enumerate(plans))))


VOICES = (("en-us", 165), ("en-gb", 165), ("en-us+f3", 165), ("en-us", 140), ("en-us+m3", 190))
QUESTIONS = {
    "when are you open": "Our hours are eight to five",
    "where is the clinic": "opposite the library",
    "I want to confirm my appointment": "key in the four digits",
}


def test_voices_and_speeds_are_understood(start_gateway: Start) -> None:
    """Synthetic voices, each in a call of its own; a voice may have to repeat itself, as people do."""
    gateway = start_gateway(agent=None)

    async def run() -> list[CallReport]:
        plans = [
            await conversation([await say(question, *voice) for question in QUESTIONS] + [Keys("4711")])
            for voice in VOICES
        ]
        return await place_all(gateway.origin, plans, noise_dbfs=-50.0)

    right = asked = wrong = 0
    for (voice, wpm), report in zip(VOICES, asyncio.run(run()), strict=True):
        turns = [turn for turn in turns_of(report) if turn["caller_text"] or not turn["understood"]]
        print(voice, wpm, [(t["caller_text"], t["understood"]) for t in turns])
        for question, answer in QUESTIONS.items():
            asked += 1
            right += any(
                t["understood"] and t["caller_text"] == question.lower() and answer in t["agent_text"] for t in turns
            )
        wrong += sum(
            t["understood"] and not t["keyed"] and t["caller_text"] not in map(str.lower, QUESTIONS) for t in turns
        )
        assert report.record is not None
        assert report.record["end_reason"] in ("caller_hung_up", "agent_hung_up", "transferred")
    print(f"synthetic voices: {right} of {asked} questions understood at once, {wrong} taken for something else")
    assert right >= asked * 0.7
    assert wrong <= asked * 0.15


def test_a_number_is_said_read_back_and_confirmed(start_gateway: Start) -> None:
    gateway = start_gateway(agent=None)

    async def run() -> list[CallReport]:
        plans = [
            await conversation(
                [
                    await say("I want to confirm my appointment"),
                    await say(digits),
                    await say("yes"),
                    await say("goodbye"),
                ]
            )
            for digits in ("four seven one one", "two five eight three", "nine six two eight", "one three five seven")
        ]
        return await place_all(gateway.origin, plans, noise_dbfs=-60.0)

    read_back = confirmed = 0
    for report in asyncio.run(run()):
        turns = turns_of(report)
        print([(t["caller_text"], t["understood"], t["agent_text"][:60]) for t in turns[1:]])
        asked = next((t for t in turns if t["agent_text"].startswith("I heard ")), None)
        if asked is None:
            continue
        read_back += 1
        number = asked["agent_text"].removeprefix("I heard ").partition(".")[0]
        assert number == asked["caller_text"]
        confirmed += any(f"appointment {number}" in t["agent_text"] and t["caller_text"] == "yes" for t in turns)
    print(f"spoken numbers: {read_back} of 4 read back, {confirmed} confirmed by yes")
    assert read_back >= 3
    assert confirmed >= 3


def test_silence_is_prompted_twice_then_ended(start_gateway: Start) -> None:
    gateway = start_gateway(AGENTS / "impatient.toml")
    wait: list[Action] = [Pause(60_000), HangUp()]
    reports = asyncio.run(place_all(gateway.origin, [wait, wait], noise_dbfs=-50.0))
    for report in reports:
        assert report.end == "server_closed"
        assert report.record is not None
        assert report.record["end_reason"] == "no_input"
        assert [turn["agent_text"] for turn in turns_of(report)] == [
            "Hello.",
            "Are you still there?",
            "I can't hear you.",
            "Then goodbye.",
        ]
        assert [answer.at_ms - before.at_ms > 2500 for before, answer in pairwise(report.answers)] == [True] * 3


def test_a_caller_who_is_not_understood_is_put_through_to_reception(start_gateway: Start) -> None:
    """The TwiML flow ends in <Dial>. Asked for, reception is there in its hours only."""
    gateway = start_gateway(agent=None)
    nonsense = (
        "I would like two large pizzas",
        "the dog ate my homework again",
        "who won the football game last night",
    )

    async def run() -> list[CallReport]:
        return await place_all(
            gateway.origin,
            [
                await conversation([await say(text) for text in nonsense]),
                await conversation([await say("can I speak to a person please"), await say("I need a real person")]),
                await conversation([Keys("0")]),
            ],
        )

    lost, spoken, keyed = asyncio.run(run())
    assert lost.end == "dialed"
    assert lost.verbs == ["Stream", "Dial"]
    assert [turn["understood"] for turn in turns_of(lost)] == [True, False, False, False]
    assert turns_of(lost)[-1]["agent_text"] == "I'm sorry that I could not help you. I'll put you through to reception."
    for report in (spoken, keyed):
        answer = next(t["agent_text"] for t in turns_of(report)[1:] if t["understood"])
        closed = answer.startswith("Reception is closed right now.")
        assert closed or answer == "One moment, I'll put you through to reception."
        assert report.end == ("hung_up" if closed else "dialed")
