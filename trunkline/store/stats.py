"""Calls of a span of time in numbers, for charts: read from what was counted by the hour (store.hours)."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.types import NullType

from trunkline.store.engine import Database
from trunkline.store.hours import HOURS, PARTS, hour_of, percentiles, usd_text
from trunkline.types import TenantId

By = Literal["hour", "day"]
SPAN_MAX: Mapping[By, timedelta] = {"hour": timedelta(days=31), "day": timedelta(days=92)}


class _Counted:
    """Of an hour, a day, or all of it."""

    def __init__(self) -> None:
        self.started: Counter[str] = Counter()
        self.answered = 0
        self.ended: Counter[str] = Counter()
        self.talk_ms = 0
        self.cost: Counter[str] = Counter()
        self.unpriced: set[str] = set()
        self.parts: dict[str, Counter[int]] = {part: Counter() for part in PARTS}

    def add(self, what: str, name: str, count: int, amount: int) -> None:
        if what in self.parts:
            self.parts[what][int(name)] += count
        elif what == "started":
            self.started[name] += count
        elif what == "answered":
            self.answered += count
        elif what == "ended":
            self.ended[name] += count
            self.talk_ms += amount
        elif what == "cost":
            self.cost[name] += amount
        elif what == "unpriced":
            self.unpriced.add(name)

    def take(self, other: "_Counted") -> None:
        self.started += other.started
        self.answered += other.answered
        self.ended += other.ended
        self.talk_ms += other.talk_ms
        self.cost += other.cost
        self.unpriced |= other.unpriced
        for part, buckets in other.parts.items():
            self.parts[part] += buckets

    def shown(self) -> dict[str, Any]:
        return {
            "calls": self.started.total(),
            "inbound": self.started["inbound"],
            "outbound": self.started["outbound"],
            "answered": self.answered,
            "ended": self.ended.total(),
            "end_reasons": dict(sorted(self.ended.items())),
            "minutes": round(self.talk_ms / 60_000, 2),
            "cost_usd": usd_text(self.cost.total()),
            "cost_by_product": {name: usd_text(nano) for name, nano in sorted(self.cost.items())},
            "unpriced": sorted(self.unpriced),
            "latency_ms": {part: _latency(buckets) for part, buckets in self.parts.items()},
        }


def _latency(buckets: Counter[int]) -> dict[str, Any]:
    p50, p95, p99 = percentiles(buckets)
    return {"count": buckets.total(), "p50": p50, "p95": p95, "p99": p99}


async def stats(database: Database, tenant: TenantId, since: datetime, until: datetime, by: By) -> dict[str, Any]:
    """For JSON. What happened in each hour or day (UTC) that has begun before `until` and is not over at `since`, and
    in all of them; latencies in ms, within 5 %. Raises ValueError for a span that is none or too long."""
    if since.tzinfo is None or until.tzinfo is None:
        raise ValueError("since, until: a time with its zone, such as 2026-11-28T09:00:00Z")
    if not timedelta(0) < until - since <= SPAN_MAX[by]:
        raise ValueError(f"since, until: a span of at most {SPAN_MAX[by].days} days by {by}")
    begin, end = floor_of(since, by), until.astimezone(UTC)
    # Days are added up by the database: a month has 720 hours of some hundred rows each.
    day = func.date(HOURS.c.hour) if database.dialect == "sqlite" else func.date_trunc("day", HOURS.c.hour, "UTC")
    asked = (
        select(
            func.min(HOURS.c.hour, type_=NullType()),
            HOURS.c.what,
            HOURS.c.name,
            func.sum(HOURS.c.count),
            func.sum(HOURS.c.amount),
        )
        .where(HOURS.c.tenant_id == tenant, HOURS.c.hour >= begin, HOURS.c.hour < end)
        .group_by(HOURS.c.hour if by == "hour" else day, HOURS.c.what, HOURS.c.name)
    )
    async with database.read() as connection:
        rows = (await connection.execute(asked)).all()
    slots = {at: _Counted() for at in _slots(begin, end, by)}
    known: dict[Any, _Counted] = {}  # thousands of rows tell the same few times
    for at, what, name, count, amount in rows:
        if at not in known:
            known[at] = slots[floor_of(_utc(at), by)]
        known[at].add(what, name, int(count), int(amount))
    whole = _Counted()
    for counted in slots.values():
        whole.take(counted)
    return {
        "since": begin.isoformat(),
        "until": end.isoformat(),
        "by": by,
        "total": whole.shown(),
        "slots": [{"at": at.isoformat(), **counted.shown()} for at, counted in slots.items()],
    }


def _utc(at: datetime | str) -> datetime:
    """As the driver gives it."""
    if isinstance(at, str):
        return datetime.fromisoformat(at).replace(tzinfo=UTC)
    return at.astimezone(UTC)


def floor_of(at: datetime, by: By) -> datetime:
    hour = hour_of(at.astimezone(UTC))
    return hour if by == "hour" else hour.replace(hour=0)


def _slots(begin: datetime, end: datetime, by: By) -> list[datetime]:
    step = timedelta(hours=1) if by == "hour" else timedelta(days=1)
    count = -(-(end - begin) // step)
    return [begin + number * step for number in range(count)]
