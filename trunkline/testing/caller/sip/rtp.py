"""RTP (RFC 3550) of one G.711 stream: packets out, packets in, and what became of them on the way."""

import struct
from array import array
from dataclasses import dataclass
from typing import NamedTuple

from trunkline.media.g711 import MULAW_I16
from trunkline.types import FRAME_MS, MULAW_8K

HEADER_BYTES = 12
EVENT_MS = 100  # RFC 4733 2.5.1.2 wants at least 40; carriers like 80 to 120
END_PACKETS = 3  # RFC 4733 2.5.1.4
EVENT_VOLUME = 10  # -dBm0
LATE_MS = 60.0  # after its time by the stream's own clock: what a usual jitter buffer no longer waits for
LEAST_PACKETS = 250
MAX_JUMP = 3000  # RFC 3550 A.1: a bigger step of the sequence number is another stream

_HEADER = struct.Struct("!BBHII")
_EVENT = struct.Struct("!BBH")
_FRAME = MULAW_8K.frame_samples
DIGITS = "0123456789*#ABCD"  # RFC 4733 3.2, table 3

QUIET = bytes(i for i in range(256) if abs(int(MULAW_I16[i])) <= 32)
"""The mu-law codes within -60 dBFS: digital silence, and comfort noise that nobody hears."""


class Packet(NamedTuple):
    payload_type: int
    marker: bool
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes


def parse(data: bytes) -> Packet | None:
    """None for what is not RTP version 2 (RTCP, STUN, noise)."""
    if len(data) < HEADER_BYTES:
        return None
    first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(data)
    if first == 0x80:
        return Packet(second & 0x7F, second > 127, sequence, timestamp, ssrc, data[HEADER_BYTES:])
    if first & 0xC0 != 0x80 or 72 <= second & 0x7F <= 76:  # RFC 5761 4: those are RTCP
        return None
    start, end = HEADER_BYTES + 4 * (first & 0x0F), len(data)
    if first & 0x10:
        if end < start + 4:
            return None
        start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4], "big")
    if first & 0x20:
        end -= data[-1]
    return Packet(second & 0x7F, second > 127, sequence, timestamp, ssrc, data[start:end]) if start <= end else None


class Sender:
    """The packets of one source. `tick` once every 20 ms, sent or not: the timestamp is time (RFC 3550 5.1)."""

    def __init__(self, ssrc: int, sequence: int, timestamp: int) -> None:
        self.packets = 0
        self._ssrc, self._sequence, self._timestamp = ssrc, sequence & 0xFFFF, timestamp & 0xFFFFFFFF
        self._paused = True  # a talkspurt begins with the next packet: marker (RFC 3551 4.1)
        self._sent = False
        self._event: tuple[int, int, int] | None = None  # code, timestamp of its start, ms so far
        self._ends_left = 0

    @property
    def keying(self) -> bool:
        return self._event is not None

    def audio(self, payload: bytes, payload_type: int) -> bytes:
        packet = self._packet(payload, payload_type, self._paused, self._timestamp)
        self._paused = False
        return packet

    def key(self, digit: str) -> None:
        """From the next `event` on; a digit before it that is not over is cut short."""
        self._event, self._ends_left = (DIGITS.index(digit), self._timestamp, 0), END_PACKETS

    def event(self, payload_type: int) -> bytes:
        """The next packet of the digit being keyed, in place of audio."""
        assert self._event is not None
        code, timestamp, ms = self._event
        first, ms = ms == 0, min(ms + FRAME_MS, EVENT_MS)
        end = ms == EVENT_MS
        self._event = (code, timestamp, ms)
        payload = _EVENT.pack(code, (0x80 if end else 0) | EVENT_VOLUME, ms * 8)
        packet = self._packet(payload, payload_type, first, timestamp)
        if end:
            self._ends_left -= 1
            if not self._ends_left:
                self._event, self._paused = None, True
        return packet

    def tick(self) -> None:
        self._timestamp = (self._timestamp + _FRAME) & 0xFFFFFFFF
        if not self._sent:
            self._paused = True
        self._sent = False

    def _packet(self, payload: bytes, payload_type: int, marker: bool, timestamp: int) -> bytes:
        head = _HEADER.pack(0x80, payload_type | (0x80 if marker else 0), self._sequence, timestamp, self._ssrc)
        self._sequence = (self._sequence + 1) & 0xFFFF
        self.packets += 1
        self._sent = True
        return head + payload


@dataclass(slots=True)
class Received:
    """What became of a stream, by its sequence numbers and arrivals."""

    packets: int = 0
    lost: int = 0
    """Never came (so far): by sequence numbers."""
    duplicate: int = 0
    reordered: int = 0
    late: int = 0
    """Came over LATE_MS later than the quickest of the last seconds, by the stream's own clock."""
    restarts: int = 0
    """Another SSRC, or a jump of the sequence numbers."""
    jitter_ms: float = 0.0
    """RFC 3550 6.4.1."""


class Receiver:
    """Counts, and the time between neighbouring packets. `seen` for each packet, in the order of arrival."""

    def __init__(self) -> None:
        self.counts = Received()
        self.intervals_ms = array("f")
        """Between packets of neighbouring sequence numbers."""
        self._highest = -1
        self._ssrc = 0
        self._last_at = 0.0
        self._transit_s = 0.0
        self._least_s = self._before_s = 0.0  # the quickest of the last LEAST_PACKETS, and of those before

    def seen(self, packet: Packet, at: float) -> bool:
        """False: a duplicate, or one that was overtaken."""
        counts = self.counts
        counts.packets += 1
        if self._highest < 0 or packet.ssrc != self._ssrc:
            self._restart(packet, at)
            return True
        step = (packet.sequence - self._highest) & 0xFFFF
        transit_s = at - packet.timestamp / 8000
        if step == 1:
            self.intervals_ms.append((at - self._last_at) * 1000)
        elif step == 0:
            counts.duplicate += 1
            return False
        elif step < MAX_JUMP:
            counts.lost += step - 1
        elif step > 0x10000 - 100:
            counts.reordered += 1
            counts.lost = max(0, counts.lost - 1)
            return False
        else:
            self._restart(packet, at)
            return True
        self._highest, self._last_at = packet.sequence, at
        drift_s = transit_s - self._transit_s
        self._transit_s = transit_s
        if abs(drift_s) > 1000:  # the timestamp has wrapped
            self._least_s = self._before_s = transit_s
            return True
        counts.jitter_ms += (abs(drift_s) * 1000 - counts.jitter_ms) / 16
        if counts.packets % LEAST_PACKETS == 0:  # the clocks drift, and a sender may lose time for good
            self._before_s, self._least_s = self._least_s, transit_s
        self._least_s = min(transit_s, self._least_s)
        if (transit_s - min(self._least_s, self._before_s)) * 1000 > LATE_MS:
            counts.late += 1
        return True

    def _restart(self, packet: Packet, at: float) -> None:
        self.counts.restarts += self._highest >= 0
        self._highest, self._ssrc, self._last_at = packet.sequence, packet.ssrc, at
        self._transit_s = self._least_s = self._before_s = at - packet.timestamp / 8000


class Playout:
    """A small buffer that turns what comes into one frame a tick, as a telephone plays it. `put` and `take`."""

    def __init__(self, delay_ms: int = 60, limit_ms: int = 400) -> None:
        self.late = 0
        """Packets that came after their time had been played."""
        self.dropped_ms = 0
        """Thrown away because the far end runs faster than we play."""
        self._delay, self._limit = delay_ms * 8, limit_ms * 8
        self._buffer = bytearray()
        self._end = 0  # timestamp after the last sample in the buffer
        self._filling = True

    def put(self, timestamp: int, audio: bytes) -> None:
        ahead = (timestamp - self._end + 0x80000000 & 0xFFFFFFFF) - 0x80000000
        if self._filling and not self._buffer:
            ahead = 0
        if ahead < 0 and -ahead < self._limit:
            self.late += 1
            return
        if 0 < ahead <= self._limit:
            self._buffer += MULAW_8K.silence * ahead
        self._buffer += audio
        self._end = (timestamp + len(audio)) & 0xFFFFFFFF
        excess = len(self._buffer) - self._limit
        if excess > 0:
            del self._buffer[:excess]
            self.dropped_ms += excess // 8

    def take(self) -> bytes | None:
        """The next 20 ms; None: there is nothing to play."""
        if self._filling:
            if len(self._buffer) < self._delay:
                return None
            self._filling = False
        frame = bytes(self._buffer[:_FRAME])
        del self._buffer[:_FRAME]
        self._filling = not self._buffer
        return frame.ljust(_FRAME, MULAW_8K.silence)
