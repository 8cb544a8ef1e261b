"""How long a page of calls takes among a million: bench/desk_calls.py [--calls N] [--folder DIR] [--json].

Fills a database of its own (SQLite in a folder; and PostgreSQL where TRUNKLINE_TEST_DATABASE_URL names a server) with
calls of 90 days, three turns each, one in a hundred with an error; asks every question ROUNDS times; removes it all.
"""

import argparse
import asyncio
import json
import os
import random
import resource
import secrets
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine

from trunkline.ports import CallQuery, TurnRecord
from trunkline.store import search
from trunkline.store.engine import Database, database_url
from trunkline.store.hours import Hours, rows_of
from trunkline.store.records import CallRecords
from trunkline.store.stats import stats
from trunkline.types import TenantId

TENANT = TenantId("default")
ROUNDS = 40
DAYS = 90
BEGIN = datetime(2026, 8, 30, tzinfo=UTC)
END = BEGIN + timedelta(days=DAYS)
AGENTS, LEGS = ("clinic",) * 6 + ("sales",) * 3 + ("night",), ("twilio", "sip", "sip", "webrtc")
ENDS = ("caller_hung_up",) * 60 + ("agent_hung_up",) * 30 + ("no_input",) * 5 + ("media_lost",) * 3
ENDS += ("refused", "error")
WORDS = tuple(
    [
        "yes",
        "no",
        "please",
        "thank",
        "you",
        "monday",
        "tuesday",
        "appointment",
        "doctor",
        "tooth",
        "bill",
        "invoice",
        "cancel",
        "move",
    ]
)
NEEDLE = "hippopotamus"
_PARTY = "id tenant_id direction leg agent provider_call_id from_number to_number started_at answered_at ended_at"
_ENDED = "end_reason end_detail ended_by provider_code worker run"
_SUMMED = "duration_ms turn_count turn_p95_ms cost_nano_usd mos error_count refusal_count transfer_count"
CALL = f"{_PARTY} {_ENDED} {_SUMMED}".split()
_SAID = "run seq tenant_id call_id at index caller_text agent_text understood keyed interrupted heard_exact"
TURN = f"{_SAID} endpointing_ms stt_ms llm_ms tts_ms total_ms barge_in_ms tools cut_text".split()


def calls(count: int, hours: Hours) -> Iterator[tuple[tuple[Any, ...], list[tuple[Any, ...]]]]:
    """Times as datetimes. The last twenty are live."""
    drawn = random.Random(1)
    step = (END - BEGIN) / count
    for number in range(count):
        at = BEGIN + number * step
        ours, theirs = f"+1415555{number % 100:04}", f"+1415{drawn.randrange(200_000) + 6_000_000:07}"
        inbound, over = drawn.random() < 0.8, number < count - 20
        reason = drawn.choice(ENDS)
        seconds = drawn.expovariate(1 / 120) if reason != "refused" else 0.0
        ended = at + timedelta(seconds=seconds)
        name = f"{number:08x}-{drawn.getrandbits(48):012x}"
        cost = round(seconds * drawn.choice((20_000, 200_000)))
        parties = (theirs, ours) if inbound else (ours, theirs)
        error = reason == "error" or drawn.random() < 0.005
        summed = (round(seconds * 1000), 3, 700.0, cost, 4.2, int(error), int(reason == "refused"), number % 200 == 0)
        turns = []
        for index in range(3):
            ms = drawn.lognormvariate(6.3, 0.4)
            said = " ".join(drawn.choices(WORDS, k=8)) + (f" {NEEDLE}" if number == count // 2 and not index else "")
            parts = (300.0, 40.0, ms / 2, ms / 4, ms, None)
            row = (True, False, False, True, *parts, "[]", "")
            turns.append(("r", number * 3 + index, TENANT, name, at, index, said, said[::-1], *row))
            hours.turn(TENANT, at, TurnRecord(index, "", "", True, False, False, True, *parts))
        hours.started(TENANT, at, "inbound" if inbound else "outbound")
        if seconds:
            hours.answered(TENANT, at)
        hours.ended(TENANT, ended, reason, round(seconds * 1000))
        hours.add(TENANT, at, "cost", drawn.choice(("inbound", "gpt", "aura")), cost)
        leg, agent = drawn.choice(LEGS), drawn.choice(AGENTS)
        row = (name, TENANT, "inbound" if inbound else "outbound", leg, agent, f"p{number}", *parties, at)
        if over:
            end = (ended, reason, "", "policy" if reason == "refused" else "caller", None)
        else:
            end, summed = (None,) * 5, (None,) * 8  # type: ignore[assignment]
        yield (*row, at if seconds else None, *end, "w", "r", *summed), turns


def portions(count: int, hours: Hours) -> Iterator[tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]]:
    heads: list[tuple[Any, ...]] = []
    turns: list[tuple[Any, ...]] = []
    for head, said in calls(count, hours):
        heads.append(head)
        turns += said
        if len(heads) == 20_000:
            yield heads, turns
            heads, turns = [], []
    if heads:
        yield heads, turns


def fill_sqlite(file: Path, count: int) -> None:
    def plain(row: Iterable[Any]) -> list[Any]:
        return [v.strftime("%Y-%m-%d %H:%M:%S.%f") if isinstance(v, datetime) else v for v in row]

    def into(table: str, columns: list[str]) -> str:
        names = ", ".join(f'"{name}"' for name in columns)
        return f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(columns))})"

    hours = Hours()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("INSERT INTO tenants VALUES (?, ?, '2026-01-01 00:00:00.000000')", (TENANT, TENANT))
        for heads, turns in portions(count, hours):
            connection.executemany(into("calls", CALL), map(plain, heads))
            connection.executemany(into("turns", TURN), map(plain, turns))
            connection.commit()
        rows = [plain(row.values()) for row in rows_of(hours.added.items())]
        connection.executemany("INSERT INTO call_hours VALUES (?, ?, ?, ?, ?, ?)", rows)
        connection.commit()


async def fill_postgresql(url: URL, count: int) -> None:
    import asyncpg

    hours = Hours()
    connection = await asyncpg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False))
    try:
        await connection.execute("INSERT INTO tenants VALUES ($1, $1, now())", TENANT)
        for heads, turns in portions(count, hours):
            rows = [(*row[:-1], None if row[-1] is None else int(row[-1])) for row in heads]
            await connection.copy_records_to_table("calls", records=rows, columns=CALL)
            await connection.copy_records_to_table("turns", records=turns, columns=TURN)
        rows = [tuple(row.values()) for row in rows_of(hours.added.items())]
        await connection.copy_records_to_table("call_hours", records=rows)
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


# --- the questions ---


def questions(theirs: str) -> dict[str, CallQuery]:
    week = {"since": END - timedelta(days=7), "until": END - timedelta(days=6)}
    return {
        "all": CallQuery(),
        "a day": CallQuery(**week),
        "number": CallQuery(number=theirs),
        "number, none": CallQuery(number="+442079460000"),
        "number, ours (10,000)": CallQuery(number="+14155550042"),
        "number*, few": CallQuery(number=theirs[:-1] + "*"),
        "number*, many": CallQuery(number="+1415600*"),
        "number*, all": CallQuery(number="+1*"),
        "our number": CallQuery(our_number="+14155550042"),
        "our number, one caller": CallQuery(our_number="+14155550042", number=theirs),
        "our number, errors": CallQuery(our_number="+14155550042", having=frozenset({"errors"})),
        "agent": CallQuery(agent="night"),
        "agent, none": CallQuery(agent="nobody"),
        "direction": CallQuery(direction="outbound"),
        "leg": CallQuery(leg="webrtc"),
        "leg, none": CallQuery(leg="livekit"),
        "end reason": CallQuery(end_reason="error"),
        "ended by": CallQuery(ended_by="policy"),
        "ended by, none": CallQuery(ended_by="operator"),
        "live": CallQuery(live=True),
        "ended": CallQuery(live=False),
        "duration, some": CallQuery(min_duration_s=600),
        "duration, none": CallQuery(min_duration_s=90_000),
        "cost, some": CallQuery(min_cost_usd=Decimal("0.1")),
        "cost, none": CallQuery(min_cost_usd=Decimal(100)),
        "errors": CallQuery(having=frozenset({"errors"})),
        "refusals": CallQuery(having=frozenset({"refusals"})),
        "transfers and errors": CallQuery(having=frozenset({"transfers", "errors"})),
        "text, common": CallQuery(text="tooth"),
        "text, rare": CallQuery(text=NEEDLE),
        "text of an agent's day": CallQuery(text="tooth bill", agent="night", **week),
        "agent, end, duration": CallQuery(agent="sales", end_reason="no_input", min_duration_s=300),
        "all at once": CallQuery(
            number="+1415*", agent="sales", direction="inbound", leg="sip", end_reason="caller_hung_up",
            live=False, min_duration_s=100, min_cost_usd=Decimal("0.01"), having=frozenset({"errors"}), **week
        ),
    }  # fmt: skip


async def measured(ask: Callable[[], Awaitable[Any]], rounds: int = ROUNDS) -> dict[str, float]:
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        await ask()
        took.append((time.perf_counter() - began) * 1000)
    took.sort()
    return {"p50_ms": round(took[len(took) // 2], 1), "p99_ms": round(took[-1], 1)}


async def ask_all(url: URL, count: int) -> dict[str, Any]:
    database = Database(url)
    await database.upgrade()
    records = CallRecords(database)
    live = await records.search(TENANT, CallQuery(live=True, direction="inbound"))
    theirs = live.calls[0]["from_number"]
    found: dict[str, Any] = {}
    for name, query in questions(theirs).items():
        page = await records.search(TENANT, query, limit=50)
        found[name] = await measured(lambda query=query: records.search(TENANT, query, limit=50))  # type: ignore[misc]
        found[name] |= {"calls": len(page.calls), "more": page.next_cursor is not None}
    deep = search.Place(BEGIN + timedelta(days=1), "")
    cursor = _cursor(deep)
    found["all, deep cursor"] = await measured(lambda: records.search(TENANT, CallQuery(), limit=50, cursor=cursor))
    busy = CallQuery(number="+14155550042")
    found["number, ours, deep cursor"] = await measured(lambda: records.search(TENANT, busy, limit=50, cursor=cursor))
    whole, pages, began = None, 0, time.perf_counter()
    while pages == 0 or whole is not None:
        page = await records.search(TENANT, CallQuery(text=NEEDLE), limit=50, cursor=whole)
        whole, pages = page.next_cursor, pages + 1
    found["text, rare, to the end"] = {"p50_ms": round((time.perf_counter() - began) * 1000), "pages": pages}
    for name, days, by in (
        ("stats 24 h", 1, "hour"),
        ("stats 7 d", 7, "hour"),
        ("stats 30 d", 30, "day"),
        ("stats 90 d", 90, "day"),
    ):
        since = END - timedelta(days=days)
        found[name] = await measured(lambda since=since, by=by: stats(database, TENANT, since, END, by))  # type: ignore[misc]
    await database.close()
    return found


def _cursor(place: search.Place) -> str:
    from trunkline.store.records import _to_cursor

    return _to_cursor(place)


async def sqlite(folder: Path, count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=folder) as own:
        url = database_url(None, Path(own))
        database = Database(url)
        await database.upgrade()
        await database.close()
        began = time.perf_counter()
        await asyncio.to_thread(fill_sqlite, Path(own) / "trunkline.db", count)
        filled = time.perf_counter() - began
        size = (Path(own) / "trunkline.db").stat().st_size
        return {"filled_s": round(filled), "mib": size >> 20, **await ask_all(url, count)}


async def postgresql(server: URL, count: int) -> dict[str, Any]:
    name = f"trunkline_bench_{secrets.token_hex(6)}"
    await _command(server, f"CREATE DATABASE {name}")
    try:
        url = server.set(database=name)
        database = Database(url)
        await database.upgrade()
        await database.close()
        began = time.perf_counter()
        await fill_postgresql(url, count)
        return {"filled_s": round(time.perf_counter() - began), **await ask_all(url, count)}
    finally:
        await _command(server, f"DROP DATABASE {name} WITH (FORCE)")


async def _command(server: URL, statement: str) -> None:
    engine = create_async_engine(server, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(statement))
    await engine.dispose()


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--calls", type=int, default=1_000_000)
    given.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    given.add_argument("--json", action="store_true")
    options = given.parse_args()
    figures = {"sqlite": asyncio.run(sqlite(options.folder, options.calls))}
    if server := os.environ.get("TRUNKLINE_TEST_DATABASE_URL"):
        figures["postgresql"] = asyncio.run(postgresql(database_url(server, options.folder), options.calls))
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    if options.json:
        print(json.dumps(figures | {"peak_mib": peak_mib}))
        return
    for database, found in figures.items():
        for name, value in found.items():
            print(f"{database:11}{name:28}{value}")


if __name__ == "__main__":
    main()
