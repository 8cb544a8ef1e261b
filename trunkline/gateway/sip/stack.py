"""What crosses between the SIP stack's threads and the event loop: events up, commands down, audio at every tick.

Values and protocols only: `pjsip/` performs them with PJSIP, `trunkline.testing` with a script. A `Handle` names one
INVITE dialog of ours and is never used again. For an inbound call the events are

    Incoming ─► (ring, answer) ─► MediaUp ─► Confirmed ─► ... Keyed ... ─► MediaDown ─► Disconnected

and `refuse` leads straight to Disconnected; for an outbound one `dial` ─► Dialled ─► Progress* ─► the same. MediaUp may
come again (a re-INVITE), before Confirmed (early media), or never. Disconnected comes exactly once and is the last of
its handle.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NewType, Protocol

from trunkline.gateway.sip.farewell import Farewell, Transport
from trunkline.gateway.sip.quality import MediaReport
from trunkline.gateway.sip.trunks import Trunk

Handle = NewType("Handle", int)
Headers = Sequence[tuple[str, str]]
DtmfMethod = Literal["rfc4733", "info"]

REFER_WAIT_S = 3.0


# --- audio ----------------------------------------------------------------------------------------------------------


class LineSink(Protocol):
    """Who hears a line. Called on the loop, in the tick; must only take note."""

    def frame(self, audio: bytes, position_ms: int) -> None:
        """20 ms of the far end as mu-law at 8 kHz. `position_ms` is the line's media clock at its start: it runs with
        time, so what was lost is a gap."""
        ...

    def played(self, taken_ms: int) -> None:
        """So much of what was written has been taken for the wire, in all, since the line was opened."""
        ...


class Line(Protocol):
    """The audio of one SIP call. Frames lie in ring buffers that PJSIP's clock empties: nothing here waits for it."""

    sink: LineSink | None

    @property
    def codec(self) -> str:
        """As negotiated last, such as PCMU/8000."""
        ...

    def write(self, audio: bytes, continues: bool) -> int:
        """Whole frames for the far end; returns how many ms now wait in the ring. `continues`: they belong to what was
        written before, so silence in between was ours and is counted (`replaced_frames`)."""
        ...

    def clear(self) -> int:
        """Drop what waits: how many ms were dropped."""
        ...

    def counters(self) -> "LineCounters": ...

    def close(self) -> None:
        """Idempotent. The sink hears nothing more."""
        ...


@dataclass(frozen=True, slots=True)
class LineCounters:
    taken_frames: int = 0
    replaced_frames: int = 0
    """Silence in the middle of an answer, because we wrote too late."""
    cleared_frames: int = 0
    overrun_frames: int = 0
    """Caller frames dropped because the loop did not come to read."""
    missing_frames: int = 0
    """Ticks without audio from the network that were not silence: lost."""
    strange_packets: int = 0
    """RTP from an address that is not this call's."""
    quiet_s: float = 0.0
    """Since anything (RTP or RTCP) came from the far end."""


# --- events ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Incoming:
    """An INVITE that passed the front: from a peer of this trunk, authenticated where the trunk asks for it."""

    handle: Handle
    trunk: str
    call_id: str
    """The Call-ID header."""
    source: str
    """ADDRESS:PORT it came from."""
    transport: Transport
    message: str
    """The INVITE as received."""


@dataclass(frozen=True, slots=True)
class Dialled:
    """The INVITE of a call of ours was sent."""

    handle: Handle
    call_id: str
    """Its Call-ID header."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A provisional answer (101-199) to a call of ours."""

    handle: Handle
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Answered and acknowledged: the conversation begins."""

    handle: Handle


@dataclass(frozen=True, slots=True)
class MediaUp:
    """Audio is negotiated; `line` is the same object for the whole call."""

    handle: Handle
    line: Line
    codec: str
    srtp: bool
    telephone_events: bool
    """The far end takes RFC 4733 digits."""
    direction: Literal["sendrecv", "sendonly", "recvonly", "inactive"] = "sendrecv"
    """As we see it: `sendonly` and `inactive` are a hold without music, nothing is to come."""


@dataclass(frozen=True, slots=True)
class FirstMedia:
    """The first RTP packet of the far end has come. Once, after MediaUp."""

    handle: Handle


@dataclass(frozen=True, slots=True)
class Keyed:
    handle: Handle
    digit: str
    method: DtmfMethod


@dataclass(frozen=True, slots=True)
class MediaDown:
    """A stream ended; what became of its packets."""

    handle: Handle
    report: MediaReport


@dataclass(frozen=True, slots=True)
class LimitReached:
    """The line carried as many frames as it may: it is silent and a BYE is on its way, whatever Python does."""

    handle: Handle


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The dialog is over. `code` is the final SIP status (200 for a BYE), 0 when there never was one."""

    handle: Handle
    code: int
    reason: str
    by_us: bool
    message: str = ""
    """The final response as received, for its headers (Reason, Retry-After)."""


@dataclass(frozen=True, slots=True)
class Referred:
    """What became of a REFER of ours: the answer to it (202, or why not), then NOTIFYs with the target's progress."""

    handle: Handle
    code: int
    """Of the answer, or of the NOTIFY's message/sipfrag; 0: none came, or the subscription ended without one."""
    reason: str
    notify: bool
    final: bool
    """Nothing more follows."""


@dataclass(frozen=True, slots=True)
class ReferAsked:
    """The far end asks us to call somebody (REFER). To be answered (`answer_refer`) within REFER_WAIT_S; then the stack
    refuses it by itself."""

    handle: Handle
    refer: int
    """Its name; 0: the stack has declined it already (603)."""
    refer_to: str
    """The header's value; empty unless there was exactly one."""
    silent: bool = False
    """Refer-Sub: false (RFC 4488): they do not want to hear how it goes."""


@dataclass(frozen=True, slots=True)
class ReferTold:
    """A NOTIFY (`tell_refer`) was answered."""

    handle: Handle
    refer: int
    code: int
    """0: by nobody."""


@dataclass(frozen=True, slots=True)
class Renegotiated:
    """How a hold or resume of ours ended: 200, or the status that refused it. Glare (491) was tried again before."""

    handle: Handle
    code: int


@dataclass(frozen=True, slots=True)
class Registered:
    """A trunk's registration changed: 200 with `expires_s`, or why not (0: no answer)."""

    trunk: str
    code: int
    reason: str
    expires_s: int
    """0: we are not registered."""
    retry_s: int = 0
    """The next try, where there is one."""


@dataclass(frozen=True, slots=True)
class Pinged:
    """How an OPTIONS of ours was answered. `code` 0: not at all."""

    trunk: str
    code: int
    reason: str = ""
    """In words, also of a 5xx of the stack's own."""


Event = (
    Incoming
    | Dialled
    | Progress
    | Confirmed
    | MediaUp
    | FirstMedia
    | Keyed
    | MediaDown
    | LimitReached
    | Disconnected
    | Referred
    | ReferAsked
    | ReferTold
    | Renegotiated
    | Registered
    | Pinged
)


@dataclass(frozen=True, slots=True)
class Step:
    """One message of a call's SIP ladder."""

    at_ms: int
    """Since the first one."""
    inbound: bool
    what: str
    """`INVITE`, or `200 OK`."""
    cseq: str
    peer: str
    """udp 192.0.2.1:5060"""
    repeated: int = 0
    """Further times the same was seen: retransmissions."""


@dataclass(frozen=True, slots=True)
class FrontCounters:
    """What the front turned away, by cause, since start."""

    strangers: int = 0
    over_rate: int = 0
    bad_digest: int = 0
    full: int = 0
    """INVITEs answered 503 while calls were not accepted."""
    malformed: int = 0
    refers: int = 0
    """REFERs beyond what may be open at once, or that nobody answered in time."""


# --- commands -------------------------------------------------------------------------------------------------------


class Stack(Protocol):
    """All commands return at once; what they lead to comes as events. Unknown or dead handles are ignored."""

    @property
    def tuned(self) -> bool:
        """Our own build; else the published wheel: 4 calls, no front, no frame limits."""
        ...

    async def start(self, on_event: Callable[[Event], None], on_frames: Callable[[], None]) -> None:
        """Listen. Events come on the running loop; there too, once a tick, `on_frames`: the lines' sinks have what the
        tick brought. Raises ConfigError naming the key (a port taken, a certificate)."""
        ...

    def ring(self, handle: Handle) -> None: ...

    def answer(self, handle: Handle, limit_s: float, headers: Headers = ()) -> None:
        """200. The line ends the call by itself after `limit_s` of media."""
        ...

    def refuse(self, handle: Handle, code: int, reason: str = "", headers: Headers = ()) -> None: ...

    def dial(
        self, trunk: Trunk, to_uri: str, from_uri: str, limit_s: float, headers: Headers = (), call_id: str = ""
    ) -> Handle:
        """`call_id`: the Call-ID header to use, so that the record has it from the first moment."""
        ...

    def hang_up(self, handle: Handle) -> None:
        """CANCEL or BYE, as is due."""
        ...

    def send_digits(self, handle: Handle, digits: str, method: DtmfMethod) -> None: ...

    def refer(self, handle: Handle, to_uri: str, headers: Headers = ()) -> None:
        """REFER (RFC 3515): the far end is to call `to_uri` instead of us. Referred follows."""
        ...

    def refer_to_call(self, handle: Handle, other: Handle) -> None:
        """REFER with Replaces (RFC 3891): the two far ends are to talk to each other. Referred follows."""
        ...

    def answer_refer(self, handle: Handle, refer: int, code: int, reason: str = "", headers: Headers = ()) -> bool:
        """False: it is answered already, or gone, and must not be followed."""
        ...

    def tell_refer(self, handle: Handle, refer: int, said: str, state: str) -> None:
        """A NOTIFY with the line `said` and this Subscription-State. ReferTold follows. What is answered to it does not
        touch the call."""
        ...

    def dialog(self, call_id: str, one_tag: str, other_tag: str) -> Handle | None:
        """Ours with these tags, whichever end's they are."""
        ...

    def hold(self, handle: Handle) -> None:
        """A re-INVITE with sendonly. Renegotiated follows."""
        ...

    def resume(self, handle: Handle) -> None: ...

    def register(self, trunk: Trunk, wanted: bool = True) -> None:
        """Registered follows, now and at every change; refreshed and tried again by the stack."""
        ...

    async def bring(self, trunks: Sequence[Trunk]) -> Mapping[str, str]:
        """These trunks in place of those that there were; calls on them go on. By name, why one is not taken."""
        ...

    def forget(self, trunk: str) -> None:
        """It is registered and asked no more."""
        ...

    def ping(self, trunk: Trunk) -> None:
        """OPTIONS; Pinged follows."""
        ...

    def accept_calls(self, accept: bool, retry_after_s: int = 30) -> None:
        """False: the front answers every new INVITE with 503 by itself."""
        ...

    def farewell(self, handle: Handle) -> Farewell | None:
        """What another process needs to say BYE in its dialog. None: it is not set up, or over."""
        ...

    def ladder(self, call_id: str) -> Sequence[Step]:
        """And forget it. Empty where nothing was traced."""
        ...

    def front(self) -> FrontCounters: ...

    def clock(self) -> Mapping[str, float]:
        """The media clock's health: `late_ms_p99`, `late_ms_max`, `resyncs` since the last call."""
        ...

    async def close(self) -> None:
        """Hang up what is left and stop every thread. Idempotent."""
        ...
