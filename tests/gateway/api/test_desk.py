"""The desk over HTTP, on a real database: pages, ETags, idempotent POSTs, files, and what is refused."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from trunkline.errors import StoreError
from trunkline.gateway.api.desk import desk_routes, merged
from trunkline.gateway.api.problems import on_http_exception, on_store_error
from trunkline.identity import SCOPES, Principal
from trunkline.numbers.desk import Desk
from trunkline.privacy.sealed import KeyRing
from trunkline.privacy.texts import TextSeal
from trunkline.store.desk import Desk as Store
from trunkline.store.engine import Database, database_url
from trunkline.store.replies import Replies
from trunkline.testing.clock import ManualClock
from trunkline.types import DEFAULT_TENANT, TenantId

ONE = "+14155550100"
ROUTE = {"name": "main", "answer": {"kind": "busy"}}


class House:
    def __init__(self, folder: Path) -> None:
        self.database, self.clock = Database(database_url(None, folder)), ManualClock()
        store = Store(self.database, self.clock, TextSeal(KeyRing({"one": bytes(32)})))
        self.replies = Replies(self.database, self.clock)
        desk = Desk(store, lambda script: [] if "name" in script else ["line 1: no name"])
        handlers: Any = {HTTPException: on_http_exception, StoreError: on_store_error}
        app = Starlette(
            routes=desk_routes(desk, self.replies), exception_handlers=handlers, lifespan=lambda app: self.opened()
        )

        async def as_tenant(scope: Scope, receive: Receive, send: Send) -> None:
            """In the guard's place."""
            if scope["type"] == "http":
                tenant = TenantId(dict(scope["headers"]).get(b"tenant", b"default").decode())
                scope.setdefault("state", {})["principal"] = Principal(tenant, "user:ann", frozenset(SCOPES))
            await app(scope, receive, send)

        self.client = TestClient(as_tenant)

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        await self.database.upgrade()
        yield
        await self.database.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    found = House(tmp_path)
    with found.client:
        yield found


@pytest.fixture
def api(house: House) -> TestClient:
    return house.client


def test_what_is_made_is_seen_changed_and_deleted_by_its_etag(api: TestClient) -> None:
    made = api.post("/v1/numbers", json={"number": ONE, "label": "front"})
    assert (made.status_code, made.headers["location"], made.headers["etag"]) == (201, f"/v1/numbers/{ONE}", '"1"')
    seen = api.get(f"/v1/numbers/{ONE}")
    assert seen.json() == made.json()
    sent_back = seen.json() | {"label": "back"}
    replaced = api.put(f"/v1/numbers/{ONE}", json=sent_back, headers={"If-Match": '"1"'})
    assert (replaced.status_code, replaced.json()["label"], replaced.headers["etag"]) == (200, "back", '"2"')
    stale = api.put(f"/v1/numbers/{ONE}", json=sent_back, headers={"If-Match": '"1"'})
    assert (stale.status_code, stale.json()["code"]) == (412, "stale")
    patched = api.patch(f"/v1/numbers/{ONE}", json={"tags": ["vip"], "label": None}, headers={"If-Match": '"2"'})
    assert (patched.json()["tags"], patched.json()["label"]) == (["vip"], "")
    assert api.delete(f"/v1/numbers/{ONE}", headers={"If-Match": '"2"'}).status_code == 412
    assert api.delete(f"/v1/numbers/{ONE}", headers={"If-Match": "*"}).status_code == 204
    assert api.get(f"/v1/numbers/{ONE}").status_code == 404


@pytest.mark.parametrize("method", ["put", "patch", "delete"])
def test_a_change_names_what_was_seen(api: TestClient, method: str) -> None:
    api.post("/v1/numbers", json={"number": ONE})
    assert api.request(method, f"/v1/numbers/{ONE}", json={}).status_code == 428
    assert api.request(method, f"/v1/numbers/{ONE}", json={}, headers={"If-Match": '"x"'}).status_code == 412
    missing = api.request(method, "/v1/numbers/+14155550199", json={}, headers={"If-Match": "*"})
    assert missing.status_code == 404


def test_wrong_fields_are_named(api: TestClient) -> None:
    refused = api.post("/v1/numbers", json={"number": "123", "colour": "red"})
    assert refused.status_code == 422
    assert {each["field"] for each in refused.json()["errors"]} == {"number", "colour"}
    unknown = api.post("/v1/numbers", json={"number": ONE, "route": "nowhere"})
    assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown_name")
    for body, status in ((b"", 400), (b"[]", 400), (b"{", 400), (b"[" * 100_000, 400)):
        assert api.post("/v1/numbers", content=body, headers={"content-type": "application/json"}).status_code == status
    assert api.post("/v1/numbers", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415


@pytest.mark.parametrize("question", ["colour=red", "limit=5&limit=6", f"search={'x' * 101}", "limit=0"])
def test_a_question_that_is_none_is_refused(api: TestClient, question: str) -> None:
    assert api.get(f"/v1/numbers?{question}").status_code == 400


@pytest.mark.parametrize("question", ["dry_run=yes", "dry_run=", "prune=1", "dryrun=true"])
def test_a_file_is_not_applied_where_it_is_not_plain_what_is_meant(api: TestClient, question: str) -> None:
    file = {"numbers": [{"number": ONE}]}
    assert api.post(f"/v1/apply?{question}", json=file).status_code == 400
    assert api.get("/v1/numbers").json()["items"] == []


def test_a_file_that_is_nested_too_deep_is_refused(api: TestClient) -> None:
    json = {"content-type": "application/json"}
    assert api.post("/v1/apply", content=b"[" * 100_000, headers=json).status_code == 422


def test_what_is_in_use_says_by_what(api: TestClient) -> None:
    api.post("/v1/routes", json=ROUTE)
    api.post("/v1/numbers", json={"number": ONE, "route": "main"})
    refused = api.delete("/v1/routes/main", headers={"If-Match": "*"})
    assert (refused.status_code, refused.json()["code"]) == (409, "in_use")
    assert f"number {ONE}" in refused.json()["detail"]


def test_pages_filters_and_searches(api: TestClient) -> None:
    api.post("/v1/routes", json=ROUTE)
    for last in range(5):
        api.post(
            "/v1/numbers", json={"number": f"+1415555010{last}", "label": f"line {last}", "tags": ["t"] * (last == 2)}
        )
    api.patch("/v1/numbers/+14155550103", json={"route": "main"}, headers={"If-Match": "*"})
    first = api.get("/v1/numbers", params={"limit": 3}).json()
    rest = api.get("/v1/numbers", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert [each["number"][-1] for each in first["items"] + rest["items"]] == list("01234")
    assert rest["next_cursor"] is None

    def found(**asked: str) -> str:
        return "".join(each["number"][-1] for each in api.get("/v1/numbers", params=asked).json()["items"])

    assert found(search="line 4") == "4"
    assert found(route="main") == "3"
    assert found(tag="t") == "2"
    assert found(agent="nobody") == ""
    for wrong in ({"limit": "0"}, {"limit": "201"}, {"limit": "x"}, {"cursor": "ä"}):
        assert api.get("/v1/numbers", params=wrong).status_code == 400


def test_a_post_repeated_with_its_key_is_done_once(house: House) -> None:
    api, headers = house.client, {"Idempotency-Key": "abc"}
    first = api.post("/v1/numbers", json={"number": ONE}, headers=headers)
    again = api.post("/v1/numbers", json={"number": ONE}, headers=headers)
    assert (again.status_code, again.json(), again.headers["etag"]) == (201, first.json(), '"1"')
    other = api.post("/v1/numbers", json={"number": "+14155550101"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    theirs = api.post("/v1/routes", json=ROUTE, headers={**headers, "tenant": "theirs"})
    assert theirs.status_code == 201
    house.clock.advance(86_401)
    assert api.post("/v1/numbers", json={"number": ONE}, headers=headers).status_code == 409


def test_a_refusal_frees_the_key(api: TestClient) -> None:
    headers = {"Idempotency-Key": "abc"}
    assert api.post("/v1/numbers", json={"number": ONE, "route": "main"}, headers=headers).status_code == 422
    api.post("/v1/routes", json=ROUTE)
    assert api.post("/v1/numbers", json={"number": ONE, "route": "main"}, headers=headers).status_code == 201


def test_a_key_of_a_process_that_died_is_free_again(house: House) -> None:
    async def claim() -> object:
        return await house.replies.claim(DEFAULT_TENANT, "abc", "same")

    assert house.client.portal is not None
    assert house.client.portal.call(claim) == "claimed"
    assert house.client.portal.call(claim) == "under_way"
    house.clock.advance(121)
    assert house.client.portal.call(claim) == "claimed"


def test_secrets_are_told_to_be_there_only(api: TestClient) -> None:
    made = api.post("/v1/carriers", json={"name": "tw", "type": "twilio", "auth_token": "hush"})
    assert made.json()["has_auth_token"] is True
    kept = api.put("/v1/carriers/tw", json=made.json() | {"label": "Twilio"}, headers={"If-Match": '"1"'})
    assert kept.json()["has_auth_token"] is True
    said = made.text + kept.text + api.get("/v1/changes").text + api.get("/v1/export").text
    assert "hush" not in said


def test_the_tenants_terms_are_there_before_anything_was_said(api: TestClient) -> None:
    before = api.get("/v1/tenant")
    assert (before.json()["outage"], before.headers["etag"]) == (False, '"0"')
    patched = api.patch("/v1/tenant", json={"outage": True}, headers={"If-Match": '"0"'})
    assert (patched.json()["outage"], patched.headers["etag"]) == (True, '"1"')
    assert api.put("/v1/tenant", json={}, headers={"If-Match": '"0"'}).status_code == 412
    assert api.get("/v1/tenant", headers={"tenant": "theirs"}).json()["outage"] is False
    assert api.put("/v1/tenant", json={}, headers={"If-Match": '"0"', "tenant": "theirs"}).status_code == 200


def test_agents_are_published_and_rolled_back(api: TestClient) -> None:
    api.post("/v1/agents", json={"name": "desk", "draft": "name = 1"})
    assert api.post("/v1/agents/desk/publish", json={}).status_code == 428
    first = api.post("/v1/agents/desk/publish", json={"note": "first"}, headers={"If-Match": '"1"'})
    assert (first.status_code, first.json()["number"], first.json()["created_by"]) == (201, 1, "user:ann")
    api.patch("/v1/agents/desk", json={"draft": "bad"}, headers={"If-Match": "*"})
    wrong = api.post("/v1/agents/desk/publish", json={}, headers={"If-Match": "*"})
    assert (wrong.status_code, wrong.json()["errors"]) == (422, [{"field": "draft.0", "detail": "line 1: no name"}])
    api.patch("/v1/agents/desk", json={"draft": "name = 2"}, headers={"If-Match": "*"})
    api.post("/v1/agents/desk/publish", json={}, headers={"If-Match": "*"})
    back = api.post("/v1/agents/desk/roll-back", json={"version": 1}, headers={"If-Match": "*"})
    assert back.json()["published"] == 1
    versions = api.get("/v1/agents/desk/versions").json()["items"]
    assert [each["number"] for each in versions] == [2, 1]
    assert "script" not in versions[0]
    assert api.get("/v1/agents/desk/versions/1").json()["script"] == "name = 1"
    assert api.get("/v1/agents/desk/versions/3").status_code == 404
    for body in ({}, {"version": True}, {"version": "1"}, {"version": 2**63}, {"version": 1, "more": 1}):
        assert api.post("/v1/agents/desk/roll-back", json=body, headers={"If-Match": "*"}).status_code == 422
    put = api.put("/v1/agents/desk", json={"draft": "name = 3"}, headers={"If-Match": "*"})
    assert put.json()["published"] == 1


def test_another_tenant_finds_nothing(api: TestClient) -> None:
    api.post("/v1/agents", json={"name": "desk", "draft": "name = 1"})
    api.post("/v1/agents/desk/publish", json={}, headers={"If-Match": "*"})
    theirs = {"tenant": "theirs", "If-Match": "*"}
    for path in ("/v1/agents/desk", "/v1/agents/desk/versions", "/v1/agents/desk/versions/1"):
        assert api.get(path, headers=theirs).status_code == 404
    for path in ("/v1/agents/desk/publish", "/v1/agents/desk/roll-back"):
        assert api.post(path, json={"version": 1} if "roll" in path else {}, headers=theirs).status_code == 404
    assert api.get("/v1/changes", headers=theirs).json()["items"] == []
    assert api.get("/v1/export", headers={**theirs, "accept": "application/json"}).json() == {}


def test_a_file_is_shown_applied_and_exported(api: TestClient) -> None:
    file = """
        routes = [{ name = "main", answer = { kind = "busy" } }]
        numbers = [{ number = "+14155550100", route = "main" }]
    """
    toml = {"content-type": "application/toml"}
    shown = api.post("/v1/apply?dry_run=true", content=file, headers=toml).json()
    assert (shown["applied"], [step["key"] for step in shown["steps"]]) == (False, ["main", ONE])
    assert api.get("/v1/numbers").json()["items"] == []
    assert api.post("/v1/apply", content=file, headers=toml).json()["applied"] is True
    assert api.post("/v1/apply", content=file, headers=toml).json()["steps"] == []
    out = api.get("/v1/export")
    assert out.headers["content-type"].startswith("application/toml")
    assert api.post("/v1/apply?prune=true", content=out.text, headers=toml).json()["steps"] == []
    as_json = api.get("/v1/export", headers={"accept": "application/json"}).json()
    assert api.post("/v1/apply", json=as_json).json()["steps"] == []
    refused = api.post("/v1/apply", content=file.replace('route = "main"', 'route = "x"'), headers=toml)
    assert refused.status_code == 422


def test_a_csv_is_looked_at_then_taken_whole_or_not_at_all(api: TestClient) -> None:
    csv = "number,label\n+14155550100,front\n+1415,back\n"
    looked = api.post("/v1/numbers/import?dry_run=true", content=csv)
    assert (looked.status_code, looked.json()["created"], looked.json()["mistakes_count"]) == (200, 1, 1)
    assert looked.json()["mistakes"][0]["line"] == 3
    refused = api.post("/v1/numbers/import", content=csv)
    assert (refused.status_code, refused.json()["applied"]) == (422, False)
    assert api.get("/v1/numbers").json()["items"] == []
    taken = api.post("/v1/numbers/import?skip_mistakes=true", content=csv)
    assert (taken.status_code, taken.json()["applied"]) == (200, True)
    assert [each["label"] for each in api.get("/v1/numbers").json()["items"]] == ["front"]
    again = api.post("/v1/numbers/import", content="number,label\n+14155550100,front\n")
    assert again.json()["unchanged"] == 1


def test_the_audit_says_who_changed_what(api: TestClient) -> None:
    api.post("/v1/routes", json=ROUTE)
    api.patch("/v1/routes/main", json={"label": "x"}, headers={"If-Match": "*"})
    first = api.get("/v1/changes", params={"limit": 1}).json()
    (line,) = first["items"]
    assert (line["actor"], line["action"], line["before"]["label"], line["after"]["label"]) == (
        "user:ann",
        "replace",
        "",
        "x",
    )
    rest = api.get("/v1/changes", params={"limit": 1, "cursor": first["next_cursor"]}).json()
    assert (rest["items"][0]["action"], rest["next_cursor"]) == ("create", None)
    assert api.get("/v1/changes", params={"kind": "numbers"}).json()["items"] == []


def test_merging_is_as_rfc_7396_has_it() -> None:
    """Its appendix A, where target and patch are objects."""
    for target, patch, result in (
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ):
        assert merged(target, patch) == result
