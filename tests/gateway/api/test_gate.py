import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trunkline.errors import StoreError
from trunkline.gateway.api.accounts import account_routes
from trunkline.gateway.api.gate import Gate, Identities, new_key
from trunkline.gateway.api.guard import Guard
from trunkline.gateway.api.principal import scope_for, tenant_of
from trunkline.gateway.console.accounts import Accounts as Console
from trunkline.gateway.console.cookies import Cookies, csrf_token
from trunkline.gateway.console.passwords import Passwords
from trunkline.identity import Key, NewKey, NewUser, Scope
from trunkline.store.accounts import Accounts
from trunkline.store.apikeys import ApiKeys
from trunkline.store.engine import Database, database_url
from trunkline.testing.clock import ManualClock
from trunkline.types import DEFAULT_TENANT, TenantId

OURS = "0123456789abcdef"
SHOP = TenantId("shop")


class Keys(ApiKeys):
    """That can be away, and count how often they are asked."""

    away = False
    asked = 0

    async def by_id(self, key_id: str) -> Key | None:
        self.asked += 1
        if self.away:
            raise StoreError("away")
        return await super().by_id(key_id)


class Users(Accounts):
    away = False

    async def locked(self) -> bool:
        if self.away:
            raise StoreError("away")
        return await super().locked()


async def _tenant(request: Request) -> Response:
    return JSONResponse(tenant_of(request))


@dataclass
class House:
    folder: Path
    api_keys: tuple[str, ...] = ()
    clock: ManualClock = field(default_factory=ManualClock)

    def __post_init__(self) -> None:
        database = self.database = Database(database_url(None, self.folder))
        self.users, self.keys = Users(database, self.clock), Keys(database, self.clock)
        self.passwords = Passwords()
        self.console = Console(self.users, self.passwords, self.clock)
        self.gate = Gate(
            self.api_keys, self.clock, Identities(self.users, self.keys, self.console, Cookies(https=False))
        )
        routes = account_routes(
            self.users,
            self.keys,
            self.console,
            self.clock,
            "http://here",
            self.gate.forget_key,
            self.gate.forget_locked,
        )
        app = Starlette(
            routes=[*routes, Route("/v1/providers", _tenant)],
            middleware=[Middleware(Guard, self.gate, https=False)],
        )
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8080")

    async def key(self, name: str, *scopes: Scope, tenant: TenantId = SHOP) -> str:
        key, key_id, sha256 = new_key()
        await self.keys.create_key(tenant, "test", NewKey(name, key_id, sha256, frozenset(scopes)))
        self.gate.forget_locked()
        return key

    async def me(self, key: str | None = None, **headers: str) -> httpx.Response:
        given = {} if key is None else {"Authorization": f"Bearer {key}"}
        return await self.http.get("/v1/me", headers=given | headers)


def run(folder: Path, scenario: Callable[[House], Awaitable[None]], *api_keys: str) -> None:
    async def whole() -> None:
        house = House(folder, api_keys)
        await house.database.upgrade()
        try:
            await scenario(house)
        finally:
            await house.gate.close()
            house.passwords.close()
            await house.http.aclose()
            await house.database.close()

    asyncio.run(whole())


def test_the_operator_names_a_tenant_and_nobody_else_does(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        tenants = [(await house.me(OURS, **more)).json()["tenant"] for more in ({}, {"Trunkline-Tenant": "shop"})]
        assert tenants == [DEFAULT_TENANT, SHOP]
        assert (await house.me(OURS, **{"Trunkline-Tenant": "a b"})).status_code == 400
        key = await house.key("crm", "read")
        assert (await house.me(key, **{"Trunkline-Tenant": "default"})).status_code == 403
        assert (await house.me(key, **{"Trunkline-Tenant": "shop"})).json()["actor"] == "key:crm"
        assert (await house.me(OURS + "x")).status_code == (await house.me()).status_code == 401

    run(tmp_path, scenario, OURS)


def test_a_key_is_looked_up_once_in_five_seconds_and_forgotten_when_it_is_revoked_here(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        key = await house.key("crm", "read")
        admin = await house.key("boss", "admin", "read")
        for _ in range(5):
            assert (await house.me(key)).status_code == 200
        assert house.keys.asked == 1
        house.clock.advance(5)
        await house.me(key)
        assert house.keys.asked == 2
        there = await house.http.get("/v1/keys/crm", headers={"X-Api-Key": admin})
        assert (there.status_code, there.headers["etag"]) == (200, '"1"')
        stale = await house.http.delete("/v1/keys/crm", headers={"X-Api-Key": admin, "If-Match": '"2"'})
        assert (stale.status_code, stale.json()["code"]) == (412, "stale")
        gone = await house.http.delete("/v1/keys/crm", headers={"X-Api-Key": admin, "If-Match": '"1"'})
        assert gone.status_code == 204
        assert (await house.me(key)).status_code == 401

    run(tmp_path, scenario)


def test_without_its_database_the_gate_knows_whom_it_saw_within_a_minute(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        key, other = await house.key("crm", "read"), await house.key("new", "read")
        assert (await house.me(key)).status_code == 200
        house.keys.away = house.users.away = True
        house.clock.advance(59)
        assert (await house.me(key)).status_code == 200
        away = await house.me(other)
        assert (away.status_code, away.headers["retry-after"]) == (503, "5")
        house.clock.advance(1)
        assert (await house.me(key)).status_code == 503
        assert (await house.me(OURS)).status_code == 200

    run(tmp_path, scenario, OURS)


def test_an_open_gate_stays_as_it_was_without_its_database(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        house.users.away = True
        assert (await house.me()).status_code == 503  # never asked: perhaps there is somebody
        house.users.away = False
        house.clock.advance(5)
        assert (await house.me()).json()["actor"] == "operator"
        assert (await house.me(Host="evil.example")).status_code == 403
        assert (await house.me("anything", Host="evil.example")).status_code == 403
        house.users.away = True
        house.clock.advance(3600)
        assert (await house.me()).json()["actor"] == "operator"
        house.users.away = False
        house.clock.advance(1)
        await house.key("crm", "read")
        assert (await house.me()).status_code == 401

    run(tmp_path, scenario)


def test_a_key_that_expires_does_so_while_it_is_remembered(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        key, key_id, sha256 = new_key()
        until = house.clock.wall() + timedelta(seconds=3)
        await house.keys.create_key(SHOP, "x", NewKey("short", key_id, sha256, frozenset({"read"}), expires_at=until))
        assert (await house.me(key)).status_code == 200
        house.clock.advance(3)
        assert (await house.me(key)).status_code == 401

    run(tmp_path, scenario)


def test_when_a_key_was_used_is_written_once_a_minute(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        key = await house.key("crm", "read")
        used = []
        for seconds in (0, 10, 49, 1):
            house.clock.advance(seconds)
            await house.me(key)
            await asyncio.gather(*house.gate._used)
            found = await house.keys.key(SHOP, "crm")
            assert found is not None
            assert found.used_at is not None
            used.append(found.used_at)
        assert used[0] == used[1] == used[2]
        assert used[3] - used[0] == timedelta(seconds=60)

    run(tmp_path, scenario)


def test_the_consoles_cookie_opens_the_api_and_changes_need_its_token(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        ann = await house.users.create_user(SHOP, "test", NewUser("ann@example.com", "admin"))
        found = await house.console.signed_in(ann, "test")
        house.http.cookies["trunkline"] = found.token
        assert (await house.me()).json() == {
            "tenant": "shop",
            "actor": "user:ann",
            "role": "admin",
            "scopes": ["read", "listen", "calls", "write", "admin"],
        }
        new = {"name": "crm", "scopes": ["read"]}
        assert (await house.http.post("/v1/keys", json=new)).json()["code"] == "csrf"
        token = {"X-CSRF-Token": csrf_token(found.token)}
        for foreign in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "same-site"}):
            assert (await house.http.post("/v1/keys", json=new, headers=token | foreign)).json()["code"] == "csrf"
        made = await house.http.post("/v1/keys", json=new, headers=token)
        assert made.status_code == 201
        house.http.cookies.clear()
        assert (await house.me(made.json()["key"])).json()["actor"] == "key:crm"

    run(tmp_path, scenario)


def test_users_by_the_api(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        boss = {"X-Api-Key": await house.key("boss", "admin", "read")}
        made = await house.http.post("/v1/users", json={"email": "Ann@Example.com", "role": "admin"}, headers=boss)
        assert (made.status_code, made.headers["location"], made.json()["email"]) == (
            201,
            "/v1/users/ann",
            "ann@example.com",
        )
        user = await house.console.invited(made.json()["link"].partition("?token=")[2])
        assert user is not None
        assert (user.tenant, user.name) == (SHOP, "ann")
        wrong = await house.http.post("/v1/users", json={"email": "ann", "role": "boss"}, headers=boss)
        assert [each["field"] for each in wrong.json()["errors"]] == ["email", "role"]
        for changes, code in (({"role": "viewer"}, "last_admin"), ({"enabled": False}, "last_admin")):
            answer = await house.http.patch("/v1/users/ann", json=changes, headers=boss)
            assert (answer.status_code, answer.json()["code"]) == (409, code)
        assert (await house.http.patch("/v1/users/ann", json={"role": None}, headers=boss)).status_code == 422
        found = await house.console.signed_in(replace(user), "test")
        await house.http.post("/v1/users", json={"email": "eve@example.com", "role": "admin"}, headers=boss)
        assert await house.console.session(found.token) is not None
        changed = await house.http.patch("/v1/users/ann", json={"enabled": False}, headers=boss | {"If-Match": '"1"'})
        assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
        assert await house.console.session(found.token) is None
        first = (await house.http.get("/v1/users?limit=1", headers=boss)).json()
        rest = (await house.http.get(f"/v1/users?cursor={first['next_cursor']}", headers=boss)).json()
        assert [each["name"] for each in first["users"] + rest["users"]] == ["ann", "eve"]
        assert rest["next_cursor"] is None

    run(tmp_path, scenario)


def test_nobody_gives_away_a_scope_that_they_have_not(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        boss = {"X-Api-Key": await house.key("boss", "admin")}
        asked: dict[str, Any] = {"name": "more", "scopes": ["calls"]}
        assert (await house.http.post("/v1/keys", json=asked, headers=boss)).status_code == 403
        past = asked | {"scopes": ["admin"], "expires_at": "2020-01-01T00:00:00Z"}
        assert (await house.http.post("/v1/keys", json=past, headers=boss)).status_code == 422

    run(tmp_path, scenario)


def test_what_is_not_in_the_table_is_not_open() -> None:
    assert scope_for("GET", "/v1/none") is None
    assert scope_for("PUT", "/v1/calls") is None
    assert scope_for("HEAD", "/v1/calls") == "read"
    assert scope_for("GET", "/v1/calls/a/b") is None
