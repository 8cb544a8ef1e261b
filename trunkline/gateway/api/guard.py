"""What every HTTP request passes: the API key, a size limit on its body, security headers. Plain ASGI.

Webhooks carry Twilio's signature instead of a key; health checks are open.
"""

import hmac
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trunkline.gateway.api.problems import problem, security_headers
from trunkline.settings import is_loopback

LOCKED = ("/v1/", "/metrics")
MAX_BODY_BYTES = 64 * 1024  # nothing we accept is larger; an SDP offer is under 10 KiB


class Guard:
    def __init__(self, app: ASGIApp, api_keys: Sequence[str], *, https: bool) -> None:
        self._app = app
        self._keys = [key.encode() for key in api_keys]
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
        refused = self._refusal(scope["path"], headers)
        if refused is not None:
            await refused(scope, receive, send_with_headers)
        else:
            await self._app(scope, _limited(receive), send_with_headers)

    def _refusal(self, path: str, headers: Headers) -> ASGIApp | None:
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            return problem(400, "Content-Length is not a number")
        if len(length) > 9 or int(length) > MAX_BODY_BYTES:
            return problem(413, f"at most {MAX_BODY_BYTES} bytes")
        if not path.startswith(LOCKED):
            return None
        if not self._keys:
            # Open means loopback (settings see to it), so another name in Host is a tunnel or DNS rebinding.
            if is_loopback(_hostname(headers.get("host", ""))):
                return None
            return problem(403, "without http.api_key this answers on loopback only")
        if _allowed(_key(headers), self._keys):
            return None
        return problem(401, "an API key is needed", {"WWW-Authenticate": 'Bearer realm="trunkline"'})


def _key(headers: Headers) -> bytes:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    key = credentials.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    return key.encode("latin-1")


def _allowed(given: bytes, keys: Sequence[bytes]) -> bool:
    allowed = False
    for key in keys:
        allowed |= hmac.compare_digest(given, key)  # no early way out: the time tells nothing
    return allowed


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


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
