"""Who an identity is, in the form that two of them are compared by (RFC 8224 8)."""

import re
from dataclasses import dataclass

import phonenumbers

MAX_CHARS = 256  # of a URI
_SEPARATORS = str.maketrans("", "", " -.()")  # RFC 3966's, and the space people write
_TN_SPEC = re.compile(r"[0-9#*]{1,24}")
_DIGITS = re.compile(r"\+?[0-9#*]+")
_URI = re.compile(r"(sips?|tel):([^\s;?<>]+)[^\s<>]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, repr=False)
class Who:
    """A telephone number in canonical form (E.164 without +, digits, # and *), or a URI. Never logged."""

    kind: str
    """`tn` or `uri`."""
    value: str


def canonical(text: str, country: str | None = None) -> str | None:
    """The number in `text` (RFC 8224 8.3), or None where it is none. `country`: where a number without + was dialled,
    two letters; without it, such a number counts as international."""
    digits = text.translate(_SEPARATORS)
    if len(text) > MAX_CHARS or not _DIGITS.fullmatch(digits):
        return None
    if not digits.startswith("+") and country is not None and digits.isdecimal():
        try:
            parsed = phonenumbers.parse(digits, country)
        except phonenumbers.NumberParseException:
            return None
        if phonenumbers.is_valid_number(parsed):
            return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)[1:]
    bare = digits.removeprefix("+")
    return bare if is_canonical(bare) else None


def is_canonical(number: str) -> bool:
    """Already in the canonical form: tn-spec, and no national number (E.164 has no leading 0, and 15 digits)."""
    return (
        bool(_TN_SPEC.fullmatch(number)) and not number.startswith("0") and (len(number) <= 15 or not number.isdigit())
    )


def who(text: str, country: str | None = None) -> Who | None:
    """Of a number, or a sip:, sips: or tel: URI; one that holds no number counts as a whole (RFC 8224 8.1)."""
    text = text.strip()
    if len(text) > MAX_CHARS:
        return None
    uri = _URI.fullmatch(text)
    number = canonical(uri[2].partition("@")[0] if uri else text, country)
    if number is not None:
        return Who("tn", number)
    return Who("uri", addr_spec(text)) if uri and uri[1].lower() != "tel" else None


def addr_spec(uri: str) -> str:
    """Scheme and host in small letters, without parameters and headers (RFC 8224 8.5)."""
    scheme, _, rest = uri.partition(":")
    rest = re.split(r"[;?]", rest, maxsplit=1)[0]
    user, at, host = rest.rpartition("@")
    return f"{scheme.lower()}:{user}{at}{host.lower()}"
