"""A real softphone, baresip, as a person would use it: it dials the clinic, asks aloud, and its recording is heard."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trunkline.media import g711
from trunkline.testing.caller.speech import Samples, read_wav
from trunkline.testing.ports import lease
from trunkline.testing.softphone import Softphone, Softphones, only_loopback, plain, words_heard

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("baresip") is None, reason="no softphone: apt install baresip-core"),
    pytest.mark.skipif(only_loopback(), reason="baresip opens no socket where the only interface is loopback"),
]

USER, PASSWORD = "tester", "secret12"
NUMBER, CALLED = "+15005550001", "+12025550123"
QUESTION = "what are your opening hours"
RATE_HZ = 8000
GREETING_S = 10.2
"""The clinic's, and a breath."""

Start = Callable[..., Any]  # conftest.sip_gateway
Phones = Callable[..., Softphone]


@pytest.fixture
def softphone(tmp_path: Path) -> Iterator[Phones]:
    """`softphone(says="...", at_s=10, account=";mediaenc=srtp-mand", cafile=...)`: each call is another one."""
    phones = Softphones(tmp_path)

    def start(*, says: str = "", at_s: float = GREETING_S, user: str = USER, **more: Any) -> Softphone:
        return phones.start(user, {at_s: says} if says else {}, **more)

    yield start
    phones.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Self-signed, of 127.0.0.1: key.pem and cert.pem, and both.pem for who wants one file."""
    folder = tmp_path_factory.mktemp("tls")
    return make_certificate(folder)


def make_certificate(folder: Path) -> Path:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (folder / "both.pem").write_text((folder / "key.pem").read_text() + (folder / "cert.pem").read_text())
    return folder


def until_answered(gateway: Any, words: str, within_s: float) -> None:
    """Until the record has a turn whose answer says so, which is when it has been heard."""
    deadline = time.monotonic() + within_s
    while True:
        calls = gateway.calls()
        record = gateway.get(f"/v1/calls/{calls[0]['id']}") if calls else {"turns": []}
        if any(words in turn["agent_text"] for turn in record["turns"]):
            return
        heard = [(turn["caller_text"], turn["agent_text"], turn["understood"]) for turn in record["turns"]]
        assert time.monotonic() < deadline, f"{heard}\n{record}\n{gateway.log}"
        time.sleep(0.2)


# --- it calls us ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("over", [pytest.param("udp", marks=pytest.mark.show), "tls"])
def test_a_softphone_asks_the_clinic_and_hears_its_answer(
    over: str, sip_gateway: Start, softphone: Phones, certificate: Path
) -> None:
    """Over TLS with SRTP required and a password; over UDP with none of it."""
    secure = over == "tls"
    tls_port = lease()
    settings = {
        "sip__tls_cert": str(certificate / "cert.pem"),
        "sip__tls_key": str(certificate / "key.pem"),
        "sip__tls_port": str(tls_port),
        "sip__trunks__desk__peers": "127.0.0.1/32",
        "sip__trunks__desk__srtp": "required",
        "sip__trunks__desk__username": USER,
        "sip__trunks__desk__password": PASSWORD,
    }
    gateway = sip_gateway(agent=None, **(settings if secure else {}))
    account = f";auth_user={USER};auth_pass={PASSWORD};mediaenc=srtp-mand" if secure else ""
    phone = softphone(says=QUESTION, account=account, cafile=certificate / "cert.pem" if secure else None)
    port = f"{tls_port};transport=tls" if secure else gateway.sip_port
    phone.dial(f"sip:{NUMBER}@127.0.0.1:{port}")
    until_answered(gateway, "three on Friday.", 40)
    phone.hang_up()
    record = gateway.ended()

    greeting, answer = record["turns"][:2]
    assert answer["caller_text"] == QUESTION
    assert not greeting["interrupted"]
    assert 0 < answer["endpointing_ms"] < 1500
    heard = words_heard(phone.heard(), [greeting["agent_text"], answer["agent_text"]])
    assert heard == plain(f"{greeting['agent_text']} {answer['agent_text']}")

    assert record["end_reason"] == "caller_hung_up"
    assert record.event("arrived")["transport"] == over
    assert record.event("sip_audio") == {
        "codec": "PCMU/8000",
        "srtp": secure,
        "telephone_events": True,
        "direction": "sendrecv",
    }
    media = record.event("sip_media")
    assert (media["codec"], media["srtp"], media["in_loss_percent"]) == ("PCMU/8000", secure, 0.0)
    assert media["mos"] > 4
    assert media["mos_out"] > 4
    steps = [step for step in record.ladder() if step != "out 100 Trying"]  # the front's challenge came before the call
    assert steps == ["in INVITE", "out 180 Ringing", "out 200 OK", "in ACK", "in BYE", "out 200 OK"]
    gateway.is_well()


@pytest.mark.parametrize(
    ("codec", "name"),
    [
        pytest.param("PCMA/8000/1", "PCMA/8000", marks=pytest.mark.show),
        pytest.param("G722/16000/1", "G722/16000", marks=pytest.mark.show),
        ("opus/48000/2", "opus/48000"),
    ],
)
def test_every_codec_carries_words_both_ways(codec: str, name: str, sip_gateway: Start, softphone: Phones) -> None:
    """Asked into the greeting, as people do who call often. Nobody is louder or softer than they spoke, from the first
    word on (PJSIP's own settings made G.722 four times too loud until it clipped, and stereo Opus twice)."""
    gateway = sip_gateway(agent=None, record="true")
    phone = softphone(says=QUESTION, at_s=2.0, codec=codec)
    phone.dial(f"sip:{NUMBER}@127.0.0.1:{gateway.sip_port}")
    until_answered(gateway, "three on Friday.", 40)
    phone.hang_up()
    record = gateway.ended()

    greeting, answer = record["turns"][:2]
    assert greeting["interrupted"]
    assert greeting["barge_in_ms"] < 200
    assert answer["caller_text"] == QUESTION
    assert record.event("sip_audio")["codec"].lower() == name.lower()
    assert record.event("sip_media")["mos"] > 4
    samples = phone.heard()
    heard = words_heard(samples, [answer["agent_text"], "elm street clinic this is the automated"])
    assert heard.endswith(plain(answer["agent_text"])), heard
    (recording,) = (gateway.data_dir / "recordings").glob("*.wav")
    told, said = mulaw_channels(recording)
    assert 0.8 < loudness(told) / loudness(read_wav(phone.folder / "speech.wav")) < 1.2
    for first, last in ((0, 2 * RATE_HZ), (3 * RATE_HZ, len(said))):  # before the question, and after it
        assert 0.8 < loudness(samples[first:last]) / loudness(said[first:last]) < 1.2
    gateway.is_well()


def mulaw_channels(path: Path) -> tuple[Samples, Samples]:
    """The caller's and the agent's, of a recording."""
    data = path.read_bytes()
    pcm = np.frombuffer(g711.decode(data[data.index(b"data") + 8 :], "mulaw"), "<i2").reshape(-1, 2) / 32768
    return pcm[:, 0].astype(np.float32), pcm[:, 1].astype(np.float32)


def loudness(samples: Samples) -> float:
    """Of the loudest fifth of its frames: RMS."""
    power = (samples[: len(samples) // 160 * 160].reshape(-1, 160).astype(np.float64) ** 2).mean(axis=1)
    speech = np.sort(power[power > 1e-5])
    return float(np.sqrt(speech[-max(1, len(speech) // 5) :].mean()))


def test_keys_pressed_on_a_softphone_choose_from_the_menu(sip_gateway: Start, softphone: Phones) -> None:
    """RFC 4733, as baresip sends it."""
    gateway = sip_gateway(agent=None)
    phone = softphone()
    phone.dial(f"sip:{NUMBER}@127.0.0.1:{gateway.sip_port}")
    gateway.live(1)
    time.sleep(2)
    phone.key("2")
    until_answered(gateway, "say them one by one.", 15)
    for digit in "4711":
        phone.key(digit)
    until_answered(gateway, "say goodbye.", 20)
    phone.hang_up()
    record = gateway.ended()
    assert [turn["caller_text"] for turn in record["turns"] if turn["keyed"]] == ["2", "4711"]
    assert "appointment four seven one one" in record["turns"][-1]["agent_text"]
    gateway.is_well()


def test_a_trunk_that_requires_srtp_takes_no_call_in_clear(
    sip_gateway: Start, softphone: Phones, certificate: Path
) -> None:
    tls_port = lease()
    gateway = sip_gateway(
        sip__tls_cert=str(certificate / "cert.pem"),
        sip__tls_key=str(certificate / "key.pem"),
        sip__tls_port=str(tls_port),
        sip__trunks__desk__peers="127.0.0.1/32",
        sip__trunks__desk__srtp="required",
    )
    phone = softphone(cafile=certificate / "cert.pem")
    phone.dial(f"sip:{NUMBER}@127.0.0.1:{tls_port};transport=tls")
    gateway.until(lambda: "488" in phone.log, 10)
    assert "Call established" not in phone.log
    phone.dial(f"sip:{NUMBER}@127.0.0.1:{gateway.sip_port}")
    gateway.until(lambda: phone.log.count("488") == 2, 10)
    encrypting = softphone(cafile=certificate / "cert.pem", account=";mediaenc=srtp-mand")
    encrypting.dial(f"sip:{NUMBER}@127.0.0.1:{tls_port};transport=tls")
    gateway.live(1)
    encrypting.hang_up()
    assert gateway.ended()["end_reason"] == "caller_hung_up"
    gateway.is_well()


# --- we call it -----------------------------------------------------------------------------------------------------


def test_a_softphone_that_is_called_hears_the_agents_greeting(sip_gateway: Start, softphone: Phones) -> None:
    phone = softphone(user=CALLED, account=";answermode=auto")
    gateway = sip_gateway(
        agent=None,
        outbound__allow="US",
        sip__trunks__desk__host=f"127.0.0.1:{phone.port}",
        sip__trunks__desk__peers="127.0.0.1/32",  # its SDP may name another address of this machine
    )
    answer = gateway.dial(CALLED, ring_timeout_s=10)
    assert answer.status_code == 201, answer.text
    until_answered(gateway, "How can I help you?", 25)
    phone.hang_up()
    record = gateway.ended(answer.json()["id"])
    assert (record["direction"], record["to_number"]) == ("outbound", CALLED)
    assert record["end_reason"] == "caller_hung_up"
    greeting = record["turns"][0]["agent_text"]
    assert words_heard(phone.heard(), [greeting]) == plain(greeting)
    assert record.event("sip_media")["mos"] > 4, record
    gateway.is_well()


def test_a_far_end_is_called_over_tls_only_with_a_certificate_we_trust(
    sip_gateway: Start, softphone: Phones, certificate: Path, tmp_path: Path
) -> None:
    phone = softphone(user=CALLED, account=";answermode=auto;mediaenc=srtp-mand", certificate=certificate / "both.pem")
    trunk = {
        "agent": None,
        "outbound__allow": "US",
        "sip__trunks__desk__host": f"127.0.0.1:{phone.port + 1}",
        "sip__trunks__desk__transport": "tls",
        "sip__trunks__desk__srtp": "required",
        "sip__trunks__desk__ping_s": "0",
    }
    other = make_certificate(tmp_path)
    wary = sip_gateway(sip__tls_ca=str(other / "cert.pem"), **trunk)
    refused = wary.dial(CALLED, ring_timeout_s=10)
    assert refused.status_code == 201, refused.text
    record = wary.ended(refused.json()["id"])
    assert record["end_reason"] == "failed"
    assert not record["answered_at"]
    assert "certificate" in record["end_detail"], record.end()
    assert "Call established" not in phone.log
    wary.is_well()

    trusting = sip_gateway(sip__tls_ca=str(certificate / "cert.pem"), **trunk)
    taken = trusting.dial(CALLED, ring_timeout_s=10)
    assert taken.status_code == 201, taken.text
    until_answered(trusting, "How can I help you?", 25)
    phone.hang_up()
    record = trusting.ended(taken.json()["id"])
    assert record.event("sip_audio")["srtp"] is True
    greeting = record["turns"][0]["agent_text"]
    assert words_heard(phone.heard(), [greeting]) == plain(greeting)
    trusting.is_well()
