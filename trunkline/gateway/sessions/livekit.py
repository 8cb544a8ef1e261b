"""A LiveKit access token: a JWT (RFC 7519) signed HS256 with the server's API secret, and in it the grant to join one
room. The room has the session's name."""

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from trunkline.settings import Livekit
from trunkline.types import SessionId


@dataclass(frozen=True, slots=True)
class LivekitServer:
    url: str
    """ws:// or wss://, as its clients connect to it."""
    api_key: str
    api_secret: str = field(repr=False)


def configured(given: Livekit) -> LivekitServer | None:
    if given.url is None or given.api_key is None or given.api_secret is None:
        return None
    return LivekitServer(given.url, given.api_key, given.api_secret.get_secret_value())


def access_token(
    server: LivekitServer, room: SessionId, identity: str, now: datetime, valid_s: float, *, kind: str = ""
) -> str:
    """For the participant `identity`, who may publish and subscribe there. The expiry holds for the first connection
    only, as LiveKit has it. `kind`: "agent", for others to tell who is none of them."""
    claims = {
        "iss": server.api_key,
        "sub": identity,
        "nbf": int(now.timestamp()),
        "exp": int((now + timedelta(seconds=valid_s)).timestamp()),
        "video": {"room": room, "roomJoin": True, "canPublish": True, "canSubscribe": True},
    }
    if kind:
        claims["kind"] = kind
    signed = f"{_part({'alg': 'HS256', 'typ': 'JWT'})}.{_part(claims)}"
    mac = hmac.digest(server.api_secret.encode(), signed.encode(), hashlib.sha256)
    return f"{signed}.{_encode(mac)}"


def _part(value: Any) -> str:
    return _encode(json.dumps(value, separators=(",", ":")).encode())


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
