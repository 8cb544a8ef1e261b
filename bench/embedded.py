"""The embedded agent's turn latency: the clinic's own phrases, in espeak-ng voices, over real calls.

trunkline serve                                    # in one shell, the built-in clinic agent
python bench/embedded.py http://127.0.0.1:8080 --calls 4 --seconds 60
"""

import argparse
import asyncio

from rich.console import Console

from trunkline.testing.caller import commands as caller

PHRASES = (
    "what are your opening hours",
    "are you open on Tuesday",
    "where is the clinic",
    "when do you close",
    "how do I get there",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--calls", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--voice", default="en-us")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    report = asyncio.run(
        caller.bench_twilio(
            caller.BenchOptions(
                target=options.target,
                calls=options.calls,
                duration_s=options.seconds,
                interrupt_share=0.0,
                phrases=PHRASES,
                voice=options.voice,
            )
        )
    )
    if options.json:
        print(caller.to_json(report))
    else:
        caller.render_bench(report, Console(highlight=False))


if __name__ == "__main__":
    main()
