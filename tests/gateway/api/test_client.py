import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware

from trunkline.errors import ConfigError, PeerError
from trunkline.gateway.api import client
from trunkline.gateway.api.calls import LiveCall, Page, call_routes
from trunkline.gateway.api.client import Gateway, Progress, Refused, Step
from trunkline.gateway.api.gate import Gate
from trunkline.gateway.api.guard import Guard
from trunkline.gateway.dialling import DialOrder
from trunkline.ports import CallQuery, CallStarted, Claimed, Refuse
from trunkline.testing.clock import ManualClock
from trunkline.types import DEFAULT_TENANT, E164, CallId, TenantId

ORIGIN = "http://127.0.0.1:8080"
KEY = "0123456789abcdef"
ORDER = DialOrder(E164("+12025550123"))
PLACED = CallId("c")
AT = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)


def at(seconds: float) -> str:
    return (AT + timedelta(seconds=seconds)).isoformat()


def event(seconds: float, kind: str, **data: Any) -> dict[str, Any]:
    return {"at": at(seconds), "kind": kind, "data": data}


def turn(seconds: float, caller: str, agent: str, **more: Any) -> dict[str, Any]:
    return {"at": at(seconds), "caller_text": caller, "agent_text": agent, **more}


def record(*events: Any, turns: Any = (), **more: Any) -> dict[str, Any]:
    return {"id": "c", "started_at": at(0), "events": list(events), "turns": list(turns), **more}


def over(seconds: float, reason: str, detail: str | None = None) -> dict[str, Any]:
    return {"ended_at": at(seconds), "end_reason": reason, "end_detail": detail}


# --- the record as it grows ---


def test_what_is_new_is_told_once_in_the_order_it_happened() -> None:
    progress = Progress()
    begun = [event(0, "dialling", trunk="carrier"), event(1.5, "ringing")]
    assert progress.news(record(*begun)) == [Step(0, "dialling over carrier"), Step(1.5, "ringing")]
    assert progress.news(record(*begun)) == []
    later = [*begun, event(2, "early_media"), event(3, "answered"), event(9, "media"), event(8, "transfer")]
    turns = [turn(4, "", "Hello."), turn(7, "I would like", "Which day", interrupted=True)]
    assert progress.news(record(*later, turns=turns, **over(9.25, "caller_hung_up"))) == [
        Step(2, "early media"),
        Step(3, "answered"),
        Step(4, "agent: Hello."),
        Step(7, "they:  I would like"),
        Step(7, "agent: Which day ..."),
        Step(8, "transfer"),
        Step(9.25, "ended: caller_hung_up"),
    ]
    assert progress.news(record(*later, turns=turns, **over(9.25, "caller_hung_up"))) == []


def test_provisional_answers_are_told_in_words_and_not_again_and_again() -> None:
    codes = [event(n, "progress", code=code) for n, code in enumerate([100, 180, 180, 183, 181, 182, 199, 180])]
    told = [step.what for step in Progress().news(record(*codes))]
    assert told == ["ringing", "progress", "forwarded", "queued", "ringing"]


def test_an_end_says_why() -> None:
    (step,) = Progress().news(record(**over(30, "no_answer", "480 Temporarily Unavailable")))
    assert step == Step(30, "ended: no_answer (480 Temporarily Unavailable)")


@pytest.mark.parametrize(
    "strange",
    [
        {},
        {"live": True, "state": "ringing"},
        record("x", None, {}, {"kind": 5, "data": []}, {"kind": "progress", "data": {"code": []}}, turns=[3, {}]),
        {"events": {"kind": "answered"}, "turns": "none"},
    ],
)
def test_a_record_that_says_nothing_is_no_news(strange: dict[str, Any]) -> None:
    assert Progress().news(strange) == []


def test_a_time_that_is_none_is_the_beginning() -> None:
    assert Progress().news({"events": [{"kind": "answered", "at": 5}], "started_at": at(0)}) == [Step(0, "answered")]
    assert Progress().news({"events": [event(5, "answered")]}) == [Step(0, "answered")]


def test_words_do_not_command_the_terminal() -> None:
    (step,) = Progress().news(record(turns=[turn(1, "\x1b[2Jhi\r\n\x9b", "")]))
    assert step.what == "they:   [2Jhi   "


# --- the gateway, over HTTP ---


@dataclass
class Board:
    answer: CallId | Refuse = PLACED
    orders: list[DialOrder] = field(default_factory=list)
    hung_up: list[str] = field(default_factory=list)

    def dial(self, order: DialOrder) -> CallId | Refuse:
        self.orders.append(order)
        return self.answer

    def live(self, call_id: CallId) -> LiveCall | None:
        return LiveCall(CallStarted(call_id, DEFAULT_TENANT, "outbound", "sip", "clinic", AT), "active")

    def all_live(self) -> list[LiveCall]:
        raise NotImplementedError

    def hang_up(self, call_id: CallId) -> bool:
        self.hung_up.append(call_id)
        return True

    def lost(self, order: DialOrder) -> None:
        raise NotImplementedError


class NoOrders:
    async def claim(self, tenant: TenantId, key: str, fingerprint: str, call_id: CallId) -> Claimed:
        raise NotImplementedError

    async def release(self, tenant: TenantId, key: str, call_id: CallId) -> None:
        raise NotImplementedError


class Records:
    """A call's record grows by one reading at a time; the last one stays."""

    def __init__(self, *readings: dict[str, Any]) -> None:
        self._readings = list(readings)

    async def get(self, tenant: TenantId, call_id: CallId) -> Mapping[str, Any] | None:
        return self._readings.pop(0) if len(self._readings) > 1 else self._readings[0]

    async def search(self, tenant: TenantId, query: CallQuery, *, limit: int, cursor: str | None) -> Page:
        raise NotImplementedError


def api(board: Board, records: Records | None = None, *, key: str = KEY) -> httpx.AsyncClient:
    routes = call_routes(board, records or Records({}), NoOrders())
    app = Starlette(
        routes=routes, middleware=[Middleware(Guard, Gate([key] if key else [], ManualClock()), https=False)]
    )
    return httpx.AsyncClient(transport=httpx.ASGITransport(app))


def placed(order: DialOrder, board: Board, key: str = KEY) -> str | Refused:
    async def run() -> str | Refused:
        async with api(board) as http:
            return await Gateway(http, ORIGIN + "/", key).dial(order)

    return asyncio.run(run())


def answering(respond: Callable[[httpx.Request], httpx.Response], origin: str = ORIGIN) -> str | Refused:
    async def run() -> str | Refused:
        async with httpx.AsyncClient(transport=httpx.MockTransport(respond)) as http:
            return await Gateway(http, origin, "").dial(ORDER)

    return asyncio.run(run())


def test_an_order_arrives_as_it_was_given() -> None:
    board = Board()
    whole = DialOrder(E164("+12025550123"), E164("+14155550100"), "carrier", 20.0, {"case": "7"})
    assert [placed(ORDER, board), placed(whole, board)] == ["c", "c"]
    assert board.orders == [ORDER, whole]


@pytest.mark.parametrize("code", ["outbound_closed", "emergency", "invalid_number", "overloaded"])
def test_a_refusal_arrives_with_code_and_remedy(code: str) -> None:
    refused = placed(ORDER, Board(Refuse(code, "do this")))
    assert isinstance(refused, Refused)
    assert refused.code == code
    assert str(refused).startswith(f"{code}: ")
    assert str(refused).endswith("do this")


def test_a_wrong_field_arrives_by_name() -> None:
    refused = placed(DialOrder(E164("+12025550123"), ring_timeout_s=500), Board())
    assert str(refused) == "invalid_fields: ring_timeout_s: seconds from 5 to 120"


def test_a_wrong_key_is_the_admins_to_mend() -> None:
    with pytest.raises(ConfigError, match="--api-key"):
        placed(ORDER, Board(), "another-key-123456")


def _unreachable(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


@pytest.mark.parametrize(
    "respond",
    [
        _unreachable,
        lambda request: httpx.Response(200, text="<html>"),
        lambda request: httpx.Response(200, json=[]),
        lambda request: httpx.Response(201, json={}),
        lambda request: httpx.Response(404, json={"error": "no"}),
    ],
)
def test_what_is_no_gateway_is_one_line(respond: Callable[[httpx.Request], httpx.Response]) -> None:
    with pytest.raises(ConfigError, match="--gateway"):
        answering(respond)


@pytest.mark.parametrize("origin", ["", "ftp://x", "http://[", "127.0.0.1:8080", "http://x:99999"])
def test_what_is_no_origin_is_one_line(origin: str) -> None:
    async def run() -> None:
        async with httpx.AsyncClient(trust_env=False) as http:
            await Gateway(http, origin, "").dial(ORDER)

    with pytest.raises(ConfigError, match="--gateway"):
        asyncio.run(run())


# --- following ---


def followed(board: Board, records: Records) -> tuple[list[str], Mapping[str, Any]]:
    steps: list[str] = []

    async def run() -> Mapping[str, Any]:
        async with api(board, records) as http:
            return await client.follow(Gateway(http, ORIGIN, KEY), "c", lambda step: steps.append(step.what), 0)

    return steps, asyncio.run(run())


def test_a_call_is_followed_to_its_end() -> None:
    begun, rung, up = event(0, "dialling"), event(1, "ringing"), event(2, "answered")
    last = record(begun, rung, up, answered_at=at(2), **over(5, "agent_hung_up"))
    steps, whole = followed(Board(), Records({}, record(begun), record(begun, rung), record(begun, rung, up), last))
    assert steps == ["dialling", "ringing", "answered", "ended: agent_hung_up"]
    assert client.answered(whole)
    assert whole["end_reason"] == "agent_hung_up"


def test_a_call_nobody_answered_was_not_answered() -> None:
    steps, whole = followed(Board(), Records(record(event(0, "dialling"), answered_at=None, **over(9, "busy"))))
    assert steps == ["dialling", "ended: busy"]
    assert not client.answered(whole)


def follow(respond: Callable[[httpx.Request], httpx.Response]) -> Mapping[str, Any]:
    async def run() -> Mapping[str, Any]:
        async with httpx.AsyncClient(transport=httpx.MockTransport(respond)) as http:
            return await client.follow(Gateway(http, ORIGIN, ""), "c", lambda step: None, 0)

    return asyncio.run(run())


@pytest.mark.parametrize(
    "respond",
    [
        _unreachable,
        lambda request: httpx.Response(503, json={}),
        lambda request: httpx.Response(200, text="x"),
        lambda request: httpx.Response(200, json={"id": "c", "live": False}),
    ],
)
def test_a_gateway_that_is_gone_is_waited_for_only_so_long(respond: Callable[[httpx.Request], httpx.Response]) -> None:
    with pytest.raises(PeerError, match="call c"):
        follow(respond)


def test_a_gateway_that_hesitates_is_waited_for() -> None:
    tries = 0

    def respond(request: httpx.Request) -> httpx.Response:
        nonlocal tries
        tries += 1
        if tries % client.PATIENCE_POLLS:
            return httpx.Response(503)
        live = tries < 3 * client.PATIENCE_POLLS
        return httpx.Response(200, json={"live": True} if live else over(1, "no_answer"))

    assert follow(respond)["end_reason"] == "no_answer"


def test_who_stops_following_hangs_up() -> None:
    board = Board()

    async def run() -> None:
        async with api(board, Records(record(event(0, "dialling")))) as http:
            seen = asyncio.Event()
            gateway = Gateway(http, ORIGIN, KEY)
            task = asyncio.create_task(client.follow(gateway, "c", lambda step: seen.set(), 60))
            await seen.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    assert board.hung_up == ["c"]


def test_a_record_that_is_told_as_json_is_the_apis_own() -> None:
    _, whole = followed(Board(), Records(record(**over(1, "failed"))))
    assert json.loads(json.dumps(whole))["end_reason"] == "failed"
