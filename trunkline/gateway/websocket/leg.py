"""One call's media over `WS /ws/audio`: a `MediaSocket` whose binary messages are audio and whose texts are JSON
(`gateway/live.py` and wire.py here). For devices and pages whose network lets no UDP through.

Its first message says the format and shows a token; while that is redeemed nothing is read. Then it is the leg of its
call. `beat` runs for every leg every 20 ms, `binary` for every message: no more happens there than must.

A device that is not armed is not heard; the lane hears silence instead, so that what was being said has an end.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Protocol

from websockets.http11 import Request

from trunkline.clock import Clock
from trunkline.errors import PeerError
from trunkline.gateway import live, rfc6455
from trunkline.gateway.device import Allowance, Device, DeviceHands
from trunkline.gateway.entering import AGAIN, NO_TOKEN, RETRY_S, Entered, Origins, is_ours_alone
from trunkline.gateway.leg import DeviceCall, LegKind
from trunkline.gateway.mediasocket import Denied, MediaSocket, SocketDoor
from trunkline.gateway.websocket import wire
from trunkline.gateway.websocket.wire import AudioIn, AudioOut, Positions, Reckoning, Start
from trunkline.media.playout import LeadPolicy, Message
from trunkline.ports import Refuse
from trunkline.types import FRAME_MS, MULAW_8K

PING_S = 5.0
MAX_MESSAGES_S = 40.0  # of a device: `played` comes ten times a second
AUDIO_AHEAD_MS = 10_000.0  # a burst after a stall of the network
AUDIO_RATE = 1.05  # of real time: the device's clock is its own
MAX_FAULTS = 500  # messages that were for nothing; who goes on so is cut off
MAX_HELD_BYTES = 64 * 1024  # of messages that come while the token is redeemed
FAR_S = 0.03  # until a device plays what is sent to it, where we have not measured the way
RESYNC_S = 0.2  # silence that is not made up for
EARLY_S = 0.001  # a beat may come so much before its time
SILENT_FRAME = MULAW_8K.silence * MULAW_8K.frame_bytes
_FRAME_S = FRAME_MS / 1000
_FOREIGN = Denied(HTTPStatus.FORBIDDEN, "pages of this origin may not call: devices.origins")
_TOO_LATE = Refuse("too_late", "no start in time")


class AudioDoor(SocketDoor, Protocol):
    """Who lets devices in (`AudioSockets`)."""

    @property
    def origins(self) -> Origins: ...

    def enter(self, leg: "WebSocketLeg", token: str) -> None:
        """`leg.entered` or `leg.refuse` follows, if it is still there."""
        ...


class WebSocketLeg(DeviceHands, MediaSocket):
    """One socket, and once it was let in the Leg and Hands of its call."""

    kind: LegKind = "websocket"
    networked = True
    _door: AudioDoor

    def __init__(
        self, door: AudioDoor, clock: Clock, lead: LeadPolicy, *, start_timeout_s: float, media_timeout_s: float
    ) -> None:
        super().__init__(door, clock, start_timeout_s=start_timeout_s, max_message_bytes=wire.MAX_MESSAGE_BYTES)
        self.lead = lead
        self._media_timeout_s = media_timeout_s
        self._call: DeviceCall | None = None
        self._by_loopback = False
        self._start: Start | None = None
        self._held = deque[tuple[int, bytes]]()  # that came while the token was redeemed
        self._held_bytes = 0
        self._corked: list[bytes] | None = None  # what was written before `joined`
        self.device = Device(False, self._mistake, clock.now())
        self._in, self._out = AudioIn(MULAW_8K), AudioOut(MULAW_8K)
        self._positions: Positions | Reckoning = Reckoning()
        self._position_ms = 0  # on the lane, of what comes next
        self._fed_at = self._heard_at = self._pinged_at = clock.now()
        self._allowance = Allowance(AUDIO_RATE * 1000, AUDIO_AHEAD_MS, clock.now())
        self._way_s: float | None = None
        self._received = self._bad = self._over_rate = self._untold = self._faults = 0
        self._told_bad = self._told_rate = False

    # --- MediaSocket ---

    def denied(self, request: Request) -> Denied | None:
        hosts, origins = request.headers.get_all("Host"), request.headers.get_all("Origin")
        host = hosts[0] if len(hosts) == 1 else ""
        self._by_loopback = is_ours_alone(host)
        assert self._transport is not None
        scheme = "http" if self._transport.get_extra_info("sslcontext") is None else "https"
        allowed = len(origins) <= 1 and self._door.origins.allow(origins[0] if origins else None, scheme, host)
        return None if allowed else _FOREIGN

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._clock.now()
        super().data_received(data)

    def text(self, data: bytes) -> None:
        if self.waits_for_us:
            self._hold(rfc6455.TEXT, data)
        elif self._start is None:
            self._begin(data)
        else:
            asked = self.device.read(data, self._heard_at)
            if asked is None:
                self._fault()
            elif isinstance(asked, wire.Played):
                self._played(asked)
            elif isinstance(asked, wire.Cleared):
                self._cleared(asked)
            else:
                self.device.do(asked, self._call)
                if isinstance(asked, live.Armed):
                    self._in.begin_anew()

    def binary(self, data: bytes) -> None:
        if self.waits_for_us:
            self._hold(rfc6455.BINARY, data)
            return
        if self._start is None:
            self.refuse(Refuse("no_start", 'the first message is {"type":"start",...}'))
            return
        length_ms = self._in.length_ms(data)
        if length_ms is None:
            self._bad += 1
            if not self._told_bad:
                self._told_bad = True
                size = f"{wire.MIN_AUDIO_MS} to {wire.MAX_AUDIO_MS} ms of audio in whole samples"
                self._mistake(live.Mistake("bad_value", f"a binary message has {size}"))
            self._fault()
            return
        self._received += 1
        self._told_bad = False
        if not self._allowance.take(length_ms, self._heard_at):
            self._over_rate += 1
            if not self._told_rate:
                self._told_rate = True
                self._mistake(live.Mistake("too_many", "more audio than there is time"))
            self._fault()
            return
        self._told_rate = False
        if not self.device.armed:
            self.device.refuse_audio()
            return
        for frame in self._in.frames(data):
            self._hear(frame)

    def pong(self, data: bytes) -> None:
        if data and data == self._ping_data():
            self._way_s = min(max(0.0, self._heard_at - self._pinged_at), 1.0)

    def check_media(self, now: float) -> None:
        if now - self._heard_at > self._media_timeout_s:
            self._give_up(rfc6455.GOING_AWAY, "no media")
        elif now - self._pinged_at >= PING_S and self.writable:
            self._pinged_at = now
            self._write(rfc6455.frame(rfc6455.PING, self._ping_data()))

    def too_late(self) -> None:
        self.refuse(_TOO_LATE)

    def peer_closed(self, code: int) -> None:
        if code in (rfc6455.NORMAL, rfc6455.GOING_AWAY):
            call, self._call, self.bus = self._call, None, None
            if call is not None:
                call.stopped(self)
        else:
            self.lose(f"the device closed the socket ({code})")

    def lose(self, why: str) -> None:
        call, self._call, self.bus = self._call, None, None
        if call is not None:
            call.lost(self, why)

    def fell(self, error: Exception) -> bool:
        call = self._call
        if call is None:
            return False
        call.crashed(error)
        return True

    # --- coming in ---

    def _begin(self, data: bytes) -> None:
        start = wire.read_start(data)
        if isinstance(start, Refuse):
            self.refuse(start)
        elif not start.token and not self._by_loopback:  # open means loopback: this is DNS rebinding
            self.refuse(NO_TOKEN)
        else:
            self._start, self.waits_for_us = start, True
            assert self._transport is not None
            self._transport.pause_reading()
            self._door.enter(self, start.token)

    def _hold(self, opcode: int, data: bytes) -> None:
        """It came in one piece with the start."""
        self._held_bytes += len(data)
        if self._held_bytes > MAX_HELD_BYTES:
            raise PeerError("too much before it was let in", rfc6455.POLICY)
        self._held.append((opcode, data))

    def entered(self, entered: Entered) -> None:
        """By the desk: this is its call. Where the socket is gone meanwhile, the call learns that."""
        start, now = self._start, self._clock.now()
        assert start is not None
        if start.acks:
            self._positions = Positions()
        self._in, self._out = AudioIn(start.format), AudioOut(start.format)
        asides = wire.POSITIONS if start.acks else None
        self.device = Device(entered.needs_arming, self._mistake, now, asides=asides, max_messages_s=MAX_MESSAGES_S)
        self._allowance = Allowance(AUDIO_RATE * 1000, AUDIO_AHEAD_MS, now)
        self._fed_at = self._heard_at = now
        try:
            self._corked = []
            bus = entered.call.attach(self)  # the agent may speak at once
            first, self._corked = self._corked, None
            if self.closing and self._transport is not None:  # its goodbye was said meanwhile
                self.waits_for_us = False
                self._write(b"".join(first))
                self._transport.resume_reading()
                return
            if isinstance(bus, Refuse):
                self.refuse(bus)
                return
            self._call, self.bus = entered.call, bus
            self.authenticated, self.waits_for_us = True, False
            if self._transport is None or self.closing:
                self.lose("socket lost")
                return
            self.tell(live.encode(entered.joined))
            self._write(b"".join(first))
            self._transport.resume_reading()
            while self._held and not self.closing:
                opcode, data = self._held.popleft()
                (self.text if opcode == rfc6455.TEXT else self.binary)(data)
        except PeerError as error:
            self._give_up(error.close_code, error.reason)
        except Exception as error:
            self._corked = None
            self._crash(error)

    def refuse(self, refuse: Refuse) -> None:
        """It is not let in, and told why."""
        again = refuse.code in AGAIN
        paused, self.waits_for_us = self.waits_for_us, False
        if self._transport is None or self.closing:
            return
        if paused:
            self._transport.resume_reading()
        if not self._open:
            self._close_transport()
            return
        self._write(rfc6455.frame(rfc6455.TEXT, live.refused(refuse, RETRY_S if again else None).encode()))
        self.shut(rfc6455.TRY_AGAIN if again else rfc6455.POLICY, refuse.code)

    # --- from the desk, once a beat ---

    def beat(self, now: float) -> None:
        if self.bus is None:
            return
        try:
            if isinstance(self._positions, Reckoning):
                self._reached(self._positions.due(now))
            if not self.device.armed:
                self._silence(now)
        except Exception as error:
            self._crash(error)

    def _silence(self, now: float) -> None:
        if now - self._fed_at > RESYNC_S:
            self._fed_at = now - _FRAME_S
        while now - self._fed_at > _FRAME_S - EARLY_S:
            fed_at = self._fed_at + _FRAME_S
            self._hear(SILENT_FRAME)
            self._fed_at = fed_at

    def _hear(self, frame: bytes) -> None:
        if self.bus is not None:
            self._fed_at = self._heard_at
            position_ms, self._position_ms = self._position_ms, self._position_ms + FRAME_MS
            self.bus.receive(frame, position_ms)

    def _reached(self, marks: Sequence[str]) -> None:
        for mark in marks:
            if self.bus is not None:
                self.bus.mark_returned(mark)

    def _played(self, said: wire.Played) -> None:
        assert isinstance(self._positions, Positions)
        reached = self._positions.played(said)
        if isinstance(reached, live.Mistake):
            self._mistake(reached)
            self._fault()
        else:
            self._reached(reached)

    def _cleared(self, said: wire.Cleared) -> None:
        assert isinstance(self._positions, Positions)
        mistake = self._positions.cleared(said)
        if mistake is not None:
            self._mistake(mistake)
            self._fault()

    # --- what the device is told ---

    def tell(self, message: str) -> None:
        """An event. One that the device does not read is dropped and counted."""
        if self.closing or self._transport is None:
            return
        if not self.writable:
            self._untold += 1
            return
        self._write(rfc6455.frame(rfc6455.TEXT, message.encode()))

    def _write(self, data: bytes) -> None:
        if self._corked is None:
            super()._write(data)
        else:
            self._corked.append(data)

    def _mistake(self, mistake: live.Mistake) -> None:
        self.tell(live.encode(mistake))

    def _fault(self) -> None:
        self._faults += 1
        if self._faults > MAX_FAULTS:
            raise PeerError("too many mistakes", rfc6455.POLICY)

    def _ping_data(self) -> bytes:
        return b"%d" % round(self._pinged_at * 1000)

    # --- Leg ---

    def send(self, messages: Sequence[Message]) -> None:
        if self.closing:
            return  # RFC 6455 5.5.1: no data frame after a close frame
        positions, out = self._positions, list[bytes]()
        for message in messages:
            out += [rfc6455.frame(rfc6455.BINARY, frame) for frame in self._out.frames(message.audio)]
            if isinstance(positions, Positions):
                positions.sent(message)
            else:
                positions.sent(message, self._clock.now(), FAR_S if self._way_s is None else self._way_s)
        self._write(b"".join(out))

    def clear(self) -> int | None:
        positions = self._positions
        self._out.cut()
        dropped_ms = positions.clear() if isinstance(positions, Positions) else positions.clear(self._clock.now())
        if not self.closing:
            self._write(rfc6455.frame(rfc6455.TEXT, b'{"type":"clear","sent_ms":%d}' % positions.sent_ms))
        return dropped_ms

    def stats(self) -> Mapping[str, int]:
        return {
            "received_messages": self._received,
            "bad_messages": self._bad,
            "over_rate_messages": self._over_rate,
            "unarmed_messages": self.device.unarmed,
            "dropped_events": self._untold,
        }

    def close(self, why: str = "") -> None:
        """Idempotent; `lost` follows. The device learns the reason, and plays what it has."""
        goodbye = live.goodbye(why)
        if goodbye is not None:
            self.tell(goodbye)
            self.shut()
        else:
            self.shut(rfc6455.GOING_AWAY, why)

    def detach(self) -> None:
        self._call = self.bus = None
