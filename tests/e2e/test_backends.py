"""The clinic on each backend, over Twilio's protocol and SIP: one conversation, in the record and in the sound.

Judged on both recordings, the gateway's and the caller's: a sentence was heard where its loudness, 20 ms by 20 ms, is
found in the sound (one that was never said is not).
"""

import asyncio
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.backends import (
    ASK,
    BACKENDS,
    DIGITS,
    GREETING,
    HOURS,
    INTERRUPTION,
    NEVER_SAID,
    NOTED,
    PARTING,
    QUESTION,
    Shown,
    envelope,
    likeness,
    show,
)
from trunkline.testing.ports import lease

pytestmark = pytest.mark.e2e

needs_sip = pytest.mark.skipif(importlib.util.find_spec("pjsua2") is None, reason="pjsua2 is not installed: make pjsip")
ESTIMATES = {"flux+responses+aura", "openai-speech", "realtime-ours", "realtime-server"}
"""Voices without word times."""


def plain(text: str) -> str:
    return " ".join(text.lower().replace(".", "").replace("?", "").replace(",", "").split())


def judge(shown: Shown) -> None:
    turns = shown.record["turns"]
    greeting, hours, ask, keyed, goodbye = turns
    assert greeting["agent_text"] == GREETING
    assert plain(hours["caller_text"]) == plain(QUESTION)
    assert hours["interrupted"]
    heard = hours["agent_text"].split()
    said = HOURS if shown.backend not in ("embedded", "remote") else hours_of_the_script(hours["agent_text"])
    assert heard == said.split()[: len(heard)], hours
    assert 0 < len(heard) < len(said.split()) - 5, hours
    assert plain(ask["caller_text"]) == plain(INTERRUPTION)
    assert ask["agent_text"] == ASK
    assert (keyed["caller_text"], keyed["keyed"]) == (DIGITS, True)
    assert keyed["agent_text"] == NOTED
    assert "confirm" in keyed["tools"]
    assert shown.asked == [f"/confirm/{DIGITS}"]
    assert plain(goodbye["caller_text"]) == plain(PARTING)
    assert goodbye["agent_text"].endswith("Goodbye.")
    assert shown.record["end_reason"] == "agent_hung_up"
    assert {turn["heard_exact"] for turn in turns} == {shown.backend not in ESTIMATES}
    assert all((turn["total_ms"] or 0) < 4000 for turn in turns[1:]), turns
    assert shown.gateway.complaints() == []
    kinds = {event["kind"] for event in shown.record["events"]}
    assert not kinds & {"provider_switched", "reply_failed", "stt_failed", "model_lost", "session_lost"}, kinds

    for side in (shown.callers[1], shown.gateways[1]):
        found = {text: round(likeness(text, side), 2) for text in (GREETING, ASK, NOTED, NEVER_SAID)}
        print(shown.backend, found)
        assert min(found[text] for text in (GREETING, ASK, NOTED)) > 0.88, found
        assert found[NEVER_SAID] < 0.8, found
        assert likeness(HOURS, side) < 0.85, "the rest of an answer that was interrupted was played"
    callers, ours = envelope(shown.callers[0]), envelope(shown.gateways[0])
    assert abs(int((callers > 1.5).sum()) - int((ours > 1.5).sum())) < 15, (
        "the caller's words are on one recording only"
    )


def hours_of_the_script(heard: str) -> str:
    """What the embedded agent says depends on the time of day."""
    if heard.startswith("We are open right now."):
        return f"We are open right now. {HOURS}"
    head, _, _ = heard.partition(" Our hours")
    return f"{head} {HOURS}" if "Our hours" in heard else f"{heard} {HOURS}"


def cases(*often: str) -> list[Any]:
    """All of them; the others by `make show` only."""
    return [backend if backend in often else pytest.param(backend, marks=pytest.mark.show) for backend in BACKENDS]


@pytest.mark.parametrize("backend", cases("nova+chat+elevenlabs", "realtime-server"))
def test_the_clinic_over_twilios_protocol(backend: str, start_gateway: Any, serve_models: Any, tmp_path: Path) -> None:
    judge(asyncio.run(show(backend, start_gateway, serve_models, tmp_path)))


@needs_sip
@pytest.mark.parametrize("backend", cases("flux+responses+aura"))
def test_the_clinic_over_sip(backend: str, start_gateway: Any, serve_models: Any, tmp_path: Path) -> None:
    judge(asyncio.run(show(backend, start_gateway, serve_models, tmp_path, sip_port=lease())))
