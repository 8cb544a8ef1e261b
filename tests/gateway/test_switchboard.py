import asyncio
import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from trunkline.gateway import linecall
from trunkline.gateway import switchboard as module
from trunkline.gateway.call import CLOSE_WAIT_S, DIAL_SLACK_S, START_WAIT_S, State
from trunkline.gateway.dialling import DialOrder
from trunkline.gateway.leg import Leg, LegCall, Plan
from trunkline.gateway.linecall import GOODBYE_S
from trunkline.gateway.outbound import Route
from trunkline.gateway.succession import RESUMED, TRANSFER_FAILED
from trunkline.gateway.switchboard import OVERLOADED_LATE_S
from trunkline.gateway.twilio.webhooks import CallView
from trunkline.ports import (
    NAMED,
    Allow,
    CallEnded,
    CallEvent,
    CallStarted,
    Message,
    Refuse,
    TurnEnded,
    TurnRecord,
    UsageMetered,
)
from trunkline.testing.board import DEFINITION, Board, FakeLeg, run, sid
from trunkline.types import E164, CallId, StreamSid

# --- admission ---


def test_a_webhook_that_comes_twice_is_one_call() -> None:
    async def scenario(board: Board) -> None:
        first = board.admit()
        assert board.admit() == first
        board.attach(first)
        assert board.admit() == first
        assert [type(e) for e in board.records].count(CallStarted) == 1
        assert board.switchboard.by_call_sid(sid()) == CallView(first, "live")

    run(scenario)


def test_a_full_house_turns_callers_away_and_keeps_a_record_of_it() -> None:
    async def scenario(board: Board) -> None:
        board.answered(1)
        board.answered(2)
        assert board.refused(3) == "overloaded"
        assert board.ends() == [("overloaded", "overloaded")]
        assert board.switchboard.by_call_sid(sid(3)) is None
        board.switchboard.status(sid(1), "completed", 5)
        board.admit(3)  # the caller tries again
        assert board.switchboard.live_calls == 2

    run(scenario, max_calls=2)


def test_lines_are_kept_for_calls_that_come_in() -> None:
    async def scenario(board: Board) -> None:
        board.switchboard.limits = replace(board.switchboard.limits, reserved_inbound=1)
        board.switchboard.diallers.append(Way("one"))
        board.answered(1)
        placed = board.switchboard.dial(DialOrder(E164("+14155550199")))
        assert isinstance(placed, Refuse)
        assert placed.code == "overloaded"
        board.answered(2)

    run(scenario, max_calls=2)


def test_a_late_heartbeat_turns_callers_away() -> None:
    async def scenario(board: Board) -> None:
        board.heartbeat.late_s = OVERLOADED_LATE_S * 1.1
        assert board.refused() == "overloaded"

    run(scenario)


def test_a_refusal_of_the_policy_is_recorded() -> None:
    async def scenario(board: Board) -> None:
        board.refusing["answer"] = Refuse("blocked", "on the list")
        assert board.refused() == "blocked"
        assert [type(e) for e in board.records] == [CallStarted, CallEvent, CallEnded]
        assert board.ends() == [("refused", "blocked")]
        assert board.switchboard.live_calls == 0
        assert board.refused() == "ended"  # Twilio asks again

    run(scenario)


def test_a_call_whose_media_never_comes_ends() -> None:
    async def scenario(board: Board) -> None:
        board.admit()
        await asyncio.sleep(START_WAIT_S + 0.1)
        assert board.ends() == [("never_started", "")]

    run(scenario)


# --- legs ---


def test_a_second_stream_takes_the_call_over() -> None:
    async def scenario(board: Board) -> None:
        call_id, old = board.answered()
        call = board.line()
        first = board.agent_now
        first.conversation.append(Message("caller", "I need a doctor"))
        new = board.attach(call_id)
        assert (old.closed, old.detached, new.closed) == (["replaced"], True, [])
        assert first.closes == 1
        assert first.bus.closed
        assert board.agent_now.greeting == RESUMED
        assert [m.text for m in board.agent_now.conversation] == ["I need a doctor"]
        call.lost(old, "socket lost")  # late news of the old one
        assert board.ends() == []

    run(scenario)


def test_a_leg_that_rings_for_a_call_that_is_over_is_closed() -> None:
    async def scenario(board: Board) -> None:
        call_id = board.admit()
        call = board.line_of(call_id)
        first, late = FakeLeg(), FakeLeg()
        call.expect(first)
        assert first.closed == []
        board.switchboard.hang_up(call_id)
        assert first.closed == ["agent_hung_up"]
        call.expect(late)
        assert late.closed == ["agent_hung_up"]
        assert isinstance(call.listen(late), Refuse)
        assert isinstance(call.attach(late), Refuse)

    run(scenario)


# --- the end of a call ---


def test_a_caller_who_hangs_up() -> None:
    async def scenario(board: Board) -> None:
        call_id, leg = board.answered()
        board.call.key("5")
        assert board.agent_now.keys == "5"
        board.call.stopped(leg)
        board.switchboard.status(sid(), "completed", 10)
        assert board.ends(call_id) == [("caller_hung_up", "")]
        assert board.agent_now.closes == 1
        assert board.agent_now.bus.closed
        assert board.free_slots() == board.ears.capacity
        assert [e.usage.unit for e in board.records if isinstance(e, UsageMetered)] == ["seconds"]
        assert board.switchboard.by_call_sid(sid()) == CallView(call_id, "ended")

    run(scenario)


def test_an_agent_that_hangs_up_waits_for_the_carrier_but_not_for_ever() -> None:
    async def scenario(board: Board) -> None:
        call_id, leg = board.answered()
        board.agent_now.control.hang_up("no_input")
        assert leg.closed == ["no_input"]
        assert board.switchboard.by_call_sid(sid()) == CallView(call_id, "ended")
        assert board.refused() == "ended"
        assert board.ends() == []
        await asyncio.sleep(CLOSE_WAIT_S + 0.1)
        assert board.ends() == [("no_input", "")]

    run(scenario)


def test_a_call_has_a_limit_whatever_its_agent_does() -> None:
    async def scenario(board: Board) -> None:
        board.answered()
        await asyncio.sleep(599)
        assert board.agent_now.goodbyes == 0
        await asyncio.sleep(2)
        assert board.agent_now.goodbyes == 1  # and says nothing
        await asyncio.sleep(GOODBYE_S + CLOSE_WAIT_S)
        assert board.ends() == [("max_duration", "")]

    run(scenario)


def test_an_operator_hangs_up_a_live_call_and_no_other() -> None:
    async def scenario(board: Board) -> None:
        call_id, leg = board.answered(1)
        board.answered(2)
        assert board.switchboard.live(call_id) is not None
        assert board.switchboard.hang_up(call_id)
        assert not board.switchboard.hang_up(CallId("call_unknown"))
        board.line(1).lost(leg, "socket lost")
        assert board.ends() == [("agent_hung_up", "")]
        assert board.switchboard.live(call_id) is None
        assert board.switchboard.live_calls == 1

    run(scenario)


# --- resume ---


def test_a_call_that_lost_its_leg_comes_back_where_it_was() -> None:
    async def scenario(board: Board) -> None:
        first, leg = board.answered()
        board.agent_now.conversation += [Message("caller", "on Tuesday"), Message("agent", "At nine?")]
        board.call.lost(leg, "socket lost")
        assert board.ends(first) == [("media_lost", "socket lost")]
        assert board.switchboard.by_call_sid(sid()) is None
        second = board.admit(reconnects=1, why="leg_lost")
        assert second != first
        board.attach(second)
        assert board.agent_now.greeting == RESUMED
        assert [m.text for m in board.agent_now.conversation] == ["on Tuesday", "At nine?"]
        names = [e.provider_call_id for e in board.records if isinstance(e, CallStarted)]
        assert names == [sid(), f"{sid()}/2"]

    run(scenario)


def test_a_call_that_came_to_its_end_does_not_come_back() -> None:
    async def scenario(board: Board) -> None:
        _, leg = board.answered()
        board.call.stopped(leg)
        assert board.refused(reconnects=1, why="leg_lost") == "ended"
        assert board.refused(reconnects=1, why="transfer_failed") == "ended"

    run(scenario)


def test_a_call_of_a_dead_process_is_told_what_happened() -> None:
    async def scenario(board: Board) -> None:
        board.attach(board.admit(1, reconnects=1, why="leg_lost"))
        assert board.agent_now.greeting == RESUMED
        board.attach(board.admit(2, reconnects=1, why="transfer_failed"))
        assert board.agent_now.greeting == TRANSFER_FAILED
        board.attach(board.admit(3))
        assert board.agent_now.greeting is None

    run(scenario)


# --- transfers ---


def test_a_transfer_is_dialled_and_ends_the_call() -> None:
    async def scenario(board: Board) -> None:
        call_id, leg = board.answered()
        assert isinstance(board.agent_now.control.transfer("desk"), Allow)
        board.agent_now.control.hang_up("transferred")
        assert leg.closed == ["transferred"]
        assert board.switchboard.by_call_sid(sid()) == CallView(call_id, "transferring", E164("+14155550100"), 600)
        board.call.lost(leg, "socket lost")  # our own close
        board.switchboard.dialled(sid(), "completed", 60)
        assert board.ends() == [("transferred", "")]
        assert "dialled" in board.kinds()

    run(scenario)


def test_an_operator_puts_a_twilio_caller_through_as_its_carrier_can() -> None:
    async def scenario(board: Board) -> None:
        call_id, leg = board.answered()
        call = board.line_of(call_id)
        assert call.hold() == Refuse("not_supported", "this kind of line cannot be put on hold")
        warm, nobody = call.send_to("desk", "warm"), call.send_to("nobody", "auto")
        assert (warm and warm.code, nobody and nobody.code) == ("not_supported", "unknown_target")
        assert call.send_to("desk", "auto") is None
        assert leg.closed == ["transferred"]
        later = call.send_to("desk", "auto")
        assert later is not None
        assert later.code == "not_now"

    run(scenario)


def test_a_transfer_that_fails_comes_back_to_the_agent() -> None:
    async def scenario(board: Board) -> None:
        call_id, _ = board.answered()
        board.agent_now.conversation.append(Message("caller", "a person please"))
        board.agent_now.control.transfer("desk")
        board.agent_now.control.hang_up("transferred")
        board.switchboard.dialled(sid(), "no-answer", None)
        assert board.admit(reconnects=1, why="transfer_failed") == call_id
        board.attach(call_id)
        assert board.agent_now.greeting == TRANSFER_FAILED
        assert [m.text for m in board.agent_now.conversation] == ["a person please"]
        assert board.ends() == []

    run(scenario)


def test_a_transfer_nobody_reports_on_ends_by_itself() -> None:
    async def scenario(board: Board) -> None:
        board.answered()
        board.agent_now.control.transfer("desk")
        board.agent_now.control.hang_up("transferred")
        await asyncio.sleep(600 + DIAL_SLACK_S - 1)
        assert board.ends() == []
        await asyncio.sleep(2)
        assert board.ends() == [("transferred", "how it went was never told")]

    run(scenario)


def test_only_named_targets_that_the_policy_allows() -> None:
    async def scenario(board: Board) -> None:
        board.answered()
        control = board.agent_now.control
        unknown = control.transfer("+19005550100")
        assert isinstance(unknown, Refuse)
        board.refusing["transfer"] = Refuse("closed", "after hours")
        assert control.transfer("desk") == board.refusing["transfer"]
        control.hang_up("transferred")  # an agent that insists only hangs up
        assert board.line().machine.state is State.ENDING

    run(scenario)


def test_an_abandoned_transfer_does_not_haunt_the_call() -> None:
    async def scenario(board: Board) -> None:
        call_id, _ = board.answered()
        board.agent_now.control.transfer("desk")  # then the caller interrupts, and the leg is replaced
        board.attach(call_id)
        assert board.agent_now.greeting == RESUMED
        board.agent_now.control.hang_up("transferred")
        assert board.line().machine.state is State.ENDING

    run(scenario)


# --- doors ---


def test_a_third_party_that_is_refused_hears_nothing() -> None:
    async def scenario(board: Board) -> None:
        board.mind.third_party = True
        board.refusing["third_party"] = Refuse("no_consent", "not asked")
        call_id = board.admit()
        with pytest.raises(AssertionError, match="could not be attended"):
            board.attach(call_id)
        assert board.attendants == []
        await asyncio.sleep(CLOSE_WAIT_S + 0.1)
        assert board.ends() == [("refused", "")]

    run(scenario)


def _other_kind(board: Board) -> SimpleNamespace:
    """The agent that goes on when this one's mind is lost."""
    other = SimpleNamespace(name="other", third_party=True)
    board.agent.fallback = SimpleNamespace(**{**vars(board.agent), "providers": (other,), "fallback": None})
    return other


def test_a_call_whose_mind_is_lost_goes_on_with_another_kind_and_its_conversation() -> None:
    async def scenario(board: Board) -> None:
        _other_kind(board)
        call_id, _ = board.answered()
        first, line = board.agent_now, board.line()
        first.conversation += [Message("agent", "Hello."), Message("caller", "my name is Ada")]
        bus = first.bus
        line.held(True)
        line.fall_back()
        second = board.agent_now
        assert second is not first
        assert first.closes == 1
        assert second.bus is bus
        assert second.conversation == [Message("agent", "Hello."), Message("caller", "my name is Ada")]
        assert second.pending == ("my name is Ada",)
        assert second.held
        assert [f.target for f in board.asked if f.door == "third_party"] == ["other"]
        assert [e.kind for e in board.records if isinstance(e, CallEvent)].count("agent_changed") == 1
        line.fall_back()  # there is no third
        assert board.agent_now is second
        assert board.switchboard.call(call_id) is line

    run(scenario)


def test_what_a_lost_mind_was_asked_and_never_wrote_down_is_recognised_by_the_next() -> None:
    async def scenario(board: Board) -> None:
        _other_kind(board)
        board.answered()
        first = board.agent_now
        first.conversation += [Message("agent", "Hello."), Message("caller", "")]
        first.unwritten = b"\x20" * 800
        board.line().fall_back()
        second = board.agent_now
        assert second.went_on_with == b"\x20" * 800
        assert second.conversation == [Message("agent", "Hello.")]
        assert second.greeting is None

    run(scenario)


def test_a_fallback_that_nobody_has_heard_yet_greets_and_one_after_the_agent_spoke_apologises() -> None:
    async def scenario(board: Board) -> None:
        _other_kind(board)
        board.answered(1)
        board.line(1).fall_back()
        assert board.agent_now.greeting is None
        board.answered(2)
        board.agent_now.conversation.append(Message("agent", "Hello."))
        board.line(2).fall_back()
        assert board.agent_now.greeting == DEFINITION.apology
        assert board.agent_now.pending == ()

    run(scenario)


def test_a_fallback_that_nobody_has_heard_yet_says_what_the_one_before_was_to_say() -> None:
    async def scenario(board: Board) -> None:
        _other_kind(board)
        call_id, _ = board.answered()
        board.agent_now.conversation.append(Message("agent", "Hello."))
        board.attach(call_id)  # replaced: the same call
        assert board.agent_now.greeting == RESUMED
        board.line().fall_back()
        assert board.agent_now.greeting == RESUMED

    run(scenario)


def test_a_fallback_that_may_not_hear_the_caller_changes_nothing() -> None:
    async def scenario(board: Board) -> None:
        _other_kind(board)
        board.answered()
        first = board.agent_now
        board.refusing["third_party"] = Refuse("no_consent", "not asked")
        assert board.line().fall_back() == Refuse("no_consent", "not asked")
        await asyncio.sleep(CLOSE_WAIT_S + 0.1)
        assert first.closes == 0
        assert len(board.attendants) == 1
        assert board.ends() == []  # it is the agent's to say so and leave
        assert board.events("agent_changed") == []

    run(scenario)


def test_a_bug_in_the_one_that_goes_on_ends_that_call_alone() -> None:
    async def scenario(board: Board) -> None:
        _other_kind(board)
        call_id, _ = board.answered()
        other, _ = board.answered(2)
        board.breaks = "begin"
        board.line().fall_back()
        await asyncio.sleep(CLOSE_WAIT_S + 0.1)
        assert board.ends(call_id) == [("error", "")]
        assert board.ends(other) == []

    run(scenario)


def test_no_recording_and_no_transcript_without_leave() -> None:
    async def scenario(board: Board) -> None:
        board.answered(1)
        board.line(1).turn(TurnRecord(0, "my number is", "thank you"), 1.0)
        board.refusing = {"record": Refuse("off", ""), "transcript": Refuse("off", "")}
        board.answered(2)
        board.line(2).turn(TurnRecord(0, "my number is", "thank you"), 1.0)
        assert len(board.taps) == 1
        turns = [e.turn for e in board.records if isinstance(e, TurnEnded)]
        assert [(t.caller_text, t.agent_text) for t in turns] == [("my number is", "thank you"), ("", "")]

    run(scenario)


# --- bugs ---


@pytest.mark.parametrize("where", ["attend", "begin", "close"])
def test_a_bug_in_an_attendant_ends_its_call_and_no_other(where: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(board: Board) -> None:
        _, good = board.answered(1)
        board.breaks = where
        call_id = board.admit(2)
        if where == "close":
            leg = board.attach(call_id)
            board.call.stopped(leg)
            assert board.ends(call_id) == [("caller_hung_up", "")]
        else:
            with pytest.raises(AssertionError, match="could not be attended"):
                board.attach(call_id)
            await asyncio.sleep(CLOSE_WAIT_S + 0.1)
            assert board.ends(call_id) == [("error", "")]
            assert "crashed" in board.kinds()
        assert board.free_slots() == board.ears.capacity - 1
        board.breaks = ""
        assert good.closed == []
        assert board.switchboard.live_calls == 1

    run(scenario)
    assert "a bug" in caplog.text


def test_a_crash_during_a_call_ends_it_with_an_error() -> None:
    async def scenario(board: Board) -> None:
        call_id, leg = board.answered()
        board.line().crashed(RuntimeError("a bug"))
        board.call.crashed(RuntimeError("another"))
        assert leg.closed == ["error"]
        board.call.lost(leg, "socket lost")
        board.call.crashed(RuntimeError("late"))
        assert board.ends(call_id) == [("error", "")]

    run(scenario)


# --- callbacks ---


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("completed", "caller_hung_up"),
        ("busy", "busy"),
        ("failed", "failed"),
        ("no-answer", "no_answer"),
        ("canceled", "caller_hung_up"),
    ],
)
def test_a_final_status_ends_the_call(status: Any, reason: str) -> None:
    async def scenario(board: Board) -> None:
        board.answered()
        board.switchboard.status(sid(), "in-progress", None)
        assert board.ends() == []
        board.switchboard.status(sid(), status, 3)
        assert board.ends() == [(reason, "")]

    run(scenario)


def test_callbacks_of_strangers_and_of_the_dead_change_nothing() -> None:
    async def scenario(board: Board) -> None:
        _, leg = board.answered()
        board.call.stopped(leg)
        before = len(board.records)
        for number in (1, 7):
            board.switchboard.status(sid(number), "completed", 1)
            board.switchboard.dialled(sid(number), "busy", 1)
        assert len(board.records) == before
        board.switchboard.stream_event(sid(7), StreamSid("MZ"), "stream-error", "x")
        board.switchboard.stream_event(sid(1), StreamSid("MZ"), "stream-stopped", "")
        assert len(board.records) == before + 1

    run(scenario)


# --- draining ---


def test_draining_lets_calls_finish_and_new_ones_go() -> None:
    async def scenario(board: Board) -> None:
        _, leg = board.answered(1)
        drain = asyncio.create_task(board.switchboard.drain(60))
        await asyncio.sleep(1)
        assert board.refused(2) == "draining"
        assert board.agent_now.goodbyes == 0
        board.line(1).stopped(leg)
        await asyncio.wait_for(drain, 1)
        assert board.ends() == [("overloaded", "draining"), ("caller_hung_up", "")]

    run(scenario)


def test_a_call_that_outlasts_the_drain_hears_goodbye_and_ends_as_drained() -> None:
    async def scenario(board: Board) -> None:
        _, leg = board.answered(1)
        board.answered(2)
        board.admit(3)  # still ringing: nobody to say goodbye to
        drain = asyncio.create_task(board.switchboard.drain(10))
        await asyncio.sleep(10.5)
        polite, stuck = board.attendants
        assert (polite.goodbyes, stuck.goodbyes) == (1, 1)
        polite.control.hang_up("max_duration")  # the turn machine's own word for it
        board.line(1).lost(leg, "socket lost")
        await drain
        assert board.ends() == [("drained", ""), ("drained", ""), ("drained", "")]

    run(scenario)


def test_an_idle_switchboard_drains_at_once() -> None:
    async def scenario(board: Board) -> None:
        await asyncio.wait_for(board.switchboard.drain(60), 0.01)

    run(scenario)


def test_close_ends_what_is_left() -> None:
    async def scenario(board: Board) -> None:
        board.answered(1)
        board.admit(2)
        board.switchboard.close()
        board.switchboard.close()
        assert [reason for reason, _ in board.ends()] == ["drained", "drained"]
        assert board.free_slots() == board.ears.capacity

    run(scenario)


# --- nothing is kept ---


def test_nothing_is_kept_of_a_thousand_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBER_ENDED", 50)
    kept: list[weakref.ref[Any]] = []

    async def scenario(board: Board) -> None:
        ways: list[Callable[[FakeLeg], None]] = [
            lambda leg: board.call.stopped(leg),
            lambda leg: board.call.lost(leg, "socket lost"),
            lambda leg: board.agent_now.control.hang_up("agent_hung_up"),
            lambda leg: board.line(number).crashed(RuntimeError("a bug")),
        ]
        for number in range(1000):
            _, leg = board.answered(number)
            board.agent_now.conversation.append(Message("caller", "x" * 100))
            kept.extend((weakref.ref(board.line(number)), weakref.ref(board.agent_now.bus), weakref.ref(leg)))
            ways[number % 4](leg)
            board.switchboard.status(sid(number), "completed", 1)
            board.attendants.clear()
            board.records.clear()
        del leg, board.call
        assert len(board.switchboard._ended) == 50
        assert not board.switchboard._calls
        assert not board.switchboard._by_provider_id
        assert not board.heartbeat._speaking
        assert board.free_slots() == board.ears.capacity
        await asyncio.sleep(CLOSE_WAIT_S + START_WAIT_S)  # any timer that was forgotten would show itself
        gc.collect()
        assert [ref for ref in kept if ref() is not None] == []

    monkeypatch.setattr(linecall.log, "disabled", True)
    run(scenario)


# --- orders ---


def test_an_order_whose_process_died_is_a_call_that_was_lost_and_nobody_is_dialled() -> None:
    async def scenario(board: Board) -> None:
        board.switchboard.lost(DialOrder(E164("+12025550123"), call_id=CallId("call_promised")))
        (started,) = [e for e in board.records if isinstance(e, CallStarted)]
        assert (started.call_id, started.direction, started.to_number) == ("call_promised", "outbound", "+12025550123")
        assert board.ends() == [("gateway_lost", "the gateway stopped before it was dialled")]
        assert board.switchboard.live_calls == 0

    run(scenario)


# --- who ended it ---


def who_ended(board: Board) -> list[tuple[str, str | None, str]]:
    return [(e.reason, e.by, e.provider_code) for e in board.records if isinstance(e, CallEnded)]


def test_who_ended_a_call_is_in_its_record() -> None:
    async def scenario(board: Board) -> None:
        operators, _ = board.answered(1)
        board.switchboard.hang_up(operators)
        board.line(1).finished("caller_hung_up")  # the carrier's answer to it
        board.answered(2)
        board.switchboard.status(sid(2), "completed", 5)
        board.answered(3)
        board.switchboard.status(sid(3), "failed", 0)
        agents, _ = board.answered(4)
        board.line_of(agents).hang_up("agent_hung_up")
        board.line(4).finished("caller_hung_up", "", "caller", "sip:200")
        assert who_ended(board) == [
            ("agent_hung_up", "operator", ""),
            ("caller_hung_up", "caller", "twilio:completed"),
            ("failed", "network", "twilio:failed"),
            ("agent_hung_up", "agent", ""),
        ]

    run(scenario)


# --- several ways out, and names that come late ---


class Way:
    """A dialler with one trunk."""

    def __init__(self, trunk: str, refusal: Refuse | None = None) -> None:
        self.trunk, self.refusal = trunk, refusal
        self.dialled: list[str] = []

    def routes(self, order: DialOrder) -> list[Route]:
        usable = self.refusal is None
        return [Route(self.trunk, usable=usable)] if order.trunk in (None, self.trunk) else []

    def plan(self, order: DialOrder) -> Plan | Refuse:
        if order.trunk not in (None, self.trunk):
            return Refuse("no_trunk", f"no trunk {order.trunk}")
        return self.refusal or Plan(order, "sip", f"{self.trunk}-{len(self.dialled)}", self.trunk, None, 60.0)

    def dial(self, plan: Plan, call: LegCall) -> Leg:
        self.dialled.append(call.id)
        return FakeLeg()


def test_an_order_goes_to_the_trunk_it_names_or_the_first_that_can() -> None:
    async def scenario(board: Board) -> None:
        down, up = Way("one", Refuse("trunk_down", "it does not answer")), Way("two")
        board.switchboard.diallers += [down, up]
        to = E164("+14155550123")
        for trunk in (None, "two"):
            assert not isinstance(board.switchboard.dial(DialOrder(to, trunk=trunk)), Refuse)
        assert (len(down.dialled), len(up.dialled)) == (0, 2)
        for trunk, code in (("one", "trunk_down"), ("three", "no_trunk")):
            refused = board.switchboard.dial(DialOrder(to, trunk=trunk))
            assert isinstance(refused, Refuse)
            assert refused.code == code

    run(scenario)


def test_a_carrier_may_name_a_call_after_it_took_it_or_after_its_end() -> None:
    async def scenario(board: Board) -> None:
        board.switchboard.diallers.append(Way("one"))
        for number, over in ((1, False), (2, True)):
            call_id = board.switchboard.dial(DialOrder(E164("+14155550123")))
            assert not isinstance(call_id, Refuse)
            if over:
                board.switchboard.hang_up(call_id)
            board.switchboard.named(call_id, sid(number))
            view = CallView(call_id, "ended" if over else "live")
            assert board.switchboard.by_call_sid(sid(number)) == view
        assert board.events(NAMED) == [{"provider_call_id": sid(1)}, {"provider_call_id": sid(2)}]
        board.switchboard.named(CallId("call_unknown"), sid(3))
        assert board.switchboard.by_call_sid(sid(3)) is None
        board.switchboard.close()
        assert board.switchboard.live_calls == 0

    run(scenario)


def test_a_carrier_that_ends_the_ringing_itself_is_given_time_for_it() -> None:
    async def scenario(board: Board) -> None:
        board.switchboard.diallers.append(Way("one"))
        board.switchboard.dial(DialOrder(E164("+14155550123"), ring_timeout_s=20))
        await asyncio.sleep(79)
        assert board.ends() == []
        await asyncio.sleep(2)
        assert board.ends() == [("no_answer", "it rang too long")]

    run(scenario)


def of_desk(board: Board, version: str) -> Any:
    definition = replace(DEFINITION, name="clinic", version=version)  # its admin may call it what they like
    return SimpleNamespace(**{**vars(board.agent), "definition": definition})


def test_an_agent_of_the_desk_is_had_by_its_version_and_not_by_what_it_calls_itself() -> None:
    async def scenario(board: Board) -> None:
        one, two = of_desk(board, "default/sales@1"), of_desk(board, "default/sales@2")
        switchboard = board.switchboard
        switchboard.agents = {"/clinic.toml": board.agent, "default/sales@1": one}
        assert switchboard.agent_named("clinic") is board.agent
        assert switchboard.agent_named("default/sales@1") is one
        for nobody in ("/clinic.toml", "default/sales@2", "default/sales", "other/sales@1"):
            assert switchboard.agent_named(nobody) is None
        switchboard.agents = {"default/sales@2": two, "default/sales": two}
        assert switchboard.agent_named("default/sales") is two
        assert switchboard.agent_named("default/sales@1") is two, "what is published follows what is gone"

    run(scenario)


def test_a_call_that_comes_back_to_an_agent_that_has_gone_has_who_follows_it() -> None:
    async def scenario(board: Board) -> None:
        one, two = of_desk(board, "default/sales@1"), of_desk(board, "default/sales@2")
        switchboard = board.switchboard
        found: list[Any] = []
        for agents in ({"default/sales@1": one}, {"default/sales@2": two, "default/sales": two}, {}):
            switchboard.agents = agents
            found.append(switchboard.still_here(one))
        found.append(switchboard.still_here(cast(Any, board.agent)))
        assert [*map(id, found)] == [id(one), id(two), id(None), id(board.agent)]

    run(scenario)


def test_the_record_of_a_call_names_the_version_and_its_agent_is_among_those_in_use() -> None:
    async def scenario(board: Board) -> None:
        one = of_desk(board, "default/sales@1")
        board.switchboard.agent = one
        board.answered()
        assert board.line().started.agent == "default/sales@1"
        assert any(agent is one for agent in board.switchboard.attending())
        board.line().hang_up("agent_hung_up")
        board.line().end("agent_hung_up")
        assert list(board.switchboard.attending()) == []

    run(scenario)
