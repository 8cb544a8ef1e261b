"""Which language a call is held in, as a table; and what a file may say of languages."""

import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.agents.definition import AgentDefinition, ProviderChoice
from trunkline.agents.languages import Spoken, follow, is_tag, lookup, of_conversation, telling_words
from trunkline.agents.llm import told
from trunkline.agents.script import Problem, check_text
from trunkline.agents.script.check import read_text
from trunkline.agents.script.model import Script
from trunkline.agents.tools import tool_specs
from trunkline.agents.tts.deepgram import VOICES, DeepgramTts
from trunkline.agents.tts.elevenlabs import ElevenLabs
from trunkline.agents.tts.espeak import Espeak
from trunkline.ports import Message

TAGS = ("en-US", "es-ES", "de-DE")
DOCS = Path(__file__).parents[2] / "docs" / "agent-script.md"


# --- tags -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "tags", "found"),
    [
        ("es-ES", TAGS, "es-ES"),
        ("ES-es", TAGS, "es-ES"),
        ("es", TAGS, "es-ES"),  # recognisers name the language alone
        ("es-MX", TAGS, "es-ES"),
        ("es_MX", TAGS, "es-ES"),
        ("en", ("en-GB", "en-US"), "en-GB"),
        ("en-US", ("en-GB", "en-US"), "en-US"),
        ("en-AU", ("en-GB", "en"), "en"),  # less behind it, before another accent
        ("zh-Hant-TW", ("zh-Hans", "zh-Hant"), "zh-Hant"),
        ("zh-Hant-u-co", ("zh-Hans", "zh-Hant"), "zh-Hant"),
        ("fr", TAGS, None),
        ("e", TAGS, None),
        ("multi", TAGS, None),
        ("", TAGS, None),
    ],
)
def test_a_tag_is_looked_up(wanted: str, tags: tuple[str, ...], found: str | None) -> None:
    assert lookup(wanted, tags) == found


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("es", True),
        ("es-ES", True),
        ("zh-Hant-TW", True),
        ("es-419", True),
        ("fil", True),
        ("xx", False),
        ("spanish", False),
        ("es_ES", False),
        ("es-", False),
        ("e", False),
        ("", False),
    ],
)
def test_a_tag_is_a_tag(text: str, right: bool) -> None:
    assert is_tag(text) is right


# --- following the caller -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Quiero pedir cita", 3),
        ("No.", 0),
        ("OK, OK!", 0),
        ("Sí, claro", 1),
        ("that's right", 2),
        ("4711", 0),
        ("", 0),
        ("予約したいのですが", 4),  # two characters each
        ("อยากนัดหมอ", 4),
        ("내일 예약하고 싶어요", 3),
    ],
)
def test_words_that_tell_a_language_are_counted(text: str, words: int) -> None:
    assert telling_words(text) == words


EN = Spoken("en-US")
ES = Spoken("es-ES")


@pytest.mark.parametrize(
    ("before", "text", "detected", "after"),
    [
        (EN, "quiero pedir una cita", "es", ES),
        (EN, "quiero pedir una cita", "es-MX", ES),
        (EN, "quiero pedir una cita", None, EN),  # mixed, or the recogniser does not tell
        (EN, "je voudrais un rendez-vous", "fr", EN),  # the agent does not speak it
        (EN, "buenos días", "es", Spoken("en-US", "es-ES")),  # short: perhaps
        (Spoken("en-US", "es-ES"), "una cita", "es", ES),  # twice: surely
        (Spoken("en-US", "es-ES"), "ja genau", "de", Spoken("en-US", "de-DE")),
        (Spoken("en-US", "es-ES"), "tomorrow", "en", EN),
        (Spoken("en-US", "es-ES"), "ok", "es", Spoken("en-US", "es-ES")),  # tells nothing either way
        (EN, "no", "es", EN),
        (EN, "no no no", "es", EN),
        (EN, "ok", "de", EN),
        (EN, "4 7 1 1", "de", EN),
        (ES, "i would like to go on in english", "en", EN),
        (ES, "no", "en", ES),
    ],
)
def test_the_callers_language_is_followed(before: Spoken, text: str, detected: str | None, after: Spoken) -> None:
    assert follow(before, TAGS, text, detected) == after


def test_an_accent_is_no_other_language() -> None:
    british = Spoken("en-GB")
    assert follow(british, ("en-US", "en-GB"), "can you tell me when you open", "en") == british


def test_a_conversation_knows_its_language() -> None:
    said = [Message("agent", "Hello."), Message("caller", "hola, quiero una cita", language="es-ES")]
    assert of_conversation(said, TAGS) == "es-ES"
    assert of_conversation([*said, Message("agent", "Claro.")], TAGS) == "es-ES"
    assert of_conversation([*said, Message("tool", "{}", language="de-DE")], TAGS) == "de-DE"
    assert of_conversation(said[:1], TAGS) == "en-US"
    assert of_conversation(said, ("en-GB", "es")) == "es", "an agent that goes on with it has tags of its own"
    assert of_conversation(said, ("en-GB", "fr")) == "en-GB"


@given(st.text(max_size=12), st.lists(st.sampled_from(["en", "en-GB", "es-ES", "zh-Hant", "pt-BR"]), max_size=4))
def test_only_a_tag_of_the_agents_is_found(wanted: str, tags: list[str]) -> None:
    assert lookup(wanted, tags) in (*tags, None)
    for tag in tags:
        assert lookup(f"{tag}-x-{wanted}", tags) is not None


@given(st.lists(st.tuples(st.text(max_size=30), st.sampled_from(["en", "es", "de", "fr", None])), max_size=12))
def test_a_call_is_always_held_in_one_of_its_languages(said: list[tuple[str, str | None]]) -> None:
    spoken = EN
    for text, detected in said:
        before, spoken = spoken, follow(spoken, TAGS, text, detected)
        assert spoken.language in TAGS
        if spoken.language != before.language:
            assert detected is not None
            assert spoken.language.startswith(detected)
            assert spoken.doubt is None


# --- what a model is told -------------------------------------------------------------------------------------------

CHOICE = ProviderChoice("standin")
ENGLISH = AgentDefinition("Bakery", CHOICE, CHOICE, CHOICE, "Hello.")
BOTH = replace(ENGLISH, languages={"es-ES": replace(ENGLISH, language="es-ES", greeting="Hola.")})


def test_a_model_is_told_the_languages_and_the_callers() -> None:
    from datetime import UTC, datetime

    now = datetime(2026, 11, 27, tzinfo=UTC)
    said = [Message("caller", "hola", language="es-ES")]
    text = told.system(BOTH, Script.of(BOTH), "", now, said)
    assert "en-US, es-ES" in text
    assert "held in es-ES" in text
    assert "held in en-US" in told.system(BOTH, Script.of(BOTH), "", now, [])
    assert "held in" not in told.system(ENGLISH, Script.of(ENGLISH), "", now, said)


def test_the_tool_is_there_for_an_agent_of_several_only() -> None:
    (tool,) = [spec for spec in tool_specs(BOTH) if spec.name == "speak_language"]
    assert tool.parameters["properties"]["language"]["enum"] == ["en-US", "es-ES"]
    assert "speak_language" not in [spec.name for spec in tool_specs(ENGLISH)]


# --- the file -------------------------------------------------------------------------------------------------------

HEAD = 'name = "A"\ngreeting = "Hi."\nstt.provider = "standin"\nllm.provider = "standin"\ntts.provider = "standin"\n'
LINES = (
    'greeting = "Hola."\ngoodbye = "Adiós."\nno_input = ["¿Hola?"]\nfiller = ["Un momento."]\n'
    'apology = "Perdón."\nfailure = "Lo siento."\n'
)
SPANISH = "[languages.es-ES]\n" + LINES


def blocks() -> list[str]:
    return re.findall(r"```toml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


def problems(text: str) -> list[tuple[str, str]]:
    return [(p.key, p.message) for p in check_text(text)]


def only(text: str) -> Problem:
    found = check_text(text)
    assert len(found) == 1, found
    return found[0]


def definition(text: str) -> AgentDefinition:
    found, wrong = read_text(text)
    assert [p for p in wrong if p.severity == "error"] == []
    assert found is not None
    return found


def test_a_further_language_is_a_whole_agent() -> None:
    agent = definition(HEAD + SPANISH)
    assert agent.tags == agent.heard == ("en-US", "es-ES")
    spanish = agent.in_language("es-ES")
    assert (spanish.language, spanish.greeting, spanish.no_input) == ("es-ES", "Hola.", ("¿Hola?",))
    assert (spanish.name, spanish.stt, spanish.turns) == (agent.name, agent.stt, agent.turns)
    assert agent.in_language("fr") is agent
    assert agent.greeting == "Hi."


def test_lines_that_are_missing_are_named_one_by_one() -> None:
    found = problems(HEAD + '[languages.es-ES]\ngreeting = "Hola."\n')
    assert [message.partition(" ")[0] for _, message in found] == [
        "goodbye", "no_input", "filler", "apology", "failure",
    ]  # fmt: skip
    assert {key for key, _ in found} == {"languages.es-ES"}
    assert problems(HEAD + "[languages.en-GB]\n") == [], "another accent of the same lines"
    found = problems(HEAD + 'failover.last_resort = "message"\n' + SPANISH)
    assert [message for _, message in found] == ["failover.message is missing: the file has it in en-US only"]


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("[languages.spanish]\n" + LINES, "languages.spanish", "'spanish' is no tag"),
        ("[languages.en-US]\n" + LINES, "languages.en-US", "en-US is there already"),
        ("[languages]\nes-ES = 1\n", "languages.es-ES", "must be a table"),
        (SPANISH + 'gretting = "x"\n', "languages.es-ES.gretting", "unknown key; did you mean greeting?"),
        (SPANISH + 'tts.provider = "nobody"\n', "languages.es-ES.tts.provider", "there is no tts provider"),
        (SPANISH + "greeting_interruptible = true\n", "languages.es-ES.greeting_interruptible", "unknown key"),
        ('[[intents]]\nname = "a"\nkey = "9"\nlanguage = "fr"\n' + SPANISH, "intents[1].language", "there is no 'fr'"),
        (
            '[[intents]]\nname = "a"\nkey = "9"\nlanguage = "es-ES"\ntool = "hang_up"\n' + SPANISH,
            "intents[1].language",
            "choose one of",
        ),
        (
            SPANISH + '[[languages.es-ES.intents]]\nname = "a"\nkey = "9"\nreply = "{nobody}"\n',
            "languages.es-ES.intents[1].reply",
            "there is no variable {nobody}",
        ),
    ],
)
def test_a_mistake_is_one_line_at_its_place(text: str, key: str, message: str) -> None:
    problem = only(HEAD + text)
    assert problem.key == key
    assert message in problem.message
    assert problem.severity == "error"


def test_a_language_that_is_none_is_refused() -> None:
    assert only('language = "english"\n' + HEAD).key == "language"


# --- voices ---------------------------------------------------------------------------------------------------------


def voiced(file: str, spanish: str = "", tag: str = "es-ES") -> AgentDefinition:
    head = HEAD.replace('tts.provider = "standin"\n', "")
    return definition(f"{head}{file}[languages.{tag}]\n{LINES}{spanish}")


def voice_problem(file: str, spanish: str = "", tag: str = "es-ES") -> Problem:
    head = HEAD.replace('tts.provider = "standin"\n', "")
    return only(f"{head}{file}[languages.{tag}]\n{LINES}{spanish}")


AURA = '[tts]\nprovider = "deepgram"\n'
ELEVEN = '[tts]\nprovider = "elevenlabs"\nvoice = "v1"\n'
ESPEAK = '[tts]\nprovider = "espeak"\nvoice = "en-gb+f3"\npitch = 60\n'


def test_a_voice_is_fitted_to_the_language() -> None:
    tts = voiced(AURA).in_language("es-ES").tts
    assert tts == ProviderChoice("deepgram", {"model": "aura-2-celeste-es"})
    tts = voiced(ELEVEN).in_language("es-ES").tts
    assert tts == ProviderChoice("elevenlabs", {"voice": "v1", "language": "es"})
    tts = voiced(ESPEAK).in_language("es-ES").tts
    assert tts == ProviderChoice("espeak", {"voice": "es+f3", "pitch": 60})
    assert voiced("").in_language("es-ES").tts == ProviderChoice("espeak", {"voice": "es"})


def test_a_table_without_provider_changes_only_what_it_says() -> None:
    tts = voiced(ELEVEN, 'tts.voice = "v2"\n').in_language("es-ES").tts
    assert tts == ProviderChoice("elevenlabs", {"voice": "v2", "language": "es"})
    tts = voiced(ELEVEN, 'tts.model = "eleven_multilingual_v2"\n').in_language("es-ES").tts
    assert tts.options == {"voice": "v1", "model": "eleven_multilingual_v2"}, "which cannot be told"
    tts = voiced(ELEVEN + 'language = "en"\n', 'tts.voice = "v2"\n').in_language("es-ES").tts
    assert tts.options == {"voice": "v2", "language": "es"}
    tts = voiced(ESPEAK, "tts.pitch = 70\n").in_language("es-ES").tts
    assert tts.options == {"voice": "es+f3", "pitch": 70}
    ranked = '[[tts]]\nprovider = "elevenlabs"\nvoice = "v1"\n[[tts]]\nprovider = "deepgram"\n'
    spanish = voiced(ranked, 'tts.voice = "v2"\n').in_language("es-ES")
    assert [choice.provider for choice in spanish.choices("tts")] == ["elevenlabs", "deepgram"]
    assert spanish.choices("tts")[1].options == {"model": "aura-2-celeste-es"}


def test_a_table_with_a_provider_or_a_list_stands_in_place_of_the_files() -> None:
    spanish = voiced(ELEVEN, 'tts.provider = "deepgram"\n').in_language("es-ES")
    assert spanish.choices("tts") == (ProviderChoice("deepgram", {"model": "aura-2-celeste-es"}),)
    several = '[[languages.es-ES.tts]]\nprovider = "deepgram"\nmodel = "aura-2-nestor-es"\n'
    spanish = voiced(ELEVEN, several + '[[languages.es-ES.tts]]\nprovider = "espeak"\n').in_language("es-ES")
    assert [choice.options for choice in spanish.choices("tts")] == [{"model": "aura-2-nestor-es"}, {"voice": "es"}]


def test_a_voice_that_cannot_speak_it_is_not_asked() -> None:
    ranked = '[[tts]]\nprovider = "elevenlabs"\nvoice = "v1"\n[[tts]]\nprovider = "deepgram"\n'
    polish = voiced(ranked, tag="pl-PL").in_language("pl-PL")
    assert [choice.provider for choice in polish.choices("tts")] == ["elevenlabs"]


def test_without_any_voice_the_file_is_refused() -> None:
    problem = voice_problem(AURA, tag="pl-PL")
    assert (problem.key, problem.severity) == ("languages.pl-PL", "error")
    assert problem.message == "no voice of [tts] speaks pl-PL: name one in [languages.pl-PL.tts]"


@pytest.mark.parametrize(
    ("file", "spanish", "key", "message"),
    [
        (AURA, 'tts.model = "aura-2-thalia-en"\n', "tts.model", "aura-2-thalia-en does not speak es-ES"),
        (ESPEAK, 'tts.voice = "de"\n', "tts.voice", "de does not speak es-ES"),
        (ELEVEN, 'tts.model = "eleven_flash_v2"\n', "tts", "eleven_flash_v2 does not speak es-ES"),
        (ELEVEN, "tts.speed = 9.0\n", "tts.speed", "is 9.0"),
        (ELEVEN, 'tts.language = "fr"\n', "tts.language", "fr does not speak es-ES"),
    ],
)
def test_a_voice_that_is_wrong_is_one_line_at_its_place(file: str, spanish: str, key: str, message: str) -> None:
    problem = voice_problem(file, spanish)
    assert (problem.key, problem.severity) == (f"languages.es-ES.{key}", "error")
    assert message in problem.message


@pytest.mark.parametrize(
    ("voice", "options", "tag", "fitted"),
    [
        (Espeak, {}, "fr-FR", {"voice": "fr-fr"}),
        (Espeak, {"voice": "fr"}, "fr-CA", {"voice": "fr"}),
        (Espeak, {}, "tlh", None),
        (DeepgramTts, {}, "en-GB", {}),
        (DeepgramTts, {"model": "aura-2-hector-fr"}, "de", {"model": "aura-2-viktoria-de"}),
        (DeepgramTts, {"model": "our-own"}, "pl", {"model": "our-own"}),
        (ElevenLabs, {"model": "eleven_multilingual_v2"}, "es", {"model": "eleven_multilingual_v2"}),
        (ElevenLabs, {"model": "eleven_multilingual_v2"}, "vi", None),
        (ElevenLabs, {}, "nb-NO", {"language": "no"}),
    ],
)
def test_what_a_voice_says_of_a_language(voice: Any, options: dict[str, Any], tag: str, fitted: Any) -> None:
    assert voice.in_language(options, tag) == fitted


# --- ears and minds -------------------------------------------------------------------------------------------------


def test_ears_of_its_own_take_a_language_from_the_others() -> None:
    agent = definition(HEAD.replace("stt.provider", "stt.final_ms = 1\nstt.provider") + SPANISH + "stt.final_ms = 2\n")
    assert agent.heard == ("en-US",)
    assert agent.in_language("es-ES").stt == ProviderChoice("standin", {"final_ms": 2})


def test_the_local_ears_are_english() -> None:
    head = HEAD.replace('stt.provider = "standin"\n', "")
    script = '[[intents]]\nname = "a"\nphrases = ["go"]\nreply = "Well."\n'
    problem = only(head + script + SPANISH)
    assert (problem.key, problem.severity) == ("languages.es-ES", "warning")
    assert "pocketsphinx hears English only" in problem.message
    spares = '[[stt]]\nprovider = "standin"\n[[stt]]\nprovider = "pocketsphinx"\n'
    agent = definition(head + spares + script + SPANISH)
    assert [choice.provider for choice in agent.in_language("es-ES").choices("stt")] == ["standin"]
    assert agent.heard == ("en-US", "es-ES"), "the first hears both"


def test_a_script_needs_words_of_its_own() -> None:
    head = HEAD.replace('llm.provider = "standin"\n', "")
    script = '[[intents]]\nname = "a"\nphrases = ["go"]\nreply = "Well."\n'
    problem = only(head + script + SPANISH)
    assert problem.message == "[[languages.es-ES.intents]] are missing: the script would answer in en-US"
    own = '[[languages.es-ES.intents]]\nname = "a"\nphrases = ["voy"]\nreply = "Bueno."\n'
    assert sorted((p.severity, p.message.split()[0]) for p in check_text(head + script + SPANISH + own)) == [
        ("error", "fallback"),
        ("warning", "words"),
    ]


def test_the_agents_of_the_reference_are_right() -> None:
    cloud, whole = [block for block in blocks() if "[languages." in block]
    agent = definition('name = "Bakery"\n' + cloud)
    assert agent.tags == ("en-US", "es-ES")
    assert agent.in_language("es-ES").tts.options["voice"] == "another-voice"
    assert [p for p in check_text(whole) if p.severity == "error"] == []
    (warning,) = [p.message for p in check_text(whole)]
    assert warning.startswith("pocketsphinx hears English only")


def test_auras_voices_are_of_the_sdk() -> None:
    types = importlib.util.find_spec("deepgram")
    assert types is not None
    assert types.origin is not None
    known = Path(types.origin).parent.joinpath("types", "speak_v1model.py").read_text(encoding="utf-8")
    for language, model in VOICES.items():
        assert f'"{model}"' in known
        assert model.endswith(f"-{language}")
