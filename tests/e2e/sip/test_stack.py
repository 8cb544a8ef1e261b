"""The stack alone, in a process of its own that does one thing with every call; its far end is here, on sockets."""

import asyncio
import ctypes
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from trunkline.testing.ports import lease

pytestmark = pytest.mark.e2e

SOUND = bytes(range(0x10, 0xB0))  # a frame of mu-law that is nobody's silence
STUCK_S, LIMIT_S = 3.0, 1.0


# --- the stack's process --------------------------------------------------------------------------------------------


class Child:
    """What a mode does with a call: its method of that name, when the far end's first RTP has come."""

    def __init__(self, port: int, rtp_port: int, mode: str) -> None:
        from trunkline.clock import SYSTEM_CLOCK
        from trunkline.gateway.sip import stack, trunks
        from trunkline.gateway.sip.pjsip.stack import PjsipStack
        from trunkline.settings import Sip

        trunk = {"peers": ["127.0.0.1/32"]}
        settings = Sip.model_validate(
            {"port": port, "rtp_port_min": rtp_port, "rtp_port_max": rtp_port + 50, "trunks": {"a": trunk}}
        )
        self.events, self.mode, self.lines = stack, mode, dict[int, Any]()
        self.call_ids, self.heard = dict[int, str](), list[bytes]()
        self.stack = PjsipStack(settings, trunks.configured(settings), 4, SYSTEM_CLOCK)
        self.tasks = set[asyncio.Task[None]]()

    async def run(self) -> None:
        await self.stack.start(self.on_event, lambda: None)
        tell("ready")
        await asyncio.to_thread(sys.stdin.read)
        await self.stack.close()
        tell("closed")

    def on_event(self, event: Any) -> None:
        s = self.events
        if isinstance(event, s.Incoming):
            self.call_ids[event.handle] = event.call_id
            if self.mode == "refused":
                self.stack.refuse(event.handle, 603, "Decline")
                return
            self.stack.ring(event.handle)
            if self.mode != "ringing":
                self.stack.answer(event.handle, LIMIT_S if self.mode == "stuck" else 60)
        elif isinstance(event, s.MediaUp):
            self.lines[event.handle] = event.line
            event.line.sink = self
        elif isinstance(event, s.Confirmed) and self.mode == "hung_up":
            self.stack.hang_up(event.handle)
        elif isinstance(event, s.FirstMedia) and (perform := getattr(self, self.mode, None)) is not None:
            task = asyncio.ensure_future(perform(self.lines[event.handle]))
            self.tasks.add(task)
        elif isinstance(event, s.Disconnected):
            self.over(event)

    def over(self, event: Any) -> None:
        line = self.lines.pop(event.handle, None)
        counters = line.counters() if line is not None else None
        steps = [step.what for step in self.stack.ladder(self.call_ids[event.handle])]
        heard = {"loud": sum(frame == SOUND for frame in self.heard), "frames": len(self.heard)}
        if counters is not None:
            heard |= {"strange": counters.strange_packets, "taken": counters.taken_frames}
        if line is not None:
            line.close()
        asyncio.get_running_loop().call_later(0.3, self.free, {"code": event.code, "steps": steps, **heard})

    def free(self, said: dict[str, Any]) -> None:
        """The bridge's lines come back when PJSIP's threads have let go of them."""
        tell("over", free=self.stack.bridge.free_lines() - len(self.stack.lines), **said)

    def frame(self, audio: bytes, position_ms: int) -> None:
        self.heard.append(audio)

    def played(self, taken_ms: int) -> None: ...

    # --- modes ---

    async def stuck(self, line: Any) -> None:
        tell("stuck")
        ctypes.PyDLL(None).sleep(int(STUCK_S))  # holds the GIL
        tell("back")

    async def clear(self, line: Any) -> None:
        line.write(SOUND * 20, False)
        await asyncio.sleep(0.1)
        dropped_ms = line.clear()
        await asyncio.sleep(0.1)
        counters = line.counters()
        tell("cleared", dropped_ms=dropped_ms, taken=counters.taken_frames, cleared=counters.cleared_frames)

    async def replaced(self, line: Any) -> None:
        line.write(SOUND * 2, False)
        await asyncio.sleep(0.24)
        line.write(SOUND, True)
        after_gap = line.counters().replaced_frames
        await asyncio.sleep(0.2)
        line.write(SOUND, False)
        tell("replaced", within=after_gap, between=line.counters().replaced_frames - after_gap)


def tell(what: str, **more: Any) -> None:
    print(json.dumps({"what": what, **more}), flush=True)


# --- the tests ------------------------------------------------------------------------------------------------------


class Alone:
    """That process, as the far end's tools know a gateway."""

    def __init__(self, port: int, rtp_port: int, mode: str) -> None:
        self.sip_port = port
        command = [sys.executable, __file__, str(port), str(rtp_port), mode]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.says("ready")

    def says(self, what: str) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said: dict[str, Any] = json.loads(line)
            if said["what"] == what:
                return said
        raise AssertionError(f"it ended without {what}")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.communicate(timeout=15)
        assert self.process.returncode == 0


@pytest.fixture
def stack() -> Iterator[Callable[[str], Alone]]:
    made: list[Alone] = []

    def start(mode: str) -> Alone:
        port = lease()
        made.append(Alone(port, 20_000 + port % 400 * 100, mode))
        return made[-1]

    yield start
    for one in made:
        one.close()


def answered(wire: Any, phone: Any) -> str:
    """Through to the ACK; the tag of their side."""
    wire.send(wire.request("INVITE", body=wire.sdp(phone.port)))
    ok = wire.until(200, "INVITE")
    media = next(line for line in ok.text.splitlines() if line.startswith("m=audio"))
    phone.gateway = ("127.0.0.1", int(media.split()[1]))
    wire.send(wire.request("ACK", tag=ok.to_tag, branch="ack"))
    return str(ok.to_tag)


def leave(wire: Any, tag: str) -> None:
    wire.send(wire.request("BYE", 2, tag=tag))
    wire.until(200, "BYE")


def answer_bye(wire: Any, within_s: float = 3.0) -> None:
    bye = wire.until(0, "BYE", within_s)
    kept = [f"{name}: {bye.header(name)}" for name in ("Via", "From", "To", "Call-ID", "CSeq")]
    wire.send("\r\n".join(["SIP/2.0 200 OK", *kept, "Content-Length: 0", "", ""]))


def test_a_call_ends_at_its_limit_while_python_is_stuck(stack: Any, wires: Any, phones: Any) -> None:
    gateway, calls = stack("stuck"), []
    for _ in range(3):  # the BYE of one does not wait for what Python should hear of another
        wire, began = wires(gateway), time.monotonic()
        answered(wire, phones())
        calls.append((wire, began))
    gateway.says("stuck")
    for wire, began in calls:
        answer_bye(wire)
        assert LIMIT_S - 0.2 < time.monotonic() - began < LIMIT_S + 1
    gateway.says("back")
    gateway.says("over")


@pytest.mark.parametrize("mode", ["refused", "ringing", "kept", "hung_up"])
def test_a_line_is_given_back_however_the_call_ends(stack: Any, wires: Any, phone: Any, mode: str) -> None:
    gateway = stack(mode)
    for _ in range(3):
        wire = wires(gateway)
        if mode == "refused":
            wire.send(wire.request("INVITE", body=wire.sdp(phone.port)))
            wire.until(603, "INVITE")
        elif mode == "ringing":
            wire.send(wire.request("INVITE", body=wire.sdp(phone.port)))
            wire.until(180, "INVITE")
            wire.send(wire.request("CANCEL"))
            wire.until(487, "INVITE")
        elif mode == "kept":
            leave(wire, answered(wire, phone))
        else:
            answered(wire, phone)
            answer_bye(wire)
        assert gateway.says("over")["free"] == 0


def test_rtp_of_a_stranger_is_not_heard(stack: Any, wires: Any, phone: Any) -> None:
    gateway = stack("kept")
    wire = wires(gateway)
    tag = answered(wire, phone)
    phone.until(lambda: phone.heard() > 10)
    packet = b"\x80\x00" + b"\x00\x07" + b"\x00" * 4 + b"evil" + SOUND
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.9", 0))
        for _ in range(10):
            stranger.sendto(packet, phone.gateway)
    before = phone.heard()
    phone.until(lambda: phone.heard() > before + 10)  # and ours go on going to the phone
    leave(wire, tag)
    over = gateway.says("over")
    assert (over["strange"], over["loud"]) == (10, 0)
    assert over["frames"] > 10


def test_what_is_cleared_was_not_taken(stack: Any, wires: Any, phone: Any) -> None:
    gateway = stack("clear")
    wire = wires(gateway)
    tag = answered(wire, phone)
    said = gateway.says("cleared")
    assert said["taken"] + said["cleared"] == 20
    assert said["dropped_ms"] == 20 * said["cleared"]
    assert 2 <= said["taken"] <= 12
    phone.until(lambda: phone.loud() == said["taken"])
    leave(wire, tag)
    assert phone.loud() == said["taken"]


def test_silence_within_an_answer_is_counted_and_between_answers_is_not(stack: Any, wires: Any, phone: Any) -> None:
    gateway = stack("replaced")
    wire = wires(gateway)
    tag = answered(wire, phone)
    said = gateway.says("replaced")
    assert 6 <= said["within"] <= 20
    assert said["between"] == 0
    leave(wire, tag)


def test_the_ladder_is_the_call_message_by_message(stack: Any, wires: Any, phone: Any) -> None:
    gateway = stack("kept")
    wire = wires(gateway)
    leave(wire, answered(wire, phone))
    # BYE's 200 is sent after PJSIP has told of the end
    assert gateway.says("over")["steps"][:6] == ["INVITE", "100 Trying", "180 Ringing", "200 OK", "ACK", "BYE"]


if __name__ == "__main__":
    asyncio.run(Child(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]).run())
