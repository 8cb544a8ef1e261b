"""Errors as RFC 9457 problem documents."""

import json
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"


def problem(status: int, detail: str = "", headers: dict[str, str] | None = None) -> Response:
    """`type` is left out, which means about:blank (RFC 9457 4.2.1): the status says it all."""
    body = {"title": HTTPStatus(status).phrase, "status": status} | ({"detail": detail} if detail else {})
    return Response(json.dumps(body), status, headers, MEDIA_TYPE)


async def on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = "" if error.detail == HTTPStatus(error.status_code).phrase else error.detail
    return problem(error.status_code, detail, dict(error.headers or {}))


async def on_bug(request: Request, error: Exception) -> Response:
    """Starlette logs and re-raises it to the server; the client learns nothing of our insides."""
    return problem(500)
