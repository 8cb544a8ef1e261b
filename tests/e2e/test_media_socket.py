"""A real gateway, a live call, and every kind of hostile socket beside it."""

import asyncio
import contextlib
import json
import random
import struct
from collections import Counter
from collections.abc import Callable
from typing import Protocol

import httpx
import pytest

from trunkline.testing.caller import commands as caller

pytestmark = pytest.mark.e2e

SOCKETS, AT_ONCE = 300, 20
CONNECT_S = 10.0
HANDSHAKE = (
    b"GET /twilio/media HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
MAY_CLOSE_WITH = {1000, 1002, 1003, 1007, 1008, 1009}


class Gateway(Protocol):
    process: "object"
    port: int
    origin: str
    log: str

    def complaints(self) -> list[str]: ...


def framed(payload: bytes, first: int = 0x81) -> bytes:
    if len(payload) < 126:
        return bytes([first, 0x80 | len(payload)]) + b"\0\0\0\0" + payload
    return struct.pack("!BBH", first, 0x80 | 126, len(payload)) + b"\0\0\0\0" + payload


START = {
    "event": "start",
    "sequenceNumber": "1",
    "start": {
        "streamSid": "MZ" + "0" * 32,
        "callSid": "CA" + "0" * 32,
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"token": "x" * 60 + "." + "y" * 43},
    },
}
VALID = [
    json.dumps(message).encode()
    for message in (
        {"event": "connected", "protocol": "Call", "version": "1.0.0"},
        START,
        {"event": "media", "sequenceNumber": "2", "media": {"payload": "/" * 216, "timestamp": "20", "chunk": "1"}},
        {"event": "mark", "sequenceNumber": "3", "mark": {"name": "1:40"}},
        {"event": "dtmf", "dtmf": {"digit": "1"}},
        {"event": "stop", "sequenceNumber": "4"},
    )
]


def _mutated(dice: random.Random) -> bytes:
    text = bytearray(dice.choice(VALID))
    for _ in range(dice.randint(0, 4)):
        text[dice.randrange(len(text))] = dice.randrange(256)
    return bytes(text)


ATTACKS: list[Callable[[random.Random], bytes]] = [
    lambda dice: dice.randbytes(dice.randint(0, 200)),
    lambda dice: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + dice.randbytes(100),
    lambda dice: HANDSHAKE[: dice.randrange(len(HANDSHAKE))],
    lambda dice: HANDSHAKE[:-2] + b"X: y\r\n" * 4000,
    lambda dice: HANDSHAKE + dice.randbytes(dice.randint(1, 300)),
    lambda dice: HANDSHAKE + framed(_mutated(dice)),
    lambda dice: HANDSHAKE + b"".join(framed(_mutated(dice)) for _ in range(6)),
    lambda dice: HANDSHAKE + framed(VALID[0]) + framed(VALID[1]),  # a forged token
    lambda dice: HANDSHAKE + b"\x81\xff" + struct.pack("!Q", 1 << dice.randrange(17, 64)) + b"\0\0\0\0",
    lambda dice: HANDSHAKE + framed(b"", 0x01) + framed(b"x", 0x00) * 100,
    lambda dice: HANDSHAKE + framed(b"x" * 100, 0x89) * 2000,  # pings, and never reads
    lambda dice: HANDSHAKE + framed(struct.pack("!H", dice.randrange(65536)), 0x88),
    lambda dice: HANDSHAKE + framed(b"[" * 60_000),
    lambda dice: b"POST /twilio/voice HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n" + dice.randbytes(500),
    lambda dice: b"GET /" + b"a" * 70_000,
]


async def _attack(port: int, dice: random.Random) -> int | None:
    """The code the gateway closes with, if it gets that far."""
    reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), CONNECT_S)
    answer = b""
    try:
        data = dice.choice(ATTACKS)(dice)
        while data:
            size = dice.choice((1, 7, 100, 5000, 100_000))
            writer.write(data[:size])
            data = data[size:]
            if dice.random() < 0.2:
                await asyncio.sleep(0.001)
        if dice.random() < 0.7:  # the others do not read
            async with asyncio.timeout(0.3):
                answer = await reader.read(100_000)
                answer += await reader.read(100_000)
    except (OSError, TimeoutError):
        pass
    finally:
        if dice.random() < 0.5:
            writer.transport.abort()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    frames = answer.partition(b"\r\n\r\n")[2] if answer.startswith(b"HTTP/1.1 101") else b""
    return int.from_bytes(frames[2:4], "big") if frames[:1] == b"\x88" else None


def test_a_call_goes_on_unharmed_while_three_hundred_hostile_sockets_come_and_go(gateway: Gateway) -> None:
    options = caller.CallOptions(
        target=gateway.origin,
        actions=caller.parse_script(
            "listen\nsay can you hear me over this noise\nlisten\nsay and now once more\nlisten\nhangup"
        ),
        api_url="auto",
    )

    async def attackers() -> Counter[int | None]:
        await asyncio.sleep(1.0)
        gate = asyncio.Semaphore(AT_ONCE)
        codes: Counter[int | None] = Counter()

        async def one(number: int) -> None:
            async with gate:
                codes[await _attack(gateway.port, random.Random(number))] += 1

        await asyncio.gather(*(one(number) for number in range(SOCKETS)))
        return codes

    async def scenario() -> tuple[caller.CallReport, Counter[int | None]]:
        async with asyncio.timeout(90):
            return await asyncio.gather(caller.place_call(options), attackers())

    report, codes = asyncio.run(scenario())
    assert sum(codes.values()) == SOCKETS
    assert set(codes) <= MAY_CLOSE_WITH | {None} | set(range(1000, 1015)) | set(range(3000, 5000)), codes
    assert codes[1002] + codes[1007] + codes[1008] > SOCKETS / 20, codes  # they did get through to the machine
    assert report.end == "hung_up", report
    assert report.close_codes == [1000]
    assert [turn.understood for turn in report.turns] == ["caller phrase"] * 2
    assert [answer.gaps for answer in report.answers if not answer.cleared] == [0] * len(report.answers)
    assert gateway.complaints() == []

    exposed = httpx.get(gateway.origin + "/metrics").text
    assert "trunkline_calls_live 0.0" in exposed
    live = {line.rpartition(" ")[2] for line in exposed.splitlines() if line.startswith("trunkline_ws_open ")}
    assert live <= {"0.0"} or float(live.pop()) <= AT_ONCE  # the last strangers have five seconds


def test_strangers_do_not_keep_callers_out(gateway: Gateway) -> None:
    options = caller.CallOptions(target=gateway.origin, actions=caller.parse_script("listen\nhangup"))

    async def scenario() -> caller.CallReport:
        strangers = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(200)]
        answers: Counter[bytes] = Counter()
        for _, writer in strangers:
            writer.write(HANDSHAKE)
        for reader, _ in strangers:
            answers[(await asyncio.wait_for(reader.readline(), CONNECT_S)).partition(b" ")[2][:3]] += 1
        assert answers[b"101"] >= 64
        assert answers[b"503"] > 0
        await asyncio.sleep(1.2)
        report = await caller.place_call(options)
        for _, writer in strangers:
            writer.transport.abort()
        return report

    report = asyncio.run(scenario())
    assert (report.end, report.close_codes) == ("hung_up", [1000]), report
    assert gateway.complaints() == []
