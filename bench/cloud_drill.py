"""Every fault on the wire of Deepgram, OpenAI and ElevenLabs (local servers, real SDKs), and what the caller heard:

    python bench/cloud_drill.py [--only KIND] [--lifeboat]

Two of each kind and the lifeboat behind them; `--lifeboat`: both fail. A table as markdown; bench/README.md has one.
"""

import argparse
import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.e2e.cloud import WIRE_FAULTS, Heard, Kind, cloud

KINDS: tuple[Kind, ...] = ("stt", "llm", "tts")


async def main(kinds: list[Kind], both: bool) -> None:
    done: list[Heard] = []
    async with cloud() as servers:
        done.append(await servers.call())
        print(done[-1])
        for kind in kinds:
            for fault in WIRE_FAULTS:
                done.append(await servers.call(kind, fault, both=both))
                print(done[-1], flush=True)
    print("\n| kind | fault | dead air ms | lost | repeated | ended |\n|---|---|---|---|---|---|")
    for each in done:
        words = f"{each.dead_air_ms:,} | {each.lost_words} | {each.repeated_words} | {each.ended}"
        print(f"| {each.kind or '-'} | {(each.fault or 'none').replace('_', ' ')} | {words} |")


if __name__ == "__main__":
    asks = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asks.add_argument("--only", choices=KINDS)
    asks.add_argument("--lifeboat", action="store_true")
    asked = asks.parse_args()
    asyncio.run(main([asked.only] if asked.only else list(KINDS), asked.lifeboat))
