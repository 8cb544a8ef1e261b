from trunkline.media.ledger import ESTIMATE_MARGIN_MS, Ledger
from trunkline.ports import Word


def ledger() -> Ledger:
    made = Ledger()
    made.add([Word("we", 0, 100), Word("are", 120, 250), Word("open", 300, 600)], offset_ms=1000)
    return made


def test_a_word_counts_only_when_all_of_it_was_heard() -> None:
    assert ledger().text(0, 1249) == "we"
    assert ledger().text(0, 1250) == "we are"
    assert ledger().text(1100, 5000) == "are open"


def test_the_word_under_a_position_is_found_and_pauses_have_none() -> None:
    word = ledger().word_at(1400)
    assert word is not None
    assert word.text == "open"
    assert ledger().word_at(1275) is None
    assert ledger().word_at(1250) is None
    assert ledger().word_at(9999) is None


def test_cutting_forgets_the_word_that_was_not_finished() -> None:
    made = ledger()
    made.cut(1400)
    made.add([Word("sorry", 0, 200)], offset_ms=1420)
    assert made.text(0, 9999) == "we are sorry"


def test_forgetting_keeps_what_is_still_to_be_heard() -> None:
    made = ledger()
    made.forget(1251)
    assert made.text(0, 9999) == "open"


def test_an_estimate_is_never_ahead_of_an_even_spread_and_is_marked() -> None:
    made = Ledger()
    made.add_estimate("one three five seven", 0, 4000)
    assert made.text(0, 1000) == ""
    assert made.text(0, 1000 + ESTIMATE_MARGIN_MS) == "one"
    assert made.text(0, 4000) == "one three five seven"
    assert not made.exact(0)
    assert made.exact(4000)
