"""Over a real store and real files: the routes, their errors, and what no tenant may see of another."""

import asyncio
import io
import struct
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import pyarrow.parquet as pq
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from trunkline.errors import MissingExtra, StoreError
from trunkline.gateway.api.calls import LiveCall, call_routes
from trunkline.gateway.api.events import event_routes
from trunkline.gateway.api.history import history_routes
from trunkline.gateway.api.problems import on_http_exception, on_store_error
from trunkline.gateway.api.recordings import recording_routes, span
from trunkline.gateway.api.trunks import TrunkView
from trunkline.gateway.feed import CallFeed
from trunkline.identity import SCOPES, Principal
from trunkline.media.recorder import Finished, Recorder
from trunkline.ports import Allow, CallEnded, CallEvent, CallStarted, TurnEnded, TurnRecord
from trunkline.privacy.sealed import KeyRing
from trunkline.store.engine import Database, database_url
from trunkline.store.exports import harmless
from trunkline.store.records import CallRecords, RecordWriter
from trunkline.store.spool import Spool
from trunkline.testing.clock import ManualClock
from trunkline.types import DEFAULT_TENANT, CallId, TenantId

AT = datetime(2026, 11, 28, 9, tzinfo=UTC)
OTHER = TenantId("other")
KEYS = KeyRing({"2026": bytes(32)})
C1 = CallId("c1")


class Live:
    """One of ours, one of another's."""

    def all_live(self) -> list[LiveCall]:
        return [
            LiveCall(CallStarted(CallId(f"live-{tenant}"), tenant, "inbound", "sip", "clinic", AT), "active")
            for tenant in (DEFAULT_TENANT, OTHER)
        ]

    def live(self, call_id: CallId) -> LiveCall | None:
        return None


class AsTenant:
    """As the guard does it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tenant = TenantId(Request(scope).headers.get("x-tenant", DEFAULT_TENANT))
        scopes = Request(scope).headers.get("x-scopes")
        may = frozenset(SCOPES) if scopes is None else cast(Any, frozenset(scopes.split()))
        scope["state"] = {"principal": Principal(tenant, "user:anna", may)}
        await self._app(scope, receive, send)


@asynccontextmanager
async def api(folder: Path, *events: Any) -> AsyncGenerator[httpx.AsyncClient]:
    spool, database = Spool(folder / "spool", sync_period_s=None), Database(database_url(None, folder))
    writer, clock = RecordWriter(spool, database, ManualClock(), worker="w0"), ManualClock()
    await writer.start()
    try:
        for event in events:
            spool.append(event)
        assert await writer.flush()
        records, live = CallRecords(database), cast(Any, Live())
        app = Starlette(
            routes=[
                *history_routes(records, clock, lambda: [TrunkView("pbx", "up", takes_calls=True, calls=1)]),
                *event_routes(live, CallFeed(spool)),
                *recording_routes(records, lambda: [folder / "recordings"], KEYS, clock),
                *call_routes(live, records, cast(Any, None)),
            ],
            exception_handlers={400: on_http_exception, 404: on_http_exception, StoreError: on_store_error},
        )
        transport = httpx.ASGITransport(app=AsTenant(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield client
    finally:
        await writer.close()
        spool.close()
        await database.close()


def started(name: str, minute: float = 0, **given: Any) -> CallStarted:
    row: dict[str, Any] = {"tenant": DEFAULT_TENANT, "direction": "inbound", "leg": "sip", "agent": "clinic"}
    row |= {"from_number": "+14155550101", "to_number": "+14155550199", "provider_call_id": f"id-{name}"}
    return CallStarted(call_id=CallId(name), at=AT + timedelta(minutes=minute), **(row | given))


def problem(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json().get("detail", "")


CALL = (
    started("c1"),
    CallEvent(C1, AT, "answered"),
    TurnEnded(C1, AT + timedelta(seconds=5), TurnRecord(0, "a tooth", "Goodbye", total_ms=500.0)),
    CallEnded(C1, AT + timedelta(minutes=1), "caller_hung_up"),
)


def test_calls_are_searched_by_parameters(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with api(tmp_path, *CALL, started("c2", 1, agent="sales", direction="outbound")) as client:
            for query, wanted in (
                ("", ["c2", "c1"]),
                ("?number=%2B14155550101&agent=sales", ["c2"]),
                ("?number=+1415555010*&direction=inbound", ["c1"]),  # a + that nobody encoded
                ("?text=TOOTH&live=false&min_duration_s=60&min_cost_usd=0", ["c1"]),
                ("?since=2026-11-28T10:01:00%2B01:00&until=2026-11-28T09:05:00Z", ["c2"]),
                ("?since=2026-11-28T10:01:00+01:00", ["c2"]),
                ("?since=0001-01-01T00:00:00%2B23:59&until=9999-12-31T23:59:59-23:59", ["c2", "c1"]),
                ("?having=errors,refusals", []),
                ("?limit=1", ["c2"]),
            ):
                answer = await client.get(f"/v1/calls{query}")
                assert answer.status_code == 200, answer.text
                assert [call["id"] for call in answer.json()["calls"]] == wanted, query
            theirs = await client.get("/v1/calls", headers={"X-Tenant": "other"})
            assert theirs.json()["calls"] == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("numbr=1", "'numbr': no such parameter"),
        ("agent=a&agent=b", "agent: once"),
        ("leg=pigeon", "leg: twilio | sip"),
        ("live=yes", "live: true | false"),
        ("having=luck", "having: errors"),
        ("number=1*1", "number: a number"),
        ("text=a", "text: 2 to 200"),
        ("agent=a%00", "agent: 1 to 200"),
        ("since=yesterday", "since: a time with its zone"),
        ("until=2026-11-28T09:00:00", "until: a time with its zone"),
        ("min_duration_s=nan", "min_duration_s: a number from 0"),
        ("min_cost_usd=-1", "min_cost_usd: a number from 0"),
        ("cursor=nonsense", "cursor: the next_cursor"),
        ("limit=0", "limit: 1 to 100"),
    ],
)
def test_a_wrong_parameter_is_named(tmp_path: Path, query: str, says: str) -> None:
    async def scenario() -> None:
        async with api(tmp_path) as client:
            status, detail = problem(await client.get(f"/v1/calls?{query}"))
            assert status == 400
            assert detail.startswith(says)

    asyncio.run(scenario())


def test_no_route_shows_a_tenant_anothers_call(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with api(tmp_path, *CALL) as client:
            for what in ("", "/timeline", "/recording"):
                answer = await client.get(f"/v1/calls/c1{what}", headers={"X-Tenant": "other"})
                assert problem(answer) == (404, "no such call"), what
            assert (await client.delete("/v1/calls/c1", headers={"X-Tenant": "other"})).status_code == 404
            export = await client.get("/v1/calls/export", headers={"X-Tenant": "other"})
            assert export.text.count("\r\n") == 1
            live = (await client.get("/v1/calls/live", headers={"X-Tenant": "other"})).json()["calls"]
            assert [(call["id"], call["state"]) for call in live] == [("live-other", "active")]
            span = {"since": "2026-11-28T00:00:00Z", "until": "2026-11-29T00:00:00Z"}
            theirs = await client.get("/v1/stats", params=span, headers={"X-Tenant": "other"})
            assert theirs.json()["total"]["calls"] == 0

    asyncio.run(scenario())


def test_a_timeline_and_statistics_are_json(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with api(tmp_path, *CALL) as client:
            found = (await client.get("/v1/calls/c1/timeline")).json()
            assert [entry["kind"] for entry in found["entries"]] == ["state", "state", "turn", "state"]
            span = {"since": "2026-11-28T00:00:00Z", "until": "2026-11-29T00:00:00Z", "by": "day"}
            stats = (await client.get("/v1/stats", params=span)).json()
            assert (stats["total"]["calls"], stats["total"]["minutes"], len(stats["slots"])) == (1, 1.0, 1)
            assert stats["trunks"] == [{"name": "pbx", "state": "up", "takes_calls": True, "calls": 1}]
            assert (await client.get("/v1/stats")).json()["by"] == "hour"
            for query in ("by=year", "since=2026-11-29T00:00:00Z&until=2026-11-28T00:00:00Z", "till=1"):
                assert problem(await client.get(f"/v1/stats?{query}"))[0] == 400

    asyncio.run(scenario())


# --- export ---


@pytest.mark.parametrize("cell", ["=1+1", "+cmd|' /C calc'!A0", "-2", "@SUM(A1)", "\t=1", "+1 415", "+"])
def test_what_a_spreadsheet_would_run_is_made_text(cell: str) -> None:
    assert harmless(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["+14155550101", "clinic", "", None, 5, -5, 0.5])
def test_other_cells_stay_as_they_are(cell: Any) -> None:
    assert harmless(cell) == cell


def many(count: int) -> Iterator[CallStarted]:
    for number in range(count):
        yield started(f"c{number:04}", number, from_number="=HYPERLINK(1)" if number == 3 else "+14155550101")


def test_an_export_has_every_call_once_newest_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with api(tmp_path, *many(450)) as client:
            answer = await client.get("/v1/calls/export?direction=inbound")
            assert answer.headers["content-type"] == "text/csv; charset=utf-8"
            assert 'filename="calls.csv"' in answer.headers["content-disposition"]
            head, *rows = answer.text.splitlines()
            assert head.startswith("id,direction,leg,agent,from_number")
            assert [row.partition(",")[0] for row in rows] == [f"c{number:04}" for number in reversed(range(450))]
            assert rows[0].split(",")[4] == "+14155550101"
            assert rows[-4].split(",")[4] == "'=HYPERLINK(1)"
            answer = await client.get("/v1/calls/export?format=parquet")
            table = pq.read_table(io.BytesIO(answer.content))
            assert table.num_rows == 450
            assert table.column("started_at")[449].as_py() == AT
            assert table.column("from_number")[446].as_py() == "=HYPERLINK(1)"  # no spreadsheet
            for query, status in (("format=xls", 400), ("text=a", 400), ("limit=5", 400)):
                assert problem(await client.get(f"/v1/calls/export?{query}"))[0] == status

    asyncio.run(scenario())


def test_parquet_without_its_extra_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def missing(*_: Any) -> AsyncGenerator[bytes]:
        raise MissingExtra("pyarrow", "audit")
        yield b""

    monkeypatch.setattr("trunkline.store.records.parquet_parts", missing)

    async def scenario() -> None:
        async with api(tmp_path) as client:
            status, detail = problem(await client.get("/v1/calls/export?format=parquet"))
            assert (status, "trunkline[audit]" in detail) == (501, True)

    asyncio.run(scenario())


# --- recordings ---


def recorded(folder: Path, keys: KeyRing | None, data: bytes) -> CallEvent:
    done: list[Finished] = []
    path = folder / "recordings" / ("c1.wav" if keys is None else "c1.wav.sealed")
    path.parent.mkdir()
    recorder = Recorder(path, Allow(), keys=keys, finished=done.append)
    recorder.write("caller", 0, data)
    recorder.close()
    assert recorder.wait(5)
    return CallEvent(C1, AT, "recorded", {"file": path.name, "audio_bytes": done[0].audio_bytes, "sha256": ""})


@pytest.mark.parametrize("keys", [None, KEYS])
def test_a_recording_is_played_whole_and_in_parts_and_that_is_noted(tmp_path: Path, keys: KeyRing | None) -> None:
    async def scenario() -> None:
        async with api(tmp_path, *CALL, recorded(tmp_path, keys, bytes(range(160)))) as client:
            whole = await client.get("/v1/calls/c1/recording", headers={"X-Tenant": "default"})
            assert (whole.status_code, whole.headers["content-type"]) == (200, "audio/wav")
            wav = whole.content
            assert struct.unpack_from("<I", wav, 4)[0] == len(wav) - 8
            assert wav[-320::2] == bytes(range(160))
            for asked, part in (("bytes=0-3", wav[:4]), ("bytes=50-", wav[50:]), ("bytes=-5", wav[-5:])):
                answer = await client.get("/v1/calls/c1/recording", headers={"Range": asked})
                assert (answer.status_code, answer.content) == (206, part)
                assert answer.headers["content-range"].endswith(f"/{len(wav)}")
                assert int(answer.headers["content-length"]) == len(part)
            answer = await client.get("/v1/calls/c1/recording", headers={"Range": "bytes=100000-"})
            assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(wav)}")
            events = (await client.get("/v1/calls/c1")).json()["events"]
            played = [event["data"] for event in events if event["kind"] == "recording_played"]
            assert sorted(data["by"] for data in played) == ["user:anna"] * 4
            assert {"file": played[0]["file"], "by": "user:anna", "bytes": [0, len(wav) - 1]} in played
            assert problem(await client.get("/v1/calls/c1/recording?number=2")) == (404, "the call has 1 recordings")
            assert problem(await client.get("/v1/calls/c1/recording?number=0"))[0] == 400

    asyncio.run(scenario())


def test_a_recording_is_kept_from_whoever_may_not_hear_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        told = {"state": "withdrawn", "doors": ["record"], "via": "speech", "basis": ""}
        events = (*CALL, recorded(tmp_path, None, bytes(160)), CallEvent(C1, AT, "consent", told), started("c2"))
        async with api(tmp_path, *events) as client:
            answer = await client.get("/v1/calls/c1/recording")
            assert problem(answer) == (403, "recording: consent was withdrawn")
            assert answer.json()["code"] == "no_consent"
            for call in ("c2", "c3"):
                assert problem(await client.get(f"/v1/calls/{call}/recording"))[0] == 404

    asyncio.run(scenario())


def test_a_recording_that_was_changed_is_not_played(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with api(tmp_path, *CALL, recorded(tmp_path, KEYS, bytes(160))) as client:
            file = tmp_path / "recordings" / "c1.wav.sealed"
            data = bytearray(file.read_bytes())
            data[-40] ^= 1
            file.write_bytes(data)
            answer = await client.get("/v1/calls/c1/recording")
            assert (answer.status_code, answer.json()["code"]) == (409, "unreadable")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        (None, (0, 99)),
        ("bytes=0-", (0, 99)),
        ("bytes=10-19", (10, 19)),
        ("bytes=90-500", (90, 99)),
        ("bytes=-10", (90, 99)),
        ("bytes=-500", (0, 99)),
        ("bytes=100-", None),
        ("bytes=-0", None),
        ("bytes=9-3", (0, 99)),
        ("bytes=-", (0, 99)),
        ("bytes=0-1,5-6", (0, 99)),
        ("lines=1-2", (0, 99)),
    ],
)
def test_a_range_is_one_of_rfc_9110(asked: str | None, wanted: tuple[int, int] | None) -> None:
    assert span(asked, 100) == wanted


def test_whoever_may_not_listen_finds_no_words(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with api(tmp_path, started("c1")) as client:
            for path in ("/v1/calls?text=hours", "/v1/calls/export?format=csv&text=hours"):
                assert (await client.get(path, headers={"x-scopes": "read"})).status_code == 403
                assert (await client.get(path)).status_code == 200

    asyncio.run(scenario())
