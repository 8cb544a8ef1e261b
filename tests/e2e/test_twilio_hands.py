"""Callers over Twilio who are held and put through by us, and targets who are called over it. What anybody hears is
looked at frame by frame: nothing between two streams decodes them."""

import asyncio
from typing import Any

import pytest

from tests.e2e.twilio_office import (
    ANSWER,
    CALLERS,
    DESK,
    DESKS,
    FROM,
    QUESTION,
    SUMMARY,
    TRANSFER,
    Case,
    Office,
    attempts,
    data,
    kinds,
    offices,
    what,
)
from tests.fakes.twilio_server import FakeCall, Fate, Refusal
from trunkline.testing.caller.commands import resolve
from trunkline.testing.caller.script import HangUp, Keys, Listen, Say

pytestmark = pytest.mark.e2e

LEGS_OF_TWO = ["seconds"] * 2 + ["stream_seconds"] * 2
"""Of the usage of a call with two legs of Twilio's."""


@pytest.fixture
def office(start_gateway: Any) -> Any:
    return offices(start_gateway)


async def hear_each_other(caller: FakeCall, desk: FakeCall) -> None:
    caller.says, desk.says = CALLERS, DESKS
    await asyncio.sleep(0.5)
    callers, desks = await asyncio.gather(Case.hears(caller), Case.hears(desk))  # a busy machine is late now and then
    assert callers["desk"] > 0.75 * callers.total(), callers
    assert desks["caller"] > 0.75 * desks.total(), desks
    assert set(callers) <= {"desk", "silence"}, callers
    assert set(desks) <= {"caller", "silence"}, desks


# --- on hold --------------------------------------------------------------------------------------------------------


def test_a_caller_on_hold_hears_music_and_is_resumed(office: Any) -> None:
    async def scenario(o: Office) -> None:
        case = await Case.begins(o, asks=True)
        began = len(case.caller.heard)
        await case.post("hold")
        await o.until(lambda: what(case.caller.heard[began:])["music"] > 100)
        heard = what(case.caller.heard[began:])
        assert set(heard) <= {"music", "silence"}, heard
        assert heard["silence"] < 25, heard
        await case.post("resume")
        await case.agent_says("I'm here again.")
        (again,) = await resolve([Say(QUESTION)], "en-us")
        case.caller.do(Listen(), again)
        await o.until(lambda: what(case.caller.heard[-100:])["other"] > 20)
        await asyncio.sleep(3)
        assert (await case.hears(case.caller))["music"] == 0
        record = await case.leaves()
        assert record["end_reason"] == "caller_hung_up"
        assert sum(ANSWER in turn["agent_text"] for turn in record["turns"]) == 2

    assert office(scenario, agent=TRANSFER).complaints() == []


# --- put through ----------------------------------------------------------------------------------------------------


def test_a_representative_is_briefed_alone_and_takes_the_call(office: Any) -> None:
    async def scenario(o: Office) -> None:
        case = await Case.begins(o)
        case.caller.says = CALLERS
        o.twilio.fates.append(Fate(live=True, actions=(), ring_s=1.0))
        began = len(case.caller.heard)
        desk = await case.sends("warm")
        assert (desk.first("To"), desk.first("From")) == (DESK, FROM)
        await o.until(lambda: what(desk.heard)["other"] > 100)
        briefed = what(desk.heard)
        assert set(briefed) <= {"other", "silence"}, briefed
        waited = what(case.caller.heard[began:])
        assert set(waited) <= {"music", "silence"}, waited
        assert waited["music"] > 0.75 * waited.total(), waited
        desk.do(Keys("1"))
        await case.has("joined")
        await hear_each_other(case.caller, desk)
        desk.do(HangUp())
        record = await o.ended(case.id)
        await asyncio.wait_for(case.caller.ended.wait(), 5)
        assert record["end_reason"] == "transferred"
        assert attempts(record) == [("warm", "transferred")]
        (attempt,) = data(record, "transfer_attempt")
        assert attempt["trunk"] == "twilio"
        assert attempt["ringing_ms"] <= attempt["answered_ms"] <= attempt["accepted_ms"] <= attempt["joined_ms"]
        assert sorted(use["unit"] for use in record["usage"] if use["kind"] == "leg") == LEGS_OF_TWO
        assert data(record, "leg_named")[0]["provider_call_id"] == desk.sid
        assert record["provider_call_id"] == case.caller.sid
        assert len(o.twilio.orders()) == 1
        assert case.caller.phone is not None
        assert case.caller.phone.report.verbs == ["Stream", "Hangup"]

    assert office(scenario, agent=TRANSFER).complaints() == []


@pytest.mark.parametrize("kind", ["bridged", "attended"])
def test_a_caller_hears_ringback_or_music_and_then_the_target_and_may_leave(office: Any, kind: str) -> None:
    async def scenario(o: Office) -> None:
        case = await Case.begins(o)
        o.twilio.fates.append(Fate(live=True, actions=(), ring_s=1.5))
        began = len(case.caller.heard)
        desk = await case.sends(kind)
        await o.until(lambda: desk.connected)
        waited = what(case.caller.heard[began:])
        assert set(waited) <= {"ringback" if kind == "bridged" else "music", "silence"}, waited
        if kind == "attended":
            desk.do(Keys("1"))
        await case.has("joined")
        await hear_each_other(case.caller, desk)
        record = await case.leaves()
        assert (record["end_reason"], attempts(record)) == ("transferred", [(kind, "transferred")])
        await asyncio.wait_for(desk.ended.wait(), 5)
        assert [request.path.rpartition("/")[2] for request in o.twilio.endings()] == [f"{desk.sid}.json"]

    assert office(scenario, agent=TRANSFER).complaints() == []


def test_who_was_called_is_put_through_as_well(office: Any) -> None:
    async def scenario(o: Office) -> None:
        o.twilio.fates.extend((Fate(live=True, actions=()), Fate(live=True, actions=())))
        call_id = await o.placed()
        called = await o.call()
        await o.until(lambda: called.connected and what(called.heard)["other"] > 10)
        case = Case(o, called, call_id)
        await case.post("transfer", target="desk", kind="bridged")
        await case.has("joined")
        desk = o.twilio.created[1]
        await hear_each_other(called, desk)
        desk.do(HangUp())
        record = await o.ended(call_id)
        assert record["end_reason"] == "transferred"
        assert record["provider_call_id"] == called.sid

    assert office(scenario, agent=TRANSFER).complaints() == []


# --- and back -------------------------------------------------------------------------------------------------------

MACHINE = Fate(live=True, actions=(), answered_by="machine_start")
FAILURES = [
    (Fate("busy", sip_status=486, ring_s=0.5), "busy", "the line is busy"),
    (Fate("no-answer", ring_s=0.5), "no_answer", "nobody answers there"),
    (Fate("failed", sip_status=404, error=13224), "failed", "I could not reach them"),
    (Fate(rest=Refusal(400, 21211, "no number")), "failed", "I could not reach them"),
    (MACHINE, "voicemail", "I only reached their voicemail"),
]


def test_who_reaches_nobody_is_with_the_agent_and_its_context_again(office: Any) -> None:
    async def fails(o: Office, case: Case, result: str, words: str) -> None:
        await case.agent_says(words)
        (again,) = await resolve([Say(QUESTION)], "en-us")
        case.caller.do(Listen(), again, Listen())

        async def answered() -> bool:
            return sum(ANSWER in turn["agent_text"] for turn in (await case.record())["turns"]) == 2

        await o.until(answered, 30)
        record = await case.leaves()
        assert attempts(record) == [("warm", result)]
        assert record["end_reason"] == "caller_hung_up"
        assert [e["who"] for e in data(record, "answered_by")] == (["machine_start"] if result == "voicemail" else [])

    async def scenario(o: Office) -> None:
        cases = [await Case.begins(o, asks=True) for _ in FAILURES]
        for count, (case, (fate, _, _)) in enumerate(zip(cases, FAILURES, strict=True), 1):
            o.twilio.fates.append(fate)
            await case.post("transfer", target="desk", kind="warm", summary=SUMMARY)
            await o.until(lambda count=count: len(o.twilio.orders()) == count)
        await asyncio.gather(*(fails(o, case, *told[1:]) for case, told in zip(cases, FAILURES, strict=True)))
        assert len(o.twilio.orders()) == len(FAILURES)
        await asyncio.gather(*(asyncio.wait_for(desk.ended.wait(), 5) for desk in o.twilio.created))

    assert office(scenario, agent=TRANSFER, twilio__machine_detection="enable").complaints() == []


def test_a_representative_who_declines_is_hung_up_on_and_the_caller_is_back(office: Any) -> None:
    async def scenario(o: Office) -> None:
        case = await Case.begins(o)
        o.twilio.fates.append(Fate(live=True, actions=()))
        desk = await case.sends("warm")
        await o.until(lambda: desk.connected and what(desk.heard)["other"] > 50)
        desk.do(Keys("2"))
        await case.agent_says("nobody can take your call right now")
        await asyncio.wait_for(desk.ended.wait(), 5)
        assert (await case.hears(case.caller))["music"] == 0
        assert attempts(await case.leaves()) == [("warm", "declined")]

    assert office(scenario, agent=TRANSFER).complaints() == []


def test_a_caller_who_hangs_up_while_it_rings_ends_the_targets_call_over_rest(office: Any) -> None:
    async def scenario(o: Office) -> None:
        case = await Case.begins(o)
        o.twilio.fates.append(Fate("ring"))
        desk = await case.sends("warm")
        await o.until(lambda: "ringing" in desk.told)
        record = await case.leaves()
        await asyncio.wait_for(desk.ended.wait(), 5)
        assert desk.status == "canceled"
        assert (record["end_reason"], attempts(record)) == ("caller_hung_up", [("warm", "caller_left")])

    assert office(scenario, agent=TRANSFER).complaints() == []


def test_an_answer_that_crosses_our_hanging_up_is_told_to_hang_up(office: Any) -> None:
    """REST stalls while somebody answers: our order's own answer is not even there."""

    async def scenario(o: Office) -> None:
        case = await Case.begins(o)
        o.twilio.fates.append(Fate(live=True, actions=(), stall_s=4.0, ring_s=2.0, callbacks=False))
        desk = await case.sends("warm")
        record = await case.leaves()
        assert record["end_reason"] == "caller_hung_up"
        await asyncio.wait_for(desk.ended.wait(), 10)
        assert desk.phone is not None
        assert desk.phone.report.verbs == ["Hangup"]
        assert len(o.twilio.orders()) == 1

    assert office(scenario, agent=TRANSFER).complaints() == []


def test_a_lost_answer_of_the_api_does_not_ring_twice(office: Any) -> None:
    async def scenario(o: Office) -> None:
        case = await Case.begins(o)
        o.twilio.fates.append(Fate(rest="lost", live=True, actions=(), ring_s=1.0))
        desk = await case.sends("bridged")
        await case.has("joined")
        await hear_each_other(case.caller, desk)
        record = await case.leaves()
        assert "carrier_unclear" in kinds(record)
        assert len(o.twilio.orders()) == len(o.twilio.created) == 1

    assert office(scenario, agent=TRANSFER).complaints() == []


def test_a_caller_whose_socket_breaks_in_a_conversation_is_with_the_agent_again(office: Any) -> None:
    async def scenario(o: Office) -> None:
        case = await Case.begins(o)
        o.twilio.fates.append(Fate(live=True, actions=()))
        desk = await case.sends("bridged")
        await case.has("joined")
        case.caller.drop()
        record = await o.ended(case.id)
        assert record["end_reason"] == "media_lost"
        await asyncio.wait_for(desk.ended.wait(), 5)
        await o.until(lambda: case.caller.phone is not None and len(case.caller.phone.lines) == 2)
        await o.until(lambda: what(case.caller.heard)["other"] > 50)
        case.caller.do(HangUp())
        await asyncio.wait_for(case.caller.ended.wait(), 5)

    office(scenario, agent=TRANSFER)


# --- others ---------------------------------------------------------------------------------------------------------


def test_a_supervisor_over_twilio_listens_unheard_and_then_speaks(office: Any) -> None:
    async def scenario(o: Office) -> None:
        case = await Case.begins(o)
        o.twilio.fates.append(Fate(live=True, actions=()))
        rung = await o.http.post(f"/v1/calls/{case.id}/legs", json={"to": DESK})
        assert rung.status_code == 201, rung.text
        await case.has("joined")
        supervisor = await o.call()
        supervisor.says, case.caller.says = DESKS, CALLERS
        await asyncio.sleep(0.5)
        heard, callers = await asyncio.gather(case.hears(supervisor), case.hears(case.caller))
        assert heard["caller"] > 0.8 * heard.total(), heard
        assert callers["desk"] == 0, callers
        case.caller.says = b""
        supervisor.do(Keys("6"))
        await case.has("leg_changed")
        await o.until(lambda: what(case.caller.heard[-50:])["desk"] > 40)
        supervisor.do(HangUp())
        await case.has("left")
        record = await case.leaves()
        assert record["end_reason"] == "caller_hung_up"
        assert sorted(use["unit"] for use in record["usage"] if use["kind"] == "leg") == LEGS_OF_TWO
        assert o.twilio.endings() == []

    assert office(scenario, agent=TRANSFER).complaints() == []
