"""A `trunkline serve-models` of its own process, for real-time tests."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.e2e.conftest import environment
from trunkline.testing.ports import lease

CLINIC = Path(__file__).parents[2] / "trunkline" / "agents" / "examples" / "clinic.toml"
READY_S = 90.0


class Models:
    """A `trunkline serve-models` of the clinic that is ready."""

    def __init__(self, folder: Path, agent: Path = CLINIC) -> None:
        self.port = lease()
        self.log_path = folder / f"models{self.port}.log"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "trunkline.cli",
                    "serve-models",
                    "--agent",
                    str(agent),
                    "--port",
                    str(self.port),
                ],
                env=environment(speech__workers="1"),
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def until_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while "serves the models" not in self.log:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # its speech workers, too
        self.process.wait(10)
