"""Digits as they stream: written, said as words, doubled, with hesitations between, or over several turns.

A **run** is digits with nothing between them but what may stand within a number. It is kept back until it ends and then
judged as a whole (judging.kind_of), so nothing of it is shown before it is known what it is. A run longer than
RUN_DIGITS or RUN_TOKENS is hidden as it comes.

Of a number given piecemeal (a few digits, "go on", a few more), the pieces are put together while each of them is said
as cards are: what was shown of it then is the first piece, of four digits at most. That is what PCI DSS 3.4.1 lets
anybody show.
"""

import unicodedata
from collections.abc import Callable, Set
from dataclasses import dataclass, replace

from trunkline.privacy.judging import IBAN_CHARS, NUMBER_DIGITS, Kind, holds_card, kind_of, like_card
from trunkline.privacy.spoken import JOINS_TENS, NUMBERS, Said
from trunkline.privacy.tokens import Sort, Token, count, folded

RUN_DIGITS = 64
RUN_TOKENS = 400
GAP_TOKENS = 12  # spaces among them: some six words of hesitation
APART_TOKENS = 48  # of chatter between two pieces of one number

WITHIN = frozenset("-.,()/+*#·–—_;…")
_STARTS = frozenset("+(")

Out = Callable[[Token], None]


@dataclass(slots=True)
class Piece:
    """The number that the last runs were pieces of."""

    digits: str = ""
    apart: int = APART_TOKENS
    """Tokens since."""


class Digits:
    """take... -> end, which is the end of a turn; then again."""

    def __init__(
        self, kinds: Set[Kind], out: Out, before: Piece | None = None, repeats: "Digits | None" = None
    ) -> None:
        """`repeats`: of the other speaker, whose numbers this one reads back: a piece of theirs is hidden here too,
        and what this one says in two turns is not put together."""
        self._kinds, self._out, self._repeats = kinds, out, repeats
        self.piece = replace(before) if before is not None else Piece()
        self._swallows = False
        self._last = Sort.SPACE
        self._clear()

    def _clear(self) -> None:
        self._held: list[Token] = []
        self._groups: list[str] = []
        self._ends = 0  # how many of the held tokens reach to the last digit
        self._times = self._count = 0
        self._tens = self._iban = self._glued = self._digit_seen = False

    def take(self, token: Token) -> None:
        if not self._held and not self._swallows:
            if token.sort is Sort.SPACE or not self._begin(token):
                self._pass(token)
            return
        if not self._go_on(token):
            self._finish(closed=True, by=token)
            self.take(token)

    def end(self) -> None:
        if self._held or self._swallows:
            self._finish(closed=False)
        if self._repeats is not None:
            self.piece = Piece()
        self.piece.apart = min(self.piece.apart, APART_TOKENS // 2)  # whatever the other one said meanwhile
        self._last = Sort.SPACE

    def skip(self, text: str) -> None:
        """Instead of taking it: whole tokens, and no run among them, nor before them."""
        if self.piece.apart < APART_TOKENS:
            self.piece.apart = min(self.piece.apart + count(text), APART_TOKENS)

    # --- a run ---

    def _begin(self, token: Token) -> bool:
        sort, text = token
        if sort is Sort.DIGITS or (sort is Sort.PUNCT and text in _STARTS):
            self._glued = self._last in (Sort.WORD, Sort.PIECE)
            return self._go_on(token)
        if sort is Sort.WORD:
            said = NUMBERS.get(folded(text))
            if said is not None and said.role in ("unit", "tens", "number", "times"):
                return self._go_on(token)
            if text in IBAN_CHARS:
                self._iban = True
                self._held.append(token)
                return True
        return False

    def _go_on(self, token: Token) -> bool:
        """False where the run ends before it."""
        sort, text = token
        if self._iban and len(self._held) == 1 and sort is not Sort.DIGITS:
            return False
        gap = len(self._held) - self._ends
        if sort is Sort.DIGITS:
            self._digit(_ascii(text))
        elif sort is Sort.WORD:
            said = NUMBERS.get(folded(text))
            if self._iban and len(text) <= 4 and text.isupper() and text.isascii():
                self._ends = len(self._held) + 1
            elif said is None or (gap >= GAP_TOKENS and said.role == "gap"):
                return False
            else:
                self._word(said, folded(text))
        elif sort is Sort.SPACE or (sort is Sort.PUNCT and text in WITHIN):
            if gap >= GAP_TOKENS:
                return False
            self._tens = self._tens and (sort is Sort.SPACE or text in "-–—")
        else:
            return False
        if not self._swallows:
            self._held.append(token)
            if self._digit_seen:
                self._ends = len(self._held)
                self._digit_seen = False
            if self._count > RUN_DIGITS or len(self._held) > RUN_TOKENS:
                self._overflow()
        elif self._digit_seen:
            self._held.clear()
            self._ends, self._digit_seen = 0, False
        else:
            self._held.append(token)
        return True

    def _digit(self, digits: str) -> None:
        times, self._times = max(1, self._times), 0
        self._groups += [digits] * times
        self._count += len(digits) * times
        if self._swallows:
            del self._groups[:-RUN_DIGITS]
        self._tens, self._digit_seen = False, True

    def _word(self, said: Said, word: str) -> None:
        if said.role == "zero_within" and not self._groups:
            return
        if said.role in ("unit", "zero_within"):
            if self._tens and said.digits != "0":
                self._groups[-1] = self._groups[-1][0] + said.digits
                self._tens, self._digit_seen = False, True
            else:
                self._digit(said.digits)
        elif said.role in ("number", "tens"):
            self._digit(said.digits)
            self._tens = said.role == "tens"
        elif said.role == "zeros":
            if self._groups:
                self._digit(said.digits)
        elif said.role == "times":
            self._times, self._tens = said.times, False
        elif word not in JOINS_TENS:
            self._tens = False

    def _overflow(self) -> None:
        """Longer than anything that anybody may be shown: hidden from here on, until it ends."""
        if not self._kinds & {"card", "phone", "ssn", "iban", "number"}:
            return
        if self._count < NUMBER_DIGITS:  # separators only
            return
        self._mark("card" if "card" in self._kinds else "number")
        tail = self._held[self._ends :]
        self._held, self._ends, self._swallows = tail, 0, True

    def _finish(self, *, closed: bool, by: Token | None = None) -> None:
        """`closed`: something that is no digit has ended it."""
        held, ends, groups = self._held, self._ends, self._groups
        tail = held[ends:]
        if self._swallows:
            self._swallows = False
            self.piece = Piece()
        elif ends and groups:
            glued = self._glued or (ends == len(held) and by is not None and by.sort in (Sort.WORD, Sort.PIECE))
            kind = self._judge("".join(token.text for token in held[:ends]), groups, glued, closed)
            if kind is None:
                tail = held
            else:
                self._mark(kind)
        else:
            tail = held
        self._clear()
        for token in tail:
            self._pass(token)

    def _judge(self, text: str, groups: list[str], glued: bool, closed: bool) -> str | None:
        digits = "".join(groups)
        kind: str | None = kind_of(digits, text, glued=glued)
        before, self.piece = self.piece, Piece()
        if self._repeats is not None and kind not in self._kinds and "card" in self._kinds and not glued:
            theirs = self._repeats.piece.digits
            if len(theirs) >= NUMBER_DIGITS and len(digits) >= 3 and digits in theirs:
                return "digits"
        if kind is not None and kind in self._kinds:
            if kind != "phone" or not like_card(groups):
                return kind
        elif "card" not in self._kinds or glued or not like_card(groups):
            return None
        if "card" not in self._kinds:
            return kind if kind in self._kinds else None
        # It may be a piece of a card: what comes is put to it.
        if before.digits and before.apart < APART_TOKENS and like_card(groups):
            digits = before.digits + digits
            self.piece = Piece(digits[-RUN_DIGITS:], 0)
            if kind in self._kinds:
                return kind
            whole = len(digits) >= 15 or holds_card(digits)
            return "card" if whole else "digits" if len(digits) >= NUMBER_DIGITS else None
        self.piece = Piece(digits, 0)
        if kind in self._kinds:
            return kind
        return "digits" if not closed and len(digits) >= NUMBER_DIGITS else None

    def _mark(self, kind: str) -> None:
        self._pass(Token(Sort.MARKER, f"[{kind}]"))

    def _pass(self, token: Token) -> None:
        self._last = token.sort
        if self.piece.apart < APART_TOKENS:
            self.piece.apart += 1
        self._out(token)


def _ascii(digits: str) -> str:
    return digits if digits.isascii() else "".join(str(unicodedata.decimal(c)) for c in digits)
