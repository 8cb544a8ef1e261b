"""The tolerant match, for typed text and for recognisers that write what they like: the phrase whose words are nearest.

A word counts by how few intents use it; words of mere grammar count little. A best phrase that is not near enough, or
no nearer than another intent's, is no match: asking again costs a sentence, a wrong transfer costs a caller.
"""

# ruff: noqa: SIM905 - word lists read best as words
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from trunkline.agents.script.phrases import Match, Node, Slot, Vocabulary, Word, expansions, slot_names

M = TypeVar("M")

NEAR_ENOUGH = 0.62
AHEAD = 0.08  # of the best other intent
_WAYS = 64  # ways of saying one phrase that are looked at
_FILLER_WEIGHT = 0.15
_FOREIGN_WEIGHT = 0.6  # a word of no phrase: the more of them, the more likely the caller speaks of something else
_FILLERS = frozenset(
    "a an and are at be can could do does for have hello hey hi i i'd i'm i'll in is it just like me my of oh okay on "
    "please so some thank thanks that the there this to uh um want was well will with would yeah yes you your".split()
)
_NEGATIONS = frozenset("not no never don't doesn't didn't won't can't cannot isn't without cancel nothing".split())


class Overlap(Generic[M]):
    def __init__(
        self,
        meanings: Sequence[tuple[str, tuple[Node, ...]]],
        vocabularies: Mapping[str, Vocabulary],
        make: Callable[[str, dict[str, str]], M],
    ) -> None:
        self.vocabularies, self.make = vocabularies, make
        marks = {name: Vocabulary({name: (Word(f"{{{name}}}"),)}) for name in vocabularies}
        self.ways: list[tuple[str, frozenset[str], frozenset[str]]] = []
        """Intent, the words of one way of saying it (a slot is the word `{name}`), the slots in it."""
        seen: dict[str, set[str]] = {}
        for intent, nodes in meanings:
            for node in nodes:
                for said, _ in expansions(node, marks, _WAYS):
                    self.ways.append((intent, frozenset(said), slot_names(node)))
                    for word in said:
                        seen.setdefault(word, set()).add(intent)
        self.weights = {
            word: _FILLER_WEIGHT if word in _FILLERS else 1 / (1 + math.log(len(intents)))
            for word, intents in seen.items()
        }

    def nearest(self, tokens: Sequence[str]) -> M | None:
        if not tokens:
            return None
        best: dict[str, tuple[float, dict[str, str]]] = {}
        read: dict[frozenset[str], tuple[frozenset[str], dict[str, str]]] = {}
        for intent, way, slots in self.ways:
            if slots not in read:
                read[slots] = self._with_slots(tokens, slots)
            said, held = read[slots]
            score = self._score(said, way)
            if score > best.get(intent, (0.0, {}))[0]:
                best[intent] = score, {name: value for name, value in held.items() if f"{{{name}}}" in way}
        ranked = sorted(best.items(), key=lambda each: -each[1][0])
        if not ranked or ranked[0][1][0] < NEAR_ENOUGH:
            return None
        if len(ranked) > 1 and ranked[0][1][0] - ranked[1][1][0] < AHEAD:
            return None
        intent, (_, held) = ranked[0]
        return self.make(intent, held)

    def _score(self, said: frozenset[str], way: frozenset[str]) -> float:
        """How much of the phrase was said, and how little else: 0 to 1."""
        if _NEGATIONS & (said ^ way):
            return 0.0
        shared = sum(self.weights[word] for word in said & way)
        whole = sum(self.weights[word] for word in way)
        if not any(word in way and word not in _FILLERS for word in said):
            return 0.0
        all_said = sum(_FILLER_WEIGHT if word in _FILLERS else self.weights.get(word, _FOREIGN_WEIGHT) for word in said)
        recall, precision = shared / whole, shared / all_said
        return 5 * recall * precision / (recall + 4 * precision) if shared else 0.0  # F2: what was meant weighs more

    def _with_slots(self, tokens: Sequence[str], slots: frozenset[str]) -> tuple[frozenset[str], dict[str, str]]:
        """The words with every slot value found replaced by `{name}`, the longest first to be found."""
        said: list[str] = []
        held: dict[str, str] = {}
        at = 0
        while at < len(tokens):
            name, value, length = self._slot_at(tokens[at:], slots)
            if length:
                held.setdefault(name, value)
                said.append(f"{{{name}}}")
            else:
                said.append(tokens[at])
            at += length or 1
        return frozenset(said), held

    def _slot_at(self, tokens: Sequence[str], slots: frozenset[str]) -> tuple[str, str, int]:
        found = ("", "", 0)
        for name in sorted(slots & self.vocabularies.keys()):
            for length, value in Match(tokens, self.vocabularies).starts(Slot(name)):
                if length > found[2]:
                    found = name, value[name], length
        return found
