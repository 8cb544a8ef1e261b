"""Orders over several trunks: the switchboard and the SIP desk, above a scripted stack."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from ipaddress import ip_network
from typing import Any, cast

import pytest

from trunkline.gateway.dialling import DialOrder
from trunkline.gateway.endings import ended
from trunkline.gateway.leg import Leg, LegCall, Plan
from trunkline.gateway.outbound import BEGUN, CONCLUDED, NEVER_AGAIN, Again, Failure, RetryPolicy, Route
from trunkline.gateway.placing import Trial
from trunkline.gateway.sip import stack as s
from trunkline.gateway.sip.desk import SipDesk
from trunkline.gateway.sip.stack import Handle
from trunkline.gateway.sip.trunks import Trunk
from trunkline.ports import CallEnded, CallStarted, Refuse, UsageMetered
from trunkline.testing.board import Board, FakeLeg, play
from trunkline.testing.sipstack import FakeLine, ScriptedStack
from trunkline.types import E164, CallId

FIRST = Trunk(
    "first",
    (ip_network("198.51.100.0/24"),),
    host="one.example.com",
    caller_id=E164("+14155550101"),
    country="US",
    ping_s=0,
)
SECOND = replace(FIRST, name="second", host="two.example.com", caller_id=E164("+14155550102"))
CALLEE = E164("+14155550177")
BUSY_TWICE = RetryPolicy({"busy": Again(2, 60.0)})


class Desk(Board):
    def __init__(self, policy: RetryPolicy) -> None:
        super().__init__()
        self.stack = ScriptedStack()
        self.switchboard.retry = policy

    def order(self, **order: Any) -> CallId:
        call_id = self.switchboard.dial(DialOrder(CALLEE, **order))
        assert not isinstance(call_id, Refuse), call_id
        return call_id

    @property
    def handle(self) -> Handle:
        return Handle(self.stack._handles)

    def dials(self) -> list[str]:
        """The trunks, in order."""
        return [told[2] for told in self.stack.commands("dial")]

    def picked_up(self) -> FakeLine:
        line = FakeLine()
        self.stack.media(self.handle, line)
        self.stack.happens(s.Confirmed(self.handle), s.FirstMedia(self.handle))
        return line


def run(
    scenario: Callable[[Desk], Coroutine[Any, Any, None]],
    policy: RetryPolicy = NEVER_AGAIN,
    trunks: tuple[Trunk, ...] = (FIRST, SECOND),
) -> Desk:
    async def whole(here: Desk) -> None:
        desk = SipDesk(here.stack, here.switchboard, trunks, here.clock, media_timeout_s=30.0)
        await desk.start()
        try:
            await scenario(here)
        finally:
            here.switchboard.close()
            await desk.close()

    return play(Desk(policy), whole)


async def pass_s(seconds: float) -> None:
    await asyncio.sleep(seconds)


# --- the next trunk -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 502, 503, 504, 407])
def test_a_trunk_that_cannot_is_passed_over_and_the_call_has_one_record(status: int) -> None:
    async def scenario(here: Desk) -> None:
        call_id = here.order()
        here.stack.over(here.handle, status, "No")
        assert here.dials() == ["first", "second"]
        assert here.ends() == []
        here.picked_up()
        assert here.agent_now.call.call_id == call_id
        here.stack.over(here.handle)
        assert here.ends(call_id) == [("caller_hung_up", "")]

    here = run(scenario)
    assert len([e for e in here.records if isinstance(e, CallStarted)]) == 1
    assert [(e["attempt"], e["trunk"]) for e in here.events(BEGUN)] == [(1, "first"), (2, "second")]
    assert [(e["attempt"], e["may_have_rung"]) for e in here.events(CONCLUDED)] == [(1, False)]
    kinds = [kind for kind in here.kinds() if kind in (BEGUN, CONCLUDED, "answered")]
    assert kinds == [BEGUN, CONCLUDED, BEGUN, "answered"]
    assert here.free_slots() == here.ears.capacity


@pytest.mark.parametrize(
    ("code", "rings", "by_us"), [(486, False, False), (486, True, False), (500, True, False), (408, False, True)]
)
def test_where_somebody_may_have_been_rung_no_other_trunk_is_dialled(code: int, rings: bool, by_us: bool) -> None:
    async def scenario(here: Desk) -> None:
        here.order()
        if rings:
            here.stack.happens(s.Progress(here.handle, 180, "Ringing"))
        here.stack.over(here.handle, code, "No", by_us=by_us)
        assert here.dials() == ["first"]
        assert len(here.ends()) == 1
        await pass_s(100)
        assert here.dials() == ["first"]

    run(scenario)


def test_an_invite_that_never_left_goes_to_the_next_trunk() -> None:
    async def scenario(here: Desk) -> None:
        here.order()
        here.stack.over(here.handle, 0, "no transport")
        assert here.dials() == ["first", "second"]
        here.order()
        here.stack.happens(s.Dialled(here.handle, "three"))
        here.stack.over(here.handle, 0, "nothing came")
        assert here.dials() == ["first", "second", "first"]

    run(scenario)


def test_the_last_attempts_end_is_the_calls() -> None:
    async def scenario(here: Desk) -> None:
        here.order()
        here.stack.over(here.handle, 503, "No")
        here.stack.over(here.handle, 603, "Decline")

    here = run(scenario)
    (end,) = [e for e in here.records if isinstance(e, CallEnded)]
    assert (end.reason, end.by, end.provider_code) == ("rejected", "caller", "sip:603")
    assert [e["provider_code"] for e in here.events(CONCLUDED)] == ["sip:503", "sip:603"]


def test_the_dial_door_is_asked_for_every_attempt_with_the_number_it_shows() -> None:
    async def scenario(here: Desk) -> None:
        here.order()
        here.refusing["dial"] = Refuse("quiet_hours", "not now")
        here.stack.over(here.handle, 503, "No")
        assert here.dials() == ["first"]
        assert here.ends() == [("refused", "quiet_hours")]

    here = run(scenario)
    assert [f.from_number for f in here.asked if f.door == "dial"] == ["+14155550101", "+14155550102"]
    assert len(here.events(BEGUN)) == 1


def test_an_order_that_names_a_trunk_goes_to_no_other() -> None:
    async def scenario(here: Desk) -> None:
        here.order(trunk="second")
        here.stack.over(here.handle, 503, "No")
        assert here.dials() == ["second"]
        assert here.ends() == [("failed", "the trunk failed (SIP 503)")]

    run(scenario)


def test_early_media_of_an_attempt_that_failed_is_let_go() -> None:
    async def scenario(here: Desk) -> None:
        here.order()
        line = FakeLine()
        here.stack.happens(s.Progress(here.handle, 183, "Session Progress"))
        here.stack.media(here.handle, line)
        here.stack.happens(s.FirstMedia(here.handle))
        assert here.free_slots() == here.ears.capacity - 1
        here.stack.over(here.handle, 486, "Busy Here")
        assert here.free_slots() == here.ears.capacity
        assert here.ends() == []
        await pass_s(61)
        assert here.picked_up().sink is not None
        assert len(here.attendants) == 1

    run(scenario, BUSY_TWICE)


class Account:
    """Another kind of dialler, which comes after all trunks that have a price."""

    def __init__(self) -> None:
        self.dialled: list[LegCall] = []

    def routes(self, order: DialOrder) -> list[Route]:
        return [Route("account")] if order.trunk in (None, "account") else []

    def plan(self, order: DialOrder) -> Plan | Refuse:
        if order.trunk not in (None, "account"):
            return Refuse("no_trunk", "not this one")
        return Plan(order, "twilio", "token", "account", E164("+14155550103"), 60.0)

    def dial(self, plan: Plan, call: LegCall) -> Leg:
        self.dialled.append(call)
        return FakeLeg()


def test_an_account_of_another_kind_is_a_way_out_like_any_trunk() -> None:
    async def scenario(here: Desk) -> None:
        account = Account()
        here.switchboard.diallers.append(account)
        here.order()
        here.stack.over(here.handle, 503, "No")
        (call,) = account.dialled
        call.answered()
        assert not isinstance(call.attach(FakeLeg()), Refuse)
        assert here.agent_now.call.from_number == "+14155550103"
        await pass_s(2)
        call.finished("caller_hung_up")
        assert here.ends() == [("caller_hung_up", "")]

    here = run(scenario, trunks=(FIRST,))
    assert [e["trunk"] for e in here.events(BEGUN)] == ["first", "account"]
    assert [e.usage.provider for e in here.records if isinstance(e, UsageMetered)] == ["twilio"]


def test_what_an_account_says_of_its_failure_decides() -> None:
    """An order that was certainly not taken may go elsewhere; one that may have been taken, never."""

    async def scenario(here: Desk) -> None:
        account = Account()
        here.switchboard.diallers.insert(0, account)
        for safe in (True, False):
            here.order()
            call = account.dialled[-1]
            assert isinstance(call, Trial)
            leg = cast(Any, call.leg)
            leg.failure = Failure(ended("failed", "HTTP 500"), may_have_rung=not safe)
            call.finished("failed", "HTTP 500")
            assert here.dials() == ["first"]

    run(scenario, trunks=(FIRST,))


# --- again ----------------------------------------------------------------------------------------------------------


def test_who_is_busy_is_called_again_so_often_and_so_late() -> None:
    async def scenario(here: Desk) -> None:
        here.order()
        for dialled in (1, 2):
            here.stack.over(here.handle, 486, "Busy Here")
            await pass_s(59)
            assert len(here.dials()) == dialled
            await pass_s(2)
            assert len(here.dials()) == dialled + 1
        here.stack.over(here.handle, 486, "Busy Here")
        assert here.ends() == [("busy", "busy (SIP 486)")]
        await pass_s(600)
        assert len(here.dials()) == 3

    run(scenario, BUSY_TWICE)


def test_one_who_does_not_answer_is_called_again_only_when_the_last_invite_is_over() -> None:
    async def scenario(here: Desk) -> None:
        here.order(ring_timeout_s=20.0)
        first = here.handle
        await pass_s(21)
        assert here.stack.commands("hang_up") == [("hang_up", first)]
        assert here.ends() == []
        await pass_s(30)
        assert len(here.dials()) == 1
        here.stack.happens(s.Confirmed(first))  # crossed our CANCEL
        here.stack.over(first, 487, "Request Terminated", by_us=True)
        await pass_s(2)
        assert len(here.dials()) == 2
        await pass_s(21)
        assert here.ends() == [("no_answer", "it rang too long")]
        assert here.attendants == []

    run(scenario, RetryPolicy({"no_answer": Again(1, 10.0)}))


def test_a_call_that_waits_is_hung_up_and_is_never_dialled_again() -> None:
    async def scenario(here: Desk) -> None:
        call_id = here.order()
        here.stack.over(here.handle, 486, "Busy Here")
        assert here.switchboard.hang_up(call_id)
        assert here.ends() == [("agent_hung_up", "")]
        await pass_s(100)
        assert len(here.dials()) == 1

    run(scenario, BUSY_TWICE)


def test_a_gateway_that_leaves_does_not_wait_for_calls_that_wait() -> None:
    async def scenario(here: Desk) -> None:
        here.order()
        here.stack.over(here.handle, 486, "Busy Here")
        began = here.clock.now()
        await here.switchboard.drain(60.0)
        assert here.clock.now() - began < 1
        assert here.ends() == [("drained", "")]

    run(scenario, BUSY_TWICE)


def test_waiting_does_not_count_as_talking() -> None:
    """The longest a call may be is for its conversation."""

    async def scenario(here: Desk) -> None:
        here.order()
        here.stack.over(here.handle, 486, "Busy Here")
        await pass_s(1801)
        assert len(here.dials()) == 2
        here.picked_up()
        await pass_s(500)
        assert here.ends() == []

    run(scenario, RetryPolicy({"busy": Again(1, 1800.0)}))


def test_a_mistake_of_ours_in_a_later_attempt_ends_the_call() -> None:
    async def scenario(here: Desk) -> None:
        here.order()

        def broken(*_: Any, **__: Any) -> Handle:
            raise RuntimeError("a bug")

        here.stack.dial = broken  # type: ignore[method-assign]
        here.stack.over(here.handle, 503, "No")
        assert [end[0] for end in here.ends()] == ["error"]
        assert here.switchboard.live_calls == 0

    run(scenario)
