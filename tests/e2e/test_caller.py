"""The caller's edges in real time, against a gateway of tones on loopback."""

import asyncio
import json
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]

from trunkline.testing.caller.commands import (
    Action,
    BenchOptions,
    BenchReport,
    CallOptions,
    CallReport,
    Event,
    FallSilent,
    HangUp,
    Keys,
    Listen,
    ListenInto,
    Misbehave,
    Pause,
    Speak,
    Vanish,
    bench_twilio,
    place_call,
    render_bench,
    render_call,
    render_event,
    to_json,
)
from trunkline.testing.caller.speech import Speech, to_speech
from trunkline.testing.caller.tone import CONNECT, ToneGateway

pytestmark = pytest.mark.e2e


def hello(label: str = "hello", ms: int = 200) -> Speech:
    tone = np.sin(np.arange(8 * ms) * 0.5) * 0.3
    return to_speech(label, np.concatenate([tone, np.zeros(160)]).astype(np.float32))


def call(actions: list[Action], gateway: ToneGateway | None = None, **options: Any) -> tuple[CallReport, ToneGateway]:
    tones = gateway or ToneGateway()
    on_event = options.pop("on_event", None)

    async def run() -> CallReport:
        async with tones.running(), asyncio.timeout(10):
            report = await place_call(CallOptions(tones.origin, actions, **options), on_event=on_event)
            await asyncio.sleep(0.05)
            return report

    return asyncio.run(run()), tones


QUICK = Listen(quiet_ms=40, timeout_s=3)


def test_a_call_is_rung_streamed_measured_and_completed(tmp_path: Path) -> None:
    events: list[Event] = []
    report, tones = call(
        [QUICK, Speak(hello()), ListenInto(100, 3), Speak(hello("wait")), QUICK, Keys("42"), QUICK, HangUp()],
        ToneGateway(answer_ms=600),
        auth_token="secret",
        out=tmp_path / "reply.wav",
        on_event=lambda event, started_at: events.append(event),
    )
    assert (report.end, report.close_code, report.detail) == ("hung_up", 1000, "")
    assert report.greeting_ms is not None
    assert [t.said for t in report.turns] == ["hello", "wait", "42"]
    assert all(t.latency_ms is not None or t.keyed for t in report.turns)
    assert all(90 < t.latency_ms < 300 for t in report.turns[:2] if t.latency_ms is not None)
    assert report.turns[1].interrupting
    assert report.turns[1].barge_in_ms is not None
    assert 100 <= (report.turns[1].heard_before_barge_in_ms or 0) < 600
    assert report.gap_ms <= 40  # a busy machine may be late by a frame
    assert [e.kind for e in events][-1] == "ended"

    paths = [path for path, _, _ in tones.posts]
    assert paths[0] == "/twilio/voice"
    assert sorted(paths[1:]) == ["/twilio/after", "/twilio/status", "/twilio/stream-status", "/twilio/stream-status"]
    validator = RequestValidator("secret")
    assert all(validator.validate(tones.origin + path, form, signature) for path, form, signature in tones.posts)
    stream_events = [form["StreamEvent"] for path, form, _ in tones.posts if path == "/twilio/stream-status"]
    assert stream_events == ["stream-started", "stream-stopped"]
    status = next(form for path, form, _ in tones.posts if path == "/twilio/status")
    assert (status["CallStatus"], status["CallSid"]) == ("completed", report.call_sid)

    sequence = [int(e["sequenceNumber"]) for e in tones.events if e["event"] != "connected"]
    assert sequence == list(range(1, len(sequence) + 1))
    assert tones.events[1]["start"]["customParameters"] == {"token": "t-1"}
    with wave.open(str(tmp_path / "reply.wav")) as wav:
        assert wav.getnchannels() == 2
        assert abs(wav.getnframes() / 8000 - report.duration_s) < 0.5


def test_a_server_that_closes_sends_the_call_on_to_the_action() -> None:
    report, tones = call([QUICK, Speak(hello()), Pause(5000)], ToneGateway(answer_ms=100, closes_after_answers=1))
    assert report.end == "server_closed"
    assert report.verbs == ["Stream", "Say", "Hangup"]
    after = next(form for path, form, _ in tones.posts if path == "/twilio/after")
    assert after["CallStatus"] == "in-progress"


def test_a_call_can_be_said_no_to() -> None:
    report, _ = call([QUICK], ToneGateway(twiml=["<Response><Reject reason='busy'/></Response>"]))
    assert (report.end, report.detail) == ("rejected", "busy")


@pytest.mark.parametrize(
    "twiml",
    [
        "no xml",
        CONNECT.replace("{ws}", "ws://127.0.0.1:1/nobody"),
        "<Response><Redirect>/twilio/voice</Redirect></Response>",
    ],
)
def test_a_server_that_cannot_be_followed_is_reported_not_raised(twiml: str) -> None:
    report, _ = call([QUICK], ToneGateway(twiml=[twiml]))
    assert report.end == "failed"
    assert report.detail
    assert not report.ok


def test_a_vanishing_caller_says_neither_stop_nor_goodbye() -> None:
    report, tones = call([QUICK, Vanish()])
    assert report.end == "vanished"
    assert "stop" not in [e["event"] for e in tones.events]
    assert tones.closed == [1006]
    assert "/twilio/status" not in [path for path, _, _ in tones.posts]


def test_a_silent_caller_stays_connected_without_media() -> None:
    _, tones = call([QUICK, FallSilent(400), HangUp()])
    after = [e["event"] for e in tones.events][-10:]
    assert after[-1] == "stop"
    assert sum(e["event"] == "media" for e in tones.events) < 20


def test_garbage_and_slow_reading_are_done_on_demand() -> None:
    trouble = Misbehave(garbage=((100, "{"), (120, b"\x00")), stop_reading_at_ms=0)
    report, tones = call([Pause(300), HangUp()], misbehave=trouble)
    assert report.end in ("server_lost", "server_closed", "hung_up")  # this gateway chokes on bad JSON; ours must not
    assert tones.closed


async def benched(tones: ToneGateway, options: Callable[[str], BenchOptions]) -> BenchReport:
    async with tones.running(), asyncio.timeout(30):
        return await bench_twilio(options(tones.origin))


def test_callers_in_bulk_measure_turns_interruptions_and_themselves(tmp_path: Path) -> None:
    path = tmp_path / "hello.wav"
    with wave.open(str(path), "wb") as wav:
        wav.setparams((1, 2, 8000, 0, "NONE", ""))
        wav.writeframes((np.sin(np.arange(4000) * 0.5) * 9000).astype("<i2").tobytes())

    def options(origin: str) -> BenchOptions:
        return BenchOptions(
            origin,
            calls=4,
            duration_s=5,
            spread_s=0.2,
            warm_up_s=0.3,
            wavs=[path],
            interrupt_share=0.5,
            interrupt_ms=(100, 400),
            pause_ms=(0, 100),
            heard_dir=tmp_path / "cuts",
        )

    report = asyncio.run(benched(ToneGateway(twiml=[CONNECT], answer_ms=800), options))
    assert report.ok, to_json(report)
    assert report.turns >= 6
    assert report.turn_ms.p50 is not None
    assert 90 < report.turn_ms.p50 < 200
    assert report.interruptions == report.barge_in_ms.n == len(report.cuts)
    assert report.missed_clears == report.false_clears == 0
    assert report.gateway_cpu_percent is not None  # the gateway is this very process
    assert all(50 <= cut.played_ms <= 800 for cut in report.cuts)
    assert len(list((tmp_path / "cuts").glob("*.wav"))) >= len(report.cuts)
    assert json.loads(to_json(report))["calls"] == 4
    with (tmp_path / "bench.txt").open("w") as out:
        render_bench(report, Console(file=out))


def test_reports_render_whatever_happened(tmp_path: Path) -> None:
    with (tmp_path / "out.txt").open("w") as out:
        console = Console(file=out, width=120)
        report, _ = call(
            [QUICK, Speak(hello("[bold]")), QUICK, HangUp()], on_event=lambda e, at: render_event(e, at, console)
        )
        render_call(report, console)
        render_call(CallReport("CA1", "failed", "nobody there"), console)
    text = (tmp_path / "out.txt").read_text()
    assert "[bold]" in text
    assert "nobody there" in text
