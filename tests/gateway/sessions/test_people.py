"""A person in Redis: found, erased, and sealed from whoever reads Redis without the key."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tests.gateway.sessions.conftest import SERVER
from trunkline.errors import StoreError
from trunkline.gateway.sessions.redis import RedisSessions
from trunkline.gateway.sessions.session import Said, Session
from trunkline.gateway.sessions.store import Saving
from trunkline.ports import Message
from trunkline.privacy.sealed import KeyRing
from trunkline.privacy.texts import TextSeal
from trunkline.store.subjects import without
from trunkline.types import CallId, SessionId, TenantId

pytestmark = pytest.mark.skipif(not SERVER, reason="TRUNKLINE_TEST_REDIS_URL is not set")

AT = datetime(2026, 11, 27, 9, 0, tzinfo=UTC)
US = TenantId("default")
NUMBER = "+12125550177"
SEAL = TextSeal(KeyRing({"first": bytes(32)}))


def session(name: str, account: str, said: str, call_id: str) -> Session:
    return Session(
        SessionId(name), US, f"device of {account}", account, AT, region="eu", worker="0", call_id=CallId(call_id),
        said=(Said(Message("caller", said), AT),),
    )  # fmt: skip


@asynccontextmanager
async def opened(seal: TextSeal | None) -> AsyncGenerator[RedisSessions]:
    assert SERVER is not None
    store = RedisSessions(SERVER, idle_s=30.0, seal=seal)
    try:
        yield store
    finally:
        await store.close()


@pytest.mark.parametrize("seal", [None, SEAL], ids=["clear", "sealed"])
def test_whose_session_it_is_and_who_was_named_in_one_are_found_and_erased(seal: TextSeal | None) -> None:
    async def scenario() -> None:
        async with opened(seal) as store:
            await store._link.redis.flushdb()
            await store.save(
                [
                    Saving(session("ses_ann", "ann", "It is me, Zoë", "c1")),
                    Saving(session("ses_bob", "bob", f"call {NUMBER}", "c2")),
                    Saving(session("ses_live", "ann", "still here", "c3")),
                    Saving(session("ses_carl", "carl", "nothing", "c4")),
                    Saving(session("ses_dora", "dora", "at 212-555-0177 please", "c5")),
                ]
            )
            assert await store.with_text("Zoë") == ["trunkline:session:ses_ann"]
            assert await store.with_text(NUMBER) == ["trunkline:session:ses_bob"]
            assert await store.erase(US, "ann", {"c3"}, without) == 1
            assert await store.erase(US, NUMBER, (), without) == 2
            assert await store.erase(US, NUMBER, (), without) == 0
            assert await store.with_text(NUMBER) == []
            left = [await store.get(SessionId(f"ses_{name}")) for name in ("ann", "bob", "live", "carl")]
            assert [each is None for each in left] == [True, True, False, False]
            await store._link.redis.hset(f"trunkline:budget:default:number:{NUMBER}:2026-11-28", "spent", "1")
            assert await store.with_text(NUMBER) == [f"trunkline:budget:default:number:{NUMBER}:2026-11-28"]

    asyncio.run(scenario())


def test_who_has_no_key_reads_no_words_and_is_told_which_key() -> None:
    async def scenario() -> None:
        async with opened(SEAL) as store:
            await store._link.redis.flushdb()
            ann = session("ses_ann", "ann", "my words", "c1")
            await store.save([Saving(ann)])
            assert "my words" not in str(await store._link.redis.hgetall("trunkline:session:ses_ann"))
            assert await store.get(ann.id) == ann
            assert await store.join(ann.id, 1, "1", "us") == replace(ann, joins=1, worker="1", region="us")
        async with opened(None) as store:
            with pytest.raises(StoreError, match="the key 'first' is needed"):
                await store.get(ann.id)
            assert await store.with_text("my words") == [
                "trunkline:session:ses_ann: the key 'first' is needed: privacy.keys has none"
            ]

    asyncio.run(scenario())
