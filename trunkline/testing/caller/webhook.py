"""What Twilio asks over HTTP, and what it reads in the answer.

`parse_twiml` reads the verbs we follow; `Webhook` posts them as Twilio does: a form, signed when a token is given.
"""

import io
import wave
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit, urlunsplit
from xml.etree import ElementTree

import httpx
from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]

from trunkline.errors import PeerError

API_VERSION = "2010-04-01"
TIMEOUT_S = 15.0  # Twilio's own limit for a webhook
MAX_TWIML_BYTES = 64 * 1024  # Twilio's limit for a document
MAX_PARAMETER_CHARACTERS = 500  # name and value together, docs: voice/twiml/stream


@dataclass(frozen=True, slots=True)
class Stream:
    """<Connect><Stream>."""

    url: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    status_callback: str = ""
    action: str = ""
    """Of the <Connect>; empty: go on with the next verb."""


@dataclass(frozen=True, slots=True)
class Say:
    text: str


@dataclass(frozen=True, slots=True)
class Play:
    url: str


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class Gather:
    """Keys are heard while its verbs are done. Nobody presses any here: the next verb follows."""

    verbs: tuple[Say | Play | Pause, ...]
    action: str = ""
    timeout_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Dial:
    numbers: tuple[str, ...]
    action: str = ""


@dataclass(frozen=True, slots=True)
class Redirect:
    url: str


@dataclass(frozen=True, slots=True)
class Reject:
    reason: str = "rejected"


@dataclass(frozen=True, slots=True)
class Hangup:
    pass


Verb = Stream | Say | Play | Pause | Gather | Dial | Redirect | Reject | Hangup


def parse_twiml(text: str) -> list[Verb]:
    """The verbs of a document, in order. Raises PeerError for what Twilio would refuse (error 12100 and its kin)."""
    if len(text.encode()) > MAX_TWIML_BYTES:
        raise PeerError("TwiML is larger than 64 KiB")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise PeerError("TwiML holds a document type")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise PeerError(f"TwiML is not XML: {error}") from error
    if root.tag != "Response":
        raise PeerError(f"TwiML begins with <{root.tag}>, not <Response>")
    return [_verb(element) for element in root]


def _verb(element: ElementTree.Element) -> Verb:
    text = (element.text or "").strip()
    match element.tag:
        case "Connect":
            return _stream(element)
        case "Say":
            return Say("".join(element.itertext()).strip())
        case "Play":
            return Play(text)
        case "Pause":
            return Pause(_seconds(element.get("length", "1")))
        case "Gather":
            return _gather(element)
        case "Dial":
            numbers = tuple((number.text or "").strip() for number in element) or ((text,) if text else ())
            return Dial(numbers, element.get("action", ""))
        case "Redirect":
            return Redirect(text)
        case "Reject":
            return Reject(element.get("reason", "rejected"))
        case "Hangup":
            return Hangup()
    raise PeerError(f"TwiML verb <{element.tag}> is not followed here")


def _gather(element: ElementTree.Element) -> Gather:
    verbs = tuple(_verb(child) for child in element)
    said = tuple(verb for verb in verbs if isinstance(verb, Say | Play | Pause))
    if len(said) < len(verbs):
        raise PeerError("<Gather> holds what is neither <Say>, <Play> nor <Pause>")
    return Gather(said, element.get("action", ""), _seconds(element.get("timeout", "5"), "Gather timeout"))


def _seconds(length: str, whose: str = "Pause length") -> float:
    try:
        return float(length)
    except ValueError:
        raise PeerError(f"<{whose}={length!r}> is not a number") from None


def _stream(connect: ElementTree.Element) -> Stream:
    nouns = list(connect)
    if len(nouns) != 1 or nouns[0].tag != "Stream":
        raise PeerError("<Connect> must hold one <Stream>")
    noun = nouns[0]
    url = noun.get("url", "")
    parts = urlsplit(url)
    if parts.scheme not in ("wss", "ws") or not parts.netloc:
        raise PeerError(f"<Stream url={url!r}> is not a wss:// URL")
    if parts.query:
        raise PeerError("<Stream url> holds a query string, which Twilio does not support: use <Parameter>")
    parameters = {p.get("name", ""): p.get("value", "") for p in noun.findall("Parameter")}
    if any(len(name) + len(value) > MAX_PARAMETER_CHARACTERS for name, value in parameters.items()):
        raise PeerError("a <Parameter>'s name and value are longer than 500 characters together")
    callback = noun.get("statusCallback", "")
    return Stream(url, parameters, noun.get("name", ""), callback, connect.get("action", ""))


@dataclass(frozen=True, slots=True)
class CallFields:
    """What every request of one call carries."""

    account_sid: str
    call_sid: str
    from_number: str
    to_number: str
    direction: str = "inbound"

    def form(self, status: str, **more: str) -> dict[str, str]:
        numbers = {"From": self.from_number, "To": self.to_number, "Caller": self.from_number, "Called": self.to_number}
        ids = {"AccountSid": self.account_sid, "CallSid": self.call_sid, "ApiVersion": API_VERSION}
        return {**ids, **numbers, "Direction": self.direction, "CallStatus": status, **more}


class Webhook:
    """Twilio's HTTP client for one call (or many: it holds no state)."""

    def __init__(
        self, client: httpx.AsyncClient, *, auth_token: str = "", signed_origin: str = "", via_origin: str = ""
    ) -> None:
        """`signed_origin`: the public origin the signature is made for, when it is not the URL's own.
        `via_origin`: where requests really go, when the URLs name a public host that is not reachable from here."""
        self._client, self._signed_origin, self._via_origin = client, signed_origin, via_origin
        self._validator: Any = RequestValidator(auth_token) if auth_token else None

    async def post(self, url: str, form: Mapping[str, str]) -> str:
        """The response's text. Raises PeerError when there is none in time, or it is no success."""
        headers = {"User-Agent": "TwilioProxy/1.1", "Accept": "*/*", "I-Twilio-Idempotency-Token": form["CallSid"]}
        headers["Connection"] = "close"  # one that was idle for five seconds may be closed as it is used again
        if self._validator is not None:
            signed = reorigin(url, self._signed_origin) if self._signed_origin else url
            headers["X-Twilio-Signature"] = self._validator.compute_signature(signed, form)
        target = reorigin(url, self._via_origin) if self._via_origin else url
        try:
            response = await self._client.post(target, data=dict(form), headers=headers, timeout=TIMEOUT_S)
        except httpx.TimeoutException as error:
            raise PeerError(f"no answer from {target} in {TIMEOUT_S:g} s") from error
        except httpx.HTTPError as error:
            raise PeerError(f"cannot reach {target}: {error}") from error
        if response.status_code >= 300:
            raise PeerError(f"{target} answered {response.status_code}: {response.text[:200].strip()}")
        return response.text

    async def play(self, url: str) -> float:
        """Fetch what is to be played; how many seconds of it there are. 0: it is no WAV file."""
        target = reorigin(url, self._via_origin) if self._via_origin else url
        try:
            response = await self._client.get(target, timeout=TIMEOUT_S)
        except httpx.HTTPError as error:
            raise PeerError(f"cannot fetch {target}: {error}") from error
        if response.status_code >= 300:
            raise PeerError(f"{target} answered {response.status_code}")
        try:
            with wave.open(io.BytesIO(response.content)) as sound:
                return float(sound.getnframes() / sound.getframerate())
        except (wave.Error, EOFError):
            return 0.0

    async def twiml(self, url: str, form: Mapping[str, str]) -> list[Verb]:
        text = await self.post(url, form)
        return parse_twiml(text) if text.strip() else []


def reorigin(url: str, origin: str) -> str:
    """`url` at another origin; a ws or wss URL stays one."""
    parts, target = urlsplit(url), urlsplit(origin)
    scheme = target.scheme
    if parts.scheme in ("ws", "wss"):
        scheme = {"http": "ws", "https": "wss"}.get(scheme, scheme)
    return urlunsplit((scheme, target.netloc, parts.path, parts.query, parts.fragment))


def join(base: str, url: str) -> str:
    """Twilio accepts relative URLs in actions and callbacks."""
    return urljoin(base, url)
