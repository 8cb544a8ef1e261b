"""The way to a Redis, for all that is kept there: sessions, budgets, and who is in a call."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from trunkline.errors import MissingExtra, StoreError

try:
    from redis.asyncio import BlockingConnectionPool, Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError
except ImportError as error:
    raise MissingExtra("redis", "redis") from error

T = TypeVar("T")

PREFIX = "trunkline:"
DEADLINE_S = 1.5  # for whatever is asked
SOCKET_S = 1.0


class Link:
    """Connections that open when they are needed, and are replaced once when they broke. What is asked has a
    deadline."""

    def __init__(self, url: str, connections: int, away: Callable[[str], StoreError]) -> None:
        """`away`: the error, by what went wrong. Raises ValueError for a URL that Redis's library does not take."""
        self._pool = BlockingConnectionPool.from_url(
            url,
            max_connections=connections,
            timeout=SOCKET_S,
            socket_timeout=SOCKET_S,
            socket_connect_timeout=SOCKET_S,
            decode_responses=True,
            retry=Retry(NoBackoff(), 1),
            client_name="trunkline",
        )
        self._away = away
        self.redis: Any = Redis(connection_pool=self._pool)

    async def asked(self, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await ask()
        except (RedisError, OSError, TimeoutError) as error:
            raise self._away(type(error).__name__) from error  # its text may quote what we sent

    async def close(self) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self.redis.aclose()
                await self._pool.disconnect()
        except (RedisError, OSError, TimeoutError):
            pass
