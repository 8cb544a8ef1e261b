"""Read by ourselves, from libphonenumber's metadata: the same answers as libphonenumber gives, number for number."""

import phonenumbers
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from phonenumbers import PhoneNumberType

from trunkline.plans import MAX_CHARS, Plan, plan_of

CODES = sorted(phonenumbers.COUNTRY_CODE_TO_REGION_CODE)
KINDS = sorted(PhoneNumberType.values())


def by_library(number: str) -> Plan | None:
    try:
        parsed = phonenumbers.parse(number, None)
    except phonenumbers.NumberParseException:
        return None
    region, kind = phonenumbers.region_code_for_number(parsed), phonenumbers.number_type(parsed)
    return Plan(parsed.country_code or 0, phonenumbers.national_significant_number(parsed), region, kind)


def examples(code: int) -> set[str]:
    """One of each kind of each country of a calling code."""
    found = set()
    for region in phonenumbers.region_codes_for_country_code(code):
        for kind in KINDS:
            if (number := phonenumbers.example_number_for_type(region, kind)) is not None:
                found.add(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))
    if (number := phonenumbers.example_number_for_non_geo_entity(code)) is not None:
        found.add(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))
    return found


@pytest.mark.parametrize("code", CODES)
def test_each_kind_of_each_country_and_what_is_next_to_it(code: int) -> None:
    for number in examples(code):
        prefix, national = f"+{code}", number.removeprefix(f"+{code}")
        last = (int(national[-1]) + 5) % 10
        for each in (number, number[:-1], number + "0", f"{prefix}0{national}", f"{prefix}1{national}"):
            assert plan_of(each) == by_library(each), each
        assert plan_of(f"{number[:-1]}{last}") == by_library(f"{number[:-1]}{last}")


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(CODES), st.text("00123456789", min_size=1, max_size=14))
@example(1, "2125550100")
@example(1, "12125550100")  # the national prefix before it
@example(39, "0612345678")  # a zero that belongs to the number
@example(225, "0000000000")
@example(54, "91123456789")
@example(52, "12221234567")
@example(800, "12345678")
def test_any_digits_behind_a_calling_code(code: int, digits: str) -> None:
    number = f"+{code}{digits}"
    assert plan_of(number) == by_library(number)


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(max_size=MAX_CHARS), st.text("+0123456789 ()-.x;", max_size=MAX_CHARS)))
@example("+12125550100")
@example("+1٢٢٢٥٥٥٠١٠٠")
@example("+1 212 555 0100")
@example("+12125550100;ext=5")
@example("+²1255501000")
@example("+012125550100")
@example("+0012125550100")
@example("+")
@example("")
def test_any_text(text: str) -> None:
    assert plan_of(text) == by_library(text)


def test_what_is_too_long_to_be_a_number_is_not_looked_at() -> None:
    assert plan_of("+1 212 555 0100" + " " * MAX_CHARS) is None
