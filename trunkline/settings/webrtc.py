"""[webrtc]: how browsers and devices reach us over UDP, and what they may use."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic import model_validator as after

from trunkline.settings.addresses import PublicAddress
from trunkline.settings.sip import on_off_auto
from trunkline.settings.values import Float, Int, Password, Section, Texts, contradiction, frames

_ICE_SERVER = re.compile(
    r"(stun|stuns|turn|turns):(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,253})(:[0-9]{1,5})?(\?transport=(udp|tcp))?"
)


def _addresses(texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        try:
            address = ip_address(text)
        except ValueError as error:
            raise ValueError("IP addresses of this machine") from error
        if address.is_unspecified or address.is_multicast:
            raise ValueError("IP addresses of this machine; without any it is all of them")
    return texts


def _ice_servers(urls: tuple[str, ...]) -> tuple[str, ...]:
    for url in urls:
        if not _ICE_SERVER.fullmatch(url) or (url.startswith("stun") and "?" in url):
            raise ValueError("stun:HOST, turn:HOST:PORT or turns:HOST?transport=tcp")
    return urls


class WebRtc(Section):
    enabled: Annotated[Literal["auto"] | bool, BeforeValidator(on_off_auto)] = "auto"
    """`auto`: when aiortc is installed (the extra `webrtc`)."""
    addresses: Annotated[Texts, AfterValidator(_addresses)] = ()
    """Of this machine, for media; without any, all of them."""
    advertised_address: PublicAddress | None = None
    """Behind NAT: the address that devices reach us at. Needs the same ports forwarded."""
    port_min: Annotated[Int, Field(ge=1024, le=65535)] = 20_000
    """UDP; a port for each address a call."""
    port_max: Annotated[Int, Field(ge=1024, le=65535)] = 29_999
    ice_servers: Annotated[Texts, AfterValidator(_ice_servers)] = ()
    """STUN and TURN servers, for us and for devices. Of each kind we use the first; devices are told all."""
    turn_secret: Password | None = None
    """Shared with the TURN servers (coturn: static-auth-secret); credentials are made of it, good for an hour."""
    relay_only: bool = False
    """No way but over a TURN server."""
    connect_timeout_s: Float = Field(default=10.0, ge=2, le=60)
    """ICE and DTLS that are not complete by then are given up."""
    media_timeout_s: Float = Field(default=10.0, ge=3, le=600)
    """With neither RTP nor RTCP for so long the leg is lost."""
    max_connecting: Int = Field(default=64, ge=1, le=10_000)
    """Offers that are not connected yet; more are answered 503."""
    lead_ms: Annotated[Int, Field(ge=40, le=200), AfterValidator(frames)] = 60
    """Audio kept ahead of the wire."""

    @after(mode="after")
    def _together(self) -> "WebRtc":
        if self.port_max <= self.port_min:
            raise contradiction("port_max", self.port_max, f"above webrtc.port_min ({self.port_min})")
        turn = any(url.startswith("turn") for url in self.ice_servers)
        if self.relay_only and not turn:
            raise contradiction("relay_only", True, "needs a turn: URL in webrtc.ice_servers as well")
        if turn and not self.turn_secret:
            raise contradiction(
                "ice_servers", ", ".join(self.ice_servers), "needs webrtc.turn_secret for turn: as well"
            )
        return self

    @property
    def own_addresses(self) -> tuple[IPv4Address | IPv6Address, ...]:
        return tuple(ip_address(text) for text in self.addresses)

    @property
    def told_address(self) -> IPv4Address | IPv6Address | None:
        return ip_address(self.advertised_address) if self.advertised_address else None
