"""When the agent takes the turn, by what was said: real processes, real time, Twilio's protocol.

Ears and mind are servers that speak Deepgram's and OpenAI's protocols; the voice is the stand-in.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.deepgram_server import DeepgramServer
from tests.fakes.http_server import Request
from tests.fakes.openai_server import Answer, OpenAiServer
from trunkline.testing.caller.commands import Action, CallOptions, HangUp, Listen, Pause, Say, place_call

pytestmark = pytest.mark.e2e

AGENT = """
name = "Bakery"
greeting = "Hello."
filler = []

[stt]
provider = "deepgram"
url = "{ears}"

[llm]
provider = "openai"
base_url = "{mind}"
model = "fake"

[tts]
provider = "standin"

[failover]
lifeboat = false
"""
FIRST_TOKEN_S = 0.3


def call(
    start_gateway: Any, folder: Path, lines: Sequence[str], actions: Sequence[Action], more: str
) -> tuple[Mapping[str, Any], list[Request]]:
    """The record, and what the model was asked. `lines`: what is heard of each stretch of speech."""

    async def run() -> tuple[Mapping[str, Any], list[Request]]:
        async with DeepgramServer(*lines) as ears, OpenAiServer() as mind:
            mind.answers.extend(Answer("We open at eight.", delay_s=FIRST_TOKEN_S) for _ in range(8))
            agent = folder / "bakery.toml"
            agent.write_text(AGENT.format(ears=ears.url, mind=mind.base_url) + more)
            gateway = await asyncio.to_thread(start_gateway, agent)
            report = await place_call(
                CallOptions(gateway.origin, [Listen(), *actions, Listen(), HangUp()], api_url="auto")
            )
            assert gateway.complaints() == []
            assert report.record is not None
            assert not any(turn.talked_over for turn in report.turns[1:]), report.turns
            return report.record, mind.requests

    return asyncio.run(run())


def said(record: Mapping[str, Any]) -> list[str]:
    return [turn["caller_text"] for turn in record["turns"] if turn["caller_text"]]


NUMBER = (Say("my number is"), Pause(1200), Say("five five five"))


def test_a_caller_who_looks_for_their_number_is_not_cut_and_a_question_is_answered_at_once(
    start_gateway: Any, tmp_path: Path
) -> None:
    lines = ["my number is", "five five five", "What are your opening hours?"]
    actions: list[Action] = [*NUMBER, Listen(), Say("what are your opening hours")]
    record, requests = call(start_gateway, tmp_path, lines, actions, "")
    assert said(record) == ["my number is five five five", "What are your opening hours?"]
    assert len(requests) == 2
    question = record["turns"][-1]
    assert 180 <= question["endpointing_ms"] < 400, question  # turns.endpointing_min_ms, and the ears' time
    assert not any(turn["interrupted"] for turn in record["turns"])


def test_where_silence_alone_tells_they_are_cut(start_gateway: Any, tmp_path: Path) -> None:
    """That it is the detector who waits."""
    more = '[turn_detector]\nprovider = "none"\n'
    record, requests = call(start_gateway, tmp_path, ["my number is", "five five five"], NUMBER, more)
    assert len(requests) > 1, said(record)


def test_the_model_is_asked_before_the_turn_has_ended(start_gateway: Any, tmp_path: Path) -> None:
    lines = ["What are your opening hours?"]
    more = "[turns]\nspeculate = true\nendpointing_min_ms = 600\n"
    record, requests = call(start_gateway, tmp_path, lines, [Say("what are your opening hours")], more)
    (turn,) = [turn for turn in record["turns"] if turn["caller_text"]]
    assert turn["endpointing_ms"] >= 580
    assert turn["llm_ms"] < FIRST_TOKEN_S * 1000 / 2, "it had answered by then"
    assert [event["data"] for event in record["events"] if event["kind"] == "speculation"] == [{"kept": True}]
    assert len(requests) == 1
