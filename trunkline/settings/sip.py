"""[sip]: our end of every SIP call, and what trunks must be together."""

import re
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic import model_validator as after

from trunkline.settings.addresses import NameServers, Networks, OwnAddress, Port, PublicAddress, is_loopback
from trunkline.settings.trunk import SIP_CODECS, SipTrunk, known_codecs
from trunkline.settings.values import File, Float, Int, Name, Section, Texts, contradiction, frames, pair


def on_off_auto(value: Any) -> Any:
    known = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    wanted = str(value).lower()
    if wanted != "auto" and wanted not in known:
        raise ValueError("auto, true or false")
    return known.get(wanted, "auto")


def _user_agent(text: str) -> str:
    if not re.fullmatch(r"[!-~]([ -~]{0,98}[!-~])?", text):
        raise ValueError("1 to 100 ASCII characters")
    return text


class Sip(Section):
    enabled: Annotated[Literal["auto"] | bool, BeforeValidator(on_off_auto)] = "auto"
    """`auto`: when pjsua2 is installed (make pjsip)."""
    host: OwnAddress = "127.0.0.1"
    """Where we listen, signalling and RTP. Anything but loopback needs a trunk with peers as well."""
    port: Port = 5060
    """UDP and TCP."""
    tls_port: Port = 5061
    """Listens when there is a certificate."""
    tls_cert: File | None = None
    """PEM files."""
    tls_key: File | None = None
    tls_ca: File | None = None
    """Whom we believe, PEM; without it the system's list."""
    tls_verify_client: bool = False
    """Peers must show a certificate of tls_ca's."""
    advertised_address: PublicAddress | None = None
    """Behind NAT: the address that peers reach us at. Needs the same ports forwarded."""
    local_networks: Networks = ()
    """Peers in these are told our own address instead."""
    rtp_port_min: Annotated[Int, Field(ge=1024, le=65535)] = 10_000
    """Two ports a call."""
    rtp_port_max: Annotated[Int, Field(ge=1024, le=65535)] = 19_999
    name_servers: NameServers = ()
    """For trunks with names, IP or IP:PORT; without it those of /etc/resolv.conf."""
    codecs: Annotated[Texts, AfterValidator(known_codecs)] = SIP_CODECS
    """Offered and taken, preferred first."""
    media_timeout_s: Float = Field(default=30.0, ge=3, le=600)
    """With neither RTP nor RTCP for so long the call is lost."""
    lead_ms: Annotated[Int, Field(ge=40, le=200), AfterValidator(frames)] = 60
    """Audio kept ahead in the ring that PJSIP's clock empties."""
    strangers: Annotated[Literal["silent", "403"], BeforeValidator(lambda v: str(v) if v == 403 else v)] = "silent"
    """What peers of no trunk get."""
    invites_per_second: Int = Field(default=150, ge=1, le=10_000)
    """Of all; more are answered 503."""
    invites_per_second_per_source: Int = Field(default=100, ge=1, le=10_000)
    """Of one address."""
    user_agent: Annotated[str, AfterValidator(_user_agent)] = "Trunkline"
    """Server and User-Agent."""
    ring_timeout_s: Float = Field(default=30.0, ge=5, le=180)
    """How long a call of ours rings."""
    machine_detection: Literal["off", "enable", "detect_message_end"] = "off"
    """Whether we listen to who answers our calls and tell: at once, or when an answering machine's greeting is over."""
    on_machine: Literal["go_on", "hang_up"] = "go_on"
    """What becomes of a call of ours that a machine answers."""
    trunks: dict[Name, SipTrunk] = Field(default_factory=dict)
    """By name. None: calls are taken from this machine only."""

    @after(mode="after")
    def _together(self) -> "Sip":
        pair(self, "tls_cert", "tls_key", "sip.")
        if self.tls_verify_client and not self.tls_ca:
            raise contradiction("tls_verify_client", True, "needs sip.tls_ca as well")
        if self.tls_cert and self.port == self.tls_port:
            raise contradiction("tls_port", self.tls_port, f"another than sip.port ({self.port})")
        if self.rtp_port_max <= self.rtp_port_min:
            raise contradiction("rtp_port_max", self.rtp_port_max, f"above sip.rtp_port_min ({self.rtp_port_min})")
        if self.on_machine == "hang_up" and self.machine_detection == "off":
            raise contradiction("on_machine", "hang_up", "needs sip.machine_detection as well")
        for key in ("port", "tls_port") if self.tls_cert else ("port",):
            if self.rtp_port_min <= getattr(self, key) <= self.rtp_port_max:
                raise contradiction(key, getattr(self, key), "outside of sip.rtp_port_min to sip.rtp_port_max")
        return self

    @after(mode="after")
    def _safe_by_default(self) -> "Sip":
        if self.enabled is not False and not is_loopback(self.host) and not any(t.peers for t in self.trunks.values()):
            raise contradiction(
                "host", self.host, "reachable from outside, so at least one sip.trunks.NAME with peers must be set"
            )
        seen: dict[IPv4Network | IPv6Network, str] = {}
        for name, trunk in self.trunks.items():
            if strange := [codec for codec in trunk.codecs if codec not in self.codecs]:
                raise contradiction(f"trunks.{name}.codecs", strange[0], "is none of sip.codecs")
            for network in trunk.peers:
                if (other := seen.setdefault(network, name)) != name:
                    raise contradiction(
                        f"trunks.{name}.peers", network, f"is sip.trunks.{other} already: a call must be of one trunk"
                    )
        return self
