"""Calls that talk to a realtime model: real gateway processes and callers, and a server that speaks the wire protocol.

The model speaks espeak-ng's audio as it came, and hears by timing; the record, the server's view and what the caller's
side played are laid beside each other.
"""

import asyncio
import importlib.util
import wave
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.backends import spoken_mulaw as spoken
from tests.fakes.openai_realtime_server import OpenAiRealtimeServer, Refusal, Reply, Tool
from tests.fakes.openai_server import Answer, OpenAiServer
from trunkline.media import g711
from trunkline.testing.caller.commands import (
    Action,
    CallOptions,
    CallReport,
    HangUp,
    Listen,
    ListenInto,
    Pause,
    Say,
    place_call,
)
from trunkline.testing.ports import lease
from trunkline.types import FRAME_MS

pytestmark = pytest.mark.e2e

needs_sip = pytest.mark.skipif(importlib.util.find_spec("pjsua2") is None, reason="pjsua2 is not installed: make pjsip")
KEY = "sk-the-bakery-s-own-key"
PHRASE = "when do you open on Saturday"
STORY = (
    "We open at seven in the morning when the bread is warm and the rolls come out of the oven every hour until noon "
    "and in the afternoon there is cake and on Sundays we sleep late as every good baker should"
)
"""Without a pause: where it is cut off, what is heard ends."""
AGENT = """
name = "Bakery"
greeting = "Corner Bakery, hello."

[realtime]
provider = "openai"
base_url = "{url}"
model = "fake"
instructions = "You sell bread."
{terms}

[stt]
provider = "standin"

[llm]
provider = "openai"
base_url = "{chat}"
model = "fake"

[tts]
provider = "standin"
"""


class Bakery:
    """The gateway, the two servers and the caller of one test."""

    def __init__(self, start_gateway: Any, folder: Path) -> None:
        self.start, self.folder = start_gateway, folder
        self.realtime, self.chat = OpenAiRealtimeServer(key=KEY), OpenAiServer()
        self.realtime.line = Reply(audio=spoken("Corner Bakery, hello."))
        self.realtime.transcript_s = 0.2
        self.gateway: Any = None

    def call(
        self,
        actions: Sequence[Action],
        terms: str = "",
        sip: bool = False,
        beside: Callable[["Bakery"], Awaitable[None]] | None = None,
    ) -> tuple[CallReport, Mapping[str, Any]]:
        return asyncio.run(self._call(actions, terms, sip, beside))

    async def _call(self, actions: Any, terms: str, sip: bool, beside: Any) -> tuple[CallReport, Mapping[str, Any]]:
        async with self.realtime, self.chat:
            agent = self.folder / "bakery.toml"
            agent.write_text(AGENT.format(url=self.realtime.base_url, chat=self.chat.base_url, terms=terms))
            port = lease()
            more = {"sip__port": str(port), "sip__enabled": "true"} if sip else {}
            self.gateway = await asyncio.to_thread(self.start, agent, openai__api_key=KEY, **more)
            target = f"sip:+15005550001@127.0.0.1:{port}" if sip else self.gateway.origin
            options = CallOptions(target, actions, api_url=self.gateway.origin, out=self.folder / "call.wav")
            task = asyncio.create_task(beside(self)) if beside is not None else None
            report = await place_call(options)
            if task is not None:
                await task
        assert report.record is not None
        assert self.gateway.complaints() == []
        assert KEY not in self.gateway.log
        assert "invalid_event" not in [code for session in self.realtime.sessions for code in session.refused]
        return report, report.record


@pytest.fixture
def bakery(start_gateway: Any, tmp_path: Path) -> Bakery:
    return Bakery(start_gateway, tmp_path)


def said(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(turn["caller_text"], turn["agent_text"]) for turn in record["turns"]]


def test_a_caller_talks_to_the_model_and_its_goodbye_is_heard(bakery: Bakery) -> None:
    goodbye = "It was a pleasure, goodbye."
    bakery.realtime.transcripts += [PHRASE, "thank you"]
    bakery.realtime.replies += [
        Reply("We open at seven.", spoken("We open at seven."), first_s=0.3),
        Reply(goodbye, spoken(goodbye), (Tool("hang_up"),), first_s=0.3),
    ]
    report, record = bakery.call([Listen(), Say(PHRASE), Listen(), Say("thank you very much indeed"), Listen()])
    assert (report.end, report.close_code) == ("server_closed", 1000)
    assert said(record) == [
        ("", "Corner Bakery, hello."),
        (PHRASE, "We open at seven."),
        ("thank you", goodbye),
    ]
    assert record["end_reason"] == "agent_hung_up"
    session = bakery.realtime.session
    assert len(bakery.realtime.sessions) == 1
    assert session.config["audio"]["input"]["format"] == {"type": "audio/pcmu"}
    assert session.config["instructions"].startswith("You sell bread.")
    assert len(session.utterances) == 2
    assert session.closed.is_set()
    heard_ms = [answer.heard_ms for answer in report.answers]
    for heard, audio in zip(heard_ms[1:], (spoken("We open at seven."), spoken(goodbye)), strict=True):
        assert 0 <= heard - len(audio) // 8 <= FRAME_MS
    tokens = sorted((u["unit"], u["quantity"]) for u in record["usage"] if u["kind"] == "realtime")
    assert len(tokens) == 4 * 3
    assert all(turn["total_ms"] < 1600 for turn in record["turns"][1:])  # 600 of silence, 300 of the model


def played_ms(bakery: Bakery, audio: bytes) -> tuple[float, float]:
    """How much of this audio the caller's side played: at least up to the last of its sound, at most up to the first
    sample that is another. The two differ where it was cut within silence."""
    with wave.open(str(bakery.folder / "call.wav"), "rb") as file:
        both = np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, 2)
    heard, said = both[:, 1], np.frombuffer(g711.decode(audio, "mulaw"), np.int16)
    loud = int(np.flatnonzero(np.abs(said) > 500)[0])
    needle = said[loud : loud + 800]
    for start in np.flatnonzero(heard == needle[0]).tolist():
        if np.array_equal(heard[start : start + len(needle)], needle):
            rest = heard[start:][: len(said) - loud]
            same = rest == said[loud : loud + len(rest)]
            at_most = len(same) if same.all() else int(same.argmin())
            at_least = int(np.flatnonzero(rest[:at_most])[-1]) + 1
            return (loud + at_least) / 8, (loud + at_most) / 8
    raise AssertionError("none of it was heard")


def cut_at(bakery: Bakery, record: Mapping[str, Any]) -> tuple[float, float, int]:
    """What the caller's side played of the answer that was cut, at least and at most, and what the model was told."""
    [(item, told_ms)] = bakery.realtime.session.truncated
    assert item in bakery.realtime.session.spoken
    at_least, at_most = played_ms(bakery, spoken(STORY))
    assert 2000 < at_least <= at_most < len(spoken(STORY)) / 8 - 500
    turn = next(turn for turn in record["turns"] if turn["interrupted"])
    words = turn["agent_text"].split()
    assert STORY.split()[: len(words)] == words
    assert 0 < len(words) < len(STORY.split()) * at_most * 8 / len(spoken(STORY)) + 1
    assert not turn["heard_exact"]
    return at_least, at_most, told_ms


INTERRUPTS: list[Action] = [
    Listen(),
    Say(PHRASE),
    ListenInto(2500),
    Say("no stop please I want to know about tomorrow"),
    Listen(),
    HangUp(),
]


@pytest.mark.parametrize("terms", ["", pytest.param('turns = "server"', marks=pytest.mark.show)])
def test_an_interrupted_item_is_truncated_where_a_twilio_caller_stopped_hearing_it(bakery: Bakery, terms: str) -> None:
    bakery.realtime.transcripts += [PHRASE, "and tomorrow"]
    bakery.realtime.replies += [
        Reply(STORY, spoken(STORY), first_s=0.3, between_s=0.05),
        Reply("The same.", spoken("The same."), first_s=0.3),
    ]
    _, record = bakery.call(INTERRUPTS, terms)
    at_least, at_most, told = cut_at(bakery, record)
    assert at_least - 2 * FRAME_MS <= told <= at_most
    assert said(record)[-1] == ("and tomorrow", "The same.")


@needs_sip
@pytest.mark.parametrize("terms", [pytest.param("", marks=pytest.mark.show), 'turns = "server"'])
def test_an_interrupted_item_is_truncated_to_the_frame_on_a_sip_call(bakery: Bakery, terms: str) -> None:
    bakery.realtime.transcripts += [PHRASE, "and tomorrow"]
    bakery.realtime.replies += [
        Reply(STORY, spoken(STORY), first_s=0.3, between_s=0.05),
        Reply("The same.", spoken("The same."), first_s=0.3),
    ]
    _, record = bakery.call(INTERRUPTS, terms, sip=True)
    at_least, at_most, told = cut_at(bakery, record)
    assert told % FRAME_MS == 0
    assert at_least <= told <= at_most + 1 / 8
    assert said(record)[-1] == ("and tomorrow", "The same.")


@pytest.mark.parametrize("sip", [pytest.param(False, marks=pytest.mark.show), pytest.param(True, marks=needs_sip)])
def test_a_call_that_begins_on_the_model_ends_on_the_cascade_and_keeps_its_memory(bakery: Bakery, sip: bool) -> None:
    bakery.realtime.transcripts += ["my name is Ada", PHRASE]
    bakery.realtime.replies += [
        Reply("Good morning, Ada.", spoken("Good morning, Ada."), first_s=0.2),
        Reply(STORY, spoken(STORY), first_s=9e9),
    ]
    bakery.chat.answers += [Answer("Your name is Ada.")]

    async def breaks(bakery: Bakery) -> None:
        server = bakery.realtime
        while not server.sessions or len(server.sessions[0].utterances) < 2:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)  # its words are there
        server.refusals += [Refusal(500)] * 100
        server.drop()

    actions: list[Action] = [Listen(), Say("hello my name is Ada"), Listen(), Say(PHRASE), Listen(), HangUp()]
    _, record = bakery.call(actions, "reconnect_ms = 500", sip=sip, beside=breaks)
    kinds = [event["kind"] for event in record["events"]]
    assert "session_lost" in kinds
    assert kinds.index("model_lost") < kinds.index("agent_changed")
    assert said(record)[-1][1] == "Your name is Ada."
    assert record["end_reason"] == "caller_hung_up"
    [request] = bakery.chat.requests
    assert [(m["role"], m["content"]) for m in request.body["messages"][1:]] == [
        ("assistant", "Corner Bakery, hello."),
        ("user", "my name is Ada"),
        ("assistant", "Good morning, Ada."),
        ("user", PHRASE),
    ]


@pytest.mark.parametrize("sip", [False, pytest.param(True, marks=(needs_sip, pytest.mark.show))])
def test_a_session_that_grows_old_is_followed_and_the_caller_hears_nothing_of_it(bakery: Bakery, sip: bool) -> None:
    answers = ("Good morning, Ada.", "At seven, Ada.")
    server = bakery.realtime
    server.transcripts += ["my name is Ada", PHRASE]
    server.replies += [Reply(text, spoken(text), first_s=0.2) for text in answers]
    server.lasts_s = 11.0  # its successor is opened after 9.9

    async def the_second_lasts(bakery: Bakery) -> None:
        while not server.sessions:
            await asyncio.sleep(0.02)
        await asyncio.sleep(1.0)
        server.lasts_s = None

    actions: list[Action] = [
        Listen(),
        Say("hello my name is Ada"),
        Listen(),
        Pause(5000),
        Say(PHRASE),
        Listen(),
        HangUp(),
    ]
    report, record = bakery.call(actions, sip=sip, beside=the_second_lasts)
    assert report.ok
    kinds = [event["kind"] for event in record["events"]]
    assert kinds.count("session_renewed") == 1
    assert "session_lost" not in kinds
    assert said(record) == [("", "Corner Bakery, hello."), ("my name is Ada", answers[0]), (PHRASE, answers[1])]
    first, second = server.sessions
    assert first.closed.is_set()
    assert [len(session.utterances) for session in (first, second)] == [1, 1]
    assert [item["content"][0]["text"] for item in second.items] == [
        "Corner Bakery, hello.",
        "my name is Ada",
        answers[0],
    ]
    for text in answers:
        _, at_most = played_ms(bakery, spoken(text))
        assert at_most >= len(spoken(text)) / 8 - FRAME_MS


def test_a_session_that_breaks_between_turns_is_not_heard(bakery: Bakery) -> None:
    bakery.realtime.transcripts += ["my name is Ada", PHRASE]
    bakery.realtime.replies += [
        Reply("Good morning, Ada.", spoken("Good morning, Ada."), first_s=0.2),
        Reply("At seven.", spoken("At seven."), first_s=0.2),
    ]

    async def breaks(bakery: Bakery) -> None:
        server = bakery.realtime
        while len(server.sessions) < 1 or len(server.sessions[0].spoken) < 2:
            await asyncio.sleep(0.05)
        await asyncio.sleep(2.5)  # it was heard
        server.drop()

    actions: list[Action] = [
        Listen(),
        Say("hello my name is Ada"),
        Listen(),
        Pause(2500),
        Say(PHRASE),
        Listen(),
        HangUp(),
    ]
    report, record = bakery.call(actions, beside=breaks)
    assert report.ok
    assert said(record) == [
        ("", "Corner Bakery, hello."),
        ("my name is Ada", "Good morning, Ada."),
        (PHRASE, "At seven."),
    ]
    first, second = bakery.realtime.sessions
    assert len(first.utterances) == len(second.utterances) == 1
    assert [item["content"][0].get("text") for item in second.items] == [
        "Corner Bakery, hello.",
        "my name is Ada",
        "Good morning, Ada.",
    ]
