import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from joserfc.jwk import OctKey, RSAKey
from starlette.applications import Starlette

from tests.fakes.oidc_server import CLIENT_ID, CLIENT_SECRET, OidcServer
from trunkline.clock import SYSTEM_CLOCK
from trunkline.gateway.console.accounts import Accounts as Console
from trunkline.gateway.console.cookies import Cookies
from trunkline.gateway.console.doors import Doors
from trunkline.gateway.console.oidc import OidcError, Provider, Terms, Vouched
from trunkline.gateway.console.passwords import Passwords
from trunkline.gateway.console.vouched import Mapped
from trunkline.identity import NewUser
from trunkline.store.accounts import Accounts
from trunkline.store.engine import Database, database_url
from trunkline.testing.ports import lease
from trunkline.types import DEFAULT_TENANT, TenantId


@pytest.fixture(scope="module")
def running() -> Iterator[OidcServer]:
    port = lease()
    server = OidcServer(f"http://127.0.0.1:{port}")
    http = uvicorn.Server(uvicorn.Config(server.app, port=port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=http.run)
    thread.start()
    while not http.started:
        time.sleep(0.01)
    yield server
    http.should_exit = True
    thread.join()


@pytest.fixture
def server(running: OidcServer) -> OidcServer:
    running.claims, running.header, running.without = {}, {}, set()
    running.sign_with, running.unsigned, running.says_issuer = None, False, running.issuer
    running.asked.clear()
    return running


def provider(server: OidcServer, secret: str = CLIENT_SECRET) -> Provider:
    return Provider(Terms(server.issuer, CLIENT_ID, "http://here/console/oidc/callback", secret), SYSTEM_CLOCK)


async def vouched(server: OidcServer, ours: Provider, **query: str) -> Vouched:
    begun = await ours.start()
    return await ours.finish(server.authorize(begun.url) | query, begun.cookie)


def test_who_signs_in_there_is_vouched_for(server: OidcServer) -> None:
    async def scenario() -> None:
        ours = provider(server)
        found = await vouched(server, ours)
        assert (found.subject, found.email, found.label) == (f"{server.issuer} user-1", "ann@example.com", "Ann")
        await vouched(server, ours)
        assert server.asked == ["document", "token", "keys", "token"]

    asyncio.run(scenario())


def _set(**values: Any) -> Callable[[OidcServer], None]:
    def change(server: OidcServer) -> None:
        for name, value in values.items():
            setattr(server, name, value)

    return change


BAD: dict[str, Callable[[OidcServer], None]] = {
    "nonce": _set(claims={"nonce": "another"}),
    "no nonce": _set(without={"nonce"}),
    "audience": _set(claims={"aud": "another"}),
    "several audiences": _set(claims={"aud": [CLIENT_ID, "another"]}),
    "another client's": _set(claims={"azp": "another"}),
    "issuer": _set(claims={"iss": "https://evil.example"}),
    "expired": _set(claims={"exp": int(time.time()) - 120}),
    "no end": _set(without={"exp"}),
    "no subject": _set(without={"sub"}),
    "not signed": _set(unsigned=True),
    "another's key": lambda server: setattr(server, "sign_with", RSAKey.generate_key(2048)),
    "hmac with the client secret": _set(sign_with=OctKey.import_key(CLIENT_SECRET), header={"alg": "HS256"}),
    "another issuer's document": _set(says_issuer="https://evil.example"),
}


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
@pytest.mark.parametrize("what", BAD)
def test_what_is_not_right_is_refused(server: OidcServer, what: str) -> None:
    BAD[what](server)
    with pytest.raises(OidcError):
        asyncio.run(vouched(server, provider(server)))


@pytest.mark.parametrize(
    "query",
    [{"state": "another"}, {"code": "another"}, {"code": ""}, {"error": "access_denied"}, {"iss": "https://evil"}],
)
def test_what_comes_back_must_be_what_was_begun(server: OidcServer, query: dict[str, str]) -> None:
    with pytest.raises(OidcError):
        asyncio.run(vouched(server, provider(server), **query))


def test_another_browsers_return_is_refused(server: OidcServer) -> None:
    async def scenario() -> None:
        ours = provider(server)
        begun, other = await ours.start(), await ours.start()
        for cookie in (other.cookie, None, "", "a.b.c"):
            with pytest.raises(OidcError):
                await ours.finish(server.authorize(begun.url), cookie)

    asyncio.run(scenario())


def test_a_key_that_is_new_is_fetched(server: OidcServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr("trunkline.gateway.console.oidc.NEW_KEYS_EVERY_S", 0.0)
        ours = provider(server)
        await vouched(server, ours)
        server.rotate()
        await vouched(server, ours)
        assert server.asked.count("keys") == 2

    asyncio.run(scenario())


def test_a_wrong_secret_and_a_provider_that_is_away_sign_nobody_in(server: OidcServer) -> None:
    with pytest.raises(OidcError):
        asyncio.run(vouched(server, provider(server, "wrong")))
    away = Provider(Terms(f"http://127.0.0.1:{lease()}", CLIENT_ID, "http://here/x", None), SYSTEM_CLOCK)
    with pytest.raises(OidcError):
        asyncio.run(away.start())


class House:
    def __init__(self, folder: Path, server: OidcServer, mapped: Mapped) -> None:
        self.server = server
        self.database = Database(database_url(None, folder))
        self.store = Accounts(self.database, SYSTEM_CLOCK)
        self.passwords = Passwords()
        self.console = Console(self.store, self.passwords, SYSTEM_CLOCK)
        self.doors = Doors(self.console, self.store, Cookies(https=False), provider=provider(server), mapped=mapped)

    async def sign_in(self) -> tuple[int, str | None]:
        """And who is signed in then."""
        transport = httpx.ASGITransport(Starlette(routes=self.doors.routes()))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
            begun = await http.get("/console/oidc/start")
            assert begun.status_code == 303
            back = await http.get("/console/oidc/callback", params=self.server.authorize(begun.headers["location"]))
            assert "trunkline-oidc" not in http.cookies
            session = await self.console.session(http.cookies.get("trunkline"))
            return back.status_code, None if session is None else session.user.name


def run(folder: Path, server: OidcServer, mapped: Mapped, scenario: Callable[[House], Any]) -> None:
    async def whole() -> None:
        house = House(folder, server, mapped)
        await house.database.upgrade()
        try:
            await scenario(house)
        finally:
            house.passwords.close()
            await house.database.close()

    asyncio.run(whole())


def test_a_user_is_linked_by_a_verified_email_the_first_time_only(server: OidcServer, tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        assert await house.sign_in() == (401, None)  # nobody is made
        await house.store.create_user(TenantId("shop"), "x", NewUser("ann@example.com", "supervisor"))
        server.claims = {"email_verified": False}
        assert await house.sign_in() == (401, None)
        server.claims = {}
        assert await house.sign_in() == (303, "ann")
        server.claims = {"email": "ann@new.example"}  # the subject counts from now on
        assert await house.sign_in() == (303, "ann")
        server.claims = {"sub": "user-2"}  # and whoever gets that email later is somebody else
        assert await house.sign_in() == (401, None)
        server.claims = {}
        await house.store.change_user(TenantId("shop"), "x", "ann", {"enabled": False})
        assert await house.sign_in() == (401, None)

    run(tmp_path, server, Mapped(), scenario)


def test_users_are_made_with_the_highest_role_of_the_map(server: OidcServer, tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        assert await house.sign_in() == (401, None)  # no group
        server.claims = {"groups": ["staff", "chiefs", "x"]}
        assert await house.sign_in() == (303, "ann")
        made = await house.store.user(DEFAULT_TENANT, "ann")
        assert made is not None
        assert (made.role, made.label) == ("admin", "Ann")
        await house.store.create_user(DEFAULT_TENANT, "x", NewUser("boss@example.com", "admin"))
        server.claims = {"groups": "staff"}
        assert await house.sign_in() == (303, "ann")
        lowered = await house.store.user(DEFAULT_TENANT, "ann")
        assert lowered is not None
        assert lowered.role == "viewer"
        server.claims = {"groups": "staff", "sub": "user-3", "email": "eve@elsewhere.example"}
        assert await house.sign_in() == (401, None)

    mapped = Mapped(("example.com",), "groups", {"staff": "viewer", "chiefs": "admin"}, auto_create=True)
    run(tmp_path, server, mapped, scenario)
