"""Models from a folder, run by sherpa-onnx: what is in the folder, and the SDK, which only this file imports.

sherpa-onnx releases the GIL while it decodes and while it synthesises, so it runs in threads of this process, a bounded
number of them. A model whose metadata are not what its kind needs makes the library end the process, at start.
"""

import asyncio
import re
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from trunkline.errors import ConfigError, MissingExtra, ProviderError
from trunkline.media import g711
from trunkline.types import Format

RELEASES = "github.com/k2-fsa/sherpa-onnx/releases"
EARS_WANTED = (
    f"a folder of a streaming model: tokens.txt with encoder*.onnx, decoder*.onnx and joiner*.onnx (a transducer), or "
    f"with one model*.onnx (Zipformer2 CTC); take a sherpa-onnx-streaming-zipformer-* from {RELEASES} (asr-models)"
)
VOICE_WANTED = (
    f"a folder of a voice: tokens.txt and one *.onnx, for Kokoro and Kitten also voices.bin; "
    f"take a vits-piper-* or kokoro-* from {RELEASES} (tts-models)"
)
WAITING_A_THREAD = 8  # jobs; beyond that a caller would wait too long anyway

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EarsFolder:
    tokens: Path
    encoder: Path | None = None
    decoder: Path | None = None
    joiner: Path | None = None
    ctc: Path | None = None
    """Instead of the three before it."""


@dataclass(frozen=True, slots=True)
class VoiceFolder:
    kind: Literal["vits", "kokoro", "kitten"]
    model: Path
    tokens: Path
    voices: Path | None = None
    lexicon: Path | None = None
    """Of a VITS voice that spells by it. The others are told phonemes (`spelled`)."""


def ears_folder(model_dir: str) -> EarsFolder:
    """Raises ConfigError: what is missing, and where such folders come from."""
    folder = _folder(model_dir, EARS_WANTED)
    tokens = _file(folder, ("tokens.txt",), EARS_WANTED)
    if not list(folder.glob("encoder*.onnx")):
        return EarsFolder(tokens, ctc=_file(folder, ("*ctc*.int8.onnx", "*ctc*.onnx", "model*.onnx"), EARS_WANTED))
    return EarsFolder(
        tokens,
        _file(folder, ("encoder*.int8.onnx", "encoder*.onnx"), EARS_WANTED),
        _file(folder, ("decoder*[!8].onnx", "decoder*.onnx"), EARS_WANTED),  # it is small: not the int8 one
        _file(folder, ("joiner*.int8.onnx", "joiner*.onnx"), EARS_WANTED),
    )


def voice_folder(model_dir: str) -> VoiceFolder:
    """Raises ConfigError: what is missing, and where such folders come from."""
    folder = _folder(model_dir, VOICE_WANTED)
    tokens = _file(folder, ("tokens.txt",), VOICE_WANTED)
    model = _file(folder, ("model.onnx", "*[!8].onnx", "*.onnx"), VOICE_WANTED)
    voices, lexicon = folder / "voices.bin", folder / "lexicon.txt"
    if voices.is_file():
        return VoiceFolder("kitten" if "kitten" in folder.name else "kokoro", model, tokens, voices)
    return VoiceFolder("vits", model, tokens, lexicon=lexicon if lexicon.is_file() else None)


def _folder(model_dir: str, wanted: str) -> Path:
    folder = Path(model_dir)
    if not model_dir or not folder.is_dir():
        raise ConfigError("model_dir", model_dir, f"no such folder: {wanted}")
    return folder


def _file(folder: Path, patterns: tuple[str, ...], wanted: str) -> Path:
    """The first pattern that anything is named by; of several files, the last by name."""
    for pattern in patterns:
        found = sorted(each for each in folder.glob(pattern) if each.is_file())
        if found:
            return found[-1]
    raise ConfigError("model_dir", str(folder), f"{patterns[-1]} is missing: {wanted}")


# --- the SDK --------------------------------------------------------------------------------------------------------


def sdk() -> Any:
    """Raises MissingExtra."""
    try:
        import sherpa_onnx
    except ImportError:
        raise MissingExtra("sherpa-onnx", "sherpa") from None
    return sherpa_onnx


def load_ears(folder: EarsFolder, num_threads: int) -> Any:
    """An OnlineRecognizer. Blocks for seconds."""
    recognizer = sdk().OnlineRecognizer
    common = {"tokens": str(folder.tokens), "num_threads": num_threads, "enable_endpoint_detection": False}
    if folder.ctc is not None:
        return recognizer.from_zipformer2_ctc(model=str(folder.ctc), **common)
    parts = {"encoder": folder.encoder, "decoder": folder.decoder, "joiner": folder.joiner}
    return recognizer.from_transducer(**{name: str(path) for name, path in parts.items()}, **common)


def load_voice(folder: VoiceFolder, num_threads: int) -> Any:
    """An OfflineTts. Blocks for seconds. Raises ConfigError."""
    sherpa = sdk()
    files = {"model": str(folder.model), "tokens": str(folder.tokens)}
    if folder.kind == "vits":
        kind = {"vits": sherpa.OfflineTtsVitsModelConfig(lexicon=str(folder.lexicon or ""), **files)}
    elif folder.kind == "kokoro":
        kind = {"kokoro": sherpa.OfflineTtsKokoroModelConfig(voices=str(folder.voices), **files)}
    else:
        kind = {"kitten": sherpa.OfflineTtsKittenModelConfig(voices=str(folder.voices), **files)}
    model = sherpa.OfflineTtsModelConfig(num_threads=num_threads, **kind)
    config = sherpa.OfflineTtsConfig(model=model, max_num_sentences=1)
    if not config.validate():
        raise ConfigError("model_dir", str(folder.model.parent), f"sherpa-onnx does not take it: {VOICE_WANTED}")
    return sherpa.OfflineTts(config)


def samples(audio: bytes, format: Format) -> np.ndarray[Any, np.dtype[np.float32]]:
    """As sherpa-onnx wants them: floats from -1 to 1."""
    pcm16 = audio if format.encoding == "pcm16" else g711.decode(audio, format.encoding)
    return np.frombuffer(pcm16, np.int16).astype(np.float32) / np.float32(32768)


def speak(voice: Any, text: str, spelling: list[list[int]], speaker: int, speed: float, take: Any) -> None:
    """`take(samples, progress)` is called for each sentence; 0 stops. Blocks."""
    config = sdk().GenerationConfig()
    config.sid, config.speed, config.phoneme_codepoints = speaker, speed, spelling
    voice.generate(text, config, callback=take)


_CLAUSE = re.compile(r"(.+?)(?:([.!?;:,])[.!?;:,]*(?=\s|$)|$)", re.DOTALL)


def spelled(text: str, phonemes: Callable[[str], str]) -> list[list[int]]:
    """Its sentences as Piper's voices were taught: the IPA of each clause and its punctuation, decomposed (NFD)."""
    sentences, sentence = list[str](), ""
    for words, mark in _CLAUSE.findall(text):
        ipa = phonemes(words.strip())
        if ipa:
            sentence += f"{' ' if sentence else ''}{ipa}{mark}"
        if mark in (".", "!", "?") and sentence:
            sentences.append(sentence)
            sentence = ""
    if sentence:
        sentences.append(sentence)
    return [[ord(symbol) for symbol in unicodedata.normalize("NFD", each)] for each in sentences]


# --- threads --------------------------------------------------------------------------------------------------------


class Threads:
    """So many jobs at once, so many waiting; more are refused."""

    def __init__(self, provider: str, count: int) -> None:
        self._provider, self._most = provider, count * (1 + WAITING_A_THREAD)
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=provider)
        self._jobs = 0

    def run(self, job: Callable[[], T]) -> "asyncio.Future[T]":
        """Raises ProviderError `overloaded`."""
        if self._jobs >= self._most:
            raise ProviderError(self._provider, "overloaded", "every thread is busy", retryable=True)
        self._jobs += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, job)
        future.add_done_callback(self._done)
        return future

    def close(self) -> None:
        """Jobs under way end by themselves. Idempotent."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _done(self, _: Any) -> None:
        self._jobs -= 1
