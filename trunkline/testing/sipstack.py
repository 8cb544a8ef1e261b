"""A SIP stack without SIP: what it is told is noted, what happens is told by the test, and lines tick by hand."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from trunkline.gateway.sip import stack as s
from trunkline.gateway.sip.farewell import Farewell
from trunkline.gateway.sip.quality import MediaReport
from trunkline.gateway.sip.stack import Handle, Headers, LineCounters, LineSink
from trunkline.gateway.sip.trunks import Trunk
from trunkline.types import FRAME_MS, MULAW_8K

FRAME_BYTES = MULAW_8K.frame_bytes
QUIET = MULAW_8K.silence * FRAME_BYTES


class FakeLine:
    """A line whose clock is `tick`. Keeps what the far end has heard."""

    def __init__(self, codec: str = "PCMU/8000") -> None:
        self.sink: LineSink | None = None
        self.codec = codec
        self.ring: list[tuple[bytes, bool]] = []
        self.heard = bytearray()
        """What was taken, silence left out."""
        self.counted = LineCounters()
        self.position_ms = 0
        self.closed = False

    def write(self, audio: bytes, continues: bool) -> int:
        assert not self.closed
        assert len(audio) % FRAME_BYTES == 0, "not whole frames"
        for at in range(0, len(audio), FRAME_BYTES):
            self.ring.append((audio[at : at + FRAME_BYTES], continues or at > 0))
        return len(self.ring) * FRAME_MS

    def clear(self) -> int:
        dropped = len(self.ring)
        self.ring.clear()
        self.counted = replace(self.counted, cleared_frames=self.counted.cleared_frames + dropped)
        return dropped * FRAME_MS

    def counters(self) -> LineCounters:
        return self.counted

    def close(self) -> None:
        self.closed = True

    def tick(self, count: int = 1, audio: bytes | None = QUIET) -> None:
        """20 ms each: a frame is taken from the ring, then one of the far end's is given. None: it is lost."""
        for _ in range(count):
            if self.ring:
                self.heard += self.ring.pop(0)[0]
                self.counted = replace(self.counted, taken_frames=self.counted.taken_frames + 1)
                if self.sink is not None:
                    self.sink.played(self.counted.taken_frames * FRAME_MS)
            if audio is not None and self.sink is not None:
                self.sink.frame(audio, self.position_ms)
            self.position_ms += FRAME_MS

    def quiet_for(self, seconds: float) -> None:
        self.counted = replace(self.counted, quiet_s=seconds)


class ScriptedStack:
    """A `Stack`. `told`: its commands, each (name, handle or trunk, what else matters)."""

    tuned = True

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.steps: dict[str, list[s.Step]] = {}
        self.farewells: dict[Handle, Farewell] = {}
        self.answered_refers: set[int] = set()
        """0: the stack has declined it itself."""
        self.named: dict[tuple[str, str, str], Handle] = {}
        """Dialogs by Call-ID and tags."""
        self.refuses: dict[str, str] = {}
        """Trunks, by name, with why."""
        self.accepting = True
        self.closed = False
        self._handles = 0
        self._on_event: Callable[[s.Event], None] | None = None
        self.on_frames: Callable[[], None] = lambda: None
        """For the test to call after the ticks of its lines."""

    def new_handle(self) -> Handle:
        self._handles += 1
        return Handle(self._handles)

    # --- Stack ---

    async def start(self, on_event: Callable[[s.Event], None], on_frames: Callable[[], None]) -> None:
        self._on_event, self.on_frames = on_event, on_frames

    def ring(self, handle: Handle) -> None:
        self.told.append(("ring", handle))

    def answer(self, handle: Handle, limit_s: float, headers: Headers = ()) -> None:
        self.told.append(("answer", handle, limit_s))

    def refuse(self, handle: Handle, code: int, reason: str = "", headers: Headers = ()) -> None:
        self.told.append(("refuse", handle, code, dict(headers)))

    def dial(
        self, trunk: Trunk, to_uri: str, from_uri: str, limit_s: float, headers: Headers = (), call_id: str = ""
    ) -> Handle:
        handle = self.new_handle()
        self.told.append(("dial", handle, trunk.name, to_uri, from_uri, dict(headers)))
        self.steps.setdefault(call_id, [])
        return handle

    def hang_up(self, handle: Handle) -> None:
        self.told.append(("hang_up", handle))

    def send_digits(self, handle: Handle, digits: str, method: s.DtmfMethod) -> None:
        self.told.append(("digits", handle, digits, method))

    def refer(self, handle: Handle, to_uri: str, headers: Headers = ()) -> None:
        self.told.append(("refer", handle, to_uri, dict(headers)))

    def refer_to_call(self, handle: Handle, other: Handle) -> None:
        self.told.append(("refer_to_call", handle, other))

    def answer_refer(self, handle: Handle, refer: int, code: int, reason: str = "", headers: Headers = ()) -> bool:
        if refer in self.answered_refers:
            return False
        self.answered_refers.add(refer)
        self.told.append(("answer_refer", handle, refer, code, dict(headers)))
        return True

    def tell_refer(self, handle: Handle, refer: int, said: str, state: str) -> None:
        self.told.append(("tell_refer", handle, refer, said, state))

    def dialog(self, call_id: str, one_tag: str, other_tag: str) -> Handle | None:
        return self.named.get((call_id, one_tag, other_tag))

    def hold(self, handle: Handle) -> None:
        self.told.append(("hold", handle))

    def resume(self, handle: Handle) -> None:
        self.told.append(("resume", handle))

    def register(self, trunk: Trunk, wanted: bool = True) -> None:
        self.told.append(("register", trunk.name, wanted))

    async def bring(self, trunks: Sequence[Trunk]) -> Mapping[str, str]:
        self.told.append(("bring", *(trunk.name for trunk in trunks)))
        return self.refuses

    def forget(self, trunk: str) -> None:
        self.told.append(("forget", trunk))

    def ping(self, trunk: Trunk) -> None:
        self.told.append(("ping", trunk.name))

    def accept_calls(self, accept: bool, retry_after_s: int = 30) -> None:
        self.accepting = accept

    def farewell(self, handle: Handle) -> Farewell | None:
        return self.farewells.get(handle)

    def ladder(self, call_id: str) -> Sequence[s.Step]:
        return self.steps.pop(call_id, [])

    def front(self) -> s.FrontCounters:
        return s.FrontCounters()

    def clock(self) -> Mapping[str, float]:
        return {}

    async def close(self) -> None:
        self.closed = True
        await asyncio.sleep(0)

    # --- what happens ---

    def happens(self, *events: s.Event) -> None:
        assert self._on_event is not None, "the stack was not started"
        for event in events:
            self._on_event(event)

    def invite(
        self,
        trunk: str = "carrier",
        *,
        call_id: str = "one@test",
        to: str = "sip:+14155550100@192.0.2.1",
        caller: str = '"Ann" <sip:+14155550123@198.51.100.7>;tag=a',
        headers: str = "",
    ) -> Handle:
        """An INVITE. `headers`: further lines, each with its line break."""
        handle = self.new_handle()
        self.steps[call_id] = [s.Step(0, True, "INVITE", "1 INVITE", "udp 198.51.100.7:5060")]
        text = (
            f"INVITE {to} SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.7;branch=z9hG4bK1\r\nFrom: {caller}\r\nTo: <{to}>\r\n"
            f"Call-ID: {call_id}\r\nCSeq: 1 INVITE\r\n{headers}Content-Length: 0\r\n\r\n"
        )
        self.happens(s.Incoming(handle, trunk, call_id, "198.51.100.7:5060", "udp", text))
        return handle

    def media(
        self,
        handle: Handle,
        line: FakeLine,
        *,
        srtp: bool = False,
        telephone_events: bool = True,
        direction: Literal["sendrecv", "sendonly", "recvonly", "inactive"] = "sendrecv",
    ) -> None:
        self.happens(s.MediaUp(handle, line, line.codec, srtp, telephone_events, direction))

    def over(self, handle: Handle, code: int = 200, reason: str = "OK", *, by_us: bool = False, head: str = "") -> None:
        """`head`: further lines of the final answer. One that no peer has sent (0, or by us) has no message."""
        message = f"SIP/2.0 {code} {reason}\r\n{head}\r\n" if code and not by_us else ""
        report = MediaReport("PCMU/8000", in_packets=100)
        self.happens(s.MediaDown(handle, report), s.Disconnected(handle, code, reason, by_us, message))

    def commands(self, *names: str) -> list[tuple[Any, ...]]:
        return [told for told in self.told if told[0] in names]
