"""Devices: browsers, speakers and apps that may hold sessions."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "devices",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("device_account", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("needs_arming", sa.Boolean(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_devices_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_devices"),
    )
    op.create_index("ix_devices_tenant_id_device_account", "devices", ["tenant_id", "device_account"])


def downgrade() -> None:
    op.drop_index("ix_devices_tenant_id_device_account", table_name="devices")
    op.drop_table("devices")
