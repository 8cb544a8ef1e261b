"""Sums up the beginning of a long conversation between two turns, in the background: no answer waits for it.

One summary at a time is under way for a call, and none once the call is over. One that fails is asked for again after
the next turn, of the next model where there is one; meanwhile the conversation is told as it was said, up to its limit.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from contextvars import copy_context
from dataclasses import replace
from typing import Any, Protocol

from trunkline.agents.context import SUMMARY_LETTERS, Context, Part, request
from trunkline.agents.deadline import After, Deadline
from trunkline.agents.definition import ContextTerms
from trunkline.agents.invoiced import product_of
from trunkline.errors import ProviderError
from trunkline.ports import HERE, ON_BEHALF_OF, CallFacts, Llm, LlmUsage, Message, TextDelta, Usage
from trunkline.types import CallId


class Told(Protocol):
    """The call's record."""

    def event(self, kind: str, **data: Any) -> None: ...

    def usage(self, usage: Usage) -> None: ...

    def crashed(self, error: BaseException) -> None: ...


class Condensing:
    """One call's, and one agent's. Methods return at once; close() is idempotent."""

    def __init__(
        self,
        terms: ContextTerms | None,
        models: Callable[[], Mapping[str, Llm]],
        failed: Callable[[str, ProviderError], None],
        call: CallFacts,
        told: Told,
        after: After,
    ) -> None:
        """`models`: who may be asked now, the best first, by key. `failed`: told which of them had no summary."""
        self.context = Context(terms)
        self._terms, self._models, self._failed, self._call, self._told = terms, models, failed, call, told
        self._after = after
        self._without: set[str] = set()  # keys that had none since the last summary
        self._left_out = 0  # messages, as the record knows
        self._task: asyncio.Task[None] | None = None

    def between_turns(self, conversation: Sequence[Message]) -> None:
        self._tell_left_out(conversation)
        if self._task is not None or (part := self.context.due(conversation)) is None:
            return
        models = self._models()
        if not models:
            return
        key = next((key for key in models if key not in self._without), next(iter(models)))
        context = copy_context()
        context.run(ON_BEHALF_OF.set, self._call.call_id)
        self._task = asyncio.get_running_loop().create_task(self._sum_up(part, key, models[key]), context=context)

    def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    async def _sum_up(self, part: Part, key: str, model: Llm) -> None:
        try:
            text = await self._ask(part, model)
        except ProviderError as error:
            self._without.add(key)
            if self._without.issuperset(self._models()):
                self._without.clear()
            self._failed(key, error)
            self._told.event("context_not_summarised", provider=model.name, code=error.code, error=str(error))
        except Exception as error:
            self._told.crashed(error)
        else:
            self._without.clear()
            self.context.summed_up(part, text)
            self._told.event("context_summarised", messages=len(part.messages), provider=model.name)
        finally:
            self._task = None

    async def _ask(self, part: Part, model: Llm) -> str:
        """Raises ProviderError. Tools that the model asks for are not used."""
        assert self._terms is not None
        # a name of its own: some providers know a session by its call
        session = model.open(replace(self._call, call_id=CallId(f"{self._call.call_id}-summary")))
        text, told = "", False
        try:
            with Deadline(self._after, self._terms.deadline_ms / 1000):
                async with aclosing(session.reply([request(part)])) as events:
                    async for event in events:
                        if isinstance(event, TextDelta) and len(text) < SUMMARY_LETTERS:
                            text += event.text
                        elif isinstance(event, LlmUsage):
                            self._meter(model, event)
                            told = True
        except (TimeoutError, ProviderError) as error:
            if not told and product_of(model) != HERE:  # nobody tells the tokens of a request that is cut
                self._told.usage(Usage(self._call.call_id, model.name, "llm", "calls", 1, product_of(model)))
            if isinstance(error, ProviderError):
                raise
            raise ProviderError(model.name, "timeout", "no summary came", retryable=True) from None
        finally:
            session.close()
        if not text.strip():
            raise ProviderError(model.name, "protocol", "an empty summary", retryable=True)
        return text

    def _meter(self, model: Llm, used: LlmUsage) -> None:
        call_id = self._call.call_id
        name, product = model.name, product_of(model)
        self._told.usage(Usage(call_id, name, "llm", "tokens_in", used.tokens_in - used.cached_in, product))
        if used.cached_in:
            self._told.usage(Usage(call_id, name, "llm", "cached_tokens_in", used.cached_in, product))
        self._told.usage(Usage(call_id, name, "llm", "tokens_out", used.tokens_out, product))

    def _tell_left_out(self, conversation: Sequence[Message]) -> None:
        """For the record: beyond the limit the oldest are told to nobody, for want of a summary."""
        left_out = self.context.left_out(conversation)
        if left_out > self._left_out:
            self._told.event("context_left_out", messages=left_out)
        self._left_out = left_out
