"""Session descriptions (RFC 4566, RFC 3264) of one audio stream in G.711, with telephone events (RFC 4733)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trunkline.errors import PeerError
from trunkline.media.g711 import Law

Direction = Literal["sendrecv", "sendonly", "recvonly", "inactive"]

PAYLOAD_TYPES: dict[Law, int] = {"mulaw": 0, "alaw": 8}  # RFC 3551 table 4
NAMES: dict[Law, str] = {"mulaw": "PCMU", "alaw": "PCMA"}
EVENT_PAYLOAD_TYPE = 101  # in our offers: the one that everybody uses
COMFORT_NOISE = 13

_TURNED: dict[Direction, Direction] = {  # RFC 3264 6.1: what answers what
    "sendrecv": "sendrecv",
    "sendonly": "recvonly",
    "recvonly": "sendonly",
    "inactive": "inactive",
}


@dataclass(frozen=True, slots=True)
class Session:
    """The far end's audio as it described it: where it wants it and how."""

    host: str
    port: int
    """0: the stream is refused."""
    law: Law
    payload_type: int
    event_payload_type: int | None = None
    direction: Direction = "sendrecv"

    @property
    def codec(self) -> str:
        return f"{NAMES[self.law]}/8000"

    @property
    def wants_ours(self) -> bool:
        return self.port > 0 and self.direction in ("sendrecv", "recvonly") and self.host not in ("0.0.0.0", "::")


def parse(body: bytes, laws: Sequence[Law]) -> Session:
    """The first audio stream. Of the codecs listed, the first that is in `laws`. Raises PeerError."""
    try:
        lines = [(line[0], line[2:].strip()) for line in body.decode().splitlines() if line[1:2] == "="]
    except UnicodeDecodeError:
        raise PeerError("SDP that is not UTF-8") from None
    start = next((i for i, (kind, value) in enumerate(lines) if kind == "m" and value.startswith("audio ")), None)
    if start is None:
        raise PeerError("SDP without audio")
    end = next((i for i in range(start + 1, len(lines)) if lines[i][0] == "m"), len(lines))
    first = next((i for i, (kind, _) in enumerate(lines) if kind == "m"), start)
    session, media = lines[:first], lines[start + 1 : end]
    fields = lines[start][1].split()
    try:
        port, profile, listed = int(fields[1].split("/")[0]), fields[2], [int(f) for f in fields[3:]]
    except (IndexError, ValueError):
        raise PeerError(f"SDP: m={lines[start][1][:60]}") from None
    if profile not in ("RTP/AVP", "RTP/AVPF"):
        raise PeerError(f"SDP asks for {profile}, which this caller does not speak")
    maps = _rtpmaps(media)
    law, payload_type = _codec(listed, maps, laws)
    event = next((pt for pt in listed if maps.get(pt) == "TELEPHONE-EVENT/8000"), None)
    return Session(_host(media, session), port, law, payload_type, event, _direction(media, session))


def _rtpmaps(media: Sequence[tuple[str, str]]) -> dict[int, str]:
    maps = {pt: f"{NAMES[law]}/8000" for law, pt in PAYLOAD_TYPES.items()}
    for kind, value in media:
        if kind == "a" and value.startswith("rtpmap:"):
            number, _, name = value[7:].partition(" ")
            if number.isdigit():
                maps[int(number)] = name.strip().upper().removesuffix("/1")
    return maps


def _codec(listed: Sequence[int], maps: dict[int, str], laws: Sequence[Law]) -> tuple[Law, int]:
    known = {f"{NAMES[law]}/8000": law for law in laws}
    for payload_type in listed:
        law = known.get(maps.get(payload_type, ""))
        if law is not None:
            return law, payload_type
    raise PeerError(f"SDP offers no codec of ours: {[maps.get(pt, str(pt)) for pt in listed][:8]}")


def _host(media: Sequence[tuple[str, str]], session: Sequence[tuple[str, str]]) -> str:
    line = next((value for kind, value in [*media, *session] if kind == "c"), "")
    fields = line.split()
    if len(fields) != 3:
        raise PeerError("SDP without a connection address")
    return fields[2].split("/")[0]


def _direction(media: Sequence[tuple[str, str]], session: Sequence[tuple[str, str]]) -> Direction:
    for kind, value in [*media, *session]:
        for name in _TURNED:
            if kind == "a" and value == name:
                return name
    return "sendrecv"


@dataclass(frozen=True, slots=True)
class LocalMedia:
    """Our side of the stream: what we offer and answer."""

    host: str
    port: int
    laws: tuple[Law, ...] = ("mulaw", "alaw")
    """By preference."""
    events: bool = True
    session_id: int = 1

    def offer(self, version: int = 1) -> bytes:
        event = EVENT_PAYLOAD_TYPE if self.events else None
        return self._sdp([(law, PAYLOAD_TYPES[law]) for law in self.laws], event, "sendrecv", version)

    def answer(self, offered: Session, version: int = 1) -> bytes:
        codecs = [(offered.law, offered.payload_type)]
        event = offered.event_payload_type if self.events else None
        port = 0 if offered.port == 0 else None
        return self._sdp(codecs, event, _TURNED[offered.direction], version, port)

    def _sdp(
        self,
        codecs: Sequence[tuple[Law, int]],
        event: int | None,
        direction: Direction,
        version: int,
        port: int | None = None,
    ) -> bytes:
        family = "IP6" if ":" in self.host else "IP4"
        types = [str(pt) for _, pt in codecs] + ([str(event)] if event is not None else [])
        lines = [
            "v=0",
            f"o=caller {self.session_id} {version} IN {family} {self.host}",
            "s=-",
            f"c=IN {family} {self.host}",
            "t=0 0",
            f"m=audio {self.port if port is None else port} RTP/AVP {' '.join(types)}",
            *(f"a=rtpmap:{pt} {NAMES[law]}/8000" for law, pt in codecs),
        ]
        if event is not None:
            lines += [f"a=rtpmap:{event} telephone-event/8000", f"a=fmtp:{event} 0-15"]
        lines += ["a=ptime:20", f"a={direction}"]
        return ("\r\n".join(lines) + "\r\n").encode()
