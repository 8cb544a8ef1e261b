"""A call's sessions with a realtime model, opened and closed as sessions.py decides: its edge.

A session is opened with the conversation up to what is not written down yet; the rest is told when it takes over. What
the caller said before the last exchange, and nobody wrote down, holds nothing up: it is told without its words.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from weakref import ref

from trunkline.agents.attendant import Report
from trunkline.agents.deadline import After, Deadline
from trunkline.agents.definition import RealtimeTerms
from trunkline.agents.health import Health
from trunkline.agents.realtime import sessions as s
from trunkline.clock import Clock
from trunkline.errors import ProviderError
from trunkline.ports import (
    CallFacts,
    Message,
    ModelLost,
    ModelOpened,
    Realtime,
    RealtimeEvent,
    RealtimeSession,
    ReplyEnded,
)
from trunkline.types import Format


class Owner(Protocol):
    """The attendant. It is held weakly: neither the model nor a timer keeps a call that is over."""

    conversation: list[Message]

    @property
    def quiet(self) -> bool:
        """Nobody speaks, and nothing is awaited."""
        ...

    def view(self, conversation: Sequence[Message]) -> Sequence[Message]:
        """What a model is told of it: the beginning of a long one is a summary."""
        ...

    def happened(self, event: RealtimeEvent) -> None:
        """Of the live session."""
        ...

    def adopted(self, session: RealtimeSession, without_ms: float) -> None:
        """It is live, and knows the conversation as far as that is written down."""
        ...

    def bereft(self) -> None:
        """The live session is gone: what was awaited of it does not come."""
        ...

    def given_up(self, error: ProviderError) -> None:
        """There will be no other. Once."""
        ...


class Live:
    """`session` is the one that hears and speaks, None without one. Methods return at once."""

    def __init__(
        self,
        owner: Owner,
        model: Realtime,
        terms: RealtimeTerms,
        call: CallFacts,
        format: Format,
        health: Health,
        report: Report,
        clock: Clock,
        after: After,
    ) -> None:
        self.session: RealtimeSession | None = None
        self._owner = ref(owner)
        self._model, self._call, self._format, self._report = model, call, format, report
        self._clock, self._after = clock, after
        self._health, self._key = health, f"realtime.{model.name}"  # what this call sees, the next one knows
        self._sessions = s.Sessions(terms)
        self._open: dict[int, RealtimeSession] = {}
        self._told: dict[int, int] = {}  # how much of the conversation each was opened with
        self._timers: dict[s.Timer, Any] = {}
        self._events: deque[s.Event] = deque()
        self._handling = False
        self._broken: ProviderError | None = None
        self._news = asyncio.Event()  # one is live, or all is lost

    def begin(self) -> None:
        self._handle(s.Begin())

    def turn_over(self) -> None:
        self._handle(s.TurnOver())

    def lose(self, error: ProviderError) -> None:
        """The live session is of no use any more; another may be."""
        if self._sessions.live is not None:
            self._handle(s.Lost(self._sessions.live, error))

    def failed(self, error: ProviderError) -> None:
        """The model is of no use, whatever its session."""
        if not self.broken:
            self._health.failed(self._key, error, self._clock.now())
        self._handle(s.Failed(error))

    @property
    def well(self) -> bool:
        """Whether a call may begin with the model: it has not failed lately, or is due for a probe."""
        return self._health.of(self._key).ready(self._clock.now())

    @property
    def last_code(self) -> str:
        """Of the error that was last, in whichever call."""
        return self._health.of(self._key).last_code

    @property
    def broken(self) -> bool:
        return self._broken is not None

    async def have(self, within_s: float | None = None) -> RealtimeSession:
        """The live session, when there is one. Raises ProviderError when there will be none, or none in that time."""
        try:
            with Deadline(self._after, within_s):
                while self.session is None:
                    if self._broken is not None:
                        raise self._broken
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise ProviderError(self._model.name, "timeout", "no session", retryable=True) from None
        return self.session

    def close(self) -> None:
        """The call is over. Idempotent."""
        self._handle(s.End())

    # --- what follows ---

    def _handle(self, event: s.Event) -> None:
        """One event at a time: what an effect causes at once comes after it."""
        self._events.append(event)
        if self._handling:
            return
        self._handling = True
        try:
            while self._events:
                for effect in self._sessions.handle(self._events.popleft(), self._clock.now()):
                    self._perform(effect)
        finally:
            self._events.clear()
            self._handling = False

    def _perform(self, effect: s.Effect) -> None:
        owner = self._owner()
        match effect:
            case s.SetTimer(name, after_s):
                self._stop_timer(name)
                self._timers[name] = self._after(after_s, self._weakly(Live._fired, name))
            case s.CancelTimer(name):
                self._stop_timer(name)
            case s.Tell(kind, error):
                told = {} if error is None else {"error": str(error), "provider": error.provider, "code": error.code}
                self._report.event(kind, **told)
                if error is not None:
                    self._health.failed(self._key, error, self._clock.now())
            case s.Close(number):
                self._close(number)
            case s.Open(number) if owner is not None:
                self._open_one(number, owner)
            case s.Without() if owner is not None:
                self._news.clear()
                owner.bereft()
            case s.Adopt(number, without_ms) if owner is not None:
                self._adopt(number, without_ms, owner)
            case s.GiveUp(error) if owner is not None:
                self._broken = error
                self._news.set()
                self._report.event("model_lost", error=str(error), provider=error.provider, code=error.code)
                owner.given_up(error)

    def _open_one(self, number: int, owner: Owner) -> None:
        said, begins = owner.conversation, _settled(owner.conversation)
        self._health.asked(self._key, self._clock.now())
        unwritten = (at for at in range(begins, len(said)) if said[at].role == "caller" and not said[at].text)
        told = self._told[number] = next(unwritten, len(said))
        try:
            self._open[number] = self._model.open(
                self._call, self._format, owner.view(owner.conversation[:told]), self._weakly(Live._heard, number)
            )
        except ProviderError as error:
            self._handle(s.Lost(number, error))

    def _close(self, number: int) -> None:
        self._told.pop(number)
        session = self._open.pop(number, None)
        if session is not None:
            if session is self.session:
                self.session = None
            session.close()

    def _adopt(self, number: int, without_ms: float, owner: Owner) -> None:
        session = self.session = self._open[number]
        said = owner.conversation
        answered = max((at for at, each in enumerate(said) if _answers(each)), default=0)
        for at in range(self._told[number], len(said)):
            if said[at].role != "caller" or said[at].text or at < answered:
                session.tell(said[at])
        owner.adopted(session, without_ms)
        self._news.set()

    def _fired(self, name: s.Timer) -> None:
        self._timers.pop(name, None)
        owner = self._owner()
        match name:
            case "reopen":
                self._handle(s.Reopen())
            case "late":
                self._handle(s.Late())
            case "renew":
                self._handle(s.Renew())
            case "move":
                self._handle(s.Move(quiet=owner is not None and owner.quiet))

    def _stop_timer(self, name: s.Timer) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def _heard(self, number: int, event: RealtimeEvent) -> None:
        owner = self._owner()
        if owner is None:
            return
        try:
            if number == self._sessions.live and not isinstance(event, ModelLost):
                if isinstance(event, ReplyEnded) and event.error is None:
                    self._health.succeeded(self._key)
                owner.happened(event)
            elif isinstance(event, ModelOpened):
                self._handle(s.Opened(number, event.lasts_s))
            elif isinstance(event, ModelLost):
                self._handle(s.Lost(number, self._error(event.error)))
        except Exception as error:
            self._report.crashed(error)

    def _error(self, error: Exception) -> ProviderError:
        if isinstance(error, ProviderError):
            return error
        return ProviderError(self._model.name, "protocol", type(error).__name__, retryable=False)

    def _weakly(self, method: Callable[..., None], *bound: Any) -> Callable[..., None]:
        me = ref(self)

        def call(*arguments: Any) -> None:
            live = me()
            if live is not None:
                method(live, *bound, *arguments)

        return call


def _answers(message: Message) -> bool:
    return message.role == "agent" and bool(message.text)


def _settled(said: Sequence[Message]) -> int:
    """Where the last exchange begins. What is not written down before it will not be."""
    answers = [at for at, message in enumerate(said) if _answers(message)]
    return answers[-2] + 1 if len(answers) > 1 else 0
