"""Agents that come and go while calls are held."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from trunkline.agents.attending import Agent
from trunkline.agents.definition import AgentDefinition, ProviderChoice
from trunkline.agents.here import AgentHere
from trunkline.agents.providers import Services
from trunkline.agents.roster import DRAFT_S, FAILED_S, GRACE_S, MAX_DRAFTS, NoVersions, Roster
from trunkline.errors import ConfigError, ProviderError, StoreError
from trunkline.ports import Refuse
from trunkline.testing.clock import ManualClock
from trunkline.types import DEFAULT_TENANT, AgentVersion, TenantId, ruled_as

STANDINS = 'stt.provider = "standin"\nllm.provider = "standin"\ntts.provider = "standin"\n'
STANDIN = ProviderChoice("standin")
FIRST = AgentDefinition("First", STANDIN, STANDIN, STANDIN, greeting="Hello.")
TO_BILLING = '[agents.money]\nagent = "billing"\nwhen = "invoices"\n'


def text(name: str = "Reception", more: str = "") -> str:
    return f'name = "{name}"\ngreeting = "Hello."\n{STANDINS}{more}'


class Desk:
    """Where versions are kept."""

    def __init__(self, **texts: str) -> None:
        self.texts = {("default", *_split(key)): text for key, text in texts.items()}
        self.now: dict[tuple[str, str], int] = {}
        self.asked: list[str] = []
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def text(self, tenant: TenantId, agent: str, version: int) -> str | None:
        self.asked.append(f"{tenant}/{agent}@{version}")
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.texts.get((tenant, agent, version))

    async def published(self, tenant: TenantId, agent: str) -> int | None:
        if self.error is not None:
            raise self.error
        return self.now.get((tenant, agent))


def _split(key: str) -> tuple[str, int]:
    agent, _, version = key.rpartition("_")
    return agent, int(version)


class House:
    """A roster and what is around it. `made` is every agent of the desk that was built, by its key."""

    def __init__(self, desk: Any, **how: Any) -> None:
        self.clock = ManualClock()
        self.services = Services(self.clock)
        self.made: dict[str, AgentHere] = {}
        self.closed: list[str] = []
        self.calls: list[Agent] = []
        family = {"/first.toml": self._here(FIRST)}
        self.roster = Roster(family, desk, self.make, self.clock, **how)
        self.roster.in_use = lambda: self.calls

    def _here(self, definition: AgentDefinition) -> AgentHere:
        return AgentHere(definition, self.services, cast(Any, None), lambda: True)

    def make(self, definition: AgentDefinition, prefix: str) -> AgentHere:
        made = self._here(definition)
        close, key = made.minds.tts.close, definition.version

        async def closing() -> None:
            self.closed.append(key)
            await close()

        made.minds.tts.close = closing  # type: ignore[method-assign]
        self.made[key] = made
        return made

    def pass_s(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.roster.sweep(self.clock.now())

    async def settle(self) -> None:
        while self.roster._closing:
            await asyncio.sleep(0)


def run(test: Callable[[House], Awaitable[None]], desk: Any = None, **how: Any) -> None:
    async def main() -> None:
        house = House(desk or Desk(reception_1=text(), reception_2=text("Reception two")), **how)
        async with asyncio.timeout(10):
            try:
                await test(house)
            finally:
                await house.roster.close()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a task outlives the roster"
        assert set(house.closed) >= house.made.keys() - {"broken"}

    asyncio.run(main())


ONE, TWO = "default/reception@1", "default/reception@2"


def test_a_version_that_is_wanted_is_here_at_once_for_calls() -> None:
    async def test(house: House) -> None:
        roster = house.roster
        assert roster.agent(ONE) is None
        roster.want([ONE])
        await roster.tend()
        agent = roster.agent(ONE)
        assert agent is not None
        assert agent.ready()
        assert (agent.definition.version, agent.definition.name) == (ONE, "Reception")
        assert roster.agents[ONE] is agent
        assert roster.sha256[ONE] == agent.definition.sha256
        assert [each.definition.known_as for each in roster.everyone()] == ["First", ONE]

    run(test)


def test_many_who_ask_at_once_start_it_once() -> None:
    desk = Desk(reception_1=text())

    async def test(house: House) -> None:
        first, second, third = await asyncio.gather(*(house.roster.ready(ONE) for _ in range(3)))
        assert first is second is third is house.roster.agent(ONE)
        assert desk.asked == [ONE]
        assert await house.roster.ready(ONE) is first
        assert desk.asked == [ONE]

    run(test, desk)


def test_who_asks_waits_no_longer_than_they_say_and_it_goes_on_starting() -> None:
    desk = Desk(reception_1=text())

    async def test(house: House) -> None:
        desk.gate.clear()
        refused = await house.roster.ready(ONE, 0.0)
        assert isinstance(refused, Refuse)
        assert refused.code == "agent_away"
        desk.gate.set()
        assert not isinstance(await house.roster.ready(ONE), Refuse)
        assert desk.asked == [ONE]

    run(test, desk)


@pytest.mark.parametrize(
    ("key", "code", "why"),
    [
        ("default/nobody@1", "unknown_agent", "there is no agent default/nobody@1"),
        ("other/reception@1", "unknown_agent", "there is no agent other/reception@1"),
        ("/first.toml", "unknown_agent", "there is no agent /first.toml"),
        ("default/reception@draft-0123456789abcdef", "unknown_agent", "there is no agent"),
        (
            "default/broken@1",
            "agent_broken",
            "line 6 gretting = 'default/broken@1': unknown key; did you mean greeting?",
        ),
        ("default/files@1", "agent_broken", "names no files"),
    ],
)
def test_what_cannot_be_started_says_why(key: str, code: str, why: str) -> None:
    broken = text(more='gretting = "Hi."\n')
    files = text(more='[agents.x]\nfile = "/etc/passwd"\nwhen = "x"\n')

    async def test(house: House) -> None:
        refused = await house.roster.ready(key)
        assert isinstance(refused, Refuse)
        assert refused.code == code
        assert why in refused.why
        assert house.roster.agent(key) is None

    run(test, Desk(reception_1=text(), broken_1=broken, files_1=files))


def test_a_failure_is_remembered_for_a_while_and_then_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(reception_1=text())

    async def test(house: House) -> None:
        desk.error = StoreError("the database is away")
        house.roster.want([ONE])
        for _ in range(3):
            await house.roster.tend(changed=False)
        assert desk.asked == [ONE], "not again within FAILED_S"
        assert (why := house.roster.why_not(ONE)) is not None
        assert (why.code, why.why) == ("agent_away", "its script cannot be read: the database is away")
        house.clock.advance(FAILED_S)
        await house.roster.tend(changed=False)
        assert len(desk.asked) == 2
        assert caplog.text.count("is not here") == 1, "the same reason is logged once"
        desk.error = None
        house.clock.advance(FAILED_S)
        await house.roster.tend(changed=False)
        assert house.roster.agent(ONE) is not None
        assert house.roster.why_not(ONE) is None

    run(test, desk)


def test_a_plug_ins_bug_is_a_refusal_and_harms_nobody() -> None:
    async def test(house: House) -> None:
        house.roster.make = lambda definition, prefix: 1 / 0  # type: ignore[return-value, assignment]
        refused = await house.roster.ready(ONE)
        assert isinstance(refused, Refuse)
        assert (refused.code, refused.why) == ("agent_broken", "ZeroDivisionError: division by zero")
        house.roster.make = house.make
        assert not isinstance(await house.roster.ready(TWO), Refuse)

    run(test)


def test_one_whose_providers_are_away_is_here_but_not_ready() -> None:
    async def test(house: House) -> None:
        def make(definition: AgentDefinition, prefix: str) -> AgentHere:
            made = house.make(definition, prefix)

            async def start() -> None:
                raise ProviderError("standin", "unavailable", retryable=True)

            made.minds.llm.start = start  # type: ignore[method-assign]
            return made

        house.roster.make = make
        agent = await house.roster.ready(ONE)
        assert not isinstance(agent, Refuse)
        assert not agent.ready()

    run(test)


def test_one_that_nobody_wants_is_closed_after_its_calls_and_the_grace_period() -> None:
    async def test(house: House) -> None:
        roster = house.roster
        roster.want([ONE])
        await roster.tend()
        old = roster.agents[ONE]
        house.calls.append(old)
        roster.want([TWO])
        await roster.tend()
        house.pass_s(2 * GRACE_S)
        assert roster.agent(ONE) is old, "a call goes on with the version it began with"
        house.calls.clear()
        house.pass_s(1)
        house.pass_s(GRACE_S - 1)
        assert roster.agent(ONE) is old, "the call may come back"
        house.pass_s(1)
        assert roster.agent(ONE) is None
        assert ONE not in roster.sha256
        await house.settle()
        assert house.closed == [ONE]
        assert roster.agent(TWO) is not None

    run(test)


def test_one_that_is_wanted_again_within_the_grace_period_stays() -> None:
    async def test(house: House) -> None:
        roster = house.roster
        roster.want([ONE])
        await roster.tend()
        roster.want([])
        house.pass_s(1)
        house.pass_s(GRACE_S - 1)
        roster.want([ONE])
        house.pass_s(1)
        roster.want([])
        house.pass_s(GRACE_S - 1)
        assert roster.agent(ONE) is not None

    run(test)


def test_there_is_room_for_so_many_and_who_is_not_held_makes_room() -> None:
    async def test(house: House) -> None:
        roster = house.roster
        first = await roster.ready(ONE)
        assert not isinstance(first, Refuse)
        house.calls.append(first)
        refused = await roster.ready(TWO)
        assert isinstance(refused, Refuse)
        assert refused.code == "too_many_agents"
        house.calls.clear()
        house.clock.advance(FAILED_S)
        assert not isinstance(await roster.ready(TWO), Refuse)
        assert roster.agent(ONE) is None

    run(test, max_agents=2)


def test_a_hand_off_leads_to_whom_the_tenant_has_published() -> None:
    desk = Desk(reception_1=text(more=TO_BILLING), billing_1=text("Billing"), billing_2=text("Billing two"))

    async def test(house: House) -> None:
        roster = house.roster
        desk.now["default", "billing"] = 1
        roster.want([ONE])
        await roster.tend()
        reception = roster.agents[ONE]
        file = reception.definition.agents["money"].file
        assert file == "default/billing"
        assert roster.agents[file].definition.version == "default/billing@1"
        desk.now["default", "billing"] = 2
        roster.want([ONE])
        await roster.tend()
        assert roster.agents[file].definition.name == "Billing two"
        house.pass_s(1)
        house.pass_s(GRACE_S)
        assert roster.agent("default/billing@1") is None
        assert roster.agents[file].definition.version == "default/billing@2", "it is held by who hands over to it"
        del desk.now["default", "billing"]
        roster.want([ONE])
        await roster.tend()
        assert file not in roster.agents

    run(test, desk)


def test_while_the_published_version_does_not_start_the_one_before_it_stays() -> None:
    desk = Desk(reception_1=text(), reception_2="name = 3")
    desk.now["default", "reception"] = 1

    async def test(house: House) -> None:
        roster = house.roster
        roster.want([ONE])
        await roster.tend()
        before = roster.agent("default/reception")
        assert before is roster.agent(ONE) is not None
        desk.now["default", "reception"] = 2
        roster.want([TWO])
        await roster.tend()
        assert roster.agent(TWO) is None
        assert roster.agent("default/reception") is before
        house.pass_s(0)
        house.pass_s(GRACE_S + 1)
        assert roster.agent("default/reception") is before
        desk.texts["default", "reception", 2] = text("Reception two")
        await roster.tend()
        assert roster.agent("default/reception") is roster.agent(TWO) is not None
        house.pass_s(0)
        house.pass_s(GRACE_S + 1)
        await house.settle()
        assert house.closed == [ONE]

    run(test, desk)


def test_agents_that_hand_calls_to_and_fro_are_each_here_once() -> None:
    back = '[agents.desk]\nagent = "reception"\nwhen = "all else"\n'
    desk = Desk(reception_1=text(more=TO_BILLING), billing_1=text("Billing", back))

    async def test(house: House) -> None:
        desk.now = {("default", "billing"): 1, ("default", "reception"): 1}
        house.roster.want([ONE])
        await house.roster.tend()
        assert sorted(house.made) == ["default/billing@1", ONE]
        assert house.roster.agents["default/reception"] is house.roster.agents[ONE]

    run(test, desk)


def test_while_the_store_is_away_hand_offs_stay_as_they_were() -> None:
    desk = Desk(reception_1=text(more=TO_BILLING), billing_1=text("Billing"))

    async def test(house: House) -> None:
        desk.now["default", "billing"] = 1
        house.roster.want([ONE])
        await house.roster.tend()
        desk.error = StoreError("away")
        house.roster.want([ONE])
        await house.roster.tend()
        assert house.roster.agent("default/billing") is not None

    run(test, desk)


def test_a_draft_is_talked_to_by_who_knows_its_name_for_ten_minutes() -> None:
    async def test(house: House) -> None:
        roster = house.roster
        key = await roster.draft(DEFAULT_TENANT, "reception", text("Draft"))
        assert isinstance(key, str)
        assert (version := AgentVersion.read(key)) is not None
        assert version.is_draft
        agent = roster.agent(key)
        assert agent is not None
        assert agent.definition.name == "Draft"
        house.pass_s(DRAFT_S - 1)
        house.calls.append(agent)
        house.pass_s(1)
        assert roster.agent(key) is agent, "who talks to it does so to the end"
        house.calls.clear()
        house.pass_s(1)
        assert roster.agent(key) is None

    run(test)


def test_a_draft_that_is_wrong_says_where() -> None:
    async def test(house: House) -> None:
        refused = await house.roster.draft(DEFAULT_TENANT, "reception", "name = 3")
        assert isinstance(refused, Refuse)
        assert refused.code == "agent_broken"
        assert "name" in refused.why

    run(test)


def test_the_oldest_draft_gives_way() -> None:
    async def test(house: House) -> None:
        roster, keys = house.roster, list[str]()
        for number in range(MAX_DRAFTS + 1):
            house.clock.advance(1)
            key = await roster.draft(DEFAULT_TENANT, "reception", text(f"Draft {number}"))
            assert isinstance(key, str)
            keys.append(key)
        assert [roster.agent(key) is not None for key in keys] == [False, *[True] * MAX_DRAFTS]
        house.calls = [agent for key in keys if (agent := roster.agent(key)) is not None]
        refused = await roster.draft(DEFAULT_TENANT, "reception", text("one more"))
        assert isinstance(refused, Refuse)

    run(test)


def test_what_is_told_of_a_new_agent_comes_before_its_first_call_and_may_refuse_it() -> None:
    told: list[str] = []

    async def test(house: House) -> None:
        async def began(made: AgentHere) -> None:
            assert house.roster.agent(made.definition.version) is None
            told.append(made.definition.version)
            if made.definition.version == TWO:
                raise ProviderError("espeak", "unavailable", retryable=True)

        house.roster.began.append(began)
        assert not isinstance(await house.roster.ready(ONE), Refuse)
        refused = await house.roster.ready(TWO)
        assert isinstance(refused, Refuse)
        assert told == [ONE, TWO]
        assert house.closed == [TWO], "what was started is closed again"

    run(test)


def test_what_the_script_alone_does_not_show_is_checked_before_it_is_published_and_before_it_starts() -> None:
    def no_targets(definition: AgentDefinition) -> None:
        if definition.targets:
            raise ConfigError("targets.x", "+19005550100", "another target")

    premium = text(more='[targets]\nx = "+12025550123"\n')

    async def test(house: House) -> None:
        definition, problems = await house.roster.read(premium)
        assert definition is None
        assert [str(each) for each in problems] == ["line 1: error: targets.x: is '+19005550100': another target"]
        definition, problems = await house.roster.read(text())
        assert definition is not None
        assert (definition.name, problems) == ("Reception", [])
        refused = await house.roster.ready("default/premium@1")
        assert isinstance(refused, Refuse)
        assert refused.code == "agent_broken"

    run(test, Desk(premium_1=premium), checks=(no_targets,))


def test_it_looks_after_them_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(house: House) -> None:
        house.roster.start()
        house.roster.want([ONE])
        while house.roster.agent(ONE) is None:
            await asyncio.sleep(0.001)

    run(test)


def test_without_a_desk_there_is_nobody_else() -> None:
    async def test(house: House) -> None:
        refused = await house.roster.ready(ONE)
        assert isinstance(refused, Refuse)
        assert refused.code == "unknown_agent"
        assert list(house.roster.agents) == ["/first.toml"]

    run(test, NoVersions())


@pytest.mark.parametrize(
    "key", ["reception@1", "default/Reception@1", "default/reception@0", "default/reception", "a/b/c@1", "a/b@1@2", ""]
)
def test_what_is_no_name_of_a_version_is_none(key: str) -> None:
    assert AgentVersion.read(key) is None
    assert ruled_as(key) == key


def test_a_version_is_ruled_as_its_agent() -> None:
    version = AgentVersion.read(ONE)
    assert version == AgentVersion(DEFAULT_TENANT, "reception", 1)
    assert (str(version), ruled_as(ONE), ruled_as("Clinic @ Elm")) == (ONE, "default/reception", "Clinic @ Elm")
