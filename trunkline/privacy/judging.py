"""What a run of digits is: a card, a phone number, a date. Plain functions of the digits and of how they were written.

Where it is not clear, the answer is the one that hides more: of 13 digits and more nothing is shown that could hold a
card with one digit misheard.
"""

import re
from typing import Literal

Kind = Literal["card", "phone", "email", "ssn", "iban", "number", "name"]

CARD_DIGITS = (13, 19)  # ISO/IEC 7812
PHONE_DIGITS = (7, 15)  # E.164; seven: a number without its area code
NUMBER_DIGITS = 5

_DATE = re.compile(
    r"(?:(?:19|20)\d\d[-/.](?:0?[1-9]|1[0-2])[-/.](?:0?[1-9]|[12]\d|3[01])"
    r"|(?:0?[1-9]|[12]\d|3[01])[-/.](?:0?[1-9]|[12]\d|3[01])[-/.](?:19|20)\d\d)"
    r"(?:[ ,]+\d{1,2})?"  # an hour, whose colon ends the run
)
_DECIMAL = re.compile(r"-?\d{1,3}\.\d+")
_MONEY = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d{1,2})?|\d{1,3}(?:\.\d{3})+,\d{1,2}")
_SSN = re.compile(r"\d{3}[- ]+\d{2}[- ]+\d{4}")
YEAR = re.compile(r"(?:19|20)\d\d")

_IBANS = """
    AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 FI18 FO18
    FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21
    LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SD18 SE24 SI19 SK24
    SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20
"""
IBAN_CHARS = {entry[:2]: int(entry[2:]) for entry in _IBANS.split()}


def is_iban(text: str) -> bool:
    """Whether it begins with one: ISO 13616, its length by country and its check digits."""
    text = "".join(c for c in text if c.isascii() and c.isalnum()).upper()
    length = IBAN_CHARS.get(text[:2])
    if length is None or len(text) < length or not text[2:4].isdigit():
        return False
    number = "".join(str(int(c, 36)) for c in text[4:length] + text[:4])
    return int(number) % 97 == 1


def holds_card(digits: str) -> bool:
    """Whether 13 to 19 of them in a row pass Luhn and begin as cards do."""
    least, most = CARD_DIGITS
    if len(digits) < least:
        return False
    values = [int(digit) for digit in digits]
    sums = ([0], [0])  # up to each place: every digit at an even (odd) place doubled
    for at, value in enumerate(values):
        doubled = value * 2 - 9 * (value > 4)
        for parity in (0, 1):
            sums[parity].append(sums[parity][-1] + (doubled if at % 2 == parity else value))
    for start in range(len(digits) - least + 1):
        if digits[start] not in "23456":  # ISO/IEC 7812: 1 is of airlines, 9 of countries
            continue
        for end in range(start + least, min(start + most, len(digits)) + 1):
            parity = end % 2  # the last digit is not doubled, the one before it is
            if (sums[parity][end] - sums[parity][start]) % 10 == 0:
                return True
    return False


def like_card(groups: list[str]) -> bool:
    """Said or written as cards are: digit by digit, or in fours."""
    if max(map(len, groups)) == 1:
        return len(groups) >= 3
    fours = not any(len(group) % 4 for group in groups)
    return fours and not any(YEAR.fullmatch(group) for group in groups)


def is_plain(text: str) -> bool:
    """A date, a sum of money, a decimal: not about anybody."""
    return any(shape.fullmatch(text) for shape in (_DATE, _DECIMAL, _MONEY))


def kind_of(digits: str, text: str, *, glued: bool = False) -> Kind | None:
    """Of a run as it was written. `glued`: a letter is directly beside it, as in an id."""
    text, count = text.strip(), len(digits)
    if text[:2].isalpha() and is_iban(text):
        return "iban"
    if is_plain(text):
        return None
    if holds_card(digits):
        return "card"
    if glued:
        return None
    if count in (15, 16) and digits[0] in "23456":  # one digit misheard
        return "card"
    if _SSN.fullmatch(text):
        return "ssn"
    if any(is_plain(word) for word in text.split() if not word.isdigit()):
        return None  # one number beside another: "on 28.11.2026 and 5"
    if count > PHONE_DIGITS[1]:
        return "card"
    if count >= PHONE_DIGITS[0]:
        return "phone"
    return "number" if count >= NUMBER_DIGITS else None
