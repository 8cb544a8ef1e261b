"""Names as they stream: those that are known, and those that somebody gives as theirs ("my name is ...").

A name that was given is known from then on, in this call, whoever says it.
"""

from collections.abc import Callable, Iterable

from trunkline.privacy.spoken import INTRODUCTIONS, NO_NAMES
from trunkline.privacy.tokens import Sort, Token, folded

NAME_WORDS, PLAIN_WORDS = 4, 2
"""At most, after an introduction; and of those without a capital, as some recognisers write them."""
KNOWN = 256

Out = Callable[[Token], None]


class Known:
    """The names of one call, folded."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._words = {folded(word) for name in names for word in name.replace("-", " ").split() if len(word) > 1}

    def add(self, word: str) -> None:
        if len(word) > 2 and len(self._words) < KNOWN:
            self._words.add(folded(word))

    def __contains__(self, word: str) -> bool:
        return folded(word) in self._words

    def __len__(self) -> int:
        return len(self._words)

    def isdisjoint(self, folded_words: Iterable[str]) -> bool:
        return self._words.isdisjoint(folded_words)

    @property
    def words(self) -> frozenset[str]:
        return frozenset(self._words)

    def restore(self, words: frozenset[str]) -> None:
        self._words = set(words)

    def learn(self, names: Iterable[str]) -> None:
        self._words |= Known(names)._words

    def copy(self) -> "Known":
        other = Known()
        other._words = set(self._words)
        return other


class Names:
    """take... -> end. Keeps nothing back: each word is judged by those before it."""

    def __init__(self, known: Known, out: Out) -> None:
        self._known, self._out = known, out
        self._last: list[str] = []
        self._names = -1  # taken since an introduction; -1: none is near

    def take(self, token: Token) -> None:
        if token.sort is not Sort.WORD:
            if (token.sort is Sort.PUNCT and token.text in ".,;:!?" and self._names > 0) or token.sort in (
                Sort.DIGITS,
                Sort.MARKER,
                Sort.PIECE,
            ):
                self._names = -1
            self._out(token)
            return
        word = token.text
        if self._is_name(word):
            self._last.clear()
            self._known.add(word)
            self._out(Token(Sort.MARKER, "[name]"))
            return
        self._out(token)
        self._last = [*self._last, folded(word)][-3:]
        if any(tuple(self._last[-len(words) :]) == words for words in INTRODUCTIONS):
            self._names = 0

    def end(self) -> None:
        self._last.clear()
        self._names = -1

    def _is_name(self, word: str) -> bool:
        if self._names >= 0:
            common = folded(word) in NO_NAMES
            capital = word[0].isupper()
            if self._names == 0 and common and not capital:
                return False  # "my name is uh"
            if not common and self._names < (NAME_WORDS if capital else PLAIN_WORDS):
                self._names += 1
                return True
            self._names = -1
        return word in self._known
