from trunkline.agents.wishes import Heeding, spoken, wish_of
from trunkline.agents.wishes.phrases import KINDS


def kind(wish: object) -> object:
    return getattr(wish, "kind", None)


def test_a_final_decides_and_not_what_it_began_with() -> None:
    heeding = Heeding()
    heeding.partial("stop calling me", "en")
    assert heeding.final("stop calling me names", "en", 1.0) is None
    assert heeding.lost() is None
    assert kind(heeding.final("stop calling me", "en", 9.0)) == "do_not_call"


def test_what_was_being_said_counts_where_no_final_comes() -> None:
    heeding = Heeding()
    heeding.partial("take me off your list", "en")
    assert kind(heeding.lost()) == "do_not_call"
    assert heeding.lost() is None
    heeding.partial("take me off your list", "en")
    heeding.partial("", "en")  # taken back
    assert heeding.lost() is None


def test_a_pause_in_the_middle_is_heard_over_and_a_long_one_is_not() -> None:
    heeding = Heeding()
    assert heeding.final("please remove my", "en", 1.0) is None
    assert kind(heeding.final("number from your list", "en", 3.0)) == "do_not_call"
    assert heeding.final("please remove my", "en", 10.0) is None
    assert heeding.final("number from the list", "en", 15.0) is None


def test_another_language_than_the_calls_is_heard_and_the_words_are_kept_but_not_shown() -> None:
    wish = wish_of("¡No me llamen más!", "en-US")
    assert wish is not None
    assert (wish.kind, wish.verbatim, wish.via) == ("do_not_call", "¡No me llamen más!", "speech")
    assert "llamen" not in repr(wish)


def test_all_that_the_local_ears_are_told_to_hear_is_a_wish() -> None:
    from trunkline.agents.script.phrases import expansions

    said = [
        (expected, " ".join(words))
        for expected in KINDS
        for node in spoken()[expected]
        for words, _ in expansions(node, {}, 400)
    ]
    assert len(said) > 500
    assert [(expected, text) for expected, text in said if kind(wish_of(text)) != expected] == []
