"""An operator's requests to one live call, which notes them."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from tests.gateway.api.coming import As
from trunkline.gateway.api.control import MAX_SUMMARY_CHARS, OperatedCall, control_routes
from trunkline.gateway.api.problems import on_http_exception
from trunkline.ports import Refuse
from trunkline.types import DEFAULT_TENANT, CallId, TenantId


class Call:
    def __init__(self, refusing: Refuse | None = None, tenant: TenantId = DEFAULT_TENANT) -> None:
        self.started: Any = SimpleNamespace(tenant=tenant)
        self.asked: list[Any] = []
        self.refusing = refusing

    def _note(self, *what: Any) -> Refuse | None:
        self.asked.append(what)
        return self.refusing

    def send_to(self, target: str, kind: str, summary: str = "") -> Refuse | None:
        return self._note("transfer", target, kind, summary)

    def take_back(self) -> Refuse | None:
        return self._note("take_back")

    def hold(self) -> Refuse | None:
        return self._note("hold")

    def resume(self) -> Refuse | None:
        return self._note("resume")

    def mute(self, muted: bool) -> Refuse | None:
        return self._note("mute", muted)


def client(call: Call) -> TestClient:
    def find(call_id: CallId) -> OperatedCall | None:
        return cast(OperatedCall, call) if call_id == "call_1" else None

    return TestClient(
        Starlette(
            routes=control_routes(find),
            middleware=[Middleware(As)],
            exception_handlers={HTTPException: on_http_exception},
        )
    )


@pytest.mark.parametrize(
    ("what", "body", "asked"),
    [
        ("transfer", {"target": "desk"}, ("transfer", "desk", "auto", "")),
        (
            "transfer",
            {"target": "desk", "kind": "warm", "summary": "An invoice."},
            ("transfer", "desk", "warm", "An invoice."),
        ),
        ("hold", {}, ("hold",)),
        ("resume", {}, ("resume",)),
        ("mute", {"muted": True}, ("mute", True)),
    ],
)
def test_what_an_operator_asks_is_asked_of_the_call(what: str, body: Any, asked: Any) -> None:
    call = Call()
    answer = client(call).post(f"/v1/calls/call_1/{what}", json=body)
    assert (answer.status_code, answer.json()) == (202, {"id": "call_1"})
    assert call.asked == [asked]


def test_a_transfer_can_be_given_up() -> None:
    call = Call()
    assert client(call).delete("/v1/calls/call_1/transfer").status_code == 202
    assert call.asked == [("take_back",)]


@pytest.mark.parametrize(
    ("code", "status"),
    [("not_supported", 409), ("not_now", 409), ("unknown_target", 422), ("country_closed", 403)],
)
def test_what_the_call_refuses_is_a_problem_with_its_code(code: str, status: int) -> None:
    call = Call(Refuse(code, "because"))
    answer = client(call).post("/v1/calls/call_1/transfer", json={"target": "desk"})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "because" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("what", "body", "field"),
    [
        ("transfer", {}, "target"),
        ("transfer", {"target": "+12025550123"}, "target"),
        ("transfer", {"target": "desk", "kind": "loud"}, "kind"),
        ("transfer", {"target": "desk", "summary": "x" * (MAX_SUMMARY_CHARS + 1)}, "summary"),
        ("transfer", {"target": "desk", "number": "+12025550123"}, "?"),
        ("mute", {"muted": "yes"}, "muted"),
        ("hold", {"who": "me"}, "?"),
    ],
)
def test_wrong_fields_are_named_and_nothing_is_done(what: str, body: Any, field: str) -> None:
    call = Call()
    answer = client(call).post(f"/v1/calls/call_1/{what}", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)
    assert call.asked == []


@pytest.mark.parametrize("what", ["transfer", "hold", "resume", "mute"])
def test_forms_and_other_calls_are_not_taken(what: str) -> None:
    call = Call()
    here = client(call)
    assert here.post(f"/v1/calls/call_1/{what}", data={"target": "desk"}).status_code == 415
    assert (
        here.post(f"/v1/calls/call_1/{what}", content=b"x", headers={"Content-Type": "application/json"}).status_code
        == 400
    )
    body = {"transfer": {"target": "desk"}, "mute": {"muted": True}}.get(what, {})
    assert here.post(f"/v1/calls/call_2/{what}", json=body).status_code == 404
    foreign = Call(tenant=TenantId("another"))
    assert client(foreign).post(f"/v1/calls/call_1/{what}", json=body).status_code == 404
    assert call.asked == foreign.asked == []
