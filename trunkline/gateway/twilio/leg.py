"""A Twilio media socket: a `MediaSocket` whose messages are wire.py's. It is nobody's until its `start` has shown a
valid token; then it is a leg of that call (`attach`).
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from trunkline.clock import Clock
from trunkline.errors import MisuseError
from trunkline.gateway import rfc6455
from trunkline.gateway.hands import Told
from trunkline.gateway.leg import Leg, LegCall, LegKind
from trunkline.gateway.mediasocket import MediaSocket, SocketDoor
from trunkline.gateway.twilio.wire import Audio, Keyed, Marked, MediaStream, Phase, Started, Stopped
from trunkline.media.bus import Receiver
from trunkline.media.playout import LeadPolicy, Message
from trunkline.ports import Refuse
from trunkline.types import CallSid

_OUR_WISH = {"agent_hung_up", "opted_out", "no_input", "max_duration", "budget", "refused", "error"}
_CLOSE_CODES = {"replaced": rfc6455.GOING_AWAY, "going away": rfc6455.GOING_AWAY}
_NO_REFER = Refuse("not_supported", "Twilio puts callers through by <Dial>, which ends the stream")


class MediaDoor(SocketDoor, Protocol):
    """Who lets sockets in (`Sockets`)."""

    def attach(self, leg: "TwilioLeg", started: Started) -> tuple[LegCall, Receiver]:
        """A stream has started. Raises PeerError (1008) when its token does not let it in."""
        ...

    def hang_up(self, call_sid: CallSid) -> None:
        """The call has no stream to end it by."""
        ...


class TwilioLeg(MediaSocket):
    """One socket, and once it has shown its token the call's Leg."""

    kind: LegKind = "twilio"
    transfers = True  # by <Dial>
    sends_dtmf = False  # Media Streams has no outbound DTMF
    networked = True
    puts_through = False  # there is no REFER
    _door: MediaDoor

    def __init__(
        self,
        door: MediaDoor,
        clock: Clock,
        *,
        start_timeout_s: float,
        media_timeout_s: float,
        lead: LeadPolicy | None = None,
    ) -> None:
        super().__init__(door, clock, start_timeout_s=start_timeout_s)
        self.stream = MediaStream()
        self.lead = lead or LeadPolicy()
        self._media_timeout_s = media_timeout_s
        self._call: LegCall | None = None
        self._call_sid: CallSid | None = None
        self._media_at = clock.now()

    # --- MediaSocket ---

    def text(self, data: bytes) -> None:
        event = self.stream.receive(data)
        if isinstance(event, Audio):
            self._media_at = self._clock.now()
            if self.bus is not None:
                self.bus.receive(event.data, event.timestamp_ms)
        elif isinstance(event, Marked):
            if self.bus is not None:
                self.bus.mark_returned(event.name)
        elif isinstance(event, Keyed):
            if self._call is not None:
                self._call.key(event.digit)
        elif isinstance(event, Started):
            self._call, self.bus = self._door.attach(self, event)
            self._call_sid = event.call_sid
            self.authenticated = True
            self._media_at = self._clock.now()
        elif isinstance(event, Stopped):
            call, self._call = self._call, None
            if call is not None:
                call.stopped(self)
            self.shut()

    def peer_closed(self, code: int) -> None:
        self.lose(f"the carrier closed the socket ({code})")

    def check_media(self, now: float) -> None:
        if self.stream.phase is Phase.STREAMING and now - self._media_at > self._media_timeout_s:
            self._give_up(rfc6455.GOING_AWAY, "no media")

    def lose(self, why: str) -> None:
        call, self._call, self.bus = self._call, None, None
        if call is not None:
            call.lost(self, why)

    def fell(self, error: Exception) -> bool:
        if self._call is None:
            return False
        self._call.crashed(error)
        return True

    # --- the call's Leg ---

    def send(self, messages: Sequence[Message]) -> None:
        if self._closing_at is not None:
            return  # RFC 6455 5.5.1: no data frame after a close frame
        stream, frame, text = self.stream, rfc6455.frame, rfc6455.TEXT
        out: list[bytes] = []
        for message in messages:
            out.append(frame(text, stream.media(message.audio)))
            if message.mark:
                out.append(frame(text, stream.mark(message.mark)))
        self._write(b"".join(out))

    def clear(self) -> None:
        if self._closing_at is None:
            self._write(rfc6455.frame(rfc6455.TEXT, self.stream.clear()))

    def send_dtmf(self, digits: str) -> None:
        raise MisuseError("Media Streams sends no digits")

    def stats(self) -> Mapping[str, int]:
        return {}

    def close(self, why: str = "") -> None:
        """The peer is told goodbye. Idempotent; `lost` or `stopped` follows. Without a socket (Twilio dials for us, or
        has lost it) the call itself is ended over REST, where ending it was our wish."""
        if why in _OUR_WISH and self._call_sid is not None:
            if self._transport is None:
                self._door.hang_up(self._call_sid)
            self._call_sid = None  # once: the end of the stream is the end of the call
        self.shut(_CLOSE_CODES.get(why, rfc6455.NORMAL), why if why in _CLOSE_CODES else "")

    def detach(self) -> None:
        """The call wants nothing more of this socket."""
        self._call = self.bus = None

    # --- Hands ---

    def put_through(self, address: str, told: Told) -> str | Refuse:
        return _NO_REFER

    def put_through_to(self, other: Leg, told: Told) -> str | Refuse:
        return _NO_REFER
