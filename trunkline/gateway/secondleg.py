"""The leg of a person to whom a call's caller is to be put through: what it reports, and who is heard on it, becomes
events of the transfer's attempt."""

import re
from typing import TYPE_CHECKING

from trunkline.gateway import transfer_steps as t
from trunkline.gateway.answeredby import AnsweredBy, AnswerListener, is_machine
from trunkline.gateway.dialledleg import DialledLeg, HungUp, Lost, Over, Unanswered
from trunkline.gateway.referred import Referrals
from trunkline.gateway.relief import Relief
from trunkline.gateway.sip.message import Reason
from trunkline.gateway.transfer_record import Target
from trunkline.media.answering import LONG_GREETING_MS, AnsweringDetector
from trunkline.media.bus import Receiver
from trunkline.media.members import Port
from trunkline.media.voicemail import After
from trunkline.ports import Refuse

if TYPE_CHECKING:
    from trunkline.gateway.handover import Handover


class SecondLeg(DialledLeg):
    def __init__(self, handover: "Handover", attempt: int, target: Target, place: int, trunk: str) -> None:
        """`place`: which of the attempt's trunks it is, from 1."""
        super().__init__(handover.call, handover, attempt=attempt)
        self.attempt, self.target, self.place, self.trunk = attempt, target, place, trunk
        self.number = target.number
        self._handover = handover
        self._detector = AnsweringDetector(LONG_GREETING_MS) if handover.transfer.policy.detect_voicemail else None
        self.referrals = Referrals(Relief(handover, self))
        """What they ask by REFER."""

    def plug(self, receiver: Receiver) -> None:
        """Who hears it from now on, and as long as it matters, we with them: a voicemail is a VoicemailDetected."""
        if self.media is not None:
            detector = self._detector if self.is_answered else None
            self.media.bus = receiver if detector is None else AnswerListener(self.media, receiver, detector, self._is)

    def unplug(self) -> Port | None:
        if self.media is not None and isinstance(self.media.bus, AnswerListener):
            self.media.bus = self.media.bus.to
        return super().unplug()

    def believe(self) -> None:
        """Somebody has taken the call by key or word: whatever beeps now."""
        self._detector = None

    def _is(self, who: AnsweredBy, after_ms: int) -> None:
        if self._detector is None or self.over:
            return
        self.event("answered_by", attempt=self.attempt, who=who, after_ms=after_ms)
        if is_machine(who):
            self.answered_by_machine()

    def answered_by_machine(self, after: After | None = None) -> None:
        """Also as the carrier says. Nothing where nobody listens for it."""
        if self._detector is not None and not self._closed and not self.over:
            self._detector = None
            self._handover.feed(t.VoicemailDetected(self.attempt))

    # --- DialledLeg ---

    def key(self, digit: str) -> None:
        self._handover.feed(t.Keyed(self.attempt, digit))

    def rings(self) -> None:
        self._handover.rang(self)

    def early_media(self) -> Receiver | Refuse:
        return self._handover.early_media(self)

    def picked_up(self) -> Receiver | Refuse:
        if self.media is not None and self.media.bus is not None:  # since its early media
            self.plug(self.media.bus)
        return self._handover.target_answered(self)

    def ended(self, how: Over) -> None:
        self._handover.target_over(self)
        match how:
            case Unanswered():
                self._unanswered(how)
            case HungUp():
                self._handover.feed(t.TargetHungUp(self.attempt))
            case Lost(why):
                self._handover.feed(t.TargetLost(self.attempt, why))

    def _unanswered(self, how: Unanswered) -> None:
        failure = self.failed(how, attempt=self.attempt, trunk=self.trunk)
        status, reasons = _sip(how.provider_code)
        failed = t.TargetFailed(self.attempt, status, reasons, how.reason, how.detail)
        self._handover.unanswered(self, failed, failure)


def _sip(provider_code: str) -> tuple[int, tuple[Reason, ...]]:
    """The status and Q.850 cause of `sip:486;q850:17`."""
    said = dict(re.findall(r"(sip|q850):([0-9]{1,3})", provider_code))
    reasons = (Reason("Q.850", int(said["q850"])),) if "q850" in said else ()
    return int(said.get("sip", 0)), reasons
