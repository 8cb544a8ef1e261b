"""How far a transfer has come, and the moves that its decisions are made of. Plain values and `now`."""

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from typing import Literal

from trunkline.gateway.transfer_record import SURELY_DEAD, Attempt, How, Kind, Policy, Result, Target, TransferFailed
from trunkline.gateway.transfer_steps import (
    AgentLeaves,
    Dial,
    Effect,
    HangUpCaller,
    HangUpTarget,
    Hold,
    Join,
    RecordAttempt,
    Refer,
    Resume,
    SetDeadline,
)


class State(Enum):
    READY = "ready"
    REFERRING = "referring"
    REFERRED = "referred"
    DIALLING = "dialling"
    BRIEFING = "briefing"
    DECIDING = "deciding"
    REPLACING = "replacing"
    CLEARING = "clearing"
    JOINED = "joined"
    RETURNED = "returned"
    ENDED = "ended"


class Way:
    """Of one caller to one of `targets`, tried in order. A move returns the state it leads to; what there is to do
    is in the effects."""

    def __init__(
        self, kind: Kind, targets: Sequence[Target], policy: Policy | None = None, *, can_refer: bool = True
    ) -> None:
        """`can_refer`: the caller's leg can be put through by its carrier (REFER, or Twilio's <Dial>)."""
        if not targets:
            raise ValueError("a transfer needs a target")
        self.state = State.READY
        self.result: Result | None = None
        """Of the whole, once it is JOINED, RETURNED or ENDED."""
        self._targets, self._for_all = tuple(targets), (kind, policy or Policy())
        self._next = 1  # of the targets, from 1
        self.kind, self.policy = self._terms()
        self.can_refer = can_refer
        """Cleared when it could not, for this target and further ones."""
        self._effects: list[Effect] = []
        self.began_at = 0.0
        self.deadline_at: float | None = None
        self.caller_lost = False
        # of the attempt
        self.attempt = Attempt(0, targets[0].name, "blind", 0.0, 0.0)
        self.leg = False  # a leg of ours to the target, not known to be over
        self.hears_target = False
        self.asked = 0
        self.notified = 0  # the highest provisional status
        self.accepted = False  # the REFER with Replaces
        self.refer_open = False  # a REFER was sent, and neither refused nor finally notified of

    def try_next(self, now: float) -> State:
        self._next += 1
        waited_with = self.policy.waiting
        self.kind, self.policy = self._terms()
        if self.policy.waiting != waited_with:
            self.hold("caller")
        return self.try_target(now)

    @property
    def target(self) -> Target:
        return self._targets[self._next - 1]

    def _terms(self) -> tuple[Kind, Policy]:
        """Of the current target."""
        kind, policy = self._for_all
        return self.target.kind or kind, self.target.policy or policy

    def try_target(self, now: float) -> State:
        """The current target, in the way that is left."""
        target, how = self.target, self._how()
        self.attempt = Attempt(self.attempt.number + 1, target.name, how, self.began_at, now)
        self.leg, self.asked, self.notified, self.accepted, self.refer_open = False, 0, 0, False, False
        if self.hears_target:
            self.hold("caller")
        if how == "blind" and not self.can_refer:
            return self.fail("refused", now, "the caller's leg cannot be put through by its carrier")
        if how == "blind":
            self.refer_open = True
            self.do(Refer(self.attempt.number, target))
            self.wait(self.policy.refer_answer_s, now)
            return State.REFERRING
        self.leg = True
        self.do(Dial(self.attempt.number, target))
        self.wait(self.policy.ring_s, now)
        return State.DIALLING

    def _how(self) -> How:
        if self.kind == "auto":
            return "blind" if self.can_refer else "bridged"
        return self.kind

    def fail(self, result: Result, now: float, detail: str = "") -> State:
        """This attempt brought nobody: the next one if there may be one, else back to the agent."""
        self.record(result, now, detail)
        self.hang_up_target()
        if not self._another(result, now):
            return self.resume(result, detail)
        if not self.leg:
            return self.try_next(now)
        self.hold("caller")
        self.wait(self.policy.clear_s, now)
        return State.CLEARING

    def _another(self, result: Result, now: float) -> bool:
        left = self._next < len(self._targets) and now - self.began_at < self.policy.patience_s
        return left and result in SURELY_DEAD and not self.caller_lost

    def resume(self, result: Result, detail: str = "") -> State:
        """The caller comes back to the agent."""
        self.result, self.deadline_at = result, None
        self.do(Resume(TransferFailed(result, self.attempt.target, detail, self.attempt.number)))
        return State.RETURNED

    def join(self, now: float) -> State:
        """With the target, through us."""
        self.attempt.joined_at, self.deadline_at = now, None
        self.do(Join(self.attempt.number))
        if not self.policy.agent_stays:
            self.do(AgentLeaves())
        self.record("transferred", now)
        self.result = "transferred"
        return State.JOINED

    def taken(self, now: float) -> State:
        """With the target, through the carrier: the transferor hangs up (RFC 5589 6.1)."""
        self.attempt.joined_at = now
        self.record("transferred", now)
        self.hang_up_target()
        self.do(AgentLeaves())
        self.do(HangUpCaller())
        return self.end("transferred")

    def gone(self, result: Result, now: float, detail: str = "") -> State:
        """The caller's leg is over."""
        self.record(result, now, detail)
        self.hang_up_target()
        return self.end(result)

    def end(self, result: Result) -> State:
        self.result, self.deadline_at = result, None
        return State.ENDED

    def record(self, result: Result, now: float, detail: str = "") -> None:
        """Of the attempt, once."""
        if self.attempt.result is None:
            self.attempt.result, self.attempt.ended_at, self.attempt.detail = result, now, detail
            self.do(RecordAttempt(replace(self.attempt)))

    def hang_up_target(self) -> None:
        """Where there is a leg of ours that is not known to be over."""
        if self.leg:
            self.do(HangUpTarget(self.attempt.number))

    def hold(self, who: Literal["caller", "target"]) -> None:
        if who == "caller":
            self.hears_target = False
        self.do(Hold(who, self.policy.waiting if who == "caller" else "music"))

    def wait(self, seconds: float, now: float) -> None:
        self.deadline_at = now + seconds
        self.do(SetDeadline(seconds))

    def wait_no_longer_than(self, seconds: float, now: float) -> None:
        if self.deadline_at is None or self.deadline_at > now + seconds:
            self.wait(seconds, now)

    def take_effects(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects

    def do(self, effect: Effect) -> None:
        self._effects.append(effect)
