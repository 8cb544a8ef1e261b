"""The opening of a call on the manual clock: a real bus and announcer, with a voice and ears that a test plays."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from trunkline.compliance.opening import Wording, load
from trunkline.gateway.consent import House
from trunkline.ports import Allow, Door, Grant, Obligation, Refuse, Revocation, SttFinal, TtsAudio, Wish
from trunkline.testing.board import Board, play
from trunkline.types import CallId

KEPT: tuple[Door, ...] = ("record", "transcript", "third_party")
LINES = (Obligation("say_business", (), "disclosure/*"), Obligation("say_ai", (), "disclosure/US-CA"))
ASK = Obligation("ask_consent", KEPT, "recording/US-CA")
SECOND = b"\x55" * 8000


class Voice:
    async def speak(self, text: str, format: Any) -> list[TtsAudio]:
        return [TtsAudio(SECOND)]


class Ears:
    def open(self, language: str, format: Any, on_event: Callable[[Any], None]) -> Any:
        self.say = on_event
        return SimpleNamespace(feed=lambda audio: None, finalize=lambda: None, close=lambda: None)


async def on_disk() -> bool:
    return True


class Consenting(Board):
    """A leg that plays at once; the rules ask for everybody's agreement."""

    def __init__(self, *owed: Obligation) -> None:
        super().__init__()
        self.mind.third_party = True
        self.alone = SimpleNamespace(**{**vars(self.agent), "providers": (), "fallback": None})
        self.agent.alone = lambda: self.alone
        self.written: list[Grant | Revocation] = []
        self.owed = owed or (*LINES, ASK)
        self.mouth_ears = Ears()
        consents = cast(Any, SimpleNamespace(grant=self.written.append, revoke=self.written.append, on_disk=on_disk))
        house = House(
            Wording(load(), "Acme"),
            {"en": Voice()},  # type: ignore[dict-item]
            self.mouth_ears,  # type: ignore[arg-type]
            consents,
            answer_s=7.0,
        )
        self.switchboard.consents, self.switchboard.keys = house.consents, ("", "*")
        self.switchboard.house = house

    def _decide(self, facts: Any, now: Any) -> Any:
        super()._decide(facts, now)
        return Allow(self.owed) if facts.door in ("answer", "dial") else Allow()

    async def hear(self, seconds: float = 8.0) -> None:
        """The leg plays what it was sent, as time passes."""
        for _ in range(int(seconds * 10)):
            await asyncio.sleep(0.1)
            bus = self.call._bus
            if bus is None or bus.closed:
                return
            bus.carrier_ms += 100
            bus.pump(self.clock.now())
            for mark in list(bus.playout._expected):
                if bus.playout._expected[mark] <= self.clock.now():
                    bus.mark_returned(mark)

    @property
    def doors(self) -> list[bool]:
        return [self.call.consent.shut(door) is None for door in KEPT]


async def opened(board: Consenting, seconds: float = 6.0) -> CallId:
    call_id, _ = board.answered()
    await board.hear(seconds)
    return call_id


def test_the_agent_has_the_line_only_after_the_lines() -> None:
    async def scenario(board: Consenting) -> None:
        await opened(board, 1.0)
        assert board.attendants == []
        await board.hear(4)
        assert board.agent_now.greeting is None
        (told,) = board.events("disclosed")
        assert [line["line"] for line in told["lines"]] == ["say_business", "say_ai"]
        assert all(line["whole"] for line in told["lines"])
        assert board.taps == [board.call.id]

    play(Consenting(*LINES), scenario)


def test_yes_opens_the_doors_and_is_in_the_ledger_first() -> None:
    async def scenario(board: Consenting) -> None:
        await opened(board)
        assert (board.doors, board.taps, board.attendants) == ([False] * 3, [], [])
        board.call.key("1")
        (grant,) = board.written
        assert isinstance(grant, Grant)
        assert grant.wording.startswith("May we record this call")
        assert (grant.wording_version, grant.call_id, grant.jurisdiction) == (load().version, board.call.id, "US-CA")
        assert grant.technologies == ("recording", "transcript", "ai_processing")
        assert board.doors == [True] * 3
        await board.hear(2)
        assert board.call.attended.agent is board.agent
        assert board.taps == [board.call.id]
        assert "transcript" in [facts.door for facts in board.asked] or board.call.conversation == ()

    play(Consenting(), scenario)


def test_silence_twice_is_a_no() -> None:
    async def scenario(board: Consenting) -> None:
        await opened(board)
        await board.hear(7)
        assert board.attendants == []
        await board.hear(12)
        assert board.call.attended.agent is board.alone
        assert (board.doors, board.taps, board.written) == ([False] * 3, [], [])
        assert [event["via"] for event in board.events("consent")] == ["silence"]
        (told,) = board.events("disclosed")
        assert [line["line"] for line in told["lines"]].count("ask_consent") == 2

    play(Consenting(), scenario)


def test_another_key_and_then_a_spoken_no_is_served_without() -> None:
    async def scenario(board: Consenting) -> None:
        await opened(board)
        board.call.key("5")
        await board.hear(2)
        board.mouth_ears.say(SttFinal("no"))
        await board.hear(3)
        assert board.call.attended.agent is board.alone
        assert board.events("consent")[0]["state"] == "refused"
        assert isinstance(board.call.ask("record"), Refuse)

    play(Consenting(), scenario)


def test_who_hangs_up_has_heard_what_was_played() -> None:
    async def scenario(board: Consenting) -> None:
        await opened(board, 0.5)
        board.call.stopped(board.call._leg)  # type: ignore[arg-type]
        (told,) = board.events("disclosed")
        assert 200 <= told["lines"][0]["heard_ms"] <= 600
        assert [line["whole"] for line in told["lines"]] == [False] * len(told["lines"])

    play(Consenting(), scenario)


def test_a_leg_that_is_replaced_keeps_what_was_agreed_and_hears_no_lines_again() -> None:
    async def scenario(board: Consenting) -> None:
        call_id = await opened(board)
        board.call.key("1")
        await board.hear(2)
        board.attach(call_id)
        assert len(board.attendants) == 2
        assert board.doors == [True] * 3
        assert len(board.events("disclosed")) == 1

    play(Consenting(), scenario)


def test_a_leg_lost_while_they_were_asked_is_asked_anew() -> None:
    async def scenario(board: Consenting) -> None:
        call_id = await opened(board)
        board.attach(call_id)
        assert board.doors == [False] * 3
        await board.hear(1)
        assert board.attendants == []
        board.call.key("1")
        await board.hear(2)
        assert board.doors == [True] * 3

    play(Consenting(), scenario)


def test_a_call_that_comes_back_carries_its_consent_and_one_of_a_dead_process_does_not() -> None:
    async def scenario(board: Consenting) -> None:
        await opened(board)
        board.call.key("1")
        await board.hear(2)
        board.call.lost(board.call._leg, "socket lost")  # type: ignore[arg-type]
        await opened(board, 0.2)
        assert board.doors == [True] * 3
        assert len(board.attendants) == 2
        carried = board.events("consent")[-1]  # its own record tells
        assert (carried["state"], carried["doors"], carried["via"]) == ("granted", list(KEPT), "carried")
        board.switchboard._ended.clear()  # as after kill -9
        board.call.lost(board.call._leg, "socket lost")  # type: ignore[arg-type]
        board.switchboard._ended.clear()
        await opened(board, 1.0)
        assert board.doors == [False] * 3
        assert len(board.attendants) == 2

    play(Consenting(), scenario)


def test_withdrawing_shuts_at_once_is_written_and_confirmed() -> None:
    async def scenario(board: Consenting) -> None:
        await opened(board)
        board.call.key("1")
        await board.hear(2)
        theirs = board.agent_now
        board.call.wished(Wish("keep_nothing", "stop recording", "speech"))
        assert theirs.closes == 1
        assert board.doors == [False] * 3
        said = board.written[1]
        assert isinstance(said, Revocation)
        assert (said.verbatim, said.do_not_call) == ("stop recording", False)
        await board.hear(2)
        assert board.call.attended.agent is board.alone
        assert board.agent_now is not theirs
        assert board.agent_now.greeting == ""  # they were asked already what else there is
        assert [event["why"] for event in board.events("agent_changed")] == ["no_consent"]
        board.call.wished(Wish("keep_nothing", "again", "speech"))
        assert len(board.written) == 2

    play(Consenting(), scenario)


def test_a_menu_is_said_whenever_it_takes_the_line() -> None:
    async def scenario(board: Consenting) -> None:
        board.alone.greets_again = True
        await opened(board)
        board.call.key("1")
        await board.hear(2)
        board.call.key("*")
        await board.hear(2)
        assert board.agent_now.greeting is None  # its own

    play(Consenting(), scenario)


def test_whom_nobody_can_serve_is_told_so() -> None:
    async def scenario(board: Consenting) -> None:
        board.agent.alone = lambda: None
        call_id = await opened(board)
        board.call.key("1")
        await board.hear(2)
        theirs = board.agent_now
        board.call.key("*")
        assert theirs.closes == 1
        await board.hear(6)
        await asyncio.sleep(10)
        assert board.ends(call_id) == [("refused", "")]
        assert len(board.attendants) == 1

    play(Consenting(), scenario)


def test_who_never_wants_to_be_called_again_is_not_asked_any_further() -> None:
    async def scenario(board: Consenting) -> None:
        call_id = await opened(board)
        board.call.key("9")  # heard during the opening
        board.call.key("1")
        await board.hear(20)
        await asyncio.sleep(10)
        assert [type(each) for each in board.written] == [Revocation]
        assert board.ends(call_id) == [("opted_out", "")]
        assert board.attendants == []

    play(Consenting(), scenario)


def test_nobody_comes_to_a_call_that_is_being_opened() -> None:
    async def scenario(board: Consenting) -> None:
        await opened(board, 1.0)
        assert board.call.here() is None

    play(Consenting(), scenario)


def test_a_door_that_asks_although_nobody_was_told_stays_shut() -> None:
    async def scenario(board: Consenting) -> None:
        board.switchboard.house = None
        board.answered()
        assert board.doors == [False] * 3
        assert board.taps == []
        assert board.call.attended.agent is board.alone

    play(Consenting(ASK), scenario)
