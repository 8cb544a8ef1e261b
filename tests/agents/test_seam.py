import pytest

from trunkline.agents.seam import Seam, spoken_by_estimate, spoken_of
from trunkline.ports import Word

SAID = "We open at eight. On Sundays we sleep."


def joined(said: str, *deltas: str) -> str:
    seam = Seam(said)
    return "".join([*(seam.feed(delta) for delta in deltas), seam.flush()])


@pytest.mark.parametrize(
    ("continuation", "new"),
    [
        ("Do come early.", "Do come early."),
        ("We open at eight. On Sundays we sleep. Do come early.", "Do come early."),
        ("we open at eight, on Sundays we sleep! Do come early.", "Do come early."),
        ("On Sundays we sleep. Do come early.", "Do come early."),
        ("On Sundays we sleep.", ""),
        ("On Sundays you may ring the bell.", "On Sundays you may ring the bell."),
        ("We are sorry.", "We are sorry."),
        ("sleep. Then again.", "sleep. Then again."),
        ("", ""),
    ],
)
def test_what_was_said_is_not_said_again_and_nothing_else_is_lost(continuation: str, new: str) -> None:
    assert joined(SAID, continuation).strip() == new
    assert joined(SAID, *continuation).strip() == new, "letter by letter"


def test_without_anything_said_all_is_new() -> None:
    assert joined("", "We ", "open.") == "We open."


def test_a_text_that_is_surely_new_is_not_held_back() -> None:
    assert Seam(SAID).feed("Do come ") == "Do come "


def words(*texts: str) -> list[Word]:
    return [Word(text, at * 100, at * 100 + 100) for at, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("spoken", "count"),
    [((), 0), (("We",), 1), (("we", "open"), 2), (("We", "open", "eight"), 4), (("We", "open", "eight", "On"), 5)],
)
def test_how_many_words_were_spoken(spoken: tuple[str, ...], count: int) -> None:
    assert spoken_of("We open - eight. On Sundays", words(*spoken)) == count


def test_an_estimate_counts_late() -> None:
    assert spoken_by_estimate("one two three", 0, 50) == (0, 0)
    assert spoken_by_estimate("one two three", 499, 50) == (0, 0)
    assert spoken_by_estimate("one two three", 500, 50) == (1, 200)
    assert spoken_by_estimate("one two three", 10_000, 50) == (3, 700)
