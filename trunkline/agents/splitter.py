"""Text from a model, delta by delta, into phrases for a voice: at sentence ends, and at a comma where the first phrase
is long enough to be spoken while the rest is still being written.

A sentence end counts when what follows it is there (a space), so "3." may still become "3.5". Scripts that write no
spaces have full stops of their own.
"""

import re

FIRST_PHRASE_CHARS = 24
MAX_PHRASE_CHARS = 240  # a voice's latency grows with its phrase

_SENTENCE_END = re.compile(r"""[.!?:;\u2026\u0964\u061f]+["')\]\u2019\u201d\u00bb]*(?=\s)|[\u3002\uff01\uff1f]+|\n+""")
_CLAUSE_END = re.compile(r"[,\u2014\u060c](?=\s)|[\u3001\uff0c]")
_NO_SENTENCE_END = re.compile(
    r"(?:^|[\s(])(?:Dr|Mr|Mrs|Ms|St|Prof|Jr|Sr|vs|ext|approx|(?:[a-z]\.)*[a-z])\.$"  # Dr. and 10:30 a.m.
    r"|(?:^|\n)\s*\d{1,2}\.$",  # 1. of a list
    re.IGNORECASE,
)


class PhraseSplitter:
    def __init__(self) -> None:
        self._text = ""
        self._any = False

    def feed(self, delta: str) -> list[str]:
        """The phrases that are complete now."""
        self._text += delta
        phrases: list[str] = []
        while (end := self._end_of_phrase()) is not None:
            phrase, self._text = self._text[:end].strip(), self._text[end:]
            if phrase:
                phrases.append(phrase)
                self._any = True
        return phrases

    def flush(self) -> list[str]:
        """The rest, when the model has finished."""
        rest, self._text = self._text.strip(), ""
        return [rest] if rest else []

    def _end_of_phrase(self) -> int | None:
        text = self._text
        sentence = next((m.end() for m in _SENTENCE_END.finditer(text) if self._ends(m.end())), None)
        if not self._any:
            clause = next((m.end() for m in _CLAUSE_END.finditer(text) if m.end() >= FIRST_PHRASE_CHARS), None)
            if clause is not None and (sentence is None or clause < sentence):
                return clause
        if sentence is not None and sentence <= MAX_PHRASE_CHARS:
            return sentence
        return self._within_limit() if len(text) > MAX_PHRASE_CHARS else None

    def _ends(self, end: int) -> bool:
        return not _NO_SENTENCE_END.search(self._text, 0, end)

    def _within_limit(self) -> int:
        """The last clause that fits, else the last word."""
        clauses = [m.end() for m in _CLAUSE_END.finditer(self._text, 0, MAX_PHRASE_CHARS)]
        if clauses:
            return clauses[-1]
        space = self._text.rfind(" ", 0, MAX_PHRASE_CHARS)
        return space if space > 0 else MAX_PHRASE_CHARS
