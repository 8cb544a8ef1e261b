"""Text from a model, delta by delta, into phrases for a voice: at sentence ends, and at commas where the first phrase
is long enough to be spoken while the rest is still being written."""

import re

FIRST_PHRASE_CHARS = 24
MAX_PHRASE_CHARS = 240  # a voice's latency grows with its phrase

_SENTENCE_END = re.compile(r"[.!?:;\u2026]+[\"')\]]*(?=\s)|\n+")
_CLAUSE_END = re.compile(r"[,\u2014](?=\s)")
_ABBREVIATION = re.compile(r"(?:^|\s)(?:Dr|Mr|Mrs|Ms|St|No|Prof|e\.g|i\.e|[A-Za-z])\.$", re.IGNORECASE)


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
        for match in _SENTENCE_END.finditer(self._text):
            if not _ABBREVIATION.search(self._text[: match.end()]):
                return match.end()
        if not self._any:
            for match in _CLAUSE_END.finditer(self._text):
                if match.end() >= FIRST_PHRASE_CHARS:
                    return match.end()
        if len(self._text) > MAX_PHRASE_CHARS:
            space = self._text.rfind(" ", 0, MAX_PHRASE_CHARS)
            return space if space > 0 else MAX_PHRASE_CHARS
        return None
