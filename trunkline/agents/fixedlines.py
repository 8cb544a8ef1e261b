"""An agent's fixed lines as its voices have spoken them: heard also when no voice is left.

They are asked for at start, by nobody's call, of the best voice that speaks then; while that is not the preferred one,
that one is asked again and again. Who spoke a line is kept with it: a call has one voice.
"""

import asyncio
import logging
from contextlib import aclosing
from itertools import chain, repeat
from typing import Any

from trunkline.agents.definition import AgentDefinition
from trunkline.agents.providers import Minds
from trunkline.clock import Clock
from trunkline.errors import ProviderError
from trunkline.ports import TtsAudio
from trunkline.types import MULAW_8K, Format

LINE_S = 20.0
"""For one: no caller waits for it."""
RETRY_S = (5.0, 30.0, 300.0)

log = logging.getLogger(__name__)


class FixedLines:
    def __init__(self, definition: AgentDefinition, minds: Minds) -> None:
        self._minds = minds
        terms = definition.failover
        texts = (*definition.filler, definition.apology, definition.failure, terms.words)
        texts += (terms.message,) if terms.last_resort == "message" else ()
        self._wanted = {text for text in (*texts, definition.goodbye) if text}

    async def record(self, clock: Clock, format: Format = MULAW_8K) -> None:
        """Until all are there in the preferred voice. Raises nothing of a voice's."""
        voices = self._minds.named("tts")
        preferred = next(iter(voices))
        for wait_s in chain(RETRY_S, repeat(RETRY_S[-1])):
            for key in self._minds.health.order(list(voices), clock.now()):
                if await self._all_spoken(key, voices[key], format):
                    if key == preferred:
                        return
                    break
            await asyncio.sleep(wait_s)

    async def _all_spoken(self, key: str, tts: Any, format: Format) -> bool:
        try:
            for text in sorted(self._wanted):
                if (key, text, format) not in self._minds.lines:
                    async with asyncio.timeout(LINE_S):
                        self._minds.lines[key, text, format] = await _spoken(tts, text, format)
        except (ProviderError, TimeoutError) as error:
            log.warning("fixed lines are not recorded yet by %s: %s", key, str(error) or "it takes too long")
            return False
        return True

    def wants(self, text: str) -> bool:
        return text in self._wanted

    def get(self, text: str, format: Format, key: str) -> tuple[TtsAudio, ...] | None:
        """As the voice of that key has spoken it."""
        return self._minds.lines.get((key, text, format))

    def of_any(self, text: str, format: Format, key: str) -> tuple[TtsAudio, ...] | None:
        """That, or as another voice has, the preferred first: for a call whose voice is failing."""
        found = (self.get(text, format, each) for each in (key, *self._minds.named("tts")))
        return next((line for line in found if line is not None), None)


async def _spoken(tts: Any, text: str, format: Format) -> tuple[TtsAudio, ...]:
    async with aclosing(tts.speak(text, format)) as chunks:
        return tuple([chunk async for chunk in chunks])
