"""Toll fraud: how many calls went out in the last hour, to a number, to a country, in all. A value and `now`."""

from collections import Counter, deque
from dataclasses import dataclass

from trunkline.compliance.destinations import country_of
from trunkline.ports import Traffic

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Caps:
    """Calls within an hour."""

    number: int = 10
    country: int = 600
    total: int = 1200


class Outgoing:
    """Those of this process. Bounded by the caps: what is refused is not counted."""

    def __init__(self) -> None:
        self._calls: deque[tuple[float, str, str]] = deque()
        self._numbers: Counter[str] = Counter()
        self._countries: Counter[str] = Counter()

    def went(self, number: str, now_s: float, *, to_target: bool = False) -> None:
        """`to_target`: to a named transfer target, which may be put through to as often as callers want it."""
        country, number = country_of(number) or "", "" if to_target else number
        self._calls.append((now_s, number, country))
        self._numbers[number] += 1
        self._countries[country] += 1

    def traffic(self, number: str, now_s: float) -> Traffic:
        while self._calls and self._calls[0][0] <= now_s - HOUR_S:
            _, old, country = self._calls.popleft()
            for counter, key in ((self._numbers, old), (self._countries, country)):
                counter[key] -= 1
                if not counter[key]:
                    del counter[key]
        country = country_of(number) or ""
        return Traffic(self._numbers[number], self._countries[country], len(self._calls))
