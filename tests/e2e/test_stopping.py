"""What a dying process owes its callers: they finish, the next ones hear the fallback, and the record is whole."""

import asyncio
import signal
import socket
import sqlite3
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from trunkline.testing.caller import commands as caller

pytestmark = pytest.mark.e2e

CALLER = {"From": "+15005550006", "To": "+15005550001", "CallStatus": "ringing", "Direction": "inbound"}


def reasons(data_dir: Path) -> list[str]:
    with sqlite3.connect(data_dir / "trunkline.db") as database:
        return [row[0] for row in database.execute("SELECT end_reason FROM calls ORDER BY started_at")]


async def on_the_line(gateway: Any) -> None:
    async with httpx.AsyncClient() as http:
        for _ in range(200):
            if "trunkline_calls_live 1.0" in (await http.get(gateway.origin + "/metrics")).text:
                return
            await asyncio.sleep(0.05)
    raise AssertionError(gateway.log)


def call(gateway: Any, script: str) -> "asyncio.Task[caller.CallReport]":
    options = caller.CallOptions(target=gateway.origin, actions=caller.parse_script(script))
    return asyncio.create_task(caller.place_call(options))


def test_sigterm_lets_the_call_finish_and_turns_new_callers_to_the_fallback(start_gateway: Any) -> None:
    gateway = start_gateway(limits__drain_seconds="30", twilio__fallback_text="Please call tomorrow.")

    async def scenario() -> caller.CallReport:
        live = call(gateway, "listen\nsay I want to hear all of your answer\nlisten\nhangup")
        await on_the_line(gateway)
        await asyncio.sleep(1)
        gateway.signal()
        await asyncio.sleep(0.5)
        async with httpx.AsyncClient(base_url=gateway.origin) as http:
            answer = await http.post("/twilio/voice", data={**CALLER, "CallSid": "CA" + "1" * 32})
            assert (answer.status_code, "Please call tomorrow." in answer.text) == (200, True)
            assert (await http.get("/readyz")).status_code == 503
        return await live

    report = asyncio.run(scenario())
    assert (report.end, report.close_codes) == ("hung_up", [1000])
    assert len(report.answers) == 2
    assert gateway.wait() == 0
    assert sorted(reasons(gateway.data_dir)) == ["caller_hung_up", "overloaded"]
    assert gateway.complaints() == []


def test_the_drain_has_an_end_and_says_goodbye(start_gateway: Any) -> None:
    gateway = start_gateway(limits__drain_seconds="1")

    async def scenario() -> caller.CallReport:
        live = call(gateway, "listen\npause 60000\nhangup")
        await on_the_line(gateway)
        await asyncio.sleep(3)
        gateway.signal()
        return await live

    report = asyncio.run(scenario())
    assert gateway.wait() == 0
    assert report.end == "server_closed", report
    assert len(report.answers) == 2  # the greeting, and goodbye
    assert reasons(gateway.data_dir) == ["drained"]
    assert gateway.complaints() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_does_not_wait_for_calls(start_gateway: Any, number: int) -> None:
    gateway = start_gateway(limits__drain_seconds="600")

    async def scenario() -> float:
        live = call(gateway, "listen\npause 60000\nhangup")
        await on_the_line(gateway)
        gateway.signal(number)
        await asyncio.sleep(0.5)
        assert gateway.process.poll() is None
        gateway.signal(number)
        began = time.monotonic()
        await live
        return began

    began = asyncio.run(scenario())
    assert gateway.wait() == 0
    assert time.monotonic() - began < 8
    assert reasons(gateway.data_dir) == ["drained"]
    assert gateway.complaints() == []


def test_an_idle_gateway_stops_at_once_even_with_silent_peers(start_gateway: Any) -> None:
    gateway = start_gateway()
    silent = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(3)]
    silent[1].sendall(b"GET /twilio/media HTTP/1.1\r\n")
    silent[2].sendall(b"POST /twilio/voice HTTP/1.1\r\n")
    time.sleep(0.2)
    began = time.monotonic()
    gateway.signal()
    assert gateway.wait() == 0
    assert time.monotonic() - began < 5
    assert gateway.complaints() == []
    for peer in silent:
        peer.close()


def test_a_taken_port_is_one_line_and_status_2(start_gateway: Any) -> None:
    first = start_gateway()
    second = start_gateway(ready=False, http__port=str(first.port))
    assert second.wait() == 2
    assert second.log.splitlines() == [f"trunkline: http.port = {first.port}: another port: this one is taken"]
    assert first.process.poll() is None


def test_a_data_folder_in_use_is_one_line_and_status_2(start_gateway: Any) -> None:
    first = start_gateway()
    second = start_gateway(ready=False, data_dir=str(first.data_dir))
    assert second.wait() == 2
    assert len(second.log.splitlines()) == 1, second.log
    assert second.log.startswith("trunkline: ")


def test_peers_that_neither_send_nor_read_do_not_hold_it_up(start_gateway: Any) -> None:
    gateway = start_gateway()
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.connect(("127.0.0.1", gateway.port))
    deaf.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 2000)
    slow = socket.create_connection(("127.0.0.1", gateway.port))
    form = b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\nabc"
    slow.sendall(b"POST /twilio/voice HTTP/1.1\r\nHost: x\r\n" + form)
    time.sleep(0.5)
    gateway.signal()
    assert gateway.wait(10) == 0
    assert gateway.complaints() == []
    deaf.close()
    slow.close()
