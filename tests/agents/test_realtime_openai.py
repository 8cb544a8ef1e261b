"""OpenAI's Realtime API as a provider, against a server with the real wire protocol."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from openai import AsyncOpenAI

from tests.fakes.openai_realtime_server import OpenAiRealtimeServer, Refusal, Reply, Tool
from trunkline.agents.definition import AgentDefinition, ProviderChoice, RealtimeTerms
from trunkline.agents.examples import example
from trunkline.agents.prompts import Told
from trunkline.agents.providers import Services, build_realtime
from trunkline.agents.realtime import openai as module
from trunkline.agents.realtime.openai import OpenAiRealtime, OpenAiRealtimeSession, read_options
from trunkline.agents.script import load
from trunkline.errors import ConfigError, ProviderError
from trunkline.ports import (
    CallFacts,
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
    RealtimeUsage,
    ReplyAudio,
    ReplyEnded,
    ReplyItemEnded,
    ReplyStarted,
    ReplyText,
    ReplyTool,
    ToolCall,
)
from trunkline.testing.clock import ManualClock
from trunkline.testing.conformance import RealtimeConformance, Situation, Stage
from trunkline.testing.ports import lease
from trunkline.types import DEFAULT_TENANT, MULAW_8K, CallId

CLOCK = ManualClock()
CALL = CallFacts(CallId("c1"), DEFAULT_TENANT, "inbound", "+12025550199", "+12025550100", CLOCK.wall())
STANDIN = ProviderChoice("standin")
BARE = AgentDefinition("Bare", STANDIN, STANDIN, STANDIN, "Hello.")
KEY = "sk-secret-4711"
LOUD, QUIET = b"\x10" * 160, b"\xff" * 160
WAIT_S = 5.0

E = TypeVar("E")


class Far:
    """One session, and what came of it."""

    def __init__(self, server: OpenAiRealtimeServer) -> None:
        self.server = server
        self.events: list[RealtimeEvent] = []
        self.came = asyncio.Event()
        self.session: OpenAiRealtimeSession

    def on_event(self, event: RealtimeEvent) -> None:
        self.events.append(event)
        self.came.set()

    async def until(self, happened: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not happened():
                self.came.clear()
                try:
                    async with asyncio.timeout(0.01):
                        await self.came.wait()
                except TimeoutError:
                    continue

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    async def opened(self) -> None:
        await self.until(lambda: self.of(ModelOpened) or self.of(ModelLost))
        assert self.of(ModelLost) == []

    async def lost(self) -> ProviderError:
        await self.until(lambda: self.of(ModelLost))
        error = self.of(ModelLost)[0].error
        assert isinstance(error, ProviderError)
        assert KEY not in repr(error) + str(error)
        return error


def with_session(
    test: Callable[[Far], Awaitable[None]],
    *,
    definition: AgentDefinition = BARE,
    turns: Any = "ours",
    conversation: Sequence[Message] = (),
    prepare: Callable[[OpenAiRealtimeServer], None] = lambda _: None,
    **options: Any,
) -> None:
    async def run() -> None:
        async with OpenAiRealtimeServer(key=KEY) as server:
            prepare(server)
            terms = RealtimeTerms(ProviderChoice("openai"), turns=turns)
            provider = OpenAiRealtime(
                replace(definition, realtime=terms),
                {"model": "fake", "base_url": server.base_url, **options},
                Services(CLOCK, keys={"openai": KEY}),
            )
            await provider.start()
            far = Far(server)
            far.session = provider.open(CALL, MULAW_8K, conversation, far.on_event)
            try:
                await test(far)
            finally:
                far.session.close()
                await provider.close()

    asyncio.run(run())


# --- the fake itself ------------------------------------------------------------------------------------------------


def test_the_sdk_speaks_with_the_fake() -> None:
    async def test(far: Far) -> None:
        far.server.replies.append(Reply("Hello there.", b"\x20" * 3200, (Tool("hang_up", '{"a": 1}'),)))
        client = AsyncOpenAI(base_url=far.server.base_url, api_key=KEY)
        async with client.realtime.connect(model="fake") as connection:
            await connection.session.update(session={"type": "realtime", "output_modalities": ["audio"]})
            await connection.response.create()
            kinds: list[str] = []
            async for event in connection:
                kinds.append(event.type)
                if event.type == "response.done":
                    assert event.response.status == "completed"
                    assert event.response.usage is not None
                    assert event.response.usage.input_tokens == 70
                    break
        await client.close()
        assert kinds[:2] == ["session.created", "session.updated"]
        assert kinds.count("response.output_audio.delta") == 2
        assert "response.function_call_arguments.done" in kinds

    with_session(test)


def test_the_fake_refuses_what_is_no_event_of_the_api() -> None:
    async def test(far: Far) -> None:
        await far.opened()
        far.session._send({"type": "response.createe"})
        await far.until(lambda: far.server.session.refused == ["invalid_event"])

    with_session(test)


# --- a session ------------------------------------------------------------------------------------------------------


def test_a_model_of_several_languages_is_told_them_and_its_transcriber_is_not_held_to_one() -> None:
    clinic = load(example("clinic"))
    spanish = replace(clinic, language="es-ES")

    async def test(far: Far) -> None:
        await far.opened()
        config = far.server.session.config
        assert "en-US, es-ES" in config["instructions"]
        assert "call speak_language before" in config["instructions"]
        assert config["audio"]["input"]["transcription"] == {"model": "gpt-transcribe"}
        assert "speak_language" in [tool["name"] for tool in config["tools"]]

    with_session(test, definition=replace(clinic, languages={"es-ES": spanish}))


def test_a_session_is_mu_law_both_ways_with_the_agents_voice_tools_and_instructions() -> None:
    async def test(far: Far) -> None:
        await far.opened()
        session = far.server.session
        assert session.path == "/v1/realtime?model=fake"
        assert session.headers["Authorization"] == f"Bearer {KEY}"
        config = session.config
        assert (config["type"], config["output_modalities"]) == ("realtime", ["audio"])
        assert config["instructions"].startswith("Be kind.")
        assert config["audio"]["input"] == {
            "format": {"type": "audio/pcmu"},
            "transcription": {"model": "gpt-transcribe", "language": "en"},
            "turn_detection": None,
        }
        assert config["audio"]["output"] == {"format": {"type": "audio/pcmu"}, "voice": "cedar"}
        assert [tool["name"] for tool in config["tools"]] == ["hang_up", "transfer", "expect_digits"]
        assert session.refused == []

    with_session(test, definition=load(example("clinic")), instructions="Be kind.", voice="cedar")


def test_the_server_owns_the_turns_where_the_file_says_so() -> None:
    async def test(far: Far) -> None:
        await far.opened()
        detection = far.server.session.config["audio"]["input"]["turn_detection"]
        assert detection == {
            "type": "server_vad",
            "threshold": 0.5,
            "prefix_padding_ms": 300,
            "silence_duration_ms": 300,
            "create_response": True,
            "interrupt_response": True,
        }

    with_session(test, turns="server", vad_silence_ms=300)


@pytest.mark.parametrize(("lasts_s", "slow_s", "told"), [(1800.0, 0, 1800.0), (None, 0, None), (1800.0, 3600, None)])
def test_how_long_a_session_lasts_is_told(lasts_s: float | None, slow_s: float, told: float | None) -> None:
    def prepare(server: OpenAiRealtimeServer) -> None:
        server.lasts_s, server.epoch = lasts_s, lambda: CLOCK.wall().timestamp() - slow_s

    async def test(far: Far) -> None:
        await far.until(lambda: far.events)
        assert far.events[0] == ModelOpened(told)

    with_session(test, prepare=prepare)


def test_a_session_that_expires_may_be_followed_by_another() -> None:
    def prepare(server: OpenAiRealtimeServer) -> None:
        server.lasts_s = 0.1

    async def test(far: Far) -> None:
        error = await far.lost()
        assert (error.code, error.detail, error.retryable) == ("unavailable", "session_expired", True)

    with_session(test, prepare=prepare)


def test_a_conversation_is_carried_into_the_session_before_it_opens() -> None:
    called = Message("agent", "One moment", tool_calls=(ToolCall("1", "lookup", {"a": 2}),), cut=True)

    async def test(far: Far) -> None:
        await far.opened()
        await far.until(lambda: len(far.server.session.items) == 6)
        summary, *_ = far.server.session.items
        assert (summary["role"], summary["content"][0]["type"]) == ("user", "input_text")
        assert summary["content"][0]["text"].endswith("<summary>\nShe has paid.\n</summary>")
        assert [{k: v for k, v in item.items() if k != "id"} for item in far.server.session.items[1:]] == [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "My name is Ada."}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "One moment..."}]},
            {"type": "function_call", "call_id": "1", "name": "lookup", "arguments": '{"a": 2}'},
            {"type": "function_call_output", "call_id": "1", "output": "found"},
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "(keyed on the telephone's keypad) 12"}],
            },
        ]
        assert far.server.session.refused == []

    said = [
        Message("summary", "She has paid."),
        Message("caller", "My name is Ada."),
        called,
        Message("tool", "found", tool_call_id="1"),
        Message("caller", "12", keyed=True),
    ]
    with_session(test, conversation=said)


def test_what_the_caller_says_reaches_the_model_byte_for_byte_and_is_committed_and_transcribed() -> None:
    audio = bytes(range(160)) * 25

    async def test(far: Far) -> None:
        far.server.transcripts.append("my name is Ada")
        await far.opened()
        for at in range(0, len(audio), 160):
            far.session.hear(audio[at : at + 160])
        far.session.commit("7")
        await far.until(lambda: far.of(ModelTranscribed))
        took = far.of(ModelTook)[0]
        assert took.utterance == "7"
        assert far.of(ModelTranscribed) == [ModelTranscribed(took.item, "my name is Ada")]
        assert far.server.session.utterances == [audio]

    with_session(test)


def test_a_reply_is_its_audio_its_words_its_tools_and_its_tokens() -> None:
    audio = bytes(range(256)) * 16

    async def test(far: Far) -> None:
        far.server.replies.append(Reply("We open at eight.", audio, (Tool("transfer", '{"target": "x"}', "c9"),)))
        await far.opened()
        far.session.respond("3")
        await far.until(lambda: far.of(ReplyEnded))
        started, ended = far.of(ReplyStarted)[0], far.of(ReplyEnded)[0]
        assert started.tag == "3"
        assert b"".join(each.data for each in far.of(ReplyAudio)) == audio
        assert {each.reply for each in far.of(ReplyAudio)} == {started.reply}
        assert "".join(t.text for t in far.of(ReplyText) if not t.whole).split() == ["We", "open", "at", "eight."]
        assert [each.text for each in far.of(ReplyText) if each.whole] == ["We open at eight."]
        assert len(far.of(ReplyItemEnded)) == 1
        assert far.of(ReplyTool) == [ReplyTool(started.reply, ToolCall("c9", "transfer", {"target": "x"}))]
        assert ended == ReplyEnded(started.reply, "3", RealtimeUsage(30, 12, 40, 60))

    with_session(test)


def test_what_the_model_was_told_is_hashed_message_by_message_but_for_the_sound() -> None:
    async def test(far: Far) -> None:
        far.server.replies.append(Reply("We open at eight."))
        await far.opened()
        far.session.hear(bytes(800))
        far.session.commit("u1")
        far.session.tell(Message("caller", "when do you open"))
        far.session.respond("1")
        prompt = far.session.prompt_sha256
        await far.until(lambda: far.of(ReplyEnded))
        told = Told()
        for event in far.server.session.events:
            text = json.dumps(event, sort_keys=True, separators=(",", ":")).encode()
            told.add(text)
        assert prompt == told.sha256
        assert far.server.session.types()[:2] == ["session.update", "input_audio_buffer.commit"]

    with_session(test)


def test_a_line_is_asked_for_word_for_word_and_without_tools() -> None:
    async def test(far: Far) -> None:
        far.server.line = Reply(audio=b"\x20" * 800)
        await far.opened()
        far.session.respond("1", 'Say "hi".')
        await far.until(lambda: far.of(ReplyEnded))
        asked = next(event for event in far.server.session.events if event["type"] == "response.create")["response"]
        assert asked["instructions"].endswith('and nothing else: "Say \\"hi\\"."')
        assert asked["tool_choice"] == "none"

    with_session(test)


def test_cancel_stops_the_model_and_truncate_cuts_what_was_not_heard() -> None:
    async def test(far: Far) -> None:
        far.server.replies.append(Reply("A long story.", b"\x20" * 80_000, between_s=0.02))
        await far.opened()
        far.session.respond("1")
        await far.until(lambda: len(far.of(ReplyAudio)) == 5)
        audio = far.of(ReplyAudio)[0]
        far.session.cancel(audio.reply)
        far.session.truncate(audio.item, 437)
        far.session.truncate("unheard", 0)
        await far.until(lambda: far.of(ReplyEnded) and far.server.session.deleted)
        session = far.server.session
        assert session.truncated == [(audio.item, 437)]
        assert session.deleted == ["unheard"]
        assert session.cancelled == 1
        assert far.of(ReplyEnded)[0].usage == RealtimeUsage(30, 2, 40, 10)
        assert session.refused == []

    with_session(test)


def test_the_servers_detector_tells_when_speech_began_and_ended() -> None:
    async def test(far: Far) -> None:
        far.server.replies.append(Reply("Yes.", b"\x20" * 800))
        await far.opened()
        for frame in [QUIET] * 20 + [LOUD] * 30 + [QUIET] * 26:
            far.session.hear(frame)
        await far.until(lambda: far.of(ReplyEnded))
        began, ended = far.of(ModelSpeechStarted)[0], far.of(ModelSpeechEnded)[0]
        assert began.ago_ms == 56 * 20  # all of it was sent at once
        assert ended.ago_ms == 500  # the silence that ended the turn
        assert far.of(ReplyStarted)[0].tag == ""

    with_session(test, turns="server")


def test_closing_a_session_closes_its_connection() -> None:
    async def test(far: Far) -> None:
        far.server.replies.append(Reply("A long story.", b"\x20" * 80_000, between_s=0.02))
        await far.opened()
        far.session.respond("1")
        await far.until(lambda: far.of(ReplyAudio))
        far.session.close()
        far.session.close()
        count = len(far.events)
        async with asyncio.timeout(WAIT_S):
            await far.server.session.closed.wait()
        assert len(far.events) == count

    with_session(test)


# --- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refusal", "code", "retryable", "detail"),
    [
        (Refusal(401), "auth", False, "status 401"),
        (Refusal(403), "auth", False, "status 403"),
        (Refusal(429, {"Retry-After": "7"}), "rate_limited", True, "retry after 7 s"),
        (Refusal(429, body='{"error": {"code": "insufficient_quota"}}'), "rate_limited", False, "quota used up"),
        (Refusal(500), "unavailable", True, "status 500"),
        (Refusal(404), "bad_request", False, "status 404"),
    ],
)
def test_a_session_that_is_refused(refusal: Refusal, code: str, retryable: bool, detail: str) -> None:
    async def test(far: Far) -> None:
        error = await far.lost()
        assert (error.provider, error.code, error.retryable, error.detail) == ("openai", code, retryable, detail)

    with_session(test, prepare=lambda server: server.refusals.append(refusal))


def test_a_server_that_does_not_begin_is_waited_for_only_so_long() -> None:
    def slow(server: OpenAiRealtimeServer) -> None:
        server.create_s = 60

    async def test(far: Far) -> None:
        error = await far.lost()
        assert (error.code, error.retryable) == ("timeout", True)

    with_session(test, prepare=slow, connect_ms=100)


def test_nobody_there_is_no_connection() -> None:
    async def test(far: Far) -> None:
        error = await far.lost()
        assert (error.code, error.retryable) == ("unavailable", True)

    with_session(test, base_url="http://127.0.0.1:9/v1")


def test_a_connection_that_breaks_in_an_answer_is_told_once_and_last() -> None:
    async def test(far: Far) -> None:
        far.server.replies.append(Reply("A long story.", b"\x20" * 80_000, drop_after=2))
        await far.opened()
        far.session.respond("1")
        error = await far.lost()
        assert (error.code, error.retryable) == ("unavailable", True)
        assert isinstance(far.events[-1], ModelLost)
        assert len(far.of(ReplyAudio)) == 2

    with_session(test)


@pytest.mark.parametrize(
    "garbage", [b"{", b"[]", b'{"type": 5}', b'{"type":"response.output_audio.delta","delta":"!"}']
)
def test_garbage_ends_the_session_as_a_protocol_error(garbage: bytes) -> None:
    async def test(far: Far) -> None:
        far.server.garbage = garbage
        await far.opened()
        far.session.respond("1")
        error = await far.lost()
        assert error.code == "protocol"

    with_session(test)


def test_a_failed_response_leaves_the_session_open() -> None:
    async def test(far: Far) -> None:
        far.server.replies += [Reply(fails="rate_limit_exceeded", usage=None), Reply("Yes.", b"\x20" * 800)]
        await far.opened()
        far.session.respond("1")
        await far.until(lambda: far.of(ReplyEnded))
        error = far.of(ReplyEnded)[0].error
        assert isinstance(error, ProviderError)
        assert (error.code, error.retryable) == ("rate_limited", True)
        far.session.respond("2")
        await far.until(lambda: len(far.of(ReplyEnded)) == 2)
        assert far.of(ReplyEnded)[1].error is None

    with_session(test)


def test_an_order_that_is_refused_is_told_by_its_name() -> None:
    async def test(far: Far) -> None:
        await far.opened()
        far.session.commit("5")  # nothing was heard
        await far.until(lambda: far.of(ModelRefused))
        assert far.of(ModelRefused) == [ModelRefused("5", "input_audio_buffer_commit_empty")]
        far.session.hear(LOUD * 10)
        far.session.commit("6")
        await far.until(lambda: far.of(ModelTook))
        assert far.of(ModelTook)[0].utterance == "6"

    with_session(test)


def test_a_server_that_falls_silent_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PULSE_S", 0.05)

    async def test(far: Far) -> None:
        await far.opened()
        await asyncio.sleep(0.2)
        assert far.of(ModelLost) == []  # it answers pings
        socket = far.server.session.socket
        assert socket is not None
        socket.transport.pause_reading()
        error = await far.lost()
        assert (error.code, error.retryable) == ("timeout", True)

    with_session(test)


def test_a_server_that_does_not_read_costs_no_memory() -> None:
    async def test(far: Far) -> None:
        await far.opened()
        socket = far.server.session.socket
        assert socket is not None
        socket.transport.pause_reading()
        for _ in range(20_000):
            far.session.hear(LOUD * 5)
            if far.of(ModelLost):
                break
            await asyncio.sleep(0)
        assert (await far.lost()).retryable

    with_session(test)


# --- options --------------------------------------------------------------------------------------------------------


def test_a_missing_key_is_one_line_before_any_call() -> None:
    with pytest.raises(ConfigError, match=r"openai\.api_key"):
        OpenAiRealtime(BARE, {"model": "gpt-realtime-2.1"}, Services(CLOCK))


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({}, "model"),
        ({"model": "m", "vad": "magic"}, "vad"),
        ({"model": "m", "base_url": "ftp://x"}, "base_url"),
        ({"model": "m", "voices": "x"}, "voices"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_options(options)
    assert caught.value.key == key


def test_the_provider_is_found_by_its_entry_point() -> None:
    terms = RealtimeTerms(ProviderChoice("openai", {"model": "m"}))
    found = build_realtime(replace(BARE, realtime=terms), Services(CLOCK, keys={"openai": KEY}))
    assert isinstance(found, OpenAiRealtime)
    assert build_realtime(BARE, Services(CLOCK)) is None


# --- the suite of its port ------------------------------------------------------------------------------------------


class TestOpenAiRealtime(RealtimeConformance):
    situations = frozenset(
        ("answers", "silent", "stalls", "breaks", "garbage", "unauthorized", "rate_limited", "fails", "absent")
    )
    secrets = (KEY,)

    @asynccontextmanager
    async def stage(self, situation: Situation) -> AsyncGenerator[Stage[Realtime], None]:
        audio = bytes(range(0x20, 0xA0)) * 63
        async with OpenAiRealtimeServer(key=KEY) as server:
            server.line = Reply(audio=audio)
            server.transcripts += [self.words] * 4
            match situation:
                case "silent":
                    server.create_s = 60.0
                case "stalls":
                    server.replies.append(Reply("We open at eight.", audio, stall_after=2))
                case "breaks":
                    server.replies.append(Reply("We open at eight.", audio, drop_after=2))
                case "garbage":
                    server.garbage = b'{"type": garbage'
                case "unauthorized":
                    server.refusals.append(Refusal(401, body=f'{{"error": "Incorrect API key: {KEY}"}}'))
                case "rate_limited":
                    server.refusals.append(Refusal(429, {"retry-after": "7"}))
                case "fails":
                    server.refusals.append(Refusal(500, body=KEY))
                case _:
                    server.replies += [Reply("We open at eight.", audio)] * 4
            url = f"http://127.0.0.1:{lease()}/v1" if situation == "absent" else server.base_url
            options = {"model": "m", "base_url": url, "connect_ms": 500}
            provider = OpenAiRealtime(
                replace(BARE, realtime=RealtimeTerms(ProviderChoice("openai"))),
                options,
                Services(CLOCK, keys={"openai": KEY}),
            )

            async def closed() -> None:
                while not server.sessions:
                    await asyncio.sleep(0.01)
                await server.session.closed.wait()

            yield Stage(provider, closed)


def test_a_session_that_is_closed_in_mid_sentence_tells_the_server_nothing_more() -> None:
    """Consent was withdrawn: also the frames that wait for the rest of their message stay here."""

    async def scenario(far: Far) -> None:
        await far.opened()
        loop = asyncio.get_running_loop()
        for _ in range(25):
            far.session.hear(LOUD)
            await asyncio.sleep(0.02)
        far.session.hear(LOUD)  # of a message that is not full
        far.session.close()
        shut = loop.time()
        heard = len(far.server.session.heard)
        for _ in range(15):
            far.session.hear(LOUD)
            far.session.tell(Message("caller", "stop recording"))
            far.session.commit("u1")
            await asyncio.sleep(0.02)
        session = far.server.session
        assert session.closed.is_set()
        assert heard > 0
        assert max(session.told_at) <= shut + 0.02
        assert heard <= len(session.heard) <= 25 * 160  # what was on its way, and not the frame that waited

    with_session(scenario)
