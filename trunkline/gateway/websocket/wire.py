"""What is on the wire of `WS /ws/audio` beside the events of `gateway/live.py`: the beginning, the audio in the
device's own format, and how far it was played. Plain values.

Both sides count the milliseconds of audio that we have sent. `played` says how many of them were played; after a
`clear` what was not is dropped, and counting goes on from what was sent.
"""

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trunkline.gateway import live
from trunkline.media.g711 import decode, encode
from trunkline.media.halfband import Doubler, Halver
from trunkline.media.playout import Message
from trunkline.ports import Refuse
from trunkline.types import FRAME_MS, MULAW_8K, PCM_8K, PCM_16K, Format

TOKEN_CHARACTERS = 2048
MIN_AUDIO_MS, MAX_AUDIO_MS = 10, 200  # of one message
MAX_MESSAGE_BYTES = 16 * 1024
_FORMATS = {("mulaw", 8000): MULAW_8K, ("pcm16", 8000): PCM_8K, ("pcm16", 16_000): PCM_16K}
_FRAME = MULAW_8K.frame_bytes


# --- the beginning --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    format: Format
    acks: bool
    """The device says how far it has played."""
    token: str = field(default="", repr=False)


def read_start(message: bytes) -> Start | Refuse:
    """The first message of a device. Codes: `not_json`, `no_start`, `bad_value`, `bad_format`."""
    try:
        given = json.loads(message)
    except (ValueError, RecursionError):
        return Refuse("not_json", "the first message is one JSON object")
    if not isinstance(given, dict) or given.get("type") != "start":
        return Refuse("no_start", 'the first message is {"type":"start",...}')
    token, acks = given.get("token", ""), given.get("acks", False)
    if token is None:
        token = ""
    if not isinstance(token, str) or len(token) > TOKEN_CHARACTERS:
        return Refuse("bad_value", "token: a join token")
    if not isinstance(acks, bool):
        return Refuse("bad_value", "acks: true or false")
    encoding, rate_hz = given.get("encoding"), given.get("rate_hz")
    known = isinstance(encoding, str) and type(rate_hz) is int
    format = _FORMATS.get((str(encoding), rate_hz if type(rate_hz) is int else 0)) if known else None
    if format is None:
        return Refuse("bad_format", "encoding and rate_hz: mulaw at 8000, or pcm16 at 8000 or 16000")
    return Start(format, acks, token)


# --- audio ----------------------------------------------------------------------------------------------------------


class AudioIn:
    """A device's audio to the lane's frames, in order."""

    def __init__(self, format: Format) -> None:
        self._format = format
        self._halver = Halver() if format.rate_hz == 16_000 else None
        self._sample = len(format.silence) * (2 if self._halver is not None else 1)  # a lane's sample is two of theirs
        self._rest = b""

    def begin_anew(self) -> None:
        """What comes next does not follow on what was last."""
        self._rest = b""
        if self._halver is not None:
            self._halver = Halver()

    def length_ms(self, data: bytes) -> float | None:
        """How much audio that is; None: it is none that can be taken."""
        length_ms = len(data) / self._format.bytes_per_ms
        whole = len(data) % self._sample == 0
        return length_ms if whole and MIN_AUDIO_MS <= length_ms <= MAX_AUDIO_MS else None

    def frames(self, data: bytes) -> list[bytes]:
        """What is whole now; the rest waits for more."""
        if self._format.encoding == "pcm16":
            data = encode(data if self._halver is None else self._halver.feed(data), "mulaw")
        if not self._rest and len(data) == _FRAME:  # nearly always
            return [data]
        data = self._rest + data
        whole = len(data) - len(data) % _FRAME
        self._rest = data[whole:]
        return [data[at : at + _FRAME] for at in range(0, whole, _FRAME)]


class AudioOut:
    """The lane's frames to a device's audio."""

    def __init__(self, format: Format) -> None:
        self._format = format
        self._doubler = Doubler()

    def frames(self, mulaw: bytes) -> list[bytes]:
        """Of whole frames, 20 ms each."""
        data, size = mulaw, self._format.frame_bytes
        if self._format.encoding == "pcm16":
            data = decode(mulaw, "mulaw")
            if self._format.rate_hz == 16_000:
                data = self._doubler.feed(data)
        return [data[at : at + size] for at in range(0, len(data), size)]

    def cut(self) -> None:
        """What comes next does not follow on what was last."""
        self._doubler = Doubler()


# --- how far it was played ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Played(live.Aside):
    ms: int


@dataclass(frozen=True, slots=True)
class Cleared(live.Aside):
    sent_ms: int
    played_ms: int


def _played(given: Mapping[str, Any]) -> Played | live.Mistake:
    ms = _ms(given.get("ms"))
    return live.Mistake("bad_value", "ms: a whole number from 0") if ms is None else Played(ms)


def _cleared(given: Mapping[str, Any]) -> Cleared | live.Mistake:
    sent_ms, played_ms = _ms(given.get("sent_ms")), _ms(given.get("played_ms"))
    if sent_ms is None or played_ms is None:
        return live.Mistake("bad_value", "sent_ms, played_ms: whole numbers from 0")
    return Cleared(sent_ms, played_ms)


def _ms(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


POSITIONS: dict[str, live.Reader] = {"played": _played, "cleared": _cleared}
"""What a device says beside `live.Asked`, by type."""


class Positions:
    """Marks against milliseconds, by what the device says."""

    def __init__(self) -> None:
        self.sent_ms = 0
        self.played_ms = 0
        self._counted_ms = 0  # played or dropped
        self._marks: deque[tuple[int, str]] = deque()
        self._clears: deque[int] = deque(maxlen=64)  # not yet answered

    def sent(self, message: Message) -> None:
        self.sent_ms += len(message.audio) // MULAW_8K.bytes_per_ms
        if message.mark:
            self._marks.append((self.sent_ms, message.mark))

    def clear(self) -> int:
        """How many ms are dropped, in frames: what the device has not said it played, rather too many than too few."""
        self._marks.clear()
        self._clears.append(self.sent_ms)
        dropped_ms, self._counted_ms = self.sent_ms - max(self.played_ms, self._counted_ms), self.sent_ms
        return -(-dropped_ms // FRAME_MS) * FRAME_MS

    def played(self, said: Played) -> list[str] | live.Mistake:
        """The marks that are reached by it. One that was under way when we cleared reaches none."""
        if not self.played_ms <= said.ms <= self.sent_ms:
            return live.Mistake("bad_value", f"ms: from {self.played_ms} to {self.sent_ms}")
        self.played_ms = said.ms
        reached: list[str] = []
        while self._marks and self._marks[0][0] <= said.ms:
            reached.append(self._marks.popleft()[1])
        return reached

    def cleared(self, said: Cleared) -> live.Mistake | None:
        if said.sent_ms not in self._clears:
            return live.Mistake("bad_value", "sent_ms: that of a clear")
        if said.played_ms > said.sent_ms:
            return live.Mistake("bad_value", "played_ms: not over sent_ms")
        while self._clears.popleft() != said.sent_ms:
            pass
        self.played_ms = max(self.played_ms, said.sent_ms)  # what was dropped counts as gone
        return None


class Reckoning:
    """Marks against the clock, for a device that does not say what it has played: it plays what it has, without a
    break, from the moment it must have come."""

    def __init__(self) -> None:
        self.sent_ms = 0
        self._marks: deque[tuple[float, str]] = deque()
        self._empty_at = 0.0

    def sent(self, message: Message, now: float, late_s: float) -> None:
        """`late_s`: after this the device plays what is sent to it."""
        length_ms = len(message.audio) // MULAW_8K.bytes_per_ms
        self.sent_ms += length_ms
        self._empty_at = max(self._empty_at, now + late_s) + length_ms / 1000
        if message.mark:
            self._marks.append((self._empty_at, message.mark))

    def due(self, now: float) -> list[str]:
        reached: list[str] = []
        while self._marks and self._marks[0][0] <= now:
            reached.append(self._marks.popleft()[1])
        return reached

    def clear(self, now: float) -> int:
        """How many ms are dropped, rounded up to frames."""
        left_ms = max(0, round((self._empty_at - now) * 1000))
        self._marks.clear()
        self._empty_at = 0.0
        return -(-left_ms // FRAME_MS) * FRAME_MS
