"""Callers who wait for a line of a number whose route has a queue."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from tests.gateway.test_routed import ACME, OTHER, OURS, SPARE, Desk, main
from tests.gateway.test_routed import run as run_desk
from tests.gateway.test_slots import Shared
from tests.gateway.test_switchboard import Way
from trunkline.callbacks import CallBack
from trunkline.errors import StoreError
from trunkline.gateway.routed import Elsewhere, Queued
from trunkline.gateway.slots import SlotLimits, Slots
from trunkline.gateway.waiting import ASK_S
from trunkline.numbers.queueing import GONE_S, TURN_S
from trunkline.numbers.resources import Number, Queue, Tenant
from trunkline.ports import Refuse, Revocation
from trunkline.testing.board import arrival, sid
from trunkline.types import CallId

QUEUE = Queue(max_waiting=3, max_wait_s=60, offer_callback=True)


class Room:
    """A number with two lines and a queue."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.board, self.switchboard = desk, desk.board, desk.board.switchboard
        self.shared = Shared()
        self.switchboard.slots = Slots(SlotLimits(), self.shared, self.board.clock, process="one")

    async def put(self, queue: Queue = QUEUE, max_calls: int = 2, **changes: Any) -> None:
        await self.desk.put(*main(queue=queue, max_calls=max_calls, **changes))

    async def comes(self, number: int, **changes: Any) -> CallId | Refuse:
        return await self.desk.comes(number, **changes)

    async def asks(self, number: int, **changes: Any) -> Any:
        """What Twilio asks when the music is over."""
        return await self.desk.comes(number, **changes)

    async def over(self, call_id: CallId) -> None:
        self.board.line_of(call_id).end("caller_hung_up")
        assert self.switchboard.slots is not None
        await self.switchboard.slots._give_back()

    async def full(self, lines: int = 2) -> list[CallId]:
        found = [await self.comes(100 + each) for each in range(lines)]
        assert all(isinstance(each, str) for each in found)
        for each in found:
            self.board.attach(CallId(str(each)))
        return [CallId(str(each)) for each in found]

    def left(self) -> list[str]:
        return [event["why"] for event in self.board.events("left_queue")]


def run(scenario: Callable[[Room], Coroutine[Any, Any, None]]) -> None:
    async def whole(desk: Desk) -> None:
        room = Room(desk)
        try:
            await scenario(room)
        finally:
            room.switchboard.waiting.close()

    run_desk(whole)


def position(found: Any) -> int:
    assert isinstance(found, Queued), found
    return found.turn.position


def test_who_finds_all_lines_taken_waits_and_has_a_record() -> None:
    async def scenario(room: Room) -> None:
        await room.put()
        await room.full()
        assert position(await room.comes(1)) == 1
        assert room.desk.started().provider_call_id == sid(1)
        assert room.board.events("queued") == [{"position": 1, "why": "number_full", "max_wait_s": 60}]
        assert room.switchboard.live_calls == 2
        assert len(room.board.ends()) == 0

    run(scenario)


def test_first_come_first_served() -> None:
    async def scenario(room: Room) -> None:
        await room.put()
        lines = await room.full()
        assert [position(await room.comes(each)) for each in (1, 2, 3)] == [1, 2, 3]
        await room.over(lines[0])
        assert position(await room.asks(3)) == 3
        assert position(await room.asks(2)) == 2  # the slot is kept for the first
        assert isinstance(await room.asks(1), str)
        assert position(await room.asks(2)) == 1
        assert room.board.events("left_queue")[-1] == {"why": "answered", "waited_s": 0.0, "position": 1}
        await room.over(lines[1])
        assert isinstance(await room.asks(2), str)
        assert room.switchboard.live_calls == 2

    run(scenario)


def test_a_second_free_line_is_not_kept_waiting_for_the_first_caller() -> None:
    async def scenario(room: Room) -> None:
        await room.put()
        lines = await room.full()
        for each in (1, 2):
            await room.comes(each)
        for line in lines:
            await room.over(line)
        assert isinstance(await room.asks(2), str)
        assert isinstance(await room.asks(1), str)

    run(scenario)


def test_who_comes_now_does_not_pass_those_who_wait() -> None:
    async def scenario(room: Room) -> None:
        await room.put()
        lines = await room.full()
        await room.comes(1)
        await room.over(lines[0])
        assert position(await room.comes(2)) == 2
        assert isinstance(await room.asks(1), str)

    run(scenario)


def test_more_than_may_wait_go_to_the_overflow_number() -> None:
    async def scenario(room: Room) -> None:
        await room.put(QUEUE.model_copy(update={"max_waiting": 1}), overflow_number=SPARE)
        await room.full()
        position(await room.comes(1))
        sent = await room.comes(2)
        assert isinstance(sent, Elsewhere)
        assert sent.number == SPARE
        assert len(room.switchboard.waiting) == 1

    run(scenario)


def test_who_has_waited_long_enough_goes_to_the_overflow_number() -> None:
    async def scenario(room: Room) -> None:
        await room.put(overflow_number=SPARE)
        await room.full()
        position(await room.comes(1))
        for _ in range(QUEUE.max_wait_s // TURN_S - 1):
            await asyncio.sleep(TURN_S)
            position(await room.asks(1))
        await asyncio.sleep(TURN_S)
        sent = await room.asks(1)
        assert isinstance(sent, Elsewhere)
        assert sent.number == SPARE
        assert room.left() == ["max_wait"]
        assert room.board.ends() == [("overloaded", "max_wait")]

    run(scenario)


def test_who_hangs_up_leaves_and_the_next_moves_up() -> None:
    async def scenario(room: Room) -> None:
        await room.put()
        await room.full()
        for each in (1, 2):
            await room.comes(each)
        room.switchboard.status(sid(1), "completed", 12)
        assert room.board.ends() == [("caller_hung_up", "waiting")]
        assert room.left() == ["hung_up"]
        assert position(await room.asks(2)) == 1
        ended = await room.asks(1)
        assert isinstance(ended, Refuse)
        assert ended.code == "ended"

    run(scenario)


def test_who_is_not_heard_of_any_more_has_hung_up() -> None:
    async def scenario(room: Room) -> None:
        await room.put(QUEUE.model_copy(update={"max_wait_s": 600}))
        await room.full()
        await room.comes(1)
        await asyncio.sleep(GONE_S + 10)
        assert room.board.ends() == [("caller_hung_up", "waiting")]
        assert room.left() == ["not_heard_of"]

    run(scenario)


def test_all_lines_of_the_gateway_are_lines_too() -> None:
    async def scenario(room: Room) -> None:
        await room.put(max_calls=50)
        room.switchboard.limits = replace(room.switchboard.limits, max_calls=1)
        (line,) = await room.full(1)
        assert [position(await room.comes(each)) for each in (1, 2)] == [1, 2]
        await room.over(line)
        assert position(await room.asks(2)) == 2
        assert isinstance(await room.asks(1), str)

    run(scenario)


def test_while_the_store_is_away_the_first_is_counted_here() -> None:
    async def scenario(room: Room) -> None:
        await room.put()
        lines = await room.full()
        for each in (1, 2):
            await room.comes(each)
        room.shared.away = True
        assert position(await room.asks(1)) == 1
        room.board.line_of(lines[0]).end("caller_hung_up")
        assert position(await room.asks(2)) == 2
        assert isinstance(await room.asks(1), str)

    run(scenario)


def test_only_new_calls_over_twilio_of_a_route_with_a_queue_wait() -> None:
    async def scenario(room: Room) -> None:
        await room.put()
        await room.desk.put(Number(number=OTHER, max_calls=1), Tenant(max_calls=2))
        await room.full()
        others: list[dict[str, Any]] = [{"leg": "sip"}, {"why": "leg_lost", "reconnects": 1}, {"to": OTHER}]
        for number, changes in enumerate(others):
            refused = await room.comes(number, **changes)
            assert isinstance(refused, Refuse)
            assert refused.code in ("number_full", "tenant_full")
        assert len(room.switchboard.waiting) == 0

    run(scenario)


def test_who_may_not_wait_asks_for_a_slot_though_others_wait() -> None:
    async def scenario(room: Room) -> None:
        await room.put()
        lines = await room.full()
        await room.comes(1)
        await room.over(lines[0])
        room.shared.held["another process"] = {f"number:{OURS}"}
        refused = await room.comes(2, leg="sip")
        assert isinstance(refused, Refuse)
        assert refused.code == "number_full"

    run(scenario)


def test_a_store_that_hangs_holds_nobody_up_for_long() -> None:
    async def scenario(room: Room) -> None:
        await room.put()
        await room.full()
        for each in (1, 2, 3):
            await room.comes(each)
        room.shared.hangs = True
        began = room.board.clock.now()
        assert position(await room.asks(3)) == 3
        assert room.board.clock.now() - began <= ASK_S

    run(scenario)


def test_who_waits_while_the_gateway_is_stopped_is_told_so() -> None:
    async def scenario(room: Room) -> None:
        await room.put(fallback_number=SPARE)
        await room.full()
        for each in (1, 2):
            await room.comes(each)
        room.switchboard.draining = True
        sent = await room.asks(1)
        assert isinstance(sent, Elsewhere)
        assert (sent.code, sent.number) == ("draining", SPARE)
        room.switchboard.close()
        assert ("drained", "drained") in room.board.ends()
        assert len(room.switchboard.waiting) == 0

    run(scenario)


# --- callbacks ---


class Noted:
    def __init__(self) -> None:
        self.noted: list[CallBack] = []
        self.away = False

    async def note(self, wanted: CallBack) -> None:
        if self.away:
            raise StoreError("the database is away")
        self.noted.append(wanted)


class Ledger:
    def __init__(self) -> None:
        self.granted: list[Any] = []

    def grant(self, given: Any) -> None:
        self.granted.append(given)

    def revoke(self, said: Revocation) -> None: ...

    async def on_disk(self) -> bool:
        return True


def offering(room: Room) -> Noted:
    noted = room.switchboard.waiting.call_backs = Noted()
    room.switchboard.diallers.append(Way("one"))
    return noted


def test_a_callback_is_offered_once_and_noted_by_a_key() -> None:
    async def scenario(room: Room) -> None:
        noted = offering(room)
        await room.put()
        await room.full()
        found: Any = await room.comes(1)
        assert (found.turn.offers, found.turn.takes_key) == (True, True)
        assert not (await room.asks(1)).turn.offers
        waiting = room.desk.started().call_id
        for key in ("2", "1", "1"):
            await room.switchboard.waiting.keyed(sid(1), key)
        told = await room.asks(1)
        assert isinstance(told, Elsewhere)
        assert told.text.startswith("Thank you.")
        (wanted,) = noted.noted
        assert (wanted.tenant, wanted.call_id, wanted.our_number) == (ACME, waiting, OURS)
        assert wanted.number == arrival().from_number
        assert [event["state"] for event in room.board.events("callback")] == ["offered", "waiting"]
        assert room.board.ends() == [("overloaded", "callback")]

    run(scenario)


def test_who_hangs_up_at_once_after_the_key_is_called_back_all_the_same() -> None:
    async def scenario(room: Room) -> None:
        noted = offering(room)
        await room.put()
        await room.full()
        await room.comes(1)
        await room.switchboard.waiting.keyed(sid(1), "1")
        room.switchboard.status(sid(1), "completed", 3)
        assert len(noted.noted) == 1
        assert room.left() == ["callback"]
        assert room.board.ends() == [("caller_hung_up", "waiting")]

    run(scenario)


def test_what_could_not_be_noted_is_said_and_they_go_on_waiting() -> None:
    async def scenario(room: Room) -> None:
        noted = offering(room)
        noted.away = True
        await room.put()
        await room.full()
        await room.comes(1)
        await room.switchboard.waiting.keyed(sid(1), "1")
        found = await room.asks(1)
        assert isinstance(found, Queued)
        assert found.unwritten
        assert not (await room.asks(1)).unwritten

    run(scenario)


def test_nobody_is_offered_what_could_not_be() -> None:
    async def scenario(room: Room) -> None:
        noted = offering(room)
        await room.put()
        await room.full()
        withheld: Any = await room.comes(1, from_number=None)
        assert not withheld.turn.takes_key
        await room.switchboard.waiting.keyed(sid(1), "1")
        room.board.refusing["dial"] = Refuse("country_closed", "outbound.allow = ()")
        assert not (await room.comes(2)).turn.takes_key  # type: ignore[union-attr]
        room.board.refusing["dial"] = Refuse("window", "it is night there")
        assert (await room.comes(3)).turn.takes_key  # type: ignore[union-attr]
        assert noted.noted == []

    run(scenario)


def test_another_tenants_callers_are_not_called_back_under_the_rules() -> None:
    """Their lists are the default tenant's."""

    async def scenario(room: Room) -> None:
        offering(room)
        room.switchboard.consents = Ledger()
        await room.put()
        await room.full()
        assert not (await room.comes(1)).turn.takes_key  # type: ignore[union-attr]

    run(scenario)
