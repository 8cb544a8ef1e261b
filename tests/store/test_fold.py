from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest

from trunkline.ports import CallEnded, CallEvent, CallStarted, RecordEvent, TurnEnded, TurnRecord, Usage, UsageMetered
from trunkline.store.codec import Entry
from trunkline.store.fold import KnownCall, fold
from trunkline.store.models import TurnRow
from trunkline.types import CallId, TenantId

AT = datetime(2026, 11, 22, 15, tzinfo=UTC)
CALL = CallId("c1")
STARTED = CallStarted(CALL, TenantId("acme"), "inbound", "twilio", "clinic", AT, "+15550100", "+15550101", "CA1")
LATER = AT + timedelta(seconds=9)


def entries(*events: RecordEvent, run: str = "r1") -> list[Entry]:
    return [Entry(run, seq, event) for seq, event in enumerate(events, 1)]


def test_a_whole_call_in_one_batch_becomes_one_finished_row_and_its_parts() -> None:
    turn = TurnEnded(CALL, AT, TurnRecord(0, "hi", "hello", tools=("hang_up",)))
    usage = UsageMetered(AT, Usage(CALL, "espeak", "tts", "characters", 5))
    answered = CallEvent(CALL, AT, "answered", {"after_ms": 40})
    rows = fold(entries(STARTED, answered, turn, usage, CallEnded(CALL, LATER, "no_input")), {}, frozenset(), "w0")
    (call,) = rows.calls
    assert (call["answered_at"], call["ended_at"], call["end_reason"]) == (AT, LATER, "no_input")
    assert (call["worker"], call["run"], call["from_number"]) == ("w0", "r1", "+15550100")
    assert rows.tenants == {"acme": AT}
    for row in (*rows.call_events, *rows.turns, *rows.usage):
        assert (row["tenant_id"], row["call_id"], row["run"]) == ("acme", "c1", "r1")
    assert [row["seq"] for row in (*rows.call_events, *rows.turns, *rows.usage)] == [2, 3, 4]
    assert rows.turns[0]["tools"] == ["hang_up"]
    assert set(rows.turns[0]) <= set(TurnRow.__table__.columns.keys())
    assert not rows.ended
    assert not rows.unplaced


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_order_within_a_call_does_not_matter(order: tuple[int, ...]) -> None:
    events: list[RecordEvent] = [STARTED, CallEvent(CALL, AT, "answered"), CallEnded(CALL, LATER, "no_input")]
    rows = fold(entries(*(events[i] for i in order)), {}, frozenset(), "w0")
    assert rows.calls[0]["end_reason"] == "no_input"
    assert rows.calls[0]["answered_at"] == AT
    assert len(rows.call_events) == 1


def test_the_first_end_wins() -> None:
    ends = CallEnded(CALL, AT, "media_lost"), CallEnded(CALL, LATER, "caller_hung_up")
    rows = fold(entries(STARTED, *ends), {}, frozenset(), "w0")
    assert (rows.calls[0]["end_reason"], rows.calls[0]["ended_at"]) == ("media_lost", AT)


def test_what_happens_to_a_call_of_the_database_is_an_update() -> None:
    known = {"c1": KnownCall("acme", "r1", ended=False)}
    happened = CallEvent(CALL, AT, "answered"), CallEnded(CALL, LATER, "no_input", "twice")
    rows = fold(entries(*happened), known, frozenset(), "w0")
    assert rows.calls == []
    assert rows.answered == [{"call": "c1", "at": AT}]
    assert rows.ended == [
        {"call": "c1", "at": LATER, "reason": "no_input", "detail": "twice", "by": "agent", "said": None}
    ]
    assert rows.call_events[0]["tenant_id"] == "acme"


def test_who_ended_a_call_is_said_or_follows_from_the_reason() -> None:
    said = CallEnded(CALL, LATER, "rejected", "", "caller", "sip:603")
    (call,) = fold(entries(STARTED, said), {}, frozenset(), "w0").calls
    assert (call["ended_by"], call["provider_code"]) == ("caller", "sip:603")
    (call,) = fold(entries(STARTED, CallEnded(CALL, LATER, "rejected")), {}, frozenset(), "w0").calls
    assert (call["ended_by"], call["provider_code"]) == ("network", None)


def test_events_of_a_call_nobody_started_are_unplaced_with_all_they_say() -> None:
    rows = fold(entries(CallEvent(CALL, AT, "answered"), CallEnded(CALL, AT, "error")), {}, frozenset(), "w0")
    assert [(row["seq"], row["call_id"], row["reason"]) for row in rows.unplaced] == [
        (1, "c1", "unknown_call"),
        (2, "c1", "unknown_call"),
    ]
    assert '"k":"call_ended"' in rows.unplaced[1]["body"]
    assert not rows.ended


def test_a_second_start_changes_nothing_but_who_carries_the_call_on() -> None:
    live, ended = KnownCall("acme", "r0", ended=False), KnownCall("acme", "r0", ended=True)
    rows = fold(entries(STARTED, run="r1"), {"c1": live}, frozenset(), "w7")
    assert rows.calls == []
    assert rows.adopted == [{"call": "c1", "to_run": "r1", "to_worker": "w7"}]
    assert fold(entries(STARTED, run="r0"), {"c1": live}, frozenset(), "w7").adopted == []
    assert fold(entries(STARTED, run="r1"), {"c1": ended}, frozenset(), "w7").adopted == []
    assert len(fold(entries(STARTED, STARTED), {}, frozenset(), "w7").calls) == 1


@pytest.mark.parametrize("taken", [{("acme", "CA1")}, set()])
def test_a_provider_id_that_another_call_has_is_noted_and_left_out(taken: set[tuple[str, str]]) -> None:
    twin = CallStarted(CallId("c2"), TenantId("acme"), "inbound", "twilio", "clinic", AT, provider_call_id="CA1")
    before = [] if taken else [STARTED]
    rows = fold(entries(*before, twin), {}, frozenset(taken), "w0")
    assert rows.calls[-1]["provider_call_id"] is None
    assert rows.call_events[0]["kind"] == "provider_call_id_taken"
    assert rows.call_events[0]["data"] == {"provider_call_id": "CA1"}


def test_two_tenants_may_have_the_same_provider_id() -> None:
    other = CallStarted(CallId("c2"), TenantId("b"), "inbound", "twilio", "clinic", AT, provider_call_id="CA1")
    rows = fold(entries(STARTED, other), {}, frozenset(), "w0")
    assert [call["provider_call_id"] for call in rows.calls] == ["CA1", "CA1"]
