"""What every HTTP request passes: who it is (gate.py), a size limit on its body, security headers. Plain ASGI.

Webhooks carry Twilio's signature instead of a key, the console its cookie; health checks are open. Of those, none asks
the database here.
"""

import logging

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trunkline.clock import SYSTEM_CLOCK, Clock
from trunkline.errors import StoreError
from trunkline.gateway.api.gate import Gate
from trunkline.gateway.api.problems import problem, security_headers
from trunkline.gateway.api.ratelimit import RateLimit
from trunkline.identity import Principal

log = logging.getLogger("trunkline.api")

LOCKED = ("/v1/", "/metrics")
COUNTED = "/v1/"
CONSOLE, STATIC = "/console/", "/console/static/"
MAX_BODY_BYTES = 64 * 1024  # an SDP offer is under 10 KiB
LARGE_BYTES = {
    "/v1/apply": 8 * 1024 * 1024,
    "/v1/agents": 1024 * 1024,
    "/v1/numbers/import": 8 * 1024 * 1024,
    "/v1/compliance/preview": 256 * 1024,
    "/console/code": 8 * 1024 * 1024,
    "/console/numbers/_import": 8 * 1024 * 1024,
    "/console/agents": 1024 * 1024,
}
"""By the beginning of the path: files, agents' scripts, a campaign's numbers."""


class Guard:
    def __init__(
        self, app: ASGIApp, gate: Gate, *, https: bool, limit: RateLimit | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        """`limit`: of the requests that one principal makes of /v1."""
        self._app, self._gate, self._limit, self._clock = app, gate, limit, clock
        self._headers = security_headers(https=https)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        told: dict[str, str] = {}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in {**self._headers, **told}.items():
                    headers.setdefault(name, value)
            await send(message)

        headers = Headers(scope=scope)
        most = _most_bytes(scope["path"])
        refused = _too_large(headers, most)
        if refused is None and scope["path"].startswith(LOCKED):
            admitted = await self._gate.admit(scope["method"], scope["path"], headers)
            if isinstance(admitted, Principal):
                scope["state"] = {**scope.get("state", {}), "principal": admitted}
                refused = self._one_too_many(scope["path"], admitted, told)
            else:
                refused = admitted
        elif refused is None and scope["path"].startswith(CONSOLE) and not scope["path"].startswith(STATIC):
            refused = await self._sign_in(scope, headers)
        if refused is not None:
            await refused(scope, receive, send_with_headers)
        else:
            await self._app(scope, _limited(receive, most), send_with_headers)

    async def _sign_in(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        """Pages ask themselves what whoever it is may; nobody is nobody here."""
        try:
            found = await self._gate.of_console(scope["method"], headers)
        except StoreError as error:
            log.error("%s: who asks is not known: %s", scope["path"], error)
            return PlainTextResponse("The database is away. Please try again in a moment.\n", 503, {"Retry-After": "5"})
        if found is not None:
            scope["state"] = {**scope.get("state", {}), "principal": found[0], "csrf": found[1]}
        return None

    def _one_too_many(self, path: str, who: Principal, told: dict[str, str]) -> ASGIApp | None:
        if self._limit is None or not path.startswith(COUNTED):
            return None
        verdict = self._limit.take(f"{who.tenant}/{who.actor}", self._clock.now())
        told.update(verdict.headers)
        return None if verdict.allowed else problem(429, "too many requests (http.requests_per_minute)")


def _most_bytes(path: str) -> int:
    return next((most for beginning, most in LARGE_BYTES.items() if path.startswith(beginning)), MAX_BODY_BYTES)


def _too_large(headers: Headers, most: int) -> ASGIApp | None:
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        return problem(400, "Content-Length is not a number")
    if len(length) > 9 or int(length) > most:
        return problem(413, f"at most {most} bytes")
    return None


def _limited(receive: Receive, most: int) -> Receive:
    """A chunked body has no Content-Length to believe."""
    received_bytes = 0

    async def limited() -> Message:
        nonlocal received_bytes
        message = await receive()
        if message["type"] == "http.request":
            received_bytes += len(message.get("body", b""))
            if received_bytes > most:
                raise HTTPException(413, f"at most {most} bytes")
        return message

    return limited
