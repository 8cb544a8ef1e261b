"""API keys can be switched off; links that set a password once."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("enabled", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.create_table(
        "user_links",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=True),
        sa.Column("user", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "user"],
            ["users.tenant_id", "users.name"],
            name="fk_user_links_tenant_id_user",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("sha256", name="pk_user_links"),
    )
    op.create_index("ix_user_links_expires_at", "user_links", ["expires_at"])


def downgrade() -> None:
    op.drop_table("user_links")
    with op.batch_alter_table("api_keys") as table:
        table.drop_column("enabled")
