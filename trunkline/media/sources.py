"""What a member of a call hears that nobody says: a loop of frames, made before it is needed.

A `Loop` is shared by all who hear it; a `Playing` is one hearer's place in it, and its `frame()` is one slice. Tones by
country are tones.py, the music we bring is music.py; an admin's own file is read here, once, at start.
"""

import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trunkline.errors import ConfigError
from trunkline.media import g711
from trunkline.media.resample import Resampler
from trunkline.types import MULAW_8K, PCM_8K, Format

FRAME = MULAW_8K.frame_bytes
SILENT_FRAME = MULAW_8K.silence * FRAME
COMFORT_DBM0 = -60.0  # what a quiet line has: heard as "still connected", not as noise
WORK_DBM0 = -48.0  # speech has about -20
MAX_FILE_BYTES = 60 * 1024 * 1024  # ten minutes of stereo at 48 kHz: it stays in memory
MAX_FILE_S = 600
RAW_SUFFIXES = {".ulaw", ".ul", ".mulaw", ".pcmu"}
_PCM, _ALAW, _MULAW, _EXTENSIBLE = 1, 6, 7, 0xFFFE
_LAWS: dict[int, Format] = {_ALAW: Format("alaw", 8000), _MULAW: MULAW_8K}


class Source(Protocol):
    """One hearer's. Always has a frame, of MULAW_8K."""

    def frame(self) -> bytes: ...


class Playing:
    """One hearer's place in a loop."""

    __slots__ = ("_at", "_audio")

    def __init__(self, audio: bytes, at: int) -> None:
        self._audio, self._at = audio, at

    def frame(self) -> bytes:
        at = self._at
        end = at + FRAME
        self._at = end if end < len(self._audio) else 0
        return self._audio[at:end]


class Once:
    """One hearer's, of audio that ends; then silence."""

    __slots__ = ("_at", "_audio", "_over")

    def __init__(self, audio: bytes, over: Callable[[], object]) -> None:
        """`over`: with the frame behind the last one, once. Must only take note."""
        self._audio, self._at = audio + MULAW_8K.silence * (-len(audio) % FRAME), 0
        self._over: Callable[[], object] | None = over

    def frame(self) -> bytes:
        frame = self._audio[self._at : self._at + FRAME]
        self._at += FRAME
        if frame:
            return frame
        over, self._over = self._over, None
        if over is not None:
            over()
        return SILENT_FRAME


class Loop:
    """Whole frames of MULAW_8K, repeated for ever."""

    __slots__ = ("audio",)

    def __init__(self, audio: bytes) -> None:
        """The last frame is filled up with silence. Raises ValueError where there is nothing to play."""
        if not audio:
            raise ValueError("a loop needs audio")
        self.audio = audio + MULAW_8K.silence * (-len(audio) % FRAME)

    @property
    def duration_ms(self) -> int:
        return len(self.audio) // MULAW_8K.bytes_per_ms

    def play(self, from_ms: int = 0) -> Playing:
        """From a place of it, rounded down to a frame and taken round the loop."""
        return Playing(self.audio, from_ms * MULAW_8K.bytes_per_ms // FRAME * FRAME % len(self.audio))


SILENCE = Loop(SILENT_FRAME)


@cache
def comfort_noise(level_dbm0: float = COMFORT_DBM0) -> Loop:
    """Four seconds of quiet noise, the same in every process."""
    rms = 32124 / 10 ** (3.17 / 20) / np.sqrt(2) * 10 ** (level_dbm0 / 20)
    pcm = np.random.default_rng(8000).normal(0, rms, 4 * MULAW_8K.rate_hz)
    return Loop(g711.encode(np.round(pcm).clip(-32768, 32767).astype(np.int16).tobytes(), "mulaw"))


@cache
def soft_work(level_dbm0: float = WORK_DBM0) -> Loop:
    """Eight seconds of somebody at a keyboard, far off: soft clicks on a quiet line, the same in every process."""
    random = np.random.default_rng(8001)
    rms = 32124 / 10 ** (3.17 / 20) / np.sqrt(2) * 10 ** (level_dbm0 / 20)
    sound = random.normal(0, rms / 8, 8 * MULAW_8K.rate_hz)
    at = 0.1
    while at < 7.9:
        length = int(0.03 * MULAW_8K.rate_hz)
        begin = int(at * MULAW_8K.rate_hz)
        click = random.normal(0, 1, length) * np.exp(-np.arange(length) / (0.006 * MULAW_8K.rate_hz))
        sound[begin : begin + length] += click * rms * random.uniform(1.5, 4)
        at += float(random.choice([0.11, 0.14, 0.18, 0.24, 0.6], p=[0.3, 0.25, 0.2, 0.15, 0.1]))
    return Loop(g711.encode(np.round(sound).clip(-32768, 32767).astype(np.int16).tobytes(), "mulaw"))


def read_loop(path: Path, key: str = "hold_music") -> Loop:
    """A WAV (16-bit PCM, mu-law or A-law; any rate, mono or stereo) or headerless mu-law at 8 kHz (`.ulaw`).

    Blocks: for start-up. Raises ConfigError naming `key`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(key, str(path), f"cannot be read: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(key, str(path), f"at most {MAX_FILE_BYTES >> 20} MiB: it is kept in memory")
    try:
        audio = data if path.suffix.lower() in RAW_SUFFIXES else _wav(data)
    except ValueError as error:
        raise ConfigError(key, str(path), str(error)) from error
    if not audio:
        raise ConfigError(key, str(path), "has no audio")
    if len(audio) > MAX_FILE_S * MULAW_8K.rate_hz:
        raise ConfigError(key, str(path), f"at most {MAX_FILE_S} s: it is kept in memory")
    return Loop(audio)


def _wav(data: bytes) -> bytes:
    """Its audio in MULAW_8K. Raises ValueError saying what a WAV of ours may be."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise ValueError("is no WAV file; headerless mu-law must be called .ulaw")
    shape: tuple[int, int, int, int] | None = None
    at = 12
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
        if kind == b"fmt ":
            shape = _shape(body)
        elif kind == b"data":
            if shape is None:
                raise ValueError("is a broken WAV: its data comes before its format")
            return _to_mulaw(body, *shape)
    raise ValueError("is a broken WAV: it has no data")


def _shape(body: bytes) -> tuple[int, int, int, int]:
    if len(body) < 16:
        raise ValueError("is a broken WAV: its format is cut short")
    tag, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", body)
    if tag == _EXTENSIBLE and len(body) >= 26:
        (tag,) = struct.unpack_from("<H", body, 24)
    if (tag, bits) not in ((_PCM, 16), (_ALAW, 8), (_MULAW, 8)):
        raise ValueError(f"has {bits}-bit audio of kind {tag}: 16-bit PCM, mu-law or A-law is allowed")
    if channels not in (1, 2):
        raise ValueError(f"has {channels} channels: one or two are allowed")
    if not 8000 <= rate_hz <= 192_000:
        raise ValueError(f"has {rate_hz} samples a second: 8,000 to 192,000 are allowed")
    return tag, channels, rate_hz, bits


def _to_mulaw(body: bytes, tag: int, channels: int, rate_hz: int, bits: int) -> bytes:
    whole = len(body) - len(body) % (channels * bits // 8)
    if (tag, channels, rate_hz) == (_MULAW, 1, MULAW_8K.rate_hz):
        return body[:whole]
    pcm = body[:whole] if tag == _PCM else g711.transcode(body[:whole], _LAWS[tag], PCM_8K)
    samples = np.frombuffer(pcm, dtype="<i2").reshape(-1, channels).mean(axis=1)
    return g711.encode(_at_8k(samples, rate_hz), "mulaw")


def _at_8k(samples: NDArray[np.float64], rate_hz: int) -> bytes:
    pcm = np.round(samples).astype(np.int16).tobytes()
    if rate_hz == PCM_8K.rate_hz or not pcm:
        return pcm
    resampler = Resampler(rate_hz, PCM_8K.rate_hz)
    return resampler.feed(pcm) + resampler.flush()
