import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.engine import URL

from trunkline.ports import CallEnded, CallEvent, CallStarted, Cost, TurnEnded, TurnRecord, Usage, UsageMetered
from trunkline.store.engine import _MIGRATIONS, Database
from trunkline.store.hours import bucket_of, percentiles, usd_text
from trunkline.store.stats import stats
from trunkline.types import CallId, TenantId

AT = datetime(2026, 11, 27, 23, 30, tzinfo=UTC)
A, B = TenantId("a"), TenantId("b")
OpenStore = Any  # of conftest.py


def test_a_percentile_is_within_five_percent() -> None:
    drawn = random.Random(7)
    values = sorted(drawn.lognormvariate(6, 0.8) for _ in range(5000))
    buckets: dict[int, int] = {}
    for value in values:
        buckets[bucket_of(value)] = buckets.get(bucket_of(value), 0) + 1
    for share, found in zip((0.5, 0.95, 0.99), percentiles(buckets), strict=True):
        true = values[int(share * len(values)) - 1]
        assert found == pytest.approx(true, rel=0.052)
    assert percentiles({}) == [None, None, None]
    assert percentiles({bucket_of(0.0): 1}) == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("nano", "shown"), [(0, "0.00"), (15_000_000, "0.015"), (1, "0.000000001"), (2_500_000_000, "2.50")]
)
def test_money_is_a_plain_decimal(nano: int, shown: str) -> None:
    assert usd_text(nano) == shown


async def two_calls(store: Any) -> None:
    """c1 at 23:30, ends 00:10 the next day; c2 is refused."""
    hour_later = AT + timedelta(minutes=40)
    usage = Usage(CallId("c1"), "twilio", "leg", "seconds", 60, "inbound")
    for entry in (
        CallStarted(CallId("c1"), A, "inbound", "sip", "clinic", AT, "+14155550101", None, "id-1"),
        CallEvent(CallId("c1"), AT, "answered"),
        CallEvent(CallId("c1"), AT, "answered"),
        TurnEnded(CallId("c1"), AT, TurnRecord(0, "yes", "good", stt_ms=100, total_ms=640.0)),
        UsageMetered(AT, usage, (Cost("leg", "60", "0.0125"), Cost("fee", "1", None))),
        UsageMetered(hour_later, usage, (Cost("leg", "60", "0.0125"),)),
        CallEnded(CallId("c1"), hour_later, "caller_hung_up"),
        CallEnded(CallId("c1"), hour_later, "error"),  # only the first counts
        CallStarted(CallId("c2"), A, "outbound", "sip", "clinic", hour_later, "+14155550101", None, "id-2"),
        CallEnded(CallId("c2"), hour_later, "refused"),
    ):
        store.spool.append(entry)
    assert await store.writer.flush()


def checked(found: dict[str, Any], count: int) -> None:
    total = found["total"]
    assert len(found["slots"]) == count
    assert (total["calls"], total["inbound"], total["outbound"], total["answered"]) == (2, 1, 1, 1)
    assert total["end_reasons"] == {"caller_hung_up": 1, "refused": 1}
    assert (total["minutes"], total["cost_usd"], total["unpriced"]) == (40.0, "0.025", ["inbound"])
    assert total["cost_by_product"] == {"inbound": "0.025"}
    assert total["latency_ms"]["total"]["count"] == 1
    assert total["latency_ms"]["total"]["p95"] == pytest.approx(640, rel=0.05)
    assert total["latency_ms"]["llm"] == {"count": 0, "p50": None, "p95": None, "p99": None}


def test_hours_and_days_tell_what_happened_in_them(open_store: OpenStore) -> None:
    async def scenario() -> None:
        async with open_store() as store:
            await two_calls(store)
            begin, end = AT.replace(hour=22, minute=10), AT + timedelta(hours=1)
            hours = await stats(store.database, A, begin, end, "hour")
            checked(hours, 3)
            assert [slot["at"][11:16] for slot in hours["slots"]] == ["22:00", "23:00", "00:00"]
            assert [slot["calls"] for slot in hours["slots"]] == [0, 1, 1]
            assert [slot["ended"] for slot in hours["slots"]] == [0, 0, 2]
            days = await stats(store.database, A, begin, end, "day")
            checked(days, 2)
            assert [slot["cost_usd"] for slot in days["slots"]] == ["0.0125", "0.0125"]
            assert (await stats(store.database, B, begin, end, "day"))["total"]["calls"] == 0
            for since, until in ((end, begin), (begin, begin + timedelta(days=32))):
                with pytest.raises(ValueError, match="a span of at most 31 days"):
                    await stats(store.database, A, since, until, "hour")

    asyncio.run(scenario())


def test_what_was_there_before_is_summed_up_by_the_migration(open_store: OpenStore, url: URL) -> None:
    """The same as the writer sums up."""

    def migrate(connection: Connection, to: str) -> None:
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        config.attributes["connection"] = connection
        (command.downgrade if to != "head" else command.upgrade)(config, to)

    async def scenario() -> None:
        async with open_store() as store:
            await two_calls(store)
            store.spool.append(CallEvent(CallId("c1"), AT, "sip_media", {"mos": 3.9}))
            store.spool.append(CallEvent(CallId("c1"), AT, "stt_failed", {}))
            for ms in range(100, 2200, 100):
                store.spool.append(TurnEnded(CallId("c1"), AT, TurnRecord(1, "a", "b", total_ms=float(ms))))
            assert await store.writer.flush()
            order = "tenant_id, hour, what, name"
            before = sorted(map(str, await store.rows("calls"))), await store.rows(f"call_hours ORDER BY {order}")
        database = Database(url)
        async with database._engine.connect() as connection:
            for to in ("0008", "head"):
                async with connection.begin():
                    await connection.run_sync(migrate, to)
            async with connection.begin():
                summed = [dict(row) for row in (await connection.execute(text("SELECT * FROM calls"))).mappings()]
                hours = await connection.execute(text(f"SELECT * FROM call_hours ORDER BY {order}"))
                after = sorted(map(str, summed)), [dict(row) for row in hours.mappings()]
        await database.close()
        assert before == after
        assert summed[0]["turn_p95_ms"] is not None or summed[1]["turn_p95_ms"] is not None

    asyncio.run(scenario())
