"""What processes share in Redis beside sessions: budgets, and who is in a call.

What must happen at once is a script of Redis's.
"""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from trunkline.errors import StoreError
from trunkline.ports import Share
from trunkline.redislink import PREFIX, Link
from trunkline.types import TenantId

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
local mine = redis.call('HGET', KEYS[1], ARGV[1])
if not mine then return 0 end
local spent = tonumber(mine) - tonumber(ARGV[2])
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
        self._link = Link(url, 2, lambda why: StoreError(f"budgets: Redis is away ({why})"))
        self._process = secrets.token_hex(8)

    async def take(self, tenant: TenantId, budget: str, share: Share) -> int:
        wanted = (str(share.nano_usd), str(share.limit_nano_usd), str(share.had_nano_usd))
        return int(await self._asked(_TAKE, tenant, budget, *wanted))

    async def give_back(self, tenant: TenantId, budget: str, nano_usd: int) -> None:
        """All of this process's part of it: the rest counts as spent."""
        await self._asked(_GIVE_BACK, tenant, budget, str(nano_usd))

    async def _asked(self, script: str, tenant: TenantId, budget: str, *arguments: str) -> Any:
        key = f"{PREFIX}budget:{tenant}:{budget}"

        async def ask() -> Any:
            return await self._link.redis.eval(script, 1, key, self._process, *arguments, str(BUDGET_MS))

        return await self._link.asked(ask)

    async def close(self) -> None:
        await self._link.close()


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
        self._link = Link(url, 4, lambda why: StoreError(f"slots: Redis is away ({why})"))
        self._scopes: dict[str, Sequence[str]] = {}
        """Of this process's names."""

    async def take(self, tenant: TenantId, name: str, scopes: Mapping[str, int], lease_s: float) -> str | None:
        keys = [_slots_key(tenant, scope) for scope in scopes]
        most = map(str, scopes.values())

        async def ask() -> Any:
            return await self._link.redis.eval(_TAKE_SLOT, len(keys), *keys, name, str(round(lease_s * 1000)), *most)

        self._scopes[name] = tuple(scopes)
        full = int(await self._link.asked(ask))
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
            pipeline = self._link.redis.pipeline(transaction=False)
            for scope, names in by_scope.items():
                for first in range(0, len(names), RENEW_AT_ONCE):
                    some = names[first : first + RENEW_AT_ONCE]
                    pipeline.eval(_RENEW_SLOTS, 1, _slots_key(tenant, scope), str(round(lease_s * 1000)), *some)
            pipeline.ping()
            return await pipeline.execute()

        await self._link.asked(ask)

    async def give_back(self, tenant: TenantId, names: Sequence[str]) -> None:
        async def ask() -> Any:
            pipeline = self._link.redis.pipeline(transaction=False)
            for name in names:
                for scope in self._scopes.get(name, ()):
                    pipeline.zrem(_slots_key(tenant, scope), name)
            return await pipeline.execute()

        await self._link.asked(ask)
        for name in names:
            self._scopes.pop(name, None)

    async def close(self) -> None:
        await self._link.close()


def _slots_key(tenant: TenantId, scope: str) -> str:
    """All of a tenant's in one slot of a Redis cluster, for the script that looks at several."""
    return f"{PREFIX}slots:{{{tenant}}}:{scope}"
