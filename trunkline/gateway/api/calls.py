"""/v1/calls: the record of what happened and what is happening, and calls to be placed."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trunkline.compliance.money.invoice import invoice
from trunkline.gateway.api.callquery import call_query
from trunkline.gateway.api.idempotency import OrderDesk, key_of
from trunkline.gateway.api.orders import order, refusal
from trunkline.gateway.api.principal import only_default, principal_of, tenant_of
from trunkline.gateway.dialling import DialOrder
from trunkline.ports import CallQuery, CallStarted, Orders, Refuse
from trunkline.types import CallId, TenantId

MAX_PAGE = 100
DEFAULT_PAGE = 50
MAX_ID_CHARS = 64
_HEARD = {"turns", "events"}
"""What was said, and what it led to: for who may listen."""


@dataclass(frozen=True, slots=True)
class LiveCall:
    started: CallStarted
    state: str
    """As the call state machine names it."""
    cost: Mapping[str, Any] | None = None
    """So far, what is reserved, and the forecast; None: nobody counts."""


class LiveCalls(Protocol):
    """The switchboard, as the API sees it. Every method returns at once."""

    def live(self, call_id: CallId) -> LiveCall | None: ...

    def all_live(self) -> Sequence[LiveCall]: ...

    def hang_up(self, call_id: CallId) -> bool:
        """End the call now, as the operator's wish. False: no such live call."""
        ...

    def dial(self, order: DialOrder) -> CallId | Refuse:
        """Place a call, if the dial door, our capacity and a trunk let us. How it goes is in its record."""
        ...

    def lost(self, order: DialOrder) -> None:
        """Record that an order was taken and its process died before it became a call."""
        ...


Expect = Callable[[DialOrder], Awaitable[DialOrder]]
"""Asks for what a call out needs of other processes, before `dial`."""


class Page(Protocol):
    @property
    def calls(self) -> Sequence[Mapping[str, Any]]: ...

    @property
    def next_cursor(self) -> str | None:
        """None: that was the last page."""
        ...


class CallRecords(Protocol):
    """The store's read side (`store.records`). A call is a JSON object with at least `id`. Raises StoreError."""

    async def get(self, tenant: TenantId, call_id: CallId) -> Mapping[str, Any] | None: ...

    async def search(self, tenant: TenantId, query: CallQuery, *, limit: int, cursor: str | None) -> Page:
        """Newest first, without turns and events. A short page is not the last while it has a next_cursor. Raises
        ValueError for what it cannot be asked, in words for the user."""
        ...


class Counsel(Protocol):
    """Knows about numbers (`api/compliance.py`)."""

    async def prepare(self, order: DialOrder) -> DialOrder:
        """With what is known of the number; the attempt is noted. Never raises."""
        ...

    async def refused(self, order: DialOrder) -> None:
        """It came to nothing: that attempt was none."""
        ...


def call_routes(
    live_calls: LiveCalls,
    records: CallRecords,
    orders: Orders,
    counsel: Counsel | None = None,
    expect: Expect | None = None,
) -> list[Route]:
    async def place(asked: DialOrder) -> CallId | Refuse:
        if expect is not None:
            asked = await expect(asked)
        if counsel is None:
            return live_calls.dial(asked)
        prepared = await counsel.prepare(asked)
        placed = live_calls.dial(prepared)
        if isinstance(placed, Refuse):
            await counsel.refused(prepared)
        return placed

    desk = OrderDesk(orders, live_calls, records, place)

    async def list_calls(request: Request) -> Response:
        tenant = tenant_of(request)
        query, asked = call_query(request, "limit", "cursor")
        limit = _limit(asked.get("limit", str(DEFAULT_PAGE)))
        try:
            page = await records.search(tenant, query, limit=limit, cursor=asked.get("cursor"))
        except ValueError as error:
            raise HTTPException(400, str(error)) from None
        calls = [shown(call, _of_tenant(live_calls.live(CallId(call["id"])), tenant)) for call in page.calls]
        return JSONResponse({"calls": calls, "next_cursor": page.next_cursor})

    async def dial(request: Request) -> Response:
        """Idempotent with an Idempotency-Key; without one, two orders are two calls."""
        body = await request.body()
        asked = order(request.headers.get("content-type", ""), body)
        if isinstance(asked, Response):
            return asked
        tenant = only_default(request, "calls out")
        key = key_of(request.headers.getlist("idempotency-key"))
        if isinstance(key, Response):
            return key
        placed = await place(asked) if key is None else await desk.place(tenant, key, body, asked)
        if isinstance(placed, Response):
            return placed
        if isinstance(placed, Refuse):
            return refusal(placed)
        return JSONResponse(_placed(placed, asked), 201, {"Location": f"/v1/calls/{placed}"})

    async def get_call(request: Request) -> Response:
        call_id, tenant = call_id_of(request), tenant_of(request)
        live = _of_tenant(live_calls.live(call_id), tenant)
        record = await records.get(tenant, call_id)
        if record is None and live is None:
            raise HTTPException(404, "no such call")
        told = shown(record or {}, live)
        if not principal_of(request).may("listen"):
            told = {name: value for name, value in told.items() if name not in _HEARD}
        return JSONResponse(told)

    async def end_call(request: Request) -> Response:
        """Idempotent: 202 while the call is being ended, 204 once it has."""
        call_id, tenant = call_id_of(request), tenant_of(request)
        if _of_tenant(live_calls.live(call_id), tenant) and live_calls.hang_up(call_id):
            return JSONResponse({"id": call_id, "state": "ending"}, 202)
        if await records.get(tenant, call_id) is None:
            raise HTTPException(404, "no such call")
        return Response(status_code=204)

    return [
        Route("/v1/calls", list_calls, methods=["GET"]),
        Route("/v1/calls", dial, methods=["POST"]),
        Route("/v1/calls/{call_id}", get_call, methods=["GET"]),
        Route("/v1/calls/{call_id}", end_call, methods=["DELETE"]),
    ]


def _placed(call_id: CallId, order: DialOrder) -> dict[str, Any]:
    return {
        "id": call_id,
        "call_id": call_id,
        "state": "dialling",
        "direction": "outbound",
        "to_number": order.to_number,
        "from_number": order.from_number,
        "trunk": order.trunk,
    }


def shown(record: Mapping[str, Any], live: LiveCall | None) -> dict[str, Any]:
    """The stored record; what only memory knows is added."""
    priced = {"cost": invoice(record["costs"])} if record.get("costs") else {}
    if live is None:
        return {**record, **priced, "live": False}
    started = live.started
    fresh = {
        "id": started.call_id,
        "direction": started.direction,
        "leg": started.leg,
        "agent": started.agent,
        "started_at": started.at.isoformat(),
        "from_number": started.from_number,
        "to_number": started.to_number,
        "provider_call_id": started.provider_call_id,
    }
    cost = {} if live.cost is None else {"cost": dict(live.cost)}
    return {**fresh, **record, **priced, **cost, "live": True, "state": live.state}


def _of_tenant(live: LiveCall | None, tenant: TenantId) -> LiveCall | None:
    return live if live is not None and live.started.tenant == tenant else None


def call_id_of(request: Request) -> CallId:
    call_id: str = request.path_params["call_id"]
    if len(call_id) > MAX_ID_CHARS:
        raise HTTPException(404, "no such call")
    return CallId(call_id)


def _limit(value: str) -> int:
    if value.isascii() and value.isdigit() and len(value) < 5 and 1 <= int(value) <= MAX_PAGE:
        return int(value)
    raise HTTPException(400, f"limit: 1 to {MAX_PAGE} expected")
