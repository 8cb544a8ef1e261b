"""E-mail addresses as they stream, written or said: "john dot smith at example dot com", "ana arroba ejemplo punto es".

Units are what stands between two spaces; of them a chain is held that may yet become an address: parts joined by
connectors, `at`, parts joined by dots. Usually that is the last word.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from trunkline.privacy.spoken import AT, CONNECTORS, DOT, NUMBERS
from trunkline.privacy.tokens import Sort, Token, folded

UNIT_CHARS = 254  # RFC 5321: of a whole address
CHAIN_UNITS = 64

_ATOM = frozenset("._%+-@")
_WRITTEN = re.compile(r"[^@\s]+@[^@\s]+\.[^\W\d_]{2,}", re.UNICODE)
_DOMAIN = re.compile(r"[\w-]+(?:\.[\w-]+)*\.[^\W\d_]{2,}")

Out = Callable[[Token], None]


@dataclass(slots=True)
class _Unit:
    """A word with the space before it."""

    spaces: list[Token]
    tokens: list[Token] = field(default_factory=list)
    characters: int = 0

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)


class Emails:
    """take... -> end."""

    def __init__(self, out: Out) -> None:
        self._out = out
        self._chain: list[_Unit] = []
        self._roles: list[str] = []  # part, spelled, joint, at
        self._at = -1  # where in the chain
        self._dotted = False  # behind it, something stands after a dot
        self._unit: _Unit | None = None
        self._spaces: list[Token] = []
        self._swallows = False

    def take(self, token: Token) -> None:
        if token.sort is Sort.SPACE:
            self._end_unit()
            if len(self._spaces) > 1:
                self._settle()
            self._spaces.append(token)
        elif token.sort in (Sort.WORD, Sort.DIGITS, Sort.PIECE) or token.text in _ATOM:
            self._grow(token)
        else:
            self._end_unit()
            self._settle()
            self._out(token)

    def end(self) -> None:
        self._end_unit()
        self._settle()

    def _grow(self, token: Token) -> None:
        if self._swallows:
            return
        if self._unit is None:
            self._unit, self._spaces = _Unit(self._spaces), []
        unit = self._unit
        unit.tokens.append(token)
        unit.characters += len(token.text)
        if unit.characters > UNIT_CHARS:
            if any(each.text == "@" for each in unit.tokens):
                self._unit = None
                self._settle(unit.spaces)
                self._out(Token(Sort.MARKER, "[email]"))
                self._swallows = True
                return
            if self._chain or unit.spaces:
                spaces, unit.spaces = unit.spaces, []
                self._settle(spaces)
            while unit.characters > UNIT_CHARS:
                first = unit.tokens.pop(0)
                unit.characters -= len(first.text)
                self._out(first)

    def _end_unit(self) -> None:
        self._swallows = False
        unit, self._unit = self._unit, None
        if unit is None:
            return
        text = unit.text
        if "@" in text and text != "@":
            self._settle(unit.spaces)
            if _WRITTEN.search(text):
                self._out(Token(Sort.MARKER, "[email]"))
                kept = len(text) - len(text.rstrip(".-_+%"))
                for character in text[len(text) - kept :]:
                    self._out(Token(Sort.PUNCT, character))
            else:
                for token in unit.tokens:
                    self._out(token)
            return
        self._add(unit, text)

    def _add(self, unit: _Unit, text: str) -> None:
        role = self._role(text)
        last = self._roles[-1] if self._roles else ""
        if role == "at":
            if self._at >= 0 and not self._dotted:
                self._release(self._at + 1)
                last = self._roles[-1] if self._roles else ""
            elif self._dotted:
                self._settle()
                last = ""
            if last not in ("part", "spelled"):
                role = "part"
            else:
                self._at = len(self._chain)
        elif role == "joint":
            if not last or last == "at":
                role = "part"
        elif last in ("part", "spelled"):  # two words side by side
            if not (role == last == "spelled" or self._spells_domain(last, text)):
                self._settle()
                role = self._role(text)
                role = "part" if role in ("joint", "at") else role
        elif self._at >= 0 and last == "joint" and folded(self._chain[-1].text) in DOT:
            self._dotted = True
        if (
            role in ("part", "spelled")
            and self._at == len(self._chain) - 1 >= 0
            and _DOMAIN.fullmatch(text.rstrip("."))
        ):
            self._dotted = True
        self._chain.append(unit)
        self._roles.append(role)
        if len(self._chain) > CHAIN_UNITS:
            if self._at >= 0:
                self._settle()
            else:
                self._release(1)
        elif text.endswith(".") and self._dotted:
            self._settle()

    def _spells_domain(self, last: str, text: str) -> bool:
        """g mail"""
        return self._at >= 0 and not self._dotted and last == "spelled"

    def _role(self, text: str) -> str:
        word = folded(text.rstrip("."))
        if text == "@" or word in AT:
            return "at"
        if word in CONNECTORS:
            return "joint"
        said = NUMBERS.get(word)
        return "spelled" if len(word) == 1 or (said is not None and said.role != "gap") or word.isdigit() else "part"

    def _release(self, units: int) -> None:
        """The first so many are no part of an address."""
        for unit in self._chain[:units]:
            self._give(unit)
        del self._chain[:units], self._roles[:units]
        self._at = -1
        while self._roles and self._roles[0] == "joint":
            self._roles[0] = "part"

    def _give(self, unit: _Unit) -> None:
        for token in (*unit.spaces, *unit.tokens):
            self._out(token)

    def _settle(self, spaces: list[Token] | None = None) -> None:
        """The chain ends here: it is an address or was none. `spaces`: what follows it."""
        chain, roles, dotted = self._chain, self._roles, self._dotted
        self._chain, self._roles, self._at, self._dotted = [], [], -1, False
        if dotted:
            ends = len(chain)
            while roles[ends - 1] == "joint":
                ends -= 1
            for token in chain[0].spaces:
                self._out(token)
            self._out(Token(Sort.MARKER, "[email]"))
            if chain[ends - 1].text.endswith("."):
                self._out(Token(Sort.PUNCT, "."))
            chain = chain[ends:]
        for unit in chain:
            self._give(unit)
        if spaces is None:
            spaces, self._spaces = self._spaces, []
        for token in spaces:
            self._out(token)
