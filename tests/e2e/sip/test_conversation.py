"""The spoken conversation over SIP, with our own caller: what Twilio's tests ask of the gateway, and what only SIP has.

The caller's own stream is exact (every packet is stamped by the kernel), so reactions are measured on the wire.
"""

import asyncio
import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from trunkline.testing.caller import wire
from trunkline.testing.caller.commands import (
    Action,
    BenchOptions,
    BenchReport,
    CallOptions,
    CallReport,
    FallSilent,
    HangUp,
    Keys,
    Listen,
    Pause,
    Say,
    SipOptions,
    Vanish,
    bench_sip,
    parse_script,
    place_call,
    to_json,
)
from trunkline.testing.caller.sip import rtp, sockets, stream

pytestmark = pytest.mark.e2e

Start = Callable[..., Any]  # conftest.sip_gateway

REPOSITORY = Path(__file__).parents[3]
AGENTS = Path(__file__).parents[1] / "agents"
PHRASE = "can you tell me when you are open on Saturday"
MEDIA_TIMEOUT_S = 3.0


def options(gateway: Any, *actions: Action, **more: Any) -> CallOptions:
    target = f"sip:+15005550001@127.0.0.1:{gateway.sip_port}"
    return CallOptions(target, actions, api_url=gateway.origin, **more)


def call(gateway: Any, *actions: Action, **more: Any) -> CallReport:
    return asyncio.run(place_call(options(gateway, *actions, **more)))


def turns_of(report: CallReport) -> list[dict[str, Any]]:
    assert report.record is not None, report
    return list(report.record["turns"])


def event(report: CallReport, kind: str) -> dict[str, Any]:
    assert report.record is not None, report
    return dict(next(found["data"] for found in report.record["events"] if found["kind"] == kind))


# --- the clinic -----------------------------------------------------------------------------------------------------


def test_the_clinics_conversation_is_the_same_over_sip(sip_gateway: Start) -> None:
    """Four turns and a goodbye, one interruption, a number keyed: scripts/clinic.caller, as `make call` has it."""
    gateway = sip_gateway(agent=None)
    script = parse_script((REPOSITORY / "scripts" / "clinic.caller").read_text())
    report = call(gateway, *script, noise_dbfs=-50.0)
    greeting, hours, confirm, keyed, where, goodbye = turns_of(report)
    assert greeting["agent_text"].startswith("Elm Street Clinic, this is the automated front desk.")
    assert hours["caller_text"] == "what are your opening hours"
    assert confirm["caller_text"] == "i want to confirm my appointment"
    assert (keyed["caller_text"], keyed["keyed"]) == ("4711", True)
    assert "four seven one one" in keyed["agent_text"]
    assert where["caller_text"] == "where is the clinic"
    assert "opposite the library" in where["agent_text"]
    assert goodbye["caller_text"] == "goodbye"
    assert hours["interrupted"]
    assert 0 < len(hours["agent_text"].split()) < 12
    assert not any(turn["interrupted"] for turn in (greeting, confirm, keyed, where, goodbye))
    for turn in (hours, confirm, where, goodbye):
        assert 0 < turn["endpointing_ms"] < 1500
        assert turn["total_ms"] < 2500
    assert report.end == "server_closed"
    assert report.record is not None
    assert report.record["end_reason"] == "agent_hung_up"
    assert event(report, "sip_media")["mos"] > 4
    assert report.sip is not None
    assert report.sip.rtp["lost"] == 0
    gateway.is_well()


def test_digits_by_info_are_digits(sip_gateway: Start) -> None:
    gateway = sip_gateway(agent=None)
    actions = (Listen(), Keys("2"), Listen(), Keys("4711"), Listen(), HangUp())
    report = call(gateway, *actions, sip=SipOptions(dtmf="info"))
    assert [turn["caller_text"] for turn in turns_of(report) if turn["keyed"]] == ["2", "4711"]
    gateway.is_well()


# --- interruptions --------------------------------------------------------------------------------------------------


def benched(gateway: Any, **more: Any) -> BenchReport:
    target = f"sip:+15005550001@127.0.0.1:{gateway.sip_port}"
    return asyncio.run(bench_sip(BenchOptions(target, api_url=gateway.origin, **more)))


@pytest.mark.alone
def test_the_agent_is_silent_within_a_tenth_of_a_second_of_the_callers_first_word(sip_gateway: Start) -> None:
    """The promise is for 95 of 100. From the first frame of speech sent to the last agent audio received."""
    gateway = sip_gateway()
    report = benched(gateway, calls=8, duration_s=30, interrupt_share=1.0, seed=21)
    print(f"barge-in over SIP: {report.barge_in_ms}, {report.interruptions} of them; answers {report.turn_ms}")
    assert not report.failed_calls, report.failed_calls
    assert report.interruptions >= 30
    assert report.missed_clears == 0
    assert report.barge_in_ms.p95 is not None
    assert report.barge_in_ms.p95 < 100
    assert report.gaps == 0, to_json(report)


def test_the_record_holds_the_words_that_were_played_at_most_one_less(sip_gateway: Start) -> None:
    """tests/e2e/test_heard.py, where the bridge counts frames instead of a carrier's marks."""
    gateway = sip_gateway()
    report = benched(gateway, calls=8, duration_s=26, interrupt_share=1.0, heard=True, seed=11)
    assert not report.failed_calls, report.failed_calls
    judged = [cut.words_more for cut in report.cuts if cut.words_more is not None]
    assert len(judged) >= 25, to_json(report)
    assert len(judged) >= 0.8 * len(report.cuts), to_json(report)
    assert max(judged) <= 0, judged
    assert min(judged) >= -1, judged


# --- bad networks ---------------------------------------------------------------------------------------------------


@pytest.fixture
def bad_path(monkeypatch: pytest.MonkeyPatch) -> random.Random:
    """Of what our caller sends and receives 2 % is lost, and all comes up to 40 ms late, out of order."""
    chance = random.Random(5)
    sent = sockets.StampedSocket.send
    receive = stream.RtpStream.receive

    def send(self: sockets.StampedSocket, data: bytes, to: tuple[str, int]) -> None:
        if rtp.parse(data) is None or data[:1] != b"\x80":  # SIP has its own remedies
            sent(self, data, to)
        elif chance.random() >= 0.02:
            late_s = chance.random() * 0.04
            asyncio.get_running_loop().call_later(late_s, _unless_closed, sent, self, data, to)

    def lossy(self: stream.RtpStream, data: bytes | str, now: float) -> Any:
        return wire.NOTHING if chance.random() < 0.02 else receive(self, data, now)

    monkeypatch.setattr(sockets.StampedSocket, "send", send)
    monkeypatch.setattr(stream.RtpStream, "receive", lossy)
    return chance


def _unless_closed(send: Any, sock: sockets.StampedSocket, data: bytes, to: tuple[str, int]) -> None:
    if sock.sock.fileno() >= 0:
        send(sock, data, to)


@pytest.mark.usefixtures("bad_path")
def test_two_percent_loss_and_40_ms_of_jitter_are_borne(sip_gateway: Start) -> None:
    gateway = sip_gateway(agent=None)
    asked = ("what are your opening hours", "where is the clinic")
    actions = [step for text in asked for step in (Listen(), Say(text))]
    report = call(gateway, *actions, Listen(), HangUp())
    turns = turns_of(report)
    understood = [turn["caller_text"] for turn in turns if turn["understood"]]
    assert [text for text in asked if text in understood] == list(asked), understood
    media = event(report, "sip_media")
    assert 0.5 < media["in_loss_percent"] < 6, media
    assert media["in_jitter_ms"] > 5, media
    assert 2.5 < media["mos"] < 4.35, media
    assert report.record is not None
    assert report.record["end_reason"] == "caller_hung_up"
    gateway.is_well()


def test_a_telephone_that_sends_nothing_while_its_user_is_silent_is_understood(
    sip_gateway: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silence suppression without comfort noise: the end of a turn is no packet at all, and the call is not lost."""
    gateway = sip_gateway(agent=None, sip__media_timeout_s=str(MEDIA_TIMEOUT_S))
    media = stream.RtpStream.media
    silent: dict[int, int] = {}

    def sparing(self: stream.RtpStream, payload: bytes) -> bytes:
        packet = media(self, payload)
        quiet = silent[id(self)] = 0 if payload.strip(rtp.QUIET) else silent.get(id(self), 0) + 1
        return packet if quiet % 100 < 5 else b""  # a sign of life every two seconds, as RTCP would be

    monkeypatch.setattr(stream.RtpStream, "media", sparing)
    report = call(gateway, Listen(), Say("what are your opening hours"), Listen(), HangUp())
    hours = turns_of(report)[1]
    assert hours["caller_text"] == "what are your opening hours"
    assert hours["endpointing_ms"] < 1500
    assert report.record is not None
    assert report.record["end_reason"] == "caller_hung_up"
    assert report.counts["packets_out"] > 0
    gateway.is_well()


# --- ends -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("far_end", ["silent", "gone"])
def test_a_far_end_that_is_no_longer_heard_is_media_lost(far_end: str, sip_gateway: Start) -> None:
    gateway = sip_gateway(sip__media_timeout_s=str(MEDIA_TIMEOUT_S))
    last = FallSilent(10_000) if far_end == "silent" else Vanish()
    started = time.monotonic()
    report = call(gateway, Listen(), last)
    record = gateway.ended(within_s=10)
    assert record.end() == ("media_lost", "no media")
    assert time.monotonic() - started < 4 + MEDIA_TIMEOUT_S + 2
    if far_end == "silent":
        assert report.end == "server_closed"  # we say BYE, whoever may still be there
    gateway.is_well()


def test_a_call_at_its_limit_hears_goodbye(sip_gateway: Start) -> None:
    gateway = sip_gateway(limits__max_call_seconds="10")
    report = call(gateway, Listen(), Pause(60_000), HangUp())
    assert report.end == "server_closed"
    assert report.record is not None
    assert report.record["end_reason"] == "max_duration"
    assert len(report.answers) == 2  # the greeting, and goodbye
    assert 9 < report.duration_s < 20
    gateway.is_well()


async def _during(gateway: Any, script: Sequence[Action], happens: Callable[[], Any]) -> CallReport:
    live = asyncio.create_task(place_call(replace(options(gateway, *script), api_url="")))
    async with httpx.AsyncClient() as http:
        for _ in range(200):
            if "trunkline_calls_live 1.0" in (await http.get(gateway.origin + "/metrics")).text:
                break
            await asyncio.sleep(0.05)
    await asyncio.sleep(1)
    await asyncio.to_thread(happens)
    return await live


def reasons(data_dir: Path) -> list[str]:
    with sqlite3.connect(data_dir / "trunkline.db") as database:
        return [row[0] for row in database.execute("SELECT end_reason FROM calls ORDER BY started_at")]


def test_sigterm_lets_the_call_finish_and_turns_new_ones_away_with_503(sip_gateway: Start) -> None:
    gateway = sip_gateway(limits__drain_seconds="30")
    turned_away: list[CallReport] = []

    def stop() -> None:
        gateway.signal()
        time.sleep(0.7)
        turned_away.append(asyncio.run(place_call(replace(options(gateway, Listen(), HangUp()), api_url=""))))

    script: list[Action] = [Listen(), Say(PHRASE), Listen(), HangUp()]
    report = asyncio.run(_during(gateway, script, stop))
    assert report.end == "hung_up"
    assert len(report.answers) == 2
    assert turned_away[0].sip is not None
    assert turned_away[0].sip.code == 503
    assert gateway.wait() == 0
    assert reasons(gateway.data_dir) == ["caller_hung_up"]
    assert gateway.complaints() == []


def test_a_drain_that_ends_says_goodbye_and_bye(sip_gateway: Start) -> None:
    gateway = sip_gateway(limits__drain_seconds="1")

    def stop() -> None:
        time.sleep(2)  # the greeting has been heard
        gateway.signal()

    report = asyncio.run(_during(gateway, [Listen(), Pause(60_000), HangUp()], stop))
    assert report.end == "server_closed"
    assert gateway.wait() == 0
    assert sum(answer.heard_ms for answer in report.answers) > 2500, report.answers  # the greeting's 2 s, and goodbye
    assert reasons(gateway.data_dir) == ["drained"]
    assert gateway.complaints() == []


def test_a_gateway_that_was_killed_closes_the_record_when_it_is_back(sip_gateway: Start) -> None:
    """And takes calls on the same port."""
    first = sip_gateway(sip__media_timeout_s=str(MEDIA_TIMEOUT_S))

    async def scenario() -> None:
        live = asyncio.create_task(place_call(replace(options(first, Listen(), Pause(60_000)), api_url="")))
        await asyncio.sleep(3)
        first.kill()
        live.cancel()
        await asyncio.gather(live, return_exceptions=True)

    asyncio.run(scenario())
    again = sip_gateway(sip__port=str(first.sip_port), data_dir=str(first.data_dir))
    again.until(lambda: reasons(first.data_dir)[0] is not None)
    assert reasons(first.data_dir) == ["gateway_lost"]
    report = call(again, Listen(), HangUp())
    assert report.end == "hung_up"
    again.is_well()
