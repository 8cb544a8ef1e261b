"""Orders with an Idempotency-Key, a carrier that counts INVITEs, and kill -9."""

import json
import re
import signal
import socket
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import httpx
import pytest

from trunkline.gateway.api.idempotency import fingerprint

pytestmark = pytest.mark.e2e

ORDER = {"to": "+12025550123"}


class Carrier:
    """Hears INVITEs over UDP, lets them ring (180), and never answers. `calls`: the number and Call-ID of each."""

    def __init__(self) -> None:
        self.calls: set[tuple[str, str]] = set()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                data, peer = self._socket.recvfrom(65535)
            except OSError:
                return
            text = data.decode(errors="replace")
            if not text.startswith("INVITE "):
                continue
            lines = [line for line in text.split("\r\n") if re.match(r"(Via|From|To|Call-ID|CSeq):", line)]
            number = text.removeprefix("INVITE sip:").partition("@")[0]
            self.calls.add((number, next(line for line in lines if line.startswith("Call-ID"))))
            answer = ["SIP/2.0 180 Ringing", *(f"{x};tag=c" if x.startswith("To:") else x for x in lines)]
            contact = f"Contact: <sip:127.0.0.1:{self.port}>"
            self._socket.sendto("\r\n".join([*answer, contact, "Content-Length: 0", "", ""]).encode(), peer)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def carrier() -> Iterator[Carrier]:
    carrier = Carrier()
    yield carrier
    carrier.close()


def order(gateway: Any, key: str, body: dict[str, Any] | None = None) -> httpx.Response:
    return httpx.post(f"{gateway.origin}/v1/calls", json=body or ORDER, headers={"Idempotency-Key": key}, timeout=10.0)


def settings(carrier: Carrier) -> dict[str, str]:
    return {
        "outbound__allow": "US",
        "sip__trunks__carrier__host": f"127.0.0.1:{carrier.port}",
        "sip__trunks__carrier__ping_s": "0",
    }


def test_an_order_repeated_across_a_kill_is_dialled_once(sip_gateway: Any, carrier: Carrier, tmp_path: Any) -> None:
    first = sip_gateway(data_dir=str(tmp_path / "data"), **settings(carrier))
    placed = order(first, "k-1")
    assert placed.status_code == 201, placed.text
    assert order(first, "k-1").json() == placed.json()
    first.until(lambda: len(carrier.calls) == 1)
    first.gateway.process.send_signal(signal.SIGKILL)
    first.kill()

    again = sip_gateway(data_dir=str(tmp_path / "data"), **settings(carrier))
    repeated = order(again, "k-1")
    assert (repeated.status_code, repeated.json()) == (201, placed.json())
    assert repeated.headers["location"] == placed.headers["location"]
    other = order(again, "k-1", ORDER | {"ring_timeout_s": 5})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    record = again.ended(placed.json()["id"])
    assert (record["end_reason"], record["ended_by"]) == ("gateway_lost", "gateway")
    assert len(carrier.calls) == 1
    order(again, "k-2")
    again.until(lambda: len(carrier.calls) == 2)


def test_an_order_taken_and_not_begun_when_the_gateway_died_is_lost(
    sip_gateway: Any, carrier: Carrier, tmp_path: Any
) -> None:
    """The moment between the two is too short to hit: it is put into the database."""
    first = sip_gateway(data_dir=str(tmp_path / "data"), **settings(carrier))
    first.kill()
    with closing(sqlite3.connect(tmp_path / "data" / "trunkline.db")) as database, database:
        mark = fingerprint(json.dumps(ORDER).encode())
        row = ("default", "k", mark, "call_promised", "0", "2999-01-01 00:00:00.000000")
        database.execute(
            "INSERT INTO idempotency_keys (tenant_id, key, fingerprint, call_id, worker, expires_at) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            row,
        )
    again = sip_gateway(data_dir=str(tmp_path / "data"), **settings(carrier))
    assert order(again, "k").json()["id"] == "call_promised"
    record = again.ended("call_promised")
    assert (record["end_reason"], record["ended_by"], record["to_number"]) == ("gateway_lost", "gateway", ORDER["to"])
    assert order(again, "k").status_code == 201
    assert (carrier.calls, len(again.calls())) == (set(), 1)


def test_many_who_order_at_once_with_one_key_get_one_call(sip_gateway: Any, carrier: Carrier) -> None:
    gateway = sip_gateway(**settings(carrier))
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: order(gateway, "k"), range(100)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 201}) == 1
    gateway.until(lambda: len(carrier.calls) == 1)
    assert len(gateway.calls()) == 1
    gateway.is_well()


def test_killed_at_any_moment_no_order_is_dialled_twice(sip_gateway: Any, carrier: Carrier, tmp_path: Any) -> None:
    """Orders keep coming while the gateway is killed; all of them are repeated until each has its call."""
    data = str(tmp_path / "data")
    gateway = sip_gateway(data_dir=data, **settings(carrier))
    numbers = [f"+120255501{n:02d}" for n in range(40)]

    def place(number: str) -> str | None:
        try:
            answer = order(gateway, f"key-{number}", {"to": number})
        except httpx.HTTPError:
            return None
        return str(answer.json()["id"]) if answer.status_code == 201 else None

    with ThreadPoolExecutor(8) as pool:
        placing = [pool.submit(place, number) for number in numbers]
        gateway.until(lambda: len(carrier.calls) >= 5)
        gateway.kill()
        before = [future.result() for future in placing]
    dialled = {number for number, _ in carrier.calls}
    assert 5 <= len(dialled) < len(numbers), "it was killed too early or too late to show anything"
    gateway = sip_gateway(data_dir=data, **settings(carrier))
    after = [place(number) for number in numbers]
    assert None not in after
    assert len(set(after)) == len(numbers)
    assert all(a == b for a, b in zip(before, after, strict=True) if a is not None)
    gateway.until(lambda: len(gateway.calls()) >= len(numbers))  # the database is a moment behind
    live = {str(call["id"]): bool(call["live"]) for call in gateway.calls()}
    assert set(after) == set(live), "every order has one record"
    fresh = {number for number, call_id in zip(numbers, after, strict=True) if live[str(call_id)]}
    assert not fresh & dialled
    gateway.until(lambda: {number for number, _ in carrier.calls} == dialled | fresh)
    assert len(carrier.calls) == len(dialled | fresh), "a number was dialled twice"
