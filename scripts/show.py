"""The show, for people to listen to: the clinic on each backend, over Twilio's protocol and over SIP.

    .venv/bin/python scripts/show.py FOLDER [BACKEND ...] [--sip | --twilio]

FOLDER gets two recordings a call (stereo: left the caller, right the agent), BACKEND-LEG-caller.wav and -gateway.wav,
and heard.md: what was understood and heard, by the records. The services are the local servers of tests/fakes.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.e2e.backends import BACKENDS, Shown, show, table
from tests.e2e.conftest import gateways, model_servers
from trunkline.testing.ports import lease


def write(path: Path, sides: Sequence["np.ndarray[tuple[int], np.dtype[np.int16]]"]) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(np.stack(sides, axis=1).tobytes())


def main() -> None:
    asks = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asks.add_argument("folder", type=Path)
    asks.add_argument("backends", nargs="*", metavar="BACKEND", help=", ".join(BACKENDS))
    only = asks.add_mutually_exclusive_group()
    only.add_argument("--sip", action="store_true")
    only.add_argument("--twilio", action="store_true")
    asked = asks.parse_args()
    if unknown := set(asked.backends) - set(BACKENDS):
        asks.error(f"no such backend: {', '.join(sorted(unknown))}; there are {', '.join(BACKENDS)}")
    asked.folder.mkdir(parents=True, exist_ok=True)
    done: list[Shown] = []
    for backend in asked.backends or BACKENDS:
        for leg in ["twilio"] * (not asked.sip) + ["sip"] * (not asked.twilio):
            with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
                start = stack.enter_context(gateways(Path(name)))
                models = stack.enter_context(model_servers(Path(name)))
                port = lease() if leg == "sip" else None
                shown = asyncio.run(show(backend, start, models, Path(name), port))
            done.append(shown)
            write(asked.folder / f"{backend}-{leg}-caller.wav", shown.callers)
            write(asked.folder / f"{backend}-{leg}-gateway.wav", shown.gateways)
            (asked.folder / "heard.md").write_text(table(done), encoding="utf-8")
            print(f"{backend} over {leg}: {shown.record['end_reason']}, {shown.report.duration_s:.0f} s")
    print(table(done))


if __name__ == "__main__":
    main()
