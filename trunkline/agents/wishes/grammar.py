"""Wishes as the local recogniser's grammar knows them."""

from collections.abc import Mapping
from dataclasses import replace

from trunkline.agents.script.grammar import Grammar, Meanings
from trunkline.agents.wishes.phrases import spoken, wish_of

WISHES = "wishes"
MIN_SCORE, SHORT_MIN_SCORE = -16.5, -14.5
"""Of a whole utterance that is taken for a wish (local/ears.Heard), and of one of fewer than LONG_WORDS. It ends the
call, so it must fit better than a phrase of the script; a few words fit other speech more easily ("lima": "delete my
number"). Measured by bench/wishes.py."""
LONG_WORDS = 5


def meanings() -> Meanings:
    return tuple((f"={kind}", nodes) for kind, nodes in spoken().items())


def fits(text: str, score: float | None) -> bool:
    """As a wish."""
    return score is not None and score >= (MIN_SCORE if len(text.split()) >= LONG_WORDS else SHORT_MIN_SCORE)


def doubtful(text: str, score: float | None) -> bool:
    """A wish that fits too badly to be one."""
    return not fits(text, score) and wish_of(text) is not None


def with_wishes(grammars: Mapping[str, Grammar]) -> dict[str, Grammar]:
    """They may be said at any moment."""
    return {name: replace(grammar, meanings=(*grammar.meanings, *meanings())) for name, grammar in grammars.items()}
