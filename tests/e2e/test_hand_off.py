"""Calls that go from one AI agent to another and back, over real processes: what each of their models was told, what
was heard, and what the record says. And one that gets long: what its model is told then.

The clinic thinks by Chat Completions, its billing desk is one realtime model: both are servers of ours that speak the
wire protocol. Ears and voice of the clinic are the stand-ins: any speech is "caller phrase".
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.backends import spoken_mulaw as spoken
from tests.fakes.openai_realtime_server import OpenAiRealtimeServer, Reply, Tool
from tests.fakes.openai_server import Answer, Call, OpenAiServer, Refusal
from trunkline.testing.caller.commands import Action, CallOptions, CallReport, HangUp, Listen, Pause, Say, place_call

pytestmark = pytest.mark.e2e

KEY = "sk-the-clinic-s-own-key"
WORD_MS = 200
PHRASE = "I have a question about my invoice"
CLINIC = """
name = "Clinic"
greeting = "Elm Street Clinic, hello."
{more}

[agents.billing]
file = "billing.toml"
when = "questions about invoices"
{terms}

[stt]
provider = "standin"

[llm]
provider = "openai"
base_url = "{chat}"
model = "fake"
instructions = "You are the front desk."

[tts]
provider = "standin"
"""
BILLING = """
name = "Billing desk"
greeting = "Billing, good day."

[agents.clinic]
file = "clinic.toml"
when = "everything else"
greeting = "Front desk again, what else?"

[realtime]
provider = "openai"
base_url = "{url}"
model = "fake"
instructions = "You know all invoices."

[stt]
provider = "standin"

[llm]
provider = "openai"
base_url = "{chat}"
model = "fake"

[tts]
provider = "standin"
"""


class House:
    """The gateway with both agents, the servers of their models, and the caller."""

    def __init__(self, start_gateway: Any, folder: Path) -> None:
        self.start, self.folder = start_gateway, folder
        self.realtime, self.chat = OpenAiRealtimeServer(key=KEY), OpenAiServer()
        self.realtime.transcript_s = 0.1

    def call(self, actions: Sequence[Action], terms: str = "", more: str = "") -> tuple[CallReport, Mapping[str, Any]]:
        return asyncio.run(self._call(actions, terms, more))

    async def _call(self, actions: Sequence[Action], terms: str, more: str) -> tuple[CallReport, Mapping[str, Any]]:
        async with self.realtime, self.chat:
            urls = {"url": self.realtime.base_url, "chat": self.chat.base_url}
            clinic, billing = self.folder / "clinic.toml", self.folder / "billing.toml"
            clinic.write_text(CLINIC.format(**urls, terms=terms, more=more))
            billing.write_text(BILLING.format(**urls))
            gateway = await asyncio.to_thread(self.start, clinic, openai__api_key=KEY)
            report = await place_call(CallOptions(gateway.origin, actions, api_url=gateway.origin))
        assert gateway.complaints() == []
        assert KEY not in gateway.log
        assert "invalid_event" not in [code for session in self.realtime.sessions for code in session.refused]
        assert report.record is not None
        return report, report.record

    def asked(self, at: int) -> list[tuple[str, Any]]:
        """What the chat model was told at that request: roles and texts, without instructions."""
        return [(m["role"], m["content"]) for m in self.chat.requests[at].body["messages"][1:]]


@pytest.fixture
def house(start_gateway: Any, tmp_path: Path) -> House:
    return House(start_gateway, tmp_path)


def said(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(turn["caller_text"], turn["agent_text"]) for turn in record["turns"]]


def changes(record: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    changed = [event["data"] for event in record["events"] if event["kind"] == "agent_changed"]
    return [(each["before"], each["agent"], each["why"]) for each in changed]


def texts(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of a realtime session's items."""
    return [
        item["content"][0]["text"] if item["type"] == "message" else item.get("name") or item["output"]
        for item in items
    ]


def silence_after(report: CallReport, at: int, spoken_ms: int) -> float:
    """Behind the line of that length with which the caller's answer `at` begins, up to whoever goes on."""
    answer = report.answers[at]
    if answer.heard_ms > spoken_ms + 100:
        return answer.largest_gap_ms
    return report.answers[at + 1].at_ms - answer.at_ms - answer.heard_ms


def hands_off(words: str, agent: str) -> Answer:
    return Answer(words, Call("hand_off", f'{{"agent": "{agent}"}}'), finish="tool_calls")


def test_a_caller_goes_to_billing_and_back_and_everybody_knows_what_was_said(house: House) -> None:
    back = "I give you back."
    house.chat.answers += [hands_off("Billing will help you.", "billing"), Answer("You asked about an invoice.")]
    house.realtime.transcripts += ["and who are you", "thank you the front desk please"]
    house.realtime.replies += [
        Reply("It is twelve dollars.", spoken("It is twelve dollars."), first_s=0.2),
        Reply("I am billing.", spoken("I am billing."), first_s=0.2),
        Reply(back, spoken(back), (Tool("hand_off", '{"agent": "clinic"}', "call_back"),), first_s=0.2),
    ]
    actions: list[Action] = [Listen(), Say(PHRASE), Listen(), Pause(4000)]
    actions += [Say("and who are you"), Listen(), Say("thank you the front desk please"), Listen(), Pause(4000)]
    actions += [Say("what did I ask"), Listen(), HangUp()]
    report, record = house.call(actions)
    assert report.ok
    assert silence_after(report, 1, 4 * WORD_MS) < 1500
    assert said(record) == [
        ("", "Elm Street Clinic, hello."),
        ("caller phrase", "Billing will help you."),
        ("", "It is twelve dollars."),  # the caller's own words, answered by the one who knows
        ("and who are you", "I am billing."),
        ("thank you the front desk please", back),
        ("", "Front desk again, what else?"),
        ("caller phrase", "You asked about an invoice."),
    ]
    assert changes(record) == [("Clinic", "Billing desk", "handed_off"), ("Billing desk", "Clinic", "handed_off")]
    assert record["agent"] == "Clinic"
    assert record["end_reason"] == "caller_hung_up"
    tools = {tool["function"]["name"]: tool["function"] for tool in house.chat.requests[0].body["tools"]}
    assert tools["hand_off"]["parameters"]["properties"]["agent"]["enum"] == ["billing"]
    assert "questions about invoices" in tools["hand_off"]["parameters"]["properties"]["agent"]["description"]
    [session] = house.realtime.sessions
    assert session.config["instructions"].startswith("You know all invoices.")
    greeting, question, answer, tool, result = texts(session.items)[:5]
    assert (greeting, question) == ("Elm Street Clinic, hello.", "caller phrase")
    assert (answer, tool) == ("Billing will help you.", "hand_off")
    assert '"ok": true' in result
    assert "caller phrase" not in texts(session.items)[5:]
    assert session.closed.is_set()
    told = house.asked(1)
    assert [text for role, text in told if role != "tool"] == [
        "Elm Street Clinic, hello.",
        "caller phrase",
        "Billing will help you.",
        "It is twelve dollars.",
        "and who are you",
        "I am billing.",
        "thank you the front desk please",
        back,
        "Front desk again, what else?",
        "caller phrase",
    ]


def test_a_hand_off_is_void_when_the_caller_talks_over_it(house: House) -> None:
    long = "Billing will help you with that in a moment and I shall tell them everything that you have told me so far."
    house.chat.answers += [hands_off(long, "billing"), Answer("I am the front desk."), Answer("Unasked.")]
    actions: list[Action] = [Listen(), Say(PHRASE), Pause(2500), Say("no wait please stay with me for now"), Listen()]
    _, record = house.call([*actions, Pause(1500), HangUp()])
    assert changes(record) == []
    assert house.realtime.sessions == []
    assert said(record)[-1] == ("caller phrase", "I am the front desk.")
    [result] = [text for role, text in house.asked(1) if role == "tool"]
    assert '"interrupted"' in result


LONG = "[context]\nmax_tokens = 200\nkeep_messages = 2\n"


@pytest.mark.parametrize("fails", [False, pytest.param(True, marks=pytest.mark.show)])
def test_of_a_long_conversation_the_model_is_told_a_summary_and_not_the_old_messages(house: House, fails: bool) -> None:
    story = "You told me of the {} thing, " + "unquestionably " * 26 + "so."
    ordinals = ("first", "second", "third", "fourth")
    summed = Refusal(500) if fails else Answer("The caller told of three things.", usage=(700, 9))
    house.chat.answers += [Answer(story.format(ordinals[0])), Answer(story.format(ordinals[1])), summed]
    house.chat.answers += [Answer("All noted.")]
    actions: list[Action] = [Listen()]
    for _ in range(2):
        actions += [Say("there is something I want to tell you"), Listen()]
    actions += [Pause(1500), Say("is that all noted"), Listen(), HangUp()]
    _, record = house.call(actions, more="", terms="\n" + LONG)
    kinds = [event["kind"] for event in record["events"]]
    assert ("context_not_summarised" if fails else "context_summarised") in kinds
    summary = house.chat.requests[2].body["messages"]
    assert "Sum it up" in summary[-1]["content"]
    assert "first thing" in summary[-1]["content"]
    last = house.chat.requests[3].body["messages"]
    everything = " ".join(str(message["content"]) for message in last)
    assert ("first thing" in everything) is fails  # nothing is forgotten for want of a summary
    assert "second thing" in everything
    assert ("The caller told of three things." in last[1]["content"]) is not fails
    assert said(record)[-1] == ("caller phrase", "All noted.")
    counted = [u["quantity"] for u in record["usage"] if u["unit"] == "tokens_in"]
    assert (700 in counted) is not fails
