"""A gateway that is killed between the end of a call and its telling tells it when it is back: once, by the same id."""

import asyncio
import base64
import hmac
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from tests.fakes.hook_receiver import HookReceiver, Received
from trunkline.testing.caller.commands import CallOptions, HangUp, Listen, place_call

pytestmark = pytest.mark.e2e

FROM, TO = "+14155550134", "+14155550178"
OPEN = {"webhooks__allow_private_addresses": "true"}


def verified(got: Received, secret: str) -> Mapping[str, Any]:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = b".".join((got.id.encode(), got.headers["webhook-timestamp"].encode(), got.raw))
    wanted = "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    assert wanted in got.headers["webhook-signature"].split(" ")
    return got.body


def test_a_call_is_told_from_its_start_to_its_end(start_gateway: Any) -> None:
    async def scenario() -> None:
        async with HookReceiver() as receiver:
            gateway = await asyncio.to_thread(start_gateway, **OPEN)
            made = httpx.post(f"{gateway.origin}/v1/webhooks", json={"url": receiver.url}).json()
            report = await place_call(CallOptions(gateway.origin, [Listen(), HangUp()], from_number=FROM, to_number=TO))
            await receiver.until(3)
            told = [verified(got, made["secret"]) for got in receiver.received]
            assert [each["type"] for each in told] == ["call.started", "call.answered", "call.ended"]
            end = told[-1]["data"]
            assert (end["from_number"], end["to_number"], end["end_reason"]) == (FROM, TO, "caller_hung_up")
            assert end["provider_call_id"] == report.call_sid
            assert abs(end["duration_s"] - report.duration_s) < 1.5
            metrics = httpx.get(f"{gateway.origin}/metrics").text
            assert 'trunkline_hook_attempts_total{result="delivered"} 3.0' in metrics
            assert gateway.complaints() == []

    asyncio.run(scenario())


def test_what_a_killed_gateway_had_not_told_is_told_once_when_it_is_back(start_gateway: Any) -> None:
    async def scenario() -> None:
        async with HookReceiver(otherwise="stall") as receiver:
            first = await asyncio.to_thread(start_gateway, **OPEN)
            wanted = {"url": receiver.url, "events": ["call.ended"]}
            made = httpx.post(f"{first.origin}/v1/webhooks", json=wanted).json()
            await place_call(CallOptions(first.origin, [Listen(), HangUp()], from_number=FROM, to_number=TO))
            await receiver.until(1)
            first.kill()
            receiver.otherwise = 204
            second = await asyncio.to_thread(start_gateway, data_dir=str(first.data_dir), **OPEN)
            before, again = await receiver.until(2, 20)
            await asyncio.sleep(3)
            assert len(receiver.received) == 2, "it is told once more than was answered"
            assert (before.id, before.raw) == (again.id, again.raw)
            assert verified(again, made["secret"])["type"] == "call.ended"
            one = f"{second.origin}/v1/webhooks/{made['id']}/deliveries"
            (shown,) = httpx.get(one).json()["deliveries"]
            assert (shown["id"], shown["state"], shown["attempts"]) == (again.id, "delivered", 1)

    asyncio.run(scenario())


@pytest.mark.show
def test_a_call_that_dies_with_its_gateway_is_told_with_how_it_ended(start_gateway: Any) -> None:
    async def scenario() -> None:
        async with HookReceiver() as receiver:
            first = await asyncio.to_thread(start_gateway, **OPEN)
            wanted = {"url": receiver.url, "events": ["call.answered", "call.ended"]}
            made = httpx.post(f"{first.origin}/v1/webhooks", json=wanted).json()
            options = CallOptions(first.origin, [Listen(), Listen(), HangUp()], from_number=FROM, to_number=TO)
            call = asyncio.create_task(place_call(options))
            await receiver.until(1)
            delivered = f"{first.origin}/v1/webhooks/{made['id']}/deliveries?state=delivered"
            while not httpx.get(delivered).json()["deliveries"]:  # else it would be told again
                await asyncio.sleep(0.02)
            first.kill()
            await asyncio.wait([call])
            call.exception()
            await asyncio.to_thread(start_gateway, data_dir=str(first.data_dir), **OPEN)
            answered, end = await receiver.until(2, 20)
            assert answered.body["data"]["call_id"] == end.body["data"]["call_id"]
            assert end.body["data"]["end_reason"] == "gateway_lost"

    asyncio.run(scenario())
