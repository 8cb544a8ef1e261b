"""How often a desk is another, apart from the lines of its audit, which people who sign in write, too."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.add_column("revisions", sa.Column("desk", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.execute("UPDATE revisions SET desk = revision")


def downgrade() -> None:
    op.drop_column("revisions", "desk")
