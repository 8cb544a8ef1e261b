"""Recorded human speech in real calls: Debian's asterisk-core-sounds-en-wav, one studio voice at 8 kHz, with its texts.

Forty phrases are the intents of an agent, each answered by its own number; forty others are none of them. Which are
which is drawn once, by a seed; no phrase was chosen for being easy.
"""

import asyncio
import gzip
import random
import re
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from trunkline.testing.caller.commands import Action, CallOptions, CallReport, HangUp, Listen, Speak, place_call
from trunkline.testing.caller.speech import SPOKEN_DBFS, at_level, read_wav, to_speech

pytestmark = pytest.mark.e2e

Start = Callable[..., Any]  # conftest.start_gateway

SOUNDS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
TEXTS = Path("/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")
INTENTS, OTHERS, CALLS = 40, 40, 8
SEED = 2

needs_recordings = pytest.mark.skipif(
    not (TEXTS.exists() and SOUNDS.exists()), reason="no recorded speech: apt install asterisk-core-sounds-en-wav"
)


@dataclass(frozen=True)
class Phrase:
    words: str
    wav: Path


def recorded() -> list[Phrase]:
    """Phrases of two to eight words whose text is all there is in the file, each text once."""
    found: dict[str, Phrase] = {}
    with gzip.open(TEXTS, "rt", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            name, _, text = line.strip().partition(":")
            wav = SOUNDS / f"{name}.wav"
            if line.startswith(";") or re.search(r"[\[(\d]|\.\.\.", text) or not wav.is_file():
                continue
            words = " ".join(re.sub(r"[^a-z' ]+", " ", text.lower()).split())
            if 2 <= len(words.split()) <= 8:
                found.setdefault(words, Phrase(words, wav))
    return list(found.values())


def drawn() -> tuple[list[Phrase], list[Phrase]]:
    """Intents and others. A phrase that holds an intent's words, or is held by one, is neither: it would be both."""
    phrases = [p for p in recorded() if known(p.words)]
    random.Random(SEED).shuffle(phrases)
    intents: list[Phrase] = []
    others: list[Phrase] = []
    for phrase in phrases:
        chosen = intents if len(intents) < INTENTS else others
        if not any(f" {p.words} " in f" {phrase.words} " or f" {phrase.words} " in f" {p.words} " for p in intents):
            chosen.append(phrase)
    return intents, others[:OTHERS]


def known(words: str) -> bool:
    from trunkline.agents.local.ears import pronunciations

    return len(pronunciations(words.split())) == len(set(words.split()))


def agent_file(intents: Sequence[Phrase], path: Path) -> Path:
    parts = [
        'name = "Phrases"',
        'greeting = "Hello."',
        '[stt]\nprovider = "pocketsphinx"\n[llm]\nprovider = "script"\n[tts]\nprovider = "espeak"',
        # One voice says unconnected things here: never give up on it.
        '[words]\ngoodbye = ["farewell operator"]\nrepeat = ["come again operator"]',
        "[fallback]\nnot_understood = [" + ", ".join(['"Not understood."'] * 20) + "]",
    ]
    parts += [
        f'[[intents]]\nname = "p{i}"\nphrases = ["{p.words}"]\nreply = "Phrase {i}."' for i, p in enumerate(intents)
    ]
    path.write_text("\n\n".join(parts))
    return path


async def place_all(origin: str, plans: Sequence[Sequence[Phrase]]) -> list[CallReport]:
    async def one(at: int, phrases: Sequence[Phrase]) -> CallReport:
        actions: list[Action] = []
        for phrase in phrases:
            speech = to_speech(phrase.words, at_level(read_wav(phrase.wav), SPOKEN_DBFS))
            actions += [Listen(quiet_ms=300), Speak(speech)]
        actions += [Listen(), HangUp()]
        await asyncio.sleep(at * 0.2)
        options = CallOptions(origin, actions, noise_dbfs=-60.0, seed=at, api_url="auto", max_duration_s=100)
        return await place_call(options)

    async with asyncio.timeout(110):
        return list(await asyncio.gather(*(one(at, plan) for at, plan in enumerate(plans))))


def heard_as(report: CallReport) -> list[list[Mapping[str, Any]]]:
    """For each thing said the record's turns until the next was said: two, where a pause was taken for the end."""
    assert report.record is not None, report
    assert report.end == "hung_up", report
    answered = datetime.fromisoformat(report.record["answered_at"])
    begins = [turn.at_ms or 0.0 for turn in report.turns]
    heard: list[list[Mapping[str, Any]]] = [[] for _ in begins]
    for turn in report.record["turns"]:
        ended_ms = (datetime.fromisoformat(turn["at"]) - answered).total_seconds() * 1000
        at = bisect(begins, ended_ms) - 1
        if at >= 0:
            heard[at].append(turn)
    return heard


@needs_recordings
def test_recorded_phrases_are_recognised_and_others_rejected(start_gateway: Start, tmp_path: Path) -> None:
    intents, others = drawn()
    assert (len(intents), len(others)) == (INTENTS, OTHERS)
    gateway = start_gateway(agent_file(intents, tmp_path / "phrases.toml"), speech__workers="2")
    said = [*intents, *others]
    random.Random(SEED).shuffle(said)
    plans = [said[at::CALLS] for at in range(CALLS)]

    right = rejected = 0
    mistakes: list[str] = []
    for plan, report in zip(plans, asyncio.run(place_all(gateway.origin, plans)), strict=True):
        for phrase, turns in zip(plan, heard_as(report), strict=True):
            meant = [t for t in turns if t["understood"] and t["agent_text"] != "Not understood."]
            inside = phrase in intents
            good = not meant
            if inside:
                good = any(t["agent_text"] == f"Phrase {intents.index(phrase)}." for t in meant)
            right, rejected = right + (inside and good), rejected + (good and not inside)
            if not good:
                words = [t["caller_text"] for t in turns]
                mistakes.append(f"{'intent' if inside else 'other '} {phrase.words!r} -> {words}")
    print(f"\nrecorded speech: {right} of {INTENTS} intents recognised, {rejected} of {OTHERS} others not understood")
    print("\n".join(mistakes))
    assert right >= 0.9 * INTENTS
    assert rejected >= 0.8 * OTHERS
