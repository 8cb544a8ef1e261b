import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest

from tests.gateway.sessions.test_keeper import ASKED, FakeCall
from trunkline.compliance.money.account import SoFar
from trunkline.errors import StoreError
from trunkline.gateway.joining import Joining
from trunkline.gateway.sessions.desk import Opened, SessionDesk, Terms
from trunkline.gateway.sessions.keeper import SessionKeeper
from trunkline.gateway.sessions.memory import MemorySessions
from trunkline.ports import Conflict, Device, Refuse, Registration
from trunkline.testing.clock import ManualClock
from trunkline.types import TenantId

TERMS = Terms("eu", "0", token_s=60, rejoin_s=4200)


class FakeDevices:
    def __init__(self) -> None:
        self.known: dict[str, Device] = {}

    async def register(
        self, tenant: TenantId, device_id: str, device_account: str, said: Registration | None = None
    ) -> Device | Conflict:
        at = ManualClock().wall()
        device = self.known.setdefault(device_id, Device(device_id, tenant, device_account, at, at))
        return device if device.device_account == device_account else Conflict()

    async def get(self, tenant: TenantId, device_id: str) -> Device | None:
        return self.known.get(device_id)


class House:
    def __init__(self, at_most: int = 10) -> None:
        self.clock, self.devices = ManualClock(), FakeDevices()
        self.store = MemorySessions(self.clock, idle_s=600, at_most=at_most)
        self.keeper = SessionKeeper(self.store, self.clock)
        self.no_line: Refuse | None = None
        self.away = False
        self.came: list[str] = []
        self.desk = SessionDesk(
            self.store,
            self.keeper,
            self._key,
            self.devices,
            TERMS,
            lambda: self.no_line,
            lambda name: name == "clinic",
            self.clock,
            self.came.append,
        )

    async def _key(self) -> bytes:
        if self.away:
            raise StoreError("the session store is away")
        return b"k" * 32

    async def open(self, **given: str) -> Opened:
        opened = await self.desk.open(**{"device_id": "kitchen", "device_account": "ann"} | given)
        assert isinstance(opened, Opened), opened
        return opened

    async def join(self, token: str) -> Joining:
        joining = await self.desk.join(token)
        assert isinstance(joining, Joining), joining
        return joining

    async def refused(self, asked: Awaitable[Any]) -> str:
        refused = await asked
        assert isinstance(refused, Refuse), refused
        return refused.code


def run(scenario: Callable[[House], Awaitable[None]], at_most: int = 10) -> None:
    async def whole() -> None:
        await scenario(House(at_most))

    asyncio.run(whole())


def test_a_token_lets_its_device_in_once() -> None:
    async def scenario(house: House) -> None:
        opened = await house.open(agent="clinic")
        assert (opened.expires - house.clock.wall()).total_seconds() == TERMS.token_s
        joining = await house.join(opened.join_token)
        assert (joining.session_id, joining.device_id, joining.device_account) == (opened.session.id, "kitchen", "ann")
        assert (joining.agent, joining.resumed, joining.number, joining.conversation) == ("clinic", False, 1, ())
        assert await house.refused(house.desk.join(opened.join_token)) == "token_used"
        assert house.came == ["joined", "refused"]

    run(scenario)


def test_tokens_that_come_at_once_let_one_in() -> None:
    async def scenario(house: House) -> None:
        token = (await house.open()).join_token
        found = await asyncio.gather(*(house.desk.join(token) for _ in range(10)))
        assert sum(isinstance(each, Joining) for each in found) == 1

    run(scenario)


def test_a_device_that_comes_back_goes_on_where_it_was() -> None:
    async def scenario(house: House) -> None:
        first = await house.join((await house.open()).join_token)
        call = FakeCall()
        house.keeper.begun(first, call)
        call.conversation = (ASKED,)
        call.end_reason = "media_lost"
        call.so_far = SoFar(Decimal("0.3"), 60.0)
        house.keeper.ended(first.session_id, call)
        again = await house.join(first.resume_token)  # written by nobody yet
        assert (again.conversation, again.resumed, again.cut_off, again.number) == ((ASKED,), True, True, 2)
        assert again.so_far == call.so_far
        assert again.agent == "clinic"
        assert await house.refused(house.desk.join(first.resume_token)) == "token_used"
        third = await house.desk.reopen(first.session_id, "ann")
        assert isinstance(third, Opened)
        assert (await house.join(third.join_token)).number == 3
        assert house.came[-3:] == ["resumed", "refused", "resumed"]

    run(scenario)


def test_the_gateways_own_join_needs_no_token_and_uses_up_what_was_given() -> None:
    async def scenario(house: House) -> None:
        opened = await house.open()
        joining = await house.desk.enter(opened.session.id)
        assert isinstance(joining, Joining)
        assert (joining.number, joining.device_id, joining.resumed) == (1, "kitchen", False)
        assert await house.refused(house.desk.join(opened.join_token)) == "token_used"
        assert (await house.join(joining.resume_token)).number == 2
        house.no_line = Refuse("overloaded", "no line is free")
        assert await house.refused(house.desk.enter(opened.session.id)) == "overloaded"
        house.no_line, house.away = None, True
        assert await house.refused(house.desk.enter(opened.session.id)) == "sessions_away"
        house.away = False
        assert await house.desk.end(opened.session.id, "ann") is None
        assert await house.refused(house.desk.enter(opened.session.id)) == "session_over"

    run(scenario)


def test_neither_secret_is_shown() -> None:
    async def scenario(house: House) -> None:
        opened = await house.open()
        joining = await house.join(opened.join_token)
        assert opened.join_token not in repr(opened)
        assert joining.resume_token not in repr(joining)

    run(scenario)


def test_a_token_that_was_not_used_in_time_is_of_no_use() -> None:
    async def scenario(house: House) -> None:
        opened = await house.open()
        house.clock.advance(TERMS.token_s)
        assert await house.refused(house.desk.join(opened.join_token)) == "token_expired"
        assert await house.refused(house.desk.join("nonsense")) == "token_malformed"

    run(scenario)


def test_a_token_is_looked_at_without_using_it_up() -> None:
    async def scenario(house: House) -> None:
        token = (await house.open()).join_token
        assert await house.desk.check(token) is None
        house.away = True
        assert await house.refused(house.desk.check(token)) == "sessions_away"
        house.away = False
        first = await house.join(token)
        assert await house.refused(house.desk.check(token)) == "token_used"
        assert await house.desk.check(first.resume_token) is None
        house.clock.advance(601)
        assert await house.refused(house.desk.check(first.resume_token)) == "session_over"
        house.clock.advance(TERMS.rejoin_s)
        assert await house.refused(house.desk.check(first.resume_token)) == "token_expired"

    run(scenario)


def test_a_session_that_was_idle_for_too_long_is_over() -> None:
    async def scenario(house: House) -> None:
        joining = await house.join((await house.open()).join_token)
        house.clock.advance(601)
        assert await house.refused(house.desk.join(joining.resume_token)) == "session_over"

    run(scenario)


def test_a_full_house_refuses_and_the_token_stays_good() -> None:
    async def scenario(house: House) -> None:
        token = (await house.open()).join_token
        house.no_line = Refuse("overloaded", "no line is free")
        assert await house.refused(house.desk.join(token)) == "overloaded"
        assert await house.refused(house.desk.open("kitchen", "ann")) == "overloaded"
        house.no_line = None
        await house.join(token)

    run(scenario)


def test_a_full_house_lets_its_own_device_come_back() -> None:
    async def scenario(house: House) -> None:
        first = await house.join((await house.open()).join_token)
        house.keeper.begun(first, FakeCall())
        house.no_line = Refuse("overloaded", "no line is free")
        assert (await house.join(first.resume_token)).number == 2

    run(scenario)


def test_a_store_that_is_away_is_said_and_the_token_stays_good() -> None:
    async def scenario(house: House) -> None:
        token = (await house.open()).join_token
        house.away = True
        assert await house.refused(house.desk.join(token)) == "sessions_away"
        with pytest.raises(StoreError):
            await house.desk.open("kitchen", "ann")
        house.away = False
        await house.join(token)
        assert house.came == ["away", "joined"]

    run(scenario)


def test_what_is_not_known_is_refused() -> None:
    async def scenario(house: House) -> None:
        opened = await house.open()
        assert await house.refused(house.desk.open("kitchen", "ann", "ghost")) == "unknown_agent"
        assert await house.refused(house.desk.open("kitchen", "bob")) == "device_taken"
        assert await house.refused(house.desk.reopen(opened.session.id, "bob")) == "not_owner"
        assert await house.refused(house.desk.reopen(type(opened.session.id)("ses_9"), "ann")) == "unknown_session"

    run(scenario)


def test_one_account_has_several_sessions_each_of_its_own() -> None:
    async def scenario(house: House) -> None:
        one, two = await house.open(), await house.open(device_id="hall")
        assert one.session.id != two.session.id
        await house.join(one.join_token)
        assert (await house.join(two.join_token)).number == 1

    run(scenario)


def test_too_many_sessions_are_refused() -> None:
    async def scenario(house: House) -> None:
        await house.open()
        assert await house.refused(house.desk.open("hall", "ann")) == "sessions_full"

    run(scenario, at_most=1)


def test_its_owner_ends_a_session_and_its_call() -> None:
    async def scenario(house: House) -> None:
        joining = await house.join((await house.open()).join_token)
        call = FakeCall()
        house.keeper.begun(joining, call)
        ended = await house.desk.end(joining.session_id, "bob")
        assert ended is not None
        assert (ended.code, call.done) == ("not_owner", [])
        assert await house.desk.end(joining.session_id, "ann") is None
        assert call.done == [("hang_up", "caller_hung_up")]
        assert await house.desk.find(joining.session_id) is None
        assert await house.refused(house.desk.join(joining.resume_token)) == "session_over"
        again = await house.desk.end(joining.session_id, "ann")
        assert again is not None
        assert again.code == "unknown_session"

    run(scenario)
