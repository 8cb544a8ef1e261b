"""A call's bus: its two lanes, what listens on them, and the agent's hands on them.

In:  leg -> receive() -> ears (VAD, with every other call, in the beat) and, while it is fed, the recogniser at arrival.
Out: agent -> append() -> playout -> pump() in the beat -> leg.

The agent hears of speech through BusListener and acts through begin/append/end/pause/resume/cut. Positions and heard
text come from the playout ledger.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from trunkline.clock import Clock
from trunkline.media.ears import Ears
from trunkline.media.heartbeat import Heartbeat
from trunkline.media.playout import LeadPolicy, Message, Playout
from trunkline.media.vad import Floats
from trunkline.ports import Word
from trunkline.types import FRAME_MS

MARK_GRACE_S = 2.0  # a far end that has not returned a mark this long after it was due does not return marks
ECHO_TAIL_S = 0.7  # a speakerphone's echo path, and our uncertainty of when it plays
DEAF_TAIL_MS = 600  # a key is found 40 ms into its tone, and networks repeat what they think was lost
QUEUE_LIMIT_MS = 120_000  # of speech waiting to be sent: a model that writes a book


class LegOut(Protocol):
    """The sending half of a leg. Neither method blocks or raises for a slow peer."""

    @property
    def writable(self) -> bool:
        """False while the peer does not read: nothing is sent, the playout waits, and asks again in every beat."""
        ...

    def send(self, messages: Sequence[Message]) -> None: ...

    def clear(self) -> int | None:
        """Drop what was sent and not yet played: how many ms that was, None where only marks tell."""
        ...


class Receiver(Protocol):
    """What a leg tells its end of the call: a Bus, or a conference's Port."""

    def receive(self, audio: bytes, carrier_ms: int) -> None:
        """Audio from the far end in the lane's format, and the media timestamp at its start."""
        ...

    def mark_returned(self, name: str) -> None:
        """The far end has played all that was sent before this mark."""
        ...


class Tap(Protocol):
    """Hears both lanes: a recorder, a supervisor. Must only take note. Positions are samples of the stream's clock."""

    def write(self, channel: Literal["caller", "agent"], position: int, data: bytes) -> None: ...

    def cut(self, channel: Literal["caller", "agent"], position: int) -> None:
        """What was to be heard from here on is not."""
        ...

    def close(self) -> None:
        """The call is over."""
        ...


class Echo(Protocol):
    """Whether what is heard is our own voice coming back. Positions are samples of a clock that runs with time."""

    def played(self, position: int, audio: bytes) -> None:
        """The far end plays this from `position` on. Must only take note."""
        ...

    def cut(self, position: int) -> None:
        """What was to be played from here on is not."""
        ...

    def explains(self, recent: Floats, position: int) -> bool:
        """Whether the end of `recent` is our voice; its last sample was received at `position`. Asked a whole number of
        windows (32 ms) apart."""
        ...

    def may_explain(self, recent: Floats, position: int) -> bool:
        """Whether it could be; asked at any time. Must learn nothing."""
        ...


class Overhearer(Protocol):
    """Hears of speech beside the agent, and also where the agent's ears rest. Times are monotonic seconds."""

    def speech_started(self, at: float) -> None: ...

    def speech_ended(self, at: float) -> None: ...

    def hear(self, audio: bytes) -> None:
        """The caller's lane, whatever is in it, as it comes."""
        ...


class BusListener(Protocol):
    """The agent. Times are monotonic seconds."""

    def speech_started(self, at: float) -> None: ...

    def speech_sustained(self) -> None: ...

    def speech_ended(self, at: float) -> None: ...

    def first_audio_sent(self, at: float) -> None:
        """T1: the first frame of an answer was given to the leg."""
        ...

    def answer_heard(self) -> None:
        """The far end has played the whole answer."""
        ...

    def crashed(self, error: Exception) -> None: ...


@dataclass(slots=True)
class LaneStats:
    received_frames: int = 0
    lost_ms: int = 0
    """Media the carrier's timestamps say there was, and we never got."""
    odd_frames: int = 0
    """Frames that were not 20 ms."""


class Bus:
    """One call's. `listener` is set before the first frame; close() is idempotent and final."""

    def __init__(
        self,
        leg: LegOut,
        ears: Ears,
        heartbeat: Heartbeat,
        clock: Clock,
        lead: LeadPolicy | None = None,
        echo: Echo | None = None,
    ) -> None:
        self.leg, self.listener = leg, NOBODY
        self.playout = Playout(ears.format, lead)
        self.stats = LaneStats()
        self.carrier_ms = 0
        """The inbound media timestamp: the carrier's clock."""
        self.taps: list[Tap] = []
        self.closed = False
        self.deaf = False
        """Between `deafen` and `hear_again`."""
        self.deaf_until_ms = -1
        """On the carrier's clock."""
        self._ears, self._heartbeat, self._clock, self._echo = ears, heartbeat, clock, echo
        self._feed: Callable[[bytes], None] | None = None
        self._first_pending = self._end_pending = False
        self._guarded = self._resting = False
        self._overhearer: Overhearer | None = None
        self._per_ms = ears.format.rate_hz // 1000
        self._origin_ms = 0
        self._received_at = clock.now()
        self._opened_at = clock.now() - 1.0
        self._silent_at = 0.0  # when our voice cannot come back any more
        slot = ears.open(self)
        if slot is None:
            raise RuntimeError("every slot of the ears is taken")  # admission keeps below the capacity
        self._slot = slot

    @property
    def origin_ms(self) -> int:
        """Where on the carrier's clock the taps' positions begin."""
        return self._origin_ms

    # --- from the leg ---

    def receive(self, audio: bytes, carrier_ms: int) -> None:
        """Caller audio in the lane's format, and the carrier's media timestamp at its start."""
        if self.closed:
            return
        stats = self.stats
        stats.received_frames += 1
        if stats.received_frames == 1:
            self.carrier_ms = self._origin_ms = carrier_ms
        if carrier_ms > self.carrier_ms + FRAME_MS:
            stats.lost_ms += carrier_ms - self.carrier_ms - FRAME_MS
        if carrier_ms > self.carrier_ms:
            self.carrier_ms = carrier_ms
        self._received_at = now = self._clock.now()
        if carrier_ms < self.deaf_until_ms:
            silence = self._ears.format.silence
            audio = silence * (len(audio) // len(silence))
        self._ears.write(self._slot, audio, now)
        if self._feed is not None:
            self._feed(audio)
        if self._overhearer is not None:
            self._overhearer.hear(audio)
        for tap in self.taps:
            tap.write("caller", (carrier_ms - self._origin_ms) * self._per_ms, audio)

    def skip_to(self, carrier_ms: int) -> None:
        """Somebody else heard the leg, up to the frame that began here: that is no loss."""
        self.carrier_ms = max(self.carrier_ms, carrier_ms)

    def mark_returned(self, name: str) -> None:
        if self.closed:
            return
        self.playout.mark_returned(name, self.carrier_ms, self._clock.now())
        self._check_heard()

    # --- from the agent ---

    def feed(self, sink: Callable[[bytes], None], pre_roll_ms: int) -> None:
        """Give the recogniser what was just heard, then every frame as it arrives."""
        self._feed = sink
        if pre_roll_ms:
            sink(self._ears.latest(self._slot, pre_roll_ms))

    def stop_feed(self) -> None:
        self._feed = None

    def set_endpoint(self, silence_ms: int) -> None:
        self._ears.set_endpoint(self._slot, silence_ms)

    def deafen(self) -> None:
        """Until `hear_again`, whoever listens to the caller here hears silence: they key what nobody is to hear."""
        self.deaf, self.deaf_until_ms = True, sys.maxsize

    def hear_again(self) -> None:
        """DEAF_TAIL_MS later, of the carrier's time."""
        self.deaf, self.deaf_until_ms = False, self.carrier_ms + DEAF_TAIL_MS

    def forget_speech(self) -> None:
        self._ears.forget_speech(self._slot)

    def rest_ears(self, on: bool) -> None:
        """While on, the listener is told of no speech: somebody else finds it."""
        if on == self._resting:
            return
        self._resting = on
        if self._overhearer is None:
            self._rest(on)

    def overhear(self, overhearer: Overhearer | None) -> None:
        """From now on; None: nobody any more."""
        before, self._overhearer = self._overhearer, overhearer
        if self._resting and (before is None) != (overhearer is None):
            self._rest(overhearer is None)

    def _rest(self, on: bool) -> None:
        self._guarded = False
        self._ears.rest(self._slot, on)
        if not on and self._clock.now() < self._silent_at:
            self._begin_guard()

    def latest(self, length_ms: int) -> bytes:
        """Of what was just heard."""
        return self._ears.latest(self._slot, length_ms)

    @property
    def hearing_speech(self) -> bool:
        return self._ears.hearing_speech(self._slot)

    @property
    def silent_ms(self) -> int:
        """Received since speech was last loud."""
        return self._ears.silent_ms(self._slot)

    def begin(self) -> None:
        """An answer begins."""
        self.playout.begin()
        self._first_pending = self._end_pending = True

    def append(self, audio: bytes, words: Sequence[Word], offset_ms: int) -> None:
        """More of the answer. `offset_ms`: where the words' utterance began on the timeline (`position_ms` then)."""
        self.playout.append(audio)
        if words:
            self.playout.ledger.add(words, offset_ms)
        if not self.playout.paused:
            if self._first_pending:
                self.pump(self._clock.now())  # at once, not at the next beat: this is the latency people feel
            self._heartbeat.speaks(self)

    def fill(self, audio: bytes) -> None:
        """Speak this before the answer, of which it is no part. Only while the answer has no audio."""
        self.playout.fill(audio)
        if not self.playout.paused:
            self._heartbeat.speaks(self)

    @property
    def position_ms(self) -> int:
        """Where the next audio will lie on the timeline."""
        return self.playout.end_ms

    @property
    def has_room(self) -> bool:
        return self.playout.queued_ms < QUEUE_LIMIT_MS

    def end(self) -> None:
        """The answer is complete; `answer_heard` follows when it has been played."""
        self.playout.end()
        if self.playout.end_ms == self.playout.answer_ms:
            self._first_pending = False  # it had nothing to say
        self._heartbeat.speaks(self)
        self._check_heard()

    def pause(self) -> None:
        """Silence the far end at once; the unheard rest stays with us."""
        if not self.playout.paused:
            dropped_ms = self._clear()
            self.playout.pause(self.carrier_ms, dropped_ms)

    def resume(self) -> None:
        self.playout.resume()
        self._heartbeat.speaks(self)
        self.pump(self._clock.now())

    def cut(self) -> int:
        """The answer ends where the caller stopped hearing it: that position."""
        dropped_ms = None if self.playout.paused else self._clear()
        heard_ms = self.playout.cut(self.carrier_ms, dropped_ms)
        self._end_pending = self._first_pending = False
        return heard_ms

    def retract(self, position_ms: int) -> int:
        """What of the answer lies behind this position, and was not heard, is not said: the end of the timeline now."""
        sent_beyond = not self.playout.paused and self.playout.sent_ms > position_ms
        end_ms = self.playout.retract(position_ms, self.carrier_ms, self._clear() if sent_beyond else None)
        self._heartbeat.speaks(self)
        return end_ms

    @property
    def heard_ms(self) -> int:
        """How far on the timeline the caller has heard."""
        return self.playout.heard_ms(self.carrier_ms)

    def heard_text(self, start_ms: int) -> str:
        """The words the caller has wholly heard since `start_ms` of the timeline."""
        return self.playout.ledger.text(start_ms, self.heard_ms)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._feed = self._overhearer = None
            self._heartbeat.forget(self)
            self._ears.close(self._slot)
            self.listener = NOBODY
            for tap in self.taps:
                tap.close()

    # --- from the heartbeat ---

    def pump(self, now: float) -> float | None:
        """Send what is due. When there is more to do; None: nothing, until more is said."""
        playout = self.playout
        if self.closed or playout.paused:
            return None
        if not self.leg.writable:
            return now  # rare, and a leg that had to say when it reads again could forget to
        messages = playout.due(now)
        if messages:
            self.leg.send(messages)
            for tap in self.taps:
                for message in messages:
                    tap.write("agent", self._carrier_position(message.play_at), message.audio)
            if self._echo is not None:
                self._guard(self._echo, messages)
            if self._first_pending and playout.sent_ms > playout.answer_ms:
                self._first_pending = False
                self.listener.first_audio_sent(now)
        elif playout.overdue(now, MARK_GRACE_S):
            playout.assume_heard()
        self._check_heard()
        return playout.due_again(MARK_GRACE_S)

    def _guard(self, echo: Echo, messages: Sequence[Message]) -> None:
        for message in messages:
            echo.played(self._sample_at(message.play_at), message.audio)
        self._silent_at = self.playout.playing_until + ECHO_TAIL_S
        if not self._guarded and (not self._resting or self._overhearer is not None):
            self._begin_guard()

    def _begin_guard(self) -> None:
        self._guarded = True
        self._ears.guard(self._slot, True)

    def _sample_at(self, at: float) -> int:
        return int((at - self._opened_at) * 1000 * self._per_ms)

    def _carrier_position(self, at: float) -> int:
        """Where on the carrier's media clock a moment lies, by its latest frame."""
        return round((self.carrier_ms - self._origin_ms + (at - self._received_at) * 1000) * self._per_ms)

    def _check_heard(self) -> None:
        if self._end_pending and not self._first_pending and self.playout.all_heard:
            self._end_pending = False
            self.listener.answer_heard()

    def _clear(self) -> int | None:
        if not self.playout.unheard:
            return None
        dropped_ms = self.leg.clear()
        self.playout.stats.clears += 1
        if self._echo is not None:
            now = self._clock.now()
            self._silent_at = min(self._silent_at, now + ECHO_TAIL_S)
            self._echo.cut(self._sample_at(now))
        for tap in self.taps:
            tap.cut("agent", self._carrier_position(self._clock.now()))
        return dropped_ms

    # --- from the ears ---

    def speech_started(self, at: float) -> None:
        if self._overhearer is not None:
            self._overhearer.speech_started(at)
        if not self._resting:
            self.listener.speech_started(at)

    def speech_sustained(self) -> None:
        if not self._resting:
            self.listener.speech_sustained()

    def speech_ended(self, at: float) -> None:
        if self._overhearer is not None:
            self._overhearer.speech_ended(at)
        if not self._resting:
            self.listener.speech_ended(at)

    def is_echo(self, recent: Floats, at: float) -> bool:
        echo = self._echo_at(at)
        return echo is not None and echo.explains(recent, self._sample_at(at))

    def may_be_echo(self, recent: Floats, at: float) -> bool:
        echo = self._echo_at(at)
        return echo is not None and echo.may_explain(recent, self._sample_at(at))

    def _echo_at(self, at: float) -> Echo | None:
        """None once our voice cannot come back any more: nobody asks again, then."""
        if self._guarded and at > self._silent_at:
            self._guarded = False
            self._ears.guard(self._slot, False)
        return self._echo if self._guarded else None

    def crashed(self, error: Exception) -> None:
        self.listener.crashed(error)


class _Nobody:
    """Listens before the agent does, and after."""

    def speech_started(self, at: float) -> None: ...

    def speech_sustained(self) -> None: ...

    def speech_ended(self, at: float) -> None: ...

    def first_audio_sent(self, at: float) -> None: ...

    def answer_heard(self) -> None: ...

    def crashed(self, error: Exception) -> None: ...


NOBODY: BusListener = _Nobody()
