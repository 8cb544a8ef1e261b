"""The leg of a person to whom a call's caller is to be put through: what it reports becomes events of the transfer's
attempt."""

import re
from typing import TYPE_CHECKING

from trunkline.gateway import transfer_steps as t
from trunkline.gateway.dialledleg import DialledLeg, HungUp, Lost, Over, Unanswered
from trunkline.gateway.referred import Referrals
from trunkline.gateway.relief import Relief
from trunkline.gateway.sip.message import Reason
from trunkline.media.bus import Receiver
from trunkline.ports import Refuse

if TYPE_CHECKING:
    from trunkline.gateway.handover import Handover


class SecondLeg(DialledLeg):
    def __init__(self, handover: "Handover", attempt: int) -> None:
        super().__init__(handover.call, handover, attempt=attempt)
        self.attempt = attempt
        self._handover = handover
        self.referrals = Referrals(Relief(handover, self))
        """What they ask by REFER."""

    def key(self, digit: str) -> None:
        self._handover.feed(t.Keyed(self.attempt, digit))

    def answered_by_machine(self) -> None:
        if not self._closed and not self.over:
            self._handover.feed(t.VoicemailDetected(self.attempt))

    def rings(self) -> None:
        self._handover.feed(t.TargetRinging(self.attempt))

    def early_media(self) -> Receiver | Refuse:
        return self._handover.early_media(self)

    def picked_up(self) -> Receiver | Refuse:
        return self._handover.target_answered(self)

    def ended(self, how: Over) -> None:
        self._handover.target_over(self)
        match how:
            case Unanswered(reason, detail, provider_code):
                status, reasons = _sip(provider_code)
                self._handover.feed(t.TargetFailed(self.attempt, status, reasons, reason, detail))
            case HungUp():
                self._handover.feed(t.TargetHungUp(self.attempt))
            case Lost(why):
                self._handover.feed(t.TargetLost(self.attempt, why))


def _sip(provider_code: str) -> tuple[int, tuple[Reason, ...]]:
    """The status and Q.850 cause of `sip:486;q850:17`."""
    said = dict(re.findall(r"(sip|q850):([0-9]{1,3})", provider_code))
    reasons = (Reason("Q.850", int(said["q850"])),) if "q850" in said else ()
    return int(said.get("sip", 0)), reasons
