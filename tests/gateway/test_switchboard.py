import asyncio
import base64
import gc
import json
import selectors
import struct
import weakref
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from trunkline.agents.cascade import Cascade
from trunkline.agents.definition import AgentDefinition, ProviderChoice
from trunkline.errors import PeerError
from trunkline.gateway import switchboard as module
from trunkline.gateway.call import CLOSE_WAIT_S, DIAL_SLACK_S, START_WAIT_S, State
from trunkline.gateway.switchboard import (
    GOODBYE_S,
    OVERLOADED_LATE_S,
    RESUMED,
    STRANGER_S,
    TRANSFER_FAILED,
    Limits,
    Line,
    LineCall,
    Switchboard,
)
from trunkline.gateway.twilio.leg import TwilioLeg
from trunkline.gateway.twilio.tokens import Tokens
from trunkline.gateway.twilio.webhooks import Arrival, CallView
from trunkline.gateway.twilio.wire import Started
from trunkline.media.bus import Bus
from trunkline.media.ears import Ears
from trunkline.media.heartbeat import Heartbeat
from trunkline.media.playout import LeadPolicy
from trunkline.media.vad import EnergyGate
from trunkline.metrics import Metrics
from trunkline.ports import (
    Allow,
    CallEnded,
    CallEvent,
    CallStarted,
    Decision,
    EndReason,
    Facts,
    Message,
    RecordEvent,
    Refuse,
    TurnEnded,
    TurnRecord,
    UsageMetered,
)
from trunkline.telemetry import Telemetry
from trunkline.testing.clock import ManualClock
from trunkline.types import E164, MULAW_8K, CallId, CallSid, StreamSid

DEFINITION = AgentDefinition(
    name="clinic",
    stt=ProviderChoice("fake"),
    llm=ProviderChoice("fake"),
    tts=ProviderChoice("fake"),
    greeting="Hello.",
    targets={"desk": "+14155550100"},
)


def sid(number: int = 1) -> CallSid:
    return CallSid(f"CA{number:032x}")


def arrival(number: int = 1, **changes: Any) -> Arrival:
    facts: dict[str, Any] = {"direction": "inbound", "from_number": E164("+14155550123"), "to_number": None}
    return Arrival(sid(number), **(facts | changes))


class Attendant:
    """Takes note of what the switchboard asks of it."""

    def __init__(self, board: "Board", bus: Bus, control: LineCall) -> None:
        self.board, self.bus, self.control = board, bus, control
        self.conversation: list[Message] = []
        self.greeting: str | None = None
        self.keys = ""
        self.goodbyes = self.closes = 0

    def begin(self, greeting: str | None, conversation: Sequence[Message]) -> None:
        if self.board.breaks == "begin":
            raise RuntimeError("a bug")
        self.greeting = greeting
        self.conversation += conversation

    def key(self, digit: str) -> None:
        self.keys += digit

    def say_goodbye(self) -> None:
        self.goodbyes += 1

    def close(self) -> None:
        self.closes += 1
        if self.board.breaks == "close":
            raise RuntimeError("a bug")


class Leg:
    """What the switchboard needs of a TwilioLeg."""

    writable = authenticated = True

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.codes: list[int] = []
        self.detached = False

    def send(self, messages: Any) -> None:
        self.sent += messages

    def clear(self) -> None:
        self.sent.append("clear")

    def close(self, code: int = 1000, reason: str = "") -> None:
        self.codes.append(code)

    def detach(self) -> None:
        self.detached = True


class Detector:
    def reset(self, slot: int) -> None: ...

    def skip(self, slots: Any, windows: Any) -> None: ...

    def run(self, slots: Any, windows: Any) -> Any: ...


class Board:
    """A switchboard with fakes around it, and what they saw."""

    def __init__(self, max_calls: int = 10, max_unauthenticated: int = 4) -> None:
        self.clock = ManualClock()
        self.records: list[RecordEvent] = []
        self.refusing: dict[str, Refuse] = {}
        self.breaks = ""
        self.attendants: list[Attendant] = []
        self.third_party = False
        self.metrics = Metrics()
        self.tokens = Tokens()
        self.heartbeat = Heartbeat(self.clock, lambda *_: None, lambda late, took: None)
        mind = SimpleNamespace(name="fake", third_party=False)
        self.mind = mind
        self.agent = SimpleNamespace(
            definition=DEFINITION, minds=SimpleNamespace(stt=mind, llm=mind, tts=mind), attend=self._attend
        )
        capacity = max_calls + 2
        self.ears = Ears(MULAW_8K, capacity, cast(Any, Detector()), EnergyGate(capacity))
        self.taps: list[CallId] = []
        self.switchboard = Switchboard(
            cast(Cascade, self.agent),
            Line(self.ears, self.heartbeat, LeadPolicy(), lambda: None, self._recorder),
            Limits(max_calls, 600.0, max_unauthenticated, 5.0, 3.0),
            self.tokens,
            self,
            self._decide,
            self.metrics,
            Telemetry(),
            self.clock,
        )

    def append(self, event: RecordEvent) -> None:
        self.records.append(event)

    def _attend(self, facts: Any, bus: Bus, control: Any, report: Any, clock: Any, after: Any) -> Attendant:
        if self.breaks == "attend":
            raise RuntimeError("a bug")
        self.attendants.append(Attendant(self, bus, control))
        return self.attendants[-1]

    def _decide(self, facts: Facts, now: datetime) -> Decision:
        return self.refusing.get(facts.door, Allow())

    def _recorder(self, call_id: CallId, permit: Allow) -> None:
        self.taps.append(call_id)

    # --- what a carrier does ---

    def admit(self, number: int = 1, **changes: Any) -> CallId:
        call_id = self.switchboard.admit(arrival(number, **changes))
        assert not isinstance(call_id, Refuse), call_id
        return call_id

    def refused(self, number: int = 1, **changes: Any) -> str:
        refusal = self.switchboard.admit(arrival(number, **changes))
        assert isinstance(refusal, Refuse)
        return refusal.code

    def stream(self, call_id: CallId, number: int = 1) -> Leg:
        leg = Leg()
        token = self.tokens.issue(sid(number), call_id, self.clock.now())
        self.call, _ = self.switchboard.attach(
            cast(TwilioLeg, leg), Started(StreamSid("MZ" + "0" * 32), sid(number), {"token": token})
        )
        return leg

    def answered(self, number: int = 1) -> tuple[CallId, Leg]:
        call_id = self.admit(number)
        return call_id, self.stream(call_id, number)

    def line(self, number: int = 1) -> LineCall:
        return self.switchboard._by_sid[sid(number)]

    # --- what became of it ---

    def ends(self, call_id: CallId | None = None) -> list[tuple[EndReason, str]]:
        return [(e.reason, e.detail) for e in self.records if isinstance(e, CallEnded) and call_id in (None, e.call_id)]

    def kinds(self) -> list[str]:
        return [e.kind for e in self.records if isinstance(e, CallEvent)]

    @property
    def agent_now(self) -> Attendant:
        return self.attendants[-1]

    def free_slots(self) -> int:
        return len(self.ears._free)


class _Jump(selectors.DefaultSelector):
    """Time passes when there is nothing else to do, at once."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if not events and timeout:
            self._clock.advance(timeout)
        return events


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, clock: ManualClock) -> None:
        self._manual = clock
        super().__init__(_Jump(clock))

    def time(self) -> float:
        return self._manual.now()


def run(scenario: Callable[[Board], Coroutine[Any, Any, None]], **settings: Any) -> Board:
    board = Board(**settings)
    with asyncio.Runner(loop_factory=lambda: _Loop(board.clock)) as runner:
        runner.run(scenario(board))
    return board


# --- admission ---


def test_a_webhook_that_comes_twice_is_one_call() -> None:
    async def scenario(board: Board) -> None:
        first = board.admit()
        assert board.admit() == first
        board.stream(first)
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


# --- the media socket's door ---


def test_a_token_opens_one_stream_of_its_own_call() -> None:
    async def scenario(board: Board) -> None:
        call_id = board.admit(1)
        board.admit(2)
        token = board.tokens.issue(sid(1), call_id, board.clock.now())

        def knock(number: int, shown: str) -> None:
            board.switchboard.attach(
                cast(TwilioLeg, Leg()), Started(StreamSid("MZ"), sid(number), {"token": shown} if shown else {})
            )

        for number, shown in ((1, ""), (1, "rubbish"), (2, token)):
            with pytest.raises(PeerError) as refusal:
                knock(number, shown)
            assert refusal.value.close_code == 1008
        knock(1, token)
        with pytest.raises(PeerError, match="used"):
            knock(1, token)

    run(scenario)


def test_a_token_outlives_its_call_in_vain() -> None:
    async def scenario(board: Board) -> None:
        call_id = board.admit()
        board.switchboard.status(sid(), "canceled", None)
        with pytest.raises(PeerError, match="no such call"):
            board.stream(call_id)
        ending = board.admit(2)
        board.stream(ending, 2)
        board.switchboard.hang_up(ending)
        with pytest.raises(PeerError, match="is ending"):
            board.stream(ending, 2)

    run(scenario)


def test_a_second_stream_takes_the_call_over() -> None:
    async def scenario(board: Board) -> None:
        call_id, old = board.answered()
        first = board.agent_now
        first.conversation.append(Message("caller", "I need a doctor"))
        new = board.stream(call_id)
        assert (old.codes, old.detached, new.codes) == ([1001], True, [])
        assert first.closes == 1
        assert first.bus.closed
        assert board.agent_now.greeting == RESUMED
        assert [m.text for m in board.agent_now.conversation] == ["I need a doctor"]
        board.call.lost(cast(TwilioLeg, old), "socket lost")  # late news of the old one
        assert board.ends() == []

    run(scenario)


# --- the end of a call ---


def test_a_caller_who_hangs_up() -> None:
    async def scenario(board: Board) -> None:
        call_id, leg = board.answered()
        board.call.key("5")
        assert board.agent_now.keys == "5"
        board.call.stopped(cast(TwilioLeg, leg))
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
        assert leg.codes == [1000]
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
        board.line(1).lost(cast(TwilioLeg, leg), "socket lost")
        assert board.ends() == [("agent_hung_up", "")]
        assert board.switchboard.live(call_id) is None
        assert board.switchboard.live_calls == 1

    run(scenario)


# --- resume ---


def test_a_call_that_lost_its_leg_comes_back_where_it_was() -> None:
    async def scenario(board: Board) -> None:
        first, leg = board.answered()
        board.agent_now.conversation += [Message("caller", "on Tuesday"), Message("agent", "At nine?")]
        board.call.lost(cast(TwilioLeg, leg), "socket lost")
        assert board.ends(first) == [("media_lost", "socket lost")]
        assert board.switchboard.by_call_sid(sid()) is None
        second = board.admit(reconnects=1, why="leg_lost")
        assert second != first
        board.stream(second)
        assert board.agent_now.greeting == RESUMED
        assert [m.text for m in board.agent_now.conversation] == ["on Tuesday", "At nine?"]
        names = [e.provider_call_id for e in board.records if isinstance(e, CallStarted)]
        assert names == [sid(), f"{sid()}/2"]

    run(scenario)


def test_a_call_that_came_to_its_end_does_not_come_back() -> None:
    async def scenario(board: Board) -> None:
        _, leg = board.answered()
        board.call.stopped(cast(TwilioLeg, leg))
        assert board.refused(reconnects=1, why="leg_lost") == "ended"
        assert board.refused(reconnects=1, why="transfer_failed") == "ended"

    run(scenario)


def test_a_call_of_a_dead_process_is_told_what_happened() -> None:
    async def scenario(board: Board) -> None:
        board.stream(board.admit(1, reconnects=1, why="leg_lost"), 1)
        assert board.agent_now.greeting == RESUMED
        board.stream(board.admit(2, reconnects=1, why="transfer_failed"), 2)
        assert board.agent_now.greeting == TRANSFER_FAILED
        board.stream(board.admit(3), 3)
        assert board.agent_now.greeting is None

    run(scenario)


# --- transfers ---


def test_a_transfer_is_dialled_and_ends_the_call() -> None:
    async def scenario(board: Board) -> None:
        call_id, leg = board.answered()
        assert isinstance(board.agent_now.control.transfer("desk"), Allow)
        board.agent_now.control.hang_up("transferred")
        assert leg.codes == [1000]
        assert board.switchboard.by_call_sid(sid()) == CallView(call_id, "transferring", E164("+14155550100"))
        board.call.lost(cast(TwilioLeg, leg), "socket lost")  # our own close
        board.switchboard.dialled(sid(), "completed", 60)
        assert board.ends() == [("transferred", "")]
        assert "dialled" in board.kinds()

    run(scenario)


def test_a_transfer_that_fails_comes_back_to_the_agent() -> None:
    async def scenario(board: Board) -> None:
        call_id, _ = board.answered()
        board.agent_now.conversation.append(Message("caller", "a person please"))
        board.agent_now.control.transfer("desk")
        board.agent_now.control.hang_up("transferred")
        board.switchboard.dialled(sid(), "no-answer", None)
        assert board.admit(reconnects=1, why="transfer_failed") == call_id
        board.stream(call_id)
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
        board.stream(call_id)
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
        with pytest.raises(PeerError):
            board.stream(call_id)
        assert board.attendants == []
        await asyncio.sleep(CLOSE_WAIT_S + 0.1)
        assert board.ends() == [("refused", "")]

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
            leg = board.stream(call_id, 2)
            board.call.stopped(cast(TwilioLeg, leg))
            assert board.ends(call_id) == [("caller_hung_up", "")]
        else:
            with pytest.raises(PeerError):
                board.stream(call_id, 2)
            await asyncio.sleep(CLOSE_WAIT_S + 0.1)
            assert board.ends(call_id) == [("error", "")]
            assert "crashed" in board.kinds()
        assert board.free_slots() == board.ears.capacity - 1
        board.breaks = ""
        assert good.codes == []
        assert board.switchboard.live_calls == 1

    run(scenario)
    assert "a bug" in caplog.text


def test_a_crash_during_a_call_ends_it_with_an_error() -> None:
    async def scenario(board: Board) -> None:
        call_id, leg = board.answered()
        board.line().crashed(RuntimeError("a bug"))
        board.call.crashed(RuntimeError("another"))
        assert leg.codes == [1000]
        board.call.lost(cast(TwilioLeg, leg), "socket lost")
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
        board.call.stopped(cast(TwilioLeg, leg))
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
        board.line(1).stopped(cast(TwilioLeg, leg))
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
        board.line(1).lost(cast(TwilioLeg, leg), "socket lost")
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
        await board.switchboard.close()
        await board.switchboard.close()
        assert [reason for reason, _ in board.ends()] == ["drained", "drained"]
        assert board.free_slots() == board.ears.capacity

    run(scenario)


# --- sockets: real legs on fake transports ---


class Transport:
    def __init__(self, leg: TwilioLeg) -> None:
        self.leg, self.written, self.closed = leg, b"", False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.leg.connection_lost, None)

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def set_write_buffer_limits(self, high: int) -> None: ...


HANDSHAKE = (
    b"GET /twilio/media HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def connect(board: Board) -> Transport:
    leg = board.switchboard.new_leg()
    transport = Transport(leg)
    leg.connection_made(cast(Any, transport))
    leg.data_received(HANDSHAKE)
    return transport


def text(message: dict[str, Any]) -> bytes:
    payload = json.dumps(message).encode()
    return struct.pack("!BBH", 0x81, 0x80 | 126, len(payload)) + b"\0\0\0\0" + payload


def start(board: Board, call_id: CallId, number: int = 1) -> bytes:
    token = board.tokens.issue(sid(number), call_id, board.clock.now())
    body = {
        "streamSid": "MZ" + "0" * 32,
        "callSid": sid(number),
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"token": token},
    }
    return text({"event": "start", "sequenceNumber": "1", "start": body})


def media(number: int) -> bytes:
    body = {"payload": base64.b64encode(b"\xff" * 160).decode(), "timestamp": str(number * 20), "chunk": "1"}
    return text({"event": "media", "sequenceNumber": str(number), "media": body})


def test_strangers_have_a_limit_and_known_streams_do_not_count() -> None:
    async def scenario(board: Board) -> None:
        known = connect(board)
        known.leg.data_received(start(board, board.admit()))
        strangers = [connect(board) for _ in range(4)]
        assert all(b" 101 " in s.written for s in strangers)
        assert b" 503 " in connect(board).written
        strangers[0].leg.close()  # one that is leaving does not count
        assert b" 101 " in connect(board).written
        assert b" 503 " in connect(board).written

    run(scenario)


def test_strangers_cannot_keep_a_caller_out_for_long() -> None:
    async def scenario(board: Board) -> None:
        strangers = []
        for _ in range(4):
            strangers.append(connect(board))
            await asyncio.sleep(0.1)
        assert b" 503 " in connect(board).written
        await asyncio.sleep(STRANGER_S - 0.35)
        caller = connect(board)
        assert b" 101 " in caller.written
        assert [s.closed for s in strangers] == [True, False, False, False]
        caller.leg.data_received(start(board, board.admit()))
        assert board.agent_now.greeting is None

    run(scenario)


def test_a_silent_stream_is_lost_and_its_call_may_come_back() -> None:
    async def scenario(board: Board) -> None:
        socket = connect(board)
        socket.leg.data_received(start(board, board.admit()) + media(2))
        await asyncio.sleep(2.9)
        assert board.ends() == []
        await asyncio.sleep(0.5)
        assert board.ends() == [("media_lost", "no media")]
        await asyncio.sleep(3)
        assert socket.closed
        assert board.switchboard._legs == set()
        assert board.switchboard._checking is None

    run(scenario)


def test_sockets_whose_peers_do_not_answer_are_gone_after_close() -> None:
    async def scenario(board: Board) -> None:
        stranger, known = connect(board), connect(board)
        known.leg.data_received(start(board, board.admit()))
        await board.switchboard.close()
        for socket in (stranger, known):
            assert socket.closed
            assert b"\x88" in socket.written
        assert board.switchboard._legs == set()
        assert b" 503 " in connect(board).written

    run(scenario)


def test_close_does_not_wait_longer_than_the_peers_do() -> None:
    async def scenario(board: Board) -> None:
        sockets = [connect(board) for _ in range(3)]
        closing = asyncio.create_task(board.switchboard.close())
        await asyncio.sleep(0.1)
        for socket in sockets:
            socket.leg.data_received(b"\x88\x82\0\0\0\0\x03\xe9")  # their half of the closing handshake
        await asyncio.wait_for(closing, 0.1)
        assert board.switchboard._checking is None

    run(scenario)


def test_a_bug_in_one_sockets_deadline_leaves_the_others_theirs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(board: Board) -> None:
        bad, good = connect(board), connect(board)

        def check(now: float) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(bad.leg, "check", check)
        await asyncio.sleep(8)
        assert bad.closed
        assert good.closed

    run(scenario)
    assert "a bug" in caplog.text


def test_counts_of_a_socket_reach_the_metrics() -> None:
    async def scenario(board: Board) -> None:
        socket = connect(board)
        socket.leg.data_received(start(board, board.admit()) + media(2) + media(9) + text({"event": "news"}))
        socket.leg.abort()
        await asyncio.sleep(0)
        exposed = board.metrics.text().decode()
        assert 'trunkline_drops_total{cause="sequence_gap"} 6.0' in exposed
        assert 'trunkline_drops_total{cause="bad_message"} 1.0' in exposed
        assert 'trunkline_ws_closes_total{code="1006"} 1.0' in exposed

    run(scenario)


# --- nothing is kept ---


def test_nothing_is_kept_of_a_thousand_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBER_ENDED", 50)
    kept: list[weakref.ref[Any]] = []

    async def scenario(board: Board) -> None:
        ways: list[Callable[[Leg], None]] = [
            lambda leg: board.call.stopped(cast(TwilioLeg, leg)),
            lambda leg: board.call.lost(cast(TwilioLeg, leg), "socket lost"),
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
        assert not board.switchboard._by_sid
        assert not board.heartbeat._speaking
        assert board.free_slots() == board.ears.capacity
        await asyncio.sleep(CLOSE_WAIT_S + START_WAIT_S)  # any timer that was forgotten would show itself
        gc.collect()
        assert [ref for ref in kept if ref() is not None] == []

    monkeypatch.setattr(module.log, "disabled", True)
    run(scenario)
