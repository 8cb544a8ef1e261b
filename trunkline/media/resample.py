"""Streaming change of sample rate (soxr, high quality).

soxr works in blocks, so output lags input until `flush`: by 80 ms from 22,050 to 8,000 Hz, 73 from 24,000, 114 between
8,000 and 16,000, 155 from 48,000 (held by the tests). That costs nothing where audio comes faster than real time, as a
voice's does; on a live lane it is latency. Nothing is lost or shifted: the whole output is as long as the whole input.
"""

import numpy as np
import soxr


class Resampler:
    """feed... -> 16-bit PCM at `to_hz`; flush ends the stream, after which the object begins a new one."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self.from_hz, self.to_hz = from_hz, to_hz
        self._half = b""
        self._stream = None if from_hz == to_hz else soxr.ResampleStream(from_hz, to_hz, 1, quality="HQ")

    def feed(self, pcm16: bytes) -> bytes:
        """Any chunking, even within a sample. May give nothing yet."""
        return self._push(pcm16, last=False)

    def flush(self) -> bytes:
        """What the filter still holds. Half a sample at the end is dropped."""
        tail = self._push(b"", last=True)
        self._half = b""
        if self._stream is not None:
            self._stream.clear()
        return tail

    def _push(self, pcm16: bytes, *, last: bool) -> bytes:
        if self._half:
            pcm16 = self._half + pcm16
        whole = len(pcm16) & ~1
        self._half = pcm16[whole:]
        if self._stream is None:
            return pcm16[:whole]
        # In floats: soxr's int16 output is dithered, so that the same input would not give the same output.
        samples = np.frombuffer(pcm16[:whole], np.int16).astype(np.float32)
        resampled = self._stream.resample_chunk(samples, last=last)
        rounded: bytes = np.rint(resampled).clip(-32768, 32767).astype(np.int16).tobytes()
        return rounded
