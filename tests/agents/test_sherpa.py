"""Models from a folder. The voice: the real library on a real, tiny ONNX model that the test writes. The ears: up to
the library's boundary, on a recorded shape of its recogniser; no streaming model is small enough to be written here."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes import tiny_voice
from trunkline.agents.definition import AgentDefinition, ProviderChoice
from trunkline.agents.local import sherpa
from trunkline.agents.providers import Services
from trunkline.agents.stt.sherpa import SherpaStt
from trunkline.agents.tts.sherpa import SherpaTts
from trunkline.errors import ConfigError, ProviderError
from trunkline.ports import Stt, Tts
from trunkline.testing.clock import ManualClock
from trunkline.testing.conformance import Situation, Stage, SttConformance, TtsConformance
from trunkline.types import MULAW_8K, PCM_16K

CHOICE = ProviderChoice("sherpa")
AGENT = AgentDefinition("Bakery", CHOICE, CHOICE, CHOICE, "Hello.")
SERVICES = Services(ManualClock())


class Recognizer:
    """The methods of sherpa_onnx.OnlineRecognizer that are used, as 2.0.1 has them: needs 0.3 s of audio a step."""

    def create_stream(self) -> "Stream":
        return Stream()

    def is_ready(self, stream: "Stream") -> bool:
        return stream.heard_s - stream.decoded_s >= 0.3

    def decode_stream(self, stream: "Stream") -> None:
        stream.decoded_s += 0.3

    def get_result(self, stream: "Stream") -> str:
        return "CALLER PHRASE" if stream.decoded_s >= 1.2 else " CALLER" if stream.decoded_s >= 0.6 else ""


class Stream:
    """Of sherpa_onnx.OnlineStream."""

    def __init__(self) -> None:
        self.heard_s = self.decoded_s = 0.0

    def accept_waveform(self, sample_rate: float, waveform: Any) -> None:
        assert waveform.dtype == np.float32
        assert len(waveform) == 0 or abs(waveform).max() <= 1
        self.heard_s += len(waveform) / sample_rate

    def input_finished(self) -> None: ...


class Hanging(Recognizer):
    def decode_stream(self, stream: Stream) -> None:
        time.sleep(0.6)
        super().decode_stream(stream)


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_voice.write(tmp_path_factory.mktemp("voices") / "vits-piper-en_US-hum")


@pytest.fixture
def ears(tmp_path: Path) -> Path:
    for name in ("tokens.txt", "encoder-epoch-99.int8.onnx", "encoder-epoch-99.onnx", "decoder-epoch-99.int8.onnx"):
        (tmp_path / name).touch()
    for name in ("decoder-epoch-99.onnx", "joiner-epoch-99.int8.onnx"):
        (tmp_path / name).touch()
    return tmp_path


class TestSherpaStt(SttConformance):
    situations = frozenset({"answers", "silent"})
    quiet_s = 0.05

    @pytest.fixture(autouse=True)
    def _folder(self, ears: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = ears, monkeypatch

    @asynccontextmanager
    async def stage(self, situation: Situation) -> AsyncGenerator[Stage[Stt], None]:
        made = Recognizer() if situation == "answers" else Hanging()
        self.patch.setattr(sherpa, "load_ears", lambda folder, num_threads: made)
        yield Stage(SherpaStt(AGENT, {"model_dir": str(self.folder), "final_ms": 300}, SERVICES))


class TestSherpaTts(TtsConformance):
    @pytest.fixture(autouse=True)
    def _folder(self, voice: Path) -> None:
        self.folder = voice

    @asynccontextmanager
    async def stage(self, situation: Situation) -> AsyncGenerator[Stage[Tts], None]:
        yield Stage(SherpaTts(AGENT, {"model_dir": str(self.folder)}, SERVICES))


def test_a_sentence_is_heard_before_the_next_is_made_at_the_lane_s_rate(voice: Path) -> None:
    async def main() -> None:
        tts = SherpaTts(AGENT, {"model_dir": str(voice)}, SERVICES)
        await tts.start()
        one = [audio.data async for audio in tts.speak("We open at eight.", MULAW_8K)]
        two = [audio.data async for audio in tts.speak("We open at eight. We close at five.", MULAW_8K)]
        wide = [audio.data async for audio in tts.speak("We open at eight.", PCM_16K)]
        await tts.close()
        assert len(two) > len(one)
        assert len(b"".join(wide)) == pytest.approx(4 * len(b"".join(one)), rel=0.01)
        hum_ms = tiny_voice.SAMPLES_A_PHONEME / tiny_voice.RATE_HZ * 1000
        assert len(b"".join(one)) / 8 > 10 * hum_ms, "a phoneme is one hum: most of them are missing"

    asyncio.run(main())


def test_the_library_lets_others_run_while_it_synthesises(voice: Path) -> None:
    """It releases the GIL: in a thread of its own it does not hold up calls."""
    made = sherpa.load_voice(sherpa.voice_folder(str(voice)), 1)
    one_sentence = [[ord(symbol) for symbol in "həlˈoʊ" * 800]]
    over = threading.Event()
    lengths: list[int] = []

    def take(samples: Any, progress: float) -> int:
        lengths.append(len(samples))
        return 1

    def speak() -> None:
        sherpa.speak(made, "x", one_sentence, 0, 1.0, take)
        over.set()

    thread = threading.Thread(target=speak)
    thread.start()
    steps = 0
    while not over.wait(0.001):
        steps += 1
    thread.join()
    assert lengths, "no audio"
    assert steps > 10, "one call into the library held the interpreter from its beginning to its end"


def test_spelling_keeps_clauses_and_decomposes() -> None:
    said = sherpa.spelled("At 3.5, or so? Yes!", lambda clause: f"<{clause}>")
    assert ["".join(map(chr, each)) for each in said] == ["<At 3.5>, <or so>?", "<Yes>!"]
    assert sherpa.spelled("x", lambda clause: "ç") == [[ord("c"), 0x327]]
    assert sherpa.spelled("... !", lambda clause: "") == []


def test_what_is_taken_of_a_transducer_s_folder(ears: Path) -> None:
    found = sherpa.ears_folder(str(ears))
    assert [path and path.name for path in (found.encoder, found.decoder, found.joiner, found.ctc)] == [
        "encoder-epoch-99.int8.onnx",
        "decoder-epoch-99.onnx",
        "joiner-epoch-99.int8.onnx",
        None,
    ]


def test_what_is_taken_of_other_folders(tmp_path: Path) -> None:
    for name in ("tokens.txt", "model.onnx", "model.int8.onnx", "voices.bin"):
        (tmp_path / name).touch()
    assert sherpa.ears_folder(str(tmp_path)).ctc is not None
    kokoro = sherpa.voice_folder(str(tmp_path))
    assert (kokoro.kind, kokoro.model.name) == ("kokoro", "model.onnx")
    (tmp_path / "voices.bin").unlink()
    (tmp_path / "lexicon.txt").touch()
    vits = sherpa.voice_folder(str(tmp_path))
    assert (vits.kind, vits.lexicon) == ("vits", tmp_path / "lexicon.txt")


@pytest.mark.parametrize("provider", [SherpaStt, SherpaTts])
def test_a_folder_that_will_not_do_is_one_line_that_says_where_to_get_one(provider: Any, tmp_path: Path) -> None:
    for folder, wrong in ((tmp_path / "none", "no such folder"), (tmp_path, r"tokens\.txt is missing")):
        with pytest.raises(ConfigError, match=wrong) as refused:
            provider.check_options({"model_dir": str(folder)})
        assert "github.com/k2-fsa/sherpa-onnx/releases" in str(refused.value)
        assert "\n" not in str(refused.value)
    (tmp_path / "tokens.txt").touch()
    with pytest.raises(ConfigError, match=r"onnx is missing"):
        provider(AGENT, {"model_dir": str(tmp_path)}, SERVICES)


def test_more_jobs_than_can_wait_are_refused() -> None:
    async def main() -> None:
        threads = sherpa.Threads("sherpa", 1)
        jobs = [threads.run(lambda: time.sleep(0.01)) for _ in range(1 + sherpa.WAITING_A_THREAD)]
        with pytest.raises(ProviderError, match="overloaded"):
            threads.run(lambda: None)
        await asyncio.gather(*jobs)
        await threads.run(lambda: None)
        threads.close()

    asyncio.run(main())
