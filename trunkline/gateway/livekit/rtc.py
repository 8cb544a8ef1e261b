"""A room by LiveKit's own SDK, the one file that knows it. Its media are libwebrtc's, in threads of its own; each event
comes through one callback to all that subscribe, so what we can do for its cost is few events: frames of 20 ms, voice
in messages of 100, no track but the device's microphone.
"""

import asyncio
import contextlib
import logging
from collections import deque
from typing import Any

from livekit import rtc
from livekit.rtc.participant import PublishDataError

from trunkline.gateway.livekit.room import EVENTS_TOPIC, RoomError, RoomSink
from trunkline.types import FRAME_MS

log = logging.getLogger(__name__)

RATE_HZ = 8000
QUEUE_MS = 600  # of the SDK; beyond the lead, so that a message is taken at once
MAX_QUEUED = 16  # messages of audio that it has not taken
MAX_UNTOLD = 64  # events that wait to be sent
STUCK_S = 3.0
PUBLISH_S = 10.0
CONNECT_S = 4.0  # of one attempt
RECONNECT_S = 10.0
LEAVE_S = 3.0
LAST_WORDS_S = 0.2  # for an event that is told as we go
BACKLOG_FRAMES = 50  # of the caller's audio, should the loop be held up
_VOICE = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE, dtx=True, red=False)
_VOICE.audio_encoding.max_bitrate = 64_000  # libopus leaves SILK for CELT: half the work of any lower rate
_IN_ORDER = {rtc.DisconnectReason.CLIENT_INITIATED, rtc.DisconnectReason.PARTICIPANT_REMOVED}

logging.getLogger("livekit").setLevel(logging.CRITICAL)  # it tells of every connection; what fails we tell


class SdkRoom:
    """`room.RoomWire`."""

    def __init__(self) -> None:
        self._room = rtc.Room()
        self._source: rtc.AudioSource | None = None
        self._sink: RoomSink | None = None
        self._device_id = ""
        self._connecting: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._reader: asyncio.Task[None] | None = None
        self._voice: deque[bytes] = deque()
        self._told: deque[str] = deque()
        self._present = asyncio.Event()
        self._voice_due, self._told_due = asyncio.Event(), asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self._patience: asyncio.TimerHandle | None = None

    # --- entering ---

    async def enter(self, url: str, token: str, device_id: str, sink: RoomSink) -> None:
        self._device_id, self._sink = device_id, sink
        self._listen()
        options = rtc.RoomOptions(auto_subscribe=False, connect_timeout=CONNECT_S)
        # Not cancelled with us: the SDK would go on, and be in the room without anybody knowing.
        self._connecting = asyncio.create_task(self._room.connect(url, token, options), name="livekit connecting")
        try:
            await asyncio.shield(self._connecting)
        except rtc.ConnectError as error:
            raise RoomError(_why(error.message, token)) from None
        except Exception as error:
            raise RoomError(type(error).__name__) from None
        if self._closing is not None:
            raise RoomError("it was left meanwhile")
        self._tasks = [
            asyncio.create_task(self._voice_of_ours(), name="livekit voice"),
            asyncio.create_task(self._tell(), name="livekit events"),
        ]
        device = self._room.remote_participants.get(device_id)
        if device is not None:
            self._entered(device)
            for publication in device.track_publications.values():
                self._published(publication, device)

    def _listen(self) -> None:
        for event, listener in (
            ("participant_connected", self._entered),
            ("participant_disconnected", self._departed),
            ("track_published", self._published),
            ("track_subscribed", self._subscribed),
            ("track_unsubscribed", self._unsubscribed),
            ("track_muted", lambda participant, publication: self._muted(participant, publication, True)),
            ("track_unmuted", lambda participant, publication: self._muted(participant, publication, False)),
            ("local_track_subscribed", self._heard),
            ("data_received", self._message),
            ("reconnecting", self._reconnecting),
            ("reconnected", self._reconnected),
            ("disconnected", self._disconnected),
        ):
            self._room.on(event, listener)  # type: ignore[arg-type]

    # --- what the SDK tells ---

    def _entered(self, participant: Any) -> None:
        if participant.identity == self._device_id and self._sink is not None:
            self._present.set()
            self._sink.entered()

    def _departed(self, participant: Any) -> None:
        if participant.identity == self._device_id and self._sink is not None:
            self._stop_reading()
            self._present.clear()
            self._voice_due.set()
            reason = participant.disconnect_reason
            in_order = reason is None or reason in _IN_ORDER
            name = "" if reason is None else rtc.DisconnectReason.Name(reason).lower()
            self._sink.departed(
                f"the participant has left ({name})" if name else "the participant has left", in_order=in_order
            )

    def _published(self, publication: Any, participant: Any) -> None:
        if participant.identity == self._device_id and _is_microphone(publication):
            publication.set_subscribed(True)

    def _subscribed(self, track: Any, publication: Any, participant: Any) -> None:
        if participant.identity != self._device_id or not _is_microphone(publication) or self._sink is None:
            return
        self._stop_reading()
        self._reader = asyncio.create_task(self._read(track, self._sink), name="livekit hearing")
        self._sink.microphone(True)

    def _unsubscribed(self, track: Any, publication: Any, participant: Any) -> None:
        if participant.identity == self._device_id and _is_microphone(publication) and self._sink is not None:
            self._stop_reading()
            self._sink.microphone(False)

    def _muted(self, participant: Any, publication: Any, muted: bool) -> None:
        if participant.identity == self._device_id and _is_microphone(publication) and self._sink is not None:
            self._sink.microphone(not muted and self._reader is not None)

    def _heard(self, track: Any) -> None:
        if self._sink is not None:
            self._sink.hears()

    def _message(self, packet: Any) -> None:
        sender = packet.participant.identity if packet.participant is not None else ""
        if packet.topic == EVENTS_TOPIC and sender == self._device_id and self._sink is not None:
            self._sink.message(packet.data)

    def _reconnecting(self) -> None:
        """The SDK tries for a minute and more; nobody waits so long on the phone."""
        if self._patience is None:
            why = "the room cannot be reached any more"
            self._patience = asyncio.get_running_loop().call_later(RECONNECT_S, self._gone, why)

    def _reconnected(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _disconnected(self, reason: Any) -> None:
        self._gone(f"the room is gone ({rtc.DisconnectReason.Name(reason).lower()})")

    def _gone(self, why: str) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.gone(why)

    # --- the device's voice ---

    async def _read(self, track: Any, sink: RoomSink) -> None:
        stream = rtc.AudioStream(
            track, sample_rate=RATE_HZ, num_channels=1, frame_size_ms=FRAME_MS, capacity=BACKLOG_FRAMES
        )
        try:
            async for event in stream:
                sink.audio(bytes(event.frame.data))
        finally:
            with contextlib.suppress(TimeoutError):  # of a room that is gone its end is never told
                async with asyncio.timeout(LEAVE_S):
                    await stream.aclose()

    def _stop_reading(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()

    # --- ours ---

    def play(self, pcm16: bytes) -> bool:
        if len(self._voice) >= MAX_QUEUED:
            return False
        self._voice.append(pcm16)
        self._voice_due.set()
        return True

    def clear(self) -> None:
        self._voice.clear()
        if self._source is not None:
            self._source.clear_queue()

    def tell(self, message: str) -> bool:
        if len(self._told) >= MAX_UNTOLD:
            return False
        self._told.append(message)
        self._told_due.set()
        return True

    async def _voice_of_ours(self) -> None:
        """Our track is there while the participant is: an empty one costs as much as one that speaks."""
        try:
            while True:
                await self._present.wait()
                source = rtc.AudioSource(RATE_HZ, 1, queue_size_ms=QUEUE_MS)
                track = rtc.LocalAudioTrack.create_audio_track("agent", source)
                async with asyncio.timeout(PUBLISH_S):
                    published = await self._room.local_participant.publish_track(track, _VOICE)
                self._source = source
                await self._play(source)
                self._source = None
                async with asyncio.timeout(PUBLISH_S):
                    await self._room.local_participant.unpublish_track(published.sid)
                await source.aclose()
        except TimeoutError:
            self._gone("the room takes no audio")
        except Exception as error:
            self._gone(f"the room takes no audio ({type(error).__name__})")

    async def _play(self, source: rtc.AudioSource) -> None:
        """As long as the participant is there."""
        while self._present.is_set():
            while self._voice:
                pcm16 = self._voice.popleft()
                async with asyncio.timeout(STUCK_S):
                    await source.capture_frame(rtc.AudioFrame(pcm16, RATE_HZ, 1, len(pcm16) // 2))
            self._voice_due.clear()
            if self._present.is_set():
                await self._voice_due.wait()

    async def _tell(self) -> None:
        while True:
            await self._told_due.wait()
            self._told_due.clear()
            while self._told:
                text = self._told[0]
                try:
                    async with asyncio.timeout(STUCK_S):
                        await self._room.local_participant.publish_data(
                            text, topic=EVENTS_TOPIC, destination_identities=[self._device_id]
                        )
                except (TimeoutError, PublishDataError):
                    log.debug("an event was not taken")
                if self._told and self._told[0] is text:
                    self._told.popleft()

    # --- leaving ---

    def close(self, linger_s: float = 0.0) -> None:
        self._sink = None
        self._reconnected()
        if self._closing is None:
            self._stop_reading()
            self._closing = asyncio.create_task(self._leave(linger_s), name="livekit leaving")

    async def closed(self) -> None:
        if self._closing is not None:
            await asyncio.wait([self._closing], timeout=LEAVE_S + 2)

    async def _leave(self, linger_s: float) -> None:
        if linger_s or self._told:
            await asyncio.sleep(max(linger_s, LAST_WORDS_S))
        for task in self._tasks:
            task.cancel()
        if self._connecting is not None:
            await asyncio.wait([self._connecting])
            if not self._connecting.cancelled():
                self._connecting.exception()
        try:
            async with asyncio.timeout(LEAVE_S):
                await self._room.disconnect()
                if self._source is not None:
                    await self._source.aclose()
        except TimeoutError:
            log.warning("a LiveKit room could not be left in order")
        except Exception as error:
            log.warning("a LiveKit room could not be left in order: %s", type(error).__name__)


def _is_microphone(publication: Any) -> bool:
    return bool(
        publication.kind == rtc.TrackKind.KIND_AUDIO and publication.source == rtc.TrackSource.SOURCE_MICROPHONE
    )


def _why(message: str, token: str) -> str:
    return " ".join(message.replace(token, "...").split())[:200]
