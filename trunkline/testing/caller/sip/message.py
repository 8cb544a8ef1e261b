"""SIP messages (RFC 3261): text to values and back. Lenient in what is read where the RFC lets us be, exact in what is
written. Nothing here knows a dialog."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from trunkline.errors import ConfigError, PeerError

MAX_MESSAGE_BYTES = 65_535  # a UDP datagram's limit; more on TCP is no SIP of ours
BRANCH_COOKIE = "z9hG4bK"  # RFC 3261 8.1.1.7

_COMPACT = {  # RFC 3261 7.3.3 and 20, RFC 4028 4, RFC 3515
    "b": "referred-by",
    "c": "content-type",
    "e": "content-encoding",
    "f": "from",
    "i": "call-id",
    "k": "supported",
    "l": "content-length",
    "m": "contact",
    "o": "event",
    "r": "refer-to",
    "s": "subject",
    "t": "to",
    "u": "allow-events",
    "v": "via",
    "x": "session-expires",
}
_LISTS = {"via", "route", "record-route", "contact"}  # of ours, those whose values may share a line
_STATUS_LINE = re.compile(r"SIP/2\.0 ([1-6]\d\d)(?: (.*))?")
_REQUEST_LINE = re.compile(r"([A-Za-z0-9.!%*_+`'~-]+) (\S+) SIP/2\.0", re.IGNORECASE)
_URI = re.compile(
    r"(?P<scheme>sips?):(?:(?P<user>[^@<>]*)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^:;?<>@\s]+)(?::(?P<port>\d{1,5}))?"
    r"(?P<params>(?:;[^?<>\s]*)?)(?:\?[^<>\s]*)?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Uri:
    host: str
    """IPv6 without brackets."""
    user: str = ""
    port: int | None = None
    scheme: str = "sip"
    params: tuple[tuple[str, str], ...] = ()

    @property
    def transport(self) -> str:
        """udp, tcp or tls."""
        named = dict(self.params).get("transport", "").lower()
        if self.scheme == "sips":
            return "tls"
        return named or "udp"

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port or (5061 if self.transport == "tls" else 5060)

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        params = "".join(f";{name}={value}" if value else f";{name}" for name, value in self.params)
        return f"{self.scheme}:{user}{bracketed(self.host)}{port}{params}"


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def parse_uri(text: str) -> Uri:
    """A SIP URI, bare or inside `"Name" <...>;params`. Raises PeerError."""
    inner = text[text.find("<") + 1 : text.rfind(">")] if "<" in text and ">" in text else text.strip()
    match = _URI.fullmatch(inner)
    if match is None or int(match["port"] or 0) > 65_535:
        raise PeerError(f"no SIP URI: {text[:80]!r}")
    params = tuple((n.lower(), v) for n, _, v in (p.partition("=") for p in match["params"].split(";") if p))
    port = int(match["port"]) if match["port"] else None
    return Uri(match["host"].strip("[]"), match["user"] or "", port, match["scheme"].lower(), params)


def sip_target(target: str, to_number: str) -> Uri:
    """The Request-URI of a call: `to_number` where the target names nobody. Raises ConfigError."""
    try:
        uri = parse_uri(target)
    except PeerError:
        raise ConfigError("target", target, "sip:[NUMBER@]HOST[:PORT][;transport=udp|tcp|tls] or sips:") from None
    return uri if uri.user else replace(uri, user=to_number)


@dataclass(slots=True)
class Message:
    """A request (`method` set) or a response (`status` set). Header names as written; looked up in any case or form."""

    method: str = ""
    uri: str = ""
    status: int = 0
    reason: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    def get(self, name: str) -> str | None:
        """The first value, or None."""
        wanted = name.lower()
        return next((value for n, value in self.headers if _full(n) == wanted), None)

    def all(self, name: str) -> list[str]:
        """Every value in order, comma lists taken apart."""
        wanted = name.lower()
        values = [value for n, value in self.headers if _full(n) == wanted]
        return [part for v in values for part in split_list(v)] if wanted in _LISTS else values

    def need(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise PeerError(f"{self.what} without {name}")
        return value

    @property
    def what(self) -> str:
        return self.method or f"{self.status} {self.reason}".strip()

    @property
    def call_id(self) -> str:
        return self.need("Call-ID")

    @property
    def cseq(self) -> tuple[int, str]:
        number, _, method = self.need("CSeq").strip().partition(" ")
        if not number.isascii() or not number.isdigit() or int(number) >= 1 << 31:
            raise PeerError("CSeq is no number below 2**31")
        return int(number), method.strip().upper()

    @property
    def branch(self) -> str:
        vias = self.all("Via")
        return param(vias[0], "branch") if vias else ""

    def tag(self, name: str) -> str:
        """Of From or To; empty when there is none."""
        return param(self.get(name) or "", "tag")

    def to_bytes(self) -> bytes:
        first = f"{self.method} {self.uri} SIP/2.0" if self.method else f"SIP/2.0 {self.status} {self.reason}"
        lines = [first, *(f"{name}: {value}" for name, value in self.headers), f"Content-Length: {len(self.body)}"]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body


def _full(name: str) -> str:
    lower = name.lower()
    return _COMPACT.get(lower, lower)


def param(value: str, name: str) -> str:
    """`;name=...` after the address of a header value, any case; empty when absent."""
    tail = value[value.rfind(">") + 1 :] if ">" in value else value
    for part in tail.split(";")[1:]:
        key, _, found = part.partition("=")
        if key.strip().lower() == name:
            return found.strip().strip('"')
    return ""


def split_list(value: str) -> list[str]:
    """At the commas outside quotes and angle brackets."""
    if "," not in value:
        return [value.strip()] if value.strip() else []
    parts, start, quoted, depth, escaped = [], 0, False, 0, False
    for at, char in enumerate(value):
        if escaped:
            escaped = False
        elif quoted:
            escaped, quoted = char == "\\", char != '"'
        elif char == '"':
            quoted = True
        elif char in "<>":
            depth += 1 if char == "<" else -1
        elif char == "," and depth <= 0:
            parts.append(value[start:at].strip())
            start = at + 1
    return [part for part in [*parts, value[start:].strip()] if part]


def parse(data: bytes) -> Message:
    """One whole message. Raises PeerError for what is none."""
    head, separator, body = data.lstrip(b"\r\n").partition(b"\r\n\r\n")
    if not separator or len(data) > MAX_MESSAGE_BYTES:
        raise PeerError("no whole SIP message")
    message = _head(head)
    length = message.get("Content-Length")
    if length is not None:
        size = _length(length)
        if size > len(body):
            raise PeerError(f"{message.what}: {len(body)} bytes of body, {size} announced")
        body = body[:size]  # RFC 3261 18.3: the rest of a datagram is discarded
    message.body = body
    return message


def _length(text: str) -> int:
    text = text.strip()
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise PeerError("Content-Length is no number")
    return int(text)


def _head(head: bytes) -> Message:
    try:
        lines = re.sub(r"\r\n[ \t]+", " ", head.decode()).split("\r\n")
    except UnicodeDecodeError:
        raise PeerError("a SIP head that is not UTF-8") from None
    headers: list[tuple[str, str]] = []
    for line in lines[1:]:
        name, separator, value = line.partition(":")
        if not separator or not name.strip():
            raise PeerError(f"no header: {line[:40]!r}")
        headers.append((name.strip(), value.strip()))
    if match := _STATUS_LINE.fullmatch(lines[0]):
        return Message(status=int(match[1]), reason=match[2] or "", headers=headers)
    if match := _REQUEST_LINE.fullmatch(lines[0]):
        return Message(method=match[1], uri=match[2], headers=headers)
    raise PeerError(f"no SIP start line: {lines[0][:40]!r}")


class Splitter:
    """A byte stream (TCP, TLS) to messages by Content-Length (RFC 3261 18.3). Feed bytes, take messages."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[Message]:
        """Raises PeerError when the stream cannot be followed any more."""
        buffer, messages = self._buffer + data, list[Message]()
        while buffer := buffer.lstrip(b"\r\n"):  # RFC 5626 3.5.1 keep-alives
            head, separator, rest = buffer.partition(b"\r\n\r\n")
            if not separator:
                break
            message = _head(head)
            size = _length(message.get("Content-Length") or "0")
            if len(rest) < size:
                break
            message.body, buffer = rest[:size], rest[size:]
            messages.append(message)
        if len(buffer) > MAX_MESSAGE_BYTES:
            raise PeerError("a SIP message over 64 KiB")
        self._buffer = buffer
        return messages


def respond(
    request: Message, status: int, reason: str, *, to_tag: str, more: Sequence[tuple[str, str]] = ()
) -> Message:
    """A response with what RFC 3261 8.2.6 copies from the request."""
    headers = [(n, v) for n, v in request.headers if _full(n) in ("via", "from", "call-id", "cseq", "record-route")]
    to = request.need("To")
    headers.append(("To", to if request.tag("To") else f"{to};tag={to_tag}"))
    return Message(status=status, reason=reason, headers=[*headers, *more])
