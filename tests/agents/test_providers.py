import asyncio
from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import Any, cast

import pytest

from trunkline.agents import providers
from trunkline.agents.definition import AgentDefinition, Failover, ProviderChoice
from trunkline.agents.providers import Minds, Services, build, load
from trunkline.errors import ConfigError, ProviderError
from trunkline.testing.clock import ManualClock
from trunkline.testing.standin import StandinLlm, StandinStt, StandinTts

DOWN = ProviderError("voice", "unavailable", retryable=True)


class Provider:
    name = "test"

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
    line, _, names = str(wrong.value).partition(": one of ")
    assert line == "stt.provider = 'deepgramm'"
    assert {"deepgram", "pocketsphinx", "standin"} <= set(names.split(", "))


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


# --- several of a kind ----------------------------------------------------------------------------------------------


class Named(Provider):
    def __init__(self, name: str, *, fails_at: str = "") -> None:
        super().__init__(fails_at=fails_at)
        self.name = name


def several(*voices: Named) -> Minds:
    return Minds(cast(Any, Named("e")), cast(Any, Named("m")), cast(Any, voices[0]), {"tts": voices[1:]})


def test_each_provider_has_a_key_of_its_own() -> None:
    assert list(several(Named("v"), Named("w"), Named("v"), Named("v")).named("tts")) == [
        "tts.v",
        "tts.w",
        "tts.v-2",
        "tts.v-3",
    ]


def test_a_spare_that_cannot_start_is_asked_last_and_stops_nobody() -> None:
    made = several(Named("v"), Named("w", fails_at="start"), Named("x"))
    asyncio.run(made.start())
    assert made.health.order(list(made.named("tts")), 1.0) == ["tts.v", "tts.x", "tts.w"]
    assert made.best("tts", 1.0).name == "v"


def test_the_preferred_one_may_be_the_one_that_cannot_start() -> None:
    made = several(Named("v", fails_at="start"), Named("w"))
    asyncio.run(made.start())
    assert made.best("tts", 1.0).name == "w"


def test_with_none_of_a_kind_the_agent_does_not_start() -> None:
    made = several(Named("v", fails_at="start"), Named("w", fails_at="start"))
    with pytest.raises(ProviderError):
        asyncio.run(made.start())
    assert all(each.calls == ["start", "close"] for each in made.everyone())


def definition(**more: Any) -> AgentDefinition:
    standin = ProviderChoice("standin")
    return AgentDefinition("bench", standin, standin, standin, greeting="Hello.", **more)


def test_the_providers_of_a_list_are_built_in_its_order() -> None:
    choices = (ProviderChoice("standin", {"words": 3}), ProviderChoice("standin", {"words": 5}))
    made = build(definition(spares={"llm": choices}), Services(ManualClock()))
    assert [each.words for each in made.named("llm").values()] == [20, 3, 5]
    assert len(list(made.everyone())) == 5


INTENTS = {"intents": [{"name": "hours", "phrases": ["when do you open"], "reply": "At eight."}]}


def away(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in (StandinStt, StandinLlm, StandinTts):
        monkeypatch.setattr(each, "third_party", True)


def keys(made: Minds) -> list[str]:
    return [key for kind in providers.KINDS for key in made.named(kind)]


def test_behind_providers_elsewhere_stand_those_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    away(monkeypatch)
    made = build(definition(script=INTENTS), Services(ManualClock()))
    assert keys(made) == ["stt.standin", "stt.pocketsphinx", "llm.standin", "llm.script", "tts.standin", "tts.espeak"]


def test_also_one_of_this_machine_has_a_lifeboat_where_it_is_another_process() -> None:
    there = ProviderChoice("remote", {"targets": ["127.0.0.1:9"]})
    made = build(replace(definition(script=INTENTS), stt=there, llm=there, tts=there), Services(ManualClock()))
    assert not any(each.third_party for each in made.everyone())
    assert keys(made) == ["stt.remote", "stt.pocketsphinx", "llm.remote", "llm.script", "tts.remote", "tts.espeak"]


def test_a_script_without_intents_is_no_lifeboat_a_voice_is(monkeypatch: pytest.MonkeyPatch) -> None:
    away(monkeypatch)
    made = build(definition(), Services(ManualClock()))
    assert keys(made) == ["stt.standin", "llm.standin", "tts.standin", "tts.espeak"]


def test_local_providers_and_a_wish_have_no_lifeboat_another_language_has_its_voice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert len(keys(build(definition(script=INTENTS), Services(ManualClock())))) == 3
    away(monkeypatch)
    alone = definition(script=INTENTS, failover=Failover(lifeboat=False))
    assert len(keys(build(alone, Services(ManualClock())))) == 3
    german = build(definition(script=INTENTS, language="de-DE"), Services(ManualClock()))
    assert keys(german) == ["stt.standin", "llm.standin", "llm.script", "tts.standin", "tts.espeak"]
    voice: Any = german.named("tts")["tts.espeak"]
    assert voice.voice.name == "de"
    klingon = build(definition(script=INTENTS, language="tlh"), Services(ManualClock()))
    assert keys(klingon) == ["stt.standin", "llm.standin", "llm.script", "tts.standin"]


def test_what_stands_before_the_providers_is_told_their_keys() -> None:
    told: list[tuple[str, str]] = []

    def wrap(kind: str, key: str, provider: Any) -> Any:
        told.append((kind, key))
        return provider

    build(definition(spares={"tts": (ProviderChoice("standin"),)}), Services(ManualClock()), wrap)
    assert told == [
        ("stt", "stt.standin"),
        ("llm", "llm.standin"),
        ("tts", "tts.standin"),
        ("tts", "tts.standin-2"),
    ]


# --- who says whether the caller has finished ---


class Writes(StandinStt):
    """Whatever is said."""

    free_text = True


def detector(monkeypatch: pytest.MonkeyPatch, stt: type = Writes, **agent: Any) -> Any:
    entries = [
        EntryPoint(name, f"trunkline.{where}", "trunkline.providers")
        for name, where in (
            ("llm.standin", "testing.standin:StandinLlm"),
            ("tts.standin", "testing.standin:StandinTts"),
            ("turn.rules", "agents.endofturn:RuleTurnDetector"),
        )
    ]
    monkeypatch.setattr(providers, "entry_points", lambda group: [*entries, Made("stt.standin", stt)])
    choice = ProviderChoice("standin")
    return build(AgentDefinition("bench", choice, choice, choice, "Hello.", **agent), Services(ManualClock())).detector


class Made:
    def __init__(self, name: str, made: type) -> None:
        self.name, self.made = name, made

    def load(self) -> type:
        return self.made


def test_the_rules_are_asked_where_they_know_the_language_and_the_recogniser_has_no_grammar(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert detector(monkeypatch).name == "rules"
    assert detector(monkeypatch, StandinStt) is None
    assert detector(monkeypatch, language="de-DE") is None
    assert detector(monkeypatch, language="de-DE", turn_detector=ProviderChoice("rules")).name == "rules"
    assert detector(monkeypatch, turn_detector=ProviderChoice("none")) is None
    with pytest.raises(ConfigError, match=r"turn\.provider = 'oracle'.*rules"):
        detector(monkeypatch, turn_detector=ProviderChoice("oracle"))
    with pytest.raises(ConfigError, match="threshold"):
        detector(monkeypatch, turn_detector=ProviderChoice("rules", {"threshold": 1}))


def test_without_its_turn_detector_an_agent_starts_and_silence_tells() -> None:
    ears, mind, voice, oracle = Provider(), Provider(), Provider(), Provider(fails_at="start")
    made = Minds(cast(Any, ears), cast(Any, mind), cast(Any, voice), detector=cast(Any, oracle))
    asyncio.run(made.start())
    assert made.health.of("turn.test").state == "open"
    assert list(made.everyone()) == [ears, mind, voice, oracle]
    asyncio.run(made.close())
    assert oracle.calls == ["start", "close"]


# --- several languages ----------------------------------------------------------------------------------------------


def spanish(**kind: Any) -> AgentDefinition:
    return replace(definition(**kind), language="es-ES")


def test_a_further_language_has_its_voice_and_shares_ears_and_mind() -> None:
    both = definition(languages={"es-ES": spanish()})
    made = build(both, Services(ManualClock()))
    other = made.in_language("es-ES")
    assert (other.stt, other.llm) == (made.stt, made.llm)
    assert other.tts is not made.tts
    assert keys(other) == ["stt.standin", "llm.standin", "tts.standin.es-ES"]
    assert other.health is made.health
    assert made.in_language("en-US") is made
    assert len(list(made.everyone())) == 4


def test_what_a_language_has_of_its_own_is_built_for_it() -> None:
    ears, mind = ProviderChoice("standin", {"final_ms": 7}), ProviderChoice("standin", {"words": 7})
    both = definition(languages={"es-ES": replace(spanish(), stt=ears, spares={"llm": (mind,)})})
    made = build(both, Services(ManualClock()))
    other = made.in_language("es-ES")
    assert keys(other) == ["stt.standin.es-ES", "llm.standin", "llm.standin.es-ES", "tts.standin.es-ES"]
    assert other.named("llm")["llm.standin"] is made.llm
    assert keys(made) == ["stt.standin", "llm.standin", "tts.standin"]


def test_lifeboats_are_those_that_serve_the_language(monkeypatch: pytest.MonkeyPatch) -> None:
    away(monkeypatch)
    made = build(definition(script=INTENTS, languages={"es-ES": spanish(script=INTENTS)}), Services(ManualClock()))
    other = made.in_language("es-ES")
    assert keys(other) == ["stt.standin", "llm.standin", "tts.standin.es-ES", "tts.espeak.es-ES"]
    voice: Any = other.named("tts")["tts.espeak.es-ES"]
    assert voice.voice.name == "es"
    own = {"intents": [{"name": "hours", "phrases": ["horario"], "reply": "A las ocho."}]}
    made = build(definition(script=INTENTS, languages={"es-ES": spanish(script=own)}), Services(ManualClock()))
    other = made.in_language("es-ES")
    assert [key for key in keys(other) if key.startswith("llm")] == ["llm.standin", "llm.script"]
    assert other.named("llm")["llm.script"] is made.named("llm")["llm.script"]


def test_what_stands_before_a_provider_stands_before_it_in_each_language() -> None:
    told: list[str] = []

    def wrap(kind: str, key: str, provider: Any) -> Any:
        told.append(key)
        return provider

    build(definition(languages={"es-ES": spanish()}), Services(ManualClock()), wrap)
    assert told == ["stt.standin", "llm.standin", "tts.standin", "tts.standin.es-ES"]


def test_each_provider_is_started_and_closed_once_and_a_language_without_a_voice_is_none() -> None:
    class Counted(StandinTts):
        fails = False

        async def start(self) -> None:
            counts.append("start")
            if self.fails:
                raise ProviderError("voice", "auth", retryable=False)

        async def close(self) -> None:
            counts.append("close")

    async def run() -> None:
        made = build(definition(languages={"es-ES": spanish()}), Services(ManualClock()))
        voices = [Counted(definition(), {}, Services(ManualClock())) for _ in range(2)]
        other = made.in_language("es-ES")
        other = replace(other, tts=voices[1], keyed={**other.keyed, "tts": {"tts.v.es-ES": voices[1]}})
        made = replace(made, tts=voices[0], languages={"es-ES": other})
        await made.start()
        await made.close()
        assert counts == ["start", "start", "close", "close"]
        voices[1].fails = True
        with pytest.raises(ProviderError):
            await made.start()

    counts: list[str] = []
    asyncio.run(run())
