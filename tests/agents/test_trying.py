"""A script that is typed at: it answers as in a call, and nothing is done."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.fakes.openai_server import Answer, Call, OpenAiServer, Refusal
from trunkline.agents import trying
from trunkline.agents.providers import Services
from trunkline.agents.script.check import read_text
from trunkline.agents.trying import MAX_TURNS, Line, Trial
from trunkline.testing.clock import ManualClock

CLINIC = """
name = "Clinic"
greeting = "Clinic, hello."
stt.provider = "standin"
tts.provider = "standin"

[targets]
reception = "+14155550100"

[agents.billing]
agent = "billing"
when = "invoices"

[[intents]]
name = "move"
phrases = ["[I want to] move my appointment"]
ask = "number"
tool = "look_up"
reply = "It is at {time}."

[[intents]]
name = "person"
phrases = ["a person please"]
reply = "One moment."
transfer = "reception"

[[intents]]
name = "invoice"
phrases = ["my invoice"]
reply = "I hand you over."
hand_off = "billing"

[digits.number]
prompt = "What is its number?"
min = 4
max = 6

[tools.look_up]
type = "http"
url = "https://crm.example.com/appointments/{number}"
headers = { Authorization = "Bearer {key:crm}" }
result = { time = "appointment.time" }
"""
MODEL = """
name = "Clinic"
greeting = "Clinic, hello."
stt.provider = "standin"
tts.provider = "standin"
targets.reception = "+14155550100"
[llm]
provider = "openai"
model = "fake"
base_url = "{url}"
"""


def trial(text: str, **how: Any) -> Trial:
    definition, problems = read_text(text)
    if definition is None:
        from trunkline.agents.script.foreign import Shared

        definition, problems = read_text(text, foreign=Shared(secrets=frozenset({"crm"})))
    assert definition is not None, problems
    return Trial(definition, Services(ManualClock(datetime(2026, 11, 27, 9, tzinfo=UTC))), **how)


def run(trial: Trial, test: Callable[[Trial], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(10):
            try:
                await test(trial)
            finally:
                await trial.close()

    asyncio.run(main())


def told(lines: list[Line]) -> list[tuple[str, str]]:
    return [(line.kind, line.text) for line in lines]


def test_it_asks_takes_keys_and_shows_the_tool_it_would_use() -> None:
    async def test(trial: Trial) -> None:
        assert told(await trial.begin()) == [("say", "Clinic, hello.")]
        lines = await trial.say("I want to move my appointment")
        assert told(lines) == [("say", "What is its number?"), ("expects", "4 to 6")]
        lines = await trial.say("12 34")
        assert told(lines) == [
            ("tool", "look_up"),
            ("request", "GET https://crm.example.com/appointments/1234"),
            ("say", "It is at [time]."),
        ]
        assert lines[0].data == {"arguments": {"number": "1234"}, "result": {"ok": True, "result": {"time": "[time]"}}}
        assert not trial.over

    run(trial(CLINIC), test)


def test_what_a_tool_would_answer_can_be_told_beforehand() -> None:
    async def test(trial: Trial) -> None:
        await trial.begin()
        await trial.say("move my appointment")
        assert told(await trial.say("1234"))[-1] == ("say", "It is at nine.")

    run(trial(CLINIC, answers={"look_up": {"time": "nine"}}), test)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("a person please", [("say", "One moment."), ("tool", "transfer"), ("transfer", "reception")]),
        ("my invoice", [("say", "I hand you over."), ("tool", "hand_off"), ("hand_off", "billing")]),
    ],
)
def test_a_transfer_and_a_hand_off_are_shown_and_end_it(said: str, shown: list[tuple[str, str]]) -> None:
    async def test(trial: Trial) -> None:
        await trial.begin()
        assert told(await trial.say(said)) == shown
        assert trial.over
        assert await trial.say("hello?") == []

    run(trial(CLINIC), test)


def test_goodbye_hangs_up_and_what_it_does_not_understand_is_said() -> None:
    async def test(trial: Trial) -> None:
        await trial.begin()
        assert told(await trial.say("purple elephants")) == [
            ("say", "I'm sorry, I did not understand. Please say that again.")
        ]
        assert told(await trial.say("goodbye"))[-1] == ("hang_up", "agent_hung_up")

    run(trial(CLINIC), test)


def test_it_follows_the_caller_to_another_language() -> None:
    spanish = """
[languages.es-ES]
greeting = "Hola."
goodbye = "Adios."
no_input = ["Hola?"]
filler = ["Un momento."]
apology = "Perdon."
failure = "Perdon."
[[languages.es-ES.intents]]
name = "horas"
phrases = ["el horario"]
reply = "De nueve a cinco."
[languages.es-ES.fallback]
not_understood = ["No entiendo."]
[[intents]]
name = "spanish"
phrases = ["spanish please"]
language = "es-ES"
"""

    async def test(trial: Trial) -> None:
        await trial.begin()
        assert ("tool", "speak_language") in told(await trial.say("spanish please"))
        assert told(await trial.say("el horario")) == [("say", "De nueve a cinco.")]

    run(trial(CLINIC.replace("[[intents]]", spanish + "[[intents]]", 1)), test)


def test_a_model_is_asked_and_its_tools_are_judged_and_not_performed() -> None:
    async def main() -> None:
        async with OpenAiServer() as server:
            server.answers += [
                Answer(Call("transfer", '{"target": "nobody"}'), finish="tool_calls"),
                Answer("I put you through.", Call("transfer", '{"target": "reception"}'), finish="tool_calls"),
            ]
            tried = trial(MODEL.replace("{url}", server.base_url))
            await tried.begin()
            lines = await tried.say("somebody, please")
            assert told(lines) == [
                ("tool", "transfer"),
                ("say", "I put you through."),
                ("tool", "transfer"),
                ("transfer", "reception"),
            ]
            assert lines[0].data["result"]["code"] == "bad_arguments"
            assert tried.over
            await tried.close()

    asyncio.run(main())


def test_a_model_that_refuses_is_a_line_and_no_error() -> None:
    async def main() -> None:
        async with OpenAiServer() as server:
            server.answers += [Refusal(401)]
            tried = trial(MODEL.replace("{url}", server.base_url))
            await tried.begin()
            (line,) = await tried.say("hello")
            assert line.kind == "failed"
            assert "auth" in line.text
            assert not tried.over
            await tried.close()

    asyncio.run(main())


def test_who_asks_for_help_hears_our_line_and_no_models() -> None:
    async def test(trial: Trial) -> None:
        await trial.begin()
        ((kind, text),) = told(await trial.say("call an ambulance"))
        assert (kind, "9 1 1" in text) == ("say", True)

    run(trial(CLINIC, caller_number="+14155550123"), test)


def test_it_has_an_end_and_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trying, "TURN_S", 0.05)

    async def main() -> None:
        async with OpenAiServer() as server:
            server.answers += [Answer("late", delay_s=5)]
            tried = trial(MODEL.replace("{url}", server.base_url))
            await tried.begin()
            assert told(await tried.say("hello")) == [("failed", "no answer within 0 s")]
            tried._turns = MAX_TURNS
            assert (await tried.say("hello"))[0].kind == "failed"
            assert tried.over
            await tried.close()

    asyncio.run(main())
