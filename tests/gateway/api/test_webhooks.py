"""/v1/webhooks on a real database, its pings to a real server."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.fakes.hook_receiver import HookReceiver
from trunkline.clock import SYSTEM_CLOCK
from trunkline.errors import StoreError
from trunkline.gateway.api.problems import on_http_exception, on_store_error
from trunkline.gateway.api.webhooks import MAX_PAGE, PREVIOUS_S_MAX, webhook_desk_routes
from trunkline.gateway.hooks.bodies import Bodies
from trunkline.gateway.hooks.sending import Sender
from trunkline.gateway.hooks.signing import signature
from trunkline.hooks import EVENT_TYPES
from trunkline.identity import operator
from trunkline.privacy.calls import Policies
from trunkline.store.engine import Database, database_url
from trunkline.store.hookqueue import let_die
from trunkline.store.hooks import WebhookEndpoints
from trunkline.store.hookspool import HookSpool
from trunkline.testing.clock import ManualClock
from trunkline.types import TenantId

T = TenantId("default")
URL = "https://hooks.example.com/trunkline"
HOOKS = "/v1/webhooks"


class _AsTenant:
    """In place of what knows who asks."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            tenant = TenantId(dict(scope["headers"]).get(b"x-tenant", b"default").decode())
            scope.setdefault("state", {})["principal"] = operator(tenant)
        await self._app(scope, receive, send)


class House:
    def __init__(self, folder: Path, allow_private: bool) -> None:
        self.clock = ManualClock()
        self.database = Database(database_url(None, folder))
        self.endpoints = WebhookEndpoints(self.database, self.clock)
        self.hooks = HookSpool(self.database, Bodies(Policies()), self.clock)
        self.sender = Sender(SYSTEM_CLOCK, allow_private=allow_private)
        routes = webhook_desk_routes(self.endpoints, self.sender.send, self.clock, allow_private=allow_private)
        self.app = Starlette(
            routes=routes,
            lifespan=self.opened,
            middleware=[Middleware(_AsTenant)],
            exception_handlers={HTTPException: on_http_exception, StoreError: on_store_error},
        )

    @asynccontextmanager
    async def opened(self, app: Any) -> AsyncGenerator[None]:
        await self.database.upgrade()
        yield
        await self.sender.close()
        await self.database.close()

    async def happen(self, number: int) -> None:
        async with self.database.writing() as connection:
            at = self.clock.wall()
            await self.hooks.tell(connection, T, "number.changed", f"number/{number}", at, {"n": number})

    async def die(self) -> None:
        for endpoint in await self.endpoints.list(T):
            async with self.database.writing() as connection:
                await let_die(connection, T, endpoint.id)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path, allow_private=False)


@pytest.fixture
def http(house: House) -> Iterator[TestClient]:
    with TestClient(house.app) as client:
        yield client


def made(http: TestClient, **fields: Any) -> dict[str, Any]:
    answer = http.post(HOOKS, json={"url": URL, **fields})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"{HOOKS}/{found['id']}"
    return found


def test_a_secret_is_shown_once(http: TestClient) -> None:
    new = made(http, events=["call.ended", "call.ended"])
    assert new["secret"].startswith("whsec_")
    assert (new["events"], new["enabled"], new["transcripts"], new["version"]) == (["call.ended"], True, False, 1)
    rotated = http.post(f"{HOOKS}/{new['id']}/rotate", json={"previous_valid_s": 60}).json()
    assert rotated["secret"] != new["secret"]
    one, listed = http.get(f"{HOOKS}/{new['id']}"), http.get(HOOKS)
    assert listed.json() == {"webhooks": [one.json()]}
    for answer in (one, listed, http.patch(f"{HOOKS}/{new['id']}", json={"transcripts": True})):
        assert "whsec_" not in answer.text
    assert (one.json()["url"], one.headers["etag"]) == (URL, '"2"')


def test_a_rotation_leaves_the_old_secret_for_a_while(http: TestClient, house: House) -> None:
    new = made(http)
    answer = http.post(f"{HOOKS}/{new['id']}/rotate", json={}).json()
    assert answer["previous_valid_until"] == (house.clock.wall() + timedelta(hours=24)).isoformat()
    for wrong in ({"previous_valid_s": -1}, {"previous_valid_s": PREVIOUS_S_MAX + 1}, {"x": 1}):
        assert http.post(f"{HOOKS}/{new['id']}/rotate", json=wrong).status_code == 422


def test_a_change_from_an_older_version_is_412(http: TestClient) -> None:
    one = f"{HOOKS}/{made(http)['id']}"
    etag = http.get(one).headers["etag"]
    changed = http.patch(one, json={"events": ["call.started"], "enabled": False}, headers={"If-Match": etag})
    assert (changed.status_code, changed.json()["enabled"]) == (200, False)
    assert changed.headers["etag"] != etag
    for stale in (etag, "nonsense"):
        refused = http.patch(one, json={"enabled": True}, headers={"If-Match": stale})
        assert (refused.status_code, refused.json()["code"]) == (412, "wrong_etag")
        assert http.delete(one, headers={"If-Match": stale}).status_code == 412
    assert http.patch(one, json={"enabled": True}, headers={"If-Match": "*"}).json()["enabled"] is True
    assert http.delete(one).status_code == 204
    assert http.get(one).status_code == http.delete(one).status_code == 404


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/",
        "ftp://hooks.example.com/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://169.254.169.254/latest",
        "https://user:password@hooks.example.com/",
        "https://hooks.example.com/#part",
        "https:///nowhere",
        "https://hooks.example.com:99999/",
        "https://hooks.example.com/a b",
        "https://h\u00f6\u00f6ks.example.com/",
        "hooks",
        "",
    ],
)
def test_a_url_that_is_none_of_a_public_host_is_refused(http: TestClient, url: str) -> None:
    one = f"{HOOKS}/{made(http)['id']}"
    for answer in (http.post(HOOKS, json={"url": url}), http.patch(one, json={"url": url})):
        assert answer.status_code == 422
        assert [error["field"] for error in answer.json()["errors"]] == ["url"]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"events": ["call.exploded"]}, "events"),
        ({"events": ["ping"]}, "events"),
        ({"events": "call.ended"}, "events"),
        ({"enabled": "yes"}, "enabled"),
        ({"transcripts": 1}, "transcripts"),
        ({"secret": "mine"}, "?"),
    ],
)
def test_wrong_fields_are_named(http: TestClient, fields: dict[str, Any], wrong: str) -> None:
    answer = http.post(HOOKS, json={"url": URL, **fields})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [wrong]
    assert http.post(HOOKS, content=b"url=x").status_code == 415
    assert made(http, events=list(EVENT_TYPES))["events"] == list(EVENT_TYPES)


def test_a_change_to_nothing_is_refused(http: TestClient) -> None:
    one = f"{HOOKS}/{made(http)['id']}"
    for field in ("url", "events", "enabled", "transcripts"):
        answer = http.patch(one, json={field: None})
        assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_there_are_only_so_many(http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.store.hooks.MAX_ENDPOINTS", 3)
    for _ in range(3):
        made(http)
    answer = http.post(HOOKS, json={"url": URL})
    assert (answer.status_code, answer.json()["code"]) == (409, "too_many")


def test_deliveries_are_paged_filtered_and_sent_again(http: TestClient, house: House) -> None:
    one = f"{HOOKS}/{made(http)['id']}"
    for number in range(5):
        http.portal.call(house.happen, number)  # type: ignore[union-attr]
        house.clock.advance(1)
    first = http.get(f"{one}/deliveries?limit=3").json()
    second = http.get(f"{one}/deliveries", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert [len(first["deliveries"]), len(second["deliveries"]), second["next_cursor"]] == [3, 2, None]
    assert {each["event"] for each in first["deliveries"]} == {"number.changed"}
    assert http.get(f"{one}/deliveries?state=dead").json()["deliveries"] == []

    http.portal.call(house.die)  # type: ignore[union-attr]
    dead = http.get(f"{one}/deliveries?state=dead").json()["deliveries"]
    assert len(dead) == 5
    again = http.post(f"{one}/deliveries/{dead[0]['id']}/redeliver", json={})
    assert (again.status_code, again.json()["state"], again.json()["id"]) == (202, "waiting", dead[0]["id"])
    assert http.post(f"{one}/deliveries/evt_0/redeliver", json={}).status_code == 404
    http.patch(one, json={"enabled": False})
    refused = http.post(f"{one}/deliveries/{dead[0]['id']}/redeliver", json={})
    assert (refused.status_code, refused.json()["code"]) == (409, "disabled")


@pytest.mark.parametrize("query", ["limit=0", f"limit={MAX_PAGE + 1}", "limit=x", "cursor=x", "state=lost"])
def test_a_question_that_is_none_is_refused(http: TestClient, query: str) -> None:
    one = f"{HOOKS}/{made(http)['id']}"
    assert http.get(f"{one}/deliveries?{query}").status_code == 400


def test_another_tenant_sees_and_changes_nothing(http: TestClient, house: House) -> None:
    new = made(http)
    one, theirs = f"{HOOKS}/{new['id']}", {"X-Tenant": "other"}
    http.portal.call(house.happen, 1)  # type: ignore[union-attr]
    (delivery,) = http.get(f"{one}/deliveries").json()["deliveries"]
    assert http.get(HOOKS, headers=theirs).json() == {"webhooks": []}
    answers = [
        http.get(one, headers=theirs),
        http.patch(one, json={"enabled": False}, headers=theirs),
        http.delete(one, headers=theirs),
        http.post(f"{one}/rotate", json={}, headers=theirs),
        http.post(f"{one}/test", json={}, headers=theirs),
        http.get(f"{one}/deliveries", headers=theirs),
        http.post(f"{one}/deliveries/{delivery['id']}/redeliver", json={}, headers=theirs),
    ]
    assert [answer.status_code for answer in answers] == [404] * 7
    assert http.get(one).json()["version"] == 1


def test_a_ping_says_what_was_answered(tmp_path: Path) -> None:
    house = House(tmp_path, allow_private=True)
    with receiving(200, 500) as receiver, TestClient(house.app) as http:
        new = made(http, url=receiver.url)
        one = f"{HOOKS}/{new['id']}"
        good, bad = (http.post(f"{one}/test", json={}).json() for _ in range(2))
        assert (good["delivered"], good["status"], good["error"]) == (True, 200, "")
        assert (bad["delivered"], bad["status"], bad["error"]) == (False, 500, "status 500")
        got = receiver.received[0]
        assert got.body["type"] == "ping"
        assert got.body["data"] == {"webhook_id": new["id"]}
        expected = signature(new["secret"], got.id, int(got.headers["webhook-timestamp"]), got.raw)
        assert got.headers["webhook-signature"] == expected


class receiving:
    """A receiver on a loop of its own."""

    def __init__(self, *answers: Any) -> None:
        self._receiver, self._loop = HookReceiver(*answers), asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> HookReceiver:
        self._thread.start()
        return asyncio.run_coroutine_threadsafe(self._receiver.__aenter__(), self._loop).result(5)

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._receiver.__aexit__(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()
