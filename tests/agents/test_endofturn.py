"""Words that are a turn, and words that are not yet one."""

import asyncio

import pytest

from trunkline.agents.endofturn import FINISHED, OPEN, SURE, UNFINISHED, RuleTurnDetector, end_of_turn
from trunkline.errors import ConfigError


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


@pytest.mark.parametrize(
    "text",
    ["yes it is", "who is this for", "I think so", "how are you", "can I talk to you", "he is in", "what is it about"],
)
def test_what_often_goes_on_and_may_be_all_is_open(text: str) -> None:
    assert end_of_turn(text) == OPEN


@pytest.mark.parametrize("text", ["my date of birth is", "the appointment was", "I'd really like", "I want"])
def test_a_verb_whose_object_is_to_come(text: str) -> None:
    assert end_of_turn(text) == UNFINISHED


def test_it_takes_no_options() -> None:
    with pytest.raises(ConfigError, match="threshold"):
        RuleTurnDetector(options={"threshold": 0.5})


def test_of_another_language_it_knows_nothing() -> None:
    async def ask(text: str) -> float:
        return await RuleTurnDetector().probability(text, "de-DE")

    assert asyncio.run(ask("ja")) == OPEN
    assert asyncio.run(ask("")) == 0.0
