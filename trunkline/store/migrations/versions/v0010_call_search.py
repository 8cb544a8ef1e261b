"""What lists of calls show, summed up with their end; indexes for searches; counts by the hour; what was cut."""

from collections import Counter
from datetime import UTC, datetime
from math import log
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_ERRORS = (
    "'crashed', 'stt_failed', 'reply_failed', 'filler_failed', 'line_unspoken', 'model_lost', 'model_refused', "
    "'hand_off_failed', 'context_not_summarised', 'opt_out_unwritten', 'carrier_refused', 'carrier_unclear', "
    "'carrier_twice'"
)
_REFUSALS, _TRANSFERS = "'refused', 'turned_away', 'hand_off_refused'", "'transfer', 'refer_asked'"
_BY = {name: ("tenant_id", name, "started_at", "id") for name in ("from_number", "to_number", "agent", "end_reason")}
_PARTIAL = {
    "live": "ended_at IS NULL",
    "errors": "error_count > 0",
    "refusals": "refusal_count > 0",
    "transfers": "transfer_count > 0",
}
_COLUMNS: dict[str, Any] = {
    "duration_ms": sa.BigInteger(),
    "turn_count": sa.Integer(),
    "turn_p95_ms": sa.Double(),
    "cost_nano_usd": sa.BigInteger(),
    "mos": sa.Double(),
    "error_count": sa.Integer(),
    "refusal_count": sa.Integer(),
    "transfer_count": sa.Integer(),
}


def upgrade() -> None:
    for name, kind in _COLUMNS.items():
        op.add_column("calls", sa.Column(name, kind, nullable=True))
    op.add_column("turns", sa.Column("cut_text", sa.Text(), nullable=False, server_default=""))
    hours = op.create_table(
        "call_hours",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "hour", "what", "name", name="pk_call_hours"),
    )
    sqlite = op.get_bind().dialect.name == "sqlite"
    op.execute(_summed_up(sqlite))
    added = _hours(sqlite)
    if added:
        op.bulk_insert(hours, added)
    for columns in _BY.values():
        op.create_index(f"ix_calls_{'_'.join(columns)}", "calls", list(columns))
    for name, where in _PARTIAL.items():
        only = sa.text(where)
        place = ["tenant_id", "started_at", "id"]
        op.create_index(f"ix_calls_{name}", "calls", place, sqlite_where=only, postgresql_where=only)


def downgrade() -> None:
    for name in _PARTIAL:
        op.drop_index(f"ix_calls_{name}", table_name="calls")
    for columns in _BY.values():
        op.drop_index(f"ix_calls_{'_'.join(columns)}", table_name="calls")
    op.drop_table("call_hours")
    op.drop_column("turns", "cut_text")
    for name in _COLUMNS:
        op.drop_column("calls", name)


def _summed_up(sqlite: bool) -> str:
    def count(kinds: str) -> str:
        return f"(SELECT count(*) FROM call_events WHERE {_OF_CALL} AND kind IN ({kinds}))"

    mos = "json_extract(data, '$.mos')" if sqlite else "CAST(data ->> 'mos' AS double precision)"
    return f"""
        UPDATE calls SET
            duration_ms = {_duration_ms(sqlite)},
            turn_count = (SELECT count(*) FROM turns WHERE {_OF_CALL}),
            turn_p95_ms = (
                SELECT total_ms FROM (
                    SELECT total_ms, row_number() OVER (ORDER BY total_ms) AS place, count(*) OVER () AS size
                    FROM turns WHERE {_OF_CALL} AND total_ms IS NOT NULL
                ) AS ranked WHERE place >= 0.95 * size ORDER BY place LIMIT 1
            ),
            cost_nano_usd = (
                SELECT CAST(round(coalesce(sum(CAST(usd AS NUMERIC)), 0) * 1000000000) AS BIGINT)
                FROM costs WHERE {_OF_CALL}
            ),
            mos = (SELECT min({mos}) FROM call_events WHERE {_OF_CALL} AND kind = 'sip_media'),
            error_count = {count(_ERRORS)} + CASE WHEN end_reason = 'error' THEN 1 ELSE 0 END,
            refusal_count = {count(_REFUSALS)},
            transfer_count = {count(_TRANSFERS)}
        WHERE ended_at IS NOT NULL"""  # noqa: S608  (ours)


_OF_CALL = "tenant_id = calls.tenant_id AND call_id = calls.id"


def _duration_ms(sqlite: bool) -> str:
    if sqlite:
        took = "CAST(round((julianday(ended_at) - julianday(answered_at)) * 86400000) AS INTEGER)"
    else:
        took = "CAST(round(extract(epoch FROM ended_at - answered_at) * 1000) AS BIGINT)"
    return f"CASE WHEN answered_at IS NULL OR answered_at > ended_at THEN 0 ELSE {took} END"


def _hours(sqlite: bool) -> list[dict[str, Any]]:
    counts: Counter[tuple[Any, ...]] = Counter()
    amounts: Counter[tuple[Any, ...]] = Counter()

    def add(select: str, what: str | None = None) -> None:
        """Columns of it: tenant_id, hour, name, count, amount."""
        for tenant, hour, name, count, amount in op.get_bind().execute(sa.text(select)):
            key = tenant, hour, what, name
            counts[key] += count
            amounts[key] += int(amount)

    def hour(at: str) -> str:
        return f"strftime('%Y-%m-%d %H:00:00', {at})" if sqlite else f"date_trunc('hour', {at}, 'UTC')"

    duration = _duration_ms(sqlite)
    add(f"SELECT tenant_id, {hour('started_at')}, direction, count(*), 0 FROM calls GROUP BY 1, 2, 3", "started")
    add(
        f"SELECT tenant_id, {hour('answered_at')}, '', count(*), 0 FROM calls"
        " WHERE answered_at IS NOT NULL GROUP BY 1, 2",
        "answered",
    )
    add(
        f"SELECT tenant_id, {hour('ended_at')}, end_reason, count(*), sum({duration}) FROM calls"
        " WHERE ended_at IS NOT NULL GROUP BY 1, 2, 3",
        "ended",
    )
    product = "CASE WHEN product IN ('', 'here') THEN provider ELSE product END"
    add(
        f"SELECT tenant_id, {hour('at')}, {product}, count(*), round(sum(CAST(usd AS NUMERIC)) * 1000000000) FROM costs"
        " WHERE usd IS NOT NULL GROUP BY 1, 2, 3",
        "cost",
    )
    add(
        f"SELECT tenant_id, {hour('at')}, {product}, count(*), 0 FROM costs WHERE usd IS NULL GROUP BY 1, 2, 3",
        "unpriced",
    )
    for part in ("endpointing", "stt", "llm", "tts", "total"):
        found = op.get_bind().execute(
            sa.text(
                f"SELECT tenant_id, {hour('at')}, CAST(round({part}_ms) AS INTEGER), count(*) FROM turns"
                f" WHERE {part}_ms IS NOT NULL GROUP BY 1, 2, 3"
            )
        )
        for tenant, at, ms, count in found:
            bucket = 0 if ms < 1 else 1 + int(log(ms) / log(1.1))
            counts[tenant, at, part, str(bucket)] += count
    return [
        {
            "tenant_id": tenant,
            "hour": datetime.fromisoformat(at) if sqlite else at.astimezone(UTC),
            "what": what,
            "name": name,
            "count": count,
            "amount": amounts[tenant, at, what, name],
        }
        for (tenant, at, what, name), count in counts.items()
    ]
