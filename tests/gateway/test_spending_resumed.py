"""A call that goes on, on another leg or in another process, has the budget it began with."""

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from tests.gateway.test_joining import AGAIN
from tests.gateway.test_spending import DIALLED, MIND, Metered, answered, run
from trunkline.compliance.money.account import SoFar, Terms
from trunkline.gateway.call import CLOSE_WAIT_S
from trunkline.gateway.joining import Joining
from trunkline.gateway.linecall import LineCall
from trunkline.gateway.spending import WRAP_UP, Ways
from trunkline.ports import Refuse

D = Decimal


def dear(usd: str) -> int:
    """So many tokens out."""
    return int(D(usd) / (D(8) / 10**6))


def joined(board: Metered, joining: Joining) -> LineCall:
    call_id = board.switchboard.join(joining, "webrtc")
    assert not isinstance(call_id, Refuse), call_id
    return board.line_of(call_id)


async def lost(board: Metered) -> None:
    await asyncio.sleep(0.5)
    board.call.finished("media_lost", "")
    await asyncio.sleep(CLOSE_WAIT_S + 0.1)


def test_a_call_whose_leg_was_lost_goes_on_with_what_is_left_of_its_budget() -> None:
    async def scenario(board: Metered) -> None:
        answered(board)
        board.use("llm", MIND, tokens_out=dear("0.04"))
        await lost(board)
        assert board.costs()["usd"] == "0.0525"  # its minute, and the model
        board.call = board.line_of(board.admit(to_number=DIALLED, reconnects=1, why="leg_lost"))
        board.attach(board.call.id)
        await asyncio.sleep(10)
        live = board.switchboard.live(board.call.id)
        assert live is not None
        assert live.cost is not None
        assert (live.cost["usd"], live.cost["before_usd"], live.cost["budget_usd"]) == ("0.0125", "0.0525", "0.09")
        assert board.agent_now.goodbyes == 0
        await asyncio.sleep(45)  # its second minute would be 0.0025 too much, and a goodbye is said before it
        assert board.agent_now.goodbyes == 1
        await board.over()

    board = run(scenario, terms=Terms(call_usd=D("0.09")))
    assert board.ends()[-1][0] == "budget"


def test_what_is_left_does_not_pay_for_a_minute_and_it_is_not_taken_up_again() -> None:
    async def scenario(board: Metered) -> None:
        answered(board)
        board.use("llm", MIND, tokens_out=dear("0.04"))
        await lost(board)
        assert board.refused(to_number=DIALLED, reconnects=1, why="leg_lost") == "budget"
        assert "what the call has cost (0.0525 USD), a minute and a goodbye" in board.events("refused")[-1]["why"]

    run(scenario, terms=Terms(call_usd=D("0.0818")))


def test_a_session_that_moved_here_brings_what_it_has_cost_and_how_long_it_has_lasted() -> None:
    moved = replace(AGAIN, so_far=SoFar(D("0.081"), 290.0))

    async def scenario(board: Metered) -> None:
        board.call = joined(board, moved)
        board.attach(board.call.id)
        board.use("llm", MIND, tokens_out=100)
        await asyncio.sleep(4)
        assert board.agent_now.instructed == [WRAP_UP]
        assert board.events("cheaper_route") == []
        await asyncio.sleep(10)
        assert board.events("cheaper_route") == [{"agent": "cheap", "why": "minutes"}]
        assert board.call.so_far.usd == D("0.0818")
        assert board.call.so_far.seconds == pytest.approx(304.0)
        board.use("llm", MIND, tokens_out=dear("0.012"))
        await asyncio.sleep(2)
        assert board.agent_now.goodbyes == 1
        await board.over()

    board: Any = run(scenario, Ways(cheaper_agent="cheap"), terms=Terms(call_usd=D("0.10"), cheaper_after_s=300.0))
    assert board.ends() == [("budget", "")]
    assert (board.costs()["usd"], board.costs()["before_usd"]) == ("0.0128", "0.081")


def test_a_session_whose_call_was_hung_up_begins_another_with_a_budget_of_its_own() -> None:
    async def scenario(board: Metered) -> None:
        board.call = joined(board, replace(AGAIN, cut_off=False, so_far=SoFar(D("0.0999"), 9.0)))
        assert board.call.so_far == SoFar()
        await asyncio.sleep(CLOSE_WAIT_S)

    run(scenario, terms=Terms(call_usd=D("0.10")))


def test_the_same_session_twice_here_counts_what_both_have_cost() -> None:
    """The store was away, and knows nothing of the first."""

    async def scenario(board: Metered) -> None:
        board.call = joined(board, AGAIN)
        board.attach(board.call.id)
        board.use("llm", MIND, tokens_out=dear("0.04"))
        await lost(board)
        board.call = joined(board, replace(AGAIN, number=3))
        assert board.call.so_far.usd == D("0.04")

    run(scenario, terms=Terms(call_usd=D("0.10")))
