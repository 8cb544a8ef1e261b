"""What the SDK tells and what of it is ours; a room of its own class that was never connected."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("livekit.rtc")

from livekit import rtc

from trunkline.gateway.livekit import rtc as ours
from trunkline.gateway.livekit.rtc import SdkRoom


class Sink:
    def __init__(self) -> None:
        self.told: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **more: self.told.append((name, *args, *more.values()))


KIND = rtc.DataPacketKind.KIND_RELIABLE


def participant(identity: str = "kitchen", reason: Any = None) -> Any:
    return SimpleNamespace(identity=identity, disconnect_reason=reason)


def publication(kind: Any = rtc.TrackKind.KIND_AUDIO, source: Any = rtc.TrackSource.SOURCE_MICROPHONE) -> Any:
    asked: list[bool] = []
    return SimpleNamespace(kind=kind, source=source, asked=asked, set_subscribed=asked.append)


def room() -> tuple[SdkRoom, Any, Sink]:
    wire, sink = SdkRoom(), Sink()
    wire._device_id, wire._sink = "kitchen", sink
    wire._listen()
    return wire, wire._room, sink


def test_only_the_devices_participant_counts() -> None:
    async def scenario() -> None:
        _, emitter, sink = room()
        stranger = participant("somebody")
        emitter.emit("participant_connected", stranger)
        emitter.emit("data_received", rtc.DataPacket(b"x", KIND, stranger, "events"))
        emitter.emit("data_received", rtc.DataPacket(b"x", KIND, None, "events"))
        emitter.emit("data_received", rtc.DataPacket(b"x", KIND, participant(), "chat"))
        theirs = publication()
        emitter.emit("track_published", theirs, stranger)
        emitter.emit("participant_disconnected", stranger)
        assert sink.told == []
        assert theirs.asked == []
        emitter.emit("participant_connected", participant())
        emitter.emit("data_received", rtc.DataPacket(b"{}", KIND, participant(), "events"))
        assert sink.told == [("entered",), ("message", b"{}")]

    asyncio.run(scenario())


def test_only_a_microphone_is_subscribed_to() -> None:
    async def scenario() -> None:
        _, emitter, _ = room()
        screen = publication(source=rtc.TrackSource.SOURCE_SCREENSHARE_AUDIO)
        camera = publication(rtc.TrackKind.KIND_VIDEO, rtc.TrackSource.SOURCE_CAMERA)
        microphone = publication()
        for each in (screen, camera, microphone):
            emitter.emit("track_published", each, participant())
        assert (screen.asked, camera.asked, microphone.asked) == ([], [], [True])

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("reason", "in_order"),
    [
        (None, True),
        (rtc.DisconnectReason.CLIENT_INITIATED, True),
        (rtc.DisconnectReason.PARTICIPANT_REMOVED, True),
        (rtc.DisconnectReason.CONNECTION_TIMEOUT, False),
        (rtc.DisconnectReason.SIGNAL_CLOSE, False),
        (rtc.DisconnectReason.DUPLICATE_IDENTITY, False),
    ],
)
def test_a_participant_that_was_lost_has_not_hung_up(reason: Any, in_order: bool) -> None:
    async def scenario() -> None:
        _, emitter, sink = room()
        emitter.emit("participant_disconnected", participant(reason=reason))
        name, _, told = sink.told[0]
        assert (name, told) == ("departed", in_order)

    asyncio.run(scenario())


def test_the_end_of_the_room_is_told_once() -> None:
    async def scenario() -> None:
        _, emitter, sink = room()
        emitter.emit("disconnected", rtc.DisconnectReason.ROOM_DELETED)
        emitter.emit("disconnected", rtc.DisconnectReason.ROOM_DELETED)
        assert sink.told == [("gone", "the room is gone (room_deleted)")]

    asyncio.run(scenario())


def test_a_reconnect_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(ours, "RECONNECT_S", 0.0)
        _, emitter, sink = room()
        emitter.emit("reconnecting")
        emitter.emit("reconnected")
        await asyncio.sleep(0.01)
        assert sink.told == []
        emitter.emit("reconnecting")
        await asyncio.sleep(0.01)
        assert sink.told == [("gone", "the room cannot be reached any more")]

    asyncio.run(scenario())


def test_what_the_room_does_not_take_is_bounded() -> None:
    async def scenario() -> None:
        wire, _, _ = room()
        assert [wire.play(b"") for _ in range(ours.MAX_QUEUED + 1)].count(False) == 1
        assert [wire.tell("") for _ in range(ours.MAX_UNTOLD + 1)].count(False) == 1
        wire.clear()
        assert wire.play(b"")

    asyncio.run(scenario())


def test_an_error_of_the_server_holds_no_token() -> None:
    assert ours._why("ws://x/rtc?access_token=a.b.c:\n refused", "a.b.c") == "ws://x/rtc?access_token=...: refused"
