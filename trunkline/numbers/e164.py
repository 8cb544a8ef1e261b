"""Numbers as an admin writes them: one, a range of them, or all that begin alike. Plain rules, no settings.

    +14155550100                    one
    (415) 555-0100                  one, with a country to read it by
    +14155550100-+14155550199       a range: both ends are in it
    +1415555*                       a beginning

What a number is of (country, kind) is what the numbering plans say (`trunkline.plans`), so a typing mistake is found
where the plan knows no such number. It cannot know whether somebody has the number.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

import phonenumbers
from phonenumbers import PhoneNumberType, ValidationResult

from trunkline.plans import MAX_CHARS, NO_COUNTRY, Plan, plan_of, read
from trunkline.types import E164

Kind = Literal["geographic", "mobile", "geographic_or_mobile", "toll_free", "premium", "shared_cost", "voip", "other"]
"""`geographic_or_mobile`: the plan keeps them apart nowhere (the United States and Canada)."""

MAX_RANGE = 10_000  # a block of four digits, as carriers hand them out
MIN_BEGINNING_DIGITS = 2  # +1* would be a continent
_KINDS: dict[int, Kind] = {
    PhoneNumberType.FIXED_LINE: "geographic",
    PhoneNumberType.MOBILE: "mobile",
    PhoneNumberType.FIXED_LINE_OR_MOBILE: "geographic_or_mobile",
    PhoneNumberType.TOLL_FREE: "toll_free",
    PhoneNumberType.PREMIUM_RATE: "premium",
    PhoneNumberType.SHARED_COST: "shared_cost",
    PhoneNumberType.VOIP: "voip",
}
_LENGTHS = {
    ValidationResult.TOO_SHORT: "too short for a number of its country",
    ValidationResult.TOO_LONG: "too long for a number of its country",
    ValidationResult.INVALID_LENGTH: "no length that numbers of its country have",
    ValidationResult.IS_POSSIBLE_LOCAL_ONLY: "without its area code",
}
_PLAIN = re.compile(r"\+[1-9][0-9]{1,14}", re.ASCII)
_WRITTEN = re.compile(r"\+?[0-9 ()./\-\u00a0\u2010-\u2015]+", re.ASCII)
_RANGE = re.compile(r"(\+[^+]+?)\s*[-\u2013]\s*(\+[^+]+)")
_BEGINNING = re.compile(r"(\+[1-9][0-9]*)\*", re.ASCII)


class BadNumber(ValueError):
    """`str` is one line: the value, and what is wrong with it."""

    def __init__(self, value: str, why: str) -> None:
        super().__init__(value, why)
        self.value, self.why = value, why

    def __str__(self) -> str:
        return f"{self.value!r}: {self.why}"


@dataclass(frozen=True, slots=True)
class Number:
    e164: E164
    country: str | None
    """Two letters; None: a number of no country, such as +800."""
    kind: Kind


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers of the same length, both ends in it."""

    first: E164
    last: E164

    def __len__(self) -> int:
        return int(self.last) - int(self.first) + 1

    def __iter__(self) -> Iterator[E164]:
        return (E164(f"+{number}") for number in range(int(self.first), int(self.last) + 1))

    def __contains__(self, number: str) -> bool:
        return len(number) == len(self.first) and self.first <= number <= self.last

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


@dataclass(frozen=True, slots=True)
class Beginning:
    """All numbers that begin so."""

    digits: str
    """With its +."""

    def __contains__(self, number: str) -> bool:
        return number.startswith(self.digits)

    def __str__(self) -> str:
        return f"{self.digits}*"


def number(text: str, country: str | None = None) -> Number:
    """`country` (two letters): how a number without + is read. Raises BadNumber."""
    written = text.strip()
    if not written:
        raise BadNumber(text, "a phone number is missing")
    if len(written) > MAX_CHARS:
        raise BadNumber(written[:MAX_CHARS] + "...", f"a phone number has {MAX_CHARS} characters at most")
    if _PLAIN.fullmatch(written):
        return _judged(written, plan_of(written), written)
    if not _WRITTEN.fullmatch(written) or "+" in written[1:]:
        raise BadNumber(
            text, "a phone number has digits, spaces, brackets, points and dashes, and a + at its beginning"
        )
    if not written.startswith("+") and country is None:
        raise BadNumber(text, "write it as +COUNTRY NUMBER, or say which country's it is")
    if country is not None and not is_country(country):
        raise BadNumber(country, "is no country that has phone numbers: two letters, such as US")
    try:
        parsed = phonenumbers.parse(written, country)
    except phonenumbers.NumberParseException:
        raise BadNumber(text, f"cannot be read as a number{f' of {country}' if country else ''}") from None
    return _judged(text, read(parsed), f"+{parsed.country_code}{phonenumbers.national_significant_number(parsed)}")


def span(text: str, country: str | None = None) -> Number | Range | Beginning:
    """One number, a range or a beginning. Raises BadNumber."""
    written = text.strip()
    if beginning := _BEGINNING.fullmatch(written):
        return _beginning(written, beginning[1])
    if "*" in written:
        raise BadNumber(text, "a * stands at the end only, behind + and digits: +1415555*")
    if ends := _RANGE.fullmatch(written):
        return _range(text, *ends.groups())
    return number(written, country)


def allowed(found: Number, countries: Collection[str]) -> None:
    """`countries`: two letters each; none: all. Raises BadNumber for a number of another."""
    if countries and found.country not in countries:
        where = found.country or "no country"
        raise BadNumber(found.e164, f"is of {where}, and only {', '.join(sorted(countries))} is allowed")


def is_country(code: str) -> bool:
    """Two letters in capitals, of a country that has numbers of its own."""
    return code in phonenumbers.SUPPORTED_REGIONS


def overlap(one: Number | Range | Beginning, other: Number | Range | Beginning) -> bool:
    """Whether some number is in both."""
    if isinstance(one, Beginning) and isinstance(other, Beginning):
        return one.digits.startswith(other.digits) or other.digits.startswith(one.digits)
    if isinstance(one, Beginning) or isinstance(other, Beginning):
        beginning, rest = (one, other) if isinstance(one, Beginning) else (other, one)
        assert isinstance(beginning, Beginning)
        assert not isinstance(rest, Beginning)
        first, last = _ends(rest)
        # Within a range those that begin so stand together: the least and the greatest of its length decide.
        missing = len(first) - len(beginning.digits)
        return missing >= 0 and beginning.digits + "9" * missing >= first and beginning.digits + "0" * missing <= last
    (first, last), (other_first, other_last) = _ends(one), _ends(other)
    return len(first) == len(other_first) and first <= other_last and other_first <= last


def _ends(of: Number | Range) -> tuple[str, str]:
    return (of.e164, of.e164) if isinstance(of, Number) else (of.first, of.last)


def _judged(text: str, plan: Plan | None, e164: str) -> Number:
    if plan is None or plan.kind == PhoneNumberType.UNKNOWN:
        raise BadNumber(text, _why(e164))
    country = plan.region if plan.region != NO_COUNTRY else None
    return Number(E164(f"+{plan.code}{plan.national}"), country, _KINDS.get(plan.kind, "other"))


def _why(e164: str) -> str:
    try:
        parsed = phonenumbers.parse(e164)
    except phonenumbers.NumberParseException:
        return "begins with no country's calling code"
    reason = phonenumbers.is_possible_number_with_reason(parsed)
    return _LENGTHS.get(reason, "is no number that its country's numbering plan has")


def _range(text: str, first: str, last: str) -> Range:
    low, high = number(first).e164, number(last).e164
    if len(low) != len(high):
        raise BadNumber(text, "both ends of a range have as many digits")
    if low > high:
        raise BadNumber(text, "a range begins with its lowest number")
    found = Range(low, high)
    if len(found) > MAX_RANGE:
        raise BadNumber(text, f"a range has {MAX_RANGE:,} numbers at most, and this one {len(found):,}")
    return found


def _beginning(text: str, digits: str) -> Beginning:
    if len(digits) - 1 < MIN_BEGINNING_DIGITS or len(digits) > len("+123456789012345"):
        raise BadNumber(text, f"a beginning has {MIN_BEGINNING_DIGITS} to 15 digits and a *: +1415555*")
    codes = phonenumbers.COUNTRY_CODE_TO_REGION_CODE
    # A beginning may be shorter than a calling code of three digits; then some code must begin so.
    if not any(digits[1:].startswith(str(code)) or str(code).startswith(digits[1:]) for code in codes):
        raise BadNumber(text, "begins with no country's calling code")
    return Beginning(digits)
