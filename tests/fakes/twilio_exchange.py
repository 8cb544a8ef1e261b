"""Twilio on both sides of a switchboard with fakes around it: webhooks, media sockets and a dialler as they are, a
scripted account, and far ends that play what they are sent as Twilio does, with its marks and `clear`."""

import asyncio
import re
import struct
from base64 import b64encode
from typing import Any, Literal, cast
from xml.etree import ElementTree

from starlette.datastructures import ImmutableMultiDict

from tests.fakes.twilio_account import FakeAccount
from trunkline.gateway.twilio.dialler import Terms, TwilioDialler
from trunkline.gateway.twilio.leg import TwilioLeg
from trunkline.gateway.twilio.sockets import SocketLimits, Sockets
from trunkline.gateway.twilio.tokens import Tokens
from trunkline.gateway.twilio.webhooks import CallStatus, Webhooks
from trunkline.ports import Allow, UsageMetered
from trunkline.testing.board import MAX_CALL_S, Board, sid
from trunkline.testing.caller.carrier import Carrier, StreamIds
from trunkline.testing.caller.wire import Cleared, Marked
from trunkline.types import E164, CallSid, StreamSid

ORIGIN = "https://voice.example.com"
FROM, CALLER, NUMBER = E164("+14155550199"), "+14155550123", "+18005550199"
TERMS = Terms(ORIGIN, FROM, MAX_CALL_S)
MEDIA_TIMEOUT_S = 3.0
SILENCE = b"\xff" * 160
HANDSHAKE = (
    b"GET /twilio/media HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Far:
    """The far end of one media stream: a telephone behind Twilio. asyncio's transport for the leg."""

    def __init__(self, sockets: Sockets, call_sid: CallSid, token: str, number: int) -> None:
        self.closed = self.said_goodbye = False
        ids = StreamIds("AC" + "0" * 32, call_sid, StreamSid(f"MZ{number:032x}"))
        self.carrier = Carrier(ids, {"token": token}, keep_audio=True)
        self._inbox = b""
        self.leg: TwilioLeg = sockets.new_leg()
        self.leg.connection_made(cast(Any, self))
        self.leg.data_received(HANDSHAKE)
        self._inbox = self._inbox.partition(b"\r\n\r\n")[2]
        self.sends(*self.carrier.opening())

    # --- the transport ---

    def write(self, data: bytes) -> None:
        self._inbox += data

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.leg.connection_lost, None)

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def set_write_buffer_limits(self, high: int) -> None: ...

    # --- the telephone ---

    def sends(self, *messages: bytes) -> None:
        for message in messages:
            self.leg.data_received(_frame(1, message))

    def ticks(self, now: float, says: bytes) -> None:
        """20 ms: hears a frame, says one."""
        if self.closed or self.said_goodbye:
            return
        self._read(now)
        self.sends(*self.carrier.tick(now), self.carrier.media(b64encode(says)))

    def presses(self, digit: str) -> None:
        self.sends(*self.carrier.dtmf(digit))

    def hangs_up(self) -> None:
        self.sends(*self.carrier.stop())

    def vanishes(self) -> None:
        self.close()

    def _read(self, now: float) -> None:
        while len(self._inbox) >= 2:
            opcode, length, start = self._inbox[0] & 15, self._inbox[1], 2
            if length == 126:
                length, start = struct.unpack_from("!H", self._inbox, 2)[0], 4
            payload, self._inbox = self._inbox[start : start + length], self._inbox[start + length :]
            if opcode == 8:
                self.said_goodbye = True
                self.leg.data_received(_frame(8, payload))
                return
            received = self.carrier.receive(payload, now)
            if isinstance(received, Marked | Cleared):
                self.sends(*received.replies)

    @property
    def heard(self) -> bytes:
        return b"".join(self.carrier.heard)

    def forget(self) -> None:
        self.carrier.heard.clear()

    @property
    def is_left(self) -> bool:
        """Our side has said goodbye."""
        return self.leg.closing


class Exchange(Board):
    def __init__(self, terms: Terms = TERMS) -> None:
        super().__init__()
        self.account, self.tokens = FakeAccount(), Tokens()
        self.dialler = TwilioDialler(self.account, self.switchboard, terms, self.clock)
        self.switchboard.diallers.append(self.dialler)
        limits = SocketLimits(4, 5.0, MEDIA_TIMEOUT_S)
        d = self.dialler
        self.sockets = Sockets(self.switchboard, self.tokens, limits, self.metrics, self.clock, d.hang_up, d.further)
        self.webhooks = Webhooks(
            self.switchboard,
            self.tokens,
            ORIGIN,
            fallback_number=None,
            fallback_text="",
            max_call_seconds=600,
            placed=self.dialler,
        )
        self.streams = 0

    # --- Twilio ---

    def asks(self, url: str, call_sid: CallSid, status: CallStatus = "in-progress", **more: str) -> ElementTree.Element:
        """A webhook whose answer Twilio follows."""
        path, _, query = url.removeprefix(ORIGIN).partition("?")
        answer = {"/twilio/voice": self.webhooks.voice, "/twilio/continue": self.webhooks.continue_}[path]
        given = {"CallSid": call_sid, "From": CALLER, "To": NUMBER, "CallStatus": status, "Direction": "inbound"} | more
        asked = dict(pair.split("=") for pair in query.split("&") if pair)
        return ElementTree.fromstring(answer(ImmutableMultiDict(given), asked, self.clock.now()))

    def stream(self, document: ElementTree.Element, call_sid: CallSid) -> Far:
        token = next(p.attrib["value"] for p in document.iter("Parameter") if p.attrib["name"] == "token")
        self.streams += 1
        return Far(self.sockets, call_sid, token, self.streams)

    def rings(self, number: int = 9) -> Far:
        """A caller, with the agent."""
        return self.stream(self.asks("/twilio/voice", sid(number)), sid(number))

    async def ordered(self, count: int = 1) -> None:
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(self.account.orders) == count

    def tells(self, status: CallStatus, order: int = 0, **more: str) -> None:
        """The status callback of an order."""
        form = {"CallSid": sid(order + 1), "CallStatus": status} | more
        token = self.token(order)
        assert self.webhooks.status(ImmutableMultiDict(form), {"order": token}, self.clock.now()) == ""

    def guesses(self, answered_by: str, order: int = 0) -> None:
        """Machine detection."""
        form = ImmutableMultiDict({"CallSid": sid(order + 1), "AnsweredBy": answered_by})
        self.webhooks.machine(form, {"order": self.token(order)}, self.clock.now())

    def token(self, order: int = 0) -> str:
        return self.account.orders[order].url.partition("order=")[2]

    def picked_up(self, order: int = 0) -> ElementTree.Element:
        """What Twilio is told to do with who has answered."""
        return self.asks(self.account.orders[order].url, sid(order + 1), Direction="outbound-api")

    def answers(self, order: int = 0) -> Far:
        return self.stream(self.picked_up(order), sid(order + 1))

    # --- the call ---

    @property
    def control(self) -> Any:
        return self.agent_now.control

    def transfer(self) -> None:
        """As the agent does it: asks, says its words, hangs up."""
        assert isinstance(self.control.transfer("desk"), Allow)
        self.control.hang_up("transferred")

    def beat(self, *talk: tuple[Far, bytes], times: int = 1) -> None:
        for _ in range(times):
            self.clock.advance(0.02)
            self.heartbeat.beat(self.clock.now())
            for far, says in talk:
                far.ticks(self.clock.now(), says)

    @property
    def results(self) -> list[tuple[str, str]]:
        return [(e["how"], e["result"]) for e in self.events("transfer_attempt")]

    def leg_seconds(self) -> list[tuple[str, float]]:
        used = [e.usage for e in self.records if isinstance(e, UsageMetered)]
        return [(usage.provider, usage.quantity) for usage in used if (usage.kind, usage.unit) == ("leg", "seconds")]


def tags(document: ElementTree.Element) -> list[str]:
    return [re.sub("{.*}", "", child.tag) for child in document]


def _frame(opcode: Literal[1, 8], payload: bytes) -> bytes:
    head = (
        bytes([0x80 | opcode, 0x80 | len(payload)])
        if len(payload) < 126
        else struct.pack("!BBH", 0x80 | opcode, 254, len(payload))
    )
    return head + b"\0\0\0\0" + payload
