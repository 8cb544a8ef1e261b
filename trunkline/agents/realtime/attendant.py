"""A realtime model on a call's bus: one session hears, thinks and speaks, in place of the cascade's three.

`RealtimeAgent` is an agent of this process, as a `Cascade` is; its attendant is the cascade's, whose ears and mind are
the session: turn machine, playout, tools, records and hands are the same. What differs:

- Who owns the turns is named in the agent's file. `ours`: our VAD and turn machine; the model is given speech alone,
  each utterance is committed and asked about, and an interruption is reversible. `server`: the model is given all of
  the line and answers by itself; its `speech_started` is an interruption at once.
- Speech with the floor is answered without waiting for its words: the model has heard it. Its transcript comes beside
  the answer, for the record. Of what was said over the agent, or was short, the transcript decides, as a final does.
- On an interruption the model forgets what was not heard: each item is truncated at the heard millisecond.
- Fixed lines are spoken by the model, so that a call has one voice; by `tts` where they must be word for word, and
  whenever the model has just failed. A filler comes always from `tts`: the model is busy then.
- A session that ends, by age or by breaking, is followed by another with the conversation. When there is none in time,
  the cascade of the same agent goes on; without it the caller hears `failure`.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from trunkline.agents import turns as t
from trunkline.agents.attendant import TOOL_ROUNDS, Attendant, Control, Hands, Hears, Provider, Report
from trunkline.agents.cascade import Cascade
from trunkline.agents.deadline import After
from trunkline.agents.definition import AgentDefinition, RealtimeTerms
from trunkline.agents.exchange import NOT_HANDED_OFF, UNKNOWN_OUTCOME, Exchange, Written
from trunkline.agents.invoiced import product_of
from trunkline.agents.languages import SPEAK_LANGUAGE
from trunkline.agents.llm.told import EXPECT_DIGITS
from trunkline.agents.providers import Minds
from trunkline.agents.realtime.live import Live
from trunkline.agents.realtime.said import SPOKEN, Item, Utterance, Utterances, Words
from trunkline.agents.script.model import Script
from trunkline.agents.seam import GO_ON
from trunkline.agents.tools import secure_prompt
from trunkline.clock import Clock
from trunkline.errors import ProviderError
from trunkline.live import Follower, Heard
from trunkline.media.bus import Bus
from trunkline.ports import (
    HERE,
    CallFacts,
    Expectation,
    Message,
    ModelRefused,
    ModelSpeechEnded,
    ModelSpeechStarted,
    ModelTook,
    ModelTranscribed,
    Realtime,
    RealtimeEvent,
    RealtimeSession,
    RealtimeUsage,
    Refuse,
    ReplyAudio,
    ReplyEnded,
    ReplyItemEnded,
    ReplyStarted,
    ReplyText,
    ReplyTool,
    ToolCall,
    TranscriptionUsage,
    Usage,
    UsageUnit,
)

STALLED_S = 2.0  # of an item that has begun; models speak much faster than they are heard
LOSSES = 2  # sessions, in one turn
LINE_WAITS_S = 1.5  # for a session, until a fixed line is spoken without one
ANSWER_WAITS_S = 1.0  # for another session, until the cascade answers: it needs most of a second itself


@dataclass(slots=True)
class RealtimeAgent:
    """One agent of this process, with the cascade that it falls back to."""

    cascade: Cascade
    model: Realtime
    terms: RealtimeTerms

    @property
    def definition(self) -> AgentDefinition:
        return self.cascade.definition

    @property
    def minds(self) -> Minds:
        return self.cascade.minds

    @property
    def providers(self) -> Sequence[Provider]:
        minds, summariser = self.cascade.minds, self.cascade.summariser
        summing_up: list[Provider] = [] if summariser is None else [summariser]
        if summariser is None and self.definition.context is not None:
            summing_up = list(minds.named("llm").values())
        return (self.model, *minds.everything("tts").values(), *summing_up)

    @property
    def ready(self) -> Callable[[], bool]:
        return self.cascade.ready

    @property
    def greets_again(self) -> bool:
        return False

    def alone(self) -> "RealtimeAgent | Cascade | None":
        """With a model of this house it is itself; else a cascade."""
        return self if not any(each.third_party for each in self.providers) else self.cascade.alone()

    @property
    def fallback(self) -> Cascade | None:
        return self.cascade if self.terms.fallback else None

    def attend(
        self, call: CallFacts, bus: Bus, control: Control, report: Report, clock: Clock, after: After
    ) -> "RealtimeAttendant":
        return RealtimeAttendant(self, call, bus, control, report, clock, after)


@dataclass(slots=True)
class Asked:
    """A reply of the model that is awaited."""

    tag: str
    turn: Exchange
    over: "asyncio.Future[None]"
    by_server: bool = False
    """The model begins it by itself."""
    id: str = ""
    calls: list[ToolCall] = field(default_factory=list)

    def begins(self, tag: str) -> bool:
        """Whether the reply that begins with this tag is the one."""
        return not self.id and (tag == self.tag or (self.by_server and not tag))


class _SessionLost(Exception):
    """The reply will not come: its session is gone."""


class RealtimeAttendant(Attendant):
    """One call's agent. Methods return at once; close() is idempotent."""

    def __init__(
        self,
        agent: RealtimeAgent,
        call: CallFacts,
        bus: Bus,
        control: Control,
        report: Report,
        clock: Clock,
        after: After,
    ) -> None:
        self._model, self._terms = agent.model, agent.terms
        self._server = agent.terms.turns == "server"
        super().__init__(
            agent.definition,
            agent.minds,
            agent.cascade.tools,
            call,
            bus,
            control,
            report,
            clock,
            after,
            gated=not self._server,
            sums_up=lambda: agent.cascade.sums_up(clock.now()),
        )
        self._script = Script.of(agent.definition)
        format, health = bus.playout.format, agent.minds.health
        self._instruction = ""  # of each session
        self._sessions = Live(self, agent.model, agent.terms, call, format, health, report, clock, after)
        self._utterances = Utterances(bus.playout.format.bytes_per_ms)
        self._speech_at: float | None = None
        self._speech_ms = 0.0
        self._by_server: ModelSpeechEnded | None = None  # the turn's end that is being told
        self._cut_by_server = False
        self._tags = 0
        self._asked: Asked | None = None
        self._items: dict[str, Item] = {}  # of the turn
        self._left: Exchange | None = None  # the turn in which sessions were left: another failure is the last
        self._failures = 0
        self._deaf = False  # a line that must be heard whole
        self._told_line = False
        self._asking = False  # words before a tool
        self._unwritten = b""  # when it was closed
        self._word_for_word = False
        self.transcripts = 0
        """That have come."""
        bus.rest_ears(self._server)

    # --- the call's life ---

    def begin(
        self,
        greeting: str | None = None,
        conversation: Sequence[Message] = (),
        pending: Sequence[str] = (),
        *,
        before_question: str = "",
    ) -> None:
        if not self.conversation:
            self.conversation += conversation
        if self._terms.fallback and not self._sessions.well:
            self._set_timer("fall_back", 0.0, lambda: self._begin_elsewhere(greeting, pending))
        else:
            self._begin(greeting, pending)

    def _begin(self, greeting: str | None, pending: Sequence[str]) -> None:
        self._sessions.begin()
        super().begin(greeting, (), pending)

    def _begin_elsewhere(self, greeting: str | None, pending: Sequence[str]) -> None:
        """Other calls have found the model dead: nobody is made to wait for it again."""
        if isinstance(self._control.fall_back(), Refuse):
            self._begin(greeting, pending)
        else:
            self._report.event("model_lost", provider=self._model.name, code=self._sessions.last_code)

    def say_goodbye(self, line: str | None = None) -> None:
        self._word_for_word = line is not None  # a model might say it in its own words
        super().say_goodbye(line)

    @property
    def hears_words(self) -> Hears:
        if not self._model.transcribes or self._deaf or self._live is None:
            return "never"
        return "late"

    def close(self) -> None:
        self._unwritten = self._unwritten or self._utterances.unwritten  # before the turn counts as answered
        super().close()

    @property
    def unwritten(self) -> bytes:
        said = self.conversation
        return self._unwritten if said and said[-1].role == "caller" and not said[-1].text else b""

    # --- from the bus: with the server as owner of turns, our ears rest ---

    def speech_started(self, at: float) -> None:
        if not self._server:
            self._speech_at = at
            super().speech_started(at)

    def speech_sustained(self) -> None:
        if not self._server:
            super().speech_sustained()

    def speech_ended(self, at: float) -> None:
        if not self._server:
            self._speech_ms = (at - self._speech_at) * 1000 if self._speech_at is not None else 0.0
            self._speech_at = None
            super().speech_ended(at)

    # --- the session (live.Owner) ---

    @property
    def _live(self) -> RealtimeSession | None:
        return self._sessions.session

    @property
    def quiet(self) -> bool:
        heard = self._utterances.heard is not None or self._bus.hearing_speech or self.turns.hearing
        return self.turns.state is t.State.LISTENING and not heard and not self._utterances.words_are_awaited

    def view(self, conversation: Sequence[Message]) -> Sequence[Message]:
        return self._condensing.context.view(conversation)

    def adopted(self, session: RealtimeSession, without_ms: float) -> None:
        """What is under way is told too: what the caller said and nobody answered, the tools that were used for it, and
        as much of the answer as there was."""
        if self._instruction:
            session.tell(Message("caller", self._instruction))
        for utterance in self._utterances:
            utterance.known = not utterance.text and bool(utterance.audio)
            if utterance.known:
                session.tell(Message("caller", ""), bytes(utterance.audio))
        turn = self._turn
        for written in turn.written if turn is not None and turn.asked_at is not None else ():
            text = written.text.strip()
            if text or written.calls:
                session.tell(Message("agent", text, tool_calls=tuple(written.calls)))
            for call_id, result in written.results.items():
                if call_id != self._giving_over:  # it may yet be taken back
                    session.tell(Message("tool", result, tool_call_id=call_id))
        heard = self._utterances.heard
        if heard is not None and heard.audio:
            session.hear(bytes(heard.audio))
        if self._server and self._feeding:
            self._feed(t.PRE_ROLL_MS + round(without_ms))

    def bereft(self) -> None:
        """What has come of the answer is heard; its items are nobody's to truncate."""
        for item in self._items.values():
            item.break_off(self._bus.playout.ledger)
        self._items.clear()
        if self._asked is not None:
            if product_of(self._model) != HERE:  # nobody tells the tokens of a reply that is cut
                self._meter("realtime", self._model, "calls", 1)
            self._settle(self._asked, _SessionLost())
        for utterance in self._utterances:
            if utterance.awaits_words:
                self._decide_without_words(utterance)

    def given_up(self, error: ProviderError) -> None:
        if self._terms.fallback:
            self._set_timer("fall_back", 0.0, self._fall_back)  # it closes us: not within our own doing
        else:
            self._handle(t.Broken())

    def _fall_back(self) -> None:
        if isinstance(self._control.fall_back(), Refuse):
            self._handle(t.Broken())

    # --- what the model says ---

    def happened(self, event: RealtimeEvent) -> None:
        match event:
            case ReplyAudio(reply, item, data):
                self._audio(reply, item, data)
            case ReplyText(reply, item, text, whole):
                self._text(reply, item, text, whole)
            case ReplyItemEnded(reply, name):
                if self._of(reply) is not None and name in self._items:
                    self._items[name].ended = True
                    self._cancel_timer("stalled")
            case ReplyStarted(reply, tag):
                self._reply_started(reply, tag)
            case ReplyTool(reply, call):
                if (asked := self._of(reply)) is not None:
                    self._cancel_timer("first_audio")
                    asked.calls.append(call)
            case ReplyEnded(reply, tag, usage, error):
                self._reply_ended(reply, tag, usage, error)
            case ModelTook(name, item):
                if (utterance := self._utterances.named(name)) is not None:
                    utterance.item = item
            case ModelTranscribed(item, text, failed, used):
                if used is not None:
                    self._meter_transcription(used)
                self._transcribed(item, text, failed)
            case ModelSpeechStarted(ago_ms):
                self._server_hears(ago_ms)
            case ModelSpeechEnded():
                self._server_heard(event)
            case ModelRefused(what, code):
                self._refused(what, code)

    def _of(self, reply: str) -> Asked | None:
        """What was asked for, if this reply is it. What comes of others is void."""
        asked = self._asked
        return asked if asked is not None and asked.id == reply and reply else None

    def _reply_started(self, reply: str, tag: str) -> None:
        asked = self._asked
        if asked is not None and asked.begins(tag):
            asked.id = reply
        elif self._live is not None:
            self._live.cancel(reply)  # cut before it began

    def _item(self, asked: Asked, name: str) -> Item:
        item = self._items.get(name)
        if item is None:
            item = self._items[name] = Item(name, self._bus.playout.format.bytes_per_ms)
            asked.turn.written.append(item.written)
        return item

    def _audio(self, reply: str, name: str, data: bytes) -> None:
        asked = self._of(reply)
        if asked is None or not data:
            return
        self._cancel_timer("first_audio")
        item, bus, turn = self._item(asked, name), self._bus, asked.turn
        if not bus.has_room:  # a model that speaks a book: it ends here
            self._stop_book(asked, item)
            return
        if item.start_ms is None:
            item.begin(bus.position_ms)
            turn.first_phrase_at = turn.first_phrase_at or self._clock.now()
        item.audio_bytes += len(data)
        self._set_timer("stalled", STALLED_S, self._stalled)
        self._append(turn, data, (), item.start_ms or 0)

    def _stop_book(self, asked: Asked, item: Item) -> None:
        assert self._live is not None
        self._live.cancel(asked.id)
        self._live.truncate(item.id, item.audio_ms)
        item.whole(self._bus.playout.ledger)
        self._settle(asked)

    def _text(self, reply: str, name: str, text: str, whole: bool) -> None:
        asked = self._of(reply)
        if asked is not None:
            written = self._item(asked, name).written
            written.text = text if whole else written.text + text

    def _reply_ended(self, reply: str, tag: str, usage: RealtimeUsage | None, error: Exception | None) -> None:
        if usage is not None:
            self._meter_reply(usage)
        asked = self._of(reply)
        if asked is None:
            waiting = self._asked
            if waiting is None or waiting.id or not tag or waiting.tag != tag:
                return
            asked = waiting  # failed before it began
        for item in self._items.values():
            item.whole(self._bus.playout.ledger)
        self._settle(asked, error)

    def _settle(self, asked: Asked, error: Exception | None = None) -> None:
        """It is over, or will not come."""
        if asked is self._asked:
            self._asked = None
            self._stop_waiting()
        if asked.over.done():
            return
        if error is None:
            asked.over.set_result(None)
        else:
            asked.over.set_exception(error)

    def _meter_reply(self, usage: RealtimeUsage) -> None:
        text_in = None if usage.text_in is None else usage.text_in - usage.text_cached
        audio_in = None if usage.audio_in is None else usage.audio_in - usage.audio_cached
        units: tuple[tuple[Any, int | None], ...] = (
            ("tokens_in", text_in),
            ("cached_tokens_in", usage.text_cached or None),
            ("tokens_out", usage.text_out),
            ("audio_tokens_in", audio_in),
            ("cached_audio_tokens_in", usage.audio_cached or None),
            ("audio_tokens_out", usage.audio_out),
        )
        for unit, quantity in units:
            if quantity is not None:
                self._meter("realtime", self._model, unit, quantity)

    def _meter_transcription(self, used: TranscriptionUsage) -> None:
        units: tuple[tuple[UsageUnit, float], ...] = (
            ("seconds", used.seconds),
            ("tokens_in", used.text_in),
            ("audio_tokens_in", used.audio_in),
            ("tokens_out", used.text_out),
        )
        for unit, quantity in units:
            if quantity:
                call_id = self._call.call_id
                self._report.usage(Usage(call_id, self._model.name, "stt", unit, quantity, used.product))

    def instruct(self, text: str) -> None:
        self._instruction = text
        if self._live is not None:
            self._live.tell(Message("caller", text))

    def _refused(self, what: str, code: str) -> None:
        self._report.event("model_refused", code=code)
        asked = self._asked
        if asked is not None and asked.tag == what:
            self._settle(asked, ProviderError(self._model.name, "bad_request", code[:60], retryable=True))
        utterance = self._utterances.named(what)
        if utterance is not None and utterance.awaits_words:
            self._decide_without_words(utterance)

    # --- what the caller says ---

    def _hear(self, audio: bytes) -> None:
        if self._server:
            if self._live is not None and not self._deaf:
                self._live.hear(audio)
            return
        self._utterances.hear(audio)
        if self._live is not None:
            self._live.hear(audio)

    def _finalize(self) -> None:
        ended, self._by_server = self._by_server, None
        utterance = self._utterances.over()
        utterance.known = self._live is not None
        if ended is not None:
            utterance.item = ended.item
        elif self._live is not None:
            self._live.commit(utterance.name)
        callers = self.turns.floor_is_callers
        long = self._speech_ms >= t.MEANT_MS or self._server or self._bus.hearing_speech
        if self._server or (callers and long):
            self._next.final_at = self._clock.now()
            self._handle(t.Final(Words.of(utterance, SPOKEN), understood=True))
        elif self._model.transcribes and self._live is not None:
            utterance.awaits_words = True
        else:
            self._decide_without_words(utterance, callers)

    def _decide_without_words(self, utterance: Utterance, callers: bool | None = None) -> None:
        """Nobody says what it was: with the floor it was words, over the agent a noise."""
        utterance.awaits_words = False
        self._next.final_at = self._clock.now()
        if self.turns.floor_is_callers if callers is None else callers:
            self._handle(t.Final(Words.of(utterance, SPOKEN), understood=True))
        else:
            self._utterances.forget(utterance)
            self._handle(t.Final("", understood=False))

    def _transcribed(self, item: str, text: str, failed: bool) -> None:
        if self._definition.heeds and not failed:
            self.transcripts += 1
            if self._heed(self._heeding.final(text, self.language, self._clock.now())):
                return
        utterance = self._utterances.of(item)
        if utterance is None:
            return
        utterance.text, utterance.transcribed = text, True
        utterance.audio.clear()
        if text and (tell := self._report.follower) is not None:
            tell(Heard(text, final=True))
        if utterance.message_at is not None:
            at = utterance.message_at
            self.conversation[at] = replace(self.conversation[at], text=text)
            if utterance.turn is not None:
                utterance.turn.caller_text = f"{utterance.turn.caller_text} {text}".strip()
            self._utterances.forget(utterance)
        if not utterance.awaits_words:
            return
        utterance.awaits_words = False
        self._next.final_at = self._clock.now()
        if text:
            self._handle(t.Final(Words.of(utterance, text), understood=True))
        else:
            self._utterances.forget(utterance)
            if self._live is not None and not failed:
                self._live.forget(item)
            self._handle(t.Final("", understood=False, failed=failed))

    def _forget(self) -> None:
        self._utterances.heard = None
        if self._live is not None:
            self._live.clear()

    def _server_hears(self, ago_ms: int) -> None:
        if not self._server or self._deaf:
            return
        self._cut_by_server = True
        try:
            super().speech_started(self._clock.now() - ago_ms / 1000)
            super().speech_sustained()  # the server has cancelled its reply: there is nothing to go back to
        finally:
            self._cut_by_server = False

    def _server_heard(self, ended: ModelSpeechEnded) -> None:
        if not self._server or self._deaf:
            return
        self._by_server = ended
        super().speech_ended(self._clock.now() - ended.ago_ms / 1000)
        self._by_server = None

    def _tell(self, event: t.Event, tell: Follower) -> None:
        """The caller's words are told when they are written down."""
        if isinstance(event, t.Final):
            self._following.state(self.turns.state, tell)
        else:
            super()._tell(event, tell)

    # --- replies ---

    def _answer(self, texts: Sequence[str], understood: bool, keyed: bool) -> None:
        turn, self._next = self._next, Exchange()
        by_server = self._server and not keyed and any(isinstance(text, Words) for text in texts)  # else it heard none
        said, known = [], Counter(text for text in self._pending if not isinstance(text, Words))
        for text in texts:
            utterance = text.utterance if isinstance(text, Words) else None
            if utterance is None:
                if known[text]:
                    known[text] -= 1
                    continue
                message = Message("caller", text, keyed=keyed, language=self._language)
                self.conversation.append(message)
                said.append(text)
                if self._live is not None:
                    self._live.tell(message)
            elif utterance.message_at is None:
                utterance.message_at, utterance.turn = len(self.conversation), turn
                message = Message("caller", utterance.text, language=self._language)
                self.conversation.append(message)
                by_server = by_server and utterance.item != ""
                if utterance.transcribed:
                    said.append(utterance.text)
                    self._utterances.forget(utterance)
                    if not utterance.known and self._live is not None:  # it went to a session that is gone
                        self._live.tell(message)
        self._pending = tuple(texts) if understood else ()  # as the turn machine has it: asked again if it is cut
        turn.caller_text, turn.understood, turn.keyed = " ".join(said), understood, keyed
        turn.asked_at = self._clock.now()
        if keyed:
            turn.decided_at, turn.final_at = turn.asked_at, None
        asked: list[Asked] = []
        self._start(turn, lambda: self._reply(turn, asked))
        if self._live is not None:  # now, not when the task runs: it may be over by then
            asked.append(self._order(turn, by_server=by_server))

    def _order(self, turn: Exchange, say: str | None = None, by_server: bool = False) -> Asked:
        """The model is to speak; the reply's task waits for it."""
        assert self._live is not None
        self._tags += 1
        over = asyncio.get_running_loop().create_future()
        over.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be waiting any more
        asked = self._asked = Asked(str(self._tags), turn, over, by_server)
        if not by_server:
            self._live.respond(asked.tag, say)
        turn.asked(self._live)
        self._set_timer("first_audio", self._terms.first_audio_ms / 1000, lambda: self._late(asked))
        return asked

    def _late(self, asked: Asked) -> None:
        """Another session is asked, once a turn, if it can know what was said."""
        if asked is not self._asked:
            return
        late = ProviderError(self._model.name, "timeout", "the answer did not begin", retryable=True)
        if self._left is not asked.turn and (not self._server or asked.turn.caller_text):
            self._left = asked.turn
            self._sessions.lose(late)
        else:
            self._stop_asking()
            self._settle(asked, late)

    def _stalled(self) -> None:
        self._sessions.lose(ProviderError(self._model.name, "timeout", "the answer stalled", retryable=True))

    def _stop_waiting(self) -> None:
        self._cancel_timer("first_audio")
        self._cancel_timer("stalled")

    async def _reply(self, turn: Exchange, ordered: Sequence[Asked] = ()) -> None:
        """`ordered`: the model was told to begin. A session that breaks is followed by another within the turn, which
        goes on where the answer broke off."""
        asked, losses = ordered[0] if ordered else None, 0
        for _ in range(TOOL_ROUNDS):
            try:
                if asked is None:
                    session = await self._another(turn)
                    if losses and turn.messages() and not turn.written[-1].calls:
                        session.tell(Message("caller", GO_ON))
                    asked = self._order(turn)
                await asked.over
            except _SessionLost:
                losses += 1
                if losses > LOSSES:
                    self._left = turn
                    raise ProviderError(self._model.name, "unavailable", "it breaks off", retryable=True) from None
                asked = None
                continue
            calls, asked = asked.calls, None
            for call in calls:
                await self._use_tool(call, turn)
            if turn.messages():
                self._failures = 0
            if turn.urgent:
                await self._line(self._help(), turn)
                break
            if not calls or self.turns.ending is not None:
                break
        else:
            raise ProviderError(self._model.name, "protocol", "it only calls tools", retryable=False)
        if not turn.messages() and turn.first_audio_at is None:
            raise ProviderError(self._model.name, "protocol", "an empty answer", retryable=True)

    async def _another(self, turn: Exchange) -> RealtimeSession:
        """Raises ProviderError: there is none in time, and the cascade is to answer."""
        try:
            return await self._sessions.have(ANSWER_WAITS_S if self._terms.fallback else None)
        except ProviderError:
            self._left = turn
            raise

    async def _use_tool(self, call: ToolCall, turn: Exchange) -> None:
        if not turn.written:
            turn.written.append(Written())
        written = turn.written[-1]
        written.calls.append(call)
        if call.name == SPEAK_LANGUAGE:
            result = self._asked_to_speak(call, written, turn)
        elif call.name == EXPECT_DIGITS:
            result = self._expect_digits(call, turn)
        else:
            hands = Hands(self, turn)
            result = await self._tool(call, hands, turn)
            if hands.digits:
                await self._key(turn, hands.digits)
            if hands.given_over:
                self._giving_over = call.id
        self._used(call, written, result)
        if self._live is not None and self._giving_over != call.id:  # it may yet be taken back
            self._live.tell(Message("tool", result, tool_call_id=call.id))

    async def _tool(self, call: ToolCall, hands: Hands, turn: Exchange) -> str:
        """The keypad is taken at once, not after the words that ask for it: the caller may know what comes."""
        asks = secure_prompt(self._definition, call.name)
        if not asks:
            return await self._tools(call, hands, self._call)
        self._asking = True
        try:
            async with asyncio.TaskGroup() as both:
                used = both.create_task(self._tools(call, hands, self._call))
                both.create_task(self._line(asks, turn))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            self._asking = False
        return used.result()

    def _expect_digits(self, call: ToolCall, turn: Exchange) -> str:
        entry = self._script.digits.get(str(call.arguments.get("name", "")))
        turn.expectation = Expectation() if entry is None else Expectation(digits_min=entry.min, digits_max=entry.max)
        if turn.spoke_at is not None:
            self._expect(turn)
        return '{"ok": true}' if entry is not None else '{"ok": false, "code": "bad_arguments"}'

    async def _line(self, text: str, turn: Exchange) -> None:
        self._pending = ()
        if not text or self._word_for_word or self._terms.lines == "tts" or self._failures or self._sessions.broken:
            await self._line_by_tts(text, turn)
            return
        try:
            await self._sessions.have(LINE_WAITS_S)
            await self._order(turn, say=text).over
        except (ProviderError, _SessionLost):
            said = " ".join(message.text for message in turn.messages())
            await self._line_by_tts(" ".join(text.split()[len(said.split()) :]), turn)

    async def _line_by_tts(self, text: str, turn: Exchange) -> None:
        if not self._asking:
            self._told_line = bool(text)
        await super()._line(text, turn)
        if self._asking and self._live is not None:
            self._live.tell(Message("agent", text))

    def _fail(self, turn: Exchange, error: ProviderError) -> None:
        self._failures += 1
        last = self._failures > 1 or self._left is turn
        if last and self._terms.fallback and not self._sessions.broken:
            turn.failed = True
            self._stop_task()
            self._sessions.failed(error)
        else:
            super()._fail(turn, error)

    def _start(self, turn: Exchange, reply: Any) -> None:
        super()._start(turn, reply)
        self._items.clear()
        self._told_line = False
        self._deaf = self._server and not self.turns.interruptible

    def _stop_task(self) -> None:
        self._stop_asking()
        super()._stop_task()

    def _stop_asking(self) -> None:
        """The model speaks no more; what still comes is void."""
        asked, self._asked = self._asked, None
        self._stop_waiting()
        if asked is not None and self._live is not None and not self._cut_by_server:
            self._live.cancel(asked.id)

    def _end_turn(self, *, cut: bool) -> None:
        turn, before = self._turn, len(self.conversation)
        if turn is not None and cut:
            for item in self._items.values():
                item.cut(self._bus.playout.ledger)
        super()._end_turn(cut=cut)
        self._deaf = False
        if turn is None:
            return
        if self._live is not None:
            if self._told_line:
                for message in self.conversation[before:]:
                    self._live.tell(message)
            for written in turn.written:
                for call in written.calls:
                    if call.id not in written.results:
                        self._live.tell(Message("tool", UNKNOWN_OUTCOME, tool_call_id=call.id))
        self._items.clear()
        self._told_line = False
        if any(message.role == "agent" and message.text for message in self.conversation[before:]):
            self._utterances.answered()
        self._sessions.turn_over()

    def _take_back(self) -> None:
        if self._live is not None:
            self._live.tell(Message("tool", NOT_HANDED_OFF, tool_call_id=self._giving_over))
        super()._take_back()

    def _cut(self, turn: Exchange) -> int:
        heard_ms = super()._cut(turn)
        if self._live is not None:
            for item in self._items.values():
                unheard_ms = item.unheard_from(heard_ms)
                if unheard_ms is not None:
                    self._live.truncate(item.id, unheard_ms)
        return heard_ms

    # --- ears: the session's ---

    def _listener(self) -> Callable[[bytes], None]:
        return self._hear

    def _fed(self) -> None:
        """A reply's tokens are all that is metered."""

    def _awaits(self, expectation: Expectation) -> None:
        """The model has asked for it itself."""

    def _change_to(self, language: str) -> None:
        """The model hears and speaks them all."""

    def _dismiss(self) -> None:
        self._sessions.close()
        self._cancel_timer("fall_back")
        self._stop_waiting()
        self._utterances.clear()
