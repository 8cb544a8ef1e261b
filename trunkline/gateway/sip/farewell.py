"""A BYE for a dialog whose own stack cannot send it any more: what it takes, and the request. Plain, and light: who
sends it is a small process (`gateway/watchdog.py`)."""

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from trunkline.errors import PeerError

Transport = Literal["udp", "tcp", "tls"]

CSEQ_AHEAD = 10_000
"""Beyond whatever the stack has sent in the dialog since: a gap is no error (RFC 3261 12.2.2), going back is."""
MAX_CSEQ = 2**31 - 1  # RFC 3261 8.1.1.5
_HOP = re.compile(r"<?sips?:(?:[^@<>]*@)?(\[[0-9A-Fa-f:.]+\]|[^\[\]:;>?@]+)(?::([0-9]{1,5}))?([^?>]*)", re.I)


@dataclass(frozen=True, slots=True)
class Farewell:
    """A dialog as its RFC 3261 12 has it. URIs and addresses as they stood in its messages."""

    call_id: str
    local: str
    """Our From, with its tag."""
    remote: str
    """The far end's To, with its."""
    target: str
    """Where its Contact says it is."""
    routes: tuple[str, ...]
    """In the order that a request of ours goes through."""
    cseq: int
    """More than any of ours."""
    transport: Transport

    def moved(self, target: str) -> "Farewell":
        """By a target refresh (12.2)."""
        return replace(self, target=target)

    def told(self) -> dict[str, Any]:
        """As JSON."""
        names = ("call_id", "local", "remote", "target", "routes", "cseq", "transport")
        return {name: getattr(self, name) for name in names}


def from_told(told: dict[str, Any]) -> Farewell:
    return Farewell(**{**told, "routes": tuple(told["routes"])})


@dataclass(frozen=True, slots=True)
class Hop:
    host: str
    """IPv6 without brackets."""
    port: int
    transport: Transport


def next_hop(dialog: Farewell) -> Hop:
    """Whom the BYE is sent to. Raises PeerError for an address that cannot be read."""
    address = dialog.routes[0] if dialog.routes else dialog.target
    found = _HOP.match(address)
    if found is None or not 0 < int(found[2] or 5060) < 65536:
        raise PeerError("the far end's address cannot be read")
    named = re.search(r";\s*transport=(udp|tcp|tls)\b", found[3], re.I)
    transport: Any = named[1].lower() if named else dialog.transport
    if address.lstrip("<").lower().startswith("sips:"):
        transport = "tls"
    return Hop(found[1].strip("[]"), int(found[2] or (5061 if transport == "tls" else 5060)), transport)


def bye(dialog: Farewell, hop: Hop, sent_by: str, branch: str) -> bytes:
    """RFC 3261 15.1.1. `sent_by`: HOST:PORT of ours. The same `branch` is the same request, sent again."""
    target, routes = dialog.target, dialog.routes
    if routes and not re.search(r";\s*lr\b", routes[0], re.I):  # a strict router: 12.2.1.1
        target, routes = _uri(routes[0]), (*routes[1:], f"<{target}>")
    lines = [
        f"BYE {target} SIP/2.0",
        f"Via: SIP/2.0/{hop.transport.upper()} {sent_by};rport;branch=z9hG4bK{branch}",
        "Max-Forwards: 70",
        *(f"Route: {route}" for route in routes),
        f"From: {dialog.local}",
        f"To: {dialog.remote}",
        f"Call-ID: {dialog.call_id}",
        f"CSeq: {min(dialog.cseq, MAX_CSEQ)} BYE",
        "Content-Length: 0",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def _uri(address: str) -> str:
    return address.partition("<")[2].partition(">")[0] or address.partition(";")[0].strip()
