"""Callers who asked to be called back while they waited for a line."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.create_table(
        "callbacks",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("call_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("our_number", sa.Text(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("placed_call_id", sa.Text(), nullable=True),
        sa.Column("code", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "call_id", name="pk_callbacks"),
    )
    op.create_index("ix_callbacks_state_next_at", "callbacks", ["state", "next_at"])
    op.create_index("ix_callbacks_tenant_id_number", "callbacks", ["tenant_id", "number"])


def downgrade() -> None:
    op.drop_table("callbacks")
