"""RTP and RTCP of one audio stream each way (RFC 3550), as bytes: packets in, values out and back. No clock, no socket.

Only what the call needs is read: header, digits (RFC 4733), and of RTCP the sender's time and how our packets fared.
"""

import struct
from dataclasses import dataclass
from typing import NamedTuple

MAX_PACKET_BYTES = 1400
_HEADER = struct.Struct("!BBHII")
KEYS = "0123456789*#ABCD"


class Packet(NamedTuple):
    payload_type: int
    marker: bool
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes


def read(data: bytes) -> Packet | None:
    """None: not RTP."""
    if len(data) < 12:
        return None
    first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(data)
    if first >> 6 != 2:
        return None
    start = 12 + 4 * (first & 0x0F)
    if first & 0x10:  # a header extension
        if len(data) < start + 4:
            return None
        start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4], "big")
    end = len(data)
    if first & 0x20:  # padding, its last byte says how much
        end -= data[-1]
    if end < start:
        return None
    return Packet(second & 0x7F, second > 0x7F, sequence, timestamp, ssrc, data[start:end])


def write(payload_type: int, sequence: int, timestamp: int, ssrc: int, payload: bytes, *, marker: bool) -> bytes:
    return _HEADER.pack(0x80, payload_type | (0x80 if marker else 0), sequence, timestamp, ssrc) + payload


def after(sequence: int, other: int) -> int:
    """How far a sequence number lies after another, across their wrap: -32768 to 32767."""
    return ((sequence - other + 0x8000) & 0xFFFF) - 0x8000


class Keys:
    """Digits of a stream: each is many packets with one timestamp, of which the first counts."""

    def __init__(self) -> None:
        self._last: int | None = None

    def read(self, packet: Packet) -> str | None:
        if len(packet.payload) < 4 or packet.payload[0] >= len(KEYS) or packet.timestamp == self._last:
            return None
        self._last = packet.timestamp
        return KEYS[packet.payload[0]]


# --- RTCP ---

_SR, _RR, _SDES, _BYE = 200, 201, 202, 203
_NTP_EPOCH_S = 2_208_988_800  # 1900 to 1970


@dataclass(frozen=True, slots=True)
class SenderTime:
    """When they sent a report, by their clock: the middle 32 bits of an NTP time."""

    ssrc: int
    compact_ntp: int


@dataclass(frozen=True, slots=True)
class Fared:
    """How our packets fare on the way to them."""

    lost_share: float
    lost: int
    jitter_ms: float
    last_sr: int = 0
    """The middle of our sender report's NTP time that they had last; 0: none."""
    held: int = 0
    """... this long, in 65,536ths of a second."""

    def round_trip_ms(self, wall_s: float) -> float | None:
        """RFC 3550 6.4.1, at the time it came. None: they cannot tell, or it makes no sense."""
        took = (int((wall_s + _NTP_EPOCH_S) * 65536) - self.last_sr - self.held) & 0xFFFFFFFF
        return took / 65.536 if self.last_sr and took < 10 * 65536 else None


@dataclass(frozen=True, slots=True)
class Bye:
    pass


def read_rtcp(data: bytes) -> list[SenderTime | Fared | Bye]:
    """What matters of a compound packet; the rest of a broken one is left out."""
    found: list[SenderTime | Fared | Bye] = []
    at = 0
    while at + 8 <= len(data):
        first, kind, words = struct.unpack_from("!BBH", data, at)
        end = at + 4 + 4 * words
        if first >> 6 != 2 or end > len(data):
            break
        blocks = at + 8
        if kind == _SR and end >= at + 28:
            ssrc, high, low = struct.unpack_from("!III", data, at + 4)
            found.append(SenderTime(ssrc, (high & 0xFFFF) << 16 | low >> 16))
            blocks = at + 28
        if kind in (_SR, _RR) and first & 0x1F and blocks + 24 <= end:
            lost_and_share, _, jitter, last_sr, held = struct.unpack_from("!IIIII", data, blocks + 4)
            lost = lost_and_share & 0xFFFFFF
            found.append(
                Fared(
                    (lost_and_share >> 24) / 256,
                    lost - (1 << 24) if lost & 0x800000 else lost,
                    jitter / 48,
                    last_sr,
                    held,
                )
            )
        if kind == _BYE:
            found.append(Bye())
        at = end
    return found


@dataclass(slots=True)
class Reception:
    """How theirs fare on the way to us (RFC 3550 A.3, A.8), in RTP's 48 kHz."""

    ssrc: int
    base: int
    highest: int
    cycles: int = 0
    received: int = 1
    jitter: float = 0.0
    transit: float | None = None
    _expected_before: int = 0
    _received_before: int = 0

    def heard(self, sequence: int, timestamp: int, now: float) -> None:
        """A packet, not the first, at `now` in seconds."""
        self.received += 1
        if after(sequence, self.highest) > 0:
            if sequence < self.highest:
                self.cycles += 1 << 16
            self.highest = sequence
        transit = now * 48_000 - timestamp
        if self.transit is not None and (change := abs(transit - self.transit)) < 48_000:  # else the clock has wrapped
            self.jitter += (change - self.jitter) / 16
        self.transit = transit

    @property
    def lost(self) -> int:
        return max(0, self.cycles + self.highest - self.base + 1 - self.received)

    def block(self, last_sr: int, since_sr_s: float) -> bytes:
        """A reception report; the share of lost packets is since the last one."""
        expected = self.cycles + self.highest - self.base + 1
        interval, got = expected - self._expected_before, self.received - self._received_before
        self._expected_before, self._received_before = expected, self.received
        share = min(255, max(0, interval - got) * 256 // interval) if interval > 0 else 0
        since = min(0xFFFFFFFF, int(since_sr_s * 65536)) if last_sr else 0
        return struct.pack(
            "!IIIIII",
            self.ssrc,
            share << 24 | min(self.lost, 0x7FFFFF),
            (self.cycles + self.highest) & 0xFFFFFFFF,
            int(self.jitter),
            last_sr,
            since,
        )


def report(ssrc: int, sent: tuple[float, int, int, int] | None, blocks: bytes = b"") -> bytes:
    """A compound packet of ours. `sent`: the wall clock in seconds, the RTP timestamp then, packets and bytes so far;
    None while nothing was sent. `blocks`: one reception report, or none."""
    count, words = len(blocks) // 24, len(blocks) // 4
    if sent is None:
        head = struct.pack("!BBHI", 0x80 | count, _RR, 1 + words, ssrc)
    else:
        wall, timestamp, packets, sent_bytes = sent
        whole = int(wall)
        head = struct.pack(
            "!BBHIIIIII",
            0x80 | count,
            _SR,
            6 + words,
            ssrc,
            whole + _NTP_EPOCH_S & 0xFFFFFFFF,
            int((wall - whole) * (1 << 32)) & 0xFFFFFFFF,
            timestamp,
            packets & 0xFFFFFFFF,
            sent_bytes & 0xFFFFFFFF,
        )
    return head + blocks + _sdes(ssrc)


def goodbye(ssrc: int) -> bytes:
    return report(ssrc, None) + struct.pack("!BBHI", 0x81, _BYE, 1, ssrc)


def _sdes(ssrc: int) -> bytes:
    name = b"trunkline"
    item = struct.pack("!BB", 1, len(name)) + name
    chunk = struct.pack("!I", ssrc) + item + b"\0" * (4 - len(item) % 4)
    return struct.pack("!BBH", 0x81, _SDES, len(chunk) // 4) + chunk
