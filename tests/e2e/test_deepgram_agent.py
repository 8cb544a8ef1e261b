"""The clinic with a server that speaks Deepgram's protocol as its ears and voice: real processes, real time.

The server "recognises" by a script, word by word as audio comes; what the caller says is only how long it is.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.deepgram_server import WORD_MS, AuraServer, Break, Connection, DeepgramServer, Fault, Hang, Refuse
from trunkline.agents import script
from trunkline.agents.examples import example
from trunkline.testing.caller.commands import Action, CallOptions, CallReport, HangUp, Listen, Say, place_call

pytestmark = pytest.mark.e2e

KEY = "dg-the-clinic-s-own-key"
HOURS = "Our hours are eight to five on Monday, Tuesday and Thursday"
PHRASE = "what are your opening hours"
STT = '[stt]\nprovider = "deepgram"\nurl = "{url}"\nmodel = "{model}"\n{more}\n'
TTS = '[tts]\nprovider = "deepgram"\nurl = "{url}"\n'


@dataclass
class Told:
    report: CallReport
    record: Mapping[str, Any]
    connections: Sequence[Connection]
    aura: AuraServer
    log: str

    @property
    def turns(self) -> list[tuple[str, str]]:
        return [(turn["caller_text"], turn["agent_text"]) for turn in self.record["turns"]]


def call(
    start_gateway: Any,
    folder: Path,
    *lines: str,
    model: str = "nova-3",
    more: str = "",
    faults: Sequence[Fault | None] = (),
    always: Fault | None = None,
    aura: bool = False,
    turns: int = 1,
) -> Told:
    """A caller who says PHRASE so many times, hears each answer out and hangs up."""
    actions: list[Action] = []
    for _ in range(turns):
        actions += [Listen(), Say(PHRASE)]

    async def run() -> Told:
        async with DeepgramServer(*lines, faults=faults, always=always) as ears, AuraServer() as voice:
            agent = folder / "clinic.toml"
            text = (
                example("clinic")
                .read_text()
                .replace('[stt]\nprovider = "pocketsphinx"\n', STT.format(url=ears.url, model=model, more=more))
            )
            if aura:
                text = text.replace('[tts]\nprovider = "espeak"\n', TTS.format(url=voice.url))
            assert text.count('"deepgram"') == 1 + aura
            agent.write_text(text)
            (folder / "key").write_text(f"{KEY}\n")
            gateway = await asyncio.to_thread(start_gateway, agent, deepgram__api_key_file=str(folder / "key"))
            options = CallOptions(gateway.origin, [*actions, Listen(), HangUp()], api_url="auto")
            report = await place_call(options)
            assert report.record is not None
            for connection in ears.connections:
                async with asyncio.timeout(2):
                    await connection.closed.wait()
            return Told(report, report.record, ears.connections, voice, gateway.log)

    told = asyncio.run(run())
    assert KEY not in told.log
    assert "Traceback" not in told.log
    return told


@pytest.mark.parametrize(
    ("model", "feed"),
    [("nova-3", "all"), pytest.param("flux-general-en", "all", marks=pytest.mark.show), ("flux-general-en", "gated")],
)
def test_the_clinic_understands_what_deepgram_hears(start_gateway: Any, tmp_path: Path, model: str, feed: str) -> None:
    lines = ["What are your opening hours?", "Where is the clinic?"]
    told = call(start_gateway, tmp_path, *lines, model=model, more=f'feed = "{feed}"', turns=2)
    assert told.report.ok
    (_, greeting), hours, where = told.turns
    assert greeting.startswith("Elm Street Clinic") or greeting
    assert hours[0] == lines[0]
    assert HOURS in hours[1]
    assert where[0] == lines[1]
    assert "library" in where[1]
    assert told.record["end_reason"] == "caller_hung_up"
    (connection,) = told.connections
    assert connection.query["encoding"] == ["mulaw"]
    assert connection.headers["authorization"] == f"Token {KEY}"
    assert connection.kinds()[-1] == "CloseStream"
    seconds = [u["quantity"] for u in told.record["usage"] if (u["provider"], u["unit"]) == ("deepgram", "seconds")]
    assert sum(seconds) == pytest.approx(len(connection.audio) / 8000, abs=1.0)
    if feed == "gated":
        assert len(connection.audio) / 8000 < told.report.duration_s / 2
    assert [event for event in told.record["events"] if event["kind"] == "provider_switched"] == []
    assert all(turn.latency_ms is not None and turn.latency_ms < 1500 for turn in told.report.turns)


def test_a_connection_that_breaks_while_the_caller_speaks_loses_no_word(start_gateway: Any, tmp_path: Path) -> None:
    told = call(start_gateway, tmp_path, PHRASE, more='feed = "gated"', faults=[Break(after_ms=900)])
    assert told.turns[1][0] == PHRASE
    assert HOURS in told.turns[1][1]
    assert len(told.connections) == 2


def test_the_greeting_does_not_wait_for_a_recogniser_that_does_not_answer(start_gateway: Any, tmp_path: Path) -> None:
    told = call(start_gateway, tmp_path, always=Hang(), more="connect_ms = 2000")
    assert told.report.greeting_ms is not None
    assert told.report.greeting_ms < 500
    assert [text for _, text in told.turns if HOURS in text], told.turns  # by the local ears
    assert {
        event["data"]["error"].partition(" ")[2][:7]
        for event in told.record["events"]
        if event["kind"] == "provider_switched"
    } == {"timeout"}


def test_a_wrong_key_is_named_in_the_record_and_the_local_ears_take_over(start_gateway: Any, tmp_path: Path) -> None:
    told = call(start_gateway, tmp_path, always=Refuse(401, message=f"INVALID_AUTH {KEY}"))
    assert [text for _, text in told.turns if HOURS in text], told.turns  # by the local ears
    errors = {event["data"]["error"] for event in told.record["events"] if event["kind"] == "provider_switched"}
    assert errors == {"deepgram: auth (status 401)"}
    assert told.connections == []


def test_auras_voice_is_what_the_caller_hears(start_gateway: Any, tmp_path: Path) -> None:
    told = call(start_gateway, tmp_path, PHRASE, aura=True)
    assert told.report.ok
    assert told.turns[1][0] == PHRASE
    assert HOURS in told.turns[1][1]
    agent = script.load(example("clinic"))
    recorded = {*agent.filler, agent.apology, agent.failure, agent.failover.words, agent.goodbye}  # at start
    phrases = [text for request in told.aura.requests if (text := request.body["text"]) not in recorded]
    words = sum(len(phrase.split()) for phrase in phrases)
    heard_ms = sum(answer.heard_ms for answer in told.report.answers)
    assert heard_ms == pytest.approx(words * WORD_MS, abs=400)
    assert {tuple(request.query["encoding"]) for request in told.aura.requests} == {("mulaw",)}
    characters = sum(
        u["quantity"] for u in told.record["usage"] if (u["provider"], u["unit"]) == ("deepgram", "characters")
    )
    assert characters >= sum(map(len, phrases))
    assert not any(turn["heard_exact"] for turn in told.record["turns"] if turn["interrupted"])


def test_a_missing_key_is_one_clear_line_at_start(start_gateway: Any, tmp_path: Path) -> None:
    agent = tmp_path / "clinic.toml"
    agent.write_text(example("clinic").read_text().replace('provider = "pocketsphinx"', 'provider = "deepgram"'))
    gateway = start_gateway(agent, ready=False)
    assert gateway.process.wait(20) != 0
    lines = [line for line in gateway.log.splitlines() if "deepgram.api_key" in line]
    assert len(lines) == 1
    assert "Traceback" not in gateway.log
