"""Who ended a call, and the provider's own code for it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("calls", sa.Column("ended_by", sa.Text(), nullable=True))
    op.add_column("calls", sa.Column("provider_code", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("calls", "provider_code")
    op.drop_column("calls", "ended_by")
