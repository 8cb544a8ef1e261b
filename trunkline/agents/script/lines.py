"""Where a key stands in a TOML file: tomllib gives values without positions.

A scanner for text that tomllib has already accepted: it knows where keys, strings and brackets begin and end, and
nothing of what values mean. Array elements and the keys of inline tables have places of their own.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

Path = tuple[str | int, ...]

_BARE_STOP = frozenset(" \t\r\n,]}#")
_KEY_STOP = frozenset(" \t.=]}\"'\r\n")
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b", '"': '"', "\\": "\\"}


@dataclass(frozen=True, slots=True)
class Place:
    line: int
    column: int


@dataclass(slots=True)
class Places:
    by_path: dict[Path, Place] = field(default_factory=dict)

    def find(self, path: Path) -> Place:
        """The place of `path`, else of the nearest table that holds it, else the file's first line."""
        while path and path not in self.by_path:
            path = path[:-1]
        return self.by_path.get(path, Place(1, 1))


def places(text: str) -> Places:
    """`text` must be valid TOML."""
    found: dict[Path, Place] = {}
    for path, place in _Scanner(text.replace("\r\n", "\n")).document():
        for end in range(1, len(path) + 1):
            found.setdefault(path[:end], place)
    return Places(found)


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.line_starts = [0, *(at + 1 for at, char in enumerate(text) if char == "\n")]
        self.tables: dict[Path, int] = {}
        """How many [[tables]] of this path there are so far."""

    def document(self) -> Iterator[tuple[Path, Place]]:
        table: Path = ()
        while self._skip_blank(newlines=True):
            start = self.at
            if self.text.startswith("[[", self.at):
                self.at += 2
                table = self._enter(self._key(), again=True)
                self.at += 2
                yield table, self._place(start)
            elif self.text[self.at] == "[":
                self.at += 1
                table = self._enter(self._key(), again=False)
                self.at += 1
                yield table, self._place(start)
            else:
                yield from self._pair(table)

    def _enter(self, key: Path, again: bool) -> Path:
        """The key with the index of every array of tables on its way."""
        path: Path = ()
        for at, part in enumerate(key):
            path = (*path, part)
            if at == len(key) - 1 and again:
                self.tables[path] = self.tables.get(path, 0) + 1
            if path in self.tables:
                path = (*path, self.tables[path] - 1)
        return path

    def _pair(self, table: Path) -> Iterator[tuple[Path, Place]]:
        start = self.at
        path: Path = (*table, *self._key())
        yield path, self._place(start)
        self.at += 1  # =
        self._skip_blank(newlines=False)
        yield from self._value(path)

    def _value(self, path: Path) -> Iterator[tuple[Path, Place]]:
        char = self.text[self.at]
        if char in "\"'":
            self._string()
        elif char == "[":
            yield from self._array(path)
        elif char == "{":
            yield from self._inline_table(path)
        else:
            while self.at < len(self.text) and self.text[self.at] not in _BARE_STOP:
                self.at += 1

    def _array(self, path: Path) -> Iterator[tuple[Path, Place]]:
        self.at += 1
        index = 0
        while self._skip_blank(newlines=True) and self.text[self.at] != "]":
            if self.text[self.at] == ",":
                self.at += 1
                continue
            yield (*path, index), self._place(self.at)
            yield from self._value((*path, index))
            index += 1
        self.at += 1

    def _inline_table(self, path: Path) -> Iterator[tuple[Path, Place]]:
        self.at += 1
        while self._skip_blank(newlines=True) and self.text[self.at] != "}":
            if self.text[self.at] == ",":
                self.at += 1
                continue
            yield from self._pair(path)
        self.at += 1

    def _key(self) -> Path:
        """A dotted key; stops before `=` or `]`."""
        parts: list[str] = []
        while True:
            self._skip_blank(newlines=False)
            if self.text[self.at] in "\"'":
                parts.append(self._string())
            else:
                start = self.at
                while self.text[self.at] not in _KEY_STOP:
                    self.at += 1
                parts.append(self.text[start : self.at])
            self._skip_blank(newlines=False)
            if self.text[self.at] != ".":
                return tuple(parts)
            self.at += 1

    def _string(self) -> str:
        quote = self.text[self.at]
        close = quote * 3 if self.text.startswith(quote * 3, self.at) else quote
        self.at += len(close)
        held: list[str] = []
        while not self.text.startswith(close, self.at):
            if self.text[self.at] == "\\" and quote == '"':
                self.at += 1
                held.append(_ESCAPES.get(self.text[self.at], self.text[self.at]))
            else:
                held.append(self.text[self.at])
            self.at += 1
        self.at += len(close)
        while len(close) == 3 and self.text.startswith(quote, self.at):  # up to two quotes may end a ''' string
            self.at += 1
        return "".join(held)

    def _skip_blank(self, newlines: bool) -> bool:
        """To the next character that counts; False at the end of the text."""
        blank = " \t\r\n" if newlines else " \t"
        while self.at < len(self.text):
            char = self.text[self.at]
            if char in blank:
                self.at += 1
            elif char == "#" and newlines:
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            else:
                return True
        return False

    def _place(self, at: int) -> Place:
        line = bisect_right(self.line_starts, at)
        return Place(line, at - self.line_starts[line - 1] + 1)
