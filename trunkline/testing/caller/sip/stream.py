"""The caller's half of one RTP stream, as a Line's wire.

RTP says nothing of answers: the far end sends 20 ms, 50 times a second, voice or silence. So an answer is audible audio
(a sample beyond -60 dBFS) followed by less than GAP_LIMIT_MS of silence; it has ended when nothing audible has come for
STOP_MS, and its end is the arrival of the last audible packet. How it ended, of itself or cut off, cannot be heard;
`Turns` decides it by whether the caller was interrupting. A pause of the voice is no gap: a gap is silence that begins
in the middle of a sound (the last samples before it are loud), as it is when frames came too late to be sent.

What was heard is what came: a jitter buffer (`Playout`) stands between arrival and recording only.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from trunkline.media.g711 import transcode
from trunkline.testing.caller.answers import GAP_LIMIT_MS, Ear
from trunkline.testing.caller.sip import rtp, sdp
from trunkline.testing.caller.wire import AUDIBLE, MUTE, NOTHING, Invalid, Received
from trunkline.types import ALAW_8K, FRAME_MS, MULAW_8K

STOP_MS = 400  # the pauses inside a sentence of espeak-ng end at 320
TORN_SAMPLES = 8  # a voice that pauses fades; one that is torn off is loud to the last millisecond

_SILENCE = MULAW_8K.silence * MULAW_8K.frame_bytes
_TO_ALAW = transcode(bytes(range(256)), MULAW_8K, ALAW_8K)
_TO_MULAW = transcode(bytes(range(256)), ALAW_8K, MULAW_8K)
_WRAP = 1 << 32


@dataclass(slots=True)
class StreamCounts:
    packets_out: int = 0
    packets_in: int = 0
    bytes_in: int = 0
    """Audio bytes."""
    events_in: int = 0
    """RFC 4733 packets."""
    noise_in: int = 0
    """Comfort noise packets (RFC 3389)."""
    early_in: int = 0
    """Audio packets before the answer."""
    unsent: int = 0
    """Frames not sent because the far end wants none (hold)."""
    invalid: Counter[str] = field(default_factory=Counter)


class RtpStream(Ear):
    """`session` may change during the call (a re-INVITE)."""

    clears = False

    def __init__(
        self,
        call_id: str,
        session: sdp.Session,
        sender: rtp.Sender,
        *,
        send_info: Callable[[str], None] = lambda digit: None,
        prefer_info: bool = False,
        keep_audio: bool = False,
        keep_answers: bool = False,
    ) -> None:
        """`send_info` takes the digits where they are preferred so, or where the far end takes no RFC 4733 events."""
        super().__init__(keep_audio=keep_audio, keep_answers=keep_answers)
        self.session, self.call_id, self.stream_id = session, call_id, call_id
        self.counts, self.receiver = StreamCounts(), rtp.Receiver()
        self.playout = rtp.Playout()
        self.keys_in = ""
        """Digits that the far end keyed."""
        self._sender, self._send_info, self._prefer_info = sender, send_info, prefer_info
        self._opened = False
        self._now = 0.0
        self._audible_at: float | None = None  # arrival of the last audible packet
        self._audible_end = 0  # RTP timestamp after it
        self._torn = False  # it was loud to its last samples
        self._was_playing = self._just_ended = False
        self._last_key: int | None = None

    # --- to the far end -------------------------------------------------------------------------------------------

    def opening(self) -> list[bytes]:
        """The call is answered: what is heard from now on counts."""
        self._opened = True
        return []

    def media(self, payload: bytes) -> bytes:
        """The caller's next 20 ms of mu-law; empty when the far end wants none."""
        session = self.session
        if not session.wants_ours:
            self.counts.unsent += 1
            return b""
        self.counts.packets_out += 1
        if self._sender.keying and session.event_payload_type is not None:
            return self._sender.event(session.event_payload_type)
        audio = payload.translate(_TO_ALAW) if session.law == "alaw" else payload
        return self._sender.audio(audio, session.payload_type)

    def dtmf(self, digit: str) -> list[bytes]:
        """Its packets take the place of the next frames of audio."""
        self.caller_spoke()
        if self._prefer_info or self.session.event_payload_type is None:
            self._send_info(digit)
        else:
            self._sender.key(digit)
        return []

    def stop(self) -> list[bytes]:
        return []

    # --- from the far end -----------------------------------------------------------------------------------------

    def receive(self, data: bytes | str, now: float) -> Received:
        """A datagram; `now` is its arrival."""
        packet = rtp.parse(data) if isinstance(data, bytes) else None
        if packet is None:
            return self._invalid("not RTP")
        session, counts = self.session, self.counts
        counts.packets_in += 1
        fresh = self.receiver.seen(packet, now)
        if packet.payload_type == session.payload_type:
            return self._audio(packet, now) if fresh else NOTHING
        if packet.payload_type == session.event_payload_type:
            return self._event(packet)
        if packet.payload_type == sdp.COMFORT_NOISE:
            counts.noise_in += 1
            return MUTE
        return self._invalid(f"payload type {packet.payload_type}")

    def _audio(self, packet: rtp.Packet, now: float) -> Received:
        counts = self.counts
        counts.bytes_in += len(packet.payload)
        if not self._opened:
            counts.early_in += 1
            return NOTHING
        audio = packet.payload.translate(_TO_MULAW) if self.session.law == "alaw" else packet.payload
        if self.keep_audio:
            self.playout.put(packet.timestamp, audio)
        if not audio.translate(None, rtp.QUIET):
            return MUTE
        silent_ms = 0
        if self._audible_at is not None:
            silent = (packet.timestamp - self._audible_end) % _WRAP
            silent_ms = silent // 8 if silent < 8 * 3_600_000 else GAP_LIMIT_MS + 1  # else the stream began anew
        before = self._answer
        answer = self._join(now, silent_ms, hole=self._torn)
        if answer is before and not self._torn:
            answer.heard_bytes += silent_ms * 8  # the voice's own pause
        answer.heard_bytes += len(audio)
        if answer.audio is not None:
            answer.audio += audio
        self._audible_at, self._audible_end = now, (packet.timestamp + len(audio)) % _WRAP
        self._torn = bool(audio[-TORN_SAMPLES:].translate(None, rtp.QUIET))
        return AUDIBLE

    def _event(self, packet: rtp.Packet) -> Received:
        self.counts.events_in += 1
        if packet.timestamp != self._last_key and packet.payload and packet.payload[0] < len(rtp.DIGITS):
            self._last_key = packet.timestamp
            self.keys_in += rtp.DIGITS[packet.payload[0]]
        return NOTHING

    def _invalid(self, why: str) -> Invalid:
        self.counts.invalid[why] += 1
        return Invalid(why)

    # --- the caller's ear -----------------------------------------------------------------------------------------

    @property
    def playing(self) -> bool:
        return self._audible_at is not None and (self._now - self._audible_at) * 1000 < STOP_MS

    @property
    def dry_ms(self) -> int:
        if self._answer is None or self._audible_at is None:
            return 0
        return max(0, int((self._now - self._audible_at) * 1000) - FRAME_MS)

    @property
    def just_ended(self) -> bool:
        return self._just_ended

    @property
    def silent_since(self) -> float:
        return self._audible_at if self._audible_at is not None else 0.0

    def tick(self, now: float) -> list[bytes]:
        self._now = now
        self._sender.tick()
        playing = self.playing
        self._just_ended, self._was_playing = self._was_playing and not playing, playing
        if self.keep_audio:
            self.heard.append(self.playout.take() or _SILENCE)
        return []
