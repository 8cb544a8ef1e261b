"""The gateway's own lines, spoken on this machine before any caller waits for them: by the agent's voice where that is
a local one, else by espeak.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from trunkline.agents.definition import AgentDefinition
from trunkline.agents.languages import primary
from trunkline.agents.providers import Minds, Services
from trunkline.agents.tts.espeak import Espeak
from trunkline.errors import ConfigError, ProviderError
from trunkline.ports import TtsAudio
from trunkline.types import MULAW_8K, Format

log = logging.getLogger(__name__)


class HouseVoice:
    """Of one language. Between start and close."""

    def __init__(self, definition: AgentDefinition, minds: Minds, services: Services) -> None:
        """`definition` and `minds`: the agent's, in that language. Raises ConfigError, MissingExtra."""
        self._definition, self._services = definition, services
        local = (tts for tts in minds.named("tts").values() if not tts.third_party)
        self._theirs: Any = next(local, None)
        self._own = _espeak(definition, services) if self._theirs is None else None
        self._kept: dict[tuple[str, Format], tuple[TtsAudio, ...]] = {}

    @property
    def _tts(self) -> Any:
        return self._theirs or self._own

    async def start(self, texts: Iterable[str]) -> None:
        """Raises ProviderError: not even espeak speaks."""
        if self._own is not None:
            await self._own.start()
        lines = tuple(texts)
        try:
            await self._keep(lines)
        except ProviderError as error:
            if self._theirs is None:
                raise
            log.warning("the lines that callers hear first are spoken by espeak: %s", error)
            self._theirs, self._own = None, _espeak(self._definition, self._services)
            await self._own.start()
            await self._keep(lines)

    async def _keep(self, lines: Sequence[str]) -> None:
        for text in lines:
            self._kept[text, MULAW_8K] = await self._spoken(text, MULAW_8K)

    async def close(self) -> None:
        """The agent's voice is closed by itself."""
        if self._own is not None:
            await self._own.close()

    def kept(self, text: str, format: Format) -> Sequence[TtsAudio] | None:
        return self._kept.get((text, format))

    async def speak(self, text: str, format: Format) -> Sequence[TtsAudio]:
        """Raises ProviderError."""
        return self.kept(text, format) or await self._spoken(text, format)

    async def _spoken(self, text: str, format: Format) -> tuple[TtsAudio, ...]:
        async with aclosing(self._tts.speak(text, format)) as chunks:
            return tuple([chunk async for chunk in chunks])


def _espeak(definition: AgentDefinition, services: Services) -> Espeak:
    try:
        return Espeak(definition, {}, services)
    except ConfigError:  # no such language
        return Espeak(replace(definition, language="en-US"), {}, services)


def voices(
    agents: Iterable[tuple[AgentDefinition, Minds]], services: Services, spoken: Iterable[str]
) -> Mapping[str, HouseVoice]:
    """By the primary language, for each that an agent speaks: of whoever speaks it first. `spoken`: the languages that
    there are lines in; the others hear them in English."""
    found: dict[str, HouseVoice] = {}
    known = frozenset(spoken)
    for definition, minds in agents:
        for tag in definition.tags:
            if (language := primary(tag)) in found:
                continue
            if language not in known:
                log.warning("there are no opening lines in %s: callers hear them in English ([consent] lines)", tag)
                found.setdefault("en", HouseVoice(replace(definition, language="en-US"), _NO_MINDS, services))
                continue
            found[language] = HouseVoice(definition.in_language(tag), minds.in_language(tag), services)
    return found


def own_voice(definition: AgentDefinition, tag: str, services: Services) -> HouseVoice:
    """In that language, and no agent's: agents may go. Raises MissingExtra."""
    return HouseVoice(definition.in_language(tag), _NO_MINDS, services)


class _NoMinds:
    def named(self, kind: str) -> dict[str, Any]:
        return {}


_NO_MINDS: Any = _NoMinds()
