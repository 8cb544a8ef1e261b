"""baresip as a person's telephone: it speaks from a file, records what it decodes, and does what its console is told.

What it heard is judged by its words: PocketSphinx must find in the recording what was said, among sentences that differ
from that by a word.
"""

import asyncio
import contextlib
import re
import socket
import subprocess
import time
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trunkline.agents.local.ears import Ears
from trunkline.clock import SYSTEM_CLOCK
from trunkline.testing.caller.speech import Samples, read_wav, synthesize
from trunkline.testing.ports import lease

MODULES = (Path("/usr/lib/baresip/modules"), Path("/usr/lib64/baresip/modules"))
FILE_S = 60.0  # baresip hangs up at the end of its file
RATE_HZ = 8000
PAUSE_FRAMES, LOUD = 15, 0.01


def only_loopback() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex(("192.0.2.1", 9)) != 0  # sends nothing


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


def write_speech(path: Path, says: Mapping[float, str]) -> None:
    """`says`: by the second at which it begins."""
    pcm = np.zeros(int(FILE_S * RATE_HZ), dtype="<i2")
    for at_s, words in says.items():
        samples = asyncio.run(synthesize(words))
        first = int(at_s * RATE_HZ)
        pcm[first : first + len(samples)] = np.clip(samples * 32768, -32768, 32767)[: max(0, len(pcm) - first)]
    with wave.open(str(path), "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(RATE_HZ)
        wav.writeframes(pcm.tobytes())


class Softphones:
    """Each `start` is another one."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._running = folder, list[Softphone]()

    def start(
        self,
        user: str,
        says: Mapping[float, str],
        *,
        codec: str = "PCMU",
        account: str = "",
        cafile: Path | None = None,
        certificate: Path | None = None,
    ) -> Softphone:
        """`account`: more of its account's line, such as `;answermode=auto`."""
        folder = self._folder / f"softphone{len(self._running)}"
        folder.mkdir()
        port, console_port = lease(2), lease()
        write_speech(folder / "speech.wav", says)
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
        self._running.append(Softphone(process, _console(console_port, process, folder), folder, port))
        return self._running[-1]

    def close(self) -> None:
        for one in self._running:
            one.close()


def _console(port: int, process: "subprocess.Popen[bytes]", folder: Path) -> socket.socket:
    deadline = SYSTEM_CLOCK.now() + 10
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=5)
        except OSError:
            assert process.poll() is None, (folder / "log").read_text()
            assert SYSTEM_CLOCK.now() < deadline, (folder / "log").read_text()
            time.sleep(0.1)


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
