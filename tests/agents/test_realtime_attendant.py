"""A realtime model on a real bus with a far end that plays what it is sent; the model says what a test has it say."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from tests.agents.test_cascade import AGENT, CARD, FACTS, PAYING, Call, Llm, Stream, Stt, Tap, Tts, paying
from trunkline.agents import turns as t
from trunkline.agents.cascade import Cascade
from trunkline.agents.definition import AgentDefinition, Failover, ProviderChoice, RealtimeTerms
from trunkline.agents.exchange import UNKNOWN_OUTCOME
from trunkline.agents.providers import Minds
from trunkline.agents.realtime.attendant import RealtimeAgent, RealtimeAttendant
from trunkline.agents.seam import GO_ON
from trunkline.errors import ProviderError
from trunkline.media.dtmf import tone
from trunkline.ports import (
    CallControl,
    CallFacts,
    Message,
    ModelLost,
    ModelOpened,
    ModelRefused,
    ModelSpeechEnded,
    ModelSpeechStarted,
    ModelTook,
    ModelTranscribed,
    RealtimeEvent,
    RealtimeUsage,
    Refuse,
    ReplyAudio,
    ReplyEnded,
    ReplyItemEnded,
    ReplyStarted,
    ReplyText,
    ReplyTool,
    ToolCall,
)
from trunkline.types import FRAME_MS, MULAW_8K, Format

GONE = ProviderError("model", "unavailable", retryable=True)
FOR_GOOD = ProviderError("model", "auth", retryable=False)


@dataclass
class Session:
    """One session of the model, as the test has it behave."""

    on_event: Callable[[RealtimeEvent], None]
    conversation: list[Message]
    orders: list[tuple[Any, ...]] = field(default_factory=list)
    told: list[tuple[Message, bytes]] = field(default_factory=list)
    heard: bytearray = field(default_factory=bytearray)
    closed: bool = False
    replies: int = 0
    prompt_sha256: str = ""

    def hear(self, audio: bytes) -> None:
        self.heard += audio

    def commit(self, utterance: str) -> None:
        self.orders.append(("commit", utterance))

    def clear(self) -> None:
        self.orders.append(("clear",))

    def tell(self, message: Message, audio: bytes = b"") -> None:
        self.told.append((message, audio))

    def respond(self, tag: str, say: str | None = None) -> None:
        self.orders.append(("respond", tag, say))
        self.prompt_sha256 = f"asked {len(self.of('respond'))}"

    def cancel(self, reply: str) -> None:
        self.orders.append(("cancel", reply))

    def truncate(self, item: str, heard_ms: int) -> None:
        self.orders.append(("truncate", item, heard_ms))

    def forget(self, item: str) -> None:
        self.orders.append(("forget", item))

    def close(self) -> None:
        self.closed = True

    # what the model does

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [order[1:] for order in self.orders if order[0] == kind]

    def begins(self) -> str:
        """The reply that was asked for last."""
        self.replies += 1
        self.on_event(ReplyStarted(f"resp{self.replies}", self.of("respond")[-1][0]))
        return f"resp{self.replies}"

    def speaks(self, reply: str, text: str, length_ms: int, item: str = "") -> None:
        item = item or f"item-{reply}"
        self.on_event(ReplyText(reply, item, text))
        for _ in range(length_ms // 100):
            self.on_event(ReplyAudio(reply, item, b"\x10" * 800))

    def ends(self, reply: str, usage: RealtimeUsage | None = None, tag: str = "", error: Any = None) -> None:
        self.on_event(ReplyItemEnded(reply, f"item-{reply}"))
        self.on_event(ReplyEnded(reply, tag, usage, error))

    def says(self, text: str, length_ms: int = 400, usage: RealtimeUsage | None = None) -> None:
        reply = self.begins()
        self.speaks(reply, text, length_ms)
        self.ends(reply, usage)


class Model:
    name = "model"
    third_party = True
    formats: tuple[Format, ...] = (MULAW_8K,)

    def __init__(self, transcribes: bool = True, opens: bool = True) -> None:
        self.transcribes, self.opens = transcribes, opens
        self.sessions: list[Session] = []

    async def start(self) -> None: ...

    def open(
        self,
        call: CallFacts,
        format: Format,
        conversation: Sequence[Message],
        on_event: Callable[[RealtimeEvent], None],
    ) -> Session:
        self.sessions.append(Session(on_event, list(conversation)))
        if self.opens:
            asyncio.get_running_loop().call_soon(on_event, ModelOpened())
        return self.sessions[-1]

    async def close(self) -> None: ...


class RealtimeCall(Call):
    def __init__(
        self, agent: AgentDefinition = AGENT, model: Model | None = None, tts: Tts | None = None, **terms: Any
    ) -> None:
        self.model = model or Model()
        stt = Stt()
        stt.streams.append(Stream(lambda _: None))
        cascade = Cascade(agent, Minds(stt, Llm(), tts or Tts()), self._tool)
        its = RealtimeTerms(ProviderChoice("model"), **terms)
        super().__init__(cascade=RealtimeAgent(cascade, self.model, its))  # type: ignore[arg-type]

    @property
    def session(self) -> Session:
        return self.model.sessions[-1]

    async def begun(self) -> "RealtimeCall":
        self.attendant.begin()
        await self.settle()
        self.session.says("Hello there.")
        await self.run(1000)
        assert self.state is t.State.LISTENING
        return self

    async def spoken(self, length_ms: int = 600) -> None:
        """The caller says something, and is done."""
        self.starts()
        await self.run(length_ms)
        self.bus.speech_ended(self.clock.now() - 0.2)
        await self.settle()

    async def took(self, item: str) -> None:
        self.session.on_event(ModelTook(self.session.of("commit")[-1][0], item))
        await self.settle()

    async def transcribed(self, item: str, text: str) -> None:
        self.session.on_event(ModelTranscribed(item, text))
        await self.settle()


def on_a_call(test: Callable[[RealtimeCall], Coroutine[Any, Any, None]], **kind: Any) -> None:
    async def main() -> None:
        call = await RealtimeCall(**kind).begun()
        await test(call)
        call.attendant.close()
        call.bus.close()
        await call.settle()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, "a task outlives its call"
        assert not call.crashes, call.crashes
        assert all(session.closed for session in call.model.sessions)
        assert all(timer.cancelled for timer in call.timers), "a timer outlives its call"

    asyncio.run(main())


# --- turns are ours -------------------------------------------------------------------------------------------------


def test_the_greeting_is_spoken_by_the_model_word_for_word() -> None:
    async def conversation(call: RealtimeCall) -> None:
        assert call.session.of("respond") == [(call.session.of("respond")[0][0], "Hello there.")]
        assert call.talk == [("agent", "Hello there.")]
        assert call.far.played_ms == 400
        assert call.tts.spoken == []

    on_a_call(conversation)


def test_speech_alone_reaches_the_model_and_is_answered_without_waiting_for_its_words() -> None:
    async def conversation(call: RealtimeCall) -> None:
        assert call.session.heard == b""
        await call.spoken(600)
        assert len(call.session.heard) == (300 + 600) * 8
        assert [order[0] for order in call.session.orders[-2:]] == ["commit", "respond"]
        await call.took("u1")
        call.session.says("We open at eight.", 800)
        await call.transcribed("u1", "when do you open")
        await call.run(1500)
        assert call.talk[1:] == [("caller", "when do you open"), ("agent", "We open at eight.")]
        assert (call.turns[-1].caller_text, call.turns[-1].agent_text) == ("when do you open", "We open at eight.")
        assert call.turns[-1].total_ms == 200
        assert call.state is t.State.LISTENING

    on_a_call(conversation)


def test_an_interruption_is_reversible_and_its_words_decide() -> None:
    async def conversation(call: RealtimeCall) -> None:
        await call.spoken()
        call.session.says("It is a long answer to a short question.", 4000)
        await call.run(1000)
        call.starts()
        assert call.state.name == "INTERRUPTED"
        await call.run(200)
        played = call.far.played_ms
        call.bus.speech_ended(call.clock.now())
        await call.took("cough")
        assert call.far.played_ms == played
        await call.transcribed("cough", "")
        assert call.session.of("forget") == [("cough",)]
        assert call.state is t.State.SPEAKING
        await call.run(5000)
        assert call.talk[-1] == ("agent", "It is a long answer to a short question.")
        assert call.session.of("truncate") == []

    on_a_call(conversation)


def test_on_an_interruption_the_model_forgets_what_was_not_heard_to_the_frame() -> None:
    async def conversation(call: RealtimeCall) -> None:
        await call.spoken()
        before = call.far.played_ms
        reply = call.session.begins()
        call.session.speaks(reply, "one two three four five six seven eight nine ten", 4000)
        await call.run(1500)
        await call.interrupts()
        played_ms = call.far.played_ms - before
        [(item, heard_ms)] = call.session.of("truncate")
        assert item == f"item-{reply}"
        assert played_ms - FRAME_MS <= heard_ms <= played_ms
        assert ("cancel", reply) in call.session.orders
        cut, truncated = (
            call.session.orders.index(("cancel", reply)),
            call.session.orders.index(("truncate", item, heard_ms)),
        )
        assert cut < truncated
        said = call.attendant.conversation[-1]
        assert said.cut
        assert 0 < len(said.text.split()) < 10 * played_ms / 4000 + 1
        assert not call.turns[-1].heard_exact
        call.session.on_event(ReplyAudio(reply, item, b"\x10" * 800))  # late: void
        await call.settle()
        assert call.bus.playout.queued_ms == 0

    on_a_call(conversation)


def test_an_item_that_nobody_heard_is_truncated_to_nothing() -> None:
    async def conversation(call: RealtimeCall) -> None:
        await call.spoken()
        reply = call.session.begins()
        call.session.speaks(reply, "first", 2000, "first")
        call.session.speaks(reply, "second", 2000, "second")
        await call.run(800)
        await call.interrupts()
        first, second = call.session.of("truncate")
        assert first[0] == "first"
        assert second == ("second", 0)

    on_a_call(conversation)


def test_an_answer_that_was_cut_before_it_began_is_cancelled_when_it_does() -> None:
    async def conversation(call: RealtimeCall) -> None:
        await call.spoken()
        await call.interrupts()  # the caller goes on
        assert call.session.of("cancel") == [("",)]
        call.session.begins()
        assert call.session.of("cancel") == [("",), ("resp2",)]
        call.session.speaks("resp2", "void", 400)
        await call.run(200)
        assert call.far.played_ms == 400  # the greeting

    on_a_call(conversation)


def test_a_short_word_with_the_floor_is_answered_when_it_was_one() -> None:
    async def conversation(call: RealtimeCall) -> None:
        call.starts()
        await call.run(260)
        call.bus.speech_ended(call.clock.now() - 0.1)
        await call.took("u1")
        assert len(call.session.of("respond")) == 1
        await call.transcribed("u1", "no")
        assert len(call.session.of("respond")) == 2
        assert call.talk[-1] == ("caller", "no")

    on_a_call(conversation)


def test_without_a_transcriber_speech_with_the_floor_is_words_and_over_the_agent_a_noise() -> None:
    async def conversation(call: RealtimeCall) -> None:
        call.starts()
        await call.run(260)
        call.bus.speech_ended(call.clock.now() - 0.1)
        await call.settle()
        call.session.says("It is a long answer.", 3000)
        await call.run(500)
        call.starts()
        await call.run(200)
        call.bus.speech_ended(call.clock.now())
        await call.settle()
        assert call.state is t.State.SPEAKING
        await call.run(4000)
        assert call.talk[1:] == [("caller", ""), ("agent", "It is a long answer.")]

    on_a_call(conversation, model=Model(transcribes=False))


def test_keys_are_told_and_answered() -> None:
    async def conversation(call: RealtimeCall) -> None:
        call.attendant.key("5")
        await call.settle()
        assert call.session.told[-1] == (Message("caller", "5", keyed=True), b"")
        assert len(call.session.of("respond")) == 2

    on_a_call(conversation)


def test_on_hold_nothing_is_sent_to_the_model() -> None:
    async def conversation(call: RealtimeCall) -> None:
        call.attendant.hold(True)
        await call.spoken()
        assert call.session.heard == b""
        call.attendant.hold(False)
        await call.spoken()
        assert len(call.session.heard) == (300 + 600) * 8

    on_a_call(conversation)


def test_tokens_are_metered_once_for_each_reply_text_and_audio_apart() -> None:
    async def conversation(call: RealtimeCall) -> None:
        await call.spoken()
        call.session.says("Eight.", usage=RealtimeUsage(30, 5, 40, 20))
        await call.run(1000)
        used = [(usage.kind, usage.provider, usage.unit, usage.quantity) for usage in call.metered]
        assert used == [
            ("realtime", "model", "tokens_in", 30),
            ("realtime", "model", "tokens_out", 5),
            ("realtime", "model", "audio_tokens_in", 40),
            ("realtime", "model", "audio_tokens_out", 20),
        ]

    on_a_call(conversation)


# --- tools ----------------------------------------------------------------------------------------------------------


def test_a_tools_result_goes_back_and_the_model_speaks_on() -> None:
    async def conversation(call: RealtimeCall) -> None:
        await call.spoken()
        reply = call.session.begins()
        call.session.speaks(reply, "Let me look.", 400)
        call.session.on_event(ReplyTool(reply, ToolCall("c1", "lookup", {"a": 1})))
        call.session.ends(reply)
        await call.settle()
        assert call.session.told[-1][0] == Message("tool", "done", tool_call_id="c1")
        assert len(call.session.of("respond")) == 3
        call.session.says("It is at ten.", 400)
        await call.run(2000)
        assert call.turns[-1].tools == ("lookup",)
        evidence = call.turns[-1].evidence
        assert evidence is not None
        assert [(use.name, use.arguments, use.outcome) for use in evidence.tools] == [("lookup", {"a": 1}, "unknown")]
        assert evidence.prompts == ("asked 2", "asked 3")
        assert call.turns[-1].agent_text == "Let me look. It is at ten."
        assert call.attendant.conversation[-3].tool_calls == (ToolCall("c1", "lookup", {"a": 1}),)

    on_a_call(conversation)


@pytest.mark.parametrize(("turns", "lines"), [("ours", "model"), ("server", "model"), ("ours", "tts")])
def test_a_card_is_keyed_past_a_realtime_model(turns: str, lines: str) -> None:
    """It asks for it in the file's words; what it hears meanwhile is silence, what it is told is that it was given."""

    async def conversation(call: RealtimeCall) -> None:
        webhook, tap = paying(call), Tap()
        call.bus.taps.append(tap)
        attendant = cast(RealtimeAttendant, call.attendant)
        attendant._terms = replace(attendant._terms, lines=cast(Any, lines))
        if turns == "ours":
            await call.spoken()
        else:
            call.session.on_event(ModelSpeechStarted(0))
            call.session.on_event(ModelSpeechEnded("u1", 500))
            await call.settle()
        reply = call.session.begins() if turns == "ours" else "by-server"
        if turns == "server":
            call.session.on_event(ReplyStarted(reply, ""))
        call.session.speaks(reply, "Gladly.", 400)
        call.session.on_event(ReplyTool(reply, ToolCall("c1", "pay", {})))
        call.session.ends(reply)
        await call.settle()
        call.attendant.key(CARD[0])  # they know what comes
        if lines == "model":
            assert call.session.of("respond")[-1][1] == "Key in your card."
            call.session.says("Key in your card.", 800)
        await call.run(1200)
        tap.heard.clear()
        call.session.heard.clear()
        for key in f"{CARD[1:]}#":
            call.attendant.key(key)
            call.bus.receive(tone(key, MULAW_8K)[:160], call.bus.carrier_ms + FRAME_MS)
            await call.run(1000)
        assert set(b"".join(tap.heard)) == {0xFF}
        assert set(call.session.heard) <= {0xFF}
        assert [got["card_number"] for got in webhook.got] == [CARD]
        results = [message for message, _ in call.session.told if message.role == "tool"]
        assert [("[card_number]" in result.text, result.tool_call_id) for result in results] == [(True, "c1")]
        call.session.says("Paid.", 400)
        await call.run(2000)
        assert call.turns[-1].agent_text == "Gladly. Key in your card. Paid."
        told = [message.text for message, _ in call.session.told if message.role == "agent"]
        assert told == (["Key in your card."] if lines == "tts" else [])
        assert CARD[1:] not in repr((call.session, call.attendant.conversation, call.turns))
        assert not any(message.keyed for message in call.attendant.conversation)

    on_a_call(conversation, agent=PAYING, turns=turns)


def test_a_caller_that_hangs_up_while_they_are_asked_for_a_card_leaves_nothing_behind() -> None:
    async def conversation(call: RealtimeCall) -> None:
        paying(call)
        await call.spoken()
        reply = call.session.begins()
        call.session.on_event(ReplyTool(reply, ToolCall("c1", "pay", {})))
        call.session.ends(reply)
        await call.settle()
        call.attendant.key("4")

    on_a_call(conversation, agent=PAYING)


def test_the_model_changes_the_language_and_the_lines_follow() -> None:
    spanish = replace(AGENT, language="es-ES", no_input=("¿Sigue ahí?",))

    async def conversation(call: RealtimeCall) -> None:
        await call.spoken()
        reply = call.session.begins()
        call.session.on_event(ReplyTool(reply, ToolCall("c1", "speak_language", {"language": "es"})))
        call.session.ends(reply)
        await call.settle()
        assert "language" in call.events
        assert call.session.told[-1][0] == Message("tool", '{"ok": true}', tool_call_id="c1")
        call.session.says("Dígame.", 400)
        await call.run(2000)
        assert call.attendant.conversation[-2].language == "es-ES", "the cascade would go on in it"
        await call.run(AGENT.turns.no_input_ms)
        assert call.session.of("respond")[-1][1] == "¿Sigue ahí?"

    on_a_call(conversation, agent=replace(AGENT, languages={"es-ES": spanish}))


def test_a_hang_up_waits_until_the_goodbye_was_heard() -> None:
    async def hangs_up(tool: ToolCall, control: CallControl) -> str:
        control.hang_up("agent_hung_up")
        return "done"

    async def conversation(call: RealtimeCall) -> None:
        call.tool = hangs_up
        await call.spoken()
        reply = call.session.begins()
        call.session.speaks(reply, "Goodbye.", 600)
        call.session.on_event(ReplyTool(reply, ToolCall("c1", "hang_up", {})))
        call.session.ends(reply)
        await call.run(400)
        assert call.hang_ups == []
        assert len(call.session.of("respond")) == 2
        await call.run(600)
        assert call.hang_ups == ["agent_hung_up"]

    on_a_call(conversation)


def test_a_tool_that_was_cut_off_has_an_outcome_for_the_model() -> None:
    async def never(tool: ToolCall, control: CallControl) -> str:
        await asyncio.Event().wait()
        return ""

    async def conversation(call: RealtimeCall) -> None:
        call.tool = never
        await call.spoken()
        reply = call.session.begins()
        call.session.on_event(ReplyTool(reply, ToolCall("c1", "lookup", {})))
        call.session.ends(reply)
        await call.settle()
        await call.interrupts()
        assert Message("tool", UNKNOWN_OUTCOME, tool_call_id="c1") in [message for message, _ in call.session.told]

    on_a_call(conversation)


# --- turns are the server's -----------------------------------------------------------------------------------------


def test_the_server_hears_everything_and_answers_by_itself() -> None:
    async def conversation(call: RealtimeCall) -> None:
        asked = len(call.session.of("respond"))
        before = len(call.session.heard)
        await call.run(200)
        assert len(call.session.heard) - before == 200 * 8
        call.session.on_event(ModelSpeechStarted(200))
        await call.run(600)
        call.session.on_event(ModelSpeechEnded("u1", 500))
        call.session.on_event(ReplyStarted("r", ""))
        call.session.speaks("r", "We open at eight.", 800)
        call.session.ends("r")
        call.session.on_event(ModelTranscribed("u1", "when do you open"))
        await call.run(1500)
        assert len(call.session.of("respond")) == asked
        assert call.session.of("commit") == []
        assert call.talk[1:] == [("caller", "when do you open"), ("agent", "We open at eight.")]
        assert call.turns[-1].total_ms == 500

    on_a_call(conversation, turns="server")


def test_the_servers_speech_started_cuts_at_once_and_the_item_is_truncated() -> None:
    async def conversation(call: RealtimeCall) -> None:
        call.session.on_event(ModelSpeechStarted(200))
        await call.run(600)
        call.session.on_event(ModelSpeechEnded("u1", 500))
        before = call.far.played_ms
        call.session.on_event(ReplyStarted("r", ""))
        call.session.speaks("r", "one two three four five six", 3000)
        await call.run(1000)
        call.session.on_event(ModelSpeechStarted(40))
        played_ms = call.far.played_ms - before
        assert call.state is t.State.LISTENING
        await call.run(100)
        assert call.far.played_ms - before == played_ms
        [(_, heard_ms)] = call.session.of("truncate")
        assert played_ms - FRAME_MS <= heard_ms <= played_ms
        assert call.session.of("cancel") == []  # it has done so itself
        assert call.turns[-1].interrupted
        assert call.turns[-1].barge_in_ms == 40

    on_a_call(conversation, turns="server")


def test_our_own_ears_decide_nothing_where_the_server_owns_the_turns() -> None:
    async def conversation(call: RealtimeCall) -> None:
        await call.spoken()
        assert call.state is t.State.LISTENING
        assert call.session.of("commit") == []

    on_a_call(conversation, turns="server")


@pytest.mark.parametrize("turns", ["ours", "server"])
def test_our_ears_rest_where_the_server_hears_speech_and_the_cascade_wakes_them(turns: str) -> None:
    async def conversation(call: RealtimeCall) -> None:
        ears, slot = call.bus._ears, call.bus._slot
        assert ears._resting[slot] == (turns == "server")
        call.attendant.close()
        stt = Stt()
        stt.streams.append(Stream(lambda _: None))
        cascade = Cascade(AGENT, Minds(stt, Llm(), Tts()), call._tool)
        cascade.attend(FACTS, call.bus, call, call, call.clock, call.after)
        assert not ears._resting[slot]

    on_a_call(conversation, turns=turns)


def test_a_greeting_that_must_be_heard_is_not_interrupted_by_the_server() -> None:
    async def conversation() -> None:
        agent = replace(AGENT, greeting_interruptible=False)
        call = RealtimeCall(agent, turns="server")
        call.attendant.begin()
        await call.settle()
        reply = call.session.begins()
        call.session.speaks(reply, "Hello there.", 1000)
        await call.run(300)
        assert call.session.heard == b""
        call.session.ends(reply)
        await call.run(1200)
        assert call.state is t.State.LISTENING
        assert len(call.session.heard) > 0
        call.attendant.close()
        call.bus.close()
        assert not call.crashes

    asyncio.run(conversation())


# --- lines ----------------------------------------------------------------------------------------------------------


def test_lines_by_tts_are_told_to_the_model() -> None:
    async def conversation() -> None:
        call = RealtimeCall(lines="tts")
        call.attendant.begin()
        await call.run(1500)
        assert call.tts.spoken == ["Hello there."]
        assert call.session.of("respond") == []
        assert call.session.told == [(Message("agent", "Hello there."), b"")]
        call.attendant.close()
        call.bus.close()

    asyncio.run(conversation())


def test_an_answer_that_does_not_begin_is_asked_of_another_session_in_the_same_turn() -> None:
    async def conversation(call: RealtimeCall) -> None:
        silent = call.session
        await call.spoken(600)
        await call.run(1400)
        assert silent.closed
        [(message, audio)] = call.session.told
        assert message == Message("caller", "")
        assert len(audio) == (300 + 600) * 8
        call.session.says("We open at eight.", 400)
        await call.run(1000)
        assert call.talk[-1] == ("agent", "We open at eight.")
        assert "reply_failed" not in call.events
        assert call.tts.spoken == []

    on_a_call(conversation, agent=replace(AGENT, filler=()), first_audio_ms=1000)


def test_a_model_that_does_not_begin_at_all_is_apologised_for_by_the_other_voice() -> None:
    async def conversation(call: RealtimeCall) -> None:
        await call.spoken()
        await call.run(2500)
        assert "reply_failed" in call.events
        assert call.session.of("cancel") == [("",)]
        await call.run(1000)
        assert call.tts.spoken[-1] == "Sorry."
        await call.spoken()
        call.session.says("We open at eight.", 400)
        await call.run(1000)
        assert call.talk[-1] == ("agent", "We open at eight.")

    on_a_call(conversation, agent=replace(AGENT, filler=()), first_audio_ms=1000, fallback=False)


def test_a_model_that_does_not_begin_at_all_is_followed_by_the_cascade_in_the_same_turn() -> None:
    async def conversation(call: RealtimeCall) -> None:
        await call.spoken()
        await call.took("u1")
        await call.transcribed("u1", "when do you open")
        await call.run(2500)
        assert call.fallen_back == 1
        assert call.tts.spoken == []
        assert call.talk[-1] == ("caller", "when do you open")

    on_a_call(conversation, agent=replace(AGENT, filler=()), first_audio_ms=1000)


def test_what_the_lost_model_was_asked_stays_as_audio_for_the_cascades_recogniser() -> None:
    async def conversation(call: RealtimeCall) -> None:
        await call.spoken()
        await call.took("u1")
        call.session.on_event(ModelLost(FOR_GOOD))
        await call.run(100)
        assert call.fallen_back == 1
        assert call.attendant.unwritten == b"", "while it attends, it may still answer"
        call.attendant.close()
        assert call.talk[-1] == ("caller", "")
        assert len(call.attendant.unwritten) >= 500 * 8

    on_a_call(conversation, agent=replace(AGENT, filler=()))


def test_what_the_model_has_answered_or_written_down_is_recognised_by_nobody_again() -> None:
    async def answered(call: RealtimeCall) -> None:
        await call.spoken()
        await call.took("u1")
        call.session.says("We open at eight.")
        await call.run(2000)
        call.attendant.close()
        assert call.attendant.unwritten == b""

    async def written_down(call: RealtimeCall) -> None:
        await call.spoken()
        await call.took("u1")
        await call.transcribed("u1", "when do you open")
        call.attendant.close()
        assert call.attendant.unwritten == b""

    on_a_call(answered)
    on_a_call(written_down)


def test_a_line_that_breaks_off_is_ended_by_the_other_voice() -> None:
    async def conversation() -> None:
        call = RealtimeCall(replace(AGENT, greeting="Hello there, this is the bakery on the corner of the square."))
        call.attendant.begin()
        await call.settle()
        reply = call.session.begins()
        call.session.speaks(reply, "Hello there, this is the", 2400)
        call.session.on_event(ModelLost(GONE))
        await call.run(5000)
        assert call.talk == [("agent", "Hello there, this is the"), ("agent", "bakery on the corner of the square.")]
        assert call.tts.spoken == ["bakery on the corner of the square."]
        call.attendant.close()
        call.bus.close()
        assert not call.crashes

    asyncio.run(conversation())


def test_a_reply_that_is_lost_with_its_session_is_on_the_bill_once() -> None:
    async def conversation(call: RealtimeCall) -> None:
        used = [u for u in call.metered if u.kind == "realtime"]
        await call.spoken()
        reply = call.session.begins()
        call.session.speaks(reply, "Hello there, this is the", 2400)
        call.session.on_event(ModelLost(GONE))
        await call.run(400)
        more = [(u.unit, u.quantity) for u in call.metered if u.kind == "realtime"][len(used) :]
        assert more == [("calls", 1)]

    on_a_call(conversation)


def test_two_answers_in_a_row_that_fail_end_the_model() -> None:
    async def conversation(call: RealtimeCall) -> None:
        for _ in range(2):
            await call.spoken()
            tag = call.session.of("respond")[-1][0]
            reply = call.session.begins()
            call.session.ends(reply, tag=tag, error=GONE)
            await call.run(1000)
        assert call.fallen_back == 1
        assert "model_lost" in call.events

    on_a_call(conversation)


def test_an_order_that_is_refused_fails_its_answer() -> None:
    async def conversation(call: RealtimeCall) -> None:
        await call.spoken()
        call.session.on_event(ModelRefused(call.session.of("respond")[-1][0], "bad"))
        await call.run(1000)
        assert call.tts.spoken[-1] == "Sorry."

    on_a_call(conversation)


# --- sessions end ---------------------------------------------------------------------------------------------------


def test_a_session_that_breaks_between_turns_is_followed_by_one_with_the_conversation() -> None:
    async def conversation(call: RealtimeCall) -> None:
        first = call.session
        await call.spoken()
        await call.took("u1")
        await call.transcribed("u1", "my name is Ada")
        first.says("Hello Ada.")
        await call.run(1000)
        first.on_event(ModelLost(GONE))
        await call.run(400)
        assert len(call.model.sessions) == 2
        assert [(m.role, m.text) for m in call.session.conversation] == [
            ("agent", "Hello there."),
            ("caller", "my name is Ada"),
            ("agent", "Hello Ada."),
        ]
        await call.spoken()
        call.session.says("Yes, Ada.")
        await call.run(1000)
        assert call.talk[-1] == ("agent", "Yes, Ada.")

    on_a_call(conversation)


def test_what_was_said_and_not_answered_is_told_again_as_it_was_heard() -> None:
    async def conversation(call: RealtimeCall) -> None:
        first = call.session
        await call.spoken(600)
        first.on_event(ModelLost(GONE))
        await call.run(400)
        [(message, audio)] = call.session.told
        assert message == Message("caller", "")
        assert len(audio) == (300 + 600) * 8
        assert len(call.session.of("respond")) == 1
        call.session.says("Once more with feeling.", 400)
        await call.run(1000)
        assert call.talk[-1] == ("agent", "Once more with feeling.")
        assert "reply_failed" not in call.events

    on_a_call(conversation)


def test_what_was_said_over_the_agent_and_awaits_its_answer_is_told_to_the_session_that_follows() -> None:
    async def conversation(call: RealtimeCall) -> None:
        await call.spoken()
        first = call.session
        first.says("It is a long answer to a short question.", 4000)
        await call.run(1000)
        call.starts()
        await call.run(200)
        call.bus.speech_ended(call.clock.now())
        await call.took("u2")
        call.starts()  # and goes on at once
        await call.run(60)
        await call.transcribed("u2", "no on Tuesday")
        await call.run(300)
        first.on_event(ModelLost(GONE))
        await call.run(500)
        assert call.session is not first
        call.bus.speech_ended(call.clock.now() - 0.2)
        await call.settle()
        assert [m.text for m, _ in call.session.told if m.role == "caller"].count("no on Tuesday") == 1
        assert [order[0] for order in call.session.orders] == ["commit", "respond"]
        call.session.says("Tuesday then.", 200)
        await call.run(800)
        assert ("caller", "no on Tuesday") in call.talk

    on_a_call(conversation)


def test_a_session_that_has_heard_it_is_not_told_again() -> None:
    async def conversation(call: RealtimeCall) -> None:
        await call.spoken()
        call.session.says("It is a long answer to a short question.", 4000)
        await call.run(1000)
        call.starts()
        await call.run(200)
        call.bus.speech_ended(call.clock.now())
        await call.took("u2")
        await call.transcribed("u2", "no on Tuesday")
        await call.run(400)
        assert ("caller", "no on Tuesday") in call.talk
        assert call.session.told == []

    on_a_call(conversation)


def test_the_same_key_twice_is_two() -> None:
    async def conversation(call: RealtimeCall) -> None:
        call.attendant.key("5")
        await call.settle()
        reply = call.session.begins()
        call.session.speaks(reply, "Extraordinarily", 2000)
        await call.run(60)  # nothing of it is a word yet
        call.attendant.key("5")
        await call.settle()
        assert [m.text for m, _ in call.session.told] == ["5", "5"]
        assert [m.text for m in call.attendant.conversation if m.keyed] == ["5", "5"]

    on_a_call(conversation)


def test_words_that_are_asked_about_again_are_told_once() -> None:
    async def conversation(call: RealtimeCall) -> None:
        call.attendant.key("5")
        await call.settle()
        await call.interrupts()  # before anything of the answer is heard
        await call.run(400)
        call.bus.speech_ended(call.clock.now() - 0.2)
        await call.settle()
        assert [m.text for m, _ in call.session.told] == ["5"]
        assert [m.text for m in call.attendant.conversation if m.keyed] == ["5"]
        assert len(call.session.of("respond")) == 3

    on_a_call(conversation)


def test_words_that_another_was_told_and_that_are_said_again_are_said_twice() -> None:
    async def scenario(call: RealtimeCall) -> None:
        call.attendant.begin(None, [Message("agent", "Hello."), Message("caller", "hello")], ("hello",))
        await call.settle()
        assert [text for role, text in call.talk if role == "caller"] == ["hello"]
        attendant: Any = call.attendant
        attendant._answer(("hello", "hello"), True, False)
        assert [text for role, text in call.talk if role == "caller"] == ["hello", "hello"]
        await call.settle()

    alone(scenario, RealtimeCall)


def breaks(call: RealtimeCall, how: str) -> Session:
    """In the middle of an answer. The session it happens to."""
    first = call.session
    reply = first.begins()
    first.speaks(reply, "We open at eight in the morning, and we close", 1600)
    if how == "breaks":
        first.on_event(ModelLost(GONE))
    return first


@pytest.mark.parametrize("how", ["breaks", "stalls"])
def test_an_answer_that_breaks_off_goes_on_in_another_session(how: str) -> None:
    async def conversation(call: RealtimeCall) -> None:
        await call.spoken()
        await call.took("u1")
        await call.transcribed("u1", "when do you open")
        before = call.far.played_ms
        first = breaks(call, how)
        await call.run(2600)
        assert first.closed
        assert call.far.played_ms - before >= 1600  # what had come is heard
        told = [message for message, _ in call.session.told]
        said = told[0].text
        assert said.startswith("We open at")
        assert "We open at eight in the morning".startswith(said)
        assert told[1:] == [Message("caller", GO_ON)]
        call.session.says("eight in the morning.", 600)
        first.speaks("resp2", "void", 400)
        await call.run(1500)
        assert call.turns[-1].agent_text == f"{said} eight in the morning."
        assert [m.text for m in call.attendant.conversation[1:]] == ["when do you open", said, "eight in the morning."]
        assert "reply_failed" not in call.events
        assert call.tts.spoken == []
        assert first.of("truncate") == call.session.of("truncate") == []

    on_a_call(conversation, agent=replace(AGENT, filler=()))


def test_an_answer_that_goes_on_in_another_session_can_be_interrupted() -> None:
    async def conversation(call: RealtimeCall) -> None:
        await call.spoken()
        breaks(call, "breaks")
        await call.run(1500)
        reply = call.session.begins()
        call.session.speaks(reply, "in the evening at six or seven or eight", 4000)
        await call.run(1500)
        await call.interrupts()
        [(item, heard_ms)] = call.session.of("truncate")
        assert item == f"item-{reply}"
        assert 0 < heard_ms < 4000
        assert call.attendant.conversation[-1].cut

    on_a_call(conversation, agent=replace(AGENT, filler=()))


def test_answers_that_break_off_again_and_again_are_apologised_for() -> None:
    async def conversation(call: RealtimeCall) -> None:
        await call.spoken()
        for _ in range(3):
            breaks(call, "breaks")
            await call.run(600)
        await call.run(5000)
        assert call.tts.spoken[-1] == "Sorry."
        assert "reply_failed" in call.events

    on_a_call(conversation, agent=replace(AGENT, filler=()), fallback=False)


def test_a_model_that_cannot_be_had_again_in_time_hands_the_call_to_the_cascade() -> None:
    async def conversation(call: RealtimeCall) -> None:
        call.model.opens = False
        call.session.on_event(ModelLost(GONE))
        for _ in range(20):
            if not call.fallen_back:
                call.session.on_event(ModelLost(GONE))
                await call.run(260)
        assert call.fallen_back == 1
        assert len(call.model.sessions) == 8  # a try each 260 ms, of two seconds

    on_a_call(conversation, reconnect_ms=2000)


def test_what_is_written_is_asked_about_by_us_where_the_server_owns_the_turns() -> None:
    async def conversation(call: RealtimeCall) -> None:
        before = len(call.session.of("respond"))
        call.attendant.typed("when do you open")
        await call.settle()
        assert [message.text for message, _ in call.session.told] == ["when do you open"]
        assert len(call.session.of("respond")) == before + 1

    on_a_call(conversation, turns="server")


def test_a_sentence_that_only_the_server_hears_is_no_quiet_moment() -> None:
    async def conversation(call: RealtimeCall) -> None:
        attendant: Any = call.attendant
        assert attendant.quiet
        call.session.on_event(ModelSpeechStarted(0))
        await call.settle()
        assert not attendant.quiet

    on_a_call(conversation, turns="server")


def test_whoever_waits_for_an_answer_does_not_wait_for_a_session_as_long() -> None:
    async def conversation(call: RealtimeCall) -> None:
        call.model.opens = False
        await call.spoken()
        call.session.on_event(ModelLost(GONE))
        await call.run(980)
        assert call.fallen_back == 0
        await call.run(100)
        assert call.fallen_back == 1

    on_a_call(conversation, reconnect_ms=6000)


def test_a_model_that_refuses_for_good_is_not_asked_again() -> None:
    async def conversation(call: RealtimeCall) -> None:
        call.session.on_event(ModelLost(FOR_GOOD))
        await call.run(100)
        assert call.fallen_back == 1
        assert len(call.model.sessions) == 1

    on_a_call(conversation)


def test_without_a_fallback_the_caller_hears_failure_and_the_call_ends() -> None:
    async def conversation(call: RealtimeCall) -> None:
        call.session.on_event(ModelLost(FOR_GOOD))
        await call.run(1500)
        assert call.tts.spoken == ["Broken."]
        assert call.hang_ups == ["error"]
        assert call.fallen_back == 0

    on_a_call(conversation, fallback=False)


def test_without_a_fallback_the_files_way_out_is_a_transfer() -> None:
    async def conversation(call: RealtimeCall) -> None:
        call.session.on_event(ModelLost(FOR_GOOD))
        await call.run(1500)
        assert call.tts.spoken == ["I'll put you through."]
        assert call.transfers == ["desk"]
        assert call.hang_ups == ["transferred"]

    out = Failover(last_resort="transfer", target="desk", words="I'll put you through.")
    on_a_call(conversation, fallback=False, agent=replace(AGENT, failover=out, targets={"desk": "+12025550123"}))


def test_a_session_grows_old_and_the_call_moves_to_a_new_one_between_turns() -> None:
    async def conversation(call: RealtimeCall) -> None:
        first = call.session
        await call.run(59_200)
        assert len(call.model.sessions) == 2
        assert call.events.count("session_renewed") == 1
        assert first.closed
        assert [(m.role, m.text) for m in call.session.conversation] == [("agent", "Hello there.")]
        await call.spoken()
        call.session.says("Still here.")
        await call.run(1000)
        assert call.talk[-1] == ("agent", "Still here.")

    quiet = replace(AGENT, turns=replace(AGENT.turns, no_input_ms=60_000 * 5))
    on_a_call(conversation, agent=quiet, session_minutes=1)


def test_what_nobody_ever_wrote_down_does_not_keep_the_rest_from_a_new_session() -> None:
    async def conversation(call: RealtimeCall) -> None:
        for number, words in enumerate(["", "my name is Ada", "and I am late"]):
            await call.spoken()
            await call.took(f"u{number}")
            if words:
                await call.transcribed(f"u{number}", words)
            call.session.says(f"Answer {number}.")
            await call.run(1000)
        call.session.on_event(ModelLost(GONE))
        await call.run(400)
        assert [message.text for message in call.session.conversation] == [
            "Hello there.",
            "",
            "Answer 0.",
            "my name is Ada",
            "Answer 1.",
            "and I am late",
            "Answer 2.",
        ]
        assert call.session.told == []

    on_a_call(conversation)


def test_what_was_answered_and_has_no_words_yet_is_told_when_the_session_takes_over() -> None:
    async def conversation(call: RealtimeCall) -> None:
        await call.spoken()
        await call.took("u1")
        first = call.session
        first.says("Answer.")
        await call.run(1000)
        call.model.opens = False
        first.on_event(ModelLost(GONE))
        await call.run(400)
        assert [message.text for message in call.session.conversation] == ["Hello there."]
        call.session.on_event(ModelOpened())
        await call.settle()
        assert [(m.role, m.text) for m, _ in call.session.told] == [("caller", ""), ("agent", "Answer.")]

    on_a_call(conversation)


def test_a_new_session_waits_for_the_end_of_the_turn_and_is_told_of_it() -> None:
    async def conversation(call: RealtimeCall) -> None:
        first = call.session
        await call.run(58_000)
        await call.spoken()
        await call.took("u1")
        reply = first.begins()
        first.speaks(reply, "A long answer.", 4000)
        first.ends(reply)
        await call.run(2000)
        assert len(call.model.sessions) == 2
        assert not first.closed
        first.on_event(ModelTranscribed("u1", "tell me"))
        played = call.far.played_ms
        await call.run(1800)
        assert call.far.played_ms == played + 1800  # without a gap
        await call.run(1200)
        assert first.closed
        assert [m.text for m, _ in call.session.told] == ["tell me", "A long answer."]

    quiet = replace(AGENT, turns=replace(AGENT.turns, no_input_ms=60_000 * 5))
    on_a_call(conversation, agent=quiet, session_minutes=1)


def test_what_a_tool_did_is_told_to_the_session_that_follows() -> None:
    done = asyncio.Event()

    async def slow(tool: ToolCall, control: CallControl) -> str:
        await done.wait()
        return "booked"

    async def conversation(call: RealtimeCall) -> None:
        call.tool = slow
        first = call.session
        await call.spoken()
        await call.took("u1")
        await call.transcribed("u1", "book me a table")
        reply = first.begins()
        first.speaks(reply, "Let me see.", 400)
        first.on_event(ReplyTool(reply, ToolCall("c1", "book", {})))
        first.ends(reply)
        await call.settle()
        first.on_event(ModelLost(GONE))
        await call.run(400)
        assert call.session.told == [(Message("agent", "Let me see.", tool_calls=(ToolCall("c1", "book", {}),)), b"")]
        done.set()
        await call.settle()
        assert call.session.told[-1][0] == Message("tool", "booked", tool_call_id="c1")
        call.session.says("You have a table.", 400)
        await call.run(1500)
        assert call.turns[-1].agent_text == "Let me see. You have a table."

    on_a_call(conversation)


def test_a_key_while_there_is_no_session_is_told_to_the_next() -> None:
    async def conversation(call: RealtimeCall) -> None:
        call.model.opens = False
        call.session.on_event(ModelLost(GONE))
        await call.run(300)
        call.attendant.key("5")
        await call.settle()
        call.session.on_event(ModelOpened())
        await call.settle()
        assert call.session.told == [(Message("caller", "5", keyed=True), b"")]
        call.session.says("You pressed five.", 400)
        await call.run(1000)
        assert call.talk[-1] == ("agent", "You pressed five.")

    on_a_call(conversation)


def test_a_model_that_cannot_even_be_asked_is_given_up() -> None:
    async def conversation(call: RealtimeCall) -> None:
        def refuses(*_: Any) -> Session:
            raise FOR_GOOD

        call.model.open = refuses  # type: ignore[method-assign, assignment]
        call.session.on_event(ModelLost(GONE))
        await call.run(400)
        assert call.fallen_back == 1

    on_a_call(conversation)


def test_a_call_that_is_over_frees_its_session_and_hears_no_more_of_it() -> None:
    async def conversation(call: RealtimeCall) -> None:
        session = call.session
        assert isinstance(call.attendant, RealtimeAttendant)
        call.attendant.close()
        assert session.closed
        count = len(session.orders)
        session.on_event(ReplyStarted("late", ""))
        session.on_event(ModelLost(GONE))
        assert len(session.orders) == count

    on_a_call(conversation)


# --- a model that does not open -------------------------------------------------------------------------------------


def alone(
    scenario: Callable[[RealtimeCall], Coroutine[Any, Any, None]], call: Callable[[], RealtimeCall]
) -> RealtimeCall:
    """A call that its scenario begins."""

    async def main() -> RealtimeCall:
        its = call()
        await scenario(its)
        its.attendant.close()
        its.bus.close()
        await its.settle()
        assert not its.crashes, its.crashes
        assert all(timer.cancelled for timer in its.timers), "a timer outlives its call"
        return its

    return asyncio.run(main())


def test_a_model_that_does_not_open_is_not_waited_for_in_silence() -> None:
    async def scenario(call: RealtimeCall) -> None:
        call.attendant.begin()
        await call.run(1400)
        assert call.far.played_ms == 0
        await call.run(200)
        assert call.tts.spoken == ["Hello there."]
        await call.run(1000)
        assert call.talk == [("agent", "Hello there.")]
        call.session.on_event(ModelOpened())
        await call.settle()
        assert [m for m, _ in call.session.told] == call.attendant.conversation
        assert call.session.of("respond") == []
        await call.spoken()
        call.session.says("Late, but here.")
        await call.run(1000)
        assert call.talk[-1] == ("agent", "Late, but here.")

    alone(scenario, lambda: RealtimeCall(model=Model(opens=False)))


def test_a_session_that_opens_while_the_greeting_is_spoken_without_it_is_told_of_it() -> None:
    async def scenario(call: RealtimeCall) -> None:
        call.attendant.begin()
        await call.run(1600)
        call.session.on_event(ModelOpened())
        await call.run(1500)
        assert [m.text for m, _ in call.session.told] == ["Hello there."]
        assert call.tts.spoken == ["Hello there."]
        assert call.session.of("respond") == []

    alone(scenario, lambda: RealtimeCall(model=Model(opens=False)))


def test_what_the_model_is_told_by_us_is_told_to_each_session() -> None:
    async def scenario(call: RealtimeCall) -> None:
        call.attendant.begin()
        call.attendant.instruct("Come to an end.")
        await call.run(1600)
        call.session.on_event(ModelOpened())
        await call.run(1500)
        assert [m.text for m, _ in call.session.told].count("Come to an end.") == 1
        call.session.on_event(ModelLost(GONE))
        await call.run(500)
        assert len(call.model.sessions) == 2
        call.session.on_event(ModelOpened())
        await call.settle()
        assert [m.text for m, _ in call.session.told].count("Come to an end.") == 1

    alone(scenario, lambda: RealtimeCall(model=Model(opens=False)))


def test_a_model_that_never_opens_is_given_up_in_time_whatever_its_own_deadline() -> None:
    async def scenario(call: RealtimeCall) -> None:
        call.attendant.begin()
        await call.run(2980)
        assert call.fallen_back == 0
        await call.run(100)
        assert call.fallen_back == 1
        assert [session.closed for session in call.model.sessions] == [True]

    alone(scenario, lambda: RealtimeCall(model=Model(opens=False), reconnect_ms=3000))


def sick(call: RealtimeCall) -> RealtimeCall:
    """Other calls have found its model dead."""
    health = call.cascade.minds.health
    for _ in range(health.terms.failures):
        health.failed("realtime.model", GONE, call.clock.now())
    return call


def test_a_call_begins_on_the_cascade_where_others_have_found_the_model_dead() -> None:
    async def scenario(call: RealtimeCall) -> None:
        call.attendant.begin("Good evening.", [Message("summary", "Ada called before.")])
        await call.run(20)
        assert call.fallen_back == 1
        assert call.model.sessions == []
        assert call.tts.spoken == []
        assert call.attendant.conversation == [Message("summary", "Ada called before.")]
        assert "model_lost" in call.events

    alone(scenario, lambda: sick(RealtimeCall()))


def test_a_model_that_others_have_found_dead_is_asked_for_want_of_another_and_when_its_probe_is_due() -> None:
    async def scenario(call: RealtimeCall) -> None:
        call.attendant.begin()
        await call.run(100)
        assert call.fallen_back == 0
        call.session.says("Hello there.")
        await call.run(1000)
        assert call.cascade.minds.health.of("realtime.model").state == "closed"

    def due() -> RealtimeCall:
        call = sick(RealtimeCall())
        call.clock.advance(call.cascade.minds.health.terms.probe_after_s)
        return call

    def refused() -> RealtimeCall:
        call = sick(RealtimeCall())
        call.fall_back_decision = Refuse("no_consent", "not asked")
        return call

    alone(scenario, lambda: sick(RealtimeCall(fallback=False)))
    alone(scenario, due)
    alone(scenario, refused)


def test_what_becomes_of_its_sessions_is_known_to_the_next_call() -> None:
    async def conversation(call: RealtimeCall) -> None:
        breaker = call.cascade.minds.health.of("realtime.model")
        assert breaker.successes == 1
        call.model.opens = False
        call.session.on_event(ModelLost(GONE))
        for _ in range(2):
            await call.run(260)
            call.session.on_event(ModelLost(GONE))
        assert (breaker.state, breaker.failures, breaker.last_code) == ("open", 3, "unavailable")

    on_a_call(conversation)


def test_a_fallback_that_may_not_hear_the_caller_is_no_reason_to_leave_without_a_word() -> None:
    async def conversation(call: RealtimeCall) -> None:
        call.fall_back_decision = Refuse("no_consent", "not asked")
        call.session.on_event(ModelLost(FOR_GOOD))
        await call.run(1500)
        assert call.tts.spoken == ["Broken."]
        assert call.hang_ups == ["error"]

    on_a_call(conversation)


def test_who_takes_over_without_a_word_leaves_no_turn_in_the_record() -> None:
    async def main() -> None:
        call = RealtimeCall()
        call.attendant.begin("", [Message("caller", "are you open"), Message("agent", "Yes.")])
        await call.run(500)
        assert call.state is t.State.LISTENING
        assert call.turns == []
        await call.spoken()
        await call.took("u1")
        await call.transcribed("u1", "thank you")
        call.session.says("You are welcome.")
        await call.run(1500)
        assert [(turn.caller_text, turn.agent_text) for turn in call.turns] == [("thank you", "You are welcome.")]
        call.attendant.close()
        call.bus.close()
        await call.settle()

    asyncio.run(main())
