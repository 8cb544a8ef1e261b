"""Transfers of a caller on SIP, from the agent's word to the end: a desk between a scripted stack and a switchboard."""

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from trunkline.errors import ProviderError
from trunkline.gateway.linecall import LineCall
from trunkline.gateway.sip import stack as s
from trunkline.gateway.sip.desk import SipDesk
from trunkline.gateway.sip.stack import Handle
from trunkline.gateway.sip.trunks import Trunk
from trunkline.gateway.succession import BACK, FAILED_AS, TRANSFER_FAILED
from trunkline.media import tones
from trunkline.media.music import hold_music
from trunkline.ports import HERE, Allow, CallStarted, Expectation, Refuse, SttEvent, SttFinal, TtsAudio, UsageMetered
from trunkline.testing.board import MAX_CALL_S, Board, play
from trunkline.testing.sipstack import FRAME_BYTES, FakeLine, ScriptedStack
from trunkline.types import E164

CARRIER = Trunk(
    "carrier",
    (ip_network("198.51.100.0/24"),),
    host="sip.example.com",
    caller_id=E164("+14155550199"),
    country="US",
    ping_s=0,
)
NO_REFER = replace(CARRIER, profile="strict")
MEDIA_TIMEOUT_S = 10.0
TARGET = "sip:+14155550100@sip.example.com"
VOICE, ANSWER = b"\x20" * FRAME_BYTES, b"\x21" * FRAME_BYTES


class Floor(Board):
    """A caller on SIP, talking to the agent; a trunk for those who are called."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.stack, self.trunk = ScriptedStack(), trunk
        self.desk: SipDesk
        self.caller: Handle
        self.caller_line: FakeLine

    def ring(self) -> None:
        self.caller = self.stack.invite("carrier")
        self.caller_line = FakeLine()
        self.stack.media(self.caller, self.caller_line, srtp=self.trunk.srtp == "required")
        self.stack.happens(s.Confirmed(self.caller), s.FirstMedia(self.caller))
        self.caller_line.tick()

    @property
    def control(self) -> Any:
        return self.agent_now.control

    def transfer(self) -> None:
        """As the agent does it: asks, says its words, hangs up."""
        assert isinstance(self.control.transfer("desk"), Allow)
        self.control.hang_up("transferred")

    def referred(self, code: int, *, notify: bool = False, final: bool = False) -> None:
        self.stack.happens(s.Referred(self.caller, code, "so", notify, final))

    @property
    def dialled(self) -> Handle:
        """The only INVITE of ours."""
        ((_, handle, *_),) = self.stack.commands("dial")
        return Handle(handle)

    def answers(self) -> FakeLine:
        """The target's 200, ACK and first packet."""
        line = FakeLine()
        self.stack.media(self.dialled, line)
        self.stack.happens(s.Confirmed(self.dialled), s.FirstMedia(self.dialled))
        return line

    def beat(self, *lines: FakeLine, times: int = 1, says: bytes | None = None) -> None:
        for _ in range(times):
            self.clock.advance(0.02)
            self.heartbeat.beat(self.clock.now())
            for line in lines:
                line.tick(1, says or b"\xff" * FRAME_BYTES)

    @property
    def line_now(self) -> LineCall:
        assert self.line_or_none is not None
        return self.line_or_none

    @property
    def line_or_none(self) -> LineCall | None:
        (started,) = [event for event in self.records if isinstance(event, CallStarted)]
        return self.switchboard.call(started.call_id)

    @property
    def heard_by_agent(self) -> bytes:
        """What lies in its ears."""
        bus = self.agent_now.bus
        return self.ears.latest(bus._slot, 1000)

    @property
    def results(self) -> list[Any]:
        return [(e["how"], e["result"]) for e in self.events("transfer_attempt")]

    @property
    def leg_usage(self) -> list[float]:
        return [e.usage.quantity for e in self.records if isinstance(e, UsageMetered) and e.usage.kind == "leg"]


def run(scenario: Callable[[Floor], Coroutine[Any, Any, None]], trunk: Trunk = CARRIER) -> Floor:
    floor = Floor(trunk)

    async def whole(here: Floor) -> None:
        here.desk = SipDesk(here.stack, here.switchboard, [trunk], here.clock, media_timeout_s=MEDIA_TIMEOUT_S)
        await here.desk.start()
        here.ring()
        try:
            await scenario(here)
        finally:
            here.switchboard.close()
            await here.desk.close()
        assert here.free_slots() == here.ears.capacity
        assert len(here.ends()) == 1
        assert not here.heartbeat._speaking

    return play(floor, whole)


# --- blind: REFER ---


def test_a_caller_whose_carrier_follows_the_refer_is_with_the_target() -> None:
    async def scenario(here: Floor) -> None:
        here.transfer()
        assert here.stack.commands("refer", "dial", "hang_up") == [("refer", here.caller, TARGET, {})]
        assert here.agent_now.closes == 1
        here.referred(202)
        here.referred(100, notify=True)
        here.referred(180, notify=True)
        assert here.ends() == []
        here.referred(200, notify=True, final=True)
        assert here.stack.told[-1] == ("hang_up", here.caller)
        here.stack.over(here.caller, by_us=True)
        assert here.ends() == [("transferred", "")]
        assert len(here.attendants) == 1

    here = run(scenario)
    assert here.results == [("blind", "transferred")]
    (attempt,) = here.events("transfer_attempt")
    assert (attempt["trunk"], attempt["refer_status"], attempt["sip_status"]) == ("carrier", 202, 200)


def test_the_caller_hears_ringback_of_the_targets_country_from_the_next_frame_on() -> None:
    async def scenario(here: Floor) -> None:
        here.transfer()
        here.beat(here.caller_line, times=3)
        assert bytes(here.caller_line.heard) == tones.tone("ringback", "US").audio[: 3 * FRAME_BYTES]

    run(scenario)


@pytest.mark.parametrize(("status", "reason"), [(486, "busy"), (480, "no_answer"), (603, "rejected"), (404, "failed")])
def test_a_target_the_carrier_did_not_reach_brings_the_caller_back_and_the_agent_knows_why(
    status: int, reason: str
) -> None:
    async def scenario(here: Floor) -> None:
        before = here.agent_now
        here.transfer()
        here.referred(202)
        here.referred(status, notify=True, final=True)
        assert here.agent_now is not before
        assert here.agent_now.greeting == FAILED_AS.get(reason, TRANSFER_FAILED)
        assert here.agent_now.call.attributes["transfer_failed"] == reason
        assert here.agent_now.call.attributes["transfer_target"] == "desk"
        here.caller_line.tick(1, VOICE)
        assert here.agent_now.bus.stats.lost_ms == 0
        here.stack.over(here.caller)
        assert here.ends() == [("caller_hung_up", "")]

    assert run(scenario).results == [("blind", reason)]


def test_the_agent_hears_and_is_heard_again_when_the_caller_is_back() -> None:
    async def scenario(here: Floor) -> None:
        heard_before = here.agent_now.bus.stats.received_frames
        here.transfer()
        here.caller_line.tick(50)
        assert here.agent_now.bus.stats.received_frames == heard_before
        here.referred(202)
        here.referred(486, notify=True, final=True)
        here.caller_line.tick(1)
        bus = here.agent_now.bus
        assert (bus.stats.received_frames, bus.stats.lost_ms) == (heard_before + 1, 0)
        here.caller_line.heard.clear()
        bus.begin()
        bus.append(VOICE * 5, (), 0)
        here.caller_line.tick(2)
        assert bytes(here.caller_line.heard) == VOICE * 2

    run(scenario)


def test_a_refused_refer_becomes_a_call_of_ours() -> None:
    async def scenario(here: Floor) -> None:
        here.transfer()
        here.referred(405, final=True)
        assert here.stack.commands("dial")[0][3] == TARGET
        here.answers()
        here.stack.over(here.dialled)

    assert run(scenario).results == [("blind", "refused_by_peer"), ("bridged", "transferred")]


def test_the_target_is_told_whose_number_sends_the_caller_on() -> None:
    async def scenario(here: Floor) -> None:
        here.transfer()
        here.referred(405, final=True)
        headers = here.stack.commands("dial")[0][5]
        (started,) = [event for event in here.records if isinstance(event, CallStarted)]
        assert started.to_number is not None
        assert started.to_number in headers["Diversion"]
        here.answers()
        here.stack.over(here.dialled)

    run(scenario)


def test_after_a_silent_refer_nobody_is_dialled_and_the_caller_is_back() -> None:
    async def scenario(here: Floor) -> None:
        here.transfer()
        await asyncio.sleep(16)
        assert here.agent_now.greeting == TRANSFER_FAILED
        assert here.stack.commands("dial") == []
        assert here.control.transfer("desk") == Refuse("not_now", "the last transfer may be followed yet")
        here.referred(200, notify=True, final=True)  # it was followed all the same
        assert here.stack.told[-1] == ("hang_up", here.caller)
        here.stack.over(here.caller, by_us=True)
        assert here.ends() == [("transferred", "")]

    assert run(scenario).results == [("blind", "timed_out")]


def test_a_carrier_that_takes_the_caller_and_says_nothing_is_believed() -> None:
    async def scenario(here: Floor) -> None:
        here.transfer()
        here.referred(202)
        here.stack.over(here.caller)
        assert here.ends() == [("transferred", "")]

    assert run(scenario).results == [("blind", "transferred")]


@pytest.mark.parametrize("progress", [[], [202], [202, 100, 180]])
def test_a_caller_who_hangs_up_while_referred_ends_the_call(progress: list[int]) -> None:
    async def scenario(here: Floor) -> None:
        here.transfer()
        for at, code in enumerate(progress):
            here.referred(code, notify=at > 0)
        here.stack.over(here.caller)

    here = run(scenario)
    assert here.ends()[0][0] == ("transferred" if progress == [202] else "caller_hung_up")
    assert len(here.results) == 1


def test_the_media_of_a_referred_caller_may_go_away() -> None:
    async def scenario(here: Floor) -> None:
        here.transfer()
        here.referred(202)
        here.caller_line.quiet_for(100)
        await asyncio.sleep(2)
        assert here.ends() == []
        here.referred(200, notify=True, final=True)
        assert here.stack.told[-1] == ("hang_up", here.caller)
        here.stack.over(here.caller, by_us=True)

    assert run(scenario).ends()[0][0] == "transferred"


def test_a_target_that_compliance_refuses_is_refused_before_the_agent_speaks() -> None:
    async def scenario(here: Floor) -> None:
        here.refusing["transfer"] = Refuse("country_closed", "not there")
        assert here.control.transfer("desk") == here.refusing["transfer"]
        assert here.asked[-1].target_number == "+14155550100"
        assert here.stack.commands("refer", "dial") == []

    run(scenario)


def test_compliance_is_asked_again_when_it_is_done() -> None:
    async def scenario(here: Floor) -> None:
        here.control.transfer("desk")
        here.refusing["transfer"] = Refuse("closed", "after hours")
        here.control.hang_up("transferred")
        assert here.agent_now.greeting == FAILED_AS["refused"]
        assert here.stack.commands("refer", "dial") == []

    assert run(scenario).results == [("blind", "refused")]


# --- bridged ---


def bridged(here: Floor) -> FakeLine:
    """Joined; the target's line."""
    here.transfer()
    return here.answers()


def test_caller_and_target_hear_each_other_and_the_agent_is_gone() -> None:
    async def scenario(here: Floor) -> None:
        assert here.agent_now.closes == 0
        line = bridged(here)
        assert here.agent_now.closes == 1
        here.caller_line.heard.clear()
        here.caller_line.tick(1, VOICE)
        line.tick(2, ANSWER)
        here.caller_line.tick(2, VOICE)
        assert VOICE in bytes(line.heard)
        assert ANSWER in bytes(here.caller_line.heard)
        here.clock.advance(30)
        here.stack.over(here.dialled)
        assert here.stack.told[-1] == ("hang_up", here.caller)
        here.stack.over(here.caller, by_us=True)
        assert here.ends() == [("transferred", "")]

    here = run(scenario, NO_REFER)
    assert here.results == [("bridged", "transferred")]
    assert here.stack.commands("refer") == []
    assert len(here.leg_usage) == 2
    assert here.leg_usage[0] == pytest.approx(30, abs=2)
    legs = {e["leg"] for kind in ("leg_dialled", "joined", "leg_ended", "transfer_attempt") for e in here.events(kind)}
    assert len(legs) == 1


def test_a_caller_who_hangs_up_ends_the_targets_leg_too() -> None:
    async def scenario(here: Floor) -> None:
        bridged(here)
        here.stack.over(here.caller)
        assert ("hang_up", here.dialled) in here.stack.told
        assert here.ends() == [("transferred", "")]

    run(scenario, NO_REFER)


def test_a_caller_who_hangs_up_while_it_rings_cancels_it() -> None:
    async def scenario(here: Floor) -> None:
        here.transfer()
        here.stack.over(here.caller)
        assert here.stack.told[-1] == ("hang_up", here.dialled)
        here.answers()  # as we cancel
        assert here.stack.told[-1] == ("hang_up", here.dialled)
        here.stack.over(here.dialled, by_us=True)
        assert here.ends() == [("caller_hung_up", "")]

    here = run(scenario, NO_REFER)
    assert here.results == [("bridged", "caller_left")]
    assert here.events("joined") == []


def test_the_targets_early_media_is_heard_and_hears_nobody() -> None:
    async def scenario(here: Floor) -> None:
        here.transfer()
        line = FakeLine()
        here.stack.media(here.dialled, line)
        here.stack.happens(s.FirstMedia(here.dialled))
        here.caller_line.heard.clear()
        line.tick(1, ANSWER)
        here.beat(times=2)
        here.caller_line.tick(3, VOICE)
        here.beat(times=2)
        line.tick(3)
        assert ANSWER in bytes(here.caller_line.heard)
        assert VOICE not in bytes(line.heard)
        here.stack.happens(s.Confirmed(here.dialled))
        here.caller_line.tick(2, VOICE)
        here.beat(times=2)
        line.tick(5)
        assert VOICE in bytes(line.heard)

    run(scenario, NO_REFER)


@pytest.mark.parametrize(("status", "reason"), [(486, "busy"), (480, "no_answer"), (603, "rejected")])
def test_a_target_that_does_not_answer_brings_the_caller_back(status: int, reason: str) -> None:
    async def scenario(here: Floor) -> None:
        here.transfer()
        here.stack.happens(s.Progress(here.dialled, 180, "Ringing"))
        here.stack.over(here.dialled, status, "No")
        assert here.agent_now.greeting == FAILED_AS.get(reason, TRANSFER_FAILED)

    here = run(scenario, NO_REFER)
    assert here.results == [("bridged", reason)]
    assert here.events("transfer_attempt")[0]["sip_status"] == status
    assert here.events("transfer_attempt")[0]["ringing_ms"] is not None


def test_a_target_that_rings_too_long_is_cancelled_and_an_answer_that_crosses_is_hung_up() -> None:
    async def scenario(here: Floor) -> None:
        here.transfer()
        await asyncio.sleep(30.1)
        assert here.stack.told[-1] == ("hang_up", here.dialled)
        assert here.agent_now.greeting == FAILED_AS["no_answer"]
        told = len(here.stack.told)
        here.answers()
        assert here.stack.told[told:] == [("hang_up", here.dialled)]
        here.stack.over(here.dialled, by_us=True)
        assert here.ends() == []

    assert run(scenario, NO_REFER).results == [("bridged", "no_answer")]


@pytest.mark.parametrize("answered", [False, True])
def test_hanging_up_and_draining_end_both_legs(answered: bool) -> None:
    async def scenario(here: Floor) -> None:
        if answered:
            bridged(here)
        else:
            here.transfer()
        here.switchboard.hang_up(here.control.id)
        assert {handle for _, handle in here.stack.commands("hang_up")} == {here.caller, here.dialled}
        here.stack.over(here.dialled, by_us=True)
        here.stack.over(here.caller, by_us=True)
        assert here.ends() == [("agent_hung_up", "")]

    run(scenario, NO_REFER)


def test_a_drain_ends_a_conversation_of_two_people_when_its_patience_ends() -> None:
    async def scenario(here: Floor) -> None:
        bridged(here)
        await here.switchboard.drain(5)
        assert {handle for _, handle in here.stack.commands("hang_up")} == {here.caller, here.dialled}
        assert here.ends() == [("drained", "")]

    run(scenario, NO_REFER)


def test_the_calls_limit_holds_for_both() -> None:
    async def scenario(here: Floor) -> None:
        bridged(here)
        await asyncio.sleep(MAX_CALL_S + 10)
        assert {handle for _, handle in here.stack.commands("hang_up")} == {here.caller, here.dialled}
        assert here.ends()[0][0] == "max_duration"

    run(scenario, NO_REFER)


def test_a_representative_whose_media_is_lost_is_hung_up_and_the_caller_comes_back() -> None:
    async def scenario(here: Floor) -> None:
        line = bridged(here)
        line.quiet_for(MEDIA_TIMEOUT_S + 1)
        await asyncio.sleep(0.5)
        assert here.stack.commands("hang_up") == [("hang_up", here.dialled)]
        assert here.agent_now.greeting == FAILED_AS["target_lost"]

    run(scenario, NO_REFER)


def test_a_caller_whose_media_is_lost_ends_both() -> None:
    async def scenario(here: Floor) -> None:
        bridged(here)
        here.caller_line.quiet_for(MEDIA_TIMEOUT_S + 1)
        await asyncio.sleep(0.5)
        assert {handle for _, handle in here.stack.commands("hang_up")} == {here.caller, here.dialled}
        assert here.ends()[0][0] == "media_lost"

    run(scenario, NO_REFER)


def test_a_trunk_that_is_down_brings_the_caller_back_at_once() -> None:
    async def scenario(here: Floor) -> None:
        here.switchboard.diallers.clear()
        here.transfer()
        assert here.agent_now.greeting == FAILED_AS["refused"]
        here.switchboard.diallers.append(here.desk)

    run(scenario, NO_REFER)


def test_the_music_goes_on_when_the_target_is_tried_in_another_way() -> None:
    async def scenario(here: Floor) -> None:
        here.caller_line.heard.clear()
        here.transfer()
        here.beat(here.caller_line, times=5)
        here.referred(405, final=True)
        here.beat(here.caller_line, times=5)
        heard = bytes(here.caller_line.heard)
        assert heard == tones.tone("ringback", "US").audio[: len(heard)]

    run(scenario)


def test_a_dialler_with_a_bug_costs_the_attempt_and_not_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(here: Floor) -> None:
        def bug(*_: Any) -> Any:
            raise RuntimeError("a bug")

        monkeypatch.setattr(here.desk, "dial", bug)
        here.transfer()
        assert here.agent_now.greeting == FAILED_AS["refused"]
        assert here.ends() == []

    assert run(scenario, NO_REFER).results == [("bridged", "refused")]


def test_a_target_without_encryption_where_it_is_required_is_hung_up() -> None:
    async def scenario(here: Floor) -> None:
        here.transfer()
        here.stack.media(here.dialled, FakeLine())
        assert here.stack.commands("hang_up") == [("hang_up", here.dialled)]
        assert here.agent_now.greeting == FAILED_AS["refused"]
        here.stack.over(here.dialled, by_us=True)

    here = run(scenario, replace(NO_REFER, srtp="required"))
    assert here.results == [("bridged", "refused")]


def test_nothing_of_a_transfer_is_kept() -> None:
    async def scenario(here: Floor) -> None:
        bridged(here)
        gone = weakref.ref(here.control._handover)
        here.stack.over(here.caller)
        here.stack.over(here.dialled, by_us=True)
        await asyncio.sleep(60)
        here.attendants.clear()
        gc.collect()
        assert gone() is None

    run(scenario, NO_REFER)


# --- warm ---


class Ears:
    """The recogniser of the briefing."""

    def __init__(self, on_event: Callable[[SttEvent], None]) -> None:
        self.on_event, self.fed, self.finals, self.closed = on_event, 0, 0, False

    def feed(self, audio: bytes) -> None:
        self.fed += len(audio)

    def began(self, ago_ms: int) -> None: ...

    def expect(self, expectation: Expectation) -> None:
        assert expectation.grammar == "yes_no"

    def finalize(self) -> None:
        self.finals += 1

    def close(self) -> None:
        self.closed = True


class Warm:
    """A representative who has answered and is being briefed."""

    def __init__(self, here: Floor) -> None:
        self.here, self.spoken = here, list[str]()
        self.ears: Ears
        here.mind.feed_mode = "gated"
        here.mind.open, here.mind.speak = self.open, self.speak

    def open(self, call: Any, format: Any, on_event: Callable[[SttEvent], None]) -> Ears:
        self.ears = Ears(on_event)
        return self.ears

    async def speak(self, text: str, format: Any) -> Any:
        self.spoken.append(text)
        yield TtsAudio(ANSWER * 10)

    async def briefed(self) -> FakeLine:
        """Until the whole briefing was heard."""
        assert self.here.control.send_to("desk", "warm", "An invoice.") is None
        line = self.here.answers()
        await self.hears(line)
        return line

    async def hears(self, line: FakeLine) -> None:
        await asyncio.sleep(0.001)
        for _ in range(15):
            self.here.beat(line, self.here.caller_line)

    def says(self, text: str, *, understood: bool = True) -> None:
        self.ears.on_event(SttFinal(text, understood))


def test_a_representative_is_briefed_alone_accepts_by_key_and_is_joined() -> None:
    async def scenario(here: Floor) -> None:
        warm = Warm(here)
        here.caller_line.heard.clear()
        line = await warm.briefed()
        assert warm.spoken[0].startswith("An invoice. Press 1")
        assert ANSWER in bytes(line.heard)
        assert ANSWER not in bytes(here.caller_line.heard)
        assert bytes(here.caller_line.heard) == hold_music().audio[: len(here.caller_line.heard)]
        here.caller_line.tick(1, VOICE)
        here.beat(line)
        assert VOICE not in bytes(line.heard)
        here.stack.happens(s.Keyed(here.dialled, "1", "rfc4733"))
        assert warm.ears.closed
        here.caller_line.tick(1, VOICE)
        line.tick(2, ANSWER)
        here.caller_line.tick(2)
        assert VOICE in bytes(line.heard)
        assert ANSWER in bytes(here.caller_line.heard)
        here.stack.over(here.caller)
        here.stack.over(here.dialled, by_us=True)

    here = run(scenario)
    assert here.results == [("warm", "transferred")]
    assert here.events("transfer_attempt")[0]["accepted_ms"] is not None
    assert [e.usage.kind for e in here.records if isinstance(e, UsageMetered)].count("tts") == 1


@pytest.mark.parametrize(("third_party", "product"), [(False, HERE), (True, "voice-1")])
def test_a_briefing_is_billed_as_the_agents_words_are(third_party: bool, product: str) -> None:
    """What runs here is on no invoice, and somebody else's voice and ears on theirs."""

    async def scenario(here: Floor) -> None:
        here.mind.third_party, here.mind.product = third_party, "voice-1"
        warm = Warm(here)
        line = await warm.briefed()
        here.ears.latest = lambda slot, length_ms: VOICE * 15  # type: ignore[method-assign]
        bus = here.control._handover._briefing.bus
        bus.speech_started(here.clock.now())
        here.beat(line, here.caller_line)
        here.stack.happens(s.Keyed(here.dialled, "1", "rfc4733"))
        here.stack.over(here.caller)
        here.stack.over(here.dialled, by_us=True)

    here = run(scenario)
    used = [e.usage for e in here.records if isinstance(e, UsageMetered) and e.usage.kind in ("tts", "stt")]
    assert [(usage.kind, usage.product) for usage in used] == [("tts", product), ("stt", product)]


@pytest.mark.parametrize(("words", "result"), [("yes please", "transferred"), ("no", "declined")])
def test_a_representative_answers_in_words(words: str, result: str) -> None:
    async def scenario(here: Floor) -> None:
        warm = Warm(here)
        await warm.briefed()
        warm.says("yes", understood=False)  # a guess
        warm.says(words)
        if result == "declined":
            assert here.stack.told[-1] == ("hang_up", here.dialled)
            assert here.agent_now.greeting == FAILED_AS["declined"]

    assert run(scenario).results == [("warm", result)]


def test_a_representative_who_says_nothing_is_left_and_the_caller_comes_back() -> None:
    async def scenario(here: Floor) -> None:
        warm = Warm(here)
        line = await warm.briefed()
        warm.says("what")
        await warm.hears(line)
        assert len(warm.spoken) == 2  # the question once more
        await asyncio.sleep(16)
        assert here.stack.told[-1] == ("hang_up", here.dialled)
        assert here.agent_now.greeting == FAILED_AS["declined"]
        assert warm.ears.closed

    assert run(scenario).results == [("warm", "declined")]


def test_a_representative_who_hangs_up_on_the_briefing_has_declined() -> None:
    async def scenario(here: Floor) -> None:
        await Warm(here).briefed()
        here.stack.over(here.dialled)
        assert here.agent_now.greeting == FAILED_AS["declined"]

    assert run(scenario).results == [("warm", "declined")]


def test_a_caller_who_hangs_up_ends_the_briefing() -> None:
    async def scenario(here: Floor) -> None:
        warm = Warm(here)
        await warm.briefed()
        here.stack.over(here.caller)
        assert here.stack.told[-1] == ("hang_up", here.dialled)
        assert warm.ears.closed
        assert here.ends() == [("caller_hung_up", "")]

    assert run(scenario).results == [("warm", "caller_left")]


def test_a_voice_that_fails_leaves_the_keys() -> None:
    async def scenario(here: Floor) -> None:
        warm = Warm(here)

        async def fails(text: str, format: Any) -> Any:
            raise ProviderError("fake", "unavailable", retryable=False)
            yield

        here.mind.speak = fails
        assert here.control.send_to("desk", "warm") is None
        here.answers()
        await asyncio.sleep(0.001)
        here.stack.happens(s.Keyed(here.dialled, "1", "rfc4733"))
        assert here.events("joined")
        assert warm.ears.closed

    assert run(scenario).results == [("warm", "transferred")]


def test_speech_is_heard_with_its_beginning() -> None:
    async def scenario(here: Floor) -> None:
        warm = Warm(here)
        await warm.briefed()
        bus = here.control._handover._briefing.bus
        bus.listener.speech_started(here.clock.now())
        bus.listener.speech_ended(here.clock.now())
        assert warm.ears.fed
        assert warm.ears.finals == 1

    here = run(scenario)
    assert "stt" in [e.usage.kind for e in here.records if isinstance(e, UsageMetered)]


# --- an operator's hands ---


def test_an_operator_holds_a_caller_and_gives_them_back_to_the_agent() -> None:
    async def scenario(here: Floor) -> None:
        control = here.control
        assert control.hold() is None
        assert here.agent_now.closes == 1
        here.caller_line.heard.clear()
        here.beat(here.caller_line, times=5)
        assert bytes(here.caller_line.heard).startswith(hold_music().audio[: 3 * FRAME_BYTES])
        assert control.hold().code == "not_now"
        assert control.send_to("desk", "auto").code == "not_now"
        assert control.resume() is None
        assert here.agent_now.greeting == BACK
        assert control.resume().code == "not_now"
        here.caller_line.tick(1, VOICE)
        assert here.agent_now.bus.stats.lost_ms == 0

    run(scenario)


def test_a_caller_on_hold_may_hang_up() -> None:
    async def scenario(here: Floor) -> None:
        here.control.hold()
        here.stack.over(here.caller)
        assert here.ends() == [("caller_hung_up", "")]

    run(scenario)


def test_an_operator_mutes_and_holds_a_caller_who_was_put_through() -> None:
    async def scenario(here: Floor) -> None:
        control = here.control
        assert control.mute(True).code == "not_now"
        line = bridged(here)

        def caller_is_heard() -> bool:
            here.beat(line, here.caller_line, times=20)  # what was said before is out
            line.heard.clear()
            for _ in range(5):
                here.caller_line.tick(1, VOICE)
                here.beat(line)
            return VOICE in bytes(line.heard)

        assert caller_is_heard()
        assert control.mute(True) is None
        assert not caller_is_heard()
        assert control.mute(False) is None
        assert caller_is_heard()
        assert control.hold() is None
        assert not caller_is_heard()
        assert control.resume() is None
        assert caller_is_heard()
        assert control.take_back().code == "not_now"
        here.stack.over(here.caller)

    run(scenario, NO_REFER)


def test_an_operator_gives_a_transfer_up() -> None:
    async def scenario(here: Floor) -> None:
        assert here.control.send_to("desk", "bridged") is None
        assert here.control.send_to("desk", "bridged").code == "not_now"
        assert here.control.take_back() is None
        assert here.stack.told[-1] == ("hang_up", here.dialled)
        assert here.agent_now.greeting == FAILED_AS["cancelled"]

    assert run(scenario).results == [("bridged", "cancelled")]


def test_an_operator_names_a_target_and_never_a_number() -> None:
    async def scenario(here: Floor) -> None:
        assert here.control.send_to("+12025550123", "auto").code == "unknown_target"
        assert here.stack.commands("refer", "dial") == []

    run(scenario)


# --- attended: REFER with Replaces ---


async def attended(here: Floor) -> None:
    """Until the representative has accepted."""
    warm = Warm(here)
    assert here.control.send_to("desk", "attended", "An invoice.") is None
    await warm.hears(here.answers())
    here.stack.happens(s.Keyed(here.dialled, "1", "rfc4733"))


def test_the_two_far_ends_talk_to_each_other_once_the_representative_agrees() -> None:
    async def scenario(here: Floor) -> None:
        await attended(here)
        assert here.stack.commands("refer_to_call") == [("refer_to_call", here.caller, here.dialled)]
        here.referred(202)
        here.stack.over(here.dialled)  # replaced
        here.referred(200, notify=True, final=True)
        assert here.stack.commands("hang_up") == [("hang_up", here.caller)]
        here.stack.over(here.caller, by_us=True)
        assert here.ends() == [("transferred", "")]

    assert run(scenario).results == [("attended", "transferred")]


@pytest.mark.parametrize("trunk", [CARRIER, replace(CARRIER, profile="strict")])
def test_where_replaces_is_refused_they_are_joined_here(trunk: Trunk) -> None:
    async def scenario(here: Floor) -> None:
        await attended(here)
        if trunk is CARRIER:
            here.referred(405, final=True)
        assert here.events("joined")
        here.stack.over(here.caller)

    assert run(scenario, trunk).results == [("attended", "transferred")]


def test_a_caller_whose_budget_is_spent_and_whose_target_is_busy_hears_a_goodbye() -> None:
    async def scenario(here: Floor) -> None:
        here.line_now.out_of_budget("call", "desk")
        here.stack.happens(s.Disconnected(here.dialled, 486, "busy", False, ""))
        assert (here.agent_now.greeting, here.agent_now.goodbyes) == ("", 1)
        await asyncio.sleep(8.1)
        here.stack.happens(s.Disconnected(here.caller, 200, "", True, ""))
        assert here.ends() == [("budget", "")]

    run(scenario, NO_REFER)
