"""/v1/compliance, /v1/consent, /v1/dnc on a real database: what they answer, and what they refuse to read."""

import json
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

from trunkline.compliance.decision import Policy, Terms
from trunkline.compliance.office import Office
from trunkline.errors import StoreError
from trunkline.gateway.api.compliance import MAX_TEXT, ComplianceDesk, compliance_routes
from trunkline.gateway.api.gate import Gate
from trunkline.gateway.api.guard import LARGE_BYTES, MAX_BODY_BYTES, Guard
from trunkline.gateway.api.openapi_compliance import PATHS
from trunkline.gateway.api.problems import MEDIA_TYPE, on_http_exception, on_store_error
from trunkline.store.consentjournal import ConsentJournal
from trunkline.store.consents import ConsentLedger
from trunkline.store.dnc import DncLists
from trunkline.store.engine import Database, database_url
from trunkline.testing.clock import ManualClock

ANN, BOB = "+12125550100", "+13055550100"
MONDAY_NOON = "2026-11-23T17:00:00Z"
GRANT = {
    "event": "grant", "subject": ANN, "form": "express_written", "technologies": ["artificial_voice"],
    "purposes": ["marketing"], "wording": "May we call?", "wording_version": "v1",
}  # fmt: skip


class House:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.away = False

    def routes(self) -> list[Any]:
        self.clock = ManualClock()
        self.database = Database(database_url(None, self.folder))
        self.ledger, self.lists = ConsentLedger(self.database), DncLists(self.database)
        self.journal = ConsentJournal(self.folder / "journal", self.ledger.note)
        policy = Policy(outbound_allow=("US",), terms=Terms("Acme", "US-NY", callback=True))
        self.office = Office(policy, self.ledger, self.lists, self.journal, self.clock)
        return list(compliance_routes(ComplianceDesk(self.office, self.ledger, self.lists, self.clock, self._settle)))

    @asynccontextmanager
    async def opened(self, app: Any) -> AsyncGenerator[None]:
        await self.database.upgrade()
        await self.office.refresh()
        yield
        await self.journal.close()
        await self.database.close()

    async def _settle(self) -> None:
        if self.away:
            raise StoreError("away")
        await self.journal.drain()


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.fixture
def http(house: House) -> Iterator[TestClient]:
    app = Starlette(
        routes=house.routes(),
        lifespan=house.opened,
        middleware=[Middleware(Guard, Gate((), ManualClock()), https=False)],
        exception_handlers={HTTPException: on_http_exception, StoreError: on_store_error},
    )
    with TestClient(app, base_url="http://127.0.0.1:8080") as client:
        yield client


def problem(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == MEDIA_TYPE
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    return body


def wrong(answer: Any) -> list[str]:
    body = problem(answer, 422)
    assert body["code"] == "invalid_fields"
    return [each["field"] for each in body["errors"]]


def test_a_call_is_explained_and_nothing_is_noted(http: TestClient) -> None:
    asked = {"direction": "outbound", "from": BOB, "to": ANN, "purpose": "marketing", "at": MONDAY_NOON}
    for _ in range(2):
        found = http.post("/v1/compliance/check", json=asked).json()
        assert (found["decision"], found["code"]) == ("refuse", "litigator_unknown")
        frequency = next(check for check in found["checks"] if check["name"] == "frequency")
        assert frequency["input"] == "0 attempts in 30 days"
    assert http.post("/v1/compliance/check", json={"to": ANN}).status_code == 200
    inbound = http.post("/v1/compliance/check", json={"direction": "inbound", "from": ANN}).json()
    assert inbound["decision"] == "allow"
    assert "say_ai" in [owed["kind"] for owed in inbound["obligations"]]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"direction": "sideways"}, "direction"),
        ({"from": "2125550100"}, "from"),
        ({"to": "1" * 33}, "to"),
        ({"purpose": "sales"}, "purpose"),
        ({"region": "us"}, "region"),
        ({"zone": "../etc/passwd"}, "zone"),
        ({"zone": "a" * 201}, "zone"),
        ({"at": "2026-11-22T15:00:00"}, "at"),
        ({"at": "yesterday"}, "at"),
        ({"at": 1764000000}, "at"),
        ({"at": "1764000000"}, "at"),
        ({"to": 5}, "to"),
    ],
)
def test_a_check_that_cannot_be_read(http: TestClient, change: dict[str, Any], field: str) -> None:
    assert wrong(http.post("/v1/compliance/check", json={"to": ANN} | change)) == [field]


@pytest.mark.parametrize("path", ["/v1/compliance/check", "/v1/compliance/preview", "/v1/consent", "/v1/dnc"])
def test_a_body_that_is_none(http: TestClient, path: str) -> None:
    problem(http.post(path, content="{}"), 415)
    for text in ("{", "[]", "1", ""):
        problem(http.post(path, content=text, headers={"content-type": "application/json"}), 400)
    most = LARGE_BYTES.get(path, MAX_BODY_BYTES)
    problem(http.post(path, content=b"x" * (most + 1), headers={"content-type": "application/json"}), 413)
    assert wrong(
        http.post(path, json={"colour": "red", "event": "grant", "subject": ANN, "number": ANN, "calls": [{}]})
    )


def test_a_batch_is_previewed(http: TestClient) -> None:
    calls = [{"to": ANN, "purpose": "informational"}, {"to": "911"}, {"to": "+19005551234", "region": "US-NY"}]
    found = http.post("/v1/compliance/preview", json={"calls": calls, "at": MONDAY_NOON}).json()
    assert (found["calls"], found["skipped"]) == (3, 3)
    assert [row["code"] for row in found["rows"]] == ["no_consent", "emergency", "premium"]
    assert ANN not in json.dumps(found)


@pytest.mark.parametrize(
    "calls", [[], "x", [{"to": ANN, "note": "x"}], [{"to": 5}], [{}], [{"to": ANN, "zone": "Mars"}], [[1]]]
)
def test_a_batch_that_cannot_be_read(http: TestClient, calls: Any) -> None:
    assert len(wrong(http.post("/v1/compliance/preview", json={"calls": calls}))) == 1


def test_what_is_in_force_is_told(http: TestClient) -> None:
    found = http.get("/v1/compliance/tables").json()
    assert (found["in_force"], found["problem"], found["lists"]) == (True, "", [])
    assert set(found["tables"]) >= {"hours", "lists", "disclosure"}


def test_consent_is_noted_exported_erased_and_the_chain_holds(http: TestClient) -> None:
    assert http.post("/v1/consent", json=GRANT).status_code == 201
    assert http.post("/v1/consent", json={"event": "revoke", "subject": BOB, "do_not_call": True}).status_code == 201
    (event,) = http.get(f"/v1/consent/{ANN}").json()["events"]
    assert (event["event"], event["form"], event["via"]) == ("grant", "express_written", "api")
    assert http.get(f"/v1/dnc/{BOB}").json()["company"] is True
    assert http.get("/v1/compliance/ledger").json()["rows"] == 2
    assert http.delete(f"/v1/consent/{ANN}").json() == {"erased": 1}
    assert http.get(f"/v1/consent/{ANN}").json()["events"] == []
    checked = http.get("/v1/compliance/ledger").json()
    assert (checked["rows"], checked["broken"]) == (3, None)


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"event": "sale"}, ["event"]),
        ({"subject": "212"}, ["subject"]),
        ({"form": None, "wording": ""}, ["form", "wording"]),
        ({"technologies": []}, ["technologies"]),
        ({"technologies": ["telepathy"]}, ["technologies"]),
        ({"technologies": ["recording"] * 9}, ["technologies"]),
        ({"purposes": ["sales"]}, ["purposes"]),
        ({"channels": []}, ["channels"]),
        ({"channels": ["pigeon"]}, ["channels"]),
        ({"wording": "x" * (MAX_TEXT + 1)}, ["wording"]),
        ({"wording_version": "x" * 201}, ["wording_version"]),
        ({"evidence": [{"uri": "x"}] * 17}, ["evidence"]),
        ({"evidence": [{"sha256": "xyz"}]}, ["evidence"]),
        ({"via": "hearsay"}, ["via"]),
        ({"seller": "x" * 201}, ["seller"]),
        ({"at": "2999-01-01T00:00:00Z"}, ["at"]),
        ({"valid_until": "2001-01-01T00:00:00Z"}, ["valid_until"]),
        ({"do_not_call": "yes"}, ["do_not_call"]),
        ({"colour": "red"}, ["?"]),
    ],
)
def test_consent_that_cannot_be_read_is_not_noted(http: TestClient, change: dict[str, Any], fields: list[str]) -> None:
    assert wrong(http.post("/v1/consent", json=GRANT | change)) == fields
    assert http.get("/v1/compliance/ledger").json()["rows"] == 0


def test_what_was_said_while_the_database_is_away_counts(house: House, http: TestClient) -> None:
    house.away = True
    revoked = {"event": "revoke", "subject": ANN, "do_not_call": True, "verbatim": "x"}
    assert http.post("/v1/consent", json=revoked).status_code == 202
    assert http.get(f"/v1/dnc/{ANN}").json()["company"] is True


def test_a_number_is_listed_and_looked_up(http: TestClient) -> None:
    assert http.get(f"/v1/dnc/{ANN}").json()["company"] is False
    assert http.get(f"/v1/dnc/{ANN}").json()["litigator"] is None
    assert http.post("/v1/dnc", json={"number": ANN}).status_code == 201
    assert http.get(f"/v1/dnc/{ANN}").json()["company"] is True
    assert wrong(http.post("/v1/dnc", json={"number": "911"})) == ["number"]


@pytest.mark.parametrize(
    "path", ["/v1/dnc/911", "/v1/consent/me", "/v1/consent/+12345678901234567", "/v1/dnc/+1٢3456789"]
)
def test_no_such_number(http: TestClient, path: str) -> None:
    problem(http.get(path), 404)
    if path.startswith("/v1/consent"):
        problem(http.delete(path), 404)


def test_calls_are_stopped_and_go_on(http: TestClient) -> None:
    asked = {"to": ANN, "at": MONDAY_NOON}
    assert http.put("/v1/compliance/stop").json() == {"stopped": True}
    assert http.post("/v1/compliance/check", json=asked).json()["code"] == "stopped"
    assert http.delete("/v1/compliance/stop").json() == {"stopped": False}
    assert http.post("/v1/compliance/check", json=asked).json()["code"] != "stopped"


def test_every_route_is_in_openapi() -> None:
    desk: Any = None
    ours = {
        (route.path, method.lower())
        for route in compliance_routes(desk)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert ours == {(path, method) for path, item in PATHS.items() for method in item}


def test_a_database_that_is_away_is_a_problem_document(house: House, http: TestClient) -> None:
    house.clock.advance(timedelta(minutes=2).total_seconds())
    assert http.portal is not None
    http.portal.call(house.database.close)
    (house.folder / "trunkline.db").unlink()
    (house.folder / "trunkline.db").mkdir()
    for path in ("/v1/compliance/tables", "/v1/compliance/ledger", f"/v1/consent/{ANN}"):
        assert problem(http.get(path), 503)["detail"] == "the database is away"
    for answer in (http.post("/v1/dnc", json={"number": ANN}), http.put("/v1/compliance/stop")):
        problem(answer, 503)
    assert http.get(f"/v1/dnc/{ANN}").json()["company"] is None
    check = http.post("/v1/compliance/check", json={"to": ANN, "at": MONDAY_NOON}).json()
    assert check["code"].endswith("_unknown")
    assert http.post("/v1/consent", json=GRANT).status_code == 202
