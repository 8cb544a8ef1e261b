"""Slots that live calls hold, by tenant and number: leases of all processes."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "slots",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "scope", "name", name="pk_slots"),
    )
    op.create_index("ix_slots_tenant_id_name", "slots", ["tenant_id", "name"])


def downgrade() -> None:
    op.drop_table("slots")
