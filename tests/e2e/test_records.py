"""What is known of a call afterwards, who may ask for it, and what the log must not know. With the carrier's token and
an API key set, as on a gateway that is reachable from outside."""

import asyncio
import itertools
import re
from datetime import datetime
from typing import Any

import httpx
import pytest

from trunkline.testing.caller.commands import (
    TEST_ACCOUNT_SID,
    Action,
    CallOptions,
    CallReport,
    HangUp,
    Listen,
    ListenInto,
    Say,
    place_call,
)
from trunkline.testing.caller.phone import new_call_sid
from trunkline.testing.caller.webhook import CallFields

pytestmark = pytest.mark.e2e

TOKEN, KEY = "0123456789abcdef0123456789abcdef", "an-api-key-of-some-length"
FROM, TO = "+14155550134", "+14155550178"
PHRASE = "can you tell me when you are open on Saturday"
ANSWER = " ".join(f"word{i}" + "." * (i % 10 == 9) for i in range(20))
LOCKED = {"twilio__auth_token": TOKEN, "http__api_key": KEY}


def called(gateway: Any, actions: list[Action], **options: Any) -> CallReport:
    options = {"auth_token": TOKEN, "api_url": "auto", "api_key": KEY, "from_number": FROM, "to_number": TO} | options
    return asyncio.run(place_call(CallOptions(gateway.origin, actions, **options)))


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_whole_call_is_in_its_record_and_its_secrets_are_not_in_the_log(start_gateway: Any, log_format: str) -> None:
    gateway = start_gateway(**LOCKED, log__level="debug", log__format=log_format)
    report = called(gateway, [Listen(), Say(PHRASE), ListenInto(1500), Say(PHRASE), Listen(), HangUp()])
    assert report.ok
    assert report.record is not None
    check_call(report, dict(report.record))
    check_turns(report, report.record["turns"])
    check_events(report, report.record["events"], report.record["usage"])
    listed = httpx.get(f"{gateway.origin}/v1/calls", headers={"X-Api-Key": KEY}).json()["calls"]
    assert [call["id"] for call in listed] == [report.record["id"]]
    assert "turns" not in listed[0]
    check_log(gateway.log, report)
    assert gateway.complaints() == []


def check_call(report: CallReport, record: dict[str, Any]) -> None:
    assert record["provider_call_id"] == report.call_sid
    expected = {"direction": "inbound", "leg": "twilio", "agent": "standin", "live": False}
    assert {name: record[name] for name in expected} == expected
    assert (record["from_number"], record["to_number"]) == (FROM, TO)
    assert record["end_reason"] == "caller_hung_up"
    times = [datetime.fromisoformat(record[name]) for name in ("started_at", "answered_at", "ended_at")]
    assert times == sorted(times)
    assert all(time.tzinfo is not None for time in times)
    assert abs((times[2] - times[0]).total_seconds() - report.duration_s) < 1.5


def check_turns(report: CallReport, turns: list[dict[str, Any]]) -> None:
    greeting, cut, last = turns
    assert [turn["index"] for turn in turns] == [0, 1, 2]
    assert greeting["agent_text"].split() == [f"word{i}" for i in range(9)] + ["word9."]
    assert [turn["caller_text"] for turn in turns] == ["", "caller phrase", "caller phrase"]
    assert [turn["interrupted"] for turn in turns] == [False, True, False]
    assert all(turn["heard_exact"] and turn["understood"] and not turn["keyed"] for turn in turns)

    heard = cut["agent_text"].split()
    assert heard == ANSWER.split()[: len(heard)]
    played_ms = report.turns[1].heard_before_barge_in_ms
    assert played_ms is not None
    assert played_ms // 200 - 1 <= len(heard) <= played_ms // 200
    assert last["agent_text"] == ANSWER
    assert 0 < cut["barge_in_ms"] < 1000

    for ours, theirs in zip(report.turns, turns[1:], strict=True):
        assert ours.latency_ms is not None
        parts = [theirs[f"{stage}_ms"] for stage in ("endpointing", "stt", "llm", "tts")]
        assert [part > least for part, least in zip(parts, (190, 45, 345, 95), strict=True)] == [True] * 4
        assert sum(parts) <= theirs["total_ms"] + 1
        # The rig and the gateway time the same two moments, one end of a loopback each.
        assert abs(theirs["total_ms"] - ours.latency_ms) < 500


def check_events(report: CallReport, events: list[dict[str, Any]], usage: list[dict[str, Any]]) -> None:
    kinds = [event["kind"] for event in events]
    assert kinds.count("answered") == kinds.count("media") == 1
    (media,) = (event["data"] for event in events if event["kind"] == "media")
    sent_frames = report.counts["media_out"]
    assert 0.9 * sent_frames <= media["received_frames"] <= sent_frames
    assert (media["lost_ms"], media["clears"]) == (0, 1)
    assert media["sent_ms"] >= sum(answer.heard_ms for answer in report.answers)
    assert media["underrun_ms"] <= 500  # of a busy machine
    stream = [event["data"]["event"] for event in events if event["kind"] == "stream_status"]
    assert sorted(stream) == ["stream-started", "stream-stopped"]

    metered = {(use["provider"], use["kind"], use["unit"]) for use in usage}
    assert {("twilio", "leg", "seconds"), ("standin", "tts", "characters"), ("standin", "llm", "tokens_out")} <= metered
    units = {use["unit"]: use["quantity"] for use in usage if use["kind"] == "leg"}
    assert set(units) == {"seconds", "stream_seconds"}
    assert all(abs(seconds - report.duration_s) < 1.5 for seconds in units.values())
    ats = [datetime.fromisoformat(event["at"]) for event in events]
    assert all(a <= b for a, b in itertools.pairwise(ats))


def check_log(log: str, report: CallReport) -> None:
    assert report.call_sid in log
    for number in (FROM, TO):
        assert number[1:] not in re.sub(r"[ ().-]", "", log)
        assert number[-4:] in log  # which is how an admin finds the call
    assert TOKEN not in log
    assert KEY not in log
    assert not re.search(r"[A-Za-z0-9+/]{100}", log), "that looks like audio"
    for line in log.splitlines():
        assert len(line) < 2000


def test_without_the_key_nobody_learns_of_calls_and_without_a_signature_nobody_makes_one(start_gateway: Any) -> None:
    gateway = start_gateway(**LOCKED)
    form = CallFields(TEST_ACCOUNT_SID, new_call_sid(), FROM, TO).form("ringing")
    with httpx.Client(base_url=gateway.origin) as http:
        for path in ("/v1/calls", "/v1/calls/call_1", "/metrics"):
            assert http.get(path).status_code == 401
            assert http.get(path, headers={"Authorization": f"Bearer {KEY}x"}).status_code == 401
            assert http.get(path, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 401
        assert http.delete("/v1/calls/call_1").status_code == 401
        assert (http.get("/healthz").status_code, http.get("/readyz").status_code) == (200, 200)
        for path in ("/twilio/voice", "/twilio/status", "/twilio/continue?n=0", "/twilio/stream-status"):
            for headers in ({}, {"X-Twilio-Signature": "bm90IGEgc2lnbmF0dXJlIGF0IGFsbA=="}):
                answer = http.post(path, data=form, headers=headers)
                assert answer.status_code == 403, (path, answer.text)
                assert "<Stream" not in answer.text
        with_key = {"Authorization": f"Bearer {KEY}"}
        assert http.get("/v1/calls", headers=with_key).json()["calls"] == []

        forged = called(gateway, [Listen(), HangUp()], auth_token=TOKEN[::-1])
        assert (forged.end, "403" in forged.detail) == ("failed", True)
        assert http.get("/v1/calls", headers=with_key).json()["calls"] == []
        report = called(gateway, [Listen(), HangUp()])
        assert report.ok
        assert [call["provider_call_id"] for call in http.get("/v1/calls", headers=with_key).json()["calls"]] == [
            report.call_sid
        ]
        assert http.get("/metrics", headers=with_key).status_code == 200
    assert gateway.complaints() == []
