"""Carriers' words, whole."""

import json
from pathlib import Path

import pytest

from trunkline.compliance.stir.verstat import Source, fold, values

WORDS = json.loads((Path(__file__).parents[2] / "vectors/stir/verstat_values.json").read_text())
SOURCES: tuple[Source, ...] = ("twilio", "telnyx", "bandwidth", "pai")


def test_all_21_of_twilios() -> None:
    assert sorted(values("twilio")) == sorted(WORDS["twilio"])
    assert len(WORDS["twilio"]) == 21
    for word in WORDS["twilio"]:
        found = fold("twilio", word)
        parts = word.split("-")
        assert (found.source, found.raw) == ("twilio", word)
        if parts[:2] == ["TN", "Validation"] and len(parts) > 3:
            assert found.verdict == parts[2].lower()
            assert found.attest == parts[3]
            assert found.mode == (parts[4].lower() if len(parts) > 4 else "direct")


@pytest.mark.parametrize(
    ("source", "word", "verdict", "attest"),
    [
        ("twilio", "TN-Validation-Failed", "failed", None),
        ("twilio", "No-TN-Validation", "failed", None),  # a broken or stale token gets this
        ("twilio", "NULL", "none", None),
        ("telnyx", "TN-Validation-Passed", "passed", "A"),
        ("telnyx", "TN-Validation-Passed-B", "passed", "B"),
        ("telnyx", "TN-Validation-Failed", "failed", None),
        ("bandwidth", "TN-Validation-Passed", "passed", None),
        ("pai", "TN-Validation-Passed", "passed", None),
        ("pai", "TN-Validation-Failed", "failed", None),
        ("pai", "No-TN-Validation", "none", None),
    ],
)
def test_what_each_means(source: Source, word: str, verdict: str, attest: str | None) -> None:
    assert (fold(source, word).verdict, fold(source, word).attest) == (verdict, attest)


def test_the_level_that_bandwidth_tells_beside_it() -> None:
    assert fold("bandwidth", "TN-Validation-Passed", "B").attest == "B"
    assert fold("bandwidth", "TN-Validation-Passed", "b").attest is None
    assert fold("telnyx", "TN-Validation-Passed", "B").attest == "A"


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    "word", [*WORDS["must_not_grant_trust"], "TN-Validation-Passed-A,TN-Validation-Passed-A", "x" * 999]
)
def test_another_spelling_is_no_verdict(source: Source, word: str | None) -> None:
    found = fold(source, word)
    assert (found.verdict, found.attest) == ("none", None)
    assert len(found.raw) <= 64
