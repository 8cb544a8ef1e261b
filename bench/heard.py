"""What the agent believes was heard against what was played: `python bench/heard.py [--cuts 200] [--json]`.

Starts a gateway with bench/standin.toml, whose voice speaks every word in 200 ms, and callers who interrupt every
answer at a random moment. The caller's side counts what it played of an answer before our `clear` reached it; the
call's record says which words were heard. With `--loss` and `--stall-every` all of it goes through a relay that loses
segments and stalls (trunkline/testing/relay.py): then what is played while our `clear` is on its way comes on top.

Exit status 1 when a word more than was played is recorded, or on a clean path more than one less.
"""

import argparse
import asyncio
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

from served import served

from trunkline.testing.caller.commands import BenchOptions, BenchReport, bench_twilio
from trunkline.testing.relay import Impairment, Relay

AGENT = Path(__file__).parent / "standin.toml"
CALLS = 20
CUT_EVERY_S = 5.2  # of one call: a phrase, the answer's first word, up to 2.5 s of it
START_S = 30.0


async def interrupt(origin: str, cuts: int, path: Impairment, seed: int) -> BenchReport:
    async with Relay(int(origin.rpartition(":")[2]), up=path, down=path, seed=seed) as relay:
        options = BenchOptions(
            relay.origin,
            calls=CALLS,
            duration_s=math.ceil(cuts / CALLS * CUT_EVERY_S),
            public_url=origin,
            interrupt_share=1.0,
            heard=True,
            seed=seed,
        )
        return await bench_twilio(options)


def figures(report: BenchReport) -> dict[str, Any]:
    differences = [c.words_more for c in report.cuts if c.words_more is not None]
    return {
        "interruptions": report.interruptions,
        "judged": len(differences),
        "exact": differences.count(0),
        "one_less": differences.count(-1),
        "more": sum(d > 0 for d in differences),
        "most_less": -min(differences, default=0),
        "barge_in_ms_p95": report.barge_in_ms.p95,
        "missed_clears": report.missed_clears,
        "gaps": report.gaps,
        "warnings": report.warnings,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=200, help="interruptions, about (default 200)")
    parser.add_argument("--loss", type=float, default=0.0, help="share of lost segments, such as 0.02")
    parser.add_argument("--stall-every", type=float, help="300 ms of nothing every so many seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    path = Impairment(loss=arguments.loss, stall_every_s=arguments.stall_every)
    with tempfile.TemporaryDirectory() as folder, served(Path(folder), AGENT, {}) as origin:
        found = figures(asyncio.run(interrupt(origin, arguments.cuts, path, arguments.seed)))
    print(json.dumps(found) if arguments.json else "\n".join(f"{name:18}{value}" for name, value in found.items()))
    clean = path == Impairment()
    sys.exit(found["more"] > 0 or found["judged"] == 0 or (clean and found["most_less"] > 1))


if __name__ == "__main__":
    main()
