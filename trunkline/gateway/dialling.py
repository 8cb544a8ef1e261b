"""A call we are asked to place, as the API hands it to the switchboard."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from trunkline.types import E164, CallId

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
    call_id: CallId | None = None
    """Where the call was promised a name before it was placed (an idempotency key)."""


def new_call_id() -> CallId:
    return CallId("call_" + secrets.token_hex(12))
