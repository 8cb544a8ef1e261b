from pathlib import Path

import pytest

from trunkline.compliance.opening import OURS, Wording, load
from trunkline.errors import ConfigError
from trunkline.ports import Door, Obligation
from trunkline.types import Direction

OWED = tuple(Obligation(kind, (), "disclosure/*") for kind in ("say_business", "say_ai", "say_opt_out", "say_callback"))
RECORDING = Obligation("say_recording", ("record", "transcript"), "disclosure/*")
ASK = Obligation("ask_consent", ("record", "third_party"), "recording/US-CA")
ACME = Wording(load(), "Acme Inc.", "+14155550100")


def texts(wording: Wording, *owed: Obligation, direction: Direction = "outbound", language: str = "en-US") -> list[str]:
    return [line.text for line in wording.opening(owed, direction, language).lines]


def test_the_way_out_comes_right_behind_who_calls() -> None:
    said = texts(ACME, *OWED)
    assert said[0] == "This is Acme Inc calling."
    assert "take me off your list" in said[1]
    assert "artificial intelligence" in said[2]
    assert said[3].endswith("1 4 1 5 5 5 5 0 1 0 0.")


def test_what_would_be_kept_is_said_or_asked_but_not_both() -> None:
    assert texts(ACME, RECORDING)[0] == "We record this call and write it down."
    opening = ACME.opening([RECORDING, ASK], "inbound", "en-US")
    assert opening.lines == ()
    assert opening.question is not None
    assert opening.question.text.startswith("May we record this call and let other companies process what you say?")
    assert (opening.doors, opening.question.basis) == (("record", "third_party"), "recording/US-CA")


@pytest.mark.parametrize(("tag", "word"), [("es-MX", "llama"), ("de", "Hier"), ("fr-FR", "calling")])
def test_the_lines_are_in_the_calls_language_or_in_english(tag: str, word: str) -> None:
    assert word in texts(ACME, OWED[0], language=tag)[0]


def test_a_business_may_be_called_as_a_blank_is() -> None:
    assert texts(Wording(load(), "The {key} Shop", opt_out_key="9"), OWED[0])[0] == "This is The {key} Shop calling."


@pytest.mark.parametrize("name", ["A\x00B", "Acme\nInc", "A\u202eB", "...", "\x85A"])
def test_a_name_that_cannot_be_spoken_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"compliance\.business"):
        Wording(load(), name)


@pytest.mark.parametrize("language", ["en", "es", "de"])
def test_everything_that_may_be_said_is_spoken_beforehand(language: str) -> None:
    kept: tuple[Door, ...] = ("record", "transcript", "third_party")
    known = ACME.everything(kept, language)
    ask = Obligation("ask_consent", kept)
    directions: tuple[Direction, ...] = ("inbound", "outbound")
    for direction in directions:
        opening = ACME.opening([*OWED, ask], direction, language)
        assert opening.question is not None
        assert {opening.question.text, *(line.text for line in opening.lines)} <= set(known)


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ('version = "2026-11-28"', "", "version"),
        ("This is {business} calling.", "Hello.", "business_out"),
        ('granted = "Thank you."', "", "granted"),
        ('granted = "Thank you."', 'granted = "Thank you {who}."', "granted"),
        ('granted = "Thank you."', "granted = 3", "granted"),
        ('granted = "Thank you."', 'granted = "Thank you."\nmore = "x"', "more"),
        ('record = "record this call"', "", "kept.record"),
        ("[en]", "[en", "TOML"),
    ],
)
def test_a_broken_file_of_lines_names_what_is_wrong(tmp_path: Path, before: str, after: str, named: str) -> None:
    path = tmp_path / "lines.toml"
    text = OURS.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after, 1), encoding="utf-8")
    with pytest.raises(ConfigError, match=named):
        load(path)
