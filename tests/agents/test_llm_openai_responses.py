"""`llm.openai` over the Responses API, against a server with the real wire protocol."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.fakes.openai_server import Answer, Call, Drop, Fail, OpenAiServer, Raw, Refusal, Wait
from trunkline.agents.definition import AgentDefinition, ProviderChoice
from trunkline.agents.examples import example
from trunkline.agents.llm.openai import OpenAiLlm, OpenAiSession, read_options
from trunkline.agents.providers import Services
from trunkline.agents.script import load
from trunkline.errors import ConfigError, ProviderError
from trunkline.ports import CallFacts, Expect, Expectation, Llm, LlmEvent, LlmUsage, Message, TextDelta, ToolCall
from trunkline.testing.clock import ManualClock
from trunkline.testing.conformance import LlmConformance, Situation, Stage
from trunkline.types import DEFAULT_TENANT, CallId

CLOCK = ManualClock()
CALL = CallFacts(CallId("c1"), DEFAULT_TENANT, "inbound", "+12025550199", "+12025550100", CLOCK.wall())
CLINIC = load(example("clinic"))
STANDIN = ProviderChoice("standin")
BARE = AgentDefinition("Bare", STANDIN, STANDIN, STANDIN, "Hello.")
KEY = "sk-secret-4711"
ASKED = [Message("agent", "Hello."), Message("caller", "When do you open?")]
EXPECT = Expect(Expectation())
SITUATIONS: dict[Situation, list[Answer | Refusal]] = {
    "answers": [Answer("We open", " at eight.")] * 2,
    "silent": [Answer(Wait())],
    "stalls": [Answer("We open", Wait())],
    "breaks": [Answer("We open", Drop())],
    "garbage": [Answer("We open", Raw(b"data: {garbage\n\n"))],
    "unauthorized": [Refusal(401, f"Incorrect API key provided: {KEY}")],
    "rate_limited": [Refusal(429, headers={"retry-after": "7"})],
    "fails": [Refusal(500, f"no {KEY}")],
    "absent": [],
}


class TestConformance(LlmConformance):
    situations = frozenset(SITUATIONS)
    secrets = (KEY,)

    @asynccontextmanager
    async def stage(self, situation: Situation) -> AsyncGenerator[Stage[Llm], None]:
        async with OpenAiServer() as server:
            server.answers.extend(SITUATIONS[situation])
            patience_ms = 300 if situation in ("silent", "stalls") else 1500  # a machine at work is slow
            llm = mind(server, first_token_ms=patience_ms, between_tokens_ms=patience_ms)
            if situation == "absent":
                await server.__aexit__()
            yield Stage(llm, server.disconnected.wait)


def mind(server: OpenAiServer, definition: AgentDefinition = BARE, **options: Any) -> OpenAiLlm:
    held = {"model": "m", "base_url": server.base_url, "api": "responses", **options}
    return OpenAiLlm(definition, held, Services(CLOCK, keys={"openai": KEY}))


def with_server(
    test: Callable[[OpenAiServer, OpenAiSession], Awaitable[None]], *answers: Answer | Refusal, **options: Any
) -> None:
    async def run() -> None:
        async with asyncio.timeout(20), OpenAiServer() as server:
            server.answers.extend(answers)
            llm = mind(server, **options)
            await llm.start()
            try:
                await test(server, llm.open(CALL))
            finally:
                await llm.close()

    asyncio.run(run())


async def collect(session: OpenAiSession, conversation: Sequence[Message] = ASKED) -> list[LlmEvent]:
    return [event async for event in session.reply(conversation)]


def failure_of(*answers: Answer | Refusal, **options: Any) -> ProviderError:
    found: list[ProviderError] = []

    async def test(server: OpenAiServer, session: OpenAiSession) -> None:
        with pytest.raises(ProviderError) as caught:
            await collect(session)
        found.append(caught.value)

    with_server(test, *answers, **options)
    assert KEY not in repr(found[0])
    return found[0]


def test_the_sdk_reads_what_the_fake_writes() -> None:
    async def test(server: OpenAiServer, _: OpenAiSession) -> None:
        async with (
            AsyncOpenAI(base_url=server.base_url, api_key="x", max_retries=0) as client,
            client.responses.stream(model="m", input="hi") as stream,
        ):
            whole = await stream.get_final_response()
        assert whole.output_text == "Hello."
        call = whole.output[1]
        assert call.type == "function_call"
        assert (call.name, call.arguments, call.call_id) == ("hang_up", '{"a": 1}', "call_abc")
        assert whole.usage is not None
        assert (whole.usage.input_tokens, whole.usage.output_tokens) == (12, 5)

    with_server(test, Answer("Hel", "lo.", Call("hang_up", '{"a": 1}')))


def test_text_comes_as_it_is_written_then_the_usage() -> None:
    async def test(server: OpenAiServer, session: OpenAiSession) -> None:
        assert await collect(session) == [TextDelta("We open"), TextDelta(" at eight."), LlmUsage(12, 5), EXPECT]

    with_server(test, Answer("We open", " at eight."))


def test_the_request_stores_nothing_and_holds_the_conversation_as_heard() -> None:
    called = Message("agent", "One moment.", tool_calls=(ToolCall("1", "transfer", {"target": "x"}),))
    orphan = Message("agent", "", tool_calls=(ToolCall("2", "hang_up", {}),))
    conversation = [
        *ASKED,
        Message("agent", "The clinic is", cut=True),
        Message("caller", "1234", keyed=True),
        called,
        orphan,
        Message("tool", "no", tool_call_id="1"),
    ]

    async def test(server: OpenAiServer, session: OpenAiSession) -> None:
        await collect(session, conversation)
        (request,) = server.requests
        assert request.path == "/v1/responses"
        body = request.body
        assert (body["store"], body["stream"], body["max_output_tokens"], body["temperature"]) == (
            False,
            True,
            120,
            0.5,
        )
        assert body["instructions"].startswith("Be kind.")
        assert body["input"] == [
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "When do you open?"},
            {"role": "assistant", "content": "The clinic is..."},
            {"role": "user", "content": "(keyed on the telephone's keypad) 1234"},
            {"role": "assistant", "content": "One moment."},
            {"type": "function_call", "call_id": "1", "name": "transfer", "arguments": '{"target": "x"}'},
            {"type": "function_call_output", "call_id": "1", "output": "no"},
        ]
        tools = body["tools"]
        assert [tool["name"] for tool in tools] == ["hang_up", "transfer", "expect_digits"]
        assert {tool["type"] for tool in tools} == {"function"}
        assert {tool["strict"] for tool in tools} == {False}

    with_server(test, Answer("Yes."), definition=CLINIC, instructions="Be kind.", max_tokens=120, temperature=0.5)


def test_tool_calls_in_pieces_become_tool_calls() -> None:
    async def test(server: OpenAiServer, session: OpenAiSession) -> None:
        assert await collect(session) == [
            TextDelta("One moment."),
            ToolCall("call_abc", "transfer", {"target": "reception"}),
            ToolCall("call_2", "hang_up", {}),
            LlmUsage(12, 5),
            EXPECT,
        ]

    call, other = Call("transfer", '{"target": "reception"}'), Call("hang_up", "", "call_2")
    with_server(test, Answer("One moment.", call, other), definition=CLINIC)


def test_a_model_that_expects_digits_opens_the_keypad() -> None:
    async def test(server: OpenAiServer, session: OpenAiSession) -> None:
        assert (await collect(session))[-1] == Expect(Expectation(digits_min=4, digits_max=4))

    with_server(test, Answer("Key it in.", Call("expect_digits", '{"name": "appointment"}')), definition=CLINIC)


def test_an_answer_that_is_cut_at_its_longest_is_an_answer() -> None:
    async def test(server: OpenAiServer, session: OpenAiSession) -> None:
        assert await collect(session) == [TextDelta("We open"), LlmUsage(12, 5), EXPECT]

    with_server(test, Answer("We open", finish="length"))


@pytest.mark.parametrize("event", [False, True])
@pytest.mark.parametrize(
    ("code", "ours", "retryable"),
    [
        ("server_error", "unavailable", True),
        ("rate_limit_exceeded", "rate_limited", True),
        ("insufficient_quota", "rate_limited", False),
        ("server_is_overloaded", "overloaded", True),
        ("invalid_prompt", "bad_request", False),
    ],
)
def test_a_response_that_fails_is_typed_after_what_it_said(code: str, ours: str, retryable: bool, event: bool) -> None:
    async def test(server: OpenAiServer, session: OpenAiSession) -> None:
        events = session.reply(ASKED)
        assert await anext(events) == TextDelta("We open")
        with pytest.raises(ProviderError) as caught:
            await anext(events)
        assert (caught.value.code, caught.value.retryable) == (ours, retryable)
        assert KEY not in repr(caught.value)

    with_server(test, Answer("We open", Fail(code, f"no {KEY}", event)))


@pytest.mark.parametrize(
    ("answer", "retryable"),
    [
        (Answer("We", Drop()), True),
        (Answer(Drop()), True),
        (Answer("We", finish=None), True),
        (Answer("We", Raw(b"data: {garbage\n\n")), False),
        (Answer("We", Raw(b'event: error\ndata: {"type": "error", "error": {"message": "x"}}\n\n')), True),
    ],
)
def test_an_answer_that_breaks_off_is_a_protocol_error(answer: Answer, retryable: bool) -> None:
    error = failure_of(answer)
    assert (error.code, error.retryable) == ("protocol", retryable)


@pytest.mark.parametrize(
    "data",
    [
        b"data: 5\n\n",
        b'event: response.output_text.delta\ndata: {"type": "response.output_text.delta", "delta": 5}\n\n',
        b'event: x\ndata: {"type": "response.output_item.added", "item": 3, "output_index": "a"}\n\n',
        b'event: x\ndata: {"type": "response.function_call_arguments.delta", "delta": {}}\n\n',
        b'event: x\ndata: {"type": "response.of.the.future"}\n\n',
        b": a comment\n\n",
    ],
)
def test_odd_events_harm_nothing(data: bytes) -> None:
    async def test(server: OpenAiServer, session: OpenAiSession) -> None:
        events = await collect(session)
        assert [event.text for event in events if isinstance(event, TextDelta)] == ["We", " open."]

    with_server(test, Answer("We", Raw(data), " open."))


def test_thinking_without_a_word_is_a_timeout() -> None:
    thinking = Raw(b'event: x\ndata: {"type": "response.reasoning_summary_text.delta", "delta": "hm"}\n\n')
    error = failure_of(Answer(thinking, Wait(0.1), thinking, Wait(0.1), thinking, Wait()), first_token_ms=150)
    assert (error.code, error.detail) == ("timeout", "no first token")


def test_there_are_two_apis() -> None:
    with pytest.raises(ConfigError) as caught:
        read_options({"model": "m", "api": "assistants"})
    assert caught.value.key == "api"
    assert read_options({"model": "m"}).api == "chat"
