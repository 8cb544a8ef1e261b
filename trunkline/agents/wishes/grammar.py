"""Wishes as the local recogniser's grammar knows them."""

from collections.abc import Mapping
from dataclasses import replace

from trunkline.agents.script.grammar import Grammar, Meanings
from trunkline.agents.wishes.phrases import spoken, wish_of

WISHES = "wishes"
MIN_SCORE = -16.0
"""Of a whole utterance that is taken for a wish (local/ears.Heard): it ends the call, so it must fit better than a
phrase of the script. Of 46 sentences outside the grammar 2 were taken for one without this, at -16.4 and -18.0."""


def meanings() -> Meanings:
    return tuple((f"={kind}", nodes) for kind, nodes in spoken().items())


def doubtful(text: str, score: float | None) -> bool:
    """A wish that fits too badly to be one."""
    return (score is None or score < MIN_SCORE) and wish_of(text) is not None


def with_wishes(grammars: Mapping[str, Grammar]) -> dict[str, Grammar]:
    """They may be said at any moment."""
    return {name: replace(grammar, meanings=(*grammar.meanings, *meanings())) for name, grammar in grammars.items()}
