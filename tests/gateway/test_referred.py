"""What a far end asks by REFER, from the stack's event to who talks with whom: a desk between a scripted stack and a
switchboard."""

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from tests.gateway.test_handover import ANSWER, CARRIER, MEDIA_TIMEOUT_S, VOICE, Floor, bridged
from tests.gateway.test_party import COACH, comes, invitation, speaks
from trunkline.compliance.money.prices import COLUMNS
from trunkline.compliance.money.treasury import Policy, Treasury
from trunkline.gateway.answeredby import NO_DETECTION, MachineTerms
from trunkline.gateway.dialling import DialOrder
from trunkline.gateway.referred import BYE_WAIT_S, RING_S
from trunkline.gateway.sip import stack as s
from trunkline.gateway.sip.desk import SipDesk
from trunkline.gateway.sip.stack import Handle
from trunkline.gateway.sip.trunks import Trunk
from trunkline.gateway.spending import Spending, Ways
from trunkline.gateway.transfer_refer import TRUNK_REFER_BURST
from trunkline.ports import Refuse, UsageMetered
from trunkline.testing.board import play
from trunkline.testing.caller.speech import to_frames
from trunkline.testing.sipstack import FRAME_BYTES, FakeLine
from trunkline.types import E164

OPEN = replace(CARRIER, refer=True)
NUMBER = "+12025550123"
REFER_TO = f"<sip:{NUMBER}@192.0.2.9>"
QUIET = b"\xff" * FRAME_BYTES


def run(
    scenario: Callable[[Floor], Coroutine[Any, Any, None]],
    *trunks: Trunk,
    calls: int = 1,
    machine: MachineTerms = NO_DETECTION,
) -> Floor:
    """`calls`: so many have ended by then, each once."""
    trunks = trunks or (OPEN,)

    async def whole(here: Floor) -> None:
        here.desk = SipDesk(
            here.stack, here.switchboard, trunks, here.clock, media_timeout_s=MEDIA_TIMEOUT_S, machine=machine
        )
        await here.desk.start()
        here.ring()
        try:
            await scenario(here)
        finally:
            here.switchboard.close()
            await here.desk.close()
        assert here.free_slots() == here.ears.capacity
        assert len(here.ends()) == calls
        assert here.switchboard._second_legs == 0  # each line was given back once
        assert not here.heartbeat._speaking

    return play(Floor(trunks[0]), whole)


def asks(here: Floor, handle: Handle | None = None, refer: int = 1, to: str = REFER_TO, *, silent: bool = False) -> int:
    """The status that was answered; 0: none, the stack had answered."""
    before = len(here.stack.commands("answer_refer"))
    here.stack.happens(s.ReferAsked(here.caller if handle is None else handle, refer, to, silent))
    answers = here.stack.commands("answer_refer")[before:]
    return int(answers[0][3]) if answers else 0


def told(here: Floor, refer: int = 1) -> list[int]:
    """The statuses that were said, each NOTIFY answered at once."""
    while True:
        said = here.stack.commands("tell_refer")
        here.stack.happens(s.ReferTold(said[0][1] if said else here.caller, refer, 200))
        if len(here.stack.commands("tell_refer")) == len(said):
            return [int(one[3].split()[1]) for one in said if one[2] == refer]


def asked(here: Floor) -> list[tuple[int, str]]:
    return [(one["status"], one["code"]) for one in here.events("refer_asked")]


def followed(here: Floor) -> list[tuple[str, int]]:
    return [(one["result"], one["status"]) for one in here.events("refer_followed")]


# --- followed -------------------------------------------------------------------------------------------------------


def test_whom_the_far_end_names_talks_with_the_agent_instead() -> None:
    async def scenario(here: Floor) -> None:
        agent = here.agent_now
        assert asks(here) == 202
        assert here.stack.commands("dial")[0][2:4] == ("carrier", f"sip:{NUMBER}@sip.example.com")
        assert told(here) == [100]
        here.stack.happens(s.Progress(here.dialled, 180, "Ringing"))
        assert told(here) == [100, 180]
        here.stack.happens(s.Keyed(here.caller, "1", "rfc4733"))
        assert agent.keys == "1"
        line = here.answers()
        assert told(here) == [100, 180, 200]
        assert here.agent_now is agent
        assert agent.closes == 0
        before = agent.bus.stats.received_frames
        here.caller_line.tick(3, VOICE)
        assert agent.bus.stats.received_frames == before  # who asked is not heard any more
        line.tick(3, VOICE)
        assert agent.bus.stats.received_frames == before + 3
        here.stack.happens(s.Keyed(here.caller, "2", "rfc4733"), s.Keyed(here.dialled, "3", "rfc4733"))
        assert agent.keys == "13"
        here.stack.over(here.caller)  # hangs up, having been told
        assert here.ends() == []
        here.stack.over(here.dialled)
        assert here.ends() == [("caller_hung_up", "")]

    here = run(scenario)
    assert followed(here) == [("followed", 200)]
    assert here.events("refer_asked") == [{"status": 202, "code": "accepted", "target": "+1202***23"}]
    assert len(here.leg_usage) == 1  # one after the other


def test_each_leg_is_billed_for_its_own_time(tmp_path: Path) -> None:
    """Who was succeeded until then, and who is called in their place from their answer on."""
    rows = ["sip,leg,*,voice,seconds,0.01,60,1", "sip,leg,carrier/transfer-US,voice,seconds,0.10,60,1"]
    table = ["# version 1", COLUMNS, *(f"{row},2026-11-28,contract" for row in rows)]
    (tmp_path / "prices.csv").write_text("\n".join(table))

    async def scenario(here: Floor) -> None:
        spending = Spending(Treasury(Policy(prices=tmp_path), None, here.clock), Ways(), here.metrics, here.clock.now)
        here.stack.over(here.caller)
        here.switchboard.spending = spending
        here.ring()
        here.clock.advance(30)
        asks(here)
        line = here.answers()
        here.stack.over(here.caller)
        line.tick(1, VOICE)
        here.clock.advance(20)
        here.stack.over(here.dialled)

    here = run(scenario, calls=2)
    used = [e for e in here.records if isinstance(e, UsageMetered) and e.costs]
    assert [(e.usage.product, round(e.usage.quantity), e.costs[0].usd) for e in used] == [
        ("carrier/inbound-US", 30, "0.005"),
        ("carrier/transfer-US", 20, "0.033333333333"),
    ]
    [cost] = here.events("cost")
    assert cost["usd"] == "0.038333333333"


@pytest.mark.parametrize("detection", ["off", "enable"])
def test_a_supervisor_who_leaves_takes_nobodys_ears(detection: Any) -> None:
    """Also with machine detection on: it is for calls of ours."""

    async def scenario(here: Floor) -> None:
        _, supervisor, _ = comes(here, invitation())
        assert asks(here) == 202
        line = FakeLine()
        new = Handle(here.stack.commands("dial")[-1][1])
        here.stack.media(new, line)
        here.stack.happens(s.Confirmed(new), s.FirstMedia(new))
        here.stack.over(here.caller)
        here.stack.over(supervisor)
        before = here.agent_now.bus.stats.received_frames
        line.tick(3, VOICE)
        assert here.agent_now.bus.stats.received_frames == before + 3
        here.stack.over(new)

    run(scenario, machine=MachineTerms(detection))


def test_who_is_named_is_called_over_the_next_trunk_while_nobody_can_have_been_rung() -> None:
    second = replace(OPEN, name="second", host="second.example.com")

    async def scenario(here: Floor) -> None:
        assert asks(here) == 202
        first = Handle(here.stack.commands("dial")[-1][1])
        here.stack.over(first, 503, "No")
        assert [told[2] for told in here.stack.commands("dial")] == ["carrier", "second"]
        assert told(here) == [100]
        here.stack.over(Handle(here.stack.commands("dial")[-1][1]), 486, "Busy Here")
        assert told(here) == [100, 486]
        here.stack.over(here.caller)

    assert followed(run(scenario, OPEN, second)) == [("busy", 486)]


def test_who_asked_and_does_not_leave_is_hung_up() -> None:
    async def scenario(here: Floor) -> None:
        asks(here)
        here.answers()
        await asyncio.sleep(BYE_WAIT_S / 2)
        assert here.stack.commands("hang_up") == []
        await asyncio.sleep(BYE_WAIT_S)
        assert here.stack.commands("hang_up") == [("hang_up", here.caller)]
        here.stack.over(here.caller, by_us=True)
        assert here.ends() == []

    run(scenario)


def test_what_the_agent_was_saying_goes_on_where_the_first_stopped_hearing_it() -> None:
    async def scenario(here: Floor) -> None:
        asks(here)
        bus = here.agent_now.bus
        bus.begin()
        said = b"".join(bytes([n]) * FRAME_BYTES for n in range(20))
        bus.append(said, (), 0)
        bus.end()
        here.beat(here.caller_line, times=5)
        line = here.answers()
        here.beat(line, times=30)
        heard = bytes(here.caller_line.heard)
        assert 0 < len(heard) < len(said)
        assert heard + bytes(line.heard) == said
        assert bus.playout.all_heard

    run(scenario)


def test_the_calls_clock_runs_on_with_the_new_leg_also_after_a_hold() -> None:
    async def scenario(here: Floor) -> None:
        here.beat(here.caller_line, times=100)
        bus = here.agent_now.bus
        asks(here)
        line = here.answers()
        at_ms = bus.carrier_ms
        here.beat(line, times=10)
        assert bus.carrier_ms == at_ms + 200
        assert here.control.hold() is None
        here.beat(line, times=10)
        assert here.control.resume() is None
        at_ms = bus.carrier_ms
        here.beat(line, times=10)
        assert bus.carrier_ms == at_ms + 200
        assert bus.stats.lost_ms == 0

    run(scenario)


def test_the_new_far_end_may_name_somebody_again() -> None:
    async def scenario(here: Floor) -> None:
        asks(here)
        first = here.dialled
        here.answers()
        told(here)
        assert asks(here, first, 2, "<sip:+12025550124@192.0.2.9>") == 202
        second = here.stack.commands("dial")[1][1]
        here.stack.media(second, FakeLine())
        here.stack.happens(s.Confirmed(second), s.FirstMedia(second))
        here.stack.over(here.caller)
        here.stack.over(first)
        assert here.ends() == []
        here.stack.over(second)
        assert here.ends() == [("caller_hung_up", "")]

    assert followed(run(scenario)) == [("followed", 200)] * 2


def test_whom_we_called_may_name_somebody_as_well() -> None:
    async def scenario(here: Floor) -> None:
        here.stack.over(here.caller)
        assert not isinstance(here.switchboard.dial(DialOrder(E164("+14155550177"))), Refuse)
        callee = here.dialled
        here.stack.media(callee, FakeLine())
        here.stack.happens(s.Confirmed(callee), s.FirstMedia(callee))
        assert asks(here, callee) == 202
        new = here.stack.commands("dial")[1][1]
        here.stack.media(new, FakeLine())
        here.stack.happens(s.Confirmed(new), s.FirstMedia(new))
        here.stack.over(callee)
        assert len(here.ends()) == 1
        here.stack.over(new)
        assert here.ends()[1] == ("caller_hung_up", "")

    run(scenario, calls=2)


def test_the_dial_door_is_asked_for_the_number() -> None:
    async def scenario(here: Floor) -> None:
        asks(here)
        doors = [facts for facts in here.asked if facts.door == "dial"]
        assert [(door.to_number, door.direction) for door in doors] == [(NUMBER, "outbound")] * 2  # judged, and dialled

    run(scenario)


def test_a_supervisor_hears_the_new_far_end() -> None:
    async def scenario(here: Floor) -> None:
        _, supervisor, ears = comes(here, invitation())
        speaks(here, here.caller_line, VOICE, 5, ears)
        assert VOICE in bytes(ears.heard)
        asks(here)
        new = here.stack.commands("dial")[1][1]
        line = FakeLine()
        here.stack.media(new, line)
        here.stack.happens(s.Confirmed(new), s.FirstMedia(new))
        speaks(here, line, QUIET, 3, ears)  # what was under way
        ears.heard.clear()
        speaks(here, here.caller_line, VOICE, 5, ears)
        assert VOICE not in bytes(ears.heard)
        speaks(here, line, ANSWER, 8, ears)
        assert ANSWER in bytes(ears.heard)
        assert here.heard_by_agent.count(ANSWER) >= 5
        here.stack.over(supervisor)
        speaks(here, line, COACH, 3)
        assert here.heard_by_agent.count(COACH) == 3  # straight again
        here.stack.over(here.caller)
        here.stack.over(new)
        assert here.ends() == [("caller_hung_up", "")]

    run(scenario)


def test_the_hold_of_who_asked_is_not_the_new_far_ends() -> None:
    async def scenario(here: Floor) -> None:
        asks(here)
        here.stack.media(here.caller, here.caller_line, direction="inactive")
        assert here.agent_now.held
        here.answers()
        assert not here.agent_now.held
        here.stack.media(here.caller, here.caller_line, direction="inactive")
        assert not here.agent_now.held

    run(scenario)


# --- not, or not to its end -----------------------------------------------------------------------------------------


def test_a_refusal_is_answered_and_noted_and_nobody_is_called() -> None:
    async def scenario(here: Floor) -> None:
        here.refusing["dial"] = Refuse("country_closed", "outbound.allow")
        assert asks(here) == 403
        assert asks(here, refer=2, to="<http://example.com>") == 416
        here.clock.advance(60)
        assert asks(here, refer=3, to="<sip:x@y?Replaces=a%3Bto-tag%3D1%3Bfrom-tag%3D2>") == 603
        assert here.stack.commands("dial", "tell_refer") == []

    assert asked(run(scenario)) == [(403, "country_closed"), (416, "foreign_scheme"), (603, "unknown_dialog")]


def test_a_trunk_that_is_not_open_for_it_declines() -> None:
    async def scenario(here: Floor) -> None:
        assert asks(here) == 603

    assert asked(run(scenario, CARRIER)) == [(603, "not_allowed")]


def test_a_refer_that_the_stack_has_answered_is_not_followed() -> None:
    async def scenario(here: Floor) -> None:
        here.stack.answered_refers.add(1)  # Python was late
        assert asks(here) == 0
        assert here.stack.commands("dial") == []
        here.stack.happens(s.ReferAsked(here.caller, 0, REFER_TO))  # the published wheel

    assert asked(run(scenario)) == [(500, "late"), (603, "not_supported")]


@pytest.mark.parametrize(("status", "result"), [(486, "busy"), (404, "failed"), (603, "rejected"), (480, "no_answer")])
def test_why_somebody_does_not_answer_is_told_and_nothing_changes(status: int, result: str) -> None:
    async def scenario(here: Floor) -> None:
        agent = here.agent_now
        asks(here)
        here.stack.over(here.dialled, status, "so")
        assert told(here) == [100, status]
        here.stack.happens(s.Keyed(here.caller, "1", "rfc4733"))
        assert (agent.keys, agent.closes) == ("1", 0)
        assert here.ends() == []
        here.clock.advance(30)
        assert asks(here, refer=2) == 202  # another may be tried

    assert followed(run(scenario))[0] == (result, status)


def test_whoever_rings_too_long_is_cancelled_and_an_answer_that_crosses_is_hung_up() -> None:
    async def scenario(here: Floor) -> None:
        asks(here)
        await asyncio.sleep(RING_S + 0.1)
        assert told(here) == [100, 480]
        assert here.stack.told[-2] == ("hang_up", here.dialled) or here.stack.told[-1] == ("hang_up", here.dialled)
        here.answers()
        assert here.stack.told[-1] == ("hang_up", here.dialled)
        here.stack.over(here.dialled, by_us=True)
        assert here.agent_now.closes == 0
        here.stack.happens(s.Keyed(here.caller, "1", "rfc4733"))
        assert here.agent_now.keys == "1"

    assert followed(run(scenario)) == [("no_answer", 480)]


def test_who_asks_and_hangs_up_leaves_nobody_ringing() -> None:
    async def scenario(here: Floor) -> None:
        asks(here)
        here.stack.over(here.caller)
        assert here.stack.told[-1] == ("hang_up", here.dialled)
        assert here.ends() == [("caller_hung_up", "")]
        here.answers()
        assert here.stack.told[-1] == ("hang_up", here.dialled)
        here.stack.over(here.dialled, by_us=True)

    assert followed(run(scenario)) == [("the call is over", 487)]


def test_an_answer_that_finds_the_agent_gone_is_hung_up() -> None:
    """The agent has begun a transfer meanwhile."""

    async def scenario(here: Floor) -> None:
        asks(here)
        here.transfer()
        here.answers()
        assert here.stack.told[-1] == ("hang_up", here.dialled)
        assert told(here) == [100, 487]

    assert followed(run(scenario)) == [("not_now", 487)]


def test_while_a_person_has_the_line_the_caller_is_declined_and_one_refer_waits_for_the_other() -> None:
    async def scenario(here: Floor) -> None:
        assert asks(here) == 202
        assert asks(here, refer=2) == 491
        here.stack.over(here.dialled, 486, "Busy Here")
        assert here.control.hold() is None
        assert asks(here, refer=3) == 603

    assert asked(run(scenario)) == [(202, "accepted"), (491, "pending"), (603, "not_now")]


def test_no_way_out_is_told() -> None:
    async def scenario(here: Floor) -> None:
        assert asks(here) == 202
        assert told(here) == [100, 503]

    assert followed(run(scenario, replace(OPEN, host=None))) == [("no_trunk", 503)]


def test_a_dialler_with_a_bug_costs_the_attempt_and_not_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(here: Floor) -> None:
        monkeypatch.setattr(here.stack, "dial", lambda *_: 1 / 0)
        assert asks(here) == 202
        assert told(here) == [100, 500]
        assert here.agent_now.closes == 0
        assert here.ends() == []

    run(scenario)


def test_one_dialog_does_not_use_up_its_trunk_and_many_do() -> None:
    async def scenario(here: Floor) -> None:
        here.refusing["dial"] = Refuse("country_closed", "outbound.allow")
        answers = [asks(here, refer=n) for n in range(1, 101)]
        assert (answers.count(403), answers.count(503)) == (3, 97)
        assert dict(here.stack.commands("answer_refer")[-1][4]) == {"Retry-After": "60"}
        others = []
        for n in range(8):
            handle = here.stack.invite("carrier", call_id=f"other{n}@test")
            here.stack.media(handle, FakeLine())
            here.stack.happens(s.Confirmed(handle), s.FirstMedia(handle))
            others.append(asks(here, handle, 200 + n))
            here.stack.over(handle)
        assert others.count(403) == TRUNK_REFER_BURST - 3
        here.stack.over(here.caller)
        assert here.events("refers_more") == [{"count": 84}]

    run(scenario, calls=9)


# --- a representative -----------------------------------------------------------------------------------------------


def test_a_voicemail_that_relieves_a_representative_does_not_keep_the_caller() -> None:
    t = np.arange(3200) / 8000
    beep = to_frames((0.25 * np.sin(2 * np.pi * 1000 * t)).astype(np.float32))

    async def scenario(here: Floor) -> None:
        bridged(here)
        assert asks(here, here.dialled) == 202
        line = FakeLine()
        new = Handle(here.stack.commands("dial")[-1][1])
        here.stack.media(new, line)
        here.stack.happens(s.Confirmed(new), s.FirstMedia(new))
        for frame in (*[QUIET] * 75, *beep, *[QUIET] * 75):
            line.tick(1, frame)
        assert here.agent_now.call.attributes["transfer_failed"] == "voicemail"

    run(scenario, replace(OPEN, profile="strict"))


def test_a_representative_is_relieved_by_whom_they_name() -> None:
    async def scenario(here: Floor) -> None:
        bridged(here)
        first = here.dialled
        assert asks(here, first) == 202
        second = here.stack.commands("dial")[1][1]
        line = FakeLine()
        here.stack.media(second, line)
        here.stack.happens(s.Confirmed(second), s.FirstMedia(second))
        assert told(here) == [100, 200]
        here.caller_line.heard.clear()
        here.caller_line.tick(2, VOICE)
        line.tick(2, ANSWER)
        here.caller_line.tick(2, VOICE)
        assert VOICE in bytes(line.heard)
        assert ANSWER in bytes(here.caller_line.heard)
        here.stack.over(first)
        assert here.ends() == []
        here.clock.advance(10)
        here.stack.over(second)  # the conversation is over
        assert here.stack.told[-1] == ("hang_up", here.caller)
        here.stack.over(here.caller, by_us=True)

    here = run(scenario, replace(OPEN, profile="strict"))
    assert here.ends() == [("transferred", "")]
    assert len(here.leg_usage) == 3
    assert len({one["leg"] for one in here.events("joined")}) == 2
    assert here.results == [("bridged", "transferred")]


def test_a_caller_who_hangs_up_ends_whom_the_representative_has_called() -> None:
    async def scenario(here: Floor) -> None:
        bridged(here)
        first = here.dialled
        asks(here, first)
        second = here.stack.commands("dial")[1][1]
        here.stack.over(here.caller)
        assert {told[1] for told in here.stack.commands("hang_up")} == {first, second}

    run(scenario, replace(OPEN, profile="strict"))


# --- Replaces -------------------------------------------------------------------------------------------------------

REPLACES = "<sip:x@192.0.2.9?Replaces=other%40test%3Bto-tag%3Dt%3Bfrom-tag%3Df>"


def test_the_far_end_of_another_call_is_taken_and_nobody_is_called() -> None:
    async def scenario(here: Floor) -> None:
        agent, other, line = here.agent_now, here.stack.invite("carrier", call_id="other@test"), FakeLine()
        here.stack.media(other, line)
        here.stack.happens(s.Confirmed(other), s.FirstMedia(other))
        theirs = here.agent_now
        here.stack.named["other@test", "f", "t"] = other
        assert asks(here, to=REPLACES) == 202
        assert told(here) == [100, 200]
        assert (theirs.closes, agent.closes) == (1, 0)
        assert here.ends() == [("transferred", "taken by another call")]
        before = agent.bus.stats.received_frames
        line.tick(2, VOICE)
        assert agent.bus.stats.received_frames == before + 2
        here.stack.over(here.caller)
        assert len(here.ends()) == 1
        here.stack.over(other)
        assert here.ends()[1] == ("caller_hung_up", "")
        assert here.stack.commands("dial") == []

    run(scenario, calls=2)


@pytest.mark.parametrize("case", ["another trunk", "itself", "early only", "not with its agent", "over"])
def test_a_replaces_of_what_cannot_be_taken_is_unknown(case: str) -> None:
    async def scenario(here: Floor) -> None:
        other = here.stack.invite("another" if case == "another trunk" else "carrier", call_id="other@test")
        if case != "not with its agent":
            here.stack.media(other, FakeLine())
            here.stack.happens(s.Confirmed(other), s.FirstMedia(other))
        if case == "over":
            here.stack.over(other)
        here.stack.named["other@test", "f", "t"] = here.caller if case == "itself" else other
        assert asks(here, to=REPLACES.replace(">", "%3Bearly-only>") if case == "early only" else REPLACES) == 603

    run(scenario, OPEN, replace(OPEN, name="another"), calls=2)


# --- nothing is kept ------------------------------------------------------------------------------------------------


def test_nothing_of_a_refer_is_kept() -> None:
    async def scenario(here: Floor) -> None:
        asks(here)
        here.answers()
        call = weakref.ref(here.control)
        here.stack.over(here.caller)
        here.stack.over(here.dialled)
        await asyncio.sleep(BYE_WAIT_S + 0.1)
        here.attendants.clear()
        gc.collect()
        assert call() is None

    run(scenario)


# --- the rules of compliance ---


@pytest.mark.parametrize("to", [REFER_TO, "<sip:x@sip.example.com?Replaces=nobody%3Bto-tag%3Da%3Bfrom-tag%3Db>"])
def test_with_the_rules_in_force_nobody_takes_the_callers_place_and_the_log_says_so(
    to: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(here: Floor) -> None:
        here.switchboard.house = cast(Any, object())
        assert asks(here, to=to) == 603
        here.switchboard.house = None
        here.stack.over(here.caller)

    with caplog.at_level("INFO"):
        here = run(scenario)
    assert asked(here) == [(603, "consent")]
    (said,) = [record.getMessage() for record in caplog.records if "REFER" in record.getMessage()]
    assert "refused with 603 (consent): with the rules in force" in said
