"""Supervisors and others who come to a call, from the operator's order to what each of them hears."""

import asyncio
from typing import Any

import pytest

from tests.gateway.test_handover import ANSWER, CARRIER, NO_REFER, VOICE, Floor, run
from trunkline.gateway.dialling import DialOrder
from trunkline.gateway.party import MAX_OTHERS, Change, Invitation, OtherRole, OtherView
from trunkline.gateway.sip import stack as s
from trunkline.gateway.sip.stack import Handle
from trunkline.media.members import Supervision
from trunkline.ports import Refuse
from trunkline.testing.sipstack import FRAME_BYTES, QUIET, FakeLine
from trunkline.types import E164

THEIRS = "sip:+14155550177@sip.example.com"
COACH = b"\x22" * FRAME_BYTES


def invitation(
    role: OtherRole = "supervisor", supervision: Supervision = "listen", number: str = "+14155550177"
) -> Invitation:
    return Invitation(DialOrder(E164(number), ring_timeout_s=20), role, supervision)


def invited(here: Floor, asked: Invitation) -> tuple[OtherView, Handle]:
    view = here.line_now.party.invite(asked)
    assert isinstance(view, OtherView), view
    return view, Handle(here.stack.commands("dial")[-1][1])


def comes(here: Floor, asked: Invitation) -> tuple[OtherView, Handle, FakeLine]:
    """Rung, and answers."""
    view, handle = invited(here, asked)
    line = FakeLine()
    here.stack.media(handle, line)
    here.stack.happens(s.Confirmed(handle), s.FirstMedia(handle))
    return view, handle, line


def speaks(here: Floor, line: FakeLine, audio: bytes, times: int, *others: FakeLine) -> None:
    """One party says `audio`; the beat mixes, and every line has its tick."""
    for _ in range(times):
        line.tick(1, audio)
        for other in others:
            other.tick(1)
        here.clock.advance(0.02)
        here.heartbeat.beat(here.clock.now())


def agent_says(here: Floor, audio: bytes, frames: int) -> None:
    bus = here.agent_now.bus
    bus.begin()
    bus.append(audio * frames, (), bus.position_ms)
    bus.end()


def test_a_supervisor_hears_caller_and_agent_and_is_heard_by_nobody() -> None:
    async def scenario(here: Floor) -> None:
        view, handle, line = comes(here, invitation())
        assert here.stack.commands("dial")[-1][3] == THEIRS
        assert (view.state, view.role, view.supervision, view.trunk) == ("ringing", "supervisor", "listen", "carrier")
        assert [v.state for v in here.line_now.party.views()] == ["joined"]
        speaks(here, here.caller_line, VOICE, 6, line)
        assert VOICE in bytes(line.heard)
        agent_says(here, ANSWER, 10)
        speaks(here, line, COACH, 12, here.caller_line)
        assert ANSWER in bytes(line.heard)
        assert ANSWER in bytes(here.caller_line.heard)
        assert COACH not in bytes(here.caller_line.heard)
        assert here.heard_by_agent.count(VOICE) >= 4
        assert COACH not in here.heard_by_agent
        here.stack.over(handle)

    here = run(scenario)
    assert [e["role"] for e in here.events("joined")] == ["supervisor"]
    assert len(here.events("leg_ended")) == 1
    assert len(here.leg_usage) == 2


def test_the_agent_notices_nothing_and_its_words_are_heard_once_each() -> None:
    """The answer goes on while the room is made and unmade around it."""

    async def scenario(here: Floor) -> None:
        heard_before = len(here.attendants)
        agent_says(here, ANSWER, 40)
        speaks(here, here.caller_line, VOICE, 5)
        _, handle, line = comes(here, invitation())
        speaks(here, here.caller_line, VOICE, 15, line)
        here.stack.over(handle)
        assert here.line_now.party.room is None
        speaks(here, here.caller_line, VOICE, 40)
        assert bytes(here.caller_line.heard).count(ANSWER) == 40
        assert here.agent_now.bus.playout.all_heard
        assert len(here.attendants) == heard_before
        assert here.agent_now.bus.stats.lost_ms == 0

    run(scenario)


def test_whisper_and_speak() -> None:
    async def scenario(here: Floor) -> None:
        view, _, line = comes(here, invitation(supervision="whisper"))
        speaks(here, line, COACH, 5, here.caller_line)
        assert COACH not in bytes(here.caller_line.heard)
        assert COACH not in here.heard_by_agent
        assert here.line_now.party.change(view.id, Change("speak")) is None
        speaks(here, line, COACH, 5, here.caller_line)
        assert COACH in bytes(here.caller_line.heard)
        assert COACH in here.heard_by_agent
        assert here.line_now.party.change(view.id, Change(muted=True)) is None
        here.caller_line.heard.clear()
        speaks(here, line, COACH, 8, here.caller_line)
        assert bytes(here.caller_line.heard).count(COACH) <= 2  # what was on its way

    run(scenario)


def test_a_supervisors_keypad_changes_how_they_supervise() -> None:
    async def scenario(here: Floor) -> None:
        _, handle, _ = comes(here, invitation())
        for digit, expected in (("6", "speak"), ("5", "whisper"), ("9", "whisper"), ("4", "listen")):
            here.stack.happens(s.Keyed(handle, digit, "rfc4733"))
            assert [v.supervision for v in here.line_now.party.views()] == [expected]
        assert here.agent_now.keys == ""

    run(scenario)


def test_a_further_representative_talks_with_caller_and_agent() -> None:
    async def scenario(here: Floor) -> None:
        view, _, line = comes(here, invitation("representative"))
        assert view.supervision is None
        speaks(here, line, COACH, 5, here.caller_line)
        assert COACH in bytes(here.caller_line.heard)
        assert COACH in here.heard_by_agent
        assert here.line_now.party.change(view.id, Change("listen")) == Refuse(
            "not_supported", "only a supervisor listens, whispers or speaks"
        )

    run(scenario)


def test_a_supervisor_stays_through_a_hold_and_hears_the_caller_again_after_it() -> None:
    async def scenario(here: Floor) -> None:
        _, _, line = comes(here, invitation())
        assert here.line_now.hold() is None
        line.heard.clear()
        speaks(here, here.caller_line, VOICE, 5, line)
        assert VOICE not in bytes(line.heard)[2 * FRAME_BYTES :]
        assert here.line_now.resume() is None
        assert here.line_now.party.room is not None
        line.heard.clear()
        speaks(here, here.caller_line, VOICE, 5, line)
        assert VOICE in bytes(line.heard)
        agent_says(here, ANSWER, 5)
        speaks(here, here.caller_line, QUIET, 8, line)
        assert ANSWER in bytes(here.caller_line.heard)
        assert ANSWER in bytes(line.heard)

    run(scenario)


def test_a_supervisor_coaches_the_representative_of_a_transfer() -> None:
    async def scenario(here: Floor) -> None:
        view, _, line = comes(here, invitation())
        here.transfer()
        target = Handle(here.stack.commands("dial")[-1][1])
        theirs = FakeLine()
        here.stack.media(target, theirs)
        here.stack.happens(s.Confirmed(target), s.FirstMedia(target))
        assert here.line_now.party.change(view.id, Change("whisper")) is None
        speaks(here, line, COACH, 5, here.caller_line, theirs)
        assert COACH in bytes(theirs.heard)
        assert COACH not in bytes(here.caller_line.heard)
        here.stack.over(target)
        here.stack.over(here.caller, by_us=True)

    assert run(scenario, NO_REFER).ends() == [("transferred", "")]


def test_when_a_transfer_fails_caller_agent_and_supervisor_are_together_again() -> None:
    async def scenario(here: Floor) -> None:
        _, _, line = comes(here, invitation())
        here.transfer()
        here.stack.over(Handle(here.stack.commands("dial")[-1][1]), 486, "Busy Here")
        assert here.agent_now.call.attributes["transfer_failed"] == "busy"
        line.heard.clear()
        agent_says(here, ANSWER, 5)
        speaks(here, here.caller_line, QUIET, 8, line)
        assert ANSWER in bytes(here.caller_line.heard)
        assert ANSWER in bytes(line.heard)
        speaks(here, here.caller_line, VOICE, 3, line)
        assert VOICE in here.heard_by_agent

    run(scenario, NO_REFER)


def test_the_end_of_the_call_is_the_end_of_all() -> None:
    async def scenario(here: Floor) -> None:
        _, first, _ = comes(here, invitation())
        _, second = invited(here, invitation(number="+14155550178"))
        here.stack.over(here.caller)
        assert [("hang_up", first), ("hang_up", second)] == here.stack.commands("hang_up")
        here.stack.over(first, by_us=True)
        here.stack.over(second, 487, "Request Terminated")
        assert here.line_or_none is None

    here = run(scenario)
    assert here.ends() == [("caller_hung_up", "")]
    assert len(here.leg_usage) == 2


def test_nobody_rings_for_ever() -> None:
    async def scenario(here: Floor) -> None:
        _, handle = invited(here, invitation())
        await asyncio.sleep(19)
        assert here.stack.commands("hang_up") == []
        await asyncio.sleep(2)
        assert here.stack.commands("hang_up") == [("hang_up", handle)]
        here.stack.over(handle, 487, "Request Terminated", by_us=True)
        assert here.line_now.party.views() == []

    assert run(scenario).events("leg_failed")[0]["reason"] == "no_answer"


@pytest.mark.parametrize(("code", "reason"), [(486, "busy"), (603, "rejected"), (404, "failed")])
def test_who_does_not_come_is_in_the_record_and_changes_nothing(code: int, reason: str) -> None:
    async def scenario(here: Floor) -> None:
        _, handle = invited(here, invitation())
        here.stack.over(handle, code, "No")
        assert here.line_now.party.room is None

    assert run(scenario).events("leg_failed")[0]["reason"] == reason


def test_a_supervisor_is_sent_away() -> None:
    async def scenario(here: Floor) -> None:
        view, handle, _ = comes(here, invitation())
        assert here.line_now.party.dismiss(view.id) is None
        assert here.stack.told[-1] == ("hang_up", handle)
        assert here.line_now.party.room is None
        here.stack.over(handle, by_us=True)
        assert here.line_now.party.dismiss(view.id) == Refuse("unknown_leg", "the call has no such leg")
        assert here.line_now.party.change(view.id, Change("speak")) == Refuse("unknown_leg", "the call has no such leg")

    run(scenario)


def test_a_room_has_room_for_so_many() -> None:
    async def scenario(here: Floor) -> None:
        came = [comes(here, invitation(number=f"+1415555018{n}")) for n in range(MAX_OTHERS)]
        assert here.line_now.party.invite(invitation()) == Refuse(
            "conference_full", "at most 5 may be invited to a call"
        )
        here.transfer()  # a place is kept for the target, and for the agent after it
        target = Handle(here.stack.commands("dial")[-1][1])
        here.stack.media(target, FakeLine())
        here.stack.happens(s.Confirmed(target), s.FirstMedia(target))
        room = here.line_now.party.room
        assert room is not None
        assert len(room.conference.members) == MAX_OTHERS + 2
        here.stack.over(target, 500, "lost")
        assert len(room.conference.members) == MAX_OTHERS + 2
        for _, handle, _ in came:
            here.stack.over(handle)
        assert here.line_now.party.room is None

    run(scenario, NO_REFER)


def test_a_request_that_is_repeated_rings_nobody_twice() -> None:
    async def scenario(here: Floor) -> None:
        _, handle, _ = comes(here, invitation())
        for _ in range(2):
            again = here.line_now.party.invite(invitation())
            assert again == Refuse("not_now", "this number rings already, or is in the call")
        assert len(here.stack.commands("dial")) == 1
        here.stack.over(handle)

    run(scenario)


def test_who_was_sent_away_does_not_come_back_with_the_agent() -> None:
    """Its BYE is not answered yet."""

    async def scenario(here: Floor) -> None:
        view, _, line = comes(here, invitation("representative"))
        assert here.line_now.hold() is None
        assert here.line_now.party.dismiss(view.id) is None
        assert [v.state for v in here.line_now.party.views()] == ["ending"]
        assert here.line_now.resume() is None
        assert here.line_now.party.room is None
        speaks(here, line, COACH, 5, here.caller_line)
        assert COACH not in bytes(here.caller_line.heard)

    assert len(run(scenario).events("joined")) == 1


def test_when_the_first_representative_leaves_the_caller_stays_with_the_other_one() -> None:
    async def scenario(here: Floor) -> None:
        _, other, line = comes(here, invitation("representative"))
        here.transfer()
        target = Handle(here.stack.commands("dial")[-1][1])
        here.stack.media(target, FakeLine())
        here.stack.happens(s.Confirmed(target), s.FirstMedia(target))
        here.stack.over(target)
        assert here.ends() == []
        speaks(here, line, COACH, 5, here.caller_line)
        assert COACH in bytes(here.caller_line.heard)
        here.stack.over(other)
        here.stack.over(here.caller, by_us=True)

    assert run(scenario, NO_REFER).ends() == [("transferred", "")]


def test_a_caller_who_leaves_the_other_representative_was_put_through() -> None:
    async def scenario(here: Floor) -> None:
        comes(here, invitation("representative"))
        here.transfer()
        target = Handle(here.stack.commands("dial")[-1][1])
        here.stack.media(target, FakeLine())
        here.stack.happens(s.Confirmed(target), s.FirstMedia(target))
        here.stack.over(target)
        here.stack.over(here.caller)

    assert run(scenario, NO_REFER).ends() == [("transferred", "")]


def test_the_rules_are_asked_and_the_trunk() -> None:
    async def scenario(here: Floor) -> None:
        here.refusing["dial"] = Refuse("country_closed", "closed")
        assert here.line_now.party.invite(invitation()) == Refuse("country_closed", "closed")
        named = Invitation(DialOrder(E164("+14155550100")), name="desk")
        here.refusing = {"transfer": Refuse("emergency", "no")}
        assert here.line_now.party.invite(named) == Refuse("emergency", "no")
        here.refusing = {}
        nowhere = Invitation(DialOrder(E164("+14155550100"), trunk="other"))
        refused = here.line_now.party.invite(nowhere)
        assert isinstance(refused, Refuse)
        assert refused.code == "no_trunk"
        assert here.stack.commands("dial") == []

    here = run(scenario)
    assert [e["code"] for e in here.events("refused")] == ["country_closed", "emergency"]
    dialled = [facts for facts in here.asked if facts.door == "dial"]
    assert [(f.direction, f.to_number) for f in dialled] == [("outbound", "+14155550177"), ("outbound", "+14155550100")]


def test_a_bug_in_a_supervisors_leg_costs_that_leg() -> None:
    async def scenario(here: Floor) -> None:
        view, handle, line = comes(here, invitation())

        def broken(*_: Any) -> int:
            raise RuntimeError("a bug")

        line.write = broken  # type: ignore[assignment]
        speaks(here, here.caller_line, VOICE, 2)
        assert here.stack.commands("hang_up") == [("hang_up", handle)]
        assert here.line_now.party.room is None
        assert here.ends() == []
        agent_says(here, ANSWER, 3)
        speaks(here, here.caller_line, VOICE, 5)
        assert ANSWER in bytes(here.caller_line.heard)
        assert here.events("crashed") == [{"leg": view.id, "error": "RuntimeError"}]

    run(scenario)


def test_who_answers_when_the_call_is_over_is_hung_up_on() -> None:
    async def scenario(here: Floor) -> None:
        _, handle = invited(here, invitation())
        here.line_now.hang_up("agent_hung_up")
        here.stack.media(handle, FakeLine())
        here.stack.happens(s.Confirmed(handle), s.FirstMedia(handle))
        assert ("hang_up", handle) in here.stack.commands("hang_up")

    run(scenario, CARRIER)
