"""Callers and targets over Twilio: held, briefed for, joined, given up, by the same machinery as those on SIP."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from starlette.datastructures import ImmutableMultiDict

from tests.fakes.twilio_exchange import MEDIA_TIMEOUT_S, SILENCE, TERMS, Exchange, Far, tags
from trunkline.agents.definition import TransferTerms
from trunkline.gateway.dialling import DialOrder
from trunkline.gateway.hands import Hands
from trunkline.gateway.party import Invitation
from trunkline.gateway.succession import BACK, FAILED_AS, RESUMED, TRANSFER_FAILED
from trunkline.gateway.twilio.account import NotTaken, Unknown
from trunkline.gateway.twilio.dialler import Terms
from trunkline.media.members import Supervision
from trunkline.media.music import hold_music
from trunkline.ports import Allow, CallStarted, Expectation, Message, Refuse, SttEvent, TtsAudio
from trunkline.testing.board import DEFINITION, play, sid
from trunkline.types import E164

VOICE, ANSWER, COACH = b"\x20" * 160, b"\x21" * 160, b"\x22" * 160
RING_S = 30.0


def run(scenario: Callable[[Exchange], Coroutine[Any, Any, None]], terms: Terms = TERMS) -> Exchange:
    async def whole(here: Exchange) -> None:
        try:
            await scenario(here)
        finally:
            here.switchboard.close()
            await here.sockets.close()
            await here.dialler.close()
        assert here.free_slots() == here.ears.capacity
        assert not here.heartbeat._speaking

    return play(Exchange(terms), whole)


def hear(far: Far) -> bytes:
    """What it hears but silence."""
    frames = [far.heard[at : at + 160] for at in range(0, len(far.heard), 160)]
    return b"".join(frame for frame in frames if frame != SILENCE)


async def bridged(here: Exchange) -> tuple[Far, Far]:
    """Caller and target, joined."""
    caller = here.rings()
    here.beat((caller, SILENCE), times=5)
    assert here.control.send_to("desk", "bridged") is None
    await here.ordered()
    return caller, here.answers()


# --- on hold ---


def test_a_stream_has_hands_and_refers_nobody() -> None:
    async def scenario(here: Exchange) -> None:
        leg = here.rings().leg
        assert isinstance(leg, Hands)
        refused = [leg.put_through("+14155550100", lambda *a, **k: None), leg.put_through_to(leg, lambda *a, **k: None)]
        assert [r.code for r in refused if isinstance(r, Refuse)] == ["not_supported"] * 2

    run(scenario)


def test_a_caller_on_hold_hears_music_from_the_next_frame_on_and_then_the_agent() -> None:
    async def scenario(here: Exchange) -> None:
        caller = here.rings()
        bus = here.agent_now.bus
        bus.begin()
        bus.append(ANSWER * 100, (), 0)
        here.beat((caller, SILENCE), times=20)
        here.agent_now.conversation.append(Message("caller", "one moment"))
        bus.cut()
        assert here.control.hold() is None
        caller.forget()
        here.beat((caller, VOICE), times=100)
        music = hold_music().play()
        assert hear(caller).startswith(b"".join(music.frame() for _ in range(95)))
        assert ANSWER not in caller.heard
        assert caller.carrier.heard.count(SILENCE) < 3, "nothing but music"
        heard = bus.stats.received_frames
        assert here.control.resume() is None
        assert here.agent_now.greeting == BACK
        assert [m.text for m in here.agent_now.conversation] == ["one moment"]
        here.agent_now.bus.begin()
        here.agent_now.bus.append(ANSWER * 10, (), 0)
        caller.forget()
        here.beat((caller, VOICE), times=20)
        assert hear(caller) == ANSWER * 10, "the music is gone at once"
        assert (bus.stats.received_frames, bus.stats.lost_ms) == (heard + 20, 0)
        caller.hangs_up()
        assert here.ends() == [("caller_hung_up", "")]

    run(scenario)


@pytest.mark.parametrize("how", ["stop", "status"])
def test_a_caller_on_hold_may_hang_up(how: str) -> None:
    async def scenario(here: Exchange) -> None:
        caller = here.rings()
        here.control.hold()
        if how == "stop":
            caller.hangs_up()
        else:
            here.switchboard.status(sid(9), "completed", 3)
        assert here.ends() == [("caller_hung_up", "")]

    run(scenario)


@pytest.mark.parametrize("how", ["socket", "silence"])
def test_a_caller_on_hold_who_is_lost_comes_back_to_the_conversation(how: str) -> None:
    async def scenario(here: Exchange) -> None:
        caller = here.rings()
        here.agent_now.conversation.append(Message("caller", "my invoice"))
        here.beat((caller, VOICE))
        here.control.hold()
        if how == "socket":
            caller.vanishes()
        await asyncio.sleep(MEDIA_TIMEOUT_S + 0.5)
        assert here.ends()[0][0] == "media_lost"
        again = here.asks("/twilio/continue?n=0", sid(9))
        here.stream(again, sid(9))
        assert here.agent_now.greeting == RESUMED
        assert [m.text for m in here.agent_now.conversation] == ["my invoice"]

    run(scenario)


def test_a_caller_on_hold_can_be_hung_up_on() -> None:
    async def scenario(here: Exchange) -> None:
        caller = here.rings()
        here.control.hold()
        here.switchboard.hang_up(here.control.id)
        assert caller.is_left
        assert tags(here.asks("/twilio/continue?n=0", sid(9))) == ["Hangup"]
        here.beat((caller, SILENCE))  # the goodbye is answered
        await asyncio.sleep(0.1)
        assert here.ends()[0][0] == "agent_hung_up"

    run(scenario)


# --- put through ---


def test_by_itself_a_twilio_caller_is_dialled_for_by_twilio() -> None:
    async def scenario(here: Exchange) -> None:
        caller = here.rings()
        here.transfer()
        assert caller.is_left
        document = here.asks("/twilio/continue?n=0", sid(9))
        assert (tags(document), document[0][0].text) == (["Dial"], "+14155550100")
        assert here.account.orders == []

    run(scenario)


def test_a_caller_who_wants_somebody_else_after_all_is_put_through_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offered the desk, which we would call and brief, they interrupt and ask for the nurse, whom Twilio dials."""
    definition = replace(
        DEFINITION,
        targets={"desk": "+14155550100", "nurse": "+14155550101"},
        terms={"desk": TransferTerms(kind="warm")},
    )

    async def scenario(here: Exchange) -> None:
        monkeypatch.setattr(here.agent, "definition", definition)
        here.rings()
        assert isinstance(here.control.transfer("desk"), Allow)
        assert isinstance(here.control.transfer("nurse"), Allow)
        here.control.hang_up("transferred")
        document = here.asks("/twilio/continue?n=0", sid(9))
        assert (tags(document), document[0][0].text) == (["Dial"], "+14155550101")
        assert here.account.orders == []

    run(scenario)


def test_caller_and_target_hear_each_other_and_both_are_metered() -> None:
    async def scenario(here: Exchange) -> None:
        caller, target = await bridged(here)
        assert here.agent_now.closes == 1
        here.beat((caller, VOICE), (target, ANSWER), times=5)
        caller.forget()
        target.forget()
        here.beat((caller, VOICE), (target, ANSWER), times=50)
        assert set(caller.carrier.heard[2:]) == {ANSWER}
        assert set(target.carrier.heard[2:]) == {VOICE}
        target.hangs_up()
        assert caller.is_left
        assert tags(here.asks("/twilio/continue?n=0", sid(9))) == ["Hangup"]
        here.tells("completed", CallDuration="1")
        here.switchboard.status(sid(9), "completed", 3)
        assert here.ends() == [("transferred", "")]

    here = run(scenario)
    assert here.results == [("bridged", "transferred")]
    assert [provider for provider, _ in here.leg_seconds()] == ["twilio", "twilio"]
    assert here.leg_seconds()[0][1] == pytest.approx(1.1, abs=0.1)
    assert here.account.ended == [], "who has hung up is not hung up on"
    legs = {e["leg"] for kind in ("leg_dialled", "leg_named", "joined", "leg_ended") for e in here.events(kind)}
    assert len(legs) == 1
    (order,) = here.account.orders
    assert (order.to_number, order.ring_s) == ("+14155550100", RING_S + 5)


def test_a_caller_who_hangs_up_ends_the_targets_leg_over_rest_too() -> None:
    async def scenario(here: Exchange) -> None:
        caller, target = await bridged(here)
        here.account.end_answers = [Unknown("stalled")]
        caller.hangs_up()
        assert target.is_left
        assert tags(here.asks(f"/twilio/continue?order={here.token()}", sid(1))) == ["Hangup"]
        await asyncio.sleep(3)
        assert here.account.ended == [sid(1)] * 2, "until Twilio has heard it"
        assert here.ends() == [("transferred", "")]

    run(scenario)


def test_a_caller_who_hangs_up_while_it_rings_cancels_it_and_an_answer_that_crosses_is_hung_up_on() -> None:
    async def scenario(here: Exchange) -> None:
        caller = here.rings()
        here.control.send_to("desk", "bridged")
        await here.ordered()
        here.tells("ringing")
        caller.hangs_up()
        assert tags(here.picked_up()) == ["Hangup"]
        here.tells("completed")
        await asyncio.sleep(1)
        assert here.account.ended == [sid(1)]
        assert here.ends() == [("caller_hung_up", "")]

    here = run(scenario)
    assert here.results == [("bridged", "caller_left")]
    assert here.events("joined") == []


def test_an_answer_whose_stream_comes_too_late_is_let_in_nowhere() -> None:
    async def scenario(here: Exchange) -> None:
        caller = here.rings()
        here.control.send_to("desk", "bridged")
        await here.ordered()
        document = here.picked_up()
        caller.hangs_up()
        target = here.stream(document, sid(1))
        assert target.is_left
        await asyncio.sleep(1)
        assert here.account.ended == [sid(1)]

    run(scenario)


@pytest.mark.parametrize(
    ("status", "codes", "reason"),
    [
        ("busy", {"SipResponseCode": "486"}, "busy"),
        ("no-answer", {}, "no_answer"),
        ("failed", {"SipResponseCode": "404", "ErrorCode": "13224"}, "failed"),
        ("failed", {"ErrorCode": "13227"}, "rejected"),
    ],
)
def test_a_target_that_does_not_answer_brings_the_caller_back_to_an_agent_who_knows_why(
    status: Any, codes: dict[str, str], reason: str
) -> None:
    async def scenario(here: Exchange) -> None:
        caller = here.rings()
        here.agent_now.conversation.append(Message("caller", "my invoice"))
        assert here.control.send_to("desk", "bridged") is None
        await here.ordered()
        here.tells("ringing")
        here.tells(status, 0, **codes)
        assert here.agent_now.greeting == FAILED_AS.get(reason, TRANSFER_FAILED)
        assert here.agent_now.call.attributes["transfer_failed"] == reason
        assert [m.text for m in here.agent_now.conversation] == ["my invoice"]
        caller.hangs_up()

    here = run(scenario)
    assert here.results == [("bridged", reason)]
    attempt = here.events("transfer_attempt")[0]
    assert attempt["sip_status"] == (int(codes["SipResponseCode"]) if "SipResponseCode" in codes else None)
    assert (attempt["trunk"], attempt["ringing_ms"] is not None) == ("twilio", True)
    assert here.account.ended == []
    assert len(here.leg_seconds()) == 1, "who has not answered costs nothing"


@pytest.mark.parametrize("refusal", [NotTaken(401, 20003, "no"), NotTaken(400, 21211, "no such number")])
def test_an_order_that_is_refused_brings_the_caller_back(refusal: NotTaken) -> None:
    async def scenario(here: Exchange) -> None:
        here.rings()
        here.account.answers = [refusal]
        here.control.send_to("desk", "warm")
        await here.ordered()
        assert here.agent_now.greeting == TRANSFER_FAILED

    assert run(scenario).results == [("warm", "failed")]


def test_a_target_that_rings_too_long_is_ended_over_rest_and_an_answer_then_is_hung_up_on() -> None:
    async def scenario(here: Exchange) -> None:
        caller = here.rings()
        here.control.send_to("desk", "bridged")
        await here.ordered()
        for _ in range(int(RING_S * 10) + 1):
            here.beat((caller, SILENCE))
            await asyncio.sleep(0.08)
        assert here.agent_now.greeting == FAILED_AS["no_answer"]
        assert here.account.ended == [sid(1)]
        assert tags(here.picked_up()) == ["Hangup"]
        assert here.ends() == []

    assert run(scenario).results == [("bridged", "no_answer")]


@pytest.mark.parametrize("answered", [False, True])
def test_what_twilio_has_hung_up_for_us_is_over_though_its_callback_is_lost(answered: bool) -> None:
    async def scenario(here: Exchange) -> None:
        here.rings()
        here.control.party.invite(Invitation(DialOrder(E164("+14155550177"))))
        await here.ordered()
        if answered:
            here.answers()
        (other,) = here.control.party.views()
        here.account.end_answers = [Unknown("stalled")]
        assert here.control.party.dismiss(other.id) is None
        await asyncio.sleep(1)
        assert len(here.control.party.views()) == 1
        await asyncio.sleep(2.5)
        assert here.control.party.views() == []
        here.tells("completed")
        assert here.account.ended == [sid(1)] * 2

    here = run(scenario)
    assert here.kinds().count("left") + here.kinds().count("leg_failed") == 1


def test_a_lost_answer_of_the_api_is_not_ordered_again() -> None:
    async def scenario(here: Exchange) -> None:
        caller = here.rings()
        here.account.answers = [Unknown("stalled")]
        here.control.send_to("desk", "bridged")
        await here.ordered()
        here.tells("ringing")
        target = here.answers()
        here.beat((caller, VOICE), (target, ANSWER), times=5)
        assert here.events("joined")
        assert len(here.account.orders) == 1
        assert here.account.looked <= 1

    run(scenario)


def test_an_order_that_was_called_off_before_it_was_sent_again_is_surely_over() -> None:
    async def scenario(here: Exchange) -> None:
        here.rings()
        here.account.answers = [NotTaken(429, 20429, "slow down", 2.0)]
        here.control.send_to("desk", "bridged")
        await here.ordered()
        here.control.take_back()
        (second,) = here.control._handover._seconds.values()
        assert not second.over
        await asyncio.sleep(2.5)
        assert second.over
        assert len(here.account.orders) == 1
        assert here.account.ended == []

    run(scenario)


def test_what_twilio_may_have_dialled_is_hung_up_when_it_turns_up_and_the_caller_is_with_the_agent() -> None:
    async def scenario(here: Exchange) -> None:
        caller = here.rings()
        here.account.answers = [Unknown("stalled")]
        here.control.send_to("desk", "bridged")
        for _ in range(int(RING_S * 10) + 20):
            here.beat((caller, SILENCE))
            await asyncio.sleep(0.08)
        assert here.agent_now.greeting == FAILED_AS["no_answer"]
        assert len(here.account.orders) == 1
        assert tags(here.picked_up()) == ["Hangup"]
        await here.ordered()
        assert here.account.ended == [sid(1)]

    run(scenario)


@pytest.mark.parametrize("when", ["ringing", "joined"])
def test_a_machine_at_the_target_brings_the_caller_back(when: str) -> None:
    async def scenario(here: Exchange) -> None:
        caller = here.rings()
        here.control.send_to("desk", "bridged")
        await here.ordered()
        if when == "joined":
            target = here.answers()
            here.guesses("human")
            here.beat((caller, VOICE), (target, ANSWER), times=3)
            assert here.events("joined")
        here.guesses("machine_start")
        await asyncio.sleep(0.5)
        assert here.account.ended == [sid(1)]
        assert here.ends() == []
        assert here.agent_now.greeting == FAILED_AS["voicemail"]

    here = run(scenario, replace(TERMS, machine_detection="Enable"))
    assert here.account.orders[0].machine_detection == "Enable"
    assert [e["who"] for e in here.events("answered_by")][-1] == "machine_start"


@pytest.mark.parametrize("how", ["socket", "silence"])
def test_a_target_that_is_lost_is_hung_up_and_the_caller_comes_back(how: str) -> None:
    async def scenario(here: Exchange) -> None:
        caller, target = await bridged(here)
        here.beat((caller, VOICE), (target, ANSWER), times=5)
        if how == "socket":
            target.vanishes()
        for _ in range(40):
            here.beat((caller, VOICE))
            await asyncio.sleep(0.08)
        assert here.agent_now.greeting == FAILED_AS["target_lost"]
        assert here.account.ended == [sid(1)]
        assert tags(here.asks(f"/twilio/continue?order={here.token()}", sid(1))) == ["Hangup"]
        assert here.ends() == []

    run(scenario)


@pytest.mark.parametrize("how", ["socket", "silence"])
def test_a_caller_who_is_lost_ends_the_targets_leg_and_may_come_back_to_the_agent(how: str) -> None:
    async def scenario(here: Exchange) -> None:
        caller, target = await bridged(here)
        here.beat((caller, VOICE), (target, ANSWER), times=5)
        if how == "socket":
            caller.vanishes()
        for _ in range(40):
            here.beat((target, ANSWER))
            await asyncio.sleep(0.08)
        assert here.account.ended == [sid(1)]
        assert here.ends()[0][0] == "media_lost"
        here.stream(here.asks("/twilio/continue?n=0", sid(9)), sid(9))
        assert here.agent_now.greeting == RESUMED

    run(scenario)


def test_a_stream_that_comes_while_the_old_one_seems_well_is_with_the_agent_again() -> None:
    async def scenario(here: Exchange) -> None:
        caller, target = await bridged(here)
        here.agent_now.conversation.append(Message("caller", "x"))
        again = here.stream(here.asks("/twilio/continue?n=0", sid(9)), sid(9))
        assert (caller.is_left, target.is_left, again.is_left) == (True, True, False)
        await asyncio.sleep(0.5)
        assert here.account.ended == [sid(1)]
        assert here.agent_now.greeting == RESUMED
        here.beat((again, VOICE))
        assert here.agent_now.bus.stats.received_frames == 1
        assert here.ends() == []

    assert run(scenario).results == [("bridged", "transferred")]


def test_a_stream_that_comes_while_the_old_one_is_on_hold_is_with_the_agent_again() -> None:
    async def scenario(here: Exchange) -> None:
        caller = here.rings()
        here.control.hold()
        again = here.stream(here.asks("/twilio/continue?n=0", sid(9)), sid(9))
        assert (caller.is_left, again.is_left) == (True, False)
        assert here.agent_now.greeting == RESUMED
        assert here.control.resume().code == "not_now"
        here.beat((again, VOICE))
        assert here.agent_now.bus.stats.received_frames == 1

    run(scenario)


def test_an_answered_target_whose_stream_never_comes_was_lost_and_costs_what_it_lasted() -> None:
    async def scenario(here: Exchange) -> None:
        caller = here.rings()
        here.control.send_to("desk", "bridged")
        await here.ordered()
        here.tells("in-progress")
        here.picked_up()
        here.beat((caller, SILENCE), times=100)
        assert tags(here.asks(f"/twilio/continue?order={here.token()}", sid(1))) == ["Hangup"]
        here.tells("completed", CallDuration="2")
        assert here.agent_now.greeting == FAILED_AS["target_lost"]
        ((provider, seconds),) = here.leg_seconds()
        assert provider == "twilio"
        assert seconds == pytest.approx(2.0, abs=0.05)
        assert here.account.ended == []

    assert run(scenario).results == [("bridged", "target_lost")]


def test_a_second_stream_of_a_target_is_let_in_nowhere() -> None:
    async def scenario(here: Exchange) -> None:
        caller, target = await bridged(here)
        assert here.answers().is_left
        here.beat((caller, VOICE), (target, ANSWER), times=5)
        target.forget()
        here.beat((caller, VOICE), (target, ANSWER), times=5)
        assert VOICE in target.heard

    run(scenario)


def test_the_second_legs_stream_and_progress_are_in_the_record_by_its_name() -> None:
    async def scenario(here: Exchange) -> None:
        await bridged(here)
        here.tells("ringing")
        form = {"CallSid": sid(1), "StreamSid": "MZ" + "0" * 32, "StreamEvent": "stream-started"}
        here.webhooks.stream_status(ImmutableMultiDict(form), {"order": here.token()}, here.clock.now())

    here = run(scenario)
    (name,) = {e["leg"] for e in here.events("leg_dialled")}
    for kind in ("leg_named", "carrier_status", "ringing", "stream_status"):
        assert [e["leg"] for e in here.events(kind)] == [name], kind
    (started,) = [event for event in here.records if isinstance(event, CallStarted)]
    assert started.provider_call_id == sid(9), "the call's own name stays"


def test_an_operator_gives_a_transfer_up() -> None:
    async def scenario(here: Exchange) -> None:
        here.rings()
        assert here.control.send_to("desk", "bridged") is None
        await here.ordered()
        assert here.control.take_back() is None
        await asyncio.sleep(0.5)
        assert here.account.ended == [sid(1)]
        assert here.agent_now.greeting == FAILED_AS["cancelled"]

    assert run(scenario).results == [("bridged", "cancelled")]


def test_mute_hold_and_resume_of_a_caller_who_was_put_through() -> None:
    async def scenario(here: Exchange) -> None:
        caller, target = await bridged(here)

        def caller_is_heard() -> bool:
            here.beat((caller, VOICE), (target, SILENCE), times=20)
            target.forget()
            here.beat((caller, VOICE), (target, SILENCE), times=10)
            return VOICE in target.heard

        assert caller_is_heard()
        assert here.control.mute(True) is None
        assert not caller_is_heard()
        assert here.control.mute(False) is None
        assert here.control.hold() is None
        assert not caller_is_heard()
        assert here.control.resume() is None
        assert caller_is_heard()

    run(scenario)


def test_hanging_up_ends_both() -> None:
    async def scenario(here: Exchange) -> None:
        caller, target = await bridged(here)
        here.switchboard.hang_up(here.control.id)
        assert (caller.is_left, target.is_left) == (True, True)
        await asyncio.sleep(0.5)
        assert here.account.ended == [sid(1)]

    run(scenario)


def test_a_target_without_a_number_is_not_dialled_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(here: Exchange) -> None:
        here.rings()
        monkeypatch.setitem(here.agent.definition.targets, "pbx", "sip:reception@pbx.example.com")
        refused = here.control.transfer("pbx")
        assert isinstance(refused, Refuse)
        assert refused.code == "no_number"

    run(scenario)


# --- warm and attended ---


class Ears:
    def __init__(self) -> None:
        self.closed = False

    def feed(self, audio: bytes) -> None: ...

    def began(self, ago_ms: int) -> None: ...

    def expect(self, expectation: Expectation) -> None: ...

    def finalize(self) -> None: ...

    def close(self) -> None:
        self.closed = True


async def briefed(here: Exchange, kind: str) -> tuple[Far, Far]:
    """Caller and a representative who has heard the summary."""
    caller = here.rings()

    def open_ears(call: Any, format: Any, on_event: Callable[[SttEvent], None]) -> Ears:
        return Ears()

    async def speak(text: str, format: Any) -> Any:
        yield TtsAudio(ANSWER * 10)

    here.mind.feed_mode, here.mind.open, here.mind.speak = "gated", open_ears, speak
    assert here.control.send_to("desk", kind, "An invoice.") is None
    await here.ordered()
    target = here.answers()
    await asyncio.sleep(0.001)
    caller.forget()
    for _ in range(20):
        here.beat((caller, VOICE), (target, SILENCE))
        await asyncio.sleep(0)
    assert hear(target) == ANSWER * 10, "the briefing, and not the caller"
    assert ANSWER not in caller.heard
    assert hear(caller).startswith(hold_music().audio[:160])
    return caller, target


@pytest.mark.parametrize("kind", ["warm", "attended"])
def test_a_representative_is_briefed_alone_and_takes_the_call(kind: str) -> None:
    async def scenario(here: Exchange) -> None:
        caller, target = await briefed(here, kind)
        target.presses("1")
        here.beat((caller, VOICE), (target, ANSWER), times=30)
        caller.forget()
        target.forget()
        here.beat((caller, VOICE), (target, ANSWER), times=50)
        assert set(caller.carrier.heard) == {ANSWER}
        assert set(target.carrier.heard) == {VOICE}
        caller.hangs_up()

    here = run(scenario)
    assert here.results == [(kind, "transferred")]
    assert here.ends() == [("transferred", "")]


@pytest.mark.parametrize("how", ["key", "hangs up"])
def test_a_representative_who_declines_is_left_and_the_caller_comes_back(how: str) -> None:
    async def scenario(here: Exchange) -> None:
        _, target = await briefed(here, "warm")
        if how == "key":
            target.presses("2")
            assert target.is_left
        else:
            target.hangs_up()
        assert here.agent_now.greeting == FAILED_AS["declined"]

    assert run(scenario).results == [("warm", "declined")]


# --- others who join ---


async def supervised(here: Exchange, caller: Far, supervision: Supervision = "listen") -> Far:
    asked = Invitation(DialOrder(E164("+14155550177"), ring_timeout_s=20), "supervisor", supervision)
    assert not isinstance(here.control.party.invite(asked), Refuse)
    await here.ordered()
    supervisor = here.answers()
    here.beat((caller, SILENCE), (supervisor, SILENCE), times=3)
    return supervisor


def test_a_supervisor_over_twilio_hears_a_twilio_caller_and_the_agent_and_is_heard_by_nobody() -> None:
    async def scenario(here: Exchange) -> None:
        caller = here.rings()
        here.beat((caller, SILENCE), times=3)
        supervisor = await supervised(here, caller)
        received = here.agent_now.bus.stats.received_frames
        here.beat((caller, VOICE), (supervisor, COACH), times=10)
        assert supervisor.heard.count(VOICE) >= 8
        assert here.agent_now.bus.stats.received_frames >= received + 9
        here.beat((caller, SILENCE), (supervisor, COACH), times=3)
        caller.forget()
        supervisor.forget()
        here.agent_now.bus.begin()
        here.agent_now.bus.append(ANSWER * 10, (), 0)
        here.beat((caller, SILENCE), (supervisor, COACH), times=15)
        assert hear(supervisor) == hear(caller) == ANSWER * 10
        supervisor.hangs_up()
        assert here.control.party.room is None
        assert here.ends() == []
        here.beat((caller, VOICE))

    here = run(scenario)
    assert here.account.ended == []
    assert [provider for provider, _ in here.leg_seconds()] == ["twilio", "twilio"]


def test_the_agent_goes_on_when_a_supervisor_comes_and_goes() -> None:
    """Nothing is lost; as a clear and marks do not tell to the frame, a moment may be said again."""

    async def scenario(here: Exchange) -> None:
        caller = here.rings()
        here.beat((caller, SILENCE), times=3)
        bus = here.agent_now.bus
        bus.begin()
        said = [bytes([0x30 + n]) * 160 for n in range(60)]
        bus.append(b"".join(said), (), 0)
        bus.end()
        here.beat((caller, SILENCE), times=10)
        supervisor = await supervised(here, caller)
        here.beat((caller, SILENCE), (supervisor, SILENCE), times=20)
        supervisor.hangs_up()
        here.beat((caller, SILENCE), times=80)
        heard = [frame for frame in caller.carrier.heard if frame != SILENCE]
        assert set(heard) == set(said)
        assert len(heard) - len(said) <= 20, "200 ms a change"
        assert bus.playout.all_heard

    run(scenario)


def test_a_machine_that_was_to_supervise_is_hung_up_on() -> None:
    async def scenario(here: Exchange) -> None:
        caller = here.rings()
        supervisor = await supervised(here, caller, "speak")
        here.guesses("machine_start")
        assert supervisor.is_left
        await asyncio.sleep(0.5)
        assert here.account.ended == [sid(1)]
        assert here.ends() == []

    run(scenario, replace(TERMS, machine_detection="Enable"))


def test_a_supervisor_who_does_not_answer_is_in_the_record() -> None:
    async def scenario(here: Exchange) -> None:
        here.rings()
        here.control.party.invite(Invitation(DialOrder(E164("+14155550177"))))
        await here.ordered()
        here.tells("busy", SipResponseCode="486")
        assert here.control.party.views() == []

    (failed,) = run(scenario).events("leg_failed")
    assert (failed["reason"], failed["provider_code"]) == ("busy", "twilio:busy;sip:486")


def test_a_callers_new_stream_finds_the_supervisor_waiting() -> None:
    async def scenario(here: Exchange) -> None:
        caller = here.rings()
        supervisor = await supervised(here, caller)
        again = here.stream(here.asks("/twilio/continue?n=0", sid(9)), sid(9))
        assert caller.is_left
        supervisor.forget()
        here.beat((again, VOICE), (supervisor, SILENCE), times=10)
        assert VOICE in supervisor.heard
        assert here.account.ended == []

    run(scenario)
