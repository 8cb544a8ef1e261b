"""Playout: the agent's voice on its way to an ear. Queued, sent, heard.

One timeline per call. Audio is appended at its end and gets positions in milliseconds; `sent_ms` is how far it was
given to the leg, `heard_ms` how far the far end says it was played. The far end plays what it has in real time, so
`_empty_at` is when its buffer will run dry; we keep it `lead_ms` ahead, in messages that each carry a mark.

    queued ──due()──► sent ──mark comes back──► heard
       ▲                │
       └──── pause() ◄──┘   the leg sends `clear`; what was not heard goes back to the queue

A *segment* is one run of sending without a clear. Marks are named `segment:position`; marks of an older segment come
back after a clear (Twilio returns them all at once) and mean nothing. After a clear the heard position is the last
mark of the segment plus the carrier's media time since (the inbound stream's timestamp, which runs with its playing),
capped by what was sent, less one frame for the granularity of both. So it is never more than was played: words are
counted against it.

A leg that empties its buffer itself (SIP) knows how much a clear has dropped: then the heard position is what was sent
less that, exactly, and marks only tell of the end.

A *pause* keeps everything; `resume` starts a new segment at the heard position, or at the start of the word that was
cut. `cut` is a pause after which the rest is dropped. An *answer* is the stretch of timeline between begin() and end().

Lead is adaptive between the bounds of `LeadPolicy`: a mark later than expected by more than a frame means the path
stalled (a TCP retransmission), so the lead grows by it; it shrinks slowly while marks are punctual.
"""

from dataclasses import dataclass
from typing import NamedTuple

from trunkline.media.ledger import Ledger
from trunkline.types import FRAME_MS, Format

FIRST_MESSAGE_MS = 40  # small, so that its mark tells early where the caller is
RETAIN_MS = 1000  # sent audio kept behind the heard position: a cut word is resumed from its start
RESUME_WHOLE_WORD_MS = 80  # a cut word with less than this left is not begun again
LEAD_DECAY = 0.98  # per punctual mark


@dataclass(frozen=True, slots=True)
class LeadPolicy:
    start_ms: int = 600
    min_ms: int = 400
    max_ms: int = 1000
    message_ms: int = 100


class Message(NamedTuple):
    """One message for the leg: audio in the lane's format, whole frames, and the mark that follows it; "" is none."""

    audio: bytes
    mark: str
    play_at: float
    """When, by our reckoning, the far end starts to play it."""
    continues: bool = False
    """It was queued here when the message before it was sent: silence between the two is our fault."""


@dataclass(slots=True)
class PlayoutStats:
    sent_ms: int = 0
    underruns: int = 0
    """Times the far end ran dry in the middle of an answer."""
    underrun_ms: float = 0.0
    clears: int = 0
    late_marks: int = 0
    dead_marks: int = 0
    dropped_ms: int = 0
    """Never said: cut."""


class Playout:
    def __init__(self, format: Format, lead: LeadPolicy | None = None) -> None:
        self.format = format
        self.ledger = Ledger()
        self.stats = PlayoutStats()
        self.paused = False
        self.sent_ms = 0
        self.first_sent_at: float | None = None
        """When the first audio of this answer was given to the leg."""
        self._policy = lead or LeadPolicy()
        self.lead_ms = float(self._policy.start_ms)
        self._audio = bytearray()
        self._base_ms = 0  # timeline position of _audio[0]
        self._answer_ms = 0
        self._ended = True
        self._empty_at = 0.0
        self._segment = 0
        self._segment_start_ms = 0
        self._known_ms = 0  # how far the queue reached when the last message was sent
        self._run_start_ms = 0  # where the far end began to play after it had run dry
        self._mark_ms = 0  # last mark of this segment
        self._mark_carrier_ms = 0
        self._marked = False
        self._paused_at_ms = 0
        self._expected: dict[str, float] = {}

    # --- filling ---

    def begin(self) -> None:
        """A new answer starts at the end of the timeline."""
        self._answer_ms = self.end_ms
        self._ended = self.paused = False
        self.first_sent_at = None

    def append(self, audio: bytes) -> int:
        """Add audio; returns the timeline position (ms) at which the *next* audio will lie."""
        self._audio += audio
        return self.end_ms

    def fill(self, audio: bytes) -> None:
        """Audio that goes before the answer: it begins after it. Only while the answer has no audio."""
        self._audio += audio
        self._pad()
        self._answer_ms = self.end_ms

    def end(self) -> None:
        """Nothing more belongs to this answer: the last frame is filled with silence."""
        if not self._ended:
            self._pad()
            self._ended = True

    def _pad(self) -> None:
        short = -len(self._audio) % self.format.frame_bytes
        self._audio += self.format.silence * (short // len(self.format.silence))

    @property
    def end_ms(self) -> int:
        return self._base_ms + len(self._audio) // self.format.bytes_per_ms

    @property
    def answer_ms(self) -> int:
        """Where the current answer began."""
        return self._answer_ms

    @property
    def queued_ms(self) -> int:
        return self.end_ms - self.sent_ms

    # --- sending ---

    def due(self, now: float) -> list[Message]:
        """What to send now, in order. Call once a beat and whenever the first audio of an answer arrives."""
        if self.paused:
            return []
        messages: list[Message] = []
        while (self._empty_at - now) * 1000 < self.lead_ms:
            size_ms = FIRST_MESSAGE_MS if self._empty_at <= now else self._policy.message_ms
            whole_ms = self.queued_ms // FRAME_MS * FRAME_MS
            size_ms = min(size_ms, whole_ms)
            if size_ms == 0:
                break
            messages.append(self._take(size_ms, now))
        return messages

    def due_again(self, grace_s: float) -> float | None:
        """When there may be more to send, or marks are `overdue`. None: not before something is added, or heard."""
        if self.queued_ms >= FRAME_MS:
            return self._empty_at - self.lead_ms / 1000
        return self._empty_at + grace_s if self._ended and not self.all_heard else None

    def _take(self, size_ms: int, now: float) -> Message:
        start = (self.sent_ms - self._base_ms) * self.format.bytes_per_ms
        audio = bytes(self._audio[start : start + size_ms * self.format.bytes_per_ms])
        if self.first_sent_at is None:
            self.first_sent_at = now
        elif self._empty_at < now and self.sent_ms > self._answer_ms and self.sent_ms > self._segment_start_ms:
            self.stats.underruns += 1
            self.stats.underrun_ms += (now - self._empty_at) * 1000
        if self._empty_at <= now:
            self._run_start_ms = self.sent_ms
        continues = self.sent_ms + FRAME_MS <= self._known_ms
        self._known_ms = self.end_ms
        self.sent_ms += size_ms
        self.stats.sent_ms += size_ms
        play_at = max(self._empty_at, now)
        self._empty_at = play_at + size_ms / 1000
        mark = f"{self._segment}:{self.sent_ms}"
        self._expected[mark] = self._empty_at
        self._trim()
        return Message(audio, mark, play_at, continues)

    def _trim(self) -> None:
        """Forget audio far behind the heard position, in steps so that it is rarely done."""
        spare_ms = min(self._mark_ms, self.sent_ms) - RETAIN_MS - self._base_ms
        if spare_ms > 2000:
            del self._audio[: spare_ms * self.format.bytes_per_ms]
            self._base_ms += spare_ms

    # --- hearing ---

    def mark_returned(self, name: str, carrier_ms: int, now: float) -> None:
        """The far end has played everything up to this mark. `carrier_ms` is the inbound media timestamp."""
        expected = self._expected.pop(name, None)
        segment, _, position = name.partition(":")
        if expected is None or segment != str(self._segment):
            self.stats.dead_marks += 1
            return
        self._mark_ms = max(self._mark_ms, int(position))
        self._mark_carrier_ms = carrier_ms
        self._marked = True
        late_ms = (now - expected) * 1000
        if late_ms > 3 * FRAME_MS:
            self.stats.late_marks += 1
            self.lead_ms = min(self._policy.max_ms, max(self.lead_ms, self._policy.min_ms + 2 * late_ms))
        else:
            self.lead_ms = max(self._policy.min_ms, self.lead_ms * LEAD_DECAY)

    def heard_ms(self, carrier_ms: int) -> int:
        """How far the caller has heard, never more than was played. Exact at marks, interpolated between."""
        if not self._marked:
            return self._segment_start_ms
        since = max(0, carrier_ms - self._mark_carrier_ms - FRAME_MS)
        # No mark of this run yet: some of the time since the last one was silence.
        limit_ms = self.sent_ms if self._mark_ms > self._run_start_ms else self._run_start_ms
        return min(self._mark_ms + since, limit_ms)

    @property
    def all_heard(self) -> bool:
        """Everything of an ended answer has been played (by the marks)."""
        return self._ended and self.sent_ms == self.end_ms and self._mark_ms >= self.sent_ms

    def overdue(self, now: float, grace_s: float) -> bool:
        """An ended answer must have been played by now, and its marks have not come back."""
        return self._ended and self.sent_ms == self.end_ms and now > self._empty_at + grace_s

    def assume_heard(self) -> None:
        """For a peer that returns no marks: what was sent counts as played."""
        self._mark_ms = self.sent_ms
        self._marked = True
        self._expected.clear()

    @property
    def speaking(self) -> bool:
        """The current answer is not over: something is queued, unheard or still to come."""
        return not self._ended or not self.all_heard

    @property
    def unheard(self) -> bool:
        """Something was sent that no mark has confirmed: a clear would drop it."""
        return self.sent_ms > self._mark_ms

    @property
    def playing_until(self) -> float:
        """By our reckoning, when the far end will have played all it was sent; in the past when it has."""
        return self._empty_at

    # --- interrupting ---

    def pause(self, carrier_ms: int, dropped_ms: int | None = None) -> int:
        """The leg clears the far buffer: what was not heard is queued again. `dropped_ms`: so much of what was sent has
        never been played, where the leg knows it. Returns the heard position. Idempotent."""
        if not self.paused:
            self.paused = True
            if dropped_ms is None:
                self._paused_at_ms = self.heard_ms(carrier_ms)
            else:
                self._paused_at_ms = max(self.sent_ms - dropped_ms, self._mark_ms)
            self._restart_at(self._paused_at_ms)
        return self._paused_at_ms

    def resume(self) -> None:
        """Go on from the heard position, or from the start of the word that was cut."""
        self.paused = False
        word = self.ledger.word_at(self._paused_at_ms)
        if word is not None and word.end_ms - self._paused_at_ms > RESUME_WHOLE_WORD_MS:
            self._restart_at(max(word.start_ms, self._base_ms))

    def cut(self, carrier_ms: int, dropped_ms: int | None = None) -> int:
        """The answer ends where the caller stopped hearing it. Returns that position; the rest is dropped."""
        heard_ms = self.pause(carrier_ms, dropped_ms)
        self.paused = False
        end_ms = min(-(-heard_ms // FRAME_MS) * FRAME_MS, self.end_ms)
        keep = (end_ms - self._base_ms) * self.format.bytes_per_ms
        self.stats.dropped_ms += (len(self._audio) - keep) // self.format.bytes_per_ms
        del self._audio[keep:]
        self.ledger.cut(heard_ms)
        self._ended = True
        self._restart_at(end_ms)
        return heard_ms

    def retract(self, position_ms: int, carrier_ms: int, dropped_ms: int | None = None) -> int:
        """Take back what of the answer lies behind this position and was not heard: more may be appended there. What
        was sent beyond it must have been cleared, as before a pause. Returns where the timeline ends now."""
        end_ms = position_ms
        if self.paused:
            end_ms = max(end_ms, self._paused_at_ms)
        elif self.sent_ms > position_ms:
            heard_ms = self.pause(carrier_ms, dropped_ms)
            self.paused = False
            end_ms = max(end_ms, heard_ms)
        end_ms = min(-(-end_ms // FRAME_MS) * FRAME_MS if end_ms > position_ms else end_ms, self.end_ms)
        keep = (end_ms - self._base_ms) * self.format.bytes_per_ms
        self.stats.dropped_ms += (len(self._audio) - keep) // self.format.bytes_per_ms
        del self._audio[keep:]
        self.ledger.cut(end_ms)
        return end_ms

    def _restart_at(self, position_ms: int) -> None:
        """A new segment, from a whole frame: so every position that is sent stays one."""
        self._segment += 1
        self.sent_ms = self._segment_start_ms = self._mark_ms = position_ms // FRAME_MS * FRAME_MS
        self._marked = False
        self._empty_at = 0.0
        self._known_ms = 0
        self._expected.clear()
