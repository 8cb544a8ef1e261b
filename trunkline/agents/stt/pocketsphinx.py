"""The `pocketsphinx` ears: the script's grammars, heard in the pool of speech workers. No account, no network.

Each utterance borrows a worker at its first audio and gives it back with its final. Several may be under way: one is
finalised, its final not yet here, when the next begins; finals come in order all the same. What a call has taught of
its line goes from each utterance to those begun after its final (`agents/local/ears.py`, Line).
"""

import asyncio
import hashlib
import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from trunkline.agents import help
from trunkline.agents.definition import AgentDefinition
from trunkline.agents.local.pool import Job, Reply, SpeechPool
from trunkline.agents.local.wire import Message
from trunkline.agents.providers import Services
from trunkline.agents.script.grammar import MAIN, Grammar, grammars
from trunkline.agents.wishes.grammar import doubtful, with_wishes
from trunkline.errors import ConfigError, MisuseError, ProviderError
from trunkline.ports import CallFacts, Expectation, SttEvent, SttFailed, SttFinal, SttPartial
from trunkline.types import ALAW_8K, MULAW_8K, PCM_8K, Format

MAX_UTTERANCES = 4  # of one call, under way: a final takes 30 ms, so more are a worker that hangs


class Pocketsphinx:
    """Takes no options: what it hears is what the script's phrases say."""

    name = "pocketsphinx"
    feed_mode: Literal["all", "gated"] = "gated"
    third_party = False
    free_text = False
    formats: tuple[Format, ...] = (MULAW_8K, PCM_8K, ALAW_8K)

    def __init__(self, definition: AgentDefinition, options: Mapping[str, Any], services: Services) -> None:
        for key in options:
            raise ConfigError(f"stt.{key}", options[key], "no such option; pocketsphinx takes none")
        self.hears_wishes = definition.heeds
        self.grammars = _at_any_time(grammars(definition)) if definition.heeds else grammars(definition)
        if not definition.script.get("intents") and definition.realtime is None:  # there it waits for a briefing
            raise ConfigError("stt.provider", self.name, "hears only the phrases of a script, and this one has none")
        jsgf = {name: grammar.jsgf for name, grammar in self.grammars.items()}
        # Agents share the workers, and an agent's new version is another agent.
        self._agent = hashlib.sha256(json.dumps(jsgf, sort_keys=True).encode()).hexdigest()[:16]
        self._preload = Message("grammars", {"agent": self._agent, "grammars": jsgf})
        self._pool = services.speech_pool or SpeechPool(services.speech_workers)
        self._started = self._loaded = False

    async def start(self) -> None:
        """Raises ProviderError: `bad_request` names words of the script that nobody knows how to say. Idempotent."""
        if self._started:
            return
        await self._pool.start()
        self._started = True
        try:
            await self._pool.preload("ears", self._preload)
            self._loaded = True
        except BaseException:
            await self.close()
            raise

    def open(self, call: CallFacts, format: Format, on_event: Callable[[SttEvent], None]) -> "Stream":
        if format not in self.formats:
            raise MisuseError(f"pocketsphinx does not take {format}")
        doubts = (_doubtful,) if self.hears_wishes else ()
        return Stream(self._pool, self._agent, self.grammars, format, on_event, *doubts)

    async def close(self) -> None:
        """Idempotent."""
        if self._loaded:
            self._loaded = False
            self._pool.forget("ears", self._preload)
        if self._started:
            self._started = False
            await self._pool.close()


def _at_any_time(grammars: Mapping[str, Grammar]) -> dict[str, Grammar]:
    """With what callers wish, and that they need help."""
    return {
        name: replace(grammar, meanings=(*grammar.meanings, ("=help", help.spoken())))
        for name, grammar in with_wishes(grammars).items()
    }


def _doubtful(text: str, score: float | None) -> bool:
    return doubtful(text, score) or help.doubtful(text, score)


_NOTHING = SttPartial("")


@dataclass(slots=True, eq=False)
class _Utterance:
    grammar: Grammar
    job: Job | None = None
    partial: SttPartial | None = None
    outcome: SttFinal | SttFailed | None = None
    """Waits for those of earlier utterances, or for finalize."""


class Stream:
    """One call's ears: an SttStream."""

    def __init__(
        self,
        pool: SpeechPool,
        agent: str,
        grammars: Mapping[str, Grammar],
        format: Format,
        on_event: Callable[[SttEvent], None],
        doubts: Callable[[str, float | None], bool] = lambda text, score: False,
    ) -> None:
        """`doubts`: words that the recogniser has understood, with such a score, are not trusted all the same."""
        self._doubts = doubts
        self._pool, self._agent, self._grammars, self._format = pool, agent, grammars, format
        self._on_event: Callable[[SttEvent], None] | None = on_event
        self._grammar = grammars[MAIN]
        self._line: Mapping[str, Any] | None = None
        self._current: _Utterance | None = None
        self._finishing: deque[_Utterance] = deque()
        self.dropped_bytes = 0
        """Audio of utterances that had already failed."""

    def feed(self, audio: bytes) -> None:
        if self._on_event is None or not audio:
            return
        if self._current is None:
            self._current = self._begin()
        utterance = self._current
        if utterance.outcome is not None or utterance.job is None:
            self.dropped_bytes += len(audio)
            return
        try:
            utterance.job.send("audio", audio)
        except ProviderError as error:
            self._fail(utterance, error)

    def began(self, ago_ms: int) -> None:
        """It is fed speech only."""

    def expect(self, expectation: Expectation) -> None:
        """A grammar that the script does not have (`digits` of another provider's mind) is `main`."""
        self._grammar = self._grammars.get(expectation.grammar, self._grammars[MAIN])

    def finalize(self) -> None:
        """Without audio since the last: nothing was said, and SttFinal says so."""
        if self._on_event is None:
            return
        utterance, self._current = self._current or _Utterance(self._grammar, outcome=SttFinal("", False)), None
        self._finishing.append(utterance)
        if utterance.outcome is None and utterance.job is not None:
            try:
                utterance.job.send("finish")
            except ProviderError as error:
                self._fail(utterance, error)
        if utterance.outcome is not None:
            self._report_soon()

    def cancel(self) -> None:
        """Of the utterance being fed, not of those finalised."""
        if self._current is not None:
            self._release(self._current)
            self._current = None

    def close(self) -> None:
        self._on_event = None
        self.cancel()
        while self._finishing:
            self._release(self._finishing.popleft())

    def _begin(self) -> _Utterance:
        utterance = _Utterance(self._grammar)
        if len(self._finishing) >= MAX_UTTERANCES:
            error = ProviderError("pocketsphinx", "overloaded", "earlier speech is still being heard", retryable=True)
            self._fail(utterance, error)
            return utterance
        setup: dict[str, Any] = {"agent": self._agent, "grammar": utterance.grammar.name}
        setup["encoding"] = self._format.encoding
        if self._line is not None:
            setup["line"] = self._line
        try:
            utterance.job = self._pool.borrow(
                "ears", lambda reply: self._hear(utterance, reply), Message("begin", setup)
            )
        except ProviderError as error:
            self._fail(utterance, error)
        return utterance

    def _hear(self, utterance: _Utterance, reply: Reply) -> None:
        if isinstance(reply, ProviderError):
            self._fail(utterance, reply)
        elif reply.name == "final":
            self._line = reply.fields["line"]
            text, understood = reply.fields["text"], reply.fields["understood"]
            doubted = understood and self._doubts(text, reply.fields["score"])
            utterance.outcome = SttFinal(text, understood and not doubted)
            self._release(utterance)
            self._report()
        elif reply.name == "partial" and utterance is self._current:
            self._partial(utterance, reply.fields)

    def _partial(self, utterance: _Utterance, fields: Mapping[str, Any]) -> None:
        """What is likely, and whole phrases that have settled. Words that were wrong are taken back. One word of a
        longer phrase is not likely yet: a throat that is cleared is a "what" or "when" for a moment."""
        text = fields["text"]
        complete = fields["stable"] and bool(text) and utterance.grammar.complete(text)
        likely = fields["likely"] and " " in text
        partial = SttPartial(text if likely or complete else "", complete)
        if partial != (utterance.partial or _NOTHING) and self._on_event is not None:
            utterance.partial = partial
            self._on_event(partial)

    def _fail(self, utterance: _Utterance, error: ProviderError) -> None:
        """Reported when the utterance is finalised, in its turn; never silence."""
        self._release(utterance)
        retryable = error.retryable
        utterance.outcome = SttFailed(ProviderError("pocketsphinx", error.code, error.detail, retryable=retryable))
        self._report_soon()

    def _report_soon(self) -> None:
        """Not from within a method that the turn machine has called."""
        asyncio.get_running_loop().call_soon(self._report)

    def _report(self) -> None:
        while self._on_event is not None and self._finishing and self._finishing[0].outcome is not None:
            outcome = self._finishing.popleft().outcome
            assert outcome is not None
            self._on_event(outcome)

    def _release(self, utterance: _Utterance) -> None:
        if utterance.job is not None:
            utterance.job.close()
            utterance.job = None
