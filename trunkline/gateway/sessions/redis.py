"""Sessions in Redis, for several workers and regions: whoever has the device now goes on where the last one was.

A hash for each session; where there are keys, what was said is sealed in it. What must happen at once (a join, a fenced
write) is a script of Redis's; what is asked of it has a deadline, and one connection that broke is replaced once. A
join that is repeated after that finds itself.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from trunkline.errors import MissingExtra, SessionsAway, StoreError
from trunkline.gateway.sessions.session import Session, from_fields, to_fields
from trunkline.gateway.sessions.store import Saved, Saving, Spent
from trunkline.ports import Share
from trunkline.privacy.texts import NO_KEYS, TextSeal, is_sealed, key_of
from trunkline.types import SessionId, TenantId

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
CONNECTIONS = 8

_JOIN = """
local found = redis.call('HMGET', KEYS[1], 'joins', 'removed', 'joiner')
if not found[1] or found[2] then return 'none' end
if found[3] ~= ARGV[5] then
  if tonumber(found[1]) + 1 ~= tonumber(ARGV[1]) then return 'spent' end
  redis.call('HSET', KEYS[1], 'joins', ARGV[1], 'worker', ARGV[2], 'region', ARGV[3], 'joiner', ARGV[5])
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
return redis.call('HGETALL', KEYS[1])
"""
_SAVE = """
local found = redis.call('HMGET', KEYS[1], 'joins', 'removed')
if found[2] then return 'removed' end
if found[1] and found[1] ~= ARGV[1] then return 'elsewhere' end
if #ARGV > 2 then redis.call('HSET', KEYS[1], unpack(ARGV, 3)) elseif not found[1] then return 'gone' end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 'saved'
"""
_REMOVE = """
local found = redis.call('HMGET', KEYS[1], 'joins', 'removed')
if not found[1] or found[2] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'removed', '1')
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
"""


class RedisSessions:
    """`store.SessionStore`. Opens nothing until it is asked."""

    def __init__(self, url: str, *, idle_s: float, seal: TextSeal | None = None) -> None:
        """Raises ValueError for a URL that Redis's library does not take."""
        self._pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=SOCKET_S,
            socket_timeout=SOCKET_S,
            socket_connect_timeout=SOCKET_S,
            decode_responses=True,
            retry=Retry(NoBackoff(), 1),
            client_name="trunkline",
        )
        self._redis: Any = Redis(connection_pool=self._pool)
        self._idle_ms = str(round(idle_s * 1000))
        self._seal = seal

    async def key(self, fresh: str) -> str:
        """What join tokens are signed with, by all who share this Redis: `fresh`, where there is none yet."""

        async def ask() -> Any:
            await self._redis.set(f"{PREFIX}join-key", fresh, nx=True)
            return await self._redis.get(f"{PREFIX}join-key")

        return str(await self._asked(ask))

    async def add(self, session: Session) -> bool:
        await self.save([Saving(session)])
        return True

    async def get(self, session_id: SessionId) -> Session | None:
        async def ask() -> Any:
            return await self._redis.hgetall(_key(session_id))

        fields = await self._asked(ask)
        return await self._read(fields) if fields and "removed" not in fields else None

    async def join(self, session_id: SessionId, number: int, worker: str, region: str) -> Session | Spent | None:
        joiner = secrets.token_hex(8)

        async def ask() -> Any:
            return await self._redis.eval(
                _JOIN, 1, _key(session_id), str(number), worker, region, self._idle_ms, joiner
            )

        found = await self._asked(ask)
        if not isinstance(found, list | dict):
            return None if found == "none" else Spent()
        return await self._read(found if isinstance(found, dict) else dict(zip(found[::2], found[1::2], strict=True)))

    async def _read(self, fields: dict[str, str]) -> Session:
        """Raises StoreError, also for a key that is not to be had."""
        said = fields.get("said", "")
        if not is_sealed(said):
            return from_fields(fields)
        if self._seal is None:
            raise StoreError(f"the key {key_of(said)!r} is needed: {NO_KEYS}")
        session = from_fields(fields | {"said": "[]"})
        opened = await asyncio.to_thread(self._seal.open, said, _place(session.id))
        return from_fields(fields | {"said": opened})

    async def save(self, savings: Sequence[Saving]) -> list[Saved]:
        async def ask() -> Any:
            pipeline = self._redis.pipeline(transaction=False)
            for saving in savings:
                fields = to_fields(saving.session) if saving.whole else {}
                if fields and self._seal is not None:
                    fields["said"] = self._seal.seal(fields["said"], _place(saving.session.id))
                if fields:
                    await asyncio.sleep(0)  # a long conversation takes half a millisecond to write: the beat goes first
                flat = [text for pair in fields.items() for text in pair]
                joins = str(saving.session.joins)
                pipeline.eval(_SAVE, 1, _key(saving.session.id), joins, self._idle_ms, *flat)
            return await pipeline.execute()

        return list(await self._asked(ask)) if savings else []

    async def remove(self, session_id: SessionId) -> bool:
        async def ask() -> Any:
            return await self._redis.eval(_REMOVE, 1, _key(session_id), self._idle_ms)

        return bool(await self._asked(ask))

    # --- a person ---

    async def with_text(self, text: str) -> list[str]:
        """Keys that hold it, opened, or that are named so. What cannot be opened says so."""
        return [key async for key in self._holding(lambda fields: any(text in each for each in fields.values()), text)]

    async def erase(self, tenant: TenantId, subject: str, live: Collection[str]) -> int:
        """Sessions of a device or account of that name, or in which it was said; but those whose call is live. Whoever
        holds one learns that it is over, and tokens for it open nothing."""

        def theirs(fields: dict[str, str]) -> bool:
            facts = json.loads(fields.get("facts", "{}"))
            mine = facts.get("tenant") == tenant and fields.get("call_id") not in live
            named = subject in (facts.get("device_account"), facts.get("device_id"))
            return mine and (named or subject in fields.get("said", ""))

        removed = 0
        async for key in self._holding(theirs):
            removed += await self.remove(SessionId(key.removeprefix(_key(SessionId("")))))
        return removed

    async def _holding(self, wanted: Callable[[dict[str, str]], bool], named: str | None = None) -> AsyncIterator[str]:
        cursor: Any = 0
        while True:
            cursor, keys = await self._asked(partial(self._redis.scan, cursor, match=f"{PREFIX}*", count=500))
            for key in keys:
                if named is not None and named in key:
                    yield key
                elif key.startswith(_key(SessionId(""))):
                    fields: dict[str, str] = await self._asked(partial(self._redis.hgetall, key))
                    if not fields or "removed" in fields:
                        continue
                    try:
                        session = await self._read(fields)
                    except StoreError as error:
                        if named is not None:
                            yield f"{key}: {error}"
                        continue
                    said = json.dumps(json.loads(to_fields(session)["said"]), ensure_ascii=False)
                    if wanted(fields | {"said": said}):
                        yield key
            if not int(cursor):
                return

    async def close(self) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self._redis.aclose()
                await self._pool.disconnect()
        except (RedisError, OSError, TimeoutError):
            pass

    async def _asked(self, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await ask()
        except (RedisError, OSError, TimeoutError) as error:
            # Its text may quote what we sent.
            raise SessionsAway(f"the session store is away ({type(error).__name__})") from error


_TAKE = """
local taken, mine = 0, tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
for _, each in ipairs(redis.call('HVALS', KEYS[1])) do taken = taken + tonumber(each) end
local wanted, limit, had = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if mine < had then taken, mine = taken + had - mine, had end
mine = math.max(mine, math.min(had + wanted, mine + math.max(0, limit - taken)))
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d', mine))
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return string.format('%d', mine - had)
"""
_GIVE_BACK = """
local spent = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0') - tonumber(ARGV[2])
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HINCRBY', KEYS[1], 'spent', string.format('%d', spent))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 0
"""
BUDGET_MS = 3 * 86_400_000  # each is of one day


class RedisBudgets:
    """`ports.Budgets`, of one process. Lua's numbers are exact to 2^53: nine million USD.

    A hash for each budget: what each process has, and what was spent by those that gave the rest back. A Redis that
    hangs does all that it was asked meanwhile once it goes on, so a process asks for *so much in all*: asked ten times
    it is given once. A Redis that comes back empty learns from each process what it has."""

    def __init__(self, url: str) -> None:
        """Raises ValueError for a URL that Redis's library does not take."""
        self._pool = BlockingConnectionPool.from_url(
            url,
            max_connections=2,
            timeout=SOCKET_S,
            socket_timeout=SOCKET_S,
            socket_connect_timeout=SOCKET_S,
            decode_responses=True,
            client_name="trunkline",
        )
        self._redis: Any = Redis(connection_pool=self._pool)
        self._process = secrets.token_hex(8)

    async def take(self, tenant: TenantId, budget: str, share: Share) -> int:
        wanted = (str(share.nano_usd), str(share.limit_nano_usd), str(share.had_nano_usd))
        return int(await self._asked(_TAKE, tenant, budget, *wanted))

    async def give_back(self, tenant: TenantId, budget: str, nano_usd: int) -> None:
        """All of this process's part of it: the rest counts as spent."""
        await self._asked(_GIVE_BACK, tenant, budget, str(nano_usd))

    async def _asked(self, script: str, tenant: TenantId, budget: str, *arguments: str) -> Any:
        try:
            async with asyncio.timeout(DEADLINE_S):
                key = f"{PREFIX}budget:{tenant}:{budget}"
                return await self._redis.eval(script, 1, key, self._process, *arguments, str(BUDGET_MS))
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreError(f"budgets: Redis is away ({type(error).__name__})") from error

    async def close(self) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self._redis.aclose()
                await self._pool.disconnect()
        except (RedisError, OSError, TimeoutError):
            pass


# Redis's own clock, so that processes' need not agree. Each scope is a sorted set of names by the end of their lease.
_TAKE_SLOT = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
for i, key in ipairs(KEYS) do
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  local others = redis.call('ZCARD', key)
  if redis.call('ZSCORE', key, ARGV[1]) then others = others - 1 end
  if others >= tonumber(ARGV[2 + i]) then return i end
end
for _, key in ipairs(KEYS) do
  redis.call('ZADD', key, now + ARGV[2], ARGV[1])
  redis.call('PEXPIRE', key, ARGV[2])
end
return 0
"""
_RENEW_SLOTS = """
local t = redis.call('TIME')
local until_ms = t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[1]
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], until_ms, ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 0
"""
RENEW_AT_ONCE = 500  # names in one script: Redis serves nobody else meanwhile


class RedisSlots:
    """`ports.SlotStore`."""

    def __init__(self, url: str) -> None:
        """Raises ValueError for a URL that Redis's library does not take."""
        self._pool = BlockingConnectionPool.from_url(
            url,
            max_connections=4,
            timeout=SOCKET_S,
            socket_timeout=SOCKET_S,
            socket_connect_timeout=SOCKET_S,
            decode_responses=True,
            retry=Retry(NoBackoff(), 1),
            client_name="trunkline",
        )
        self._redis: Any = Redis(connection_pool=self._pool)
        self._scopes: dict[str, Sequence[str]] = {}
        """Of this process's names."""

    async def take(self, tenant: TenantId, name: str, scopes: Mapping[str, int], lease_s: float) -> str | None:
        keys = [_slots_key(tenant, scope) for scope in scopes]
        most = map(str, scopes.values())

        async def ask() -> Any:
            return await self._redis.eval(_TAKE_SLOT, len(keys), *keys, name, str(round(lease_s * 1000)), *most)

        self._scopes[name] = tuple(scopes)
        full = int(await self._asked(ask))
        if full == 0:
            return None
        del self._scopes[name]
        return list(scopes)[full - 1]

    async def renew(self, tenant: TenantId, held: Mapping[str, Sequence[str]], lease_s: float) -> None:
        by_scope: dict[str, list[str]] = {}
        for name, scopes in held.items():
            self._scopes[name] = scopes
            for scope in scopes:
                by_scope.setdefault(scope, []).append(name)

        async def ask() -> Any:
            pipeline = self._redis.pipeline(transaction=False)
            for scope, names in by_scope.items():
                for first in range(0, len(names), RENEW_AT_ONCE):
                    some = names[first : first + RENEW_AT_ONCE]
                    pipeline.eval(_RENEW_SLOTS, 1, _slots_key(tenant, scope), str(round(lease_s * 1000)), *some)
            pipeline.ping()
            return await pipeline.execute()

        await self._asked(ask)

    async def give_back(self, tenant: TenantId, names: Sequence[str]) -> None:
        async def ask() -> Any:
            pipeline = self._redis.pipeline(transaction=False)
            for name in names:
                for scope in self._scopes.get(name, ()):
                    pipeline.zrem(_slots_key(tenant, scope), name)
            return await pipeline.execute()

        await self._asked(ask)
        for name in names:
            self._scopes.pop(name, None)

    async def _asked(self, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await ask()
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreError(f"slots: Redis is away ({type(error).__name__})") from error

    async def close(self) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self._redis.aclose()
                await self._pool.disconnect()
        except (RedisError, OSError, TimeoutError):
            pass


def _slots_key(tenant: TenantId, scope: str) -> str:
    """All of a tenant's in one slot of a Redis cluster, for the script that looks at several."""
    return f"{PREFIX}slots:{{{tenant}}}:{scope}"


def _place(session_id: SessionId) -> str:
    return f"session/{session_id}"


def _key(session_id: SessionId) -> str:
    return f"{PREFIX}session:{session_id}"
