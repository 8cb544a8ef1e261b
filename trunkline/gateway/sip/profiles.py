"""What carriers and PBXs want differently, as data: a profile per trunk, and the addresses and headers it makes.

Each row says where it is documented; what is not is marked "assumed" and is what most of them take. Nothing here is a
branch on a carrier's name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

import phonenumbers

from trunkline.types import E164

NumberFormat = Literal["+e164", "e164", "national"]
Wanted = Literal["off", "optional", "required"]
Yes = Literal["yes", "no"]

ANONYMOUS = "sip:anonymous@anonymous.invalid"
"""Who calls without showing a number, RFC 3323 4.1.1.3."""


@dataclass(frozen=True, slots=True)
class Profile:
    number_format: NumberFormat = "+e164"
    """`national`: as dialled within the trunk's country, others as +e164."""
    user_phone: bool = False
    """;user=phone in addresses that are numbers, RFC 3261 19.1.1."""
    from_host: Literal["trunk", "ours", "domain"] = "trunk"
    """In From: the host we call, our own address, or the domain we are registered in (the trunk's host where none)."""
    identity: Literal["from", "pai", "ppi", "rpid"] = "from"
    """Where the caller's number stands besides From: P-Asserted-Identity or P-Preferred-Identity (RFC 3325),
    Remote-Party-ID, or nowhere."""
    diversion: bool = True
    """Calls that were sent on by one of our numbers say so: Diversion, RFC 5806."""
    refer: Yes = "yes"
    """Whether it puts callers through on REFER (RFC 3515). `no`: they are bridged."""
    refer_replaces: Yes = "yes"
    """Whether also to a call of ours (Replaces, RFC 3891)."""
    reinvite: Yes = "yes"
    """Whether it takes re-INVITEs of ours. `no`: hold is only ours to hear."""
    session_timer: Wanted = "optional"
    """RFC 4028."""
    session_expires_s: int = 1800
    min_se_s: int = 90
    prack: Wanted = "optional"
    """Reliable provisional answers, RFC 3262."""
    options_ping: bool = True
    """It answers OPTIONS."""
    dtmf: Literal["rfc4733", "info", "inband"] = "rfc4733"
    """Unless the trunk says otherwise."""
    rtp_symmetric: bool = True
    """Its RTP may come from another port than its SDP said: send where it comes from, RFC 4961."""
    early_media: Literal["heard", "ignored"] = "heard"
    """What sounds before the answer: worth hearing, or a ringing tone of no use."""
    codecs: tuple[str, ...] = ()
    """Offered and taken, preferred first, of those in the settings. None, there or in common: all of the settings.
    Unless the trunk says otherwise."""
    notes: str = ""


PROFILES: Mapping[str, Profile] = {
    "generic": Profile(notes="what nearly everybody takes"),
    # Assumed throughout, after SIPconnect 2.0: the least that a carrier must take, and no more.
    "strict": Profile(
        user_phone=True,
        from_host="domain",
        identity="pai",
        refer="no",
        refer_replaces="no",
        reinvite="no",
        session_timer="required",
        prack="off",
        codecs=("PCMU", "PCMA"),
        notes="REFER refused, no re-INVITE, session timers insisted on",
    ),
    # https://www.twilio.com/docs/sip-trunking/sending-sip-to-twilio-best-practices: the trunk's domain in the request
    # URI says whose call it is. https://www.twilio.com/docs/sip-trunking/call-transfer: REFER where the trunk allows
    # it, blind only. https://www.twilio.com/docs/sip-trunking/codecs: PCMU and PCMA. https://www.twilio.com/docs/sip:
    # digits by RFC 2833. Assumed: From's host, session timers, no PRACK, that Diversion is read.
    "twilio_elastic_sip": Profile(
        refer_replaces="no",
        prack="off",
        codecs=("PCMU", "PCMA"),
        notes="enable call transfers on the trunk for REFER, and PSTN transfers for numbers",
    ),
    # https://developers.telnyx.com/docs/voice/sip-trunking/configuration/caller-id-policy: P-Preferred-Identity before
    # P-Asserted-Identity, Remote-Party-ID, From; Privacy: id. .../sip-trunking/features/external-transfers: blind and
    # attended REFER; Diversion with a number of theirs where the caller's own number is shown.
    # https://developers.telnyx.com/docs/livekit/telephony: RFC 4733, G.722 and Opus. Assumed: session timers, no PRACK.
    "telnyx": Profile(
        identity="pai",
        prack="off",
        codecs=("PCMU", "PCMA", "G722", "opus"),
        notes="caller ids must be numbers of the account, or come with Diversion",
    ),
    # https://docs.asterisk.org/Latest_API/API_Documentation/Module_Configuration/res_pjsip: defaults of an endpoint are
    # 100rel=yes, timers=yes (1800 s, at least 90), allow_transfer=yes, dtmf_mode=rfc4733, trust_id_inbound=no (so only
    # From counts), user_eq_phone=no, rtp_symmetric=no. Assumed: + in numbers (the dialplan's to say), codecs.
    "asterisk": Profile(
        diversion=False,
        rtp_symmetric=False,
        codecs=("PCMU", "PCMA", "G722"),
        notes="also FreePBX; an extension registers with its name and password",
    ),
}


# --- addresses ------------------------------------------------------------------------------------------------------


def written(profile: Profile, number: E164, country: str | None = None) -> str:
    """The number as the trunk wants it. `country` (two letters) is where `national` numbers are dialled."""
    if profile.number_format == "e164":
        return number.removeprefix("+")
    if profile.number_format == "national" and country is not None:
        try:
            parsed = phonenumbers.parse(number)
        except phonenumbers.NumberParseException:
            return number
        if phonenumbers.region_code_for_number(parsed) == country:
            national = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.NATIONAL)
            return "".join(char for char in national if char.isdigit())
    return number


def number_uri(profile: Profile, number: E164, host: str, country: str | None = None, transport: str = "udp") -> str:
    """A request URI, or the address of a number in a header."""
    return _uri(written(profile, number, country), host, transport, phone=profile.user_phone)


def host_uri(host: str, transport: str = "udp") -> str:
    return _uri("", host, transport)


def user_uri(user: str, host: str) -> str:
    """Of an account's name, which is no number."""
    return _uri(user, host)


def _uri(user: str, host: str, transport: str = "udp", *, phone: bool = False) -> str:
    at = f"{quote(user, safe=_USER_CHARS)}@" if user else ""
    # sip: and not sips:, which would promise TLS beyond the trunk as well (RFC 5630)
    return (
        f"sip:{at}{host}" + (";user=phone" if phone else "") + ("" if transport == "udp" else f";transport={transport}")
    )


_USER_CHARS = "+-_.!~*'()&=$,"


# --- headers --------------------------------------------------------------------------------------------------------


def identity_headers(
    profile: Profile,
    host: str,
    caller_id: E164 | None,
    forwarded_by: E164 | None = None,
    country: str | None = None,
    *,
    withheld: bool = False,
) -> list[tuple[str, str]]:
    """Who calls, and which of our numbers sent the call on, beside From. `withheld`: the number is for the network and
    not for the called party."""
    headers = []
    if caller_id is not None:
        address = f"<{number_uri(profile, caller_id, host, country)}>"
        if profile.identity == "rpid":
            privacy = "full" if withheld else "off"
            headers.append(("Remote-Party-ID", f"{address};party=calling;screen=yes;privacy={privacy}"))
        elif profile.identity in _ASSERTED:
            headers.append((_ASSERTED[profile.identity], address))
    if withheld:
        headers.append(("Privacy", "id"))
    if forwarded_by is not None and profile.diversion:
        address = f"<{number_uri(profile, forwarded_by, host, country)}>"
        headers.append(("Diversion", f"{address};reason=unconditional"))
    return headers


_ASSERTED = {"pai": "P-Asserted-Identity", "ppi": "P-Preferred-Identity"}
