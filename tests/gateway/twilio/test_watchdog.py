"""Calls of a process that is stuck."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from trunkline.gateway.twilio.watchdog import SLACK_S, STUCK_S, Watch
from trunkline.testing.board import Board, run

SID = "CA" + "1" * 32


def test_nobody_is_hung_up_while_the_gateway_tells() -> None:
    watch = Watch(0.0)
    watch.told({SID: 1.0}, None, 10.0)
    assert watch.over(10.0 + STUCK_S - 0.1) == []


def test_once_it_is_stuck_each_call_ends_at_its_own_limit() -> None:
    watch = Watch(0.0)
    watch.told({"CAa": 1.0, "CAb": 60.0}, None, 10.0)
    assert watch.over(10.0 + STUCK_S) == ["CAa"]
    assert watch.over(70.0 + SLACK_S) == ["CAa", "CAb"]
    watch.told({"CAb": 1.0}, None, 71.0)  # it is back
    assert watch.over(72.0) == []


def test_the_process_is_killed_when_it_carries_nothing_else() -> None:
    watch = Watch(0.0)
    watch.told({"CAa": 1.0}, 20.0, 10.0)
    assert not watch.kills(100.0)  # a call of Twilio's is to be hung up first
    del watch.ends_at["CAa"]
    assert [watch.kills(at) for at in (30.0, 30.0 + SLACK_S)] == [False, True]
    watch.told({}, None, 200.0)
    assert not watch.kills(999.0)


def test_what_the_gateway_tells() -> None:
    async def scenario(board: Board) -> None:
        board.admit(1)
        board.admit(2, leg="sip")
        told = board.switchboard.lasting()
        assert list(told["calls"].values()) == [608.0]
        assert told["others_s"] == 608.0

    run(scenario)


GATEWAY = """
import asyncio, sys
from types import SimpleNamespace
from trunkline.gateway.watched import Watched
hello = {"account_sid": "AC" + "2" * 32, "user": "u", "password": "p", "region": None, "edge": None}
hello["api_url"] = sys.argv[1]
board = SimpleNamespace(lasting=lambda: {"calls": {sys.argv[2]: 2.0}, "others_s": 3.0})
async def main():
    Watched(board, hello).start()
    await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.fixture
def twilio() -> Iterator[Any]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            asked.append(f"{self.path} {body}")
            answer = json.dumps({"sid": SID, "status": "completed"}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *of: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.mark.e2e
def test_kill_stop_and_its_calls_end_at_their_limit_all_the_same(twilio: Any) -> None:
    url, asked = twilio
    gateway = subprocess.Popen([sys.executable, "-c", GATEWAY, url, SID])
    try:
        time.sleep(6)
        assert asked == []
        os.kill(gateway.pid, signal.SIGSTOP)
        gateway.wait(timeout=STUCK_S + SLACK_S + 15)
    finally:
        if gateway.poll() is None:
            gateway.kill()
            gateway.wait()
    assert gateway.returncode == -signal.SIGKILL
    assert len(asked) == 1
    assert f"/Calls/{SID}.json Status=completed" in asked[0]
