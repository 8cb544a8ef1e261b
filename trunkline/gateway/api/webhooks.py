"""/v1/webhooks: who is told what happens, and what became of each telling.

A secret is in two answers only: of the order that made it, and of its rotation. A change that names the version it
was made from (If-Match) is refused with 412 where somebody else was first.
"""

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trunkline.addresses import forbidden
from trunkline.clock import Clock
from trunkline.gateway.api.control import Body, read_json
from trunkline.gateway.api.orders import wrong_fields
from trunkline.gateway.api.principal import tenant_of
from trunkline.gateway.api.problems import problem
from trunkline.gateway.hooks.signing import new_secret
from trunkline.hooks import EVENT_TYPES, PING, STATES, Attempt, Delivery, Endpoint, Endpoints, EventType, State, Wanted

MAX_URL_CHARS = 2048
DEFAULT_PAGE, MAX_PAGE = 50, 100
PREVIOUS_S_DEFAULT, PREVIOUS_S_MAX = 24 * 3600, 7 * 24 * 3600
_ETAG = re.compile(r'"([0-9]{1,9})"')
Send = Callable[[str, str, bytes, Sequence[str]], Awaitable[Attempt]]

_Url = Annotated[str, Field(min_length=1, max_length=MAX_URL_CHARS)]


def _each_once(events: list[EventType]) -> list[EventType]:
    return [*dict.fromkeys(events)]


_Events = Annotated[list[EventType], Field(max_length=64), AfterValidator(_each_once)]
_WANTED = {
    "events": f"of {', '.join(EVENT_TYPES)}; an empty list: all",
    "enabled": "true or false",
    "transcripts": "true or false: whether words that were said are told",
    "previous_valid_s": f"seconds from 0 to {PREVIOUS_S_MAX}",
}


class _New(Body):
    url: _Url
    events: _Events = Field(default_factory=list)
    enabled: bool = True
    transcripts: bool = False


class _Change(Body):
    url: _Url | None = None
    events: _Events | None = None
    enabled: bool | None = None
    transcripts: bool | None = None


def _whole(value: object) -> object:
    """60.0 is an integer in JSON Schema."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class _Rotation(Body):
    previous_valid_s: Annotated[int, Field(ge=0, le=PREVIOUS_S_MAX), BeforeValidator(_whole)] = PREVIOUS_S_DEFAULT


def webhook_desk_routes(endpoints: Endpoints, send: Send, clock: Clock, *, allow_private: bool) -> list[Route]:
    wanted = _WANTED | {"url": url_wanted(allow_private)}

    async def list_all(request: Request) -> Response:
        found = await endpoints.list(tenant_of(request))
        return JSONResponse({"webhooks": [_shown(each) for each in found]})

    async def create(request: Request) -> Response:
        asked = await read_json(request, _New, wanted)
        if isinstance(asked, Response):
            return asked
        if not is_url(asked.url, allow_private):
            return wrong_fields("invalid_fields", {"url": wanted["url"]})
        secret = new_secret()
        new = Wanted(asked.url, tuple(asked.events), asked.enabled, asked.transcripts)
        made = await endpoints.add(tenant_of(request), new, secret)
        if made is None:
            return problem(409, "no more webhooks: delete one first", code="too_many")
        headers = {"Location": f"/v1/webhooks/{made.id}", **_etag(made)}
        return JSONResponse(_shown(made) | {"secret": secret}, 201, headers)

    async def of(request: Request) -> Endpoint:
        found = await endpoints.get(tenant_of(request), request.path_params["webhook_id"])
        if found is None:
            raise _no_such()
        return found

    async def get(request: Request) -> Response:
        found = await of(request)
        return JSONResponse(_shown(found), headers=_etag(found))

    async def change(request: Request) -> Response:
        asked = await read_json(request, _Change, wanted)
        if isinstance(asked, Response):
            return asked
        if none := [name for name in asked.model_fields_set if getattr(asked, name) is None]:
            return wrong_fields("invalid_fields", {name: wanted[name] for name in none})
        if asked.url is not None and not is_url(asked.url, allow_private):
            return wrong_fields("invalid_fields", {"url": wanted["url"]})
        events = None if asked.events is None else tuple(asked.events)
        changes = Wanted(asked.url, events, asked.enabled, asked.transcripts)
        found = await endpoints.change(
            tenant_of(request), request.path_params["webhook_id"], changes, _version(request)
        )
        if found is None:
            raise _no_such()
        if found == "changed":
            return _changed()
        return JSONResponse(_shown(found), headers=_etag(found))

    async def delete(request: Request) -> Response:
        found = await endpoints.delete(tenant_of(request), request.path_params["webhook_id"], _version(request))
        if found == "changed":
            return _changed()
        if not found:
            raise _no_such()
        return Response(status_code=204)

    async def rotate(request: Request) -> Response:
        asked = await read_json(request, _Rotation, wanted)
        if isinstance(asked, Response):
            return asked
        secret, until = new_secret(), clock.wall() + timedelta(seconds=asked.previous_valid_s)
        found = await endpoints.rotate(tenant_of(request), request.path_params["webhook_id"], secret, until)
        if found is None:
            raise _no_such()
        shown = _shown(found) | {"secret": secret, "previous_valid_until": until.isoformat()}
        return JSONResponse(shown, headers=_etag(found))

    async def test(request: Request) -> Response:
        asked = await read_json(request, Body, wanted)
        if isinstance(asked, Response):
            return asked
        found = await of(request)
        keys = await endpoints.secrets(found.tenant, found.id)
        now = clock.wall()
        ping = {"type": PING, "timestamp": now.isoformat(), "data": {"webhook_id": found.id}}
        attempt = await send(found.url, f"ping_{now.timestamp():.6f}", json.dumps(ping).encode(), keys)
        return JSONResponse(
            {
                "delivered": attempt.is_delivered,
                "status": attempt.status,
                "error": attempt.error,
                "took_ms": round(attempt.took_s * 1000),
            }
        )

    async def deliveries(request: Request) -> Response:
        found, query = await of(request), request.query_params
        limit = _limit(query.get("limit", str(DEFAULT_PAGE)))
        state = _state(query.get("state"))
        try:
            page = await endpoints.deliveries(
                found.tenant, found.id, limit=limit, cursor=query.get("cursor"), state=state
            )
        except ValueError:
            raise HTTPException(400, "cursor: the next_cursor of an earlier answer expected") from None
        return JSONResponse(
            {"deliveries": [_delivery(each) for each in page.deliveries], "next_cursor": page.next_cursor}
        )

    async def redeliver(request: Request) -> Response:
        asked = await read_json(request, Body, wanted)
        if isinstance(asked, Response):
            return asked
        path = request.path_params
        found = await endpoints.redeliver(tenant_of(request), path["webhook_id"], path["delivery_id"])
        if found is None:
            raise HTTPException(404, "no such delivery")
        if found == "disabled":
            return problem(409, "the webhook is disabled: enable it first", code="disabled")
        return JSONResponse(_delivery(found), 202)

    one = "/v1/webhooks/{webhook_id}"
    return [
        Route("/v1/webhooks", list_all, methods=["GET"]),
        Route("/v1/webhooks", create, methods=["POST"]),
        Route(one, get, methods=["GET"]),
        Route(one, change, methods=["PATCH"]),
        Route(one, delete, methods=["DELETE"]),
        Route(f"{one}/rotate", rotate, methods=["POST"]),
        Route(f"{one}/test", test, methods=["POST"]),
        Route(f"{one}/deliveries", deliveries, methods=["GET"]),
        Route(f"{one}/deliveries/{{delivery_id}}/redeliver", redeliver, methods=["POST"]),
    ]


def _shown(endpoint: Endpoint) -> dict[str, Any]:
    shown = asdict(endpoint)
    del shown["tenant"], shown["failed_at"]
    return {name: _plain(value) for name, value in shown.items()}


def _delivery(delivery: Delivery) -> dict[str, Any]:
    return {name: _plain(value) for name, value in asdict(delivery).items()}


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _no_such() -> HTTPException:
    return HTTPException(404, "no such webhook")


def _changed() -> Response:
    return problem(412, "somebody has changed it meanwhile: read it again", code="wrong_etag")


def _etag(endpoint: Endpoint) -> dict[str, str]:
    return {"ETag": f'"{endpoint.version}"'}


def _version(request: Request) -> int | None:
    given = request.headers.get("if-match")
    if given is None or given.strip() == "*":
        return None
    found = _ETAG.fullmatch(given.strip())
    return int(found[1]) if found else -1


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MAX_PAGE):
        raise HTTPException(400, f"limit: 1 to {MAX_PAGE} expected")
    return int(text)


def _state(text: str | None) -> State | None:
    if text is None:
        return None
    for state in STATES:
        if text == state:
            return state
    raise HTTPException(400, f"state: {', '.join(STATES)} expected")


def url_wanted(allow_private: bool) -> str:
    if allow_private:
        return "an http:// or https:// URL without a password"
    return "an https:// URL of a public host, without a password"


def is_url(text: str, allow_private: bool) -> bool:
    """Where its host is a name, what it resolves to is judged each time it is sent to."""
    try:
        url = urlsplit(text)
        host, _ = url.hostname, url.port
    except ValueError:
        return False
    if not text.isascii() or not text.isprintable() or " " in text or "#" in text:
        return False
    if url.scheme not in (("https", "http") if allow_private else ("https",)) or not host or "@" in url.netloc:
        return False
    literal = forbidden(host, allow_private=allow_private)
    return literal in (None, "not an address")
