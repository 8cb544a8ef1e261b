"""A switchboard with fakes around it, on a loop whose time passes by itself when there is nothing else to do."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from trunkline.agents.attending import Agent
from trunkline.agents.definition import AgentDefinition, ProviderChoice
from trunkline.agents.providers import Minds
from trunkline.gateway.arrival import Arrival
from trunkline.gateway.leg import LegKind
from trunkline.gateway.linecall import LineCall
from trunkline.gateway.switchboard import Limits, Line, Switchboard
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
    CallFacts,
    Decision,
    EndReason,
    Facts,
    Message,
    RecordEvent,
    Refuse,
    Usage,
)
from trunkline.telemetry import Telemetry
from trunkline.testing.clock import ManualClock
from trunkline.types import E164, MULAW_8K, CallId, CallSid

DEFINITION = AgentDefinition(
    name="clinic",
    stt=ProviderChoice("fake"),
    llm=ProviderChoice("fake"),
    tts=ProviderChoice("fake"),
    greeting="Hello.",
    targets={"desk": "+14155550100"},
)
MAX_CALL_S = 600.0


def sid(number: int = 1) -> CallSid:
    return CallSid(f"CA{number:032x}")


def arrival(number: int = 1, **changes: Any) -> Arrival:
    facts: dict[str, Any] = {
        "leg": "twilio",
        "direction": "inbound",
        "from_number": E164("+14155550123"),
        "to_number": None,
    }
    return Arrival(sid(number), **(facts | changes))


class FakeAttendant:
    """Takes note of what the switchboard asks of it."""

    def __init__(self, board: "Board", call: CallFacts, bus: Bus, control: LineCall) -> None:
        self.board, self.call, self.bus, self.control = board, call, bus, control
        self.conversation: list[Message] = []
        self.greeting: str | None = None
        self.pending: tuple[str, ...] = ()
        self.before_question = ""
        self.keys = ""
        self.held = self.keyed_in_secret = False
        self.written: list[str] = []
        self.instructed: list[str] = []
        self.used: list[Usage] = []
        self.goodbyes = self.closes = self.flushes = 0
        self.unwritten = self.went_on_with = b""
        self.last_line: str | None = None

    def begin(
        self,
        greeting: str | None,
        conversation: Sequence[Message] = (),
        pending: Sequence[str] = (),
        *,
        before_question: str = "",
    ) -> None:
        if self.board.breaks == "begin":
            raise RuntimeError("a bug")
        self.greeting, self.pending, self.before_question = greeting, tuple(pending), before_question
        self.conversation += conversation

    def go_on(self, conversation: Sequence[Message], unwritten: bytes) -> None:
        self.conversation += conversation
        self.went_on_with = unwritten

    def key(self, digit: str) -> None:
        self.keys += digit

    def typed(self, text: str) -> None:
        self.written.append(text)

    def flush(self) -> None:
        self.flushes += 1

    def hold(self, held: bool) -> None:
        self.held = held

    def say_goodbye(self, line: str | None = None) -> None:
        self.goodbyes += 1
        self.last_line = line

    def instruct(self, text: str) -> None:
        self.instructed.append(text)

    def unmetered(self) -> Sequence[Usage]:
        return tuple(self.used)

    def close(self) -> None:
        self.closes += 1
        if self.board.breaks == "close":
            raise RuntimeError("a bug")


class FakeLeg:
    """Notes what its call asks of it."""

    kind: LegKind = "twilio"
    transfers, sends_dtmf, writable = True, False, True

    def __init__(self) -> None:
        self.lead = LeadPolicy()
        self.sent: list[Any] = []
        self.closed: list[str] = []
        self.digits = ""
        self.detached = False

    def send(self, messages: Any) -> None:
        self.sent += messages

    def clear(self) -> int | None:
        self.sent.append("clear")
        return None

    def send_dtmf(self, digits: str) -> None:
        self.digits += digits

    def stats(self) -> Mapping[str, int]:
        return {}

    def close(self, why: str = "") -> None:
        self.closed.append(why)

    def detach(self) -> None:
        self.detached = True


class _Detector:
    def reset(self, slot: int) -> None: ...

    def skip(self, slots: Any, windows: Any) -> None: ...

    def run(self, slots: Any, windows: Any) -> Any: ...


class Board:
    """The switchboard, and what its fakes saw."""

    def __init__(self, max_calls: int = 10) -> None:
        self.clock = ManualClock()
        self.records: list[RecordEvent] = []
        self.asked: list[Facts] = []
        self.refusing: dict[str, Refuse] = {}
        self.breaks = ""
        """Where the next attendants have a bug: attend, begin or close."""
        self.attendants: list[FakeAttendant] = []
        self.metrics = Metrics()
        self.listened_at: list[float] = []
        """When the ears were asked to hear what had come; they do not."""
        self.heartbeat = Heartbeat(self.clock, self.listened_at.append, lambda late, took: None)
        self.mind = SimpleNamespace(name="fake", third_party=False)
        self.ready = True
        self.agent = SimpleNamespace(
            definition=DEFINITION,
            minds=Minds(cast(Any, self.mind), cast(Any, self.mind), cast(Any, self.mind)),
            providers=(self.mind,),
            fallback=None,
            alone=lambda: None,
            greets_again=False,
            attend=self._attend,
            ready=lambda: self.ready,
        )
        capacity = max_calls + 2
        self.ears = Ears(MULAW_8K, capacity, cast(Any, _Detector()), EnergyGate(capacity))
        self.taps: list[CallId] = []
        self.switchboard = Switchboard(
            cast(Agent, self.agent),
            Line(self.ears, self.heartbeat, lambda: None, self._recorder),
            Limits(max_calls, MAX_CALL_S),
            self,
            self._decide,
            self.metrics,
            Telemetry(),
            self.clock,
        )

    def append(self, event: RecordEvent) -> None:
        self.records.append(event)

    def _attend(self, facts: CallFacts, bus: Bus, control: Any, report: Any, clock: Any, after: Any) -> FakeAttendant:
        if self.breaks == "attend":
            raise RuntimeError("a bug")
        self.attendants.append(FakeAttendant(self, facts, bus, control))
        return self.attendants[-1]

    def _decide(self, facts: Facts, now: datetime) -> Decision:
        self.asked.append(facts)
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

    def attach(self, call_id: CallId) -> FakeLeg:
        """With a leg of its own; raises AssertionError when it is refused. `call` is this call then."""
        leg = FakeLeg()
        self.call = self.line_of(call_id)
        bus = self.call.attach(leg)
        assert isinstance(bus, Bus), bus
        return leg

    def answered(self, number: int = 1) -> tuple[CallId, FakeLeg]:
        call_id = self.admit(number)
        return call_id, self.attach(call_id)

    def line_of(self, call_id: CallId) -> LineCall:
        call = self.switchboard.call(call_id)
        assert call is not None
        return call

    def line(self, number: int = 1) -> LineCall:
        return self.switchboard._by_provider_id[sid(number)]

    # --- what became of it ---

    def ends(self, call_id: CallId | None = None) -> list[tuple[EndReason, str]]:
        return [(e.reason, e.detail) for e in self.records if isinstance(e, CallEnded) and call_id in (None, e.call_id)]

    def kinds(self) -> list[str]:
        return [e.kind for e in self.records if isinstance(e, CallEvent)]

    def events(self, kind: str) -> list[Any]:
        return [e.data for e in self.records if isinstance(e, CallEvent) and e.kind == kind]

    @property
    def agent_now(self) -> FakeAttendant:
        return self.attendants[-1]

    def free_slots(self) -> int:
        return self.ears.free


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


class ManualLoop(asyncio.SelectorEventLoop):
    """Sleeps take no time of ours: the clock jumps to the next timer."""

    def __init__(self, clock: ManualClock) -> None:
        self._manual = clock
        super().__init__(_Jump(clock))

    def time(self) -> float:
        return self._manual.now()


_B = TypeVar("_B", bound=Board)


def play(board: _B, scenario: Callable[[_B], Coroutine[Any, Any, None]]) -> _B:
    with asyncio.Runner(loop_factory=lambda: ManualLoop(board.clock)) as runner:
        runner.run(scenario(board))
    return board


def run(scenario: Callable[[Board], Coroutine[Any, Any, None]], max_calls: int = 10) -> Board:
    """Play a scenario on a board of its own."""
    return play(Board(max_calls), scenario)
