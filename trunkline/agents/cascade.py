"""The cascade: streaming STT -> LLM -> TTS on a call's bus.

`Cascade` is an agent of this process (its definition and started providers); `CascadeAttendant` answers one call with
it: an attendant whose ears are a recogniser and whose mind is a model.

A reply is two tasks joined by a bounded queue: the model writes phrases while the voice speaks them. Interrupting
cancels both, which closes the model's and the voice's requests. The model may have been asked early (speculation.py).
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from trunkline.agents import languages
from trunkline.agents import turns as t
from trunkline.agents.attendant import (
    BACKGROUND_AFTER_S,
    TOOL_ROUNDS,
    Attendant,
    Control,
    Hands,
    Hears,
    Provider,
    Report,
    Tools,
    weakly,
)
from trunkline.agents.choice import Choice, timely
from trunkline.agents.deadline import After
from trunkline.agents.definition import AgentDefinition
from trunkline.agents.ending import Ending
from trunkline.agents.exchange import Exchange, Written
from trunkline.agents.hearing import Hearing
from trunkline.agents.help import asks_for_help
from trunkline.agents.invoiced import product_of
from trunkline.agents.providers import Minds
from trunkline.agents.seam import GO_ON, Seam
from trunkline.agents.speculation import Speculation
from trunkline.agents.splitter import PhraseSplitter
from trunkline.agents.tools import secure_prompt
from trunkline.clock import Clock
from trunkline.errors import ProviderError
from trunkline.media.bus import Bus
from trunkline.ports import (
    HERE,
    CallFacts,
    Expect,
    Expectation,
    Llm,
    LlmEvent,
    LlmSession,
    LlmUsage,
    Message,
    OpenQuestion,
    ResumingSession,
    SttEvent,
    SttFinal,
    SttPartial,
    TextDelta,
    ToolCall,
    Usage,
)
from trunkline.types import FRAME_MS

PHRASES_WAITING = 16
FINALS_KEPT = 16  # said over an answer, and no interruption
SPECULATE_AFTER_MS = 200  # of silence: sooner the ears have often not told the last word yet
SPECULATIONS = 3  # of one utterance


@dataclass(slots=True)
class Cascade:
    """One agent of this process."""

    definition: AgentDefinition
    minds: Minds
    tools: Tools
    ready: Callable[[], bool] = lambda: True
    """Cheap: whether a call that is answered now would hear the agent at once."""
    summariser: Llm | None = None
    """Who sums up the beginning of a long conversation; None: its own model."""
    by_itself: "Cascade | None" = None
    """The same without third parties, once that is started."""
    greets_again: bool = False

    @property
    def providers(self) -> Sequence[Provider]:
        """Whom a call's audio and text are given to, in whichever language."""
        more = () if self.summariser is None else (self.summariser,)
        return (*self.minds.everyone(), *more)

    def sums_up(self, now: float) -> Mapping[str, Llm]:
        """Who may be asked for a summary, the best first, by key; empty where there is but the script."""
        if self.summariser is not None:
            return {"context.llm": self.summariser}
        models = self.minds.named("llm")
        return {key: models[key] for key in self.minds.health.order(list(models), now) if _continues(models[key])}

    @property
    def fallback(self) -> None:
        return None

    def alone(self) -> "Cascade | None":
        return self if not any(each.third_party for each in self.providers) else self.by_itself

    def attend(
        self, call: CallFacts, bus: Bus, control: Control, report: Report, clock: Clock, after: After
    ) -> "CascadeAttendant":
        return CascadeAttendant(self, call, bus, control, report, clock, after)


class CascadeAttendant(Attendant):
    """One call's agent."""

    def __init__(
        self,
        agent: Cascade,
        call: CallFacts,
        bus: Bus,
        control: Control,
        report: Report,
        clock: Clock,
        after: After,
    ) -> None:
        minds, definition = agent.minds, agent.definition
        self._heard_in: dict[str, str | None] = {}  # what the caller said since the last answer, and in what
        self._stt = Hearing(
            Choice(minds, "stt", clock, report.event),
            call,
            bus.playout.format,
            weakly(self, CascadeAttendant.recognised),
            after,
            definition.failover.final_ms / 1000,
            weakly(self, CascadeAttendant._ears_changed),
        )
        self._models = Choice(minds, "llm", clock, report.event)
        self._call = call
        self._sessions: dict[str, LlmSession] = {}
        try:
            self._open_one()
        except BaseException:
            self._stt.close()
            raise
        super().__init__(
            definition,
            minds,
            agent.tools,
            call,
            bus,
            control,
            report,
            clock,
            after,
            gated=self._stt.gated,
            sums_up=lambda: agent.sums_up(clock.now()),
        )
        self._ending: Ending | None = None
        if minds.detector is not None:
            told, key = weakly(self, CascadeAttendant._probably), minds.detector_key
            self._ending = Ending(minds.detector, key, minds.health, call.call_id, clock, after, told)
        self._early: Speculation | None = None  # the answer to what the caller may have said
        self._speculations = 0  # begun, of this utterance
        self._instruction = ""  # beside what the caller says, until the call's end
        self._adopted = 0  # so many messages are of whoever had the line before

    def begin(
        self,
        greeting: str | None = None,
        conversation: Sequence[Message] = (),
        pending: Sequence[str] = (),
        *,
        before_question: str = "",
    ) -> None:
        self._adopted = len(conversation)
        super().begin(greeting, conversation, pending, before_question=before_question)

    def go_on(self, conversation: Sequence[Message], unwritten: bytes) -> None:
        """In place of `begin`: a realtime model is lost, and with it what the caller said last. `unwritten` is that, in
        the lane's format; it is recognised and answered."""
        self._adopted = len(conversation)
        self.conversation += conversation
        self._begin_in()
        length_ms = len(unwritten) / self._bus.playout.format.bytes_per_ms
        self._stt.feed(unwritten)
        self._meter_ears()
        self._handle(t.Begin("", unwritten_ms=length_ms))
        if not self._gated and not self.turns.on_hold:
            self._feed(0)

    def _perform(self, effect: t.Effect) -> None:
        match effect:
            case t.Feed(pre_roll_ms):
                self._drop_early()
                self._speculations = 0
                if self._ending is not None:
                    self._ending.forget()
                super()._perform(effect)
                if not self._gated:
                    self._stt.began(pre_roll_ms)
            case t.Speculate(texts):
                self._drop_early()
                if texts:
                    self._speculate(texts)
            case t.Say():
                self._drop_early()
                super()._perform(effect)
            case _:
                super()._perform(effect)

    # --- ears ---

    def _listener(self) -> Callable[[bytes], None]:
        return self._stt.feed

    def _finalize(self) -> None:
        self._stt.finalize()

    def _forget(self) -> None:
        self._told_last()
        self._stt.cancel()

    def _fed(self) -> None:
        self._meter_ears()

    def _meter_ears(self) -> None:
        for ears, seconds in self._stt.metered():
            self._meter("stt", ears, "seconds", seconds)

    def _awaits(self, expectation: Expectation) -> None:
        self._stt.expect(expectation)

    def _left_open(self) -> OpenQuestion | None:
        try:
            session = self._session(self._models, self._models.order()[0])
        except ProviderError:
            return None  # as it will say when it is needed
        return session.left_open(self.conversation) if isinstance(session, ResumingSession) else None

    def _change_to(self, language: str) -> None:
        self._drop_early()  # it was asked for in another
        minds = self._minds.in_language(language)
        self._models = Choice(minds, "llm", self._clock, self._report.event)
        self._stt.follow(Choice(minds, "stt", self._clock, self._report.event))

    def _dismiss(self) -> None:
        self._drop_early()
        if self._ending is not None:
            self._ending.close()
        self._stt.close()
        for session in self._sessions.values():
            session.close()

    # --- from the recogniser ---

    def recognised(self, event: SttEvent) -> None:
        if self._closed:
            return
        if self._definition.heeds and self._wishes_in(event):
            return
        if isinstance(event, SttPartial):
            self._handle(t.Partial(event.text, event.complete))
            if self._ending is not None and self.turns.hearing and self._stt.free_text:
                self._ending.heard(event.text, self._definition.language)
            return
        self._next.final_at = self._clock.now()
        if isinstance(event, SttFinal):
            if len(self._tongues) > 1 and event.understood:
                self._heard_in[event.text] = event.language
                if len(self._heard_in) > FINALS_KEPT:
                    del self._heard_in[next(iter(self._heard_in))]
            self._handle(t.Final(event.text, event.understood))
        else:
            self._report.event("stt_failed", error=str(event.error))
            self._handle(t.Final("", understood=False, failed=True))
        if self.turns.state is t.State.LISTENING:  # it gets no answer
            self._drop_early()

    def _wishes_in(self, event: SttEvent) -> bool:
        """Whether it was a wish, and nothing to answer."""
        if isinstance(event, SttPartial):
            self._heeding.partial(event.text, self.language)
            return False
        if isinstance(event, SttFinal):
            text = event.text if event.understood else ""
            return self._heed(self._heeding.final(text, self.language, self._clock.now()))
        return self._heed(self._heeding.lost())

    @property
    def hears_words(self) -> Hears:
        return "always" if self._stt.hears_wishes else "never"

    def _probably(self, probability: float) -> None:
        self._handle(t.Completeness(probability))

    def _ears_changed(self) -> None:
        """Another recogniser has taken over; it may want to be fed in another way."""
        self._meter_ears()
        gated, self._gated = self._gated, self._stt.gated
        if gated and not self._gated and not self._feeding:
            self._feed(0)
        elif self._gated and not gated and not self._bus.hearing_speech:
            self._stop_feed()

    # --- replies ---

    def _answer(self, texts: Sequence[str], understood: bool, keyed: bool) -> None:
        new = self._new(texts)
        if len(self._tongues) > 1 and not keyed:
            self._follow_caller(texts)
        self.conversation += [Message("caller", text, keyed=keyed, language=self._language) for text in new]
        turn, self._next = self._next, Exchange()
        turn.caller_text, turn.understood, turn.keyed = " ".join(new), understood, keyed
        turn.asked_at = self._clock.now()
        if keyed:
            turn.decided_at, turn.final_at = turn.asked_at, None
        if not keyed and asks_for_help(turn.caller_text, self._spoken.language):
            self._drop_early()
            self._start(turn, lambda: self._line(self._help(), turn))  # whatever a model would have said
            return
        self._start(turn, lambda: self._reply(turn))
        if self._background is not None:
            self._set_timer("background", BACKGROUND_AFTER_S, lambda: self._play_background(turn))

    def _follow_caller(self, texts: Sequence[str]) -> None:
        """In what they say it. What was a noise, or no interruption, is none of the texts."""
        spoken, heard = self._spoken, self._heard_in
        self._heard_in = {}
        for text in texts:
            spoken = languages.follow(spoken, self._tongues, text, heard.get(text))
        self._speak_language(spoken, "heard")

    def _new(self, texts: Sequence[str]) -> list[str]:
        """Texts that were asked about before, and whose answer was not heard, come first, and are in the conversation
        already. The same words said again are new."""
        unanswered = self.conversation[max(self._adopted, _after_agent(self.conversation)) :]
        known = [*self._pending, *(message.text for message in unanswered if message.role == "caller")]
        count = min(len(known), len(texts))
        while known[len(known) - count :] != list(texts[:count]):
            count -= 1
        return list(texts[count:])

    def _stop_task(self) -> None:
        if self._task is not None:
            self._drop_early()  # it was the answer's, which had not begun to ask
        super()._stop_task()

    async def _reply(self, turn: Exchange) -> None:
        """The voice's side: speaks what the model's side hands it."""
        parts: _Parts = asyncio.Queue(PHRASES_WAITING)
        writer = self._spawn(self._write(turn, parts))
        try:
            while (part := await parts.get()) is not None:
                if isinstance(part, str):
                    await self._key(turn, part)
                else:
                    await self._speak(part[0], part[1], turn)
            await writer
        finally:
            writer.cancel()
            writer.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _write(self, turn: Exchange, parts: "_Parts") -> None:
        """The model's side. Its failure is raised only after what it had written is spoken."""
        try:
            for _ in range(TOOL_ROUNDS):
                calls = await self._write_message(turn, parts)
                for call in calls:
                    await self._use(call, turn, parts)
                if turn.urgent:
                    turn.written.append(Written(line := self._help(), language=self._spoken.language))
                    await parts.put((line, turn.written[-1]))
                    break
                if not calls or self.turns.ending is not None:
                    break
            else:
                raise ProviderError(self._minds.llm.name, "protocol", "it only calls tools", retryable=False)
            if not turn.messages():
                raise ProviderError(self._minds.llm.name, "protocol", "an empty answer", retryable=True)
        except Exception:
            await parts.put(None)
            raise
        await parts.put(None)

    async def _write_message(self, turn: Exchange, parts: "_Parts") -> list[ToolCall]:
        """One message, text into phrases. Returns the tools it asks for. When a model fails, the next one goes on after
        the last phrase that was given to the voice."""
        before, said = turn.messages(), list[str]()
        written = Written(language=self._spoken.language)
        turn.written.append(written)
        models = self._models
        order = models.order()
        for key, following in zip(order, [*order[1:], None], strict=True):
            try:
                calls = await self._ask(models, key, before, written, said, turn, parts, last=following is None)
            except ProviderError as error:
                models.failed(key, error)
                if following is None or turn.epoch != self.epoch:
                    raise
                models.switched(key, following, error, words_given=len(" ".join(said).split()))
                written.text = "".join(f"{phrase} " for phrase in said)  # the words behind were never spoken
            else:
                models.succeeded(key)
                written.author, written.anew = key, not _continues(models.named[key])
                return calls
        raise AssertionError("the last model answers or fails")

    async def _ask(
        self,
        models: Choice,
        key: str,
        before: Sequence[Message],
        written: Written,
        said: list[str],
        turn: Exchange,
        parts: "_Parts",
        *,
        last: bool,
    ) -> list[ToolCall]:
        """One request. `before`: the turn's messages so far. `said`: the phrases of this one that the voice was given;
        more are added."""
        llm, terms = models.asked(key), self._definition.failover
        context, understood, seam = self._condensing.context, turn.understood, Seam("")
        asked = [*context.view(self.conversation), *before]
        if not _continues(llm):  # it needs no summary, and knows where it was by what was said
            # it answers the caller itself, whatever another had begun, and learns what became of its own tools
            asked = [*self.conversation, *turn.messages_for(key)]
        elif said:
            asked = [*asked, Message("agent", " ".join(said)), Message("caller", GO_ON)]
            understood, seam = True, Seam(" ".join(said))
        elif self._instruction:
            asked = [*asked, Message("caller", self._instruction)]
        told = asked_it = False
        splitter, calls = PhraseSplitter(), list[ToolCall]()

        async def give(text: str, *, end: bool = False) -> None:
            written.text += text
            for phrase in (*splitter.feed(text), *(splitter.flush() if end else ())):
                said.append(phrase)
                await parts.put((phrase, written))

        replies = timely(
            self._asked(models, key, asked, understood=understood),
            self._after,
            llm.name,
            None if last else terms.first_word_ms / 1000,
            None if last else terms.stall_ms / 1000,
            _says,
        )
        try:
            async with aclosing(replies) as events:
                async for event in events:
                    if not asked_it:
                        asked_it = True
                        turn.asked(self._sessions.get(key))
                    if isinstance(event, TextDelta):
                        await give(seam.feed(event.text))
                    elif isinstance(event, ToolCall):
                        calls.append(event)
                    elif isinstance(event, Expect):
                        turn.expectation = event.expectation
                        if turn.spoke_at is not None:
                            self._expect(turn)
                    else:
                        context.counted(key, asked, event.tokens_in)
                        self._meter_tokens(llm, event)
                        told = True
        except (asyncio.CancelledError, ProviderError):
            if not asked_it:
                turn.asked(self._sessions.get(key))
            if not told and product_of(llm) != HERE:  # nobody tells the tokens of a request that is cut
                self._meter("llm", llm, "calls", 1)
            raise
        await give(seam.flush(), end=True)
        if not last and not calls and not turn.messages():
            raise ProviderError(llm.name, "protocol", "an empty answer", retryable=True)
        return calls

    def _asked(
        self, models: Choice, key: str, asked: Sequence[Message], *, understood: bool
    ) -> AsyncGenerator[LlmEvent, None]:
        """The model's reply, or what was asked for early of just this."""
        early = self._early
        if early is None or not early.answers(key, asked, understood=understood):
            self._drop_early()
            return self._session(models, key).reply(asked, understood=understood)
        self._early = None
        self._report.event("speculation", kept=True)
        return early.events()

    def _speculate(self, texts: Sequence[str]) -> None:
        """Ask about what the caller may have said, once they are silent."""
        wait_ms = SPECULATE_AFTER_MS - self._bus.silent_ms
        if wait_ms > 0:
            self._set_timer("speculation", max(wait_ms, FRAME_MS) / 1000, lambda: self._speculate(texts))
            return
        key, new = self._models.order()[0], self._new(texts)
        if not new or self._instruction or not getattr(self._models.named[key], "speculates", True):
            return  # a script moves on by being asked
        if self._speculations == SPECULATIONS:
            return
        said = [Message("caller", text, language=self._language) for text in new]
        asked = [*self._condensing.context.view(self.conversation), *said]
        try:
            session = self._session(self._models, key)
        except ProviderError:
            return  # as it will say when it is needed
        self._speculations += 1
        self._early = Speculation(key, asked, lambda: session.reply(asked), self._spawn)

    def _drop_early(self) -> None:
        """What was asked for early, or was about to be, is not wanted."""
        self._cancel_timer("speculation")
        early, self._early = self._early, None
        if early is None:
            return
        llm = self._models.named[early.key]
        used = early.drop()
        for usage in used:
            self._meter_tokens(llm, usage)
        if not used:  # nobody tells the tokens of a request that is cut
            self._meter("llm", llm, "calls", 1)
        self._report.event("speculation", kept=False)

    def _open_one(self) -> None:
        """Before it is needed, the first of the models that can be opened. Raises ProviderError: none can."""
        first: ProviderError | None = None
        for key in self._models.order():
            try:
                self._session(self._models, key)
                return
            except ProviderError as error:
                self._models.failed(key, error)
                first = first or error
        assert first is not None
        raise first

    def _session(self, models: Choice, key: str) -> LlmSession:
        """Of the model of that key, opened when it is first asked. Raises ProviderError."""
        if key not in self._sessions:
            self._sessions[key] = models.named[key].open(self._call)
        return self._sessions[key]

    async def _use(self, call: ToolCall, turn: Exchange, parts: "_Parts") -> None:
        written, hands = turn.written[-1], Hands(self, turn)
        written.calls.append(call)
        if call.name == languages.SPEAK_LANGUAGE:
            self._used(call, written, self._asked_to_speak(call, written, turn))
            return
        done = turn.done_by_another(call.name, written.author) if written.anew else None
        if done is not None:  # before it failed: never a second time
            written.results[call.id] = done
            return
        if asks := secure_prompt(self._definition, call.name):
            written.text += asks
            await parts.put((asks, written))
        self._used(call, written, await self._tools(call, hands, self._call))
        if hands.given_over:
            self._giving_over = call.id
        if hands.digits:
            await parts.put(hands.digits)

    def _meter_tokens(self, llm: Any, usage: LlmUsage) -> None:
        self._meter("llm", llm, "tokens_in", usage.tokens_in - usage.cached_in)
        if usage.cached_in:
            self._meter("llm", llm, "cached_tokens_in", usage.cached_in)
        self._meter("llm", llm, "tokens_out", usage.tokens_out)

    def instruct(self, text: str) -> None:
        self._drop_early()
        self._instruction = text

    def unmetered(self) -> Sequence[Usage]:
        call_id = self._call.call_id
        given = self._stt.unmetered()
        return [Usage(call_id, ears.name, "stt", "seconds", seconds, product_of(ears)) for ears, seconds in given]


_Parts = asyncio.Queue[tuple[str, Written] | str | None]
"""What the model's side hands the voice's: a phrase and its message, keys to sound; None: that was all."""


def _continues(llm: Llm) -> bool:
    """Whether it can go on with what another has begun."""
    return bool(getattr(llm, "continues", True))


def _says(event: LlmEvent) -> bool:
    """Whether the model has begun to answer."""
    return isinstance(event, ToolCall) or (isinstance(event, TextDelta) and bool(event.text.strip()))


def _after_agent(conversation: Sequence[Message]) -> int:
    """Where what the agent was last heard to say ends."""
    at = len(conversation)
    while at and not (conversation[at - 1].role == "agent" and conversation[at - 1].text):
        at -= 1
    return at
