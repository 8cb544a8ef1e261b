import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, cast

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from trunkline.agents.health import Health
from trunkline.errors import ProviderError, StoreError
from trunkline.gateway.api.accounts import account_routes
from trunkline.gateway.api.app import create_http
from trunkline.gateway.api.calls import LiveCall
from trunkline.gateway.api.compliance import compliance_routes
from trunkline.gateway.api.control import control_routes
from trunkline.gateway.api.desk import desk_routes
from trunkline.gateway.api.devices import device_routes
from trunkline.gateway.api.events import event_routes
from trunkline.gateway.api.guard import MAX_BODY_BYTES
from trunkline.gateway.api.history import history_routes
from trunkline.gateway.api.legs import leg_routes
from trunkline.gateway.api.providers import provider_routes
from trunkline.gateway.api.recordings import recording_routes
from trunkline.gateway.api.routed import routed_routes
from trunkline.gateway.api.trunks import TrunkView, trunk_routes
from trunkline.gateway.api.webhooks import webhook_desk_routes
from trunkline.gateway.arrival import Arrival
from trunkline.gateway.dialling import DialOrder
from trunkline.gateway.feed import CallFeed
from trunkline.gateway.twilio.tokens import Tokens
from trunkline.gateway.twilio.webhooks import CallStatus, CallView
from trunkline.gateway.webrtc.whip import whip_routes
from trunkline.metrics import Metrics
from trunkline.ports import CallQuery, CallStarted, Claimed, Conflict, Known, Refuse
from trunkline.settings import Http, Settings, Twilio
from trunkline.testing.clock import ManualClock
from trunkline.types import DEFAULT_TENANT, E164, CallId, CallSid, StreamSid, TenantId

KEY = "0123456789abcdef"
AT = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)
LIVE = CallStarted(CallId("live-1"), DEFAULT_TENANT, "inbound", "twilio", "clinic", AT, "+14155550123", None, "CA1")


@dataclass
class FakeSwitchboard:
    calls: dict[CallId, LiveCall] = field(default_factory=lambda: {LIVE.call_id: LiveCall(LIVE, "active")})
    hung_up: list[CallId] = field(default_factory=list)
    orders: list[DialOrder] = field(default_factory=list)
    refuses: Refuse | None = None
    lost_orders: list[DialOrder] = field(default_factory=list)

    def dial(self, order: DialOrder) -> CallId | Refuse:
        self.orders.append(order)
        return self.refuses or order.call_id or CallId("placed-1")

    def lost(self, order: DialOrder) -> None:
        self.lost_orders.append(order)

    def live(self, call_id: CallId) -> LiveCall | None:
        return self.calls.get(call_id)

    def all_live(self) -> list[LiveCall]:
        return list(self.calls.values())

    def hang_up(self, call_id: CallId) -> bool:
        self.hung_up.append(call_id)
        return call_id in self.calls

    def admit(self, arrival: Arrival) -> CallId | Refuse:
        return CallId("call-1")

    def by_call_sid(self, call_sid: CallSid) -> CallView | None:
        return None

    def status(self, call_sid: CallSid, status: CallStatus, duration_s: int | None) -> None: ...

    def stream_event(self, call_sid: CallSid, stream_sid: StreamSid, event: str, error: str) -> None: ...

    def dialled(self, call_sid: CallSid, status: CallStatus, duration_s: int | None) -> None: ...

    def sent_on(self, call_sid: CallSid, duration_s: int) -> None: ...


HEALTH = Health()
HEALTH.failed("llm.test", ProviderError("test", "auth", retryable=False), 0.0)


@dataclass(frozen=True)
class FakePage:
    calls: list[Mapping[str, Any]]
    next_cursor: str | None


@dataclass
class FakeRecords:
    """Calls old-1 to old-3; the cursor is how many were shown."""

    away: bool = False
    asked: list[CallQuery] = field(default_factory=list)

    async def get(self, tenant: TenantId, call_id: CallId) -> Mapping[str, Any] | None:
        if self.away:
            raise StoreError("no database at secret-host")
        return {"id": call_id, "end_reason": "caller_hung_up"} if call_id.startswith("old") else None

    async def search(self, tenant: TenantId, query: CallQuery, *, limit: int, cursor: str | None) -> FakePage:
        self.asked.append(query)
        every = [{"id": "live-1"}, {"id": "old-1"}, {"id": "old-2"}]
        if not (cursor or "0").isdigit():
            raise ValueError("cursor: the next_cursor of an earlier answer expected")
        at = int(cursor or "0")
        return FakePage([*every[at : at + limit]], str(at + limit) if at + limit < len(every) else None)


@dataclass
class FakeOrders:
    """The database's memory: it outlives the gateways that are made with it."""

    taken: dict[str, tuple[str, CallId]] = field(default_factory=dict)
    away: bool = False
    ours: bool = True

    async def claim(self, tenant: TenantId, key: str, fingerprint: str, call_id: CallId) -> Claimed | Known | Conflict:
        if self.away:
            raise StoreError("no database at secret-host")
        if key not in self.taken:
            self.taken[key] = fingerprint, call_id
            return Claimed()
        before, known = self.taken[key]
        return Known(known, self.ours) if before == fingerprint else Conflict()

    async def release(self, tenant: TenantId, key: str, call_id: CallId) -> None:
        if self.away:
            raise StoreError("no database at secret-host")
        if self.taken.get(key, ("", ""))[1] == call_id:
            del self.taken[key]


@dataclass
class Gateway:
    client: TestClient
    switchboard: FakeSwitchboard
    records: FakeRecords
    reasons: list[str]


async def _bug(request: Request) -> Response:
    raise RuntimeError("secret insides")


async def _echo(request: Request) -> Response:
    return Response(str(len(await request.body())))


MORE = [Route("/bug", _bug), Route("/echo", _echo, methods=["POST"])]
Make = Callable[..., Gateway]


def gateway(*api_keys: str, public_url: str | None = None, orders: FakeOrders | None = None) -> Gateway:
    http = Http.model_validate({"api_key": api_keys, "public_url": public_url})
    twilio = Twilio.model_validate({"auth_token": ["t"] if public_url else []})
    switchboard, records, reasons = FakeSwitchboard(), FakeRecords(), list[str]()
    app = create_http(
        Settings(http=http, twilio=twilio),
        switchboard,
        records,
        Metrics(),
        ManualClock(),
        lambda: reasons,
        Tokens(),
        [
            *MORE,
            *control_routes(lambda _: None),
            *leg_routes(lambda _: None),
            *compliance_routes(cast(Any, None)),
            *trunk_routes(lambda: [TrunkView("pbx", "down", takes_calls=True, calls=2)]),
            *provider_routes(lambda: HEALTH.report(0.0)),
            *desk_routes(cast(Any, None), cast(Any, None)),
            *routed_routes(cast(Any, None), ManualClock()),
            *account_routes(*cast(Any, (None,) * 7)),
            *device_routes(cast(Any, None), cast(Any, None), cast(Any, None), cast(Any, None)),
            *account_routes(*cast(Any, (None,) * 7)),
            *whip_routes(cast(Any, None), (), "http://testserver"),
            *webhook_desk_routes(cast(Any, None), cast(Any, None), ManualClock(), allow_private=False),
        ],
        orders=orders or FakeOrders(),
        first_routes=[
            *history_routes(cast(Any, None), ManualClock(), lambda: []),
            *event_routes(switchboard, CallFeed(cast(Any, None))),
            *recording_routes(cast(Any, None), lambda: [], None, ManualClock()),
        ],
    )
    client = TestClient(app, base_url="http://127.0.0.1:8080", raise_server_exceptions=False)
    return Gateway(client, switchboard, records, reasons)


def problem(response: Any) -> tuple[int, str, str]:
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == response.status_code
    return body["status"], body["title"], body.get("detail", "")


def test_the_front_page_says_what_to_try() -> None:
    text = gateway().client.get("/").text
    assert "trunkline call http://127.0.0.1:8080/twilio/voice" in text


def test_the_front_page_names_the_public_origin() -> None:
    text = gateway(KEY, public_url="https://voice.example.com").client.get("/").text
    assert "https://voice.example.com/twilio/voice" in text


def test_health_is_about_the_process_and_readiness_about_new_calls() -> None:
    here = gateway(KEY)
    assert here.client.get("/healthz").json() == {"status": "ok"}
    assert here.client.get("/readyz").json() == {"ready": True, "reasons": []}
    here.reasons.append("draining")
    response = here.client.get("/readyz")
    assert (response.status_code, response.json()) == (503, {"ready": False, "reasons": ["draining"]})
    assert here.client.get("/healthz").status_code == 200


def test_metrics_are_prometheus_text() -> None:
    response = gateway().client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "trunkline_calls_live 0.0" in response.text


def test_calls_come_in_pages_and_live_ones_are_marked() -> None:
    client = gateway().client
    first = client.get("/v1/calls?limit=2").json()
    assert [(call["id"], call["live"]) for call in first["calls"]] == [("live-1", True), ("old-1", False)]
    second = client.get(f"/v1/calls?limit=2&cursor={first['next_cursor']}").json()
    assert ([call["id"] for call in second["calls"]], second["next_cursor"]) == (["old-2"], None)


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "limit=-1", "limit=²", "cursor=x"])
def test_a_wrong_page_is_a_problem(query: str) -> None:
    status, title, detail = problem(gateway().client.get(f"/v1/calls?{query}"))
    assert (status, title, detail.partition(":")[0]) == (400, "Bad Request", query.partition("=")[0])


def test_one_call_live_or_ended() -> None:
    client = gateway().client
    live = client.get("/v1/calls/live-1").json()
    assert (live["live"], live["state"], live["from_number"], live["agent"]) == (
        True,
        "active",
        "+14155550123",
        "clinic",
    )
    assert client.get("/v1/calls/old-1").json() == {"id": "old-1", "end_reason": "caller_hung_up", "live": False}
    assert problem(client.get("/v1/calls/none")) == (404, "Not Found", "no such call")
    assert problem(client.get("/v1/calls/" + "x" * 65))[0] == 404


def test_another_tenants_live_call_is_no_call() -> None:
    here = gateway()
    other = CallStarted(CallId("theirs"), TenantId("other"), "inbound", "twilio", "a", AT)
    here.switchboard.calls[other.call_id] = LiveCall(other, "active")
    assert here.client.get("/v1/calls/theirs").status_code == 404
    assert here.client.delete("/v1/calls/theirs").status_code == 404
    assert here.switchboard.hung_up == []


def test_delete_hangs_up_and_may_be_repeated() -> None:
    here = gateway()
    response = here.client.delete("/v1/calls/live-1")
    assert (response.status_code, response.json()) == (202, {"id": "live-1", "state": "ending"})
    assert here.switchboard.hung_up == ["live-1"]
    assert here.client.delete("/v1/calls/old-1").status_code == 204
    assert problem(here.client.delete("/v1/calls/none"))[0] == 404


def test_an_order_becomes_a_call_with_a_place_of_its_own() -> None:
    here = gateway()
    response = here.client.post("/v1/calls", json={"to": "+12025550123", "from": "+14155550100", "ring_timeout_s": 20})
    assert (response.status_code, response.headers["location"]) == (201, "/v1/calls/placed-1")
    assert response.json() == {
        "id": "placed-1",
        "call_id": "placed-1",
        "state": "dialling",
        "direction": "outbound",
        "to_number": "+12025550123",
        "from_number": "+14155550100",
        "trunk": None,
    }
    assert here.switchboard.orders == [DialOrder(E164("+12025550123"), E164("+14155550100"), None, 20.0)]


@pytest.mark.parametrize(
    ("code", "status", "title"),
    [
        ("outbound_closed", 403, "Forbidden"),
        ("emergency", 403, "Forbidden"),
        ("draining", 503, "Service Unavailable"),
    ],
)
def test_an_order_that_is_refused_is_a_problem(code: str, status: int, title: str) -> None:
    here = gateway()
    here.switchboard.refuses = Refuse(code, "because")
    response = here.client.post("/v1/calls", json={"to": "+12025550123"})
    assert problem(response) == (status, title, "because")
    assert response.json()["code"] == code
    assert ("retry-after" in response.headers) == (status == 503)


ORDER = {"to": "+12025550123"}


def test_an_order_that_is_repeated_with_its_key_is_one_call() -> None:
    here = gateway()
    first = here.client.post("/v1/calls", json=ORDER, headers={"Idempotency-Key": '"k-1"'})
    here.switchboard.calls[CallId(first.json()["id"])] = LiveCall(LIVE, "ringing")
    body = b'{ "to" : "+12025550123" }'  # the same, and so is the key without its quotes
    again = here.client.post(
        "/v1/calls", content=body, headers={"Idempotency-Key": "k-1", "Content-Type": "application/json"}
    )
    assert (first.status_code, again.status_code) == (201, 201)
    assert (first.json(), first.headers["location"]) == (again.json(), again.headers["location"])
    assert first.json()["id"].startswith("call_")
    assert (len(here.switchboard.orders), here.switchboard.lost_orders) == (1, [])
    other = here.client.post("/v1/calls", json=ORDER, headers={"Idempotency-Key": "k-2"})
    assert other.json()["id"] != first.json()["id"]


def test_a_key_of_another_order_is_refused() -> None:
    here = gateway()
    here.client.post("/v1/calls", json=ORDER, headers={"Idempotency-Key": "k"})
    other = here.client.post("/v1/calls", json=ORDER | {"ring_timeout_s": 20}, headers={"Idempotency-Key": "k"})
    assert problem(other) == (422, HTTPStatus(422).phrase, "this key was used for another order")
    assert other.json()["code"] == "idempotency_key_reused"
    assert len(here.switchboard.orders) == 1


def test_an_order_whose_process_died_is_never_dialled_again() -> None:
    orders = FakeOrders()
    first = gateway(orders=orders).client.post("/v1/calls", json=ORDER, headers={"Idempotency-Key": "k"})
    restarted = gateway(orders=orders)  # with nothing in its records: it died at once
    again = restarted.client.post("/v1/calls", json=ORDER, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json()) == (201, first.json())
    assert restarted.switchboard.orders == []
    assert [order.call_id for order in restarted.switchboard.lost_orders] == [first.json()["id"]]


@pytest.mark.parametrize(("call_id", "ours"), [("old-1", True), ("elsewhere", False)])
def test_a_call_with_a_record_or_of_another_worker_is_left_alone(call_id: str, ours: bool) -> None:
    orders = FakeOrders(ours=ours)
    here = gateway(orders=orders)
    here.client.post("/v1/calls", json=ORDER, headers={"Idempotency-Key": "k"})
    orders.taken["k"] = orders.taken["k"][0], CallId(call_id)
    assert here.client.post("/v1/calls", json=ORDER, headers={"Idempotency-Key": "k"}).json()["id"] == call_id
    assert here.switchboard.lost_orders == []


def test_an_order_that_was_refused_may_be_given_again_with_its_key() -> None:
    here = gateway()
    here.switchboard.refuses = Refuse("overloaded", "no line is free")
    assert here.client.post("/v1/calls", json=ORDER, headers={"Idempotency-Key": "k"}).status_code == 503
    here.switchboard.refuses = None
    assert here.client.post("/v1/calls", json=ORDER, headers={"Idempotency-Key": "k"}).status_code == 201
    assert len(here.switchboard.orders) == 2


def test_with_a_key_and_no_database_nobody_is_dialled() -> None:
    here = gateway(orders=FakeOrders(away=True))
    assert here.client.post("/v1/calls", json=ORDER, headers={"Idempotency-Key": "k"}).status_code == 503
    assert here.switchboard.orders == []
    assert here.client.post("/v1/calls", json=ORDER).status_code == 201


@pytest.mark.parametrize("key", ["", '""', "a b", '"a', "x" * 129, 'a"b', "\x7f"])
def test_a_wrong_key_dials_nobody(key: str) -> None:
    here = gateway()
    response = here.client.post("/v1/calls", json=ORDER, headers={"Idempotency-Key": key})
    assert (problem(response)[0], response.json()["code"]) == (400, "idempotency_key_invalid")
    assert here.switchboard.orders == []


def test_a_wrong_order_dials_nobody() -> None:
    here = gateway()
    response = here.client.post("/v1/calls", json={"to": "+12025550123", "ring_timeout_s": 0})
    assert response.json()["errors"] == [{"field": "ring_timeout_s", "detail": "seconds from 5 to 120"}]
    assert problem(response)[0] == 422
    assert problem(here.client.post("/v1/calls", content=b"{", headers={"Content-Type": "application/json"}))[0] == 400
    assert problem(here.client.post("/v1/calls", data={"to": "+12025550123"}))[0] == 415
    assert problem(here.client.post("/v1/calls", content=b'{"to": "+12025550123"}'))[0] == 415
    assert here.switchboard.orders == []


def test_dialling_needs_the_key_and_without_one_a_loopback_name() -> None:
    locked, opened = gateway(KEY), gateway()
    order = {"to": "+12025550123"}
    assert locked.client.post("/v1/calls", json=order).status_code == 401
    assert opened.client.post("/v1/calls", json=order, headers={"Host": "evil.example.com"}).status_code == 403
    assert locked.switchboard.orders == opened.switchboard.orders == []
    assert locked.client.post("/v1/calls", json=order, headers={"X-Api-Key": KEY}).status_code == 201


def test_a_database_that_is_away_is_no_bug_of_the_clients() -> None:
    here = gateway()
    here.records.away = True
    response = here.client.get("/v1/calls/old-1")
    assert problem(response) == (503, "Service Unavailable", "the database is away")
    assert response.headers["retry-after"] == "5"


@pytest.mark.parametrize("path", ["/v1/calls", "/v1/calls/live-1", "/v1/none", "/metrics"])
def test_with_a_key_the_api_is_locked(path: str) -> None:
    client = gateway("another-api-key-1", KEY).client
    response = client.get(path)
    assert problem(response) == (401, "Unauthorized", "an API key is needed")
    assert response.headers["www-authenticate"].startswith("Bearer")
    for wrong in ({"Authorization": f"Bearer {KEY}x"}, {"Authorization": f"Basic {KEY}"}, {"X-Api-Key": ""}):
        assert client.get(path, headers=wrong).status_code == 401
    for right in (
        {"Authorization": f"Bearer {KEY}"},
        {"X-Api-Key": KEY},
        {"Authorization": "bearer another-api-key-1"},
    ):
        assert client.get(path, headers=right).status_code in (200, 404)


def test_delete_needs_the_key_too() -> None:
    here = gateway(KEY)
    assert here.client.delete("/v1/calls/live-1").status_code == 401
    assert here.switchboard.hung_up == []


def test_webhooks_need_no_key() -> None:
    form = {"CallSid": "CA" + "0" * 32}
    assert gateway(KEY).client.post("/twilio/voice", data=form).status_code == 200


@pytest.mark.parametrize("host", ["x.ngrok.io", "evil.example.com:8080", "", "[", "0.0.0.0"])
def test_without_a_key_the_api_answers_to_loopback_names_only(host: str) -> None:
    client = gateway().client
    assert client.get("/v1/calls", headers={"Host": host}).status_code == 403
    assert client.get("/healthz", headers={"Host": host}).status_code == 200
    for name in ("localhost:8080", "127.0.0.1", "[::1]:8080"):
        assert client.get("/v1/calls", headers={"Host": name}).status_code == 200


def test_errors_are_problem_documents_without_our_insides() -> None:
    client = gateway().client
    assert problem(client.get("/none")) == (404, "Not Found", "")
    assert problem(client.put("/v1/calls")) == (405, "Method Not Allowed", "")
    assert client.put("/v1/calls").headers["allow"] == "GET, HEAD, POST"
    assert client.put("/v1/calls/c1").headers["allow"] == "DELETE, GET, HEAD"
    assert problem(client.get("/bug")) == (500, "Internal Server Error", "")


def test_bodies_are_limited_whether_they_say_their_length_or_not() -> None:
    client = gateway().client
    assert client.post("/echo", content=b"x" * MAX_BODY_BYTES).text == str(MAX_BODY_BYTES)
    assert problem(client.post("/echo", content=b"x" * (MAX_BODY_BYTES + 1)))[0] == 413
    assert problem(client.post("/echo", content=iter([b"x" * MAX_BODY_BYTES, b"x"])))[0] == 413
    assert problem(client.post("/echo", content=b"x", headers={"Content-Length": "9" * 30}))[0] == 413
    assert problem(client.post("/echo", content=b"x", headers={"Content-Length": "-1"}))[0] == 400


@pytest.mark.parametrize("path", ["/", "/v1/calls", "/none", "/bug"])
def test_every_answer_carries_the_security_headers(path: str) -> None:
    for response in (gateway().client.get(path), gateway(KEY).client.get(path)):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["content-security-policy"].startswith("default-src 'none'")
        assert response.headers["cache-control"] == "no-store"
        assert "strict-transport-security" not in response.headers
    public = gateway(KEY, public_url="https://voice.example.com").client.get(path)
    assert "strict-transport-security" in public.headers


def test_the_trunks_and_how_they_are() -> None:
    answer = gateway().client.get("/v1/trunks")
    assert answer.json() == {"trunks": [{"name": "pbx", "state": "down", "takes_calls": True, "calls": 2}]}


def test_the_providers_and_how_they_are() -> None:
    answer = gateway().client.get("/v1/providers")
    assert [(each["provider"], each["state"]) for each in answer.json()["providers"]] == [("llm.test", "open")]


def test_openapi_names_every_route_and_no_other() -> None:
    here = gateway()
    documented = here.client.get("/openapi.json").json()
    routes = {
        (route.path, method.lower())
        for route in here.client.app.routes  # type: ignore[attr-defined]
        for method in route.methods
        if method not in ("HEAD", "OPTIONS")
        and not route.path.startswith("/twilio/")
        and route.path not in ("/", "/bug", "/echo")
    }
    assert routes == {
        (path, method)
        for path, item in documented["paths"].items()
        for method in item
        if method in ("get", "post", "put", "patch", "delete")
    }
    references = {part.split('"')[0] for part in json.dumps(documented).split('"#/components/schemas/')[1:]}
    assert references == set(documented["components"]["schemas"])


def test_openapi_says_what_every_locked_route_may_answer() -> None:
    paths = gateway().client.get("/openapi.json").json()["paths"]
    assert {"400", "401", "403", "405", "429", "503", "default"} <= set(paths["/v1/calls"]["get"]["responses"])
    assert {"404", "413", "415"} <= set(paths["/v1/calls/{call_id}/legs"]["post"]["responses"])
    assert "RateLimit" in paths["/v1/calls"]["get"]["responses"]["200"]["headers"]
    assert "401" not in paths["/healthz"]["get"]["responses"]
