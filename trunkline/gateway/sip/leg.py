"""The media of one SIP call: a Leg over a `Line`, whose ring PJSIP's clock empties every 20 ms.

The ring tells how much of what was written has been taken. A mark is remembered by the position (of what is written and
not cleared) at whose taking it is reached, so marks come back in order, one tick late at most; a clear is told how much
it dropped, and the marks of that are forgotten: the playout then knows to the frame what was heard.

`send`, `played` and `frame` run for every call in every tick: no more happens there than must.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Protocol

from trunkline.errors import MisuseError
from trunkline.gateway.hands import Told
from trunkline.gateway.leg import Leg, LegCall, LegKind
from trunkline.gateway.outbound import Failure
from trunkline.gateway.sip.stack import DtmfMethod, Handle, Line
from trunkline.media.bus import Receiver
from trunkline.media.detect import DtmfDetector
from trunkline.media.playout import LeadPolicy, Message
from trunkline.ports import Refuse
from trunkline.types import MULAW_8K

SLIP_MS = 100  # more than this beyond the lead waits in the ring only when PJSIP's clock has stood still
BYTES_PER_MS = MULAW_8K.bytes_per_ms


def sip_lead(lead_ms: int = 60) -> LeadPolicy:
    """Constant: nothing between us and the ring can be late but ourselves. In single frames, as that costs nothing."""
    return LeadPolicy(start_ms=lead_ms, min_ms=lead_ms, max_ms=lead_ms, message_ms=20)


class LegDesk(Protocol):
    """What a leg asks of the desk."""

    def leave(self, leg: "SipLeg", why: str) -> None:
        """CANCEL, BYE or a refusal, as is due."""
        ...

    def send_digits(self, leg: "SipLeg", digits: str) -> None: ...

    def hold(self, leg: "SipLeg", held: bool) -> None: ...

    def refer(self, leg: "SipLeg", to: "str | SipLeg") -> str | Refuse:
        """To a number or SIP URI, or in place of another leg; the trunk's name."""
        ...


class SipLeg:
    """`line` and `dtmf` come with the negotiated media, `bus` when there is somebody to hear."""

    kind: LegKind = "sip"
    transfers = False
    networked = False

    __slots__ = (
        "__weakref__",
        "_closed",
        "_continue_from",
        "_desk",
        "_marks",
        "_shift_ms",
        "_told",
        "_written_ms",
        "bus",
        "call",
        "detector",
        "dtmf",
        "failure",
        "handle",
        "lead",
        "line",
        "puts_through",
        "writable",
    )

    def __init__(
        self, handle: Handle, desk: LegDesk, call: LegCall, lead: LeadPolicy, *, puts_through: bool = True
    ) -> None:
        self.handle, self.call, self.lead = handle, call, lead
        self.line: Line | None = None
        self.bus: Receiver | None = None
        self.puts_through = puts_through
        self.dtmf: DtmfMethod | None = None
        """How the far end takes digits; None: only by ear."""
        self.detector: DtmfDetector | None = None
        """Of a trunk whose digits are tones in the audio."""
        self.failure: Failure | None = None
        """Of a call of ours that nobody answered."""
        self.writable = True
        self._desk = desk
        self._marks: deque[tuple[int, str]] = deque()
        self._written_ms = 0
        self._closed = False
        self._told: Told | None = None
        self._shift_ms = 0
        self._continue_from: int | None = None

    # --- Leg ---

    def send(self, messages: Sequence[Message]) -> None:
        line = self.line
        if line is None or self._closed:
            return
        waiting_ms = 0
        for audio, mark, _, continues in messages:
            waiting_ms = line.write(audio, continues)
            self._written_ms += len(audio) // BYTES_PER_MS
            self._marks.append((self._written_ms, mark))
        if waiting_ms > self.lead.max_ms + SLIP_MS:
            self.writable = False

    def clear(self) -> int | None:
        if self.line is None:
            return None
        dropped_ms = self.line.clear()
        self._written_ms -= dropped_ms
        self._marks.clear()
        self.writable = True
        return dropped_ms

    @property
    def sends_dtmf(self) -> bool:
        return self.dtmf is not None

    def send_dtmf(self, digits: str) -> None:
        if self.dtmf is None:
            raise MisuseError("the far end takes digits only by ear")
        self._desk.send_digits(self, digits)

    def stats(self) -> Mapping[str, int]:
        """The line's counters."""
        if self.line is None:
            return {}
        counters = asdict(self.line.counters())
        del counters["quiet_s"]
        return counters

    def close(self, why: str = "") -> None:
        """CANCEL, BYE or a refusal, as is due. Idempotent; `finished` follows."""
        if not self._closed:
            self._closed = True
            self._desk.leave(self, why)

    def detach(self) -> None:
        self.bus = None

    # --- Movable ---

    def continue_from(self, position_ms: int) -> None:
        self._continue_from = position_ms

    # --- Hands ---

    def put_through(self, address: str, told: Told) -> str | Refuse:
        return self._refer(address, told)

    def put_through_to(self, other: Leg, told: Told) -> str | Refuse:
        if not isinstance(other, SipLeg):
            return Refuse("not_supported", "the two are not both on SIP")
        return self._refer(other, told)

    def hold(self, held: bool) -> None:
        self._desk.hold(self, held)

    def _refer(self, to: "str | SipLeg", told: Told) -> str | Refuse:
        sent = self._desk.refer(self, to)
        if not isinstance(sent, Refuse):
            self._told = told
        return sent

    def referred(self, code: int, reason: str, *, notify: bool, final: bool) -> None:
        if self._told is not None:
            self._told(code, reason, notify=notify, final=final)

    def over(self) -> None:
        """The dialog is: nothing is heard or sent any more. Idempotent."""
        self._closed = True
        self.bus = self._told = None
        self._marks.clear()
        line, self.line = self.line, None
        if line is not None:
            line.sink = None
            line.close()

    # --- LineSink ---

    def frame(self, audio: bytes, position_ms: int) -> None:
        if self.bus is not None:
            if self._continue_from is not None:
                self._shift_ms, self._continue_from = self._continue_from - position_ms, None
            try:
                self.bus.receive(audio, position_ms + self._shift_ms)
                if self.detector is not None:
                    for digit in self.detector.feed(audio):
                        self.call.key(digit)
            except Exception as error:
                self.call.crashed(error)

    def played(self, taken_ms: int) -> None:
        marks = self._marks
        if not marks:
            return
        try:
            while marks and marks[0][0] <= taken_ms:
                mark = marks.popleft()[1]
                if self.bus is not None:
                    self.bus.mark_returned(mark)
            if not self.writable and self._written_ms - taken_ms <= self.lead.max_ms:
                self.writable = True
        except Exception as error:
            self.call.crashed(error)
