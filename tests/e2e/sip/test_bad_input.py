"""What strangers and broken peers send: none of it may be noticed by a call that is going on."""

import random
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

LIVE = """
> INVITE sdp
<? 100
<? 180
< 200
> ACK 2xx
. {ms}
> BYE
< 200
"""
CALL = LIVE.format(ms=500)
DATAGRAMS = 10_000
PACE_S = 0.1
A_PACE = 250


@pytest.fixture(scope="module")
def gateway(shared_sip_gateway: Any) -> Any:
    return shared_sip_gateway(
        sip__trunks__pbx__peers="127.0.0.1/32",
        sip__trunks__pbx__numbers="+15005550001",
    )


class Live:
    """A call in progress, and the judgement of it."""

    def __init__(self, gateway: Any, sipp: Any, phone: Any, seconds: float) -> None:
        self.gateway, self.phone = gateway, phone
        self.pid = gateway.process.pid
        self.run = sipp.call(gateway, LIVE.format(ms=int(seconds * 1000)), phone)
        phone.until(lambda: phone.loud() > 5)
        self.call_id = self.run.got("200").header("Call-ID")
        (self.id,) = [call["id"] for call in gateway.calls() if call["live"]]
        self.media_port = phone.gateway[1]

    def undisturbed(self) -> Any:
        """Its record."""
        self.run.ok()
        record = self.gateway.ended(self.id)
        assert record.end() == ("caller_hung_up", "")
        assert record.event("sip_media")["in_lost"] == 0
        media = record.event("media")
        assert (media["replaced_frames"], media["overrun_frames"]) == (0, 0)
        assert media["missing_frames"] <= media["received_frames"] * 0.02 + 2  # our own RTP peer is a Python thread
        assert self.gateway.process.pid == self.pid
        return record


def works(gateway: Any, sipp: Any, phone: Any) -> None:
    """Ready, without complaints, and a fresh call is answered at once."""
    gateway.is_well()
    sipp.call(gateway, CALL, phone).ok()
    assert gateway.ended().end() == ("caller_hung_up", "")


# --- strangers ------------------------------------------------------------------------------------------------------


def test_strangers_get_nothing(gateway: Any, wires: Any, sipp: Any, phone: Any) -> None:
    live = Live(gateway, sipp, phone, 4)
    stranger = wires(gateway, "127.0.0.2")
    before = gateway.metric("trunkline_sip_turned_away_total")
    for method in ("INVITE", "OPTIONS", "REGISTER", "BYE", "CANCEL", "ACK", "MESSAGE", "NONSENSE"):
        stranger.send(stranger.request(method, body=stranger.sdp() if method == "INVITE" else ""))
    assert stranger.drain(1.0) == []
    gateway.until(lambda: gateway.metric("trunkline_sip_turned_away_total") >= before + 7)
    live.undisturbed()
    assert gateway.log.count("stranger 127.0.0.2") == 1


def test_strangers_get_one_answer_where_that_is_wished(sip_gateway: Any, wires: Any) -> None:
    gateway = sip_gateway(sip__trunks__pbx__peers="127.0.0.1/32", sip__strangers="403")
    stranger = wires(gateway, "127.0.0.2")
    for method in ("INVITE", "OPTIONS", "REGISTER", "NONSENSE"):
        stranger.send(stranger.request(method, call_id=f"{stranger.call_id}{method}"))
        assert stranger.until(403, method).start == "SIP/2.0 403 Forbidden"
    assert gateway.calls() == []
    gateway.is_well()


def test_a_forged_bye_ends_nothing(gateway: Any, wires: Any, sipp: Any, phone: Any) -> None:
    live = Live(gateway, sipp, phone, 4)
    for host in ("127.0.0.1", "127.0.0.2"):
        forger = wires(gateway, host)
        for method in ("BYE", "INVITE", "UPDATE", "INFO", "REFER", "CANCEL"):
            forger.send(forger.request(method, 77, tag="guessed", call_id=live.call_id))
        answers = forger.drain(0.5)
        assert not [answer.start for answer in answers if answer.start.startswith("SIP/2.0 2")]
    live.undisturbed()


def test_who_knows_all_of_a_dialog_and_calls_from_elsewhere_is_a_stranger(
    gateway: Any, wires: Any, sipp: Any, phone: Any
) -> None:
    """Call-ID, both tags and the next CSeq, overheard: he gets silence, and is counted."""
    live = Live(gateway, sipp, phone, 4)
    answered = live.run.got("200")
    stranger = wires(gateway, "127.0.0.2")
    before = gateway.metric("trunkline_sip_turned_away_total")
    sides = f"From: {answered.header('From')}", f"To: {answered.header('To')}"
    for method in ("BYE", "INVITE", "UPDATE", "INFO", "OPTIONS", "REFER", "MESSAGE"):
        request = stranger.request(method, 77, call_id=live.call_id, tag=answered.to_tag)
        for line, own in zip(re.findall(r"^(?:From|To): .*$", request, re.M), sides, strict=True):
            request = request.replace(line.strip(), own)
        stranger.send(request)
    assert stranger.drain(0.5) == []
    gateway.until(lambda: gateway.metric("trunkline_sip_turned_away_total") >= before + 7)
    live.undisturbed()


def test_a_call_of_one_trunk_is_not_another_trunks(sip_gateway: Any, wires: Any, sipp: Any, phone: Any) -> None:
    """Nor does an INVITE with its Call-ID make it so."""
    gateway = sip_gateway(sip__trunks__one__peers="127.0.0.1/32", sip__trunks__two__peers="127.0.0.2/32")
    live = Live(gateway, sipp, phone, 4)
    answered = live.run.got("200")
    other = wires(gateway, "127.0.0.2")
    other.send(other.request("INVITE", 1, call_id=live.call_id, body=other.sdp()))
    other.until(482, "INVITE")
    bye = other.request("BYE", 77, call_id=live.call_id, tag=answered.to_tag)
    own = next(line for line in bye.splitlines() if line.startswith("From"))
    other.send(bye.replace(own, f"From: {answered.header('From')}"))
    assert other.drain(0.5) == []
    for cseq, method in enumerate(("BYE", "CANCEL", "INVITE", "UPDATE"), 78):  # by its tags alone
        forged = other.request(method, cseq, call_id="another@call", tag=answered.to_tag)
        own = next(line for line in forged.splitlines() if line.startswith("From"))
        other.send(forged.replace(own, f"From: {answered.header('From')}"))
        other.until(481, method)
    live.undisturbed()


def test_audio_from_elsewhere_is_ignored_and_counted(gateway: Any, sipp: Any, phone: Any) -> None:
    from trunkline.testing.caller.sip import rtp

    live = Live(gateway, sipp, phone, 4)
    sent = 0
    for host in ("127.0.0.1", "127.0.0.2"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind((host, 0))
            sender = rtp.Sender(0x666, 1, 0)
            for _ in range(100):
                stranger.sendto(sender.audio(b"\x00\x80" * 80, 0), ("127.0.0.1", live.media_port))
                sender.tick()
                sent += 1
                time.sleep(0.002)
            stranger.sendto(random.Random(1).randbytes(400), ("127.0.0.1", live.media_port))
    record = live.undisturbed()
    assert record.event("media")["strange_packets"] >= sent
    assert record.event("sip_media")["in_packets"] < 4.5 / 0.02


# --- datagrams without sense ----------------------------------------------------------------------------------------


def malformed(wire: Any) -> Iterator[bytes]:
    """Noise, truncations, flipped bytes, doubled and missing lines. Numbers called are not ours."""
    dice = random.Random(4475)
    whole = [
        wire.request("INVITE", call_id="{}", number="+15005550999", body=wire.sdp()).encode(),
        wire.request("OPTIONS", call_id="{}", number="+15005550999").encode(),
        wire.request("BYE", call_id="{}", tag="nobody").encode(),
        wire.request("CANCEL", call_id="{}").encode(),
        wire.request("SUBSCRIBE", call_id="{}", event="presence", expires="-1").encode(),
        b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.1:5;branch=z9hG4bKx\r\nCSeq: 1 INVITE\r\nCall-ID: {}\r\n"
        b"From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nContent-Length: 0\r\n\r\n",
    ]
    for number in range(DATAGRAMS):
        message = dice.choice(whole).replace(b"{}", b"bad-%d" % number)
        way = number % 6
        if way == 0:
            yield dice.randbytes(dice.randrange(1, 1400))
        elif way == 1:
            yield message[: dice.randrange(1, len(message))]
        elif way == 2:
            flipped = bytearray(message)
            for _ in range(dice.randrange(1, 12)):
                flipped[dice.randrange(len(flipped))] = dice.randrange(256)
            yield bytes(flipped)
        elif way == 3:
            lines = message.split(b"\r\n")
            del lines[dice.randrange(len(lines))]
            yield b"\r\n".join(lines)
        elif way == 4:
            lines = message.split(b"\r\n")
            at = dice.randrange(len(lines))
            lines[at] = lines[at] * dice.randrange(2, 40)
            yield b"\r\n".join(lines)[:60_000]
        else:
            lines = message.split(b"\r\n")
            dice.shuffle(lines)
            yield b"\r\n".join(lines)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
def test_ten_thousand_malformed_datagrams(gateway: Any, wires: Any, sipp: Any, phone: Any, host: str) -> None:
    """From a peer, and from a stranger."""
    live = Live(gateway, sipp, phone, 8)
    wire = wires(gateway, host)
    rss_mb = gateway.rss_mb()
    for number, datagram in enumerate(malformed(wire)):
        wire.send(datagram)
        if number % A_PACE == A_PACE - 1:
            time.sleep(PACE_S)
    assert gateway.rss_mb() - rss_mb < 40
    live.undisturbed()
    works(gateway, sipp, phone)
    assert gateway.metric("trunkline_sip_turned_away_total") > 100


# --- the torture catalogue (after RFC 4475, in our words) -----------------------------------------------------------

VIA = "Via: SIP/2.0/UDP {at};branch=z9hG4bK{id}"
SIDES = (
    "From: <sip:+15005550006@127.0.0.1>;tag=1\nTo: <sip:+15005550999@127.0.0.1>\nCall-ID: {id}\nContact: <sip:a@{at}>"
)
PLAIN = f"{VIA}\n{SIDES}\nMax-Forwards: 70"
SDP = "v=0\no=a 1 1 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\n"
URI = "sip:+15005550999@127.0.0.1"


def invite(more: str = "", body: str = SDP, *, start: str = f"INVITE {URI} SIP/2.0", length: str = "") -> str:
    """With our SDP, or what is said instead."""
    kind = "" if "ontent-" in more and "ype" in more else "Content-Type: application/sdp\n"
    size = length or str(len(body) + body.count("\n"))
    return f"{start}\n{PLAIN}\nCSeq: 1 INVITE\n{kind}{more}Content-Length: {size}\n\n{body}"


TORTURE = {
    "short tortuous (3.1.1.1)": f"INVITE {URI};unknownparam SIP/2.0\nTO :\n <{URI}>    ;   other = 1\n"
    'from   : "J \\\\\\""'
    "       <sip:a@b>\n  ;\n  tag = 98asjd8\nMaX-fOrWaRdS: 0068\nCall-ID: {id}\nCSeq: 0009\n  INVITE\n"
    "Via  : SIP  /   2.0\n /UDP\n    {at};branch=z9hG4bK{id}\ns :\nNewFangled:   newfangled value\n continued\n"
    "UnknownHeaderWithUnusualValue: ;;,,;;,;\nContent-Type: application/sdp\nv:  SIP  / 2.0  / TCP     spindle.example"
    "  ;\n  branch  =   z9hG4bK9ikj8  ,\n SIP  /    2.0   / UDP  192.168.255.111   ; branch=\n z9hG4bK30239\n"
    'm:"Quoted string \\"\\"" <sip:j@example.com> ; newparam =\n      newvalue ;\n  secondparam ; q = 0.33\n\n' + SDP,
    "wide range of characters (3.1.1.2)": "!interesting-Method0123456789_*+`.%indeed'~ sip:1_unusual.URI~"
    "(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@127.0.0.1 SIP/2.0\n"
    + PLAIN
    + "\nCSeq: 1 "
    "!interesting-Method0123456789_*+`.%indeed'~\nextensionHeader-!.%*+_`'~:\ufeff大停電\nContent-Length: 0\n\n",
    "escaped characters (3.1.1.3)": invite(start="INVITE sip:sips%3Auser%40example.com@127.0.0.1 SIP/2.0"),
    "escaped nulls in URIs (3.1.1.4)": f"REGISTER sip:127.0.0.1 SIP/2.0\n{VIA}\nTo: sip:null-%00-null@127.0.0.1\n"
    "From: sip:null-%00-null@127.0.0.1;tag=8\nCall-ID: {id}\nCSeq: 1 REGISTER\nContact: <sip:%00@h>\nL: 0\n\n",
    "escaped null in the number": invite(start="INVITE sip:%00+1500%005550999@127.0.0.1 SIP/2.0"),
    "percent when not an escape (3.1.1.5)": f"RE%47IST%45R sip:127.0.0.1 SIP/2.0\n{PLAIN}\nCSeq: 1 RE%47IST%45R\n\n",
    "no space between name and < (3.1.1.6)": invite().replace("From: <", 'From: "caller"<'),
    "long values (3.1.1.7)": invite("X-Long: " + "amazinglylong" * 400 + "\n"),
    "extra octets after the body (3.1.1.8)": invite(length="20") + "INVITE sip:more@127.0.0.1 SIP/2.0\n\n",
    "semicolons in the user part (3.1.1.9)": "OPTIONS sip:user;par=u%40example.net@127.0.0.1 SIP/2.0\n"
    f"{PLAIN}\nCSeq: 1 OPTIONS\n\n",
    "varied transports (3.1.1.10)": invite(
        "Via: SIP/2.0/SCTP a.example;branch=z9hG4bK1, SIP/2.0/UNKNOWN b;branch=z9\n"
    ),
    "multipart body (3.1.1.11)": invite(
        'Content-Type: multipart/mixed;boundary="7a9"\n', f"--7a9\nContent-Type: application/sdp\n\n{SDP}\n--7a9--\n"
    ),
    "multipart without an end": invite('Content-Type: multipart/mixed;boundary="7a9"\n', "--7a9\n" * 200),
    "an unusual reason (3.1.1.12)": f"SIP/2.0 200 = 2**3 * 5**2 но сто девяносто\n{PLAIN}\nCSeq: 1 INVITE\n\n",
    "an empty reason (3.1.1.13)": f"SIP/2.0 100 \n{PLAIN}\nCSeq: 1 INVITE\n\n",
    "extraneous separators (3.1.2.1)": invite("Contact: <sip:a@b>;;,;,,\n").replace(";branch", ";;,;branch"),
    "content length larger than the message (3.1.2.2)": invite(length="9999"),
    "content length negative (3.1.2.3)": invite(length="-999"),
    "content length without number": invite(length="ten"),
    "overlarge scalars (3.1.2.4)": invite("Expires: 10000000000000000000000\nMax-Forwards: 300000\n").replace(
        "CSeq: 1 ", "CSeq: 36893488147419103232 "
    ),
    "overlarge scalars in a response (3.1.2.5)": f"SIP/2.0 503 No\n{PLAIN}\n"
    "CSeq: 9292394834772304023312 OPTIONS\nRetry-After: "
    '949302838503028349304023988\nWarning: 1812 overture "In Progress"\n\n',
    "an unterminated quote (3.1.2.6)": invite().replace("To: <", 'To: "Mr. J. User <'),
    "brackets around the request URI (3.1.2.7)": invite(start=f"INVITE <{URI}> SIP/2.0"),
    "blanks within the request URI (3.1.2.8)": invite(start="INVITE sip:a@127.0.0.1; lr SIP/2.0"),
    "several blanks in the start line (3.1.2.9)": invite(start=f"INVITE  {URI}  SIP/2.0"),
    "blanks after the version (3.1.2.10)": invite(start=f"INVITE {URI} SIP/2.0   "),
    "escaped headers in the URI (3.1.2.11)": invite(start="INVITE sip:u@127.0.0.1?Route=%3Csip:e.example%3E SIP/2.0"),
    "a date of another zone (3.1.2.12)": invite("Date: Fri, 01 Jan 2010 16:00:00 EST\n"),
    "a name-addr without brackets (3.1.2.13)": invite().replace(f"To: <{URI}>", f"To: {URI}?a=b"),
    "blanks within an address (3.1.2.14)": invite().replace(f"To: <{URI}>", f'To: "W" < {URI} >'),
    "non-token characters in a name (3.1.2.15)": invite().replace("From: <", "From: Bell, Alexander <"),
    "an unknown version (3.1.2.16)": invite(start=f"INVITE {URI} SIP/7.0"),
    "a method that CSeq does not have (3.1.2.17)": invite().replace("CSeq: 1 INVITE", "CSeq: 1 OPTIONS"),
    "an unknown method that CSeq does not have (3.1.2.18)": invite(start=f"NEWMETHOD {URI} SIP/2.0"),
    "an overlarge status (3.1.2.19)": f"SIP/2.0 4294967301 better not\n{PLAIN}\nCSeq: 1 INVITE\n\n",
    "no branch (3.2.1)": invite().replace("z9hG4bK{id}", "z9hG4bK"),
    "required headers missing (3.3.1)": f"INVITE {URI} SIP/2.0\nCSeq: 1 INVITE\n{VIA}\nl: 0\n\n",
    "an unknown scheme (3.3.2)": invite(start="INVITE nobodyKnowsThisScheme:a SIP/2.0"),
    "a known scheme that is no call (3.3.3)": invite(start="INVITE soap.beep://a.example:3002 SIP/2.0"),
    "an unknown scheme in From and To (3.3.4)": invite().replace(f"To: <{URI}>", "To: <isbn:2983792873>"),
    "an unknown authorization (3.3.5)": invite('Authorization: NoOneKnows opaque="="; x=%z\n'),
    "single headers several times (3.3.8)": invite(
        "To: <sip:x@y>\nCall-ID: other\nCSeq: 5 BYE\nFrom: <sip:q@r>;tag=9\n"
    ),
    "several content lengths (3.3.9)": invite("Content-Length: 13\n"),
    "an answer with a broadcast Via (3.3.10)": "SIP/2.0 200 OK\nVia: SIP/2.0/UDP 255.255.255.255;branch=z9hG4bK1\n"
    + SIDES
    + "\nCSeq: 1 INVITE\n\n",
    "max-forwards zero (3.3.11)": invite().replace("Max-Forwards: 70", "Max-Forwards: 0"),
    "requires what nobody has (3.3.12)": invite("Require: nothingSupportsThis, norThis\nProxy-Require: neither\n"),
    "a body that nobody knows (3.3.15)": invite("Content-Type: application/unknownformat\n", "<audio>\n"),
    "an encoding that nobody knows": invite("Content-Encoding: gzip\n"),
    "an authorization to no challenge (3.3.16)": invite(
        'Authorization: Digest username="u", realm="trunkline", nonce=""\n'
    ),
    "replaces a call that is not": invite("Replaces: 12345;to-tag=1;from-tag=2\n"),
    "a date of nonsense": invite("Session-Expires: 0\nMin-SE: 99999999999\n"),
    "SDP: cut off": invite(body=SDP[:40]),
    "SDP: only a version": invite(body="v=0\n"),
    "SDP: noise": invite(body="\u0001\u0002=\u0003\n" * 20),
    "SDP: no lines": invite(body="v=0 o=- s=- m=audio"),
    "SDP: port too large": invite(body=SDP.replace("audio 9", "audio 99999")),
    "SDP: port negative": invite(body=SDP.replace("audio 9", "audio -1")),
    "SDP: a thousand streams": invite(body=SDP + "m=audio 9 RTP/AVP 0\n" * 1000),
    "SDP: a thousand formats": invite(body=SDP.replace("AVP 0", "AVP " + " ".join(map(str, range(1000))))),
    "SDP: rtpmap of nothing": invite(body=SDP + "a=rtpmap:\na=rtpmap:0\na=rtpmap:0 PCMU\na=rtpmap:0 PCMU/0\n"),
    "SDP: rtpmap without end": invite(body=SDP + "a=rtpmap:0 " + "P" * 3000 + "/8000\n"),
    "SDP: no connection": invite(body=SDP.replace("c=IN IP4 127.0.0.1\n", "")),
    "SDP: an address of another world": invite(body=SDP.replace("IP4", "IP9")),
    "SDP: a host name": invite(body=SDP.replace("c=IN IP4 127.0.0.1", "c=IN IP4 host.invalid")),
    "SDP: crypto of nonsense": invite(
        body=SDP.replace("RTP/AVP", "RTP/SAVP") + "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:short\na=crypto:x\n"
    ),
    "SDP: ptime of nonsense": invite(body=SDP + "a=ptime:0\na=maxptime:-5\na=ptime:99999999999\n"),
    "SDP: opus of nonsense": invite(
        body=SDP.replace("AVP 0", "AVP 96") + "a=rtpmap:96 opus/48000/2\na=fmtp:96 " + "x=" * 400
    ),
    "only line ends": "\n\n\n\n\n",
    "nothing but a method": "INVITE",
    "nul bytes": "\x00" * 600,
    "an HTTP request": "GET / HTTP/1.1\nHost: 127.0.0.1\n\n",
    "a STUN request": "\x00\x01\x00\x00\x21\x12\xa4\x42abcdefghijkl",
    "a header without end": f"INVITE {URI} SIP/2.0\nX: " + "y" * 30_000,
    "ten thousand headers": f"INVITE {URI} SIP/2.0\n{PLAIN}\n" + "a:\n" * 10_000 + "\n",
    "a thousand Vias": f"INVITE {URI} SIP/2.0\n" + f"{VIA}\n" * 600 + SIDES + "\nCSeq: 1 INVITE\n\n",
    "folded for ever": f"INVITE {URI} SIP/2.0\n{PLAIN}\nSubject: a\n" + " b\n" * 8000 + "\n",
}


def test_the_torture_messages(gateway: Any, wires: Any, sipp: Any, phone: Any) -> None:
    live = Live(gateway, sipp, phone, 7)
    for number, text in enumerate(TORTURE.values()):
        for host in ("127.0.0.1", "127.0.0.2"):
            wire = wires(gateway, host)
            filled = text.replace("{at}", f"{wire.host}:{wire.port}").replace("{id}", f"torture-{number}-{host}")
            wire.send(filled.replace("\n", "\r\n"))
            wire.send(filled)  # line ends of another world
        time.sleep(0.03)
    time.sleep(0.5)
    live.undisturbed()
    works(gateway, sipp, phone)


@pytest.mark.parametrize("name", [name for name in TORTURE if name.startswith("SDP: ")])
def test_a_broken_offer_is_no_call(gateway: Any, wires: Any, name: str) -> None:
    """Whatever it is, there is a final answer and nothing that stays."""
    wire = wires(gateway)
    text = TORTURE[name].replace("{at}", f"{wire.host}:{wire.port}").replace("{id}", wire.call_id)
    wire.send(text.replace("\n", "\r\n"))
    statuses = [m.start.split()[1] for m in wire.drain(0.4) if m.start.startswith("SIP/2.0 ")]
    assert not any(status.startswith("2") for status in statuses)
    gateway.live(0)


# --- connections ----------------------------------------------------------------------------------------------------


def test_noise_over_tcp(gateway: Any, sipp: Any, phone: Any) -> None:
    live = Live(gateway, sipp, phone, 5)
    rss_mb = gateway.rss_mb()
    dice = random.Random(5)
    for host in ("127.0.0.1", "127.0.0.2"):
        for noise in (
            dice.randbytes(200_000),
            b"INVITE sip:a SIP/2.0\r\nX: " + b"y" * 1_000_000,
            b"\r\n" * 50_000,
            b"S",
        ):
            with socket.socket() as sock:
                sock.settimeout(2)
                sock.bind((host, 0))
                sock.connect(("127.0.0.1", gateway.sip_port))
                try:
                    sock.sendall(noise)
                    time.sleep(0.05)
                except OSError:
                    pass  # it was closed on us, rightly
    assert gateway.rss_mb() - rss_mb < 20
    live.undisturbed()
    works(gateway, sipp, phone)


def test_a_call_over_tcp_works_all_the_same(gateway: Any, sipp: Any, phone: Any) -> None:
    sipp.call(gateway, CALL, phone, options=("-t", "t1")).ok()
    assert gateway.ended().event("arrived")["transport"] == "tcp"
    gateway.is_well()
