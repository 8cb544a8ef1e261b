"""What second ears cost beside a realtime model: `python bench/overheard.py [--seconds 120]`. CPU, so not in real time.

A caller who speaks 30 % of the time, of whom nobody else writes anything down (`hears_words` is "never", the dearest
case): the same frames, 20 ms each, with second ears and without, and one real speech worker. `gateway`: CPU of this
process, so of the loop; `worker`: of the speech worker; both as a share of a core and call.
"""

import argparse
import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from trunkline.agents.local.pool import SpeechPool
from trunkline.agents.local.voice import synthesize
from trunkline.agents.wishes.ears import SecondEars
from trunkline.media.g711 import encode
from trunkline.types import MULAW_8K

SAYS = "I would like to know when you are open on Saturday and whether I need an appointment for that"
SHARE = 0.3
FRAME = MULAW_8K.frame_bytes
TICKS = os.sysconf("SC_CLK_TCK")


def worker_s() -> float:
    """CPU of this process's children, alive ones too."""
    fields = [path.read_text().rpartition(")")[2].split() for path in Path("/proc").glob("[0-9]*/stat")]
    return sum(int(each[11]) + int(each[12]) for each in fields if int(each[1]) == os.getpid()) / TICKS


class Line:
    """A bus of which only the ears' side is there."""

    playout = SimpleNamespace(format=MULAW_8K)
    listener: Any = None

    def latest(self, ms: int) -> bytes:
        return MULAW_8K.silence * (ms * MULAW_8K.bytes_per_ms)

    def overhear(self, listener: Any) -> None:
        self.listener = listener


async def call(line: Line, seconds: float, settled: Callable[[], bool]) -> float:
    """Seconds of the call."""
    speech = encode(synthesize(SAYS), "mulaw")
    quiet = int(len(speech) / FRAME * (1 / SHARE - 1))
    lasted = 0.0
    while lasted < seconds:
        heard = line.listener
        if heard is not None:
            heard.speech_started(lasted)
        for at in range(0, len(speech) - FRAME, FRAME):
            if heard is not None:
                heard.hear(speech[at : at + FRAME])
        if heard is not None:
            heard.speech_ended(lasted)
        for _ in range(quiet):
            if heard is not None:
                heard.hear(MULAW_8K.silence * FRAME)
        lasted += (len(speech) // FRAME + quiet) * 0.02
        while not settled():  # noqa: ASYNC110 - nobody tells; a worker that was lost has time to come back, as in a call
            await asyncio.sleep(0.02)
    return lasted


async def measure(seconds: float) -> None:
    pool = SpeechPool(1)
    ears = SecondEars(pool)
    await ears.start()
    attends = SimpleNamespace(hears_words="never", transcripts=0)
    for name in ("without", "with"):
        line = Line()
        overhearing = None
        if name == "with":
            overhearing = ears.overhear(cast(Any, line), lambda: attends, print, cast(Any, None))
        await asyncio.sleep(1)
        gateway, worker = time.process_time(), worker_s()
        lasted = await call(
            line,
            seconds,
            lambda o=overhearing: o is None or (o._job is None and pool.ready_workers > 0),  # type: ignore[misc]
        )
        gateway, worker = time.process_time() - gateway, worker_s() - worker
        print(f"{name}: gateway {gateway / lasted:.2%}, worker {worker / lasted:.2%} of a core a call, {lasted:.0f} s")
    print(f"{ears.heard} utterances heard, {ears.missed} missed, {pool.stats.restarts} workers lost")
    await ears.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0)
    asyncio.run(measure(parser.parse_args().seconds))


if __name__ == "__main__":
    main()
