"""An attendant of several languages, on the bus of test_cascade: from the answer on it is all in the caller's."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import pytest

from tests.agents.test_cascade import AGENT, FACTS, Call, Llm, Stt, Tts
from tests.agents.test_speculation import speaks
from trunkline.agents import turns as t
from trunkline.agents.cascade import Cascade
from trunkline.agents.definition import AgentDefinition, TurnTaking
from trunkline.agents.providers import Minds
from trunkline.errors import ProviderError
from trunkline.ports import CallFacts, Message, SttFinal, ToolCall, TtsAudio
from trunkline.types import MULAW_8K

SPANISH = replace(
    AGENT,
    language="es-ES",
    greeting="Hola buenas.",
    goodbye="Adiós.",
    no_input=("¿Sigue ahí?",),
    filler=("Un momento.",),
    apology="Perdón.",
    failure="Lo siento.",
)
BOTH = replace(AGENT, languages={"es-ES": SPANISH})
DOWN = ProviderError("voice", "unavailable", retryable=True)


class Line(Call):
    """Its voices by language; `ears`: those that Spanish has of its own."""

    def __init__(
        self,
        spares: Sequence[Tts] = (),
        ears: Stt | None = None,
        mind: Llm | None = None,
        attributes: Mapping[str, str] | None = None,
        feed_mode: Literal["all", "gated"] = "gated",
        agent: AgentDefinition = BOTH,
    ) -> None:
        self.told: list[dict[str, Any]] = []
        stt, llm, self.spanish, self.english_ears = Stt(feed_mode), mind or Llm(), Tts(), None
        keyed: dict[Any, Any] = {
            "stt": {"stt.ears": stt} if ears is None else {"stt.ears.es-ES": ears},
            "llm": {"llm.llm": llm},
            "tts": {f"tts.{at}.es-ES": voice for at, voice in enumerate((self.spanish, *spares))},
        }
        spanish = Minds(ears or stt, llm, self.spanish, {"tts": tuple(spares)}, keyed=keyed)
        minds = Minds(stt, llm, Tts(), languages={"es-ES": spanish})
        self._attributes = attributes or {}
        super().__init__(cascade=Cascade(agent, minds, self._tool))

    def event(self, kind: str, **data: Any) -> None:
        super().event(kind, **data)
        if kind in ("language", "provider_switched"):
            self.told.append({"kind": kind, **data})

    @property
    def changes(self) -> list[tuple[str, str, str]]:
        return [(e["from"], e["to"], e["why"]) for e in self.told if e["kind"] == "language"]

    async def speaks(self, text: str, language: str | None, length_ms: int = 500) -> None:
        self.starts()
        await self.run(length_ms)
        self.bus.speech_ended(self.clock.now() - 0.2)
        self.ears.on_event(SttFinal(text, language=language))
        await self.settle()

    async def answers(self, text: str) -> None:
        self.pen.write(text).end()
        await self.run(200 * len(text.split()) + 500)
        assert self.state is t.State.LISTENING


def on_a_line(test: Callable[[Line], Coroutine[Any, Any, None]], **kind: Any) -> None:
    async def main() -> None:
        line = Line(**kind)
        await line.begun()
        await test(line)
        line.attendant.close()
        line.bus.close()
        await line.settle()
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a task outlives its call"
        assert not line.crashes
        assert all(timer.cancelled for timer in line.timers), "a timer outlives its call"

    asyncio.run(main())


def test_the_answer_to_spanish_is_spanish_and_back_again() -> None:
    async def conversation(line: Line) -> None:
        assert line.tts.spoken == ["Hello there."]
        await line.speaks("quiero pedir una cita", "es")
        assert line.pen.asked[-1] == Message("caller", "quiero pedir una cita", language="es-ES")
        await line.answers("Claro que sí.")
        assert line.spanish.spoken == ["Claro que sí."]
        assert line.tts.spoken == ["Hello there."]
        await line.speaks("can we go on in english", "en")
        assert line.pen.asked[-1].language == "en-US"
        await line.answers("Of course.")
        assert line.tts.spoken[-1] == "Of course."
        assert line.changes == [("en-US", "es-ES", "heard"), ("es-ES", "en-US", "heard")]

    on_a_line(conversation)


def test_one_short_word_changes_nothing_two_in_a_row_do() -> None:
    async def conversation(line: Line) -> None:
        await line.speaks("no", "es")
        await line.answers("Then what?")
        await line.speaks("buenos días", "es")
        await line.answers("Hello.")
        assert line.changes == []
        assert line.tts.spoken[-1] == "Hello."
        await line.speaks("una cita", "es")
        await line.answers("Muy bien.")
        assert line.spanish.spoken == ["Muy bien."]

    on_a_line(conversation)


def test_what_was_said_over_the_agent_and_meant_nothing_changes_nothing() -> None:
    async def conversation(line: Line) -> None:
        await line.speaks("tell me about it", "en")
        line.pen.write("It is a long story. ")
        await line.settle()
        line.starts()
        await line.run(100)
        line.bus.speech_ended(line.clock.now() - 0.32)
        line.ears.on_event(SttFinal("mm-hm yeah okay right", language="es"))
        await line.settle()
        await line.run(1500)
        await line.answers("That was it.")
        assert line.changes == []
        assert line.tts.spoken[-1] == "That was it."

    on_a_line(conversation)


def test_a_spanish_yes_over_the_agent_is_no_interruption() -> None:
    async def conversation(line: Line) -> None:
        await line.speaks("quiero pedir una cita", "es")
        line.pen.write("Es una historia muy larga. ")
        await line.run(200)
        line.starts()
        await line.run(200)
        line.bus.speech_ended(line.clock.now() - 0.32)
        line.ears.on_event(SttFinal("Sí, claro, vale.", language="es"))
        await line.run(1500)
        await line.answers("Y ya está.")
        assert line.talk[-1] == ("agent", "Es una historia muy larga. Y ya está.")

    on_a_line(conversation)


def test_the_lines_of_a_call_in_spanish_are_spanish() -> None:
    async def conversation(line: Line) -> None:
        await line.speaks("quiero pedir una cita", "es")
        await line.run(1600)
        assert line.spanish.spoken == ["Un momento."], "while its answer is awaited"
        line.pen.fail()
        await line.run(1500)
        assert line.spanish.spoken[-1] == "Perdón."
        await line.run(7500)
        assert line.spanish.spoken[-1] == "¿Sigue ahí?"
        line.attendant.say_goodbye()
        await line.run(1500)
        assert line.spanish.spoken[-1] == "Adiós."
        assert line.tts.spoken == ["Hello there."]

    on_a_line(conversation)


def test_a_filler_in_the_middle_of_an_answer_is_spanish() -> None:
    async def conversation(line: Line) -> None:
        await line.speaks("quiero pedir una cita", "es")
        line.pen.write("Voy a mirar. ")
        await line.run(3500)
        assert line.spanish.spoken[:2] == ["Voy a mirar.", "Un momento."]
        await line.answers("Hay una.")

    on_a_line(conversation)


def test_the_model_changes_the_language_by_its_tool() -> None:
    async def conversation(line: Line) -> None:
        await line.speaks("in spanish please if you can", "en")
        assert line.changes == []
        line.pen.write(ToolCall("c1", "speak_language", {"language": "es"})).end()
        await line.settle()
        assert line.changes == [("en-US", "es-ES", "asked")]
        assert line.pen.asked[-1] == Message("tool", '{"ok": true}', tool_call_id="c1", language="es-ES")
        await line.answers("Con mucho gusto.")
        assert line.spanish.spoken == ["Con mucho gusto."]
        assert line.turns[-1].tools == ("speak_language",)
        assert line.attendant.conversation[-2].language == "es-ES", "whoever goes on with it knows"

    on_a_line(conversation)


def test_words_before_the_tool_are_spoken_in_the_language_they_were_written_in() -> None:
    async def conversation(line: Line) -> None:
        await line.speaks("in spanish please if you can", "en")
        line.tts.hold = {"course."}
        line.pen.write("Of course. One second. ", ToolCall("c1", "speak_language", {"language": "es-ES"})).end()
        await line.settle()
        line.pen.write("Dígame. ").end()
        await line.settle()
        line.tts.hold = set()
        await line.run(2500)
        assert line.tts.spoken[-2:] == ["Of course.", "One second."]
        assert line.spanish.spoken == ["Dígame."]

    on_a_line(conversation)


def test_a_language_that_the_agent_does_not_have_is_the_tools_failure() -> None:
    async def conversation(line: Line) -> None:
        await line.speaks("in french please if you can", "en")
        line.pen.write(ToolCall("c1", "speak_language", {"language": "fr"})).end()
        await line.settle()
        result = json.loads(line.pen.asked[-1].text)
        assert (result["ok"], result["why"]) == (False, "the languages are en-US, es-ES")
        await line.answers("I speak English and Spanish.")
        assert line.changes == []

    on_a_line(conversation)


def test_a_spanish_voice_that_fails_is_followed_by_a_spanish_voice() -> None:
    second = Tts()

    async def conversation(line: Line) -> None:
        line.spanish.errors = {"que": DOWN}
        await line.speaks("quiero pedir una cita", "es")
        await line.answers("Claro que sí.")
        assert second.spoken == ["que sí."]
        assert line.talk[-1] == ("agent", "Claro que sí.")
        assert line.tts.spoken == ["Hello there."]
        (switch,) = [e for e in line.told if e["kind"] == "provider_switched"]
        assert (switch["provider"], switch["following"]) == ("tts.0.es-ES", "tts.1.es-ES")
        await line.speaks("can we go on in english", "en")
        await line.answers("Sure.")
        await line.speaks("quiero pedir una cita", "es")
        await line.answers("Vale.")
        assert second.spoken[-1] == "Vale.", "the one that failed is not asked again"

    on_a_line(conversation, spares=[second])


def test_the_lines_that_were_recorded_are_of_the_language() -> None:
    """Where no voice is left."""

    async def conversation(line: Line) -> None:
        minds = line.cascade.minds
        minds.lines[next(iter(minds.named("tts"))), "Sorry.", MULAW_8K] = (TtsAudio(b"\x01" * 1600),)
        minds.in_language("es-ES").lines["tts.0.es-ES", "Perdón.", MULAW_8K] = (TtsAudio(b"\x02" * 1600),)
        line.spanish.errors = {"Claro": DOWN, "Perdón.": DOWN}
        await line.speaks("quiero pedir una cita", "es")
        line.pen.write("Claro que sí.").end()
        await line.run(1500)
        assert line.talk[-1] == ("agent", "Perdón.")
        assert line.tts.spoken == ["Hello there."]

    on_a_line(conversation)


def test_a_recogniser_of_its_own_hears_while_its_language_is_spoken() -> None:
    ears = Stt("all")

    async def conversation(line: Line) -> None:
        await line.speaks("in spanish please if you can", "en")
        line.pen.write(ToolCall("c1", "speak_language", {"language": "es"})).end()
        await line.settle()
        await line.answers("Dígame.")
        english, (spanish,) = line.ears, ears.streams
        assert english.closed
        await line.run(100)
        assert spanish.fed_bytes > 0, "it is fed in its own way: all of the call"
        line.ears = spanish
        await line.speaks("una cita por favor", None)
        await line.answers("Muy bien.")
        assert line.spanish.spoken[-1] == "Muy bien."
        await line.speaks("ingles por favor", None)
        line.pen.write(ToolCall("c2", "speak_language", {"language": "en-US"})).end()
        await line.settle()
        await line.answers("Here I am.")
        assert spanish.closed
        assert len(line.stt.streams) == 2

    on_a_line(conversation, ears=ears)


def test_ears_that_serve_both_stay_as_they_are() -> None:
    async def conversation(line: Line) -> None:
        await line.speaks("quiero pedir una cita", "es")
        await line.answers("Claro.")
        assert not line.ears.closed
        assert len(line.stt.streams) == 1

    on_a_line(conversation)


class Placed(Line):
    """With attributes of its own: FACTS has none."""

    def __init__(self, attributes: Mapping[str, str]) -> None:
        super().__init__()
        facts: CallFacts = replace(FACTS, attributes=dict(attributes))
        self.attendant.close()
        self.attendant = self.cascade.attend(facts, self.bus, self, self, self.clock, self.after)
        self.ears = self.stt.streams[-1]


@pytest.mark.parametrize(
    ("attributes", "greeting", "changes"),
    [
        ({"language": "es-MX"}, "Hola buenas.", [("en-US", "es-ES", "call")]),
        ({"language": "fr"}, "Hello there.", []),
        ({"language": ""}, "Hello there.", []),
        ({}, "Hello there.", []),
    ],
)
def test_a_call_begins_in_the_language_that_came_with_it(
    attributes: Mapping[str, str], greeting: str, changes: list[tuple[str, str, str]]
) -> None:
    async def main() -> None:
        line = Placed(attributes)
        await line.begun()
        assert [*line.spanish.spoken, *line.tts.spoken] == [greeting]
        assert line.changes == changes
        line.attendant.close()
        line.bus.close()

    asyncio.run(main())


def test_a_call_that_is_taken_up_again_is_held_in_its_language() -> None:
    async def main() -> None:
        line = Placed({"language": "en"})
        said = [Message("agent", "Hola."), Message("caller", "una cita", language="es-ES"), Message("agent", "Sí.")]
        line.attendant.begin("Sorry, where were we?", said)
        await line.run(1500)
        assert line.spanish.spoken == ["Perdón."], "the gateway's own line is English"
        assert line.changes == [("en-US", "es-ES", "conversation")]
        await line.speaks("para mañana a las diez", None)
        assert line.pen.asked[-1].language == "es-ES"
        line.attendant.close()
        line.bus.close()
        await line.settle()

    asyncio.run(main())


def test_an_agent_of_one_language_says_nothing_of_languages() -> None:
    async def main() -> None:
        call = await Call().begun()
        call.starts()
        await call.run(500)
        call.bus.speech_ended(call.clock.now() - 0.2)
        call.ears.on_event(SttFinal("quiero pedir una cita", language="es"))
        await call.settle()
        assert call.pen.asked[-1] == Message("caller", "quiero pedir una cita")
        assert "language" not in call.events
        call.attendant.close()
        call.bus.close()
        await call.settle()

    asyncio.run(main())


def test_what_was_asked_for_early_in_another_language_is_not_the_answer() -> None:
    eager = replace(BOTH, turns=TurnTaking(speculate=True), languages={"es-ES": SPANISH})

    async def conversation(line: Line) -> None:
        await speaks(line, "quiero pedir una cita")
        assert line.pen.asked[-1] == Message("caller", "quiero pedir una cita", language="en-US")
        early = line.pen
        line.bus.speech_ended(line.clock.now() - 0.4)
        line.ears.on_event(SttFinal("quiero pedir una cita", language="es"))
        await line.settle()
        assert early.closed
        assert line.pen.asked[-1] == Message("caller", "quiero pedir una cita", language="es-ES")
        await line.answers("Claro.")
        assert line.spanish.spoken == ["Claro."]

    on_a_line(conversation, agent=eager)
