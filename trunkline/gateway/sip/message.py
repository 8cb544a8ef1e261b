"""Reading a SIP message (RFC 3261) as PJSIP received it: its start line, its headers, and who they speak of.

PJSIP has parsed the message already and would not have handed on one that is no SIP; but it is strict only where it has
a grammar, and everything here may come from an enemy. So: what has no form is None or left out, never an exception, and
PeerError is raised by `parse_head` alone, for what is no SIP message at all. Lines end where PJSIP ends them (CR, LF or
both), or the two of us would see different headers. Header names are compared in small letters, compact forms spelt
out; values are unfolded, and what no database or log takes (lone surrogates, control characters) is U+FFFD in them.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Literal
from urllib.parse import unquote

import phonenumbers

from trunkline.errors import PeerError
from trunkline.types import E164

MAX_HEAD_CHARS = 64 * 1024  # more than a UDP datagram holds
MAX_FIELDS = 256  # a carrier's INVITE has 20 to 40
MAX_USER_CHARS = 128  # of a URI: E.164 has 15 digits, names of SIP users rarely 30 characters
MAX_SENT_CHARS = 512

COMPACT = {
    "a": "accept-contact",
    "b": "referred-by",
    "c": "content-type",
    "d": "request-disposition",
    "e": "content-encoding",
    "f": "from",
    "i": "call-id",
    "j": "reject-contact",
    "k": "supported",
    "l": "content-length",
    "m": "contact",
    "n": "identity-info",
    "o": "event",
    "r": "refer-to",
    "s": "subject",
    "t": "to",
    "u": "allow-events",
    "v": "via",
    "x": "session-expires",
    "y": "identity",
}
WITHHELD_USERS = frozenset({"anonymous", "unavailable", "restricted", "unknown", "private"})

_NEWLINE = re.compile(r"\r\n|\r|\n")
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_REQUEST = re.compile(r"([!%'*+`~.\w-]{1,32})[ \t]+(\S+)[ \t]+SIP/2\.0", re.ASCII | re.IGNORECASE)
_STATUS = re.compile(r"SIP/2\.0[ \t]+([1-6][0-9]{2})(?:[ \t]+(.*))?", re.ASCII | re.IGNORECASE)
_TOKEN = re.compile(r"[!%'*+`~.\w-]+", re.ASCII)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]{0,31}):(.*)", re.IGNORECASE | re.DOTALL)
_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[\w.-]{1,253})(?::([0-9]{1,5}))?", re.ASCII | re.IGNORECASE)
_SEPARATORS = str.maketrans("", "", "-.() \t\xa0")
_DIGITS = re.compile(r"\+?[0-9]{3,20}", re.ASCII)


# --- the head -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Head:
    """Everything before the body. Of a request `status` is 0, of a response `method` and `uri` are empty."""

    method: str
    uri: str
    status: int
    reason: str
    fields: tuple[tuple[str, str], ...]
    """(name in small letters, value), in order."""

    @cached_property
    def _by_name(self) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for name, value in self.fields:
            found.setdefault(name, []).append(value)
        return {name: tuple(values) for name, values in found.items()}

    def all(self, name: str) -> tuple[str, ...]:
        """Each line of it as it stands; any spelling of the name."""
        return self._by_name.get(canonical(name), ())

    def first(self, name: str) -> str | None:
        return next(iter(self.all(name)), None)

    def items(self, name: str) -> tuple[str, ...]:
        """Each value, where several may stand in one line with commas between (RFC 3261 7.3.1)."""
        return tuple(item for line in self.all(name) for item in split(line, ",") if item)


def canonical(name: str) -> str:
    name = name.strip().lower()
    return COMPACT.get(name, name)


def parse_head(message: str) -> Head:
    """Raises PeerError for what does not begin as a SIP message does, or is far too long. Lines that are no header are
    left out."""
    message = message.lstrip("\r\n")  # RFC 3261 7.5: keep-alives before the start line
    lines = _lines(message[: MAX_HEAD_CHARS + 1])
    start = next(lines, "")
    fields: list[tuple[str, str]] = []
    for line in lines:
        if len(fields) >= MAX_FIELDS:
            raise PeerError("a SIP message with more headers than we read")
        name, colon, value = line.partition(":")
        if colon and _TOKEN.fullmatch(name := name.rstrip(" \t")):
            fields.append((canonical(name), value.strip(" \t")))
    if request := _REQUEST.fullmatch(start):
        return Head(request[1], request[2], 0, "", tuple(fields))
    if status := _STATUS.fullmatch(start):
        return Head("", "", int(status[1]), (status[2] or "").strip(), tuple(fields))
    raise PeerError("not a SIP message")


def _lines(text: str) -> Iterator[str]:
    """Up to the empty line; a line that begins with a blank continues the one before (RFC 3261 7.3.1)."""
    text = _UNFIT.sub("\ufffd", text)
    held: list[str] = []
    start = 0
    while start < len(text):
        newline = _NEWLINE.search(text, start)
        line = text[start : newline.start()] if newline else text[start:]
        start = newline.end() if newline else len(text)
        if start > MAX_HEAD_CHARS:
            raise PeerError("a SIP message with more headers than we read")
        if not line:
            break
        if line[0] in " \t" and held:
            held.append(line.strip(" \t"))
            continue
        if held:
            yield " ".join(held)
        held = [line.rstrip(" \t")]
    if held:
        yield " ".join(held)


def split(text: str, separator: str) -> list[str]:
    """At separators that are neither quoted nor within <>; pieces are stripped."""
    if '"' not in text and "<" not in text:
        return [piece.strip(" \t") for piece in text.split(separator)]
    pieces: list[str] = []
    start = 0
    quoted = within = escaped = False
    for at, char in enumerate(text):
        if escaped:
            escaped = False
        elif quoted:
            escaped, quoted = char == "\\", char != '"'
        elif char == '"':
            quoted = True
        elif char in "<>":
            within = char == "<"
        elif char == separator and not within:
            pieces.append(text[start:at].strip(" \t"))
            start = at + 1
    pieces.append(text[start:].strip(" \t"))
    return pieces


def parameters(pieces: list[str]) -> dict[str, str]:
    """`a=b` each, names in small letters; without a value: an empty one. The first of a name counts."""
    found: dict[str, str] = {}
    for piece in pieces:
        name, _, value = piece.partition("=")
        if name := name.strip(" \t").lower():
            found.setdefault(name, unquoted(value.strip(" \t")))
    return found


def unquoted(text: str) -> str:
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return text
    return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)


# --- addresses ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Uri:
    """sip:, sips: or tel:. The user is unescaped; of a tel: URI it is the number, and there is no host."""

    scheme: Literal["sip", "sips", "tel"]
    user: str = ""
    user_params: Mapping[str, str] = field(default_factory=dict)
    """What follows the number in the user part (RFC 3966): phone-context, isub, ext."""
    host: str = ""
    """In small letters; IPv6 without brackets."""
    port: int | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    """?Reason=... and the like, names in small letters."""


@dataclass(frozen=True, slots=True)
class NameAddr:
    uri: Uri
    display: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    """Of the header, such as `tag`."""


def parse_uri(text: str) -> Uri | None:
    matched = _SCHEME.fullmatch(text.strip())
    if matched is None:
        return None
    scheme, rest = matched[1].lower(), matched[2]
    if scheme == "tel":
        user, *params = rest.split(";")
        return _bounded(Uri("tel", _plain(user), parameters(params)))
    if scheme not in ("sip", "sips"):
        return None
    rest, _, headers = rest.partition("?") if "@" not in rest else _after_user(rest)
    user, at, location = rest.rpartition("@")
    if "@" in user:
        return None
    user, *user_params = user.split(";")
    place, *params = location.split(";")
    host = _HOST.fullmatch(place.strip())
    port = int(host[2]) if host and host[2] else None
    if host is None or (port is not None and not 0 < port < 65536) or (at and not user):
        return None
    return _bounded(
        Uri(
            "sips" if scheme == "sips" else "sip",
            _plain(user.partition(":")[0]),  # a password in a URI is nobody's business
            parameters(user_params),
            host[1].strip("[]").lower(),
            port,
            parameters(params),
            {name: _plain(value) for name, value in parameters(headers.split("&")).items()} if headers else {},
        )
    )


def _after_user(rest: str) -> tuple[str, str, str]:
    """A ? before the @ belongs to the user (RFC 3261 25.1, user-unreserved)."""
    user, _, location = rest.partition("@")
    place, mark, headers = location.partition("?")
    return f"{user}@{place}", mark, headers


def _plain(escaped: str) -> str:
    """Bytes that are no UTF-8, and control characters hidden behind a %, become U+FFFD."""
    return re.sub("[\x00-\x1f\x7f]", "\ufffd", unquote(escaped, errors="replace"))


def _bounded(uri: Uri) -> Uri | None:
    return uri if len(uri.user) <= MAX_USER_CHARS else None


def parse_name_addr(value: str | None) -> NameAddr | None:
    """`"Display" <uri>;param` or `uri;param`, as in From, To, Contact, P-Asserted-Identity, Diversion."""
    if value is None:
        return None
    address, *params = split(value, ";")
    display, bracket, rest = _before_bracket(address)
    if not bracket:
        # RFC 3261 20.10: without <>, what follows a semicolon belongs to the header
        display, uri = "", parse_uri(address.partition("?")[0])
    else:
        inner, closed, _ = rest.partition(">")
        uri = parse_uri(inner) if closed else None
    return None if uri is None else NameAddr(uri, unquoted(display.strip(" \t")), parameters(params))


def _before_bracket(address: str) -> tuple[str, str, str]:
    """The first < that is not quoted: a display name may hold one."""
    if address.startswith('"'):
        quoted = re.match(r'"(?:[^"\\]|\\.)*"', address, re.DOTALL)
        if quoted is None:
            return "", "", ""
        end = quoted.end()
        return address[:end], *address[end:].partition("<")[1:]
    return address.partition("<")


# --- numbers --------------------------------------------------------------------------------------------------------


def number_of(uri: Uri, country: str | None = None) -> E164 | None:
    """The phone number it names, or None: a name, an extension, or digits that may be read in more than one way.

    With + it is international. Without, `phone-context` (RFC 3966 5.1.5) or else `country` says where it is dialled:
    as a national number there (or with that country's prefix for abroad); only digits that cannot be one are taken for
    an international number whose + got lost, as many carriers send it. Without a country they stay digits.
    """
    digits = uri.user.translate(_SEPARATORS)
    if not _DIGITS.fullmatch(digits):
        return None
    context = uri.user_params.get("phone-context") or uri.params.get("phone-context") or ""
    if digits[0] != "+" and context.startswith("+"):
        country = _country_of(context.translate(_SEPARATORS)) or country
    return e164(digits, country)


def e164(digits: str, country: str | None = None) -> E164 | None:
    """`digits`, perhaps after a +, as `number_of` reads them."""
    if digits.startswith("+"):
        return _written(digits, None)
    if country is None:
        return None
    return _written(digits, country) or _written(f"+{digits}", None, certainly=True)


def _written(digits: str, country: str | None, certainly: bool = False) -> E164 | None:
    try:
        number = phonenumbers.parse(digits, country)
    except phonenumbers.NumberParseException:
        return None
    # A number with + is taken at its word if its length may be; ranges are opened faster than lists are updated.
    fits = phonenumbers.is_possible_number if country is None and not certainly else phonenumbers.is_valid_number
    return E164(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)) if fits(number) else None


def _country_of(context: str) -> str | None:
    if not re.fullmatch(r"\+[0-9]{1,14}", context, re.ASCII):
        return None
    codes = phonenumbers.COUNTRY_CODE_TO_REGION_CODE
    return next((codes[int(context[1:n])][0] for n in (2, 3, 4) if int(context[1:n] or 0) in codes), None)


# --- who is calling -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Party:
    number: E164 | None
    user: str
    """As it stood in the URI: an extension, a name, digits without a country."""
    display: str = ""


@dataclass(frozen=True, slots=True)
class Caller(Party):
    withheld: bool = False
    """Not to be shown or spoken (RFC 3323); policy and block lists may know the number all the same."""
    asserted: bool = False
    """By the peer, in P-Asserted-Identity (RFC 3325), not only by the caller's own From."""


@dataclass(frozen=True, slots=True)
class Forwarding(Party):
    """Who sent the call on to us, and why (`no-answer`, `user-busy`, a SIP code): Diversion, RFC 5806, or History-Info,
    RFC 7044."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Reason:
    """RFC 3326. `protocol` is SIP or Q.850."""

    protocol: str
    cause: int | None
    text: str = ""


def called(head: Head, header: Literal["request_uri", "to"], country: str | None = None) -> Party | None:
    if header == "request_uri":
        uri = parse_uri(head.uri)
        return None if uri is None else Party(number_of(uri, country), uri.user)
    return _party(head.first("to"), country)


def caller(head: Head, country: str | None = None) -> Caller:
    """P-Asserted-Identity where it holds a number (it may hold a sip: and a tel: URI), else From. The peer is one of a
    trunk's, which is what makes it believable. A From without form is a caller without a number."""
    stated = _party(head.first("from"), country) or Party(None, "")
    asserted = [p for item in head.items("p-asserted-identity")[:4] if (p := _party(item, country))]
    privacy = {part.strip().lower() for line in head.all("privacy") for part in line.split(";")}
    withheld = bool(privacy & {"id", "user", "header"}) or _is_withheld(head.first("from"), stated.user)
    known = next((p for p in asserted if p.number), None)
    if known is None and asserted and stated.number is None and (withheld or not stated.user):
        known = asserted[0]
    if known is None:
        return Caller(stated.number, stated.user, stated.display, withheld)
    return Caller(known.number, known.user, known.display or stated.display, withheld, asserted=True)


def _is_withheld(value: str | None, user: str) -> bool:
    address = parse_name_addr(value)
    return user.lower() in WITHHELD_USERS or (address is not None and address.uri.host == "anonymous.invalid")


def _party(value: str | None, country: str | None) -> Party | None:
    address = parse_name_addr(value)
    if address is None:
        return None
    return Party(number_of(address.uri, country), address.uri.user, address.display[:MAX_USER_CHARS])


def forwardings(head: Head, country: str | None = None) -> tuple[Forwarding, ...]:
    """The latest first. Diversion where there is one, else what History-Info says of it."""
    found = []
    for item in head.items("diversion")[:8]:
        if address := parse_name_addr(item):
            party = Party(number_of(address.uri, country), address.uri.user, address.display[:MAX_USER_CHARS])
            found.append(Forwarding(party.number, party.user, party.display, address.params.get("reason", "")[:64]))
    return tuple(found) or _history(head, country)


def _history(head: Head, country: str | None) -> tuple[Forwarding, ...]:
    """An entry was left for the next one when it carries a Reason (RFC 7044 5.3), or the next a `cause` (RFC 4458)."""
    entries = [address for item in head.items("history-info")[:16] if (address := parse_name_addr(item))]
    found = []
    for entry, after in pairwise(entries):
        cause = after.uri.params.get("cause") or next((str(r.cause) for r in _embedded(entry) if r.cause), "")
        if cause:
            number = number_of(entry.uri, country)
            found.append(Forwarding(number, entry.uri.user, entry.display[:MAX_USER_CHARS], cause[:64]))
    return tuple(reversed(found))


def _embedded(entry: NameAddr) -> tuple[Reason, ...]:
    return _reasons(split(entry.uri.headers.get("reason", ""), ","))


def reasons(head: Head) -> tuple[Reason, ...]:
    return _reasons(list(head.items("reason")[:8]))


def _reasons(items: list[str]) -> tuple[Reason, ...]:
    found = []
    for item in items:
        protocol, *params = split(item, ";")
        if _TOKEN.fullmatch(protocol):
            given = parameters(params)
            cause = given.get("cause", "")
            known = int(cause) if re.fullmatch(r"[0-9]{1,3}", cause, re.ASCII) else None
            found.append(Reason(protocol.upper(), known, given.get("text", "")[:MAX_USER_CHARS]))
    return tuple(found)


def retry_after_s(text: str) -> int:
    """RFC 3261 20.33: seconds, then a comment or parameters. 0: the message says nothing of it."""
    found = re.search(r"^retry-after[ \t]*:\s*([0-9]{1,6})", text, re.M | re.I)
    return int(found[1]) if found else 0


def identities(head: Head) -> tuple[str, ...]:
    """Each Identity value (RFC 8224), unchanged: the caller's (shaken), and perhaps those of diversions (div)."""
    return head.items("identity")


def verstats(head: Head) -> tuple[str, ...]:
    """The `verstat` of P-Asserted-Identity, or of From where nobody was asserted (3GPP TS 24.229): of the number, or of
    the URI. Beside an assertion From is only what the caller wrote."""
    lines = head.items("p-asserted-identity")[:4] or head.items("from")[:1]
    uris = [address.uri for line in lines if (address := parse_name_addr(line))]
    return tuple(each["verstat"] for uri in uris for each in (uri.user_params, uri.params) if "verstat" in each)


# --- what we send ---------------------------------------------------------------------------------------------------


def safe_header_value(value: str) -> str:
    """`value`, if it may stand in a header of ours. Raises ValueError saying why not: a line break would begin a header
    of the sender's choice."""
    if len(value) > MAX_SENT_CHARS:
        raise ValueError(f"at most {MAX_SENT_CHARS} characters")
    if not value.strip() or not value.isprintable():
        raise ValueError("printable text without line breaks")
    return value.strip()
