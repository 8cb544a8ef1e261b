"""How a device comes in: its token is redeemed for what its session knows, and with that a leg begins its call.

joining = await verifier.join(token)             once; a Refuse is told to the device
call_id = switchboard.join(joining, leg.kind)    a new call, or the session's live one; or a Refuse
receiver = switchboard.call(call_id).attach(leg) as every leg; a second leg of a live call replaces the first
"""

from dataclasses import dataclass, field
from typing import Protocol

from trunkline.compliance.money.account import NOTHING, SoFar
from trunkline.ports import Door, EndedBy, EndReason, Message, Refuse
from trunkline.types import CallId, SessionId, TenantId


@dataclass(frozen=True, slots=True)
class Joining:
    """A session that a device has just joined."""

    session_id: SessionId
    tenant: TenantId
    device_id: str
    device_account: str
    agent: str
    """By its name; empty: whoever has every call first."""
    conversation: tuple[Message, ...] = ()
    """So far, as it was heard."""
    resumed: bool = False
    """The conversation goes on where it was."""
    needs_arming: bool = False
    """The device sends audio only after its wake word or button (`live.Armed`); audio before it is refused."""
    number: int = 1
    """Which of the session's joins this is, here or elsewhere, from 1."""
    cut_off: bool = False
    """Its last leg was lost, or its worker: nobody had hung up."""
    shut: tuple[Door, ...] = ()
    """What its caller has refused, or taken back, in a call before."""
    so_far: SoFar = NOTHING
    """What that call had come to."""
    resume_token: str = field(default="", repr=False)
    """For the next time, once: the device is told (`live.Joined`) and keeps it for when its way here breaks. Never
    logged."""


class Verifier(Protocol):
    """Who knows tokens and sessions (`sessions.desk`)."""

    async def join(self, token: str) -> Joining | Refuse:
        """Once for each token, whatever becomes of it. Does not raise, and answers within 3 s. Codes: the token's
        `token_malformed`, `token_forged`, `token_expired`, `token_used` and `session_over` (401, and of no use again);
        `overloaded`, `draining` (503, and the token is good for another try), `sessions_away` (503; good unless only
        the store's answer was lost)."""
        ...

    async def check(self, token: str) -> Refuse | None:
        """Why it would open no join now, as far as the token tells; it is not used up by it. Does not raise, and
        answers within 3 s. Codes: the token's, and `sessions_away`."""
        ...


class SessionCall(Protocol):
    """A call that a session has now, as whoever keeps sessions sees it."""

    @property
    def id(self) -> CallId: ...

    @property
    def conversation(self) -> tuple[Message, ...]:
        """So far, as it was heard; nothing where no transcript may be kept."""
        ...

    @property
    def agent_name(self) -> str:
        """Who attends it, or did last."""
        ...

    @property
    def shut_doors(self) -> tuple[Door, ...]:
        """That the caller has refused, or taken back."""
        ...

    @property
    def so_far(self) -> SoFar:
        """What it costs, with the call it goes on from."""
        ...

    @property
    def end_reason(self) -> EndReason | None:
        """None: it is live."""
        ...

    def hang_up(self, reason: EndReason, by: EndedBy | None = None) -> None: ...

    def finished(self, reason: EndReason, detail: str = "") -> None:
        """It is over, at once and without a word."""
        ...


class Keeper(Protocol):
    """Keeps what sessions know. Methods return at once and do not raise."""

    def begun(self, joining: Joining, call: SessionCall) -> None:
        """The session's call, from now on; told again when a further leg of it has joined."""
        ...

    def ended(self, session_id: SessionId, call: SessionCall) -> None: ...


class NoSessions:
    """Nobody keeps them."""

    def begun(self, joining: Joining, call: SessionCall) -> None: ...

    def ended(self, session_id: SessionId, call: SessionCall) -> None: ...
