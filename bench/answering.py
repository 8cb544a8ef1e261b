"""How often we are right about who answered: `python bench/answering.py [--seeds N] [--sounds FOLDER]`.

People and machines are played to the detector as a line would bring them: mu-law in 20 ms frames, after 0.1 to 1.5 s of
line, at -16 to -32 dBFS, with line noise of -70 to -42 dBFS (over 10 dB below the voice), each drawn by a seed. A
person says one greeting and is silent; a machine says one of two to four sentences and beeps. All voices are
espeak-ng's, in five voices and three speeds. `--sounds`: besides, the recorded studio voice of Debian's
asterisk-core-sounds-en-wav: short prompts as people, the voicemail prompts strung together as machines. Neither is a
recording of real telephone calls: of those there are none here. Tones, music and noise are to be neither.
"""

import argparse
import asyncio
import time
import wave
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from trunkline.media import tones
from trunkline.media.answering import LONG_GREETING_MS, SHORT_GREETING_MS, AnsweringDetector
from trunkline.media.music import hold_music
from trunkline.testing.caller.speech import Samples, at_level, noise, synthesize, to_frames

RATE_HZ = 8000
VOICES, SPEEDS_WPM = ("en-us", "en-gb", "en-us+f3", "en-us+m3", "en-gb+f2"), (140, 165, 190)
AT_HOME = (
    "Hello?",
    "Yes?",
    "Hi.",
    "Hello, who is this?",
    "Good morning.",
    "This is Anna.",
    "Hello, Maria speaking.",
    "The Millers, hello?",
)
AT_DESKS = (
    "Billing, how can I help?",
    "Elm Street Clinic, good morning.",
    "Good morning, Elm Street Clinic, Maria speaking.",
    "Hello, this is Tom from accounting, what can I do for you?",
    "Thank you for calling Elm Street Clinic, this is Maria, how can I help you?",
)
MACHINES = (
    "Hi, you have reached Bob Miller. I cannot take your call right now. Please leave a message after the tone.",
    "Your call has been forwarded to an automatic voice message system. At the tone, please record your message.",
    "Hello, this is Anna. I'm not here, so leave me a message and I will call you back. Thanks.",
    "The person you are trying to reach is not available. Please leave a message after the beep.",
    "You've reached the voicemail of Elm Street Clinic. Our office is closed. Leave your name and number.",
)
BEEPS = ((1000, 400), (1400, 500), (850, 250), (440, 300), (2000, 180), (620, 900))


def line(seconds: float) -> Samples:
    return np.zeros(round(seconds * RATE_HZ), np.float32)


def beep(hz: float, ms: int) -> Samples:
    t = np.arange(ms * RATE_HZ // 1000) / RATE_HZ
    return np.asarray(0.25 * np.sin(2 * np.pi * hz * t), np.float32)


def on_a_line(rng: np.random.Generator, voice: Samples, then: Samples) -> Samples:
    level = float(rng.uniform(-32, -16))
    whole = np.concatenate([line(rng.uniform(0.1, 1.5)), at_level(voice, level), then])
    return whole + noise(float(rng.uniform(-70, min(-42.0, level - 10))), len(whole), int(rng.integers(1 << 30)))


def message(rng: np.random.Generator) -> Samples:
    """What a machine does when it has spoken."""
    hz, ms = BEEPS[rng.integers(len(BEEPS))]
    return np.concatenate([line(rng.uniform(0.3, 1.2)), beep(hz, ms), line(3)])


def spoken(texts: tuple[str, ...]) -> list[Samples]:
    async def all_of_them() -> list[Samples]:
        return [await synthesize(text, voice, wpm) for text in texts for voice in VOICES for wpm in SPEEDS_WPM]

    return asyncio.run(all_of_them())


def recorded(folder: Path, *names: str) -> Samples:
    parts = []
    for name in names:
        with wave.open(str(folder / f"{name}.wav")) as wav:
            parts.append(np.frombuffer(wav.readframes(wav.getnframes()), np.int16).astype(np.float32) / 32768)
    return np.concatenate(parts)


def short_prompts(folder: Path) -> Iterator[Samples]:
    for file in sorted(folder.glob("*.wav")):
        with wave.open(str(file)) as wav:
            if 0.3 <= wav.getnframes() / wav.getframerate() <= 1.8 and "beep" not in file.name:
                yield recorded(folder, file.stem)


def machines_of(folder: Path) -> Iterator[Samples]:
    digits = folder / "digits"
    for seed in range(40):
        number = [recorded(digits, str(d)) for d in np.random.default_rng(seed).integers(0, 10, 4)]
        yield np.concatenate([recorded(folder, "vm-theperson"), *number, recorded(folder, "vm-isunavail", "vm-intro")])


def judged(samples: Samples, greeting_ms: int) -> AnsweringDetector:
    detector = AnsweringDetector(greeting_ms)
    for frame in to_frames(samples):
        detector.feed(frame)
    return detector


def row(what: str, clips: list[Samples], then: Callable[[np.random.Generator], Samples], seeds: int) -> None:
    for greeting_ms in (SHORT_GREETING_MS, LONG_GREETING_MS):
        found: Counter[str] = Counter()
        beeps, after_ms = 0, []
        for seed in range(seeds):
            for at, clip in enumerate(clips):
                rng = np.random.default_rng((seed, at))
                detector = judged(on_a_line(rng, clip, then(rng)), greeting_ms)
                found[str(detector.who)] += 1
                beeps += detector.beep_ms is not None
                after_ms.append(detector.decided_ms)
        whole = sum(found.values())
        shares = ", ".join(f"{who} {100 * n / whole:.1f} %" for who, n in found.most_common())
        median_s, late_s = np.percentile(after_ms, (50, 95)) / 1000
        print(
            f"{what:32} {greeting_ms} ms  n={whole:4}  {shares}; beep {100 * beeps / whole:.1f} %; "
            f"after {median_s:.1f} s (p95 {late_s:.1f})"
        )


def silence(rng: np.random.Generator) -> Samples:
    return line(6)


def neither() -> None:
    print("\nneither, over 8 s:")
    sounds = {f"noise {db} dBFS": noise(db, 8 * RATE_HZ) for db in (-60, -45, -30, -20)}
    for name, samples in sounds.items():
        print(f"  {name:24} {judged(samples, SHORT_GREETING_MS).who}")
    loops = {"hold music": hold_music()}
    loops |= {f"{n} {c}": tones.tone(n, c) for c in ("US", "GB", "DE", "FR") for n in ("dial", "ringback", "busy")}
    for name, loop in loops.items():
        detector = AnsweringDetector()
        source = loop.play()
        for _ in range(400):
            detector.feed(source.frame())
        print(f"  {name:24} {detector.who}{', beep' if detector.beep_ms is not None else ''}")


def cost() -> None:
    frames = to_frames(np.concatenate(spoken(MACHINES[:1])[:1] * 3))
    best = []
    for _ in range(20):
        detector = AnsweringDetector(LONG_GREETING_MS)
        began = time.thread_time()
        for frame in frames[:250]:
            detector.feed(frame)
        best.append((time.thread_time() - began) / 250 * 1e6)
    print(f"\ncost: {np.median(best):.0f} us a frame, {np.median(best) * 50 / 1e4:.2f} % of a core while it listens")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--sounds", type=Path)
    given = parser.parse_args()
    row("people at home", spoken(AT_HOME), silence, given.seeds)
    row("people at desks", spoken(AT_DESKS), silence, given.seeds)
    row("machines", spoken(MACHINES), message, given.seeds)
    row("machines without a beep", spoken(MACHINES), silence, given.seeds)
    if given.sounds:
        row("recorded: short prompts", list(short_prompts(given.sounds)), silence, given.seeds)
        row("recorded: voicemail prompts", list(machines_of(given.sounds)), message, given.seeds)
    neither()
    cost()


if __name__ == "__main__":
    main()
