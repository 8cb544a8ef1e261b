"""Calls out of the last hour, of all workers: what the caps against toll fraud count."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "calls_out",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("country", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_calls_out"),
    )
    op.create_index("ix_calls_out_tenant_id_at", "calls_out", ["tenant_id", "at"])


def downgrade() -> None:
    op.drop_table("calls_out")
