"""SIP peers for real gateways: sipp does the signalling, by a script of a few lines; a small RTP peer has the audio.

    > INVITE sdp                 send a request, or an answer (`> 200 sdp`) when the far end called
    < 180                        receive; `<? 100` where it may not come
    . 500                        wait so many ms

Words after a message:
    sdp                          or such as `sdp=sendonly`, `sdp=pcma,4444`
    @name                        a line of `texts` among its headers; `body=name`: its body
    2xx                          on `> ACK`: of an answer, so a request of its own
    early                        a request that belongs to no dialog yet
    once                         without retransmissions
    auth                         on `< 401`: `[authentication]` of sipp answers it
    plain, bare                  an answer whose tag is there already; one without our Contact
    invite                       an answer to the INVITE after another request came
"""

import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import httpx
import pytest

from trunkline.testing.caller.sip import rtp
from trunkline.testing.ports import lease

SIPP = shutil.which("sipp")
PORTS_A_GATEWAY, PORTS_A_WORKER, FIRST_PORT = 100, 1200, 10_000
RUN_S = 18
FRAME_S = 0.02
SILENCE = b"\xff" * 160


def _untuned() -> str:
    """Why not, or nothing."""
    if SIPP is None:
        return "sipp is not installed (apt install sip-tester)"
    try:
        import pjsua2
    except ImportError:
        return "pjsua2 is not installed (make pjsip)"
    return "" if hasattr(pjsua2, "Bridge") else "the published pjsua2 has no front door: make pjsip builds ours"


@pytest.fixture(autouse=True, scope="session")
def _needs() -> None:
    if why := _untuned():
        pytest.skip(why)


# --- the gateway ----------------------------------------------------------------------------------------------------

_slices = iter(range(10_000))


def _sip_settings(given: dict[str, str]) -> dict[str, str]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 15
    low = FIRST_PORT + worker * PORTS_A_WORKER + next(_slices) * PORTS_A_GATEWAY % PORTS_A_WORKER
    ours = {
        "sip__port": str(lease()),
        "sip__enabled": "true",
        "sip__rtp_port_min": str(low),
        "sip__rtp_port_max": str(low + PORTS_A_GATEWAY - 1),
    }
    return ours | given


@dataclass
class SipGateway:
    """A `trunkline serve` on SIP, and what it says of its calls."""

    gateway: Any
    sip_port: int

    def __getattr__(self, name: str) -> Any:
        return getattr(self.gateway, name)

    def get(self, path: str) -> Any:
        return httpx.get(self.gateway.origin + path, timeout=5.0).json()

    def calls(self) -> list[dict[str, Any]]:
        """Newest first."""
        return list(self.get("/v1/calls?limit=100")["calls"])

    def dial(self, to: str = "+14155550123", **order: Any) -> httpx.Response:
        return httpx.post(f"{self.gateway.origin}/v1/calls", json={"to": to} | order, timeout=5.0)

    def ended(self, find: Callable[[dict[str, Any]], bool] | str | None = None, within_s: float = 10.0) -> "Record":
        """The record of the newest call (that `find`, or this id or Call-ID, means) once it is over. Its ladder comes
        last, when a call that rings is left after its end."""
        deadline, ladder_by = time.monotonic() + within_s, 0.0
        while True:
            known = isinstance(find, str) and find.startswith("call_")
            found = [self.get(f"/v1/calls/{find}")] if known else [c for c in self.calls() if _means(find, c)]
            if found and not found[0]["live"] and found[0]["end_reason"]:
                record = Record(self.get(f"/v1/calls/{found[0]['id']}"))
                ladder_by = ladder_by or time.monotonic() + 1.5
                if "sip_ladder" in record.kinds() or time.monotonic() > ladder_by:
                    return record
            assert time.monotonic() < deadline, (found, self.gateway.log)
            time.sleep(0.05)

    def live(self, count: int, within_s: float = 10.0) -> None:
        """Wait until so many calls live."""
        self.gateway.until(lambda: self.metric("trunkline_calls_live") == count, within_s)

    def metric(self, name: str) -> float:
        """The sum over its labels."""
        text = httpx.get(self.gateway.origin + "/metrics", timeout=5.0).text
        return sum(float(m[1]) for m in re.finditer(rf"^{re.escape(name)}(?:{{[^}}]*}})? ([0-9.e+-]+)$", text, re.M))

    def rss_mb(self) -> float:
        status = Path(f"/proc/{self.gateway.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024

    def is_well(self) -> None:
        """Still the same process, ready, and with nothing to complain of."""
        assert self.gateway.process.poll() is None
        assert self.gateway.complaints() == []
        assert httpx.get(f"{self.gateway.origin}/readyz", timeout=5.0).status_code == 200


def _means(find: Callable[[dict[str, Any]], bool] | str | None, call: dict[str, Any]) -> bool:
    if isinstance(find, str):
        return find in (call["id"], call["provider_call_id"])
    return find is None or find(call)


class Record(dict[str, Any]):
    """A call's record. `r.event("arrived")`: the data of the last event of a kind."""

    def kinds(self) -> list[str]:
        return [event["kind"] for event in self["events"]]

    def event(self, kind: str) -> dict[str, Any]:
        found = [event["data"] for event in self["events"] if event["kind"] == kind]
        assert found, self.kinds()
        return dict(found[-1])

    def ladder(self) -> list[str]:
        """`in INVITE`, `out 100 Trying`."""
        steps = self.event("sip_ladder")["steps"]
        return [f"{'in' if step['inbound'] else 'out'} {step['what']}" for step in steps]

    def end(self) -> tuple[str, str]:
        return self["end_reason"], self["end_detail"]


StartSip = Callable[..., SipGateway]


@pytest.fixture
def sip_gateway(start_gateway: Any) -> StartSip:
    """`sip_gateway(sip__trunks__pbx__peers="127.0.0.1/32")`: another process each time."""
    return lambda **settings: _start(start_gateway, settings)


@pytest.fixture(scope="module")
def shared_sip_gateway(start_shared_gateway: Any) -> StartSip:
    return lambda **settings: _start(start_shared_gateway, settings)


def _start(start: Any, settings: dict[str, Any]) -> SipGateway:
    agent = {name: settings.pop(name) for name in ("agent", "ready") if name in settings}
    ours = _sip_settings(settings)
    return SipGateway(start(**agent, **ours), int(ours["sip__port"]))


# --- the audio ------------------------------------------------------------------------------------------------------


class Phone:
    """An RTP peer of one call: 20 ms of PCMU silence (or `sound`) at a steady pace to whoever sends here."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((host, 0))
        self.sock.settimeout(0.002)
        self.port = int(self.sock.getsockname()[1])
        self.gateway: tuple[str, int] | None = None
        """Where our packets go: learnt from what comes, unless it is set."""
        self.sound, self.payload_type, self.sending = SILENCE, 0, True
        self.keys_type = 101
        """Payload type of keys: as the other side's SDP has it (RFC 3264 5.1)."""
        self.packets: list[tuple[float, rtp.Packet]] = []
        self._keys: list[str] = []
        self._said = b""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def key(self, digits: str) -> None:
        """By RFC 4733."""
        self._keys += digits

    def say(self, audio: bytes) -> None:
        """Once, before `sound` goes on: whole frames of mu-law."""
        self._said += audio

    def heard(self) -> int:
        """Packets so far."""
        return len(self.packets)

    def loud(self) -> int:
        """Those with sound in them."""
        return sum(packet.payload.strip(rtp.QUIET) != b"" for _, packet in tuple(self.packets))

    def until(self, happened: Callable[[], bool], within_s: float = 8.0) -> None:
        deadline = time.monotonic() + within_s
        while not happened():
            assert time.monotonic() < deadline, f"{self.heard()} packets, {self.loud()} loud"
            time.sleep(0.02)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(2)
        self.sock.close()

    def _run(self) -> None:
        sender, due = rtp.Sender(0x1234, 1, 0), time.monotonic()
        while not self._stop.is_set():
            self._receive()
            if time.monotonic() < due:
                continue
            due += FRAME_S
            if self.gateway is not None and self.sending:
                self._send(sender)
            sender.tick()

    def _receive(self) -> None:
        try:
            data, source = self.sock.recvfrom(2048)
        except OSError:  # nothing within 2 ms, or an ICMP error of a call that is over
            return
        packet = rtp.parse(data)
        if packet is not None:
            self.packets.append((time.monotonic(), packet))
            self.gateway = self.gateway or source

    def _send(self, sender: rtp.Sender) -> None:
        if self._keys and not sender.keying:
            sender.key(self._keys.pop(0))
        if sender.keying:
            packet = sender.event(self.keys_type)
        else:
            said, self._said = self._said[: len(SILENCE)], self._said[len(SILENCE) :]
            packet = sender.audio(said or self.sound, self.payload_type)
        try:
            self.sock.sendto(packet, self.gateway)  # type: ignore[arg-type]
        except OSError:
            return


@pytest.fixture
def phone() -> Iterator[Phone]:
    one = Phone()
    yield one
    one.close()


@pytest.fixture
def phones() -> Iterator[Callable[[], Phone]]:
    made: list[Phone] = []

    def make() -> Phone:
        made.append(Phone())
        return made[-1]

    yield make
    for one in made:
        one.close()


# --- messages -------------------------------------------------------------------------------------------------------

_CODECS = {
    "pcmu": "0 101\na=rtpmap:0 PCMU/8000",
    "pcma": "8 101\na=rtpmap:8 PCMA/8000",
    "g729": "18 101\na=rtpmap:18 G729/8000",
}
_SDP = """v=0
o=sipp 53655765 {version} IN IP4 127.0.0.1
s=-
c=IN IP4 {host}
t=0 0
m=audio {port} RTP/AVP {codec}
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-15
a=ptime:20
a={direction}
"""


@dataclass
class Message:
    received: bool
    text: str

    @property
    def start(self) -> str:
        return self.text.partition("\n")[0].strip()

    def header(self, name: str) -> str:
        """The first of a name; '' without one."""
        found = re.search(rf"^{re.escape(name)}[ \t]*:[ \t]*(.*?)[ \t]*$", self.text, re.M | re.I)
        return found[1] if found else ""

    @property
    def to_tag(self) -> str:
        found = re.search(r";tag=([^;>\s]+)", self.header("To"))
        return found[1] if found else ""


# --- by hand --------------------------------------------------------------------------------------------------------


class Wire:
    """A UDP socket to send what no SIP stack would. `{name}` of its texts are its own."""

    def __init__(self, gateway: SipGateway, host: str = "127.0.0.1") -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((host, 0))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.host, self.port = self.sock.getsockname()
        self.to = ("127.0.0.1", gateway.sip_port)
        self.call_id = f"wire-{os.urandom(8).hex()}"

    def request(
        self, method: str, cseq: int = 1, *, tag: str = "", branch: str = "", body: str = "", **also: str
    ) -> str:
        """`also`: headers, `x_order="1"` is X-Order; and `call_id`, `number`."""
        call_id, number = also.pop("call_id", self.call_id), also.pop("number", "+15005550001")
        lines = [
            f"{method} sip:{number}@127.0.0.1:{self.to[1]} SIP/2.0",
            f"Via: SIP/2.0/UDP {self.host}:{self.port};branch=z9hG4bK{call_id.replace('@', '')}{branch or cseq}",
            f"From: <sip:+15005550006@{self.host}>;tag=wire{call_id[-6:]}",
            f"To: <sip:{number}@127.0.0.1>" + (f";tag={tag}" if tag else ""),
            f"Call-ID: {call_id}",
            f"CSeq: {cseq} {method}",
            f"Contact: <sip:wire@{self.host}:{self.port}>",
            "Max-Forwards: 70",
            *(f"{name.replace('_', '-').title()}: {value}" for name, value in also.items()),
        ]
        if body:
            body = body.replace("\n", "\r\n")
            lines.append("Content-Type: application/sdp")
        return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", body])

    def send(self, data: str | bytes) -> None:
        try:
            self.sock.sendto(data if isinstance(data, bytes) else data.encode(), self.to)
        except OSError:  # an empty or too long one
            return

    def receive(self, within_s: float = 1.0) -> Message | None:
        self.sock.settimeout(within_s)
        try:
            return Message(True, self.sock.recv(65_535).decode(errors="replace").replace("\r", ""))
        except OSError:
            return None

    def until(self, status: int, method: str, within_s: float = 3.0) -> Message:
        """The first answer (or with status 0 request) of this kind; others are passed over."""
        deadline, seen = time.monotonic() + within_s, list[str]()
        while time.monotonic() < deadline:
            message = self.receive(max(0.01, deadline - time.monotonic()))
            if message is None:
                continue
            seen.append(message.start)
            wanted = message.start.startswith(f"SIP/2.0 {status}" if status else method)
            if wanted and message.header("CSeq").endswith(method):
                return message
        raise AssertionError(seen)

    def drain(self, for_s: float = 0.3) -> list[Message]:
        """All that comes within this time."""
        deadline, found = time.monotonic() + for_s, list[Message]()
        while (left := deadline - time.monotonic()) > 0:
            if (message := self.receive(left)) is not None:
                found.append(message)
        return found

    def sdp(self, port: int = 9) -> str:
        return _SDP.format(version=1, host=self.host, port=port, codec=_CODECS["pcmu"], direction="sendrecv")

    def close(self) -> None:
        self.sock.close()


@pytest.fixture
def wires() -> Iterator[Callable[..., Wire]]:
    """`wires(gateway, host="127.0.0.2")`"""
    made: list[Wire] = []

    def make(gateway: SipGateway, host: str = "127.0.0.1") -> Wire:
        made.append(Wire(gateway, host))
        return made[-1]

    yield make
    for one in made:
        one.close()


# --- sipp -----------------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """One sipp. `ok()` waits for its end and for its word that all went by the script."""

    process: "subprocess.Popen[bytes]"
    folder: Path

    def ok(self, within_s: float = RUN_S) -> "Run":
        status = self.process.wait(within_s)
        assert status == 0, f"sipp: {status}\n{self.errors()}\n{self.trace()}"
        return self

    def trace(self) -> str:
        return _text(self.folder / "messages")

    def errors(self) -> str:
        return _text(self.folder / "errors")

    def messages(self) -> list[Message]:
        found = re.split(r"^-{20,}.*\n", self.trace(), flags=re.M)
        return [
            Message("received" in head, text.lstrip("\n"))
            for head, _, text in (part.partition(":\n") for part in found)
            if text
        ]

    def got(self, start: str, nth: int = 0) -> Message:
        """The nth received message whose first line holds this."""
        found = [m for m in self.messages() if m.received and start in m.start]
        assert len(found) > nth, self.trace()
        return found[nth]

    def until(self, happened: Callable[[], bool], within_s: float = 8.0) -> None:
        deadline = time.monotonic() + within_s
        while not happened():
            assert time.monotonic() < deadline, self.trace()
            time.sleep(0.02)

    def has(self, start: str) -> bool:
        return any(m.received and start in m.start for m in self.messages())

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(5)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").replace("\r", "") if path.exists() else ""


@dataclass
class Script:
    """Lines to a sipp scenario."""

    lines: list[str]
    calls: bool
    """We call; else we are called."""
    media_port: int
    number: str
    from_uri: str
    texts: Mapping[str, str] = field(default_factory=dict)
    invite_at: int = 0
    cseq: int = 0
    invite_cseq: int = 1

    def xml(self) -> str:
        body = "\n".join(self._step(at, line) for at, line in enumerate(self.lines))
        called = any(line.startswith("< INVITE") for line in self.lines)
        known = "" if self.calls or not called else '<Reference variables="from,to,contact,cseq,via"/>'
        return f'<?xml version="1.0" encoding="UTF-8"?>\n<scenario name="ours">\n{body}\n{known}\n</scenario>\n'

    def _step(self, at: int, line: str) -> str:
        kind, what, *words = line.split()
        if kind == ".":
            return f'<pause milliseconds="{what}"/>'
        if kind in ("<", "<?"):
            return self._receive(what, words, kind == "<?")
        if kind == "play":
            return f'<nop><action><exec rtp_stream="{what},-1,0,PCMU/8000"/></action></nop>'
        assert kind == ">", line
        text = self._answer(what, words) if what.isdigit() else self._request(at, what, words)
        again = "" if what == "ACK" or what.isdigit() or "once" in words else ' retrans="500"'
        return f"<send{again}><![CDATA[\n{text}\n]]></send>"

    def _receive(self, what: str, words: list[str], optional: bool) -> str:
        kind = "response" if what.isdigit() else "request"
        more = ' optional="true"' if optional else ""
        more += ' rrs="true"' if what in ("200", "183", "INVITE") else ""
        more += ' auth="true"' if "auth" in words else ""
        if what != "INVITE" or self.calls:
            return f'<recv {kind}="{what}"{more}/>'
        keep = "".join(
            f'<ereg regexp={quoteattr(regexp)} search_in="hdr" header="{name}:" assign_to="{to}"/>'
            for name, regexp, to in (
                ("From", ".*", "from"),
                ("To", ".*", "to"),
                ("CSeq", "[0-9]+", "cseq"),
                ("Contact", "sip:[^>]*", "contact"),
                ("Via", ".*", "via"),
            )
        )
        return f'<recv request="INVITE"{more}><action>{keep}</action></recv>'

    # --- requests ---

    def _request(self, at: int, method: str, words: list[str]) -> str:
        opening = self.calls and method == "INVITE" and self.cseq == 0
        if method == "INVITE":
            self.invite_at = at
        same = method == "CANCEL" or (method == "ACK" and "2xx" not in words)
        if method not in ("ACK", "CANCEL"):
            self.cseq += 1
        if method == "INVITE":
            self.invite_cseq = self.cseq
        number = self.invite_cseq if method in ("ACK", "CANCEL") else self.cseq
        branch = f"[branch-{at - self.invite_at}]" if same else "[branch]"
        if self.calls:
            target = f"sip:{self.number}@[remote_ip]:[remote_port]"
            uri = target if opening or same or "early" in words else "[next_url]"
            to = self.texts.get("to", f"<{target}>") + (
                "" if method == "CANCEL" or opening or "early" in words else "[peer_tag_param]"
            )
            sides = f"From: {self.from_uri};tag=[pid]T[call_number]\nTo: {to}"
        else:
            uri = "[$contact]"
            sides = "From:[$to];tag=[pid]S[call_number]\nTo:[$from]"
        lines = [
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/[transport] [local_ip]:[local_port];branch={branch}",
            sides,
            "Call-ID: [call_id]",
            f"CSeq: {number} {method}",
            "Contact: <sip:sipp@[local_ip]:[local_port];transport=[transport]>",
            "Max-Forwards: 70",
        ]
        return self._with_body(lines, words)

    def _answer(self, status: str, words: list[str]) -> str:
        reason = {"100": "Trying", "180": "Ringing", "183": "Session Progress", "200": "OK"}.get(status, "No")
        tag = "" if "plain" in words else ";tag=[pid]S[call_number]"
        invite = "invite" in words  # of the INVITE, though another request came since
        via, from_, to = (
            ("Via:[$via]", "From:[$from]", "To:[$to]")
            if invite
            else (
                "[last_Via:]",
                "[last_From:]",
                "[last_To:]",
            )
        )
        lines = [f"SIP/2.0 {status} {reason}", via, "[last_Record-Route:]", from_, to + tag, "[last_Call-ID:]"]
        lines += ["CSeq: [$cseq] INVITE" if invite else "[last_CSeq:]"]
        if "bare" not in words:
            lines += ["Contact: <sip:sipp@[local_ip]:[local_port];transport=[transport]>"]
        return self._with_body(lines, words)

    def _with_body(self, lines: list[str], words: list[str]) -> str:
        lines += [self.texts[word[1:]] for word in words if word.startswith("@")]
        content = next((self.texts[word[5:]] for word in words if word.startswith("body=")), "")
        for word in words:
            if word.partition("=")[0] == "sdp":
                lines.append("Content-Type: application/sdp")
                content = self._sdp(word.partition("=")[2].split(","))
        return "\n".join([*lines, "Content-Length: [len]", "", content])

    def _sdp(self, wanted: list[str]) -> str:
        direction = next((w for w in wanted if w in ("sendonly", "recvonly", "inactive")), "sendrecv")
        codec = next((_CODECS[w] for w in wanted if w in _CODECS), _CODECS["pcmu"])
        port = next((w for w in wanted if w.isdigit()), str(self.media_port))
        host = "0.0.0.0" if "zero" in wanted else "127.0.0.1"
        port = "[rtpstream_audio_port]" if "own" in wanted else port
        return _SDP.format(version=self.cseq + 1, host=host, port=port, codec=codec, direction=direction)


class Sipp:
    """`call(gateway, script, phone)`: sipp calls; `answer(script, phone)`: it is called."""

    run_s = RUN_S
    """Longer for a long conversation."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._runs = folder, list[Run]()

    def call(
        self,
        gateway: SipGateway,
        script: str,
        phone: Phone | None = None,
        *,
        number: str = "+15005550001",
        caller: str = "<sip:+15005550006@127.0.0.1>",
        texts: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
        options: tuple[str, ...] = (),
        trace: bool = True,
    ) -> Run:
        lines = _lines(script)
        xml = Script(lines, True, phone.port if phone else 9, number, caller, texts or {}).xml()
        return self._start(xml, host, lease(host=host), (*options, f"127.0.0.1:{gateway.sip_port}"), trace)

    def answer(
        self,
        port: int,
        script: str,
        phone: Phone | None = None,
        *,
        texts: Mapping[str, str] | None = None,
        options: tuple[str, ...] = (),
    ) -> Run:
        xml = Script(_lines(script), False, phone.port if phone else 9, "", "", texts or {}).xml()
        return self._start(xml, "127.0.0.1", port, options)

    def _start(self, xml: str, host: str, port: int, options: tuple[str, ...], trace: bool = True) -> Run:
        folder = self._folder / f"sipp{len(self._runs)}"
        folder.mkdir()
        scenario = folder / "scenario.xml"
        scenario.write_text(xml)
        assert SIPP is not None
        words = [SIPP, "-sf", str(scenario), "-i", host, "-p", str(port), "-nostdin"]
        if "-m" not in options:
            words += ["-m", "1"]
        words += ["-timeout", str(self.run_s), "-timeout_error"]
        if trace:
            words += ["-trace_msg", "-message_file", str(folder / "messages"), "-message_overwrite", "true"]
            words += ["-trace_err", "-error_file", str(folder / "errors")]
        words += options
        process = subprocess.Popen(words, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self._runs.append(Run(process, folder))
        return self._runs[-1]

    def close(self) -> None:
        for run in self._runs:
            run.kill()


def _lines(script: str) -> list[str]:
    return [line.strip() for line in script.strip().splitlines() if line.strip()]


@pytest.fixture
def sipp(tmp_path: Path) -> Iterator[Sipp]:
    peers = Sipp(tmp_path)
    yield peers
    peers.close()
