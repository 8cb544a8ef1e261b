"""Has the line before the agent does: speaks the gateway's own lines, whole, whatever the caller does, and hears
nothing but yes and no, by key and by the recogniser of this machine.

An `Attending` (agents/attending.py). What it says comes from `gateway/consent.py`, which decides what follows; what was
heard of each line is told from the playout's positions.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from trunkline.agents import assent
from trunkline.agents.attendant import Hears
from trunkline.agents.houselines import HouseVoice
from trunkline.clock import Clock
from trunkline.compliance.opening import Line
from trunkline.errors import ProviderError
from trunkline.media.bus import Bus
from trunkline.ports import CapturedBy, Message, SttEvent, SttFinal, SttPartial, Usage

log = logging.getLogger(__name__)

BETWEEN_MS = 240  # of silence between two lines
PRE_ROLL_MS = 300
ANSWER_S = 8.0
"""The longest that is listened to at once."""
ENTRY_MS = 300  # an answer that began so shortly before the question was heard whole is one to it


@dataclass(slots=True)
class Span:
    """A line on the call's timeline."""

    line: Line
    from_ms: int
    until_ms: int
    heard_ms: int = 0

    @property
    def whole(self) -> bool:
        return self.heard_ms >= self.until_ms - self.from_ms


class Director(Protocol):
    """Who decides what is said: the call's consent."""

    def begun(self) -> None:
        """The line is theirs."""
        ...

    def spoken(self) -> None:
        """All that was to be said has been heard."""
        ...

    def answered(self, answer: assent.Answer | None, via: CapturedBy) -> None:
        """None: a key or words that are neither yes nor no."""
        ...

    def said(self, spans: Sequence[Span]) -> None:
        """What was heard; told once, at the end."""
        ...

    def goodbye(self) -> None:
        """The goodbye that was asked for has been heard."""
        ...


class Announcer:
    """Methods return at once; close() is idempotent."""

    def __init__(
        self,
        director: Director,
        bus: Bus,
        voice: HouseVoice,
        ears: assent.Ears,
        language: str,
        clock: Clock,
        crashed: Callable[[BaseException], None],
        goodbye: str,
        conversation: Sequence[Message] = (),
        *,
        with_others: Callable[[], bool] = lambda: False,
    ) -> None:
        """`with_others`: who else may be heard on the line; then only keys are the caller's for sure."""
        self.conversation = list(conversation)
        self.spans: list[Span] = []
        self._director, self._bus, self._voice, self._clock = director, bus, voice, clock
        self._crashed, self._goodbye, self._with_others = crashed, goodbye, with_others
        self._language = language
        self._stt = ears.open(language, bus.playout.format, self._recognised)
        self._task: asyncio.Task[None] | None = None
        self._heard_at: float | None = None
        self._began: list[float] = []  # utterances whose finals are to come: when each began
        self._leaving = self._closed = self._held = False
        self._listening: asyncio.TimerHandle | None = None
        bus.listener = self
        bus.rest_ears(False)

    # --- Attending ---

    @property
    def unwritten(self) -> bytes:
        return b""

    def begin(
        self,
        greeting: str | None = None,
        conversation: Sequence[Message] = (),
        pending: Sequence[str] = (),
        *,
        before_question: str = "",
    ) -> None:
        self._director.begun()

    def key(self, digit: str) -> None:
        answers: dict[str, assent.Answer] = {"1": "yes", "2": "no"}
        self._answered(answers.get(digit), "keypad")

    def typed(self, text: str) -> None:
        self._answered(assent.answer_of(text, self._language), "keypad")

    def _answered(self, answer: assent.Answer | None, via: CapturedBy) -> None:
        if not self._leaving:
            self._director.answered(answer, via)

    def flush(self) -> None:
        """Not these lines."""

    def hold(self, held: bool) -> None:
        if held == self._held:
            return
        self._held = held
        if held:
            self._bus.pause()
        else:
            self._bus.resume()

    def say_goodbye(self, line: str | None = None) -> None:
        """The call's time is up."""
        self._leaving = True
        last = (
            Line("goodbye", self._goodbye, "") if line is None else Line("last_line", line, "asked for by the caller")
        )
        self._begin([last])

    def close(self) -> None:
        if self._closed:
            return
        if self._listening is not None:
            self._listening.cancel()
        self._closed = True
        self._stop()
        self._stt.close()
        self._director.said(self.spans)

    def instruct(self, text: str) -> None:
        """There is no model."""

    def unmetered(self) -> Sequence[Usage]:
        return ()

    # --- wishes (wishes.Host): words other than yes and no are second ears' business ---

    @property
    def language(self) -> str:
        return self._language

    @property
    def hears_words(self) -> Hears:
        return "never"

    @property
    def digits_awaited(self) -> bool:
        return False

    # --- what it is told to do ---

    def say(self, lines: Sequence[Line]) -> None:
        """At once, in place of what is being said; `spoken` follows. Nothing more, once there was a goodbye."""
        if not self._leaving:
            self._begin(lines)

    def _begin(self, lines: Sequence[Line]) -> None:
        self._stop()
        self._heard_at = None
        self._task = asyncio.get_running_loop().create_task(self._say(tuple(lines)))

    @property
    def waits(self) -> bool:
        """No answer can be awaited now: the caller speaks, what they said is not known yet, or we are on hold."""
        return self._held or bool(self._began)

    @property
    def at_question(self) -> bool:
        """The lines before it were heard whole: a key may cut it short."""
        question = next((span for span in self.spans if span.line.kind == "ask_consent"), None)
        return question is not None and self._bus.heard_ms >= question.from_ms

    async def _say(self, lines: Sequence[Line]) -> None:
        bus = self._bus
        format = bus.playout.format
        try:
            bus.begin()
            if self._held:
                bus.pause()
            for line in lines:
                try:
                    chunks = await self._voice.speak(line.text, format)
                except ProviderError as error:
                    log.error("a line that is owed was not spoken: %s", error)
                    self.spans.append(Span(line, bus.position_ms, bus.position_ms + 1))
                    continue
                if bus.position_ms > bus.playout.answer_ms:
                    bus.append(format.silence * (BETWEEN_MS * format.bytes_per_ms // len(format.silence)), (), 0)
                from_ms = bus.position_ms
                for chunk in chunks:
                    bus.append(chunk.data, chunk.words, from_ms)
                self.spans.append(Span(line, from_ms, bus.position_ms))
            bus.end()
            self._task = None
            if bus.playout.end_ms == bus.playout.answer_ms:
                self.answer_heard()  # nothing could be said
        except Exception as error:
            self._crashed(error)

    def _stop(self) -> None:
        """Also what was queued and is not heard yet."""
        self._note_heard()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        if self._bus.playout.speaking:
            heard_ms = self._bus.cut()
            self._note(heard_ms)

    def _note_heard(self) -> None:
        if not self._bus.closed:
            self._note(self._bus.heard_ms)

    def _note(self, heard_ms: int) -> None:
        for span in self.spans:
            span.heard_ms = max(span.heard_ms, min(heard_ms, span.until_ms) - span.from_ms, 0)

    # --- the recogniser ---

    def _recognised(self, event: SttEvent) -> None:
        if self._closed or isinstance(event, SttPartial):
            return
        began = self._began.pop(0) if self._began else self._clock.now()
        if self._with_others() or not isinstance(event, SttFinal):
            return
        answer = assent.answer_of(event.text, self._language) if event.understood else None
        in_time = self._heard_at is not None and began >= self._heard_at - ENTRY_MS / 1000
        if answer == "no" or in_time:
            self._answered(answer, "speech")

    # --- BusListener ---

    def speech_started(self, at: float) -> None:
        self._began.append(at)
        self._bus.feed(self._stt.feed, PRE_ROLL_MS)
        self._listening = asyncio.get_running_loop().call_later(ANSWER_S, self._heard_enough)

    def speech_sustained(self) -> None: ...

    def speech_ended(self, at: float) -> None:
        self._heard_enough()

    def _heard_enough(self) -> None:
        """An utterance is over, or is longer than an answer: a noisy line. Idempotent."""
        timer, self._listening = self._listening, None
        if timer is not None and not self._closed:
            timer.cancel()
            self._bus.stop_feed()
            self._stt.finalize()

    def first_audio_sent(self, at: float) -> None: ...

    def answer_heard(self) -> None:
        if self._closed:
            return
        self._note_heard()
        for span in self.spans:  # by its last mark: all of what was sent
            if span.line.kind and span.until_ms <= self._bus.position_ms and self._bus.playout.all_heard:
                span.heard_ms = span.until_ms - span.from_ms
        self._heard_at = self._clock.now()
        if self._leaving:
            self._director.goodbye()
        else:
            self._director.spoken()

    def crashed(self, error: BaseException) -> None:
        self._crashed(error)
