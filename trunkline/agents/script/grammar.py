"""What may be heard at a moment of the call: the recogniser's JSGF, and the way back from words to what was meant.

`grammars(definition)` are named `main` (all intents), `yes_no`, `slot_NAME` (a slot is asked for) and `digits_NAME` (a
number that may be spoken is asked for). Intents marked `anywhere`, repeat and goodbye are in all of them.
"""

# ruff: noqa: SIM905 - word lists read best as words
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from trunkline.agents.definition import AgentDefinition
from trunkline.agents.script.model import DigitsEntry, Intent, Phrase, Script
from trunkline.agents.script.overlap import Overlap
from trunkline.agents.script.phrases import (
    Match,
    Maybe,
    Node,
    Series,
    Slot,
    Slots,
    Vocabulary,
    Word,
    jsgf,
    node_words,
    slot_names,
    slot_rule,
)
from trunkline.agents.script.words import spoken_digits, words

MAIN, YES_NO = "main", "yes_no"
YES, NO, DIGITS, SLOT = "=yes", "=no", "=digits", "=slot"
"""Meanings that are no intent of the file; `=` cannot be part of an intent's name."""

Meanings = tuple[tuple[str, tuple[Node, ...]], ...]
"""Phrases by what they mean."""

_DIGIT_RULE = "<digit> = zero | oh | one | two | three | four | five | six | seven | eight | nine;"
_DIGIT_LEAD = "[it's | it is | my number is | the number is]"
_DIGIT_WORDS = frozenset("zero oh one two three four five six seven eight nine it's it is my number the".split())


@dataclass(frozen=True, slots=True)
class Meaning:
    intent: str
    """An intent of the file, `repeat`, `goodbye`, or YES, NO, DIGITS, SLOT."""
    slots: Slots = field(default_factory=dict)
    """Values by slot; the digits themselves under `digits`."""


@dataclass(frozen=True)
class Grammar:
    name: str
    meanings: Meanings
    vocabularies: Mapping[str, Vocabulary] = field(default_factory=dict)
    digits_min: int = 0
    digits_max: int = 0
    """> 0: strings of digits are in the grammar."""

    @cached_property
    def jsgf(self) -> str:
        """The grammar for PocketSphinx: one public rule, named as the grammar."""
        rules, tops = [], []
        used = frozenset[str]()
        for at, (_, nodes) in enumerate(self.meanings):
            rules.append(f"<m{at}> = {' | '.join(jsgf(node) for node in nodes)};")
            tops.append(f"<m{at}>")
            used |= frozenset[str]().union(*(slot_names(node) for node in nodes))
        rules += [slot_rule(name, self.vocabularies[name]) for name in sorted(used)]
        if self.digits_max:
            rules += [_DIGIT_RULE, f"<number> = {_DIGIT_LEAD} {_digit_string(self.digits_min, self.digits_max)};"]
            tops.append("<number>")
        return "\n".join(
            ["#JSGF V1.0;", f"grammar {self.name};", f"public <{self.name}> = {' | '.join(tops)};", *rules, ""]
        )

    @cached_property
    def words(self) -> frozenset[str]:
        """Every word the grammar can hear."""
        said = [node_words(node) for _, nodes in self.meanings for node in nodes]
        said += [node_words(node) for v in self.vocabularies.values() for nodes in v.values.values() for node in nodes]
        return frozenset[str]().union(*said) | (_DIGIT_WORDS if self.digits_max else frozenset())

    def parse(self, text: str) -> Meaning | None:
        """What `text` means if it is exactly a phrase of the grammar; in doubt, the first in the file's order."""
        return self._read(text)[0]

    def complete(self, text: str) -> bool:
        """`text` is a whole phrase, and nothing that could still follow would make it mean something else."""
        meaning, open_ended = self._read(text)
        return meaning is not None and not open_ended

    def understand(self, text: str) -> Meaning | None:
        """`parse`, and failing that the intent whose phrases are clearly nearest; None if none is near enough."""
        return self.parse(text) or self._overlap.nearest(words(text))

    def opening(self, text: str, intents: tuple[str, ...]) -> Meaning | None:
        """Which of `intents` the words begin with."""
        tokens = words(text)
        for intent, nodes in self.meanings:
            for node in nodes if intent in intents else ():
                if any(length for length, _ in Match(tokens, self.vocabularies).starts(node)):
                    return Meaning(intent)
        return None

    def _read(self, text: str) -> tuple[Meaning | None, bool]:
        tokens = words(text)
        if not tokens:
            return None, False
        found: Meaning | None = None
        may_become: set[str] = set()
        for intent, nodes in self.meanings:
            for node in nodes:
                match = Match(tokens, self.vocabularies)
                slots = match.whole(node)
                if slots is not None and found is None:
                    found = Meaning(intent, slots)
                if match.hungry:
                    may_become.add(intent)
        digits = spoken_digits(text) if self.digits_max else None
        if digits is not None and self.digits_min <= len(digits) <= self.digits_max and found is None:
            return Meaning(DIGITS, {"digits": digits}), len(digits) < self.digits_max
        return found, found is not None and bool(may_become - {found.intent})

    @cached_property
    def _overlap(self) -> "Overlap[Meaning]":
        return Overlap(self.meanings, self.vocabularies, Meaning)


def grammars(definition: AgentDefinition) -> dict[str, Grammar]:
    """Raises ConfigError for a script that `check` would refuse."""
    return script_grammars(Script.of(definition))


def script_grammars(script: Script) -> dict[str, Grammar]:
    vocabularies = script.vocabularies
    anywhere = _meanings(intent for intent in script.intents if intent.anywhere)
    found = [
        Grammar(MAIN, _meanings(script.intents), vocabularies),
        Grammar(YES_NO, ((YES, _nodes(script.yes)), (NO, _nodes(script.no)), *anywhere), vocabularies),
    ]
    for slot in script.slots.values():
        if slot.prompt is not None:
            found.append(_slot_grammar(slot.name, anywhere, vocabularies))
    found += [
        Grammar(digits_grammar(entry.name), anywhere, vocabularies, entry.min, entry.max)
        for entry in script.digits.values()
        if entry.spoken
    ]
    return {grammar.name: grammar for grammar in found}


def digits_grammar(name: str) -> str:
    return f"digits_{name}"


def slot_grammar(name: str) -> str:
    return f"slot_{name}"


def expected_grammar(entry: DigitsEntry) -> str:
    """A number that may only be keyed leaves the ears open for all intents."""
    return digits_grammar(entry.name) if entry.spoken else MAIN


def _slot_grammar(name: str, anywhere: Meanings, vocabularies: Mapping[str, Vocabulary]) -> Grammar:
    asked = Series((Slot(name), Maybe(Word("please"))))
    return Grammar(slot_grammar(name), ((SLOT, (asked,)), *anywhere), vocabularies)


def _meanings(intents: Iterable[Intent]) -> Meanings:
    return tuple((intent.name, _nodes(intent.phrases)) for intent in intents if intent.phrases)


def _nodes(phrases: Sequence[Phrase]) -> tuple[Node, ...]:
    return tuple(phrase.node for phrase in phrases)


def _digit_string(low: int, high: int) -> str:
    """`low` to `high` digits: the surplus in nested brackets."""
    return " ".join(["<digit>"] * low) + " [<digit>" * (high - low) + "]" * (high - low)
