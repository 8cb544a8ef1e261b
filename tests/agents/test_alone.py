"""The same agent with nobody but this machine."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from trunkline.agents import alone as a
from trunkline.agents.alone import build_alone, menus
from trunkline.agents.cascade import Cascade
from trunkline.agents.definition import AgentDefinition, Failover, ProviderChoice
from trunkline.agents.here import AgentHere
from trunkline.agents.languages import primary
from trunkline.agents.local.pool import SpeechPool
from trunkline.agents.providers import Minds, Services
from trunkline.agents.realtime.attendant import RealtimeAgent
from trunkline.agents.script.model import Script
from trunkline.agents.tools.http import HttpTools
from trunkline.clock import SYSTEM_CLOCK
from trunkline.errors import ConfigError, MissingExtra
from trunkline.ports import CallFacts, Message, TextDelta, ToolCall
from trunkline.testing.clock import ManualClock
from trunkline.types import DEFAULT_TENANT, MULAW_8K, CallId

CLOUD = ProviderChoice("cloud")
CLOCK = ManualClock()
SCRIPT = {"intents": [{"name": "hours", "phrases": ["when are you open"], "key": "1", "reply": "From nine."}]}
AGENT = AgentDefinition(
    "A", CLOUD, CLOUD, CLOUD, greeting="Hello.", targets={"front_desk": "+14155550100", "other": "+14155550101"}
)
CALL = CallFacts(CallId("c"), DEFAULT_TENANT, "inbound", None, None, CLOCK.wall())


def provider(name: str, third_party: bool = True, **more: Any) -> Any:
    return SimpleNamespace(name=name, third_party=third_party, **more)


def services() -> Services:
    return Services(CLOCK, speech_pool=SpeechPool(1))


def minds(*, stt: Any = None, llm: Any = None, tts: Any = None, spares: Any = None) -> Minds:
    return Minds(stt or provider("cloud"), llm or provider("cloud"), tts or provider("cloud"), spares or {})


def names(built: a.Alone, kind: Any, tag: str | None = None) -> list[str]:
    of = built.minds if tag is None else built.minds.in_language(tag)
    return [each.name for each in of.named(kind).values()]


def answers(built: a.Alone, *said: Message) -> list[Any]:
    async def ask() -> list[Any]:
        return [event async for event in built.minds.llm.open(CALL).reply(said)]

    return asyncio.run(ask())


def test_the_files_script_is_followed_by_this_machines_ears_and_voice() -> None:
    built = build_alone(replace(AGENT, script=SCRIPT), minds(), services())
    assert [names(built, kind) for kind in ("stt", "llm", "tts")] == [["pocketsphinx"], ["script"], ["espeak"]]
    assert not any(each.third_party for each in built.minds.everyone())
    assert len(built.own) == 3
    assert not built.menus
    assert built.definition.greeting == "Hello."
    assert (
        "".join(
            e.text for e in answers(built, Message("caller", "when are you open")) if isinstance(e, TextDelta)
        ).strip()
        == "From nine."
    )


def test_local_spares_stay_as_they_are_and_are_nobody_elses_to_start() -> None:
    voice, ears = provider("ours", third_party=False), provider("sherpa", third_party=False)
    given = minds(stt=provider("cloud"), tts=provider("cloud"), spares={"stt": (ears,), "tts": (voice,)})
    built = build_alone(replace(AGENT, script=SCRIPT), given, services())
    assert built.minds.stt is ears
    assert built.minds.tts is voice
    assert [each.name for each in built.own] == ["script"]
    assert built.minds.health is given.health


def test_a_model_of_this_house_answers_where_somebody_here_writes_everything_down() -> None:
    ears, model = provider("sherpa", third_party=False), provider("ours", third_party=False)
    given = minds(llm=provider("cloud"), stt=ears, spares={"llm": (model,)})
    built = build_alone(AGENT, given, services())
    assert names(built, "llm") == ["ours"]
    assert not built.menus
    with_script = build_alone(replace(AGENT, script=SCRIPT), given, services())
    assert names(with_script, "llm") == ["ours", "script"]
    without_ears = build_alone(AGENT, minds(spares={"llm": (model,)}), services())
    assert without_ears.menus == {"en-US"}  # nobody would tell it what was said


def test_an_agent_without_a_script_offers_a_person_or_a_call_back() -> None:
    built = build_alone(AGENT, minds(), services())
    assert built.menus == {"en-US"}
    assert built.definition.greeting.endswith(
        "To speak to front desk, press 1. To be called back at the number you are calling from, press 2."
    )
    for said in (Message("caller", "1", keyed=True), Message("caller", "can i speak to someone")):
        spoken, call = answers(built, said)
        assert isinstance(spoken, TextDelta)
        assert isinstance(call, ToolCall)
        assert (call.name, call.arguments) == ("transfer", {"target": "front_desk"})
    for said in (Message("caller", "2", keyed=True), Message("caller", "please call me back")):
        [call] = answers(built, said)
        assert Script.of(built.definition).tools[call.name].type == "call_back"


def test_without_targets_there_is_the_call_back_alone() -> None:
    built = build_alone(replace(AGENT, targets={}), minds(), services())
    assert "press 1" not in built.definition.greeting
    assert [i.name for i in Script.of(built.definition).intents][:1] == ["call_back"]


def test_each_language_has_its_own_menu_voice_and_keys() -> None:
    spanish = replace(AGENT, language="es-ES", greeting="Hola.")
    turkish = replace(AGENT, language="tr", greeting="Merhaba.")
    agent = replace(AGENT, script=SCRIPT, languages={"es-ES": spanish, "tr": turkish})
    given = minds()
    given = replace(given, languages={"es-ES": minds(), "tr": minds()})
    built = build_alone(agent, given, services())
    assert built.menus == {"es-ES", "tr"}
    assert built.definition.greeting == "Hello."
    assert "pulse 1" in built.definition.in_language("es-ES").greeting
    assert "press 1" in built.definition.in_language("tr").greeting  # in English: by an English voice
    voices = {tag: cast(Any, built.minds.in_language(tag).tts).voice.name for tag in agent.tags}
    assert [primary(voices[tag].replace("_", "-")) for tag in agent.tags] == ["en", "es", "en"]
    ears = cast(Any, built.minds.in_language("es-ES").stt)
    assert "alguien" not in ears.grammars["main"].jsgf  # nobody here knows how that sounds
    assert built.minds.in_language("es-ES").llm is built.minds.llm


def test_a_script_that_nobody_here_can_hear_and_that_has_no_keys_gives_way_to_the_menu() -> None:
    deaf = {"intents": [{"name": "hours", "phrases": ["cuándo abren"], "reply": "A las nueve."}]}
    spanish = replace(AGENT, language="es-ES", script=deaf)
    assert build_alone(spanish, minds(), services()).menus == {"es-ES"}
    keyed = {"intents": [{**deaf["intents"][0], "key": "1"}]}
    assert not build_alone(replace(spanish, script=keyed), minds(), services()).menus


def test_no_message_is_taken_that_would_not_be_kept() -> None:
    agent = replace(AGENT, script=SCRIPT, failover=Failover(last_resort="message"))
    assert build_alone(agent, minds(), services()).definition.failover.last_resort == "hang_up"


def test_what_this_machine_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(kind: str, choice: ProviderChoice) -> Any:
        raise MissingExtra("espeakng-loader", "local")

    monkeypatch.setattr(a, "load", missing)
    with pytest.raises(a.LACKING, match="local"):
        build_alone(AGENT, minds(), services())
    assert ConfigError in a.LACKING


def test_every_menu_has_all_its_lines() -> None:
    wanted = set(menus()["en"])
    assert all(set(lines) == wanted for lines in menus().values())


def test_an_agent_of_this_machine_is_alone_as_it_is_and_another_once_that_is_there() -> None:
    async def nothing(*_: Any) -> str:
        return ""

    tools = cast(Any, nothing)

    here = minds(**{k: provider("x", third_party=False) for k in ("stt", "llm", "tts")})
    ours = Cascade(AGENT, here, tools)
    assert ours.alone() is ours
    cloud = Cascade(AGENT, minds(), tools)
    assert cloud.alone() is None
    cloud.by_itself = ours
    assert cloud.alone() is ours
    realtime = RealtimeAgent(cloud, provider("model"), cast(Any, None))
    assert realtime.alone() is ours
    whole = RealtimeAgent(ours, provider("model", third_party=False), cast(Any, None))
    assert whole.alone() is whole


def test_it_is_started_with_its_agent_once_a_process_and_speaks() -> None:
    async def main() -> None:
        pool = SpeechPool(1)
        given = Services(CLOCK, keys={"openai": "k"}, speech_pool=pool)
        cloud = ProviderChoice("openai", {"model": "m", "base_url": "http://127.0.0.1:9/v1", "third_party": True})
        standin = ProviderChoice("standin")
        agent = replace(AGENT, stt=standin, llm=cloud, tts=standin)
        http = HttpTools({}, allow_private=False)
        without_rules = AgentHere(agent, given, http, lambda: True)
        here = AgentHere(agent, given, http, lambda: True, may_be_alone=True)
        assert here.agent.alone() is None
        async with here.started(SYSTEM_CLOCK):
            found = here.agent.alone()
            assert found is not None
            assert found is here.agent.alone()
            assert found.alone() is found
            assert found.greets_again
            assert here.alone_lacks == ""
            assert without_rules.agent.alone() is None
            assert [each async for each in found.minds.tts.speak(found.definition.greeting, MULAW_8K)]
        await http.close()

    asyncio.run(main())
