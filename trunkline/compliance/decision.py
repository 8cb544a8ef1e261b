"""May we? Asked at every door. This policy is the trivial one: answering is open, recording is by settings, dialling
is closed."""

from dataclasses import dataclass
from datetime import datetime

from trunkline.ports import Allow, Decision, Facts, Refuse


@dataclass(frozen=True, slots=True)
class Policy:
    record: bool = False
    """Whether calls may be recorded at all."""

    def decide(self, facts: Facts, now: datetime) -> Decision:
        """`ports.Decide`. `now` is UTC; windows of the day will need it."""
        match facts.door:
            case "answer" | "transcript" | "third_party":
                return Allow()
            case "transfer":
                return Allow() if facts.target else Refuse("no_target", "a transfer goes to a named target")
            case "record":
                return Allow() if self.record else Refuse("recording_off", "recording is off in the settings")
            case "dial":
                return Refuse("outbound_closed", "outbound calling is closed")
