"""What hearing costs and misses: `python bench/vad.py`.

Cost of one beat's step (decode, gate, Silero on all windows) per window, by batch; then, on calls of recorded phrases
at -20 dBFS with pauses of 1-3 s, how many windows the gate lets through, and how soon speech scores 0.5.
"""

import random
import time
from collections.abc import Callable

import numpy as np
from sounds import at_level, noise, over_the_line, phrases

from trunkline.media.g711 import MULAW_F32
from trunkline.media.vad import EnergyGate, SileroBatch

W = 256
CALLS = 48


def best_us(step: Callable[[], object], windows: int, times: int = 60) -> float:
    best = 1e9
    for _ in range(times):
        started = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - started)
    return best / windows * 1e6


def cost() -> None:
    silero, gate = SileroBatch(256), EnergyGate(256)
    ring = np.random.default_rng(1).integers(0, 255, (256, 16384), dtype=np.uint8)
    for n in (1, 4, 16, 64, 256):
        slots = np.arange(n)
        windows = np.zeros((n, W), np.float32)

        def gather(n: int = n, windows: np.ndarray = windows) -> None:
            MULAW_F32.take(ring[:n, :W], out=windows, mode="clip")

        gather()
        parts = {
            "decode": best_us(gather, n),
            "gate": best_us(lambda s=slots, w=windows: gate.run(s, w), n),
            "skip": best_us(lambda s=slots, w=windows: silero.skip(s, w), n),
            "silero": best_us(lambda s=slots, w=windows: silero.run(s, w), n),
        }
        scored, passed_by = sum(parts.values()) - parts["skip"], sum(parts.values()) - parts["silero"]
        told = ", ".join(f"{name} {us:.2f}" for name, us in parts.items())
        print(f"batch {n:3}: {scored:5.1f} us a window scored, {passed_by:5.2f} when gated ({told})", flush=True)


def call(seed: int, noise_db: float) -> tuple[np.ndarray, list[tuple[int, int]]]:
    rng, parts, spoken, length = random.Random(seed), [np.zeros(16000)], [], 16000
    for _ in range(4):
        x = at_level(rng.choice(phrases()), -20)
        loud = np.flatnonzero(np.abs(x) > 0.01)
        spoken.append((length + int(loud[0]), length + int(loud[-1])))
        parts += [x, np.zeros(rng.randint(8000, 24000))]
        length += len(parts[-2]) + len(parts[-1])
    x = np.concatenate(parts)
    return over_the_line(x + noise(len(x), noise_db, seed)), spoken


def quality(noise_db: float, gated: bool) -> None:
    calls = [call(seed, noise_db) for seed in range(CALLS)]
    length = min(len(x) for x, _ in calls) // W
    silero, gate, slots = SileroBatch(CALLS), EnergyGate(CALLS), np.arange(CALLS)
    scores, is_open = np.zeros((CALLS, length)), np.ones((CALLS, length), np.bool_)
    for t in range(length):
        windows = np.stack([x[t * W : (t + 1) * W] for x, _ in calls])
        if gated:
            is_open[:, t] = gate.run(slots, windows).open
        passed = is_open[:, t]
        silero.skip(slots[~passed], windows[~passed])
        if passed.any():
            scores[passed, t] = silero.run(slots[passed], windows[passed])
    speech, late_ms, missed = np.zeros((CALLS, length), np.bool_), [], 0
    for row, (_, spoken) in enumerate(calls):
        for begins, ends in spoken:
            first, last = begins // W, min(ends // W + 1, length)
            speech[row, max(0, first - 1) : last + 4] = True
            if last < length:
                found = np.flatnonzero(scores[row, first:last] >= 0.5)
                missed += not len(found)
                late_ms += [((first + int(k) + 1) * W - begins) / 8 for k in found[:1]]
    print(
        f"noise {noise_db} dBFS, {'gated ' if gated else 'always'}: open "
        f"{is_open[speech].mean() * 100:3.0f} % of speech, "
        f"{is_open[~speech].mean() * 100:3.0f} % of pauses (hangover included), "
        f"{is_open[:, 16:60].mean() * 100:.1f} % of a quiet line; onset p50 {np.percentile(late_ms, 50):.0f}, "
        f"p95 {np.percentile(late_ms, 95):.0f} ms, missed {missed}; "
        f"false {(scores[~speech] >= 0.5).mean() * 100:.2f} %",
        flush=True,
    )


if __name__ == "__main__":
    cost()
    for noise_db in (-70, -50, -44):
        for gated in (False, True):
            quality(noise_db, gated)
