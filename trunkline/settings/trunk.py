"""[sip.trunks.NAME]: who calls us over SIP and whom we call."""

import re
from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic import model_validator as after
from pydantic_settings import NoDecode

from trunkline.settings.addresses import HostPort, Networks
from trunkline.settings.stir import StirPolicy
from trunkline.settings.values import E164Text, Float, Int, Password, Section, Texts, contradiction, countries, pair

SIP_CODECS = ("PCMU", "PCMA", "G722", "opus")
MAX_SIP_HEADERS = 32
SIP_OWN_HEADERS = re.compile(
    "[a-z]|via|from|to|call-id|cseq|contact|max-forwards|(record-)?route|content-.*|(proxy-)?authorization|supported|"
    "(proxy-)?require|allow(-events)?|(session-)?expires|min-se|replaces|refer-to|referred-by|rseq|rack|event|reason",
    re.IGNORECASE,
)
"""Headers that are PJSIP's: a second one would confuse or deceive the far end."""
WIDEST = {4: 8, 6: 16}
"""The shortest prefix that a trunk may have without a password, by IP version: wider is everybody."""


def known_codecs(names: tuple[str, ...]) -> tuple[str, ...]:
    known = {name.lower(): name for name in SIP_CODECS}
    found = tuple(known.get(name.lower(), "") for name in names)
    if not found or "" in found or len(set(found)) != len(found):
        raise ValueError(f"some of {', '.join(SIP_CODECS)}, preferred first")
    return found


def _some_codecs(names: tuple[str, ...]) -> tuple[str, ...]:
    return known_codecs(names) if names else ()


def _patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    if not all(re.fullmatch(r"\+?[A-Za-z0-9._#-]{0,64}\*?", p) and p.strip("+*") for p in patterns):
        raise ValueError("numbers as +COUNTRY NUMBER or as the peer sends them, or their beginning and a *: +1415*")
    return patterns


def _algorithms(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names or len(set(names)) < len(names) or not {"SHA-256", "MD5"}.issuperset(names):
        raise ValueError("SHA-256, MD5, or both, the best first")
    return names


def _sip_user(name: str) -> str:
    if not re.fullmatch(r"[!#-\[\]-~]{1,128}", name):
        raise ValueError("1 to 128 ASCII characters without blanks and quotes")
    return name


def _country(value: str) -> str:
    return countries((value,))[0]


def _mapped(value: Any) -> Any:
    """A TOML table; in the environment LEFT=RIGHT items with commas between."""
    if not isinstance(value, str):
        return value
    pairs = [item.partition("=") for item in value.split(",") if item.strip()]
    if any(not equals for _, equals, _ in pairs):
        raise ValueError("a table, or in a variable: X-Order=order, X-Other=other")
    return {left.strip(): right.strip() for left, _, right in pairs}


def _header_map(given: Mapping[str, str], headers: Collection[str], attributes: Collection[str]) -> None:
    if len(given) > MAX_SIP_HEADERS:
        raise ValueError(f"at most {MAX_SIP_HEADERS}")
    if not all(re.fullmatch(r"[A-Za-z0-9!%*_+`'~.-]{1,64}", name) for name in headers):
        raise ValueError("names of SIP headers, such as X-Order or P-Asserted-Identity")
    if not all(re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name) for name in attributes):
        raise ValueError("names of attributes in small letters, digits and _, such as order_id")


def _headers_in(given: dict[str, str]) -> dict[str, str]:
    _header_map(given, given.keys(), given.values())
    return given


def _headers_out(given: dict[str, str]) -> dict[str, str]:
    _header_map(given, given.values(), given.keys())
    if taken := sorted(name for name in given.values() if SIP_OWN_HEADERS.fullmatch(name)):
        raise ValueError(f"headers that are not the call's own, which {taken[0]} is")
    return given


def _costs(value: Any) -> Any:
    """One for all numbers, or by their beginnings: a TOML table; in a variable +1=0.01, *=0.05."""
    if isinstance(value, str) and "=" in value:
        value = _mapped(value)
    if not isinstance(value, Mapping):
        value = {"*": value}
    return {str(beginning).removesuffix("*") or "*": _cost(cost) for beginning, cost in value.items()}


def _cost(value: Any) -> Decimal:
    try:
        cost = Decimal(str(value))
    except ArithmeticError:
        cost = Decimal(-1)
    if isinstance(value, bool) or not cost.is_finite() or not 0 <= cost <= 1000:
        raise ValueError('a number from 0 to 1000, or a table of them: "+1" = 0.01, "*" = 0.05')
    return cost


def _beginnings(costs: dict[str, Decimal]) -> dict[str, Decimal]:
    if not all(re.fullmatch(r"\*|\+[0-9]{1,15}", beginning) for beginning in costs):
        raise ValueError("beginnings of numbers such as +1 or +4477, and * for all others")
    return costs


def _ping(seconds: float) -> float:
    if 0 < seconds < 5:
        raise ValueError("0 (none) or a number from 5 to 3600")
    return seconds


SipUser = Annotated[str, AfterValidator(_sip_user)]


class SipTrunk(Section):
    """`gateway.sip.trunks.Trunk`, as written."""

    peers: Networks = ()
    """Addresses and networks whose INVITEs are this trunk's. RTP may come from them as well."""
    media_peers: Networks = ()
    """Where the carrier's RTP comes from besides."""
    username: SipUser | None = None
    """With password: peers must show them (digest)."""
    password: Password | None = None
    digest_algorithms: Annotated[Texts, AfterValidator(_algorithms)] = ("MD5",)
    """What peers may show their password with, in the order it is offered: SHA-256, MD5 (RFC 8760). Many devices fail
    where anything but MD5 is offered, even beside it."""
    host: HostPort | None = None
    """Where our calls go, HOST or HOST:PORT. Without it the trunk only takes calls."""
    proxy: HostPort | None = None
    """Outbound proxy, HOST or HOST:PORT."""
    transport: Literal["udp", "tcp", "tls"] = "udp"
    """For our calls."""
    auth_username: SipUser | None = None
    """With auth_password: what we show when challenged."""
    auth_password: Password | None = None
    caller_id: E164Text | None = None
    """Who calls, where an order names no other."""
    number_from: Literal["request_uri", "to"] = "request_uri"
    """Where the called number stands."""
    numbers: Annotated[Texts, AfterValidator(_patterns)] = ()
    """Ours, or beginnings such as +1415*; others are answered 404. None: all."""
    country: Annotated[str, AfterValidator(_country)] | None = None
    """Two letters, such as US: how numbers without + are read."""
    block: Annotated[Texts, AfterValidator(_patterns)] = ()
    """Callers, beginnings such as +1900*, or anonymous: declined with 603."""
    max_calls: Annotated[Int, Field(ge=1, le=10_000)] | None = None
    """Inbound at once; more are answered 486."""
    srtp: Literal["off", "optional", "required"] = "off"
    """Keys by SDES, so they are secret only over TLS: `required` needs transport = "tls" for calls of ours."""
    dtmf: Literal["rfc4733", "info", "inband"] = "rfc4733"
    """How we send digits."""
    dtmf_in: Literal["events", "inband"] = "events"
    """How we understand digits: by RFC 4733 and SIP INFO, or by the tones in the audio and those alone."""
    headers_in: Annotated[dict[str, str], NoDecode, BeforeValidator(_mapped), AfterValidator(_headers_in)] = Field(
        default_factory=dict
    )
    """SIP header -> attribute of the call; in a variable X-Order=order, X-Other=other."""
    headers_out: Annotated[dict[str, str], NoDecode, BeforeValidator(_mapped), AfterValidator(_headers_out)] = Field(
        default_factory=dict
    )
    """Attribute of the call -> SIP header of our INVITE; in a variable order=X-Order."""
    ping_s: Annotated[Float, Field(ge=0, le=3600), AfterValidator(_ping)] = 30.0
    """Between OPTIONS to host; 0: none."""
    profile: Literal["generic", "strict", "twilio_elastic_sip", "telnyx", "asterisk"] = "generic"
    """What the far end wants differently."""
    codecs: Annotated[Texts, AfterValidator(_some_codecs)] = ()
    """Offered and taken on this trunk, preferred first, of sip.codecs; without it, as the profile has it."""
    tells_hold: bool = True
    """An operator's hold is told to the far end (re-INVITE, sendonly). False: it only hears our music."""
    refer: bool = False
    """Follow REFERs of the far end: call whom they name instead of them, over a trunk of ours and as outbound.allow has
    it."""
    cost_per_minute: Annotated[dict[str, Decimal], NoDecode, BeforeValidator(_costs), AfterValidator(_beginnings)] = (
        Field(default_factory=dict)
    )
    """The cheapest trunk is tried first. One number, or by beginnings: `{ "+1" = 0.01, "*" = 0.05 }`; in a variable
    +1=0.01, *=0.05. Without it: after those that have one."""
    registers: bool = Field(default=False, validation_alias="register")
    """Register with the far end, as an extension or account of it; with auth_username and auth_password."""
    registrar: HostPort | None = None
    """Where, if not at host."""
    register_expires_s: Int = Field(default=300, ge=60, le=86_400)
    """How long a registration lasts; it is renewed before."""
    contact_user: SipUser | None = None
    """Our name there, if not auth_username."""

    stir: StirPolicy | None = None
    """As stir.policy, which it is without: off, observe or require."""
    verstat: Literal["ignored", "twilio", "telnyx", "bandwidth", "pai"] = "ignored"
    """Whose word for callers' numbers this trunk's is, where no Identity header says more: X-Twilio-VerStat, or verstat
    in P-Asserted-Identity or From. Only for a carrier that takes such words from nobody else."""
    stir_sign: bool = False
    """Sign our calls over it, by stir.keys, stir.numbers, stir.unlisted and stir.passing."""

    @after(mode="after")
    def _registration(self) -> "SipTrunk":
        if self.registers:
            if not self.host and not self.registrar:
                raise contradiction("register", True, "needs registrar or host as well")
            if not self.auth_username:
                raise contradiction("register", True, "needs auth_username and auth_password as well")
            return self
        for key in ("registrar", "register_expires_s", "contact_user"):
            if key in self.model_fields_set:
                raise contradiction(key, getattr(self, key), "needs register = true as well")
        return self

    @after(mode="after")
    def _whole(self) -> "SipTrunk":
        pair(self, "username", "password")
        pair(self, "auth_username", "auth_password")
        if not self.peers and not self.host:
            raise contradiction("peers", "", "who calls us (peers), whom we call (host), or both must be set")
        if self.username and not self.peers:
            raise contradiction("username", self.username, "needs peers as well: strangers are not even challenged")
        if self.proxy and not self.host:
            raise contradiction("proxy", self.proxy, "needs host as well")
        wide = next((n for n in self.peers if n.prefixlen < WIDEST[n.version]), None)
        if wide and not self.password:
            raise contradiction("peers", wide, "lets anybody call, so username and password must be set")
        if self.srtp == "required" and self.host and self.transport != "tls":
            raise contradiction(
                "srtp", "required", f'needs transport = "tls": over {self.transport} the keys would be sent in clear'
            )
        return self
