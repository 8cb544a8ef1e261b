"""What usages cost, and what was taken of budgets."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("usage", sa.Column("product", sa.Text(), nullable=True))
    op.create_table(
        "costs",
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("item", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("call_id", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("product", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("billed", sa.Text(), nullable=False),
        sa.Column("usd", sa.Text(), nullable=True),
        sa.Column("as_of", sa.Text(), nullable=False),
        sa.Column("estimated", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("run", "seq", "item", name="pk_costs"),
        sa.ForeignKeyConstraint(
            ["tenant_id", "call_id"],
            ["calls.tenant_id", "calls.id"],
            name="fk_costs_tenant_id_call_id",
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_costs_tenant_id_call_id_at", "costs", ["tenant_id", "call_id", "at"])
    op.create_index("ix_costs_tenant_id_at", "costs", ["tenant_id", "at"])
    op.create_table(
        "budgets",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("budget", sa.Text(), nullable=False),
        sa.Column("nano_usd", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "budget", name="pk_budgets"),
    )
    op.create_index("ix_budgets_updated_at", "budgets", ["updated_at"])


def downgrade() -> None:
    op.drop_table("budgets")
    op.drop_table("costs")
    op.drop_column("usage", "product")
