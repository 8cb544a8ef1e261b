from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from trunkline.compliance.money.account import SoFar
from trunkline.errors import StoreError
from trunkline.gateway.sessions.session import (
    MAX_MESSAGES,
    MAX_TEXT_CHARS,
    Said,
    Session,
    from_fields,
    kept,
    new_session_id,
    timed,
    to_fields,
)
from trunkline.ports import Message, ToolCall
from trunkline.types import CallId, SessionId, TenantId

AT = datetime(2026, 11, 27, 9, 0, tzinfo=UTC)
LATER = AT + timedelta(seconds=30)
ASKED, ANSWERED = Message("caller", "Grüße \ud800"), Message("agent", "Hello", cut=True)
TOOL = (
    Message("agent", "", tool_calls=(ToolCall("t1", "book", {"day": "Monday", "at": 9}),)),
    Message("tool", '{"ok":true}', tool_call_id="t1"),
)


def session(*said: Said) -> Session:
    return Session(
        SessionId("ses_1"),
        TenantId("default"),
        "kitchen",
        "ann",
        AT,
        agent="clinic",
        needs_arming=True,
        region="eu",
        worker="0",
        joins=3,
        call_id=CallId("call_1"),
        ended_as="media_lost",
        said=said,
        so_far=SoFar(Decimal("0.1234567"), 62.5),
    )


def test_what_is_written_is_what_is_read() -> None:
    said = [Said(m, AT) for m in (Message("summary", "before"), ASKED, ANSWERED, *TOOL, Message("caller", "12", True))]
    fresh = Session(new_session_id(), TenantId("default"), "d", "a", AT)
    for each in (session(*said), fresh):
        fields = to_fields(each)
        assert from_fields(fields) == each
        assert all(text.isascii() for text in fields.values())


@pytest.mark.parametrize(
    "broken",
    [
        {"facts": "{}"},
        {"facts": "[]"},
        {"said": "nonsense"},
        {"said": '[{"role":"nobody","text":"","at":"2026-11-27T09:00:00+00:00"}]'},
        {"said": '[{"role":"caller","text":"","at":"yesterday"}]'},
        {"said": "[" * 100_000},
        {"joins": "many"},
    ],
)
def test_what_is_not_ours_is_refused_without_being_shown(broken: dict[str, str]) -> None:
    with pytest.raises(StoreError) as refused:
        from_fields(to_fields(session()) | broken)
    assert "nonsense" not in str(refused.value)


def test_a_field_of_a_later_version_hurts_nobody() -> None:
    assert from_fields(to_fields(session()) | {"joiner": "x", "ended_as": "of_the_future"}).ended_as is None


def test_what_was_said_before_keeps_its_time() -> None:
    before = timed((), [ASKED], AT)
    after = timed(before, [ASKED, ANSWERED], LATER)
    assert after == (Said(ASKED, AT), Said(ANSWERED, LATER))
    assert timed(after, [ASKED, Message("agent", "Hello there")], LATER)[1] == Said(
        Message("agent", "Hello there"), LATER
    )
    assert timed(after, [ASKED], LATER) == (Said(ASKED, AT),)


def test_a_long_conversation_loses_its_beginning_but_not_its_summary() -> None:
    talk = [Message("caller", str(n)) for n in range(2 * MAX_MESSAGES)]
    assert kept(talk) == tuple(talk[MAX_MESSAGES:])
    summary = Message("summary", "before")
    assert kept([summary, *talk]) == (summary, *talk[MAX_MESSAGES + 1 :])


def test_a_tools_result_is_not_kept_without_its_call() -> None:
    talk = [Message("caller", str(n)) for n in range(MAX_MESSAGES - 1)]
    assert kept([*TOOL, *talk]) == tuple(talk)


def test_a_long_text_is_cut() -> None:
    assert kept([Message("caller", "x" * 9999)]) == (Message("caller", "x" * MAX_TEXT_CHARS),)


@pytest.mark.parametrize(("ended_as", "cut_off"), [("media_lost", True), ("caller_hung_up", False), (None, True)])
def test_whether_it_was_cut_off(ended_as: str | None, cut_off: bool) -> None:
    fields = to_fields(session()) | {"ended_as": ended_as or ""}
    assert from_fields(fields).cut_off is cut_off
