"""The call record: tenants, calls and what happened in them, and how far each spool was read."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "spool_positions",
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("run", name="pk_spool_positions"),
    )
    op.create_table(
        "tenants",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tenants"),
    )
    op.create_table(
        "unplaced_events",
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("call_id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("run", "seq", name="pk_unplaced_events"),
    )
    op.create_index("ix_unplaced_events_call_id", "unplaced_events", ["call_id"])
    op.create_table(
        "calls",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("leg", sa.Text(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("provider_call_id", sa.Text(), nullable=True),
        sa.Column("from_number", sa.Text(), nullable=True),
        sa.Column("to_number", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("end_reason", sa.Text(), nullable=True),
        sa.Column("end_detail", sa.Text(), nullable=True),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("run", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_calls_tenant_id"),
        sa.PrimaryKeyConstraint("id", name="pk_calls"),
        sa.UniqueConstraint("tenant_id", "id", name="uq_calls_tenant_id_id"),
        sa.UniqueConstraint("tenant_id", "provider_call_id", name="uq_calls_tenant_id_provider_call_id"),
    )
    op.create_index("ix_calls_run_ended_at", "calls", ["run", "ended_at"])
    op.create_index("ix_calls_tenant_id_started_at_id", "calls", ["tenant_id", "started_at", "id"])
    op.create_index("ix_calls_worker_ended_at", "calls", ["worker", "ended_at"])
    op.create_table(
        "call_events",
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("call_id", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "call_id"],
            ["calls.tenant_id", "calls.id"],
            name="fk_call_events_tenant_id_call_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("run", "seq", name="pk_call_events"),
    )
    op.create_index("ix_call_events_tenant_id_call_id_at", "call_events", ["tenant_id", "call_id", "at"])
    op.create_table(
        "turns",
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("call_id", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("caller_text", sa.Text(), nullable=False),
        sa.Column("agent_text", sa.Text(), nullable=False),
        sa.Column("understood", sa.Boolean(), nullable=False),
        sa.Column("keyed", sa.Boolean(), nullable=False),
        sa.Column("interrupted", sa.Boolean(), nullable=False),
        sa.Column("heard_exact", sa.Boolean(), nullable=False),
        sa.Column("endpointing_ms", sa.Double(), nullable=True),
        sa.Column("stt_ms", sa.Double(), nullable=True),
        sa.Column("llm_ms", sa.Double(), nullable=True),
        sa.Column("tts_ms", sa.Double(), nullable=True),
        sa.Column("total_ms", sa.Double(), nullable=True),
        sa.Column("barge_in_ms", sa.Double(), nullable=True),
        sa.Column("tools", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "call_id"],
            ["calls.tenant_id", "calls.id"],
            name="fk_turns_tenant_id_call_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("run", "seq", name="pk_turns"),
    )
    op.create_index("ix_turns_tenant_id_call_id_at", "turns", ["tenant_id", "call_id", "at"])
    op.create_table(
        "usage",
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("call_id", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("quantity", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "call_id"],
            ["calls.tenant_id", "calls.id"],
            name="fk_usage_tenant_id_call_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("run", "seq", name="pk_usage"),
    )
    op.create_index("ix_usage_tenant_id_at", "usage", ["tenant_id", "at"])
    op.create_index("ix_usage_tenant_id_call_id_at", "usage", ["tenant_id", "call_id", "at"])


def downgrade() -> None:
    op.drop_index("ix_usage_tenant_id_call_id_at", table_name="usage")
    op.drop_index("ix_usage_tenant_id_at", table_name="usage")
    op.drop_table("usage")
    op.drop_index("ix_turns_tenant_id_call_id_at", table_name="turns")
    op.drop_table("turns")
    op.drop_index("ix_call_events_tenant_id_call_id_at", table_name="call_events")
    op.drop_table("call_events")
    op.drop_index("ix_calls_worker_ended_at", table_name="calls")
    op.drop_index("ix_calls_tenant_id_started_at_id", table_name="calls")
    op.drop_index("ix_calls_run_ended_at", table_name="calls")
    op.drop_table("calls")
    op.drop_index("ix_unplaced_events_call_id", table_name="unplaced_events")
    op.drop_table("unplaced_events")
    op.drop_table("tenants")
    op.drop_table("spool_positions")
