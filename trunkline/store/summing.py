"""What a list of calls shows of each, summed up once it has ended, and again where something of it comes later."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Any, cast

from sqlalchemy import Table, and_, bindparam, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from trunkline.store import models
from trunkline.store.hours import nano

_CALLS = cast(Table, models.Call.__table__)
_EVENTS = cast(Table, models.CallEventRow.__table__)
_TURNS = cast(Table, models.TurnRow.__table__)
_COSTS = cast(Table, models.CostRow.__table__)

ERRORS = (
    "crashed",
    "stt_failed",
    "reply_failed",
    "filler_failed",
    "line_unspoken",
    "model_lost",
    "model_refused",
    "hand_off_failed",
    "context_not_summarised",
    "opt_out_unwritten",
    "carrier_refused",
    "carrier_unclear",
    "carrier_twice",
)
"""Kinds of events that tell of something that did not work. A call that ends as `error` has one more."""
REFUSALS = ("refused", "turned_away", "hand_off_refused")
TRANSFERS = ("transfer", "refer_asked")
_COUNTED = {
    **dict.fromkeys(ERRORS, "error_count"),
    **dict.fromkeys(REFUSALS, "refusal_count"),
    **dict.fromkeys(TRANSFERS, "transfer_count"),
}

HEARD = (
    update(_CALLS)
    .where(_CALLS.c.id == bindparam("call"), or_(_CALLS.c.mos.is_(None), _CALLS.c.mos > bindparam("heard")))
    .values(mos=bindparam("heard"))
)
_SUMMED = (
    update(_CALLS)
    .where(_CALLS.c.id == bindparam("call"))
    .values(
        {
            name: bindparam(f"new_{name}")
            for name in (
                "duration_ms",
                "turn_count",
                "turn_p95_ms",
                "cost_nano_usd",
                "error_count",
                "refusal_count",
                "transfer_count",
            )
        }
    )
)


@dataclass(frozen=True, slots=True)
class Summed:
    id: str
    tenant: str
    at: datetime
    """Of its end."""
    reason: str
    duration_ms: int


async def sum_up(connection: AsyncConnection, call_ids: Iterable[str]) -> list[Summed]:
    """Of those that have ended, in the transaction that tells of it."""
    if not (wanted := sorted(call_ids)):
        return []
    columns = (_CALLS.c.id, _CALLS.c.tenant_id, _CALLS.c.answered_at, _CALLS.c.ended_at, _CALLS.c.end_reason)
    found = await connection.execute(select(*columns).where(_CALLS.c.id.in_(wanted), _CALLS.c.ended_at.is_not(None)))
    ended = [
        Summed(row.id, row.tenant_id, row.ended_at, row.end_reason, duration_ms(row.answered_at, row.ended_at))
        for row in found
    ]
    if not ended:
        return []
    totals, turns = await _turns(connection, ended)
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for call_id, kind, count in await _rows(
        connection, ended, _EVENTS, (_EVENTS.c.kind, func.count()), (_EVENTS.c.kind.in_(_COUNTED),), grouped=True
    ):
        counts[call_id][_COUNTED[kind]] += count
    costs: Counter[str] = Counter()
    for call_id, usd in await _rows(connection, ended, _COSTS, (_COSTS.c.usd,), (_COSTS.c.usd.is_not(None),)):
        costs[call_id] += nano(usd)
    rows = [
        {
            "call": call.id,
            "new_duration_ms": call.duration_ms,
            "new_turn_count": turns[call.id],
            "new_turn_p95_ms": p95(totals[call.id]),
            "new_cost_nano_usd": costs[call.id],
            "new_error_count": counts[call.id]["error_count"] + (call.reason == "error"),
            "new_refusal_count": counts[call.id]["refusal_count"],
            "new_transfer_count": counts[call.id]["transfer_count"],
        }
        for call in ended
    ]
    await connection.execute(_SUMMED, rows)
    return ended


async def _turns(
    connection: AsyncConnection, ended: Sequence[Summed]
) -> tuple[defaultdict[str, list[float]], Counter[str]]:
    totals: defaultdict[str, list[float]] = defaultdict(list)
    turns: Counter[str] = Counter()
    for call_id, total_ms in await _rows(connection, ended, _TURNS, (_TURNS.c.total_ms,)):
        turns[call_id] += 1
        if total_ms is not None:
            totals[call_id].append(total_ms)
    return totals, turns


async def _rows(
    connection: AsyncConnection,
    ended: Sequence[Summed],
    table: Table,
    columns: Sequence[Any],
    where: Sequence[Any] = (),
    *,
    grouped: bool = False,
) -> Sequence[Any]:
    by_tenant: defaultdict[str, list[str]] = defaultdict(list)
    for call in ended:
        by_tenant[call.tenant].append(call.id)
    theirs = or_(*(and_(table.c.tenant_id == t, table.c.call_id.in_(ids)) for t, ids in by_tenant.items()))
    asked = select(table.c.call_id, *columns).where(theirs, *where)
    if grouped:
        asked = asked.group_by(table.c.call_id, *columns[:-1])
    return (await connection.execute(asked)).all()


def duration_ms(answered_at: datetime | None, ended_at: datetime) -> int:
    return 0 if answered_at is None else max(0, round((ended_at - answered_at).total_seconds() * 1000))


def p95(values: Sequence[float]) -> float | None:
    """The nearest rank."""
    return sorted(values)[ceil(0.95 * len(values)) - 1] if values else None
