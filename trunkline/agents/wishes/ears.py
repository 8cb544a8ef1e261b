"""Second ears: the local recogniser beside a model that does not write down what callers say, or not in time.

`SecondEars` is the process's: one grammar, of wishes alone, in the pool of speech workers. `Overhearing` is one call's.
It keeps the speech that nobody else is sure to write down (bounded) and has it recognised when the caller pauses: at
once where nobody writes, and where a transcript may come, only once it is late. So a call whose transcripts come costs
no recogniser at all. What a full pool does not take is dropped and counted; the caller's other ways remain.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

from trunkline.agents.attendant import Hears
from trunkline.agents.deadline import After
from trunkline.agents.local.pool import Job, Reply, SpeechPool
from trunkline.agents.local.wire import Message
from trunkline.agents.script.grammar import Grammar
from trunkline.agents.wishes.grammar import WISHES, fits, meanings
from trunkline.agents.wishes.phrases import wish_of
from trunkline.errors import ConfigError, MissingExtra, ProviderError
from trunkline.media.bus import Bus
from trunkline.ports import Wish

AGENT = "wishes"  # as the workers know the grammar
PRE_ROLL_MS = 300
KEPT_MS = 8000
"""Of speech: a wish is said in less."""
OVERLAP_MS = 2500
"""Of speech without a pause, which is recognised piece by piece."""
WAITING_MAX = 4
"""Utterances, for a transcript or for the recogniser."""
LATE_S = 2.0
"""A transcript is, so long after the caller has paused."""
log = logging.getLogger(__name__)


class SecondEars:
    def __init__(self, pool: SpeechPool) -> None:
        self.pool = pool
        self.heard = self.missed = 0
        """Utterances that were recognised, and those that the pool had no room for."""
        self._told = 0, 0
        self._started = False
        self.there = False

    async def start(self) -> None:
        """Without the recogniser calls are held all the same: wishes are heard in other ways, and the log says so."""
        grammar = Grammar(WISHES, meanings())
        try:
            await self.pool.start()
            self._started = True
            await self.pool.preload("ears", Message("grammars", {"agent": AGENT, "grammars": {WISHES: grammar.jsgf}}))
            self.there = True
        except (ProviderError, MissingExtra, ConfigError) as error:
            log.error("callers' wishes are not heard beside a realtime model: %s", error)

    async def close(self) -> None:
        if self._started:
            self._started = self.there = False
            await self.pool.close()

    def count(self, tell: Callable[[Literal["heard", "missed"], int], None]) -> None:
        """What was added since the last time."""
        heard, missed = self._told
        tell("heard", self.heard - heard)
        tell("missed", self.missed - missed)
        self._told = self.heard, self.missed

    def overhear(
        self, bus: Bus, attends: Callable[[], object], wished: Callable[[Wish], None], after: After
    ) -> "Overhearing":
        """`attends`: whoever has the line, who may say what they hear (`hears_words`, `transcripts`)."""
        overhearing = Overhearing(self, bus, attends, wished, after)
        bus.overhear(overhearing)
        return overhearing


class Overhearing:
    """One call's. close() is idempotent."""

    def __init__(
        self,
        ears: SecondEars,
        bus: Bus,
        attends: Callable[[], object],
        wished: Callable[[Wish], None],
        after: After,
    ) -> None:
        self._ears, self._bus, self._attends, self._wished, self._after = ears, bus, attends, wished, after
        self._speech: bytearray | None = None
        self._unwritten = False  # nobody else was writing when it began
        self._transcripts = 0  # that had come when it began
        self._job: Job | None = None
        self._waiting: deque[bytes] = deque()  # for the recogniser
        self._timers: deque[Any] = deque()  # of what a transcript may still come for
        self._line: Any = None
        self._per_ms = bus.playout.format.bytes_per_ms

    # --- from the bus ---

    def speech_started(self, at: float) -> None:
        if self._hears == "always":
            return
        self._end()  # forgotten by the agent, and not by us
        self._speech = bytearray(self._bus.latest(PRE_ROLL_MS))
        self._unwritten = self._hears == "never"
        self._transcripts = self._count

    def hear(self, audio: bytes) -> None:
        if self._speech is None:
            return
        self._speech += audio
        if len(self._speech) >= KEPT_MS * self._per_ms:
            rest = self._speech[-OVERLAP_MS * self._per_ms :]
            self._end()
            self._speech = rest

    def speech_ended(self, at: float) -> None:
        self._end()

    # --- what was said ---

    @property
    def _hears(self) -> Hears:
        hears: Hears = getattr(self._attends(), "hears_words", "never")
        return hears

    @property
    def _count(self) -> int:
        count: int = getattr(self._attends(), "transcripts", 0)
        return count

    def _end(self) -> None:
        speech, self._speech = self._speech, None
        if speech is None:
            return
        if self._unwritten or self._hears == "never":
            self._recognise(bytes(speech))
            return
        before = self._transcripts
        if len(self._timers) < WAITING_MAX:
            self._timers.append(self._after(LATE_S, lambda: self._late(bytes(speech), before)))
        else:
            self._ears.missed += 1

    def _late(self, speech: bytes, transcripts: int) -> None:
        self._timers.popleft()  # all wait equally long
        if self._count == transcripts:
            self._recognise(speech)

    def _recognise(self, speech: bytes) -> None:
        setup = {"agent": AGENT, "grammar": WISHES, "encoding": self._bus.playout.format.encoding}
        if self._line is not None:
            setup["line"] = self._line
        if not self._ears.there or (self._job is not None and len(self._waiting) >= WAITING_MAX):
            self._ears.missed += 1
            return
        if self._job is not None:
            self._waiting.append(speech)
            return
        try:
            self._job = self._ears.pool.borrow("ears", self._heard, Message("begin", setup))
            self._job.send("audio", speech)
            self._job.send("finish")
        except ProviderError:
            self._ears.missed += 1
            self._release()
        else:
            self._ears.heard += 1

    def _heard(self, reply: Reply) -> None:
        if isinstance(reply, ProviderError):
            self._ears.missed += 1
            self._release()
        elif reply.name == "final":
            self._line = reply.fields["line"]
            self._release()
            text, score = reply.fields["text"], reply.fields["score"]
            if reply.fields["understood"] and fits(text, score):
                wish = wish_of(text)
                if wish is not None:
                    self._wished(wish)

    def _release(self) -> None:
        job, self._job = self._job, None
        if job is not None:
            job.close()
        if self._waiting:
            self._recognise(self._waiting.popleft())

    def close(self) -> None:
        """What is being said is given up."""
        self._speech = None
        self._waiting.clear()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._release()
