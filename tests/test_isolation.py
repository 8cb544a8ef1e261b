"""Every route of /v1 of a gateway as it is wired, asked by whoever may not: another tenant, a viewer, nobody, a key
that has expired. The routes come from the gateway, so a new one is in here by itself; what belongs to whom is held
against the database before and after.
"""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import uvloop
from sqlalchemy import Table, insert, select
from starlette.routing import Route

from trunkline.app import Gateway, gateway
from trunkline.clock import SYSTEM_CLOCK
from trunkline.gateway.api.gate import new_key
from trunkline.gateway.api.principal import scope_for
from trunkline.identity import SCOPES, NewKey, NewUser, Scope
from trunkline.numbers.desk import new, read
from trunkline.privacy.sealed import KeyRing
from trunkline.privacy.texts import TextSeal
from trunkline.settings import Settings
from trunkline.store import models
from trunkline.store.accounts import Accounts
from trunkline.store.apikeys import ApiKeys
from trunkline.store.desk import Desk as DeskStore
from trunkline.store.engine import Database, database_url
from trunkline.testing.ports import lease
from trunkline.types import DEFAULT_TENANT, TenantId

AGENT = Path(__file__).parents[1] / "bench" / "standin.toml"
OTHER = TenantId("other")
STREAM = "/v1/events"
CANARY = "canary-of-default"
TOLD = "nobody-elses-business"
"""In what belongs to the key CANARY."""
NAMES = {"call_id": CANARY, "leg_id": CANARY, "session_id": CANARY, "subject": "+14155550188", "device_id": CANARY}
"""Of what the default tenant has, by the path's parameter. Of any other parameter CANARY."""
EVERYBODYS = {"subject", "device_id"}
"""A tenant may ask about any phone number, and names its devices as it likes: only that it sees its own is held."""


@dataclass
class House:
    running: Gateway
    http: httpx.AsyncClient
    database: Database
    keys: dict[str, str] = field(default_factory=dict)

    def routes(self) -> list[tuple[str, str]]:
        return [
            (method, route.path)
            for route in self.running.http.routes
            if isinstance(route, Route) and route.path.startswith("/v1/")
            for method in sorted((route.methods or set()) - {"HEAD", "OPTIONS"})
        ]

    async def ask(self, method: str, path: str, key: str | None = None) -> httpx.Response:
        headers = {"If-Match": "*"} if key is None else {"Authorization": f"Bearer {key}", "If-Match": "*"}
        body: dict[str, Any] = {} if method in ("GET", "DELETE") else {"json": _BODIES.get((method, path), {})}
        if path == STREAM:
            return await self._head_of(headers)
        return await self.http.request(method, filled(path), headers=headers, **body)

    async def _head_of(self, headers: dict[str, str]) -> httpx.Response:
        """Of what never ends: its status and its first words; then we are gone."""
        said: list[Any] = []
        begun = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if not begun.is_set():
                await asyncio.sleep(0)
            await begun.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            said.append(message)
            if message["type"] == "http.response.body":
                begun.set()

        fields = [
            (name.lower().encode(), value.encode()) for name, value in {"host": "127.0.0.1:8080", **headers}.items()
        ]
        scope = {"type": "http", "method": "GET", "path": STREAM, "raw_path": STREAM.encode(), "query_string": b""}
        scope |= {
            "headers": fields,
            "http_version": "1.1",
            "scheme": "http",
            "server": ("127.0.0.1", 8080),
            "root_path": "",
        }
        async with asyncio.timeout(10):
            await self.running.http(scope, receive, send)
        body = b"".join(message.get("body", b"") for message in said[1:])
        return httpx.Response(said[0]["status"], headers=said[0]["headers"], content=body)

    async def rows(self, tenant: TenantId) -> dict[str, list[Any]]:
        """All that a tenant has, in all tables; without when its own keys were used, which is written later."""
        found = {}
        async with self.database.read() as connection:
            for table in models.Base.metadata.sorted_tables:
                if "tenant_id" in table.c:
                    mine = await connection.execute(
                        select(*(c for c in table.c if c.name != "used_at")).where(table.c.tenant_id == tenant)
                    )
                    found[table.name] = sorted(map(repr, mine))
        return found


_BODIES = {
    ("POST", "/v1/calls"): {"to": "+14155550123"},
    ("POST", "/v1/calls/{call_id}/transfer"): {"target": "desk"},
    ("POST", "/v1/calls/{call_id}/mute"): {"muted": True},
    ("POST", "/v1/calls/{call_id}/legs"): {"target": "desk"},
    ("PATCH", "/v1/calls/{call_id}/legs/{leg_id}"): {"muted": True},
    ("POST", "/v1/session"): {"device_id": "d", "account_id": "a"},
    ("POST", "/v1/session/{session_id}/token"): {"account_id": "a"},
    ("POST", "/v1/device/{device_id}/register"): {"account_id": "a"},
    ("POST", "/v1/consent"): {"event": "revoke", "subject": "+14155550188"},
    ("POST", "/v1/dnc"): {"number": "+14155550188"},
    ("POST", "/v1/users"): {"email": "new@example.com"},
    ("PATCH", "/v1/users/{key}"): {"enabled": False},
    ("POST", "/v1/keys"): {"name": "new", "scopes": ["read"]},
    ("PATCH", "/v1/keys/{key}"): {"enabled": False},
}


def filled(path: str) -> str:
    filled = re.sub(r"\{([a-z_]+)(:[a-z]+)?\}", lambda found: NAMES.get(found[1], CANARY), path)
    return f"{filled}?account_id=a&device_id=d" if "session" in path or "hint" in path else filled


@asynccontextmanager
async def house(folder: Path) -> AsyncGenerator[House]:
    settings = Settings(agent=AGENT, data_dir=folder, http={"port": lease()}, sip={"enabled": False})  # type: ignore[arg-type]
    async with gateway(settings) as running:
        transport = httpx.ASGITransport(running.http)
        database = Database(database_url(None, folder))
        await database.upgrade()
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as http:
            found = House(running, http, database)
            await _furnish(found)
            yield found
        await database.close()


async def _furnish(house: House) -> None:
    clock = SYSTEM_CLOCK
    users, keys = Accounts(house.database, clock), ApiKeys(house.database, clock)
    await users.create_user(DEFAULT_TENANT, "test", NewUser(f"{TOLD}@example.com", "admin", CANARY, TOLD))
    every, soon = frozenset(SCOPES), clock.wall() - timedelta(seconds=1)
    for tenant, name, scopes, expires in (
        (DEFAULT_TENANT, CANARY, every, None),
        (OTHER, "theirs", every, None),
        (DEFAULT_TENANT, "viewer", frozenset[Scope]({"read"}), None),
        (DEFAULT_TENANT, "expired", every, soon),
        (DEFAULT_TENANT, "disabled", every, None),
    ):
        key, key_id, sha256 = new_key()
        await keys.create_key(tenant, "test", NewKey(name, key_id, sha256, scopes, expires_at=expires))
        house.keys[name] = key
    await keys.change_key(DEFAULT_TENANT, "test", "disabled", {"enabled": False})
    store = DeskStore(house.database, clock, TextSeal(KeyRing({"one": bytes(32)})))
    more: dict[str, dict[str, Any]] = {
        "carriers": {"type": "generic"},
        "trunks": {"settings": {"peers": ["192.0.2.1"]}},
        "hours": {"zone": "UTC", "weekly": {}},
        "agents": {"draft": TOLD},
        "routes": {"answer": {"kind": "busy"}},
        "budgets": {"scope": "tenant", "per": "day", "usd": "5"},
    }
    async with store.changing(DEFAULT_TENANT, "test") as changes:
        for kind, fields in more.items():
            await changes.create([new(read(kind, {"name": CANARY, "label": TOLD, **fields}))])
        await changes.add_version(CANARY, TOLD, "")
    row = {"id": CANARY} | {name: TOLD for name in ("agent", "worker", "run", "provider_call_id")}
    rest = {"tenant_id": DEFAULT_TENANT, "direction": "inbound", "leg": "sip", "started_at": clock.wall()}
    async with house.database.writing() as connection:
        await connection.execute(insert(cast(Table, models.Call.__table__)).values({**row, **rest}))
        await connection.execute(
            insert(cast(Table, models.Device.__table__)).values(
                tenant_id=DEFAULT_TENANT,
                id=CANARY,
                device_account=TOLD,
                name=TOLD,
                needs_arming=False,
                facts={},
                created_at=clock.wall(),
                seen_at=clock.wall(),
            )
        )


def run(folder: Path, scenario: Any) -> None:
    async def whole() -> None:
        async with house(folder) as found:
            await scenario(found)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(whole())


def test_each_route_is_its_tenants_and_its_scopes_only(tmp_path: Path) -> None:
    async def scenario(here: House) -> None:
        routes = here.routes()
        assert len(routes) > 40

        unlisted = [route for route in routes if scope_for(route[0], filled(route[1]).partition("?")[0]) is None]
        assert unlisted == [], "write them into TABLE (gateway/api/principal.py)"

        for who in (None, "expired", "disabled"):
            key = None if who is None else here.keys[who]
            answers = [(route, (await here.ask(*route, key)).status_code) for route in routes]
            assert [answer for answer in answers if answer[1] != 401] == [], who
        forged = here.keys["viewer"][:-1] + ("a" if here.keys["viewer"][-1] != "a" else "b")
        assert (await here.ask("GET", "/v1/me", forged)).status_code == 401

        for method, path in routes:
            answer = await here.ask(method, path, here.keys["viewer"])
            scope = scope_for(method, filled(path).partition("?")[0])
            if scope == "read":
                assert answer.status_code not in (401, 403), (method, path, answer.text)
            else:
                assert (answer.status_code, answer.json()["code"]) == (403, "scope"), (method, path)

        before = await here.rows(DEFAULT_TENANT)
        assert any(CANARY in row for row in before["calls"])
        for method, path in routes:
            answer = await here.ask(method, path, here.keys["theirs"])
            named = set(re.findall(r"\{([a-z_]+)", path))
            if named - EVERYBODYS:  # what is sent may be judged before it is looked for: that tells nothing
                assert answer.status_code in (403, 404, 422), (method, path, answer.status_code, answer.text)
            assert TOLD not in answer.text, (method, path, answer.text)
            assert named or CANARY not in answer.text, (method, path, answer.text)
        assert await here.rows(DEFAULT_TENANT) == before

        mine = await here.http.get("/v1/calls", headers={"X-Api-Key": here.keys[CANARY]})
        assert [(call["id"], call["agent"]) for call in mine.json()["calls"]] == [(CANARY, TOLD)]  # it could be seen

    run(tmp_path, scenario)


def test_loopback_is_open_until_somebody_is_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = Settings(agent=AGENT, data_dir=tmp_path, http={"port": lease()}, sip={"enabled": False})  # type: ignore[arg-type]
        async with gateway(settings) as running:
            transport = httpx.ASGITransport(running.http)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as http:
                assert (await http.get("/v1/me")).json()["actor"] == "operator"
                assert running.setup_link is not None
                setup = running.setup_link.partition("?token=")[2]
                form = {"token": setup, "email": "ann@example.com", "password": "seven green kettles"}
                made = await http.post("/console/setup", data=form)
                assert (made.status_code, made.headers["location"]) == (303, "/console/start")
                assert made.headers["set-cookie"].startswith("trunkline=")
                assert "HttpOnly; SameSite=Lax" in made.headers["set-cookie"]
                assert (await http.get("/v1/me")).json()["actor"] == "user:ann"  # by the cookie
                http.cookies.clear()
                assert (await http.get("/v1/me")).status_code == 401
                assert (await http.get("/healthz")).status_code == 200
                again = await http.post("/console/setup", data=form | {"email": "eve@example.com"})
                assert again.status_code == 410

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())
