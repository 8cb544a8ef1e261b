"""A real gateway with an account at a local server that speaks Twilio's REST API, calls our webhooks with its signature
and opens our media socket."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from tests.fakes.twilio_server import FakeCall, Fate, TwilioServer

ACCOUNT, KEY, SECRET = "AC" + "1" * 32, "SK" + "2" * 32, "an-api-key-secret"
TOKEN, API_KEY = "0123456789abcdef0123456789abcdef", "an-api-key-of-some-length"
TO, FROM, DESK = "+14155550123", "+14155550100", "+14155550177"
TRANSFER = Path(__file__).parent / "agents" / "transfer.toml"


class Office:
    """The gateway and its Twilio."""

    def __init__(self, gateway: Any, twilio: TwilioServer, http: httpx.AsyncClient, settings: dict[str, str]) -> None:
        self.gateway, self.twilio, self.http, self.settings = gateway, twilio, http, settings

    async def dial(self, **order: Any) -> httpx.Response:
        return await self.http.post("/v1/calls", json={"to": TO, "trunk": "twilio"} | order)

    async def placed(self, **order: Any) -> str:
        answer = await self.dial(**order)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def record(self, call_id: str) -> dict[str, Any]:
        return dict((await self.http.get(f"/v1/calls/{call_id}")).json())

    async def until(self, true: Callable[[], Awaitable[bool]] | Callable[[], bool], within_s: float = 20.0) -> None:
        async with asyncio.timeout(within_s):
            while True:
                found = true()
                if found if isinstance(found, bool) else await found:
                    return
                await asyncio.sleep(0.05)

    async def ended(self, call_id: str, within_s: float = 20.0) -> dict[str, Any]:
        async def over() -> bool:
            return (await self.record(call_id)).get("ended_at") is not None

        await self.until(over, within_s)
        return await self.record(call_id)

    async def call(self) -> FakeCall:
        """The only one."""
        await self.until(lambda: len(self.twilio.created) == 1)
        return self.twilio.created[0]


def kinds(record: dict[str, Any]) -> list[str]:
    return [event["kind"] for event in record["events"]]


def data(record: dict[str, Any], kind: str) -> list[Any]:
    return [event["data"] for event in record["events"] if event["kind"] == kind]


def offices(start_gateway: Any) -> Callable[..., Any]:
    """`play(scenario, *fates, agent=..., **settings)`: a gateway with an account at a Twilio of its own."""

    def play(
        scenario: Callable[[Office], Awaitable[None]], *fates: Fate, agent: Path | None = None, **settings: str
    ) -> Any:
        async def run() -> Any:
            async with TwilioServer(ACCOUNT, {KEY: SECRET}, TOKEN, [FROM]) as twilio:
                twilio.fates.extend(fates)
                given = {
                    "http__api_key": API_KEY,
                    "twilio__auth_token": TOKEN,
                    "twilio__account_sid": ACCOUNT,
                    "twilio__api_key_sid": KEY,
                    "twilio__api_key_secret": SECRET,
                    "twilio__from_number": FROM,
                    "twilio__api_url": twilio.origin,
                    "outbound__allow": "US",
                }
                more = {"agent": agent} if agent else {}
                # The gateway asks its Twilio at start, so the loop must go on meanwhile.
                gateway = await asyncio.to_thread(lambda: start_gateway(**more, **(given | settings)))
                headers = {"Authorization": f"Bearer {API_KEY}"}
                async with httpx.AsyncClient(base_url=gateway.origin, headers=headers, trust_env=False) as http:
                    await scenario(Office(gateway, twilio, http, given | settings))
                assert twilio.unknown_fields == set()
                for secret in (SECRET, TOKEN, API_KEY, TO[1:]):
                    assert secret not in gateway.log
                return gateway

        return asyncio.run(run())

    return play
