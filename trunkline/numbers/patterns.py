"""Numbers that are written as a pattern, and which of many patterns fits a number best.

A pattern is a number, a beginning (`+1415*`) or a range (`+14155550100-+14155550199`); of those that fit, the one that
names the fewest numbers of that length is the most specific."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Pattern:
    """As `resources.Numbers` lets it stand."""

    text: str

    def size(self, number: str) -> int | None:
        """How many numbers as long as this one it names; None: this one is not among them."""
        low, _, high = self.text.partition("-")
        if high:
            fits = len(number) == len(low) and low <= number <= high
            return int(high) - int(low) + 1 if fits else None
        if low.endswith("*"):
            return 10 ** (len(number) - len(low) + 1) if number.startswith(low[:-1]) else None
        return 1 if number == low else None


def matches(text: str, number: str) -> bool:
    return Pattern(text).size(number) is not None


@dataclass(frozen=True, slots=True)
class Match:
    route: str
    pattern: str


@dataclass(slots=True)
class Patterns:
    """A tenant's: which route has the most specific one for a number. Of equals, that of the call's own trunk, then the
    first route by name."""

    _exact: dict[str, list[tuple[str, str | None]]] = field(default_factory=dict)
    _prefixes: dict[str, list[tuple[str, str | None]]] = field(default_factory=dict)
    _ranges: dict[int, list[tuple[str, str, str | None]]] = field(default_factory=dict)
    """By the length of their numbers."""

    @classmethod
    def of(cls, routes: Iterable[tuple[str, Iterable[str], str | None]]) -> "Patterns":
        """`routes`: name, patterns, trunk."""
        made = cls()
        for name, patterns, trunk in routes:
            for text in patterns:
                if text.endswith("*"):
                    made._prefixes.setdefault(text[:-1], []).append((name, trunk))
                elif "-" in text:
                    made._ranges.setdefault(len(text.partition("-")[0]), []).append((text, name, trunk))
                else:
                    made._exact.setdefault(text, []).append((name, trunk))
        return made

    def best(self, number: str, trunk: str) -> Match | None:
        """`trunk`: over which the call comes; empty: over none. A route of a trunk has that trunk's calls only."""
        fitting = [found for found in self._fitting(number) if found[3] in (None, trunk)]
        if not fitting:
            return None
        _, text, route, _ = min(fitting, key=lambda found: (found[0], found[3] is None, found[2]))
        return Match(route, text)

    def _fitting(self, number: str) -> Iterator[tuple[int, str, str, str | None]]:
        """Size, pattern, route, trunk."""
        for name, trunk in self._exact.get(number, ()):
            yield 1, number, name, trunk
        for length in range(2, len(number) + 1):
            for name, trunk in self._prefixes.get(number[:length], ()):
                yield 10 ** (len(number) - length), f"{number[:length]}*", name, trunk
        for text, name, trunk in self._ranges.get(len(number), ()):
            if (size := Pattern(text).size(number)) is not None:
                yield size, text, name, trunk
