"""What was said in devices' calls reaches the store, and a store that is away reaches nobody's call."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from trunkline.compliance.money.account import SoFar
from trunkline.errors import StoreError
from trunkline.gateway.joining import Joining
from trunkline.gateway.sessions.keeper import LOOK_S, OVER_S, RETRY_MAX_S, SAVE_S, SessionKeeper
from trunkline.gateway.sessions.memory import MemorySessions
from trunkline.gateway.sessions.session import Session
from trunkline.gateway.sessions.store import Saved, Saving
from trunkline.ports import Door, EndedBy, EndReason, Message
from trunkline.testing.board import ManualLoop
from trunkline.testing.clock import ManualClock
from trunkline.types import DEFAULT_TENANT, CallId, SessionId

ME = SessionId("ses_1")
ASKED, ANSWERED = Message("caller", "I need a doctor"), Message("agent", "On which day?")


class FakeCall:
    def __init__(self, name: str = "call_1") -> None:
        self.id = CallId(name)
        self.conversation: tuple[Message, ...] = ()
        self.agent_name = "clinic"
        self.shut_doors: tuple[Door, ...] = ()
        self.so_far = SoFar()
        self.end_reason: EndReason | None = None
        self.done: list[Any] = []

    def hang_up(self, reason: EndReason, by: EndedBy | None = None) -> None:
        self.done.append(("hang_up", reason))

    def finished(self, reason: EndReason, detail: str = "") -> None:
        self.done.append(("finished", reason, detail))


class Store(MemorySessions):
    """Counts what is asked, and is away at will."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock, idle_s=600, at_most=100)
        self.away = False
        self.requests: list[list[Saving]] = []
        self.slow_s = 0.0

    async def save(self, savings: Sequence[Saving]) -> list[Saved]:
        self.requests.append(list(savings))
        await asyncio.sleep(self.slow_s)
        if self.away:
            raise StoreError("the session store is away")
        return await super().save(savings)

    @property
    def wholes(self) -> int:
        return sum(saving.whole for request in self.requests for saving in request)


class Stage:
    def __init__(self, clock: ManualClock) -> None:
        self.clock, self.store = clock, Store(clock)
        self.told: list[tuple[str, int]] = []
        self.keeper = SessionKeeper(self.store, clock, lambda trouble, count: self.told.append((trouble, count)))

    async def joined(self, call: FakeCall, number: int = 1) -> None:
        if number == 1:
            await self.store.add(Session(ME, DEFAULT_TENANT, "kitchen", "ann", self.clock.wall()))
        session = await self.store.join(ME, number, "0", "eu")
        assert isinstance(session, Session)
        self.keeper.joined(session)
        self.keeper.begun(Joining(ME, DEFAULT_TENANT, "kitchen", "ann", ""), call)

    async def stored(self) -> Session:
        session = await self.store.get(ME)
        assert session is not None
        return session

    def ended(self, call: FakeCall, reason: EndReason) -> None:
        call.end_reason = reason
        self.keeper.ended(ME, call)


def run(scenario: Callable[[Stage], Awaitable[None]]) -> None:
    clock = ManualClock()

    async def whole() -> None:
        stage = Stage(clock)
        stage.keeper.start()
        await scenario(stage)
        await stage.keeper.close()

    with asyncio.Runner(loop_factory=lambda: ManualLoop(clock)) as runner:
        runner.run(whole())


def test_what_is_said_is_stored_soon_with_its_time() -> None:
    async def scenario(stage: Stage) -> None:
        call = FakeCall()
        await stage.joined(call)
        await asyncio.sleep(10)
        call.conversation, at = (ASKED,), stage.clock.wall()
        await asyncio.sleep(SAVE_S)
        call.conversation = (ASKED, ANSWERED)
        await asyncio.sleep(SAVE_S)
        session = await stage.stored()
        assert session.conversation == (ASKED, ANSWERED)
        assert [0 <= (said.at - at).total_seconds() <= 2 * SAVE_S for said in session.said] == [True, True]
        assert session.said[0].at < session.said[1].at
        assert (session.call_id, session.agent, session.ended_as) == ("call_1", "clinic", None)

    run(scenario)


def test_what_a_call_costs_is_stored_with_what_is_said_and_cent_by_cent() -> None:
    async def scenario(stage: Stage) -> None:
        call = FakeCall()
        await stage.joined(call)
        await asyncio.sleep(1)
        call.so_far = SoFar(Decimal("0.009"), 20.0)
        await asyncio.sleep(5)
        assert (await stage.stored()).so_far == SoFar()
        call.conversation = (ASKED,)
        await asyncio.sleep(SAVE_S)
        assert (await stage.stored()).so_far == call.so_far
        call.so_far = SoFar(Decimal("0.019"), 40.0)
        await asyncio.sleep(SAVE_S)
        assert (await stage.stored()).so_far == call.so_far
        call.so_far = SoFar(Decimal("0.0195"), 50.0)
        stage.ended(call, "media_lost")
        await asyncio.sleep(SAVE_S)
        assert (await stage.stored()).so_far == call.so_far

    run(scenario)


def test_a_call_that_says_nothing_new_is_only_looked_at() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.joined(FakeCall())
        await asyncio.sleep(20)
        assert stage.store.wholes == 1
        assert 20 / LOOK_S - 3 <= len(stage.store.requests) <= 20 / LOOK_S + 2

    run(scenario)


def test_a_slow_store_gets_one_request_at_a_time_with_the_latest() -> None:
    async def scenario(stage: Stage) -> None:
        call = FakeCall()
        stage.store.slow_s = 5
        await stage.joined(call)
        for number in range(100):
            call.conversation += (Message("caller", str(number)),)
            await asyncio.sleep(0.1)
        assert len(stage.store.requests) <= 3
        await asyncio.sleep(12)
        assert len((await stage.stored()).conversation) == 100

    run(scenario)


def test_a_store_that_is_away_hurts_no_call_and_gets_the_latest_when_it_is_back() -> None:
    async def scenario(stage: Stage) -> None:
        call = FakeCall()
        await stage.joined(call)
        stage.store.away = True
        call.conversation = (ASKED,)
        await asyncio.sleep(60)
        call.conversation = (ASKED, ANSWERED)
        await asyncio.sleep(60)
        assert call.done == []
        assert len(stage.store.requests) < 120 / RETRY_MAX_S + 8  # it is asked less and less often
        assert all(trouble == ("away", 1) for trouble in stage.told)
        stage.store.away = False
        await asyncio.sleep(RETRY_MAX_S)
        assert (await stage.stored()).conversation == (ASKED, ANSWERED)

    run(scenario)


def test_last_words_wait_for_a_store_that_is_away_but_not_for_ever() -> None:
    async def scenario(stage: Stage) -> None:
        call = FakeCall()
        await stage.joined(call)
        stage.store.away = True
        call.conversation = (ASKED,)
        stage.ended(call, "media_lost")
        await asyncio.sleep(OVER_S / 2)
        stage.store.away = False
        await asyncio.sleep(RETRY_MAX_S * 2)
        session = await stage.stored()
        assert (session.conversation, session.ended_as) == ((ASKED,), "media_lost")

        second = FakeCall("call_2")
        await stage.joined(second, 2)
        stage.store.away = True
        stage.ended(second, "caller_hung_up")
        await asyncio.sleep(OVER_S + 2 * RETRY_MAX_S)
        assert ("dropped", 1) in stage.told
        assert stage.keeper._book.over == []

    run(scenario)


def test_a_session_that_was_joined_elsewhere_ends_its_call_here() -> None:
    async def scenario(stage: Stage) -> None:
        call = FakeCall()
        await stage.joined(call)
        call.conversation = (ASKED,)
        await asyncio.sleep(1)
        elsewhere = await stage.store.join(ME, 2, "1", "us")
        call.conversation = (ASKED, ANSWERED)
        await asyncio.sleep(LOOK_S)
        assert call.done == [("finished", "media_lost", "its session goes on elsewhere")]
        assert stage.told == [("moved", 1)]
        stage.ended(call, "media_lost")
        await asyncio.sleep(LOOK_S)
        assert await stage.stored() == elsewhere

    run(scenario)


def test_a_session_that_was_removed_hangs_its_call_up() -> None:
    async def scenario(stage: Stage) -> None:
        call = FakeCall()
        await stage.joined(call)
        await asyncio.sleep(1)
        await stage.store.remove(ME)
        await asyncio.sleep(LOOK_S + SAVE_S)
        assert call.done == [("hang_up", "caller_hung_up")]

    run(scenario)


def test_a_store_that_forgot_everything_is_told_again() -> None:
    async def scenario(stage: Stage) -> None:
        call = FakeCall()
        await stage.joined(call)
        call.conversation = (ASKED,)
        await asyncio.sleep(1)
        stage.store._entries.clear()
        await asyncio.sleep(LOOK_S + 2 * SAVE_S)
        assert (await stage.stored()).conversation == (ASKED,)
        assert call.done == []

    run(scenario)


def test_a_device_that_comes_back_here_takes_its_own_call_over() -> None:
    """Between the join and its leg the old leg's call still writes: as of the new join."""

    async def scenario(stage: Stage) -> None:
        call = FakeCall()
        await stage.joined(call)
        await asyncio.sleep(1)
        session = await stage.store.join(ME, 2, "0", "eu")
        assert isinstance(session, Session)
        stage.keeper.joined(session)
        call.conversation = (ASKED,)
        await asyncio.sleep(LOOK_S * 2)
        stage.keeper.begun(Joining(ME, DEFAULT_TENANT, "kitchen", "ann", "", number=2), call)
        await asyncio.sleep(LOOK_S * 2)
        assert call.done == []
        assert await stage.stored() == replace(
            session, call_id=CallId("call_1"), agent="clinic", said=(await stage.stored()).said
        )
        assert (await stage.stored()).conversation == (ASKED,)

    run(scenario)


def test_a_join_while_an_answer_is_under_way_is_no_farewell() -> None:
    async def scenario(stage: Stage) -> None:
        call = FakeCall()
        await stage.joined(call)
        stage.store.slow_s = 1.0
        await asyncio.sleep(SAVE_S * 1.5)  # the first request is under way
        session = await stage.store.join(ME, 2, "0", "eu")
        assert isinstance(session, Session)
        stage.keeper.joined(session)
        await asyncio.sleep(10)
        assert call.done == []

    run(scenario)


def test_what_is_flushed_is_there_at_once() -> None:
    async def scenario(stage: Stage) -> None:
        call = FakeCall()
        await stage.joined(call)
        call.conversation = (ASKED,)
        await stage.keeper.flush(ME)
        assert (await stage.stored()).conversation == (ASKED,)
        call.conversation = (ASKED, ANSWERED)
        stage.ended(call, "media_lost")
        await stage.keeper.flush(ME)
        assert (await stage.stored()).conversation == (ASKED, ANSWERED)
        count = len(stage.store.requests)
        await stage.keeper.flush(SessionId("ses_2"))
        assert len(stage.store.requests) == count

    run(scenario)


def test_the_last_words_are_stored_before_it_leaves() -> None:
    async def scenario(stage: Stage) -> None:
        call = FakeCall()
        await stage.joined(call)
        call.conversation = (ASKED,)
        stage.ended(call, "drained")
        await stage.keeper.close()
        await stage.keeper.close()
        session = await stage.stored()
        assert (session.conversation, session.ended_as, session.cut_off) == ((ASKED,), "drained", True)

    run(scenario)


def test_a_leg_that_comes_a_minute_after_its_join_is_not_kept() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.add(Session(ME, DEFAULT_TENANT, "kitchen", "ann", stage.clock.wall()))
        call = FakeCall()
        stage.keeper.begun(Joining(ME, DEFAULT_TENANT, "kitchen", "ann", ""), call)
        await asyncio.sleep(LOOK_S * 2)
        assert stage.store.requests == []
        assert stage.keeper.call_of(ME) is None

    run(scenario)
