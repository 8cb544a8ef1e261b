"""What fails around a gateway: peers, the process itself, the database, the disk. No call pays for another's trouble,
no record is lost, nothing is left behind."""

import asyncio
import contextlib
import os
import random
import secrets
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from trunkline.clock import SYSTEM_CLOCK
from trunkline.testing.caller import process
from trunkline.testing.caller.bulk import Ticker, run_bulk
from trunkline.testing.caller.carrier import Carrier
from trunkline.testing.caller.commands import (
    TEST_ACCOUNT_SID,
    Action,
    CallOptions,
    CallReport,
    HangUp,
    Keys,
    Listen,
    ListenInto,
    Pause,
    Say,
    Speak,
    Vanish,
    place_call,
)
from trunkline.testing.caller.line import Line
from trunkline.testing.caller.phone import Phone, new_call_sid
from trunkline.testing.caller.speech import PlainMouth, Speech, synthesize, to_speech
from trunkline.testing.caller.webhook import CallFields, Webhook
from trunkline.testing.relay import Relay

pytestmark = pytest.mark.e2e

LOST_WITHIN_S = 4.0  # the promise
RECORD_S = 3.0  # from the end of a call to its record in the database, on a busy machine
PHRASE = "can you tell me when you are open on Saturday"


def until_s(seconds: float) -> Iterator[None]:
    """Ask again and again, and once more at the end."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(0.05)
    yield


def calls(origin: str) -> dict[str, dict[str, Any]]:
    """All records, by the carrier's name of the call."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = httpx.get(f"{origin}/v1/calls", params={"limit": "100", **cursor}, timeout=10).json()
        found += page["calls"]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    by_sid = {call["provider_call_id"]: call for call in found}
    assert len(by_sid) == len(found), "a call has two records"
    return by_sid


def ended(origin: str, call_sid: str, within_s: float) -> Mapping[str, Any]:
    """The whole record, once it has an end."""
    record: dict[str, Any] = {}
    for _ in until_s(within_s):
        call = calls(origin).get(call_sid)
        if call is not None and call["ended_at"] is not None:
            record = httpx.get(f"{origin}/v1/calls/{call['id']}", timeout=10).json()
            break
    assert record, f"{call_sid} has no ended record after {within_s} s"
    return record


def seconds_after(moment: datetime, iso: str) -> float:
    return (datetime.fromisoformat(iso) - moment).total_seconds()


def metrics(origin: str) -> dict[str, float]:
    lines = httpx.get(f"{origin}/metrics", timeout=10).text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def ring(http: httpx.Client, origin: str, call_sid: str, path: str = "/twilio/voice", **more: str) -> str:
    fields = CallFields(TEST_ACCOUNT_SID, call_sid, "+15005550006", "+15005550001")
    answer = http.post(origin + path, data=fields.form(more.pop("status", "ringing"), **more), timeout=10)
    assert answer.is_success, answer.text
    return answer.text


# --- the peer goes away ---------------------------------------------------------------------------------------------


def test_a_caller_whose_socket_vanishes_has_an_ended_record_within_4_s(gateway: Any) -> None:
    report = asyncio.run(place_call(CallOptions(gateway.origin, [Listen(), Say(PHRASE), ListenInto(500), Vanish()])))
    gone = datetime.now(UTC)
    assert report.end == "vanished"
    record = ended(gateway.origin, report.call_sid, LOST_WITHIN_S)
    assert record["end_reason"] == "media_lost"
    assert seconds_after(gone, record["ended_at"]) < LOST_WITHIN_S
    assert [turn["interrupted"] for turn in record["turns"]] == [False, True]
    assert gateway.complaints() == []


def test_a_caller_who_falls_silent_without_a_fin_has_an_ended_record_within_4_s(gateway: Any) -> None:
    async def run() -> tuple[datetime, str, Mapping[str, Any]]:
        async with Relay(gateway.port) as relay:
            options = CallOptions(
                relay.origin, [Pause(60_000)], public_url=gateway.origin, call_sid=new_call_sid(), status_url=""
            )
            call = asyncio.create_task(place_call(options))
            await asyncio.sleep(2.0)
            relay.freeze()
            frozen = datetime.now(UTC)
            record = await asyncio.to_thread(ended, gateway.origin, options.call_sid, LOST_WITHIN_S + RECORD_S)
            relay.abort()
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            return frozen, options.call_sid, record

    frozen, _, record = asyncio.run(run())
    assert (record["end_reason"], record["end_detail"]) == ("media_lost", "no media")
    assert 2.0 < seconds_after(frozen, record["ended_at"]) < LOST_WITHIN_S  # not before a stall would be over, either
    assert gateway.complaints() == []


# --- the process goes away ------------------------------------------------------------------------------------------


def test_after_kill_9_every_announced_call_has_a_record_closed_once(start_gateway: Any) -> None:
    gateway = start_gateway()
    live = [new_call_sid() for _ in range(6)]

    async def talk_and_kill() -> list[str]:
        actions: list[Action] = [Listen(), Say(PHRASE), Pause(60_000)]
        options = [CallOptions(gateway.origin, actions, call_sid=sid, status_url="") for sid in live]
        talking = [asyncio.create_task(place_call(o)) for o in options]
        await asyncio.sleep(5.0)
        announced = await asyncio.to_thread(ring_until_dead, gateway, 40)
        await asyncio.gather(*talking)
        return announced

    announced = asyncio.run(talk_and_kill())
    assert len(announced) == 40

    gateway = start_gateway(data_dir=str(gateway.data_dir))
    gateway.kill()  # perhaps while it mends what it found: the next one has to go on
    gateway = start_gateway(data_dir=str(gateway.data_dir))
    expected = {*live, *announced}
    found: dict[str, dict[str, Any]] = {}
    for _ in until_s(10):
        found = calls(gateway.origin)
        if expected <= set(found) and all(call["ended_at"] for call in found.values()):
            break
    assert set(found) == expected
    assert Counter(call["end_reason"] for call in found.values()) == {"gateway_lost": len(expected)}
    talked = [httpx.get(f"{gateway.origin}/v1/calls/{found[sid]['id']}").json() for sid in live]
    assert all(record["answered_at"] and record["turns"] for record in talked)

    with httpx.Client() as http:
        for sid in expected:
            ring(http, gateway.origin, sid, "/twilio/status", status="completed", CallDuration="5")
    time.sleep(1.0)
    assert calls(gateway.origin) == found
    assert gateway.complaints() == []


def ring_until_dead(gateway: Any, count: int) -> list[str]:
    """Announce calls one after another, and kill -9 as soon as the last has its answer."""
    announced: list[str] = [new_call_sid() for _ in range(count)]
    with httpx.Client() as http:
        for sid in announced:
            assert "<Stream" in ring(http, gateway.origin, sid)
        gateway.kill()
    return announced


# --- the database and the disk go away ------------------------------------------------------------------------------


def test_a_locked_database_is_no_callers_trouble_and_the_record_comes_later(gateway: Any) -> None:
    actions: list[Action] = [Listen(), Say(PHRASE), Listen(), Say(PHRASE), Listen(), HangUp()]
    options = CallOptions(gateway.origin, actions, call_sid=new_call_sid())

    async def run() -> CallReport:
        call = asyncio.create_task(place_call(options))
        await asyncio.sleep(3.0)
        with contextlib.closing(sqlite3.connect(gateway.data_dir / "trunkline.db", isolation_level=None)) as database:
            database.execute("BEGIN EXCLUSIVE")
            report = await call
            other = await place_call(CallOptions(gateway.origin))
            assert other.end == "hung_up"
            await asyncio.sleep(1.0)
            database.execute("ROLLBACK")
        return report

    report = asyncio.run(run())
    assert report.ok
    assert [turn.latency_ms is not None for turn in report.turns] == [True, True]
    record = ended(gateway.origin, report.call_sid, 12.0)
    assert record["end_reason"] == "caller_hung_up"
    assert len(record["turns"]) == 3
    assert len(calls(gateway.origin)) == 2


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB where the spool will be."""
    folder = tmp_path / "tiny" / "spool"
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_no_callers_trouble_and_no_record_is_lost(start_gateway: Any, tiny_disk: Path) -> None:
    gateway = start_gateway(data_dir=str(tiny_disk.parent))
    actions: list[Action] = [Listen(), Say(PHRASE), Listen(), HangUp()]
    filler = tiny_disk / "filler"

    async def run() -> list[CallReport]:
        first = asyncio.create_task(place_call(CallOptions(gateway.origin, actions)))
        await asyncio.sleep(1.5)
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        reports = [
            await first,
            *await asyncio.gather(*(place_call(CallOptions(gateway.origin, actions)) for _ in "ab")),
        ]
        assert os.statvfs(tiny_disk).f_bavail == 0
        filler.unlink()
        return reports

    reports = asyncio.run(run())
    assert all(report.ok and report.turns[0].latency_ms is not None for report in reports)
    records = [ended(gateway.origin, report.call_sid, 10.0) for report in reports]
    assert [record["end_reason"] for record in records] == ["caller_hung_up"] * 3
    assert [len(record["turns"]) for record in records] == [2] * 3
    assert metrics(gateway.origin)['trunkline_drops_total{cause="spool_full"}'] == 0


# --- nothing is left behind -----------------------------------------------------------------------------------------


CALLS, WARM_UP_CALLS, AT_ONCE = 1500, 1000, 50  # the database's caches fill meanwhile
GROWTH_BYTES = 2048  # a call; 300 are the memory of ended calls, which is bounded
ARENA_BYTES = 1 << 20
SPARE_DESCRIPTORS = 4  # connections of the database's pool, a request of ours


def short_call(rng: random.Random, speech: Speech) -> list[Action]:
    """Heard a little, keyed, spoken, interrupted; ended in order, in the middle of something, or not at all."""
    end: Action = Vanish() if rng.random() < 0.15 else HangUp()
    kind = rng.random()
    if kind < 0.5:
        return [Pause(rng.randint(0, 600)), end]
    if kind < 0.7:
        return [ListenInto(rng.randint(40, 400)), Keys("1"), Pause(rng.randint(0, 500)), end]
    return [ListenInto(rng.randint(40, 400)), Speak(speech), Pause(rng.randint(0, 500)), end]


class ShortCalls:
    """AT_ONCE callers who call again and again."""

    def __init__(self, origin: str, speech: Speech, http: httpx.AsyncClient, ticker: Ticker) -> None:
        self._origin, self._speech, self._ticker = origin, speech, ticker
        self._webhook = Webhook(http)
        self._mouth = PlainMouth(-50.0)
        self._rng = random.Random(3)
        self.ends: Counter[str] = Counter()

    async def run(self, count: int) -> None:
        waiting = iter(range(count))

        async def caller() -> None:
            for _ in waiting:
                report = await self._call()
                self.ends[f"{report.end} {report.detail}".strip()] += 1

        await asyncio.gather(*(caller() for _ in range(AT_ONCE)))

    async def _call(self) -> CallReport:
        def line(carrier: Carrier) -> Line:
            return Line(carrier, short_call(self._rng, self._speech), self._mouth.share(self._rng.randrange(1 << 16)))

        phone = Phone(
            self._webhook,
            CallFields(TEST_ACCOUNT_SID, "CA" + secrets.token_hex(16), "+15005550006", "+15005550001"),
            line,
            lambda url, line: run_bulk(url, line, SYSTEM_CLOCK, self._ticker),
            SYSTEM_CLOCK,
            voice_url=f"{self._origin}/twilio/voice",
            status_url=f"{self._origin}/twilio/status",
        )
        return await phone.call()


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def at_rest(gateway: Any) -> dict[str, float]:
    """What it holds once the last call is gone; the gauges are set once a second."""
    held: dict[str, float] = {}
    for _ in until_s(15):
        now = metrics(gateway.origin)
        names = ("trunkline_calls_live", "trunkline_ws_open", "trunkline_ears_slots_free", "trunkline_tasks")
        new = {name: now[name] for name in names} | {"descriptors": descriptors(gateway.process.pid)}
        if new == held and now["trunkline_calls_live"] == now["trunkline_spool_backlog"] == 0:
            break
        held = new
        time.sleep(1.1)
    return held


def rss_bytes(gateway: Any) -> int:
    """The least of some seconds."""
    found: list[int] = []
    for _ in range(5):
        load = process.read(gateway.process.pid)
        assert load is not None
        found.append(load.rss_bytes)
        time.sleep(0.3)
    return min(found)


def test_a_thousand_short_calls_leave_nothing_behind(start_gateway: Any) -> None:
    gateway = start_gateway(log__level="warning")
    before = at_rest(gateway)
    descriptors_before = before.pop("descriptors")
    assert before["trunkline_calls_live"] == before["trunkline_ws_open"] == 0

    async def run(count: int) -> Counter[str]:
        speech = to_speech("hello", await synthesize("hello there", "en-us"))
        async with httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=AT_ONCE)) as http:
            ticker = Ticker(SYSTEM_CLOCK)
            ticker.start()
            callers = ShortCalls(gateway.origin, speech, http, ticker)
            await callers.run(count)
            ticker.stop()
        return callers.ends

    ends = asyncio.run(run(WARM_UP_CALLS))
    warm, warm_bytes = at_rest(gateway), rss_bytes(gateway)
    ends += asyncio.run(run(CALLS - WARM_UP_CALLS))
    after, after_bytes = at_rest(gateway), rss_bytes(gateway)
    assert set(ends) == {"hung_up", "vanished"}, ends
    for held in (warm, after):
        assert held.pop("descriptors") <= descriptors_before + SPARE_DESCRIPTORS
        assert held == before
    assert after_bytes - warm_bytes < (CALLS - WARM_UP_CALLS) * GROWTH_BYTES + ARENA_BYTES
    with sqlite3.connect(gateway.data_dir / "trunkline.db") as database:
        found = Counter(row[0] for row in database.execute("SELECT end_reason FROM calls"))
    assert found == {"caller_hung_up": ends["hung_up"], "media_lost": ends["vanished"]}
    assert gateway.complaints() == []
    print(f"{(after_bytes - warm_bytes) / (CALLS - WARM_UP_CALLS):.0f} bytes a call, {ends}")
