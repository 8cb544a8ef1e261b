"""A further leg of a call, to whom its caller is to be put through: what its line reports becomes events of the
transfer's attempt. Its end is told exactly once."""

import re
import secrets
from typing import TYPE_CHECKING, Any

from trunkline.gateway import transfer_steps as t
from trunkline.gateway.hands import Hands
from trunkline.gateway.leg import Leg
from trunkline.gateway.sip.message import Reason
from trunkline.media.bus import Receiver
from trunkline.media.members import Port
from trunkline.ports import EndedBy, EndReason, Refuse, Usage
from trunkline.types import CallId

if TYPE_CHECKING:
    from trunkline.gateway.handover import Handover


class SecondLeg:
    """The LegCall of one dialled target; in the record by its leg id, and metered from its answer on."""

    def __init__(self, handover: "Handover", attempt: int) -> None:
        self.name = f"leg_{secrets.token_hex(8)}"
        self.attempt = attempt
        self.leg: Leg | None = None
        """What hanging up closes: the order while it rings, where its media is another leg (Twilio)."""
        self.media: Hands | None = None
        """From its early media or its answer on."""
        self.port: Port | None = None
        """In the room."""
        self.over = False
        self._handover = handover
        self._answered_at: float | None = None
        """It has picked up."""
        self._attached = False
        self._closed = self._metered = False

    @property
    def id(self) -> CallId:
        return self._handover.call.id

    def hang_up_leg(self, why: str = "transferred") -> None:
        """CANCEL, BYE or over REST, as is due. Idempotent; `finished` follows."""
        if not self._closed and self.leg is not None:
            self._closed = True
            self._meter()
            self.leg.close(why)
            if self.media is not None and self.media is not self.leg:
                self.media.close(why)

    # --- LegCall ---

    def expect(self, leg: Leg) -> None:
        self.leg = leg

    def listen(self, leg: Leg) -> Receiver | Refuse:
        if self._closed or self.over:
            return Refuse("ending", "nobody waits for it")
        self._plug(leg)
        return self._handover.early_media(self)

    def answered(self) -> None:
        """Its media follows."""
        if self._answered_at is None:
            self._answered_at = self._handover.now()

    def attach(self, leg: Leg) -> Receiver | Refuse:
        if self._closed or self.over:
            return Refuse("ending", "nobody waits for it")
        if self._attached:
            return Refuse("not_now", "it has its media already")
        self._attached = True
        self._plug(leg)
        self.answered()
        return self._handover.target_answered(self)

    def _plug(self, leg: Leg) -> None:
        assert isinstance(leg, Hands), "a second leg must be able to be plugged"
        self.media = leg

    def answered_by_machine(self) -> None:
        """A voicemail or a fax: nobody to put a caller through to."""
        if not self._closed and not self.over:
            self._handover.feed(t.VoicemailDetected(self.attempt))

    def key(self, digit: str) -> None:
        self._handover.feed(t.Keyed(self.attempt, digit))

    def stopped(self, leg: Leg) -> None:
        self._closed = True  # nothing is left to hang up
        self._end(t.TargetHungUp(self.attempt))

    def lost(self, leg: Leg, why: str) -> None:
        if not self._attached:
            return  # it may ring all the same; the deadline holds
        self.hang_up_leg("media_lost")
        self._end(t.TargetLost(self.attempt, why))

    def finished(self, reason: EndReason, detail: str = "", by: EndedBy | None = None, provider_code: str = "") -> None:
        self.hang_up_leg(reason)  # where it is not over yet: no audio was negotiated, or not encrypted
        self._closed = True
        if reason == "caller_hung_up":
            self._end(t.TargetHungUp(self.attempt))
        elif not self._attached:
            status, reasons = _sip(provider_code)
            self._end(t.TargetFailed(self.attempt, status, reasons, reason, detail))
        else:
            self._end(t.TargetLost(self.attempt, detail or reason))

    def hang_up(self, reason: EndReason) -> None:
        """The line's own limit."""
        self._handover.call.hang_up(reason)

    def event(self, kind: str, **data: Any) -> None:
        self._handover.call.event(kind, leg=self.name, **data)
        if kind in ("progress", "ringing"):
            self._handover.feed(t.TargetRinging(self.attempt))

    def crashed(self, error: BaseException) -> None:
        """Our own bug in this leg: the caller keeps the call."""
        self._handover.call.event("crashed", leg=self.name, error=type(error).__name__)
        self.hang_up_leg("error")
        self._end(t.TargetLost(self.attempt, "error"))

    # --- the end ---

    def _end(self, event: t.TargetFailed | t.TargetHungUp | t.TargetLost) -> None:
        if self.over:
            return
        self.over = True
        self._meter()
        self._handover.target_over(self)
        self._handover.feed(event)

    def _meter(self) -> None:
        if self._answered_at is not None and self.leg is not None and not self._metered:
            self._metered = True
            seconds = round(self._handover.now() - self._answered_at, 3)
            self._handover.call.usage(Usage(self.id, self.leg.kind, "leg", "seconds", seconds))
            self._handover.call.event("leg_ended", leg=self.name, attempt=self.attempt, seconds=seconds)


def _sip(provider_code: str) -> tuple[int, tuple[Reason, ...]]:
    """The status and Q.850 cause of `sip:486;q850:17`."""
    said = dict(re.findall(r"(sip|q850):([0-9]{1,3})", provider_code))
    reasons = (Reason("Q.850", int(said["q850"])),) if "q850" in said else ()
    return int(said.get("sip", 0)), reasons
