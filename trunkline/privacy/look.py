"""A look at a turn that costs a tenth of redacting it. Most turns hold nothing that could be redacted.

It errs to one side. What it does not find suspicious comes out of the stages (emails, digits, names) as it went in, and
leaves no piece of a number behind: for that it joins runs that `Digits` may not join (it knows no longest gap), counts
at least the digits that `Digits` would, and takes for suspicious whatever is doubled, said digit by digit, in threes,
or first of all.
"""

import re
from collections.abc import Set
from enum import Enum, auto

from trunkline.privacy.digits import WITHIN
from trunkline.privacy.judging import NUMBER_DIGITS, Kind
from trunkline.privacy.names import Known
from trunkline.privacy.pieces import FRAMES, TOPICS
from trunkline.privacy.spoken import DOT, INTRODUCTIONS, NUMBERS
from trunkline.privacy.tokens import HIDDEN, MARKS, TOKEN_CHARS, folded


class Seen(Enum):
    NOTHING = auto()
    NUMBERS = auto()
    """Digits, which are nothing that is redacted and no piece of it."""
    SUSPECT = auto()


SINGLE_DIGITS, GROUP_DIGITS, REPEATED_DIGITS = 3, 3, 3
"""From so many on, said one by one, written together, or read back, they may be a piece of something."""
_DIGITS_OF: dict[Kind, int] = {"number": NUMBER_DIGITS, "phone": 7, "ssn": 9, "card": NUMBER_DIGITS}
_NEVER = 10**9
_SUSPECT = Seen.SUSPECT, frozenset[str]()
_TOPICS = frozenset(TOPICS)

_WITHIN = re.escape("".join(sorted(WITHIN)))
_ASCII = re.compile(rf"[a-z]+|[0-9]+|[^\s{_WITHIN}]")
_ANY = re.compile(rf"(?:[^\W\d_]|[{MARKS}])+|\d+|[^\s{_WITHIN}{HIDDEN}]")
_IBAN = re.compile(r"[A-Z]{2}\d")
_DOTTED = re.compile(r"\.\w")
_INTRODUCES = {"name", "heisse", "llamo", "nombre"}
assert all(_INTRODUCES & set(words) for words in INTRODUCTIONS)

_GAP = frozenset(word for word, said in NUMBERS.items() if said.role == "gap")
_BEGINS = frozenset(("unit", "tens", "number"))
_COUNTED = {word: said for word, said in NUMBERS.items() if said.role != "gap"}


class Look:
    """By one policy."""

    def __init__(self, kinds: Set[Kind]) -> None:
        self._limit = min((_DIGITS_OF.get(kind, _NEVER) for kind in kinds), default=_NEVER)
        self._iban, self._email, self._name = "iban" in kinds, "email" in kinds, "name" in kinds

    def at(self, text: str, known: Known, *, repeated: bool = False) -> tuple[Seen, Set[str]]:
        """And the topics it is about (pieces.Talk), where nothing is suspected. `repeated`: a run of REPEATED_DIGITS
        may be one that the other speaker gave."""
        if self._email and ("@" in text or _DOTTED.search(text)):
            return _SUSPECT
        ascii = text.isascii()
        words = _ASCII.findall(text.lower()) if ascii else [_folded(word) for word in _ANY.findall(text)]
        if self._email and not DOT.isdisjoint(words):
            return _SUSPECT
        if self._name and not (_INTRODUCES.isdisjoint(words) and known.isdisjoint(words)):
            return _SUSPECT
        seen, count, singles, bare = Seen.NOTHING, 0, 0, True
        limit = min(self._limit, REPEATED_DIGITS) if repeated else self._limit
        for word in words:
            said = _COUNTED.get(word)
            if said is None:
                if not word.isdigit():
                    if word not in _GAP:
                        count = singles = 0
                        bare = bare and (word in FRAMES or not word.isalpha())
                    continue
                digits = len(word)
                if digits >= GROUP_DIGITS:
                    return _SUSPECT
            elif said.role == "times":
                return _SUSPECT
            else:
                digits = len(said.digits)
            count += digits
            singles += digits == 1
            if count >= limit or singles >= SINGLE_DIGITS:
                return _SUSPECT
            if said is None or said.role in _BEGINS:
                if bare:
                    return _SUSPECT
                seen = Seen.NUMBERS
        if seen is Seen.NUMBERS and self._iban and _IBAN.search(text):
            return _SUSPECT
        topics = _TOPICS.intersection(words)
        return seen, {TOPICS[word] for word in topics} if topics else topics


def reach(text: str) -> tuple[int, int]:
    """Of an ASCII text, from the word before its first digit to the word that ends the last run: beside it there is
    none."""
    begin = end = before = 0
    begun = open_ = False
    for found in _ASCII.finditer(text.lower()):
        word = found[0]
        if word in _COUNTED or word.isdigit():
            if not begun:
                begin, begun = before, True
            open_ = True
        elif word not in _GAP:
            if open_:
                end, open_ = found.end(), False
            if word.isalpha():
                before = found.start()
    return begin, len(text) if open_ else end


def _folded(word: str) -> str:
    return folded(word) if len(word) <= TOKEN_CHARS else word
