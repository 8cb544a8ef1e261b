"""An agent of this process whose providers are away as it starts."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest

from trunkline.agents import here
from trunkline.agents.definition import AgentDefinition, ProviderChoice
from trunkline.agents.health import Breaker
from trunkline.agents.here import AgentHere
from trunkline.agents.providers import Minds, Services
from trunkline.errors import ConfigError, ProviderError
from trunkline.ports import TtsAudio
from trunkline.testing.clock import ManualClock
from trunkline.testing.standin import StandinStt
from trunkline.types import Format

STANDIN = ProviderChoice("standin")
AGENT = AgentDefinition("A", STANDIN, STANDIN, STANDIN, greeting="Hello.")
CLOCK = ManualClock()


class Mind:
    """It starts once it is `there`."""

    third_party = False

    def __init__(self, name: str = "far", error: Exception | None = None) -> None:
        self.name, self.there = name, False
        self.error = error or ProviderError(name, "unavailable", retryable=True)
        self.starts = self.closes = 0

    async def start(self) -> None:
        self.starts += 1
        if not self.there:
            raise self.error

    async def close(self) -> None:
        self.closes += 1


class Voice:
    name = "voice"
    third_party = word_times = False

    async def start(self) -> None: ...

    async def speak(self, text: str, format: Format) -> AsyncGenerator[TtsAudio, None]:
        yield TtsAudio(b"\x01" * 160)

    async def close(self) -> None: ...


def agent(monkeypatch: pytest.MonkeyPatch, mind: Any, summariser: Any = None) -> AgentHere:
    services = Services(CLOCK)
    minds = Minds(StandinStt(AGENT, {}, services), mind, Voice())
    monkeypatch.setattr(here, "build", lambda *given: minds)
    monkeypatch.setattr(here, "build_summariser", lambda *given: summariser)
    monkeypatch.setattr(here, "START_AGAIN_S", (0.0,))
    return AgentHere(AGENT, services, cast(Any, None), lambda: True)


def started(made: AgentHere, test: Callable[[], Awaitable[None]], **how: bool) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(made.started(CLOCK, **how))
            await test()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a task outlives its agent"

    asyncio.run(main())


async def rounds(enough: Callable[[], bool]) -> None:
    for _ in range(200):
        if enough():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to that")


def breaker(made: AgentHere, key: str) -> Breaker:
    return made.minds.health.breakers[key]


def test_a_first_agent_that_is_away_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    mind = Mind()

    async def nothing() -> None: ...

    with pytest.raises(ProviderError):
        started(agent(monkeypatch, mind), nothing)
    assert mind.closes


def test_another_agent_that_is_away_is_tried_again_and_ready_once_it_is_there(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mind = Mind()
    made = agent(monkeypatch, mind)

    async def test() -> None:
        assert not made.agent.ready()
        assert "agent A cannot be reached: far: unavailable" in caplog.text
        assert breaker(made, "llm.far").state == "open"
        await rounds(lambda: mind.starts > 3)
        assert not made.agent.ready()
        mind.there = True
        await rounds(made.agent.ready)
        assert breaker(made, "llm.far").state == "closed", "it is asked like any other from now on"
        await rounds(lambda: bool(made.minds.lines))

    started(made, test, needed=False)
    assert mind.closes


def test_what_is_wrong_in_its_file_is_an_error_also_of_another_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing() -> None: ...

    with pytest.raises(ConfigError):
        started(agent(monkeypatch, Mind(error=ConfigError("speaker", 9, "3"))), nothing, needed=False)


def test_a_mistake_that_shows_only_when_it_is_there_ends_the_trying(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mind = Mind()
    made = agent(monkeypatch, mind)

    async def test() -> None:
        mind.error = ConfigError("speaker", 9, "3")
        await rounds(lambda: "speaker = 9" in caplog.text)
        tried = mind.starts
        for _ in range(20):
            await asyncio.sleep(0)
        assert mind.starts == tried
        assert not made.agent.ready()

    started(made, test, needed=False)


def test_a_summariser_that_is_away_keeps_nobody_from_starting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mind, summariser = Mind(), Mind("sums")
    mind.there = True
    made = agent(monkeypatch, mind, summariser)

    async def test() -> None:
        assert made.agent.ready()
        assert "context.sums did not start: sums: unavailable" in caplog.text
        assert breaker(made, "context.sums").state == "open"
        assert summariser.closes == 0, "it may be asked all the same"
        summariser.there = True
        await rounds(lambda: breaker(made, "context.sums").state == "closed")

    started(made, test)
    assert summariser.closes == 1
