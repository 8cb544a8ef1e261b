"""Words that are a turn, and words that are not yet one."""

import asyncio

import pytest

from trunkline.agents.endofturn import FINISHED, OPEN, SURE, UNFINISHED, RuleTurnDetector, end_of_turn


@pytest.mark.parametrize("text", ["yes", "No.", "that's all", "okay thanks", "What time do you open?", "yes please"])
def test_whole(text: str) -> None:
    assert end_of_turn(text) == SURE


@pytest.mark.parametrize(
    "text", ["I'd like to", "my number is", "on Monday or", "well um", "I want an appointment,", "and I'll", "it’s"]
)
def test_going_on(text: str) -> None:
    assert end_of_turn(text) == UNFINISHED


def test_likely_and_open() -> None:
    assert end_of_turn("I need an appointment on Monday") == FINISHED
    assert end_of_turn("the clinic") == OPEN
    assert end_of_turn(" ... ") == 0.0


def test_of_another_language_it_knows_nothing() -> None:
    async def ask(text: str) -> float:
        return await RuleTurnDetector().probability(text, "de-DE")

    assert asyncio.run(ask("ja")) == OPEN
    assert asyncio.run(ask("")) == 0.0
