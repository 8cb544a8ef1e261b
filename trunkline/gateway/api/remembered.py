"""What the database says of a name, remembered for a moment: keys and sessions are on the path of every request.

Nothing is older than FRESH_S while the database answers. While it is away, what it said at most `stale_s` ago still
holds, and it is not asked again for a second. What was asked before `forget` is not remembered after it.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from trunkline.errors import StoreError

FRESH_S = 5.0
STALE_S = 60.0
LOOK_UP_S = 2.0
AWAY_S = 1.0
MOST = 10_000

T = TypeVar("T")


class Remembered(Generic[T]):
    def __init__(
        self, look_up: Callable[[str], Awaitable[T | None]], now: Callable[[], float], stale_s: float = STALE_S
    ) -> None:
        self._look_up, self._now, self._stale_s = look_up, now, stale_s
        self._known: OrderedDict[str, tuple[float, T | None]] = OrderedDict()
        self._away_until = float("-inf")
        self._forgotten = 0

    async def get(self, name: str) -> T | None:
        """None: there is none. Raises StoreError when the database is away and has not said it lately."""
        now = self._now()
        at, found = self._known.get(name, (float("-inf"), None))
        if now - at < FRESH_S:
            return found
        try:
            return await self._ask(name)
        except StoreError:
            if found is not None and now - at < self._stale_s:
                return found
            raise

    async def _ask(self, name: str) -> T | None:
        now = self._now()
        if now < self._away_until:
            raise StoreError("the database is away")
        asked_after = self._forgotten
        try:
            async with asyncio.timeout(LOOK_UP_S):
                found = await self._look_up(name)
        except (StoreError, TimeoutError) as error:
            self._away_until = self._now() + AWAY_S
            raise StoreError(str(error) or "the database is slow") from error
        if asked_after == self._forgotten:
            self._known[name] = (now, found)
            self._known.move_to_end(name)
            while len(self._known) > MOST:
                self._known.popitem(last=False)
        return found

    def forget(self, *names: str) -> None:
        """Of no name: everything."""
        self._forgotten += 1
        if not names:
            self._known.clear()
        for name in names:
            self._known.pop(name, None)
