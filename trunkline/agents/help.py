"""The line for a caller who needs help: we call no emergency service, and must not leave what is said then to a model.
Texts and phrases are data (`help.toml`)."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import phonenumbers

from trunkline.agents.languages import primary
from trunkline.agents.script.phrases import Node, parse_phrase
from trunkline.ports import CallFacts

MIN_SCORE = -16.0  # as a wish's (wishes/grammar.py)
WORDS_BEFORE = 3  # in which a negation counts
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


@dataclass(frozen=True, slots=True)
class _Data:
    numbers: Mapping[str, str]
    """By country."""
    lines: Mapping[str, str]
    unknown: Mapping[str, str]
    phrases: Mapping[str, tuple[str, ...]]
    negations: Mapping[str, frozenset[str]]


@cache
def _data() -> _Data:
    read = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
    return _Data(
        {country: number for number, where in read["numbers"].items() for country in where.split()},
        read["lines"],
        read["unknown"],
        {language: tuple(" ".join(_words(each)) for each in said) for language, said in read["phrases"].items()},
        {language: frozenset(words) for language, words in read["negations"].items()},
    )


def asks_for_help(text: str, language: str | None) -> bool:
    """Somebody is to call an emergency service. In the call's language or in English, which people try first."""
    words, data = _words(text), _data()
    spoken = {primary(language or "en"), "en"} & data.phrases.keys()
    return any(_asked(words, phrase, data.negations[each]) for each in spoken for phrase in data.phrases[each])


def _asked(words: list[str], phrase: str, negations: frozenset[str]) -> bool:
    wanted = phrase.split()
    return any(
        words[at : at + len(wanted)] == wanted and negations.isdisjoint(words[max(0, at - WORDS_BEFORE) : at])
        for at in range(len(words) - len(wanted) + 1)
    )


def _words(text: str) -> list[str]:
    return [word.replace("’", "'") for word in _WORD.findall(text.lower())]


@cache
def spoken() -> tuple[Node, ...]:
    """The English phrases that are all words, for a local recogniser's grammar, which hears English alone."""
    said = (phrase for phrase in _data().phrases["en"] if not any(map(str.isdigit, phrase)))
    return tuple(
        parse_phrase(f"[please | I | we | can you | somebody] {each} [please | now | quickly]") for each in said
    )


def doubtful(text: str, score: float | None) -> bool:
    """It fits too badly for an answer that no model may overrule."""
    return (score is None or score < MIN_SCORE) and asks_for_help(text, "en")


def help_line(call: CallFacts, language: str | None) -> str:
    """What to dial where the other party's number is; where that tells nothing, where ours is."""
    ours, theirs = call.to_number, call.from_number
    if call.direction == "outbound":
        ours, theirs = theirs, ours
    data = _data()
    spoken = primary(language or "en")
    spoken = spoken if spoken in data.lines else "en"
    country = _country(theirs) if theirs else _country(ours)
    number = " ".join(data.numbers.get(country, "")) or data.unknown[spoken]
    return data.lines[spoken].format(number=number)


def _country(number: str | None) -> str:
    try:
        return phonenumbers.region_code_for_number(phonenumbers.parse(number or "", None)) or ""
    except phonenumbers.NumberParseException:
        return ""
