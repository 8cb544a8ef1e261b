"""Orders over a scripted account, on a board whose time passes by itself."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.fakes.twilio_account import FakeAccount
from trunkline.compliance.money.account import Terms as Money
from trunkline.compliance.money.treasury import Policy, Treasury
from trunkline.gateway.dialling import DialOrder
from trunkline.gateway.linecall import LineCall
from trunkline.gateway.spending import Spending, Ways
from trunkline.gateway.twilio.account import Listed, NotTaken, Unknown
from trunkline.gateway.twilio.dialler import CHECK_AGAIN_S, MAX_PLACING, Placed, Terms, TwilioDialler
from trunkline.gateway.twilio.webhooks import CallStatus, Heard
from trunkline.ports import NAMED, CallEnded, Refuse
from trunkline.testing.board import Board, FakeLeg, play, sid
from trunkline.types import E164, CallId

TO, FROM = E164("+14155550123"), E164("+14155550100")
TERMS = Terms("https://voice.example.com", FROM, 613)
REFUSED = NotTaken(401, 20003, "Authenticate")
BUSY = NotTaken(429, 20429, "Too Many Requests", 2.0)


class Office(Board):
    def __init__(self, terms: Terms = TERMS, max_calls: int = 10) -> None:
        super().__init__(max_calls)
        self.account = FakeAccount()
        self.dialler = TwilioDialler(self.account, self.switchboard, terms, self.clock)
        self.switchboard.diallers.append(self.dialler)

    def dial(self, **changes: Any) -> CallId:
        call_id = self.switchboard.dial(DialOrder(TO, **changes))
        assert not isinstance(call_id, Refuse), call_id
        return call_id

    def token(self, number: int = 0) -> str:
        return self.account.orders[number].url.partition("order=")[2]

    def heard(self, status: CallStatus, number: int = 1, order: int = 0, **more: Any) -> bool:
        return self.dialler.heard(self.token(order), Heard(sid(number), status, **more))

    def answer(self, number: int = 1, order: int = 0) -> str | None:
        return self.dialler.answer(self.token(order), sid(number))


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def office(
    scenario: Callable[[Office], Coroutine[Any, Any, None]], terms: Terms = TERMS, max_calls: int = 10
) -> Office:
    return play(Office(terms, max_calls), scenario)


# --- the way of a call ---


def test_an_order_is_answered_and_the_conversation_begins() -> None:
    async def scenario(board: Office) -> None:
        call_id = board.dial(ring_timeout_s=24.5)
        await settle()
        (order,) = board.account.orders
        assert (order.to_number, order.from_number, order.ring_s, order.limit_s) == (TO, FROM, 25, 613)
        assert order.url.startswith("https://voice.example.com/twilio/voice?order=")
        assert order.status_callback == order.url.replace("voice?", "status?")
        call = board.line_of(call_id)
        assert call.started.provider_call_id == sid(1)
        assert board.switchboard.by_call_sid(sid(1)) is not None
        assert board.heard("ringing")
        assert board.heard("ringing")
        assert board.kinds().count("ringing") == 1
        assert board.heard("in-progress")
        assert board.answer()
        assert board.kinds().count("answered") == 1
        board.attach(call_id)
        assert board.agent_now.greeting is None
        board.heard("completed", duration_s=7)
        assert board.ends() == [("caller_hung_up", "")]

    board = office(scenario)
    assert board.account.ended == []
    assert board.events(NAMED) == [{"provider_call_id": sid(1)}]
    assert board.events("carrier_status")[-1]["duration_s"] == 7


def test_a_callback_may_overtake_the_answer() -> None:
    async def scenario(board: Office) -> None:
        board.account.gate = asyncio.Event()
        call_id = board.dial()
        await settle()
        assert board.heard("ringing")
        assert board.answer()
        board.attach(call_id)
        board.account.gate.set()
        await settle()
        board.heard("completed")

    board = office(scenario)
    assert board.ends() == [("caller_hung_up", "")]
    assert len(board.events(NAMED)) == 1
    assert board.account.ended == []


@pytest.mark.parametrize(
    ("status", "more", "end"),
    [
        ("busy", {"sip_status": 486}, "busy"),
        ("no-answer", {}, "no_answer"),
        ("failed", {"sip_status": 404, "error": 13224}, "failed"),
        ("canceled", {}, "no_answer"),
    ],
)
def test_a_call_that_nobody_answers_ends_as_twilio_says(status: Any, more: Any, end: str) -> None:
    async def scenario(board: Office) -> None:
        board.dial()
        await settle()
        board.heard(status, **more)
        board.heard(status, **more)

    board = office(scenario)
    assert [reason for reason, _ in board.ends()] == [end]
    (ended,) = [event for event in board.records if isinstance(event, CallEnded)]
    assert ended.provider_code.startswith(f"twilio:{status}")
    assert ("sip:" in ended.provider_code) is ("sip_status" in more)
    assert board.account.ended == []
    (said,) = board.events("carrier_status")
    assert (said["sip_status"], said["error"]) == (more.get("sip_status"), more.get("error"))


def test_who_rings_too_long_is_hung_up_also_when_twilio_forgets_it() -> None:
    async def scenario(board: Office) -> None:
        board.dial()
        await asyncio.sleep(100)

    board = office(scenario)
    assert board.ends() == [("no_answer", "it rang too long")]
    assert board.account.ended == [sid(1)]


def test_hanging_up_while_it_rings_goes_over_rest_once() -> None:
    async def scenario(board: Office) -> None:
        call_id = board.dial()
        await settle()
        assert board.switchboard.hang_up(call_id)
        assert not board.switchboard.hang_up(call_id)
        await settle()
        assert not board.answer()
        board.heard("canceled")

    board = office(scenario)
    assert board.ends() == [("agent_hung_up", "")]
    assert board.account.ended == [sid(1)]


def test_who_is_hung_up_before_it_has_a_name_is_hung_up_when_it_gets_one() -> None:
    async def scenario(board: Office) -> None:
        board.account.gate = asyncio.Event()
        call_id = board.dial()
        await settle()
        board.switchboard.hang_up(call_id)
        await settle()
        assert board.account.ended == []
        board.account.gate.set()
        await settle()
        view = board.switchboard.by_call_sid(sid(1))
        assert view is not None
        assert view.state == "ended"

    board = office(scenario)
    assert board.account.ended == [sid(1)]


def test_hanging_up_is_tried_again_until_twilio_has_heard_it() -> None:
    async def scenario(board: Office) -> None:
        board.account.end_answers = [Unknown("no answer"), NotTaken(0, None, "not reached"), BUSY]
        board.dialler.hang_up(sid(5))
        await asyncio.sleep(30)

    assert office(scenario).account.ended == [sid(5)] * 4


# --- what Twilio answers ---


def test_an_order_that_is_refused_has_failed() -> None:
    async def scenario(board: Office) -> None:
        board.account.answers = [NotTaken(400, 21211, "not valid")]
        board.dial()
        await settle()

    board = office(scenario)
    assert board.ends() == [("failed", "no such number")]
    assert board.events("carrier_refused") == [{"http_status": 400, "error": 21211, "why": "not valid"}]
    assert not isinstance(board.dialler.plan(DialOrder(TO)), Refuse)


def test_an_api_that_is_not_there_has_said_nothing_and_closes_the_trunk() -> None:
    async def scenario(board: Office) -> None:
        board.account.answers = [NotTaken(0, None, "ConnectError")]
        board.dial()
        await settle()
        refused = board.dialler.plan(DialOrder(TO))
        assert isinstance(refused, Refuse)
        assert refused.code == "trunk_down"
        await board.dialler.close()

    board = office(scenario)
    assert board.ends() == [("failed", "the trunk cannot be reached: ConnectError")]


def test_a_busy_api_is_asked_again_as_it_says_and_no_more_than_thrice() -> None:
    async def scenario(board: Office) -> None:
        board.account.answers = [BUSY, BUSY]
        began = board.clock.now()
        board.dial()
        await asyncio.sleep(4.5)
        assert board.clock.now() - began < 5
        assert len(board.account.orders) == 3
        assert board.switchboard.by_call_sid(sid(3)) is not None
        board.heard("busy", 3, 2)
        board.account.answers = [BUSY] * 9
        board.dial()
        await asyncio.sleep(60)

    board = office(scenario)
    assert len(board.account.orders) == 6
    assert [reason for reason, _ in board.ends()] == ["busy", "failed"]


def test_who_is_called_off_while_the_api_is_busy_is_not_dialled() -> None:
    async def scenario(board: Office) -> None:
        board.account.answers = [BUSY]
        call_id = board.dial()
        await settle()
        board.switchboard.hang_up(call_id)
        await asyncio.sleep(30)

    board = office(scenario)
    assert len(board.account.orders) == 1
    assert board.account.ended == []


def test_a_login_that_is_refused_closes_the_trunk_until_it_is_accepted(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(board: Office) -> None:
        board.account.answers = [REFUSED, REFUSED]
        board.account.login = REFUSED
        board.dial()
        board.dial()
        await settle()
        refused = board.switchboard.dial(DialOrder(TO, trunk="twilio"))
        assert isinstance(refused, Refuse)
        assert refused.code == "trunk_unauthorized"
        (view,) = board.dialler.trunks()
        assert (view.state, view.why) == ("down", "trunk_unauthorized")
        await asyncio.sleep(2.5 * CHECK_AGAIN_S)
        assert board.account.checked == 2
        board.account.login = None
        await asyncio.sleep(CHECK_AGAIN_S)
        board.dial()
        assert board.dialler.trunks()[0].state == "up"
        assert board.dialler.trunks()[0].calls == 1

    board = office(scenario)
    assert board.ends()[:2] == [("failed", "Twilio did not accept our credentials")] * 2
    (line,) = [r.message for r in caplog.records if r.levelname == "ERROR"]
    assert line.startswith("trunk twilio is down: Twilio does not accept our login (401)")


def test_the_login_is_tried_at_start() -> None:
    async def scenario(board: Office) -> None:
        assert board.dialler.trunks()[0].state == "unknown"
        board.dialler.start()
        await settle()
        assert board.dialler.trunks()[0].state == "up"
        board.account.login = NotTaken(0, None, "Twilio cannot be reached")
        board.dialler.start()
        await settle()
        refused = board.dialler.plan(DialOrder(TO))
        assert isinstance(refused, Refuse)
        assert refused.code == "trunk_down"
        await board.dialler.close()

    office(scenario)


# --- answers that are lost ---


def test_an_order_whose_answer_is_lost_is_found_by_its_token_and_not_sent_again() -> None:
    async def scenario(board: Office) -> None:
        board.account.answers = [Unknown("no answer (ReadTimeout)")]
        call_id = board.dial()
        await settle()
        now = board.clock.wall()
        board.account.listed = [
            Listed(sid(7), now, ours=True),  # of somebody else, to the same number
            Listed(sid(8), now, ours=False),
            Listed(sid(6), now - timedelta(seconds=500), ours=True),
            Listed(sid(9), now, ours=True),
        ]
        board.account.urls = {sid(7): ["https://x.example/status?order=0"], sid(6): [board.token()], sid(8): ["a"]}
        await asyncio.sleep(1)
        assert board.line_of(call_id).started.provider_call_id != sid(9)
        board.account.urls[sid(9)] = [f"https://voice.example.com/twilio/status?order={board.token()}"]
        await asyncio.sleep(2)
        assert board.line_of(call_id).started.provider_call_id == sid(9)
        assert board.answer(9)

    board = office(scenario)
    assert len(board.account.orders) == 1
    assert board.events("carrier_found") == [{"call_sid": sid(9)}]
    assert board.account.ended == []


def test_its_callback_ties_it_sooner() -> None:
    async def scenario(board: Office) -> None:
        board.account.answers = [Unknown("HTTP 500")]
        board.dial()
        await settle()
        board.heard("ringing")
        await asyncio.sleep(40)
        board.heard("no-answer")

    board = office(scenario)
    assert (len(board.account.orders), board.account.looked) == (1, 0)
    assert [reason for reason, _ in board.ends()] == ["no_answer"]


def test_what_is_not_found_has_failed_and_is_hung_up_should_it_turn_up() -> None:
    async def scenario(board: Office) -> None:
        board.account.answers = [Unknown("HTTP 503")]
        board.dial()
        await asyncio.sleep(45)
        assert [reason for reason, _ in board.ends()] == ["failed"]
        assert board.heard("ringing", 3)
        await settle()
        assert not board.answer(3)

    board = office(scenario)
    assert len(board.account.orders) == 1
    assert board.account.ended == [sid(3)]
    assert len(board.ends()) == 1


def test_a_second_call_of_one_order_is_hung_up_and_the_first_goes_on() -> None:
    async def scenario(board: Office) -> None:
        call_id = board.dial()
        await settle()
        assert board.answer(1)
        board.attach(call_id)
        assert not board.answer(2)
        await settle()
        assert board.ends() == []

    board = office(scenario)
    assert board.account.ended == [sid(2)]


# --- who answers ---


@pytest.mark.parametrize(
    ("who", "ends"), [("machine_start", True), ("fax", True), ("human", False), ("unknown", False)]
)
def test_a_machine_that_answers_is_noted_and_left_if_so_wanted(who: str, ends: bool) -> None:
    async def scenario(board: Office) -> None:
        call_id = board.dial()
        await settle()
        assert board.account.orders[0].machine_detection == "Enable"
        assert board.account.orders[0].machine_callback.startswith("https://voice.example.com/twilio/machine?order=")
        board.answer()
        board.attach(call_id)
        board.dialler.machine(board.token(), sid(1), who, 2100)
        await settle()

    board = office(scenario, Terms("https://voice.example.com", FROM, 613, "Enable", True))
    assert board.events("answered_by") == [{"who": who, "after_ms": 2100}]
    assert board.ends() == ([("no_answer", "a machine answered")] if ends else [])


@pytest.mark.parametrize(
    ("who", "told"),
    [
        ("machine_start", [None]),
        ("machine_end_beep", ["beep"]),
        ("machine_end_silence", ["silence"]),
        ("machine_end_other", ["silence"]),
        ("fax", [None]),
        ("human", []),
        ("unknown", []),
    ],
)
def test_the_call_is_told_of_a_machine_it_stays_with(
    who: str, told: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(LineCall, "answered_by_machine", lambda call, after: calls.append((call, after)))

    async def scenario(board: Office) -> None:
        call_id = board.dial()
        await settle()
        board.answer()
        board.attach(call_id)
        board.dialler.machine(board.token(), sid(1), who, 2100)
        assert calls == [(board.line_of(call_id), after) for after in told]

    office(scenario, Terms("https://voice.example.com", FROM, 613, "Enable", False))


# --- what is not dialled ---


def test_an_order_for_another_trunk_is_none_of_its_own() -> None:
    plan = Office().dialler.plan(DialOrder(TO, trunk="carrier"))
    assert isinstance(plan, Refuse)
    assert plan.code == "no_trunk"


def test_somebody_must_be_the_caller() -> None:
    dialler = Office(Terms("https://voice.example.com", None, 613)).dialler
    plan = dialler.plan(DialOrder(TO))
    assert isinstance(plan, Refuse)
    assert plan.code == "no_caller_id"
    assert not isinstance(dialler.plan(DialOrder(TO, from_number=FROM)), Refuse)


def test_orders_that_twilio_does_not_answer_do_not_pile_up() -> None:
    async def scenario(board: Office) -> None:
        board.account.gate = asyncio.Event()
        for _ in range(MAX_PLACING):
            board.dial()
        refused = board.switchboard.dial(DialOrder(TO))
        assert isinstance(refused, Refuse)
        assert refused.code == "overloaded"
        await settle()
        board.account.gate.set()
        await settle()
        board.dial()

    office(scenario, max_calls=MAX_PLACING + 5)


def test_callbacks_of_orders_we_do_not_know_are_none_of_ours() -> None:
    async def scenario(board: Office) -> None:
        assert not board.dialler.answer("0" * 32, sid(1))
        assert not board.dialler.heard("0" * 32, Heard(sid(1), "ringing"))
        board.dialler.machine("0" * 32, sid(1), "human", None)

    assert office(scenario).kinds() == []


def test_leaving_hangs_up_what_rings() -> None:
    async def scenario(board: Office) -> None:
        board.dial()
        await settle()
        board.switchboard.close()
        await board.dialler.close()
        await board.dialler.close()

    board = office(scenario)
    assert board.account.ended == [sid(1)]
    assert board.ends() == [("drained", "")]


def test_leaving_does_not_wait_for_an_api_that_stalls(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(board: Office) -> None:
        board.account.gate = asyncio.Event()
        board.dial()
        await settle()
        board.switchboard.close()
        began = board.clock.now()
        await board.dialler.close()
        assert board.clock.now() - began < 6

    assert office(scenario).ends() == [("drained", "")]
    assert "Twilio may yet dial it" in caplog.text


def test_the_ringing_leg_is_replaced_by_the_stream() -> None:
    async def scenario(board: Office) -> None:
        call_id = board.dial()
        await settle()
        ringing = board.line_of(call_id)._leg
        assert isinstance(ringing, Placed)
        assert not ringing.transfers
        board.answer()
        leg = board.attach(call_id)
        assert isinstance(leg, FakeLeg)
        assert not ringing.leaving
        board.switchboard.hang_up(call_id)
        assert leg.closed == ["agent_hung_up"]

    assert office(scenario).account.ended == []


def test_twilio_ends_a_call_by_itself_when_its_budget_pays_no_more() -> None:
    async def scenario(board: Office) -> None:
        treasury = Treasury(Policy(Money(call_usd=Decimal("0.09"))), None, board.clock)
        board.switchboard.spending = Spending(treasury, Ways(), board.metrics, board.clock.now)
        board.dial()
        await settle()
        assert board.account.orders[0].limit_s == 300  # a minute is 0.018

    office(scenario)
