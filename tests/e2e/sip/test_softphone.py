"""A real softphone, baresip, as a person would use it: it dials the clinic and asks aloud, and its recording is heard.

It speaks from a file and records what it decodes. What it heard is judged by its words: PocketSphinx must find in it
what the record says was said, among sentences that differ from that by a word.
"""

import asyncio
import contextlib
import re
import shutil
import socket
import subprocess
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trunkline.agents.local.ears import Ears
from trunkline.testing.caller.speech import Samples, read_wav, synthesize


def only_loopback() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex(("192.0.2.1", 9)) != 0  # sends nothing


pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("baresip") is None, reason="no softphone: apt install baresip-core"),
    pytest.mark.skipif(only_loopback(), reason="baresip opens no socket where the only interface is loopback"),
]

MODULES = (Path("/usr/lib/baresip/modules"), Path("/usr/lib64/baresip/modules"))
USER, PASSWORD = "tester", "secret12"
NUMBER, CALLED = "+15005550001", "+12025550123"
QUESTION = "what are your opening hours"
GREETING_S = 10.2
"""The clinic's, and a breath."""
FILE_S = 60.0  # baresip hangs up at the end of its file
RATE_HZ = 8000
PAUSE_FRAMES, LOUD = 15, 0.01

Start = Callable[..., Any]  # conftest.sip_gateway
Phones = Callable[..., "Softphone"]


# --- the softphone --------------------------------------------------------------------------------------------------


@dataclass
class Softphone:
    """A baresip that runs, obeyed through its console."""

    process: "subprocess.Popen[bytes]"
    console: socket.socket
    folder: Path
    port: int
    """UDP and TCP; TLS is on the next."""

    def dial(self, uri: str) -> None:
        self._say(f"/dial {uri}\n")

    def key(self, digit: str) -> None:
        self._say(digit)
        time.sleep(0.25)
        self._say("\x04")  # released
        time.sleep(0.25)

    def hang_up(self) -> None:
        self._say("/hangup\n")

    def _say(self, keys: str) -> None:
        self.console.sendall(keys.encode())

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._say("/quit\n")
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        self.console.close()

    def heard(self) -> Samples:
        """All that it decoded, at 8 kHz. Ends the softphone: it writes the file's header last."""
        self.close()
        found = sorted(self.folder.glob("dump-*-dec.wav"))
        assert found, self.log
        return read_wav(found[-1])


def free_port() -> int:
    """The next one is free as well."""
    while True:
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            port = int(held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1])
            held.enter_context(socket.create_server(("127.0.0.1", port + 1)))
            held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).bind(("127.0.0.1", port))
            return port


def write_speech(path: Path, says: str, at_s: float) -> None:
    pcm = np.zeros(int(FILE_S * RATE_HZ), dtype="<i2")
    if says:
        samples = asyncio.run(synthesize(says))
        first = int(at_s * RATE_HZ)
        pcm[first : first + len(samples)] = np.clip(samples * 32768, -32768, 32767)
    with wave.open(str(path), "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(RATE_HZ)
        wav.writeframes(pcm.tobytes())


@pytest.fixture
def softphone(tmp_path: Path) -> Iterator[Phones]:
    """`softphone(says="...", at_s=10, account=";mediaenc=srtp-mand", cafile=...)`: each call is another one."""
    running: list[Softphone] = []

    def start(
        *,
        says: str = "",
        at_s: float = GREETING_S,
        codec: str = "PCMU",
        account: str = "",
        user: str = USER,
        cafile: Path | None = None,
        certificate: Path | None = None,
    ) -> Softphone:
        folder = tmp_path / f"softphone{len(running)}"
        folder.mkdir()
        port, console_port = free_port(), free_port()
        write_speech(folder / "speech.wav", says, at_s)
        modules = next(path for path in MODULES if path.is_dir())
        lines = [
            f"sip_listen 127.0.0.1:{port}",
            f"audio_source aufile,{folder}/speech.wav",
            f"audio_player aufile,{folder}/player.wav",
            f"audio_alert aufile,{folder}/alert.wav",
            f"ausrc_srate {RATE_HZ}",
            "ausrc_channels 1",
            "rtp_ports 29000-31999",
            f"snd_path {folder}",
            f"cons_listen 127.0.0.1:{console_port}",
            f"module_path {modules}",
            *(f"module {name}.so" for name in ("g711", "g722", "opus", "aufile", "sndfile", "srtp")),
            *(f"module_app {name}.so" for name in ("account", "menu", "cons")),
        ]
        lines += [f"sip_cafile {cafile}"] * (cafile is not None)
        lines += [f"sip_certificate {certificate}"] * (certificate is not None)
        (folder / "config").write_text("\n".join(lines) + "\n")
        (folder / "accounts").write_text(f"<sip:{user}@127.0.0.1>;regint=0;audio_codecs={codec}{account}\n")
        (folder / "contacts").write_text("")
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                ["baresip", "-f", str(folder), "-t", str(int(FILE_S))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        running.append(Softphone(process, _console(console_port, process, folder), folder, port))
        return running[-1]

    yield start
    for one in running:
        one.close()


def _console(port: int, process: "subprocess.Popen[bytes]", folder: Path) -> socket.socket:
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=5)
        except OSError:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.1)


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


# --- listening to recordings ----------------------------------------------------------------------------------------


def plain(text: str) -> str:
    return " ".join(re.sub(r"[^a-z']+", " ", text.lower()).split())


CHANGES = {
    "closed": "open",
    "open": "closed",
    "clinic": "office",
    "eight": "nine",
    "tomorrow": "today",
    "hours": "days",
}


def words_heard(samples: Samples, turns: Sequence[str]) -> str:
    """The words of a recording, as PocketSphinx finds them among runs of the turns' sentences, and the same sentences
    with a word changed. '?' for what is none of them."""
    runs: set[str] = set()
    for turn in turns:
        sentences = [plain(part) for part in re.split(r"(?<=[.?!])\s", turn)]
        runs |= {
            " ".join(sentences[first:last])
            for first in range(len(sentences))
            for last in range(first + 1, 1 + len(sentences))
        }
    for run in tuple(runs):
        runs |= {re.sub(rf"\b{old}\b", new, run, count=1) for old, new in CHANGES.items()}
    ears = Ears()
    ears.add({"said": "#JSGF V1.0;\ngrammar said;\npublic <said> = " + " | ".join(sorted(runs)) + ";\n"})
    heard = []
    pcm = (samples * 32767).astype("<i2")
    for first, last in spoken_parts(samples):
        utterance = ears.begin("said")
        utterance.feed(pcm[max(0, first - 10) * 160 : (last + 10) * 160].tobytes())
        found, _, _ = utterance.finish()
        heard.append(found.text or "?")
    return " ".join(heard)


def spoken_parts(samples: Samples) -> list[tuple[int, int]]:
    """First and last frame of what lies between pauses."""
    whole = samples[: len(samples) // 160 * 160].reshape(-1, 160)
    loud = np.flatnonzero(np.sqrt((whole**2).mean(axis=1)) > LOUD)
    cuts = np.flatnonzero(np.diff(loud) > PAUSE_FRAMES)
    starts, ends = np.concatenate([loud[:1], loud[cuts + 1]]), np.concatenate([loud[cuts], loud[-1:]])
    return [(int(a), int(b)) for a, b in zip(starts, ends, strict=True) if b - a > 10]


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


@pytest.mark.parametrize("over", ["udp", "tls"])
def test_a_softphone_asks_the_clinic_and_hears_its_answer(
    over: str, sip_gateway: Start, softphone: Phones, certificate: Path
) -> None:
    """Over TLS with SRTP required and a password; over UDP with none of it."""
    secure = over == "tls"
    tls_port = free_port()
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
    ("codec", "name"), [("PCMA/8000/1", "PCMA/8000"), ("G722/16000/1", "G722/16000"), ("opus/48000/2", "opus/48000")]
)
def test_every_codec_carries_words_both_ways(codec: str, name: str, sip_gateway: Start, softphone: Phones) -> None:
    """Asked into the greeting, as people do who call often."""
    gateway = sip_gateway(agent=None)
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
    heard = words_heard(phone.heard(), [answer["agent_text"], "elm street clinic this is the automated"])
    assert heard.endswith(plain(answer["agent_text"])), heard
    gateway.is_well()


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
    tls_port = free_port()
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
