"""A real gateway with an account at a local server that speaks Twilio's REST API, calls our webhooks with its signature
and opens our media socket."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from tests.fakes.twilio_server import FakeCall, Fate, TwilioServer
from trunkline.media import g711, tones
from trunkline.media.music import hold_music
from trunkline.testing.caller.commands import resolve
from trunkline.testing.caller.script import HangUp, Listen, Say

ACCOUNT, KEY, SECRET = "AC" + "1" * 32, "SK" + "2" * 32, "an-api-key-secret"
TOKEN, API_KEY = "0123456789abcdef0123456789abcdef", "an-api-key-of-some-length"
TO, FROM, DESK = "+14155550123", "+14155550100", "+14155550177"
SUMMARY = "It is about a lost key."
QUESTION, ANSWER = "when are you open", "We open at eight in the morning."
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


# --- a caller, and what is heard ------------------------------------------------------------------------------------


def tone(hz: int) -> bytes:
    """A frame: whole cycles."""
    pcm = (4000 * np.sin(2 * np.pi * hz * np.arange(160) / 8000)).astype("<i2")
    return bytes(g711.encode(pcm.tobytes(), "mulaw"))


def frames(audio: bytes) -> frozenset[bytes]:
    return frozenset(audio[at : at + 160] for at in range(0, len(audio), 160))


CALLERS, DESKS, SILENCE = tone(600), tone(1100), b"\xff" * 160
MUSIC, RINGBACK = frames(hold_music().audio) - {SILENCE}, frames(tones.tone("ringback", "US").audio) - {SILENCE}


def what(heard: list[bytes]) -> Counter[str]:
    """How many frames of what; words are `other`."""
    found: Counter[str] = Counter()
    for frame in heard:
        if frame in (CALLERS, DESKS, SILENCE):
            found["caller" if frame == CALLERS else "desk" if frame == DESKS else "silence"] += 1
        else:
            found["music" if frame in MUSIC else "ringback" if frame in RINGBACK else "other"] += 1
    return found


class Case:
    """A caller who has heard the greeting, and asked a question where `asks`."""

    def __init__(self, o: Office, caller: FakeCall, call_id: str) -> None:
        self.o, self.caller, self.id = o, caller, call_id

    @classmethod
    async def begins(cls, o: Office, *, asks: bool = False) -> "Case":
        told = [Listen(), *await resolve([Say(QUESTION)], "en-us")] if asks else []
        caller = o.twilio.rings(o.gateway.origin, Fate(actions=told, live=True))
        found: list[str] = []

        async def greeted() -> bool:
            calls = (await o.http.get("/v1/calls")).json()["calls"]
            found[:] = [call["id"] for call in calls if call["provider_call_id"] == caller.sid]
            said = (await o.record(found[0]))["turns"] if found else []
            return any((ANSWER if asks else "Hello.") in turn["agent_text"] for turn in said)

        await o.until(greeted, 30)
        await o.until(lambda: set(caller.heard[-30:]) == {SILENCE})
        return cls(o, caller, found[0])

    async def post(self, hand: str, **asked: Any) -> None:
        answer = await self.o.http.post(f"/v1/calls/{self.id}/{hand}", json=asked)
        assert answer.status_code == 202, answer.text

    async def sends(self, kind: str) -> FakeCall:
        """To the desk; its call, as soon as Twilio has it."""
        await self.post("transfer", target="desk", kind=kind, summary=SUMMARY)
        return await self.o.call()

    async def has(self, kind: str, within_s: float = 20.0) -> None:
        async def happened() -> bool:
            return kind in kinds(await self.record())

        await self.o.until(happened, within_s)

    async def record(self) -> dict[str, Any]:
        return await self.o.record(self.id)

    async def agent_says(self, words: str, within_s: float = 20.0) -> None:
        async def said() -> bool:
            return any(words in turn["agent_text"] for turn in (await self.record())["turns"])

        await self.o.until(said, within_s)

    async def leaves(self) -> dict[str, Any]:
        self.caller.do(HangUp())
        return await self.o.ended(self.id)

    @staticmethod
    async def hears(call: FakeCall, for_s: float = 1.0) -> Counter[str]:
        began = len(call.heard)
        await asyncio.sleep(for_s)
        return what(call.heard[began:])


def attempts(record: dict[str, Any]) -> list[tuple[str, str]]:
    return [(attempt["how"], attempt["result"]) for attempt in data(record, "transfer_attempt")]


# --- the office -----------------------------------------------------------------------------------------------------


def offices(start_gateway: Any) -> Callable[..., Any]:
    """`play(scenario, *fates, agent=..., **settings)`: a gateway with an account at a Twilio of its own. None: no
    such setting."""

    def play(
        scenario: Callable[[Office], Awaitable[None]], *fates: Fate, agent: Path | None = None, **settings: str | None
    ) -> Any:
        async def run() -> Any:
            async with TwilioServer(ACCOUNT, {KEY: SECRET}, TOKEN, [FROM]) as twilio:
                twilio.fates.extend(fates)
                given: dict[str, str | None] = {
                    "http__api_key": API_KEY,
                    "twilio__auth_token": TOKEN,
                    "twilio__account_sid": ACCOUNT,
                    "twilio__api_key_sid": KEY,
                    "twilio__api_key_secret": SECRET,
                    "twilio__from_number": FROM,
                    "twilio__api_url": twilio.origin,
                    "outbound__allow": "US",
                }
                ours = {name: value for name, value in (given | settings).items() if value is not None}
                more = {"agent": agent} if agent else {}
                # The gateway asks its Twilio at start, so the loop must go on meanwhile.
                gateway = await asyncio.to_thread(lambda: start_gateway(**more, **ours))
                headers = {"Authorization": f"Bearer {API_KEY}"}
                async with httpx.AsyncClient(base_url=gateway.origin, headers=headers, trust_env=False) as http:
                    await scenario(Office(gateway, twilio, http, ours))
                assert twilio.unknown_fields == set()
                for secret in (SECRET, TOKEN, API_KEY, TO[1:]):
                    assert secret not in gateway.log
                return gateway

        return asyncio.run(run())

    return play
