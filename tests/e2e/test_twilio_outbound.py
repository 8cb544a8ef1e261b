"""Calls of ours over Twilio: a real gateway, and a local server that speaks Twilio's REST API, calls our webhooks with
its signature and opens our media socket."""

import asyncio
import json
import os
import subprocess
import sys
from itertools import product
from typing import Any

import pytest

from tests.e2e.twilio_office import API_KEY, DESK, FROM, TO, TRANSFER, Office, data, kinds, offices
from tests.fakes.twilio_server import Fate, Refusal
from trunkline.testing.caller.commands import resolve
from trunkline.testing.caller.script import HangUp, Keys, Listen, Pause, Say

pytestmark = pytest.mark.e2e

STAY = (Listen(), Pause(20_000), HangUp())


@pytest.fixture
def office(start_gateway: Any) -> Any:
    return offices(start_gateway)


# --- a conversation -------------------------------------------------------------------------------------------------


def test_a_call_of_ours_is_a_conversation_with_a_whole_record(office: Any) -> None:
    async def scenario(o: Office) -> None:
        (say,) = await resolve([Say("can you tell me when you are open on Saturday")], "en-us")
        o.twilio.fates.append(Fate(actions=(Listen(), say, Listen(), HangUp())))
        call_id = await o.placed(ring_timeout_s=25)
        record = await o.ended(call_id, 40)
        call = await o.call()
        assert call.first("TimeLimit") == str(3600 + 13)
        assert call.first("Timeout") == "25"
        assert (record["provider_call_id"], record["direction"], record["leg"]) == (call.sid, "outbound", "twilio")
        assert (record["from_number"], record["to_number"]) == (FROM, TO)
        assert record["end_reason"] == "caller_hung_up"
        assert record["answered_at"] is not None
        greeting, turn = record["turns"]
        assert greeting["agent_text"].startswith("word0 word1")
        assert turn["caller_text"] == "caller phrase"
        assert turn["agent_text"].startswith("word0")
        assert {("twilio", "leg", "seconds"), ("standin", "tts", "characters")} <= {
            (use["provider"], use["kind"], use["unit"]) for use in record["usage"]
        }
        seen = kinds(record)
        assert seen.count("answered") == seen.count("ringing") == seen.count("media") == 1
        assert seen.index("dialling") < seen.index("ringing") < seen.index("answered") < seen.index("media")
        await asyncio.wait_for(call.ended.wait(), 5)
        assert call.told == ["initiated", "ringing", "in-progress", "completed"]
        assert len(o.twilio.orders()) == 1
        assert o.twilio.endings() == []
        (trunk,) = (await o.http.get("/v1/trunks")).json()["trunks"]
        assert trunk == {"name": "twilio", "state": "up", "takes_calls": True, "calls": 0}

    assert office(scenario).complaints() == []


def test_the_agent_hangs_up_and_twilio_is_told_by_the_end_of_the_stream(office: Any) -> None:
    async def scenario(o: Office) -> None:
        call_id = await o.placed()
        call = await o.call()
        await o.until(lambda: call.phone is not None and len(call.phone.lines) == 1)
        await asyncio.sleep(1.0)
        assert (await o.http.delete(f"/v1/calls/{call_id}")).status_code == 202
        record = await o.ended(call_id)
        await asyncio.wait_for(call.ended.wait(), 5)
        assert record["end_reason"] == "agent_hung_up"
        assert o.twilio.endings() == []

    assert office(scenario, Fate(actions=STAY)).complaints() == []


# --- calls that nobody answers --------------------------------------------------------------------------------------


FAILURES = [
    (Fate("busy", sip_status=486), "busy"),
    (Fate("no-answer"), "no_answer"),
    (Fate("failed", sip_status=404, error=13224), "failed"),
    (Fate("ring"), "no_answer"),
    (Fate(rest=Refusal(404, 20404, "not found")), "failed"),
    (Fate(rest=Refusal(400, 21211, "no number")), "failed"),
    (Fate(rest=Refusal(429, 20429, "slow down", {"Retry-After": "60"})), "failed"),
]


def test_each_failure_has_its_reason(office: Any) -> None:
    async def fails(o: Office, number: str, fate: Fate, end: str) -> None:
        o.twilio.fates_of[number] = fate
        record = await o.ended(await o.placed(to=number, ring_timeout_s=5))
        assert (record["end_reason"], record["answered_at"]) == (end, None), fate
        assert record["provider_code"].startswith("twilio:")
        if fate.sip_status:
            last = data(record, "carrier_status")[-1]
            assert (last["sip_status"], last["error"]) == (fate.sip_status, fate.error)
        if isinstance(fate.rest, Refusal):
            assert data(record, "carrier_refused")[0]["error"] == fate.rest.code

    async def scenario(o: Office) -> None:
        await asyncio.gather(*(fails(o, f"+1415555013{n}", *failure) for n, failure in enumerate(FAILURES)))
        assert len(o.twilio.orders()) == len(FAILURES)
        assert o.twilio.endings() == []

    assert office(scenario).complaints() == []


def test_hanging_up_what_rings_goes_over_rest(office: Any) -> None:
    async def scenario(o: Office) -> None:
        call_id = await o.placed()
        call = await o.call()
        await o.until(lambda: "ringing" in call.told)
        assert (await o.http.delete(f"/v1/calls/{call_id}")).status_code == 202
        record = await o.ended(call_id)
        assert record["end_reason"] == "agent_hung_up"
        await asyncio.wait_for(call.ended.wait(), 5)
        assert call.status == "canceled"

    assert office(scenario, Fate("ring")).complaints() == []


# --- the API itself -------------------------------------------------------------------------------------------------


def test_a_busy_api_is_asked_again(office: Any) -> None:
    async def scenario(o: Office) -> None:
        record = await o.ended(await o.placed())
        assert record["end_reason"] == "busy"
        assert len(o.twilio.orders()) == 2
        assert len(o.twilio.created) == 1

    refused = Fate(rest=Refusal(429, 20429, "slow down", {"Retry-After": "1"}))
    assert office(scenario, refused, Fate("busy")).complaints() == []


def test_a_wrong_login_is_one_line_and_a_refusal(office: Any) -> None:
    async def scenario(o: Office) -> None:
        async def known() -> bool:
            return bool((await o.http.get("/v1/trunks")).json()["trunks"][0]["state"] == "down")

        await o.until(known)
        refused = await o.dial()
        assert (refused.status_code, refused.json()["code"]) == (503, "trunk_unauthorized")
        (trunk,) = (await o.http.get("/v1/trunks")).json()["trunks"]
        assert trunk["why"] == "trunk_unauthorized"
        assert o.twilio.orders() == []

    (line,) = office(scenario, twilio__api_key_secret="not-the-right-one").complaints()
    assert "does not accept our login (401)" in line


def test_a_lost_answer_does_not_dial_twice(office: Any) -> None:
    """With callbacks these tie the call; without, Twilio's list of calls and of what it asked does."""

    async def lost(o: Office, number: str, rest: Any, callbacks: bool) -> None:
        o.twilio.fates_of[number] = Fate(rest=rest, callbacks=callbacks, ring_s=3.0)
        record = await o.ended(await o.placed(to=number))
        (call,) = [call for call in o.twilio.created if call.first("To") == number]
        assert (record["end_reason"], record["provider_call_id"]) == ("caller_hung_up", call.sid)
        assert "carrier_unclear" in kinds(record)
        assert ("carrier_found" in kinds(record)) is not callbacks

    async def scenario(o: Office) -> None:
        ways = list(product(("lost", "500", "garbage"), (True, False)))
        await asyncio.gather(*(lost(o, f"+1415555013{n}", *way) for n, way in enumerate(ways)))
        assert len(o.twilio.orders()) == len(o.twilio.created) == len(ways)

    assert office(scenario).complaints() == []


def test_an_answer_that_stalls_for_20_s_is_waited_for_and_stops_nobody(office: Any) -> None:
    async def scenario(o: Office) -> None:
        call_id = await o.placed()
        call = await o.call()
        busy = await o.ended(await o.placed(), 5)
        assert busy["end_reason"] == "busy"
        assert (await o.record(call_id))["provider_call_id"] != call.sid

        async def named() -> bool:
            return bool((await o.record(call_id))["provider_call_id"] == call.sid)

        await o.until(named, 25)
        assert call.status == "ringing"
        record = await o.ended(call_id, 20)
        assert record["end_reason"] == "caller_hung_up"
        assert "carrier_unclear" not in kinds(record)
        assert len(o.twilio.orders()) == len(o.twilio.created) == 2

    assert office(scenario, Fate(stall_s=20, ring_s=23, callbacks=False), Fate("busy")).complaints() == []


def test_a_call_that_is_given_up_during_a_stall_is_hung_up_when_its_name_is_known(office: Any) -> None:
    async def scenario(o: Office) -> None:
        call_id = await o.placed()
        call = await o.call()
        assert (await o.http.delete(f"/v1/calls/{call_id}")).status_code == 202
        await asyncio.wait_for(call.ended.wait(), 10)
        assert call.status == "canceled"
        assert len(o.twilio.orders()) == 1

    assert office(scenario, Fate("ring", stall_s=3.0, callbacks=False)).complaints() == []


def test_an_order_that_was_never_taken_has_failed(office: Any) -> None:
    async def scenario(o: Office) -> None:
        record = await o.ended(await o.placed(), 45)
        assert (record["end_reason"], len(o.twilio.orders())) == ("failed", 1)
        assert "Twilio did not say" in record["end_detail"]

    assert office(scenario, Fate(rest="500", created=False)).complaints() == []


def test_a_call_whose_gateway_is_killed_is_neither_dialled_again_nor_talked_to(office: Any, start_gateway: Any) -> None:
    async def scenario(o: Office) -> None:
        call_id = await o.placed(ring_timeout_s=60)
        call = await o.call()
        await o.until(lambda: "ringing" in call.told)
        o.gateway.kill()
        port, folder = str(o.gateway.port), str(o.gateway.data_dir)
        settings = o.settings | {"http__port": port, "data_dir": folder}
        again = await asyncio.to_thread(lambda: start_gateway(**settings))
        record = await o.ended(call_id)
        assert record["end_reason"] == "gateway_lost"
        assert record["provider_call_id"] == call.sid
        assert call.status == "ringing"
        await asyncio.wait_for(call.ended.wait(), 30)
        assert call.phone is not None
        assert call.phone.report.verbs == ["Hangup"]
        assert len(o.twilio.orders()) == 1
        assert again.complaints() == []

    office(scenario, Fate(ring_s=20.0))


# --- machines -------------------------------------------------------------------------------------------------------


def test_a_machine_is_left_where_that_is_wanted(office: Any) -> None:
    async def scenario(o: Office) -> None:
        record = await o.ended(await o.placed())
        call = await o.call()
        assert call.first("AsyncAmd") == "true"
        assert (record["end_reason"], record["end_detail"]) == ("no_answer", "a machine answered")
        assert data(record, "answered_by") == [{"who": "machine_start", "after_ms": 1234}]
        await asyncio.wait_for(call.ended.wait(), 8)

    fate = Fate(answered_by="machine_start", actions=STAY)
    settings = {"twilio__machine_detection": "enable", "twilio__on_machine": "hang_up"}
    assert office(scenario, fate, **settings).complaints() == []


# --- transfer -------------------------------------------------------------------------------------------------------


def test_who_is_not_put_through_comes_back_to_the_agent_and_its_context(office: Any) -> None:
    async def scenario(o: Office) -> None:
        (again,) = await resolve([Say("when are you open")], "en-us")
        o.twilio.fates.append(Fate(dial=["busy"], actions=(Listen(), Keys("0"), Listen(), again, Listen(), HangUp())))
        record = await o.ended(await o.placed(), 60)
        call = await o.call()
        (dial,) = call.dials
        assert dial.numbers == (DESK,)
        assert [d["status"] for d in data(record, "dialled")] == ["busy"]
        assert "resumed" in kinds(record)
        assert record["end_reason"] == "caller_hung_up"
        assert call.phone is not None
        assert len(call.phone.lines) == 2
        said = [turn["agent_text"] for turn in record["turns"]]
        assert any("could not reach them" in text for text in said), said

    assert office(scenario, agent=TRANSFER).complaints() == []


def test_who_is_put_through_can_still_be_hung_up(office: Any) -> None:
    async def scenario(o: Office) -> None:
        o.twilio.fates.append(Fate(dial=["for ever"], actions=(Listen(), Keys("0"), *STAY)))
        call_id = await o.placed()
        call = await o.call()
        await o.until(lambda: len(call.dials) == 1, 30)
        assert (await o.http.delete(f"/v1/calls/{call_id}")).status_code == 202
        await asyncio.wait_for(call.ended.wait(), 5)
        record = await o.ended(call_id)
        assert record["end_reason"] == "agent_hung_up"
        assert len(o.twilio.endings()) == 1

    assert office(scenario, agent=TRANSFER).complaints() == []


# --- the command line -----------------------------------------------------------------------------------------------


def test_trunkline_dial_goes_over_twilio(office: Any) -> None:
    async def scenario(o: Office) -> None:
        arguments = [TO, "--trunk", "twilio", "--gateway", o.gateway.origin, "--api-key", API_KEY, "--json"]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}
        run = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "trunkline.cli", "dial", *arguments],
            capture_output=True,
            text=True,
            timeout=40,
            env=clean,
        )
        assert run.returncode == 0, run.stderr
        record = json.loads(run.stdout)
        assert record["provider_call_id"] == (await o.call()).sid

    assert office(scenario, Fate()).complaints() == []
