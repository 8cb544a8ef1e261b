"""An order on its way out: what `outbound.Attempts` says, performed for one call. Each attempt has a Trial between its
leg and the call, so that an attempt may fail and the call go on; from the answer on the Trial only passes on.
"""

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from trunkline.gateway import call as c
from trunkline.gateway.dialling import DialOrder
from trunkline.gateway.endings import Ended, ended
from trunkline.gateway.leg import Dialler, Leg, LegCall, Plan
from trunkline.gateway.outbound import (
    BEGUN,
    CONCLUDED,
    Attempts,
    Failure,
    Finish,
    Place,
    RetryPolicy,
    Step,
    Tried,
    Wait,
    begun,
    concluded,
    unplaced,
)
from trunkline.gateway.payable import Payable
from trunkline.gateway.referred import Referrals, Referring
from trunkline.gateway.waysout import no_way_out, routes
from trunkline.gateway.waysout import way as way_of
from trunkline.media.bus import Receiver
from trunkline.media.voicemail import After
from trunkline.ports import ENDED_BY, EndedBy, EndReason, Refuse
from trunkline.types import CallId

if TYPE_CHECKING:
    from trunkline.gateway.linecall import LineCall
    from trunkline.gateway.switchboard import Prepare, Switchboard

OVER_POLL_S = 1.0  # the last INVITE is taken back and not yet over
SLACK_S = 60.0  # of the call's own deadline, behind all of ours
_RINGS = ("progress", "ringing")  # kinds of event


class Placing:
    """All attempts of one order. No two are out at the same time."""

    def __init__(self, board: "Switchboard", order: DialOrder, policy: RetryPolicy) -> None:
        self._board, self._order = board, order
        self._attempts = Attempts(policy)
        self._call: LineCall | None = None
        self._trial: Trial | None = None
        """The latest."""
        self._timer: asyncio.TimerHandle | None = None
        self._preparing: asyncio.Task[None] | None = None
        self.longest_s = policy.give_up_after_s + order.ring_timeout_s + SLACK_S

    # --- the first one ---

    def first(self) -> "tuple[Place, Dialler, Plan] | Refuse":
        """Which attempt comes first; nothing happens yet."""
        step: Step | None = self._attempts.begin(routes(self._board.diallers, self._order), self._board.clock.now())
        refused: Refuse | None = None
        while isinstance(step, Place):
            way = way_of(self._board.diallers, self._order, step)
            if not isinstance(way, Refuse):
                return step, *way
            refused = refused or way
            step = self._attempts.failed(step.attempt, unplaced(way), self._board.clock.now())
        return refused or no_way_out(self._board.diallers, self._order)

    def dial(self, call: "LineCall", place: Place, dialler: Dialler, plan: Plan) -> Refuse | None:
        """The dial door was asked. What fails here has ended the call."""
        self._call = call
        call.event(BEGUN, **begun(place))
        trial = self._trial = Trial(self, call, place.attempt)
        try:
            leg = dialler.dial(plan, trial)
        except Exception as error:
            call.crashed(error)
            return Refuse("error", "the call could not be placed")
        self._later(self._order.ring_timeout_s + plan.ring_slack_s, self._rang_out)
        trial.expect(leg)
        return None

    # --- the call ---

    def close(self) -> None:
        """The call is over."""
        self._stop_timer()
        if self._preparing is not None:
            self._preparing.cancel()
        self._attempts.stop(ended("error", "the call is over"))

    def drain(self) -> None:
        """Who would be called later is not."""
        if self._attempts.state == "waiting" and self._call is not None:
            self._call.hang_up("drained")

    # --- a trial ---

    def holds(self, trial: "Trial") -> bool:
        """It may still be answered, or has been."""
        return trial is self._trial and self._attempts.state in ("trying", "answered")

    def rang(self, trial: "Trial") -> None:
        self._attempts.rang(trial.attempt)

    def answered(self, trial: "Trial") -> bool:
        """False: it is no longer wanted."""
        if not self.holds(trial):
            return False
        self._attempts.answered(trial.attempt)
        self._stop_timer()
        return True

    def finished(self, trial: "Trial", end: Ended) -> None:
        if trial is not self._trial or self._call is None:
            return
        if self._attempts.state == "answered":
            self._call.finished(end.reason, end.detail, end.by, end.provider_code)
            return
        leg: object = trial.leg
        said = leg.failure if isinstance(leg, Tried) else None
        self._failed(trial, said or Failure(end, may_have_rung=True))

    # --- steps ---

    def _failed(self, trial: "Trial", failure: Failure) -> None:
        step = self._attempts.failed(trial.attempt, failure, self._board.clock.now())
        if step is None:
            return
        assert self._call is not None
        self._stop_timer()
        self._call.event(CONCLUDED, **concluded(trial.attempt, failure))
        if not isinstance(step, Finish):
            self._call.pause()
            if trial.leg is not None:
                trial.leg.close(failure.ended.reason)
        self._perform(step)

    def _perform(self, step: Step | None) -> None:
        assert self._call is not None
        match step:
            case Finish(end):
                self._call.finished(end.reason, end.detail, end.by, end.provider_code)
            case Wait(until):
                after_s = max(0.0, until - self._board.clock.now())
                self._call.event("waiting", after_s=round(after_s, 3))
                self._later(after_s, self._due)
            case Place():
                self._perform(self._placed(step))

    def _placed(self, place: Place) -> Step | None:
        """None: it is out."""
        call, attempts = self._call, self._attempts
        assert call is not None
        way = way_of(Payable(self._board.diallers, partial(call.may_pay_leg, direction="outbound")), self._order, place)
        if isinstance(way, Refuse):
            return attempts.failed(place.attempt, unplaced(way), self._board.clock.now())
        dialler, plan = way
        call.started = replace(call.started, leg=plan.kind, from_number=plan.from_number)
        call.arrival = replace(call.arrival, trunk=plan.sip_trunk)
        decision = call.ask("dial")
        if isinstance(decision, Refuse):
            return attempts.refused(place.attempt, decision)
        self._board.named(call.id, plan.provider_call_id)
        self.dial(call, place, dialler, plan)
        return None

    def _rang_out(self) -> None:
        assert self._call is not None
        trial = self._trial
        if trial is not None and self._call.machine.state is c.State.RINGING:
            self._failed(trial, Failure(ended("no_answer", "it rang too long"), may_have_rung=True))

    def _due(self) -> None:
        if self._trial is not None and not self._trial.over:
            self._later(OVER_POLL_S, self._due)
        elif (prepare := self._board.prepare) is None:
            self._again()
        else:
            self._preparing = asyncio.create_task(self._prepared(prepare), name="prepare-dial")

    async def _prepared(self, prepare: "Prepare") -> None:
        """What was known at the last attempt may no longer be true."""
        assert self._call is not None
        try:
            self._order = await prepare(self._order)
            self._call.arrival = replace(self._call.arrival, standing=self._order.standing)
            self._again()
        except Exception as error:
            self._call.crashed(error)

    def _again(self) -> None:
        self._perform(self._attempts.due(routes(self._board.diallers, self._order), self._board.clock.now()))

    # --- the timer ---

    def _later(self, after_s: float, then: Any) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(after_s, self._guarded, then)

    def _guarded(self, then: Any) -> None:
        try:
            then()
        except Exception as error:
            assert self._call is not None
            self._call.crashed(error)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Trial:
    """The LegCall of one attempt."""

    def __init__(self, placing: Placing, call: LegCall, attempt: int) -> None:
        self.attempt = attempt
        self.leg: Leg | None = None
        self.over = False
        """Its INVITE is."""
        self._placing, self._call = placing, call

    @property
    def id(self) -> CallId:
        return self._call.id

    @property
    def referrals(self) -> Referrals | None:
        return self._call.referrals if isinstance(self._call, Referring) else None

    def expect(self, leg: Leg) -> None:
        self.leg = leg
        self._call.expect(leg)

    def listen(self, leg: Leg) -> Receiver | Refuse:
        if not self._placing.holds(self):
            return _UNWANTED
        self._placing.rang(self)
        return self._call.listen(leg)

    def answered(self) -> None:
        if self._placing.answered(self):
            self._call.answered()

    def attach(self, leg: Leg) -> Receiver | Refuse:
        return self._call.attach(leg) if self._placing.answered(self) else _UNWANTED

    def key(self, digit: str) -> None:
        self._call.key(digit)

    def held(self, on: bool) -> None:
        self._call.held(on)

    def answered_by_machine(self, after: After | None = None) -> None:
        if self._placing.holds(self):
            self._call.answered_by_machine(after)

    def stopped(self, leg: Leg) -> None:
        if self._placing.holds(self):
            self._call.stopped(leg)

    def lost(self, leg: Leg, why: str) -> None:
        if self._placing.holds(self):
            self._call.lost(leg, why)

    def finished(self, reason: EndReason, detail: str = "", by: EndedBy | None = None, provider_code: str = "") -> None:
        self.over = True
        try:
            self._placing.finished(self, Ended(reason, by or ENDED_BY[reason], detail, provider_code))
        except Exception as error:
            self._call.crashed(error)

    def hang_up(self, reason: EndReason) -> None:
        if self._placing.holds(self):
            self._call.hang_up(reason)

    def event(self, kind: str, **data: Any) -> None:
        if kind in _RINGS:
            self._placing.rang(self)
        self._call.event(kind, **data)

    def crashed(self, error: BaseException) -> None:
        self._call.crashed(error)


_UNWANTED = Refuse("ending", "this attempt is over")
