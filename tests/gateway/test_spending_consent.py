"""What a call may cost while it is opened, and while its caller is served without third parties."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

from tests.gateway.test_consent import Consenting
from trunkline.agents.attending import Agent
from trunkline.agents.definition import HandOff
from trunkline.compliance.money.account import Account, Terms
from trunkline.compliance.money.treasury import Policy, Treasury
from trunkline.gateway.announcer import Announcer
from trunkline.gateway.call import CLOSE_WAIT_S
from trunkline.gateway.spending import WRAP_UP, Spending, Ways
from trunkline.ports import TurnRecord, Wish
from trunkline.testing.board import DEFINITION, play

D = Decimal
DIALLED = "+14155550100"
HERE = SimpleNamespace(name="espeak", third_party=False)
CHEAP = Ways(cheaper_agent="cheap")


class Careful(Consenting):
    """The clinic and its cheaper agent think elsewhere, and each has what of it is this machine's."""

    def __init__(self, ways: Ways, **terms: Any) -> None:
        super().__init__()
        self.switchboard.limits = replace(self.switchboard.limits, max_call_s=7200.0)
        self.mind.name, self.mind.product, self.mind.transcribes = "openai", "gpt-realtime", False
        self.agent.definition = replace(DEFINITION, agents={"cheap": HandOff("/cheap.toml", "all")})
        self.alone.definition, self.alone.providers = self.agent.definition, (HERE,)
        self.cheap_alone = self._agent("cheap", HERE)
        self.cheap = self._agent("cheap", SimpleNamespace(name="cloud", third_party=True, product="small"))
        self.cheap.alone = lambda: self.cheap_alone
        self.switchboard.agents = {"/cheap.toml": cast(Agent, self.cheap)}
        treasury = Treasury(Policy(terms=Terms(**terms)), None, self.clock)
        self.spending = Spending(treasury, ways, self.metrics, self.clock.now)
        self.switchboard.spending = self.spending

    def _agent(self, name: str, provider: Any) -> SimpleNamespace:
        own = {"definition": replace(DEFINITION, name=name), "providers": (provider,), "fallback": None}
        return SimpleNamespace(**(vars(self.agent) | own))

    async def opened(self, seconds: float) -> None:
        self.call = self.line_of(self.admit(to_number=DIALLED))
        self.attach(self.call.id)
        await self.hear(seconds)

    @property
    def account(self) -> Account:
        return self.spending._calls[self.call.id][1]

    async def turn(self) -> None:
        self.call.turn(TurnRecord(0, "words", "more"), 0.0)
        await asyncio.sleep(0)


def run(scenario: Callable[[Careful], Coroutine[Any, Any, None]], ways: Ways = CHEAP, **terms: Any) -> Careful:
    async def played(board: Careful) -> None:
        board.spending.start()
        try:
            await scenario(board)
        finally:
            await board.spending.close()

    return play(Careful(ways, **terms), played)


def test_a_budget_that_is_spent_during_the_opening_ends_it_with_the_agents_goodbye() -> None:
    async def scenario(board: Careful) -> None:
        await board.opened(1.0)
        announcer = board.call.attended.attendant
        assert isinstance(announcer, Announcer)
        board.call.out_of_budget("call", "")
        await board.hear(0.5)
        board.call.key("1")  # too late to agree to anything
        await board.hear(3)
        assert announcer.spans[-1].line.text == DEFINITION.goodbye
        assert announcer.spans[-1].whole
        await asyncio.sleep(CLOSE_WAIT_S + 0.1)
        assert board.attendants == []

    board = run(scenario, call_usd=D(1))
    assert board.ends() == [("budget", "")]
    (told,) = board.events("disclosed")
    assert [line["whole"] for line in told["lines"]] != [True] * 3


def test_nobody_is_billed_while_the_lines_are_said_and_nobodys_time_runs() -> None:
    async def scenario(board: Careful) -> None:
        await board.opened(6.0)
        assert board.account.backends == ()
        board.call.key("1")
        await board.hear(2)
        assert tuple(board.account.backends) == ("openai",)
        assert board.account.attended_since >= board.clock.now() - 2.1

    run(scenario, backend_s={"openai": 60.0})


def test_whoever_is_served_without_third_parties_costs_their_leg_and_has_no_backends_limit() -> None:
    async def scenario(board: Careful) -> None:
        await board.opened(6.0)
        board.call.key("2")
        await board.hear(3)
        assert board.call.attended.agent is board.alone
        assert tuple(board.account.backends) == ("espeak",)
        await asyncio.sleep(120)
        assert board.agent_now.goodbyes == 0
        told = board.spending.told(board.call)
        assert told is not None
        assert (told["usd"], told["complete"]) == ("0.0375", True)  # three minutes begun, and nothing else

    run(scenario, backend_s={"openai": 60.0})


def test_who_withdraws_leaves_the_backend_and_its_time_with_it() -> None:
    async def scenario(board: Careful) -> None:
        await board.opened(6.0)
        board.call.key("1")
        await board.hear(50)
        board.call.wished(Wish("keep_nothing", "stop recording", "speech"))
        await board.hear(20)
        assert tuple(board.account.backends) == ("espeak",)
        assert board.agent_now.goodbyes == 0

    board = run(scenario, ways=Ways(), backend_s={"openai": 60.0})
    assert "budget_spent" not in board.kinds()


def test_the_cheaper_agent_takes_over_as_what_of_it_is_this_machines() -> None:
    async def scenario(board: Careful) -> None:
        await board.opened(6.0)
        board.call.key("2")
        await board.hear(3)
        await asyncio.sleep(30)
        await board.turn()
        assert board.call.attended.agent is board.cheap_alone
        assert board.call.attended.whole is board.cheap
        assert tuple(board.account.backends) == ("espeak",)
        assert (board.agent_now.greeting, board.agent_now.pending) == ("", ())

    board = run(scenario, cheaper_after_s=20.0)
    providers = [name for event in board.events("agent_changed") for name in event["providers"]]
    assert set(providers) == {"espeak"}


def test_a_cheaper_agent_that_this_machine_cannot_be_does_not_take_over() -> None:
    async def scenario(board: Careful) -> None:
        board.cheap.alone = lambda: None
        await board.opened(6.0)
        board.call.key("2")
        await board.hear(3)
        await asyncio.sleep(30)
        await board.turn()
        assert board.call.attended.agent is board.alone
        assert board.agent_now.goodbyes == 0

    board = run(scenario, cheaper_after_s=20.0)
    assert board.events("cheaper_route") == []


def test_the_cheaper_route_that_was_shut_during_the_opening_is_taken_once_they_agree() -> None:
    async def scenario(board: Careful) -> None:
        board.cheap.alone = lambda: None
        await board.opened(6.0)
        assert board.events("cheaper_route") == []
        board.call.key("1")
        await board.hear(8)
        await board.turn()
        assert board.call.attended.agent is board.cheap

    board = run(scenario, cheaper_after_s=2.0)
    assert board.events("cheaper_route") == [{"agent": "cheap", "why": "minutes"}]


def test_who_has_the_line_later_is_told_to_wrap_up_as_well() -> None:
    async def scenario(board: Careful) -> None:
        await board.opened(6.0)
        board.call.instruct(WRAP_UP)
        board.call.key("1")
        await board.hear(2)
        assert board.agent_now.instructed == [WRAP_UP]
        board.attach(board.call.id)
        assert board.agent_now.instructed == [WRAP_UP]

    run(scenario)


def test_a_cheaper_agent_that_may_never_have_the_line_keeps_nobody_from_wrapping_up() -> None:
    async def scenario(board: Careful) -> None:
        board.cheap.ready = lambda: False
        await board.opened(6.0)
        board.call.key("1")
        await board.hear(2)
        await asyncio.sleep(800)
        assert board.agent_now.instructed == [WRAP_UP]

    board = run(scenario, cheaper_after_s=2.0, call_usd=D("0.20"))
    assert board.ends() == []
