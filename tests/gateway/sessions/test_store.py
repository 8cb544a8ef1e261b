"""What every session store keeps to."""

import asyncio
import socket
from dataclasses import replace
from datetime import UTC, datetime

from tests.gateway.sessions.conftest import IDLE_S, Pass, RunStore
from trunkline.errors import SessionsAway
from trunkline.gateway.sessions.redis import RedisSessions
from trunkline.gateway.sessions.session import Said, Session
from trunkline.gateway.sessions.store import Saving, SessionStore, Spent
from trunkline.ports import Message
from trunkline.testing.ports import lease
from trunkline.types import SessionId, TenantId

AT = datetime(2026, 11, 27, 9, 0, tzinfo=UTC)
ME, OTHER = SessionId("ses_1"), SessionId("ses_2")
NEW = Session(ME, TenantId("default"), "kitchen", "ann", AT, agent="clinic", region="eu", worker="0")
SAID = (Said(Message("caller", "I need a doctor"), AT), Said(Message("agent", "On which day?"), AT))


def test_a_session_is_there_until_it_is_idle(run_store: RunStore) -> None:
    async def scenario(store: SessionStore, pass_time: Pass) -> None:
        assert await store.get(ME) is None
        assert await store.add(NEW)
        assert await store.get(ME) == NEW
        await pass_time(IDLE_S * 0.6)
        assert await store.save([Saving(NEW, whole=False)]) == ["saved"]
        await pass_time(IDLE_S * 0.6)
        assert await store.get(ME) == NEW
        await pass_time(IDLE_S * 0.6)
        assert await store.get(ME) is None
        assert await store.join(ME, 1, "0", "eu") is None

    run_store(scenario)


def test_each_join_is_somebodys_once(run_store: RunStore) -> None:
    async def scenario(store: SessionStore, pass_time: Pass) -> None:
        await store.add(NEW)
        first = await store.join(ME, 1, "w1", "eu")
        assert first == replace(NEW, joins=1, worker="w1")
        assert await store.join(ME, 1, "w2", "us") == Spent()
        assert await store.join(ME, 3, "w2", "us") == Spent()
        assert await store.join(ME, 2, "w2", "us") == replace(NEW, joins=2, worker="w2", region="us")
        assert await store.get(ME) == replace(NEW, joins=2, worker="w2", region="us")

    run_store(scenario)


def test_of_many_who_join_at_once_one_does(run_store: RunStore) -> None:
    async def scenario(store: SessionStore, pass_time: Pass) -> None:
        await store.add(NEW)
        found = await asyncio.gather(*(store.join(ME, 1, f"w{n}", "eu") for n in range(20)))
        assert sum(isinstance(each, Session) for each in found) == 1
        assert sum(isinstance(each, Spent) for each in found) == 19

    run_store(scenario)


def test_who_joins_gets_what_was_saved(run_store: RunStore) -> None:
    async def scenario(store: SessionStore, pass_time: Pass) -> None:
        await store.add(NEW)
        session = await store.join(ME, 1, "w1", "eu")
        assert isinstance(session, Session)
        talked = replace(session, said=SAID, agent="billing", ended_as="media_lost")
        assert await store.save([Saving(talked)]) == ["saved"]
        assert await store.join(ME, 2, "w2", "us") == replace(talked, joins=2, worker="w2", region="us")

    run_store(scenario)


def test_who_no_longer_owns_it_changes_nothing(run_store: RunStore) -> None:
    async def scenario(store: SessionStore, pass_time: Pass) -> None:
        await store.add(NEW)
        old = await store.join(ME, 1, "w1", "eu")
        new = await store.join(ME, 2, "w2", "eu")
        assert isinstance(old, Session)
        assert await store.save([Saving(replace(old, said=SAID)), Saving(old, whole=False)]) == ["elsewhere"] * 2
        assert await store.get(ME) == new

    run_store(scenario)


def test_many_are_saved_in_one_go_each_for_itself(run_store: RunStore) -> None:
    async def scenario(store: SessionStore, pass_time: Pass) -> None:
        await store.add(NEW)
        await store.add(replace(NEW, id=OTHER))
        assert await store.save([]) == []
        stale, good = replace(NEW, joins=7), replace(NEW, id=OTHER, said=SAID)
        assert await store.save([Saving(stale), Saving(good)]) == ["elsewhere", "saved"]
        assert await store.get(OTHER) == good

    run_store(scenario)


def test_what_the_store_has_lost_its_owner_puts_back(run_store: RunStore) -> None:
    async def scenario(store: SessionStore, pass_time: Pass) -> None:
        live = replace(NEW, joins=2, said=SAID)
        assert await store.save([Saving(live, whole=False)]) == ["gone"]
        assert await store.get(ME) is None
        assert await store.save([Saving(live)]) == ["saved"]
        assert await store.join(ME, 3, "w2", "us") == replace(live, joins=3, worker="w2", region="us")

    run_store(scenario)


def test_one_that_was_removed_stays_so(run_store: RunStore) -> None:
    async def scenario(store: SessionStore, pass_time: Pass) -> None:
        await store.add(replace(NEW, said=SAID))
        assert await store.remove(ME)
        assert not await store.remove(ME)
        assert not await store.remove(OTHER)
        assert await store.get(ME) is None
        assert await store.join(ME, 1, "0", "eu") is None
        assert await store.save([Saving(NEW), Saving(NEW, whole=False)]) == ["removed"] * 2
        assert await store.get(ME) is None

    run_store(scenario)


def test_a_redis_that_is_not_there_or_says_nothing_is_away_soon() -> None:
    async def scenario() -> None:
        silent = socket.create_server(("127.0.0.1", 0))  # the kernel takes the connections, nobody answers
        port = silent.getsockname()[1]
        for url in (f"redis://:secret@127.0.0.1:{lease()}/0", f"redis://:secret@127.0.0.1:{port}/0"):
            store = RedisSessions(url, idle_s=IDLE_S)
            asked = (
                store.get(ME),
                store.join(ME, 1, "0", "eu"),
                store.save([Saving(NEW)]),
                store.remove(ME),
                store.key("k"),
            )
            begun = asyncio.get_running_loop().time()
            answers = await asyncio.gather(*asked, return_exceptions=True)
            assert [type(answer) for answer in answers] == [SessionsAway] * len(asked)
            assert "secret" not in str(answers)
            assert asyncio.get_running_loop().time() - begun < 2
            assert await store.save([]) == []
            await store.close()
        silent.close()

    asyncio.run(scenario())
