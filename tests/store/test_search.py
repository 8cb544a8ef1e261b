import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from trunkline.ports import (
    CallEnded,
    CallEvent,
    CallQuery,
    CallStarted,
    Cost,
    TurnEnded,
    TurnRecord,
    Usage,
    UsageMetered,
)
from trunkline.privacy.sealed import KeyRing
from trunkline.privacy.texts import TextSeal
from trunkline.store import search
from trunkline.types import CallId, TenantId

AT = datetime(2026, 11, 28, 9, tzinfo=UTC)
A, B = TenantId("a"), TenantId("b")
ANNA, BERT, OURS, OTHER = "+14155550101", "+14155550102", "+14155550199", "+14155550198"
OpenStore = Any  # of conftest.py


def at(minute: float) -> datetime:
    return AT + timedelta(minutes=minute)


def started(name: str, minute: float, **given: Any) -> CallStarted:
    row = {"tenant": A, "direction": "inbound", "leg": "sip", "agent": "clinic"}
    row |= {"from_number": ANNA, "to_number": OURS, "provider_call_id": f"id-{name}"}
    return CallStarted(call_id=CallId(name), at=at(minute), **(row | given))


def event(name: str, minute: float, kind: str, **data: Any) -> CallEvent:
    return CallEvent(CallId(name), at(minute), kind, data)


def turn(name: str, minute: float, heard: str, said: str, total_ms: float | None = None) -> TurnEnded:
    return TurnEnded(CallId(name), at(minute), TurnRecord(0, heard, said, total_ms=total_ms, stt_ms=20.0))


async def four_calls(store: Any) -> None:
    """c1: answered for 60 s, three turns, 0.0150 USD. c2: refused, from us. c3: broken, transferred. c4: live."""
    cost = (Cost("leg", "60", "0.0125"), Cost("fee", "1", "0.0025"), Cost("tax", "1", None))
    for entry in (
        started("c1", 0),
        event("c1", 0, "answered"),
        *(turn("c1", 0.2, "my tooth hurts", "I have a slot at nine", ms) for ms in (300.0, 500.0, 900.0)),
        UsageMetered(at(1), Usage(CallId("c1"), "twilio", "leg", "seconds", 60, "inbound"), cost),
        event("c1", 1, "sip_media", mos=4.1),
        event("c1", 1, "sip_media", mos=3.2),
        CallEnded(CallId("c1"), at(1), "caller_hung_up"),
        started("c2", 2, direction="outbound", from_number=OURS, to_number=BERT, leg="twilio"),
        event("c2", 2, "refused", code="hours"),
        CallEnded(CallId("c2"), at(2), "refused"),
        started("c3", 3, agent="sales", from_number=BERT, to_number=OTHER),
        event("c3", 3, "answered"),
        event("c3", 3.1, "stt_failed"),
        event("c3", 3.1, "transfer", target="desk"),
        turn("c3", 3.2, "100% sure_ly", "Goodbye"),
        CallEnded(CallId("c3"), at(5), "error"),
        started("c4", 6),
    ):
        store.spool.append(entry)
    assert await store.writer.flush()


async def ids(store: Any, tenant: TenantId = A, **query: Any) -> list[str]:
    page = await store.records.search(tenant, CallQuery(**query))
    assert page.next_cursor is None
    return [call["id"] for call in page.calls]


def test_each_question_finds_its_calls_and_no_other(open_store: OpenStore) -> None:
    async def scenario() -> None:
        async with open_store() as store:
            await four_calls(store)
            for query, wanted in (
                ({}, "c4 c3 c2 c1"),
                ({"number": ANNA}, "c4 c1"),
                ({"number": BERT}, "c3 c2"),
                ({"number": OURS}, "c4 c2 c1"),
                ({"number": "+1415555010*"}, "c4 c3 c2 c1"),
                ({"number": "+14155550102*"}, "c3 c2"),
                ({"number": "+44*"}, ""),
                ({"our_number": OURS}, "c4 c2 c1"),
                ({"our_number": BERT}, ""),
                ({"our_number": "+14155550198*"}, "c3"),
                ({"number": BERT, "our_number": OURS}, "c2"),
                ({"number": BERT, "our_number": "+1415555019*"}, "c3 c2"),
                ({"agent": "sales"}, "c3"),
                ({"agent": "sales", "number": ANNA}, ""),
                ({"direction": "outbound"}, "c2"),
                ({"leg": "twilio"}, "c2"),
                ({"end_reason": "refused"}, "c2"),
                ({"ended_by": "policy"}, "c2"),
                ({"live": True}, "c4"),
                ({"live": True, "agent": "sales"}, ""),
                ({"live": False}, "c3 c2 c1"),
                ({"since": at(2), "until": at(6)}, "c3 c2"),
                ({"min_duration_s": 60}, "c3 c1"),
                ({"min_duration_s": 60.001}, "c3"),
                ({"min_cost_usd": Decimal("0.015")}, "c1"),
                ({"min_cost_usd": Decimal("0.0150001")}, ""),
                ({"text": "TOOTH hurts"}, "c1"),
                ({"text": "slot at"}, "c1"),
                ({"text": "100%"}, "c3"),
                ({"text": "sure_"}, "c3"),
                ({"text": "t_oth"}, ""),
                ({"text": "goodbye", "agent": "clinic"}, ""),
                ({"having": frozenset({"errors"})}, "c3"),
                ({"having": frozenset({"refusals"})}, "c2"),
                ({"having": frozenset({"transfers", "errors"})}, "c3"),
                ({"having": frozenset({"transfers", "refusals"})}, ""),
            ):
                assert await ids(store, **query) == wanted.split(), query
                assert await ids(store, B, **query) == [], query

    asyncio.run(scenario())


def test_a_list_shows_what_was_summed_up_at_the_end(open_store: OpenStore) -> None:
    async def scenario() -> None:
        async with open_store() as store:
            await four_calls(store)
            calls = {call["id"]: call for call in (await store.records.search(A, CallQuery())).calls}
            one = {name: calls["c1"][name] for name in ("duration_ms", "turn_count", "turn_p95_ms", "cost_usd", "mos")}
            assert one == {
                "duration_ms": 60_000,
                "turn_count": 3,
                "turn_p95_ms": 900.0,
                "cost_usd": "0.015",
                "mos": 3.2,
            }
            counts = ("error_count", "refusal_count", "transfer_count")
            assert [[call[name] for name in counts] for call in calls.values()] == [
                [None, None, None],
                [2, 0, 1],
                [0, 1, 0],
                [0, 0, 0],
            ]
            assert (calls["c2"]["duration_ms"], calls["c2"]["cost_usd"]) == (0, "0.00")
            store.spool.append(event("c1", 2, "crashed"))  # afterwards
            assert await store.writer.flush()
            assert await ids(store, having=frozenset({"errors"})) == ["c3", "c1"]

    asyncio.run(scenario())


def test_pages_are_whole_in_order_and_end(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a page looks at three calls at most, and several began at once."""
    monkeypatch.setattr(search, "SCAN", 3)
    monkeypatch.setattr(search, "FEW", 2)

    async def scenario() -> None:
        async with open_store() as store:
            for number in range(20):
                party = {"from_number": (ANNA, BERT)[number % 5 == 0], "agent": ("clinic", "sales")[number % 7 == 0]}
                if number % 3 == 0:
                    party |= {"direction": "outbound", "from_number": OURS, "to_number": party["from_number"]}
                store.spool.append(started(f"c{number:02}", number // 4, **party))
            assert await store.writer.flush()
            for query, wanted in (
                (CallQuery(), range(20)),
                (CallQuery(number=BERT), range(0, 20, 5)),
                (CallQuery(number=BERT, agent="sales"), [0]),
                (CallQuery(number="+14155550102*"), range(0, 20, 5)),
                (CallQuery(direction="outbound"), range(0, 20, 3)),
                (CallQuery(agent="sales", direction="inbound"), [7, 14]),
                (CallQuery(leg="twilio"), []),
            ):
                for limit in (1, 3, 50):
                    found: list[str] = []
                    cursor, pages = None, 0
                    while True:
                        page = await store.records.search(A, query, limit=limit, cursor=cursor)
                        assert len(page.calls) <= limit
                        found += [call["id"] for call in page.calls]
                        cursor, pages = page.next_cursor, pages + 1
                        if cursor is None:
                            break
                        assert pages < 50
                    assert found == [f"c{number:02}" for number in sorted(wanted, reverse=True)], (query, limit)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (CallQuery(since=datetime(2026, 11, 28)), "zone"),
        (CallQuery(number="*"), "number: a number"),
        (CallQuery(our_number="+1*5*"), "our_number: a number"),
        (CallQuery(text="a"), "2 to 200 characters"),
        (CallQuery(text="a" * 201), "2 to 200 characters"),
        (CallQuery(agent="a\0"), "NUL"),
    ],
)
def test_what_cannot_be_asked_is_said(open_store: OpenStore, query: CallQuery, said: str) -> None:
    async def scenario() -> None:
        async with open_store() as store:
            with pytest.raises(ValueError, match=said):
                await store.records.search(A, query)

    asyncio.run(scenario())


def test_sealed_words_are_not_searched(open_store: OpenStore) -> None:
    async def scenario() -> None:
        async with open_store(seal=TextSeal(KeyRing({"2026": bytes(32)}))) as store:
            await four_calls(store)
            with pytest.raises(ValueError, match=r"sealed here \(privacy.keys\)"):
                await store.records.search(A, CallQuery(text="tooth"))
            assert await ids(store, agent="sales") == ["c3"]
        async with open_store() as store:  # the key is gone
            assert await ids(store, text="sealed:1") == []

    asyncio.run(scenario())
