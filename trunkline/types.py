"""Ids and audio formats: the values every room shares. Bytes sizes derive from FRAME_MS and a Format, nowhere else."""

import re
from dataclasses import dataclass
from typing import Literal, NewType

FRAME_MS = 20

CallId = NewType("CallId", str)
LegId = NewType("LegId", str)
SessionId = NewType("SessionId", str)
TenantId = NewType("TenantId", str)
CallSid = NewType("CallSid", str)
"""Twilio's id of a call: CA and 32 hex digits."""
StreamSid = NewType("StreamSid", str)
"""Twilio's id of a media stream: MZ and 32 hex digits."""
E164 = NewType("E164", str)
"""A phone number as +<country><number>."""

DEFAULT_TENANT = TenantId("default")

_VERSION = re.compile(r"([^/@\s]{1,64})/([a-z0-9][a-z0-9_-]{0,39})@([1-9][0-9]{0,8}|draft-[0-9a-f]{16})")


@dataclass(frozen=True, slots=True)
class AgentVersion:
    """One version of an AI agent of the desk. As text, `default/reception@3`, it is the name by which its calls, their
    records and their metrics know it; an agent of the settings' files has none."""

    tenant: TenantId
    agent: str
    number: int | str
    """Of a draft that is being tried out: `draft-` and 16 hex digits."""

    def __str__(self) -> str:
        return f"{self.tenant}/{self.agent}@{self.number}"

    @property
    def family(self) -> str:
        """All its versions: `default/reception`."""
        return f"{self.tenant}/{self.agent}"

    @property
    def is_draft(self) -> bool:
        return isinstance(self.number, str)

    @staticmethod
    def read(text: str) -> "AgentVersion | None":
        """None: it is no name of a version."""
        found = _VERSION.fullmatch(text)
        if found is None:
            return None
        number = int(found[3]) if found[3].isdecimal() else found[3]
        return AgentVersion(TenantId(found[1]), found[2], number)


def ruled_as(agent: str) -> str:
    """By what name of an agent, as a call has it, rules and budgets are found: those of a version are its agent's."""
    version = AgentVersion.read(agent)
    return agent if version is None else version.family


Encoding = Literal["mulaw", "alaw", "pcm16"]
Direction = Literal["inbound", "outbound"]

_SAMPLE_BYTES: dict[str, int] = {"mulaw": 1, "alaw": 1, "pcm16": 2}


@dataclass(frozen=True, slots=True)
class Format:
    """Mono audio: how a sample is written and how many there are a second (8,000 or 16,000 on a lane)."""

    encoding: Encoding
    rate_hz: int

    @property
    def bytes_per_ms(self) -> int:
        return self.rate_hz // 1000 * _SAMPLE_BYTES[self.encoding]

    @property
    def frame_samples(self) -> int:
        return self.rate_hz * FRAME_MS // 1000

    @property
    def frame_bytes(self) -> int:
        return self.bytes_per_ms * FRAME_MS

    @property
    def silence(self) -> bytes:
        """One sample of silence: 0xff in mu-law, 0xd5 in A-law, zero in PCM."""
        return {"mulaw": b"\xff", "alaw": b"\xd5", "pcm16": b"\x00\x00"}[self.encoding]


MULAW_8K = Format("mulaw", 8000)
ALAW_8K = Format("alaw", 8000)
PCM_8K = Format("pcm16", 8000)
PCM_16K = Format("pcm16", 16000)


@dataclass(frozen=True, slots=True)
class Frame:
    """20 ms of mono audio. Exists only at edges and taps; the hot path moves rows of bytes."""

    format: Format
    data: bytes

    def __post_init__(self) -> None:
        if len(self.data) != self.format.frame_bytes:
            raise ValueError(f"a frame of {self.format} is {self.format.frame_bytes} bytes, not {len(self.data)}")
