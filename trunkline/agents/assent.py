"""Yes or no, heard on this machine: to a question that the gateway asks before anything may leave it.

The recogniser is PocketSphinx with an English model. Words of other languages are written in its phones
(`assent.toml`): good enough for a yes and a no, which is all that is asked.
"""

import hashlib
import json
import tomllib
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

from trunkline.agents.languages import primary
from trunkline.agents.local.pool import SpeechPool
from trunkline.agents.local.wire import Message
from trunkline.agents.script.grammar import MAIN, NO, YES, Grammar
from trunkline.agents.script.phrases import parse_phrase
from trunkline.agents.stt.pocketsphinx import Stream
from trunkline.ports import SttEvent
from trunkline.types import Format

PHRASES = Path(__file__).with_name("assent.toml")
FALLBACK = "en"
MIN_YES_SCORE = -13.8
"""Of an utterance that is taken for a yes (local/ears.Heard): what it lets out cannot be taken back, a no can."""
Answer = Literal["yes", "no"]
OTHER = "=other"
_ANSWERS: Mapping[str, Answer] = {YES: "yes", NO: "no"}


@cache
def _phrases() -> Mapping[str, Any]:
    return tomllib.loads(PHRASES.read_text(encoding="utf-8"))


@cache
def grammar(language: str) -> Grammar:
    """English where the language has no phrases."""
    said = _phrases().get(primary(language), _phrases()[FALLBACK])
    meanings = ((YES, "yes"), (NO, "no"), (OTHER, "other"))
    return Grammar(MAIN, tuple((meaning, tuple(map(parse_phrase, said[key]))) for meaning, key in meanings))


def doubtful(text: str, score: float | None, language: str) -> bool:
    """A yes that fits too badly to be one."""
    return (score is None or score < MIN_YES_SCORE) and answer_of(text, language) == "yes"


def answer_of(text: str, language: str) -> Answer | None:
    """What exactly these words say."""
    found = grammar(language).parse(text)
    return _ANSWERS.get(found.intent) if found is not None else None


class Ears:
    """Of all languages that calls may be held in; started once a process."""

    def __init__(self, pool: SpeechPool, languages: Iterable[str]) -> None:
        self._pool = pool
        self._languages = sorted({tag if primary(tag) in _phrases() else FALLBACK for tag in map(primary, languages)})

    async def start(self) -> None:
        """Raises ProviderError."""
        await self._pool.start()
        for language in self._languages:
            await self._pool.preload("ears", listens(language))

    async def learn(self, language: str) -> None:
        """One more. Raises ProviderError."""
        if (known := primary(language)) in _phrases() and known not in self._languages:
            await self._pool.preload("ears", listens(known))
            self._languages.append(known)

    async def close(self) -> None:
        await self._pool.close()

    def open(self, language: str, format: Format, on_event: Callable[[SttEvent], None]) -> Stream:
        known = primary(language) if primary(language) in self._languages else FALLBACK
        doubts = partial(doubtful, language=known)
        return Stream(self._pool, _agent(known), {MAIN: grammar(known)}, format, on_event, doubts)


def listens(language: str) -> Message:
    """What the speech workers are told of a language in the table."""
    fields: dict[str, Any] = {"agent": _agent(language), "grammars": {MAIN: grammar(language).jsgf}}
    if sounds := _phrases()[language].get("sounds"):
        fields["sounds"] = sounds
    return Message("grammars", fields)


@cache
def _agent(language: str) -> str:
    told = json.dumps(_phrases()[language], sort_keys=True)
    return f"assent-{language}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"
