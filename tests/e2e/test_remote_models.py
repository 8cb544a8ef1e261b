"""The clinic whose ears, mind and voice are served by other processes over gRPC: real processes, real time."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.models import CLINIC, Models
from trunkline.testing.caller.commands import Action, CallOptions, CallReport, HangUp, Listen, Say, place_call

pytestmark = pytest.mark.e2e

CALL_S = 120.0
APOLOGY = "I'm sorry, something went wrong on our side. Please say that again."
FAILURE = "I'm sorry, I can't help you right now. Please call again later. Goodbye."


@pytest.fixture
def two_servers(tmp_path: Path) -> Iterator[list[Models]]:
    servers = [Models(tmp_path), Models(tmp_path)]
    try:
        for each in servers:
            each.until_ready()
        yield servers
    finally:
        for each in servers:
            each.kill()


def clinic(folder: Path, stt: Sequence[Models], llm: Sequence[Models], tts: Sequence[Models]) -> Path:
    """Its agent file, with remote providers in the places of its own."""
    text = CLINIC.read_text(encoding="utf-8")
    for local, servers in (("pocketsphinx", stt), ("script", llm), ("espeak", tts)):
        targets = ", ".join(f'"{each.target}"' for each in servers)
        assert text.count(f'provider = "{local}"') == 1
        text = text.replace(f'provider = "{local}"', f'provider = "remote"\ntargets = [{targets}]')
    file = folder / "clinic.toml"
    file.write_text(text, encoding="utf-8")
    return file


async def in_time(options: CallOptions) -> CallReport:
    async with asyncio.timeout(CALL_S):
        return await place_call(options)


def turns_of(report: CallReport) -> list[dict[str, Any]]:
    assert report.record is not None
    return list(report.record["turns"])


def test_a_call_is_heard_answered_and_spoken_to_by_other_processes(
    start_gateway: Any, two_servers: list[Models], tmp_path: Path
) -> None:
    gateway = start_gateway(clinic(tmp_path, two_servers, two_servers, two_servers))
    actions: list[Action] = [Listen(), Say("what are your opening hours"), Listen(), Say("where is the clinic")]
    actions += [Listen(), Say("goodbye"), Listen(), HangUp()]
    report = asyncio.run(in_time(CallOptions(gateway.origin, actions, api_url="auto")))
    greeting, hours, where, goodbye = turns_of(report)
    assert greeting["agent_text"].startswith("Elm Street Clinic, this is the automated front desk.")
    assert hours["caller_text"] == "what are your opening hours"
    assert "Our hours are eight to five on Monday" in hours["agent_text"]
    assert where["caller_text"] == "where is the clinic"
    assert "opposite the library" in where["agent_text"]
    assert goodbye["caller_text"] == "goodbye"
    assert all(turn["heard_exact"] for turn in (greeting, hours, where, goodbye)), "word times are lost on the way"
    assert report.record is not None
    assert report.record["end_reason"] == "agent_hung_up"
    used = {(usage["provider"], usage["kind"]) for usage in report.record["usage"]}
    assert {("remote", "stt"), ("remote", "tts")} <= used
    assert gateway.complaints() == []
    assert not any("ERROR" in models.log or "Traceback" in models.log for models in two_servers)


def test_ears_and_mind_that_are_killed_in_mid_call_are_apologised_for(
    start_gateway: Any, two_servers: list[Models], tmp_path: Path
) -> None:
    """The voice lives elsewhere: the caller is told, twice, and never waits in silence."""
    thinking, speaking = two_servers
    gateway = start_gateway(clinic(tmp_path, [thinking], [thinking], [speaking]))
    actions: list[Action] = [Listen(), Say("what are your opening hours"), Listen(), Say("where is the clinic")]
    actions += [Listen(), Say("where is the clinic"), Listen(), Say("where is the clinic"), Listen(), HangUp()]
    answers = 0

    def kill_after_the_hours(event: Any, started_at: float) -> None:
        nonlocal answers
        answers += event.kind == "agent_done"
        if answers == 2:
            thinking.kill()

    async def call() -> CallReport:
        async with asyncio.timeout(CALL_S):
            options = CallOptions(gateway.origin, actions, api_url="auto")
            return await place_call(options, on_event=kill_after_the_hours)

    report = asyncio.run(call())
    texts = [turn["agent_text"] for turn in turns_of(report) if turn["agent_text"]]
    assert "Our hours are eight to five" in texts[1]
    assert texts[2:] == [APOLOGY, FAILURE]
    assert report.record is not None
    assert report.record["end_reason"] == "error"
    failed = [event["data"] for event in report.record["events"] if event["kind"] == "stt_failed"]
    assert failed
    assert all(each["error"].startswith("remote: unavailable") for each in failed), failed
    assert all(turn.latency_ms is not None and turn.latency_ms < 2500 for turn in report.turns), report.turns
    assert gateway.complaints() == []
