"""Real gateways for real-time tests: one process each, on a free port, with a data folder of its own."""

import asyncio
import contextlib
import functools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from trunkline.store.engine import Database, database_url
from trunkline.testing.ports import lease

ROOT = Path(__file__).parents[2]
STANDIN = ROOT / "bench" / "standin.toml"
READY_S = 60.0
STOP_S = 30.0
POLL_S = 0.05


@dataclass
class Gateway:
    """A `trunkline serve` that is ready. `log` is all it has written so far."""

    process: "subprocess.Popen[bytes]"
    port: int
    data_dir: Path
    log_path: Path

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def media(self) -> str:
        return f"ws://127.0.0.1:{self.port}/twilio/media"

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, timeout_s: float = STOP_S) -> int:
        """The exit status."""
        return self.process.wait(timeout_s)

    def until(self, happened: Callable[[], bool], timeout_s: float = 10.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not happened():
            assert time.monotonic() < deadline, self.log
            time.sleep(POLL_S)

    def complaints(self) -> list[str]:
        """Lines that an admin would have to worry about."""
        return [
            line for line in self.log.splitlines() if " ERROR " in line or "Traceback" in line or "CRITICAL" in line
        ]

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # its speech workers, too
        self.process.wait(STOP_S)


Start = Callable[..., Gateway]


def environment(**settings: str) -> dict[str, str]:
    """Ours without any TRUNKLINE_ of the shell; `http__port="1"` is TRUNKLINE_HTTP__PORT=1."""
    if settings.get("record") == "true":
        settings.setdefault("privacy__recordings_days", "30")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}
    return clean | {f"TRUNKLINE_{name.upper()}": value for name, value in settings.items()}


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[Start]:
    """`start_gateway(agent=..., ready=True, http__api_key="...")`: each call is another process. Without sip__port it
    is not on SIP."""
    with gateways(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def start_shared_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """The same for all tests of a module."""
    with gateways(tmp_path_factory.mktemp("shared")) as start:
        yield start


@contextlib.contextmanager
def gateways(folder: Path) -> Iterator[Start]:
    running: list[Gateway] = []

    def start(agent: Path | None = STANDIN, *, ready: bool = True, **settings: str) -> Gateway:
        number = len(running)
        port = int(settings.setdefault("http__port", str(lease())))
        data_dir = Path(settings.setdefault("data_dir", str(folder / f"data{number}")))
        settings.setdefault("speech__workers", "1")
        settings.setdefault("compliance__max_calls_per_number_hour", "1000")  # the far end has one
        if "sip__port" not in settings:  # several run at once
            settings.setdefault("sip__enabled", "false")
        settings.setdefault("webrtc__enabled", "false")  # half a second of every start
        settings.setdefault("limits__watchdog", "false")  # a process more of each gateway
        _current_database(data_dir)
        if agent is not None:
            settings["agent"] = str(agent)
        log_path = folder / f"gateway{number}.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "trunkline.cli", "serve"],
                env=environment(**settings),
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        gateway = Gateway(process, port, data_dir, log_path)
        running.append(gateway)
        if ready:
            gateway.until(lambda: _ready(gateway), READY_S)
        return gateway

    try:
        yield start
    finally:
        for gateway in running:
            gateway.kill()


@functools.cache
def _upgraded() -> bytes:
    """A database of this version; making one is as much work as the rest of a start."""
    with tempfile.TemporaryDirectory() as folder:

        async def make() -> None:
            database = Database(database_url(None, Path(folder)))
            await database.upgrade()
            await database.close()

        asyncio.run(make())
        return (Path(folder) / "trunkline.db").read_bytes()


def _current_database(data_dir: Path) -> None:
    if not data_dir.exists():
        data_dir.mkdir(mode=0o700, parents=True)
        (data_dir / "trunkline.db").write_bytes(_upgraded())
        (data_dir / "trunkline.db").chmod(0o600)


def _ready(gateway: Gateway) -> bool:
    assert gateway.process.poll() is None, gateway.log
    try:
        return httpx.get(gateway.origin + "/readyz", timeout=2.0).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def serve_models(tmp_path: Path) -> Iterator[Callable[[Path], str]]:
    """`serve_models(agent_file)`: the target of a `trunkline serve-models` that is ready."""
    with model_servers(tmp_path) as start:
        yield start


@contextlib.contextmanager
def model_servers(folder: Path) -> Iterator[Callable[[Path], str]]:
    from tests.e2e.models import Models

    running: list[Models] = []

    def start(agent: Path) -> str:
        running.append(Models(folder, agent))
        running[-1].until_ready()
        return running[-1].target

    try:
        yield start
    finally:
        for each in running:
            each.kill()


@pytest.fixture
def gateway(start_gateway: Start, request: pytest.FixtureRequest) -> Gateway:
    """One with the stand-in agent, or what `@pytest.mark.parametrize("gateway", [{...}], indirect=True)` says."""
    return start_gateway(**getattr(request, "param", {}))
