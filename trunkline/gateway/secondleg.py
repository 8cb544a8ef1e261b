"""A further leg of a call, to whom its caller is to be put through: what its line reports becomes events of the
transfer's attempt. Its end is told exactly once."""

import re
import secrets
from typing import TYPE_CHECKING, Any

from trunkline.gateway import transfer_steps as t
from trunkline.gateway.answeredby import AnsweredBy, AnswerListener, is_machine
from trunkline.gateway.endings import Ended
from trunkline.gateway.hands import Hands
from trunkline.gateway.leg import Leg
from trunkline.gateway.outbound import Failure, Tried
from trunkline.gateway.sip.message import Reason
from trunkline.gateway.transfer_record import Target
from trunkline.media.answering import LONG_GREETING_MS, AnsweringDetector
from trunkline.media.bus import Receiver
from trunkline.media.members import Port
from trunkline.ports import ENDED_BY, EndedBy, EndReason, Refuse, Usage
from trunkline.types import CallId

if TYPE_CHECKING:
    from trunkline.gateway.handover import Handover


class SecondLeg:
    """The LegCall of one target, dialled over one trunk; in the record by its leg id, and metered from its answer on.
    It has a line of the gateway's until it is over or hung up."""

    def __init__(self, handover: "Handover", attempt: int, target: Target, place: int, trunk: str) -> None:
        """`place`: which of the attempt's trunks it is, from 1."""
        self.name = f"leg_{secrets.token_hex(8)}"
        self.attempt, self.target, self.place, self.trunk = attempt, target, place, trunk
        self.leg: Hands | None = None
        self.port: Port | None = None
        """In the room."""
        self.over = False
        self._handover = handover
        self._answered_at: float | None = None
        self._closed = self._metered = False
        self._has_line = True
        self._detector = AnsweringDetector(LONG_GREETING_MS) if handover.transfer.policy.detect_voicemail else None

    @property
    def id(self) -> CallId:
        return self._handover.call.id

    def plug(self, receiver: Receiver) -> None:
        """Who hears it from now on, and as long as it matters, we with them: a voicemail is a VoicemailDetected."""
        if self.leg is not None:
            detector = self._detector if self._answered_at is not None else None
            self.leg.bus = receiver if detector is None else AnswerListener(self.leg, receiver, detector, self._is)

    def believe(self) -> None:
        """Somebody has taken the call by key or word: whatever beeps now."""
        self._detector = None

    def _is(self, who: AnsweredBy, after_ms: int) -> None:
        if self._detector is None:
            return
        self.event("answered_by", attempt=self.attempt, who=who, after_ms=after_ms)
        if is_machine(who):
            self._detector = None
            self._handover.feed(t.VoicemailDetected(self.attempt))

    def hang_up_leg(self, why: str = "transferred") -> None:
        """CANCEL or BYE, as is due. Idempotent; `finished` follows."""
        if not self._closed and self.leg is not None:
            self._closed = True
            self._meter()
            self._give_line()
            self.leg.close(why)

    def never_was(self) -> None:
        """It could not be dialled."""
        self.over = self._closed = True
        self._give_line()

    # --- LegCall ---

    def expect(self, leg: Leg) -> None:
        """It is plugged (`Hands`), or was refused."""
        if isinstance(leg, Hands):
            self.leg = leg

    def listen(self, leg: Leg) -> Receiver | Refuse:
        if self._closed or self.over:
            return Refuse("ending", "nobody waits for it")
        return self._handover.early_media(self)

    def answered(self) -> None:
        """Its media follows."""

    def attach(self, leg: Leg) -> Receiver | Refuse:
        if self._closed or self.over:
            return Refuse("ending", "nobody waits for it")
        self._answered_at = self._handover.now()
        if self.leg is not None and self.leg.bus is not None:  # since its early media
            self.plug(self.leg.bus)
        return self._handover.target_answered(self)

    def key(self, digit: str) -> None:
        self._handover.feed(t.Keyed(self.attempt, digit))

    def stopped(self, leg: Leg) -> None:
        self._end(t.TargetHungUp(self.attempt))

    def lost(self, leg: Leg, why: str) -> None:
        if self._answered_at is None:
            return  # it may ring all the same; the deadline holds
        self.hang_up_leg("media_lost")
        self._end(t.TargetLost(self.attempt, why))

    def finished(self, reason: EndReason, detail: str = "", by: EndedBy | None = None, provider_code: str = "") -> None:
        self.hang_up_leg(reason)  # where it is not over yet: no audio was negotiated, or not encrypted
        self._closed = True
        if self._answered_at is None:
            self._unanswered(Ended(reason, by or ENDED_BY[reason], detail, provider_code))
        elif reason == "caller_hung_up":
            self._end(t.TargetHungUp(self.attempt))
        else:
            self._end(t.TargetLost(self.attempt, detail or reason))

    def hang_up(self, reason: EndReason) -> None:
        """The line's own limit."""
        self._handover.call.hang_up(reason)

    def event(self, kind: str, **data: Any) -> None:
        self._handover.call.event(kind, leg=self.name, **data)
        if kind in ("progress", "ringing"):
            self._handover.rang(self)

    def crashed(self, error: BaseException) -> None:
        """Our own bug in this leg: the caller keeps the call."""
        self._handover.call.event("crashed", leg=self.name, error=type(error).__name__)
        self.hang_up_leg("error")
        self._end(t.TargetLost(self.attempt, "error"))

    # --- the end ---

    def _unanswered(self, end: Ended) -> None:
        if self.over:
            return
        self._over()
        leg: object = self.leg
        failure = (leg.failure if isinstance(leg, Tried) else None) or Failure(end, may_have_rung=True)
        self._handover.call.event(
            "leg_failed",
            leg=self.name,
            attempt=self.attempt,
            trunk=self.trunk,
            reason=end.reason,
            by=end.by,
            detail=end.detail,
            provider_code=end.provider_code,
            may_have_rung=failure.may_have_rung,
        )
        status, reasons = _sip(end.provider_code)
        failed = t.TargetFailed(self.attempt, status, reasons, end.reason, end.detail)
        self._handover.unanswered(self, failed, failure)

    def _end(self, event: t.TargetHungUp | t.TargetLost) -> None:
        if self.over:
            return
        self._over()
        self._handover.feed(event)

    def _over(self) -> None:
        self.over = True
        self._meter()
        self._give_line()
        self._handover.target_over(self)

    def _give_line(self) -> None:
        if self._has_line:
            self._has_line = False
            self._handover.lines.give_line()

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
