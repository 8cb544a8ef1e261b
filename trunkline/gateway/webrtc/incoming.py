"""What to do with the caller's packets: in order, at once, and what of a lost one.

Nobody plays the caller's audio to an ear here, so nothing is delayed to be smooth: a packet that is next goes on as it
arrives. Only behind a gap packets are held, for as long as packets of this caller have been seen to come late
(`patience_s`, adaptive); then the missing are concealed, the last of them from the redundancy of the packet after it,
and what is missing beyond MAX_CONCEAL_MS is a hole, which the lane counts as lost. Plain values; `now` in seconds.

A stream that begins anew (another SSRC, a leap) goes on where time has got to. A pause in the timestamps without one in
the numbers (DTX) is silence.
"""

from typing import Literal, NamedTuple

from trunkline.gateway.webrtc.rtp import Packet, after

CLOCK_PER_MS = 48
FIRST_PATIENCE_S, MIN_PATIENCE_S, MAX_PATIENCE_S = 0.06, 0.02, 0.14
CALMER = 0.999  # of patience, per packet in order
SLACK_S = 0.01  # of a late packet, beyond what it was late by
MAX_CONCEAL_MS = 100  # beyond it libopus has faded out
MAX_SILENCE_MS = 1000
MAX_HELD = 50  # packets: a second
LEAP = 500  # packets: no loss any more, but another stream


class Piece(NamedTuple):
    """Something to decode. `lost`: nothing came; `payload` may then be the packet after it, which may repeat it."""

    kind: Literal["audio", "lost", "silence"]
    position_ms: int
    """On the stream's clock, from 0."""
    length_ms: int
    """0 where only decoding tells."""
    payload: bytes = b""


class Incoming:
    def __init__(self) -> None:
        self.patience_s = FIRST_PATIENCE_S
        self.lost = self.late = self.repeated = self.restarts = 0
        """Packets: never there in time, there too late, there twice; streams begun anew."""
        self._ssrc: int | None = None
        self._next = 0
        self._next_time = 0  # RTP timestamp at which the next packet is due
        self._position_ms = 0  # of that
        self._frame_ms = 20
        self._held: dict[int, tuple[Packet, float]] = {}  # and when it came
        self._skipped: dict[int, float] = {}  # given up, and when
        self._heard_at = 0.0

    @property
    def waiting(self) -> bool:
        """Packets are held: `due` is to be asked."""
        return bool(self._held)

    def push(self, packet: Packet, length_ms: int, now: float) -> list[Piece]:
        """A packet and the length of its audio. Returns what can be decoded now, in order."""
        if packet.ssrc != self._ssrc or abs(after(packet.sequence, self._next)) > LEAP:
            self._restart(packet, now)
        self._heard_at = now
        ahead = after(packet.sequence, self._next)
        if ahead < 0:
            self._came_late(packet.sequence, now)
            return []
        if packet.sequence in self._held:
            self.repeated += 1
            return []
        if ahead == 0:
            self.patience_s = max(MIN_PATIENCE_S, self.patience_s * CALMER)
            return [*self._take(packet, length_ms), *self._drain()]
        self._held[packet.sequence] = packet, now
        return self._give_up(now) if len(self._held) > MAX_HELD else []

    def due(self, now: float) -> list[Piece]:
        """What need not be waited for any more."""
        pieces: list[Piece] = []
        while self._held and now - min(at for _, at in self._held.values()) >= self.patience_s:
            pieces += self._give_up(now)
        return pieces

    # --- order ---

    def _take(self, packet: Packet, length_ms: int) -> list[Piece]:
        pieces: list[Piece] = []
        jump_ms = (((packet.timestamp - self._next_time + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)) // CLOCK_PER_MS
        if jump_ms > 0:
            silence_ms = min(jump_ms, MAX_SILENCE_MS)
            self._position_ms += jump_ms
            pieces.append(Piece("silence", self._position_ms - silence_ms, silence_ms))
        pieces.append(Piece("audio", self._position_ms, length_ms, packet.payload))
        self._passed(packet, length_ms)
        return pieces

    def _passed(self, packet: Packet, length_ms: int) -> None:
        if length_ms:
            self._frame_ms = length_ms
        self._next = (packet.sequence + 1) & 0xFFFF
        self._next_time = (packet.timestamp + length_ms * CLOCK_PER_MS) & 0xFFFFFFFF
        self._position_ms += length_ms

    def _drain(self) -> list[Piece]:
        pieces: list[Piece] = []
        while (held := self._held.pop(self._next, None)) is not None:
            pieces += self._take(held[0], self._frame_ms)
        return pieces

    # --- loss ---

    def _give_up(self, now: float) -> list[Piece]:
        """The missing before the first that is held."""
        first = min((packet for packet, _ in self._held.values()), key=lambda each: after(each.sequence, self._next))
        missing = after(first.sequence, self._next)
        self.lost += missing
        for number in range(missing):
            self._skipped[(self._next + number) & 0xFFFF] = now
        while len(self._skipped) > 2 * MAX_HELD:
            del self._skipped[next(iter(self._skipped))]
        missing_ms = missing * self._frame_ms
        concealed = min(missing, max(1, MAX_CONCEAL_MS // self._frame_ms))
        at_ms = self._position_ms + missing_ms - concealed * self._frame_ms
        pieces = [
            Piece("lost", at_ms + number * self._frame_ms, self._frame_ms, first.payload if last else b"")
            for number in range(concealed)
            for last in (number == concealed - 1,)
        ]
        self._next = first.sequence
        self._next_time = (self._next_time + missing_ms * CLOCK_PER_MS) & 0xFFFFFFFF
        self._position_ms += missing_ms
        return pieces + self._drain()

    def _came_late(self, sequence: int, now: float) -> None:
        given_up_at = self._skipped.pop(sequence, None)
        if given_up_at is None:
            self.repeated += 1
            return
        self.late += 1
        self.patience_s = min(MAX_PATIENCE_S, self.patience_s + now - given_up_at + SLACK_S)

    def _restart(self, packet: Packet, now: float) -> None:
        if self._ssrc is not None:
            self.restarts += 1
            self._position_ms += max(0, round((now - self._heard_at) * 1000))
        self._ssrc = packet.ssrc
        self._next, self._next_time = packet.sequence, packet.timestamp
        self._held.clear()
        self._skipped.clear()
