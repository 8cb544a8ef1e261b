"""What a site's backend asks for its devices, over a real desk, store and database."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from tests.gateway.api.coming import As
from tests.gateway.sessions.test_desk import FakeDevices, House
from tests.gateway.sessions.test_keeper import ASKED, FakeCall
from trunkline.errors import StoreError
from trunkline.gateway.api.devices import device_routes
from trunkline.gateway.api.problems import on_http_exception, on_store_error
from trunkline.gateway.regions import Region, Regions
from trunkline.ports import Conflict, Device, Refuse, Registration
from trunkline.types import SessionId, TenantId

EU = Region("eu", "https://eu.example.com", 50.11, 8.68)
US = Region("us", "https://us.example.com:8443", 38.9, -77.45)
ME = {"device_id": "kitchen", "account_id": "ann"}


class Devices(FakeDevices):
    """Keeps what is said."""

    away = False

    async def register(
        self, tenant: TenantId, device_id: str, device_account: str, said: Registration | None = None
    ) -> Device | Conflict:
        if self.away:
            raise StoreError("the database is away")
        device = await super().register(tenant, device_id, device_account)
        if isinstance(device, Device) and said is not None:
            at = device.created
            device = Device(
                device_id, tenant, device_account, at, at, said.name, said.needs_arming, facts=dict(said.facts)
            )
            self.known[device_id] = device
        return device

    async def get(self, tenant: TenantId, device_id: str) -> Device | None:
        if self.away:
            raise StoreError("the database is away")
        return await super().get(tenant, device_id)


class Rooms:
    def __init__(self) -> None:
        self.told: dict[str, object] = {}
        self.forgotten: list[str] = []

    async def invite(self, session_id: SessionId, device_id: str, until: datetime) -> dict[str, object]:
        return self.told

    def forget(self, session_id: SessionId) -> None:
        self.forgotten.append(session_id)


class Api:
    def __init__(self) -> None:
        self.house = House()
        self.house.devices = self.house.desk._devices = Devices()
        self.ready = True
        self.regions = Regions([EU, US], "eu", lambda: self.ready)
        self.regions.answered("us", True)
        self.rooms = Rooms()
        app = Starlette(
            routes=device_routes(self.house.desk, self.house.devices, self.regions, self.rooms),
            exception_handlers={HTTPException: on_http_exception, StoreError: on_store_error},
            middleware=[Middleware(As)],
        )
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here")

    async def open(self, **more: Any) -> httpx.Response:
        return await self.http.post("/v1/session", json=ME | more)


def run(scenario: Callable[[Api], Any]) -> None:
    asyncio.run(scenario(Api()))


def told(answer: httpx.Response) -> tuple[int, Any]:
    return answer.status_code, answer.json().get("code")


def test_a_session_is_opened_and_its_token_lets_the_device_in() -> None:
    async def scenario(api: Api) -> None:
        answer = await api.open(agent="clinic")
        opened = answer.json()
        assert answer.status_code == 201
        assert answer.headers["location"] == f"/v1/session/{opened['session_id']}"
        assert opened["webrtc_url"] == "https://eu.example.com/whip"
        assert opened["ws_url"] == "wss://eu.example.com/ws/audio"
        assert opened["region"] == "eu"
        assert "livekit_url" not in opened
        expires = datetime.fromisoformat(opened["expires_at"]).astimezone(UTC)
        assert (expires - api.house.clock.wall()).total_seconds() == 60
        joining = await api.house.join(opened["join_token"])
        assert joining.session_id == opened["session_id"]
        api.rooms.told = {"livekit_url": "wss://livekit.example.com", "livekit_token": "x.y.z"}
        assert (await api.open()).json()["livekit_url"] == "wss://livekit.example.com"

    run(scenario)


@pytest.mark.parametrize(
    ("body", "status", "fields"),
    [
        ({}, 422, ["account_id", "device_id"]),
        (ME | {"device_id": ""}, 422, ["device_id"]),
        (ME | {"device_id": "a b"}, 422, ["device_id"]),
        (ME | {"account_id": "x" * 129}, 422, ["account_id"]),
        (ME | {"device_id": 7}, 422, ["device_id"]),
        (ME | {"agent": "ghost"}, 422, ["agent"]),
        (ME | {"more": 1}, 422, ["?"]),
    ],
)
def test_what_is_wrong_is_named(body: Any, status: int, fields: list[str]) -> None:
    async def scenario(api: Api) -> None:
        answer = await api.http.post("/v1/session", json=body)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert [error["field"] for error in answer.json()["errors"]] == fields

    run(scenario)


def test_a_form_is_not_taken() -> None:
    async def scenario(api: Api) -> None:
        assert (await api.http.post("/v1/session", data=ME)).status_code == 415
        assert (await api.http.post("/v1/session", content="{", headers={"Content-Type": "application/json"})).json()[
            "status"
        ] == 400

    run(scenario)


def test_not_now_says_when_to_come_back() -> None:
    async def scenario(api: Api) -> None:
        api.house.no_line = Refuse("draining", "the gateway is being stopped")
        answer = await api.open()
        assert told(answer) == (503, "draining")
        assert answer.headers["retry-after"] == "5"
        api.house.no_line = None
        api.house.away = True
        answer = await api.open()
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")

    run(scenario)


def test_its_owner_sees_it_and_nobody_else() -> None:
    async def scenario(api: Api) -> None:
        opened = (await api.open()).json()
        here = f"/v1/session/{opened['session_id']}"
        joining = await api.house.join(opened["join_token"])
        call = FakeCall()
        api.house.keeper.begun(joining, call)
        call.conversation = (ASKED,)
        await api.house.keeper.flush(joining.session_id)
        shown = (await api.http.get(here, params={"account_id": "ann"})).json()
        assert [(said["role"], said["text"]) for said in shown["conversation"]] == [("caller", ASKED.text)]
        assert datetime.fromisoformat(shown["conversation"][0]["at"]).tzinfo is not None
        assert (shown["call_id"], shown["joins"], shown["ended_as"]) == ("call_1", 1, None)
        assert told(await api.http.get(here, params={"account_id": "bob"})) == (403, "not_owner")
        assert told(await api.http.get(here)) == (422, "invalid_fields")
        assert told(await api.http.get("/v1/session/ses_9", params={"account_id": "ann"})) == (404, "unknown_session")

    run(scenario)


def test_its_owner_ends_it_and_nobody_else() -> None:
    async def scenario(api: Api) -> None:
        opened = (await api.open()).json()
        here = f"/v1/session/{opened['session_id']}"
        assert told(await api.http.delete(here)) == (422, "invalid_fields")
        assert told(await api.http.delete(here, params={"account_id": "bob"})) == (403, "not_owner")
        await api.house.join(opened["join_token"])
        assert api.rooms.forgotten == []
        ended = await api.http.delete(here, params={"account_id": "ann"})
        assert (ended.status_code, ended.content) == (204, b"")
        assert api.rooms.forgotten == [opened["session_id"]]
        assert told(await api.http.delete(here, params={"account_id": "ann"})) == (404, "unknown_session")

    run(scenario)


def test_a_device_that_comes_back_gets_another_token_for_the_same_session() -> None:
    async def scenario(api: Api) -> None:
        opened = (await api.open()).json()
        await api.house.join(opened["join_token"])
        here = f"/v1/session/{opened['session_id']}/token"
        again = await api.http.post(here, json={"account_id": "ann"})
        assert (again.status_code, again.json()["session_id"]) == (201, opened["session_id"])
        assert (await api.house.join(again.json()["join_token"])).number == 2
        assert told(await api.http.post(here, json={"account_id": "bob"})) == (403, "not_owner")
        assert told(await api.http.post("/v1/session/ses_9/token", json={"account_id": "ann"}))[0] == 404

    run(scenario)


def test_a_device_registers_as_often_as_it_likes() -> None:
    async def scenario(api: Api) -> None:
        here, said = "/v1/device/kitchen/register", {"account_id": "ann", "name": "Kitchen", "needs_arming": True}
        first = await api.http.post(here, json=said | {"facts": {"model": "s1"}})
        assert first.status_code == 201
        assert {name: first.json()[name] for name in ("device_id", "account_id", "name", "needs_arming", "facts")} == {
            "device_id": "kitchen",
            **said,
            "facts": {"model": "s1"},
        }
        assert (await api.http.post(here, json=said)).status_code == 201
        assert told(await api.http.post(here, json=said | {"account_id": "bob"})) == (409, "device_taken")
        assert told(await api.open(account_id="bob")) == (409, "device_taken")
        joining = await api.house.join((await api.open()).json()["join_token"])
        assert joining.needs_arming

    run(scenario)


@pytest.mark.parametrize(
    ("device_id", "body"),
    [
        ("a b", {"account_id": "ann"}),
        ("x" * 129, {"account_id": "ann"}),
        ("kitchen", {"account_id": "ann", "facts": {"n": "line\nend"}}),
        ("kitchen", {"account_id": "ann", "facts": {"n" * 65: "x"}}),
        ("kitchen", {"account_id": "ann", "facts": {f"n{n}": "x" for n in range(33)}}),
        ("kitchen", {"account_id": "ann", "name": "x" * 129}),
        ("kitchen", {}),
    ],
)
def test_a_registration_that_is_wrong_is_refused(device_id: str, body: Any) -> None:
    async def scenario(api: Api) -> None:
        assert told(await api.http.post(f"/v1/device/{device_id}/register", json=body)) == (422, "invalid_fields")
        assert api.house.devices.known == {}

    run(scenario)


def test_a_device_is_led_to_the_nearest_healthy_region() -> None:
    async def scenario(api: Api) -> None:
        async def hint(**query: Any) -> httpx.Response:
            return await api.http.get("/v1/routing/hint", params={"device_id": "kitchen"} | query)

        assert (await hint(lat=42.36, lon=-71.06)).json() == {
            "region": "us",
            "url": US.url,
            "webrtc_url": "https://us.example.com:8443/whip",
            "ws_url": "wss://us.example.com:8443/ws/audio",
            "session_url": "https://us.example.com:8443/v1/session",
            "distance_km": pytest.approx(664, abs=15),
        }
        here = (await hint()).json()
        assert (here["region"], here["distance_km"]) == ("eu", None)
        facts = {"lat": "42.36", "lon": "-71.06"}
        await api.http.post("/v1/device/kitchen/register", json={"account_id": "ann", "facts": facts})
        assert (await hint()).json()["region"] == "us"  # where it said it is
        assert (await hint(lat=52, lon=13)).json()["region"] == "eu"
        api.house.devices.away = True  # type: ignore[attr-defined]
        assert (await hint()).json()["region"] == "eu"
        for _ in range(2):
            api.regions.answered("us", False)
        assert (await hint(lat=42.36, lon=-71.06)).json()["region"] == "eu"
        api.ready = False
        nowhere = await hint(lat=42.36, lon=-71.06)
        assert told(nowhere) == (503, "no_region")
        assert nowhere.headers["retry-after"] == "5"

    run(scenario)


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ({}, ["device_id"]),
        ({"device_id": "k", "lat": "91", "lon": "0"}, ["lat"]),
        ({"device_id": "k", "lat": "nan", "lon": "inf"}, ["lat", "lon"]),
        ({"device_id": "k", "lat": "north", "lon": "0"}, ["lat"]),
        ({"device_id": "k", "lat": "1"}, ["lon"]),
        ({"device_id": "k", "lon": "1"}, ["lat"]),
    ],
)
def test_a_place_that_is_none_is_refused(query: dict[str, str], fields: list[str]) -> None:
    async def scenario(api: Api) -> None:
        answer = await api.http.get("/v1/routing/hint", params=query)
        assert answer.status_code == 422
        assert [error["field"] for error in answer.json()["errors"]] == fields

    run(scenario)
