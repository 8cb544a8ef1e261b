from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from trunkline.gateway.hooks.bodies import Bodies
from trunkline.hooks import CallSummary, Happening, Told
from trunkline.ports import CallEnded, CallEvent, CallStarted, RecordEvent, Revocation, TurnEnded, TurnRecord
from trunkline.privacy.calls import Policies
from trunkline.privacy.redaction import Policy
from trunkline.types import CallId, TenantId

T, C = TenantId("default"), CallId("c1")
AT = datetime(2026, 11, 28, 12, tzinfo=UTC)
LATER = AT + timedelta(seconds=42.5)
CALLER, OURS = "+14155550134", "+14155550178"
TURN = {"at": AT, "caller_text": "hello", "agent_text": "good morning", "llm_ms": 3}
CALL = CallSummary("c1", "inbound", "twilio", "clinic", "CA1", CALLER, OURS, AT, None, None, None, None, None)
ENDED = replace(
    CALL,
    answered_at=AT + timedelta(seconds=2),
    ended_at=LATER,
    end_reason="caller_hung_up",
    end_detail="from +14155550134",
    ended_by="caller",
    usd=Decimal("0.0123"),
    turns=(TURN,),
)
HIDDEN = Policies(agents={"clinic": Policy(frozenset(("phone", "number")))})


def told(
    said: RecordEvent | Revocation, call: CallSummary = CALL, policies: Policies | None = None, words: Any = 0
) -> Told:
    found = Bodies(policies or Policies())(Happening("evt_1", T, said, call), bool(words))
    assert found is not None
    return found


def event(kind: str, **data: Any) -> CallEvent:
    return CallEvent(C, AT, kind, data)


def test_a_call_that_ended_is_told_with_its_summary() -> None:
    found = told(CallEnded(C, LATER, "caller_hung_up"), ENDED)
    assert (found.type, found.at) == ("call.ended", LATER)
    assert found.data == {
        "call_id": "c1",
        "direction": "inbound",
        "leg": "twilio",
        "agent": "clinic",
        "from_number": CALLER,
        "to_number": OURS,
        "provider_call_id": "CA1",
        "started_at": "2026-11-28T12:00:00+00:00",
        "answered_at": "2026-11-28T12:00:02+00:00",
        "ended_at": "2026-11-28T12:00:42.500000+00:00",
        "duration_s": 42.5,
        "talk_s": 40.5,
        "end_reason": "caller_hung_up",
        "end_detail": "from +14155550134",
        "ended_by": "caller",
        "cost_usd": "0.0123",
    }


def test_words_are_told_to_who_asks_for_them_only() -> None:
    end, left = CallEnded(C, LATER, "caller_hung_up"), event("message", text="call me back")
    assert "turns" not in told(end, ENDED).data
    assert told(end, ENDED, words=True).data["turns"] == [
        {"at": "2026-11-28T12:00:00+00:00", "caller_text": "hello", "agent_text": "good morning"}
    ]
    assert "text" not in told(left).data
    assert told(left, words=True).data["text"] == "call me back"


def test_an_agent_whose_policy_redacts_numbers_has_them_masked() -> None:
    found = told(CallEnded(C, LATER, "caller_hung_up"), ENDED, HIDDEN)
    assert CALLER not in str(found.data)
    assert OURS not in str(found.data)
    assert found.data["from_number"].endswith("0134")
    other = told(CallStarted(C, T, "inbound", "sip", "sales", AT), replace(CALL, agent="sales"), HIDDEN)
    assert other.data["from_number"] == CALLER


@pytest.mark.parametrize(
    ("said", "type_", "more"),
    [
        (event("answered"), "call.answered", {"answered_at": "2026-11-28T12:00:00+00:00"}),
        (
            event("transfer_attempt", result="transferred", target="sales", how="blind", trunk="t1", confirmed=True),
            "call.transferred",
            {"target": "sales", "how": "blind", "trunk": "t1", "confirmed": True, "time_to_human_ms": None},
        ),
        (
            event("refused", door="dial", code="hours", why="it is night"),
            "call.refused",
            {"door": "dial", "target": None, "code": "hours"},
        ),
        (
            event("turned_away", code="stir_failed", why="x"),
            "call.refused",
            {"door": "answer", "target": None, "code": "stir_failed"},
        ),
        (event("budget_spent", budget="call"), "budget.reached", {"budget": "call"}),
        (event("message", text=""), "call.message", {"left_at": "2026-11-28T12:00:00+00:00"}),
    ],
)
def test_events_of_a_call(said: CallEvent, type_: str, more: dict[str, Any]) -> None:
    found = told(said)
    assert found.type == type_
    assert found.data["call_id"] == "c1"
    assert {name: found.data[name] for name in found.data if name not in told(_STARTED).data} == more


_STARTED = CallStarted(C, T, "inbound", "twilio", "clinic", AT)


def test_what_is_no_event_is_not_told() -> None:
    bodies = Bodies(Policies())
    for said in (
        event("transfer_attempt", result="busy", target="sales"),
        event("media"),
        TurnEnded(C, AT, TurnRecord(0, "a", "b")),
    ):
        assert bodies(Happening("evt_1", T, said, CALL), True) is None
    assert bodies(Happening("evt_1", T, _STARTED, None), False) is None, "the call is not in the database yet"


def test_a_budget_of_the_day_is_told_once_a_day() -> None:
    spent = event("budget_spent", budget="agent")
    tomorrow = replace(spent, at=AT + timedelta(days=1))
    assert told(spent).once == told(spent, replace(CALL, id="c2")).once != ""
    assert told(spent).once != told(tomorrow).once
    assert told(spent).once != told(spent, replace(CALL, agent="sales")).once
    assert told(event("budget_spent", budget="call")).once == ""


def test_a_revocation_is_told_without_the_words_it_was_said_with() -> None:
    said = Revocation(T, CALLER, AT, "speech", "stop calling me", do_not_call=True, call_id=C)
    found = told(said)
    assert found.type == "consent.revoked"
    assert found.data["subject"] == CALLER
    assert found.data["do_not_call"] is True
    assert "stop" not in str(found.data)
    hidden = told(said, policies=Policies(Policy(frozenset(("phone",)))))
    assert CALLER not in str(hidden.data)
