"""Callers who ask not to be called again: real calls on every backend, the ledger, the list, and what is dialled later.

The words are spoken by espeak-ng. Where a server beside the gateway recognises or models, it goes by timing, and what
it "understood" is told here; the local ears recognise what they hear.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.backends import spoken_mulaw as spoken
from tests.fakes.deepgram_server import DeepgramServer
from tests.fakes.openai_realtime_server import OpenAiRealtimeServer, Reply, Tool
from trunkline.agents.examples import example
from trunkline.compliance.confirmations import confirmation
from trunkline.testing.caller.commands import (
    Action,
    CallOptions,
    Keys,
    Listen,
    ListenInto,
    Pause,
    Say,
    Vanish,
    place_call,
)

pytestmark = pytest.mark.e2e

CALLER = "+12125550147"
ASKED = "take me off your list"
SAYS_IT = (Say(ASKED), Listen(), Say(ASKED), Listen(), Say(ASKED))
"""Until it is heard: of spoken wishes the local ears miss some (bench/README.md). Then the call ends."""
INTO_GREETING_MS = 11_500
"""The opening lines before it last ten seconds."""
CONFIRMED = confirmation("opted_out", "en")
KEY = "sk-the-bakery-s-own-key"
RULES = {
    "compliance__business": "Corner Bakery",
    "compliance__region": "US-NY",
    "compliance__callback_number": "+12125550111",
    "outbound__allow": "US",
}
BAKERY = """
name = "Bakery"
greeting = "Corner Bakery, hello. We are here every day of the week from seven in the morning, what can I do for you?"
greeting_interruptible = {interruptible}

[realtime]
provider = "openai"
base_url = "{url}"
model = "fake"
instructions = "You sell bread."
turns = "{turns}"
lines = "tts"
fallback = false

[stt]
provider = "standin"

[llm]
provider = "standin"

[tts]
provider = "espeak"
"""
UNTIL_IT_ENDS: tuple[Action, ...] = (Listen(timeout_s=20), Pause(20_000))


async def call(gateway: Any, *actions: Action, ends: bool = True, from_number: str = CALLER) -> Any:
    more = UNTIL_IT_ENDS if ends else ()
    options = CallOptions(gateway.origin, [*actions, *more], api_url="auto", from_number=from_number, max_duration_s=60)
    return await place_call(options)


def judge(gateway: Any, record: Mapping[str, Any], via: str = "speech") -> None:
    assert record["end_reason"] == "opted_out", record
    events = {event["kind"]: event["data"] for event in record["events"]}
    assert events["opted_out"] == {"via": via, "listed": True}
    assert last_heard(record) == CONFIRMED
    kept = on_the_list(gateway)
    assert [(row["event"], row["via"], row["do_not_call"]) for row in kept] == [("revoke", via, True)]
    assert kept[0]["call_id"] == record["id"]
    assert gateway.complaints() == []
    assert ASKED not in gateway.log.lower()
    answer = httpx.post(f"{gateway.origin}/v1/calls", json={"to": CALLER, "from": "+12125550111"}, timeout=10)
    assert answer.status_code in (403, 409), answer.text
    assert answer.json()["code"] == "company_dnc"


def last_heard(record: Mapping[str, Any]) -> str:
    """Of the agent, or during the opening lines; whole."""
    if record["turns"]:
        return str(record["turns"][-1]["agent_text"])
    (told,) = (event["data"] for event in record["events"] if event["kind"] == "disclosed")
    assert told["lines"][-1]["whole"]
    return str(told["lines"][-1]["text"])


def on_the_list(gateway: Any) -> Sequence[Mapping[str, Any]]:
    """Their rows of the ledger, once they are in the database."""
    rows: list[Any] = []

    def there() -> bool:
        rows[:] = httpx.get(f"{gateway.origin}/v1/consent/{CALLER}", timeout=10).json()["events"]
        return bool(rows)

    gateway.until(there)
    lists = httpx.get(f"{gateway.origin}/v1/dnc/{CALLER}", timeout=10).json()
    assert "company" in str(lists)
    return rows


def clinic(folder: Path, *changes: tuple[str, str]) -> Path:
    text = example("clinic").read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    file = folder / "clinic.toml"
    file.write_text(text, encoding="utf-8")
    return file


UNINTERRUPTIBLE = ("greeting = ", "greeting_interruptible = false\ngreeting = ")


@pytest.mark.show  # its ears miss four wishes in ten (bench/README.md), and its script then puts the caller through
def test_on_the_local_cascade(start_gateway: Any, tmp_path: Path) -> None:
    gateway = start_gateway(clinic(tmp_path), **RULES)
    judge(gateway, asyncio.run(call(gateway, Listen(), *SAYS_IT)).record)


def test_during_a_greeting_that_cannot_be_interrupted(start_gateway: Any, tmp_path: Path) -> None:
    gateway = start_gateway(clinic(tmp_path, UNINTERRUPTIBLE), **RULES)
    judge(gateway, asyncio.run(call(gateway, ListenInto(INTO_GREETING_MS), *SAYS_IT)).record)


def test_during_the_opening_lines(start_gateway: Any, tmp_path: Path) -> None:
    gateway = start_gateway(clinic(tmp_path), **RULES)
    judge(gateway, asyncio.run(call(gateway, ListenInto(800), *SAYS_IT)).record)


def test_by_key_also_during_that_greeting(start_gateway: Any, tmp_path: Path) -> None:
    gateway = start_gateway(clinic(tmp_path, UNINTERRUPTIBLE), consent__opt_out_key="*9", **RULES)
    judge(gateway, asyncio.run(call(gateway, ListenInto(INTO_GREETING_MS), Keys("*9"))).record, "keypad")


def test_with_a_recogniser_of_somebody_elses(start_gateway: Any, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with DeepgramServer("Hi, uh, can you take me off your list, please?") as ears:
            stt = f'provider = "deepgram"\nurl = "{ears.url}"\nmodel = "nova-3"'
            agent = clinic(tmp_path, ('provider = "pocketsphinx"', stt))
            gateway = await asyncio.to_thread(start_gateway, agent, deepgram__api_key="dg", **RULES)
            report = await call(gateway, Listen(), Say("hi uh can you take me off your list please"))
            await asyncio.to_thread(judge, gateway, report.record)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("heard_by", "turns", "interruptible"),
    [
        pytest.param("its transcript", "ours", True, marks=pytest.mark.show),
        ("its transcript", "server", True),
        pytest.param("second ears", "ours", True, marks=pytest.mark.show),
        ("second ears", "server", False),
        ("the model", "ours", True),
    ],
)
def test_with_a_realtime_model(
    heard_by: str, turns: str, interruptible: bool, start_gateway: Any, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with OpenAiRealtimeServer(key=KEY) as model:
            model.transcript_s = 0.3 if heard_by != "second ears" else 60.0
            model.transcripts += ["Take me off your list." if heard_by == "its transcript" else "I would rather not."]
            tools = (Tool("do_not_call", '{"words": "I would rather not."}'),) if heard_by == "the model" else ()
            story = "We have rolls and bread and cake and more rolls and a little coffee too, until noon."
            model.replies += [Reply(tools=tools) if tools else Reply(story, spoken(story), first_s=0.4), Reply()]
            agent = tmp_path / "bakery.toml"
            flag = str(interruptible).lower()
            agent.write_text(BAKERY.format(url=model.base_url, turns=turns, interruptible=flag))
            gateway = await asyncio.to_thread(start_gateway, agent, openai__api_key=KEY, **RULES)
            first = Listen() if interruptible else ListenInto(INTO_GREETING_MS)
            said = SAYS_IT if heard_by == "second ears" else (Say(ASKED),)
            report = await call(gateway, first, *((Say("i would rather not"),) if heard_by == "the model" else said))
            await asyncio.to_thread(judge, gateway, report.record)

    asyncio.run(scenario())


def test_whoever_kills_the_gateway_within_the_confirmation(start_gateway: Any, tmp_path: Path) -> None:
    agent, folder = clinic(tmp_path), str(tmp_path / "kept")
    gateway = start_gateway(agent, data_dir=folder, consent__opt_out_key="*9", **RULES)
    asyncio.run(call(gateway, Listen(), Keys("*9"), ListenInto(300), Vanish(), ends=False))
    gateway.kill()
    again = start_gateway(agent, data_dir=folder, **RULES)
    assert [row["do_not_call"] for row in on_the_list(again)] == [True]


def test_a_caller_without_a_number_hears_that_there_is_none(start_gateway: Any, tmp_path: Path) -> None:
    gateway = start_gateway(clinic(tmp_path), **RULES)
    record = asyncio.run(call(gateway, Listen(), *SAYS_IT, from_number="anonymous")).record
    assert record["end_reason"] == "opted_out"
    assert last_heard(record) == confirmation("no_number", "en")
    assert gateway.complaints() == []


def test_nothing_of_this_where_the_rules_are_not_in_force(start_gateway: Any, tmp_path: Path) -> None:
    gateway = start_gateway(clinic(tmp_path))
    record = asyncio.run(call(gateway, Listen(), Say(ASKED), Listen(timeout_s=5), ends=False)).record
    assert record["end_reason"] != "opted_out"
    assert "opted_out" not in {event["kind"] for event in record["events"]}
