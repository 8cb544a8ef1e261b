"""One WebRTC call's media: a Leg over a `Wire`. Opus in, the lane's mu-law on; the agent's frames out, one a beat.

`packet` runs for every packet of every call, `beat` for every call in every beat: no more happens there than must.

Audio of a device that is not armed is not even decoded; the lane hears silence instead, so that what was being said
when it disarmed has an end.
"""

import secrets
from collections.abc import Mapping, Sequence
from typing import Protocol

from trunkline.clock import Clock
from trunkline.gateway import live
from trunkline.gateway.device import Device, DeviceHands
from trunkline.gateway.entering import Entered
from trunkline.gateway.leg import DeviceCall, LegKind
from trunkline.gateway.sip import quality
from trunkline.gateway.webrtc import rtp
from trunkline.gateway.webrtc.incoming import Incoming, Piece
from trunkline.gateway.webrtc.opus import SILENCE, Decoder, Encoder, duration_ms
from trunkline.gateway.webrtc.outgoing import FRAME_BYTES, Due, Outgoing
from trunkline.gateway.webrtc.sdp import Offer
from trunkline.gateway.webrtc.wire import Wire
from trunkline.media.bus import Receiver
from trunkline.media.g711 import decode, encode
from trunkline.media.playout import LeadPolicy, Message
from trunkline.ports import Refuse
from trunkline.types import FRAME_MS, MULAW_8K

REPORT_S = 5.0  # between RTCP reports (RFC 3550 6.2); the first comes in half of it
MAX_UNTOLD = 64  # events that wait for the data channel to open
_SILENT_FRAME = MULAW_8K.silence * FRAME_BYTES
LINGER_S = 0.4  # for the far end's jitter buffer to play what was sent


class LegDesk(Protocol):
    """What a leg asks of the desk."""

    def left(self, leg: "WebRtcLeg", why: str) -> None:
        """It is over, and nothing more comes of it. Once."""
        ...


class WebRtcLeg(DeviceHands):
    """WireSink of its wire, Leg and Hands of its call."""

    kind: LegKind = "webrtc"
    networked = False

    def __init__(
        self, wire: Wire, offer: Offer, desk: LegDesk, entered: Entered, lead: LeadPolicy, clock: Clock
    ) -> None:
        self.lead = lead
        self.ssrc = secrets.randbits(32)
        self.device = Device(entered.needs_arming, self._mistake, clock.now())
        self.heard_at = self.opened_at = clock.now()
        """When the far end last sent us media or control, or was let in."""
        self.is_connected = False
        self._wire, self._offer, self._desk, self._joined, self._clock = wire, offer, desk, entered.joined, clock
        self._call: DeviceCall | None = entered.call
        self.bus: Receiver | None = None
        self._incoming, self._keys = Incoming(), rtp.Keys()
        self._decoder, self._encoder = Decoder(), Encoder()
        self._outgoing = Outgoing(clock.now(), lead)
        self._marks: list[str] = []
        self._rest, self._rest_ms = b"", 0
        self._fed_at = 0.0
        self._last_ms = 0
        self._reception: rtp.Reception | None = None
        self._their_time, self._their_time_at = 0, 0.0
        self._fared: rtp.Fared | None = None
        self._round_trip_ms: float | None = None
        self._report_at = clock.now() + REPORT_S / 2
        self._sequence = secrets.randbits(15)
        self._time_base = secrets.randbits(32)
        self._sent_packets = self._sent_bytes = self._sent_timestamp = 0
        self._received = self._undecodable = self._concealed = self._untold = 0
        self._is_open, self._waiting = False, list[str]()
        self._over = False

    # --- WireSink ---

    def connected(self) -> None:
        call = self._call
        self.heard_at = self._clock.now()
        self.is_connected = True
        if call is None or self._over:
            return
        bus = call.attach(self)
        if isinstance(bus, Refuse):
            self._call = None
            self.close(bus.code)
            return
        self.bus = bus

    def packet(self, data: bytes) -> None:
        packet = rtp.read(data)
        if packet is None or self._over:
            return
        now = self._clock.now()
        self.heard_at = now
        try:
            if packet.payload_type == self._offer.opus:
                self._audio(packet, now)
            elif packet.payload_type == self._offer.telephone_event:
                digit = self._keys.read(packet)
                if digit is not None and self._call is not None:
                    self._call.key(digit)
        except Exception as error:
            self._crash(error)

    def control(self, data: bytes) -> None:
        self.heard_at = now = self._clock.now()
        for found in rtp.read_rtcp(data):
            if isinstance(found, rtp.SenderTime):
                self._their_time, self._their_time_at = found.compact_ntp, now
            elif isinstance(found, rtp.Fared):
                self._fared = found
                self._round_trip_ms = found.round_trip_ms(self._clock.wall().timestamp()) or self._round_trip_ms

    def opened(self) -> None:
        self._is_open = True
        self.tell(live.encode(self._joined), first=True)

    def message(self, data: str | bytes) -> None:
        self.heard_at = now = self._clock.now()
        try:
            asked = self.device.read(data, now)
            if asked is not None:
                self.device.do(asked, self._call)
        except Exception as error:
            self._crash(error)

    def gone(self, why: str, *, in_order: bool = False) -> None:
        if in_order:
            self._hung_up(why)
        else:
            self._end(why)

    # --- the caller's audio ---

    def _audio(self, packet: rtp.Packet, now: float) -> None:
        if self._reception is None or self._reception.ssrc != packet.ssrc:
            self._reception = rtp.Reception(packet.ssrc, packet.sequence, packet.sequence)
        else:
            self._reception.heard(packet.sequence, packet.timestamp, now)
        self._received += 1
        length_ms = duration_ms(packet.payload) if packet.payload else 0
        if not length_ms:
            self._undecodable += 1
            return
        pieces = self._incoming.push(packet, length_ms, now)
        if not self.device.armed:
            self.device.refuse_audio()
        elif self.bus is not None:
            self._play(pieces, now)

    def _play(self, pieces: Sequence[Piece], now: float) -> None:
        for piece in pieces:
            if self._over:
                return  # what was heard has ended the call
            if piece.kind == "audio":
                pcm = self._decoder.decode(piece.payload)
                if not pcm:
                    self._undecodable += 1
                    pcm = self._decoder.conceal(piece.length_ms or FRAME_MS)
                self._hear(encode(pcm, "mulaw"), piece.position_ms, now)
            elif piece.kind == "lost":
                self._concealed += 1
                pcm = self._decoder.conceal(piece.length_ms, piece.payload or None)
                self._hear(encode(pcm, "mulaw"), piece.position_ms, now)
            else:
                self._hear(MULAW_8K.silence * (piece.length_ms * MULAW_8K.bytes_per_ms), piece.position_ms, now)

    def _hear(self, audio: bytes, position_ms: int, now: float) -> None:
        """On to the lane, in frames of 20 ms."""
        bus = self.bus
        if bus is None:
            return
        self._fed_at = now
        if not self._rest and len(audio) == FRAME_BYTES:
            self._last_ms = position_ms
            bus.receive(audio, position_ms)
            return
        if not self._rest:
            self._rest_ms = position_ms
        self._rest += audio
        while len(self._rest) >= FRAME_BYTES:
            frame, self._rest = self._rest[:FRAME_BYTES], self._rest[FRAME_BYTES:]
            self._last_ms = self._rest_ms
            bus.receive(frame, self._rest_ms)
            self._rest_ms += FRAME_MS

    # --- from the desk, once a beat ---

    def beat(self, now: float) -> None:
        if self._over:
            return
        try:
            self._return_marks()
            if self.is_connected:
                for due in self._outgoing.due(now, self._marks.append):
                    self._send(due)
            if self._incoming.waiting:
                pieces = self._incoming.due(now)
                if pieces and self.device.armed:
                    self._play(pieces, now)
            if not self.device.armed and self.bus is not None and now - self._fed_at >= FRAME_MS / 1000:
                self._hear(_SILENT_FRAME, self._last_ms + FRAME_MS, now)
            if now >= self._report_at:
                self._report(now)
        except Exception as error:
            self._crash(error)

    def _return_marks(self) -> None:
        if self._marks:
            marks, self._marks = self._marks, []
            for mark in marks:
                if self.bus is not None:
                    self.bus.mark_returned(mark)

    def _send(self, due: Due) -> None:
        audio = due.audio
        if not audio or audio == _SILENT_FRAME:
            payload = SILENCE
        else:
            payload = self._encoder.encode(decode(audio, "mulaw")) or SILENCE
        self._sequence = (self._sequence + 1) & 0xFFFF
        timestamp = (self._time_base + due.timestamp) & 0xFFFFFFFF
        self._sent_packets += 1
        self._sent_bytes += len(payload)
        self._sent_timestamp = timestamp
        self._wire.send(rtp.write(self._offer.opus, self._sequence, timestamp, self.ssrc, payload, marker=due.begins))

    def _report(self, now: float) -> None:
        self._report_at = now + REPORT_S
        block = b""
        if self._reception is not None:
            block = self._reception.block(self._their_time, now - self._their_time_at)
        sent = None
        if self._sent_packets:
            wall = self._clock.wall().timestamp()
            sent = (wall, self._sent_timestamp, self._sent_packets, self._sent_bytes)
        self._wire.send_control(rtp.report(self.ssrc, sent, block))

    # --- what the device is told ---

    def tell(self, message: str, *, first: bool = False) -> None:
        """An event, over the data channel; those of before it opened are told when it does. One that the device does
        not read is dropped and counted."""
        if self._over:
            return
        if not self._is_open:
            if len(self._waiting) < MAX_UNTOLD:
                self._waiting.append(message)
            else:
                self._untold += 1
            return
        waiting, self._waiting = self._waiting, []
        for text in (message, *waiting) if first else (*waiting, message):
            if not self._wire.tell(text):
                self._untold += 1

    def _mistake(self, mistake: live.Mistake) -> None:
        self.tell(live.encode(mistake))

    # --- Leg ---

    @property
    def writable(self) -> bool:
        return self._outgoing.writable

    def send(self, messages: Sequence[Message]) -> None:
        """The first frame of what is said leaves at once, and the marks of it come with the next beat."""
        if self._over:
            return
        quiet = not self._outgoing.speaking
        self._outgoing.put(messages)
        if quiet and self.is_connected:
            for due in self._outgoing.due(self._clock.now(), self._marks.append):
                self._send(due)

    def clear(self) -> int | None:
        self._marks.clear()
        return self._outgoing.clear()

    def stats(self) -> Mapping[str, float]:
        incoming, fared = self._incoming, self._fared
        jitter_ms = self._reception.jitter / 48 if self._reception is not None else 0.0
        report = quality.MediaReport(
            "opus",
            in_packets=max(0, self._received - incoming.late),  # those are among the lost
            in_lost=incoming.lost,
            rtt_ms=self._round_trip_ms,
            buffer_ms=2 * jitter_ms,  # what a buffer holds that follows the jitter
        )
        told = {"mos": quality.mos(report), "rtt_ms": self._round_trip_ms}
        return {
            **{name: round(value, 2) for name, value in told.items() if value is not None},
            "received_packets": self._received,
            "lost_packets": incoming.lost,
            "late_packets": incoming.late,
            "repeated_packets": incoming.repeated,
            "concealed_packets": self._concealed,
            "undecodable_packets": self._undecodable,
            "unarmed_packets": self.device.unarmed,
            "jitter_ms": round(jitter_ms),
            "sent_packets": self._sent_packets,
            "sent_lost_packets": fared.lost if fared is not None else 0,
            "dropped_events": self._untold,
        }

    def close(self, why: str = "") -> None:
        """Idempotent; `lost` follows. What was sent is heard first, and the device learns the reason."""
        goodbye = live.goodbye(why)
        if goodbye is not None and not self._over:
            self.tell(goodbye)
        self._end(f"we closed it ({why})" if why else "we closed it", linger_s=LINGER_S)

    def detach(self) -> None:
        self._call = self.bus = None

    # --- the end ---

    def hang_up(self) -> None:
        """The device has asked for it (DELETE)."""
        self._hung_up("the device hung up")

    def _hung_up(self, why: str) -> None:
        call, self._call = self._call, None
        self._end(why)
        if call is None:
            return
        if self.is_connected:
            call.stopped(self)
        else:
            call.never_came("caller_hung_up", "before its media came")

    def lose(self, why: str) -> None:
        """Its media is gone, or never came."""
        self._end(why)

    def _end(self, why: str, linger_s: float = 0.0) -> None:
        if self._over:
            return
        self._over = True
        if self.is_connected:
            self._wire.send_control(rtp.goodbye(self.ssrc))
        call, self._call, self.bus = self._call, None, None
        self._wire.close(linger_s if self.is_connected else 0.0)
        self._decoder.close()
        self._encoder.close()
        self._desk.left(self, why)
        if call is None:
            return
        if self.is_connected:
            call.lost(self, why)
        else:
            call.never_came("never_started", why)

    def _crash(self, error: Exception) -> None:
        call = self._call
        if call is not None:
            call.crashed(error)
        self._end("our own fault")
