"""The desk on a board with fakes around it: whom it lets in, and what becomes of them."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from tests.gateway.socket_transport import FakeTransport
from trunkline.gateway.entering import Entrance, Origins
from trunkline.gateway.joining import Joining
from trunkline.gateway.mediasocket import STRANGER_S
from trunkline.gateway.websocket.desk import AudioSockets, AudioTerms
from trunkline.media.playout import LeadPolicy
from trunkline.metrics import Metrics
from trunkline.ports import Refuse
from trunkline.testing.board import Board, play
from trunkline.types import SessionId, TenantId

from .test_leg import FRAME, MULAW


class Sessions:
    """A Verifier with one token, that takes its time."""

    async def join(self, token: str) -> Joining | Refuse:
        await asyncio.sleep(0.5)
        if token == "away":
            return Refuse("sessions_away", "the store is away")
        if token != "good":
            return Refuse("token_used", "this token was used")
        return Joining(SessionId("s1"), TenantId("default"), "lamp", "owner", "", needs_arming=True, resume_token="r")

    async def check(self, token: str) -> Refuse | None:
        return None


class Device:
    def __init__(self, desk: AudioSockets) -> None:
        self.leg, self.transport = desk.new_leg(), FakeTransport()
        self.leg.connection_made(self.transport)  # type: ignore[arg-type]
        self.client = ClientProtocol(parse_uri("ws://127.0.0.1:8080/ws/audio"))
        self.client.send_request(self.client.connect())
        self._read = 0
        self.say()
        (self.status,) = self.news()

    def say(self, *messages: dict[str, Any] | bytes) -> None:
        for message in messages:
            if isinstance(message, bytes):
                self.client.send_binary(message)
            else:
                self.client.send_text(json.dumps(message).encode())
        self.leg.data_received(b"".join(self.client.data_to_send()))

    def news(self) -> list[Any]:
        self.client.receive_data(self.transport.written[self._read :])
        self._read = len(self.transport.written)
        found: list[Any] = []
        for event in self.client.events_received():
            if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                found.append(json.loads(bytes(event.data)))
            elif isinstance(event, Frame) and event.opcode is Opcode.CLOSE:
                found.append(int.from_bytes(event.data[:2], "big"))
            elif not isinstance(event, Frame):
                found.append(event.status_code)  # type: ignore[union-attr]
        return found


def at_the_door(
    scenario: Callable[[Board, AudioSockets], Coroutine[Any, Any, None]],
    *,
    max_calls: int = 10,
    anonymous: bool = True,
    max_unauthenticated: int = 3,
) -> Board:
    async def with_desk(board: Board) -> None:
        desk = AudioSockets(
            Entrance(board.switchboard, Sessions(), anonymous=anonymous),
            Origins("http://127.0.0.1:8080"),
            AudioTerms(LeadPolicy(200, 200, 600, 40), max_unauthenticated, 5.0, 10.0),
            Metrics(),
            board.clock,
        )
        try:
            await scenario(board, desk)
        finally:
            await desk.close()

    return play(Board(max_calls), with_desk)


def test_a_device_with_a_token_is_let_in_and_driven() -> None:
    async def scenario(board: Board, desk: AudioSockets) -> None:
        device = Device(desk)
        device.say(MULAW | {"token": "good"}, FRAME)
        assert (device.status, device.news()) == (101, [])
        await asyncio.sleep(1.0)
        joined, unarmed = device.news()
        assert (joined["type"], joined["session_id"], joined["resume_token"]) == ("joined", "s1", "r")
        assert unarmed["code"] == "not_armed"
        assert board.attendants[0].bus.stats.received_frames in range(20, 28)  # silence, by the desk's beat
        device.leg.connection_lost(None)

    board = at_the_door(scenario)
    assert [reason for reason, _ in board.ends()] == ["media_lost"]


@pytest.mark.parametrize(
    ("token", "told", "closed"), [("used", "token_used", 1008), ("away", "sessions_away", 1013), ("", "no_token", 1008)]
)
def test_who_is_not_let_in_leaves_no_call(token: str, told: str, closed: int) -> None:
    async def scenario(board: Board, desk: AudioSockets) -> None:
        device = Device(desk)
        device.say(MULAW | {"token": token})
        await asyncio.sleep(1.0)
        refused, code = device.news()
        assert (refused["code"], code) == (told, closed)
        assert ("retry_after_s" in refused) == (closed == 1013)
        assert board.switchboard.live_calls == 0

    at_the_door(scenario, anonymous=False)


def test_where_no_line_is_free_and_while_the_gateway_stops() -> None:
    async def scenario(board: Board, desk: AudioSockets) -> None:
        first, second = Device(desk), Device(desk)
        for device in (first, second):
            device.say(MULAW)
            await asyncio.sleep(0.1)
        assert first.news()[0]["type"] == "joined"
        refused, code = second.news()
        assert (refused["code"], code) == ("overloaded", 1013)
        desk.say_goodbye()
        assert first.news() == [1001]
        assert Device(desk).status == 503

    at_the_door(scenario, max_calls=1)


def test_strangers_keep_nobody_out_for_long() -> None:
    async def scenario(board: Board, desk: AudioSockets) -> None:
        strangers = [Device(desk) for _ in range(3)]
        late = Device(desk)
        assert (late.status, late.transport.closed) == (503, True)
        late.leg.connection_lost(None)
        await asyncio.sleep(STRANGER_S + 0.1)
        device = Device(desk)
        device.say(MULAW)
        await asyncio.sleep(0.1)
        assert (device.status, device.news()[0]["type"]) == (101, "joined")
        assert [stranger.transport.aborted for stranger in strangers].count(True) == 1
        await asyncio.sleep(5.0)
        told = [stranger.news()[0]["code"] for stranger in strangers if not stranger.transport.aborted]
        assert told == ["too_late", "too_late"]
        for each in (*strangers, device):
            each.leg.connection_lost(None)

    at_the_door(scenario)


def test_whose_token_we_look_at_is_no_stranger_that_stayed() -> None:
    async def scenario(board: Board, desk: AudioSockets) -> None:
        devices = [Device(desk) for _ in range(3)]
        for device in devices:
            device.leg.opened_at -= STRANGER_S
            device.say(MULAW | {"token": "good"})
        assert Device(desk).status == 503
        await asyncio.sleep(0.6)
        assert devices[2].news()[0]["type"] == "joined"

    at_the_door(scenario)


def test_a_second_socket_of_the_session_takes_over() -> None:
    async def scenario(board: Board, desk: AudioSockets) -> None:
        first, second = Device(desk), Device(desk)
        for device in (first, second):
            device.say(MULAW | {"token": "good"})
            await asyncio.sleep(0.6)
        assert first.news()[-1] == 1001
        assert second.news()[0]["type"] == "joined"
        assert board.switchboard.live_calls == 1
        first.leg.connection_lost(None)
        await asyncio.sleep(0.1)
        assert board.switchboard.live_calls == 1

    at_the_door(scenario)
