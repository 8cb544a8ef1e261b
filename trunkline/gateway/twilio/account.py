"""What a Twilio account can be asked for over REST, and what its answers mean. Plain values; rest.py is the wire.

The one question that matters of an order's answer: was a call created? 4xx: no. A connection that never was: no. A
lost answer, a stall, 5xx: nobody knows, and the order must not be given again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from trunkline.numbers.carriers.account import TOO_MANY as TOO_MANY
from trunkline.numbers.carriers.account import NotTaken as NotTaken
from trunkline.numbers.carriers.account import Unknown as Unknown
from trunkline.types import E164, CallSid


@dataclass(frozen=True, slots=True)
class CallOrder:
    """A call to be created: https://www.twilio.com/docs/voice/api/call-resource#create-a-call"""

    to_number: E164
    from_number: E164
    url: str
    """Twilio asks it what to do once somebody answers."""
    status_callback: str
    ring_s: int
    limit_s: int
    """Twilio ends the call then, whatever became of us."""
    machine_detection: Literal["Enable", "DetectMessageEnd"] | None = None
    machine_callback: str = ""


@dataclass(frozen=True, slots=True)
class Taken:
    call_sid: CallSid


@dataclass(frozen=True, slots=True)
class Listed:
    """A call that Twilio has."""

    call_sid: CallSid
    created: datetime
    ours: bool
    """Created over REST (direction outbound-api)."""


class Account(Protocol):
    """Every method answers within ANSWER_S of rest.py; none raises but when cancelled."""

    async def create(self, order: CallOrder) -> Taken | NotTaken | Unknown:
        """Sent once. Not idempotent."""
        ...

    async def recent(self, to_number: E164, from_number: E164) -> Sequence[Listed] | NotTaken | Unknown:
        """The newest calls from there to there."""
        ...

    async def requested(self, call_sid: CallSid) -> Sequence[str] | NotTaken | Unknown:
        """The URLs that Twilio has asked or told something of this call."""
        ...

    async def end(self, call_sid: CallSid) -> Taken | NotTaken | Unknown:
        """Hang up, ringing or not. Idempotent: a call that is over already counts as done."""
        ...

    async def check(self) -> NotTaken | Unknown | None:
        """Whether we may log in. None: yes."""
        ...

    async def close(self) -> None: ...
