"""What is measured of a call: one Turn for each thing the caller says or keys.

T0 is the last speech frame *sent*, T1 the first audible agent media *received* that answers it, by the caller's clock.
An agent that is heard when the caller begins is being interrupted: what it still sends before its clear is the old
answer, not T1. Its clear is the barge-in time; an answer that ends by itself is no missed clear unless it went on for
MISSED_CLEAR_MS of the caller's speech. A wire without clears (RTP) only falls silent: the last audible packet since the
caller began is the barge-in time then, if it came within MISSED_CLEAR_MS. Who is interrupted in a pause has none.
"""

from dataclasses import dataclass, field

from trunkline.testing.caller.answers import Answer
from trunkline.testing.caller.wire import Wire

MISSED_CLEAR_MS = 1000


@dataclass(slots=True)
class Turn:
    index: int
    said: str
    keyed: bool = False
    first_at: float | None = None
    """First speech frame sent."""
    last_at: float | None = None
    """T0. None while the caller speaks."""
    answered_at: float | None = None
    """T1."""
    interrupting: bool = False
    """The agent was being heard when the caller began."""
    cleared_at: float | None = None
    """First clear since the caller began."""
    old_ended_at: float | None = None
    """The interrupted answer ran out by itself."""
    talked_over: bool = False
    """The agent began an answer while the caller was speaking."""
    cut: Answer | None = field(default=None, repr=False)
    """The interrupted answer, with what was heard of it."""

    @property
    def latency_ms(self) -> float | None:
        """T1 - T0."""
        return None if self.answered_at is None or self.last_at is None else (self.answered_at - self.last_at) * 1000

    @property
    def barge_in_ms(self) -> float | None:
        if not self.interrupting or self.cleared_at is None or self.first_at is None:
            return None
        if self.cleared_at < self.first_at:
            return None  # a wire without clears, and the agent was in a pause of its own: when it stopped is not heard
        return (self.cleared_at - self.first_at) * 1000

    @property
    def missed_clear(self) -> bool:
        if not self.interrupting or self.cleared_at is not None or self.first_at is None:
            return False
        return self.old_ended_at is None or (self.old_ended_at - self.first_at) * 1000 >= MISSED_CLEAR_MS


class Turns:
    def __init__(self) -> None:
        self.all: list[Turn] = []
        self._turn: Turn | None = None
        self._last_sent_at = 0.0
        self._old = False  # agent audio now is of an answer to something earlier
        self.started_at: float | None = None
        self.greeted_at: float | None = None
        """First audible agent media."""
        self.last_media_at: float | None = None

    @property
    def current(self) -> Turn | None:
        return self._turn

    @property
    def awaiting(self) -> bool:
        """The caller has finished and no answer has begun."""
        turn = self._turn
        return turn is not None and turn.last_at is not None and turn.answered_at is None

    def begin(self, said: str, *, keyed: bool = False) -> Turn:
        self._turn = Turn(len(self.all), said, keyed)
        self.all.append(self._turn)
        return self._turn

    def speech_sent(self, now: float, carrier: Wire) -> None:
        """A frame of speech (or a key) has left, the first one too."""
        turn = self._turn
        assert turn is not None
        self._last_sent_at = now
        if turn.first_at is None:
            turn.first_at = now
            self._old = turn.interrupting = carrier.playing

    def end(self) -> None:
        """The caller has said or keyed it all: the last `speech_sent` was T0."""
        if self._turn is not None and self._turn.last_at is None:
            self._turn.last_at = self._last_sent_at

    def media(self, now: float) -> None:
        """Audible agent audio has come."""
        self.last_media_at = now
        if self.greeted_at is None:
            self.greeted_at = now
        turn = self._turn
        if turn is None or turn.first_at is None or self._old:
            return
        if turn.last_at is None:
            turn.talked_over = self._old = True
        elif turn.answered_at is None:
            turn.answered_at = now

    def cleared(self, now: float, cut: Answer | None) -> None:
        turn = self._turn
        if turn is None or turn.first_at is None:
            return
        self._old = False
        if turn.cleared_at is None:
            turn.cleared_at, turn.cut = now, cut

    def interrupted_since(self, silent_since: float) -> bool:
        """On a wire without clears: the answer that the caller interrupts has been silent since then, and soon enough
        to be taken for its end."""
        turn = self._turn
        if not self._old or turn is None or turn.first_at is None or turn.cleared_at is not None:
            return False
        return turn.interrupting and (silent_since - turn.first_at) * 1000 < MISSED_CLEAR_MS

    def dry(self, now: float) -> None:
        """The play buffer is empty."""
        if self._old:
            self._old = False
            if self._turn is not None and self._turn.cleared_at is None:
                self._turn.old_ended_at = now
