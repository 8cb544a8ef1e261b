"""The SIP caller against peers that are not ours (sipp, baresip), and against a gateway with the stand-in agent."""

import asyncio
import contextlib
import importlib.util
import itertools
import os
import shutil
import socket
import subprocess
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from trunkline.testing.caller.commands import (
    BenchOptions,
    CallOptions,
    CallReport,
    HangUp,
    Keys,
    Listen,
    ListenInto,
    Pause,
    Say,
    SetupOptions,
    SipOptions,
    Vanish,
    bench_setups,
    bench_sip,
    place_call,
)
from trunkline.testing.ports import lease

pytestmark = pytest.mark.e2e

SIPP, BARESIP, OPENSSL = shutil.which("sipp"), shutil.which("baresip"), shutil.which("openssl")
needs_sipp = pytest.mark.skipif(SIPP is None, reason="sipp is not installed")
needs_baresip = pytest.mark.skipif(BARESIP is None or OPENSSL is None, reason="baresip is not installed")
needs_sip = pytest.mark.skipif(importlib.util.find_spec("pjsua2") is None, reason="pjsua2 is not installed: make pjsip")
PHRASE = "can you tell me when you are open on Saturday"


def called(target: str, *actions: Any, **options: Any) -> CallReport:
    return asyncio.run(place_call(CallOptions(target, actions, **options)))


@contextlib.contextmanager
def running(*argv: str, port: int, cwd: Path) -> Iterator[None]:
    """A peer, once its UDP port is taken."""
    process = subprocess.Popen(
        argv, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            assert process.poll() is None
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    break
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        yield
    finally:
        process.kill()
        process.wait(10)


# --- sipp -----------------------------------------------------------------------------------------------------------

ANSWER = """<send><![CDATA[
SIP/2.0 {status}
[last_Via:]
[last_From:]
[last_To:];tag=[call_number]{tag}
[last_Call-ID:]
[last_CSeq:]
{more}Content-Length: [len]

{body}
]]></send>"""
SDP = """v=0
o=sipp 1 1 IN IP[local_ip_type] [local_ip]
s=-
c=IN IP[media_ip_type] [media_ip]
t=0 0
m=audio [media_port] RTP/AVP 8
a=rtpmap:8 PCMA/8000
"""
MEDIA = "Contact: <sip:[local_ip]:[local_port]>\nContent-Type: application/sdp\n"
CHALLENGE = (
    'WWW-Authenticate: Digest realm="test", nonce="47ebe028cda119c35d4877b383027d28", algorithm=MD5, qop="auth"\n'
)


def answer(status: str, tag: str = "b", more: str = "", body: str = "") -> str:
    return ANSWER.format(status=status, tag=tag, more=more, body=body)


ASKS_AND_RINGS = f"""<?xml version="1.0" encoding="ISO-8859-1" ?>
<scenario name="credentials, early media, answer">
<recv request="INVITE"/>{answer("401 Unauthorized", "a", CHALLENGE)}<recv request="ACK"/>
<recv request="INVITE"><action><verifyauth assign_to="valid" username="bob" password="secret"/></action></recv>
<nop hide="true" test="valid" next="good"/>{answer("403 Forbidden")}<recv request="ACK" next="end"/>
<label id="good"/>{answer("183 Session Progress", more=MEDIA, body=SDP)}<pause milliseconds="200"/>
{answer("200 OK", more=MEDIA, body=SDP)}<recv request="ACK"/><recv request="BYE"/>{answer("200 OK", "")}
<label id="end"/></scenario>"""

RINGS_ONLY = f"""<?xml version="1.0" encoding="ISO-8859-1" ?>
<scenario name="rings until it is cancelled">
<recv request="INVITE"><action><ereg regexp=".*" search_in="hdr" header="CSeq:" assign_to="cseq"/></action></recv>
{answer("180 Ringing")}<recv request="CANCEL"/>{answer("200 OK")}
{answer("487 Request Terminated").replace("[last_CSeq:]", "CSeq:[$cseq]")}<recv request="ACK"/></scenario>"""


@pytest.fixture
def sipp(tmp_path: Path) -> Iterator[Any]:
    with contextlib.ExitStack() as stack:

        def start(scenario: str = "") -> str:
            port = lease()
            what = ["-sn", "uas"]
            if scenario:
                (tmp_path / "scenario.xml").write_text(scenario)
                what = ["-sf", "scenario.xml"]
            argv = [str(SIPP), *what, "-i", "127.0.0.1", "-p", str(port), "-rtp_echo", "-nostdin"]
            stack.enter_context(running(*argv, port=port, cwd=tmp_path))
            return f"sip:+15005550001@127.0.0.1:{port}"

        yield start


@needs_sipp
def test_an_echo_is_heard_recorded_and_timed_by_the_kernel(sipp: Any, tmp_path: Path) -> None:
    report = called(sipp(), Pause(200), Say("hello"), Pause(800), HangUp(), out=tmp_path / "out.wav")
    assert (report.end, report.detail) == ("hung_up", "")
    assert report.sip is not None
    assert (report.sip.code, report.sip.codec, report.sip.resent) == (200, "PCMU/8000", 0)
    assert report.sip.rtp["lost"] == 0
    assert abs(report.sip.rtp["interval_ms"]["p50"] - 20) < 2
    assert report.answers[0].heard_ms > 200
    with wave.open(str(tmp_path / "out.wav")) as wav:
        assert wav.getnchannels() == 2
        assert wav.getnframes() > 8000


@needs_sipp
@pytest.mark.parametrize(
    ("password", "end", "code"), [("secret", "hung_up", 200), ("wrong", "rejected", 403), ("", "rejected", 401)]
)
def test_credentials_are_shown_when_asked_for(sipp: Any, password: str, end: str, code: int) -> None:
    options = SipOptions("bob" if password else "", password)
    report = called(sipp(ASKS_AND_RINGS), Pause(300), HangUp(), sip=options)
    assert report.sip is not None
    assert (report.end, report.sip.code) == (end, code)
    if code == 200:
        assert (report.sip.codec, report.sip.challenges, report.sip.provisionals) == ("PCMA/8000", 1, [183])
        assert 190 < (report.sip.setup_ms or 0) < 1000


@needs_sipp
def test_a_caller_who_gives_up_cancels(sipp: Any) -> None:
    report = called(sipp(RINGS_ONLY), Listen(), HangUp(), sip=SipOptions(cancel_after_ms=300))
    assert report.sip is not None
    assert (report.end, report.sip.code, report.sip.provisionals) == ("cancelled", 487, [180])
    assert report.duration_s < 3


@needs_sipp
def test_set_ups_a_second(sipp: Any) -> None:
    report = asyncio.run(bench_setups(SetupOptions(sipp(), per_s=50, seconds=2, hold_ms=100)))
    assert (report.attempts, report.answered, report.completed, report.failed) == (100, 100, 100, {})
    assert (report.setup_ms.p50 or 0) < 50


# --- baresip --------------------------------------------------------------------------------------------------------


@pytest.fixture
def baresip(tmp_path: Path) -> Iterator[int]:
    """Answers at once and plays a tone: UDP and TCP at this port, TLS at the next, with cert.pem."""
    assert OPENSSL is not None
    port = lease(2)
    certificate = "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost"
    argv = [OPENSSL, *certificate.split(), "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(argv, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    with wave.open(str(tmp_path / "tone.wav"), "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(8000)
        wav.writeframes((np.sin(np.arange(80_000) * 0.5) * 8000).astype("<i2").tobytes())
    (tmp_path / "tls.pem").write_text((tmp_path / "key.pem").read_text() + (tmp_path / "cert.pem").read_text())
    (tmp_path / "config").write_text(
        f"sip_listen 127.0.0.1:{port}\nsip_certificate {tmp_path}/tls.pem\n"
        "audio_player aufile,out.wav\naudio_source aufile,tone.wav\naudio_alert aufile,none.wav\n"
        "module_path /usr/lib/baresip/modules\nmodule account.so\nmodule g711.so\nmodule aufile.so\n"
        "module_app menu.so\n"
    )
    (tmp_path / "accounts").write_text("<sip:bob@127.0.0.1>;answermode=auto;regint=0\n")
    (tmp_path / "contacts").write_text("")
    with running(str(BARESIP), "-f", str(tmp_path), port=port, cwd=tmp_path):
        yield port


@needs_baresip
@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_a_softphone_answers_over_every_transport(baresip: int, transport: str, tmp_path: Path) -> None:
    port = baresip + (transport == "tls")
    options = SipOptions(ca_file=tmp_path / "cert.pem", late_offer=transport == "tcp")
    target = f"sip:bob@127.0.0.1:{port};transport={transport}"
    report = called(target, Pause(300), Keys("42"), Pause(700), HangUp(), sip=options)
    assert report.sip is not None
    assert (report.end, report.detail, report.sip.transport) == ("hung_up", "", transport)
    assert report.sip.telephone_events
    assert report.answers[0].heard_ms > 500
    assert report.sip.rtp["lost"] == 0


@needs_baresip
def test_a_certificate_that_nobody_vouches_for_is_refused(baresip: int) -> None:
    report = called(f"sips:bob@127.0.0.1:{baresip + 1}")
    assert report.end == "failed"
    assert "CERTIFICATE_VERIFY_FAILED" in report.detail


# --- the gateway ----------------------------------------------------------------------------------------------------


_ports = itertools.count()


@pytest.fixture
def phoned(start_gateway: Any) -> tuple[Any, str]:
    """A gateway with the stand-in agent, and the address of its loopback trunk."""
    # Below the ephemeral ports: those of others' RTP come and go. And a gateway that cannot listen is to say so.
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    port = 9100 + worker * 40 + next(_ports) % 40
    return start_gateway(sip__port=str(port), sip__enabled="true"), f"sip:+15005550001@127.0.0.1:{port}"


@needs_sip
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_conversation_with_the_gateway_is_measured_and_in_its_record(phoned: tuple[Any, str], transport: str) -> None:
    gateway, target = phoned
    actions = [Listen(), Say(PHRASE), ListenInto(1400), Say(PHRASE), Listen(), HangUp()]
    report = called(f"{target};transport={transport}", *actions, api_url=gateway.origin)
    assert report.ok
    assert report.record is not None
    assert report.record["provider_call_id"] == report.call_sid
    assert (report.record["leg"], report.record["live"]) == ("sip", False)
    assert [t.understood for t in report.turns] == ["caller phrase"] * 2
    assert all(700 < (t.latency_ms or 0) < 2500 for t in report.turns)
    interrupting = report.turns[1]
    assert interrupting.interrupting
    assert not interrupting.missed_clear
    heard = report.turns[0].answered or ""
    assert abs(len(heard.split()) * 200 - (interrupting.heard_before_barge_in_ms or 0)) <= 400
    assert gateway.complaints() == []


@needs_sip
def test_many_callers_and_the_figures_of_sip(phoned: tuple[Any, str]) -> None:
    gateway, target = phoned
    options = BenchOptions(target, calls=6, duration_s=8, spread_s=1, api_url=gateway.origin, seed=3)
    report = asyncio.run(bench_sip(options))
    assert report.ok, report
    assert report.sip is not None
    assert report.sip.setup_ms.n == 6
    assert report.sip.rtp["lost"] == 0
    assert report.sip.rtp["packets"] > 6 * 8 * 45
    assert report.gateway_cpu_percent is not None
    assert report.turns > 6


@needs_sip
def test_a_cancel_that_races_the_answer_leaves_no_call_behind(phoned: tuple[Any, str]) -> None:
    gateway, target = phoned
    for after_ms in (0, 1, 3, 6, 10):
        report = called(target, HangUp(), sip=SipOptions(cancel_after_ms=after_ms))
        assert report.end in ("cancelled", "hung_up"), report
    gateway.until(lambda: live_calls(gateway) == 0)


@needs_sip
def test_a_caller_who_vanishes_is_missed(phoned: tuple[Any, str]) -> None:
    gateway, target = phoned
    report = called(target, Listen(), Vanish())
    assert report.end == "vanished"
    gateway.until(lambda: live_calls(gateway) == 0, 60.0)


def live_calls(gateway: Any) -> int:
    return sum(bool(call["live"]) for call in httpx.get(f"{gateway.origin}/v1/calls").json()["calls"])
