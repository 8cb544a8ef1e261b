"""Wishes as the local recogniser's grammar knows them."""

from collections.abc import Mapping
from dataclasses import replace

from trunkline.agents.script.grammar import Grammar, Meanings
from trunkline.agents.wishes.phrases import spoken

WISHES = "wishes"


def meanings() -> Meanings:
    return tuple((f"={kind}", nodes) for kind, nodes in spoken().items())


def with_wishes(grammars: Mapping[str, Grammar]) -> dict[str, Grammar]:
    """They may be said at any moment."""
    return {name: replace(grammar, meanings=(*grammar.meanings, *meanings())) for name, grammar in grammars.items()}
