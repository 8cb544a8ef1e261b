"""Calls at once of a tenant and of a number, over all processes."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tests.gateway.test_switchboard import Way
from trunkline.errors import StoreError
from trunkline.gateway.dialling import DialOrder
from trunkline.gateway.leg import Plan
from trunkline.gateway.slots import ASK_AGAIN_S, LEASE_S, PENDING_S, RENEW_S, SlotLimits, Slots
from trunkline.ports import Refuse
from trunkline.testing.board import Board, arrival
from trunkline.testing.board import run as run_board
from trunkline.types import E164, CallId, TenantId

OURS = E164("+14155550111")


class Ours(Way):
    """Shows the number it is told to."""

    def plan(self, order: DialOrder) -> Plan | Refuse:
        plan = super().plan(order)
        return plan if isinstance(plan, Refuse) else replace(plan, from_number=OURS)


class Shared:
    """A store of which the test says who else has slots."""

    def __init__(self) -> None:
        self.held: dict[str, set[str]] = {}
        self.away = self.hangs = False
        self.renewed: list[list[str]] = []

    async def take(self, tenant: TenantId, name: str, scopes: Mapping[str, int], lease_s: float) -> str | None:
        await self._asked()
        for scope, most in scopes.items():
            if sum(scope in theirs for other, theirs in self.held.items() if other != name) >= most:
                return scope
        self.held[name] = set(scopes)
        return None

    async def renew(self, tenant: TenantId, held: Mapping[str, Sequence[str]], lease_s: float) -> None:
        await self._asked()
        self.renewed.append(sorted(held))
        self.held |= {name: set(scopes) for name, scopes in held.items()}

    async def give_back(self, tenant: TenantId, names: Sequence[str]) -> None:
        await self._asked()
        for name in names:
            self.held.pop(name, None)

    async def _asked(self) -> None:
        if self.away:
            raise StoreError("the database is away")
        if self.hangs:
            await asyncio.sleep(3600)


def run(scenario: Callable[[Board, Shared], Coroutine[Any, Any, None]], **limits: int) -> Board:
    async def whole(board: Board) -> None:
        shared = Shared()
        slots = board.switchboard.slots = Slots(replace(SlotLimits(), **limits), shared, board.clock, "me")
        slots.start()
        await scenario(board, shared)
        await slots.close()

    return run_board(whole)


async def comes(board: Board, number: int, to: E164 | None = OURS) -> CallId | str:
    """The call, or why not."""
    here = arrival(number, to_number=to)
    await board.switchboard.expect(here)
    admitted = board.switchboard.admit(here)
    return admitted.code if isinstance(admitted, Refuse) else admitted


async def goes(board: Board) -> CallId | str:
    order = await board.switchboard.expect_order(DialOrder(E164("+14155550199")))
    placed = board.switchboard.dial(order)
    return placed.code if isinstance(placed, Refuse) else placed


def test_a_number_has_no_more_calls_than_it_may_here_and_elsewhere() -> None:
    async def scenario(board: Board, shared: Shared) -> None:
        shared.held["other:x"] = {f"number:{OURS}"}
        first = await comes(board, 1)
        assert await comes(board, 2) == "number_full"
        await comes(board, 3, E164("+14155550112"))
        board.line_of(CallId(first)).hang_up("agent_hung_up")
        await asyncio.sleep(1)
        assert (await comes(board, 4)).startswith("call_")
        assert board.ends()[0] == ("overloaded", "number_full")

    run(scenario, per_number=2)


def test_slots_kept_for_calls_that_come_in_are_not_taken_by_calls_out() -> None:
    async def scenario(board: Board, shared: Shared) -> None:
        board.switchboard.diallers.append(Way("one"))
        assert (await goes(board)).startswith("call_")
        assert await goes(board) == "tenant_full"
        for number in (1, 2):
            assert (await comes(board, number)).startswith("call_")
        assert await comes(board, 3) == "tenant_full"

    run(scenario, per_tenant=3, reserved_per_tenant=2)


def test_of_a_number_too() -> None:
    async def scenario(board: Board, shared: Shared) -> None:
        board.switchboard.diallers.append(Ours("one"))
        assert (await goes(board)).startswith("call_")
        assert await goes(board) == "number_full"
        assert (await comes(board, 1)).startswith("call_")

    run(scenario, per_number=2, reserved_per_number=1)


def test_a_call_that_is_refused_for_something_else_gives_its_slot_back() -> None:
    async def scenario(board: Board, shared: Shared) -> None:
        board.refusing["answer"] = Refuse("spam", "no")
        assert await comes(board, 1) == "spam"
        await asyncio.sleep(1)
        assert shared.held == {}

    run(scenario, per_tenant=3)


def test_who_asked_and_never_came_loses_the_slot() -> None:
    async def scenario(board: Board, shared: Shared) -> None:
        await board.switchboard.expect(arrival(1))
        assert len(shared.held) == 1
        await asyncio.sleep(PENDING_S + 2 * RENEW_S)
        assert shared.held == {}

    run(scenario, per_tenant=3)


def test_a_webhook_of_a_call_that_is_over_takes_none() -> None:
    async def scenario(board: Board, shared: Shared) -> None:
        await comes(board, 1)
        board.line(1).hang_up("agent_hung_up")
        await asyncio.sleep(1)
        assert await comes(board, 1) == "ended"
        assert shared.held == {}

    run(scenario, per_tenant=3)


def test_asked_twice_at_once_and_let_in_between_a_call_has_one_slot_to_its_end() -> None:
    async def scenario(board: Board, shared: Shared) -> None:
        slots = board.switchboard.slots
        assert slots is not None
        first = asyncio.create_task(slots.ask("a", "inbound", OURS))
        second = asyncio.create_task(slots.ask("a", "inbound", OURS))
        await first
        assert slots.claim("a", "inbound", OURS) is None
        await second
        await asyncio.sleep(PENDING_S + 2 * RENEW_S)
        assert len(shared.held) == 1

    run(scenario, per_tenant=3)


def test_leases_are_renewed_while_calls_live_and_a_webhook_that_comes_twice_has_one() -> None:
    async def scenario(board: Board, shared: Shared) -> None:
        call_id = await comes(board, 1)
        assert await comes(board, 1) == call_id
        assert len(shared.held) == 1
        shared.held.clear()  # it lost its memory
        await asyncio.sleep(RENEW_S + 1)
        assert len(shared.held) == 1
        assert RENEW_S * 2 < LEASE_S

    run(scenario, per_tenant=3)


def test_while_the_store_is_away_callers_are_counted_here_and_calls_out_wait() -> None:
    async def scenario(board: Board, shared: Shared) -> None:
        board.switchboard.diallers.append(Way("one"))
        shared.away = True
        assert (await comes(board, 1)).startswith("call_")
        assert await goes(board) == "slots_unknown"
        shared.hangs, shared.away = True, False
        began = board.clock.now()
        assert (await comes(board, 2)).startswith("call_")
        assert board.clock.now() - began < ASK_AGAIN_S + 0.1  # it is known to be away
        assert await comes(board, 3) == "tenant_full"
        shared.hangs = False
        await asyncio.sleep(RENEW_S + 1)
        assert len(shared.held) == 2
        for number in (1, 2):
            board.line(number).hang_up("agent_hung_up")
        await asyncio.sleep(1)
        assert shared.held == {}
        assert (await goes(board)).startswith("call_")

    run(scenario, per_tenant=2)


def test_without_limits_nobody_is_asked() -> None:
    async def scenario(board: Board) -> None:
        order = DialOrder(E164("+14155550199"))
        assert await board.switchboard.expect_order(order) is order
        await board.switchboard.expect(arrival(1))
        board.admit(1)

    run_board(scenario)
