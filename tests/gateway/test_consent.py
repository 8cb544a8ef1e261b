"""The opening of a call on the manual clock: a real bus and announcer, with a voice and ears that a test plays."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from trunkline.compliance.opening import Wording, load
from trunkline.errors import ProviderError
from trunkline.gateway import consent as module
from trunkline.gateway.consent import House
from trunkline.gateway.dialling import DialOrder
from trunkline.gateway.joining import Joining
from trunkline.gateway.party import Invitation
from trunkline.gateway.recital import Reciter
from trunkline.ports import Allow, Door, Grant, Message, Obligation, Refuse, Revocation, SttFinal, TtsAudio, Wish
from trunkline.testing.board import DEFINITION, Board, FakeLeg, play
from trunkline.testing.caller.speech import synthesize, to_frames
from trunkline.types import DEFAULT_TENANT, E164, CallId, SessionId

KEPT: tuple[Door, ...] = ("record", "transcript", "third_party")
LINES = (Obligation("say_business", (), "disclosure/*"), Obligation("say_ai", (), "disclosure/US-CA"))
ASK = Obligation("ask_consent", KEPT, "recording/US-CA")
SECOND = b"\x55" * 8000


class Voice:
    async def speak(self, text: str, format: Any) -> list[TtsAudio]:
        return [TtsAudio(SECOND)]

    kept = staticmethod(lambda text, format: [TtsAudio(SECOND)])


class Ears:
    def open(self, language: str, format: Any, on_event: Callable[[Any], None]) -> Any:
        self.say = on_event
        return SimpleNamespace(feed=lambda audio: None, finalize=lambda: self.finalize(), close=lambda: None)

    def finalize(self) -> None: ...


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
            kept=KEPT,
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
    def recording(self) -> bool:
        return any(tap.is_open for tap in self.call._bus.taps)  # type: ignore[union-attr]

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
        assert not board.recording  # they have not heard that we do
        await board.hear(4)
        assert board.agent_now.greeting is None
        (told,) = board.events("disclosed")
        assert [line["line"] for line in told["lines"]] == ["say_business", "say_ai"]
        assert all(line["whole"] for line in told["lines"])
        assert board.recording

    play(Consenting(*LINES), scenario)


def test_the_way_out_is_told_within_two_seconds_and_the_agent_follows_within_one() -> None:
    async def scenario(board: Consenting) -> None:
        board.owed = (Obligation("say_callback", (), "c"), *LINES, Obligation("say_opt_out", (), "o"))
        began = board.clock.now()
        await opened(board, 1.0)
        while not board.attendants:
            await board.hear(0.1)
            assert board.clock.now() - began < 20
        (told,) = board.events("disclosed")
        business, way_out, *others = told["lines"]
        assert (business["line"], way_out["line"]) == ("say_business", "say_opt_out")
        assert 0 <= way_out["at_ms"] - (business["at_ms"] + business["length_ms"]) <= 2000
        assert [line["line"] for line in others] == ["say_ai"]  # no number to call back is set
        last = others[-1]
        assert board.clock.now() - began <= (last["at_ms"] + last["length_ms"]) / 1000 + 1

    play(Consenting(), scenario)


def test_a_message_is_said_in_place_of_the_lines_and_no_agent_follows() -> None:
    texts: list[str] = []

    class Said(Voice):
        async def speak(self, text: str, format: Any) -> list[TtsAudio]:
            texts.append(text)
            return [TtsAudio(SECOND)]

    async def scenario(board: Consenting) -> None:
        def fails(*_: Any) -> None:
            raise ProviderError("llm", "unavailable", retryable=True)

        board.agent.attend = fails  # its model is away
        board.agent.ready = lambda: False
        board.switchboard.reciter = Reciter(cast(Any, Said()), lambda: True, board.clock)
        call_id = board.admit(1)
        board.line_of(call_id).says = "We are closed."
        board.attach(call_id)
        assert board.switchboard.is_ready(call_id)
        await board.hear(3)
        await asyncio.sleep(10)  # far less than a call may last
        assert texts == ["We are closed."]
        assert board.attendants == []
        assert board.ends() == [("agent_hung_up", "")]

    play(Consenting(), scenario)


def disclosed(board: Consenting) -> list[tuple[str, bool]]:
    """Of the last time lines were said."""
    return [(line["line"], line["whole"]) for line in board.events("disclosed")[-1]["lines"]]


def test_a_machine_hears_the_lines_from_the_first_one_once_its_greeting_is_over_and_is_not_asked() -> None:
    async def scenario(board: Consenting) -> None:
        await opened(board, 1.0)
        board.call.answered_by_machine()
        assert disclosed(board)[0] == ("say_business", False)  # into the greeting
        await board.hear(4)
        assert (board.attendants, len(board.events("disclosed"))) == ([], 1)  # it speaks, we wait
        board.mouth_ears.say(SttFinal("yes"))
        board.call.answered_by_machine("beep")
        await board.hear(4)
        assert disclosed(board) == [("say_business", True), ("say_ai", True)]
        assert board.call.attended.agent is board.alone
        assert board.agent_now.greeting is None
        assert (board.doors, board.taps, board.written) == ([False] * 3, [], [])
        assert [(e["state"], e["via"]) for e in board.events("consent")] == [("refused", "machine")]
        assert board.events("voicemail") == [{"after": "beep"}]

    play(Consenting(), scenario)


def test_who_was_a_machine_before_its_leg_came_is_waited_for_too() -> None:
    async def scenario(board: Consenting) -> None:
        call_id = board.admit()
        board.line_of(call_id).answered_by_machine()
        board.attach(call_id)
        await board.hear(4)
        assert board.events("disclosed") == []
        board.call.answered_by_machine("silence")
        board.call.answered_by_machine("silence")  # told twice
        await board.hear(4)
        assert disclosed(board) == [("say_business", True), ("say_ai", True)]
        assert board.call.attended.agent is board.alone
        assert len(board.attendants) == 1

    play(Consenting(), scenario)


def test_a_beep_behind_what_was_taken_for_the_end_begins_it_anew() -> None:
    async def scenario(board: Consenting) -> None:
        await opened(board, 1.0)
        board.call.answered_by_machine("silence")
        await board.hear(4)
        first = board.agent_now
        board.call.answered_by_machine("beep")
        assert first.closes == 1
        await board.hear(4)
        assert board.agent_now is not first
        assert [event["after"] for event in board.events("voicemail")] == ["silence", "beep"]
        board.call.answered_by_machine("silence")
        assert board.agent_now.closes == 0

    play(Consenting(*LINES), scenario)


def test_an_agent_that_spoke_into_the_greeting_begins_again_with_nothing_said() -> None:
    async def scenario(board: Consenting) -> None:
        await opened(board)
        early = board.agent_now
        early.conversation.append(Message("caller", "you have reached Bob, leave a message"))
        board.call.answered_by_machine()
        assert early.closes == 1
        board.call.answered_by_machine("beep")
        await board.hear(5)
        assert len(board.events("disclosed")) == 2
        late = board.agent_now
        assert (late.greeting, late.conversation) == (None, [])
        assert board.call.attended.agent is board.agent

    play(Consenting(*LINES), scenario)


def test_a_machine_that_is_found_out_as_the_lines_end_is_waited_for_all_the_same() -> None:
    async def scenario(board: Consenting) -> None:
        await opened(board, 1.0)
        board.call.agent_goes_on(None)
        board.call.answered_by_machine()
        await board.hear(3)
        assert board.attendants == []

    play(Consenting(*LINES), scenario)


def test_a_greeting_that_is_never_heard_to_end_is_not_waited_for_for_ever() -> None:
    async def scenario(board: Consenting) -> None:
        await opened(board, 1.0)
        board.call.answered_by_machine()
        await board.hear(44)
        assert board.attendants == []
        await board.hear(5)
        assert len(board.attendants) == 1
        assert board.events("voicemail") == [{"after": "time"}]

    play(Consenting(*LINES), scenario)


def test_who_finds_us_on_their_machine_is_told_a_number_in_place_of_a_key() -> None:
    async def scenario(board: Consenting) -> None:
        assert board.switchboard.house is not None
        wording = Wording(load(), "Acme", "+12125550111", "9", "+18005550199")
        board.switchboard.house = replace(board.switchboard.house, wording=wording)
        call_id = board.admit(direction="outbound")
        board.attach(call_id)
        await board.hear(5)
        board.call.answered_by_machine("beep")
        await board.hear(5)
        to_people, to_machines = ([line["text"] for line in told["lines"]] for told in board.events("disclosed"))
        assert "press 9" in to_people[1]
        assert to_machines[1] == "To get no more calls from us, call 1 8 0 0 5 5 5 0 1 9 9."
        assert to_machines[0] == to_people[0] == "This is Acme calling."

    play(Consenting(*LINES, Obligation("say_opt_out", (), "disclosure/US")), scenario)


def far_end(*parts: Any) -> Sequence[bytes]:
    return to_frames(np.concatenate(parts))


async def rings_with(board: Consenting, frames: Sequence[bytes]) -> None:
    """What the far end is heard to say, in its time."""
    for at, frame in enumerate(frames):
        await asyncio.sleep(0.02)
        bus = board.call._bus
        assert bus is not None
        bus.receive(frame, bus.carrier_ms + 20)
        if at % 5 == 0:
            bus.pump(board.clock.now())
            for mark in [mark for mark, due in bus.playout._expected.items() if due <= board.clock.now()]:
                bus.mark_returned(mark)


GREETING = "Hi, you have reached Bob Miller. Please leave a message after the tone."
BEEP = (0.25 * np.sin(2 * np.pi * 1000 * np.arange(4000) / 8000)).astype(np.float32)


def test_after_a_voicemails_beep_the_lines_and_the_agent_are_heard_though_nobody_looks_for_machines() -> None:
    said = asyncio.run(synthesize(GREETING))

    async def scenario(board: Consenting) -> None:
        call_id = board.admit(direction="outbound")
        board.attach(call_id)
        rest = np.zeros(8000 * 4, np.float32)
        began = board.clock.now()
        await rings_with(board, far_end(said, np.zeros(8000, np.float32), BEEP, rest))
        assert board.events("voicemail") == [{"after": "beep"}]
        assert disclosed(board) == [("say_business", True), ("say_ai", True)]
        beeped_ms = (len(said) + 8000) / 8
        assert all(line["at_ms"] >= 0 for line in board.events("disclosed")[-1]["lines"])
        assert board.clock.now() - began > beeped_ms / 1000
        assert len(board.attendants) == 2  # into the greeting, and after the beep

    play(Consenting(*LINES), scenario)


def test_a_carriers_verdict_without_an_end_is_enough_where_the_greeting_falls_silent() -> None:
    said = asyncio.run(synthesize(GREETING))

    async def scenario(board: Consenting) -> None:
        call_id = board.admit(direction="outbound")
        board.attach(call_id)
        frames = far_end(said, np.zeros(8000 * 7, np.float32))
        await rings_with(board, frames[:100])
        board.call.answered_by_machine()
        await rings_with(board, frames[100:])
        assert board.events("voicemail") == [{"after": "silence"}]
        assert len(board.attendants) == 1
        assert disclosed(board) == [("say_business", True), ("say_ai", True)]

    play(Consenting(*LINES), scenario)


def test_a_verdict_that_comes_before_the_sound_counts_for_what_is_heard_then() -> None:
    said = asyncio.run(synthesize(GREETING))

    async def scenario(board: Consenting) -> None:
        call_id = board.admit(direction="outbound")
        board.line_of(call_id).answered_by_machine()
        board.attach(call_id)
        await rings_with(board, far_end(said, np.zeros(8000 * 7, np.float32)))
        assert board.events("voicemail") == [{"after": "silence"}]
        assert disclosed(board) == [("say_business", True), ("say_ai", True)]

    play(Consenting(*LINES), scenario)


def test_somebody_who_answers_is_heard_out_without_a_beep() -> None:
    said = asyncio.run(
        synthesize("Hello? Who is this, please? I can not hear you very well, could you say that again?")
    )

    async def scenario(board: Consenting) -> None:
        call_id = board.admit(direction="outbound")
        board.attach(call_id)
        await rings_with(board, far_end(said, np.zeros(8000 * 4, np.float32), said))
        assert board.events("voicemail") == []
        assert len(board.events("disclosed")) == 1

    play(Consenting(*LINES), scenario)


def test_a_machine_found_out_later_had_not_agreed() -> None:
    async def scenario(board: Consenting) -> None:
        await opened(board)
        board.mouth_ears.say(SttFinal("yes"))
        await board.hear(2)
        theirs = board.agent_now
        assert board.doors == [True] * 3
        board.call.answered_by_machine()
        assert (board.doors, theirs.closes) == ([False] * 3, 1)
        board.call.answered_by_machine("beep")
        await board.hear(4)
        assert board.call.attended.agent is board.alone
        assert [type(each) for each in board.written] == [Grant, Revocation]
        assert board.events("consent")[-1]["via"] == "machine"

    play(Consenting(), scenario)


def test_whoever_pressed_the_key_is_no_machine() -> None:
    async def scenario(board: Consenting) -> None:
        await opened(board)
        board.call.key("1")
        await board.hear(2)
        board.call.answered_by_machine("beep")
        assert board.doors == [True] * 3
        assert (len(board.attendants), board.agent_now.closes) == (1, 0)

    play(Consenting(), scenario)


def test_a_machine_that_nobody_of_ours_can_serve_is_left() -> None:
    async def scenario(board: Consenting) -> None:
        board.agent.alone = lambda: None
        call_id = await opened(board, 1.0)
        board.call.answered_by_machine("beep")
        await board.hear(4)
        await asyncio.sleep(10)
        assert board.ends(call_id) == [("refused", "")]
        assert disclosed(board) == [("say_business", True), ("say_ai", True)]

    play(Consenting(), scenario)


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


def test_a_key_before_the_question_is_no_yes_to_it() -> None:
    async def scenario(board: Consenting) -> None:
        await opened(board, 1.0)
        board.call.key("1")
        board.call.typed("yes")
        assert (board.doors, board.written) == ([False] * 3, [])
        await board.hear(2.0)
        board.call.typed("yes")  # as it begins
        assert board.doors == [True] * 3

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
        board.call.wished(Wish("do_not_call", "take me off your list", "speech"))
        board.call.key("1")
        board.mouth_ears.say(SttFinal("yes"))
        await board.hear(20)
        await asyncio.sleep(10)
        assert [type(each) for each in board.written] == [Revocation]
        assert board.ends(call_id) == [("opted_out", "")]
        assert board.attendants == []

    play(Consenting(), scenario)


def test_nine_is_theirs_who_were_told_of_it_for_the_whole_call() -> None:
    async def scenario(board: Consenting) -> None:
        await opened(board)
        board.agent_now.digits_awaited = True  # type: ignore[attr-defined]
        board.call.key("9")
        assert board.written == []
        board.agent_now.digits_awaited = False  # type: ignore[attr-defined]
        board.call.key("9")
        (said,) = board.written
        assert isinstance(said, Revocation)
        assert said.do_not_call

    play(Consenting(*LINES, Obligation("say_opt_out", (), "disclosure/US")), scenario)


def test_nine_is_the_agents_where_nobody_was_told_of_it() -> None:
    async def scenario(board: Consenting) -> None:
        await opened(board, 1.0)
        board.call.key("9")
        await board.hear(5)
        board.call.key("9")
        assert board.written == []

    play(Consenting(*LINES), scenario)


def test_who_asks_not_to_be_recorded_while_they_are_asked_is_served_without() -> None:
    async def scenario(board: Consenting) -> None:
        board.owed = (*LINES, Obligation("ask_consent", ("transcript", "third_party"), "recording/US-CA"))
        await opened(board)
        board.call.typed("please don't record me")
        await board.hear(4)
        assert board.call.attended.agent is board.alone
        assert board.doors == [False] * 3
        assert not board.recording

    play(Consenting(), scenario)


def test_a_written_wish_is_looked_for_once_and_answered_by_nobody() -> None:
    async def scenario(board: Consenting) -> None:
        await opened(board)
        board.call.typed("when do you open")
        board.call.typed("stop calling me, take me off your list")
        assert board.agent_now.written == ["when do you open"]
        assert [type(each) for each in board.written] == [Revocation]

    play(Consenting(*LINES), scenario)


def test_a_written_opt_out_counts_during_the_lines_too() -> None:
    async def scenario(board: Consenting) -> None:
        call_id = await opened(board, 1.0)
        board.call.typed("stop calling me, take me off your list")
        await board.hear(4)
        await asyncio.sleep(10)
        assert board.ends(call_id) == [("opted_out", "")]

    play(Consenting(), scenario)


def test_what_was_taken_back_stays_so_when_a_device_comes_to_its_session_again() -> None:
    async def scenario(board: Consenting) -> None:
        joining = Joining(SessionId("ses_1"), DEFAULT_TENANT, "kitchen", "me", "")
        call_id = board.switchboard.join(joining, "webrtc")
        assert not isinstance(call_id, Refuse)
        board.attach(call_id)
        await board.hear(5)
        assert board.doors == [True] * 3
        board.call.wished(Wish("keep_nothing", "stop recording", "speech"))
        assert board.call.shut_doors == KEPT
        board.call.finished("caller_hung_up")
        for shut in ((), KEPT):  # here, and in another process
            again = board.switchboard.join(replace(joining, shut=shut), "webrtc")
            assert not isinstance(again, Refuse)
            board.attach(again)
            assert board.doors == [False] * 3
            board.call.finished("caller_hung_up")
            board.switchboard._ended.clear()

    play(Consenting(*LINES), scenario)


def test_what_is_taken_back_elsewhere_shuts_the_doors_of_a_call_that_goes_on() -> None:
    async def scenario(board: Consenting) -> None:
        await opened(board)
        board.call.key("1")
        await board.hear(2)
        said = board.written[0]
        board.switchboard.revoked(Revocation(said.tenant, said.subject, said.at, "api", technologies=("autodialer",)))
        assert board.doors == [True] * 3
        board.switchboard.revoked(Revocation(said.tenant, said.subject, said.at, "api"))
        assert board.doors == [False] * 3
        assert len(board.written) == 1  # it is there already

    play(Consenting(), scenario)


def test_the_briefing_of_a_representative_is_spoken_by_nobody_who_may_not_hear_of_the_call() -> None:
    async def scenario(board: Consenting) -> None:
        theirs, ours = object(), object()
        board.agent.minds, board.alone.minds = theirs, ours
        await opened(board)
        board.call.key("1")
        await board.hear(2)
        assert board.call._minds_now() is theirs
        board.call.attended.leave()
        board.call.wished(Wish("keep_nothing", "*", "keypad"))
        assert board.call._minds_now() is ours

    play(Consenting(), scenario)


def test_lines_wait_while_the_far_end_holds_the_call() -> None:
    async def scenario(board: Consenting) -> None:
        call_id, _ = board.answered()
        board.call.held(True)
        await board.hear(20)
        assert board.attendants == []
        assert board.events("disclosed") == []
        board.call.held(False)
        await board.hear(5)
        assert len(board.attendants) == 1
        (told,) = board.events("disclosed")
        assert all(line["whole"] for line in told["lines"])
        assert not board.ends(call_id)

    play(Consenting(*LINES), scenario)


def test_a_noisy_line_is_no_answer_and_no_reason_to_wait() -> None:
    async def scenario(board: Consenting) -> None:
        finals = 0

        def finalize() -> None:
            nonlocal finals
            finals += 1
            board.mouth_ears.say(SttFinal("", understood=False))

        board.mouth_ears.finalize = finalize  # type: ignore[method-assign]
        board.answered()
        board.call._bus.listener.speech_started(board.clock.now())  # type: ignore[union-attr]
        await board.hear(40)
        assert finals == 1
        assert board.call.attended.agent is board.alone

    play(Consenting(), scenario)


def test_nobody_takes_the_place_of_a_caller_who_has_heard_and_agreed() -> None:
    async def scenario(board: Consenting) -> None:
        await opened(board)
        assert not board.call.talks_with(board.call._leg)  # type: ignore[arg-type]
        board.switchboard.house = None
        assert board.call.talks_with(board.call._leg)  # type: ignore[arg-type]

    play(Consenting(*LINES), scenario)


def test_who_comes_back_in_the_middle_of_their_opt_out_is_not_greeted() -> None:
    async def scenario(board: Consenting) -> None:
        call_id = await opened(board)
        board.call.wished(Wish("do_not_call", "take me off your list", "speech"))
        greeted = len(board.attendants)
        assert isinstance(board.call.attach(FakeLeg()), Refuse)
        await asyncio.sleep(10)
        assert len(board.attendants) == greeted
        assert board.ends(call_id) == [("opted_out", "")]

    play(Consenting(*LINES), scenario)


def test_nobody_comes_to_a_call_that_is_being_opened() -> None:
    async def scenario(board: Consenting) -> None:
        await opened(board, 1.0)
        refused = board.call.may_come(Invitation(DialOrder(E164("+14155550177")), "supervisor", "listen"))
        assert isinstance(refused, Refuse)

    play(Consenting(), scenario)


def test_a_door_that_asks_although_nobody_was_told_stays_shut() -> None:
    async def scenario(board: Consenting) -> None:
        board.switchboard.house = None
        board.answered()
        assert board.doors == [False] * 3
        assert board.taps == []
        assert board.call.attended.agent is board.alone

    play(Consenting(ASK), scenario)


def test_an_agent_that_comes_later_is_introduced_in_its_language(monkeypatch: pytest.MonkeyPatch) -> None:
    spoken: list[tuple[str, str]] = []

    class Tongue(Voice):
        async def start(self, texts: Any) -> None:
            spoken.extend(("es", text) for text in texts)

        async def close(self) -> None:
            spoken.append(("es", "closed"))

    class Hearing(Ears):
        async def learn(self, language: str) -> None:
            spoken.append((language, "heard"))

    monkeypatch.setattr(module, "own_voice", lambda definition, tag, services: Tongue())
    voices, nobody = cast(Any, {"en": Voice()}), cast(Any, None)
    house = House(Wording(load(), "Acme"), voices, cast(Any, Hearing()), nobody, kept=KEPT, services=cast(Any, 1))

    async def scenario() -> None:
        for language in ("en-GB", "es-ES", "es-MX", "fi-FI"):
            await house.welcome(replace(DEFINITION, language=language))
        assert sorted(house.voices) == ["en", "es"]
        assert spoken[0] == ("es", "heard")
        texts = [text for _, text in spoken[1:]]
        assert len(texts) == len(set(house.wording.everything(KEPT, "es")))
        assert any("Acme" in text for text in texts)
        await house.closes.aclose()
        assert spoken[-1] == ("es", "closed")

    asyncio.run(scenario())
