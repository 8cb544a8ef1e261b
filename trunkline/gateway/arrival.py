"""A caller at the door, whichever leg brings him."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from trunkline.gateway.leg import LegKind
from trunkline.ports import CallerVerdict, Purpose, Standing
from trunkline.types import E164, Direction, SessionId, TenantId

Why = Literal["new", "leg_lost", "transfer_failed", "again"]
"""`again`: a session whose last call was over in order goes on."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A new call, or one that lost its leg and comes back."""

    provider_call_id: str
    """Twilio's CallSid, SIP's Call-ID, a session's id. The same one while its call lives is that call."""
    leg: LegKind
    direction: Direction
    from_number: E164 | None
    to_number: E164 | None
    """None: withheld, or not a phone number (client:, sip:)."""
    reconnects: int = 0
    why: Why = "new"
    attributes: Mapping[str, str] = field(default_factory=dict)
    """What else came with the call, by the names the trunk's header map gives it."""
    identity: tuple[str, ...] = field(default=(), repr=False)
    """Identity headers (RFC 8224), for compliance; never logged."""
    stir: CallerVerdict | None = None
    """Who vouches for the caller's number. None: nobody looked."""
    forwarded_by: str | None = None
    """The number that sent the call on to us, where it was diverted."""
    purpose: Purpose | None = None
    """Of a call of ours."""
    standing: Standing = field(default=Standing(), repr=False)
    """What ledger and lists say of who is called."""
    trunk: str = ""
    """Of SIP: whose line it is on."""
    tenant: TenantId | None = None
    """Whose own trunk that is. None: a way in of the gateway's, which brings calls to the numbers of all tenants."""
    session_id: SessionId | None = None
    """Of a device's call: what was said outlives it there."""


def vouched(verdict: CallerVerdict) -> dict[str, str | None]:
    """Of a call's record."""
    return {
        "verdict": verdict.verdict,
        "attest": verdict.attest,
        "reason": verdict.reason,
        "mode": verdict.mode,
        "source": verdict.source,
        "raw": verdict.raw or None,
    }
