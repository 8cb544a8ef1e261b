"""A device's call: joined with what its session knows, and told to whoever keeps sessions."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from trunkline.gateway.joining import Joining, SessionCall
from trunkline.gateway.leg import LegKind
from trunkline.gateway.succession import BACK, RESUMED
from trunkline.ports import CallStarted, Message, Refuse
from trunkline.testing.board import DEFINITION, Board, FakeLeg, run
from trunkline.types import DEFAULT_TENANT, CallId, SessionId

ME = SessionId("ses_1")
SAID = (Message("caller", "I need a doctor"), Message("agent", "On which day?"))
FIRST = Joining(ME, DEFAULT_TENANT, "kitchen", "ann", "", needs_arming=True)
AGAIN = replace(FIRST, conversation=SAID, resumed=True, number=2, cut_off=True)


class Keeping:
    def __init__(self, board: Board) -> None:
        self.begins: list[tuple[int, CallId]] = []
        self.ends: list[tuple[SessionId, tuple[Message, ...], str]] = []
        board.switchboard.sessions = self

    def begun(self, joining: Joining, call: SessionCall) -> None:
        self.begins.append((joining.number, call.id))

    def ended(self, session_id: SessionId, call: SessionCall) -> None:
        self.ends.append((session_id, call.conversation, call.agent_name))


def joined(board: Board, joining: Joining, kind: LegKind = "websocket") -> tuple[CallId, FakeLeg]:
    call_id = board.switchboard.join(joining, kind)
    assert not isinstance(call_id, Refuse), call_id
    return call_id, board.attach(call_id)


def test_a_session_begins_a_call_and_its_record_says_which() -> None:
    async def scenario(board: Board) -> None:
        keeping = Keeping(board)
        call_id, leg = joined(board, FIRST, "webrtc")
        started = board.records[0]
        assert isinstance(started, CallStarted)
        assert (started.leg, started.direction, started.provider_call_id) == ("webrtc", "inbound", "ses_1")
        facts = {"session_id": "ses_1", "device_id": "kitchen", "device_account": "ann"}
        assert board.events("attributes") == [facts]
        assert board.agent_now.call.attributes == facts
        assert board.agent_now.greeting is None
        assert keeping.begins == [(1, call_id)]
        board.agent_now.conversation += SAID
        board.call.stopped(leg)
        assert keeping.ends == [(ME, SAID, "clinic")]

    run(scenario)


@pytest.mark.parametrize(
    ("cut_off", "greeting", "before_question"),
    [(True, RESUMED, "I'm sorry, we were cut off."), (False, BACK, "I'm here again.")],
)
def test_a_session_goes_on_where_it_was(cut_off: bool, greeting: str, before_question: str) -> None:
    async def scenario(board: Board) -> None:
        joined(board, replace(AGAIN, cut_off=cut_off))
        assert board.agent_now.greeting == greeting
        assert board.agent_now.conversation == list(SAID)
        assert board.agent_now.before_question == before_question
        started = board.records[0]
        assert isinstance(started, CallStarted)
        assert started.provider_call_id == "ses_1/2"

    run(scenario)


def test_a_device_that_comes_back_while_its_call_lives_replaces_its_leg() -> None:
    async def scenario(board: Board) -> None:
        keeping = Keeping(board)
        call_id, old = joined(board, FIRST)
        board.agent_now.conversation += SAID
        again, _ = joined(board, AGAIN, "webrtc")
        assert again == call_id
        assert old.closed == ["replaced"]
        assert keeping.begins == [(1, call_id), (2, call_id)]
        assert board.agent_now.conversation == list(SAID)  # the call's own, which is never older
        assert (board.agent_now.greeting, keeping.ends) == (RESUMED, [])

    run(scenario)


def test_a_session_goes_on_after_its_call_was_hung_up() -> None:
    async def scenario(board: Board) -> None:
        Keeping(board)
        first, leg = joined(board, FIRST)
        board.call.hang_up("agent_hung_up")
        await asyncio.sleep(0.1)
        board.call.stopped(leg)
        second, _ = joined(board, replace(AGAIN, cut_off=False))
        assert second != first
        assert board.agent_now.greeting == BACK

    run(scenario)


def test_whoever_attended_the_session_does_again() -> None:
    async def scenario(board: Board) -> None:
        billing: Any = SimpleNamespace(**vars(board.agent))
        billing.definition = replace(DEFINITION, name="billing")
        board.switchboard.agents = {"/billing.toml": billing}
        joined(board, replace(AGAIN, agent="billing"))
        assert board.call.agent_name == "billing"
        refused = board.switchboard.join(replace(FIRST, session_id=SessionId("ses_2"), agent="ghost"), "webrtc")
        assert isinstance(refused, Refuse)
        assert refused.code == "unknown_agent"
        billing.definition = replace(DEFINITION, name="billing", version="other/billing@3")
        theirs = board.switchboard.join(
            replace(FIRST, session_id=SessionId("ses_4"), agent="other/billing@3"), "webrtc"
        )
        assert isinstance(theirs, Refuse)
        assert theirs.code == "unknown_agent"  # another tenant's
        billing.definition = replace(DEFINITION, name="billing")
        billing.ready = lambda: False
        away = board.switchboard.join(replace(FIRST, session_id=SessionId("ses_3"), agent="billing"), "webrtc")
        assert isinstance(away, Refuse)
        assert away.code == "agent_away"

    run(scenario)


def test_a_full_house_and_a_rule_refuse_devices_too() -> None:
    async def scenario(board: Board) -> None:
        keeping = Keeping(board)
        board.refusing["answer"] = Refuse("blocked", "on the list")
        refused = board.switchboard.join(FIRST, "websocket")
        assert isinstance(refused, Refuse)
        assert refused.code == "blocked"
        board.switchboard.draining = True
        refused = board.switchboard.join(FIRST, "websocket")
        assert isinstance(refused, Refuse)
        assert refused.code == "draining"
        assert keeping.begins == []

    run(scenario)


def test_a_session_that_goes_on_elsewhere_ends_its_call_without_a_word() -> None:
    async def scenario(board: Board) -> None:
        call_id, leg = joined(board, FIRST)
        board.call.finished("media_lost", "its session goes on elsewhere")
        assert board.ends(call_id) == [("media_lost", "its session goes on elsewhere")]
        assert board.agent_now.goodbyes == 0
        assert leg.closed == ["media_lost"]

    run(scenario)


def test_where_no_transcript_may_be_kept_its_session_keeps_none() -> None:
    async def scenario(board: Board) -> None:
        keeping = Keeping(board)
        board.refusing["transcript"] = Refuse("no_transcript", "not here")
        _, leg = joined(board, FIRST)
        board.agent_now.conversation += SAID
        assert board.call.conversation == board.call.conversation == ()
        assert [asked.door for asked in board.asked].count("transcript") == 1
        board.call.stopped(leg)
        assert keeping.ends == [(ME, (), "clinic")]

    run(scenario)
