import asyncio
import json
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

from trunkline.gateway import feed
from trunkline.gateway.api.events import WORDS, _told
from trunkline.gateway.feed import CallFeed
from trunkline.ports import CallEnded, CallEvent, CallStarted, RecordEvent, TurnEnded, TurnRecord, Usage, UsageMetered
from trunkline.types import CallId, TenantId

AT = datetime(2026, 11, 28, 9, tzinfo=UTC)
A, B = TenantId("a"), TenantId("b")
C1, C2 = CallId("c1"), CallId("c2")


class Kept:
    def __init__(self) -> None:
        self.events: list[RecordEvent] = []

    def append(self, event: RecordEvent) -> None:
        self.events.append(event)


def started(call_id: CallId, tenant: TenantId) -> CallStarted:
    return CallStarted(call_id, tenant, "inbound", "sip", "clinic", AT, "+14155550101")


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 10))


def test_a_tenant_hears_of_its_own_calls_and_every_event_is_recorded() -> None:
    async def scenario() -> None:
        kept = Kept()
        calls = CallFeed(kept, {C1: "active"}.get)
        ours, theirs = calls.listen(A), calls.listen(B)
        assert ours is not None
        assert theirs is not None
        events: list[RecordEvent] = [
            started(C1, A),
            CallEvent(C1, AT, "answered", {"secret": 1}),
            TurnEnded(C1, AT, TurnRecord(0, "yes", "good", tools=("book",))),
            UsageMetered(AT, Usage(C1, "sip", "leg", "seconds", 1)),
            CallEnded(C1, AT, "caller_hung_up", by="caller"),
            CallEvent(C1, AT, "recorded"),
            started(C2, B),
        ]
        for event in events:
            calls.append(event)
        assert kept.events == events
        heard = [await ours.next(0.01) for _ in range(5)]
        assert [change and change.type for change in heard] == [
            *("call.started", "call.event", "call.turn", "call.ended"),
            None,
        ]
        assert heard[1] is not None
        assert heard[1].data == {"call_id": "c1", "at": AT.isoformat(), "kind": "answered", "state": "active"}
        assert heard[2] is not None
        assert json.loads(json.dumps(heard[2].data))["tools"] == ["book"]
        other = await theirs.next(0.01)
        assert other is not None
        assert other.data["call_id"] == "c2"
        theirs.close()
        calls.append(CallEnded(C2, AT, "error"))
        assert await theirs.next(0.01) is None

    run(scenario())


def test_a_listener_that_does_not_read_loses_the_oldest_and_is_told_how_many() -> None:
    async def scenario() -> None:
        calls = CallFeed(Kept())
        listener = calls.listen(A)
        assert listener is not None
        calls.append(started(C1, A))
        for number in range(feed.QUEUE + 2):
            calls.append(CallEvent(C1, AT, f"k{number}"))
        lost = await listener.next(0.01)
        assert lost is not None
        assert (lost.type, lost.data) == ("dropped", {"count": 3})
        first = await listener.next(0.01)
        assert first is not None
        assert first.data["kind"] == "k2"

    run(scenario())


def test_an_event_of_another_thread_wakes_who_waits() -> None:
    async def scenario() -> None:
        calls = CallFeed(Kept())
        listener = calls.listen(A)
        assert listener is not None
        waiting = asyncio.create_task(listener.next(5))
        await asyncio.sleep(0)
        await asyncio.to_thread(calls.append, started(C1, A))
        change = await waiting
        assert change is not None
        assert change.type == "call.started"

    run(scenario())


def test_there_are_only_so_many_listeners_and_a_broken_one_ends_no_call() -> None:
    async def scenario() -> None:
        def broken(call_id: CallId) -> str:
            raise RuntimeError

        kept = Kept()
        calls = CallFeed(kept, broken)
        listeners = [calls.listen(A) for _ in range(feed.OF_A_TENANT)]
        assert None not in listeners
        assert calls.listen(A) is None
        others = [calls.listen(TenantId(f"t{each}")) for each in range(feed.LISTENERS - feed.OF_A_TENANT)]
        assert None not in others
        assert calls.listen(TenantId("late")) is None
        calls.append(started(C1, A))
        calls.append(CallEvent(C1, AT, "answered"))
        assert len(kept.events) == 2
        assert listeners[0] is not None
        listeners[0].close()
        assert calls.listen(A) is not None

    run(scenario())


def test_server_sent_events_have_a_heartbeat_and_leave_when_they_are_closed() -> None:
    async def scenario() -> None:
        calls = CallFeed(Kept())
        listener = calls.listen(A)
        assert listener is not None
        told = _told(listener, 0.01)
        assert [await anext(told), await anext(told)] == ["retry: 1000\n\n", ": still here\n\n"]
        calls.append(started(C1, A))
        head, data, *_ = (await anext(told)).split("\n")
        assert head == "event: call.started"
        assert json.loads(data.removeprefix("data: "))["from_number"] == "+14155550101"
        await told.aclose()  # type: ignore[attr-defined]
        assert calls._listeners == ()

    run(scenario())


def test_whoever_may_not_listen_hears_no_words() -> None:
    async def scenario() -> None:
        calls = CallFeed(Kept())
        listener = calls.listen(A)
        assert listener is not None
        told = _told(listener, 0.01, WORDS)
        await anext(told)
        calls.append(started(C1, A))
        calls.append(TurnEnded(C1, AT, TurnRecord(0, "my secret", "an answer")))
        await anext(told)
        head, data, *_ = (await anext(told)).split("\n")
        assert head == "event: call.turn"
        assert not set(WORDS) & set(json.loads(data.removeprefix("data: ")))
        await told.aclose()  # type: ignore[attr-defined]

    run(scenario())
