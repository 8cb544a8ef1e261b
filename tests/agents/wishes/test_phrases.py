"""What counts as a wish, measured on the table of `utterances.toml`: recall of what is meant, and what is not."""

import tomllib
from pathlib import Path

import pytest

from trunkline.agents.wishes.phrases import LANGUAGES, wish_of

TABLE = tomllib.loads((Path(__file__).parent / "utterances.toml").read_text(encoding="utf-8"))
MEANT = {"stop": "do_not_call", "keep": "keep_nothing", "none": None}
CASES = [
    (language, text, MEANT[meant])
    for language, kinds in TABLE.items()
    for meant, lines in kinds.items()
    for text in lines.strip().splitlines()
]


def kind_of(text: str, language: str) -> str | None:
    wish = wish_of(text, language)
    return None if wish is None else wish.kind


def test_the_table_is_large_enough_to_measure_with() -> None:
    assert len(CASES) >= 150
    assert {language for language, *_ in CASES} == set(LANGUAGES)
    assert len({(language, text) for language, text, _ in CASES}) == len(CASES)


@pytest.mark.parametrize(("language", "text", "meant"), CASES)
def test_each_utterance_is_what_it_was_meant_as(language: str, text: str, meant: str | None) -> None:
    assert kind_of(text, language) == meant
