"""Twilio Media Streams, our side of a bidirectional stream: JSON text in, events out. No socket, no clock.

    CONNECTED? ──connected──► STARTING ──start──► STREAMING ──stop──► STOPPED

What a message may be is told by the structs below, from Twilio's page "Media Streams - WebSocket Messages"
(twilio.com/docs/voice/media-streams/websocket-messages). Unknown events and unknown fields are ignored and counted, as
Twilio adds some now and then; everything else that is wrong is a PeerError with its close code:

    not text 1003 · not JSON, wrong types, bad base64 1007 · out of order, second start 1002 · other encodings 1003

Sequence numbers and media chunks count up by one; gaps are counted, not errors: audio went missing on the way.
"""

from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from dataclasses import dataclass
from enum import Enum
from typing import Literal

import msgspec

from trunkline.errors import PeerError
from trunkline.gateway.rfc6455 import INVALID_DATA, PROTOCOL_ERROR, UNSUPPORTED
from trunkline.types import CallSid, StreamSid

KEYS = frozenset("0123456789*#ABCD")
MAX_MARK_CHARS = 100
MAX_CLOCK_MS = 7 * 24 * 3600 * 1000  # a call lasts a day at most: a later timestamp would only make others fill a gap
MAX_REASON_CHARS = 100  # may quote the peer
MAX_AUDIO_BYTES = 8000  # a second; Twilio sends 20 ms


class _Event(msgspec.Struct, tag_field="event"):
    pass


class _Connected(_Event, tag="connected"):
    pass


class _MediaFormat(msgspec.Struct):
    encoding: str
    sampleRate: int
    channels: int


class _StartBody(msgspec.Struct):
    streamSid: str
    callSid: str
    mediaFormat: _MediaFormat
    tracks: list[str] = []
    customParameters: dict[str, str] = {}


class _Start(_Event, tag="start"):
    sequenceNumber: str
    start: _StartBody


class _MediaBody(msgspec.Struct):
    payload: str
    timestamp: str
    chunk: str
    track: str = "inbound"


class _Media(_Event, tag="media"):
    sequenceNumber: str
    media: _MediaBody


class _DtmfBody(msgspec.Struct):
    digit: str


class _Dtmf(_Event, tag="dtmf"):
    dtmf: _DtmfBody
    sequenceNumber: str = ""


class _MarkBody(msgspec.Struct):
    name: str


class _Mark(_Event, tag="mark"):
    mark: _MarkBody
    sequenceNumber: str = ""


class _Stop(_Event, tag="stop"):
    sequenceNumber: str = ""


# msgspec says DecodeError for what is no JSON, and leaves bad UTF-8 and deep nesting to Python's own errors.
_NOT_OURS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_decoder = msgspec.json.Decoder(_Connected | _Start | _Media | _Dtmf | _Mark | _Stop)


class _AnyEvent(msgspec.Struct):
    event: str


_any_decoder = msgspec.json.Decoder(_AnyEvent)


class Phase(Enum):
    CONNECTING = "connecting"
    STARTING = "starting"
    STREAMING = "streaming"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Started:
    stream_sid: StreamSid
    call_sid: CallSid
    parameters: dict[str, str]


@dataclass(frozen=True, slots=True)
class Audio:
    """Caller audio, mu-law 8 kHz; `timestamp_ms` is the carrier's media clock at its start."""

    data: bytes
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Keyed:
    digit: str


@dataclass(frozen=True, slots=True)
class Marked:
    name: str


@dataclass(frozen=True, slots=True)
class Stopped:
    pass


WireEvent = Started | Audio | Keyed | Marked | Stopped


@dataclass(slots=True)
class WireStats:
    messages: int = 0
    gaps: int = 0
    """Sequence numbers that never came."""
    ignored: int = 0
    """Events and tracks we do not know."""


class MediaStream:
    """One stream. `receive` never raises anything but PeerError, after which the stream is over."""

    def __init__(self) -> None:
        self.phase = Phase.CONNECTING
        self.stats = WireStats()
        self._sequence = 0
        self._media_head = b""
        self._mark_head = b""
        self._clear = b""

    def receive(self, text: bytes) -> WireEvent | None:
        self.stats.messages += 1
        try:
            event = _decoder.decode(text)
        except _NOT_OURS as error:
            self._unknown(text, error)
            return None
        if isinstance(event, _Media):
            return self._media(event)
        if isinstance(event, _Mark):
            self._in_order(event.sequenceNumber, "mark")
            return Marked(event.mark.name[:MAX_MARK_CHARS])
        if isinstance(event, _Dtmf):
            self._in_order(event.sequenceNumber, "dtmf")
            if event.dtmf.digit not in KEYS:
                raise PeerError("dtmf: no such key", INVALID_DATA)
            return Keyed(event.dtmf.digit)
        if isinstance(event, _Connected):
            if self.phase is not Phase.CONNECTING:
                raise PeerError("a second connected", PROTOCOL_ERROR)
            self.phase = Phase.STARTING
            return None
        if isinstance(event, _Start):
            return self._start(event)
        self._in_order(event.sequenceNumber, "stop")
        self.phase = Phase.STOPPED
        return Stopped()

    def _start(self, event: _Start) -> Started:
        if self.phase not in (Phase.CONNECTING, Phase.STARTING):
            raise PeerError("a second start", PROTOCOL_ERROR)
        start, media = event.start, event.start.mediaFormat
        if (media.encoding, media.sampleRate, media.channels) != ("audio/x-mulaw", 8000, 1):
            raise PeerError("media format: audio/x-mulaw, 8000 Hz, mono expected", UNSUPPORTED)
        if not _is_sid(start.streamSid, "MZ") or not _is_sid(start.callSid, "CA"):
            raise PeerError("start: malformed sid", INVALID_DATA)
        self._sequence = _number(event.sequenceNumber)
        self.phase = Phase.STREAMING
        head = b'{"event":"%s","streamSid":"' + start.streamSid.encode() + b'"'
        self._media_head = head % b"media" + b',"media":{"payload":"'
        self._mark_head = head % b"mark" + b',"mark":{"name":"'
        self._clear = head % b"clear" + b"}"
        return Started(StreamSid(start.streamSid), CallSid(start.callSid), start.customParameters)

    def _media(self, event: _Media) -> Audio | None:
        self._in_order(event.sequenceNumber, "media")
        media = event.media
        if media.track != "inbound":
            self.stats.ignored += 1
            return None
        try:
            data = a2b_base64(media.payload, strict_mode=True)
        except (Base64Error, ValueError):
            raise PeerError("media: bad base64", INVALID_DATA) from None
        if len(data) > MAX_AUDIO_BYTES:
            raise PeerError("media: over a second of audio", INVALID_DATA)
        timestamp_ms = _number(media.timestamp)
        if timestamp_ms > MAX_CLOCK_MS:
            raise PeerError("media: timestamp of another week", INVALID_DATA)
        return Audio(data, timestamp_ms)

    def _in_order(self, sequence: str, event: str) -> None:
        if self.phase is not Phase.STREAMING:
            raise PeerError(f"{event} while {self.phase.value}", PROTOCOL_ERROR)
        if sequence:
            number = _number(sequence)
            if number > self._sequence + 1:
                self.stats.gaps += number - self._sequence - 1
            self._sequence = max(self._sequence, number)

    def _unknown(self, text: bytes, error: Exception) -> None:
        """Not one of our structs: another event (ignored), or a broken one of ours (an error)."""
        try:
            event = _any_decoder.decode(text).event
        except _NOT_OURS:
            raise PeerError("not a JSON event", INVALID_DATA) from None
        if event in ("connected", "start", "media", "dtmf", "mark", "stop"):
            raise PeerError(f"{event}: {error}"[:MAX_REASON_CHARS], INVALID_DATA)
        self.stats.ignored += 1

    # --- outbound ---

    def media(self, audio: bytes) -> bytes:
        return self._media_head + b2a_base64(audio, newline=False) + b'"}}'

    def mark(self, name: str) -> bytes:
        """`name` is ours: no character that JSON would have to escape."""
        return self._mark_head + name.encode() + b'"}}'

    def clear(self) -> bytes:
        return self._clear


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise PeerError("a number expected", INVALID_DATA)
    return int(text)


def _is_sid(sid: str, kind: Literal["MZ", "CA"]) -> bool:
    return len(sid) == 34 and sid.startswith(kind) and all(c in "0123456789abcdef" for c in sid[2:])
