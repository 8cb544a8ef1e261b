import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.numbers.patterns import Match, Pattern, Patterns, matches

NUMBER = "+14155550142"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (NUMBER, 1),
        ("+14155550143", None),
        ("+141555501*", 100),
        ("+1*", 10**10),
        ("+1416*", None),
        ("+14155550142*", 1),
        ("+14155550100-+14155550199", 100),
        ("+14155550143-+14155550199", None),
        ("+1415555010-+1415555019", None),  # of another length
    ],
)
def test_a_pattern_names_so_many_numbers_of_that_length(text: str, size: int | None) -> None:
    assert Pattern(text).size(NUMBER) == size
    assert matches(text, NUMBER) is (size is not None)


def best(*routes: tuple[str, tuple[str, ...], str | None], trunk: str = "", number: str = NUMBER) -> Match | None:
    return Patterns.of(routes).best(number, trunk)


def test_the_most_specific_pattern_wins() -> None:
    wide, prefix = ("wide", ("+1*",), None), ("prefix", ("+1415555*",), None)
    range_, exact = ("range", ("+14155550100-+14155550199",), None), ("exact", (NUMBER,), None)
    assert best(wide, prefix, range_, exact) == Match("exact", NUMBER)
    assert best(wide, prefix, range_) == Match("range", "+14155550100-+14155550199")
    assert best(wide, prefix) == Match("prefix", "+1415555*")
    assert best(wide) == Match("wide", "+1*")
    assert best(("other", ("+44*",), None)) is None


def test_a_longer_beginning_is_more_specific_than_a_wider_range() -> None:
    range_, prefix = ("range", ("+14155550000-+14155559999",), None), ("prefix", ("+1415555014*",), None)
    assert best(range_, prefix) == Match("prefix", "+1415555014*")


def test_a_route_of_a_trunk_has_calls_of_that_trunk_only_and_before_others() -> None:
    office, any_ = ("office", ("+1415*",), "office"), ("any", ("+1415*",), None)
    assert best(office, any_, trunk="office") == Match("office", "+1415*")
    assert best(office, any_, trunk="branch") == Match("any", "+1415*")
    assert best(office, trunk="") is None


def test_of_equals_the_first_by_name() -> None:
    assert best(("b", ("+1415*",), None), ("a", ("+1415*",), None)) == Match("a", "+1415*")


numbers = st.integers(10**9, 10**11).map(lambda n: f"+1{n}"[:12])
patterns = st.one_of(
    numbers,
    numbers.flatmap(lambda n: st.integers(2, len(n)).map(lambda k: n[:k] + "*")),
    st.tuples(numbers, numbers).filter(lambda pair: len(pair[0]) == len(pair[1])).map(lambda p: "-".join(sorted(p))),
)


@given(st.lists(patterns, min_size=1, max_size=8), numbers)
def test_the_index_finds_what_looking_at_each_finds(texts: list[str], number: str) -> None:
    found = Patterns.of([(f"r{n}", (text,), None) for n, text in enumerate(texts)]).best(number, "")
    sizes = [size for text in texts if (size := Pattern(text).size(number)) is not None]
    if not sizes:
        assert found is None
    else:
        assert found is not None
        assert Pattern(found.pattern).size(number) == min(sizes)
