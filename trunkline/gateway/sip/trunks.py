"""Trunks: who may call us over SIP and whom we call, as configured. Plain values and rules."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Literal

from trunkline.types import E164

LOOPBACK = "loopback"
"""The trunk that is there when none is configured: calls from this machine."""


@dataclass(frozen=True, slots=True)
class Trunk:
    name: str
    peers: tuple[IPv4Network | IPv6Network, ...]
    """INVITEs of this trunk come from here; RTP as well."""
    username: str | None = None
    """With a password: INVITEs must show them (digest, RFC 8760's algorithms that PJSIP has)."""
    password: str | None = field(default=None, repr=False)
    host: str | None = None
    """Where our calls go: HOST or HOST:PORT. None: inbound only."""
    proxy: str | None = None
    """Outbound proxy, HOST or HOST:PORT."""
    transport: Literal["udp", "tcp", "tls"] = "udp"
    """For our calls; inbound ones may use any that listens."""
    auth_username: str | None = None
    """What we show when challenged."""
    auth_password: str | None = field(default=None, repr=False)
    caller_id: E164 | None = None
    """From, where an order names no other."""
    number_from: Literal["request_uri", "to"] = "request_uri"
    numbers: tuple[str, ...] = ()
    """Numbers (or prefixes ending in *) that are ours; others are answered 404. None: all."""
    country: str | None = None
    """For numbers without +: a two-letter code, such as US."""
    block: tuple[str, ...] = ()
    """Callers (or prefixes ending in *) that are declined with 603."""
    max_calls: int | None = None
    """At once, inbound; more are answered 486."""
    srtp: Literal["off", "optional", "required"] = "off"
    dtmf: Literal["rfc4733", "info", "inband"] = "rfc4733"
    headers_in: Mapping[str, str] = field(default_factory=dict)
    """SIP header -> attribute of the call."""
    headers_out: Mapping[str, str] = field(default_factory=dict)
    """Attribute of the call -> SIP header."""
    ping_s: float = 30.0
    """Between OPTIONS to `host`; 0: none."""
