"""One call's media in a LiveKit room: a Leg over a `RoomWire`. It is there for one call; the room may see another.

A device's audio counts from its `Armed` on, as with WebRTC; until then, and while it publishes no microphone, the lane
hears silence.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from trunkline.clock import Clock
from trunkline.gateway import live
from trunkline.gateway.device import Device, DeviceHands
from trunkline.gateway.entering import Entered
from trunkline.gateway.leg import DeviceCall, LegKind
from trunkline.gateway.livekit.outgoing import Outgoing
from trunkline.gateway.livekit.room import RoomWire
from trunkline.media.bus import Receiver
from trunkline.media.g711 import decode, encode
from trunkline.media.playout import LeadPolicy, Message
from trunkline.ports import Refuse
from trunkline.types import FRAME_MS, MULAW_8K

FRAME_BYTES = MULAW_8K.frame_bytes
SILENT_FRAME = MULAW_8K.silence * FRAME_BYTES
LINGER_S = 0.4  # for the far end's jitter buffer to play what was sent
MAX_MISSED_FRAMES = 10  # of silence that a late beat makes up


class LegDesk(Protocol):
    """What a leg asks of whoever is in its room."""

    def left(self, leg: "LivekitLeg", linger_s: float) -> None:
        """It is over, and nothing more comes of it. Once. `linger_s`: what it said last is still on its way."""
        ...


class LivekitLeg(DeviceHands):
    """Leg and Hands of its call."""

    kind: LegKind = "livekit"
    networked = False
    writable = True

    def __init__(self, wire: RoomWire, desk: LegDesk, entered: Entered, lead: LeadPolicy, clock: Clock) -> None:
        self.lead = lead
        self.device = Device(entered.needs_arming, self._mistake, clock.now())
        self.bus: Receiver | None = None
        self.speaking = False
        """The device publishes its microphone."""
        self._wire, self._desk, self._entered, self._clock = wire, desk, entered, clock
        self._call: DeviceCall | None = entered.call
        self._outgoing = Outgoing()
        self._position_ms = 0
        self._fed_at = clock.now()
        self._received = self._undecodable = self._untold = self._untaken_ms = 0
        self._over = False

    def begin(self) -> None:
        """The conversation does."""
        call = self._call
        if call is None or self._over:
            return
        self.tell(live.encode(self._entered.joined))
        bus = call.attach(self)
        if isinstance(bus, Refuse):
            self._call = None
            self.close(bus.code)
            return
        self.bus = bus

    # --- from the room ---

    def audio(self, pcm16: bytes) -> None:
        if self._over:
            return
        try:
            if len(pcm16) != 2 * FRAME_BYTES:
                self._undecodable += 1
                return
            self._received += 1
            if self.device.armed:
                self._hear(encode(pcm16, "mulaw"), self._clock.now())
            else:
                self.device.refuse_audio()
        except Exception as error:
            self._crash(error)

    def message(self, data: bytes) -> None:
        if self._over:
            return
        try:
            asked = self.device.read(data, self._clock.now())
            if asked is not None:
                self.device.do(asked, self._call)
        except Exception as error:
            self._crash(error)

    def departed(self, why: str, *, in_order: bool) -> None:
        """The device's participant has left the room, or was lost."""
        call = self._call
        if in_order:
            self._call = None
        self._end(why)
        if in_order and call is not None:
            call.stopped(self)

    def lose(self, why: str) -> None:
        """The room is gone."""
        self._end(why)

    def _hear(self, frame: bytes, now: float) -> None:
        """On to the lane."""
        if self.bus is not None:
            self._fed_at = now
            self._position_ms += FRAME_MS
            self.bus.receive(frame, self._position_ms)

    # --- from the desk, once a beat ---

    def beat(self, now: float) -> None:
        if self._over:
            return
        try:
            for mark in self._outgoing.due(now):
                if self.bus is not None:
                    self.bus.mark_returned(mark)
            if self.bus is not None and not (self.device.armed and self.speaking):
                for _ in range(min(MAX_MISSED_FRAMES, int((now - self._fed_at) * 1000) // FRAME_MS)):
                    self._hear(SILENT_FRAME, self._fed_at + FRAME_MS / 1000)
        except Exception as error:
            self._crash(error)

    def tell(self, message: str) -> None:
        """An event. One that the room does not take is dropped and counted."""
        if not self._over and not self._wire.tell(message):
            self._untold += 1

    def _mistake(self, mistake: live.Mistake) -> None:
        self.tell(live.encode(mistake))

    # --- Leg ---

    def send(self, messages: Sequence[Message]) -> None:
        if self._over:
            return
        self._outgoing.put(messages, self._clock.now())
        for message in messages:
            if not self._wire.play(decode(message.audio, "mulaw")):
                self._untaken_ms += len(message.audio) // MULAW_8K.bytes_per_ms

    def clear(self) -> int | None:
        self._wire.clear()
        return self._outgoing.clear(self._clock.now())

    def stats(self) -> Mapping[str, int]:
        return {
            "device_frames": self._received,
            "uneven_frames": self._undecodable,
            "unarmed_frames": self.device.unarmed,
            "untaken_ms": self._untaken_ms,
            "dropped_events": self._untold,
        }

    def close(self, why: str = "") -> None:
        """Idempotent; `lost` follows. What was sent is heard first, and the device learns the reason."""
        goodbye = live.goodbye(why)
        if goodbye is not None and not self._over:
            self.tell(goodbye)
        rest_s = self._outgoing.queued_ms(self._clock.now()) / 1000
        self._end(f"we closed it ({why})" if why else "we closed it", rest_s + LINGER_S)

    def detach(self) -> None:
        self._call = self.bus = None

    # --- the end ---

    def _end(self, why: str, linger_s: float = 0.0) -> None:
        if self._over:
            return
        self._over = True
        call, self._call, self.bus = self._call, None, None
        if not linger_s:
            self._wire.clear()
        self._desk.left(self, linger_s)
        if call is not None:
            call.lost(self, why)

    def _crash(self, error: Exception) -> None:
        call = self._call
        if call is not None:
            call.crashed(error)
        self._end("our own fault")
