"""Text as it is spoken: lowercase words as cmudict writes them, with numbers spelled out.

Phrases of the file, typed text and text of any recogniser all pass here, so that they meet as the same words.
"""

# ruff: noqa: SIM905 - word lists read best as words
import re
import unicodedata

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_ABBREVIATIONS = {
    "dr": "doctor",
    "mr": "mister",
    "mrs": "missus",
    "&": "and",
    "%": "percent",
    "+": "plus",
    "ok": "okay",
}
_DIGIT_WORDS = {word: str(value) for value, word in enumerate(_ONES[:10])} | {"oh": "0", "o": "0", "nought": "0"}
_REPEATS = {"double": 2, "triple": 3, "treble": 3}
DIGIT_FILLERS = frozenset("it's its it is the my number ok okay um uh and yes yeah sure appointment code".split())
"""Words around a spoken number that are not part of it."""

_MERIDIEM = re.compile(r"(?<=\d)\s*([ap])\.?\s?m\b\.?|\b([ap])\.\s?m\b\.?")
_TOKEN = re.compile(
    r"'(?:til|em|cause|bout|round)\b|\d+(?::\d\d)?(?:st|nd|rd|th)?\b|\d+|[ap]\.m\.|[^\W\d_]+(?:'[^\W\d_]+)*'?|[&%+]"
)


def words(text: str) -> tuple[str, ...]:
    """The words of `text`; punctuation falls away, `8:30` becomes eight thirty, `Dr.` doctor."""
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'").replace("‘", "'").replace("`", "'")
    text = _MERIDIEM.sub(lambda m: f" {m[1] or m[2]}.m. ", text)
    found: list[str] = []
    for token in _TOKEN.findall(text):
        if token.endswith("'") and not token.endswith("s'"):
            token = token[:-1]
        found += _number(token) if token[0].isdigit() else [_ABBREVIATIONS.get(token, token)]
    return tuple(found)


def spell(number: int) -> list[str]:
    """0 to 9999 in words, the way they are said: 24 -> twenty four, 1250 -> one thousand two hundred fifty."""
    if number < 20:
        return [_ONES[number]]
    if number < 100:
        return [_TENS[number // 10], *([_ONES[number % 10]] if number % 10 else [])]
    head, unit, rest = (
        (number // 1000, "thousand", number % 1000) if number >= 1000 else (number // 100, "hundred", number % 100)
    )
    return [*spell(head), unit, *(spell(rest) if rest else [])]


def spell_digits(digits: str) -> list[str]:
    return [_ONES[int(digit)] for digit in digits]


def say_digits(digits: str) -> str:
    """Digits for a voice, in groups of at most four: 123456 -> `one two three, four five six`."""
    size = 4 if len(digits) % 4 == 0 else 3
    groups = [digits[at : at + size] for at in range(0, len(digits), size)]
    if len(groups) > 1 and len(groups[-1]) == 1:  # no digit is left alone at the end
        groups[-2:] = [groups[-2] + groups[-1]]
    return ", ".join(" ".join(spell_digits(group)) for group in groups)


def spoken_digits(text: str) -> str | None:
    """The digits in `text` if it is a spoken or written number and no more: double three -> 33."""
    digits, repeat = "", 1
    for token in re.findall(r"\d+|[^\W\d_]+(?:'[^\W\d_]+)*", text.lower().replace("’", "'")):
        if token.isdigit() and token.isascii():
            digits += token
        elif token in _DIGIT_WORDS:
            digits += _DIGIT_WORDS[token] * repeat
        elif token in _REPEATS and repeat == 1:
            repeat = _REPEATS[token]
            continue
        elif token not in DIGIT_FILLERS:
            return None
        repeat = 1
    return digits or None


def _number(token: str) -> list[str]:
    if ":" in token:
        hour, _, minute = token.partition(":")
        minutes = [] if minute == "00" else spell(int(minute)) if minute[0] != "0" else ["oh", *spell(int(minute))]
        return [*_number(hour), *minutes]
    digits = "".join(char for char in token if char.isdigit())
    if not digits.isascii():
        return []
    spelled = spell_digits(digits) if len(digits) > 4 or (len(digits) > 1 and digits[0] == "0") else spell(int(digits))
    if len(digits) < len(token):
        last = spelled[-1]
        spelled[-1] = _ORDINALS.get(last) or (last[:-1] + "ieth" if last.endswith("y") else last + "th")
    return spelled
