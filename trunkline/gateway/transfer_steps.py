"""What happens to a transfer, and what it does about that: the events and effects of `transfer.Transfer`."""

from dataclasses import dataclass
from typing import Literal

from trunkline.gateway.sip.message import Reason
from trunkline.gateway.transfer_record import Attempt, Target, TransferFailed
from trunkline.ports import EndReason

# --- events: of an attempt ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sent:
    """The INVITE or REFER is on its way."""

    attempt: int
    trunk: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The effect (Dial, Refer, ReferReplaces, Join) was not performed: compliance or the leg said no. Nothing was
    sent."""

    attempt: int
    code: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class ReferAccepted:
    attempt: int
    status: int = 202


@dataclass(frozen=True, slots=True)
class ReferRefused:
    """`status` 0 or the stack's 408: no answer came."""

    attempt: int
    status: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Notify:
    """Of the REFER's subscription, in whatever order they come. `status` is the sipfrag's, None without one.
    `terminated`: the last of them, says its sender."""

    attempt: int
    status: int | None
    terminated: bool = False


@dataclass(frozen=True, slots=True)
class TargetRinging:
    attempt: int


@dataclass(frozen=True, slots=True)
class TargetEarlyMedia:
    attempt: int


@dataclass(frozen=True, slots=True)
class TargetAnswered:
    """Its media is there."""

    attempt: int


@dataclass(frozen=True, slots=True)
class TargetFailed:
    """The target's leg is over and was not answered. `end`: where the leg says it itself; else it is read from the
    final SIP status and the Reason headers."""

    attempt: int
    status: int = 0
    reasons: tuple[Reason, ...] = ()
    end: EndReason | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class TargetHungUp:
    """The target's leg is over, in order."""

    attempt: int


@dataclass(frozen=True, slots=True)
class TargetLost:
    """Its media or connection went away. Before an answer it may still ring."""

    attempt: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class BriefingSpoken:
    """The representative has heard the summary and the prompt."""

    attempt: int


@dataclass(frozen=True, slots=True)
class BriefingFailed:
    attempt: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class Keyed:
    """By the representative."""

    attempt: int
    digit: str


@dataclass(frozen=True, slots=True)
class Said:
    """By the representative."""

    attempt: int
    text: str


@dataclass(frozen=True, slots=True)
class VoicemailDetected:
    """A beep, a greeting, or the carrier's machine detection."""

    attempt: int


# --- events: of the call --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CallerLeft:
    """The caller's leg was ended in order: the caller hung up, or the carrier took the call over."""


@dataclass(frozen=True, slots=True)
class CallerLost:
    """No more media or signalling of the caller's leg."""

    why: str = ""


@dataclass(frozen=True, slots=True)
class Cancel:
    """An operator wants the caller back with the AI agent."""

    why: str = ""


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The deadline that was set last."""


AttemptEvent = (
    Sent
    | Refused
    | ReferAccepted
    | ReferRefused
    | Notify
    | TargetRinging
    | TargetEarlyMedia
    | TargetAnswered
    | TargetFailed
    | TargetHungUp
    | TargetLost
    | BriefingSpoken
    | BriefingFailed
    | Keyed
    | Said
    | VoicemailDetected
)
Event = AttemptEvent | CallerLeft | CallerLost | Cancel | DeadlinePassed


# --- effects --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hold:
    """That party hears `source` and is heard by nobody. Again: it goes on, or the source changes."""

    who: Literal["caller", "target"]
    source: Literal["music", "ringback"]


@dataclass(frozen=True, slots=True)
class HearTarget:
    """The caller hears the target's early media instead."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Refer:
    """On the caller's leg. The transfer door is asked first; Sent or Refused follows."""

    attempt: int
    target: Target


@dataclass(frozen=True, slots=True)
class ReferReplaces:
    """On the caller's leg, to take the place of our dialog with the target (RFC 3891)."""

    attempt: int
    target: Target


@dataclass(frozen=True, slots=True)
class Dial:
    """One INVITE that can ring somebody. The transfer door is asked first; Sent (again for each trunk that is tried) or
    Refused follows, and in the end exactly one of Refused, TargetFailed, TargetHungUp or TargetLost."""

    attempt: int
    target: Target


@dataclass(frozen=True, slots=True)
class Brief:
    """The AI agent speaks `spoken` to the target alone, and `written` is sent along. BriefingSpoken follows."""

    attempt: int
    spoken: str
    written: str


@dataclass(frozen=True, slots=True)
class Ask:
    """The prompt once more; of a briefing that is still being spoken, the rest is dropped."""

    attempt: int
    spoken: str


@dataclass(frozen=True, slots=True)
class Join:
    """Caller and target hear each other, off hold; and the agent, until AgentLeaves."""

    attempt: int


@dataclass(frozen=True, slots=True)
class AgentLeaves:
    pass


@dataclass(frozen=True, slots=True)
class Resume:
    """The caller is with the AI agent again, off hold. `failed` None: the representative hung up first, after the
    conversation."""

    failed: TransferFailed | None


@dataclass(frozen=True, slots=True)
class HangUpTarget:
    """CANCEL or BYE, as is due. Idempotent."""

    attempt: int


@dataclass(frozen=True, slots=True)
class HangUpCaller:
    """Our dialog with the caller is no longer needed, or the conversation is over."""


@dataclass(frozen=True, slots=True)
class SetDeadline:
    """Replaces the one before; DeadlinePassed follows."""

    after_s: float


@dataclass(frozen=True, slots=True)
class RecordAttempt:
    attempt: Attempt


Effect = (
    Hold
    | HearTarget
    | Refer
    | ReferReplaces
    | Dial
    | Brief
    | Ask
    | Join
    | AgentLeaves
    | Resume
    | HangUpTarget
    | HangUpCaller
    | SetDeadline
    | RecordAttempt
)
