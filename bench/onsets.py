"""How soon the beginning of speech is noticed, and what it costs in false beginnings: `python bench/onsets.py`.

The ears as a call has them, every frame with its beat, on calls whose caller may interrupt (guarded), with and without
the glance between the windows. No clock: what is counted are frames after the first one that is speech, so 0 is "with
its first frame". Phrases are bench_sip's, spoken by espeak-ng, at all phases of the windows. Then what must not begin
anything: echo of our own voice (bench/echo.py's rooms), noise, and the noises of trunkline/testing/noises.py.
"""

import asyncio
import random
from collections.abc import Sequence

import echo as rooms
import numpy as np
from numpy.typing import NDArray

from trunkline.media import g711
from trunkline.media.ears import Ears
from trunkline.media.echo import EchoGuard
from trunkline.media.vad import EnergyGate, Floats, SileroBatch
from trunkline.testing import noises
from trunkline.testing.caller.bench import PHRASES
from trunkline.testing.caller.speech import synthesize, to_speech
from trunkline.types import FRAME_MS, MULAW_8K

FRAME = MULAW_8K.frame_samples
SILENCE = MULAW_8K.silence * FRAME


class Caller:
    """`guard`: of a line with an echo; `wrong`: samples by which its clock is."""

    def __init__(self, guard: EchoGuard | None = None, wrong: int = 0) -> None:
        self.guard, self.wrong = guard, wrong
        self.began: list[float] = []

    def speech_started(self, at: float) -> None:
        self.began.append(at)

    def speech_sustained(self) -> None: ...

    def speech_ended(self, at: float) -> None: ...

    def is_echo(self, recent: Floats, at: float) -> bool:
        return self.guard is not None and self.guard.explains(recent, self._position(at))

    def may_be_echo(self, recent: Floats, at: float) -> bool:
        return self.guard is not None and self.guard.may_explain(recent, self._position(at))

    def _position(self, at: float) -> int:
        return round(at * 8000) + self.wrong

    def crashed(self, error: Exception) -> None:
        raise error


def ears(callers: Sequence[Caller], glancing: bool) -> tuple[Ears, list[int]]:
    n = len(callers)
    heard = Ears(MULAW_8K, n, SileroBatch(n), EnergyGate(n))
    if not glancing:
        heard._glance = lambda: None  # type: ignore[method-assign]
    slots = [slot for slot in map(heard.open, callers) if slot is not None]
    for slot in slots:
        heard.guard(slot, True)
        heard.set_endpoint(slot, 320)
    return heard, slots


async def onsets(glancing: bool, rounds: int = 40) -> NDArray[np.int64]:
    phrases = [to_speech(text, await synthesize(text)) for text in PHRASES]
    chance, late = random.Random(1), []
    for _ in range(rounds):
        callers = [Caller() for _ in phrases]
        heard, slots = ears(callers, glancing)
        before, noticed = chance.randrange(60, 140), dict[int, int]()
        for k in range(before + 30):
            for slot, phrase in zip(slots, phrases, strict=True):
                said = phrase.first + k - before
                spoken = k >= before and said < len(phrase.frames)
                heard.write(slot, phrase.frames[said] if spoken else SILENCE, k * FRAME_MS / 1000)
            heard.beat(k * FRAME_MS / 1000)
            for i, caller in enumerate(callers):
                if caller.began:
                    noticed.setdefault(i, (k - before) * FRAME_MS)
        late += noticed.values()
    return np.array(late)


def beginnings(
    lines: Sequence[NDArray[np.float64]],
    glancing: bool,
    agents: Sequence[bytes] | None = None,
    wrong: Sequence[int] = (),
) -> list[int]:
    """How often speech began on each of these lines."""
    guards = [EchoGuard(MULAW_8K) if agents else None for _ in lines]
    callers = [Caller(guard, wrong[i] if wrong else 0) for i, guard in enumerate(guards)]
    heard, slots = ears(callers, glancing)
    codes = [g711.encode((np.clip(line, -1, 1) * 32767).astype(np.int16).tobytes(), "mulaw") for line in lines]
    for k in range(min(map(len, codes)) // FRAME):
        frame, now = slice(k * FRAME, (k + 1) * FRAME), (k + 1) * FRAME_MS / 1000
        for i, (slot, guard) in enumerate(zip(slots, guards, strict=True)):
            if guard is not None and agents is not None:
                guard.played(k * FRAME, agents[i][frame])
            heard.write(slot, codes[i][frame], now)
        heard.beat(now)
    return [len(caller.began) for caller in callers]


def quiet(seed: int, seconds: float, dbfs: float) -> NDArray[np.float64]:
    made: NDArray[np.float64] = np.random.default_rng(seed).standard_normal(int(8000 * seconds)) * 10 ** (dbfs / 20)
    return made


def noise(made: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    line = quiet(seed, 4, -50)
    line[8000 : 8000 + len(made)] += made[: len(line) - 8000]
    return line


def main() -> None:
    for glancing in (False, True):
        late = asyncio.run(onsets(glancing))
        told = ", ".join(f"{ms} ms {np.mean(late == ms) * 100:.0f} %" for ms in range(0, 120, FRAME_MS))
        name = "with the glance" if glancing else "by whole windows"
        print(
            f"onset noticed {name}: mean {late.mean():.0f} ms, p95 {np.percentile(late, 95):.0f} ({told})", flush=True
        )
    made = [noises.cough, noises.throat, noises.hum, noises.burst, noises.door, noises.keyboard]
    wrong = [int(x) for x in np.random.default_rng(3).uniform(-60, 60, 24) * 8]
    for glancing in (False, True):
        name = "with the glance" if glancing else "by whole windows"
        for echo_db in (-10, -15, -20):
            scenes = [rooms.scene(seed, echo_db, None, 20) for seed in range(24)]
            lines, agents = [scene.heard.astype(np.float64) for scene in scenes], [scene.agent for scene in scenes]
            count = sum(beginnings(lines, glancing, agents, wrong))
            print(f"beginnings {name}, 8 minutes of echo at {echo_db} dB: {count}")
        counts = [sum(map(bool, beginnings([noise(f(seed), seed) for seed in range(12)], glancing))) for f in made]
        told = ", ".join(f"{f.__name__} {count}" for f, count in zip(made, counts, strict=True))
        print(f"of 12 noises each that began speech {name}: {told}")
        white = beginnings([quiet(seed, 60, -44) for seed in range(24)], glancing)
        print(f"beginnings {name}, 24 minutes of noise at -44 dBFS: {sum(white)}", flush=True)


if __name__ == "__main__":
    main()
