"""Listens to who has answered a leg of ours: a Receiver in front of the leg's own, until it has heard enough.

What it says is Twilio's AnsweredBy: `human`, `unknown`, `machine_start` while a greeting is spoken, `machine_end_beep`
and `machine_end_silence` when it is over.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from trunkline.media.answering import AnsweringDetector
from trunkline.media.bus import Receiver

AnsweredBy = Literal["human", "unknown", "machine_start", "machine_end_beep", "machine_end_silence"]

Told = Callable[[AnsweredBy, int], None]
"""Who, after so many ms of what was heard. Of a machine twice, at its greeting and at the greeting's end; also after
`unknown`, and of a beep after `human`."""


def is_machine(who: AnsweredBy) -> bool:
    return who.startswith("machine")


@dataclass(frozen=True, slots=True)
class MachineTerms:
    """Whether who answers our calls is told apart, as Twilio's machine detection does."""

    detection: Literal["off", "enable", "detect_message_end"] = "off"
    hang_up: bool = False


NO_DETECTION = MachineTerms()


class Plugged(Protocol):
    bus: Receiver | None


def plug(leg: Plugged, receiver: Receiver) -> None:
    """Who hears the leg from now on; who listens for machines goes on listening."""
    if isinstance(leg.bus, AnswerListener):
        leg.bus.to = receiver
    else:
        leg.bus = receiver


def plugged(leg: Plugged) -> Receiver | None:
    """Who hears it, behind who listens for machines."""
    return leg.bus.to if isinstance(leg.bus, AnswerListener) else leg.bus


class AnswerListener:
    """To be the leg's `bus` in place of `to`. It steps aside by itself."""

    def __init__(self, leg: Plugged, to: Receiver, detector: AnsweringDetector, told: Told) -> None:
        self.to = to
        self._leg, self._detector, self._told = leg, detector, told

    def receive(self, audio: bytes, carrier_ms: int) -> None:
        self.to.receive(audio, carrier_ms)
        detector = self._detector
        if detector.done:
            return
        changed = detector.feed(audio)
        if detector.done and self._leg.bus is self:
            self._leg.bus = self.to
        if detector.beep_ms is not None:
            self._told("machine_end_beep", detector.heard_ms)
        elif detector.message_over_ms is not None:
            self._told("machine_end_silence", detector.heard_ms)
        elif changed and detector.who is not None:
            self._told("machine_start" if detector.who == "machine" else detector.who, detector.heard_ms)

    def mark_returned(self, name: str) -> None:
        self.to.mark_returned(name)
