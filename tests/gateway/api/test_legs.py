"""Who else is in a call, asked and changed over HTTP; the call's party takes note."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from tests.gateway.api.coming import As
from trunkline.gateway.api.legs import AttendedCall, leg_routes
from trunkline.gateway.api.problems import on_http_exception
from trunkline.gateway.party import Change, Invitation, OtherView
from trunkline.ports import Refuse
from trunkline.types import DEFAULT_TENANT, E164, CallId, TenantId

HERE = "/v1/calls/call_1/legs"
ANN = OtherView("leg_1", "supervisor", "ringing", "floor", "carrier", "listen", False)
SHOWN = {
    "id": "leg_1",
    "role": "supervisor",
    "state": "ringing",
    "name": "floor",
    "trunk": "carrier",
    "supervision": "listen",
    "muted": False,
}


class FakeParty:
    def __init__(self, refusing: Refuse | None) -> None:
        self.refusing = refusing
        self.asked: list[Any] = []

    def views(self) -> list[OtherView]:
        return [ANN]

    def invite(self, invitation: Invitation) -> OtherView | Refuse:
        self.asked.append(invitation)
        return self.refusing or ANN

    def change(self, name: str, change: Change) -> Refuse | None:
        self.asked.append((name, change))
        return self.refusing

    def dismiss(self, name: str) -> Refuse | None:
        self.asked.append(name)
        return self.refusing


class Call:
    def __init__(self, refusing: Refuse | None = None, tenant: TenantId = DEFAULT_TENANT) -> None:
        self.started: Any = SimpleNamespace(tenant=tenant)
        self.party = FakeParty(refusing)

    def number_of(self, target: str) -> E164 | Refuse:
        return E164("+14155550177") if target == "floor" else Refuse("unknown_target", "there is no such target")

    @property
    def client(self) -> TestClient:
        def find(call_id: CallId) -> AttendedCall | None:
            return cast(AttendedCall, self) if call_id == "call_1" else None

        return TestClient(
            Starlette(
                routes=leg_routes(find),
                middleware=[Middleware(As)],
                exception_handlers={HTTPException: on_http_exception},
            )
        )


def test_who_is_there_is_listed() -> None:
    answer = Call().client.get(HERE)
    assert (answer.status_code, answer.json()) == (200, {"legs": [SHOWN]})


@pytest.mark.parametrize(
    ("body", "number", "role", "supervision", "name"),
    [
        ({"target": "floor"}, "+14155550177", "supervisor", "listen", "floor"),
        ({"to": "+14155550178", "supervision": "speak"}, "+14155550178", "supervisor", "speak", ""),
        ({"to": "+14155550178", "role": "representative"}, "+14155550178", "representative", "listen", ""),
    ],
)
def test_who_is_invited_is_rung(body: Any, number: str, role: str, supervision: str, name: str) -> None:
    call = Call()
    answer = call.client.post(HERE, json=body | {"ring_timeout_s": 12, "from": "+14155550100"})
    assert (answer.status_code, answer.json()) == (201, SHOWN)
    assert answer.headers["Location"] == f"{HERE}/leg_1"
    (asked,) = call.party.asked
    assert (asked.role, asked.supervision, asked.name) == (role, supervision, name)
    assert (asked.order.to_number, asked.order.from_number, asked.order.ring_timeout_s) == (number, "+14155550100", 12)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "target"),
        ({"target": "floor", "to": "+14155550178"}, "target"),
        ({"target": "nobody"}, "target"),
        ({"target": "floor", "role": "caller"}, "role"),
        ({"target": "floor", "supervision": "shout"}, "supervision"),
        ({"to": "+14155550178", "ring_timeout_s": 4}, "ring_timeout_s"),
        ({"to": "+14155550178", "from": "me"}, "from"),
        ({"to": ""}, "to"),
        ({"to": "+14155550178", "loud": True}, "?"),
    ],
)
def test_wrong_fields_are_named_and_nobody_is_rung(body: Any, field: str) -> None:
    call = Call()
    answer = call.client.post(HERE, json=body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)
    assert call.party.asked == []


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("country_closed", 403),
        ("emergency", 403),
        ("conference_full", 409),
        ("not_now", 409),
        ("not_supported", 409),
        ("trunk_down", 503),
        ("no_trunk", 503),
    ],
)
def test_a_refusal_is_a_problem_with_its_code(code: str, status: int) -> None:
    answer = Call(Refuse(code, "because")).client.post(HERE, json={"target": "floor"})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_leg_is_changed() -> None:
    call = Call()
    answer = call.client.patch(f"{HERE}/leg_1", json={"supervision": "whisper", "muted": True})
    assert (answer.status_code, answer.json()) == (200, SHOWN)
    assert call.party.asked == [("leg_1", Change("whisper", True))]


def test_a_leg_is_sent_away() -> None:
    call = Call()
    assert call.client.delete(f"{HERE}/leg_1").status_code == 202
    assert call.party.asked == ["leg_1"]


@pytest.mark.parametrize("method", ["patch", "delete"])
def test_a_leg_that_is_not_there_is_404(method: str) -> None:
    call = Call(Refuse("unknown_leg", "the call has no such leg"))
    answer = call.client.request(method, f"{HERE}/leg_2", json={"muted": True})
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_leg")


def test_forms_and_the_calls_of_others_are_not_taken() -> None:
    call = Call()
    assert call.client.post(HERE, data={"target": "floor"}).status_code == 415
    assert call.client.post(HERE, content=b"x", headers={"Content-Type": "application/json"}).status_code == 400
    assert call.client.get("/v1/calls/call_2/legs").status_code == 404
    foreign = Call(tenant=TenantId("another"))
    for method, path in (("GET", HERE), ("POST", HERE), ("PATCH", f"{HERE}/leg_1"), ("DELETE", f"{HERE}/leg_1")):
        body = {"POST": {"target": "floor"}, "PATCH": {"muted": True}}.get(method)
        assert foreign.client.request(method, path, json=body).status_code == 404
    assert call.party.asked == foreign.party.asked == []
