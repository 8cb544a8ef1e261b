"""Trunks: who may call us over SIP and whom we call, as configured. Plain values and rules."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal

from trunkline.gateway.sip import message, profiles
from trunkline.gateway.sip.message import Caller, Forwarding, Head, Party
from trunkline.gateway.sip.profiles import PROFILES, Profile
from trunkline.ports import Refuse
from trunkline.settings import Sip, SipTrunk, StirPolicy
from trunkline.types import E164, TenantId

LOOPBACK = "loopback"
"""The trunk that is there when none is configured: calls from this machine."""
Headers = Sequence[tuple[str, str]]
MAX_ATTRIBUTES = 32
MAX_ATTRIBUTE_CHARS = 256


@dataclass(frozen=True, slots=True)
class Trunk:
    name: str
    peers: tuple[IPv4Network | IPv6Network, ...]
    """INVITEs of this trunk come from here; RTP as well."""
    media_peers: tuple[IPv4Network | IPv6Network, ...] = ()
    """RTP may come from here too: many carriers keep media apart from signalling."""
    username: str | None = None
    """With a password: INVITEs must show them (digest)."""
    password: str | None = field(default=None, repr=False)
    digest_algorithms: tuple[str, ...] = ("MD5",)
    """In the order they are offered."""
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
    dtmf_in: Literal["events", "inband"] = "events"
    """Their digits: telephone-events and INFO, or tones in the audio, and then those alone."""
    headers_in: Mapping[str, str] = field(default_factory=dict)
    """SIP header -> attribute of the call."""
    headers_out: Mapping[str, str] = field(default_factory=dict)
    """Attribute of the call -> SIP header."""
    ping_s: float = 30.0
    """Between OPTIONS to `host`; 0: none."""
    refer: bool = False
    """What the far end asks by REFER is done (`transfer_refer.py`)."""
    profile: str = "generic"
    """Of `profiles.PROFILES`."""
    codecs: tuple[str, ...] = ()
    """Offered and taken, preferred first. None: all of the settings."""
    tells_hold: bool = True
    """An operator's hold is told to the far end (sendonly), where the profile has re-INVITEs."""
    cost_per_minute: Mapping[str, Decimal] = field(default_factory=dict)
    """By the beginning of the number, `*` for all others; in whatever currency, the same for all trunks."""
    registers: bool = False
    """We are an extension or account of the far end, and tell it where we are (REGISTER)."""
    registrar: str | None = None
    """Where, HOST or HOST:PORT. None: `host`."""
    register_expires_s: int = 300
    """As we ask; the registrar may say less."""
    contact_user: str | None = None
    """The user of our Contact and address of record. None: `auth_username`."""

    tenant: TenantId | None = None
    """Whose desk has it. None: it is the gateway's, of the settings, and all tenants'."""
    stir: StirPolicy = "off"
    """What becomes of its calls by their Identity headers."""
    verstat: Literal["ignored", "twilio", "telnyx", "bandwidth", "pai"] = "ignored"
    """Whose word for callers' numbers is taken."""
    stir_sign: bool = False
    """Our calls over it are signed."""

    @property
    def quirks(self) -> Profile:
        return PROFILES[self.profile]


# --- which trunks there are -----------------------------------------------------------------------------------------


def loopback_trunk(stir: StirPolicy = "off") -> Trunk:
    return Trunk(LOOPBACK, (ip_network("127.0.0.0/8"), ip_network("::1/128")), ping_s=0, stir=stir)


def configured(sip: Sip, stir: StirPolicy = "off") -> tuple[Trunk, ...]:
    """Those of the settings, else the loopback trunk. `stir`: of those that have no policy of their own."""
    return tuple(as_written(name, each, sip, stir) for name, each in sip.trunks.items()) or (loopback_trunk(stir),)


def as_written(name: str, written: SipTrunk, sip: Sip, stir: StirPolicy, tenant: TenantId | None = None) -> Trunk:
    return Trunk(
        name=name,
        tenant=tenant,
        peers=written.peers,
        media_peers=written.media_peers,
        username=written.username,
        password=written.password.get_secret_value() if written.password else None,
        digest_algorithms=written.digest_algorithms,
        host=written.host,
        proxy=written.proxy,
        transport=written.transport,
        auth_username=written.auth_username,
        auth_password=written.auth_password.get_secret_value() if written.auth_password else None,
        caller_id=E164(written.caller_id) if written.caller_id else None,
        number_from=written.number_from,
        numbers=written.numbers,
        country=written.country,
        block=written.block,
        max_calls=written.max_calls,
        srtp=written.srtp,
        dtmf=written.dtmf if "dtmf" in written.model_fields_set else PROFILES[written.profile].dtmf,
        dtmf_in=written.dtmf_in,
        headers_in=written.headers_in,
        headers_out=written.headers_out,
        ping_s=written.ping_s if written.host else 0,
        refer=written.refer,
        profile=written.profile,
        codecs=written.codecs or tuple(c for c in PROFILES[written.profile].codecs if c in sip.codecs),
        tells_hold=written.tells_hold,
        cost_per_minute=written.cost_per_minute,
        registers=written.registers,
        registrar=written.registrar,
        register_expires_s=written.register_expires_s,
        contact_user=written.contact_user,
        stir=written.stir or stir,
        verstat=written.verstat,
        stir_sign=written.stir_sign,
    )


def find_trunk(trunks: Iterable[Trunk], source_ip: str) -> Trunk | None:
    """Whose peer this is: the narrowest network decides, of equal ones the first trunk. None: a stranger."""
    address = parse_address(source_ip)
    if address is None:
        return None
    matching = [(network.prefixlen, trunk) for trunk in trunks for network in trunk.peers if address in network]
    return max(matching, key=lambda found: found[0])[1] if matching else None


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Also as a socket writes it: [::1], fe80::1%eth0; IPv4 seen through an IPv6 socket is IPv4."""
    try:
        address = ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address


# --- a call of theirs -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Screened:
    """An INVITE that may go on to the doors."""

    called: Party
    caller: Caller
    forwardings: tuple[Forwarding, ...] = ()
    """The latest first."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    identities: tuple[str, ...] = ()
    """Identity headers, for compliance."""
    verstats: tuple[str, ...] = ()
    """What the carrier says it verified, where the trunk's word is taken."""


def screen(trunk: Trunk, head: Head, live_calls: int) -> Screened | Refuse:
    """What the trunk's own rules say of an INVITE while it has `live_calls` inbound ones already. Codes, as
    `causes.refusal` knows them: malformed, unknown_number, declined, busy."""
    called = called_number(trunk, head)
    if called is None:
        return Refuse("malformed", f"no number can be read from {trunk.number_from}")
    if trunk.numbers and not _any_matches(trunk.numbers, called):
        return Refuse("unknown_number", f"the trunk {trunk.name} has no such number")
    calling = caller(trunk, head)
    if _any_matches(trunk.block, calling) or (calling.withheld and "anonymous" in trunk.block):
        return Refuse("declined", "the caller is blocked")
    if trunk.max_calls is not None and live_calls >= trunk.max_calls:
        return Refuse("busy", f"the trunk {trunk.name} has {live_calls} calls")
    return Screened(
        called,
        calling,
        message.forwardings(head, trunk.country),
        attributes(trunk, head),
        message.identities(head),
        _verstats(trunk, head),
    )


def _verstats(trunk: Trunk, head: Head) -> tuple[str, ...]:
    if trunk.verstat == "ignored":
        return ()
    return tuple(head.all("x-twilio-verstat")[:4]) if trunk.verstat == "twilio" else message.verstats(head)


def called_number(trunk: Trunk, head: Head) -> Party | None:
    """None: there is no address where the trunk's rule looks."""
    return message.called(head, trunk.number_from, trunk.country)


def caller(trunk: Trunk, head: Head) -> Caller:
    return message.caller(head, trunk.country)


def _any_matches(patterns: tuple[str, ...], party: Party) -> bool:
    return any(matches(pattern, name) for pattern in patterns for name in (party.number, party.user) if name)


def matches(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def attributes(trunk: Trunk, head: Head) -> dict[str, str]:
    """What the trunk wants to know of the INVITE's headers; of one that is there several times, all of them."""
    found: dict[str, str] = {}
    for header, attribute in trunk.headers_in.items():
        lines = head.all(header)
        if lines and len(found) < MAX_ATTRIBUTES:
            found.setdefault(attribute, ", ".join(lines)[:MAX_ATTRIBUTE_CHARS])
    return found


# --- a call of ours -------------------------------------------------------------------------------------------------


def headers_out(trunk: Trunk, given: Mapping[str, str]) -> list[tuple[str, str]]:
    """The call's attributes as headers of our INVITE; attributes that the trunk does not map stay here. Raises
    ValueError naming an attribute that cannot be one."""
    headers = []
    for attribute, header in trunk.headers_out.items():
        if attribute in given:
            try:
                headers.append((header, message.safe_header_value(given[attribute])))
            except ValueError as error:
                raise ValueError(f"{attribute}: {error}") from None
    return headers


def request_uri(trunk: Trunk, number: E164) -> str:
    """Raises ValueError for a trunk that only takes calls."""
    if trunk.host is None:
        raise ValueError(f"the trunk {trunk.name} has no host to call")
    return profiles.number_uri(trunk.quirks, number, trunk.host, trunk.country, trunk.transport)


def proxy_uri(trunk: Trunk) -> str | None:
    """For the Route header, loosely routed."""
    return None if trunk.proxy is None else f"{profiles.host_uri(trunk.proxy, trunk.transport)};lr"


def ping_uri(trunk: Trunk) -> str | None:
    return None if trunk.host is None else profiles.host_uri(trunk.host, trunk.transport)


def from_uri(trunk: Trunk, caller_id: E164 | None, own_host: str, *, withheld: bool = False) -> str:
    """Who calls, at the host the profile wants: mostly the trunk's (where carriers look up the number, and PBXs the
    account); at ours where it has none. Without any number it is the account's name: nobody asked to be anonymous."""
    if withheld:
        return profiles.ANONYMOUS
    host, number = from_host(trunk, own_host), caller_id or trunk.caller_id
    if number is not None:
        return profiles.number_uri(trunk.quirks, number, host, trunk.country)
    return profiles.user_uri(trunk.auth_username or "trunkline", host)


def from_host(trunk: Trunk, own_host: str) -> str:
    """Without a port: an identity is of a domain."""
    wanted = {
        "trunk": trunk.host,
        "ours": None,
        "domain": trunk.registrar or trunk.host,
    }[trunk.quirks.from_host]
    return _without_port(wanted) if wanted else own_host


def identity_headers(
    trunk: Trunk,
    caller_id: E164 | None,
    own_host: str,
    forwarded_by: E164 | None = None,
    *,
    withheld: bool = False,
    mapped: Headers = (),
) -> list[tuple[str, str]]:
    """Beside From, as the profile has it; but what the trunk's own map sets (`headers_out`) is the admin's."""
    number, host = caller_id or trunk.caller_id, from_host(trunk, own_host)
    made = profiles.identity_headers(trunk.quirks, host, number, forwarded_by, trunk.country, withheld=withheld)
    taken = {name.lower() for name, _ in mapped}
    return [(name, value) for name, value in made if name.lower() not in taken]


# --- registration ---------------------------------------------------------------------------------------------------


def registrar_uri(trunk: Trunk) -> str | None:
    """Where our REGISTER goes; None: the trunk does not register."""
    registrar = trunk.registrar or trunk.host
    return profiles.host_uri(registrar, trunk.transport) if trunk.registers and registrar else None


def address_of_record(trunk: Trunk) -> str | None:
    """Who we are there (To and From of REGISTER). None: the trunk does not register."""
    registrar, user = trunk.registrar or trunk.host, trunk.contact_user or trunk.auth_username
    if not trunk.registers or registrar is None or user is None:
        return None
    return profiles.user_uri(user, _without_port(registrar))


def _without_port(host: str) -> str:
    """[::1] has colons and no port."""
    return host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
