"""REFERs from the far end, between the stack and the calls: judged (`transfer_refer.py`), answered, noted in the call's
record, and where they are allowed followed (`referred.py`) and told of (`refer_told.py`)."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from trunkline.clock import Clock
from trunkline.gateway.leg import LegCall
from trunkline.gateway.refer_told import Notice, Subscription
from trunkline.gateway.referred import Movable, Referrals, Referring, Wish
from trunkline.gateway.sip import stack as s
from trunkline.gateway.sip.stack import Handle, Stack
from trunkline.gateway.sip.trunks import Trunk
from trunkline.gateway.transfer_refer import (
    ReferFollowed,
    ReferRate,
    ReferRefusal,
    ReferRules,
    Replaces,
    judge_refer,
    trunk_rate,
)
from trunkline.types import E164

log = logging.getLogger(__name__)
MAX_NOTED = 16
"""REFERs of one dialog in its call's record; the rest are counted there."""


class Talk(Protocol):
    """An INVITE dialog, as the desk has it."""

    @property
    def trunk(self) -> Trunk: ...

    @property
    def leg(self) -> Movable: ...

    @property
    def call(self) -> LegCall: ...

    @property
    def confirmed(self) -> bool: ...

    @property
    def closing(self) -> str | None: ...


@dataclass(slots=True)
class _Asking:
    """What one dialog has asked."""

    rate: ReferRate
    subscriptions: dict[int, Subscription] = field(default_factory=dict)
    count: int = 0


class Refers:
    def __init__(self, stack: Stack, clock: Clock, talk_of: Callable[[Handle], Talk | None]) -> None:
        self._stack, self._clock, self._talk_of = stack, clock, talk_of
        self._asking: dict[Handle, _Asking] = {}
        self._rates: dict[str, ReferRate] = {}

    def asked(self, talk: Talk, event: s.ReferAsked) -> None:
        asking = self._asking.get(event.handle)
        if asking is None:
            rate = self._rates.setdefault(talk.trunk.name, trunk_rate())
            asking = self._asking[event.handle] = _Asking(ReferRate(within=rate))
        asking.count += 1
        if not event.refer:
            self._note(talk, asking, 603, "not_supported")
            return
        referrals = talk.call.referrals if isinstance(talk.call, Referring) else None
        decided, other = self._judged(talk, asking, referrals, event.refer_to)
        if isinstance(decided, ReferRefusal):
            retry = (("Retry-After", str(decided.retry_after_s)),) if decided.retry_after_s else ()
            self._stack.answer_refer(event.handle, event.refer, decided.status, decided.reason, retry)
            self._note(talk, asking, decided.status, decided.code)
            said = talk.call.id, decided.status, decided.code, decided.why
            log.info("call %s: a REFER from the far end is refused with %d (%s): %s", *said)
            return
        headers = (("Refer-Sub", "false"),) if event.silent else ()
        if not self._stack.answer_refer(event.handle, event.refer, 202, "", headers):
            self._note(talk, asking, 500, "late")
            return
        self._note(talk, asking, 202, "accepted", decided.number)
        assert referrals is not None
        taken = None
        if other is not None:
            assert isinstance(other.call, Referring)
            assert other.call.referrals is not None
            taken = other.call.referrals, other.leg
        subscription = asking.subscriptions[event.refer] = Subscription(silent=event.silent)

        def tell(status: int) -> None:
            self._send(event.handle, event.refer, subscription.says(status))

        referrals.begin(talk.leg, Wish(decided.number, taken, tell))

    def told(self, event: s.ReferTold) -> None:
        asking = self._asking.get(event.handle)
        subscription = asking.subscriptions.get(event.refer) if asking is not None else None
        if subscription is not None:
            self._send(event.handle, event.refer, subscription.answered(event.code))

    def forget(self, talk: Talk, handle: Handle) -> None:
        """Its dialog is over."""
        asking = self._asking.pop(handle, None)
        if asking is not None and asking.count > MAX_NOTED:
            talk.call.event("refers_more", count=asking.count - MAX_NOTED)

    def _judged(
        self, talk: Talk, asking: _Asking, referrals: Referrals | None, refer_to: str
    ) -> tuple[ReferFollowed | ReferRefusal, Talk | None]:
        """And whom a Replaces names."""
        if talk.closing is not None:  # RFC 3261 15.1.2
            return ReferRefusal(487, "Request Terminated", "ending", "the call is ending"), None
        if referrals is None:
            return ReferRefusal(603, "Decline", "not_now", "nobody could take this leg's place"), None
        found: list[Talk] = []

        def knows(replaces: Replaces) -> bool:
            other = self._replaced(talk, replaces)
            found.extend([] if other is None else [other])
            return other is not None

        rules = ReferRules(
            allowed=talk.trunk.refer,
            country=talk.trunk.country,
            decide=partial(referrals.host.may_call, goes=False),  # what is not begun counts for no call
            knows=knows,
        )
        decided = judge_refer(refer_to, rules, asking.rate, self._clock.now())
        if isinstance(decided, ReferRefusal) and decided.code != "unknown_dialog":
            return decided, None
        if (bound := referrals.host.bound()) is not None:
            return ReferRefusal(603, "Decline", bound.code, bound.why), None
        if isinstance(decided, ReferRefusal):
            return decided, None
        refused = referrals.may_begin(talk.leg)
        if refused is None:
            return decided, found[0] if found else None
        status, reason = (491, "Request Pending") if refused.code == "pending" else (603, "Decline")
        return ReferRefusal(status, reason, refused.code, refused.why), None

    def _replaced(self, talk: Talk, replaces: Replaces) -> Talk | None:
        """A call of ours on the same trunk, whose agent could be replaced."""
        handle = (
            None if replaces.early_only else self._stack.dialog(replaces.call_id, replaces.from_tag, replaces.to_tag)
        )
        other = None if handle is None else self._talk_of(handle)
        if other is None or other.leg is talk.leg or other.trunk.name != talk.trunk.name:
            return None
        call = other.call
        if not isinstance(call, Referring) or call.referrals is None or other.closing is not None:
            return None
        return other if call.referrals.host.talks_with(other.leg) else None

    def _send(self, handle: Handle, refer: int, notice: Notice | None) -> None:
        if notice is not None:
            self._stack.tell_refer(handle, refer, notice.said, notice.state)

    def _note(self, talk: Talk, asking: _Asking, status: int, code: str, number: E164 | None = None) -> None:
        if asking.count <= MAX_NOTED:
            target = {} if number is None else {"target": masked(number)}
            talk.call.event("refer_asked", status=status, code=code, **target)


def masked(number: E164) -> str:
    """Enough to find it by, and not the number."""
    return f"{number[:5]}***{number[-2:]}"
