"""Twilio's half of one bidirectional media stream (twilio.com/docs/voice/media-streams/websocket-messages).

`opening()` first; then, every 20 ms, `tick()` (one frame leaves the play buffer for the caller's ear) and `media()`
(one frame of the caller goes out); `receive()` whenever the server sends. All return messages to write, in order.

Audio from the server is appended to a buffer and played in real time. A mark comes back when all audio before it has
been played, at once when there is none; `clear` empties the buffer and brings back every pending mark.

Answers (`answers`) are cut off by a clear. Inside one a dry buffer is a gap: the caller heard a hole.
"""

from binascii import Error as Base64Error
from binascii import a2b_base64
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from trunkline.testing.caller.answers import Answer, Ear
from trunkline.testing.caller.wire import AUDIBLE, MUTE, Cleared, Invalid, Marked, Received
from trunkline.types import FRAME_MS, MULAW_8K, CallSid, StreamSid

MAX_BUFFER_BYTES = MULAW_8K.bytes_per_ms * 600_000  # ten minutes; a server that sends more is broken
COMPACT_BYTES = 1 << 16

_FRAME_BYTES = MULAW_8K.frame_bytes
_SILENCE = MULAW_8K.silence * _FRAME_BYTES
_MUTE_BYTES = b"\xff\x7f\xfe\x7e"  # mu-law codes of 0 and +-8 of 32,768


class _MediaBody(msgspec.Struct, gc=False):
    payload: str


class _MarkBody(msgspec.Struct, gc=False):
    name: str


class _Message(msgspec.Struct, gc=False):
    event: str
    streamSid: str | None = None
    media: _MediaBody | None = None
    mark: _MarkBody | None = None


_decode = msgspec.json.Decoder(_Message).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class StreamIds:
    account_sid: str
    call_sid: CallSid
    stream_sid: StreamSid


@dataclass(slots=True)
class CarrierCounts:
    media_out: int = 0
    media_in: int = 0
    bytes_in: int = 0
    """Audio bytes."""
    marks_in: int = 0
    marks_out: int = 0
    clears_in: int = 0
    invalid: Counter[str] = field(default_factory=Counter)


class Carrier(Ear):
    clears = True

    def __init__(
        self,
        ids: StreamIds,
        parameters: Mapping[str, str],
        *,
        keep_audio: bool = False,
        keep_answers: bool = False,
    ) -> None:
        super().__init__(keep_audio=keep_audio, keep_answers=keep_answers)
        self.ids, self.parameters = ids, dict(parameters)
        self.counts = CarrierCounts()
        self.ticks = 0
        self._sequence = 0
        self._chunk = 0
        self._buffer = bytearray()
        self._offset = 0  # of the play position in _buffer
        self._queued = 0  # bytes ever queued; marks lie on this scale
        self._marks: deque[tuple[int, str]] = deque()
        self._dry_ticks = 0  # since the buffer of the current answer ran dry
        self._dry_at = 0.0
        sid = ids.stream_sid.encode()
        self._media_head = b'{"event":"media","sequenceNumber":"%d","media":{"track":"inbound","chunk":"%d",'
        self._media_head += b'"timestamp":"%d","payload":"%b"},"streamSid":"' + sid + b'"}'

    @property
    def call_id(self) -> str:
        return self.ids.call_sid

    @property
    def stream_id(self) -> str:
        return self.ids.stream_sid

    # --- to the server --------------------------------------------------------------------------------------------

    def opening(self) -> list[bytes]:
        connected = _encode({"event": "connected", "protocol": "Call", "version": "1.0.0"})
        start = {
            "accountSid": self.ids.account_sid,
            "streamSid": self.ids.stream_sid,
            "callSid": self.ids.call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": self.parameters,
        }
        return [connected, self._numbered("start", {"start": start})]

    def media(self, payload: bytes) -> bytes:
        """The caller's next 20 ms, already base64 (of 160 mu-law bytes)."""
        self._sequence += 1
        self._chunk += 1
        self.counts.media_out += 1
        return self._media_head % (self._sequence, self._chunk, (self._chunk - 1) * FRAME_MS, payload)

    def dtmf(self, digit: str) -> list[bytes]:
        self.caller_spoke()
        return [self._numbered("dtmf", {"dtmf": {"track": "inbound_track", "digit": digit}})]

    def stop(self) -> list[bytes]:
        return [self._numbered("stop", {"stop": {"accountSid": self.ids.account_sid, "callSid": self.ids.call_sid}})]

    def _mark(self, name: str) -> bytes:
        self.counts.marks_out += 1
        return self._numbered("mark", {"mark": {"name": name}})

    def _numbered(self, event: str, body: Mapping[str, object]) -> bytes:
        self._sequence += 1
        head = {"event": event, "sequenceNumber": str(self._sequence), "streamSid": self.ids.stream_sid}
        return _encode({**head, **body})

    # --- from the server ------------------------------------------------------------------------------------------

    def receive(self, text: bytes | str, now: float) -> Received:
        """A text message of the server. What Twilio would refuse is counted and ignored, as it does."""
        try:
            message = _decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return self._invalid("not a message")
        if message.streamSid != self.ids.stream_sid:
            return self._invalid("wrong streamSid")
        if message.event == "media":
            return self._on_media(message.media, now)
        if message.event == "mark":
            return self._on_mark(message.mark)
        if message.event == "clear":
            return self._on_clear(now)
        return self._invalid("unknown event")

    def _on_media(self, body: _MediaBody | None, now: float) -> Received:
        if body is None:
            return self._invalid("media without payload")
        try:
            audio = a2b_base64(body.payload, strict_mode=True)
        except (Base64Error, ValueError):
            return self._invalid("bad base64")
        if not audio:
            return self._invalid("empty payload")
        if self.queued_bytes + len(audio) > MAX_BUFFER_BYTES:
            return self._invalid("buffer overflow")
        return self.play(audio, now)

    def play(self, audio: bytes, now: float) -> Received:
        """Append it to the buffer."""
        self.counts.media_in += 1
        self.counts.bytes_in += len(audio)
        self._join(now, self._dry_ticks * FRAME_MS, hole=True)
        self._dry_ticks = 0
        self._buffer += audio
        self._queued += len(audio)
        return AUDIBLE if audio.strip(_MUTE_BYTES) else MUTE

    def _on_mark(self, body: _MarkBody | None) -> Received:
        if body is None:
            return self._invalid("mark without name")
        self.counts.marks_in += 1
        if not self.playing:
            if self._answer is not None:
                self._answer.last_mark = body.name
            return Marked([self._mark(body.name)])
        self._marks.append((self._queued, body.name))
        return Marked([])

    def _on_clear(self, now: float) -> Received:
        names = tuple(name for _, name in self._marks)
        cut = self.drop(now)
        return Cleared([self._mark(name) for name in names], cut)

    def drop(self, now: float) -> Answer | None:
        """Empty the buffer: the answer that this cuts off."""
        self.counts.clears_in += 1
        names = tuple(name for _, name in self._marks)
        cut = self._answer if self.playing else None
        if cut is not None:
            cut.cleared_at, cut.pending_marks = now, names
            cut.unheard_ms = self.queued_bytes // MULAW_8K.bytes_per_ms
        self._answer = None
        self._marks.clear()
        self._buffer.clear()
        self._offset = self._dry_ticks = 0
        return cut

    def _invalid(self, why: str) -> Invalid:
        self.counts.invalid[why] += 1
        return Invalid(why)

    # --- the caller's ear -----------------------------------------------------------------------------------------

    @property
    def queued_bytes(self) -> int:
        """Received and not yet played."""
        return len(self._buffer) - self._offset

    @property
    def playing(self) -> bool:
        return len(self._buffer) > self._offset

    @property
    def dry_ms(self) -> int:
        """How long the current answer has been silent; 0 while it plays or when there is none."""
        return self._dry_ticks * FRAME_MS

    @property
    def just_ended(self) -> bool:
        return self._dry_ticks == 1 and self._answer is not None

    @property
    def silent_since(self) -> float:
        return self._dry_at

    def tick(self, now: float) -> list[bytes]:
        """Play 20 ms into the caller's ear. Returns the marks that this completes."""
        self.ticks += 1
        self._dry_at = now
        answer = self._answer
        if len(self._buffer) <= self._offset:
            if answer is not None:
                self._dry_ticks += 1
            if self.keep_audio:
                self.heard.append(_SILENCE)
            return []
        frame = bytes(self._buffer[self._offset : self._offset + _FRAME_BYTES])
        self._offset += len(frame)
        assert answer is not None
        answer.heard_bytes += len(frame)
        if self.keep_audio:
            self.heard.append(frame.ljust(_FRAME_BYTES, MULAW_8K.silence))
        if answer.audio is not None:
            answer.audio += frame
        marks = self._due_marks(answer)
        if self._offset == len(self._buffer) or self._offset > COMPACT_BYTES:
            del self._buffer[: self._offset]
            self._offset = 0
        return marks

    def _due_marks(self, answer: Answer) -> list[bytes]:
        marks, played = self._marks, self._queued - self.queued_bytes
        due: list[bytes] = []
        while marks and marks[0][0] <= played:
            answer.last_mark = marks.popleft()[1]
            due.append(self._mark(answer.last_mark))
        return due
