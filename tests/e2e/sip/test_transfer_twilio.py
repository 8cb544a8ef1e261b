"""One on Twilio, the other on a SIP trunk: put through to each other, and what each hears of the other."""

import asyncio
import re
import time
from typing import Any

import numpy as np
import pytest

from tests.e2e.twilio_office import CALLERS, DESKS, TRANSFER, Case, Office, attempts, data, offices, what
from tests.fakes.twilio_server import Fate
from trunkline.media import g711
from trunkline.testing.caller.script import HangUp
from trunkline.testing.ports import lease

pytestmark = pytest.mark.e2e

CALLERS_HZ, DESKS_HZ = 600, 1100
ACCOUNT = ("account_sid", "api_key_sid", "api_key_secret", "from_number", "api_url")
ANSWERS = """
< INVITE
> 100
> 180
. 300
> 200 sdp
< ACK
"""
ASKS = """
> INVITE sdp
<? 100
<? 180
< 200
> ACK 2xx
"""
IS_LEFT = "< BYE\n> 200 plain\n"


def pitches(frames: list[bytes]) -> list[int]:
    """Of each frame: its loudest frequency, to 50 Hz; 0 is silence."""
    found = []
    for frame in frames:
        pcm = np.frombuffer(g711.decode(frame, "mulaw"), dtype="<i2").astype(float)
        found.append(int(np.abs(np.fft.rfft(pcm)).argmax()) * 50 if np.sqrt((pcm**2).mean()) > 200 else 0)
    return found


def share(frames: list[bytes], hz: int) -> float:
    return sum(one == hz for one in pitches(frames)) / max(1, len(frames))


def of(phone: Any, since: float) -> list[bytes]:
    return [p.payload for at, p in tuple(phone.packets) if at >= since and len(p.payload) == 160]


async def hear_each_other(
    on_twilio: Any, on_sip: Any, *, sip_says: tuple[bytes, int], twilio_says: tuple[bytes, int]
) -> None:
    on_sip.sound, on_twilio.says = sip_says[0], twilio_says[0]
    await asyncio.sleep(0.7)
    since, began = time.monotonic(), len(on_twilio.heard)
    await asyncio.sleep(1.5)
    assert share(of(on_sip, since), twilio_says[1]) > 0.75, pitches(of(on_sip, since))
    assert share(on_twilio.heard[began:], sip_says[1]) > 0.75, pitches(on_twilio.heard[began:])


@pytest.fixture
def office(sip_gateway: Any) -> Any:
    return offices(sip_gateway)


def carrier(port: int) -> dict[str, str]:
    trunk = {"peers": "127.0.0.1/32", "host": f"127.0.0.1:{port}", "ping_s": "0", "caller_id": "+14155550100"}
    return {f"sip__trunks__carrier__{name}": value for name, value in trunk.items()}


def test_a_twilio_caller_is_briefed_for_on_a_sip_trunk_and_joined(office: Any, sipp: Any, phone: Any) -> None:
    port = lease()

    async def scenario(o: Office) -> None:
        desk = sipp.answer(port, ANSWERS + IS_LEFT, phone)
        case = await Case.begins(o)
        case.caller.says, began = CALLERS, len(case.caller.heard)
        await case.post("transfer", target="desk", kind="warm", summary="It is about a lost key.")
        await case.has("leg_dialled")
        await o.until(lambda: sum(hz > 0 for hz in pitches(of(phone, 0.0))) > 50)
        assert share(of(phone, 0.0), CALLERS_HZ) < 0.1, "the caller is not heard yet"
        waited = what(case.caller.heard[began:])
        assert set(waited) <= {"music", "silence"}, waited
        keys = re.search(r"a=rtpmap:([0-9]+) telephone-event", desk.got("INVITE").text)
        assert keys is not None
        phone.keys_type = int(keys[1])
        phone.key("1")
        await case.has("joined")
        await hear_each_other(case.caller, phone, sip_says=(DESKS, DESKS_HZ), twilio_says=(CALLERS, CALLERS_HZ))
        record = await case.leaves()
        assert (record["end_reason"], attempts(record)) == ("transferred", [("warm", "transferred")])
        assert data(record, "transfer_attempt")[0]["trunk"] == "carrier"
        assert {use["provider"] for use in record["usage"] if use["kind"] == "leg"} == {"twilio", "sip"}
        await asyncio.to_thread(desk.ok)

    no_account = {f"twilio__{name}": None for name in ACCOUNT}
    assert office(scenario, agent=TRANSFER, **carrier(port), **no_account).complaints() == []


def test_a_sip_caller_is_joined_with_a_target_over_twilio_who_then_hangs_up(office: Any, sipp: Any, phone: Any) -> None:
    async def scenario(o: Office) -> None:
        o.twilio.fates.append(Fate(live=True, actions=(), ring_s=1.0))
        run = sipp.call(o.gateway, ASKS + IS_LEFT, phone)
        await asyncio.to_thread(phone.until, lambda: phone.loud() > 20)
        call_id = (await o.http.get("/v1/calls")).json()["calls"][0]["id"]
        asked = {"target": "desk", "kind": "bridged"}
        answer = await o.http.post(f"/v1/calls/{call_id}/transfer", json=asked)
        assert answer.status_code == 202, answer.text
        desk = await o.call()
        await o.until(lambda: desk.connected)
        await hear_each_other(desk, phone, sip_says=(CALLERS, CALLERS_HZ), twilio_says=(DESKS, DESKS_HZ))
        desk.do(HangUp())
        record = await o.ended(call_id)
        assert (record["end_reason"], attempts(record)) == ("transferred", [("bridged", "transferred")])
        await asyncio.to_thread(run.ok)
        assert len(o.twilio.orders()) == 1
        assert o.twilio.endings() == [], "who has hung up is not hung up on"

    trunk = {"sip__trunks__pbx__peers": "127.0.0.1/32"}
    assert office(scenario, agent=TRANSFER, **trunk).complaints() == []
