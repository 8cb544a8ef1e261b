"""What carries a WebRTC leg, as the leg sees it: datagrams in the clear, and a data channel. `rtc.py` is the real one,
and alone knows aiortc."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from trunkline.gateway.webrtc.ice import Credentials, IceServer
from trunkline.gateway.webrtc.sdp import Fingerprint, Offer

EVENTS_CHANNEL = "events"


@dataclass(frozen=True, slots=True)
class Paths:
    """How a far end may reach us."""

    addresses: tuple[IPv4Address | IPv6Address, ...] = ()
    """Of this machine, to listen on; none: all of them."""
    loopback: bool = False
    """That too."""
    advertised: IPv4Address | IPv6Address | None = None
    """What is told instead of our own (1:1 NAT)."""
    port_min: int = 20_000
    port_max: int = 29_999
    relay_only: bool = False
    servers: tuple[IceServer, ...] = ()
    gather_s: float = 3.0
    """How long STUN and TURN servers may take."""
    connect_s: float = 10.0
    """From the answer to audio that may flow."""


class WireSink(Protocol):
    """Told by a wire. Methods return at once and do not raise."""

    def connected(self) -> None:
        """Audio may flow."""
        ...

    def packet(self, data: bytes) -> None:
        """An RTP packet, decrypted."""
        ...

    def control(self, data: bytes) -> None:
        """A compound RTCP packet, decrypted."""
        ...

    def opened(self) -> None:
        """The data channel is."""
        ...

    def message(self, data: str | bytes) -> None:
        """Of the data channel."""
        ...

    def gone(self, why: str, *, in_order: bool = False) -> None:
        """It is over, or never was. Once, unless we closed it. `in_order`: the far end has closed it."""
        ...


@dataclass(frozen=True, slots=True)
class Here:
    """Our end, for the answer."""

    ice_username: str
    ice_password: str = field(repr=False)
    fingerprint: Fingerprint
    candidates: tuple[str, ...]


class Wire(Protocol):
    async def gather(self, paths: Paths, given: Credentials | None) -> Here:
        """Where we can be reached; bounded by `paths.gather_s`."""
        ...

    def start(self, offer: Offer, connect_s: float, sink: WireSink) -> None:
        """Connect, and tell `sink` of it: `connected` or `gone` within so long."""
        ...

    def add_candidates(self, candidates: Sequence[str], *, end: bool) -> None: ...

    def send(self, packet: bytes) -> None:
        """RTP. Nothing is sent before it is connected, nor after its end."""
        ...

    def send_control(self, packet: bytes) -> None: ...

    def tell(self, message: str) -> bool:
        """Over the data channel. False: there is none, or the far end does not read."""
        ...

    def close(self, linger_s: float = 0.0) -> None:
        """Idempotent; returns at once. `gone` does not follow. `linger_s`: what was sent may be heard so long."""
        ...

    async def closed(self) -> None:
        """Wait until nothing is left of it, some seconds at most."""
        ...
