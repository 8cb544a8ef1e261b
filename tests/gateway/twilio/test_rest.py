"""Twilio's own package against a server that speaks its wire, over loopback."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.fakes.twilio_server import Fate, Refusal, TwilioServer
from trunkline.gateway.twilio.account import CallOrder, NotTaken, Taken, Unknown
from trunkline.gateway.twilio.rest import TwilioRest, _retry_after_s
from trunkline.testing.clock import ManualClock
from trunkline.types import E164, CallSid

ACCOUNT, KEY, SECRET = "AC" + "1" * 32, "SK" + "2" * 32, "a-secret"
TO, FROM = E164("+14155550123"), E164("+14155550100")
ORDER = CallOrder(TO, FROM, "http://127.0.0.1:1/voice?order=t", "http://127.0.0.1:1/status?order=t", 25, 600)


def asked(
    work: Callable[[TwilioRest, TwilioServer], Awaitable[Any]],
    *fates: Fate,
    secret: str = SECRET,
    answer_s: float = 5.0,
) -> tuple[Any, TwilioServer]:
    async def run() -> tuple[Any, TwilioServer]:
        async with TwilioServer(ACCOUNT, {KEY: SECRET}, "token") as server:
            server.fates.extend(fates)
            rest = TwilioRest(ACCOUNT, (KEY, secret), ManualClock(), api_url=server.origin, answer_s=answer_s)
            try:
                return await work(rest, server), server
            finally:
                await rest.close()

    return asyncio.run(run())


def created(*fates: Fate, order: CallOrder = ORDER, **options: Any) -> tuple[Any, TwilioServer]:
    return asked(lambda rest, server: rest.create(order), *fates, **options)


def test_an_order_is_the_form_that_twilio_documents() -> None:
    answer, server = created(Fate("ring"))
    assert answer == Taken(CallSid(server.created[0].sid))
    (sent,) = server.requests
    assert (sent.method, sent.path) == ("POST", f"/2010-04-01/Accounts/{ACCOUNT}/Calls.json")
    assert sent.form == {
        "To": [TO],
        "From": [FROM],
        "Url": [ORDER.url],
        "Method": ["POST"],
        "StatusCallback": [ORDER.status_callback],
        "StatusCallbackEvent": ["initiated", "ringing", "answered", "completed"],
        "StatusCallbackMethod": ["POST"],
        "Timeout": ["25"],
        "TimeLimit": ["600"],
    }
    assert server.unknown_fields == set()


def test_machine_detection_does_not_hold_up_the_conversation() -> None:
    order = CallOrder(TO, FROM, ORDER.url, ORDER.status_callback, 25, 600, "DetectMessageEnd", "http://127.0.0.1:1/m")
    _, server = created(Fate("ring"), order=order)
    form = server.requests[0].form
    assert form["MachineDetection"] == ["DetectMessageEnd"]
    assert (form["AsyncAmd"], form["AsyncAmdStatusCallback"]) == (["true"], ["http://127.0.0.1:1/m"])
    assert server.unknown_fields == set()


def test_what_twilio_refuses_was_not_taken() -> None:
    answer, _ = created(secret="wrong")
    assert (answer.status, answer.code, answer.unauthorized) == (401, 20003, True)
    answer, _ = created(order=CallOrder(E164("+1"), FROM, ORDER.url, ORDER.status_callback, 25, 600))
    assert (answer.status, answer.code) == (400, 21211)
    answer, _ = created(Fate(rest=Refusal(429, 20429, "Too Many Requests", {"Retry-After": "3"})))
    assert answer == NotTaken(429, 20429, "Too Many Requests", 3.0)


def test_another_account_is_not_found() -> None:
    async def other(rest: TwilioRest, server: TwilioServer) -> Any:
        elsewhere = TwilioRest("AC" + "9" * 32, (KEY, SECRET), ManualClock(), api_url=server.origin)
        try:
            return await elsewhere.create(ORDER)
        finally:
            await elsewhere.close()

    answer, _ = asked(other)
    assert isinstance(answer, NotTaken)
    assert (answer.status, answer.code) == (404, 20404)


@pytest.mark.parametrize("rest", ["lost", "500", "garbage"])
def test_an_answer_that_says_nothing_leaves_the_order_open(rest: Any) -> None:
    answer, server = created(Fate("ring", rest=rest))
    assert isinstance(answer, Unknown)
    assert len(server.created) == len(server.orders()) == 1


def test_a_stall_is_waited_out_only_so_long() -> None:
    answer, server = created(Fate("ring", stall_s=60), answer_s=0.2)
    assert isinstance(answer, Unknown)
    assert len(server.orders()) == 1


def test_a_server_that_is_not_there_took_nothing() -> None:
    async def nobody(rest: TwilioRest, server: TwilioServer) -> Any:
        there = TwilioRest(ACCOUNT, (KEY, SECRET), ManualClock(), api_url="http://127.0.0.1:9")
        try:
            return await there.create(ORDER)
        finally:
            await there.close()

    answer, _ = asked(nobody)
    assert isinstance(answer, NotTaken)
    assert answer.unreached


def test_a_call_is_found_by_its_numbers_and_told_by_what_twilio_asked_of_us() -> None:
    async def look(rest: TwilioRest, server: TwilioServer) -> Any:
        await rest.create(ORDER)
        await asyncio.sleep(0)
        listed = await rest.recent(TO, FROM)
        assert not isinstance(listed, NotTaken | Unknown)
        return listed, await rest.recent(FROM, TO), await rest.requested(listed[0].call_sid)

    (listed, none, urls), server = asked(look, Fate("ring"))
    assert [call.call_sid for call in listed] == [server.created[0].sid]
    assert listed[0].ours
    assert abs((listed[0].created - datetime.now(UTC)).total_seconds()) < 10
    assert none == []
    assert ORDER.status_callback in urls


def test_hanging_up_is_done_once_and_said_twice() -> None:
    async def twice(rest: TwilioRest, server: TwilioServer) -> Any:
        taken = await rest.create(ORDER)
        assert isinstance(taken, Taken)
        first = await rest.end(taken.call_sid)
        await asyncio.wait_for(server.calls[taken.call_sid].ended.wait(), 5)
        return taken, first, await rest.end(taken.call_sid), await rest.end(CallSid("CA" + "e" * 32))

    (taken, first, second, unknown), server = asked(twice, Fate("ring"))
    assert first == second == taken
    assert unknown == Taken(CallSid("CA" + "e" * 32))
    assert server.created[0].status == "canceled"


def test_a_login_is_checked_without_creating_anything() -> None:
    assert asked(lambda rest, server: rest.check())[0] is None
    answer, server = asked(lambda rest, server: rest.check(), secret="wrong")
    assert isinstance(answer, NotTaken)
    assert answer.unauthorized
    assert [r.method for r in server.requests] == ["GET"]


def test_region_and_edge_are_in_the_host_and_the_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWILIO_EDGE", "sydney")
    monkeypatch.setenv("TWILIO_REGION", "au1")

    async def hosts() -> list[str]:
        seen = []
        for region, edge in ((None, None), ("ie1", None), ("ie1", "dublin"), (None, "frankfurt")):
            rest = TwilioRest(ACCOUNT, (KEY, SECRET), ManualClock(), region=region, edge=edge)

            async def request(method: str, url: str, **_: Any) -> Any:
                seen.append(url.split("/")[2])
                raise TimeoutError

            monkeypatch.setattr(rest._http, "request", request)
            assert isinstance(await rest.create(ORDER), Unknown)
            await rest.close()
        return seen

    assert asyncio.run(hosts()) == [
        "api.twilio.com",
        "api.ie1.twilio.com",
        "api.dublin.ie1.twilio.com",
        "api.frankfurt.us1.twilio.com",
    ]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3", 3.0), ("", None), ("soon", None), ("-1", None), ("Sun, 22 Nov 2026 20:00:10 GMT", 10.0)],
)
def test_retry_after_is_seconds_or_a_date(text: str, seconds: float | None) -> None:
    assert _retry_after_s(text, datetime(2026, 11, 22, 20, 0, tzinfo=UTC)) == seconds
