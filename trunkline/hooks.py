"""Webhooks out, as the store, the gateway and the API know them: what is told, to whom, and what became of it.

record entry ──► store.hookspool (in the entry's own transaction) ──► gateway.hooks.worker ──► the endpoint
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, Protocol, get_args

from trunkline.ports import CallEnded, CallEvent, CallStarted, RecordEvent, Revocation
from trunkline.types import TenantId

EventType = Literal[
    "call.started",
    "call.answered",
    "call.ended",
    "call.transferred",  # the caller is with the target
    "call.message",  # what a caller left to be heard later
    "call.refused",  # by a rule: the call itself, or something of it
    "consent.revoked",
    "number.changed",
    "agent.published",
    "budget.reached",  # it ended a call
]
EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)
PING = "ping"
"""Of a test; nobody subscribes to it."""
State = Literal["waiting", "delivered", "dead"]
STATES: tuple[State, ...] = get_args(State)

_KINDS = frozenset(("answered", "transfer_attempt", "message", "refused", "turned_away", "budget_spent"))


def is_told(event: RecordEvent) -> bool:
    """Whether an entry of the record may be an event; without looking at what it says."""
    return isinstance(event, CallStarted | CallEnded) or (isinstance(event, CallEvent) and event.kind in _KINDS)


@dataclass(frozen=True, slots=True)
class CallSummary:
    """A call's row, once the entry is in the database."""

    id: str
    direction: str
    leg: str
    agent: str
    provider_call_id: str | None
    from_number: str | None = field(repr=False)
    to_number: str | None = field(repr=False)
    started_at: datetime
    answered_at: datetime | None
    ended_at: datetime | None
    end_reason: str | None
    end_detail: str | None
    ended_by: str | None
    usd: Decimal | None = None
    """So far. None: nobody counted, or a price was missing."""
    turns: Sequence[Mapping[str, Any]] = field(default=(), repr=False)
    """`at`, `caller_text`, `agent_text`; only for who may have them."""


@dataclass(frozen=True, slots=True)
class Happening:
    """What may be an event. `id`: the same thing has the same."""

    id: str
    tenant: TenantId
    said: RecordEvent | Revocation
    call: CallSummary | None = None
    position: int = 0
    """Among what happened at the same instant."""


@dataclass(frozen=True, slots=True)
class Told:
    """An event. `once`: of all events with that name, the first is told and no other."""

    type: EventType
    at: datetime
    data: Mapping[str, Any] = field(repr=False)
    once: str = ""


EventOf = Callable[[Happening, bool], Told | None]
"""Plain (gateway.hooks.bodies). The flag: the endpoint asks for words, and the record has kept them."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    tenant: TenantId
    id: str
    url: str
    events: tuple[str, ...]
    """Empty: all."""
    enabled: bool
    transcripts: bool
    created_at: datetime
    version: int
    disabled_why: str = ""
    failing_since: datetime | None = None
    failed_at: datetime | None = None

    def wants(self, event: str) -> bool:
        return not self.events or event in self.events


@dataclass(frozen=True, slots=True)
class Wanted:
    """Of an endpoint, what an admin decides. None: as it is."""

    url: str | None = None
    events: tuple[str, ...] | None = None
    enabled: bool | None = None
    transcripts: bool | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one endpoint, as it is shown."""

    id: str
    event: str
    call_id: str | None
    state: State
    attempts: int
    created_at: datetime
    next_at: datetime | None
    last_at: datetime | None
    last_status: int | None
    last_error: str | None


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery that is leased to us. `secrets`: those to sign with, the current one first."""

    endpoint: Endpoint
    id: str
    attempts: int
    """Made before this one."""
    lease: str
    body: bytes = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    locked: str = ""
    """Why body or secrets cannot be opened."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of sending once. Without a status: nothing was answered, `error` says why."""

    status: int | None = None
    error: str = ""
    retry_after_s: float | None = None
    took_s: float = 0.0

    @property
    def is_delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Settled:
    """What becomes of a delivery, and of its endpoint, after an attempt (gateway.hooks.schedule)."""

    state: State
    next_at: datetime | None = None
    failing_since: datetime | None = None
    failed_at: datetime | None = None
    disabled_why: str = ""
    """Not empty: the endpoint gets nothing more."""


@dataclass(frozen=True, slots=True)
class Backlog:
    waiting: int
    oldest: datetime | None


class Queue(Protocol):
    """Deliveries of all tenants, shared by all processes (store.hookqueue). All methods raise StoreError when the
    database is away."""

    async def claim(self, room: Callable[[Endpoint], int], most: int) -> Sequence[Due]:
        """Leased to us for LEASE_S. `room`: how many more an endpoint may have; `most`: how many in all."""
        ...

    async def settle(self, due: Due, attempt: Attempt, settled: Settled) -> None:
        """Nothing, where the lease was lost meanwhile."""
        ...

    async def backlog(self) -> Backlog: ...


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    deliveries: Sequence[Delivery]
    next_cursor: str | None


class Endpoints(Protocol):
    """Of one tenant each (store.hooks). All methods raise StoreError when the database is away."""

    async def add(self, tenant: TenantId, wanted: Wanted, secret: str) -> Endpoint | None:
        """None: the tenant has as many as it may."""
        ...

    async def list(self, tenant: TenantId) -> Sequence[Endpoint]: ...

    async def get(self, tenant: TenantId, endpoint_id: str) -> Endpoint | None: ...

    async def change(
        self, tenant: TenantId, endpoint_id: str, wanted: Wanted, version: int | None
    ) -> Endpoint | Literal["changed"] | None:
        """`changed`: it is of another version. Whoever enables it clears what it was disabled for."""
        ...

    async def delete(self, tenant: TenantId, endpoint_id: str, version: int | None) -> bool | Literal["changed"]: ...

    async def rotate(
        self, tenant: TenantId, endpoint_id: str, secret: str, previous_until: datetime
    ) -> Endpoint | None: ...

    async def secrets(self, tenant: TenantId, endpoint_id: str) -> tuple[str, ...]:
        """Those to sign with. Raises StoreError where they cannot be opened."""
        ...

    async def deliveries(
        self, tenant: TenantId, endpoint_id: str, *, limit: int, cursor: str | None, state: State | None
    ) -> DeliveryPage:
        """Newest first. Raises ValueError for a cursor it did not make."""
        ...

    async def redeliver(
        self, tenant: TenantId, endpoint_id: str, delivery_id: str
    ) -> Delivery | Literal["disabled"] | None:
        """Waiting again, from the first attempt."""
        ...
