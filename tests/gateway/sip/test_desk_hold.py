"""An operator's hold as the far end is told of it, and who answers our calls: the desk above a scripted stack."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import cache
from ipaddress import ip_network
from typing import Any

import pytest

from trunkline.gateway.answeredby import NO_DETECTION, MachineTerms
from trunkline.gateway.dialling import DialOrder
from trunkline.gateway.linecall import LineCall
from trunkline.gateway.sip import stack as s
from trunkline.gateway.sip.desk import SipDesk
from trunkline.gateway.sip.farhold import RESUME_AGAIN_S, RESUME_TRIES
from trunkline.gateway.sip.stack import Handle
from trunkline.gateway.sip.trunks import Trunk
from trunkline.gateway.succession import BACK
from trunkline.media.music import hold_music
from trunkline.ports import CallEnded, Refuse
from trunkline.testing.board import Board, play
from trunkline.testing.caller.speech import synthesize, to_frames
from trunkline.testing.sipstack import QUIET, FakeLine, ScriptedStack
from trunkline.types import E164

CARRIER = Trunk(
    "carrier",
    (ip_network("198.51.100.0/24"),),
    host="sip.example.com",
    caller_id=E164("+14155550199"),
    country="US",
    ping_s=0,
)
MEDIA_TIMEOUT_S = 10.0


class Desk(Board):
    def __init__(self) -> None:
        super().__init__()
        self.stack = ScriptedStack()
        self.handle: Handle
        self.far_line = FakeLine()

    def ring(self) -> None:
        self.handle = self.stack.invite("carrier")
        self.picked_up()

    def dial(self) -> None:
        assert not isinstance(self.switchboard.dial(DialOrder(E164("+14155550177"))), Refuse)
        self.handle = Handle(self.stack.commands("dial")[-1][1])

    def picked_up(self) -> None:
        self.stack.media(self.handle, self.far_line)
        self.stack.happens(s.Confirmed(self.handle), s.FirstMedia(self.handle))

    @property
    def control(self) -> Any:
        return self.agent_now.control

    def renegotiated(self, code: int) -> None:
        self.stack.happens(s.Renegotiated(self.handle, code))

    def holds(self) -> list[str]:
        return [told[0] for told in self.stack.commands("hold", "resume")]

    def held(self) -> list[tuple[bool, int]]:
        return [(e["held"], e["code"]) for e in self.events("held")]

    def hears(self) -> bytes:
        self.far_line.heard.clear()
        for _ in range(5):
            self.clock.advance(0.02)
            self.heartbeat.beat(self.clock.now())
            self.far_line.tick(1)
        return bytes(self.far_line.heard)


def run(
    scenario: Callable[[Desk], Coroutine[Any, Any, None]], trunk: Trunk = CARRIER, machine: MachineTerms = NO_DETECTION
) -> Desk:
    async def whole(here: Desk) -> None:
        timeout_s = MEDIA_TIMEOUT_S
        desk = SipDesk(here.stack, here.switchboard, [trunk], here.clock, media_timeout_s=timeout_s, machine=machine)
        await desk.start()
        try:
            await scenario(here)
        finally:
            here.switchboard.close()
            await desk.close()
        assert here.free_slots() == here.ears.capacity

    return play(Desk(), whole)


# --- hold -----------------------------------------------------------------------------------------------------------


def test_the_far_end_is_told_of_a_hold_and_of_its_end() -> None:
    async def scenario(here: Desk) -> None:
        here.ring()
        control = here.control
        assert control.hold() is None
        assert here.holds() == ["hold"]
        here.stack.media(here.handle, here.far_line, direction="sendonly")
        here.renegotiated(200)
        assert hold_music().audio.startswith(here.hears()[:160])
        assert control.resume() is None
        assert here.holds() == ["hold", "resume"]
        here.stack.media(here.handle, here.far_line)
        here.renegotiated(200)
        assert here.agent_now.greeting == BACK

    assert run(scenario).held() == [(True, 200), (False, 200)]


@pytest.mark.parametrize("code", [488, 491, 403])
def test_a_refused_hold_changes_nothing_for_the_caller(code: int) -> None:
    async def scenario(here: Desk) -> None:
        here.ring()
        control = here.control
        control.hold()
        here.renegotiated(code)
        assert len(here.hears()) == 5 * 160
        assert control.resume() is None
        assert here.holds() == ["hold"]
        assert here.ends() == []

    assert run(scenario).held() == [(True, code)]


def test_a_resume_that_comes_before_the_answer_follows_it() -> None:
    async def scenario(here: Desk) -> None:
        here.ring()
        control = here.control
        control.hold()
        control.resume()
        assert here.holds() == ["hold"]
        here.renegotiated(200)
        assert here.holds() == ["hold", "resume"]
        here.renegotiated(200)

    assert run(scenario).held() == [(True, 200), (False, 200)]


def test_a_refused_resume_is_asked_for_again() -> None:
    async def scenario(here: Desk) -> None:
        here.ring()
        here.control.hold()
        here.renegotiated(200)
        here.control.resume()
        for _ in range(RESUME_TRIES):
            here.renegotiated(491)
            await asyncio.sleep(RESUME_AGAIN_S + 0.1)
        assert here.holds() == ["hold"] + ["resume"] * RESUME_TRIES

    assert run(scenario).held() == [(True, 200)] + [(False, 491)] * RESUME_TRIES


@pytest.mark.parametrize("trunk", [replace(CARRIER, profile="strict"), replace(CARRIER, tells_hold=False)])
def test_a_trunk_that_is_not_to_be_told_hears_music_alone(trunk: Trunk) -> None:
    async def scenario(here: Desk) -> None:
        here.ring()
        control = here.control
        assert control.hold() is None
        assert hold_music().audio.startswith(here.hears()[:160])
        assert control.resume() is None
        assert here.holds() == []

    assert run(scenario, trunk).held() == []


def test_a_far_end_on_hold_may_be_silent_for_as_long_as_it_lasts() -> None:
    async def scenario(here: Desk) -> None:
        here.ring()
        here.control.hold()
        here.stack.media(here.handle, here.far_line, direction="sendonly")
        here.renegotiated(200)
        here.far_line.quiet_for(300)
        await asyncio.sleep(5)
        assert here.ends() == []
        here.control.resume()
        here.stack.media(here.handle, here.far_line)
        here.renegotiated(200)
        await asyncio.sleep(MEDIA_TIMEOUT_S - 1)
        assert here.ends() == []
        await asyncio.sleep(2)
        assert here.ends()[0][0] == "media_lost"

    run(scenario)


def test_a_call_that_ends_on_hold_is_told_nothing_more() -> None:
    async def scenario(here: Desk) -> None:
        here.ring()
        here.control.hold()
        here.renegotiated(200)
        here.switchboard.hang_up(here.control.id)
        here.stack.over(here.handle, by_us=True)
        assert here.holds() == ["hold"]

    run(scenario)


# --- who answers ----------------------------------------------------------------------------------------------------

GREETING = "Hi, you have reached Bob Miller. I cannot take your call. Please leave a message after the tone."


@cache
def spoken(text: str) -> tuple[bytes, ...]:
    return to_frames(asyncio.run(synthesize(text)))


def plays(here: Desk, *texts: str) -> None:
    for text in texts:
        for frame in (*spoken(text), *((QUIET,) * 110)):
            here.far_line.tick(1, frame)


@pytest.fixture(autouse=True, scope="module")
def _voices() -> None:
    spoken(GREETING), spoken("Hello?")


def answered_by(here: Desk) -> list[str]:
    return [e["who"] for e in here.events("answered_by")]


@pytest.mark.parametrize(
    ("detection", "told"), [("enable", "machine_start"), ("detect_message_end", "machine_end_silence")]
)
def test_a_machine_is_told_of_and_the_call_goes_on(detection: Any, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(LineCall, "answered_by_machine", lambda call, after: calls.append(after))

    async def scenario(here: Desk) -> None:
        here.dial()
        here.picked_up()
        plays(here, GREETING)
        assert answered_by(here)[0] == told
        assert here.ends() == []
        assert here.agent_now.bus.stats.received_frames > 200  # the agent hears it, too
        here.stack.over(here.handle)

    run(scenario, machine=MachineTerms(detection))
    assert calls == [None, "silence"]  # the call waits for the end of its greeting


def test_a_machine_is_hung_up_where_that_is_wanted() -> None:
    async def scenario(here: Desk) -> None:
        here.dial()
        here.picked_up()
        plays(here, GREETING)
        assert here.stack.commands("hang_up") == [("hang_up", here.handle)]
        assert here.ends() == [("no_answer", "a machine answered")]
        here.stack.over(here.handle, by_us=True)

    here = run(scenario, machine=MachineTerms("enable", hang_up=True))
    assert answered_by(here) == ["machine_start"]
    (end,) = [e for e in here.records if isinstance(e, CallEnded)]
    assert end.by == "policy"


def test_a_person_is_told_of() -> None:
    async def scenario(here: Desk) -> None:
        here.dial()
        here.picked_up()
        plays(here, "Hello?")
        assert here.ends() == []
        here.stack.over(here.handle)

    assert answered_by(run(scenario, machine=MachineTerms("enable", hang_up=True))) == ["human"]


def test_nobody_listens_unless_asked_to_nor_to_who_calls_us() -> None:
    async def dialled(here: Desk) -> None:
        here.dial()
        here.picked_up()
        plays(here, GREETING)
        here.stack.over(here.handle)

    async def rang(here: Desk) -> None:
        here.ring()
        plays(here, GREETING)
        here.stack.over(here.handle)

    assert answered_by(run(dialled)) == []
    assert answered_by(run(rang, machine=MachineTerms("enable", hang_up=True))) == []
