"""Callers who speak Spanish to an agent that answers in English: real processes, real time, Twilio's protocol.

The ears are a server that speaks Deepgram's protocol and tells the language of each word, the mind one that speaks
OpenAI's, the voice one that speaks ElevenLabs' (or espeak-ng, on this machine). What the caller says is only how long
it is; the server "recognises" by a script.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from tests.fakes.deepgram_server import Connection, DeepgramServer, in_language
from tests.fakes.elevenlabs_server import ElevenLabsServer, Refusal
from tests.fakes.http_server import Request
from tests.fakes.openai_server import Answer, Call, OpenAiServer
from trunkline.agents.local.voice import synthesize
from trunkline.testing.caller.commands import (
    Action,
    CallOptions,
    CallReport,
    HangUp,
    Keys,
    Listen,
    Pause,
    Say,
    place_call,
)

pytestmark = pytest.mark.e2e

DOCS = Path(__file__).parents[2] / "docs" / "agent-script.md"
KEYS = {"deepgram": "dg-ours", "openai": "sk-ours", "elevenlabs": "xi-ours"}
PHRASE = "what are your opening hours"  # some 1.5 s, as long as each line is
GREETING = "Corner Bakery. What can I do for you?"
AGENT = """
name = "Bakery"
greeting = "{greeting}"

[stt]
provider = "deepgram"
url = "{ears}"
feed = "{feed}"
model = "{model}"

[llm]
provider = "openai"
base_url = "{mind}"
model = "fake"

[[tts]]
provider = "elevenlabs"
base_url = "{voice}"
voice = "english-voice"

[[tts]]
provider = "espeak"

[turns]
no_input_ms = 2500

[languages.es-ES]
greeting = "Corner Bakery. ¿En qué puedo ayudarle?"
goodbye = "Gracias por llamar. Adiós."
no_input = ["¿Sigue usted ahí?", "No le oigo."]
filler = ["Un momento, por favor."]
apology = "Perdón, algo ha fallado."
failure = "Lo siento, ahora no puedo ayudarle."
tts.voice = "spanish-voice"
"""
RECORDED = {
    "english-voice": {
        "Thank you for calling. Goodbye.",
        "One moment.",
        "Just a moment longer, please.",
        "I'm sorry, something went wrong. Please say that again.",
        "I'm sorry, I can't help you right now. Please call again later. Goodbye.",
    },
    "spanish-voice": {
        "Gracias por llamar. Adiós.",
        "Un momento, por favor.",
        "Perdón, algo ha fallado.",
        "Lo siento, ahora no puedo ayudarle.",
    },
}


def asked_of(server: ElevenLabsServer, voice: str) -> list[str]:
    return [each.text for each in server.phrases if server.connections[each.connection].voice == voice]


@dataclass
class Told:
    report: CallReport
    record: Mapping[str, Any]
    connections: Sequence[Connection]
    requests: Sequence[Request]
    voice: ElevenLabsServer

    @property
    def turns(self) -> list[tuple[str, str]]:
        return [(turn["caller_text"], turn["agent_text"]) for turn in self.record["turns"]]

    @property
    def changes(self) -> list[tuple[str, str, str]]:
        told = [event["data"] for event in self.record["events"] if event["kind"] == "language"]
        return [(data["from"], data["to"], data["why"]) for data in told]

    def spoken_by(self, voice: str) -> list[str]:
        """Less the lines that are recorded at start."""
        found = asked_of(self.voice, voice)
        assert RECORDED[voice] <= set(found) or self.voice.refused
        return [text for text in found if text not in RECORDED[voice]]

    def held_in(self, request: int) -> str:
        """What the model was told."""
        found = re.search(r"The call is held in (\S+):", self.requests[request].body["messages"][0]["content"])
        assert found is not None
        return found[1]


def call(
    start_gateway: Any,
    folder: Path,
    lines: Sequence[str],
    answers: Sequence[Answer],
    actions: Sequence[Action],
    model: str = "nova-3",
    refused: Mapping[str, Refusal] = MappingProxyType({}),
) -> Told:
    async def run() -> Told:
        async with DeepgramServer(*lines) as ears, OpenAiServer() as mind, ElevenLabsServer() as voice:
            mind.answers.extend(answers)
            agent = folder / "bakery.toml"
            feed = "gated" if model == "nova-3" else "all"
            where = {"ears": ears.url, "mind": mind.base_url, "voice": voice.base_url}
            agent.write_text(AGENT.format(greeting=GREETING, feed=feed, model=model, **where))
            keys = {f"{name}__api_key": key for name, key in KEYS.items()}
            gateway = await asyncio.to_thread(start_gateway, agent, **keys)
            if refused:  # not while the lines of the start are recorded: they would find it out before the call
                async with asyncio.timeout(30):
                    while any(lines - set(asked_of(voice, each)) for each, lines in RECORDED.items()):
                        await asyncio.sleep(0.05)
                for name, refusal in refused.items():
                    voice.lose(name, refusal)
            report = await place_call(CallOptions(gateway.origin, actions, api_url="auto"))
            assert report.record is not None
            assert gateway.complaints() == []
            assert not any(key in gateway.log for key in KEYS.values())
            return Told(report, report.record, ears.connections, mind.requests, voice)

    return asyncio.run(run())


@pytest.mark.parametrize("model", [pytest.param("nova-3", marks=pytest.mark.show), "flux-general-multi"])
def test_a_caller_who_speaks_spanish_is_answered_in_spanish(start_gateway: Any, tmp_path: Path, model: str) -> None:
    lines = [in_language("es", "quiero encargar una tarta"), in_language("en", "can we speak english please")]
    answers = [Answer("Claro que sí. ", "¿De qué tamaño?"), Answer("Of course we can.")]
    said: list[Action] = [Listen(), Say(PHRASE), Listen(), Pause(3500), Listen(), Say(PHRASE), Listen(), HangUp()]
    told = call(start_gateway, tmp_path, lines, answers, said, model)
    assert told.turns == [
        ("", GREETING),
        ("quiero encargar una tarta", "Claro que sí. ¿De qué tamaño?"),
        ("", "¿Sigue usted ahí?"),
        ("can we speak english please", "Of course we can."),
    ]
    assert told.changes == [("en-US", "es-ES", "heard"), ("es-ES", "en-US", "heard")]
    assert told.spoken_by("spanish-voice") == ["Claro que sí.", "¿De qué tamaño?", "¿Sigue usted ahí?"]
    assert told.spoken_by("english-voice") == [GREETING, "Of course we can."]
    codes = {(connection.voice, connection.query["language_code"]) for connection in told.voice.connections}
    assert codes == {("english-voice", "en"), ("spanish-voice", "es")}
    assert [told.held_in(0), told.held_in(1)] == ["es-ES", "en-US"]
    (ears,) = told.connections
    assert ears.query["language_hint"] == ["en-US", "es-ES"]
    assert ears.query.get("language", ["multi"]) == ["multi"]
    assert told.record["end_reason"] == "caller_hung_up"


def test_a_model_is_asked_for_spanish_and_changes(start_gateway: Any, tmp_path: Path) -> None:
    lines = [in_language("en", "in spanish please if you can"), in_language("es", "quiero una tarta grande")]
    change = Answer(Call("speak_language", '{"language": "es-ES"}'), finish="tool_calls")
    answers = [change, Answer("Con mucho gusto."), Answer("Muy bien.")]
    said: list[Action] = [Listen(), Say(PHRASE), Listen(), Say(PHRASE), Listen(), HangUp()]
    told = call(start_gateway, tmp_path, lines, answers, said)
    assert told.turns[1:] == [
        ("in spanish please if you can", "Con mucho gusto."),
        ("quiero una tarta grande", "Muy bien."),
    ]
    assert told.changes == [("en-US", "es-ES", "asked")]
    assert told.spoken_by("spanish-voice") == ["Con mucho gusto.", "Muy bien."]
    assert [told.held_in(at) for at in range(3)] == ["en-US", "es-ES", "es-ES"]
    assert told.record["turns"][1]["tools"] == ["speak_language"]


def test_a_spanish_voice_that_is_gone_is_followed_by_one_of_this_machine(start_gateway: Any, tmp_path: Path) -> None:
    """Not by the English one: it reads Spanish as if it were English."""
    said: list[Action] = [Listen(), Say(PHRASE), Listen(), HangUp()]
    answers, lines = [Answer("Claro que sí, dígame.")], [in_language("es", "quiero encargar una tarta")]
    told = call(start_gateway, tmp_path, lines, answers, said, refused={"spanish-voice": Refusal(500)})
    assert told.turns[1] == (lines[0].replace("/es", ""), "Claro que sí, dígame.")
    assert told.spoken_by("english-voice") == [GREETING]
    switched = [event["data"] for event in told.record["events"] if event["kind"] == "provider_switched"]
    assert ("tts.elevenlabs.es-ES", "tts.espeak.es-ES") in [(each["provider"], each["following"]) for each in switched]
    spanish_ms, english_ms = (len(synthesize("Claro que sí, dígame.", voice)) / 16 for voice in ("es", "en-us"))
    heard_ms = told.report.answers[-1].heard_ms
    assert abs(spanish_ms - english_ms) > 150, "they can be told apart"
    assert heard_ms == pytest.approx(spanish_ms, abs=100)


def test_the_embedded_agent_speaks_spanish_on_a_key(start_gateway: Any, tmp_path: Path) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    (text,) = [block for block in blocks if "[[languages.es-ES.intents]]" in block]
    agent = tmp_path / "bakery.toml"
    agent.write_text(text)

    async def run() -> CallReport:
        gateway = await asyncio.to_thread(start_gateway, agent)
        actions: list[Action] = [Listen(), Keys("9"), Listen(), Keys("1"), Listen(), Keys("9"), Listen(), HangUp()]
        report = await place_call(CallOptions(gateway.origin, actions, api_url="auto"))
        assert gateway.complaints() == []
        return report

    report = asyncio.run(run())
    assert report.record is not None
    said = [turn["agent_text"] for turn in report.record["turns"]]
    hours = "Abrimos a las siete, todos los días menos el domingo."
    assert said[1].startswith("Panadería de la esquina.")
    assert said[2:] == [hours, "In English, then. What would you like to know?"]
    told = [event["data"] for event in report.record["events"] if event["kind"] == "language"]
    assert [(data["to"], data["why"]) for data in told] == [("es-ES", "asked"), ("en-US", "asked")]
    spanish_ms, english_ms = (len(synthesize(hours, voice)) / 16 for voice in ("es", "en-us"))
    assert abs(spanish_ms - english_ms) > 150, "they can be told apart"
    assert report.answers[2].heard_ms == pytest.approx(spanish_ms, abs=100)
