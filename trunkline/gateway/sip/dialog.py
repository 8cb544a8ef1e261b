"""One INVITE dialog of the desk's: where it stands, and what its end means for the call it carries."""

import asyncio
from dataclasses import dataclass, field, replace

from trunkline.gateway import endings, outbound
from trunkline.gateway.endings import Ended
from trunkline.gateway.leg import LegCall
from trunkline.gateway.outbound import Failure
from trunkline.gateway.sip import message
from trunkline.gateway.sip import stack as s
from trunkline.gateway.sip.farhold import FarHold
from trunkline.gateway.sip.leg import SipLeg
from trunkline.gateway.sip.trunks import Trunk

MAX_REASON_CHARS = 64  # of a peer's, in a record


@dataclass(slots=True)
class Dialog:
    """One INVITE dialog and the call it carries."""

    trunk: Trunk
    inbound: bool
    call_id: str
    leg: SipLeg
    answered: bool = False
    """Our 200 is sent."""
    confirmed: bool = False
    peer: str = ""
    """Who sent the INVITE, as ADDRESS:PORT."""
    heard: bool = False
    """The far end's RTP has come."""
    dialled: bool = False
    """The stack took our INVITE to be sent."""
    rang: bool = False
    on_hold: bool = False
    """The far end owes us nothing: many send no music with `sendonly` either."""
    far_hold: FarHold = field(default_factory=FarHold)
    """A hold of ours."""
    resumed_at: float | None = None
    """After a hold: its silence does not count."""
    attached: bool = False
    detects: bool = False
    """Whether a machine answers."""
    closing: str | None = None
    """Why we leave."""
    progress: list[int] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None

    @property
    def call(self) -> LegCall:
        """Whose the leg is: a REFER that is followed gives it to another."""
        return self.leg.call

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


def ending(dialog: Dialog, event: s.Disconnected) -> Ended:
    """What the end of a dialog means for a call that has not ended for a reason of its own."""
    said = f"SIP {event.code} {shown(event.reason)}".strip() if event.code else "no answer"
    if dialog.confirmed:
        end = endings.from_sip_dialog(event.code, by_us=event.by_us)
        if event.by_us:
            return replace(end, detail=f"ended by the stack: {said}")
        return end if end.reason == "caller_hung_up" else replace(end, detail=said)
    if not dialog.inbound:
        return failure(dialog, event).ended
    if event.by_us:
        return endings.ended("failed", said, by="gateway")
    if event.code == 408:
        return endings.ended("never_started", "our answer was not acknowledged")
    return endings.ended("caller_hung_up", "cancelled")


def failure(dialog: Dialog, event: s.Disconnected) -> Failure:
    """Of a call of ours that nobody answered."""
    head = message.parse_head(event.message) if event.message else None
    return outbound.sip_failure(
        event.code,
        message.reasons(head) if head else (),
        from_peer=head is not None,
        rang=dialog.rang,
        dialled=dialog.dialled or event.code != 0,
        words=shown(event.reason),
        retry_after_s=message.retry_after_s(event.message),
    )


def shown(text: str, limit: int = MAX_REASON_CHARS) -> str:
    """A peer's words as a record or a log may have them."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text[:limit])
