"""Tokens and real legs on fake transports, at a switchboard with fakes around it."""

import asyncio
import base64
import json
import struct
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from trunkline.errors import PeerError
from trunkline.gateway.mediasocket import STRANGER_S
from trunkline.gateway.twilio.leg import TwilioLeg
from trunkline.gateway.twilio.sockets import SocketLimits, Sockets
from trunkline.gateway.twilio.tokens import Tokens
from trunkline.gateway.twilio.wire import Started
from trunkline.testing.board import Board, FakeLeg, play, sid
from trunkline.types import CallId, StreamSid


class Here(Board):
    """A board with Twilio's sockets."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = Tokens()
        self.sockets = Sockets(self.switchboard, self.tokens, SocketLimits(4, 5.0, 3.0), self.metrics, self.clock)

    def knock(self, call_id: CallId, number: int = 1) -> FakeLeg:
        leg = FakeLeg()
        token = self.tokens.issue(sid(number), call_id, self.clock.now())
        started = Started(StreamSid("MZ" + "0" * 32), sid(number), {"token": token})
        self.sockets.attach(cast(TwilioLeg, leg), started)
        return leg


def run(scenario: Callable[[Here], Coroutine[Any, Any, None]]) -> None:
    play(Here(), scenario)


def test_a_call_without_a_stream_is_ended_by_whoever_can() -> None:
    async def scenario(here: Here) -> None:
        here.sockets.hang_up(sid(1))  # nobody
        asked: list[str] = []
        limits = SocketLimits(4, 5.0, 3.0)
        Sockets(here.switchboard, here.tokens, limits, here.metrics, here.clock, asked.append).hang_up(sid(2))
        assert asked == [sid(2)]

    run(scenario)


# --- the media socket's door ---


def test_a_token_opens_one_stream_of_its_own_call() -> None:
    async def scenario(here: Here) -> None:
        call_id = here.admit(1)
        here.admit(2)
        token = here.tokens.issue(sid(1), call_id, here.clock.now())

        def knock(number: int, shown: str) -> None:
            here.sockets.attach(
                cast(TwilioLeg, FakeLeg()), Started(StreamSid("MZ"), sid(number), {"token": shown} if shown else {})
            )

        for number, shown in ((1, ""), (1, "rubbish"), (2, token)):
            with pytest.raises(PeerError) as refusal:
                knock(number, shown)
            assert refusal.value.close_code == 1008
        knock(1, token)
        with pytest.raises(PeerError, match="used"):
            knock(1, token)

    run(scenario)


def test_a_token_outlives_its_call_in_vain() -> None:
    async def scenario(here: Here) -> None:
        call_id = here.admit()
        here.switchboard.status(sid(), "canceled", None)
        with pytest.raises(PeerError, match="no such call"):
            here.knock(call_id)
        ending = here.admit(2)
        here.knock(ending, 2)
        here.switchboard.hang_up(ending)
        with pytest.raises(PeerError, match="is ending"):
            here.knock(ending, 2)

    run(scenario)


# --- sockets: real legs on fake transports ---


class Transport:
    def __init__(self, leg: TwilioLeg) -> None:
        self.leg, self.written, self.closed = leg, b"", False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.leg.connection_lost, None)

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def set_write_buffer_limits(self, high: int) -> None: ...


HANDSHAKE = (
    b"GET /twilio/media HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def connect(here: Here) -> Transport:
    leg = here.sockets.new_leg()
    transport = Transport(leg)
    leg.connection_made(cast(Any, transport))
    leg.data_received(HANDSHAKE)
    return transport


def text(message: dict[str, Any]) -> bytes:
    payload = json.dumps(message).encode()
    return struct.pack("!BBH", 0x81, 0x80 | 126, len(payload)) + b"\0\0\0\0" + payload


def start(here: Here, call_id: CallId, number: int = 1) -> bytes:
    token = here.tokens.issue(sid(number), call_id, here.clock.now())
    body = {
        "streamSid": "MZ" + "0" * 32,
        "callSid": sid(number),
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"token": token},
    }
    return text({"event": "start", "sequenceNumber": "1", "start": body})


def media(number: int) -> bytes:
    body = {"payload": base64.b64encode(b"\xff" * 160).decode(), "timestamp": str(number * 20), "chunk": "1"}
    return text({"event": "media", "sequenceNumber": str(number), "media": body})


def test_strangers_have_a_limit_and_known_streams_do_not_count() -> None:
    async def scenario(here: Here) -> None:
        known = connect(here)
        known.leg.data_received(start(here, here.admit()))
        strangers = [connect(here) for _ in range(4)]
        assert all(b" 101 " in s.written for s in strangers)
        assert b" 503 " in connect(here).written
        strangers[0].leg.close()  # one that is leaving does not count
        assert b" 101 " in connect(here).written
        assert b" 503 " in connect(here).written

    run(scenario)


def test_strangers_cannot_keep_a_caller_out_for_long() -> None:
    async def scenario(here: Here) -> None:
        strangers = []
        for _ in range(4):
            strangers.append(connect(here))
            await asyncio.sleep(0.1)
        assert b" 503 " in connect(here).written
        await asyncio.sleep(STRANGER_S - 0.35)
        caller = connect(here)
        assert b" 101 " in caller.written
        assert [s.closed for s in strangers] == [True, False, False, False]
        caller.leg.data_received(start(here, here.admit()))
        assert here.agent_now.greeting is None

    run(scenario)


def test_a_silent_stream_is_lost_and_its_call_may_come_back() -> None:
    async def scenario(here: Here) -> None:
        socket = connect(here)
        socket.leg.data_received(start(here, here.admit()) + media(2))
        await asyncio.sleep(2.9)
        assert here.ends() == []
        await asyncio.sleep(0.5)
        assert here.ends() == [("media_lost", "no media")]
        await asyncio.sleep(3)
        assert socket.closed
        assert here.sockets._legs == set()
        assert here.sockets._checking is None

    run(scenario)


def test_sockets_whose_peers_do_not_answer_are_gone_after_close() -> None:
    async def scenario(here: Here) -> None:
        stranger, known = connect(here), connect(here)
        known.leg.data_received(start(here, here.admit()))
        await here.sockets.close()
        for socket in (stranger, known):
            assert socket.closed
            assert b"\x88" in socket.written
        assert here.sockets._legs == set()
        assert b" 503 " in connect(here).written

    run(scenario)


def test_close_does_not_wait_longer_than_the_peers_do() -> None:
    async def scenario(here: Here) -> None:
        sockets = [connect(here) for _ in range(3)]
        closing = asyncio.create_task(here.sockets.close())
        await asyncio.sleep(0.1)
        for socket in sockets:
            socket.leg.data_received(b"\x88\x82\0\0\0\0\x03\xe9")  # their half of the closing handshake
        await asyncio.wait_for(closing, 0.1)
        assert here.sockets._checking is None

    run(scenario)


def test_a_bug_in_one_sockets_deadline_leaves_the_others_theirs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(here: Here) -> None:
        bad, good = connect(here), connect(here)

        def check(now: float) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(bad.leg, "check", check)
        await asyncio.sleep(8)
        assert bad.closed
        assert good.closed

    run(scenario)
    assert "a bug" in caplog.text


def test_counts_of_a_socket_reach_the_metrics() -> None:
    async def scenario(here: Here) -> None:
        socket = connect(here)
        socket.leg.data_received(start(here, here.admit()) + media(2) + media(9) + text({"event": "news"}))
        socket.leg.abort()
        await asyncio.sleep(0)
        exposed = here.metrics.text().decode()
        assert 'trunkline_drops_total{cause="sequence_gap"} 6.0' in exposed
        assert 'trunkline_drops_total{cause="bad_message"} 1.0' in exposed
        assert 'trunkline_ws_closes_total{code="1006"} 1.0' in exposed

    run(scenario)
