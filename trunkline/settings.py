"""What an admin may set: `trunkline.toml` (or --config FILE) and TRUNKLINE_* variables, the environment over the file.

The only reader of the environment. A section and its key are joined with two underscores: `[http] port` is
TRUNKLINE_HTTP__PORT, `[sip.trunks.carrier] peers` is TRUNKLINE_SIP__TRUNKS__CARRIER__PEERS. A list is a TOML list, or
in the environment its items with commas between. Empty variables count as unset. Defaults live here and nowhere else;
secrets are SecretStr and never shown, not even in an error.
"""

import ipaddress
import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from difflib import get_close_matches
from functools import cache
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic import model_validator as after
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from trunkline.errors import ConfigError

CONFIG_FILE = "trunkline.toml"
ENV_PREFIX = "TRUNKLINE_"
MAX_SHOWN_CHARS = 80
MIN_API_KEY_CHARS = 16
NAME = "NAME"
"""Stands in `keys()` for a name the admin chooses: sip.trunks.NAME.peers."""
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


class WrongSettings(ConfigError):
    """Everything wrong at once; `str()` is one line per problem."""

    def __init__(self, errors: list[ConfigError]) -> None:
        super().__init__(errors[0].key, errors[0].value, errors[0].allowed)
        self.errors = tuple(errors)

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)


class _Shown:
    """A value as an error line shows it: itself, shortened, or hidden when it is or may be a secret."""

    def __init__(self, text: str) -> None:
        self._text = text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 3] + "..."

    def __repr__(self) -> str:
        return self._text


HIDDEN = _Shown("(hidden)")


# --- kinds of values ------------------------------------------------------------------------------------------------


def _listed(value: Any) -> Any:
    """One item or several: a TOML list or string, or items with commas between."""
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    if isinstance(value, SecretStr):
        return (value,)
    return value


def _not_blank(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if any(not secret.get_secret_value().strip() for secret in secrets):
        raise ValueError("must not be blank")
    return secrets


def _long_enough(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if any(len(secret.get_secret_value()) < MIN_API_KEY_CHARS for secret in secrets):
        raise ValueError(f"at least {MIN_API_KEY_CHARS} characters, for example from: openssl rand -hex 24")
    return secrets


def _existing(path: Path) -> Path:
    try:
        exists = path.is_file()
    except OSError:  # a name too long
        exists = False
    if not exists:
        raise ValueError("an existing file")
    return path


def _number(value: Any) -> Any:
    if isinstance(value, bool):  # which pydantic takes for 0 or 1
        raise PydanticCustomError("bool", "a number")
    return value


def _public_origin(url: str) -> str:
    allowed = "an https origin without a path, such as https://voice.example.com (http only for loopback)"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(allowed) from error
    bare = parts.path in ("", "/") and not parts.query and not parts.fragment and "@" not in parts.netloc
    secure = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host or ""))
    if not host or not bare or not secure or any(c.isspace() for c in url):
        raise ValueError(allowed)
    return _origin(parts.scheme, host, port)


def _origin(scheme: str, host: str, port: int | None) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}" + (f":{port}" if port else "")


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _database_url(value: SecretStr) -> SecretStr:
    """Only its kind; `store.engine.database_url` reads it and names the driver."""
    scheme, separator, rest = value.get_secret_value().partition("://")
    if not separator or scheme.partition("+")[0] not in ("sqlite", "postgres", "postgresql") or not rest:
        raise ValueError("sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME")
    return value


def _redis_url(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("redis://HOST:PORT/DB, rediss://... or unix://PATH")
    return value


def _http_url(value: str) -> str:
    if not value.startswith(("http://", "https://")) or not urlsplit(value).hostname:
        raise ValueError("an http:// or https:// URL")
    return value.rstrip("/")


def _e164(value: str) -> str:
    if not (value.startswith("+") and value[1:].isascii() and value[1:].isdigit() and 7 <= len(value) - 1 <= 15):
        raise ValueError("a phone number as +COUNTRY NUMBER without spaces, such as +14155550100")
    return value


def _frames(message_ms: int) -> int:
    if message_ms % 20:
        raise ValueError("a multiple of 20 from 20 to 200")
    return message_ms


# --- kinds of values: SIP ---


def _address(value: str) -> str:
    try:
        return str(ipaddress.ip_address("127.0.0.1" if value == "localhost" else value.strip("[]")))
    except ValueError as error:
        raise ValueError("an IP address of this machine; 0.0.0.0 is all of them") from error


def _public_address(value: str) -> str:
    try:
        address = ipaddress.ip_address(value.strip("[]"))
    except ValueError as error:
        raise ValueError("the IP address that peers reach us at") from error
    if address.is_unspecified or address.is_multicast:
        raise ValueError("the IP address that peers reach us at")
    return str(address)


def _networks(value: Any) -> tuple[IPv4Network | IPv6Network, ...]:
    items = _listed(value)
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):
        raise ValueError("IP addresses or networks, such as 192.0.2.10, 198.51.100.0/24")
    return tuple(_network(item.strip()) for item in items)


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        if re.fullmatch(r"[A-Za-z0-9_.-]*[A-Za-z][A-Za-z0-9_.-]*", text):
            raise ValueError(
                f"IP addresses or networks; a name may come to mean another machine, so look it up (dig +short {text}) "
                "and write its addresses"
            ) from error
        raise ValueError("IP addresses or networks, such as 192.0.2.10, 198.51.100.0/24") from error
    if network.network_address != ipaddress.ip_interface(text).ip:
        raise ValueError(f"a network begins at its first address: {network} instead of {text}")
    return network


def _name_servers(servers: tuple[str, ...]) -> tuple[str, ...]:
    for server in servers:
        host, port = _split_port(server)
        try:
            ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            port = "0"
        if port is not None and not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
            raise ValueError("IP or IP:PORT of DNS servers, such as 192.0.2.53, [2001:db8::53]:5353")
    return servers


def _split_port(text: str) -> tuple[str, str | None]:
    """[::1]:53, 192.0.2.1:53; an IPv6 address without brackets has no port."""
    if text.startswith("[") or text.count(":") == 1:
        host, colon, port = text.rpartition(":")
        if colon and not text.endswith("]"):
            return host, port
    return text, None


def _sip_host(value: str) -> str:
    host, port = _split_port(value)
    name = re.fullmatch(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?", host)
    if not name and not (host.startswith("[") and host.endswith("]") and _is_ip(host[1:-1])):
        raise ValueError("HOST or HOST:PORT, such as sip.example.com:5060 (IPv6 in brackets)")
    if port is not None and not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError("HOST or HOST:PORT with a port from 1 to 65535")
    return value


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _codecs(names: tuple[str, ...]) -> tuple[str, ...]:
    known = {name.lower(): name for name in SIP_CODECS}
    found = tuple(known.get(name.lower(), "") for name in names)
    if not found or "" in found or len(set(found)) != len(found):
        raise ValueError(f"some of {', '.join(SIP_CODECS)}, preferred first")
    return found


def _some_codecs(names: tuple[str, ...]) -> tuple[str, ...]:
    return _codecs(names) if names else ()


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
    return _countries((value,))[0]


def _on_off_auto(value: Any) -> Any:
    known = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    wanted = str(value).lower()
    if wanted != "auto" and wanted not in known:
        raise ValueError("auto, true or false")
    return known.get(wanted, "auto")


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


def _user_agent(text: str) -> str:
    if not re.fullmatch(r"[!-~]([ -~]{0,98}[!-~])?", text):
        raise ValueError("1 to 100 ASCII characters")
    return text


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


def _countries(codes: tuple[str, ...]) -> tuple[str, ...]:
    if any(len(code) != 2 or not code.isascii() or not code.isalpha() for code in codes):
        raise ValueError("two-letter country codes, such as US, GB")
    return tuple(code.upper() for code in codes)


Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_not_blank)]
ApiKeys = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_long_enough)]
File = Annotated[Path, AfterValidator(_existing)]
Int = Annotated[int, BeforeValidator(_number)]
Float = Annotated[float, BeforeValidator(_number)]
Port = Annotated[Int, Field(ge=1, le=65535)]
E164Text = Annotated[str, AfterValidator(_e164)]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_networks)]
Texts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]
HostPort = Annotated[str, AfterValidator(_sip_host)]
Password = Annotated[SecretStr, Field(min_length=1, max_length=128)]
SipUser = Annotated[str, AfterValidator(_sip_user)]


# --- the sections ---------------------------------------------------------------------------------------------------


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Http(Section):
    host: str = Field(default="127.0.0.1", min_length=1, max_length=253)
    """Where we listen. Anything but loopback needs twilio.auth_token and api_key as well."""
    port: Port = 8080
    """HTTP and media share it."""
    public_url: Annotated[str, AfterValidator(_public_origin)] | None = None
    """The origin carriers reach us at; every URL we hand out and every signature we check is built from it."""
    tls_cert: File | None = None
    """PEM files, where no proxy does TLS."""
    tls_key: File | None = None
    api_key: ApiKeys = ()
    """For /v1/... Several during a rotation."""

    @after(mode="after")
    def _tls_pair(self) -> "Http":
        if (self.tls_cert is None) != (self.tls_key is None):
            given, missing = ("tls_cert", "tls_key") if self.tls_cert else ("tls_key", "tls_cert")
            raise _contradiction(given, getattr(self, given), f"needs http.{missing} as well")
        return self

    @property
    def origin(self) -> str:
        """The public origin, else where we listen (a wildcard address is reached over loopback)."""
        if self.public_url:
            return self.public_url
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return _origin("https" if self.tls_cert else "http", host, self.port)


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
    headers_in: Annotated[dict[str, str], NoDecode, BeforeValidator(_mapped), AfterValidator(_headers_in)] = {}
    """SIP header -> attribute of the call; in a variable X-Order=order, X-Other=other."""
    headers_out: Annotated[dict[str, str], NoDecode, BeforeValidator(_mapped), AfterValidator(_headers_out)] = {}
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
    cost_per_minute: Annotated[dict[str, Decimal], NoDecode, BeforeValidator(_costs), AfterValidator(_beginnings)] = {}
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

    @after(mode="after")
    def _registration(self) -> "SipTrunk":
        if self.registers:
            if not self.host and not self.registrar:
                raise _contradiction("register", True, "needs registrar or host as well")
            if not self.auth_username:
                raise _contradiction("register", True, "needs auth_username and auth_password as well")
            return self
        for key in ("registrar", "register_expires_s", "contact_user"):
            if key in self.model_fields_set:
                raise _contradiction(key, getattr(self, key), "needs register = true as well")
        return self

    @after(mode="after")
    def _whole(self) -> "SipTrunk":
        for user, secret in (("username", "password"), ("auth_username", "auth_password")):
            if (getattr(self, user) is None) != (getattr(self, secret) is None):
                given, missing = (user, secret) if getattr(self, user) else (secret, user)
                raise _contradiction(given, getattr(self, given), f"needs {missing} as well")
        if not self.peers and not self.host:
            raise _contradiction("peers", "", "who calls us (peers), whom we call (host), or both must be set")
        if self.username and not self.peers:
            raise _contradiction("username", self.username, "needs peers as well: strangers are not even challenged")
        if self.proxy and not self.host:
            raise _contradiction("proxy", self.proxy, "needs host as well")
        wide = next((n for n in self.peers if n.prefixlen < WIDEST[n.version]), None)
        if wide and not self.password:
            raise _contradiction("peers", wide, "lets anybody call, so username and password must be set")
        if self.srtp == "required" and self.host and self.transport != "tls":
            raise _contradiction(
                "srtp", "required", f'needs transport = "tls": over {self.transport} the keys would be sent in clear'
            )
        return self


class Sip(Section):
    enabled: Annotated[Literal["auto"] | bool, BeforeValidator(_on_off_auto)] = "auto"
    """`auto`: when pjsua2 is installed (make pjsip)."""
    host: Annotated[str, AfterValidator(_address)] = "127.0.0.1"
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
    advertised_address: Annotated[str, AfterValidator(_public_address)] | None = None
    """Behind NAT: the address that peers reach us at. Needs the same ports forwarded."""
    local_networks: Networks = ()
    """Peers in these are told our own address instead."""
    rtp_port_min: Annotated[Int, Field(ge=1024, le=65535)] = 10_000
    """Two ports a call."""
    rtp_port_max: Annotated[Int, Field(ge=1024, le=65535)] = 19_999
    name_servers: Annotated[Texts, AfterValidator(_name_servers)] = ()
    """For trunks with names, IP or IP:PORT; without it those of /etc/resolv.conf."""
    codecs: Annotated[Texts, AfterValidator(_codecs)] = SIP_CODECS
    """Offered and taken, preferred first."""
    media_timeout_s: Float = Field(default=30.0, ge=3, le=600)
    """With neither RTP nor RTCP for so long the call is lost."""
    lead_ms: Annotated[Int, Field(ge=40, le=200), AfterValidator(_frames)] = 60
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
    trunks: dict[Annotated[str, Field(pattern="^[a-z0-9_-]{1,40}$")], SipTrunk] = {}
    """By name. None: calls are taken from this machine only."""

    @after(mode="after")
    def _together(self) -> "Sip":
        if (self.tls_cert is None) != (self.tls_key is None):
            given, missing = ("tls_cert", "tls_key") if self.tls_cert else ("tls_key", "tls_cert")
            raise _contradiction(given, getattr(self, given), f"needs sip.{missing} as well")
        if self.tls_verify_client and not self.tls_ca:
            raise _contradiction("tls_verify_client", True, "needs sip.tls_ca as well")
        if self.tls_cert and self.port == self.tls_port:
            raise _contradiction("tls_port", self.tls_port, f"another than sip.port ({self.port})")
        if self.rtp_port_max <= self.rtp_port_min:
            raise _contradiction("rtp_port_max", self.rtp_port_max, f"above sip.rtp_port_min ({self.rtp_port_min})")
        if self.on_machine == "hang_up" and self.machine_detection == "off":
            raise _contradiction("on_machine", "hang_up", "needs sip.machine_detection as well")
        for key in ("port", "tls_port") if self.tls_cert else ("port",):
            if self.rtp_port_min <= getattr(self, key) <= self.rtp_port_max:
                raise _contradiction(key, getattr(self, key), "outside of sip.rtp_port_min to sip.rtp_port_max")
        return self

    @after(mode="after")
    def _safe_by_default(self) -> "Sip":
        if self.enabled is not False and not is_loopback(self.host) and not any(t.peers for t in self.trunks.values()):
            raise _contradiction(
                "host", self.host, "reachable from outside, so at least one sip.trunks.NAME with peers must be set"
            )
        seen: dict[IPv4Network | IPv6Network, str] = {}
        for name, trunk in self.trunks.items():
            if strange := [codec for codec in trunk.codecs if codec not in self.codecs]:
                raise _contradiction(f"trunks.{name}.codecs", strange[0], "is none of sip.codecs")
            for network in trunk.peers:
                if (other := seen.setdefault(network, name)) != name:
                    raise _contradiction(
                        f"trunks.{name}.peers", network, f"is sip.trunks.{other} already: a call must be of one trunk"
                    )
        return self


class Twilio(Section):
    auth_token: Secrets = ()
    """Signs the webhooks. Several during a rotation; without an API key, the first also logs in to the REST API."""
    account_sid: Annotated[str, Field(pattern="^AC[0-9a-f]{32}$")] | None = None
    """AC...: calls of ours may go over Twilio then, as the trunk `twilio`."""
    api_key_sid: Annotated[str, Field(pattern="^SK[0-9a-f]{32}$")] | None = None
    """SK...: with api_key_secret, logs in to the REST API in place of the auth token. One of the region's."""
    api_key_secret: Annotated[SecretStr, Field(min_length=1, max_length=128)] | None = None
    from_number: E164Text | None = None
    """Who calls, where an order names no other: a number of the account, or one that it has verified."""
    dial_caller_id: E164Text | None = None
    """Who calls when a caller is put through; without it Twilio shows the caller's own number."""
    region: Annotated[str, Field(pattern="^[a-z]{2}[0-9]$")] | None = None
    """Where the account's calls are processed: us1, ie1, au1. Credentials are those of the region."""
    edge: Annotated[str, Field(pattern="^[a-z]{1,20}(-[a-z]{1,20})?$")] | None = None
    """Where our REST requests enter Twilio's network, such as frankfurt."""
    api_url: Annotated[str, AfterValidator(_public_origin)] | None = None
    """Another origin than https://api.twilio.com for the REST API: a proxy, a test. Over https, or this machine."""
    machine_detection: Literal["off", "enable", "detect_message_end"] = "off"
    """Whether Twilio is to tell who answers our calls: at once, or when an answering machine's greeting is over."""
    on_machine: Literal["go_on", "hang_up"] = "go_on"
    """What becomes of a call of ours that a machine answers."""
    start_timeout_s: Float = Field(default=5.0, ge=1, le=60)
    """A media socket without a valid `start` by then is closed."""
    media_timeout_s: Float = Field(default=3.0, ge=1, le=60)
    """Without media for so long the leg is lost: no FIN may come."""
    max_unauthenticated: Int = Field(default=64, ge=1, le=10_000)
    """Sockets that have not yet shown a valid token."""
    fallback_number: Annotated[str, AfterValidator(_e164)] | None = None
    """Where callers go while we are full or stopping; without it they hear fallback_text."""
    fallback_text: str = Field(
        default="All our lines are busy. Please call again in a few minutes.", min_length=1, max_length=500
    )
    """Spoken where there is no fallback_number."""

    @after(mode="after")
    def _login(self) -> "Twilio":
        if (self.api_key_sid is None) != (self.api_key_secret is None):
            names = ("api_key_sid", "api_key_secret") if self.api_key_sid else ("api_key_secret", "api_key_sid")
            raise _contradiction(names[0], "(given)", f"needs twilio.{names[1]} as well")
        if self.account_sid and not self.api_key_sid and not self.auth_token:
            raise _contradiction(
                "account_sid", self.account_sid, "needs twilio.api_key_sid and api_key_secret, or auth_token, as well"
            )
        if self.on_machine == "hang_up" and self.machine_detection == "off":
            raise _contradiction("on_machine", "hang_up", "needs twilio.machine_detection as well")
        return self

    @property
    def login(self) -> tuple[str, str]:
        """Of the REST API; only where there is an account_sid."""
        if self.api_key_sid and self.api_key_secret:
            return self.api_key_sid, self.api_key_secret.get_secret_value()
        return self.account_sid or "", self.auth_token[0].get_secret_value()


class Limits(Section):
    max_calls: Int = Field(default=300, ge=1, le=10_000)
    """At once; more hear the fallback."""
    max_call_seconds: Int = Field(default=3600, ge=10, le=86_400)
    """A call that lasts longer hears goodbye and is ended."""
    drain_seconds: Int = Field(default=60, ge=0, le=3600)
    """How long live calls may go on after SIGTERM."""


class Media(Section):
    lead_ms_min: Int = Field(default=400, ge=40, le=5000)
    """Audio kept ahead at the carrier, adaptive up to lead_ms_max."""
    lead_ms_max: Int = Field(default=1000, ge=40, le=5000)
    """Where a path that stalls may take it."""
    message_ms: Annotated[Int, Field(ge=20, le=200), AfterValidator(_frames)] = 100
    """Audio in one message to the carrier."""

    @after(mode="after")
    def _lead_range(self) -> "Media":
        if self.lead_ms_min > self.lead_ms_max:
            raise _contradiction("lead_ms_min", self.lead_ms_min, f"at most media.lead_ms_max ({self.lead_ms_max})")
        return self


class Speech(Section):
    workers: Int = Field(default=2, ge=1, le=64)
    """Processes that recognise and synthesise locally."""


class Log(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    """`debug` has a line a request."""
    format: Literal["json", "text"] = "text"
    """`json` for machines: one object a line."""


class Otel(Section):
    endpoint: Annotated[str, AfterValidator(_http_url)] | None = None
    """An OTLP/HTTP collector, such as http://127.0.0.1:4318."""


class ProviderKey(Section):
    api_key: SecretStr | None = None
    """This, or a file that holds it; servers of your own need none."""
    api_key_file: File | None = None

    @after(mode="after")
    def _one_of(self) -> "ProviderKey":
        if self.api_key and self.api_key_file:
            raise _contradiction("api_key_file", self.api_key_file, "this or api_key, not both")
        return self

    def read(self) -> str | None:
        if self.api_key_file:
            return self.api_key_file.read_text(encoding="utf-8").strip() or None
        return self.api_key.get_secret_value() if self.api_key else None


class Tools(Section):
    allow_private_addresses: bool = False
    """Whether an agent's `http` tool may call loopback and private networks."""


class Outbound(Section):
    allow: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_countries)] = ()
    """Countries that may be dialled. None: outbound calling is closed."""
    retry_busy: Int = Field(default=0, ge=0, le=10)
    """How often a number that was busy is called again."""
    retry_busy_after_s: Float = Field(default=120.0, ge=10, le=86_400)
    """From the end of the last attempt; every attempt asks the rules anew."""
    retry_no_answer: Int = Field(default=0, ge=0, le=10)
    """How often a number that did not answer is called again."""
    retry_no_answer_after_s: Float = Field(default=900.0, ge=10, le=86_400)
    """As retry_busy_after_s."""
    retry_failed: Int = Field(default=0, ge=0, le=10)
    """How often again when no trunk could connect the call, but might later."""
    retry_failed_after_s: Float = Field(default=60.0, ge=10, le=86_400)
    """As retry_busy_after_s."""
    max_attempts: Int = Field(default=6, ge=1, le=20)
    """INVITEs for one order, over all trunks and repeats."""
    give_up_after_s: Float = Field(default=3600.0, ge=10, le=86_400)
    """No attempt begins later than this after the order."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    agent: File | None = None
    """An agent script; without it the built-in clinic example answers."""
    data_dir: Path = Path("data")
    """The spool, the SQLite database, recordings."""
    database_url: Annotated[SecretStr, AfterValidator(_database_url)] | None = None
    """sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME; without it, trunkline.db in data_dir."""
    redis_url: Annotated[SecretStr, AfterValidator(_redis_url)] | None = None
    """Not used yet: one process needs none."""
    record: bool = False
    """Whether calls may be recorded at all."""
    http: Http = Http()
    sip: Sip = Sip()
    twilio: Twilio = Twilio()
    limits: Limits = Limits()
    media: Media = Media()
    speech: Speech = Speech()
    log: Log = Log()
    otel: Otel = Otel()
    openai: ProviderKey = ProviderKey()
    deepgram: ProviderKey = ProviderKey()
    elevenlabs: ProviderKey = ProviderKey()
    remote: ProviderKey = ProviderKey()
    tools: Tools = Tools()
    keys: dict[Annotated[str, Field(pattern="^[a-z0-9_-]{1,40}$")], SecretStr] = {}
    """More secrets by name, for an agent's `http` tools: `{key:NAME}` in a header."""
    outbound: Outbound = Outbound()

    @after(mode="after")
    def _safe_by_default(self) -> "Settings":
        """Reachable from outside means: signed webhooks and a locked API. A tunnel is outside."""
        if self.http.public_url:
            key, value = "http.public_url", self.http.public_url
        elif not is_loopback(self.http.host):
            key, value = "http.host", self.http.host
        else:
            return self
        if not self.twilio.auth_token or not self.http.api_key:
            raise _contradiction(
                key, value, "reachable from outside, so both twilio.auth_token and http.api_key must be set"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings

    @property
    def database(self) -> str | None:
        """As the admin wrote it, perhaps with a password; None for trunkline.db in data_dir."""
        return self.database_url.get_secret_value() if self.database_url else None

    @property
    def twilio_tokens(self) -> tuple[str, ...]:
        return tuple(token.get_secret_value() for token in self.twilio.auth_token)

    @property
    def api_keys(self) -> tuple[str, ...]:
        return tuple(key.get_secret_value() for key in self.http.api_key)

    def secrets(self) -> tuple[str, ...]:
        """Everything that no log line may show. Reads the key files."""
        passwords = [urlsplit(url.get_secret_value()).password for url in (self.database_url, self.redis_url) if url]
        trunks = [p for trunk in self.sip.trunks.values() for p in (trunk.password, trunk.auth_password)]
        api_secret = self.twilio.api_key_secret
        return (
            *self.twilio_tokens,
            *((api_secret.get_secret_value(),) if api_secret else ()),
            *self.api_keys,
            *self.provider_keys().values(),
            *(password.get_secret_value() for password in trunks if password),
            *(p for p in passwords if p),
        )

    def provider_keys(self) -> dict[str, str]:
        """API keys by provider name, as `Services.keys` wants them. Reads the key files."""
        own = {name: getattr(self, name).read() for name in ("openai", "deepgram", "elevenlabs", "remote")}
        found = {**own, **{name: key.get_secret_value() for name, key in self.keys.items()}}
        return {name: key for name, key in found.items() if key}


def keep_mathematics_single_threaded() -> None:
    """Before numpy is imported: OpenBLAS would start a thread a core for a matrix of twelve rows, and let them spin."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


# --- loading --------------------------------------------------------------------------------------------------------


def load(config_path: Path | None = None) -> Settings:
    """Raises WrongSettings (a ConfigError): one line per wrong setting. A missing trunkline.toml is no error, a missing
    `config_path` is."""
    written = _read_file(config_path)
    errors = [_unknown(name, _variables()) for name in _set_variables() if not _known(name)]
    try:
        settings = Settings(**written)
    except ValidationError as invalid:
        errors += [_explain(p) for p in invalid.errors() if not _named_already(p)]
    except Exception as error:  # pydantic-settings reads a section's own name as JSON; `_unknown` has named it
        if not errors:
            raise ConfigError("settings", HIDDEN, str(error)) from error
    if errors:
        raise WrongSettings(errors)
    return settings


def _read_file(config_path: Path | None) -> dict[str, Any]:
    path = config_path or Path(CONFIG_FILE)
    if config_path is None and not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        allowed = f"a readable TOML file ({(error.strerror or 'unreadable').lower()})"
        raise WrongSettings([ConfigError("config file", str(path), allowed)]) from error
    except ValueError as error:  # TOML and UTF-8 both; their messages may quote a line, so only the place is shown
        place = str(error).rpartition("(")[2].rstrip(")") if "(at " in str(error) else "not UTF-8"
        raise WrongSettings([ConfigError("config file", str(path), f"valid TOML; look {place}")]) from error


def _set_variables() -> list[str]:
    return sorted(name for name, value in os.environ.items() if name.upper().startswith(ENV_PREFIX) and value)


@cache
def keys() -> Mapping[str, Any]:
    """Every key with its field, dotted: `http.port`; `sip.trunks.NAME.peers`."""
    return dict(_walk(Settings, ""))


def _walk(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _walk(field.annotation, f"{prefix}{name}.")
        elif (named := _named(field)) is not None:
            yield from _walk(named, f"{prefix}{name}.{NAME}.")
        else:
            yield prefix + str(field.validation_alias or name), field


def _named(field: Any) -> type[BaseModel] | None:
    """The section of which there is one for every name of the admin's."""
    kinds = get_args(field.annotation) if get_origin(field.annotation) is dict else ()
    return kinds[-1] if kinds and isinstance(kinds[-1], type) and issubclass(kinds[-1], BaseModel) else None


@cache
def _open_sections() -> tuple[str, ...]:
    """`sip.trunks.`: where a name follows."""
    return tuple({key.partition(NAME)[0] for key in keys() if f".{NAME}." in key})


def _general(key: str) -> str:
    """With NAME for the admin's name, as `keys()` has it."""
    for section in _open_sections():
        name, dot, rest = key.removeprefix(section).partition(".")
        if key.startswith(section) and name:
            return f"{section}{NAME}{dot}{rest}"
    return key


@cache
def _variables() -> Mapping[str, str]:
    return {_variable(key): key for key in keys()}


def _known(variable: str) -> bool:
    """[keys] and [sip.trunks] are open: their names are the admin's."""
    dotted = variable[len(ENV_PREFIX) :].lower().replace("__", ".")
    return variable in _variables() or variable.upper().startswith(f"{_variable('keys')}__") or _is_named(dotted)


def _is_named(key: str) -> bool:
    return _general(key) != key and _general(key) in keys()


def _variable(key: str) -> str:
    return ENV_PREFIX + key.upper().replace(".", "__")


def _unknown(name: str, known: Collection[str]) -> ConfigError:
    """The value is hidden: it may be a secret under a misspelt name."""
    prefix = ENV_PREFIX if name.upper().startswith(ENV_PREFIX) else ""
    wanted = name[len(prefix) :].upper() if prefix else name
    names = [_specific(key.removeprefix(prefix), wanted, "__" if prefix else ".") for key in known]
    near = [key for key in names if key.startswith(f"{wanted}__")] or get_close_matches(wanted, names, n=1)
    return ConfigError(name, HIDDEN, "no such setting" + (f"; did you mean {prefix}{near[0]}?" if near else ""))


def _specific(key: str, wanted: str, joint: str) -> str:
    """With the admin's name for NAME, where `wanted` has one."""
    section, named, rest = key.partition(f"{NAME}{joint}")
    name = wanted.removeprefix(section).partition(joint)[0] if named and wanted.startswith(section) else ""
    return f"{section}{name}{joint}{rest}" if name else key


def _contradiction(key: str, value: Any, allowed: str) -> PydanticCustomError:
    """Two settings that do not go together. `key` is relative to the section that raises it."""
    return PydanticCustomError("contradiction", "{allowed}", {"key": key, "value": str(value), "allowed": allowed})


def _explain(problem: ErrorDetails) -> ConfigError:
    """One problem as one line, under the name the admin used: the variable if it is set, else the key in the file."""
    parts = [str(part) for part in problem["loc"]]
    if problem["type"] == "contradiction":
        context = problem["ctx"]
        return ConfigError(_as_written(".".join([*parts, context["key"]])), context["value"], context["allowed"])
    if parts[-1:] == ["[key]"]:
        return ConfigError(".".join(parts[:-1]), HIDDEN, "a name of small letters, digits, - and _, at most 40")
    key = next((k for n in range(len(parts), 0, -1) if _general(k := ".".join(parts[:n])) in keys()), "")
    if not key:
        dotted = ".".join(parts)
        if problem["type"] == "extra_forbidden":
            return _unknown(dotted, [*keys(), *Settings.model_fields])
        return ConfigError(dotted, HIDDEN, f"a section, written [{dotted}]")
    field = keys()[_general(key)]
    shown = HIDDEN if _is_secret(field) else _Shown(repr(problem["input"]))
    return ConfigError(_as_written(key), shown, _allowed(field, problem))


def _named_already(problem: ErrorDetails) -> bool:
    """An unknown variable that pydantic-settings took for a section (TRUNKLINE_HTTP) or put into one."""
    variable = _variable(".".join(str(part) for part in problem["loc"]))
    return variable in _set_variables() and not _known(variable)


def _as_written(key: str) -> str:
    variable = _variable(key)
    return variable if variable in _set_variables() else key


def _is_secret(field: Any) -> bool:
    return "SecretStr" in repr(field.annotation)


def _allowed(field: Any, problem: ErrorDetails) -> str:
    if problem["type"] == "value_error":
        return problem["msg"].removeprefix("Value error, ")
    metadata = {type(m).__name__.lower(): m for m in (*field.metadata, *_inner_metadata(field.annotation))}
    parts = (field.annotation, *get_args(field.annotation))
    kinds = {get_args(part)[0] if get_origin(part) is Annotated else part for part in parts}
    if choices := [c for kind in kinds if get_origin(kind) is Literal for c in get_args(kind)]:
        return "one of " + ", ".join(choices)
    if bool in kinds:
        return "true or false"
    if int in kinds or float in kinds:
        whole = "a whole number" if int in kinds else "a number"
        return f"{whole} from {metadata['ge'].ge:g} to {metadata['le'].le:g}" if "ge" in metadata else whole
    if tuple in {get_origin(kind) or kind for kind in kinds}:
        return "a text or a list of texts"
    if kinds & {str, SecretStr} and "maxlen" in metadata:
        return f"a text of 1 to {metadata['maxlen'].max_length} characters"
    return "a path" if Path in kinds else "a text"


def _inner_metadata(annotation: Any) -> Iterator[Any]:
    for part in get_args(annotation):
        for metadata in getattr(part, "__metadata__", ()):
            yield from getattr(metadata, "metadata", ()) or (metadata,)
