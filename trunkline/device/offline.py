"""The agent that lives on the device: the gateway's own cascade (script, PocketSphinx, espeak-ng) with one leg, the
device's microphone and loudspeaker. For when there is no gateway.

Its tools are the device's: of the agent file's `http` tools those whose host is `device.invalid` (RFC 6761 6.4: it can
be nobody's) are performed here, all others fail as any tool does that cannot be reached.
"""

import asyncio
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from trunkline.agents import script
from trunkline.agents.attending import Attending
from trunkline.agents.here import AgentHere
from trunkline.agents.local.pool import SpeechPool
from trunkline.agents.providers import Services
from trunkline.agents.script.model import Script, Tool
from trunkline.agents.tools.http import HttpToolError, HttpTools
from trunkline.clock import Clock
from trunkline.device.playback import Playback
from trunkline.device.timers import Timers, spoken
from trunkline.errors import MisuseError
from trunkline.live import Follower, Heard, Progress, Saying, TurnState
from trunkline.media.bus import Bus
from trunkline.media.ears import Ears
from trunkline.media.echo import EchoGuard
from trunkline.media.g711 import decode, encode
from trunkline.media.halfband import Doubler, Halver
from trunkline.media.heartbeat import Heartbeat
from trunkline.media.playout import LeadPolicy, Message
from trunkline.media.vad import EnergyGate, SileroBatch
from trunkline.ports import (
    CallFacts,
    Decision,
    EndReason,
    Refuse,
    TurnRecord,
    Usage,
    Wish,
)
from trunkline.types import DEFAULT_TENANT, FRAME_MS, MULAW_8K, CallId

DEVICE_HOST = "device.invalid"
LEAD = LeadPolicy(start_ms=100, min_ms=60, max_ms=200, message_ms=20)
CATCH_UP_FRAMES = 4
_ALONE = Refuse("not_supported", "there is nobody else")


class DeviceTools:
    """`agents.tools.HttpRunner`."""

    def __init__(self, timers: Timers, clock: Clock, zone: ZoneInfo | None) -> None:
        self._timers, self._clock, self._zone = timers, clock, zone

    async def run(self, tool: Tool, values: Mapping[str, str]) -> dict[str, str] | str:
        """Raises HttpToolError."""
        parts = urlsplit(tool.url)
        if parts.hostname != DEVICE_HOST:
            raise HttpToolError("unavailable", "the device is offline")
        now = self._clock.now()
        match parts.path.strip("/").split("/"):
            case ["timers", "set", *_]:
                minutes = values.get("minutes", "")
                if not minutes.isdecimal() or self._timers.set(int(minutes), now) is None:
                    raise HttpToolError("bad_request", "there are too many timers, or it is none")
                return {}
            case ["timers", "left"]:
                left_s = self._timers.left_s(now)
                return {"left": "No timer runs." if left_s is None else f"There are {spoken(left_s)} left."}
            case ["timers", "cancel"]:
                return {"cancelled": "Your timer is off." if self._timers.cancel() else "No timer runs."}
            case ["time"]:
                return {"time": f"{self._clock.wall().astimezone(self._zone):%I:%M %p}".lstrip("0")}
        raise HttpToolError("unavailable", "the device has no such tool")


class _Speaker:
    """`media.bus.LegOut` on the device's loudspeaker, which knows exactly what it has played."""

    writable = True

    def __init__(self, playback: Playback) -> None:
        self.bus: Bus | None = None
        self._playback, self._doubler = playback, Doubler()
        self._sent_ms = 0
        self._marks: deque[tuple[int, str]] = deque()

    def send(self, messages: Sequence[Message]) -> None:
        for message in messages:
            pcm16 = self._doubler.feed(decode(message.audio, "mulaw"))
            self._playback.give(pcm16)
            self._sent_ms += len(message.audio) // MULAW_8K.bytes_per_ms
            if message.mark:
                self._marks.append((self._sent_ms, message.mark))

    def clear(self) -> int:
        dropped_ms = self._playback.queued_ms
        self._playback.clear()
        self._marks.clear()
        return dropped_ms

    def beat(self) -> None:
        played_ms = self._playback.played_ms
        while self._marks and self._marks[0][0] <= played_ms and self.bus is not None:
            self.bus.mark_returned(self._marks.popleft()[1])


class OfflineAgent:
    """The agents' Control and Report of one conversation at a time. `begin` after `start`; `close` is final."""

    sends_dtmf = False

    def __init__(
        self,
        file: Path,
        playback: Playback,
        clock: Clock,
        on_active: Callable[[Progress], None],
        on_over: Callable[[], None],
        on_crashed: Callable[[BaseException], None],
    ) -> None:
        """Raises ConfigError, MissingExtra."""
        definition = script.load(file)
        self.timers = Timers()
        hours = Script.of(definition).hours
        tools = DeviceTools(self.timers, clock, hours.zone if hours is not None else None)
        self._playback, self._clock = playback, clock
        self._on_active, self._on_over, self._on_crashed = on_active, on_over, on_crashed
        self._pool = SpeechPool(1)
        services = Services(clock=clock, speech_workers=1, speech_pool=self._pool)
        self._here = AgentHere(definition, services, cast(HttpTools, tools), lambda: self._pool.ready_workers > 0)
        self._ears = Ears(MULAW_8K, 1, SileroBatch(1), EnergyGate(1))
        self._heartbeat = Heartbeat(clock, self._ears.beat, lambda late_s, took_s: None)
        self._stack = AsyncExitStack()
        self._bus: Bus | None = None
        self._speaker: _Speaker | None = None
        self._attending: Attending | None = None
        self._halver = Halver()
        self._waiting: deque[bytes] = deque()
        self._position_ms = 0

    async def start(self) -> None:
        """Raises ProviderError."""
        await self._stack.enter_async_context(self._here.started(self._clock))
        self._heartbeat.start()
        self._stack.callback(self._heartbeat.stop)

    async def close(self) -> None:
        self.end()
        await self._stack.aclose()

    # --- one conversation ---

    def begin(self) -> None:
        self.end()
        self._playback.restart()
        self._speaker, self._halver, self._position_ms = _Speaker(self._playback), Halver(), 0
        self._bus = self._speaker.bus = Bus(
            self._speaker, self._ears, self._heartbeat, self._clock, LEAD, EchoGuard(MULAW_8K)
        )
        call = CallFacts(CallId(uuid.uuid4().hex), DEFAULT_TENANT, "inbound", None, None, self._clock.wall())
        after = asyncio.get_running_loop().call_later
        self._attending = self._here.agent.attend(call, self._bus, self, self, self._clock, after)
        self._attending.begin()

    def hear(self, pcm16: bytes) -> None:
        """20 ms, at once or some time before `beat` comes to it."""
        if self._bus is not None:
            self._waiting.append(pcm16)

    def beat(self) -> None:
        """Every 20 ms."""
        if self._speaker is not None:
            self._speaker.beat()
        for _ in range(min(len(self._waiting), CATCH_UP_FRAMES)):
            if self._bus is None:
                return
            self._bus.receive(encode(self._halver.feed(self._waiting.popleft()), "mulaw"), self._position_ms)
            self._position_ms += FRAME_MS

    def end(self) -> None:
        """Idempotent."""
        attending, self._attending = self._attending, None
        if attending is not None:
            attending.close()
        bus, self._bus = self._bus, None
        if bus is not None:
            bus.close()
        self._speaker = None
        self._waiting.clear()

    # --- as the call's control ---

    def hang_up(self, reason: EndReason) -> None:
        asyncio.get_running_loop().call_soon(self._on_over)  # not within the doing of the one who leaves

    def transfer(self, target: str) -> Decision:
        return _ALONE

    def hand_off(self, agent: str) -> Decision:
        return _ALONE

    def send_dtmf(self, digits: str) -> None: ...

    def call_back(self) -> Decision:
        return _ALONE

    def wished(self, wish: Wish) -> None:
        """Nobody is there who would call."""

    def handed_off(self) -> None:
        raise MisuseError("nobody was there to hand it to")

    def fall_back(self) -> Decision:
        return _ALONE

    # --- as its report ---

    def turn(self, turn: TurnRecord, ago_s: float) -> None: ...

    def usage(self, usage: Usage) -> None: ...

    def event(self, kind: str, **data: Any) -> None: ...

    @property
    def follower(self) -> Follower | None:
        return self._follow

    def _follow(self, progress: Progress) -> None:
        if isinstance(progress, Heard | Saying | TurnState):
            self._on_active(progress)

    def crashed(self, error: BaseException) -> None:
        asyncio.get_running_loop().call_soon(self._on_crashed, error)
