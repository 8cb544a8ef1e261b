"""A wait that ends: as asyncio.timeout, on the timers that its owner has, and set anew for every wait."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any

After = Callable[[float, Callable[[], None]], Any]
"""Call back after so many seconds; the result has cancel()."""


class Deadline:
    """`with Deadline(after, seconds):` around what is awaited. Raises TimeoutError; None seconds: never."""

    __slots__ = ("_after", "_cancelling", "_expired", "_seconds", "_task", "_timer")

    def __init__(self, after: After, seconds: float | None) -> None:
        self._after, self._seconds = after, seconds
        self._timer: Any = None
        self._task: asyncio.Task[Any] | None = None
        self._expired = False
        self._cancelling = 0

    def __enter__(self) -> None:
        if self._seconds is not None:
            self._task = asyncio.current_task()
            assert self._task is not None, "a deadline needs a task"
            self._cancelling = self._task.cancelling()
            self._timer = self._after(self._seconds, self._expire)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        ours = self._expired and self._task is not None and self._task.uncancel() <= self._cancelling
        if ours and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _expire(self) -> None:
        self._expired = True
        assert self._task is not None
        self._task.cancel()


async def sleep(after: After, seconds: float) -> None:
    over = asyncio.Event()
    timer = after(seconds, over.set)
    try:
        await over.wait()
    finally:
        timer.cancel()
