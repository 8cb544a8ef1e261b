"""The device as it runs: every 20 ms of the microphone is one turn of `Machine`, whose effects are performed here."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trunkline.clock import Clock
from trunkline.device import machine as m
from trunkline.device.access import Connection, Gateway, NotLetIn, Sessions, Unreachable
from trunkline.device.chime import chime
from trunkline.device.listening import Listening
from trunkline.device.machine import Machine, State
from trunkline.device.offline import OfflineAgent
from trunkline.device.playback import Playback
from trunkline.device.sound import FRAME_BYTES, Ear, Mouth
from trunkline.device.suppression import NoiseSuppression
from trunkline.device.wakeword import Hit
from trunkline.live import Heard, Progress, Saying

log = logging.getLogger(__name__)


class Device:
    """`run` is its whole life. `tell(at_s, line)`: what happened, so many seconds after the first frame."""

    def __init__(
        self,
        machine: Machine,
        gateway: Gateway,
        playback: Playback,
        clock: Clock,
        tell: Callable[[float, m.Tell], None],
        *,
        suppression: NoiseSuppression | None = None,
        mouth: Mouth | None = None,
    ) -> None:
        """`mouth`: who is given what is played; None: a sound card takes it by itself."""
        self.machine = machine
        self.offline: OfflineAgent | None = None
        """Who answers where there is no gateway."""
        self.listening: Listening | None = None
        """For the wake word; without it there is the button."""
        self._gateway, self._playback, self._clock = gateway, playback, clock
        self._tell, self._suppression, self._mouth = tell, suppression, mouth
        self._sessions = Sessions(gateway) if gateway.asks else None
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._begun_at = clock.now()

    @property
    def resting(self) -> bool:
        """Nothing is said, played or awaited."""
        timers = self.offline.timers if self.offline is not None else None
        waits = timers is not None and timers.left_s(self._clock.now()) is not None
        return self.machine.state is State.ASLEEP and not self._playback.playing and not waits

    async def run(self, ear: Ear) -> None:
        """Until the ear hears no more."""
        self._begun_at = self._clock.now()
        try:
            async with contextlib.aclosing(ear.frames()) as frames:
                async for frame in frames:
                    self._hear(frame)
        finally:
            self._disconnect()

    def press(self) -> None:
        """The button."""
        self._perform(self.machine.button(self._clock.now()))

    def woken(self, phrase: str, hit: Hit) -> None:
        self._perform(self.machine.woken(self._clock.now(), phrase, hit.ends_at, hit.score))

    # --- every 20 ms ---

    def _hear(self, frame: bytes) -> None:
        now, playback, machine = self._clock.now(), self._playback, self.machine
        if self._suppression is not None:
            frame = self._suppression.feed(frame)
        self._perform(machine.microphone(frame, now, playing=playback.playing))
        if self.listening is not None and machine.state is State.ASLEEP:
            self.listening.push(frame, machine.heard_samples)
        self._perform(machine.tick(now, playing=playback.playing, played_ms=playback.played_ms))
        if self.offline is not None:
            self.offline.beat()
            if self.offline.timers.due(now):
                self._playback.ring(chime())
                self.say(m.Tell("state", "a timer rings"))
        if self._mouth is not None:
            self._mouth.play(playback.pull(FRAME_BYTES))

    def _perform(self, effects: Sequence[m.Effect]) -> None:
        for effect in effects:
            match effect:
                case m.SendAudio(pcm16):
                    if self._connection is not None:
                        self._connection.send_audio(pcm16)
                case m.HearOffline(pcm16):
                    if self.offline is not None:
                        self.offline.hear(pcm16)
                case m.Play(pcm16):
                    self._playback.give(pcm16)
                case m.Send(message):
                    self._send(message)
                case m.Connect(token):
                    self._disconnect()
                    self._connecting = asyncio.create_task(self._connect(token), name="connecting")
                case m.Disconnect():
                    self._disconnect()
                case m.DropPlayback(sent_ms):
                    played_ms = self._playback.clear()
                    if sent_ms is not None:
                        self._send({"type": "cleared", "sent_ms": sent_ms, "played_ms": played_ms})
                case m.CountAnew():
                    self._playback.restart()
                case m.BeginOffline():
                    self._begin_offline()
                case m.EndOffline():
                    if self.offline is not None:
                        self.offline.end()
                case m.Tell():
                    self.say(effect)

    def say(self, line: m.Tell) -> None:
        self._tell(self._clock.now() - self._begun_at, line)

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._connection is not None:
            self._connection.send(message)

    # --- the gateway ---

    async def _connect(self, token: str | None) -> None:
        url = self._gateway.ws_url
        connection = Connection(self._event, self._audio, self._gone)
        try:
            if token is None and self._sessions is not None:
                url, token = await self._sessions.open()
            self._connection = connection
            await connection.open(url, token)
        except Unreachable as error:
            self._connecting = None
            self._perform(self.machine.unreachable(str(error), self._clock.now()))
        except NotLetIn as error:
            self._connecting = None
            self._perform(self.machine.refused(error.code, error.why, error.retry_after_s, self._clock.now()))

    def _disconnect(self) -> None:
        connecting, self._connecting = self._connecting, None
        if connecting is not None and connecting is not asyncio.current_task():
            connecting.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _event(self, event: Mapping[str, Any]) -> None:
        now, machine = self._clock.now(), self.machine
        match event.get("type"):
            case "joined":
                self._perform(machine.joined(event, now))
            case "refused":
                after_s = event.get("retry_after_s")
                after_s = float(after_s) if isinstance(after_s, int | float) else None
                code, why = str(event.get("code")), str(event.get("why"))
                self._perform(machine.refused(code, why, after_s, now))
            case _:
                self._perform(machine.message(event, now))

    def _audio(self, pcm16: bytes) -> None:
        self._perform(self.machine.audio(pcm16, self._clock.now()))

    def _gone(self, why: str) -> None:
        self._perform(self.machine.unreachable(why, self._clock.now()))

    # --- the agent that lives here ---

    def _begin_offline(self) -> None:
        if self.offline is None:
            self.say(m.Tell("mistake", "no agent lives here (--offline-agent)"))
            return
        try:
            self.offline.begin()
        except Exception as error:  # ours, or a worker's that is gone
            self.offline_crashed(error)

    def offline_said(self, progress: Progress) -> None:
        self.machine.offline_active(self._clock.now())
        if isinstance(progress, Heard) and progress.final:
            self.say(m.Tell("heard", progress.text))
        elif isinstance(progress, Saying) and progress.over:
            self.say(m.Tell("said", progress.text))

    def offline_crashed(self, error: BaseException) -> None:
        """The device goes on."""
        log.error("the offline agent: %s", error, exc_info=error)
        self.say(m.Tell("mistake", f"the offline agent has crashed ({type(error).__name__})"))
        self.offline_over()

    def offline_over(self) -> None:
        self._perform(self.machine.offline_over())
