import asyncio
from importlib.metadata import EntryPoint
from typing import Any, cast

import pytest

from trunkline.agents import providers
from trunkline.agents.definition import AgentDefinition, ProviderChoice
from trunkline.agents.providers import Minds, Services, build, load
from trunkline.errors import ConfigError, ProviderError
from trunkline.testing.clock import ManualClock
from trunkline.testing.standin import StandinLlm, StandinStt, StandinTts

DOWN = ProviderError("voice", "unavailable", retryable=True)


class Provider:
    def __init__(self, *, fails_at: str = "") -> None:
        self.fails_at, self.calls = fails_at, list[str]()

    async def start(self) -> None:
        self._do("start")

    async def close(self) -> None:
        self._do("close")

    def _do(self, what: str) -> None:
        self.calls.append(what)
        if what in self.fails_at:
            raise DOWN


def minds(*made: Provider) -> Minds:
    return Minds(*cast(Any, made))


def test_an_agents_providers_are_found_by_name_and_get_their_options() -> None:
    definition = AgentDefinition(
        "bench",
        ProviderChoice("standin"),
        ProviderChoice("standin", {"words": 7}),
        ProviderChoice("standin"),
        greeting="Hello.",
    )
    made = build(definition, Services(ManualClock()))
    assert isinstance(made.stt, StandinStt)
    assert isinstance(made.llm, StandinLlm)
    assert isinstance(made.tts, StandinTts)
    assert made.llm.words == 7


def test_an_unknown_provider_is_one_line_that_names_those_there_are() -> None:
    with pytest.raises(ConfigError) as wrong:
        load("stt", ProviderChoice("deepgramm"))
    assert str(wrong.value) == "stt.provider = 'deepgramm': one of deepgram, pocketsphinx, remote, standin"


def test_a_provider_of_another_kind_is_unknown() -> None:
    with pytest.raises(ConfigError, match="espeak"):
        load("tts", ProviderChoice("script"))


def test_without_any_provider_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "entry_points", lambda group: ())
    with pytest.raises(ConfigError, match="no provider is installed"):
        load("llm", ProviderChoice("script"))


def test_only_the_provider_that_is_named_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        EntryPoint("stt.broken", "no.such.module:Thing", "trunkline.providers"),
        EntryPoint("stt.good", "trunkline.testing.standin:StandinStt", "trunkline.providers"),
    ]
    monkeypatch.setattr(providers, "entry_points", lambda group: entries)
    assert load("stt", ProviderChoice("good")) is StandinStt
    with pytest.raises(ImportError):
        load("stt", ProviderChoice("broken"))


def test_a_start_that_fails_half_way_closes_what_was_started() -> None:
    made = Provider(), Provider(fails_at="start"), Provider()
    with pytest.raises(ProviderError):
        asyncio.run(minds(*made).start())
    assert [each.calls for each in made] == [["start", "close"], ["start", "close"], []]


def test_a_start_that_fails_is_told_though_closing_fails_too() -> None:
    made = Provider(fails_at="close"), Provider(fails_at="start"), Provider()
    with pytest.raises(ProviderError):
        asyncio.run(minds(*made).start())
    assert made[1].calls == ["start", "close"]


def test_closing_goes_on_after_one_that_fails() -> None:
    made = Provider(), Provider(fails_at="close"), Provider()
    with pytest.raises(ProviderError):
        asyncio.run(minds(*made).close())
    assert [each.calls for each in made] == [["close"]] * 3
