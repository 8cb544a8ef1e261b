"""Call control of the stack alone, in a process of its own that does what it is told; its far end is here."""

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import queue
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from trunkline.testing.ports import lease

pytestmark = pytest.mark.e2e

WAIT_S = 8.0


# --- the stack's process --------------------------------------------------------------------------------------------


class Child:
    """Answers what comes; says every event; does what a line of its input says: a command and its arguments."""

    def __init__(self, port: int, rtp_port: int, trunks: dict[str, Any]) -> None:
        from trunkline.clock import SYSTEM_CLOCK
        from trunkline.gateway.sip import stack
        from trunkline.gateway.sip.pjsip.stack import PjsipStack
        from trunkline.gateway.sip.trunks import configured
        from trunkline.settings import Sip

        settings = Sip.model_validate(
            {"port": port, "rtp_port_min": rtp_port, "rtp_port_max": rtp_port + 90, "trunks": trunks}
        )
        self.events, self.lines = stack, dict[int, Any]()
        self.trunks = {trunk.name: trunk for trunk in configured(settings)}
        self.stack = PjsipStack(settings, tuple(self.trunks.values()), 16, SYSTEM_CLOCK)

    async def run(self) -> None:
        await self.stack.start(self.on_event, lambda: None)
        tell("ready")
        while line := await asyncio.to_thread(sys.stdin.readline):
            self.perform(*json.loads(line))
        await self.stack.close()
        tell("closed", free=self.free())

    def perform(self, command: str, *arguments: Any) -> None:
        if command == "dial":
            trunk = self.trunks[arguments[0]]
            tell("handle", handle=self.stack.dial(trunk, arguments[1], "sip:+15005550001@127.0.0.1", 200))
        elif command == "stand_still":
            tell("standing still")
            began = time.monotonic()
            while time.monotonic() - began < 4.5:
                sum(range(60_000_000))  # which does not let go of the lock
            tell("going on")
        elif command == "counted":
            tell("counted", **dataclasses.asdict(self.stack.front()))
        elif command == "register":
            self.stack.register(self.trunks[arguments[0]], *arguments[1:])
        else:
            getattr(self.stack, command)(*arguments)

    def on_event(self, event: Any) -> None:
        s = self.events
        plain = {
            field.name: value
            for field in dataclasses.fields(event)
            if isinstance(value := getattr(event, field.name), str | int)
        }
        tell(type(event).__name__, **plain)
        if isinstance(event, s.Incoming):
            self.stack.ring(event.handle)
            self.stack.answer(event.handle, 200)
        elif isinstance(event, s.MediaUp):
            self.lines[event.handle] = event.line
        elif isinstance(event, s.Disconnected) and (line := self.lines.pop(event.handle, None)) is not None:
            line.close()

    def free(self) -> int:
        return int(self.stack.bridge.free_lines() - len(self.stack.lines))


def tell(what: str, **more: Any) -> None:
    print(json.dumps({"what": what} | more), flush=True)


# --- and here -------------------------------------------------------------------------------------------------------


class Alone:
    """That process, as the far end's tools know a gateway."""

    def __init__(self, port: int, trunks: dict[str, Any]) -> None:
        self.sip_port = port
        command = [sys.executable, __file__, str(port), str(free_range(10_000 + port % 400 * 100)), json.dumps(trunks)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.said: list[dict[str, Any]] = []
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.says("ready", within_s=20)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def do(self, command: str, *arguments: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([command, *arguments]) + "\n")
        self.process.stdin.flush()

    def says(self, what: str, within_s: float = WAIT_S, **like: Any) -> dict[str, Any]:
        """The next of this kind; what came before is passed over, and in `said`."""
        deadline = time.monotonic() + within_s
        while True:
            try:
                self.said.append(json.loads(self._lines.get(timeout=max(0.01, deadline - time.monotonic()))))
            except queue.Empty:
                raise AssertionError((what, like, self.said)) from None
            said = self.said[-1]
            if said["what"] == what and all(said[name] == value for name, value in like.items()):
                return said

    def all(self, what: str, for_s: float = 0.5) -> list[dict[str, Any]]:
        """Of this kind, from the beginning and for so long."""
        deadline = time.monotonic() + for_s
        while (left := deadline - time.monotonic()) > 0:
            try:
                self.said.append(json.loads(self._lines.get(timeout=left)))
            except queue.Empty:
                break
        return [said for said in self.said if said["what"] == what]

    def dial(self, port: int, number: str = "+14155550123") -> int:
        self.do("dial", "far", f"sip:{number}@127.0.0.1:{port}")
        return int(self.says("handle")["handle"])

    def close(self) -> None:
        if self.process.poll() is None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            self.process.wait(15)
            self._reader.join(2)
            if self.process.stdout is not None:
                self.process.stdout.close()
        assert self.process.returncode == 0


@pytest.fixture
def stack() -> Iterator[Callable[..., Alone]]:
    """`stack(profile="strict")`: of its trunk `far`."""
    made: list[Alone] = []

    def start(port: int = 0, **trunk: Any) -> Alone:
        ours = {"peers": ["127.0.0.1/32"], "host": f"127.0.0.1:{port or 9}", "ping_s": 0}
        made.append(Alone(lease(), {"far": ours | trunk}))
        return made[-1]

    yield start
    for one in made:
        one.close()


def free_range(low: int) -> int:
    """The first hundred ports from here that seem to be nobody's."""
    while True:
        with contextlib.ExitStack() as held:
            try:
                for port in range(low, low + 100, 2):
                    sock = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                    sock.bind(("127.0.0.1", port))
            except OSError:
                low = 10_000 + (low + 100) % 40_000
                continue
            return low


def registering(port: int) -> dict[str, Any]:
    return {
        "register": True,
        "registrar": f"127.0.0.1:{port}",
        "auth_username": "700",
        "auth_password": "correct-horse",
        "register_expires_s": 60,
    }


def answer(wire: Any, request: Any, status: str, *more: str, to: Any = None, body: str = "") -> None:
    kept = [f"{name}: {request.header(name)}" for name in ("Via", "From", "Call-ID", "CSeq")]
    tag = "" if ";tag=" in request.header("To") else ";tag=far"
    lines = [f"SIP/2.0 {status}", *kept, f"To: {request.header('To')}{tag}", *more]
    lines += ["Content-Type: application/sdp"] if body else []
    lines += [f"Contact: <sip:wire@{wire.host}:{wire.port}>", f"Content-Length: {len(body)}", "", body]
    wire.sock.sendto("\r\n".join(lines).encode(), to or wire.to)


def md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


# --- registration ---------------------------------------------------------------------------------------------------


def test_a_trunk_registers_with_its_password_renews_at_half_time_and_leaves(stack: Any, sipp: Any) -> None:
    port = lease()
    registrar = sipp.answer(
        port,
        """
        < REGISTER
        > 401 bare @challenge
        < REGISTER
        > 200 bare @granted
        < REGISTER
        > 200 bare @granted
        < REGISTER
        > 200 bare
        """,
        texts={"challenge": 'WWW-Authenticate: Digest realm="pbx", nonce="n1", algorithm=MD5', "granted": "Expires: 4"},
    )
    gateway, began = stack(port, **registering(port)), time.monotonic()
    gateway.do("register", "far")
    assert gateway.says("Registered")["expires_s"] in (3, 4)
    registrar.until(lambda: len([m for m in registrar.messages() if m.received]) == 3)
    assert 1.5 < time.monotonic() - began < 5
    gateway.close()
    registrar.ok()
    first, shown, renewed, left = (m for m in registrar.messages() if m.received)
    assert first.start == f"REGISTER sip:127.0.0.1:{port} SIP/2.0"
    assert first.header("To") == "<sip:700@127.0.0.1>"
    assert first.header("Contact").startswith(f"<sip:700@127.0.0.1:{gateway.sip_port}")
    assert (first.header("Expires"), renewed.header("Expires"), left.header("Expires")) == ("60", "60", "0")
    given = dict(re.findall(r'(\w+)="?([^",]*)"?', shown.header("Authorization")))
    secret = md5("700:pbx:correct-horse")
    assert given["response"] == md5(f"{secret}:n1:{md5('REGISTER:' + given['uri'])}")
    assert len(gateway.all("Registered", 0)) == 1  # a renewal is no news


def test_a_registrar_that_says_no_is_not_asked_again_soon(stack: Any, wires: Any) -> None:
    gateway = stack()
    wire = wires(gateway)
    refused = stack(wire.port, **registering(wire.port))
    to = ("127.0.0.1", refused.sip_port)
    refused.do("register", "far")
    answer(wire, wire.until(0, "REGISTER"), "403 Forbidden", to=to)
    said = refused.says("Registered")
    assert (said["code"], said["expires_s"]) == (403, 0)
    assert 60 <= said["retry_s"] <= 120
    assert wire.drain(2.0) == []


def test_a_registrar_that_is_down_is_tried_again_and_then_knows_us(stack: Any, wires: Any) -> None:
    wire = wires(stack())
    gateway = stack(wire.port, **registering(wire.port))
    to = ("127.0.0.1", gateway.sip_port)
    gateway.do("register", "far")
    answer(wire, wire.until(0, "REGISTER"), "503 Away", to=to)
    assert 2 <= gateway.says("Registered", code=503)["retry_s"] <= 4
    answer(wire, wire.until(0, "REGISTER", 6.0), "200 OK", "Expires: 30", to=to)
    assert gateway.says("Registered", code=200)["expires_s"] in (29, 30)
    gateway.do("register", "far", False)
    left = wire.until(0, "REGISTER")
    assert left.header("Expires") == "0"
    answer(wire, left, "200 OK", to=to)
    assert gateway.says("Registered")["expires_s"] == 0


# --- hold and resume ------------------------------------------------------------------------------------------------

ANSWERED = """
< INVITE
> 180
> 200 sdp
< ACK
"""
ENDED = """
< BYE
> 200 plain
"""


def test_hold_and_resume_of_ours_are_negotiated(stack: Any, sipp: Any, phone: Any) -> None:
    port = lease()
    far = sipp.answer(
        port,
        ANSWERED
        + """
        < INVITE
        > 200 plain sdp=recvonly
        < ACK
        < INVITE
        > 200 plain sdp
        < ACK
        """
        + ENDED,
        phone,
    )
    gateway = stack(port)
    handle = gateway.dial(port)
    gateway.says("Confirmed")
    gateway.do("hold", handle)
    assert gateway.says("Renegotiated") == {"what": "Renegotiated", "handle": handle, "code": 200}
    gateway.do("resume", handle)
    assert gateway.says("Renegotiated")["code"] == 200
    gateway.do("hang_up", handle)
    gateway.says("Disconnected")
    far.ok()
    assert "a=sendonly" in far.got("INVITE", 1).text
    assert "a=sendrecv" in far.got("INVITE", 2).text
    ups = gateway.all("MediaUp", 0)
    assert [up["direction"] for up in ups] == ["sendrecv", "sendonly", "sendrecv"]


def test_glare_is_tried_again_after_a_while(stack: Any, sipp: Any, phone: Any) -> None:
    port = lease()
    script = "< INVITE\n> 491 plain\n< ACK\n< INVITE\n> 200 plain sdp=recvonly\n< ACK"
    far = sipp.answer(port, ANSWERED + script + ENDED, phone)
    gateway = stack(port)
    handle = gateway.dial(port)
    gateway.says("Confirmed")
    began = time.monotonic()
    gateway.do("hold", handle)
    assert gateway.says("Renegotiated")["code"] == 200
    assert 2.1 <= time.monotonic() - began < 5
    gateway.do("hang_up", handle)
    far.ok()


def test_glare_without_end_is_reported_and_the_call_goes_on(stack: Any, sipp: Any, phone: Any) -> None:
    gateway = stack()
    script = "> INVITE sdp\n<? 100\n<? 180\n< 200\n> ACK 2xx\n" + "< INVITE\n> 491 plain\n< ACK\n" * 4
    far = sipp.call(gateway, script + "< BYE\n> 200 plain", phone)
    handle = gateway.says("Confirmed")["handle"]
    gateway.do("hold", handle)
    assert gateway.says("Renegotiated", 12)["code"] == 491
    gateway.do("hang_up", handle)
    far.ok()


def test_re_invites_that_cross_are_both_refused_and_ours_comes_again(stack: Any, wires: Any, phone: Any) -> None:
    gateway = stack()
    wire = wires(gateway)
    wire.send(wire.request("INVITE", body=wire.sdp(phone.port)))
    tag = wire.until(200, "INVITE").to_tag
    wire.send(wire.request("ACK", tag=tag, branch="ack"))
    gateway.do("hold", gateway.says("Confirmed")["handle"])
    ours = wire.until(0, "INVITE")
    wire.send(wire.request("INVITE", 2, tag=tag, branch="theirs", body=wire.sdp(phone.port)))
    wire.until(491, "INVITE")
    wire.send(wire.request("ACK", 2, tag=tag, branch="theirs"))
    answer(wire, ours, "491 Request Pending")
    wire.until(0, "ACK")
    again = wire.until(0, "INVITE")  # within 2 s: the Call-ID is theirs
    assert again.header("CSeq") != ours.header("CSeq")
    body = wire.sdp(phone.port).replace("sendrecv", "recvonly").replace("\n", "\r\n")
    answer(wire, again, "200 OK", body=body)
    assert gateway.says("Renegotiated")["code"] == 200
    wire.send(wire.request("BYE", 9, tag=tag))
    wire.until(200, "BYE")


@pytest.mark.parametrize("status", [488, 403])
def test_a_refused_hold_is_reported_and_audio_goes_on(stack: Any, sipp: Any, phone: Any, status: int) -> None:
    port = lease()
    far = sipp.answer(port, ANSWERED + f"< INVITE\n> {status} plain\n< ACK\n" + ENDED, phone)
    gateway = stack(port)
    handle = gateway.dial(port)
    gateway.says("Confirmed")
    gateway.do("hold", handle)
    assert gateway.says("Renegotiated")["code"] == status
    heard = phone.heard()
    phone.until(lambda: phone.heard() > heard + 10)
    gateway.do("hang_up", handle)
    far.ok()


def test_a_trunk_without_re_invites_is_sent_none(stack: Any, sipp: Any, phone: Any) -> None:
    gateway = stack(profile="strict")
    texts = {"timer": "Supported: timer"}
    far = sipp.call(
        gateway, "> INVITE sdp @timer\n<? 100\n<? 180\n< 200\n> ACK 2xx\n< BYE\n> 200 plain", phone, texts=texts
    )
    handle = gateway.says("Confirmed")["handle"]
    gateway.do("hold", handle)
    assert gateway.says("Renegotiated")["code"] == 405
    gateway.do("hang_up", handle)
    far.ok()


# --- REFER ----------------------------------------------------------------------------------------------------------

SIPFRAG = {
    "event": "Event: refer",
    "active": "Subscription-State: active;expires=60",
    "over": "Subscription-State: terminated;reason=noresource",
    "type": "Content-Type: message/sipfrag",
    "trying": "SIP/2.0 100 Trying",
    "ringing": "SIP/2.0 180 Ringing",
    "ok": "SIP/2.0 200 OK",
    "busy": "SIP/2.0 486 Busy Here",
    "silent": "Refer-Sub: false",
}


def notify(state: str, body: str) -> str:
    return f"> NOTIFY @event @{state} @type body={body}\n< 200\n"


def referred(stack: Any, sipp: Any, phone: Any, port: int, script: str, count: int) -> tuple[list[Any], Any]:
    far = sipp.answer(port, ANSWERED + "< REFER\n" + script + ENDED, phone, texts=SIPFRAG)
    gateway = stack(port)
    handle = gateway.dial(port)
    gateway.says("Confirmed")
    gateway.do("refer", handle, "sip:+14155550199@127.0.0.1;user=phone", [["X-Why", "asked"]])
    for _ in range(count):
        gateway.says("Referred")
    told = [(one["code"], one["notify"], one["final"]) for one in gateway.all("Referred")]
    gateway.do("hang_up", handle)
    far.ok()
    return told, far.got("REFER")


def test_a_refer_is_followed_to_its_end(stack: Any, sipp: Any, phone: Any) -> None:
    script = "> 202 plain\n" + notify("active", "trying") + notify("active", "ringing") + notify("over", "ok")
    told, refer = referred(stack, sipp, phone, lease(), script, 4)
    assert told == [(202, False, False), (100, True, False), (180, True, False), (200, True, True)]
    assert refer.header("Refer-To") == "<sip:+14155550199@127.0.0.1;user=phone>"
    assert refer.header("X-Why") == "asked"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("> 603 plain", [(603, False, True)]),
        ("> 405 plain", [(405, False, True)]),
        ("> 202 plain", [(202, False, False)]),
        ("> 202 plain @silent", [(202, False, True)]),
        ("> 202 plain\n" + notify("over", "busy"), [(202, False, False), (486, True, True)]),
        ("> 202 plain\n> NOTIFY @event @over\n< 200", [(202, False, False), (0, True, True)]),
        ("> 202 plain\n" + notify("active", "ok") + notify("over", "busy"), [(202, False, False), (200, True, True)]),
    ],
    ids=["declined", "not allowed", "silent", "no subscription", "busy", "ended without a word", "two ends"],
)
def test_whatever_becomes_of_a_refer_is_told_once(
    stack: Any, sipp: Any, phone: Any, script: str, expected: Any
) -> None:
    told, _ = referred(stack, sipp, phone, lease(), script + "\n", len(expected))
    assert told == expected


def test_a_hold_and_a_refer_that_are_challenged_show_the_password(stack: Any, sipp: Any, phone: Any) -> None:
    port = lease()
    script = """
    < INVITE
    > 407 plain @challenge
    < ACK
    < INVITE
    > 200 plain sdp=recvonly
    < ACK
    < REFER
    > 407 plain @challenge
    < REFER
    > 202 plain
    """
    texts = {"challenge": 'Proxy-Authenticate: Digest realm="pbx", nonce="n1", algorithm=MD5'}
    far = sipp.answer(port, ANSWERED + script + ENDED, phone, texts=texts)
    gateway = stack(port, auth_username="700", auth_password="correct-horse")
    handle = gateway.dial(port)
    gateway.says("Confirmed")
    gateway.do("hold", handle)
    assert gateway.says("Renegotiated")["code"] == 200
    gateway.do("refer", handle, "sip:+14155550199@127.0.0.1")
    assert gateway.says("Referred")["code"] == 202
    gateway.do("hang_up", handle)
    far.ok()
    assert far.got("REFER", 1).header("Proxy-Authorization")


def test_a_refer_on_the_wire_within_10_ms(stack: Any, wires: Any, phone: Any) -> None:
    gateway = stack()
    wire = wires(gateway)
    wire.send(wire.request("INVITE", body=wire.sdp(phone.port)))
    tag = wire.until(200, "INVITE").to_tag
    wire.send(wire.request("ACK", tag=tag, branch="ack"))
    handle = gateway.says("Confirmed")["handle"]
    took_ms = []
    for _ in range(10):
        began = time.monotonic()
        gateway.do("refer", handle, "sip:+14155550199@127.0.0.1")
        refer = wire.until(0, "REFER")
        took_ms.append((time.monotonic() - began) * 1000)
        answer(wire, refer, "603 Decline")
        gateway.says("Referred")
    assert sorted(took_ms)[len(took_ms) // 2] < 10, took_ms  # through two pipes and a thread more than the product
    wire.send(wire.request("BYE", 300, tag=tag))
    wire.until(200, "BYE")


def test_a_refer_to_another_call_names_its_dialog(stack: Any, sipp: Any, phones: Any) -> None:
    ports = lease(), lease()
    one = sipp.answer(ports[0], ANSWERED + "< REFER\n> 202 plain\n" + ENDED, phones())
    other = sipp.answer(ports[1], ANSWERED + ENDED, phones())
    gateway = stack(ports[0])
    first = gateway.dial(ports[0])
    gateway.says("Confirmed")
    second = gateway.dial(ports[1], "+14155550199")
    gateway.says("Confirmed")
    gateway.do("refer_to_call", first, second)
    gateway.says("Referred", code=202)
    gateway.do("hang_up", second)
    gateway.do("hang_up", first)
    one.ok()
    other.ok()
    ack = other.got("ACK")
    ours = re.search(r";tag=([^;>\s]+)", ack.header("From"))
    assert ours is not None
    target, _, headers = one.got("REFER").header("Refer-To").strip("<>").partition("?")
    assert target == f"sip:+14155550199@127.0.0.1:{ports[1]}"
    replaces = headers.split("Replaces=")[1].replace("%3B", ";").replace("%3D", "=").replace("%40", "@")
    assert replaces == f"{ack.header('Call-ID')};to-tag={ack.to_tag};from-tag={ours[1]}"
    gateway.do("refer_to_call", first, second)  # dead handles are nothing


# --- REFER from the far end -----------------------------------------------------------------------------------------


def talking(gateway: Any, wire: Any, phone: Any) -> tuple[int, str]:
    """A call by hand: its handle, and our tag."""
    wire.send(wire.request("INVITE", body=wire.sdp(phone.port)))
    tag = wire.until(200, "INVITE").to_tag
    wire.send(wire.request("ACK", tag=tag, branch="ack"))
    return gateway.says("Confirmed")["handle"], tag


def leaves(wire: Any, tag: str, cseq: int) -> None:
    wire.send(wire.request("BYE", cseq, tag=tag))
    wire.until(200, "BYE")


def test_a_refer_is_asked_once_answered_as_told_and_heard_of(stack: Any, wires: Any, phone: Any) -> None:
    gateway = stack()
    wire = wires(gateway)
    handle, tag = talking(gateway, wire, phone)
    refer = wire.request("REFER", 2, tag=tag, refer_to="<sip:+12025550123@203.0.113.1>")
    for _ in range(3):  # retransmissions
        wire.send(refer)
    asked = gateway.says("ReferAsked")
    assert (asked["refer_to"], asked["silent"]) == ("<sip:+12025550123@203.0.113.1>", False)
    gateway.do("answer_refer", handle, asked["refer"], 202, "", [["X-Why", "asked"]])
    accepted = wire.until(202, "REFER")
    assert accepted.header("Contact")
    assert accepted.header("X-Why") == "asked"
    wire.send(refer)
    assert wire.until(202, "REFER").text == accepted.text
    gateway.do("tell_refer", handle, asked["refer"], "SIP/2.0 100 Trying", "active;expires=60")
    notify = wire.until(0, "NOTIFY")
    assert notify.text.endswith("\n\nSIP/2.0 100 Trying\n")
    assert notify.header("Event") == "refer"
    assert notify.header("Subscription-State") == "active;expires=60"
    assert notify.header("Contact")
    assert notify.to_tag == f"wire{wire.call_id[-6:]}"
    answer(wire, notify, "481 No Subscription")  # that ends no call
    assert gateway.says("ReferTold")["code"] == 481
    wire.send(wire.request("REFER", 3, tag=tag, refer_to="<sip:+12025550123@203.0.113.1>", refer_sub="false"))
    again = gateway.says("ReferAsked")
    assert again["silent"] is True
    gateway.do("answer_refer", handle, again["refer"], 202)
    wire.until(202, "REFER")
    gateway.do("tell_refer", handle, again["refer"], "SIP/2.0 200 OK", "terminated;reason=noresource")
    second = wire.until(0, "NOTIFY")
    assert second.header("Event") == "refer;id=3"
    assert int(second.header("CSeq").split()[0]) > int(notify.header("CSeq").split()[0])
    answer(wire, second, "200 OK")
    assert gateway.says("ReferTold")["code"] == 200
    assert len(gateway.all("ReferAsked")) == 2
    leaves(wire, tag, 4)
    gateway.says("Disconnected", code=200)


def test_a_refer_that_python_does_not_answer_is_answered_all_the_same(stack: Any, wires: Any, phone: Any) -> None:
    """The interpreter stands still meanwhile, its lock held."""
    gateway = stack()
    wire = wires(gateway)
    handle, tag = talking(gateway, wire, phone)
    gateway.do("stand_still")
    gateway.says("standing still")
    sent = time.monotonic()
    wire.send(wire.request("REFER", 2, tag=tag, refer_to="<sip:+12025550123@203.0.113.1>"))
    wire.until(500, "REFER", 6)
    assert 2.5 < time.monotonic() - sent < 4.5
    gateway.says("going on", within_s=30)
    refer = gateway.says("ReferAsked")["refer"]
    gateway.do("answer_refer", handle, refer, 202)
    assert wire.drain(0.5) == []
    gateway.do("counted")
    assert gateway.says("counted")["refers"] == 1
    leaves(wire, tag, 3)


def test_refers_beyond_what_may_be_open_are_refused_at_once(stack: Any, wires: Any, phone: Any) -> None:
    gateway = stack()
    wire = wires(gateway)
    _, tag = talking(gateway, wire, phone)
    for cseq in range(2, 302):
        wire.send(wire.request("REFER", cseq, tag=tag, refer_to="<sip:+12025550123@203.0.113.1>"))
    answers = wire.drain(2.0)
    assert len(answers) >= 290
    assert {answer.start for answer in answers} == {"SIP/2.0 503 Service Unavailable"}
    assert answers[0].header("Retry-After") == "60"
    assert len(gateway.all("ReferAsked")) == 4
    late = [one.start for one in wire.drain(2.0)]
    assert late == ["SIP/2.0 500 Server Internal Error"] * 4
    gateway.do("counted")
    assert gateway.says("counted")["refers"] == 300
    leaves(wire, tag, 400)


def test_a_refer_with_an_old_cseq_or_another_dialog_is_not_asked(stack: Any, wires: Any, phone: Any) -> None:
    gateway = stack()
    wire = wires(gateway)
    _, tag = talking(gateway, wire, phone)
    more = {"refer_to": "<sip:+12025550123@203.0.113.1>"}
    wire.send(wire.request("REFER", 1, tag=tag, branch="old", **more))
    wire.until(500, "REFER")
    wire.send(wire.request("REFER", 5, tag="another", **more))
    wire.until(481, "REFER")
    wire.send(wire.request("REFER", 6, call_id="out-of-dialog", **more))
    wire.until(405, "REFER")
    wire.send(wire.request("REFER", 7, tag=tag, refer_to="<sip:+1@a>\r\nRefer-To: <sip:+2@b>"))
    assert gateway.says("ReferAsked")["refer_to"] == ""  # two of them
    assert len(gateway.all("ReferAsked")) == 1
    leaves(wire, tag, 8)


def test_a_notify_that_is_challenged_shows_the_password_once(stack: Any, wires: Any, phone: Any) -> None:
    gateway = stack(auth_username="700", auth_password="correct-horse")
    wire = wires(gateway)
    handle, tag = talking(gateway, wire, phone)
    wire.send(wire.request("REFER", 2, tag=tag, refer_to="<sip:+12025550123@203.0.113.1>"))
    refer = gateway.says("ReferAsked")["refer"]
    gateway.do("answer_refer", handle, refer, 202)
    gateway.do("tell_refer", handle, refer, "SIP/2.0 100 Trying", "active;expires=60")
    challenge = 'WWW-Authenticate: Digest realm="pbx", nonce="n1", algorithm=MD5'
    first = wire.until(0, "NOTIFY")
    answer(wire, first, "401 Unauthorized", challenge)
    second = wire.until(0, "NOTIFY")
    assert 'username="700"' in second.header("Authorization")
    assert second.text.endswith("SIP/2.0 100 Trying\n")
    assert int(second.header("CSeq").split()[0]) == int(first.header("CSeq").split()[0]) + 1
    answer(wire, second, "401 Unauthorized", challenge)  # it was the wrong one
    assert gateway.says("ReferTold")["code"] == 401
    leaves(wire, tag, 3)


def test_a_refer_that_requires_what_we_do_not_know_is_refused(stack: Any, wires: Any, phone: Any) -> None:
    gateway = stack()
    wire = wires(gateway)
    _, tag = talking(gateway, wire, phone)
    more = {"refer_to": "<sip:+12025550123@203.0.113.1>"}
    wire.send(wire.request("REFER", 2, tag=tag, require="replaces, multiple-refer, tdialog", **more))
    assert wire.until(420, "REFER").header("Unsupported") == "multiple-refer, tdialog"
    wire.send(wire.request("REFER", 3, tag=tag, require="norefersub, replaces", **more))
    gateway.says("ReferAsked")
    leaves(wire, tag, 4)


# --- PRACK and session timers ---------------------------------------------------------------------------------------


def test_a_reliable_183_is_acknowledged(stack: Any, sipp: Any, phone: Any) -> None:
    port = lease()
    far = sipp.answer(
        port,
        "< INVITE\n> 183 sdp @reliable @rseq\n< PRACK\n> 200 plain\n> 200 invite sdp\n< ACK\n" + ENDED,
        phone,
        texts={"reliable": "Require: 100rel", "rseq": "RSeq: 7"},
    )
    gateway = stack(port)
    handle = gateway.dial(port)
    gateway.says("Confirmed")
    gateway.do("hang_up", handle)
    far.ok()
    assert "100rel" in far.got("INVITE").header("Supported")
    assert far.got("PRACK").header("RAck").startswith("7 ")


def test_our_ringing_is_reliable_where_the_caller_requires_it(stack: Any, wires: Any, phone: Any) -> None:
    gateway = stack()
    wire = wires(gateway)
    wire.send(wire.request("INVITE", body=wire.sdp(phone.port), require="100rel"))
    ringing = wire.until(180, "INVITE")
    assert ringing.header("Require") == "100rel"
    prack = wire.request("PRACK", 2, tag=ringing.to_tag, rack=f"{ringing.header('RSeq')} 1 INVITE")
    wire.send(prack)
    wire.until(200, "INVITE")
    wire.send(wire.request("ACK", tag=ringing.to_tag, branch="ack"))
    gateway.says("Confirmed")
    wire.send(wire.request("BYE", 3, tag=ringing.to_tag))
    wire.until(200, "BYE")


@pytest.mark.parametrize(("profile", "supported", "required"), [("generic", True, False), ("strict", True, True)])
def test_session_timers_are_offered_as_the_profile_says(
    stack: Any, sipp: Any, phone: Any, profile: str, supported: bool, required: bool
) -> None:
    port = lease()
    far = sipp.answer(port, "< INVITE\n> 486\n< ACK", phone)
    gateway = stack(port, profile=profile)
    gateway.dial(port)
    gateway.says("Disconnected", code=486)
    far.ok()
    invite = far.got("INVITE")
    assert ("timer" in invite.header("Supported")) is supported
    assert ("timer" in invite.header("Require")) is required
    assert (invite.header("Session-Expires"), invite.header("Min-SE")) == ("1800", "90")


def test_a_session_is_refreshed_by_us_and_ends_when_the_far_end_does_not(stack: Any, wires: Any, phones: Any) -> None:
    """RFC 4028 has 90 s for the least: we refresh after 45, and give up a third before the end."""
    gateway, began = stack(), time.monotonic()
    ours, theirs = wires(gateway), wires(gateway)
    tags = []
    for wire, refresher in ((ours, "uas"), (theirs, "uac")):
        expires = f"90;refresher={refresher}"
        wire.send(wire.request("INVITE", body=wire.sdp(phones().port), supported="timer", session_expires=expires))
        ok = wire.until(200, "INVITE")
        assert ok.header("Session-Expires") == expires
        wire.send(wire.request("ACK", tag=ok.to_tag, branch="ack"))
        tags.append(ok.to_tag)
    gateway.says("Confirmed")
    refresh = ours.until(0, "INVITE", 50)
    assert 44 < time.monotonic() - began < 50
    assert refresh.header("Session-Expires").startswith("90")
    answer(ours, refresh, "488 Not Now")
    bye = theirs.until(0, "BYE", 25)
    assert 58 < time.monotonic() - began < 70
    answer(theirs, bye, "200 OK")
    over = gateway.says("Disconnected")
    assert (over["by_us"], over["code"]) == (False, 408)
    ours.send(ours.request("BYE", 5, tag=tags[0]))


if __name__ == "__main__":
    asyncio.run(Child(int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])).run())
