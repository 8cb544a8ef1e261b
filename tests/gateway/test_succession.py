"""Who attends a call, one after another: hand-offs, refusals, and what becomes of the conversation."""

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from trunkline.agents.attending import Agent
from trunkline.agents.definition import HandOff
from trunkline.errors import ProviderError
from trunkline.gateway.call import CLOSE_WAIT_S
from trunkline.gateway.succession import HAND_OFFS_MAX, NOT_HANDED_OVER, UNREACHABLE
from trunkline.ports import Allow, Message, Refuse, ToolCall, TurnEnded, TurnRecord
from trunkline.testing.board import DEFINITION, Board, run

SAID = [
    Message("agent", "Hello."),
    Message("caller", "my invoice"),
    Message("agent", "Billing helps.", tool_calls=(ToolCall("t1", "hand_off", {"agent": "billing"}),)),
    Message("tool", '{"ok": true}', tool_call_id="t1"),
]


def house(board: Board, **terms: Any) -> Any:
    """A clinic and its billing desk, which may give calls back."""
    billing = replace(
        DEFINITION,
        name="billing desk",
        targets={"cashier": "+14155550111"},
        agents={"clinic": HandOff("/clinic.toml", "all else", greeting="Front desk again.")},
    )
    other = SimpleNamespace(name="cloud", third_party=True)
    agent = SimpleNamespace(**{**vars(board.agent), "definition": billing, "providers": (board.mind, other)})
    board.agent.definition = replace(DEFINITION, agents={"billing": HandOff("/billing.toml", "invoices", **terms)})
    board.switchboard.agents = {"/clinic.toml": cast(Agent, board.agent), "/billing.toml": cast(Agent, agent)}
    return agent


async def hands_over(board: Board, name: str, number: int = 1) -> None:
    """As an attendant does: asks, and when its words were heard, gives over."""
    line = board.line(number)
    assert line.hand_off(name) == Allow()
    line.handed_off()
    await asyncio.sleep(0)


def third_parties(board: Board) -> list[str | None]:
    return [facts.target for facts in board.asked if facts.door == "third_party"]


def test_another_agent_goes_on_with_the_conversation_and_the_callers_last_words() -> None:
    async def scenario(board: Board) -> None:
        house(board)
        board.answered()
        first, line = board.agent_now, board.line()
        first.conversation += SAID
        line.held(True)
        assert line.hand_off("billing") == Allow()
        assert third_parties(board) == ["cloud"]
        assert board.agent_now is first  # until its words were heard
        line.handed_off()
        await asyncio.sleep(0)
        second = board.agent_now
        assert second is not first
        assert first.closes == 1
        assert second.bus is first.bus
        assert second.conversation == SAID
        assert (second.greeting, second.pending) == (None, ("my invoice",))
        assert second.held
        assert third_parties(board) == ["cloud"]
        [changed] = board.events("agent_changed")
        assert (changed["before"], changed["agent"], changed["why"]) == ("clinic", "billing desk", "handed_off")
        assert changed["providers"] == ["fake", "cloud"]
        assert line.started.agent == "clinic"

    run(scenario)


def test_turns_are_counted_through_the_call_whoever_attends() -> None:
    async def scenario(board: Board) -> None:
        house(board)
        board.answered()
        board.line().turn(TurnRecord(0, "", "Hello."), 0.0)
        board.line().turn(TurnRecord(1, "my invoice", "Billing helps."), 0.0)
        await hands_over(board, "billing")
        board.line().turn(TurnRecord(0, "", "It is paid."), 0.0)
        assert [e.turn.index for e in board.records if isinstance(e, TurnEnded)] == [0, 1, 2]

    run(scenario)


def test_its_targets_are_its_own_and_so_is_what_it_does_when_a_transfer_fails() -> None:
    async def scenario(board: Board) -> None:
        house(board)
        board.answered()
        await hands_over(board, "billing")
        refused = board.line().transfer("desk")
        assert isinstance(refused, Refuse)
        assert board.line().transfer("cashier") == Allow()
        assert board.line().transfer_number == "+14155550111"

    run(scenario)


def test_the_file_may_have_it_greet_and_tell_it_something_that_the_next_one_is_not_told() -> None:
    async def scenario(board: Board) -> None:
        house(board, greeting="Billing, hello.", summary="They have shown who they are.")
        board.answered()
        board.agent_now.conversation += SAID
        await hands_over(board, "billing")
        second = board.agent_now
        assert (second.greeting, second.pending) == ("Billing, hello.", ())
        assert second.conversation == [Message("summary", "They have shown who they are."), *SAID]
        second.conversation.append(Message("agent", "Billing, hello."))
        await hands_over(board, "clinic")
        third = board.agent_now
        assert third.greeting == "Front desk again."
        assert third.conversation == [*SAID, Message("agent", "Billing, hello.")]

    run(scenario)


def test_an_agent_to_whom_nobody_has_spoken_greets() -> None:
    async def scenario(board: Board) -> None:
        house(board)
        board.answered()
        await hands_over(board, "billing")
        assert (board.agent_now.greeting, board.agent_now.pending) == (None, ())

    run(scenario)


def test_an_agent_greets_where_the_callers_last_words_were_never_written_down() -> None:
    async def scenario(board: Board) -> None:
        house(board)
        board.answered()
        board.agent_now.conversation += [SAID[0], SAID[1], SAID[0], Message("caller", ""), *SAID[2:]]
        await hands_over(board, "billing")
        assert (board.agent_now.greeting, board.agent_now.pending) == (None, ())

    run(scenario)


def test_an_agent_that_is_away_is_told_to_the_one_who_would_hand_over() -> None:
    async def scenario(board: Board) -> None:
        agent = house(board)
        agent.ready = lambda: False
        board.answered()
        first = board.agent_now
        refused = board.line().hand_off("billing")
        assert isinstance(refused, Refuse)
        assert (refused.code, refused.why) == ("unreachable", UNREACHABLE)
        board.line().handed_off()
        await asyncio.sleep(0)
        assert board.agent_now is first
        assert third_parties(board) == []
        assert board.events("hand_off_refused") == [{"agent": "billing", "code": "unreachable"}]
        agent.ready = lambda: True
        assert board.line().hand_off("billing") == Allow()

    run(scenario)


def test_an_agent_that_may_not_hear_the_caller_leaves_them_where_they_are() -> None:
    async def scenario(board: Board) -> None:
        house(board)
        board.answered()
        first = board.agent_now
        board.refusing["third_party"] = Refuse("no_consent", "not asked")
        assert board.line().hand_off("billing") == Refuse("no_consent", "not asked")
        board.line().handed_off()  # of a hand-off before, perhaps: nothing was allowed
        await asyncio.sleep(0)
        assert board.agent_now is first
        assert first.closes == 0
        assert board.events("hand_off_refused") == [{"agent": "billing", "code": "no_consent"}]
        assert board.ends() == []

    run(scenario)


def test_an_agent_nobody_has_named_is_refused() -> None:
    async def scenario(board: Board) -> None:
        house(board)
        board.answered()
        refused = board.line().hand_off("clinic")  # it is billing's to name
        assert isinstance(refused, Refuse)
        assert refused.code == "unknown_agent"

    run(scenario)


def test_agents_that_send_a_caller_to_and_fro_are_stopped() -> None:
    async def scenario(board: Board) -> None:
        house(board)
        board.answered()
        for at in range(HAND_OFFS_MAX):
            await hands_over(board, ("billing", "clinic")[at % 2])
        refused = board.line().hand_off("billing")
        assert isinstance(refused, Refuse)
        assert refused.code == "too_many"
        assert len(board.attendants) == 1 + HAND_OFFS_MAX

    run(scenario)


def test_an_agent_that_cannot_begin_leaves_the_caller_with_the_one_before_who_knows() -> None:
    async def scenario(board: Board) -> None:
        def cannot(*_: Any) -> None:
            raise ProviderError("cloud", "unavailable", retryable=True)

        house(board).attend = cannot
        board.answered()
        board.agent_now.conversation += SAID
        await hands_over(board, "billing")
        now = board.agent_now
        assert now.greeting == NOT_HANDED_OVER
        assert now.conversation[:3] == SAID[:3]
        assert json.loads(now.conversation[3].text)["code"] == "failed"
        assert [changed["agent"] for changed in board.events("agent_changed")] == ["billing desk", "clinic"]
        assert board.line().hand_off("billing") == Allow()  # the present agent is the clinic again

    run(scenario)


def test_a_call_that_ends_before_it_is_handed_over_is_over() -> None:
    async def scenario(board: Board) -> None:
        house(board)
        call_id, _ = board.answered()
        line = board.line()
        line.hand_off("billing")
        line.handed_off()
        line.hang_up("drained")
        await asyncio.sleep(CLOSE_WAIT_S + 0.1)
        assert len(board.attendants) == 1
        assert board.ends(call_id) == [("drained", "")]

    run(scenario)


def test_a_leg_that_is_lost_comes_back_to_the_agent_it_was_with() -> None:
    async def scenario(board: Board) -> None:
        house(board)
        call_id, _ = board.answered()
        await hands_over(board, "billing")
        board.attach(call_id)  # replaced: the same call
        assert board.attendants[-1].conversation == []
        board.line().hand_off("clinic")
        board.line().lost(board.line()._leg, "3 s without media")  # type: ignore[arg-type]
        again = board.admit()  # and another call, for the same caller
        board.attach(again)
        assert board.line_of(again).attended.agent.definition.name == "billing desk"
        assert board.line_of(again).hand_off("clinic") == Allow()

    run(scenario)


def test_a_bug_in_the_agent_that_takes_over_ends_that_call_alone() -> None:
    async def scenario(board: Board) -> None:
        house(board)
        call_id, _ = board.answered()
        other, _ = board.answered(2)
        board.breaks = "begin"
        await hands_over(board, "billing")
        await asyncio.sleep(CLOSE_WAIT_S + 0.1)
        assert board.ends(call_id) == [("error", "")]
        assert board.ends(other) == []

    run(scenario)
