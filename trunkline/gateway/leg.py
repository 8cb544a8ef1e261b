"""What the switchboard and a call know of a leg, and what a leg knows of its call. Twilio's and SIP's are in their own
folders; nothing outside them knows which of the two a call has."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from trunkline.gateway.dialling import DialOrder
from trunkline.gateway.outbound import Route
from trunkline.media.bus import LegOut, Receiver
from trunkline.media.playout import LeadPolicy
from trunkline.media.voicemail import After
from trunkline.ports import EndedBy, EndReason, Refuse
from trunkline.types import E164, CallId

LegKind = Literal["twilio", "sip", "webrtc", "websocket", "livekit"]


class Leg(LegOut, Protocol):
    """One media termination of a call."""

    @property
    def kind(self) -> LegKind: ...

    @property
    def lead(self) -> LeadPolicy:
        """How far ahead of the ear it wants to be kept."""
        ...

    @property
    def transfers(self) -> bool:
        """Whether its carrier can put the caller through to somebody else."""
        ...

    @property
    def sends_dtmf(self) -> bool:
        """It sends digits of its own; where not, the agent sounds them in its audio."""
        ...

    def send_dtmf(self, digits: str) -> None:
        """Only where it sends_dtmf. Returns at once."""
        ...

    def stats(self) -> Mapping[str, float]:
        """What it counted of its media, for the record."""
        ...

    def close(self, why: str = "") -> None:
        """End it, with an EndReason, `replaced` or `going away`. Idempotent; the call hears `lost`, `stopped` or
        `finished` when it is over."""
        ...

    def detach(self) -> None:
        """The call wants nothing more of it."""
        ...


@runtime_checkable
class Telling(Protocol):
    """A leg whose far end is told of the call while it goes on (`live.py`)."""

    def tell(self, message: str) -> None:
        """JSON. Returns at once; what the far end does not read is dropped."""
        ...


class LegCall(Protocol):
    """The call a leg belongs to. Methods return at once and do not raise."""

    @property
    def id(self) -> CallId: ...

    def expect(self, leg: Leg) -> None:
        """It is on its way (it rings): hanging up closes it."""
        ...

    def listen(self, leg: Leg) -> Receiver | Refuse:
        """Early media of a call of ours: recorder and ears hear it, the agent waits."""
        ...

    def answered(self) -> None:
        """The far end has picked up; `attach` follows with the media. Legs that answer by their media need not say."""
        ...

    def attach(self, leg: Leg) -> Receiver | Refuse:
        """The conversation begins; a second leg replaces the first."""
        ...

    def key(self, digit: str) -> None: ...

    def held(self, on: bool) -> None:
        """The far end has put us on hold, or taken us back: it hears nothing of us meanwhile."""
        ...

    def answered_by_machine(self, after: After | None = None) -> None:
        """Of a call out: a voicemail or a fax, as its carrier or its sound says. `after`: its greeting is over, and
        ended so. Told again when that is known later."""
        ...

    def stopped(self, leg: Leg) -> None:
        """The carrier has ended the stream in order."""
        ...

    def lost(self, leg: Leg, why: str) -> None:
        """The stream or its media went away without that. Also follows a close of ours. Once."""
        ...

    def finished(self, reason: EndReason, detail: str = "", by: EndedBy | None = None, provider_code: str = "") -> None:
        """The carrier says the whole call is over, and why (`endings.Ended`). `by` None: as ports.ENDED_BY says."""
        ...

    def hang_up(self, reason: EndReason) -> None: ...

    def event(self, kind: str, **data: Any) -> None:
        """Of the call's record, also after its end."""
        ...

    def crashed(self, error: BaseException) -> None:
        """Our own bug while something of this call was handled: it ends, no other does."""
        ...


class DeviceCall(LegCall, Protocol):
    """Of a leg whose far end can write, too."""

    def typed(self, text: str) -> None:
        """Words that the far end wrote: answered as if they were said."""
        ...

    def flush(self) -> None:
        """The far end wants the agent to stop speaking."""
        ...

    def never_came(self, reason: EndReason, detail: str) -> None:
        """The media of this leg, which is none of the call's yet: the call is over, unless another leg has it."""
        ...


@runtime_checkable
class FurtherLegCall(LegCall, Protocol):
    """Of a leg dialled beside the caller's: the call's name, record and agent are the caller's (`dialledleg.py`)."""

    @property
    def name(self) -> str:
        """In the record."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """How an order would be dialled."""

    order: DialOrder
    kind: LegKind
    provider_call_id: str
    trunk: str
    from_number: E164 | None
    """As ordered, or the trunk's own."""
    ring_slack_s: float = 0.0
    """The carrier ends the ringing by itself; ours comes so much later, if its word does not reach us."""

    @property
    def sip_trunk(self) -> str:
        """What prices know it by; empty: no SIP."""
        return self.trunk if self.kind == "sip" else ""


class Dialler(Protocol):
    """Places calls over its own trunks (the SIP desk; a Twilio account)."""

    def routes(self, order: DialOrder) -> list[Route]:
        """The trunks the order may go over, as they are now."""
        ...

    def plan(self, order: DialOrder) -> Plan | Refuse:
        """Which way the call would go; nothing happens yet. Codes: `no_trunk`, `trunk_down`, `bad_attribute`."""
        ...

    def dial(self, plan: Plan, call: LegCall) -> Leg:
        """Now. What becomes of it is told to the call."""
        ...
