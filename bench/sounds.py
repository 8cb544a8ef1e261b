"""Speech for the benches: Allison's recorded phrases (Debian: asterisk-core-sounds-en-wav) and espeak-ng."""

import random
import subprocess
import wave
from functools import cache
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from trunkline.media import g711

Samples = NDArray[np.float64]

ALLISON = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
AGENT_LINES = (
    "Hello, this is the front desk of the clinic. How may I help you today?",
    "We are open from eight in the morning until six in the evening, Monday to Friday.",
    "Your appointment number is four seven one one. Is that correct?",
    "Please hold the line while I connect you to a person at reception.",
    "I am sorry, I did not understand that. Could you say it again, please?",
)
CALLER_LINES = (
    "Wait, can I speak to a person?",
    "No, that is not right.",
    "Stop please.",
    "I want to change my appointment.",
    "Excuse me, what are your hours?",
    "Hold on a second.",
)
CALLER_VOICES = ("en-gb-scotland", "en-us+f3", "en-gb+m7", "en-us+f2", "en-gb-x-rp+m3")


@cache
def phrases(least_s: float = 1.0, most_s: float = 8.0) -> tuple[Samples, ...]:
    found = []
    for path in sorted(ALLISON.glob("*.wav")):
        with wave.open(str(path)) as file:
            if least_s * 8000 < file.getnframes() < most_s * 8000:
                found.append(np.frombuffer(file.readframes(file.getnframes()), np.int16) / 32768.0)
    if not found:
        raise SystemExit(f"no recorded phrases in {ALLISON}: install asterisk-core-sounds-en-wav")
    return tuple(found)


@cache
def spoken(text: str, voice: str) -> Samples:
    made = subprocess.run(["espeak-ng", "-v", voice, "--stdout", text], capture_output=True, check=True).stdout
    pcm = np.frombuffer(made[44:], np.int16) / 32768.0
    return np.asarray(soxr.resample(pcm, 22050, 8000), np.float64)


def at_level(x: Samples, level_db: float) -> Samples:
    """Scaled so that its loud 20 ms frames have this level (dBFS)."""
    frames = x[: len(x) // 160 * 160].reshape(-1, 160)
    energy = (frames**2).mean(axis=1)
    active = energy[energy > energy.max() * 1e-3].mean()
    return x * (10 ** (level_db / 20) / np.sqrt(active))


def monologue(seed: int, seconds: float, recorded: bool, level_db: float = -20.0) -> Samples:
    """Phrases with pauses of 50-300 ms."""
    rng, parts, length = random.Random(seed), [], 0
    while length < seconds * 8000:
        x = rng.choice(phrases()) if recorded else spoken(rng.choice(AGENT_LINES), rng.choice(("en-us", "en-gb")))
        parts += [at_level(x, level_db), np.zeros(rng.randint(400, 2400))]
        length += len(parts[-2]) + len(parts[-1])
    return np.concatenate(parts)[: int(seconds * 8000)]


def interruption(seed: int, level_db: float, seconds: float = 1.5) -> Samples:
    rng = random.Random(seed + 999)
    recorded = rng.random() < 0.5
    x = rng.choice(phrases()) if recorded else spoken(rng.choice(CALLER_LINES), rng.choice(CALLER_VOICES))
    return at_level(x[: int(seconds * 8000)], level_db)


def over_the_line(x: Samples) -> NDArray[np.float32]:
    """Through mu-law."""
    codes = g711.encode((np.clip(x, -1, 1) * 32767).astype(np.int16).tobytes(), "mulaw")
    return g711.MULAW_F32.take(np.frombuffer(codes, np.uint8))


def noise(samples: int, level_db: float, seed: int) -> Samples:
    return np.random.default_rng(seed).standard_normal(samples) * 10 ** (level_db / 20)
