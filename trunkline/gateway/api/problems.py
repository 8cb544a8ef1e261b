"""Errors as RFC 9457 problem documents."""

import json
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from trunkline.errors import SessionsAway

log = logging.getLogger("trunkline.api")

MEDIA_TYPE = "application/problem+json"


def security_headers(*, https: bool) -> dict[str, str]:
    """What every answer carries. A route with its own policy (the console) sets its own first."""
    always = {
        "Cache-Control": "no-store",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return always | ({"Strict-Transport-Security": "max-age=31536000"} if https else {})


def problem(status: int, detail: str = "", headers: dict[str, str] | None = None, **more: Any) -> Response:
    """`type` is left out, which means about:blank (RFC 9457 4.2.1): the status says it all, or `code` among `more`."""
    body = {"title": HTTPStatus(status).phrase, "status": status} | ({"detail": detail} if detail else {}) | more
    return Response(json.dumps(body), status, headers, MEDIA_TYPE)


async def on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = "" if error.detail == HTTPStatus(error.status_code).phrase else error.detail
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers |= _allow(request)
    return problem(error.status_code, detail, headers)


def _allow(request: Request) -> dict[str, str]:
    """What all routes of that path take: the router tells of the first only."""
    routes = request.app.routes
    path = next((route.path for route in routes if route.matches(request.scope)[0] is not Match.NONE), None)
    methods = {method for route in routes if getattr(route, "path", None) == path for method in route.methods or ()}
    return {"Allow": ", ".join(sorted(methods))} if methods else {}


async def on_store_error(request: Request, error: Exception) -> Response:
    log.error("%s %s: %s", request.method, request.url.path, error)
    detail = "the session store is away" if isinstance(error, SessionsAway) else "the database is away"
    return problem(503, detail, {"Retry-After": "5"})


def on_bug(*, https: bool) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Starlette answers outside all middleware, then re-raises to the server, which logs. The client learns nothing of
    our insides."""

    async def answer(request: Request, error: Exception) -> Response:
        return problem(500, headers=security_headers(https=https))

    return answer
