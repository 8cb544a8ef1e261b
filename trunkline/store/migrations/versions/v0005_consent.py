"""The consent ledger, do-not-call lists, and attempts at numbers."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "consent_events",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("body", sa.Text(), nullable=True),
        sa.Column("salt", sa.Text(), nullable=True),
        sa.Column("body_hash", sa.Text(), nullable=False),
        sa.Column("prev_hash", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "seq", name="pk_consent_events"),
        sa.UniqueConstraint("tenant_id", "id", name="uq_consent_events_tenant_id_id"),
    )
    op.create_index("ix_consent_events_tenant_id_subject", "consent_events", ["tenant_id", "subject"])
    op.create_table(
        "dnc_entries",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("list", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "list", "region", "number", name="pk_dnc_entries"),
    )
    op.create_index("ix_dnc_entries_tenant_id_number", "dnc_entries", ["tenant_id", "number"])
    op.create_index("ix_dnc_entries_tenant_id_list_added_at", "dnc_entries", ["tenant_id", "list", "added_at"])
    op.create_table(
        "dnc_lists",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("list", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("drawn_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("imported_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("numbers", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "list", "region", name="pk_dnc_lists"),
    )
    op.create_table(
        "call_attempts",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_call_attempts"),
    )
    op.create_index("ix_call_attempts_tenant_id_number_at", "call_attempts", ["tenant_id", "number", "at"])
    op.create_index("ix_call_attempts_at", "call_attempts", ["at"])


def downgrade() -> None:
    for table in ("call_attempts", "dnc_lists", "dnc_entries", "consent_events"):
        op.drop_table(table)
