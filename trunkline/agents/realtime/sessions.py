"""The life of a call's sessions with a realtime model: what follows when one opens, ages or is lost. A table over six
states; plain Python over events and values, `handle(event, now) -> effects`.

    CLOSED ── Begin ──► OPENING ──► LIVE ──► RENEWING ──► READY ── quiet ──► LIVE ...
                          ▲  │        └── Lost ──► BETWEEN ── a moment later ──► OPENING
                          │  └── Lost ──► BETWEEN
                          └── RENEWING ── the old one is lost

1. Sessions are numbers here. At most one is live; one beside it may be about to follow. What is told of any other is
   void.
2. A session is followed before the provider ends it: the next is opened beside it, and takes over between turns.
3. Without a session another is tried every REOPEN_S, for no longer than `reconnect_ms` since the loss, and only where
   another try may help; a try that is under way then is given up with the rest. The first session of a call has FIRST_S
   at least. Then, or when the model failed in another way, all is OVER: GiveUp, once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal, NamedTuple

from trunkline.agents.definition import RealtimeTerms
from trunkline.errors import ProviderError

REOPEN_S = 0.25  # from a session's loss to the next try, and between tries
RENEWED_AT = 0.9  # of the time the far end gives a session
RENEW_AGAIN_S = 30.0  # after a new session could not be had
MOVE_AGAIN_S = 0.5
FIRST_S = 1.5  # for the first session, however short `reconnect_ms` is


class State(Enum):
    CLOSED = "closed"
    OPENING = "opening"
    """None is live, one is being opened."""
    BETWEEN = "between"
    """None is live, and the next try comes."""
    LIVE = "live"
    RENEWING = "renewing"
    """One is live, and the next is being opened."""
    READY = "ready"
    """One is live, and the next waits for a quiet moment."""
    OVER = "over"


# --- events ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """The call is there."""


@dataclass(frozen=True, slots=True)
class Opened:
    session: int
    lasts_s: float | None = None
    """Until the far end ends it, where it says so."""


@dataclass(frozen=True, slots=True)
class Lost:
    session: int
    error: ProviderError


@dataclass(frozen=True, slots=True)
class Reopen:
    """Its timer."""


@dataclass(frozen=True, slots=True)
class Late:
    """Its timer: there has been none for too long."""


@dataclass(frozen=True, slots=True)
class Renew:
    """Its timer: the session is old."""


@dataclass(frozen=True, slots=True)
class Move:
    """Its timer. `quiet`: nobody speaks, and nothing is awaited."""

    quiet: bool


@dataclass(frozen=True, slots=True)
class TurnOver:
    """A moment in which it may be quiet."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The model is of no use, whatever its session."""

    error: ProviderError


@dataclass(frozen=True, slots=True)
class End:
    """The call is over."""


Event = Begin | Opened | Lost | Reopen | Late | Renew | Move | TurnOver | Failed | End
Timer = Literal["reopen", "late", "renew", "move"]

# --- effects --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Open:
    """A session of this number, with the conversation so far; Opened or Lost follows."""

    session: int


@dataclass(frozen=True, slots=True)
class Close:
    session: int


@dataclass(frozen=True, slots=True)
class Without:
    """The live one is gone: what was awaited of it does not come."""


@dataclass(frozen=True, slots=True)
class Adopt:
    """This one is live from now on; it is told what it does not know yet."""

    session: int
    without_ms: float
    """How long there was none."""


@dataclass(frozen=True, slots=True)
class Tell:
    """For the record."""

    kind: Literal["session_lost", "session_renewed", "session_not_renewed"]
    error: ProviderError | None = None


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Replaces the one of that name."""

    name: Timer
    after_s: float


@dataclass(frozen=True, slots=True)
class CancelTimer:
    name: Timer


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The model is lost for good."""

    error: ProviderError


Effect = Open | Close | Without | Adopt | Tell | SetTimer | CancelTimer | GiveUp


class Sessions:
    """One call's. `live` is the number of the session that hears and speaks, None without one."""

    def __init__(self, terms: RealtimeTerms) -> None:
        self.state = State.CLOSED
        self.live: int | None = None
        self._terms = terms
        self._next: int | None = None  # that is being opened, or waits for its moment
        self._count = 0
        self._renew_at = 0.0  # of the next one
        self._lost_at: float | None = None
        self._now = 0.0
        self._effects: list[Effect] = []

    def handle(self, event: Event, now: float) -> list[Effect]:
        """The effects of an event, to be performed in order. `now`: monotonic seconds."""
        if isinstance(event, Opened | Lost) and event.session not in (self.live, self._next):
            return []
        row = TABLE[self.state].get(type(event)) or ALWAYS.get(type(event))
        if row is None or self.state is State.OVER:
            return []
        self._now = now
        before = self.state
        self.state = row.decide(self, event)
        assert self.state in row.leads_to, f"{before} {event} led to {self.state}"
        effects, self._effects = self._effects, []
        return effects

    # --- decisions ---

    def _open(self, _: Event) -> State:
        self._count += 1
        self._next = self._count
        self._do(Open(self._next))
        return State.OPENING if self.live is None else State.RENEWING

    def _begin(self, event: Event) -> State:
        self._lost_at = self._now
        self._do(SetTimer("late", max(FIRST_S, self._terms.reconnect_ms / 1000)))
        return self._open(event)

    def _opened(self, event: Event) -> State:
        assert isinstance(event, Opened)
        lasts_s = self._terms.session_minutes * 60.0
        if event.lasts_s is not None:
            lasts_s = min(lasts_s, event.lasts_s * RENEWED_AT)
        self._renew_at = self._now + lasts_s
        if self.live is None:
            return self._adopt()
        self._do(SetTimer("move", 0.0))
        return State.READY

    def _adopt(self) -> State:
        assert self._next is not None
        without_ms = 0.0 if self._lost_at is None else (self._now - self._lost_at) * 1000
        self.live, self._next, self._lost_at = self._next, None, None
        self._do(CancelTimer("late"))
        self._do(Adopt(self.live, without_ms))
        self._do(SetTimer("renew", max(0.0, self._renew_at - self._now)))
        return State.LIVE

    def _lost(self, event: Event) -> State:
        assert isinstance(event, Lost)
        return self._live_lost(event) if event.session == self.live else self._next_lost(event)

    def _next_lost(self, lost: Lost) -> State:
        self._next = None
        self._do(Close(lost.session))
        if self.live is None:
            return self._try_again(lost.error)
        self._do(CancelTimer("move"))
        self._do(Tell("session_not_renewed", lost.error))
        self._do(SetTimer("renew", RENEW_AGAIN_S))
        return State.LIVE

    def _live_lost(self, lost: Lost) -> State:
        ready = self.state is State.READY
        self.live, self._lost_at = None, self._now
        self._do(Close(lost.session))
        self._do(CancelTimer("renew"))
        self._do(Without())
        if self._next is None:
            self._do(SetTimer("late", self._terms.reconnect_ms / 1000))
            return self._try_again(lost.error)
        self._do(Tell("session_lost", lost.error))
        if not ready:
            self._do(SetTimer("late", self._terms.reconnect_ms / 1000))
            return State.OPENING
        self._do(CancelTimer("move"))
        return self._adopt()

    def _try_again(self, error: ProviderError) -> State:
        assert self._lost_at is not None
        self._do(Tell("session_lost", error))
        if error.retryable and self._now + REOPEN_S - self._lost_at <= self._terms.reconnect_ms / 1000:
            self._do(SetTimer("reopen", REOPEN_S))
            return State.BETWEEN
        return self._give_up(error)

    def _late(self, _: Event) -> State:
        error = ProviderError(self._terms.model.provider, "timeout", "no session", retryable=True)
        if self._next is not None:
            self._do(Tell("session_lost", error))
        return self._give_up(error)

    def _turn_over(self, _: Event) -> State:
        self._do(SetTimer("move", 0.0))
        return State.READY

    def _move(self, event: Event) -> State:
        assert isinstance(event, Move)
        if not event.quiet:
            self._do(SetTimer("move", MOVE_AGAIN_S))
            return State.READY
        old = self.live
        assert old is not None
        self._do(Tell("session_renewed"))
        self._do(Close(old))
        return self._adopt()

    def _failed(self, event: Event) -> State:
        assert isinstance(event, Failed)
        return self._give_up(event.error)

    def _give_up(self, error: ProviderError) -> State:
        self._end(End())
        self._do(GiveUp(error))
        return State.OVER

    def _end(self, _: Event) -> State:
        for session in (self.live, self._next):
            if session is not None:
                self._do(Close(session))
        self.live = self._next = None
        for name in TIMERS:
            self._do(CancelTimer(name))
        return State.OVER

    def _do(self, effect: Effect) -> None:
        self._effects.append(effect)


class Row(NamedTuple):
    decide: Callable[[Sessions, Event], State]
    leads_to: tuple[State, ...]


TIMERS: tuple[Timer, ...] = ("reopen", "late", "renew", "move")
AFTER_LOSS = (State.BETWEEN, State.OVER)

TABLE: Mapping[State, Mapping[type[Event], Row]] = {
    State.CLOSED: {
        Begin: Row(Sessions._begin, (State.OPENING,)),
    },
    State.OPENING: {
        Opened: Row(Sessions._opened, (State.LIVE,)),
        Lost: Row(Sessions._lost, AFTER_LOSS),
        Late: Row(Sessions._late, (State.OVER,)),
    },
    State.BETWEEN: {
        Reopen: Row(Sessions._open, (State.OPENING,)),
        Late: Row(Sessions._late, (State.OVER,)),
    },
    State.LIVE: {
        Renew: Row(Sessions._open, (State.RENEWING,)),
        Lost: Row(Sessions._lost, AFTER_LOSS),
    },
    State.RENEWING: {
        Opened: Row(Sessions._opened, (State.READY,)),
        Lost: Row(Sessions._lost, (State.LIVE, State.OPENING)),
    },
    State.READY: {
        Move: Row(Sessions._move, (State.LIVE, State.READY)),
        TurnOver: Row(Sessions._turn_over, (State.READY,)),
        Lost: Row(Sessions._lost, (State.LIVE,)),
    },
    State.OVER: {},
}
"""What is not here changes nothing: timers and the provider may be a moment late."""

ALWAYS: Mapping[type[Event], Row] = {
    Failed: Row(Sessions._failed, (State.OVER,)),
    End: Row(Sessions._end, (State.OVER,)),
}
