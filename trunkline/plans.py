"""The world's numbering plans, as libphonenumber's metadata has them: what country a number is of, and what kind.

The same answers as `phonenumbers.parse`, `region_code_for_number` and `number_type` give (a test compares them), from
the same metadata, at a sixth of their price for plain E.164: they look up every pattern by its text and, for a calling
code of many countries, ask three times what kind a number is. They were half of a decision on a number never seen.
"""

import re
from dataclasses import dataclass
from functools import cache, lru_cache

import phonenumbers
from phonenumbers import PhoneMetadata, PhoneNumber, PhoneNumberDesc, PhoneNumberType
from phonenumbers import shortnumberinfo as short

NO_COUNTRY = phonenumbers.REGION_CODE_FOR_NON_GEO_ENTITY
"""The region of +800 and the like: nothing that `outbound.allow` could hold."""

MAX_CHARS = 32  # of what we look at
MIN_PLAIN_DIGITS, MAX_PLAIN_DIGITS = 8, 15
"""Of what is read without `phonenumbers.parse`. E.164 has 15 at most; below 8 are mostly short numbers."""
REMEMBERED = 4096  # numbers: each is looked at several times for a call

_KINDS = (
    ("premium_rate", PhoneNumberType.PREMIUM_RATE),
    ("toll_free", PhoneNumberType.TOLL_FREE),
    ("shared_cost", PhoneNumberType.SHARED_COST),
    ("voip", PhoneNumberType.VOIP),
    ("personal_number", PhoneNumberType.PERSONAL_NUMBER),
    ("pager", PhoneNumberType.PAGER),
    ("uan", PhoneNumberType.UAN),
    ("voicemail", PhoneNumberType.VOICEMAIL),
)
"""As libphonenumber asks: the first that fits. After them come fixed lines and mobiles."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A number by its numbering plan."""

    code: int
    """The calling code."""
    national: str
    region: str | None
    """NO_COUNTRY where it belongs to none; None where nobody knows. Of an invalid number it may be wrong."""
    kind: int
    """A PhoneNumberType; UNKNOWN: it is not valid."""


@cache
def read_plans() -> None:
    """All of them, once, at the start (0.1 s): read when first asked for they would hold up live audio. Short numbers'
    patterns stay compiled: one that fell out of `re`'s own cache takes milliseconds."""
    phonenumbers.enable_pattern_cache()
    for region in short.SUPPORTED_SHORT_REGIONS:
        PhoneMetadata.short_metadata_for_region(region)
    for code, regions in phonenumbers.COUNTRY_CODE_TO_REGION_CODE.items():
        for region in regions:
            _metadata(code, region)


@lru_cache(maxsize=REMEMBERED)
def plan_of(number: str) -> Plan | None:
    """`number` in any form; None: it cannot be one."""
    if len(number) > MAX_CHARS:
        return None
    plain = _plain(number)
    if plain is not None:
        return _plan(*plain)
    try:
        return read(phonenumbers.parse(number, None))
    except phonenumbers.NumberParseException:
        return None


def read(parsed: PhoneNumber) -> Plan:
    return _plan(parsed.country_code or 0, phonenumbers.national_significant_number(parsed))


def _plain(number: str) -> tuple[int, str] | None:
    """Calling code and the rest, of what `phonenumbers.parse` takes as it is; None: ask it."""
    digits = number[1:]
    if number[:1] != "+" or not (digits.isascii() and digits.isdecimal()) or digits[0] == "0":
        return None
    if not MIN_PLAIN_DIGITS <= len(digits) <= MAX_PLAIN_DIGITS:
        return None
    for length in (1, 2, 3):
        code, national = int(digits[:length]), digits[length:]
        if code in phonenumbers.COUNTRY_CODE_TO_REGION_CODE:
            prefix = _national_prefix(code)
            return None if prefix is not None and prefix.match(national) else (code, national)
    return None


def _plan(code: int, national: str) -> Plan:
    regions = _regions(code)
    if len(regions) == 1:
        region, _ = regions[0]
        return Plan(code, national, region, _country(code, region).kind(national))
    for region, leading in regions:
        if leading is not None:
            if leading.match(national):
                return Plan(code, national, region, _country(code, region).kind(national))
        elif (kind := _country(code, region).kind(national)) != PhoneNumberType.UNKNOWN:
            return Plan(code, national, region, kind)
    return Plan(code, national, None, PhoneNumberType.UNKNOWN)


# --- one country's metadata, compiled --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Pattern:
    lengths: frozenset[int]
    """Empty: any."""
    digits: re.Pattern[str]

    def fits(self, national: str) -> bool:
        return (not self.lengths or len(national) in self.lengths) and self.digits.fullmatch(national) is not None


@dataclass(frozen=True, slots=True)
class _Country:
    general: _Pattern | None
    kinds: tuple[tuple[int, _Pattern], ...]
    fixed: _Pattern | None
    mobile: _Pattern | None
    fixed_is_mobile: bool
    """Nothing tells the two apart."""

    def kind(self, national: str) -> int:
        """A PhoneNumberType."""
        if self.general is None or not self.general.fits(national):
            return PhoneNumberType.UNKNOWN
        for kind, pattern in self.kinds:
            if pattern.fits(national):
                return kind
        fixed = self.fixed is not None and self.fixed.fits(national)
        if fixed and self.fixed_is_mobile:
            return PhoneNumberType.FIXED_LINE_OR_MOBILE
        mobile = not self.fixed_is_mobile and self.mobile is not None and self.mobile.fits(national)
        if fixed:
            return PhoneNumberType.FIXED_LINE_OR_MOBILE if mobile else PhoneNumberType.FIXED_LINE
        return PhoneNumberType.MOBILE if mobile else PhoneNumberType.UNKNOWN


@cache
def _regions(code: int) -> tuple[tuple[str, re.Pattern[str] | None], ...]:
    """The main country first, each with how its numbers begin, if that tells."""
    regions = phonenumbers.COUNTRY_CODE_TO_REGION_CODE.get(code, ())
    return tuple((each, _compiled(_metadata(code, each).leading_digits)) for each in regions)


@cache
def _national_prefix(code: int) -> re.Pattern[str] | None:
    """What `parse` may strip, or write anew, when a number begins like this."""
    return _compiled(_metadata(code, _regions(code)[0][0]).national_prefix_for_parsing)


@cache
def _country(code: int, region: str) -> _Country:
    plan = _metadata(code, region)
    kinds = ((kind, _pattern(getattr(plan, name))) for name, kind in _KINDS)
    return _Country(
        _pattern(plan.general_desc),
        tuple((kind, pattern) for kind, pattern in kinds if pattern is not None),
        _pattern(plan.fixed_line),
        _pattern(plan.mobile),
        plan.same_mobile_and_fixed_line_pattern,
    )


def _metadata(code: int, region: str) -> PhoneMetadata:
    found = PhoneMetadata.metadata_for_region_or_calling_code(code, region)
    assert found is not None, "libphonenumber has a plan for every region it names"
    return found


def _compiled(pattern: str | None) -> re.Pattern[str] | None:
    return re.compile(pattern) if pattern else None


def _pattern(desc: PhoneNumberDesc | None) -> _Pattern | None:
    """None: nothing fits."""
    if desc is None or not desc.national_number_pattern:
        return None
    return _Pattern(frozenset(desc.possible_length), re.compile(desc.national_number_pattern))
