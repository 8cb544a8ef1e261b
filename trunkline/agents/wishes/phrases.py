"""From the words of a caller to what they wish. Plain: text in, Wish out; the phrases are data (`en.toml`, ...).

A phrase counts wherever in the words it stands, unless something around it says that it is not meant: a negation
directly before ("don't stop calling"), a question ("how do I get off the list?"), somebody else's words or affairs ("he
said stop calling me"), what follows ("... names", "... before nine"), or a wish to be called after all. In doubt it is
meant: who is called although they said no has been wronged (47 CFR 64.1200(a)(10): any reasonable means).

Whatever language a call is held in, people say this in their own: all tables are looked at, the call's first.
"""

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from trunkline.agents.languages import primary
from trunkline.agents.script.phrases import Choice, Maybe, Node, Series, Slot, Word, parse_phrase
from trunkline.ports import CapturedBy, Wish, WishKind

LANGUAGES = ("en", "es", "de")
KINDS: tuple[WishKind, ...] = ("do_not_call", "keep_nothing")
MAX_CHARACTERS = 2000
"""Of what is looked at: the latest. Nobody speaks more in one breath."""
VERBATIM_CHARACTERS = 500

_GAP = r" (?:, )?"  # every word is followed by one; a comma is no word
_SOME = rf"(?:\w[\w']*{_GAP}){{0,3}}?"
_NEGATED = re.compile(r"(?:do not|never|no|not|nicht|nie|nunca|jamas|keine?)\b")


@dataclass(frozen=True, slots=True)
class Table:
    """One language's."""

    phrases: Mapping[WishKind, tuple[re.Pattern[str], ...]]
    contractions: Mapping[str, str]
    not_before: re.Pattern[str]
    before: re.Pattern[str]
    earlier: re.Pattern[str]
    not_after: re.Pattern[str]
    after: re.Pattern[str]
    later: re.Pattern[str]
    within: re.Pattern[str]

    def wishes(self, text: str, kind: WishKind) -> bool:
        said = f" {self._written_out(text)} "
        return any(self._meant(said, found) for phrase in self.phrases[kind] for found in phrase.finditer(said))

    def _written_out(self, text: str) -> str:
        return " ".join(self.contractions.get(word, word) for word in plain(text).split())

    def _meant(self, said: str, found: re.Match[str]) -> bool:
        before = re.split(r"[.!?;] ", said[: found.start()])[-1]
        after = re.split(r"[.!?;] ", said[found.end() :])
        directly = "" if found[0].endswith(", ") else after[0]
        negated = _NEGATED.match(found[0]) is not None
        return not (
            (self.not_after.match(directly) if negated else self.not_before.search(before))
            or self.before.search(before)
            or self.earlier.search(before)
            or self.within.search(found[0] + after[0][:20])
            or self.after.match(directly)
            or self.later.search(said, found.end())
        )


def wish_of(text: str, language: str = "en", via: CapturedBy = "speech") -> Wish | None:
    """`language`: a tag of RFC 5646, what the call is held in. Never again outweighs keep nothing."""
    said = text[-MAX_CHARACTERS:]
    for kind in KINDS:
        if any(table(name).wishes(said, kind) for name in _first(primary(language))):
            return Wish(kind, text.strip()[-VERBATIM_CHARACTERS:], via)
    return None


def _first(language: str) -> tuple[str, ...]:
    return tuple(sorted(LANGUAGES, key=lambda name: name != language))


def plain(text: str) -> str:
    """Lower case without accents; of what is no word only the ends of sentences and commas are left."""
    text = unicodedata.normalize("NFKD", text.lower().replace("ß", "ss").replace("’", "'").replace("‘", "'"))
    text = "".join(each for each in text if not unicodedata.combining(each))
    return " ".join(re.findall(r"\w[\w']*|[.!?;,]", text))


@cache
def table(language: str) -> Table:
    found = _read(language)
    unless = found["unless"]
    return Table(
        {kind: tuple(_compiled((text,), r"(?<= ){}") for text in found[kind]) for kind in KINDS},
        found["contractions"],
        _compiled(unless["not_before"], r"(?:^|(?<= )){}(?<!, )$"),
        _compiled(unless["before"], r"(?:^|(?<= )){}(?<!, )$"),
        _compiled(unless["earlier"], r"(?:^|(?<= )){}"),
        _compiled(unless["not_after"], "{}"),
        _compiled(unless["after"], "{}"),
        _compiled(unless["later"], r"(?<= ){}"),
        _compiled(unless["within"], r"\b{}"),
    )


@cache
def spoken() -> Mapping[WishKind, tuple[Node, ...]]:
    """What the local recogniser, which knows English alone, is to hear."""
    return {kind: tuple(map(parse_phrase, _read("en")["spoken"][kind])) for kind in KINDS}


def _read(language: str) -> dict[str, Any]:
    text = (files("trunkline.agents.wishes") / f"{language}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _compiled(phrases: Iterable[str], around: str) -> re.Pattern[str]:
    """One that matches nothing where there are none."""
    return re.compile("|".join(around.replace("{}", _regex(parse_phrase(text))) for text in phrases) or r"(?!)")


def _regex(node: Node) -> str:
    match node:
        case Word(text):
            return re.escape(text) + _GAP
        case Slot():
            return _SOME
        case Series(parts):
            return "".join(map(_regex, parts))
        case Choice(parts):
            return f"(?:{'|'.join(map(_regex, parts))})"
        case Maybe(part):
            return f"(?:{_regex(part)})?"
