"""The edge, against a real server that fails, stalls, redirects and leaves."""

import asyncio
import time
from typing import Any

import pytest

from tests.fakes.hook_receiver import HookReceiver
from trunkline.clock import SYSTEM_CLOCK
from trunkline.gateway.hooks.sending import Sender
from trunkline.gateway.hooks.signing import new_secret, signature
from trunkline.hooks import Attempt

SECRET = new_secret()
BODY = b'{"type":"call.ended"}'


def sender(**options: Any) -> Sender:
    return Sender(SYSTEM_CLOCK, **{"allow_private": True, **options})


async def sent(receiver: HookReceiver, **options: Any) -> Attempt:
    edge = sender(**options)
    try:
        return await edge.send(receiver.url, "evt_1", BODY, (SECRET,))
    finally:
        await edge.close()


def test_it_posts_what_can_be_verified() -> None:
    async def scenario() -> None:
        async with HookReceiver(200) as receiver:
            attempt = await sent(receiver)
            assert (attempt.status, attempt.error, attempt.is_delivered) == (200, "", True)
            (got,) = receiver.received
            assert (got.path, got.raw) == ("/hook", BODY)
            assert got.headers["content-type"] == "application/json"
            assert got.id == "evt_1"
            at = int(got.headers["webhook-timestamp"])
            assert abs(time.time() - at) < 5
            assert got.headers["webhook-signature"] == signature(SECRET, "evt_1", at, got.raw)

    asyncio.run(scenario())


def test_a_connection_is_kept_for_the_next() -> None:
    async def scenario() -> None:
        async with HookReceiver(200, 500, 204) as receiver:
            edge = sender()
            statuses = [(await edge.send(receiver.url, f"evt_{n}", BODY, (SECRET,))).status for n in range(3)]
            await edge.close()
            assert statuses == [200, 500, 204]
            assert receiver.connections == 1

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (500, 500, "status 500"),
        (410, 410, "status 410"),
        ("drop", None, "no answer: "),
        ("stall", None, "no answer within 0.3 s"),
    ],
)
def test_what_is_no_delivery(answer: Any, status: int | None, error: str) -> None:
    async def scenario() -> None:
        async with HookReceiver(answer) as receiver:
            attempt = await sent(receiver, send_s=0.3)
            assert not attempt.is_delivered
            assert attempt.status == status
            assert attempt.error.startswith(error)

    asyncio.run(scenario())


def test_a_redirect_is_not_followed() -> None:
    async def scenario() -> None:
        async with HookReceiver() as elsewhere, HookReceiver((302, {"Location": elsewhere.url})) as receiver:
            attempt = await sent(receiver)
            assert (attempt.status, attempt.is_delivered, attempt.error) == (302, False, "status 302")
            assert elsewhere.received == []

    asyncio.run(scenario())


def test_an_answer_without_an_end_counts_by_its_status_and_is_cut_off() -> None:
    async def scenario() -> None:
        async with HookReceiver("endless") as receiver:
            attempt = await sent(receiver)
            assert attempt.is_delivered
            assert attempt.took_s < 5

    asyncio.run(scenario())


def test_who_is_asked_for_patience_says_how_much() -> None:
    async def scenario() -> None:
        async with HookReceiver((429, {"Retry-After": "90"}), (503, {"Retry-After": "soon"})) as receiver:
            assert (await sent(receiver)).retry_after_s == 90
            assert (await sent(receiver)).retry_after_s is None

    asyncio.run(scenario())


def test_nobody_who_listens_is_a_failure_in_words() -> None:
    async def scenario() -> None:
        async with HookReceiver() as receiver:
            url = receiver.url
        edge = sender()
        attempt = await edge.send(url, "evt_1", BODY, (SECRET,))
        await edge.close()
        assert (attempt.status, attempt.error) == (None, "no answer: ConnectError")

    asyncio.run(scenario())


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.7", "169.254.169.254", "::1", "::ffff:10.0.0.7"])
def test_a_name_that_leads_inside_is_not_followed(address: str) -> None:
    async def scenario() -> None:
        async def resolve(host: str, port: int) -> list[str]:
            assert host == "hooks.example.com"
            return [address]

        async with HookReceiver() as receiver:
            port = receiver.url.rsplit(":", 1)[1].split("/")[0]
            edge = sender(allow_private=False, resolve=resolve)
            attempt = await edge.send(f"http://hooks.example.com:{port}/hook", "evt_1", BODY, (SECRET,))
            await edge.close()
            assert attempt.status is None
            assert attempt.error.startswith("the host is a ")
            assert receiver.received == []

    asyncio.run(scenario())


def test_connections_of_many_hosts_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.gateway.hooks.sending.MAX_HOSTS", 3)

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async def scenario() -> None:
        async with HookReceiver() as receiver:
            edge, port = sender(resolve=resolve), receiver.url.rsplit(":", 1)[1].split("/")[0]
            for n in range(6):
                await edge.send(f"http://h{n}.example.com:{port}/", f"evt_{n}", BODY, (SECRET,))
            assert len(edge._clients) == 3
            assert [got.headers["host"] for got in receiver.received] == [f"h{n}.example.com:{port}" for n in range(6)]
            assert receiver.connections == 6, "a connection for a name serves no other name"
            await edge.close()

    asyncio.run(scenario())
