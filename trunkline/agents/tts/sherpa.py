"""`tts.sherpa`: a voice from a folder (Piper, VITS, Kokoro, Kitten), run by sherpa-onnx in threads. No word times."""

import asyncio
import re
import threading
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import numpy as np

from trunkline.agents.definition import AgentDefinition
from trunkline.agents.local import sherpa, voice
from trunkline.agents.local.voice import VoiceOptions
from trunkline.agents.providers import Services
from trunkline.agents.script.keys import Key, Keys, fault, nearest
from trunkline.errors import ConfigError, ProviderError
from trunkline.media import g711
from trunkline.media.resample import Resampler
from trunkline.ports import TtsAudio
from trunkline.types import Format

OPTIONS: Keys = {
    "model_dir": Key("text", "The voice's folder.", required=True),
    "speaker": Key("whole", "Which of the model's speakers.", 0, low=0, high=10000),
    "speed": Key("number", "1 is as the voice was trained, 2 twice as fast.", 1.0, low=0, high=3),
    "spelling": Key("text", "Whose pronunciation: a language of espeak-ng. Without it, the agent's `language`.", ""),
    "threads": Key("whole", "Of one synthesis.", 1, low=1, high=64),
    "first_ms": Key("whole", "The longest wait for the first audio.", 4000, low=50, high=60000),
    "between_ms": Key("whole", "The longest pause between sentences.", 4000, low=50, high=60000),
}
MAX_TEXT_CHARS = 2000  # a phrase is under 300


def read_options(options: Mapping[str, Any], known: Keys) -> dict[str, Any]:
    """Raises ConfigError."""
    held = {name: key.default for name, key in known.items()}
    for name, value in options.items():
        key = known.get(name)
        if key is None:
            raise ConfigError(name, value, f"unknown key{nearest(name, known)}")
        if wrong := fault(key, value):
            raise ConfigError(name, value, wrong[1])
        held[name] = value
    return held


class SherpaTts:
    name = "sherpa"
    third_party = False
    word_times = False

    def __init__(self, definition: AgentDefinition, options: Mapping[str, Any], services: Services) -> None:
        """Raises ConfigError, MissingExtra."""
        self.options = read_options(options, OPTIONS)
        self.folder = sherpa.voice_folder(self.options["model_dir"] or "")
        sherpa.sdk()
        self.spelling = _spelling(self.options["spelling"] or definition.language)
        self._workers = services.speech_workers
        self._threads: sherpa.Threads | None = None
        self._voice: Any = None

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        sherpa.voice_folder(read_options(options, OPTIONS)["model_dir"] or "")

    @staticmethod
    def in_language(options: Mapping[str, Any], tag: str, *, inherited: bool = True) -> dict[str, Any] | None:
        """A model speaks what it was trained on: another language brings its own."""
        return None if inherited else dict(options)

    async def start(self) -> None:
        """Loads the voice. Raises ConfigError."""
        self._threads = sherpa.Threads(self.name, self._workers)
        self._voice = await self._threads.run(lambda: sherpa.load_voice(self.folder, self.options["threads"]))
        speakers = self._voice.num_speakers
        if self.options["speaker"] >= max(1, speakers):
            raise ConfigError("speaker", self.options["speaker"], f"the model has {speakers}, counted from 0")

    async def speak(self, text: str, format: Format) -> AsyncGenerator[TtsAudio, None]:
        """Closing the generator stops the synthesis after the sentence it is at. Raises ProviderError."""
        if self._threads is None:
            raise ProviderError(self.name, "unavailable", "not started", retryable=False)
        if len(text) > MAX_TEXT_CHARS:
            raise ProviderError(self.name, "bad_request", f"{len(text)} characters in one phrase", retryable=False)
        if re.search(r"\w", text) is None:
            return
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[bytes | None] = asyncio.Queue()  # bounded by the text
        stop = threading.Event()
        utterance = _Utterance(self._voice, text, format, stop, lambda piece: _hand(loop, pieces, piece))
        spelling = None if self.folder.lexicon else self.spelling
        done = self._threads.run(lambda: utterance.speak(spelling, self.options["speaker"], self.options["speed"]))
        done.add_done_callback(lambda _: pieces.put_nowait(None))
        deadline_ms = self.options["first_ms"]
        try:
            while (piece := await self._next(pieces, deadline_ms)) is not None:
                deadline_ms = self.options["between_ms"]
                yield TtsAudio(piece)
        finally:
            stop.set()
            done.add_done_callback(lambda over: over.cancelled() or over.exception())  # nobody else may ask
        if not done.cancelled() and (error := done.exception()) is not None:
            raise ProviderError(self.name, "unavailable", type(error).__name__, retryable=True)

    async def _next(self, pieces: "asyncio.Queue[bytes | None]", deadline_ms: int) -> bytes | None:
        try:
            async with asyncio.timeout(deadline_ms / 1000):
                return await pieces.get()
        except TimeoutError:
            raise ProviderError(self.name, "timeout", "no audio came", retryable=True) from None

    async def close(self) -> None:
        """Idempotent."""
        threads, self._threads, self._voice = self._threads, None, None
        if threads is not None:
            threads.close()


def _spelling(language: str) -> VoiceOptions:
    for name in (language.lower(), language.lower().partition("-")[0]):
        if voice.voice_file(name) is not None:
            return VoiceOptions(name)
    raise ConfigError("spelling", language, "a language of espeak-ng: en-us, en-gb, de, fr, es, ...")


class _Utterance:
    """One phrase, in its thread: floats at the model's rate become the lane's bytes."""

    def __init__(self, model: Any, text: str, format: Format, stop: threading.Event, hand: Any) -> None:
        self._voice, self._text, self._format, self._stop, self._hand = model, text, format, stop, hand
        self._resampler = Resampler(model.sample_rate, format.rate_hz)

    def speak(self, spelling: VoiceOptions | None, speaker: int, speed: float) -> None:
        if self._stop.is_set():
            return
        spelled = []
        if spelling is not None:
            spelled = sherpa.spelled(self._text, lambda clause: voice.engine().phonemes(clause, spelling))
        sherpa.speak(self._voice, self._text, spelled, speaker, speed or 1.0, self._take)
        if not self._stop.is_set():
            self._give(self._resampler.flush())

    def _take(self, samples: Any, progress: float) -> int:
        """A sentence. 0 stops the synthesis."""
        if self._stop.is_set():
            return 0
        pcm16 = np.rint(np.clip(samples, -1, 1) * 32767).astype(np.int16).tobytes()
        self._give(self._resampler.feed(pcm16))
        return 1

    def _give(self, pcm16: bytes) -> None:
        encoding = self._format.encoding
        if pcm16:
            self._hand(pcm16 if encoding == "pcm16" else g711.encode(pcm16, encoding))


def _hand(loop: asyncio.AbstractEventLoop, pieces: "asyncio.Queue[bytes | None]", piece: bytes) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(pieces.put_nowait, piece)
