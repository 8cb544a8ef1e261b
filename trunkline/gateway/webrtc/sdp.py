"""SDP as WHIP needs it (RFC 8866, 8829, 9725): a browser's offer is read, our answer and its trickled candidates too.

One audio section with Opus is taken, one data channel section beside it, both over one transport (BUNDLE, rtcp-mux);
every other section is refused in the answer by its port 0. Whatever is wrong is an `SdpError` that says so.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from trunkline.errors import TrunklineError

MAX_BYTES = 32 * 1024
MAX_LINES = 1000
MAX_SECTIONS = 8
MAX_CANDIDATES = 64
OPUS_HZ = 48_000
HASHES = ("sha-256", "sha-384", "sha-512")

Setup = Literal["active", "passive"]
Code = Literal["malformed", "no_audio", "no_codec", "not_supported", "too_large"]

_ICE = re.compile(r"[A-Za-z0-9+/]+")
_FINGERPRINT = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){31,63}")
_TOKEN = re.compile(r"[!#-'*+\-.0-9A-Z^-~]{1,64}")


class SdpError(TrunklineError):
    """`code` tells a program, `why` a person."""

    def __init__(self, code: Code, why: str) -> None:
        super().__init__(code, why)
        self.code, self.why = code, why

    def __str__(self) -> str:
        return self.why


@dataclass(frozen=True, slots=True)
class Fingerprint:
    hash: str
    value: str
    """Hexadecimal, as AA:BB:..."""


@dataclass(frozen=True, slots=True)
class Section:
    """One m= line of the offer, as it must come back in the answer."""

    media: str
    protocol: str
    formats: tuple[str, ...]
    mid: str


@dataclass(frozen=True, slots=True)
class Offer:
    sections: tuple[Section, ...]
    audio: int
    """Which of them is the call's audio."""
    events: int | None
    """And which its data channel."""
    opus: int
    """RTP payload type."""
    telephone_event: int | None
    sends: bool
    """The caller's audio comes; `receives`: ours is wanted."""
    receives: bool
    ice_username: str = field(repr=False)
    ice_password: str = field(repr=False)
    ice_lite: bool
    fingerprints: tuple[Fingerprint, ...]
    setup: Setup
    """What we are, by RFC 8842: the client where we may choose, as that saves half a round trip."""
    sctp_port: int
    candidates: tuple[str, ...]
    """The values of their a=candidate lines."""
    candidates_end: bool


@dataclass(frozen=True, slots=True)
class Ours:
    """Our end, for the answer."""

    ice_username: str
    ice_password: str = field(repr=False)
    fingerprint: Fingerprint
    candidates: tuple[str, ...]
    ssrc: int
    session: int
    """Numbers the answer (o=)."""


@dataclass(frozen=True, slots=True)
class Trickled:
    """A trickle-ice-sdpfrag (RFC 8840 9)."""

    ice_username: str | None
    ice_password: str | None
    candidates: tuple[str, ...]
    end: bool


@dataclass(slots=True)
class _Part:
    """The session level (without m=) or one section, as lines."""

    media: str = ""
    lines: list[tuple[str, str]] = field(default_factory=list)
    """Attributes: name and value."""

    def first(self, name: str) -> str | None:
        return next((value for key, value in self.lines if key == name), None)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.lines if key == name]

    def has(self, name: str) -> bool:
        return any(key == name for key, _ in self.lines)


def read_offer(body: bytes) -> Offer:
    """Raises SdpError."""
    session, parts = _parts(body, whole=True)
    sections = tuple(_section(index, part) for index, part in enumerate(parts))
    if len({section.mid for section in sections}) != len(sections):
        raise SdpError("malformed", "two sections have one mid")
    bundle = next((set(g.split()[1:]) for g in session.all("group") if g.startswith("BUNDLE ")), set[str]())
    audio = next((i for i, part in enumerate(parts) if _offers_audio(part)), None)
    if audio is None:
        raise SdpError("no_audio", "the offer has no audio (m=audio)")
    part, section = parts[audio], sections[audio]
    opus = _payload_type(part, section, "opus", str(OPUS_HZ))
    if opus is None:
        raise SdpError("no_codec", "the offer's audio has no Opus, the only codec here")
    if "SAVP" not in section.protocol:
        raise SdpError("not_supported", "the audio is not encrypted: UDP/TLS/RTP/SAVPF is needed")
    if not part.has("rtcp-mux"):
        raise SdpError("not_supported", "RTCP must share the port of RTP (a=rtcp-mux)")
    direction = next((d for d in _SENDS if part.has(d)), next((d for d in _SENDS if session.has(d)), "sendrecv"))
    events = next(
        (
            i
            for i, s in enumerate(sections)
            if s.media == "application" and "webrtc-datachannel" in s.formats and s.mid in bundle
        ),
        None,
    )
    if events is not None and section.mid not in bundle:
        events = None
    username, password = part.first("ice-ufrag"), part.first("ice-pwd")
    username = session.first("ice-ufrag") if username is None else username
    password = session.first("ice-pwd") if password is None else password
    username, password = _credentials(username, password)
    candidates = tuple(_candidates(part))
    return Offer(
        sections,
        audio,
        events,
        opus,
        _payload_type(part, section, "telephone-event", str(OPUS_HZ)),
        *_SENDS[direction],
        username,
        password,
        session.has("ice-lite"),
        _fingerprints(part, session),
        _setup(part.first("setup") or session.first("setup") or "actpass"),
        _sctp_port(parts[events]) if events is not None else 0,
        candidates,
        part.has("end-of-candidates") or session.has("end-of-candidates"),
    )


def write_answer(offer: Offer, ours: Ours) -> str:
    kept = [i for i in (offer.audio, offer.events) if i is not None]
    bundle = " ".join(section.mid for i, section in enumerate(offer.sections) if i in kept)
    lines = [
        "v=0",
        f"o=- {ours.session} 1 IN IP4 0.0.0.0",
        "s=-",
        "t=0 0",
        f"a=group:BUNDLE {bundle}",
        "a=ice-options:trickle",
        "a=msid-semantic:WMS *",
    ]
    for index, section in enumerate(offer.sections):
        if index == offer.audio:
            lines += _audio(offer, ours, section)
        elif index == offer.events:
            lines += [f"m=application 9 {section.protocol} webrtc-datachannel", *_transport(offer, ours, section)]
            lines += [f"a=sctp-port:{SCTP_PORT}", f"a=max-message-size:{MAX_MESSAGE_BYTES}"]
        else:
            lines += [f"m={section.media} 0 {section.protocol} {' '.join(section.formats)}", "c=IN IP4 0.0.0.0"]
            lines += [f"a=mid:{section.mid}", "a=inactive"]
    return "\r\n".join(lines) + "\r\n"


_OPUS = "minptime=10;maxplaybackrate=8000;maxaveragebitrate=24000;stereo=0;sprop-stereo=0;useinbandfec=1;usedtx=0"
SCTP_PORT = 5000
MAX_MESSAGE_BYTES = 65_536


def _audio(offer: Offer, ours: Ours, section: Section) -> list[str]:
    events = offer.telephone_event
    formats = f"{offer.opus}" if events is None else f"{offer.opus} {events}"
    direction = next(name for name, ways in _SENDS.items() if ways == (offer.receives, offer.sends))
    lines = [f"m=audio 9 {section.protocol} {formats}", *_transport(offer, ours, section)]
    lines += [f"a={direction}", "a=rtcp-mux", "a=ptime:20", "a=maxptime:60", f"a=rtpmap:{offer.opus} opus/48000/2"]
    # Mono at the narrow band of a telephone is all that is heard here; FEC of theirs we can make use of (RFC 7587 6.1).
    lines.append(f"a=fmtp:{offer.opus} {_OPUS}")
    if events is not None:
        lines += [f"a=rtpmap:{events} telephone-event/48000", f"a=fmtp:{events} 0-15"]
    lines += [f"a=ssrc:{ours.ssrc} cname:trunkline", "a=msid:trunkline agent"]
    return lines


def _transport(offer: Offer, ours: Ours, section: Section) -> list[str]:
    lines = ["c=IN IP4 0.0.0.0", f"a=mid:{section.mid}"]
    lines += [f"a=ice-ufrag:{ours.ice_username}", f"a=ice-pwd:{ours.ice_password}"]
    lines += [f"a=fingerprint:{ours.fingerprint.hash} {ours.fingerprint.value}", f"a=setup:{offer.setup}"]
    return [*lines, *(f"a=candidate:{candidate}" for candidate in ours.candidates), "a=end-of-candidates"]


def read_trickled(body: bytes) -> Trickled:
    """Raises SdpError. Candidates of every section: there is one transport."""
    session, parts = _parts(body, whole=False)
    everywhere = [session, *parts]
    username = next((p.first("ice-ufrag") for p in everywhere if p.has("ice-ufrag")), None)
    password = next((p.first("ice-pwd") for p in everywhere if p.has("ice-pwd")), None)
    candidates = tuple(c for p in everywhere for c in _candidates(p))
    if len(candidates) > MAX_CANDIDATES:
        raise SdpError("too_large", f"at most {MAX_CANDIDATES} candidates")
    return Trickled(username, password, candidates, any(p.has("end-of-candidates") for p in everywhere))


# --- lines ---

_SENDS: Mapping[str, tuple[bool, bool]] = {
    "sendrecv": (True, True),
    "sendonly": (True, False),
    "recvonly": (False, True),
    "inactive": (False, False),
}


def _parts(body: bytes, *, whole: bool) -> tuple[_Part, list[_Part]]:
    if len(body) > MAX_BYTES:
        raise SdpError("too_large", f"at most {MAX_BYTES} bytes of SDP")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SdpError("malformed", "the SDP is not UTF-8") from error
    lines = text.replace("\r\n", "\n").split("\n")
    if len(lines) > MAX_LINES:
        raise SdpError("too_large", f"at most {MAX_LINES} lines of SDP")
    if whole and (not lines or lines[0] != "v=0"):
        raise SdpError("malformed", "SDP begins with v=0")
    session, parts = _Part(), list[_Part]()
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        if len(line) < 2 or line[1] != "=" or not line[0].isalpha() or "\0" in line or "\r" in line:
            raise SdpError("malformed", f"line {number} is not <type>=<value>")
        kind, value = line[0], line[2:]
        if kind == "m":
            parts.append(_Part(value))
        elif kind == "a":
            name, _, rest = value.partition(":")
            (parts[-1] if parts else session).lines.append((name, rest))
    if len(parts) > MAX_SECTIONS:
        raise SdpError("too_large", f"at most {MAX_SECTIONS} media sections")
    return session, parts


def _section(index: int, part: _Part) -> Section:
    words = part.media.split()
    if len(words) < 4 or not words[1].partition("/")[0].isdecimal() or not all(map(_TOKEN.fullmatch, words[3:])):
        raise SdpError("malformed", "m= is <media> <port> <protocol> <format> ...")
    if not _TOKEN.fullmatch(words[0]) or not re.fullmatch(r"[A-Za-z0-9/]{1,40}", words[2]):
        raise SdpError("malformed", "m= is <media> <port> <protocol> <format> ...")
    mid = part.first("mid")
    if mid is not None and not _TOKEN.fullmatch(mid):
        raise SdpError("malformed", "a=mid is a token")
    return Section(words[0], words[2], tuple(words[3:]), str(index) if mid is None else mid)


def _offers_audio(part: _Part) -> bool:
    words = part.media.split()
    return words[0] == "audio" and (words[1] != "0" or part.has("bundle-only"))


def _payload_type(part: _Part, section: Section, codec: str, clock_hz: str) -> int | None:
    for value in part.all("rtpmap"):
        number, _, name = value.partition(" ")
        pieces = name.strip().lower().split("/")
        if number in section.formats and number.isdecimal() and int(number) < 128 and pieces[:2] == [codec, clock_hz]:
            return int(number)
    return None


def _fingerprints(part: _Part, session: _Part) -> tuple[Fingerprint, ...]:
    given = part.all("fingerprint") or session.all("fingerprint")
    found = []
    for value in given:
        hash_name, _, digest = value.partition(" ")
        if not _FINGERPRINT.fullmatch(digest.strip()):
            raise SdpError("malformed", "a=fingerprint is <hash> <AA:BB:...>")
        if hash_name.lower() in HASHES:
            found.append(Fingerprint(hash_name.lower(), digest.strip().upper()))
    if not found:
        raise SdpError("malformed", f"a=fingerprint is needed, by {', '.join(HASHES)}")
    return tuple(found)


def _setup(theirs: str) -> Setup:
    if theirs not in ("actpass", "active", "passive"):
        raise SdpError("malformed", "a=setup is actpass, active or passive")
    return "passive" if theirs == "active" else "active"


def _sctp_port(part: _Part) -> int:
    value = part.first("sctp-port") or str(SCTP_PORT)
    if not value.isdecimal() or not 0 < int(value) < 65_536:
        raise SdpError("malformed", "a=sctp-port is a port")
    return int(value)


def _credentials(username: str | None, password: str | None) -> tuple[str, str]:
    """RFC 8839 5.4."""
    if username is None or not 4 <= len(username) <= 256 or not _ICE.fullmatch(username):
        raise SdpError("malformed", "a=ice-ufrag is 4 to 256 of A-Z, a-z, 0-9, + and /")
    if password is None or not 22 <= len(password) <= 256 or not _ICE.fullmatch(password):
        raise SdpError("malformed", "a=ice-pwd is 22 to 256 of A-Z, a-z, 0-9, + and /")
    return username, password


def _candidates(part: _Part) -> Sequence[str]:
    """Of the one component there is, over UDP; a=candidate:<foundation> <component> <transport> <priority> <address>
    <port> typ <type> ... (RFC 8839 5.1)."""
    found = []
    for value in part.all("candidate"):
        words = value.split()
        if len(words) < 8 or words[6] != "typ" or not all(words[i].isdecimal() for i in (1, 3, 5)):
            raise SdpError("malformed", "a=candidate is not as RFC 8839 5.1 has it")
        if int(words[5]) > 65_535 or int(words[3]) >= 1 << 32 or len(value) > 512:
            raise SdpError("malformed", "a=candidate is not as RFC 8839 5.1 has it")
        if words[1] == "1" and words[2].lower() == "udp":
            found.append(value)
    if len(found) > MAX_CANDIDATES:
        raise SdpError("too_large", f"at most {MAX_CANDIDATES} candidates")
    return found
