"""A call we are asked to place, as the API hands it to the switchboard."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trunkline.ports import Purpose, Standing
from trunkline.types import DEFAULT_TENANT, E164, CallId, TenantId

if TYPE_CHECKING:
    from trunkline.gateway.routed import Routed

RING_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class DialOrder:
    """`from_number` None: the trunk's own caller id. `trunk` None: the first one that takes outbound calls."""

    to_number: E164
    from_number: E164 | None = None
    trunk: str | None = None
    ring_timeout_s: float = RING_TIMEOUT_S
    attributes: Mapping[str, str] = field(default_factory=dict)
    """What whoever placed the call wants kept with it."""
    forwarded_by: E164 | None = None
    """The number of ours that sends a caller on: for the Diversion of trunks whose profile has one."""
    detects_machine: bool = True
    """Where the way out is set to. False: whoever dials listens for themselves."""
    purpose: Purpose | None = None
    """Why they are called. None: as the settings say, or else the strictest."""
    region: str | None = None
    """Where they are known to be, by address: `US-CA`, `DE`."""
    zone: str | None = None
    """And the time zone there, as IANA names it."""
    standing: Standing = field(default=Standing(), repr=False)
    """What ledger and lists said of the number, gathered for this attempt."""
    attempt: str | None = None
    """By which name it was noted as an attempt at the number."""
    call_id: CallId | None = None
    """Where the call was promised a name before it was placed (an idempotency key)."""
    tenant: TenantId = DEFAULT_TENANT
    """Whose call it is."""
    routed: "Routed | None" = None
    """Who talks with them. None: the gateway's own agent."""


def new_call_id() -> CallId:
    return CallId("call_" + secrets.token_hex(12))
