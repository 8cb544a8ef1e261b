"""What a representative hears before they take a call, and how they answer: the agent's voice and ears on the target's
leg alone. It is not recorded, and the caller hears music meanwhile."""

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Protocol

from trunkline.agents.providers import Minds
from trunkline.clock import Clock
from trunkline.gateway import transfer_steps as t
from trunkline.gateway.leg import Leg
from trunkline.media.bus import Bus
from trunkline.ports import CallFacts, Expectation, SttEvent, SttFinal

if TYPE_CHECKING:
    from trunkline.gateway.switchboard import Line

PRE_ROLL_MS = 300


class Listener(Protocol):
    """The transfer."""

    def facts(self) -> CallFacts: ...

    def feed(self, event: t.Event) -> None: ...


class Briefing:
    """Raises RuntimeError where no ears are free. `bus` is to be the leg's receiver; close() is idempotent."""

    def __init__(self, transfer: Listener, attempt: int, leg: Leg, line: "Line", minds: Minds, clock: Clock) -> None:
        self.bus = Bus(leg, line.ears, line.heartbeat, clock, leg.lead, line.echo())
        self._transfer, self._attempt, self._minds = transfer, attempt, minds
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        try:
            self._stt = minds.stt.open(transfer.facts(), self.bus.playout.format, self._recognised)
        except Exception:
            self.bus.close()
            raise
        self._stt.expect(Expectation("yes_no"))
        self.bus.listener = self

    def say(self, text: str) -> None:
        """BriefingSpoken follows, or BriefingFailed. What is being said is dropped."""
        self._stop_speaking()
        self._task = asyncio.get_running_loop().create_task(self._speak(text))

    async def _speak(self, text: str) -> None:
        bus, tts = self.bus, self._minds.tts
        try:
            bus.begin()
            async with aclosing(tts.speak(text, bus.playout.format)) as chunks:
                async for chunk in chunks:
                    bus.append(chunk.data, chunk.words, bus.position_ms)
            bus.end()
        except Exception as error:
            self._transfer.feed(t.BriefingFailed(self._attempt, type(error).__name__))

    def _stop_speaking(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            self.bus.cut()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._stop_speaking()
        self._stt.close()
        self.bus.close()

    def _recognised(self, event: SttEvent) -> None:
        if isinstance(event, SttFinal) and event.text and not self._closed:
            self._transfer.feed(t.Said(self._attempt, event.text))

    # --- BusListener ---

    def speech_started(self, at: float) -> None:
        self.bus.feed(self._stt.feed, PRE_ROLL_MS)

    def speech_sustained(self) -> None: ...

    def speech_ended(self, at: float) -> None:
        self.bus.stop_feed()
        self._stt.finalize()

    def first_audio_sent(self, at: float) -> None: ...

    def answer_heard(self) -> None:
        self._transfer.feed(t.BriefingSpoken(self._attempt))

    def crashed(self, error: Exception) -> None:
        self._transfer.feed(t.BriefingFailed(self._attempt, type(error).__name__))
