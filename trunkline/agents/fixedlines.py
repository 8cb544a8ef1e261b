"""An agent's fixed lines as its voices have spoken them: heard also when no voice is left.

They are asked for once, at start, by nobody's call; until that has worked, again and again.
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
        """Until all are there. Raises nothing of a voice's."""
        for wait_s in chain(RETRY_S, repeat(RETRY_S[-1])):
            try:
                for text in sorted(self._wanted):
                    if self.get(text, format) is None:
                        async with asyncio.timeout(LINE_S):
                            await self._speak(self._minds.best("tts", clock.now()), text, format)
                return
            except (ProviderError, TimeoutError) as error:
                log.warning("fixed lines are not recorded yet: %s", str(error) or "it takes too long")
            await asyncio.sleep(wait_s)

    async def _speak(self, tts: Any, text: str, format: Format) -> None:
        spoken: list[TtsAudio] = []
        async with aclosing(tts.speak(text, format)) as chunks:
            async for chunk in chunks:
                spoken.append(chunk)
        self._minds.lines[text, format] = tuple(spoken)

    def wants(self, text: str) -> bool:
        return text in self._wanted

    def get(self, text: str, format: Format) -> tuple[TtsAudio, ...] | None:
        return self._minds.lines.get((text, format))
