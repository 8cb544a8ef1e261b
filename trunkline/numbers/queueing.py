"""Callers who wait for a number, in the order they came. Plain: names and `now` in, what each hears next out.

    join ─► turn, turn, turn ... ─► leave          each turn asks again: is there a line, and is it mine?
                      └─► Over: the wait was long enough

A caller hears words and music in turns of TURN_S; the last one is as short as what is left of their wait.
"""

import math
from dataclasses import dataclass

from trunkline.numbers.resources import Queue

TURN_S = 6
"""Two of them are the hold music once."""
SAY_AGAIN_S = 20.0
WORDS_S = 8
"""What a position and an offer take to say, about: they are not begun with less than that left."""
GONE_S = 45.0
"""Who has not asked for so long has hung up: a turn with words, and a slow web."""
TURNS_OF_MUSIC = 2
OFFER = "To be called back at this number when a line is free, press 1."
OFFER_VERSION = "queue-1"
"""Of those words: whoever presses the key agrees to them."""


@dataclass(slots=True)
class Waiting:
    """`name`: the call's. `terms`: as they were when it came."""

    name: str
    since: float
    terms: Queue
    may_be_called_back: bool
    asked_at: float
    said_at: float | None = None
    offered: bool = False
    turns: int = 0

    def over_at(self) -> float:
        return self.since + self.terms.max_wait_s


@dataclass(frozen=True, slots=True)
class Over:
    """They have waited as long as they are to."""


@dataclass(frozen=True, slots=True)
class Hold:
    """`position`: from 1. `says`: that they wait is to be said now, and `says_position` where; `offers`: and that they
    may be called back. `takes_key`: who wants to be called back may say so. `music`: which piece, from 0; `seconds`: of
    it."""

    position: int
    says: bool
    says_position: bool
    offers: bool
    takes_key: bool
    music: int
    seconds: int


class Line:
    """Of one number."""

    def __init__(self) -> None:
        self._waiting: dict[str, Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, name: str) -> bool:
        return name in self._waiting

    def join(self, name: str, terms: Queue, now: float, *, may_be_called_back: bool = False) -> Waiting | None:
        """At the end of it. None: as many wait as may."""
        if len(self._waiting) >= terms.max_waiting:
            return None
        called_back = may_be_called_back and terms.offer_callback
        return self._waiting.setdefault(name, Waiting(name, now, terms, called_back, asked_at=now))

    def leave(self, name: str) -> Waiting | None:
        """Idempotent."""
        return self._waiting.pop(name, None)

    def ahead_of(self, name: str) -> list[str]:
        """Who came before, first come first."""
        names = list(self._waiting)
        return names[: names.index(name)]

    def since(self) -> float | None:
        """Of who has waited longest."""
        return next((each.since for each in self._waiting.values()), None)

    def gone(self, now: float) -> list[str]:
        """Who does not ask any more."""
        return [each.name for each in self._waiting.values() if now - each.asked_at >= GONE_S]

    def turn(self, name: str, now: float) -> Hold | Over:
        """For a caller who asks, and cannot be answered yet."""
        waiting = self._waiting[name]
        waiting.asked_at = now
        left_s = waiting.over_at() - now
        if left_s <= 0:
            return Over()
        first, has_time = waiting.said_at is None, left_s >= WORDS_S
        again = not first and waiting.terms.say_position and now - (waiting.said_at or 0.0) >= SAY_AGAIN_S
        says = has_time and (first or again)
        offers = has_time and waiting.may_be_called_back and not waiting.offered
        if says:
            waiting.said_at = now
        waiting.offered |= offers
        waiting.turns += 1
        left_s -= WORDS_S if says or offers else 0
        return Hold(
            len(self.ahead_of(name)) + 1,
            says,
            waiting.terms.say_position,
            offers,
            waiting.may_be_called_back and waiting.offered,
            (waiting.turns - 1) % TURNS_OF_MUSIC,
            max(1, min(TURN_S, math.ceil(left_s))),
        )
