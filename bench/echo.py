"""How well the echo guard tells our own voice from a caller: `python bench/echo.py [--calls N] [--jitter MS]`.

Agent: espeak-ng and recorded phrases at -20 dBFS. Echo path: 50-400 ms, telephone band, fractional delay, five random
reflections within 25 ms, mu-law both ways, line noise at -50 dBFS; the playback clock is wrong by up to 60 ms (fixed
per call) and by `--jitter` per window. The guard is asked as ears.py asks: on windows that pass the gate and score as
speech. The first 200 ms count from the first such window.
Levels of echo and caller are relative to the agent. "Ceiling" is what gate and Silero alone would have declared.
"""

import argparse
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sounds import Samples, at_level, interruption, monologue, noise, over_the_line

from trunkline.media import g711
from trunkline.media.echo import EchoGuard
from trunkline.media.vad import EnergyGate, SileroBatch
from trunkline.types import MULAW_8K

W = 256
FIRST_WINDOWS = 7  # 200 ms


@dataclass
class Scene:
    agent: bytes
    heard: NDArray[np.float32]
    caller: NDArray[np.float32]


def telephone_band(x: Samples) -> Samples:
    hz = np.fft.rfftfreq(len(x), 1 / 8000)
    gain = 1 / np.sqrt(1 + (300 / np.maximum(hz, 1)) ** 6) / np.sqrt(1 + (hz / 3400) ** 16)
    return np.fft.irfft(np.fft.rfft(x) * gain, len(x))


def echo_path(rng: np.random.Generator, delay_ms: float, gain_db: float) -> Samples:
    path, direct = np.zeros(int(8 * (delay_ms + 45))), int(delay_ms * 8)
    path[direct : direct + 33] = np.sinc(np.arange(-16, 17) - rng.random()) * np.hamming(33)
    for _ in range(5):
        after_ms = rng.uniform(1, 25)
        weaker_db = 6 + after_ms / 2 + rng.uniform(0, 6)
        path[direct + 16 + int(after_ms * 8)] += rng.choice([-1, 1]) * 10 ** (-weaker_db / 20)
    return path / np.sqrt((path**2).sum()) * 10 ** (gain_db / 20)


def scene(seed: int, echo_db: float | None, caller_db: float | None, seconds: float) -> Scene:
    rng = np.random.default_rng(seed)
    agent = over_the_line(monologue(seed, seconds, recorded=seed % 2 == 1)).astype(np.float64)
    heard = noise(len(agent), -50, seed)
    if echo_db is not None:
        path = echo_path(rng, rng.uniform(50, 400), echo_db)
        heard += np.convolve(telephone_band(agent), path)[16:][: len(agent)]
    caller = np.zeros(len(agent))
    if caller_db is not None:
        said = at_level(interruption(seed, 0), caller_db - 20)
        onset = int(rng.uniform(seconds / 2, seconds - 2) * 8000)
        caller[onset : onset + len(said)] = said[: len(agent) - onset]
    codes = g711.encode((agent * 32767).astype(np.int16).tobytes(), "mulaw")
    return Scene(codes, over_the_line(heard + caller), over_the_line(caller))


@dataclass
class Outcome:
    scored: NDArray[np.bool_]
    explained: NDArray[np.bool_]
    voiced: NDArray[np.bool_]
    known: int
    searching_us: list[float]
    known_us: list[float]


def run(scenes: list[Scene], jitter_ms: float) -> Outcome:
    n, length = len(scenes), len(scenes[0].heard) // W
    silero, clean, gate, slots = SileroBatch(n), SileroBatch(n), EnergyGate(n), np.arange(n)
    guards = [EchoGuard(MULAW_8K) for _ in scenes]
    rng = np.random.default_rng(3)
    wrong = rng.uniform(-60, 60, n) * 8
    scored, explained, voiced = (np.zeros((n, length), np.bool_) for _ in range(3))
    costs: dict[bool, list[float]] = {False: [], True: []}
    for i, s in enumerate(scenes):
        guards[i].played(0, s.agent[: 4 * W])
    for t in range(4, length):
        end = (t + 1) * W
        windows = np.stack([s.heard[end - W : end] for s in scenes])
        gated = gate.run(slots, windows).open
        silero.skip(slots[~gated], windows[~gated])
        if gated.any():
            scored[gated, t] = silero.run(slots[gated], windows[gated]) >= 0.5
        voiced[:, t] = clean.run(slots, np.stack([s.caller[end - W : end] for s in scenes])) >= 0.5
        for i, (s, guard) in enumerate(zip(scenes, guards, strict=True)):
            guard.played(end - W, s.agent[end - W : end])
            if scored[i, t]:
                known, position = guard.known, int(end + wrong[i] + rng.uniform(-jitter_ms, jitter_ms) * 8)
                started = time.perf_counter()
                explained[i, t] = guard.explains(s.heard[end - 1024 : end], position)
                costs[known].append((time.perf_counter() - started) * 1e6)
    return Outcome(scored, explained, voiced, sum(g.known for g in guards), costs[False], costs[True])


def report(name: str, o: Outcome, echo: bool) -> None:
    first, later, onsets, ceiling, callers = [], [], [], [], 0
    for scored, explained, voiced in zip(o.scored, o.explained, o.voiced, strict=True):
        begins = int(voiced.argmax()) if voiced.any() else len(voiced)
        if echo:
            windows = np.flatnonzero(scored[:begins])
            is_first = windows < (windows[0] if len(windows) else 0) + FIRST_WINDOWS
            first += list(~explained[windows[is_first]])
            later += list(~explained[windows[~is_first]])
        if voiced.any():
            callers += 1
            ceiling.append(scored[begins : begins + 2].any())
            onsets.append((scored & ~explained)[begins : begins + 2].any())
    parts = [f"{name:28}"]
    if echo:
        parts.append(
            f"echo taken for speech {np.mean(first) * 100:4.1f} % first 200 ms, {np.mean(later) * 100:4.2f} % later"
        )
    if callers:
        both = o.voiced & o.scored
        parts.append(f"onset in 40 ms {np.mean(onsets) * 100:3.0f} % (ceiling {np.mean(ceiling) * 100:3.0f})")
        parts.append(f"caller windows {100 * (both & ~o.explained).sum() / both.sum():3.0f} %")
    for label, costs in (("search", o.searching_us), ("known", o.known_us)):
        if costs:
            parts.append(f"{label} us {np.mean(costs):.0f} (median {np.median(costs):.0f})")
    print(" | ".join(parts), flush=True)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--calls", type=int, default=36)
    options.add_argument("--seconds", type=float, default=10)
    options.add_argument("--jitter", type=float, default=0, help="of arrival, +- ms per window")
    given = options.parse_args()
    for echo_db in (None, -10, -15, -20):
        for caller_db in (None, -6, -12, -20):
            if echo_db is None and caller_db is None:
                continue
            scenes = [scene(seed, echo_db, caller_db, given.seconds) for seed in range(given.calls)]
            name = f"echo {echo_db or 'none':>4}, caller {caller_db or 'none':>4}"
            report(name, run(scenes, given.jitter), echo_db is not None)


if __name__ == "__main__":
    main()
