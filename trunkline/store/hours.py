"""What happened in each hour, for charts: counted by the writer with the entries themselves, so exactly once.

`what` and `name` of a row: `started` by direction, `answered`, `ended` by reason (amount: ms from answer to end),
`cost` by product (amount: nano-USD), `unpriced` by product, and for each of PARTS of a turn a histogram: `name` is its
bucket, and each bucket is a tenth wider than the one before. A percentile read from it is within 5 % of the true one,
whatever the hours it is read over.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from math import log
from typing import Any, cast

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from trunkline.ports import HERE, Cost, TurnRecord, Usage
from trunkline.store import models

PARTS = ("endpointing", "stt", "llm", "tts", "total")
WIDER = 1.1
NANO = 10**9
HOURS = cast(Table, models.CallHour.__table__)

Key = tuple[str, datetime, str, str]


class Hours:
    """What a batch adds, by (tenant, hour, what, name)."""

    def __init__(self) -> None:
        self.added: dict[Key, list[int]] = {}

    def add(self, tenant: str, at: datetime, what: str, name: str = "", amount: int = 0, count: int = 1) -> None:
        found = self.added.setdefault((tenant, hour_of(at), what, name), [0, 0])
        found[0] += count
        found[1] += amount

    def started(self, tenant: str, at: datetime, direction: str) -> None:
        self.add(tenant, at, "started", direction)

    def answered(self, tenant: str, at: datetime) -> None:
        self.add(tenant, at, "answered")

    def ended(self, tenant: str, at: datetime, reason: str, duration_ms: int) -> None:
        self.add(tenant, at, "ended", reason, duration_ms)

    def turn(self, tenant: str, at: datetime, turn: TurnRecord) -> None:
        for part in PARTS:
            if (ms := getattr(turn, f"{part}_ms")) is not None:
                self.add(tenant, at, part, str(bucket_of(ms)))

    def cost(self, tenant: str, at: datetime, usage: Usage, cost: Cost) -> None:
        product = product_of(usage.provider, usage.product)
        if cost.usd is None:
            self.add(tenant, at, "unpriced", product)
        else:
            self.add(tenant, at, "cost", product, nano(cost.usd))


def hour_of(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def product_of(provider: str, product: str | None) -> str:
    """As an invoice names it (compliance.money.invoice)."""
    return provider if not product or product == HERE else product


def nano(usd: str) -> int:
    return int((Decimal(usd) * NANO).to_integral_value())


def usd_text(nano_usd: int) -> str:
    """A decimal, in no other notation and without zeros behind."""
    text = f"{Decimal(nano_usd) / NANO:.9f}".rstrip("0")
    return text + "00"[: max(0, 2 - len(text.partition(".")[2]))]


def bucket_of(ms: float) -> int:
    """0: under 1 ms."""
    return 0 if ms < 1 else 1 + int(log(ms) / log(WIDER))


def middle_of(bucket: int) -> float:
    """Of a bucket, in ms."""
    return 0.5 if bucket == 0 else float(WIDER ** (bucket - 0.5))


def percentiles(buckets: Mapping[int, int], wanted: Sequence[float] = (0.5, 0.95, 0.99)) -> list[float | None]:
    """In ms; None without a single value."""
    total = sum(buckets.values())
    found: list[float | None] = []
    for share in wanted:
        need, seen, at = share * total, 0, None
        for bucket in sorted(buckets):
            seen += buckets[bucket]
            if seen >= need and total:
                at = round(middle_of(bucket), 1)
                break
        found.append(at)
    return found


async def add_hours(connection: AsyncConnection, insert: Callable[[Table], Any], hours: Hours) -> None:
    """In one order for all writers, so that two never wait for each other in turn."""
    if not hours.added:
        return
    added = insert(HOURS)
    both = {name: HOURS.c[name] + added.excluded[name] for name in ("count", "amount")}
    statement = added.on_conflict_do_update(index_elements=[c.name for c in HOURS.primary_key], set_=both)
    await connection.execute(statement, rows_of(sorted(hours.added.items())))


def rows_of(added: Iterable[tuple[Key, Sequence[int]]]) -> list[dict[str, Any]]:
    names = ("tenant_id", "hour", "what", "name", "count", "amount")
    return [dict(zip(names, (*key, *values), strict=True)) for key, values in added]
