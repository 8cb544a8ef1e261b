"""STUN and TURN servers: as the settings write them, and as a device is told of them, with credentials that end.

A TURN server that shares a secret with us (coturn's `use-auth-secret`) takes `<expiry>:<name>` as a user and the
base64 of its HMAC-SHA1 by that secret as the password (draft-uberti-behave-turn-rest-00).
"""

import hmac
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

STUN_PORT, TLS_PORT = 3478, 5349
_URL = re.compile(
    r"(stun|stuns|turn|turns):(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,253})(?::(\d{1,5}))?(?:\?transport=(udp|tcp))?"
)


@dataclass(frozen=True, slots=True)
class IceServer:
    scheme: Literal["stun", "stuns", "turn", "turns"]
    host: str
    port: int
    transport: Literal["udp", "tcp"]
    url: str

    @property
    def relays(self) -> bool:
        return self.scheme in ("turn", "turns")

    @property
    def tls(self) -> bool:
        return self.scheme in ("stuns", "turns")


@dataclass(frozen=True, slots=True)
class Credentials:
    username: str
    password: str = field(repr=False)


def read(url: str) -> IceServer:
    """RFC 7064 and 7065. Raises ValueError."""
    match = _URL.fullmatch(url)
    if match is None or (match[3] and not 0 < int(match[3]) < 65_536) or (match[4] and match[1].startswith("stun")):
        raise ValueError("stun:HOST, turn:HOST:PORT or turns:HOST?transport=tcp")
    scheme = match[1]
    secure = scheme.endswith("s")
    transport = match[4] or ("tcp" if secure else "udp")
    port = int(match[3]) if match[3] else TLS_PORT if secure else STUN_PORT
    return IceServer(scheme, match[2].strip("[]"), port, transport, url)  # type: ignore[arg-type]


def credentials(secret: str, name: str, expires_s: int) -> Credentials:
    """Good until `expires_s`, seconds since 1970."""
    username = f"{expires_s}:{name}"
    return Credentials(username, b64encode(hmac.digest(secret.encode(), username.encode(), "sha1")).decode())


def links(servers: Sequence[IceServer], given: Credentials | None) -> list[str]:
    """Link headers for a device (RFC 9725 4.6)."""
    found = []
    for server in servers:
        link = f'<{server.url}>; rel="ice-server"'
        if server.relays and given is not None:
            link += f'; username="{given.username}"; credential="{given.password}"; credential-type="password"'
        found.append(link)
    return found
