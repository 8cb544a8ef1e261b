"""The session store's own tests on a real Redis, and devices that go on where they were: at another worker, in another
region, after kill -9, with a Redis that is away."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import READY_S, ROOT, STANDIN, STOP_S, environment
from tests.e2e.redis_server import RedisServer, redis_server
from trunkline.testing.ports import lease

pytestmark = pytest.mark.e2e

ME = {"device_id": "kitchen", "account_id": "ann"}
TAKE_OVER_S = 5.0
GREETING = "word0 word1 word2 word3 word4 word5 word6 word7 word8 word9."


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


class Device:
    """One that is connected to a gateway."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._lines = self._socket.makefile("r", encoding="utf-8")

    def ask(self, **line: Any) -> Any:
        self._socket.sendall(json.dumps(line).encode() + b"\n")
        return json.loads(self._lines.readline())

    def join(self, token: str) -> Any:
        answer = self.ask(join=token)
        assert "joined" in answer, answer
        return answer["joined"]

    def hang_up(self) -> None:
        self._lines.close()
        self._socket.close()


@dataclass
class Worker:
    """A gateway process whose devices need no network."""

    process: "subprocess.Popen[bytes]"
    origin: str
    device_port: int
    log_path: Path
    devices: list[Device] = field(default_factory=list)

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def device(self) -> Device:
        self.devices.append(Device(self.device_port))
        return self.devices[-1]

    def post(self, path: str, **body: Any) -> httpx.Response:
        return httpx.post(self.origin + path, json=body, timeout=10)

    def open(self) -> Any:
        answer = self.post("/v1/session", **ME)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def session(self, session_id: str) -> Any:
        answer = httpx.get(f"{self.origin}/v1/session/{session_id}", params={"account_id": "ann"}, timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def call(self, call_id: str) -> Any:
        return httpx.get(f"{self.origin}/v1/calls/{call_id}", timeout=10).json()

    def until(self, happened: Callable[[], bool], timeout_s: float = 10.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not happened():
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)

    def said(self, session_id: str) -> list[str]:
        return [said["text"] for said in self.session(session_id)["conversation"]]

    def metric(self, name: str) -> float:
        lines = httpx.get(self.origin + "/metrics", timeout=10).text.splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith(name + " "))

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(STOP_S)
        for device in self.devices:
            device.hang_up()
        self.devices.clear()


Start = Callable[..., Worker]


@pytest.fixture
def start(tmp_path: Path, redis: RedisServer) -> Iterator[Start]:
    """`start(region="eu")`: each is another process with a data folder and a database of its own."""
    running: list[Worker] = []

    def started(**settings: str) -> Worker:
        number, device_port = len(running), lease()
        port = settings.get("http__port") or str(lease())
        given = {
            "http__port": port,
            "data_dir": str(tmp_path / f"worker{number}"),
            "speech__workers": "1",
            "sip__enabled": "false",
            "agent": str(STANDIN),
            "redis_url": redis.url,
        }
        log_path = tmp_path / f"worker{number}.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.e2e.device_gateway"],
                env={**environment(**given | settings), "DEVICE_PORT": str(device_port)},
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        worker = Worker(process, f"http://127.0.0.1:{port}", device_port, log_path)
        running.append(worker)
        worker.until(lambda: _ready(worker), READY_S)
        return worker

    try:
        yield started
    finally:
        for worker in running:
            worker.kill()


def _ready(worker: Worker) -> bool:
    assert worker.process.poll() is None, worker.log
    try:
        socket.create_connection(("127.0.0.1", worker.device_port), timeout=1).close()
        return httpx.get(worker.origin + "/readyz", timeout=2).status_code == 200
    except (httpx.HTTPError, OSError):
        return False


@pytest.mark.parametrize("suite", ["tests/gateway/sessions/test_store.py", "tests/store/test_budgets.py"])
def test_the_stores_keep_their_promises_on_redis(redis: RedisServer, suite: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:xdist", suite],
        cwd=ROOT,
        env={**os.environ, "TRUNKLINE_TEST_REDIS_URL": redis.url},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "TRUNKLINE_TEST_REDIS_URL" not in done.stdout, "Redis's half was skipped"


@pytest.mark.parametrize("end", ["kill -9", pytest.param("SIGTERM", marks=pytest.mark.show)])
def test_a_device_whose_worker_is_gone_goes_on_at_another(start: Start, end: str) -> None:
    first, second = start(limits__drain_seconds="0"), start()
    opened = first.open()
    device = first.device()
    joined = device.join(opened["join_token"])
    assert (joined["resumed"], joined["conversation"]) == (False, [])
    first.until(lambda: first.said(opened["session_id"]) == [GREETING])
    device.ask(key="7")
    first.until(lambda: len(first.said(opened["session_id"])) >= 3, 20)
    before = first.said(opened["session_id"])

    if end == "SIGTERM":
        first.process.terminate()
        first.process.wait(STOP_S)
    first.kill()
    begun = time.monotonic()
    answer = second.post(f"/v1/session/{opened['session_id']}/token", account_id="ann")
    assert answer.status_code == 201, answer.text
    again = second.device()
    rejoined = again.join(answer.json()["join_token"])
    assert time.monotonic() - begun < TAKE_OVER_S
    assert (rejoined["session_id"], rejoined["number"]) == (opened["session_id"], 2)
    assert (rejoined["resumed"], rejoined["cut_off"]) == (True, True)
    said = [text for _, text in rejoined["conversation"]]
    assert said[: len(before)] == before
    assert said == before or end == "SIGTERM"  # which says goodbye
    assert before[:2] == [GREETING, "7"]
    second.until(lambda: len(second.said(opened["session_id"])) == len(said) + 1)
    assert "cut off" in second.said(opened["session_id"])[-1]

    record = second.call(rejoined["call_id"])
    assert record["leg"] == "websocket"
    assert record["provider_call_id"] == f"{opened['session_id']}/2"
    again.hang_up()
    second.until(lambda: second.session(opened["session_id"])["ended_as"] == "caller_hung_up")


def test_a_device_that_moves_to_another_region_is_answered_there_and_left_here(start: Start) -> None:
    first, second = start(region="eu"), start(region="us")
    opened = first.open()
    device = first.device()
    joined = device.join(opened["join_token"])
    first.until(lambda: first.said(opened["session_id"]) == [GREETING])
    moved = second.device()
    begun = time.monotonic()
    rejoined = moved.join(joined["resume_token"])  # its old leg lives: nobody has told the first worker
    assert time.monotonic() - begun < TAKE_OVER_S
    assert [text for _, text in rejoined["conversation"]] == [GREETING]
    first.until(lambda: first.call(joined["call_id"]).get("end_reason") == "media_lost", TAKE_OVER_S)
    assert second.session(opened["session_id"])["region"] == "us"
    assert second.call(rejoined["call_id"])["live"]
    assert first.metric('trunkline_session_troubles_total{kind="moved"}') == 1
    assert second.metric('trunkline_joins_total{result="resumed"}') == 1
    assert second.device().ask(join=joined["resume_token"]) == {"refused": "token_used"}
    assert first.device().ask(join=opened["join_token"]) == {"refused": "token_used"}


def test_a_session_that_its_owner_ends_elsewhere_ends_its_call(start: Start) -> None:
    first, second = start(), start()
    opened = first.open()
    joined = first.device().join(opened["join_token"])
    first.until(lambda: first.said(opened["session_id"]) == [GREETING])
    here = f"{second.origin}/v1/session/{opened['session_id']}"
    assert httpx.delete(here, params={"account_id": "bob"}, timeout=10).status_code == 403
    assert httpx.delete(here, params={"account_id": "ann"}, timeout=10).status_code == 204
    first.until(lambda: first.call(joined["call_id"]).get("end_reason") == "caller_hung_up", TAKE_OVER_S)
    assert second.device().ask(join=joined["resume_token"]) == {"refused": "session_over"}


def test_a_redis_that_hangs_or_is_gone_hurts_no_live_call(start: Start, redis: RedisServer) -> None:
    worker = start()
    opened = worker.open()
    device = worker.device()
    joined = device.join(opened["join_token"])
    worker.until(lambda: worker.said(opened["session_id"]) == [GREETING])
    redis.hang()
    begun = time.monotonic()
    refused = worker.device().ask(join=joined["resume_token"])
    assert refused == {"refused": "sessions_away"}
    assert time.monotonic() - begun < 4
    assert worker.post("/v1/session", **ME).status_code == 503
    device.ask(key="7")  # and is answered, though nobody can write it down
    worker.until(lambda: len(worker.call(joined["call_id"]).get("turns", ())) >= 1, 20)
    redis.kill()
    time.sleep(2)
    assert worker.call(joined["call_id"])["live"]
    redis.start()  # knowing nothing
    worker.until(lambda: _knows(worker, opened["session_id"]), 20)
    assert worker.said(opened["session_id"])[:2] == [GREETING, "7"]
    assert worker.device().join(joined["resume_token"])["number"] == 2
    assert worker.metric('trunkline_session_troubles_total{kind="away"}') >= 1
    assert worker.metric('trunkline_session_troubles_total{kind="moved"}') == 0


def _knows(worker: Worker, session_id: str) -> bool:
    here = f"{worker.origin}/v1/session/{session_id}"
    answer = httpx.get(here, params={"account_id": "ann"}, timeout=10)
    return answer.status_code == 200 and len(answer.json()["conversation"]) >= 2


def test_no_token_is_ever_logged(start: Start) -> None:
    worker = start(log__level="debug")
    opened = worker.open()
    device = worker.device()
    joined = device.join(opened["join_token"])
    assert worker.device().ask(join=opened["join_token"]) == {"refused": "token_used"}
    assert worker.device().ask(join="nonsense.of-a-stranger") == {"refused": "token_malformed"}
    device.hang_up()
    worker.until(lambda: worker.call(joined["call_id"]).get("end_reason") is not None)
    for secret in (opened["join_token"], joined["resume_token"], "of-a-stranger"):
        assert secret not in worker.log
        assert secret.split(".")[0] not in worker.log


@pytest.mark.show
def test_a_region_that_dies_is_nobodys_nearest(start: Start) -> None:
    ports = {"eu": str(lease()), "us": str(lease())}
    places = {"eu": ("50.11", "8.68"), "us": ("38.9", "-77.45")}
    regions = {
        f"regions__{name}__{key}": value
        for name in ports
        for key, value in {
            "url": f"http://127.0.0.1:{ports[name]}",
            "lat": places[name][0],
            "lon": places[name][1],
        }.items()
    }
    eu, us = (start(region=name, http__port=ports[name], **regions) for name in ("eu", "us"))

    def hint(**place: str) -> str:
        answer = httpx.get(f"{eu.origin}/v1/routing/hint", params={"device_id": "kitchen", **place}, timeout=10)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["region"])

    boston = {"lat": "42.36", "lon": "-71.06"}
    eu.until(lambda: hint(**boston) == "us", 20)
    assert hint() == hint(lat="52.5", lon="13.4") == "eu"
    us.kill()
    eu.until(lambda: hint(**boston) == "eu", 30)
    assert "region us is not ready" in eu.log
