"""Callers who need help are told what to dial."""

import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from phonenumbers import shortnumberinfo

from trunkline.agents import help as module
from trunkline.agents.help import asks_for_help, help_line
from trunkline.agents.script.grammar import Grammar
from trunkline.ports import CallFacts
from trunkline.types import DEFAULT_TENANT, CallId, Direction


def call(theirs: str | None, ours: str | None = "+12125550111", direction: Direction = "inbound") -> CallFacts:
    pair = (theirs, ours) if direction == "inbound" else (ours, theirs)
    return CallFacts(CallId("c"), DEFAULT_TENANT, direction, *pair, started=datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Call 911!", "en"),
        ("please call nine one one", "en"),
        ("I need an ambulance right now", "en-US"),
        ("Can you transfer me to 911?", "en"),
        ("Necesito una ambulancia, por favor", "es-MX"),
        ("¡Llame al 112!", "es"),
        ("Rufen Sie einen Krankenwagen", "de"),
        ("Ich brauche einen Notarzt", "de-AT"),
        ("call an ambulance", "de"),
    ],
)
def test_who_asks(text: str, language: str) -> None:
    assert asks_for_help(text, language)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("I called 911 yesterday and they came", "en"),
        ("I don't need an ambulance", "en"),
        ("please do not call 911", "en"),
        ("my ambulance bill is 911 dollars", "en"),
        ("no necesito una ambulancia", "es"),
        ("Ich brauche keinen Krankenwagen", "de"),
        ("I have an emergency appointment at nine", "en"),
        ("", "en"),
    ],
)
def test_who_does_not(text: str, language: str) -> None:
    assert not asks_for_help(text, language)


def test_the_line_names_the_number_of_the_callers_country() -> None:
    assert help_line(call("+13055550100"), "en") == "I can't call emergency services. Hang up and dial 9 1 1 now."
    assert "9 9 9" in help_line(call("+442079460000"), "en")
    assert help_line(call("+4930901820"), "de").endswith("wählen Sie jetzt die 1 1 2.")
    assert "9 1 1" in help_line(call("+525555550100"), "es-MX")


def test_withheld_callers_are_told_by_our_own_number_and_calls_out_by_theirs() -> None:
    assert "9 1 1" in help_line(call(None), "en")
    assert "1 1 2" in help_line(call("+4930901820", direction="outbound"), "en")
    assert "1 1 2 or 9 1 1" in help_line(call(None, None), "en")
    assert "1 1 2 or 9 1 1" in help_line(call(None, None), "fr")  # a language that we have no line in


def test_every_number_is_an_emergency_number_there() -> None:
    numbers = tomllib.loads(Path(module.__file__).with_suffix(".toml").read_text("utf-8"))["numbers"]
    wrong = [
        (number, country)
        for number, countries in numbers.items()
        for country in countries.split()
        if not shortnumberinfo.is_emergency_number(number, country)
    ]
    assert wrong == []


@pytest.mark.parametrize("text", ["i need an ambulance", "please call an ambulance now", "call nine one one"])
def test_a_local_recogniser_may_hear_it(text: str) -> None:
    heard = Grammar("main", (("=help", module.spoken()),))
    assert heard.parse(text) is not None
    assert asks_for_help(text, "en")


def test_what_fits_badly_is_not_taken_for_it() -> None:
    assert module.doubtful("i need an ambulance", -20.0)
    assert not module.doubtful("i need an ambulance", -5.0)
    assert not module.doubtful("what are your opening hours", -20.0)
