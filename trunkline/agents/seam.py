"""Where one provider's part of an answer ends and the next one's begins: no word twice, none lost. Plain text.

A model that broke off is followed from the last *whole phrase* that was given to the voice: the words behind it were
never spoken, and a new model writes a better end to a whole sentence than to half of one. It is told what was said and
asked for the rest (GO_ON). Some begin again all the same; `Seam` drops what repeats the answer or its last sentences.

A voice that broke off is followed from the first word that was not wholly spoken.
"""

import re
from collections.abc import Sequence

from trunkline.media.ledger import ESTIMATE_MARGIN_MS
from trunkline.ports import Word

GO_ON = (
    "(Your answer was interrupted by a technical fault after the words above; the caller has heard them. Continue with "
    "exactly what comes next. Do not repeat, greet, apologise or mention the fault.)"
)
"""As if the caller had said it: so every model understands it, of any provider."""

MS_A_LETTER = 65.0
"""Of a voice that was never measured: about 150 words a minute."""
_REPEATED_WORDS = 3
"""Fewer that are the same are chance."""
_SENTENCE_ENDS = (".", "!", "?", ":", ";", "\u2026")
_WORD = re.compile(r"\S+\s*")


class Seam:
    """What a second model writes, less what the first one has said already."""

    def __init__(self, said: str) -> None:
        self._said = [_plain(word) for word in said.split()]
        self._starts = _sentence_starts(said.split())
        self._held = ""
        self._open = bool(self._said)

    def feed(self, delta: str) -> str:
        """What of it is new. Held back while it may yet be a repetition."""
        if not self._open:
            return delta
        self._held += delta
        words = _WORD.findall(self._held)
        whole = len(words) - (0 if self._held[-1:].isspace() else 1)  # the last may still grow
        written = [_plain(word) for word in words[:whole]]
        for start in self._starts:
            before = self._said[start:]
            if (
                len(written) >= len(before) >= min(_REPEATED_WORDS, len(self._said))
                and written[: len(before)] == before
            ):
                self._held, self._open = "", False
                return "".join(words[len(before) :])
        if any(self._said[start:][: len(written)] == written for start in self._starts):
            return ""
        return self.flush()

    def flush(self) -> str:
        """The model has finished."""
        held, self._held, self._open = self._held, "", False
        repeated = [_plain(word) for word in held.split()]
        return "" if repeated and any(self._said[start:] == repeated for start in self._starts) else held


def _plain(word: str) -> str:
    return word.strip().strip(".,!?:;\u2026\"'").lower()


def _sentence_starts(words: Sequence[str]) -> list[int]:
    return [0, *(at + 1 for at, word in enumerate(words[:-1]) if word.rstrip("\"')").endswith(_SENTENCE_ENDS))]


def spoken_of(text: str, words: Sequence[Word]) -> int:
    """How many words of `text` a voice has wholly spoken whose word times so far are these."""
    wanted, at = text.split(), 0
    for word in words:
        token = _plain(word.text)
        if at < len(wanted) and token == _plain(wanted[at]):
            at += 1
        elif (
            ahead := next((i for i in range(at, min(at + 3, len(wanted))) if _plain(wanted[i]) == token), None)
        ) is not None:
            at = ahead + 1  # it skips what has no sound
    return at


def spoken_by_estimate(text: str, given_ms: float, ms_a_letter: float) -> tuple[int, int]:
    """How many words of it lie in its first `given_ms`, counted late, and where the last of them ends (ms)."""
    at, until, count = 0.0, 0.0, 0
    for word in text.split():
        at += (len(word) + 1) * ms_a_letter
        if at + ESTIMATE_MARGIN_MS > given_ms:
            break
        count, until = count + 1, at
    return count, round(until)
