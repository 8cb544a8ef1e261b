"""A gateway in a process of its own, for as long as it is measured."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from trunkline.testing.ports import lease

START_S = 30.0


@contextmanager
def served(folder: Path, agent: Path, settings: Mapping[str, Any], before: Sequence[str] = ()) -> Iterator[str]:
    """Its origin, once it is ready. `settings`: more of them, as `HTTP__PORT` is named; `before`: a command that runs
    it, such as taskset. Exits with its log when it does not become ready."""
    port = lease()
    origin = f"http://127.0.0.1:{port}"
    given = {"AGENT": agent, "DATA_DIR": folder / "data", "HTTP__PORT": port, "LIMITS__DRAIN_SECONDS": 0, **settings}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}
    environment |= {f"TRUNKLINE_{name}": str(value) for name, value in given.items()}
    with (folder / "log.txt").open("wb") as log:
        command = [*before, sys.executable, "-m", "trunkline.cli", "serve"]
        process = subprocess.Popen(command, env=environment, stderr=log)
    try:
        deadline = time.monotonic() + START_S
        while not _ready(origin):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit((folder / "log.txt").read_text())
            time.sleep(0.1)
        yield origin
    finally:
        process.terminate()
        process.wait()


def _ready(origin: str) -> bool:
    try:
        return httpx.get(f"{origin}/readyz", timeout=2.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
