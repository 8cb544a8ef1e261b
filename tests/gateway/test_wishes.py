"""What a caller wishes, performed on the switchboard: written, confirmed, ended."""

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest

from trunkline.compliance.confirmations import confirmation
from trunkline.gateway.linecall import CONFIRM_S
from trunkline.gateway.wishes import ON_DISK_S
from trunkline.ports import Grant, Revocation, Wish
from trunkline.testing.board import Board, play
from trunkline.types import E164

STOP = Wish("do_not_call", "take me off your list", "speech")


class Ledger:
    """`ports.Consents` that takes note."""

    def __init__(self) -> None:
        self.said: list[Revocation] = []
        self.writes, self.takes_s = True, 0.0

    def grant(self, given: Grant) -> None: ...

    def revoke(self, said: Revocation) -> None:
        self.said.append(said)

    async def on_disk(self) -> bool:
        await asyncio.sleep(self.takes_s)
        return self.writes


def run(scenario: Callable[[Board, Ledger], Coroutine[Any, Any, None]], keys: tuple[str, str] = ("", "")) -> Board:
    board, ledger = Board(), Ledger()
    board.switchboard.consents, board.switchboard.keys = ledger, keys
    return play(board, lambda same: scenario(same, ledger))


async def settled() -> None:
    await asyncio.sleep(ON_DISK_S + 0.1)


def test_it_is_written_then_confirmed_and_ends_the_call_with_a_reason_of_its_own() -> None:
    async def scenario(board: Board, ledger: Ledger) -> None:
        call_id = board.admit(from_number=E164("+12125550147"))
        leg = board.attach(call_id)
        board.agent_now.control.wished(STOP)
        assert [(said.subject, said.do_not_call, said.call_id) for said in ledger.said] == [
            ("+12125550147", True, call_id)
        ]
        assert board.agent_now.goodbyes == 0  # not before it is on disk
        await settled()
        assert board.agent_now.last_line == confirmation("opted_out", "en")
        board.agent_now.control.wished(STOP)  # says it again
        assert (len(ledger.said), board.agent_now.goodbyes) == (1, 1)
        board.agent_now.control.say_goodbye("drained")  # no other reason takes its place
        board.agent_now.control.hang_up("max_duration")  # it was heard
        assert leg.closed == ["opted_out"]
        assert board.events("opted_out") == [{"via": "speech", "listed": True}]
        assert "take me off" not in str(board.records)

    run(scenario)


def test_a_full_disk_is_not_lied_about() -> None:
    async def scenario(board: Board, ledger: Ledger) -> None:
        ledger.writes = False
        board.answered()
        board.agent_now.control.wished(STOP)
        await settled()
        assert board.agent_now.last_line == confirmation("unwritten", "en")
        assert board.events("opt_out_unwritten") == [{}]

    run(scenario)


def test_nor_is_a_disk_that_does_not_answer_and_nobody_waits_for_it() -> None:
    async def scenario(board: Board, ledger: Ledger) -> None:
        ledger.takes_s = 60.0
        board.answered()
        board.agent_now.control.wished(STOP)
        await settled()
        assert board.agent_now.last_line == confirmation("unwritten", "en")

    run(scenario)


def test_a_caller_without_a_number_is_told_so() -> None:
    async def scenario(board: Board, ledger: Ledger) -> None:
        board.attach(board.admit(from_number=None))
        board.agent_now.control.wished(STOP)
        await settled()
        assert ledger.said == []
        assert board.agent_now.last_line == confirmation("no_number", "en")
        assert board.events("opted_out") == [{"via": "speech", "listed": False}]

    run(scenario)


def test_who_hangs_up_before_the_confirmation_has_said_it_all_the_same() -> None:
    async def scenario(board: Board, ledger: Ledger) -> None:
        _, leg = board.answered()
        board.call.wished(STOP)
        board.call.stopped(leg)
        await settled()
        assert len(ledger.said) == 1
        assert board.kinds().count("opted_out") == 1

    run(scenario)


def test_an_agent_that_never_comes_to_an_end_does_not_keep_the_caller() -> None:
    async def scenario(board: Board, ledger: Ledger) -> None:
        _, leg = board.answered()
        board.call.wished(STOP)
        await asyncio.sleep(CONFIRM_S + 1)
        assert leg.closed == ["opted_out"]

    run(scenario)


def test_keys_that_are_configured_are_taken_from_the_agent_and_no_others() -> None:
    async def scenario(board: Board, ledger: Ledger) -> None:
        board.answered()
        for digit in "49":
            board.call.key(digit)
        assert (board.agent_now.keys, ledger.said) == ("49", [])
        await asyncio.sleep(4)
        board.call.key("*")
        board.call.key("9")
        assert board.agent_now.keys == "49*"
        assert [said.via for said in ledger.said] == ["keypad"]

    run(scenario, ("*9", ""))


@pytest.mark.parametrize("keys", ["9", "*9"])
def test_a_number_that_is_keyed_in_secret_holds_no_wish(keys: str) -> None:
    async def scenario(board: Board, ledger: Ledger) -> None:
        board.answered()
        board.agent_now.keyed_in_secret = True
        for digit in "4*9":
            board.call.key(digit)
        board.agent_now.keyed_in_secret = False
        assert (board.agent_now.keys, ledger.said) == ("4*9", [])
        for digit in keys:
            board.call.key(digit)
        assert len(ledger.said) == 1

    run(scenario, (keys, ""))


def test_a_single_digit_is_the_agents_while_it_asks_for_digits() -> None:
    async def scenario(board: Board, ledger: Ledger) -> None:
        board.answered()
        board.agent_now.digits_awaited = True  # type: ignore[attr-defined]
        board.call.key("9")
        assert (board.agent_now.keys, ledger.said) == ("9", [])
        board.agent_now.digits_awaited = False  # type: ignore[attr-defined]
        board.call.key("9")
        assert len(ledger.said) == 1

    run(scenario, ("9", ""))


def test_what_is_said_where_a_supervisor_speaks_may_be_theirs() -> None:
    async def scenario(board: Board, ledger: Ledger) -> None:
        board.answered()
        other = SimpleNamespace(port=object(), invitation=SimpleNamespace(role="supervisor"), supervision="speak")
        board.call.party._others["leg"] = cast(Any, other)
        board.call.wished(STOP)
        assert ledger.said == []
        other.supervision = "listen"
        board.call.wished(STOP)
        assert len(ledger.said) == 1
        board.call.party._others.clear()

    run(scenario)


def test_without_rules_nothing_is_done() -> None:
    async def scenario(board: Board) -> None:
        board.answered()
        board.call.wished(STOP)
        await settled()
        assert board.agent_now.goodbyes == 0
        assert "opted_out" not in board.kinds()

    play(Board(), scenario)
