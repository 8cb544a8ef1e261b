"""What a representative hears before they take a call, and how they answer: the agent's voice and ears on the target's
leg alone. It is not recorded, and the caller hears music meanwhile."""

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal, Protocol

from trunkline.agents.invoiced import billed_in, product_of
from trunkline.agents.providers import Minds
from trunkline.clock import Clock
from trunkline.gateway import transfer_steps as t
from trunkline.gateway.leg import Leg
from trunkline.media.bus import Bus
from trunkline.ports import CallFacts, Expectation, SttEvent, SttFinal, Usage

if TYPE_CHECKING:
    from trunkline.gateway.switchboard import Line

PRE_ROLL_MS = 300


class Listener(Protocol):
    """The transfer."""

    def facts(self) -> CallFacts: ...

    def usage(self, usage: Usage) -> None: ...

    def feed(self, event: t.Event) -> None: ...


class Briefing:
    """Raises RuntimeError where no ears are free. `bus` is to be the leg's receiver; close() is idempotent."""

    def __init__(self, transfer: Listener, attempt: int, leg: Leg, line: "Line", minds: Minds, clock: Clock) -> None:
        self.bus = Bus(leg, line.ears, line.heartbeat, clock, leg.lead, line.echo())
        self._transfer, self._attempt = transfer, attempt
        self._ears, self._voice = minds.best("stt", clock.now()), minds.best("tts", clock.now())
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._gated, self._fed_bytes = self._ears.feed_mode == "gated", 0
        self._call_id = transfer.facts().call_id
        try:
            self._stt = self._ears.open(transfer.facts(), self.bus.playout.format, self._recognised)
        except Exception:
            self.bus.close()
            raise
        self._stt.expect(Expectation("yes_no"))
        self.bus.listener = self
        if not self._gated:
            self.bus.feed(self._feed, 0)

    def say(self, text: str) -> None:
        """BriefingSpoken follows, or BriefingFailed. What is being said is dropped."""
        self._stop_speaking()
        if billed_in(self._voice) == "characters":
            self._meter("tts", self._voice, "characters", len(text))
        self._task = asyncio.get_running_loop().create_task(self._speak(text))

    async def _speak(self, text: str) -> None:
        bus, tts, audio_bytes = self.bus, self._voice, 0
        try:
            bus.begin()
            async with aclosing(tts.speak(text, bus.playout.format)) as chunks:
                async for chunk in chunks:
                    audio_bytes += len(chunk.data)
                    bus.append(chunk.data, chunk.words, bus.position_ms)
            bus.end()
        except Exception as error:
            self._transfer.feed(t.BriefingFailed(self._attempt, type(error).__name__))
        finally:
            if billed_in(tts) == "seconds":
                self._meter("tts", tts, "seconds", round(audio_bytes / bus.playout.format.bytes_per_ms / 1000, 3))

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
        if self._fed_bytes:
            heard_s = self._fed_bytes / self.bus.playout.format.bytes_per_ms / 1000
            self._meter("stt", self._ears, "seconds", round(heard_s, 3))

    def _meter(
        self, kind: Literal["stt", "tts"], provider: Any, unit: Literal["seconds", "characters"], n: float
    ) -> None:
        self._transfer.usage(Usage(self._call_id, provider.name, kind, unit, n, product_of(provider)))

    def _feed(self, audio: bytes) -> None:
        self._fed_bytes += len(audio)
        self._stt.feed(audio)

    def _recognised(self, event: SttEvent) -> None:
        """A guess at what was not understood decides nothing."""
        if isinstance(event, SttFinal) and event.understood and event.text and not self._closed:
            self._transfer.feed(t.Said(self._attempt, event.text))

    # --- BusListener ---

    def speech_started(self, at: float) -> None:
        if self._gated:
            self.bus.feed(self._feed, PRE_ROLL_MS)

    def speech_sustained(self) -> None: ...

    def speech_ended(self, at: float) -> None:
        if self._gated:
            self.bus.stop_feed()
        self._stt.finalize()

    def first_audio_sent(self, at: float) -> None: ...

    def answer_heard(self) -> None:
        self._transfer.feed(t.BriefingSpoken(self._attempt))

    def crashed(self, error: Exception) -> None:
        self._transfer.feed(t.BriefingFailed(self._attempt, type(error).__name__))
