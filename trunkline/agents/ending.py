"""Has the caller finished? The turn detector, asked about one call: of the latest words only, and once at a time.

An answer about words that are no longer the latest is void. One that fails, or does not come in time, leaves silence to
tell, and counts in the detector's health; a detector that keeps failing is left alone until its next probe is due.
"""

import asyncio
from collections.abc import Callable
from contextvars import copy_context

from trunkline.agents.deadline import After, Deadline
from trunkline.agents.health import Health
from trunkline.clock import Clock
from trunkline.errors import ProviderError
from trunkline.ports import ON_BEHALF_OF, TurnDetector
from trunkline.types import CallId

ANSWER_S = 0.2
"""Later than that silence has told."""


class Ending:
    """Methods return at once; close() is idempotent."""

    def __init__(
        self,
        detector: TurnDetector,
        key: str,
        health: Health,
        call_id: CallId,
        clock: Clock,
        after: After,
        told: Callable[[float], None],
    ) -> None:
        """`told(probability)` must hold its owner weakly."""
        self._detector, self._key, self._health = detector, key, health
        self._clock, self._after, self._told = clock, after, told
        self._context = copy_context()
        self._context.run(ON_BEHALF_OF.set, call_id)
        self._words = self._language = ""
        self._task: asyncio.Task[None] | None = None

    def heard(self, words: str, language: str) -> None:
        """All that the caller has said in this turn, so far."""
        if (words, language) == (self._words, self._language):
            return
        self._words, self._language = words, language
        if words and self._task is None and self._health.of(self._key).ready(self._clock.now()):
            self._task = asyncio.get_running_loop().create_task(self._ask(), context=self._context)

    def forget(self) -> None:
        """Another turn begins."""
        self._words = ""

    def close(self) -> None:
        task, self._task = self._task, None
        self._words = ""
        if task is not None:
            task.cancel()

    async def _ask(self) -> None:
        asked = ""
        try:
            while self._words and asked != self._words:
                asked = self._words
                probability = await self._answer(asked)
                if probability is None:
                    return
                if asked == self._words:
                    self._told(probability)
        finally:
            if self._task is asyncio.current_task():
                self._task = None

    async def _answer(self, words: str) -> float | None:
        self._health.asked(self._key, self._clock.now())
        try:
            with Deadline(self._after, ANSWER_S):
                probability = await self._detector.probability(words, self._language)
            if not 0.0 <= probability <= 1.0:
                raise ProviderError(self._detector.name, "protocol", "no probability", retryable=True)
        except TimeoutError:
            error = ProviderError(self._detector.name, "timeout", "no answer in time", retryable=True)
        except ProviderError as failed:
            error = failed
        except Exception as stranger:
            error = ProviderError(self._detector.name, "protocol", type(stranger).__name__, retryable=True)
        else:
            self._health.succeeded(self._key)
            return probability
        self._health.failed(self._key, error, self._clock.now())
        return None
