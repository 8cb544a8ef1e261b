import base64
import json
import struct
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from tests.gateway.socket_transport import FakeTransport
from trunkline.errors import PeerError
from trunkline.gateway import rfc6455
from trunkline.gateway.leg import Leg, LegCall
from trunkline.gateway.mediasocket import CLOSE_WAIT_S, MAX_HEAD_BYTES, STALL_S, MediaSocket
from trunkline.gateway.twilio.leg import TwilioLeg
from trunkline.gateway.twilio.wire import Started
from trunkline.media.bus import Bus
from trunkline.media.playout import Message
from trunkline.testing.clock import ManualClock
from trunkline.types import CallSid

CALL_SID, STREAM_SID = "CA" + "0a" * 16, "MZ" + "0b" * 16
START_TIMEOUT_S, MEDIA_TIMEOUT_S = 5.0, 3.0


class FakeBus:
    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.breaks = False

    def receive(self, audio: bytes, carrier_ms: int) -> None:
        if self.breaks:
            raise RuntimeError("a bug")
        self.heard.append((audio, carrier_ms))

    def mark_returned(self, name: str) -> None:
        self.heard.append(name)


class FakeCall:
    def __init__(self) -> None:
        self.told: list[Any] = []

    def key(self, digit: str) -> None:
        self.told.append(digit)

    def stopped(self, leg: Leg) -> None:
        self.told.append("stopped")

    def lost(self, leg: Leg, why: str) -> None:
        self.told.append(("lost", why))

    def crashed(self, error: BaseException) -> None:
        self.told.append(("crashed", type(error)))


class FakeDoor:
    def __init__(self) -> None:
        self.full = False
        self.call, self.bus = FakeCall(), FakeBus()
        self.misbehaviour: list[str] = []
        self.codes: list[int] = []
        self.hung_up: list[str] = []

    def welcome(self, socket: MediaSocket) -> bool:
        return not self.full

    def hang_up(self, call_sid: CallSid) -> None:
        self.hung_up.append(call_sid)

    def attach(self, leg: TwilioLeg, started: Started) -> tuple[LegCall, Bus]:
        if started.parameters.get("token") != "good":
            raise PeerError("token_forged", 1008)
        return cast(LegCall, self.call), cast(Bus, self.bus)

    def gone(self, socket: MediaSocket, code: int) -> None:
        self.codes.append(code)

    def misbehaved(self, what: str) -> None:
        self.misbehaviour.append(what)


class Socket:
    """A leg between a fake transport and a real WebSocket client, on a clock moved by hand."""

    def __init__(self) -> None:
        self.clock, self.door, self.transport = ManualClock(), FakeDoor(), FakeTransport()
        self.leg = TwilioLeg(self.door, self.clock, start_timeout_s=START_TIMEOUT_S, media_timeout_s=MEDIA_TIMEOUT_S)
        self.leg.connection_made(cast(Any, self.transport))
        self.client = ClientProtocol(parse_uri("ws://test/twilio/media"))
        self.client.send_request(self.client.connect())
        self.received: list[Any] = []
        self._read = 0

    def flush(self) -> list[Any]:
        """Everything the client has to send goes to the leg; what came back since the last time."""
        self.leg.data_received(b"".join(self.client.data_to_send()))
        return self.news()

    def news(self) -> list[Any]:
        self.client.receive_data(self.transport.written[self._read :])
        self._read = len(self.transport.written)
        return self.client.events_received()

    def send(self, *messages: dict[str, Any] | bytes) -> list[Any]:
        for message in messages:
            self.client.send_text(message if isinstance(message, bytes) else json.dumps(message).encode())
        return self.flush()

    def pass_s(self, seconds: float) -> None:
        """As the switchboard does: a look at the deadlines four times a second."""
        for _ in range(round(seconds / 0.25)):
            self.leg.check(self.clock.advance(0.25))

    def hang_up(self) -> None:
        self.leg.connection_lost(None)

    @property
    def told(self) -> list[Any]:
        return self.door.call.told

    @property
    def close_code(self) -> int | None:
        self.news()
        return None if self.client.close_rcvd is None else self.client.close_rcvd.code


def start(token: str = "good") -> dict[str, Any]:
    return {
        "event": "start",
        "sequenceNumber": "1",
        "start": {
            "streamSid": STREAM_SID,
            "callSid": CALL_SID,
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {"token": token},
        },
    }


def media(number: int = 2, payload: bytes = b"\xff" * 160) -> dict[str, Any]:
    body = {"payload": base64.b64encode(payload).decode(), "timestamp": str(number * 20), "chunk": str(number)}
    return {"event": "media", "sequenceNumber": str(number), "media": body}


def mark(name: str) -> dict[str, Any]:
    return {"event": "mark", "sequenceNumber": "9", "mark": {"name": name}}


STOP = {"event": "stop", "sequenceNumber": "10", "stop": {}}
CONNECTED = {"event": "connected", "protocol": "Call", "version": "1.0.0"}


def opened() -> Socket:
    socket = Socket()
    (response,) = socket.flush()
    assert isinstance(response, Response)
    assert response.status_code == 101
    return socket


def streaming() -> Socket:
    socket = opened()
    socket.send(CONNECTED, start())
    assert socket.leg.authenticated
    return socket


# --- hanging up without a stream ---


def test_a_call_whose_stream_has_ended_is_hung_up_at_twilio_and_once() -> None:
    """Twilio dials a transfer's target, say, and the operator ends the call."""
    socket = streaming()
    socket.leg.close("transferred")
    socket.leg.connection_lost(None)
    assert socket.door.hung_up == []
    socket.leg.close("agent_hung_up")
    socket.leg.close("agent_hung_up")
    assert len(socket.door.hung_up) == 1


@pytest.mark.parametrize("why", ["caller_hung_up", "media_lost", "drained", "transferred", "replaced"])
def test_a_call_that_ended_by_itself_or_may_come_back_is_not(why: str) -> None:
    socket = streaming()
    socket.leg.connection_lost(None)
    socket.leg.close(why)
    assert socket.door.hung_up == []


def test_the_end_of_the_stream_is_enough() -> None:
    socket = streaming()
    socket.leg.close("agent_hung_up")
    socket.leg.connection_lost(None)
    socket.leg.close("agent_hung_up")
    assert socket.door.hung_up == []


# --- handshake ---


def test_the_handshake_may_come_byte_by_byte() -> None:
    socket = Socket()
    for byte in b"".join(socket.client.data_to_send()):
        socket.leg.data_received(bytes([byte]))
    (response,) = socket.news()
    assert response.status_code == 101
    assert not socket.transport.closed


def test_frames_in_the_same_segment_as_the_handshake_are_not_lost() -> None:
    socket = Socket()
    head = b"".join(socket.client.data_to_send())
    socket.client.state = OPEN  # an impatient client
    socket.client.send_text(json.dumps(start()).encode())
    socket.leg.data_received(head + b"".join(socket.client.data_to_send()))
    assert socket.leg.authenticated


HEAD = b"GET /twilio/media HTTP/1.1\r\nHost: test\r\n"
UPGRADE = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (HEAD + b"\r\n", b"426"),
        (HEAD + UPGRADE + b"Sec-WebSocket-Version: 8\r\n\r\n", b"400"),
        (HEAD + UPGRADE + b"\r\n", b"400"),
        (HEAD + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n", b"400"),
        (HEAD + b"no colon\r\n\r\n", b"400"),
        (HEAD + b"Bad Name: x\r\n\r\n", b"400"),
        (b"GET /twilio/media\r\n\r\n", b"400"),
        (b"GET /twilio/media HTTP/0.9\r\n\r\n", b"400"),
        (HEAD + b"X: 1\r\n" * 300 + b"\r\n", b"431"),
        (HEAD + b"X: " + b"y" * 9000 + b"\r\n\r\n", b"431"),
    ],
)
def test_a_bad_handshake_is_answered_in_http_and_closed(head: bytes, status: bytes) -> None:
    socket = Socket()
    socket.leg.data_received(head)
    assert socket.transport.written.split(b" ", 2)[1] == status
    assert socket.transport.closed
    assert socket.door.misbehaviour == ["bad handshake"]
    socket.leg.data_received(b"more")
    socket.hang_up()
    assert socket.door.codes == [1006]


def test_an_endless_head_is_cut_off() -> None:
    socket = Socket()
    socket.leg.data_received(HEAD + b"X: y\r\n" * (MAX_HEAD_BYTES // 6 + 1))
    assert socket.transport.aborted


def test_too_many_strangers_are_turned_away() -> None:
    socket = Socket()
    socket.door.full = True
    (response,) = socket.flush()
    assert response.status_code == 503
    assert socket.transport.closed


# --- deadlines before start ---


@pytest.mark.parametrize("greeted", [True, False])
def test_a_socket_without_start_in_time_is_closed(greeted: bool) -> None:
    socket = opened()
    if greeted:
        socket.send(CONNECTED)
    socket.pass_s(START_TIMEOUT_S)
    assert not socket.transport.written.endswith(b"no start in time")
    socket.pass_s(0.25)
    assert socket.close_code == 1008
    socket.pass_s(CLOSE_WAIT_S + 0.25)
    assert socket.transport.aborted


def test_a_handshake_that_never_ends_is_closed() -> None:
    socket = Socket()
    socket.leg.data_received(HEAD)
    socket.pass_s(START_TIMEOUT_S + 0.25)
    assert socket.transport.closed
    assert socket.transport.written == b""


def test_pings_do_not_buy_time() -> None:
    socket = opened()
    for _ in range(30):
        socket.client.send_ping(b"")
        socket.flush()
        socket.pass_s(0.25)
    assert socket.close_code == 1008


def test_a_token_that_is_refused_closes_with_1008() -> None:
    socket = opened()
    socket.send(start("bad"))
    assert socket.close_code == 1008
    assert not socket.leg.authenticated
    assert socket.told == []


# --- a stream ---


def test_audio_marks_and_keys_reach_the_call() -> None:
    socket = streaming()
    socket.send(media(2, b"\x01" * 160), mark("1:40"), {"event": "dtmf", "dtmf": {"digit": "5"}})
    assert socket.door.bus.heard == [(b"\x01" * 160, 40), "1:40"]
    assert socket.told == ["5"]


def test_what_the_call_sends_is_media_and_a_mark_each() -> None:
    socket = streaming()
    socket.leg.send([Message(b"\x02" * 320, "1:40", 0.0), Message(b"\x03" * 800, "1:140", 0.0)])
    socket.leg.clear()
    events = [json.loads(frame.data) for frame in socket.news()]
    assert [e["event"] for e in events] == ["media", "mark", "media", "mark", "clear"]
    assert base64.b64decode(events[2]["media"]["payload"]) == b"\x03" * 800
    assert events[3]["mark"]["name"] == "1:140"
    socket.leg.send([Message(b"\x02" * 160, "", 0.0)])
    assert [json.loads(frame.data)["event"] for frame in socket.news()] == ["media"]


def test_a_ping_is_answered() -> None:
    socket = streaming()
    socket.client.send_ping(b"are you there")
    assert socket.flush() == [Frame(Opcode.PONG, b"are you there")]


def test_pings_of_a_peer_that_does_not_read_are_not_answered() -> None:
    socket = streaming()
    socket.leg.pause_writing()
    size = len(socket.transport.written)
    for _ in range(100):
        socket.client.send_ping(b"x" * 125)
        socket.leg.data_received(b"".join(socket.client.data_to_send()))
    assert len(socket.transport.written) == size


# --- its end ---


def test_stop_ends_the_call_and_closes_in_order() -> None:
    socket = streaming()
    socket.send(STOP)
    assert socket.told == ["stopped"]
    assert socket.close_code == 1000
    socket.flush()  # the client's half of the closing handshake
    assert socket.transport.closed
    assert not socket.transport.aborted
    socket.hang_up()
    assert socket.told == ["stopped"]
    assert socket.door.codes == [1000]


def test_a_close_of_ours_that_nobody_answers_is_cut_off() -> None:
    socket = streaming()
    socket.leg.close("going away")
    socket.leg.close("drained")  # idempotent
    socket.pass_s(CLOSE_WAIT_S)
    assert not socket.transport.closed
    socket.pass_s(0.25)
    assert socket.transport.aborted
    socket.hang_up()
    assert socket.door.codes == [1001]
    assert socket.told == [("lost", "socket lost")]


def test_nothing_is_heard_and_nothing_said_after_our_close() -> None:
    socket = streaming()
    socket.leg.close()
    size = len(socket.transport.written)
    socket.client.state = OPEN
    socket.client.send_text(json.dumps(media(3)).encode())
    socket.client.send_text(b"not json")
    socket.client.send_binary(b"binary")
    socket.client.send_ping(b"ping")
    socket.leg.data_received(b"".join(socket.client.data_to_send()) + b"\xff" * 20)
    socket.leg.send([Message(b"\x02" * 320, "1:40", 0.0)])
    socket.leg.clear()
    assert socket.door.bus.heard == []
    assert socket.door.misbehaviour == []
    assert len(socket.transport.written) == size


def test_a_close_of_the_peer_is_answered_and_the_call_lost() -> None:
    socket = streaming()
    socket.client.send_close(1001, "bye")
    socket.leg.data_received(b"".join(socket.client.data_to_send()) + b"garbage after it")
    assert socket.close_code == 1001
    assert socket.transport.closed
    assert socket.told == [("lost", "the carrier closed the socket (1001)")]
    socket.hang_up()
    assert socket.told == [("lost", "the carrier closed the socket (1001)")]
    assert socket.door.codes == [1000]


def test_a_socket_that_breaks_loses_the_leg() -> None:
    socket = streaming()
    socket.leg.connection_lost(ConnectionResetError())
    assert socket.told == [("lost", "socket lost")]
    assert socket.door.codes == [1006]
    socket.leg.send([Message(b"\x02" * 320, "1:40", 0.0)])  # nobody there: nothing happens
    socket.leg.close()


def test_media_that_stops_loses_the_leg() -> None:
    socket = streaming()
    socket.pass_s(2.5)
    socket.send(media())
    socket.pass_s(MEDIA_TIMEOUT_S)
    assert socket.told == []
    socket.pass_s(0.25)
    assert socket.told == [("lost", "no media")]
    assert socket.close_code == 1001


def test_a_peer_that_does_not_read_for_five_seconds_is_lost() -> None:
    socket = streaming()
    socket.leg.pause_writing()
    assert not socket.leg.writable
    for number in range(20):
        socket.send(media(number + 2))
        socket.pass_s(STALL_S / 20)
    assert not socket.transport.aborted
    socket.send(media(30))
    socket.pass_s(0.25)
    assert socket.transport.aborted
    assert socket.told == [("lost", "peer does not read")]
    assert socket.door.misbehaviour == ["slow reader"]


def test_a_peer_that_reads_again_in_time_goes_on() -> None:
    socket = streaming()
    for number in range(4):
        socket.leg.pause_writing()
        socket.send(media(number + 2))
        socket.pass_s(2.5)
        socket.leg.resume_writing()
    assert socket.leg.writable
    assert [at for _, at in socket.door.bus.heard][-4:] == [40, 60, 80, 100]
    assert socket.told == []


def test_a_replaced_leg_tells_its_call_nothing_more() -> None:
    socket = streaming()
    socket.leg.detach()
    socket.leg.close("replaced")
    socket.send()
    socket.hang_up()
    assert socket.told == []


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"not json", 1007),
        (json.dumps(CONNECTED).encode(), 1002),
        (json.dumps(start()).encode(), 1002),
        (json.dumps(media(2, bytes(9000))).encode(), 1007),
    ],
)
def test_a_broken_message_loses_the_leg_with_its_code(message: bytes, code: int) -> None:
    socket = streaming()
    socket.send(message)
    assert socket.close_code == code
    assert socket.told[0][0] == "lost"
    assert len(socket.door.misbehaviour) == 1


def test_a_binary_message_is_unsupported_and_a_broken_frame_a_protocol_error() -> None:
    binary = streaming()
    binary.client.send_binary(b"x")
    binary.flush()
    assert binary.close_code == 1003
    broken = streaming()
    broken.leg.data_received(b"\xff\xff")
    assert broken.close_code == 1002
    reserved = streaming()
    reserved.leg.data_received(b"\x88\x82\0\0\0\0" + struct.pack("!H", 1005))
    assert reserved.close_code == 1002


def test_messages_before_a_broken_frame_in_the_same_segment_still_count() -> None:
    socket = streaming()
    socket.client.send_text(json.dumps(STOP).encode())
    socket.leg.data_received(b"".join(socket.client.data_to_send()) + b"\xff\xff")
    assert socket.told == ["stopped"]
    assert socket.close_code == 1000


def test_our_own_bug_ends_this_call_with_1011() -> None:
    socket = streaming()
    socket.door.bus.breaks = True
    socket.send(media(), media(3))
    assert socket.told == [("crashed", RuntimeError)]
    assert socket.close_code == 1011
    socket.hang_up()
    assert socket.told[-1] == ("lost", "socket lost")


def test_every_way_out_tells_the_door_once() -> None:
    ways: list[Callable[[Socket], object]] = [
        lambda s: s.leg.close(),
        lambda s: s.leg.abort(),
        lambda s: s.send(STOP),
        lambda s: s.send(b"no"),
        lambda s: s.pass_s(10),
    ]
    for way in ways:
        socket = streaming()
        way(socket)
        socket.pass_s(CLOSE_WAIT_S + 0.5)
        assert socket.transport.closed
        socket.hang_up()
        assert len(socket.door.codes) == 1
        socket.leg.check(socket.clock.advance(1))


# --- fuzz ---

CODES = {None, 1000, 1001, 1002, 1003, 1007, 1008, 1009}


def masked(opcode: int, payload: bytes, first: int = 0x80) -> bytes:
    head = bytes([first | opcode])
    if len(payload) < 126:
        return head + bytes([0x80 | len(payload)]) + b"\0\0\0\0" + payload
    return head + struct.pack("!BH", 0x80 | 126, len(payload)) + b"\0\0\0\0" + payload


VALID = [json.dumps(m).encode() for m in (CONNECTED, start(), start("bad"), media(), media(3), mark("1:40"), STOP)]


@st.composite
def hostile(draw: st.DrawFn) -> list[bytes]:
    """Chunks: valid messages, mutated ones, frames of every kind, and rubbish, cut anywhere."""
    data = b""
    for _ in range(draw(st.integers(1, 8))):
        kind = draw(st.integers(0, 5))
        if kind <= 1:
            data += masked(rfc6455.TEXT, draw(st.sampled_from(VALID)))
        elif kind == 2:
            text = bytearray(draw(st.sampled_from(VALID)))
            for _ in range(draw(st.integers(1, 4))):
                text[draw(st.integers(0, len(text) - 1))] = draw(st.integers(0, 255))
            data += masked(rfc6455.TEXT, bytes(text))
        elif kind == 3:
            data += masked(
                draw(st.integers(0, 15)), draw(st.binary(max_size=130)), draw(st.sampled_from((0x80, 0, 0x40)))
            )
        elif kind == 4:
            data += draw(st.binary(max_size=40))
        else:
            code = draw(st.integers(990, 1020) | st.integers(2990, 5010))
            data += masked(rfc6455.CLOSE, struct.pack("!H", code) + draw(st.binary(max_size=10)))
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    marks = [0, *places, len(data)]
    return [data[a:b] for a, b in pairwise(marks)]


def _clean_end(socket: Socket) -> None:
    socket.pass_s(MEDIA_TIMEOUT_S + START_TIMEOUT_S + CLOSE_WAIT_S + 1)
    assert socket.transport.closed, "a socket that nobody closes"
    socket.hang_up()
    assert len(socket.door.codes) == 1
    assert socket.door.codes[0] in CODES | {1006}
    assert not [t for t in socket.told if t[0] == "crashed"]
    assert sum(t == "stopped" or t[0] == "lost" for t in socket.told) <= 1


@given(hostile(), st.booleans())
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_comes_in_the_socket_ends_with_a_clean_close(chunks: list[bytes], started: bool) -> None:
    socket = streaming() if started else opened()
    for chunk in chunks:
        socket.leg.data_received(chunk)
        if socket.transport.closed:
            break
    assert socket.close_code in CODES | set(range(1000, 5000))
    _clean_end(socket)


@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda tail: HEAD + tail))
@settings(max_examples=200, deadline=None)
def test_whatever_comes_instead_of_a_handshake_the_socket_ends(data: bytes) -> None:
    socket = Socket()
    socket.leg.data_received(data)
    socket.leg.data_received(b"\r\n\r\n")
    _clean_end(socket)


def _interleaved(chunks: list[bytes]) -> Iterator[bytes | None]:
    for chunk in chunks:
        yield chunk
        yield None


@given(hostile())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_other_call_notices_a_hostile_socket(chunks: list[bytes]) -> None:
    good, bad = streaming(), streaming()
    heard = 0
    for number, chunk in enumerate(_interleaved(chunks), 2):
        if chunk is not None and not bad.transport.closed:
            bad.leg.data_received(chunk)
        good.send(media(number))
        heard += 1
    assert len(good.door.bus.heard) == heard
    assert good.told == []
    assert not good.transport.closed
