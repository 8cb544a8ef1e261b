"""Listens to who has answered a leg of ours: a Receiver in front of the leg's own, until it has heard enough.

What it says is Twilio's AnsweredBy: `human`, `unknown`, `machine_start` while a greeting is spoken, `machine_end_beep`
and `machine_end_silence` when it is over.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from trunkline.media.answering import AnsweringDetector
from trunkline.media.bus import Receiver
from trunkline.media.voicemail import After, MessageStart

AnsweredBy = Literal["human", "unknown", "machine_start", "machine_end_beep", "machine_end_silence"]

Told = Callable[[AnsweredBy, int], None]
"""Who, after so many ms of what was heard. Of a machine twice, at its greeting and at the greeting's end; also after
`unknown`, and of a beep after `human`."""


def is_machine(who: AnsweredBy) -> bool:
    return who.startswith("machine")


def greeting_over(who: str) -> After | None:
    """Whether a machine's greeting is, as Twilio's AnsweredBy tells, and how it ended."""
    if who == "machine_end_beep":
        return "beep"
    return "silence" if who.startswith("machine_end") else None


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


class MessageListener:
    """When a message to a machine may begin, by what is heard on a call of ours: a Tap of its bus."""

    def __init__(self, told: Callable[[After], None]) -> None:
        """`told`: of a machine's beep, known for one or not; of a known one's silence; after a beep nothing more."""
        self._start, self._told = MessageStart(), told

    def is_machine(self) -> None:
        """Somebody else knows."""
        self._start.is_machine()
        if self._start.after is not None:
            self._told(self._start.after)

    def write(self, channel: Literal["caller", "agent"], position: int, data: bytes) -> None:
        if channel == "caller" and not self._start.done and self._start.feed(data):
            assert self._start.after is not None
            self._told(self._start.after)

    def cut(self, channel: Literal["caller", "agent"], position: int) -> None:
        """Of what we said."""

    def close(self) -> None:
        """The leg is gone."""
