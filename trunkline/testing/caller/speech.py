"""What a caller's telephone sends: speech with known edges, line noise, and the agent's own echo.

Every Speech is whole 20 ms frames of mu-law at 8 kHz, and knows its first and last frame of speech: T0 is the last one.
"""

import asyncio
import io
import wave
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soxr
from numpy.typing import NDArray

from trunkline.errors import ConfigError, ProviderError
from trunkline.media.g711 import MULAW_F32, decode, encode
from trunkline.types import FRAME_MS, MULAW_8K

SPEECH_DBFS = -45.0
SPOKEN_DBFS = -20.0  # level of synthesized speech: a telephone's usual active level is -15 to -26
NOISE_FRAMES = 250  # five seconds of line noise, repeated
SYNTHESIS_TIMEOUT_S = 20.0
MAX_WAV_S = 120.0

_RATE = MULAW_8K.rate_hz
_FRAME = MULAW_8K.frame_samples
_SILENCE = MULAW_8K.silence * _FRAME

Samples = NDArray[np.float32]
"""Mono at 8 kHz in [-1, 1)."""


@dataclass(frozen=True, slots=True)
class Speech:
    label: str
    frames: tuple[bytes, ...]
    first: int
    """Index of the first frame above SPEECH_DBFS."""
    last: int
    encoded: tuple[bytes, ...] = field(repr=False, default=())
    """The frames as base64, ready for a media message."""

    @property
    def duration_ms(self) -> int:
        return len(self.frames) * FRAME_MS


def level_dbfs(samples: Samples) -> float:
    """RMS level; 0 dBFS is a full-scale square wave."""
    power = float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0
    return 10.0 * float(np.log10(max(power, 1e-12)))


def at_level(samples: Samples, dbfs: float) -> Samples:
    """Scaled so that its speech frames (above SPEECH_DBFS) lie at `dbfs`, never clipping."""
    loud = [f for f in _split(samples) if level_dbfs(f) > SPEECH_DBFS]
    if not loud:
        return samples
    gain: float = 10.0 ** ((dbfs - level_dbfs(np.concatenate(loud))) / 20.0)
    gain = min(gain, 0.98 / max(float(np.abs(samples).max()), 1e-6))
    scaled: Samples = (samples * gain).astype(np.float32)
    return scaled


def noise(dbfs: float, samples: int, seed: int = 0) -> Samples:
    """White line noise."""
    return np.random.default_rng(seed).standard_normal(samples, dtype=np.float32) * np.float32(10.0 ** (dbfs / 20.0))


def to_frames(samples: Samples) -> tuple[bytes, ...]:
    pcm = (np.clip(samples, -1.0, 0.99996) * 32768.0).astype("<i2")
    data = encode(pcm.tobytes(), "mulaw")
    data += MULAW_8K.silence * (-len(data) % _FRAME)
    return tuple(data[i : i + _FRAME] for i in range(0, len(data), _FRAME))


def to_speech(label: str, samples: Samples, *, noise_dbfs: float | None = None, seed: int = 0) -> Speech:
    """Frames of `samples`, edges found before noise is mixed in. Raises ConfigError when nothing in it is speech."""
    samples = np.concatenate([samples, np.zeros(-len(samples) % _FRAME, dtype=np.float32)])
    loud = [i for i, f in enumerate(_split(samples)) if level_dbfs(f) > SPEECH_DBFS]
    if not loud:
        raise ConfigError("speech", label, f"nothing in it is louder than {SPEECH_DBFS:g} dBFS")
    if noise_dbfs is not None:
        samples = samples + noise(noise_dbfs, len(samples), seed)
    frames = to_frames(samples)
    return Speech(label, frames, loud[0], loud[-1], base64_frames(frames))


def base64_frames(frames: Sequence[bytes]) -> tuple[bytes, ...]:
    return tuple(b2a_base64(f, newline=False) for f in frames)


def _split(samples: Samples) -> list[Samples]:
    return [samples[i : i + _FRAME] for i in range(0, len(samples), _FRAME)]


# --- where speech comes from ----------------------------------------------------------------------------------------


def read_wav(path: Path, data: bytes | None = None) -> Samples:
    """Any rate, 8- or 16-bit, any channels (the first is taken) to 8 kHz. Raises ConfigError."""
    try:
        with wave.open(io.BytesIO(data) if data is not None else str(path)) as wav:
            rate, width, channels = wav.getframerate(), wav.getsampwidth(), wav.getnchannels()
            raw = wav.readframes(int(rate * MAX_WAV_S))
    except (OSError, EOFError, wave.Error) as error:
        raise ConfigError("wav", str(path), f"a readable PCM WAV file ({error})") from error
    if width not in (1, 2):
        raise ConfigError("wav", str(path), f"8 or 16 bits a sample, not {8 * width}")
    pcm: NDArray[Any] = np.frombuffer(raw, dtype="<i2" if width == 2 else "u1").astype(np.float32)
    samples = (pcm / 32768.0 if width == 2 else (pcm - 128.0) / 128.0)[::channels].astype(np.float32)
    return samples if rate == _RATE else soxr.resample(samples, rate, _RATE).astype(np.float32)


async def synthesize(text: str, voice: str = "en-us", words_per_minute: int = 165) -> Samples:
    """`text` spoken by espeak-ng, in this process. Raises ConfigError for an unknown voice or nothing to say."""
    from trunkline.agents.local import voice as espeak

    def speak() -> bytes:
        return espeak.synthesize(text, voice, _RATE, words_per_minute=words_per_minute)

    try:
        async with asyncio.timeout(SYNTHESIS_TIMEOUT_S):
            pcm = await asyncio.to_thread(speak)
    except TimeoutError:
        raise ConfigError("say", text, f"something shorter: it took more than {SYNTHESIS_TIMEOUT_S:g} s") from None
    except ProviderError as error:
        raise ConfigError("voice", voice, error.detail or "a voice of espeak-ng") from None
    if not pcm:
        raise ConfigError("say", text, "something that can be spoken")
    return at_level(np.frombuffer(pcm, np.int16).astype(np.float32) / np.float32(32768), SPOKEN_DBFS)


# --- the mouth: what leaves the telephone each tick -----------------------------------------------------------------


class Mouth(Protocol):
    def frame(self, speech: Speech | None, index: int, heard: Sequence[bytes]) -> bytes:
        """20 ms as base64 mu-law, or raw where the wire takes that: frame `index` of `speech`, or the line without
        speech. `heard`: all frames so far."""
        ...


class PlainMouth:
    """Prepared frames only: nothing is computed a tick. Speech carries its own noise (`to_speech(noise_dbfs=)`)."""

    def __init__(self, noise_dbfs: float | None = None, seed: int = 0, *, raw: bool = False) -> None:
        frames = to_frames(noise(noise_dbfs, NOISE_FRAMES * _FRAME, seed)) if noise_dbfs is not None else (_SILENCE,)
        self._idle, self._raw = frames if raw else base64_frames(frames), raw
        self._at = seed % len(self._idle)

    def frame(self, speech: Speech | None, index: int, heard: Sequence[bytes]) -> bytes:
        if speech is not None:
            return speech.frames[index] if self._raw else speech.encoded[index]
        self._at += 1
        if self._at >= len(self._idle):
            self._at = 0
        return self._idle[self._at]

    def share(self, seed: int) -> "PlainMouth":
        """Another call's mouth on the same noise, starting elsewhere in it."""
        other = PlainMouth.__new__(PlainMouth)
        other._idle, other._raw, other._at = self._idle, self._raw, seed % len(self._idle)
        return other


class MixingMouth:
    """Speech, line noise and the echo of what was heard `echo_delay_ms` ago at `echo_db`, mixed each tick."""

    def __init__(
        self,
        *,
        noise_dbfs: float | None = None,
        echo_delay_ms: int = 0,
        echo_db: float | None = None,
        seed: int = 0,
        raw: bool = False,
    ) -> None:
        self._raw = raw
        self._noise = noise(noise_dbfs, NOISE_FRAMES * _FRAME, seed) if noise_dbfs is not None else None
        self._echo_frames = max(1, echo_delay_ms // FRAME_MS)
        self._echo_gain = np.float32(10.0 ** (echo_db / 20.0)) if echo_db is not None else None
        self._tick = 0

    def frame(self, speech: Speech | None, index: int, heard: Sequence[bytes]) -> bytes:
        self._tick += 1
        if self._noise is None and self._echo_gain is None:
            if self._raw:
                return speech.frames[index] if speech is not None else _SILENCE
            return speech.encoded[index] if speech is not None else _SILENCE_BASE64
        mixed = _samples(speech.frames[index]) if speech is not None else np.zeros(_FRAME, dtype=np.float32)
        if self._noise is not None:
            at = self._tick % NOISE_FRAMES * _FRAME
            mixed = mixed + self._noise[at : at + _FRAME]
        if self._echo_gain is not None and len(heard) >= self._echo_frames:
            mixed = mixed + _samples(heard[-self._echo_frames]) * self._echo_gain
        frame = to_frames(mixed)[0]
        return frame if self._raw else b2a_base64(frame, newline=False)


_SILENCE_BASE64 = b2a_base64(_SILENCE, newline=False)


def _samples(frame: bytes) -> Samples:
    return MULAW_F32.take(np.frombuffer(frame, dtype=np.uint8))


def from_base64(frames: Iterable[bytes]) -> list[bytes]:
    return [a2b_base64(f) for f in frames]


def write_stereo_wav(path: Path, left: Sequence[bytes], right: Sequence[bytes]) -> None:
    """Mu-law frames. Left: the caller as sent; right: what was heard. Padded to the longer one."""
    sides = [b"".join(left), b"".join(right)]
    length = max(map(len, sides))
    pcm = [np.frombuffer(decode(s.ljust(length, MULAW_8K.silence), "mulaw"), dtype="<i2") for s in sides]
    with wave.open(str(path), "wb") as wav:
        wav.setnchannels(2)
        wav.setsampwidth(2)
        wav.setframerate(_RATE)
        wav.writeframes(np.column_stack(pcm).tobytes())
