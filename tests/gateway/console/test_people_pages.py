"""Pages of people and keys, of webhooks, and what the doors look like, on a real database."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.testclient import TestClient

from tests.gateway.console.house import HOSTILE, OURS, Audit, Fields, House
from trunkline.gateway.console.accounts import Accounts, Refused
from trunkline.gateway.console.cookies import Cookies
from trunkline.gateway.console.doors import Doors, Page
from trunkline.gateway.console.pages import POLICY, Pages
from trunkline.gateway.console.passwords import Passwords
from trunkline.gateway.console.people import PeopleParts
from trunkline.gateway.console.webhooks import WebhookParts
from trunkline.gateway.console.welcome import rendering
from trunkline.hooks import Attempt
from trunkline.privacy.sealed import KeyRing
from trunkline.privacy.texts import TextSeal
from trunkline.store.accounts import Accounts as Users
from trunkline.store.apikeys import ApiKeys
from trunkline.store.hooks import WebhookEndpoints


async def send(url: str, name: str, body: bytes, keys: Sequence[str]) -> Attempt:
    return Attempt(503, took_s=0.012) if "away" in url else Attempt(204, took_s=0.012)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    users, passwords = Users(house.database, house.clock), Passwords()
    people = PeopleParts(
        users,
        ApiKeys(house.database, house.clock),
        Accounts(users, passwords, house.clock),
        "https://gateway.example.com",
        lambda key_id: None,
        lambda: None,
    )
    seal = TextSeal(KeyRing({"one": bytes(32)}))
    webhooks = WebhookParts(WebhookEndpoints(house.database, house.clock, seal), send, False)
    house.serve(people=people, webhooks=webhooks)
    with house.client:
        yield house
    passwords.close()


def test_somebody_is_invited_by_a_link_that_is_shown_once(house: House) -> None:
    assert Audit(house.see("people")).wrong == []
    wrong = house.send("people/_user", {"email": HOSTILE, "role": "king"}, 422).text
    assert Audit(wrong).wrong == []
    assert "<script>alert" not in wrong
    page = house.send("people/_user", {"email": "Bob@example.com", "role": "viewer"}, 200).text
    assert "https://gateway.example.com/console/link?token=" in page
    assert "/console/link?token=" not in house.see("people")
    assert "bob@example.com" in house.see("people")
    taken = house.send("people/_user", {"email": "bob@example.com", "role": "viewer"}, 409).text
    assert 'aria-invalid="true"' in taken


def test_a_role_is_changed_and_what_is_stale_is_refused(house: House) -> None:
    house.send("people/_user", {"email": "bob@example.com", "role": "viewer"}, 200)
    sent = Fields(house.see("people/of/bob"), "/console/people/of/bob").sent
    house.send("people/of/bob", {**sent, "role": "supervisor"})
    assert "supervisor" in house.see("people")
    assert "Not saved" in house.send("people/of/bob", {**sent, "role": "admin"}, 412).text
    assert "token=" in house.send("people/of/bob/_link", {}, 200).text
    house.send("people/of/bob/_out", {})
    house.send("people/of/bob/_delete", {"at_version": "2"})
    house.see("people/of/bob", 404)


def test_a_key_is_shown_once_and_ends(house: House) -> None:
    page = house.send("people/_key", {"name": "crm", "scopes.read": "true", "scopes.calls": "false"}, 200).text
    secret = page.split('class="once">')[1].split("<")[0]
    assert secret.startswith("tlk_")
    assert secret not in house.see("people")
    assert Audit(house.see("people")).wrong == []
    for wrong in ({"name": "Crm", "scopes.read": "true"}, {"name": "two"}, {"name": "crm", "expires": "2001-01-01"}):
        house.send("people/_key", wrong, 422)
    house.send("people/_key", {"name": "crm", "scopes.read": "true"}, 409)
    house.send("people/key/crm/_end", {"at_version": "1"})
    assert "No keys yet" in house.see("people")


@pytest.mark.parametrize("role", ["viewer", "supervisor"])
def test_people_are_for_admins(house: House, role: Any) -> None:
    house.send("people/_user", {"email": "bob@example.com", "role": "viewer"}, 200)
    house.role = role
    assert "bob@example.com" not in house.see("people")
    house.see("people/of/bob", 403)
    assert Audit(house.see("people/password")).wrong == []
    for path in ("people/_user", "people/_key", "people/of/bob", "people/of/bob/_link", "people/of/bob/_delete"):
        house.send(path, {"email": "eve@example.com", "role": "admin", "name": "eve"}, 403)


def test_another_tenants_people_are_not_there(house: House) -> None:
    house.send("people/_user", {"email": "bob@example.com", "role": "viewer"}, 200)
    house.tenant = type(OURS)("theirs")
    assert "bob@example.com" not in house.see("people")
    house.see("people/of/bob", 404)
    house.send("people/of/bob/_link", {}, 404)


def test_a_webhook_is_made_with_its_secret_tried_changed_and_deleted(house: House) -> None:
    assert "No webhooks yet" in house.see("webhooks")
    wrong = house.send("webhooks/_new", {"url": f"ftp://{HOSTILE}"}, 422).text
    assert Audit(wrong).wrong == []
    page = house.send("webhooks/_new", {"url": "https://away.example.com/x", "events.call.ended": "true"}, 200).text
    secret = page.split('class="once">')[1].split("<")[0]
    assert secret.startswith("whsec_")
    name = house.see("webhooks").split('href="/console/webhooks/')[2].split('"')[0]
    here = f"webhooks/{name}"
    assert secret not in house.see(here)
    assert Audit(house.see(here)).wrong == []
    assert "did not arrive: 503" in house.send(f"{here}/_test", {}, 200).text
    sent = Fields(house.see(here), f"/console/{here}").sent
    assert sent["events.call.ended"] == "true"
    house.send(here, {**sent, "url": "https://here.example.com/x"})
    assert "Somebody changed it" in house.send(here, sent, 412).text
    assert "The test arrived: 204" in house.send(f"{here}/_test", {}, 200).text
    assert secret not in house.send(f"{here}/_rotate", {}, 200).text
    house.send(f"{here}/_delete", {"at_version": "1"}, 412)
    version = Fields(house.see(here), f"/console/{here}").sent["at_version"]
    house.send(f"{here}/_delete", {"at_version": version})
    house.see(here, 404)


def test_the_doors_have_a_look_and_say_why(house: House) -> None:
    pages = Pages()
    users, passwords = Users(house.database, house.clock), Passwords()
    accounts = Accounts(users, passwords, house.clock)
    doors = Doors(accounts, users, Cookies(https=False), rendering(pages))
    with TestClient(Starlette(routes=doors.routes()), follow_redirects=False) as client:
        signing = client.get("/console/sign-in?next=/console/numbers")
        assert signing.headers["content-security-policy"] == POLICY
        assert signing.headers["referrer-policy"] == "same-origin"
        assert 'name="next" value="/console/numbers"' in signing.text
        wrong = client.post("/console/sign-in", data={"email": HOSTILE, "password": "x"})
        assert (wrong.status_code, "<script>alert" in wrong.text) == (401, False)
        assert 'aria-describedby="refused"' in wrong.text
        assert "not good any more" in client.get("/console/setup?token=x").text
        assert house.client.portal is not None
        token = house.client.portal.call(accounts.setup_token)
        assert "Create the admin" in client.get(f"/console/setup?token={token}").text
        fields = {"token": token, "email": "ann@example.com", "password": "short"}
        assert "at least 12 characters" in client.post("/console/setup", data=fields).text
        made = client.post("/console/setup", data={**fields, "password": "correct horse battery staple"})
        assert (made.status_code, made.headers["location"]) == (303, "/console/start")
    passwords.close()


def test_a_refusal_that_says_when_to_come_back_says_so_in_its_header() -> None:
    request = Request({"type": "http", "method": "GET", "path": "/console/sign-in", "headers": [], "query_string": b""})
    answer = rendering(Pages())(request, Page("sign_in", 429, Refused("wait", "Too many tries.", 7)))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
