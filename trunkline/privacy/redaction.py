"""Redaction as text streams: what is given back is never the beginning of something that is redacted later.

    redactor = Redactor(policy)
    shown = redactor.feed("my card is four one one one ")     # "my card is "
    shown += redactor.feed("...") + redactor.end()            # the end of a turn

However text is cut into pieces, what comes out is the same. Time is linear in the text; at most a run
(digits.RUN_TOKENS tokens) and a chain (emails.CHAIN_UNITS words) are kept back, mostly a word.

What is redacted becomes its kind in brackets: `[card]`, `[phone]`, `[email]`, `[ssn]`, `[iban]`, `[number]`, `[name]`;
`[digits]` may be a piece of a card.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from trunkline.privacy.digits import Digits, Piece
from trunkline.privacy.emails import Emails
from trunkline.privacy.judging import Kind
from trunkline.privacy.names import Known, Names
from trunkline.privacy.sensitive import Sensitive
from trunkline.privacy.spoken import DOT, NUMBERS
from trunkline.privacy.tokens import Token, Tokenizer

__all__ = ["KINDS", "NOTHING", "Kind", "Policy", "Redactor", "redact", "redact_value"]

KINDS: tuple[Kind, ...] = get_args(Kind)
_DIGITS: frozenset[Kind] = frozenset(("card", "phone", "ssn", "iban", "number"))


@dataclass(frozen=True, slots=True)
class Policy:
    """What is redacted. `names`: those that are known beforehand, where `name` is among the kinds."""

    kinds: frozenset[Kind] = frozenset()
    names: tuple[str, ...] = ()

    def without(self, *kinds: Kind) -> "Policy":
        return Policy(self.kinds - set(kinds), self.names)


NOTHING = Policy()

_FEWEST = 3
"""Digits, or words for them, that are not yet a piece of anything (judging.like_card), doubled ones aside."""
_TIMES = frozenset(word for word, said in NUMBERS.items() if said.role == "times")
_NUMBER_WORDS = "|".join(sorted((word for word, said in NUMBERS.items() if said.role != "gap"), key=len, reverse=True))
_HINT = re.compile(rf"\d|\b(?:{_NUMBER_WORDS})\b", re.IGNORECASE | re.ASCII)
_ADDRESS = re.compile(rf"@|\b(?:{'|'.join(DOT)})\b|\.\w", re.IGNORECASE | re.ASCII)
_OPENS = re.compile(r"[+(]|\b[A-Z]{2}\b")


class Redactor:
    """Of one speaker of one call. `known`: the names of the call, which its speakers share."""

    def __init__(self, policy: Policy, known: Known | None = None, repeats: "Redactor | None" = None) -> None:
        """`repeats`: of the caller, for the agent who reads back what they said."""
        self._policy, self._repeats = policy, repeats
        self._known = Known(policy.names) if known is None else known
        self._build(Piece())

    def _build(self, piece: Piece) -> None:
        kinds, self._pieces = self._policy.kinds, list[str]()
        out: Callable[[Token], None] = self._shown
        self._stages: list[Names | Digits | Emails] = []
        self._digits: Digits | None = None
        if "name" in kinds:
            names = Names(self._known, out)
            self._stages.insert(0, names)
            out = names.take
        if kinds & _DIGITS:
            other = self._repeats._digits if self._repeats is not None else None
            self._digits = Digits(kinds, out, piece, other)
            self._stages.insert(0, self._digits)
            out = self._digits.take
        if "email" in kinds:
            emails = Emails(out)
            self._stages.insert(0, emails)
            out = emails.take
        self._take, self._tokenizer = out, Tokenizer()

    def _shown(self, token: Token) -> None:
        self._pieces.append(token.text)

    def feed(self, text: str) -> str:
        """What may be shown from here on."""
        if not self._stages:
            return text
        for token in self._tokenizer.feed(text):
            self._take(token)
        return self._taken()

    def end(self) -> str:
        """The turn is over: the rest of it. What was given of a number is remembered."""
        for token in self._tokenizer.end():
            self._take(token)
        for stage in self._stages:
            stage.end()
        return self._taken()

    def whole(self, text: str) -> str:
        """A turn."""
        if not self._stages or self._is_plain(text, _FEWEST):
            return text
        return self.feed(text) + self.end()

    def _is_plain(self, text: str, fewest: int) -> bool:
        """Nothing in it can be redacted, by a look that is much cheaper: most turns hold no number. `fewest` hints of
        digits could be one."""
        kinds, digits = self._policy.kinds, self._digits
        if "name" in kinds or not text.isascii() or (digits is not None and digits.piece.digits):
            return False
        if self._repeats is not None and self._repeats._digits is not None and self._repeats._digits.piece.digits:
            fewest = 1
        if "email" in kinds and _ADDRESS.search(text):
            return False
        if digits is None:
            return True
        hints = _HINT.findall(text)
        return len(hints) < fewest and not any(hint.lower() in _TIMES for hint in hints)

    def preview(self, text: str) -> str:
        """As much of a turn that goes on, and is `text` so far, as may be shown. Changes nothing."""
        if not self._stages:
            return text
        if "email" not in self._policy.kinds and not _OPENS.search(text) and self._is_plain(text, 1):
            return text[: text.rfind(" ") + 1]  # the last word may become another
        other = Redactor(self._policy, self._known.copy(), self._repeats)
        other._build(self._digits.piece if self._digits is not None else Piece())
        return other.feed(text)

    def _taken(self) -> str:
        taken = "".join(self._pieces)
        self._pieces.clear()
        return taken


def redact(text: str, policy: Policy) -> str:
    """A text that stands for itself."""
    return Redactor(policy).whole(text)


def redact_value(value: Any, redacted: Callable[[str], str]) -> Any:
    """JSON's values, with every text in it, and every number that is as long as a card's."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**12:
        text = redacted(str(value))
        return value if text == str(value) else text
    if isinstance(value, Mapping):
        return {redacted(k) if isinstance(k, str) else k: redact_value(v, redacted) for k, v in value.items()}
    if isinstance(value, Sensitive):
        return str(value)
    if isinstance(value, Iterable) and not isinstance(value, bytes):
        return [redact_value(each, redacted) for each in value]
    return value
