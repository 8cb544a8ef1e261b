"""The call state machine: what a call may be, and what follows from what happens to it. Plain values, no effects of its
own: `handle` returns them, the call's line performs them in order.

    RINGING ──media──► ACTIVE ──we hang up──► ENDING ──► ENDED
                       │  ▲
                       └──┴── HANDOVER: the agent has stepped aside, and a transfer of ours has the line
       │  ▲               │ └──────transfer──► TRANSFERRING ──dialled──► ENDED
       │  └───────────────┼──────────the target did not answer──┘
       └──── no media ────┴──── stop, loss, status ────────────────────► ENDED

RINGING is a call that has no conversation yet: a caller whose media is awaited, or a far end of ours that rings (its
early media is heard by recorder and ears, not by the agent) until it answers, or its deadline passes.

Every pair of state and event has a row, or is in IGNORED: carriers repeat themselves, and their callbacks come in any
order, after the end as well. The record ends once, with the first reason.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from trunkline.ports import EndReason

START_WAIT_S = 15.0  # from an answer to the first media: Twilio connects within a second or two, SIP at once
CLOSE_WAIT_S = 4.0
DIAL_SLACK_S = 120.0  # ringing and webhooks, beyond what a transferred call may last


class State(Enum):
    RINGING = "ringing"
    ACTIVE = "active"
    TRANSFERRING = "transferring"
    HANDOVER = "handover"
    ENDING = "ending"
    ENDED = "ended"


# --- events ---


@dataclass(frozen=True, slots=True)
class EarlyMedia:
    """The far end of a call of ours is heard before it answers: ringback, an announcement."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The far end has picked up; media follows."""


@dataclass(frozen=True, slots=True)
class MediaStarted:
    """An authenticated stream of this call. A second one replaces the first."""


@dataclass(frozen=True, slots=True)
class MediaStopped:
    """The carrier ended the stream in order."""


@dataclass(frozen=True, slots=True)
class MediaLost:
    why: str


@dataclass(frozen=True, slots=True)
class HangUp:
    """We end it: the agent, an operator, a limit, a bug."""

    reason: EndReason


@dataclass(frozen=True, slots=True)
class Transfer:
    """What was said has been heard; the carrier is to dial the target."""


@dataclass(frozen=True, slots=True)
class HandOver:
    """The leg stays ours: a transfer (`handover.py`) or a hold has the line, without the agent."""


@dataclass(frozen=True, slots=True)
class Returned:
    """The line comes back to the agent. `failed`: it was to be put through, and was not."""

    failed: bool = True


@dataclass(frozen=True, slots=True)
class Dialled:
    """The target has answered the transfer, and that conversation is over."""


@dataclass(frozen=True, slots=True)
class DialFailed:
    """The target did not answer."""


@dataclass(frozen=True, slots=True)
class StatusFinal:
    """The carrier says the whole call is over."""

    reason: EndReason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The deadline that was set last."""


Event = (
    EarlyMedia
    | Answered
    | MediaStarted
    | MediaStopped
    | MediaLost
    | HangUp
    | Transfer
    | HandOver
    | Returned
    | Dialled
    | DialFailed
    | StatusFinal
    | DeadlinePassed
)

# --- effects ---


@dataclass(frozen=True, slots=True)
class Listen:
    """The bus is opened; nobody attends yet."""


@dataclass(frozen=True, slots=True)
class Attend:
    """The agent takes the line: first, again after its leg was replaced, again as the target did not answer, or after
    a hold or a conversation with a person."""

    why: Literal["new", "replaced", "transfer_failed", "back"]


@dataclass(frozen=True, slots=True)
class StepAside:
    """The agent leaves the line, which stays open; the handover begins."""


@dataclass(frozen=True, slots=True)
class Release:
    """The agent leaves the line; the bus is closed."""


@dataclass(frozen=True, slots=True)
class CloseLeg:
    why: EndReason


@dataclass(frozen=True, slots=True)
class SetDeadline:
    after_s: float


@dataclass(frozen=True, slots=True)
class EndRecord:
    reason: EndReason
    detail: str = ""


Effect = Listen | Attend | StepAside | Release | CloseLeg | SetDeadline | EndRecord

TRANSITIONS: dict[tuple[State, type], State] = {
    (State.RINGING, EarlyMedia): State.RINGING,
    (State.RINGING, Answered): State.RINGING,
    (State.RINGING, MediaStarted): State.ACTIVE,
    (State.RINGING, HangUp): State.ENDED,
    (State.RINGING, StatusFinal): State.ENDED,
    (State.RINGING, DeadlinePassed): State.ENDED,
    (State.ACTIVE, MediaStarted): State.ACTIVE,
    (State.ACTIVE, MediaStopped): State.ENDED,
    (State.ACTIVE, MediaLost): State.ENDED,
    (State.ACTIVE, HangUp): State.ENDING,
    (State.ACTIVE, Transfer): State.TRANSFERRING,
    (State.ACTIVE, StatusFinal): State.ENDED,
    (State.ACTIVE, HandOver): State.HANDOVER,
    (State.HANDOVER, Returned): State.ACTIVE,
    (State.HANDOVER, MediaStarted): State.ACTIVE,  # the leg in the handover is dead: its carrier comes back
    (State.HANDOVER, MediaStopped): State.ENDED,
    (State.HANDOVER, MediaLost): State.ENDED,
    (State.HANDOVER, HangUp): State.ENDING,
    (State.HANDOVER, StatusFinal): State.ENDED,
    (State.TRANSFERRING, Dialled): State.ENDED,
    (State.TRANSFERRING, DialFailed): State.RINGING,
    (State.TRANSFERRING, MediaStarted): State.ACTIVE,
    (State.TRANSFERRING, HangUp): State.ENDED,
    (State.TRANSFERRING, StatusFinal): State.ENDED,
    (State.TRANSFERRING, DeadlinePassed): State.ENDED,  # nobody told us how it went
    (State.ENDING, MediaStopped): State.ENDED,
    (State.ENDING, MediaLost): State.ENDED,
    (State.ENDING, StatusFinal): State.ENDED,
    (State.ENDING, DeadlinePassed): State.ENDED,
}

IGNORED: frozenset[tuple[State, type]] = frozenset(
    {
        (State.RINGING, MediaStopped),  # of a stream that was replaced, or that ended for a transfer
        (State.RINGING, MediaLost),
        (State.RINGING, Transfer),
        (State.RINGING, Dialled),
        (State.RINGING, DialFailed),
        (State.ACTIVE, EarlyMedia),
        (State.ACTIVE, Answered),
        (State.ACTIVE, Dialled),
        (State.ACTIVE, DialFailed),
        (State.ACTIVE, DeadlinePassed),
        (State.TRANSFERRING, EarlyMedia),
        (State.TRANSFERRING, Answered),
        (State.TRANSFERRING, MediaStopped),  # the carrier ends the stream in order to dial
        (State.TRANSFERRING, MediaLost),
        (State.TRANSFERRING, Transfer),
        (State.ENDING, EarlyMedia),
        (State.ENDING, Answered),
        (State.ENDING, MediaStarted),
        (State.ENDING, HangUp),
        (State.ENDING, Transfer),
        (State.ENDING, Dialled),
        (State.ENDING, DialFailed),
        *(
            (State.HANDOVER, event)
            for event in (
                EarlyMedia,
                Answered,
                Transfer,
                HandOver,
                Dialled,
                DialFailed,
                DeadlinePassed,
            )
        ),
        *((state, HandOver) for state in (State.RINGING, State.TRANSFERRING, State.ENDING)),
        *((state, Returned) for state in (State.RINGING, State.ACTIVE, State.TRANSFERRING, State.ENDING)),
        *((State.ENDED, event) for event in Event.__args__),
    }
)


class Call:
    def __init__(self, max_call_s: float = 3600.0, ring_s: float | None = None) -> None:
        """`max_call_s`: how long the carrier lets a transferred call last. `ring_s`: how long the far end of a call of
        ours may ring; None for a call that came to us."""
        self.state = State.RINGING
        self._max_call_s, self._ring_s = max_call_s, ring_s
        self._ending: EndReason = "error"  # why we hung up, while ENDING
        self._attended = self._transfer_failed = False
        self._dialling = ring_s is not None

    def begin(self) -> list[Effect]:
        """It was let in, and media must come; or it was dialled, and must be answered."""
        return [SetDeadline(START_WAIT_S if self._ring_s is None else self._ring_s)]

    def handle(self, event: Event) -> list[Effect]:
        """The effects, in order. Raises KeyError naming state and event for a pair that has no row: our bug."""
        key = (self.state, type(event))
        if key in IGNORED:
            return []
        before, self.state = self.state, TRANSITIONS[key]
        match event:
            case EarlyMedia():
                return [Listen()]
            case Answered():
                self._dialling = False
                return [SetDeadline(START_WAIT_S)]
            case DialFailed():
                self._transfer_failed = True
                return [SetDeadline(START_WAIT_S)]
            case HandOver():
                return [StepAside()]
            case Returned(failed):
                return [Attend("transfer_failed" if failed else "back")]
            case MediaStarted():
                effects: list[Effect] = [Release()] if before in (State.ACTIVE, State.HANDOVER) else []
                effects.append(Attend(self._why_attended()))
                self._attended, self._transfer_failed, self._dialling = True, False, False
                return effects
        if self.state is State.ENDING:
            assert isinstance(event, HangUp)
            self._ending = event.reason
            return [Release(), CloseLeg(event.reason), SetDeadline(CLOSE_WAIT_S)]
        if self.state is State.TRANSFERRING:
            return [Release(), CloseLeg("transferred"), SetDeadline(self._max_call_s + DIAL_SLACK_S)]
        end = self._end(before, event)
        return [Release(), CloseLeg(end.reason), end]

    def _why_attended(self) -> Literal["new", "replaced", "transfer_failed"]:
        if self._transfer_failed:
            return "transfer_failed"
        return "replaced" if self._attended else "new"

    def _end(self, before: State, event: Event) -> EndRecord:
        if before is State.ENDING:
            return EndRecord(self._ending)
        match event:
            case MediaStopped():
                return EndRecord("caller_hung_up")
            case MediaLost(why):
                return EndRecord("media_lost", why)
            case HangUp("drained") if before is State.TRANSFERRING:
                return EndRecord("transferred", "we were stopped first")  # the carrier keeps the two connected
            case HangUp(reason):
                return EndRecord(reason)
            case StatusFinal() if before is State.TRANSFERRING:
                return EndRecord("transferred")
            case StatusFinal(reason, detail):
                return EndRecord(reason, detail)
            case Dialled():
                return EndRecord("transferred")
            case _ if before is State.TRANSFERRING:
                return EndRecord("transferred", "how it went was never told")
            case _ if self._attended:
                return EndRecord("media_lost", "no media after a transfer that failed")
            case _ if self._dialling:
                return EndRecord("no_answer", "it rang too long")
            case _:
                return EndRecord("never_started")
