"""A REFER from the far end that was accepted (`transfer_refer.py` judges it), followed: whom it names is called over a
trunk of ours, and takes the place of who asked.

    the agent ── talks with ── far end ── REFER: call X ─► we dial X; far end and agent go on talking
                                                            X answers: the agent talks with X; the far end is told 200,
                                                            and hangs up or is hung up
                                                            X does not: the far end is told why, and keeps the agent

The same for a representative who was put on the line by us, and asks for somebody else in their place. With Replaces
nobody is dialled: X is the far end of another call of ours, which ends.

Whatever fails, who talks goes on talking.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from trunkline.gateway import dialledleg
from trunkline.gateway.dialledleg import DialledLeg, Over, Unanswered
from trunkline.gateway.dialling import DialOrder
from trunkline.gateway.hands import Hands
from trunkline.gateway.leg import Dialler, Leg, LegCall
from trunkline.gateway.outbound import Failure
from trunkline.gateway.waysout import Way, WaysOut
from trunkline.media.bus import Receiver
from trunkline.media.voicemail import After
from trunkline.ports import CallFacts, Decision, EndedBy, EndReason, Refuse
from trunkline.types import E164, CallId

RING_S = 30.0
RING_SLACK_S = 5.0  # the dialler's own limit is behind ours
BYE_WAIT_S = 2.0  # who asked hangs up, having been told 200 (RFC 5589 6.1), or is hung up then
FAILED = 503
STATUS_OF: Mapping[EndReason, int] = {"busy": 486, "no_answer": 480, "rejected": 603, "refused": 403}
"""Where a leg that was not answered names no SIP status; all others are FAILED."""

Tell = Callable[[int], None]
"""The SIP status of the new call, for a NOTIFY."""


@runtime_checkable
class Movable(Hands, Protocol):
    """A leg that may come to belong to another call."""

    call: LegCall

    def continue_from(self, position_ms: int) -> None:
        """What it hears next lies there on the call's media clock, which another leg has driven so far."""
        ...


class Host(dialledleg.Host, dialledleg.Now, Protocol):
    """Whose far end asks: a call, or a representative's leg of one."""

    @property
    def our_number(self) -> E164 | None:
        """Whose line sends them on."""
        ...

    @property
    def diallers(self) -> Sequence[Dialler]: ...

    def may_call(self, number: E164, *, goes: bool = True) -> Decision:
        """The dial door. `goes`: it is called now."""
        ...

    def bound(self) -> Refuse | None:
        """Why nobody ever takes its far end's place; None: somebody may."""
        ...

    def talks_with(self, leg: Leg) -> bool:
        """So that somebody else could take its place."""
        ...

    def succeed(self, leg: Movable) -> Receiver | Refuse:
        """This leg takes the place, with `call` set; who had it is left with nobody to hear."""
        ...

    def give_up(self, leg: Leg) -> Movable | Refuse:
        """The leg, for another call, and this one ends. Code: `not_now`."""
        ...


@dataclass(frozen=True, slots=True)
class Wish:
    """What a REFER asks for, judged to be allowed: a number, or the far end of another call."""

    number: E164 | None
    other: "tuple[Referrals, Leg] | None"
    tell: Tell


def our_number(facts: CallFacts) -> E164 | None:
    ours = facts.to_number if facts.direction == "inbound" else facts.from_number
    return E164(ours) if ours else None


@runtime_checkable
class Referring(Protocol):
    """A LegCall whose far end may ask."""

    @property
    def referrals(self) -> "Referrals | None": ...


class Referrals:
    """Those of one call, or of one representative: one at a time."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._now: Referral | None = None

    def may_begin(self, leg: Leg) -> Refuse | None:
        if (bound := self.host.bound()) is not None:
            return bound
        if not self.host.talks_with(leg):
            return Refuse("not_now", "nobody talks with this leg whom another could talk with instead")
        if self._now is not None and not self._now.over:
            return Refuse("pending", "the last REFER is being followed")
        return None

    def begin(self, leg: Leg, wish: Wish) -> None:
        """Of a REFER that was answered 202."""
        assert isinstance(leg, Movable)
        self._now = Referral(self.host, leg, wish)
        self._now.begin()

    def close(self) -> None:
        """Nobody talks any more: whoever rings is left. Idempotent."""
        if self._now is not None:
            self._now.give_up(487, "the call is over")


class Referral:
    def __init__(self, host: Host, asking: Movable, wish: Wish) -> None:
        self.host = host
        self.over = False
        self._asking, self._wish = asking, wish
        self._new: NewLeg | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ways: WaysOut | None = None

    def begin(self) -> None:
        self._wish.tell(100)
        if self._wish.other is not None:
            self._take(*self._wish.other)
            return
        assert self._wish.number is not None
        decision = self.host.may_call(self._wish.number)
        if isinstance(decision, Refuse):
            self._failed(STATUS_OF["refused"], decision.code)
            return
        order = DialOrder(
            self._wish.number,
            ring_timeout_s=RING_S + RING_SLACK_S,
            forwarded_by=self.host.our_number,
            detects_machine=False,
        )
        self._ways = WaysOut([dialler for dialler in self.host.diallers if _over_sip(dialler, order)], order)
        self._timer = asyncio.get_running_loop().call_later(RING_S, self.give_up, 480, "no_answer")
        self._ring(self._ways.first(self.host.now()))

    def _ring(self, found: Way | Refuse) -> None:
        if isinstance(found, Refuse):
            self._failed(FAILED, found.code)
            return
        if (no_line := self.host.take_line()) is not None:
            self._failed(FAILED, no_line.code)
            return
        place, dialler, plan = found
        new = self._new = NewLeg(self, place.attempt)
        new.trunk, new.number = plan.trunk, plan.order.to_number
        self.host.event("leg_dialled", leg=new.name, target="referred", trunk=plan.trunk)
        try:
            new.expect(dialler.dial(plan, new))
        except Exception as error:  # our own bug costs this attempt, not the call
            self.host.event("crashed", leg=new.name, error=type(error).__name__)
            new.never_was()
            self._failed(500, "error")

    # --- the new leg ---

    def rings(self, status: int) -> None:
        if not self.over:
            self._wish.tell(status)

    def answered(self, leg: Leg) -> Receiver | Refuse:
        """They talk from here on, if there is still somebody to talk with."""
        if self.over:
            return Refuse("ending", "nobody waits for it")
        assert isinstance(leg, Movable)
        took = self._succeed(leg)
        if isinstance(took, Refuse):
            self._failed(487, took.code)
        return took

    def not_answered(self, status: int, why: str) -> None:
        self._failed(status, why)

    def unanswered(self, new: "NewLeg", failure: Failure, status: int) -> None:
        """Over the next trunk, while nobody can have been rung."""
        way = None if self.over or self._ways is None else self._ways.next(new.place, failure, self.host.now())
        if way is None:
            self._failed(status, failure.ended.reason)
        else:
            self._ring(way)

    def give_up(self, status: int, why: str) -> None:
        """Idempotent."""
        if not self.over:
            self._failed(status, why)
            if self._new is not None:
                self._new.hang_up_leg("no_answer")

    # --- a leg of another call ---

    def _take(self, referrals: Referrals, leg: Leg) -> None:
        if not self.host.talks_with(self._asking):
            self._failed(487, "not_now")
            return
        taken = referrals.host.give_up(leg)
        took = self._succeed(taken) if not isinstance(taken, Refuse) else taken
        if isinstance(took, Refuse):
            self._failed(481, took.code)
        else:
            assert not isinstance(taken, Refuse)
            taken.bus = took

    # --- the end ---

    def _succeed(self, leg: Movable) -> Receiver | Refuse:
        if not self.host.talks_with(self._asking):
            return Refuse("not_now", "who asked does not talk with us any more")
        asking = self._asking
        took = self.host.succeed(leg)
        if isinstance(took, Refuse):
            return took
        self._conclude("followed", 200)
        asyncio.get_running_loop().call_later(BYE_WAIT_S, asking.close, "transferred")
        return took

    def _failed(self, status: int, why: str) -> None:
        if not self.over:
            self._conclude(why, status)

    def _conclude(self, result: str, status: int) -> None:
        self.over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wish.tell(status)
        self.host.event("refer_followed", leg=self._new.name if self._new else None, result=result, status=status)


def _over_sip(dialler: Dialler, order: DialOrder) -> bool:
    """Another kind's leg cannot take a place."""
    plan = dialler.plan(order)
    return isinstance(plan, Refuse) or plan.kind == "sip"


class NewLeg(DialledLeg):
    """Who is called for a REFER, until they answer: then the leg is the call's own."""

    def __init__(self, referral: Referral, place: int) -> None:
        """`place`: which of the trunks it is, from 1."""
        super().__init__(referral.host, referral.host)
        self._referral, self.place = referral, place

    def expect(self, leg: Leg) -> None:
        super().expect(leg)
        if self._referral.over:
            self.hang_up_leg("no_answer")

    def hang_up(self, reason: EndReason) -> None:
        self._referral.give_up(FAILED, reason)

    def event(self, kind: str, **data: Any) -> None:
        super().event(kind, **data)
        if kind == "progress":
            self._referral.rings(int(data["code"]))

    def picked_up(self) -> Receiver | Refuse:
        assert self.media is not None
        took = self._referral.answered(self.media)
        if isinstance(took, Refuse):
            self.hang_up_leg("transferred")
        else:
            self.handed_over()
        return took

    def ended(self, how: Over) -> None:
        match how:
            case Unanswered(reason, _, provider_code):
                said = re.search(r"sip:([3-6][0-9]{2})", provider_code)
                status = int(said[1]) if said else STATUS_OF.get(reason, FAILED)
                self._referral.unanswered(self, self.failed(how), status)
            case _:
                self._referral.not_answered(500, "target_lost")


class Leaving:
    """The LegCall of who was succeeded, until it has hung up."""

    def __init__(self, call: LegCall, leg: Leg) -> None:
        self._call, self._leg = call, leg

    @property
    def id(self) -> CallId:
        return self._call.id

    def expect(self, leg: Leg) -> None:
        """It was there."""

    def listen(self, leg: Leg) -> Receiver | Refuse:
        return Refuse("ending", "somebody else is there")

    def answered(self) -> None:
        """It was."""

    def attach(self, leg: Leg) -> Receiver | Refuse:
        return Refuse("ending", "somebody else is there")

    def key(self, digit: str) -> None:
        """Nobody hears it."""

    def held(self, on: bool) -> None:
        """Nobody waits for it."""

    def answered_by_machine(self, after: After | None = None) -> None:
        """It leaves."""

    def stopped(self, leg: Leg) -> None:
        """As is due."""

    def lost(self, leg: Leg, why: str) -> None:
        self._leg.close("media_lost")

    def finished(self, reason: EndReason, detail: str = "", by: EndedBy | None = None, provider_code: str = "") -> None:
        """The call goes on without it."""

    def hang_up(self, reason: EndReason) -> None:
        self._leg.close(reason)

    def event(self, kind: str, **data: Any) -> None:
        self._call.event(kind, **data)

    def crashed(self, error: BaseException) -> None:
        self._call.event("crashed", error=type(error).__name__)
        self._leg.close("error")
