"""A call's consent, door by door. Plain: events in, effects out; the edge (gateway/consent.py) performs them.

    shut ── Put ──► asked ── Yes ──► granted ── Withdrawn ──► withdrawn
                      │ No, or nothing understood twice
                      └──────► refused

A door is open only while it is `granted`, or while nobody has ever said that it needs an agreement. Every other way
ends with it shut: what is not settled when a call is lost is asked again.

A key counts from the beginning of the question. Spoken words of agreement count once the question was heard whole:
before, they may be our own voice coming back, or an answer to something else. A no counts at any time. Nothing that a
machine says counts, also what it said before it was found out to be one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from trunkline.ports import CapturedBy, Door

State = Literal["shut", "asked", "granted", "refused", "withdrawn"]
By = CapturedBy | Literal["machine"]
ASKED_AT_MOST = 2
KEPT: tuple[Door, ...] = ("record", "transcript", "third_party")


# --- events ---


@dataclass(frozen=True, slots=True)
class Owed:
    """These doors need the caller's agreement."""

    doors: tuple[Door, ...]


@dataclass(frozen=True, slots=True)
class Put:
    """The question begins to be spoken."""


@dataclass(frozen=True, slots=True)
class Heard:
    """It was heard whole."""


@dataclass(frozen=True, slots=True)
class Yes:
    via: CapturedBy


@dataclass(frozen=True, slots=True)
class No:
    via: CapturedBy


@dataclass(frozen=True, slots=True)
class Unclear:
    """Another key, or words that are neither."""


@dataclass(frozen=True, slots=True)
class Silence:
    """No answer within the time there is."""


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Nothing of the call is to be kept from now on, whatever was agreed to."""

    via: CapturedBy


@dataclass(frozen=True, slots=True)
class Broken:
    """The question was cut off: the leg is lost, a transfer took the line. It will be put anew."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine has answered: nobody is there who could agree, and its words are nobody's."""


Event = Owed | Put | Heard | Yes | No | Unclear | Silence | Withdrawn | Broken | Machine

# --- effects ---


@dataclass(frozen=True, slots=True)
class Ask:
    """Put the question once more."""


@dataclass(frozen=True, slots=True)
class Await:
    """`Silence` follows after the time there is for an answer."""


@dataclass(frozen=True, slots=True)
class Open:
    doors: tuple[Door, ...]
    via: CapturedBy


@dataclass(frozen=True, slots=True)
class ServeWithout:
    """Refused. `via`: None for a caller who never answered."""

    doors: tuple[Door, ...]
    via: By | None


@dataclass(frozen=True, slots=True)
class Shut:
    """At once. `granted`: of them, what had been agreed to."""

    doors: tuple[Door, ...]
    granted: tuple[Door, ...]
    via: By


Effect = Ask | Await | Open | ServeWithout | Shut


class ConsentState:
    def __init__(self, carried: Mapping[Door, State] | None = None) -> None:
        """`carried`: what a call that comes back had settled."""
        self._doors: dict[Door, State] = {
            door: state for door, state in (carried or {}).items() if state in ("granted", "refused", "withdrawn")
        }
        self._asked = 0
        self._heard = self._machine = False
        self._spoken: tuple[Door, ...] = ()  # granted by word of mouth

    def state(self, door: Door) -> State | None:
        """None: nobody has said that it needs an agreement."""
        return self._doors.get(door)

    def is_open(self, door: Door) -> bool:
        return self._doors.get(door, "granted") == "granted"

    @property
    def unsettled(self) -> tuple[Door, ...]:
        return self._in("shut", "asked")

    @property
    def settled(self) -> Mapping[Door, State]:
        """For the call's next life."""
        return {door: state for door, state in self._doors.items() if state not in ("shut", "asked")}

    def handle(self, event: Event) -> Sequence[Effect]:
        match event:
            case Owed(doors):
                for door in doors:
                    self._doors.setdefault(door, "refused" if self._machine else "shut")
                return ()
            case Machine():
                return self._answered_by_machine()
            case Withdrawn(via):
                return self._withdrawn(via)
            case Broken():
                self._set(self.unsettled, "shut")
                self._asked, self._heard = 0, False
                return ()
        if not self.unsettled:
            return ()
        match event:
            case Put():
                self._asked += 1
                self._heard = False
                self._set(self.unsettled, "asked")
                return ()
            case No(via):
                return self._refused(via)
        asked = self._in("asked")
        if not asked:
            return ()
        match event:
            case Heard():
                self._heard = True
                return (Await(),)
            case Yes(via) if self._heard or via == "keypad":
                self._set(asked, "granted")
                self._spoken += asked if via == "speech" else ()
                return (Open(asked, via),)
            case Unclear() | Silence() if self._heard:
                if self._asked >= ASKED_AT_MOST:
                    return self._refused(None)
                self._heard = False
                return (Ask(),)
        return ()

    def _refused(self, via: CapturedBy | None) -> Sequence[Effect]:
        doors = self.unsettled
        self._set(doors, "refused")
        return (ServeWithout(doors, via),)

    def _withdrawn(self, via: CapturedBy) -> Sequence[Effect]:
        """Also where no agreement was needed: the caller does not want it."""
        open_ones = tuple(door for door in KEPT if self.is_open(door))
        unsettled = self.unsettled
        granted = self._in("granted")
        self._set(unsettled, "refused")
        self._set(open_ones, "withdrawn")
        shut = (Shut(open_ones, granted, via),) if open_ones else ()
        return (*shut, ServeWithout(unsettled, via)) if unsettled else shut

    def _answered_by_machine(self) -> Sequence[Effect]:
        self._machine = True
        unsettled = self.unsettled
        granted = tuple(door for door in self._spoken if self._doors[door] == "granted")
        self._set(unsettled, "refused")
        self._set(granted, "withdrawn")
        shut = (Shut(granted, granted, "machine"),) if granted else ()
        return (*shut, ServeWithout(unsettled, "machine")) if unsettled else shut

    def _in(self, *states: State) -> tuple[Door, ...]:
        return tuple(door for door, state in self._doors.items() if state in states)

    def _set(self, doors: Iterable[Door], state: State) -> None:
        for door in doors:
            self._doors[door] = state
