"""How soon an operator's command is on the wire: `python bench/refer.py [--calls 50]` beside a running gateway.

Each call is an INVITE of ours over UDP to the gateway's loopback trunk, answered by its agent; then the transfer of a
blind kind is asked for over the API, and the time is taken until the REFER arrives here. The HTTP request is in it (its
connection is open already). Promised: under 10 ms.
"""

import argparse
import re
import secrets
import socket
import statistics
import time

import httpx

SDP = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n"
    "a=rtpmap:0 PCMU/8000\r\n"
)


class Call:
    """A UDP peer that knows one dialog's worth of SIP."""

    def __init__(self, gateway: tuple[str, int]) -> None:
        self.sip, self.rtp = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        self.rtp.bind(("127.0.0.1", 0))
        self.sip.bind(("127.0.0.1", 0))
        self.sip.settimeout(5)
        self.sip.connect(gateway)
        self.port, self.gateway = self.sip.getsockname()[1], gateway
        self.call_id, self.to = secrets.token_hex(8), f"<sip:+15005550001@{gateway[0]}>"

    def send(self, start: str, cseq: str, body: str = "", more: str = "") -> None:
        self.sip.send(
            f"{start}\r\nVia: SIP/2.0/UDP 127.0.0.1:{self.port};branch=z9hG4bK{secrets.token_hex(6)}\r\n"
            f"From: <sip:+15005550006@127.0.0.1>;tag={self.call_id}\r\nTo: {self.to}\r\nCall-ID: {self.call_id}\r\n"
            f"CSeq: {cseq}\r\nContact: <sip:bench@127.0.0.1:{self.port}>\r\nMax-Forwards: 70\r\n{more}"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )

    def until(self, start: str) -> str:
        while True:
            text = self.sip.recv(65_535).decode()
            if text.startswith(start):
                return text

    def answer(self, request: str, status: str) -> None:
        kept = re.findall(r"^(?:Via|From|To|Call-ID|CSeq):.*$", request, re.M)
        self.sip.send(
            "\r\n".join([f"SIP/2.0 {status}", *(k.strip() for k in kept), "Content-Length: 0", "", ""]).encode()
        )

    def establish(self) -> None:
        uri = f"sip:+15005550001@{self.gateway[0]}:{self.gateway[1]}"
        body = SDP.format(port=self.rtp.getsockname()[1])
        self.send(f"INVITE {uri} SIP/2.0", "1 INVITE", body, "Content-Type: application/sdp\r\n")
        answer = self.until("SIP/2.0 200")
        to = re.search(r"^To: (.*?)\r$", answer, re.M)
        assert to is not None
        self.to = to[1]
        self.send(f"ACK {uri} SIP/2.0", "1 ACK")
        self.rtp.sendto(b"\x80\x00" + b"\0" * 10 + b"\xff" * 160, self._media(answer))

    def _media(self, answer: str) -> tuple[str, int]:
        found = re.search(r"m=audio (\d+)", answer)
        assert found is not None
        return self.gateway[0], int(found[1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--http", default="http://127.0.0.1:8080")
    parser.add_argument("--sip", type=int, default=5060)
    parser.add_argument("--target", default="reception")
    asked = parser.parse_args()
    took_ms = []
    with httpx.Client(base_url=asked.http, timeout=5) as http:
        for _ in range(asked.calls):
            call = Call(("127.0.0.1", asked.sip))
            call.establish()
            time.sleep(0.1)
            live = next(c for c in http.get("/v1/calls").json()["calls"] if c["provider_call_id"] == call.call_id)
            began = time.monotonic()
            http.post(f"/v1/calls/{live['id']}/transfer", json={"target": asked.target, "kind": "blind"})
            refer = call.until("REFER")
            # the API's answer came before we looked, so this is an upper bound
            took_ms.append((time.monotonic() - began) * 1000)
            call.answer(refer, "603 Decline")
            http.delete(f"/v1/calls/{live['id']}")
            call.answer(call.until("BYE"), "200 OK")
    took_ms.sort()
    print(f"{len(took_ms)} transfers: command to REFER p50 {statistics.median(took_ms):.1f} ms, ", end="")
    print(f"p95 {took_ms[int(len(took_ms) * 0.95)]:.1f} ms, most {took_ms[-1]:.1f} ms")


if __name__ == "__main__":
    main()
