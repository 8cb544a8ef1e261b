"""The agent's visits to rooms, and its calls there: a real switchboard, a room that is played, time that is made."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any

import jwt
import pytest

from tests.gateway.test_joining import AGAIN, FIRST
from trunkline.gateway.joining import Joining
from trunkline.gateway.livekit.attendance import RETURN_S
from trunkline.gateway.livekit.desk import ANSWER_S, AWAY_S, SLACK_S, DeskTerms, LivekitDesk
from trunkline.gateway.livekit.outgoing import livekit_lead
from trunkline.gateway.livekit.room import RoomError, RoomSink
from trunkline.gateway.sessions.livekit import LivekitServer
from trunkline.media.playout import Message
from trunkline.ports import Refuse
from trunkline.testing.board import Board, play
from trunkline.types import SessionId

SERVER = LivekitServer("wss://livekit.example.com", "APIkey", "s" * 32)
ME = SessionId("ses_1")
FRAME = b"\0" * 320  # 20 ms of 8 kHz PCM


class Room:
    """`RoomWire`."""

    def __init__(self, takes_s: float = 0.0, error: str = "") -> None:
        self.takes_s, self.error = takes_s, error
        self.token = self.url = ""
        self.sink: RoomSink | None = None
        self.played: list[bytes] = []
        self.told: list[dict[str, Any]] = []
        self.clears = 0
        self.lingered: float | None = None
        self.takes = True

    async def enter(self, url: str, token: str, device_id: str, sink: RoomSink) -> None:
        await asyncio.sleep(self.takes_s)
        if self.error:
            raise RoomError(self.error)
        self.url, self.token, self.sink = url, token, sink

    def play(self, pcm16: bytes) -> bool:
        self.played.append(pcm16)
        return self.takes

    def clear(self) -> None:
        self.clears += 1

    def tell(self, message: str) -> bool:
        self.told.append(json.loads(message))
        return self.takes

    def close(self, linger_s: float = 0.0) -> None:
        if self.lingered is None:
            self.lingered = linger_s

    async def closed(self) -> None: ...

    @property
    def left(self) -> bool:
        return self.lingered is not None


class House(Board):
    def __init__(self, max_rooms: int = 3) -> None:
        super().__init__()
        self.rooms: list[Room] = []
        self.next_room: Callable[[], Room] = Room
        self.joinings: list[Joining | Refuse] = [FIRST, AGAIN]
        self.entered: list[SessionId] = []
        terms = DeskTerms(SERVER, livekit_lead(), max_rooms)
        self.desk = LivekitDesk(self.switchboard, self, self._room, terms, self.clock)

    def _room(self) -> Room:
        self.rooms.append(self.next_room())
        return self.rooms[-1]

    async def enter(self, session_id: SessionId) -> Joining | Refuse:
        self.entered.append(session_id)
        return self.joinings.pop(0)

    async def invite(self, session_id: SessionId = ME, valid_s: float = 60) -> Mapping[str, Any]:
        return await self.desk.invite(session_id, "kitchen", self.clock.wall() + timedelta(seconds=valid_s))

    async def talking(self) -> tuple[Room, RoomSink]:
        """With the device in the room, and its call begun."""
        await self.invite()
        room = self.rooms[-1]
        sink = self.comes(room)
        await asyncio.sleep(0.5)
        assert room.told[0]["type"] == "joined"
        return room, sink

    def comes(self, room: Room) -> RoomSink:
        assert room.sink is not None
        room.sink.entered()
        room.sink.microphone(True)
        room.sink.hears()
        return room.sink


def scene(scenario: Callable[[House], Coroutine[Any, Any, None]], house: House | None = None) -> House:
    async def whole(house: House) -> None:
        await scenario(house)
        await house.desk.close()

    return play(house or House(), whole)


def test_the_agent_is_in_the_room_before_the_device_is_told_of_it() -> None:
    async def scenario(house: House) -> None:
        told = await house.invite()
        assert told["livekit_url"] == house.rooms[0].url == SERVER.url
        options: Any = {"verify_exp": False, "verify_nbf": False}
        device = jwt.decode(told["livekit_token"], SERVER.api_secret, algorithms=["HS256"], options=options)
        agent = jwt.decode(house.rooms[0].token, SERVER.api_secret, algorithms=["HS256"], options=options)
        assert (device["sub"], device["video"]["room"]) == ("kitchen", ME)
        assert (agent["sub"], agent["video"], agent["kind"]) == ("agent/trunkline", device["video"], "agent")
        assert "kind" not in device

    house = scene(scenario)
    assert house.records == [], "no call without a participant"


def test_a_server_that_is_away_is_said_so_and_not_asked_again_at_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(house: House) -> None:
        house.next_room = lambda: Room(error="refused")
        for _ in range(3):
            refused = (await house.invite())["livekit_refused"]
            assert refused["code"] == "livekit_away"
        assert len(house.rooms) == 1
        await asyncio.sleep(AWAY_S)
        house.next_room = Room
        assert "livekit_url" in await house.invite()

    scene(scenario)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_slow_server_holds_the_answer_up_for_two_seconds_and_ten_end_it() -> None:
    async def scenario(house: House) -> None:
        house.next_room = lambda: Room(takes_s=60)
        begun = house.clock.now()
        assert "livekit_url" in await house.invite()
        assert house.clock.now() - begun == pytest.approx(ANSWER_S)
        await asyncio.sleep(9)
        assert house.rooms[0].left
        assert house.desk.rooms == 0
        assert (await house.invite())["livekit_refused"]["code"] == "livekit_away"

    scene(scenario)


def test_there_are_rooms_enough_for_so_many_and_none_after_the_goodbye() -> None:
    async def scenario(house: House) -> None:
        for number in range(3):
            assert "livekit_url" in await house.invite(SessionId(f"ses_{number}"))
        assert (await house.invite(SessionId("ses_9")))["livekit_refused"]["code"] == "overloaded"
        assert "livekit_url" in await house.invite(SessionId("ses_0")), "another token for a room we are in"
        assert len(house.rooms) == 3
        house.desk.say_goodbye()
        assert all(room.left for room in house.rooms)
        assert (await house.invite(SessionId("ses_9")))["livekit_refused"]["code"] == "draining"

    scene(scenario)


def test_nobody_comes() -> None:
    async def scenario(house: House) -> None:
        await house.invite(valid_s=60)
        await asyncio.sleep(60 + SLACK_S - 1)
        assert not house.rooms[0].left
        await asyncio.sleep(2)
        assert house.rooms[0].left

    assert scene(scenario).records == []


def test_a_call_in_a_room_has_the_sessions_and_its_leg() -> None:
    async def scenario(house: House) -> None:
        room, sink = await house.talking()
        line = next(iter(house.switchboard._calls.values()))
        assert line.started.leg == "livekit"
        assert room.told[0] | {"session_id": ME, "call_id": line.id, "resumed": False} == room.told[0]
        sink.message(b'{"type":"text","text":"hello  there"}')
        sink.message(b'{"type":"dtmf","digits":"12"}')
        sink.message(b'{"type":"flush"}')
        sink.message(b"no json")
        attendant = house.agent_now
        assert (attendant.written, attendant.keys, attendant.flushes) == (["hello there"], "12", 1)
        assert room.told[-1]["code"] == "not_json"
        sink.departed("the participant has left", in_order=True)
        assert house.ends(line.id) == [("caller_hung_up", "")]
        assert house.events("media")[0]["device_frames"] == 0
        assert not room.left, "it may come back"

    scene(scenario)


def test_audio_counts_from_armed_on_and_the_lane_hears_silence_until_then() -> None:
    async def scenario(house: House) -> None:
        room, sink = await house.talking()  # FIRST needs arming
        bus = house.agent_now.bus
        before = bus.stats.received_frames
        for _ in range(3):
            sink.audio(FRAME)
        assert bus.stats.received_frames == before
        assert [told["code"] for told in room.told if told["type"] == "mistake"] == ["not_armed"]
        await asyncio.sleep(1)
        assert bus.stats.received_frames - before == pytest.approx(50, abs=2)
        sink.message(b'{"type":"armed","by":"button"}')
        before = bus.stats.received_frames
        await asyncio.sleep(1)
        assert bus.stats.received_frames == before, "what is missing now is missing"
        sink.audio(FRAME)
        sink.audio(b"odd")
        assert bus.stats.received_frames == before + 1
        assert house.events("armed") == [{"by": "button", "wake_word": "", "score": None}]
        sink.microphone(False)
        await asyncio.sleep(0.2)
        assert bus.stats.received_frames > before + 5

    scene(scenario)


def test_what_is_said_is_played_and_a_clear_drops_the_rest() -> None:
    async def scenario(house: House) -> None:
        room, _ = await house.talking()
        bus = house.agent_now.bus
        bus.leg.send([Message(b"\xff" * 1600, "0:200", 0.0)])
        assert len(room.played[-1]) == 3200
        await asyncio.sleep(0.1)
        assert bus.leg.clear() == 120
        assert room.clears == 1

    scene(scenario)


def test_the_device_comes_back_and_goes_on() -> None:
    async def scenario(house: House) -> None:
        room, sink = await house.talking()
        sink.departed("connection_timeout", in_order=False)
        assert house.ends() == [("media_lost", "connection_timeout")]
        await asyncio.sleep(RETURN_S - 1)
        house.comes(room)
        await asyncio.sleep(0.5)
        assert [told["resumed"] for told in room.told if told["type"] == "joined"] == [False, True]
        assert len(house.rooms) == 1

    scene(scenario)


def test_our_end_of_the_call_is_the_end_of_the_visit() -> None:
    async def scenario(house: House) -> None:
        room, _ = await house.talking()
        house.agent_now.bus.leg.send([Message(b"\xff" * 1600, "", 0.0)])
        next(iter(house.switchboard._calls.values())).hang_up("agent_hung_up")
        assert room.told[-1] == {"type": "ended", "reason": "agent_hung_up"}
        assert room.lingered == pytest.approx(0.6)
        assert house.desk.rooms == 0

    assert [reason for reason, _ in scene(scenario).ends()] == ["agent_hung_up"]


def test_a_room_that_is_gone_loses_the_media() -> None:
    async def scenario(house: House) -> None:
        room, sink = await house.talking()
        sink.gone("the room is gone (room_deleted)")
        assert room.left

    assert scene(scenario).ends() == [("media_lost", "the room is gone (room_deleted)")]


def test_a_session_that_is_over_takes_the_agent_out_of_its_room() -> None:
    async def scenario(house: House) -> None:
        await house.invite()
        house.desk.forget(ME)
        house.desk.forget(SessionId("ses_2"))
        assert house.rooms[0].left

    scene(scenario)


def test_who_is_refused_is_told_why_and_left_alone() -> None:
    async def scenario(house: House) -> None:
        house.joinings = [Refuse("draining", "the gateway is being stopped")]
        await house.invite()
        house.comes(house.rooms[0])
        await asyncio.sleep(0.5)
        assert house.rooms[0].told == [{"type": "refused", "code": "draining", "why": "the gateway is being stopped"}]
        assert house.rooms[0].left

    assert scene(scenario).records == []


def test_a_bug_ends_its_own_call_only() -> None:
    async def scenario(house: House) -> None:
        _, sink = await house.talking()
        house.agent_now.key = None  # type: ignore[method-assign,assignment]
        sink.message(b'{"type":"dtmf","digits":"1"}')

    assert [reason for reason, _ in scene(scenario).ends()] == ["error"]


def test_a_room_that_takes_nothing_is_counted() -> None:
    async def scenario(house: House) -> None:
        room, _ = await house.talking()
        room.takes = False
        leg: Any = house.agent_now.bus.leg
        leg.send([Message(b"\xff" * 800, "", 0.0)])
        leg.tell("{}")
        assert (leg.stats()["untaken_ms"], leg.stats()["dropped_events"]) == (100, 1)

    scene(scenario)
