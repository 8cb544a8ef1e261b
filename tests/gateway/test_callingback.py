"""Those who asked for it are called back: once, when there is a line to spare."""

from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import datetime
from typing import Any

from tests.gateway.test_routed import ACME, OURS, main
from tests.gateway.test_slots import Ours
from tests.gateway.test_waiting import QUEUE, Room
from tests.gateway.test_waiting import run as run_room
from trunkline.callbacks import KEPT_FOR, CallBack, Found, State
from trunkline.gateway.callingback import LATER_S, SOON_S, CallingBack
from trunkline.gateway.dialling import DialOrder
from trunkline.numbers.resources import Tenant
from trunkline.ports import CallEvent, CallStarted, Refuse
from trunkline.testing.board import sid
from trunkline.types import E164, CallId

ASKED, CALLER = CallId("call_asked"), E164("+14155550188")


class Backs:
    """As the store has them."""

    def __init__(self) -> None:
        self.due: list[CallBack] = []
        self.over: list[tuple[CallBack, State, str]] = []
        self.put_off: list[tuple[datetime, str]] = []
        self.settled: list[tuple[State, CallId | None, str]] = []
        self.begun: list[CallBack] = []
        self.taken = False

    async def claim(self, most: int) -> Found:
        found = Found(self.due, self.over)
        self.due, self.over = [], []
        return found

    async def begin(self, wanted: CallBack) -> bool:
        self.begun.append(wanted)
        return not self.taken

    async def later(self, wanted: CallBack, at: datetime, code: str, *, begun: bool) -> None:
        self.put_off.append((at, code))

    async def settle(
        self, wanted: CallBack, state: State, placed: CallId | None, code: str = "", *, begun: bool
    ) -> None:
        self.settled.append((state, placed, code))


class Advice:
    """Every attempt is noted, and forgotten where nobody was tried."""

    def __init__(self) -> None:
        self.attempts = 0

    async def prepare(self, order: DialOrder) -> DialOrder:
        self.attempts += 1
        return replace(order, attempt="noted")

    async def refused(self, order: DialOrder) -> None:
        assert order.attempt == "noted"
        self.attempts -= 1


class Back:
    def __init__(self, room: Room) -> None:
        self.room, self.board, self.switchboard = room, room.board, room.switchboard
        self.backs, self.advice, self.way = Backs(), Advice(), Ours("one")
        self.switchboard.diallers.append(self.way)
        self.worker = CallingBack(self.switchboard, self.backs, self.advice, self.board.clock)
        self.wanted = self.asks()

    def asks(self) -> CallBack:
        now = self.board.clock.wall()
        self.backs.due.append(CallBack(ACME, ASKED, CALLER, OURS, now, now + KEPT_FOR))
        return self.backs.due[-1]

    def told(self) -> list[Any]:
        found = [each for each in self.board.records if isinstance(each, CallEvent) and each.kind == "callback"]
        return [each.data for each in found if each.call_id == ASKED]

    def put_off(self) -> list[tuple[float, str]]:
        now = self.board.clock.wall()
        return [((at - now).total_seconds(), code) for at, code in self.backs.put_off]

    def calls(self) -> int:
        return sum(isinstance(each, CallStarted) and each.direction == "outbound" for each in self.board.records)


def run(scenario: Callable[[Back], Coroutine[Any, Any, None]]) -> None:
    async def whole(room: Room) -> None:
        await room.put()
        await scenario(Back(room))

    run_room(whole)


def test_who_asked_is_called_by_the_agent_of_the_number_they_called() -> None:
    async def scenario(back: Back) -> None:
        assert await back.worker.round() == 1
        (placed,) = back.way.dialled
        started = back.room.desk.started()
        assert (started.call_id, started.tenant, started.agent) == (placed, ACME, "acme/reception@1")
        assert (started.direction, started.from_number, started.to_number) == ("outbound", OURS, CALLER)
        assert back.board.events("attributes") == [{"callback_of": ASKED}]
        assert back.backs.settled == [("placed", CallId(placed), "")]
        assert back.told() == [{"state": "placed", "call_id": placed}]
        assert [facts.purpose for facts in back.board.asked if facts.door == "dial"] == ["informational"] * 2
        assert back.advice.attempts == 1
        assert any("number:" in scope for held in back.room.shared.held.values() for scope in held)

    run(scenario)


def test_without_a_line_to_spare_they_are_called_later_and_nothing_is_recorded() -> None:
    async def scenario(back: Back) -> None:
        (line, _) = await back.room.full()
        for _ in range(2):
            await back.worker.round()
            back.asks()
        assert back.put_off() == [(SOON_S, "number_full")] * 2
        assert (back.calls(), back.backs.begun, back.advice.attempts) == (0, [], 0)
        await back.room.over(line)
        assert await back.worker.round() == 1

    run(scenario)


def test_lines_kept_for_callers_are_not_taken() -> None:
    async def scenario(back: Back) -> None:
        await back.room.put(reserved_inbound=1)
        await back.room.full(1)
        await back.worker.round()
        back.switchboard.limits = replace(back.switchboard.limits, max_calls=2, reserved_inbound=1)
        back.asks()
        await back.worker.round()
        assert [code for _, code in back.put_off()] == ["number_full", "overloaded"]

    run(scenario)


def test_who_waits_since_before_they_asked_comes_first() -> None:
    async def scenario(back: Back) -> None:
        lines = await back.room.full()
        await back.room.comes(1)
        back.board.clock.advance(1)
        back.backs.due.clear()
        back.asks()
        await back.room.over(lines[0])
        assert await back.worker.round() == 0
        assert [code for _, code in back.put_off()] == ["others_first"]
        back.switchboard.status(sid(1), "completed", 3)
        await back.switchboard.slots._give_back()  # type: ignore[union-attr]
        back.asks()
        assert await back.worker.round() == 1

    run(scenario)


def test_what_the_law_does_not_let_now_waits_and_what_it_never_lets_is_over() -> None:
    async def scenario(back: Back) -> None:
        back.board.refusing["dial"] = Refuse("window", "it is night there")
        await back.worker.round()
        assert back.put_off() == [(LATER_S, "window")]
        back.board.refusing["dial"] = Refuse("company_dnc", "they asked not to be called")
        back.asks()
        await back.worker.round()
        assert back.backs.settled == [("failed", None, "company_dnc")]
        assert back.told() == [{"state": "failed", "code": "company_dnc"}]
        assert (back.calls(), back.advice.attempts) == (0, 0)
        await back.switchboard.slots._give_back()  # type: ignore[union-attr]
        assert back.room.shared.held == {}

    run(scenario)


def test_while_nobody_answers_the_number_nobody_is_called_from_it() -> None:
    async def scenario(back: Back) -> None:
        await back.room.desk.put(*main(queue=QUEUE), Tenant(outage=True))
        await back.worker.round()
        assert back.put_off() == [(LATER_S, "closed")]

    run(scenario)


def test_what_another_process_places_is_left_alone() -> None:
    async def scenario(back: Back) -> None:
        back.backs.taken = True
        assert await back.worker.round() == 0
        assert (back.calls(), back.put_off(), back.backs.settled) == (0, [], [])
        assert back.advice.attempts == 0

    run(scenario)


def test_what_came_to_nothing_is_told() -> None:
    async def scenario(back: Back) -> None:
        back.backs.due.clear()
        back.backs.over.append((back.wanted, "expired", "window"))
        await back.worker.round()
        assert back.told() == [{"state": "expired", "code": "window"}]

    run(scenario)
