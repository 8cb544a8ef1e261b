"""The device's ear and mouth: a sound card by `sounddevice`, WAV files, or raw PCM on stdin and stdout.

All of them are 16-bit mono at 16 kHz, 20 ms a frame. A card's callbacks run in threads of its own: the microphone's
frames cross by a bounded queue whose overflow is counted, the loudspeaker pulls from `Playback`.
"""

import asyncio
import sys
import wave
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import soxr

from trunkline.clock import Clock
from trunkline.device.playback import Playback
from trunkline.errors import ConfigError, MissingExtra
from trunkline.types import FRAME_MS, PCM_16K

FRAME_BYTES = PCM_16K.frame_bytes
QUEUE_FRAMES = 50  # a second: the loop has stood still that long
TAIL_MS = 1000
"""Of silence behind what is heard from a file or a pipe, at least: its last word may be the wake word."""
STDIN = Path("-")


class Ear(Protocol):
    def frames(self) -> AsyncGenerator[bytes, None]:
        """20 ms each, as they come. Ends where there will be no more."""
        ...


def read_wav(path: Path) -> bytes:
    """As PCM16 at 16 kHz, the first channel. Raises ConfigError."""
    try:
        with wave.open(str(path), "rb") as file:
            rate_hz, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()
            data = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise ConfigError("in", str(path), f"a WAV file ({error})") from error
    if width != 2:
        raise ConfigError("in", str(path), f"16-bit PCM, not {8 * width}-bit")
    samples = np.frombuffer(data, np.int16)[::channels].astype(np.float32)
    if rate_hz != PCM_16K.rate_hz:
        samples = soxr.resample(samples, rate_hz, PCM_16K.rate_hz)
    return np.rint(samples).clip(-32768, 32767).astype(np.int16).tobytes()


class FileEar:
    """A WAV file in real time, then silence until `enough`."""

    def __init__(self, path: Path, clock: Clock, enough: Callable[[], bool]) -> None:
        self._pcm16, self._clock, self._enough = read_wav(path) + bytes(TAIL_MS * PCM_16K.bytes_per_ms), clock, enough
        self.ended = False

    async def frames(self) -> AsyncGenerator[bytes, None]:
        due, at = self._clock.now(), 0
        while not (self.ended and self._enough()):
            frame = self._pcm16[at : at + FRAME_BYTES]
            at += FRAME_BYTES
            self.ended = at >= len(self._pcm16)
            yield frame.ljust(FRAME_BYTES, b"\0")
            due += FRAME_MS / 1000
            await asyncio.sleep(max(0.0, due - self._clock.now()))


class RawEar:
    """Raw PCM from a pipe, at its writer's pace; silence in real time behind its end until `enough`."""

    def __init__(self, pipe: BinaryIO, clock: Clock, enough: Callable[[], bool]) -> None:
        self._pipe, self._clock, self._enough = pipe, clock, enough

    async def frames(self) -> AsyncGenerator[bytes, None]:
        loop = asyncio.get_running_loop()
        while len(frame := await loop.run_in_executor(None, self._pipe.read, FRAME_BYTES)) == FRAME_BYTES:
            yield frame
        due = self._clock.now()
        least = due + TAIL_MS / 1000
        while due < least or not self._enough():
            yield bytes(FRAME_BYTES)
            due += FRAME_MS / 1000
            await asyncio.sleep(max(0.0, due - self._clock.now()))


class Card:
    """Microphone and loudspeaker of this machine."""

    def __init__(self, playback: Playback | None, *, microphone: bool = True, device: str | int | None = None) -> None:
        """`playback`: None, and the loudspeaker stays closed. Raises MissingExtra, ConfigError."""
        self.dropped_frames = 0
        self._queue: asyncio.Queue[bytes] = asyncio.Queue(QUEUE_FRAMES)
        self._loop = asyncio.get_running_loop()
        self._streams: list[Any] = []
        sounddevice = _sounddevice()
        how = {"samplerate": PCM_16K.rate_hz, "blocksize": PCM_16K.frame_samples, "channels": 1, "dtype": "int16"}
        try:
            if microphone:
                self._streams.append(sounddevice.RawInputStream(callback=self._heard, device=device, **how))
            if playback is not None:

                def play(out: Any, *_: Any) -> None:
                    out[:] = playback.pull(len(out))

                speaker = sounddevice.RawOutputStream(callback=play, device=device, **how)
                playback.latency_ms = 1000.0 * float(speaker.latency)
                self._streams.append(speaker)
            for stream in self._streams:
                stream.start()
        except (sounddevice.PortAudioError, ValueError) as error:
            self.close()
            raise ConfigError("card", device or "default", f"a sound card ({error}); or use --in and --out") from error

    def _heard(self, pcm16: Any, *_: Any) -> None:
        self._loop.call_soon_threadsafe(self._put, bytes(pcm16))

    def _put(self, frame: bytes) -> None:
        if self._queue.full():
            self.dropped_frames += 1
        else:
            self._queue.put_nowait(frame)

    async def frames(self) -> AsyncGenerator[bytes, None]:
        while True:
            yield await self._queue.get()

    def close(self) -> None:
        """Idempotent."""
        for stream in self._streams:
            stream.close()
        self._streams = []


def _sounddevice() -> Any:
    try:
        import sounddevice  # type: ignore[import-untyped]
    except (ImportError, OSError) as error:
        if isinstance(error, OSError):
            raise ConfigError("card", "default", "PortAudio, which is not installed (Debian: libportaudio2)") from error
        raise MissingExtra("sounddevice", "device") from None
    return sounddevice


class Mouth:
    """A WAV file or a pipe that is given what the loudspeaker would play, frame by frame."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError."""
        self._wave: wave.Wave_write | None = None
        if path != STDIN:
            try:
                self._wave = wave.open(str(path), "wb")  # noqa: SIM115 - closed by close()
            except OSError as error:
                raise ConfigError("out", str(path), f"a file to write ({error})") from error
            self._wave.setnchannels(1)
            self._wave.setsampwidth(2)
            self._wave.setframerate(PCM_16K.rate_hz)

    def play(self, frame: bytes) -> None:
        if self._wave is not None:
            self._wave.writeframesraw(frame)
        else:
            sys.stdout.buffer.write(frame)
            sys.stdout.buffer.flush()

    def close(self) -> None:
        if self._wave is not None:
            self._wave.close()
