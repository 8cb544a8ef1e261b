"""The playout ledger: which words lie where on a call's outgoing timeline.

Positions are milliseconds since the first audio of the call's out lane; a position, once given, never means other
audio. A word counts as heard when all of it was: its end is at or before the heard position.
"""

from collections.abc import Sequence

from trunkline.ports import Word

# Without word times from the voice, a word is counted this much later than an even spread would say.
ESTIMATE_MARGIN_MS = 300


class Ledger:
    def __init__(self) -> None:
        self._words: list[Word] = []
        self._estimated_until_ms = -1

    def add(self, words: Sequence[Word], offset_ms: int) -> None:
        """Words of audio that begins at `offset_ms` on the timeline, in order."""
        self._words.extend(Word(w.text, w.start_ms + offset_ms, w.end_ms + offset_ms) for w in words)

    def add_estimate(self, text: str, start_ms: int, end_ms: int) -> None:
        """A phrase whose voice gives no word times: spread by letters over its audio, and counted late. In place of
        what was estimated of it before."""
        self._forget_from(start_ms)
        words = text.split()
        letters = sum(len(w) + 1 for w in words)
        at = float(start_ms)
        for word in words:
            end = at + (end_ms - start_ms) * (len(word) + 1) / letters
            self._words.append(Word(word, int(at), min(int(end) + ESTIMATE_MARGIN_MS, end_ms)))
            at = end
        self._estimated_until_ms = end_ms

    def estimate_so_far(self, text: str, start_ms: int, end_ms: int, ms_a_letter: float) -> None:
        """The same of a phrase whose audio is still coming, up to here, at this pace."""
        self._forget_from(start_ms)
        at = float(start_ms)
        for word in text.split():
            end = at + (len(word) + 1) * ms_a_letter
            if end + ESTIMATE_MARGIN_MS > end_ms:
                break
            self._words.append(Word(word, int(at), int(end) + ESTIMATE_MARGIN_MS))
            at = end
        self._estimated_until_ms = end_ms

    def _forget_from(self, start_ms: int) -> None:
        while self._words and self._words[-1].start_ms >= start_ms:
            self._words.pop()

    def exact(self, start_ms: int) -> bool:
        """Whether every word from `start_ms` on has a time given by the voice."""
        return self._estimated_until_ms <= start_ms

    def text(self, start_ms: int, heard_ms: float) -> str:
        """The words wholly heard between the two positions."""
        return " ".join(w.text for w in self._words if w.start_ms >= start_ms and w.end_ms <= heard_ms)

    def word_at(self, position_ms: float) -> Word | None:
        """The word being spoken at this position, None between words."""
        for word in reversed(self._words):
            if word.start_ms < position_ms < word.end_ms:
                return word
            if word.end_ms <= position_ms:
                return None
        return None

    def cut(self, position_ms: float) -> None:
        """Nothing after this position will be said: forget its words."""
        while self._words and self._words[-1].end_ms > position_ms:
            self._words.pop()

    def forget(self, before_ms: float) -> None:
        """Words that end before this position are in the conversation by now."""
        keep = next((i for i, w in enumerate(self._words) if w.end_ms > before_ms), len(self._words))
        del self._words[:keep]
