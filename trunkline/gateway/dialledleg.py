"""A further leg of a call, dialled beside its caller's: what its line reports, told to whoever wanted it. In the record
by its own name, metered from its answer on; its end is told exactly once."""

import secrets
from dataclasses import dataclass
from typing import Any, Protocol

from trunkline.compliance.money.prices import STREAMED
from trunkline.gateway.endings import Ended, leg_product
from trunkline.gateway.hands import Hands
from trunkline.gateway.leg import Leg
from trunkline.gateway.outbound import Failure, Tried
from trunkline.media.bus import Receiver
from trunkline.media.members import Port
from trunkline.media.voicemail import After
from trunkline.ports import ENDED_BY, EndedBy, EndReason, Refuse, Usage, UsageUnit
from trunkline.types import E164, CallId


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
_CANNOT_BE_PLUGGED = Refuse("not_supported", "the audio of this leg cannot be plugged to the caller's")


class DialledLeg:
    """Its LegCall. Who dialled it took a line (`Host.take_line`), given back when the leg is over or hung up, and says
    what is to be done by overriding the methods of the last section."""

    def __init__(self, host: Host, clock: Now, **of: object) -> None:
        """`of`: what its record's `leg_ended` says beside its name."""
        self.name = f"leg_{secrets.token_hex(8)}"
        self.leg: Leg | None = None
        """What hanging up closes: the order while it rings, where its media is another leg (Twilio)."""
        self.media: Hands | None = None
        """From its early media or its answer on."""
        self.port: Port | None = None
        """In the room."""
        self.over = False
        self.number: E164 | None = None
        """Whom it calls."""
        self.trunk = ""
        """Over which."""
        self._host, self._clock, self._of = host, clock, of
        self._answered_at: float | None = None
        """It was picked up; media follows."""
        self._attached = False
        self._closed = self._metered = False
        self._has_line = True

    @property
    def id(self) -> CallId:
        return self._host.id

    @property
    def is_answered(self) -> bool:
        """And its media is there."""
        return self._attached

    @property
    def leaving(self) -> bool:
        """We have hung it up, or it is over."""
        return self._closed or self.over

    def hang_up_leg(self, why: str = "transferred") -> None:
        """CANCEL, BYE or over REST, as is due. Idempotent; `finished` follows."""
        if not self._closed and self.leg is not None:
            self._closed = True
            self._meter()
            self._give_line()
            self.leg.close(why)
            if self.media is not None and self.media is not self.leg:
                self.media.close(why)

    def never_was(self) -> None:
        """It could not be dialled."""
        self.over = self._closed = True
        self._give_line()

    def unplug(self) -> Port | None:
        """Nobody hears it any more: the place it had in the room."""
        port, self.port = self.port, None
        if port is not None and self.media is not None and self.media.bus is port:
            self.media.bus = None
        return port

    def take(self, leg: Hands) -> None:
        """One that was picked up when it was somebody else's."""
        self.leg = self.media = leg
        self._attached = True
        self.answered()

    def relieved(self) -> None:
        """Another has its place, and the line it took; what becomes of it is nobody's business any more."""
        self.over, self._has_line = True, False
        self._meter()

    def handed_over(self) -> None:
        """It is the leg of somebody else from here on, who meters it."""
        self.over = True
        self._give_line()

    # --- LegCall ---

    def expect(self, leg: Leg) -> None:
        self.leg = leg

    def listen(self, leg: Leg) -> Receiver | Refuse:
        if self._closed or self.over:
            return Refuse("ending", "nobody waits for it")
        if not self._plug(leg):
            return _CANNOT_BE_PLUGGED
        return self.early_media()

    def answered(self) -> None:
        """Its media follows."""
        if self._answered_at is None:
            self._answered_at = self._clock.now()
            if self.leg is not None:
                self._host.usage(self._used("calls", 1))

    def attach(self, leg: Leg) -> Receiver | Refuse:
        if self._closed or self.over:
            return Refuse("ending", "nobody waits for it")
        if self._attached:
            return Refuse("not_now", "it has its media already")
        self._attached = True
        self.answered()
        if not self._plug(leg):
            self.hang_up_leg("failed")
            self._end(Lost(_CANNOT_BE_PLUGGED.code))
            return _CANNOT_BE_PLUGGED
        return self.picked_up()

    def _plug(self, leg: Leg) -> bool:
        self.media = leg if isinstance(leg, Hands) else None
        return self.media is not None

    def held(self, on: bool) -> None:
        """Who talks to them hears what they play, and may wait."""

    def stopped(self, leg: Leg) -> None:
        self._closed = True  # nothing is left to hang up
        self._end(HungUp())

    def lost(self, leg: Leg, why: str) -> None:
        if not self._attached:
            return  # it may ring all the same; a deadline holds
        self.hang_up_leg("media_lost")
        self._end(Lost(why))

    def finished(self, reason: EndReason, detail: str = "", by: EndedBy | None = None, provider_code: str = "") -> None:
        self.hang_up_leg(reason)  # where it is not over yet: no audio was negotiated, or not encrypted
        self._closed = True
        if reason == "caller_hung_up":
            self._end(HungUp())
        elif not self._attached:
            self._end(Unanswered(reason, detail, provider_code, by or ENDED_BY[reason]))
        else:
            self._end(Lost(detail or reason))

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

    def answered_by_machine(self, after: After | None = None) -> None:
        """A voicemail or a fax, as its carrier or its sound says: nobody to talk to."""
        self.hang_up_leg("no_answer")

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
            if self.leg.kind in STREAMED:
                self._host.usage(self._used("stream_seconds", seconds if self._attached else 0.0))
            self._host.usage(self._used("seconds", seconds))
            self._host.event("leg_ended", leg=self.name, **self._of, seconds=seconds)

    @property
    def product(self) -> str:
        """As its invoice calls it."""
        assert self.leg is not None
        return leg_product("transfer", self.number, self.trunk if self.leg.kind == "sip" else "")

    def _used(self, unit: UsageUnit, quantity: float) -> Usage:
        assert self.leg is not None
        return Usage(self.id, self.leg.kind, "leg", unit, quantity, self.product)

    def failed(self, how: Unanswered, **of: object) -> Failure:
        """Why it was not answered, which is in the record by then: whether somebody may have been rung."""
        leg: object = self.leg
        end = Ended(how.reason, how.by, how.detail, how.provider_code)
        failure = (leg.failure if isinstance(leg, Tried) else None) or Failure(end, may_have_rung=True)
        self.event(
            "leg_failed",
            **of,
            reason=how.reason,
            by=how.by,
            detail=how.detail,
            provider_code=how.provider_code,
            may_have_rung=failure.may_have_rung,
        )
        return failure

    # --- for who dialled it ---

    def rings(self) -> None: ...

    def early_media(self) -> Receiver | Refuse:
        return Refuse("not_now", "nobody listens yet")

    def picked_up(self) -> Receiver | Refuse:
        """Who is to hear it."""
        raise NotImplementedError

    def ended(self, how: Over) -> None:
        raise NotImplementedError
