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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import ref

from trunkline.agents import turns as t
from trunkline.agents.attendant import TOOL_ROUNDS, Attendant, Control, Hands, Provider, Report
from trunkline.agents.cascade import Cascade
from trunkline.agents.deadline import After
from trunkline.agents.definition import AgentDefinition, RealtimeTerms
from trunkline.agents.exchange import NOT_HANDED_OFF, UNKNOWN_OUTCOME, Exchange, Phrase, Written
from trunkline.agents.llm.told import EXPECT_DIGITS
from trunkline.agents.providers import Minds
from trunkline.agents.script.model import Script
from trunkline.clock import Clock
from trunkline.errors import ProviderError
from trunkline.media.bus import Bus
from trunkline.ports import (
    Allow,
    CallFacts,
    EndReason,
    Expectation,
    Message,
    ModelLost,
    ModelOpened,
    ModelRefused,
    ModelSpeechEnded,
    ModelSpeechStarted,
    ModelTook,
    ModelTranscribed,
    Realtime,
    RealtimeEvent,
    RealtimeSession,
    RealtimeUsage,
    ReplyAudio,
    ReplyEnded,
    ReplyItemEnded,
    ReplyStarted,
    ReplyText,
    ReplyTool,
    ToolCall,
)

REOPEN_S = 0.25  # from a session's loss to the next try, and between tries
RENEW_AGAIN_S = 30.0  # after a new session could not be had
SWAP_AGAIN_S = 0.5
LETTER_MS = 65  # of an item whose audio is still coming: its words are ahead of it
KEPT_AUDIO_MS = 30_000  # of an utterance, should the session break before it is answered
UTTERANCES = 16
SPOKEN = "(speech)"
"""For the turn machine: words that nobody has written down yet."""


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
        return (self.model, *minds.named("tts").values(), *summing_up)

    @property
    def ready(self) -> Callable[[], bool]:
        return self.cascade.ready

    @property
    def fallback(self) -> Cascade | None:
        return self.cascade if self.terms.fallback else None

    def attend(
        self, call: CallFacts, bus: Bus, control: Control, report: Report, clock: Clock, after: After
    ) -> "RealtimeAttendant":
        return RealtimeAttendant(self, call, bus, control, report, clock, after)


@dataclass(slots=True)
class _Utterance:
    """What the caller said once."""

    name: str
    audio: bytearray = field(default_factory=bytearray)
    """Kept until it is answered."""
    item: str = ""
    text: str = ""
    transcribed: bool = False
    awaits_words: bool = False
    """The turn machine has no final of it yet."""
    message_at: int | None = None
    """Where it stands in the conversation."""
    turn: Exchange | None = None


class _Words(str):
    """An utterance as the turn machine carries it."""

    utterance: _Utterance

    @staticmethod
    def of(utterance: _Utterance, text: str) -> "_Words":
        words = _Words(text)
        words.utterance = utterance
        return words


@dataclass(slots=True)
class _Item:
    id: str
    written: Written
    start_ms: int | None = None
    """On the timeline; None before its first audio."""
    audio_bytes: int = 0
    ended: bool = False


@dataclass(slots=True)
class _Response:
    """One reply of the model that is awaited."""

    tag: str
    turn: Exchange
    over: "asyncio.Future[None]"
    by_server: bool = False
    """The model begins it by itself."""
    id: str = ""
    calls: list[ToolCall] = field(default_factory=list)


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
        self._live: RealtimeSession | None = None  # that is open
        self._opening: RealtimeSession | None = None
        self._next_session: RealtimeSession | None = None  # that follows by age
        self._next_open, self._next_told = False, 0
        self._lost_at: float | None = None
        self._broken: ProviderError | None = None
        self._news = asyncio.Event()  # the session is open, or lost for good
        self._heard: _Utterance | None = None  # being heard
        self._utterances: dict[str, _Utterance] = {}  # by name, while anything of them is awaited
        self._names = 0
        self._speech_at: float | None = None
        self._speech_ms = 0.0
        self._by_server: ModelSpeechEnded | None = None  # the turn's end that is being told
        self._cut_by_server = False
        self._response: _Response | None = None
        self._items: dict[str, _Item] = {}  # of the turn
        self._failures = 0
        self._deaf = False  # a line that must be heard whole
        self._told_line = False

    # --- the call's life ---

    def begin(
        self, greeting: str | None = None, conversation: Sequence[Message] = (), pending: Sequence[str] = ()
    ) -> None:
        if not self.conversation:
            self.conversation += conversation
        self._lost_at = self._clock.now()
        self._open_session()
        super().begin(greeting, (), pending)

    # --- from the bus: with the server as owner of turns, our ears decide nothing ---

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

    # --- the session ---

    def _open_session(self) -> None:
        """What is not in its conversation yet is told when it is open."""
        told = self._condensing.context.view(self.conversation)
        known = [m for m in told if m.role != "caller" or m.text]
        self._opening = self._open(known)

    def _open(self, conversation: Sequence[Message]) -> RealtimeSession:
        me, sessions = ref(self), list[RealtimeSession]()

        def heard(event: RealtimeEvent) -> None:
            attendant = me()
            if attendant is not None and sessions:
                attendant._from_session(sessions[0], event)

        sessions.append(self._model.open(self._call, self._bus.playout.format, conversation, heard))
        return sessions[0]

    def _from_session(self, session: RealtimeSession, event: RealtimeEvent) -> None:
        if self._closed:
            return
        try:
            if session is self._live:
                self._happened(event)
            elif session is self._opening:
                self._while_opening(session, event)
            elif session is self._next_session:
                self._while_renewing(session, event)
        except Exception as error:
            self._report.crashed(error)

    def _while_opening(self, session: RealtimeSession, event: RealtimeEvent) -> None:
        if isinstance(event, ModelLost):
            self._opening = None
            session.close()
            self._try_again(event.error)
        elif isinstance(event, ModelOpened):
            self._opening = None
            self._has_session(session)

    def _has_session(self, session: RealtimeSession) -> None:
        without_ms = 0.0 if self._lost_at is None else (self._clock.now() - self._lost_at) * 1000
        self._live, self._lost_at = session, None
        for utterance in self._utterances.values():  # said while there was none, or not yet answered
            if not utterance.text and utterance.audio:
                session.tell(Message("caller", ""), bytes(utterance.audio))
        if self._heard is not None and self._heard.audio:
            session.hear(bytes(self._heard.audio))
        if self._server and self._fed_since is not None:
            self._feed(t.PRE_ROLL_MS + round(without_ms))
        self._set_timer("renew", self._terms.session_minutes * 60.0, self._renew)
        self._news.set()

    def _try_again(self, error: Exception) -> None:
        failed = error if isinstance(error, ProviderError) else ProviderError("realtime", "protocol", retryable=False)
        now = self._clock.now()
        lost_at = self._lost_at = now if self._lost_at is None else self._lost_at
        self._report.event("session_lost", error=str(failed), provider=failed.provider, code=failed.code)
        if failed.retryable and now + REOPEN_S - lost_at <= self._terms.reconnect_ms / 1000:
            self._set_timer("reopen", REOPEN_S, self._open_session)
        else:
            self._give_up(failed)

    def _lost(self, error: Exception) -> None:
        """Mid-call. What has come of the answer is heard."""
        if self._live is not None:
            self._live.close()
        self._live = None
        self._news.clear()
        self._cancel_timer("renew")
        response, self._response = self._response, None
        if response is not None and not response.over.done():
            response.over.set_exception(_SessionLost())
        for utterance in self._utterances.values():
            if utterance.awaits_words:
                self._decide_without_words(utterance)
        if self._next_session is not None and self._next_open:
            self._report.event("session_lost", error=str(error))
            self._swap()
        else:
            self._try_again(error)

    def _give_up(self, error: ProviderError) -> None:
        if self._broken is not None:
            return
        self._broken = error
        self._news.set()
        if self._live is not None:
            self._live.close()
            self._live = None
        self._cancel_timer("reopen")
        self._report.event("model_lost", error=str(error), provider=error.provider, code=error.code)
        if self._terms.fallback:
            self._set_timer("reopen", 0.0, self._control.fall_back)  # it closes us: not within our own doing
        else:
            self._handle(t.Broken(self._way_out()))

    def _way_out(self) -> EndReason:
        """The file may say where callers go who cannot be helped here."""
        target = self._script.fallback.transfer
        if target is not None and isinstance(self._control.transfer(target), Allow):
            return "transferred"
        return "error"

    async def _have_session(self) -> RealtimeSession:
        """Raises ProviderError when there will be none."""
        while self._live is None:
            if self._broken is not None:
                raise self._broken
            self._news.clear()
            await self._news.wait()
        return self._live

    # --- a session's age ---

    def _renew(self) -> None:
        """What is not written down yet, and what is said until then, is told when it takes over."""
        unwritten = (
            at for at, message in enumerate(self.conversation) if message.role == "caller" and not message.text
        )
        self._next_told = next(unwritten, len(self.conversation))
        self._next_open = False
        self._next_session = self._open(self._condensing.context.view(self.conversation[: self._next_told]))

    def _while_renewing(self, session: RealtimeSession, event: RealtimeEvent) -> None:
        if isinstance(event, ModelLost):
            self._next_session = None
            session.close()
            self._report.event("session_not_renewed", error=str(event.error))
            self._set_timer("renew", RENEW_AGAIN_S, self._renew)
        elif isinstance(event, ModelOpened):
            self._next_open = True
            self._swap_when_quiet()

    def _swap_when_quiet(self) -> None:
        """Between turns: nobody speaks, and nothing is awaited."""
        if self._next_session is None or not self._next_open:
            return
        quiet = self.turns.state is t.State.LISTENING and self._heard is None and not self._bus.hearing_speech
        if quiet and not any(utterance.awaits_words for utterance in self._utterances.values()):
            self._swap()
        else:
            self._set_timer("swap", SWAP_AGAIN_S, self._swap_when_quiet)

    def _swap(self) -> None:
        old, session = self._live, self._next_session
        assert session is not None
        self._next_session, self._next_open = None, False
        for message in self.conversation[self._next_told :]:
            if message.role != "caller" or message.text:
                session.tell(message)
        self._report.event("session_renewed")
        self._live = None
        if old is not None:
            old.close()
        self._has_session(session)

    # --- what the model says ---

    def _happened(self, event: RealtimeEvent) -> None:
        match event:
            case ReplyAudio(reply, item, data):
                self._audio(reply, item, data)
            case ReplyText(reply, item, text, whole):
                self._text(reply, item, text, whole)
            case ReplyItemEnded(reply, item):
                self._item_ended(reply, item)
            case ReplyStarted(reply, tag):
                self._reply_started(reply, tag)
            case ReplyTool(reply, call):
                if (response := self._of(reply)) is not None:
                    self._cancel_timer("first_audio")
                    response.calls.append(call)
            case ReplyEnded(reply, tag, usage, error):
                self._reply_ended(reply, tag, usage, error)
            case ModelTook(name, item):
                if (utterance := self._utterances.get(name)) is not None:
                    utterance.item = item
            case ModelTranscribed(item, text, failed):
                self._transcribed(item, text, failed)
            case ModelSpeechStarted(ago_ms):
                self._server_hears(ago_ms)
            case ModelSpeechEnded():
                self._server_heard(event)
            case ModelRefused(what, code):
                self._refused(what, code)
            case ModelLost(error):
                self._lost(error)

    def _of(self, reply: str) -> _Response | None:
        """The reply that is awaited, if it is this one. What comes of others is void."""
        response = self._response
        return response if response is not None and response.id == reply and reply else None

    def _reply_started(self, reply: str, tag: str) -> None:
        response = self._response
        if response is not None and not response.id and (tag == response.tag or (response.by_server and not tag)):
            response.id = reply
        elif self._live is not None:
            self._live.cancel(reply)  # cut before it began

    def _item(self, response: _Response, name: str) -> _Item:
        item = self._items.get(name)
        if item is None:
            item = self._items[name] = _Item(name, Written())
            response.turn.written.append(item.written)
        return item

    def _audio(self, reply: str, name: str, data: bytes) -> None:
        response = self._of(reply)
        if response is None or not data:
            return
        self._cancel_timer("first_audio")
        item, bus, turn = self._item(response, name), self._bus, response.turn
        if not bus.has_room:  # a model that speaks a book: it ends here
            self._stop_book(response, item)
            return
        if item.start_ms is None:
            item.start_ms = bus.position_ms
            turn.first_phrase_at = turn.first_phrase_at or self._clock.now()
            item.written.phrases.append(Phrase(item.written.text, item.start_ms))
        item.audio_bytes += len(data)
        self._append(turn, data, (), item.start_ms)

    def _stop_book(self, response: _Response, item: _Item) -> None:
        assert self._live is not None
        self._live.cancel(response.id)
        self._live.truncate(item.id, item.audio_bytes // self._bus.playout.format.bytes_per_ms)
        self._item_is_whole(item)
        self._response = None
        if not response.over.done():
            response.over.set_result(None)

    def _text(self, reply: str, name: str, text: str, whole: bool) -> None:
        response = self._of(reply)
        if response is None:
            return
        written = self._item(response, name).written
        written.text = text if whole else written.text + text

    def _item_ended(self, reply: str, name: str) -> None:
        response = self._of(reply)
        if response is not None and name in self._items:
            self._items[name].ended = True

    def _item_is_whole(self, item: _Item) -> None:
        """All of its audio and words have come: where the words lie is estimated."""
        if item.start_ms is None or not item.written.phrases or item.written.phrases[0].end_ms is not None:
            return
        phrase = item.written.phrases[0]
        phrase.text, phrase.end_ms = item.written.text.strip(), self._end_of(item)
        if phrase.text:
            self._bus.playout.ledger.add_estimate(phrase.text, phrase.start_ms, phrase.end_ms)

    def _end_of(self, item: _Item) -> int:
        assert item.start_ms is not None
        return item.start_ms + item.audio_bytes // self._bus.playout.format.bytes_per_ms

    def _reply_ended(self, reply: str, tag: str, usage: RealtimeUsage | None, error: Exception | None) -> None:
        if usage is not None:
            self._meter_reply(usage)
        response = self._of(reply)
        if response is None:
            waiting = self._response
            if waiting is None or waiting.id or not tag or waiting.tag != tag:
                return
            response = waiting  # failed before it began
        self._response = None
        self._cancel_timer("first_audio")
        for item in self._items.values():
            self._item_is_whole(item)
        if response.over.done():
            return
        if error is not None:
            response.over.set_exception(error)
        else:
            response.over.set_result(None)

    def _meter_reply(self, usage: RealtimeUsage) -> None:
        units: tuple[tuple[Any, int | None], ...] = (
            ("tokens_in", usage.text_in),
            ("tokens_out", usage.text_out),
            ("audio_tokens_in", usage.audio_in),
            ("audio_tokens_out", usage.audio_out),
        )
        for unit, quantity in units:
            if quantity is not None:
                self._meter("realtime", self._model.name, unit, quantity)

    def _refused(self, what: str, code: str) -> None:
        self._report.event("model_refused", code=code)
        response = self._response
        if response is not None and response.tag == what and not response.over.done():
            self._response = None
            self._cancel_timer("first_audio")
            error = ProviderError(self._model.name, "bad_request", code[:60], retryable=True)
            response.over.set_exception(error)
        utterance = self._utterances.get(what)
        if utterance is not None and utterance.awaits_words:
            self._decide_without_words(utterance)

    # --- what the caller says ---

    def _hear(self, audio: bytes) -> None:
        if self._server:
            if self._live is not None and not self._deaf:
                self._live.hear(audio)
            return
        if self._heard is None:
            self._heard = self._utterance()
        if len(self._heard.audio) < KEPT_AUDIO_MS * self._bus.playout.format.bytes_per_ms:
            self._heard.audio += audio
        if self._live is not None:
            self._live.hear(audio)

    def _utterance(self) -> _Utterance:
        self._names += 1
        return _Utterance(str(self._names))

    def _finalize(self) -> None:
        """The turn machine asks for its final."""
        ended, self._by_server = self._by_server, None
        utterance, self._heard = self._heard or self._utterance(), None
        self._utterances[utterance.name] = utterance
        if len(self._utterances) > UTTERANCES:  # a transcriber that never answers
            del self._utterances[next(iter(self._utterances))]
        if ended is not None:
            utterance.item = ended.item
        elif self._live is not None:
            self._live.commit(utterance.name)
        callers = self.turns.floor_is_callers
        long = self._speech_ms >= t.MEANT_MS or self._server or self._bus.hearing_speech
        if self._server or (callers and long):
            self._next.final_at = self._clock.now()
            self._handle(t.Final(_Words.of(utterance, SPOKEN), understood=True))
        elif self._model.transcribes and self._live is not None:
            utterance.awaits_words = True
        else:
            self._decide_without_words(utterance, callers)

    def _decide_without_words(self, utterance: _Utterance, callers: bool | None = None) -> None:
        """Nobody says what it was: with the floor it was words, over the agent a noise."""
        utterance.awaits_words = False
        self._next.final_at = self._clock.now()
        if self.turns.floor_is_callers if callers is None else callers:
            self._handle(t.Final(_Words.of(utterance, SPOKEN), understood=True))
        else:
            self._utterances.pop(utterance.name, None)
            self._handle(t.Final("", understood=False))

    def _transcribed(self, item: str, text: str, failed: bool) -> None:
        utterance = next((u for u in self._utterances.values() if u.item == item), None)
        if utterance is None:
            return
        utterance.text, utterance.transcribed = text, True
        utterance.audio.clear()
        if utterance.message_at is not None:
            at = utterance.message_at
            self.conversation[at] = replace(self.conversation[at], text=text)
            if utterance.turn is not None:
                utterance.turn.caller_text = f"{utterance.turn.caller_text} {text}".strip()
            self._utterances.pop(utterance.name, None)
        if not utterance.awaits_words:
            return
        utterance.awaits_words = False
        self._next.final_at = self._clock.now()
        if text:
            self._handle(t.Final(_Words.of(utterance, text), understood=True))
        else:
            self._utterances.pop(utterance.name, None)
            if self._live is not None and not failed:
                self._live.forget(item)
            self._handle(t.Final("", understood=False, failed=failed))

    def _forget(self) -> None:
        self._heard = None
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

    # --- replies ---

    def _answer(self, texts: Sequence[str], understood: bool, keyed: bool) -> None:
        turn, self._next = self._next, Exchange()
        by_server = self._server and not keyed
        said = []
        for text in texts:
            utterance = text.utterance if isinstance(text, _Words) else None
            if utterance is None:
                known = [*self._pending, *(m.text for m in self.conversation[-1:] if m.role == "caller")]
                if text not in known:
                    message = Message("caller", text, keyed=keyed)
                    self.conversation.append(message)
                    said.append(text)
                    if self._live is not None:
                        self._live.tell(message)
            elif utterance.message_at is None:
                utterance.message_at, utterance.turn = len(self.conversation), turn
                self.conversation.append(Message("caller", utterance.text))
                by_server = by_server and utterance.item != ""
                if utterance.transcribed:
                    said.append(utterance.text)
                    self._utterances.pop(utterance.name, None)
        turn.caller_text, turn.understood, turn.keyed = " ".join(said), understood, keyed
        turn.asked_at = self._clock.now()
        if keyed:
            turn.decided_at, turn.final_at = turn.asked_at, None
        asked: list[_Response] = []
        self._start(turn, lambda: self._reply(turn, asked))
        if self._live is not None:  # now, not when the task runs: it may be over by then
            asked.append(self._order(turn, by_server=by_server))

    def _order(self, turn: Exchange, say: str | None = None, by_server: bool = False) -> _Response:
        """The model is to speak; the reply's task waits for it."""
        assert self._live is not None
        self._names += 1
        over = asyncio.get_running_loop().create_future()
        over.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be waiting any more
        response = self._response = _Response(str(self._names), turn, over, by_server)
        if not by_server:
            self._live.respond(response.tag, say)
        self._set_timer("first_audio", self._terms.first_audio_ms / 1000, lambda: self._late(response))
        return response

    def _late(self, response: _Response) -> None:
        if response is self._response and not response.over.done():
            self._stop_response()
            response.over.set_exception(
                ProviderError(self._model.name, "timeout", "the answer did not begin", retryable=True)
            )

    async def _reply(self, turn: Exchange, asked: Sequence[_Response] = ()) -> None:
        """`asked`: the model was told to begin."""
        response = asked[0] if asked else None
        for _ in range(TOOL_ROUNDS):
            try:
                if response is None:
                    await self._have_session()
                    response = self._order(turn)
                await response.over
            except _SessionLost:
                if turn.first_audio_at is not None:
                    raise ProviderError(
                        self._model.name, "unavailable", "the answer broke off", retryable=True
                    ) from None
                response = None
                continue
            calls, response = response.calls, None
            for call in calls:
                await self._use_tool(call, turn)
            if turn.messages():
                self._failures = 0
            if not calls or self.turns.ending is not None:
                break
        else:
            raise ProviderError(self._model.name, "protocol", "it only calls tools", retryable=False)
        if not turn.messages() and turn.first_audio_at is None:
            raise ProviderError(self._model.name, "protocol", "an empty answer", retryable=True)

    async def _use_tool(self, call: ToolCall, turn: Exchange) -> None:
        if not turn.written:
            turn.written.append(Written())
        written = turn.written[-1]
        written.calls.append(call)
        if call.name == EXPECT_DIGITS:
            result = self._expect_digits(call, turn)
        else:
            hands = Hands(self, turn)
            result = await self._tools(call, hands, self._call)
            if hands.digits:
                await self._key(turn, hands.digits)
            if hands.given_over:
                self._giving_over = call.id
        written.results[call.id] = result
        if self._live is not None and self._giving_over != call.id:  # it may yet be taken back
            self._live.tell(Message("tool", result, tool_call_id=call.id))

    def _expect_digits(self, call: ToolCall, turn: Exchange) -> str:
        entry = self._script.digits.get(str(call.arguments.get("name", "")))
        turn.expectation = Expectation() if entry is None else Expectation(digits_min=entry.min, digits_max=entry.max)
        if turn.spoke_at is not None:
            self._expect(turn)
        return '{"ok": true}' if entry is not None else '{"ok": false, "code": "bad_arguments"}'

    async def _line(self, text: str, turn: Exchange) -> None:
        if not text or self._terms.lines == "tts" or self._failures or self._broken is not None:
            await self._line_by_tts(text, turn)
            return
        try:
            await self._have_session()
            await self._order(turn, say=text).over
        except (ProviderError, _SessionLost) as error:
            if turn.first_audio_at is not None:
                raise ProviderError(self._model.name, "unavailable", "the line broke off", retryable=True) from error
            await self._line_by_tts(text, turn)

    async def _line_by_tts(self, text: str, turn: Exchange) -> None:
        self._told_line = bool(text)
        await super()._line(text, turn)

    def _fail(self, turn: Exchange, error: ProviderError) -> None:
        self._failures += 1
        if self._failures > 1 and self._terms.fallback:
            turn.failed = True
            self._stop_task()
            self._give_up(error)
        else:
            super()._fail(turn, error)

    def _start(self, turn: Exchange, reply: Any) -> None:
        super()._start(turn, reply)
        self._items.clear()
        self._told_line = False
        self._deaf = self._server and not self.turns.interruptible

    def _stop_task(self) -> None:
        self._stop_response()
        super()._stop_task()

    def _stop_response(self) -> None:
        """The model speaks no more; what still comes is void."""
        response, self._response = self._response, None
        self._cancel_timer("first_audio")
        if response is not None and self._live is not None and not (self._cut_by_server and self._server):
            self._live.cancel(response.id)

    def _end_turn(self, *, cut: bool) -> None:
        turn, before = self._turn, len(self.conversation)
        if turn is not None and cut:
            for item in self._items.values():
                self._estimate(item)
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
        for utterance in self._utterances.values():
            if utterance.turn is turn:  # answered: the model needs no second hearing
                utterance.audio.clear()
        if self._next_open:
            self._set_timer("swap", 0.0, self._swap_when_quiet)

    def _estimate(self, item: _Item) -> None:
        """Where the words lie of an item that is still coming: they are ahead of their audio."""
        if item.start_ms is None or item.written.phrases[0].end_ms is not None:
            return
        phrase, text = item.written.phrases[0], item.written.text.strip()
        if text:
            end_ms = max(self._end_of(item), phrase.start_ms + len(text) * LETTER_MS)
            phrase.text = text
            self._bus.playout.ledger.add_estimate(text, phrase.start_ms, end_ms)

    def _take_back(self) -> None:
        if self._live is not None:
            self._live.tell(Message("tool", NOT_HANDED_OFF, tool_call_id=self._giving_over))
        super()._take_back()

    def _cut(self, turn: Exchange) -> int:
        heard_ms = super()._cut(turn)
        session = self._live
        if session is not None:
            for item in self._items.values():
                if item.start_ms is not None and heard_ms < self._end_of(item):
                    session.truncate(item.id, max(0, heard_ms - item.start_ms))
        return heard_ms

    # --- ears: the session's ---

    def _listener(self) -> Callable[[bytes], None]:
        return self._hear

    def _fed(self, seconds: float) -> None:
        """A reply's tokens are all that is metered."""

    def _awaits(self, expectation: Expectation) -> None:
        """The model has asked for it itself."""

    def _dismiss(self) -> None:
        for session in (self._live, self._opening, self._next_session):
            if session is not None:
                session.close()
        self._live = self._opening = self._next_session = None
        for name in ("reopen", "renew", "swap", "first_audio"):
            self._cancel_timer(name)
        self._utterances.clear()
