"""The lines a call opens with, from what is owed: plain. Obligations and a language in; texts, in their order, out.

The texts are data (`lines.toml`, versioned). Who we are is said first and the way out of our calls right behind it:
47 CFR 64.1200(b)(3) wants it within two seconds of the identification. Where consent is asked the question says what
would be kept, and `say_recording` is met by it: "we record this call" would not be true yet.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from trunkline.errors import ConfigError
from trunkline.ports import Door, Obligation, ObligationKind
from trunkline.types import Direction

OURS = Path(__file__).with_name("lines.toml")
FALLBACK = "en"
ORDER: tuple[ObligationKind, ...] = ("say_business", "say_opt_out", "say_ai", "say_recording", "say_callback")
_TEXTS = (
    *("business_in", "business_out", "opt_out_key", "opt_out_number", "ai", "recording", "callback"),
    *("question", "granted", "refused", "withdrawn", "unserved", "and", "star", "hash"),
)
_DOORS: tuple[Door, ...] = ("record", "transcript", "third_party")
_NEEDED = {
    "business_in": "{business}",
    "business_out": "{business}",
    "opt_out_key": "{key}",
    "opt_out_number": "{number}",
    "recording": "{kept}",
    "callback": "{number}",
    "question": "{kept}",
}
MAX_CHARS = 400


@dataclass(frozen=True, slots=True)
class Line:
    kind: str
    """Of ports.ObligationKind."""
    text: str
    basis: str
    """The row of the table that asks for it."""


@dataclass(frozen=True, slots=True)
class Opening:
    lines: tuple[Line, ...] = ()
    question: Line | None = None
    doors: tuple[Door, ...] = ()
    """What is shut until the question is answered with yes."""


@dataclass(frozen=True, slots=True)
class Lines:
    """All texts, by the primary language. `load` makes them."""

    version: str
    texts: Mapping[str, Mapping[str, Any]]

    def speaks(self, language: str) -> bool:
        return _primary(language) in self.texts

    def of(self, language: str) -> Mapping[str, Any]:
        """In English where there are none in that language."""
        return self.texts.get(_primary(language), self.texts[FALLBACK])


@dataclass(frozen=True, slots=True)
class Wording:
    """Ours. Raises ConfigError for a business that cannot be spoken."""

    lines: Lines
    business: str
    callback_number: str | None = None
    opt_out_key: str = "9"
    opt_out_number: str | None = None
    """Whom a machine's owner may call for the same."""

    def __post_init__(self) -> None:
        speakable(self.business)

    def opening(
        self, owed: Iterable[Obligation], direction: Direction, language: str, *, machine: bool = False
    ) -> Opening:
        """`machine`: is to keep it, and has no keys: whoever plays it back is told a number (47 CFR 64.1200(b)(3)). It
        is asked nothing."""
        owed = tuple(owed)
        by_kind = {each.kind: each for each in owed}
        asked = by_kind.get("ask_consent")
        kinds = [kind for kind in ORDER if kind in by_kind and not (asked and kind == "say_recording")]
        said = ((kind, self._text(by_kind[kind], direction, language, machine=machine)) for kind in kinds)
        lines = tuple(Line(kind, text, by_kind[kind].basis) for kind, text in said if text)
        if asked is None or not asked.doors or machine:
            return Opening(lines)
        question = self._filled(self.lines.of(language)["question"], language, asked.doors)
        return Opening(lines, Line("ask_consent", question, asked.basis), asked.doors)

    def notice(self, kept: Sequence[Door], language: str) -> str:
        """To who comes into a call of which that is kept."""
        return self._filled(self.lines.of(language)["recording"], language, kept)

    def say(self, name: str, language: str) -> str:
        """One of the texts without blanks: granted, refused, withdrawn, unserved."""
        return str(self.lines.of(language)[name])

    def everything(self, kept: Sequence[Door], language: str) -> list[str]:
        """What may have to be said in a call where `kept` may be open: to be spoken beforehand."""
        kinds: tuple[ObligationKind, ...] = (*ORDER, "ask_consent")
        owed = [Obligation(kind, tuple(kept) if kind in ("say_recording", "ask_consent") else ()) for kind in kinds]
        openings = [self.opening(owed, "inbound", language), self.opening(owed, "outbound", language)]
        openings.append(self.opening(owed[:-1], "inbound", language))
        openings.append(self.opening(owed, "outbound", language, machine=True))
        texts = [line.text for each in openings for line in each.lines]
        texts += [each.question.text for each in openings if each.question is not None]
        texts += [self.say(name, language) for name in ("granted", "refused", "withdrawn", "unserved")]
        texts += [self.notice(kept, language)] if kept else []
        return list(dict.fromkeys(texts))

    def _text(self, owed: Obligation, direction: Direction, language: str, *, machine: bool) -> str:
        texts = self.lines.of(language)
        match owed.kind:
            case "say_business":
                text = texts["business_in" if direction == "inbound" else "business_out"]
            case "say_opt_out" if machine and (number := self.opt_out_number or self.callback_number):
                return self._filled(texts["opt_out_number"], language, (), number)
            case "say_opt_out":
                text = texts["opt_out_key"]
            case "say_ai":
                text = texts["ai"]
            case "say_recording":
                text = texts["recording"] if owed.doors else ""
            case _:
                text = texts["callback"] if self.callback_number else ""
        return self._filled(text, language, owed.doors)

    def _filled(self, text: str, language: str, doors: Sequence[Door], number: str | None = None) -> str:
        """In one pass: a business called {key} stays one."""
        texts = self.lines.of(language)
        kept = [texts["kept"][door] for door in _DOORS if door in doors]
        together = kept[0] if len(kept) == 1 else f"{', '.join(kept[:-1])} {texts['and']} {kept[-1]}" if kept else ""
        blanks = {
            "business": " ".join(self.business.split()).rstrip("."),
            "number": _digit_by_digit(number or self.callback_number or ""),
            "key": " ".join({"*": texts["star"], "#": texts["hash"]}.get(key, key) for key in self.opt_out_key),
            "kept": together,
        }
        return re.sub(r"\{(\w+)\}", lambda found: blanks[found[1]], text)


def speakable(business: str) -> str:
    """Raises ConfigError."""
    if any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in business) or not business.isprintable():
        raise ConfigError("compliance.business", business, "a name that can be spoken, without control characters")
    if not any(map(str.isalnum, business)):
        raise ConfigError("compliance.business", business, "a name that can be spoken: callers hear it first")
    return business


@cache
def load(path: Path | None = None) -> Lines:
    """`path`: a file whose languages take the place of ours, whole. Raises ConfigError."""
    ours = _read(OURS)
    if path is None:
        return ours
    theirs = _read(path)
    return Lines(theirs.version, {**ours.texts, **theirs.texts})


def _read(path: Path) -> Lines:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError("consent.lines", str(path), f"a TOML file of lines ({error})") from error
    version = found.pop("version", None)
    if not isinstance(version, str) or not version:
        raise ConfigError("consent.lines", str(path), "version is missing: a text, new with every change")
    for language, texts in found.items():
        _check(path, language, texts)
    return Lines(version, found)


def _check(path: Path, language: str, texts: Any) -> None:
    def wrong(key: str, why: str) -> ConfigError:
        return ConfigError("consent.lines", str(path), f"[{language}] {key}: {why}")

    if not isinstance(texts, dict):
        raise wrong("", "a table of texts")
    given = {**texts, **{f"kept.{door}": text for door, text in dict(texts.get("kept") or {}).items()}}
    given.pop("kept", None)
    wanted = [*_TEXTS, *(f"kept.{door}" for door in _DOORS)]
    for key in given:
        if key not in wanted:
            raise wrong(key, "no such text")
    for key in wanted:
        text = given.get(key)
        if not isinstance(text, str) or not text.strip() or len(text) > MAX_CHARS or not text.isprintable():
            raise wrong(key, f"a text of at most {MAX_CHARS} characters, on one line")
        if _NEEDED.get(key, "") not in text:
            raise wrong(key, f"must contain {_NEEDED[key]}")
        for blank in re.findall(r"[{}]|\{\w*\}", text.replace(_NEEDED.get(key, "{}"), "")):
            raise wrong(key, f"{blank} has no meaning here")


def _primary(tag: str) -> str:
    return tag.partition("-")[0].lower()


def _digit_by_digit(number: str) -> str:
    """As a voice is to read it: not as one large number."""
    return " ".join(number.removeprefix("+"))
