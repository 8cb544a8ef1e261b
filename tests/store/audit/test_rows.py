"""What of a call's record is audited."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

from trunkline.ports import (
    CallEnded,
    CallEvent,
    CallStarted,
    Cost,
    ToolUse,
    TurnEnded,
    TurnEvidence,
    TurnRecord,
    Usage,
    UsageMetered,
)
from trunkline.store.audit.rows import Row, Sampling, is_sampled
from trunkline.types import DEFAULT_TENANT, CallId

AT = datetime(2026, 11, 28, 12, tzinfo=UTC)
CALL = CallId("call_1")
STARTED = CallStarted(CALL, DEFAULT_TENANT, "inbound", "sip", "clinic", AT, "+12125550177", "+12125550100", "id")


def turn(index: int = 0) -> TurnEnded:
    record = TurnRecord(
        index,
        "hello",
        "good day",
        stt_ms=30.0,
        llm_ms=200.0,
        total_ms=310.0,
        tools=("book", "look_up"),
        evidence=TurnEvidence(
            ("aa", "bb"), (ToolUse("book", {"day": "monday"}, "ok"), ToolUse("look_up", {}, "timeout"))
        ),
    )
    return TurnEnded(CALL, AT, record)


def used(*usd: str | None) -> UsageMetered:
    costs = tuple(Cost("voice", "1", each) for each in usd)
    return UsageMetered(AT, Usage(CALL, "openai", "llm", "tokens_in", 10), costs)


def taken(sampling: Sampling, *events: object) -> Sequence[Row]:
    return [row for event in events if (row := sampling.take(event)) is not None]  # type: ignore[arg-type]


def test_a_turn_has_its_latencies_tools_prompt_consent_and_cost() -> None:
    sampling = Sampling(100, {"clinic": "c0ffee"})
    agreed = CallEvent(CALL, AT, "consent", {"state": "granted", "doors": ["transcript"]})
    session = CallEvent(CALL, AT, "attributes", {"session_id": "s1"})
    [row] = taken(sampling, STARTED, session, agreed, used("0.0125"), used("0.01", None), turn())
    assert (row.turn_id, row.kind, row.why, row.call_id, row.session_id) == ("call_1:0", "turn", "sample", CALL, "s1")
    assert (row.caller_text, row.agent_text, row.tools) == ("hello", "good day", ("book", "look_up"))
    assert (row.stt_ms, row.llm_ms, row.tts_ms, row.total_ms) == (30.0, 200.0, None, 310.0)
    assert row.prompts_sha256 == ("aa", "bb")
    assert [json.loads(each) for each in row.tool_calls] == [
        {"name": "book", "arguments": {"day": "monday"}, "outcome": "ok"},
        {"name": "look_up", "arguments": {}, "outcome": "timeout"},
    ]
    assert (row.agent, row.agent_sha256, row.consent) == ("clinic", "c0ffee", "granted")
    assert (row.cost_usd, row.cost_complete) == (Decimal("0.0225"), False)


def test_the_cost_is_of_what_was_used_since_the_turn_before() -> None:
    sampling = Sampling(100, {})
    rows = taken(sampling, STARTED, used("1", None), turn(0), used("0.25"), turn(1))
    assert [(row.cost_usd, row.cost_complete) for row in rows] == [(1, False), (Decimal("0.25"), True)]


def test_every_refusal_is_there_and_the_turn_it_came_in() -> None:
    sampling = Sampling(0, {})
    refused = CallEvent(
        CALL, AT, "refused", {"door": "transfer", "target": "sales", "code": "premium", "why": "never called"}
    )
    unwilling = CallEvent(CALL, AT, "consent", {"state": "withdrawn", "doors": ["record", "transcript"]})
    rows = taken(sampling, STARTED, turn(0), refused, turn(1), turn(2), unwilling)
    assert [(row.turn_id, row.why) for row in rows] == [
        ("call_1:refused:1", "refusal"), ("call_1:1", "refusal"), ("call_1:refused:2", "refusal")
    ]  # fmt: skip
    assert (rows[0].door, rows[0].target, rows[0].code, rows[0].reason) == (
        "transfer", "sales", "premium", "never called"
    )  # fmt: skip
    assert (rows[2].door, rows[2].code, rows[2].consent) == ("record,transcript", "consent_withdrawn", "withdrawn")


def test_an_agent_that_took_over_is_named_with_its_own_prompt() -> None:
    sampling = Sampling(100, {"clinic": "aa", "sales": "bb"})
    changed = CallEvent(CALL, AT, "agent_changed", {"agent": "sales", "before": "clinic"})
    rows = taken(sampling, STARTED, turn(0), changed, turn(1))
    assert [(row.agent, row.agent_sha256) for row in rows] == [("clinic", "aa"), ("sales", "bb")]


def test_words_stay_out_where_the_settings_say_so() -> None:
    [row] = taken(Sampling(100, {}, words=False), STARTED, turn())
    assert (row.caller_text, row.agent_text, row.total_ms) == ("", "", 310.0)
    assert json.loads(row.tool_calls[0]) == {"name": "book", "arguments": {}, "outcome": "ok"}


def test_the_id_alone_decides_about_one_percent() -> None:
    ids = [f"call_{n:04x}:{n % 7}" for n in range(20_000)]
    first = [each for each in ids if is_sampled(each, 1.0)]
    assert first == [each for each in ids if is_sampled(each, 1.0)]
    assert 150 <= len(first) <= 250
    assert set(first) <= {each for each in ids if is_sampled(each, 5.0)}
    assert all(is_sampled(each, 100.0) for each in ids)
    assert not any(is_sampled(each, 0.0) for each in ids)


def test_a_call_that_is_over_is_forgotten() -> None:
    sampling = Sampling(100, {})
    taken(sampling, STARTED, turn(), CallEnded(CALL, AT, "caller_hung_up"))
    assert sampling._calls == {}


def test_a_call_is_taken_whole_or_not_at_all_and_so_is_a_session() -> None:
    def turns_of(call: str, session: str = "") -> int:
        sampling = Sampling(30, {})
        started = replace(STARTED, call_id=CallId(call))
        known = [CallEvent(CallId(call), AT, "attributes", {"session_id": session})] * bool(session)
        return len(taken(sampling, started, *known, *(replace(turn(n), call_id=CallId(call)) for n in range(5))))

    assert {turns_of(f"call_{n}") for n in range(100)} == {0, 5}
    assert len({turns_of(f"call_{n}", "session_1") for n in range(50)}) == 1
    assert {turns_of("call_1", f"session_{n}") for n in range(100)} == {0, 5}


def test_a_call_that_found_no_line_is_a_refusal_told_once() -> None:
    sampling = Sampling(0, {})
    [row] = taken(sampling, STARTED, CallEnded(CALL, AT, "overloaded", "draining"))
    assert (row.kind, row.door, row.code, row.turn_id) == ("refusal", "answer", "draining", "call_1:refused:1")
    refused = CallEvent(CALL, AT, "refused", {"door": "answer", "code": "blocked", "why": "x"})
    rows = taken(sampling, STARTED, refused, CallEnded(CALL, AT, "refused", "blocked"))
    assert [row.code for row in rows] == ["blocked"]
