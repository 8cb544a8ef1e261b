"""A SIP trunk from a few answers: our settings, and what is to be entered at the far side.

    made = template("twilio", Answers("office", host="acme.pstn.twilio.com", public_address="203.0.113.10"))
    made.toml, made.far_side, made.secrets

What carriers publish of themselves (addresses, hosts) is `templates.toml`, with dates and sources; what they want
differently on the wire is `gateway/sip/profiles.py`. No password passes through here: the settings name the variable
that it belongs into.
"""

import ipaddress
import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any

from pydantic import ValidationError

from trunkline.errors import ConfigError
from trunkline.settings import SipTrunk, variable

PLACEHOLDER = "YOUR.PUBLIC.ADDRESS"
SECRET = "..."


@dataclass(frozen=True, slots=True)
class Answers:
    name: str
    """Of the trunk, in our settings."""
    host: str = ""
    """Of the far side: where our calls go."""
    public_address: str = ""
    """Ours: the IP address or name that the far side calls."""
    auth_username: str = ""
    """What we log in with, where the far side wants it; the password is never asked for."""
    register: bool = False
    """As an extension or account; else the far side knows us by our address."""
    peers: Sequence[str] = ()
    """Whose calls are this trunk's, where the template does not know: addresses or networks."""
    region: str = ""
    """Of the carrier, where it has some."""
    numbers: Sequence[str] = ()
    """Ours on this trunk, or beginnings and a *."""
    caller_id: str = ""
    country: str = ""
    secure: bool = False
    """TLS and SRTP."""
    port: int = 5060
    tls_port: int = 5061

    @property
    def address(self) -> str:
        return self.public_address or PLACEHOLDER


@dataclass(frozen=True, slots=True)
class Made:
    template: str
    title: str
    name: str
    settings: Mapping[str, Any]
    """Of [sip.trunks.NAME]; a secret is SECRET."""
    secrets: Mapping[str, str]
    """Key -> the environment variable that may hold it."""
    toml: str
    far_side: str
    notes: Sequence[str]
    as_of: date
    sources: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "as_of": self.as_of.isoformat()}


def names() -> list[str]:
    return list(_published())


def template(kind: str, answers: Answers) -> Made:
    """Raises ConfigError for an answer that cannot be, or one that is missing."""
    if kind not in _published():
        raise ConfigError("template", kind, f"one of {', '.join(names())}")
    if not re.fullmatch(r"[a-z0-9_-]{1,40}", answers.name):
        raise ConfigError("--name", answers.name, "small letters, digits, - and _, at most 40")
    if answers.public_address and not re.fullmatch(r"[A-Za-z0-9.-]{1,253}|\[?[0-9A-Fa-f:]+\]?", answers.public_address):
        raise ConfigError("--address", answers.public_address, "the IP address or name that the far side reaches us at")
    carrier = _published()[kind]
    settings = {key: value for key, value in _settings(kind, carrier, answers).items() if value not in ("", [], None)}
    _check(answers.name, settings)
    secrets = {key: variable(f"sip.trunks.{answers.name}.{key}") for key, value in settings.items() if value == SECRET}
    return Made(
        kind,
        carrier["title"],
        answers.name,
        settings,
        secrets,
        _toml(answers, settings, secrets),
        _FAR_SIDES[kind](answers, carrier),
        _notes(answers, carrier),
        carrier["as_of"],
        carrier["sources"],
    )


@cache
def _published() -> dict[str, Any]:
    return tomllib.loads((files("trunkline.numbers.carriers") / "templates.toml").read_text(encoding="utf-8"))


# --- our side -------------------------------------------------------------------------------------------------------


def _settings(kind: str, carrier: Mapping[str, Any], answers: Answers) -> dict[str, Any]:
    region = _region(carrier, answers.region)
    signalling: Mapping[str, list[str]] = carrier.get("signalling", {})
    peers = [*(signalling[region] if region else [n for each in signalling.values() for n in each]), *answers.peers]
    host = answers.host or carrier.get("hosts", {}).get(region, "")
    if not host:
        example = {"twilio": "NAME.pstn.twilio.com, the trunk's termination URI"}.get(kind, "where our calls go")
        raise ConfigError("--host", "", example)
    if not peers and (address := _address(host)) is not None:
        peers = [address]
    if not peers:
        raise ConfigError(
            "--peer",
            "",
            f"the addresses that {host} calls from: a name in the DNS is no permission (dig +short {host})",
        )
    secrets = {"auth_username": answers.auth_username, "auth_password": SECRET} if answers.auth_username else {}
    return {
        "profile": carrier["profile"],
        "peers": peers,
        "media_peers": list(carrier["media"]),
        "host": host,
        "transport": "tls" if answers.secure else "",
        "srtp": "required" if answers.secure else "",
        "register": True if answers.register else "",
        **secrets,
        "caller_id": answers.caller_id,
        "numbers": list(answers.numbers),
        "country": answers.country,
        "verstat": carrier.get("verstat", ""),
    }


def _region(carrier: Mapping[str, Any], region: str) -> str:
    signalling: Mapping[str, Any] = carrier.get("signalling", {})
    if region and region not in signalling:
        allowed = f"one of {', '.join(signalling)}" if signalling else "this template has none"
        raise ConfigError("--region", region, allowed)
    if carrier["regions_apart"]:
        return region or next(iter(signalling))
    return ""


def _address(host: str) -> str | None:
    """As a network, where the host is an address."""
    bare = host.removeprefix("[").partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        return str(ipaddress.ip_network(bare))
    except ValueError:
        return None


def _check(name: str, settings: Mapping[str, Any]) -> None:
    try:
        SipTrunk(**settings)
    except ValidationError as invalid:
        problem = invalid.errors()[0]
        context = problem.get("ctx", {})
        key = ".".join(map(str, problem["loc"])) or context.get("key", "")
        value = problem["input"] if problem["loc"] else context.get("value", "")
        allowed = context.get("allowed") or problem["msg"].removeprefix("Value error, ")
        raise ConfigError(f"sip.trunks.{name}.{key}", value, allowed) from invalid


def _toml(answers: Answers, settings: Mapping[str, Any], secrets: Mapping[str, str]) -> str:
    lines = ["[sip]", 'host = "0.0.0.0"']
    if _address(answers.public_address):
        lines.append(f"advertised_address = {json.dumps(answers.public_address)}   # only behind NAT")
    if answers.secure:
        lines += ['tls_cert = "tls/cert.pem"   # of a public authority', 'tls_key = "tls/key.pem"']
    lines += ["", f"[sip.trunks.{answers.name}]"]
    for key, value in settings.items():
        comment = f"   # or {secrets[key]}" if key in secrets else ""
        lines.append(f"{key} = {_value(value)}{comment}")
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, list) and len(value) > 3:
        return "[\n" + "".join(f"  {json.dumps(each)},\n" for each in value) + "]"
    return json.dumps(value)


def _notes(answers: Answers, carrier: Mapping[str, Any]) -> list[str]:
    ports = carrier.get("rtp_ports")
    port = f"{answers.tls_port}/tcp" if answers.secure else f"{answers.port}/udp and /tcp"
    media = f"; audio comes from ports {ports}" if ports else ""
    notes = [f"open {port}, and sip.rtp_port_min to sip.rtp_port_max/udp, to the peers{media}"]
    if carrier["sources"] and carrier.get("signalling"):
        notes.append(
            f"the addresses are those of {carrier['as_of']}: compare them with {carrier['sources'][0]}; what is "
            "missing is not answered, or not heard"
        )
    notes.append('calls of ours need [outbound] allow = ["US"], with the countries that may be called')
    if not answers.public_address:
        notes.append(f"put the address that the far side reaches us at for {PLACEHOLDER}")
    return notes


# --- the far side ---------------------------------------------------------------------------------------------------


def _uri(answers: Answers) -> str:
    port = answers.tls_port if answers.secure else answers.port
    return f"sip:{answers.address}:{port}" + (";transport=tls" if answers.secure else "")


def _twilio(answers: Answers, carrier: Mapping[str, Any]) -> str:
    # https://www.twilio.com/docs/sip-trunking: general, termination, origination, numbers
    login = (
        f"Credential Lists: one with the user {answers.auth_username}, and its password as auth_password here"
        if answers.auth_username
        else f"IP Access Control Lists: one with {answers.address}"
    )
    secure = "enabled (TLS and SRTP)" if answers.secure else "disabled"
    return f"""\
In the Twilio console, Elastic SIP Trunking, Manage, Trunks: create or open the trunk.

1. General:       Secure Trunking {secure}. Call Transfer (SIP REFER): enabled, if callers are to be put through.
2. Termination:   Termination SIP URI {answers.host}
                  Authentication, {login}
3. Origination:   Add Origination URI {_uri(answers)}
4. Numbers:       Add a Number. Its voice webhook is then ignored: calls come over the trunk.
"""


def _telnyx(answers: Answers, carrier: Mapping[str, Any]) -> str:
    region = _region(carrier, answers.region)
    if answers.register:
        how = f"Type Credentials; user name {answers.auth_username}, its password as auth_password here"
        where = "Calls come to where we register from."
    else:
        where = f"Add IP {answers.address}, port {answers.tls_port if answers.secure else answers.port}"
        how = "Type IP Address" + (
            f", or FQDN with the credentials {answers.auth_username} for our calls" * bool(answers.auth_username)
        )
    secure = "TLS; Encrypted media: SRTP" if answers.secure else "UDP"
    return f"""\
In the Telnyx portal, Voice, SIP Trunking: create a SIP connection.

1. Authentication and routing:  {how}.
                                {where}
2. Inbound:                     SIP region {region}; SIP transport {secure}
                                Number format of DNIS and ANI: +E.164
                                Codecs: G722, G711U, G711A, Opus as wanted
3. Outbound:                    an Outbound Voice Profile with the countries that may be called.
                                Caller ids must be numbers of the account.
4. Numbers:                     assign the numbers to the connection.
"""


def _asterisk(answers: Answers, carrier: Mapping[str, Any]) -> str:
    port = answers.tls_port if answers.secure else answers.port
    transport = "transport-tls" if answers.secure else "transport-udp"
    media = "media_encryption = sdes\n" if answers.secure else ""
    name = "trunkline"
    number = next((each for each in answers.numbers if "*" not in each), "+14155550100")
    if answers.register:
        name = answers.auth_username or name
        known = f"""\
[{name}]
type = aor
max_contacts = 1
qualify_frequency = 30

[{name}]
type = auth
auth_type = userpass
username = {name}
password = {SECRET}
"""
    else:
        scheme = f"sip:{answers.address}:{port}" + (r"\;transport=tls" if answers.secure else "")
        known = f"""\
[{name}]
type = aor
contact = {scheme}
qualify_frequency = 30

[{name}]
type = identify
endpoint = {name}
match = {answers.address}
"""
    auth = f"auth = {name}\n" if answers.register else ""
    return f"""\
; pjsip.conf; {transport} is a transport of yours
[{name}]
type = endpoint
transport = {transport}
context = from-trunkline
disallow = all
allow = ulaw,alaw,g722
dtmf_mode = rfc4733
direct_media = no
{media}{auth}aors = {name}

{known}
; extensions.conf
[internal]                     ; extension 700 is the agent
exten => 700,1,Dial(PJSIP/{number}@{name},60)

[from-trunkline]               ; what the agent may call
exten => _+1NXXNXXXXXX,1,Dial(PJSIP/${{EXTEN}}@carrier,30)
"""


def _generic(answers: Answers, carrier: Mapping[str, Any]) -> str:
    known = (
        f"the account {answers.auth_username}, which registers from {answers.address}"
        if answers.register
        else f"the address {answers.address}"
    )
    secure = "TLS, and SRTP with keys in the SDP (SDES)" if answers.secure else "UDP"
    return f"""\
Tell the carrier, or enter in its portal:

1. They know us by {known}.
2. Their calls come to {_uri(answers)}, over {secure}.
3. The called number stands in the request URI as +COUNTRY NUMBER (else set number_from = "to", or country = "US").
4. Codecs G.711 (PCMU, PCMA); G.722 and Opus where they have them. Digits by RFC 4733 (telephone-event).

Ask them:

1. Which addresses do their calls, and their audio, come from? All of them belong into peers and media_peers.
2. Do they answer OPTIONS? If not: ping_s = 0.
3. Which caller ids may we show, and where do they read them: From or P-Asserted-Identity?
4. Do they put callers through on REFER, and take re-INVITEs? If not: profile = "strict".
"""


_FAR_SIDES: Mapping[str, Callable[[Answers, Mapping[str, Any]], str]] = {
    "twilio": _twilio,
    "telnyx": _telnyx,
    "asterisk": _asterisk,
    "generic": _generic,
}
