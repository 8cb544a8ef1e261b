"""The places in a conference: a Port for a real leg, a Seat for the AI agent's Bus. The room is conference.py.

Time. A port keeps what has arrived until the beat takes it; what arrives in a burst (a carrier's TCP) waits, at most
LIMIT_FRAMES. A frame too few is bridged by the last one once, then by silence. A frame too many, one that a whole
WINDOW_FRAMES was never needed, is dropped, the quietest that waits. On the other side the far end's own buffer is the
queue: marks tell what waits there, and a frame that was never needed is not sent. So two clocks that run apart cost a
frame now and then, counted, and delay does not grow: between two SIP legs it stays within two frames.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from trunkline.media import g711
from trunkline.media.bus import Bus, LegOut
from trunkline.media.playout import Message
from trunkline.media.sources import FRAME, Source
from trunkline.types import FRAME_MS, MULAW_8K

Role = Literal["caller", "agent", "representative", "supervisor"]
Supervision = Literal["listen", "whisper", "speak"]

LIMIT_FRAMES = 15  # of arrived audio that waits: a stall of 300 ms is heard out, of a longer one the end
WINDOW_FRAMES = 25  # half a second: a frame that was spare so long is dropped
SPARE_MS = FRAME_MS  # what may always wait at the far end: its clock and our beat are never quite together
SEAT_LIMIT_MS = 2000  # more than any playout's lead
VAIN_SKIPS = 3
MARK_MS = 100  # over a network a mark costs a message each way
_NEVER_MS = 1 << 30
_SAMPLES_PER_MS = MULAW_8K.rate_hz // 1000


class Room(Protocol):
    """What a port asks of its conference."""

    def caller_says(self, audio: bytes, carrier_ms: int) -> bytes:
        """What the others are to hear of it."""
        ...

    def pass_on(self, to: "Port", frame: bytes) -> None:
        """At once, not in a beat. Does not raise."""
        ...


@dataclass(slots=True)
class PortStats:
    received_frames: int = 0
    sent_frames: int = 0
    lost_ms: int = 0
    """Media the carrier's timestamps say there was, and we never got."""
    repeated_frames: int = 0
    """Nothing had arrived for a beat: its last frame was heard again."""
    missing_frames: int = 0
    """Nothing had arrived, again: silence."""
    dropped_frames: int = 0
    """Arrived and never heard: too many, or spare."""
    skipped_frames: int = 0
    """Not sent, for too much already waited at the far end."""
    refused_frames: int = 0
    """Not sent, for the far end did not read."""


class Place:
    """What every member has; `partner` is the room's working out."""

    role: Role
    name: str

    def __init__(self, room: Room, role: Role, name: str) -> None:
        self.role, self.name = role, name
        self.inside = True
        self.muted = False
        self.held = False
        self.hears: Source | None = None
        """On hold."""
        self.supervision: Supervision = "listen"
        self.partner: Port | None = None
        """Alone with this one: frames go on as they come."""
        self._room = room

    def take(self) -> bytes | None:
        """What it says in this beat."""
        raise NotImplementedError

    def give(self, frame: bytes, now: float) -> None:
        """What it hears in this beat."""
        raise NotImplementedError

    def after_beat(self) -> None:
        """All have heard."""


class Port(Place):
    """A real leg's place: its `Receiver`. Frames in are audible until leave()."""

    def __init__(self, room: Room, leg: LegOut, role: Role, name: str, networked: bool) -> None:
        super().__init__(room, role, name)
        self.leg, self.stats = leg, PortStats()
        self._networked = networked
        self._arrived: deque[bytes] = deque()
        self._rest = b""
        self._last: bytes | None = None
        self._next_ms: int | None = None
        self._spare_frames, self._takes = LIMIT_FRAMES, 0
        self._sent_ms = self._returned_ms = 0
        self._floor_ms = _NEVER_MS if networked else 0
        self._waiting_ms, self._gives = _NEVER_MS, 0
        self._skipped_at_ms = self._vain = 0
        self._skip = False

    # --- Receiver, for the leg ---

    def receive(self, audio: bytes, carrier_ms: int) -> None:
        if not self.inside:
            return
        if self._next_ms is not None and carrier_ms > self._next_ms:
            self.stats.lost_ms += carrier_ms - self._next_ms
        self._next_ms = carrier_ms + len(audio) // _SAMPLES_PER_MS
        if self.role == "caller":
            audio = self._room.caller_says(audio, carrier_ms)
        if len(audio) == FRAME and not self._rest:
            self._arrive(audio)
            return
        audio = self._rest + audio
        whole = len(audio) - len(audio) % FRAME
        self._rest = audio[whole:]
        for at in range(0, whole, FRAME):
            self._arrive(audio[at : at + FRAME])

    def mark_returned(self, name: str) -> None:
        # Other names are of the bus that had this leg before, cleared since, or are the peer's own invention.
        if name.startswith("c") and len(name) < 16 and name[1:].isdecimal():
            self._returned_ms = min(max(self._returned_ms, int(name[1:])), self._sent_ms)

    # --- the room's ---

    def _arrive(self, frame: bytes) -> None:
        self.stats.received_frames += 1
        if self.partner is not None:
            self._room.pass_on(self.partner, frame)
            return
        arrived = self._arrived
        arrived.append(frame)
        if len(arrived) > LIMIT_FRAMES:
            arrived.popleft()
            self.stats.dropped_frames += 1

    def take(self) -> bytes | None:
        arrived = self._arrived
        if not arrived:
            self._spare_frames = 0
            last, self._last = self._last, None
            if last is not None:
                self.stats.repeated_frames += 1
            elif self.stats.received_frames:
                self.stats.missing_frames += 1
            return last
        frame = self._last = arrived.popleft()
        if len(arrived) < self._spare_frames:
            self._spare_frames = len(arrived)
        self._takes += 1
        if self._takes == WINDOW_FRAMES:
            if self._spare_frames:
                del arrived[min(range(len(arrived)), key=lambda i: _loudness(arrived[i]))]
                self.stats.dropped_frames += 1
            self._takes, self._spare_frames = 0, LIMIT_FRAMES
        return frame

    def drain(self) -> list[bytes]:
        """What has arrived and was not heard."""
        frames = list(self._arrived)
        self._arrived.clear()
        self._last, self._takes, self._spare_frames = None, 0, LIMIT_FRAMES
        return frames

    def give(self, frame: bytes, now: float) -> None:
        if self._returned_ms:  # before that, nothing tells what waits
            self._waiting_ms = min(self._waiting_ms, self._sent_ms - self._returned_ms)
            self._gives += 1
            if self._gives == WINDOW_FRAMES:
                self._judge()
        if self._skip:
            self._skip = False
            self.stats.skipped_frames += 1
        elif not self.leg.writable:
            self.stats.refused_frames += 1
        else:
            # What a partner did not say is its own silence; what the beat did not send is our gap.
            continues = self._sent_ms > 0 and self.partner is None
            self._sent_ms += FRAME_MS
            self.stats.sent_frames += 1
            marked = not self._networked or self._sent_ms % MARK_MS == 0
            self.leg.send((Message(frame, f"c{self._sent_ms}" if marked else "", now, continues),))

    def _judge(self) -> None:
        """Did more wait all the time than must? Over a network the least ever seen is the marks' way; when skipping
        does not help, that way has become longer."""
        least_ms = self._waiting_ms
        self._vain = self._vain + 1 if least_ms >= self._skipped_at_ms > 0 else 0
        if self._networked and (least_ms < self._floor_ms or self._vain == VAIN_SKIPS):
            self._floor_ms, self._vain = least_ms, 0
        self._skip = least_ms > self._floor_ms + SPARE_MS
        self._skipped_at_ms = least_ms if self._skip else 0
        self._waiting_ms, self._gives = _NEVER_MS, 0


class Seat(Place):
    """The AI agent's place: the leg its Bus speaks to, and who speaks to its Bus. A frame is consumed each beat and its
    marks come back then, as on a SIP line; `clear` knows exactly what was dropped."""

    def __init__(self, room: Room, role: Role, name: str) -> None:
        super().__init__(room, role, name)
        self.bus: Bus | None = None
        self.heard_frames = self.said_frames = 0
        self._said: deque[bytes] = deque()
        self._marks: deque[tuple[int, str]] = deque()
        self._written_ms = self._taken_ms = 0
        self._position_ms = 0
        self._full = False

    def plug(self, bus: Bus) -> None:
        """The agent speaks and hears here from now on; what its former leg had not yet played is said here."""
        self._position_ms = bus.carrier_ms + FRAME_MS
        self.bus = bus
        move(bus, self)

    def unplug(self, leg: LegOut) -> None:
        """Back to a leg of its own, which also gives the bus its frames from now on. Idempotent."""
        bus, self.bus = self.bus, None
        if bus is not None:
            move(bus, leg)
            self._forget()

    # --- LegOut, for the bus ---

    @property
    def writable(self) -> bool:
        return not self._full

    def send(self, messages: Sequence[Message]) -> None:
        if not self.inside:
            return
        for audio, mark, _, _ in messages:
            for at in range(0, len(audio), FRAME):
                self._said.append(audio[at : at + FRAME])
            self._written_ms += len(audio) // _SAMPLES_PER_MS
            self._marks.append((self._written_ms, mark))
        self._full = len(self._said) * FRAME_MS >= SEAT_LIMIT_MS

    def clear(self) -> int:
        dropped_ms = len(self._said) * FRAME_MS
        self._forget()
        return dropped_ms

    def _forget(self) -> None:
        self._said.clear()
        self._marks.clear()
        self._written_ms = self._taken_ms
        self._full = False

    # --- the room's ---

    def take(self) -> bytes | None:
        if not self._said:
            return None
        self._taken_ms += FRAME_MS
        self.said_frames += 1
        return self._said.popleft()

    def give(self, frame: bytes, now: float) -> None:
        bus = self.bus
        if bus is not None:
            self.heard_frames += 1
            position_ms, self._position_ms = self._position_ms, self._position_ms + FRAME_MS
            bus.receive(frame, position_ms)

    def after_beat(self) -> None:
        marks, bus = self._marks, self.bus
        while marks and marks[0][0] <= self._taken_ms and bus is not None:
            bus.mark_returned(marks.popleft()[1])
        if self._full and len(self._said) * FRAME_MS < SEAT_LIMIT_MS // 2:
            self._full = False


def move(bus: Bus, leg: LegOut) -> None:
    """What was sent and not heard goes back to the queue and is sent again by the new way."""
    if not bus.playout.paused and bus.playout.unheard:
        bus.pause()
        bus.leg = leg
        bus.resume()
    else:
        bus.leg = leg


def _loudness(frame: bytes) -> float:
    pcm = g711.MULAW_F32.take(np.frombuffer(frame, np.uint8))
    return float(pcm @ pcm)
