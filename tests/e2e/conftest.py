"""A real gateway process for the tests: `python -m trunkline.cli serve` on a free port, stopped by SIGTERM."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx
import pytest

START_S, STOP_S = 30.0, 15.0


@dataclass(frozen=True)
class Gateway:
    origin: str
    process: "subprocess.Popen[bytes]"
    folder: Path
    """Its working folder: `log.txt` is what it wrote, `data` its data."""

    @property
    def log(self) -> str:
        return (self.folder / "log.txt").read_text(errors="replace")


class StartGateway(Protocol):
    def __call__(self, agent: Path | None = None, **settings: str) -> Gateway:
        """Settings without their prefix: `SPEECH__WORKERS="1"`. Ready for calls when this returns."""
        ...


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[StartGateway]:
    running: list[Gateway] = []

    def start(agent: Path | None = None, **settings: str) -> Gateway:
        folder = tmp_path / f"gateway{len(running)}"
        folder.mkdir()
        gateway = _start(folder, agent, settings)
        running.append(gateway)
        return gateway

    yield start
    for gateway in running:
        gateway.process.send_signal(signal.SIGTERM)
    for gateway in running:
        try:
            gateway.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            gateway.process.kill()
            gateway.process.wait()
    for gateway in running:
        assert "Traceback" not in gateway.log, gateway.log[-4000:]


def _start(folder: Path, agent: Path | None, settings: dict[str, str]) -> Gateway:
    port = _free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}
    environment |= {
        "TRUNKLINE_HTTP__PORT": str(port),
        "TRUNKLINE_DATA_DIR": str(folder / "data"),
        "TRUNKLINE_LIMITS__DRAIN_SECONDS": "0",
        **({"TRUNKLINE_AGENT": str(agent)} if agent else {}),
        **{f"TRUNKLINE_{name}": value for name, value in settings.items()},
    }
    command = [sys.executable, "-m", "trunkline.cli", "serve"]
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    gateway = Gateway(f"http://127.0.0.1:{port}", process, folder)
    deadline = time.monotonic() + START_S
    while not _ready(gateway.origin):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise RuntimeError(f"the gateway did not start:\n{gateway.log[-4000:]}")
        time.sleep(0.1)
    return gateway


def _ready(origin: str) -> bool:
    try:
        return httpx.get(f"{origin}/readyz", timeout=2.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
