"""Text as tokens, as it streams: the same tokens however it was cut into pieces.

A token is at most TOKEN_CHARS long, so that no more than that is ever kept back here; a longer word is several, of
which none is looked up in a vocabulary.
"""

import re
import unicodedata
from enum import Enum, auto
from functools import lru_cache
from typing import NamedTuple

TOKEN_CHARS = 64

MARKS = "\u0300-\u036f"  # accents that stand alone: "fu\u0308nf"
HIDDEN = "\u00ad\u200b-\u200f\u2060\ufeff"  # a digit with nothing to be seen beside it is still beside the next one
_TOKEN = re.compile(
    rf"(?P<space>[\s{HIDDEN}]{{1,{TOKEN_CHARS}}})"
    rf"|(?P<digits>\d{{1,{TOKEN_CHARS}}})"
    rf"|(?P<word>(?:[^\W\d_]|[{MARKS}]){{1,{TOKEN_CHARS}}})"
    r"|(?P<punct>.)",
    re.DOTALL,
)


class Sort(Enum):
    SPACE = auto()
    DIGITS = auto()
    WORD = auto()
    PUNCT = auto()
    PIECE = auto()
    """Of a word longer than a token."""
    MARKER = auto()
    """Stands for what was redacted."""


_SORTS = {"space": Sort.SPACE, "digits": Sort.DIGITS, "word": Sort.WORD, "punct": Sort.PUNCT}


class Token(NamedTuple):
    sort: Sort
    text: str


@lru_cache(4096)
def folded(word: str) -> str:
    """Without case and accents: `Fünf` is `funf`."""
    spread = unicodedata.normalize("NFKD", word.casefold())
    return spread if spread.isascii() else "".join(c for c in spread if not unicodedata.combining(c))


def count(text: str) -> int:
    """Its tokens."""
    return len(_TOKEN.findall(text))


class Tokenizer:
    def __init__(self) -> None:
        self._rest = ""
        self._long = False

    def feed(self, text: str) -> list[Token]:
        """Those that can no longer become others."""
        text = self._rest + text
        tokens, at = self._tokens(text, len(text))
        self._rest = text[at:]
        return tokens

    def end(self) -> list[Token]:
        rest, self._rest = self._rest, ""
        tokens, _ = self._tokens(rest, len(rest) + 1)
        self._long = False
        return tokens

    def _tokens(self, text: str, size: int) -> tuple[list[Token], int]:
        """`size`: where more text may follow. And where they end."""
        tokens, at, long = [], 0, self._long
        for found in _TOKEN.finditer(text):
            end, sort = found.end(), _SORTS[found.lastgroup or "punct"]
            whole = end < size or sort is Sort.PUNCT or end - at == TOKEN_CHARS
            if not whole:
                break
            if sort is Sort.WORD:
                piece, long = long or end - at == TOKEN_CHARS, end - at == TOKEN_CHARS
                sort = Sort.PIECE if piece else sort
            else:
                long = False
            tokens.append(Token(sort, found[0]))
            at = end
        self._long = long
        return tokens, at
