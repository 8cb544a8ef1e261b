"""Exact 20 ms frames out of audio chunked in any way."""

from trunkline.types import Format


class Framer:
    """feed... -> whole frames, in order; flush -> the rest, if any, padded with silence."""

    def __init__(self, format: Format) -> None:
        self.format = format
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The frames completed by `chunk`. What is left (also half a sample) waits for the next chunk."""
        size = self.format.frame_bytes
        data = self._rest + chunk
        whole = len(data) - len(data) % size
        self._rest = data[whole:]
        return [data[i : i + size] for i in range(0, whole, size)]

    def flush(self) -> bytes | None:
        """The last frame, padded with silence; None when nothing is left. Half a sample at its end is dropped."""
        sample = len(self.format.silence)
        rest = self._rest[: len(self._rest) - len(self._rest) % sample]
        self._rest = b""
        if not rest:
            return None
        return rest + self.format.silence * ((self.format.frame_bytes - len(rest)) // sample)

    @property
    def pending_bytes(self) -> int:
        return len(self._rest)
