"""What every HTTP request passes: who it is (gate.py), a size limit on its body, security headers. Plain ASGI.

Webhooks carry Twilio's signature instead of a key, the console its cookie; health checks are open. Of those, none asks
the database here.
"""

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trunkline.gateway.api.gate import Gate
from trunkline.gateway.api.problems import problem, security_headers
from trunkline.identity import Principal

LOCKED = ("/v1/", "/metrics")
MAX_BODY_BYTES = 64 * 1024  # nothing we accept is larger; an SDP offer is under 10 KiB


class Guard:
    def __init__(self, app: ASGIApp, gate: Gate, *, https: bool) -> None:
        self._app, self._gate = app, gate
        self._headers = security_headers(https=https)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        headers = Headers(scope=scope)
        refused = _too_large(headers)
        if refused is None and scope["path"].startswith(LOCKED):
            admitted = await self._gate.admit(scope["method"], scope["path"], headers)
            if isinstance(admitted, Principal):
                scope["state"] = {**scope.get("state", {}), "principal": admitted}
            else:
                refused = admitted
        if refused is not None:
            await refused(scope, receive, send_with_headers)
        else:
            await self._app(scope, _limited(receive), send_with_headers)


def _too_large(headers: Headers) -> ASGIApp | None:
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        return problem(400, "Content-Length is not a number")
    if len(length) > 9 or int(length) > MAX_BODY_BYTES:
        return problem(413, f"at most {MAX_BODY_BYTES} bytes")
    return None


def _limited(receive: Receive) -> Receive:
    """A chunked body has no Content-Length to believe."""
    received_bytes = 0

    async def limited() -> Message:
        nonlocal received_bytes
        message = await receive()
        if message["type"] == "http.request":
            received_bytes += len(message.get("body", b""))
            if received_bytes > MAX_BODY_BYTES:
                raise HTTPException(413, f"at most {MAX_BODY_BYTES} bytes")
        return message

    return limited
