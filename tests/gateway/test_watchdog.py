"""Calls of a process that is stuck."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from trunkline.gateway.sip.farewell import Farewell
from trunkline.gateway.watchdog import SLACK_S, STUCK_S, Goodbyes, Watch, _hang_up
from trunkline.gateway.watched import Watched, udp_socket
from trunkline.testing.board import Board, run, sid

SID = sid(1)


DIALOG = Farewell("one@a", "<sip:us@a>;tag=o", "<sip:b@b>;tag=t", "sip:b@192.0.2.9", (), 10_001, "udp")


def twilios(**left_s: float) -> dict[str, Any]:
    return {name: {"left_s": each, "sid": f"sid-{name}"} for name, each in left_s.items()}


def sips(name: str, left_s: float, *dialogs: str) -> dict[str, Any]:
    return {name: {"left_s": left_s, "dialogs": dialogs}}


def test_nobody_is_hung_up_while_the_gateway_tells() -> None:
    watch = Watch(0.0)
    watch.told(twilios(a=1.0), {}, 10.0)
    assert watch.over(10.0 + STUCK_S - 0.1) == []


def test_once_it_is_stuck_each_call_ends_at_its_own_limit() -> None:
    watch = Watch(0.0)
    watch.told(twilios(a=1.0, b=60.0), {}, 10.0)
    assert watch.over(10.0 + STUCK_S) == ["a"]
    assert watch.over(70.0 + SLACK_S) == ["a", "b"]
    watch.told(twilios(b=1.0), {}, 71.0)  # it is back
    assert watch.over(72.0) == []


def test_the_process_is_killed_when_it_carries_nothing_else() -> None:
    watch = Watch(0.0)
    watch.told(twilios(a=1.0) | sips("b", 20.0) | sips("c", 15.0), {}, 10.0)
    assert not watch.kills(100.0)  # a call of Twilio's is to be hung up first
    watch.ended("a")
    assert [watch.kills(at) for at in (30.0, 30.0 + SLACK_S)] == [False, True]
    watch.told({}, {}, 200.0)
    assert not watch.kills(999.0)


def test_without_an_account_a_call_of_twilios_ends_with_the_process() -> None:
    watch = Watch(0.0)
    watch.told(twilios(a=1.0), {}, 10.0)
    asyncio.run(_hang_up(watch, None, "sid-a", "a"))
    assert [watch.kills(at) for at in (11.0, 10.0 + STUCK_S + SLACK_S)] == [False, True]


def test_a_sip_call_that_is_over_gets_a_bye_in_each_of_its_dialogs_once() -> None:
    watch, other = Watch(0.0), replace(DIALOG, call_id="two@a")
    watch.told(sips("a", 1.0, "1", "2") | sips("b", 60.0, "3"), {"1": DIALOG.told(), "3": DIALOG.told()}, 10.0)
    watch.told(sips("a", 1.0, "1", "2") | sips("b", 60.0, "3"), {"2": other.told()}, 11.0)  # only what is new
    assert watch.over(20.0) == ["a"]
    assert watch.byes("a") == [DIALOG, other]
    assert watch.byes("a") == []
    assert watch.all_byes() == [DIALOG]
    watch.told(sips("b", 60.0, "3"), {}, 21.0)
    assert list(watch.farewells) == ["3"]


def test_what_the_gateway_tells() -> None:
    async def scenario(board: Board) -> None:
        one, two = board.admit(1), board.admit(2, leg="sip")
        assert board.switchboard.lasting() == {one: {"left_s": 608.0, "sid": SID}, two: {"left_s": 608.0}}

    run(scenario)


def test_a_telling_that_fails_for_whatever_is_begun_again_by_another_watchdog(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[int] = []

    async def tell(self: Watched) -> None:
        told.append(1)
        if len(told) == 1:
            raise KeyError("a call")
        await asyncio.sleep(3600)

    async def scenario(board: Board) -> None:
        monkeypatch.setattr(Watched, "_tell", tell)
        watched = Watched(board.switchboard, {})
        watched.start()
        await asyncio.sleep(60)
        assert len(told) == 2
        await watched.close()

    run(scenario)


def test_a_bye_leaves_by_the_gateways_own_socket_and_again_as_the_same_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trunkline.gateway.watchdog.BYE_AT_S", (0.0, 0.01, 0.01))
    far, gateway = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in "ab")
    with far, gateway:
        for each in (far, gateway):
            each.bind(("127.0.0.1", 0))
        far.settimeout(2)
        host, port = far.getsockname()
        fd = udp_socket(*gateway.getsockname())
        assert fd == gateway.fileno()
        assert udp_socket("127.0.0.1", 1) is None
        goodbyes = Goodbyes(os.dup(fd))
        left = [replace(DIALOG, target=f"sip:b@{host}:{port}"), replace(DIALOG, target="sip:b@[bad")]
        asyncio.run(goodbyes.say(left, last=True))
        came = [far.recvfrom(2048) for _ in range(3)]
        assert came[0][1] == gateway.getsockname()
        assert len({data for data, _ in came}) == 1  # the last two by another socket, of whoever comes next
        assert f"Via: SIP/2.0/UDP 127.0.0.1:{gateway.getsockname()[1]};".encode() in came[0][0]


def test_a_bye_over_tcp() -> None:
    async def scenario() -> None:
        came: list[bytes] = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            came.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"SIP/2.0 200 OK\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            await Goodbyes(None).say([replace(DIALOG, target=f"sip:b@127.0.0.1:{port};transport=tcp")])
        assert came[0].startswith(b"BYE sip:b@127.0.0.1")
        assert b"\r\nVia: SIP/2.0/TCP 127.0.0.1:" in came[0]

    asyncio.run(scenario())


GATEWAY = """
import asyncio, sys
from types import SimpleNamespace
from trunkline.gateway.watched import Watched
hello = {"account_sid": "AC" + "2" * 32, "user": "u", "password": "p", "region": None, "edge": None}
hello["api_url"] = sys.argv[1]
lasting = {"a": {"left_s": 2.0, "sid": sys.argv[2]}, "b": {"left_s": 3.0}}
board = SimpleNamespace(lasting=lambda: {name: dict(told) for name, told in lasting.items()})
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
