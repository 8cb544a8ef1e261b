"""The desk: what admins own, who they are, and what they changed."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "named_by",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("by_kind", sa.Text(), nullable=False),
        sa.Column("by_key", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "kind", "key", "by_kind", "by_key", name="pk_named_by"),
    )
    op.create_index("ix_named_by_tenant_id_by_kind_by_key", "named_by", ["tenant_id", "by_kind", "by_key"])
    op.create_table(
        "replies",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "key", name="pk_replies"),
    )
    op.create_index("ix_replies_expires_at", "replies", ["expires_at"])
    op.create_table(
        "agents",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("draft", sa.Text(), nullable=False),
        sa.Column("published", sa.Integer(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_agents_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "name", name="pk_agents"),
    )
    op.create_table(
        "api_keys",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_api_keys_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "name", name="pk_api_keys"),
        sa.UniqueConstraint("id", name="uq_api_keys_id"),
    )
    op.create_table(
        "budget_limits",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("number", sa.Text(), nullable=True),
        sa.Column("agent", sa.Text(), nullable=True),
        sa.Column("per", sa.Text(), nullable=False),
        sa.Column("usd", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_budget_limits_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "name", name="pk_budget_limits"),
    )
    op.create_table(
        "carriers",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("account_sid", sa.Text(), nullable=False),
        sa.Column("api_key", sa.Text(), nullable=False),
        sa.Column("auth_token", sa.Text(), nullable=True),
        sa.Column("api_secret", sa.Text(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_carriers_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "name", name="pk_carriers"),
    )
    op.create_table(
        "changes",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("part", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("before", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("after", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_changes_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "seq", "part", name="pk_changes"),
    )
    op.create_index("ix_changes_tenant_id_kind_key_seq", "changes", ["tenant_id", "kind", "key", "seq"])
    op.create_table(
        "numbers",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("route", sa.Text(), nullable=True),
        sa.Column("agents", sa.JSON(), nullable=False),
        sa.Column("carrier", sa.Text(), nullable=True),
        sa.Column("carrier_id", sa.Text(), nullable=False),
        sa.Column("trunk", sa.Text(), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("max_calls", sa.Integer(), nullable=True),
        sa.Column("reserved_inbound", sa.Integer(), nullable=False),
        sa.Column("overflow_number", sa.Text(), nullable=True),
        sa.Column("fallback_number", sa.Text(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_numbers_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "number", name="pk_numbers"),
        sa.UniqueConstraint("number", name="uq_numbers_number"),
    )
    op.create_index("ix_numbers_tenant_id_route", "numbers", ["tenant_id", "route"])
    op.create_table(
        "opening_hours",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("zone", sa.Text(), nullable=False),
        sa.Column("weekly", sa.JSON(), nullable=False),
        sa.Column("holidays", sa.JSON(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_opening_hours_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "name", name="pk_opening_hours"),
    )
    op.create_table(
        "revisions",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_revisions_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", name="pk_revisions"),
    )
    op.create_table(
        "routes",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("matches", sa.JSON(), nullable=False),
        sa.Column("trunk", sa.Text(), nullable=True),
        sa.Column("answer", sa.JSON(), nullable=False),
        sa.Column("rules", sa.JSON(), nullable=False),
        sa.Column("hours", sa.Text(), nullable=True),
        sa.Column("closed", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("queue", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("max_calls", sa.Integer(), nullable=True),
        sa.Column("reserved_inbound", sa.Integer(), nullable=False),
        sa.Column("overflow_number", sa.Text(), nullable=True),
        sa.Column("fallback_number", sa.Text(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_routes_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "name", name="pk_routes"),
    )
    op.create_table(
        "tenant_terms",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("zone", sa.Text(), nullable=False),
        sa.Column("countries", sa.JSON(), nullable=False),
        sa.Column("max_calls", sa.Integer(), nullable=True),
        sa.Column("reserved_inbound", sa.Integer(), nullable=False),
        sa.Column("fallback_number", sa.Text(), nullable=True),
        sa.Column("outage", sa.Boolean(), nullable=False),
        sa.Column("outage_number", sa.Text(), nullable=True),
        sa.Column("outage_text", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_tenant_terms_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "name", name="pk_tenant_terms"),
    )
    op.create_table(
        "trunks",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("carrier", sa.Text(), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("password", sa.Text(), nullable=True),
        sa.Column("auth_password", sa.Text(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_trunks_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "name", name="pk_trunks"),
    )
    op.create_table(
        "users",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=True),
        sa.Column("oidc_subject", sa.Text(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_users_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "name", name="pk_users"),
        sa.UniqueConstraint("email", name="uq_users_email"),
        sa.UniqueConstraint("oidc_subject", name="uq_users_oidc_subject"),
    )
    op.create_table(
        "agent_versions",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("script", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "agent"],
            ["agents.tenant_id", "agents.name"],
            name="fk_agent_versions_tenant_id_agent",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "agent", "number", name="pk_agent_versions"),
    )
    op.create_table(
        "user_sessions",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "user"],
            ["users.tenant_id", "users.name"],
            name="fk_user_sessions_tenant_id_user",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("sha256", name="pk_user_sessions"),
    )
    op.create_index("ix_user_sessions_expires_at", "user_sessions", ["expires_at"])
    op.create_index("ix_user_sessions_tenant_id_user", "user_sessions", ["tenant_id", "user"])


def downgrade() -> None:
    op.drop_table("user_sessions")
    op.drop_table("agent_versions")
    op.drop_table("users")
    op.drop_table("trunks")
    op.drop_table("tenant_terms")
    op.drop_table("routes")
    op.drop_table("revisions")
    op.drop_table("opening_hours")
    op.drop_table("numbers")
    op.drop_table("changes")
    op.drop_table("carriers")
    op.drop_table("budget_limits")
    op.drop_table("api_keys")
    op.drop_table("agents")
    op.drop_table("replies")
    op.drop_table("named_by")
