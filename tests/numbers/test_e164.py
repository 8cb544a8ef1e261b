from typing import get_args

import pytest

from trunkline.numbers import e164
from trunkline.numbers.e164 import MAX_RANGE, BadNumber, Beginning, Kind, Number, Range, allowed, number, overlap, span
from trunkline.types import E164


@pytest.mark.parametrize(
    ("written", "country", "read"),
    [
        ("+14155550100", None, Number(E164("+14155550100"), "US", "geographic_or_mobile")),
        (" +1 415-555-0100 ", None, Number(E164("+14155550100"), "US", "geographic_or_mobile")),
        ("(415) 555-0100", "US", Number(E164("+14155550100"), "US", "geographic_or_mobile")),
        ("020 7946 0123", "GB", Number(E164("+442079460123"), "GB", "geographic")),
        ("+44 (0)20 7946 0123", None, Number(E164("+442079460123"), "GB", "geographic")),
        ("+18005550199", "GB", Number(E164("+18005550199"), "US", "toll_free")),
        ("+12423225100", None, Number(E164("+12423225100"), "BS", "geographic")),
        ("+80012345678", None, Number(E164("+80012345678"), None, "toll_free")),
        ("+19005550100", None, Number(E164("+19005550100"), "US", "premium")),
    ],
)
def test_a_number_is_read_with_its_country_and_kind(written: str, country: str | None, read: Number) -> None:
    assert number(written, country) == read


@pytest.mark.parametrize(
    ("written", "country", "why"),
    [
        ("", None, "missing"),
        ("4155550100", None, "+COUNTRY NUMBER"),
        ("+1415555", None, "too short"),
        ("+499999999999999999", None, "too long"),
        ("5550100", "US", "area code"),
        ("+999123456", None, "calling code"),
        ("+19995550100", None, "numbering plan"),
        ("+1415555010x", None, "digits"),
        ("+1415+5550100", None, "digits"),
        ("١٤١٥٥٥٥٠١٠٠", "US", "digits"),
        ("4155550100", "XX", "no country"),
        ("+" + "1" * 40, None, "32 characters"),
    ],
)
def test_what_is_no_number_is_told_with_what_is_wrong_with_it(written: str, country: str | None, why: str) -> None:
    with pytest.raises(BadNumber, match=why.replace("+", r"\+")) as bad:
        number(written, country)
    assert "\n" not in str(bad.value)


def test_a_range_has_both_ends_in_it() -> None:
    found = span("+14155550100 - +14155550199")
    assert isinstance(found, Range)
    assert (len(found), next(iter(found)), list(found)[-1]) == (100, "+14155550100", "+14155550199")
    assert "+14155550150" in found
    assert "+14155550200" not in found
    assert "+141555501500" not in found
    assert span(str(found)) == found


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("+14155550199-+14155550100", "lowest"),
        ("+14155550100-+442079460123", "as many digits"),
        ("+14155500000-+14155550000", f"{MAX_RANGE:,} numbers at most, and this one 50,001"),
        ("+14155550100-+1415555019", "too short"),
        ("+1415*555", "at the end"),
        ("1415555*", "at the end"),
        ("+1*", "2 to 15 digits"),
        ("+999*", "calling code"),
    ],
)
def test_a_bad_range_or_beginning_is_told(written: str, why: str) -> None:
    with pytest.raises(BadNumber, match=why):
        span(written)


def test_a_beginning_holds_all_that_begin_so() -> None:
    found = span("+1415555*")
    assert found == Beginning("+1415555")
    assert "+14155550100" in found
    assert "+14165550100" not in found
    assert str(found) == "+1415555*"


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("+14155550100", "+14155550100", True),
        ("+14155550100", "+14155550101", False),
        ("+14155550100", "+14155550100-+14155550199", True),
        ("+14155550100-+14155550150", "+14155550150-+14155550199", True),
        ("+14155550100-+14155550149", "+14155550150-+14155550199", False),
        ("+1415555*", "+14155550100-+14155550199", True),
        ("+14155550*", "+14155551100-+14155551199", False),
        ("+141555501*", "+14155550095-+14155550100", True),
        ("+1415*", "+1415555*", True),
        ("+1415*", "+1416*", False),
        ("+442079*", "+14155550100", False),
    ],
)
def test_what_lies_over_each_other_is_found_both_ways(one: str, other: str, both: bool) -> None:
    assert overlap(span(one), span(other)) is both
    assert overlap(span(other), span(one)) is both


def test_only_numbers_of_the_countries_that_are_allowed() -> None:
    allowed(number("+14155550100"), ())
    allowed(number("+14155550100"), ("US", "GB"))
    with pytest.raises(BadNumber, match=r"'\+14155550100': is of US, and only DE, GB is allowed"):
        allowed(number("+14155550100"), {"GB", "DE"})
    with pytest.raises(BadNumber, match="no country"):
        allowed(number("+80012345678"), ("US",))


def test_every_kind_has_a_name() -> None:
    assert {*e164._KINDS.values(), "other"} == set(get_args(Kind))
