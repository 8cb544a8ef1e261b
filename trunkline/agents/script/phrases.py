"""Example phrases as written in the file: `[please] (book | make) an appointment for {day}`.

One syntax tree serves all uses, so they cannot drift apart: the JSGF rule for the recogniser, the match that turns
words back into slots, and the expansions that the tolerant match and the tests take.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product

from trunkline.agents.script.words import words

MAX_DEPTH = 8  # brackets in brackets; a phrase that needs more is several phrases
MAX_LENGTH = 400

_TOKEN = re.compile(r"\s*(?:(?P<mark>[()\[\]|])|\{\s*(?P<slot>[^{}]*?)\s*\}|(?P<text>[^()\[\]|{}]+)|(?P<bad>[{}]))")


class PhraseError(ValueError):
    """What is wrong with a phrase, in the admin's words."""


@dataclass(frozen=True, slots=True)
class Word:
    text: str


@dataclass(frozen=True, slots=True)
class Slot:
    name: str


@dataclass(frozen=True, slots=True)
class Series:
    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Choice:
    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Maybe:
    part: "Node"


Node = Word | Slot | Series | Choice | Maybe


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a slot may hold: each value and the phrases that mean it, in the file's order."""

    values: Mapping[str, tuple[Node, ...]]


Vocabularies = Mapping[str, Vocabulary]
Slots = Mapping[str, str]


def parse_phrase(text: str) -> Node:
    """Raises PhraseError."""
    if len(text) > MAX_LENGTH:
        raise PhraseError(f"a phrase has at most {MAX_LENGTH} characters")
    tokens = [(m.lastgroup or "", m[m.lastgroup or 0].strip(), m.end()) for m in _TOKEN.finditer(text)]
    node, at = _choice(tokens, 0, 0)
    if at < len(tokens):
        raise PhraseError(f"'{tokens[at][1]}' closes nothing")
    if matches_nothing(node):
        raise PhraseError("every word is optional: the phrase would match silence")
    return node


def _choice(tokens: list[tuple[str, str, int]], at: int, depth: int) -> tuple[Node, int]:
    if depth > MAX_DEPTH:
        raise PhraseError(f"more than {MAX_DEPTH} brackets in one another")
    options: list[Node] = []
    while True:
        parts: list[Node] = []
        while at < len(tokens) and tokens[at][1] not in ("|", ")", "]"):
            node, at = _part(tokens, at, depth)
            parts += node
        if not parts:
            raise PhraseError("there are no words" if not options else "there is nothing on one side of '|'")
        options.append(parts[0] if len(parts) == 1 else Series(tuple(parts)))
        if at >= len(tokens) or tokens[at][1] != "|":
            return options[0] if len(options) == 1 else Choice(tuple(options)), at
        at += 1


def _part(tokens: list[tuple[str, str, int]], at: int, depth: int) -> tuple[list[Node], int]:
    kind, text, _ = tokens[at]
    if kind == "bad":
        raise PhraseError(f"'{text}' stands alone: a slot is written {{name}}")
    if kind == "slot":
        if not re.fullmatch(r"[a-z][a-z0-9_]*", text):
            raise PhraseError(f"{{{text}}}: a slot's name is lowercase letters, digits and _")
        return [Slot(text)], at + 1
    if kind == "text":
        return [Word(word) for word in words(text)], at + 1
    node, at = _choice(tokens, at + 1, depth + 1)
    close = ")" if text == "(" else "]"
    if at >= len(tokens) or tokens[at][1] != close:
        raise PhraseError(f"'{text}' is never closed with '{close}'")
    return [node if text == "(" else Maybe(node)], at + 1


def matches_nothing(node: Node) -> bool:
    """Whether the node also matches no words at all."""
    match node:
        case Maybe():
            return True
        case Series(parts):
            return all(matches_nothing(part) for part in parts)
        case Choice(parts):
            return any(matches_nothing(part) for part in parts)
        case _:
            return False


def slot_names(node: Node) -> frozenset[str]:
    match node:
        case Slot(name):
            return frozenset((name,))
        case Series(parts) | Choice(parts):
            return frozenset().union(*(slot_names(part) for part in parts))
        case Maybe(part):
            return slot_names(part)
        case _:
            return frozenset()


def sure_slots(node: Node) -> frozenset[str]:
    """Slots that every way of saying the phrase fills."""
    match node:
        case Slot(name):
            return frozenset((name,))
        case Series(parts):
            return frozenset().union(*(sure_slots(part) for part in parts))
        case Choice(parts):
            return frozenset.intersection(*(sure_slots(part) for part in parts))
        case _:
            return frozenset()


def node_words(node: Node) -> frozenset[str]:
    match node:
        case Word(text):
            return frozenset((text,))
        case Series(parts) | Choice(parts):
            return frozenset().union(*(node_words(part) for part in parts))
        case Maybe(part):
            return node_words(part)
        case _:
            return frozenset()


# --- the recogniser's form ------------------------------------------------------------------------------------------


def jsgf(node: Node) -> str:
    match node:
        case Word(text):
            return text
        case Slot(name):
            return f"<slot_{name}>"
        case Series(parts):
            return " ".join(jsgf(part) for part in parts)
        case Choice(parts):
            return "(" + " | ".join(jsgf(part) for part in parts) + ")"
        case Maybe(Choice() as part):
            return f"[{jsgf(part)[1:-1]}]"
        case Maybe(part):
            return f"[{jsgf(part)}]"


def slot_rule(name: str, vocabulary: Vocabulary) -> str:
    options = [jsgf(node) for nodes in vocabulary.values.values() for node in nodes]
    return f"<slot_{name}> = {' | '.join(options)};"


# --- words back into slots ------------------------------------------------------------------------------------------


class Match:
    """One attempt to read words as a phrase. `hungry`: the words ran out where the phrase could have gone on."""

    def __init__(self, tokens: Sequence[str], vocabularies: Vocabularies) -> None:
        self.tokens, self.vocabularies, self.hungry = tokens, vocabularies, False

    def whole(self, node: Node) -> Slots | None:
        """The slots, if all the words are exactly this phrase. The first way of reading them wins."""
        return self._walk(node, {0: {}}).get(len(self.tokens))

    def starts(self, node: Node) -> Iterable[tuple[int, Slots]]:
        """How many words from the first on may be this phrase, and their slots."""
        return self._walk(node, {0: {}}).items()

    def _walk(self, node: Node, starts: dict[int, Slots]) -> dict[int, Slots]:
        """From every position in `starts`, the positions after `node`. Linear in words per node, never exponential."""
        match node:
            case Word(text):
                return {at + 1: slots for at, slots in starts.items() if self._word(at) == text}
            case Series(parts):
                for part in parts:
                    if not starts:
                        break
                    starts = self._walk(part, starts)
                return starts
            case Choice(parts):
                ends: dict[int, Slots] = {}
                for part in parts:
                    for at, slots in self._walk(part, starts).items():
                        ends.setdefault(at, slots)
                return ends
            case Maybe(part):
                return {**starts, **self._walk(part, starts)}
            case Slot(name):
                return self._slot(name, starts)

    def _slot(self, name: str, starts: dict[int, Slots]) -> dict[int, Slots]:
        ends: dict[int, Slots] = {}
        vocabulary = self.vocabularies.get(name)
        for value, nodes in vocabulary.values.items() if vocabulary else ():
            for node in nodes:
                for start, slots in starts.items():
                    for at in self._walk(node, {start: {}}):
                        ends.setdefault(at, {**slots, name: value})
        return ends

    def _word(self, at: int) -> str:
        if at < len(self.tokens):
            return self.tokens[at]
        self.hungry = True
        return ""


# --- every way of saying it -----------------------------------------------------------------------------------------


def expansions(node: Node, vocabularies: Vocabularies, limit: int) -> Iterator[tuple[tuple[str, ...], Slots]]:
    """Up to `limit` ways of saying the phrase, the plainest not necessarily first."""
    return islice(_expand(node, vocabularies, limit), limit)


def _expand(node: Node, vocabularies: Vocabularies, limit: int) -> Iterator[tuple[tuple[str, ...], Slots]]:
    match node:
        case Word(text):
            yield (text,), {}
        case Slot(name):
            vocabulary = vocabularies.get(name)
            for value, nodes in vocabulary.values.items() if vocabulary else ():
                for part in nodes:
                    for said, _ in _expand(part, vocabularies, limit):
                        yield said, {name: value}
        case Choice(parts):
            for part in parts:
                yield from _expand(part, vocabularies, limit)
        case Maybe(part):
            yield (), {}
            yield from _expand(part, vocabularies, limit)
        case Series(parts):
            each = [list(islice(_expand(part, vocabularies, limit), limit)) for part in parts]
            for row in product(*each):
                slots: dict[str, str] = {}
                for _, more in row:
                    slots |= more
                yield tuple(word for said, _ in row for word in said), slots
