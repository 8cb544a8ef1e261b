"""Digits as they stream: written, said as words, doubled, with hesitations between, or over several turns.

A **run** is digits with nothing between them but what may stand within a number. It is kept back until it ends and then
judged as a whole (judging.kind_of), so nothing of it is shown before it is known what it is. A run longer than
RUN_DIGITS or RUN_TOKENS is hidden as it comes.

Of a number given piecemeal (a few digits, "go on", a few more), the pieces are put together while each of them may be
one (pieces.may_be_piece): what was shown of it then is the first piece, of four digits at most. That is what PCI DSS
3.4.1 lets anybody show.
"""

import re
import unicodedata
from collections.abc import Callable, Set
from dataclasses import dataclass, replace

from trunkline.privacy.judging import IBAN_CHARS, NUMBER_DIGITS, Kind, holds_card, is_plain, kind_of, like_card
from trunkline.privacy.pieces import (
    ASKS_ON,
    FRAMES,
    MONEY,
    TOPICS,
    UNITS,
    WHOLE_DIGITS,
    Run,
    Talk,
    is_hidden,
    may_be_piece,
    topic_of,
)
from trunkline.privacy.spoken import JOINS_TENS, NUMBERS, Said
from trunkline.privacy.tokens import Sort, Token, count, folded

RUN_DIGITS = 64
RUN_TOKENS = 400
GAP_TOKENS = 12  # spaces among them: some six words of hesitation
SSN_DIGITS = 9
APART_TOKENS = 48  # of chatter between two pieces of one number

_WORDS = re.compile(r"[a-z]+")

WITHIN = frozenset("-.,()/+*#·–—_;…")
_STARTS = frozenset("+(")

_SPACE, _DIGITS, _WORD, _PUNCT = Sort.SPACE, Sort.DIGITS, Sort.WORD, Sort.PUNCT  # looked up for every token

Out = Callable[[Token], None]
_NO_TALK = Talk(other=1)


@dataclass(slots=True)
class Piece:
    """The number that the last runs were pieces of."""

    digits: str = ""
    apart: int = APART_TOKENS
    """Tokens since."""


class Digits:
    """take... -> end, which is the end of a turn; then again."""

    def __init__(
        self,
        kinds: Set[Kind],
        out: Out,
        before: Piece | None = None,
        repeats: "Digits | None" = None,
        talk: Talk | None = None,
    ) -> None:
        """`repeats`: of the other speaker, whose numbers this one reads back: a piece of theirs is hidden here too,
        and what this one says in two turns is not put together. `talk`: nobody's where the text is no turn."""
        self._kinds, self._out, self._repeats, self._talk = kinds, out, repeats, talk
        self._bare, self._money = True, False  # nothing else was said; nothing between a sign of money and here
        self.piece = replace(before) if before is not None else Piece()
        self._swallows = False
        self._last = _SPACE
        self._clear()

    def _clear(self) -> None:
        self._held: list[Token] = []
        self._groups: list[str] = []
        self._ends = 0  # how many of the held tokens reach to the last digit
        self._times = self._count = 0
        self._tens = self._iban = self._glued = self._digit_seen = False
        self._words = self._sum = False  # numbers above nine were said; or hundreds

    def take(self, token: Token) -> None:
        if not self._held and not self._swallows:
            if token.sort is _SPACE or not self._begin(token):
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
        if len(self.piece.digits) < WHOLE_DIGITS:
            self.piece.apart = min(self.piece.apart, APART_TOKENS // 2)  # whatever the other one said meanwhile
        self._last, self._bare, self._money = _SPACE, True, False
        if self._talk is not None:
            self._talk.end_turn()

    def skip(self, text: str) -> None:
        """Instead of taking it: whole ASCII tokens, and no run among them, nor before them."""
        if self._talk is not None:
            words = _WORDS.findall(text.lower())
            self._bare = self._bare and all(word in NUMBERS or word in FRAMES for word in words)
            self._talk.hear(TOPICS[word] for word in TOPICS.keys() & words)
        self.pass_over(text)

    def pass_over(self, text: str) -> None:
        if self.piece.apart < APART_TOKENS:
            self.piece.apart = min(self.piece.apart + count(text), APART_TOKENS)

    # --- a run ---

    def _begin(self, token: Token) -> bool:
        sort, text = token
        if sort is _DIGITS or (sort is _PUNCT and text in _STARTS):
            self._glued = self._last in (_WORD, Sort.PIECE)
            return self._go_on(token)
        if sort is _WORD:
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
        if self._iban and len(self._held) == 1 and sort is not _DIGITS:
            return False
        gap = len(self._held) - self._ends
        if sort is _DIGITS:
            self._digit(_ascii(text))
        elif sort is _WORD:
            said = NUMBERS.get(folded(text))
            if self._iban and len(text) <= 4 and text.isupper() and text.isascii():
                self._ends = len(self._held) + 1
            elif said is None or (gap >= GAP_TOKENS and said.role == "gap"):
                return False
            else:
                self._word(said, folded(text))
        elif sort is _SPACE or (sort is _PUNCT and text in WITHIN):
            if gap >= GAP_TOKENS:
                return False
            self._tens = self._tens and (sort is _SPACE or text in "-–—")
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
            self._tens, self._words = said.role == "tens", True
        elif said.role == "zeros":
            if self._groups:
                self._digit(said.digits)
                self._sum = True
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
            word = by is not None and by.sort in (_WORD, Sort.PIECE)
            glued = self._glued or (ends == len(held) and word)
            asks_on = by is not None and word and folded(by.text) in ASKS_ON
            run = Run(
                "".join(token.text for token in held[:ends]),
                groups,
                self._words,
                self._bare and (by is None or asks_on),
                (word and not asks_on) if self._talk is not None else closed,
                self._sum or self._money or (by is not None and word and folded(by.text) in UNITS),
            )
            kind = self._judge(run, glued)
            if kind is None:
                tail = held
            else:
                self._mark(kind)
        else:
            tail = held
        self._clear()
        for token in tail:
            self._pass(token)

    def _judge(self, run: Run, glued: bool) -> str | None:
        digits = run.digits
        kind: str | None = kind_of(digits, run.text, glued=glued)
        if self._talk is not None and self._talk.ssn and "ssn" in self._kinds and len(digits) == SSN_DIGITS:
            kind = "ssn"
        if self._repeats is not None and kind not in self._kinds and "card" in self._kinds and not glued:
            theirs = self._repeats.piece.digits
            if len(theirs) >= NUMBER_DIGITS and len(digits) >= 3 and digits in theirs:
                self.piece = Piece()
                return "digits"
        hidden = kind if kind in self._kinds else None
        if hidden not in (None, "phone", "number"):
            self.piece = Piece()
            return hidden
        if "card" not in self._kinds or glued or is_plain(run.text.strip()):
            return hidden
        before, talk = self.piece.digits if self.piece.apart < APART_TOKENS else "", self._talk
        if talk is None or self._repeats is not None:  # what an agent says of its own is nobody's card
            talk = _NO_TALK
            if not like_card(run.groups):
                self.piece = Piece()
                return hidden
        if not may_be_piece(run, before, talk):
            return hidden
        so_far = before + digits
        self.piece = Piece(so_far[-RUN_DIGITS:], 0)
        if hidden is not None or not is_hidden(run, before, talk):
            return hidden
        return "card" if before and (len(so_far) >= WHOLE_DIGITS or holds_card(so_far)) else "digits"

    def _mark(self, kind: str) -> None:
        self._pass(Token(Sort.MARKER, f"[{kind}]"))

    def _pass(self, token: Token) -> None:
        sort = self._last = token.sort
        if sort is _WORD:
            self._money = False
            topic = topic_of(token.text)
            if topic is not None:
                self._bare = False
                if topic and self._talk is not None:
                    self._talk.hear((topic,))
        elif sort is _PUNCT:
            self._money = token.text in MONEY
        elif sort is not _SPACE:
            self._bare = self._money = False
        if self.piece.apart < APART_TOKENS:
            self.piece.apart += 1
        self._out(token)


def _ascii(digits: str) -> str:
    return digits if digits.isascii() else "".join(str(unicodedata.decimal(c)) for c in digits)
