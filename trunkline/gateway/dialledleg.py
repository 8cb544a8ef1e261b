"""A further leg of a call, dialled beside its caller's: what its line reports, told to whoever wanted it. In the record
by its own name, metered from its answer on; its end is told exactly once."""

import secrets
from dataclasses import dataclass
from typing import Any, Protocol

from trunkline.gateway.hands import Hands
from trunkline.gateway.leg import Leg
from trunkline.media.bus import Receiver
from trunkline.media.members import Port
from trunkline.ports import ENDED_BY, EndedBy, EndReason, Refuse, Usage
from trunkline.types import CallId


class Host(Protocol):
    """What a further leg asks of its call."""

    @property
    def id(self) -> CallId: ...

    def event(self, kind: str, **data: object) -> None: ...

    def usage(self, usage: Usage) -> None: ...

    def hang_up(self, reason: EndReason) -> None: ...

    def take_line(self) -> Refuse | None:
        """One of the gateway's, for a further leg. Code: `overloaded`."""
        ...

    def give_line(self) -> None: ...


class Now(Protocol):
    def now(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Unanswered:
    """It was never picked up."""

    reason: EndReason
    detail: str
    provider_code: str
    by: EndedBy


@dataclass(frozen=True, slots=True)
class HungUp:
    """By the person on it, after their answer."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Otherwise, after its answer: its media, its dialog, or our own bug."""

    why: str


Over = Unanswered | HungUp | Lost


class DialledLeg:
    """Its LegCall. Who dialled it took a line (`Host.take_line`), given back when the leg is over or hung up, and says
    what is to be done by overriding the methods of the last section."""

    def __init__(self, host: Host, clock: Now, **of: object) -> None:
        """`of`: what its record's `leg_ended` says beside its name."""
        self.name = f"leg_{secrets.token_hex(8)}"
        self.leg: Hands | None = None
        self.port: Port | None = None
        """In the room."""
        self.over = False
        self._host, self._clock, self._of = host, clock, of
        self._answered_at: float | None = None
        self._closed = self._metered = False
        self._has_line = True

    @property
    def id(self) -> CallId:
        return self._host.id

    @property
    def is_answered(self) -> bool:
        return self._answered_at is not None

    def hang_up_leg(self, why: str = "transferred") -> None:
        """CANCEL or BYE, as is due. Idempotent; `finished` follows."""
        if not self._closed and self.leg is not None:
            self._closed = True
            self._meter()
            self._give_line()
            self.leg.close(why)

    def never_was(self) -> None:
        """It could not be dialled."""
        self.over = self._closed = True
        self._give_line()

    def unplug(self) -> Port | None:
        """Nobody hears it any more: the place it had in the room."""
        port, self.port = self.port, None
        if port is not None and self.leg is not None and self.leg.bus is port:
            self.leg.bus = None
        return port

    # --- LegCall ---

    def expect(self, leg: Leg) -> None:
        assert isinstance(leg, Hands), "a further leg must be able to be plugged"
        self.leg = leg

    def listen(self, leg: Leg) -> Receiver | Refuse:
        if self._closed or self.over:
            return Refuse("ending", "nobody waits for it")
        return self.early_media()

    def answered(self) -> None:
        """Its media follows."""

    def attach(self, leg: Leg) -> Receiver | Refuse:
        if self._closed or self.over:
            return Refuse("ending", "nobody waits for it")
        self._answered_at = self._clock.now()
        return self.picked_up()

    def held(self, on: bool) -> None:
        """Who talks to them hears what they play, and may wait."""

    def stopped(self, leg: Leg) -> None:
        self._end(HungUp())

    def lost(self, leg: Leg, why: str) -> None:
        if self._answered_at is None:
            return  # it may ring all the same; a deadline holds
        self.hang_up_leg("media_lost")
        self._end(Lost(why))

    def finished(self, reason: EndReason, detail: str = "", by: EndedBy | None = None, provider_code: str = "") -> None:
        self.hang_up_leg(reason)  # where it is not over yet: no audio was negotiated, or not encrypted
        self._closed = True
        if self._answered_at is None:
            self._end(Unanswered(reason, detail, provider_code, by or ENDED_BY[reason]))
        else:
            self._end(HungUp() if reason == "caller_hung_up" else Lost(detail or reason))

    def hang_up(self, reason: EndReason) -> None:
        """The line's own limit."""
        self._host.hang_up(reason)

    def event(self, kind: str, **data: Any) -> None:
        self._host.event(kind, leg=self.name, **data)
        if kind in ("progress", "ringing"):
            self.rings()

    def crashed(self, error: BaseException) -> None:
        """Our own bug in this leg: the caller keeps the call."""
        self._host.event("crashed", leg=self.name, error=type(error).__name__)
        self.hang_up_leg("error")
        self._end(Lost("error"))

    def key(self, digit: str) -> None:
        """Of its keypad."""

    # --- the end ---

    def _end(self, how: Over) -> None:
        if self.over:
            return
        self.over = True
        self._meter()
        self._give_line()
        self.ended(how)

    def _give_line(self) -> None:
        if self._has_line:
            self._has_line = False
            self._host.give_line()

    def _meter(self) -> None:
        if self._answered_at is not None and self.leg is not None and not self._metered:
            self._metered = True
            seconds = round(self._clock.now() - self._answered_at, 3)
            self._host.usage(Usage(self.id, self.leg.kind, "leg", "seconds", seconds))
            self._host.event("leg_ended", leg=self.name, **self._of, seconds=seconds)

    # --- for who dialled it ---

    def rings(self) -> None: ...

    def early_media(self) -> Receiver | Refuse:
        return Refuse("not_now", "nobody listens yet")

    def picked_up(self) -> Receiver | Refuse:
        """Who is to hear it."""
        raise NotImplementedError

    def ended(self, how: Over) -> None:
        raise NotImplementedError
