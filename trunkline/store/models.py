"""The tables of the call record. Portable types only; times are UTC and timezone-aware on every database.

A tenant is on every row, and the composite keys let no row name another tenant than its call's. The exceptions are
not a tenant's: `spool_positions` (how far each spool was read) and `unplaced_events` (their call is not known yet,
so neither is their tenant; nobody reads them until it is). An idempotency key comes before its call and perhaps before
its tenant, so it refers to neither. Rows of a call are keyed by the run and number of the
spool entry they came from: the same entry cannot become two rows.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    MetaData,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
    true,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcDateTime(TypeDecorator[datetime]):
    """An instant. SQLite has no time zones: UTC is stored, as text that sorts, and put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy reads it from the class)
        str: Text(),
        float: Double(),
        datetime: UtcDateTime(),
        dict[str, Any]: JSON(),
        list[str]: JSON(),
        list[Any]: JSON(),
    }


class Tenant(Base):
    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    created_at: Mapped[datetime]


class Call(Base):
    __tablename__ = "calls"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    direction: Mapped[str]
    leg: Mapped[str]
    agent: Mapped[str]
    provider_call_id: Mapped[str | None]
    from_number: Mapped[str | None]
    """In full; never logged."""
    to_number: Mapped[str | None]
    started_at: Mapped[datetime]
    answered_at: Mapped[datetime | None]
    """Of its first CallEvent `answered`."""
    ended_at: Mapped[datetime | None]
    """None: live, or its process died and nobody has swept yet."""
    end_reason: Mapped[str | None]
    end_detail: Mapped[str | None]
    ended_by: Mapped[str | None]
    provider_code: Mapped[str | None]
    worker: Mapped[str]
    run: Mapped[str]
    """The spool run, so the process life, that carries the call."""
    # What lists show and searches ask for, summed up with the call's end (store.summing); None: it is live.
    duration_ms: Mapped[int | None] = mapped_column(BigInteger)
    """From its answer to its end; 0: it was never answered."""
    turn_count: Mapped[int | None]
    turn_p95_ms: Mapped[float | None]
    """Of the turns' total_ms: 95 % were no slower."""
    cost_nano_usd: Mapped[int | None] = mapped_column(BigInteger)
    """Of what has a price."""
    mos: Mapped[float | None]
    """As we heard the far end; the lowest of its legs. None: nobody told."""
    error_count: Mapped[int | None]
    refusal_count: Mapped[int | None]
    transfer_count: Mapped[int | None]

    __table_args__ = (
        UniqueConstraint("tenant_id", "provider_call_id"),
        UniqueConstraint("tenant_id", "id"),  # what the rows of a call refer to
        Index(None, "tenant_id", "started_at", "id"),
        # Of searches, each newest first. What most calls do not have is in a partial one.
        Index(None, "tenant_id", "from_number", "started_at", "id"),
        Index(None, "tenant_id", "to_number", "started_at", "id"),
        Index(None, "tenant_id", "agent", "started_at", "id"),
        Index(None, "tenant_id", "end_reason", "started_at", "id"),
        *(
            Index(f"ix_calls_{name}", "tenant_id", "started_at", "id", sqlite_where=where, postgresql_where=where)
            for name, where in (
                ("live", text("ended_at IS NULL")),
                ("errors", text("error_count > 0")),
                ("refusals", text("refusal_count > 0")),
                ("transfers", text("transfer_count > 0")),
            )
        ),
        Index(None, "run", "ended_at"),
        Index(None, "worker", "ended_at"),
    )


def _call_key() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["tenant_id", "call_id"], ["calls.tenant_id", "calls.id"], ondelete="CASCADE")


class CallEventRow(Base):
    __tablename__ = "call_events"

    run: Mapped[str] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    tenant_id: Mapped[str]
    call_id: Mapped[str]
    at: Mapped[datetime]
    kind: Mapped[str]
    data: Mapped[dict[str, Any]]

    __table_args__ = (_call_key(), Index(None, "tenant_id", "call_id", "at"))


class TurnRow(Base):
    __tablename__ = "turns"

    run: Mapped[str] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    tenant_id: Mapped[str]
    call_id: Mapped[str]
    at: Mapped[datetime]
    index: Mapped[int]
    caller_text: Mapped[str]
    agent_text: Mapped[str]
    understood: Mapped[bool]
    keyed: Mapped[bool]
    interrupted: Mapped[bool]
    heard_exact: Mapped[bool]
    endpointing_ms: Mapped[float | None]
    stt_ms: Mapped[float | None]
    llm_ms: Mapped[float | None]
    tts_ms: Mapped[float | None]
    total_ms: Mapped[float | None]
    barge_in_ms: Mapped[float | None]
    tools: Mapped[list[str]]
    cut_text: Mapped[str] = mapped_column(server_default="")

    __table_args__ = (_call_key(), Index(None, "tenant_id", "call_id", "at"))


class UsageRow(Base):
    __tablename__ = "usage"

    run: Mapped[str] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    tenant_id: Mapped[str]
    call_id: Mapped[str]
    at: Mapped[datetime]
    provider: Mapped[str]
    kind: Mapped[str]
    unit: Mapped[str]
    quantity: Mapped[float]
    product: Mapped[str | None]

    __table_args__ = (_call_key(), Index(None, "tenant_id", "call_id", "at"), Index(None, "tenant_id", "at"))


class CostRow(Base):
    """What a usage costs, one row for each item of its invoice."""

    __tablename__ = "costs"

    run: Mapped[str] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    item: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    call_id: Mapped[str]
    at: Mapped[datetime]
    provider: Mapped[str]
    kind: Mapped[str]
    product: Mapped[str]
    unit: Mapped[str]
    billed: Mapped[str]
    """Units, after rounding; a decimal."""
    usd: Mapped[str | None]
    """A decimal; None: no price was known."""
    as_of: Mapped[str]
    """When the price was looked up."""
    estimated: Mapped[bool]

    __table_args__ = (_call_key(), Index(None, "tenant_id", "call_id", "at"), Index(None, "tenant_id", "at"))


class CallHour(Base):
    """What happened in an hour, counted with the entries themselves: `what` and `name` as store.hours says. Nobody is
    named in it, so it outlives its calls."""

    __tablename__ = "call_hours"

    tenant_id: Mapped[str] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    """Its beginning, UTC."""
    what: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)
    amount: Mapped[int] = mapped_column(BigInteger)
    """Milliseconds, nano-USD; 0 where there is none."""


class Budget(Base):
    """What all processes have taken of a budget: whose, and of which day, is its name."""

    __tablename__ = "budgets"

    tenant_id: Mapped[str] = mapped_column(primary_key=True)
    budget: Mapped[str] = mapped_column(primary_key=True)
    nano_usd: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[datetime] = mapped_column(index=True)


class Slot(Base):
    """A live call counts in `scope` (`tenant`, or `number:` and the number), as long as its process renews it."""

    __tablename__ = "slots"

    tenant_id: Mapped[str] = mapped_column(primary_key=True)
    scope: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    """The call's, and its process's."""
    until: Mapped[datetime]

    __table_args__ = (Index(None, "tenant_id", "name"),)


class SpoolPosition(Base):
    """Up to `seq`, the entries of `run` are in this database."""

    __tablename__ = "spool_positions"

    run: Mapped[str] = mapped_column(primary_key=True)
    worker: Mapped[str]
    seq: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[datetime]


class UnplacedEvent(Base):
    """An event whose call has not been started yet (`unknown_call`), or that the database would not take."""

    __tablename__ = "unplaced_events"

    run: Mapped[str] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    call_id: Mapped[str] = mapped_column(index=True)
    reason: Mapped[str]
    body: Mapped[str]
    """The spool's JSON."""


class IdempotencyKey(Base):
    """An order that was taken: whoever repeats it gets the same call."""

    __tablename__ = "idempotency_keys"

    tenant_id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    """Of what was asked."""
    call_id: Mapped[str]
    worker: Mapped[str]
    """Who took it."""
    expires_at: Mapped[datetime] = mapped_column(index=True)


class Device(Base):
    """A browser, a speaker, an app."""

    __tablename__ = "devices"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    device_account: Mapped[str]
    name: Mapped[str]
    needs_arming: Mapped[bool]
    facts: Mapped[dict[str, Any]]
    """Public."""
    created_at: Mapped[datetime]
    seen_at: Mapped[datetime]

    __table_args__ = (Index(None, "tenant_id", "device_account"),)


class ConsentEvent(Base):
    """One link of a tenant's consent chain (store.chain). Never changed but by erasure, which empties what is personal
    and leaves the hashes."""

    __tablename__ = "consent_events"

    tenant_id: Mapped[str] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    """From 1, without a gap."""
    id: Mapped[str]
    """Of the event, by whoever noted it: the same one is taken once."""
    event: Mapped[str]
    """grant, revoke, erase."""
    at: Mapped[datetime]
    subject: Mapped[str | None]
    """In full; never logged. None: erased."""
    body: Mapped[str | None]
    """Canonical JSON. None: erased."""
    salt: Mapped[str | None]
    body_hash: Mapped[str]
    prev_hash: Mapped[str]
    hash: Mapped[str]

    __table_args__ = (UniqueConstraint("tenant_id", "id"), Index(None, "tenant_id", "subject"))


class DncEntry(Base):
    """A number on a list. `list`: company, stop, litigator, national, state, reassigned."""

    __tablename__ = "dnc_entries"

    tenant_id: Mapped[str] = mapped_column(primary_key=True)
    list: Mapped[str] = mapped_column(primary_key=True)
    region: Mapped[str] = mapped_column(primary_key=True)
    """Whose, of a national or state list; else empty."""
    number: Mapped[str] = mapped_column(primary_key=True)
    """E.164, in full; never logged."""
    added_at: Mapped[datetime]
    source: Mapped[str]
    """Who put it there: a call, an import, an operator."""

    __table_args__ = (Index(None, "tenant_id", "number"), Index(None, "tenant_id", "list", "added_at"))


class DncList(Base):
    """A list that was imported as a whole."""

    __tablename__ = "dnc_lists"

    tenant_id: Mapped[str] = mapped_column(primary_key=True)
    list: Mapped[str] = mapped_column(primary_key=True)
    region: Mapped[str] = mapped_column(primary_key=True)
    drawn_at: Mapped[datetime]
    """When whoever keeps it gave it out."""
    imported_at: Mapped[datetime]
    numbers: Mapped[int]


class CallAttempt(Base):
    """A number was tried, whatever came of it."""

    __tablename__ = "call_attempts"

    tenant_id: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[str]
    at: Mapped[datetime]

    __table_args__ = (Index(None, "tenant_id", "number", "at"), Index(None, "at"))


class CallOut(Base):
    """A call that went out within the last hour, also for a further leg."""

    __tablename__ = "calls_out"

    tenant_id: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[str]
    """Empty: to a named transfer target."""
    country: Mapped[str]
    at: Mapped[datetime]

    __table_args__ = (Index(None, "tenant_id", "at"),)


class CallBackRow(Base):
    """A caller who asked to be called back while they waited for a line (trunkline/callbacks.py)."""

    __tablename__ = "callbacks"

    tenant_id: Mapped[str] = mapped_column(primary_key=True)
    call_id: Mapped[str] = mapped_column(primary_key=True)
    """In which they asked."""
    number: Mapped[str]
    our_number: Mapped[str]
    asked_at: Mapped[datetime]
    until: Mapped[datetime]
    state: Mapped[str]
    """waiting, placing, placed, expired, failed."""
    next_at: Mapped[datetime]
    """When it is tried next, or the lease of the process that places it ends."""
    placed_call_id: Mapped[str | None]
    code: Mapped[str]
    """Why not, last."""

    __table_args__ = (Index(None, "state", "next_at"), Index(None, "tenant_id", "number"))


# --- the desk: what admins own --------------------------------------------------------------------------------------
# Columns are the fields of trunkline/numbers/resources.py, which says what they mean and what may stand there.


class _Owned:
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True, sort_order=-3)
    version: Mapped[int] = mapped_column(sort_order=1)
    """From 1, one more with each change: its ETag."""
    created_at: Mapped[datetime] = mapped_column(sort_order=2)
    updated_at: Mapped[datetime] = mapped_column(sort_order=3)


class _Named(_Owned):
    name: Mapped[str] = mapped_column(primary_key=True, sort_order=-2)
    label: Mapped[str] = mapped_column(sort_order=-1)


class TenantTerms(_Named, Base):
    __tablename__ = "tenant_terms"

    zone: Mapped[str]
    countries: Mapped[list[str]]
    max_calls: Mapped[int | None]
    reserved_inbound: Mapped[int]
    fallback_number: Mapped[str | None]
    outage: Mapped[bool]
    outage_number: Mapped[str | None]
    outage_text: Mapped[str]


class CarrierRow(_Named, Base):
    __tablename__ = "carriers"

    type: Mapped[str]
    account_sid: Mapped[str]
    api_key: Mapped[str]
    auth_token: Mapped[str | None]
    """Sealed."""
    api_secret: Mapped[str | None]
    """Sealed."""


class TrunkRow(_Named, Base):
    __tablename__ = "trunks"

    carrier: Mapped[str | None]
    enabled: Mapped[bool]
    settings: Mapped[dict[str, Any]]
    password: Mapped[str | None]
    """Sealed."""
    auth_password: Mapped[str | None]
    """Sealed."""


class HoursRow(_Named, Base):
    __tablename__ = "opening_hours"

    zone: Mapped[str]
    weekly: Mapped[dict[str, Any]]
    holidays: Mapped[list[Any]]


class AgentRow(_Named, Base):
    __tablename__ = "agents"

    draft: Mapped[str]
    published: Mapped[int | None]


class AgentVersion(Base):
    """Never changed."""

    __tablename__ = "agent_versions"

    tenant_id: Mapped[str] = mapped_column(primary_key=True)
    agent: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """From 1, without a gap."""
    script: Mapped[str]
    sha256: Mapped[str]
    note: Mapped[str]
    created_by: Mapped[str]
    created_at: Mapped[datetime]

    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "agent"], ["agents.tenant_id", "agents.name"], ondelete="CASCADE"),
    )


class RouteRow(_Named, Base):
    __tablename__ = "routes"

    matches: Mapped[list[str]]
    trunk: Mapped[str | None]
    answer: Mapped[dict[str, Any]]
    rules: Mapped[list[Any]]
    hours: Mapped[str | None]
    closed: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    queue: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    max_calls: Mapped[int | None]
    reserved_inbound: Mapped[int]
    overflow_number: Mapped[str | None]
    fallback_number: Mapped[str | None]


class NumberRow(_Owned, Base):
    __tablename__ = "numbers"

    number: Mapped[str] = mapped_column(primary_key=True, sort_order=-2)
    label: Mapped[str]
    tags: Mapped[list[str]]
    route: Mapped[str | None]
    agents: Mapped[list[Any]]
    carrier: Mapped[str | None]
    carrier_id: Mapped[str]
    trunk: Mapped[str | None]
    enabled: Mapped[bool]
    max_calls: Mapped[int | None]
    reserved_inbound: Mapped[int]
    overflow_number: Mapped[str | None]
    fallback_number: Mapped[str | None]

    __table_args__ = (UniqueConstraint("number"), Index(None, "tenant_id", "route"))


class BudgetRow(_Named, Base):
    __tablename__ = "budget_limits"

    scope: Mapped[str]
    number: Mapped[str | None]
    agent: Mapped[str | None]
    per: Mapped[str]
    usd: Mapped[str]
    """A decimal."""


class Named(Base):
    """What a resource names: nothing goes away that is named here."""

    __tablename__ = "named_by"

    tenant_id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    by_kind: Mapped[str] = mapped_column(primary_key=True)
    by_key: Mapped[str] = mapped_column(primary_key=True)

    __table_args__ = (Index(None, "tenant_id", "by_kind", "by_key"),)


class Change(Base):
    """Who changed what of a tenant's, from what to what. Never changed."""

    __tablename__ = "changes"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    """Its revision of the tenant's desk, from 1."""
    part: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Of one transaction, from 0."""
    at: Mapped[datetime]
    actor: Mapped[str]
    """Such as user:ann, key:crm, operator."""
    action: Mapped[str]
    """create, replace, delete, or what the kind has besides: publish, roll_back, sign_in..."""
    kind: Mapped[str]
    key: Mapped[str]
    before: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """Without secrets."""
    after: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))

    __table_args__ = (Index(None, "tenant_id", "kind", "key", "seq"),)


class Revision(Base):
    """Numbers a tenant's changes, and says how often its desk is another: what processes look at to know that what they
    remember is old."""

    __tablename__ = "revisions"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    revision: Mapped[int] = mapped_column(BigInteger)
    """Of the last line of the audit."""
    desk: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """What is owned, without who signs in."""


class User(_Named, Base):
    __tablename__ = "users"

    email: Mapped[str]
    role: Mapped[str]
    """admin, supervisor, viewer."""
    enabled: Mapped[bool]
    password_hash: Mapped[str | None]
    """Argon2id. None: cannot sign in by password."""
    oidc_subject: Mapped[str | None]
    """`issuer subject`."""

    __table_args__ = (
        UniqueConstraint("email"),
        UniqueConstraint("oidc_subject"),
    )


class ApiKey(_Named, Base):
    __tablename__ = "api_keys"

    id: Mapped[str]
    """In the key itself, in clear."""
    sha256: Mapped[str]
    """Of the key, which is random: 256 bits."""
    enabled: Mapped[bool] = mapped_column(server_default=true())
    scopes: Mapped[list[str]]
    expires_at: Mapped[datetime | None]
    created_by: Mapped[str]
    used_at: Mapped[datetime | None]

    __table_args__ = (UniqueConstraint("id"),)


class UserSession(Base):
    """Of the console. What the browser has is random; its hash is here."""

    __tablename__ = "user_sessions"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    user: Mapped[str]
    created_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    agent: Mapped[str]
    """The browser, as it says."""

    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "user"], ["users.tenant_id", "users.name"], ondelete="CASCADE"),
        Index(None, "tenant_id", "user"),
    )


class UserLink(Base):
    """Sets a password, once. Whoever has it holds what is random; its hash is here."""

    __tablename__ = "user_links"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str | None]
    user: Mapped[str | None]
    """None: it makes the first admin."""
    expires_at: Mapped[datetime] = mapped_column(index=True)

    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "user"], ["users.tenant_id", "users.name"], ondelete="CASCADE"),
    )


class Reply(Base):
    """What a request with an Idempotency-Key was answered: whoever repeats it gets the same."""

    __tablename__ = "replies"

    tenant_id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    status: Mapped[int | None]
    """None: it is being done."""
    body: Mapped[str]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class WebhookEndpoint(Base):
    """Whoever is told what happens (store.hooks)."""

    __tablename__ = "webhook_endpoints"

    tenant_id: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    url: Mapped[str]
    events: Mapped[list[str]]
    """Empty: all."""
    enabled: Mapped[bool]
    transcripts: Mapped[bool]
    secret: Mapped[str]
    """Sealed where there are keys, as the previous one."""
    previous_secret: Mapped[str | None]
    previous_until: Mapped[datetime | None]
    """So long it is signed with, too."""
    created_at: Mapped[datetime]
    version: Mapped[int]
    disabled_why: Mapped[str]
    """Why it was disabled by us; empty: it was not."""
    failing_since: Mapped[datetime | None]
    """None: the last attempt succeeded."""
    failed_at: Mapped[datetime | None]


class WebhookDelivery(Base):
    """One event for one endpoint. `id` is the event's: the same thing is told once."""

    __tablename__ = "webhook_deliveries"

    tenant_id: Mapped[str] = mapped_column(primary_key=True)
    endpoint_id: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    event: Mapped[str]
    call_id: Mapped[str | None]
    body: Mapped[str]
    """JSON as it is sent; sealed where there are keys."""
    at: Mapped[datetime]
    """When it happened; with `position`, the order of a call's events."""
    position: Mapped[int] = mapped_column(BigInteger)
    attempts: Mapped[int]
    state: Mapped[str]
    """waiting, delivered, dead."""
    next_at: Mapped[datetime]
    """When it is tried next, or its lease ends."""
    lease: Mapped[str | None]
    """Of the process that sends it now."""
    last_status: Mapped[int | None]
    last_error: Mapped[str | None]
    last_at: Mapped[datetime | None]
    created_at: Mapped[datetime]

    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "endpoint_id"], ["webhook_endpoints.tenant_id", "webhook_endpoints.id"], ondelete="CASCADE"
        ),
        Index(None, "tenant_id", "endpoint_id", "state", "next_at"),
        Index(None, "tenant_id", "endpoint_id", "created_at", "id"),
        Index("ix_webhook_deliveries_order", "tenant_id", "call_id", "endpoint_id", "state", "attempts", "at"),
        Index(None, "state", "created_at"),
    )
