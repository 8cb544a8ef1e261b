"""Throttle, passwords and cookies by themselves; then the doors with a database, by an HTTP client."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from sqlalchemy import text
from starlette.applications import Starlette

from trunkline.gateway.console.accounts import Accounts as Console
from trunkline.gateway.console.accounts import Refused, SignedIn
from trunkline.gateway.console.cookies import Cookies, csrf_token, hashed, of_our_pages
from trunkline.gateway.console.doors import Doors
from trunkline.gateway.console.passwords import Busy, Passwords, wrong_password
from trunkline.gateway.console.throttle import FREE_ACCOUNT, FREE_ADDRESS, MOST, Throttle
from trunkline.identity import NewUser, User
from trunkline.store.accounts import Accounts
from trunkline.store.engine import Database, database_url
from trunkline.testing.clock import ManualClock
from trunkline.types import DEFAULT_TENANT

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
OLD = PasswordHasher(time_cost=2, memory_cost=8, parallelism=1)
WORDS = "seven green kettles"
EMAIL = "ann@example.com"


def test_after_five_tries_an_account_waits_ever_longer() -> None:
    throttle = Throttle()
    for n in range(FREE_ACCOUNT):
        assert throttle.begin("ann", f"192.0.2.{n}", 0.0) == 0
    assert throttle.begin(" ANN", "192.0.2.99", 0.0) == 1.0
    assert throttle.begin("bob", "192.0.2.1", 0.0) == 0
    now = 1.0
    for wait in (2.0, 4.0, 8.0):
        assert throttle.begin("ann", "192.0.2.99", now) == 0
        assert throttle.begin("ann", "192.0.2.99", now) == wait
        now += wait
    for _ in range(20):
        now += throttle.begin("ann", "192.0.2.99", now)
    assert throttle.begin("ann", "192.0.2.98", now) <= 900.0
    assert throttle.begin("ann", "192.0.2.98", now + 3600.0) == 0


def test_an_address_waits_whatever_names_it_tries_and_a_right_one_gives_back_no_more_than_itself() -> None:
    throttle = Throttle()
    for n in range(FREE_ADDRESS):
        assert throttle.begin(f"user{n}", f"2001:db8::{n:x}", 0.0) == 0  # a /64 is one customer
    assert throttle.begin("one-more", "2001:db8::ffff", 0.0) > 0
    assert throttle.begin("one-more", "2001:db8:0:1::1", 0.0) == 0
    throttle.passed("user0", "2001:db8::1")
    assert throttle.begin("one-more", "2001:db8::ffff", 0.0) == 0
    assert throttle.begin("one-more", "2001:db8::ffff", 0.0) > 0
    for n in range(FREE_ADDRESS + 1):
        assert throttle.begin(f"user{n}", "127.0.0.1", 0.0) == 0  # a proxy, perhaps


def test_the_throttle_is_bounded() -> None:
    throttle = Throttle()
    for n in range(MOST + 50):
        throttle.begin(str(n), "", 0.0)
    assert len(throttle._accounts.tries) == MOST


@pytest.mark.parametrize(
    "password",
    [
        "short",
        "x" * 257,
        EMAIL + "m",
        "passwordpassword",
        "Password123456",
        "aaaaaaaaaaaaaa",
        "123456789012",
        "qwertyuiop12",
    ],
)
def test_what_is_no_password(password: str) -> None:
    assert wrong_password(password, EMAIL + "m") is not None
    assert wrong_password(WORDS, EMAIL) is None


def test_too_many_passwords_at_once_are_refused() -> None:
    async def scenario() -> None:
        passwords = Passwords(CHEAP)
        found = await asyncio.gather(*(passwords.hash(WORDS) for _ in range(40)), return_exceptions=True)
        assert sum(isinstance(each, Busy) for each in found) == 8
        kept = await passwords.hash("ﬁne words to sign in")
        assert await passwords.verify(kept, "fine words to sign in")  # NFKC
        assert not await passwords.verify(None, "nobody has this one")
        assert not await passwords.verify("no hash", WORDS)
        passwords.close()

    asyncio.run(scenario())


def test_over_https_the_cookie_is_this_hosts_alone() -> None:
    cookie = Cookies(https=True).set("value", 60)
    assert cookie == "__Host-trunkline=value; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure"
    assert Cookies(https=True).read("a=b; __Host-trunkline=value") == "value"
    assert Cookies(https=True).read("trunkline=value") is None
    assert Cookies(https=False).set("value", 60) == "trunkline=value; Path=/; Max-Age=60; HttpOnly; SameSite=Lax"


@pytest.mark.parametrize(
    ("headers", "ours"),
    [
        ({}, True),
        ({"sec-fetch-site": "same-origin", "origin": "https://here", "host": "here"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"origin": "https://evil.example", "host": "here"}, False),
        ({"origin": "null", "host": "here"}, False),
    ],
)
def test_which_page_sent_it(headers: dict[str, str], ours: bool) -> None:
    assert of_our_pages(headers) is ours


class House:
    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.database = Database(database_url(None, folder))
        self.store = Accounts(self.database, self.clock)
        self.passwords = Passwords(CHEAP)
        self.console = Console(self.store, self.passwords, self.clock)
        doors = Doors(self.console, self.store, Cookies(https=False))
        transport = httpx.ASGITransport(Starlette(routes=doors.routes()), client=("192.0.2.7", 1))
        self.http = httpx.AsyncClient(transport=transport, base_url="http://here")

    async def user(self, email: str = EMAIL, hasher: PasswordHasher = CHEAP) -> User:
        return await self.store.create_user(
            DEFAULT_TENANT, "test", NewUser(email, "admin", password_hash=hasher.hash(WORDS))
        )

    async def sign_in(self, password: str = WORDS, email: str = EMAIL, **headers: str) -> httpx.Response:
        form = {"email": email, "password": password, "next": "/console/calls?x=1"}
        return await self.http.post("/console/sign-in", data=form, headers=headers)

    @property
    def cookie(self) -> str:
        return self.http.cookies["trunkline"]

    async def actions(self) -> list[tuple[str, str]]:
        async with self.database.read() as connection:
            rows = await connection.execute(text("SELECT action, key FROM changes ORDER BY seq"))
            return [(row.action, row.key) for row in rows]


def run(folder: Path, scenario: Callable[[House], Awaitable[None]]) -> None:
    async def whole() -> None:
        house = House(folder)
        await house.database.upgrade()
        try:
            await scenario(house)
        finally:
            house.passwords.close()
            await house.http.aclose()
            await house.database.close()

    asyncio.run(whole())


def test_who_signs_in_gets_a_session_and_a_new_one_each_time(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        ann = await house.user()
        answer = await house.sign_in()
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/calls?x=1")
        first = house.cookie
        session = await house.console.session(first)
        assert session is not None
        assert session.user == ann
        await house.sign_in()
        assert house.cookie != first
        assert await house.console.session(first) is None
        assert await house.actions() == [("create", "ann"), ("sign_in", "ann"), ("sign_in", "ann")]

    run(tmp_path, scenario)


def test_wrong_unknown_and_disabled_are_one_answer(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await house.user()
        await house.user("bob@example.com")
        await house.store.change_user(DEFAULT_TENANT, "x", "bob", {"enabled": False})
        answers = [
            await house.sign_in("not that one at all"),
            await house.sign_in(email="nobody@example.com"),
            await house.sign_in(email="bob@example.com"),
        ]
        assert {(answer.status_code, answer.text) for answer in answers} == {
            (401, "Email or password are not right.\n")
        }
        assert all("set-cookie" not in answer.headers for answer in answers)
        failed = [key for action, key in await house.actions() if action == "sign_in_failed"]
        assert failed == ["ann", "?", "bob"]

    run(tmp_path, scenario)


def test_tries_are_throttled_also_when_the_password_is_right(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await house.user()
        for _ in range(FREE_ACCOUNT):
            assert (await house.sign_in("not that one at all")).status_code == 401
        answer = await house.sign_in()
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        house.clock.advance(1)
        assert (await house.sign_in()).status_code == 303

    run(tmp_path, scenario)


def test_a_session_ends_when_idle_and_in_any_case_after_a_week(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await house.user()
        await house.sign_in()
        for _ in range(15):
            house.clock.advance(11 * 3600)
            assert await house.console.session(house.cookie) is not None
        house.clock.advance(3 * 3600)
        assert await house.console.session(house.cookie) is None  # 168 h
        await house.sign_in()
        house.clock.advance(12 * 3600)
        assert await house.console.session(house.cookie) is None

    run(tmp_path, scenario)


def test_another_sites_form_is_not_taken(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await house.user()
        assert (await house.sign_in(Origin="https://evil.example")).status_code == 403
        assert (await house.sign_in(**{"Sec-Fetch-Site": "cross-site"})).status_code == 403
        json = await house.http.post("/console/sign-in", json={"email": EMAIL, "password": WORDS})
        assert json.status_code == 403
        await house.sign_in()
        assert (await house.http.post("/console/sign-out", data={"csrf_token": "x"})).status_code == 403
        assert await house.console.session(house.cookie) is not None
        cookie = house.cookie
        out = await house.http.post("/console/sign-out", data={"csrf_token": csrf_token(cookie)})
        assert (out.status_code, out.headers["location"]) == (303, "/console/sign-in")
        assert await house.console.session(cookie) is None

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    "to", ["https://evil.example", "//evil.example", "/v1/calls", "/console/\r\nX: y", "/console/../x"]
)
def test_next_is_a_page_of_the_console(tmp_path: Path, to: str) -> None:
    async def scenario(house: House) -> None:
        await house.user()
        answer = await house.http.post("/console/sign-in", data={"email": EMAIL, "password": WORDS, "next": to})
        assert answer.headers["location"] == "/console/"

    run(tmp_path, scenario)


def test_a_new_password_ends_the_other_sessions(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await house.user()
        elsewhere = await house.console.sign_in(EMAIL, WORDS, "192.0.2.9")
        assert isinstance(elsewhere, SignedIn)
        await house.sign_in()
        before, form = house.cookie, {"csrf_token": csrf_token(house.cookie), "old": WORDS}
        weak = await house.http.post("/console/password", data=form | {"new": "short"})
        assert weak.status_code == 422
        wrong = await house.http.post("/console/password", data=form | {"old": "?", "new": "four blue teapots"})
        assert wrong.status_code == 401
        assert (await house.http.post("/console/password", data=form | {"new": "four blue teapots"})).status_code == 303
        assert await house.console.session(elsewhere.token) is None
        assert await house.console.session(before) is None
        assert await house.console.session(house.cookie) is not None
        assert isinstance(await house.console.sign_in(EMAIL, WORDS, "192.0.2.9"), Refused)
        assert isinstance(await house.console.sign_in(EMAIL, "four blue teapots", "192.0.2.9"), SignedIn)

    run(tmp_path, scenario)


def test_a_hash_of_other_costs_is_made_anew_and_nobody_is_signed_out(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await house.user(hasher=OLD)
        first = await house.console.sign_in(EMAIL, WORDS, "192.0.2.9")
        assert isinstance(first, SignedIn)
        kept = await house.store.by_email(EMAIL)
        assert kept is not None
        assert kept.password_hash is not None
        assert (CHEAP.check_needs_rehash(kept.password_hash), kept.version) == (False, 1)
        assert await house.console.session(first.token) is not None
        assert isinstance(await house.console.sign_in(EMAIL, WORDS, "192.0.2.9"), SignedIn)

    run(tmp_path, scenario)


def test_who_is_disabled_is_out_at_once_and_the_database_may_be_away_for_a_minute(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await house.user()
        bob = await house.user("bob@example.com")
        found = await house.console.signed_in(bob, "test")
        assert await house.console.session(found.token) is not None
        await house.store.change_user(DEFAULT_TENANT, "x", "bob", {"enabled": False})
        house.console.forget()
        assert await house.console.session(found.token) is None

    run(tmp_path, scenario)


def test_a_link_sets_a_password_once(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        ann = await house.user()
        link = await house.console.invite(ann)
        assert (await house.http.get("/console/link", params={"token": link})).status_code == 200
        weak = await house.http.post("/console/link", data={"token": link, "password": "short"})
        assert weak.status_code == 422
        form = {"token": link, "password": "four blue teapots"}
        assert (await house.http.post("/console/link", data=form)).status_code == 303
        assert (await house.http.post("/console/link", data=form)).status_code == 410
        late = await house.console.invite(ann)
        house.clock.advance(timedelta(hours=24).total_seconds())
        assert (await house.http.post("/console/link", data={"token": late, "password": WORDS})).status_code == 410
        assert await house.store.link(hashed("x")) is None

    run(tmp_path, scenario)


def test_the_first_admin_is_made_with_a_token_within_an_hour(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        late = await house.console.setup_token()
        house.clock.advance(3600)
        token = await house.console.setup_token()
        form: dict[str, Any] = {"email": EMAIL, "password": WORDS}
        for wrong in (late, "x" * 43, ""):
            assert (await house.http.post("/console/setup", data=form | {"token": wrong})).status_code == 410
        no_email = await house.http.post("/console/setup", data=form | {"token": token, "email": "ann"})
        assert no_email.status_code == 422
        assert (await house.http.post("/console/setup", data=form | {"token": token})).status_code == 303
        assert await house.console.setup_token() is None
        assert (await house.http.post("/console/setup", data=form | {"token": token})).status_code == 410

    run(tmp_path, scenario)
