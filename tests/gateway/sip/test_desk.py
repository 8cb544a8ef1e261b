"""The desk between a scripted stack and a switchboard with fakes around it, on a clock that jumps."""

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from dataclasses import replace
from decimal import Decimal
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal, cast

import pytest

from tests.gateway.test_routed import OURS, main
from tests.gateway.test_routed import Desk as RoutedDesk
from tests.gateway.test_slots import Shared
from trunkline.compliance.money.account import Terms
from trunkline.compliance.money.prices import COLUMNS
from trunkline.compliance.money.treasury import Policy, Treasury
from trunkline.gateway import linecall
from trunkline.gateway.call import CLOSE_WAIT_S
from trunkline.gateway.dialling import DialOrder
from trunkline.gateway.linecall import GOODBYE_S
from trunkline.gateway.recital import Reciter
from trunkline.gateway.sip import stack as s
from trunkline.gateway.sip.desk import (
    CHECK_S,
    FIRST_MEDIA_S,
    LIMIT_SLACK_S,
    READY_WAIT_S,
    SipDesk,
)
from trunkline.gateway.sip.stack import Handle
from trunkline.gateway.sip.trunks import Trunk
from trunkline.gateway.slots import SlotLimits, Slots
from trunkline.gateway.spending import Spending, Ways
from trunkline.media.bus import DEAF_TAIL_MS, Bus
from trunkline.media.detect import DtmfDetector
from trunkline.media.dtmf import tones
from trunkline.numbers.resources import ByBusy, ByMessage, ByNumber
from trunkline.ports import CallEnded, CallStarted, Refuse, TtsAudio, UsageMetered
from trunkline.testing.board import MAX_CALL_S, Board, play
from trunkline.testing.sipstack import FakeLine, ScriptedStack
from trunkline.types import E164, FRAME_MS, MULAW_8K, CallId

CARRIER = Trunk(
    "carrier",
    (ip_network("198.51.100.0/24"),),
    host="sip.example.com",
    caller_id=E164("+14155550199"),
    country="US",
    headers_in={"X-Campaign": "campaign", "Kind": "kind"},
    headers_out={"campaign": "X-Campaign"},
    ping_s=0,
)
CALLEE = E164("+14155550177")
MEDIA_TIMEOUT_S = 10.0


class Desk(Board):
    """A board with a SIP desk."""

    def __init__(self, *trunks: Trunk, max_calls: int = 10) -> None:
        super().__init__(max_calls)
        self.stack = ScriptedStack()
        self.trunks = trunks or (CARRIER,)
        self.desk: SipDesk

    @property
    def handle(self) -> Handle:
        return Handle(self.stack._handles)

    def invited(self, **how: Any) -> Handle:
        return self.stack.invite(self.trunks[0].name, **how)

    def confirmed(self, handle: Handle, line: FakeLine | None = None, **media: Any) -> FakeLine:
        line = line or FakeLine()
        self.stack.media(handle, line, **media)
        self.stack.happens(s.Confirmed(handle))
        return line

    def talking(self, **how: Any) -> tuple[Handle, FakeLine]:
        """A call that has come, was answered and is attended."""
        handle = self.invited(**how)
        line = self.confirmed(handle)
        self.stack.happens(s.FirstMedia(handle))
        return handle, line

    def dialled(self, **order: Any) -> Handle:
        call_id = self.switchboard.dial(DialOrder(CALLEE, **order))
        assert not isinstance(call_id, Refuse), call_id
        return self.handle

    def not_dialled(self, **order: Any) -> str:
        refusal = self.switchboard.dial(DialOrder(CALLEE, **order))
        assert isinstance(refusal, Refuse)
        return refusal.code

    @property
    def started(self) -> CallStarted:
        return [e for e in self.records if isinstance(e, CallStarted)][-1]


def run(scenario: Callable[[Desk], Coroutine[Any, Any, None]], *trunks: Trunk, max_calls: int = 10) -> Desk:
    desk = Desk(*trunks, max_calls=max_calls)

    async def whole(here: Desk) -> None:
        here.desk = SipDesk(here.stack, here.switchboard, here.trunks, here.clock, media_timeout_s=MEDIA_TIMEOUT_S)
        await here.desk.start()
        try:
            await scenario(here)
        finally:
            await here.desk.close()
        assert here.stack.closed

    return play(desk, whole)


# --- a call that comes ---


@pytest.mark.parametrize(
    ("limits", "status"), [(SlotLimits(per_number=1), 486), (SlotLimits(per_tenant=1), 503)], ids=["number", "tenant"]
)
def test_where_there_are_as_many_calls_as_may_be_it_is_busy(limits: SlotLimits, status: int) -> None:
    async def scenario(here: Desk) -> None:
        slots = here.switchboard.slots = Slots(limits, Shared(), here.clock, "me")
        slots.start()
        first, second = here.invited(call_id="a@test"), here.invited(call_id="b@test")
        await asyncio.sleep(0.01)
        assert here.stack.commands("ring") == [("ring", first)]
        retry = {"Retry-After": "30"} if status == 503 else {}
        assert here.stack.commands("refuse") == [("refuse", second, status, retry)]
        assert here.ends()[0][0] == "overloaded"
        here.stack.over(second, status, by_us=True)
        here.stack.over(first)  # CANCEL
        await asyncio.sleep(0.01)
        third = here.invited(call_id="c@test")
        await asyncio.sleep(0.01)
        assert here.stack.commands("ring")[-1] == ("ring", third)
        await slots.close()

    run(scenario)


def test_the_line_ends_a_call_by_itself_when_its_budget_pays_no_more(tmp_path: Path) -> None:
    async def scenario(here: Desk) -> None:
        rows = ["# version test", COLUMNS, "sip,leg,*,voice,seconds,0.01,1,1,2026-11-28,test"]
        (tmp_path / "prices.csv").write_text("\n".join(rows))
        policy = Policy(Terms(call_usd=Decimal("0.50")), prices=tmp_path)
        treasury = Treasury(policy, None, here.clock)
        here.switchboard.spending = Spending(treasury, Ways(), here.metrics, here.clock.now)
        handle = here.invited()
        await asyncio.sleep(0.01)
        assert here.stack.commands("answer") == [("answer", handle, 50.0)]

    run(scenario)


def test_who_gives_up_while_the_slot_is_asked_for_is_no_call() -> None:
    async def scenario(here: Desk) -> None:
        here.switchboard.slots = Slots(SlotLimits(per_tenant=1), Shared(), here.clock, "me")
        here.stack.over(here.invited())
        await asyncio.sleep(0.01)
        assert here.ends() == [("refused", "cancelled")]
        assert here.stack.commands("ring") == []

    run(scenario)


def test_the_frames_of_a_tick_are_heard_in_the_tick() -> None:
    """An interruption over SIP does not also wait for the heartbeat."""

    async def scenario(here: Desk) -> None:
        _, line = here.talking()
        line.tick()
        assert here.listened_at == []
        here.stack.on_frames()
        assert here.listened_at == [here.clock.now()]

    run(scenario)


def test_a_call_rings_is_answered_and_hears_the_agent_with_its_first_media() -> None:
    async def scenario(here: Desk) -> None:
        handle = here.invited()
        assert here.stack.told == [("ring", handle), ("answer", handle, MAX_CALL_S + LIMIT_SLACK_S)]
        line = here.confirmed(handle)
        assert here.attendants == []
        here.stack.happens(s.FirstMedia(handle))
        assert here.agent_now.greeting is None
        assert here.started.leg == "sip"
        assert (here.started.from_number, here.started.to_number) == ("+14155550123", "+14155550100")
        assert here.started.provider_call_id == "one@test"
        here.agent_now.bus.begin()
        here.agent_now.bus.append(b"\x20" * 1600, (), 0)
        line.tick(3)
        assert bytes(line.heard) == b"\x20" * 480
        here.stack.over(handle)
        assert here.ends() == [("caller_hung_up", "")]
        assert line.closed
        assert here.free_slots() == here.ears.capacity

    here = run(scenario)
    assert here.kinds() == ["arrived", "sip_audio", "answered", "sip_media", "sip_ladder", "media"]
    assert here.events("sip_ladder")[0]["steps"][0]["what"] == "INVITE"
    assert here.events("sip_media")[0]["mos"] > 4
    assert here.events("media")[0]["taken_frames"] == 3
    assert [e.usage.provider for e in here.records if isinstance(e, UsageMetered)] == ["sip"]


def test_a_far_end_that_sends_nothing_is_greeted_all_the_same() -> None:
    async def scenario(here: Desk) -> None:
        here.confirmed(here.invited())
        await asyncio.sleep(FIRST_MEDIA_S - 0.01)
        assert here.attendants == []
        await asyncio.sleep(0.02)
        assert here.agent_now.greeting is None
        here.stack.happens(s.FirstMedia(here.handle))  # late
        assert len(here.attendants) == 1

    run(scenario)


def test_media_before_the_acknowledgement_waits_for_it() -> None:
    async def scenario(here: Desk) -> None:
        handle = here.invited()
        here.stack.media(handle, FakeLine())
        here.stack.happens(s.FirstMedia(handle))
        assert (here.attendants, here.taps) == ([], [])
        here.stack.happens(s.Confirmed(handle))
        assert len(here.attendants) == 1

    run(scenario)


def test_a_caller_hears_ringing_until_the_agent_is_ready() -> None:
    async def scenario(here: Desk) -> None:
        here.ready = False
        handle = here.invited()
        await asyncio.sleep(1)
        assert here.stack.told == [("ring", handle)]
        here.ready = True
        await asyncio.sleep(0.2)
        assert here.stack.told[-1][0] == "answer"

    run(scenario)


def test_an_agent_that_is_not_ready_in_time_leaves_the_caller_to_another_gateway() -> None:
    async def scenario(here: Desk) -> None:
        here.ready = False
        handle = here.invited()
        await asyncio.sleep(READY_WAIT_S + 0.2)
        assert here.stack.told[-1] == ("refuse", handle, 503, {"Retry-After": "30"})
        assert here.ends() == [("overloaded", "the agent was not ready in time")]
        here.ready = True
        here.stack.over(handle, 503, by_us=True)
        await asyncio.sleep(1)
        assert here.stack.commands("answer") == []

    run(scenario)


class Mute:
    """A voice, of which nothing is heard."""

    def __init__(self) -> None:
        self.said: list[str] = []

    async def speak(self, text: str, format: Any) -> list[TtsAudio]:
        self.said.append(text)
        return []


def test_a_text_in_place_of_a_conversation_does_not_wait_for_the_agent() -> None:
    async def scenario(here: Desk) -> None:
        here.ready = False
        speaks, voice = False, Mute()
        here.switchboard.reciter = Reciter(cast(Any, voice), lambda: speaks, here.clock)
        await RoutedDesk(here).put(*main(ByMessage(kind="message", text="We are closed.")))
        handle = here.invited(to=f"sip:{OURS}@192.0.2.1")
        await asyncio.sleep(1)
        assert here.stack.commands("answer") == []  # the voice cannot speak yet
        speaks = True
        await asyncio.sleep(0.2)
        assert here.stack.commands("answer") != []
        here.confirmed(handle)
        here.stack.happens(s.FirstMedia(handle))
        await asyncio.sleep(0.1)
        assert (voice.said, here.attendants) == (["We are closed."], [])
        await asyncio.sleep(CLOSE_WAIT_S + 1)
        assert here.ends() == [("agent_hung_up", "")]

    run(scenario)


def test_keys_reach_the_agent() -> None:
    async def scenario(here: Desk) -> None:
        handle, _ = here.talking()
        here.stack.happens(s.Keyed(handle, "5", "rfc4733"), s.Keyed(handle, "#", "info"))
        assert here.agent_now.keys == "5#"

    run(scenario)


def test_where_the_trunk_has_its_digits_in_the_audio_those_count_and_no_others() -> None:
    """Many trunks send both; each key would be there twice."""

    async def scenario(here: Desk) -> None:
        handle, line = here.talking()
        sound = tones("4#7", MULAW_8K)
        here.stack.happens(s.Keyed(handle, "4", "rfc4733"))
        for at in range(0, len(sound), MULAW_8K.frame_bytes):
            line.tick(audio=sound[at : at + MULAW_8K.frame_bytes])
        here.stack.happens(s.Keyed(handle, "#", "info"))
        assert here.agent_now.keys == "4#7"

    run(scenario, replace(CARRIER, dtmf_in="inband"))


class Tap:
    def __init__(self) -> None:
        self.heard = b""

    def write(self, channel: str, position: int, data: bytes) -> None:
        self.heard += data if channel == "caller" else b""

    def cut(self, channel: str, position: int) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("dtmf_in", ["inband", "events"])
def test_a_number_is_keyed_past_whoever_hears_the_bus(dtmf_in: Literal["inband", "events"]) -> None:
    """An entry of the agent's (agents/entry.py) makes the bus deaf; keys still come, by either way."""
    card, tap = "5105105105105100", Tap()

    async def scenario(here: Desk) -> None:
        handle, line = here.talking()
        bus = here.agent_now.bus
        bus.taps.append(tap)

        def keyed(digits: str) -> None:
            sound = tones(digits, MULAW_8K)
            for at in range(0, len(sound), MULAW_8K.frame_bytes):
                line.tick(audio=sound[at : at + MULAW_8K.frame_bytes])
            if dtmf_in == "events":
                here.stack.happens(*(s.Keyed(handle, digit, "rfc4733") for digit in digits))

        keyed("47")
        bus.deafen()
        heard = len(tap.heard)
        keyed(f"{card}#")
        assert set(tap.heard[heard:]) == {0xFF}
        bus.hear_again()
        keyed("0")  # its tone lasts longer than it takes to find it
        assert set(tap.heard[heard:]) == {0xFF}
        for _ in range(DEAF_TAIL_MS // FRAME_MS):
            line.tick(audio=MULAW_8K.silence * MULAW_8K.frame_bytes)
        keyed("11")
        assert here.agent_now.keys == f"47{card}#011"

    run(scenario, replace(CARRIER, dtmf_in=dtmf_in))
    found = DtmfDetector().feed(tap.heard)
    assert found == "4711", "the search finds the keys that were no secret"


def test_tones_are_only_sound_where_the_trunk_does_not_say_otherwise() -> None:
    async def scenario(here: Desk) -> None:
        _, line = here.talking()
        sound = tones("4#7", MULAW_8K)
        for at in range(0, len(sound), MULAW_8K.frame_bytes):
            line.tick(audio=sound[at : at + MULAW_8K.frame_bytes])
        assert here.agent_now.keys == ""

    run(scenario)


@pytest.mark.parametrize("direction", ["sendonly", "recvonly", "inactive"])
def test_a_re_invite_keeps_the_call(direction: Any) -> None:
    async def scenario(here: Desk) -> None:
        handle, line = here.talking()
        here.stack.media(handle, line, direction=direction, telephone_events=False)
        line.quiet_for(100)
        await asyncio.sleep(1)
        assert (len(here.attendants), here.ends()) == (1, [])  # on hold nothing is to come
        assert here.agent_now.held == (direction != "sendonly")  # of ours, there they hear the agent
        here.stack.media(handle, line)
        assert not here.agent_now.held
        await asyncio.sleep(1)
        assert here.ends() == []  # nor has it been missing
        await asyncio.sleep(MEDIA_TIMEOUT_S)
        assert here.ends() == [("media_lost", "no media")]

    run(scenario)


def test_what_a_peer_writes_is_fit_for_a_record() -> None:
    async def scenario(here: Desk) -> None:
        handle = here.invited(call_id="\x1b[31m\udc80" + "x" * 500)
        assert here.started.provider_call_id == "\ufffd[31m\ufffd" + "x" * 194
        here.confirmed(handle)
        here.stack.over(handle, 500, "Oh\x07" + "o" * 100)
        assert here.ends() == [("media_lost", "SIP 500 Oh\ufffd" + "o" * 61)]
        assert here.events("sip_ladder") != []

    run(scenario)


# --- races ---


def test_a_caller_who_gives_up_while_it_rings() -> None:
    async def scenario(here: Desk) -> None:
        here.ready = False
        handle = here.invited()
        await asyncio.sleep(0.5)
        here.stack.over(handle, 487, "Request Terminated")
        assert here.ends() == [("caller_hung_up", "cancelled")]
        here.ready = True
        await asyncio.sleep(1)
        assert here.stack.commands("answer", "refuse", "hang_up") == []

    run(scenario)


def test_a_cancel_that_crosses_our_answer() -> None:
    async def scenario(here: Desk) -> None:
        handle = here.invited()
        here.stack.over(handle, 487, "Request Terminated")
        here.stack.happens(s.Confirmed(handle), s.FirstMedia(handle))
        await asyncio.sleep(2)
        assert here.ends() == [("caller_hung_up", "cancelled")]
        assert here.attendants == []

    run(scenario)


def test_an_answer_nobody_acknowledges() -> None:
    async def scenario(here: Desk) -> None:
        handle = here.invited()
        here.stack.media(handle, FakeLine())
        here.stack.over(handle, 408, "Request Timeout")
        assert here.ends() == [("never_started", "our answer was not acknowledged")]

    run(scenario)


def test_both_hang_up_at_once() -> None:
    async def scenario(here: Desk) -> None:
        handle, _ = here.talking()
        here.agent_now.control.hang_up("agent_hung_up")
        assert here.stack.commands("hang_up") == [("hang_up", handle)]
        here.stack.over(handle)  # their BYE
        assert here.ends() == [("agent_hung_up", "")]

    run(scenario)


def test_a_bye_between_the_acknowledgement_and_the_greeting() -> None:
    async def scenario(here: Desk) -> None:
        handle = here.invited()
        here.confirmed(handle)
        here.stack.over(handle)
        await asyncio.sleep(2)
        assert here.ends() == [("caller_hung_up", "")]
        assert here.attendants == []

    run(scenario)


def test_a_goodbye_that_is_never_answered_ends_the_record_all_the_same() -> None:
    async def scenario(here: Desk) -> None:
        handle, line = here.talking()
        here.agent_now.control.hang_up("no_input")
        await asyncio.sleep(CLOSE_WAIT_S + 0.1)
        assert here.ends() == [("no_input", "")]
        here.stack.media(handle, line)
        here.stack.over(handle, 408, "Request Timeout", by_us=True)
        assert here.ends() == [("no_input", "")]
        assert here.desk.dialogs == 0

    run(scenario)


def test_events_of_dialogs_nobody_knows_change_nothing() -> None:
    async def scenario(here: Desk) -> None:
        stranger = Handle(99)
        here.stack.happens(s.Progress(stranger, 180, "Ringing"), s.Confirmed(stranger), s.Keyed(stranger, "1", "info"))
        here.stack.media(stranger, FakeLine())
        here.stack.happens(s.FirstMedia(stranger), s.LimitReached(stranger))
        here.stack.over(stranger)
        assert (here.records, here.stack.told) == ([], [])

    run(scenario)


def test_an_operator_ends_a_call_that_still_rings() -> None:
    async def scenario(here: Desk) -> None:
        here.ready = False
        handle = here.invited()
        here.switchboard.hang_up(here.started.call_id)
        assert here.stack.told[-1][:3] == ("refuse", handle, 603)
        assert here.ends() == [("agent_hung_up", "")]
        here.ready = True
        await asyncio.sleep(1)
        assert here.stack.commands("answer") == []

    run(scenario)


# --- the end ---


def test_a_call_without_any_media_is_lost() -> None:
    async def scenario(here: Desk) -> None:
        handle, line = here.talking()
        line.quiet_for(MEDIA_TIMEOUT_S - 1)
        await asyncio.sleep(1)
        assert here.ends() == []
        line.quiet_for(MEDIA_TIMEOUT_S + 1)
        await asyncio.sleep(CHECK_S + 0.01)
        assert here.ends() == [("media_lost", "no media")]
        assert here.stack.told[-1] == ("hang_up", handle)
        here.stack.over(handle, by_us=True)
        assert here.kinds()[-2:] == ["sip_media", "sip_ladder"]

    run(scenario)


def test_a_dialog_that_breaks_is_no_caller_who_hung_up() -> None:
    async def scenario(here: Desk) -> None:
        handle, _ = here.talking()
        here.stack.over(handle, 503, "Service Unavailable")
        assert here.ends() == [("media_lost", "SIP 503 Service Unavailable")]

    run(scenario)


def test_a_dialog_the_stack_ends_by_itself_is_no_callers_doing() -> None:
    async def scenario(here: Desk) -> None:
        handle, _ = here.talking()
        here.stack.over(handle, by_us=True)
        assert here.ends() == [("failed", "ended by the stack: SIP 200 OK")]

    run(scenario)


def test_the_lines_own_limit_ends_a_call_python_was_too_busy_to_end() -> None:
    async def scenario(here: Desk) -> None:
        handle, _ = here.talking()
        here.stack.happens(s.LimitReached(handle))
        here.stack.over(handle, by_us=True)
        assert here.ends() == [("max_duration", "")]

    run(scenario)


def test_a_call_has_a_limit_and_hears_goodbye() -> None:
    async def scenario(here: Desk) -> None:
        handle, _ = here.talking()
        await asyncio.sleep(MAX_CALL_S + 1)
        assert here.agent_now.goodbyes == 1
        await asyncio.sleep(GOODBYE_S)
        assert here.stack.told[-1] == ("hang_up", handle)

    run(scenario)


def test_media_that_must_be_encrypted_and_is_not() -> None:
    async def scenario(here: Desk) -> None:
        handle = here.invited()
        here.stack.media(handle, FakeLine(), srtp=False)
        assert here.stack.told[-1] == ("hang_up", handle)
        assert here.ends() == [("refused", "the far end did not encrypt its media")]
        again = here.invited(call_id="two@test")
        here.confirmed(again, srtp=True)
        here.stack.happens(s.FirstMedia(again))
        assert len(here.attendants) == 1

    run(scenario, replace(CARRIER, srtp="required"))


def test_close_of_the_switchboard_says_goodbye_to_everybody() -> None:
    async def scenario(here: Desk) -> None:
        here.ready = False
        ringing = here.invited(call_id="two@test")
        here.ready = True
        talking, line = here.talking()
        here.switchboard.close()
        assert here.stack.commands("refuse") == [("refuse", ringing, 503, {"Retry-After": "30"})]
        assert here.stack.commands("hang_up") == [("hang_up", talking)]
        await here.desk.close()
        assert line.closed
        assert here.desk.dialogs == 0

    run(scenario)


@pytest.mark.parametrize("where", ["attend", "begin"])
def test_a_bug_in_one_call_ends_it_and_no_other(where: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(here: Desk) -> None:
        here.talking()
        here.breaks = where
        handle, _ = here.talking(call_id="two@test")
        assert here.stack.told[-1] == ("hang_up", handle)
        here.stack.over(handle, by_us=True)
        assert here.ends() == [("error", "")]
        assert here.switchboard.live_calls == 1

    run(scenario)
    assert "a bug" in caplog.text


# --- a call of ours ---


def test_a_call_of_ours_rings_is_answered_and_attended() -> None:
    async def scenario(here: Desk) -> None:
        handle = here.dialled(attributes={"campaign": "spring", "note": "stays here"})
        (told,) = here.stack.commands("dial")
        assert told[1:] == (
            handle,
            "carrier",
            "sip:+14155550177@sip.example.com",
            "sip:+14155550199@sip.example.com",
            {"X-Campaign": "spring"},
        )
        here.stack.happens(s.Progress(handle, 180, "Ringing"), s.Progress(handle, 180, "Ringing"))
        here.confirmed(handle)
        here.stack.happens(s.FirstMedia(handle))
        assert here.agent_now.call.direction == "outbound"
        assert here.agent_now.call.attributes["campaign"] == "spring"
        here.stack.over(handle)
        assert here.ends() == [("caller_hung_up", "")]

    here = run(scenario)
    assert here.kinds()[:6] == ["attributes", "dialling", "attempt", "progress", "sip_audio", "answered"]
    assert (here.started.direction, here.started.from_number, here.started.to_number) == (
        "outbound",
        "+14155550199",
        CALLEE,
    )
    assert here.asked[0].door == "dial"


def test_early_media_is_recorded_and_the_agent_speaks_only_after_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten: list[Bus] = []
    monkeypatch.setattr(Bus, "forget_speech", lambda bus: forgotten.append(bus))

    async def scenario(here: Desk) -> None:
        handle = here.dialled()
        line = FakeLine()
        here.stack.happens(s.Progress(handle, 183, "Session Progress"))
        here.stack.media(handle, line)
        here.stack.happens(s.FirstMedia(handle))
        line.tick(10)
        assert len(here.taps) == 1
        assert here.attendants == []
        here.stack.happens(s.Confirmed(handle))
        assert here.agent_now.bus.stats.received_frames == 10
        assert forgotten == [here.agent_now.bus]  # what the announcement said is no caller's word
        assert len(here.taps) == 1

    here = run(scenario)
    assert here.kinds()[:6] == ["dialling", "attempt", "progress", "sip_audio", "early_media", "answered"]


def test_early_media_of_a_call_that_is_never_answered_leaves_nothing_open() -> None:
    async def scenario(here: Desk) -> None:
        handle = here.dialled()
        here.stack.media(handle, FakeLine())
        here.stack.happens(s.FirstMedia(handle))
        here.stack.over(handle, 486, "Busy Here")
        assert here.ends() == [("busy", "busy (SIP 486)")]
        assert [e.provider_code for e in here.records if isinstance(e, CallEnded)] == ["sip:486"]
        assert here.free_slots() == here.ears.capacity
        assert not [e for e in here.records if isinstance(e, UsageMetered)]

    run(scenario)


@pytest.mark.parametrize(
    ("code", "reason"),
    [(486, "busy"), (480, "no_answer"), (404, "failed"), (603, "rejected"), (503, "failed"), (0, "failed")],
)
def test_why_nobody_answered_is_told_by_the_final_answer(code: int, reason: str) -> None:
    async def scenario(here: Desk) -> None:
        here.stack.over(here.dialled(), code, "")
        assert [end for end, _ in here.ends()] == [reason]

    run(scenario)


def test_a_trunk_that_could_not_be_reached_is_told_in_the_stacks_words() -> None:
    async def scenario(here: Desk) -> None:
        handle = here.dialled()
        here.stack.happens(s.Disconnected(handle, 503, "SSL certificate verification error", by_us=False))
        assert here.ends() == [("failed", "the trunk cannot be reached: SSL certificate verification error")]

    run(scenario)


def test_the_cause_a_telephone_exchange_gave_says_more_than_the_status() -> None:
    async def scenario(here: Desk) -> None:
        here.stack.over(here.dialled(), 503, "Service Unavailable", head="Reason: Q.850;cause=17\r\n")
        assert here.ends() == [("busy", "busy (SIP 503, Q.850 17)")]

    run(scenario)


def test_a_far_end_that_rings_too_long_is_left() -> None:
    async def scenario(here: Desk) -> None:
        handle = here.dialled(ring_timeout_s=20)
        here.stack.happens(s.Progress(handle, 180, "Ringing"))
        await asyncio.sleep(20.1)
        assert here.stack.told[-1] == ("hang_up", handle)
        assert here.ends() == [("no_answer", "it rang too long")]
        here.stack.over(handle, 487, "Request Terminated", by_us=True)
        assert len(here.ends()) == 1

    run(scenario)


def test_an_answer_that_crosses_our_cancel_is_hung_up() -> None:
    async def scenario(here: Desk) -> None:
        handle = here.dialled(ring_timeout_s=20)
        await asyncio.sleep(20.1)
        line = here.confirmed(handle)
        assert here.stack.commands("hang_up") == [("hang_up", handle)] * 2
        here.stack.happens(s.FirstMedia(handle))
        here.stack.over(handle, by_us=True)
        assert (here.attendants, line.closed) == ([], True)
        assert [end for end, _ in here.ends()] == ["no_answer"]

    run(scenario)


def test_ringing_does_not_count_against_the_calls_limit() -> None:
    async def scenario(here: Desk) -> None:
        handle = here.dialled(ring_timeout_s=100)
        await asyncio.sleep(90)
        here.confirmed(handle)
        await asyncio.sleep(MAX_CALL_S - 1)
        assert here.agent_now.goodbyes == 0
        await asyncio.sleep(3)
        assert here.agent_now.goodbyes == 1

    run(scenario)


def test_an_answer_without_audio_ends() -> None:
    async def scenario(here: Desk) -> None:
        handle = here.dialled()
        here.stack.happens(s.Confirmed(handle))
        await asyncio.sleep(FIRST_MEDIA_S + 0.1)
        assert here.stack.told[-1] == ("hang_up", handle)
        assert here.ends() == [("failed", "no audio was negotiated")]

    run(scenario)


def test_only_what_may_be_dialled_is_and_the_record_says_why_not() -> None:
    async def scenario(here: Desk) -> None:
        here.refusing["dial"] = Refuse("outbound_closed", "no country is open")
        assert here.not_dialled() == "outbound_closed"
        here.refusing.clear()
        assert here.not_dialled(trunk="other") == "no_trunk"
        assert here.not_dialled(attributes={"campaign": "a\r\nb"}) == "bad_attribute"
        here.switchboard.draining = True
        assert here.not_dialled() == "draining"
        assert here.ends() == [
            ("refused", "outbound_closed"),
            ("failed", "no_trunk"),
            ("failed", "bad_attribute"),
            ("overloaded", "draining"),
        ]
        assert here.stack.commands("dial") == []
        assert here.switchboard.live_calls == 0

    run(scenario)


def test_the_cheapest_trunk_is_dialled_as_its_profile_wants() -> None:
    dear = replace(CARRIER, name="dear", cost_per_minute={"*": Decimal("0.02")})
    cheap = replace(
        CARRIER, name="cheap", peers=(), profile="strict", cost_per_minute={"*": Decimal("0.02"), "+1": Decimal("0.01")}
    )

    async def scenario(here: Desk) -> None:
        assert [route.trunk for route in here.desk.routes(DialOrder(CALLEE))] == ["carrier", "dear", "cheap"]
        here.dialled()
        command = here.stack.commands("dial")[-1]
        assert command[2:5] == (
            "cheap",
            "sip:+14155550177@sip.example.com;user=phone",
            "sip:+14155550199@sip.example.com;user=phone",
        )
        assert command[5] == {"P-Asserted-Identity": "<sip:+14155550199@sip.example.com;user=phone>"}
        here.dialled(trunk="dear")
        assert here.stack.commands("dial")[-1][2] == "dear"

    run(scenario, CARRIER, dear, cheap)


def test_a_gateway_without_sip_dials_nothing() -> None:
    async def scenario(here: Desk) -> None:
        await here.desk.close()
        assert here.not_dialled() == "no_trunk"
        assert here.records == []

    run(scenario)


def test_a_stack_that_cannot_dial_ends_that_call(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(here: Desk) -> None:
        def broken(*_: Any) -> Handle:
            raise RuntimeError("a bug")

        monkeypatch.setattr(here.stack, "dial", broken)
        assert here.not_dialled() == "error"
        assert here.ends() == [("error", "")]

    monkeypatch.setattr(linecall.log, "disabled", True)
    run(scenario)


# --- digits ---


@pytest.mark.parametrize(
    ("trunk", "events", "sent"),
    [
        (CARRIER, True, [("12", "rfc4733"), ("#", "rfc4733")]),
        (CARRIER, False, []),
        (replace(CARRIER, dtmf="info"), False, [("12", "info"), ("#", "info")]),
        (replace(CARRIER, dtmf="inband"), True, []),
    ],
)
def test_digits_are_sent_as_the_trunk_takes_them_or_left_to_the_agent(
    trunk: Trunk, events: bool, sent: list[tuple[str, str]]
) -> None:
    async def scenario(here: Desk) -> None:
        handle = here.invited()
        here.confirmed(handle, telephone_events=events)
        here.stack.happens(s.FirstMedia(handle))
        control = here.agent_now.control
        assert control.sends_dtmf == bool(sent)
        control.send_dtmf("12w#")
        await asyncio.sleep(0.9)
        assert len(here.stack.commands("digits")) == len(sent[:1])
        await asyncio.sleep(0.2)
        assert [told[2:] for told in here.stack.commands("digits")] == sent
        assert here.events("dtmf_sent") == [{"count": 4}]

    run(scenario, trunk)


# --- nothing is kept ---


def test_nothing_is_kept_of_a_thousand_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linecall.log, "disabled", True)
    kept: list[weakref.ref[Any]] = []

    async def scenario(here: Desk) -> None:
        ways: list[Callable[[Handle], None]] = [
            lambda handle: None,
            lambda handle: here.agent_now.control.hang_up("agent_hung_up"),
            lambda handle: here.stack.happens(s.LimitReached(handle)),
            lambda handle: here.line_of(CallId(here.started.call_id)).crashed(RuntimeError("a bug")),
        ]
        for number in range(1000):
            if number % 2:
                handle, line = here.talking(call_id=f"{number}@test")
            else:
                handle = here.dialled()
                line = here.confirmed(handle)
                here.stack.happens(s.FirstMedia(handle))
            kept.extend((weakref.ref(here.agent_now.bus), weakref.ref(here.agent_now.control), weakref.ref(line)))
            ways[number // 2 % 4](handle)
            here.stack.over(handle)
            here.attendants.clear()
            here.records.clear()
            here.asked.clear()
            here.stack.told.clear()
        del line
        assert here.desk.dialogs == 0
        assert here.switchboard.live_calls == 0
        assert here.stack.steps == {}
        assert here.free_slots() == here.ears.capacity
        await asyncio.sleep(60)
        gc.collect()
        assert [ref for ref in kept if ref() is not None] == []

    run(scenario)


# --- a call whose number has a route ---


def test_a_number_that_answers_is_told_to_the_carrier() -> None:
    async def scenario(here: Desk) -> None:
        desk = RoutedDesk(here)
        await desk.directory.look()
        await desk.put(*main(ByNumber(kind="number", number=CALLEE)))
        handle = here.invited(to=f"sip:{OURS}@192.0.2.1")
        await asyncio.sleep(0.01)
        (refused,) = here.stack.commands("refuse")
        assert refused[:3] == ("refuse", handle, 302)
        assert refused[3] == {"Contact": f"<sip:{CALLEE}@sip.example.com>"}
        await desk.put(*main(ByBusy(kind="busy")))
        busy = here.invited(to=f"sip:{OURS}@192.0.2.1", call_id="b@test")
        await asyncio.sleep(0.01)
        assert here.stack.commands("refuse")[-1] == ("refuse", busy, 486, {})

    run(scenario)


def test_a_routed_agent_answers_once_it_is_ready() -> None:
    async def scenario(here: Desk) -> None:
        desk = RoutedDesk(here)
        await desk.directory.look()
        await desk.put(*main())
        here.invited(to=f"sip:{OURS}@192.0.2.1")
        await asyncio.sleep(0.01)
        assert (here.started.tenant, here.started.agent) == ("acme", "acme/reception@1")
        assert here.stack.commands("answer")

    run(scenario)
