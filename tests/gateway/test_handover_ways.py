"""The ways to the target of a transfer: trunk after trunk, and target after target, above a scripted stack."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import cache
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trunkline.agents.definition import TransferTerms
from trunkline.gateway.dialling import DialOrder
from trunkline.gateway.leg import LegCall, Plan
from trunkline.gateway.outbound import Route
from trunkline.gateway.party import Invitation
from trunkline.gateway.sip import stack as s
from trunkline.gateway.sip.desk import SipDesk
from trunkline.gateway.sip.stack import Handle
from trunkline.gateway.sip.trunks import Trunk
from trunkline.gateway.succession import BACK, FAILED_AS, TRANSFER_FAILED
from trunkline.gateway.switchboard import Limits
from trunkline.media.music import hold_music
from trunkline.ports import Allow, Refuse, TtsAudio
from trunkline.testing.board import DEFINITION, MAX_CALL_S, Board, FakeLeg, play
from trunkline.testing.caller.speech import synthesize, to_frames
from trunkline.testing.sipstack import QUIET, FakeLine, ScriptedStack
from trunkline.types import E164

FIRST = Trunk(
    "first",
    (ip_network("198.51.100.0/24"),),
    host="one.example.com",
    caller_id=E164("+14155550101"),
    country="US",
    ping_s=0,
    profile="strict",
)
SECOND = replace(FIRST, name="second", host="two.example.com")


class Floor(Board):
    """A caller on SIP, on the first of two trunks, neither of which takes REFER."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ScriptedStack()
        self.desk: SipDesk
        self.caller: Handle
        self.caller_line = FakeLine()

    def ring(self) -> None:
        self.caller = self.stack.invite("first")
        self.stack.media(self.caller, self.caller_line)
        self.stack.happens(s.Confirmed(self.caller), s.FirstMedia(self.caller))

    @property
    def control(self) -> Any:
        return self.agent_now.control

    def dials(self) -> list[str]:
        """The trunks of our INVITEs, in order."""
        return [told[2] for told in self.stack.commands("dial")]

    @property
    def dialled(self) -> Handle:
        """The latest."""
        return Handle(self.stack.commands("dial")[-1][1])

    def answers(self) -> FakeLine:
        line = FakeLine()
        self.stack.media(self.dialled, line)
        self.stack.happens(s.Confirmed(self.dialled), s.FirstMedia(self.dialled))
        return line

    @property
    def results(self) -> list[Any]:
        return [(e["target"], e["how"], e["result"]) for e in self.events("transfer_attempt")]


def run(scenario: Callable[[Floor], Coroutine[Any, Any, None]]) -> Floor:
    async def whole(here: Floor) -> None:
        here.desk = SipDesk(here.stack, here.switchboard, [FIRST, SECOND], here.clock, media_timeout_s=30.0)
        await here.desk.start()
        here.ring()
        try:
            await scenario(here)
        finally:
            here.switchboard.close()
            await here.desk.close()
        assert here.switchboard._second_legs == 0
        assert here.free_slots() == here.ears.capacity

    return play(Floor(), whole)


# --- the next trunk -------------------------------------------------------------------------------------------------


def test_a_trunk_that_cannot_is_passed_over_within_one_attempt() -> None:
    async def scenario(here: Floor) -> None:
        assert here.control.send_to("desk", "bridged") is None
        first = here.dialled
        here.stack.over(first, 503, "No")
        assert here.dials() == ["first", "second"]
        assert here.switchboard._second_legs == 1
        here.answers()
        here.stack.over(here.caller)
        here.stack.over(here.dialled, by_us=True)

    here = run(scenario)
    assert here.results == [("desk", "bridged", "transferred")]
    assert here.events("transfer_attempt")[0]["trunk"] == "second"
    kinds = [kind for kind in here.kinds() if kind in ("leg_dialled", "leg_failed", "joined")]
    assert kinds == ["leg_dialled", "leg_failed", "leg_dialled", "joined"]
    one, two = here.events("leg_dialled")
    assert (one["trunk"], two["trunk"]) == ("first", "second")
    (failed,) = here.events("leg_failed")
    assert (failed["leg"], failed["provider_code"], failed["may_have_rung"]) == (one["leg"], "sip:503", False)
    assert here.events("joined")[0]["leg"] == two["leg"] != one["leg"]


@pytest.mark.parametrize(("code", "rings", "result"), [(486, False, "busy"), (503, True, "failed")])
def test_where_somebody_may_have_been_rung_no_other_trunk_is_dialled(code: int, rings: bool, result: str) -> None:
    async def scenario(here: Floor) -> None:
        here.control.send_to("desk", "bridged")
        if rings:
            here.stack.happens(s.Progress(here.dialled, 180, "Ringing"))
        here.stack.over(here.dialled, code, "No")
        assert here.dials() == ["first"]
        assert here.agent_now.greeting == FAILED_AS.get(result, TRANSFER_FAILED)

    here = run(scenario)
    assert here.results == [("desk", "bridged", result)]
    assert here.events("leg_failed")[0]["may_have_rung"] is True


def test_the_last_trunks_answer_is_the_attempts() -> None:
    async def scenario(here: Floor) -> None:
        here.control.send_to("desk", "bridged")
        here.stack.over(here.dialled, 503, "No")
        here.stack.over(here.dialled, 486, "Busy Here")
        assert here.agent_now.greeting == FAILED_AS["busy"]

    here = run(scenario)
    assert here.dials() == ["first", "second"]
    assert here.events("transfer_attempt")[0]["sip_status"] == 486


def test_a_leg_that_was_given_up_is_not_dialled_again_over_another_trunk() -> None:
    async def scenario(here: Floor) -> None:
        here.control.send_to("desk", "bridged")
        here.control.take_back()
        here.stack.over(here.dialled, 503, "No")
        assert here.dials() == ["first"]

    run(scenario)


def test_a_caller_who_left_has_nobody_dialled_over_another_trunk() -> None:
    async def scenario(here: Floor) -> None:
        here.control.send_to("desk", "bridged")
        dialled = here.dialled
        here.stack.over(here.caller)
        here.stack.over(dialled, 503, "No")
        assert here.dials() == ["first"]

    run(scenario)


class Deaf:
    """A dialler whose legs cannot be plugged."""

    def __init__(self) -> None:
        self.leg = FakeLeg()

    def routes(self, order: DialOrder) -> list[Route]:
        return [Route("account")] if order.trunk in (None, "account") else []

    def plan(self, order: DialOrder) -> Plan | Refuse:
        if order.trunk not in (None, "account"):
            return Refuse("no_trunk", "none of ours")
        return Plan(order, "twilio", "one", "account", None)

    def dial(self, plan: Plan, call: LegCall) -> FakeLeg:
        self.call = call
        return self.leg


def test_a_leg_that_cannot_be_plugged_is_hung_up_and_the_caller_is_back() -> None:
    async def scenario(here: Floor) -> None:
        deaf = Deaf()
        here.switchboard.diallers[:] = [deaf]
        here.control.send_to("desk", "bridged")
        refused = deaf.call.attach(deaf.leg)
        assert isinstance(refused, Refuse)
        assert refused.code == "not_supported"
        assert deaf.leg.closed == ["failed"]
        assert here.agent_now.greeting == FAILED_AS["target_lost"]
        here.switchboard.diallers[:] = [here.desk]

    here = run(scenario)
    assert here.results == [("desk", "bridged", "target_lost")]
    assert here.events("transfer_attempt")[0]["detail"] == "not_supported"


# --- the next target ------------------------------------------------------------------------------------------------


def with_terms(here: Floor, **terms: TransferTerms) -> None:
    numbers = {name: f"+1415555010{at}" for at, name in enumerate(terms)}
    here.agent.definition = replace(DEFINITION, targets=numbers, terms=terms)


def told(here: Floor) -> list[str]:
    """The users of our INVITEs."""
    return [address.removeprefix("sip:").partition("@")[0] for _, _, _, address, *_ in here.stack.commands("dial")]


def test_a_target_has_its_own_kind_patience_and_end() -> None:
    async def scenario(here: Floor) -> None:
        with_terms(here, desk=TransferTerms(kind="bridged", ring_s=12, after_target="resume"))
        assert isinstance(here.control.transfer("desk"), Allow)
        here.control.hang_up("transferred")
        await asyncio.sleep(11.9)
        assert here.stack.commands("hang_up") == []
        await asyncio.sleep(0.2)
        assert here.stack.commands("hang_up") == [("hang_up", here.dialled)]
        assert here.agent_now.greeting == FAILED_AS["no_answer"]
        here.stack.over(here.dialled, 487, "Terminated", by_us=True)
        here.control.send_to("desk", "auto")
        here.answers()
        here.stack.over(here.dialled)
        assert here.agent_now.greeting == BACK
        assert here.ends() == []

    assert run(scenario).results == [("desk", "bridged", "no_answer"), ("desk", "bridged", "transferred")]


def test_a_fallback_is_tried_when_the_first_is_not_reached() -> None:
    async def scenario(here: Floor) -> None:
        with_terms(here, desk=TransferTerms(fallback="nurse"), nurse=TransferTerms(kind="bridged"))
        here.control.send_to("desk", "auto")
        here.stack.over(here.dialled, 486, "Busy Here")
        assert told(here) == ["+14155550100", "+14155550101"]
        here.answers()
        here.stack.over(here.caller)

    here = run(scenario)
    assert [(target, result) for target, _, result in here.results] == [("desk", "busy"), ("nurse", "transferred")]


def test_a_target_that_a_rule_closes_has_an_open_fallback() -> None:
    async def scenario(here: Floor) -> None:
        with_terms(here, desk=TransferTerms(fallback="nurse"), nurse=TransferTerms())
        closed = here.refusing
        here.switchboard.decide = lambda facts, now: closed["x"] if facts.target == "desk" else Allow()
        closed["x"] = Refuse("country_closed", "not there")
        assert here.control.send_to("desk", "bridged") is None
        assert told(here) == ["+14155550101"]
        here.stack.over(here.dialled, 486, "Busy Here")

    here = run(scenario)
    assert [(target, result) for target, _, result in here.results] == [("desk", "refused"), ("nurse", "busy")]


def test_a_warm_fallback_of_a_bridged_target_is_briefed_in_its_own_words() -> None:
    async def scenario(here: Floor) -> None:
        spoken = []

        async def speak(text: str, format: Any) -> Any:
            spoken.append(text)
            yield TtsAudio(b"\x21" * 1600)

        here.mind.feed_mode, here.mind.speak = "gated", speak
        here.mind.open = lambda *_: SimpleNamespace(
            expect=lambda _: None, close=lambda: None, finalize=lambda: None, feed=lambda _: None
        )
        nurse = TransferTerms(kind="warm", summary="A patient.", prompt="Take it?")
        with_terms(here, desk=TransferTerms(kind="bridged", fallback="nurse"), nurse=nurse)
        here.control.send_to("desk", "auto")
        here.stack.over(here.dialled, 486, "Busy Here")
        here.answers()
        await asyncio.sleep(0.001)
        assert spoken == ["A patient. Take it?"]
        here.caller_line.heard.clear()
        here.clock.advance(0.02)
        here.heartbeat.beat(here.clock.now())
        here.caller_line.tick(1)
        assert bytes(here.caller_line.heard) in hold_music().audio
        here.stack.happens(s.Keyed(here.dialled, "1", "rfc4733"))
        here.stack.over(here.caller)

    assert run(scenario).results == [("desk", "bridged", "busy"), ("nurse", "warm", "transferred")]


# --- who answers ----------------------------------------------------------------------------------------------------


@cache
def spoken(text: str) -> tuple[bytes, ...]:
    return to_frames(asyncio.run(synthesize(text)))


def beeped() -> tuple[bytes, ...]:
    t = np.arange(3200) / 8000
    return to_frames((0.25 * np.sin(2 * np.pi * 1000 * t)).astype(np.float32))


GREETING = "Hi, you have reached Bob Miller. I cannot take your call. Please leave a message after the tone."
PAUSE = (QUIET,) * 75


def plays(here: Floor, line: FakeLine, *parts: tuple[bytes, ...]) -> None:
    for part in parts:
        for frame in part:
            here.clock.advance(0.02)
            here.heartbeat.beat(here.clock.now())
            line.tick(1, frame)
            here.caller_line.tick(1)


def answered_by(here: Floor) -> list[str]:
    return [e["who"] for e in here.events("answered_by")]


def test_a_voicemail_does_not_keep_the_caller() -> None:
    spoken(GREETING)

    async def scenario(here: Floor) -> None:
        here.control.send_to("desk", "bridged")
        line = here.answers()
        plays(here, line, spoken(GREETING))
        assert here.stack.told[-1] == ("hang_up", here.dialled)
        assert here.agent_now.greeting == FAILED_AS["voicemail"]
        assert here.agent_now.call.attributes["transfer_failed"] == "voicemail"
        here.stack.over(here.dialled, by_us=True)
        assert here.ends() == []

    here = run(scenario)
    assert answered_by(here) == ["machine_start"]
    assert here.events("answered_by")[0]["leg"] == here.events("joined")[0]["leg"]


def test_a_person_and_what_sounded_before_they_answered_are_no_voicemail() -> None:
    spoken(GREETING), spoken("Hello?")

    async def scenario(here: Floor) -> None:
        here.control.send_to("desk", "bridged")
        line = FakeLine()
        here.stack.media(here.dialled, line)
        here.stack.happens(s.FirstMedia(here.dialled))
        plays(here, line, spoken(GREETING), beeped(), PAUSE)  # an announcement, while it rings
        here.stack.happens(s.Confirmed(here.dialled))
        plays(here, line, PAUSE, spoken("Hello?"), PAUSE)
        assert here.control._handover.joined
        here.stack.over(here.caller)

    here = run(scenario)
    assert answered_by(here) == ["human"]
    assert here.results == [("desk", "bridged", "transferred")]


def test_a_beep_takes_the_caller_back_from_what_passed_for_a_person() -> None:
    spoken("This is Anna.")

    async def scenario(here: Floor) -> None:
        here.control.send_to("desk", "bridged")
        line = here.answers()
        plays(here, line, spoken("This is Anna."), PAUSE)
        assert here.control._handover.joined
        plays(here, line, spoken("This is Anna."), PAUSE, beeped(), PAUSE)
        assert here.agent_now.greeting == FAILED_AS["voicemail"]
        here.stack.over(here.dialled, by_us=True)

    assert answered_by(run(scenario)) == ["human", "machine_end_beep"]


def test_a_target_that_is_a_queue_is_not_listened_to() -> None:
    spoken(GREETING)

    async def scenario(here: Floor) -> None:
        with_terms(here, desk=TransferTerms(kind="bridged", detect_voicemail=False))
        here.control.send_to("desk", "auto")
        line = here.answers()
        plays(here, line, spoken(GREETING), beeped(), PAUSE)
        assert here.control._handover.joined
        here.stack.over(here.caller)

    assert answered_by(run(scenario)) == []


def briefable(here: Floor) -> None:
    async def speak(text: str, format: Any) -> Any:
        yield TtsAudio(b"\x21" * 160 * 50)

    ears = SimpleNamespace(expect=lambda _: None, close=lambda: None, finalize=lambda: None, feed=lambda _: None)
    here.mind.feed_mode, here.mind.speak, here.mind.open = "gated", speak, lambda *_: ears


def test_a_machine_is_briefed_no_longer_than_it_takes_to_know_it_and_the_fallback_is_called() -> None:
    spoken(GREETING)

    async def scenario(here: Floor) -> None:
        briefable(here)
        with_terms(here, desk=TransferTerms(kind="warm", fallback="nurse"), nurse=TransferTerms(kind="bridged"))
        here.control.send_to("desk", "auto")
        line = here.answers()
        await asyncio.sleep(0.001)
        plays(here, line, spoken(GREETING))
        first = here.dialled
        assert here.stack.told[-1] == ("hang_up", first)
        here.stack.over(first, by_us=True)
        assert told(here) == ["+14155550100", "+14155550101"]
        here.stack.over(here.dialled, 486, "Busy Here")

    assert run(scenario).results == [("desk", "warm", "voicemail"), ("nurse", "bridged", "busy")]


def test_who_took_the_call_by_key_is_believed_whatever_beeps() -> None:
    spoken("Hello?")

    async def scenario(here: Floor) -> None:
        briefable(here)
        here.control.send_to("desk", "warm")
        line = here.answers()
        await asyncio.sleep(0.001)
        plays(here, line, spoken("Hello?"), PAUSE)
        here.stack.happens(s.Keyed(here.dialled, "1", "rfc4733"))
        plays(here, line, spoken("Hello?"), PAUSE, beeped(), PAUSE)
        assert here.control._handover.joined
        here.stack.over(here.caller)

    here = run(scenario)
    assert answered_by(here) == ["human"]
    assert here.results == [("desk", "warm", "transferred")]


# --- lines ----------------------------------------------------------------------------------------------------------


def test_a_second_leg_takes_a_line_until_it_is_over() -> None:
    async def scenario(here: Floor) -> None:
        here.switchboard.limits = Limits(2, MAX_CALL_S)
        here.control.send_to("desk", "bridged")
        here.answers()
        here.refused(7)
        here.stack.over(here.dialled, 503, "No")
        assert here.ends()[-1] == ("overloaded", "overloaded")
        await asyncio.sleep(0)
        here.admit(8)

    run(scenario)


def test_a_transfer_that_finds_no_line_brings_the_caller_back() -> None:
    async def scenario(here: Floor) -> None:
        here.switchboard.limits = Limits(1, MAX_CALL_S)
        here.control.send_to("desk", "bridged")
        assert here.dials() == []
        assert here.agent_now.greeting == FAILED_AS["refused"]
        assert here.ends() == []

    here = run(scenario)
    assert here.results == [("desk", "bridged", "refused")]
    assert here.events("transfer_attempt")[0]["detail"].startswith("overloaded")


def test_whom_an_operator_invites_takes_a_line_as_well() -> None:
    async def scenario(here: Floor) -> None:
        here.switchboard.limits = Limits(2, MAX_CALL_S)
        asked = Invitation(DialOrder(E164("+14155550177"), ring_timeout_s=20))
        assert not isinstance(here.control.party.invite(asked), Refuse)
        other = Invitation(DialOrder(E164("+14155550178")))
        assert here.control.party.invite(other).code == "overloaded"
        assert len(here.dials()) == 1
        here.stack.over(here.dialled, 486, "Busy Here")
        assert not isinstance(here.control.party.invite(asked), Refuse)

    run(scenario)


def test_whom_an_operator_invites_is_rung_over_the_next_trunk_while_nobody_can_have_been_rung() -> None:
    async def scenario(here: Floor) -> None:
        rung = here.control.party.invite(Invitation(DialOrder(E164("+14155550177"))))
        here.stack.over(here.dialled, 503, "No")
        assert here.dials() == ["first", "second"]
        (view,) = here.control.party.views()
        assert (view.id, view.trunk, view.state) == (rung.id, "second", "ringing")
        here.stack.over(here.dialled, 486, "Busy Here")
        assert here.dials() == ["first", "second"]
        assert here.control.party.views() == []

    assert [(e["trunk"], e["may_have_rung"]) for e in run(scenario).events("leg_failed")] == [
        ("first", False),
        ("second", True),
    ]


def test_who_was_sent_away_is_not_rung_over_the_next_trunk() -> None:
    async def scenario(here: Floor) -> None:
        rung = here.control.party.invite(Invitation(DialOrder(E164("+14155550177"))))
        assert here.control.party.dismiss(rung.id) is None
        here.stack.over(here.dialled, 503, "No")
        assert here.dials() == ["first"]

    run(scenario)


def test_a_drain_lets_a_live_call_be_put_through() -> None:
    async def scenario(here: Floor) -> None:
        here.switchboard.draining = True
        here.control.send_to("desk", "bridged")
        assert here.dials() == ["first"]
        here.stack.over(here.dialled, 486, "Busy Here")

    run(scenario)
