"""An answer asked for before the caller has surely finished: one request to the model, made while the end of the turn
is still awaited.

It is taken when the words turn out to be the ones that it was asked about, and what it has brought by then is there at
once; else it is dropped, which closes the request. Nothing of it is spoken or done before it is taken: what it asks for
of tools waits among its events. One that failed is as good as none.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any

from trunkline.agents.turns import plain
from trunkline.ports import LlmEvent, LlmUsage, Message

EVENTS_AHEAD = 512
"""Longer answers wait at the model's side."""

Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class Speculation:
    """events() once, or drop()."""

    def __init__(
        self,
        key: str,
        asked: Sequence[Message],
        reply: Callable[[], AsyncGenerator[LlmEvent, None]],
        spawn: Spawn,
    ) -> None:
        self.key, self.asked = key, list(asked)
        self._came: asyncio.Queue[LlmEvent | Exception | None] = asyncio.Queue(EVENTS_AHEAD)
        self._failed = False
        self._task = spawn(self._read(reply))

    def answers(self, key: str, asked: Sequence[Message], *, understood: bool) -> bool:
        """Whether it is the answer to this: the same words, however they are written."""
        return (
            not self._failed
            and understood
            and key == self.key
            and len(asked) == len(self.asked)
            and all(map(_same, asked, self.asked))
        )

    async def events(self) -> AsyncGenerator[LlmEvent, None]:
        """What has come, then the rest as it comes. Closing it closes the request. Raises ProviderError."""
        try:
            while (event := await self._came.get()) is not None:
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self._task.cancel()
            await asyncio.wait({self._task})

    def drop(self) -> list[LlmUsage]:
        """Closes the request: what it has told of its use."""
        self._task.cancel()
        events = list[LlmEvent | Exception | None]()
        while not self._came.empty():
            events.append(self._came.get_nowait())
        return [event for event in events if isinstance(event, LlmUsage)]

    async def _read(self, reply: Callable[[], AsyncGenerator[LlmEvent, None]]) -> None:
        try:
            async with aclosing(reply()) as events:
                async for event in events:
                    await self._came.put(event)
        except Exception as error:
            self._failed = True
            await self._came.put(error)
        else:
            await self._came.put(None)


def _same(message: Message, other: Message) -> bool:
    alike = message.keyed == other.keyed and message.language == other.language
    if message.role == other.role == "caller" and alike:
        return plain(message.text) == plain(other.text)
    return message == other
