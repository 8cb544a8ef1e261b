"""Toll fraud: how many calls went out in the last hour, to a number, to a country, in all. A value and `now`."""

import heapq
import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from trunkline.compliance.destinations import country_of
from trunkline.ports import CallOut, Traffic

HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Caps:
    """Calls within an hour."""

    number: int = 10
    country: int = 600
    total: int = 1200


class Outgoing:
    """Those of this process, and those of others that it has heard of. Bounded by the caps: what is refused is not
    counted."""

    def __init__(self) -> None:
        self._calls: list[tuple[datetime, str, CallOut]] = []  # a heap: others' are heard of late
        self._known: set[str] = set()
        self._numbers: Counter[str] = Counter()
        self._countries: Counter[str] = Counter()
        self._untold: list[CallOut] = []

    def went(self, number: str, now: datetime, *, to_target: bool = False) -> None:
        call = CallOut(secrets.token_hex(12), "" if to_target else number, country_of(number) or "", now)
        self._count(call)
        self._untold.append(call)

    def untold(self) -> Sequence[CallOut]:
        """Others do not know of them yet."""
        return tuple(self._untold)

    def told(self, calls: Sequence[CallOut]) -> None:
        del self._untold[: len(calls)]

    def heard(self, calls: Iterable[CallOut], now: datetime) -> None:
        """Of every worker, ours among them."""
        for call in calls:
            if call.id not in self._known and call.at > now - HOUR:
                self._count(call)

    def _count(self, call: CallOut) -> None:
        heapq.heappush(self._calls, (call.at, call.id, call))
        self._known.add(call.id)
        self._numbers[call.number] += 1
        self._countries[call.country] += 1

    def traffic(self, number: str, now: datetime) -> Traffic:
        while self._calls and self._calls[0][0] <= now - HOUR:
            old = heapq.heappop(self._calls)[2]
            self._known.discard(old.id)
            for counter, key in ((self._numbers, old.number), (self._countries, old.country)):
                counter[key] -= 1
                if not counter[key]:
                    del counter[key]
        country = country_of(number) or ""
        return Traffic(self._numbers[number], self._countries[country], len(self._calls))
