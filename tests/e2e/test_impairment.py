"""Calls on a bad network: lost segments, stalls, odd pieces, a narrow path, and peers that freeze for good."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from trunkline.testing.caller.bulk import text_frame
from trunkline.testing.caller.carrier import Carrier, StreamIds
from trunkline.testing.caller.commands import (
    TEST_ACCOUNT_SID,
    Action,
    BenchOptions,
    BenchReport,
    CallOptions,
    CallReport,
    HangUp,
    Listen,
    ListenInto,
    Pause,
    Say,
    bench_twilio,
    place_call,
    to_json,
)
from trunkline.testing.caller.phone import new_call_sid, new_stream_sid
from trunkline.testing.caller.speech import PlainMouth
from trunkline.testing.caller.webhook import CallFields, Stream, Webhook
from trunkline.testing.relay import Impairment, Relay
from trunkline.types import CallSid

pytestmark = pytest.mark.e2e

BAD = Impairment(loss=0.02, stall_every_s=3.5, stall_ms=300)
LEAD_MS = 400  # at least so much is ahead at the carrier: what comes no later than that is no gap
STANDIN = Path(__file__).parents[2] / "bench" / "standin.toml"
PHRASE = "can you tell me when you are open on Saturday"
MEDIA_TIMEOUT_S, CHECK_S = 3.0, 0.25
HANDSHAKE = (
    b"GET /twilio/media HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def ended(gateway: Any, call_sid: str, within_s: float) -> dict[str, Any]:
    """The call's record once it has ended."""
    deadline = time.monotonic() + within_s
    while True:
        listed = httpx.get(f"{gateway.origin}/v1/calls", timeout=10).json()["calls"]
        found = [call for call in listed if call["provider_call_id"] == call_sid and call["ended_at"]]
        if found:
            return dict(found[0])
        assert time.monotonic() < deadline, gateway.log
        time.sleep(0.1)


def benched(gateway: Any, path: Impairment, seed: int, **options: Any) -> tuple[BenchReport, Relay]:
    async def run() -> tuple[BenchReport, Relay]:
        async with Relay(gateway.port, up=path, down=path, seed=seed) as relay:
            return await bench_twilio(
                BenchOptions(relay.origin, public_url=gateway.origin, seed=seed, **options)
            ), relay

    return asyncio.run(run())


def test_two_percent_loss_and_stalls_of_300_ms_make_no_gap_in_the_agents_speech(gateway: Any) -> None:
    report, relay = benched(gateway, BAD, 21, calls=12, duration_s=26, interrupt_share=0.3)
    assert report.ok, to_json(report)
    lost, stalls = sum(s.lost for s in relay.down), sum(s.stalls for s in relay.down)
    assert lost >= 20, "the path was not as bad as it should be"
    assert stalls >= 20
    assert report.answers >= 25
    # A retransmission and a stall may meet and be later together than the lead is long: only that is heard.
    late_ms = max(s.latest_ms for s in relay.down)
    assert report.largest_gap_ms <= max(0.0, late_ms - LEAD_MS), (late_ms, to_json(report))
    assert report.gap_percent < 0.1
    assert report.turns >= 25
    assert report.interruptions == report.barge_in_ms.n >= 3
    assert report.missed_clears == 0
    assert report.turn_ms.p50 is not None
    assert report.turn_ms.p50 < 1500  # 600 of silence, 300 of the stand-ins and the path


def test_answers_are_complete_and_interruptions_work_whatever_pieces_the_path_makes(gateway: Any) -> None:
    pieces = Impairment(piece_bytes=61, bytes_per_s=64_000, delay_ms=30)
    actions: list[Action] = [Listen(), Say(PHRASE), Listen(), Say(PHRASE), ListenInto(900), Say(PHRASE), Listen()]

    async def run() -> CallReport:
        async with Relay(gateway.port, up=pieces, down=pieces, seed=5) as relay:
            return await place_call(CallOptions(relay.origin, [*actions, HangUp()], public_url=gateway.origin))

    report = asyncio.run(run())
    assert (report.end, report.gap_ms, report.counts["invalid"]) == ("hung_up", 0, {})
    assert [answer.heard_ms for answer in report.answers if not answer.cleared] == [2000, 4000, 4000]
    (cut,) = [turn for turn in report.turns if turn.interrupting]
    assert cut.barge_in_ms is not None
    assert cut.barge_in_ms < 600
    record = ended(gateway, report.call_sid, 5.0)
    assert record["end_reason"] == "caller_hung_up"
    assert gateway.complaints() == []


def test_a_frozen_path_costs_its_own_call_only_and_in_time(gateway: Any) -> None:
    frozen = new_call_sid()

    async def run() -> tuple[float, dict[str, Any], CallReport]:
        async with Relay(gateway.port) as relay:
            options = CallOptions(relay.origin, [Pause(60_000)], public_url=gateway.origin, call_sid=frozen)
            lost = asyncio.create_task(place_call(options))
            actions: list[Action] = [Listen(), Say(PHRASE), Listen(), Say(PHRASE), Listen(), HangUp()]
            other = asyncio.create_task(place_call(CallOptions(gateway.origin, actions)))
            await asyncio.sleep(2.0)
            relay.freeze()
            began = time.time()
            record = await asyncio.to_thread(ended, gateway, frozen, 10.0)
            lost.cancel()
            await asyncio.gather(lost, return_exceptions=True)
            return began, record, await other

    began, record, other = asyncio.run(run())
    assert (record["end_reason"], record["end_detail"]) == ("media_lost", "no media")
    assert ended_after(record, began) <= MEDIA_TIMEOUT_S + CHECK_S + 1.0
    assert other.ok
    assert other.gap_ms == 0
    assert all(turn.latency_ms is not None for turn in other.turns)


def ended_after(record: dict[str, Any], began: float) -> float:
    return datetime.fromisoformat(record["ended_at"]).timestamp() - began


async def deaf_caller(gateway: Any, call_sid: str, over: asyncio.Event) -> None:
    """Speaks, pings so that there is much to answer, and reads nothing."""
    fields = CallFields(TEST_ACCOUNT_SID, call_sid, "+15005550006", "+15005550001")
    async with httpx.AsyncClient(trust_env=False) as http:
        verbs = await Webhook(http).twiml(f"{gateway.origin}/twilio/voice", fields.form("ringing"))
    stream = next(verb for verb in verbs if isinstance(verb, Stream))
    carrier = Carrier(StreamIds(TEST_ACCOUNT_SID, CallSid(call_sid), new_stream_sid()), stream.parameters)
    mouth, pings = PlainMouth(), text_frame(b"p" * 125, 0x9) * 100
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=4096)
    writer.write(HANDSHAKE)
    for message in carrier.opening():
        writer.write(text_frame(message))
    with contextlib.suppress(ConnectionError):
        while not over.is_set():
            writer.write(text_frame(carrier.media(mouth.frame(None, 0, ()))) + pings)
            await asyncio.sleep(0.02)
    writer.transport.abort()


def test_a_peer_that_speaks_and_does_not_read_costs_its_own_call_only(gateway: Any) -> None:
    deaf = new_call_sid()

    async def run() -> tuple[dict[str, Any], CallReport]:
        over = asyncio.Event()
        actions: list[Action] = [Listen(), Say(PHRASE), Listen(), Say(PHRASE), Listen(), HangUp()]
        other = asyncio.create_task(place_call(CallOptions(gateway.origin, actions)))
        caller = asyncio.create_task(deaf_caller(gateway, deaf, over))
        record = await asyncio.to_thread(ended, gateway, deaf, 40.0)
        over.set()
        await caller
        return record, await other

    record, other = asyncio.run(run())
    assert (record["end_reason"], record["end_detail"]) == ("media_lost", "peer does not read")
    assert other.ok
    assert other.gap_ms == 0
    assert 'trunkline_drops_total{cause="slow_reader"} 1.0' in httpx.get(f"{gateway.origin}/metrics").text
    assert gateway.complaints() == []


# --- the kernel's own impairment, where it has one ------------------------------------------------------------------


def run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip(f"needs {command[0]}")
    if done.returncode:
        pytest.skip(f"{' '.join(command)}: {done.stderr.strip()}")


@pytest.fixture
def lossy_network() -> Iterator[list[str]]:
    """A network of its own, in which 2 % of all packets are lost: what goes before a command to run it there."""
    name = f"trunkline-{new_call_sid()[-8:]}"
    inside = ["ip", "netns", "exec", name]
    try:
        run("ip", "netns", "add", name)
        run(*inside, "ip", "link", "set", "lo", "up")
        run(*inside, "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "10ms", "loss", "2%")
        yield inside
    finally:
        with contextlib.suppress(FileNotFoundError):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def test_a_kernel_that_loses_two_percent_of_its_packets_makes_no_gap(lossy_network: list[str], tmp_path: Path) -> None:
    trunkline = [*lossy_network, sys.executable, "-m", "trunkline.cli"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}
    settings = {"TRUNKLINE_AGENT": str(STANDIN), "TRUNKLINE_DATA_DIR": str(tmp_path / "data")}
    log = tmp_path / "log.txt"
    with log.open("wb") as out:
        gateway = subprocess.Popen([*trunkline, "serve"], env=clean | settings, stderr=out, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 60
        while "answers at" not in log.read_text():
            assert gateway.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        call = [*trunkline, "call", "http://127.0.0.1:8080", *("--say", PHRASE) * 4, "--json"]
        calls = [subprocess.Popen(call, stdout=subprocess.PIPE, env=clean, text=True) for _ in range(3)]
        reports = [json.loads(call.communicate(timeout=90)[0]) for call in calls]
    finally:
        gateway.terminate()
        gateway.wait(30)
    assert [report["ok"] for report in reports] == [True] * 3
    assert sum(report["gap_ms"] for report in reports) == 0
