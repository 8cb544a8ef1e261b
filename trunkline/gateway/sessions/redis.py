"""Sessions in Redis, for several workers and regions: whoever has the device now goes on where the last one was.

A hash for each session; where there are keys, what was said is sealed in it. What must happen at once (a join, a fenced
write) is a script of Redis's; what is asked of it has a deadline, and one connection that broke is replaced once. A
join that is repeated after that finds itself.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from functools import partial
from typing import Any

from trunkline.errors import SessionsAway, StoreError
from trunkline.gateway.sessions.session import Session, from_fields, to_fields
from trunkline.gateway.sessions.store import Saved, Saving, Spent
from trunkline.privacy.texts import NO_KEYS, TextSeal, is_sealed, key_of
from trunkline.redislink import PREFIX, Link
from trunkline.types import SessionId, TenantId

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
        self._link = Link(url, CONNECTIONS, lambda why: SessionsAway(f"the session store is away ({why})"))
        self._idle_ms = str(round(idle_s * 1000))
        self._seal = seal

    async def key(self, fresh: str) -> str:
        """What join tokens are signed with, by all who share this Redis: `fresh`, where there is none yet."""

        async def ask() -> Any:
            await self._link.redis.set(f"{PREFIX}join-key", fresh, nx=True)
            return await self._link.redis.get(f"{PREFIX}join-key")

        return str(await self._link.asked(ask))

    async def add(self, session: Session) -> bool:
        await self.save([Saving(session)])
        return True

    async def get(self, session_id: SessionId) -> Session | None:
        async def ask() -> Any:
            return await self._link.redis.hgetall(_key(session_id))

        fields = await self._link.asked(ask)
        return await self._read(fields) if fields and "removed" not in fields else None

    async def join(self, session_id: SessionId, number: int, worker: str, region: str) -> Session | Spent | None:
        joiner = secrets.token_hex(8)

        async def ask() -> Any:
            return await self._link.redis.eval(
                _JOIN, 1, _key(session_id), str(number), worker, region, self._idle_ms, joiner
            )

        found = await self._link.asked(ask)
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
            pipeline = self._link.redis.pipeline(transaction=False)
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

        return list(await self._link.asked(ask)) if savings else []

    async def remove(self, session_id: SessionId) -> bool:
        async def ask() -> Any:
            return await self._link.redis.eval(_REMOVE, 1, _key(session_id), self._idle_ms)

        return bool(await self._link.asked(ask))

    # --- a person ---

    async def with_text(self, text: str) -> list[str]:
        """Keys that hold it, opened, or that are named so. What cannot be opened says so."""
        return [key async for key in self._holding(lambda fields: any(text in each for each in fields.values()), text)]

    async def erase(
        self, tenant: TenantId, subject: str, live: Collection[str], without: Callable[[Any, str], Any]
    ) -> int:
        """Sessions of a device or account of that name, or in which it was said (`without`: a text, its numbers gone as
        people write them); but those whose call is live. Whoever holds one learns that it is over, and tokens for it
        open nothing."""

        def theirs(fields: dict[str, str]) -> bool:
            facts = json.loads(fields.get("facts", "{}"))
            mine = facts.get("tenant") == tenant and fields.get("call_id") not in live
            named = subject in (facts.get("device_account"), facts.get("device_id"))
            said = fields.get("said", "")
            return mine and (named or without(said, subject) != said)

        removed = 0
        async for key in self._holding(theirs):
            removed += await self.remove(SessionId(key.removeprefix(_key(SessionId("")))))
        return removed

    async def _holding(self, wanted: Callable[[dict[str, str]], bool], named: str | None = None) -> AsyncIterator[str]:
        cursor: Any = 0
        while True:
            cursor, keys = await self._link.asked(partial(self._link.redis.scan, cursor, match=f"{PREFIX}*", count=500))
            for key in keys:
                if named is not None and named in key:
                    yield key
                elif key.startswith(_key(SessionId(""))):
                    fields: dict[str, str] = await self._link.asked(partial(self._link.redis.hgetall, key))
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
        await self._link.close()


def _place(session_id: SessionId) -> str:
    return f"session/{session_id}"


def _key(session_id: SessionId) -> str:
    return f"{PREFIX}session:{session_id}"
