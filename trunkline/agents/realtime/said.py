"""What is said on a call with a realtime model, while anything of it is still to come. Plain values.

An utterance is the caller's: its audio is there first, its place in the model's conversation next, its words last, or
never. An item is what the model speaks: its words come ahead of its audio, without times, so where they lie is an
estimate.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from trunkline.agents.exchange import Exchange, Phrase, Written
from trunkline.media.ledger import Ledger

SPOKEN = "(speech)"
"""For the turn machine: words that nobody has written down yet."""
KEPT_AUDIO_MS = 30_000  # of an utterance, should the session break before it is answered
UTTERANCES = 16
LETTER_MS = 65  # of an item whose audio is still coming


@dataclass(slots=True)
class Utterance:
    """What the caller said once."""

    name: str
    audio: bytearray = field(default_factory=bytearray)
    """Kept until it is answered."""
    item: str = ""
    text: str = ""
    transcribed: bool = False
    known: bool = False
    """The live session has heard it, or was told."""
    awaits_words: bool = False
    """The turn machine has no final of it yet."""
    message_at: int | None = None
    """Where it stands in the conversation."""
    turn: Exchange | None = None


class Words(str):
    """An utterance as the turn machine carries it."""

    utterance: Utterance

    @staticmethod
    def of(utterance: Utterance, text: str) -> "Words":
        words = Words(text)
        words.utterance = utterance
        return words


class Utterances:
    """Those of a call of which anything is awaited: at most UTTERANCES, the oldest is let go."""

    def __init__(self, bytes_per_ms: int) -> None:
        self.heard: Utterance | None = None
        """That is being heard."""
        self._kept_bytes = KEPT_AUDIO_MS * bytes_per_ms
        self._count = 0
        self._by_name: dict[str, Utterance] = {}

    def __iter__(self) -> Iterator[Utterance]:
        return iter(tuple(self._by_name.values()))

    def hear(self, audio: bytes) -> None:
        if self.heard is None:
            self.heard = self._new()
        if len(self.heard.audio) < self._kept_bytes:
            self.heard.audio += audio

    def over(self) -> Utterance:
        """What was heard is one, whatever comes of it."""
        utterance, self.heard = self.heard or self._new(), None
        self._by_name[utterance.name] = utterance
        if len(self._by_name) > UTTERANCES:  # a transcriber that never answers
            del self._by_name[next(iter(self._by_name))]
        return utterance

    def named(self, name: str) -> Utterance | None:
        return self._by_name.get(name)

    def of(self, item: str) -> Utterance | None:
        return next((each for each in self._by_name.values() if each.item == item), None)

    def forget(self, utterance: Utterance) -> None:
        """Nothing more of it is awaited."""
        self._by_name.pop(utterance.name, None)

    @property
    def words_are_awaited(self) -> bool:
        return any(utterance.awaits_words for utterance in self._by_name.values())

    def answered(self) -> None:
        """Nobody needs a second hearing of what is in the conversation."""
        for utterance in self._by_name.values():
            if utterance.message_at is not None:
                utterance.audio.clear()

    @property
    def unwritten(self) -> bytes:
        """The audio of those that nobody has answered or put into words, in their order."""
        return b"".join(bytes(utterance.audio) for utterance in self._by_name.values() if not utterance.transcribed)

    def clear(self) -> None:
        self.heard = None
        self._by_name.clear()

    def _new(self) -> Utterance:
        self._count += 1
        return Utterance(str(self._count))


@dataclass(slots=True)
class Item:
    """A message of the model, as it is spoken."""

    id: str
    bytes_per_ms: int
    written: Written = field(default_factory=Written)
    start_ms: int | None = None
    """On the timeline; None before its first audio."""
    audio_bytes: int = 0
    ended: bool = False
    """All of its audio has come."""

    @property
    def audio_ms(self) -> int:
        return self.audio_bytes // self.bytes_per_ms

    @property
    def end_ms(self) -> int:
        """Of what has come of its audio."""
        assert self.start_ms is not None
        return self.start_ms + self.audio_ms

    def begin(self, start_ms: int) -> None:
        self.start_ms = start_ms
        self.written.phrases.append(Phrase(self.written.text, start_ms))

    def unheard_from(self, heard_ms: int) -> int | None:
        """Where in it the caller stopped hearing; None where all of it was heard, or none was ever sent."""
        if self.start_ms is None or heard_ms >= self.end_ms:
            return None
        return max(0, heard_ms - self.start_ms)

    def whole(self, ledger: Ledger) -> None:
        """All of its audio and words have come. Idempotent."""
        phrase = self._open_phrase()
        if phrase is not None:
            phrase.end_ms = self.end_ms
            self._estimate(phrase, phrase.end_ms, ledger)

    def cut(self, ledger: Ledger) -> None:
        """Some may be to come: the words are ahead of the audio."""
        phrase, text = self._open_phrase(), self.written.text.strip()
        if phrase is not None and text:
            self._estimate(phrase, max(self.end_ms, phrase.start_ms + len(text) * LETTER_MS), ledger)

    def break_off(self, ledger: Ledger) -> None:
        """No more of it comes: it is the words whose audio is there."""
        if self.ended:
            self.whole(ledger)
            return
        self.cut(ledger)
        phrase = self._open_phrase()
        if phrase is None:
            self.written.text = self.written.text if self.start_ms is not None else ""
            return
        phrase.end_ms = self.end_ms
        phrase.text = self.written.text = ledger.text(phrase.start_ms, phrase.end_ms)
        ledger.cut(phrase.end_ms)

    def _open_phrase(self) -> Phrase | None:
        phrases = self.written.phrases
        return phrases[0] if phrases and phrases[0].end_ms is None else None

    def _estimate(self, phrase: Phrase, end_ms: int, ledger: Ledger) -> None:
        phrase.text = self.written.text.strip()
        if phrase.text:
            ledger.add_estimate(phrase.text, phrase.start_ms, end_ms)
