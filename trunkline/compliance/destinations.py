"""What a dialled number is, by the world's numbering plans (libphonenumber's metadata). Plain rules, no settings.

Numbers cross a trunk as E.164, so only the canonical form passes: what a lenient parser would mend (`+44 (0)20...`, an
extension, letters, other scripts' digits) could mean something else to a carrier. Nothing here is for logs.
"""

from collections.abc import Iterable
from functools import lru_cache

import phonenumbers
from phonenumbers import PhoneNumberType
from phonenumbers import shortnumberinfo as short

from trunkline.plans import MAX_CHARS, REMEMBERED, Plan, plan_of, read
from trunkline.ports import Refuse

MAX_EMERGENCY_DIGITS = 6  # the longest of any country
UNIVERSAL_FREEPHONE = 800

EMERGENCY = Refuse("emergency", "emergency numbers are never called from here")
PREMIUM = Refuse("premium", "premium-rate, shared-cost, personal, pager and satellite numbers are never called")

# Whoever is called sets the price (+44 70 and +1 500 "personal" numbers as well), or nobody there can talk.
_PREMIUM_TYPES = {
    PhoneNumberType.PREMIUM_RATE,
    PhoneNumberType.SHARED_COST,
    PhoneNumberType.PERSONAL_NUMBER,
    PhoneNumberType.PAGER,
}


MAX_EXTENSION_DIGITS = 6
_ALWAYS_EMERGENCY = {"000", "112", "911", "933", "999"}
"""Also where no plan says so: 933 is the United States' line for trying 911 out. Others that are an emergency number
somewhere (100, 101) are extensions of every other PBX, and count in their own countries only."""
_PREFIXES = tuple(line + abroad for line in ("", "0", "9", "8") for abroad in ("", "00", "011", "+"))
"""A PBX's outside line, and the way abroad."""


def countries() -> frozenset[str]:
    """ISO 3166 codes (and AC, TA, XK) that have numbers of their own."""
    return frozenset(phonenumbers.SUPPORTED_REGIONS)


def example_of(country: str) -> str | None:
    """A number such as they have there."""
    example = phonenumbers.example_number(country)
    return f"+{example.country_code}{phonenumbers.national_significant_number(example)}" if example else None


@lru_cache(maxsize=REMEMBERED)
def never_called(number: str) -> Refuse | None:
    """What is refused whatever the settings say. `number` may be in any form, a short number included."""
    plan = plan_of(number)
    if _is_emergency(number, plan):
        return EMERGENCY
    return PREMIUM if plan is not None and _is_premium(plan) else None


def country_of(number: str) -> str | None:
    """The country of a valid E.164 number, NO_COUNTRY where it belongs to none; None when it is not valid.

    Calling codes are split as their numbering plans are: +1 242 is BS, not US, and +44 1534 is JE, not GB. Toll-free
    numbers of a shared code count as its main country's (+1 800: US).
    """
    plan = plan_of(number)
    if plan is None or plan.kind == PhoneNumberType.UNKNOWN or f"+{plan.code}{plan.national}" != number:
        return None
    return plan.region


def is_extension(dialled: str) -> bool:
    """Of somebody's own telephones: digits without +, too few for a number."""
    return not dialled.startswith("+") and sum(c.isdigit() for c in dialled) <= MAX_EXTENSION_DIGITS


def is_emergency_in(dialled: str, countries: Iterable[str], *, outside_line: bool = False) -> bool:
    """Digits as they are dialled there; `outside_line`: perhaps with a PBX's 0, 8 or 9 before them."""
    digits = phonenumbers.normalize_digits_only(dialled[:MAX_CHARS])
    shorn = {digits, digits[1:]} if outside_line and digits[:1] in "089" and len(digits) > 3 else {digits}
    return not shorn.isdisjoint(_ALWAYS_EMERGENCY) or any(_short_number(each, countries) for each in shorn)


def readings(dialled: str, countries: Iterable[str]) -> frozenset[str]:
    """The valid numbers that digits without + may be taken for by whoever dials them: as a number of one of these
    countries, or as one that lost its +, behind an outside line or the prefix for abroad or without."""
    digits = phonenumbers.normalize_digits_only(dialled[:MAX_CHARS])
    tails = {digits.removeprefix(prefix) for prefix in _PREFIXES if digits.startswith(prefix)}
    written = [(f"+{tail}", None) for tail in tails] + [(tail, country) for tail in tails for country in countries]
    return frozenset(number for each in written if (number := _read(*each)) is not None)


def _read(digits: str, country: str | None) -> str | None:
    try:
        parsed = phonenumbers.parse(digits, country)
    except phonenumbers.NumberParseException:
        return None
    plan = read(parsed)
    if plan.kind == PhoneNumberType.UNKNOWN and not _is_premium(plan):
        return None
    return f"+{plan.code}{plan.national}"


def _is_emergency(number: str, plan: Plan | None) -> bool:
    """As a whole, in any country (112, +112); or behind a calling code, in the countries of that code (+1911)."""
    shown = number[:MAX_CHARS]
    digits = "".join(filter(str.isdigit, shown)) if shown.isascii() else phonenumbers.normalize_digits_only(shown)
    if _short_number(digits, short.SUPPORTED_SHORT_REGIONS):
        return True
    if plan is None:
        return False
    regions = phonenumbers.region_codes_for_country_code(plan.code)
    return _short_number(plan.national, regions) or _short_number(plan.national.lstrip("0"), regions)  # +44 0999


def _short_number(digits: str, regions: Iterable[str]) -> bool:
    return len(digits) <= MAX_EMERGENCY_DIGITS and any(short.is_emergency_number(digits, r) for r in regions)


def _is_premium(plan: Plan) -> bool:
    if plan.code in phonenumbers.COUNTRY_CODES_FOR_NON_GEO_REGIONS and plan.code != UNIVERSAL_FREEPHONE:
        return True  # +870 and +881 satellites, +878 personal, +882 and +883 networks, +808 shared cost, +979 premium
    if plan.code == 1 and plan.national[3:6] == "976":
        return True  # pay-per-call in every area code; libphonenumber takes it for a fixed line
    return plan.kind in _PREMIUM_TYPES
