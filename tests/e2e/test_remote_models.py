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


@pytest.mark.parametrize("dead", ["ears and mind", pytest.param("voice", marks=pytest.mark.show)])
def test_what_is_killed_in_mid_call_is_followed_by_what_this_process_has(
    dead: str, start_gateway: Any, two_servers: list[Models], tmp_path: Path
) -> None:
    """A server on this machine, too, may be gone while we are here: the lifeboat takes over within the turn."""
    killed, alive = two_servers
    thinking, speaking = (killed, alive) if dead == "ears and mind" else (alive, killed)
    gateway = start_gateway(clinic(tmp_path, [thinking], [thinking], [speaking]))
    actions: list[Action] = [Listen(), Say("what are your opening hours"), Listen(), Say("where is the clinic")]
    actions += [Listen(), Say("goodbye"), Listen(), HangUp()]
    answers = 0

    def kill_after_the_hours(event: Any, started_at: float) -> None:
        nonlocal answers
        answers += event.kind == "agent_done"
        if answers == 2:
            killed.kill()

    async def call() -> CallReport:
        async with asyncio.timeout(CALL_S):
            options = CallOptions(gateway.origin, actions, api_url="auto")
            return await place_call(options, on_event=kill_after_the_hours)

    report = asyncio.run(call())
    texts = [(turn["caller_text"], turn["agent_text"]) for turn in turns_of(report)]
    assert "Our hours are eight to five" in texts[1][1]
    assert texts[2][0] == "where is the clinic"
    assert "opposite the library" in texts[2][1]
    assert texts[3][0] == "goodbye"
    assert report.record is not None
    assert report.record["end_reason"] == "agent_hung_up"
    events = [event["data"] for event in report.record["events"] if event["kind"] == "provider_switched"]
    switched = {(event["provider"], event["following"]) for event in events}
    if dead == "voice":
        assert switched == {("tts.remote", "tts.espeak")}
    else:
        assert switched == {("stt.remote", "stt.pocketsphinx"), ("llm.remote", "llm.script")}
    assert not [event for event in report.record["events"] if event["kind"] in ("reply_failed", "stt_failed")]
    assert all(turn.latency_ms is not None and turn.latency_ms < 2500 for turn in report.turns), report.turns
    assert gateway.complaints() == []
