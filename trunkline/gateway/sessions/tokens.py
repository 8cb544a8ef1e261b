"""Join tokens: signed, each for one join of one session, until a time. They name region and worker, so that who stands
before several can lead a device to whoever issued it; any that shares key and session store lets it in.

    base64url([version, region, worker, session, number, expires_ms]) "." base64url(HMAC-SHA256)
"""

import base64
import hashlib
import hmac
import json
import os
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from trunkline.errors import ConfigError
from trunkline.ports import Refuse
from trunkline.types import SessionId

VERSION = 1
MIN_KEY_BYTES = 32
MAX_TOKEN_CHARS = 400
KEY_FILE = "join.key"
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{43}", re.ASCII)
_CONTEXT = b"trunkline join\0"  # what else is signed with this key is no join token


@dataclass(frozen=True, slots=True)
class Named:
    """What a token is good for."""

    session_id: SessionId
    number: int
    region: str
    worker: str


def issue(key: bytes, named: Named, expires: datetime) -> str:
    body = [VERSION, named.region, named.worker, named.session_id, named.number, round(expires.timestamp() * 1000)]
    payload = _encode(json.dumps(body, separators=(",", ":")).encode())
    return f"{payload}.{_sign(key, payload)}"


def read(key: bytes, token: str, now: datetime) -> Named | Refuse:
    """Signed by us and not yet expired; whether it was used the session store knows. Never raises."""
    if len(token) > MAX_TOKEN_CHARS or not _TOKEN.fullmatch(token):
        return Refuse("token_malformed", "this is no join token")
    payload, _, mac = token.partition(".")
    if not hmac.compare_digest(mac, _sign(key, payload)):
        return Refuse("token_forged", "this join token was not signed here")
    version, region, worker, session_id, number, expires_ms = json.loads(
        base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    )
    if version != VERSION:
        return Refuse("token_malformed", "this join token is of another version")
    if now.timestamp() * 1000 >= expires_ms:
        return Refuse("token_expired", "this join token has expired")
    return Named(SessionId(session_id), number, region, worker)


def new_key() -> str:
    return secrets.token_urlsafe(MIN_KEY_BYTES)


def key_in(folder: Path) -> bytes:
    """This folder's own, made when it has none: tokens stay good over a restart. Private. Raises ConfigError."""
    path = folder / KEY_FILE
    try:
        try:
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            key = path.read_bytes()
        else:
            key = new_key().encode()
            with os.fdopen(fd, "wb") as file:
                file.write(key)
    except OSError as error:
        why = (error.strerror or "not readable").lower()
        raise ConfigError("data_dir", str(folder), f"a folder whose {KEY_FILE} we may read ({why})") from error
    if len(key) < MIN_KEY_BYTES:
        raise ConfigError("data_dir", str(folder), f"{KEY_FILE} of at least {MIN_KEY_BYTES} bytes; delete it")
    return key


def _sign(key: bytes, payload: str) -> str:
    return _encode(hmac.digest(key, _CONTEXT + payload.encode(), hashlib.sha256))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
