"""Redaction as text streams: what is given back is never the beginning of something that is redacted later.

    redactor = Redactor(policy)
    shown = redactor.feed("my card is four one one one ")     # "my card is "
    shown += redactor.feed("...") + redactor.end()            # the end of a turn

However text is cut into pieces, what comes out is the same. Time is linear in the text; at most a run
(digits.RUN_TOKENS tokens) and a chain (emails.CHAIN_UNITS words) are kept back, mostly a word.

What is redacted becomes its kind in brackets: `[card]`, `[phone]`, `[email]`, `[ssn]`, `[iban]`, `[number]`, `[name]`;
`[digits]` may be a piece of a card.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple, get_args

from trunkline.privacy.digits import Digits, Piece
from trunkline.privacy.emails import Emails
from trunkline.privacy.judging import Kind
from trunkline.privacy.look import Look, Seen, reach
from trunkline.privacy.names import Known, Names
from trunkline.privacy.pieces import Talk
from trunkline.privacy.sensitive import Sensitive
from trunkline.privacy.tokens import Token, Tokenizer

__all__ = ["CARDS", "KINDS", "NOTHING", "Kind", "Policy", "Redactor", "quoted", "redact", "redact_value"]

KINDS: tuple[Kind, ...] = get_args(Kind)
_DIGITS: frozenset[Kind] = frozenset(("card", "phone", "ssn", "iban", "number"))


@dataclass(frozen=True, slots=True)
class Policy:
    """What is redacted. `names`: those that are known beforehand, where `name` is among the kinds."""

    kinds: frozenset[Kind] = frozenset()
    names: tuple[str, ...] = ()

    def without(self, *kinds: Kind) -> "Policy":
        return Policy(self.kinds - set(kinds), self.names)

    def __or__(self, other: "Policy") -> "Policy":
        return Policy(self.kinds | other.kinds, tuple(dict.fromkeys(self.names + other.names)))


NOTHING, CARDS = Policy(), Policy(frozenset(("card",)))
QUOTED_TIMES = 4


FOLLOWED = 2
"""Texts of a turn that are previewed beside one another: what was said, and what was heard of it."""


class Memory(NamedTuple):
    """What a speaker's next turn is judged by: of the number before it, and of what is talked of."""

    digits: str
    apart: int
    talk: tuple[int, int, int]


class Redactor:
    """Of one speaker of one call. `known`: the names of the call, which its speakers share."""

    def __init__(
        self, policy: Policy, known: Known | None = None, repeats: "Redactor | None" = None, *, talks: bool = True
    ) -> None:
        """`repeats`: of the caller, for the agent who reads back what they said. Not `talks`: the text is no turn of
        anybody, and a number in it no piece of another but for how it is written."""
        self._policy, self._repeats = policy, repeats
        self._talk: Talk | None = None if not talks else repeats._talk if repeats is not None else Talk()
        self._known = Known(policy.names) if known is None else known
        self._theirs = repeats._digits if repeats is not None else None
        self._look = _look(policy.kinds)
        self._so_far: list[_SoFar] = []
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
            self._digits = Digits(kinds, out, piece, self._theirs, self._talk)
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
        if not self._stages or self._is_plain(text):
            return text
        if self._digits is None or len(self._stages) > 1 or not text.isascii():
            return self.feed(text) + self.end()
        begin, end = reach(text)
        before, after = text[:begin], text[end:]
        self._digits.skip(before)
        shown = self.feed(text[begin:end])
        for token in self._tokenizer.end():
            self._take(token)
        self._digits.skip(after)
        return before + shown + self.end() + after

    def _is_plain(self, text: str) -> bool:
        """Nothing in it is redacted: then it is taken."""
        digits, theirs, talk = self._digits, self._theirs, self._talk
        seen, topics = self._look.at(text, self._known, repeated=theirs is not None and bool(theirs.piece.digits))
        if seen is Seen.SUSPECT:
            return False
        if digits is not None:
            if seen is Seen.NUMBERS and (digits.piece.digits or topics or (talk is not None and talk.secret)):
                return False
            if digits.piece.digits:
                digits.pass_over(text)
            if topics and talk is not None:
                talk.hear(topics)
            digits.end()
        return True

    def aside(self, text: str) -> str:
        """As a turn, of which nothing is remembered."""
        return self._copy().whole(text) if self._stages else text

    def follow(self, policy: Policy) -> None:
        """Between two turns: from here on by that one. What was given of a number stays remembered."""
        self._policy, self._look, self._so_far = policy, _look(policy.kinds), []
        self._theirs = self._repeats._digits if self._repeats is not None else None
        self._build(self._digits.piece if self._digits is not None else Piece())

    @property
    def memory(self) -> Memory:
        """Between two turns."""
        piece = self._digits.piece if self._digits is not None else Piece()
        talk = self._talk.topics if self._talk is not None else (0, 0, 0)
        return Memory(piece.digits, piece.apart, talk)

    def restore(self, memory: Memory) -> None:
        if self._digits is not None:
            self._digits.piece = Piece(memory.digits, memory.apart)
        if self._talk is not None:
            self._talk.card, self._talk.ssn, self._talk.other = memory.talk

    def preview(self, text: str) -> str:
        """As much of a turn that goes on, and is `text` so far, as may be shown. Changes nothing of what `whole` comes
        to. Cheap where `text` is that of before, with more behind it."""
        if not self._stages:
            return text
        going_on = [each for each in self._so_far if each.goes_on(text, self._remembered)]
        if not going_on:
            self._so_far = [*self._so_far[1 - FOLLOWED :], _SoFar(self._copy(), self._remembered)]
            going_on = self._so_far[-1:]
        return max(going_on, key=lambda each: len(each.text)).show(text)

    @property
    def _remembered(self) -> tuple[object, ...]:
        """What a turn is judged by, beside its own words."""
        digits, theirs = self._digits, self._theirs
        own = (digits.piece.digits, digits.piece.apart) if digits is not None else None
        talk = self._talk.topics if self._talk is not None else ()
        return own, theirs.piece.digits if theirs is not None else "", len(self._known), talk

    def _copy(self) -> "Redactor":
        other = Redactor(self._policy, self._known.copy(), self._repeats)
        other._talk = replace(self._talk) if self._talk is not None else None
        other._build(self._digits.piece if self._digits is not None else Piece())
        return other

    def _taken(self) -> str:
        taken = "".join(self._pieces)
        self._pieces.clear()
        return taken


class _SoFar:
    """A turn that goes on, as far as it was shown."""

    def __init__(self, redactor: Redactor, remembered: tuple[object, ...]) -> None:
        self._redactor, self._remembered = redactor, remembered
        self.text = self._shown = ""
        """What it was, and what was shown of it."""

    def goes_on(self, text: str, remembered: tuple[object, ...]) -> bool:
        return remembered == self._remembered and text.startswith(self.text)

    def show(self, text: str) -> str:
        self._shown += self._redactor.feed(text[len(self.text) :])
        self.text = text
        return self._shown


_look = cache(Look)


def redact(text: str, policy: Policy) -> str:
    """A text that stands for itself."""
    return Redactor(policy, talks=False).whole(text)


def quoted(text: str, characters: int) -> str:
    """What a service says of what it was sent, for whoever reads errors: it may quote the caller. On one line, without
    cards, and only then cut: half a card is none that could be found."""
    line = " ".join(text[: QUOTED_TIMES * characters].split())
    return redact(line, CARDS)[:characters]


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
