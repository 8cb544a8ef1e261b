import re
from datetime import UTC, datetime

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phonenumbers import PhoneNumberType
from phonenumbers.phonemetadata import PhoneMetadata
from phonenumbers.shortnumberinfo import SUPPORTED_SHORT_REGIONS

from trunkline.compliance.decision import Policy
from trunkline.compliance.destinations import MAX_EMERGENCY_DIGITS, countries, country_of, never_called
from trunkline.plans import NO_COUNTRY
from trunkline.ports import Allow, Facts, Lists, Refuse, Standing, Traffic
from trunkline.types import DEFAULT_TENANT

NOW = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)
KNOWN = Standing(lists=Lists(stopped=False, company=False))
QUIET = Traffic(0, 0, 0)
EVERYWHERE = Policy(outbound_allow=tuple(sorted(countries())))

EMERGENCY_PATTERNS = {
    region: metadata.emergency.national_number_pattern
    for region in sorted(SUPPORTED_SHORT_REGIONS)
    if (metadata := PhoneMetadata.short_metadata_for_region(region)) is not None
    and metadata.emergency is not None
    and metadata.emergency.national_number_pattern
}
REFUSED_TYPES = {
    PhoneNumberType.PREMIUM_RATE,
    PhoneNumberType.SHARED_COST,
    PhoneNumberType.PERSONAL_NUMBER,
    PhoneNumberType.PAGER,
}
CALLING_CODES = sorted(phonenumbers.COUNTRY_CODE_TO_REGION_CODE)


def refused(number: str) -> str:
    refusal = never_called(number)
    return refusal.code if refusal else ""


def dialled(number: str) -> str:
    decision = EVERYWHERE.decide(Facts("dial", DEFAULT_TENANT, "outbound", to_number=number), NOW)
    return decision.code if isinstance(decision, Refuse) else "allowed"


def longest(pattern: str) -> int:
    return int(re._parser.parse(pattern).getwidth()[1])


@st.composite
def emergencies(draw: st.DrawFn) -> str:
    region = draw(st.sampled_from(sorted(EMERGENCY_PATTERNS)))
    digits = draw(st.from_regex(EMERGENCY_PATTERNS[region], fullmatch=True, alphabet="0123456789"))
    return draw(st.sampled_from(["", "+", f"+{phonenumbers.country_code_for_region(region)}"])) + digits


def by_type(*types: int) -> list[str]:
    """A number of each type in each country that has one."""
    examples = [phonenumbers.example_number_for_type(region, t) for region in sorted(countries()) for t in types]
    return [phonenumbers.format_number(n, phonenumbers.PhoneNumberFormat.E164) for n in examples if n is not None]


# --- emergency ---


@pytest.mark.parametrize(
    "number",
    [
        *("911", "112", "999", "000", "110", "+911", "+112", "+999", "tel:911", "9-1-1", "٩١١"),
        *("+1911", "+1 911", "+1-911", "+44999", "+44112", "+440999", "+49110", "+61000", "+39118"),
    ],
)
def test_emergency_numbers_are_known_in_every_guise(number: str) -> None:
    assert refused(number) == "emergency"


@given(emergencies())
def test_no_emergency_number_of_any_country_passes_with_every_country_open(number: str) -> None:
    assert dialled(number) == "emergency"


def test_no_emergency_number_is_longer_than_we_look() -> None:
    assert max(longest(pattern) for pattern in EMERGENCY_PATTERNS.values()) == MAX_EMERGENCY_DIGITS


@pytest.mark.parametrize("number", ["+911123456789", "+12025550112", "+442079460999", "+41112345678"])
def test_a_number_that_only_contains_an_emergency_number_is_none(number: str) -> None:
    assert refused(number) == ""


# --- premium ---


@pytest.mark.parametrize(
    "number",
    [
        "+19005551234",
        "+12129761234",  # 976: pay-per-call in any area code
        "+15005550006",
        "+449012345678",
        "+448431234567",
        "+448701234567",
        "+447012345678",
        "+491801234567",
        "+33892123456",
        "+870773111632",
        "+878101234567890",
        "+881612345678",
        "+88213000000",
        "+883140000000000",
        "+8835100012345",
        "+8081234567",
        "+97912345678",
        "+9790123",
        "+888123456789",
    ],
)
def test_what_costs_more_than_a_call_is_premium(number: str) -> None:
    assert refused(number) == "premium"


def test_no_premium_number_of_any_country_passes_with_every_country_open() -> None:
    numbers = by_type(*REFUSED_TYPES)
    assert len(numbers) > 200
    assert [number for number in numbers if dialled(number) != "premium"] == []


@pytest.mark.parametrize(
    "number", ["+12025550123", "+18005550199", "+80012345678", "+443001234567", "+442079460000", "+447400123456"]
)
def test_ordinary_free_and_company_wide_numbers_are_not(number: str) -> None:
    assert refused(number) == ""


@given(st.sampled_from(CALLING_CODES), st.text("0123456789", max_size=13), st.sampled_from(["+", "", "00", "+0"]))
def test_what_passes_is_valid_canonical_and_costs_as_usual(code: int, rest: str, prefix: str) -> None:
    number = f"{prefix}{code}{rest}"
    if dialled(number) != "allowed":
        return
    parsed = phonenumbers.parse(number, None)
    assert phonenumbers.is_valid_number(parsed)
    assert phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164) == number
    assert phonenumbers.number_type(parsed) not in REFUSED_TYPES
    assert phonenumbers.region_code_for_number(parsed) in countries()


@given(st.text(max_size=40), st.lists(st.sampled_from(sorted(countries())), unique=True, max_size=3))
def test_any_text_is_answered(number: str, allow: list[str]) -> None:
    facts = Facts("dial", DEFAULT_TENANT, "outbound", to_number=number)
    assert isinstance(Policy(outbound_allow=tuple(allow)).decide(facts, NOW), Allow | Refuse)


def test_a_mobile_passes_where_its_country_is_open_and_nowhere_else() -> None:
    mobiles = {number: country_of(number) for number in by_type(PhoneNumberType.MOBILE)}
    assert len(mobiles) > 200
    for number, country in mobiles.items():
        assert country is not None
        facts = Facts("dial", DEFAULT_TENANT, "outbound", to_number=number, standing=KNOWN, traffic=QUIET)
        others = tuple(sorted(countries() - {country}))
        assert Policy(outbound_allow=(country,)).decide(facts, NOW) == Allow(), country
        assert isinstance(Policy(outbound_allow=others).decide(facts, NOW), Refuse), country


# --- countries ---


@pytest.mark.parametrize(
    ("number", "country"),
    [
        ("+12025550123", "US"),
        ("+18005550199", "US"),  # shared by +1; its main country's
        ("+14165550100", "CA"),
        ("+12423221234", "BS"),
        ("+18765231234", "JM"),
        ("+18095551234", "DO"),
        ("+17872231234", "PR"),
        ("+16712231234", "GU"),
        ("+442079460000", "GB"),
        ("+441534123456", "JE"),
        ("+441624612345", "IM"),
        ("+447797712345", "JE"),
        ("+74951234567", "RU"),
        ("+77012345678", "KZ"),
        ("+390612345678", "IT"),
        ("+80012345678", NO_COUNTRY),
    ],
)
def test_shared_calling_codes_are_split_by_country(number: str, country: str) -> None:
    assert country_of(number) == country


@pytest.mark.parametrize(
    "number",
    [
        *("", "+", "12025550123", "0012025550123", "+1 202 555 0123", "+1 (202) 555-0123", "+4402079460000"),
        *("+12025550123;ext=5", "tel:+12025550123", "+1202555012x", "+1-800-FLOWERS", "+12025550123\r\n"),
        *("+1202555012", "+120255501234", "+999123456789", "+447700900123", "+12025550123" + " " * 30),
        *("+१२०२५५५०१२३", "\uff0b12025550123"),
        *("+8131234567", "+4111111111"),  # their calling codes are one country's, which has no such number
    ],
)
def test_only_a_valid_canonical_number_has_a_country(number: str) -> None:
    assert country_of(number) is None
