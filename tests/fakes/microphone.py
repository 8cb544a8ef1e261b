"""What an aiortc client of the tests says."""

import asyncio
import fractions
import time

from aiortc import MediaStreamTrack
from av import AudioFrame


class Microphone(MediaStreamTrack):
    """Silence, and between it what is said: PCM, 16 bits, mono."""

    kind = "audio"

    def __init__(self, rate_hz: int) -> None:
        super().__init__()
        self.said = b""
        self._rate_hz, self._samples = rate_hz, rate_hz // 50
        self._at, self._started = 0, 0.0

    async def recv(self) -> AudioFrame:
        now = time.monotonic()
        self._started = self._started or now
        await asyncio.sleep(self._started + self._at * 0.02 - now)
        size = 2 * self._samples
        samples, self.said = self.said[:size], self.said[size:]
        frame = AudioFrame(format="s16", layout="mono", samples=self._samples)
        frame.planes[0].update(samples.ljust(size, b"\0"))
        frame.sample_rate, frame.pts = self._rate_hz, self._at * self._samples
        frame.time_base = fractions.Fraction(1, self._rate_hz)
        self._at += 1
        return frame
