import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.agents.splitter import FIRST_PHRASE_CHARS, MAX_PHRASE_CHARS, PhraseSplitter


def split(text: str, step: int = 1) -> list[str]:
    """As a model writes it, `step` characters at a time."""
    splitter = PhraseSplitter()
    phrases: list[str] = []
    for start in range(0, len(text), step):
        phrases += splitter.feed(text[start : start + step])
    return phrases + splitter.flush()


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("We are open. Come by!", ["We are open.", "Come by!"]),
        ("Is it you? Yes; it is.", ["Is it you?", "Yes;", "it is."]),
        ("No. We are closed.", ["No.", "We are closed."]),
        ("Ask Dr. Lee or Mrs. Ray. Thanks.", ["Ask Dr. Lee or Mrs. Ray.", "Thanks."]),
        ("It costs 3.50 or $1,200.75 now. Fine.", ["It costs 3.50 or $1,200.75 now.", "Fine."]),
        ("Come at 10:30 a.m. on Monday. Bye.", ["Come at 10:30 a.m. on Monday.", "Bye."]),
        ("Fruit, e.g. apples. Good.", ["Fruit, e.g. apples.", "Good."]),
        ("Well... let me see\u2026 yes.", ["Well...", "let me see\u2026", "yes."]),
        ('She said "come in." Then she left.', ['She said "come in."', "Then she left."]),
        ("\u201cCome in!\u201d (He did.) End.", ["\u201cCome in!\u201d", "(He did.)", "End."]),
        ("Great! \U0001f600 See you.", ["Great!", "\U0001f600 See you."]),
        ("First line\nSecond line\n\nThird", ["First line", "Second line", "Third"]),
        ("1. Open it. 2 of 3.", ["1. Open it.", "2 of 3."]),
        ("我们开门了。欢迎!你好？好", ["我们开门了。", "欢迎!你好？", "好"]),
        ("हम खुले हैं। आइए।", ["हम खुले हैं।", "आइए।"]),
        ("هل أنت هنا؟ نعم.", ["هل أنت هنا؟", "نعم."]),
        ("Call example.com/a.b?c now. Ok.", ["Call example.com/a.b?c now.", "Ok."]),
        ("", []),
        ("  \n \n", []),
        ("...", ["..."]),
    ],
)
def test_sentences_are_phrases(text: str, phrases: list[str]) -> None:
    assert split(text) == phrases
    assert split(text, step=1000) == phrases


def test_the_first_phrase_is_spoken_from_its_first_comma_that_is_worth_it() -> None:
    text = "Yes, on weekdays from eight until noon, and again from one, until five."
    assert split(text) == ["Yes, on weekdays from eight until noon,", "and again from one, until five."]
    assert PhraseSplitter().feed("Yes, on weekdays from eight until noon, ") != []


def test_a_text_that_comes_at_once_is_split_as_one_that_is_written() -> None:
    text = "On weekdays from eight until noon, and on Sunday. Also by telephone, at any time, as you like."
    assert split(text, step=1000) == split(text)


def test_a_phrase_waits_until_it_is_known_to_be_over() -> None:
    splitter = PhraseSplitter()
    assert splitter.feed("It is 3.") == []
    assert splitter.feed("5 miles. ") == ["It is 3.5 miles."]


def test_a_sentence_that_never_ends_is_broken_at_a_comma_or_a_word() -> None:
    splitter = PhraseSplitter()
    splitter.feed("Hello. ")
    words = "word " * 100
    assert splitter.feed(words)[0] == ("word " * 47).strip()
    assert all(len(phrase) <= MAX_PHRASE_CHARS for phrase in split(words + ". End."))
    comma = "one, " + "two " * 100
    splitter = PhraseSplitter()
    splitter.feed("Hello. ")
    assert splitter.feed(comma)[0] == "one,"


def test_text_without_any_space_is_broken_all_the_same() -> None:
    assert [len(phrase) for phrase in split("x" * 1000)] == [240, 240, 240, 240, 40]


pieces = st.text(alphabet="ab .,!?:;'\"()\n\u2026\u3002\uff0c13\U0001f600\u0964", max_size=12)


@given(st.lists(pieces | st.sampled_from(["Dr. ", "a.m. ", "word " * 70, "x" * 300]), max_size=12))
def test_nothing_is_lost_or_said_twice(deltas: list[str]) -> None:
    splitter = PhraseSplitter()
    phrases = [phrase for delta in deltas for phrase in splitter.feed(delta)] + splitter.flush()
    assert "".join("".join(phrases).split()) == "".join("".join(deltas).split())
    assert all(phrase == phrase.strip() != "" for phrase in phrases)
    assert all(len(phrase) <= MAX_PHRASE_CHARS for phrase in phrases)
    assert splitter.flush() == []


@given(st.text(alphabet="ab ,.", max_size=300), st.integers(1, 20))
def test_how_it_is_cut_into_deltas_makes_no_difference(text: str, step: int) -> None:
    assert split(text, step) == split(text, 1)


def test_the_limit_leaves_room_for_a_first_phrase() -> None:
    assert FIRST_PHRASE_CHARS < MAX_PHRASE_CHARS
